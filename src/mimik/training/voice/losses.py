"""Losses of the voice network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mimik.data.articulation import TAUGHT
from mimik.motion.generation.lips import CHANNELS, LABIODENTAL, TOUCH
from mimik.training.arguments import VoiceConfig

_KEY = {"gap": 3.0, "jawOpen": 2.0, "width": 2.0, "mouthPucker": 2.0, "mouthFunnel": 2.0, "mouthClose": 1.0}
_KEY |= {"mouthRollLower": 0.7, "mouthRollUpper": 0.7, "mouthLowerDownLeft": 0.7, "mouthLowerDownRight": 0.7}
_KEY |= {"mouthUpperUpLeft": 0.7, "mouthUpperUpRight": 0.7, "mouthPressLeft": 0.5, "mouthPressRight": 0.5}
WEIGHTS = np.array([_KEY.get(name, 0.3) for name in CHANNELS], np.float32)


def voice_loss(
    out: Tensor, about: Tensor, above: Tensor, touch: Tensor, known: Tensor, config: VoiceConfig
) -> tuple[Tensor, dict[str, float]]:
    """Loss of mean-free tracks, their speed, their correlation, and contact.

    Args:
        out: [B, T, NUM_TRAINED].
        about, above: [B, T, C] from Pool.batch.
        touch, known: [B, T].

    Returns:
        Scalar, and its unweighted terms.
    """
    weight = torch.from_numpy(WEIGHTS / WEIGHTS.sum())
    mask = known[..., None]
    count = mask.sum(1, keepdim=True).clamp(min=1)
    lips = out[..., : len(CHANNELS)]

    def centered(x: Tensor) -> Tensor:
        return (x - (x * mask).sum(1, keepdim=True) / count) * mask

    # The mean of the piece also contributes, with a small weight.
    p, y = centered(lips), centered(about)
    frames = known.sum().clamp(min=1)
    position = (functional.smooth_l1_loss(p, y, beta=0.5, reduction="none") * weight).sum() / frames
    both = mask[:, 1:] * mask[:, :-1]
    velocity = (((p[:, 1:] - p[:, :-1]) - (y[:, 1:] - y[:, :-1])).abs() * both * weight).sum() / frames
    variance_p, variance_y = (p * p).sum(1) / count[:, 0], (y * y).sum(1) / count[:, 0]
    covariance = (p * y).sum(1) / count[:, 0]
    r = covariance / torch.sqrt((variance_p + 0.02) * (variance_y + 0.02))
    valid = (known.sum(1) > 30).float()[:, None]
    correlation = ((1 - r) * weight * valid).sum() / valid.sum().clamp(min=1)
    shut = functional.binary_cross_entropy_with_logits(out[..., TOUCH], touch, reduction="none")
    shut = (shut * known).sum() / frames
    absolute = (functional.smooth_l1_loss(lips, above, reduction="none") * mask * weight).sum() / frames
    terms = {"position": position, "velocity": velocity, "correlation": correlation, "touch": shut}
    total = position + config.velocity * velocity + config.correlation * correlation
    total = total + config.touch * shut + config.absolute * absolute
    return total, {name: float(term.detach()) for name, term in (*terms.items(), ("absolute", absolute))}


def spoken_loss(out: Tensor, mouths: Tensor, known: Tensor, config: VoiceConfig) -> Tensor:
    """Loss of synthetic speech: the known channels minus the piece's mean, their correlation, contact, labiodentals.

    Args:
        out: [S, T, NUM_TRAINED].
        mouths: [S, T, len(Mouth)].
        known: [S, T].
    """
    mask = known[..., None]
    count = mask.sum(1, keepdim=True).clamp(min=1)

    def centered(x: Tensor) -> Tensor:
        return (x - (x * mask).sum(1, keepdim=True) / count) * mask

    p, y = centered(out[..., list(TAUGHT)]), centered(mouths[..., : len(TAUGHT)])
    position = functional.smooth_l1_loss(p, y, beta=0.5, reduction="sum") / (mask.sum() * len(TAUGHT))
    size = torch.sqrt(((p * p).sum(1) + 0.02 * count[:, 0]) * ((y * y).sum(1) + 0.02 * count[:, 0]))
    correlation = 1 - ((p * y).sum(1) / size).mean()
    logits, classes = out[..., [TOUCH, LABIODENTAL]], mouths[..., len(TAUGHT) :].clamp(0, 1)
    entropy = functional.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    shut, labiodental = (entropy * mask).sum((0, 1)) / mask.sum()
    return position + config.correlation * correlation + config.touch * (shut + labiodental)


def teacher_loss(out: Tensor, taught: Tensor, heard: Tensor) -> Tensor:
    """Loss of tracks and contact against those of other networks (Hinton et al. 2015, "Distilling the Knowledge").

    Args:
        out: [B, T, NUM_TRAINED].
        taught: [B, T, TOUCH + 1] outputs of the teachers.
        heard: [B, T] 1 where both know the sound before.
    """
    weight = torch.from_numpy(WEIGHTS / WEIGHTS.sum())
    lips, contact = out[..., :TOUCH], out[..., TOUCH]
    frames = heard.sum().clamp(min=1)
    apart = functional.smooth_l1_loss(lips, taught[..., :TOUCH], beta=0.3, reduction="none")
    tracks = (apart * heard[..., None] * weight).sum() / frames
    entropy = functional.binary_cross_entropy_with_logits(contact, taught[..., TOUCH].sigmoid(), reduction="none")
    return 3.0 * tracks + 0.3 * (entropy * heard).sum() / frames
