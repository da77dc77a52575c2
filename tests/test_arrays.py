"""arrays.py: smoothstep."""

from __future__ import annotations

import numpy as np

from mimik.arrays import smoothstep


def test_the_smoothstep_by_hand() -> None:
    np.testing.assert_allclose(smoothstep(np.array([-1.0, 0, 0.5, 1, 2])), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(smoothstep(np.array([0.0, 1.5, 2.0]), 2, 0), [1, 0.15625, 0])
    assert smoothstep(0.25) == 0.15625
    assert smoothstep(np.float32([0.5, 3]), 0, 2).dtype == np.float32
