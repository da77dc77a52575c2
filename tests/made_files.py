"""Synthetic pictures and files for several tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mimik.face.landmarks import Image


def coordinates(width: int, height: int) -> Image:
    """A picture whose red and green encode the position of a pixel, to a third of a pixel on small pictures."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / (width - 1), y * 255 / (height - 1), np.zeros_like(x)], -1).astype(np.uint8)


def texture(seed: int, size: tuple[int, int] = (96, 128)) -> Image:
    """Random blobs of random colors."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
