"""Mouth motion for known phonemes: a target per sound, and coarticulation.

Every phoneme has a target for each track of the mouth, and a weight: how much the sound needs this track. A track is
the mean of the targets around an instant, weighted by these weights and by a Hann window (the dominance functions of
Cohen and Massaro 1993, "Modeling Coarticulation in Synthetic Visual Speech", with a finite window). So lips round
before a u and through neighboring consonants that need no rounding, and nearly meet around a p. Contact of the lips,
and of the lower lip with the upper teeth, is not averaged: it lasts as long as its phoneme.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array
from mimik.motion.generation.lips import CHANNELS, FIRST_S, LIPS_HZ, Lips, LipStream

MOUTH_HZ = 200.0  # sampling rate of the targets

# Tracks of a target, their channels, and the length of their windows in seconds. Values are relative to the lips at
# rest: opening and width in eye distances, blendshapes 0 to 1.
_TRACKS: dict[str, tuple[tuple[str, ...], float]] = {
    "gap": (("gap",), 0.13),
    "jaw": (("jawOpen",), 0.17),
    "width": (("width",), 0.20),
    "pucker": (("mouthPucker",), 0.26),
    "funnel": (("mouthFunnel",), 0.22),
    "upper": (("mouthUpperUpLeft", "mouthUpperUpRight"), 0.16),
    "lower": (("mouthLowerDownLeft", "mouthLowerDownRight"), 0.16),
}
_TRACK_NAMES = tuple(_TRACKS)
_SHUT, _LABIODENTAL = "pbmɓʘ", "fvɱʋⱱ"  # the lips touch; the lower lip meets the upper teeth

# Target per sound: opening, jaw, width, pucker, funnel, upper lip up, lower lip down.
_REST = (0.02, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0)
_SCHWA = (0.12, 0.10, 0.0, 0.0, 0.02, 0.03, 0.03)
_OF: dict[str, tuple[float, ...]] = {
    # vowels, from open to close; the rounded ones after the others
    "aɐɑäæɶ": (0.24, 0.32, 0.02, 0.0, 0.02, 0.08, 0.10),
    "ʌ": (0.20, 0.24, 0.0, 0.0, 0.02, 0.06, 0.08),
    "ɛɜɝ": (0.18, 0.20, 0.06, 0.0, 0.0, 0.10, 0.12),
    "eɘ": (0.14, 0.13, 0.10, 0.0, 0.0, 0.12, 0.14),
    "əɚɤɨᵻ": _SCHWA,
    "ɪɯ": (0.11, 0.08, 0.10, 0.0, 0.0, 0.10, 0.10),
    "ij": (0.10, 0.05, 0.14, 0.0, 0.0, 0.12, 0.14),
    "ɒɔœ": (0.17, 0.22, -0.10, 0.25, 0.30, 0.02, 0.04),
    "oøɞɵ": (0.16, 0.14, -0.17, 0.50, 0.50, 0.0, 0.02),
    "ʊʏ": (0.11, 0.07, -0.17, 0.50, 0.40, 0.0, 0.0),
    "uyʉ": (0.09, 0.04, -0.24, 0.70, 0.55, 0.0, 0.0),
    "wɥʍ": (0.06, 0.03, -0.24, 0.80, 0.50, 0.0, 0.0),
    # consonants
    _SHUT: (0.0, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0),
    _LABIODENTAL: (0.04, 0.04, 0.02, 0.0, 0.0, 0.20, 0.0),
    "βɸ": (0.03, 0.04, 0.0, 0.0, 0.0, 0.0, 0.0),
    "tdnɾɖʈɳɲ": (0.09, 0.06, 0.04, 0.0, 0.0, 0.06, 0.10),
    "szʂʐ": (0.065, 0.015, 0.08, 0.0, 0.0, 0.12, 0.20),
    "ʃʒɕʑ": (0.09, 0.02, -0.10, 0.35, 0.40, 0.12, 0.18),
    "θð": (0.08, 0.07, 0.03, 0.0, 0.0, 0.08, 0.08),
    "lɫɭʎ": (0.12, 0.10, 0.03, 0.0, 0.0, 0.06, 0.08),
    "ɹɻɺ": (0.09, 0.07, -0.08, 0.30, 0.25, 0.04, 0.08),
    "rʀʁ": (0.11, 0.10, 0.0, 0.0, 0.02, 0.04, 0.06),
    "kgɡŋxɣcɟçqɢχħʕhɦʔ": (0.13, 0.12, 0.02, 0.0, 0.0, 0.05, 0.07),
}
# Weights per sound: opening, jaw, width, pucker, funnel, upper lip up, lower lip down.
_VOWEL = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
_TONGUE = (0.7, 0.7, 0.3, 0.15, 0.2, 0.5, 0.6)  # articulated by the tongue: the lips are free
_NEEDS: dict[str, tuple[float, ...]] = {
    "ə": (0.6, 0.6, 0.4, 0.4, 0.4, 0.5, 0.5),
    "uyʉwɥʍoø": (1.3, 1.2, 1.6, 1.6, 1.6, 1.0, 1.0),
    _SHUT: (2.0, 0.8, 0.4, 0.2, 0.3, 1.0, 1.0),
    _LABIODENTAL: (2.0, 1.0, 0.6, 0.5, 0.8, 2.0, 2.0),
    "βɸ": (1.5, 0.8, 0.4, 0.2, 0.3, 1.0, 1.0),
    "tdnɾɖʈɳɲlɫɭʎrʀʁθð": _TONGUE,
    "szʂʐ": (1.3, 1.5, 0.6, 0.35, 0.4, 0.8, 1.0),
    "ʃʒɕʑ": (1.2, 1.5, 1.0, 1.0, 1.2, 1.0, 1.0),
    "ɹɻɺ": (0.7, 0.7, 0.5, 0.6, 0.6, 0.5, 0.5),
    "kgɡŋxɣcɟçqɢχħʕhɦʔ": (0.3, 0.3, 0.15, 0.1, 0.15, 0.2, 0.2),
}
_TARGETS = {sound: values for sounds, values in _OF.items() for sound in sounds}
_WEIGHTS = {sound: values for sounds, values in _NEEDS.items() for sound in sounds}
_LONG = "ːˑ"

_LEAST_S = 0.06  # shortest contact of the lips, or of lip and teeth
_NEAR_S = 0.1  # time around contact in which the opening shrinks
_RELEASE_S = 0.015  # before a plosive's end, at which the lips part and it sounds


def sounds_of(name: str) -> list[str]:
    """The sounds in a phoneme's name, such as a and i of a diphthong; a long sound appears twice."""
    out: list[str] = []
    for letter in unicodedata.normalize("NFC", name):
        if letter in _LONG and out:
            out.append(out[-1])
        elif letter in _TARGETS:
            out.append(letter)
    return out or ["ə"]


