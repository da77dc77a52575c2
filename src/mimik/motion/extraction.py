"""From a stream of tracked faces to motion relative to a neutral face that is found in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from mimik.config import NoFaceError
from mimik.face.landmarks import Face
from mimik.motion.frames import Gesture, Reference, split
from mimik.motion.neutral import find_neutral, usual_place
from mimik.motion.smoothing import smoothed

LOOKAHEAD_S = 8.0  # of a streamed driver: the neutral face is looked for in this much of its beginning


def stream_gestures(
    driver: Iterable[Face | None], fps: float, *, smooth: float = 0.5, lookahead_s: float = LOOKAHEAD_S
) -> tuple[Reference, Iterator[Gesture]]:
    """The neutral face of a driver and its gestures, one a frame, relative to it.

    The beginning of the stream is held back, as faces only, until the neutral face has been found in it. Where the face
    is lost the gesture eases to neutral and back.

    Args:
        driver: faces frame by frame, None where there is none.
        fps: of the driver.
        smooth: 0..1, see Smoother.
        lookahead_s: how much is held back; more only while there is no face at all.

    Raises:
        NoFaceError: if there is no face in the whole stream.
    """
    source = iter(driver)
    held: list[Face | None] = []
    seen: list[Face] = []
    for frame in source:
        held.append(frame)
        if frame is not None:
            seen.append(frame)
        if seen and len(held) >= lookahead_s * fps:
            break
    if not seen:
        raise NoFaceError(f"no face in any of the driver's {len(held)} frames.")
    reference = find_neutral(seen)
    origin = usual_place(seen, reference)
    raw = (None if f is None else split(f, reference, origin) for f in itertools.chain(held, source))
    return reference, smoothed(raw, fps, smooth)
