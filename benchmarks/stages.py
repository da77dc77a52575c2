"""Processor time per frame of each step of `mimik animate`, on one thread.

    python benchmarks/stages.py DRIVER [--photo PHOTO] [--size 512] [--model NAME] [--frames 60] [-o OUT.json]
    python benchmarks/stages.py DRIVER --before CHECKOUT ...
    python benchmarks/stages.py DRIVER --isa avx2 ...

The steps run sequentially, so that processor time can be attributed; other load affects it much less than wall time.
The first frames, which prepare layers, are excluded. Indented steps are parts of the step above. --before also measures
another checkout, interleaved with this one, and prints the ratio, which is more reliable than absolute times. --isa
avx2 measures as on a processor without AVX-512 and AMX.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from reporting import ISA, PORTRAIT, ROOT, add_isa, machine, markdown, write_json

WARM_UP = 8  # frames
# Step, and the functions that it consists of: module, class or "", name. Functions that a checkout lacks are skipped.
PARTS = {
    "  landmarker's view": [("mimik.face.landmarks", "", "_warp")],
    "  solving": [("mimik.rendering.field", "", "_solve")],
    "  evaluating": [("mimik.rendering.flow", "", "smooth_field")],
    "  network's inputs": [("mimik.inference.synthesis", "TexturePainter", "network_inputs")],
    "  network": [("mimik.inference.runtime", "_Compiled", "__call__")],
    "  corrected flow": [("mimik.inference.synthesis", "", "corrected")],
    "  warps": [("mimik.rendering.painter", "Painter", name) for name in ("carry", "_carry")],
    "  mouth and eyes": [
        ("mimik.rendering.painter", "Painter", name) for name in ("overlays", "complete", "_complete")
    ],
    "  blend": [("mimik.inference.synthesis", "", "_blend_under_detail"), ("mimik.inference.synthesis", "", "_blend")],
    "  watermark": [
        ("mimik.provenance.marking", "Marker", "mark"),
        ("mimik.provenance.watermark", "WatermarkEmbedder", "embed"),
        ("mimik.provenance.watermark", "WatermarkEmbedder", "embed_luma"),
    ],
}


class Times:
    """Processor seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: set[str] = set()

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A wrapper that measures the function's processor time; nested calls of the same step count once."""

        @functools.wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            if step in self._inside:
                return function(*arguments, **options)
            self._inside.add(step)
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[step] = self.seconds.get(step, 0.0) + time.process_time() - start
                self._inside.discard(step)

        return run


