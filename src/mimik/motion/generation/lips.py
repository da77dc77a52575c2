"""From sound to lips: streaming inference of the voice network, without torch.

The network takes log-mel frames. It outputs, 50 times per second, the mouth's blendshapes, the lip opening, the mouth
width, whether the lips touch, and whether the lower lip meets the upper teeth. It is causal with a fixed lookahead: the
output for an instant needs LOOKAHEAD_S of sound after it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from mimik.arrays import Array, runs
from mimik.config import ModelError
from mimik.face.landmarks import BLENDSHAPES
from mimik.files import asset
from mimik.media import mel

LIPS_HZ = 50
STACK = 2  # mel frames per network step
FIRST_S = -0.11  # time of the network's first output; the outputs are 1 / LIPS_HZ apart
LOOKAHEAD_S = (mel.HOP * (STACK - 1) + mel.WINDOW) / mel.RATE_HZ - FIRST_S  # sound needed after an output's time

MOUTH = tuple(index for index, name in enumerate(BLENDSHAPES) if name.startswith(("jaw", "mouth")))
GEOMETRY = ("gap", "width")  # opening of the inner lips and mouth width, in eye distances
CHANNELS = (*(BLENDSHAPES[index] for index in MOUTH), *GEOMETRY)
# Logits: the lips touch; the lower lip is at the upper teeth (f, v); there is no speech.
TOUCH, LABIODENTAL, PAUSE = (len(CHANNELS) + index for index in range(3))
NUM_OUTPUTS, NUM_TRAINED = PAUSE + 1, PAUSE  # the last one is solved for the trained network
GAP, WIDTH = (CHANNELS.index(name) for name in GEOMETRY)
JAW = CHANNELS.index("jawOpen")
TOUCH_GAP = 0.015  # eye distances; the landmark detector measures less between touching lips

# Lips touch at minima of a score: the opening minus a weighted contact logit. A threshold on the predicted opening does
# not suffice: predictions regress to the mean, so a threshold that finds closures keeps the lips shut for too long.
# They also touch in pauses: where the opening is small, and the sound quiet or the pause logit positive, and wherever
# that logit is large. In noise between sentences they would otherwise open and close with each small minimum.
_LOGITS = -4.0, 2.0  # range to which the logit is clamped
_OLDER_LOGIT_WEIGHT = 0.06  # of the logit, in units of the opening, for older files
_BEFORE, _AFTER, _AFTER_LIVE = 4, 3, 1  # steps before and after a minimum without a lower score; fewer after it if live
_EARLY, _TOUCHING = 1, 2  # steps before a minimum at which contact begins, and its length in steps
_JOINED, _JOINED_OPENING = 6, 0.1  # longest and widest opening between two contacts that is left out; steps
_JOINED_RISE = 0.02  # of the threshold, where they are left out: there are fewer false closures
_QUIET_DB = -30.0  # relative to the level of the speech; in quieter sound small openings count as contact
_OLDER_OPENING = 0.045  # threshold of minima minus threshold of openings, for older files
_SURE_PAUSE = 2.0  # pause logit above which no opening is too large
QUIET_OPENING = 0.1  # smaller openings count as contact in quiet sound, in eye distances
_LEAST_OPENING = 0.03  # smallest opening of lips that do not touch, in eye distances
_SOFT_OPENING = 0.012  # softness of the lower bound, in eye distances

LABIODENTAL_FROM = 0.5  # probability
NEVER = -30.0  # logit of a network without this output

FORMAT = "mimik voice 1"


@dataclass(frozen=True)
class VoiceModel:
    """Weights of the voice network and the scales of its outputs."""

    # float32, named as in the state of networks.voice.VoiceNet; with several members, after the member's number, as in
    # "2.stem.bias", and their outputs are averaged. `scale.rise` and `scale.spread` [C]: a track above the lips at rest
    # is rise + spread * output. `scale.contact` [3] is a ContactRule; older files have its first value only, or
    # `scale.touch` [2], whose second value is a threshold of openings. The last two logits are optional.
    tensors: Mapping[str, Array]
    record: dict[str, Any]  # settings of the network and its training, and measurements

    @property
    def members(self) -> list[dict[str, Array]]:
        """The tensors of each network."""
        count = self.record["network"].get("members")
        if count is None:
            return [{name: value for name, value in self.tensors.items() if not name.startswith("scale.")}]
        names = [(name.partition("."), value) for name, value in self.tensors.items()]
        return [{rest: value for (head, _, rest), value in names if head == str(k)} for k in range(count)]

    @property
    def dilations(self) -> tuple[int, ...]:
        return tuple(self.record["network"]["dilations"])

    def save(self, path: Path) -> None:
        halves = {name: np.ascontiguousarray(value, np.float16) for name, value in self.tensors.items()}
        metadata = {"format": FORMAT, "record": json.dumps(self.record)}
        safetensors.numpy.save_file(halves, str(path), metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> VoiceModel:
        """Raises: ModelError: if it is not a file that `mimik voice train` wrote."""
        try:
            with safetensors.safe_open(str(path), framework="np") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"its format is {metadata.get('format')!r}")
                tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
            for value in tensors.values():
                value.setflags(write=False)  # bundled_voice is shared
            record = json.loads(metadata["record"])
            model = cls(tensors, record)
            LipPredictor(model)(np.zeros((STACK, mel.NUM_BANDS), np.float32))
        except FileNotFoundError:
            raise ModelError(f"{path}: no such file; use a network that `mimik voice train` wrote.") from None
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            raise ModelError(
                f"{path} is not a voice network ({error}); use a file that `mimik voice train` wrote."
            ) from error
        return model


@functools.cache
def bundled_voice() -> VoiceModel:
    """The bundled network."""
    return VoiceModel.load(asset("voice.safetensors"))


def _layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    centered = x - x.mean(1, keepdims=True)
    scale: Array = 1 / np.sqrt((centered * centered).mean(1, keepdims=True) + np.float32(1e-5))
    out: Array = centered * scale * weight + bias
    return out


def _fast_sigmoid(x: Array) -> Array:
    half: Array = 0.5 * np.tanh(0.5 * x) + np.float32(0.5)
    return half


class LipPredictor:
    """Averages the outputs of a model's networks, for one stream."""

    def __init__(self, model: VoiceModel) -> None:
        self._members = [Member(tensors, model.dilations) for tensors in model.members]

    def __call__(self, features: Array) -> Array:
        """[n, NUM_OUTPUTS] for the next [2 n, NUM_BANDS] features."""
        out: Array = np.mean([member(features) for member in self._members], axis=0)
        return out


