"""shots.py: all cuts are detected, and only cuts."""

from __future__ import annotations

import numpy as np

from made_files import texture
from mimik.data.preparation.shots import split_shots
from mimik.face.landmarks import Image


def cuts(frames: list[Image]) -> list[int]:
    given = list(split_shots(frames))
    assert [frame is given_frame for frame, (given_frame, _) in zip(frames, given, strict=True)] == [True] * len(frames)
    return [i for i, (_, is_cut) in enumerate(given) if is_cut]


def test_hard_cuts_are_found_where_they_are() -> None:
    shots = [texture(seed) for seed in range(4)]
    frames = [shot.copy() for shot, length in zip(shots, (10, 5, 7, 4), strict=True) for _ in range(length)]
    assert cuts(frames) == [0, 10, 15, 22]


def test_flashes_fades_and_fast_motion_are_no_cuts() -> None:
    still = texture(1)
    white = np.full_like(still, 250)
    assert cuts([still.copy() for _ in range(8)] + [white, white] + [still.copy() for _ in range(8)]) == [0]
    assert cuts([(still * k).astype(np.uint8) for k in np.linspace(1, 0.05, 12)]) == [0]
    wide = texture(2, (96, 1400))
    assert cuts([np.ascontiguousarray(wide[:, x : x + 128]) for x in range(0, 1200, 60)]) == [0]


def test_cuts_of_nothing_and_of_one_frame() -> None:
    assert cuts([]) == []
    assert cuts([texture(1)]) == [0]
