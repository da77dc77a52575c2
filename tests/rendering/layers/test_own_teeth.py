"""own_teeth.py: teeth are extracted from a picture that shows them, tooth by tooth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image, head_pose
from mimik.rendering.layers import teeth
from mimik.rendering.layers.arch import Anatomy, upper_wall
from mimik.rendering.layers.own_teeth import best_teeth, teeth_of


@pytest.fixture(scope="module")
def painted(portrait: Image, portrait_face: Face) -> tuple[Image, teeth.TeethSet]:
    """The portrait, twice as large, with the teeth of a shipped set in a wide-open mouth; and the set."""
    chosen = teeth.shipped()[0]
    points = portrait_face.points * 2
    image = cv2.resize(portrait, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    wall = upper_wall(Anatomy.of(points), head_pose(points))
    height, width = image.shape[:2]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    u, v, facing = wall.find(x, y)
    found = teeth.upper_texture(chosen, 10).at(u, v - 3)
    outline = points[[*faces.LIPS_INNER_UPPER, *faces.LIPS_INNER_LOWER[-2:0:-1]], :2]
    inside = np.zeros((height, width), np.uint8)
    cv2.fillPoly(inside, [np.round(outline).astype(np.int32)], 1)
    mouth = np.array([40.0, 15, 12]) * (1 - found[..., 3:]) + 200 * found[..., 3:] * found[..., :3]
    return np.where((inside * (facing > 0))[..., None] > 0, mouth, image).clip(0, 255).astype(np.uint8), chosen


@pytest.fixture(scope="module")
def found(painted: tuple[Image, teeth.TeethSet], portrait_face: Face) -> teeth.TeethSet | None:
    return teeth_of(painted[0], portrait_face.points * 2, "own")


def test_teeth_are_found_where_they_were_painted(
    painted: tuple[Image, teeth.TeethSet], found: teeth.TeethSet | None
) -> None:
    chosen = painted[1]
    assert found is not None
    front = slice(len(chosen.bounds) // 2 - 2, len(chosen.bounds) // 2 + 3)
    np.testing.assert_allclose(found.bounds[front], chosen.bounds[front], atol=0.8)
    level = found.tones.astype(float).mean((0, 1))
    np.testing.assert_allclose(level, teeth.ENAMEL, rtol=0.12)  # relative to its own mean


def test_teeth_in_warm_light_are_found_and_gums_and_lips_are_not() -> None:
    """Colors of a photo in which lips, light and teeth are reddish."""
    picture = np.full((40, 90, 3), (200, 95, 100), np.uint8)  # lips
    within = np.zeros((40, 90), bool)
    within[10:30, 10:80] = True
    picture[10:16, 10:80] = (170, 85, 85)  # gums
    picture[16:30, 10:80] = (200, 150, 140)
    found = teeth.enamel(picture, within, 5.0)
    assert found[17:29, 12:78].all()
    assert not found[:16].any()


def test_a_closed_or_tiny_mouth_gives_no_teeth(portrait: Image, portrait_face: Face) -> None:
    points = portrait_face.points.copy()
    points[faces.LIPS_INNER_LOWER] = points[faces.LIPS_INNER_UPPER]
    assert teeth_of(portrait, points, "own") is None
    tiny = cv2.resize(portrait, (64, 64), interpolation=cv2.INTER_AREA)
    assert teeth_of(tiny, portrait_face.points / 8, "own") is None
    assert best_teeth([(portrait, points)]) is None


def test_the_photo_that_shows_most_is_taken(
    portrait: Image, portrait_face: Face, painted: tuple[Image, teeth.TeethSet], found: teeth.TeethSet | None
) -> None:
    shut = portrait_face.points.copy()
    shut[faces.LIPS_INNER_LOWER] = shut[faces.LIPS_INNER_UPPER]
    best = best_teeth([(portrait, shut), (painted[0], portrait_face.points * 2)])
    assert best is not None and found is not None
    np.testing.assert_array_equal(best.tones, found.tones)


@pytest.mark.parametrize(("sigma", "sigma_y"), [(3.0, None), (12.0, None), (48.0, None), (50.0, 80.0)])
def test_a_wide_blur_is_that_of_the_gaussian(sigma: float, sigma_y: float | None) -> None:
    plane = cv2.GaussianBlur(np.random.default_rng(1).random((310, 720, 3), dtype=np.float32), (0, 0), 3)
    plane[100:200, 200:500] += 1
    expected = cv2.GaussianBlur(plane, (0, 0), sigma, sigmaY=sigma_y or sigma)
    found = teeth.widely_blurred(plane, sigma, sigma_y)
    assert found.shape == plane.shape
    assert np.abs(found - expected).mean() < 0.005 and np.abs(found - expected).max() < 0.05  # of a step of 1
