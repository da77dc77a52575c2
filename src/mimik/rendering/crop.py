"""Square crops of the photo around a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face import landmarks as face

CROP_SCALE = 2.5  # side of the flow's square, in face heights (forehead to chin)
# Side of the texture generator's window, in face heights: includes hair and collar; a mouth is 20 px of 128.
WINDOW_SCALE = 1.7


def squares_around(points: NDArray[Any], scale: float) -> NDArray[np.float64]:
    """[.., 3] left, top and side of the squares around heads with points [.., 478, 2+]; see Crop.around."""
    oval = points[..., face.OVAL, :2].astype(float)
    up = np.linalg.norm(points[..., 10, :2] - points[..., face.CHIN, :2], axis=-1)
    side = scale * np.maximum(up, np.ptp(oval[..., 0], axis=-1))[..., None]
    return np.concatenate([(oval.min(-2) + oval.max(-2)) / 2 - side / 2, side], -1)


@dataclass(frozen=True)
class Crop:
    """A square in photo pixels: left, top, side; it may extend beyond the photo."""

    left: float
    top: float
    side: float

    @classmethod
    def around(cls, points: NDArray[Any], scale: float = CROP_SCALE) -> Crop:
        """The square around a head with points [478, 3]; scale: its side in face heights."""
        return cls(*squares_around(points, scale).tolist())

    def to_unit(self, points: NDArray[Any]) -> NDArray[Any]:
        """Photo pixels -> 0..1 across the crop; z, if present, in the same units."""
        origin = np.array([self.left, self.top, 0.0])[: points.shape[-1]]
        return (points - origin) / self.side

    def from_unit(self, points: NDArray[Any]) -> NDArray[Any]:
        """The inverse of to_unit."""
        return points * self.side + np.array([self.left, self.top, 0.0])[: points.shape[-1]]

    def scaled(self, scale: float) -> Crop:
        """The same square in a picture enlarged by scale."""
        return Crop(self.left * scale, self.top * scale, self.side * scale)

    def matrix(self, px: int) -> NDArray[np.float64]:
        """[2, 3] matrix for cv2.warpAffine: photo pixels -> pixels of the square resized to px."""
        k = px / self.side
        return np.array([[k, 0, (0.5 - self.left) * k - 0.5], [0, k, (0.5 - self.top) * k - 0.5]])

    def cut(self, picture: NDArray[Any], px: int) -> NDArray[Any]:
        """The square resized to px; beyond the picture its border is replicated. Any dtype and number of channels."""
        return cv2.warpAffine(picture, self.matrix(px), (px, px), borderMode=cv2.BORDER_REPLICATE)
