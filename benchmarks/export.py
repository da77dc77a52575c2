"""Size, speed and precision of exported graphs in each runtime.

    python benchmarks/export.py [--models texture,paper] [--where native,browser] [--repeats 20] [-o RESULT.json]

`texture` is the bundled model with the bundled portrait; `paper` is the paper's generator at the paper's size with
random weights. Its speed and size are realistic, but its output is noise, so only the deviation from fp32 is measured.
Every figure is for one frame at a time on the processor, with one thread and with all. `browser` is a headless Chromium
with onnxruntime-web; it needs node, npm, and `npm ci` in examples/browser first. Prints a table of the minimum over the
repeats; -o writes minimum and median as JSON, merged into the results of earlier runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from browser_pages import SOFTWARE_WEBGL, served
from mimik.animation.avatar import Avatar
from mimik.app.export import exporting, settings
from mimik.app.export.graphs import session
from mimik.app.export.networks import GraphInputs
from mimik.app.export.settings import ExportConfig, Graph
from mimik.app.export.source import ExportSource
from mimik.app.export.stage import Stage, calibration_frames
from mimik.config import PRESETS
from mimik.face.openvino_core import openvino
from mimik.inference.synthesis import TexturePainter
from mimik.motion.files import Motion
from mimik.motion.kinds import bundled_motions
from mimik.networks.blocks import SelfAttention
from mimik.networks.generators import Generator
from reporting import ROOT, machine, markdown, write_json

EXAMPLE = ROOT / "examples/browser"
THREADS = (1, os.cpu_count() or 1)
_WARM_UP = 3
_QUALITY_MOTIONS = ("talk", "laugh", "look-around", "surprise")


def sources(names: Sequence[str]) -> dict[str, ExportSource]:
    """Sources of the models to measure."""
    return {name: {"texture": _shipped, "paper": _random}[name]() for name in names}


def _shipped() -> ExportSource:
    """The bundled model with the bundled portrait."""
    return ExportSource.of("texture", ExportConfig(photo=exporting.PORTRAIT))


def _random() -> ExportSource:
    """The paper's generator at the paper's size, with random weights."""
    config = PRESETS["paper_v2"].networks
    torch.manual_seed(0)
    low, high = config.generator_channels
    generator = Generator(config.image_px, min_channels=low, max_channels=high, attention=config.attention).eval()
    for module in generator.modules():
        if isinstance(module, SelfAttention):
            module.gamma.data.fill_(0.5)  # attention that does something
    psi = torch.randn(1, 2 * sum(generator.adain_sizes)).mul(0.3).add(0.5)
    return ExportSource("paper, random", config, generator, None, psi, Avatar.from_photos([exporting.PORTRAIT]), False)


def timed(run: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median and minimum in milliseconds; other programs disturb the minimum less."""
    for _ in range(_WARM_UP):
        run()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        taken.append(1000 * (time.perf_counter() - start))
    return {"median": round(statistics.median(taken), 2), "least": round(min(taken), 2)}


