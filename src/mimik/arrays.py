"""Array type aliases, and small numeric functions."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Float = NDArray[np.float64]
Image = NDArray[np.uint8]  # RGB [H, W, 3], 0..255
Rng = np.random.Generator


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, stop) of every run of True in [N]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def ramp(x: Any, low: Any, high: Any) -> Any:
    """Linear ramp from 0 at low to 1 at high, clamped; low may be greater than high."""
    t = (x - low) / (high - low)
    if isinstance(t, np.ndarray):
        return t.clip(0, 1, out=t)
    return min(max(t, 0.0), 1.0) if type(t) is float else t.clip(0, 1)


def smoothstep(x: Any, low: Any = 0.0, high: Any = 1.0) -> Any:
    """Smoothstep 3 t^2 - 2 t^3 from 0 at low to 1 at high, clamped; returns the type of x."""
    t = ramp(x, low, high)
    if not isinstance(t, np.ndarray):
        return t * t * (3 - 2 * t)
    out = t * -2  # in place for speed: a frame calls this about fifty times, mostly on small arrays
    out += 3
    out *= t
    out *= t
    return out


def line_fit(x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
    """Slope and value at 0 of the line that best fits y [N] over x [N]; the slope is 0 where x hardly varies."""
    x, y = x.astype(float), y.astype(float)
    away = x - x.mean()
    variance = float((away * away).mean())
    slope = float((away * y).mean()) / variance if variance > 1e-6 else 0.0
    return slope, float(y.mean() - slope * x.mean())


@functools.cache
def spline(points: int, per_segment: int) -> Float:
    """[M, points] weights of samples of a Catmull-Rom spline through points; M = (points - 1) * per_segment + 1."""
    t = np.linspace(0, 1, per_segment, endpoint=False)
    basis = np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], 1
    ) / 2  # fmt: skip
    rows = np.zeros(((points - 1) * per_segment + 1, points))
    for segment in range(points - 1):
        for k in range(4):
            at = segment + k - 1
            part = rows[segment * per_segment : (segment + 1) * per_segment]
            if at < 0:  # linear extrapolation of the end points
                part[:, 0] += 2 * basis[:, k]
                part[:, 1] -= basis[:, k]
            elif at >= points:
                part[:, -1] += 2 * basis[:, k]
                part[:, -2] -= basis[:, k]
            else:
                part[:, at] += basis[:, k]
    rows[-1, -1] = 1
    return rows
