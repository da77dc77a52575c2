"""One step of training: E, P and G as one module, D as its loss needs it, and the terms that they minimize."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from torch import Tensor, nn

from mimik.config import LossWeights, Preset
from mimik.face import landmarks as face
from mimik.networks import losses
from mimik.networks.features import ContentNetwork, FaceNet, chips
from mimik.networks.generators import Discriminator, Embedder, Generator, Projection, Synthesis, look
from mimik.networks.landmark_net import LandmarkNet

Batch = Mapping[str, Tensor]


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


def weighted_content_loss(
    content: Mapping[str, ContentNetwork], weights: LossWeights, x: Tensor, x_hat: Tensor
) -> Tensor:
    """L_CNT: the sum over networks, each times its weight."""
    total = torch.zeros((), device=x.device)
    for name, network in content.items():
        with torch.no_grad():
            real = network(x)
        distance = losses.content_loss(real, network(x_hat), network.layer_weights)
        total = total + weights.content[name] * distance.float()
    return total


def landmark_distance(landmarks: LandmarkNet, batch: Batch, x_hat: Tensor) -> Tensor:
    """The landmark term without its weight."""
    with torch.autocast(x_hat.device.type, enabled=False):  # bf16 would move the points by 2 pixels
        with torch.no_grad():
            points = landmarks.find(batch["x"], batch["face"])
        points_hat = landmarks.find(x_hat.float(), batch["face"])
    return losses.landmark_loss(points[:, face.EXPRESSIVE, :2], points_hat[:, face.EXPRESSIVE, :2])


def other_people(person: Tensor) -> Tensor:
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
