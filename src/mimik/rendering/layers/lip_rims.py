"""Lips that come together in a photo which shows what is between them.

Where such lips close, the photo's pixels between them have nowhere to go, and the landmarks do not follow a lip's rim
to the pixel: scraps of teeth would remain along it. So the lips are continued over what is between them, once for a
photo, and frames in which the mouth is not as open as in the photo are warped from that.
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

_RIM_MM = 0.9  # this much of a lip's rim is replaced in any case: it is blurred with what is next to it
_SCRAPS_MM = 3.5  # beyond the landmarks' line; farther out nothing is taken for a scrap
_UNLIKE = 3.0  # robust standard deviations from the lips' color
_FEATHER_MM = 0.7
_SEAM_MM = 0.5, 2.0  # of the gap: from the first on the line between touching lips fades, at the second it is gone
_SEAM_WIDTH_MM = 0.6
_FULLY_PARTED_MM = 1.0  # a gap from which on what is inside is drawn in full
_SEAM_DARK = 0.5
_INPAINT_PX = 360  # lips wider than this are continued at a lower resolution


class LipRims:
    """Takes what is between the lips out of one picture.

    Attributes:
        margin_mm: how far beyond the inner lips the picture changes.
    """

    margin_mm = _SCRAPS_MM + 1

    def __init__(self, picture: Image, canvas: Canvas, jaws: Jaws) -> None:
        """Args: picture: uint8 RGB [H, W, 3], the photo; canvas: where frames are drawn; jaws: of the person in it."""
        self._picture, self._canvas, self._jaws = picture, canvas, jaws

    @property
    def are_needed(self) -> bool:
        """Whether the photo shows what is between the lips."""
        return self._jaws.shows > 0

    @cached_property
    def continued(self) -> Image:
        """The photo with the lips continued over what is between them, uint8 RGB [H, W, 3]."""
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
        # Each lip from its own skin, down or up to the middle between both, where they meet.
        middle = (self._canvas.place(opening.upper) + self._canvas.place(opening.lower)) / 2 - low
        order = np.argsort(middle[:, 0])
        meet = np.interp((np.arange(small.shape[1]) + 0.5) / k - 0.5, middle[order, 0], middle[order, 1]) * k
        is_lower = (np.arange(small.shape[0])[:, None] > meet[None]).astype(np.uint8)
        reach = max(1.5 * px_per_mm * k, 2.0)
        from_upper = cv2.inpaint(small, missing | is_lower, reach, cv2.INPAINT_TELEA)
        from_lower = cv2.inpaint(small, missing | (1 - is_lower), reach, cv2.INPAINT_TELEA)
        filled = np.where(is_lower[..., None] > 0, from_lower, from_upper)
        filled = cv2.resize(filled, part.shape[1::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
        # Smoother than the lips, so that the edge of what is missing is not seen in them.
        sigma = max(_FEATHER_MM * px_per_mm, 0.6)
        filled = cv2.GaussianBlur(filled, (0, 0), sigma)
        weight = cv2.GaussianBlur(grown(mask, sigma).astype(np.float32), (0, 0), 0.5 * sigma)[..., None]
        part[...] = np.round(part + weight * (filled - part)).clip(0, 255).astype(np.uint8)
        return out

    def parted(self, gap_mm: float, px_per_mm: float) -> float:
        """0..1; how much of what is inside is drawn: nothing between lips that touch; px_per_mm: of the frame."""
        return float(1 - self._jaws.shows * (1 - smoothstep(gap_mm, 0.0, max(_FULLY_PARTED_MM, 1.5 / px_per_mm))))

    def seam(self, shape: tuple[int, int], outline: NDArray[Any], px_per_mm: float, gap_mm: float) -> Array | None:
        """By how much the line between lips that touch, which the photo does not show, is darker; None: there is none.

        Args:
            shape: height and width of the result.
            outline: [20, 2] of the opening in its pixels: the upper lip's line, then the lower lip's, backwards.
            px_per_mm: its resolution.
            gap_mm: how far the lips are apart where they are widest open.

        Returns:
            [H, W] 0..1, the share of the light that is lost.
        """
        width = max(_SEAM_WIDTH_MM * px_per_mm, 1.0)
        # A line is a pixel wide at least, and fainter instead of finer.
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
    """Where a picture shows what is between the lips, by the landmarks and by what does not have the lips' color.

    Args:
        part: uint8 RGB [H, W, 3] around a mouth.
        inner, outer: [N, 2] outlines of the inner and the outer lips, in its pixels.
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
