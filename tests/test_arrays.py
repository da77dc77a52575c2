"""arrays.py: smoothstep, the fit of a line, and a spline."""

from __future__ import annotations

import numpy as np
import pytest

from mimik.arrays import line_fit, smoothstep, spline


def test_the_smoothstep_by_hand() -> None:
    np.testing.assert_allclose(smoothstep(np.array([-1.0, 0, 0.5, 1, 2])), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(smoothstep(np.array([0.0, 1.5, 2.0]), 2, 0), [1, 0.15625, 0])
    assert smoothstep(0.25) == 0.15625
    assert smoothstep(np.float32([0.5, 3]), 0, 2).dtype == np.float32


def test_a_line_is_fitted_also_where_it_has_no_slope(recwarn: pytest.WarningsRecorder) -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 1, 50)
    assert line_fit(x.astype(np.float32), 3 * x - 2) == pytest.approx((3, -2), abs=1e-5)
    noisy = x + rng.normal(0, 1, 50)
    assert line_fit(x, noisy) == pytest.approx(np.polyfit(x, noisy, 1))
    assert line_fit(np.full(50, 0.7, np.float32), noisy) == (0, pytest.approx(noisy.mean()))
    assert not recwarn  # np.polyfit warns here


def test_a_spline_passes_through_its_points_and_curves_between_them() -> None:
    points = np.array([2.0, 3, 1, 1, 5])
    curve = spline(5, 2) @ points
    np.testing.assert_allclose(curve[::2], points)
    np.testing.assert_allclose(curve[3], (-2 + 9 * 3 + 9 * 1 - 1) / 16)  # Catmull-Rom: (-1, 9, 9, -1) / 16
    np.testing.assert_allclose(curve[1], (-(2 * 2 - 3) + 9 * 2 + 9 * 3 - 1) / 16)  # a point before, on the line
    np.testing.assert_allclose(spline(4, 5) @ np.arange(4.0), np.linspace(0, 3, 16))
