"""tools/average_models.py: means computed by hand, tensors that are not averaged, spectral norm of the mean."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

import average_models

from mimik.config import LossWeights, NetworkConfig, Preset, TrainConfig
from mimik.networks.checkpoint import load_release, save_release
from mimik.networks.generators import build_networks

SIZES = NetworkConfig(
    form="texture",
    image_px=32,
    embedder_channels=(2, 4),
    generator_channels=(2, 4),
    discriminator_channels=(2, 4),
    embedding_dim=8,
)
PRESET = Preset(networks=SIZES, losses=LossWeights(content={}), train=TrainConfig())
WEIGHT = "parametrizations.weight.original"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, torch.nn.Module]]:
    """Two models of one preset, and their networks."""
    folder = tmp_path_factory.mktemp("models")
    paths = [folder / "a.safetensors", folder / "b.safetensors"]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        save_release(path, build_networks(SIZES, 2), PRESET, {"steps": seed})
    return {path: dict(load_release(path).networks) for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize("names", [("E", "P", "G"), ("G",)])
def test_average(
    models: dict[Path, dict[str, torch.nn.Module]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...],
) -> None:
    out = tmp_path / "mean.safetensors"
    monkeypatch.setattr(sys, "argv", ["", *map(str, models), "-o", str(out), "--networks", *names])
    average_models.main()
    (first, second), made = models.values(), load_release(out)
    mean = dict(made.networks)
    for name, net in mean.items():
        for (key, value), a, b in zip(
            net.named_parameters(), first[name].parameters(), second[name].parameters(), strict=True
        ):
            expected = (a + b) / 2 if name in names else a
            torch.testing.assert_close(value, expected, atol=1e-3, rtol=1e-3, msg=f"{name}.{key}")  # float16
    conv = mean["G"].down[0].conv1
    largest = torch.linalg.matrix_norm(conv.get_parameter(WEIGHT).flatten(1), 2)
    torch.testing.assert_close(conv.weight * largest, conv.get_parameter(WEIGHT), atol=1e-2, rtol=1e-2)
    record = made.record
    assert record["averaged"] == list(names) and [one["steps"] for one in record["average_of"]] == [0, 1]
