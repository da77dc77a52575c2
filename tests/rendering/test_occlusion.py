"""occlusion.py: the ear that a turned head hides is known, found in the photo, and removed from the result."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from conftest import turned
from mimik.face.landmarks import NUM_POINTS, OVAL, Face, Image, Pose, canonical_mesh, head_pose
from mimik.motion.frames import rotation_matrix
from mimik.rendering.flow import Warper
from mimik.rendering.head_mesh import head
from mimik.rendering.occlusion import covered_by_jaw, ear_mask, hidden_ears
from mimik.rendering.painter import Painter

PX = 512
SKIN, HAIR = 180, 40


def drawn(points: np.ndarray, *, width_cm: float = 1.0, brightness: int = SKIN) -> tuple[Image, np.ndarray]:
    """A face with something beside it at the height of the ears; picture and matte."""
    pose = head_pose(points)
    hull = cv2.convexHull(np.round(points[:, :2]).astype(np.int32))
    matte, face = np.zeros((PX, PX), np.uint8), np.zeros((PX, PX), np.uint8)
    cv2.fillConvexPoly(face, hull, 255)
    middle = pose.apply(np.zeros(3))[1]
    reach = np.array([width_cm, 3.0]) * pose.scale
    low, high = hull[:, 0].min(0), hull[:, 0].max(0)
    corners = [low[0] - reach[0], middle - reach[1]], [high[0] + reach[0], middle + reach[1]]
    cv2.rectangle(matte, *(np.round(corner).astype(int).tolist() for corner in corners), 255, -1)
    gray = np.where(matte > 0, brightness, 120).astype(np.uint8)
    gray[face > 0] = SKIN
    return np.repeat(gray[..., None], 3, -1), np.maximum(matte, face)


def test_an_opened_jaw_covers_the_neck_below_it() -> None:
    """By hand: the chin is at 9.4 cm, the rings of the neck are at 11.5 and 15 cm; a crop of 40 cm."""
    mesh = np.concatenate([canonical_mesh().vertices, np.zeros((10, 3)), head().shell])
    lower = np.intersect1d(OVAL, np.flatnonzero(mesh[:, 1] > 8))
    rings = np.flatnonzero((head().hair < 0.5) & (np.abs(head().shell[:, 0]) < 1)) + NUM_POINTS
    np.testing.assert_allclose(mesh[rings, 1], [11.5] * 3 + [15] * 1)
    for drop_cm, share in ((0, 0), (1, 0), (2.1, 0.5), (4, 1)):
        opened = mesh / 40
        opened[lower, 1] += drop_cm / 40
        covered = covered_by_jaw(opened)
        np.testing.assert_allclose(covered[rings], [share] * 3 + [0], atol=0.1)
        assert covered[:NUM_POINTS].max() == covered[NUM_POINTS:][head().hair >= 0.5].max() == 0


@pytest.mark.parametrize(("yaw", "share"), [(0, 0), (8, 0), (25, 1), (-25, 1)])
def test_an_ear_is_hidden_by_a_turn_away(yaw: float, share: float) -> None:
    """By hand: at 8 degrees the edge of the ear (8.6, 4.5) is at 7.89 cm, that of the face (7.74, 2.01) at 7.39; at 25
    degrees at 5.89 and 6.17."""
    pose = Pose(rotation_matrix(np.array([0, -np.radians(yaw), 0])), np.array([0.5, 0.5, 0]), 0.02)
    found = hidden_ears(pose, 0.04)
    assert [ear.share for ear in found] == [share] * bool(share)
    if found:
        (ear,) = found
        assert ear.side == (yaw > 0) and (ear.low < ear.high).all()
        assert (ear.low[0] > 0.5) == (yaw > 0)


def test_the_ear_fades_with_the_turn() -> None:
    shares = []
    for yaw in np.arange(10, 26, 1.0):
        ears = hidden_ears(Pose(rotation_matrix(np.array([0, -np.radians(yaw), 0])), np.zeros(3), 0.02), 0.04)
        shares.append(sum(ear.share for ear in ears))
    assert (np.diff(shares) >= 0).all() and np.diff(shares).max() < 0.25


@pytest.mark.parametrize("scale", [1, 3])
def test_the_mask_is_the_ear_beside_the_face(portrait_face: Face, scale: int) -> None:
    picture, matte = drawn(portrait_face.points)
    picture, matte = (cv2.resize(plane, None, fx=scale, fy=scale) for plane in (picture, matte))
    pose = head_pose(portrait_face.points)
    pose = Pose(pose.rotation, pose.translation * scale, pose.scale * scale)
    for side, sign in enumerate((-1, 1)):
        mask = ear_mask(picture, matte, portrait_face.points * scale, pose, side)
        assert mask is not None
        edge = [portrait_face.points[:, 0].min(), portrait_face.points[:, 0].max()]
        middle = pose.apply(np.zeros(3))[1]
        for x_cm, y_cm, expected in ((0.6, 0, 255), (-1, 0, 0), (0.6, 6, 0), (0.6, -8, 0)):
            column = int(edge[side] * scale + sign * x_cm * pose.scale)
            assert mask[int(middle + y_cm * pose.scale), column] == expected, (side, x_cm, y_cm)
        assert not mask[:, int(sum(edge) / 2 * scale)].any()


@pytest.mark.parametrize("beside", [{"width_cm": 3.0}, {"brightness": HAIR}])
def test_hair_beside_the_face_is_not_an_ear(portrait_face: Face, beside: dict) -> None:
    picture, matte = drawn(portrait_face.points, **beside)
    assert ear_mask(picture, matte, portrait_face.points, head_pose(portrait_face.points), 0) is None


def test_no_line_of_the_ear_remains_along_the_far_cheek(portrait_face: Face) -> None:
    points = portrait_face.points
    picture, matte = drawn(points)
    warper = Warper(points, PX, PX, matte=matte / np.float32(255), free=(True, True, True))
    painter = Painter(picture, warper, matte=matte)
    target = turned(points, yaw=30)
    flow = warper.flow(target)
    assert len(flow.ears) == 1
    row, middle = head_pose(target).translation[[1, 0]].astype(int) - [painter.canvas.top, painter.canvas.left]
    widths = []
    for one in (flow, replace(flow, ears=())):
        painter.paint(one)
        shown = painter.moved_matte[row] / 255
        widths.append((shown[:middle].sum(), shown[middle:].sum()))
    (near, far), (near_before, far_before) = widths
    assert near == near_before and far < far_before - 0.7
