"""Settings of one training run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mimik.config import (
    AVATAR_SUFFIX,
    CONTENT_NETWORKS,
    DEVICE,
    PHOTO_FACE,
    PRESETS,
    SCENES,
    VARIANTS,
    InputError,
    Option,
    Preset,
    check_options,
)
from mimik.data.index import ClipInfo, check_index, is_url, read_index, split_people
from mimik.files import check_folder
from mimik.inference.device import resolved_device
from mimik.media import formats

TRAIN_PRECISIONS = ("auto", "fp32", "bf16")
NETWORKS = ("E", "P", "G", "D")
LOADERS = ("auto", "device", "workers")
MAX_SHOTS = 300  # frames of a video
RUN_MARK = ".train.lock"  # file in every run folder; locked by its run

_HELD_OUT = 0.05  # share of the people, without --val
_EPOCHS = {"ft": 75, "ff": 150}  # paper
_SEED = Option("Random seed.", "N", range=(0, 2**31), hint="equal seeds give equal results")
_PRESET_NAMES = ", ".join(PRESETS)


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Settings of one run; `mimik train` and `python -m mimik.training.meta_learning` take the same options."""

    data: Annotated[str, Option("Shards to train on: the folder that `mimik prepare` wrote, or its URL.", "SHARDS")]
    out: Annotated[Path, Option("Folder of the run; rerun the same command to resume.", "RUN", "-o --out")]
    preset: Annotated[str, Option(f"Networks, losses and rates: {_PRESET_NAMES}.", "NAME", choices=PRESETS)] = "texture"
    val: Annotated[
        str | None, Option("Shards of other people; a twentieth of the people in --data if omitted.", "SHARDS")
    ] = None
    steps: Annotated[int | None, Option("Total updates of E, P and G.", "N", range=(1, 1e9), hint="updates")] = None
    batch: Annotated[
        int | None, Option("Episodes per step, over all processes.", "N", range=(1, 1e9), hint="episodes")
    ] = None
    k: Annotated[int | None, Option("Source frames of an episode.", "N", range=(1, 1e9), hint="frames")] = None
    lr: Annotated[
        float | None, Option("Learning rate of G; the preset's if omitted.", "X", range=(0, 1), hint="1e-3 is large")
    ] = None
    variant: Annotated[
        str | None, Option("ft: with match loss, for fine-tuning; ff: without.", "NAME", choices=VARIANTS)
    ] = None
    scene: Annotated[
        str | None,
        Option(
            "auto: the texture form's warped person moves in front of a still background, as in animation, which needs "
            "OpenVINO; warp: whole frames are warped.",
            "NAME",
            choices=SCENES,
        ),
    ] = None
    content: Annotated[
        str | None, Option("Networks of the content loss: NAME or NAME=WEIGHT, separated by commas.", "LIST")
    ] = None
    device: Annotated[str, DEVICE] = "auto"
    precision: Annotated[
        str, Option("Of activations: auto (bf16 on a GPU that has it), fp32 or bf16.", "NAME", choices=TRAIN_PRECISIONS)
    ] = "auto"
    workers: Annotated[
        int | None,
        Option(
            "Loader processes per training process.",
            "N",
            range=(0, 1e9),
            hint="processes; 0 loads in the training process",
        ),
    ] = None
    loader: Annotated[
        str,
        Option(
            "device: batches are made on --device from decoded clips in its memory; workers: by worker processes; "
            "auto: device on a GPU if the clips fit into half of its free memory.",
            "NAME",
            choices=LOADERS,
        ),
    ] = "auto"
    reuse: Annotated[
        int | None,
        Option(
            "Episodes for each warped frame of the device loader, with other augmentation; 8 if omitted.",
            "N",
            range=(1, 64),
            hint="episodes",
        ),
    ] = None
    cache_mb: Annotated[
        int | None,
        Option(
            "Memory for decoded clips; a quarter of the machine's, or half of what is free on a GPU, if omitted.",
            "MB",
            range=(0, 1e9),
            hint="megabytes; 0 keeps nothing",
        ),
    ] = None
    seed: Annotated[int, _SEED] = 0
    save_minutes: Annotated[float, Option("Minutes between saved states.", "M", range=(0, 1e6), hint="minutes")] = 5.0
    max_minutes: Annotated[
        float | None, Option("Stop after this time and save the state.", "M", range=(0, 1e9), hint="minutes")
    ] = None
    val_every: Annotated[
        int, Option("Steps between validations and sample grids.", "N", range=(1, 1e9), hint="steps")
    ] = 250
    init: Annotated[Path | None, Option("A release with the same networks to start from.", "MODEL")] = None
    fresh: Annotated[
        str | None, Option("Networks to reinitialize instead of taking them from --init, such as E,P.", "LIST")
    ] = None
    fsdp: Annotated[bool, Option("Divide the networks among the processes of torchrun (FSDP2).")] = False

    def __post_init__(self) -> None:
        check_options(self)
        if self.reuse is not None and (self.loader == "workers" or PRESETS[self.preset].networks.form != "texture"):
            raise InputError(
                f"--reuse {self.reuse}: only the device loader of the texture form reuses frames; omit --reuse, or "
                "pass --loader device and --preset texture."
            )
        if unknown := [name for name in self.fresh_networks if name not in NETWORKS]:
            raise InputError(
                f"--fresh {self.fresh}: {unknown[0]!r} is not a network; use any of {', '.join(NETWORKS)}."
            )
        if self.fresh is not None and self.init is None:
            raise InputError(f"--fresh {self.fresh}: without --init all networks are fresh; omit --fresh.")

    @property
    def fresh_networks(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.fresh.split(",")) if self.fresh is not None else ()

    def resolved(self) -> Preset:
        """The preset with the overrides of these arguments. Raises InputError if --content is invalid."""
        preset = PRESETS[self.preset]
        changes: dict[str, Any] = {"num_steps": self.steps, "batch_size": self.batch, "num_sources": self.k}
        changes |= {"scene": self.scene, "lr_generator": self.lr}
        changes = {name: value for name, value in changes.items() if value is not None}
        if self.variant not in (None, preset.train.variant):
            changes |= {"variant": self.variant, "num_epochs": _EPOCHS[str(self.variant)]}
        weights = preset.losses
        if self.content is not None:
            weights = dataclasses.replace(weights, content=_parse_content(self.content, weights.content))
        return dataclasses.replace(preset, losses=weights, train=dataclasses.replace(preset.train, **changes))

    def check_files(self) -> None:
        """Check, without loading torch, the options, files and folders of a run. Raises InputError."""
        self.resolved()
        check_folder("--out", self.out, mark=RUN_MARK, of="a run to resume")
        for source in (self.data, self.val):
            if source is not None:
                check_index(source)
        if self.init is not None:
            from mimik.networks.release import check_release

            check_release(self.init)
        if self.device == "cuda":
            resolved_device(self.device)
        if not any(source is not None and is_url(source) for source in (self.data, self.val)):
            _ = self.clips

    @functools.cached_property
    def clips(self) -> tuple[list[ClipInfo], list[ClipInfo]]:
        """The clips to train on and those to validate on, of other people.

        Raises InputError if an index is missing or invalid, or --data shows one person and there is no --val.
        """
        index = read_index(self.data)
        if self.val is not None:
            return index, read_index(self.val)
        if len({clip.person for clip in index}) < 2:
            raise InputError(f"--data {self.data}: shows one person, so nobody can be held out; pass --val.")
        return split_people(index, _HELD_OUT)


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
            raise InputError(f"--content {text}: use NAME or NAME=WEIGHT, separated by commas, such as vgg19=0.15.")
        if name not in CONTENT_NETWORKS:
            raise InputError(f"--content {text}: {name!r} is not a network; use any of {', '.join(CONTENT_NETWORKS)}.")
    return weights


