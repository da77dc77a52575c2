"""Render frames of a clip from another frame of it, along their own landmarks, by the same code as videos."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik import Avatar
from mimik.config import AnimateConfig, InputError
from mimik.face.landmarks import Image, Landmarker

COPY = "copy"  # the unchanged photo
Arrays = Mapping[str, NDArray[Any]]

landmarker = functools.cache(Landmarker)


def clips_in(folder: Path) -> list[Path]:
    """The clips of a folder. Raises InputError if there are none."""
    if paths := sorted(folder.glob("*.mp4")):
        return paths
    raise InputError(f"--data {folder}: there is no .mp4 in it; use a folder of clips.")


def kept(path: Path, cache: Path, how: object, make: Callable[[Path], Arrays]) -> Arrays:
    """Arrays that `make` computes from a clip, cached in a folder.

    Args: how: further dependencies of the result, for the cache key.
    """
    cache.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(how).encode() + path.read_bytes()).hexdigest()[:12]
    file = cache / f"{path.stem}-{digest}.npz"
    if not file.exists():
        draft = file.with_suffix(".part.npz")
        np.savez(draft, **make(path))
        os.replace(draft, file)
    with np.load(file) as found:
        return dict(found)


def painted(photo: Path, points: NDArray[Any], model: str) -> Iterator[Image]:
    """Frames of a photo with the landmarks [N, 478, 3]."""
    source = Avatar.from_photos([photo], landmarker=landmarker()).source_frame(AnimateConfig(model=model))
    for goal in points:
        yield source.paint(source.flow(goal), goal).copy()


def evenly(numbers: Any, count: int) -> list[int]:
    """At most `count` of the numbers, evenly spaced."""
    at = np.unique(np.linspace(0, len(numbers) - 1, count).round().astype(int))
    return [int(numbers[i]) for i in at]
