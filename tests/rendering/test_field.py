"""field.py: the area ratio of flows made by hand."""

from __future__ import annotations

import numpy as np

from mimik.rendering.field import GRID, area_ratio


def test_area_ratio_of_flows_made_by_hand() -> None:
    cell = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    x, y = np.meshgrid(cell, cell)
    inner = (slice(2, -2), slice(2, -2))
    # The photo is shown half as large: a cell of the target covers twice as much of it each way.
    np.testing.assert_allclose(area_ratio(np.stack([x, y], -1))[inner], 4, atol=1e-3)
    np.testing.assert_allclose(area_ratio(np.zeros((GRID, GRID, 2), np.float32)), 1)
    np.testing.assert_allclose(area_ratio(np.stack([-2 * x, 0 * y], -1))[inner], -1, atol=1e-3)  # mirrored
