"""A recording of speech as a driver."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

import av
import numpy as np

from mimik.config import MediaError
from mimik.media import mel
from mimik.media.containers import audio_stream, open_container
from mimik.media.formats import SOUND_SUFFIXES
from mimik.media.sound import Samples, probe_sound, read_sound
from mimik.media.speaking import phonemes_beside
from mimik.motion.drivers.driver import USUAL_FPS, Driver, DriverSettings, DrivingMotion
from mimik.motion.frames import MotionFrame
from mimik.motion.generation.speech import SILENT_DB, SpeechMotion, closed_reference
from mimik.motion.smoothing import smoothed

_LEVEL_S = 8.0  # at the beginning, from which the level of the speech is taken


class Voice(Driver):
    """Sound of an audio file or of a video; the video's picture is not used."""

    kind = "recording"
    is_generated = True
    suffixes = SOUND_SUFFIXES
    path: Path

    @classmethod
    def takes(cls, source: str) -> bool:
        path = Path(source)
        return super().takes(source) or (path.is_file() and path.suffix.lower() in _EITHER and _has_sound_only(path))

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        path = Path(source)
        info = probe_sound(path)
        phonemes_beside(path)  # says now what is wrong with them
        rate = fps or USUAL_FPS
        num_frames = None if info.duration_s is None else max(1, math.ceil(info.duration_s * rate - 1e-6))
        return cls(path.name, path, rate, num_frames, sound=path)

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        notes: list[str] = []
        # What is generated has no noise of a landmarker: only smoothing beyond the usual amount is applied.
        smooth = max(0.0, 2 * settings.smooth - 1)
        frames = smoothed(self._frames(settings.seed, notes), self.fps, smooth)
        return DrivingMotion(closed_reference(), frames, notes=notes)

    def _frames(self, seed: int, notes: list[str]) -> Iterator[MotionFrame]:
        pieces = read_sound(self.path, rate=mel.RATE_HZ, block_s=_PIECE_S)
        begin = list(itertools.islice(pieces, math.ceil(_LEVEL_S / _PIECE_S)))
        loudness = _loudness(begin)
        start_db, phonemes = mel.speech_level(loudness), phonemes_beside(self.path)
        speech = SpeechMotion(self.fps, seed=seed, start_db=start_db, phonemes=phonemes)
        loudest = float(loudness.max(initial=-80.0))
        for piece in itertools.chain(begin, pieces):
            loudest = max(loudest, float(_loudness([piece]).max(initial=-80.0)))
            yield from speech.push(piece)
        yield from speech.finish()
        if loudest < SILENT_DB:
            notes.append(f"{self.name} is silent")


_PIECE_S = 0.5  # that is read at a time
_EITHER = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".3gp", ".ts", ".avi", ".asf")  # with a picture or without


def _has_sound_only(path: Path) -> bool:
    """Whether a readable file has sound but no video stream."""
    try:
        with closing(open_container(path)) as container:
            cover = av.stream.Disposition.attached_pic
            pictures = [stream for stream in container.streams.video if not stream.disposition & cover]
            return audio_stream(container) is not None and not pictures
    except MediaError:
        return False


def _loudness(pieces: list[Samples]) -> Samples:
    samples = np.concatenate([*pieces, np.zeros(mel.WINDOW, np.float32)])
    return mel.log_mel(samples)[1]
