"""A video as a driver: its face is tracked while the video is decoded."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from mimik.config import InputError, NoFaceError, counted
from mimik.face.landmarks import Face, Image, Landmarker
from mimik.face.orientation import find_faces, num_quarter_turns
from mimik.face.tracker import Tracker
from mimik.media import video
from mimik.media.reading import VideoFrame
from mimik.motion.drivers.driver import Driver, DriverSettings, DrivingMotion
from mimik.motion.extraction import NEUTRAL_LOOKAHEAD_S, lookahead_of, motion_from, neutral_and_place, stream_motion
from mimik.motion.files import Motion
from mimik.motion.frames import MotionFrame, Reference
from mimik.pipeline import Clock, Progress, prefetch, silent

_TURN_FRAMES = 25  # number of initial frames in which a rotated face is searched
# Frames from which the neutral face is estimated: smallest number, and lowest rate; other frames are skipped.
_LEAST_LOOKED_AT, _LOOKED_AT_HZ = 64, 8
_TRACK_MAX_SIDE = 1280  # larger frames are reduced to this side for tracking: the detector sees 256 px of a face


@dataclass
class _Orientation:
    """How the frames of a driver are turned.

    Attributes:
        turns: quarters that make the frames upright; None before the first face.
    """

    turns: int | None = None


class Filmed(Driver):
    """A driver whose frames show a face, which is tracked while the frames are read."""

    has_frames = True
    shows_faces = True

    @abstractmethod
    def pictures(self, max_side: int) -> Generator[Image | VideoFrame]:
        """The frames, uint8 RGB [H, W, 3] or converted to it, at fps.

        Args: max_side: larger frames may be reduced to it, pixels.
        """

    def faces(
        self,
        tracker: Tracker,
        clock: Clock,
        progress: Progress,
        num_blendshapes: float = math.inf,
        orientation: _Orientation | None = None,
    ) -> Generator[Face | None]:
        """The face in each frame, None if it is not visible; decoding runs in a separate thread.

        Args:
            num_blendshapes: number of initial frames that need blendshapes; more until a face is found.
            orientation: of the frames; None: found here.
        """
        decoded = prefetch(clock.each("decode", self.pictures(_TRACK_MAX_SIDE)))
        return _tracked(
            decoded, tracker, clock, progress, self.num_frames, num_blendshapes, orientation or _Orientation()
        )

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        tracker = Tracker(settings.landmarker, settings.face)
        # Frames that are read before the first one is made.
        first = math.ceil(lookahead_of(settings.neutral_s) * self.fps)

        def report_progress(stage: str, done: int, total: int | None) -> None:
            settings.progress(stage, done, first if total is None else min(first, total))

        # The neutral face is found by blendshapes, too; the motion frames are of points alone.
        tracked = prefetch(self.faces(tracker, settings.clock, report_progress, num_blendshapes=first), size=64)
        try:
            reference, motion_frames = stream_motion(
                tracked, self.fps, smooth=settings.smooth, neutral_s=settings.neutral_s
            )
        except NoFaceError as error:
            tracked.close()
            if settings.face is not None and settings.face > 1:
                raise NoFaceError(
                    f"--driver-face {settings.face}: driver {self.name} shows fewer faces; use a smaller number, or "
                    "omit --driver-face for the largest face."
                ) from error
            raise NoFaceError(
                f"driver {self.name}: no face was found in any of its frames; use a video in which one face is seen "
                "from the front or half side most of the time."
            ) from error
        except BaseException:
            tracked.close()
            raise
        return self._driving(reference, motion_frames, tracked, tracker)

    def _driving(
        self,
        reference: Reference,
        motion_frames: Iterator[MotionFrame],
        tracked: Generator[Face | None],
        tracker: Tracker,
    ) -> DrivingMotion:
        """The motion of tracked faces; the tracker's note is added at the end."""
        notes = [reference.note] if reference.note else []
        return DrivingMotion(reference, _noted(motion_frames, tracker, self.name, notes), tracked.close, notes)


