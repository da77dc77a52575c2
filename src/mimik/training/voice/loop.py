"""Training of the voice network, which predicts lips from sound.

It uses one process and one device. Several networks with different seeds may be averaged. The run folder holds the
state of each, from which the same command resumes, and stats.jsonl.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mimik.arrays import runs
from mimik.config import InputError
from mimik.data.articulation import utterances
from mimik.data.speech import (
    Scale,
    SpeechClip,
    SpeechPiece,
    correlation_of,
    held_out,
    lag_of,
    load_clips,
    piece_of,
    scale_of,
    shifted,
)
from mimik.data.voice_heads import refitted, with_real_jaw
from mimik.files import write_atomically
from mimik.media import mel
from mimik.motion.generation.lips import (
    CHANNELS,
    CONTACT_AFTER,
    CONTACT_BEFORE,
    GAP,
    LABIODENTAL,
    LIPS_HZ,
    NUM_TRAINED,
    QUIET_OPENING,
    TOUCH,
    ContactRule,
    VoiceModel,
    bundled_voice,
    contact_score,
    contacts,
)
from mimik.networks.voice import DILATIONS, VoiceNet
from mimik.pipeline import Progress, silent
from mimik.training.arguments import VoiceConfig
from mimik.training.voice.losses import spoken_loss, teacher_loss, voice_loss
from mimik.training.voice.pool import Pool

log = logging.getLogger(__name__)

FOLLOWED = tuple(CHANNELS.index(name) for name in ("gap", "jawOpen", "width", "mouthPucker", "mouthFunnel"))


# Measurements.


def outputs(net: nn.Module, piece: SpeechPiece) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[T, outputs] of a whole clip."""
    with torch.no_grad():
        result: np.ndarray[Any, np.dtype[np.float32]] = net(torch.from_numpy(piece.features)[None])[0].numpy()
    return result


def measured(net: nn.Module, clips: Sequence[SpeechClip]) -> dict[str, float]:
    """Medians over the clips of the correlation with the real tracks; F1 of "the lips touch" over all frames."""
    rows, hits, said, real = [], 0.0, 0.0, 0.0
    if not clips:
        return {}
    net.eval()
    for clip in clips:
        piece = piece_of(clip)
        out, known = outputs(net, piece)[piece.known], piece.known
        y = piece.tracks[known]
        rows.append([correlation_of(out[:, c], y[:, c]) for c in FOLLOWED])
        touch, predicted = piece.touch[known] > 0, out[:, TOUCH] > -0.5
        hits, said, real = hits + (touch & predicted).sum(), said + predicted.sum(), real + touch.sum()
    names = [CHANNELS[c] for c in FOLLOWED]
    result = {name: float(v) for name, v in zip(names, np.median(rows, axis=0), strict=True)}
    return result | {"touch_recall": float(hits / max(1, real)), "touch_precision": float(hits / max(1, said))}


# The loop.


