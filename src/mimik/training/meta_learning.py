"""Meta-learning, stage 1 of the method: E, P, G and D learn from many clips of many people.

`mimik train`, or `python -m mimik.training.meta_learning` where only torch, numpy, opencv and safetensors are
installed; under torchrun the same on many GPUs and machines. docs/training.md tells how to use it, docs/paper.md what
it computes.

All that the next step depends on is in the training state: on the CPU, a run that was stopped and went on has the same
weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import fcntl
import functools
import hashlib
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import default_collate

from mimik.config import (
    PRESETS,
    VARIANTS,
    VERSION,
    InputError,
    LossWeights,
    Preset,
    check_number,
    preset_from_json,
    preset_to_json,
)
from mimik.data.augmentation import Augmentation
from mimik.data.episodes import Episodes, loader, to_model_range
from mimik.data.index import ClipInfo, read_index, split_people
from mimik.data.store import ClipStore
from mimik.face import landmarks as face
from mimik.networks import checkpoint, losses
from mimik.networks.features import ContentNetwork, FaceNet, chips, content_network
from mimik.networks.generators import Discriminator, Embedder, Generator, Networks, Projection, Synthesis, build, look
from mimik.networks.landmark_net import LandmarkNet

log = logging.getLogger(__name__)

Batch = Mapping[str, Tensor]

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
NETWORKS = ("E", "P", "G", "D")
RELEASE_NAME = "model.safetensors"
SETTINGS_NAME = "settings.json"
STATS_NAME = "stats.jsonl"
_LOCK_NAME = ".train.lock"
_LOCK_WAIT_S = 20.0  # as long as a process may need to see that another one is gone

_EPOCHS = {"ft": 75, "ff": 150}  # paper
_HELD_OUT = 0.05  # of the people, where no --val is given
_VALIDATION_EPISODES = 48
_VALIDATION_SEED = 20190520  # other frames than training's; the same in every run
_DEAD_EMBEDDING = 0.05  # of E's numbers differ between people: fewer are a warning
_SHOWN = 4  # rows of a sample grid
_SHOWN_PX = 128  # at least, so that its caption fits
_LINE_EVERY_S = 5.0
_CURVE_POINTS = 50  # of the held-out curve in a release
_TOTALS = ("steps", "episodes", "seconds", "device", "data", "before")  # of a record, that a run from it repeats
_IMAGES = ("x", "y", "x_s", "y_s", "warped")
_MASKS = ("regions", "interior")


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
    """What one run is asked for; `mimik train` and `python -m mimik.training.meta_learning` take the same options."""

    data: str = field(metadata=_help("Shards to train on: the folder that `mimik prepare` wrote, or its URL."))
    out: Path = field(metadata=_help("Folder of the run; the same command goes on where it was stopped."))
    preset: str = field(default="texture", metadata=_help("Networks, losses and rates."))
    val: str | None = field(
        default=None, metadata=_help("Shards of other people; a twentieth of the people in --data if left out.")
    )
    steps: int | None = field(default=None, metadata=_help("Updates of E, P and G in all."))
    batch: int | None = field(default=None, metadata=_help("Episodes a step, of all processes together."))
    k: int | None = field(default=None, metadata=_help("Source frames of an episode."))
    variant: str | None = field(default=None, metadata=_help("ft has the match loss, to be fine-tuned; ff has not."))
    content: str | None = field(
        default=None, metadata=_help("Networks of the content loss: NAME or NAME=WEIGHT, with commas between.")
    )
    device: str = field(default="auto", metadata=_help("Where to train; auto takes a GPU if there is one."))
    precision: str = field(default="auto", metadata=_help("Of activations; auto is bf16 on a GPU that has it."))
    workers: int | None = field(default=None, metadata=_help("Loading processes for each training process."))
    cache_mb: int | None = field(
        default=None, metadata=_help("Memory for decoded clips, MB; a quarter of the machine's if left out.")
    )
    seed: int = field(default=0, metadata=_help("Of everything random."))
    save_minutes: float = field(default=5.0, metadata=_help("From one saved state to the next."))
    max_minutes: float | None = field(default=None, metadata=_help("Stop after this long, with a saved state."))
    val_every: int = field(default=250, metadata=_help("Steps from one validation and sample grid to the next."))
    init: Path | None = field(default=None, metadata=_help("A release of the same networks to start from."))
    fresh: str | None = field(
        default=None,
        metadata=_help("Networks that do not start from --init but anew: of E, P, G, D, with commas between."),
    )
    fsdp: bool = field(default=False, metadata=_help("Divide the networks among the processes of torchrun (FSDP2)."))

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise InputError(f"--{name} {value}: give one of {', '.join(choices)}.")
        check_number("--save-minutes", self.save_minutes, 0, 1e6, "minutes")
        check_number("--seed", self.seed, 0, 2**31, "a whole number")
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
            raise InputError(f"--fresh {self.fresh}: {unknown[0]!r} is no network; give any of {', '.join(NETWORKS)}.")
        if self.fresh is not None and self.init is None:
            raise InputError(f"--fresh {self.fresh}: without --init all networks start anew; leave --fresh out.")

    @property
    def fresh_networks(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.fresh.split(",")) if self.fresh is not None else ()

    def resolved(self) -> Preset:
        """The preset with what was asked for instead.

        Raises:
            InputError: if --content is not understood.
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
    """NAME=WEIGHT, .. -> weights; a name alone has the preset's weight, or 1."""
    weights = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        try:
            weights[name] = float(number) if number else known.get(name, 1.0)
        except ValueError:
            weights[name] = -1.0
        if not name or not 0 <= weights[name] < 1e9:
            raise InputError(f"--content {text}: give NAME or NAME=WEIGHT with commas between, such as vgg19=0.15.")
    return weights


# Many processes.


