"""tools/count_code.py: a package counted by hand."""

from __future__ import annotations

from pathlib import Path

import count_code
import pytest

CLI = """import typer

app = typer.Typer()
LIMIT: int = 3


@app.command("learn")
def learn(photo: str, steps: int = 10, force: bool = False, *, seed: int = 0) -> None:
    print(photo)


def helper(steps: int = 1) -> None:
    def inner() -> None:
        pass
"""
TRAINING = """class LearnArguments:
    steps: int = 10
    seed: int = 0


class Result:
    force: bool = False


LIMIT, other = 3, 4
__all__ = ["LIMIT"]
"""


def test_a_small_package(tmp_path: Path) -> None:
    package = tmp_path / "src/mimik/app"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text(CLI)
    (package.parent / "training.py").write_text(TRAINING)
    assert count_code.counted(tmp_path) == {
        "files that are not empty": "2",
        "lines, docstrings included": "25",
        "largest file": "14 (`app/cli.py`)",
        "files over 600 lines": "0",
        "longest function, lines": "3 (`learn`)",
        "functions over 100 lines": "0",
        "names defined in two or more modules": "1",  # LIMIT
        "options declared twice": "2",  # steps and seed of learn; photo has no default, force is no setting
    }
    lines = count_code.table([tmp_path], ["now"]).splitlines()
    assert lines[:3] == ["| | now |", "|---|---|", "| files that are not empty | 2 |"]


def test_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no src/mimik"):
        count_code.counted(tmp_path)
