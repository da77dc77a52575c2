"""opening.py: a mouth that opens is dark inside, between the lips only."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from conftest import eyes_closed, mouth_opened, turned
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image
from mimik.rendering.flow import Warper
from mimik.rendering.layers import colours, opening
from mimik.rendering.painter import Painter


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
    monkeypatch.setattr(opening, "_TONGUE_SEEN", (9.0, 10.0))
    without = [painter.paint(warper.flow(target)).astype(float) for target in (wide, narrow)]
    np.testing.assert_array_equal(with_tongue[1], without[1])  # too little to see it
    upper, lower = (wide[line[5], :2] for line in (faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER))
    x, y = np.round(upper + 0.8 * (lower - upper)).astype(int)
    tone = painter.colours.lips
    np.testing.assert_allclose(with_tongue[0][y, x] / tone, colours._TONGUE_LIGHT, atol=0.12)
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
