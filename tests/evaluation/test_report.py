"""Summaries and tables computed by hand."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")


from mimik.evaluation.metrics import METRICS
from mimik.evaluation.protocols import FIRST
from mimik.evaluation.report import curves, pages, summary


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


def test_metrics_of_fewer_clips_show_their_number() -> None:
    statistics = summary._statistics(np.array([1.0, 2.0, math.nan, 6.0]))
    assert pages._cell_text(statistics, 1, 3).endswith("; 2.0")
    assert pages._cell_text(statistics, 1, 4).endswith("; 2.0 (3 of 4 clips)")
    assert pages._cell_text({"clips": 0}, 1, 4) == "-"


def statistics(mean: float) -> dict[str, Any]:
    return {"clips": 2, "mean": mean, "median": mean, "low": mean - 0.1, "high": mean + 0.1}


def results() -> dict[str, Any]:
    """The content of results.json for two models and one with fine-tuning."""
    table = {"l1": statistics(3.0), "jaw_amplitude": statistics(0.5)}
    course = [
        {"seconds": s, "clips": 2, "steps": 7, "learned_s": 5, "metrics": {n: statistics(1.0) for n in summary.CURVES}}
        for s in (0, 30, None)
    ]
    own = {"megabytes": 1.5, "parameters": 2_000_000, "prepare": 3.0, "frame": 4.0}
    return {
        "version": "9",
        "settings": {"size": 128, "seed": 0, "holdout": 9, "models": ["a|b", "truth"]},
        "machine": {"cores": 2, "processor": "one <fast>", "device": "cpu", "landmarks": "dlib"},
        "seconds": 12.3,
        "notes": ["a|b is an avatar of one person."],
        "protocols": {
            "T = 1": {
                "clips": 2,
                "people": 1,
                "models": {"a|b": table},
                "better": {"a|b over geometry": {"l1": 0.5, "jaw_amplitude": None}},
            },
        },
        "same_clips": {"clips": 2, "models": {"a|b": {"T = 1": dict.fromkeys(summary.CURVES, 1.0)}}},
        "learning": {"T = 1": {"learn:a": course}},
        "models": {"a|b": own},
        "left_out": {"wall.png": "no face found"},
    }


def test_the_report_has_equal_content_in_both_formats() -> None:
    what = pages.context(results(), [("pictures/grid.png", "Clips & people.")])
    markdown, html = pages.page(what, "markdown"), pages.page(what, "html")
    for word in (
        "9 hold-out frames. Measured on 2 cores",
        "Clips: 2, of 1 people.",
        "The 68 points are detected by dlib",
        "took 12 s",
        "LPIPS: not available",
        "Quality over training time, T = 1",
        "learning-t1.svg",
        "no face found",
    ):
        assert word in markdown and word in html, word
    assert "one <fast>" in markdown and "one &lt;fast&gt;" in html
    assert "Clips & people." in markdown and "Clips &amp; people." in html
    rows = [line for line in markdown.splitlines() if line.startswith("| L1 (lower is better)")]
    assert rows == ["| L1 (lower is better) | 3.00 [2.90, 3.10]; 3.00 |"]
    assert "| mean [95 % interval]; median | a\\|b |\n| --- | --- |\n| L1" in markdown
    assert "| jaw opening: amplitude (1 is best) | 0.50 [0.40, 0.60]; 0.50 |" in markdown
    assert html.count("<table>") == html.count("</table>") == 9
    assert html.count("<p>") == html.count("</p>")
    assert "truth: the real frames" in markdown
    assert "{" not in re.sub(r"(?s)<style>.*</style>", "", html)
    assert (
        "LPIPS"
        not in pages.page(pages.context(results(), [], has_lpips=True), "markdown").split("## Definitions of")[1][:40]
    )


def test_curves_are_drawn_for_each_number(monkeypatch: pytest.MonkeyPatch) -> None:
    some = results()
    some["protocols"]["T = 1"]["models"]["geometry"] = {name: statistics(2.0) for name in summary.CURVES}
    drawn = curves.curves(some, "T = 1")
    assert drawn.count('id="axes_') == len(summary.CURVES)
    assert METRICS["csim_dlib"].label in drawn and "learn:a" in drawn and "geometry" in drawn
    monkeypatch.setattr(curves, "CURVES", summary.CURVES[:2])  # faster
    assert curves.curves(some, "T = 1") == curves.curves(some, "T = 1")
