"""Where the layers of a frame are drawn: the part of a picture that a warp may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face.landmarks import Array
from mimik.rendering.crop import Crop

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Canvas:
    """The part of a picture that lies in a warper's crop.

    Attributes:
        crop: in pixels of the picture.
        left, top: of the part, in pixels of the picture.
        size: width and height of the part, pixels.
    """

    crop: Crop
    left: int
    top: int
    size: tuple[int, int]

    @classmethod
    def of(cls, picture: NDArray[Any], crop: Crop) -> Canvas:
        """The part of a picture [H, W, ...] that lies in the crop."""
        height, width = picture.shape[:2]
        left, top = max(int(np.floor(crop.left)), 0), max(int(np.floor(crop.top)), 0)
        right = min(int(np.ceil(crop.left + crop.side)), width)
        bottom = min(int(np.ceil(crop.top + crop.side)), height)
        return cls(crop, left, top, (right - left, bottom - top))

    def part(self, picture: NDArray[Any]) -> NDArray[Any]:
        """A view of the part of a picture."""
        return picture[self.top : self.top + self.size[1], self.left : self.left + self.size[0]]

    def place(self, points: NDArray[Any]) -> NDArray[Any]:
        """Points [N, 2] in units of the crop's side -> pixels of the part, counted from the first one's centre."""
        return points * self.crop.side + (np.array([self.crop.left - self.left, self.crop.top - self.top]) - 0.5)

    def around(self, points: NDArray[Any], margin: float) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """Left and top, right and bottom of the part's pixels around points [N, 2]."""
        low = np.floor(points.min(0) - margin).astype(int).clip(0)
        return low, np.minimum(np.ceil(points.max(0) + margin).astype(int) + 1, self.size)


def soft_polygon(outline: NDArray[Any], shape: tuple[int, int], sigma: float) -> Array:
    """[H, W, 1] 1 inside the outline, 0 outside, blurred."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return (cv2.GaussianBlur(mask, (0, 0), sigma).astype(np.float32) / 255)[..., None]


def grown(mask: NDArray[np.uint8], by_px: float) -> NDArray[np.uint8]:
    """A mask, uint8 [H, W], wider by this many pixels on all sides, one at least."""
    side = 2 * max(round(by_px), 1) + 1
    return np.asarray(cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))), np.uint8)
