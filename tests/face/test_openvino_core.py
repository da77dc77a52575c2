"""One OpenVINO Core, and compiled networks that are cached between runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mimik
from mimik.face import openvino_core
from mimik.face.openvino_core import compiled_once, inference_core, openvino


def test_there_is_one_core() -> None:
    assert inference_core() is inference_core()
    sources = {path.name: path.read_text(encoding="utf-8") for path in Path(mimik.__file__).parent.rglob("*.py")}
    makers = {name: len(re.findall(r"\bCore\(", text)) for name, text in sources.items()}
    assert {name: count for name, count in makers.items() if count} == {"openvino_core.py": 1}


def doubling() -> Any:
    op = openvino().opset13
    parameter = op.parameter([1, 4], np.float32)
    return openvino().Model([op.multiply(parameter, op.constant(np.float32(2)))], [parameter], "doubling")


def answer(compiled: Any) -> list[float]:
    return compiled(np.arange(4, dtype=np.float32)[None])[0].ravel().tolist()


def test_a_network_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMIK_DATA", str(tmp_path))
    reads: list[int] = []

    def read() -> Any:
        reads.append(1)
        return doubling()

    options = {"INFERENCE_PRECISION_HINT": "f32"}
    for _ in range(2):
        assert answer(compiled_once("doubling", b"its file", read, options)) == [0, 2, 4, 6]
    assert len(reads) == 1
    # Other content or options give another network.
    compiled_once("doubling", b"another file", read, options)
    compiled_once("doubling", b"its file", read, options | {"INFERENCE_NUM_THREADS": 1})
    assert len(reads) == 3 and len(list(tmp_path.glob("compiled/doubling-*.blob"))) == 3


def test_what_was_kept_and_is_damaged_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMIK_DATA", str(tmp_path))
    reads: list[int] = []

    def read() -> Any:
        reads.append(1)
        return doubling()

    compiled_once("doubling", b"its file", read, {})
    (kept,) = tmp_path.glob("compiled/*.blob")
    whole = kept.read_bytes()
    for number, damaged in enumerate((b"", b"no network", whole[: len(whole) // 2]), start=2):
        kept.write_bytes(damaged)
        for _ in range(2):  # compiled and cached again; the cached size varies
            assert answer(compiled_once("doubling", b"its file", read, {})) == [0, 2, 4, 6]
            assert len(reads) == number


def test_nothing_is_kept_where_nothing_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MIMIK_DATA", str(tmp_path / "file"))
    assert answer(compiled_once("doubling", b"its file", doubling, {})) == [0, 2, 4, 6]
    assert openvino_core._kept("doubling", b"its file", {}) is not None


CAPPED = """
import numpy as np
from mimik.inference.runtime import fast_precision
from mimik.face.openvino_core import _kept, inference_core, openvino

op = openvino().opset13
small = op.parameter([1, 16, 8, 8], np.float32)
# OpenVINO has no kernel of AVX2 for this layer in bfloat16.
model = openvino().Model([op.convolution_backprop_data(small, np.ones((16, 16, 4, 4), np.float32), [2, 2])], [small])
inference_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": fast_precision()})
print(fast_precision(), _kept("name", b"", {}).name)
"""


def test_a_limit_of_instruction_sets_also_limits_the_precision(tmp_path: Path) -> None:
    def run(limit: str) -> list[str]:
        env = {**os.environ, "MIMIK_DATA": str(tmp_path), "ONEDNN_MAX_CPU_ISA": limit}
        done = subprocess.run([sys.executable, "-c", CAPPED], capture_output=True, text=True, env=env, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    (capped, name), (_, other) = run("avx2"), run("")
    assert capped == "f32"
    assert name != other, "a network compiled without a limit is not used with one"


PINNED = """
import os, threading
import numpy as np
from mimik.face.openvino_core import inference_core, openvino

op = openvino().opset13
picture = op.parameter([1, 8, 256, 256], np.float32)
blurred = op.convolution(picture, np.ones((8, 8, 5, 5), np.float32), [1, 1], [2, 2], [2, 2], [1, 1])
model = openvino().Model([blurred], [picture], "blur")
options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
request = inference_core().compile_model(model, "CPU", options).create_infer_request()
thread = threading.Thread(target=lambda: [request.infer() for _ in range(60)])
thread.start()
seen = set()
while thread.is_alive():
    try:
        seen.add(frozenset(os.sched_getaffinity(thread.native_id)))
    except ProcessLookupError:
        pass  # it ended meanwhile
print(len(seen), seen == {frozenset(os.sched_getaffinity(0))})
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not tell the cores of a thread")
def test_a_thread_that_runs_a_network_keeps_all_cores() -> None:
    """OpenVINO's default pins it to the first core; what a process compiles first decides for all of it."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one core")
    done = subprocess.run([sys.executable, "-c", PINNED], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1 True\n", done.stderr
