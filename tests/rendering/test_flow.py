"""flow.py against invariants: no folds, points reach their targets, disocclusions are detected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import eyes_closed, mouth_opened, turned
from mimik.arrays import spline
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Landmarker, head_pose
from mimik.media import video
from mimik.rendering import flow as flow_module
from mimik.rendering.crop import WINDOW_SCALE, Crop
from mimik.rendering.field import FINE, GRID, area_ratio, centers_along, unfold
from mimik.rendering.flow import NUM_GEOMETRY, Flow, Warper

PORTRAITS = Path(__file__).resolve().parents[3] / "shared" / "portraits"


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
    # Center of the face: offset in pixels, by hand and from the maps.
    at = window.to_unit(portrait_face.points)[4, :2]
    column, row = (at * 64).astype(int)
    place = np.array([window.left, window.top]) + (np.array([column, row]) + 0.5) / 64 * window.side
    cell = ((place - [warper.crop.left, warper.crop.top]) / warper.crop.side * GRID).astype(int)
    expected = flow.offset[cell[1], cell[0]] * warper.crop.side
    np.testing.assert_allclose(maps[:2, row, column] * window.side / 10, expected, atol=2.5)
    assert maps[2].max() == 1 and 0.001 < maps[2].mean() < 0.2
    assert np.abs(maps[3]).max() <= 1


def test_the_points_arrive_where_they_are_sent(warper: Warper, portrait_face: Face) -> None:
    """The flow at a target point maps back to the photo's point."""
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


# Sideways motion of the skin beside the left corner of the mouth, relative to the corner's: as the landmark detector
# finds it, and by optical flow, in 14 clips of the training set with strongly rounded lips (medians).
BESIDE_CORNER = {432: (0.19, 0.66), 436: (0.18, 0.47), 422: (0.18, 0.65), 425: (0.12, 0.22)}


@pytest.mark.parametrize("yaw", [0, 12])
def test_skin_beside_the_mouth_follows_its_corners_as_in_videos(warper: Warper, portrait_face: Face, yaw: int) -> None:
    pose = head_pose(portrait_face.points)
    shape = pose.invert(portrait_face.points)
    target = shape.copy()
    target[faces.LIPS, 0] *= 1 - 0.6 / shape[291, 0]
    for point, (detected, _) in BESIDE_CORNER.items():
        target[point, 0] -= 0.6 * detected
    goal = turned(pose.apply(target), yaw=yaw)
    offset, side = warper.flow(goal).offset, warper.crop.side
    sideways = turned(pose.apply(shape - [0.6, 0, 0]), yaw=yaw) - turned(portrait_face.points, yaw=yaw)
    for point, (_, real) in BESIDE_CORNER.items():
        place = turned(portrait_face.points, yaw=yaw)[point] + real * sideways[point]
        at = warper.crop.to_unit(place[None, :2]) * GRID - 0.5
        back = place[:2] + cv2.remap(offset, at.astype(np.float32)[None], None, cv2.INTER_LINEAR)[0, 0] * side
        assert np.linalg.norm(back - portrait_face.points[point, :2]) < 0.25 * np.linalg.norm(sideways[point, :2])


def test_small_motions_make_small_flows(warper: Warper, portrait_face: Face) -> None:
    rng = np.random.default_rng(0)
    target = portrait_face.points + rng.normal(0, 0.1, portrait_face.points.shape)
    assert np.abs(warper.flow(target).offset).max() * warper.crop.side < 1.0


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


def test_what_comes_into_view_is_known(portrait_face: Face) -> None:
    """A photo of a turned head is turned back: the far cheek is disoccluded."""
    points = turned(portrait_face.points, yaw=40)
    warper = Warper(points.astype(np.float32), 512, 512)
    back = warper.flow(turned(points, yaw=-35))
    assert not warper.flow(points).unseen.any()
    assert 10 < back.unseen.sum() < 0.1 * GRID * GRID
    # The head looks to the picture's right: the hidden region is right of the nose.
    _, x = np.nonzero(back.unseen)
    nose = warper.crop.to_unit(turned(points, yaw=-35)[4])[0] * GRID
    assert (x > nose).mean() > 0.9


