"""Videos -> shards: kept clips, reasons for rejections, and safe interruption at any time."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from conftest import DRIVER_FPS, Driver, write_clip
from made_files import texture, touch
from mimik.config import InputError
from mimik.data import prepare as module
from mimik.data.index import read_index
from mimik.data.preparation import clips, shard_folder
from mimik.data.preparation.clips import cut, prepare_video
from mimik.data.preparation.overview import PrepareReport
from mimik.data.preparation.settings import Clip, PrepareConfig, Reason, Rejection, VideoResult
from mimik.data.preparation.shard_folder import ShardFolder
from mimik.data.preparation.sources import read_manifest
from mimik.data.prepare import VideoTask, prepare
from mimik.data.store import ClipStore
from mimik.data.tracks import unpack_tracks
from mimik.face.landmarks import Image, Landmarker
from mimik.media import video

CONFIG = PrepareConfig(size=128, min_seconds=0.6)


# One run over one video of each kind.


def beside(left: Image, right: Image, gap: int) -> Image:
    """Two faces in one picture, with centers `gap` px apart."""
    height, width = left.shape[:2]
    out = np.zeros((height, width + gap, 3), np.uint8)
    out[:, gap:] = right
    out[:, : width // 2 + gap // 2] = (
        left[:, : width // 2 + gap // 2] if gap >= width else left[:, : (width + gap) // 2]
    )
    return out


@pytest.fixture(scope="session")
def folder(driver: Driver, small_portrait: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video of each kind."""
    folder = tmp_path_factory.mktemp("videos")
    frames = driver.frames
    some = frames[:18]  # long enough for a clip
    write_clip(folder / "a_talk.mp4", frames)
    later = [np.ascontiguousarray(f) for f in frames[::-1]]
    write_clip(folder / "b_cut.mp4", [cv2.LUT(f, np.arange(255, -1, -1, np.uint8)) // 3 for f in frames[:10]] + later)
    with video.open_writer(folder / "c_copy.mp4", 256, 256, DRIVER_FPS, quality=26) as writer:
        for frame in frames:
            writer.write(frame)
    pan = [np.roll(small_portrait, (i // 4, i // 3), (0, 1)) for i in range(18)]
    write_clip(folder / "d_still.mp4", pan)
    write_clip(folder / "e_blurred.mp4", [cv2.GaussianBlur(f, (0, 0), 3) for f in some])
    tiny = []
    for frame in some:
        canvas = texture(5, (320, 320)) // 2
        canvas[100:196, 100:196] = cv2.resize(frame, (96, 96), interpolation=cv2.INTER_AREA)
        tiny.append(canvas)
    write_clip(folder / "f_tiny.mp4", tiny)
    write_clip(folder / "g_short.mp4", frames[:8])
    write_clip(folder / "h_nobody.mp4", [texture(7, (256, 256))] * 20)
    write_clip(folder / "i_two.mp4", [beside(a, b[:, ::-1], 256) for a, b in zip(frames, later, strict=True)])
    write_clip(folder / "j_overlap.mp4", [beside(a, b[:, ::-1], 100) for a, b in zip(some, later, strict=False)])
    (folder / "k_text.mp4").write_text("this is no video")
    (folder / "l_truncated.mp4").write_bytes((folder / "a_talk.mp4").read_bytes()[:900])
    (folder / "notes.txt").write_text("not looked at")
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_landmarker(landmarker: Landmarker) -> Iterator[None]:
    """One per process, because loading the networks takes longer than preparing most of these videos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "process_landmarker", lambda: landmarker)  # workers have their own
        yield


@pytest.fixture(scope="session")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareReport]:
    out = tmp_path_factory.mktemp("shards") / "out"
    return out, prepare([folder], out, CONFIG, people="clip", num_workers=0)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def reasons(out: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in lines(out / "rejected.jsonl"):
        found.setdefault(record["source"][2:-4], []).append(record["reason"])
    return found


def test_each_kind_of_video_is_kept_or_not_for_its_reason(shards: tuple[Path, PrepareReport]) -> None:
    out, report = shards
    kept = Counter(entry["source"][2:-4] for entry in lines(out / "index.jsonl"))
    assert kept == {"talk": 1, "cut": 1, "two": 1}, reasons(out)
    found = reasons(out)
    assert found.pop("cut") == ["too-short"]
    assert set(found.pop("overlap")) == {"overlapping-faces"}
    assert found == {
        "copy": ["duplicate"],
        "two": ["duplicate"],
        "still": ["still-image"],
        "blurred": ["blurred"],
        "tiny": ["too-small"],
        "short": ["too-short"],
        "nobody": ["no-face"],
        "text": ["unreadable-video"],
        "truncated": ["unreadable-video"],
    }
    assert (report.num_videos, report.num_clips, report.num_people) == (12, 3, 3)
    assert report.reasons["unreadable-video"] == 2
    assert "duplicate" in report.table() and "3 (" in report.table()
    assert json.loads(report.to_json())["num_clips"] == 3


def test_the_copy_names_its_original(shards: tuple[Path, PrepareReport]) -> None:
    out, _ = shards
    record = next(r for r in lines(out / "rejected.jsonl") if r["reason"] == "duplicate")
    assert lines(out / "index.jsonl")[0]["key"] in record["detail"]


def test_a_shot_after_a_cut_starts_at_the_cut(shards: tuple[Path, PrepareReport]) -> None:
    entry = next(e for e in lines(shards[0] / "index.jsonl") if e["source"] == "b_cut.mp4")
    assert (entry["start_s"], entry["end_s"]) == (10 / DRIVER_FPS, 38 / DRIVER_FPS)
    assert (entry["num_frames"], entry["fps"]) == (14, 12.5)


def test_shards_are_webdataset_tars_and_the_index_points_into_them(
    shards: tuple[Path, PrepareReport], folder: Path
) -> None:
    out, _ = shards
    entries = read_index(out)
    with tarfile.open(out / "clips-000000.tar") as tar:
        names = tar.getnames()
        assert names == [f"{e.key}.{suffix}" for e in entries for suffix in ("mp4", "npz", "json")]
        data = (out / "clips-000000.tar").read_bytes()
        for entry in entries:
            for suffix, (offset, size) in entry.members.items():
                extracted = tar.extractfile(f"{entry.key}.{suffix}")
                assert extracted is not None and data[offset : offset + size] == extracted.read()
            offset, size = entry.members["json"]
            assert json.loads(data[offset : offset + size])["key"] == entry.key
            assert hashlib.sha256((folder / entry.source).read_bytes()).hexdigest() == entry.source_sha256


def test_landmarks_lie_on_the_face_in_the_crop(shards: tuple[Path, PrepareReport], landmarker: Landmarker) -> None:
    out, _ = shards
    errors = []
    for entry in read_index(out):
        data = (out / entry.shard).read_bytes()
        mp4, npz = (data[o : o + n] for o, n in (entry.members["mp4"], entry.members["npz"]))
        tracks = unpack_tracks(npz)
        frames = video.read_clip(mp4, range(entry.num_frames))
        assert len(frames) == len(tracks.points) == len(tracks.blendshapes) == len(tracks.pose) == entry.num_frames
        assert frames[0].shape == (128, 128, 3)
        for i in (0, 5, entry.num_frames - 1):
            found = landmarker.detect(frames[i])[0]
            distance = np.linalg.norm(found.points[:, :2] - tracks.points[i, :, :2], axis=1).mean()
            errors.append(distance / found.width_px)
        # The face is centered and fills about half of the crop.
        assert 0.3 < entry.face_px / 128 < 0.6
        assert entry.yaw_range[0] <= tracks.pose[:, 0].mean() <= entry.yaw_range[1]
    assert max(errors) < 0.02, errors


def test_a_picture_is_a_clip_of_one_frame_or_has_a_reason(small_portrait: Image, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    video.write_image(pictures / "face.png", small_portrait)
    video.write_image(pictures / "mist.jpg", cv2.GaussianBlur(small_portrait, (0, 0), 4))
    video.write_image(pictures / "nobody.png", texture(7, (256, 256)))
    (pictures / "text.webp").write_text("this is no picture")
    out = tmp_path / "out"
    report = prepare([pictures], out, CONFIG, people="clip", num_workers=0)
    (entry,) = read_index(out)
    assert (entry.source, entry.num_frames, entry.size) == ("face.png", 1, 128)
    found = {record["source"]: record["reason"] for record in lines(out / "rejected.jsonl")}
    assert found == {"mist.jpg": "blurred", "nobody.png": "no-face", "text.webp": "unreadable-video"}
    assert (report.num_stills, report.footage_hours, report.kept_hours) == (1, 0, 0)
    assert "1 are stills" in report.table()
    left, top, side = map(int, entry.box)
    frames = ClipStore(out).read(entry, [0])
    assert np.abs(frames.images[0].astype(int) - cut(small_portrait, (left, top, side), 128)).mean() < 4
    assert ((frames.points[0, :, :2] > 0) & (frames.points[0, :, :2] < 128)).all()


def test_a_second_run_does_nothing(shards: tuple[Path, PrepareReport], folder: Path) -> None:
    out, first = shards
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir() if path.is_file()}
    again = prepare([folder], out, CONFIG, people="clip", num_workers=0)
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir() if path.is_file()}
    before.pop(".lock"), after.pop(".lock")
    assert after == before
    assert again.num_new == 0 and any("nothing was done" in note for note in again.notes)
    assert (again.num_clips, again.reasons) == (first.num_clips, first.reasons)


def test_the_card_and_the_picture_are_there(shards: tuple[Path, PrepareReport]) -> None:
    out, _ = shards
    card = (out / "README.md").read_text()
    for part in ("biometric", "not stated | 3", "| unreadable-video | 2 |", "| size | 128 |"):
        assert part in card
    sheet = video.read_image(out / "contact_sheet.jpg")
    assert sheet.shape == (128 + 30, 3 * 128, 3)
    assert sheet[:128].std() > 20


def test_the_same_video_gives_the_same_bytes_and_a_generator_of_clips(folder: Path) -> None:
    one = prepare_video(folder / "a_talk.mp4", CONFIG)
    handed: list[Clip] = []
    beats: list[None] = []
    two = prepare_video(folder / "a_talk.mp4", CONFIG, on_clip=handed.append, beat=lambda: beats.append(None))
    assert two.clips == () and list(one.clips) == handed and len(beats) >= 28
    assert one.footage_s == pytest.approx(28 / DRIVER_FPS)


def test_long_tracks_are_cut_and_a_short_rest_stays_with_the_piece_before(folder: Path) -> None:
    config = PrepareConfig(size=64, min_seconds=0.2, max_seconds=0.48)
    clips = prepare_video(folder / "a_talk.mp4", config).clips
    assert [(c.info["start_s"], c.info["end_s"]) for c in clips] == [(0.0, 0.48), (0.48, 1.12)]
    assert [c.info["num_frames"] for c in clips] == [6, 8]


def test_a_slow_video_keeps_its_rate(driver: Driver, tmp_path: Path) -> None:
    with video.open_writer(tmp_path / "slow.mp4", 256, 256, 10, quality=12) as writer:
        for frame in driver.frames[::2]:
            writer.write(frame)
    (clip,) = prepare_video(tmp_path / "slow.mp4", CONFIG).clips
    assert (clip.info["fps"], clip.info["num_frames"]) == (10.0, 14)


def test_whatever_goes_wrong_in_a_video_is_a_rejection(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = prepare_video(tmp_path / "gone.mp4", CONFIG)
    assert [r.reason for r in missing.rejections] == [Reason.UNREADABLE]

    def fail(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(clips, "reason_to_reject", fail)
    (rejection,) = prepare_video(folder / "a_talk.mp4", CONFIG).rejections
    assert (rejection.reason, rejection.detail) == (Reason.ERROR, "ZeroDivisionError: oh")


def test_a_crop_gives_way_to_stay_inside_the_frame(driver: Driver, tmp_path: Path) -> None:
    write_clip(tmp_path / "tight.mp4", [np.ascontiguousarray(f[20:236, 10:250]) for f in driver.frames])
    (clip,) = prepare_video(tmp_path / "tight.mp4", CONFIG).clips
    left, top, side = clip.info["box"]
    assert (top, side) == (0, 216) and 0 <= left <= 24


def test_a_box_beyond_the_frame_repeats_the_border() -> None:
    frame = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    out = cut(frame, (-2, -2, 8), 8)
    assert (out[:3, :3] == frame[0, 0]).all() and (out[2:6, 2:6] == frame).all() and (out[5:, 5:] == frame[3, 3]).all()


@pytest.mark.slow
def test_clustered_people_stand_in_the_index(folder: Path, tmp_path: Path) -> None:
    calls = []

    def embed(images: Any, points: Any) -> np.ndarray:
        calls.append(len(images))
        mirrored = np.mean([image[:, :8].mean() for image in images]) > np.mean([i[:, -8:].mean() for i in images])
        return np.eye(2, 128, dtype=np.float32)[[int(mirrored)] * len(images)]

    out = tmp_path / "out"
    inputs = [folder / "a_talk.mp4", folder / "i_two.mp4"]
    report = prepare(inputs, out, CONFIG, people="cluster", num_workers=0, embed=embed)
    assert {entry.person for entry in read_index(out)} <= {"p000000", "p000001"}
    assert calls == [3, 3] and report.num_people == len({e.person for e in read_index(out)})
    assert not list(out.glob("*embed*"))
    prepare(inputs, out, CONFIG, people="cluster", num_workers=0, embed=embed)
    assert calls == [3, 3]


# The writer, with synthetic clips.


def fake_video(path: Path, config: PrepareConfig, **options: Any) -> VideoResult:
    """One to three clips of random bytes that depend on the file name; every fifth video has none."""
    rng = np.random.default_rng(int(path.stem))
    clips = []
    for _ in range(int(rng.integers(1, 4)) if int(path.stem) % 5 else 0):
        info = {
            "num_frames": 12,
            "fps": 12.5,
            "size": config.size,
            "start_s": 0.0,
            "end_s": 1.0,
            "box": [0, 0, 9],
            "face_px": 50.0,
            "sharpness": 0.1,
            "yaw_range": [-1.0, 1.0],
            "fingerprint": rng.bytes(128).hex(),
        }
        clips.append(Clip(info, rng.bytes(int(rng.integers(50, 4000))), rng.bytes(300)))
    rejections = [Rejection(Reason.TOO_SHORT, "made up", 0.0, 0.1)] if int(path.stem) % 3 == 0 else []
    return VideoResult(tuple(clips), tuple(rejections), "0" * 64, 1.0, 0.5)


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], PrepareReport]:
    """A run over 30 synthetic videos, with shards of 10 kB and a commit after every video."""
    touch(tmp_path, *(f"in/{number:03d}.mp4" for number in range(30)))
    monkeypatch.setattr(module, "prepare_video", fake_video)
    monkeypatch.setattr(module, "contact_sheet", lambda *_: np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setattr(shard_folder, "_COMMIT_S", 0.0)
    real = ShardFolder.__init__
    monkeypatch.setattr(ShardFolder, "__init__", lambda self, folder, config, _: real(self, folder, config, 10_000))

    def run(out: Path) -> PrepareReport:
        return prepare([tmp_path / "in"], out, people="clip", num_workers=0)

    return run


def contents(out: Path) -> dict[str, bytes]:
    """All content that must not depend on interruptions."""
    return {
        path.name: path.read_bytes()
        for path in out.iterdir()
        if path.name not in ("contact_sheet.jpg",) and path.is_file()
    }


class Doomed:
    """Calls a function; the n-th call is replaced."""

    def __init__(self, function: Callable[..., Any], number: int, end: Callable[[], None]) -> None:
        self.function, self.left, self.end = function, number, end

    def __call__(self, *args: Any) -> Any:
        if self.left == 0:
            self.end()
        self.left -= 1
        return self.function(*args)


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_ends_with_the_same_bytes(
    many: Callable[[Path], PrepareReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    many(whole)
    expected = contents(whole)
    assert sum(name.endswith(".tar") for name in expected) > 4
    assert not [name for name in expected if name.endswith(".part")]

    moments = [("fsync", n) for n in (0, 27, 31, 60, 121)]
    moments += [("replace", n) for n in (0, 1, 6, 7, 15, 16, 17, 30)]
    for call, number in moments:
        out = tmp_path / f"{call}{number}"
        child = os.fork()
        if child == 0:
            doomed = Doomed(getattr(os, call), number, lambda: os.kill(os.getpid(), signal.SIGKILL))
            monkeypatch.setattr(os, call, doomed)
            many(out)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), (call, number)
        num_done = len(lines(out / "done.jsonl")) if (out / "done.jsonl").exists() else 0
        report = many(out)
        assert report.num_new >= 30 - num_done
        assert contents(out) == expected, (call, number)


def test_nothing_that_was_committed_is_made_again(
    many: Callable[[Path], PrepareReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "out", []

    def stop_after_twelve(path: Path, config: PrepareConfig, **options: Any) -> VideoResult:
        if len(made) == 12:
            raise KeyboardInterrupt
        made.append(path.name)
        return fake_video(path, config)

    monkeypatch.setattr(module, "prepare_video", stop_after_twelve)
    with pytest.raises(KeyboardInterrupt):
        many(out)
    monkeypatch.setattr(module, "prepare_video", fake_video)
    assert many(out).num_new == 30 - 12


def test_a_full_disk_is_reported_and_finished_work_is_kept(
    many: Callable[[Path], PrepareReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    many(whole)

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Doomed(os.fsync, 150, full))
        with pytest.raises(InputError, match=r"No space left on device.*rerun the same command"):
            many(out)
    shards = sorted(path.name for path in out.glob("*.tar"))
    assert shards
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in shards[:-1])
    many(out)
    assert contents(out) == contents(whole)


def test_more_videos_are_added_to_what_is_there(many: Callable[[Path], PrepareReport], tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = many(out)
    old = {path.name: path.read_bytes() for path in out.glob("*.tar")}
    touch(tmp_path, "in/100.mp4", "in/101.mp4")
    (tmp_path / "in/001.mp4").write_bytes(b"changed")
    after = many(out)
    assert after.num_new == 2 and after.num_videos == 32 and after.num_clips > before.num_clips
    assert all((out / name).read_bytes() == data for name, data in old.items())
    assert any("changed since they were prepared: 1 video, such as 001.mp4" in note for note in after.notes)


def test_other_settings_need_another_folder(many: Callable[[Path], PrepareReport], tmp_path: Path) -> None:
    many(tmp_path / "out")
    with pytest.raises(InputError, match=r"was made with fps 12.5, not 25.0; use the same settings"):
        prepare([tmp_path / "in"], tmp_path / "out", PrepareConfig(fps=25.0), people="clip", num_workers=0)


def test_two_runs_do_not_write_into_one_folder(many: Callable[[Path], PrepareReport], tmp_path: Path) -> None:
    import fcntl

    many(tmp_path / "out")
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing there"):
            many(tmp_path / "out")


def test_a_damaged_folder_is_not_continued(many: Callable[[Path], PrepareReport], tmp_path: Path) -> None:
    out = tmp_path / "out"
    many(out)
    (out / "index.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match=r"shorter than state\.json says"):
        many(out)
    (out / "config.json").unlink()
    with pytest.raises(InputError, match="contains other files"):
        many(out)


# Workers.


def _until(ask: Callable[[], Any]) -> Any:
    while not (answer := ask()):
        time.sleep(0.05)
    return answer


def _opened(pipe: Path) -> int | None:
    """The write end of a named pipe, once it has a reader."""
    with suppress(OSError):
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    return None


def test_a_worker_that_cannot_start_ends_the_run_and_is_no_reason_against_a_video(folder: Path, tmp_path: Path) -> None:
    def kill() -> None:
        (child,) = _until(lambda: multiprocessing.active_children())
        os.kill(child.pid or 0, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(InputError, match="before it could start"):
        prepare([folder / "a_talk.mp4"], tmp_path / "out", CONFIG, people="clip", num_workers=1)
    thread.join()
    assert lines(tmp_path / "out" / "rejected.jsonl") == lines(tmp_path / "out" / "done.jsonl") == []


@pytest.mark.slow
def test_workers_give_the_same_and_a_dead_or_stuck_one_costs_its_video_only(
    folder: Path, shards: tuple[Path, PrepareReport], tmp_path: Path
) -> None:
    """A worker that reads a named pipe without a writer hangs; the first one is killed from outside."""
    os.mkfifo(tmp_path / "1_pipe.mp4")
    os.mkfifo(tmp_path / "2_pipe.mp4")
    inputs = [tmp_path / "1_pipe.mp4", tmp_path / "2_pipe.mp4", folder / "a_talk.mp4"]
    seen = []

    def kill_first() -> None:
        (child,) = _until(lambda: multiprocessing.active_children())
        pipe = _until(lambda: _opened(tmp_path / "1_pipe.mp4"))
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        os.close(pipe)

    thread = threading.Thread(target=kill_first)
    thread.start()
    out = tmp_path / "out"
    prepare(inputs, out, CONFIG, people="clip", num_workers=1, stall_s=20, progress=seen.append)
    thread.join()
    assert [r["reason"] for r in lines(out / "rejected.jsonl")] == ["worker-died", "timed-out"]
    assert [(p.done, p.total, p.kept, p.rejected) for p in seen] == [(1, 3, 0, 1), (2, 3, 0, 2), (3, 3, 1, 2)]
    assert seen[-1].rate > 0

    def first_clip(path: Path) -> bytes:
        entry = next(e for e in read_index(path) if e.source == "a_talk.mp4")
        offset, size = entry.members["mp4"]
        return (path / entry.shard).read_bytes()[offset : offset + size]

    assert first_clip(out) == first_clip(shards[0])
    assert not list(out.glob(".work-*"))


@pytest.mark.slow
def test_ray_gives_the_same_as_one_process(folder: Path, shards: tuple[Path, PrepareReport], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    prepare([folder], out, CONFIG, people="clip", num_workers=2, ray=True)
    for name in ("index.jsonl", "rejected.jsonl", "clips-000000.tar"):
        assert (out / name).read_bytes() == (shards[0] / name).read_bytes(), name


@pytest.mark.slow
def test_a_machine_of_the_cluster_that_dies_costs_nothing(
    many: Callable[[Path], PrepareReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    many(tmp_path / "expected")
    places = tmp_path / "places"
    places.mkdir()

    def work(task: VideoTask, beat: Callable[[], None]) -> VideoResult:
        node = ray.get_runtime_context().get_node_id()
        (places / f"{task.path.stem}_{node}").touch()
        # The third task of the failing machine is still running when it fails.
        time.sleep(
            60 if len(list(places.glob(f"*_{node}"))) == 3 and (tmp_path / "doomed").read_text() == node else 0.2
        )
        return fake_video(task.path, task.config)

    def pull_the_plug() -> None:
        _until(lambda: len(list(places.glob(f"*_{doomed.node_id}"))) == 3)
        cluster.remove_node(doomed, allow_graceful=False)

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(module, "_do_task", work)
    # Results remain on their machine, as large ones do, and are lost with it.
    settings = {"num_cpus": 1, "include_dashboard": False, "_system_config": {"max_direct_call_object_size": 0}}
    cluster = Cluster(initialize_head=True, head_node_args=settings)
    doomed = cluster.add_node(num_cpus=1)
    (tmp_path / "doomed").write_text(doomed.node_id)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    thread = threading.Thread(target=pull_the_plug)
    thread.start()
    try:
        report = prepare([tmp_path / "in"], tmp_path / "out", people="clip", ray=True)
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert len(list(places.iterdir())) > 30  # some work was repeated
    assert report.num_new == 30 and "worker-died" not in report.reasons
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


# Messages.


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 250}, "--size 250: use a multiple of 16"),
        ({"size": 1024}, "--size 1024"),
        ({"fps": 0.5}, "--fps 0.5"),
        ({"min_seconds": 0}, "--min-seconds 0"),
        ({"max_seconds": 0.5}, "--max-seconds 0.5.*not below --min-seconds"),
        ({"min_face_px": 3}, "--min-face-px 3"),
        ({"context": 1}, "--context 1"),
        ({"min_sharpness": -1}, "--min-sharpness -1"),
        ({"crf": 60}, "--crf 60"),
        ({"gop": 0}, "--gop 0"),
        ({"shard_mb": 0}, "--shard-mb 0"),
    ],
)
def test_settings_are_refused_by_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        PrepareConfig(**options)


def test_inputs_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.mp4", "b/x.mp4", "c/y.txt", "d/one.mp4", "d/id/two.mp4")
    out = tmp_path / "out"
    for inputs, text in (
        ([], "no video was given"),
        ([tmp_path / "none"], "does not exist"),
        ([tmp_path / "c"], "no video in"),
        ([tmp_path / "a", tmp_path / "b"], "use the folder above both"),
    ):
        with pytest.raises(InputError, match=text):
            prepare(inputs, out)
    a = [tmp_path / "a"]
    with pytest.raises(InputError, match="--people nobody: use one of folder, manifest"):
        prepare(a, out, people="nobody")
    with pytest.raises(InputError, match=r"--manifest CLIPS\.csv"):
        prepare(a, out, people="manifest")
    with pytest.raises(InputError, match="--people folder: cannot be combined with --manifest"):
        prepare(a, out, people="folder", manifest=tmp_path / "m.csv")
    with pytest.raises(InputError, match=r"one\.mp4 is not in a folder of one person"):
        prepare([tmp_path / "d"], out, people="folder")
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("who,what\n1,2\n")
    with pytest.raises(InputError, match="no column 'clip' or 'path'"):
        read_manifest(tmp_path / "m.csv")
    with pytest.raises(InputError, match="--workers -1"):
        prepare(a, out, people="clip", num_workers=-1)
    assert not out.exists()
    with pytest.raises(InputError, match="is not a folder"):
        prepare(a, tmp_path / "a" / "x.mp4" / "out", people="clip", num_workers=0)
    with pytest.raises(InputError, match="contains other files; use a new folder, or that of shards to continue"):
        prepare(a, tmp_path / "c", people="clip", num_workers=0)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["y.txt"]


def test_ray_that_is_missing_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "in/a.mp4")
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"--ray needs Ray; install it with: pip install '.\[cluster\]'"):
        prepare([tmp_path / "in"], tmp_path / "out", people="clip", ray=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_full_disk_rejects_no_video(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = VideoTask(folder / "a_talk.mp4", CONFIG, Path("/dev/full"))
    result = module._do_task(task, lambda: None)
    assert (result.clips, result.rejections, result.unwritable) == ((), (), "No space left on device")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(module, "_results", lambda *_: (one for one in (result,)))
        with pytest.raises(InputError, match=r"is not writable \(No space left on device\); finished work is kept"):
            prepare([folder / "a_talk.mp4"], out, CONFIG, people="clip", num_workers=1)
    assert (out / "done.jsonl").read_text() == ""
    assert prepare([folder / "a_talk.mp4"], out, CONFIG, people="clip", num_workers=0).num_clips > 0


def test_the_command_line_prepares_and_resumes(tmp_path, driver):
    from typer.testing import CliRunner

    from mimik.app.cli import app

    def run(*arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["prepare", *map(str, arguments)], prog_name="mimik")
        return result.exit_code, result.stdout, " ".join(result.stderr.split())

    out = tmp_path / "shards"
    settings = (driver.path, "-o", out, "--size", 64, "--min-seconds", 0.2, "--workers", 0, "--min-face-px", 24)
    code, said, notes = run(*settings, "--people", "clip", "--json", tmp_path / "report.json")
    assert code == 0, notes
    assert "clips kept 1" in " ".join(said.split())
    assert json.loads((tmp_path / "report.json").read_text())["num_clips"] == 1
    code, said, notes = run(*settings, "--people", "clip")
    assert code == 0
    assert "Nothing new." in said
    code, _, notes = run(driver.path, "-o", out, "--size", 128, "--people", "clip")
    assert code == 2
    assert "use the same settings or a new folder" in notes
    assert run(tmp_path / "nothing", "-o", tmp_path / "x")[0] == 2
    (tmp_path / "notes.mp4").write_text("no video")
    report = tmp_path / "nothing.json"
    code, said, notes = run(tmp_path / "notes.mp4", "-o", tmp_path / "z", "--workers", 0, "--json", report)
    assert code == 2 and "nothing was kept, for the reasons above" in notes and "per hour" not in said
    assert json.loads(report.read_text())["num_clips"] == 0
    assert run(driver.path, "-o", tmp_path / "y", "--size", 100)[2].count("multiple of 16") == 1
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "y").exists()


def test_clustering_without_torch_is_refused_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mimik.networks.features", None)  # as without torch
    out = tmp_path / "shards"
    with pytest.raises(InputError, match=r"needs torch; install it with: pip install '.\[train\]'"):
        prepare([folder], out, people="cluster", num_workers=0, progress=lambda state: pytest.fail("work"))
    assert not out.exists()
