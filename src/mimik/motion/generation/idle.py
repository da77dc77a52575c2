"""Endless motion frames of a waiting person: breath, blinks, gaze shifts, occasional small mouth movements."""

from __future__ import annotations

import math

import numpy as np

from mimik.arrays import Rng
from mimik.face.landmarks import BLENDSHAPES
from mimik.motion.expression import Float
from mimik.motion.frames import MotionFrame
from mimik.motion.generation.eyes import Eyes, Speaking
from mimik.motion.generation.head import RestingHead
from mimik.motion.generation.speech import mouth_frame, with_pose

_MOUTH_EVERY_S = 6.0  # median between two small movements of the mouth
_MOUTH_SPREAD = 0.6
_MOUTH_LENGTH_S = 0.5, 1.8
# Blendshapes of the movements and their strength.
_MOUTH_MOVES = (
    {"mouthPressLeft": 0.25, "mouthPressRight": 0.25, "mouthRollLower": 0.12},
    {"mouthSmileLeft": 0.18, "mouthSmileRight": 0.16},
    {"mouthPucker": 0.12, "mouthShrugLower": 0.08},
    {"mouthRollLower": 0.2, "mouthRollUpper": 0.15},
)
_MOUTHS = np.array([[move.get(name, 0.0) for name in BLENDSHAPES] for move in _MOUTH_MOVES])


class _Mouth:
    """Small mouth movements with pauses between them."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._wait = self._pause()
        self._move: tuple[Float, float] | None = None  # blendshapes and length
        self._time = 0.0

    def _pause(self) -> float:
        return _MOUTH_EVERY_S * math.exp(_MOUTH_SPREAD * self._rng.normal())

    def step(self, dt: float) -> Float:
        """[52] blendshapes above rest."""
        self._wait -= dt
        if self._move is None and self._wait <= 0:
            strength = self._rng.uniform(0.5, 1.2)
            self._move = (
                _MOUTHS[self._rng.integers(len(_MOUTHS))] * strength,
                self._rng.uniform(*_MOUTH_LENGTH_S),
            )
            self._time = 0.0
        if self._move is None:
            return np.zeros(len(BLENDSHAPES))
        shapes, length = self._move
        self._time += dt
        if self._time >= length:
            self._move, self._wait = None, self._pause()
            return np.zeros(len(BLENDSHAPES))
        out: Float = shapes * math.sin(math.pi * self._time / length) ** 2
        return out


class IdleMotion:
    """A stream of idle motion without repetition; equal seeds and steps give equal frames."""

    def __init__(self, *, seed: int = 0) -> None:
        streams = np.random.default_rng(seed).spawn(3)
        self._head, self._eyes, self._mouth = RestingHead(streams[0]), Eyes(streams[1]), _Mouth(streams[2])

    def step(self, dt: float) -> MotionFrame:
        """The motion frame dt seconds later, relative to speech.closed_reference."""
        pose = self._head.step(dt)
        shapes = self._eyes.step(dt, Speaking(), np.degrees(np.array([-pose[1], pose[0]])))
        return with_pose(mouth_frame(shapes + self._mouth.step(dt), 0.0, None), pose)
