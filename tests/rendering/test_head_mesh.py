"""head_mesh.py: rasterization against a slow loop; hair against a sampled ellipsoid."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mimik.face import landmarks as faces
from mimik.face.landmarks import Pose
from mimik.rendering.head_mesh import head, long_hair, rasterize, shell_of


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


def pose_of(yaw: float, pitch: float = 0.0) -> Pose:
    return Pose(cv2.Rodrigues(np.radians([-pitch, -yaw, 0.0]))[0], np.array([1.0, 2.0, 3.0]), 2.0)


@pytest.mark.parametrize("hair", [0.0, 1.0])
def test_without_a_turn_the_shell_is_the_flat_rings(hair: float) -> None:
    pose = pose_of(0)
    np.testing.assert_allclose(shell_of(pose, (hair, hair)), pose.apply(head().shell), atol=1e-9)


@pytest.mark.parametrize(("yaw", "pitch"), [(25, 0), (-40, 0), (15, -20), (-60, 10)])
def test_hair_is_on_the_outline_of_an_ellipsoid(yaw: float, pitch: float) -> None:
    """Oracle: no point of a sampled ellipsoid projects further out than its outline, in any direction."""
    pose = pose_of(yaw, pitch)
    n = len(faces.OVAL)
    outer = slice(n, 2 * n)  # with long hair, not even an ear changes it
    ring = shell_of(pose, (1.0, 1.0))[outer, :2][head().hair[outer] == 1]
    on_sphere = np.random.default_rng(0).normal(size=(40_000, 3))
    on_sphere /= np.linalg.norm(on_sphere, axis=1, keepdims=True)
    places = pose.apply(on_sphere * [12.0, 14.0, 14.4] + [0.0, -3.0, 5.0])[:, :2]
    center = pose.apply(np.array([0.0, -3.0, 5.0]))[:2]
    for place in ring:
        # Sampled points in the direction of this one reach as far as it, and no further.
        away = (place - center) / np.linalg.norm(place - center)
        reach = (places - center) @ away
        aside = np.abs((places - center) @ [-away[1], away[0]])
        assert reach[aside < 0.3].max() == pytest.approx(np.linalg.norm(place - center), rel=0.01)


def test_an_ear_turns_with_the_face_and_hair_beyond_it_stays_outside() -> None:
    pose = pose_of(30)
    at_ear = np.flatnonzero((head().shell[:, 0] < 0) & (head().shell[:, 1] > 1) & (head().shell[:, 1] < 3.5))
    inner, *_, outer = at_ear
    bald, long = (shell_of(pose, (hair, hair)) for hair in (0.0, 1.0))
    ear = pose.apply(head().shell[at_ear] + np.array([0.0, 0.0, 1.5]))
    np.testing.assert_allclose(bald[at_ear, :2], ear[:, :2], atol=1e-9)
    np.testing.assert_allclose(long[inner, :2], ear[0, :2], atol=1e-9)
    assert long[outer, 0] < bald[outer, 0] - 2  # further to the picture's left, in units of half a centimeter


def test_long_hair_is_what_the_matte_shows_beyond_an_ear() -> None:
    matte = np.zeros((100, 100), np.float32)
    matte[:, 50:] = 1
    skull = Pose(np.eye(3), np.array([0.5, 0.5, 0.0]), 0.02)
    assert long_hair(skull, matte) == (0.0, 1.0)
