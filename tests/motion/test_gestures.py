"""motion.py against motions made by hand, slow references, and what a person's face must never do."""

from __future__ import annotations

import io
import json
import math
import tracemalloc
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import eyes_closed, mouth_opened, turned
from mimik.config import REGIONS, InputError, NoFaceError
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, NUM_POINTS, Face, Pose, canonical_mesh, head_pose
from mimik.motion import expression, retargeting
from mimik.motion.contact import (
    closed_mouth,
    eye_distance,
    eyelid_openings,
    lip_openings,
    with_eyelid_openings,
    with_lip_openings,
)
from mimik.motion.gestures import (
    Gesture,
    Motion,
    OneEuro,
    Reference,
    Retarget,
    Smoother,
    bundled_motions,
    expression_basis,
    find_neutral,
    gesture_of_photo,
    rotation_matrix,
    rotation_vector,
    smoothed,
    split,
    stream_gestures,
)

FPS = 25.0
EYES = ((faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER), (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER))
angles = st.floats(-1.7, 1.7)


def canonical_shape() -> np.ndarray:
    """[478, 3] the canonical face, lips touching, with irises in the middle of its eyes, centimetres."""
    mesh = canonical_mesh().vertices
    irises = []
    for a, b in ((33, 133), (362, 263)):
        middle = mesh[[a, b]].mean(0)
        irises += [middle + 0.55 * np.array(d) for d in ((0, 0, 0), (1, 0, 0), (0, -1, 0), (-1, 0, 0), (0, 1, 0))]
    return closed_mouth(np.concatenate([mesh, irises]), np.zeros(52))


def closed_lips(face: Face) -> Face:
    """The same face with lips that touch."""
    pose = head_pose(face.points)
    shape = closed_mouth(pose.invert(face.points), face.blendshapes)
    return replace(face, points=pose.apply(shape).astype(np.float32))


def opened(shape: np.ndarray, height: float = 1.0) -> np.ndarray:
    """A face with open eyes: the canonical one looks half asleep."""
    out = shape.copy()
    for _, lower in EYES:
        out[lower] += np.array([0, 1, 0]) * height * 0.4 * np.sin(np.linspace(0, np.pi, 9))[:, None]
    return out


def a_face(points: np.ndarray, **blendshapes: float) -> Face:
    values = np.array([blendshapes.get(name, 0.0) for name in BLENDSHAPES], np.float32)
    return Face(points.astype(np.float32), values, 1.0)


def still() -> Gesture:
    return Gesture(np.zeros(3), np.zeros(3), 0.0, np.zeros((NUM_POINTS, 3)), np.zeros(52))


def reference_of(shape: np.ndarray) -> Reference:
    return Reference(shape, np.eye(3), np.zeros(52))


def gap(shape: np.ndarray, upper: list[int], lower: list[int]) -> float:
    """Opening of a mouth or an eye, as it is seen: added up over its points."""
    return float(np.linalg.norm((shape[upper] - shape[lower])[:, :2], axis=1).sum())


