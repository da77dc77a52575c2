"""mirror.py: the permutation, use of the mirrored side, its lighting, and continuity."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest

from conftest import turned
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image
from mimik.rendering.field import GRID
from mimik.rendering.flow import Warper
from mimik.rendering.head_mesh import head
from mimik.rendering.mirror import TURNED, _behind_neck, matched_light, mirror_points, opacity
from mimik.rendering.painter import Painter
from shapes import canonical_shape, opened

PX = 256


def symmetric_points(yaw: float = 0.0) -> np.ndarray:
    """[478, 3] of a symmetric face in a picture of PX x PX, turned by yaw degrees."""
    shape = opened(canonical_shape())
    order = mirror_points()[: faces.NUM_POINTS]
    shape = (shape + shape[order] * [-1, 1, 1]) / 2
    return turned((shape * 6 + [PX / 2, PX / 2, 0]).astype(np.float32), yaw=yaw)


def person(points: np.ndarray) -> np.ndarray:
    """[PX, PX] matte of a bald head: the hull of the face."""
    matte = np.zeros((PX, PX), np.float32)
    cv2.fillConvexPoly(matte, cv2.convexHull(np.round(points[:, :2]).astype(np.int32)), 1)
    return matte


def warper_of(points: np.ndarray, *, whole_head: bool = False) -> Warper:
    return Warper(points, PX, PX, matte=person(points) if whole_head else None)


def test_the_mirror_point_of_a_mirror_point_is_the_point_itself() -> None:
    order = mirror_points()
    assert len(order) == faces.NUM_POINTS + len(head().shell)
    np.testing.assert_array_equal(order[order], np.arange(len(order)))
    assert order[33] == 263 and order[61] == 291 and order[4] == 4


def test_a_still_head_needs_no_second_source() -> None:
    for yaw in (0, 30, -30):
        points = symmetric_points(yaw)
        warper = warper_of(points, whole_head=True)
        for turn in (0.0, 3.0, TURNED[0] - 0.5):
            assert warper.flow(turned(points, yaw=turn)).mirror is None


def test_a_symmetric_frontal_photo_shows_both_sides_equally_well() -> None:
    """Both sides hide the same regions, so for no turn the mirrored side has more."""
    points = symmetric_points()
    warper = warper_of(points)
    for turn in (-35, 15, 35):
        mirror = warper.flow(turned(points, yaw=turn)).mirror
        assert mirror is None or mirror.weight.max() < 0.05


@pytest.mark.parametrize("yaw", [32, -32])
def test_a_half_profile_turned_back_takes_the_far_cheek_from_the_near_one(yaw: float) -> None:
    points = symmetric_points(yaw)
    warper = warper_of(points)
    target = turned(points, yaw=-yaw)
    mirror = warper.flow(target).mirror
    assert mirror is not None
    # 234 and 454 are the ends of the cheeks: the hidden one is taken from the other.
    right, left = 234, 454
    far, near = (right, left) if yaw < 0 else (left, right)
    for point, other, weight in ((far, near, 0.5), (near, far, 0.0)):
        inward = (0.8 * warper.crop.to_unit(target)[point] + 0.2 * warper.crop.to_unit(target)[4])[:2] * 128 - 0.5
        column, row = np.rint(inward).astype(int).tolist()
        at = row - mirror.rows.start, column - mirror.columns.start
        inside = 0 <= at[0] < mirror.weight.shape[0] and 0 <= at[1] < mirror.weight.shape[1]
        found = float(mirror.weight[at]) if inside else 0.0
        if weight:
            assert found > weight
            place = mirror.offset[at] + (np.array([column, row]) + 0.5) / 128
            expected = (0.8 * warper.source[other] + 0.2 * warper.source[4])[:2]
            assert np.linalg.norm(place - expected) < 0.035
        else:
            assert found < 0.02


def test_weights_change_little_from_one_degree_to_the_next() -> None:
    points = symmetric_points(25)
    warper = warper_of(points, whole_head=True)

    def whole(turn: float) -> np.ndarray:
        out = np.zeros((128, 128), np.float32)
        mirror = warper.flow(turned(points, yaw=turn)).mirror
        if mirror is not None:
            out[mirror.rows, mirror.columns] = mirror.weight * opacity(mirror.height)
        return out

    weights = [whole(turn) for turn in range(-40, 1)]
    assert weights[0].max() > 0.9 and weights[-1].max() == 0
    steps = [np.abs(a - b).mean() for a, b in itertools.pairwise(weights)]
    assert max(steps) < 0.012  # of the whole square, 1/6 of which is the face


def test_the_second_source_changes_only_the_face() -> None:
    points = symmetric_points(30)
    warper = warper_of(points)
    target = turned(points, yaw=-30)
    mirror = warper.flow(target).mirror
    assert mirror is not None
    oval = warper.crop.to_unit(target)[faces.OVAL, :2] * 128
    ys, xs = np.nonzero(mirror.weight > 0.02)
    low, high = oval.min(0) - 4, oval.max(0) + 4
    assert (xs + mirror.columns.start > low[0]).all() and (xs + mirror.columns.start < high[0]).all()
    assert (ys + mirror.rows.start > low[1]).all() and (ys + mirror.rows.start < high[1]).all()
    # The background is red: none of it appears in the face, although the photo does not show the far cheek.
    picture = np.full((PX, PX, 3), (255, 0, 0), np.uint8)
    skin = np.zeros((PX, PX), np.uint8)
    cv2.fillConvexPoly(skin, cv2.convexHull(np.round(points[:468, :2]).astype(np.int32)), 1)
    picture[skin > 0] = (120, 120, 120)
    made = Painter(picture, warper).paint(warper.flow(target))
    middle = 0.5 * (target[454] + target[4])
    x, y = (int(v) for v in middle[:2])
    assert np.abs(made[y - 3 : y + 4, x - 3 : x + 4].astype(int) - 120).max() < 12


def test_hair_that_the_photo_shows_keeps_its_outline_and_other_hair_is_mirrored() -> None:
    points = symmetric_points(25)
    target = turned(points, yaw=-25)
    wide = cv2.dilate(person(points), np.ones((61, 61), np.uint8))
    for matte, own in ((person(points), 0.0), (wide, 1.0)):
        mirror = Warper(points, PX, PX, matte=matte).flow(target).mirror
        assert mirror is not None
        assert float(mirror.own[mirror.weight > 0.5].max()) == pytest.approx(own, abs=0.02)
    alone = warper_of(points).flow(target).mirror
    whole = warper_of(points, whole_head=True).flow(target).mirror
    assert alone is not None and whole is not None
    assert (whole.weight * opacity(whole.height)).sum() > 1.3 * (alone.weight * opacity(alone.height)).sum()


def test_the_second_source_lies_over_the_person() -> None:
    """Porter and Duff's over operator, by hand: a = w b + (1 - w) a', c = (w b c_b + (1 - w) a' c_a) / a."""
    points = symmetric_points(25)
    warper = warper_of(points, whole_head=True)
    flow = warper.flow(turned(points, yaw=-25))
    assert flow.mirror is not None
    shape = flow.mirror.weight.shape
    matte = np.full((PX, PX), 204, np.uint8)
    picture = np.full((PX, PX, 3), 100, np.uint8)
    # Heights from 0.6 to 0.78 are the edge, half opaque in the middle.
    for weight, height, opaque, keeps in ((0.5, 1, 1, 0), (1, 0.69, 0.5, 0), (1, -0.5, 0, 0), (1, 0, 0, 1)):
        planes = (np.full(shape, value, np.float32) for value in (weight, height, keeps))
        mirror = replace(flow.mirror, **dict(zip(("weight", "height", "own"), planes, strict=True)))
        painter = Painter(picture, warper, matte=matte)
        painter.paint(replace(flow, mirror=mirror))
        row = (mirror.rows.start + mirror.rows.stop) * PX // 256
        column = (mirror.columns.start + mirror.columns.stop) * PX // 256
        at = warper.crop.from_unit(np.array([column, row]) / PX).astype(int) - [
            painter.canvas.left,
            painter.canvas.top,
        ]
        b = 204 * (keeps + (1 - keeps) * opaque)
        assert abs(int(painter.moved_matte[at[1], at[0]]) - (weight * b + (1 - weight) * 204)) <= 1


def test_the_outline_of_the_second_source_is_no_staircase() -> None:
    """A slanting level set of heights becomes a straight edge, although cells are larger than pixels."""
    px = 4 * PX
    points = 4 * symmetric_points(30)
    warper = Warper(points, px, px, matte=np.ones((px, px), np.float32))
    flow = warper.flow(turned(points, yaw=-30))
    assert flow.mirror is not None
    rows, columns = flow.mirror.weight.shape
    x, y = np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32)[:, None]
    height = (0.69 + 0.4 * (x - columns / 2 - 0.6 * (y - rows / 2))).clip(-0.5, 1.0)
    nothing, everywhere = np.zeros_like(height), np.ones_like(height)
    mirror = replace(flow.mirror, weight=everywhere, height=height, own=nothing)
    painter = Painter(np.full((px, px, 3), 100, np.uint8), warper, matte=np.full((px, px), 255, np.uint8))
    painter.paint(replace(flow, mirror=mirror))
    cell = warper.crop.side / 128
    top, left = mirror.rows.start, mirror.columns.start
    deviation = []
    for row in np.arange(rows / 2 - 6, rows / 2 + 6, 0.25):
        (right, at), (first, _) = (
            warper.crop.from_unit((np.array([left + column, top + row]) + 0.5) / 128).round().astype(int)
            - [painter.canvas.left, painter.canvas.top]
            for column in (columns / 2 + 8, columns / 2 - 8)
        )
        edge = first + (painter.moved_matte[at, first:right] > 127).argmax()
        true = first + cell * (8 + 0.6 * (row - rows / 2))
        deviation.append((edge - true) / cell)
    assert np.ptp(deviation) < 0.3  # of a cell; opacities of cells, interpolated: 0.7