def _started(fresh: dict[str, Tensor], init: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
    """The initial weights; missing outputs start at 0, and those that are not trained are left out."""
    out = {}
    for name, value in fresh.items():
        known = torch.from_numpy(init[name][: len(value)].copy())
        missing = torch.zeros(len(value) - len(known), *known.shape[1:])
        out[name] = torch.cat([known, missing]) if len(missing) else known
    return out


STATE = "voice_state.pt"
STATS = "stats.jsonl"
_INIT_LR = 6e-4  # learning rate with initial weights
_AVERAGED_FROM = 0.5  # share of the steps from which the saved weights are averaged


def _averaged(mean: dict[str, Tensor], count: int, new: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of count + 1 sets of weights, from that of count and the new ones (Izmailov et al. 2018)."""
    return {name: mean[name] + (value - mean[name]) / (count + 1) if count else value for name, value in new.items()}


_REAL_SHARE = 0.5  # weight of the loss of real tracks if there are teachers


def _loss_of_batch(net: nn.Module, pool: Pool, config: VoiceConfig) -> tuple[Tensor, dict[str, float]]:
    """The loss of the next batch, with synthetic speech and teachers if the pool has any, and its terms."""
    batch = pool.batch()
    num, inputs = len(batch.values), batch.values
    spoken = pool.spoken_batch() if pool.has_speech else None
    if spoken is not None:
        inputs = torch.cat([inputs, spoken[0]])
    out = net(inputs)
    loss, terms = voice_loss(out[:num], batch.about, batch.above, batch.touch, batch.known, config)
    if batch.taught.shape[-1]:
        taught = teacher_loss(out[:num], batch.taught, batch.heard)
        loss = _REAL_SHARE * loss + taught
        terms["teachers"] = float(taught.detach())
    if spoken is not None:
        synthetic = spoken_loss(out[num:], spoken[1], spoken[2], config)
        loss = loss + config.spoken_weight * synthetic
        terms["spoken"] = float(synthetic.detach())
    return loss, terms


def train_member(
    clips: Sequence[SpeechClip],
    run: Path,
    config: VoiceConfig,
    *,
    one_speaker: set[str],
    watched: dict[str, Sequence[SpeechClip]],
    stats: Path | None = None,
    init: Mapping[str, np.ndarray[Any, Any]] | None = None,
    teachers: Sequence[VoiceModel] = (),
    save_every: int = 200,
    progress: Progress = silent,
) -> None:
    """Trains until config.num_steps; resumes from the folder's state.

    Args:
        clips: to train on.
        run: the folder.
        one_speaker: persons whose clips together are config.grid_share of the pieces.
        watched: sets of clips that are measured at every save.
        stats: the file of the measurements; None: in the folder.
        init: initial weights, as from VoiceModel.members.
        teachers: networks whose mean output is a second target.
        progress: called with the steps done and the total.
    """
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    pool = Pool(clips, one_speaker, config, teachers)
    net, ema = _new_network(config, config.dropout), _new_network(config)
    if init is not None:
        net.load_state_dict(_started(net.state_dict(), init))
    ema.load_state_dict(net.state_dict())
    optimizer = torch.optim.AdamW(net.parameters(), config.lr, (0.9, 0.98), weight_decay=config.weight_decay)
    step = num_averaged = 0
    average: dict[str, Tensor] = {}
    names = [clip.name for clip in clips]
    taught_by = [_digest(one) for one in teachers]
    if (run / STATE).exists():
        state = _resumed(run, config, names, taught_by)
        net.load_state_dict(state["net"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
        average, num_averaged = state.get("average", {}), state.get("num_averaged", 0)
        pool.lags = state.get("lags") or pool.lags
        torch.manual_seed(config.seed + step)
        pool.rng.bit_generator.state = np.random.default_rng(config.seed + step).bit_generator.state
    began, first = time.time(), step
    sums: dict[str, float] = {}
    while step < config.num_steps:
        net.train()
        rate = config.lr * min(1, (step + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * step / config.num_steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        pool.refresh()
        loss, terms = _loss_of_batch(net, pool, config)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        step += 1
        progress("train", step, config.num_steps)
        keep = min(config.ema, step / (step + 10))
        with torch.no_grad():
            for slow, fast in zip(ema.parameters(), net.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        if step in config.align_at:
            ema.eval()
            pool.lags = [0 if clip.person in one_speaker else _lag(ema, clip) for clip in clips]
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value
        if step % save_every == 0 or step == config.num_steps:
            line: dict[str, Any] = {"step": step, "seconds": round(time.time() - began)}
            line |= {name: round(value / save_every, 4) for name, value in sums.items()}
            line |= {name: measured(ema, group) for name, group in watched.items()}
            sums = {}
            with (stats or run / STATS).open("a") as file:
                file.write(json.dumps(line) + "\n")
            if step >= _AVERAGED_FROM * config.num_steps:
                average = _averaged(average, num_averaged, {k: v.clone() for k, v in ema.state_dict().items()})
                num_averaged += 1
            state = {"net": net.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {
                "average": average,
                "num_averaged": num_averaged,
                "lags": pool.lags,
                "clips": names,
                "teachers": taught_by,
            }
            content = io.BytesIO()
            torch.save(state | {"step": step, "config": asdict(config)}, content)
            write_atomically(run / STATE, content.getbuffer())
            log.info("step %d of %d, %.2f s/step", step, config.num_steps, (time.time() - began) / max(1, step - first))


def _resumed(run: Path, config: VoiceConfig, clips: list[str], teachers: list[str]) -> dict[str, Any]:
    """The state of a run. Raises InputError if its sizes, clips or teachers are others."""
    state = _read_state(run / STATE)
    sizes = {name: state["config"][name] for name in ("channels", "recurrent")}
    if sizes != {name: getattr(config, name) for name in sizes}:
        raise InputError(f"{run} contains a run with {sizes}; use another folder, or the same sizes.")
    if state.get("clips", clips) != clips:
        raise InputError(f"{run} contains a run on other clips; use another folder, or the same tracks.")
    if state.get("teachers", []) != teachers:
        raise InputError(f"{run} contains a run with other teachers; use another folder, or the same ones.")
    return state


def _digest(model: VoiceModel) -> str:
    return hashlib.sha256(b"".join(model.tensors[name].tobytes() for name in sorted(model.tensors))).hexdigest()


def _read_state(path: Path) -> dict[str, Any]:
    """A saved state. Raises InputError if it is damaged."""
    try:
        return dict(torch.load(path, weights_only=True))
    except Exception as error:  # of many kinds
        raise InputError(f"{path} is damaged ({type(error).__name__}); remove it, or use another folder.") from None


# The released file.

_FOUND = 0.76  # target share of the real closures
_LOGIT_WEIGHT = 0.2  # of the contact logit, in units of the opening
_MAX_GAIN = 4.0


def calibrated(net: nn.Module, scale: Scale, clips: Sequence[SpeechClip]) -> dict[str, np.ndarray[Any, Any]]:
    """`scale.*` of lips.VoiceModel: amplitude and rest of the tracks, calibrated on held-out clips.

    A regression has smaller amplitudes than its training data. Each track is multiplied by the ratio of the standard
    deviations of training clips and predictions; both are medians over clips. The clips are synchronized.
    """
    net.eval()
    spreads, means, pieces = [], [], []
    for clip in clips:
        piece = piece_of(clip)
        whole = outputs(net, piece)
        piece = shifted(piece, lag_of(whole, piece))
        out = whole[piece.known]
        lips = out[:, : len(CHANNELS)] * scale.spread
        spreads.append(lips.std(0))
        means.append(lips.mean(0))
        pieces.append((piece, out))
    gain = ((scale.usual + 1e-4) / (np.median(spreads, axis=0) + 1e-4)).clip(0.5, _MAX_GAIN)
    spread, rise = scale.spread * gain, scale.rise - gain * np.mean(means, axis=0)
    said = []
    for piece, out in pieces:
        score = contact_score(rise[GAP] + spread[GAP] * out[:, GAP], out[:, TOUCH], _LOGIT_WEIGHT)
        said.append((piece, score, out[:, LABIODENTAL] > 0))
    return {
        "scale.spread": spread.astype(np.float32),
        "scale.rise": rise.astype(np.float32),
        "scale.contact": np.array(ContactRule(_contact_threshold(said), _LOGIT_WEIGHT, QUIET_OPENING), np.float32),
    }


def _contact_threshold(
    pieces: Sequence[tuple[SpeechPiece, np.ndarray[Any, Any], np.ndarray[Any, Any]]],
) -> float:
    """The smallest score for which minima below it find _FOUND of the real closures; the largest, if none does.

    Args: pieces: clips with the contact_score [n] of their known steps, and the mask [n] of f and v.
    """
    thresholds = np.arange(-0.5, 0.31, 0.01)
    for threshold in thresholds:
        hits = total = 0
        for piece, score, barred in pieces:
            real = piece.touch[piece.known] > 0
            padded = np.concatenate([np.full(CONTACT_BEFORE, np.inf), score, np.full(CONTACT_AFTER, np.inf)])
            made = contacts(padded, threshold) & ~barred
            events = [(a, b) for a, b in runs(real) if b - a <= 0.3 * LIPS_HZ and a > 0 and b < len(real)]
            hits += sum(bool(made[max(0, a - 2) : b + 2].any()) for a, b in events)
            total += len(events)
        if hits >= _FOUND * total:
            return float(threshold)
    return float(thresholds[-1])


class _Mean(nn.Module):
    """Averages the outputs of several networks."""

    def __init__(self, members: Sequence[VoiceNet]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([member(features) for member in self.members]).mean(0)


def _new_network(config: VoiceConfig, dropout: float = 0.0, outputs: int = NUM_TRAINED) -> VoiceNet:
    return VoiceNet(mel.NUM_BANDS, outputs, channels=config.channels, recurrent=config.recurrent, dropout=dropout)


def _lag(net: nn.Module, clip: SpeechClip) -> int:
    piece = piece_of(clip)
    return lag_of(outputs(net, piece), piece)


def averaged(run: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The mean of a run's saved states, by the names of VoiceNet's state."""
    state = _read_state(run / STATE)
    return {name: value.numpy() for name, value in (state.get("average") or state["ema"]).items()}


def released(
    members: Sequence[Mapping[str, np.ndarray[Any, Any]]],
    config: VoiceConfig,
    clips: Sequence[SpeechClip],
    scale: Scale,
    record: dict[str, Any],
) -> VoiceModel:
    """The model file of the networks, as `mimik animate` takes it.

    Args:
        members: weights of each.
        config: of their training.
        clips: for calibration, of held-out people.
        scale: of the training clips.
        record: of the training, stored in the file.
    """
    nets: list[VoiceNet] = []
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for index, weights in enumerate(members):
        nets.append(_new_network(config, outputs=len(weights["head.bias"])))
        nets[-1].load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        tensors |= {f"{index}.{name}": value for name, value in weights.items()}
    network = {"channels": config.channels, "recurrent": config.recurrent, "dilations": list(DILATIONS)}
    network["members"] = len(members)
    full = {"network": network, "training": asdict(config), "step": config.num_steps} | record
    return VoiceModel(tensors | calibrated(_Mean(nets), scale, clips), full)


def _tell_part(progress: Progress, index: int, count: int, stage: str, done: int, total: int) -> None:
    """Report progress of one of several equally long runs as progress of all."""
    progress(stage, index * total + done, count * total)


def train_voice(
    clips: Path,
    run: Path,
    config: VoiceConfig,
    *,
    one_speaker: Path | None = None,
    init: Path | None = None,
    teachers: Sequence[str] = (),
    progress: Progress = silent,
) -> Path:
    """Trains on a folder of clips and writes the resulting network; resumes if interrupted.

    Args:
        clips: a folder that data.speech.track_folder wrote.
        run: the run folder.
        config: the settings.
        one_speaker: a folder of many clips of one person, config.grid_share of the pieces.
        init: file of an initial voice network, which also determines the sizes.
        teachers: files of voice networks whose mean output is a second target; "bundled" for the bundled one.
        progress: called with the steps done and the total.

    Returns:
        The file of the network, in the run folder.

    Raises:
        InputError: if there are no clips, or the run folder holds a damaged run, or one of other sizes or clips.
    """
    start: Sequence[Mapping[str, np.ndarray[Any, Any]]] = [{}] * config.members
    if init is not None:
        model = VoiceModel.load(init)
        start = model.members
        sizes = {name: model.record["network"][name] for name in ("channels", "recurrent")}
        config = replace(config, **sizes, members=len(start), lr=_INIT_LR, align_at=(1,))
    models = [bundled_voice() if name == "bundled" else VoiceModel.load(Path(name)) for name in teachers]
    training, calibrating = held_out(load_clips(clips))
    alone = load_clips(one_speaker) if one_speaker else []
    runs = [run / f"member{index}" for index in range(config.members)]
    run.mkdir(parents=True, exist_ok=True)
    for index, folder in enumerate(runs):
        train_member(
            training + alone,
            folder,
            replace(config, seed=config.seed + index),
            one_speaker={c.person for c in alone},
            watched={"held_out": calibrating},
            stats=run / STATS,
            init=start[index] or None,
            teachers=models,
            save_every=200 if init is None else 50,
            progress=functools.partial(_tell_part, progress, index, len(runs)),
        )
    data = {
        "clips": len(training),
        "speakers": len({c.person for c in training}),
        "minutes": round(sum(c.duration_s for c in training) / 60, 1),
        "one_speaker_clips": len(alone),
        "calibration_clips": len(calibrating),
    }
    record: dict[str, Any] = {"data": data, "measured": json.loads((run / STATS).read_text().splitlines()[-1])}
    if init is not None:
        record["init"] = {name: model.record.get(name) for name in ("training", "step", "data")}
    if models:
        record["teachers"] = [
            {name: one.record.get(name) for name in ("network", "training", "step")} for one in models
        ]
    scale = scale_of(training)
    said = utterances(config.spoken, np.random.default_rng(config.seed)) if config.spoken else []
    members = [refitted(averaged(folder), DILATIONS, training, scale, alone=alone, spoken=said) for folder in runs]
    path = run / "voice.safetensors"
    draft = run / ".voice.part"
    with_real_jaw(released(members, config, calibrating, scale, record), calibrating).save(draft)
    draft.replace(path)
    return path
