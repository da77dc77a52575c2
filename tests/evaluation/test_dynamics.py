"""THEval's measures, pumping, expression and pose distances, computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mimik.evaluation import dynamics
from mimik.evaluation.dynamics import Volume
from mimik.face import landmarks as faces
from mimik.face.landmarks import canonical_mesh, head_pose
from mimik.motion.frames import rotation_matrix

VERTICES = canonical_mesh().vertices
FACE = np.concatenate([VERTICES, np.repeat(VERTICES[[468 - 1]], 10, 0)])  # irises are not used
EYES = float(np.linalg.norm(VERTICES[[362, 263]].mean(0) - VERTICES[[33, 133]].mean(0)))


def clip(count: int) -> Any:
    return np.repeat(FACE[None], count, 0)


def moved(points: Any, turns: Any, scale: Any = 1.0, place: Any = (0, 0, 0)) -> Any:
    turned = np.stack([p @ rotation_matrix(np.radians(t)).T for p, t in zip(points, turns, strict=True)])
    return turned * np.asarray(scale, float).reshape(-1, 1, 1) + np.asarray(place, float).reshape(-1, 1, 3)


def test_score_by_hand() -> None:
    assert dynamics.similarity(3, 4) == 0.75
    assert dynamics.similarity(5, 4) == 0.75
    assert dynamics.similarity(12, 4) == -1
    assert math.isnan(dynamics.similarity(1, 0))
    assert math.isnan(dynamics.similarity(math.nan, 1))


def test_lip_dynamics_by_hand_and_whatever_the_head_does() -> None:
    points = clip(4)
    (number,) = faces.LIPS[:1]
    # one point is far away: all its distances change equally
    far = FACE[faces.LIPS[1:]].mean(0) + np.array([0, 0, 1e4])
    points[:, number] = far
    points[[1, 3], number, 2] += 3
    expected = 39 / (39 * 40 / 2) * 1.5 / EYES
    assert dynamics.lip_dynamics(points) == pytest.approx(expected, rel=1e-3)
    rest = clip(3)
    assert dynamics.lip_dynamics(moved(rest, [[0, 0, 0], [10, 20, 5], [0, -30, 0]], [1, 2, 3])) < 1e-9
    rest[1:] = math.nan
    assert math.isnan(dynamics.lip_dynamics(rest))


def test_head_motion_by_hand() -> None:
    rolls = np.array([0.0, 4, 0, 4])
    turns = np.stack([0 * rolls, 0 * rolls, rolls], 1)
    points = moved(clip(4), turns)
    angles, steps = rolls.std() / 3, np.diff(rolls).var() / 3
    places = np.array([head_pose(p).translation for p in points])[:, :2]
    assert dynamics.head_motion(points) == pytest.approx(math.sqrt(angles * steps + places.var(0).mean()), rel=1e-4)
    shifted = moved(clip(4), np.zeros((4, 3)), 20.0, [[0, 0, 0], [40, 0, 0], [0, 0, 0], [40, 0, 0]])
    assert dynamics.head_motion(shifted) == pytest.approx(math.sqrt(1 / 2), rel=1e-4)  # 0 and 2 cm in x: variances 1, 0


def test_brow_dynamics_by_hand() -> None:
    points = clip(2)
    right, left = FACE[[33, 133]].mean(0), FACE[[362, 263]].mean(0)
    for brow, eye in ((dynamics._RIGHT_BROW, right), (dynamics._LEFT_BROW, left)):
        points[0, list(brow)], points[1, list(brow)] = eye - np.array([[[0, 2, 0]], [[0, 3, 0]]])
    assert dynamics.brow_dynamics(points) == pytest.approx(0.5 / EYES)


def test_volume_and_silences_by_hand() -> None:
    loud, quiet = np.full(100, 0.5, np.float32), np.full(100, 0.01, np.float32)
    blocks = [loud, quiet, quiet, quiet, loud, quiet, loud]
    volume = Volume.of_samples(blocks, 1000, 9, 10.0)
    np.testing.assert_allclose(volume.rms, [0.5, 0.01, 0.01, 0.01, 0.5, 0.01, 0.5, 0, 0], atol=1e-6)
    assert volume.silent.tolist() == [False, True, True, True, False, False, False, False, False]  # 300 ms at least


def test_silent_lips_by_hand() -> None:
    volume = Volume(np.ones(6), np.array([True, True, True, True, False, False]))
    opening = np.array([0.1, 0.2, 0.4, math.nan, 9, 9])
    assert dynamics.silent_lip_motion(opening, volume) == pytest.approx(0.1)  # deviations 0.1, 0, 0.2
    assert math.isnan(dynamics.silent_lip_motion(opening[:2], volume))


def test_lips_and_volume_by_hand() -> None:
    volume = Volume(np.array([0.2, 0.4, 0.6, 9]), np.array([False, False, False, True]))
    assert dynamics.lip_volume_distance(np.array([1.0, 2, 3, 50]), volume) == pytest.approx(0)
    assert dynamics.lip_volume_distance(np.array([3.0, 2, 1, 50]), volume) == pytest.approx(2 / 3)
    assert math.isnan(dynamics.lip_volume_distance(np.ones(4), volume))


def test_mouth_opening_does_not_depend_on_the_head() -> None:
    points = clip(2)
    points[:, 14] = points[:, 13] + [0, 2, 0]
    found = dynamics.mouth_opening(moved(points, [[0, 0, 0], [10, 40, 5]], [1, 7]))
    np.testing.assert_allclose(found, 2 / EYES)


def test_pumping_by_hand() -> None:
    sizes = np.exp(0.02 * np.array([1, -1] * 12))
    points = moved(clip(24), np.zeros((24, 3)), sizes)
    # The mean of alternating +-1 over five frames is +-0.2 with the sign of the middle, so 0.8 remains.
    assert dynamics.pumping(points, 10) == pytest.approx(1.6, rel=1e-3)
    approaching = moved(clip(24), np.zeros((24, 3)), np.exp(np.linspace(0, 0.5, 24)))
    assert dynamics.pumping(approaching, 10) < 1e-6
    assert dynamics.pumping_ratio(points, moved(clip(24), np.zeros((24, 3)), sizes**0.5), 10) == pytest.approx(0.5)
    assert math.isnan(dynamics.pumping_ratio(approaching[:3], points, 10))


def test_distances_by_hand() -> None:
    driver, result = np.zeros((3, 52)), np.zeros((3, 52))
    result[0, 1], result[1, 0], result[2] = 0.51, 1, math.nan  # _neutral is ignored
    assert dynamics.blendshape_aed(driver, result) == pytest.approx(0.51 / 51 / 2)
    points = clip(2)
    turned = moved(points, [[0, 0, 6], [0, 0, 0]])
    assert dynamics.pose_apd(points, turned) == pytest.approx(1, rel=1e-3)  # 6 over three angles and two frames
    assert math.isnan(dynamics.pose_apd(points, points * math.nan))


def test_a_clip_has_all_scores_against_itself(driver_with_sound: Path, driver_faces: Any, driver: Any) -> None:
    points = np.stack([face.points for face in driver_faces])
    volume = Volume.of_file(driver_with_sound, len(points), 25.0)
    assert volume is not None and len(volume.rms) == len(points)
    found = dynamics.scores(points, points, volume)
    assert list(found) == [f"{name}_score" for name in dynamics.measures(points, volume)]
    assert all(value == 1 or math.isnan(value) for value in found.values())
    assert found["lip_dynamics_score"] == found["head_motion_score"] == 1
    assert Volume.of_file(driver.path, 10, 25.0) is None
    assert math.isnan(dynamics.scores(points, points, None)["lip_volume_score"])
