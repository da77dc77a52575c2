"""The order of the package: a folder imports only folders above it, no cycles inside, nothing heavy before its time."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mimik

SOURCE = Path(mimik.__file__).parent

# The order in which the package is read. Files outside the folders: they stand above all of them.
GROUND = ("arrays", "config", "files", "pipeline", "workers")
ORDER = (
    *("media", "face", "motion", "rendering", "networks", "inference"),
    *("provenance", "data", "training", "animation", "evaluation", "app"),
)
FRONT = {"", "__main__"}  # they hand on what stands below
MAX_FILES = 12  # of a folder


def modules() -> dict[str, Path]:
    """Dotted names below `mimik`, and their files."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            assert "mimik" not in names, f"{module} imports the whole package"
            found |= {name.removeprefix("mimik.") for name in names if name.startswith("mimik.")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            if (node.module or "").split(".")[0] != "mimik":
                continue
            base = (node.module or "").removeprefix("mimik").removeprefix(".")
            for alias in node.names:
                deeper = f"{base}.{alias.name}".removeprefix(".")
                if deeper in MODULES:
                    found.add(deeper)
                elif base:
                    found.add(base)
    return found


def folder_of(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_its_place() -> None:
    assert {folder_of(name) for name in MODULES} - FRONT == {*GROUND, *ORDER}


@pytest.mark.parametrize("module", sorted(set(MODULES) - FRONT))
def test_a_folder_imports_only_folders_above_it(module: str) -> None:
    own = folder_of(module)
    places = [*GROUND, *ORDER]
    allowed = set(places[: places.index(own)]) | ({own} if own in ORDER else set())
    assert {folder_of(name) for name in imported(module)} <= allowed


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_has_no_cycles_and_is_small_enough_to_read(folder: str) -> None:
    inside = {name for name in MODULES if folder_of(name) == folder}
    TopologicalSorter({name: imported(name) & inside for name in inside}).prepare()  # raises CycleError
    for path in [SOURCE / folder, *(p for p in (SOURCE / folder).rglob("*") if p.is_dir() and p.name != "__pycache__")]:
        assert len([p for p in path.glob("*.py") if p.name != "__init__.py"]) <= MAX_FILES, path


def test_the_check_sees_imports() -> None:
    assert {"config", "face.landmarks"} <= imported("motion.extraction")
    assert {"provenance.sealing", "media.video", "animation.render"} <= imported("animation.avatar")


def loaded_by(statement: str) -> set[str]:
    """Top-level names of all modules after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import mimik", "import mimik.app.cli"])
def test_nothing_heavy_is_loaded_before_it_is_needed(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "mimik" in loaded
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
        "aiohttp",
        "aiortc",
    }
    assert loaded & heavy == set()
    if statement == "import mimik":
        assert loaded & {"typer", "rich", "pytest"} == set()


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "animate --help",
        "animate missing.jpg talk -o out.mp4",
        "animate {photo} no-such-motion -o out.mp4",
        "animate {photo} talk -o out.xyz",
        "animate {photo} talk -o out.mp4 --smooth 7",
        "animate {photo} talk",
        "edit missing.jpg -o out.png",
        "faces missing.jpg",
        "live missing.jpg",
        "verify missing.mp4",
        "detect missing.mp4",
        "motion extract missing.mp4 -o out.motion",
    ],
)
def test_help_and_a_wrong_line_load_nothing_that_computes(line: str, tmp_path: Path) -> None:
    """Which modules are loaded is told instead of the time: that depends on what else the machine does."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"not looked into")
    code = (
        "import sys, mimik.__main__\n"
        f"sys.argv = {['mimik', *line.format(photo=photo).split()]!r}\n"
        "try:\n    mimik.__main__.main()\n"
        "except SystemExit as end:\n    print(end.code, *{name.split('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path)
    code, *loaded = done.stdout.splitlines()[-1].split()
    assert code == ("0" if "--help" in line else "2"), done.stderr
    assert set(loaded) & {"numpy", "cv2", "av", "openvino", "torch", "scipy", "gradio", "PIL"} == set()
