"""A photo as a driver: its expression, taken on and given up again."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from mimik.face.landmarks import choose_face
from mimik.media import video
from mimik.motion.drivers.driver import Driver, DriverSettings, DrivingMotion
from mimik.motion.frames import MotionFrame
from mimik.motion.neutral import motion_of_photo

_FPS = 25.0  # where no other rate is asked for
_PHASES_S = 0.8, 1.4, 0.8  # to the photo's expression, hold, and back


class Photo(Driver):
    """One expression; a picture can be made of it, or a short video."""

    kind = "photo"
    is_still = True
    path: Path

    @classmethod
    def takes(cls, source: str) -> bool:
        """By the content; raises MediaError for a file that is neither a picture nor a video."""
        return Path(source).exists() and video.kind(source) == "image"

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        rate = fps or _FPS
        return cls(Path(source).name, Path(source), rate, round(sum(_PHASES_S) * rate))

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        picture = video.read_image(self.path)
        found = settings.landmarker.detect(picture, thorough=(settings.face or 1) > 1)
        face = choose_face(found, settings.face, self.name, picture.shape[1::-1])
        reference, motion_frame = motion_of_photo(face)
        return DrivingMotion(reference, iter(_held(motion_frame, self.fps)), notes=[reference.note])


def _held(motion_frame: MotionFrame, fps: float) -> list[MotionFrame]:
    """From neutral to the motion frame of a photo, held, and back."""
    rise, hold, fall = (round(seconds * fps) for seconds in _PHASES_S)
    amounts = np.concatenate([np.linspace(0, 1, rise), np.ones(hold), np.linspace(1, 0, fall)])
    return [motion_frame.scaled(float(t * t * (3 - 2 * t))) for t in amounts]
