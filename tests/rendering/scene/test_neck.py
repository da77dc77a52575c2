"""The neck behind the jaw of a turning head."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from conftest import turned
from mimik.face.landmarks import Face, head_pose
from mimik.rendering.field import GRID, grid_centers
from mimik.rendering.flow import Warper
from mimik.rendering.scene.neck import Neck

SKIN, WALL = np.array([200.0, 150, 120]), np.array([20, 60, 220], np.uint8)
# Half the width of a person at heights of the face frame, centimeters.
MAN = (-12, 7), (-2, 8), (4, 8), (7, 6), (8, 5.6), (11, 5.6), (12, 14), (30, 14)
COLLAR = (-12, 7), (-2, 8), (4, 6), (8, 9), (12, 14), (30, 14)
LONG_HAIR = (-12, 7), (-2, 8.8), (12, 8.8), (30, 14)
SHAPE = 256, 256


def matte_of(face: Face, outline: tuple[tuple[float, float], ...]) -> np.ndarray:
    """[H, W] matte of a person of this half width."""
    skull = head_pose(face.points)
    y, x = np.array(outline, float).T
    left, right = (np.column_stack([side * x, y, np.full(len(x), 2.0)]) for side in (-1, 1))
    polygon = skull.apply(np.concatenate([left, right[::-1]]))[:, :2]
    mask = np.zeros(SHAPE, np.uint8)
    cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1)
    return mask.astype(np.float32)


def neck_of(face: Face, outline: tuple[tuple[float, float], ...]) -> Neck:
    front = np.broadcast_to(SKIN.astype(np.uint8), (*SHAPE, 3)).copy()
    return Neck(front, matte_of(face, outline), face.points)


def test_a_turn_uncovers_skin_between_the_ear_and_the_neck(small_face: Face) -> None:
    neck, skull = neck_of(small_face, MAN), head_pose(small_face.points)
    for yaw, side in ((20, -1), (-20, 1)):
        behind = np.broadcast_to(WALL, (*SHAPE, 3)).copy()
        alpha, part = np.zeros(SHAPE, np.uint8), behind.copy()
        neck.lay(part, behind, alpha, turned(small_face.points, yaw), np.zeros(2))
        # Where the photo shows the neck, and above it; not beside it.
        for height in (5.5, 7.5):
            inside, beside = (skull.apply(np.array([side * x, height, 2.0]))[:2].astype(int) for x in (5.1, 8.8))
            assert (
                np.abs(part[inside[1], inside[0]] / part[inside[1], inside[0]].sum() - SKIN / SKIN.sum()).max() < 0.01
            )
            assert 0.7 * SKIN.sum() < part[inside[1], inside[0]].sum() < 1.01 * SKIN.sum()
            assert (part[beside[1], beside[0]] == WALL).all()
        assert not alpha.any()


@pytest.mark.parametrize("yaw", [28, -28])
def test_the_edge_meets_that_of_the_warped_neck(small_face: Face, yaw: float) -> None:
    """Where the neck is narrowest just below the jaw, its edge moves with the head."""
    outline = (-12, 7), (-2, 8), (4, 8), (6, 5.6), (8, 8), (12, 14), (30, 14)
    matte, skull = matte_of(small_face, outline), head_pose(small_face.points)
    target = turned(small_face.points, yaw)
    warper = Warper(small_face.points, SHAPE[1], SHAPE[0], matte=matte, free=(True, True, True))
    at = warper.crop.from_unit(grid_centers() + warper.flow(target).offset.reshape(-1, 2)).reshape(GRID, GRID, 2)
    warped = cv2.remap(matte, at.astype(np.float32) - 0.5, None, cv2.INTER_LINEAR)
    layers = list(neck_of(small_face, outline).layers(target, np.zeros(2), (*SHAPE, 3)))
    (rows, columns), _, share = layers[0 if yaw > 0 else -1]
    covered = np.zeros(SHAPE)
    covered[rows, columns] = share[..., 0] * 255
    covered = warper.crop.cut(covered.astype(np.float32), GRID)
    row = int(warper.crop.to_unit(skull.apply(np.array([0.0, 6.0, 2.0]))[None])[0, 1] * GRID)
    ends = [np.flatnonzero(mask[row] > 0.5)[0 if yaw > 0 else -1] for mask in (warped, covered)]
    assert abs(ends[0] - ends[1]) * warper.crop.side / GRID < 0.8 * skull.scale


def test_nothing_is_drawn_over_the_head_or_without_a_turn(small_face: Face) -> None:
    neck = neck_of(small_face, MAN)
    behind = np.broadcast_to(WALL, (*SHAPE, 3)).copy()
    for alpha, yaw in ((np.full(SHAPE, 255, np.uint8), 20), (np.zeros(SHAPE, np.uint8), 0)):
        part = np.full((*SHAPE, 3), 77, np.uint8)
        neck.lay(part, behind, alpha, turned(small_face.points, yaw), np.zeros(2))
        assert (part == 77).all()


@pytest.mark.parametrize("outline", [COLLAR, LONG_HAIR])
def test_no_layer_where_the_photo_shows_no_edge_of_a_neck(
    small_face: Face, outline: tuple[tuple[float, float], ...]
) -> None:
    behind = np.broadcast_to(WALL, (*SHAPE, 3)).copy()
    part = behind.copy()
    neck_of(small_face, outline).lay(
        part, behind, np.zeros(SHAPE, np.uint8), turned(small_face.points, 20), np.zeros(2)
    )
    assert (part == behind).all()


def test_the_same_over_nothing_as_over_a_background(small_face: Face) -> None:
    neck, target = neck_of(small_face, MAN), turned(small_face.points, 20)
    head = np.full((*SHAPE, 3), 90, np.uint8)
    alpha = np.full(SHAPE, 102, np.uint8)  # 0.4
    behind = np.broadcast_to(WALL, (*SHAPE, 3)).copy()
    over = np.rint(0.4 * head + 0.6 * behind).astype(np.uint8)
    neck.lay(over, behind, alpha.copy(), target, np.zeros(2))
    moved = alpha.copy()
    neck.lay(head, None, moved, target, np.zeros(2))
    assert (moved >= alpha).all()
    assert moved.max() == 255
    share = moved[..., None] / 255
    np.testing.assert_allclose(share * head + (1 - share) * behind, over, atol=2)


def test_a_part_of_the_photo_shows_the_same(small_face: Face) -> None:
    neck, target = neck_of(small_face, MAN), turned(small_face.points, -15)
    behind = np.broadcast_to(WALL, (*SHAPE, 3)).copy()
    whole, part = behind.copy(), behind[60:, 90:].copy()
    neck.lay(whole, behind, np.zeros(SHAPE, np.uint8), target, np.zeros(2))
    neck.lay(part, behind[60:, 90:], np.zeros(part.shape[:2], np.uint8), target, np.array([90, 60]))
    assert (whole != behind).any()
    np.testing.assert_array_equal(part, whole[60:, 90:])
