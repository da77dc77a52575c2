"""Probes of fine-tuning: identity and motion fidelity of synthesized expressions and head turns."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mimik.config import Preset
from mimik.face.landmarks import BROWS, EYES, IRISES, LIPS, POINTS_68, Array, Face, Image, Landmarker, head_pose
from mimik.motion.files import Motion
from mimik.motion.kinds import bundled_motions
from mimik.motion.retargeting import Retarget
from mimik.networks.features import FaceNet
from mimik.training.pairs import PreparedPhoto, generator_inputs, to_frames

# The frame of a bundled motion with the strongest expression or the largest turn of the head.
_PROBES = (
    ("laugh", "offset"),
    ("smile", "offset"),
    ("surprise", "offset"),
    ("talk", "offset"),
    ("look-around", "turn"),
    ("nod", "turn"),
)
_EXPRESSION = sorted({*LIPS, *EYES, *BROWS, *IRISES})
_ONE_PERSON = 0.6  # dlib's threshold: two pictures of one person are usually closer


class Point(NamedTuple):
    """A point of the learning curve."""

    step: int  # updates of G
    seconds: float  # since the first
    # 1 - d / 1.2, at least 0; d: mean distance of the probes' dlib embeddings from the nearest photo's. Paper's form:
    # the mean of this and the appearance score (Learner.appearance).
    identity: float
    motion_fidelity: float  # share of the intended motion in the detected landmarks; mean over probes, at least 0
    score: float  # mean of both; with left-out photos 2 - left_out
    left_out: float | None = None  # error on left-out photos, relative to the initial one; Learner.left_out


class Probes:
    """Frames of the bundled motions, synthesized for one person and scored."""

    def __init__(self, shot: PreparedPhoto, photos: Image, points: Array, preset: Preset) -> None:
        """Args: shot: the source photo; photos, points: [T, ..] from windows.photo_windows."""
        self._landmarker = Landmarker()
        self._face_net = FaceNet().eval()
        config = preset.networks
        scale = np.float32(config.frame_px / config.image_px)
        self._known = self._face_net.embed_faces(list(photos), list(points * scale))
        self._rest = (shot.window.to_unit(shot.face.points) * config.frame_px).astype(np.float32)
        goals = []
        for name, part in _PROBES:
            motion = Motion.load(bundled_motions()[name])
            size = np.abs(getattr(motion, part)).reshape(len(motion), -1).sum(1)
            motion_frame = next(itertools.islice(motion.frames(), int(size.argmax()), None))
            goals.append(Retarget(shot.face, motion.reference)(motion_frame))
        self.batch, self._goals = generator_inputs(shot, goals, preset.networks)

    def scores(self, x_hat: Tensor) -> tuple[float, float]:
        """Identity and motion fidelity of G's output for the batch, [N, 3, H, W]; see Point."""
        images = to_frames(x_hat)
        fidelities, detected = [], []
        for image, goal, (_, part) in zip(images, self._goals, _PROBES, strict=True):
            face = self._landmarker.follow(image, Face(goal, np.zeros(0, np.float32), 1.0))
            if face is None:
                fidelities.append(0.0)
                continue
            fidelities.append(max(0.0, _motion_fidelity(part, goal, self._rest, face.points)))
            detected.append((image, face.points))
        found = self._face_net.embed_faces([image for image, _ in detected], [points for _, points in detected])
        near = np.linalg.norm(found[:, None] - self._known, axis=-1).min(1)
        identity = (1 - near / (2 * _ONE_PERSON)).clip(0, 1).sum() / len(images)
        return float(identity), float(np.mean(fidelities))


def _motion_fidelity(part: str, goal: Array, rest: Array, found: Array) -> float:
    """1: landmarks at their targets; 0: as far from them as the landmarks of a still face.

    Turns are compared in the picture, expressions in the head's coordinates: else a smile would count less than a nod.
    """
    if part == "turn":
        places = [p[POINTS_68, :2] - p[POINTS_68, :2].mean(0) for p in (goal, rest, found)]
    else:
        places = [head_pose(p).invert(p)[_EXPRESSION, :2] for p in (goal, rest, found)]
    goal, rest, found = places
    return float(1 - np.linalg.norm(found - goal) / np.linalg.norm(rest - goal))
