"""benchmarks/turned.py: selected frames, the halves of the face, and means computed by hand."""

from __future__ import annotations

import numpy as np

import turned
from mimik.face.landmarks import Face


def test_frames_are_chosen_by_their_yaw_against_the_first_face() -> None:
    assert turned.choose([None, None]) is None
    assert turned.choose([None, 5.0, 20.0, -10.0]) is None
    assert turned.choose([None, 5.0, 26.0, None, -16.0, 0.0]) == (1, [2, 4])
    yaws = [0.0, *(30.0 + i for i in range(9))]
    assert turned.choose(yaws) == (0, [1, 5, 9])


def test_a_turn_to_the_right_uncovers_the_persons_right_half(portrait_face: Face) -> None:
    points = portrait_face.points
    side = int(points[:, 1].max()) + 20, int(points[:, 0].max()) + 20
    uncovered, away = turned.halves(points, 25.0, side)
    swapped = turned.halves(points, -25.0, side)
    np.testing.assert_array_equal(uncovered, swapped[1])
    np.testing.assert_array_equal(away, swapped[0])
    right_cheek, left_cheek = (points[i, :2].astype(int) for i in (50, 280))  # the person's right is at the left
    assert uncovered[right_cheek[1], right_cheek[0]] and not uncovered[left_cheek[1], left_cheek[0]]
    assert away[left_cheek[1], left_cheek[0]] and not away[right_cheek[1], right_cheek[0]]
    assert (uncovered & away).sum() < 0.05 * uncovered.sum()


def test_means_over_clips_and_change_in_percent() -> None:
    def clip(value: float) -> dict:
        row = dict.fromkeys(turned.MEASURES, value)
        return {"models": {"geometry": dict.fromkeys(turned.HALVES, row)}}

    now, before = (turned.summary({"a": clip(a), "b": clip(b)}) for a, b in ((1.0, 2.0), (2.0, 4.0)))
    assert now["geometry"]["uncovered"]["l1"] == 1.5 and now["geometry"]["clips"] == 2
    assert "3.000 -> 1.500 (-50.0 %)" in turned.table(now, before)
    assert "1.500 |" in turned.table(now, {})
