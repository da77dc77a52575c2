"""Training data of the voice network: sound and face tracks, and augmented pieces of them.

A clip is one .npz file, written by track_folder: blendshapes, points and pose of every frame, and the sound from the
first frame on. A file without points and sound has lips [T, 2], opening and width in eye distances, and the sound is in
NAME.ogg beside it.
"""

from __future__ import annotations

import logging
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array, Rng
from mimik.config import InputError, NoFaceError, counted
from mimik.data.preparation.sources import Source
from mimik.face.landmarks import Landmarker, head_pose
from mimik.face.tracker import Tracker
from mimik.files import DRAFT_SUFFIX, atomic_write
from mimik.media import mel
from mimik.media.reading import probe, read_frames
from mimik.media.sound import read_sound
from mimik.motion.frames import rotation_vector
from mimik.motion.generation.lips import FIRST_S, GAP, JAW, LIPS_HZ, MOUTH, TOUCH_GAP
from mimik.pipeline import Progress

log = logging.getLogger(__name__)


_EYES = [33, 133], [362, 263]
_MIN_S = 1.5  # shorter clips are omitted
_MIN_SEEN = 0.8  # smallest share of frames with a face
_MIN_LOUD_DB = -50.0  # lower limit of the 95th percentile of loudness; quieter sound is not speech
# lower limit of the standard deviation of the opening, in eye distances; still lips are not speech
_MIN_GAP_STD = 0.008


@dataclass(frozen=True)
class SpeechClip:
    """One clip."""

    name: str  # of the file
    person: str  # name of the speaker; clips of one person are held out together
    sound: Array  # [N] float32, -1..1, mono at mel.RATE_HZ; sample 0 is at the time of the first frame
    fps: float  # of the tracks
    tracks: Array  # [T, len(CHANNELS)] float32 as measured
    seen: NDArray[np.bool_]  # [T] whether a face was found

    @property
    def duration_s(self) -> float:
        return min(len(self.seen) / self.fps, len(self.sound) / mel.RATE_HZ)

    def at(self, times_s: NDArray[Any]) -> tuple[Array, NDArray[np.bool_]]:
        """Tracks [N, len(CHANNELS)] at times_s by linear interpolation, and [N] whether they are known."""
        place = times_s * self.fps
        low = np.floor(place).astype(int)
        inside = (low >= 0) & (low + 1 < len(self.seen)) & (times_s < self.duration_s)
        low = low.clip(0, max(0, len(self.seen) - 2))
        high = np.minimum(low + 1, len(self.seen) - 1)
        share = (place - low).clip(0, 1).astype(np.float32)[:, None]
        known = inside & self.seen[low] & self.seen[high]
        return self.tracks[low] * (1 - share) + self.tracks[high] * share, known

    def is_usable(self) -> bool:
        """Whether the clip is long enough, shows a face, has sound, and the lips move."""
        if self.duration_s < _MIN_S or self.seen.mean() < _MIN_SEEN or len(self.sound) < mel.RATE_HZ:
            return False
        loudness = mel.log_mel(self.sound)[1]
        return bool(np.quantile(loudness, 0.95) > _MIN_LOUD_DB and self.tracks[self.seen, GAP].std() > _MIN_GAP_STD)


def lip_geometry(points: NDArray[Any]) -> Array:
    """[T, 2] opening of the inner lips and mouth width, in eye distances, of points [T, 478, 3]."""
    p = points.astype(np.float32)
    eyes = np.linalg.norm(p[:, _EYES[0], :2].mean(1) - p[:, _EYES[1], :2].mean(1), axis=1).clip(1e-6)
    return np.stack([np.linalg.norm(p[:, a, :2] - p[:, b, :2], axis=1) / eyes for a, b in ((13, 14), (61, 291))], 1)


