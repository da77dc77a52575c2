"""Drivers of every kind by one call: detection of the kind, initial frames, and invalid drivers."""

from __future__ import annotations

import itertools
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from conftest import write_clip
from mimik.config import InputError, NoFaceError
from mimik.face.landmarks import NUM_POINTS, Landmarker
from mimik.motion import kinds
from mimik.motion.drivers import driver as driver_module
from mimik.motion.drivers.driver import DriverSettings, DrivingMotion
from mimik.motion.drivers.registry import file_of, names, open_driver, suffixes
from mimik.motion.drivers.stream import rest_reference
from mimik.motion.drivers.video import extract_motion
from mimik.motion.files import Motion
from mimik.motion.frames import still
from mimik.motion.kinds import bundled_motions

pytestmark = pytest.mark.usefixtures("one_landmarker")


def test_drivers_are_known_by_their_content(driver, driver_with_sound: Path, small_path: Path) -> None:
    clip, spoken, photo, smile = (open_driver(d) for d in (driver.path, driver_with_sound, small_path, "smile"))
    assert (clip.kind, clip.fps, clip.num_frames, clip.sound) == ("video", 25, 28, None)
    assert (spoken.kind, spoken.sound) == ("video", driver_with_sound)
    assert (photo.kind, photo.fps, photo.num_frames) == ("photo", 25, 75)
    assert (smile.kind, smile.name, smile.num_frames) == ("motion", "bundled smile", 97)
    assert open_driver("smile", fps=10).num_frames == 39
    assert open_driver(str(bundled_motions()["smile"])).name in ("smile.motion", "bundled smile")


