"""The layers of the package: a folder imports only folders above it, without cycles; heavy imports are deferred."""

from __future__ import annotations

import functools
import inspect
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

import mimik
from synthetic_shards import write_shards

SOURCE = Path(mimik.__file__).parent

# The order in which the package is read. Files outside the folders are above all of them.
GROUND = ("arrays", "config", "files", "pipeline", "workers")
ORDER = (
    *("media", "face", "motion", "rendering", "networks", "inference"),
    *("provenance", "data", "training", "animation", "evaluation", "app"),
)
FRONT = {"", "__main__"}  # they re-export lower layers
MAX_FILES = 12  # of a folder
MAX_LINES = 600  # of a file
MAX_FUNCTION_LINES = 100


def modules() -> dict[str, Path]:
    """Dotted module names below `mimik`, and their files."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@functools.cache
def imported(module: str) -> set[str]:
    """Modules of the package that a module imports anywhere, including inside functions."""
    text = MODULES[module].read_text(encoding="utf-8")
    assert not re.search(r"^\s*from \.", text, re.M), f"{module}: relative import"
    assert not re.search(r"^\s*import mimik\b(?!\.)", text, re.M), f"{module} imports the whole package"
    found = set(re.findall(r"^\s*import mimik\.([\w.]+)", text, re.M))
    for base, names in re.findall(r"^\s*from mimik\.?([\w.]*) import (\([^)]*\)|.+)", text, re.M):
        for name in re.findall(r"\w+", re.sub(r"\bas \w+|#.*", "", names)):
            deeper = f"{base}.{name}".removeprefix(".")
            if deeper in MODULES or base:
                found.add(deeper if deeper in MODULES else base)
    return found


def folder_of(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_its_place() -> None:
    assert {folder_of(name) for name in MODULES} - FRONT == {*GROUND, *ORDER}


def test_a_folder_imports_only_folders_above_it() -> None:
    places = [*GROUND, *ORDER]
    for module in sorted(set(MODULES) - FRONT):
        own = folder_of(module)
        allowed = set(places[: places.index(own)]) | ({own} if own in ORDER else set())
        assert {folder_of(name) for name in imported(module)} <= allowed, module


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_has_no_cycles_and_is_small_enough_to_read(folder: str) -> None:
    inside = {name for name in MODULES if folder_of(name) == folder}
    TopologicalSorter({name: imported(name) & inside for name in inside}).prepare()  # raises CycleError
    for path in [SOURCE / folder, *(p for p in (SOURCE / folder).rglob("*") if p.is_dir() and p.name != "__pycache__")]:
        assert len([p for p in path.glob("*.py") if p.name != "__init__.py"]) <= MAX_FILES, path


def test_the_check_sees_imports() -> None:
    assert {"config", "face.landmarks"} <= imported("motion.extraction")
    assert {"provenance.sealing", "media.video", "animation.render"} <= imported("animation.avatar")


def loaded_by(*statements: str) -> list[set[str]]:
    """Top-level names of all modules after each of the statements, in one fresh interpreter."""
    told = "\nimport sys\nprint(*{name.split('.')[0] for name in sys.modules})\n"
    code = "".join(statement + told for statement in statements)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    heavy = {
        "c2pa",
        "cryptography",
        "openvino",
        "torch",
        "scipy",
        "mediapipe",
        "onnx",
        "gradio",
        "matplotlib",
        "aiortc",
        "starlette",
        "uvicorn",
    }
    package, command_line = loaded_by("import mimik", "import mimik.app.cli")
    assert "mimik" in package and "typer" in command_line
    assert command_line & heavy == set()
    assert package & {*heavy, "typer", "rich", "pytest"} == set()


LINES = (
    "--help",
    "animate --help",
    "animate missing.jpg talk -o out.mp4",
    "animate photo.jpg no-such-motion -o out.mp4",
    "animate photo.jpg talk -o out.xyz",
    "animate photo.jpg talk -o out.mp4 --smooth 7",
    "animate photo.jpg talk",
    "edit missing.jpg -o out.png",
    "faces missing.jpg",
    "live missing.jpg",
    "verify missing.mp4",
    "detect missing.mp4",
    "motion extract missing.mp4 -o out.motion",
    "web --host 0.0.0.0",
)
TRAINING_LINES = (
    "train --data missing --out run",
    "train --data missing --out run --preset magic",
    "train --data shards --out run --content magic",
    "train --data shards --out run --init missing.safetensors",
    "train --data shards --out shards",
    "train --data alone --out run",
    "evaluate --data missing -o report",
    "evaluate --data empty -o report",
    "evaluate --data shards -o report --models magic",
    "evaluate --data shards -o report --models learn:magic",
    "evaluate --data shards -o report --models missing.avatar",
    "evaluate --data shards -o report --models missing.safetensors",
    "evaluate --data shards -o report --portraits missing",
    "evaluate --data shards -o shards",
    "export missing.safetensors -o exported",
    "learn missing.jpg -o person.avatar",
    "learn empty -o person.avatar",
    "learn photo.jpg -o person.avatar --model missing.safetensors",
    "voice train missing -o run",
    "voice train empty -o run",
    "voice train tracks -o run --one-speaker missing",
    "voice train tracks -o run --init missing.safetensors",
    "voice train tracks -o run --teacher photo.jpg",
)
RUN_LINES = """
import json, sys, mimik.__main__
for line in json.loads(sys.argv[1]):
    sys.argv = ["mimik", *line.split()]
    try:
        mimik.__main__.main()
    except SystemExit as end:
        print()
        print("::", json.dumps([line, end.code, [name.split(".")[0] for name in sys.modules]]))
