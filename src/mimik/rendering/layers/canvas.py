"""The canvas: the part of a picture that a warp may change, and overlays drawn on it."""

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
class Box:
    """A rectangle inside a picture, in its pixels: what frames show of it."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def of(cls, picture: NDArray[Any]) -> Box:
        """The whole picture [H, W, ...]."""
        return cls(0, 0, picture.shape[1], picture.shape[0])

    @property
    def corner(self) -> NDArray[np.int_]:
        """[3] left, top and 0: what is subtracted from points of the picture [.., 3]."""
        return np.array([self.left, self.top, 0])

    def part(self, picture: NDArray[Any]) -> NDArray[Any]:
        """A view of the rectangle in a picture."""
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Canvas:
    """The part of a picture that lies in a warper's crop.

    Attributes:
        crop: the warper's square, pixels of the picture.
        left, top: of the canvas, pixels of the picture.
        size: width and height of the canvas, pixels.
    """

    crop: Crop
    left: int
    top: int
    size: tuple[int, int]

    @classmethod
    def of(cls, picture: NDArray[Any], crop: Crop) -> Canvas:
        """The intersection of a picture [H, W, ...] with the crop."""
        height, width = picture.shape[:2]
        left, top = max(int(np.floor(crop.left)), 0), max(int(np.floor(crop.top)), 0)
        right = min(int(np.ceil(crop.left + crop.side)), width)
        bottom = min(int(np.ceil(crop.top + crop.side)), height)
        return cls(crop, left, top, (right - left, bottom - top))

    def part(self, picture: NDArray[Any]) -> NDArray[Any]:
        """A view of the canvas in a picture."""
        return picture[self.top : self.top + self.size[1], self.left : self.left + self.size[0]]

    def within(self, box: Box) -> Canvas:
        """What a box shows of the canvas, in pixels of the box."""
        low = np.array([self.left, self.top]) - box.corner[:2]
        first, last = (edge.clip(0, [box.width, box.height]).tolist() for edge in (low, low + self.size))
        crop = Crop(self.crop.left - box.left, self.crop.top - box.top, self.crop.side)
        return Canvas(crop, first[0], first[1], (last[0] - first[0], last[1] - first[1]))

    def place(self, points: NDArray[Any]) -> NDArray[Any]:
        """Points [N, 2] in units of the crop's side -> canvas pixels; (0, 0) is the center of the first pixel."""
        return points * self.crop.side + (np.array([self.crop.left - self.left, self.crop.top - self.top]) - 0.5)

    def around(self, points: NDArray[Any], margin: float) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """(left, top) and (right, bottom) of the canvas pixels around points [N, 2]."""
        low = np.floor(points.min(0) - margin).astype(int).clip(0)
        return low, np.minimum(np.ceil(points.max(0) + margin).astype(int) + 1, self.size)


@dataclass(frozen=True)
class Overlay:
    """A picture that a layer composites over a part of a frame.

    Attributes:
        low: its left and top, in canvas pixels; it lies inside the canvas.
        pixels: uint8 RGBA [h, w, 4], premultiplied alpha.
    """

    low: NDArray[np.int_]
    pixels: NDArray[np.uint8]

    @classmethod
    def of(cls, low: NDArray[np.int_], color: NDArray[Any], share: NDArray[Any]) -> Overlay:
        """Args: low: left and top; color: float32 [h, w, 3], 0..255; share: [h, w] 0..1, opacity."""
        color = np.minimum(color, np.float32(255)) * share[..., None]
        return cls(low, cv2.convertScaleAbs(np.dstack([np.maximum(color, 0), share * np.float32(255)])))

    @property
    def high(self) -> NDArray[np.int_]:
        """Right and bottom, in canvas pixels."""
        return self.low + self.pixels.shape[1::-1]

    def lay(self, region: NDArray[np.uint8], left_top: NDArray[np.int_]) -> None:
        """Composite over a region of the canvas, uint8 RGB, in place; left_top: of the region, canvas pixels."""
        low, high = (edge.clip(left_top, left_top + region.shape[1::-1]) for edge in (self.low, self.high))
        if (high <= low).any():
            return
        (left, top), (right, bottom) = low - self.low, high - self.low
        pixels = np.ascontiguousarray(self.pixels[top:bottom, left:right])
        (left, top), (right, bottom) = low - left_top, high - left_top
        part = region[top:bottom, left:right]
        through = cv2.bitwise_not(cv2.extractChannel(pixels, 3))
        kept = cv2.multiply(part, cv2.merge([through] * 3), scale=1 / 255)
        part[...] = cv2.add(kept, cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB))

    def reduced(self, scale: float, canvas: Canvas, smaller: Canvas) -> Overlay:
        """The overlay resampled for a smaller picture.

        Args: scale: of the smaller picture, <= 1; canvas, smaller: canvases of both pictures.
        """
        if scale >= 1:
            return self
        corner = np.array([canvas.left, canvas.top]) + 0.5
        first = np.array([smaller.left, smaller.top]) + 0.5
        low = np.floor((self.low + corner) * scale - first).astype(int).clip(0, smaller.size)
        high = (np.ceil((self.high + corner) * scale - first).astype(int) + 1).clip(low, smaller.size)
        soft = cv2.GaussianBlur(self.pixels, (0, 0), 0.4 / scale, borderType=cv2.BORDER_CONSTANT)
        x, y = (self.low + corner) * scale - first - low
        size = int(high[0] - low[0]), int(high[1] - low[1])
        if not all(size):
            return Overlay(low, np.empty((size[1], size[0], 4), np.uint8))
        return Overlay(low, cv2.warpAffine(soft, np.array([[scale, 0, x], [0, scale, y]]), size))


def soft_polygon(outline: NDArray[Any], shape: tuple[int, int], sigma: float) -> Array:
    """[H, W, 1] 1 inside the outline, 0 outside, blurred."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return (cv2.GaussianBlur(mask, (0, 0), sigma).astype(np.float32) / 255)[..., None]


def grown(mask: NDArray[np.uint8], by_px: float) -> NDArray[np.uint8]:
    """A mask, uint8 [H, W], dilated by this many pixels, at least one."""
    side = 2 * max(round(by_px), 1) + 1
    return np.asarray(cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))), np.uint8)
