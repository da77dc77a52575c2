"""Shared by the benchmarks: description of the machine, Markdown tables, JSON results, error messages."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import mimik
from mimik.config import InputError
from mimik.files import asset

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
PORTRAIT = asset("portraits/eileen_collins.png")


# Environment in which OpenVINO, OpenCV, NumPy and its BLAS use no later instruction set. The codecs are not limited.
ISA = {
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENCV_CPU_DISABLE": "AVX512-SKX",
        "OPENCV_IPP": "avx2",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        "OPENBLAS_CORETYPE": "Haswell",
    }
}


def add_isa(parser: argparse.ArgumentParser) -> None:
    """Add the option --isa."""
    parser.add_argument("--isa", choices=sorted(ISA), help="measure as on a processor without later instruction sets")


def machine(*packages: str) -> dict[str, Any]:
    """Processor with the flags that affect speed, cores, load, and versions of packages."""
    path = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in (path.read_text() if path.exists() else "").splitlines()]
    found = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    wanted = ("sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile")
    return {
        "processor": found.get("model name", platform.machine()),
        "flags": [flag for flag in wanted if flag in found.get("flags", "").split()],
        "cores": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("mimik", *packages)},
    }


def commit() -> str:
    """Commit of the measured package; "+" is appended if there are changes; empty outside a checkout."""
    describe = ["git", "-C", str(Path(mimik.__file__).parent), "describe", "--always", "--dirty=+"]
    return subprocess.run(describe, capture_output=True, text=True).stdout.strip()


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def write_json(path: Path | None, result: Any) -> None:
    """Write the results, if a path is given."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")


def exit_code(run: Callable[[], None]) -> int:
    """Run a benchmark and return the exit code; on an InputError print the message and return 2."""
    try:
        run()
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