@pytest.fixture
def no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the landmarker measured turned heads without a systematic error."""
    exact = replace(expression_basis(), by_pose=np.zeros((5, NUM_POINTS, 3)))
    monkeypatch.setattr(expression, "expression_basis", lambda: exact)


@pytest.fixture(scope="module")
def gestures(driver_faces: list[Face]) -> tuple[Reference, list[Gesture]]:
    reference, stream = stream_gestures(driver_faces, FPS, smooth=0)
    return reference, list(stream)


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


# Splitting.


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
        gesture = split(a_face(pose.apply(shape)), reference_of(shape), origin)
    np.testing.assert_allclose(gesture.turn, turn, atol=1e-4)
    np.testing.assert_allclose(gesture.shift, shift, atol=1e-3)
    assert gesture.zoom == pytest.approx(zoom, abs=1e-4)
    np.testing.assert_allclose(gesture.offset, 0, atol=1e-3)
    assert gesture.seen


def test_split_finds_the_expression_on_a_moved_head(no_leak: None) -> None:
    shape = canonical_shape()
    expression = np.zeros((NUM_POINTS, 3))
    expression[faces.CHIN] = [0, 1.5, 0]
    pose = Pose(rotation_matrix(np.array([0.1, -0.3, 0.2])), np.array([300.0, 200.0, 0.0]), 11.0)
    gesture = split(a_face(pose.apply(shape + expression)), reference_of(shape), pose)
    np.testing.assert_allclose(gesture.offset, expression, atol=1e-3)


def test_split_takes_the_landmarkers_own_error_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # A landmarker that lengthens the chin with the square of the yaw.
    by_pose = np.zeros((5, NUM_POINTS, 3))
    by_pose[2, faces.CHIN] = [0, 2.0, 0]
    wrong = replace(expression_basis(), by_pose=by_pose)
    monkeypatch.setattr(expression, "expression_basis", lambda: wrong)
    shape, yaw = canonical_shape(), 0.4
    seen = shape.copy()
    seen[faces.CHIN, 1] += 2.0 * yaw**2
    pose = Pose(rotation_matrix(np.array([0, -yaw, 0])), np.array([300.0, 200.0, 0.0]), 11.0)
    gesture = split(a_face(pose.apply(seen)), reference_of(shape), pose)
    np.testing.assert_allclose(gesture.offset, 0, atol=1e-3)


def test_split_of_the_neutral_face_is_nothing() -> None:
    shape = canonical_shape()
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    gesture = split(a_face(pose.apply(shape)), reference_of(shape), pose)
    for value in (gesture.turn, gesture.shift, gesture.zoom, gesture.offset):
        np.testing.assert_allclose(value, 0, atol=1e-4)


def test_a_gesture_scales() -> None:
    gesture = Gesture(np.ones(3), np.full(3, 2.0), 0.5, np.full((NUM_POINTS, 3), 3.0), np.ones(52))
    twice, none = gesture.scaled(2), gesture.scaled(0)
    assert (twice.turn[0], twice.shift[0], twice.zoom, twice.offset[0, 0]) == (2, 4, 1, 6)
    assert not any(np.any(x) for x in (none.turn, none.shift, none.zoom, none.offset))


# The neutral face.


def test_find_neutral_picks_the_calm_frames() -> None:
    shape = canonical_shape()
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    talking = shape.copy()
    talking[[faces.CHIN, *faces.LIPS_INNER_LOWER, *faces.LIPS_OUTER_LOWER], 1] += 1.2
    calm, loud = a_face(pose.apply(shape)), a_face(pose.apply(talking), jawOpen=0.6)
    aside = a_face(turned(pose.apply(shape), yaw=25))
    driver = [loud] * 20 + [calm] * 4 + [aside] * 6 + [loud] * 10
    reference = find_neutral(driver)
    np.testing.assert_allclose(reference.shape - reference.shape[4], shape - shape[4], atol=0.02)
    np.testing.assert_allclose(reference.rotation, np.eye(3), atol=1e-3)
    np.testing.assert_array_equal(reference.blendshapes, np.zeros(52))


def test_find_neutral_averages_the_noise_away() -> None:
    shape, rng = canonical_shape(), np.random.default_rng(0)
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    driver = [a_face(pose.apply(shape + rng.normal(0, 0.05, shape.shape))) for _ in range(120)]

    def error(reference: Reference) -> float:
        return float(np.sqrt(((reference.shape - shape - (reference.shape - shape).mean(0)) ** 2).mean()))

    assert error(find_neutral(driver)) < 0.5 * error(find_neutral(driver[:1]))


def test_find_neutral_of_one_calm_face_is_that_face(small_face: Face) -> None:
    calm = replace(closed_lips(small_face), blendshapes=expression_basis().neutral.astype(np.float32))
    reference = find_neutral([calm])
    pose = head_pose(calm.points)
    np.testing.assert_allclose(pose.apply(reference.shape), calm.points, atol=1e-3)
    np.testing.assert_array_equal(reference.blendshapes, calm.blendshapes)
    assert reference.note == ""


def test_the_neutral_of_the_driver_is_the_still_portrait(driver, driver_faces, small_face: Face) -> None:
    reference = find_neutral(driver_faces)
    apart = np.linalg.norm(reference.shape - head_pose(small_face.points).invert(small_face.points), axis=1)
    assert np.median(apart) < 0.15  # cm


def talking_faces(rest_gap: float, num: int = 50) -> list[Face]:
    """A driver whose brows are calm only while the mouth is open, and whose lips come as near as rest_gap, in cm."""
    shape, driver = canonical_shape(), []
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    shape = opened(shape)
    for i in range(num):
        gap_cm = rest_gap if i < num // 2 else 1.5
        jaw = 0.0 if i < num // 2 else 0.5
        brows = 0.8 if i < num // 2 else 0.0
        points = with_lip_openings(shape, np.full(9, gap_cm / eye_distance(shape)))
        points[faces.BROWS, 1] -= brows
        values = {"jawOpen": jaw, "browInnerUp": brows, "browOuterUpLeft": brows, "browOuterUpRight": brows}
        driver.append(a_face(pose.apply(points), **values))
    return driver


def test_each_region_is_neutral_in_its_own_frames() -> None:
    shape = opened(canonical_shape())
    reference = find_neutral(talking_faces(0.02))
    assert lip_openings(reference.shape).max() < 0.01  # from the first half
    np.testing.assert_allclose(reference.shape[faces.BROWS, 1], shape[faces.BROWS, 1], atol=0.05)  # from the second
    assert reference.blendshapes[BLENDSHAPES.index("browInnerUp")] == 0
    assert reference.note == ""


def test_lips_that_never_touch_are_brought_together_and_the_note_says_so() -> None:
    driver = talking_faces(0.8)
    reference = find_neutral(driver, [i / 25 for i in range(len(driver))])
    assert lip_openings(reference.shape).max() < 0.01
    assert "no frame of the driver's beginning shows calm lips that touch" in reference.note
    assert "brows at 1.0 s" in reference.note


def test_a_smile_that_never_ends_is_no_part_of_the_neutral_face() -> None:
    basis, shape = expression_basis(), opened(canonical_shape())
    smile = {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9}
    values = np.array([smile.get(name, 0.0) for name in BLENDSHAPES])
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    driver = [a_face(pose.apply(shape + basis.expression(values)), **smile)] * 10
    reference = find_neutral(driver)
    width, smiling = (np.linalg.norm(s[61] - s[291]) for s in (shape, shape + basis.expression(values)))
    assert np.linalg.norm(reference.shape[61] - reference.shape[291]) < width + 0.6 * (smiling - width)
    assert "lips" in reference.note


def test_the_opening_of_shut_lids_is_learned_from_a_blink() -> None:
    shape = opened(canonical_shape())
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    nearly = with_eyelid_openings(shape, 0.13 * eyelid_openings(shape))
    driver = [a_face(pose.apply(shape))] * 40 + [a_face(pose.apply(nearly), eyeBlinkLeft=0.7, eyeBlinkRight=0.7)] * 3
    assert find_neutral(driver).eyelids_touch == pytest.approx((0.13, 0.13), abs=0.01)
    assert find_neutral(driver[:40]).eyelids_touch == (0.085, 0.085)


def test_a_named_frame_is_the_neutral_face(small_face: Face) -> None:
    driver = talking_faces(0.02)
    reference, _ = stream_gestures(driver, 25.0, neutral_s=0.4)
    shape = opened(canonical_shape())
    assert np.abs(reference.shape[faces.BROWS, 1] - shape[faces.BROWS, 1] + 0.8).max() < 0.05  # raised, as asked for
    assert reference.note == "neutral face: the driver's at 0.4 s"
    late, _ = stream_gestures(driver, 25.0, lookahead_s=0.5, neutral_s=1.8)
    np.testing.assert_allclose(late.shape[faces.BROWS, 1], shape[faces.BROWS, 1], atol=0.05)
    with pytest.raises(InputError, match=r"--neutral 9: the driver lasts 2\.0 s; give a time within it"):
        stream_gestures(driver, 25.0, neutral_s=9)
    with pytest.raises(InputError, match="--neutral 1: the driver shows no face there"):
        stream_gestures([*driver[:20], *[None] * 15, *driver[35:]], 25.0, neutral_s=1)


# Contact.


def test_a_drivers_closed_lips_close_an_open_mouth(no_leak: None, portrait_face: Face) -> None:
    assert lip_openings(head_pose(portrait_face.points).invert(portrait_face.points)).max() > 0.08  # she smiles
    driver = reference_of(opened(canonical_shape()))
    closed = head_pose(portrait_face.points).invert(Retarget(portrait_face, driver)(still()))
    assert np.abs(lip_openings(closed)).max() < 0.02
    before = head_pose(portrait_face.points).invert(portrait_face.points)
    outer = [faces.LIPS_OUTER_UPPER[5], faces.LIPS_OUTER_LOWER[5]]
    for point, side in zip(outer, (1, -1), strict=True):  # the outer lips follow, and the lips keep their thickness
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
    gesture = split(a_face(pose.apply(with_lip_openings(shape, profile))), reference_of(shape), pose)
    for face in (small_face, closed_lips(small_face)):
        out = head_pose(face.points).invert(Retarget(face, reference_of(shape))(gesture))
        assert 0.85 * opening < lip_openings(out).max() < 1.22 * opening  # her mouth is wider


def test_a_parted_neutral_of_an_old_file_counts_from_contact(no_leak: None, small_face: Face) -> None:
    shape = opened(canonical_shape())
    parted = with_lip_openings(shape, np.full(9, 0.06))
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    face = closed_lips(small_face)
    gesture = split(a_face(pose.apply(shape)), reference_of(parted), pose)
    shut = head_pose(face.points).invert(Retarget(face, reference_of(parted))(gesture))
    assert lip_openings(shut).max() < 0.02
    rest = head_pose(face.points).invert(Retarget(face, reference_of(parted))(still()))
    assert 0.03 < lip_openings(rest).max() < 0.09


def test_half_shut_eyes_of_a_photo_shut_too(no_leak: None, small_face: Face) -> None:
    pose = head_pose(small_face.points)
    own = pose.invert(small_face.points)
    half = replace(small_face, points=pose.apply(with_eyelid_openings(own, 0.4 * eyelid_openings(own))))
    shape = opened(canonical_shape())
    driver = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    gesture = split(a_face(driver.apply(eyes_closed(shape))), reference_of(shape), driver)
    retarget = Retarget(half, reference_of(shape))
    shut = eyelid_openings(pose.invert(retarget(gesture)))
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


# Retargeting.


@pytest.mark.parametrize("regions", [REGIONS, ("pose",), ("lips",), ("eyes", "gaze")])
def test_the_neutral_gesture_leaves_the_photo_as_it_is(small_face: Face, regions: tuple[str, ...]) -> None:
    face = closed_lips(small_face)
    retarget = Retarget(face, reference_of(opened(canonical_shape())), regions=regions)
    assert np.abs(retarget(still()) - face.points).max() < 1e-6


def test_self_reenactment_gives_the_drivers_points(driver, driver_faces, gestures, small_face: Face) -> None:
    reference, stream = gestures
    retarget = Retarget(small_face, reference)
    width = small_face.width_px
    apart = []
    for gesture, points, yaw in zip(stream, driver.points, driver.yaw, strict=True):
        if yaw < 6:  # a turn is damped by what the landmarker measures of it
            apart.append(np.linalg.norm((retarget(gesture) - points)[:, :2], axis=1).mean() / width)
    assert np.median(apart) < 0.01
    assert max(apart) < 0.025


def test_self_reenactment_of_exact_points(no_leak: None, small_face: Face) -> None:
    pose = head_pose(small_face.points)
    shape = pose.invert(small_face.points)
    reference = Reference(shape, pose.rotation, small_face.blendshapes.astype(np.float64))
    retarget = Retarget(small_face, reference)
    for points in (
        turned(small_face.points, yaw=8),
        turned(small_face.points, pitch=-9, roll=5),
        mouth_opened(small_face.points, 0.06),
        small_face.points + np.array([5, -3, 0]),
    ):
        gesture = split(a_face(points), reference, pose)
        again = retarget(gesture)
        np.testing.assert_allclose(again[:, :2], points[:, :2], atol=0.02 * small_face.width_px)
        np.testing.assert_allclose(again[faces.SKULL, :2], points[faces.SKULL, :2], atol=0.01)


def test_the_drivers_identity_does_not_leak(no_leak: None, small_face: Face) -> None:
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    shape = canonical_shape()
    speaking = np.zeros_like(shape)
    speaking[[faces.CHIN, *faces.LIPS_OUTER_LOWER[2:-2], *faces.LIPS_INNER_LOWER[2:-2]]] = [0, 0.5, 0]
    results = []
    # A driver of whom only what expression moves is different: a long chin, thick lips.
    other = shape.copy()
    other[[faces.CHIN, 148, 377, 176, 400, 199, 175]] += [0, 1.0, 0.4]
    other[faces.LIPS_OUTER_LOWER[2:-2]] += [0, 0.4, 0]
    for neutral in (shape, other):
        reference = reference_of(neutral)
        gesture = split(a_face(pose.apply(neutral + speaking)), reference, pose)
        results.append(Retarget(small_face, reference)(gesture))
    np.testing.assert_allclose(results[0], results[1], atol=0.01)
    assert np.abs(results[0] - small_face.points).max() > 2


def test_a_larger_driver_in_his_picture_is_the_same_driver(small_face: Face) -> None:
    shape = canonical_shape()
    results = []
    for scale, at in ((11.0, [300.0, 200.0, 0.0]), (31.0, [900.0, 500.0, 0.0])):
        origin = Pose(np.eye(3), np.array(at), scale)
        moved = Pose(rotation_matrix(np.array([0.1, 0.2, 0])), origin.translation + 0.7 * scale, scale * 1.1)
        gesture = split(a_face(moved.apply(shape)), reference_of(shape), origin)
        results.append(Retarget(small_face, reference_of(shape))(gesture))
    np.testing.assert_allclose(results[0], results[1], atol=0.02)


@pytest.mark.parametrize("driver_eyes", [-0.6, 0.6, 1.6])
def test_a_closed_eye_closes_the_persons_eye(no_leak: None, small_face: Face, driver_eyes: float) -> None:
    shape = opened(canonical_shape(), driver_eyes)
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    gesture = split(a_face(pose.apply(eyes_closed(shape))), reference_of(shape), pose)
    closed = Retarget(small_face, reference_of(shape))(gesture)
    for upper, lower in EYES:
        left, before = (np.abs((p[upper] - p[lower])[:, 1]).sum() for p in (closed, small_face.points))
        assert left < 0.25 * before


@pytest.mark.parametrize("amount", [1.5, 3.0])
def test_lips_and_lids_never_cross(no_leak: None, small_face: Face, amount: float) -> None:
    offset = np.zeros((NUM_POINTS, 3))
    for upper, lower in ((faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER), *EYES):
        offset[upper[1:-1]] += [0, 1.0, 0]
        offset[lower[1:-1]] -= [0, 1.0, 0]
    retarget = Retarget(small_face, reference_of(opened(canonical_shape())), strength=amount)
    shape = head_pose(small_face.points).invert(retarget(replace(still(), offset=offset)))
    for upper, lower in ((faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER), *EYES):
        assert (shape[lower[1:-1], 1] - shape[upper[1:-1], 1]).min() >= -1e-9


def test_a_mouth_does_not_open_wider_than_mouths_do(small_face: Face) -> None:
    offset = np.zeros((NUM_POINTS, 3))
    offset[faces.LIPS_INNER_LOWER[1:-1]] += [0, 9.0, 0]
    shape = head_pose(small_face.points).invert(
        Retarget(small_face, reference_of(canonical_shape()))(replace(still(), offset=offset))
    )
    opening = (shape[faces.LIPS_INNER_LOWER, 1] - shape[faces.LIPS_INNER_UPPER, 1]).max()
    assert 0.3 < opening / np.linalg.norm(shape[61] - shape[291]) < 0.75


def all_moving() -> Gesture:
    offset = np.random.default_rng(0).normal(0, 0.15, (NUM_POINTS, 3))
    return Gesture(np.array([0.05, 0.1, 0.05]), np.array([0.5, 0.3, 0.0]), 0.05, offset, np.zeros(52))


@pytest.mark.parametrize(
    ("region", "own", "foreign"),
    [
        ("lips", faces.LIPS, [*faces.EYES, *faces.BROWS, *faces.IRISES]),
        ("eyes", faces.EYES, [*faces.LIPS, *faces.BROWS, *faces.IRISES]),
        ("brows", faces.BROWS, [*faces.LIPS, *faces.EYES, *faces.IRISES]),
        ("gaze", faces.IRISES, sorted(set(range(NUM_POINTS)) - set(faces.IRISES))),
    ],
)
def test_a_region_moves_its_own_points_only(small_face: Face, region: str, own: list, foreign: list) -> None:
    points = Retarget(small_face, reference_of(canonical_shape()), regions=(region,))(all_moving())
    moved = np.linalg.norm(points - small_face.points, axis=1)
    assert np.median(moved[own]) > 0.3
    assert moved[foreign].max() < 1e-6


def test_regions_share_each_point_out() -> None:
    weights = sum(retargeting.region_weights().values())
    assert weights.max() <= 1 + 1e-9
    for index in (faces.LIPS, faces.EYES, faces.BROWS, faces.IRISES):
        np.testing.assert_allclose(weights[index], 1)


def test_pose_alone_moves_the_head_rigidly(small_face: Face) -> None:
    points = Retarget(small_face, reference_of(canonical_shape()), regions=("pose",))(all_moving())
    motion = faces.fit_similarity(small_face.points, points)
    np.testing.assert_allclose(motion.apply(small_face.points), points, atol=1e-3)
    assert np.abs(points - small_face.points).mean() > 2


def test_without_pose_the_skull_stands_still(small_face: Face) -> None:
    expression = tuple(name for name in REGIONS if name != "pose")
    gesture = replace(all_moving(), turn=np.full(3, 0.3), shift=np.full(3, 2.0), zoom=0.2)
    a = Retarget(small_face, reference_of(canonical_shape()), regions=expression)(gesture)
    b = Retarget(small_face, reference_of(canonical_shape()), regions=expression)(
        replace(gesture, turn=np.zeros(3), shift=np.zeros(3), zoom=0.0)
    )
    np.testing.assert_array_equal(a, b)


def test_strength(small_face: Face) -> None:
    offset = np.zeros((NUM_POINTS, 3))
    offset[faces.BROWS] = [0, -0.2, 0]
    gesture = Gesture(np.array([0.0, 0.1, 0.0]), np.array([0.3, 0.2, 0.0]), 0.02, offset, np.zeros(52))
    reference = reference_of(canonical_shape())
    none = Retarget(small_face, reference, strength=0)(gesture)
    assert np.abs(none - small_face.points).max() < 1e-6
    twice = Retarget(small_face, reference, strength=2)(gesture)
    np.testing.assert_allclose(twice, Retarget(small_face, reference)(gesture.scaled(2)), atol=1e-9)
    angle = [
        faces.skull_motion(small_face.points, Retarget(small_face, reference, strength=k)(gesture)).degrees[0]
        for k in (1, 2)
    ]
    assert angle[1] == pytest.approx(2 * angle[0], rel=0.01)
    assert angle[0] == pytest.approx(-math.degrees(0.1), abs=0.1)


def test_absolute_takes_the_drivers_pose(no_leak: None, small_face: Face) -> None:
    rotation = rotation_matrix(np.array([0.05, -0.2, 0.1]))
    reference = Reference(canonical_shape(), rotation, small_face.blendshapes.astype(np.float64))
    points = Retarget(small_face, reference, mode="absolute")(still())
    expected = Pose(rotation, np.zeros(3), 1.0).degrees
    assert head_pose(points).degrees == pytest.approx(expected, abs=1.5)


def test_absolute_takes_the_drivers_expression(small_face: Face) -> None:
    neutral = small_face.blendshapes.astype(np.float64)
    rotation = head_pose(small_face.points).rotation
    loud = neutral.copy()
    loud[BLENDSHAPES.index("jawOpen")] = 0.6
    shape = canonical_shape()
    wide = shape + 0.6 * expression_basis().by_blendshape[BLENDSHAPES.index("jawOpen")]
    quiet = Retarget(small_face, Reference(shape, rotation, neutral), mode="absolute")(still())
    open_ = Retarget(small_face, Reference(wide, rotation, loud), mode="absolute")(still())
    assert np.abs(quiet - small_face.points).max() < 0.05 * small_face.width_px
    lips = faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER
    assert gap(open_, *lips) > 10 * gap(quiet, *lips)


def test_a_frame_of_a_video_keeps_what_is_not_in_the_regions(small_face: Face) -> None:
    other = replace(small_face, points=(turned(small_face.points, yaw=10) + np.array([20, 5, 0])).astype(np.float32))
    retarget = Retarget(small_face, reference_of(canonical_shape()), regions=("lips",))
    points = retarget(all_moving(), other)
    rest = [*faces.EYES, *faces.BROWS, *faces.IRISES]
    np.testing.assert_allclose(points[rest], other.points[rest], atol=1e-3)
    assert np.abs(points[faces.LIPS] - other.points[faces.LIPS]).max() > 0.5


def test_a_frame_of_a_video_is_moved_where_it_is(small_face: Face) -> None:
    face = closed_lips(small_face)
    moved = replace(face, points=(face.points * 1.5 + [20, 5, 0]).astype(np.float32))
    retarget = Retarget(face, reference_of(opened(canonical_shape())))
    np.testing.assert_allclose(retarget(still(), moved), moved.points, atol=0.02)


# Limits.


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.floats(-20, 20)] * 3), st.floats(0.1, 6))
def test_soft_limit(vector: tuple[float, float, float], limit: float) -> None:
    given_ = np.array(vector)
    length = np.linalg.norm(given_)
    out = retargeting._soft_limit(given_, limit)
    assert np.linalg.norm(out) <= min(limit, length) + 1e-9
    np.testing.assert_allclose(np.cross(out, given_), 0, atol=1e-6)  # the same direction
    if length <= 0.6 * limit:
        np.testing.assert_array_equal(out, given_)
    assert np.linalg.norm(retargeting._soft_limit(given_ * 1.1, limit)) >= np.linalg.norm(out) - 1e-9


def test_soft_limit_has_no_kink() -> None:
    lengths = np.linspace(0, 3, 3001)
    out = np.array([np.linalg.norm(retargeting._soft_limit(np.array([x, 0, 0]), 1.0)) for x in lengths])
    slope = np.diff(out) / np.diff(lengths)
    assert np.abs(np.diff(slope)).max() < 0.01


@pytest.mark.parametrize("side", [-1, 1])
def test_a_turned_photo_is_not_turned_to_its_other_side(side: int) -> None:
    pose = Pose(rotation_matrix(np.array([0, -side * math.radians(25), 0])), np.zeros(3), 1.0)
    assert pose.degrees[0] == pytest.approx(25 * side)

    def after(degrees: float) -> float:
        turn = retargeting._reachable(np.array([0, -math.radians(degrees), 0]), pose)
        return Pose(rotation_matrix(turn) @ pose.rotation, np.zeros(3), 1.0).degrees[0]

    assert after(2 * side) == pytest.approx(27 * side)  # further away is free
    assert abs(after(-60 * side)) <= 25
    assert after(-60 * side) * side > 15  # back only as far as it has pixels of the other cheek
    assert after(60 * side) * side <= 25 + 40


def test_a_frontal_photo_turns_both_ways_alike() -> None:
    pose = Pose(np.eye(3), np.zeros(3), 1.0)
    for degrees in (5, 15, 25, 45):
        left, right = (retargeting._reachable(np.array([0, s * math.radians(degrees), 0]), pose)[1] for s in (-1, 1))
        assert left == pytest.approx(-right, abs=1e-9)


def test_shift_and_zoom_are_limited(small_face: Face) -> None:
    face = closed_lips(small_face)
    retarget = Retarget(face, reference_of(opened(canonical_shape())))
    scale = head_pose(face.points).scale
    far = retarget(replace(still(), shift=np.array([90.0, 0, 0])))
    assert np.abs(far - face.points).max() <= 5.0 * scale + 1e-3
    near = retarget(replace(still(), zoom=3.0))
    assert faces.skull_motion(face.points, near).scale <= 1.3 + 1e-6


# Filters.


def slow_one_euro(values: list[float], dt: float, min_cutoff: float, beta: float, derivative_cutoff: float) -> list:
    """Casiez et al. 2012, Algorithm 1, for one number."""

    def alpha(cutoff: float) -> float:
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau / dt)

    out, speed = [values[0]], 0.0
    for value in values[1:]:
        raw = (value - out[-1]) / dt
        speed = alpha(derivative_cutoff) * raw + (1 - alpha(derivative_cutoff)) * speed
        a = alpha(min_cutoff + beta * abs(speed))
        out.append(a * value + (1 - a) * out[-1])
    return out


def test_one_euro_is_the_published_filter() -> None:
    values = np.cumsum(np.random.default_rng(1).normal(0, 1, 60)).tolist()
    one_euro = OneEuro(1.2, 0.25, 2.0)
    ours = [float(one_euro(np.array([v]), 1 / 30)[0]) for v in values]
    np.testing.assert_allclose(ours, slow_one_euro(values, 1 / 30, 1.2, 0.25, 2.0), atol=1e-12)


def test_one_euro_keeps_a_constant_calms_noise_and_follows_a_step() -> None:
    rng = np.random.default_rng(2)
    one_euro = OneEuro(1.2, 0.25)
    assert all(float(one_euro(np.array([7.0]), 0.04)[0]) == 7.0 for _ in range(20))
    noise = rng.normal(0, 0.05, (400, 10))
    one_euro = OneEuro(1.2, 0.25)
    calm = np.array([one_euro(x, 0.04) for x in noise])
    assert calm[50:].std() < 0.5 * noise.std()
    one_euro = OneEuro(1.2, 0.25)
    step = [float(one_euro(np.array([x]), 0.04)[0]) for x in [0.0] * 10 + [5.0] * 50]
    assert step[9] == 0
    assert (np.diff(step) >= 0).all()
    assert step[-1] == pytest.approx(5, abs=0.05)


def test_one_euro_leaves_what_it_was_given_alone() -> None:
    one_euro, x = OneEuro(1.0, 0.1), np.ones(3)
    first = one_euro(x, 0.04)
    one_euro(np.full(3, 9.0), 0.04)
    np.testing.assert_array_equal(first, np.ones(3))
    np.testing.assert_array_equal(x, np.ones(3))


def wobbling(num: int = 60) -> list[Gesture]:
    rng = np.random.default_rng(3)
    return [
        Gesture(
            rng.normal(0, 0.01, 3),
            rng.normal(0, 0.05, 3),
            float(rng.normal(0, 0.01)),
            rng.normal(0, 0.03, (NUM_POINTS, 3)),
            np.zeros(52),
        )
        for _ in range(num)
    ]


def test_no_smoothing_is_the_identity() -> None:
    for before, after in zip(wobbling(5), (Smoother(0)(g, 0.04) for g in wobbling(5)), strict=True):
        np.testing.assert_array_equal(before.offset, after.offset)
        np.testing.assert_array_equal(before.turn, after.turn)


def test_more_smoothing_is_calmer() -> None:
    def wobble(amount: float) -> tuple[float, float]:
        smoother = Smoother(amount)
        out = [smoother(g, 0.04) for g in wobbling()]
        return tuple(float(np.abs(np.diff([getattr(g, n) for g in out], axis=0)).mean()) for n in ("turn", "offset"))

    levels = [wobble(amount) for amount in (0, 0.2, 0.5, 0.75, 1.0)]
    for calmer, wilder in zip(levels[1:], levels, strict=False):
        assert calmer[0] < wilder[0]
        assert calmer[1] < wilder[1]


def test_smoothing_keeps_the_amplitude_of_speech_and_of_a_blink() -> None:
    # Five syllables and a blink of a fifth of a second, as large as they are in people.
    time = np.arange(50) / FPS
    mouth = 0.6 * (1 - np.cos(2 * np.pi * 5 * time)) / 2
    blink = np.interp(time, [1.0, 1.08, 1.12, 1.2], [0, 0.9, 0.9, 0])
    smoother, out = Smoother(0.5), []
    for m, b in zip(mouth, blink, strict=True):
        offset = np.zeros((NUM_POINTS, 3))
        offset[[*faces.LIPS_INNER_LOWER, *faces.LIPS_OUTER_LOWER, faces.CHIN], 1] = m
        offset[[*faces.RIGHT_EYE_UPPER, *faces.LEFT_EYE_UPPER], 1] = b
        out.append(smoother(replace(still(), offset=offset), 1 / FPS).offset)
    lips, lids = np.array(out)[:, 14, 1], np.array(out)[:, 159, 1]
    assert lips.std() > 0.9 * mouth.std()
    assert np.corrcoef(lips, mouth)[0, 1] > 0.97
    assert lids.max() > 0.95 * blink.max()
    assert abs(int(lids.argmax()) - int(blink.argmax())) <= 1


def test_the_table_is_met_from_both_sides() -> None:
    # The strength of the filter has no jump at 0.5.
    low, high = (Smoother(amount) for amount in (0.4999, 0.5001))
    for gesture in wobbling(10):
        a, b = low(gesture, 0.04), high(gesture, 0.04)
        np.testing.assert_allclose(a.offset, b.offset, atol=1e-4)


# Lost faces.


def constant(**kind: float) -> Gesture:
    return replace(still(), turn=np.array([0.0, 0.4, 0.0]), offset=np.full((NUM_POINTS, 3), 0.5), **kind)


def test_a_lost_face_eases_to_neutral_and_back() -> None:
    stream: list[Gesture | None] = [constant()] * 5 + [None] * 20 + [constant()] * 20
    out = list(smoothed(stream, FPS, 0.5))
    yaw = np.array([g.turn[1] for g in out])
    assert len(out) == len(stream)
    assert [g.seen for g in out] == [g is not None for g in stream]
    np.testing.assert_allclose(yaw[:5], 0.4)
    assert (np.diff(yaw[4:25]) <= 1e-12).all()
    np.testing.assert_allclose(yaw[18:25], 0, atol=1e-9)  # half a second later
    assert (np.diff(yaw[24:]) >= -1e-12).all()
    np.testing.assert_allclose(yaw[-5:], 0.4)
    assert np.abs(np.diff(yaw)).max() < 0.4 * 0.15
    np.testing.assert_allclose(out[14].offset / 0.5, yaw[14] / 0.4)  # all of it goes together


def test_a_short_gap_does_not_reach_neutral() -> None:
    stream: list[Gesture | None] = [constant()] * 5 + [None] * 3 + [constant()] * 10
    yaw = np.array([g.turn[1] for g in smoothed(stream, FPS, 0)])
    assert yaw.min() > 0.2
    assert np.abs(np.diff(yaw)).max() < 0.4 * 0.15


def test_a_face_that_comes_late() -> None:
    out = list(smoothed([None] * 4 + [constant()] * 20, FPS, 0.5))
    assert not any(np.any(g.offset) for g in out[:4])
    yaw = np.array([g.turn[1] for g in out])
    assert np.abs(np.diff(yaw)).max() < 0.4 * 0.15
    assert yaw[-1] == pytest.approx(0.4)


def test_after_a_loss_the_filter_starts_afresh() -> None:
    stream: list[Gesture | None] = [constant()] * 5 + [None] * 30 + [replace(still(), turn=np.full(3, -0.2))] * 20
    out = list(smoothed(stream, FPS, 0.9))
    turns = np.array([g.turn[1] for g in out[35:]])
    assert (turns <= 1e-9).all()  # nothing of what was before the gap is left
    assert turns[-1] == pytest.approx(-0.2)


# Streams.


class Source:
    """Counts how many faces were taken."""

    def __init__(self, frames: list[Face | None]) -> None:
        self.frames, self.taken = frames, 0

    def __iter__(self) -> Iterator[Face | None]:
        for frame in self.frames:
            self.taken += 1
            yield frame


def test_a_stream_is_held_back_no_longer_than_asked(small_face: Face) -> None:
    source = Source([small_face] * 100)
    _, stream = stream_gestures(source, 10.0, lookahead_s=2.0)
    assert source.taken == 20
    for done in range(1, 31):
        next(stream)
        assert source.taken == max(20, done)
    assert 30 + len(list(stream)) == 100


def test_a_stream_waits_for_its_first_face(small_face: Face) -> None:
    source = Source([None] * 30 + [small_face] * 30)
    _, stream = stream_gestures(source, 10.0, lookahead_s=2.0)
    assert source.taken == 31
    assert [g.seen for g in stream] == [False] * 30 + [True] * 30


@pytest.mark.parametrize("frames", [[], [None] * 5])
def test_a_stream_without_a_face(frames: list[None]) -> None:
    with pytest.raises(NoFaceError, match=f"no face in any of the driver's {len(frames)} frames"):
        stream_gestures(frames, 25.0)


def test_gestures_of_the_driver_are_what_it_was_made_from(driver, gestures) -> None:
    reference, stream = gestures
    yaw = np.array([-math.degrees(g.turn[1]) for g in stream])
    assert np.corrcoef(yaw, driver.yaw)[0, 1] > 0.98
    lips = faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER
    opening = np.array([gap(reference.shape + g.offset, *lips) for g in stream])
    assert np.corrcoef(opening, driver.gap)[0, 1] > 0.98
    eye = np.array([gap(reference.shape + g.offset, *EYES[0]) for g in stream])
    still_head = driver.yaw < 0.1
    assert np.corrcoef(eye[still_head], -driver.blink[still_head])[0, 1] > 0.8


# A photo as driver.


def test_a_neutral_photo_as_driver_says_nothing(small_face: Face) -> None:
    basis = expression_basis()
    usual = rotation_matrix(np.array([basis.neutral_pitch, 0, 0]))
    calm = replace(
        small_face,
        points=Pose(usual, np.array([100.0, 100.0, 0.0]), 9.0).apply(canonical_shape()).astype(np.float32),
        blendshapes=basis.neutral.astype(np.float32),
    )
    _, gesture = gesture_of_photo(calm)
    np.testing.assert_allclose(gesture.turn, 0, atol=0.01)
    np.testing.assert_allclose(gesture.offset, 0, atol=1e-6)


def test_a_smiling_photo_as_driver_smiles(portrait_face: Face, small_face: Face) -> None:
    reference, gesture = gesture_of_photo(portrait_face)
    corners = gesture.offset[[61, 291]]
    assert corners[0, 0] < -0.1 < 0.1 < corners[1, 0]  # the corners go apart
    assert (corners[:, 1] < -0.1).all()  # and up
    assert gesture.blendshapes[BLENDSHAPES.index("mouthSmileLeft")] > 0.7
    pose = head_pose(portrait_face.points)
    np.testing.assert_allclose(reference.shape + gesture.offset, pose.invert(portrait_face.points), atol=1e-3)


def test_the_expression_basis_does_what_its_names_say() -> None:
    basis, shape = expression_basis(), opened(canonical_shape())
    lips = faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER

    def expression(name: str) -> np.ndarray:
        return basis.expression(np.eye(52)[BLENDSHAPES.index(name)])

    assert gap(shape + expression("jawOpen"), *lips) > gap(shape, *lips) + 3
    assert expression("jawOpen")[faces.CHIN, 1] > 0.5
    assert gap(shape + 0.5 * expression("eyeBlinkRight"), *EYES[0]) < gap(shape, *EYES[0])
    assert expression("browInnerUp")[[55, 285], 1].max() < 0
    assert np.abs(expression("_neutral")).max() < 0.5


# Files.


@pytest.fixture(scope="module")
def spoken(gestures) -> Motion:
    reference, stream = gestures
    return Motion.of_gestures("spoken", FPS, reference, stream)


@pytest.fixture(scope="module")
def saved(spoken: Motion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound file; nobody may change it."""
    path = tmp_path_factory.mktemp("motions") / "spoken.motion"
    spoken.save(path)
    return path


