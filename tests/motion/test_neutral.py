"""The neutral face of synthetic drivers, region by region."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conftest import turned
from mimik.config import InputError
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face, Pose, head_pose
from mimik.motion.contact import (
    eye_distance,
    eyelid_openings,
    lip_openings,
    with_eyelid_openings,
    with_lip_openings,
)
from mimik.motion.expression import expression_basis
from mimik.motion.extraction import stream_motion
from mimik.motion.frames import Reference, rotation_matrix
from mimik.motion.neutral import find_neutral, motion_of_photo
from shapes import EYES, a_face, canonical_shape, closed_lips, gap, opened

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


def test_the_head_pose_at_rest_does_not_depend_on_noise() -> None:
    """A head that sways by 9 degrees without an expression: the calmest single frame would be chosen by the noise."""
    shape = canonical_shape()
    pose = Pose(np.eye(3), np.array([300.0, 200.0, 0.0]), 11.0)
    sway = 9 * np.sin(np.arange(64) / 5)
    still = [a_face(turned(pose.apply(shape), yaw=yaw, pitch=0.4 * yaw)) for yaw in sway]

    def angles(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        noisy = [
            replace(
                face,
                points=face.points + rng.normal(0, 0.3, face.points.shape),
                blendshapes=np.abs(rng.normal(0, 0.05, len(BLENDSHAPES))),
            )
            for face in still
        ]
        return np.array(Pose(find_neutral(noisy).rotation, np.zeros(3), 1.0).degrees)

    every = np.array([angles(seed) for seed in range(6)])
    assert np.ptp(every, axis=0).max() < 1
    exact = Pose(find_neutral(still).rotation, np.zeros(3), 1.0).degrees
    assert np.abs(every.mean(0) - exact).max() < 1


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
    """A driver whose brows are still only while the mouth is open; rest_gap: smallest lip opening in cm."""
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


def test_lips_that_never_touch_are_closed_with_a_note() -> None:
    driver = talking_faces(0.8)
    reference = find_neutral(driver, [i / 25 for i in range(len(driver))])
    assert lip_openings(reference.shape).max() < 0.01
    assert "the driver's beginning never shows calm lips that touch" in reference.note
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
    reference, _ = stream_motion(driver, 25.0, neutral_s=0.4)
    shape = opened(canonical_shape())
    assert np.abs(reference.shape[faces.BROWS, 1] - shape[faces.BROWS, 1] + 0.8).max() < 0.05  # raised, as requested
    assert reference.note == "neutral face of the driver: at 0.4 s"
    late, _ = stream_motion(driver, 25.0, lookahead_s=0.5, neutral_s=1.8)
    np.testing.assert_allclose(late.shape[faces.BROWS, 1], shape[faces.BROWS, 1], atol=0.05)
    with pytest.raises(InputError, match=r"--neutral 9: the driver lasts 2\.0 s; use a time within it"):
        stream_motion(driver, 25.0, neutral_s=9)
    with pytest.raises(InputError, match="--neutral 1: the driver shows no face then"):
        stream_motion([*driver[:20], *[None] * 15, *driver[35:]], 25.0, neutral_s=1)


# A photo as driver.


def test_a_neutral_photo_as_driver_causes_no_note(small_face: Face) -> None:
    basis = expression_basis()
    usual = rotation_matrix(np.array([basis.neutral_pitch, 0, 0]))
    calm = replace(
        small_face,
        points=Pose(usual, np.array([100.0, 100.0, 0.0]), 9.0).apply(canonical_shape()).astype(np.float32),
        blendshapes=basis.neutral.astype(np.float32),
    )
    _, motion_frame = motion_of_photo(calm)
    np.testing.assert_allclose(motion_frame.turn, 0, atol=0.01)
    np.testing.assert_allclose(motion_frame.offset, 0, atol=1e-6)


def test_a_smiling_photo_as_driver_smiles(portrait_face: Face, small_face: Face) -> None:
    reference, motion_frame = motion_of_photo(portrait_face)
    corners = motion_frame.offset[[61, 291]]
    assert corners[0, 0] < -0.1 < 0.1 < corners[1, 0]  # the corners move apart
    assert (corners[:, 1] < -0.1).all()  # and up
    assert motion_frame.blendshapes[BLENDSHAPES.index("mouthSmileLeft")] > 0.7
    pose = head_pose(portrait_face.points)
    np.testing.assert_allclose(reference.shape + motion_frame.offset, pose.invert(portrait_face.points), atol=1e-3)


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
