"""The neck behind the jaw of a turning head, which a frontal photo does not show.

A turn moves the jaw away from the neck, and between the ear and the collar the warped photo would show the background.
A layer between both fills this gap: from below the ear to the edge of the neck, in the colors of jaw and neck.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import ramp, smoothstep
from mimik.face.landmarks import CHIN, OVAL, Array, Image, Pose, head_pose, skull_motion
from mimik.rendering.flow import NECK_BASE_CM, SWAY, degrees_of
from mimik.rendering.head_mesh import head

# Centimeters of the canonical face frame; x on the side of positive x.
_BELOW_EAR_CM = np.array([6.4, 2.4, 5.5])  # where the edge of the neck begins, hidden by the ear
_IN_EAR_CM = 1.2  # its least distance from the outline of ear or hair
_JAW = (132, 172), (361, 397)  # face points whose colors the layer takes, from the ear down
_WITHIN = 0.12  # of the way to the middle of the face, at which they are taken
_HEIGHTS_CM = np.arange(4.0, 12.5, 0.1)  # among which the edge of the neck is searched
_ACROSS_CM = np.arange(0.0, 9.0, 0.1)  # distances from the middle
_PLANE_CM = 2.0  # depth at which the outline of jaw and neck is measured
_INSET_CM = 0.2  # of the layer's edge inside this outline
_HALF_WIDTH_CM = 2.5, 7.5  # of a neck; a wider outline is that of hair or clothes
_INWARD_CM = 3.0  # width of the layer, most of it behind the head
_LOWER_CM = 1.0  # part of it behind the collar
_CONCAVE_CM = 0.15  # by which its edge bends inward midway
_LOOKED_AT_CM = 1.2, 0.5  # distance of the neck's color from the edge of the neck; half the side of its square
_SAME_HUE = 0.03  # largest distance of chromaticities at which that color counts as skin
_SHADE = 0.5, 0.95  # limits of its brightness, relative to that of the jaw
_USUAL_SHADE = 0.75  # where it is not skin
_HAIR = 0.6  # brightness at the ear, relative to the jaw: darker is hair, which hides the neck
_SOFT_CM = 0.07  # standard deviation of the edge
_PHOTO_TURNED = 10.0, 16.0  # degrees of yaw in the photo, over which the layer fades out: then the photo shows a neck
_FOLLOWS = 0.75  # motion of the edge of the neck with the skull, relative to that of the shell there
_TURNED = 4.0, 12.0  # degrees of head rotation over which it fades in


class Neck:
    """The layer for one photo."""

    def __init__(self, front: Image, alpha: Array, points: NDArray[Any]) -> None:
        """Args:
        front: uint8 RGB [H, W, 3], colors of the person.
        alpha: [H, W] 0..1, matte.
        points: [478, 3] face points, pixels.
        """
        self._points = np.asarray(points, np.float64)
        self._skull = skull = head_pose(points)
        self._base = skull.apply(NECK_BASE_CM)
        self._share = 1 - float(ramp(abs(skull.degrees[0]), *_PHOTO_TURNED))
        # Of each side where the photo shows the edge of a neck: below the ear, the edge, the colors of both ends.
        self._sides: list[tuple[NDArray[np.float64], NDArray[np.float64], Array]] = []
        for sign, jaw in zip((-1.0, 1.0), _JAW, strict=True):
            ends = _ends_of_edge(alpha, skull, sign)
            if self._share > 0 and ends is not None:
                (ear, neck), colors = skull.apply(ends), self._colors(front, jaw, ends[1], sign)
                at_ear = _color_around(front, ear[:2], _LOOKED_AT_CM[1] * skull.scale)
                if at_ear.sum() > _HAIR * self._jaw_color(front, jaw[0]).sum():
                    self._sides.append((ear, neck, colors))

    def _colors(self, front: Image, jaw: tuple[int, int], edge: NDArray[np.float64], sign: float) -> Array:
        """[2, 3] colors of the layer below the ear and at the edge of the neck."""
        upper, lower = (self._jaw_color(front, index) for index in jaw)
        inner = self._skull.apply(edge - [sign * _LOOKED_AT_CM[0], 0, 0])[:2]
        neck = _color_around(front, inner, _LOOKED_AT_CM[1] * self._skull.scale)
        # A collar instead of skin has another hue.
        is_skin = np.abs(neck / neck.sum() - lower / lower.sum()).max() < _SAME_HUE
        shade = float(np.clip(neck.sum() / lower.sum(), *_SHADE)) if is_skin else _USUAL_SHADE
        return np.asarray(np.stack([upper * (shade + _USUAL_SHADE) / 2, lower * shade]), np.float32)

    def _jaw_color(self, front: Image, index: int) -> NDArray[np.float64]:
        """[3] color inside the face beside a point of the jaw."""
        at = self._points[index, :2] + _WITHIN * (self._points[:, :2].mean(0) - self._points[index, :2])
        return _color_around(front, at, _LOOKED_AT_CM[1] * self._skull.scale)

    def lay(
        self, part: Image, behind: Image | None, alpha: NDArray[np.uint8], target: NDArray[Any], left_top: NDArray[Any]
    ) -> None:
        """Composite the layer between the head and what is behind, in place.

        Args:
            part: uint8 RGB [h, w, 3] of a frame: the head over `behind`, or the head's colors alone.
            behind: [h, w, 3]; None: transparent. Then alpha is changed, too.
            alpha: [h, w] matte of the head.
            target: [478, 3] face points of the frame, pixels of the photo.
            left_top: [2] of the part, pixels of the photo.
        """
        for place, color, share in self.layers(target, left_top, part.shape):
            shown, over = part[place], alpha[place].astype(np.float32)[..., None] / 255
            added = (1 - over) * share
            if behind is not None:
                shown[...] = np.rint(shown + added * (color - behind[place]))
                continue
            total = over + added
            shown[...] = np.rint((over * shown + added * color) / np.maximum(total, 1e-3)).clip(0, 255)
            alpha[place] = np.rint(255 * total[..., 0])

    def layers(
        self, target: NDArray[Any], left_top: NDArray[Any], shape: tuple[int, ...]
    ) -> Iterator[tuple[tuple[slice, slice], Array, Array]]:
        """Of each side: rows and columns, colors [h, 1, 3], and opacity [h, w, 1]. Arguments as in lay."""
        motion = skull_motion(self._points, target)
        strength = np.float32(self._share * smoothstep(degrees_of(motion.rotation), *_TURNED) / 255)
        if not strength:
            return
        sway = SWAY * (motion.apply(self._base) - self._base)[0, :2]
        cm = self._skull.scale
        for ear, neck, colors in self._sides:
            still, moved = neck[:2] + sway, motion.apply(neck)[:2]
            last = still + _FOLLOWS * _follow(self._skull.invert(neck[None])[0, 1]) * (moved - still) - left_top
            first = motion.apply(ear)[:2] - left_top
            inward = np.sign(self._points[CHIN, 0] - neck[0]) * np.array([cm, 0.0])
            bend = (first + last) / 2 + _CONCAVE_CM * inward
            t = np.linspace(0, 1, 9)[:, None]
            edge = (1 - t) ** 2 * first + 2 * t * (1 - t) * bend + t**2 * last
            below = last + np.array([0.0, _LOWER_CM * cm])
            inner = np.array([below, first]) + _INWARD_CM * inward
            outline = np.concatenate([edge, below[None], inner])
            low = np.floor(outline.min(0) - 0.3 * cm).astype(int).clip(0, shape[1::-1])
            high = np.ceil(outline.max(0) + 0.3 * cm).astype(int).clip(0, shape[1::-1])
            if (high <= low).any():
                continue
            mask = np.zeros((high - low)[::-1], np.uint8)
            cv2.fillPoly(mask, [np.round((outline - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
            mask = cv2.GaussianBlur(mask, (0, 0), max(_SOFT_CM * cm, 0.5))
            down = ramp(np.arange(low[1], high[1]), first[1], max(last[1], first[1] + 1))[:, None, None]
            color = (colors[0] + down * (colors[1] - colors[0])).astype(np.float32)
            yield np.s_[low[1] : high[1], low[0] : high[0]], color, mask[..., None] * strength


def _follow(height: float) -> float:
    """Share of the skull's motion of the inner ring of the head's shell, at this height of the face frame."""
    n = len(OVAL)
    order = np.argsort(head().shell[:n, 1])
    return float(np.interp(height, head().shell[:n, 1][order], head().follow[:n][order]))


def _ends_of_edge(alpha: Array, skull: Pose, sign: float) -> NDArray[np.float64] | None:
    """[2, 3] where the layer's edge begins below the ear, and where the outline below it is nearest to the middle.

    Args: alpha: [H, W] matte; skull: pose of the head; sign: of x.

    Returns:
        Face frame; None if the outline is not that of a neck.
    """
    heights = np.append(_HEIGHTS_CM, _BELOW_EAR_CM[1])
    x, y = np.meshgrid(_ACROSS_CM, heights)
    at = skull.apply(np.stack([sign * x, y, np.full_like(x, _PLANE_CM)], -1))[..., :2].astype(np.float32) - 0.5
    shown = cv2.remap(alpha, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) > 0.5
    *outline, at_ear = _ACROSS_CM[(np.cumprod(shown, 1).sum(1) - 1).clip(0)]
    nearest = int(np.argmin(outline))
    if nearest == 0 or not _HALF_WIDTH_CM[0] < outline[nearest] < _HALF_WIDTH_CM[1]:
        return None  # at 0, a collar hides the neck: the outline gets wider from the jaw down
    neck = [sign * (outline[nearest] - _INSET_CM), heights[nearest], _PLANE_CM]
    ear = _BELOW_EAR_CM * [sign, 1, 1]
    ear[0] = sign * min(_BELOW_EAR_CM[0], at_ear - _IN_EAR_CM)
    inside = skull.apply(np.array(neck))[:2]
    return np.array([ear, neck]) if (inside >= 0).all() and (inside < alpha.shape[::-1]).all() else None


def _color_around(picture: Image, at: NDArray[Any], radius: float) -> NDArray[np.float64]:
    """[3] mean color around a place, 1 to 255."""
    size = picture.shape[1::-1]
    low = np.floor(at - radius).astype(int).clip(0, np.array(size) - 1)
    high = np.ceil(at + radius).astype(int).clip(low + 1, size)
    return np.asarray(picture[low[1] : high[1], low[0] : high[0]].reshape(-1, 3).mean(0).clip(1, None))
