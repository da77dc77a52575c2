"""Blocks of E, G and D: layers with spectral norm, BigGAN's residual block, AdaIN and self-attention."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

from mimik.networks.release import EPS

SMALLEST_PX = 4  # side of the last activations of E and D; paper, Sec. 4


class SpectralNorm(_SpectralNorm):
    """torch's spectral norm, computed in float32 even under autocast: in bf16, sigma would have only three digits."""

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return super().forward(weight)


def spectral_conv(num_in: int, num_out: int, kernel_px: int, *, bias: bool = True) -> nn.Module:
    """Zero-padded convolution with spectral norm."""
    conv = nn.Conv2d(num_in, num_out, kernel_px, padding=kernel_px // 2, bias=bias)
    register_parametrization(conv, "weight", SpectralNorm(conv.weight, eps=EPS))
    return conv


def spectral_linear(num_in: int, num_out: int) -> nn.Linear:
    """Linear layer with spectral norm."""
    linear = nn.Linear(num_in, num_out)
    register_parametrization(linear, "weight", SpectralNorm(linear.weight, eps=EPS))
    return linear


class AdaIN(nn.Module):
    """Instance norm whose bias and scale are inputs, from psi_hat. It has no parameters."""

    def forward(self, h: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        """Normalizes, scales, shifts.

        The scale is s, not 1 + s, as in the authors' code (D4).

        Args:
            h: [B, C, H, W], H * W > 1.
            bias, scale: [B, C] each.
        """
        return F.instance_norm(h, eps=EPS) * scale[..., None, None] + bias[..., None, None]


class ResidualBlock(nn.Module):
    """BigGAN's residual block: norm, ReLU, 3x3, norm, ReLU, 3x3, with resampling on both paths.

    The ReLUs do not modify their input, so that the skip path carries negative values too (D7).
    """

    def __init__(
        self, num_in: int, num_out: int, *, norm: str = "none", resample: str = "none", first: bool = False
    ) -> None:
        """Builds the layers.

        Args:
            num_in, num_out: channels.
            norm: "none", "instance" or "adain"; the 3x3 convolutions have a bias where it is "none".
            resample: "none", "down" (average of 2x2, at the end) or "up" (nearest, before the first 3x3).
            first: whether its input is an image: nothing precedes the first 3x3 then. Without norm only.
        """
        super().__init__()
        assert norm in ("none", "instance", "adain") and resample in ("none", "down", "up")
        assert norm == "none" or not first

        def norm_layer(num_channels: int) -> nn.Module:
            if norm == "adain":
                return AdaIN()
            if norm == "instance":
                return nn.InstanceNorm2d(num_channels, eps=EPS, affine=True)
            return nn.Identity()

        self.resample, self.first = resample, first
        self.norm1, self.norm2 = norm_layer(num_in), norm_layer(num_out)
        self.conv1 = spectral_conv(num_in, num_out, 3, bias=norm == "none")
        self.conv2 = spectral_conv(num_out, num_out, 3, bias=norm == "none")
        same = num_in == num_out and resample == "none"
        self.skip = nn.Identity() if same else spectral_conv(num_in, num_out, 1)

    def forward(self, h: Tensor, psi: Sequence[Tensor] = ()) -> Tensor:
        """[B, num_in, H, W] -> [B, num_out, H', W'].

        Args:
            h: activations.
            psi: for "adain": bias and scale [B, num_in] of the first norm, bias and scale [B, num_out] of the second.
        """
        # A 1x1 convolution commutes with both kinds of resampling; at the lower resolution it costs a quarter.
        shortcut = self.skip(F.avg_pool2d(h, 2) if self.resample == "down" else h)
        if not self.first:
            h = self.norm1(h, *psi[:2]).relu()
        if self.resample == "up":
            shortcut, h = F.interpolate(shortcut, scale_factor=2), F.interpolate(h, scale_factor=2)
        h = self.norm2(self.conv1(h), *psi[2:]).relu()
        h = self.conv2(h)
        return shortcut + (F.avg_pool2d(h, 2) if self.resample == "down" else h)


class SelfAttention(nn.Module):
    """Self-attention of SAGAN (Zhang et al. 2019, arXiv:1805.08318) in BigGAN's form: keys and values are pooled by 2.

    gamma starts at 0, so the layer starts as the identity. It has 10/8 C^2 + 1 parameters: 0.08 M for C = 256.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        num_keys, num_values = max(1, num_channels // 8), max(1, num_channels // 2)
        self.query = spectral_conv(num_channels, num_keys, 1, bias=False)
        self.key = spectral_conv(num_channels, num_keys, 1, bias=False)
        self.value = spectral_conv(num_channels, num_values, 1, bias=False)
        self.out = spectral_conv(num_values, num_channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, h: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        # Plain ints, so that a trace has fixed shapes.
        batch, height, width = int(h.shape[0]), int(h.shape[2]), int(h.shape[3])
        places, pooled = height * width, (height // 2) * (width // 2)
        query = self.query(h).reshape(batch, -1, places).transpose(1, 2)  # [B, C, H, W] -> [B, H W, C / 8]
        key = F.max_pool2d(self.key(h), 2).reshape(batch, -1, pooled).transpose(1, 2)  # -> [B, H W / 4, C / 8]
        value = F.max_pool2d(self.value(h), 2).reshape(batch, -1, pooled).transpose(1, 2)  # -> [B, H W / 4, C / 2]
        read = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # -> [B, H W, C / 2]
        return h + self.gamma * self.out(read.transpose(1, 2).reshape(batch, -1, height, width))  # -> [B, C, H, W]


def attention_or_identity(num_channels: int, wanted: bool) -> nn.Module:
    return SelfAttention(num_channels) if wanted else nn.Identity()


def check_image_px(image_px: int) -> None:
    if image_px < 32 or image_px & (image_px - 1):
        raise ValueError(f"image_px {image_px}: use a power of two, 32 or more.")


def block_widths(num_blocks: int, min_channels: int, max_channels: int) -> list[int]:
    """Channels after each of num_blocks down blocks: doubling, up to max_channels."""
    return [min(min_channels * 2**i, max_channels) for i in range(num_blocks)]


def num_down_blocks(image_px: int) -> int:
    """Blocks from image_px to 4 px: 6 for 256."""
    return (image_px // SMALLEST_PX).bit_length() - 1


def down_blocks(num_inputs: int, widths: Sequence[int], *, norm: str = "none") -> nn.ModuleList:
    """An image block and down blocks; norm is that of the down blocks."""
    blocks = [ResidualBlock(num_inputs, widths[0], resample="down", first=True)]
    for num_in, num_out in itertools.pairwise(widths):
        blocks.append(ResidualBlock(num_in, num_out, norm=norm, resample="down"))
    return nn.ModuleList(blocks)
