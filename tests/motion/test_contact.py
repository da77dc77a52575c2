"""Contact of lips and eyelids, in every photo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conftest import eyes_closed
from mimik.arrays import Float
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Pose, head_pose
from mimik.motion.contact import (
    eyelid_openings,
    lip_openings,
    with_chin_below_lip,
    with_eyelid_openings,
    with_lip_openings,
)
from mimik.motion.frames import split
from mimik.motion.retargeting import Retarget
from shapes import a_face, canonical_shape, closed_lips, opened, reference_of, still


def test_a_drivers_closed_lips_close_an_open_mouth(no_leak: None, portrait_face: Face) -> None:
    assert lip_openings(head_pose(portrait_face.points).invert(portrait_face.points)).max() > 0.08  # she smiles
    driver = reference_of(opened(canonical_shape()))
    closed = head_pose(portrait_face.points).invert(Retarget(portrait_face, driver)(still()))
    assert np.abs(lip_openings(closed)).max() < 0.02
    before = head_pose(portrait_face.points).invert(portrait_face.points)
    outer = [faces.LIPS_OUTER_UPPER[5], faces.LIPS_OUTER_LOWER[5]]
    for point, side in zip(outer, (1, -1), strict=True):  # the outer lips follow, so that the lips keep their thickness
        assert side * (closed[point, 1] - before[point, 1]) > 0.05
    upper, lower = faces.LIPS_INNER_UPPER[5], faces.LIPS_INNER_LOWER[5]
    for inner, out in ((upper, outer[0]), (lower, outer[1])):
        thick = abs(before[inner, 1] - before[out, 1])
        assert abs(closed[inner, 1] - closed[out, 1]) == pytest.approx(thick, rel=0.25)


@pytest.mark.parametrize("opening", [0.05, 0.15, 0.3])
def test_the_mouth_opens_as_far_as_the_drivers(no_leak: None, small_face: Face, opening: float) -> None:
    shape = opened(canonical_shape())
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    profile = opening * np.sin(np.linspace(0, np.pi, 11))[1:-1]
    motion_frame = split(a_face(pose.apply(with_lip_openings(shape, profile))), reference_of(shape), pose)
    for face in (small_face, closed_lips(small_face)):
        out = head_pose(face.points).invert(Retarget(face, reference_of(shape))(motion_frame))
        assert 0.85 * opening < lip_openings(out).max() < 1.22 * opening  # her mouth is wider


def test_a_parted_neutral_of_an_old_file_counts_from_contact(no_leak: None, small_face: Face) -> None:
    shape = opened(canonical_shape())
    parted = with_lip_openings(shape, np.full(9, 0.06))
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    face = closed_lips(small_face)
    motion_frame = split(a_face(pose.apply(shape)), reference_of(parted), pose)
    shut = head_pose(face.points).invert(Retarget(face, reference_of(parted))(motion_frame))
    assert lip_openings(shut).max() < 0.02
    rest = head_pose(face.points).invert(Retarget(face, reference_of(parted))(still()))
    assert 0.03 < lip_openings(rest).max() < 0.09


def test_half_shut_eyes_of_a_photo_shut_too(no_leak: None, small_face: Face) -> None:
    pose = head_pose(small_face.points)
    own = pose.invert(small_face.points)
    half = replace(small_face, points=pose.apply(with_eyelid_openings(own, 0.4 * eyelid_openings(own))))
    shape = opened(canonical_shape())
    driver = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    motion_frame = split(a_face(driver.apply(eyes_closed(shape))), reference_of(shape), driver)
    retarget = Retarget(half, reference_of(shape))
    shut = eyelid_openings(pose.invert(retarget(motion_frame)))
    assert shut.max() < 0.05 * eyelid_openings(own).max()
    np.testing.assert_allclose(eyelid_openings(pose.invert(retarget(still()))), 0.4 * eyelid_openings(own), atol=1e-3)


def test_nothing_pops_on_the_way_to_contact(no_leak: None, small_face: Face) -> None:
    shape = opened(canonical_shape())
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    retarget = Retarget(closed_lips(small_face), reference_of(shape))
    own = head_pose(small_face.points)
    path = []
    for amount in np.linspace(-0.02, 0.1, 121):
        moved = with_eyelid_openings(with_lip_openings(shape, np.full(9, amount)), 10 * amount * eyelid_openings(shape))
        path.append(own.invert(retarget(split(a_face(pose.apply(moved)), reference_of(shape), pose))))
    lips = np.array([lip_openings(s).max() for s in path])
    lids = np.array([eyelid_openings(s).mean() for s in path])
    for values, whole in ((lips, 0.1), (lids, lids.max())):
        assert np.diff(values).min() > -1e-6
        assert np.diff(values).max() < 0.03 * whole


def test_a_lower_lip_stays_above_the_chin() -> None:
    shape = canonical_shape()
    lip = faces.LIPS_OUTER_LOWER[5]

    def above(one: Float) -> float:
        return float(one[faces.CHIN, 1] - one[lip, 1])

    profile = 0.6 * np.sin(np.linspace(0, np.pi, 11))[1:-1]
    wide = with_lip_openings(shape, profile)
    held = with_chin_below_lip(wide, shape)
    assert above(wide) < 0.6 * above(shape)
    assert above(held) == pytest.approx(0.68 * above(shape), rel=0.05)
    assert held[faces.CHIN, 1] > wide[faces.CHIN, 1]  # both move
    assert held[lip, 1] < wide[lip, 1]
    upper = [*faces.LIPS_OUTER_UPPER[1:-1], *faces.LIPS_INNER_UPPER[1:-1]]
    np.testing.assert_array_equal(held[upper], wide[upper])
    np.testing.assert_array_equal(with_chin_below_lip(shape, shape), shape)


def test_a_jaw_that_is_held_leaves_the_upper_lip(no_leak: None, small_face: Face) -> None:
    shape = opened(canonical_shape())
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    upper = []
    for opening in (0.45, 1.5):
        profile = opening * np.sin(np.linspace(0, np.pi, 11))[1:-1]
        wide = with_lip_openings(shape, profile, upper_lip=0)
        motion_frame = split(a_face(pose.apply(wide)), reference_of(shape), pose)
        out = head_pose(small_face.points).invert(Retarget(small_face, reference_of(shape))(motion_frame))
        assert lip_openings(out).max() < 0.67
        upper.append(out[faces.LIPS_INNER_UPPER[5], 1])
    assert upper[1] < upper[0] + 0.05  # centimetres; y points down
