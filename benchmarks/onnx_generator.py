"""G of one person in OpenVINO: the graph of inference/runtime.py against the ONNX graph that `mimik export` traces.

    python benchmarks/onnx_generator.py [--frames 24] [--repeats 5]

One thread; processor time per call, median over repeats, graphs interleaved. Differences are relative to the graph of
runtime.py in float32, over frames of the bundled motions: the residual in gray levels, before the mask.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import numpy as np
import openvino
import torch

from mimik.app.export import graphs
from mimik.app.export.networks import OUTPUTS, Drawing, baked
from mimik.app.export.settings import ExportConfig
from mimik.app.export.source import ExportSource
from mimik.app.export.stage import Stage, calibration_frames
from mimik.arrays import Array
from mimik.inference.runtime import Network
from mimik.inference.synthesis import BUNDLED_MODEL
from mimik.networks.release import read_release
from reporting import PORTRAIT, markdown

Call = Callable[..., list[Array]]


def compiled(data: bytes) -> Call:
    """An ONNX graph compiled in float32, or with its 8-bit convolutions."""
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    core = openvino.Core()
    request = core.compile_model(core.read_model(data), "CPU", options).create_infer_request()

    def call(*inputs: Array) -> list[Array]:
        request.infer(list(inputs))
        return [request.get_output_tensor(number).data.copy() for number in range(3)]

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = ExportSource.of("texture", ExportConfig(photo=PORTRAIT))
    assert source.avatar is not None and source.psi is not None
    frames: list[Mapping[str, Array]] = list(calibration_frames(Stage(source.avatar, source.config, 256), args.frames))
    module = Drawing(baked(source.generator, source.psi), source.psi)
    traced = graphs._traced(module, dict(frames[0]), OUTPUTS["texture"])
    release, psi = read_release(BUNDLED_MODEL), source.psi[0].numpy()
    calls: dict[str, Call] = {
        name: Network(release.preset.networks, release.tensors, 1, exact=exact).generator(psi)
        for name, exact in (("built, f32", True), ("built, as it runs", False))
    }
    calls["ONNX, f32"] = compiled(traced.SerializeToString())
    calls["ONNX, 8 bits"] = compiled(graphs._quantized(traced, [dict(one) for one in frames]).SerializeToString())
    found = {name: [call(*one.values()) for one in frames] for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.repeats):
        for name, call in calls.items():
            start = time.process_time()
            for one in frames:
                call(*one.values())
            times[name].append(1000 * (time.process_time() - start) / len(frames))
    rows = []
    for name, made in found.items():
        apart = np.abs(np.stack([a[1] - b[1] for a, b in zip(made, found["built, f32"], strict=True)])) * 127.5
        rows.append([name, f"{np.median(times[name]):.1f}", f"{apart.max():.4f}, {apart.mean():.4f}"])
    print(markdown(["graph", "ms per call", "residual: largest, mean difference"], rows))


if __name__ == "__main__":
    main()
