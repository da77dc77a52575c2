"""A .motion file, a bundled motion by its name, or a Motion in memory, as a driver."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from mimik.motion.drivers.driver import Driver, DriverSettings, DrivingMotion
from mimik.motion.files import Motion
from mimik.motion.kinds import bundled_motions
from mimik.motion.smoothing import smoothed


class MotionFile(Driver):
    """Numbers that `mimik motion extract` wrote; `recorded` holds all of them."""

    kind = "motion"
    suffixes = (".motion",)

    def __init__(self, name: str, path: Path | None, recorded: Motion, fps: float | None = None) -> None:
        """Args: name, path: as Driver has them; recorded: the content; fps: None is its own."""
        rate = fps or recorded.fps
        super().__init__(name, path, rate, round(recorded.duration_s * rate))
        self.recorded = recorded

    @classmethod
    def names(cls) -> Mapping[str, Path]:
        return bundled_motions()

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        bundled = cls.names().get(source)
        path = bundled or Path(source)
        return cls(f"bundled {path.stem}" if bundled else path.name, path, Motion.load(path), fps)

    @classmethod
    def of(cls, recorded: Motion, fps: float | None) -> Self:
        """A motion in memory."""
        return cls("motion in memory", None, recorded, fps)

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        recorded = self.recorded.at_rate(self.fps)
        return DrivingMotion(recorded.reference, smoothed(recorded.frames(), self.fps, settings.smooth))
