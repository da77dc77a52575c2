"""espeak-ng's library: phonemes at the times of their sounds, named in the requested alphabet."""

from __future__ import annotations

import ctypes.util
import itertools

import numpy as np
import pytest

from mimik.config import InputError
from mimik.media import mel
from mimik.media.espeak import Espeak

installed = pytest.mark.skipif(not ctypes.util.find_library("espeak-ng"), reason="espeak-ng is not installed")


@installed
def test_a_bilabial_is_quieter_than_the_vowel_after_it() -> None:
    sound, phonemes = Espeak().say("papa papa papa")
    spans = itertools.pairwise(phonemes)
    loud: dict[str, list[float]] = {"p": [], "vowel": []}
    for (start, name), (end, _) in spans:
        part = sound[round(start * mel.RATE_HZ) : round(end * mel.RATE_HZ)]
        loud["p" if name == "p" else "vowel"].append(float(np.sqrt((part**2).mean())))
    assert np.median(loud["p"][1:]) < 0.5 * np.median(loud["vowel"])


@installed
def test_names_of_phonemes() -> None:
    for ipa, name in ((False, "S"), (True, "ʃ")):
        assert name in {phoneme for _, phoneme in Espeak(ipa=ipa).say("she")[1]}


@installed
def test_a_voice_that_it_does_not_have() -> None:
    with pytest.raises(InputError, match="espeak-ng has no voice xx-none"):
        Espeak().say("a", "xx-none")


def test_without_espeak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(InputError, match=r"library of espeak-ng is not installed.*--spoken 0"):
        Espeak()
