"""Files of trained networks: releases for distribution, and training states for resuming.

A training state contains everything that the next step depends on. Both replace an older file atomically.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimik.config import InputError, ModelError, NetworkConfig, Preset
from mimik.files import DRAFT_SUFFIX, write_atomically
from mimik.networks.generators import Generator, Networks, build_networks
from mimik.networks.preset_json import preset_to_json
from mimik.networks.release import RELEASE_FORMAT, read_release, reading

log = logging.getLogger(__name__)

STATE_NAME = "state.pt"
PREVIOUS_NAME = "state.previous.pt"

_STATE_MARK = b"mimik training state 1\n"  # then SHA-256 of the rest, then the rest: what torch.save writes
_W = "D.W.weight"  # specific to the training clips, so not part of releases


def differences(old: Preset, new: Preset) -> dict[str, tuple[Any, Any]]:
    """Old and new value of every differing setting, by names such as "train.batch_size"."""
    values = [
        {
            f"{part}.{key}": value
            for part, settings in dataclasses.asdict(preset).items()
            for key, value in settings.items()
        }
        for preset in (old, new)
    ]
    return {key: (value, values[1][key]) for key, value in values[0].items() if value != values[1][key]}


# Releases.


@dataclass(frozen=True)
class TrainedModel:
    """A release with its networks instantiated."""

    preset: Preset  # networks, losses and training settings
    record: dict[str, Any]  # steps, data and curve of the training, as meta_learning writes them
    networks: Networks  # on the CPU, float32, in evaluation mode; D's W is empty


def release_tensors(networks: Networks) -> dict[str, Tensor]:
    """Parameters and buffers of E, P, G and D by names such as "G.down.0.conv1.bias", without W."""
    named = {f"{part}.{key}": value for part, net in networks for key, value in net.state_dict().items()}
    del named[_W]
    return named


def save_release(path: Path, networks: Networks, preset: Preset, record: Mapping[str, Any]) -> None:
    """Write a release, replacing an older one; E, P and G are the moving averages.

    Raises InputError if the file cannot be written, or a weight is not finite in float16.
    """
    write_release(path, release_tensors(networks), preset, record)


def write_release(path: Path, tensors: Mapping[str, Tensor], preset: Preset, record: Mapping[str, Any]) -> None:
    """save_release for the result of release_tensors."""
    half = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in tensors.items()}
    for name, value in half.items():
        if not value.isfinite().all():
            raise InputError(
                f"{path}: {name} has values beyond the range of float16, so it is not written; train with a lower rate."
            )
    about = {"format": RELEASE_FORMAT, "preset": preset_to_json(preset), "record": json.dumps(record)}
    write_atomically(path, safetensors.torch.save(half, metadata=about))


def load_release(path: Path) -> TrainedModel:
    """Read a release. Raises ModelError if the file does not exist, is damaged, or is not a release."""
    release = read_release(path)
    with reading(path):
        tensors = {name: torch.from_numpy(value) for name, value in release.tensors.items()}
        return TrainedModel(release.preset, release.record, _filled(release.preset.networks, tensors))


def load_generator(config: NetworkConfig, tensors: Mapping[str, NDArray[Any]]) -> Generator:
    """G in evaluation mode, in float32; tensors: its own by names such as "G.down.0.conv1.bias", among others.

    Raises ModelError if they do not fit the settings.
    """
    generator = build_networks(config, num_videos=0).G
    own = {name: torch.from_numpy(value) for name, value in tensors.items() if name.startswith("G.")}
    try:
        generator.load_state_dict({name.removeprefix("G."): value.float() for name, value in own.items()})
    except RuntimeError as error:
        raise ModelError(
            f"the model's generator does not fit its settings ({str(error).splitlines()[-1].strip()})"
        ) from None
    return generator.eval()


def _filled(config: NetworkConfig, tensors: Mapping[str, Tensor]) -> Networks:
    """Networks with the weights of a release."""
    channels = (config.embedder_channels, config.generator_channels, config.discriminator_channels)
    claimed = max(config.embedding_dim, *(number for pair in channels for number in pair))
    widest = max((size for value in tensors.values() if value.ndim > 1 for size in value.shape), default=0)
    if claimed > widest:  # before allocating memory for it
        raise ModelError(f"its settings have {claimed} channels, its weights {widest}")
    try:
        networks = build_networks(config, num_videos=0)
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"its networks cannot be built ({str(error).splitlines()[0]})") from None
    expected = release_tensors(networks)
    for name in sorted(expected.keys() | tensors.keys()):
        shapes = [list(group[name].shape) if name in group else None for group in (expected, tensors)]
        if shapes[0] != shapes[1]:
            raise ModelError(f"{name} has shape {shapes[1]}, its settings say {shapes[0]}")
        if not tensors[name].isfinite().all():
            raise ModelError(f"{name} has values that are not finite")
    for name, value in expected.items():  # state_dict's tensors are the networks' own
        value.copy_(tensors[name])
    for _, net in networks:
        net.eval()
    return networks


# Training states.


def write_state(run: Path, state: Mapping[str, Any]) -> None:
    """Write the newest training state of a run folder; the previous one is kept, older ones are deleted.

    Args: state: numbers, text, tensors, and lists and dictionaries of them.

    Raises InputError if it cannot be written; both older states are kept.
    """
    data = io.BytesIO()
    torch.save(dict(state), data)
    digest = hashlib.sha256(data.getbuffer()).digest()
    newest, draft = run / STATE_NAME, run / f".{STATE_NAME}{DRAFT_SUFFIX}"
    write_atomically(draft, memoryview(b"".join((_STATE_MARK, digest, data.getbuffer()))))
    with suppress(FileNotFoundError):
        os.replace(newest, run / PREVIOUS_NAME)
    os.replace(draft, newest)


def read_state(run: Path) -> dict[str, Any] | None:
    """The newest undamaged training state of a run; None if there is none yet.

    Raises InputError if there are states but all are damaged.
    """
    damaged: list[Path] = []
    for path in (run / STATE_NAME, run / PREVIOUS_NAME):
        try:
            data = memoryview(path.read_bytes())
        except FileNotFoundError:
            continue
        mark, digest, rest = data[: len(_STATE_MARK)], data[len(_STATE_MARK) :][:32], data[len(_STATE_MARK) + 32 :]
        if mark == _STATE_MARK and hashlib.sha256(rest).digest() == digest:
            if damaged:
                log.warning("%s is damaged; resuming from the state before it, %s", damaged[0], path.name)
            try:
                return torch.load(io.BytesIO(rest), map_location="cpu", weights_only=True)
            except (pickle.UnpicklingError, RuntimeError) as error:
                raise InputError(f"{path}: is not a training state of this program; use a new folder.") from error
        damaged.append(path)
    if damaged:
        raise InputError(f"{damaged[0]}: is damaged, and no older state is left; use a new folder.")
    return None