def load_clip(path: Path) -> SpeechClip:
    with np.load(path) as z:
        arrays = {name: z[name] for name in z.files}
    shapes = arrays["blendshapes"][:, MOUTH].astype(np.float32)
    if "sound" in arrays:
        sound = arrays["sound"].astype(np.float32) / 32768
        lips, person = lip_geometry(arrays["points"]), str(arrays["person"])
    else:
        sound, lips, person = _decode(path.with_suffix(".ogg")), arrays["lips"].astype(np.float32), path.parent.name
    return SpeechClip(path.stem, person, sound, float(arrays["fps"]), np.concatenate([shapes, lips], 1), arrays["seen"])


def _decode(path: Path) -> Array:
    """[N] samples of a sound file at mel.RATE_HZ."""
    return np.concatenate(list(read_sound(path, rate=mel.RATE_HZ)))


def load_clips(folder: Path) -> list[SpeechClip]:
    """Every usable clip of a folder written by track_folder, sorted by name.

    Raises InputError if there is none.
    """
    clips = [clip for path in clip_files(folder) if (clip := _loaded(path)) and clip.is_usable()]
    if not clips:
        raise _no_clips(folder)
    return clips


def clip_files(folder: Path) -> list[Path]:
    """The clip files of a folder. Raises InputError if there is none."""
    if not (files := sorted(folder.glob(f"*{CLIP_SUFFIX}"))):
        raise _no_clips(folder)
    return files


def _no_clips(folder: Path) -> InputError:
    return InputError(
        f"{folder} contains no clip of a talking face; use a folder that `mimik voice tracks VIDEOS -o {folder}` wrote."
    )


