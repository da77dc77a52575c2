"""The output layer of a voice network, on synchronized clips and on synthetic speech: ridge and logistic regression.

The layers before it are unchanged, and so is the output for the opening. The solution is cheap, needs no learning rate,
and stays near the initial weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array, Rng, runs
from mimik.data.articulation import TAUGHT, Utterance
from mimik.data.speech import (
    Scale,
    SpeechClip,
    disturbed,
    features_of,
    instants,
    lag_of,
    piece_of,
    shifted,
)
from mimik.face.landmarks import BLENDSHAPES
from mimik.media import mel
from mimik.motion.generation.lips import (
    CHANNELS,
    GAP,
    JAW,
    LABIODENTAL,
    LIPS_HZ,
    NEVER,
    NUM_OUTPUTS,
    PAUSE,
    TOUCH,
    LipPredictor,
    Member,
    VoiceModel,
)
from mimik.motion.generation.speech import SpeechMotion

# Chosen on 16 clips of held-out training speakers, by correlation.
_PULL = 3000.0  # regularization toward the initial weights, in frames
_SPOKEN = 0.3  # weight of a frame of synthetic speech
_ALONE, _ALONE_WEIGHT = 50, 0.35  # clips used of the single-speaker corpus, and weight of their frames
_CONTACT_PULL = 30.0  # regularization of the contact logit toward 0, in frames
_CONTACT_SPOKEN = 1.0  # weight of a frame of synthetic speech for contact
_BRIEF_S = 0.3  # longer contact is a pause, not a sound
_NEWTON_STEPS = 6


def refitted(
    weights: Mapping[str, NDArray[Any]],
    dilations: tuple[int, ...],
    clips: Sequence[SpeechClip],
    scale: Scale,
    *,
    alone: Sequence[SpeechClip] = (),
    spoken: Sequence[Utterance] = (),
) -> dict[str, NDArray[Any]]:
    """The weights of a network, as from VoiceModel.members, with a new output layer.

    Args:
        weights: of the network.
        dilations: of its convolutions.
        clips: of many people.
        scale: of these clips.
        alone: of one person.
        spoken: synthetic speech.
    """
    start = np.zeros((NUM_OUTPUTS, weights["head.weight"].shape[1] + 1))
    start[: len(weights["head.bias"])] = np.c_[weights["head.weight"], weights["head.bias"]]
    out = start.copy()
    real = list(_real(weights, dilations, clips, scale, start, 1.0))
    real += _real(weights, dilations, alone[:: max(1, len(alone) // _ALONE)], scale, start, _ALONE_WEIGHT)
    said = []
    for one in spoken:
        hidden = _hidden(weights, dilations, features_of(one.sound))
        said.append((hidden, one.at(instants(len(hidden)))))
    out[TOUCH] = _contact_row(real, said)
    # Ridge regression of the residual of the initial weights, on tracks minus the clip's mean.
    square, product = _PULL * np.eye(start.shape[1]), np.zeros((len(CHANNELS), start.shape[1]))
    for hidden, about, _, weight in real:
        centered = hidden - hidden.mean(0)
        square += weight * centered.T @ centered
        product += weight * (about - centered @ start[: len(CHANNELS)].T).T @ centered
    out[: len(CHANNELS)] += np.linalg.solve(square, product.T).T
    for hidden, mouths in said:
        centered, about = hidden - hidden.mean(0), mouths[:, : len(TAUGHT)] - mouths[:, : len(TAUGHT)].mean(0)
        square += _SPOKEN * centered.T @ centered
        product[list(TAUGHT)] += _SPOKEN * (about - centered @ start[list(TAUGHT)].T).T @ centered
    if said:
        out[list(TAUGHT)] = start[list(TAUGHT)] + np.linalg.solve(square, product[list(TAUGHT)].T).T
    out[GAP] = start[GAP]  # its level, which these equations leave out, shuts the lips in pauses
    if len(weights["head.bias"]) <= LABIODENTAL:
        out[LABIODENTAL, -1] = NEVER
    out[PAUSE] = _pause_row(weights, dilations, clips)
    head = {"head.weight": out[:, :-1].astype(np.float32), "head.bias": out[:, -1].astype(np.float32)}
    return {**weights, **head}


def _hidden(weights: Mapping[str, NDArray[Any]], dilations: tuple[int, ...], features: Array) -> Array:
    """[T, H + 1] inputs of the output layer, and a column of ones."""
    hidden = Member(weights, dilations).hidden(features)
    return np.concatenate([hidden, np.ones((len(hidden), 1), np.float32)], 1)


def _real(
    weights: Mapping[str, NDArray[Any]],
    dilations: tuple[int, ...],
    clips: Sequence[SpeechClip],
    scale: Scale,
    start: NDArray[Any],
    weight: float,
) -> Iterator[tuple[Array, Array, Array, float]]:
    """Per clip, synchronized with its sound: hidden [T, H + 1], tracks minus their mean [T, C], contact [T], weight."""
    for clip in clips:
        piece = piece_of(clip)
        hidden = _hidden(weights, dilations, piece.features)
        if weight == 1.0:
            piece = shifted(piece, lag_of(hidden @ start.T.astype(np.float32), piece))
        y = piece.tracks[piece.known]
        if len(y):
            spread = scale.spread * np.sqrt((y.var(0) + 0.3 * scale.spread**2) / (1.3 * scale.spread**2))
            yield hidden[piece.known], (y - y.mean(0)) / spread, piece.touch[piece.known], weight


def _contact_row(real: Sequence[tuple[Array, Array, Array, float]], said: Sequence[tuple[Array, Array]]) -> Array:
    """[H + 1] weights of the contact logit: logistic regression of brief closures.

    Frames of longer contact are left out: the network would predict pauses.
    """
    parts = []
    for hidden, _, touch, weight in real:
        contact = touch > 0.5
        brief, is_used = np.zeros(len(touch)), np.ones(len(touch), bool)
        for first, end in runs(contact):
            if end - first <= _BRIEF_S * LIPS_HZ and first > 0 and end < len(touch):
                brief[first:end] = 1
            else:
                is_used[first:end] = False
        parts.append((hidden[is_used], brief[is_used], weight))
    shut = len(TAUGHT)  # column of a Mouth
    parts += [(hidden, (mouths[:, shut] > 0.5).astype(float), _CONTACT_SPOKEN) for hidden, mouths in said]
    return _logistic(parts)


_SPEECH_DB = 20.0  # quieter frames of a clip, relative to its 95th percentile, may be a pause of the speaker
_INSERTED_S = 0.5, 1.8  # duration of a pause that is inserted
_VARIANTS = 3  # of each clip
_SETTLED_S = 0.3, 0.16  # of it, at its beginning and end, that is left out: lips close after speech and open before it


def _with_pause(clip: SpeechClip, rng: Rng) -> tuple[Array, float, float]:
    """The clip's sound with silence inserted in a quiet place near a random time; its beginning and end in seconds."""
    tenth = mel.RATE_HZ // 10
    energy = np.add.reduceat(clip.sound**2, np.arange(0, len(clip.sound), tenth))
    first = int(rng.integers(0, max(1, len(energy) - 10)))
    at = (first + int(np.argmin(energy[first : first + 10]))) * tenth + tenth // 2
    silence = np.zeros(round(rng.uniform(*_INSERTED_S) * mel.RATE_HZ), np.float32)
    sound = np.concatenate([clip.sound[:at], silence, clip.sound[at:]])
    return sound, at / mel.RATE_HZ, (at + len(silence)) / mel.RATE_HZ


