"""The smooth field of the landmark flow: radial-basis interpolation on a grid; unfolding; fading to 0 at the border."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array, Float, smoothstep

GRID = 128  # cells along a side of the crop; an eye is about 10 cells wide if the head fills half of the crop
_COARSE = 48  # cells along a side of the grid for the slowly varying part of the smooth field
FINE = 3  # refinement factor of the grid around eyes and mouth
_EVALUATED = 768  # positions evaluated at a time, so that their distances fit into the processor's cache
_BORDER = 0.04  # crop sides: distance from the border over which the flow fades to 0
_MIN_AREA_RATIO = 0.02  # area ratio below which a cell counts as folded
RIDGE = 1e-4  # ridge regularization of the kernel's diagonal: allows small residuals, to reduce jitter


def centers_along(cells: int) -> Array:
    """[cells] centers of cells along a side, 0..1."""
    return (np.arange(cells, dtype=np.float32) + np.float32(0.5)) / np.float32(cells)


@functools.cache
def grid_centers(cells: int = GRID) -> Array:
    """[cells * cells, 2] centers of the cells, 0..1."""
    g = centers_along(cells)
    return np.stack(np.meshgrid(g, g), -1).reshape(-1, 2).astype(np.float32)


def _solve(target: NDArray[np.float64], offset: NDArray[np.float64], slack: NDArray[np.float64]) -> Float:
    """Coefficients [N + 1, 2] of a linear radial-basis interpolant.

    Args:
        target: [N, 2] positions.
        offset: [N, 2] values at these positions.
        slack: [N] > 0, ridge of each point: the larger, the less the point influences the result.
    """
    across, down = (np.subtract.outer(at, at) for at in target.astype(np.float32).T)
    across *= across  # the rounding of cv2.magnitude depends on memory alignment: frames would differ between runs
    down *= down
    across += down
    kernel = cv2.sqrt(across, dst=across)
    kernel.ravel()[:: len(target) + 1] -= slack
    # The coefficients sum to 0. Eliminating the last one makes the negated kernel positive definite (Micchelli 1986),
    # so that a Cholesky factorization, half of the work, solves it. The rounding of BLAS depends on memory alignment;
    # in double precision it does not change any frame.
    last = kernel[-1]
    apart = np.subtract(last[:-1] - last[-1], kernel[:-1, :-1], dtype=np.float64)
    apart += last[:-1, None]
    values = offset[-1] - offset[:-1]
    is_solved, found = cv2.solve(apart, values, flags=cv2.DECOMP_CHOLESKY) if _has_lapack() else (False, values)
    if not is_solved:
        found = np.linalg.solve(apart, values)
    found = np.concatenate([found, -found.sum(0, keepdims=True)])
    return np.concatenate([found, (offset[-1] - last @ found)[None]])


@functools.cache
def _has_lapack() -> bool:
    """Whether OpenCV uses LAPACK: its solver is then three times as fast as NumPy's, otherwise far slower."""
    return any("Lapack:" in line and "YES" in line for line in cv2.getBuildInformation().splitlines())


