"""painter.py: the photo is unchanged at rest, head turns are rendered, detail is preserved."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from conftest import turned
from made_files import coordinates
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image, Landmarker
from mimik.rendering import painter as painter_module
from mimik.rendering.field import GRID
from mimik.rendering.flow import Warper
from mimik.rendering.painter import Painter


def test_no_motion_is_the_photo_exactly(
    warper: Warper, painter: Painter, portrait: Image, portrait_face: Face, flow_of
) -> None:
    flow = flow_of()
    assert np.abs(flow.offset).max() < 1e-6
    assert not flow.unseen.any()
    assert flow.mouth is None
    np.testing.assert_allclose(flow.stretch, 1, atol=1e-3)
    np.testing.assert_array_equal(painter.paint(flow), portrait)


def test_shapes_and_types(flow_of) -> None:
    flow = flow_of(yaw=10)
    assert flow.offset.shape == (GRID, GRID, 2)
    assert flow.unseen.shape == flow.stretch.shape == (GRID, GRID)
    assert flow.offset.dtype == flow.stretch.dtype == np.float32
    assert flow.unseen.dtype == bool


def test_the_photo_itself_is_not_written_into(painter: Painter, portrait: Image, flow_of) -> None:
    before = portrait.copy()
    first = painter.paint(flow_of(yaw=20))
    again = painter.paint(flow_of(yaw=20))
    np.testing.assert_array_equal(portrait, before)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("pose", [(30, 0, 0), (0, 20, 0), (0, 0, 25), (-20, -15, 10)])
def test_outside_of_the_crop_nothing_changes(
    warper: Warper, painter: Painter, portrait: Image, flow_of, pose: tuple
) -> None:
    flow = flow_of(*pose)
    border = np.ones((GRID, GRID), bool)
    border[1:-1, 1:-1] = False
    assert not flow.offset[border].any()
    outside = np.ones((512, 512), bool)
    crop = warper.crop
    low = np.ceil([crop.left, crop.top]).astype(int).clip(0)
    high = np.floor([crop.left + crop.side, crop.top + crop.side]).astype(int)
    outside[low[1] : high[1], low[0] : high[0]] = False
    out = painter.paint(flow)
    assert outside.any()
    np.testing.assert_array_equal(out[outside], portrait[outside])
    assert (out != portrait).any(-1).sum() > 2000


@pytest.mark.parametrize("shift", [(4, 0), (0, -5), (3, 3)])
def test_a_translation_moves_the_faces_middle_by_it(
    warper: Warper, portrait_face: Face, shift: tuple[int, int]
) -> None:
    picture = coordinates(512, 512)
    flow = warper.flow(portrait_face.points + np.array([*shift, 0]))
    out = Painter(picture, warper).paint(flow)
    x, y = np.round(portrait_face.points[5, :2]).astype(int)
    window = out[y - 10 : y + 11, x - 10 : x + 11].astype(float)
    expected = picture[y - 10 - shift[1] : y + 11 - shift[1], x - 10 - shift[0] : x + 11 - shift[0]].astype(float)
    off = (window - expected)[..., :2].mean((0, 1)) * 511 / 255
    assert np.abs(off).max() < 0.5


def test_the_face_that_is_painted_is_turned(
    landmarker: Landmarker, painter: Painter, portrait_face: Face, flow_of
) -> None:
    before = np.array(faces.head_pose(portrait_face.points).degrees)
    for pose, axis, least in (((20, 0, 0), 0, 10), ((-20, 0, 0), 0, 10), ((0, 0, 15), 2, 13)):
        found = landmarker.follow(painter.paint(flow_of(*pose)), portrait_face)
        assert found is not None
        change = np.array(faces.head_pose(found.points).degrees) - before
        assert change[axis] * np.sign(pose[axis]) > least
        assert abs(change[axis]) == np.abs(change).max()


@pytest.mark.parametrize("size", [(201, 333), (97, 96), (512, 300)])
def test_odd_sizes(portrait: Image, portrait_face: Face, size: tuple[int, int]) -> None:
    width, height = size
    k = min(width, height) / 512
    picture = np.zeros((height, width, 3), np.uint8)
    small = cv2.resize(portrait, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)[:height, :width]
    picture[: small.shape[0], : small.shape[1]] = small
    points = (portrait_face.points * k).astype(np.float32)
    warper = Warper(points, width, height)
    out = Painter(picture, warper).paint(warper.flow(turned(points, yaw=15)))
    assert out.shape == picture.shape
    assert (out != picture).any()
    np.testing.assert_array_equal(Painter(picture, warper).paint(warper.flow(points)), picture)


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_a_face_at_the_edge_of_the_photo(portrait: Image, portrait_face: Face, side: str) -> None:
    left, top, right, bottom = (int(v) for v in portrait_face.box)
    x0, y0 = (left + 10 if side == "left" else 0), (top + 10 if side == "top" else 0)
    x1, y1 = (right - 10 if side == "right" else 512), (bottom - 10 if side == "bottom" else 512)
    picture = portrait[y0:y1, x0:x1].copy()
    points = (portrait_face.points - [x0, y0, 0]).astype(np.float32)
    warper = Warper(points, x1 - x0, y1 - y0)
    painter = Painter(picture, warper)
    np.testing.assert_array_equal(painter.paint(warper.flow(points)), picture)
    flow = warper.flow(turned(points, yaw=-20, pitch=10))
    out = painter.paint(flow)
    assert out.shape == picture.shape
    assert (out != picture).any()
    edge = np.ones(picture.shape[:2], bool)  # the photo's border does not move
    edge[1:-1, 1:-1] = False
    assert np.abs(out.astype(int) - picture)[edge].mean() < 2


def test_a_large_photo_keeps_its_resolution(portrait: Image, portrait_face: Face) -> None:
    """Fine stripes are fine after a head turn: detail is moved, not blurred."""
    big = cv2.resize(portrait, (2048, 2048), interpolation=cv2.INTER_CUBIC)
    y = np.arange(2048)[:, None]
    big = np.clip(big.astype(np.int16) + np.where(y // 2 % 2, 25, -25)[..., None], 0, 255).astype(np.uint8)
    points = portrait_face.points * 4
    warper = Warper(points, 2048, 2048)
    out = Painter(big, warper).paint(warper.flow(turned(points, yaw=12)))
    assert out.shape == big.shape
    x0, y0 = np.round(points[50, :2]).astype(int) - 60

    def detail(picture: Image) -> float:
        return float(np.abs(np.diff(picture[y0 : y0 + 120, x0 : x0 + 120].astype(float), axis=0)).mean())

    assert detail(out) > 0.7 * detail(big)


@pytest.mark.parametrize(("sheets", "mean"), [(((3, 1 << 30),), 0.3), (((3, 1 << 20), (2, 1 << 30)), 0.4)])
def test_many_frames_are_read_from_an_enlarged_sheet(
    portrait: Image,
    portrait_face: Face,
    monkeypatch: pytest.MonkeyPatch,
    sheets: tuple[tuple[int, int], ...],
    mean: float,
) -> None:
    """Equal to sampling the photo, except for rounding of cubic sampling; without motion equal to the photo."""
    monkeypatch.setattr(painter_module, "_SHEETS", sheets)
    points = portrait_face.points
    warper = Warper(points, 512, 512)
    once, often = Painter(portrait, warper), Painter(portrait, warper, is_reused=True)
    flow = warper.flow(turned(points, yaw=9))
    difference = once.carry(portrait, flow).astype(float) - often.carry(portrait, flow)
    assert often._sheet is not None and often._sheet.factor == sheets[-1][0]
    assert np.abs(difference).mean() < mean and 10 * np.log10(255**2 / (difference**2).mean()) > 50
    np.testing.assert_array_equal(often.paint(warper.flow(points)), portrait)


def test_a_doubled_picture_holds_its_pixels_and_cubic_ones_between() -> None:
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (40, 30, 4)).astype(np.uint8), (0, 0), 1.0)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    half = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    expected = cv2.warpAffine(picture, half, (60, 80), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(painter_module._doubled(picture).astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(painter_module._doubled(picture)[::2, ::2], picture)


@pytest.mark.parametrize("yaw", [3, 20])
def test_what_the_matte_does_not_cover_is_not_moved_and_the_rest_is_as_ever(
    portrait: Image, portrait_face: Face, monkeypatch: pytest.MonkeyPatch, yaw: float
) -> None:
    points = portrait_face.points
    warper = Warper(points, 512, 512)
    matte = np.zeros((512, 512), np.uint8)
    cv2.ellipse(matte, points[4, :2].astype(int).tolist(), (70, 90), 0, 0, 360, 255, -1, cv2.LINE_AA)
    flow = warper.flow(turned(points, yaw=yaw))
    some = Painter(portrait, warper, is_reused=True, matte=matte)
    moved = some.carry(portrait, flow)
    every = Painter(portrait, warper, is_reused=True, matte=matte)
    monkeypatch.setattr(every, "_covered", lambda flow: None)
    expected = every.carry(portrait, flow)
    assert np.abs(some.moved_matte.astype(int) - every.moved_matte).max() <= 1
    shown = some.canvas.part(np.zeros((512, 512), bool))
    shown[every.moved_matte > 0] = True
    part, whole = some.canvas.part(moved), some.canvas.part(expected)
    assert np.abs(part[shown].astype(int) - whole[shown]).max() <= 1
    assert shown.any() and (part != whole).any(-1).mean() > 0.02  # and some regions were omitted


def test_a_sheet_is_made_for_many_frames_only_and_not_beyond_its_size(
    portrait: Image, portrait_face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    warper = Warper(portrait_face.points, 512, 512)
    assert Painter(portrait, warper)._sheet is None
    monkeypatch.setattr(painter_module, "_SHEETS", ((3, 1 << 20), (2, 1 << 20)))
    assert Painter(portrait, warper, is_reused=True)._sheet is None
