"""palette.py: colors of few pixels are kept."""

from __future__ import annotations

import cv2
import numpy as np

from mimik.media.palette import palette_of


def lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.asarray(rgb, np.float32).reshape(1, -1, 3) / 255, cv2.COLOR_RGB2LAB)[0]


def missed(color: tuple[int, int, int], palette: np.ndarray) -> float:
    """Distance to the nearest color of the palette, in CIE76."""
    return float(np.linalg.norm(lab(palette) - lab(np.array(color)), axis=1).min())


def test_few_colors_are_kept_as_they_are() -> None:
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[:4], frame[4:, :2] = (200, 100, 50), (10, 220, 30)
    palette = palette_of([frame])
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert max(missed(color, palette) for color in ((0, 0, 0), (200, 100, 50), (10, 220, 30))) < 0.5
    assert len(np.unique(palette, axis=0)) == 3


def test_lips_keep_their_pink_before_a_wall_of_many_colors() -> None:
    """0.5 % of the pixels are pink; the rest are shades of brown and gray."""
    rng = np.random.default_rng(0)
    wall = rng.normal((150, 110, 80), (25, 22, 20), (200, 200, 3)) + rng.normal(0, 25, (200, 200, 1))
    frame = wall.clip(0, 255).astype(np.uint8)
    pink = (212, 110, 120)
    frame[100:110, 90:110] = np.array(pink) + rng.integers(-6, 7, (10, 20, 3))
    assert missed(pink, palette_of([frame])) < 2.5
    counted = cv2.kmeans(  # weighted only by the number of pixels
        lab(frame)[::5], 64, None, (cv2.TERM_CRITERIA_MAX_ITER, 10, 0), 1, cv2.KMEANS_RANDOM_CENTERS
    )[2]
    alone = float(np.linalg.norm(counted - lab(np.array(pink)), axis=1).min())
    assert missed(pink, palette_of([frame], 64)) < alone


def test_every_frame_counts() -> None:
    dark, red = np.full((4, 4, 3), 20, np.uint8), np.full((4, 4, 3), (180, 30, 40), np.uint8)
    assert missed((180, 30, 40), palette_of([dark] * 50 + [red])) < 0.5
