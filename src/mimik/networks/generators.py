"""The paper's networks: embedder E, projection P, generator G and projection discriminator D.

Zakharov et al. 2019 (arXiv:1905.08233v2), made exact by the authors' later code; docs/paper.md says which is which, and
D1, D2, .. are its numbered deviations. Images are float32 [B, 3, H, W] in [-1, 1].

`python -m mimik.networks.generators` prints the sizes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from mimik.config import FORMS, NetworkConfig
from mimik.rendering.flow import NUM_GEOMETRY
from mimik.rendering.painters import SHADE_PX

EPS = 1e-4  # of spectral and instance norm; authors' code
W_RANGE = 0.1  # W starts uniform in -0.1 .. 0.1; authors' code
NUM_GENERATOR_BLOCKS = 4  # of G down, the same between, the same up: 256 -> 16 -> 256; authors' code
SMALLEST_PX = 4  # side of the last activations of E and D; paper, Sec. 4
_TEXTURE_BLOCKS = 3  # of the texture form down, and up: 128 px, taken as 64 px of 2x2, to 8 px
_MAX_CORRECTION = 0.1  # of the frame's side: by how much the texture form moves a pixel of the warped photo at most
_FINE_CHANNELS = 16  # of the texture form at image_px, before it draws at twice that
_ATTENTION_DOWN = 3  # self-attention follows this down block, 32 px of 256 ..
_ATTENTION_UP = 2  # .. and this up block of G, 64 px of 256; paper, Sec. 4, and D1 for other sizes


def _is_channels_last(weight: Tensor) -> bool:
    """Whether a convolution's weight lies so in memory that its matrix needs its columns in another order."""
    return weight.ndim == 4 and not weight.is_contiguous()


def _columns(weight: Tensor, like: Tensor) -> Tensor:
    """[N, ..] -> [N, M], a row for each output channel; without a copy if both lie the same way in memory."""
    return (weight.permute(0, 2, 3, 1) if _is_channels_last(like) else weight).flatten(1)


def _of_columns(matrix: Tensor, like: Tensor) -> Tensor:
    """[N, M] -> [N, ..]: the inverse of _columns."""
    if not _is_channels_last(like):
        return matrix.view(-1, *like.shape[1:])
    _, num_in, height, width = like.shape
    return matrix.view(-1, height, width, num_in).permute(0, 3, 1, 2)


def _ordered(v: Tensor, like: Tensor) -> Tensor:
    """v [M] in the order of weight.flatten(1) -> in that of _columns."""
    return v.view(like.shape[1:]).permute(1, 2, 0).flatten() if _is_channels_last(like) else v


def _restored(v: Tensor, like: Tensor) -> Tensor:
    """The inverse of _ordered."""
    return _of_columns(v[None], like).flatten() if _is_channels_last(like) else v


class _Divided(torch.autograd.Function):
    """Weights W / sigma with sigma = u^T W v, the gradients through sigma included; u and v are constants."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, sigma: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        """Args: u, v: [L, N] and [L, M], a row for each weight, zero beyond its end; sigma: [L]."""
        out = torch._foreach_div(weights, sigma.unbind())
        ctx.save_for_backward(u, v, sigma, *out)
        ctx.set_materialize_grads(False)
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        u, v, sigma, *out = ctx.saved_tensors
        # With A = W / sigma: dL/dW = (dL/dA - <dL/dA, A> u v^T) / sigma.
        along = torch.zeros_like(sigma)
        for one, grad, like in zip(along.unbind(), grads, out, strict=True):
            if grad is not None:
                torch.dot(_columns(grad, like).flatten(), _columns(like, like).flatten(), out=one)
        us = (u * (along / sigma)[:, None]).unbind()
        made: list[Tensor | None] = [None] * len(out)
        for i, (grad, like) in enumerate(zip(grads, out, strict=True)):
            if grad is not None:
                matrix = _columns(grad, like) / sigma[i]
                matrix.addr_(us[i][: len(matrix)], v[i, : matrix.shape[1]], alpha=-1)
                made[i] = _of_columns(matrix, like)
        return None, None, None, *made


class SpectralNorm(nn.Module):
    """Divides a weight by an estimate of its largest singular value; Miyato et al. 2018, arXiv:1802.05957.

    In training each use improves the estimate by a power iteration. It gives what torch's own gives, and its state is
    that of torch's: u and v as `_u` and `_v`, v in the order of `weight.flatten(1)`. It needs a quarter of the
    operations, which were more than half of those of a small network's step, because _Network does all layers together.
    """

    def __init__(self, weight: Tensor) -> None:
        """Args: weight: [N, ..], of two dimensions or more."""
        super().__init__()
        matrix = weight.detach().flatten(1)
        u, v = (F.normalize(matrix.new_empty(size).normal_(), dim=0, eps=EPS) for size in matrix.shape)
        for _ in range(15):
            u = F.normalize(matrix.mv(v), dim=0, eps=EPS)
            v = F.normalize(matrix.mT.mv(u), dim=0, eps=EPS)
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)
        self.ready: Tensor | None = None  # while the network that it belongs to computes

    def forward(self, weight: Tensor) -> Tensor:
        """[N, ..] -> the same, divided by sigma."""
        return _divided([self], [weight])[0] if self.ready is None else self.ready

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is assigned to the layer's weight is taken as it is."""
        return weight


