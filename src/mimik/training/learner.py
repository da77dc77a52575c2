"""The networks of one person and their training step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mimik.config import Preset
from mimik.data.episodes import Batch, each_tensor
from mimik.inference.avatar_file import most_neutral_face
from mimik.inference.windows import photo_windows, to_network_size
from mimik.networks import losses
from mimik.networks.features import content_network
from mimik.networks.generators import Generator, Networks, Synthesis
from mimik.pipeline import Progress, silent
from mimik.rendering.crop import CROP_SCALE, Crop
from mimik.training.pairs import Pairs, PreparedPhoto, image_planes
from mimik.training.photos import Deadline, Photo
from mimik.training.probes import Probes
from mimik.training.step import (
    DiscriminatorInputs,
    DiscriminatorStep,
    Ema,
    generator_terms,
    weighted_content_loss,
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyperparameters of fine-tuning; docs/fine-tuning.md has the trials."""

    lr_generator: float  # of G and psi'
    lr_discriminator: float  # of D and w'
    batch_size: int = 8  # at most; authors' code
    ema: float = 0.972  # of G and psi'; authors' code
    num_steps: int = 400  # at most
    probe_every: int = 10  # steps between probes
    patience: int = 3  # probes without improvement after which training stops ..
    min_gain: float = 0.004  # smallest increase of the score that counts as an improvement
    min_steps: int = 60  # .. but not earlier: in the paper's form identity first falls (docs/fine-tuning.md)

    @classmethod
    def of(cls, preset: Preset, *, from_scratch: bool = False) -> Recipe:
        """For networks of a preset."""
        rates = preset.train.lr_generator, preset.train.lr_discriminator  # paper: as in meta-learning
        if from_scratch:
            return cls(lr_generator=rates[0], lr_discriminator=rates[1], num_steps=4000, probe_every=100)
        if preset.networks.form == "texture":
            low, high = (_TEXTURE_RATE * rate for rate in rates)
            return cls(lr_generator=low, lr_discriminator=high, batch_size=_TEXTURE_BATCH, min_steps=0)
        return cls(lr_generator=rates[0], lr_discriminator=rates[1])


_NEAR_SCALE = 2 * CROP_SCALE  # face heights: with the square around a head that has moved
_TEXTURE_RATE = 0.4  # times the meta-learning rate: at 1 the held-out loss rose sooner (trial)
_TEXTURE_BATCH = 4  # half a second per step on two cores


_NO_ERROR = 1e-8  # added to both errors of a ratio
_KEPT = 16  # motion frames on which G is kept near its initial output, with one photo


class FineTunedGenerator(nn.Module):
    """G and psi', the parameters of one person."""

    def __init__(self, generator: Generator, psi: Tensor) -> None:
        """Args: psi: [1, 2 * features of all AdaIN layers], initial psi'."""
        super().__init__()
        self.G, self.psi = generator, nn.Parameter(psi.detach().clone())

    def forward(self, batch: Batch) -> Synthesis:
        return self.G(batch["y"], self.psi, batch.get("warped"), batch.get("geometry"), batch.get("interior"))