def _is_silence(name: str) -> bool:
    return not name or name.startswith(("(", "_"))  # names of languages are in brackets


class SaidMouth:
    """Mouth motion of known phonemes."""

    def __init__(self, phonemes: Sequence[tuple[float, str]]) -> None:
        """Args: phonemes: (seconds, name in the International Phonetic Alphabet) where each begins; "" is silence."""
        length = round((phonemes[-1][0] if phonemes else 0.0) * MOUTH_HZ) + 1
        targets = np.tile(np.array(_REST, np.float32), (length, 1))
        weights = np.ones_like(targets)
        self._shut: NDArray[np.bool_] = np.zeros(length, bool)
        self._at_teeth: Array = np.zeros(length, np.float32)
        for (start_s, name), (end_s, _) in itertools.pairwise(phonemes):
            if _is_silence(name):
                continue
            parts = sounds_of(name)
            edges = np.round(np.linspace(start_s, end_s, len(parts) + 1) * MOUTH_HZ).astype(int)
            for part, first, last in zip(parts, edges, edges[1:], strict=False):
                targets[first:last] = _TARGETS[part]
                weights[first:last] = _WEIGHTS.get(part, _VOWEL)
            if parts[0] in _SHUT:
                last_s = max(start_s + _LEAST_S, end_s - _RELEASE_S)
                self._shut[round(start_s * MOUTH_HZ) : round(last_s * MOUTH_HZ)] = True
            elif parts[0] in _LABIODENTAL:
                self._at_teeth[round(start_s * MOUTH_HZ) : round(max(start_s + _LEAST_S, end_s) * MOUTH_HZ)] = 1.0
        self._at_teeth = hann_smoothed(self._at_teeth, 0.05)
        columns = []
        for index, name in enumerate(_TRACK_NAMES):
            need, length_s = weights[:, index], _TRACKS[name][1]
            columns.append(hann_smoothed(targets[:, index] * need, length_s) / hann_smoothed(need, length_s))
        columns[_TRACK_NAMES.index("gap")] *= 1 - hann_smoothed(self._shut.astype(np.float32), _NEAR_S)
        self._tracks = np.stack(columns, 1)

    def at(self, times_s: NDArray[np.float64]) -> tuple[Array, NDArray[np.bool_], Array]:
        """Tracks [N, len(CHANNELS)] above the lips at rest, contact [N] and labiodental [N], as in lips.Lips."""
        place = (times_s * MOUTH_HZ).clip(0, len(self._tracks) - 1)
        near = np.round(place).astype(int)
        out = np.zeros((len(times_s), len(CHANNELS)), np.float32)
        for column, name in zip(self._tracks.T, _TRACK_NAMES, strict=True):
            values = np.interp(place, np.arange(len(column)), column)
            for channel in _TRACKS[name][0]:
                out[:, CHANNELS.index(channel)] = values
        return out, self._shut[near], self._at_teeth[near]


def hann_smoothed(values: Array, length_s: float) -> Array:
    """[T] values at MOUTH_HZ, smoothed by a Hann window of this length; the edge values are replicated."""
    window = np.hanning(2 * round(length_s * MOUTH_HZ / 2) + 1)[1:-1]
    half = len(window) // 2
    out: Array = np.convolve(np.pad(values, half, mode="edge"), window / window.sum(), "valid").astype(np.float32)
    return out


class SaidLips:
    """Lips of known phonemes; replaces lips.LipStream, which only measures loudness and level."""

    def __init__(self, stream: LipStream, phonemes: Sequence[tuple[float, str]]) -> None:
        self._stream, self._mouth, self._step = stream, SaidMouth(phonemes), 0

    def push(self, samples: Array) -> Lips:
        """The steps that [N] more samples complete, as LipStream.push."""
        return self._said(self._stream.push(samples))

    def finish(self) -> Lips:
        """The remaining steps, with silence after the sound."""
        return self._said(self._stream.finish())

    def _said(self, heard: Lips) -> Lips:
        times_s = FIRST_S + (self._step + np.arange(len(heard.touch))) / LIPS_HZ
        self._step += len(heard.touch)
        tracks, touch, labiodental = self._mouth.at(times_s)
        return replace(heard, tracks=tracks, touch=touch, labiodental=labiodental)
