"""Settings of one training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimik.config import DEVICES, PRESETS, VARIANTS, InputError, Preset, check_number

PRECISIONS = ("auto", "fp32", "bf16")
NETWORKS = ("E", "P", "G", "D")

_EPOCHS = {"ft": 75, "ff": 150}  # paper


def _help(text: str) -> dict[str, str]:
    return {"help": text}


_CHOICES: dict[str, Collection[str]] = {
    "preset": PRESETS,
    "variant": VARIANTS,
    "device": DEVICES,
    "precision": PRECISIONS,
}


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Settings of one run; `mimik train` and `python -m mimik.training.meta_learning` take the same options."""

    data: str = field(metadata=_help("Shards to train on: the folder that `mimik prepare` wrote, or its URL."))
    out: Path = field(metadata=_help("Folder of the run; rerun the same command to resume."))
    preset: str = field(default="texture", metadata=_help("Networks, losses and rates."))
    val: str | None = field(
        default=None, metadata=_help("Shards of other people; default: a twentieth of the people in --data.")
    )
    steps: int | None = field(default=None, metadata=_help("Total updates of E, P and G."))
    batch: int | None = field(default=None, metadata=_help("Episodes per step, over all processes."))
    k: int | None = field(default=None, metadata=_help("Source frames of an episode."))
    variant: str | None = field(default=None, metadata=_help("ft: with match loss, for fine-tuning; ff: without."))
    content: str | None = field(
        default=None, metadata=_help("Networks of the content loss: NAME or NAME=WEIGHT, separated by commas.")
    )
    device: str = field(default="auto", metadata=_help("Where to train; auto uses a GPU if available."))
    precision: str = field(
        default="auto", metadata=_help("Precision of activations; auto is bf16 on a GPU that supports it.")
    )
    workers: int | None = field(default=None, metadata=_help("Loader processes per training process."))
    cache_mb: int | None = field(
        default=None, metadata=_help("Memory for decoded clips, MB; default: a quarter of the machine's.")
    )
    seed: int = field(default=0, metadata=_help("Random seed."))
    save_minutes: float = field(default=5.0, metadata=_help("Minutes between saved states."))
    max_minutes: float | None = field(default=None, metadata=_help("Stop after this time, with a saved state."))
    val_every: int = field(default=250, metadata=_help("Steps between validations and sample grids."))
    init: Path | None = field(default=None, metadata=_help("A release of the same networks to start from."))
    fresh: str | None = field(
        default=None,
        metadata=_help("Networks to reinitialize instead of taking from --init: of E, P, G, D, separated by commas."),
    )
    fsdp: bool = field(default=False, metadata=_help("Shard the networks among the processes of torchrun (FSDP2)."))

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise InputError(f"--{name} {value}: give one of {', '.join(choices)}.")
        check_number("--save-minutes", self.save_minutes, 0, 1e6, "minutes")
        check_number("--seed", self.seed, 0, 2**31, "an integer")
        check_number("--val-every", self.val_every, 1, 1e9, "steps")
        for name, low, what in (
            ("steps", 1, "updates"),
            ("batch", 1, "episodes"),
            ("k", 1, "frames"),
            ("workers", 0, "processes; 0 loads in the training process"),
            ("cache_mb", 0, "megabytes; 0 keeps nothing"),
            ("max_minutes", 0, "minutes"),
        ):
            value = getattr(self, name)
            if value is not None:
                check_number(f"--{name.replace('_', '-')}", value, low, 1e9, what)
        if unknown := [name for name in self.fresh_networks if name not in NETWORKS]:
            raise InputError(
                f"--fresh {self.fresh}: {unknown[0]!r} is not a network; give any of {', '.join(NETWORKS)}."
            )
        if self.fresh is not None and self.init is None:
            raise InputError(f"--fresh {self.fresh}: without --init all networks are fresh; omit --fresh.")

    @property
    def fresh_networks(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.fresh.split(",")) if self.fresh is not None else ()

    def resolved(self) -> Preset:
        """The preset with the overrides of these arguments.

        Raises:
            InputError: if --content cannot be parsed.
        """
        preset = PRESETS[self.preset]
        changes: dict[str, Any] = {"num_steps": self.steps, "batch_size": self.batch, "num_sources": self.k}
        changes = {name: value for name, value in changes.items() if value is not None}
        if self.variant not in (None, preset.train.variant):
            changes |= {"variant": self.variant, "num_epochs": _EPOCHS[str(self.variant)]}
        weights = preset.losses
        if self.content is not None:
            weights = dataclasses.replace(weights, content=_parse_content(self.content, weights.content))
        return dataclasses.replace(preset, losses=weights, train=dataclasses.replace(preset.train, **changes))


def _parse_content(text: str, known: Mapping[str, float]) -> dict[str, float]:
    """NAME=WEIGHT, .. -> weights; a name alone takes the preset's weight, or 1."""
    weights = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        try:
            weights[name] = float(number) if number else known.get(name, 1.0)
        except ValueError:
            weights[name] = -1.0
        if not name or not 0 <= weights[name] < 1e9:
            raise InputError(f"--content {text}: give NAME or NAME=WEIGHT, separated by commas, such as vgg19=0.15.")
    return weights
