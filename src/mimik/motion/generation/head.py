"""Generated head motion: segments of real tracks, chosen by the speech and joined smoothly; and breathing.

The tracks are of people who talk (tools/make_assets.py), at 25 Hz: rotation, translation, scale, loudness.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from mimik.arrays import Rng, smoothstep
from mimik.files import asset
from mimik.motion.expression import Float

LIBRARY_HZ = 25
POSE = 7  # values of a pose: turn [3] in radians, shift [3] in cm, zoom
_TO_CM = np.array([8.0, 8.0, 8.0, 1.0, 1.0, 1.0, 8.0])  # pose change -> motion of a face point in cm

_STAY_S = 1.6, 4.0  # shortest and longest time between joins
_LEAST_AFTER_S = 1.2  # shortest remainder of a segment after a join
_NUM_DRAWN = 160  # random candidates per join
_HEARD = 12  # frames of loudness that are compared at a join
_LOUDNESS_DB = 8.0  # loudness difference that weighs as much as 1 cm of pose
_SPEED_S = 0.3  # weight of a speed difference: cm of pose per cm/s
_SETTLE_HZ = 4.5  # radians/s, of the critically damped spring that absorbs the difference at a join
_RECENT_S = 25.0  # time before a place of the library may be used again

_BREATH_S = 3.6  # duration of a breath at rest; Bentley: 12 to 18 per minute
_BREATH_SPREAD = 0.12
_BREATH_CM = 0.09  # rise of the head with a breath
_BREATH_DEGREES = 0.35
_DRIFT = ((0.7, np.radians(0.9), 0.05), (4.0, np.radians(1.6), 0.18))  # time constant in s, radians, cm
_DRIFT_AXES = np.array([0.8, 1.0, 0.45, 1.0, 0.6, 0.0])
_DRIFT_SMOOTH_S = 0.35


@dataclass(frozen=True)
class HeadLibrary:
    """Segments of real head motion.

    Attributes:
        pose: [T, POSE] relative to each segment's usual pose.
        loudness_db: [T] above the level of the speech.
        end: [T] index after the last frame of the segment that a frame belongs to.
        start: [T] index of the first frame of that segment.
    """

    pose: Float
    loudness_db: Float
    start: np.ndarray
    end: np.ndarray


@functools.cache
def head_library() -> HeadLibrary:
    with np.load(asset("head_motion.npz")) as arrays:
        pose, loudness, lengths = (arrays[name].astype(np.float64) for name in ("pose", "loudness_db", "lengths"))
    ends = np.cumsum(lengths.astype(int))
    per_frame = np.repeat(np.arange(len(ends)), lengths.astype(int))
    return HeadLibrary(pose, loudness, (ends - lengths.astype(int))[per_frame], ends[per_frame])


class TalkingHead:
    """The head of a speaker: plays the library, and jumps to a place that fits the speech, often at pauses."""

    def __init__(self, rng: Rng, library: HeadLibrary | None = None) -> None:
        self._rng = rng
        self._library = library or head_library()
        self._heard: deque[float] = deque([-40.0] * _HEARD, maxlen=_HEARD)
        self._clock = 0.0  # time since the newest library frame, in library frames
        self._used = np.full(len(self._library.pose), -_RECENT_S)
        self._now_s = 0.0
        self._rest, self._rest_speed = np.zeros(POSE), np.zeros(POSE)  # remaining offset of the spring, and its speed
        self._at = self._find(np.zeros(POSE), np.zeros(POSE))
        self._rest = -self._library.pose[self._at]
        self._stay_s = float(rng.uniform(*_STAY_S))
        self._previous = self._current = np.zeros(POSE)

    def _speed(self, at: int) -> Float:
        pose = self._library.pose
        other = at + 1 if at + 1 < self._library.end[at] else at - 1
        return (pose[other] - pose[at]) * (other - at) * LIBRARY_HZ

    def _find(self, pose: Float, speed: Float) -> int:
        """The library frame at which the motion continues: the best match in loudness, pose and speed."""
        library = self._library
        inside = np.flatnonzero(
            (library.end - np.arange(len(library.end)) > _LEAST_AFTER_S * LIBRARY_HZ)
            & (np.arange(len(library.end)) - library.start >= _HEARD)
            & (self._now_s - self._used >= _RECENT_S)
        )
        if not len(inside):  # a library shorter than _RECENT_S
            inside = np.flatnonzero(library.end - np.arange(len(library.end)) > _LEAST_AFTER_S * LIBRARY_HZ)
        chosen = self._rng.choice(inside, min(_NUM_DRAWN, len(inside)), replace=False)
        heard = np.array(self._heard)
        rows = chosen[:, None] + np.arange(-_HEARD + 1, 1)
        sound = np.abs(library.loudness_db[rows.clip(0)].clip(-30, 10) - heard.clip(-30, 10)).mean(1) / _LOUDNESS_DB
        away = np.linalg.norm((library.pose[chosen] - pose) * _TO_CM, axis=1)
        speeds = np.array([self._speed(int(at)) for at in chosen])
        change = np.linalg.norm((speeds - speed) * _TO_CM, axis=1) * _SPEED_S
        return int(chosen[np.argmin(sound + 0.5 * away + change)])

    def _advance(self, loudness_db: float, pause_began: bool) -> None:
        """Advance by one frame of the library."""
        dt = 1 / LIBRARY_HZ
        self._heard.append(loudness_db)
        self._now_s += dt
        self._stay_s -= dt
        decay = math.exp(-_SETTLE_HZ * dt)
        a, b = self._rest, self._rest_speed + _SETTLE_HZ * self._rest
        self._rest, self._rest_speed = (a + b * dt) * decay, (b - _SETTLE_HZ * (a + b * dt)) * decay
        self._at += 1
        at_end = self._at + 1 >= self._library.end[self._at]
        if at_end or self._stay_s <= 0 or (pause_began and self._rng.random() < 0.6):
            pose = self._library.pose[self._at] + self._rest
            speed = self._speed(self._at) + self._rest_speed
            self._at = self._find(pose, speed)
            self._rest, self._rest_speed = pose - self._library.pose[self._at], speed - self._speed(self._at)
            self._stay_s = float(self._rng.uniform(*_STAY_S))
        self._used[max(0, self._at - 5) : self._at + 6] = self._now_s
        self._previous, self._current = self._current, self._library.pose[self._at] + self._rest

    def step(self, dt: float, loudness_db: float, *, pause_began: bool = False) -> Float:
        """[POSE] the pose dt seconds later. Args: loudness_db: of the sound, above the level of the speech."""
        self._clock += dt * LIBRARY_HZ
        while self._clock >= 1:
            self._clock -= 1
            self._advance(loudness_db, pause_began)
            pause_began = False
        return self._previous + self._clock * (self._current - self._previous)


class RestingHead:
    """The head of a waiting person: breathing, and slow drift around the usual pose."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._phase = float(rng.random())
        self._length_s = _BREATH_S
        self._drift = [np.zeros(6) for _ in _DRIFT]
        self._smooth = np.zeros(6)

    def step(self, dt: float) -> Float:
        """[POSE] the pose dt seconds later."""
        self._phase += dt / self._length_s
        if self._phase >= 1:
            self._phase -= 1
            self._length_s = _BREATH_S * math.exp(_BREATH_SPREAD * self._rng.normal())
        # Inhale for 0.4 of a breath, exhale for 0.5, rest for 0.1.
        t = self._phase
        breath = float(smoothstep(t, 0, 0.4) if t < 0.4 else 1 - smoothstep(t, 0.4, 0.9))
        for (tau_s, radians, cm), state in zip(_DRIFT, self._drift, strict=True):
            keep = math.exp(-dt / tau_s)
            noise = self._rng.normal(size=6) * math.sqrt(1 - keep * keep)
            state *= keep
            state += noise * _DRIFT_AXES * np.array([radians] * 3 + [cm] * 3)
        self._smooth += (1 - math.exp(-dt / _DRIFT_SMOOTH_S)) * (sum(self._drift, np.zeros(6)) - self._smooth)
        out = np.zeros(POSE)
        out[:6] = self._smooth
        out[4] -= _BREATH_CM * (breath - 0.5)
        out[0] -= math.radians(_BREATH_DEGREES) * (breath - 0.5)
        return out
