"""Temporal smoothing of a driver's motion, and bridging of gaps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from mimik.arrays import smoothstep
from mimik.face import landmarks as faces
from mimik.motion.expression import Float
from mimik.motion.frames import MotionFrame, rotation_matrix, rotation_vector, still

# In which the driver's own pose takes the place of the photo's. On 20 clips of the training set heads then turn by at
# most 35 degrees a second in it (mean of the clips' largest; 45 later in the same clips).
BEGIN_S = 0.4
_LOSS_EASE_S = 0.5  # duration of the transition to neutral after losing the face, and back

# Of a still face at smooth = 0.5: cutoff in Hz, how fast it rises with speed (Hz per cm/s), and the cutoff in Hz of the
# speed. On 12 clips of the training set (medians; standard deviation and correlation against the raw track, jitter as
# the median second difference): lips 0.98 of the amplitude at 0.997 and 0.75 of the jitter, eyelids 0.98 at 0.994 and
# 0.61, brows 0.96 at 0.989 and 0.55, yaw 1.00 at 0.998 and 0.52, pitch 0.98 at 0.995 and 0.54.
_CUTOFF = {
    "pose": (1.2, 2.0, 8.0),
    "lips": (3.0, 8.0, 8.0),
    "eyes": (3.0, 8.0, 8.0),
    "rest": (3.0, 4.0, 8.0),
}


def relative_to_photo_pose(motion_frames: Iterable[MotionFrame], fps: float) -> Iterator[MotionFrame]:
    """The motion frames, starting with the head pose of the photo.

    A driver rarely starts in its usual pose: in 40 clips of the training set, the first frame is 6.8 degrees away from
    it in the median, and more than 16 degrees in a tenth of them. The head motion of the first frame is subtracted, and
    the subtraction fades out within BEGIN_S. The expression is not changed, so that the lips stay in sync with the
    sound.
    """
    first: MotionFrame | None = None
    for number, frame in enumerate(motion_frames):
        first = first or frame
        left = 1 - float(smoothstep(number / fps, 0.0, BEGIN_S))
        if left > 0:
            turn = rotation_matrix(frame.turn) @ rotation_matrix(left * first.turn).T
            frame = replace(
                frame,
                turn=rotation_vector(turn),
                shift=frame.shift - left * first.shift,
                zoom=frame.zoom - left * first.zoom,
            )
        yield frame


class OneEuro:
    """The One-Euro filter (Casiez et al. 2012) for a vector whose coordinates move together.

    The cutoff rises with the RMS speed of the whole vector, so that noise of single coordinates averages out and all
    coordinates have the same delay.
    """

    def __init__(self, min_cutoff_hz: float, beta: float, derivative_cutoff_hz: float = 2.0) -> None:
        self._min_cutoff, self._beta, self._derivative_cutoff = min_cutoff_hz, beta, derivative_cutoff_hz
        self._value: Float | None = None
        self._speed: Float | None = None

    def __call__(self, x: Float, dt: float) -> Float:
        """The filtered value of x, measured dt seconds after the previous one."""
        if self._value is None or self._speed is None:
            self._value, self._speed = x.copy(), np.zeros_like(x)
            return self._value
        speed = (x - self._value) / dt
        self._speed = self._speed + _gain(self._derivative_cutoff, dt) * (speed - self._speed)
        cutoff = self._min_cutoff + self._beta * math.sqrt(float((self._speed**2).mean()))
        self._value = self._value + _gain(cutoff, dt) * (x - self._value)
        return self._value


def _gain(cutoff_hz: float, dt: float) -> float:
    r = 2 * math.pi * cutoff_hz * dt
    return r / (r + 1)


class Smoother:
    """One-Euro filters over motion frames: pose as one vector, each feature of the face as one."""

    def __init__(self, amount: float) -> None:
        """Args: amount: 0 (off) to 1 (smoothest)."""
        self._amount = amount
        self._filters: dict[str, OneEuro] = {}
        self._features = {
            "lips": np.array(sorted({*faces.LIPS, faces.CHIN})),
            "eyes": np.array([*faces.EYES, *faces.IRISES]),
        }
        rest = np.ones(faces.NUM_POINTS, bool)
        for index in self._features.values():
            rest[index] = False
        self._features["rest"] = np.flatnonzero(rest)

    def _filter(self, name: str) -> OneEuro:
        if name not in self._filters:
            cutoff, beta, of_speed = _CUTOFF[name]
            # At 0.5 the cutoffs are those of the table; toward 0 they go to infinity, toward 1 to a fifth.
            k = (1 - self._amount) / self._amount if self._amount <= 0.5 else 1 - 1.6 * (self._amount - 0.5)
            self._filters[name] = OneEuro(cutoff * k, beta * k, of_speed)
        return self._filters[name]

    def __call__(self, motion_frame: MotionFrame, dt: float) -> MotionFrame:
        if self._amount == 0:
            return motion_frame
        # One scale for the pose: 1 rad moves a point of the face by about 8 cm, 1 of log-zoom likewise.
        pose = np.concatenate([motion_frame.turn * 8, motion_frame.shift, [motion_frame.zoom * 8]])
        pose = self._filter("pose")(pose, dt)
        offset = np.empty_like(motion_frame.offset)
        for name, index in self._features.items():
            part = motion_frame.offset[index]
            offset[index] = self._filter(name)(part, dt)
        return replace(motion_frame, turn=pose[:3] / 8, shift=pose[3:6], zoom=float(pose[6]) / 8, offset=offset)


def smoothed(motion_frames: Iterable[MotionFrame | None], fps: float, amount: float) -> Iterator[MotionFrame]:
    """Smoothed motion frames without gaps.

    Args:
        motion frames: one a frame, None where the face was lost.
        fps: of the motion frames.
        amount: 0..1, see Smoother.
    """
    steady = Steady(amount)
    for motion_frame in motion_frames:
        yield steady(motion_frame, 1 / fps)


class Steady:
    """Smooths motion frames and bridges gaps, frame by frame, at a variable rate."""

    def __init__(self, amount: float) -> None:
        """Args: amount: 0..1, see Smoother."""
        self._amount = amount
        self._smoother = Smoother(amount)
        self._last: MotionFrame | None = None
        self._weight = 1.0  # 0: neutral, 1: the driver

    def __call__(self, motion_frame: MotionFrame | None, dt: float) -> MotionFrame:
        """Args: motion frame: None where the face was lost; dt: seconds since the previous one."""
        step = min(dt / _LOSS_EASE_S, 1.0)
        if motion_frame is None:
            self._weight = max(0.0, self._weight - step)
            if self._last is None:
                self._weight = 0.0
                self._last = still()
            current = replace(self._last, seen=False)
        else:
            if self._weight == 0:
                self._smoother = Smoother(self._amount)  # do not filter across the gap
            self._weight = min(1.0, self._weight + step)
            current = self._last = self._smoother(motion_frame, dt)
        eased = float(smoothstep(self._weight))
        return current if eased == 1 else current.scaled(eased)
