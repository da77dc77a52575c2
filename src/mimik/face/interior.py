"""Where a mouth is open: the part of a frame that lies between the inner lips."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face import landmarks as faces
from mimik.face.landmarks import Image

_SOFT_EDGE = 0.03  # standard deviation of the mask's edge, in distances of the eyes' outer corners
_SHIFT = 4  # binary digits after the point of a coordinate


def mouth_interior(points: NDArray[Any], width: int, height: int) -> Image:
    """A soft mask of what lies between the inner lips.

    Args:
        points: [478, 2 or 3] in pixels of the image.
        width, height: of the image, in pixels.

    Returns:
        uint8 [height, width]; 255 inside, 0 outside and where the lips touch or have crossed.
    """
    mask = np.zeros((height, width), np.uint8)
    upper, lower = points[faces.LIPS_INNER_UPPER, :2], points[faces.LIPS_INNER_LOWER, :2]
    down = points[faces.CHIN, :2] - points[10, :2]
    opening = np.maximum((lower - upper) @ (down / max(float(np.linalg.norm(down)), 1e-6)), 0)
    if opening.max() < 1:
        return mask
    outline = np.concatenate([upper, lower[-2:0:-1]])
    cv2.fillPoly(mask, [np.round((outline - 0.5) * 2**_SHIFT).astype(np.int32)], 255, cv2.LINE_AA, shift=_SHIFT)
    eyes = float(np.linalg.norm(points[faces.RIGHT_EYE_UPPER[0], :2] - points[faces.LEFT_EYE_UPPER[0], :2]))
    return cv2.GaussianBlur(mask, (0, 0), max(_SOFT_EDGE * eyes, 0.5))
