"""Converts networks to ONNX graphs of a given precision, and compares each with torch before it is written."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn

from mimik.app.export.networks import NOTICE, Array, GraphInputs, without_spectral_norm
from mimik.app.export.settings import OPSET, Difference, Graph
from mimik.config import VERSION, ModelError

# Limits of the largest and the mean difference from torch, relative to the span of the output: its largest minus its
# smallest value over the compared frames. 8 bits are coarse; their effect on pictures is measured in docs/phones.md.
_LIMITS = {"fp32": (1e-3, 1e-4), "fp16": (0.05, 0.002), "int8": (0.5, 0.05)}
_LEAST_SPAN = 0.01
NUM_COMPARED = 8  # compared frames


@contextmanager
def _only_errors_logged(name: str | None) -> Iterator[None]:
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _traced(module: nn.Module, inputs: GraphInputs, outputs: Sequence[str]) -> onnx.ModelProto:
    """Trace a module in evaluation mode into a float32 ONNX graph."""
    module = without_spectral_norm(module)
    data: Any = io.BytesIO()
    with _only_errors_logged("torch.onnx"), warnings.catch_warnings(action="ignore"), torch.inference_mode():
        # Ignore the warnings that shapes become constants, which is intended for a static graph. The tracer emits the
        # same operations as torch's newer exporter in a tenth of its time, without onnxscript.
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(value) for value in inputs.values()),
            data,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
        )
    model = onnx.load_from_string(data.getvalue())
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model)


def multiply_adds(model: onnx.ModelProto) -> int:
    """Multiply-adds per call of convolutions and matrix products, for a graph with static shapes."""
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
    """Calibration frames for onnxruntime's quantizer."""

    def __init__(self, samples: Sequence[GraphInputs]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> GraphInputs | None:
        return next(self._samples, None)


def _quantized(model: onnx.ModelProto, samples: Sequence[GraphInputs]) -> onnx.ModelProto:
    """Quantize convolutions to 8 bits: weights per channel, activations in the samples' range; the rest stays float.

    The last convolutions also stay float: they are cheap, and 8 bits of the correction cause half a pixel of jitter.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("plain.onnx", "ready.onnx", "int8.onnx")]
        onnx.save(model, paths[0])
        quant_pre_process(paths[0], paths[1], skip_symbolic_shape=True)
        with _only_errors_logged(None):
            quantize_static(
                paths[1],
                paths[2],
                _Frames(samples),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,  # fastest on CPUs: unsigned by signed
                weight_type=QuantType.QInt8,
                reduce_range=True,  # 7 bits: with AVX2 without VNNI, sums of two products overflow 16 bits
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=last_convolutions(onnx.load(paths[1])),
            )
        return onnx.load(paths[2])


def last_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions that are followed by no other convolution on a path to an output."""
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
    """Load a graph into onnxruntime on the CPU; 0 threads: chosen automatically."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def deviations(data: bytes, module: nn.Module, samples: Sequence[GraphInputs]) -> dict[str, Difference]:
    """Differences between onnxruntime's outputs for an ONNX file and torch's for the module, by output."""
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
    found = {}
    for name in names:
        right = np.stack(theirs[name])
        apart = np.abs(np.stack(ours[name]).astype(np.float64) - right)
        varied = float(np.ptp(right, axis=0).max())
        found[name] = Difference(float(apart.max()), float(apart.mean()), float(np.ptp(right)), varied)
    return found


def make_graph(
    name: str,
    module: nn.Module,
    outputs: Sequence[str],
    samples: Sequence[GraphInputs],
    precision: str,
    *,
    about: Mapping[str, str],
    reference: nn.Module | None = None,
) -> Graph:
    """Convert a network to ONNX and compare it with torch. Raises ModelError if they differ too much.

    Args:
        module: the network, in evaluation mode.
        samples: typical inputs: the first few are compared, all of them calibrate 8 bits.
        precision: one of PRECISIONS.
        about: metadata of the file.
        reference: module to compare with; None: the module itself.
    """
    plain = _traced(module, samples[0], outputs)
    work = multiply_adds(plain)
    count = sum(int(np.prod(tensor.dims)) for tensor in plain.graph.initializer)
    model = plain
    if precision == "fp16":
        with warnings.catch_warnings(action="ignore"):  # weights below the smallest half-precision number are clipped
            model = convert_float_to_float16(plain, keep_io_types=True)
    elif precision == "int8":
        model = _quantized(plain, samples)
    onnx.helper.set_model_props(model, dict(about))
    model.doc_string, model.producer_name, model.producer_version = NOTICE, "mimik", VERSION
    data = model.SerializeToString()
    parity = deviations(data, reference or module, samples[:NUM_COMPARED])
    check(parity, precision, name)
    return Graph(name, data, precision, work, count, parity)


def check(parity: Mapping[str, Difference], precision: str, name: str) -> None:
    """Raise ModelError, naming the output, if a graph differs too much from torch."""
    largest, mean = _LIMITS[precision]
    for output, found in parity.items():
        span = max(found.span, _LEAST_SPAN)
        if not (found.largest <= largest * span and found.mean <= mean * span):  # also rejects nan and inf
            hint = "this model cannot be exported" if precision == "fp32" else "use a higher --precision"
            raise ModelError(
                f"--precision {precision}: {output} of the {name} deviates by {found.largest:.2g} at most and "
                f"{found.mean:.2g} in the mean, of a span of {found.span:.2g}; allowed are {largest:g} and {mean:g} of "
                f"the span. Nothing is written; {hint}."
            )