class Video(Filmed):
    """A video file of any readable format; its sound is added to the result."""

    kind = "video"
    suffixes = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
    path: Path

    @classmethod
    def takes(cls, source: str) -> bool:
        """Every file; opening it shows whether it is a video."""
        return Path(source).exists()

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        path = Path(source)
        info = video.probe(path)
        rate = fps or info.fps
        num_frames = None if info.duration_s is None else math.ceil(info.duration_s * rate - 1e-6)
        return cls(path.name, path, rate, num_frames, sound=path if info.has_audio else None)

    def pictures(self, max_side: int) -> Generator[Image | VideoFrame]:
        return video.decode_frames(self.path, fps=self.fps, max_side=max_side, rough=True)

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        """As in Filmed, but the first frame comes earlier: the beginning of the video is read twice.

        The first pass tracks only some of its frames, to estimate the neutral face; the second pass tracks all frames.
        """
        num = min(math.ceil(NEUTRAL_LOOKAHEAD_S * self.fps), self.num_frames or 0)
        every = min(int(self.fps // _LOOKED_AT_HZ), num // _LEAST_LOOKED_AT)
        if settings.neutral_s is not None or every < 2:
            return super().motion(settings)
        tracker = Tracker(settings.landmarker, settings.face)
        looked_at = video.decode_frames(
            self.path, fps=self.fps, max_side=_TRACK_MAX_SIDE, every=every, rough=True, skim=True
        )
        decoded = prefetch(settings.clock.each("decode", looked_at))

        def report_progress(stage: str, done: int, _: int | None) -> None:
            settings.progress(stage, min(every * done, num), num)

        orientation = _Orientation()
        first_pass = _tracked(decoded, tracker, settings.clock, report_progress, None, math.inf, orientation)
        with closing(first_pass) as tracked:
            found = list(itertools.islice(tracked, math.ceil(num / every)))
        if not any(found):
            return super().motion(settings)
        reference, origin = neutral_and_place(found, self.fps / every)
        tracker = Tracker(settings.landmarker, settings.face)
        if found[0] is not None:
            tracker.start(found[0], is_there=True)
        faces = prefetch(self.faces(tracker, settings.clock, silent, 0, orientation), size=64)
        motion_frames = motion_from(faces, self.fps, reference, origin, smooth=settings.smooth)
        return self._driving(reference, motion_frames, faces, tracker)


def jump_note(tracker: Tracker, name: str) -> str | None:
    """A note if the tracker jumped to a distant face; None if it did not."""
    if not tracker.num_jumps:
        return None
    times = "once" if tracker.num_jumps == 1 else f"{tracker.num_jumps} times"
    return f"the face in {name} is lost and found again in another place {times}; it may be another person"


def _noted(
    motion_frames: Iterable[MotionFrame], tracker: Tracker, name: str, notes: list[str]
) -> Iterator[MotionFrame]:
    """The motion frames; adds the tracker's note after the last one."""
    yield from motion_frames
    if note := jump_note(tracker, name):
        notes.append(note)


def _tracked(
    frames: Generator[Image | VideoFrame],
    tracker: Tracker,
    clock: Clock,
    progress: Progress,
    total: int | None,
    num_blendshapes: float,
    orientation: _Orientation,
) -> Generator[Face | None]:
    any_face = False
    with closing(frames):
        for done, frame in enumerate(frames, start=1):
            with clock("track"):
                if orientation.turns is None and done <= _TURN_FRAMES:
                    orientation.turns = _turns(frame, tracker)
                upright = np.ascontiguousarray(np.rot90(frame, orientation.turns)) if orientation.turns else frame
                face = tracker.track(upright, blendshapes=done <= num_blendshapes or not any_face)
            any_face = any_face or face is not None
            progress("track", done, total)
            yield face


def _turns(frame: Image | VideoFrame, tracker: Tracker) -> int | None:
    """Number of quarter turns that make a driver's frames upright, from one of them; None if it shows no face."""
    found = find_faces(tracker.landmarker, np.asarray(frame))
    return num_quarter_turns(found[0]) if found else None


def extract_motion(
    driver: Driver, *, face: int | None = None, neutral_s: float | None = None, progress: Progress = silent
) -> Motion:
    """Extract the motion of a video, with a neutral reference from the whole video.

    Args:
        driver: a video, or frames in memory, from registry.open_driver.
        face: number of the face, 1 is the widest; None: the widest.
        neutral_s: time at which the face is neutral, seconds; None: automatic, region by region.
        progress: called with a stage, completed frames, and the total or None if unknown.

    Raises:
        InputError: if it is not a video, no face is found, or none at neutral_s.
    """
    if not isinstance(driver, Filmed):
        raise InputError(f"{driver.name} is a {driver.kind}; motion is extracted from a video.")
    found = list(driver.faces(Tracker(Landmarker(num_threads=2), face), Clock(), progress))
    try:
        reference, motion_frames = stream_motion(found, driver.fps, smooth=0, lookahead_s=math.inf, neutral_s=neutral_s)
    except NoFaceError as error:
        where = driver.path or driver.name
        raise NoFaceError(f"{where}: no face was found ({counted(len(found), 'frame')}).") from error
    name = driver.path.stem if driver.path else driver.name
    return Motion.of_frames(name, driver.fps, reference, motion_frames)
