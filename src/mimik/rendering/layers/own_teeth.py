"""Extracts the upper teeth of a portrait: segments the teeth, and removes lighting and lips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face.landmarks import Array, Image
from mimik.rendering.layers.canvas import LUMA
from mimik.rendering.layers.teeth import (
    ABOVE_MM,
    BELOW_MM,
    ENAMEL,
    HALF_MM,
    MAP_PX_PER_MM,
    TOP_MM,
    UPPER_EDGES,
    TeethSet,
    default_bounds,
    rectify,
    spread,
    widely_blurred,
)

_CHEEKS = [50, 205, 280, 425, 187, 411]
_SCAN_PX = 10  # resolution of the search, px per mm
# Largest variation of enamel within one mouth, relative: of hue, toward dark, toward bright.
_MAX_HUE, _MAX_DARK, _MAX_BRIGHT = 0.05, 0.07, 0.12
_SEEN_SIDE_MM = 19  # distance from the midline beyond which anatomical boundaries are used


_MIN_MM2, _MIN_WIDTH_MM = 90.0, 24.0  # smallest visible area of enamel, and its smallest extent along the arch
_MIN_PX_PER_MM = 1.2  # smallest resolution at which single teeth can be separated


def teeth_of(picture: Image, points: Array, name: str) -> TeethSet | None:
    """The upper teeth in a picture; None if they are not clearly visible.

    Args:
        picture: uint8 RGB [H, W, 3].
        points: [478, 3] face points in it.
        name: of the set.
    """
    unrolled, found, px_per_mm = rectify(picture, points, _SCAN_PX)
    along = np.flatnonzero(found.sum(0) > _SCAN_PX)
    reach = np.ptp(along) / _SCAN_PX if len(along) else 0.0
    if px_per_mm < _MIN_PX_PER_MM or found.sum() / _SCAN_PX**2 < _MIN_MM2 or reach < _MIN_WIDTH_MM:
        return None
    bounds, edges = _teeth(unrolled, found)
    # In the set, v = 0 is the edge of the central incisors.
    middle = len(edges) // 2
    low = float(edges[middle - 1 : middle + 1].max())
    shown = unrolled.astype(np.float32)
    core = cv2.erode(found.astype(np.float32), np.ones((7, 7)))
    rows = (np.arange(unrolled.shape[0])[:, None] + 0.5) / _SCAN_PX - TOP_MM
    number = (np.searchsorted(bounds, _columns(unrolled)) - 1).clip(0, len(edges) - 1)
    core *= (rows < edges[number][None] - 0.35) & (rows > low - 9)
    # Lighting: slow changes along the arch belong to the portrait's light, not to the teeth.
    wide = spread(shown, core)
    slow = widely_blurred(wide, 5 * _SCAN_PX, 8 * _SCAN_PX)
    mean = (shown * core[..., None]).sum((0, 1)) / core.sum()
    light = (slow @ LUMA) / max(float(mean @ LUMA), 1.0)
    tones = _cleaned(wide / light[..., None] / mean) * ENAMEL
    px = MAP_PX_PER_MM
    size = round(2 * HALF_MM * px), round((ABOVE_MM + BELOW_MM) * px)
    top = round((low - ABOVE_MM + TOP_MM) * _SCAN_PX)
    part = tones[max(top, 0) : top + round((ABOVE_MM + BELOW_MM) * _SCAN_PX)]
    part = cv2.copyMakeBorder(part, max(-top, 0), 0, 0, 0, cv2.BORDER_REPLICATE)
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    skin = np.median([picture[int(y), int(x)] for x, y in points[_CHEEKS, :2]], axis=0)
    return TeethSet(
        name,
        small.round().clip(0, 255).astype(np.uint8),
        bounds.astype(np.float32),
        (edges - low).astype(np.float32),
        skin.astype(np.float32),
    )


def best_teeth(photos: Sequence[tuple[Image, Array]]) -> TeethSet | None:
    """The teeth of the photo with the largest visible area of enamel; None if no photo shows them clearly.

    Args:
        photos: of one person; uint8 RGB [H, W, 3] and face points [478, 3].
    """
    best, most = None, 0.0
    for picture, points in photos:
        area = enamel_mm2(picture, points)
        if area > most and (found := teeth_of(picture, points, "own")) is not None:
            best, most = found, area
    return best


def enamel_mm2(picture: Image, points: Array) -> float:
    """Visible area of the upper teeth on the dental arch, mm^2; arguments as in teeth_of."""
    _, found, _ = rectify(picture, points, 3)
    return float(found.sum()) / 9


def _cleaned(tones: Array) -> Array:
    """Enamel without shadows between teeth and without the reflected hue of the lips."""
    light = (tones @ LUMA).astype(np.float32)
    hue = cv2.GaussianBlur(tones / light[..., None], (0, 0), 2.0 * _SCAN_PX)
    hue = 1 + (hue - 1).clip(-_MAX_HUE, _MAX_HUE)
    local = cv2.GaussianBlur(light, (0, 0), 2.5 * _SCAN_PX)
    detail = (light / local).clip(1 - _MAX_DARK, 1 + _MAX_BRIGHT)
    return np.asarray(hue * (detail * local.clip(0.85, 1.1))[..., None], np.float32)


def _columns(unrolled: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray((np.arange(unrolled.shape[1]) + 0.5) / _SCAN_PX - HALF_MM)


def _teeth(unrolled: NDArray[np.uint8], found: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Boundaries [2 n + 1] and edges [2 n] of the teeth, mm on the wall."""
    light = unrolled.astype(np.float32) @ LUMA
    u = _columns(unrolled)
    seen = found.sum(0)
    rows = cv2.dilate(found.astype(np.uint8), np.ones((5, 15))) > 0
    column = np.where(rows.any(0), (light * rows).sum(0) / np.maximum(rows.sum(0), 1), 0).astype(np.float32)[None]
    column = cv2.GaussianBlur(column, (0, 0), 0.25 * _SCAN_PX)
    valley = (cv2.GaussianBlur(column, (0, 0), 2.0 * _SCAN_PX) - column)[0]  # high at dark gaps between light teeth

    def darkest(low: float, high: float, expected: float) -> float:
        near = np.flatnonzero((u >= low) & (u <= high))
        if not len(near) or abs(expected) > _SEEN_SIDE_MM or not seen[near].any():
            return expected
        score = valley[near] - 0.6 * np.abs(u[near] - expected)
        return float(u[near[score.argmax()]])

    middle = darkest(-2.5, 2.5, 0)
    widths = np.diff(default_bounds())[default_bounds().size // 2 :]
    sides = []
    for sign in (-1, 1):
        at, side = middle, []
        for width in widths:
            guess = at + sign * width
            low, high = sorted((at + sign * 0.88 * width, at + sign * 1.12 * width))
            at = darkest(low, high, guess)
            side.append(at)
        sides.append(side)
    bounds = np.array([*sides[0][::-1], middle, *sides[1]])
    v = (np.arange(unrolled.shape[0]) + 0.5) / _SCAN_PX - TOP_MM
    usual = np.array([*UPPER_EDGES[::-1], *UPPER_EDGES])
    edges = np.full(len(usual), np.nan)
    for number, (left, right) in enumerate(pairwise(bounds)):
        core = np.flatnonzero(
            (u > left + 0.3 * (right - left)) & (u < right - 0.3 * (right - left)) & (seen > _SCAN_PX)
        )
        if len(core) and abs(left + right) / 2 < _SEEN_SIDE_MM:
            edges[number] = np.median([v[np.flatnonzero(found[:, c])[-1]] for c in core]) + 0.15
    offset = float(np.nanmedian(edges - usual))
    wanted = usual + offset
    # Measured edges may deviate from anatomy by at most 0.8 mm.
    return bounds, np.where(np.isnan(edges), wanted, wanted + (edges - wanted).clip(-0.8, 0.8))