def test_a_motion_holds_its_gestures(spoken: Motion, gestures) -> None:
    assert len(spoken) == 28
    assert spoken.duration_s == pytest.approx(28 / 25)
    for a, b in zip(spoken.gestures(), gestures[1], strict=True):
        assert (a.turn == b.turn).all()
        assert (a.offset == b.offset).all()
        assert (a.zoom, a.seen) == (b.zoom, b.seen)


def test_a_motion_comes_back_from_its_file(spoken: Motion, saved: Path) -> None:
    again = Motion.load(saved)
    assert (again.name, again.fps, len(again)) == ("spoken", 25.0, 28)
    error = np.abs(again.offset - spoken.offset)
    assert np.percentile(error, 99.9) < 0.065  # cm
    assert error.max() < 0.2
    for name in ("turn", "shift", "zoom"):
        np.testing.assert_allclose(getattr(again, name), getattr(spoken, name), atol=1e-5)
    np.testing.assert_allclose(again.blendshapes, spoken.blendshapes, atol=0.003)
    np.testing.assert_allclose(again.reference.shape, spoken.reference.shape, atol=1e-5)
    np.testing.assert_allclose(again.reference.rotation, spoken.reference.rotation, atol=1e-6)
    np.testing.assert_array_equal(again.seen, spoken.seen)


