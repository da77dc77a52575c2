"""arch.py: dental arches are anatomically placed and rotate with the skull, the lower one with the jaw."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import mouth_opened, turned
from mimik.face.landmarks import IPD_MM, canonical_mesh, head_pose
from mimik.rendering.layers.arch import OVERBITE_MM, Anatomy, lower_wall, upper_wall


@pytest.fixture(scope="module")
def frontal() -> np.ndarray:
    """The frontal canonical face, 10 px per centimeter."""
    vertices = canonical_mesh().vertices
    return 10 * np.concatenate([vertices, np.zeros((10, 3))]) + [200, 200, 0]


def test_the_width_of_an_incisor_follows_the_eye_distance(frontal: np.ndarray) -> None:
    eyes = np.linalg.norm(frontal[[33, 133]].mean(0) - frontal[[362, 263]].mean(0))
    wall = upper_wall(Anatomy.of(frontal), head_pose(frontal))
    left, right = wall.place(np.array([0.0, 8.5]), np.zeros(2))
    # By hand: on the parabola z = x^2 / 34 the arc up to x is about x (1 + (x / 17)^2 / 6); 8.5 mm end at x = 8.18.
    assert right[0] - left[0] == pytest.approx(8.18 * eyes / IPD_MM, rel=0.01)
    top, edge = wall.place(np.zeros(2), np.array([-10.0, 0.0]))
    assert np.linalg.norm(edge - top) == pytest.approx(10 * eyes / IPD_MM, rel=0.01)


def test_a_turned_head_shows_its_incisors_narrower(frontal: np.ndarray) -> None:
    def width(points: np.ndarray) -> float:
        wall = upper_wall(Anatomy.of(points), head_pose(points))
        ends = wall.place(np.array([-1.0, 1.0]), np.zeros(2))
        return float(np.linalg.norm(ends[1] - ends[0]))

    assert width(turned(frontal, yaw=40)) / width(frontal) == pytest.approx(np.cos(np.radians(40)), abs=0.02)


def test_a_turned_arch_shows_more_of_the_side_that_comes_near(frontal: np.ndarray) -> None:
    for yaw in (-35, 35):
        points = turned(frontal, yaw=yaw)
        wall = upper_wall(Anatomy.of(points), head_pose(points))
        near = wall.u[-1] if points[454, 2] < points[234, 2] else -wall.u[0]
        far = -wall.u[0] if points[454, 2] < points[234, 2] else wall.u[-1]
        assert near > far + 5
        assert (np.diff(wall.at) > 0).all()


def test_pixels_are_found_where_places_are_drawn(frontal: np.ndarray) -> None:
    points = turned(frontal, yaw=20)
    wall = upper_wall(Anatomy.of(points), head_pose(points))
    for u, v in ((0.0, 0.0), (-9.0, -6.0), (7.0, -3.0), (3.0, 2.0)):
        x, y = wall.place(np.array([u]), np.array([v]))[0]
        found_u, found_v, facing = wall.find(np.array([x], np.float32), np.array([y], np.float32))
        assert (float(found_u[0, 0]), float(found_v[0, 0])) == pytest.approx((u, v), abs=0.05)
        assert facing[0, 0] > 0


def test_upper_teeth_stay_and_lower_teeth_follow_the_jaw(frontal: np.ndarray) -> None:
    anatomy, pose = Anatomy.of(frontal), head_pose(frontal)
    opened = mouth_opened(frontal, 0.1)
    still = upper_wall(anatomy, pose).place(np.zeros(1), np.zeros(1))
    np.testing.assert_allclose(upper_wall(anatomy, head_pose(opened)).place(np.zeros(1), np.zeros(1)), still, atol=1e-6)
    shut, dropped = (lower_wall(anatomy, pose, drop).place(np.zeros(1), np.zeros(1))[0] for drop in (0.0, 12.0))
    px = 10 * anatomy.mm
    assert still[0, 1] - shut[1] == pytest.approx(OVERBITE_MM * px, abs=0.4 * px)
    assert dropped[1] - shut[1] == pytest.approx(12 * px, rel=0.05)
    # The hinge is far behind: a point that moves down also moves back and appears slightly smaller.
    bound = lower_wall(anatomy, pose, 12.0)
    assert (bound.px_per_mm < lower_wall(anatomy, pose, 0.0).px_per_mm + 1e-9).all()


def test_the_jaw_drops_as_the_lips_part(frontal: np.ndarray) -> None:
    anatomy, pose = Anatomy.of(frontal), head_pose(frontal)
    drops = [anatomy.jaw_drop(mouth_opened(frontal, gap), pose) for gap in (0.0, 0.05, 0.1, 0.2)]
    assert drops == sorted(drops) and drops[-1] > drops[0] + 5
    assert all(drop >= 0 for drop in drops)
