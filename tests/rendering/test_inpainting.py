"""inpainting.py: known patterns behind a hole."""

import numpy as np

from mimik.rendering.inpainting import fill


def _hole(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (x - width / 2) ** 2 + (y - 0.62 * height) ** 2 < (0.22 * width) ** 2


def _bricks(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    row = y // 16
    mortar = (y % 16 < 3) | ((x + 14 * (row % 2)) % 28 < 3)
    return np.where(mortar[..., None], [215, 210, 200], [150, 70, 50]).astype(np.uint8)


def test_outside_of_the_hole_nothing_changes() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    hole = _hole(90, 120)
    filled = fill(picture, hole, 20)
    np.testing.assert_array_equal(filled[~hole], picture[~hole])
    np.testing.assert_array_equal(fill(picture, np.zeros_like(hole), 20), picture)


def test_a_plain_wall_stays_plain() -> None:
    picture = np.full((90, 120, 3), [120, 130, 90], np.uint8)
    hole = _hole(90, 120)
    picture[hole] = 0
    assert np.abs(fill(picture, hole, 20).astype(int) - [120, 130, 90]).max() <= 3


def test_courses_of_bricks_go_on() -> None:
    """Within the reach, most pixels are the wall's own; a smooth filling is nowhere near."""
    picture = _bricks(224, 224)
    hole = _hole(224, 224)
    damaged = picture.copy()
    damaged[hole] = 0
    filled = fill(damaged, hole, 24)
    y, x = np.mgrid[:224, :224]
    distance = 0.22 * 224 - np.hypot(x - 112, y - 0.62 * 224)
    near = hole & (distance < 16)
    off = np.abs(filled.astype(int) - picture).max(-1)[near]
    assert (off < 40).mean() > 0.8
    assert np.abs(picture[near].astype(int) - picture[near].mean(0)).max(-1).mean() > 40  # what a mean would leave


def test_a_window_frame_stays_straight() -> None:
    picture = np.full((160, 200, 3), [180, 200, 220], np.uint8)
    picture[:, 96:104] = [60, 50, 40]
    hole = _hole(160, 200)
    damaged = picture.copy()
    damaged[hole] = 255
    filled = fill(damaged, hole, 20)
    rows = np.flatnonzero(hole[:, 100])[:12]
    assert np.abs(filled[rows, 98:102].astype(int) - [60, 50, 40]).max() <= 34
    assert np.abs(filled[rows][:, [90, 110]].astype(int) - [180, 200, 220]).max() <= 24
