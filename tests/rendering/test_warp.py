"""warp.py against slow references and invariants: the photo stays the photo, nothing folds, what turns turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import eyes_closed, mouth_opened, turned
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image, Landmarker
from mimik.media import video
from mimik.rendering import warp
from mimik.rendering.warp import (
    GRID,
    NUM_GEOMETRY,
    WINDOW_SCALE,
    Crop,
    Flow,
    Painter,
    Warper,
    area_ratio,
    rasterise,
)

PORTRAITS = Path(__file__).resolve().parents[3] / "shared" / "portraits"


@pytest.fixture(scope="module")
def warper(portrait: Image, portrait_face: Face) -> Warper:
    return Warper(portrait_face.points, 512, 512)


@pytest.fixture(scope="module")
def painter(portrait: Image, warper: Warper) -> Painter:
    return Painter(portrait, warper)


@pytest.fixture(scope="module")
def flow_of(warper: Warper, portrait_face: Face) -> Callable[..., Flow]:
    known: dict[tuple, Flow] = {}

    def flow(yaw: float = 0, pitch: float = 0, roll: float = 0) -> Flow:
        key = yaw, pitch, roll
        if key not in known:
            known[key] = warper.flow(turned(portrait_face.points, yaw, pitch, roll))
        return known[key]

    return flow


def coordinates(width: int, height: int) -> Image:
    """A picture whose red and green tell where a pixel was, to a third of a pixel on small pictures."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / (width - 1), y * 255 / (height - 1), np.zeros_like(x)], -1).astype(np.uint8)


# The crop.


def test_the_crop_is_a_square_around_the_head(portrait_face: Face) -> None:
    crop = Crop.around(portrait_face.points)
    height = np.linalg.norm(portrait_face.points[10, :2] - portrait_face.points[faces.CHIN, :2])
    assert crop.side == pytest.approx(2.5 * height, rel=0.02)
    unit = crop.to_unit(portrait_face.points)
    assert np.abs(unit[faces.OVAL, :2].mean(0) - 0.5).max() < 0.1
    np.testing.assert_allclose(unit * crop.side + [crop.left, crop.top, 0], portrait_face.points, atol=1e-3)


def test_the_crop_scales_with_the_head(portrait_face: Face) -> None:
    a = Crop.around(portrait_face.points)
    b = Crop.around(portrait_face.points * 3 + [10, 20, 0])
    assert (b.left, b.top, b.side) == pytest.approx((a.left * 3 + 10, a.top * 3 + 20, a.side * 3), rel=1e-4)


def test_a_cut_shows_the_square_where_its_unit_coordinates_say(portrait_face: Face) -> None:
    picture = coordinates(256, 256).astype(np.float32)
    crop = Crop(40.0, 60.0, 128.0)
    cut = crop.cut(picture, 64)
    u, v = 10, 20  # of the cut: its centre lies at (u + 0.5) / 64 of the side
    x, y = 40 + (u + 0.5) * 2 - 0.5, 60 + (v + 0.5) * 2 - 0.5  # numbers of the pixel, from the centre of the first
    np.testing.assert_allclose(cut[v, u, :2], [x, y], atol=0.6)  # coordinates() rounds; cv2 to 1/32 px
    np.testing.assert_array_equal(Crop(0, 0, 256).cut(picture, 256), picture)


def test_a_cut_beyond_the_picture_continues_its_border() -> None:
    picture = np.full((32, 32, 3), 77, np.uint8)
    assert (Crop(-20, -20, 64).cut(picture, 16) == 77).all()


def test_the_maps_say_how_the_window_was_warped(
    warper: Warper, flow_of: Callable[..., Flow], portrait_face: Face
) -> None:
    still = warper.flow(portrait_face.points)
    window = Crop.around(portrait_face.points, WINDOW_SCALE)
    maps = still.maps(warper.crop, window, 32)
    assert maps.shape == (NUM_GEOMETRY, 32, 32) and maps.dtype == np.float32
    assert np.abs(maps[:2]).max() < 0.05 and not maps[2].any() and np.abs(maps[3]).max() < 0.1
    flow = flow_of(yaw=25)
    maps = flow.maps(warper.crop, window, 64)
    # The middle of the face: offset in pixels, by hand and from the maps.
    at = window.to_unit(portrait_face.points)[4, :2]
    column, row = (at * 64).astype(int)
    place = np.array([window.left, window.top]) + (np.array([column, row]) + 0.5) / 64 * window.side
    cell = ((place - [warper.crop.left, warper.crop.top]) / warper.crop.side * GRID).astype(int)
    expected = flow.offset[cell[1], cell[0]] * warper.crop.side
    np.testing.assert_allclose(maps[:2, row, column] * window.side / 10, expected, atol=2.5)
    assert maps[2].max() == 1 and 0.001 < maps[2].mean() < 0.2
    assert np.abs(maps[3]).max() <= 1


