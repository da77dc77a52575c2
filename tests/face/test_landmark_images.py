"""landmark_images.py: the mask of an open mouth."""

from __future__ import annotations

import numpy as np

from mimik.face import landmarks as faces
from mimik.face.landmark_images import mouth_interior


def mouth(gap: float) -> np.ndarray:
    """A face with level inner lips, 40 px wide and gap px apart, in the middle of 100 x 100 px."""
    points = np.zeros((478, 3))
    points[faces.LIPS_INNER_UPPER, 0] = points[faces.LIPS_INNER_LOWER, 0] = np.linspace(30, 70, 11)
    bow = np.sqrt(1 - np.linspace(-1, 1, 11) ** 2) * gap / 2
    points[faces.LIPS_INNER_UPPER, 1] = 50 - bow
    points[faces.LIPS_INNER_LOWER, 1] = 50 + bow
    points[10, :2], points[faces.CHIN, :2] = (50, 0), (50, 90)
    points[faces.RIGHT_EYE_UPPER[0], :2], points[faces.LEFT_EYE_UPPER[0], :2] = (30, 20), (70, 20)
    return points


def test_its_area_is_that_of_the_opening() -> None:
    mask = mouth_interior(mouth(20), 100, 100)
    ellipse = np.pi / 4 * 40 * 20
    rim = 98 / 2  # OpenCV also fills the pixels on the outline: half a pixel along its length
    assert 0.95 * ellipse < mask.sum() / 255 < ellipse + rim
    assert mask[50, 50] == 255 and mask[30, 50] == mask[50, 25] == 0


def test_lips_that_touch_or_cross_have_no_inside() -> None:
    for gap in (0, -6, 0.5):
        assert not mouth_interior(mouth(gap), 100, 100).any()


def test_a_tilted_head_changes_nothing() -> None:
    points = mouth(20)
    turned = points.copy()
    turned[:, :2] = (points[:, :2] - 50) @ np.array([[0, 1], [-1, 0]]) + 50
    np.testing.assert_allclose(
        mouth_interior(turned, 100, 100).astype(int), np.rot90(mouth_interior(points, 100, 100), -1), atol=60
    )
