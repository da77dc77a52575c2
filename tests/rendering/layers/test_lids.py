"""lids.py: eyes shut where their lids touch, and lids are skin."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from conftest import eyes_closed
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image, Landmarker
from mimik.rendering import flow as flow_module
from mimik.rendering.flow import Warper
from mimik.rendering.head_mesh import LIDS_OF_EYES
from mimik.rendering.painter import Painter


def pictured_opening(landmarker: Landmarker, picture: Image, near: Face) -> float:
    points = landmarker.follow(picture, near).points
    return float(np.linalg.norm(points[faces.RIGHT_EYE_UPPER] - points[faces.RIGHT_EYE_LOWER], axis=1).sum())


@pytest.mark.parametrize("gap", [0.0, -0.02])
def test_an_eye_shuts_where_its_lids_touch_or_cross(
    landmarker: Landmarker, warper: Warper, painter: Painter, portrait_face: Face, gap: float
) -> None:
    """The landmarker's lids of shut eyes lie on each other, or cross by a few hundredths of the eye's width."""
    shut = eyes_closed(portrait_face.points, 1.0).astype(np.float64)
    for upper, lower in LIDS_OF_EYES:
        middle = (shut[upper] + shut[lower]) / 2
        half = np.array([0, gap / 2 * np.linalg.norm(shut[upper[0]] - shut[upper[-1]]), 0])
        shut[upper[1:-1]], shut[lower[1:-1]] = (middle - half)[1:-1], (middle + half)[1:-1]
    open_before = pictured_opening(landmarker, painter.paint(warper.flow(portrait_face.points)), portrait_face)
    assert pictured_opening(landmarker, painter.paint(warper.flow(shut)), portrait_face) < 0.45 * open_before


def test_a_lid_that_comes_down_is_no_darker_than_skin_but_for_its_lashes(
    portrait: Image, portrait_face: Face, warper: Warper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_module, "_LASHES", 0.0)  # so that what is dark is stretched
    dark = portrait.copy()  # make-up around both eyes
    for upper, lower in LIDS_OF_EYES:
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
