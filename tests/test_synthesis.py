"""synthesis.py: what a network says of a small window is applied to the photo itself, in the right place."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from conftest import turned
from mimik.config import PRESETS
from mimik.face import Array, Face, Image
from mimik.synthesis import (
    PaperPainter,
    TexturePainter,
    as_read,
    corrected,
    framed,
    photo_windows,
    reduced,
    to_planes,
    window_around,
)
from mimik.warp import GRID, Flow, Painter, Warper

CONFIG = PRESETS["texture"].networks
PX = CONFIG.image_px


@pytest.fixture(scope="module")
def warper(portrait_face: Face) -> Warper:
    return Warper(portrait_face.points, 512, 512)


@pytest.fixture(scope="module")
def target(portrait_face: Face) -> Array:
    return turned(portrait_face.points, 10, 4, 0)


@pytest.fixture(scope="module")
def flow(warper: Warper, target: Array) -> Flow:
    return warper.flow(target)


def answering(
    correction: tuple[float, float] = (0, 0), change: float = 0, mask: float = 1
) -> Callable[..., list[Array]]:
    """A network that says the same everywhere; correction in sides of the window, change in -2..2."""

    def generator(y: Array, warped: Array, geometry: Array) -> list[Array]:
        assert y.shape == warped.shape == (1, 3, PX, PX) and geometry.shape == (1, 4, PX // 2, PX // 2)
        assert -1 <= warped.min() < warped.max() <= 1
        half = PX // 2, PX // 2
        move = np.zeros((1, 2, *half), np.float32) + np.array(correction, np.float32)[:, None, None]
        return [move, np.full((1, 3, 2 * PX, 2 * PX), change, np.float32), np.full((1, 1, *half), mask, np.float32)]

    return generator


def painted(portrait: Image, face: Face, warper: Warper, flow: Flow, target: Array, **answer) -> Image:
    return TexturePainter(portrait, face.points, warper, CONFIG, answering(**answer)).paint(flow, target)


def test_a_network_that_changes_nothing_leaves_the_geometry(portrait, portrait_face, warper, flow, target) -> None:
    plain = Painter(portrait, warper).paint(flow)
    made = painted(portrait, portrait_face, warper, flow, target)
    assert np.abs(made.astype(int) - plain).max() <= 1


def test_a_correction_moves_the_warped_photo(portrait, portrait_face, warper, flow, target) -> None:
    """Pixel p is the plain frame's at p + correction: inside the window, away from its rim."""
    window = window_around(target, window_around(portrait_face.points).side)
    shift = 6 / window.side, -4 / window.side
    made = painted(portrait, portrait_face, warper, flow, target, correction=shift)
    plain = Painter(portrait, warper).paint(flow)
    y, x = np.indices((512, 512), np.float32)
    expected = cv2.remap(plain, x + 6, y - 4, cv2.INTER_LINEAR)
    low = np.ceil([window.left + 0.15 * window.side, window.top + 0.15 * window.side]).astype(int).clip(0)
    high = np.floor([window.left + 0.85 * window.side, window.top + 0.85 * window.side]).astype(int)
    inside = slice(low[1], high[1]), slice(low[0], high[0])
    apart = np.abs(made[inside].astype(int) - expected[inside])
    assert apart.mean() < 2.0 < np.abs(made[inside].astype(int) - plain[inside]).mean()
    cell = warper.crop.side / GRID  # offsets are interpolated between cells
    y, x = np.indices((512, 512)) + 0.5
    beyond = np.maximum(np.abs(x - window.left - window.side / 2), np.abs(y - window.top - window.side / 2))
    outside = beyond > window.side / 2 + 2 * cell
    assert outside.sum() > 1000
    assert np.abs(made[outside].astype(int) - plain[outside]).max() <= 1


def test_what_is_drawn_lies_where_the_mask_does_not_keep(portrait, portrait_face, warper, flow, target) -> None:
    plain = Painter(portrait, warper).paint(flow)
    made = painted(portrait, portrait_face, warper, flow, target, change=-2, mask=0)  # black all over the window
    window = window_around(target, window_around(portrait_face.points).side)
    x, y = (target[4, :2]).astype(int)
    assert made[y, x].max() <= 2
    half = painted(portrait, portrait_face, warper, flow, target, change=-2, mask=0.5)
    np.testing.assert_allclose(half[y, x], plain[y, x] / 2, atol=2)
    dark = (made.max(-1) < 3) & (plain.max(-1) > 30)
    rows, columns = np.nonzero(dark)
    assert rows.min() >= window.top and columns.min() >= window.left
    assert rows.max() <= window.top + window.side and columns.max() <= window.left + window.side
    # The window's border fades: no seam.
    step = np.abs(np.diff(made.astype(int), axis=1)).max(-1)
    plain_step = np.abs(np.diff(plain.astype(int), axis=1)).max(-1)
    column = max(int(window.left) + 1, 1)
    if column < 500:
        assert (step - plain_step)[:, column - 1 : column + 1].max() < 20


