"""The paper's networks: embedder E, projection P, generator G and projection discriminator D.

Zakharov et al. 2019 (arXiv:1905.08233v2), with details from the authors' later code; docs/paper.md states the source of
each detail and numbers the deviations D1, D2, .. Images are float32 [B, 3, H, W] in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from torch import Tensor, nn

from mimik.config import FORMS, NetworkConfig
from mimik.networks.blocks import (
    AdaIN,
    ResidualBlock,
    attention_or_identity,
    block_widths,
    check_image_px,
    down_blocks,
    num_down_blocks,
    spectral_conv,
    spectral_linear,
)
from mimik.networks.release import ATTENTION_DOWN, ATTENTION_UP, MAX_CORRECTION
from mimik.rendering.flow import NUM_GEOMETRY
from mimik.rendering.painters import SHADE_PX

W_RANGE = 0.1  # W starts uniform in -0.1 .. 0.1; authors' code
NUM_GENERATOR_BLOCKS = 4  # of G down, the same between, the same up: 256 -> 16 -> 256; authors' code
_TEXTURE_BLOCKS = 3  # of the texture form down, and up: 128 px, taken as 64 px of 2x2, to 8 px
_FINE_CHANNELS = 16  # of the texture form at image_px, before the residual at twice that size


class Embedder(nn.Module):
    """E: embedding of the person in a frame, independent of pose and expression."""

    def __init__(
        self,
        image_px: int = 256,
        *,
        min_channels: int = 64,
        max_channels: int = 512,
        embedding_dim: int = 512,
        attention: bool = False,
    ) -> None:
        """Builds the down blocks from image_px to 4 px (D9).

        Args:
            image_px: side of the frames; a power of two.
            min_channels, max_channels: after the first block and at most; 64 and 512 in the paper.
            embedding_dim: N.
            attention: whether there is self-attention at image_px / 8 (D1).

        Raises ValueError on another image_px.
        """
        super().__init__()
        check_image_px(image_px)
        widths = block_widths(num_down_blocks(image_px), min_channels, max_channels)
        widths[-1] = embedding_dim
        self.down = down_blocks(6, widths)
        self.attention = attention_or_identity(widths[ATTENTION_DOWN - 1], attention)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Embeddings [B, K, N], >= 0, of single frames; their mean over K, `E(x, y).mean(1)`, is e_hat.

        Args: x, y: [B, K, 3, H, W] frames and their landmark images.
        """
        return self.embed(x.flatten(0, 1), y.flatten(0, 1)).unflatten(0, x.shape[:2])

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """forward for frames that are not grouped by person: [B, 3, H, W] both -> [B, N]."""
        h = torch.cat([y, x], dim=1)  # -> [B, 6, 256, 256]
        for number, block in enumerate(self.down, start=1):
            h = block(h)  # -> [B, 64, 128, 128] .. [B, N, 4, 4]
            if number == ATTENTION_DOWN:
                h = self.attention(h)
        return h.relu().sum((2, 3))  # -> [B, N]


class Projection(nn.Module):
    """P: maps e_hat to psi_hat, the biases and scales of G's AdaIN layers.

    psi_hat holds, for one layer after the other, the biases and then the scales. In the paper P is a matrix; here, as
    in the authors' code, it has a bias (D4).
    """

    def __init__(self, embedding_dim: int, num_features: int) -> None:
        """Args: num_features: of all AdaIN layers together, sum(Generator.adain_sizes); each has a bias and a scale."""
        super().__init__()
        self.linear = spectral_linear(embedding_dim, 2 * num_features)

    def forward(self, e_hat: Tensor) -> Tensor:
        """[B, N] e_hat -> [B, 2 * num_features] psi_hat, 13056 numbers at the paper's size."""
        return self.linear(e_hat)


class Synthesis(NamedTuple):
    """A synthesized frame; the other fields are set by the texture form and None for the paper's."""

    image: Tensor  # [B, 3, H, W] x_hat in [-1, 1]; of the texture form [B, 3, 2 H, 2 W] (D14)
    synthesized: Tensor | None = None  # [B, 3, 2 H, 2 W] RGB, the corrected warp plus the residual
    mask: Tensor | None = None  # [B, 1, 2 H, 2 W] m in 0..1: x_hat = m * corrected + (1 - m) * synthesized
    # [B, 2, H / 2, W / 2] x and y, in sides of the frame: pixel p of the corrected warp is the warped photo's at p +
    # correction(p)
    correction: Tensor | None = None


