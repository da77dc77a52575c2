"""Trained models for other programs: a static ONNX graph, what its host has to do, and motions to begin with.

A graph has fixed shapes, batch 1, float32 at both ends, and none but common operations: convolution, instance norm,
pooling, resizing, element-wise ones. A person's psi is baked into it, so that AdaIN is an instance norm with constants.
What the texture form does around its network, warping and blending, is left to the host program: it is a shader's work,
at the photo's own size. `export.json` says how, and docs/phones.md.

torch is the reference: every graph is compared with it, in onnxruntime, before it is given away.
"""

from __future__ import annotations

import copy
import dataclasses
import gzip
import hashlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mimik.animation.avatar import Avatar
from mimik.config import AVATAR_SUFFIX, MODEL_SUFFIX, VERSION, AnimateConfig, InputError, ModelError, NetworkConfig
from mimik.face.landmark_images import landmark_lines
from mimik.face.landmarks import NUM_POINTS, Image
from mimik.files import replaced_folder
from mimik.inference.avatar_file import encoded_png, read_avatar
from mimik.inference.synthesis import (
    BUNDLED_MODEL,
    REDRAWN,
    RIM,
    PaperPainter,
    TexturePainter,
    clip_window,
    network_window,
    photo_windows,
    reduced,
    to_network_size,
    to_planes,
    window_around,
)
from mimik.motion.bundled import bundled_motions
from mimik.motion.drivers.motion_file import MotionFile
from mimik.motion.drivers.registry import open_driver
from mimik.motion.files import Motion
from mimik.motion.smoothing import smoothed
from mimik.networks.blocks import AdaIN
from mimik.networks.checkpoint import load_release
from mimik.networks.generators import Generator, Networks
from mimik.networks.spectral_norm import EPS
from mimik.provenance.manifests import SOURCE_TYPE
from mimik.rendering.crop import WINDOW_SCALE, Crop
from mimik.rendering.field import GRID
from mimik.rendering.flow import NUM_GEOMETRY, Flow, Warper
from mimik.rendering.painter import Painter

Array = NDArray[np.float32]
Sample = dict[str, Array]  # a graph's inputs by name
Progress = Callable[[str, int, int | None], None]  # stage, done, total if known

EXPORT_FORMAT = "mimik export 1"
FORMATS = ("onnx",)
PRECISIONS = ("fp32", "fp16", "int8")
RECORD_NAME = "export.json"
OPSET = 17

# How far a graph may be from torch: at most and in the mean, in spans of the output, its largest minus its smallest
# value over the frames that are compared. 8 bits are coarse; what they cost a picture is measured in docs/phones.md.
_LIMITS = {"fp32": (1e-3, 1e-4), "fp16": (0.05, 0.002), "int8": (0.5, 0.05)}
_LEAST_SPAN = 0.01
_NUM_COMPARED = 8  # frames
_NUM_CALIBRATED = 32  # frames from which the ranges of 8 bits are taken
_CALIBRATION = ("talk", "laugh", "look-around", "surprise")  # bundled motions
_FLOW_UNITS = 8192  # a motion file's flow counts in this part of the crop's side: 0.03 px of 256
_GEOMETRY_UNITS = 64
_POINT_UNITS = 16  # of a landmark image's pixel
_MAX_FRAMES = 1500  # of a motion: a minute, 25 MB
PORTRAIT = Path(str(resources.files("mimik").joinpath("assets/portraits/eileen_collins.png")))
_SHADES = 225, 255  # grey levels that are lighter than lids can be painted
_OWN = (".onnx", ".png", ".gz", ".json")  # what an export's folder holds

