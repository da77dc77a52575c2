"""video.py of the drivers: which frames of a stream are tracked with blendshapes."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from mimik.face.landmarks import Face, Image
from mimik.motion.drivers import video
from mimik.pipeline import Clock, silent


class Late:
    """Sees no face before the fifth frame, and notes whether blendshapes were asked for."""

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
        found = video._tracked(frames(), tracker, Clock(), silent, 9, num_blendshapes)  # type: ignore[arg-type]
        assert sum(face is not None for face in found) == 5
        assert tracker.asked == [True] * num_asked + [False] * (9 - num_asked)
