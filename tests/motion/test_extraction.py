"""Motion from a stream of faces: delayed frames, and refused input."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from mimik.config import NoFaceError
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face
from mimik.motion.extraction import stream_motion
from shapes import EYES, gap


class Source:
    """Counts the consumed faces."""

    def __init__(self, frames: list[Face | None]) -> None:
        self.frames, self.taken = frames, 0

    def __iter__(self) -> Iterator[Face | None]:
        for frame in self.frames:
            self.taken += 1
            yield frame


def test_a_stream_is_held_back_no_longer_than_asked(small_face: Face) -> None:
    source = Source([small_face] * 100)
    _, stream = stream_motion(source, 10.0, lookahead_s=2.0)
    assert source.taken == 20
    for done in range(1, 31):
        next(stream)
        assert source.taken == max(20, done)
    assert 30 + len(list(stream)) == 100


def test_a_stream_waits_for_its_first_face(small_face: Face) -> None:
    source = Source([None] * 30 + [small_face] * 30)
    _, stream = stream_motion(source, 10.0, lookahead_s=2.0)
    assert source.taken == 31
    assert [g.seen for g in stream] == [False] * 30 + [True] * 30


@pytest.mark.parametrize("frames", [[], [None] * 5])
def test_a_stream_without_a_face(frames: list[None]) -> None:
    with pytest.raises(NoFaceError, match=rf"no face in the driver \({len(frames)} frames\)"):
        stream_motion(frames, 25.0)


def test_motion_frames_of_the_driver_are_what_it_was_made_from(driver, motion_frames) -> None:
    reference, stream = motion_frames
    yaw = np.array([-math.degrees(g.turn[1]) for g in stream])
    assert np.corrcoef(yaw, driver.yaw)[0, 1] > 0.98
    lips = faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER
    opening = np.array([gap(reference.shape + g.offset, *lips) for g in stream])
    assert np.corrcoef(opening, driver.gap)[0, 1] > 0.98
    eye = np.array([gap(reference.shape + g.offset, *EYES[0]) for g in stream])
    still_head = driver.yaw < 0.1
    assert np.corrcoef(eye[still_head], -driver.blink[still_head])[0, 1] > 0.8
