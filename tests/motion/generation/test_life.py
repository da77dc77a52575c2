"""Generated motion of head and eyes: smooth joins, realistic statistics, no repetition."""

from __future__ import annotations

import numpy as np
import pytest

from mimik.face.landmarks import BLENDSHAPES
from mimik.motion.drivers.stream import rest_reference
from mimik.motion.frames import MotionFrame
from mimik.motion.generation import head as head_module
from mimik.motion.generation.eyes import Blinks, Brows, Eyes, Gaze, Speaking
from mimik.motion.generation.head import LIBRARY_HZ, POSE, HeadLibrary, RestingHead, TalkingHead, head_library
from mimik.motion.generation.idle import IdleMotion

TALKING = Speaking(active=True, emphasis_db=-6)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def talk(seconds: float, seed: int = 0, fps: float = 25.0) -> np.ndarray:
    head = TalkingHead(rng(seed))
    loudness = np.where(np.arange(int(seconds * fps)) // 50 % 3 < 2, -6.0, -35.0)
    return np.array([head.step(1 / fps, x, pause_began=i % 150 == 100) for i, x in enumerate(loudness)])


def test_the_library_is_whole_pieces_of_small_movements() -> None:
    library = head_library()
    assert library.pose.shape == (len(library.loudness_db), POSE)
    lengths = (library.end - library.start)[np.unique(library.start)]
    assert lengths.sum() == len(library.pose) and lengths.min() > 4 * LIBRARY_HZ
    assert len(library.pose) > 240 * LIBRARY_HZ
    assert np.degrees(np.abs(library.pose[:, :3]).max()) < 14


def test_joins_cannot_be_seen() -> None:
    """Speed and acceleration at joins are as within the library's segments."""
    library = head_library()
    inside = np.diff(library.start) == 0
    real = np.linalg.norm(np.diff(library.pose, axis=0)[inside][:, :3], axis=1)
    pose = talk(60)
    step = np.linalg.norm(np.diff(pose[:, :3], axis=0), axis=1)
    assert step.max() < 1.3 * np.quantile(real, 0.999)
    jerk = np.linalg.norm(np.diff(pose[:, :3], n=2, axis=0), axis=1)
    assert np.quantile(jerk, 0.99) < np.quantile(
        np.linalg.norm(np.diff(library.pose[:, :3], n=2, axis=0), axis=1), 0.99
    )


def test_it_begins_where_the_photo_is() -> None:
    np.testing.assert_allclose(talk(1.0)[0], 0, atol=np.radians(1.5))


def test_a_talking_head_moves_as_real_ones_do_and_stays_near_the_photo() -> None:
    pose = talk(120, seed=1)
    spread = np.degrees(pose[:, :3].std(0))
    assert spread[:2].min() > 0.8 and spread.max() < 5 and np.degrees(np.abs(pose[:, :3]).max()) < 18


@pytest.mark.parametrize("fps", [10.0, 30.0, 60.0])
def test_the_rate_of_the_frames_does_not_change_the_speed(fps: float) -> None:
    a, b = talk(20), talk(20, fps=fps)
    assert np.degrees(b[:, :3].std(0)).max() == pytest.approx(np.degrees(a[:, :3].std(0)).max(), rel=0.6)


def test_a_library_shorter_than_a_speech_is_used_again() -> None:
    pose = np.cumsum(rng().normal(0, 0.002, (150, POSE)), 0)
    index = np.zeros(150, int)
    head = TalkingHead(rng(), HeadLibrary(pose, np.full(150, -10.0), index, index + 150))
    assert np.isfinite([head.step(0.04, -10) for _ in range(1000)]).all()


def test_a_resting_head_breathes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "_DRIFT", ())
    head = RestingHead(rng())
    height = np.array([head.step(0.04)[4] for _ in range(25 * 120)])
    breaths = np.sum((height[1:] > 0) & (height[:-1] <= 0)) / 2
    assert 12 < breaths < 20 and np.ptp(height) == pytest.approx(0.09, rel=0.02)


