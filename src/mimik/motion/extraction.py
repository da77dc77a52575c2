"""From a stream of tracked faces to motion frames relative to a neutral reference found in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from mimik.config import InputError, NoFaceError, counted
from mimik.face.landmarks import Face, Pose
from mimik.motion.frames import MotionFrame, Reference, split
from mimik.motion.neutral import find_neutral, median_pose, named_neutral
from mimik.motion.smoothing import smoothed

_NAMED_S = 0.1  # interval around the user's time over which the neutral reference is averaged
NEUTRAL_LOOKAHEAD_S = 8.0  # initial part of a streamed driver in which the neutral reference is searched


def stream_motion(
    driver: Iterable[Face | None],
    fps: float,
    *,
    smooth: float = 0.5,
    lookahead_s: float = NEUTRAL_LOOKAHEAD_S,
    neutral_s: float | None = None,
) -> tuple[Reference, Iterator[MotionFrame]]:
    """The neutral reference of a driver, and one motion frame per video frame relative to it.

    The beginning of the stream is buffered, as landmarks only, until the neutral reference has been found in it. Where
    the face is lost, the motion eases to neutral and back.

    Args:
        driver: faces frame by frame, None where there is none.
        fps: of the driver.
        smooth: 0..1, see Smoother.
        lookahead_s: how much is buffered; more only while there is no face, or until neutral_s.
        neutral_s: time at which the driver's face is neutral, seconds; None: automatic, region by region.

    Raises:
        NoFaceError: if there is no face in the whole stream.
        InputError: if there is none at neutral_s.
    """
    wanted_s = lookahead_of(neutral_s, lookahead_s)
    source = iter(driver)
    held: list[Face | None] = []
    seen: list[Face] = []
    for frame in source:
        held.append(frame)
        if frame is not None:
            seen.append(frame)
        if seen and len(held) >= wanted_s * fps:
            break
    if not seen:
        raise NoFaceError(f"no face in the driver ({counted(len(held), 'frame')}).")
    if neutral_s is None:
        reference, origin = neutral_and_place(held, fps)
    else:
        reference = _reference_at(held, fps, neutral_s)
        origin = median_pose(seen, reference)
    return reference, motion_from(itertools.chain(held, source), fps, reference, origin, smooth=smooth)


def neutral_and_place(faces: Sequence[Face | None], fps: float) -> tuple[Reference, Pose]:
    """Neutral reference and usual position of these faces, at least one of which is not None; fps: of the faces."""
    seen = [face for face in faces if face is not None]
    reference = find_neutral(seen, [number / fps for number, face in enumerate(faces) if face is not None])
    return reference, median_pose(seen, reference)


def motion_from(
    driver: Iterable[Face | None], fps: float, reference: Reference, origin: Pose, *, smooth: float
) -> Iterator[MotionFrame]:
    """Motion frames of faces relative to a neutral reference at origin; other arguments as in stream_motion."""
    return smoothed((None if f is None else split(f, reference, origin) for f in driver), fps, smooth)


def lookahead_of(neutral_s: float | None, lookahead_s: float = NEUTRAL_LOOKAHEAD_S) -> float:
    """Seconds of a driver that are read before its first motion frame; arguments as in stream_motion."""
    return lookahead_s if neutral_s is None else max(lookahead_s, neutral_s + _NAMED_S)


def check_within(neutral_s: float, num_frames: int | None, fps: float) -> None:
    """Raises:
    InputError: if the neutral face is named at a time after the driver's end, where that is known.
    """
    if num_frames is not None and neutral_s >= num_frames / fps:
        raise InputError(
            f"--neutral {neutral_s:g}: the driver lasts {num_frames / fps:.1f} s; use a time within it, in seconds."
        )


def _reference_at(held: Sequence[Face | None], fps: float, time_s: float) -> Reference:
    """The neutral reference at a time given by the user."""
    check_within(time_s, len(held), fps)  # the file may have said that it is longer
    near = sorted(range(len(held)), key=lambda number: abs(number / fps - time_s))
    chosen = [i for i in near if abs(i / fps - time_s) <= max(_NAMED_S, 0.5 / fps) + 1e-9]
    faces = [face for face in (held[i] for i in chosen) if face is not None]
    if not faces:
        raise InputError(f"--neutral {time_s:g}: the driver shows no face then; use a time at which it does.")
    return named_neutral(faces, time_s)
