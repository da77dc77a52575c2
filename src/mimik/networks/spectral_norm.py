"""Spectral norm of all layers of a network at once, and layers that have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

EPS = 1e-4  # of spectral and instance norm; authors' code


def _is_channels_last(weight: Tensor) -> bool:
    """Whether a convolution's memory format requires its matrix to have its columns in another order."""
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

    In training each use improves the estimate by a power iteration. Results and state equal torch's own: u and v as
    `_u` and `_v`, v in the order of `weight.flatten(1)`. SpectralNetwork computes all layers together, in a quarter of
    the operations, which were more than half of those of a small network's step.
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
        self.ready: Tensor | None = None  # during the forward pass of its network

    def forward(self, weight: Tensor) -> Tensor:
        """[N, ..] -> the same, divided by sigma."""
        return _divided([self], [weight])[0] if self.ready is None else self.ready

    def right_inverse(self, weight: Tensor) -> Tensor:
        """A value assigned to the layer's weight is used as it is."""
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


class SpectralNetwork(nn.Module):
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


def spectral_conv(num_in: int, num_out: int, kernel_px: int, *, bias: bool = True) -> nn.Module:
    """Zero-padded convolution with spectral norm."""
    conv = nn.Conv2d(num_in, num_out, kernel_px, padding=kernel_px // 2, bias=bias)
    register_parametrization(conv, "weight", SpectralNorm(conv.weight))
    return conv


def spectral_linear(num_in: int, num_out: int) -> nn.Linear:
    """Linear layer with spectral norm."""
    linear = nn.Linear(num_in, num_out)
    register_parametrization(linear, "weight", SpectralNorm(linear.weight))
    return linear
