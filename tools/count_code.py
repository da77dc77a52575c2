"""Sizes, duplicate names and duplicate options of the package, as rows of a Markdown table.

    python tools/count_code.py [FOLDER ...]

Each FOLDER is a checkout; this one if none is given. docs/architecture.md shows the table for two commits:

    git worktree add ../before 1c67310 && python tools/count_code.py ../before .
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(checkout: Path) -> dict[str, tuple[int, ast.Module]]:
    """Lines and syntax tree of every non-empty file of the package, by path below src/mimik."""
    package = checkout / "src/mimik"
    found = {}
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if text.strip():
            found[str(path.relative_to(package))] = (len(text.splitlines()), ast.parse(text))
    if not found:
        raise SystemExit(f"{checkout}: has no src/mimik with Python files; use a checkout of mimik.")
    return found


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Name and lines of every function and method, from its def or first decorator to its end."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            start = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            yield node.name, (node.end_lineno or start) - start + 1


def defined(tree: ast.Module) -> set[str]:
    """Functions, classes and constants at the top level of a module, without names of the form __x__."""
    names = set()
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        names |= {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
    return {name for name in names if not name.startswith("__")}


def settings(tree: ast.Module) -> set[str]:
    """Fields of settings dataclasses: those named *Config or *Arguments."""
    fields = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Arguments")):
            fields |= {
                line.target.id
                for line in node.body
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
            }
    return fields


def options(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Command and option of every parameter with a default in the signature of a command."""
    for node in tree.body:
        if isinstance(node, Function) and any("command(" in f"{ast.unparse(one)}(" for one in node.decorator_list):
            positional = [*node.args.posonlyargs, *node.args.args]
            optional = positional[len(positional) - len(node.args.defaults) :]
            optional += [
                one for one, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if default
            ]
            yield from ((node.name, parameter.arg) for parameter in optional)


def counted(checkout: Path) -> dict[str, str]:
    """Table column of one checkout."""
    found = modules(checkout)
    lengths = {path: lines for path, (lines, _) in found.items()}
    largest = max(lengths, key=lambda path: lengths[path])
    longest = max((lines, name, path) for path, (_, tree) in found.items() for name, lines in functions(tree))
    places = defaultdict(set)
    for path, (_, tree) in found.items():
        for name in defined(tree):
            places[name].add(path)
    fields = {name for _, tree in found.values() for name in settings(tree)}
    declared = [(command, name) for _, tree in found.values() for command, name in options(tree)]
    return {
        "files that are not empty": f"{len(found)}",
        "lines, docstrings included": f"{sum(lengths.values()):,}",
        "largest file": f"{lengths[largest]:,} (`{largest}`)",
        "files over 600 lines": f"{sum(lines > 600 for lines in lengths.values())}",
        "longest function, lines": f"{longest[0]} (`{longest[1]}`)",
        "functions over 100 lines": f"{sum(n > 100 for _, tree in found.values() for _, n in functions(tree))}",
        "names defined in two or more modules": f"{sum(len(where) > 1 for where in places.values())}",
        "options declared twice": f"{sum(name in fields for _, name in declared)}",
    }


def table(checkouts: list[Path], titles: list[str]) -> str:
    """A Markdown table with a column for each checkout."""
    columns = [counted(checkout) for checkout in checkouts]
    rows = [f"| | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    rows += [f"| {name} | {' | '.join(column[name] for column in columns)} |" for name in columns[0]]
    return "\n".join(rows)


if __name__ == "__main__":
    folders = [Path(name) for name in sys.argv[1:]] or [ROOT]
    print(table(folders, [folder.resolve().name for folder in folders]))