def _loaded(path: Path) -> SpeechClip | None:
    try:
        return load_clip(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        log.warning("%s is skipped (%s)", path, error)
        return None


# Videos to clips.

_MOST_HZ = 35.0  # videos with a higher frame rate are read at half of it
CLIP_SUFFIX = ".npz"


def track_clip(path: Path, landmarker: Landmarker) -> dict[str, Any]:
    """The arrays of one clip file: face tracks of a video, and its sound from the first frame on.

    Returns:
        fps; blendshapes [T, 52]; points [T, 478, 3] float16, centimeters, own frame; turn [T, 3], place [T, 3] and
        scale [T] of the head's Pose; seen [T]; sound [N] int16 at mel.RATE_HZ.

    Raises:
        InputError: if the video has no sound or no face.
    """
    sound = np.concatenate(list(read_sound(path, rate=mel.RATE_HZ)))
    fps = probe(path).fps
    fps = fps / 2 if fps > _MOST_HZ else fps
    tracker = Tracker(landmarker)
    rows: list[tuple[Any, ...]] = []
    for frame in read_frames(path, fps=fps):
        face = tracker.track(frame)
        if face is None:
            rows.append((np.zeros(52), np.zeros((478, 3)), np.zeros(3), np.zeros(3), 1.0, False))
            continue
        pose = head_pose(face.points)
        own = pose.invert(face.points)
        rows.append((face.blendshapes, own, rotation_vector(pose.rotation), pose.translation, pose.scale, True))
    shapes, points, turn, place, scale, seen = (np.array(column) for column in zip(*rows, strict=True))
    if not seen.any():
        raise NoFaceError(f"no face was found in {path} ({counted(len(seen), 'frame')}).")
    return {
        "fps": np.float64(fps),
        "blendshapes": shapes.astype(np.float32),
        "points": points.astype(np.float16),
        "turn": turn.astype(np.float32),
        "place": place.astype(np.float32),
        "scale": scale.astype(np.float32),
        "seen": seen.astype(bool),
        "sound": (sound.clip(-1, 1) * 32767).astype(np.int16),
    }


def track_folder(sources: Sequence[Source], out: Path, progress: Progress) -> dict[str, str]:
    """Write one file per video; existing files are kept, so that an interrupted run resumes.

    Args:
        sources: videos; the person of each speaks in it, None: a separate person.
        out: the folder.
        progress: called with the stage, the number done and the total.

        Returns:
            The reason for every omitted video.
    """
    out.mkdir(parents=True, exist_ok=True)
    landmarker, reasons = Landmarker(), {}
    for done, (source, name) in enumerate(zip(sources, _clip_names(sources), strict=True)):
        progress("tracking faces", done, len(sources))
        target = out / f"{name}{CLIP_SUFFIX}"
        if target.exists():
            continue
        try:
            arrays = track_clip(source.path, landmarker)
        except InputError as error:
            reasons[source.name] = str(error)
            continue
        with atomic_write(target, suffix=DRAFT_SUFFIX) as draft, draft.open("wb") as file:
            np.savez_compressed(file, **arrays | {"person": np.array(source.person or name)})
    progress("tracking faces", len(sources), len(sources))
    return reasons


def _clip_names(sources: Sequence[Source]) -> list[str]:
    """A different name for the clip of each video: its own; with its folders, if several videos have that.

    Raises InputError if two names remain equal.
    """
    num_videos = Counter(source.path.stem for source in sources)
    names: dict[str, Source] = {}
    for source in sources:
        folders = PurePosixPath(source.name).with_suffix("").parts
        name = source.path.stem if num_videos[source.path.stem] == 1 else "-".join(folders)
        other = names.setdefault(name, source)
        if other is not source:
            raise InputError(
                f"{other.path} and {source.path}: both clips would be {name}{CLIP_SUFFIX}; rename one video."
            )
    return list(names)


# Augmentation of the sound.


def resampled(samples: Array, speed: float) -> Array:
    """The sound at `speed` times the speed: pitch, timbre and tempo change together."""
    where = np.arange(0, len(samples) - 1, speed)
    low = where.astype(int)
    share = (where - low).astype(np.float32)
    return samples[low] * (1 - share) + samples[low + 1] * share


def _room(rng: Rng, num: int) -> NDArray[Any]:
    """Spectrum [num / 2 + 1] of a room and a channel: decaying noise after the direct sound, tilt, band limits."""
    response = np.zeros(num)
    response[0] = 1.0
    if rng.random() < 0.5:
        decay_s = rng.uniform(0.08, 0.6)
        length = min(num // 4, int(decay_s * mel.RATE_HZ))
        tail = rng.normal(size=length) * np.exp(-6.9 * np.arange(length) / length)
        delay = int(rng.uniform(0.002, 0.02) * mel.RATE_HZ)
        response[delay : delay + length] += tail * (10 ** (rng.uniform(-22, -4) / 20) / np.sqrt((tail**2).sum()))
    spectrum = np.fft.rfft(response)
    octaves = np.log2(np.linspace(0, mel.RATE_HZ / 2, len(spectrum)).clip(40) / 1000)
    gain_db = octaves * rng.normal(0, 2.0) + np.interp(octaves, np.linspace(-4.6, 3, 7), rng.normal(0, 3.0, 7))
    if rng.random() < 0.25:  # a telephone
        low, high = np.log2(rng.uniform(0.08, 0.3)), np.log2(rng.uniform(3.2, 6.0))
        gain_db -= 24 * (low - octaves).clip(0) + 60 * (octaves - high).clip(0)
    return spectrum * 10 ** (gain_db / 20)


def _disturbance(rng: Rng, num: int, others: Array) -> Array:
    """[num] background sound of power 1: colored noise, music-like tones, or other speakers."""
    kind = rng.random()
    if kind < 0.45:
        spectrum = np.fft.rfft(rng.normal(size=num))
        spectrum *= (np.arange(len(spectrum)) + 20.0) ** rng.uniform(-1.0, 0.2)
        out = np.fft.irfft(spectrum, num)
    elif kind < 0.7:
        time = np.arange(num) / mel.RATE_HZ
        out = np.zeros(num)
        for _ in range(rng.integers(2, 5)):
            length_s = rng.uniform(0.15, 0.8)
            notes = 55 * 2 ** (rng.integers(0, 48, int(num / mel.RATE_HZ / length_s) + 2) / 12)
            phase = 2 * np.pi * np.cumsum(notes[(time / length_s).astype(int)]) / mel.RATE_HZ
            fade = np.exp(-3 * ((time / length_s) % 1))
            out += fade * sum(np.sin(k * phase) / k for k in range(1, 5))
    else:
        start = rng.integers(0, max(1, len(others) - num))
        out = np.resize(others[start : start + num], num).astype(np.float64)
    return (out / np.sqrt((out**2).mean() + 1e-12)).astype(np.float32)


def disturbed(samples: Array, rng: Rng, others: Array) -> Array:
    """The sound with reverberation, a channel, background sound, and another level."""
    num = len(samples)
    size = 1 << (num + mel.RATE_HZ // 2 - 1).bit_length()
    out = np.fft.irfft(np.fft.rfft(samples, size) * _room(rng, size), size)[:num].astype(np.float32)
    power = float((out**2).mean()) + 1e-12
    if rng.random() < 0.6:
        out += _disturbance(rng, num, others) * np.float32(np.sqrt(power) * 10 ** (-rng.uniform(3, 35) / 20))
    out *= np.float32(10 ** ((rng.uniform(-40, -14) - 10 * np.log10(power)) / 20))
    return out.clip(-1, 1)


@dataclass(frozen=True)
class SpeechPiece:
    """Inputs and targets of the network; T steps of LIPS_HZ."""

    features: Array  # [2 T, NUM_BANDS]
    tracks: Array  # [T, len(CHANNELS)]
    touch: Array  # [T] 0..1
    known: NDArray[np.bool_]  # [T] bool


def piece_of(
    clip: SpeechClip, *, sound: Array | None = None, speed: float = 1.0, start_offset_db: float = 0.0
) -> SpeechPiece:
    """The whole clip as one piece.

    Args:
        sound: replaces the clip's, at `speed` times the speed.
        start_offset_db: error of the initial level.
    """
    values = features_of(clip.sound if sound is None else sound, start_offset_db)
    tracks, known = clip.at(instants(len(values) // 2) * speed)
    touch = (tracks[:, GAP] < TOUCH_GAP).astype(np.float32)
    return SpeechPiece(values, tracks, touch, known)


def shifted(piece: SpeechPiece, lag: int) -> SpeechPiece:
    """The piece with tracks that come `lag` steps earlier; the steps without tracks are unknown."""
    there = np.arange(len(piece.known)) + lag
    inside = there.clip(0, len(there) - 1)
    known = piece.known[inside] & (inside == there)
    return SpeechPiece(piece.features, piece.tracks[inside], piece.touch[inside], known)


def features_of(samples: Array, start_offset_db: float = 0.0) -> Array:
    """[2 T, NUM_BANDS] features of a whole recording, padded with silence for the lookahead of the last outputs."""
    ahead = np.zeros(round(-FIRST_S * mel.RATE_HZ) + mel.WINDOW, np.float32)
    bands, loudness = mel.log_mel(np.concatenate([samples, ahead]))
    level = mel.Level(mel.start_level(loudness) + start_offset_db)(loudness)
    return mel.features(bands, level)[: 2 * (len(level) // 2)]


def instants(steps: int) -> NDArray[np.float64]:
    """[steps] times of a recording's outputs, in seconds."""
    out: NDArray[np.float64] = FIRST_S + np.arange(steps) / LIPS_HZ
    return out


def augmented(clip: SpeechClip, rng: Rng, others: Array) -> SpeechPiece:
    """The clip with another voice, room, microphone, level and speed."""
    speed = float(rng.uniform(0.84, 1.2)) if rng.random() < 0.8 else 1.0
    sound = resampled(clip.sound, speed) if speed != 1.0 else clip.sound
    if rng.random() < 0.9:
        sound = disturbed(sound, rng, others)
    return piece_of(clip, sound=sound, speed=speed, start_offset_db=float(rng.normal(0, 3)))


_NUM_MASKS = 2  # masks of bands, and of time, per piece
_MASK = 9, 14  # upper limit (exclusive) of masked bands, and of masked frames


def warped(values: Array, rng: Rng) -> Array:
    """Features [2 T, NUM_BANDS] of a longer or shorter vocal tract, with masked bands and times (SpecAugment)."""
    bands = np.arange(mel.NUM_BANDS)
    where = (bands * rng.uniform(0.88, 1.12) + rng.uniform(-1.5, 1.5)).clip(0, mel.NUM_BANDS - 1.001)
    low = where.astype(int)
    share = (where - low).astype(np.float32)
    out: Array = values[:, low] * (1 - share) + values[:, low + 1] * share
    out += np.float32(rng.normal(0, 0.1))
    for _ in range(_NUM_MASKS):
        start, width = rng.integers(0, mel.NUM_BANDS - _MASK[0]), rng.integers(0, _MASK[0])
        out[:, start : start + width] = out.mean()
        start, width = rng.integers(0, max(1, len(out) - _MASK[1])), rng.integers(0, _MASK[1])
        out[start : start + width] = out.mean(0)
    return out


# Statistics of clips.


@dataclass(frozen=True)
class Scale:
    """Scale between tracks and network outputs."""

    spread: Array  # [C] standard deviation of the training clips about their own means
    rise: Array  # [C] mean of the tracks minus the clip's lips at rest
    usual: Array  # [C] median over clips of their standard deviation


def rest_of(tracks: Array) -> Array:
    """[C] the mouth at rest: the median over the 5 % of frames with the smallest opening."""
    order = np.argsort(tracks[:, GAP], kind="stable")
    return np.median(tracks[order[: max(3, len(order) // 20)]], axis=0).astype(np.float32)


def scale_of(clips: Sequence[SpeechClip]) -> Scale:
    seen = [clip.tracks[clip.seen] for clip in clips]
    spread = np.sqrt(np.mean([x.var(0) for x in seen], axis=0)) + 0.01
    rise = np.mean([x.mean(0) - rest_of(x) for x in seen], axis=0)
    usual = np.median([x.std(0) for x in seen], axis=0)
    return Scale(spread.astype(np.float32), rise.astype(np.float32), usual.astype(np.float32))


def correlation_of(a: Array, b: Array) -> float:
    """Pearson correlation; 0 if one of them is constant."""
    return float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) > 1e-6 else 0.0


_MOST_LAG = 16  # steps
_USUAL_LAG = 2.5  # mean absolute lag of clips from the web, in steps
_INDEPENDENT_HZ = 4.0  # independent values per second of a track of the mouth


def lag_of(out: Array, piece: SpeechPiece) -> int:
    """Steps by which a clip's picture lags its sound, estimated from outputs [T, NUM_OUTPUTS] for the sound.

    The most probable lag: a Laplace distribution of lags is the prior, and the likelihood is that of the correlation of
    jaw and opening, as if they had _INDEPENDENT_HZ normal values per second. Short clips need a clearer maximum.
    """
    known = np.flatnonzero(piece.known)
    lags, scores = np.arange(-_MOST_LAG, _MOST_LAG + 1), []
    for lag in lags:
        at = known[(known - lag >= 0) & (known - lag < len(out))]
        fit = np.mean([correlation_of(out[at - lag, c], piece.tracks[at, c]) for c in (GAP, JAW)]).clip(0, 0.99)
        independent = len(at) * _INDEPENDENT_HZ / LIPS_HZ
        scores.append(-0.5 * independent * np.log(1 - fit**2) - abs(lag) / _USUAL_LAG)
    return int(lags[np.argmax(scores)])


def held_out(clips: Sequence[SpeechClip]) -> tuple[list[SpeechClip], list[SpeechClip]]:
    """Training clips, and the clips of every eighth speaker, for calibration; at least one speaker in each.

    Raises InputError if there is only one speaker.
    """
    people = sorted({clip.person for clip in clips})
    if len(people) < 2:
        raise InputError(
            f"the clips show {len(people)} speaker; use clips of several people, or `mimik voice tracks --manifest`."
        )
    held = set(people[3::8] or people[-1:])
    return [c for c in clips if c.person not in held], [c for c in clips if c.person in held]