def test_a_photo_that_is_not_moved_is_left_as_it_is(portrait: Image, portrait_face: Face, warper: Warper) -> None:
    points = portrait_face.points
    side = window_around(points).side

    def black(moved: float) -> Image:
        """By a network that draws black, with the face moved by a share of the window's side."""
        target = points + np.float32([moved * side, 0, 0])
        return painted(portrait, portrait_face, warper, warper.flow(target), target, change=-2, mask=0)

    assert (black(0.0) == portrait).all()
    y, x = points[4, 1].astype(int), points[4, 0].astype(int)
    assert black(0.02)[y, x].max() <= 2
    assert 0.3 < black(0.006)[y, x].mean() / portrait[y, x].mean() < 0.7  # half way


def test_a_correction_of_zero_leaves_the_flow(flow: Flow, warper: Warper, target: Array) -> None:
    same = corrected(flow, np.zeros((PX // 2, PX // 2, 2), np.float32), warper.crop, window_around(target))
    np.testing.assert_allclose(same.offset, flow.offset, atol=1e-6)
    for ours, theirs in zip(same.details, flow.details, strict=True):
        np.testing.assert_allclose(ours.offset, theirs.offset, atol=1e-6)


def test_a_constant_correction_is_the_composition_of_both(flow: Flow, warper: Warper, target: Array) -> None:
    crop, window = warper.crop, warper.crop  # the same square: then cells and correction can be compared by hand
    cells = 5  # of the grid
    moved = corrected(flow, np.full((64, 64, 2), cells / GRID, np.float32), crop, window)
    inner = slice(20, 100)
    later = slice(20 + cells, 100 + cells)
    np.testing.assert_allclose(moved.offset[inner, inner], flow.offset[later, later] + cells / GRID, atol=1e-5)


def test_a_smaller_picture_shows_the_same_places() -> None:
    y, x = np.mgrid[:200, :300]
    picture = np.stack([x * 0.8, y * 0.8, x * 0], -1).astype(np.uint8)
    half = reduced(picture, 0.5)
    assert half.shape == (100, 150, 3)
    # Pixel 40 of the half covers 80 and 81 of the whole: 80.5, times 0.8.
    np.testing.assert_allclose(half[50, 40, :2], [80.5 * 0.8, 100.5 * 0.8], atol=1.0)
    assert reduced(picture, 1.0) is picture


@pytest.mark.parametrize("form", ["paper", "texture"])
def test_photos_are_seen_as_prepared_clips_show_them(portrait: Image, portrait_face: Face, form: str) -> None:
    config = PRESETS["debug" if form == "paper" else "texture"].networks
    px, frame_px = config.image_px, config.frame_px
    larger = cv2.resize(portrait, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    x, y, points = photo_windows(config, [portrait, larger], [portrait_face.points, portrait_face.points * 2])
    assert x.shape == (2, frame_px, frame_px, 3) and y.shape == (2, px, px, 3) and points.shape == (2, 478, 3)
    assert as_read(x, config).shape == y.shape
    np.testing.assert_allclose(points[0], points[1], atol=0.05)  # resolution does not matter
    assert np.abs(x[0].astype(int) - x[1]).mean() < 3
    square = framed(portrait_face.points) if form == "paper" else window_around(portrait_face.points)
    np.testing.assert_allclose(points[0], square.to_unit(portrait_face.points) * px, atol=1e-3)


def test_to_planes() -> None:
    planes = to_planes(np.array([[[[0, 127.5, 255]]]]))
    assert planes.shape == (1, 3, 1, 1) and planes.ravel().tolist() == [-1, 0, 1]


def test_the_papers_form_lays_its_picture_over_the_face(portrait: Image, portrait_face: Face, flow, target) -> None:
    config = PRESETS["debug"].networks
    white = np.ones((1, 3, config.image_px, config.image_px), np.float32)
    made = PaperPainter(portrait, portrait_face.points, config, lambda y: [white]).paint(flow, target)
    x, y = portrait_face.points[4, :2].astype(int)
    assert (made[y, x] == 255).all()
    assert portrait[y, x].max() < 255
