"""Filters against slow references, gaps, and motion that smoothing must preserve."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mimik.face import landmarks as faces
from mimik.face.landmarks import NUM_POINTS
from mimik.motion.frames import MotionFrame
from mimik.motion.smoothing import BEGIN_S, OneEuro, Smoother, relative_to_photo_pose, smoothed
from shapes import FPS, still

# Filters.


def slow_one_euro(values: list[float], dt: float, min_cutoff: float, beta: float, derivative_cutoff: float) -> list:
    """Casiez et al. 2012, Algorithm 1, for one value."""

    def alpha(cutoff: float) -> float:
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau / dt)

    out, speed = [values[0]], 0.0
    for value in values[1:]:
        raw = (value - out[-1]) / dt
        speed = alpha(derivative_cutoff) * raw + (1 - alpha(derivative_cutoff)) * speed
        a = alpha(min_cutoff + beta * abs(speed))
        out.append(a * value + (1 - a) * out[-1])
    return out


def test_one_euro_is_the_published_filter() -> None:
    values = np.cumsum(np.random.default_rng(1).normal(0, 1, 60)).tolist()
    one_euro = OneEuro(1.2, 0.25, 2.0)
    ours = [float(one_euro(np.array([v]), 1 / 30)[0]) for v in values]
    np.testing.assert_allclose(ours, slow_one_euro(values, 1 / 30, 1.2, 0.25, 2.0), atol=1e-12)


def test_one_euro_keeps_a_constant_calms_noise_and_follows_a_step() -> None:
    rng = np.random.default_rng(2)
    one_euro = OneEuro(1.2, 0.25)
    assert all(float(one_euro(np.array([7.0]), 0.04)[0]) == 7.0 for _ in range(20))
    noise = rng.normal(0, 0.05, (400, 10))
    one_euro = OneEuro(1.2, 0.25)
    calm = np.array([one_euro(x, 0.04) for x in noise])
    assert calm[50:].std() < 0.5 * noise.std()
    one_euro = OneEuro(1.2, 0.25)
    step = [float(one_euro(np.array([x]), 0.04)[0]) for x in [0.0] * 10 + [5.0] * 50]
    assert step[9] == 0
    assert (np.diff(step) >= 0).all()
    assert step[-1] == pytest.approx(5, abs=0.05)


def test_one_euro_leaves_what_it_was_given_alone() -> None:
    one_euro, x = OneEuro(1.0, 0.1), np.ones(3)
    first = one_euro(x, 0.04)
    one_euro(np.full(3, 9.0), 0.04)
    np.testing.assert_array_equal(first, np.ones(3))
    np.testing.assert_array_equal(x, np.ones(3))


def wobbling(num: int = 60) -> list[MotionFrame]:
    rng = np.random.default_rng(3)
    return [
        MotionFrame(
            rng.normal(0, 0.01, 3),
            rng.normal(0, 0.05, 3),
            float(rng.normal(0, 0.01)),
            rng.normal(0, 0.03, (NUM_POINTS, 3)),
            np.zeros(52),
        )
        for _ in range(num)
    ]


def test_no_smoothing_is_the_identity() -> None:
    for before, after in zip(wobbling(5), (Smoother(0)(g, 0.04) for g in wobbling(5)), strict=True):
        np.testing.assert_array_equal(before.offset, after.offset)
        np.testing.assert_array_equal(before.turn, after.turn)


def test_more_smoothing_is_calmer() -> None:
    def wobble(amount: float) -> tuple[float, float]:
        smoother = Smoother(amount)
        out = [smoother(g, 0.04) for g in wobbling()]
        return tuple(float(np.abs(np.diff([getattr(g, n) for g in out], axis=0)).mean()) for n in ("turn", "offset"))

    levels = [wobble(amount) for amount in (0, 0.2, 0.5, 0.75, 1.0)]
    for calmer, wilder in zip(levels[1:], levels, strict=False):
        assert calmer[0] < wilder[0]
        assert calmer[1] < wilder[1]


def test_smoothing_keeps_the_amplitude_of_speech_and_of_a_blink() -> None:
    # Five syllables and a blink of 0.2 s, with real amplitudes.
    time = np.arange(50) / FPS
    mouth = 0.6 * (1 - np.cos(2 * np.pi * 5 * time)) / 2
    blink = np.interp(time, [1.0, 1.08, 1.12, 1.2], [0, 0.9, 0.9, 0])
    smoother, out = Smoother(0.5), []
    for m, b in zip(mouth, blink, strict=True):
        offset = np.zeros((NUM_POINTS, 3))
        offset[[*faces.LIPS_INNER_LOWER, *faces.LIPS_OUTER_LOWER, faces.CHIN], 1] = m
        offset[[*faces.RIGHT_EYE_UPPER, *faces.LEFT_EYE_UPPER], 1] = b
        out.append(smoother(replace(still(), offset=offset), 1 / FPS).offset)
    lips, lids = np.array(out)[:, 14, 1], np.array(out)[:, 159, 1]
    assert lips.std() > 0.9 * mouth.std()
    assert np.corrcoef(lips, mouth)[0, 1] > 0.97
    assert lids.max() > 0.95 * blink.max()
    assert abs(int(lids.argmax()) - int(blink.argmax())) <= 1


def test_the_table_is_met_from_both_sides() -> None:
    # The strength of the filter is continuous at 0.5.
    low, high = (Smoother(amount) for amount in (0.4999, 0.5001))
    for motion_frame in wobbling(10):
        a, b = low(motion_frame, 0.04), high(motion_frame, 0.04)
        np.testing.assert_allclose(a.offset, b.offset, atol=1e-4)


# Missing faces.


def constant(**kind: float) -> MotionFrame:
    return replace(still(), turn=np.array([0.0, 0.4, 0.0]), offset=np.full((NUM_POINTS, 3), 0.5), **kind)


def test_a_lost_face_eases_to_neutral_and_back() -> None:
    stream: list[MotionFrame | None] = [constant()] * 5 + [None] * 20 + [constant()] * 20
    out = list(smoothed(stream, FPS, 0.5))
    yaw = np.array([g.turn[1] for g in out])
    assert len(out) == len(stream)
    assert [g.seen for g in out] == [g is not None for g in stream]
    np.testing.assert_allclose(yaw[:5], 0.4)
    assert (np.diff(yaw[4:25]) <= 1e-12).all()
    np.testing.assert_allclose(yaw[18:25], 0, atol=1e-9)  # half a second later
    assert (np.diff(yaw[24:]) >= -1e-12).all()
    np.testing.assert_allclose(yaw[-5:], 0.4)
    assert np.abs(np.diff(yaw)).max() < 0.4 * 0.15
    np.testing.assert_allclose(out[14].offset / 0.5, yaw[14] / 0.4)  # all components decay together


def test_a_short_gap_does_not_reach_neutral() -> None:
    stream: list[MotionFrame | None] = [constant()] * 5 + [None] * 3 + [constant()] * 10
    yaw = np.array([g.turn[1] for g in smoothed(stream, FPS, 0)])
    assert yaw.min() > 0.2
    assert np.abs(np.diff(yaw)).max() < 0.4 * 0.15


def test_a_face_that_comes_late() -> None:
    out = list(smoothed([None] * 4 + [constant()] * 20, FPS, 0.5))
    assert not any(np.any(g.offset) for g in out[:4])
    yaw = np.array([g.turn[1] for g in out])
    assert np.abs(np.diff(yaw)).max() < 0.4 * 0.15
    assert yaw[-1] == pytest.approx(0.4)


def test_after_a_loss_the_filter_starts_afresh() -> None:
    stream: list[MotionFrame | None] = [constant()] * 5 + [None] * 30 + [replace(still(), turn=np.full(3, -0.2))] * 20
    out = list(smoothed(stream, FPS, 0.9))
    turns = np.array([g.turn[1] for g in out[35:]])
    assert (turns <= 1e-9).all()  # no influence of the time before the gap
    assert turns[-1] == pytest.approx(-0.2)


def test_a_motion_begins_with_the_head_of_the_photo() -> None:
    """A nodding head that is turned from the first frame on: no turn at first, the full turn after BEGIN_S, no jump."""
    lips = np.zeros((faces.NUM_POINTS, 3))
    lips[faces.LIPS_INNER_LOWER] = 1.0
    nod = 0.1 * np.sin(np.arange(50) / 4)
    turns = np.stack([nod, np.full(50, 0.4), np.zeros(50)], 1)
    given = [replace(still(), turn=t, shift=np.array([2.0, 0, 0]), zoom=0.1, offset=lips) for t in turns]
    begun, num = list(relative_to_photo_pose(given, 25.0)), round(BEGIN_S * 25)
    np.testing.assert_allclose(begun[0].turn, 0, atol=1e-9)
    np.testing.assert_allclose([*begun[0].shift, begun[0].zoom], 0, atol=1e-9)
    assert all((frame.offset == lips).all() for frame in begun)
    for ours, theirs in zip(begun[num:], given[num:], strict=True):
        np.testing.assert_allclose(ours.turn, theirs.turn)
    step = np.linalg.norm(np.diff([frame.turn for frame in begun], axis=0), axis=1)
    assert step.max() < 0.4 / num * 1.5 + 0.1 / 4 + 1e-3  # of a smoothstep, and of the nod
    assert list(relative_to_photo_pose([], 25.0)) == []
    same = [replace(still(), turn=np.array([0.0, 0.01 * k, 0])) for k in range(30)]
    for ours, theirs in zip(relative_to_photo_pose(same, 25.0), same, strict=True):
        np.testing.assert_allclose(ours.turn, theirs.turn, atol=1e-12)
