"""The contours of an eye, and eye coordinates (the "chart") that are common to photo and frame.

In the chart, x runs from the outer corner (0) to the inner corner (1), and y points down the eye, in eye widths. The
lid margins are functions of x, and a closing lid moves along y only. Tables sample functions of x at table_places().
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import spline
from mimik.face import landmarks as face
from mimik.face.landmarks import Array

LIDS_OF_EYES = (
    (face.RIGHT_EYE_UPPER, face.RIGHT_EYE_LOWER),
    (face.LEFT_EYE_UPPER, face.LEFT_EYE_LOWER),
)
FOLDS = ([247, 30, 29, 27, 28, 56, 190], [467, 260, 259, 257, 258, 286, 414])  # over the upper lids
_PER_SEGMENT = 8  # samples of a curve between two of its points
_STEPS, _FIRST, _LAST = 192, -0.25, 1.25  # rows of a table over the chart's x, and the x of its first and last row


@dataclass(frozen=True)
class EyeContours:
    """An eye in the photo or in a frame. Units of the crop's side."""

    upper: Array  # [9, 2] margin of the upper lid, from the outer corner to the inner one
    lower: Array  # [9, 2] margin of the lower lid, in the same order
    fold: Array  # [7, 2] points above the upper lid, near its crease
    iris: Array  # [2] center of the iris
    iris_radius: float  # mean distance of the iris rim's points from the center
    down: Array  # [2] y axis of the eye, of the photo's eye width in length, moved rigidly with the head
    weight: float  # 0..1, opacity of the eye layers; 0 if the eye does not differ from the photo
    number: int  # 0: the person's right eye, 1: the left

    @property
    def gap(self) -> float:
        """Opening of the eye: sum of the distances between the nine pairs of lid points."""
        return float(np.linalg.norm(self.upper - self.lower, axis=1).sum())


@dataclass(frozen=True)
class EyeFrame:
    """The chart of one eye: pixels = origin + matrix @ (x, y)."""

    origin: NDArray[np.float64]
    matrix: NDArray[np.float64]

    def to_chart(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Pixels [N, 2] -> chart coordinates."""
        return (points - self.origin) @ _inverse(self.matrix).T

    def grid(self, low: NDArray[Any], high: NDArray[Any]) -> tuple[Array, Array]:
        """Chart coordinates x and y, [H, W] each, of the pixels from low to high."""
        inverse = _inverse(self.matrix)
        across = (np.arange(low[0], high[0]) - self.origin[0])[None]
        down = (np.arange(low[1], high[1]) - self.origin[1])[:, None]
        x = inverse[0, 0] * across + inverse[0, 1] * down
        y = inverse[1, 0] * across + inverse[1, 1] * down
        return x.astype(np.float32), y.astype(np.float32)

    def maps(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Pixel coordinates (x and y) of chart coordinates, for cv2.remap."""
        m = self.matrix.astype(np.float32)
        o = self.origin.astype(np.float32)
        return m[0, 0] * x + m[0, 1] * y + o[0], m[1, 0] * x + m[1, 1] * y + o[1]


@functools.cache
def table_places() -> NDArray[np.float64]:
    """Chart x of the rows of a table."""
    return np.linspace(_FIRST, _LAST, _STEPS)


def table_step() -> float:
    """Difference in chart x between two rows of a table."""
    return (_LAST - _FIRST) / (_STEPS - 1)


def table_rows(x: NDArray[Any]) -> NDArray[np.intp]:
    """Nearest table rows for chart coordinates x."""
    scale = np.float32((_STEPS - 1) / (_LAST - _FIRST))
    return ((x - np.float32(_FIRST)) * scale + np.float32(0.5)).clip(0, _STEPS - 1).astype(np.intp)


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of a matrix [2, 2]."""
    (a, b), (c, d) = matrix.tolist()
    k = 1 / (a * d - b * c)
    return np.array([[d * k, -b * k], [-c * k, a * k]])


def table_columns(x: Array) -> Array:
    """Fractional table rows for chart coordinates x, for cv2.remap."""
    return (x - np.float32(_FIRST)) * np.float32((_STEPS - 1) / (_LAST - _FIRST))


def height_table(points: NDArray[Any]) -> NDArray[np.float64]:
    """y of the spline through chart points [N, 2], at table_places(); constant beyond its ends."""
    curve = spline(len(points), _PER_SEGMENT) @ points
    x = np.maximum.accumulate(curve[:, 0] + 1e-6 * np.arange(len(curve)))
    return np.interp(table_places(), x, curve[:, 1])


def eye_frame(contours: EyeContours, place: Any) -> EyeFrame:
    """The eye's chart in pixels.

    Args:
        contours: of the eye.
        place: units of the crop's side [N, 2] -> pixels, an affine map.
    """
    corners = place(contours.upper[[0, -1]].astype(np.float64))
    down = place(np.stack([contours.upper[0] + contours.down, contours.upper[0]]).astype(np.float64))
    return EyeFrame(corners[0], np.stack([corners[1] - corners[0], down[0] - down[1]], 1))
