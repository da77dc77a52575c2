"""Networks, optimizers and averages of one training process, and the step that updates them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mimik.config import Preset
from mimik.data.episodes import Batch, to_model_range
from mimik.networks import checkpoint, losses
from mimik.networks.features import FaceNet, content_network
from mimik.networks.generators import Networks, Synthesis, build_networks
from mimik.networks.landmark_net import LandmarkNet
from mimik.training.distributed import World, sharded_like, whole_on_cpu
from mimik.training.step import (
    DiscriminatorInputs,
    DiscriminatorStep,
    Ema,
    Synthesizer,
    generator_terms,
    landmark_distance,
    other_people,
    over_plate,
    weighted_content_loss,
)

log = logging.getLogger(__name__)

_IMAGES = ("x", "y", "x_s", "y_s", "warped", "plate")
_MASKS = ("regions", "interior", "matte")
_CALLS_BEFORE_CAPTURE = 3  # cuDNN chooses its algorithms, and memory is reserved


class CapturedStep:
    """A function of named tensors that is captured as a CUDA graph and replayed, to avoid launching single kernels.

    The first calls run the function normally. If it cannot be captured, all calls do, after a warning.
    """

    def __init__(self, function: Callable[[dict[str, Tensor]], dict[str, Tensor]], *, enabled: bool) -> None:
        """Args: function: of tensors with constant shapes; the next call overwrites its result."""
        self._function, self._enabled, self._calls = function, enabled, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: dict[str, Tensor] = {}
        self._made: dict[str, Tensor] = {}

    def __call__(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        self._calls += 1
        if not self._enabled:
            return self._function(given)
        if self._calls <= _CALLS_BEFORE_CAPTURE:
            stream = torch.cuda.Stream()  # a capture also has a separate stream
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                made = self._function(given)
            torch.cuda.current_stream().wait_stream(stream)
            return made
        if self._graph is None:
            try:
                self._capture(given)
            except RuntimeError as error:  # the type of all errors of CUDA and torch here
                self._enabled, self._graph, self._given, self._made = False, None, {}, {}
                log.warning("steps are not captured as a CUDA graph (%s); every kernel is launched separately", error)
                return self._function(given)
        assert self._graph is not None
        for name, value in self._given.items():
            value.copy_(given[name])
        self._graph.replay()
        return dict(self._made)

    def _capture(self, given: dict[str, Tensor]) -> None:
        self._given = {name: value.clone() for name, value in given.items()}
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # other threads load batches
            self._made = self._function(self._given)


class Trainer:
    """Networks, their optimizers and averages, and the training step."""

    def __init__(
        self,
        preset: Preset,
        num_videos: int,
        world: World,
        *,
        precision: str = "fp32",
        init: Networks | None = None,
        fresh: Collection[str] = (),
        people: Sequence[Batch] = (),
        fsdp: bool = False,
    ) -> None:
        """Build the networks, identical in all processes with the same torch seed.

        Args:
            preset: what to train.
            num_videos: training clips, rows of W.
            world: this process among all.
            precision: "fp32" or "bf16": of activations; weights are float32.
            init: initial weights of E, P, G and D, not of W.
            fresh: names of networks that are reinitialized instead.
            people: batches of loading.loader; if E or P is fresh, the mean of psi_hat over them is preserved.
            fsdp: shard weights, averages and optimizer states among the processes; else each process has full copies.

        Raises InputError if the weights of a content network are missing.
        """
        self.preset, self.world, self.precision = preset, world, precision
        self.networks = build_networks(preset.networks, num_videos)
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
            # On a CPU, channels_last makes E and D a fifth faster, but G's instance norms a fifth slower.
            last = (world.device.type == "cuda" or part in ("E", "D")) and not fsdp  # FSDP does not shard such tensors
            layout = torch.channels_last if last else torch.contiguous_format
            nn.Module.to(net, device=world.device, memory_format=layout)  # type: ignore[call-overload]
        if init is not None and {"E", "P"}.intersection(fresh):
            self._keep_mean(init, people)
        self.synthesizer = Synthesizer(self.networks.E, self.networks.P, self.networks.G)
        self.discriminator_step = DiscriminatorStep(self.networks.D)
        self.ema = Ema(self.synthesizer, preset.train.ema, grows=init is None or bool(fresh))
        if fsdp:
            for module in (self.synthesizer, self.discriminator_step, self.ema.average):
                fully_shard(module, reshard_after_forward=True)
            register_fsdp_forward_method(self.discriminator_step, "output")
        self._synthesize: nn.Module = self.synthesizer
        self._discriminate: nn.Module = self.discriminator_step
        if world.size > 1 and not fsdp:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self._synthesize = DistributedDataParallel(self.synthesizer, device_ids=ids, gradient_as_bucket_view=True)
            self._discriminate = DistributedDataParallel(
                self.discriminator_step, device_ids=ids, gradient_as_bucket_view=True
            )
        train = preset.train
        adam: dict[str, Any] = {"betas": train.betas, "eps": train.eps, "fused": True}
        self._generator_parameters = list(self.synthesizer.parameters())
        self._discriminator_parameters = list(self.discriminator_step.parameters())
        lr_embedder = train.lr_generator if train.lr_embedder is None else train.lr_embedder
        groups: list[dict[str, Any]] = [
            {"params": [*self.networks.E.parameters(), *self.networks.P.parameters()], "lr": lr_embedder},
            {"params": list(self.networks.G.parameters())},
        ]
        self.generator_adam = torch.optim.Adam(groups, train.lr_generator, **adam)
        self.discriminator_adam = torch.optim.Adam(self._discriminator_parameters, train.lr_discriminator, **adam)
        self.step = 0
        # The computations between optimizer steps, replayed as CUDA graphs if one process has one GPU.
        alone = world.size == 1 and world.device.type == "cuda"
        self._without, self._with_discriminator, self._discriminator_passes = (
            CapturedStep(function, enabled=alone)
            for function in (
                functools.partial(self._generator_passes, adversarial=False),
                functools.partial(self._generator_passes, adversarial=True),
                self._discriminator_gradients,
            )
        )

    @torch.no_grad()
    def _keep_mean(self, init: Networks, people: Sequence[Batch]) -> None:
        """Shifts P's bias so that the mean of psi_hat over people stays that of init.

        With another mean, G would first have to adapt, and the embedding would collapse meanwhile.
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

    def on_device(self, batch: Batch) -> Batch:
        """The tensors of a loader's batch that a step uses: images in [-1, 1], masks in 0..1."""
        moved: dict[str, Tensor] = {}
        for name in (*_IMAGES, "geometry", *_MASKS, "view", "chip", "face", "clip"):
            if name in batch:
                value = cast(dict[str, Tensor], batch)[name].to(self.world.device, non_blocking=True)
                value = to_model_range(value) if name in _IMAGES else value
                moved[name] = value.float() / 255 if name in _MASKS else value
        return cast(Batch, moved)

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of E, P and G and, from adversarial_from on, num_discriminator_updates of D; of a loader's batch.

        D's updates reuse the frames: x_hat is G's output before G's update. Each update costs one pass of D; new frames
        would also cost a pass of E, P and G.

        Returns:
            Scalars of this process: the loss terms of E, P and G, their sum "loss", its gradient norm before clipping;
            and D's loss, gradient norm and mean scores.
        """
        train = self.preset.train
        adversarial = self.step >= train.adversarial_from
        batch = self.on_device(batch)
        passes = self._with_discriminator if adversarial else self._without
        stats = passes(cast(dict[str, Tensor], batch))
        x_hat = stats.pop("x_hat")
        self.generator_adam.step()
        self.step += 1
        self.ema.update(self.step)
        for _ in range(train.num_discriminator_updates if adversarial else 0):
            stats |= self._discriminator_passes({**cast(dict[str, Tensor], batch), "x_hat": x_hat})
            self.discriminator_adam.step()
        return stats

    def _generator_passes(self, given: dict[str, Tensor], adversarial: bool) -> dict[str, Tensor]:
        """Gradients of E, P and G; returns the scalars of train_step, and x_hat."""
        batch = cast(Batch, given)
        for parameter in self._discriminator_parameters:
            parameter.requires_grad_(False)
        with self._autocast():
            e, out = self._synthesize(batch)
            terms = generator_terms(
                self.discriminator_step,
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
        norm = self._clip(self._generator_parameters)
        for parameter in self._discriminator_parameters:
            parameter.requires_grad_(True)
        stats = {**terms, "loss": loss, "gradient": norm, "x_hat": out.image}
        return {name: value.detach() for name, value in stats.items()}

    def _discriminator_gradients(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gradients of D for one update; given: a batch from on_device, with x_hat."""
        seen = DiscriminatorInputs.of(cast(Batch, given), given["x_hat"])
        with self._autocast():
            score = self._discriminate(*seen, given["clip"])
        real, fake = score.chunk(2)
        loss = losses.discriminator_loss(real, fake)
        self.discriminator_adam.zero_grad()
        loss.backward()
        norm = self._clip(self._discriminator_parameters)
        stats = {"d_loss": loss, "d_gradient": norm, "d_real": real.mean(), "d_fake": fake.mean()}
        return {name: value.detach() for name, value in stats.items()}

    def _clip(self, parameters: Sequence[Tensor]) -> Tensor:
        """Clip the gradient norm; returns the norm before clipping."""
        norm = nn.utils.clip_grad_norm_(parameters, self.preset.train.clip_norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    @torch.no_grad()
    def synthesize(self, batch: Batch) -> Synthesis:
        """Output of the averaged E, P and G for a batch from on_device."""
        with self._autocast():
            return self.ema.average(batch)[1]

    @torch.no_grad()
    def validate(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Content loss, mean L1 in [-1, 1] and, if trained, landmark distance of the averages.

        L1 and landmarks are also measured on the uncorrected warped photo, if there is one. "content_stranger" is the
        content loss with psi_hat of another person: equal to "content" if G does not depend on psi_hat. "embedding" is
        the share of E's N outputs that differ between people: 0 if the embedding has collapsed. In the texture form the
        content networks take only whole frames.

        Args: batches: of loading.loader, with person.
        """
        sums: dict[str, float] = {}
        e_hats = []
        for given in batches:
            batch = self.on_device(given)
            if "view" in batch:
                batch["view"] = torch.full_like(batch["view"], -1)
            others = other_people(given["person"]).to(self.world.device)
            with self._autocast():
                e, out = self.ema.average(batch)
                _, swapped = self.ema.average({**batch, "x_s": batch["x_s"][others], "y_s": batch["y_s"][others]})
            e_hats.append(e.float().mean(1))
            x, x_hat = batch["x"], out.image
            values = {}
            for name, image in (("content", x_hat), ("content_stranger", swapped.image)):
                seen = DiscriminatorInputs.of(batch, image)
                with self._autocast():
                    values[name] = weighted_content_loss(self.content, self.preset.losses, seen.x, seen.x_hat)
            values["l1"] = (x_hat.float() - x).abs().mean()
            warped = over_plate(Synthesis(batch["warped"]), batch).image if "warped" in batch else None
            if warped is not None:
                values["l1_warped"] = (warped - x).abs().mean()
            if self.landmarks is not None:
                values["landmarks"] = landmark_distance(self.landmarks, batch, x_hat)
                if warped is not None:
                    values["landmarks_warped"] = landmark_distance(self.landmarks, batch, warped)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(x)
        count = sum(len(batch["x"]) for batch in batches)
        e_hat = torch.cat(e_hats)
        differs = (e_hat != e_hat[:1]).any(0).float().mean().item()
        return {**{name: value / count for name, value in sums.items()}, "embedding": differs}

    def release_tensors(self) -> dict[str, Tensor]:
        """The averages of E, P and G, with D, unsharded on the CPU; a collective call."""
        average = self.ema.average
        networks = Networks(self.preset.networks, average.E, average.P, average.G, self.networks.D)
        return whole_on_cpu(checkpoint.release_tensors(networks))

    def _parts(self) -> dict[str, Any]:
        return {
            "synthesiser": self.synthesizer,  # name in the state files of all versions
            "judge": self.discriminator_step,
            "average": self.ema.average,
            "generator_adam": self.generator_adam,
            "discriminator_adam": self.discriminator_adam,
        }

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on except the data, unsharded on the CPU; a collective call.

        It does not depend on the number of processes.
        """
        return {
            "step": self.step,
            "grows": self.ema.grows,
            **{name: whole_on_cpu(part.state_dict()) for name, part in self._parts().items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores a state of the same preset and number of clips."""
        self.step, self.ema.grows = state["step"], state.get("grows", True)
        for name, part in self._parts().items():
            values = state[name]
            if isinstance(part, torch.optim.Optimizer):
                parameters = [p for group in part.param_groups for p in group["params"]]
                moments = {
                    i: {
                        key: value if key == "step" else sharded_like(value, parameters[i])
                        for key, value in slots.items()
                    }
                    for i, slots in values["state"].items()
                }
                part.load_state_dict({**values, "state": moments})
            else:
                own = part.state_dict()
                part.load_state_dict({key: sharded_like(value, own[key]) for key, value in values.items()})
