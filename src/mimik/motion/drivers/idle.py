"""Idle motion as a driver without end: breathing, blinks, gaze shifts and small head motion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from mimik.motion.drivers.driver import USUAL_FPS, USUAL_S, Driver, DriverSettings, DrivingMotion
from mimik.motion.frames import MotionFrame
from mimik.motion.generation.idle import IdleMotion
from mimik.motion.generation.speech import closed_reference
from mimik.motion.kinds import IDLE
from mimik.motion.smoothing import smoothed


class Idle(Driver):
    """Someone who waits. It has no file, and no end but the one that is asked for."""

    kind = IDLE
    is_generated = True

    def __init__(self, fps: float, seconds: float) -> None:
        super().__init__(self.kind, None, fps, max(1, round(seconds * fps)))

    @classmethod
    def names(cls) -> Mapping[str, Path | None]:
        return {cls.kind: None}

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        return cls(fps or USUAL_FPS, USUAL_S)

    def lasting(self, seconds: float) -> Self:
        return type(self)(self.fps, seconds)

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        # What is generated has no noise of a landmarker: only smoothing beyond the usual amount is applied.
        smooth = max(0.0, 2 * settings.smooth - 1)
        return DrivingMotion(closed_reference(), smoothed(self._frames(settings.seed), self.fps, smooth))

    def _frames(self, seed: int) -> Iterator[MotionFrame]:
        life = IdleMotion(seed=seed)
        assert self.num_frames is not None
        for _ in range(self.num_frames):
            yield life.step(1 / self.fps)
