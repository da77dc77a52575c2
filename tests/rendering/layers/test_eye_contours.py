"""eye_contours.py: charts map to pixels and back, curves pass through their points."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import turned
from mimik.arrays import spline
from mimik.face.landmarks import Face
from mimik.rendering.flow import Warper
from mimik.rendering.layers.eye_contours import (
    LIDS_OF_EYES,
    EyeFrame,
    eye_frame,
    height_table,
    table_columns,
    table_places,
    table_rows,
)

FRAME = EyeFrame(np.array([20.0, 12.0]), np.array([[30.0, -4.0], [5.0, 28.0]]))


def test_the_chart_by_hand() -> None:
    places = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.25]])
    pixels = np.array([[20.0, 12.0], [50.0, 17.0], [34.0, 21.5]])
    np.testing.assert_allclose(FRAME.to_chart(pixels), places, atol=1e-9)
    px, py = FRAME.maps(*places.T.astype(np.float32))
    np.testing.assert_allclose(np.stack([px, py], 1), pixels, atol=1e-4)


def test_the_grid_is_the_chart_of_each_pixel() -> None:
    low, high = np.array([3, 5]), np.array([9, 8])
    x, y = FRAME.grid(low, high)
    assert x.shape == y.shape == (3, 6) and x.dtype == np.float32
    px, py = FRAME.maps(x, y)
    np.testing.assert_allclose(px, np.broadcast_to(np.arange(3, 9), (3, 6)), atol=1e-4)
    np.testing.assert_allclose(py, np.broadcast_to(np.arange(5, 8)[:, None], (3, 6)), atol=1e-4)


@pytest.mark.parametrize("number", [7, 9])
def test_a_curve_goes_through_its_points_and_a_line_stays_one(number: int) -> None:
    x = np.linspace(0, 1, number)
    arch = np.stack([x, -0.3 * np.sin(np.pi * x)], 1)
    found = np.interp(x, table_places(), height_table(arch))
    np.testing.assert_allclose(found, arch[:, 1], atol=0.005)
    line = np.stack([x, 0.2 * x - 0.1], 1)
    inside = (table_places() >= 0) & (table_places() <= 1)
    np.testing.assert_allclose(height_table(line)[inside], 0.2 * table_places()[inside] - 0.1, atol=1e-4)
    weights = spline(number, 8)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)  # a shift shifts the curve


def test_rows_and_columns_of_a_table_are_its_places() -> None:
    places = table_places()
    np.testing.assert_array_equal(table_rows(places), np.arange(len(places)))
    np.testing.assert_allclose(table_columns(places.astype(np.float32)), np.arange(len(places)), atol=1e-3)
    assert table_rows(np.array([-9.0, 9.0])).tolist() == [0, len(places) - 1]


def test_a_turned_head_carries_the_chart(warper: Warper, portrait_face: Face) -> None:
    """After a roll of 90 degrees the corners are at 0 and 1, and the lower lid is below the upper one."""
    rolled = turned(portrait_face.points, roll=90)
    eyes = warper.flow(rolled).eyes
    for number in (0, 1):
        here, there = (
            eye_frame(contours, lambda points: points * 100.0) for contours in (warper.contours(number), eyes[number])
        )
        upper, lower = LIDS_OF_EYES[number]
        assert (
            here.to_chart(warper.contours(number).lower * 100.0)[4, 1]
            > here.to_chart(warper.contours(number).upper * 100.0)[4, 1]
        )
        charted = there.to_chart(eyes[number].upper * 100.0)
        np.testing.assert_allclose(charted[[0, 8]], [[0, 0], [1, 0]], atol=1e-5)
        before = here.to_chart(warper.contours(number).upper * 100.0)
        np.testing.assert_allclose(charted, before, atol=0.02)
        assert len(upper) == len(lower) == 9
