"""Exported graphs equal torch in every runtime, and exported files describe themselves."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from conftest import eyes_closed, lively

torch = pytest.importorskip("torch", reason="what exports is not installed: pip install '.[export]'")
onnx = pytest.importorskip("onnx", reason="what exports is not installed: pip install '.[export]'")
pytest.importorskip("onnxruntime", reason="what exports is not installed: pip install '.[export]'")

from mimik.animation.avatar import Avatar
from mimik.animation.source_frame import MOST_OPENED
from mimik.app import cli
from mimik.app.export import description, exporting, graphs, motion_data, settings
from mimik.app.export.exporting import PORTRAIT
from mimik.app.export.graphs import multiply_adds
from mimik.app.export.motion_data import packed
from mimik.app.export.networks import OUTPUTS, Drawing, baked
from mimik.app.export.settings import ExportConfig, check_export_folder
from mimik.app.export.source import ExportSource
from mimik.app.export.stage import Stage, calibration_frames, embedded
from mimik.config import PRESETS, AnimateConfig, InputError, ModelError, NetworkConfig, Preset
from mimik.face.landmark_images import landmark_image, landmark_lines, mouth_interior
from mimik.face.landmarks import Face, Image, Landmarker
from mimik.face.openvino_core import openvino
from mimik.inference.avatar_file import AvatarFile, SourceFile, read_avatar
from mimik.inference.runtime import Network
from mimik.media import video
from mimik.motion.files import Motion
from mimik.motion.kinds import bundled_motions
from mimik.networks.checkpoint import load_release, release_tensors, save_release
from mimik.networks.generators import NUM_GEOMETRY, Networks, build_networks
from mimik.networks.release import read_release
from mimik.provenance.manifests import SOURCE_TYPE
from mimik.rendering.flow import Warper
from mimik.rendering.mirror import MirrorFlow, opacity
from mimik.rendering.painter import Painter

pytestmark = pytest.mark.usefixtures("one_landmarker")

PX = 64
COMMON = {"Add", "AveragePool", "Concat", "Constant", "Conv", "DepthToSpace", "Div", "Identity"}
COMMON |= {"InstanceNormalization", "MatMul", "MaxPool", "Mul", "Relu", "Reshape", "Resize", "Sigmoid", "Slice"}
COMMON |= {"Softmax", "Tanh", "Transpose"}
CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser")) if path), None)
BROWSER = Path(__file__).resolve().parents[2] / "examples/browser"


def preset(form: str, attention: bool = False, px: int = PX) -> Preset:
    config = NetworkConfig(
        form=form,
        image_px=px,
        embedder_channels=(4, 16),
        generator_channels=(4, 8),
        discriminator_channels=(4, 8),
        embedding_dim=12,
        attention=attention,
        landmarks="smooth" if form == "texture" else "paper",
    )
    return replace(PRESETS["texture" if form == "texture" else "debug"], networks=config)


def networks(made: Preset) -> Networks:
    """Networks in which every part has an effect."""
    torch.manual_seed(3)
    return lively(build_networks(made.networks, 0))


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("releases")
    for form in ("paper", "texture"):
        made = preset(form)
        save_release(folder / f"own_{form}.safetensors", networks(made), made, {})
    return {form: folder / f"own_{form}.safetensors" for form in ("paper", "texture")}


@pytest.fixture(scope="module")
def people(
    releases: dict[str, Path], small_portrait: Image, small_face: Face, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Avatars of the same person, as from `mimik learn`."""
    folder = tmp_path_factory.mktemp("people")
    generator = torch.Generator().manual_seed(1)
    for form, path in releases.items():
        nets = load_release(path).networks
        psi = torch.randn(2 * sum(nets.G.adain_sizes), generator=generator).mul(0.3).add(0.5).numpy()
        tensors = {name: v.numpy() for name, v in release_tensors(nets).items() if name.startswith("G.")}
        record = {"model": {"name": path.name, "sha256": "0" * 64, "format": ""}}
        source = (SourceFile("person.png", "0" * 64, "image/png"),)
        person = AvatarFile(preset(form), record, tensors, psi, small_portrait, small_face, source)
        (folder / f"{form}.avatar").write_bytes(person.pack())
    return {form: folder / f"{form}.avatar" for form in releases}