def test_a_driver_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"driver grin: no such file; use .* laugh, listen, look-around, nod"):
        open_driver("grin")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", "Hello, gr\u00fc\u00dfe.", "is a text; to have it spoken pass --say TEXT"),
        ("README", "Hello.", "is a text; to have it spoken"),
        ("anna.avatar", "", "is a learned person; pass it as PHOTO"),
        ("model.safetensors", "", "is a model; pass it with --model"),
        ("shapes.json", "{}", "is not a driver; pass numbers as .jsonl"),
        ("clips.csv", "clip,person\n1,2\n", r"line 1 has no columns Timecode and JawOpen; a \.csv file that drives"),
    ],
)
def test_a_file_that_is_no_driver(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        open_driver(tmp_path / name)


def test_a_neutral_face_after_the_end_is_refused_at_once(driver, small_path: Path) -> None:
    opened = open_driver(driver.path)
    opened.check_options(neutral_s=1.0)
    with pytest.raises(InputError, match=r"--neutral 1.2: the driver lasts 1.1 s; use a time within it"):
        opened.check_options(neutral_s=1.2)
    begin = open_driver(driver.path, seconds=0.4)
    begin.check_options(neutral_s=1.0)  # the neutral face may be after the selected range
    with pytest.raises(InputError, match=r"--seconds 2: person.png is a photo and has no length"):
        open_driver(small_path, seconds=2.0)


def test_the_motion_of_a_video(driver, tmp_path: Path) -> None:
    stages = []
    motion = extract_motion(open_driver(driver.path), progress=lambda *args: stages.append(args))
    assert (motion.name, motion.fps, len(motion)) == ("driver", 25.0, 28)
    assert stages[-1] == ("track", 28, 28)
    yaw = -np.degrees(motion.turn[:, 1])
    assert np.corrcoef(yaw, driver.yaw)[0, 1] > 0.98
    path = tmp_path / "x.motion"
    motion.save(path)
    assert len(Motion.load(path)) == 28


def test_the_motion_of_what_has_none(small_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a photo; motion is extracted from a video"):
        extract_motion(open_driver(small_path))
    with pytest.raises(InputError, match="is a motion"):
        extract_motion(open_driver("smile"))
    blank = tmp_path / "blank.mp4"
    write_clip(blank, [np.full((64, 64, 3), 90, np.uint8)] * 4)
    with pytest.raises(NoFaceError, match=r"blank\.mp4: no face was found \(4 frames\)"):
        extract_motion(open_driver(blank))


def test_every_kind_yields_a_neutral_and_the_declared_number_of_frames(
    driver, small_path: Path, landmarker: Landmarker, tmp_path: Path
) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(f'{{"time": {i / 10}, "head": {{"yaw": {i}}}}}\n' for i in range(5)))
    upper = tmp_path / "B.MOTION"
    shutil.copy(bundled_motions()["smile"], upper)
    sources = {driver.path: "video", small_path: "photo", "smile": "motion", upper: "motion", lines: "stream"}
    for source, kind in sources.items():
        opened = open_driver(source, 5.0)
        assert (opened.kind, opened.fps) == (kind, 5.0)
        for _ in range(2):  # a driver may restart
            with opened.motion(DriverSettings(landmarker=landmarker, smooth=0)) as motion:
                frames = list(motion.frames)
            assert len(frames) == opened.num_frames
            assert len(motion.notes) == (kind in ("video", "photo"))
            assert motion.neutral.shape.shape == (NUM_POINTS, 3)
            assert all(frame.offset.shape == (NUM_POINTS, 3) for frame in frames)


@pytest.mark.slow
def test_a_driver_ends_its_threads_whether_read_or_not(driver, landmarker: Landmarker) -> None:
    before = threading.active_count()
    for count in (0, 3):
        with open_driver(driver.path).motion(DriverSettings(landmarker=landmarker)) as motion:
            assert len(list(itertools.islice(motion.frames, count))) == count
        motion.close()
        assert threading.active_count() == before


def test_an_open_driver_is_given_back() -> None:
    opened = open_driver("smile", 10.0)
    assert open_driver(opened, 25.0) is opened and opened.fps == 10.0


def test_names_and_files_of_sources() -> None:
    assert file_of("smile") == bundled_motions()["smile"] and file_of("a/b.mp4") == Path("a/b.mp4")
    assert set(names()) == {*bundled_motions(), "idle"}
    assert {".mp4", ".motion", ".jsonl"} <= set(suffixes())


class Nothing(driver_module.Driver):
    """A driver without a file."""

    kind = "nothing"

    @classmethod
    def names(cls) -> dict[str, Path | None]:
        return {"nothing": None}

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Nothing:
        return cls(source, None, fps or 25.0, 3)

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        return DrivingMotion(rest_reference(), iter([still()] * 3))


def test_a_new_kind_is_a_class_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    line = kinds.DriverKind(
        f"{__name__}.Nothing", "nothing at all", lambda: ("nothing",), lambda source: source == "nothing"
    )
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, line))
    opened = open_driver("nothing")
    assert (opened.kind, opened.path, opened.num_frames) == ("nothing", None, 3)
    assert file_of("nothing") is None and "nothing" in names()
    kinds.check_driver("nothing")
    for refused in (open_driver, kinds.check_driver):
        with pytest.raises(
            InputError,
            match=r"\(did you mean nothing\?\); use nothing at all, a video, a photo, a recording of speech, "
            r"a tracker's address .*, a \.jsonl or \.csv file, a \.motion file or one of .*idle, nothing\.",
        ):
            refused("nothin")


def test_the_names_before_loading_are_those_of_the_classes() -> None:
    assert list(names()) == kinds.driver_names()


def test_options_without_effect_are_refused(driver, small_path: Path) -> None:
    open_driver(driver.path).check_options(neutral_s=1.0, face=2)
    open_driver(small_path).check_options(face=2)
    open_driver("idle").check_options(seed=3)
    opened = open_driver("smile")
    opened.check_options()
    for options, message in (
        (
            {"neutral_s": 1.0},
            "--neutral 1: bundled smile is a motion and has no frames to choose from; use a video",
        ),
        ({"face": 2}, "--driver-face 2: bundled smile is a motion and shows no faces to choose from"),
        ({"seed": 3}, "--seed 3: bundled smile is a motion and has its own motion"),
    ):
        with pytest.raises(InputError, match=message) as error:
            opened.check_options(**options)
        assert isinstance(error.value, TypeError)