def test_skin_is_not_drawn_out_over_a_neck_that_the_photo_hides() -> None:
    """A face turned by 45 degrees hides the far side of the neck: turned back, the person ends there at the jaw."""
    points = symmetric_points(45)
    warper = warper_of(points, whole_head=True)
    target = turned(points, yaw=-45)
    picture = np.full((PX, PX, 3), 100, np.uint8)
    painter = Painter(picture, warper, matte=np.rint(255 * person(points)).astype(np.uint8))
    painter.paint(warper.flow(target))
    place = np.array([painter.canvas.left, painter.canvas.top])
    hull = cv2.convexHull(np.round(target[:, :2] - place).astype(np.int32))
    face = np.zeros(painter.moved_matte.shape, np.uint8)
    cv2.fillConvexPoly(face, hull, 1)
    beside = cv2.dilate(face, np.ones((2 * [2 * round(0.06 * np.ptp(hull[..., 0])) + 1]), np.uint8)) == 0
    assert (painter.moved_matte * beside).max() < 64


@pytest.mark.parametrize("yaw", [25, -25])
def test_behind_a_veil_the_hidden_side_of_a_neck_is_mirrored_from_the_ear_to_the_chin(yaw: float) -> None:
    """Turned back, a half profile before a veil shows the mirrored neck without a gap, and keeps the veil's outline."""
    points = symmetric_points(yaw)
    warper = Warper(points, PX, PX, matte=np.ones((PX, PX), np.float32))
    target = turned(points, yaw=-yaw)
    mirror = warper.flow(target).mirror
    assert mirror is not None
    hidden = int(warper.facing[132] > warper.facing[361])  # side of the photo
    jaw = ([132, 58, 172, 136, 150], [361, 288, 397, 365, 379])[hidden]
    beside = warper.crop.to_unit(target[jaw])[:, :2] * GRID + [2.5 * (2 * hidden - 1), 2.5]
    x, y = beside.astype(int).T - np.array([[mirror.columns.start], [mirror.rows.start]])
    assert mirror.weight[y, x].min() > 0.65
    assert mirror.own[y, x].min() > 0.9