class Member:
    """One network with its streaming state, which has a constant size."""

    def __init__(self, w: Mapping[str, Array], dilations: tuple[int, ...]) -> None:
        self._w = w
        self._channels = len(w["stem.bias"])
        self._hidden: Array = np.zeros(w["gru.weight_hh_l0"].shape[1], np.float32)
        self._blocks = []
        for index, dilation in enumerate(dilations):
            taps = [np.ascontiguousarray(w[f"blocks.{index}.conv.weight"][:, :, k].T) for k in range(3)]
            past = np.zeros((2 * dilation, self._channels), np.float32)
            self._blocks.append((dilation, taps, past))

    def __call__(self, features: Array) -> Array:
        """[n, NUM_OUTPUTS] for the next [2 n, NUM_BANDS] features."""
        out: Array = self.hidden(features) @ self._w["head.weight"].T + self._w["head.bias"]
        if out.shape[1] < NUM_OUTPUTS:
            out = np.pad(out, ((0, 0), (0, NUM_OUTPUTS - out.shape[1])), constant_values=NEVER)
        return out

    def hidden(self, features: Array) -> Array:
        """[n, H] inputs of the output layer, for the next [2 n, NUM_BANDS] features."""
        w = self._w
        rows: Any = features.reshape(len(features) // STACK, -1)
        h: Any = (rows @ w["stem.weight"].T + w["stem.bias"]).clip(0)
        for index, (dilation, taps, past) in enumerate(self._blocks):
            name = f"blocks.{index}"
            x = np.concatenate([past, _layer_norm(h, w[f"{name}.norm.weight"], w[f"{name}.norm.bias"])])
            n = len(h)
            y: Any = w[f"{name}.conv.bias"] + x[:n] @ taps[0]
            y += x[dilation : dilation + n] @ taps[1]
            y += x[2 * dilation :] @ taps[2]
            h = h + y.clip(0) @ w[f"{name}.mix.weight"].T + w[f"{name}.mix.bias"]
            past[:] = x[len(x) - len(past) :]
        h = _layer_norm(h, w["norm.weight"], w["norm.bias"])
        r = self._recur(h @ w["gru.weight_ih_l0"].T + w["gru.bias_ih_l0"])
        out: Array = np.concatenate([h, r], 1)
        return out

    def _recur(self, inputs: Array) -> Array:
        """[n, H] states of the recurrent layer, from the projections of its inputs [n, 3 H]."""
        weight, bias = self._w["gru.weight_hh_l0"], self._w["gru.bias_hh_l0"]
        size = len(self._hidden)
        out = np.empty((len(inputs), size), np.float32)
        state = self._hidden
        for index, x in enumerate(inputs):
            own = weight @ state + bias
            gates = _fast_sigmoid(x[: 2 * size] + own[: 2 * size])
            new = np.tanh(x[2 * size :] + gates[:size] * own[2 * size :])
            state = new + gates[size:] * (state - new)
            out[index] = state
        self._hidden = state
        return out


class ContactRule(NamedTuple):
    """When the lips touch; see contact_score."""

    threshold: float  # of the score of a minimum
    logit_weight: float  # weight of the contact logit, in units of the opening
    quiet_opening: float  # smaller openings are contact in quiet sound

    @classmethod
    def of(cls, model: VoiceModel) -> ContactRule:
        known = model.tensors.get("scale.contact")
        if known is not None and len(known) == len(cls._fields):
            return cls(*known.tolist())
        threshold = float(model.tensors["scale.touch"][1]) + _OLDER_OPENING if known is None else float(known[0])
        return cls(threshold, _OLDER_LOGIT_WEIGHT, threshold - _OLDER_OPENING)


def contact_score(gap: Array, logit: Array, logit_weight: float) -> Array:
    """[n] score, lower for lips nearer to contact, from openings [n] and contact logits [n]."""
    out: Array = gap - np.float32(logit_weight) * (logit.clip(*_LOGITS) - np.float32(_LOGITS[0]) / 2)
    return out


def contacts(score: Array, threshold: float, after: int = _AFTER) -> NDArray[np.bool_]:
    """[n] whether the lips touch in each of n steps: at a minimum of the score, and in the steps beside it.

    Args:
        score: [CONTACT_BEFORE + n + after + _EARLY] of these steps, and of those before and after them.
        threshold: upper limit of a minimum.
        after: steps after a minimum in which no score is lower.
    """
    around = np.lib.stride_tricks.sliding_window_view(score, _BEFORE + 1 + after)
    here = around[:, _BEFORE]
    minima = (here < threshold) & (here <= around.min(1))
    return np.asarray(np.lib.stride_tricks.sliding_window_view(minima, _TOUCHING).any(1))


CONTACT_BEFORE, CONTACT_AFTER = _BEFORE + _TOUCHING - 1 - _EARLY, _AFTER + _EARLY


def joined(touch: NDArray[np.bool_], gap: Array, is_open: NDArray[np.bool_], before: bool) -> NDArray[np.bool_]:
    """[n] contact, also in brief and small openings between two contacts: lips are slower than minima of a score.

    Args:
        touch: [n] whether the lips touch.
        gap: [n] opening.
        is_open: [n] steps that are not joined.
        before: whether the lips touch in the step before.
    """
    out = touch.copy()
    for first, end in runs(~touch):
        is_between = (touch[first - 1] if first else before) and end < len(touch)
        small = (gap[first:end] < _JOINED_OPENING) & ~is_open[first:end]
        out[first:end] = is_between and end - first <= _JOINED and small.all()
    return out


def parted(gap: Array) -> Array:
    """The opening [n] of lips that do not touch: the network's, with a soft lower bound.

    A regression network predicts nearly closed lips where contact is uncertain.
    """
    out: Array = _LEAST_OPENING + _SOFT_OPENING * np.logaddexp(0, (gap - _LEAST_OPENING) / _SOFT_OPENING)
    return out.astype(np.float32)


@dataclass(frozen=True)
class Lips:
    """The mouth over an interval, at LIPS_HZ."""

    tracks: Array  # [n, len(CHANNELS)] above the lips at rest, in the units of blendshapes and of GEOMETRY
    touch: NDArray[np.bool_]  # [n] whether the lips touch
    labiodental: Array  # [n] 0..1: the lower lip is at the upper teeth, and does not touch the upper lip
    loudness_db: Array  # [n] of the sound at these instants, relative to full scale
    ahead_db: Array  # [n] maximum loudness of the available sound after each instant
    level_db: Array  # [n] level of the speech


class LipStream:
    """Streaming: takes sound of any length and returns lips; a step is returned ten steps late (live: one)."""

    def __init__(self, model: VoiceModel, *, start_db: float = mel.START_DB, is_live: bool = False) -> None:
        """Args:
        model: the network.
        start_db: level of the speech at the beginning, see mel.speech_level.
        is_live: whether low latency matters more than contact one step earlier, at the right minimum, and without brief
            openings.
        """
        self._predict = LipPredictor(model)
        self._rise, self._spread = model.tensors["scale.rise"], model.tensors["scale.spread"]
        self._contact = ContactRule.of(model)
        self._after = _AFTER_LIVE if is_live else _AFTER
        self._joins = 0 if is_live else _JOINED
        self._ahead = self._after + _EARLY - is_live  # steps needed after the one whose contact is decided
        self._touches = False  # in the last step that was returned
        # Before the next step that is returned.
        self._scores: Array = np.full(CONTACT_BEFORE + is_live, np.inf, np.float32)
        self._held: Array = np.zeros((0, NUM_OUTPUTS + 3), np.float32)  # data of steps that are not returned yet
        self._level = mel.Level(start_db)
        self._rest = np.zeros(0, np.float32)
        # Loudness and level of frames that wait for outputs; the first outputs precede the sound.
        ahead = round(-FIRST_S * mel.RATE_HZ / mel.HOP)
        self._waiting = np.tile(np.array([[-80.0, start_db]], np.float32), (ahead, 1))

    def push(self, samples: Array) -> Lips:
        """The steps that [N] more float32 samples complete; -1..1, mono at mel.RATE_HZ."""
        have = np.concatenate([self._rest, samples.astype(np.float32, copy=False)])
        steps = max(0, (len(have) - mel.WINDOW) // mel.HOP + 1) // STACK
        if not steps:
            self._rest = have
            return self._given(np.zeros((0, NUM_OUTPUTS + 3), np.float32))
        frames = steps * STACK
        bands, loudness = mel.log_mel(have[: (frames - 1) * mel.HOP + mel.WINDOW])
        self._rest = have[frames * mel.HOP :]
        level = self._level(loudness)
        out = self._predict(mel.features(bands, level))
        waiting = np.concatenate([self._waiting, np.stack([loudness, level], 1)])
        now, self._waiting = waiting[:frames:STACK], waiting[frames:]
        ahead = np.lib.stride_tricks.sliding_window_view(waiting[:, 0], len(self._waiting) + 1)[:frames:STACK].max(1)
        tracks = self._rise + self._spread * out[:, :TOUCH]
        return self._given(np.c_[tracks, out[:, TOUCH:], now[:, 0], ahead, now[:, 1]])

    def _given(self, rows: Array) -> Lips:
        """Of the held and the next steps, those whose contact is decided."""
        held = np.concatenate([self._held, rows])
        decided = max(0, len(held) - self._ahead)
        count = max(0, decided - self._joins)
        score = np.concatenate([self._scores, contact_score(held[:, GAP], held[:, TOUCH], self._contact.logit_weight)])
        self._held, self._scores = held[count:], score[count : count + len(self._scores)]
        now = held[:decided]
        labiodental = _fast_sigmoid(now[:, LABIODENTAL])
        threshold = self._contact.threshold + (_JOINED_RISE if self._joins else 0.0)
        touch = contacts(score, threshold, self._after) if decided else np.zeros(0, bool)
        quiet = now[:, NUM_OUTPUTS] < now[:, NUM_OUTPUTS + 2] + _QUIET_DB
        quiet |= now[:, PAUSE] > 0
        touch |= quiet & (now[:, GAP] < self._contact.quiet_opening)
        touch |= now[:, PAUSE] > _SURE_PAUSE
        is_labiodental = labiodental >= LABIODENTAL_FROM  # f, v are not closures
        touch &= ~is_labiodental
        if self._joins:
            touch = joined(touch, now[:, GAP], is_labiodental, self._touches)
        now, touch = now[:count], touch[:count]
        self._touches = bool(touch[-1]) if count else self._touches
        tracks = now[:, :TOUCH].copy()
        tracks[:, GAP] = parted(tracks[:, GAP])
        return Lips(tracks, touch, labiodental[:count], *now[:, NUM_OUTPUTS:].T)

    def finish(self) -> Lips:
        """The remaining steps, with silence after the sound."""
        steps = 1 + CONTACT_AFTER + _JOINED
        return self.push(np.zeros(round(LOOKAHEAD_S * mel.RATE_HZ) + steps * STACK * mel.HOP, np.float32))
