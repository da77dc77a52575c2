"""What draws the frames of one picture."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mimik.face.landmarks import Image
from mimik.rendering.flow import Flow

SHADE_PX = 8  # pixels of a frame: inside a mouth the residual has no detail finer than this


class PicturePainter(Protocol):
    """Makes new frames of one picture."""

    def paint(self, flow: Flow, target: NDArray[Any]) -> Image:
        """The picture, uint8 RGB [H, W, 3], with the face's points at target [478, 3], to which the flow leads."""

    @property
    def moved_matte(self) -> NDArray[np.uint8]:
        """The moved part of the picture's matte, as in the frame that was painted last."""
