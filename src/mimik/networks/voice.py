"""The voice network: log-mel frames to mouth blendshapes; causal, under a million parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

DILATIONS = (1, 2, 4, 8, 1, 2)  # of the convolutions, in steps of 20 ms


class _Block(nn.Module):
    """A residual causal convolution: out = x + conv2(relu(conv1(norm(x))))."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.left = 2 * dilation
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv1d(channels, channels, 3, dilation=dilation)
        self.mix = nn.Linear(channels, channels)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        h = functional.pad(self.norm(x), (0, 0, self.left, 0))  # [B, T, C] -> [B, T + left, C]
        # The convolution as one product of matrices: on a CPU faster than Conv1d, and the same.
        step, length = self.left // 2, x.shape[1]
        taps = torch.cat([h[:, k * step : k * step + length] for k in range(3)], 2)
        weight = self.conv.weight.permute(0, 2, 1).flatten(1)  # [C, C, 3] -> [C, 3 C]
        h = self.mix(functional.relu(functional.linear(taps, weight, self.conv.bias)))
        if self.training and self.dropout > 0:  # whole channels, as in temporal convolutional networks; and cheaper
            h = h * functional.dropout(x.new_ones(len(x), 1, x.shape[2]), self.dropout)
        return x + h


class VoiceNet(nn.Module):
    """Causal convolutions over the last two thirds of a second, then a recurrent layer that adapts to speaker and room.

    Output i depends only on features up to frame i; the look-ahead is an offset between outputs and targets.
    """

    def __init__(
        self,
        num_bands: int,
        num_outputs: int,
        *,
        channels: int = 160,
        recurrent: int = 128,
        dilations: Sequence[int] = DILATIONS,
        dropout: float = 0.1,
    ) -> None:
        """Args:
        num_bands: of the features; two frames make one step.
        num_outputs: values per step.
        """
        super().__init__()
        self.stem = nn.Linear(2 * num_bands, channels)
        self.blocks = nn.ModuleList([_Block(channels, dilation, dropout) for dilation in dilations])
        self.norm = nn.LayerNorm(channels)
        self.gru = nn.GRU(channels, recurrent, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(channels + recurrent, num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Args: features: [B, 2 T, num_bands]. Returns: [B, T, num_outputs]."""
        batch, length, bands = features.shape
        h = functional.relu(self.stem(features.reshape(batch, length // 2, 2 * bands)))
        for block in self.blocks:
            h = block(h)
        h = self.norm(h)
        r, _ = self.gru(h)
        return self.head(self.drop(torch.cat([h, r], 2)))