def test_what_was_lost_stays_lost_in_the_file(spoken: Motion, tmp_path: Path) -> None:
    seen = spoken.seen.copy()
    seen[3:7] = False
    replace(spoken, seen=seen).save(tmp_path / "x.motion")
    assert [g.seen for g in Motion.load(tmp_path / "x.motion").gestures()] == seen.tolist()


def test_a_motion_of_one_frame_can_be_saved(spoken: Motion, gestures, tmp_path: Path) -> None:
    one = Motion.of_gestures("one", 25.0, gestures[0], gestures[1][:1])
    one.save(tmp_path / "one.motion")
    again = Motion.load(tmp_path / "one.motion")
    assert len(again) == 1
    np.testing.assert_allclose(again.offset, one.offset, atol=0.1)


def rewritten(source: Path, target: Path, **changed: bytes | None) -> Path:
    """A copy of the file with some members replaced, or left out for None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            key = name.split(".")[0]
            data = changed.get(key, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def array_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def lying_array() -> bytes:
    """A header that promises 8 TB and no data."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "changed",
    [
        {"header": None},
        {"header": b"not json"},
        {"header": b"[1, 2]"},
        {"header": b"\xff\xfe\x00"},
        {"pose": None},
        {"pose": array_bytes(np.zeros((7, 0), np.float32))},
        {"pose": array_bytes(np.zeros(9, np.float32))},
        {"pose": array_bytes(np.full((7, 28), np.nan, np.float32))},
        {"pose": b"garbage"},
        {"shape": array_bytes(np.zeros((3, 5), np.float32))},
        {"shape": array_bytes(np.full((3, 478), np.inf, np.float32))},
        {"neutral": array_bytes(np.zeros(3, np.float16))},
        {"rotation": array_bytes(np.zeros((3, 3), np.float32))},
        {"directions": array_bytes(np.zeros((7, 7), np.float16))},
        {"amounts": array_bytes(np.array([{"a": 1}], object))},
        {"blendshapes": array_bytes(np.zeros((52, 27), np.uint8))},
        {"seen": lying_array()},
    ],
    ids=lambda changed: "-".join(f"{k}:{str(v)[:12]}" for k, v in changed.items()),
)
def test_a_damaged_motion_is_refused(saved: Path, tmp_path: Path, changed: dict) -> None:
    with pytest.raises(InputError, match=r"bad\.motion is not a readable motion file; give one that"):
        Motion.load(rewritten(saved, tmp_path / "bad.motion", **changed))


