"""Maps motion frames to the person's points, and blends between drivers without a jump."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.animation.source_frame import SourceFrame
from mimik.app.live.controls import MAX_STEP_S, Controls
from mimik.arrays import smoothstep
from mimik.motion.frames import MotionFrame, Reference

IDLE_AFTER_S = 1.0  # time without a face until the idle motion starts
_EASE_S = 0.6  # duration of the blend between drivers

Points = NDArray[Any]


class Aim:
    """Maps motion frames, relative to one neutral reference, to the person's points."""

    def __init__(self, portrait: SourceFrame, neutral: Reference) -> None:
        self._portrait, self._neutral = portrait, neutral
        self._controls: Controls | None = None

    def __call__(self, motion_frame: MotionFrame, controls: Controls) -> Points:
        """Target points, [478, 3] in pixels of the portrait."""
        if controls != self._controls:
            self._controls = controls
            self._retarget = self._portrait.retarget(
                self._neutral, regions=controls.regions, strength=controls.strength
            )
        return self._retarget(motion_frame)


class Transitions:
    """The target points of the current driver; a change of the driver is blended within _EASE_S."""

    def __init__(self, start: Points) -> None:
        """Args: start: [478, 3] of the photo, shown while the first driver, the camera, yields None."""
        self._by = "camera"
        self._start = self._from = self._shown = start
        self._mix = 1.0
        self._at_s: float | None = None

    def dt(self, at_s: float) -> float:
        """Seconds since the previous frame."""
        return 1 / 25 if self._at_s is None else float(np.clip(at_s - self._at_s, 1e-3, MAX_STEP_S))

    def __call__(self, by: str, points: Points | None, at_s: float) -> Points | None:
        """Points to show; None: the unchanged photo.

        Args:
            by: name of the driver.
            points: [478, 3] target points of the driver; None: the photo.
            at_s: current time.
        """
        dt = self.dt(at_s)
        self._at_s = at_s
        if by != self._by:
            self._by, self._from, self._mix = by, self._shown, 0.0
        self._mix = min(1.0, self._mix + dt / _EASE_S)
        if points is None and self._mix == 1:
            self._shown = self._start
            return None
        goal = self._start if points is None else points
        eased = float(smoothstep(self._mix))
        self._shown = goal if self._mix == 1 else eased * goal + (1 - eased) * self._from
        return self._shown
