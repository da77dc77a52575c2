"""meta_learning.py: one step against a simple reference, resumed runs, many processes, and the log of a run."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from torch import Tensor

from mimik.app import cli
from mimik.app.cli import training as cli_training
from mimik.config import PRESETS, InputError, LossWeights, NetworkConfig, Preset, TrainConfig
from mimik.data.episodes import Batch
from mimik.face.landmarks import EXPRESSIVE, LANDMARKER_VIEW_PX
from mimik.networks import losses
from mimik.networks.checkpoint import PREVIOUS_NAME, STATE_NAME, load_release, read_state
from mimik.networks.features import CHIP_PX, chips
from mimik.networks.generators import Synthesis
from mimik.training import meta_learning, reporting
from mimik.training import trainer as trainer_module
from mimik.training.arguments import TrainArguments
from mimik.training.distributed import World
from mimik.training.meta_learning import train
from mimik.training.reporting import sample_grid
from mimik.training.step import (
    DiscriminatorInputs,
    generator_terms,
    other_people,
    over_plate,
    weighted_content_loss,
)
from mimik.training.trainer import Trainer
from synthetic_shards import write_shards

PX = 32
ALONE = World(0, 1, torch.device("cpu"))
SIZES = {"embedder_channels": (4, 8), "generator_channels": (4, 8), "discriminator_channels": (4, 8)}
PAPER = Preset(
    networks=NetworkConfig(image_px=PX, embedding_dim=6, attention=False, **SIZES),
    losses=LossWeights(content={}, match=2.0, pixel=3.0, adversarial=0.5, feature_matching=4.0),
    train=TrainConfig(num_sources=2, batch_size=2, lr_generator=1e-3, lr_discriminator=2e-3, adversarial_from=1),
)
TEXTURE = Preset(
    networks=NetworkConfig(form="texture", image_px=PX, embedding_dim=6, attention=False, landmarks="smooth", **SIZES),
    losses=LossWeights(content={}, pixel=3.0, synthesized=2.0, drawn=0.25, correction=0.5),
    train=TrainConfig(num_sources=2, batch_size=2, num_discriminator_updates=1),
)


@pytest.fixture(autouse=True)
def presets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", PAPER)
    monkeypatch.setitem(PRESETS, "tiny_texture", TEXTURE)
    monkeypatch.setattr(meta_learning, "_VALIDATION_EPISODES", 4)


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def asked(shards: Path, out: Path, **more: Any) -> TrainArguments:
    options = {"data": str(shards), "val": str(shards), "out": out, "preset": "tiny", "workers": 0, "device": "cpu"}
    return TrainArguments(**{**options, "cache_mb": 10, "steps": 2, **more})


def batch_of(preset: Preset, size: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """A batch as from the loader."""
    rng = torch.Generator().manual_seed(seed)

    def pixels(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)

    frame = (size, 3, PX, PX)
    batch = {"x": pixels(*frame), "y": pixels(*frame), "clip": torch.arange(size) % 5}
    batch["person"] = batch["clip"]
    batch |= {name: pixels(size, 2, 3, PX, PX) for name in ("x_s", "y_s")}
    batch["regions"] = (pixels(size, 1, PX, PX) > 127).to(torch.uint8) * 255
    if preset.networks.form == "texture":
        large = size, 3, 2 * PX, 2 * PX
        batch |= {"x": pixels(*large), "warped": pixels(*large), "regions": pixels(size, 1, 2 * PX, 2 * PX)}
        batch["geometry"] = torch.rand(size, 4, PX // 2, PX // 2, generator=rng)
        batch["view"] = torch.tensor([[-1, -1], [0, 0], [3, PX]])[torch.arange(size) % 3]
    scale = batch["x"].shape[3] / CHIP_PX
    batch["chip"] = torch.tensor([[scale, 0.0, scale / 2], [0.0, scale, scale / 2]]).repeat(size, 1, 1)
    scale = batch["x"].shape[3] / LANDMARKER_VIEW_PX
    batch["face"] = torch.tensor([[scale, 0.0, scale / 2], [0.0, scale, scale / 2]]).repeat(size, 1, 1)
    return batch


def trainer_of(preset: Preset, seed: int = 0, **more: Any) -> Trainer:
    torch.manual_seed(seed)
    return Trainer(preset, 5, ALONE, **more)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    modules = {"live": trainer.synthesizer, "average": trainer.ema.average, "judge": trainer.discriminator_step}
    return {f"{m}.{k}": v.clone() for m, module in modules.items() for k, v in module.state_dict().items()}


# The command line.


def test_both_command_lines_take_the_same_options() -> None:
    command = inspect.signature(cli_training.train_command).parameters
    fields = {field.name: field for field in dataclasses.fields(TrainArguments)}
    assert list(command) == list(fields)
    for name, parameter in command.items():
        default = inspect.Parameter.empty if fields[name].default is dataclasses.MISSING else fields[name].default
        assert parameter.default == default, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "large"}, "--preset large: use one of paper_v1"),
        ({"variant": "fft"}, "--variant fft: use one of ft, ff"),
        ({"device": "tpu"}, "--device tpu"),
        ({"precision": "fp16"}, "--precision fp16: use one of auto, fp32, bf16"),
        ({"steps": 0}, "--steps 0"),
        ({"save_minutes": float("nan")}, "--save-minutes nan"),
        ({"cache_mb": -1}, "--cache-mb -1"),
        ({"loader": "gpu"}, "--loader gpu: use one of auto, device, workers"),
        ({"reuse": 2, "loader": "workers"}, "--reuse 2: only the device loader"),
        ({"reuse": 2, "preset": "debug"}, "--reuse 2: only the device loader of the texture form"),
        (
            {"fresh": "E,F", "init": Path("model.safetensors")},
            "--fresh E,F: 'F' is not a network; use any of E, P, G, D",
        ),
        ({"fresh": "E"}, "--fresh E: without --init"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainArguments(data="a", out=Path("b"), **options)


def test_options_take_the_place_of_the_presets() -> None:
    arguments = TrainArguments(data="a", out=Path("b"), preset="paper_v2", batch=12, k=4, steps=9, variant="ff")
    preset = arguments.resolved()
    assert (preset.train.batch_size, preset.train.num_sources, preset.train.num_steps) == (12, 4, 9)
    assert (preset.train.variant, preset.train.num_epochs) == ("ff", 150)
    assert preset.losses == PRESETS["paper_v2"].losses
    texture = TrainArguments(data="a", out=Path("b"), scene="warp", lr=2e-4).resolved().train
    assert (texture.scene, texture.lr_generator) == ("warp", 2e-4)
    content = dataclasses.replace(arguments, content="vgg19, vggface=0.5,efficientnet_lite0").resolved().losses.content
    assert content == {"vgg19": 0.15, "vggface": 0.5, "efficientnet_lite0": 1.0}
    for text in ("vgg19=much", "", "vgg19=-1", "vgg19=nan"):
        with pytest.raises(InputError, match="use NAME or NAME=WEIGHT"):
            dataclasses.replace(arguments, content=text).resolved()


# One step.


def plain_step(trainer: Trainer, adams: list[Any], batch: dict[str, Tensor], adversarial: bool) -> dict[str, float]:
    """The step of docs/paper.md, "One step of meta-learning"; of trainer only the networks are used."""
    nets, preset = trainer.networks, trainer.preset
    w = preset.losses
    x, y, x_s, y_s = (batch[name].float() / 127.5 - 1 for name in ("x", "y", "x_s", "y_s"))
    e = nets.E(x_s, y_s)
    x_hat = nets.G(y, nets.P(e.mean(1))).image
    pixel = ((x_hat - x).abs() * (1 + 4 * (batch["regions"] / 255))).mean()
    loss = w.pixel * pixel
    if adversarial:
        r_hat, fake_acts = nets.D(x_hat, y, batch["clip"])
        with torch.no_grad():
            _, real_acts = nets.D(x, y, batch["clip"])
            goal = nets.D.W.weight[batch["clip"]]
        fm = sum((f - r).abs().mean() for f, r in zip(fake_acts, real_acts, strict=True)) / len(fake_acts)
        loss = loss - w.adversarial * r_hat.mean() + w.feature_matching * fm
        loss = loss + w.match * (e - goal[:, None]).abs().mean()
    of_g = [*nets.E.parameters(), *nets.P.parameters(), *nets.G.parameters()]
    of_d = list(nets.D.parameters())
    told = {"loss": loss.item()}
    for p, g in zip(of_g, torch.autograd.grad(loss, of_g), strict=True):
        p.grad = g
    torch.nn.utils.clip_grad_norm_(of_g, preset.train.clip_norm)
    adams[0].step()
    for _ in range(preset.train.num_discriminator_updates if adversarial else 0):
        both = [torch.cat(pair) for pair in ((x, x_hat.detach()), (y, y), (batch["clip"], batch["clip"]))]
        real, fake = nets.D(*both)[0].chunk(2)
        d_loss = (1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean()
        for p, g in zip(of_d, torch.autograd.grad(d_loss, of_d), strict=True):
            p.grad = g
        torch.nn.utils.clip_grad_norm_(of_d, preset.train.clip_norm)
        adams[1].step()
        told["d_loss"] = d_loss.item()
    return told


def test_three_steps_are_those_of_the_paper() -> None:
    trainer, other = trainer_of(PAPER), trainer_of(PAPER)
    of_g = [p for part in (other.networks.E, other.networks.P, other.networks.G) for p in part.parameters()]
    rates = {"betas": PAPER.train.betas, "eps": PAPER.train.eps}
    adams = [torch.optim.Adam(of_g, 1e-3, **rates), torch.optim.Adam(other.networks.D.parameters(), 2e-3, **rates)]
    for number in range(3):
        batch = batch_of(PAPER, seed=number)
        told = trainer.train_step(batch)
        expected = plain_step(other, adams, batch, adversarial=number >= PAPER.train.adversarial_from)
        for name, value in expected.items():
            assert told[name].item() == pytest.approx(value, rel=1e-4), (number, name)
        assert ("d_loss" in told) == (number > 0)
    for (name, net), (_, same) in zip(trainer.networks, other.networks, strict=True):
        for (key, value), expected in zip(net.state_dict().items(), same.state_dict().values(), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-4, msg=lambda m, n=(name, key): f"{n}: {m}")


def test_terms_are_the_losses_times_their_weights_and_add_up() -> None:
    trainer = trainer_of(dataclasses.replace(TEXTURE, train=dataclasses.replace(TEXTURE.train, num_sources=2)))
    batch = trainer.on_device(batch_of(TEXTURE))
    trainer.networks.D.requires_grad_(False)
    image, synthesized = torch.rand(2, 2, 3, 2 * PX, 2 * PX).mul(2).sub(1).requires_grad_().unbind(0)
    mask, correction = torch.rand(2, 1, 2 * PX, 2 * PX), torch.full((2, 2, PX // 2, PX // 2), 0.25)
    out = Synthesis(image, synthesized, mask, correction)
    e = torch.rand(2, 2, 6)

    def terms(preset: Preset, adversarial: bool = True) -> dict[str, Tensor]:
        made = generator_terms(trainer.discriminator_step, {}, preset, batch, e, out, adversarial=adversarial)
        return {name: value.detach() for name, value in made.items()}

    x, regions, w = batch["x"], batch["regions"], TEXTURE.losses
    seen = terms(TEXTURE)
    torch.testing.assert_close(seen["pixel"], w.pixel * losses.pixel_loss(image, x, regions))
    torch.testing.assert_close(seen["synthesized"], w.synthesized * losses.pixel_loss(synthesized, x, regions))
    torch.testing.assert_close(seen["drawn"], w.drawn * (1 - mask).mean())
    assert seen["correction"].item() == pytest.approx(w.correction * (0.25 * PX) ** 2)
    goal = trainer.networks.D.W.weight[batch["clip"]]
    torch.testing.assert_close(seen["match"], w.match * (e - goal[:, None]).abs().mean())
    without_match = dataclasses.replace(TEXTURE, train=dataclasses.replace(TEXTURE.train, variant="ff"))
    assert seen.keys() - terms(without_match).keys() == {"match"}
    assert seen.keys() - terms(TEXTURE, adversarial=False).keys() == {"match", "adversarial", "feature_matching"}
    told = trainer.train_step(batch_of(TEXTURE))
    torch.testing.assert_close(told["loss"], sum(told[name] for name in seen))


def test_a_collapsed_embedding_is_detected() -> None:
    trainer = trainer_of(TEXTURE)
    batches = [batch_of(TEXTURE, seed=number) for number in range(2)]
    assert trainer.validate(batches)["embedding"] > 0.2  # some of the six outputs of a fresh E are constant, too
    last = trainer.ema.average.E.down[-1]
    with torch.no_grad():  # the inputs of its last ReLU are not positive
        for bias in (last.conv2.bias, last.skip.bias):
            bias.fill_(-100.0)
    assert trainer.validate(batches)["embedding"] == 0


def test_a_stranger_is_the_next_of_another_person() -> None:
    assert other_people(torch.tensor([3, 3, 1, 1, 2])).tolist() == [2, 2, 4, 4, 0]
    assert other_people(torch.tensor([7, 7])).tolist() == [0, 1]


def test_identity_is_judged_on_the_aligned_face() -> None:
    preset = dataclasses.replace(TEXTURE, losses=dataclasses.replace(TEXTURE.losses, identity=0.5))
    trainer = trainer_of(preset)
    assert trainer_of(TEXTURE).identity is None and trainer.identity is not None
    told = trainer.train_step(batch_of(TEXTURE))
    batch = trainer.on_device(batch_of(TEXTURE))
    with torch.no_grad():  # a fresh G of the texture form gives the warped photo
        x, x_hat = (trainer.identity(chips(batch[name], batch["chip"])) for name in ("x", "warped"))
    assert told["identity"].item() == pytest.approx(0.5 * (x - x_hat).norm(dim=1).mean().item(), rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_landmarks_are_judged_where_the_landmarker_finds_them(precision: str) -> None:
    preset = dataclasses.replace(TEXTURE, losses=dataclasses.replace(TEXTURE.losses, landmarks=0.1))
    trainer = trainer_of(preset, precision=precision)
    assert trainer_of(TEXTURE).landmarks is None and trainer.landmarks is not None
    batch = trainer.on_device(batch_of(TEXTURE))
    with torch.no_grad():  # a fresh G of the texture form gives the warped photo
        x, x_hat = (trainer.landmarks.find(batch[name], batch["face"])[:, EXPRESSIVE, :2] for name in ("x", "warped"))
    distance = (x - x_hat).norm(dim=2).mean().item()
    held_out = trainer.validate([batch_of(TEXTURE)])
    assert held_out["landmarks_warped"] == pytest.approx(distance, rel=1e-3)
    assert held_out["landmarks"] == pytest.approx(distance, rel=1e-3 if precision == "fp32" else 0.5)
    told = trainer.train_step(batch_of(TEXTURE))
    assert told["landmarks"].item() == pytest.approx(0.1 * held_out["landmarks"], rel=1e-3)


def test_fresh_networks_start_anew_and_psi_hat_keeps_its_mean() -> None:
    old = trainer_of(TEXTURE).networks
    people = [batch_of(TEXTURE, seed=number, size=size) for number, size in ((1, 2), (2, 3))]
    trainer = trainer_of(TEXTURE, seed=1, init=old, fresh=("E", "P"), people=people)
    new = trainer.networks
    for name, is_same in (("E", False), ("P", False), ("G", True), ("D", True)):
        pairs = zip(getattr(old, name).parameters(), getattr(new, name).parameters(), strict=True)
        same = [torch.equal(*pair) for pair in pairs if pair[0].shape[0] != 5]  # not W
        assert all(same) if is_same else not all(same), name
    psi_hats = []
    for networks in (old, new):
        batches = [trainer.on_device(batch) for batch in people]
        with torch.no_grad():
            each = [networks.P.eval()(networks.E.eval()(b["x_s"], b["y_s"]).mean(1)) for b in batches]
        psi_hats.append(torch.cat(each))
    torch.testing.assert_close(psi_hats[0].mean(0), psi_hats[1].mean(0))
    assert not torch.allclose(*psi_hats)
    torch.testing.assert_close(trainer.ema.average.P.linear.bias, new.P.linear.bias)


@pytest.mark.parametrize(("is_trained", "decay"), [(False, 0.1), (True, 0.999)])
def test_the_average_of_trained_weights_is_long_from_the_first_step(is_trained: bool, decay: float) -> None:
    preset = dataclasses.replace(PAPER, train=dataclasses.replace(PAPER.train, ema=0.999))
    trainer = trainer_of(preset, init=trainer_of(preset, seed=1).networks if is_trained else None)
    before = trainer.synthesizer.G.to_image.bias.detach().clone()
    trainer.train_step(batch_of(PAPER))
    live, average = (s.G.to_image.bias.detach() for s in (trainer.synthesizer, trainer.ema.average))
    assert not torch.equal(live, before)
    torch.testing.assert_close(average, decay * before + (1 - decay) * live)
    other = trainer_of(preset)  # as in a resumed run
    other.load_state(trainer.state())
    assert other.ema.grows is not is_trained


def test_e_and_p_can_learn_at_another_rate() -> None:
    preset = dataclasses.replace(PAPER, train=dataclasses.replace(PAPER.train, lr_generator=1e-3, lr_embedder=0.0))
    trainer = trainer_of(preset)
    before = weights(trainer)
    trainer.train_step(batch_of(PAPER))
    parameters = {f"live.{name}" for name, _ in trainer.synthesizer.named_parameters()}
    moved = {name for name, value in weights(trainer).items() if not torch.equal(value, before[name])} & parameters
    assert moved and all(name.startswith("live.G.") for name in moved)


def test_what_judges_the_texture_form_sees_all_of_a_frame_or_a_part() -> None:
    batch = trainer_of(TEXTURE).on_device(batch_of(TEXTURE))
    seen = DiscriminatorInputs.of(batch, batch["warped"])
    assert seen.x.shape == seen.x_hat.shape == seen.y.shape == (2, 3, PX, PX)
    torch.testing.assert_close(seen.x[0, :, 1, 2], batch["x"][0, :, 2:4, 4:6].mean((1, 2)))  # the frame, downsampled
    torch.testing.assert_close(seen.x_hat[1], batch["warped"][1, :, :PX, :PX])  # the unchanged upper left quarter ..
    large = torch.nn.functional.interpolate(batch["y"], (2 * PX, 2 * PX), mode="bilinear")
    torch.testing.assert_close(seen.y[1], large[1, :, :PX, :PX])  # .. and its landmarks
    paper = trainer_of(PAPER).on_device(batch_of(PAPER))
    assert DiscriminatorInputs.of(paper, paper["x"]).y is paper["y"]


def test_the_person_is_judged_over_the_still_background() -> None:
    """The matte of an image moves with its flow correction: half a frame to the right of the left half is all."""
    image = torch.full((1, 3, 8, 8), 0.5)
    batch = Batch(plate=torch.full_like(image, -1), matte=torch.zeros(1, 1, 8, 8))
    batch["matte"][..., :4] = 1
    still = torch.zeros(1, 2, 2, 2)
    out = over_plate(Synthesis(image, image / 2, torch.ones(1, 1, 8, 8), still), batch)
    assert out.synthesized is not None
    assert (out.image[..., :4] == 0.5).all() and (out.image[..., 4:] == -1).all()
    assert (out.synthesized[..., :4] == 0.25).all() and (out.synthesized[..., 4:] == -1).all()
    left = torch.stack([torch.full((1, 2, 2), -0.5), torch.zeros(1, 2, 2)], 1)  # of where pixels come from
    assert (over_plate(Synthesis(image, correction=left), batch).image == 0.5).all()
    assert over_plate(Synthesis(image, correction=left), Batch()).image is image
    # With an untrained G, which returns the warped photo, and no loss outside the matte.
    trainer = trainer_of(TEXTURE)
    given = batch_of(TEXTURE)
    given["plate"], given["matte"] = given["warped"].flip(0), torch.zeros_like(given["regions"])
    assert trainer.validate([{**given, "plate": given["x"]}])["l1"] < 1e-6
    values = trainer.validate([given])
    assert values["l1"] == pytest.approx(values["l1_warped"], rel=1e-5)


class Twice(torch.nn.Module):
    """A content network with one layer, which doubles the picture."""

    layer_weights = (0.5,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [2 * images]


def test_held_out_content_is_also_measured_with_another_psi_hat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "content_network", lambda name: Twice())
    trainer = trainer_of(dataclasses.replace(PAPER, losses=LossWeights(content={"twice": 1.0})))
    batch = batch_of(PAPER)
    told = trainer.validate([batch])
    swapped = {**batch, "x_s": batch["x_s"].flip(0), "y_s": batch["y_s"].flip(0)}
    assert told["content_stranger"] != told["content"]
    assert told["content_stranger"] == pytest.approx(trainer.validate([swapped])["content"], rel=1e-6)
    alone = trainer.validate([{**batch, "person": torch.zeros(2)}])
    assert alone["content_stranger"] == pytest.approx(alone["content"], rel=1e-6)


def test_content_is_the_sum_over_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "content_network", lambda name: Twice())
    preset = dataclasses.replace(PAPER, losses=LossWeights(content={"vgg19": 3.0, "vggface": 4.0, "off": 0.0}))
    trainer = trainer_of(preset)
    assert list(trainer.content) == ["vgg19", "vggface"]
    batch = trainer.on_device(batch_of(preset))
    x_hat = torch.zeros_like(batch["x"], requires_grad=True)
    loss = weighted_content_loss(trainer.content, preset.losses, batch["x"], x_hat)
    torch.testing.assert_close(loss, 7.0 * 0.5 * 2 * batch["x"].abs().mean())
    loss.backward()
    assert x_hat.grad is not None and x_hat.grad.abs().sum() > 0


def test_before_its_step_d_is_neither_used_nor_trained() -> None:
    preset = dataclasses.replace(PAPER, train=dataclasses.replace(PAPER.train, adversarial_from=10))
    trainer = trainer_of(preset)
    trainer.networks.D.register_forward_pre_hook(lambda *_: pytest.fail("D was asked"))
    before = weights(trainer)
    trainer.train_step(batch_of(PAPER))
    after = weights(trainer)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any(name.startswith("judge.") for name in changed)


def test_average_is_that_of_the_weights_and_takes_over_the_vectors() -> None:
    preset = dataclasses.replace(PAPER, train=dataclasses.replace(PAPER.train, ema=0.3))
    trainer = trainer_of(preset)
    start = trainer.networks.G.down[0].conv1.parametrizations.weight.original.detach().clone()
    expected = start
    for number in range(1, 6):
        trainer.train_step(batch_of(PAPER, seed=number))
        live = trainer.networks.G.down[0].conv1.parametrizations.weight.original.detach()
        keep = min(0.3, number / (9 + number))  # 0.1, 0.18, 0.25, 0.3, 0.3
        expected = keep * expected + (1 - keep) * live
    kept = trainer.ema.average.G.down[0].conv1.parametrizations.weight
    torch.testing.assert_close(kept.original, expected)
    for (name, fresh), value in zip(trainer.synthesizer.named_buffers(), trainer.ema.average.buffers(), strict=True):
        assert torch.equal(value, fresh), name
    assert not trainer.ema.average.training


def test_gradients_are_clipped() -> None:
    rates = dataclasses.replace(PAPER.train, clip_norm=1e-3, adversarial_from=0)
    trainer = trainer_of(dataclasses.replace(PAPER, train=rates))
    told = trainer.train_step(batch_of(PAPER))
    for name, module in (("gradient", trainer.synthesizer), ("d_gradient", trainer.discriminator_step)):
        norm = torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm()
        assert told[name] > 1e-3
        assert norm.item() == pytest.approx(1e-3, rel=1e-2)


def test_bf16_trains_float32_weights() -> None:
    trainer = trainer_of(PAPER, precision="bf16")
    for number in range(2):
        told = trainer.train_step(batch_of(PAPER, seed=number))
    assert all(value.isfinite() for value in told.values()) and told["loss"].dtype == torch.float32
    assert {p.dtype for p in trainer.synthesizer.parameters()} == {torch.float32}


@pytest.mark.parametrize("preset", [pytest.param(PAPER, marks=pytest.mark.slow), TEXTURE])
def test_the_same_batch_again_and_again_is_learned(preset: Preset) -> None:
    rates = dataclasses.replace(preset.train, lr_generator=3e-3, betas=(0.9, 0.99), adversarial_from=10**6, ema=0.5)
    trainer = trainer_of(dataclasses.replace(preset, train=rates))
    batch = batch_of(preset)
    for name in ("x", "y", "x_s", "y_s", "warped"):
        if name in batch:
            batch[name] = batch[name].float().mean((-2, -1), keepdim=True).expand_as(batch[name]).to(torch.uint8)
    batch["x"] = batch["x"] // 2
    before = trainer.validate([batch])["l1"]
    for _ in range(25):
        trainer.train_step(batch)
    assert trainer.validate([batch])["l1"] < 0.6 * before


# Runs.


def state_of(run: Path) -> dict[str, Any]:
    state = read_state(run)
    assert state is not None
    return state


def assert_equal(a: Any, b: Any, where: str = "state") -> None:
    """Bitwise equality."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_equal(one, other, f"{where}.{number}")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.mark.parametrize("preset", ["tiny", pytest.param("tiny_texture", marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_ends_with_the_same_weights(shards: Path, tmp_path: Path, preset: str) -> None:
    whole = train(asked(shards, tmp_path / "whole", preset=preset, steps=4, val_every=4))
    assert (whole.step, whole.num_steps, whole.signal) == (4, 4, None)
    train(asked(shards, tmp_path / "parts", preset=preset, steps=2, val_every=4))
    torch.manual_seed(99)
    train(asked(shards, tmp_path / "parts", preset=preset, steps=4, val_every=4))
    states = [state_of(tmp_path / name) for name in ("whole", "parts")]
    for state in states:
        assert (state["step"], state["episodes"]) == (4, 8)
        state["curve"] = [{k: v for k, v in point.items() if k != "seconds"} for point in state["curve"]]
        state["random"] = None  # only the data of a step is random
        del state["seconds"], state["preset"]
    assert [point["step"] for point in states[0]["curve"]] == [0, 4]
    assert states[1]["curve"].pop(1)["step"] == 2  # the end of the first part
    assert_equal(*states)
    assert load_release(tmp_path / "parts" / "model.safetensors").record["steps"] == 4


