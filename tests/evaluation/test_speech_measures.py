"""benchmarks/speech_measures.py on tracks with known results."""

from __future__ import annotations

import numpy as np
import pytest

from mimik.arrays import runs
from speech_measures import MouthTrack, bilabials, medians, score, silences

FPS = 25


def track(gap: np.ndarray, scale: float = 1.0) -> MouthTrack:
    return MouthTrack.of(gap * scale, gap, gap * scale, -gap)


def wave() -> np.ndarray:
    gap = 0.1 + 0.08 * np.sin(np.arange(100) / 3)
    gap[[30, 31, 60, 61]] = 0.0
    return gap


def test_runs_by_hand() -> None:
    assert runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 2), (3, 4), (6, 7)]
    assert runs(np.zeros(3, bool)) == []


def test_a_perfect_copy() -> None:
    gap, speech = wave(), np.ones(100, bool)
    s = score(track(gap), track(gap), np.linspace(-30, -20, 100), speech, speech, FPS)
    assert (s.jaw, s.gap, s.gap_amplitude, s.bilabials) == pytest.approx((1, 1, 1, 1))
    assert (s.num_bilabials, s.false_closures) == (2, 0)
    assert np.isnan(s.pause_gap)


def test_half_as_lively_with_one_closure_missing_and_one_too_many() -> None:
    gap, speech = wave(), np.ones(100, bool)
    made = gap.copy()
    made[60:62] = 0.1
    made[80] = 0.0
    s = score(track(gap), track(made, 0.5), np.zeros(100), speech, speech, FPS)
    assert s.jaw_amplitude == pytest.approx(0.5 * made.std() / gap.std())
    assert s.bilabials == 0.5 and s.false_closures == pytest.approx(1 / 4)
    assert s.shut == pytest.approx(3 / 100)  # 30, 31 and 80


def test_a_closure_counts_when_it_comes_a_frame_early() -> None:
    gap, speech = wave(), np.ones(100, bool)
    made = np.full(100, 0.1)
    made[29] = 0
    assert score(track(gap), track(made), np.zeros(100), speech, speech, FPS).bilabials == 0.5


def test_a_pause_is_no_bilabial() -> None:
    shut = np.zeros(100, bool)
    shut[10:12] = shut[40:60] = shut[98:] = True  # a sound, a pause, the end
    assert bilabials(shut, np.ones(100, bool), FPS) == [(10, 12)]
    assert bilabials(shut, np.zeros(100, bool), FPS) == []


def test_pauses_are_measured_where_nobody_speaks() -> None:
    speech = np.ones(100, bool)
    speech[20:40] = speech[50:53] = False  # the second is too short
    assert silences(speech, FPS) == [(20, 40)]
    gap = np.full(100, 0.2)
    gap[20:40] = np.tile([0.01, 0.03], 10)
    s = score(track(wave()), track(gap), np.zeros(100), speech, np.ones(100, bool), FPS)
    assert (s.pause_gap, s.silent_stability) == pytest.approx((0.02, 0.01))


def test_lips_that_follow_the_loudness_are_in_sync() -> None:
    volume = np.linspace(0.01, 0.5, 100)
    speech = np.ones(100, bool)
    s = score(track(wave()), track(volume), 20 * np.log10(volume), speech, speech, FPS)
    assert s.lip_sync == pytest.approx(0, abs=1e-6)
    s = score(track(wave()), track(volume[::-1]), 20 * np.log10(volume), speech, speech, FPS)
    assert s.lip_sync == pytest.approx(0.5, abs=0.01)


def test_closures_are_counted_over_all_clips() -> None:
    gap, speech, missing = wave(), np.ones(100, bool), np.full(100, 0.1)
    once = gap.copy()
    once[30:32] = 0.1
    first = score(track(gap), track(missing), np.zeros(100), speech, speech, FPS)
    second = score(track(once), track(once), np.zeros(100), speech, speech, FPS)
    assert medians([first, second])["bilabials"] == pytest.approx(1 / 3)