@dataclass(frozen=True)
class World:
    """The processes that train together, and this one among them."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def local_size(self) -> int:
        """Processes on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.size))

    def mean(self, values: Tensor) -> Tensor:
        """Mean over processes, the same for all of them."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    @property
    def first_here(self) -> bool:
        """Whether this is the first process of its machine."""
        return self.size == 1 or int(os.environ.get("LOCAL_RANK", self.rank)) == 0

    def shared(self, value: Any, source: int = 0) -> Any:
        """What the first process has, or another one."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, source, device=self.device)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """What each process has."""
        if self.size == 1:
            return [value]
        boxes = [None] * self.size
        dist.all_gather_object(boxes, value)
        return boxes


@contextmanager
def _world(device: str) -> Iterator[World]:
    """Joins the processes that torchrun started; alone without it."""
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if not torch.cuda.is_available():
            raise InputError("--device cuda: torch sees no GPU here; give cpu, or install a torch with CUDA.")
        if local >= torch.cuda.device_count():
            raise InputError(f"process {local} of this machine has no GPU: start {torch.cuda.device_count()} or fewer.")
        torch.cuda.set_device(local)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TF32
    joins = size > 1 and not dist.is_initialized()
    if joins:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        rank = dist.get_rank() if size > 1 else 0
        yield World(rank, size, torch.device(device, local) if device == "cuda" else torch.device(device))
    finally:
        if joins:
            dist.destroy_process_group()


# One step.


class Synthesiser(nn.Module):
    """E, P and G as one: the sources' embeddings and the synthesised target."""

    def __init__(self, embedder: Embedder, projection: Projection, generator: Generator) -> None:
        super().__init__()
        self.E, self.P, self.G = embedder, projection, generator

    def forward(self, batch: Batch) -> tuple[Tensor, Synthesis]:
        """Returns: e [B, K, N], and what G makes of their mean."""
        e = self.E(batch["x_s"], batch["y_s"])
        psi_hat = self.P(e.mean(1))
        out = self.G(batch["y"], psi_hat, batch.get("warped"), batch.get("geometry"), batch.get("interior"))
        return e.clone(), out  # no view: FSDP hangs its hook on it


class Opinion(NamedTuple):
    """What E, P and G are told of their frames.

    Attributes:
        score: [B] r of the synthesised frames.
        fake_acts, real_acts: D's activations for the synthesised and for the real ones.
        rows: [B, N] W_i of their videos.
    """

    score: Tensor
    fake_acts: list[Tensor]
    real_acts: list[Tensor]
    rows: Tensor


class Judge(nn.Module):
    """D, as its own update and as that of E, P and G need it."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.D = discriminator

    def forward(self, x: Tensor, x_hat: Tensor, y: Tensor, video: Tensor) -> Tensor:
        """Scores [2 B], of the real frames and then of the synthesised ones.

        In one pass, because D looks at every item alone: DDP wants one for each backward pass.
        """
        score, _ = self.D(torch.cat([x, x_hat]), torch.cat([y, y]), torch.cat([video, video]))
        return score.float()

    def opinion(self, x: Tensor, x_hat: Tensor, y: Tensor, video: Tensor) -> Opinion:
        """With gradients into x_hat only, if D's parameters require none."""
        score, fake_acts = self.D(x_hat, y, video)
        with torch.no_grad():
            _, real_acts = self.D(x, y, video)
            rows = self.D.W(video)
        return Opinion(score.float(), fake_acts, real_acts, rows)


class Ema:
    """Moving averages of E, P and G.

    The share of the old weights grows from 0.1 to `decay`, so that the first steps' weights do not linger; they may
    where they are those of a release, the average of an earlier run. Buffers, which are the vectors of spectral norm,
    are the live network's: they fit the average's weights better than an average of them would.
    """

    def __init__(self, live: Synthesiser, decay: float, *, grows: bool = True) -> None:
        self.live, self.decay, self.grows = live, decay, grows
        self.average = copy.deepcopy(live).eval().requires_grad_(False)

    @functools.cached_property
    def _tensors(self) -> list[list[Tensor]]:
        """Parameters and buffers of both; listed once, because listing takes a tenth of a small network's step."""
        networks = self.average, self.live
        return [*(list[Tensor](net.parameters()) for net in networks), *(list(net.buffers()) for net in networks)]

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """After the step that makes it num_updates in all."""
        decay = min(self.decay, num_updates / (9 + num_updates)) if self.grows else self.decay
        kept, live, kept_buffers, live_buffers = self._tensors
        torch._foreach_lerp_(kept, live, 1 - decay)
        torch._foreach_copy_(kept_buffers, live_buffers)


class Seen(NamedTuple):
    """What D and the content networks look at: real and synthesised frames and their landmark images, all of one size.

    Of the paper's form it is the frames themselves; of the texture form all of a frame, reduced, or a part (D14).
    """

    x: Tensor
    x_hat: Tensor
    y: Tensor

    @classmethod
    def of(cls, batch: Batch, x_hat: Tensor) -> Seen:
        view = batch.get("view")
        if view is None:
            return cls(batch["x"], x_hat, batch["y"])
        y = F.interpolate(batch["y"], scale_factor=2, mode="bilinear")
        return cls(look(batch["x"], view), look(x_hat, view), look(y, view))


def _content(content: Mapping[str, ContentNetwork], weights: LossWeights, x: Tensor, x_hat: Tensor) -> Tensor:
    """L_CNT: the sum over networks, each times its weight."""
    total = torch.zeros((), device=x.device)
    for name, network in content.items():
        with torch.no_grad():
            real = network(x)
        distance = losses.content_loss(real, network(x_hat), network.layer_weights)
        total = total + weights.content[name] * distance.float()
    return total


def _landmark_distance(landmarks: LandmarkNet, batch: Batch, x_hat: Tensor) -> Tensor:
    """The landmark term without its weight."""
    with torch.autocast(x_hat.device.type, enabled=False):  # bf16 would move the points by 2 pixels
        with torch.no_grad():
            points = landmarks.find(batch["x"], batch["face"])
        points_hat = landmarks.find(x_hat.float(), batch["face"])
    return losses.landmark_loss(points[:, face.EXPRESSIVE, :2], points_hat[:, face.EXPRESSIVE, :2])