def _pause_row(weights: Mapping[str, NDArray[Any]], dilations: tuple[int, ...], clips: Sequence[SpeechClip]) -> Array:
    """[H + 1] weights of the logit of a pause: logistic regression of inserted pauses, in rooms and background sound.

    Pauses of the speakers themselves are left out.
    """
    rng = np.random.default_rng(0)
    others = np.concatenate([clip.sound for clip in clips][:60])
    parts = []
    for clip in [*clips] * _VARIANTS:
        sound, begin, end = _with_pause(clip, rng)
        hidden = _hidden(weights, dilations, features_of(disturbed(sound, rng, others)))
        times, loudness = instants(len(hidden)), mel.log_mel(sound)[1]
        frames_s = (np.arange(len(loudness)) * mel.HOP + mel.WINDOW / 2) / mel.RATE_HZ
        is_loud = np.interp(times, frames_s, loudness) > np.quantile(loudness, 0.95) - _SPEECH_DB
        is_pause = (times >= begin) & (times < end)
        is_used = np.where(is_pause, (times >= begin + _SETTLED_S[0]) & (times < end - _SETTLED_S[1]), is_loud)
        parts.append((hidden[is_used], is_pause[is_used].astype(float), 1.0))
    return _logistic(parts)


def _logistic(parts: Sequence[tuple[Array, NDArray[Any], float]]) -> Array:
    """[H + 1] weights of a logistic regression, by Newton's method.

    Args: parts: inputs [N, H + 1], whose last column is 1; targets [N], 0 or 1; and the weight of a row.
    """
    inputs = np.concatenate([hidden for hidden, _, _ in parts]).astype(np.float32)
    target = np.concatenate([target for _, target, _ in parts])
    weights = np.concatenate([np.full(len(target), weight) for _, target, weight in parts])
    row = np.zeros(inputs.shape[1])
    pull = np.full(len(row), _CONTACT_PULL)
    pull[-1] = 1e-3  # the bias is nearly free
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-(inputs @ row).clip(-30, 30)))
        scaled = inputs * (weights * chance * (1 - chance)).astype(np.float32)[:, None]
        slope = inputs.T @ (weights * (target - chance)) - pull * row
        row += np.linalg.solve(inputs.T @ scaled + np.diag(pull), slope)
    return row.astype(np.float32)


_LEAST_STD = 1e-3  # smallest standard deviation of jawOpen
_MOTION_HZ = 25.0
_JAW_OPEN = BLENDSHAPES.index("jawOpen")


def with_real_jaw(model: VoiceModel, clips: Sequence[SpeechClip]) -> VoiceModel:
    """The model with the jaw's amplitude scaled to the real one, in the median over the clips; its mean is unchanged.

    Amplitudes are those of motion frames, in which a jaw does not open less than at rest, and which average the steps.

    Args: clips: of held-out people.
    """
    ratios, means = [], []
    for clip in clips:
        start_db = mel.start_level(mel.log_mel(clip.sound)[1])
        motion = SpeechMotion(_MOTION_HZ, start_db=start_db, model=model)
        jaw = np.array([frame.blendshapes[_JAW_OPEN] for frame in (*motion.push(clip.sound), *motion.finish())])
        real, known = clip.at(np.arange(len(jaw)) / _MOTION_HZ)
        ratios.append(float(real[known, JAW].std()) / max(float(jaw[known].std()), _LEAST_STD))
        piece = piece_of(clip)
        means.append(float(LipPredictor(model)(piece.features)[piece.known, JAW].mean()))
    tensors = {name: value.copy() for name, value in model.tensors.items()}
    was, gain = float(tensors["scale.spread"][JAW]), float(np.median(ratios))
    tensors["scale.spread"][JAW] = was * gain
    tensors["scale.rise"][JAW] += (was - tensors["scale.spread"][JAW]) * float(np.mean(means))
    return VoiceModel(tensors, model.record | {"jaw_gain": round(gain, 4)})
