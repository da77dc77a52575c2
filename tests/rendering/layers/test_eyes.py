"""eyes.py: the iris keeps its shape, eyelids are skin and close smoothly, and nothing changes at rest."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from conftest import eyes_closed
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image, Landmarker
from mimik.rendering.flow import Warper
from mimik.rendering.layers.eye_contours import FOLDS, LIDS_OF_EYES
from mimik.rendering.painter import Painter


def pictured_opening(landmarker: Landmarker, picture: Image, near: Face) -> float:
    points = landmarker.follow(picture, near).points
    return float(np.linalg.norm(points[faces.RIGHT_EYE_UPPER] - points[faces.RIGHT_EYE_LOWER], axis=1).sum())


@pytest.mark.parametrize("gap", [0.0, -0.02])
def test_an_eye_shuts_where_its_lids_touch_or_cross(
    landmarker: Landmarker, warper: Warper, painter: Painter, portrait_face: Face, gap: float
) -> None:
    """Detected eyelids of closed eyes coincide, or cross by some hundredths of the eye's width."""
    shut = eyes_closed(portrait_face.points, 1.0).astype(np.float64)
    for upper, lower in LIDS_OF_EYES:
        middle = (shut[upper] + shut[lower]) / 2
        half = np.array([0, gap / 2 * np.linalg.norm(shut[upper[0]] - shut[upper[-1]]), 0])
        shut[upper[1:-1]], shut[lower[1:-1]] = (middle - half)[1:-1], (middle + half)[1:-1]
    open_before = pictured_opening(landmarker, painter.paint(warper.flow(portrait_face.points)), portrait_face)
    assert pictured_opening(landmarker, painter.paint(warper.flow(shut)), portrait_face) < 0.45 * open_before


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


# A drawn eye: pale skin, white sclera, a blue iris with a black pupil, a dark lash line and a brown crease.

IRIS, SCLERA, SKIN = (40, 110, 220), (235, 232, 228), (205, 160, 130)


@pytest.fixture(scope="module")
def drawn(portrait_face: Face) -> tuple[Image, np.ndarray, Warper]:
    """A picture of 768 px with such eyes at those of the portrait, its points, and its warper."""
    k = 6
    points = portrait_face.points.astype(np.float64) * [k, k, k]
    low = points[:, :2].min(0) - 400
    points[:, :2] -= low
    side = int(np.ceil(points[:, :2].max() + 400))
    picture = np.full((side, side, 3), SKIN, np.uint8)
    for (upper, lower), iris in zip(LIDS_OF_EYES, (faces.RIGHT_IRIS, faces.LEFT_IRIS), strict=True):
        width = np.linalg.norm(points[upper[0], :2] - points[upper[-1], :2])
        outline = np.round(points[[*upper, *lower[-2:0:-1]], :2]).astype(np.int32)
        ball = np.full_like(picture, SCLERA)
        middle = tuple(int(v) for v in np.round(points[iris[0], :2]))
        cv2.circle(ball, middle, int(0.24 * width), IRIS, -1, cv2.LINE_AA)
        cv2.circle(ball, middle, int(0.1 * width), (12, 10, 10), -1, cv2.LINE_AA)
        inside = cv2.fillPoly(np.zeros(picture.shape[:2], np.uint8), [outline], 255, cv2.LINE_AA)[..., None] / 255
        picture = (picture + inside * (ball.astype(float) - picture)).round().astype(np.uint8)
        lashes = np.round(points[upper, :2]).astype(np.int32)
        cv2.polylines(picture, [lashes], False, (45, 30, 25), max(int(0.03 * width), 1), cv2.LINE_AA)
    return picture, points, Warper(points.astype(np.float32), side, side)


def gaze(points: np.ndarray, x: float, y: float) -> np.ndarray:
    """The face with both irises moved, in eye widths."""
    out = points.copy()
    width = np.linalg.norm(points[33, :2] - points[133, :2])
    out[faces.IRISES, :2] += np.array([x, y]) * width
    return out


def blue(image: Image) -> np.ndarray:
    """Pixels with the color of the iris."""
    return (image[..., 2].astype(int) - image[..., 0] > 70) & (image[..., 2] > 90)


def around_an_eye(points: np.ndarray, number: int = 0, margin: float = 0.3) -> tuple[slice, slice]:
    at = points[[*LIDS_OF_EYES[number][0], *LIDS_OF_EYES[number][1]], :2]
    reach = margin * np.ptp(at[:, 0])
    low, high = (at.min(0) - reach).astype(int), (at.max(0) + reach).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


@pytest.mark.parametrize("way", [(-0.12, 0.0), (0.12, 0.0), (0.06, 0.04)])
def test_an_iris_that_is_moved_keeps_its_radius(drawn: tuple, way: tuple[float, float]) -> None:
    """Its rim on a horizontal line is at that of a disc with the same radius."""
    picture, points, warper = drawn
    image = Painter(picture, warper).paint(warper.flow(gaze(points, *way)))
    for (upper, _), iris in zip(LIDS_OF_EYES, (faces.RIGHT_IRIS, faces.LEFT_IRIS), strict=True):
        width = np.linalg.norm(points[upper[0], :2] - points[upper[-1], :2])
        shift = np.array(way) * np.linalg.norm(points[33, :2] - points[133, :2])
        x, y = np.round(points[iris[0], :2] + shift).astype(int)
        reach = int(0.4 * width)
        found = np.flatnonzero(blue(image)[y, x - reach : x + reach]) + x - reach
        assert (found.max() - found.min()) / 2 == pytest.approx(0.24 * width, rel=0.06)
        assert (found.max() + found.min()) / 2 == pytest.approx(x, abs=0.03 * width)


