"""Motion frames from speech: lips by the voice network; head, eyes and brows by statistics and loudness."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mimik.arrays import smoothstep
from mimik.face.landmarks import BLENDSHAPES, LIPS
from mimik.media import mel
from mimik.motion.contact import closed_mouth, eye_distance, lip_openings, with_lip_openings
from mimik.motion.drivers.stream import Sample, motion_frame_of, rest_reference
from mimik.motion.expression import Float
from mimik.motion.frames import MotionFrame, Reference
from mimik.motion.generation.eyes import Eyes, Speaking
from mimik.motion.generation.head import RestingHead, TalkingHead
from mimik.motion.generation.lips import (
    CHANNELS,
    FIRST_S,
    GAP,
    LIPS_HZ,
    MOUTH,
    WIDTH,
    Array,
    Lips,
    LipStream,
    VoiceModel,
    bundled_voice,
)
from mimik.motion.generation.phonemes import SaidLips

_ACTIVE_DB = -30.0  # speech is louder than this, relative to the level of the speech, and ...
_ACTIVE_ABOVE_FLOOR_DB = 5.0  # ... than this above the noise floor
SILENT_DB = -58.0  # relative to full scale: quieter sound is never speech
_FLOOR_RISE_DB = 0.04  # of the noise floor per lip step: 2 dB/s
_PAUSE_S = 0.16  # time without speech after which the lips begin to close
_CLOSED_PAUSE_S = 0.8  # longer contact is a pause, whatever is audible
_CLOSE_TAU_S, _OPEN_TAU_S = 0.06, 0.03
_SHUT_BELOW = 0.12  # weight of lip motion below which lips touch in a pause
_ACTIVE_HOLD_S = 0.35  # time without speech until a speaker counts as inactive
_PART_BY = 0.065  # largest growth of the opening per step after contact, in eye distances

_LABIODENTAL_LIPS = 0.3, 0.7  # probability of f or v at which the shape below has no and full weight
# The mouth of f and v: lower lip rolled in and up, upper lip raised above the teeth.
_AT_TEETH = {"mouthRollLower": 0.6, "mouthUpperUpLeft": 0.3, "mouthUpperUpRight": 0.3, "jawOpen": 0.03}
_TEETH_GAP = 0.06  # opening in eye distances: a slit that shows the upper teeth

_LEAST_OUTLINE = 0.02  # opening in eye distances from which its outline is kept
_NARROWEST = 0.6  # smallest width, relative to the width at rest
_RESTING_SHARE = 0.5  # weight of breath and drift while speaking
_IDLE_AFTER_S = 2.0  # time without speech after which the head changes to idle motion
_IDLE_TAU_S = 0.8  # time constant of this change


@functools.cache
def closed_reference() -> Reference:
    """The neutral face of generated speech: the mean face with touching lips."""
    rest = rest_reference()
    return replace(rest, shape=closed_mouth(rest.shape, rest.blendshapes))


def mouth_width(shape: Float) -> float:
    """Distance between the mouth corners, in eye distances."""
    return float(np.linalg.norm(shape[61, :2] - shape[291, :2])) / eye_distance(shape)


def with_mouth(shape: Float, gap: float, width: float | None) -> Float:
    """The shape [478, 3] with a given lip opening and mouth width, both in eye distances.

    The opening keeps its outline, or gets the outline of a lens if it was closed.

    Args:
        gap: opening at the middle of the inner lips, relative to closed_reference; 0 is contact everywhere.
        width: distance between the corners; None leaves it.
    """
    out = shape.copy()
    if width is not None:
        left, right = out[61], out[291]
        scale = width / max(mouth_width(shape), 1e-6)
        middle = (left[0] + right[0]) / 2
        out[LIPS, 0] = middle + (out[LIPS, 0] - middle) * scale
    contact = lip_openings(closed_reference().shape)
    opening = (lip_openings(out) - contact).clip(0)
    center = len(opening) // 2
    if opening[center] > _LEAST_OUTLINE:
        opening = opening * (gap / opening[center])
    else:
        opening = gap * np.sqrt(1 - np.linspace(-0.9, 0.9, len(opening)) ** 2)
    return with_lip_openings(out, contact + opening)


@dataclass(frozen=True)
class _Instant:
    """One step of the lips.

    Attributes:
        tracks: [len(CHANNELS)] above rest.
        touch: the lips touch.
        labiodental: 0..1, weight of the mouth of f and v.
        speaking: for head and eyes.
        silent_s: time since the last speech.
    """

    tracks: Array
    touch: bool
    labiodental: float
    speaking: Speaking
    silent_s: float


class _Pauses:
    """Voice activity detection, and the weight of lip motion."""

    def __init__(self) -> None:
        self._floor_db: float | None = None
        self._closed_s = 0.0  # time since the lips touch
        self.silent_s = 10.0  # time since the last speech
        self._weight = 0.0

    def __call__(self, loudness_db: float, ahead_db: float, level_db: float, touch: bool) -> tuple[float, Speaking]:
        """Advance by one lip step. Returns the weight of lip motion, 0..1, and the state of the speech.

        Args:
            loudness_db: at this instant.
            ahead_db: maximum of the next 0.1 s, because lips open before the sound.
            level_db: level of the speech.
            touch: whether the lips touch; what is audible while they touch for long is noise.
        """
        dt = 1 / LIPS_HZ
        floor = loudness_db if self._floor_db is None else min(loudness_db, self._floor_db + _FLOOR_RISE_DB)
        self._floor_db = min(floor, level_db - 12.0)

        def is_speech(db: float) -> bool:
            least = max(SILENT_DB, level_db + _ACTIVE_DB, floor + _ACTIVE_ABOVE_FLOOR_DB)
            return db > least

        was_silent = self.silent_s
        self._closed_s = self._closed_s + dt if touch else 0.0
        is_closed = self._closed_s >= _CLOSED_PAUSE_S
        self.silent_s = 0.0 if is_speech(loudness_db) and not is_closed else self.silent_s + dt
        if is_closed:
            self.silent_s = max(self.silent_s, self._closed_s)
        open_ = self.silent_s < _PAUSE_S or (is_speech(ahead_db) and not is_closed)
        tau = _OPEN_TAU_S if open_ else _CLOSE_TAU_S
        self._weight += (1 - math.exp(-dt / tau)) * (float(open_) - self._weight)
        pause_began = was_silent < _PAUSE_S <= self.silent_s
        active = self.silent_s < _ACTIVE_HOLD_S
        return self._weight, Speaking(active, pause_began, loudness_db - level_db)


class SpeechMotion:
    """Streaming: takes sound of any length and returns motion frames, in constant memory.

    A frame is returned once the sound after it is as long as lips.LOOKAHEAD_S, plus the steps for which lips.LipStream
    waits, plus one step.
    """

    def __init__(
        self,
        fps: float,
        *,
        seed: int = 0,
        start_db: float = mel.START_DB,
        model: VoiceModel | None = None,
        phonemes: Sequence[tuple[float, str]] | None = None,
        is_live: bool = False,
    ) -> None:
        """Args:
        fps: motion frames per second.
        seed: of head, eyes and brows.
        start_db: level of the speech at the beginning, see mel.speech_level.
        model: the network; None: the bundled one.
        phonemes: known phonemes, as for phonemes.SaidMouth; they replace the network's output.
        is_live: as for lips.LipStream.
        """
        heard = LipStream(model or bundled_voice(), start_db=start_db, is_live=is_live)
        self._lips = heard if phonemes is None else SaidLips(heard, phonemes)
        self._pauses = _Pauses()
        self._steps: deque[_Instant] = deque()  # from _first on
        self._first = 0
        self._apart = 0  # steps since the lips touched
        self._fps, self._number = fps, 0
        self._samples = 0
        self._talking = 0.0  # 0: idle head, 1: talking head
        streams = np.random.default_rng(seed).spawn(3)
        self._head, self._resting, self._eyes = TalkingHead(streams[0]), RestingHead(streams[1]), Eyes(streams[2])

    def push(self, samples: Array) -> Iterator[MotionFrame]:
        """The motion frames that [N] more samples complete."""
        self._samples += len(samples)
        self._append(self._lips.push(samples))
        yield from self._ready()

    def finish(self) -> Iterator[MotionFrame]:
        """The remaining frames, up to the end of the sound."""
        self._append(self._lips.finish())
        total = math.ceil(self._samples / mel.RATE_HZ * self._fps - 1e-6)
        while self._number < total:
            if self._steps and (frames := self._ready(total)):
                yield from frames
            if self._number < total:
                self._append(self._lips.push(np.zeros(mel.RATE_HZ // 10, np.float32)))

    def _append(self, lips: Lips) -> None:
        columns = (lips.tracks, lips.touch, lips.labiodental, lips.loudness_db, lips.ahead_db, lips.level_db)
        for tracks, touch, labiodental, loudness, ahead, level in zip(*columns, strict=True):
            weight, speaking = self._pauses(float(loudness), float(ahead), float(level), bool(touch))
            shut = bool(touch) or weight < _SHUT_BELOW
            self._apart = 0 if shut else self._apart + 1
            tracks = tracks * weight
            tracks[GAP] = min(tracks[GAP], _PART_BY * self._apart)
            at_teeth = float(smoothstep(labiodental, *_LABIODENTAL_LIPS)) * (0.0 if shut else 1.0)
            self._steps.append(_Instant(tracks, shut, at_teeth, speaking, self._pauses.silent_s))

    def _ready(self, limit: int | None = None) -> list[MotionFrame]:
        out = []
        while limit is None or self._number < limit:
            # Steps before and after the frame's instant.
            at = (self._number / self._fps - FIRST_S) * LIPS_HZ - self._first
            before = math.floor(at + 1e-9)
            if before + 1 >= len(self._steps):
                break
            a, b = self._steps[before], self._steps[before + 1]
            share = at - before
            # Contact is short: it is shown in the frame whose interval contains it.
            half = max(1, round(LIPS_HZ / self._fps / 2))
            near = [self._steps[i] for i in range(max(0, before + 1 - half), min(len(self._steps), before + 1 + half))]
            touch = any(step.touch for step in near)
            tracks = a.tracks * (1 - share) + b.tracks * share
            pause = any(step.speaking.pause_began for step in near[: half + 1])
            self._talking += self._toward(b.silent_s)
            at_teeth = max(step.labiodental for step in near)
            out.append(self._frame(tracks, touch, at_teeth, replace(b.speaking, pause_began=pause)))
            self._number += 1
            for _ in range(max(0, before - half - 1)):
                self._steps.popleft()
                self._first += 1
        return out

    def _toward(self, silent_s: float) -> float:
        """Change of the talking head's weight in one frame; after a long silence only idle motion remains."""
        goal = float(silent_s < _IDLE_AFTER_S)
        return (1 - math.exp(-1 / (self._fps * _IDLE_TAU_S))) * (goal - self._talking)

    def _frame(self, tracks: Array, touch: bool, at_teeth: float, speaking: Speaking) -> MotionFrame:
        dt = 1 / self._fps
        pose = self._head.step(dt, speaking.emphasis_db, pause_began=speaking.pause_began)
        talking = self._talking
        pose = talking * pose + (1 - (1 - _RESTING_SHARE) * talking) * self._resting.step(dt)
        turned = np.degrees(np.array([-pose[1], pose[0]]))
        shapes = self._eyes.step(dt, speaking, turned)
        shapes[list(MOUTH)] = tracks[: len(MOUTH)]
        gap = 0.0 if touch else float(tracks[GAP])
        if not touch and at_teeth > 0:
            for name, value in _AT_TEETH.items():
                index = BLENDSHAPES.index(name)
                shapes[index] += at_teeth * (value - shapes[index])
            gap += at_teeth * (_TEETH_GAP - gap)
        return with_pose(mouth_frame(shapes, gap, float(tracks[WIDTH])), pose)


def mouth_frame(shapes: Float, gap: float, width: float | None) -> MotionFrame:
    """The motion frame of blendshapes [52] above rest, with a given lip opening and change of mouth width from rest.

    Args: gap, width: in eye distances; width None keeps the width of the blendshapes.
    """
    neutral = closed_reference().shape
    frame = motion_frame_of(Sample(0.0, shapes, np.zeros(6)))
    rest_width = mouth_width(neutral)
    wide = None if width is None else max(rest_width + width, _NARROWEST * rest_width)
    shape = with_mouth(neutral + frame.offset, max(gap, 0.0), wide)
    return replace(frame, offset=shape - neutral)


def with_pose(frame: MotionFrame, pose: Float) -> MotionFrame:
    """The frame with a head pose [head.POSE]."""
    return replace(frame, turn=pose[:3].copy(), shift=pose[3:6].copy(), zoom=float(pose[6]))


assert len(BLENDSHAPES) == 52 and len(CHANNELS) == len(MOUTH) + 2