def test_a_resting_head_hardly_moves() -> None:
    head = RestingHead(rng())
    pose = np.array([head.step(0.04) for _ in range(25 * 120)])
    assert np.degrees(np.abs(pose[:, :3]).max()) < 8
    assert np.degrees(np.linalg.norm(np.diff(pose[:, :3], axis=0), axis=1)).max() * 25 < 15


def blinks(speaking: Speaking, seconds: float = 600, fps: float = 50) -> np.ndarray:
    source = Blinks(rng(3))
    return np.array([source.step(1 / fps, speaking) for _ in range(int(seconds * fps))])


def test_blinks_come_as_often_as_peoples_and_last_as_long() -> None:
    for speaking, low, high in ((Speaking(), 11, 21), (TALKING, 18, 32)):
        closed = blinks(speaking)
        starts = np.flatnonzero((closed[1:] > 0) & (closed[:-1] == 0))
        assert low < len(starts) / 10 < high
        assert closed.max() == 1.0
    assert 0.1 < (closed > 0.5).sum() / len(starts) / 50 < 0.3


def test_a_pause_brings_blinks() -> None:
    counts = []
    for pause in (False, True):
        source, count = Blinks(rng(1)), 0
        for i in range(20000):
            before = source._phase
            source.step(0.02, Speaking(active=True, pause_began=pause and i % 150 == 0))
            count += before is None and source._phase is not None
        counts.append(count)
    assert counts[1] > 1.05 * counts[0]


def test_gaze_is_mostly_at_the_camera_and_jumps() -> None:
    gaze = Gaze(rng(2))
    rows = [gaze.step(0.02) for _ in range(50 * 300)]
    at = np.array([degrees for degrees, _ in rows])
    size = np.linalg.norm(at, axis=1)
    assert 0.55 < (size < 3).mean() < 0.97 and 4 < size.max() < 14
    speed = np.linalg.norm(np.diff(at, axis=0), axis=1) * 50
    assert np.median(speed) < 3 and speed.max() > 150  # fixations and saccades
    assert sum(shifted for _, shifted in rows) > 10


def test_brows_rise_with_emphasis_and_fall_again() -> None:
    brows = Brows(rng())
    loud = [brows.step(0.04, Speaking(True, False, 8.0)) for _ in range(250)]
    assert max(loud) > 0.3
    quiet = [brows.step(0.04, Speaking(True, False, -10.0)) for _ in range(100)]
    assert quiet[-1] < 0.02


def test_eyes_keep_looking_at_the_camera_while_the_head_turns() -> None:
    shapes = Eyes(rng()).step(0.04, Speaking(), np.array([20.0, 0.0]))
    # The head is turned to the picture's right, so the eyes look left relative to it.
    assert shapes[BLENDSHAPES.index("eyeLookOutRight")] > 0.3
    assert shapes[BLENDSHAPES.index("eyeLookOutLeft")] == 0


def test_idle_life_follows_its_seed() -> None:
    a, b, c = (np.array([f.turn for f in idle_frames(seed, 50)]) for seed in (4, 4, 5))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > np.radians(0.5)


def test_a_resting_head_does_not_repeat() -> None:
    head = RestingHead(rng(4))
    pose = np.array([head.step(0.04)[[0, 1, 2, 4]] for _ in range(1500)])
    centered = (pose - pose.mean(0)) / pose.std(0)
    for lag in range(250, 1200, 5):  # from 10 s on: no correlation with a time-shifted copy
        assert np.mean(centered[lag:] * centered[:-lag]) < 0.7


def idle_frames(seed: int, count: int) -> list[MotionFrame]:
    life = IdleMotion(seed=seed)
    return [life.step(0.04) for _ in range(count)]


def test_idle_frames_are_near_the_neutral() -> None:
    offsets = np.array([frame.offset for frame in idle_frames(1, 100)])
    assert np.abs(offsets).max() < 0.25 * np.ptp(rest_reference().shape[:, 0])
    assert np.isfinite(offsets).all()