def _divided(norms: Sequence[SpectralNorm], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The weights of several layers, each divided by its sigma."""
    # As float32 under autocast too: in bf16 sigma would have three digits.
    with torch.no_grad(), torch.autocast(weights[0].device.type, enabled=False):
        matrices = [_columns(weight, weight) for weight in weights]
        kept_us, kept_vs = [norm.get_buffer("_u") for norm in norms], [norm.get_buffer("_v") for norm in norms]
        vs = [_ordered(one, weight) for one, weight in zip(kept_vs, weights, strict=True)]
        u = weights[0].new_zeros(len(weights), max(len(matrix) for matrix in matrices))
        v = u.new_zeros(len(weights), max(matrix.shape[1] for matrix in matrices))
        u_rows = [row[: len(matrix)] for row, matrix in zip(u.unbind(), matrices, strict=True)]
        v_rows = [row[: matrix.shape[1]] for row, matrix in zip(v.unbind(), matrices, strict=True)]
        for matrix, one, row in zip(matrices, vs, u_rows, strict=True):
            torch.mv(matrix, one, out=row)
        if norms[0].training:
            u /= torch.linalg.vector_norm(u, dim=1, keepdim=True).clamp_min_(EPS)
            for matrix, one, row in zip(matrices, u_rows, v_rows, strict=True):
                torch.mv(matrix.mT, one, out=row)
            sigma = torch.linalg.vector_norm(v, dim=1)  # u^T W v, because v is W^T u divided by its length
            v /= sigma.clamp_min(EPS)[:, None]
            torch._foreach_copy_(kept_us, u_rows)
            torch._foreach_copy_(kept_vs, [_restored(row, weight) for row, weight in zip(v_rows, weights, strict=True)])
        else:
            sigma = torch.stack([torch.dot(one, row) for one, row in zip(kept_us, u_rows, strict=True)])
            torch._foreach_copy_(u_rows, kept_us)
            torch._foreach_copy_(v_rows, vs)
    return _Divided.apply(u, v, sigma, *weights)


class _Network(nn.Module):
    """A network whose layers' spectral norms are computed together when it is called in training."""

    def __init__(self) -> None:
        super().__init__()
        self._lists: list[Any] | None = None

    def __call__(self, *args: Any, **options: Any) -> Any:
        if not self.training:
            return super().__call__(*args, **options)
        if self._lists is None:
            found: list[Any] = [layer for layer in self.modules() if is_parametrized(layer, "weight")]
            self._lists = [layer.parametrizations.weight for layer in found]
        norms = [one[0] for one in self._lists]
        try:
            for norm, weight in zip(norms, _divided(norms, [one.original for one in self._lists]), strict=True):
                norm.ready = weight
            return super().__call__(*args, **options)
        finally:
            for norm in norms:
                norm.ready = None


def _conv(num_in: int, num_out: int, kernel_px: int, *, bias: bool = True) -> nn.Module:
    """Zero-padded convolution with spectral norm."""
    conv = nn.Conv2d(num_in, num_out, kernel_px, padding=kernel_px // 2, bias=bias)
    register_parametrization(conv, "weight", SpectralNorm(conv.weight))
    return conv


def _linear(num_in: int, num_out: int) -> nn.Linear:
    """Linear layer with spectral norm."""
    linear = nn.Linear(num_in, num_out)
    register_parametrization(linear, "weight", SpectralNorm(linear.weight))
    return linear


class AdaIN(nn.Module):
    """Instance norm whose bias and scale come from outside: from psi_hat. It has no parameters."""

    def forward(self, h: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        """Normalise, scale, shift.

        The scale multiplies as it is, s and not 1 + s, as in the authors' code (D4).

        Args:
            h: [B, C, H, W], H * W > 1.
            bias, scale: [B, C] each.
        """
        return F.instance_norm(h, eps=EPS) * scale[..., None, None] + bias[..., None, None]


class ResidualBlock(nn.Module):
    """BigGAN's residual block: norm, ReLU, 3x3, norm, ReLU, 3x3, with resampling on both paths.

    The ReLUs leave their input as it is, so that the skip path carries negative values too (D7).
    """

    def __init__(
        self, num_in: int, num_out: int, *, norm: str = "none", resample: str = "none", first: bool = False
    ) -> None:
        """Makes the layers.

        Args:
            num_in, num_out: channels.
            norm: "none", "instance" or "adain"; the 3x3 convolutions have a bias where it is "none".
            resample: "none", "down" (average of 2x2, at the end) or "up" (nearest, before the first 3x3).
            first: whether it reads an image: then nothing stands before the first 3x3. Without norm only.
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
        self.conv1 = _conv(num_in, num_out, 3, bias=norm == "none")
        self.conv2 = _conv(num_out, num_out, 3, bias=norm == "none")
        same = num_in == num_out and resample == "none"
        self.skip = nn.Identity() if same else _conv(num_in, num_out, 1)

    def forward(self, h: Tensor, psi: Sequence[Tensor] = ()) -> Tensor:
        """[B, num_in, H, W] -> [B, num_out, H', W'].

        Args:
            h: activations.
            psi: for "adain": bias and scale [B, num_in] of the first norm, bias and scale [B, num_out] of the second.
        """
        # A 1x1 convolution commutes with both ways of resampling; on the small side it costs a quarter.
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
        self.query = _conv(num_channels, num_keys, 1, bias=False)
        self.key = _conv(num_channels, num_keys, 1, bias=False)
        self.value = _conv(num_channels, num_values, 1, bias=False)
        self.out = _conv(num_values, num_channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, h: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        # Numbers, also while a graph of fixed shapes is traced.
        batch, height, width = int(h.shape[0]), int(h.shape[2]), int(h.shape[3])
        places, pooled = height * width, (height // 2) * (width // 2)
        query = self.query(h).reshape(batch, -1, places).transpose(1, 2)  # [B, C, H, W] -> [B, H W, C / 8]
        key = F.max_pool2d(self.key(h), 2).reshape(batch, -1, pooled).transpose(1, 2)  # -> [B, H W / 4, C / 8]
        value = F.max_pool2d(self.value(h), 2).reshape(batch, -1, pooled).transpose(1, 2)  # -> [B, H W / 4, C / 2]
        read = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # -> [B, H W, C / 2]
        return h + self.gamma * self.out(read.transpose(1, 2).reshape(batch, -1, height, width))  # -> [B, C, H, W]


def _attention(num_channels: int, wanted: bool) -> nn.Module:
    return SelfAttention(num_channels) if wanted else nn.Identity()


def _check_size(image_px: int) -> None:
    if image_px < 32 or image_px & (image_px - 1):
        raise ValueError(f"image_px {image_px}: give a power of two, 32 or more.")


def _widths(num_blocks: int, min_channels: int, max_channels: int) -> list[int]:
    """Channels after each of num_blocks blocks that halve the picture: doubling up to max_channels."""
    return [min(min_channels * 2**i, max_channels) for i in range(num_blocks)]


def _num_down_blocks(image_px: int) -> int:
    """Blocks from image_px to 4 px: 6 for 256."""
    return (image_px // SMALLEST_PX).bit_length() - 1


def _down_blocks(num_inputs: int, widths: Sequence[int], *, norm: str = "none") -> nn.ModuleList:
    """An image block and down blocks; norm is that of the down blocks."""
    blocks = [ResidualBlock(num_inputs, widths[0], resample="down", first=True)]
    for num_in, num_out in itertools.pairwise(widths):
        blocks.append(ResidualBlock(num_in, num_out, norm=norm, resample="down"))
    return nn.ModuleList(blocks)


class Embedder(_Network):
    """E: what a frame says of the person, whatever the pose and expression."""

    def __init__(
        self,
        image_px: int = 256,
        *,
        min_channels: int = 64,
        max_channels: int = 512,
        embedding_dim: int = 512,
        attention: bool = False,
    ) -> None:
        """Makes as many down blocks as lead from image_px to 4 px (D9).

        Args:
            image_px: side of the frames; a power of two.
            min_channels, max_channels: after the first block and at most; 64 and 512 in the paper.
            embedding_dim: N.
            attention: whether there is self-attention at image_px / 8 (D1).

        Raises:
            ValueError: on another image_px.
        """
        super().__init__()
        _check_size(image_px)
        widths = _widths(_num_down_blocks(image_px), min_channels, max_channels)
        widths[-1] = embedding_dim
        self.down = _down_blocks(6, widths)
        self.attention = _attention(widths[_ATTENTION_DOWN - 1], attention)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Embeddings of single frames; their mean over K, `E(x, y).mean(1)`, is e_hat.

        Args:
            x: [B, K, 3, H, W] frames.
            y: [B, K, 3, H, W] their landmark images.

        Returns:
            [B, K, N], >= 0: what L_MCH compares with W_i.
        """
        return self.embed(x.flatten(0, 1), y.flatten(0, 1)).unflatten(0, x.shape[:2])

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """forward of frames that are not grouped by person: [B, 3, H, W] both -> [B, N]."""
        h = torch.cat([y, x], dim=1)  # -> [B, 6, 256, 256]
        for number, block in enumerate(self.down, start=1):
            h = block(h)  # -> [B, 64, 128, 128] .. [B, N, 4, 4]
            if number == _ATTENTION_DOWN:
                h = self.attention(h)
        return h.relu().sum((2, 3))  # -> [B, N]


class Projection(_Network):
    """P: from e_hat to psi_hat, the biases and scales of G's AdaIN layers.

    psi_hat holds, for one layer after the other, the biases and then the scales. In the paper P is a matrix; here, as
    in the authors' code, it has a bias (D4).
    """

    def __init__(self, embedding_dim: int, num_features: int) -> None:
        """Makes the layer.

        Args:
            embedding_dim: N.
            num_features: of all AdaIN layers together, sum(Generator.adain_sizes); each has a bias and a scale.
        """
        super().__init__()
        self.linear = _linear(embedding_dim, 2 * num_features)

    def forward(self, e_hat: Tensor) -> Tensor:
        """[B, N] e_hat -> [B, 2 * num_features] psi_hat, 13056 numbers in the paper's size."""
        return self.linear(e_hat)


class Synthesis(NamedTuple):
    """A synthesised frame; the other fields are the texture form's, and None for the paper's.

    Attributes:
        image: [B, 3, H, W] x_hat in [-1, 1]; of the texture form [B, 3, 2 H, 2 W] (D14).
        synthesised: [B, 3, 2 H, 2 W] RGB, what the network draws itself.
        mask: [B, 1, 2 H, 2 W] m in 0..1: x_hat = m * moved + (1 - m) * synthesised.
        correction: [B, 2, H / 2, W / 2] x and y, in sides of the frame: pixel p of `moved` is the warped photo's at
            p + correction(p).
    """

    image: Tensor
    synthesised: Tensor | None = None
    mask: Tensor | None = None
    correction: Tensor | None = None


def move(image: Tensor, correction: Tensor) -> Tensor:
    """The image, each pixel taken from where the correction points; beyond the border it is continued.

    Args:
        image: [B, C, H, W].
        correction: [B, 2, h, w] x and y in sides of the image.
    """
    height, width = image.shape[2:]
    offset = F.interpolate(correction, size=(height, width), mode="bilinear").permute(0, 2, 3, 1)  # -> [B, H, W, 2]
    x = (torch.arange(width, device=image.device, dtype=image.dtype) * 2 + 1) / width - 1
    y = (torch.arange(height, device=image.device, dtype=image.dtype) * 2 + 1) / height - 1
    base = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    return F.grid_sample(image, base + 2 * offset, padding_mode="border", align_corners=False)


def shade_only(residual: Tensor, interior: Tensor) -> Tensor:
    """The residual with nothing finer than SHADE_PX left of it inside the mouth (D18).

    The layers behind the lips have the structure, single teeth, that a residual trained on few pixels blurs; it may
    change their light and color.

    Args:
        residual: [B, 3, 2 H, 2 W].
        interior: [B, 1, 2 H, 2 W] 0..1, 1 inside the mouth (face.interior).
    """
    coarse = F.interpolate(F.avg_pool2d(residual, SHADE_PX), scale_factor=SHADE_PX, mode="bilinear")
    return residual + interior * (coarse - residual)


def look(images: Tensor, view: Tensor) -> Tensor:
    """What D and the content networks see of frames that are twice as large as they look at (D14).

    Args:
        images: [B, C, 2 H, 2 W].
        view: [B, 2] int64: top and left of the [H, W] pixels that are seen as they are; both negative: all, reduced.

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


class Generator(_Network):
    """G: draws the person of psi_hat with the face of a landmark image.

    psi_hat is an argument: P e_hat in meta-learning; in fine-tuning the parameter psi' that starts there; a constant in
    an exported model.

    The texture form also sees the photo, warped by the landmark flow, and corrects it: it moves its pixels a little,
    draws a frame of its own, and blends the two. It looks at image_px, 2x2 pixels at once, adds what it saw on the way
    down to what it draws on the way up, and composes frames of twice that size: what it copies keeps its detail. It
    starts as the identity: untrained, it returns the warped photo.

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
        """Makes 4 blocks down, 4 between, 4 up, at every image_px (D9); 3, 4, 3 for the texture form.

        Args:
            image_px: side of the frames; a power of two.
            form: "paper" or "texture".
            min_channels, max_channels: after the first block and at most; 64 and 512 in the paper.
            attention: whether there is self-attention at image_px / 8 on the way down, image_px / 4 on the way up (D1).

        Raises:
            ValueError: on another image_px or form.
        """
        super().__init__()
        _check_size(image_px)
        if form not in FORMS:
            raise ValueError(f"form {form!r}: give one of {', '.join(FORMS)}.")
        self.form = form
        texture = form == "texture"
        widths = _widths(_TEXTURE_BLOCKS if texture else NUM_GENERATOR_BLOCKS, min_channels, max_channels)
        self.down = _down_blocks(4 * 6 + NUM_GEOMETRY if texture else 3, widths, norm="instance")
        self.attention_down = _attention(widths[_ATTENTION_DOWN - 1], attention)

        middle = [(widths[-1], widths[-1])] * NUM_GENERATOR_BLOCKS
        self.middle = nn.ModuleList(ResidualBlock(*pair, norm="adain") for pair in middle)
        up = list(zip([widths[-1], *widths[:0:-1]], widths[::-1], strict=True))
        self.up = nn.ModuleList(ResidualBlock(*pair, norm="adain", resample="up") for pair in up)
        self.attention_up = _attention(up[_ATTENTION_UP - 1][1], attention)

        self.last_norm = AdaIN()
        self.adain_sizes = (*(size for pair in (*middle, *up) for size in pair), widths[0])
        if texture:
            # What each block up gets from the way down: before the middle, and after each block down but the last.
            self.across = nn.ModuleList(
                _conv(width, size, 1) for width, (size, _) in zip(widths[::-1], up, strict=True)
            )
            self.to_flow = nn.Conv2d(widths[0], 2 + 1, 3, padding=1)  # and mask
            self.to_fine = _conv(widths[0], 4 * _FINE_CHANNELS, 3)
            self.to_picture = nn.Conv2d(_FINE_CHANNELS, 4 * 3, 3, padding=1)
            for parameter in (*self.to_flow.parameters(), *self.to_picture.parameters()):
                nn.init.zeros_(parameter)
        else:
            self.to_image = _conv(widths[0], 3, 3)

    def forward(
        self,
        y: Tensor,
        psi_hat: Tensor,
        warped: Tensor | None = None,
        geometry: Tensor | None = None,
        interior: Tensor | None = None,
    ) -> Synthesis:
        """The synthesised frame x_hat.

        Args:
            y: [B, 3, H, W] landmark image.
            psi_hat: [B, 2 * sum(adain_sizes)]; [1, ..] serves the whole batch.
            warped: for the texture form, [B, 3, 2 H, 2 W] the photo, warped to the same landmarks, in [-1, 1].
            geometry: for the texture form, [B, NUM_GEOMETRY, H / 2, W / 2] how it was warped.
            interior: for the texture form, [B, 1, 2 H, 2 W] 0..1, the inside of the mouth; None where it is shut.

        Raises:
            ValueError: if the texture form lacks the warped photo, or the paper's form is given one.
        """
        if (warped is None or geometry is None) == (self.form == "texture"):
            raise ValueError("The texture form needs the warped photo and its geometry; the paper's takes neither.")
        if warped is None or geometry is None:
            return Synthesis(self.to_image(self._features(y, psi_hat)).tanh())
        correction, change, mask = self.draw(y, psi_hat, F.avg_pool2d(warped, 2), geometry)
        if interior is not None:
            change = shade_only(change, interior)
        moved = move(warped, correction)
        synthesised = (moved + change).clamp(-1, 1)
        mask = F.interpolate(mask, scale_factor=4, mode="bilinear")
        return Synthesis(mask * moved + (1 - mask) * synthesised, synthesised, mask, correction)

    def draw(self, y: Tensor, psi_hat: Tensor, warped: Tensor, geometry: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The network of the texture form alone: what to do with the warped photo; without grid_sample.

        Args: as forward's, but for warped: [B, 3, H, W], half as large.

        Returns:
            Correction [B, 2, H / 2, W / 2]; what is to be added to the moved photo [B, 3, 2 H, 2 W]; mask
            [B, 1, H / 2, W / 2], smooth, so that it can be enlarged.
        """
        h = torch.cat([F.pixel_unshuffle(torch.cat([y, warped], 1), 2), geometry], 1)  # -> [B, 28, H / 2, W / 2]
        h = self._features(h, psi_hat)
        flow = self.to_flow(h)
        fine = F.pixel_shuffle(self.to_fine(h), 2).relu()  # -> [B, 16, H, W]
        change = F.pixel_shuffle(self.to_picture(fine), 2)  # -> [B, 3, 2 H, 2 W]
        return _MAX_CORRECTION * flow[:, :2].tanh(), 2 * (change / 2).tanh(), flow[:, 2:].sigmoid()

    def _features(self, h: Tensor, psi_hat: Tensor) -> Tensor:
        """What the last convolution sees: [B, C, H, W] -> [B, widths[0], H, W]."""
        psi = psi_hat.split([size for size in self.adain_sizes for _ in ("bias", "scale")], dim=1)
        seen = []
        for number, block in enumerate(self.down, start=1):
            h = block(h)  # [B, 3, 256, 256] -> [B, 64, 128, 128] .. [B, 512, 16, 16]
            if number == _ATTENTION_DOWN:
                h = self.attention_down(h)
            seen.append(h)
        for number, block in enumerate(self.middle):
            h = block(h, psi[4 * number : 4 * number + 4])  # -> [B, 512, 16, 16]
        psi = psi[4 * len(self.middle) :]
        for number, block in enumerate(self.up, start=1):
            if self.form == "texture":
                h = h + self.across[number - 1](seen[-number])
            h = block(h, psi[4 * number - 4 : 4 * number])  # -> [B, 512, 32, 32] .. [B, 64, 256, 256]
            if number == _ATTENTION_UP:
                h = self.attention_up(h)
        return self.last_norm(h, *psi[-2:]).relu()


class Discriminator(_Network):
    """D: is x a real frame, of this person, with the face of y? Projection discriminator; V is all but the last line.

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
        """Makes as many down blocks as lead from image_px to 4 px (D9), and one residual block there.

        Args:
            num_videos: rows of W.
            image_px: side of the frames; a power of two.
            min_channels, max_channels: after the first block and at most; 64 and 512 in the paper.
            embedding_dim: N, the same as E's.
            attention: whether there is self-attention at image_px / 8 (D1).

        Raises:
            ValueError: on another image_px.
        """
        super().__init__()
        _check_size(image_px)
        widths = _widths(_num_down_blocks(image_px), min_channels, max_channels)
        self.down = _down_blocks(6, widths)
        self.attention = _attention(widths[_ATTENTION_DOWN - 1], attention)
        self.residual = ResidualBlock(widths[-1], embedding_dim)
        self.linear = _linear(embedding_dim, 1)  # w0 and b
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(layer.get_parameter("parametrizations.weight.original"))  # D15
                with torch.no_grad():
                    _ = layer.weight  # a power iteration: spectral norm's vectors still were the old weight's
        self.W = nn.Embedding(num_videos, embedding_dim)
        nn.init.uniform_(self.W.weight, -W_RANGE, W_RANGE)

    def personal_weight(self, e_hat: Tensor) -> Tensor:
        """w' = w0 + e_hat: what fine-tuning starts from for a person whom W does not know (D6).

        Args:
            e_hat: [B, N] or [N], mean over the photos' embeddings.

        Returns:
            The same shape, with gradients to w0 and e_hat; a trainable w' is `nn.Parameter(w.detach())`.
        """
        return self.linear.weight[0] + e_hat

    def forward(
        self, x: Tensor, y: Tensor, video: Tensor | None = None, *, w: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Realism score and activations.

        Args:
            x: [B, 3, H, W] frames, real or synthesised.
            y: [B, 3, H, W] landmark images.
            video: [B] int64, i: the weight is w0 + W_i.
            w: [B, N] or [N], the whole weight instead: w' of a person whom W does not know.

        Returns:
            r [B], without bounds: more is more real; and the output of every residual block, for L_FM, 7 for 256 px.

        Raises:
            ValueError: unless exactly one of video and w is given.
        """
        if (video is None) == (w is None):
            raise ValueError("Give D either video, the rows of W, or w, the weight of an unknown person.")
        acts = []
        h = torch.cat([y, x], dim=1)  # -> [B, 6, 256, 256]
        for number, block in enumerate(self.down, start=1):
            h = block(h)  # -> [B, 64, 128, 128] .. [B, 512, 4, 4]
            acts.append(h)
            if number == _ATTENTION_DOWN:
                h = self.attention(h)
        h = self.residual(h)  # -> [B, N, 4, 4]
        acts.append(h)
        v = h.relu().sum((2, 3))  # -> [B, N]
        if w is None:
            w = self.personal_weight(self.W(video))  # [B] -> [B, N]
        return (v * w).sum(1) + self.linear.bias, acts  # -> [B]


@dataclass
class Networks:
    """E, P, G and D of one configuration, made to fit each other."""

    config: NetworkConfig
    E: Embedder
    P: Projection
    G: Generator
    D: Discriminator

    def __iter__(self) -> Iterator[tuple[str, nn.Module]]:
        """Names and networks, in the order E, P, G, D."""
        return iter((("E", self.E), ("P", self.P), ("G", self.G), ("D", self.D)))


def build(config: NetworkConfig, num_videos: int) -> Networks:
    """The networks of a preset, with fresh weights.

    Args:
        config: sizes and form.
        num_videos: rows of D's W; 0 is possible for a network that is only fine-tuned.
    """
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


def count_parameters(network: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in network.parameters())


def size_table(image_px: int = 256) -> str:
    """Sizes of the networks in the paper's width, in millions of parameters, without and with self-attention."""
    columns: list[dict[str, int]] = []
    for attention in (False, True):
        generator = Generator(image_px, attention=attention)
        discriminator = Discriminator(1, image_px, attention=attention)
        columns.append(
            {
                "E  embedder": count_parameters(Embedder(image_px, attention=attention)),
                "G  generator without P": count_parameters(generator),
                "P  projection": count_parameters(Projection(512, sum(generator.adain_sizes))),
                "D  discriminator without W": count_parameters(discriminator) - discriminator.W.weight.numel(),
            }
        )
    lines = [f"{f'{image_px} px, millions of parameters':34}{'no attention':>14}{'attention':>12}"]
    lines += [f"{name:34}{count / 1e6:14.2f}{columns[1][name] / 1e6:12.2f}" for name, count in columns[0].items()]
    lines.append(f"psi_hat has {2 * sum(generator.adain_sizes)} numbers; W adds 512 for each training video.")
    return "\n".join(lines)


if __name__ == "__main__":
    print(size_table())