def apply_correction(image: Tensor, correction: Tensor) -> Tensor:
    """Sample the image [B, C, H, W] at p + correction(p) for each pixel p; the border is replicated.

    Args: correction: [B, 2, h, w] x and y in sides of the image.
    """
    height, width = image.shape[2:]
    offset = F.interpolate(correction, size=(height, width), mode="bilinear").permute(0, 2, 3, 1)  # -> [B, H, W, 2]
    x = (torch.arange(width, device=image.device, dtype=image.dtype) * 2 + 1) / width - 1
    y = (torch.arange(height, device=image.device, dtype=image.dtype) * 2 + 1) / height - 1
    base = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    return F.grid_sample(image, base + 2 * offset, padding_mode="border", align_corners=False)


def shade_only(residual: Tensor, interior: Tensor) -> Tensor:
    """Remove detail finer than SHADE_PX from the residual inside the mouth, where the flow is not corrected (D18).

    The layers behind the lips contain single teeth, which a residual trained on few pixels would blur; it may only
    change their brightness and color.

    Args:
        residual: [B, 3, 2 H, 2 W].
        interior: [B, 1, 2 H, 2 W] 0..1, 1 inside the mouth (landmark_images.mouth_interior).
    """
    coarse = F.interpolate(F.avg_pool2d(residual, SHADE_PX), scale_factor=SHADE_PX, mode="bilinear")
    return residual + interior * (coarse - residual)


def view_frames(images: Tensor, view: Tensor) -> Tensor:
    """Inputs of D and the content networks, from frames of twice their size (D14).

    Args:
        images: [B, C, 2 H, 2 W].
        view: [B, 2] int64: top and left of a crop of [H, W] pixels; both negative: the whole frame, downsampled.

    Returns:
        [B, C, H, W].
    """
    batch, channels, height, width = images.shape[0], images.shape[1], images.shape[2] // 2, images.shape[3] // 2
    top, left = view.to(images.device).clamp(min=0).unbind(1)
    rows = top[:, None] + torch.arange(height, device=images.device)  # [B, H]
    columns = left[:, None] + torch.arange(width, device=images.device)  # [B, W]
    part = images.gather(2, rows[:, None, :, None].expand(batch, channels, height, 2 * width))
    part = part.gather(3, columns[:, None, None, :].expand(batch, channels, height, width))
    whole = (view.to(images.device)[:, 0] < 0)[:, None, None, None]
    return torch.where(whole, F.avg_pool2d(images, 2), part)


