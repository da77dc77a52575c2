"""Average the weights of models of one preset with a common initialization; Wortsman et al. 2022, "Model soups".

python tools/average_models.py runs/a/model.safetensors runs/b/model.safetensors -o model.safetensors

Everything else is taken from the first model: D, because the other ones may not fit the averaged generator, and with
--networks G also E and P, which belong together. The record states what was averaged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from mimik.networks import checkpoint
from mimik.networks.generators import Networks

_SETTLE = 30  # power iterations until spectral norm's vectors fit the averaged weights


def average(releases: list[checkpoint.TrainedModel], names: list[str]) -> Networks:
    """Networks of the first model; those named carry the mean of all models' weights.

    Raises ValueError if the networks of two models differ in size.
    """
    first, *others = releases
    for (name, net), *rest in zip(first.networks, *(other.networks for other in others), strict=True):
        if name not in names:
            continue
        for parameter, *same in zip(net.parameters(), *(other.parameters() for _, other in rest), strict=True):
            if any(one.shape != parameter.shape for one in same):
                raise ValueError(f"{name}: {list(parameter.shape)} and other sizes; use models of one preset.")
            with torch.no_grad():
                parameter.copy_(torch.stack([parameter, *same]).mean(0))
        net.train()
        for module in net.modules():
            if nn.utils.parametrize.is_parametrized(module, "weight"):
                for _ in range(_SETTLE):
                    _ = module.weight
        net.eval()
    return first.networks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", choices=("E", "P", "G"), default=["E", "P", "G"])
    arguments = parser.parse_args()
    releases = [checkpoint.load_release(path) for path in arguments.models]
    networks = average(releases, arguments.networks)
    record = releases[0].record | {
        "averaged": arguments.networks,
        "average_of": [release.record for release in releases],
    }
    checkpoint.save_release(arguments.out, networks, releases[0].preset, record)
    print(f"{arguments.out}: the average of {len(releases)} models.")


if __name__ == "__main__":
    main()
