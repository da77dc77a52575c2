"""Speech motion: lips in sync, closed in pauses; smooth head motion; equal for equal seeds."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from mimik.face.landmarks import BLENDSHAPES
from mimik.media import mel
from mimik.media.sound import read_sound
from mimik.motion.contact import eye_distance, lip_openings
from mimik.motion.frames import MotionFrame
from mimik.motion.generation.lips import CHANNELS, MOUTH, TOUCH_GAP
from mimik.motion.generation.speech import SpeechMotion, closed_reference, mouth_frame, mouth_width, with_mouth


def babble(seconds: float, seed: int = 0) -> np.ndarray:
    """Syllable-like sound: four bursts per second of a buzz with varying formants."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * mel.RATE_HZ)) / mel.RATE_HZ
    pitch = 120 * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / mel.RATE_HZ
    formant = 600 + 250 * np.sin(2 * np.pi * 4 * time)
    buzz = sum(np.sin(k * phase) * np.exp(-(((k * 120 - formant) / 400) ** 2)) for k in range(1, 25))
    return (0.15 * buzz * np.sin(2 * np.pi * 2 * time) ** 2 + rng.normal(0, 1e-4, len(time))).astype(np.float32)


def spoken() -> np.ndarray:
    """ "My baby may be above the mop. Who do you choose?" by espeak-ng, without the silence around it."""
    samples = np.concatenate(list(read_sound(Path(__file__).parents[2] / "fixtures" / "espeak_speech.ogg")))
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[loud[0] : loud[-1]]


def frames(samples: np.ndarray, fps: float = 25.0, piece: int = 8000, seed: int = 0) -> list[MotionFrame]:
    speech = SpeechMotion(fps, seed=seed, start_db=-20)
    out = [f for at in range(0, len(samples), piece) for f in speech.push(samples[at : at + piece])]
    return out + list(speech.finish())


def gaps(moved: list[MotionFrame]) -> np.ndarray:
    """[T] opening at the middle of the lips, relative to contact, in eye distances."""
    neutral = closed_reference().shape
    return np.array([(lip_openings(neutral + f.offset) - lip_openings(neutral))[4] for f in moved])


def test_a_mouth_of_a_given_opening_and_width() -> None:
    shape = closed_reference().shape
    contact = lip_openings(shape)
    assert np.abs(contact).max() < 0.01  # of the distance of the eyes
    for gap, width in ((0.2, 0.9), (0.02, 0.6)):
        made = with_mouth(shape, gap, width)
        assert (lip_openings(made) - contact)[4] == pytest.approx(gap, abs=1e-6)
        assert np.linalg.norm(made[61, :2] - made[291, :2]) / eye_distance(made) == pytest.approx(width, abs=0.01)
        again = with_mouth(made, 0.0, width)
        np.testing.assert_allclose(lip_openings(again), contact, atol=1e-9)
        np.testing.assert_allclose(made[[61, 291], 1], shape[[61, 291], 1], atol=1e-9)  # the corners stay


def test_in_noise_between_sentences_the_lips_rest() -> None:
    """Noise 10 to 30 dB below the speech, after silence: the lips touch, and the mouth returns to its rest."""
    noise = np.fft.rfft(np.random.default_rng(0).normal(size=2 * mel.RATE_HZ))
    noise = np.fft.irfft(noise / np.maximum(np.arange(len(noise)), 20))  # of a room: lower tones are louder
    said, quiet = spoken(), np.zeros(3200, np.float32)
    level = mel.speech_level(mel.log_mel(said)[1])
    for below_db in (10, 15, 20, 25, 30):
        loud = (noise / noise.std() * 10 ** ((level - below_db) / 20)).astype(np.float32)
        moved = frames(np.concatenate([quiet, said, quiet, loud, said]))
        begin = (2 * len(quiet) + len(said)) / mel.RATE_HZ
        pause = moved[round(25 * (begin + 0.6)) : round(25 * (begin + 1.8))]
        assert gaps(pause).max() < 1e-6
        rest = closed_reference().shape
        widths = np.array([mouth_width(rest + frame.offset) - mouth_width(rest) for frame in pause])
        assert np.abs(widths[-15:]).max() < 0.005


def test_blendshapes_that_leave_lips_open_do_not_undo_a_contact() -> None:
    shapes = np.zeros(52)
    shapes[BLENDSHAPES.index("jawOpen")] = 0.6
    assert gaps([mouth_frame(shapes, 0.0, 0.0)])[0] == pytest.approx(0, abs=1e-9)
    assert gaps([mouth_frame(shapes, 0.25, 0.0)])[0] == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("fps", [24.0, 25.0, 30.0, 50.0, 60.0])
def test_there_are_as_many_frames_as_the_sound_is_long(fps: float) -> None:
    assert len(frames(babble(0.7), fps)) == int(np.ceil(0.7 * fps - 1e-6))


def test_no_sound_at_all_and_hardly_any() -> None:
    assert frames(np.zeros(0, np.float32)) == []
    assert len(frames(np.zeros(1, np.float32))) == 1


@pytest.mark.parametrize("piece", [160, 1234])
def test_the_size_of_the_pieces_changes_nothing(piece: int) -> None:
    samples = babble(1.5)
    for a, b in zip(frames(samples), frames(samples, piece=piece), strict=True):
        np.testing.assert_allclose(a.offset, b.offset, atol=1e-5)
        np.testing.assert_allclose(a.turn, b.turn, atol=1e-9)