def speed(graph: Graph, sample: GraphInputs, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds per frame by runtime and number of threads."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, graph.file)
        path.write_bytes(graph.data)
        for threads in sorted(set(THREADS)):
            running = session(graph.data, num_threads=threads)
            found[f"onnxruntime, {threads} threads"] = timed(lambda r=running: r.run(None, sample), repeats)
            for hint in ("f32", "bf16") if graph.precision == "fp32" else ("f32",):
                options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
                options["INFERENCE_PRECISION_HINT"] = hint
                request = openvino().Core().compile_model(str(path), "CPU", options).create_infer_request()
                name = f"openvino{' bf16' if hint == 'bf16' else ''}, {threads} threads"
                found[name] = timed(lambda r=request: r.infer(sample), repeats)
    return found


def psnr(found: Any, expected: Any, peak: float) -> float:
    error = float(np.mean(np.square(np.asarray(found, np.float64) - expected)))
    return 10 * float(np.log10(peak**2 / max(error, 1e-12)))


def quality(source: ExportSource, graphs: Sequence[Graph], count: int) -> dict[str, dict[str, float]]:
    """PSNR against fp32 in dB, mean and minimum over frames of bundled motions that were not used for calibration.

    For texture over the window of final frames at 512 px; for paper over the network's output.
    """
    assert source.avatar is not None
    stage = Stage(source.avatar, source.config, 512)
    running = {graph.precision: session(graph.data) for graph in graphs}
    scores: dict[str, list[float]] = {name: [] for name in running}
    for motion_name in _QUALITY_MOTIONS:
        motion = Motion.load(bundled_motions()[motion_name])
        # Calibration takes its frames evenly up to the last one; these lie between them.
        at = (np.linspace(0, len(motion) - 1, 2 * count)[1::2] - 3).round().astype(int).clip(1).tolist()
        for target in stage.targets(motion, at):
            pictures = {}
            for name, graph in running.items():
                if source.config.form == "paper":
                    pictures[name] = graph.run(None, stage.sample(target))[0]
                    continue

                def draw(*inputs: Any, graph: Any = graph) -> list[Any]:
                    return graph.run(None, dict(zip(("y", "warped", "geometry"), inputs, strict=True)))

                painter = TexturePainter(stage.picture, stage.face.points, stage.warper, source.config, draw)
                pictures[name] = stage.window_at(target).cut(painter.paint(stage.warper.flow(target), target), 256)
            peak = 2.0 if source.config.form == "paper" else 255.0
            for name, picture in pictures.items():
                scores[name].append(psnr(picture, pictures["fp32"], peak))
    return {
        name: {"mean": statistics.mean(all_), "least": min(all_)} for name, all_ in scores.items() if name != "fp32"
    }


PAGE = """<!DOCTYPE html><meta charset="utf-8"><script type="module">
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", location.href).href;
ort.env.wasm.numThreads = Number(new URLSearchParams(location.search).get("threads"));
window.measure = async (file, shapes, repeats, warm_up) => {
  const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  const feeds = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const size = shape.reduce((a, b) => a * b);
    feeds[name] = new ort.Tensor("float32", Float32Array.from({ length: size }, (_, i) => Math.sin(i) / 2), shape);
  }
  const taken = [];
  for (let i = 0; i < repeats + warm_up; i++) {
    const start = performance.now();
    await session.run(feeds);
    if (i >= warm_up) taken.push(performance.now() - start);
  }
  await session.release();
  taken.sort((a, b) => a - b);
  return { median: taken[Math.floor(taken.length / 2)], least: taken[0] };
};
</script>"""


def in_browser(graphs: dict[str, list[Graph]], samples: dict[str, GraphInputs], repeats: int) -> dict[str, Any]:
    """Milliseconds per frame of each graph in WebAssembly, and for texture frames per second of the whole page."""
    from playwright.sync_api import sync_playwright

    chromium = next(path for path in map(shutil.which, ("chromium", "chromium-browser")) if path)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "node_modules").symlink_to(EXAMPLE / "node_modules")
        (folder / "measure.html").write_text(PAGE)
        for file in (EXAMPLE / "index.html", *EXAMPLE.glob("*.js")):
            shutil.copy(file, folder)
        for form, each in graphs.items():
            for graph in each:
                (folder / f"{form}.{graph.precision}.onnx").write_bytes(graph.data)
        if "texture" in graphs:
            config = ExportConfig(photo=exporting.PORTRAIT, motions=("talk",))
            exporting.export("texture", folder / "person_fp32", config)
            for graph in graphs["texture"][1:]:
                other = shutil.copytree(folder / "person_fp32", folder / f"person_{graph.precision}")
                (other / graph.file).write_bytes(graph.data)
        with served(folder) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=[*SOFTWARE_WEBGL])
            found["browser"] = f"Chromium {browser.version}, headless, WebGL by SwiftShader on the processor"
            for threads in sorted(set(THREADS)):
                page = browser.new_page()
                page.set_default_timeout(300_000)
                page.goto(f"{address}/measure.html?threads={threads}")
                page.wait_for_function("Boolean(window.measure)")
                for form, each in graphs.items():
                    shapes = {key: list(value.shape) for key, value in samples[form].items()}
                    for graph in each:
                        count = f"{repeats}, {_WARM_UP}" if form == "texture" else "2, 1"  # of many seconds each
                        call = f"measure('{form}.{graph.precision}.onnx', {json.dumps(shapes)}, {count})"
                        found.setdefault(form, {}).setdefault(graph.precision, {})[f"wasm, {threads} threads"] = (
                            page.evaluate(call)
                        )
                page.close()
                for precision in settings.PRECISIONS if "texture" in graphs else ():
                    page = browser.new_page(viewport={"width": 700, "height": 900})
                    page.goto(f"{address}/index.html?person=person_{precision}&threads={threads}")
                    page.wait_for_function("parseFloat(document.getElementById('rate').textContent) > 0")
                    page.wait_for_timeout(8000)
                    said = page.inner_text("#rate")
                    found.setdefault("page", {}).setdefault(precision, {})[f"{threads} threads"] = said
                    page.close()
            browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--frames", type=int, default=6, help="of each motion, for the quality")
    parser.add_argument("--models", default="texture,paper")
    parser.add_argument("--where", default="native,browser")
    parser.add_argument("-o", dest="out", type=Path)
    arguments = parser.parse_args()

    result: dict[str, Any] = {"models": {}, "browser": {}, "load": []}
    if arguments.out and arguments.out.exists():
        result = json.loads(arguments.out.read_text())
    result |= {
        "what": "exported generators, one frame at a time, milliseconds",
        "machine": machine("torch", "onnx", "onnxruntime", "openvino"),
    }
    result["load"].append(round(os.getloadavg()[0], 1))
    where = arguments.where.split(",")
    graphs: dict[str, list[Graph]] = {}
    samples: dict[str, GraphInputs] = {}
    for form, source in sources(arguments.models.split(",")).items():
        assert source.avatar is not None
        stage = Stage(source.avatar, source.config, 512)
        samples[form] = calibration_frames(stage, 1)[0]
        graphs[form] = [graph for p in settings.PRECISIONS for graph in exporting.make_graphs(source, stage, p)]
        first = graphs[form][0]
        model = result["models"].setdefault(form, {"precisions": {}, "psnr_against_fp32_db": {}})
        model |= {"multiply_adds": first.multiply_adds, "parameters": first.parameters}
        for graph in graphs[form]:
            row = model["precisions"].setdefault(graph.precision, {"ms": {}})
            row["bytes"] = len(graph.data)
            if "native" in where:
                repeats = arguments.repeats if form == "texture" else max(3, arguments.repeats // 4)
                row["ms"] |= speed(graph, samples[form], repeats)
        if "native" in where:
            model["psnr_against_fp32_db"] = quality(source, graphs[form], arguments.frames)
    if "browser" in where:
        result["browser"] |= in_browser(graphs, samples, arguments.repeats)
        for form in graphs:
            for precision, found in result["browser"].pop(form).items():
                result["models"][form]["precisions"][precision]["ms"] |= found
    result["load"].append(round(os.getloadavg()[0], 1))
    print(table(result))
    write_json(arguments.out, result)


def table(result: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    models = result["models"]
    names = list(dict.fromkeys(name for m in models.values() for p in m["precisions"].values() for name in p["ms"]))
    heads = ["", "multiply-adds", "MB", "PSNR against fp32, dB: mean; least", *(f"ms, {name}" for name in names)]
    rows = []
    for form, model in models.items():
        for precision, row in model["precisions"].items():
            lost = model["psnr_against_fp32_db"].get(precision)
            said = f"{lost['mean']:.1f}; {lost['least']:.1f}" if lost else ""
            numbers = [f"{row['ms'][name]['least']:.1f}" if name in row["ms"] else "" for name in names]
            size = f"{model['multiply_adds'] / 1e9:.2f} G", f"{row['bytes'] / 1e6:.1f}"
            rows.append([f"{form}, {precision}", *size, said, *numbers])
    return markdown(heads, rows)


if __name__ == "__main__":
    main()
