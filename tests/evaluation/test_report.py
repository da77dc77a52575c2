"""Summaries and tables by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install 'mimik[train]'")


from mimik.evaluation.metrics import METRICS
from mimik.evaluation.protocols import FIRST
from mimik.evaluation.report import pages, summary


def record(clip: str, model: str, protocol: str, l1: float | None) -> dict[str, Any]:
    return {"clip": clip, "person": clip, "model": model, "protocol": protocol, "metrics": {"l1": l1}}


def test_models_are_compared_on_clips_that_both_have() -> None:
    a = [record("x", "a", FIRST, 1.0), record("y", "a", FIRST, 3.0)]
    b = [record("y", "b", FIRST, 2.0), record("z", "b", FIRST, 9.0)]
    assert summary._share(METRICS["l1"], a, b) == 0
    assert summary._share(METRICS["l1"], b, a) == 1
    assert math.isnan(summary._share(METRICS["l1"], a[:1], b))


def test_numbers_of_photos_are_compared_on_the_same_clips() -> None:
    some = [("x", "T = 1", 1.0), ("y", "T = 1", 3.0), ("x", "T = 8", 5.0), ("z", "T = 8", 7.0)]
    records = [record(clip, "a", protocol, l1) for clip, protocol, l1 in some]
    records.append(record("x", "a", FIRST, 0.0))
    same = summary._same_clips(["a"], records)
    assert same["clips"] == 1
    assert {protocol: means["l1"] for protocol, means in same["models"]["a"].items()} == {"T = 1": 1.0, "T = 8": 5.0}
    assert summary._same_clips(["a"], records[:2]) == {}


def test_a_number_of_fewer_clips_says_so() -> None:
    statistics = summary._statistics(np.array([1.0, 2.0, math.nan, 6.0]))
    assert pages._cell_text(statistics, 1, 3).endswith("; 2.0")
    assert pages._cell_text(statistics, 1, 4).endswith("; 2.0 (3 of 4 clips)")
    assert pages._cell_text({"clips": 0}, 1, 4) == "-"
