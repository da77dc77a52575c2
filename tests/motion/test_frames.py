"""Separation of pose and expression, against synthetic rigid motions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimik.face import landmarks as faces
from mimik.face.landmarks import NUM_POINTS, Pose
from mimik.motion import expression
from mimik.motion.expression import expression_basis
from mimik.motion.frames import MotionFrame, rotation_matrix, rotation_vector, split
from shapes import a_face, angles, canonical_shape, reference_of

# Rotations.


@settings(max_examples=40, deadline=None)
@given(st.tuples(angles, angles, angles))
def test_rotation_there_and_back(vector: tuple[float, float, float]) -> None:
    matrix = rotation_matrix(np.array(vector))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(1)
    np.testing.assert_allclose(rotation_vector(matrix), vector, atol=1e-6)


def test_rotation_of_a_quarter_turn() -> None:
    quarter = rotation_matrix(np.array([0, 0, math.pi / 2]))
    np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_array_equal(rotation_vector(np.eye(3)), np.zeros(3))


# Separation.


@settings(max_examples=20, deadline=None)
@given(
    turn=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    shift=st.tuples(*[st.floats(-4, 4)] * 3),
    zoom=st.floats(-0.3, 0.3),
)
def test_split_of_a_rigid_motion(turn: tuple, shift: tuple, zoom: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        exact = replace(expression_basis(), by_pose=np.zeros((5, NUM_POINTS, 3)))
        patch.setattr(expression, "expression_basis", lambda: exact)
        shape = canonical_shape()
        origin = Pose(np.eye(3), np.array([320.0, 240.0, 0.0]), 12.0)
        pose = Pose(rotation_matrix(np.array(turn)), origin.translation + 12 * np.array(shift), 12 * math.exp(zoom))
        motion_frame = split(a_face(pose.apply(shape)), reference_of(shape), origin)
    np.testing.assert_allclose(motion_frame.turn, turn, atol=1e-4)
    np.testing.assert_allclose(motion_frame.shift, shift, atol=1e-3)
    assert motion_frame.zoom == pytest.approx(zoom, abs=1e-4)
    np.testing.assert_allclose(motion_frame.offset, 0, atol=1e-3)
    assert motion_frame.seen


def test_split_finds_the_expression_on_a_moved_head(no_leak: None) -> None:
    shape = canonical_shape()
    expression = np.zeros((NUM_POINTS, 3))
    expression[faces.CHIN] = [0, 1.5, 0]
    pose = Pose(rotation_matrix(np.array([0.1, -0.3, 0.2])), np.array([300.0, 200.0, 0.0]), 11.0)
    motion_frame = split(a_face(pose.apply(shape + expression)), reference_of(shape), pose)
    np.testing.assert_allclose(motion_frame.offset, expression, atol=1e-3)


def test_split_takes_the_landmarkers_own_error_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # A landmark detector that lengthens the chin with the square of the yaw.
    by_pose = np.zeros((5, NUM_POINTS, 3))
    by_pose[2, faces.CHIN] = [0, 2.0, 0]
    wrong = replace(expression_basis(), by_pose=by_pose)
    monkeypatch.setattr(expression, "expression_basis", lambda: wrong)
    shape, yaw = canonical_shape(), 0.4
    seen = shape.copy()
    seen[faces.CHIN, 1] += 2.0 * yaw**2
    pose = Pose(rotation_matrix(np.array([0, -yaw, 0])), np.array([300.0, 200.0, 0.0]), 11.0)
    motion_frame = split(a_face(pose.apply(seen)), reference_of(shape), pose)
    np.testing.assert_allclose(motion_frame.offset, 0, atol=1e-3)


def test_split_of_the_neutral_face_is_nothing() -> None:
    shape = canonical_shape()
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    motion_frame = split(a_face(pose.apply(shape)), reference_of(shape), pose)
    for value in (motion_frame.turn, motion_frame.shift, motion_frame.zoom, motion_frame.offset):
        np.testing.assert_allclose(value, 0, atol=1e-4)


def test_a_motion_frame_scales() -> None:
    motion_frame = MotionFrame(np.ones(3), np.full(3, 2.0), 0.5, np.full((NUM_POINTS, 3), 3.0), np.ones(52))
    twice, none = motion_frame.scaled(2), motion_frame.scaled(0)
    assert (twice.turn[0], twice.shift[0], twice.zoom, twice.offset[0, 0]) == (2, 4, 1, 6)
    assert not any(np.any(x) for x in (none.turn, none.shift, none.zoom, none.offset))