def _strangers(person: Tensor) -> Tensor:
    """For each item of a batch the next one of another person; itself where there is none: [B] int64 -> the same."""
    count = len(person)
    found = torch.arange(count)
    for step in range(count - 1, 0, -1):
        item = (torch.arange(count) + step) % count
        found = torch.where(person.cpu()[item] != person.cpu(), item, found)
    return found


def generator_terms(
    judge: Judge,
    content: Mapping[str, ContentNetwork],
    preset: Preset,
    batch: Batch,
    e: Tensor,
    out: Synthesis,
    *,
    adversarial: bool,
    identity: FaceNet | None = None,
    landmarks: LandmarkNet | None = None,
) -> dict[str, Tensor]:
    """What E, P and G minimise the sum of: every term times its weight. Terms of weight 0 are not computed.

    Args:
        judge: D, whose parameters must not require gradients.
        content: frozen networks of L_CNT by name.
        preset: weights, and the variant: ff has no match term.
        batch: x, y [B, 3, H, W]; regions [B, 1, H, W] in 0..1; clip [B]. Of the texture form x and regions are
            [.., 2 H, 2 W], and there is view [B, 2].
        e: [B, K, N] embeddings of the sources.
        out: of G.
        adversarial: whether D takes part; without it there is no L_ADV and no L_MCH, whose goal is D's.
        identity: the frozen network of the identity term; batch has chip [B, 2, 3] then.
        landmarks: that of the landmark term; batch has face [B, 2, 3] then.
    """
    weights, x, x_hat = preset.losses, batch["x"], out.image
    seen = Seen.of(batch, x_hat)
    terms = {"content": _content(content, weights, seen.x, seen.x_hat)}
    if identity is not None:
        with torch.no_grad():
            e_x = identity(chips(x, batch["chip"])).float()
        e_x_hat = identity(chips(x_hat.float(), batch["chip"])).float()
        terms["identity"] = weights.identity * losses.identity_loss(e_x, e_x_hat)
    if landmarks is not None:
        terms["landmarks"] = weights.landmarks * _landmark_distance(landmarks, batch, x_hat)
    if weights.pixel:
        terms["pixel"] = weights.pixel * losses.pixel_loss(x_hat.float(), x, batch["regions"])
    if out.synthesised is not None and weights.synthesised:
        terms["synthesised"] = weights.synthesised * losses.pixel_loss(out.synthesised.float(), x, batch["regions"])
    if out.mask is not None and weights.drawn:
        terms["drawn"] = weights.drawn * (1 - out.mask.float()).mean()
    if out.correction is not None and weights.correction:
        px = batch["y"].shape[3]
        terms["correction"] = weights.correction * (out.correction.float() * px).square().mean()  # in pixels of y
    if adversarial:
        opinion = judge.opinion(*seen, batch["clip"])
        terms["adversarial"] = weights.adversarial * losses.adversarial_loss(opinion.score)
        distance = losses.feature_matching_loss(
            opinion.fake_acts, opinion.real_acts, over_layers=weights.feature_matching_over
        )
        terms["feature_matching"] = weights.feature_matching * distance.float()
        if preset.train.variant == "ft":
            terms["match"] = weights.match * losses.match_loss(e.float(), opinion.rows)
    return terms


