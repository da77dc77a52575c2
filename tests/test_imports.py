"""Every name that a benchmark, tool, example or test imports from the package is there.

Read from the source, so that it holds for files whose extras are not installed, which pytest does not collect.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import mimik

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(mimik.__file__).parent
READERS = ("benchmarks", "tools", "examples", "tests", "src")


def file_of(module: str) -> Path | None:
    """The file of a dotted module of the package, None if there is none."""
    path = SOURCE.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@functools.cache
def defined(path: Path) -> frozenset[str]:
    """Names that a file binds at the level of the module, whatever its branches."""
    names: set[str] = set()
    pending: list[ast.AST] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        else:
            pending.extend(ast.iter_child_nodes(node))
    return frozenset(names)


def imported(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of every `from mimik.x import name` of a file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mimik":
            for alias in node.names:
                yield node.lineno, node.module or "", alias.name


def missing(path: Path) -> list[str]:
    """What a file imports from the package and the package does not define."""
    found = []
    for line, module, name in imported(path):
        source = file_of(module)
        package = source is not None and source.name == "__init__.py"
        if source is None or not (
            name in defined(source)
            or (package and file_of(f"{module}.{name}") is not None)
            or (module == "mimik" and hasattr(mimik, name))  # its names are loaded when they are asked for
        ):
            found.append(f"{path.name}:{line}: from {module} import {name}")
    return found


@pytest.mark.parametrize("folder", READERS)
def test_what_is_imported_from_the_package_is_defined_there(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert [line for file in files for line in missing(file)] == []


def test_a_name_that_has_moved_is_reported(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def f():\n    from mimik.config import VERSION, nothing\nfrom mimik.gone import x\n", "utf-8")
    assert missing(script) == [
        "script.py:3: from mimik.gone import x",
        "script.py:2: from mimik.config import nothing",
    ]
