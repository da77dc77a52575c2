"""The tables of docs/voice.md: generated lips against real tracks, with loudness and viseme rules as baselines.

    mimik voice tracks CLIPS_OF_OTHER_PEOPLE -o dev
    python benchmarks/voice.py dev --fit TRAINING_TRACKS [--voice run/voice.safetensors] [-o results.json]

    python benchmarks/voice.py --articulation [--known] [--voice run/voice.safetensors]

The second command synthesizes sentences with espeak-ng, which provides the time of every phoneme, and prints measures
of the mouth by kind of phoneme; with --known the driver is given the phonemes, as with --say.

Rules need pocketsphinx (pip install pocketsphinx); without it their column is omitted. Everything is measured at 25
frames per second on the driver's motion frames, with its handling of pauses and contact.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from mimik.data.speech import SpeechClip, load_clips
from mimik.media import mel
from mimik.media.espeak import Espeak
from mimik.motion.contact import lip_openings
from mimik.motion.generation.lips import CHANNELS, GAP, JAW, MOUTH, WIDTH, VoiceModel, bundled_voice
from mimik.motion.generation.speech import SpeechMotion, closed_reference, mouth_width
from speech_measures import MouthTrack, SpeechScore, medians, score

FPS = 25
ROUNDING = [CHANNELS.index(name) for name in ("mouthPucker", "mouthFunnel")]
SPEECH_DB = -24.0  # relative to the level of the speech

# Jaw, opening, width about rest and rounding of CMU phones: the mouth shapes of animators' viseme charts.
OPEN = {"AA": 0.5, "AE": 0.4, "AH": 0.3, "AO": 0.4, "AW": 0.4, "AY": 0.45, "EH": 0.3, "ER": 0.2, "EY": 0.25, "IH": 0.2}
OPEN |= {"IY": 0.12, "OW": 0.25, "OY": 0.3, "UH": 0.18, "UW": 0.12, "B": 0.0, "P": 0.0, "M": 0.0, "F": 0.08, "V": 0.08}
OPEN |= dict.fromkeys(("TH", "DH", "T", "D", "N", "Y", "R", "NG", "CH", "JH", "SH", "ZH"), 0.12)
OPEN |= {"S": 0.08, "Z": 0.08, "L": 0.15, "K": 0.15, "G": 0.15, "HH": 0.2, "W": 0.08}
ROUND = {"AO": 0.5, "AW": 0.4, "ER": 0.3, "OW": 0.7, "OY": 0.5, "UH": 0.6, "UW": 0.9, "W": 0.9, "R": 0.4}
ROUND |= dict.fromkeys(("SH", "ZH", "CH", "JH"), 0.5)
WIDE = {"IY": 0.08, "EY": 0.06, "IH": 0.05, "EH": 0.05, "AE": 0.05, "S": 0.04, "Z": 0.04}


def real_track(clip: SpeechClip) -> tuple[np.ndarray, MouthTrack, np.ndarray]:
    times = np.arange(int(clip.duration_s * FPS)) / FPS
    y, known = clip.at(times)
    return times, MouthTrack.of(y[:, JAW], y[:, GAP], y[:, WIDTH], y[:, ROUNDING].sum(1)), known


def network_track(clip: SpeechClip, model: VoiceModel) -> MouthTrack:
    """Track of the mouth in the driver's motion frames."""
    loudness = mel.log_mel(clip.sound[: 8 * mel.RATE_HZ])[1]
    motion = SpeechMotion(FPS, start_db=mel.speech_level(loudness), model=model)
    frames = [*motion.push(clip.sound), *motion.finish()][: int(clip.duration_s * FPS)]
    neutral = closed_reference()
    shapes = np.array([frame.blendshapes - neutral.blendshapes for frame in frames])[:, MOUTH]
    moved = [neutral.shape + frame.offset for frame in frames]
    gap = np.array([lip_openings(shape)[4] for shape in moved]) - lip_openings(neutral.shape)[4]
    width = np.array([mouth_width(shape) for shape in moved])
    return MouthTrack.of(shapes[:, JAW], gap, width, shapes[:, ROUNDING].sum(1), gap < 1e-6)


