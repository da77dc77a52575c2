"""head_mesh.py: rasterization against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest

from mimik.rendering.head_mesh import rasterize


def slow_raster(points: np.ndarray, attribute: np.ndarray, triangles: np.ndarray, grid: int) -> tuple:
    """One cell and one triangle at a time; also returns the cells so near to an edge that rounding decides."""
    depth, out = np.full((grid, grid), np.inf), np.zeros((grid, grid, attribute.shape[1]))
    doubtful = np.zeros((grid, grid), bool)
    for row in range(grid):
        for column in range(grid):
            cell = np.array([column + 0.5, row + 0.5])
            for t in triangles:
                a, b, c = points[t]
                matrix = np.stack([b[:2] - a[:2], c[:2] - a[:2]], 1)
                if abs(np.linalg.det(matrix)) < 1e-6:
                    continue
                w1, w2 = np.linalg.solve(matrix, cell - a[:2])
                weights = np.array([1 - w1 - w2, w1, w2])
                if abs(weights.min()) < 1e-3:
                    doubtful[row, column] = True
                if weights.min() < 0:
                    continue
                z = weights @ points[t, 2]
                if z < depth[row, column]:
                    depth[row, column] = z
                    out[row, column] = weights @ attribute[t]
    return depth, out, doubtful


@pytest.mark.parametrize("seed", range(4))
def test_rasterize_is_the_slow_loop(seed: int) -> None:
    rng, grid = np.random.default_rng(seed), 14
    points = np.concatenate([rng.uniform(-4, grid + 4, (14, 2)), rng.uniform(0, 5, (14, 1))], 1)
    attribute = rng.normal(size=(14, 2))
    triangles = np.array([rng.choice(14, 3, replace=False) for _ in range(9)], np.int32)
    depth, out = rasterize(points, attribute, triangles, grid)
    expected_depth, expected, doubtful = slow_raster(points, attribute, triangles, grid)
    sure = ~doubtful
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(np.isfinite(depth)[sure], np.isfinite(expected_depth)[sure])
    covered = sure & np.isfinite(depth)
    assert covered.any()
    np.testing.assert_allclose(depth[covered], expected_depth[covered], atol=2e-3)
    np.testing.assert_allclose(out[covered], expected[covered], atol=5e-3)
    assert not out[~np.isfinite(depth)].any()


def test_rasterize_keeps_the_nearer_of_two_in_any_order() -> None:
    # Two triangles over the whole grid, at depths 1 and 2.
    points = np.array([[-20, -20, z] for z in (1, 2)] + [[60, -20, z] for z in (1, 2)] + [[-20, 60, z] for z in (1, 2)])
    near, far = [0, 2, 4], [1, 3, 5]
    attribute = points[:, 2:].astype(float)
    for order in ([near, far], [far, near]):
        depth, out = rasterize(points, attribute, np.array(order, np.int32), 8)
        np.testing.assert_allclose(depth, 1, atol=1e-5)
        np.testing.assert_allclose(out[..., 0], 1, atol=1e-5)


def test_rasterize_of_nothing() -> None:
    points = np.array([[0, 0, 0], [1, 1, 0], [2, 2, 0], [90, 90, 0], [91, 90, 0], [90, 91, 0]], float)
    for triangles in (np.zeros((0, 3), np.int32), np.array([[0, 1, 2], [3, 4, 5]], np.int32)):
        depth, out = rasterize(points, np.ones((6, 1)), triangles, 8)
        assert np.isinf(depth).all()
        assert not out.any()
