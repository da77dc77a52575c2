"""stream_file.py: time in files, lines of a motion, and animation of a photo by a stream."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Driver
from mimik.animation.avatar import Avatar
from mimik.config import InputError
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face, Landmarker, head_pose
from mimik.media import video
from mimik.motion.drivers.registry import open_driver
from mimik.motion.drivers.stream import HOLD_S, parse, rest_reference
from mimik.motion.drivers.stream_file import Stream, stream_lines
from mimik.motion.drivers.video import extract_motion
from mimik.motion.expression import expression_basis
from mimik.motion.files import Motion
from mimik.motion.frames import MotionFrame, still
from mimik.motion.retargeting import Retarget


def shape(**values: float) -> np.ndarray:
    return np.array([values.get(name, 0.0) for name in BLENDSHAPES])


def line(time_s: float, yaw: float = 0.0, **more: Any) -> str:
    return json.dumps({"time": time_s, "head": {"yaw": yaw}, **more})


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", line(10.0, 0), "", line(10.1, 10), line(10.2, 20))
    loaded = Stream.load(path)
    assert (loaded.name, loaded.fps) == ("a.jsonl", pytest.approx(10))
    np.testing.assert_allclose(loaded.time_s, [0, 0.1, 0.2])
    np.testing.assert_array_equal(loaded.head[:, 0], [0, 10, 20])
    assert loaded.duration_s == pytest.approx(0.3) and loaded.num_frames(20) == 6


def yaws(motion_frames: Any) -> list[float | None]:
    return [None if g is None else round(math.degrees(-g.turn[1]), 3) for g in motion_frames]


def test_between_lines_it_is_interpolated(tmp_path: Path) -> None:
    loaded = Stream.load(written(tmp_path / "a.jsonl", line(0, 0), line(0.1, 10), line(0.3, 0)))
    assert yaws(loaded.frames(20)) == [0, 5, 10, 7.5, 5, 2.5, 0, 0, 0]


def test_a_gap_holds_and_is_then_lost(tmp_path: Path) -> None:
    loaded = Stream.load(written(tmp_path / "a.jsonl", line(0, 8), line(0.1, 9), line(0.2, 10), line(1.2, 20)))
    found = yaws(loaded.frames(10))
    assert HOLD_S == 0.5 and found == [8, 9, *[10] * 6, *[None] * 4, 20]


def test_a_line_without_a_face_is_lost(tmp_path: Path) -> None:
    loaded = Stream.load(written(tmp_path / "a.jsonl", line(0, 8), line(0.1, 9), '{"time": 0.2}', line(0.3, 4)))
    assert yaws(loaded.frames(10)) == [8, 9, None, 4]


def test_the_sender_defines_rest(tmp_path: Path) -> None:
    rest = line(0.1, 10, blendshapes={"jawOpen": 0.2, "mouthPucker": 0.1}, rest=True)
    after = line(0.2, 15, blendshapes={"jawOpen": 0.5})
    loaded = Stream.load(written(tmp_path / "a.jsonl", line(0, 10), rest, after))
    np.testing.assert_allclose(loaded.head[:, 0], [10, 0, 5], atol=1e-9)
    np.testing.assert_allclose(loaded.blendshapes[2], shape(jawOpen=0.3, mouthPucker=-0.1), atol=1e-9)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([line(0), "oops"], "line 2 is not JSON; a driver's lines look like {"),
        ([line(0), line(1), line(1)], "line 3 has time 1, which is not after that of the line before"),
        (['{"time": 0, "blendshapes": {"grin": 1}}'], "line 1 has the blendshape 'grin'"),
        ([""], "has no lines; use a file that `mimik motion extract VIDEO -o X.jsonl` wrote"),
        (['{"time": 0}', '{"time": 1}'], "no line has blendshapes or a head (2 lines)"),
        ([line(0), line(33), line(66)], "its lines are 33 s apart; times are in seconds"),
        ([line(0), line(0.1), line(0.2), line(1e6)], "lasts 1e+06 s; use one of 36000 s or less"),
    ],
    ids=range(7),
)
def test_a_file_that_cannot_be_used(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(InputError) as error:
        Stream.load(written(tmp_path / "a.jsonl", *lines))
    assert words in str(error.value) and str(tmp_path / "a.jsonl") in str(error.value)


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(np.random.default_rng(0).bytes(300_000))
    with pytest.raises(InputError, match=r"line 1 is"):
        Stream.load(path)
    path.write_bytes(b"7" * 1_000_000)
    with pytest.raises(InputError, match=r"line 1 is longer than 65536 bytes"):
        Stream.load(path)


def test_a_motion_there_and_back(tmp_path: Path) -> None:
    """Motion that lines can represent is exact; the rest is the residual of the points."""
    basis = expression_basis()
    shapes = np.array([shape(jawOpen=a, mouthSmileLeft=b) for a, b in ((0, 0), (0.5, 0.1), (0.2, 0.9))])
    motion_frames = [
        MotionFrame(
            np.array([0.1 * i, 0.2, 0]), np.array([1.0, 0, 0]), 0.05 * i, basis.expression(s), basis.neutral + s
        )
        for i, s in enumerate(shapes)
    ]
    motion = Motion.of_frames("a", 25.0, rest_reference(), motion_frames)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(stream_lines(motion)))
    loaded = list(Stream.load(path).frames(25.0))
    for ours, theirs in zip(loaded, motion_frames, strict=True):
        assert ours is not None
        np.testing.assert_allclose(ours.turn, theirs.turn, atol=1e-4)
        np.testing.assert_allclose(ours.shift[:2], theirs.shift[:2], atol=1e-4)
        assert ours.zoom == pytest.approx(theirs.zoom, abs=1e-4)
        np.testing.assert_allclose(ours.offset, theirs.offset, atol=1e-3)


def test_lost_frames_of_a_motion_stay_lost() -> None:
    seen = still()
    motion = Motion.of_frames("a", 25.0, rest_reference(), [seen, MotionFrame(**{**vars(seen), "seen": False}), seen])
    assert [parse(text).seen for text in stream_lines(motion)] == [True, False, True]


def test_a_video_its_stream_and_the_person(
    driver: Driver, one_landmarker: None, small_face: Face, tmp_path: Path
) -> None:
    """video -> stream -> person resembles video -> person: 52 values preserve most of the motion of 478 points."""
    motion = extract_motion(open_driver(driver.path))
    path = tmp_path / "driver.jsonl"
    path.write_text("".join(stream_lines(motion)))
    loaded = Stream.load(path)
    assert (loaded.fps, len(loaded.time_s)) == (pytest.approx(25), 28)
    whole = Retarget(small_face, motion.reference)
    ours = Retarget(small_face, rest_reference())
    given = [g for g in loaded.frames(25.0) if g is not None]
    rest = small_face.points
    a, b = (np.array([r(g) for g in gs])[..., :2] for r, gs in ((whole, motion.frames()), (ours, given)))
    apart = np.linalg.norm(a - b, axis=-1).mean()
    moved = np.linalg.norm(a - rest[:, :2], axis=-1).mean()
    # The driver's lips never touch while smiling, which no blendshape represents: the stream's lips are closed at rest.
    assert apart < 0.65 * moved and apart < 0.02 * small_face.width_px
    others = sorted(set(range(len(rest))) - set(faces.LIPS))
    apart, moved = (np.linalg.norm(x[:, others], axis=-1).mean() for x in (a - b, a - rest[:, :2]))
    assert apart < 0.6 * moved
    gaps = [p[:, 14, 1] - p[:, 13, 1] for p in (a, b)]
    assert np.corrcoef(*gaps)[0, 1] > 0.95
    for turned in zip(motion.frames(), given, strict=True):
        np.testing.assert_allclose(turned[0].turn, turned[1].turn, atol=1e-3)


def test_a_stream_drives_a_photo(small_path: Path, landmarker: Landmarker, tmp_path: Path) -> None:
    lines = [line(i / 10, 3 * i, blendshapes={"jawOpen": 0.1 * i}) for i in range(5)]
    out = tmp_path / "out.mp4"
    avatar = Avatar.from_photos([small_path], landmarker=landmarker)
    report = avatar.render(written(tmp_path / "a.jsonl", *lines), out, model="geometry", smooth=0)
    assert (report.num_frames, report.fps, report.driver) == (5, pytest.approx(10), "a.jsonl")
    last = landmarker.detect(list(video.read_frames(out))[-1])[0]
    turned = head_pose(last.points).degrees[0] - head_pose(avatar.face.points).degrees[0]
    assert turned == pytest.approx(12, abs=4)  # as detected in a warped picture
    with pytest.raises(InputError, match="a stream as driver produces a video"):
        avatar.render(tmp_path / "a.jsonl", tmp_path / "out.png")
