"""several.py: weights and regions of blended photos."""

from __future__ import annotations

import numpy as np
import pytest

from mimik.face.landmarks import Face, Image
from mimik.rendering.several import distances, head_shape, photo_shares, share_face


def test_shares_fall_with_the_distance_and_are_three() -> None:
    assert photo_shares(np.array([0.1, 0.2])) == pytest.approx([2 / 3, 1 / 3])
    one, two, three, four = 1, 1 / 2, 1 / 3, 1 / 4
    expected = np.array([one - four, 0, two - four, three - four])
    assert photo_shares(np.array([0.1, 0.4, 0.2, 0.3])) == pytest.approx(expected / expected.sum())


def test_nothing_pops_where_photos_change_places() -> None:
    before, after = (photo_shares(np.array([0.1, 0.2, 0.3 - e, 0.3 + e])) for e in (1e-6, -1e-6))
    np.testing.assert_allclose(before, after, atol=1e-4)
    assert before[2:].max() < 1e-4


def test_a_frame_like_a_photo_is_that_photo(small_face: Face) -> None:
    shapes = np.stack([head_shape(small_face.points + shift) for shift in (0, np.linspace(0, 3, 478)[:, None])])
    moved = small_face.points * np.float32(2) + np.float32(7)  # position and size have no effect
    apart = distances(shapes, moved)
    assert apart[0] < 1e-3 < apart[1]
    assert photo_shares(apart)[0] > 0.99


def test_half_of_the_fine_detail_stays(small_face: Face) -> None:
    lines = np.full((*np.ceil(small_face.points.max(0)[1::-1]).astype(int) + 40, 3), 100, np.uint8)
    lines[::2] = 140
    flat = np.full_like(lines, 120)
    made = share_face([lines.copy(), flat], [0.0, 1.0], small_face.points)
    x, y = small_face.points[1, :2].astype(int)
    assert np.ptp(made[y : y + 4, x, 0]) == pytest.approx(20, abs=2)  # of 40


def test_only_the_inside_of_the_face_is_shared(small_portrait: Image, small_face: Face) -> None:
    other = small_portrait // 2 + np.uint8(40)
    made = share_face([small_portrait.copy(), other], [0.75, 0.25], small_face.points)
    x, y = small_face.points[1, :2].astype(int)  # the nose
    near = (slice(y - 5, y + 6), slice(x - 5, x + 6))
    expected = 0.75 * small_portrait[near].astype(float) + 0.25 * other[near]
    assert np.abs(made[near] - expected).mean() < 2
    left, top, right, bottom = (round(v) for v in small_face.box)
    outside = np.ones(made.shape[:2], bool)
    outside[top - 2 : bottom + 3, left - 2 : right + 3] = False
    np.testing.assert_array_equal(made[outside], small_portrait[outside])
    np.testing.assert_array_equal(made[top + 1, left + 1], small_portrait[top + 1, left + 1])  # a corner of the box