def test_a_shut_eye_shows_lid_and_no_iris(drawn: tuple) -> None:
    picture, points, warper = drawn
    image = Painter(picture, warper).paint(warper.flow(eyes_closed(points, 1.0)))
    for number in (0, 1):
        at = around_an_eye(points, number)
        assert blue(picture[at]).mean() > 0.05
        assert not blue(image[at]).any()
        # Over the middle of the lid there is skin.
        upper, lower = LIDS_OF_EYES[number]
        x, y = np.round(0.6 * points[upper[4], :2] + 0.4 * points[lower[4], :2]).astype(int)
        np.testing.assert_allclose(image[y - 3 : y + 4, x - 3 : x + 4].mean((0, 1)), SKIN, rtol=0.15)


def test_a_crease_that_meets_the_lashes_leaves_no_dark_corner(drawn: tuple) -> None:
    """Dark skin over the inner end of the lid is the crease, not lashes that move with a closing lid."""
    picture, points, warper = drawn
    upper, fold = LIDS_OF_EYES[0][0], FOLDS[0]
    edge, over = points[upper[5:8], :2], points[fold[4:7], :2]
    corner = np.concatenate([edge, (edge + 0.65 * (over - edge))[::-1]])
    dark = cv2.fillPoly(picture.copy(), [np.round(corner).astype(np.int32)], (70, 45, 35), cv2.LINE_AA)
    closed = eyes_closed(points, 1.0)
    image = Painter(dark, warper).paint(warper.flow(closed))
    x, y = np.round(closed[upper[6], :2] + 0.62 * (over[1] - edge[1])).astype(int)
    lid = image[y - 2 : y + 3, x - 2 : x + 3].mean()
    assert lid > 0.7 * np.mean(SKIN)


@pytest.mark.slow
def test_lids_close_without_a_jump(drawn: tuple) -> None:
    """Between steps, places that the lid's edge does not cross change only slightly."""
    picture, points, warper = drawn
    painter = Painter(picture, warper)
    at = around_an_eye(points)
    frames = [painter.paint(warper.flow(eyes_closed(points, t)))[at].astype(float) for t in np.linspace(0, 1, 21)]
    steps = np.array([np.abs(a - b).mean() for a, b in zip(frames[1:], frames, strict=False)])
    assert steps.max() < 2.5 * np.median(steps) + 0.5
    assert np.abs(frames[-1] - frames[0]).mean() > 10


def test_a_lid_that_rises_under_its_crease_has_no_edge(drawn: tuple) -> None:
    """Skin with a vertical gradient keeps it over a raised lid."""
    picture, points, warper = drawn
    rows, columns = around_an_eye(points, margin=0.6)
    ramp = np.linspace(40, 230, rows.stop - rows.start)[:, None, None]
    shaded = picture.copy()
    shaded[rows, columns] = ramp
    raised = points.copy()
    upper, _ = LIDS_OF_EYES[0]
    width = np.linalg.norm(points[upper[0], :2] - points[upper[-1], :2])
    raised[upper[1:-1], 1] -= 0.05 * width
    painted = Painter(shaded, warper).paint(warper.flow(raised)).astype(int)
    x, edge = (int(v) for v in raised[upper[len(upper) // 2], :2])
    above = painted[edge - int(0.3 * width) : edge - 3, x, 1]
    assert np.abs(np.diff(above)).max() <= 4


def test_at_rest_the_eyes_are_the_photos(drawn: tuple) -> None:
    picture, points, warper = drawn
    flow = warper.flow(points)
    assert [eye.weight for eye in flow.eyes] == [0, 0]
    np.testing.assert_array_equal(Painter(picture, warper).paint(flow), picture)


def test_the_layer_is_the_photo_where_nothing_has_moved(drawn: tuple) -> None:
    """Drawn over an eye at rest, the layer changes almost nothing: the completion fits the visible part."""
    picture, points, warper = drawn
    flow = warper.flow(points)
    full = replace(flow, eyes=tuple(replace(eye, weight=1.0) for eye in flow.eyes))
    at = around_an_eye(points)
    off = np.abs(Painter(picture, warper).paint(full)[at].astype(float) - picture[at])
    assert off.mean() < 2
    assert np.median(off) < 0.5


@pytest.mark.slow
def test_eyes_of_a_black_and_white_photo_stay_gray(drawn: tuple) -> None:
    picture, points, warper = drawn
    gray = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    painter = Painter(gray, warper)
    for target in (eyes_closed(points, 0.5), eyes_closed(points, 1.0), gaze(points, 0.1, 0.05)):
        assert np.ptp(painter.paint(warper.flow(target)).astype(int), axis=2).max() <= 1


def test_a_wide_eye_shows_more_of_the_eyeball(drawn: tuple) -> None:
    """The strip over the iris that a rising lid uncovers is sclera or iris, not lashes."""
    picture, points, warper = drawn
    image = Painter(picture, warper).paint(warper.flow(eyes_closed(points, -0.3)))
    at = around_an_eye(points)
    pale = (image[at].min(-1) > 120) & (np.ptp(image[at].astype(int), axis=-1) < 30)
    before = (picture[at].min(-1) > 120) & (np.ptp(picture[at].astype(int), axis=-1) < 30)
    assert pale.sum() > 1.1 * before.sum()


def test_an_eye_that_is_shut_in_the_photo_is_left_to_the_warp(drawn: tuple) -> None:
    picture, points, _ = drawn
    shut = eyes_closed(points, 0.95)
    warper = Warper(shut.astype(np.float32), *picture.shape[1::-1])
    painter = Painter(picture, warper)
    flow = warper.flow(gaze(shut, 0.1, 0))
    np.testing.assert_array_equal(painter.paint(flow), painter.paint(replace(flow, eyes=())))
