"""resampling.py: minified regions as means over the covered source area; magnified ones with detail of its own size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mimik.face.landmarks import NUM_MESH_POINTS, NUM_POINTS, canonical_mesh
from mimik.rendering.field import GRID, grid_centers
from mimik.rendering.resampling import Texture, magnified, squeezed, squeezed_parts, supersampled


def scaled_field(factor: float) -> np.ndarray:
    """[GRID, GRID, 2] offsets of a warp that minifies by a factor in x, about the center."""
    places = grid_centers().reshape(GRID, GRID, 2)
    offset = np.zeros_like(places, dtype=np.float32)
    offset[..., 0] = (factor - 1) * (places[..., 0] - 0.5)
    return offset


def test_only_what_is_squeezed_is_averaged() -> None:
    assert squeezed(scaled_field(0.5)) is None
    assert squeezed(scaled_field(1.0)) is None
    assert squeezed(scaled_field(1.9)) is None
    weight = squeezed(scaled_field(4.0))
    assert weight is not None and weight.shape == (GRID, GRID)
    np.testing.assert_allclose(weight[4:-4, 4:-4], 1)
    half = squeezed(scaled_field(2.75))  # midway between the first and the last
    assert half is not None
    np.testing.assert_allclose(half[4:-4, 4:-4], 0.5, atol=0.01)


@pytest.mark.parametrize("factor", [3, 4])
def test_a_squeezed_grating_is_gray(factor: int) -> None:
    """Stripes two pixels wide, minified below a pixel, become their mean; single samples would give a moire."""
    stripes = np.zeros((40, 400), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 200
    x = np.repeat((factor * np.arange(90, dtype=np.float32) + 0.5 * (factor - 1))[None], 40, 0)
    y = np.repeat(np.arange(40, dtype=np.float32)[:, None], 90, 1)
    found = supersampled(stripes, x, y)[:, 2:-2].astype(float)
    # The mean over `factor` pixels of the photo: exactly half for four, within a third of the contrast for three.
    assert np.abs(found - 100).max() < (5 if factor == 4 else 40)
    assert found.mean() == pytest.approx(100, abs=3)


def test_runs_hold_all_that_is_set_once() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((200, 300), bool)
    mask[20:180, 40:44] = mask[90:130, 250:290] = True
    mask[rng.integers(0, 200, 20), rng.integers(0, 300, 20)] = True
    count = np.zeros(mask.shape, int)
    for run in squeezed_parts(mask):
        count[run] += 1
    assert count.max() == 1
    assert count[mask].min() == 1
    assert squeezed_parts(np.zeros((10, 10), bool)) == []
    two = np.zeros((64, 300), bool)
    two[:, 10:14] = two[:, 200:204] = True
    assert sum(count[run].size for run in squeezed_parts(two)) == 2 * 4 * 64


def test_magnification_is_measured_along_the_axis() -> None:
    wide = scaled_field(0.25)  # four times as wide, as high as before
    across, down = np.eye(2)
    assert magnified(scaled_field(1.0), [across, down]) == [None, None]
    found, none = magnified(wide, [across, down])
    assert found is not None and none is None
    np.testing.assert_allclose(found[0][9:-9, 9:-9], 4, rtol=1e-4)
    np.testing.assert_allclose(found[1][4:-4, 4:-4], 1)
    # A diagonal step in the photo becomes four to the right and one down.
    (found,) = magnified(wide, [np.array([0.5, 0.5]) ** 0.5])
    assert found is not None
    np.testing.assert_allclose(found[0][9:-9, 9:-9], (17 / 2) ** 0.5, rtol=1e-4)


FACE = canonical_mesh().vertices[:, :2] * 14 + 150  # pixels of a picture of 300 x 300
STRETCH = 3.5


def stretched(picture: np.ndarray, top: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The right cheek of a face, magnified horizontally: the warped picture and its positions in the picture."""
    x, y = np.meshgrid(205 + np.arange(90, dtype=np.float32) / STRETCH, np.arange(top, top + 40, dtype=np.float32))
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR)[..., 0].astype(np.float32), x, y


def texture_of(picture: np.ndarray, axis: tuple[float, float] = (1, 0)) -> Texture:
    points = np.concatenate([FACE, np.zeros((NUM_POINTS - len(FACE), 2))])
    points[NUM_MESH_POINTS:] = points[0]
    return Texture(picture, points, np.array(axis), None)


def noise() -> np.ndarray:
    plane = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 60, (400, 300)).astype(np.float32), (0, 0), 1.2)
    return np.repeat((120 + plane).clip(0, 255).astype(np.uint8)[..., None], 3, 2)


def grain(plane: np.ndarray) -> tuple[float, float]:
    """Mean squared difference of neighbors, horizontally and vertically."""
    return float((np.diff(plane, axis=1) ** 2).mean()), float((np.diff(plane, axis=0) ** 2).mean())


def test_stretched_grain_gets_its_own_size() -> None:
    picture = noise()
    across, down = grain(picture[..., 0].astype(np.float32))
    assert across == pytest.approx(down, rel=0.05)
    streaks, x, y = stretched(picture)
    across, down = grain(streaks)
    assert across < 0.2 * down
    out = streaks + texture_of(picture).change(x, y, np.full_like(x, STRETCH))
    across, down = grain(out)
    assert 0.6 * down < across < 1.6 * down
    assert out.mean() == pytest.approx(streaks.mean(), abs=2)
    assert out.std() == pytest.approx(streaks.std(), rel=0.25)


def test_a_shape_is_not_repeated() -> None:
    """The edge of the face before dark hair stays one edge."""
    picture = np.full((300, 300, 3), 180, np.uint8)
    picture[:, 220:] = 40
    _, x, y = stretched(picture)
    assert np.abs(texture_of(picture).change(x, y, np.full_like(x, STRETCH))).max() < 4


def test_a_nod_is_a_turn_about_the_other_axis() -> None:
    x, y = np.meshgrid(np.arange(205, 245, dtype=np.float32), 150 + np.arange(90, dtype=np.float32) / STRETCH)
    picture = noise()
    streaks = cv2.remap(picture, x, y, cv2.INTER_LINEAR)[..., 0].astype(np.float32)
    across, down = grain(streaks + texture_of(picture, (0, 1)).change(x, y, np.full_like(x, STRETCH)))
    assert 0.6 * across < down < 1.6 * across


def test_a_neck_keeps_its_shadows() -> None:
    picture = noise()
    _, x, y = stretched(picture, top=round(FACE[:, 1].max() + 0.06 * np.ptp(FACE[:, 0])))
    assert np.abs(texture_of(picture).change(x, y, np.full_like(x, STRETCH))).max() == 0
