"""The order of the package: a module imports only modules that stand above it, and nothing heavy before its time."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mimik

SOURCE = Path(mimik.__file__).parent

# The order in which the package is read. draw stands below motion: it draws pictures of motions.
ORDER = [
    *("config", "video", "face", "motion", "stream", "draw", "warp"),
    *(
        "runtime",
        "synthesis",
        "matte",
        "person",
        "networks",
        "features",
        "landmark_net",
        "losses",
        "metrics",
        "watermark",
        "provenance",
        "checkpoint",
        "dataset",
    ),
    *("workers", "prepare", "meta_learning", "fine_tuning", "animate", "batch", "edit", "evaluate", "export", "detect"),
    *("live", "puppet", "page", "web", "cli"),
]
FRONT = {"__init__", "__main__"}  # they hand on what stands below
MODULES = sorted(path.stem for path in SOURCE.glob("*.py"))


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse((SOURCE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mimik.")}
            assert "mimik" not in {alias.name for alias in node.names}, f"{module} imports the whole package"
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            if node.module == "mimik":
                found |= {alias.name for alias in node.names if not alias.name.startswith("__")}
            elif (node.module or "").startswith("mimik."):
                found.add(node.module.split(".")[1])
    return found


def test_every_module_has_its_place() -> None:
    assert [
        path.name for path in SOURCE.iterdir() if path.is_dir() and path.name not in ("assets", "__pycache__")
    ] == []
    assert set(MODULES) - FRONT <= set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", [name for name in MODULES if name not in FRONT])
def test_a_module_imports_only_what_stands_above_it(module: str) -> None:
    above = set(ORDER[: ORDER.index(module)])
    assert imported(module) <= above


def test_the_check_sees_imports() -> None:
    assert {"config", "face"} <= imported("motion")
    assert {"provenance", "warp", "video"} <= imported("animate")


def loaded_by(statement: str) -> set[str]:
    """Top-level names of all modules after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import mimik", "import mimik.cli"])
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


def test_the_ground_is_light() -> None:
    assert loaded_by("import mimik.config; import sys") >= {"mimik"}
    for module in ("config", "face", "motion", "stream", "warp"):
        assert not imported(module) & {"provenance", "animate", "cli", "video"}, module
