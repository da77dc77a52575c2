"""A square of the photo, and the two that are cut around a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face import landmarks as face

CROP_SCALE = 2.5  # side of the crop in heights of the face, forehead to chin
WINDOW_SCALE = 1.7  # the same for what the texture generator sees: hair and collar, and a mouth of 20 px in 128


@dataclass(frozen=True)
class Crop:
    """A square of the photo: left, top and side in pixels; it may reach beyond the photo."""

    left: float
    top: float
    side: float

    @classmethod
    def around(cls, points: NDArray[Any], scale: float = CROP_SCALE) -> Crop:
        """The square around a head, from its points [478, 3]; scale: its side in heights of the face."""
        oval = points[face.OVAL, :2]
        up = points[10, :2] - points[face.CHIN, :2]
        height = max(float(np.linalg.norm(up)), float(np.ptp(oval[:, 0])))
        side = scale * height
        x, y = (oval.min(0) + oval.max(0)) / 2
        return cls(float(x) - side / 2, float(y) - side / 2, float(side))

    def to_unit(self, points: NDArray[Any]) -> NDArray[Any]:
        """Photo pixels -> 0..1 across the crop; z, where there is one, on the same scale."""
        origin = np.array([self.left, self.top, 0.0])[: points.shape[-1]]
        return (points - origin) / self.side

    def from_unit(self, points: NDArray[Any]) -> NDArray[Any]:
        """The inverse of to_unit."""
        return points * self.side + np.array([self.left, self.top, 0.0])[: points.shape[-1]]

    def scaled(self, scale: float) -> Crop:
        """The same square of a picture that is scale times as large."""
        return Crop(self.left * scale, self.top * scale, self.side * scale)

    def matrix(self, px: int) -> NDArray[np.float64]:
        """[2, 3] for cv2.warpAffine: the picture's pixels -> those of the square, drawn px wide."""
        k = px / self.side
        return np.array([[k, 0, (0.5 - self.left) * k - 0.5], [0, k, (0.5 - self.top) * k - 0.5]])

    def cut(self, picture: NDArray[Any], px: int) -> NDArray[Any]:
        """The square, px wide; beyond the picture its border is continued. Any type and number of channels."""
        return cv2.warpAffine(picture, self.matrix(px), (px, px), borderMode=cv2.BORDER_REPLICATE)
