"""A driver's motion on another person: invariants, and limits of expressions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import eyes_closed, mouth_opened, turned
from mimik.config import REGIONS
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, NUM_POINTS, Face, Pose, head_pose
from mimik.motion import retargeting
from mimik.motion.contact import eye_distance, lip_openings
from mimik.motion.expression import expression_basis
from mimik.motion.frames import MotionFrame, Reference, rotation_matrix, split
from mimik.motion.retargeting import Retarget
from shapes import EYES, a_face, canonical_shape, closed_lips, gap, opened, reference_of, still

# Retargeting.


@pytest.mark.parametrize("regions", [REGIONS, ("pose",), ("lips",), ("eyes", "gaze")])
def test_the_neutral_motion_frame_leaves_the_photo_as_it_is(small_face: Face, regions: tuple[str, ...]) -> None:
    face = closed_lips(small_face)
    retarget = Retarget(face, reference_of(opened(canonical_shape())), regions=regions)
    assert np.abs(retarget(still()) - face.points).max() < 1e-6


def test_self_reenactment_gives_the_drivers_points(driver, driver_faces, motion_frames, small_face: Face) -> None:
    reference, stream = motion_frames
    retarget = Retarget(small_face, reference)
    width = small_face.width_px
    apart = []
    for motion_frame, points, yaw in zip(stream, driver.points, driver.yaw, strict=True):
        if yaw < 6:  # a turn is damped by the bias of the landmark detector
            apart.append(np.linalg.norm((retarget(motion_frame) - points)[:, :2], axis=1).mean() / width)
    assert np.median(apart) < 0.01
    assert max(apart) < 0.025


def test_self_reenactment_of_exact_points(no_leak: None, small_face: Face) -> None:
    pose = head_pose(small_face.points)
    shape = pose.invert(small_face.points)
    reference = Reference(shape, pose.rotation, small_face.blendshapes.astype(np.float64))
    exact, retarget = (Retarget(small_face, reference, exact=exact) for exact in (True, False))
    for points in (
        turned(small_face.points, yaw=8),
        turned(small_face.points, pitch=-9, roll=5),
        mouth_opened(small_face.points, 0.06),
        small_face.points + np.array([5, -3, 0]),
    ):
        motion_frame = split(a_face(points), reference, pose)
        np.testing.assert_allclose(exact(motion_frame)[:, :2], points[:, :2], atol=0.02 * small_face.width_px)
        again = retarget(motion_frame)
        # For another person the jaw motion is amplified, because less of it is detected in the picture.
        np.testing.assert_allclose(again[:, :2], points[:, :2], atol=0.045 * small_face.width_px)
        np.testing.assert_allclose(again[faces.SKULL, :2], points[faces.SKULL, :2], atol=0.01)


def test_the_drivers_identity_does_not_leak(no_leak: None, small_face: Face) -> None:
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    shape = canonical_shape()
    speaking = np.zeros_like(shape)
    speaking[[faces.CHIN, *faces.LIPS_OUTER_LOWER[2:-2], *faces.LIPS_INNER_LOWER[2:-2]]] = [0, 0.5, 0]
    results = []
    # A driver that differs only in parts moved by expression: a long chin, thick lips.
    other = shape.copy()
    other[[faces.CHIN, 148, 377, 176, 400, 199, 175]] += [0, 1.0, 0.4]
    other[faces.LIPS_OUTER_LOWER[2:-2]] += [0, 0.4, 0]
    for neutral in (shape, other):
        reference = reference_of(neutral)
        motion_frame = split(a_face(pose.apply(neutral + speaking)), reference, pose)
        results.append(Retarget(small_face, reference)(motion_frame))
    np.testing.assert_allclose(results[0], results[1], atol=0.01)
    assert np.abs(results[0] - small_face.points).max() > 2


def test_a_larger_driver_in_his_picture_is_the_same_driver(small_face: Face) -> None:
    shape = canonical_shape()
    results = []
    for scale, at in ((11.0, [300.0, 200.0, 0.0]), (31.0, [900.0, 500.0, 0.0])):
        origin = Pose(np.eye(3), np.array(at), scale)
        moved = Pose(rotation_matrix(np.array([0.1, 0.2, 0])), origin.translation + 0.7 * scale, scale * 1.1)
        motion_frame = split(a_face(moved.apply(shape)), reference_of(shape), origin)
        results.append(Retarget(small_face, reference_of(shape))(motion_frame))
    np.testing.assert_allclose(results[0], results[1], atol=0.02)


@pytest.mark.parametrize("driver_eyes", [-0.6, 0.6, 1.6])
def test_a_closed_eye_closes_the_persons_eye(no_leak: None, small_face: Face, driver_eyes: float) -> None:
    shape = opened(canonical_shape(), driver_eyes)
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    motion_frame = split(a_face(pose.apply(eyes_closed(shape))), reference_of(shape), pose)
    closed = Retarget(small_face, reference_of(shape))(motion_frame)
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


def test_a_smile_holds_the_upper_lip_up_while_the_mouth_is_open(small_face: Face) -> None:
    """The photo smiles with teeth. The lip comes down for contact, and is back when a driver's mouth opens."""
    photo = head_pose(small_face.points).invert(small_face.points)
    assert gap(photo, faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER) > 0.05
    retarget = Retarget(small_face, reference_of(canonical_shape()))
    heights = []
    for opening in (0.0, 0.01, 0.6, 1.0):  # centimeters; only the lower lip moves
        motion_frame = still()
        motion_frame.offset[[*faces.LIPS_INNER_LOWER[1:-1], *faces.LIPS_OUTER_LOWER[1:-1]], 1] += opening
        shape = head_pose(small_face.points).invert(retarget(motion_frame))
        heights.append(float(shape[13, 1] - photo[13, 1]))
    closed, nearly, speaking, wide = heights
    assert closed > 0.05
    assert nearly == pytest.approx(closed, abs=0.005)
    assert abs(wide) < 0.45 * closed
    assert wide <= speaking < closed


