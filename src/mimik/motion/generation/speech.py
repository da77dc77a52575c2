"""Motion frames of someone who says what is heard: lips by the voice network, head, eyes and brows by what is said."""

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

_ACTIVE_DB = -30.0  # above the level of the speech, and ...
_ACTIVE_ABOVE_FLOOR_DB = 5.0  # ... above what is always there: sound that counts as speech
SILENT_DB = -58.0  # relative to full scale: never speech
_FLOOR_RISE_DB = 0.04  # of what is always there, in a step of the lips: 2 dB/s
_PAUSE_S = 0.16  # without speech: the lips begin to close
_CLOSE_TAU_S, _OPEN_TAU_S = 0.06, 0.03
_SHUT_BELOW = 0.12  # share of the lips' movement that is left when they meet in a pause
_ACTIVE_HOLD_S = 0.35
_PART_BY = 0.065  # most by which lips that touched part in a step, over the distance of the eyes

_LABIODENTAL_LIPS = 0.3, 0.7  # probability of f or v: from where, and from where on wholly
# The mouth of f and v: the lower lip rolled in and up, the upper one raised off the teeth.
_AT_TEETH = {"mouthRollLower": 0.6, "mouthUpperUpLeft": 0.3, "mouthUpperUpRight": 0.3, "jawOpen": 0.03}
_TEETH_GAP = 0.06  # opening, over the distance of the eyes: a slit that shows the upper teeth

_LEAST_OUTLINE = 0.02  # opening, over the distance of the eyes, whose outline is worth keeping
_NARROWEST = 0.6  # of the width at rest
_RESTING_SHARE = 0.5  # of breath and drift that is added to the head of someone who speaks
_IDLE_AFTER_S = 2.0  # without speech: the head waits, and no longer talks
_IDLE_TAU_S = 0.8  # of the way from one to the other


@functools.cache
def closed_reference() -> Reference:
    """The neutral face of generated speech: the mean face, its lips touching."""
    rest = rest_reference()
    return replace(rest, shape=closed_mouth(rest.shape, rest.blendshapes))


def mouth_width(shape: Float) -> float:
    """From corner to corner, over the distance of the eyes."""
    return float(np.linalg.norm(shape[61, :2] - shape[291, :2])) / eye_distance(shape)


def with_mouth(shape: Float, gap: float, width: float | None) -> Float:
    """The shape [478, 3] with its lips so far apart, and its mouth so wide, both over the distance of the eyes.

    The opening keeps its outline, or gets that of a lens where there was none.

    Args:
        gap: between the inner lips' middles, counted from the contact of closed_reference; 0 is contact everywhere.
        width: from corner to corner; None leaves it.
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
    """What is known of one of the lips' steps.

    Attributes:
        tracks: [len(CHANNELS)] above rest.
        touch: the lips touch.
        labiodental: 0..1, how far the lower lip is at the upper teeth.
        speaking: for head and eyes.
        silent_s: since there was speech.
    """

    tracks: Array
    touch: bool
    labiodental: float
    speaking: Speaking
    silent_s: float


class _Pauses:
    """When somebody speaks, and how much the lips may move."""

    def __init__(self) -> None:
        self._floor_db: float | None = None
        self.silent_s = 10.0  # since there was speech
        self._weight = 0.0

    def __call__(self, loudness_db: float, ahead_db: float, level_db: float) -> tuple[float, Speaking]:
        """Share of the lips' movement, 0..1, and what is heard; one step of the lips later.

        Args:
            loudness_db: at this instant.
            ahead_db: the loudest of the next tenth of a second: lips open before they sound.
            level_db: of the speech.
        """
        dt = 1 / LIPS_HZ
        floor = loudness_db if self._floor_db is None else min(loudness_db, self._floor_db + _FLOOR_RISE_DB)
        self._floor_db = min(floor, level_db - 12.0)

        def is_speech(db: float) -> bool:
            least = max(SILENT_DB, level_db + _ACTIVE_DB, floor + _ACTIVE_ABOVE_FLOOR_DB)
            return db > least

        was_silent = self.silent_s
        self.silent_s = 0.0 if is_speech(loudness_db) else self.silent_s + dt
        open_ = self.silent_s < _PAUSE_S or is_speech(ahead_db)
        tau = _OPEN_TAU_S if open_ else _CLOSE_TAU_S
        self._weight += (1 - math.exp(-dt / tau)) * (float(open_) - self._weight)
        pause_began = was_silent < _PAUSE_S <= self.silent_s
        active = self.silent_s < _ACTIVE_HOLD_S
        return self._weight, Speaking(active, pause_began, loudness_db - level_db)


class SpeechMotion:
    """Sound in, motion frames out, as much at a time as comes; memory does not grow.

    A frame of an instant is given once lips.LOOKAHEAD_S of sound after it have been heard, and as many steps more as
    lips.LipStream waits for, and another one.
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
        fps: motion frames a second.
        seed: of head, eyes and brows.
        start_db: level of the speech at the beginning, see mel.speech_level.
        model: the network; None is the one that comes with the package.
        phonemes: that are said, as phonemes.SaidMouth takes them, in place of what the network hears.
        is_live: as of lips.LipStream.
        """
        heard = LipStream(model or bundled_voice(), start_db=start_db, is_live=is_live)
        self._lips = heard if phonemes is None else SaidLips(heard, phonemes)
        self._pauses = _Pauses()
        self._steps: deque[_Instant] = deque()  # from _first on
        self._first = 0
        self._apart = 0  # steps since the lips touched
        self._fps, self._number = fps, 0
        self._samples = 0
        self._talking = 0.0  # 0: the head waits, 1: it talks
        streams = np.random.default_rng(seed).spawn(3)
        self._head, self._resting, self._eyes = TalkingHead(streams[0]), RestingHead(streams[1]), Eyes(streams[2])

    def push(self, samples: Array) -> Iterator[MotionFrame]:
        """The motion frames that [N] more samples make possible."""
        self._samples += len(samples)
        self._append(self._lips.push(samples))
        yield from self._ready()

    def finish(self) -> Iterator[MotionFrame]:
        """The rest, until the sound's end."""
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
            weight, speaking = self._pauses(float(loudness), float(ahead), float(level))
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
            # A touch is short: it shows in the frame whose time it falls into.
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
        """Step of the head's share of talking: after a long silence nothing but idle life is left."""
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
    """The motion frame of blendshapes [52] above rest, with lips so far apart and a mouth so much wider than at rest.

    Args: gap, width: over the distance of the eyes; width None is what the blendshapes give.
    """
    neutral = closed_reference().shape
    frame = motion_frame_of(Sample(0.0, shapes, np.zeros(6)))
    rest_width = mouth_width(neutral)
    wide = None if width is None else max(rest_width + width, _NARROWEST * rest_width)
    shape = with_mouth(neutral + frame.offset, max(gap, 0.0), wide)
    return replace(frame, offset=shape - neutral)


def with_pose(frame: MotionFrame, pose: Float) -> MotionFrame:
    """The frame with the head as head.POSE says."""
    return replace(frame, turn=pose[:3].copy(), shift=pose[3:6].copy(), zoom=float(pose[6]))


assert len(BLENDSHAPES) == 52 and len(CHANNELS) == len(MOUTH) + 2
