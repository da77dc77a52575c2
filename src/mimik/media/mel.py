"""Log-mel energies for networks, 100 frames per second, normalized by the level of the speech.

All processing is causal and incremental, so that files, microphones and training yield the same numbers.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array

RATE_HZ = 16_000  # of the sound, mono
HOP = 160  # samples: 100 frames per second
WINDOW = 400  # samples, Hann; frame k starts at sample k * HOP
NUM_BANDS = 64
_FFT = 512
_BAND_HZ = 60.0, 7600.0
_FLOOR_DB = -80.0  # floor of a band's energy; lower values count as silence
_SCALE_DB = 20.0  # decibels per unit of the features
_RANGE = 4.0  # limit of the absolute value of the features

START_DB = -28.0  # initial level of speech, relative to full scale
_LEVEL_DB = -55.0, 0.0
_ATTACK = 0.08  # smoothing factor per frame if a frame is louder than the level
_DECAY_DB = 0.015  # decay per frame if it is not: 1.5 dB/s
_LOOK_BACK_SHARE = 0.9  # quantile of a piece's loudness that estimates the level of its speech


@functools.cache
def mel_filters() -> Array:
    """[257, NUM_BANDS] triangular filters, normalized to sum 1, on the mel scale 2595 log10(1 + f / 700)."""
    low, high = (2595 * np.log10(1 + np.array(_BAND_HZ) / 700)).tolist()
    edges = 700 * (10 ** (np.linspace(low, high, NUM_BANDS + 2) / 2595) - 1)
    frequency = np.linspace(0, RATE_HZ / 2, _FFT // 2 + 1)[:, None]
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    triangles = np.minimum(rise, fall).clip(0)
    return (triangles / triangles.sum(0).clip(1e-9)).astype(np.float32)


def log_mel(samples: NDArray[Any]) -> tuple[Array, Array]:
    """Decibels of each band and of the whole frame, relative to full scale.

    Args:
        samples: [N] float32 in -1..1 at RATE_HZ; N at least WINDOW.

    Returns:
        [T, NUM_BANDS] and [T], T = 1 + (N - WINDOW) // HOP.
    """
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    # Parseval, normalized by the window's power: a frame's mean square is spread over 257 frequency bins.
    power = np.abs(np.fft.rfft(frames * window, _FFT)) ** 2 / (window @ window)
    bands = power.astype(np.float32) @ mel_filters()
    floor = np.float32(10 ** (_FLOOR_DB / 10))
    loudness = (frames.astype(np.float32) ** 2).mean(1)
    return 10 * np.log10(bands / _FFT + floor / _FFT), 10 * np.log10(loudness + floor)


class Level:
    """Running level of the speech in decibels: fast attack, slow decay."""

    def __init__(self, start_db: float = START_DB) -> None:
        self.db = float(np.clip(start_db, *_LEVEL_DB))

    def __call__(self, loudness_db: Array) -> Array:
        """[T] levels for [T] frame loudnesses in decibels."""
        out = np.empty(len(loudness_db), np.float32)
        level, (low, high) = self.db, _LEVEL_DB
        for index, loudness in enumerate(loudness_db.tolist()):
            level += _ATTACK * (loudness - level) if loudness > level else -_DECAY_DB
            level = min(max(level, low), high)
            out[index] = level
        self.db = level
        return out


def speech_level(loudness_db: Array) -> float:
    """Level of the loud frames in decibels; the initial level of a file, so that its first word is normalized."""
    heard = loudness_db[loudness_db > _LEVEL_DB[0]]
    return float(np.quantile(heard, _LOOK_BACK_SHARE)) if len(heard) else START_DB


_START_FRAMES = 800  # frames at the beginning of a recording, 8 s, from which its first level is taken


def start_level(loudness_db: Array) -> float:
    """Level of the speech at the beginning of a recording with [T] frame loudnesses in decibels."""
    return speech_level(loudness_db[:_START_FRAMES])


def features(bands_db: Array, level_db: Array) -> Array:
    """[T, NUM_BANDS] features for networks: bands relative to the level of the speech.

    Args:
        bands_db: [T, NUM_BANDS] of log_mel.
        level_db: [T] of Level.
    """
    # Bands of speech are about 25 dB below its level, because the power is spread over 257 frequency bins.
    shifted = (bands_db - level_db[:, None] + 35.0) / _SCALE_DB
    return shifted.clip(-_RANGE, _RANGE).astype(np.float32)