def _evaluate(
    x: NDArray[Any], y: NDArray[Any], target: NDArray[np.float64], coefficients: NDArray[np.float64]
) -> Array:
    """The interpolant [H, W, 2] on the grid of columns x [W] and rows y [H]."""
    # The squared distances are separable: a term per column plus a term per row.
    centers = target.astype(np.float32).T
    across, down = ((at[:, None] - center) ** 2 for at, center in zip((x, y), centers, strict=True))
    down = down[:, None]
    weights = np.ascontiguousarray(coefficients.T, np.float32)
    out = np.empty((2, len(y), len(x)), np.float32)
    num_rows = max(_EVALUATED // len(x), 1)
    distances = np.empty((num_rows, len(x), len(target)), np.float32)
    for start in range(0, len(y), num_rows):
        rows = distances[: len(y) - start]
        np.add(across, down[start : start + num_rows], out=rows)
        distance = rows.reshape(-1, len(target))
        cv2.sqrt(distance, dst=distance)
        for plane, weight in zip(out, weights, strict=True):  # separately: BLAS would copy for a joint product
            np.dot(distance, weight[:-1], out=plane[start : start + num_rows].reshape(-1))
    for plane, weight in zip(out, weights, strict=True):
        plane += weight[-1]
    return cv2.merge(list(out))


def smooth_field(
    to: NDArray[np.float64],
    offset: NDArray[np.float64],
    slack: NDArray[np.float64],
    parts: list[tuple[slice, slice]],
) -> tuple[Array, list[Array]]:
    """Interpolate the offsets on the grid, and at FINE times its resolution in some parts.

    Args:
        to, offset: [N, 2] target positions and their offsets.
        slack: [N] ridge of each point, see _solve.
        parts: rows and columns of the parts to refine.

    Returns:
        [GRID, GRID, 2], upsampled from a grid of _COARSE cells; and for each part [rows * FINE, columns * FINE, 2].
    """
    coefficients = _solve(to, offset, slack)
    coarse = _evaluate(centers_along(_COARSE), centers_along(_COARSE), to, coefficients)
    field = cv2.resize(coarse, (GRID, GRID), interpolation=cv2.INTER_LINEAR)
    places = centers_along(GRID * FINE)
    fine = [_evaluate(places[columns], places[rows], to, coefficients) for rows, columns in map(_finely, parts)]
    for part, values in zip(parts, fine, strict=True):
        size = values.shape[1] // FINE, values.shape[0] // FINE
        field[part] = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    return field, fine


def _finely(part: tuple[slice, slice]) -> tuple[slice, slice]:
    rows, columns = part
    return slice(rows.start * FINE, rows.stop * FINE), slice(columns.start * FINE, columns.stop * FINE)


def unfold(offset: Array, covered: Array) -> tuple[Array, Array]:
    """The flow, smoothed locally where it folds, and its area ratio.

    Args: covered: [GRID, GRID] 1 where the photo is not visible, so that the flow may fold; else 0.
    """
    ratio = area_ratio(offset)
    for sigma in (1.0, 1.5, 2.0, 3.0, 4.0):
        folded = (ratio < _MIN_AREA_RATIO) * (1 - covered)
        if not folded.any():
            break
        where = cv2.GaussianBlur(cv2.dilate(folded, np.ones((5, 5), np.uint8)), (0, 0), 1.0)[..., None]
        where = np.minimum(where * 1.5, 1)
        offset = offset + where * (cv2.GaussianBlur(offset, (0, 0), sigma) - offset)
        ratio = area_ratio(offset)
    return offset, ratio


def part_around(points: NDArray[np.float64]) -> tuple[slice, slice] | None:
    """Rows and columns of the cells around points [N, 2+], with a margin of 2 cells; None outside the grid."""
    low = np.floor(points[:, :2].min(0) * GRID - 2).astype(int).clip(0, GRID)
    high = np.ceil(points[:, :2].max(0) * GRID + 2).astype(int).clip(0, GRID)
    if (high <= low).any():
        return None
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def frame_of(low: NDArray[Any], high: NDArray[Any], per_side: int = 10) -> NDArray[np.float64]:
    """[4 * per_side, 2] points along the border of a rectangle."""
    t = np.linspace(0, 1, per_side, endpoint=False)
    zero, one = np.zeros(per_side), np.ones(per_side)
    unit = np.concatenate([np.stack(s, 1) for s in ((t, zero), (one, t), (1 - t, one), (zero, 1 - t))])
    return low + unit * (high - low)


def fade_of(low: NDArray[Any], high: NDArray[Any], left: NDArray[Any], right: NDArray[Any]) -> Array:
    """[GRID, GRID] 1 inside, fading to 0 at the border.

    Args:
        low, high: (left, top) and (right, bottom) of the border.
        left, right: [GRID] of the border at each row of cells.
    """
    at = grid_centers().reshape(GRID, GRID, 2)
    x, y = at[..., 0], at[..., 1]
    distance = np.minimum(np.minimum(x - left[:, None], right[:, None] - x), np.minimum(y - low[1], high[1] - y))
    return np.asarray(smoothstep(distance - 0.75 / GRID, 0, _BORDER), np.float32)


def area_ratio(offset: Array) -> Array:
    """[GRID, GRID] Jacobian determinant of the map target -> photo; not positive where the flow folds."""
    padded = cv2.copyMakeBorder(offset, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) * np.float32(GRID / 2)
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) * np.float32(GRID / 2)
    return (1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0]
