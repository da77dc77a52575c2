"""The 256-color palette of an animated GIF: preserves the colors of lips and irises, which cover few pixels."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array
from mimik.media.containers import Rgb

_BITS = 5  # per channel, of the color histogram
# Exponent of a color's pixel count. With 1, a wall dominates the palette and lips lose their pink. The square root
# reduces the error of lips from 4.3 to 1.7 (CIE76, viewed from a distance, a portrait at 256 px; palettegen of ffmpeg:
# 5.9).
_POWER = 0.5
_ROUNDS = 12  # iterations of k-means


def palette_of(frames: Iterable[Rgb], size: int = 256) -> NDArray[np.uint8]:
    """Palette for a set of frames.

    Weighted k-means in CIELAB over a color histogram with 5 bits per channel.

    Args:
        frames: uint8 RGB [H, W, 3], at least one.
        size: of the palette.

    Returns:
        [size, 3] uint8 RGB; if fewer colors occur, they are repeated.
    """
    num, total = np.zeros(1 << 3 * _BITS), np.zeros((1 << 3 * _BITS, 3))
    for frame in frames:
        pixels = frame.reshape(-1, 3).astype(np.int64)
        cell = (pixels >> (8 - _BITS)) @ np.array([1 << 2 * _BITS, 1 << _BITS, 1])
        num += np.bincount(cell, minlength=len(num))
        for channel in range(3):
            total[:, channel] += np.bincount(cell, pixels[:, channel], len(num))
    there = np.flatnonzero(num)
    weight = num[there] ** _POWER
    colors = _convert(total[there] / num[there, None] / 255, cv2.COLOR_RGB2LAB)

    # Initialize with the color of the largest weight, then repeatedly the color of the largest weighted error.
    centers = colors[[int(weight.argmax())]]
    missed = np.square(colors - centers[0]).sum(1)
    for _ in range(min(size, len(colors)) - 1):
        centers = np.vstack([centers, colors[int((missed * weight).argmax())]])
        missed = np.minimum(missed, np.square(colors - centers[-1]).sum(1))
    for _ in range(_ROUNDS):
        distance = np.square(centers).sum(1) - 2 * colors @ centers.T  # minus a constant for each color
        nearest = distance.argmin(1)
        sums = np.stack([np.bincount(nearest, weight * colors[:, i], len(centers)) for i in range(3)], 1)
        share = np.bincount(nearest, weight, len(centers))
        centers = np.where(share[:, None] > 0, sums / np.maximum(share, 1e-9)[:, None], centers).astype(np.float32)
    rgb = np.rint(_convert(centers, cv2.COLOR_LAB2RGB).clip(0, 1) * 255).astype(np.uint8)
    return np.resize(rgb, (size, 3))


def _convert(colors: NDArray[np.floating], code: int) -> Array:
    return np.asarray(cv2.cvtColor(colors[None].astype(np.float32), code)[0], np.float32)