# The rasteriser.


def slow_raster(points: np.ndarray, attribute: np.ndarray, triangles: np.ndarray, grid: int) -> tuple:
    """One cell and one triangle at a time; also says which cells lie so close to an edge that rounding decides."""
    depth, out = np.full((grid, grid), np.inf), np.zeros((grid, grid, attribute.shape[1]))
    doubtful = np.zeros((grid, grid), bool)
    for row in range(grid):
        for column in range(grid):
            cell = np.array([column + 0.5, row + 0.5])
            for t in triangles:
                a, b, c = points[t]
                matrix = np.stack([b[:2] - a[:2], c[:2] - a[:2]], 1)
                if abs(np.linalg.det(matrix)) < 1e-6:
                    continue
                w1, w2 = np.linalg.solve(matrix, cell - a[:2])
                weights = np.array([1 - w1 - w2, w1, w2])
                if abs(weights.min()) < 1e-3:
                    doubtful[row, column] = True
                if weights.min() < 0:
                    continue
                z = weights @ points[t, 2]
                if z < depth[row, column]:
                    depth[row, column] = z
                    out[row, column] = weights @ attribute[t]
    return depth, out, doubtful


@pytest.mark.parametrize("seed", range(4))
def test_rasterise_is_the_slow_loop(seed: int) -> None:
    rng, grid = np.random.default_rng(seed), 14
    points = np.concatenate([rng.uniform(-4, grid + 4, (14, 2)), rng.uniform(0, 5, (14, 1))], 1)
    attribute = rng.normal(size=(14, 2))
    triangles = np.array([rng.choice(14, 3, replace=False) for _ in range(9)], np.int32)
    depth, out = rasterise(points, attribute, triangles, grid)
    expected_depth, expected, doubtful = slow_raster(points, attribute, triangles, grid)
    sure = ~doubtful
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(np.isfinite(depth)[sure], np.isfinite(expected_depth)[sure])
    covered = sure & np.isfinite(depth)
    assert covered.any()
    np.testing.assert_allclose(depth[covered], expected_depth[covered], atol=2e-3)
    np.testing.assert_allclose(out[covered], expected[covered], atol=5e-3)
    assert not out[~np.isfinite(depth)].any()


def test_rasterise_keeps_the_nearer_of_two_in_any_order() -> None:
    # Two triangles over the whole grid, at depths 1 and 2.
    points = np.array([[-20, -20, z] for z in (1, 2)] + [[60, -20, z] for z in (1, 2)] + [[-20, 60, z] for z in (1, 2)])
    near, far = [0, 2, 4], [1, 3, 5]
    attribute = points[:, 2:].astype(float)
    for order in ([near, far], [far, near]):
        depth, out = rasterise(points, attribute, np.array(order, np.int32), 8)
        np.testing.assert_allclose(depth, 1, atol=1e-5)
        np.testing.assert_allclose(out[..., 0], 1, atol=1e-5)


def test_rasterise_of_nothing() -> None:
    points = np.array([[0, 0, 0], [1, 1, 0], [2, 2, 0], [90, 90, 0], [91, 90, 0], [90, 91, 0]], float)
    for triangles in (np.zeros((0, 3), np.int32), np.array([[0, 1, 2], [3, 4, 5]], np.int32)):
        depth, out = rasterise(points, np.ones((6, 1)), triangles, 8)
        assert np.isinf(depth).all()
        assert not out.any()


def test_area_ratio_of_flows_made_by_hand() -> None:
    cell = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    x, y = np.meshgrid(cell, cell)
    inner = (slice(2, -2), slice(2, -2))
    # The photo is shown half as large: a cell of the target covers twice as much of it each way.
    np.testing.assert_allclose(area_ratio(np.stack([x, y], -1))[inner], 4, atol=1e-3)
    np.testing.assert_allclose(area_ratio(np.zeros((GRID, GRID, 2), np.float32)), 1)
    np.testing.assert_allclose(area_ratio(np.stack([-2 * x, 0 * y], -1))[inner], -1, atol=1e-3)  # mirrored