class Trainer:
    """Networks, their optimisers and averages, and the step that moves them."""

    def __init__(
        self,
        preset: Preset,
        num_videos: int,
        world: World,
        *,
        precision: str = "fp32",
        init: Networks | None = None,
        fresh: Collection[str] = (),
        people: Sequence[Mapping[str, Any]] = (),
        fsdp: bool = False,
    ) -> None:
        """Makes the networks; the same in every process, if torch's seed is.

        Args:
            preset: what to train.
            num_videos: clips that are trained on, rows of W.
            world: this process among all.
            precision: "fp32" or "bf16": of activations; weights are float32.
            init: weights of E, P, G and D to start from; not of W.
            fresh: names of networks that do not start from them.
            people: batches of dataset.loader; if E or P is fresh, psi_hat's mean over them is kept.
            fsdp: each process keeps a part of the weights, averages and optimisers' states, and fetches the rest when
                it computes; else each keeps all of them.

        Raises:
            InputError: if the weights of a content network are missing.
        """
        self.preset, self.world, self.precision = preset, world, precision
        self.networks = build(preset.networks, num_videos)
        if init is not None:
            for (name, net), (_, other) in zip(self.networks, init, strict=True):
                state = other.state_dict()
                state.pop("W.weight", None)
                if name not in fresh:
                    net.load_state_dict(state, strict=name != "D")
        self.content = {name: content_network(name).to(world.device) for name, w in preset.losses.content.items() if w}
        self.identity = FaceNet().to(world.device) if preset.losses.identity else None
        self.landmarks = LandmarkNet().to(world.device) if preset.losses.landmarks else None
        for part, net in self.networks:
            # On a CPU, channels_last takes a fifth off E's and D's time, but adds a fifth to G's instance norms.
            last = (world.device.type == "cuda" or part in ("E", "D")) and not fsdp  # which divides no such tensor
            layout = torch.channels_last if last else torch.contiguous_format
            nn.Module.to(net, device=world.device, memory_format=layout)  # type: ignore[call-overload]
        if init is not None and {"E", "P"}.intersection(fresh):
            self._keep_mean(init, people)
        self.synthesiser = Synthesiser(self.networks.E, self.networks.P, self.networks.G)
        self.judge = Judge(self.networks.D)
        self.ema = Ema(self.synthesiser, preset.train.ema, grows=init is None or bool(fresh))
        if fsdp:
            for module in (self.synthesiser, self.judge, self.ema.average):
                fully_shard(module, reshard_after_forward=True)
            register_fsdp_forward_method(self.judge, "opinion")
        self._synthesise: nn.Module = self.synthesiser
        self._judge: nn.Module = self.judge
        if world.size > 1 and not fsdp:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self._synthesise = DistributedDataParallel(self.synthesiser, device_ids=ids, gradient_as_bucket_view=True)
            self._judge = DistributedDataParallel(self.judge, device_ids=ids, gradient_as_bucket_view=True)
        train = preset.train
        adam: dict[str, Any] = {"betas": train.betas, "eps": train.eps, "fused": True}
        self._of_synthesiser, self._of_judge = list(self.synthesiser.parameters()), list(self.judge.parameters())
        lr_embedder = train.lr_generator if train.lr_embedder is None else train.lr_embedder
        groups: list[dict[str, Any]] = [
            {"params": [*self.networks.E.parameters(), *self.networks.P.parameters()], "lr": lr_embedder},
            {"params": list(self.networks.G.parameters())},
        ]
        self.generator_adam = torch.optim.Adam(groups, train.lr_generator, **adam)
        self.discriminator_adam = torch.optim.Adam(self._of_judge, train.lr_discriminator, **adam)
        self.step = 0

    @torch.no_grad()
    def _keep_mean(self, init: Networks, people: Sequence[Mapping[str, Any]]) -> None:
        """Shifts psi_hat so that its mean over people is what it was, whatever fresh E and P say.

        With another mean G would have to learn anew, and E would first learn to say nothing.
        """
        difference = torch.zeros_like(self.networks.P.linear.bias)
        for batch in map(self.on_device, people):
            for sign, networks in ((1, init), (-1, self.networks)):
                embedder, projection = networks.E.to(self.world.device).eval(), networks.P.to(self.world.device).eval()
                e_hat = embedder(batch["x_s"], batch["y_s"]).mean(1)
                difference += sign * projection(e_hat).sum(0)
        self.networks.P.linear.bias.add_(difference / sum(len(batch["x"]) for batch in people))
        self.networks.E.train()
        self.networks.P.train()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def on_device(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the step needs of a batch of the loader: images in [-1, 1], masks in 0..1."""
        move = {
            name: batch[name].to(self.world.device, non_blocking=True)
            for name in (*_IMAGES, "geometry", *_MASKS, "view", "chip", "face", "clip")
            if name in batch
        }
        for name in _IMAGES:
            if name in move:
                move[name] = to_model_range(move[name])
        for name in _MASKS:
            if name in move:
                move[name] = move[name].float() / 255
        return move

    def train_step(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """One update of E, P and G and, once D takes part, num_discriminator_updates of D.

        D's updates see the same frames again: x_hat is what G made before its own update, and only D's weights change
        from one to the next. That costs a pass of D each, where new frames would cost one of E, P and G too.

        Args:
            batch: of dataset.loader, this process' share.

        Returns:
            Scalars of this process: the terms that E, P and G minimise, their sum "loss", the norm of its gradient
            before clipping; and D's loss, gradient norm and mean scores.
        """
        train = self.preset.train
        adversarial = self.step >= train.adversarial_from
        batch = self.on_device(batch)
        for parameter in self._of_judge:
            parameter.requires_grad_(False)
        with self._autocast():
            e, out = self._synthesise(batch)
            terms = generator_terms(
                self.judge,
                self.content,
                self.preset,
                batch,
                e,
                out,
                adversarial=adversarial,
                identity=self.identity,
                landmarks=self.landmarks,
            )
        loss = torch.stack(list(terms.values())).sum()
        self.generator_adam.zero_grad()
        loss.backward()
        norm = self._clip(self._of_synthesiser)
        self.generator_adam.step()
        for parameter in self._of_judge:
            parameter.requires_grad_(True)
        self.step += 1
        self.ema.update(self.step)
        stats = {**terms, "loss": loss, "gradient": norm}
        seen = Seen.of(batch, out.image.detach())
        for _ in range(train.num_discriminator_updates if adversarial else 0):
            with self._autocast():
                score = self._judge(*seen, batch["clip"])
            real, fake = score.chunk(2)
            loss = losses.discriminator_loss(real, fake)
            self.discriminator_adam.zero_grad()
            loss.backward()
            norm = self._clip(self._of_judge)
            self.discriminator_adam.step()
            stats |= {"d_loss": loss, "d_gradient": norm, "d_real": real.mean(), "d_fake": fake.mean()}
        return {name: value.detach() for name, value in stats.items()}

    def _clip(self, parameters: Sequence[Tensor]) -> Tensor:
        """Shortens a gradient that is too long; returns how long it was."""
        norm = nn.utils.clip_grad_norm_(parameters, self.preset.train.clip_norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    @torch.no_grad()
    def synthesise(self, batch: Batch) -> Synthesis:
        """What the averages of E, P and G make of a batch that on_device gave."""
        with self._autocast():
            return self.ema.average(batch)[1]

    @torch.no_grad()
    def validate(self, batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Content loss, mean L1 in [-1, 1] and the landmarks' distance, where it is trained, of the averages.

        L1 and landmarks of the warped photo itself too, where there is one. "content_stranger" is the content loss with
        psi_hat of another person: no more than "content" if G does not listen to it. "embedding" is the share of E's N
        numbers that are not the same for everybody: 0 if its last ReLU died, and psi_hat says nothing of the person.
        Of the texture form the content networks see whole frames only.

        Args:
            batches: of dataset.loader, with person.
        """
        sums: dict[str, float] = {}
        e_hats = []
        for given in batches:
            batch = self.on_device(given)
            if "view" in batch:
                batch["view"] = torch.full_like(batch["view"], -1)
            others = _strangers(given["person"]).to(self.world.device)
            with self._autocast():
                e, out = self.ema.average(batch)
                _, swapped = self.ema.average({**batch, "x_s": batch["x_s"][others], "y_s": batch["y_s"][others]})
            e_hats.append(e.float().mean(1))
            x, x_hat = batch["x"], out.image
            values = {}
            for name, image in (("content", x_hat), ("content_stranger", swapped.image)):
                seen = Seen.of(batch, image)
                with self._autocast():
                    values[name] = _content(self.content, self.preset.losses, seen.x, seen.x_hat)
            values["l1"] = (x_hat.float() - x).abs().mean()
            if "warped" in batch:
                values["l1_warped"] = (batch["warped"] - x).abs().mean()
            if self.landmarks is not None:
                values["landmarks"] = _landmark_distance(self.landmarks, batch, x_hat)
                if "warped" in batch:
                    values["landmarks_warped"] = _landmark_distance(self.landmarks, batch, batch["warped"])
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(x)
        count = sum(len(batch["x"]) for batch in batches)
        e_hat = torch.cat(e_hats)
        differs = (e_hat != e_hat[:1]).any(0).float().mean().item()
        return {**{name: value / count for name, value in sums.items()}, "embedding": differs}

    def release_tensors(self) -> dict[str, Tensor]:
        """Of the averages of E, P and G, with D, whole and on the CPU; every process has to take part."""
        average = self.ema.average
        networks = Networks(self.preset.networks, average.E, average.P, average.G, self.networks.D)
        return _whole(checkpoint.release_tensors(networks))

    def _parts(self) -> dict[str, Any]:
        return {
            "synthesiser": self.synthesiser,
            "judge": self.judge,
            "average": self.ema.average,
            "generator_adam": self.generator_adam,
            "discriminator_adam": self.discriminator_adam,
        }

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but for the data; every process has to take part.

        It is the same for any number of processes, whole and on the CPU.
        """
        return {
            "step": self.step,
            "grows": self.ema.grows,
            **{name: _whole(part.state_dict()) for name, part in self._parts().items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state, of the same preset and number of clips."""
        self.step, self.ema.grows = state["step"], state.get("grows", True)
        for name, part in self._parts().items():
            values = state[name]
            if isinstance(part, torch.optim.Optimizer):
                parameters = [p for group in part.param_groups for p in group["params"]]
                moments = {
                    i: {key: value if key == "step" else _divided(value, parameters[i]) for key, value in slots.items()}
                    for i, slots in values["state"].items()
                }
                part.load_state_dict({**values, "state": moments})
            else:
                own = part.state_dict()
                part.load_state_dict({key: _divided(value, own[key]) for key, value in values.items()})


def _whole(values: Any) -> Any:
    """A state_dict with whole tensors on the CPU; every process has to take part."""
    if isinstance(values, dict):
        return {key: _whole(value) for key, value in values.items()}
    if isinstance(values, DTensor):
        values = values.full_tensor()
    return values.cpu() if isinstance(values, Tensor) else values


def _divided(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, divided among the processes as another one is."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


# What a run tells.


def _grid(batch: Mapping[str, Tensor], out: Synthesis, caption: str) -> NDArray[np.uint8]:
    """Photo, landmarks, [warped photo,] result, [mask,] truth, a row for each item: BGR [H, W, 3] with the caption."""
    columns = [batch["x_s"][:, 0], batch["y"], batch.get("warped"), out.image, out.mask, batch["x"]]
    if out.mask is not None:
        columns[4] = out.mask.expand(-1, 3, -1, -1) * 2 - 1
    size = out.image.shape[2:]
    fitted = [F.interpolate(c.float().clamp(-1, 1).cpu(), size) for c in columns if c is not None]
    shown = torch.stack(fitted, 1)  # [B, columns, 3, H, W]
    picture = shown.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)  # -> [B H, columns W, 3]
    bgr = ((picture + 1) * 127.5).round().to(torch.uint8).numpy()[..., ::-1]
    scale = max(1, -(-_SHOWN_PX // shown.shape[3]))
    bgr = cv2.resize(np.ascontiguousarray(bgr), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    strip = np.full((24, bgr.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, caption, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, bgr])


class _Diary:
    """What the first process writes of a run: stats.jsonl, sample grids, TensorBoard's events if it is installed."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._events: Any = None
        with suppress(ImportError):
            from tensorboard.summary.writer.event_file_writer import EventFileWriter

            self._events = EventFileWriter(str(run))

    def numbers(self, step: int, values: Mapping[str, float], prefix: str = "") -> None:
        """A line of stats.jsonl, and a point of every curve."""
        values = {f"{prefix}{name}": value for name, value in values.items()}
        line = {"step": step, **{name: float(f"{value:.6g}") for name, value in values.items()}}
        with (self._run / STATS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self._event(step, tag=name, simple_value=value)

    def grid(self, step: int, picture: NDArray[np.uint8]) -> None:
        """samples/000250.png, BGR."""
        path = self._run / "samples" / f"{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        encoded = cv2.imencode(".png", picture)[1].tobytes()
        checkpoint.write_whole(path, encoded)
        if self._events is not None:
            from tensorboard.compat.proto.summary_pb2 import Summary

            height, width = picture.shape[:2]
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
            self._event(step, tag="samples", image=image)

    def _event(self, step: int, **value: Any) -> None:
        if self._events is not None:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary

            summary = Summary(value=[Summary.Value(**value)])
            self._events.add_event(Event(step=step, wall_time=time.time(), summary=summary))

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


class _Meter:
    """Means of what happened since the last line."""

    def __init__(self) -> None:
        self.start, self.wait_s, self.images = time.monotonic(), 0.0, 0
        self._sums: dict[str, list[float]] = {}

    def add(self, stats: Mapping[str, float], images: int, wait_s: float) -> None:
        self.images += images
        self.wait_s += wait_s
        for name, value in stats.items():
            self._sums.setdefault(name, []).append(value)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.start

    def means(self) -> dict[str, float]:
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        return {**means, "images_per_s": self.images / self.elapsed_s, "wait": self.wait_s / self.elapsed_s}


def _memory_gb(device: torch.device) -> float:
    """Most that was in use so far: of the GPU's memory, or of this process'."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def _line(step: int, num_steps: int, means: Mapping[str, float], train: Any) -> str:
    """A line for people, of one interval."""
    rest = ("loss", "gradient", "images_per_s", "wait", "memory_gb")
    terms = " ".join(f"{n} {v:.3g}" for n, v in means.items() if n not in rest and not n.startswith("d_"))
    text = f"step {step}/{num_steps}  loss {means['loss']:.4g} = {terms}  gradient {means['gradient']:.2g}"
    if "d_loss" in means:
        text += f"  D {means['d_loss']:.3g} (real {means['d_real']:.2g}, fake {means['d_fake']:.2g})"
    speed = f"{means['images_per_s']:.1f} images/s, {100 * means['wait']:.0f} % waiting for data"
    return f"{text}  {speed}  {means['memory_gb']:.2f} GB  lr {train.lr_generator:g}, {train.lr_discriminator:g}"


class _Signals:
    """SIGINT and SIGTERM end the run after the step; a second one at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._before[number])


# A run.


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        step, num_steps: done, and wanted.
        signal: that ended it, or None.
        release: the model.
        validation: newest values on held-out clips.
    """

    step: int
    num_steps: int
    signal: int | None
    release: Path
    validation: dict[str, float]


def train(arguments: TrainArguments, *, progress: Callable[[int, int], None] | None = None) -> Outcome:
    """Trains, or goes on, until the steps or the time are over, or a signal comes.

    Args:
        arguments: the run.
        progress: is told steps done and wanted after every step; in the first process.

    Raises:
        InputError: if something given cannot be used, the disk is full, or a loss is not finite; the last good state
            stays.
    """
    with _world(arguments.device) as world, _Signals() as signals:
        run = _Run(arguments, world)
        try:
            return run.go(signals, progress or (lambda step, num_steps: None))
        except RuntimeError as error:
            if world.size == 1 or not _is_lost_connection(error):
                raise
            raise InputError(
                f"step {run.trainer.step}: another process is gone. torchrun goes on from the newest saved state as "
                "often as --max-restarts allows, and so does the same command."
            ) from error
        except OSError as error:
            where = error.filename or arguments.out
            raise InputError(
                f"{where}: {error.strerror or error}; check the disk. The state of step {run.saved_step} is kept, and "
                "the same command goes on from there."
            ) from error
        finally:
            run.close()


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether a process failed because another one did; gloo has no exception of its own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


class _Run:
    """One run of `mimik train` in one process."""

    def __init__(self, arguments: TrainArguments, world: World) -> None:
        self.started = time.monotonic()
        self.arguments, self.world = arguments, world
        self.preset = arguments.resolved()
        train = self.preset.train
        if arguments.fsdp and world.size == 1:
            raise InputError("--fsdp: there is one process, and nothing to divide; start more with torchrun.")
        if train.batch_size % world.size:
            raise InputError(f"--batch {train.batch_size}: give a multiple of the {world.size} processes.")
        self.index, self.held_out = self._indices()
        self.fingerprint = _fingerprint(self.index)
        self.lock, state = self._opened()
        if state is not None:
            self._check_state(state)
        held_out = self._episodes(arguments.val or arguments.data, self.held_out, augment=None, seed=_VALIDATION_SEED)
        count = min(_VALIDATION_EPISODES, 8 * len(held_out))
        numbers = np.array_split(np.arange(count), -(-count // 8))
        self.validation = [default_collate([held_out[int(n)] for n in part]) for part in numbers]
        torch.manual_seed(arguments.seed)
        init = self._init() if arguments.init is not None and state is None else None
        self.trainer = Trainer(
            self.preset,
            len(self.index),
            world,
            precision=self._precision(),
            init=init,
            fresh=arguments.fresh_networks,
            people=self.validation,
            fsdp=arguments.fsdp,
        )
        self.episodes, self.seconds, self.curve = 0, 0.0, list[dict[str, float]]()
        self.before: dict[str, Any] | None = None  # the run that --init is of, in the same words
        if arguments.init is not None and state is None:
            record = checkpoint.load_release(arguments.init).record
            self.before = {name: record[name] for name in _TOTALS if name in record}
        if state is not None:
            self._load(state)
        self.saved_step = self.trainer.step if state is not None else -1
        self.training = self._episodes(arguments.data, self.index, augment=Augmentation(), seed=arguments.seed)
        per_epoch = len(self.training)
        self.num_steps = train.num_steps or max(1, train.num_epochs * per_epoch // train.batch_size)
        self.diary = _Diary(arguments.out) if world.first else None
        if world.first:
            self._write_settings()

    # Before the first step.

    def _indices(self) -> tuple[list[ClipInfo], list[ClipInfo]]:
        index = read_index(self.arguments.data)
        if self.arguments.val is not None:
            return index, read_index(self.arguments.val)
        if len({clip.person for clip in index}) < 2:
            raise InputError(f"--data {self.arguments.data}: shows one person, so nobody can be held out; give --val.")
        return split_people(index, _HELD_OUT)

    def _opened(self) -> tuple[IO[str] | None, dict[str, Any] | None]:
        """Locks the folder of the run; the newest state that any machine has.

        Who is the first process changes when machines come and go, and their folders may be different ones: then each
        machine keeps states, so that the run outlives any of them.
        """
        world = self.world
        lock = self._lock_folder() if world.first else None
        world.shared(None)  # the first process has its lock before others try theirs
        if world.first_here and not world.first:
            with suppress(InputError):  # locked: it is the folder of the first process, on a shared disk
                lock = self._lock_folder(wait_s=0)
        state = checkpoint.read_state(self.arguments.out) if lock is not None else None
        steps = world.gathered(-1 if state is None else state["step"])
        newest = int(np.argmax(steps))
        return lock, world.shared(state, newest) if steps[newest] >= 0 else None

    def _lock_folder(self, wait_s: float = _LOCK_WAIT_S) -> IO[str]:
        """Makes the folder of the run and keeps other runs out of it.

        Args:
            wait_s: for a lock that another process holds; under torchrun it may be one of this run that is just ending.
        """
        out = self.arguments.out
        try:
            out.mkdir(parents=True, exist_ok=True)
            if any(out.iterdir()) and not (out / _LOCK_NAME).exists():
                raise InputError(f"--out {out}: holds other files; give a new folder, or that of a run to go on with.")
            lock = (out / _LOCK_NAME).open("w")
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written to ({error.strerror}); give another folder.") from error
        until = time.monotonic() + (wait_s if dist.is_torchelastic_launched() else 0)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() < until:
                    time.sleep(0.5)
                    continue
                lock.close()
                message = f"--out {out}: another run is writing there; wait for it, or give another."
                raise InputError(message) from error
        for left in out.glob(f".*{checkpoint.DRAFT_SUFFIX}"):  # of a run that was killed
            left.unlink()
        return lock

    def _check_state(self, state: Mapping[str, Any]) -> None:
        """What was trained so far must be what is asked for now; the number of steps may differ."""
        changed = checkpoint.differences(preset_from_json(state["preset"]), self.preset)
        for name in ("train.num_steps", "train.num_epochs"):
            changed.pop(name, None)
        for name, now in (("data", self.fingerprint), ("seed", self.arguments.seed)):
            if state[name] != now:
                changed[name] = state[name], now
        if changed:
            name, (old, new) = next(iter(changed.items()))
            what = "other clips" if name == "data" else f"{name} {old}, not {new}"
            raise InputError(f"--out {self.arguments.out}: was trained with {what}; give the same, or a new folder.")

    def _precision(self) -> str:
        if self.arguments.precision != "auto":
            return self.arguments.precision
        return "bf16" if self.world.device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"

    def _init(self) -> Networks:
        release = checkpoint.load_release(Path(str(self.arguments.init)))
        changed = checkpoint.differences(release.preset, self.preset)
        name = next((name for name in changed if name.startswith("networks.")), None)
        if name is not None:
            old, new = changed[name]
            raise InputError(f"--init {self.arguments.init}: has {name} {old}, not {new}; give another --preset.")
        return release.networks

    def _episodes(self, source: str, index: Sequence[ClipInfo], *, augment: Augmentation | None, seed: int) -> Episodes:
        networks, train = self.preset.networks, self.preset.train
        texture = networks.form == "texture"
        cache_mb = self.arguments.cache_mb
        if cache_mb is None:
            cache_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4_000_000
        store = ClipStore(
            source,
            size=None if texture else networks.image_px,
            cache_mb=cache_mb / self.world.local_size if augment is not None else 0,
        )
        return Episodes(
            store,
            index,
            num_sources=train.num_sources,
            style=networks.landmarks,
            target=train.target,
            augment=augment,
            seed=seed,
            as_uint8=True,
            skip_damaged=True,
            window_px=networks.image_px if texture else None,
        )

    def _batches(self) -> Iterator[dict[str, Any]]:
        """This process' share of the batches, from the first episode that is not done."""
        workers = self.arguments.workers
        if workers is None:
            cores = (os.cpu_count() or 1) // self.world.local_size
            workers = min(8, max(1, cores)) if self.world.device.type == "cuda" else 1
        batches = loader(
            self.training,
            batch_size=self.preset.train.batch_size // self.world.size,
            num_workers=workers,
            start_episode=self.episodes,
            rank=self.world.rank,
            world_size=self.world.size,
            pin_memory=self.world.device.type == "cuda",
        )
        return iter(batches)

    # The loop.

    def go(self, signals: _Signals, progress: Callable[[int, int], None]) -> Outcome:
        """Step after step, until the end or a reason to stop."""
        trainer, arguments = self.trainer, self.arguments
        meter, saved = _Meter(), time.monotonic()
        batches = self._batches() if trainer.step < self.num_steps else iter(())
        if trainer.step == 0:
            self._validate()
        stop = False
        while trainer.step < self.num_steps and not stop:
            began = time.monotonic()
            batch = next(batches)
            wait_s = time.monotonic() - began
            stats = trainer.train_step(batch)
            now = time.monotonic()
            # Clocks and signals differ between processes: they do what any one of them wants.
            wishes = {
                "stop": float(signals.received is not None or now - self.started > 60 * (arguments.max_minutes or 1e9)),
                "save": float(now - saved > 60 * arguments.save_minutes),
            }
            seen = self._checked(stats, wishes)
            self.episodes += self.preset.train.batch_size
            self.seconds += time.monotonic() - began
            stop, save = seen.pop("stop") > 0, seen.pop("save") > 0
            meter.add(seen, self.preset.train.batch_size, wait_s)
            if self.world.first:
                progress(trainer.step, self.num_steps)
                if meter.elapsed_s > _LINE_EVERY_S:
                    self._tell(meter)
                    meter = _Meter()
            if trainer.step % arguments.val_every == 0 or trainer.step == self.num_steps:
                self._validate()
            if save:
                self._save()
                saved = time.monotonic()
        if self.world.first and meter.images:
            self._tell(meter)
        if self.saved_step != trainer.step:
            self._save()
        return Outcome(
            trainer.step,
            self.num_steps,
            signals.received,
            arguments.out / RELEASE_NAME,
            self.curve[-1] if self.curve else {},
        )

    def _checked(self, stats: Mapping[str, Tensor], wishes: Mapping[str, float]) -> dict[str, float]:
        """Means over processes, as numbers; one transfer for all of them.

        Raises:
            InputError: if one is not finite.
        """
        names = [*stats, *wishes]
        values = torch.stack(
            [
                *(value.float() for value in stats.values()),
                *(torch.tensor(v, device=self.world.device) for v in wishes.values()),
            ]
        )
        means = dict(zip(names, self.world.mean(values).tolist(), strict=True))
        bad = [name for name, value in means.items() if not np.isfinite(value)]
        if bad:
            kept = f"that of step {self.saved_step} is kept" if self.saved_step >= 0 else "none was saved before"
            raise InputError(
                f"step {self.trainer.step}: {bad[0]} is not finite; this state is not saved, {kept}. Give the same "
                "command to go on from there; if it happens again, train with --precision fp32."
            )
        return means

    def _tell(self, meter: _Meter) -> None:
        assert self.diary is not None
        means = {**meter.means(), "memory_gb": _memory_gb(self.world.device)}
        self.diary.numbers(self.trainer.step, {**means, "seconds": self.seconds})
        log.info("%s", _line(self.trainer.step, self.num_steps, means, self.preset.train))

    def _validate(self) -> None:
        """On the held-out clips; every process does the same."""
        values = self.trainer.validate(self.validation)
        self.curve.append({"step": self.trainer.step, "seconds": round(self.seconds, 1), **values})
        batch = {n: v[:_SHOWN] for n, v in self.validation[0].items() if isinstance(v, Tensor)}
        batch = self.trainer.on_device(batch)
        out = self.trainer.synthesise(batch)
        if self.diary is not None:
            self.diary.numbers(self.trainer.step, values, "val_")
            log.info("step %d  held-out: %s", self.trainer.step, ", ".join(f"{n} {v:.4g}" for n, v in values.items()))
            if values["embedding"] < _DEAD_EMBEDDING:
                log.warning(
                    "step %d: E says the same of everybody in all but %.1f %% of its numbers, so psi_hat tells G "
                    "little of the person; start anew with a smaller weight of L_MCH, or another --seed",
                    self.trainer.step,
                    100 * values["embedding"],
                )
            caption = f"synthetic - mimik training sample, step {self.trainer.step}"
            self.diary.grid(self.trainer.step, _grid(batch, out, caption))

    # States.

    def _save(self) -> None:
        random = [torch.get_rng_state()]
        if self.world.device.type == "cuda":
            random.append(torch.cuda.get_rng_state())
        randoms = self.world.gathered(random)
        state, released = self.trainer.state(), self.trainer.release_tensors()
        if self.lock is None:
            self.saved_step = self.trainer.step
            return
        state |= {
            "episodes": self.episodes,
            "seconds": self.seconds,
            "curve": self.curve,
            "random": randoms,
            "preset": preset_to_json(self.preset),
            "data": self.fingerprint,
            "seed": self.arguments.seed,
            "before": self.before,
        }
        checkpoint.write_state(self.arguments.out, state)
        if self.world.first:
            path = self.arguments.out / RELEASE_NAME
            checkpoint.write_release(path, released, self.preset, self._record())
        self.saved_step = self.trainer.step
        log.info("step %d  saved", self.trainer.step)

    def _load(self, state: Mapping[str, Any]) -> None:
        self.trainer.load_state(state)
        self.episodes, self.seconds, self.curve = state["episodes"], state["seconds"], list(state["curve"])
        self.before = state.get("before")
        if self.world.rank < len(state["random"]):
            cpu, *cuda = state["random"][self.world.rank]
            torch.set_rng_state(cpu)
            if cuda and self.world.device.type == "cuda":
                torch.cuda.set_rng_state(cuda[0])
        log.info("going on from step %d", self.trainer.step)

    def _record(self) -> dict[str, Any]:
        """What a release says of its training."""
        thin = self.curve[:: -(-len(self.curve) // _CURVE_POINTS)] if self.curve else []
        device = torch.cuda.get_device_name(self.world.device) if self.world.device.type == "cuda" else "cpu"
        return {
            "version": VERSION,
            "preset": self.arguments.preset,
            "steps": self.trainer.step,
            "episodes": self.episodes,
            "seconds": round(self.seconds, 1),
            "before": self.before,
            "device": device,
            "processes": self.world.size,
            "precision": self.trainer.precision,
            "torch": torch.__version__,
            "data": _description(self.index),
            "held_out": _description(self.held_out),
            "curve": thin + self.curve[-1:] if thin[-1:] != self.curve[-1:] else thin,
            "best": min(self.curve, key=lambda point: point["content"], default=None),
        }

    def _write_settings(self) -> None:
        """The run's settings, for people."""
        arguments = {name: value for name, value in dataclasses.asdict(self.arguments).items() if value is not None}
        text = {
            "arguments": arguments,
            "num_steps": self.num_steps,
            "preset": dataclasses.asdict(self.preset),
            "data": _description(self.index),
            "held_out": _description(self.held_out),
        }
        path = self.arguments.out / SETTINGS_NAME
        checkpoint.write_whole(path, (json.dumps(text, indent=2, default=str) + "\n").encode())

    def close(self) -> None:
        if self.diary is not None:
            self.diary.close()
        if self.lock is not None:
            self.lock.close()


def _fingerprint(index: Sequence[ClipInfo]) -> str:
    """Of the clips and their order, which is that of W's rows."""
    return hashlib.sha256("\n".join(clip.to_json() for clip in index).encode()).hexdigest()


def _description(index: Sequence[ClipInfo]) -> dict[str, Any]:
    """Of the clips; no name and no path."""
    return {
        "clips": len(index),
        "people": len({clip.person for clip in index}),
        "hours": round(sum(clip.num_frames / clip.fps for clip in index) / 3600, 3),
        "fingerprint": _fingerprint(index),
    }


# Without the command line of `mimik`.


def main() -> int:
    """`python -m mimik.training.meta_learning`: the options of `mimik train` without typer and rich."""
    parser = argparse.ArgumentParser(prog="python -m mimik.training.meta_learning", description=__doc__.splitlines()[0])
    hints = typing.get_type_hints(TrainArguments)
    for option in dataclasses.fields(TrainArguments):
        kind = next(iter(typing.get_args(hints[option.name])), hints[option.name])  # of `int | None`, int
        if kind is bool:
            settings: dict[str, Any] = {"action": "store_true"}
        else:
            required = option.default is dataclasses.MISSING
            settings = {"type": kind, "required": required, "default": None if required else option.default}
        parser.add_argument(f"--{option.name.replace('_', '-')}", help=option.metadata["help"], **settings)
    options = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        outcome = train(TrainArguments(**options))
    except InputError as error:
        log.error("mimik: %s", error)
        return 2
    return 128 + outcome.signal if outcome.signal else 0


if __name__ == "__main__":
    sys.exit(main())
