"""Synthetic speech of espeak-ng with phoneme times, and mouth targets of the phonemes.

Videos have few bilabials and rounded vowels per speaker, and are often out of sync with their sound. Synthetic speech
has phonemes at known times, and phonetics gives the lip shape of each. The voice network is trained on both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array
from mimik.files import asset
from mimik.media import mel
from mimik.media.espeak import Espeak
from mimik.motion.generation.lips import CHANNELS
from mimik.motion.generation.phonemes import MOUTH_HZ, hann_smoothed

# Tracks of a Mouth. The jaw depends on the speaker's habit and is trained on real faces only.
TAUGHT = tuple(CHANNELS.index(name) for name in ("width", "mouthPucker", "mouthFunnel"))


class Mouth(NamedTuple):
    """The mouth of a phoneme: tracks in standard deviations about the mean of speech, and its class."""

    width: float
    pucker: float
    funnel: float
    is_shut: float = 0.0
    is_labiodental: float = 0.0


_A = Mouth(0.1, -0.3, -0.1)
_OPEN_O = Mouth(-0.7, 0.5, 0.9)
_U = Mouth(-1.3, 1.5, 1.2)
_E = Mouth(0.6, -0.5, -0.2)
_I = Mouth(0.9, -0.7, -0.4)
_SCHWA_MOUTH = Mouth(-0.2, -0.1, 0.0)
_REST_MOUTH = Mouth(0.0, 0.0, -0.2)
_MOUTHS_OF = {  # by espeak-ng's names of the phonemes of its English voices
    "a a# aa A: A@ 0# V": _A,
    "0 O O2 O: o@ O@ 02": _OPEN_O,
    "E e e@": _E,
    "@ @2 @L @5 I2 3 a2 i@3": _SCHWA_MOUTH,
    "3:": Mouth(-0.3, 0.3, 0.4),
    "i: i I i@ i2 I# j": _I,
    "u: u U U@ w o": _U,
    "p b m": Mouth(0.0, 0.0, -0.3, is_shut=1.0),
    "f v": Mouth(0.3, -0.2, -0.3, is_labiodental=1.0),
    "t d n l t2 n- t# ;": Mouth(0.3, -0.2, 0.0),
    "s z": Mouth(0.5, -0.2, 0.0),
    "S Z tS dZ": Mouth(-0.5, 0.7, 0.9),
    "T D": Mouth(0.2, -0.2, 0.0),
    "k g N h x ?": Mouth(0.2, -0.2, 0.0),
    "r r- r/": Mouth(-0.4, 0.5, 0.4),
    "_: _ _!": _REST_MOUTH,
}
MOUTHS = {name: mouth for names, mouth in _MOUTHS_OF.items() for name in names.split()}
_GLIDES = {"aI": "a I", "aU": "a U", "oU": "o U", "OI": "O I", "eI": "E I", "aI@": "a I", "aU@": "a U", "aI3": "a I"}
_VOICES = ("en-us", "en", "en-gb-x-rp")
_VARIANTS = ("", *(f"+m{k}" for k in range(1, 9)), *(f"+f{k}" for k in range(1, 6)), "+klatt", "+klatt2", "+klatt3")
_VARIANTS += ("+Alicia", "+Andrea", "+Andy", "+Annie", "+Denis", "+Gene", "+Lee", "+Marco", "+Michael", "+adam")
_VARIANTS += ("+anika", "+benjamin", "+david", "+ed", "+iven", "+linda", "+max", "+paul", "+quincy", "+steph", "+zac")
# Harvard sentences (IEEE 1969), and some with many bilabials, labiodentals and rounded vowels.
SENTENCES = asset("sentences.txt").read_text(encoding="utf-8").splitlines()


@dataclass(frozen=True)
class Utterance:
    """A spoken text as sound, and its mouth targets."""

    sound: Array  # [N] float32 at mel.RATE_HZ
    mouths: Array  # [T, len(Mouth)] tracks, and degree of closure and labiodental contact, 0..1; MOUTH_HZ

    def at(self, times_s: NDArray[Any]) -> Array:
        """[N, len(Mouth)] at times_s by linear interpolation; the edge values are replicated."""
        known = np.arange(len(self.mouths)) / MOUTH_HZ
        return np.stack([np.interp(times_s, known, column) for column in self.mouths.T], 1).astype(np.float32)


def mouths_of(phonemes: list[tuple[float, str]], duration_s: float) -> Array:
    """[T, len(Mouth)] mouth targets at MOUTH_HZ, smoothed over phonemes: rounding most, contact least.

    Args:
        phonemes: (start in seconds, name) of each.
        duration_s: of the utterance.
    """
    rows = np.tile(np.array(_REST_MOUTH, np.float32), (round(duration_s * MOUTH_HZ) + 1, 1))
    ends = [start for start, _ in phonemes[1:]] + [duration_s]
    for (start, name), end in zip(phonemes, ends, strict=True):
        parts = _GLIDES.get(name, name).split()
        for index, part in enumerate(parts):
            first, last = (round((start + (end - start) * k / len(parts)) * MOUTH_HZ) for k in (index, index + 1))
            rows[first:last] = MOUTHS.get(part) or MOUTHS.get(part.rstrip(":")) or _SCHWA_MOUTH
    out = rows.copy()
    for column, length_s in enumerate((0.13, 0.27, 0.27, 0.04, 0.04)):
        out[:, column] = hann_smoothed(rows[:, column], length_s)
    return out


def utterances(count: int, rng: np.random.Generator) -> list[Utterance]:
    """Pairs of SENTENCES, spoken by many of espeak-ng's voices.

    Raises InputError if espeak-ng is not installed.
    """
    espeak, out = Espeak(), []
    for index in range(count):
        text = f"{SENTENCES[index % len(SENTENCES)]} {SENTENCES[rng.integers(len(SENTENCES))]}"
        voice = _VOICES[index % len(_VOICES)] + _VARIANTS[rng.integers(len(_VARIANTS))]
        speed, pitch, pitch_range = (int(rng.integers(*limits)) for limits in ((130, 215), (25, 75), (30, 80)))
        sound, phonemes = espeak.say(text, voice, words_a_minute=speed, pitch=pitch, pitch_range=pitch_range)
        out.append(Utterance(sound, mouths_of(phonemes, len(sound) / mel.RATE_HZ)))
    return out
