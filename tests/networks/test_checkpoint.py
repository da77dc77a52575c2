"""checkpoint.py: releases preserve the output, states survive disk errors, invalid files give one-line errors."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

import safetensors.torch
from torch import Tensor, nn

from mimik.config import PRESETS, InputError, ModelError, Preset
from mimik.networks import checkpoint
from mimik.networks.checkpoint import (
    PREVIOUS_NAME,
    STATE_NAME,
    differences,
    load_release,
    read_state,
    save_release,
    write_state,
)
from mimik.networks.generators import NUM_GEOMETRY, Networks, build_networks
from mimik.networks.preset_json import preset_to_json

PX = 32
SIZES = {"embedder_channels": (4, 16), "generator_channels": (4, 8), "discriminator_channels": (4, 16)}


def preset_of(form: str = "paper", **more: Any) -> Preset:
    networks = dataclasses.replace(
        PRESETS["texture"].networks, form=form, image_px=PX, embedding_dim=12, attention=True, **SIZES, **more
    )
    return dataclasses.replace(PRESETS["texture"], networks=networks)


def trained(preset: Preset, num_videos: int = 3) -> Networks:
    """Networks with changed weights and outdated vectors of spectral norm."""
    torch.manual_seed(1)
    networks = build_networks(preset.networks, num_videos)
    for _, net in networks:
        for parameter in net.parameters():
            parameter.data += 0.3 * parameter.detach().std(correction=0).clamp_min(0.05) * torch.randn_like(parameter)
    for _ in range(5):
        pictures(networks)
    for _, net in networks:
        net.eval()
    return networks


@torch.no_grad()
def pictures(networks: Networks) -> Tensor:
    rng = torch.Generator().manual_seed(2)

    def noise(*shape: int) -> Tensor:
        return torch.rand(shape, generator=rng) * 2 - 1

    x, y = noise(2, 3, 3, PX, PX), noise(2, 3, 3, PX, PX)
    extra = ()
    if networks.config.form == "texture":
        extra = noise(2, 3, 2 * PX, 2 * PX), noise(2, NUM_GEOMETRY, PX // 2, PX // 2)
    out = networks.G(y[:, 0], networks.P(networks.E(x, y).mean(1)), *extra).image
    networks.D(out[..., :PX, :PX], y[:, 0], w=torch.ones(12))
    return out


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("release") / "model.safetensors"
    save_release(path, trained(preset_of()), preset_of(), {"steps": 7, "curve": [{"step": 0, "l1": 0.25}]})
    return path


# Releases.


@pytest.mark.parametrize("form", ["paper", "texture"])
def test_a_release_makes_the_same_pictures(tmp_path: Path, form: str) -> None:
    networks = trained(preset_of(form))
    save_release(tmp_path / "a.safetensors", networks, preset_of(form), {"steps": 7})
    loaded = load_release(tmp_path / "a.safetensors")
    assert loaded.preset == preset_of(form) and loaded.record == {"steps": 7}
    assert all(not net.training for _, net in loaded.networks)
    expected, seen = pictures(networks), pictures(loaded.networks)
    assert expected.std() > 0.05
    assert (seen - expected).abs().mean() * 127.5 < 1  # of 255 levels


def test_a_release_keeps_the_spectral_norm(release: Path) -> None:
    layers = [
        layer
        for _, net in load_release(release).networks
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    before = [
        layer for _, net in trained(preset_of()) for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    assert len(layers) == len(before) > 50
    for layer, same in zip(layers, before, strict=True):
        norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        torch.testing.assert_close(
            norm, torch.linalg.matrix_norm(same.weight.detach().flatten(1), 2), rtol=3e-3, atol=0
        )
        spectral = layer.parametrizations.weight[0]
        for vector in (spectral._u, spectral._v):
            assert vector.dtype == torch.float32 and vector.norm().item() == pytest.approx(1, abs=2e-3)


def test_a_release_holds_no_clip_and_half_the_bytes(release: Path) -> None:
    tensors = safetensors.torch.load_file(release)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert "D.W.weight" not in tensors and "D.linear.bias" in tensors
    networks = load_release(release).networks
    assert networks.D.W.weight.shape == (0, 12)
    assert tensors.keys() == checkpoint.release_tensors(networks).keys()
    for _, net in networks:
        net.train()
    pictures(networks)  # they can be trained
    assert all(p.requires_grad and p.is_leaf for _, net in networks for p in net.parameters())


def rewritten(release: Path, path: Path, change: Any) -> Path:
    """The release with its tensors and header changed."""
    with safetensors.safe_open(release, "pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118
    change(tensors, about)
    path.write_bytes(safetensors.torch.save(tensors, metadata=about))
    return path


def _preset(about: dict[str, str], **networks: Any) -> None:
    plain = json.loads(about["preset"])
    plain["networks"] |= networks
    about["preset"] = json.dumps(plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, a: a.pop("format"), "format is None"),
        (lambda t, a: a.update(format="mimik release 9"), "'mimik release 9'"),
        (lambda t, a: a.update(color="red"), "'color'"),
        (lambda t, a: a.pop("record"), "'record'"),
        (lambda t, a: a.update(preset="{"), "settings are invalid"),
        (lambda t, a: _preset(a, color="red"), "unknown field 'color'"),
        (lambda t, a: _preset(a, image_px=48), "power of two"),
        (lambda t, a: _preset(a, image_px=64), "its settings say"),
        (lambda t, a: _preset(a, embedding_dim=10**9), "have 1000000000 channels"),
        (lambda t, a: t.pop("G.to_image.bias"), "G.to_image.bias has shape None"),
        (lambda t, a: t.update(extra=torch.zeros(2)), "extra has shape"),
        (lambda t, a: t["G.to_image.bias"].fill_(torch.inf), "not finite"),
    ],
)
def test_releases_that_are_not_understood(release: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = rewritten(release, tmp_path / "other.safetensors", change)
    with pytest.raises(ModelError, match=message) as caught:
        load_release(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_and_missing_releases(release: Path, tmp_path: Path) -> None:
    data = release.read_bytes()
    for number, broken in enumerate((data[: len(data) // 2], data[:5], b"", b"a picture" * 100)):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(broken)
        with pytest.raises(ModelError, match="is damaged or not a model"):
            load_release(path)
    with pytest.raises(ModelError, match="no such file"):
        load_release(tmp_path / "nothing.safetensors")
    with pytest.raises(ModelError, match="is damaged or not a model"):
        load_release(tmp_path)


def test_weights_beyond_float16_are_not_released(tmp_path: Path) -> None:
    networks = trained(preset_of())
    networks.G.to_image.bias.data.fill_(1e6)
    with pytest.raises(InputError, match=r"G.to_image.bias has values beyond the range of float16"):
        save_release(tmp_path / "a.safetensors", networks, preset_of(), {})
    assert not list(tmp_path.iterdir())


def test_differences_name_the_setting() -> None:
    preset = preset_of()
    assert differences(preset, preset) == {}
    other = dataclasses.replace(preset, train=dataclasses.replace(preset.train, batch_size=5))
    assert differences(preset, other) == {"train.batch_size": (preset.train.batch_size, 5)}
    assert "networks.form" in differences(preset, preset_of("texture"))
    assert preset_to_json(preset) != preset_to_json(other)


# Training states.


def state_of(step: int) -> dict[str, Any]:
    return {"step": step, "weights": {"a": torch.full((3,), step / 7)}, "random": [torch.arange(4, dtype=torch.uint8)]}


def test_the_newest_state_and_the_one_before_are_kept(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    for step in (1, 2, 3):
        write_state(tmp_path, state_of(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS_NAME, STATE_NAME]
    state = read_state(tmp_path)
    assert state is not None and state["step"] == 3
    assert torch.equal(state["weights"]["a"], torch.full((3,), 3 / 7))
    (tmp_path / STATE_NAME).unlink()
    assert (read_state(tmp_path) or {})["step"] == 2


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "other"])
def test_a_damaged_state_falls_back(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2):
        write_state(tmp_path, state_of(step))
    newest = tmp_path / STATE_NAME
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = {"cut": data[:-9], "flipped": data, "empty": b"", "other": b"PK\3\4" + bytes(99)}
    newest.write_bytes(damaged[how])
    with caplog.at_level(logging.WARNING):
        assert (read_state(tmp_path) or {})["step"] == 1
    assert "is damaged; resuming from the state before it" in caplog.text
    (tmp_path / PREVIOUS_NAME).write_bytes(b"")
    with pytest.raises(InputError, match="no older state is left"):
        read_state(tmp_path)


def test_a_state_runs_no_code(tmp_path: Path) -> None:
    write_state(tmp_path, {"step": 1, "path": Path("/")})  # not one of the safe classes
    with pytest.raises(InputError, match="is not a training state of this program"):
        read_state(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for step in (1, 2):
        write_state(tmp_path, state_of(step))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fails(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        expected = "cannot be written" if number == errno.EACCES else r"no space left for its 0\.0 MB.*are kept"
        with pytest.raises(InputError, match=expected):
            write_state(tmp_path, state_of(3))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_crash_between_the_two_steps_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path, state_of(1))
    real = os.replace

    def crash(source: Path, target: Path) -> None:
        if Path(target).name == STATE_NAME:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_state(tmp_path, state_of(2))
    assert (read_state(tmp_path) or {})["step"] == 1
