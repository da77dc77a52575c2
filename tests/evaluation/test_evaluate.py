"""evaluate.py: real frames are perfect, a still photo is not, stopped runs resume, invalid input gives errors."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from evaluation_clips import TINY, clip_info, write_release

from conftest import DRIVER_FPS, Driver
from mimik.app.cli import app, progress
from mimik.config import InputError
from mimik.data.index import read_index
from mimik.data.tracks import pack_tracks
from mimik.evaluation import evaluate, models, settings
from mimik.evaluation.instruments import Instruments, Observation
from mimik.evaluation.metrics import METRICS
from mimik.evaluation.protocols import CROSS, FIRST
from mimik.evaluation.report import pages
from mimik.evaluation.settings import TRUTH, EvaluateConfig
from mimik.face.landmarks import Face, Landmarker, head_pose
from mimik.inference.avatar_file import AvatarFile, SourceFile
from mimik.media import video
from mimik.networks.checkpoint import load_release
from mimik.networks.features import FaceNet
from mimik.networks.generators import build_networks
from mimik.provenance.verifying import verify
from mimik.training import fine_tuning
from mimik.training.fine_tuning import LearnArguments, Photo, Recipe
from quick_learning import shorten

MODELS = ("geometry", "copy", "truth")
QUICK = EvaluateConfig(models=MODELS, shots=(1,), holdout=9, size=128)


def mimik(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], prog_name="mimik")


@pytest.fixture(scope="module")
def shards(driver: Driver, driver_faces: list[Face], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of a face that turns, speaks and blinks, with detected landmarks: every second frame."""
    folder = tmp_path_factory.mktemp("shards")
    frames, found = driver.frames[::2], driver_faces[::2]
    points, blendshapes = (np.stack([getattr(f, name) for f in found]) for name in ("points", "blendshapes"))
    data = {
        "mp4": video.encode_clip(frames, DRIVER_FPS / 2, quality=12, gop=12),
        "npz": pack_tracks(points, blendshapes, np.array([head_pose(p).degrees for p in points])),
        "json": b"{}",
    }
    members = {}
    with tarfile.open(folder / "clips-000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in data.items():
            entry = tarfile.TarInfo(f"ada_00.{name}")
            entry.size = len(content)
            members[name] = (tar.offset + 512, len(content))
            tar.addfile(entry, io.BytesIO(content))
    info = clip_info(num_frames=len(points), fps=DRIVER_FPS / 2, members=members)
    (folder / "index.jsonl").write_text(info.to_json() + "\n")
    return folder


@pytest.fixture(scope="module")
def portraits(small_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portrait, and a picture without a face."""
    folder = tmp_path_factory.mktemp("portraits")
    (folder / "ada.png").write_bytes(small_path.read_bytes())
    video.write_image(folder / "wall.png", np.full((64, 64, 3), 128, np.uint8))
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_speed() -> Iterator[None]:
    """Skips the speed measurement, which runs the program twice in separate processes; a slow test covers it."""
    whole = {"frames_per_second": 30.0, "ms_per_frame": {"flow": 10.0}, "peak_memory_mb": 500.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "speed", lambda out, model, asked: whole)
        yield


@pytest.fixture(scope="module")
def report(shards: Path, portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("reports") / "report"
    return out, evaluate.evaluate(shards, out, QUICK, portraits=portraits)


def means(results: dict[str, Any], protocol: str, model: str) -> dict[str, float]:
    table = results["protocols"][protocol]["models"][model]
    return {name: statistics.get("mean", math.nan) for name, statistics in table.items()}


RECIPE = Recipe(lr_generator=1e-3, lr_discriminator=2e-3, num_steps=3, probe_every=2)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def face_net() -> FaceNet:
    return FaceNet()


@pytest.fixture
def quick_learning(monkeypatch: pytest.MonkeyPatch, landmarker: Landmarker, face_net: FaceNet) -> None:
    """Few pairs, probes and steps; networks are loaded once."""
    shorten(monkeypatch, landmarker, face_net)
    monkeypatch.setattr(Recipe, "of", classmethod(lambda cls, preset, from_scratch=False: RECIPE))


# Measurements.


@pytest.mark.slow
def test_the_real_frames_are_perfect(report: tuple[Path, dict[str, Any]]) -> None:
    perfect = {"lower": 0, "higher": 1, "one": 1}
    for protocol in ("T = 1", FIRST):
        for name, value in means(report[1], protocol, TRUTH).items():
            if METRICS[name].group == "motion" and math.isnan(value):
                continue  # the driver does not move it, or has no sound
            best = 100 if name == "psnr_db" else perfect[METRICS[name].better]
            assert value == pytest.approx(best, abs=1e-5), (protocol, name)
        if protocol != FIRST:
            assert report[1]["protocols"][protocol]["frechet_lite0"][TRUTH] == 0


@pytest.mark.slow
def test_a_still_photo_does_not_move(report: tuple[Path, dict[str, Any]]) -> None:
    copy = means(report[1], FIRST, "copy")
    assert (copy["acceleration_error"], copy["jitter_ratio"]) == pytest.approx((1, 0), abs=0.1)
    # The correlation of a still track is that of its noise, so the amplitude is tested.
    assert copy["yaw_amplitude"] == pytest.approx(0, abs=0.1)
    assert copy["head_motion_score"] == pytest.approx(0, abs=0.1)
    copy = means(report[1], "T = 1", "copy")
    assert (copy["pose_correlation"], copy["blendshape_correlation"]) == (0, 0)


@pytest.mark.slow
def test_the_warp_is_better_than_a_still_photo(report: tuple[Path, dict[str, Any]]) -> None:
    motion = ("akd68_percent", "pose_correlation", "blendshape_correlation")
    # In the whole picture a copy may be nearer here: little of it moves, and the warp resamples once more.
    for protocol, names in (("T = 1", motion), (FIRST, (*motion, "eyes_l1", "mouth_l1"))):
        geometry, copy = means(report[1], protocol, "geometry"), means(report[1], protocol, "copy")
        for name in names:
            assert METRICS[name].badness(geometry[name]) < METRICS[name].badness(copy[name]), (protocol, name)
        better = report[1]["protocols"][protocol]["better"]
        assert (better["geometry over copy"][names[-1]], better["copy over geometry"][names[-1]]) == (1, 0)
        assert TRUTH not in " ".join(better)
    assert report[1]["protocols"]["T = 1"]["clips"] == 1


@pytest.mark.slow
def test_a_portrait_is_driven_as_users_do_it(report: tuple[Path, dict[str, Any]]) -> None:
    values = means(report[1], CROSS, "geometry")
    assert values["csim_dlib"] > 0.9  # self-reenactment
    assert values["pose_correlation"] > 0.7
    assert values["lost_percent"] == 0
    assert values["yaw_correlation"] > 0.7
    assert 0.5 < values["yaw_amplitude"] < 1.3
    assert math.isfinite(values["pumping_ratio"]) and math.isfinite(values["blendshape_aed"])
    assert "psnr_db" not in values
    assert report[1]["left_out"].keys() == {"wall.png"}
    assert "no face found in wall.png" in report[1]["left_out"]["wall.png"]


# Fine-tuning per clip, and existing avatars.


@pytest.mark.slow
def test_stages_begin_with_the_model_and_end_with_what_is_kept(
    release: Path, driver: Driver, driver_faces: list[Face], quick_learning: None
) -> None:
    photos = [Photo(driver.frames[i], driver_faces[i], 0) for i in (0, 6)]
    course = fine_tuning.learn_photos(photos, LearnArguments(model=release, device="cpu"), (0, 1000))
    first, second = course.stages
    assert (first.steps, first.seconds, course.ended) == (0, 0.0, "the number of steps was reached")
    assert second is course.kept
    networks = load_release(release).networks
    own = {name.removeprefix("G."): value for name, value in first.tensors.items()}
    for name, value in networks.G.state_dict().items():
        assert (own[name] == value.numpy().astype(np.float16)).all(), name
    assert not any(name.startswith(("E.", "D.", "P.", "psi")) for name in first.tensors)
    with_time = fine_tuning.learn_photos(photos, LearnArguments(model=release, device="cpu"), (0, 1e-6, 1000))
    assert [stage.steps for stage in with_time.stages][:2] == [0, 1]
    assert any((first.tensors[n] != with_time.stages[1].tensors[n]).any() for n in first.tensors)


@pytest.mark.slow
def test_people_are_learned_measured_and_not_learned_again(
    shards: Path, release: Path, tmp_path: Path, quick_learning: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ("geometry", f"learn:{release}", f"scratch:{release}")
    config = EvaluateConfig(models=models, shots=(1, 2), holdout=3, size=64, learn_seconds=(0, 900))
    out = tmp_path / "report"
    told: list[tuple[str, int, int]] = []
    results = evaluate.evaluate(shards, out, config, progress=lambda *state: told.append(state))
    names = ["learn:tiny.safetensors", "scratch:tiny.safetensors"]
    assert list(results["learning"]) == ["T = 1", "T = 2"]
    for protocol in results["learning"]:
        assert list(results["learning"][protocol]) == names
        for rows in results["learning"][protocol].values():
            assert [row["seconds"] for row in rows] == [0, 900, None]
            assert rows[0]["steps"] == 0
            assert rows[1]["metrics"] == rows[2]["metrics"]  # it had ended before
        assert list(results["protocols"][protocol]["models"]) == ["geometry", *names]
    kept = results["learning"]["T = 1"][names[0]][2]["metrics"]["l1"]
    assert results["protocols"]["T = 1"]["models"][names[0]]["l1"] == kept
    assert list(results["protocols"][FIRST]["models"]) == ["geometry"]
    assert results["same_clips"]["clips"] == 1
    assert (told[-1][1], told[-1][2]) == (told[-1][2], 3 + 2 * 2 * 3 + 1)  # geometry; two, T, three times; the speed
    assert any("of learning" in what for what, _, _ in told)
    pictures = {path.name for path in (out / "pictures").iterdir()}
    assert {"best-learn-tiny.safetensors.png", "worst-scratch-tiny.safetensors.png"} < pictures
    assert video.read_image(out / "pictures/grid.png").shape[1] == 6 * 192
    assert verify(next((out / "pictures").glob("ada_00-t1-learn-*"))).exit_code == 0
    curves = (out / "learning-t1.svg").read_text()
    assert curves.count('id="axes_') == 8 and "learn:tiny.safetensors" in curves
    assert "learning-t1.svg" in (out / "report.html").read_text()
    with (out / "clips.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == names[1]]
    assert [row["seconds"] for row in rows] == ["0", "900", ""] * 2

    monkeypatch.setattr(fine_tuning, "learn_photos", None)
    monkeypatch.setattr(evaluate, "speed", None)
    again = evaluate.evaluate(shards, out, config)
    assert (again["protocols"], again["learning"]) == (results["protocols"], results["learning"])


@pytest.mark.slow
def test_an_avatar_is_a_model(
    shards: Path, release: Path, tmp_path: Path, small_portrait: Any, small_face: Face
) -> None:
    torch.manual_seed(2)
    networks = build_networks(TINY.networks, 0)
    tensors = {f"G.{name}": value.numpy().astype(np.float16) for name, value in networks.G.state_dict().items()}
    with torch.no_grad():
        psi = networks.P(torch.zeros(1, 6))[0].numpy()
    person = AvatarFile(
        TINY, {}, tensors, psi, small_portrait, small_face, (SourceFile("ada.mp4", "0" * 64, "video/mp4"),)
    )
    path = tmp_path / "ada.avatar"
    path.write_bytes(person.pack())
    config = EvaluateConfig(models=("copy", str(path)), shots=(1,), holdout=3, size=64)
    results = evaluate.evaluate(shards, tmp_path / "report", config)
    assert math.isfinite(means(results, "T = 1", "ada.avatar")["l1"])
    own = results["models"]["ada.avatar"]
    assert own["megabytes"] == round(path.stat().st_size / 1e6, 2)
    assert own["parameters"] == sum(p.numel() for p in networks.G.parameters()) + len(psi)
    assert own["whole"]["peak_memory_mb"] == 500
    assert "ada.avatar was trained on the source video of these clips: ada_00." in results["notes"]
    assert "peak memory, MB" in (tmp_path / "report/report.md").read_text()


# The report.


@pytest.mark.slow
def test_the_report_is_complete(report: tuple[Path, dict[str, Any]]) -> None:
    out, results = report
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    markdown, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    for text in (markdown, page):
        named = "The 68 points are detected by"
        for word in ("T = 1", "Cross-identity", "LPIPS: not available", "NOT comparable", "no face found", named):
            assert word in text
        assert all(metric.label in html.unescape(text) for metric in METRICS.values())
    with (out / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(MODELS) + 1
    mine = next(row for row in rows if row["protocol"] == FIRST and row["model"] == "geometry")
    assert float(mine["l1"]) == results["protocols"][FIRST]["models"]["geometry"]["l1"]["mean"]
    assert "geometry: L1" in pages.overview(results)
    assert results["models"]["geometry"]["megabytes"] == 0
    assert results["models"]["geometry"]["frame"] > 0


@pytest.mark.slow
def test_pictures_are_sealed_and_shown(report: tuple[Path, dict[str, Any]]) -> None:
    pictures = sorted((report[0] / "pictures").iterdir())
    assert {"grid.png", "best-geometry.png", "worst-geometry.png"} < {path.name for path in pictures}
    assert verify(pictures[0]).exit_code == 0
    page = (report[0] / "report.html").read_text()
    assert all(f"pictures/{path.name}" in page for path in pictures)
    # source, target, landmarks, geometry, copy
    assert video.read_image(report[0] / "pictures/grid.png").shape[1] == 5 * 192


@pytest.mark.slow
def test_the_same_command_resumes(
    report: tuple[Path, dict[str, Any]], shards: Path, portraits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, before = report
    damaged = next((out / "clips").glob("*-t1-copy-*.json"))
    damaged.write_text(damaged.read_text()[:-20])  # as on a full disk
    looked: list[int] = []
    look = Instruments.look

    def counted(self: Instruments, images: Any, at: list[int], **options: Any) -> Observation:
        looked.append(len(images))
        return look(self, images, at, **options)

    monkeypatch.setattr(Instruments, "look", counted)
    monkeypatch.setattr(evaluate, "speed", None)
    told: list[tuple[int, int]] = []
    after = evaluate.evaluate(
        shards, out, QUICK, portraits=portraits, progress=lambda what, done, total: told.append((done, total))
    )
    assert looked == [9, 9]  # the real frames and the copies of one record
    assert after["protocols"] == before["protocols"]
    assert told == [(i + 1, len(told) + 1) for i in range(len(told))]  # all but the wall


@pytest.mark.slow
def test_a_new_model_or_number_is_measured_alone(
    report: tuple[Path, dict[str, Any]], shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Gray(models.Copy):
        identity = "gray"

        def prepare(self, photos: Any, points: Any) -> models.Person:
            made.append(len(photos))
            return super().prepare(np.full_like(photos, 128), points)

    monkeypatch.setitem(models._WITHOUT_NETWORK, "gray", Gray)
    monkeypatch.setattr(settings, "WITHOUT_NETWORK", (*settings.WITHOUT_NETWORK, "gray"))
    config = EvaluateConfig(models=("copy", "gray"), shots=(1,), holdout=9, size=128)
    results = evaluate.evaluate(shards, report[0], config)
    gray = means(results, FIRST, "gray")
    assert gray["lost_percent"] == 100
    assert math.isnan(gray["akd68_percent"])
    assert results["protocols"][FIRST]["better"]["copy over gray"]["csim_dlib"] == 1  # a missing value is the worst
    assert set(results["protocols"]) == {"T = 1", FIRST}
    assert set(made) == {1}


# Errors.


def _with_other_things(out: Path) -> None:
    out.mkdir()
    (out / "diary.txt").write_text("dear")


@pytest.mark.parametrize(
    ("options", "message", "before"),
    [
        (["--models", "gan"], "no such model; use", None),
        (["--models", "learn:gan,copy"], "--models learn:gan: no such model; after learn: use", None),
        (["--learn-seconds", "soon"], "--learn-seconds soon: use seconds", None),
        (["--shots", "one"], "--shots one: use integers", None),
        (["--shots", "1,90"], "Use fewer shots", None),
        (["--size", "512"], "--size 512: clip ada_00 has 256 px", None),
        (["--portraits", "nowhere"], "--portraits nowhere: is not a folder", None),
        (["--portraits", "nowhere", "--models", "copy"], "requires a model that animates", None),
        (["--pairs", "3"], "--pairs 3: requires --portraits FOLDER", None),
        (["--lpips", "nowhere"], "contains no alexnet-owt-7be5be79.pth", None),
        (["--data", "nowhere"], "contains no index.jsonl", None),
        (["--data", "no_videos"], "--data no_videos: contains neither videos nor index.jsonl", None),
        ([], "contains other files", _with_other_things),
        ([], "is not a folder; use another name", lambda out: out.write_text("x")),
    ],
)
def test_bad_input_ends_in_one_sentence(
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
    before: Callable[[Path], None] | None,
) -> None:
    out = tmp_path / "report"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "_FIRST_LINE_S", 3600.0)  # of a busy machine
    Path("no_videos").mkdir()
    if before is not None:
        before(out)
    there = sorted(tmp_path.rglob("*"))
    result = mimik("--data", shards, "-o", out, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == there  # nothing half-written


@pytest.mark.slow
def test_damaged_clips_are_left_out_and_reported(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "clips-000000.tar").write_bytes((shards / "clips-000000.tar").read_bytes())
    (sound,) = read_index(shards)
    offset, size = sound.members["mp4"]
    broken = clip_info("bob_00", members={**sound.members, "mp4": (offset, size - 9)})
    (folder / "index.jsonl").write_text(f"{broken.to_json()}\n{sound.to_json()}\n")
    config = EvaluateConfig(models=("copy",), shots=(1,), holdout=3, size=64)
    results = evaluate.evaluate(folder, tmp_path / "report", config)
    assert results["protocols"]["T = 1"]["clips"] == 1
    assert "is damaged" in results["left_out"]["bob_00"]
    (folder / "index.jsonl").write_text(f"{broken.to_json()}\n")
    with pytest.raises(InputError, match="nothing could be measured: clip bob_00"):
        evaluate.evaluate(folder, tmp_path / "other", config)


@pytest.mark.slow
def test_a_folder_of_videos_through_the_command_line(driver: Driver, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "ada.mp4").write_bytes(driver.path.read_bytes())
    arguments = ("--data", videos, "--models", "geometry,truth", "--shots", 1, "--holdout", 6, "--size", 128)
    result = mimik(*arguments, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.stderr
    assert "truth: L1 0.00, SSIM 1.000" in result.stdout
    assert (tmp_path / "report/shards/index.jsonl").exists()


@pytest.mark.slow
def test_speed_is_that_of_the_program_itself(tmp_path: Path) -> None:
    measured = SPEED(tmp_path, "geometry", "geometry")
    assert measured["frames_per_second"] > 1
    assert measured["ms_per_frame"].keys() >= {"decode", "track", "flow", "paint", "encode"}
    assert (measured["width"], measured["height"]) == (512, 512)
    assert verify(tmp_path / "speed/geometry.mp4").exit_code == 0


SPEED = evaluate.speed  # before the fixture replaces it