class Learner:
    """One person's networks, their optimizers, and the training step."""

    def __init__(
        self,
        preset: Preset,
        networks: Networks,
        photos: Sequence[Photo],
        recipe: Recipe,
        device: str,
        seed: int,
        deadline: Deadline = Deadline(),  # noqa: B008  frozen
        progress: Progress = silent,
    ) -> None:
        """Takes ownership of the networks.

        Args:
            preset, networks: of a release, or fresh ones.
            photos: of the person; the most neutral one is the source.
            device: "cpu" or "cuda".
            seed: of the random warps.
            deadline: near it, no further photo is warped for training.
            progress: called with the stage, the amount done and the total.

        Raises InputError if the weights of a content network are missing.
        """
        # Without E there is no L_MCH. Inputs are closer to their targets than in meta-learning: terms that pull the
        # texture form toward the uncorrected warp would make it unlearn its corrections.
        weights = dataclasses.replace(preset.losses, drawn=0.0, correction=0.0)
        train = dataclasses.replace(preset.train, variant="ff")
        self.preset = dataclasses.replace(preset, losses=weights, train=train)
        self.recipe, self.photos, self.device = recipe, photos, torch.device(device)
        self.chosen = most_neutral_face([photo.face for photo in photos])
        # Warps change a square around the head; larger photos would only be copied.
        near = [photo.part(Crop.around(photo.face.points, _NEAR_SCALE)) for photo in photos]
        self._shots = [PreparedPhoto.of(photo, preset) for photo in near]
        self._windows = x, y, _ = photo_windows(
            preset.networks, [photo.picture for photo in near], [photo.face.points for photo in near]
        )
        self.pairs = Pairs(self._shots, self._windows, preset, seed, deadline, progress)
        progress("loading networks", 0, None)
        for _, net in networks:
            net.to(self.device)
        with torch.no_grad():
            networks.E.eval(), networks.P.eval()
            read = image_planes(to_network_size(x, preset.networks))
            e_hat = networks.E(read[None].to(self.device), image_planes(y)[None].to(self.device)).mean(1)  # [1, N]
            psi, w = networks.P(e_hat), networks.D.personal_weight(e_hat[0])
        self.generator = FineTunedGenerator(networks.G, psi).train()
        self.discriminator_step = DiscriminatorStep(networks.D, w).train()
        self._ema = Ema(self.generator, recipe.ema)
        self.average = self._ema.average
        self.content = {
            name: content_network(name).to(self.device) for name, weight in preset.losses.content.items() if weight
        }
        # Not RAdam as in the authors' code: its warm-up is as long as the whole run, see docs/fine-tuning.md.
        adam: dict[str, Any] = {"betas": preset.train.betas, "eps": preset.train.eps}
        self._generator_adam = torch.optim.Adam(self.generator.parameters(), recipe.lr_generator, **adam)
        self._discriminator_adam = torch.optim.Adam(
            self.discriminator_step.parameters(), recipe.lr_discriminator, **adam
        )
        self._batches = self.pairs.batches(recipe.batch_size)
        self._kept: tuple[Batch, Synthesis] | None = None
        if preset.networks.form == "texture" and len(photos) == 1:
            with torch.no_grad():
                batch = self._moved(self.pairs.elsewhere(_KEPT))
                self._kept = batch, self.average(batch)
        self._rng = np.random.default_rng(seed)
        self._left_out = self.pairs.left_out()
        self._first_errors = self._errors()
        self.step = 0

    def _moved(self, batch: Batch) -> Batch:
        return each_tensor(batch, lambda value: value.to(self.device))

    @functools.cached_property
    def probes(self) -> Probes:
        x, _, points = self._windows
        return Probes(self._shots[self.chosen], x, points, self.preset)

    def train_step(self) -> dict[str, Tensor]:
        """One update of G and psi', and one of D and w'; returns the loss terms.

        With left-out photos, G is trained without D, because the errors on these photos are the criterion.
        """
        batch = self._moved(next(self._batches))
        self.discriminator_step.requires_grad_(False)
        out = self.generator(batch)
        if "where" in batch:
            batch["x"] = batch["where"] * batch["x"] + (1 - batch["where"]) * out.image.detach()
        terms = generator_terms(
            self.discriminator_step,
            self.content,
            self.preset,
            batch,
            out.image.new_zeros(0),
            out,
            adversarial=self._left_out is None,
        )
        if self._kept is not None:
            terms["kept"] = self._drift(*self._kept)
        self._update(torch.stack(list(terms.values())).sum(), self._generator_adam, self.generator)
        if self._left_out is None:
            self.discriminator_step.requires_grad_(True)
            inputs = DiscriminatorInputs.of(batch, out.image.detach())
            real, fake = self.discriminator_step(*inputs, batch["clip"]).chunk(2)
            terms["d_loss"] = losses.discriminator_loss(real, fake)
            self._update(terms["d_loss"], self._discriminator_adam, self.discriminator_step)
        self.step += 1
        self._ema.update(self.step)
        return {name: value.detach() for name, value in terms.items()}

    def _drift(self, batch: Batch, before: Synthesis) -> Tensor:
        """Weighted L1 between G's output and its initial output on motion frames without a photo."""
        at = torch.from_numpy(self._rng.choice(_KEPT, min(self.recipe.batch_size, _KEPT), replace=False))
        now, weights = self.generator(each_tensor(batch, lambda value: value[at])), self.preset.losses
        drawn = weights.synthesized * (now.synthesized - before.synthesized[at]).abs().mean()  # type: ignore[index]
        return weights.pixel * (now.image - before.image[at]).abs().mean() + drawn

    def _update(self, loss: Tensor, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), self.preset.train.clip_norm)
        optimizer.step()

    @torch.no_grad()
    def probe(self) -> tuple[float, float]:
        """Identity and motion fidelity of the average; see Point."""
        identity, motion_fidelity = self.probes.scores(self.average(self._moved(self.probes.batch)).image)
        if self.preset.networks.form == "paper":
            identity = (identity + self.appearance()) / 2
        return identity, motion_fidelity

    def _errors(self) -> Tensor:
        """[2] errors on left-out photos: L1 at eyes and mouth, and content loss; ones if there are none."""
        if self._left_out is None:
            return torch.ones(2)
        with torch.no_grad():
            batch = self._moved(self._left_out)
            x, x_hat = batch["x"], self.average(batch).image
            l1 = ((x_hat - x).abs() * batch["regions"] * batch["where"]).mean()
            return torch.stack([l1, weighted_content_loss(self.content, self.preset.losses, x, x_hat)]).cpu()

    def left_out(self) -> float | None:
        """Error on left-out photos, relative to the initial networks; None without such photos.

        The larger of two ratios, of L1 at eyes and mouth and of content loss: below 1 only if both improve.
        """
        if self._left_out is None:
            return None
        return float(((self._errors() + _NO_ERROR) / (self._first_errors + _NO_ERROR)).max())

    @torch.no_grad()
    def appearance(self) -> float:
        """Appearance score of the paper's form: how well the average reconstructs the photos' faces.

        1 - |x_hat - x| / |x - mean color| over the faces of at most 8 photos, at least 0. It complements dlib's
        embedding, which hardly depends on hair, skin, light and blur.
        """
        x, y, where = (value.to(self.device) for value in self.pairs.faces(8))
        x_hat = self.average({"y": y}).image
        mean = (x * where).sum((2, 3), keepdim=True) / where.sum((2, 3), keepdim=True)
        error, scale = (((x - other).abs() * where).sum() for other in (x_hat, mean))
        return float((1 - error / scale).clamp(min=0))

    def state(self) -> dict[str, NDArray[Any]]:
        """Tensors of the average, by their names in an avatar file."""
        return {name: value.cpu().numpy().copy() for name, value in self.average.state_dict().items()}