def test_turning_away_hides_and_reveals_little(flow_of) -> None:
    assert flow_of(yaw=20).unseen.sum() < 0.02 * GRID * GRID


@pytest.mark.parametrize("yaw", [-30, 30])
def test_a_shoulder_cut_by_the_edge_is_not_continued_beyond_it(portrait_face: Face, yaw: int) -> None:
    """A turned head does not pull the edge of the picture, and with it the end of a sleeve, into view."""
    crop = Crop.around(portrait_face.points)
    edge = 0.1 * crop.side
    points = portrait_face.points - np.array([crop.left + edge, 0, 0], np.float32)
    width, height = round(crop.side - 2 * edge), round(crop.top + crop.side)
    shoulders = round(points[58, 1])  # at the corners of the jaw
    matte = np.zeros((height, width), np.float32)
    matte[shoulders:] = 1
    warper = Warper(points, width, height, matte=matte, free=(True, True, True))
    flow = warper.flow(turned(points, yaw=yaw))
    x, y = ((np.arange(GRID) + 0.5) / GRID * crop.side + start for start in (-edge, crop.top))
    rows, columns = y > shoulders + 6 * crop.side / GRID, (x > 0) & (x < width)
    sampled = x[columns] + flow.offset[rows][:, columns, 0] * crop.side
    assert sampled.min() > -0.004 * crop.side and sampled.max() < width + 0.004 * crop.side


