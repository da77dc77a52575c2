"""Clips of an index and a tiny model, for the tests in this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from conftest import DRIVER_FPS, SIDE_PX
from mimik.config import LossWeights, NetworkConfig, Preset, TrainConfig
from mimik.data.index import ClipInfo
from mimik.networks.checkpoint import save_release
from mimik.networks.generators import build_networks


def clip_info(key: str = "ada_00", num_frames: int = 28, size: int = SIDE_PX, **fields: Any) -> ClipInfo:
    values = {
        "shard": "clips-000000.tar",
        "members": dict.fromkeys(("mp4", "npz", "json"), (512, 1)),
        "fps": DRIVER_FPS,
        "person": "ada",
        "source": "ada.mp4",
        "source_sha256": "0" * 64,
        "licence": None,
        "start_s": 0.0,
        "end_s": num_frames / DRIVER_FPS,
        "box": (0, 0, size),
        "face_px": 92.0,
        "sharpness": 1.0,
        "yaw_range": (0.0, 14.0),
        "fingerprint": "00",
    }
    return ClipInfo(**{**values, "key": key, "num_frames": num_frames, "size": size, **fields})


SIZES = {"embedder_channels": (4, 8), "generator_channels": (4, 8), "discriminator_channels": (4, 8)}


TINY = Preset(
    networks=NetworkConfig(form="texture", image_px=64, embedding_dim=6, attention=False, landmarks="smooth", **SIZES),
    losses=LossWeights(content={}, pixel=3.0, adversarial=0.1, feature_matching=0.1, synthesized=2.0, drawn=0.25),
    train=TrainConfig(),
)


def write_release(folder: Path) -> Path:
    """A release of random networks."""
    path = folder / "tiny.safetensors"
    torch.manual_seed(1)
    save_release(path, build_networks(TINY.networks, 1), TINY, {"steps": 1})
    return path
