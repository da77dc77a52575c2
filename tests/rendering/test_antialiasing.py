"""antialiasing.py: minified regions, and their pixels as means over the covered source area."""

from __future__ import annotations

import numpy as np
import pytest

from mimik.rendering.antialiasing import squeezed, squeezed_parts, supersampled
from mimik.rendering.field import GRID, grid_centers


def scaled_field(factor: float) -> np.ndarray:
    """[GRID, GRID, 2] offsets of a warp that minifies by a factor in x, about the center."""
    places = grid_centers().reshape(GRID, GRID, 2)
    offset = np.zeros_like(places, dtype=np.float32)
    offset[..., 0] = (factor - 1) * (places[..., 0] - 0.5)
    return offset


def test_only_what_is_squeezed_is_averaged() -> None:
    assert squeezed(scaled_field(0.5)) is None
    assert squeezed(scaled_field(1.0)) is None
    assert squeezed(scaled_field(1.9)) is None
    weight = squeezed(scaled_field(4.0))
    assert weight is not None and weight.shape == (GRID, GRID)
    np.testing.assert_allclose(weight[4:-4, 4:-4], 1)
    half = squeezed(scaled_field(2.75))  # midway between the first and the last
    assert half is not None
    np.testing.assert_allclose(half[4:-4, 4:-4], 0.5, atol=0.01)


@pytest.mark.parametrize("factor", [3, 4])
def test_a_squeezed_grating_is_gray(factor: int) -> None:
    """Stripes two pixels wide, minified below a pixel, become their mean; single samples would give a moire."""
    stripes = np.zeros((40, 400), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 200
    x = np.repeat((factor * np.arange(90, dtype=np.float32) + 0.5 * (factor - 1))[None], 40, 0)
    y = np.repeat(np.arange(40, dtype=np.float32)[:, None], 90, 1)
    found = supersampled(stripes, x, y)[:, 2:-2].astype(float)
    # The mean over `factor` pixels of the photo: exactly half for four, within a third of the contrast for three.
    assert np.abs(found - 100).max() < (5 if factor == 4 else 40)
    assert found.mean() == pytest.approx(100, abs=3)


def test_runs_hold_all_that_is_set_once() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((200, 300), bool)
    mask[20:180, 40:44] = mask[90:130, 250:290] = True
    mask[rng.integers(0, 200, 20), rng.integers(0, 300, 20)] = True
    count = np.zeros(mask.shape, int)
    for run in squeezed_parts(mask):
        count[run] += 1
    assert count.max() == 1
    assert count[mask].min() == 1
    assert squeezed_parts(np.zeros((10, 10), bool)) == []
    two = np.zeros((64, 300), bool)
    two[:, 10:14] = two[:, 200:204] = True
    assert sum(count[run].size for run in squeezed_parts(two)) == 2 * 4 * 64
