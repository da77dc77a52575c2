"""One training step: E, P and G as one module, D's forward passes, and the loss terms."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from torch import Tensor, nn

from mimik.config import LossWeights, Preset
from mimik.data.episodes import Batch
from mimik.face import landmarks as face
from mimik.networks import losses
from mimik.networks.features import ContentNetwork, FaceNet, chips
from mimik.networks.generators import (
    Discriminator,
    Embedder,
    Generator,
    Projection,
    Synthesis,
    apply_correction,
    view_frames,
)
from mimik.networks.landmark_net import LandmarkNet

Averaged = TypeVar("Averaged", bound=nn.Module)


class Synthesizer(nn.Module):
    """E, P and G as one module: the sources' embeddings and the synthesized target."""

    def __init__(self, embedder: Embedder, projection: Projection, generator: Generator) -> None:
        super().__init__()
        self.E, self.P, self.G = embedder, projection, generator

    def forward(self, batch: Batch) -> tuple[Tensor, Synthesis]:
        """Returns: e [B, K, N], and G's output for their mean."""
        e = self.E(batch["x_s"], batch["y_s"])
        psi_hat = self.P(e.mean(1))
        out = self.G(batch["y"], psi_hat, batch.get("warped"), batch.get("geometry"), batch.get("interior"))
        return e.clone(), over_plate(out, batch)  # not a view: FSDP registers its hook on it


def over_plate(out: Synthesis, batch: Batch) -> Synthesis:
    """G's output composited over the still background, if the batch has one; the flow correction moves the matte."""
    matte = batch.get("matte")
    if matte is None:
        return out
    if out.correction is not None:
        matte = apply_correction(matte, out.correction.float())
    image, synthesized = (
        None if frame is None else torch.lerp(batch["plate"], frame.float(), matte)
        for frame in (out.image, out.synthesized)
    )
    assert image is not None
    return out._replace(image=image, synthesized=synthesized)


class DiscriminatorOutput(NamedTuple):
    """D's outputs for the update of E, P and G."""

    score: Tensor  # [B] r of the fake frames
    fake_acts: list[Tensor]  # D's activations for the fake and the real frames
    real_acts: list[Tensor]  # D's activations for the fake and the real frames
    rows: Tensor  # [B, N] W_i of their videos, or [1, N] w'


