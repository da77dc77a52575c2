"""Names for kinds of arrays, and what numbers of all kinds need."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Float = NDArray[np.float64]
Image = NDArray[np.uint8]  # RGB [H, W, 3], 0..255
Rng = np.random.Generator


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, behind the last) of every run of True in [N]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def ramp(x: Any, low: Any, high: Any) -> Any:
    """0 up to low, 1 from high on, linear between; low may lie above high."""
    t = (x - low) / (high - low)
    if isinstance(t, np.ndarray):
        return t.clip(0, 1, out=t)
    return min(max(t, 0.0), 1.0) if type(t) is float else t.clip(0, 1)


def smoothstep(x: Any, low: Any = 0.0, high: Any = 1.0) -> Any:
    """0 up to low, 1 from high on, 3 t^2 - 2 t^3 between; of a number a number, of an array an array of its type."""
    t = ramp(x, low, high)
    if not isinstance(t, np.ndarray):
        return t * t * (3 - 2 * t)
    out = t * -2  # in place: a frame takes some fifty of these, most of arrays of a few hundred numbers
    out += 3
    out *= t
    out *= t
    return out