def until_none(step: Callable[[], Any]) -> Iterator[Any]:
    """Results of repeated calls, until None."""
    while (item := step()) is not None:
        yield item


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import cv2

    from mimik.animation.avatar import Avatar
    from mimik.config import AnimateConfig
    from mimik.face.tracker import Tracker
    from mimik.media import video
    from mimik.motion.extraction import stream_motion
    from mimik.provenance.credentials import Credentials
    from mimik.provenance.manifests import Claim
    from mimik.provenance.sealing import seal

    cv2.setNumThreads(1)
    times = Times()
    for part, places in PARTS.items():
        for module, owner, name in places:
            try:
                holder: Any = importlib.import_module(module)
                holder = getattr(holder, owner) if owner else holder
                setattr(holder, name, times.timed(part, getattr(holder, name)))
            except (ImportError, AttributeError):
                continue
    size = None if arguments.size == "native" else int(arguments.size)
    config = AnimateConfig(model=arguments.model, size=size)
    start = time.process_time()
    avatar = Avatar.from_photos([arguments.photo])
    source = avatar.source_frame(config, limit_side=True)
    info = video.probe(arguments.driver)
    tracker = Tracker(avatar.landmarker)
    read: Any = getattr(video, "decode_frames", video.read_frames)  # of older versions: frames that are converted
    frames = read(arguments.driver, fps=info.fps, max_side=1280, num_threads=1)
    follow = times.timed("tracking", tracker.track)
    decoded = functools.partial(times.timed("decoding", next), frames, None)
    num_frames = arguments.frames + WARM_UP
    faces = [follow(frame) for frame in islice(until_none(decoded), num_frames)]
    reference, motion = stream_motion(faces, info.fps, smooth=0.5)
    step = functools.partial(times.timed("smoothing", next), motion, None)
    retarget = times.timed("retargeting", source.retarget(reference))
    flow_of, paint = times.timed("flow", source.flow), times.timed("painting", source.paint)
    made = 0
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.mp4")
        os.environ["MIMIK_DATA"] = folder  # do not touch the user's own key
        sealing = seal(out, Claim(out.name, "texture", avatar.ingredients()), credentials=Credentials.local())
        draft = sealing.__enter__()
        writer = draft.open_writer(*source.size, info.fps, quality=18)
        write = times.timed("encoding with the mark", writer.write)
        prepared_s = 0.0
        wall = time.perf_counter()
        for made, move in enumerate(islice(until_none(step), num_frames), start=1):
            if made == WARM_UP + 1:
                prepared_s = time.process_time() - start
                for name in times.seconds:
                    if name.strip() not in ("tracking", "decoding", "landmarker's view"):
                        times.seconds[name] = 0.0
                wall = time.perf_counter()
            points = retarget(move)
            write(paint(flow_of(points), points))
        wall = time.perf_counter() - wall
        times.timed("encoding with the mark", writer.__exit__)(None, None, None)
        times.timed("signing", sealing.__exit__)(None, None, None)
        megabytes = out.stat().st_size / 1e6
    counted = made - WARM_UP
    tracked = {"tracking", "decoding", "landmarker's view"}
    ms = {
        step: round(1000 * s / (len(faces) if step.strip() in tracked else counted), 2)
        for step, s in times.seconds.items()
    }
    total = sum(value for step, value in ms.items() if not step.startswith(" "))
    order = [
        "decoding",
        "tracking",
        "smoothing",
        "retargeting",
        "flow",
        "painting",
        "encoding with the mark",
        "signing",
    ]
    inside = {
        "tracking": ["  landmarker's view"],
        "flow": ["  solving", "  evaluating"],
        "painting": ["  network's inputs", "  network", "  corrected flow", "  warps", "  mouth and eyes", "  blend"],
        "encoding with the mark": ["  watermark"],
    }
    listed = [name for step in order for name in (step, *inside.get(step, [])) if name in ms]
    return {
        "size": source.size,
        "frames": counted,
        "ms_per_frame": {name: ms[name] for name in listed} | {"total": round(total, 2)},
        "wall_ms_per_frame_after_tracking": round(1000 * wall / max(counted, 1), 2),
        "before_the_first_frame_s": round(prepared_s, 2),
        "megabytes": round(megabytes, 3),
    }


def run_in(checkout: Path, arguments: list[str], isa: str | None = None) -> dict[str, Any]:
    """Results of this file, run with the package of a checkout; isa: a key of reporting.ISA."""
    env = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1", **ISA.get(isa or "", {})}
    command = [sys.executable, __file__, *arguments, "--inside"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driver", type=Path)
    parser.add_argument("--photo", type=Path, default=PORTRAIT)
    parser.add_argument("--size", default="512", help="pixels of the longer side, or native")
    parser.add_argument("--model")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--repeats", type=int, default=2)
    add_isa(parser)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-o", dest="out", type=Path)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measure(arguments)))
        return
    given = [str(arguments.driver.resolve()), "--photo", str(arguments.photo.resolve()), "--size", arguments.size]
    given += ["--frames", str(arguments.frames), *(["--model", arguments.model] if arguments.model else [])]
    checkouts = {"now": ROOT.resolve()} | ({"before": arguments.before.resolve()} if arguments.before else {})
    # Interleaved; the minimum of each step, because other programs only add time.
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    for _ in range(arguments.repeats):
        for name, checkout in checkouts.items():
            runs[name].append(run_in(checkout, given, arguments.isa))
    best = {
        name: {step: min(one["ms_per_frame"].get(step, 1e9) for one in every) for step in every[0]["ms_per_frame"]}
        for name, every in runs.items()
    }
    steps = list(dict.fromkeys([*best.get("before", {}), *best["now"]]))
    steps.sort(key=lambda step: step == "total")
    width, height = runs["now"][0]["size"]
    print(f"{width}x{height}, {runs['now'][0]['frames']} frames, ms of processor time per frame")
    names = list(reversed(best))
    print(markdown(["step", *names], [[s, *(f"{best[n].get(s, float('nan')):.2f}" for n in names)] for s in steps]))
    result = {"machine": machine(), "arguments": {**vars(arguments)}, "ms_per_frame": best, "runs": runs}
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