@dataclass(frozen=True, kw_only=True)
class LearnArguments:
    """Settings of one run of `mimik learn`."""

    model: Annotated[
        Path | None, Option("Model to fine-tune: a file that `mimik train` wrote; texture if omitted.", "MODEL")
    ] = None
    from_scratch: Annotated[bool, Option("Start from random networks, to compare with the pretrained model.")] = False
    preset: Annotated[
        str | None,
        Option(f"Networks of --from-scratch: {_PRESET_NAMES}; the model's if omitted.", "NAME", choices=PRESETS),
    ] = None
    steps: Annotated[
        int | None,
        Option("Maximum number of steps; training stops automatically.", "N", range=(1, 1e6), hint="the limit"),
    ] = None
    max_seconds: Annotated[
        float | None,
        Option(
            "Maximum time in seconds, everything included; a run takes at least 10 to 20.",
            "S",
            range=(1, 1e6),
            hint="the limit",
        ),
    ] = None
    face: Annotated[int | None, PHOTO_FACE] = None
    shots: Annotated[
        int, Option("Frames to take from each video.", "N", range=(1, MAX_SHOTS), hint="frames of a video")
    ] = 8
    device: Annotated[str, DEVICE] = "auto"
    seed: Annotated[int, _SEED] = 0

    def __post_init__(self) -> None:
        check_options(self)
        if self.preset is not None and not self.from_scratch:
            raise InputError("--preset requires --from-scratch; a model has its own preset.")
        if self.preset is not None and self.model is not None:
            raise InputError("--preset and --model are mutually exclusive: a model has its own preset.")


