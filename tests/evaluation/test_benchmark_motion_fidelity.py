"""benchmarks/motion_fidelity.py: missing files, and a run over one pair with and without the ceiling."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import motion_fidelity as benchmark


def run(monkeypatch: pytest.MonkeyPatch, *options: object) -> int:
    monkeypatch.setattr(sys, "argv", ["motion_fidelity.py", *map(str, options)])
    return benchmark.main()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--photos", "nobody.png"], "--photos nobody.png"),
        (["--photos", "eileen_collins.png", "--drivers", "nobody"], "--drivers nobody"),
        (["--photos", "eileen_collins.png", "--drivers", __file__, "-o", "no/where.json"], "does not exist"),
    ],
)
def test_impossible_options_are_one_sentence(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *options) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("ceiling", [True, False])
def test_one_pair(
    ceiling: bool, driver: Any, small_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "motion.json"
    options = [] if ceiling else ["--no-ceiling"]
    assert run(monkeypatch, "--photos", small_path, "--drivers", driver.path, "-o", out, *options) == 0
    report = json.loads(out.read_text())
    (pair,) = report["pairs"].values()
    assert pair["frames"] == 14 and pair["lost"] == 0  # 28 at 25 frames/s
    assert pair["signals"]["jaw"]["correlation"] > 0.8  # its yaw is at the beginning, which is ignored
    assert bool(report["ceiling"]) == bool(report["summary_of_ceiling"]) == ceiling
