"""The protocol that every driver follows: a neutral reference and an iterator of motion frames at a constant rate."""

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

USUAL_FPS = 25.0  # of a driver without a rate of its own, where none is asked for
USUAL_S = 10.0  # length of a driver without an end of its own, where none is asked for


@dataclass(frozen=True, kw_only=True)
class DriverSettings:
    """What a driver is given when its motion begins; each kind takes from it what it needs.

    Attributes:
        landmarker: for a driver that shows a face; used by one thread at a time.
        face: which face of the driver, 1 is the widest; None is the widest.
        neutral_s: when the face is neutral, in seconds; only for a driver that has_frames. None finds it.
        smooth: temporal smoothing, 0 (off) to 1 (smoothest).
        seed: of motion that is generated.
        clock: counts the busy time of the stages "decode" and "track".
        progress: called with a stage, the frames done and of all, if known.
    """

    landmarker: Landmarker
    face: int | None = None
    neutral_s: float | None = None
    smooth: float = 0.5
    seed: int = 0
    clock: Clock = field(default_factory=Clock)
    progress: Progress = silent


class DrivingMotion:
    """The motion of a driver, begun; a context manager that ends whatever runs behind it.

    Attributes:
        neutral: the driver's neutral reference, which the motion frames are relative to.
        frames: the motion frames, one every 1 / fps seconds; read once.
        notes: what the user should know, for the report; complete when the frames are read.
    """

    def __init__(
        self,
        neutral: Reference,
        frames: Iterator[MotionFrame],
        close: Callable[[], None] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        """Args: neutral, frames, notes: as above; close: ends threads and closes files behind the frames."""
        self.neutral, self.frames = neutral, frames
        self.notes: list[str] = [] if notes is None else notes
        self._close = close

    def close(self) -> None:
        """Ends the threads behind the frames, read or not; harmless when repeated."""
        if self._close is not None:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Driver(ABC):
    """Anything that can drive a person, opened and checked; `motion` begins it.

    Attributes:
        kind: what this is, in a word, for messages.
        suffixes: of the files that a folder of drivers is searched for, in lower case.
        has_frames: whether the user may name the frame that shows the neutral face.
        is_still: whether it is a single expression, so that the result may be a picture.
        shows_faces: whether there are pictures in which one of several faces may be chosen.
        is_generated: whether the motion is drawn at random, from a seed.
        name: for people and for the manifest.
        path: the file, an ingredient of what is made; None where there is none.
        fps: motion frames a second.
        num_frames: None where it is not known before the end.
        sound: the file whose sound goes along with the result, None for silence.
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
        """Words that are given instead of a file, such as a bundled motion's, and the file behind each, if any."""
        return {}

    @classmethod
    def takes(cls, source: str) -> bool:
        """Whether this kind opens a source: one of its names, or a file with one of its suffixes."""
        return source in cls.names() or (Path(source).suffix.lower() in cls.suffixes and Path(source).is_file())

    @classmethod
    @abstractmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        """Opens and checks a source that this kind takes, before any model is loaded.

        Args:
            source: a file, or one of names().
            fps: motion frames a second; None is the driver's own rate.

        Raises:
            InputError: if it cannot be used.
        """

    def check_options(self, *, neutral_s: float | None = None, face: int | None = None, seed: int = 0) -> None:
        """Refuses options that have no effect on this driver, and a neutral face after its end.

        Args: as DriverSettings has them.

        Raises:
            InputError: naming the option.
        """
        given = None
        if neutral_s is not None and self.has_frames:
            check_within(neutral_s, self.num_frames, self.fps)
        if neutral_s is not None and not self.has_frames:
            given = f"--neutral {neutral_s:g}", "has no frames to choose from; give a video", "--neutral"
        elif face is not None and not self.shows_faces:
            given = f"--driver-face {face}", "shows no faces to choose from; give a video or a photo", "--driver-face"
        elif seed and not self.is_generated:
            given = f"--seed {seed}", "has a motion of its own; give a recording of speech, or idle,", "--seed"
        if given:
            option, why, name = given
            raise OptionError(f"{option}: {self.name} is a {self.kind} and {why} as driver, or leave {name} out.")

    def lasting(self, seconds: float) -> Driver:
        """The same driver with another length: its first seconds, where it has an end of its own.

        Raises:
            OptionError: if it is a single expression.
        """
        if self.is_still:
            raise OptionError(
                f"--seconds {seconds:g}: {self.name} is a {self.kind} and has no length; leave --seconds out, or give "
                "a video."
            )
        return Beginning(self, seconds)

    @abstractmethod
    def motion(self, settings: DriverSettings) -> DrivingMotion:
        """Begins the motion, from its first frame; may be called again.

        Raises InputError if there is no motion in it, such as a video without a face.
        """


class Beginning(Driver):
    """The first seconds of a driver; the neutral face is looked for as in the whole of it."""

    def __init__(self, driver: Driver, seconds: float) -> None:
        """Args: driver: opened; seconds: of it, at most."""
        num_frames = max(1, round(seconds * driver.fps))
        if driver.num_frames is not None:
            num_frames = min(num_frames, driver.num_frames)
        super().__init__(driver.name, driver.path, driver.fps, num_frames, sound=driver.sound)
        for flag in ("kind", "has_frames", "is_still", "shows_faces", "is_generated"):
            setattr(self, flag, getattr(driver, flag))
        self._driver = driver

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        raise NotImplementedError("the beginning of a driver is open")

    def check_options(self, *, neutral_s: float | None = None, face: int | None = None, seed: int = 0) -> None:
        self._driver.check_options(neutral_s=neutral_s, face=face, seed=seed)

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        begun = self._driver.motion(settings)
        return DrivingMotion(begun.neutral, itertools.islice(begun.frames, self.num_frames), begun.close, begun.notes)