@pytest.mark.parametrize("fps", [0, -25, 1e9, float("nan"), "fast", None])
def test_a_motion_of_an_impossible_rate_is_refused(saved: Path, tmp_path: Path, fps: object) -> None:
    header = {"format": "mimik motion", "version": 1, "name": "x", "fps": fps}
    with pytest.raises(InputError, match="not a readable motion file"):
        Motion.load(rewritten(saved, tmp_path / "bad.motion", header=json.dumps(header).encode()))


@pytest.mark.parametrize("header", [{"format": "mimik motion", "version": 2}, {"format": "other"}, {}])
def test_a_motion_of_another_version_is_refused(saved: Path, tmp_path: Path, header: dict) -> None:
    with pytest.raises(InputError, match="another version") as error:
        Motion.load(rewritten(saved, tmp_path / "new.motion", header=json.dumps(header).encode()))
    assert "mimik motion extract" in str(error.value)


@pytest.mark.parametrize("keep", [0, 10, 300, 0.5, 0.9, 0.999])
def test_a_motion_that_was_cut_off_is_refused(saved: Path, tmp_path: Path, keep: float) -> None:
    data = saved.read_bytes()
    cut = tmp_path / "cut.motion"
    cut.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(InputError, match="not a readable motion file"):
        Motion.load(cut)