def test_a_mouth_that_moves_sideways_is_not_amplified_as_one_that_widens(small_face: Face) -> None:
    retarget = Retarget(closed_lips(small_face), reference_of(canonical_shape()))
    pose = head_pose(small_face.points)
    rest = pose.invert(retarget(still()))

    def corners(right: float, left: float) -> np.ndarray:
        """Motion [2] of the mouth's corners outward or to the picture's right, centimeters."""
        motion_frame = still()
        motion_frame.offset[[61, 291], 0] = right, left
        return (pose.invert(retarget(motion_frame)) - rest)[[61, 291], 0]

    widens, moves = corners(-0.05, 0.05), corners(0.05, 0.05)
    np.testing.assert_allclose(widens, -widens[::-1], atol=0.003)
    np.testing.assert_allclose(moves[0], moves[1], atol=0.003)
    assert widens[1] == pytest.approx(retargeting._ARRIVES["width"] * moves[1], rel=0.02)


def test_rounded_lips_relax_a_photos_smile(small_face: Face) -> None:
    """Lips that narrow reduce the width of a smile in the photo; lips that widen or are calm do not."""
    smile = [BLENDSHAPES.index(name) for name in ("mouthSmileLeft", "mouthSmileRight")]
    widths = []
    for amount, narrowing in ((0.0, 0.0), (0.0, 0.7), (0.8, 0.0), (0.8, 0.7), (0.0, -0.1), (0.8, -0.1)):
        values = expression_basis().neutral.astype(np.float32)
        values[smile] += amount
        photo = replace(closed_lips(small_face), blendshapes=values)
        motion_frame = still()
        motion_frame.offset[[61, 291], 0] += narrowing, -narrowing
        shape = head_pose(photo.points).invert(
            Retarget(photo, reference_of(canonical_shape()))(motion_frame).astype(np.float32)
        )
        widths.append(float(shape[291, 0] - shape[61, 0]))
    calm, rounded, smiling, smiling_rounded, wide, smiling_wide = widths
    basis = expression_basis().by_blendshape[smile].sum(0)
    wider = 0.8 * float(basis[291, 0] - basis[61, 0])  # by this smile, centimeters
    assert smiling == pytest.approx(calm, abs=1e-3)
    assert 0.9 * wider < rounded - smiling_rounded < wider + 1e-3
    assert smiling_wide == pytest.approx(wide, abs=0.03) and wide > calm + 0.15


def test_lips_thicken_as_they_narrow(small_face: Face) -> None:
    """By a third of the relative narrowing, upper and lower lip; lips that widen do not."""
    photo = replace(closed_lips(small_face), blendshapes=expression_basis().neutral.astype(np.float32))
    found = []
    for narrowing in (0.0, 0.5, -0.2):
        motion_frame = still()
        motion_frame.offset[[61, 291], 0] += narrowing, -narrowing
        points = Retarget(photo, reference_of(canonical_shape()))(motion_frame)
        shape = head_pose(small_face.points).invert(points)
        found.append(np.array([shape[291, 0] - shape[61, 0], shape[13, 1] - shape[0, 1], shape[17, 1] - shape[14, 1]]))
    calm, rounded, wide = found
    narrowed = 1 - rounded[0] / calm[0]
    assert narrowed > 0.15
    np.testing.assert_allclose(rounded[1:] / calm[1:], 1 + 0.35 * narrowed, atol=0.01)
    np.testing.assert_allclose(wide[1:], calm[1:], rtol=0.01)


