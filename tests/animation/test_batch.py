"""batch.py: videos from folders, their names, and runs on Ray."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from conftest import Driver
from mimik.animation import batch
from mimik.animation.batch import ANIMATED_NAME, Pair, animate_all, pairs
from mimik.config import AnimateConfig, InputError
from mimik.motion.kinds import is_folder_of_drivers
from mimik.provenance.verifying import verify

SMALL = AnimateConfig(size=64, fps=4.0, model="geometry")


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_each_photo_goes_with_each_driver(tmp_path: Path) -> None:
    photos = touch(tmp_path / "photos", "b.HEIC", "a.jpg", "a.png", "notes.txt", ".hidden", "._a.jpg")
    drivers = touch(tmp_path / "drivers", "talk.mp4", "smile.motion", "photo.jpg", "._talk.mp4")
    out = tmp_path / "out"
    names = [pair.out.name for pair in pairs(photos, "smile", out)]
    assert names == ["a.jpg.mp4", "a.png.mp4", "b.mp4"]
    one = pairs(photos / "b.HEIC", str(drivers), out)
    assert one == [
        Pair(photos / "b.HEIC", str(drivers / "smile.motion"), out / "smile.mp4"),
        Pair(photos / "b.HEIC", str(drivers / "talk.mp4"), out / "talk.mp4"),
    ]
    names = [pair.out.name for pair in pairs(photos, str(drivers), out)]
    assert names[:3] == ["a.jpg_smile.mp4", "a.jpg_talk.mp4", "a.png_smile.mp4"] and len(set(names)) == 6


def test_a_bundled_motion_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "smile")
    touch(tmp_path / "videos")
    assert not is_folder_of_drivers("smile") and is_folder_of_drivers("videos")


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    photos, empty = touch(tmp_path / "photos", "a.png"), touch(tmp_path / "empty")
    (tmp_path / "file").touch()
    same, drivers = touch(tmp_path / "same", "a.png", "a_b.png"), touch(tmp_path / "drivers", "b_c.motion", "c.motion")
    for photo, driver, out, words in (
        (empty, "smile", "out", "empty contains no photos"),
        (photos, str(empty), "out", "empty: is a folder without drivers"),
        (photos, "smile", "out.mp4", "use a folder for the videos as well"),
        (photos, "smile", "file", "is a file"),
        (photos, "smile", "photos", "is the folder of the photos"),
        (same, str(drivers), "out", "both would be .*out/a_b_c.mp4; rename"),
    ):
        with pytest.raises(InputError, match=words):
            pairs(photo, driver, tmp_path / out)


def test_two_runs_do_not_share_a_folder(small_path: Path, tmp_path: Path) -> None:
    folder = touch(tmp_path / "out", "other.mp4")
    with (folder / ANIMATED_NAME).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing there"):
            list(animate_all([Pair(small_path, "smile", folder / "a.mp4")], SMALL))
    for damaged in (b"[]\n", b'{"out": "\xff\xfe", "made_from": {}}\n', b"\0\n"):
        (folder / ANIMATED_NAME).write_bytes(damaged)
        with pytest.raises(InputError, match=f"{ANIMATED_NAME} is damaged; remove it"):
            list(animate_all([Pair(small_path, "smile", folder / "a.mp4")], SMALL))
    with pytest.raises(InputError, match="--workers -1"):
        list(animate_all([Pair(small_path, "smile", folder / "a.mp4")], SMALL, num_workers=-1))


def test_an_unexpected_error_costs_its_pair_only(
    small_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def make(job: batch._Job, progress: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(batch, "_render", make)
    every = [Pair(small_path, name, out / f"{name}.mp4") for name in ("smile", "nod")]
    outcomes = list(animate_all(every, SMALL, num_workers=0))
    assert [outcome.reason for outcome in outcomes] == ["unexpected ZeroDivisionError: surprise"] * 2
    assert not out.exists()


@pytest.mark.slow
def test_over_ray(small_path: Path, driver: Driver, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    drivers = [str(driver.path), "smile", "nod"]
    every = [Pair(small_path, name, out / f"{number}.mp4") for number, name in enumerate(drivers)]
    outcomes = list(animate_all(every, SMALL, num_workers=2, ray=True))
    assert [outcome.reason for outcome in outcomes] == [None] * 3
    assert all(outcome.report is not None and outcome.report.num_frames > 3 for outcome in outcomes)
    assert [verify(pair.out).exit_code for pair in every] == [0] * 3
    assert len((out / ANIMATED_NAME).read_text().splitlines()) == 3
    # A truncated line means that its video is made again.
    lines = (out / ANIMATED_NAME).read_text().splitlines(keepends=True)
    (out / ANIMATED_NAME).write_text("".join(lines[:2]) + lines[2][:40])
    every[2].out.unlink()
    again = list(animate_all(every, SMALL, num_workers=0))
    assert [outcome.report is not None for outcome in again] == [False, False, True]
    assert json.loads((out / ANIMATED_NAME).read_text().splitlines()[-1])["out"] == "2.mp4"
