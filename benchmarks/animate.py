"""Speed of `mimik animate`: frames per second, time per stage, and peak memory.

    python benchmarks/animate.py [--driver VIDEO] [--photo PHOTO] [--size 512] [--repeats 3] [--isa avx2] \
        [-o RESULT.json]

Without --driver it first renders a 1280x720 driver: the bundled portrait, animated by the bundled talk. Every repeat
runs in a separate process, so that peak memory is measured per run. --isa avx2 measures as on a processor without
AVX-512 and AMX. Prints a table; -o writes it as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mimik import Avatar
from mimik.media import video
from reporting import ISA, PORTRAIT, add_isa, machine, markdown, write_json

WARM_UP = 20  # frames that the steady rate leaves out
RUN = f"""
import json, resource, sys, time
from mimik import Avatar

def seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), usage.ru_utime + usage.ru_stime

def progress(stage, done, total):
    if stage == "animate" and done:
        marks.append(seconds())

marks, start = [], time.perf_counter()
options = {{"force": True, "size": int(sys.argv[4]), "progress": progress}}
report = Avatar.from_photos([sys.argv[1]]).render(sys.argv[2], sys.argv[3], **options)
(wall, cpu), num = (b - a for a, b in zip(marks[{WARM_UP}], marks[-1])), len(marks) - 1 - {WARM_UP}
steady = {{"frames_per_second": round(num / wall, 2), "cpu_ms_per_frame": round(1000 * cpu / num, 2)}}
result = {{"first_frame_s": round(marks[0][0] - start, 3), "steady": steady, "cpu_seconds": seconds()[1]}}
print(json.dumps({{**json.loads(report.to_json()), **result}}))
"""


def make_driver(path: Path, seconds: float, width: int = 1280, height: int = 720, fps: float = 25.0) -> None:
    """Write a video of a talking head; the bundled motion repeats."""
    frames = []
    with closing(Avatar.from_photos([PORTRAIT]).frames("talk", fps=fps)) as images:
        for image in images:
            canvas = np.full((height, width, 3), 96, np.uint8)
            left = (width - height) // 2
            canvas[:, left : left + height] = cv2.resize(image, (height, height), interpolation=cv2.INTER_CUBIC)
            frames.append(canvas)
    with video.open_writer(path, width, height, fps, quality=20) as writer:
        for i in range(round(seconds * fps)):
            writer.write(frames[i % len(frames)])


def run_once(photo: Path, driver: Path, size: int, out: Path, isa: str | None = None) -> dict[str, Any]:
    """Report of one run in a separate process, with its processor time; isa: a key of reporting.ISA."""
    command = [sys.executable, "-c", RUN, str(photo), str(driver), str(out), str(size)]
    env = {**os.environ, **ISA.get(isa or "", {})}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, default=PORTRAIT)
    parser.add_argument("--driver", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the generated driver")
    parser.add_argument("--repeats", type=int, default=3)
    add_isa(parser)
    parser.add_argument("-o", dest="out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        driver = arguments.driver
        if driver is None:
            driver = Path(folder, "driver.mp4")
            make_driver(driver, arguments.seconds)
        given = arguments.photo, driver, arguments.size, Path(folder, "out.mp4"), arguments.isa
        runs = [run_once(*given) for _ in range(arguments.repeats)]
    middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
    rates = [run["frames_per_second"] for run in runs]
    cpu_ms = 1000 * middle["cpu_seconds"] / middle["num_frames"]
    result = {
        "what": f"animate, {middle['width']}x{middle['height']}, {middle['num_frames']} frames",
        "frames_per_second": {"median": statistics.median(rates), "all": rates},
        "cpu_ms_per_frame": round(cpu_ms, 2),
        "steady": [run["steady"] for run in runs],
        "first_frame_s": [run["first_frame_s"] for run in runs],
        "busy_ms_per_frame": middle["ms_per_frame"],
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
        "isa": arguments.isa,
        "machine": machine("numpy", "openvino", "av"),
    }
    print(f"{result['what']}, {os.cpu_count()} cores")
    times = {f"{stage} (busy)": ms for stage, ms in middle["ms_per_frame"].items()}
    times |= {"processor time, all": cpu_ms, "end to end": 1000 / statistics.median(rates)}
    print(markdown(["stage", "ms per frame"], [[stage, f"{ms:.2f}"] for stage, ms in times.items()]))
    print(f"{statistics.median(rates):.1f} frames per second end to end; peak memory {result['peak_memory_mb']:.0f} MB")
    steady = middle["steady"]
    print(f"frame {WARM_UP + 1} to the last: {{frames_per_second}} frames/s, {{cpu_ms_per_frame}} ms".format(**steady))
    print(f"first frame after {middle['first_frame_s']:.2f} s, imports excluded")
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
