"""Frames in memory as a driver: an array or an iterable of pictures."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mimik.config import InputError, OptionError, check_number
from mimik.face.landmarks import Image
from mimik.media.pictures import in_memory
from mimik.motion.drivers.video import Filmed


class Frames(Filmed):
    """Pictures in memory at a given frame rate, without sound."""

    kind = "row of frames"

    def __init__(self, frames: Iterable[Any], fps: float, num_frames: int | None = None) -> None:
        """Args: frames: Pillow images or uint8 RGB [H, W, 3]; fps: of them; num_frames: None where unknown."""
        super().__init__("frames in memory", None, fps, num_frames)
        self._frames = frames
        self._is_read = False

    @classmethod
    def of(cls, frames: NDArray[Any] | Iterable[Any], fps: float | None) -> Self:
        """Frames that drive.

        Args:
            frames: [N, H, W, 3] uint8 RGB, or pictures one by one.
            fps: of them.

        Raises:
            OptionError: without a rate.
            InputError: if there is no frame, or the array is no row of pictures.
        """
        if fps is None:
            raise OptionError("frames in memory have no rate; pass --fps, frames per second.")
        check_number("--fps", fps, 1, 120, "frames per second")
        num_frames = len(frames) if isinstance(frames, np.ndarray | list | tuple) else None
        if num_frames == 0:
            raise InputError("the driver has no frames; use at least one picture.")
        return cls(frames, float(fps), num_frames)

    def pictures(self, max_side: int) -> Generator[Image]:
        if self._is_read and isinstance(self._frames, Iterator):
            raise InputError("the driver is an iterator whose frames are used up; create a new one for each run.")
        self._is_read = True
        for frame in self._frames:
            yield in_memory(frame)
