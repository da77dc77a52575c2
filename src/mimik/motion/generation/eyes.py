"""Generated blinks, gaze and brow motion, from published statistics and from the speech.

Each class generates one stream of random events; `step` advances it by dt seconds. Equal seeds and equal steps give
equal motion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mimik.arrays import Rng, smoothstep
from mimik.face.landmarks import BLENDSHAPES
from mimik.motion.expression import Float

# Interval between blinks while speaking or not: median in seconds, and spread, of a log-normal distribution. It gives
# about 24 blinks per minute in conversation and 15 at rest (Bentivoglio et al. 1997: 26 and 17).
_BLINK_EVERY_S = {True: 2.1, False: 3.4}
_BLINK_SPREAD = 0.55
_BLINK_LEAST_S = 0.5  # shortest interval
_BLINK_SHAPE_S = 0.09, 0.04, 0.19  # seconds of closing, closed, opening (VanderWerf et al. 2003)
_BLINK_AT_PAUSE = 0.3  # probability of a blink at a pause of the speech
_BLINK_WITH_GAZE = 0.5  # probability of a blink with a large gaze shift
_DOUBLE_BLINK = 0.08  # probability that a second blink follows

_GAZE_CAMERA_S = 2.6  # median duration of gaze at the camera (log-normal) ...
_GAZE_AWAY_S = 0.9  # ... and of gaze elsewhere
_GAZE_SPREAD = 0.6
_GAZE_LIMIT_DEGREES = 11.0
# Lee, Badler and Badler 2002 ("Eyes Alive"): size of saccades while talking in degrees, and percentage per direction,
# in steps of 45 degrees, from the picture's right, counterclockwise.
_SACCADE_SCALE = 6.9
_SACCADE_DIRECTIONS = np.array([15.54, 6.46, 17.69, 7.44, 16.80, 7.89, 20.38, 7.79])
_FIXATION_DEGREES = 0.5  # standard deviation of drift and small saccades during a fixation
_FIXATION_EVERY_S = 0.45
_SACCADE_TAU_S = 0.018
FULL_GAZE_DEGREES = 30.0  # gaze angle at a gaze blendshape of 1
_COUNTER_ROTATION = 0.8  # share of the head rotation that the eyes compensate

_BROW_RISE_S, _BROW_FALL_S = 0.09, 0.35
_BROW_DB = 4.0  # loudness above the level of the speech that counts as emphasis
_BROW_CHANCE = 0.55  # probability that the brows rise at an emphasis
_BROW_LEAST_S = 0.9  # shortest interval between emphases

_LOOKS = {
    axis: tuple((BLENDSHAPES.index(a), BLENDSHAPES.index(b)) for a, b in pairs)
    for axis, pairs in {
        "right": (("eyeLookOutLeft", "eyeLookInRight"), ("eyeLookInLeft", "eyeLookOutRight")),
        "down": (("eyeLookDownLeft", "eyeLookDownRight"), ("eyeLookUpLeft", "eyeLookUpRight")),
    }.items()
}
_BLINK = [BLENDSHAPES.index(f"eyeBlink{side}") for side in ("Left", "Right")]
_BROW_INNER = BLENDSHAPES.index("browInnerUp")
_BROW_OUTER = [BLENDSHAPES.index(f"browOuterUp{side}") for side in ("Left", "Right")]


@dataclass(frozen=True)
class Speaking:
    """State of the speech at one instant.

    Attributes:
        active: there is speech, now or within the last third of a second.
        pause_began: a pause of the speech was detected at this instant.
        emphasis_db: loudness above the level of the speech.
    """

    active: bool = False
    pause_began: bool = False
    emphasis_db: float = -40.0


class Blinks:
    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._since = 0.0
        self._wait = self._interval(False) * rng.random()
        self._phase: float | None = None  # seconds into a blink

    def _interval(self, speaking: bool) -> float:
        wait = _BLINK_EVERY_S[speaking] * math.exp(_BLINK_SPREAD * self._rng.normal())
        return max(_BLINK_LEAST_S, wait)

    def step(self, dt: float, speaking: Speaking, *, gaze_shift: bool = False) -> float:
        """How far the eyelids are closed, 0..1."""
        self._since += dt
        wanted = self._since >= self._wait
        if self._phase is None and self._since > _BLINK_LEAST_S:
            chance = _BLINK_AT_PAUSE * speaking.pause_began + _BLINK_WITH_GAZE * gaze_shift
            wanted = wanted or (chance > 0 and self._rng.random() < chance)
        if self._phase is None and wanted:
            self._phase, self._since = 0.0, 0.0
            self._wait = 0.45 if self._rng.random() < _DOUBLE_BLINK else self._interval(speaking.active)
        if self._phase is None:
            return 0.0
        self._phase += dt
        closing, closed, opening = _BLINK_SHAPE_S
        t = self._phase
        if t < closing:
            return float(smoothstep(t, 0, closing))
        if t < closing + closed:
            return 1.0
        t = (t - closing - closed) / opening
        if t < 1:
            return 1 - float(smoothstep(t))
        self._phase = None
        return 0.0


class Gaze:
    """Gaze at the camera, with occasional glances aside and small fixational movements."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._target = np.zeros(2)
        self._small = np.zeros(2)
        self._at = np.zeros(2)
        self._wait, self._wait_small = self._length(_GAZE_CAMERA_S), 0.0

    def _length(self, median_s: float) -> float:
        return median_s * math.exp(_GAZE_SPREAD * self._rng.normal())

    def step(self, dt: float) -> tuple[Float, bool]:
        """[2] gaze in degrees to the picture's right and down, and whether a large shift begins at this step."""
        self._wait -= dt
        self._wait_small -= dt
        shifted = False
        if self._wait <= 0:
            away = not self._target.any()
            target = np.zeros(2)
            if away:
                size = min(-_SACCADE_SCALE * math.log(self._rng.uniform(0.15, 0.95)), _GAZE_LIMIT_DEGREES)
                chances = _SACCADE_DIRECTIONS / _SACCADE_DIRECTIONS.sum()
                angle = math.radians(45 * self._rng.choice(8, p=chances) + self._rng.uniform(-22, 22))
                target = size * np.array([math.cos(angle), -0.7 * math.sin(angle)])
            shifted = float(np.linalg.norm(target - self._target)) > 6.0
            self._target = target
            self._wait = self._length(_GAZE_AWAY_S if away else _GAZE_CAMERA_S)
        if self._wait_small <= 0:
            self._small = self._rng.normal(0, _FIXATION_DEGREES, 2)
            self._wait_small = self._length(_FIXATION_EVERY_S)
        self._at = self._at + (1 - math.exp(-dt / _SACCADE_TAU_S)) * (self._target + self._small - self._at)
        return self._at, shifted


