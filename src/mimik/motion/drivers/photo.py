"""A photo as a driver: transition to its expression and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np

from mimik.arrays import smoothstep
from mimik.face.landmarks import Image, choose_face
from mimik.face.orientation import confidence_note, find_faces, upright
from mimik.media import video
from mimik.media.pictures import in_memory
from mimik.motion.drivers.driver import USUAL_FPS, Driver, DriverSettings, DrivingMotion
from mimik.motion.frames import MotionFrame
from mimik.motion.neutral import motion_of_photo

_PHASES_S = 0.8, 1.4, 0.8  # to the photo's expression, hold, and back


class PhotoDriver(Driver):
    """A single expression; the result is a picture or a short video."""

    kind = "photo"
    is_still = True
    shows_faces = True

    def __init__(self, name: str, path: Path | None, fps: float, picture: Image | None = None) -> None:
        """Args: name, path, fps: as Driver has them; picture: uint8 RGB [H, W, 3], read from the file if None."""
        super().__init__(name, path, fps, round(sum(_PHASES_S) * fps))
        self._picture = picture

    @classmethod
    def takes(cls, source: str) -> bool:
        """By the content; raises MediaError for a file that is neither a picture nor a video."""
        return Path(source).exists() and video.kind(source) == "image"

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        return cls(Path(source).name, Path(source), fps or USUAL_FPS)

    @classmethod
    def of(cls, picture: Any, fps: float | None) -> Self:
        """A picture in memory: a Pillow image, or uint8 RGB [H, W, 3]. Raises InputError if it is none."""
        return cls("picture in memory", None, fps or USUAL_FPS, in_memory(picture))

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        picture = self._picture
        if picture is None:
            assert self.path is not None
            picture = video.read_image(self.path)
        found = find_faces(settings.landmarker, picture, thorough=(settings.face or 1) > 1)
        face = choose_face(found, settings.face, self.name, picture.shape[1::-1])
        _, face, _ = upright(picture, face, self.name)
        reference, motion_frame = motion_of_photo(face)
        notes = [note for note in (reference.note, confidence_note(face, self.name)) if note]
        return DrivingMotion(reference, iter(_transition(motion_frame, self.fps)), notes=notes)


def _transition(motion_frame: MotionFrame, fps: float) -> list[MotionFrame]:
    """Transition from neutral to the photo's motion frame, hold, and transition back."""
    rise, hold, fall = (round(seconds * fps) for seconds in _PHASES_S)
    amounts = np.concatenate([np.linspace(0, 1, rise), np.ones(hold), np.linspace(1, 0, fall)])
    return [motion_frame.scaled(float(smoothstep(t))) for t in amounts]
