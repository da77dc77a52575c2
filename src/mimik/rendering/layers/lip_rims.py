"""Lips without the interior of the mouth, and without the dark line between lips that touch.

When the lips of an open mouth close, its interior has no target area, and the landmarks do not follow the rim of a lip
exactly: remnants of teeth would remain along it. When lips that touch part, both rims would keep the dark line between
them. The lips are therefore inpainted over interior or line once per photo, and such frames are warped from the result.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import smoothstep
from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Image
from mimik.rendering.layers.canvas import LUMA, Canvas, grown
from mimik.rendering.layers.opening import Jaws

_RIM_MM = 0.9  # width of a lip's rim that is always replaced, because it is blurred with the interior
_SCRAPS_MM = 3.5  # distance beyond the landmarks' contour within which remnants of the interior are searched
_UNLIKE = 3.0  # robust standard deviations from the lips' color, from which on a pixel belongs to the interior
_FEATHER_MM = 1.2  # sigma with which the inpainted area is smoothed and blended
_MERGE_MM = 5.0  # height over which the inpainted upper lip passes into the lower one
_SEAM_MM = 0.5, 2.0  # gap over which the dark line between touching lips fades out
_SEAM_WIDTH_MM = 1.0  # width of that line
_FULLY_PARTED_MM = 3.0  # gap from which on the interior is drawn at full opacity
_SEAM_DARK = 0.45  # darkness of the line between touching lips
_INPAINT_PX = 360  # wider lips are inpainted at this width


class LipRims:
    """Inpaints the interior of the mouth in one picture.

    Attributes:
        margin_mm: distance beyond the inner lips up to which the picture changes.
    """

    margin_mm = _SCRAPS_MM + 1

    def __init__(self, picture: Image, canvas: Canvas, jaws: Jaws) -> None:
        """Args: picture: uint8 RGB [H, W, 3], the photo; canvas: where frames are drawn; jaws: of the person in it."""
        self._picture, self._canvas, self._jaws = picture, canvas, jaws

    @cached_property
    def continued(self) -> Image:
        """The photo with the lips inpainted over the interior of the mouth, uint8 RGB [H, W, 3]."""
        opening = self._jaws.in_photo()
        px_per_mm = self._jaws.px_per_mm(opening, self._canvas.crop.side)
        out = self._picture.copy()
        outer = self._canvas.place(self._jaws.points[_OUTER, :2])
        low, high = self._canvas.around(outer, 2 * px_per_mm)
        part = self._canvas.part(out)[low[1] : high[1], low[0] : high[0]]
        if min(part.shape[:2]) < 4:
            return out
        inner = self._canvas.place(np.concatenate([opening.upper, opening.lower[-2:0:-1]]))
        mask = between(part, inner - low, outer - low, px_per_mm)
        k = min(1.0, _INPAINT_PX / part.shape[1])
        small = cv2.resize(part, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
        missing = (cv2.resize(mask, small.shape[1::-1], interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
        # Inpaint each lip from its own skin, up to the middle between both, where they meet.
        middle = (self._canvas.place(opening.upper) + self._canvas.place(opening.lower)) / 2 - low
        order = np.argsort(middle[:, 0])
        meet = np.interp((np.arange(small.shape[1]) + 0.5) / k - 0.5, middle[order, 0], middle[order, 1]) * k
        is_lower = (np.arange(small.shape[0])[:, None] > meet[None]).astype(np.uint8)
        reach = max(1.5 * px_per_mm * k, 2.0)
        from_upper = cv2.inpaint(small, missing | is_lower, reach, cv2.INPAINT_TELEA)
        from_lower = cv2.inpaint(small, missing | (1 - is_lower), reach, cv2.INPAINT_TELEA)
        # One passes into the other, because lips that close show every unevenness of the line between them.
        ramp = max(_MERGE_MM * px_per_mm * k, 1.0)
        lower = smoothstep((np.arange(small.shape[0])[:, None] - meet[None]) / ramp + 0.5)[..., None]
        filled = (from_upper + lower * (from_lower.astype(np.float32) - from_upper)).astype(np.float32)
        filled = cv2.resize(filled, part.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        # Smooth the filled area, so that its edge is not visible in the lips.
        sigma = max(_FEATHER_MM * px_per_mm, 0.6)
        filled = cv2.GaussianBlur(filled, (0, 0), sigma)
        weight = cv2.GaussianBlur(grown(mask, sigma).astype(np.float32), (0, 0), 0.5 * sigma)[..., None]
        part[...] = np.round(part + weight * (filled - part)).clip(0, 255).astype(np.uint8)
        return out

    def parted(self, gap_mm: float, px_per_mm: float) -> float:
        """0..1 opacity of the interior: 0 if the lips touch; px_per_mm: resolution of the frame."""
        fully = min(_FULLY_PARTED_MM, self._jaws.gap_mm / 2)
        return float(1 - self._jaws.shows * (1 - smoothstep(gap_mm, 0.0, max(fully, 1.5 / px_per_mm))))

    def seam(self, shape: tuple[int, int], outline: NDArray[Any], px_per_mm: float, gap_mm: float) -> Array | None:
        """The dark line between touching lips, which an open-mouth photo does not show; None if there is none.

        Args:
            shape: height and width of the result.
            outline: [20, 2] of the opening in its pixels: the upper lip's contour, then the lower lip's, reversed.
            px_per_mm: its resolution.
            gap_mm: largest distance between the lips.

        Returns:
            [H, W] 0..1, the share of light that is lost.
        """
        width = max(_SEAM_WIDTH_MM * px_per_mm, 1.0)
        # The line is at least one pixel wide; a finer line is fainter instead.
        faint = _SEAM_WIDTH_MM * px_per_mm / width
        strength = self._jaws.shows * (1 - smoothstep(gap_mm, *_SEAM_MM)) * _SEAM_DARK * faint
        if strength <= 0:
            return None
        line = np.zeros(shape, np.uint8)
        upper, lower = outline[:11], np.concatenate([outline[:1], outline[:10:-1], outline[10:11]])
        middle = [np.round((upper + lower) * 8).astype(np.int32)]
        cv2.polylines(line, middle, False, 255, max(round(width), 1), cv2.LINE_AA, shift=4)
        return cv2.GaussianBlur(line, (0, 0), max(0.5 * width, 0.5)).astype(np.float32) * np.float32(strength / 255)


def between(part: Image, inner: NDArray[Any], outer: NDArray[Any], px_per_mm: float) -> NDArray[np.uint8]:
    """Mask of the mouth's interior in a picture, from the landmarks and from pixels that differ from the lips' color.

    Args:
        part: uint8 RGB [H, W, 3] around a mouth.
        inner, outer: [N, 2] inner and outer contours of the lips, in its pixels.
        px_per_mm: its resolution.

    Returns:
        uint8 [H, W], 0 or 1.
    """
    inside, lips = (_polygon(line, part.shape[:2]) for line in (inner, outer))
    core = grown(inside, _RIM_MM * px_per_mm)
    near = grown(inside, _SCRAPS_MM * px_per_mm) & lips
    ring = lips & (1 - grown(inside, 1.5 * px_per_mm))
    colors = part.astype(np.float32)
    light = colors @ LUMA
    features = np.stack([light, *((colors[..., c] - light) for c in (0, 2))], -1)
    scraps = np.zeros_like(core)
    if ring.sum() >= 16:
        usual = np.median(features[ring > 0], axis=0)
        spread = 1.4826 * np.median(np.abs(features[ring > 0] - usual), axis=0) + 4
        scraps = ((np.abs(features - usual) > _UNLIKE * spread).any(-1) & (near > 0)).astype(np.uint8)
    _, labels = cv2.connectedComponents(((core | scraps) > 0).astype(np.uint8))
    touching = np.unique(labels[core > 0])
    return np.isin(labels, touching[touching > 0]).astype(np.uint8)


def _polygon(outline: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 1, shift=4)
    return mask


_OUTER = [*face.LIPS_OUTER_UPPER, *face.LIPS_OUTER_LOWER[-2:0:-1]]
