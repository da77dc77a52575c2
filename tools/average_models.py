"""Averages the weights of models of one preset that were trained from one start; Wortsman et al. 2022, "Model soups".

python tools/average_models.py runs/a/model.safetensors runs/b/model.safetensors -o model.safetensors

What is not averaged is the first model's: D, since the others' may not fit the average's frames, and with --networks G
also E and P, which belong together. The record says what was averaged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from mimik.networks import checkpoint
from mimik.networks.generators import Networks

_SETTLE = 30  # power iterations, after which spectral norm's vectors are the averaged weights'


def average(releases: list[checkpoint.TrainedModel], names: list[str]) -> Networks:
    """The first model's networks, those of these names with the mean of all models' weights.

    Raises ValueError if the networks of two models differ in size.
    """
    first, *others = releases
    for (name, net), *rest in zip(first.networks, *(other.networks for other in others), strict=True):
        if name not in names:
            continue
        for parameter, *same in zip(net.parameters(), *(other.parameters() for _, other in rest), strict=True):
            if any(one.shape != parameter.shape for one in same):
                raise ValueError(f"{name}: {list(parameter.shape)} and other sizes; give models of one preset.")
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