# Nothing moves.


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


# Known motions.


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


def test_the_points_arrive_where_they_are_sent(warper: Warper, portrait_face: Face) -> None:
    """The flow at a target point leads back to the photo's point."""
    for target in (
        turned(portrait_face.points, yaw=15),
        turned(portrait_face.points, pitch=-10, roll=8),
        mouth_opened(portrait_face.points, 0.08),
        eyes_closed(portrait_face.points, 0.5),
    ):
        flow = warper.flow(target)
        index = [4, 5, 9, 61, 291, 0, 17, 105, 334, 152, 50, 280]
        at = warper.crop.to_unit(target[index, :2]) * GRID - 0.5
        offset = cv2.remap(flow.offset, at.astype(np.float32)[None], None, cv2.INTER_LINEAR)[0]
        back = target[index, :2] + offset * warper.crop.side
        assert np.linalg.norm(back - portrait_face.points[index, :2], axis=1).max() < 0.035 * portrait_face.width_px


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


def test_small_motions_make_small_flows(warper: Warper, portrait_face: Face) -> None:
    rng = np.random.default_rng(0)
    target = portrait_face.points + rng.normal(0, 0.1, portrait_face.points.shape)
    assert np.abs(warper.flow(target).offset).max() * warper.crop.side < 1.0


# Folding.

POSES = [(yaw, pitch, roll) for yaw in (-35, -15, 15, 35) for pitch in (-20, 0, 20) for roll in (-25, 25)]
POSES += [(-35, 0, 0), (35, 0, 0), (0, -20, 0), (0, 20, 0), (0, 0, -25), (0, 0, 25)]


def assert_does_not_fold(flow: Flow) -> None:
    moved = np.linalg.norm(flow.offset, axis=-1) > 1e-4
    assert moved.sum() > 1000
    assert (flow.stretch[moved] > 0).mean() >= 0.999
    assert np.isfinite(flow.offset).all()
    np.testing.assert_allclose(flow.stretch, area_ratio(flow.offset), atol=1e-4)


@pytest.mark.parametrize("pose", POSES[::2] + POSES[-6:], ids=str)
def test_the_flow_does_not_fold(flow_of, pose: tuple[int, int, int]) -> None:
    assert_does_not_fold(flow_of(*pose))


@pytest.mark.parametrize(
    "name", ["painting_mona_lisa.jpg", "photo_black_and_white_2048.jpg", "painting_veiled_woman.jpg"]
)
@pytest.mark.skipif(not PORTRAITS.is_dir(), reason="the portraits of ../shared are not here")
def test_the_flow_does_not_fold_on_other_faces(landmarker: Landmarker, name: str) -> None:
    picture = video.read_image(PORTRAITS / name)
    k = min(1.0, 1024 / max(picture.shape))
    found = landmarker.detect(cv2.resize(picture, None, fx=k, fy=k, interpolation=cv2.INTER_AREA))[0]
    warper = Warper(found.points, round(picture.shape[1] * k), round(picture.shape[0] * k))
    for pose in ((-30, 0, 0), (30, 0, 0), (0, -20, 0), (0, 20, 0), (20, 10, -20), (-20, -10, 20)):
        assert_does_not_fold(warper.flow(turned(found.points, *pose)))


# What the photo does not show.


def test_what_comes_into_view_is_known(portrait_face: Face) -> None:
    """A photo turned to one side is turned back: the far cheek was never seen."""
    points = turned(portrait_face.points, yaw=40)
    warper = Warper(points.astype(np.float32), 512, 512)
    back = warper.flow(turned(points, yaw=-35))
    assert not warper.flow(points).unseen.any()
    assert 10 < back.unseen.sum() < 0.1 * GRID * GRID
    # The head looks to the picture's right: what was hidden is right of the nose.
    _, x = np.nonzero(back.unseen)
    nose = warper.crop.to_unit(turned(points, yaw=-35)[4])[0] * GRID
    assert (x > nose).mean() > 0.9


def test_turning_away_hides_and_reveals_little(flow_of) -> None:
    assert flow_of(yaw=20).unseen.sum() < 0.02 * GRID * GRID


