"""Correction of landmarks that show closed lips where the photo shows a dark gap, as in hard light on old film.

Without it, an opening mouth would carry the dark gap along as a part of a lip, and closing lips would leave it open.
The inner lip points are moved to the edges of the dark gap.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image

# Largest brightness of a gap, relative to the lips. The line between closed lips, and the shadow on one, have 0.36 or
# more.
_DARK = 0.25
_LEAST_MM = 2.0  # smallest height of a gap
_SEEN_MM = 1.0  # smallest difference between its height and the gap of the landmarks
_EDGE = 0.4  # brightness at the edge of the gap, between its darkest place (0) and the lip (1)
_STEP_MM = 0.1  # sampling distance
_SEARCH_MM = 1.5  # largest distance of the darkest place from the middle between the landmarks' lips
_UPPER, _LOWER = np.array(faces.LIPS_INNER_UPPER[1:-1]), np.array(faces.LIPS_INNER_LOWER[1:-1])
_RIMS = np.array([faces.LIPS_OUTER_UPPER[1:-1], faces.LIPS_OUTER_LOWER[1:-1]])
_MIDDLE = slice(2, 7)  # the middle ones of the nine columns of points


def with_detected_gap(image: Image, face: Face) -> Face:
    """The face with its inner lips at the edges of a dark gap that the landmarks miss; unchanged if there is none.

    Args: image: uint8 RGB [H, W, 3], with the face in it.
    """
    points = face.points[:, :2].astype(np.float64)
    apart = points[[33, 133]].mean(0) - points[[362, 263]].mean(0)
    px_per_mm = float(np.linalg.norm(apart)) / faces.IPD_MM
    if px_per_mm * _LEAST_MM < 2:
        return face
    light = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 0.6)
    middle = (points[_UPPER] + points[_LOWER]) / 2
    gap_mm = float(np.linalg.norm(points[_LOWER] - points[_UPPER], axis=1).max()) / px_per_mm
    columns = [_dark_part(light, m, points[rim], px_per_mm) for m, rim in zip(middle, _RIMS.T, strict=True)]
    darkness, edges = np.array([c[0] for c in columns]), np.array([c[1] for c in columns])  # [9], [9, 2] mm
    thick = np.ptp(edges, axis=1)
    if np.median(darkness[_MIDDLE]) > _DARK or np.median(thick[_MIDDLE]) < max(_LEAST_MM, gap_mm + _SEEN_MM):
        return face
    # Median of three neighboring columns, against outliers.
    padded = np.pad(edges, ((1, 1), (0, 0)))
    edges = np.median([padded[:-2], edges, padded[2:]], axis=0)
    moved = face.points.copy()
    for side, inner in enumerate((_UPPER, _LOWER)):
        toward = points[_RIMS[side]] - middle
        toward /= np.maximum(np.linalg.norm(toward, axis=1, keepdims=True), 1e-6)
        moved[inner, :2] = middle + toward * (edges[:, side, None] * (-1, 1)[side] * px_per_mm)
    return replace(face, points=moved)


def _dark_part(
    light: NDArray[np.uint8], middle: NDArray[Any], rims: NDArray[Any], px_per_mm: float
) -> tuple[float, tuple[float, float]]:
    """Measure the dark gap in one column of points.

    Args: light: [H, W]; middle: [2] between the inner lips; rims: [2, 2] of the upper and the lower lip, pixels.

    Returns:
        Brightness of the darkest place relative to the lips; the upper and lower edge of the gap, millimeters from the
        middle, negative upwards, or zeros if there is no gap.
    """
    ways = (rims - middle) / px_per_mm
    up, down = (float(np.linalg.norm(way)) for way in ways)
    at = np.arange(-up, down, _STEP_MM)
    if up < _STEP_MM or down < _STEP_MM:
        return 1.0, (0.0, 0.0)
    places = middle + px_per_mm * np.where(at[:, None] < 0, -at[:, None] * ways[0] / up, at[:, None] * ways[1] / down)
    x, y = places.astype(np.float32).T
    seen = cv2.remap(light, x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0].astype(float)
    lip = min(float(np.median(seen[at <= -0.25 * up])), float(np.median(seen[at >= 0.25 * down])))
    darkest = int(np.where(np.abs(at) < _SEARCH_MM, seen, np.inf).argmin())
    lowest = float(seen[darkest])
    if lowest > _DARK * lip:
        return lowest / max(lip, 1.0), (0.0, 0.0)
    light_again = np.flatnonzero(seen >= lowest + _EDGE * (lip - lowest))
    first = int(light_again[light_again < darkest].max(initial=-1)) + 1
    last = int(light_again[light_again > darkest].min(initial=len(at))) - 1
    return lowest / max(lip, 1.0), (min(float(at[first]), 0.0), max(float(at[last]), 0.0))