"""


def test_help_and_a_wrong_line_load_nothing_that_computes(tmp_path: Path) -> None:
    """Tests loaded modules instead of time, which depends on the load of the machine.

    One process runs all lines, so modules loaded by one line remain for the next.
    """
    (tmp_path / "photo.jpg").write_bytes(b"not looked into")
    for name in ("alone", "empty", "shards", "tracks"):
        (tmp_path / name).mkdir()
    write_shards(tmp_path / "alone", (12, 12))  # of one person
    (tmp_path / "tracks/a.npz").write_text("not looked into")
    (tmp_path / "shards/index.jsonl").write_text("not looked into")
    command = [sys.executable, "-c", RUN_LINES, json.dumps([*LINES, *TRAINING_LINES])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, cwd=tmp_path)
    told = [json.loads(line[2:]) for line in done.stdout.splitlines() if line.startswith(":: ")]
    assert [line for line, _, _ in told] == [*LINES, *TRAINING_LINES], done.stderr
    for line, code, loaded in told:
        assert (code or 0) == (0 if "--help" in line else 2), (line, done.stderr)
        assert {"openvino", "torch", "scipy", "gradio"}.isdisjoint(loaded), line
        assert line in TRAINING_LINES or {"numpy", "cv2", "av", "PIL"}.isdisjoint(loaded), line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "empty", "photo.jpg", "shards", "tracks"]


def test_no_file_is_too_long_to_read() -> None:
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > MAX_LINES} == {}


def test_no_function_is_too_long_to_read() -> None:
    """Counted from the first decorator to the last line of code."""
    long = {}
    for module, path in MODULES.items():
        codes = [SourceFileLoader(module, str(path)).get_code(module)]  # as it was compiled before
        for code in codes:
            codes += [one for one in code.co_consts if isinstance(one, CodeType)]
            last = max(line or 0 for _, _, line in code.co_lines())
            if code.co_name != "<module>" and code.co_flags & inspect.CO_OPTIMIZED:
                long[f"{module}.{code.co_qualname}"] = last - code.co_firstlineno + 1
    assert long["evaluation.evaluate.evaluate"] > 50
    assert {name: count for name, count in long.items() if count > MAX_FUNCTION_LINES} == {}