def test_the_edge_of_a_neck_is_no_veil() -> None:
    """The same neck at an edge of the matte, which a pixel more or less moves, is not taken for one before a veil."""
    points = symmetric_points(25)
    source = Warper(points, PX, PX).source
    outer = source[faces.NUM_POINTS + len(faces.OVAL) :, :2] * GRID
    height = head().shell[len(faces.OVAL) :, 1]
    edge = outer[(height > 3) & (height < 10) & (head().shell[len(faces.OVAL) :, 0] < 0), 0].min()
    columns = np.arange(GRID)[None]
    for by in (-1, 0, 1):
        matte = np.repeat((columns >= round(edge) + by).astype(np.float32), GRID, 0)
        covered = _behind_neck(source, matte)
        assert covered[head().shell[len(faces.OVAL) :, 0] < 0].max() < 0.2
    assert _behind_neck(source, np.ones((GRID, GRID), np.float32))[height > 3].min() > 0.99


def test_a_mirrored_neck_has_the_light_of_the_jaw_above_it() -> None:
    points = symmetric_points()
    facing = warper_of(points).facing[: faces.NUM_POINTS]
    light = 0.6 + 0.4 / (1 + np.exp(-(np.arange(PX) - PX / 2) / 6))
    picture = np.rint(180 * np.repeat(np.repeat(light[None, :, None], PX, 0), 3, 2)).astype(np.uint8)
    lit = matched_light(picture, points, facing).astype(float)
    for point in (172, 397):  # at the jaw
        px, py = (int(v) for v in points[point, :2])
        jaw, neck, shoulder = (lit[py + by, px].mean() for by in (-4, 12, 60))
        assert abs(neck - jaw) < 0.1 * jaw
        assert shoulder == picture[py + 60, px].mean()


