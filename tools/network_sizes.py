"""Sizes of the paper's networks; docs/paper.md shows the table.

python tools/network_sizes.py
"""

from __future__ import annotations

from torch import nn

from mimik.networks.generators import Discriminator, Embedder, Generator, Projection


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def size_table(image_px: int = 256) -> str:
    """Sizes of the networks at the paper's width, in millions of parameters, without and with self-attention."""
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
