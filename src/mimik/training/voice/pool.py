"""Pieces of speech on which the voice network is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimik.data.articulation import Utterance, utterances
from mimik.data.speech import (
    Scale,
    SpeechClip,
    SpeechPiece,
    augmented,
    disturbed,
    features_of,
    instants,
    rest_of,
    scale_of,
    shifted,
    warped,
)
from mimik.motion.generation.lips import TOUCH, LipPredictor, VoiceModel
from mimik.training.arguments import VoiceConfig

Floats = NDArray[np.float32]


class Batch(NamedTuple):
    """B pieces of clips, of T steps."""

    values: Tensor  # [B, 2 T, bands] features
    about: Tensor  # [B, T, C] tracks about the clip's mean, normalized
    above: Tensor  # [B, T, C] tracks above the clip's rest, normalized
    touch: Tensor  # [B, T] whether the lips touch
    known: Tensor  # [B, T] where the tracks are known
    taught: Tensor  # [B, T, TOUCH + 1] mean output of the teachers; [B, T, 0] without teachers
    heard: Tensor  # [B, T] where enough sound precedes


@dataclass(frozen=True)
class _Target:
    mean: np.ndarray[Any, Any]
    rest: np.ndarray[Any, Any]
    liveliness: np.ndarray[Any, Any]  # [C] strength of this speaker's articulation


def _target(clip: SpeechClip, scale: Scale) -> _Target:
    x = clip.tracks[clip.seen]
    lively = np.sqrt((x.var(0) + 0.3 * scale.spread**2) / (1.3 * scale.spread**2))
    return _Target(x.mean(0), rest_of(x), lively.astype(np.float32))


class Pool:
    """Augmented versions of all clips; each step renews a few."""

    def __init__(
        self,
        clips: Sequence[SpeechClip],
        one_speaker: set[str],
        config: VoiceConfig,
        teachers: Sequence[VoiceModel] = (),
    ) -> None:
        self.rng = np.random.default_rng(config.seed)
        self._clips, self._config = clips, config
        self.scale = scale_of([c for c in clips if c.person not in one_speaker] or clips)
        self._targets = [_target(clip, self.scale) for clip in clips]
        alone = np.array([clip.person in one_speaker for clip in clips])
        length = np.array([clip.duration_s for clip in clips])
        self._chance = np.zeros(len(clips))
        for group, share in ((alone, config.grid_share), (~alone, 1 - config.grid_share)):
            if group.any():
                self._chance[group] = (share if (~group).any() else 1.0) * length[group] / length[group].sum()
        self._others = np.concatenate([clip.sound for clip in clips if clip.person not in one_speaker][:60])
        self._teachers = teachers
        # Pieces, each with the outputs of the teachers for it.
        self._variants: dict[int, list[tuple[SpeechPiece, Floats | None]]] = {}
        # Steps by which each clip's picture lags its sound; 0 for the single-speaker corpus.
        self.lags = [0] * len(clips)
        self._spoken = self._said(utterances(config.spoken, self.rng)) if config.spoken else []

    def _said(self, each: Sequence[Utterance]) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Features [2 T, bands] and mouths [T, len(Mouth)] of synthetic speech, half of it through rooms and noise."""
        out = []
        for one in each:
            sound = one.sound if self.rng.random() < 0.3 else disturbed(one.sound, self.rng, self._others)
            values = features_of(sound, float(self.rng.normal(0, 3)))
            out.append((values.astype(np.float16), one.at(instants(len(values) // 2))))
        return [(values, mouths) for values, mouths in out if len(mouths) > self._config.piece_steps]

    def _variant(self, index: int) -> tuple[SpeechPiece, Floats | None]:
        piece = augmented(self._clips[index], self.rng, self._others)
        if not self._teachers:
            return piece, None
        outputs = [LipPredictor(model)(piece.features)[:, : TOUCH + 1].clip(-8, 8) for model in self._teachers]
        return piece, np.mean(outputs, 0).astype(np.float32)

    def _piece(self, index: int) -> tuple[SpeechPiece, Floats | None]:
        have = self._variants.setdefault(index, [])
        if len(have) < 1:
            have.append(self._variant(index))
        return have[self.rng.integers(len(have))]

    @property
    def has_speech(self) -> bool:
        """Whether there is synthetic speech."""
        return bool(self._spoken)

    def spoken_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Batch of synthetic speech: features [S, 2T, bands], mouths [S, T, len(Mouth)], known [S, T]."""
        steps, values, mouths = self._config.piece_steps, [], []
        for index in self.rng.integers(0, len(self._spoken), self._config.spoken_batch):
            sound, mouth = self._spoken[index]
            start = int(self.rng.integers(0, len(mouth) - steps + 1))
            values.append(warped(sound[2 * start : 2 * (start + steps)].astype(np.float32), self.rng))
            mouths.append(mouth[start : start + steps])
        known = torch.ones(len(values), steps)
        known[:, : self._config.warm_up_steps] = 0
        return torch.from_numpy(np.stack(values)), torch.from_numpy(np.stack(mouths)), known

    def refresh(self) -> None:
        for index in self.rng.choice(len(self._clips), self._config.refreshed, p=self._chance):
            have = self._variants.setdefault(int(index), [])
            have.append(self._variant(int(index)))
            del have[: max(0, len(have) - self._config.num_variants)]

    def batch(self) -> Batch:
        """The next pieces of clips."""
        steps = self._config.piece_steps
        rows = []
        for index in self.rng.choice(len(self._clips), self._config.batch_size, p=self._chance):
            (piece, taught), target = self._piece(int(index)), self._targets[index]
            start = int(self.rng.integers(0, max(1, len(piece.known) - steps + 1)))
            piece = shifted(piece, self.lags[index])
            part = slice(start, start + steps)
            y, touch, known = piece.tracks[part], piece.touch[part], piece.known[part].copy()
            from_teachers = np.zeros((len(y), 0), np.float32) if taught is None else taught[part]
            heard = np.ones(len(y), np.float32)
            values = warped(piece.features[2 * start : 2 * (start + steps)], self.rng)
            if start:
                known[: self._config.warm_up_steps] = False
                heard[: self._config.warm_up_steps] = 0
            about = (y - target.mean) / (self.scale.spread * target.liveliness)
            above = (y - target.rest - self.scale.rise) / self.scale.spread
            missing = steps - len(y)
            if missing:
                about, above, from_teachers = (np.pad(a, ((0, missing), (0, 0))) for a in (about, above, from_teachers))
                touch, heard = (np.pad(a, (0, missing)) for a in (touch, heard))
                known = np.pad(known, (0, missing))
                values = np.pad(values, ((0, 2 * missing), (0, 0)), mode="edge")
            rows.append((values, about, above, touch, known.astype(np.float32), from_teachers, heard))
        return Batch(*(torch.from_numpy(np.stack(each).astype(np.float32)) for each in zip(*rows, strict=True)))