NOTICE = (
    "What this model draws is synthetic: the person shown was not filmed doing this. Whoever shows, stores or sends "
    f"its frames has to say so: a visible mark in the picture, and {SOURCE_TYPE} as digitalSourceType in the C2PA "
    "manifest or IPTC metadata of a file. The graph cannot do that by itself; the program that runs it must. Do not "
    "animate a living person without their consent."
)
_LICENCE = {
    True: "The weights were trained on video clips published for research, most without a stated licence: for research "
    "only. MODEL_CARD.md of mimik has the data, the evaluation and what it does badly.",
    False: "The weights are those of whoever trained them; what may be done with them depends on the data.",
}


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of one `mimik export` run; every message names the option that it is about."""

    format: str = "onnx"  # one of FORMATS
    precision: str = "fp32"  # one of PRECISIONS
    photo: Path | None = None  # of the person, for a model that knows none
    face: int | None = None  # in the photo, 1 is the widest
    motions: tuple[str, ...] = ()  # names of bundled ones, or .motion files
    size: int | None = 512  # pixels of the longer side of the photo; None: its own

    def __post_init__(self) -> None:
        for option, value, choices in (
            ("--format", self.format, FORMATS),
            ("--precision", self.precision, PRECISIONS),
        ):
            if value not in choices:
                raise InputError(f"{option} {value}: give one of {', '.join(choices)}.")
        if self.face is not None and self.photo is None:
            raise InputError(f"--face {self.face}: goes with --photo; leave it out, or give a photo.")
        AnimateConfig(size=self.size, face=self.face)  # checks both


@dataclass(frozen=True)
class Difference:
    """How far one output of a graph is from torch's, over all frames that were compared.

    Attributes:
        largest, mean: of the absolute difference.
        span: of torch's values: largest minus smallest.
        apart: how far torch's values of two frames are apart, at most; 0: the output does not depend on the input.
    """

    largest: float
    mean: float
    span: float
    apart: float


@dataclass(frozen=True)
class Graph:
    """One exported network.

    Attributes:
        name: "generator" or "embedder".
        data: the ONNX file.
        precision: one of PRECISIONS.
        multiply_adds: of convolutions and matrix products, for one call.
        parameters: numbers that it holds.
        parity: by output.
    """

    name: str
    data: bytes
    precision: str
    multiply_adds: int
    parameters: int
    parity: dict[str, Difference]

    @property
    def file(self) -> str:
        return f"{self.name}.onnx"


@dataclass(frozen=True)
class Exported:
    """What one run wrote.

    Attributes:
        folder: where.
        graphs: in it.
        motions: name and bytes of each motion.
        notes: what the user should know.
    """

    folder: Path
    graphs: tuple[Graph, ...]
    motions: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]


# What is exported.


@dataclass(frozen=True)
class Subject:
    """A model, and perhaps the person whom it draws.

    Attributes:
        name: of the file, or "texture".
        config: sizes and form.
        generator: G in evaluation mode.
        networks: of a model that knows no person; its E and P are exported too.
        psi: [1, 2 * features of all AdaIN layers] of the person.
        avatar: the person.
        research_only: whether the weights are, or come from, those that ship.
    """

    name: str
    config: NetworkConfig
    generator: Generator
    networks: Networks | None
    psi: Tensor | None
    avatar: Avatar | None
    research_only: bool

    @classmethod
    def of(cls, what: str, config: ExportConfig) -> Subject:
        """Reads a model or a person.

        Raises:
            InputError: if it is neither, or does not go with what else is asked for.
        """
        path = Path(what)
        if path.suffix.lower() == AVATAR_SUFFIX:
            if config.photo is not None:
                raise InputError(f"--photo {config.photo}: {path.name} has its person already; leave --photo out.")
            person = read_avatar(path)
            networks, origin = person.preset.networks, person.record.get("model")
            generator = _generator(networks, person.tensors, path)
            shipped = isinstance(origin, dict) and origin.get("name") == BUNDLED_MODEL.name
            psi = torch.from_numpy(person.psi)[None]
            if psi.shape[1] != 2 * sum(generator.adain_sizes):
                raise ModelError(f"{path}: its psi' does not fit its generator; learn the person again.")
            return cls(path.name, networks, generator, None, psi, Avatar.load(path), shipped)
        if what != "texture" and path.suffix.lower() != MODEL_SUFFIX:
            raise InputError(
                f"{what}: is no model; give texture, a {MODEL_SUFFIX} file of `mimik train` or an {AVATAR_SUFFIX} file "
                "of `mimik learn`; a photo goes with --photo."
            )
        if config.motions and config.photo is None:
            raise InputError(f"--motion {config.motions[0]}: moves a person; give --photo, or an {AVATAR_SUFFIX} file.")
        release = load_release(BUNDLED_MODEL if what == "texture" else path)
        nets = release.networks
        known: Tensor | None = None
        avatar = None
        if config.photo is not None:
            avatar = Avatar.from_photos([config.photo], face=config.face)
            x, y = _embedded(release.preset.networks, avatar.picture, avatar.face.points)
            with torch.inference_mode():
                known = _Embedding(nets)(torch.from_numpy(x), torch.from_numpy(y)).clone()
        return cls(
            path.name, release.preset.networks, nets.G, None if avatar else nets, known, avatar, what == "texture"
        )


def _generator(config: NetworkConfig, tensors: Mapping[str, NDArray[Any]], path: Path) -> Generator:
    """G with the weights of a person's file."""
    low, high = config.generator_channels
    generator = Generator(
        config.image_px, form=config.form, min_channels=low, max_channels=high, attention=config.attention
    )
    state = {name.removeprefix("G."): torch.from_numpy(value).float() for name, value in tensors.items()}
    try:
        generator.load_state_dict(state)
    except RuntimeError:
        raise ModelError(f"{path}: its generator's parts do not fit each other; learn the person again.") from None
    return generator.eval()


# Networks as graphs.


class _FixedNorm(nn.InstanceNorm2d):
    """An AdaIN layer of one person: bias and scale are constants."""

    def __init__(self, bias: Tensor, scale: Tensor) -> None:
        super().__init__(len(bias), eps=EPS, affine=True)
        with torch.no_grad():
            self.weight.copy_(scale)
            self.bias.copy_(bias)

    def forward(self, h: Tensor, *_psi: Tensor) -> Tensor:
        return super().forward(h)


