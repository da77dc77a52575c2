"""Synthetic faces in centimeters of the head's coordinates: reference data of the tests of motion/."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, NUM_POINTS, Face, canonical_mesh, head_pose
from mimik.motion.contact import (
    closed_mouth,
)
from mimik.motion.frames import MotionFrame, Reference

FPS = 25.0
EYES = ((faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER), (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER))
angles = st.floats(-1.7, 1.7)


def canonical_shape() -> np.ndarray:
    """[478, 3] the canonical face with touching lips and centered irises, in centimeters."""
    mesh = canonical_mesh().vertices
    irises = []
    for a, b in ((33, 133), (362, 263)):
        middle = mesh[[a, b]].mean(0)
        irises += [middle + 0.55 * np.array(d) for d in ((0, 0, 0), (1, 0, 0), (0, -1, 0), (-1, 0, 0), (0, 1, 0))]
    return closed_mouth(np.concatenate([mesh, irises]), np.zeros(52))


def closed_lips(face: Face) -> Face:
    """The same face with touching lips."""
    pose = head_pose(face.points)
    shape = closed_mouth(pose.invert(face.points), face.blendshapes)
    return replace(face, points=pose.apply(shape).astype(np.float32))


def opened(shape: np.ndarray, height: float = 1.0) -> np.ndarray:
    """A face with open eyes, which are half closed in the canonical face."""
    out = shape.copy()
    for _, lower in EYES:
        out[lower] += np.array([0, 1, 0]) * height * 0.4 * np.sin(np.linspace(0, np.pi, 9))[:, None]
    return out


def a_face(points: np.ndarray, **blendshapes: float) -> Face:
    values = np.array([blendshapes.get(name, 0.0) for name in BLENDSHAPES], np.float32)
    return Face(points.astype(np.float32), values, 1.0)


def still() -> MotionFrame:
    return MotionFrame(np.zeros(3), np.zeros(3), 0.0, np.zeros((NUM_POINTS, 3)), np.zeros(52))


def reference_of(shape: np.ndarray) -> Reference:
    return Reference(shape, np.eye(3), np.zeros(52))


def gap(shape: np.ndarray, upper: list[int], lower: list[int]) -> float:
    """Visible opening of a mouth or an eye: the sum over its points."""
    return float(np.linalg.norm((shape[upper] - shape[lower])[:, :2], axis=1).sum())