def test_a_smile_does_not_add_to_a_photos_smile_without_end(small_face: Face) -> None:
    """The photo smiles with teeth: a laughing driver shows no gums in it, and no mouth from ear to ear."""
    smile = [BLENDSHAPES.index(name) for name in ("mouthSmileLeft", "mouthSmileRight")]
    values = small_face.blendshapes.copy()
    values[smile] = 0.9
    face = replace(small_face, blendshapes=values)
    photo = head_pose(face.points).invert(face.points)
    motion_frame = still()
    motion_frame.offset[[61, 291], 0] += -0.6, 0.6
    motion_frame.offset[[*faces.LIPS_INNER_UPPER[1:-1], *faces.LIPS_OUTER_UPPER[1:-1]], 1] -= 0.8
    motion_frame.offset[[*faces.LIPS_INNER_LOWER[1:-1], *faces.LIPS_OUTER_LOWER[1:-1]], 1] += 0.8
    shape = head_pose(face.points).invert(Retarget(face, reference_of(canonical_shape()))(motion_frame))
    eyes = eye_distance(photo)
    rise = (photo[faces.LIPS_INNER_UPPER[1:-1], 1] - shape[faces.LIPS_INNER_UPPER[1:-1], 1]).max()
    assert rise < (retargeting._HIGHEST_LIP - 0.4 * lip_openings(photo).max()) * eyes  # 0.12 without the limit
    assert lip_openings(shape).max() > 0.2  # the mouth opens all the same
    assert np.linalg.norm(shape[61] - shape[291]) < 1.2 * eyes  # 1.29 without the limit


def all_moving() -> MotionFrame:
    offset = np.random.default_rng(0).normal(0, 0.15, (NUM_POINTS, 3))
    return MotionFrame(np.array([0.05, 0.1, 0.05]), np.array([0.5, 0.3, 0.0]), 0.05, offset, np.zeros(52))


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
    motion_frame = replace(all_moving(), turn=np.full(3, 0.3), shift=np.full(3, 2.0), zoom=0.2)
    a = Retarget(small_face, reference_of(canonical_shape()), regions=expression)(motion_frame)
    b = Retarget(small_face, reference_of(canonical_shape()), regions=expression)(
        replace(motion_frame, turn=np.zeros(3), shift=np.zeros(3), zoom=0.0)
    )
    np.testing.assert_array_equal(a, b)


def test_strength(small_face: Face) -> None:
    offset = np.zeros((NUM_POINTS, 3))
    offset[faces.BROWS] = [0, -0.2, 0]
    motion_frame = MotionFrame(np.array([0.0, 0.1, 0.0]), np.array([0.3, 0.2, 0.0]), 0.02, offset, np.zeros(52))
    reference = reference_of(canonical_shape())
    none = Retarget(small_face, reference, strength=0)(motion_frame)
    assert np.abs(none - small_face.points).max() < 1e-6
    twice = Retarget(small_face, reference, strength=2)(motion_frame)
    np.testing.assert_allclose(twice, Retarget(small_face, reference)(motion_frame.scaled(2)), atol=1e-9)
    angle = [
        faces.skull_motion(small_face.points, Retarget(small_face, reference, strength=k)(motion_frame)).degrees[0]
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
def test_a_turned_photo_is_turned_back_through_frontal(side: int) -> None:
    pose = Pose(rotation_matrix(np.array([0, -side * math.radians(25), 0])), np.zeros(3), 1.0)
    assert pose.degrees[0] == pytest.approx(25 * side)

    def after(degrees: float) -> float:
        turn = retargeting._reachable(np.array([0, -math.radians(degrees), 0]), pose)
        return Pose(rotation_matrix(turn) @ pose.rotation, np.zeros(3), 1.0).degrees[0]

    assert after(2 * side) == pytest.approx(27 * side)  # farther away is unlimited
    assert after(-20 * side) == pytest.approx(5 * side)
    assert -20 < after(-60 * side) * side < -8  # slightly to its other side
    assert after(60 * side) * side <= 25 + 40


def test_a_frontal_photo_turns_equally_to_both_sides() -> None:
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
