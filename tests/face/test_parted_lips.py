"""parted_lips.py: drawn lips, 4 px per millimeter, over a gap that the landmarks miss."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face, Image
from mimik.face.parted_lips import with_detected_gap

PX_PER_MM, CENTER = 4.0, np.array([200.0, 150.0])


def almond(up_mm: float, down_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """The upper and lower lip lines, [11, 2] each, from corner to corner, in pixels."""
    across = np.linspace(-1, 1, 11)
    lines = [np.stack([25 * across, height * (1 - across**2)], 1) for height in (-up_mm, down_mm)]
    upper, lower = (CENTER + PX_PER_MM * line for line in lines)
    return upper, lower


def pictured(up_mm: float, down_mm: float, level: int) -> tuple[Image, Face]:
    """Lips of 8 mm each with an almond-shaped gap of a gray level; a face whose landmarks have touching lips."""
    image = np.full((300, 400, 3), 180, np.uint8)
    for size, shade in (((8.0, 8.0), 120), ((up_mm, down_mm), level)):
        upper, lower = almond(*size)
        cv2.fillPoly(image, [np.round(np.concatenate([upper, lower[::-1]])).astype(np.int32)], (shade,) * 3)
    points = np.zeros((faces.NUM_POINTS, 3), np.float32)
    points[[33, 133], 0], points[[362, 263], 0] = CENTER[0] - 31 * PX_PER_MM, CENTER[0] + 31 * PX_PER_MM
    points[[33, 133, 362, 263], 1] = CENTER[1] - 60 * PX_PER_MM
    for size, lines in (
        (8.0, (faces.LIPS_OUTER_UPPER, faces.LIPS_OUTER_LOWER)),
        (0.1, (faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER)),
    ):
        for line, places in zip(lines, almond(size, size), strict=True):
            points[line, :2] = places
    return image, Face(points, np.zeros(len(BLENDSHAPES), np.float32), 1.0)


def test_inner_lips_go_to_the_edges_of_the_dark() -> None:
    image, face = pictured(2.0, 3.0, 12)
    seen = with_detected_gap(image, face)
    upper, lower = almond(2.0, 3.0)
    middle = slice(3, 8)  # of eleven; at the corners the gap is thinner than a pixel
    for line, edge in ((faces.LIPS_INNER_UPPER, upper), (faces.LIPS_INNER_LOWER, lower)):
        np.testing.assert_allclose(seen.points[line, :2][middle], edge[middle], atol=0.3 * PX_PER_MM)
    others = np.setdiff1d(np.arange(faces.NUM_POINTS), [*faces.LIPS_INNER_UPPER, *faces.LIPS_INNER_LOWER])
    np.testing.assert_array_equal(seen.points[others], face.points[others])


@pytest.mark.parametrize(
    ("up_mm", "down_mm", "level"),
    [(0.4, 0.5, 12), (2.0, 3.0, 50), (2.0, 3.0, 220)],
    ids=["the line between closed lips", "a shadow", "teeth"],
)
def test_other_mouths_are_left_as_they_are(up_mm: float, down_mm: float, level: int) -> None:
    image, face = pictured(up_mm, down_mm, level)
    assert with_detected_gap(image, face) is face


def test_a_gap_that_the_landmarks_see_is_left_as_it_is() -> None:
    image, face = pictured(2.0, 3.0, 12)
    seen = with_detected_gap(image, face)
    assert with_detected_gap(image, seen) is seen