def loudness_at(clip: SpeechClip, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loudness in decibels relative to full scale, and relative to the level of the speech."""
    loudness = mel.log_mel(clip.sound)[1]
    above = loudness - mel.Level(mel.start_level(loudness))(loudness)
    at = (np.arange(len(loudness)) * mel.HOP + mel.WINDOW / 2) / mel.RATE_HZ
    return np.interp(times, at, loudness), np.interp(times, at, np.convolve(above, np.ones(7) / 7, "same"))


class Loudness:
    """Baseline: jaw, opening and width linear in the loudness, with the real amplitude; fitted on other people."""

    def __init__(self, clips: list[SpeechClip]) -> None:
        x, y, means = [], [], []
        for clip in clips:
            times, real, known = real_track(clip)
            heard = self._heard(clip, times)[known]
            track = np.stack([real.jaw, real.gap, real.width], 1)[known]
            x.append(heard)
            y.append(track - track.mean(0))
            means.append(track.mean(0))
        loud, moved = np.concatenate(x), np.concatenate(y)
        slope = loud @ moved / (loud @ loud)
        self._slope = np.sign(slope) * moved.std(0) / loud.std()
        self._mean = np.mean(means, axis=0)

    @staticmethod
    def _heard(clip: SpeechClip, times: np.ndarray) -> np.ndarray:
        above = loudness_at(clip, times + 0.02)[1].clip(-30, 5)
        return above - above.mean()

    def __call__(self, clip: SpeechClip, times: np.ndarray) -> MouthTrack:
        jaw, gap, width = (self._mean + self._heard(clip, times)[:, None] * self._slope).T
        return MouthTrack.of(jaw, gap, width, -width)


class Rules:
    """Baseline: phones of pocketsphinx, with mouth shapes from a table, smoothed."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder, get_model_path

        folder = Path(get_model_path()) / "en-us"
        language = str(folder / "en-us-phone.lm.bin")
        self._decoder = Decoder(
            hmm=str(folder / "en-us"), allphone=language, lw=2.0, beam=1e-20, pbeam=1e-20, loglevel="FATAL"
        )

    def __call__(self, clip: SpeechClip, times: np.ndarray) -> MouthTrack:
        loud = clip.sound * (0.1 / math.sqrt(float((clip.sound**2).mean()) + 1e-9))
        self._decoder.start_utt()
        self._decoder.process_raw((loud.clip(-1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        self._decoder.end_utt()
        rows = np.zeros((int(clip.duration_s * 100) + 10, 4))
        for segment in self._decoder.seg():
            phone = segment.word
            opening = OPEN.get(phone, 0.0)
            row = (opening, 0.65 * opening, WIDE.get(phone, 0.0) - 0.12 * ROUND.get(phone, 0.0), ROUND.get(phone, 0.0))
            rows[segment.start_frame : segment.end_frame + 1] = row
        window = np.hanning(19)[1:-1] / np.hanning(19).sum()
        smooth = [np.convolve(column, window, "same") for column in rows.T]
        jaw, gap, width, rounding = (np.interp(times, np.arange(len(rows)) / 100, column) for column in smooth)
        return MouthTrack.of(jaw, gap, width, rounding, gap < 0.03)


SAID = (  # not in data.articulation.SENTENCES
    ("en-us+f2", "Bob and Mary bake apple pie."),
    ("en-us", "Maybe Pam put both of my brown bags above the map."),
    ("en+m3", "Very few of the five fish have survived a fall of fifty feet."),
    ("en-us+f2", "You two should move to a new room soon, would you?"),
    ("en-us", "Please see these green leaves near the sea."),
    ("en+m3", "The old boat goes slowly home in the cold."),
)
KINDS = {
    "p b m": "p b m",
    "f v": "f v",
    "u o w": "uː w ʊ ɔː oʊ o",
    "i e": "iː i ɪ ɛ",
    "a": "æ ɐ ɑː aɪ aʊ",
    "s z": "s z",
}


def articulation(model: VoiceModel, *, known: bool) -> dict[str, dict[str, float]]:
    """Measures by kind of phoneme: count, share with touching lips, means of opening, width and rounding.

    Args:
        model: the network.
        known: whether the driver is given the phonemes, as with --say.
    """
    espeak, neutral, fps = Espeak(ipa=True), closed_reference(), 50
    rows: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in KINDS}
    for voice, text in SAID:
        sound, phonemes = espeak.say(text, voice)
        quiet = np.zeros(round(0.3 * mel.RATE_HZ), np.float32)
        sound = np.concatenate([quiet, sound, quiet])
        later = [(seconds + 0.3, name) for seconds, name in phonemes] if known else None
        start_db = mel.speech_level(mel.log_mel(sound)[1])
        motion = SpeechMotion(fps, start_db=start_db, model=model, phonemes=later)
        frames = [*motion.push(sound), *motion.finish()]
        shapes = np.array([frame.blendshapes - neutral.blendshapes for frame in frames])[:, MOUTH]
        moved = [neutral.shape + frame.offset for frame in frames]
        gap = np.array([lip_openings(shape)[4] for shape in moved]) - lip_openings(neutral.shape)[4]
        width = np.array([mouth_width(shape) for shape in moved]) - mouth_width(neutral.shape)
        rounding = shapes[:, ROUNDING].sum(1)
        for (start, name), (end, _) in itertools.pairwise(phonemes):
            first, last = (round((seconds + 0.3) * fps) for seconds in (start, end))
            part = slice(max(0, first - 1), last + 2)  # within a frame
            for kind, names in KINDS.items():
                if name in names.split():
                    shut = float(gap[part].min() < 1e-6)
                    rows[kind].append((shut, gap[part].mean(), width[part].mean(), rounding[part].mean()))
    measures = ("shut", "opening", "width", "rounding")
    return {
        kind: {"count": len(each)} | dict(zip(measures, np.mean(each, axis=0).tolist(), strict=True))
        for kind, each in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracks", type=Path, nargs="?")
    parser.add_argument("--fit", type=Path, help="tracks of other people, to fit the loudness baseline")
    parser.add_argument("--articulation", action="store_true", help="sentences of espeak-ng instead of tracks")
    parser.add_argument(
        "--known", action="store_true", help="with --articulation: the phonemes are known, as with --say"
    )
    parser.add_argument("--voice", type=Path, help="the network; the bundled one if omitted")
    parser.add_argument("-o", dest="out", type=Path)
    arguments = parser.parse_args()
    model = VoiceModel.load(arguments.voice) if arguments.voice else bundled_voice()
    if arguments.articulation:
        for kind, row in articulation(model, known=arguments.known).items():
            print(f"{kind:8}", *(f"{name} {value:.3f}" for name, value in row.items()))
        return
    if arguments.tracks is None or arguments.fit is None:
        parser.error("give TRACKS and --fit TRACKS, or --articulation")
    clips, by_loudness = load_clips(arguments.tracks), Loudness(load_clips(arguments.fit))
    try:
        by_rules: Rules | None = Rules()
    except ImportError:
        by_rules = None
    scores: dict[str, list[SpeechScore]] = {}
    for clip in clips:
        times, real, known = real_track(clip)
        loudness, above = loudness_at(clip, times)
        made = {"loudness": by_loudness(clip, times), "voice": network_track(clip, model), "real": real}
        if by_rules is not None:
            made["rules"] = by_rules(clip, times)
        for name, track in made.items():
            scores.setdefault(name, []).append(score(real, track, loudness, above > SPEECH_DB, known, FPS))
    results: dict[str, Any] = {name: medians(each) for name, each in scores.items()}
    print(f"{len(clips)} clips, {len({clip.person for clip in clips})} people")
    for measure in results["real"]:
        print(f"{measure:20}", *(f"{name} {row[measure]:7.3f}" for name, row in results.items()))
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
