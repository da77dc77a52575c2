"""drivers/video.py: frames that are tracked with blendshapes."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mimik.face.landmarks import Face, Image, Pose
from mimik.motion.drivers import video
from mimik.motion.drivers.driver import DriverSettings
from mimik.motion.extraction import motion_from, neutral_and_place, stream_motion
from mimik.pipeline import Clock, silent
from shapes import a_face, canonical_shape


class Late:
    """Detects no face before the fifth frame, and records whether blendshapes were requested."""

    def __init__(self) -> None:
        self.asked: list[bool] = []
        self.landmarker = self

    def detect(self, image: Image, *, thorough: bool = False) -> list[Face]:
        return []

    def track(self, image: Image, *, blendshapes: bool = True) -> Face | None:
        self.asked.append(blendshapes)
        face = Face(np.zeros((478, 3), np.float32), np.zeros(52, np.float32), 1.0)
        return face if len(self.asked) >= 5 else None


def test_blendshapes_are_asked_for_until_the_neutral_face_is_known() -> None:
    def frames() -> Generator[Image]:
        yield from [np.zeros((32, 32, 3), np.uint8)] * 9

    for num_blendshapes, num_asked in ((2, 5), (7, 7)):
        tracker = Late()
        found = video._tracked(
            frames(),
            tracker,  # type: ignore[arg-type]
            Clock(),
            silent,
            9,
            num_blendshapes,
            video._Orientation(),
        )
        assert sum(face is not None for face in found) == 5
        assert tracker.asked == [True] * num_asked + [False] * (9 - num_asked)


def _talking(number: int) -> Face:
    """The face in a frame: it moves to the side and opens its mouth at constant speed."""
    shape = canonical_shape()
    shape[[17, 14, 152], 1] += 0.6 + 0.6 * np.sin(number / 7)
    pose = Pose(np.eye(3), np.array([300.0 + 0.2 * number, 200.0, 0.0]), 11.0)
    return a_face(pose.apply(shape), jawOpen=float(0.3 + 0.3 * np.sin(number / 7)))


@pytest.mark.parametrize(
    ("fps", "num_frames", "every"), [(25.0, 230, 3), (25.0, 150, 2), (25.0, 120, 1), (12.5, 150, 1), (60.0, 600, 7)]
)
def test_a_long_film_is_looked_through_for_its_neutral_face(
    monkeypatch: pytest.MonkeyPatch, fps: float, num_frames: int, every: int
) -> None:
    """All frames are tracked as usual, after some of the first eight seconds for the neutral face."""
    asked: list[tuple[int, bool]] = []
    started: list[Face] = []

    class Follows:
        num_jumps, landmarker = 0, None

        def __init__(self, *_: Any) -> None:
            pass

        def start(self, face: Face, *, is_there: bool) -> None:
            assert is_there
            started.append(face)

        def track(self, image: Image, *, blendshapes: bool = True) -> Face:
            asked.append((int(image[0, 0, 0]), blendshapes))
            return _talking(asked[-1][0])

    def frames(path: Path, *, fps: float, max_side: int, every: int = 1, **_: bool) -> Generator[Any]:
        yield from (np.full((2, 2, 1), number, np.int32) for number in range(0, num_frames, every))

    monkeypatch.setattr(video, "Tracker", Follows)
    monkeypatch.setattr(video, "_turns", lambda *_: 0)
    monkeypatch.setattr(video.video, "decode_frames", frames)
    told: list[tuple[int, int | None]] = []
    film = video.Video("film.mp4", Path("film.mp4"), fps, num_frames)
    # type: ignore[arg-type]
    settings = DriverSettings(landmarker=None, progress=lambda _, done, total: told.append((done, total)))
    with film.motion(settings) as motion:
        reference, made = motion.neutral, list(motion.frames)

    faces = [_talking(number) for number in range(num_frames)]
    if every == 1:
        wanted, frames_wanted = stream_motion(faces, fps)
        assert [number for number, _ in asked] == list(range(num_frames))
    else:
        looked_at = list(range(0, min(num_frames, int(8 * fps)), every))
        wanted, place = neutral_and_place([faces[number] for number in looked_at], fps / every)
        frames_wanted = motion_from(faces, fps, wanted, place, smooth=settings.smooth)
        assert [number for number, _ in asked] == looked_at + list(range(num_frames))
        # The second pass continues at the face that the first one found in the first frame.
        np.testing.assert_array_equal([face.points for face in started], [faces[0].points])
        # In the second pass only the first face has blendshapes.
        assert [shapes for _, shapes in asked] == [True] * (len(looked_at) + 1) + [False] * (num_frames - 1)
        assert told[-1] == (min(num_frames, 8 * fps),) * 2
    assert len(made) == num_frames and reference.note == wanted.note
    np.testing.assert_array_equal(reference.shape, wanted.shape)
    for one, other in zip(made, frames_wanted, strict=True):
        np.testing.assert_array_equal(one.offset, other.offset)
        np.testing.assert_array_equal(one.shift, other.shift)