class Brows:
    """Brows that rise with emphasis."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._since = 0.0
        self._goal = 0.0
        self._hold = 0.0
        self._at = 0.0

    def step(self, dt: float, speaking: Speaking) -> float:
        """How far the brows are raised, 0..1."""
        self._since += dt
        self._hold -= dt
        if speaking.active and speaking.emphasis_db > _BROW_DB and self._since > _BROW_LEAST_S:
            self._since = 0.0
            if self._rng.random() < _BROW_CHANCE:
                self._goal, self._hold = float(self._rng.uniform(0.35, 1.0)), float(self._rng.uniform(0.12, 0.5))
        if self._hold <= 0:
            self._goal = 0.0
        tau = _BROW_RISE_S if self._goal > self._at else _BROW_FALL_S
        self._at += (1 - math.exp(-dt / tau)) * (self._goal - self._at)
        return self._at


class Eyes:
    """Eyelids, gaze and brows, as blendshapes."""

    def __init__(self, rng: Rng) -> None:
        self._blinks, self._gaze, self._brows = Blinks(rng), Gaze(rng), Brows(rng)

    def step(self, dt: float, speaking: Speaking, head_degrees: Float) -> Float:
        """[52] blendshapes above rest; those of the mouth are 0.

        Args: head_degrees: [2] head rotation to the picture's right and down, relative to its usual pose.
        """
        gaze, shifted = self._gaze.step(dt)
        looked = (gaze - _COUNTER_ROTATION * head_degrees) / FULL_GAZE_DEGREES
        out = np.zeros(len(BLENDSHAPES))
        for value, axis in zip(looked, _LOOKS, strict=True):
            positive, negative = _LOOKS[axis]
            out[list(positive if value > 0 else negative)] = min(abs(float(value)), 1.0)
        out[_BLINK] = self._blinks.step(dt, speaking, gaze_shift=shifted)
        raised = self._brows.step(dt, speaking)
        out[_BROW_INNER] = 0.45 * raised
        out[_BROW_OUTER] = 0.3 * raised
        return out
