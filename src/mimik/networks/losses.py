"""The paper's losses, as functions of tensors; the caller weights them.

Zakharov et al. 2019 (arXiv:1905.08233v2), Sec. 3.2; docs/paper.md lists the symbols and the deviations D1, D2, ..

E, G and P minimize L_CNT + L_ADV + L_MCH, where L_ADV is adversarial_loss plus the weighted feature_matching_loss; D
minimizes discriminator_loss. Tensors of real frames and of W are detached here wherever they are targets. Every loss
is a scalar, averaged over the batch. All but adversarial_loss are >= 0; distances are 0 for equal inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

OVER_LAYERS = ("mean", "sum")


def adversarial_loss(score: Tensor) -> Tensor:
    """First term of L_ADV: -D(x_hat, y, i), low if D rates the fake frames as real.

    Args: score: [B] r of the fake frames, without a sigmoid.
    """
    return -score.mean()


def discriminator_loss(score_real: Tensor, score_fake: Tensor) -> Tensor:
    """Hinge loss of D; L_DSC = max(0, 1 + D(x_hat, y, i)) + max(0, 1 - D(x, y, i)).

    Both terms have a gradient to W_i (D10).

    Args:
        score_real: [B] r of the real frames, without a sigmoid.
        score_fake: [B] r of the fake frames; the caller detaches the frames before D.
    """
    return (1 + score_fake).relu().mean() + (1 - score_real).relu().mean()


def feature_matching_loss(
    fake_acts: Sequence[Tensor], real_acts: Sequence[Tensor], *, over_layers: str = "mean"
) -> Tensor:
    """Distance of D's activations for the fake and the real frames; L_FM, the second term of L_ADV.

    L1, mean over all elements of a layer. Then the mean over layers, as in the authors' code, or their sum, as in
    pix2pixHD (Wang et al. 2018, arXiv:1711.11585), which the paper cites for it (D2).

    Args:
        fake_acts: [B, C, H, W] each, of the fake frames.
        real_acts: the same of the real ones.
        over_layers: one of OVER_LAYERS.

    Raises ValueError on another over_layers, or if the activations differ in number or shape.
    """
    if over_layers not in OVER_LAYERS:
        raise ValueError(f"over_layers {over_layers!r}: use one of {', '.join(OVER_LAYERS)}.")
    per_layer = torch.stack(_layer_distances(fake_acts, real_acts))  # [L]
    return per_layer.mean() if over_layers == "mean" else per_layer.sum()


def match_loss(e_hat: Tensor, w_i: Tensor) -> Tensor:
    """Distance of each frame's embedding from its video's row of W; L_MCH = ||e_hat_i - W_i||_1.

    Averaged over B, K and N (D3).

    Args:
        e_hat: [B, K, N] embeddings of the K frames, before their mean and before P.
        w_i: [B, N] rows W_i of the same videos; W is trained by L_DSC only.

    Raises ValueError if B or N differ.
    """
    if e_hat.ndim != 3 or w_i.shape != (e_hat.shape[0], e_hat.shape[2]):
        raise ValueError(f"e_hat {list(e_hat.shape)} and w_i {list(w_i.shape)}: use [B, K, N] and [B, N].")
    return (e_hat - w_i.detach()[:, None]).abs().mean()


def content_loss(features_x: Sequence[Tensor], features_x_hat: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Distance of a frozen network's activations for the real and the synthesized frames; L_CNT of one network.

    L1, mean over all elements of a layer, times the layer's weight, summed over layers (D8). The paper's L_CNT is the
    sum of this for VGG19 and for VGGFace.

    Args:
        features_x: [B, C, H, W] each, of the real frames.
        features_x_hat: the same of the synthesized ones.
        weights: of each layer.

    Raises ValueError if features or weights differ in number or shape.
    """
    distances = _layer_distances(features_x_hat, features_x)
    if len(weights) != len(distances):
        raise ValueError(f"{len(weights)} weights for {len(distances)} layers: use one for each.")
    return torch.stack([weight * distance for weight, distance in zip(weights, distances, strict=True)]).sum()


def identity_loss(e_x: Tensor, e_x_hat: Tensor) -> Tensor:
    """Distance of the identity network's embeddings of the real and the synthesized frame; replaces VGGFace (D16).

    Euclidean and not squared, as in the network's training, so that the gradient does not vanish for small errors.

    Args: e_x, e_x_hat: [B, 128] embeddings.
    """
    return ((e_x_hat - e_x.detach()).square().sum(1) + 1e-8).sqrt().mean()


def landmark_loss(points: Tensor, points_hat: Tensor) -> Tensor:
    """Distance between the points detected in the synthesized and in the real frame (D17).

    Args: points, points_hat: [B, N, 2] in pixels; so is the result, the mean distance.
    """
    return ((points_hat - points.detach()).square().sum(2) + 1e-8).sqrt().mean()


def pixel_loss(x_hat: Tensor, x: Tensor, regions: Tensor, *, emphasis: float = 4.0) -> Tensor:
    """L1 of the frames themselves, with more weight on eyes and mouth; not in the paper.

    Args:
        x_hat, x: [B, 3, H, W] synthesized frames and the real ones.
        regions: [B, 1, H, W] 1 where eyes and mouth are, 0 elsewhere.
        emphasis: weight 1 + emphasis of a pixel in the regions. The mean is over pixels, not over weights.
    """
    return ((x_hat - x.detach()).abs() * (1 + emphasis * regions)).mean()


def _layer_distances(fake: Sequence[Tensor], real: Sequence[Tensor]) -> list[Tensor]:
    """L1 distance of each layer, mean over its elements; no gradient to real."""
    shapes = [list(f.shape) for f in fake], [list(r.shape) for r in real]
    if shapes[0] != shapes[1] or not fake:
        raise ValueError(f"layers of shapes {shapes[0]} and {shapes[1]}: use the same ones of both frames.")
    # In float32: under autocast a mean in bf16 has three digits.
    return [(f.float() - r.detach().float()).abs().mean() for f, r in zip(fake, real, strict=True)]