def test_flipped_bytes_are_noticed_or_harmless(saved: Path, tmp_path: Path) -> None:
    data, rng, bad = saved.read_bytes(), np.random.default_rng(5), tmp_path / "bad.motion"
    num_refused = 0
    for _ in range(40):
        changed = bytearray(data)
        changed[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        bad.write_bytes(changed)
        try:
            assert np.isfinite(Motion.load(bad).offset).all()
        except InputError:
            num_refused += 1
    assert num_refused > 30


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.motion"
    path.write_bytes(content)
    with pytest.raises(InputError, match="talk"):  # the message names the bundled ones
        Motion.load(path)


def test_a_foreign_zip_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.motion", "w") as file:
        file.writestr("readme.txt", "hello")
    for path in (tmp_path / "x.motion", tmp_path / "missing.motion", tmp_path):
        with pytest.raises(InputError):
            Motion.load(path)


@pytest.mark.parametrize("name", ["amounts", "header"])
def test_a_motion_that_unpacks_to_too_much_is_refused_unread(saved: Path, tmp_path: Path, name: str) -> None:
    # A file that somebody sent must not fill the memory: here 70 kB become 70 MB.
    bomb = rewritten(saved, tmp_path / "bomb.motion", **{name: bytes(70 << 20)})
    assert bomb.stat().st_size < 150_000
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="not a readable motion file"):
            Motion.load(bomb)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_motion_of_too_many_frames_is_refused_before_it_is_unfolded(saved: Path, tmp_path: Path) -> None:
    # One direction and 300,000 frames would be 3 GB of offsets.
    num = 300_000
    changed = {
        "directions": np.zeros((1434, 1), np.float16),
        "amounts": np.zeros((1, num), np.float16),
        "pose": np.zeros((7, num), np.int8),
        "blendshapes": np.zeros((52, num), np.uint8),
        "seen": np.zeros(num, bool),
    }
    bomb = rewritten(saved, tmp_path / "bomb.motion", **{name: array_bytes(a) for name, a in changed.items()})
    with pytest.raises(InputError, match="not a readable motion file"):
        Motion.load(bomb)


