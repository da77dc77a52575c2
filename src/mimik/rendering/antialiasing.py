"""Antialiasing of a warp: where it minifies the photo, a pixel is the mean of several samples.

A head that turns away compresses the far side of face and hair into a few pixels; with one sample per pixel, its
outline would be a dashed line.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array, smoothstep
from mimik.rendering.field import GRID

_STEP = 2  # cells between the grid points whose offsets are compared
_SQUEEZED = 2.0, 3.5  # photo pixels per output pixel, along the more compressed axis, over which supersampling fades in
_FINER = 4  # samples per pixel along each axis
_ROWS = 64  # rows per band in which rectangles are searched
_GAP = 16  # pixels: a gap wider than this separates two runs of columns


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
