"""The generator on a GPU, with torch; the rest of the pipeline runs on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.config import ModelError, NetworkConfig
from mimik.inference.runtime import Array, Network


class TorchNetwork(Network):
    """As inference.runtime.Network, but G runs with torch. E and P run once per photo and stay on OpenVINO."""

    def __init__(self, config: NetworkConfig, tensors: Mapping[str, NDArray[Any]], device: str) -> None:
        """Args: config, tensors: as Network takes them; device: of torch."""
        super().__init__(config, tensors, num_threads=1)
        self._device = device

    def generator(self, psi_hat: Array) -> Callable[..., list[Array]]:  # type: ignore[override]
        """See Network.generator."""
        import torch

        from mimik.networks.checkpoint import load_generator

        network = load_generator(self.config, self._tensors).to(self._device)
        psi = torch.from_numpy(np.asarray(psi_hat, np.float32))[None].to(self._device)
        if psi.shape[1] != 2 * sum(network.adain_sizes):
            raise ModelError("its psi_hat does not fit its generator")
        lock = threading.Lock()  # as in _Compiled: two sliders may ask at once

        def infer(*inputs: Array) -> list[Array]:
            with lock, torch.inference_mode():
                y, *rest = (torch.from_numpy(np.ascontiguousarray(value)).to(self._device) for value in inputs)
                made = network.predict(y, psi, *rest) if self.config.form == "texture" else [network(y, psi).image]
                return [value.cpu().numpy() for value in made]

        return infer
