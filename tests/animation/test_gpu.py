"""Rendering by torch equals OpenVINO; no GPU is needed."""

from __future__ import annotations

import numpy as np
import pytest

from mimik.animation import gpu
from mimik.config import AnimateConfig, InputError
from mimik.inference.runtime import Network
from mimik.inference.synthesis import BUNDLED_MODEL
from mimik.networks.release import read_release


def test_devices_that_are_refused() -> None:
    with pytest.raises(InputError, match="--device gpu: use one of auto, cpu, cuda"):
        AnimateConfig(device="gpu")
    with pytest.raises(InputError, match="--device cuda: --model geometry has no network"):
        AnimateConfig(device="cuda", model="geometry")


def test_torch_draws_what_openvino_draws() -> None:
    pytest.importorskip("torch", reason="needs the extra train")
    release = read_release(BUNDLED_MODEL)
    config = release.preset.networks
    psi_hat = Network(config, release.tensors, 1).project(np.full(config.embedding_dim, 0.3, np.float32))
    px, rng = config.image_px, np.random.default_rng(0)
    shapes = (1, 3, px, px), (1, 3, px, px), (1, 4, px // 2, px // 2)
    inputs = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]
    ours = gpu.TorchNetwork(config, release.tensors, "cpu").generator(psi_hat)(*inputs)
    theirs = Network(config, release.tensors, 1, exact=True).generator(psi_hat)(*inputs)
    assert len(ours) == len(theirs) == 3
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape and other.std() > 1e-4
        np.testing.assert_allclose(one, other, atol=1e-3)
