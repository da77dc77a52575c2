"""field.py: the area ratio of synthetic flows."""

from __future__ import annotations

import numpy as np
import pytest

from mimik.rendering import field as field_module
from mimik.rendering.field import FINE, GRID, area_ratio, centers_along, smooth_field, unfold


def test_area_ratio_of_flows_made_by_hand() -> None:
    cell = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    x, y = np.meshgrid(cell, cell)
    inner = (slice(2, -2), slice(2, -2))
    # The photo at half the size: a cell of the target covers twice as much of it in each direction.
    np.testing.assert_allclose(area_ratio(np.stack([x, y], -1))[inner], 4, atol=1e-3)
    np.testing.assert_allclose(area_ratio(np.zeros((GRID, GRID, 2), np.float32)), 1)
    np.testing.assert_allclose(area_ratio(np.stack([-2 * x, 0 * y], -1))[inner], -1, atol=1e-3)  # mirrored


def test_the_smooth_field_is_the_interpolant_summed_in_float64() -> None:
    rng = np.random.default_rng(0)
    to, offset, slack = rng.random((60, 2)), 0.05 * rng.standard_normal((60, 2)), np.full(60, 1e-4)
    part = slice(30, 41), slice(50, 67)
    field, (fine,) = smooth_field(to, offset, slack, [part])
    # Weights w and a constant c, of sum(w) = 0 and sum_j w_j |x_i - x_j| - slack_i w_i + c = offset_i.
    apart = np.linalg.norm(to[:, None] - to, axis=-1)
    matrix = np.block([[apart - np.diag(slack), np.ones((60, 1))], [np.ones((1, 60)), np.zeros((1, 1))]])
    w = np.linalg.solve(matrix, np.concatenate([offset, np.zeros((1, 2))]))
    at = centers_along(GRID * FINE).astype(np.float64)
    places = np.stack(np.meshgrid(at[50 * FINE : 67 * FINE], at[30 * FINE : 41 * FINE]), -1)
    expected = np.linalg.norm(places[:, :, None] - to, axis=-1) @ w[:-1] + w[-1]
    np.testing.assert_allclose(fine, expected, atol=2e-6 * np.abs(w).max())
    np.testing.assert_allclose(field[part], expected.reshape(11, FINE, 17, FINE, 2).mean((1, 3)), atol=1e-4)


def test_an_opencv_without_lapack_gives_the_same_field(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    to, offset = rng.random((350, 2)), 0.05 * rng.standard_normal((350, 2))
    slack = 1e-4 * rng.choice([1.0, 60.0, 3e4], 350)  # of visible points, at the outline, and hidden
    found = {}
    for answer in (True, False):
        monkeypatch.setattr(field_module, "_has_lapack", lambda answer=answer: answer)
        found[answer], _ = smooth_field(to, offset, slack, [])
    np.testing.assert_allclose(found[True], found[False], atol=1e-4)  # 0.04 px of a 400 px crop


def test_what_covers_a_fold_keeps_it() -> None:
    """A strip whose rows all show the same row of the photo, as between parted lips."""
    offset = np.zeros((GRID, GRID, 2), np.float32)
    y = centers_along(GRID)
    strip = slice(60, 68)
    offset[strip, :, 1] = (y[strip.start] - y[strip])[:, None]
    offset[strip.stop :, :, 1] = y[strip.start] - y[strip.stop - 1]
    covered = np.zeros((GRID, GRID), np.float32)
    smoothed, _ = unfold(offset, covered)
    assert np.abs(smoothed - offset)[58:70].max() * GRID > 0.3
    covered[strip.start - 1 : strip.stop + 1] = 1
    kept, ratio = unfold(offset, covered)
    np.testing.assert_array_equal(kept, offset)
    np.testing.assert_array_equal(ratio, area_ratio(offset))
