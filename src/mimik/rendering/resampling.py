"""Resampling of a warp: means where it minifies the photo, new detail where it magnifies it.

A head that turns away compresses the far side of face and hair into a few pixels; with one sample per pixel, its
outline would be a dashed line. The near side, which the photo shows obliquely, is stretched in one direction: hair,
stubble and skin would become streaks. There, the photo's detail is placed anew at its own size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array, smoothstep
from mimik.face.landmarks import CHIN, DETAILED, LEFT_BROW, OVAL, RIGHT_BROW, Image
from mimik.rendering.field import GRID

_STEP = 2  # cells between the grid points whose offsets are compared
_SQUEEZED = 2.0, 3.5  # photo pixels per output pixel, along the more compressed axis, over which supersampling fades in
_FINER = 4  # samples per pixel along each axis
_ROWS = 64  # rows per band in which rectangles are searched
_GAP = 16  # pixels: a gap wider than this separates two runs of columns
# Output pixels per photo pixel, along an axis of the head, over which detail is placed anew.
_MAGNIFIED = 1.8, 3.2
_MOST_MAGNIFIED = 6.0
_SMOOTH_CELLS = 1.5  # sigma over which the magnification is smoothed
_OWN_SIZE = 0.8  # magnification of detail that is placed anew: the photo shows it foreshortened
# Lengths are in widths of the face.
_FINE = 0.02  # sigma of the Gaussian that separates detail
_LOCAL = 0.02  # sigma over which its amplitude is measured
_CELL = 0.03  # width of the strips of the photo that are unrolled, each around its middle
_SHIFTED = 0.04  # largest shift of a strip along itself, so that the same detail is not seen side by side
_MOST = 2.5  # largest detail, in local amplitudes: more is an edge
# Contrast of an edge across the strips, gray levels, over which it counts as a shape, which is never repeated.
_EDGE = 30.0, 60.0
_EDGE_WIDTH, _BESIDE_EDGE = 0.05, 0.008
_EDGE_ALONG = 0.7  # weight of an edge along the axis, which only the shifts break
_FEATURES = (*DETAILED, RIGHT_BROW, LEFT_BROW)  # face points around which all detail keeps its place
_BESIDE_FEATURES = 0.015, 0.02  # margin around them; sigma of its edge
_NECK = -0.1, 0.05  # distance below the chin over which the detail ends: shadows on a neck have soft edges
_REDUCED_PX = 160  # width of the face at which what is smooth is computed
_GOLDEN = 0.618034  # its multiples are spread evenly, neighbors far apart


def squeezed(offset: Array) -> Array | None:
    """[GRID, GRID] 0..1 weight of the supersampled result; None if it is 0 everywhere.

    Args:
        offset: [GRID, GRID, 2] as Flow.offset.
    """
    offset = offset[::_STEP, ::_STEP] * np.float32(GRID / _STEP)
    across, down = offset[:-1, 1:] - offset[:-1, :-1], offset[1:, :-1] - offset[:-1, :-1]
    squares = np.maximum((across[..., 0] + 1) ** 2 + across[..., 1] ** 2, down[..., 0] ** 2 + (down[..., 1] + 1) ** 2)
    if squares.max() <= _SQUEEZED[0] ** 2:
        return None
    weight = np.pad(smoothstep(np.sqrt(squares), *_SQUEEZED).astype(np.float32), ((0, 1), (0, 1)))
    return cv2.resize(cv2.dilate(weight, np.ones((3, 3), np.uint8)), (GRID, GRID), interpolation=cv2.INTER_LINEAR)


def squeezed_parts(mask: NDArray[np.bool_]) -> list[tuple[slice, slice]]:
    """Rows and columns of rectangles that tightly cover the set pixels of a mask [h, w]."""
    found = []
    for top in range(0, mask.shape[0], _ROWS):
        rows = slice(top, min(top + _ROWS, mask.shape[0]))
        columns = np.flatnonzero(mask[rows].any(0))
        for run in np.split(columns, np.flatnonzero(np.diff(columns) > _GAP) + 1):
            if len(run):
                found.append((rows, slice(int(run[0]), int(run[-1]) + 1)))
    return found


def supersampled(source: NDArray[np.uint8], x: Array, y: Array) -> NDArray[np.uint8]:
    """cv2.remap with the mean of _FINER x _FINER samples per pixel; x, y: float32 [h, w] positions in the source."""
    size = x.shape[1] * _FINER, x.shape[0] * _FINER
    finer_x, finer_y = (cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in (x, y))
    samples = cv2.remap(source, finer_x, finer_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(samples, x.shape[1::-1], interpolation=cv2.INTER_AREA)


def magnified(offset: Array, axes: Iterable[NDArray[np.float64]]) -> list[tuple[Array, Array] | None]:
    """Where a warp magnifies the photo along axes.

    Args:
        offset: [GRID, GRID, 2] as Flow.offset.
        axes: of [2] unit vectors in the photo.

    Returns:
        For each axis, [GRID, GRID] output pixels per photo pixel along it, and [GRID, GRID] 0..1 weight of detail that
        is placed anew; None if that is 0 everywhere.
    """
    padded = cv2.copyMakeBorder(offset, 1, 1, 1, 1, cv2.BORDER_REPLICATE) * np.float32(GRID / 2)
    across = cv2.GaussianBlur(padded[1:-1, 2:] - padded[1:-1, :-2], (0, 0), _SMOOTH_CELLS)
    down = cv2.GaussianBlur(padded[2:, 1:-1] - padded[:-2, 1:-1], (0, 0), _SMOOTH_CELLS)
    (xx, yx), (xy, yy) = cv2.split(across), cv2.split(down)
    xx, yy = xx + 1, yy + 1
    area = np.maximum(xx * yy - xy * yx, 1e-3)
    out: list[tuple[Array, Array] | None] = []
    for axis in axes:
        x, y = (np.float32(value) for value in axis)
        # The inverse of the Jacobian maps a step in the photo to one in the frame.
        a, b = yy * x - xy * y, xx * y - yx * x
        by = np.minimum(np.sqrt(a * a + b * b) / area, _MOST_MAGNIFIED)
        if by.max() <= _MAGNIFIED[0]:
            out.append(None)
            continue
        weight = 1 - smoothstep(1 / np.maximum(by, 0.1), 1 / _MAGNIFIED[1], 1 / _MAGNIFIED[0])
        out.append((by, np.asarray(weight, np.float32)))
    return out


class Texture:
    """The fine detail of a photo, to be placed anew where a warp magnifies it.

    Detail is what a Gaussian removes, divided by its local amplitude. Shapes, such as the outline of the face, and the
    features of the face are excluded, and so is the neck.

    Attributes:
        amplitude: uint8 [H, W], of the detail that may be placed anew, in quarters of a gray level.
    """

    def __init__(
        self, picture: Image, points: NDArray[Any], axis: NDArray[np.float64], matte: NDArray[np.uint8] | None
    ) -> None:
        """Args:
        picture: uint8 RGB [H, W, 3].
        points: [478, 2] face points in it, pixels.
        axis: [2] unit vector in it, along which the picture is magnified.
        matte: [H, W] of the person; None: all of the picture has detail.
        """
        self._axis = tuple(np.float32(value) for value in axis)
        self._width = width = max(float(np.ptp(points[OVAL, 0])), 1.0)
        k = min(1.0, _REDUCED_PX / width)
        size = max(round(picture.shape[1] * k), 1), max(round(picture.shape[0] * k), 1)
        unit = width * k

        def small(plane: Array) -> Array:
            return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA))

        def large(plane: NDArray[Any]) -> Array:
            return np.asarray(cv2.resize(plane, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)

        def blurred(plane: Array, sigma: float) -> Array:
            return np.asarray(cv2.GaussianBlur(plane, (0, 0), max(sigma * unit, 0.5)))

        gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
        smooth = blurred(small(gray), _FINE)
        known = np.ones_like(smooth) if matte is None else small(smoothstep(matte / np.float32(255), 0.5, 0.95))
        detail = (gray - large(smooth)) * large(known)
        amplitude = blurred(small(np.sqrt(np.abs(detail))), _LOCAL) / np.maximum(blurred(known, _LOCAL), 0.1)
        amplitude = np.maximum(amplitude * amplitude, 1)
        slope = np.stack([cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)], -1) / 8
        across, along = slope @ axis, slope @ np.array([-axis[1], axis[0]])
        shape = smoothstep(np.hypot(across, _EDGE_ALONG * along) * _EDGE_WIDTH * unit, *_EDGE)
        calm = known * (1 - blurred(cv2.dilate(shape, _square(_BESIDE_EDGE * unit)), _BESIDE_EDGE))
        features = np.zeros(calm.shape, np.uint8)
        for index in _FEATURES:
            hull = cv2.convexHull(np.round(points[index, :2] * k).astype(np.int32))
            cv2.fillConvexPoly(features, hull, 1)
        features = cv2.dilate(features, _square(_BESIDE_FEATURES[0] * unit))
        down = points[CHIN] - points[OVAL[0]]
        x, y = (np.arange(n, dtype=np.float32) / k for n in size)
        below = ((x - points[CHIN, 0]) * down[0] + (y[:, None] - points[CHIN, 1]) * down[1]) / np.hypot(*down) / width
        free = calm * (1 - blurred(features.astype(np.float32), _BESIDE_FEATURES[1])) * (1 - smoothstep(below, *_NECK))
        relative = _MOST * np.tanh(detail / (_MOST * large(amplitude))) * large(calm)
        # In bytes: 0 is 128, _MOST is 255.
        self._detail = cv2.convertScaleAbs(relative, alpha=127 / _MOST, beta=128)
        self.amplitude = cv2.convertScaleAbs(large(amplitude * free), alpha=4)

    def change(self, x: Array, y: Array, by: Array) -> Array:
        """[h, w] gray levels to add to a magnified part of a frame, so that its detail has its own size.

        Args:
            x, y: float32 [h, w] each, sampling positions in the picture.
            by: [h, w] magnification along the axis.
        """
        ax, ay = self._axis
        step, most = np.float32(_CELL * self._width), np.float32(2 * _SHIFTED * self._width)
        along = x * (ax / step) + y * (ay / step)
        stretch = by * (_OWN_SIZE * step) - step
        middle = self._at(x, y)
        total, square = np.zeros_like(x), np.zeros_like(x)
        for number in (0, 1):  # two sets of strips, each faded where the other has its middle
            apart = along + np.float32(0.5 * number)
            strip = np.floor(apart)
            apart -= strip + np.float32(0.5)
            weight = 1 - 2 * np.abs(apart)
            apart *= stretch
            shift = strip * np.float32(2 * _GOLDEN) + np.float32(number * _GOLDEN)
            shift = (shift - np.floor(shift) - np.float32(0.5)) * most
            total += weight * self._at(x + apart * ax - shift * ay, y + apart * ay + shift * ax)
            square += weight * weight
        amplitude = cv2.remap(self.amplitude, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        # Independent details are added: their variances add up. The bytes' middle, 128, is subtracted from both.
        change = (total - np.float32(128)) / np.sqrt(square) - (middle - np.float32(128))
        return np.asarray(amplitude * np.float32(_MOST / 127 / 4) * change, np.float32)

    def _at(self, x: Array, y: Array) -> NDArray[np.uint8]:
        return np.asarray(cv2.remap(self._detail, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _square(radius: float) -> NDArray[np.uint8]:
    return np.ones((2 * round(radius) + 1,) * 2, np.uint8)
