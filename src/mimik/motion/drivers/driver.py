"""The protocol of all drivers: a neutral reference and an iterator of motion frames at a constant rate."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from mimik.config import OptionError
from mimik.face.landmarks import Landmarker
from mimik.motion.extraction import check_within
from mimik.motion.frames import MotionFrame, Reference
from mimik.pipeline import Clock, Progress, silent

USUAL_FPS = 25.0  # default rate of a driver without a rate
USUAL_S = 10.0  # default length of a driver without an end


@dataclass(frozen=True, kw_only=True)
class DriverSettings:
    """Settings passed to Driver.motion; each kind uses those it needs.

    Attributes:
        landmarker: for drivers that show a face; not thread-safe.
        face: number of the driver's face, 1 is the widest; None: the widest.
        neutral_s: time at which the face is neutral, seconds; only for drivers with has_frames. None: automatic.
        smooth: temporal smoothing, 0 (off) to 1 (smoothest).
        seed: random seed of generated motion.
        clock: measures the busy time of the stages "decode" and "track".
        progress: called with a stage, completed frames, and the total or None if unknown.
    """

    landmarker: Landmarker
    face: int | None = None
    neutral_s: float | None = None
    smooth: float = 0.5
    seed: int = 0
    clock: Clock = field(default_factory=Clock)
    progress: Progress = silent


class DrivingMotion:
    """The running motion of a driver; a context manager that stops its threads and closes its files.

    Attributes:
        neutral: the driver's neutral reference, to which the motion frames are relative.
        frames: the motion frames, one every 1 / fps seconds; can be iterated once.
        notes: for the user's report; complete after the last frame.
    """

    def __init__(
        self,
        neutral: Reference,
        frames: Iterator[MotionFrame],
        close: Callable[[], None] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        """Args: neutral, frames, notes: see the class; close: stops threads and closes files."""
        self.neutral, self.frames = neutral, frames
        self.notes: list[str] = [] if notes is None else notes
        self._close = close

    def close(self) -> None:
        """Stop the threads, even if not all frames were read; may be called repeatedly."""
        if self._close is not None:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Driver(ABC):
    """A driver, opened and validated; `motion` starts it.

    Attributes:
        kind: the kind in a word, for messages.
        suffixes: lower-case suffixes by which a folder of drivers is searched.
        has_frames: whether the user may select the neutral frame.
        is_still: whether it is a single expression, so that the result may be a picture.
        shows_faces: whether it has pictures in which a face may be selected.
        is_generated: whether the motion is random, generated from a seed.
        name: for messages and the manifest.
        path: the file, an ingredient in the manifest; None if there is none.
        fps: motion frames per second.
        num_frames: None if unknown in advance.
        sound: the file whose sound is added to the result; None: no sound.
    """

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    has_frames: ClassVar[bool] = False
    is_still: ClassVar[bool] = False
    shows_faces: ClassVar[bool] = False
    is_generated: ClassVar[bool] = False

    def __init__(
        self, name: str, path: Path | None, fps: float, num_frames: int | None, *, sound: Path | None = None
    ) -> None:
        self.name, self.path, self.fps, self.num_frames, self.sound = name, path, fps, num_frames, sound

    @classmethod
    def names(cls) -> Mapping[str, Path | None]:
        """Names accepted instead of a file, such as those of bundled motions; and the file of each, if any."""
        return {}

    @classmethod
    def takes(cls, source: str) -> bool:
        """Whether this kind opens a source: one of its names, or a file with one of its suffixes."""
        return source in cls.names() or (Path(source).suffix.lower() in cls.suffixes and Path(source).is_file())

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        """Open and validate a source of this kind, before any model is loaded; not of a kind without names and files.

        Args:
            source: a file, or one of names().
            fps: motion frames per second; None: the driver's own rate.

        Raises:
            InputError: if it cannot be used.
        """
        raise NotImplementedError(f"a {cls.kind} is not opened by name")

    def check_options(self, *, neutral_s: float | None = None, face: int | None = None, seed: int = 0) -> None:
        """Check that the options apply to this driver, and that the neutral frame is not after its end.

        Args: as in DriverSettings.

        Raises:
            InputError: naming the option.
        """
        given = None
        if neutral_s is not None and self.has_frames:
            check_within(neutral_s, self.num_frames, self.fps)
        if neutral_s is not None and not self.has_frames:
            given = f"--neutral {neutral_s:g}", "has no frames to choose from; use a video", "--neutral"
        elif face is not None and not self.shows_faces:
            given = f"--driver-face {face}", "shows no faces to choose from; use a video or a photo", "--driver-face"
        elif seed and not self.is_generated:
            given = f"--seed {seed}", "has its own motion; use a recording of speech, or idle,", "--seed"
        if given:
            option, why, name = given
            raise OptionError(f"{option}: {self.name} is a {self.kind} and {why} as driver, or omit {name}.")

    def lasting(self, seconds: float) -> Driver:
        """The driver with another length: its first seconds, if it has an end.

        Raises:
            OptionError: if it is a single expression.
        """
        if self.is_still:
            raise OptionError(
                f"--seconds {seconds:g}: {self.name} is a {self.kind} and has no length; omit --seconds, or use "
                "a video."
            )
        return Beginning(self, seconds)

    @abstractmethod
    def motion(self, settings: DriverSettings) -> DrivingMotion:
        """Start the motion from its first frame; may be called repeatedly.

        Raises InputError if it has no motion, for instance a video without a face.
        """


class Beginning(Driver):
    """The first seconds of a driver; the neutral reference is that of the whole driver."""

    def __init__(self, driver: Driver, seconds: float) -> None:
        """Args: driver: opened; seconds: maximum length."""
        num_frames = max(1, round(seconds * driver.fps))
        if driver.num_frames is not None:
            num_frames = min(num_frames, driver.num_frames)
        super().__init__(driver.name, driver.path, driver.fps, num_frames, sound=driver.sound)
        for flag in ("kind", "has_frames", "is_still", "shows_faces", "is_generated"):
            setattr(self, flag, getattr(driver, flag))
        self._driver = driver

    def check_options(self, *, neutral_s: float | None = None, face: int | None = None, seed: int = 0) -> None:
        self._driver.check_options(neutral_s=neutral_s, face=face, seed=seed)

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        begun = self._driver.motion(settings)
        frames = itertools.islice(begun.frames, self.num_frames)
        return DrivingMotion(begun.neutral, frames, begun.close, begun.notes)