def test_lips_rest_in_silence_and_move_in_speech() -> None:
    quiet = np.random.default_rng(0).normal(0, 2e-4, 2 * mel.RATE_HZ).astype(np.float32)
    speech = spoken()
    gap = gaps(frames(np.concatenate([quiet, speech, quiet])))
    end = 50 + round(len(speech) / mel.RATE_HZ * 25)
    assert gap[:45].max() < 0.01 and gap[end + 13 :].max() < 0.01
    assert gap[55:end].std() > 0.02 and gap[55:end].max() > 3 * TOUCH_GAP


def bursts(pause_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A vowel of 0.4 s, five times, with silence around each; its start and end times in seconds."""
    speech = spoken()
    size, ramp = round(0.4 * mel.RATE_HZ), np.linspace(0, 1, 80, dtype=np.float32)
    at = int(np.argmax(np.convolve(speech**2, np.ones(size), "valid")))
    vowel = speech[at : at + size].copy()
    vowel[:80] *= ramp
    vowel[-80:] *= ramp[::-1]
    quiet = np.zeros(round(pause_s * mel.RATE_HZ), np.float32)
    samples = np.concatenate([quiet, *[vowel, quiet] * 5])
    begin = pause_s + np.arange(5) * (pause_s + 0.4)
    return samples + np.random.default_rng(0).normal(0, 1e-4, len(samples)).astype(np.float32), begin, begin + 0.4


@pytest.mark.parametrize("pause_s", [0.3, 0.6])
def test_lips_open_with_each_burst_and_are_shut_in_each_pause(pause_s: float) -> None:
    samples, begin, end = bursts(pause_s)
    gap = gaps(frames(samples))
    at_s = np.arange(len(gap)) / 25
    for start, stop in zip(begin, end, strict=True):
        opened = at_s[(gap > TOUCH_GAP) & (at_s > start - 0.15)][0] - start
        assert -0.08 <= opened <= 0.06
        assert gap[(at_s > start) & (at_s < stop)].max() > 5 * TOUCH_GAP
        assert np.median(gap[(at_s >= stop) & (at_s < stop + pause_s)]) < 0.01


def test_closures_do_not_pop() -> None:
    """No frame with closed lips is between two frames with wide-open lips."""
    gap = gaps(frames(np.concatenate([spoken(), spoken()])))
    shut = np.flatnonzero(gap[1:-1] < TOUCH_GAP) + 1
    assert len(shut) > 3
    assert not ((gap[shut - 1] > 0.1) & (gap[shut + 1] > 0.1)).any()


def test_after_two_seconds_of_silence_the_head_only_waits() -> None:
    rest = np.random.default_rng(0).normal(0, 2e-4, 8 * mel.RATE_HZ).astype(np.float32)
    turns = np.array([f.turn for f in frames(np.concatenate([spoken(), rest]))])
    speaking, waiting = turns[:70], turns[-100:]
    speed = [np.abs(np.diff(part, axis=0)).mean() for part in (speaking, waiting)]
    assert 0 < speed[1] < 0.6 * speed[0]
    assert np.abs(np.diff(turns, axis=0)).max() < np.radians(3)  # without a jump


def test_lips_move_when_the_sound_does() -> None:
    """Speech that starts 13 frames later moves the lips 13 frames later; they open at its start."""
    quiet = np.zeros(round(0.52 * mel.RATE_HZ), np.float32)
    speech = spoken()
    a, b = gaps(frames(np.concatenate([quiet, speech]))), gaps(frames(np.concatenate([quiet, quiet, speech])))
    np.testing.assert_allclose(a[13:40], b[26:53], atol=0.03)
    opened = np.flatnonzero(a > TOUCH_GAP)[0] / 25
    assert 0.52 - 0.12 <= opened <= 0.52 + 0.08  # lips open before they sound


def test_equal_seeds_give_equal_heads_and_others_give_others() -> None:
    samples = babble(3.0)
    a, b, c = (np.array([f.turn for f in frames(samples, seed=seed)]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > np.radians(1)


def test_seeds_leave_the_lips_alone() -> None:
    samples = babble(2.0)
    np.testing.assert_allclose(gaps(frames(samples, seed=1)), gaps(frames(samples, seed=2)), atol=1e-6)


def test_memory_does_not_grow() -> None:
    speech = SpeechMotion(25)
    piece, sizes = babble(1.0), []
    for _ in range(12):
        list(speech.push(piece))
        sizes.append((len(speech._steps), len(speech._lips._rest), len(speech._lips._waiting)))
    assert max(sizes[2:]) <= max(sizes[:2])


@pytest.mark.parametrize(("is_live", "most_s"), [(True, 0.23), (False, 0.37)])
def test_frames_come_as_soon_as_they_can(is_live: bool, most_s: float) -> None:
    speech, given = SpeechMotion(25, is_live=is_live), 0
    for number, _ in enumerate(range(100), start=1):  # 20 ms at a time
        given += len(list(speech.push(np.zeros(320, np.float32))))
        late_s = number * 0.02 - given / 25
        assert late_s < most_s
    assert given > 40


def test_every_mouth_channel_is_a_blendshape_or_geometry() -> None:
    assert [BLENDSHAPES[i] for i in MOUTH] == list(itertools.takewhile(lambda name: name != "gap", CHANNELS))