def noise(form: str, px: int = PX) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    y = rng.uniform(-1, 1, (1, 3, px, px)).astype(np.float32)
    if form == "paper":
        return [y]
    geometry = rng.normal(0, 0.3, (1, NUM_GEOMETRY, px // 2, px // 2)).astype(np.float32)
    return [y, rng.uniform(-1, 1, y.shape).astype(np.float32), geometry]


def drawn(nets: Networks, psi: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Output of torch, directly from generators.py."""
    given = [torch.from_numpy(value) for value in inputs]
    with torch.inference_mode():
        if nets.config.form == "paper":
            return [nets.G(given[0], psi).image.numpy()]
        return [value.numpy() for value in nets.G.predict(given[0], psi, *given[1:])]


def in_openvino(data: bytes, sample: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Output of a graph in OpenVINO, read from a file as by users."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.onnx")
        path.write_bytes(data)
        compiled = openvino().Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(compiled(sample).values())


# Computations.


@pytest.mark.parametrize(("form", "attention"), [("paper", True), ("texture", False)])
def test_a_baked_graph_draws_what_torch_draws_everywhere(form: str, attention: bool) -> None:
    nets = networks(preset(form, attention))
    psi = torch.randn(1, 2 * sum(nets.G.adain_sizes)).mul(0.3).add(0.5)
    names = ["y", "warped", "geometry"][: 1 if form == "paper" else 3]
    samples = [dict(zip(names, noise(form), strict=True))]
    module = Drawing(baked(nets.G, psi), psi)
    made = graphs.make_graph("generator", module, OUTPUTS[form], samples, "fp32", about={"notice": "none"})
    model = onnx.load_from_string(made.data)
    # Static shapes, no sampling, folded AdaIN: one instance norm per norm of G, and no psi.
    assert [value.name for value in model.graph.input] == names
    assert {node.op_type for node in model.graph.node} <= COMMON
    norms = sum(node.op_type == "InstanceNormalization" for node in model.graph.node)
    assert norms == len(nets.G.adain_sizes) + 2 * (len(nets.G.down) - 1)

    expected = drawn(nets, psi, noise(form))
    onnxruntime_draws = graphs.session(made.data, num_threads=1).run(None, samples[0])
    openvino_draws = in_openvino(made.data, samples[0])
    for ours in (onnxruntime_draws, openvino_draws):
        for found, right in zip(ours, expected, strict=True):
            assert right.std() > 1e-3
            np.testing.assert_allclose(found, right, atol=2e-4)
    assert all(found.largest < 2e-4 for found in made.parity.values())
    # G is unchanged.
    for found, right in zip(drawn(nets, psi, noise(form)), expected, strict=True):
        np.testing.assert_array_equal(found, right)


@functools.cache
def traced(path: Path) -> tuple[Networks, Any]:
    """The networks of a model, and the graph of its generator."""
    nets = load_release(path).networks
    inputs = dict(zip(["y", "warped", "geometry"], noise(nets.config.form), strict=False))
    drawing = Drawing(nets.G, torch.zeros(1, 2 * sum(nets.G.adain_sizes)))
    return nets, graphs._traced(drawing, inputs, OUTPUTS[nets.config.form])


def test_multiply_adds_are_those_that_torch_does(releases: dict[str, Path]) -> None:
    nets, model = traced(releases["texture"])
    counted = 0

    def count(layer: Any, inputs: Any, output: Any) -> None:
        nonlocal counted
        counted += output.numel() * layer.weight[0].numel()

    psi = torch.zeros(1, 2 * sum(nets.G.adain_sizes))
    inputs = noise("texture")
    hooks = [m.register_forward_hook(count) for m in nets.G.modules() if isinstance(m, torch.nn.Conv2d)]
    drawn(nets, psi, inputs)
    for hook in hooks:
        hook.remove()
    assert multiply_adds(model) == counted > 1e6


def test_multiply_adds_by_hand() -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(5 * 8 * 8, 7))
    model = graphs._traced(layers, {"x": np.zeros((1, 3, 8, 8), np.float32)}, ("y",))
    assert multiply_adds(model) == 8 * 8 * 5 * (3 * 3 * 3) + 7 * 320


@pytest.mark.parametrize(("form", "last"), [("texture", ["to_flow", "to_picture"]), ("paper", ["to_image"])])
def test_the_last_convolutions_are_those_that_make_the_outputs(
    releases: dict[str, Path], form: str, last: list[str]
) -> None:
    _, model = traced(releases[form])
    assert [name.split("/")[-2] for name in graphs.last_convolutions(model)] == last


def test_a_model_without_a_person_gives_the_embedder_too(
    releases: dict[str, Path], small_portrait: Image, small_face: Face, tmp_path: Path
) -> None:
    made = exporting.export(str(releases["texture"]), tmp_path / "out", ExportConfig())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "embedder.onnx",
        "export.json",
        "generator.onnx",
    ]
    assert [graph.name for graph in made.graphs] == ["embedder", "generator"] and not made.notes
    # psi_hat of several photos is the mean of the individual ones.
    release = read_release(releases["texture"])
    network = Network(release.preset.networks, release.tensors, exact=True)
    pictures = [small_portrait, small_portrait[:, ::-1].copy()]
    read = [embedded(release.preset.networks, picture, small_face.points) for picture in pictures]
    embed = graphs.session((tmp_path / "out/embedder.onnx").read_bytes())
    each = [embed.run(None, {"x": x, "y": y})[0][0] for x, y in read]
    e_hat = network.embed(*(np.concatenate(values) for values in zip(*read, strict=True)))
    assert not np.allclose(each[0], each[1], atol=1e-3)
    np.testing.assert_allclose(np.mean(each, axis=0), network.project(e_hat), atol=1e-3)
    # The generator renders any given person.
    nets = load_release(releases["texture"]).networks
    draw = graphs.session((tmp_path / "out/generator.onnx").read_bytes())
    inputs = noise("texture")
    names = ["y", "warped", "geometry"]
    for psi in each:
        ours = draw.run(None, dict(zip(names, inputs, strict=True)) | {"psi_hat": psi[None]})
        for found, right in zip(ours, drawn(nets, torch.from_numpy(psi[None]), inputs), strict=True):
            np.testing.assert_allclose(found, right, atol=2e-4)


def test_a_models_person_is_baked_in(
    releases: dict[str, Path], small_path: Path, small_portrait: Image, small_face: Face, tmp_path: Path
) -> None:
    made = exporting.export(str(releases["texture"]), tmp_path / "out", ExportConfig(photo=small_path, size=256))
    release = read_release(releases["texture"])
    network = Network(release.preset.networks, release.tensors, exact=True)
    x, y = embedded(release.preset.networks, small_portrait, small_face.points)
    inputs = noise("texture")
    expected = network.generator(network.project(network.embed(x, y)))(*inputs)
    ours = graphs.session(made.graphs[0].data).run(None, dict(zip(("y", "warped", "geometry"), inputs, strict=True)))
    for found, right in zip(ours, expected, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-3)


def test_an_uninformative_embedder_is_reported(
    releases: dict[str, Path], exported: tuple[Path, settings.Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = exporting.make_graph
    monkeypatch.setattr(  # the generator is one that was made before
        exporting,
        "make_graph",
        lambda name, *a, **k: make(name, *a, **k) if name == "embedder" else exported[1].graphs[0],
    )
    nets = load_release(releases["texture"]).networks
    nets.E.down[-1].conv2.bias.data.fill_(-100)
    save_release(tmp_path / "dead.safetensors", nets, preset("texture"), {})
    made = exporting.export(str(tmp_path / "dead.safetensors"), tmp_path / "out", ExportConfig())
    assert "is the same for every picture" in made.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["paper", "texture"])
@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.75), ("int8", 0.75)])
def test_smaller_numbers_make_smaller_files_that_draw_nearly_the_same(
    people: dict[str, Path], tmp_path: Path, form: str, precision: str, share: float
) -> None:
    plain = exporting.export(str(people[form]), tmp_path / "fp32", ExportConfig(size=256)).graphs[0]
    made = exporting.export(str(people[form]), tmp_path / "small", ExportConfig(size=256, precision=precision)).graphs[
        0
    ]
    weights = {"fp16": (np.float16,), "int8": (np.int8, np.int32)}[precision]
    kept = [onnx.numpy_helper.to_array(one) for one in onnx.load_from_string(made.data).graph.initializer]
    assert sum(a.nbytes for a in kept) < share * 4 * plain.parameters
    assert any(a.dtype in weights and a.size > 100 for a in kept)
    assert made.multiply_adds == plain.multiply_adds
    # The runtimes agree closely; they round bytes differently.
    tolerance = {"fp16": 0.02, "int8": 0.03}[precision]
    made_from = ExportSource.of(str(people[form]), ExportConfig())
    samples = calibration_frames(Stage(made_from.avatar, made_from.config, 256), 4)
    ours = [graphs.session(made.data).run(None, sample) for sample in samples]
    others = [in_openvino(made.data, sample) for sample in samples]
    for found, other, difference in zip(
        zip(*ours, strict=True), zip(*others, strict=True), made.parity.values(), strict=True
    ):
        assert found[0].dtype == np.float32
        assert np.abs(np.stack(found) - np.stack(other)).mean() < tolerance * max(difference.span, 0.01)


def test_what_does_not_compute_the_same_is_not_given_away(
    people: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(graphs._LIMITS, "fp32", (0.0, 0.0))
    with pytest.raises(ModelError, match=r"--precision fp32: .* deviates by .* Nothing is written"):
        exporting.export(str(people["texture"]), tmp_path / "out", ExportConfig(size=256))
    assert list(tmp_path.iterdir()) == []


def test_the_limits_judge_what_is_not_finite() -> None:
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ModelError, match="mask of the generator deviates"):
            graphs.check({"mask": settings.Difference(wrong, wrong, 1.0, 1.0)}, "int8", "generator")


# Files of an export.


@pytest.fixture(scope="module")
def exported(
    people: dict[str, Path], landmarker: Landmarker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, settings.Exported]:
    """A person with 20 frames of a laugh, as a folder."""
    folder = tmp_path_factory.mktemp("exported")
    motion = Motion.load(bundled_motions()["laugh"])
    part = replace(
        motion,
        **{key: getattr(motion, key)[40:60] for key in ("turn", "shift", "zoom", "offset", "blendshapes", "seen")},
    )
    part.save(folder / "part.motion")
    config = ExportConfig(motions=(str(folder / "part.motion"),), size=256)
    return folder / "out", exporting.export(str(people["texture"]), folder / "out", config)


def test_the_record_describes_the_graph(people: dict[str, Path], exported: tuple[Path, settings.Exported]) -> None:
    out, made = exported
    record = json.loads((out / "export.json").read_text())
    assert "synthetic" in record["notice"] and record["digital_source_type"] == SOURCE_TYPE
    assert "consent" in record["notice"] and any("Mark the frame" in step for step in record["host"])
    assert record["model"]["form"] == "texture" and record["model"]["license"]
    about = record["graphs"]["generator"]
    data = (out / about["file"]).read_bytes()
    assert len(data) == about["bytes"] and data == made.graphs[0].data
    model = onnx.load_from_string(data)
    assert model.doc_string == record["notice"]
    assert {one.key: one.value for one in model.metadata_props}["notice"] == record["notice"]
    for ports, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        shapes = {v.name: [size.dim_value for size in v.type.tensor_type.shape.dim] for v in values}
        assert {one["name"]: one["shape"] for one in about[ports]} == shapes
    assert str(out.parent) not in json.dumps(record)
    pairs = [[record["landmarks"]["points"][n] for n in pair] for pair in record["held"]["apertures"]]
    assert pairs == [[13, 14], [159, 145], [386, 374]] and record["held"]["most_opened"] == MOST_OPENED
    np.testing.assert_array_equal(video.read_image(out / "photo.png"), Avatar.load(people["texture"]).picture)


def test_the_bundled_weights_are_for_research(people: dict[str, Path]) -> None:
    assert not ExportSource.of(str(people["texture"]), ExportConfig()).research_only  # the user's own model
    person = replace(read_avatar(people["texture"]), record={"model": {"name": "texture.safetensors"}})
    people["texture"].with_name("shipped.avatar").write_bytes(person.pack())
    assert ExportSource.of(str(people["texture"].with_name("shipped.avatar")), ExportConfig()).research_only


def unpacked(data: bytes, shapes: Sequence[tuple[int, ...]], kind: np.dtype[Any]) -> list[np.ndarray]:
    """Inverse of packed; the page decodes the same way, part by part."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    planes = np.frombuffer(data, np.uint8).astype(np.int64)
    count = int(ends[-1])
    zigzag = planes[:count] + (planes[count : 2 * count] << 8 if kind.itemsize == 2 else 0)
    steps = zigzag >> 1 ^ -(zigzag & 1)
    parts = np.split(steps, ends[:-1])
    return [part.reshape(shape).cumsum(-2).cumsum(-1).astype(kind) for part, shape in zip(parts, shapes, strict=True)]


def arrays_of(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A motion file, read as export.json says: arrays, and lists of parts."""
    record = json.loads((folder / "export.json").read_text())
    about = next(one for one in record["motions"] if one["name"] == name)
    body = gzip.decompress((folder / about["file"]).read_bytes())
    found: dict[str, Any] = {}
    for one in about["arrays"]:
        kind, data = np.dtype(one["type"]), body[one["offset"] :]
        if one["coding"] == "plain":
            count = int(np.prod(one["shape"]))
            found[one["name"]] = np.frombuffer(data, kind, count).reshape(one["shape"]) * one["unit"]
        elif one["coding"] == "differences":
            found[one["name"]] = unpacked(data, [tuple(one["shape"])], kind)[0] * one["unit"]
        else:
            boxes = found[one["boxes"]].astype(int)
            shapes = [(one["planes"], one["fine"] * height, one["fine"] * width) for _, _, width, height in boxes]
            found[one["name"]] = [part * one["unit"] for part in unpacked(data, shapes, kind)]
            assert len(boxes) == one["per_frame"] * about["num_frames"]
    return found, record


def laid_out(boxes: np.ndarray, parts: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Parts of planes in a picture of this shape."""
    out = np.zeros(shape, np.uint8)
    for (left, top, width, height), part in zip(boxes.astype(int), parts, strict=True):
        out[top : top + height, left : left + width] = part.transpose(1, 2, 0)
    return out


def test_a_motion_file_is_what_animate_would_do(
    people: dict[str, Path], exported: tuple[Path, settings.Exported]
) -> None:
    out, _ = exported
    found, record = arrays_of(out, "part")
    avatar = Avatar.load(people["texture"])
    stage = Stage(avatar, preset("texture").networks, 256)
    targets = list(stage.targets(Motion.load(out.parent / "part.motion")))
    assert len(found["windows"]) == len(targets) == 20
    assert len({record["person"]["window"]["side"], stage.window.side}) == 1
    # The background stands still, as by default in animate.
    animated = avatar.source_frame(AnimateConfig(size=256, model="geometry"))
    assert stage.scene is not None and record["person"]["plate"] == "plate.png"
    for i, target in enumerate(targets):
        flow, window = animated.flow(target), stage.window_at(target)
        row = [window.left, window.top, stage.gate(target), stage.shown(target)]
        np.testing.assert_allclose(found["windows"][i], row, rtol=1e-6)
        points = window.to_unit(target)[record["landmarks"]["points"], :2] * PX
        np.testing.assert_allclose(found["points"][i], points, atol=1 / 31)
        np.testing.assert_allclose(found["flow"][i], flow.offset.transpose(2, 0, 1), atol=1 / 16000)
        maps = flow.maps(stage.warper.crop, window, PX // 2)
        np.testing.assert_allclose(found["geometry"][i], maps.clip(-2, 127 / 64), atol=1 / 127)
        gain = stage._paints.gain(flow)
        shading = np.zeros((128, 128)) if gain is None else np.log(gain)
        enlarged = cv2.resize(found["shading"][i, 0].astype(np.float32), (128, 128), interpolation=cv2.INTER_LINEAR)
        assert np.abs(enlarged - shading).max() < 0.02
        for detail, box, values in zip(
            flow.details, found["details_boxes"][3 * i :], found["details"][3 * i :], strict=False
        ):
            left, top = detail.columns.start, detail.rows.start
            assert box.tolist() == [left, top, detail.columns.stop - left, detail.rows.stop - top]
            np.testing.assert_allclose(values, detail.offset.transpose(2, 0, 1), atol=1 / 16000)
        interior = mouth_interior(window.to_unit(target) * 2 * PX, 2 * PX, 2 * PX)[..., None]
        laid = laid_out(found["interior_boxes"][i : i + 1], found["interior"][i : i + 1], interior.shape)
        np.testing.assert_array_equal(laid, interior)
        for name, expected in (("layers", stage.layers(flow)), ("seen_layers", stage.layers_in(window, flow))):
            both = slice(2 * i, 2 * i + 2)
            np.testing.assert_array_equal(
                laid_out(found[f"{name}_boxes"][both], found[name][both], expected.shape), expected
            )
    assert any(part.size for part in found["layers"])


def test_a_second_source_is_kept_with_its_place_and_weight(small_face: Face) -> None:
    rng = np.random.default_rng(4)
    offset = rng.uniform(-0.4, 0.4, (4, 6, 2)).astype(np.float32)
    weight, height, own = rng.uniform(0, 1, (3, 4, 6)).astype(np.float32)
    flow = Warper(small_face.points, 256, 256).flow(small_face.points)
    assert flow.mirror is None and motion_data._mirror(flow, has_matte=True)[0] == (0, 0, 0, 0)
    turned = replace(flow, mirror=MirrorFlow(slice(10, 14), slice(20, 26), offset, weight, height, own))
    box, planes = motion_data._mirror(turned, has_matte=True)
    assert box == (20, 10, 6, 4)
    expected = np.stack([offset[..., 0], offset[..., 1], weight, opacity(height), own])
    np.testing.assert_allclose(planes / 8192, expected, atol=1 / 16000)
    # Of a photo without layers everything is opaque.
    assert (motion_data._mirror(turned, has_matte=False)[1][3] == 8192).all()


def test_layers_are_what_the_painter_draws() -> None:
    avatar = Avatar.from_photos([PORTRAIT])
    stage = Stage(avatar, PRESETS["texture"].networks, 512)
    motion = Motion.load(bundled_motions()["laugh"])
    target = eyes_closed(next(stage.targets(motion, [30])), 0.9)
    flow = stage.warper.flow(target)
    assert flow.mouth is not None and [eye.weight for eye in flow.eyes] == [1, 1]
    painter = Painter(stage.moving, stage.warper)
    drawn, bare = (painter.paint(one).astype(float) for one in (flow, replace(flow, mouth=None, eyes=())))
    over = stage.layers(flow).astype(float)
    laid = bare * (1 - over[..., 3:] / 255) + over[..., :3]
    assert np.abs(drawn - bare).max() > 30
    assert np.abs(drawn - laid).max() < 4
    # In the file they are separate: eyes, mouth.
    (eyes, _), (mouth, _) = motion_data._rows(stage.layers(flow))
    assert eyes[1] + eyes[3] <= mouth[1]


@pytest.mark.parametrize("style", ["paper", "smooth"])
def test_the_exported_lines_are_those_that_are_drawn(small_face: Face, style: str) -> None:
    told = description._landmarks(replace(preset("paper").networks, landmarks=style))
    points = small_face.points[told["points"]] / 256 * PX
    image = np.zeros((PX, PX, 3), np.uint8)
    for line in told["lines"]:
        chosen = points[line["points"], :2]
        if style == "smooth":
            at = np.round((chosen - 0.5) * 16).astype(np.int32)
            cv2.polylines(image, [at], line["closed"], line["color"], 1, cv2.LINE_AA, shift=4)
        else:
            at = np.floor(chosen).astype(np.int32)
            cv2.polylines(image, [at], line["closed"], line["color"], 2, cv2.LINE_8)
    np.testing.assert_array_equal(image, landmark_image(small_face.points / 256 * PX, PX, PX, style=style))
    assert len(told["lines"]) == len(landmark_lines(style))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16])
def test_packing_loses_nothing(kind: type) -> None:
    limits = np.iinfo(kind)
    rng = np.random.default_rng(2)
    shapes = [(3, 2, 5, 7), (2, 0, 0), (1, 4, 3)]
    parts = [rng.integers(limits.min, limits.max, shape, endpoint=True).astype(kind) for shape in shapes]
    parts[0][0] = limits.min
    parts[0][1, 0, ::2] = limits.max
    data = packed(parts)
    for found, part in zip(unpacked(data, shapes, np.dtype(kind)), parts, strict=True):
        np.testing.assert_array_equal(found, part)
    assert len(data) == sum(part.nbytes for part in parts)


# Refused input.


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("photo.jpg", {}, r"photo.jpg: is not a model; use texture, .* pass a photo with --photo"),
        ("geometry", {}, "geometry: is not a model"),
        ("none.safetensors", {}, "no such file"),
        ("none.avatar", {}, "no such file"),
        ("none.avatar", {"photo": Path("x.png")}, r"--photo x.png: none.avatar already contains a person"),
        ("texture", {"motions": ("talk",)}, "--motion talk: needs a person; pass --photo"),
        ("texture", {"motions": ("dance",)}, "driver dance: no such file"),
        ("texture", {"motions": (str(PORTRAIT),), "photo": PORTRAIT}, r"--motion .*: is a photo; use a .motion file"),
    ],
)
def test_what_cannot_be_exported_is_refused(what: str, options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        exporting.export(what, tmp_path / "out", ExportConfig(**options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "--format tflite: use one of onnx"),
        ({"precision": "int4"}, "--precision int4: use one of fp32, fp16, int8"),
        ({"face": 2}, "--face 2: requires --photo"),
        ({"size": 10}, "--size 10"),
    ],
)
def test_wrong_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExportConfig(**options)


def test_a_long_motion_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_MAX_MOTION_FRAMES", 100)
    with pytest.raises(InputError, match="--motion talk: has 118 frames; use one of at most 100"):
        exporting.export("texture", tmp_path / "out", ExportConfig(motions=("talk",), photo=PORTRAIT))


def test_a_persons_psi_has_to_fit(people: dict[str, Path], tmp_path: Path) -> None:
    person = read_avatar(people["paper"])
    for wrong, message in (
        (replace(person, psi=person.psi[:-2]), "its psi' does not fit"),
        (replace(person, tensors=dict(list(person.tensors.items())[1:])), "parts do not fit each other"),
    ):
        (tmp_path / "wrong.avatar").write_bytes(wrong.pack())
        with pytest.raises(ModelError, match=message):
            ExportSource.of(str(tmp_path / "wrong.avatar"), ExportConfig())


@pytest.fixture(scope="module")
def by_command(people: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Files and messages of `mimik export` of a person."""
    out = tmp_path_factory.mktemp("command") / "phone"
    return out, CliRunner().invoke(cli.app, ["export", str(people["paper"]), "-o", str(out), "--size", "256"])


def test_folders_of_others_are_left_alone(
    people: dict[str, Path], by_command: tuple[Path, Result], tmp_path: Path
) -> None:
    out, file, busy = tmp_path / "out", tmp_path / "file", tmp_path / "busy"
    file.write_text("x")
    busy.mkdir()
    (busy / "export.json").write_text("{}")
    (busy / "diary.txt").write_text("x")
    check_export_folder(out, force=False)
    for path, force, message in (
        (file, True, "is a file"),
        (busy, True, "contains other files"),
        (tmp_path / "none/out", False, "does not exist; create it first"),
    ):
        with pytest.raises(InputError, match=message):
            check_export_folder(path, force=force)
    shutil.copytree(by_command[0], out)
    with pytest.raises(InputError, match="contains an export; pass --force"):
        check_export_folder(out, force=False)
    with pytest.raises(InputError, match="contains a file of this run"):
        check_export_folder(out, force=True, inputs=[out / "photo.png"])
    exporting.export(str(people["paper"]), out, ExportConfig(size=256, precision="fp16"), force=True)
    assert json.loads((out / "export.json").read_text())["graphs"]["generator"]["precision"] == "fp16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["busy", "file", "out"]


def test_the_command(by_command: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, done = by_command
    assert done.exit_code == 0, done.output
    assert "x_hat" in done.stdout and "mean difference" in done.stdout and "synthetic" in done.stdout
    assert "holds the person's photo" in done.stderr
    done = CliRunner().invoke(cli.app, ["export", "photo.jpg", "-o", str(tmp_path / "other")])
    assert done.exit_code == 2 and "is not a model" in done.stderr
    monkeypatch.setitem(sys.modules, "mimik.app.export.exporting", None)
    monkeypatch.delattr("mimik.app.export.exporting")
    done = CliRunner().invoke(cli.app, ["export", "texture", "-o", str(tmp_path / "other")])
    assert done.exit_code == 2 and "pip install '.[export]'" in done.stderr


# In a browser.


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its packages, in a separate folder."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium; apt install chromium")
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no node or no npm; apt install nodejs npm")
    folder = tmp_path_factory.mktemp("site")
    for path in BROWSER.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    if (BROWSER / "node_modules").is_dir():
        (folder / "node_modules").symlink_to(BROWSER / "node_modules")
        return folder
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"npm ci does not work here: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.fixture
def tab(site: Path) -> Iterator[tuple[Any, str]]:
    """A tab of a headless Chromium, and the address of the example."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
    server = subprocess.Popen(["node", "serve.js", "0"], cwd=site, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with playwright.sync_playwright() as running:
            args = ["--no-sandbox", "--no-first-run", "--disable-background-networking", "--use-angle=swiftshader"]
            browser = running.chromium.launch(
                executable_path=CHROMIUM, headless=True, args=[*args, "--enable-unsafe-swiftshader"]
            )
            opened = browser.new_page(viewport={"width": 700, "height": 900})
            opened.set_default_timeout(90_000)
            foreign: list[str] = []
            own = (address, "blob:", "data:")
            opened.on("request", lambda request: request.url.startswith(own) or foreign.append(request.url))
            yield opened, address
            browser.close()
            assert foreign == []
    finally:
        server.kill()
        server.wait()


DRAW = """async ([name, index]) => {
  await mimik.player.draw(await mimik.motionOf(name), index);
  return document.getElementById("person").toDataURL("image/png").split(",")[1];
}"""


HOLD = """async (numbers) => {
  const motion = await mimik.motionOf("talk"), ran = [], shown = [];
  const pace = { every: 2, reach: 6, add: (_, networkMs) => ran.push(networkMs !== null) };
  for (const index of numbers) {
    mimik.player.show(await mimik.player.prepare(motion, index, pace));
    shown.push(document.getElementById("person").toDataURL("image/png").split(",")[1]);
  }
  return [ran, shown];
}"""


def grain_of(part: Image) -> float:
    """Standard deviation of detail finer than 2 px in a part of a picture, in gray levels."""
    gray = part.mean(-1, dtype=np.float32)
    return float((gray - cv2.GaussianBlur(gray, (0, 0), 2)).std())


@pytest.mark.slow
@pytest.mark.browser
# The paper's form has random weights here, so that every pixel of a line changes the whole picture; trained: 44 dB.
@pytest.mark.parametrize(("what", "least"), [("texture", 36.0), ("large", 36.0), ("paper", 24.0)])
def test_the_page_shows_what_animate_shows(
    site: Path, tab: tuple[Any, str], people: dict[str, Path], what: str, least: float
) -> None:
    page, address = tab
    photo, size, texture = PORTRAIT, 512, what != "paper"
    if what == "large":  # with more detail than the network's input
        size, photo = 1200, site / "large.png"
        larger = cv2.resize(video.read_image(PORTRAIT), (size, size), interpolation=cv2.INTER_CUBIC)
        grain = np.random.default_rng(0).normal(0, 6, (size, size, 1))
        video.write_image(photo, (larger + grain).clip(0, 255).astype(np.uint8))
    config = ExportConfig(photo=photo if texture else None, motions=("talk",), size=size)
    model = "texture" if texture else str(people["paper"])
    exporting.export(model, site / what, config)
    shown_at = (0, 27, 40, 90)
    pages = {}
    for drawing in ("webgl", "canvas"):
        page.goto(f"{address}?person={what}&paused&drawing={drawing}")
        page.wait_for_function("window.mimik || document.querySelector('#said.error')")
        assert page.inner_text("#said") == ""
        assert "synthetic" in page.inner_text("#notice")
        data = [page.evaluate(DRAW, ["talk", index]) for index in shown_at]
        pages[drawing] = [
            cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_COLOR_RGB) for one in data
        ]
    assert min(cv2.PSNR(a, b) for a, b in zip(*pages.values(), strict=True)) > 45

    avatar = Avatar.from_photos([photo]) if texture else Avatar.load(people["paper"])
    portrait, warp = (avatar.source_frame(AnimateConfig(size=size, model=model)) for model in (None, "geometry"))
    motion = Motion.load(bundled_motions()["talk"])
    targets = Stage(avatar, ExportSource.of(model, config).config, size).targets(motion, shown_at)
    for shown, index, target in zip(pages["webgl"], shown_at, targets, strict=True):
        expected, plain = (one.paint(one.flow(target), target) for one in (portrait, warp))
        corner = slice(-size // 8, None), slice(-size // 6, None)
        assert cv2.PSNR(shown[corner], expected[corner]) < 30, "the label"
        for picture in (shown, plain):
            picture[corner] = expected[corner]
        assert cv2.PSNR(shown, expected) > least
        assert index == 0 or cv2.PSNR(shown, expected) > cv2.PSNR(plain, expected) + 3
        if what == "large" and index == 40:
            # Skin keeps the photo's grain.
            x, y = target[205, :2].astype(int)
            cheek = slice(y - 40, y + 40), slice(x - 40, x + 40)
            assert 0.9 < grain_of(shown[cheek]) / grain_of(expected[cheek]) < 1.1
            assert grain_of(expected[cheek]) > 3

    # Where the computer is slow, the network's outputs are used for later frames, of about the same time.
    if what == "texture":
        page.goto(f"{address}?person={what}&paused&drawing=canvas")
        page.wait_for_function("window.mimik")
        ran, shown = page.evaluate(HOLD, [39, 40, 41, 42, 90, 25, 26])
        assert ran == [True, False, True, False, True, True, True]  # 90 is too far from 42; 26 begins a blink
        frame = cv2.imdecode(np.frombuffer(base64.b64decode(shown[1]), np.uint8), cv2.IMREAD_COLOR_RGB)
        assert 38 < cv2.PSNR(frame, pages["canvas"][shown_at.index(40)]) < 80

    # It plays and displays the frame rate.
    page.goto(f"{address}?person={what}")
    page.wait_for_function("parseFloat(document.getElementById('rate').textContent) > 0")
    page.wait_for_timeout(3000)
    print(what, page.inner_text("#rate"))


WEBGPU = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
# Put before worker.js.
LOSABLE = """
const request = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (...given) {
  const device = await request.apply(this, given);
  addEventListener("message", ({ data }) => data.command === "frame" && data.name === "talk" && device.destroy());
  return device;
};
"""


@pytest.mark.slow
@pytest.mark.browser
def test_webgpu_draws_the_same_and_webassembly_replaces_it(
    site: Path, tab: tuple[Any, str], people: dict[str, Path]
) -> None:
    page, address = tab
    motions = ("talk", "blink")
    exporting.export(str(people["texture"]), site / "small", ExportConfig(motions=motions, size=256))

    def drawn(page: Any, name: str, query: str = "") -> Image:
        if query:
            page.goto(f"{address}?person=small&paused&drawing=canvas{query}")
            page.wait_for_function("window.mimik || document.querySelector('#said.error')")
            assert page.inner_text("#said") == ""
        data = base64.b64decode(page.evaluate(DRAW, [name, 20]))
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)

    expected = [drawn(page, "blink", "&provider=wasm"), drawn(page, "talk")]
    browser = page.context.browser.browser_type.launch(executable_path=CHROMIUM, headless=True, args=WEBGPU)
    emulated = browser.new_page()
    emulated.set_default_timeout(90_000)
    emulated.goto(address)
    if not emulated.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
        pytest.skip("this Chromium has no WebGPU")
    worker = LOSABLE + (BROWSER / "worker.js").read_text()
    headers = {"Content-Type": "text/javascript", "Cross-Origin-Embedder-Policy": "require-corp"}
    emulated.route("**/worker.js", lambda route: route.fulfill(body=worker, headers=headers))
    found = [drawn(emulated, "blink", "&provider=webgpu"), drawn(emulated, "talk")]  # the device is lost in between
    assert emulated.evaluate("mimik.player.provider") == "webgpu"
    assert min(cv2.PSNR(*pair) for pair in zip(found, expected, strict=True)) > 50
    # An emulated graphics processor is not chosen.
    drawn(emulated, "blink", "&")
    assert emulated.evaluate("mimik.player.provider") == "wasm"
    browser.close()


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_names_missing_files(site: Path, tab: tuple[Any, str]) -> None:
    page, address = tab
    page.goto(f"{address}?person=nobody")
    page.wait_for_selector("#said.error")
    assert "mimik export" in page.inner_text("#said")
    answer = page.request.get(f"{address}..%2fpackage.json")
    assert answer.status in (200, 404)
    assert page.request.get(f"{address}..%2f..%2fetc/passwd").status == 404
    (site / "old").mkdir(exist_ok=True)
    (site / "old/export.json").write_text(json.dumps({"format": "mimik export 1"}))
    page.goto(f"{address}?person=old")
    page.wait_for_selector("#said.error")
    assert "mimik export 1" in page.inner_text("#said") and "copy examples/browser" in page.inner_text("#said")


def test_onnx_runtime_writes_no_client_id(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    code = "import mimik.app.export, onnxruntime"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []
