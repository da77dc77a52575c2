"""Synthetic pictures and files for several tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
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


def write_sound(path: Path, samples: np.ndarray, rate: int, *, codec: str = "pcm_s16le", layout: str = "mono") -> Path:
    """samples [C, N] in -1..1 as a sound file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        resampler = av.AudioResampler(
            format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or 1000
        )
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path