def files_in(path: Path) -> list[Path]:
    """The given file, or the files of a folder except hidden ones.

    Raises InputError if there is none, or the file is a learned avatar.
    """
    if not path.is_dir():
        formats.check_input(path)
        if path.suffix.lower() == AVATAR_SUFFIX:
            raise InputError(f"{path} is a learned avatar; pass the photos or videos of the person instead.")
        return [path]
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != ".")
    if not files:
        raise InputError(f"{path}: is an empty folder; use photos of one person, or a folder that contains them.")
    return files


@dataclass(frozen=True, kw_only=True)
class VoiceConfig:
    """How the voice network is trained."""

    channels: int = 128
    recurrent: int = 128
    members: Annotated[
        int, Option("Number of networks to train and average.", "N", range=(1, 8), hint="one is usual")
    ] = 1
    dropout: float = 0.15
    batch_size: Annotated[int, Option("Batch size, in pieces of 3 s.", "N", range=(1, 1024), hint="20 is usual")] = 20
    spoken: Annotated[
        int,
        Option(
            "Pairs of sentences spoken by espeak-ng that teach lip contact and rounding; 0: none.",
            "N",
            range=(0, 100_000),
            hint="240 are usual",
        ),
    ] = 240
    spoken_batch: int = 4  # pieces of synthetic speech per step, in addition to batch_size
    spoken_weight: float = 0.5
    align_at: tuple[int, ...] = (300, 600, 1000)  # steps at which sound and picture of the clips are aligned
    piece_steps: int = 150  # length of a piece, in steps of 1 / LIPS_HZ
    warm_up_steps: int = 20  # first steps of a piece, without loss, because earlier sound is missing
    num_variants: int = 4  # augmented versions of each clip that are kept
    refreshed: int = 3  # of these versions, renewed in every step
    grid_share: float = 0.2  # share of pieces from the single-speaker corpus
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    ema: float = 0.998
    num_steps: Annotated[
        int,
        Option(
            "Training steps; a larger number continues a finished run.",
            "N",
            "--steps",
            range=(1, 1_000_000),
            hint="1500 take about fifteen minutes per network on one core",
        ),
    ] = 1500
    velocity: float = 0.5
    correlation: float = 0.5
    touch: float = 0.5
    absolute: float = 0.05
    seed: Annotated[int, _SEED] = 0

    def __post_init__(self) -> None:
        check_options(self)