def test_a_run_that_loads_on_its_device_resumes_with_the_same_weights(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mimik")
    options: dict[str, Any] = {"loader": "device", "val_every": 100}
    train(asked(shards, tmp_path / "whole", steps=3, **options))
    assert any("batches are prepared on cpu: the decoded clips take 0.00 GB" in one.message for one in caplog.records)
    for steps in (1, 3):
        train(asked(shards, tmp_path / "parts", steps=steps, **options))
    whole, parts = (state_of(tmp_path / name) for name in ("whole", "parts"))
    for part in ("synthesiser", "judge", "average", "generator_adam", "discriminator_adam"):
        assert_equal(whole[part], parts[part])


def test_clips_that_do_not_fit_into_the_devices_memory(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the decoded clips take 0.00 GB, and 0.00 GB .* or pass --loader workers"):
        train(asked(shards, tmp_path / "run", steps=1, loader="device", cache_mb=0))


def test_a_replayed_function_that_cannot_be_captured_is_called(caplog: pytest.LogCaptureFixture) -> None:
    """Without a GPU nothing can be captured; message and results are as for any other reason."""
    calls: list[int] = []

    def double(given: dict[str, Tensor]) -> dict[str, Tensor]:
        calls.append(1)
        return {"out": 2 * given["x"]}

    replayed = trainer_module.CapturedStep(double, enabled=True)
    replayed._calls = trainer_module._CALLS_BEFORE_CAPTURE
    for value in (1.0, 3.0):
        assert replayed({"x": torch.tensor(value)})["out"] == 2 * value
    assert len(calls) == 2
    assert [one.message for one in caplog.records if "every kernel is launched separately" in one.message]
    assert len([one for one in caplog.records if "captured" in one.message]) == 1


def test_what_a_run_leaves(shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mimik")
    run = tmp_path / "run"
    outcome = train(asked(shards, run, steps=3, val_every=2, save_minutes=0))
    assert outcome.release == run / "model.safetensors" and outcome.validation["l1"] > 0
    assert {path.name for path in run.iterdir() if not path.name.startswith(("events.", "."))} == {
        *("model.safetensors", "samples", "settings.json", STATE_NAME, PREVIOUS_NAME, "stats.jsonl")
    }
    assert state_of(run)["step"] == 3
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["000000.png", "000002.png", "000003.png"]
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val_l1" in line] == [0, 2, 3]
    last = next(line for line in reversed(lines) if "loss" in line)
    assert last.keys() >= {"loss", "pixel", "match", "d_loss", "images_per_s", "wait", "memory_gb", "seconds"}
    assert any("images/s" in record.message and "GB" in record.message for record in caplog.records)
    record = load_release(run / "model.safetensors").record
    assert record["data"]["clips"] == 5 and record["data"]["people"] == 4
    assert record["best"] in record["curve"] and str(shards) not in json.dumps(record)
    assert json.loads((run / "settings.json").read_text())["preset"]["train"]["num_sources"] == 2


def test_sample_grids_say_what_they_are() -> None:
    columns = {"x_s": -0.5, "y": -1.0, "warped": 0.0, "x": 1.0}
    batch = {name: torch.full((2, 3, PX, PX), value) for name, value in columns.items()}
    batch["x_s"] = batch["x_s"][:, None]
    batch["x"][:, 0] = -1  # no red
    out = Synthesis(torch.full((2, 3, PX, PX), 0.5), None, torch.full((2, 1, PX, PX), 0.25), None)
    grid = sample_grid(batch, out, "synthetic - mimik training sample, step 7")
    side = 128
    assert grid.shape == (24 + 2 * side, 6 * side, 3) and grid.dtype == np.uint8
    assert 0.02 < (grid[:24] < 128).mean() < 0.3  # text on white
    middles = grid[24 + side // 2 :: side, side // 2 :: side]
    assert (middles[0] == middles[1]).all()
    assert middles[0].tolist() == [[64] * 3, [0] * 3, [128] * 3, [191] * 3, [64] * 3, [255, 255, 0]]  # BGR
    paper = sample_grid({k: v for k, v in batch.items() if k != "warped"}, Synthesis(out.image), "a")
    assert paper.shape[1] == 4 * side


def test_a_run_resumes_only_with_equal_settings(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(asked(shards, run, steps=1))
    before = (run / STATE_NAME).read_bytes()
    others = tmp_path / "others"
    others.mkdir()
    write_shards(others, (12, 12))
    for change, message in (
        ({"batch": 4}, "was trained with train.batch_size 2, not 4"),
        ({"preset": "tiny_texture"}, "networks.form paper, not texture"),
        ({"seed": 1}, "with seed 0, not 1"),
        ({"data": str(others)}, "with other clips"),
    ):
        with pytest.raises(InputError, match=message):
            train(asked(shards, run, steps=2, **change))
    assert (run / STATE_NAME).read_bytes() == before


def test_folders_that_are_no_run(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with pytest.raises(InputError, match="contains other files"):
        train(asked(shards, tmp_path))
    with pytest.raises(InputError, match="is not a folder"):
        train(asked(shards, tmp_path / "letter.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_two_runs_do_not_share_a_folder(shards: Path, tmp_path: Path) -> None:
    def second(step: int, num_steps: int) -> None:
        with pytest.raises(InputError, match="another run is writing there"):
            train(asked(shards, tmp_path / "run"))

    assert train(asked(shards, tmp_path / "run", steps=1), progress=second).step == 1


@pytest.mark.slow  # the slow suite runs in one process, whose main thread receives signals
def test_a_signal_ends_the_run_after_the_step_with_a_saved_state(shards: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt(step: int, num_steps: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    outcome = train(asked(shards, tmp_path / "run", steps=50), progress=interrupt)
    assert outcome.signal == signal.SIGINT and outcome.step == 3  # it arrived after the second step
    assert state_of(tmp_path / "run")["step"] == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_time_ends_the_run_with_a_saved_state(shards: Path, tmp_path: Path) -> None:
    outcome = train(asked(shards, tmp_path / "run", steps=50, max_minutes=1e-6))
    assert (outcome.step, outcome.signal) == (1, None)
    assert state_of(tmp_path / "run")["step"] == 1


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train(asked(shards, run, steps=1))
    before = {name: (run / name).read_bytes() for name in (STATE_NAME, "model.safetensors")}
    monkeypatch.setattr(losses, "match_loss", lambda e, w: (e * torch.nan).mean())
    with pytest.raises(InputError, match=r"step 2: match is not finite.*that of step 1 is kept"):
        train(asked(shards, run, steps=3, save_minutes=0))
    assert before == {name: (run / name).read_bytes() for name in before}


def test_a_disk_that_is_full_from_the_start_is_named(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reporting.RunLog, "numbers", full)
    with pytest.raises(InputError, match="run: No space left on device; no newer state is saved, none was"):
        train(asked(shards, tmp_path / "run", steps=1))


def test_events_of_tensorboard_are_written_with_every_line(tmp_path: Path) -> None:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    diary = reporting.RunLog(tmp_path)
    diary.numbers(7, {"loss": 0.5, "content": 0.25})
    (path,) = tmp_path.glob("events.out.tfevents.*")
    points = [event for event in loading.EventFileLoader(str(path)).Load() if event.HasField("summary")]
    assert [(event.step, event.summary.value[0].tag) for event in points] == [(7, "loss"), (7, "content")]
    assert [event.summary.value[0].tensor.float_val[0] for event in points] == [0.5, 0.25]
    diary.close()


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_good_state(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    train(asked(shards, run, steps=1))
    before = {path.name: path.read_bytes() for path in run.glob("[ms]*.*")}

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        real = os.fsync
        patch.setattr(os, "fsync", lambda handle: full(handle) if os.fstat(handle).st_size > 50_000 else real(handle))
        with pytest.raises(InputError, match="no space left"):
            train(asked(shards, run, steps=2, val_every=10**6))
    kept = {path.name: path.read_bytes() for path in run.glob("[ms]*.*")}
    assert {n: b for n, b in kept.items() if n in (STATE_NAME, "model.safetensors")}.items() <= before.items()
    assert not [path for path in run.iterdir() if path.name.endswith(".part")]
    assert train(asked(shards, run, steps=2)).step == 2


@pytest.mark.slow
def test_a_release_can_be_the_start(shards: Path, tmp_path: Path) -> None:
    train(asked(shards, tmp_path / "first", steps=1))
    release = tmp_path / "first" / "model.safetensors"
    networks = load_release(release).networks
    run = meta_learning._Run(asked(shards, tmp_path / "second", init=release, seed=5), ALONE)
    run.close()
    for (name, net), (_, fresh) in zip(networks, run.trainer.networks, strict=True):
        for (key, value), (_, own) in zip(net.state_dict().items(), fresh.state_dict().items(), strict=True):
            assert key == "W.weight" or torch.equal(value, own), (name, key)
    assert run.trainer.networks.D.W.weight.shape == (5, 6)
    # The new record contains the earlier training, and so does the record of a follow-up run.
    for steps in (1, 2):
        train(asked(shards, tmp_path / "second", init=release, steps=steps))
    record = load_release(tmp_path / "second" / "model.safetensors").record
    first = load_release(release).record
    assert record["steps"] == 2 and first["before"] is None
    assert record["before"] == {name: first[name] for name in meta_learning._TOTALS}
    with pytest.raises(InputError, match=r"has networks.form paper, not texture"):
        train(asked(shards, tmp_path / "third", init=release, preset="tiny_texture"))
    run = meta_learning._Run(asked(shards, tmp_path / "fourth", init=release, seed=6, fresh="E, P"), ALONE)
    run.close()
    weight = "linear.parametrizations.weight.original"
    assert not torch.equal(run.trainer.networks.P.state_dict()[weight], networks.P.state_dict()[weight])


def test_held_out_people_without_other_shards(shards: Path, tmp_path: Path) -> None:
    run = meta_learning._Run(asked(shards, tmp_path / "run", val=None), ALONE)
    run.close()
    assert {clip.person for clip in run.index}.isdisjoint({clip.person for clip in run.held_out})
    assert len(run.index) + len(run.held_out) == 5
    single = tmp_path / "single"
    single.mkdir()
    write_shards(single, (12, 12))
    with pytest.raises(InputError, match=r"shows one person.*pass --val"):
        train(asked(single, tmp_path / "other", val=None))


def test_command(shards: Path, tmp_path: Path) -> None:
    def mimik(*more: str) -> Any:
        options = f"--data {shards} --val {shards} --preset tiny --device cpu --workers 0 --cache-mb 10".split()
        return CliRunner().invoke(cli.app, ["train", *options, *more], prog_name="mimik")

    done = mimik("--out", str(tmp_path / "run"), "--steps", "2")
    assert done.exit_code == 0, done.output
    assert "2 of 2 steps" in done.output and "step 2  held-out: content 0, content_stranger 0, l1" in done.output
    again = mimik("--out", str(tmp_path / "run"), "--steps", "3", "--max-minutes", "0.000001")
    assert again.exit_code == 0 and "resuming from step 2" in again.output
    wrong = mimik("--out", str(tmp_path / "run"), "--steps", "4", "--batch", "1")
    assert wrong.exit_code == 2 and "was trained with train.batch_size 2, not 1" in wrong.output
    if not torch.cuda.is_available():
        assert "torch finds no GPU" in mimik("--out", str(tmp_path / "new"), "--device", "cuda").output
    assert "only one process" in mimik("--out", str(tmp_path / "new"), "--fsdp").output


# Other machines, many processes.

CHILD = """
import sys
for name in ("av", "openvino", "PIL", "pillow_heif", "c2pa", "cryptography", "typer", "rich", "scipy", "mediapipe"):
    sys.modules[name] = None
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from mimik.config import *
from mimik.config import PRESETS
PRESETS["tiny"] = {preset!r}
from mimik.training import meta_learning
meta_learning._VALIDATION_EPISODES = 4
if __name__ == "__main__":
    sys.exit(meta_learning.main())
"""


def start(tmp_path: Path, preset: Preset, *options: str, rank: int = 0, size: int = 1, port: int = 0) -> Any:
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(tests=str(Path(__file__).parents[1]), preset=preset))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if size > 1:
        env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common = ("--preset", "tiny", "--device", "cpu", "--cache-mb", "10")
    command = [sys.executable, str(script), *common, *options]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


ELASTIC = """
import signal
import sys
import time
import torch
torch.set_num_threads(1)
from mimik.config import *
from mimik.config import PRESETS
PRESETS["debug"] = {preset!r}
from mimik.training import meta_learning, reporting, trainer
meta_learning._VALIDATION_EPISODES = 4
meta_learning._LOG_EVERY_S = 0.0  # a line for each step
step, note, alone = trainer.Trainer.train_step, reporting.StopSignals._note, []
def with_the_other(self, batch):  # after four steps alone, not before torchrun calls for a new start
    if self.world.size == 1:
        alone.append(batch)
    while len(alone) > 4 and signal.SIGTERM not in alone:
        time.sleep(0.05)
    return step(self, batch)
def called(self, number, frame):
    alone.append(number)
    note(self, number, frame)
trainer.Trainer.train_step, reporting.StopSignals._note = with_the_other, called
if __name__ == "__main__":
    sys.exit(meta_learning.main())
"""


class Agent:
    """A machine: torchrun with one process, which ends with it."""

    def __init__(self, script: Path, port: int, log: Path, *options: str, is_host: bool = False) -> None:
        # Seconds instead of the half minute in which torchrun waits for lost or new machines.
        settings = f"is_host={int(is_host)},last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3"
        torchrun = ["-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3"]
        torchrun += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=mimik"]
        torchrun += [f"--rdzv-conf={settings}", "--monitor-interval=0.2", str(script)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *torchrun, *options], env=env, stdout=file, stderr=subprocess.STDOUT
            )

    def pull_the_plug(self) -> None:
        if self.process.poll() is not None:
            return
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for number in (self.process.pid, *map(int, children)):
            os.kill(number, signal.SIGKILL)
        self.process.wait()


def losses_of(*runs: Path) -> dict[int, dict[str, float]]:
    """The lines of steps in the stats.jsonl of all folders; the later one if a step was repeated."""
    paths = [run / "stats.jsonl" for run in runs]
    lines = [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]
    return {line["step"]: line for line in lines if "loss" in line}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a machine under /proc")
@pytest.mark.parametrize("disk", ["shared", "separate"])
def test_machines_may_go_down_and_come_back(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    debug = PRESETS["debug"]
    # A large eps prevents the growth of rounding errors, which depend on the number of processes, over steps.
    rates = dataclasses.replace(debug.train, eps=1.0, lr_generator=1e-3, lr_discriminator=1e-3, adversarial_from=2)
    preset = dataclasses.replace(
        debug,
        networks=dataclasses.replace(debug.networks, image_px=PX, embedding_dim=6, **SIZES),
        losses=dataclasses.replace(debug.losses, content={}),
        train=dataclasses.replace(rates, num_sources=2, batch_size=4),
    )
    script, port = tmp_path / "elastic.py", free_port()
    script.write_text(ELASTIC.format(preset=preset))
    options = ["--preset", "debug", "--device", "cpu", "--cache-mb", "10", "--workers", "0", "--save-minutes", "0"]
    options += ["--data", str(shards), "--val", str(shards), "--val-every", "100000"]
    runs = [tmp_path / "one", tmp_path / ("two" if disk == "separate" else "one")]

    def wait_for(steps: int) -> None:
        deadline = time.monotonic() + 240  # the cores may be busy with other programs
        while max(losses_of(*runs), default=0) < steps:
            assert time.monotonic() < deadline, "\n".join(agent.log.read_text() for agent in agents)
            time.sleep(0.1)

    agents: list[Agent] = []

    def begin(number: int, steps: int, **more: Any) -> Agent:
        log = tmp_path / f"{len(agents)}.log"
        agents.append(Agent(script, port, log, *options, "--steps", str(steps), "--out", str(runs[number]), **more))
        return agents[-1]

    num_steps = 24
    try:
        # The older process is the first one of the two. The rendezvous is on the other machine, which remains.
        doomed = begin(0, num_steps)
        staying = begin(1, num_steps, is_host=True)
        wait_for(5)
        doomed.pull_the_plug()
        alone_from = max(losses_of(*runs))
        wait_for(alone_from + 3)
        back_from = max(losses_of(*runs))
        back = begin(0, num_steps)
        assert [agent.process.wait(240) for agent in (staying, back)] == [0, 0], staying.log.read_text()
    finally:
        for agent in agents:
            agent.pull_the_plug()
    text = staying.log.read_text()
    assert "another process has ended" in text and "Traceback" not in text
    assert text.count("resuming from step") == 2
    states = [state_of(run) for run in runs]
    assert [state["step"] for state in states] == [num_steps] * 2
    assert [state["episodes"] for state in states] == [4 * num_steps] * 2
    told = losses_of(*runs)
    assert sorted(told) == list(range(1, num_steps + 1)) and back_from < num_steps
    with monkeypatch.context() as patch:
        patch.setattr(meta_learning, "_LOG_EVERY_S", 0.0)
        patch.setitem(PRESETS, "debug", preset)
        train(asked(shards, tmp_path / "alone", preset="debug", steps=num_steps, val_every=100000, save_minutes=100))
    expected = losses_of(tmp_path / "alone")
    for number, line in expected.items():
        for name in ("loss", "pixel", "match", "gradient", "d_loss", "d_real", "d_fake"):
            if name in line:  # six digits are written
                # Rounding depends on the number of processes, and grows over steps, mainly in gradients.
                rel = (1e-2 if name == "gradient" else 1e-3) if number > 13 else 1e-4
                assert told[number][name] == pytest.approx(line[name], rel=rel, abs=1e-5), (number, name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["workers", "device"])
def test_a_machine_that_trains_needs_torch_numpy_opencv_and_safetensors(
    shards: Path, tmp_path: Path, loader: str
) -> None:
    preset = dataclasses.replace(PAPER, losses=dataclasses.replace(PAPER.losses, content={"efficientnet_lite0": 1.0}))
    options = ("--data", str(shards), "--out", str(tmp_path / "run"), "--steps", "1", "--workers", "0")
    options += "--loader", loader
    child = start(tmp_path, preset, *options)
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 0, output
    assert "images/s" in output and (tmp_path / "run" / "samples" / "000001.png").exists()


def test_the_plain_command_line_ends_with_one_sentence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--steps", "3"])
    assert meta_learning.main() == 2
    assert "contains no index.jsonl" in caplog.records[-1].message
    assert not (tmp_path / "run").exists()


def test_processes_that_do_not_fit(shards: Path, tmp_path: Path) -> None:
    pair = World(1, 2, torch.device("cpu"))
    with pytest.raises(InputError, match="--batch 3: use a multiple of the 2 processes"):
        meta_learning._Run(asked(shards, tmp_path / "run", batch=3), pair)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("fsdp", "loader"), [(False, "workers"), (True, "workers"), (False, "device")])
def test_two_processes_do_what_one_does_with_the_whole_batch(
    shards: Path, tmp_path: Path, fsdp: bool, loader: str
) -> None:
    # The length of Adam's first steps is the learning rate, also for a gradient that is 0 except for rounding. A
    # large eps prevents this.
    rates = dataclasses.replace(PAPER.train, batch_size=4, eps=1.0, lr_generator=0.05, lr_discriminator=0.1)
    preset = dataclasses.replace(PAPER, train=rates)
    workers = "1" if fsdp else "0"
    options = ("--data", str(shards), "--val", str(shards), "--workers", workers, "--steps", "3", "--val-every", "3")
    together, port = tmp_path / "together", free_port()
    more = ("--out", str(together), "--loader", loader, *(["--fsdp"] if fsdp else []))
    children = [start(tmp_path, preset, *options, *more, rank=rank, size=2, port=port) for rank in (0, 1)]
    outputs = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], "\n".join(outputs)
    PRESETS["tiny"] = preset  # restored by the fixture
    train(asked(shards, tmp_path / "alone", steps=3, val_every=3, loader=loader))
    states = [state_of(folder) for folder in (together, tmp_path / "alone")]
    assert [state["episodes"] for state in states] == [12, 12]
    assert len(states[0]["random"]) == 2
    for part in ("synthesiser", "judge", "average"):
        for key, value in states[0][part].items():
            torch.testing.assert_close(
                value, states[1][part][key], rtol=0, atol=1e-5, msg=lambda m, n=(part, key): f"{n}: {m}"
            )
    for key in ("content", "l1"):
        assert states[0]["curve"][-1][key] == pytest.approx(states[1]["curve"][-1][key], abs=1e-5)
    moments = [state["generator_adam"]["state"] for state in states]
    for slot, values in moments[0].items():
        torch.testing.assert_close(values["exp_avg_sq"], moments[1][slot]["exp_avg_sq"], rtol=0, atol=1e-5)
    # One process resumes from the state of two.
    assert train(asked(shards, together, steps=4)).step == 4
