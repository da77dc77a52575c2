"""A driver's neutral face: what its motion is counted from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face, Pose, fit_similarity, head_pose
from mimik.motion.expression import Float, expression_basis
from mimik.motion.frames import Gesture, Reference, rotation_matrix, rotation_vector, still

_EXPRESSIVE = {
    "jawOpen": 2.0,
    "mouthSmileLeft": 1.0,
    "mouthSmileRight": 1.0,
    "mouthPucker": 0.7,
    "mouthFunnel": 1.5,
    "mouthUpperUpLeft": 1.0,
    "mouthUpperUpRight": 1.0,
    "mouthLowerDownLeft": 1.0,
    "mouthLowerDownRight": 1.0,
    "eyeBlinkLeft": 1.5,
    "eyeBlinkRight": 1.5,
    "eyeWideLeft": 1.0,
    "eyeWideRight": 1.0,
    "eyeLookOutLeft": 0.5,
    "eyeLookOutRight": 0.5,
    "eyeLookInLeft": 0.5,
    "eyeLookInRight": 0.5,
    "browInnerUp": 0.7,
    "browDownLeft": 0.5,
    "browDownRight": 0.5,
}
_EXPRESSIVE_WEIGHTS = np.array([_EXPRESSIVE.get(name, 0.0) for name in BLENDSHAPES])


def find_neutral(driver: Sequence[Face]) -> Reference:
    """The driver's neutral face: the mean of the calmest tenth of the frames.

    Calm is little expression by the blendshapes, compared with what this face always shows, and a head near its usual
    pose.

    Args:
        driver: at least one face, in the order of the video.
    """
    shapes = np.array([f.blendshapes for f in driver], np.float64)
    poses = [head_pose(f.points) for f in driver]
    angles = np.array([p.degrees for p in poses])
    away = np.abs(angles - np.median(angles, 0)).sum(1) / 30 + np.abs(angles[:, :2]).sum(1) / 60
    usual = np.percentile(shapes, 10, axis=0)
    score = (shapes - usual).clip(0) @ _EXPRESSIVE_WEIGHTS + away
    best = np.argsort(score, kind="stable")[: max(1, min(len(driver) // 10, 15))]
    middle = poses[best[0]]
    shape = np.mean([middle.invert(_onto(driver[i].points, driver[best[0]].points)) for i in best], axis=0)
    return Reference(shape, middle.rotation, shapes[best].mean(0))


def _onto(points: NDArray[Any], other: NDArray[Any]) -> Float:
    """points [478, 3] moved rigidly so that their skull lies on that of other."""
    return faces.skull_motion(points, other).apply(points)


def usual_place(seen: Sequence[Face], reference: Reference) -> Pose:
    """Where the driver's neutral head usually is in the driver's picture: the median place and size."""
    poses = [fit_similarity(reference.shape[faces.SKULL], f.points[faces.SKULL]) for f in seen]
    translation = np.median([p.translation for p in poses], axis=0)
    return Pose(reference.rotation, translation, float(np.median([p.scale for p in poses])))


def gesture_of_photo(driver: Face) -> tuple[Reference, Gesture]:
    """The gesture of a driver of whom there is one picture: against the neutral face that its blendshapes tell of.

    The head's turn is counted from the usual pose of people who face a camera.
    """
    basis = expression_basis()
    pose = head_pose(driver.points)
    offset = basis.expression(driver.blendshapes - basis.neutral)
    usual = rotation_matrix(np.array([basis.neutral_pitch, 0, 0]))
    reference = Reference(pose.invert(driver.points) - offset, usual, basis.neutral)
    turn = rotation_vector(pose.rotation @ usual.T)
    return reference, replace(still(), turn=turn, offset=offset, blendshapes=driver.blendshapes.astype(np.float64))