class DiscriminatorStep(nn.Module):
    """D's forward passes, for its update and for the update of E, P and G."""

    def __init__(self, discriminator: Discriminator, w: Tensor | None = None) -> None:
        """Args: w: [N], initial w' of one person, which takes the place of w0 + W_i in fine-tuning."""
        super().__init__()
        self.D = discriminator
        self.w = None if w is None else nn.Parameter(w.detach().clone())

    def _judged(self, x: Tensor, y: Tensor, video: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.D(x, y, video) if self.w is None else self.D(x, y, w=self.w)

    def forward(self, x: Tensor, x_hat: Tensor, y: Tensor, video: Tensor) -> Tensor:
        """Scores [2 B] of the real frames, then of the fake ones.

        One pass, because D processes items independently, and DDP requires one forward pass per backward pass.
        """
        score, _ = self._judged(torch.cat([x, x_hat]), torch.cat([y, y]), torch.cat([video, video]))
        return score.float()

    def output(self, x: Tensor, x_hat: Tensor, y: Tensor, video: Tensor) -> DiscriminatorOutput:
        """Gradients reach only x_hat if D's parameters require none."""
        score, fake_acts = self._judged(x_hat, y, video)
        with torch.no_grad():
            _, real_acts = self._judged(x, y, video)
            rows = self.D.W(video) if self.w is None else self.w[None]
        return DiscriminatorOutput(score.float(), fake_acts, real_acts, rows)


class Ema(Generic[Averaged]):
    """Moving averages of E, P and G, or of a person's G and psi'.

    The weight of the old average grows from 0.1 to `decay`, so that the initial weights decay quickly. It is constant
    if these come from a release, which is an average already. Buffers, the vectors of spectral norm, are copied from
    the live network: they fit the averaged weights better than averaged buffers.
    """

    def __init__(self, live: Averaged, decay: float, *, grows: bool = True) -> None:
        self.live, self.decay, self.grows = live, decay, grows
        self.average = copy.deepcopy(live).eval().requires_grad_(False)

    @functools.cached_property
    def _tensors(self) -> list[list[Tensor]]:
        """Parameters and buffers of both; cached, because listing them takes 10 % of a small network's step."""
        networks = self.average, self.live
        return [*(list[Tensor](net.parameters()) for net in networks), *(list(net.buffers()) for net in networks)]

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Call after each step with the number of steps so far."""
        decay = min(self.decay, num_updates / (9 + num_updates)) if self.grows else self.decay
        kept, live, kept_buffers, live_buffers = self._tensors
        torch._foreach_lerp_(kept, live, 1 - decay)
        torch._foreach_copy_(kept_buffers, live_buffers)


class DiscriminatorInputs(NamedTuple):
    """Inputs of D and the content networks: real and fake frames and their landmark images, of equal size.

    Paper's form: the frames themselves. Texture form: the downsampled frame, or a crop of it (D14).
    """

    x: Tensor
    x_hat: Tensor
    y: Tensor

    @classmethod
    def of(cls, batch: Batch, x_hat: Tensor) -> DiscriminatorInputs:
        view = batch.get("view")
        if view is None:
            return cls(batch["x"], x_hat, batch["y"])
        y = F.interpolate(batch["y"], scale_factor=2, mode="bilinear")
        return cls(view_frames(batch["x"], view), view_frames(x_hat, view), view_frames(y, view))


def weighted_content_loss(
    content: Mapping[str, ContentNetwork], weights: LossWeights, x: Tensor, x_hat: Tensor
) -> Tensor:
    """L_CNT: the weighted sum over networks."""
    total = torch.zeros((), device=x.device)
    for name, network in content.items():
        with torch.no_grad():
            real = network(x)
        distance = losses.content_loss(real, network(x_hat), network.layer_weights)
        total = total + weights.content[name] * distance.float()
    return total


def landmark_distance(landmarks: LandmarkNet, batch: Batch, x_hat: Tensor) -> Tensor:
    """The unweighted landmark term."""
    with torch.autocast(x_hat.device.type, enabled=False):  # bf16 shifts the points by 2 pixels
        with torch.no_grad():
            points = landmarks.find(batch["x"], batch["face"])
        points_hat = landmarks.find(x_hat.float(), batch["face"])
    return losses.landmark_loss(points[:, face.EXPRESSIVE, :2], points_hat[:, face.EXPRESSIVE, :2])


def other_people(person: Tensor) -> Tensor:
    """Index of the next item with another person, or of the item itself if there is none: [B] int64 -> [B] int64."""
    count = len(person)
    found = torch.arange(count)
    for step in range(count - 1, 0, -1):
        item = (torch.arange(count) + step) % count
        found = torch.where(person.cpu()[item] != person.cpu(), item, found)
    return found


def generator_terms(
    discriminator_step: DiscriminatorStep,
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
    """Weighted loss terms of E, P and G; terms of weight 0 are omitted.

    Args:
        discriminator_step: D, whose parameters must not require gradients.
        content: frozen networks of L_CNT by name.
        preset: weights, and the variant: ff has no match term.
        batch: on the device; images in [-1, 1], masks in 0..1.
        e: [B, K, N] embeddings of the sources.
        out: G's output.
        adversarial: whether D is used; without it there is no L_ADV and no L_MCH, whose target is W.
        identity: frozen network of the identity term, with chip [B, 2, 3] in the batch.
        landmarks: network of the landmark term, with face [B, 2, 3] in the batch.
    """
    weights, x, x_hat = preset.losses, batch["x"], out.image
    seen = DiscriminatorInputs.of(batch, x_hat)
    terms = {"content": weighted_content_loss(content, weights, seen.x, seen.x_hat)}
    if identity is not None:
        with torch.no_grad():
            e_x = identity(chips(x, batch["chip"])).float()
        e_x_hat = identity(chips(x_hat.float(), batch["chip"])).float()
        terms["identity"] = weights.identity * losses.identity_loss(e_x, e_x_hat)
    if landmarks is not None:
        terms["landmarks"] = weights.landmarks * landmark_distance(landmarks, batch, x_hat)
    if weights.pixel:
        terms["pixel"] = weights.pixel * losses.pixel_loss(x_hat.float(), x, batch["regions"])
    if out.synthesized is not None and weights.synthesized:
        terms["synthesized"] = weights.synthesized * losses.pixel_loss(out.synthesized.float(), x, batch["regions"])
    if out.mask is not None and weights.drawn:
        terms["drawn"] = weights.drawn * (1 - out.mask.float()).mean()
    if out.correction is not None and weights.correction:
        px = batch["y"].shape[3]
        terms["correction"] = weights.correction * (out.correction.float() * px).square().mean()  # in pixels of y
    if adversarial:
        output = discriminator_step.output(*seen, batch["clip"])
        terms["adversarial"] = weights.adversarial * losses.adversarial_loss(output.score)
        distance = losses.feature_matching_loss(
            output.fake_acts, output.real_acts, over_layers=weights.feature_matching_over
        )
        terms["feature_matching"] = weights.feature_matching * distance.float()
        if preset.train.variant == "ft":
            terms["match"] = weights.match * losses.match_loss(e.float(), output.rows)
    return terms
