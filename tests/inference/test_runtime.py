"""runtime.py: OpenVINO's results equal those of networks/."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import lively

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from mimik.config import PRESETS, ModelError, NetworkConfig, Preset
from mimik.inference import runtime
from mimik.inference.runtime import Network
from mimik.inference.synthesis import BUNDLED_MODEL
from mimik.networks import checkpoint
from mimik.networks.generators import NUM_GEOMETRY, Networks, build_networks
from mimik.networks.release import read_release

PX, N = 32, 12


def preset(form: str, attention: bool) -> Preset:
    config = NetworkConfig(
        form=form,
        image_px=PX,
        embedder_channels=(4, 16),
        generator_channels=(4, 8),
        discriminator_channels=(4, 8),
        embedding_dim=N,
        attention=attention,
        landmarks="full",
    )
    return replace(PRESETS["texture"], networks=config)


def trained(config: NetworkConfig) -> Networks:
    """Networks in which every part has an effect."""
    torch.manual_seed(0)
    return lively(build_networks(config, 2))


@pytest.mark.parametrize(("form", "attention"), [("paper", True), ("paper", False), ("texture", False)])
def test_openvino_computes_what_torch_computes(tmp_path: Path, form: str, attention: bool) -> None:
    made = preset(form, attention)
    checkpoint.save_release(tmp_path / "model.safetensors", trained(made.networks), made, {"steps": 3})
    nets = checkpoint.load_release(tmp_path / "model.safetensors").networks
    release = read_release(tmp_path / "model.safetensors")
    assert (release.preset, release.record) == (made, {"steps": 3})
    runtime = Network(release.preset.networks, release.tensors, exact=True)

    x, y = torch.rand(2, 3, 3, PX, PX).mul(2).sub(1)
    with torch.inference_mode():
        e_hat = nets.E(x[None], y[None]).mean(1)
        psi_hat = nets.P(e_hat)
        inputs = [y[:1]]
        if form == "texture":
            inputs += [x[:1], torch.randn(1, NUM_GEOMETRY, PX // 2, PX // 2)]
            expected = nets.G.predict(y[:1], psi_hat, *inputs[1:])
        else:
            expected = (nets.G(y[:1], psi_hat).image,)
    np.testing.assert_allclose(runtime.embed(x.numpy(), y.numpy()), e_hat[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(runtime.project(e_hat[0].numpy()), psi_hat[0], rtol=1e-4, atol=1e-4)
    out = runtime.generator(psi_hat[0].numpy())(*(value.numpy() for value in inputs))
    assert len(out) == len(expected)
    for ours, theirs in zip(out, expected, strict=True):
        assert theirs.std() > 1e-3
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    # The default: bfloat16 or 8-bit integers; the weights here are far larger than trained ones.
    fast = Network(release.preset.networks, release.tensors).generator(psi_hat[0].numpy())
    for ours, theirs in zip(fast(*(value.numpy() for value in inputs)), expected, strict=True):
        assert np.abs(ours - theirs.numpy()).mean() < 0.15 * theirs.numpy().std()


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ModelError, match="no such file"):
        read_release(path)
    path.write_bytes(b"something else")
    with pytest.raises(ModelError, match="damaged or not a model"):
        read_release(path)


def test_a_model_that_lacks_a_tensor_or_has_another_psi(tmp_path: Path) -> None:
    made = preset("texture", False)
    nets = trained(made.networks)
    tensors = {key: value.numpy() for key, value in checkpoint.release_tensors(nets).items()}
    size = 2 * sum(nets.G.adain_sizes)
    for wrong in (size - 2, size + 2):
        with pytest.raises(ModelError, match="psi_hat is"):
            Network(made.networks, tensors).generator(np.zeros(wrong, np.float32))
    del tensors["G.up.0.conv1.parametrizations.weight.original"]
    with pytest.raises(ModelError, match=r"lacks G\.up\.0\.conv1"):
        Network(made.networks, tensors).generator(np.zeros(size, np.float32))


def test_calls_from_several_threads_do_not_mix() -> None:
    """Two concurrent sliders use one graph; each gets the result of its own inputs."""
    op = runtime._opset()
    parameter = op.parameter([1, 3, 64, 64], np.float32)
    graph = runtime._Compiled([op.multiply(parameter, runtime._constant(2.0))], [parameter], 1, "f32")
    wrong: list[object] = []

    def ask(number: int) -> None:
        given = np.full((1, 3, 64, 64), number, np.float32)
        for _ in range(150):
            try:
                answer = graph(given)[0]
                if not (answer == 2 * number).all():
                    wrong.append(answer.ravel()[0])
            except RuntimeError as error:  # the request is busy
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_processor_for_which_openvino_lacks_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without AVX OpenVINO has no instance norm ("bad combination"), so other layers compute it."""
    made = preset("texture", attention=False)
    checkpoint.save_release(tmp_path / "model.safetensors", trained(made.networks), made, {"steps": 3})
    release = read_release(tmp_path / "model.safetensors")
    network = Network(release.preset.networks, release.tensors, exact=True)
    psi_hat = network.project(np.ones(N, np.float32))
    rng = np.random.default_rng(0)
    shapes = (1, 3, PX, PX), (1, 3, PX, PX), (1, NUM_GEOMETRY, PX // 2, PX // 2)
    inputs = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    usual = network.generator(psi_hat)(*inputs)

    compiled, built = runtime._Compiled, []

    def refusing(outputs, inputs, *options):  # as OpenVINO does
        names = {node.get_type_name() for node in runtime.openvino().Model(outputs, inputs, "").get_ops()}
        built.append(names)
        if {"MVN", "Interpolate"} & names:
            raise RuntimeError("Exception from src/inference/src/dev/plugin.cpp:54:\nbad combination\n")
        return compiled(outputs, inputs, *options)

    monkeypatch.setattr(runtime, "_Compiled", refusing)
    for ours, theirs in zip(network.generator(psi_hat)(*inputs), usual, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    assert len(built) == 2 and "MVN" in built[0]

    def never(*_):
        raise RuntimeError("bad combination")

    monkeypatch.setattr(runtime, "_Compiled", never)
    with pytest.raises(ModelError, match=r"cannot run the model on this processor \(bad combination\); pass --model"):
        network.generator(psi_hat)


def test_eight_bits_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only convolutions of normalized inputs use 8 bits, and only if bfloat16 is not faster."""
    monkeypatch.setattr(runtime, "fast_precision", lambda: "f32")
    monkeypatch.setattr(runtime, "has_int8", lambda: True)
    release = read_release(BUNDLED_MODEL)
    config = release.preset.networks
    exact, rounded = (Network(config, release.tensors, 1, exact=exact) for exact in (True, False))
    psi_hat = exact.project(np.full(config.embedding_dim, 0.3, np.float32))
    px, rng = config.image_px, np.random.default_rng(0)
    shapes = (1, 3, px, px), (1, 3, px, px), (1, NUM_GEOMETRY, px // 2, px // 2)
    inputs = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]
    pairs = zip(rounded.generator(psi_hat)(*inputs), exact.generator(psi_hat)(*inputs), strict=True)
    errors = [np.abs(ours - theirs).mean() / theirs.std() for ours, theirs in pairs]
    assert min(errors) > 0 and max(errors) < 0.05, errors
