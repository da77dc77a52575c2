"""Mouth of known phonemes: contact at the right times, rounding before and through consonants, any language."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mimik.config import InputError
from mimik.media import mel
from mimik.motion.contact import lip_openings
from mimik.motion.drivers.voice import Voice
from mimik.motion.generation import phonemes
from mimik.motion.generation.lips import CHANNELS, GAP, TOUCH_GAP, WIDTH
from mimik.motion.generation.phonemes import SaidMouth, sounds_of
from mimik.motion.generation.speech import SpeechMotion, closed_reference

PUCKER = CHANNELS.index("mouthPucker")
BOO_FIVE = [(0.0, ""), (0.5, "b"), (0.6, "uː"), (1.0, "f"), (1.1, "aɪ"), (1.4, "v"), (1.5, "")]


def test_the_mouth_of_boo_and_five() -> None:
    mouth = SaidMouth(BOO_FIVE)
    tracks, touch, labiodental = mouth.at(np.array([0.55, 0.8, 1.05, 1.15, 1.35, 1.45]))
    assert touch.tolist() == [True, False, False, False, False, False]
    assert labiodental.round(3).tolist() == [0, 0, 1, 0, 0, 1]
    b, u, _, a, i, _ = tracks
    assert u[PUCKER] == pytest.approx(phonemes._TARGETS["u"][3], abs=1e-5)
    assert 0 < b[PUCKER] < u[PUCKER]  # lips round before the vowel begins
    assert u[WIDTH] < 0 < a[WIDTH] < i[WIDTH]
    assert b[GAP] < 0.02 and TOUCH_GAP < u[GAP] < a[GAP] > i[GAP]


def test_rounding_continues_through_neutral_consonants() -> None:
    through, end = SaidMouth([(0.0, "u"), (0.3, "t"), (0.36, "u"), (0.7, "")]).at(np.array([0.33, 0.69]))[0][:, PUCKER]
    alone = SaidMouth([(0.0, "i"), (0.3, "t"), (0.36, "i"), (0.7, "")]).at(np.array([0.33]))[0][0, PUCKER]
    assert through > 0.8 * phonemes._TARGETS["u"][3] and alone == pytest.approx(0, abs=1e-6)
    assert end < through


def test_a_short_plosive_is_long_enough_to_be_seen() -> None:
    times = np.arange(0, 0.5, 0.005)
    touch = SaidMouth([(0.0, "a"), (0.2, "b"), (0.21, "a"), (0.5, "")]).at(times)[1]
    assert touch.sum() * 0.005 == pytest.approx(0.06, abs=0.006)
    assert times[touch][0] == pytest.approx(0.2, abs=0.006)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("aɪ", ["a", "ɪ"]), ("ɔːɹ", ["ɔ", "ɔ", "ɹ"]), ("tʃ", ["t", "ʃ"]), ("ɔ̃", ["ɔ"]), ("p͡f", ["p", "f"]), ("1", ["ə"])],
)
def test_sounds_of_a_name(name: str, expected: list[str]) -> None:
    assert sounds_of(name) == expected


def test_every_sound_has_as_many_numbers_as_there_are_tracks() -> None:
    for table in (phonemes._TARGETS, phonemes._WEIGHTS):
        assert {len(values) for values in table.values()} == {len(phonemes._TRACKS)}
    assert phonemes._WEIGHTS.keys() <= phonemes._TARGETS.keys()
    assert set(phonemes._SHUT + phonemes._LABIODENTAL) <= phonemes._TARGETS.keys()


def test_no_phonemes_are_lips_at_rest() -> None:
    for none in ([], [(0.0, "")], [(0.0, ""), (2.0, "")]):
        tracks, touch, labiodental = SaidMouth(none).at(np.array([-0.1, 0.0, 5.0]))
        assert tracks[:, GAP].max() < 0.03 and not touch.any() and not labiodental.any()


def hum(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * mel.RATE_HZ)) / mel.RATE_HZ
    return (0.2 * np.sin(2 * np.pi * 150 * time)).astype(np.float32)


def test_speech_of_known_phonemes_shuts_the_lips_at_b_and_shows_teeth_at_f() -> None:
    said = [(0.0, "a"), (0.4, "b"), (0.5, "a"), (0.8, "f"), (0.9, "a"), (1.2, "")]
    speech = SpeechMotion(25, phonemes=said, start_db=-20)
    neutral = closed_reference()
    shapes = [neutral.shape + f.offset for f in (*speech.push(hum(1.2)), *speech.finish())]
    gap = np.array([(lip_openings(shape) - lip_openings(neutral.shape))[4] for shape in shapes])
    assert gap[11] == pytest.approx(0, abs=1e-6)  # b, 0.44 s
    assert 0.04 < gap[21] < 0.08  # f, 0.84 s: open enough for the upper teeth
    assert gap[[7, 16, 26]].min() > 0.15  # a


def test_a_file_of_phonemes_beside_the_recording(tmp_path: Path) -> None:
    import wave

    from mimik.motion.drivers.driver import DriverSettings

    path = tmp_path / "x.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(mel.RATE_HZ)
        file.writeframes((hum(1.0) * 32767).astype(np.int16).tobytes())
    gaps = []
    for lines in (None, "0.0\ta\n0.4\tm\n0.6\ta\n1.0\t\n"):
        if lines:
            path.with_suffix(".phonemes").write_text(lines, "utf-8")
        with Voice.open(str(path)).motion(DriverSettings(landmarker=None)) as motion:  # type: ignore[arg-type]
            shapes = [motion.neutral.shape + f.offset for f in motion.frames]
        gaps.append(np.array([(lip_openings(s) - lip_openings(motion.neutral.shape))[4] for s in shapes]))
    assert np.abs(gaps[1][11:14]).max() < 1e-6 and gaps[1][[6, 18]].min() > 0.1
    assert np.abs(gaps[0] - gaps[1]).max() > 0.05
    path.with_suffix(".phonemes").write_text("a 1\n")
    with pytest.raises(InputError, match=r"does not list the phonemes of x\.wav .* remove the file"):
        Voice.open(str(path))