def baked(generator: Generator, psi: Tensor) -> Generator:
    """A copy of G that draws one person, whatever psi_hat it is given.

    Args:
        generator: in evaluation mode.
        psi: [1, 2 * sum(adain_sizes)].
    """
    fixed = copy.deepcopy(generator)
    parts = iter(psi[0].split([size for size in generator.adain_sizes for _ in ("bias", "scale")]))
    for block in (*fixed.middle, *fixed.up):
        for name in ("norm1", "norm2"):
            assert isinstance(getattr(block, name), AdaIN)
            setattr(block, name, _FixedNorm(next(parts), next(parts)))
    fixed.last_norm = _FixedNorm(next(parts), next(parts))  # type: ignore[assignment]
    return fixed.eval()


class _Drawing(nn.Module):
    """G as a graph: what changes from frame to frame in, what the host needs out."""

    def __init__(self, generator: Generator, psi: Tensor | None) -> None:
        """Args: psi: of the person; None: it is the last input."""
        super().__init__()
        self.generator, self.psi = generator, psi

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        y, *others = inputs
        psi = others.pop() if self.psi is None else self.psi
        if self.generator.form == "paper":
            return self.generator(y, psi).image
        return self.generator.predict(y, psi, *others)


class _Embedding(nn.Module):
    """E and P as one graph, for one photo.

    P is affine, so the mean of the psi_hat of several photos is the psi_hat of their mean embedding.
    """

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.E, self.P = networks.E, networks.P

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[1, 3, H, W] both -> psi_hat [1, 2 * features]."""
        return self.P(self.E.embed(x, y))


_OUTPUTS = {"paper": ("x_hat",), "texture": ("correction", "change", "mask")}


def _without_spectral_norm(module: nn.Module) -> nn.Module:
    """A copy whose weights are what spectral norm makes of them.

    Layers are replaced: torch's own remove_parametrizations works on a class that the copy shares with the original.
    """
    plain = copy.deepcopy(module).eval()
    for parent in list(plain.modules()):
        for name, layer in list(parent.named_children()):
            if not parametrize.is_parametrized(layer):
                continue
            biased = layer.bias is not None
            if isinstance(layer, nn.Conv2d):
                size, padding = layer.kernel_size[0], int(layer.padding[0])
                made: nn.Module = nn.Conv2d(layer.in_channels, layer.out_channels, size, padding=padding, bias=biased)
            else:
                assert isinstance(layer, nn.Linear)
                made = nn.Linear(layer.in_features, layer.out_features, bias=biased)
            made.load_state_dict({"weight": layer.weight} | ({"bias": layer.bias} if biased else {}))
            setattr(parent, name, made)
    return plain


def _traced(module: nn.Module, inputs: Sample, outputs: Sequence[str]) -> onnx.ModelProto:
    """An ONNX graph of a module in evaluation mode, float32."""
    module = _without_spectral_norm(module)
    data: Any = io.BytesIO()
    logs = logging.getLogger("torch.onnx")
    level = logs.level
    logs.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # shapes become constants: that is what a static graph is
            # The tracer gives the operations of torch's newer exporter in a tenth of its time, without onnxscript.
            torch.onnx.export(
                module,
                tuple(torch.from_numpy(value) for value in inputs.values()),
                data,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
            )
    finally:
        logs.setLevel(level)
    model = onnx.load_from_string(data.getvalue())
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model)


def multiply_adds(model: onnx.ModelProto) -> int:
    """Of the convolutions and matrix products of a graph with static shapes, for one call."""
    graph = model.graph
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output, *graph.value_info)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(shapes[node.output[0]])) * int(np.prod(shapes[node.input[1]][1:]))
        elif node.op_type == "MatMul":
            total += int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            total += shapes[node.output[0]][0] * int(np.prod(shapes[node.input[1]]))
    return total


class _Frames:
    """Frames for onnxruntime's quantiser, one after the other."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> Sample | None:
        return next(self._samples, None)


def _quantised(model: onnx.ModelProto, samples: Sequence[Sample]) -> onnx.ModelProto:
    """8-bit convolutions: weights by channel, activations in the range that the samples show; the rest stays float.

    So do the last convolutions: they cost next to nothing, and 8 bits of a correction are a shake of half a pixel.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("plain.onnx", "ready.onnx", "int8.onnx")]
        onnx.save(model, paths[0])
        quant_pre_process(paths[0], paths[1], skip_symbolic_shape=True)
        logs = logging.getLogger()
        level = logs.level
        logs.setLevel(logging.ERROR)
        try:
            quantize_static(
                paths[1],
                paths[2],
                _Frames(samples),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,  # what processors multiply fastest: unsigned by signed
                weight_type=QuantType.QInt8,
                reduce_range=True,  # 7 bits: with AVX2 but no VNNI, sums of two products overflow 16 bits
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=last_convolutions(onnx.load(paths[1])),
            )
        finally:
            logs.setLevel(level)
        return onnx.load(paths[2])


def last_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions from which no other one leads to an output."""
    maker = {output: node for node in model.graph.node for output in node.output}
    waiting = [output.name for output in model.graph.output]
    found = set()
    while waiting:
        node = maker.get(waiting.pop())
        if node is None:
            continue
        if node.op_type == "Conv":
            found.add(node.name)
        else:
            waiting += node.input
    return sorted(found)


