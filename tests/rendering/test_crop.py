"""crop.py: squares are at their coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from made_files import coordinates
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face
from mimik.rendering.crop import Crop


def test_the_crop_is_a_square_around_the_head(portrait_face: Face) -> None:
    crop = Crop.around(portrait_face.points)
    height = np.linalg.norm(portrait_face.points[10, :2] - portrait_face.points[faces.CHIN, :2])
    assert crop.side == pytest.approx(2.5 * height, rel=0.02)
    unit = crop.to_unit(portrait_face.points)
    assert np.abs(unit[faces.OVAL, :2].mean(0) - 0.5).max() < 0.1
    np.testing.assert_allclose(unit * crop.side + [crop.left, crop.top, 0], portrait_face.points, atol=1e-3)


def test_the_crop_scales_with_the_head(portrait_face: Face) -> None:
    a = Crop.around(portrait_face.points)
    b = Crop.around(portrait_face.points * 3 + [10, 20, 0])
    assert (b.left, b.top, b.side) == pytest.approx((a.left * 3 + 10, a.top * 3 + 20, a.side * 3), rel=1e-4)


def test_a_cut_shows_the_square_where_its_unit_coordinates_say(portrait_face: Face) -> None:
    picture = coordinates(256, 256).astype(np.float32)
    crop = Crop(40.0, 60.0, 128.0)
    cut = crop.cut(picture, 64)
    u, v = 10, 20  # of the crop: its center is at (u + 0.5) / 64 of the side
    x, y = 40 + (u + 0.5) * 2 - 0.5, 60 + (v + 0.5) * 2 - 0.5  # pixel coordinates, from the center of the first pixel
    np.testing.assert_allclose(cut[v, u, :2], [x, y], atol=0.6)  # coordinates() rounds; cv2 to 1/32 px
    np.testing.assert_array_equal(Crop(0, 0, 256).cut(picture, 256), picture)


def test_a_cut_beyond_the_picture_continues_its_border() -> None:
    picture = np.full((32, 32, 3), 77, np.uint8)
    assert (Crop(-20, -20, 64).cut(picture, 16) == 77).all()