@pytest.mark.parametrize("below", [-0.1, 0.1])
def test_shoulders_sway_with_the_head_where_nothing_holds_them(portrait_face: Face, below: float) -> None:
    """A head moves as a whole; below: crop sides between the square's lower border and that of the picture."""
    side = Crop.around(portrait_face.points).side
    points = portrait_face.points + np.float32([side, side, 0])  # far from the other borders
    crop = Crop.around(points)
    width, height = round(crop.left + 2 * side), round(crop.top + (1 + below) * side)
    matte = np.zeros((height, width), np.float32)
    middle = round(crop.left + side / 2)
    matte[round(crop.top + side / 4) :, middle - round(0.3 * side) : middle + round(0.3 * side)] = 1
    apart = Warper(points, width, height, matte=matte, free=(True, True, True))
    whole = Warper(points, width, height)
    neck, last = round(0.78 * GRID), int(min(1 + below, 1) * GRID) - 1  # rows of cells
    for by in ((0.04, 0.0), (0.0, -0.03), (0.0, 0.03)):
        target = points + np.float32([*by, 0]) * np.float32(side)
        still, sways = (warper.flow(target).offset[:, GRID // 2] for warper in (whole, apart))
        assert sways[neck] @ by < 1.4 * (still[neck] @ by)  # both negative: further along than without
        held = below > 0 or by[1] < 0  # the picture continues, or its lower part would move into view
        np.testing.assert_allclose(sways[last], np.zeros(2) if held else np.multiply(by, -0.7), atol=0.004)
        assert np.abs(still[last]).max() < 0.004


def test_shoulders_do_not_turn_with_the_head(portrait_face: Face) -> None:
    """About the base of the neck: 10 cm below the middle of the face, 4 cm behind it."""
    points = portrait_face.points.astype(np.float64)
    pose = head_pose(points)
    base = pose.apply(np.array([[0.0, 10.0, 4.0]]))
    c, s = np.cos(0.3), np.sin(0.3)
    target = base + (points - base) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    picture = 512, 512
    for matte in (None, np.ones(picture, np.float32)):
        warper = Warper(portrait_face.points, *picture, matte=matte)
        shoulders = warper.flow(target.astype(np.float32)).offset[-6:]
        assert np.abs(shoulders).max() < 0.01


@pytest.mark.parametrize("angles", [{"yaw": 15.0}, {"yaw": -15.0}, {"pitch": 10.0}])
def test_the_front_of_the_hair_turns_with_the_skull(portrait_face: Face, angles: dict[str, float]) -> None:
    """A point of the scalp, 45 degrees above the middle of a skull whose semi-axes are 9, 11 and 10.8 cm."""
    points = portrait_face.points + np.float32([200, 300, 0])  # far from the borders, which are fixed
    warper, target = Warper(points, 912, 1024), turned(points, **angles)
    front = np.array([[0.0, -3 - 11 * np.sqrt(0.5), 5 - 10.8 * np.sqrt(0.5)]])
    start, end = (head_pose(of).apply(front)[0, :2] for of in (points, target))
    x, y = ((end - [warper.crop.left, warper.crop.top]) / warper.crop.side * GRID).astype(int)
    sampled = end + warper.flow(target).offset[y, x] * warper.crop.side
    assert np.linalg.norm(end - start) > 0.01 * warper.crop.side
    assert np.linalg.norm(sampled - start) < 0.25 * np.linalg.norm(end - start)


@pytest.mark.parametrize("yaw, ear", [(-30, (356, 454, 323, 361)), (30, (127, 234, 93, 132))])
def test_the_near_edge_of_the_cheek_stays_smooth(warper: Warper, flow_of, portrait_face: Face, yaw, ear) -> None:
    """A vertical line of the photo just inside the face's outline, from temple to jaw, becomes a parabola."""
    centers = (np.arange(GRID) + 0.5) / GRID
    sampled = flow_of(yaw=yaw).offset[..., 0] + centers
    x, y = warper.crop.to_unit(portrait_face.points[list(ear), :2].astype(float)).T
    line = x.min() - 0.012 if yaw < 0 else x.max() + 0.012
    rows = np.arange(int(y.min() * GRID) - 4, int(y.max() * GRID) + 4)
    found = np.array([np.interp(line, sampled[row], centers) for row in rows])
    assert np.ptp(found - np.polyval(np.polyfit(rows, found, 2), rows)) < 0.01


def test_the_edge_of_a_flat_lip_that_becomes_round_is_not_wavy(portrait_face: Face) -> None:
    """Between its points, too, the edge of the frame's lip shows the edge of the photo's."""
    source = portrait_face.points.astype(np.float64)
    outer = faces.LIPS_OUTER_LOWER
    ends, arch = np.linspace(source[61, 1], source[291, 1], 11), np.sin(np.linspace(0, np.pi, 11))
    source[outer, 1] += 0.6 * (ends + 6 * arch - source[outer, 1])
    target = mouth_opened(source, 0.08)
    target[faces.LIPS, 0] += 0.25 * (source[[61, 291], 0].mean() - target[faces.LIPS, 0])
    warper = Warper(source.astype(np.float32), 512, 512)
    lips = warper.flow(target).details[0]
    segment = 16
    curve = spline(len(outer), segment)
    edge = warper.crop.to_unit(curve @ target[outer, :2])
    at = (edge * GRID - [lips.columns.start, lips.rows.start]) * FINE - 0.5
    shown = edge + cv2.remap(lips.offset, at.astype(np.float32)[None], None, cv2.INTER_LINEAR)[0]
    own = warper.crop.to_unit(curve @ source[outer, :2])
    below = (shown[:, 1] - np.interp(shown[:, 0], *own.T)) / np.linalg.norm(own[-1] - own[0])
    mean = np.convolve(below, np.full(2 * segment + 1, 1 / (2 * segment + 1)), "same")
    off_corners = slice(2 * segment, -2 * segment)
    assert np.abs(below[off_corners]).max() < 0.006  # of the mouth's width
    assert (below - mean)[off_corners].std() < 0.00035


def test_folds_that_an_opening_hides_leave_the_lips_sharp(
    warper: Warper, portrait_face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells of the drawn opening, counted by hand, are those that may fold."""
    found = []
    monkeypatch.setattr(flow_module, "unfold", lambda offset, covered: found.append(covered) or unfold(offset, covered))
    assert warper.flow(portrait_face.points).mouth is None and not found[0].any()
    opened = mouth_opened(portrait_face.points, 0.15)
    mouth = warper.flow(opened).mouth
    assert mouth is not None and mouth.parted == mouth.changed == 1
    upper, lower = (np.interp(centers_along(GRID), *line.T, left=2, right=2) for line in (mouth.upper, mouth.lower))
    rows = centers_along(GRID)[:, None]
    cell = 0.8 / GRID
    inside, around = ((rows > upper + d) & (rows < lower - d) for d in (cell, -cell))
    near = cv2.dilate(around.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0  # beyond the corners, by a cell
    assert inside.any() and found[1][inside].all() and not found[1][~near].any()
