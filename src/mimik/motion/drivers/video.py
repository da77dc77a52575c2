"""A video as a driver: the face in it, tracked while it is decoded."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

from mimik.config import InputError, NoFaceError
from mimik.face.landmarks import Face, Image, Landmarker, Tracker
from mimik.media import video
from mimik.motion.drivers.driver import Driver, DriverSettings, DrivingMotion
from mimik.motion.extraction import stream_motion
from mimik.motion.files import Motion
from mimik.motion.frames import MotionFrame
from mimik.pipeline import Clock, Progress, prefetch, silent

_TRACK_MAX_SIDE = 1280  # larger drivers are tracked at this size: the landmarker takes 256 px of the face


class Video(Driver):
    """A video file of any format that can be read; its sound goes along."""

    kind = "video"
    has_frames = True
    suffixes = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
    path: Path

    @classmethod
    def takes(cls, source: str) -> bool:
        """Every file; whether it is a video shows when it is opened."""
        return Path(source).exists()

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        path = Path(source)
        info = video.probe(path)
        rate = fps or info.fps
        num_frames = None if info.duration_s is None else math.ceil(info.duration_s * rate - 1e-6)
        return cls(path.name, path, rate, num_frames, sound=path if info.has_audio else None)

    def faces(self, tracker: Tracker, clock: Clock, progress: Progress) -> Generator[Face | None]:
        """The face in each frame, None where it is not seen; decoding runs in a thread of its own."""
        frames = video.read_frames(self.path, fps=self.fps, max_side=_TRACK_MAX_SIDE)
        decoded = prefetch(clock.each("decode", frames))
        return _tracked(decoded, tracker, clock, progress, self.num_frames)

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        tracker = Tracker(settings.landmarker, settings.face)
        tracked = prefetch(self.faces(tracker, settings.clock, settings.progress), size=64)
        try:
            reference, motion_frames = stream_motion(
                tracked, self.fps, smooth=settings.smooth, neutral_s=settings.neutral_s
            )
        except NoFaceError as error:
            tracked.close()
            number = f" number {settings.face}" if settings.face else ""
            raise NoFaceError(
                f"driver {self.name}: no face{number} was found in any of its frames; give a video in which one face "
                "is seen from the front or half side most of the time."
            ) from error
        except BaseException:
            tracked.close()
            raise
        notes = [reference.note] if reference.note else []
        return DrivingMotion(reference, _noted(motion_frames, tracker, self.name, notes), tracked.close, notes)


def jump_note(tracker: Tracker, name: str) -> str | None:
    """What to say of a tracker that followed a face from one place to another; None if it did not."""
    if not tracker.num_jumps:
        return None
    times = "once" if tracker.num_jumps == 1 else f"{tracker.num_jumps} times"
    return f"the face in {name} is lost and found in another place {times}; it may be another person's there"


def _noted(
    motion_frames: Iterable[MotionFrame], tracker: Tracker, name: str, notes: list[str]
) -> Iterator[MotionFrame]:
    """The motion frames; at their end the note that belongs to them."""
    yield from motion_frames
    if note := jump_note(tracker, name):
        notes.append(note)


def _tracked(
    frames: Generator[Image], tracker: Tracker, clock: Clock, progress: Progress, total: int | None
) -> Generator[Face | None]:
    with closing(frames):
        for done, frame in enumerate(frames, start=1):
            with clock("track"):
                face = tracker.track(frame)
            progress("track", done, total)
            yield face


def extract_motion(
    driver: Driver, *, face: int | None = None, neutral_s: float | None = None, progress: Progress = silent
) -> Motion:
    """A video's motion as numbers, with the neutral face of the whole video.

    Args:
        driver: as registry.open_driver opens it.
        face: which face, 1 is the widest; None is the widest.
        neutral_s: when the face is neutral, in seconds; None finds it region by region.
        progress: called with a stage, the frames done and of all, if known.

    Raises:
        InputError: if it is not a video, no face is found, or none at neutral_s.
    """
    if not isinstance(driver, Video):
        raise InputError(f"{driver.name} is a {driver.kind}; motion is extracted from a video.")
    found = list(driver.faces(Tracker(Landmarker(num_threads=2), face), Clock(), progress))
    try:
        reference, motion_frames = stream_motion(found, driver.fps, smooth=0, lookahead_s=math.inf, neutral_s=neutral_s)
    except NoFaceError as error:
        raise NoFaceError(f"{driver.path}: no face was found in any of its {len(found)} frames.") from error
    return Motion.of_frames(driver.path.stem, driver.fps, reference, motion_frames)