# The mouth.


@pytest.fixture(scope="module")
def shut(portrait_face: Face) -> np.ndarray:
    """The portrait's points with the lips together."""
    points = portrait_face.points.astype(np.float64)
    middle = (points[faces.LIPS_INNER_UPPER] + points[faces.LIPS_INNER_LOWER]) / 2
    points[faces.LIPS_INNER_UPPER] = points[faces.LIPS_INNER_LOWER] = middle
    return points


def test_a_mouth_opens_by_degrees(portrait: Image, shut: np.ndarray) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    assert warper.flow(shut).mouth is None
    assert warper.flow(turned(shut, yaw=15)).mouth is None
    depths = []
    for gap in (0.01, 0.02, 0.04, 0.08, 0.15):
        mouth = warper.flow(mouth_opened(shut, gap)).mouth
        depths.append(0.0 if mouth is None else mouth.depth)
    assert depths == sorted(depths)
    assert 0 < depths[2] <= depths[-1] == 1


def test_the_opening_lies_between_the_lips(shut: np.ndarray) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    target = mouth_opened(shut, 0.12)
    mouth = warper.flow(target).mouth
    unit = warper.crop.to_unit(target)
    assert mouth.upper.shape == mouth.lower.shape == (11, 2)
    np.testing.assert_allclose(mouth.upper, unit[faces.LIPS_INNER_UPPER, :2], atol=0.01)
    np.testing.assert_allclose(mouth.lower, unit[faces.LIPS_INNER_LOWER, :2], atol=0.01)
    assert 0 <= mouth.teeth <= 1


def test_only_the_inside_of_the_mouth_is_darkened(portrait: Image, shut: np.ndarray) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    painter = Painter(portrait, warper)
    target = mouth_opened(shut, 0.14)
    flow = warper.flow(target)
    with_mouth = painter.paint(flow)
    without = painter.paint(replace(flow, mouth=None))
    changed = (with_mouth != without).any(-1)
    inside = np.zeros((512, 512), np.uint8)
    outline = [*faces.LIPS_INNER_UPPER, *faces.LIPS_INNER_LOWER[-2:0:-1]]
    cv2.fillPoly(inside, [np.round(target[outline, :2]).astype(np.int32)], 1)
    assert changed[inside > 0].mean() > 0.8
    assert not changed[cv2.dilate(inside, np.ones((11, 11), np.uint8)) == 0].any()
    low = target[faces.LIPS_INNER_LOWER[5], :2] * 0.6 + target[faces.LIPS_INNER_UPPER[5], :2] * 0.4
    x, y = np.round(low).astype(int)
    assert with_mouth[y, x].mean() < 0.6 * portrait[int(shut[50, 1]), int(shut[50, 0])].mean()  # darker than a cheek


