"""Augmentation: one random change of geometry and color for all frames of an episode."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array, Image
from mimik.config import InputError
from mimik.face import landmarks as faces

NUM_DRAWN = 11  # random numbers per augmentation


@dataclass(frozen=True)
class Change:
    """The augmentation of all frames of one episode; or of several, with a leading axis on each array."""

    flip: NDArray[np.bool_]  # [] whether frames are mirrored
    # [2, 3] pixels -> pixels, both from the corner of the first pixel; without the flip
    affine: NDArray[np.float64]
    color: NDArray[np.float32]  # [3, 3] for RGB, gray stays gray
    curve: Image  # [256] new value for each old one, after color

    def points(self, points: Array, side: Any) -> Array:
        """Transform points [.., N, 478, 3] of frames that are side [..] px wide."""
        out = points.astype(np.float32)
        other = out[self.flip][..., faces.mirror_order()[0], :]
        other[..., 0] = np.asarray(side, np.float32)[self.flip][..., None, None] - other[..., 0]
        out[self.flip] = other
        m = self.affine.astype(np.float32)[..., None, None, :, :]
        x, y = out[..., 0].copy(), out[..., 1].copy()
        for axis in (0, 1):
            out[..., axis] = m[..., axis, 0] * x + m[..., axis, 1] * y + m[..., axis, 2]
        out[..., 2] *= np.sqrt(np.abs(np.linalg.det(m[..., :2])))
        return out

    def to_frames(self, side: Any) -> NDArray[np.float64]:
        """[.., 2, 3] places of the changed frames -> those of frames side [..] px wide, from the corner."""
        linear = np.linalg.inv(self.affine[..., :2])
        offset = -(linear @ self.affine[..., 2:])
        flip = np.asarray(self.flip)[..., None, None]
        linear = np.where(flip, [[-1.0], [1.0]], 1.0) * linear
        offset = np.where(flip, [[-1.0], [1.0]], 1.0) * offset
        offset[..., 0, 0] += self.flip * np.asarray(side)
        return np.concatenate([linear, offset], -1)

    def images(self, images: Image) -> Image:
        """Apply the augmentation to images, uint8 RGB [N, H, W, 3]."""
        num_frames, height, width, _ = images.shape
        whole = self.affine.copy()
        if self.flip:
            whole = whole @ np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])
        out = images
        if np.array_equal(whole[:, :2], [[-1, 0], [0, 1]]) and np.array_equal(whole[:, 2], [width, 0]):
            out = np.ascontiguousarray(images[:, :, ::-1])
        elif not np.array_equal(whole, np.eye(2, 3)):
            whole[:, 2] += whole[:, :2] @ [0.5, 0.5] - 0.5  # cv2 counts from the center of the first pixel
            out = np.empty_like(images)
            for image, into in zip(images, out, strict=True):
                # Reflect at the border: real crops have no black corners.
                cv2.warpAffine(image, whole, (width, height), dst=into, borderMode=cv2.BORDER_REFLECT_101)
        rows = out.reshape(num_frames * height, width, 3)
        if not np.array_equal(self.color, np.eye(3)):
            rows = cv2.transform(rows, self.color)
        if not np.array_equal(self.curve, np.arange(256)):
            rows = cv2.LUT(rows, self.curve)
        return rows.reshape(num_frames, height, width, 3)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges of augmentation; drawn once for all frames of an episode.

    Sources and target must keep the same identity, so colors and mirroring are shared. The affine is shared too:
    landmarks give the networks the motion of the face between two frames, but nothing gives them the background's.
    """

    strength: float = 1.0  # multiplies every range below; 0 disables augmentation, including flips
    flip: float = 0.5  # probability of the mirror image
    rotation_deg: float = 8.0  # largest rotation in the picture plane, in both directions
    scale: float = 0.08  # largest change of size, as a share
    shift: float = 0.04  # largest shift, as a share of the width, in x and in y
    brightness: float = 0.08  # largest change, as a share of white
    contrast: float = 0.15  # largest change, as a share
    saturation: float = 0.2  # largest change, as a share
    gamma: float = 0.15  # largest change of the logarithm of gamma
    hue_deg: float = 6.0  # largest rotation of the hue
    gray: float = 0.1  # probability of grayscale, as in old photographs and drawings

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0:
                raise InputError(f"augmentation {field.name} {value}: use 0 or more.")
        for name in ("flip", "gray"):
            if getattr(self, name) > 1:
                raise InputError(f"augmentation {name} {getattr(self, name)}: use a probability from 0 to 1.")
        if self.strength * max(self.scale, self.contrast, self.saturation) >= 1:
            raise InputError(
                f"augmentation strength {self.strength}: too strong; nothing of a frame would remain; use a smaller "
                "one."
            )

    def draw(self, drawn: NDArray[np.float64], side: Any) -> Change:
        """An augmentation for frames that are side [..] px wide and high; drawn: [.., NUM_DRAWN] random in 0..1."""
        flip = (drawn[..., 0] < self.flip) & (self.strength > 0)
        turn, size, right, down, light, contrast, colorful, gamma, hue = np.moveaxis(
            self.strength * (2 * drawn[..., 1:10] - 1), -1, 0
        )

        # Rotation and scaling about the center, then translation.
        angle, scale = np.radians(turn * self.rotation_deg), 1 + size * self.scale
        c, s = scale * np.cos(angle), scale * np.sin(angle)
        linear = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
        side = np.asarray(side, float)[..., None]
        middle = side / 2 * np.ones(2)
        offset = middle - (linear @ middle[..., None])[..., 0] + side * self.shift * np.stack([right, down], -1)

        # Saturation, then a rotation about the gray axis.
        gray = (drawn[..., 10] < self.gray) & (self.strength > 0)
        vivid = np.where(gray, 0.0, 1 + colorful * self.saturation)[..., None, None]
        saturate = vivid * np.eye(3) + (1 - vivid) * np.array([0.299, 0.587, 0.114])
        angle = np.radians(hue * self.hue_deg)[..., None, None]
        c, s = np.cos(angle), np.sin(angle) / math.sqrt(3)
        rotate = c * np.eye(3) + (1 - c) / 3 + s * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
        value = (np.linspace(0, 1, 256) - 0.5) * (1 + contrast * self.contrast)[..., None]
        value = (0.5 + value + light[..., None] * self.brightness).clip(0, 1)
        curve = np.round(255 * value ** np.exp(gamma * self.gamma)[..., None]).astype(np.uint8)
        affine = np.concatenate([linear, offset[..., None]], -1)
        return Change(flip, affine, (rotate @ saturate).astype(np.float32), curve)
