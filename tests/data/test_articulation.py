"""Mouth targets of synthetic speech: phonemes of espeak-ng at their times, and the lips at each."""

from __future__ import annotations

import ctypes.util

import numpy as np
import pytest

from mimik.data import articulation
from mimik.data.articulation import MOUTHS, SENTENCES, Mouth, mouths_of, utterances
from mimik.media import mel
from mimik.media.espeak import Espeak

installed = pytest.mark.skipif(not ctypes.util.find_library("espeak-ng"), reason="espeak-ng is not installed")
SHUT, LABIODENTAL, PUCKER, WIDTH = (Mouth._fields.index(n) for n in ("is_shut", "is_labiodental", "pucker", "width"))


def test_the_mouth_of_boo_and_five() -> None:
    mouths = mouths_of([(0.0, "_"), (0.5, "b"), (0.6, "u:"), (1.0, "f"), (1.1, "aI"), (1.4, "v")], 1.5)
    at = lambda seconds: mouths[round(seconds * 200)]  # noqa: E731
    assert at(0.55)[SHUT] == pytest.approx(1) and at(0.8)[SHUT] == at(1.05)[SHUT] == 0
    assert at(1.05)[LABIODENTAL] == pytest.approx(1) and at(0.55)[LABIODENTAL] == 0
    assert at(0.8)[PUCKER] == pytest.approx(MOUTHS["u:"].pucker, abs=1e-5)
    assert 0 < at(0.55)[PUCKER] < at(0.8)[PUCKER]  # lips round before the vowel begins
    assert at(1.15)[WIDTH] < at(1.35)[WIDTH]  # from a to i


@installed
def test_every_phoneme_of_the_sentences_has_a_mouth() -> None:
    espeak = Espeak()
    for text in SENTENCES:
        sound, phonemes = espeak.say(text)
        starts = [seconds for seconds, _ in phonemes]
        assert len(sound) / mel.RATE_HZ >= starts[-1] and starts == sorted(starts)
        assert {name for _, name in phonemes} <= MOUTHS.keys() | articulation._GLIDES.keys()


@installed
def test_utterances_have_a_mouth_for_all_their_sound() -> None:
    said = utterances(3, np.random.default_rng(0))
    for one in said:
        times = np.arange(0, len(one.sound) / mel.RATE_HZ, 0.02)
        mouths = one.at(times)
        assert mouths.shape == (len(times), len(Mouth._fields))
        assert mouths[:, SHUT].max() > 0.9 and not mouths[-1, SHUT]
        assert np.abs(one.sound).max() > 0.05
