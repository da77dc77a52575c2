"""A .jsonl file of blendshapes and head poses, or a .csv file of Live Link Face, as a driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from mimik.config import InputError, counted
from mimik.face.landmarks import BLENDSHAPES
from mimik.motion.drivers.driver import Driver, DriverSettings, DrivingMotion
from mimik.motion.drivers.stream import (
    HOLD_S,
    MAX_LINE_BYTES,
    Rest,
    Sample,
    line_of,
    motion_frame_of,
    parse,
    rest_reference,
    sample_of,
)
from mimik.motion.drivers.trackers.live_link import CSV_SUFFIX, csv_samples
from mimik.motion.expression import Float
from mimik.motion.files import Motion
from mimik.motion.frames import MotionFrame
from mimik.motion.smoothing import smoothed

STREAM_SUFFIX = ".jsonl"
_MAX_FPS = 120.0
_MAX_LINES = 1_000_000  # nine hours at 30 a second: 0.5 GB
_MAX_S = 36_000
_MAX_APART_S = 2.0  # rather milliseconds, or frame numbers


class StreamFile(Driver):
    """A recorded or generated stream; docs/stream.md describes the format."""

    kind = "stream"
    suffixes = (STREAM_SUFFIX,)  # a folder may hold a table of something else

    def __init__(self, path: Path, stream: Stream, fps: float | None = None) -> None:
        """Args: path: the file; stream: its content; fps: None is its own rate."""
        rate = fps or stream.fps
        super().__init__(path.name, path, rate, stream.num_frames(rate))
        self._stream = stream

    @classmethod
    def takes(cls, source: str) -> bool:
        return super().takes(source) or (Path(source).suffix.lower() == CSV_SUFFIX and Path(source).is_file())

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        return cls(Path(source), Stream.load(Path(source)), fps)

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        return DrivingMotion(rest_reference(), smoothed(self._stream.frames(self.fps), self.fps, settings.smooth))


@dataclass(frozen=True)
class Stream:
    """A whole stream from a file.

    Attributes:
        name: for messages.
        time_s: [T] increasing, starting at 0.
        blendshapes: [T, 52], head: [T, 6], seen: [T] as in Sample, relative to neutral.
    """

    name: str
    time_s: Float
    blendshapes: Float
    head: Float
    seen: np.ndarray[Any, np.dtype[np.bool_]]

    @property
    def fps(self) -> float:
        """Lines per second, ignoring gaps."""
        if len(self.time_s) < 2:
            return 25.0
        return float(np.clip(1 / np.median(np.diff(self.time_s)), 1.0, _MAX_FPS))

    @property
    def duration_s(self) -> float:
        """Duration, including that of the last line."""
        return float(self.time_s[-1]) + 1 / self.fps

    def num_frames(self, fps: float) -> int:
        return max(1, round(self.duration_s * fps))

    def frames(self, fps: float) -> Iterator[MotionFrame | None]:
        """Samples at the frame rate, interpolated linearly between lines; None if no face is detected.

        In a gap longer than HOLD_S, the last line is held for that time; then the face counts as lost.
        """
        last = len(self.time_s) - 1
        for number in range(self.num_frames(fps)):
            at = number / fps
            i = int(np.searchsorted(self.time_s, at + 1e-9, "right")) - 1
            j = min(i + 1, last)
            gap = self.time_s[j] - self.time_s[i]
            if not self.seen[i] or (gap > HOLD_S and at - self.time_s[i] > HOLD_S):
                yield None
                continue
            t = (at - self.time_s[i]) / gap if self.seen[j] and 0 < gap <= HOLD_S else 0.0
            shapes, head = (x[i] * (1 - t) + x[j] * t for x in (self.blendshapes, self.head))
            yield motion_frame_of(Sample(at, shapes, head))

    @classmethod
    def load(cls, path: Path) -> Stream:
        """Reads a .jsonl or .csv file.

        Raises:
            InputError: if a line of it cannot be used; the sentence names the line.
        """
        is_csv = path.suffix.lower() == CSV_SUFFIX
        times: list[float] = []
        rows: list[Float] = []
        seen: list[bool] = []
        try:
            with path.open("rb") as file:
                for number, sample in csv_samples(_text(file)) if is_csv else _samples(_lines(file)):
                    if len(times) == _MAX_LINES:
                        raise InputError(f"{path} has more than {_MAX_LINES} lines; split it into several files.")
                    if times and sample.time_s <= times[-1]:
                        raise ValueError(
                            number, f"has time {sample.time_s:g}, which is not after that of the line before"
                        )
                    times.append(sample.time_s)
                    rows.append(np.concatenate([sample.blendshapes, sample.head]))
                    seen.append(sample.seen)
        except InputError:
            raise
        except ValueError as error:
            number, why = error.args
            raise InputError(f"{path}, line {number} {why}; {_CSV_LIKE if is_csv else _LIKE}.") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error}); use another file.") from None
        if not times:
            raise InputError(
                f"{path} has no lines; use a file that `mimik motion extract VIDEO -o X{path.suffix.lower()}` wrote."
            )
        if not any(seen):
            raise InputError(
                f"{path}: no line has blendshapes or a head ({counted(len(seen), 'line')}); use a file that has."
            )
        if len(times) > 1 and (apart_s := float(np.median(np.diff(times)))) > _MAX_APART_S:
            raise InputError(
                f"{path}: its lines are {apart_s:g} s apart; times are in seconds, and a driver needs several "
                "lines per second."
            )
        if times[-1] - times[0] > _MAX_S:
            raise InputError(f"{path} lasts {times[-1] - times[0]:g} s; use one of {_MAX_S} s or less.")
        table = np.array(rows)
        split = len(BLENDSHAPES)
        return cls(path.name, np.array(times) - times[0], table[:, :split], table[:, split:], np.array(seen))


_LIKE = 'a driver\'s lines look like {"time": 0.04, "blendshapes": {"jawOpen": 0.3}, "head": {"yaw": 5}}'
_CSV_LIKE = "a .csv file that drives is one that Live Link Face records, or `mimik motion extract` writes"


def _lines(file: Any) -> Iterator[bytes]:
    """Lines of a binary file; a line that is too long is truncated just above the limit."""
    while line := file.readline(MAX_LINE_BYTES + 2):
        yield line


def _text(file: Any) -> Iterator[str]:
    """Lines of a .csv file. Raises ValueError with the number of a line that is too long, or no text."""
    for number, line in enumerate(_lines(file), start=1):
        if len(line) > MAX_LINE_BYTES or b"\0" in line:
            raise ValueError(number, "is not a row of a table")
        yield line.decode("utf-8-sig", "replace")


def _samples(lines: Iterable[bytes]) -> Iterator[tuple[int, Sample]]:
    """The samples of a .jsonl file, with the numbers of their lines. Raises ValueError with a number, and why."""
    rest = Rest()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            sample = rest(parse(line))
        except ValueError as error:
            raise ValueError(number, error) from None
        yield number, sample


def stream_lines(motion: Motion) -> Iterator[str]:
    """The lines of a motion, each with its end."""
    for number, motion_frame in enumerate(motion.frames()):
        yield f"{line_of(sample_of(motion_frame, motion.reference, number / motion.fps))}\n"
