"""Lip-sync measures: generated tracks of the mouth against real ones, at one frame rate.

Lip-sync and silent lip stability follow THEval (arXiv:2511.04520), on this program's landmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Float, runs
from mimik.motion.generation.lips import TOUCH_GAP

Bools = NDArray[np.bool_]

_BILABIAL_S = 0.3  # longer contact of the lips is a pause
_TOLERANCE_S = 0.04  # largest offset of the generated closure
_SPEECH_S = 0.25  # a closure needs speech on both sides within this time
_MOST_SHIFT_S = 0.2
_SILENCE_S = 0.3  # THEval: shortest silence


@dataclass(frozen=True)
class SpeechScore:
    """Measures of one clip; NaN where they are undefined."""

    # Pearson correlation of jawOpen, of the lips' opening, the mouth's width, and mouthPucker + mouthFunnel with the
    # real tracks
    jaw: float
    gap: float
    width: float
    rounding: float
    jaw_amplitude: float  # standard deviation over the real one
    gap_amplitude: float  # standard deviation over the real one
    width_amplitude: float  # standard deviation over the real one
    rounding_amplitude: float  # standard deviation over the real one
    bilabials: float  # share of real closures within speech at which the generated lips touch
    num_bilabials: int  # number of these closures
    false_closures: float  # generated closures per second of speech without a real closure
    shut: float  # share of speech in which the generated lips touch
    lip_sync: float  # mean absolute difference of the opening and the loudness, each from 0 to 1, in speech
    pause_gap: float  # median opening of the lips in pauses, over the distance of the eyes
    silent_stability: float  # median absolute deviation of that opening
    late_s: float  # delay of the generated lips at which jaw and opening fit best, seconds
    jaw_in_step: float  # correlation of jawOpen after removing that delay, as videos may be out of sync


@dataclass(frozen=True)
class MouthTrack:
    """Track of a mouth: jaw [T], gap [T], width [T], rounding [T]; touch [T], whether the lips touch."""

    jaw: Float
    gap: Float
    width: Float
    rounding: Float
    touch: Bools

    @classmethod
    def of(cls, jaw: Any, gap: Any, width: Any, rounding: Any, touch: Any = None) -> MouthTrack:
        shut = np.asarray(gap) < TOUCH_GAP if touch is None else np.asarray(touch)
        jaw, gap, width, rounding = (np.asarray(x, np.float64) for x in (jaw, gap, width, rounding))
        return cls(jaw, gap, width, rounding, shut)


def pearson(a: Float, b: Float) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() > 1e-9 and b.std() > 1e-9 else float("nan")


def bilabials(real: Bools, speech: Bools, fps: float) -> list[tuple[int, int]]:
    """Short runs of touching real lips with speech before and after."""
    near = max(1, round(_SPEECH_S * fps))
    found = []
    for first, end in runs(real):
        before, after = speech[max(0, first - near) : first], speech[end : end + near]
        if first > 0 and end < len(real) and (end - first) <= _BILABIAL_S * fps and before.any() and after.any():
            found.append((first, end))
    return found


def silences(speech: Bools, fps: float) -> list[tuple[int, int]]:
    return [(a, b) for a, b in runs(~speech) if b - a >= _SILENCE_S * fps]


def score(
    real: MouthTrack, made: MouthTrack, loudness_db: Float, speech: Bools, seen: Bools, fps: float
) -> SpeechScore:
    """Measures of one clip.

    Args:
        real, made: tracks of T frames.
        loudness_db: [T] of the sound.
        speech: [T], whether somebody speaks.
        seen: [T], whether the real face is visible.
        fps: frames per second.
    """
    follows = {}
    for name in ("jaw", "gap", "width", "rounding"):
        a, b = getattr(real, name)[seen], getattr(made, name)[seen]
        follows[name] = pearson(a, b)
        follows[f"{name}_amplitude"] = float(b.std() / a.std()) if a.std() > 1e-6 else float("nan")
    slack = max(1, round(_TOLERANCE_S * fps))
    events = bilabials(real.touch & seen, speech, fps)
    hit = [bool(made.touch[max(0, a - slack) : b + slack].any()) for a, b in events]
    false = 0
    for a, b in runs(made.touch & speech & seen):
        false += not real.touch[max(0, a - 2 * slack) : b + 2 * slack].any()
    said = speech & seen
    volume = 10 ** (loudness_db / 20)
    sync = float("nan")
    if said.sum() > fps / 2:
        sync = float(np.abs(_unit(made.gap[said]) - _unit(volume[said])).mean())
    quiet = [made.gap[a:b] for a, b in silences(speech, fps)]
    pause = np.concatenate(quiet) if quiet else np.array([np.nan])
    return SpeechScore(
        **follows,
        bilabials=float(np.mean(hit)) if hit else float("nan"),
        num_bilabials=len(hit),
        false_closures=false / max(said.sum() / fps, 1e-9),
        shut=float(made.touch[said].mean()) if said.any() else float("nan"),
        lip_sync=sync,
        pause_gap=float(np.median(pause)),
        silent_stability=float(np.median(np.abs(pause - np.median(pause)))),
        **_in_step(real, made, seen, fps),
    )


def _in_step(real: MouthTrack, made: MouthTrack, seen: Bools, fps: float) -> dict[str, float]:
    best, found = -np.inf, {"late_s": float("nan"), "jaw_in_step": float("nan")}
    most = round(_MOST_SHIFT_S * fps)
    for shift in range(-most, most + 1):
        at = np.flatnonzero(seen)
        at = at[(at + shift >= 0) & (at + shift < len(made.jaw))]
        jaw = pearson(real.jaw[at], made.jaw[at + shift])
        fit = jaw + pearson(real.gap[at], made.gap[at + shift])
        if fit > best:
            best, found = fit, {"late_s": shift / fps, "jaw_in_step": jaw}
    return found


def _unit(x: Float) -> Float:
    low, high = float(x.min()), float(x.max())
    return (x - low) / max(high - low, 1e-9)


def medians(scores: Sequence[SpeechScore]) -> dict[str, float]:
    """Median of each measure over clips; for bilabials, the share over the closures of all clips."""
    out = {}
    for name in (f.name for f in fields(SpeechScore)):
        known = [value for score in scores if not np.isnan(value := getattr(score, name))]
        out[name] = float(np.median(known)) if known else float("nan")
    weights = np.array([s.num_bilabials for s in scores], float)
    if weights.sum():
        shares = np.array([0.0 if np.isnan(s.bilabials) else s.bilabials for s in scores])
        out["bilabials"] = float((shares * weights).sum() / weights.sum())
    return out | {"num_bilabials": float(weights.sum())}