def test_light_of_one_side_is_given_to_the_other() -> None:
    points = symmetric_points()
    facing = warper_of(points).facing[: faces.NUM_POINTS]
    x = np.arange(PX)
    # The left half of the picture has 0.6 of the brightness of the right half, with a soft edge.
    light = 0.6 + 0.4 / (1 + np.exp(-(x - PX / 2) / 6))
    picture = np.rint(180 * np.repeat(np.repeat(light[None, :, None], PX, 0), 3, 2)).astype(np.uint8)
    lit = matched_light(picture, points, facing)
    for point, expected in ((50, 180.0), (280, 108.0)):  # cheeks at the picture's left and right
        px, py = (int(v) for v in points[point, :2])
        assert abs(float(lit[py, px].mean()) - expected) < 0.08 * expected
        assert abs(float(picture[py, px].mean()) - (288 - expected)) < 4
    hair = picture.copy()
    hair[120:140] = 12  # a dark strand over a side that is brightened
    assert matched_light(hair, points, facing)[125:135].max() <= 13
    evenly = np.full((PX, PX, 3), 150, np.uint8)
    np.testing.assert_allclose(matched_light(evenly, points, facing).astype(int), 150, atol=1)


def test_a_deep_brown_shadow_becomes_skin_in_full_light() -> None:
    """Blue in a painted shadow is 1/6 of that on the lit side: nothing turns orange, and noise hardly grows."""
    points = symmetric_points()
    facing = warper_of(points).facing[: faces.NUM_POINTS]
    lit_skin, shadow = np.array([240.0, 200, 170]), np.array([120.0, 60, 30])
    share = 1 / (1 + np.exp(-(np.arange(PX) - PX / 2) / 4))[None, :, None]
    noise = np.random.default_rng(0).normal(0, 3, (PX, PX, 1))
    picture = np.rint((shadow + share * (lit_skin - shadow) + noise).clip(0, 255)).astype(np.uint8)
    found = matched_light(picture, points, facing)
    px, py = (int(v) for v in points[50, :2])  # the cheek in the shadow
    cheek = found[py - 6 : py + 7, px - 6 : px + 7].reshape(-1, 3).astype(float)
    np.testing.assert_allclose(cheek.mean(0), lit_skin, rtol=0.1)
    assert cheek.std(0).max() < 2 * 3  # a gain of 6 would make it 18


def test_turned_portraits_are_completed_by_every_painter(portrait: Image, portrait_face: Face) -> None:
    """Planes other than pictures, such as a matte, use the same two sources."""
    matte = np.ones(portrait.shape[:2], np.float32)
    warper = Warper(portrait_face.points, portrait.shape[1], portrait.shape[0], matte=matte)
    painter = Painter(portrait, warper)
    flow = warper.flow(turned(portrait_face.points, yaw=25))
    plane = np.full(portrait.shape[:2], 77, np.uint8)
    np.testing.assert_array_equal(painter.carry(plane, flow), plane)
    assert painter.paint(flow).shape == portrait.shape


@pytest.mark.parametrize(("yaw", "keeps"), [(35.0, True), (55.0, False)])
def test_an_eye_that_looks_aside_is_kept_if_the_photo_shows_it(yaw: float, keeps: bool) -> None:
    """Its mirrored eye looks to the other side: the white that it lacks there cannot be sampled."""
    points = symmetric_points(yaw)
    facing = Warper(points, PX, PX).facing
    lids = ([159, 145], [386, 374])[int(facing[33] > facing[263])]  # of the far eye
    ahead, aside = (points.copy() for _ in range(2))
    for iris, corners in ((faces.RIGHT_IRIS, [33, 133]), (faces.LEFT_IRIS, [362, 263])):
        eye = points[corners].mean(0)
        across = points[corners[1]] - points[corners[0]]
        ahead[iris] += eye - points[iris[0]]
        aside[iris] += eye + 0.3 * across - points[iris[0]]
    weights = []
    for photo in (ahead, aside):
        target = turned(photo, yaw=-yaw)
        warper = warper_of(photo)
        mirror = warper.flow(target).mirror
        assert mirror is not None
        x, y = (warper.crop.to_unit(target[lids])[:, :2].mean(0) * GRID).astype(int)
        weights.append(mirror.weight[y - mirror.rows.start, x - mirror.columns.start])
    assert weights[0] > 0.9
    assert weights[1] < 0.1 if keeps else weights[1] > 0.9
