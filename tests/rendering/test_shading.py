"""shading.py: the light of a photo, and the brightness of a turned face, against a face lit by a known light."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from conftest import turned
from mimik.face.landmarks import NUM_POINTS, OVAL, Image, skull_motion
from mimik.rendering.crop import Crop
from mimik.rendering.flow import Warper
from mimik.rendering.head_mesh import head, normals, rasterize
from mimik.rendering.layers.canvas import Canvas
from mimik.rendering.painter import Painter
from mimik.rendering.shading import light_of
from shapes import canonical_shape

PX = 256
BASE = np.log(110.0)
LIGHT = np.array([0.45, -0.2, -0.15])  # change of log brightness: light from the right, slightly from above


def frontal() -> np.ndarray:
    return (canonical_shape() * 6 + [PX / 2, PX / 2, 0]).astype(np.float32)


def lit(points: np.ndarray, light: np.ndarray = LIGHT) -> Image:
    """The bare face [PX, PX, 3] under a light; gray where there is no face."""
    warper = Warper(points, PX, PX)
    at = warper.crop.from_unit(warper.source)
    depth, found = rasterize(at, normals(at), head().triangles[: head().num_face], PX)
    brightness = np.where(np.isfinite(depth), np.exp(BASE + found @ light), 110)
    return np.repeat(np.rint(brightness)[..., None], 3, -1).astype(np.uint8)


def inside(points: np.ndarray) -> np.ndarray:
    """[PX, PX] whether a pixel is well inside the face."""
    mask = np.zeros((PX, PX), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(points[OVAL, :2]).astype(np.int32)), 1)
    return cv2.erode(mask, np.ones((25, 25), np.uint8)) > 0


def test_the_light_of_a_photo_is_found() -> None:
    points = frontal()
    warper = Warper(points, PX, PX)
    found = light_of(lit(points), points, warper.normals[:NUM_POINTS])
    # The ridge shrinks the coefficients; their direction remains.
    assert found @ LIGHT / (np.linalg.norm(found) * np.linalg.norm(LIGHT)) > 0.9
    assert 0.6 < found[0] / LIGHT[0] < 1.02
    even = light_of(lit(points, 0 * LIGHT), points, warper.normals[:NUM_POINTS])
    assert np.abs(even).max() < 0.02


def test_a_beard_is_not_taken_for_light_from_above() -> None:
    points = frontal()
    bearded = lit(points, 0 * LIGHT)
    bearded[int(points[0, 1]) :] //= 4
    found = light_of(bearded, points, Warper(points, PX, PX).normals[:NUM_POINTS])
    assert np.abs(found[0]) < 0.05 and np.abs(found[1]) < 0.8  # ln 4 is 1.4


@pytest.mark.parametrize("angles", [{"yaw": 20.0}, {"yaw": -20.0}, {"pitch": 15.0}, {"pitch": -12.0}])
def test_a_turned_face_is_lit_like_the_turned_face_itself(angles: dict[str, float]) -> None:
    """Without shading, the light turns with the head; with it, most of that error is gone."""
    points = frontal()
    target = turned(points, **angles)
    photo, expected = lit(points), lit(target).astype(float)
    warper = Warper(points, PX, PX)
    painter, flow = Painter(photo, warper), warper.flow(target)
    np.testing.assert_allclose(flow.rotation, skull_motion(points, target).rotation, atol=1e-5)
    seen = inside(target)
    wrong, right = (
        np.abs(image.astype(float) - expected)[seen].mean()
        for image in (painter.carry(photo, flow), painter.paint(flow))
    )
    assert wrong > 2 and right < 0.65 * wrong


def test_shading_ends_with_the_face_and_has_no_edges() -> None:
    points = frontal()
    photo = lit(points)
    warper = Warper(points, PX, PX)
    painter, target = Painter(photo, warper), turned(points, yaw=20)
    gain = painter.gain(warper.flow(target))
    assert gain is not None and np.abs(gain - 1).max() > 0.05
    assert np.abs(np.diff(gain, axis=0)).max() < 0.03 and np.abs(np.diff(gain, axis=1)).max() < 0.03
    assert (gain[[0, -1]] == 1).all() and (gain[:, [0, -1]] == 1).all()


def test_a_face_that_does_not_turn_is_not_shaded() -> None:
    points = frontal()
    photo = lit(points)
    warper = Warper(points, PX, PX)
    painter = Painter(photo, warper)
    assert painter.gain(warper.flow(points)) is None
    assert painter.gain(warper.flow(points + np.float32([6, 3, 0]))) is None  # moved, not turned
    np.testing.assert_array_equal(painter.paint(warper.flow(points)), photo)


def test_the_networks_window_shows_the_same_shading_as_the_frame() -> None:
    points = frontal()
    warper = Warper(points, PX, PX)
    painter, flow = Painter(lit(points), warper), warper.flow(turned(points, yaw=18))
    canvas = Canvas.of(lit(points), warper.crop)
    whole = painter.paint(flow)
    part = painter.window(flow, (), canvas.crop, 128)
    expected = canvas.crop.cut(whole, 128)
    assert np.abs(part.astype(int) - expected)[32:96, 32:96].mean() < 0.5


@pytest.mark.parametrize("by", [(0.45, 0.0), (0.0, -0.9), (-0.5, 0.0), (0.0, 0.6), (2.0, 2.0)])
def test_a_face_may_leave_the_picture(by: tuple[float, float]) -> None:
    points = frontal()
    warper = Warper(points, PX, PX)
    painter = Painter(lit(points), warper)
    flow = warper.flow(turned(points, yaw=20) + np.float32([*by, 0]) * PX)
    assert painter.paint(flow).shape == (PX, PX, 3)
    for left in (-0.9, 0.0, 0.9):  # of a window in which the face may not be
        square = Crop(left * PX, 0.0, PX)
        assert painter.window(flow, (), square, 64).shape == (64, 64, 3)