# Other rates.


@pytest.mark.parametrize("fps", [10.0, 24.0, 25.0, 29.97, 60.0])
def test_another_rate_keeps_duration_and_ends(spoken: Motion, fps: float) -> None:
    other = spoken.at_rate(fps)
    assert other.fps == fps
    assert len(other) == round(spoken.duration_s * fps)
    assert other.duration_s == pytest.approx(spoken.duration_s, abs=0.6 / fps)
    np.testing.assert_array_equal(other.turn[0], spoken.turn[0])
    np.testing.assert_allclose(other.turn[-1], spoken.turn[-1], atol=0.01)
    # Linear in between: frame k is what the motion shows at k / fps.
    time = np.arange(len(spoken)) / 25
    at = np.minimum(np.arange(len(other)) / fps, time[-1])
    np.testing.assert_allclose(other.zoom, np.interp(at, time, spoken.zoom), atol=1e-9)
    np.testing.assert_allclose(other.offset[:, 14, 1], np.interp(at, time, spoken.offset[:, 14, 1]), atol=1e-9)


def test_one_frame_at_another_rate(gestures) -> None:
    one = Motion.of_gestures("one", 25.0, gestures[0], gestures[1][:1])
    assert len(one.at_rate(50.0)) == 1
    assert one.at_rate(50.0).fps == 50.0


