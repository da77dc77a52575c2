"""The output layer of a voice network by ridge regression, on synchronized clips and on synthetic speech.

The layers before it are unchanged, and so are the outputs for opening and contact. The solution is cheap, needs no
learning rate, and stays near the initial weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.data.articulation import TAUGHT, Utterance
from mimik.data.speech import Array, Scale, SpeechClip, features_of, instants, lag_of, piece_of
from mimik.motion.generation.lips import (
    CHANNELS,
    GAP,
    JAW,
    LABIODENTAL,
    NEVER,
    NUM_OUTPUTS,
    LipPredictor,
    Member,
    VoiceModel,
    contact_threshold,
)

# Chosen on 16 clips of held-out training speakers, by correlation.
_PULL = 3000.0  # regularization toward the initial weights, in frames
_SPOKEN = 0.3  # weight of a frame of synthetic speech
_ALONE, _ALONE_WEIGHT = 50, 0.35  # clips used of the single-speaker corpus, and weight of their frames


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
    # Ridge regression of the residual of the initial weights, on tracks minus the clip's mean.
    square, product = _PULL * np.eye(start.shape[1]), np.zeros((len(CHANNELS), start.shape[1]))
    for hidden, about, weight in real:
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
    out[GAP] = start[GAP]
    if len(weights["head.bias"]) < NUM_OUTPUTS:
        out[LABIODENTAL, -1] = NEVER
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
) -> Iterator[tuple[Array, Array, float]]:
    """Per clip, synchronized with its sound: hidden [T, H + 1], tracks minus their mean [T, C], weight."""
    for clip in clips:
        piece = piece_of(clip)
        hidden = _hidden(weights, dilations, piece.features)
        lag = lag_of(hidden @ start.T.astype(np.float32), piece) if weight == 1.0 else 0
        place = np.arange(len(hidden)) + lag
        inside = place.clip(0, len(hidden) - 1)
        known = piece.known[inside] & (inside == place)
        y = piece.tracks[inside][known]
        if len(y):
            spread = scale.spread * np.sqrt((y.var(0) + 0.3 * scale.spread**2) / (1.3 * scale.spread**2))
            yield hidden[known], (y - y.mean(0)) / spread, weight


def with_contact_of(made: VoiceModel, known: VoiceModel) -> VoiceModel:
    """The model with the scale of the opening and the contact threshold of another one."""
    tensors = {name: value.copy() for name, value in made.tensors.items()}
    for name in ("scale.rise", "scale.spread"):
        tensors[name][GAP] = known.tensors[name][GAP]
    return VoiceModel(tensors | {"scale.contact": np.array([contact_threshold(known)], np.float32)}, made.record)


_LEAST_STD = 1e-3  # smallest standard deviation of jawOpen


def with_real_jaw(model: VoiceModel, clips: Sequence[SpeechClip]) -> VoiceModel:
    """The model with the jaw's amplitude scaled to the real one, in the median over the clips; its mean is unchanged.

    Args: clips: of held-out people.
    """
    ratios, means = [], []
    for clip in clips:
        piece = piece_of(clip)
        out = LipPredictor(model)(piece.features)[piece.known, JAW]
        real = float(piece.tracks[piece.known, JAW].std())
        ratios.append(real / max(float(model.tensors["scale.spread"][JAW] * out.std()), _LEAST_STD))
        means.append(float(out.mean()))
    tensors = {name: value.copy() for name, value in model.tensors.items()}
    was, gain = float(tensors["scale.spread"][JAW]), float(np.median(ratios))
    tensors["scale.spread"][JAW] = was * gain
    tensors["scale.rise"][JAW] += (was - tensors["scale.spread"][JAW]) * float(np.mean(means))
    return VoiceModel(tensors, model.record | {"jaw_gain": round(gain, 4)})
