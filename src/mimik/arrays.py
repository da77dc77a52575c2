"""What numbers of all kinds need."""

from __future__ import annotations

from typing import Any

import numpy as np


def smoothstep(x: Any, low: Any = 0.0, high: Any = 1.0) -> Any:
    """0 up to low, 1 from high on, 3 t^2 - 2 t^3 between; of a number a number, of an array an array of its type."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
