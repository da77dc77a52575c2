"""The expression basis: how points move per blendshape, without anybody's identity."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Float
from mimik.face.landmarks import Pose
from mimik.files import asset


@dataclass(frozen=True)
class ExpressionBasis:
    """Linear models of point displacement, fitted to the tracks of the training corpus (tools/make_assets.py)."""

    by_blendshape: Float  # [52, 478, 3] centimeters for a blendshape of 1: an expression without anybody's identity
    by_pose: Float  # [5, 478, 3] error of the landmark detector on turned heads, per term of pose_terms()
    neutral: Float  # [52] mean blendshapes of the clips' neutral faces
    shape: Float  # [478, 3] mean of those faces, centimeters, own frame
    neutral_pitch: float  # radians, rotation about x of the mean neutral head: a camera rarely stands at eye level

    def expression(self, blendshapes: NDArray[Any]) -> Float:
        """[478, 3] centimeters for blendshapes [52]."""
        return np.tensordot(blendshapes, self.by_blendshape, 1)


@functools.cache
def expression_basis() -> ExpressionBasis:
    with np.load(asset("expression_basis.npz")) as arrays:
        a = {name: arrays[name].astype(np.float64) for name in arrays.files}
    return ExpressionBasis(a["by_blendshape"], a["by_pose"], a["neutral"], a["shape"], float(a["neutral_pitch"]))


def pose_terms(rotation: Float) -> Float:
    """[5] yaw, pitch and their squares and product, in radians, of a head's rotation."""
    yaw, pitch, _ = np.radians(Pose(rotation, np.zeros(3), 1.0).degrees)
    return np.array([yaw, pitch, yaw * yaw, pitch * pitch, yaw * pitch])


def pose_leak(rotation: Float) -> Float:
    return np.tensordot(pose_terms(rotation), expression_basis().by_pose, 1)