def session(data: bytes, *, num_threads: int = 0) -> onnxruntime.InferenceSession:
    """A graph in onnxruntime, on the processor; 0 threads lets it choose."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def compare(data: bytes, module: nn.Module, samples: Sequence[Sample]) -> dict[str, Difference]:
    """What onnxruntime computes against what torch computes.

    Args:
        data: the ONNX file.
        module: that it was made of.
        samples: inputs.

    Returns:
        By output.
    """
    running = session(data)
    names = [output.name for output in running.get_outputs()]
    theirs: dict[str, list[Array]] = {name: [] for name in names}
    ours: dict[str, list[Array]] = {name: [] for name in names}
    for sample in samples:
        with torch.inference_mode():
            result = module(*(torch.from_numpy(value) for value in sample.values()))
        results = (result,) if isinstance(result, Tensor) else result
        for name, expected, found in zip(names, results, running.run(None, sample), strict=True):
            theirs[name].append(expected.numpy())
            ours[name].append(found)
    return {name: _difference(np.stack(ours[name]), np.stack(theirs[name])) for name in names}


def _difference(found: Array, expected: Array) -> Difference:
    apart = np.abs(found.astype(np.float64) - expected)
    varied = float(np.ptp(expected, axis=0).max())
    return Difference(float(apart.max()), float(apart.mean()), float(np.ptp(expected)), varied)


def make_graph(
    name: str,
    module: nn.Module,
    outputs: Sequence[str],
    samples: Sequence[Sample],
    precision: str,
    *,
    about: Mapping[str, str],
    reference: nn.Module | None = None,
) -> Graph:
    """A network as an ONNX file that was found to compute the same as torch.

    Args:
        name: of the graph.
        module: the network, in evaluation mode.
        outputs: their names.
        samples: inputs as they come in use: the first few are compared, all of them calibrate 8 bits.
        precision: one of PRECISIONS.
        about: goes into the file's metadata.
        reference: what it is compared with; the module itself if None.

    Raises:
        ModelError: if it computes something else.
    """
    plain = _traced(module, samples[0], outputs)
    work = multiply_adds(plain)
    count = sum(int(np.prod(tensor.dims)) for tensor in plain.graph.initializer)
    model = plain
    if precision == "fp16":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # weights below the smallest half-precision number are said to be cut
            model = convert_float_to_float16(plain, keep_io_types=True)
    elif precision == "int8":
        model = _quantised(plain, samples)
    onnx.helper.set_model_props(model, dict(about))
    model.doc_string, model.producer_name, model.producer_version = NOTICE, "mimik", VERSION
    data = model.SerializeToString()
    parity = compare(data, reference or module, samples[:_NUM_COMPARED])
    check(parity, precision, name)
    return Graph(name, data, precision, work, count, parity)


def check(parity: Mapping[str, Difference], precision: str, name: str) -> None:
    """Refuse a graph that does not compute what torch computes.

    Raises:
        ModelError: naming the output.
    """
    largest, mean = _LIMITS[precision]
    for output, found in parity.items():
        span = max(found.span, _LEAST_SPAN)
        if not (found.largest <= largest * span and found.mean <= mean * span):  # not finite is wrong, too
            hint = "this model cannot be exported" if precision == "fp32" else "give a finer --precision"
            raise ModelError(
                f"--precision {precision}: {output} of the {name} is off by {found.largest:.2g} at most and "
                f"{found.mean:.2g} in the mean, of a span of {found.span:.2g}; allowed are {largest:g} and {mean:g} of "
                f"the span. Nothing is written; {hint}."
            )


# A person's picture, and what moves it.


class Stage:
    """One picture of a person as a model sees it, under a motion."""

    def __init__(self, avatar: Avatar, config: NetworkConfig, size: int | None) -> None:
        """Args: avatar: the person; config: of the model; size: pixels of the longer side, None is the photo's own."""
        portrait = avatar.source_frame(AnimateConfig(model="geometry", size=size))
        self.config, self.picture, self.face = config, portrait.picture, portrait.face
        self._portrait = portrait
        points = portrait.face.points
        self.warper = Warper(points, *portrait.size)
        self._paper = PaperPainter(self.picture, points, config, _never)
        self._texture = TexturePainter(self.picture, points, self.warper, config, _never)
        self.window, self.scale = network_window(points, config)
        self.reduced = reduced(self.picture, self.scale)
        self._paints = Painter(self.reduced, self.warper, self.scale)

    def targets(self, motion: Motion, at: Sequence[int] | None = None) -> Iterator[NDArray[Any]]:
        """Where the face's points go, [478, 3] for each frame, as `mimik animate` would have it.

        Args:
            motion: what moves them.
            at: only these frames, in order; None: all.
        """
        retarget = self._portrait.retarget(motion.reference)
        for number, motion_frame in enumerate(smoothed(motion.frames(), motion.fps, AnimateConfig().smooth)):
            if at is None or number in at:
                yield retarget(motion_frame)

    def window_at(self, target: NDArray[Any]) -> Crop:
        """What the network sees of the frame."""
        return clip_window(self.face.points) if self.config.form == "paper" else window_around(target, self.window.side)

    def sample(self, target: NDArray[Any]) -> Sample:
        """The generator's inputs for a frame, without psi_hat."""
        if self.config.form == "paper":
            return dict(zip(("y",), self._paper.network_inputs(target), strict=True))
        _, inputs = self._texture.network_inputs(self.warper.flow(target), target, self.window_at(target))
        return dict(zip(("y", "warped", "geometry"), inputs, strict=True))

    def gate(self, target: NDArray[Any]) -> float:
        """0..1: how much the network's answer counts."""
        return 1.0 if self.config.form == "paper" else float(self._texture.gate(target))

    def painted(self, flow: Flow, window: Crop) -> NDArray[np.uint8]:
        """What is painted over the warped photo, as the network sees it: RGBA.

        A pixel is what it was times 1 - A, and the colour is added to that. A is told by two shades of what is below.

        Returns:
            [frame_px, frame_px, 4].
        """

        def seen(image: Image, painting: Flow | None) -> NDArray[np.float32]:
            if painting is not None:
                self._paints.complete(image, painting)
            return window.scaled(self.scale).cut(image, self.config.frame_px).astype(np.float32)

        low, high = (seen(np.full_like(self.reduced, shade), flow) for shade in _SHADES)
        opaque = 1 - ((high - low).mean(-1, keepdims=True) / (_SHADES[1] - _SHADES[0])).clip(0, 1)
        bare = self._paints.carry(self.reduced, flow)
        before, after = seen(bare, None), seen(bare.copy(), flow)
        alpha = (255 * opaque).round()
        colours = (after - before * (1 - alpha / 255)).round().clip(0, 255)
        return np.concatenate([colours, alpha], -1).astype(np.uint8)


