"""Encoding and decoding of the short clips of training data, in memory."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from mimik.files import memory_folder
from mimik.media.containers import Rgb
from mimik.media.reading import read_frames
from mimik.media.writing import VideoWriter


def encode_clip(frames: Iterable[Rgb], fps: float, *, quality: int, gop: int) -> bytes:
    """Encode frames as H.264 in MP4; the bytes are identical on every machine with the same libraries.

    Args:
        frames: uint8 RGB [H, W, 3], at least one, all of the same even size.
        quality: x264's constant rate factor, 0 (best) .. 51.
        gop: keyframe interval in frames.
    """
    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
    with tempfile.TemporaryDirectory(prefix="mimik-", dir=memory_folder()) as folder:
        path = Path(folder, "clip.mp4")
        with VideoWriter(path, width, height, fps, quality=quality, preset="medium", gop=gop, num_threads=1) as writer:
            for frame in itertools.chain([first], frames):
                writer.write(frame)
        return path.read_bytes()


def read_clip(mp4: bytes, numbers: Iterable[int]) -> list[Rgb]:
    """Decode frames of an encode_clip result: uint8 RGB [H, W, 3] each. Args: numbers: of the frames, from 0."""
    wanted = set(numbers)
    with tempfile.TemporaryDirectory(prefix="mimik-", dir=memory_folder()) as folder:
        path = Path(folder, "clip.mp4")
        path.write_bytes(mp4)
        with closing(read_frames(path, num_threads=1)) as frames:
            last = max(wanted, default=-1)
            return [rgb for i, rgb in enumerate(itertools.islice(frames, last + 1)) if i in wanted]
