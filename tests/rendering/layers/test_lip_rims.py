"""lip_rims.py: lips that close over the photo's teeth leave no fragments of these, and a line where they meet."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image
from mimik.rendering.flow import Warper
from mimik.rendering.layers.canvas import LUMA
from mimik.rendering.layers.lip_rims import between
from mimik.rendering.painter import Painter

LIP, TOOTH = (190, 90, 95), (235, 230, 220)
OUTER = [*faces.LIPS_OUTER_UPPER, *faces.LIPS_OUTER_LOWER[-2:0:-1]]


def ellipse(width: float, height: float) -> np.ndarray:
    """[40, 2] around the center of a picture of 200 x 120 px."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([100 + width * np.cos(t), 60 + height * np.sin(t)], 1)


def test_teeth_beyond_the_landmarks_are_found_and_the_lips_are_not() -> None:
    part = np.full((120, 200, 3), LIP, np.uint8)
    teeth = np.zeros((120, 200), np.uint8)
    cv2.fillPoly(teeth, [ellipse(60, 14).round().astype(np.int32)], 1)
    part[teeth > 0] = TOOTH
    part[95:98, 90:110] = 255  # a highlight on the lower lip
    found = between(part, ellipse(56, 9), ellipse(80, 45), px_per_mm=3)
    assert found[teeth > 0].all()
    assert not found[95:98, 90:110].any()
    assert found.sum() < 1.6 * teeth.sum()


def test_only_the_mouth_is_replaced(portrait: Image, portrait_face: Face) -> None:
    painter = Painter(portrait, Warper(portrait_face.points, 512, 512))
    changed = (painter._mouth.rims.continued != portrait).any(-1)
    lips = np.zeros((512, 512), np.uint8)
    cv2.fillPoly(lips, [portrait_face.points[OUTER, :2].round().astype(np.int32)], 1)
    assert changed.any()
    assert not changed[cv2.dilate(lips, np.ones((9, 9))) == 0].any()


@pytest.fixture(scope="module")
def closed(portrait: Image, portrait_face: Face) -> tuple[Image, np.ndarray]:
    """The smiling portrait with closed lips, and its points."""
    points = portrait_face.points.astype(np.float64)
    middle = (points[faces.LIPS_INNER_UPPER] + points[faces.LIPS_INNER_LOWER]) / 2
    for inner, outer in (
        (faces.LIPS_INNER_UPPER, faces.LIPS_OUTER_UPPER),
        (faces.LIPS_INNER_LOWER, faces.LIPS_OUTER_LOWER),
    ):
        points[outer, 1] += (middle - points[inner])[:, 1]
        points[inner] = middle
    warper = Warper(portrait_face.points, 512, 512)
    return Painter(portrait, warper).paint(warper.flow(points)), points


def test_no_teeth_remain_between_lips_that_touch(
    portrait: Image, portrait_face: Face, closed: tuple[Image, np.ndarray]
) -> None:
    image, points = closed

    def enamel(picture: Image, at: np.ndarray) -> int:
        mask = np.zeros((512, 512), np.uint8)
        cv2.fillPoly(mask, [at[OUTER, :2].round().astype(np.int32)], 1)
        colors = picture.astype(np.float32)
        light = colors @ LUMA
        red = (colors[..., 0] - colors[..., 1]) / np.maximum(light, 1)
        return int(((mask > 0) & (red < 0.12) & (light > 130)).sum())

    assert enamel(portrait, portrait_face.points) > 60
    assert enamel(image, points) < 0.05 * enamel(portrait, portrait_face.points)


def test_a_line_is_seen_where_they_meet(closed: tuple[Image, np.ndarray]) -> None:
    image, points = closed
    light = image.astype(np.float32) @ LUMA
    x, y = points[faces.LIPS_INNER_UPPER[3:8], :2].round().astype(int).T
    line = np.array([light[b - 2 : b + 3, a].min() for a, b in zip(x, y, strict=True)])
    beside = np.array(
        [min(light[b - 8 : b - 4, a].max(), light[b + 5 : b + 9, a].max()) for a, b in zip(x, y, strict=True)]
    )
    assert (line < 0.9 * beside).all()
    assert (line > 0.55 * beside).all()  # a soft line, not a black one