def _never(*_inputs: Array) -> list[Array]:
    raise AssertionError("an exported model's painters draw nothing")


def _embedded(config: NetworkConfig, picture: Image, points: NDArray[Any]) -> tuple[Array, Array]:
    """x and y of a photo, as E reads them, [1, 3, image_px, image_px] each."""
    x, y, _ = photo_windows(config, [picture], [points])
    return to_planes(to_network_size(x, config)), to_planes(y)


def calibration_frames(stage: Stage, count: int) -> list[Sample]:
    """The generator's inputs for frames of the bundled motions, evenly spaced; those of one motion are not together."""
    each = -(-count // len(_CALIBRATION))
    by_motion = []
    for name in _CALIBRATION:
        motion = Motion.load(bundled_motions()[name])
        at = np.linspace(0, len(motion) - 1, each + 1)[1:].round().astype(int).tolist()
        by_motion.append([stage.sample(target) for target in stage.targets(motion, at)])
    return [sample for group in zip(*by_motion, strict=True) for sample in group][:count]


# Motions as numbers that a page can play without computing a flow.


def packed(values: NDArray[Any]) -> bytes:
    """Integers as bytes that gzip makes small: differences to what is left and above, small ones first.

    Args:
        values: int8 or int16 [.., H, W].

    Returns:
        Zigzag-coded differences, modulo the type's range; of int16 all low bytes, then all high ones.
    """
    wide = values.dtype.itemsize == 2
    bits, modulus = (16, 1 << 16) if wide else (8, 1 << 8)
    steps = values.astype(np.int64)
    for axis in (-1, -2):
        steps = np.diff(steps, axis=axis, prepend=0)
    steps = (steps + modulus // 2) % modulus - modulus // 2
    zigzag = (steps << 1 ^ steps >> (bits - 1)) % modulus
    low = (zigzag & 255).astype(np.uint8).tobytes()
    return low + (zigzag >> 8).astype(np.uint8).tobytes() if wide else low


def unpacked(data: bytes, shape: tuple[int, ...], wide: bool) -> NDArray[Any]:
    """What packed packed; the page's player.js does the same."""
    count = int(np.prod(shape))
    planes = np.frombuffer(data, np.uint8).astype(np.int64)
    zigzag = planes[:count] + (planes[count:] << 8 if wide else 0)
    steps = (zigzag >> 1 ^ -(zigzag & 1)).reshape(shape)
    return steps.cumsum(-2).cumsum(-1).astype(np.int16 if wide else np.int8)


def motion_file(stage: Stage, motion: Motion, progress: Callable[[int, int], None]) -> tuple[bytes, dict[str, Any]]:
    """A motion put on one person, frame by frame, as numbers.

    Args:
        stage: the person.
        motion: what moves them.
        progress: is called with frames done and all frames.

    Returns:
        The file, gzip; and what export.json says of it.
    """
    texture = stage.config.form == "texture"
    px, crop = stage.config.image_px, stage.warper.crop
    drawn = sorted({point for index, _, _ in landmark_lines(stage.config.landmarks) for point in index})
    windows, points, flows, geometries, boxes, patches = [], [], [], [], [], []
    for done, target in enumerate(stage.targets(motion), start=1):
        window = stage.window_at(target)
        windows.append((window.left, window.top, stage.gate(target)))
        at = window.to_unit(target)[drawn, :2] * px * _POINT_UNITS
        points.append(at.round().clip(-(2**15), 2**15 - 1).astype(np.int16))
        if texture:
            flow = stage.warper.flow(target)
            flows.append((flow.offset * _FLOW_UNITS).round().astype(np.int16).transpose(2, 0, 1))
            maps = flow.maps(crop, window, px // 2) * _GEOMETRY_UNITS
            geometries.append(maps.round().clip(-128, 127).astype(np.int8))
            box, patch = _trimmed(stage.painted(flow, window))
            boxes.append(box)
            patches.append(patch.tobytes())
        progress(done, len(motion))
    parts = [
        ("windows", np.array(windows, "<f4"), "plain", 1.0),
        ("points", np.array(points, "<i2"), "plain", 1 / _POINT_UNITS),
    ]
    if texture:
        parts += [
            ("flow", np.stack(flows), "differences", 1 / _FLOW_UNITS),
            ("geometry", np.stack(geometries), "differences", 1 / _GEOMETRY_UNITS),
            ("boxes", np.array(boxes, "<i2"), "plain", 1.0),
            ("patches", np.frombuffer(b"".join(patches), np.uint8), "plain", 1.0),
        ]
    body = b""
    arrays = []
    for name, array, coding, unit in parts:
        about = {"name": name, "type": array.dtype.name, "shape": list(array.shape), "coding": coding, "unit": unit}
        arrays.append(about | {"offset": len(body)})
        data = array.tobytes() if coding == "plain" else packed(array)
        body += data + bytes(-len(data) % 4)  # numbers of four bytes begin at a multiple of four
    record = {"fps": motion.fps, "num_frames": len(motion), "arrays": arrays}
    return gzip.compress(body, 6, mtime=0), record


def _trimmed(patch: NDArray[np.uint8]) -> tuple[tuple[int, int, int, int], NDArray[np.uint8]]:
    """Left, top, width, height of what is not empty, and that."""
    rows, columns = (np.flatnonzero(patch.any((axis, 2))) for axis in (1, 0))
    if not len(rows):
        return (0, 0, 0, 0), patch[:0, :0]
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return (left, top, right - left, bottom - top), np.ascontiguousarray(patch[top:bottom, left:right])


# What the host has to know.

_INPUTS = {
    "y": "landmark image: lines on black (see landmarks), RGB, 0..255 / 127.5 - 1",
    "warped": "window of the photo, moved by the landmark flow, RGB, 0..255 / 127.5 - 1; half as wide as what is drawn",
    "geometry": "how it was moved, over the window: x and y of the flow, 1 is a tenth of the window's side; 1 where "
    "the photo does not show the surface; logarithm, base 4, of photo area for target area, cut to -1..1",
    "psi_hat": "the person: the embedder's output; of several photos its mean",
    "x": "window of a photo of the person, RGB, 0..255 / 127.5 - 1",
}
_RANGES = {"geometry": None, "psi_hat": None, "correction": [-0.1, 0.1], "change": [-2, 2], "mask": [0, 1]}
_RESULTS = {
    "x_hat": "the synthesised window, RGB, -1..1",
    "correction": "x and y, in sides of the window: pixel p of the moved one is the warped one's at p + correction(p)",
    "change": "what is added to the moved window: the drawn picture, RGB in units of 127.5",
    "mask": "how much of the moved photo is kept; the rest is the drawn picture",
    "psi_hat": "the person, as the generator takes it",
}
_HOST = {
    "paper": [
        "Find the face's 478 points in the photo, and where they are to go in this frame.",
        "The window is a square around the photo's face; it does not move. Draw the landmark image of the frame's "
        "points in it, landmarks.image_px wide.",
        "Run the generator.",
        "Lay x_hat over the photo's window; within rim of the window's side from its border fade it out (smoothstep).",
        "Mark the frame as synthetic.",
    ],
    "texture": [
        "Find the face's 478 points in the photo, and where they are to go in this frame.",
        "Compute the landmark flow over the crop: for each place of the frame, where in the photo it comes from.",
        "The window is a square around the frame's face, window.side wide. Draw the landmark image in it; sample the "
        "photo through the flow in it, frame_px wide, and halve that for the input `warped`; fill in `geometry`.",
        "Run the generator.",
        "fade = smoothstep(distance to the window's border / (rim of its side)) * say. correction *= fade; keep = 1 - "
        "(1 - mask) * fade. Enlarge correction, mask and change linearly.",
        "detail is 0 where person.scale is 1: the photo shows no more than the network sees. Else, over mask's cells: "
        "127.5 times the largest |change| of a cell's pixels and its neighbours', blurred by 1 4 6 4 1 both ways; "
        "detail = 1 - smoothstep of that from redrawn[0] to redrawn[1], enlarged linearly.",
        "For each pixel p of the frame, at the photo's own size: q = p + correction(p); moved = photo at q + flow(q). "
        "below = what the network saw at q, frame_px wide; drawn = below + 127.5 * change(p), cut to 0..255. The pixel "
        "is keep * moved + (1 - keep) * (drawn + detail * (moved - below)).",
        "Mark the frame as synthetic.",
    ],
}


def _ports(values: Any, words: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": value.name,
            "type": "float32",
            "shape": [size.dim_value for size in value.type.tensor_type.shape.dim],
            "range": _RANGES.get(value.name, [-1, 1]),
            "what": words[value.name],
        }
        for value in values
    ]


def _graph_record(graph: Graph) -> dict[str, Any]:
    model = onnx.load_from_string(graph.data)
    return {
        "file": graph.file,
        "sha256": hashlib.sha256(graph.data).hexdigest(),
        "bytes": len(graph.data),
        "precision": graph.precision,
        "opset": OPSET,
        "multiply_adds": graph.multiply_adds,
        "parameters": graph.parameters,
        "inputs": _ports(model.graph.input, _INPUTS),
        "outputs": _ports(model.graph.output, _RESULTS),
        "parity_with_torch": {name: dataclasses.asdict(found) for name, found in graph.parity.items()},
    }


def _landmarks(config: NetworkConfig) -> dict[str, Any]:
    lines = landmark_lines(config.landmarks)
    drawn = sorted({point for index, _, _ in lines for point in index})
    place = {point: number for number, point in enumerate(drawn)}
    smooth = config.landmarks == "smooth"
    return {
        "style": config.landmarks,
        "image_px": config.image_px,
        "line": "1 px wide, anti-aliased" if smooth else "2 px wide, not anti-aliased",
        "points": drawn,
        "of": f"the {NUM_POINTS} points of MediaPipe's Face Landmarker",
        "lines": [
            {"points": [place[point] for point in index], "colour": list(colour), "closed": closed}
            for index, colour, closed in lines
        ],
    }


def _record(subject: Subject, graphs: Sequence[Graph], stage: Stage | None, motions: list[Any]) -> dict[str, Any]:
    config, form = subject.config, subject.config.form
    record: dict[str, Any] = {
        "format": EXPORT_FORMAT,
        "notice": NOTICE,
        "digital_source_type": SOURCE_TYPE,
        "program": {"name": "mimik", "version": VERSION},
        "model": {
            "name": subject.name,
            "form": form,
            "licence": _LICENCE[subject.research_only],
            "card": "MODEL_CARD.md",
        },
        "graphs": {graph.name: _graph_record(graph) for graph in graphs},
        "landmarks": _landmarks(config),
        "frame_px": config.frame_px,
        "rim": RIM,
        "host": _HOST[form],
    }
    if form == "texture":
        record |= {"grid": GRID, "num_geometry": NUM_GEOMETRY, "window_in_face_heights": WINDOW_SCALE}
        record["redrawn"] = REDRAWN
    if stage is not None:
        crop, window = stage.warper.crop, stage.window_at(stage.face.points)
        record["person"] = {
            "photo": "photo.png",
            "width": stage.picture.shape[1],
            "height": stage.picture.shape[0],
            "reduced": "reduced.png",
            "scale": stage.scale,
            "crop": dataclasses.asdict(crop),
            "window": dataclasses.asdict(window),
        }
        record["motions"] = motions
    return record


def export(
    what: str, out: Path, config: ExportConfig, *, force: bool = False, progress: Progress | None = None
) -> Exported:
    """Writes a folder with a model's graphs and what their host needs.

    Args:
        what: "texture", a .safetensors file of `mimik train`, or an .avatar file of `mimik learn`.
        out: the folder.
        config: how.
        force: replace what an earlier export wrote there.
        progress: is called with a stage, the number of steps done, and of all of them, if that is known.

    Raises:
        InputError: if anything given cannot be used, or a graph does not compute what torch does; nothing is written.
    """
    tell = progress or (lambda stage, done, total: None)
    check_folder(out, force=force, inputs=[Path(what), *([config.photo] if config.photo else [])])
    motions = [_motion(name) for name in config.motions]
    tell("reading the model", 0, None)
    subject = Subject.of(what, config)
    stage = Stage(subject.avatar or Avatar.from_photos([PORTRAIT]), subject.config, config.size)
    tell("making the graph", 0, None)
    graphs = make_graphs(subject, stage, config.precision)

    # A person to begin with.
    files = {graph.file: graph.data for graph in graphs}
    records: list[dict[str, Any]] = []
    if subject.avatar is not None:
        files |= {
            "photo.png": encoded_png(stage.picture).tobytes(),
            "reduced.png": encoded_png(stage.reduced).tobytes(),
        }
        for name, motion in motions:
            data, record = motion_file(stage, motion, partial(tell, f"motion {name}"))
            files[f"{name}.motion.gz"] = data
            records.append({"name": name, "file": f"{name}.motion.gz", "bytes": len(data)} | record)
    record = _record(subject, graphs, stage if subject.avatar else None, records)
    _write(out, files | {RECORD_NAME: json.dumps(record, indent=1).encode()})
    notes = []
    if subject.avatar is not None:
        notes.append(f"{out} holds the person's photo: it is not for everybody who may have the program")
    elif graphs[0].parity["psi_hat"].apart == 0:
        notes.append("the embedder says the same of every picture, so this model draws all people by the same psi_hat")
    return Exported(out, tuple(graphs), tuple((one["name"], one["bytes"]) for one in records), tuple(notes))


def make_graphs(subject: Subject, stage: Stage, precision: str) -> list[Graph]:
    """The generator of a person; of a model that knows none the embedder, and the generator of anybody."""
    about = {"notice": NOTICE, "licence": _LICENCE[subject.research_only], "model": subject.name}
    outputs = _OUTPUTS[subject.config.form]
    samples = calibration_frames(stage, _NUM_CALIBRATED if precision == "int8" else _NUM_COMPARED)
    plain = _Drawing(subject.generator, subject.psi)
    if subject.psi is not None:
        fixed = _Drawing(baked(subject.generator, subject.psi), subject.psi)
        return [make_graph("generator", fixed, outputs, samples, precision, about=about, reference=plain)]
    assert subject.networks is not None
    embedding, photos = _Embedding(subject.networks), _moved_photos(stage, 4)
    # The embedder runs once a photo, and what is summed up needs digits.
    digits = "fp16" if precision == "int8" else precision
    embedder = make_graph("embedder", embedding, ("psi_hat",), photos, digits, about=about)
    with torch.inference_mode():
        people = [embedding(*map(torch.from_numpy, photo.values())).numpy() for photo in photos]
    samples = [sample | {"psi_hat": people[number % len(people)]} for number, sample in enumerate(samples)]
    return [embedder, make_graph("generator", plain, outputs, samples, precision, about=about)]


def _moved_photos(stage: Stage, count: int) -> list[Sample]:
    """The embedder's inputs for pictures of the person with several expressions."""
    motion = Motion.load(bundled_motions()[_CALIBRATION[0]])
    painter = Painter(stage.picture, stage.warper)
    found = []
    for target in stage.targets(motion, np.linspace(0, len(motion) - 1, count).round().astype(int).tolist()):
        x, y = _embedded(stage.config, painter.paint(stage.warper.flow(target)), target)
        found.append({"x": x, "y": y})
    return found


def _motion(given: str) -> tuple[str, Motion]:
    """A bundled motion or a .motion file, and what its file is called."""
    driver = open_driver(given)
    if not isinstance(driver, MotionFile):
        raise InputError(
            f"--motion {given}: is a {driver.kind}; give a .motion file: mimik motion extract {given} -o my.motion."
        )
    if len(driver.recorded) > _MAX_FRAMES:
        raise InputError(f"--motion {given}: has {len(driver.recorded)} frames; give one of at most {_MAX_FRAMES}.")
    return Path(given).stem, driver.recorded


def check_folder(out: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuse, before the work, a folder that could not be written after it, or holds what is not an export's.

    Raises:
        InputError: saying why.
    """
    parent = out.absolute().parent
    if not parent.is_dir():
        raise InputError(f"-o {out}: there is no folder {out.parent}; make it first, or give another name.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"-o {out}: the folder {out.parent} cannot be written to; give another one.")
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise InputError(f"-o {out}: is a file; give the name of a folder.")
    names = sorted(path.name for path in out.iterdir())
    if not names:
        return
    if RECORD_NAME not in names or not all(name.endswith(_OWN) for name in names):
        raise InputError(f"-o {out}: holds other files; give a new folder, or an empty one.")
    if not force:
        raise InputError(f"-o {out}: holds an export; give --force to replace it, or another name.")
    if any(path.resolve().parent == out.resolve() for path in inputs):
        raise InputError(f"-o {out}: holds a file of this run; give another folder.")


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """All files or none, in place of an older export."""
    with replaced_folder(out) as new:
        for name, data in files.items():
            (new / name).write_bytes(data)