def test_a_tongue_lies_behind_the_lower_lip_of_a_mouth_that_is_open_wide(
    portrait: Image, shut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    painter = Painter(portrait, warper)
    wide, narrow = (mouth_opened(shut, gap) for gap in (0.16, 0.02))
    with_tongue = [painter.paint(warper.flow(target)).astype(float) for target in (wide, narrow)]
    monkeypatch.setattr(warp, "_TONGUE_SEEN", (9.0, 10.0))
    without = [painter.paint(warper.flow(target)).astype(float) for target in (wide, narrow)]
    np.testing.assert_array_equal(with_tongue[1], without[1])  # too little to see it
    upper, lower = (wide[line[5], :2] for line in (faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER))
    x, y = np.round(upper + 0.8 * (lower - upper)).astype(int)
    tone = painter.colours.lips
    np.testing.assert_allclose(with_tongue[0][y, x] / tone, warp._TONGUE_LIGHT, atol=0.12)
    assert without[0][y, x].mean() < 0.6 * with_tongue[0][y, x].mean()
    changed = (with_tongue[0] != without[0]).any(-1)
    inside = np.zeros((512, 512), np.uint8)
    outline = [*faces.LIPS_INNER_UPPER, *faces.LIPS_INNER_LOWER[-2:0:-1]]
    cv2.fillPoly(inside, [np.round(wide[outline, :2]).astype(np.int32)], 1)
    assert not changed[cv2.dilate(inside, np.ones((11, 11), np.uint8)) == 0].any()


def test_what_is_painted_into_a_black_and_white_photo_is_grey(portrait: Image, shut: np.ndarray) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    grey = np.repeat(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    painter = Painter(grey, warper)
    assert painter.colours.is_grey and not Painter(portrait, warper).colours.is_grey
    image = painter.paint(warper.flow(eyes_closed(mouth_opened(shut, 0.16), 0.9)))
    assert np.ptp(image.astype(int), axis=2).max() <= 1


# Eyes.


def pictured_opening(landmarker: Landmarker, picture: Image, near: Face) -> float:
    points = landmarker.follow(picture, near).points
    return float(np.linalg.norm(points[faces.RIGHT_EYE_UPPER] - points[faces.RIGHT_EYE_LOWER], axis=1).sum())


@pytest.mark.parametrize("gap", [0.0, -0.02])
def test_an_eye_shuts_where_its_lids_touch_or_cross(
    landmarker: Landmarker, warper: Warper, painter: Painter, portrait_face: Face, gap: float
) -> None:
    """The landmarker's lids of shut eyes lie on each other, or cross by a few hundredths of the eye's width."""
    shut = eyes_closed(portrait_face.points, 1.0).astype(np.float64)
    for upper, lower in warp._LIDS_OF_EYES:
        middle = (shut[upper] + shut[lower]) / 2
        half = np.array([0, gap / 2 * np.linalg.norm(shut[upper[0]] - shut[upper[-1]]), 0])
        shut[upper[1:-1]], shut[lower[1:-1]] = (middle - half)[1:-1], (middle + half)[1:-1]
    open_before = pictured_opening(landmarker, painter.paint(warper.flow(portrait_face.points)), portrait_face)
    assert pictured_opening(landmarker, painter.paint(warper.flow(shut)), portrait_face) < 0.45 * open_before


def test_a_lid_that_comes_down_is_no_darker_than_skin_but_for_its_lashes(
    portrait: Image, portrait_face: Face, warper: Warper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warp, "_LASHES", 0.0)  # so that what is dark is stretched
    dark = portrait.copy()  # make-up around both eyes
    for upper, lower in warp._LIDS_OF_EYES:
        hull = cv2.convexHull(np.round(portrait_face.points[[*upper, *lower], :2]).astype(np.int32))
        mask = cv2.dilate(cv2.fillConvexPoly(np.zeros((512, 512), np.uint8), hull, 1), np.ones((7, 7)))
        dark[mask > 0] //= 4
    painter = Painter(dark, warper)
    flow = warper.flow(eyes_closed(portrait_face.points, 1.0))
    image = painter.paint(flow)
    assert len(flow.shut_eyes) == 2
    for eye in flow.shut_eyes:
        between = (0.8 * eye.line[4] + 0.2 * eye.fold[3]) * warper.crop.side + [warper.crop.left, warper.crop.top]
        x, y = np.round(between - 0.5).astype(int)
        skin = painter.colours.lids[eye.number]
        assert image[y, x].mean() > 0.7 * skin.mean()
        assert painter.carry(dark, flow)[y, x].mean() < 0.6 * skin.mean()  # as it was stretched


def test_an_eye_half_closed_is_pictured_so(
    landmarker: Landmarker, warper: Warper, painter: Painter, portrait_face: Face
) -> None:
    openings = [
        pictured_opening(
            landmarker, painter.paint(warper.flow(eyes_closed(portrait_face.points, amount))), portrait_face
        )
        for amount in (0, 0.5, 0.85)
    ]
    assert openings[2] < openings[1] < openings[0]
    assert openings[2] < 0.85 * openings[0]


def test_an_eye_that_closes_does_not_open_again(
    landmarker: Landmarker, warper: Warper, painter: Painter, portrait_face: Face
) -> None:
    almost, shut = (
        pictured_opening(
            landmarker, painter.paint(warper.flow(eyes_closed(portrait_face.points, amount))), portrait_face
        )
        for amount in (0.85, 0.98)
    )
    assert shut < 1.03 * almost


# Sizes and edges.


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
    edge = np.ones(picture.shape[:2], bool)  # the photo's own border stands still
    edge[1:-1, 1:-1] = False
    assert np.abs(out.astype(int) - picture)[edge].mean() < 2


def test_a_large_photo_keeps_its_resolution(portrait: Image, portrait_face: Face) -> None:
    """Fine stripes are still fine after the head has been turned: detail is moved, not blurred."""
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