# The bundled motions.


def bundled(name: str) -> Motion:
    return Motion.load(bundled_motions()[name])


FORMER = {"talk", "smile", "surprise", "nod", "look-around", "laugh"}
BUNDLED = sorted({*FORMER, "talk-fast", "listen", "blink", "glance"})
OF_THE_HEAD = {"nod", "look-around"}


def test_the_bundled_motions_are_there() -> None:
    assert set(bundled_motions()) == set(BUNDLED)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_motion_is_sound(name: str) -> None:
    motion = bundled(name)
    assert 2 <= motion.duration_s <= 10
    assert bundled_motions()[name].stat().st_size / motion.duration_s < 18_000
    assert motion.seen.all()
    for array in (motion.turn, motion.shift, motion.zoom, motion.offset, motion.blendshapes, motion.reference.shape):
        assert np.isfinite(array).all()
    # It starts and ends at neutral, so that it can be looped and joined.
    for end in (0, -1):
        assert np.degrees(np.linalg.norm(motion.turn[end])) < 0.5
        assert np.linalg.norm(motion.offset[end], axis=1).mean() < 0.02
    # And nothing jumps.
    step = np.linalg.norm(np.diff(motion.offset, axis=0), axis=-1).mean(1)
    assert step.max() < 0.3
    assert np.degrees(np.linalg.norm(np.diff(motion.turn, axis=0), axis=1)).max() < 6


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_motion_keeps_the_head_near_and_the_eyes_open(name: str) -> None:
    motion = bundled(name)
    if name not in OF_THE_HEAD:
        assert np.linalg.norm(motion.shift[:, :2], axis=1).max() < 3  # cm
        assert np.degrees(np.linalg.norm(motion.turn, axis=1)).max() < 12
    shape = motion.reference.shape
    openings = np.array([eyelid_openings(shape + offset).mean() for offset in motion.offset])
    assert (openings < 0.35 * eyelid_openings(shape).mean()).mean() < 0.12
    assert lip_openings(shape).max() < 0.02  # counted from lips that touch


def track(name: str, *blendshapes: str) -> np.ndarray:
    motion = bundled(name)
    return motion.blendshapes[:, [BLENDSHAPES.index(b) for b in blendshapes]].mean(1)


def test_the_bundled_motions_do_what_they_are_called() -> None:
    pitch = np.degrees(bundled("nod").turn[:, 0])
    yaw = -np.degrees(bundled("look-around").turn[:, 1])
    assert np.ptp(pitch) > 8
    assert np.ptp(pitch) > np.ptp(np.degrees(bundled("nod").turn[:, 1]))
    assert np.ptp(yaw) > 15
    smile = track("smile", "mouthSmileLeft", "mouthSmileRight")
    assert smile.max() > smile[0] + 0.3
    assert track("laugh", "mouthSmileLeft", "mouthSmileRight").max() > 0.4
    assert track("laugh", "jawOpen").max() > 0.15
    assert track("surprise", "jawOpen").max() > 0.15
    assert track("surprise", "browInnerUp").max() > 0.5
    for name, least in (("talk", 6), ("talk-fast", 10)):
        jaw = track(name, "jawOpen")
        assert np.ptp(jaw) > 0.08
        assert (np.diff(np.sign(jaw - jaw.mean())) != 0).sum() >= least  # it opens and closes again and again
        shape, offsets = bundled(name).reference.shape, bundled(name).offset
        gaps = np.array([lip_openings(shape + offset).max() for offset in offsets])
        assert 0.3 < (gaps > 0.06).mean() < 0.9  # and the lips meet in between
    assert track("listen", "jawOpen").max() < 0.05
    shape, offsets = bundled("blink").reference.shape, bundled("blink").offset
    lids = np.array([eyelid_openings(shape + offset).mean() for offset in offsets]) / eyelid_openings(shape).mean()
    assert (np.diff((lids < 0.4).astype(int)) == 1).sum() >= 2
    gaze = track("glance", "eyeLookOutLeft", "eyeLookInRight") - track("glance", "eyeLookInLeft", "eyeLookOutRight")
    assert np.ptp(gaze) > 0.8


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_motion_leaves_the_person_a_face(small_face: Face, name: str) -> None:
    motion = bundled(name)
    retarget = Retarget(small_face, motion.reference)
    for gesture in list(motion.gestures())[::10]:
        points = retarget(gesture)
        pose = faces.skull_motion(small_face.points, points)
        assert 0.75 < pose.scale < 1.35
        apart = np.linalg.norm(pose.invert(points) - small_face.points, axis=1) / small_face.width_px
        assert apart.max() < 0.35
        assert np.median(apart) < 0.06