class Generator(nn.Module):
    """G: synthesizes the person of psi_hat with the pose and expression of a landmark image.

    psi_hat is an argument: P e_hat in meta-learning, the parameter psi' initialized with it in fine-tuning, and a
    constant in an exported model.

    The texture form also takes the photo, warped by the landmark flow, and corrects it with a flow correction, a
    residual and a mask. Its input is image_px wide, as 2x2 pixels per position, with skip connections from the way down
    to the way up. It composes frames of twice that size, so that copied pixels keep their detail. It is initialized as
    the identity: untrained, it returns the warped photo.

    Attributes:
        form: "paper" or "texture".
        adain_sizes: features of each AdaIN layer, in the order in which psi_hat holds them.
    """

    def __init__(
        self,
        image_px: int = 256,
        *,
        form: str = "paper",
        min_channels: int = 64,
        max_channels: int = 512,
        attention: bool = False,
    ) -> None:
        """Builds 4 blocks down, 4 between, 4 up, at every image_px (D9); 3, 4, 3 for the texture form.

        Args:
            form: "paper" or "texture"; ValueError on another one.
            attention: whether there is self-attention at image_px / 8 on the way down, image_px / 4 on the way up (D1).
            image_px, min_channels, max_channels: as Embedder takes them.
        """
        super().__init__()
        check_image_px(image_px)
        if form not in FORMS:
            raise ValueError(f"form {form!r}: use one of {', '.join(FORMS)}.")
        self.form = form
        texture = form == "texture"
        widths = block_widths(_TEXTURE_BLOCKS if texture else NUM_GENERATOR_BLOCKS, min_channels, max_channels)
        self.down = down_blocks(4 * 6 + NUM_GEOMETRY if texture else 3, widths, norm="instance")
        self.attention_down = attention_or_identity(widths[ATTENTION_DOWN - 1], attention)

        middle = [(widths[-1], widths[-1])] * NUM_GENERATOR_BLOCKS
        self.middle = nn.ModuleList(ResidualBlock(*pair, norm="adain") for pair in middle)
        up = list(zip([widths[-1], *widths[:0:-1]], widths[::-1], strict=True))
        self.up = nn.ModuleList(ResidualBlock(*pair, norm="adain", resample="up") for pair in up)
        self.attention_up = attention_or_identity(up[ATTENTION_UP - 1][1], attention)

        self.last_norm = AdaIN()
        self.adain_sizes = (*(size for pair in (*middle, *up) for size in pair), widths[0])
        if texture:
            # Skip connections to each up block: from before the middle, and from each down block but the last.
            self.across = nn.ModuleList(
                spectral_conv(width, size, 1) for width, (size, _) in zip(widths[::-1], up, strict=True)
            )
            self.to_flow = nn.Conv2d(widths[0], 2 + 1, 3, padding=1)  # and mask
            self.to_fine = spectral_conv(widths[0], 4 * _FINE_CHANNELS, 3)
            self.to_picture = nn.Conv2d(_FINE_CHANNELS, 4 * 3, 3, padding=1)
            for parameter in (*self.to_flow.parameters(), *self.to_picture.parameters()):
                nn.init.zeros_(parameter)
        else:
            self.to_image = spectral_conv(widths[0], 3, 3)

    def forward(
        self,
        y: Tensor,
        psi_hat: Tensor,
        warped: Tensor | None = None,
        geometry: Tensor | None = None,
        interior: Tensor | None = None,
    ) -> Synthesis:
        """Synthesizes the frame x_hat.

        Args:
            y: [B, 3, H, W] landmark image.
            psi_hat: [B, 2 * sum(adain_sizes)]; [1, ..] serves the whole batch.
            warped: texture form: [B, 3, 2 H, 2 W] the photo warped to the same landmarks, in [-1, 1].
            geometry: texture form: [B, NUM_GEOMETRY, H / 2, W / 2] maps of the warp.
            interior: texture form: [B, 1, 2 H, 2 W] 0..1, mask of the inner mouth; None if it is closed.

        Raises ValueError if the texture form lacks the warped photo, or the paper's form is given one.
        """
        if (warped is None or geometry is None) == (self.form == "texture"):
            raise ValueError("The texture form needs the warped photo and its geometry; the paper's takes neither.")
        if warped is None or geometry is None:
            return Synthesis(self.to_image(self._features(y, psi_hat)).tanh())
        correction, residual, mask = self.predict(y, psi_hat, F.avg_pool2d(warped, 2), geometry)
        if interior is not None:
            residual = shade_only(residual, interior)
            correction = correction * (1 - F.avg_pool2d(interior, interior.shape[-1] // correction.shape[-1]))
        corrected = apply_correction(warped, correction)
        synthesized = (corrected + residual).clamp(-1, 1)
        mask = F.interpolate(mask, scale_factor=4, mode="bilinear")
        return Synthesis(mask * corrected + (1 - mask) * synthesized, synthesized, mask, correction)

    def predict(self, y: Tensor, psi_hat: Tensor, warped: Tensor, geometry: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The prediction of the texture form, without applying it, and thus without grid_sample.

        Args: as of forward, except warped: [B, 3, H, W], half as large.

        Returns:
            Flow correction [B, 2, H / 2, W / 2]; residual [B, 3, 2 H, 2 W]; mask [B, 1, H / 2, W / 2], smooth enough
            to be upsampled.
        """
        h = torch.cat([F.pixel_unshuffle(torch.cat([y, warped], 1), 2), geometry], 1)  # -> [B, 28, H / 2, W / 2]
        h = self._features(h, psi_hat)
        flow = self.to_flow(h)
        fine = F.pixel_shuffle(self.to_fine(h), 2).relu()  # -> [B, 16, H, W]
        residual = F.pixel_shuffle(self.to_picture(fine), 2)  # -> [B, 3, 2 H, 2 W]
        return MAX_CORRECTION * flow[:, :2].tanh(), 2 * (residual / 2).tanh(), flow[:, 2:].sigmoid()

    def _features(self, h: Tensor, psi_hat: Tensor) -> Tensor:
        """Input of the last convolution: [B, C, H, W] -> [B, widths[0], H, W]."""
        psi = psi_hat.split([size for size in self.adain_sizes for _ in ("bias", "scale")], dim=1)
        seen = []
        for number, block in enumerate(self.down, start=1):
            h = block(h)  # [B, 3, 256, 256] -> [B, 64, 128, 128] .. [B, 512, 16, 16]
            if number == ATTENTION_DOWN:
                h = self.attention_down(h)
            seen.append(h)
        for number, block in enumerate(self.middle):
            h = block(h, psi[4 * number : 4 * number + 4])  # -> [B, 512, 16, 16]
        psi = psi[4 * len(self.middle) :]
        for number, block in enumerate(self.up, start=1):
            if self.form == "texture":
                h = h + self.across[number - 1](seen[-number])
            h = block(h, psi[4 * number - 4 : 4 * number])  # -> [B, 512, 32, 32] .. [B, 64, 256, 256]
            if number == ATTENTION_UP:
                h = self.attention_up(h)
        return self.last_norm(h, *psi[-2:]).relu()


class Discriminator(nn.Module):
    """D: projection discriminator of real and fake frames, given landmarks and video; V is all but the last line.

    r = V(x, y)^T (W_i + w0) + b. W holds one vector for each training video, as rows where the paper has columns, and
    has no spectral norm (D5).
    """

    def __init__(
        self,
        num_videos: int,
        image_px: int = 256,
        *,
        min_channels: int = 64,
        max_channels: int = 512,
        embedding_dim: int = 512,
        attention: bool = False,
    ) -> None:
        """Builds the down blocks from image_px to 4 px (D9), and one residual block at 4 px.

        Args: num_videos: rows of W; the others as Embedder takes them, with the same embedding_dim.
        """
        super().__init__()
        check_image_px(image_px)
        widths = block_widths(num_down_blocks(image_px), min_channels, max_channels)
        self.down = down_blocks(6, widths)
        self.attention = attention_or_identity(widths[ATTENTION_DOWN - 1], attention)
        self.residual = ResidualBlock(widths[-1], embedding_dim)
        self.linear = spectral_linear(embedding_dim, 1)  # w0 and b
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(layer.get_parameter("parametrizations.weight.original"))  # D15
                with torch.no_grad():
                    _ = layer.weight  # a power iteration: spectral norm's vectors are still those of the old weight
        self.W = nn.Embedding(num_videos, embedding_dim)
        nn.init.uniform_(self.W.weight, -W_RANGE, W_RANGE)

    def personal_weight(self, e_hat: Tensor) -> Tensor:
        """w' = w0 + e_hat: initial weight in fine-tuning, for a person without a row in W (D6).

        Args: e_hat: [B, N] or [N], mean over the photos' embeddings. Gradients reach it and w0.
        """
        return self.linear.weight[0] + e_hat

    def forward(
        self, x: Tensor, y: Tensor, video: Tensor | None = None, *, w: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Realism score and activations.

        Args:
            x: [B, 3, H, W] frames, real or fake.
            y: [B, 3, H, W] landmark images.
            video: [B] int64, i: the weight is w0 + W_i.
            w: [B, N] or [N], the whole weight instead: w' of a person without a row in W.

        Returns:
            r [B], unbounded, higher is more real; and the output of every residual block, for L_FM, 7 for 256 px.

        Raises:
            ValueError: unless exactly one of video and w is given.
        """
        if (video is None) == (w is None):
            raise ValueError("Give D either video, the rows of W, or w, the weight of another person.")
        acts = []
        h = torch.cat([y, x], dim=1)  # -> [B, 6, 256, 256]
        for number, block in enumerate(self.down, start=1):
            h = block(h)  # -> [B, 64, 128, 128] .. [B, 512, 4, 4]
            acts.append(h)
            if number == ATTENTION_DOWN:
                h = self.attention(h)
        h = self.residual(h)  # -> [B, N, 4, 4]
        acts.append(h)
        v = h.relu().sum((2, 3))  # -> [B, N]
        if w is None:
            w = self.personal_weight(self.W(video))  # [B] -> [B, N]
        return (v * w).sum(1) + self.linear.bias, acts  # -> [B]


@dataclass
class Networks:
    """E, P, G and D of one configuration."""

    config: NetworkConfig
    E: Embedder
    P: Projection
    G: Generator
    D: Discriminator

    def __iter__(self) -> Iterator[tuple[str, nn.Module]]:
        """Names and networks, in the order E, P, G, D."""
        return iter((("E", self.E), ("P", self.P), ("G", self.G), ("D", self.D)))


def build_networks(config: NetworkConfig, num_videos: int) -> Networks:
    """The networks of a preset, randomly initialized; num_videos: rows of D's W, 0 if they are only fine-tuned."""
    common = {"attention": config.attention}
    (e_min, e_max), (g_min, g_max) = config.embedder_channels, config.generator_channels
    d_min, d_max = config.discriminator_channels
    n, px = config.embedding_dim, config.image_px
    generator = Generator(px, form=config.form, min_channels=g_min, max_channels=g_max, **common)
    return Networks(
        config,
        Embedder(px, min_channels=e_min, max_channels=e_max, embedding_dim=n, **common),
        Projection(n, sum(generator.adain_sizes)),
        generator,
        Discriminator(num_videos, px, min_channels=d_min, max_channels=d_max, embedding_dim=n, **common),
    )
