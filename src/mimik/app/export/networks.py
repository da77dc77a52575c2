"""Networks with the fixed inputs and outputs of an exported graph."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mimik.arrays import Array
from mimik.networks.blocks import EPS, AdaIN
from mimik.networks.generators import Generator, Networks
from mimik.provenance.manifests import SOURCE_TYPE

GraphInputs = dict[str, Array]  # inputs of a graph by name

NOTICE = (
    "The output of this model is synthetic: the person shown was not filmed doing this. Whoever shows, stores or sends "
    f"its frames must say so, with a visible mark in the picture and {SOURCE_TYPE} as digitalSourceType in the C2PA "
    "manifest or IPTC metadata of a file. The graph cannot do that; the program that runs it must. Do not animate a "
    "living person without their consent."
)
LICENSE = {
    True: "The weights were trained on video clips published for research, most without a stated license: for research "
    "only. MODEL_CARD.md of mimik describes the data, the evaluation and the limits.",
    False: "The license of the weights is that of whoever trained them and depends on the training data.",
}

OUTPUTS = {"paper": ("x_hat",), "texture": ("correction", "residual", "mask")}


class _FixedNorm(nn.InstanceNorm2d):
    """An AdaIN layer with constant bias and scale, for one person."""

    def __init__(self, bias: Tensor, scale: Tensor) -> None:
        super().__init__(len(bias), eps=EPS, affine=True)
        with torch.no_grad():
            self.weight.copy_(scale)
            self.bias.copy_(bias)

    def forward(self, h: Tensor, *_psi: Tensor) -> Tensor:
        return super().forward(h)


def baked(generator: Generator, psi: Tensor) -> Generator:
    """A copy of G with constant AdaIN parameters of one person; it ignores its psi_hat input.

    Args:
        generator: in evaluation mode.
        psi: [1, 2 * sum(adain_sizes)].
    """
    fixed = copy.deepcopy(generator)
    parts = iter(psi[0].split([size for size in generator.adain_sizes for _ in ("bias", "scale")]))
    for block in (*fixed.middle, *fixed.up):
        for name in ("norm1", "norm2"):
            assert isinstance(getattr(block, name), AdaIN)
            setattr(block, name, _FixedNorm(next(parts), next(parts)))
    fixed.last_norm = _FixedNorm(next(parts), next(parts))  # type: ignore[assignment]
    return fixed.eval()


class Drawing(nn.Module):
    """G with the inputs and outputs of the exported graph: per-frame inputs, outputs for the host."""

    def __init__(self, generator: Generator, psi: Tensor | None) -> None:
        """Args: psi: of the person; None: it is the last input."""
        super().__init__()
        self.generator, self.psi = generator, psi

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        y, *others = inputs
        psi = others.pop() if self.psi is None else self.psi
        if self.generator.form == "paper":
            return self.generator(y, psi).image
        return self.generator.predict(y, psi, *others)


class Embedding(nn.Module):
    """E and P as one graph, for one photo.

    P is affine, so that the mean psi_hat of several photos equals the psi_hat of their mean embedding.
    """

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.E, self.P = networks.E, networks.P

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[1, 3, H, W] both -> psi_hat [1, 2 * features]."""
        return self.P(self.E.embed(x, y))


def without_spectral_norm(module: nn.Module) -> nn.Module:
    """A copy in which spectral norm is folded into the weights.

    Layers are replaced, because torch's remove_parametrizations modifies a class that the copy shares with the
    original.
    """
    plain = copy.deepcopy(module).eval()
    for parent in list(plain.modules()):
        for name, layer in list(parent.named_children()):
            if not parametrize.is_parametrized(layer):
                continue
            biased = layer.bias is not None
            if isinstance(layer, nn.Conv2d):
                size, padding = layer.kernel_size[0], int(layer.padding[0])
                made: nn.Module = nn.Conv2d(layer.in_channels, layer.out_channels, size, padding=padding, bias=biased)
            else:
                assert isinstance(layer, nn.Linear)
                made = nn.Linear(layer.in_features, layer.out_features, bias=biased)
            made.load_state_dict({"weight": layer.weight} | ({"bias": layer.bias} if biased else {}))
            setattr(parent, name, made)
    return plain
