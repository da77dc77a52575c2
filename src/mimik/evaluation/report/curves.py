"""Plots of quality over fine-tuning time."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mimik.evaluation.metrics import METRICS
from mimik.evaluation.report.summary import CURVES
from mimik.evaluation.settings import TRUTH

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # the palette of Okabe and Ito


def curves(results: Mapping[str, Any], protocol: str) -> str:
    """Means and intervals over seconds of fine-tuning, as SVG; dashed: models without fine-tuning."""
    courses = results["learning"][protocol]
    tables = results["protocols"][protocol]["models"]
    still = {name: table for name, table in tables.items() if name not in (*courses, TRUTH)}
    last = max(row["seconds"] or 0 for course in courses.values() for row in course)
    colors = dict(zip([*courses, *still], itertools.cycle(_COLORS), strict=False))
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mimik", "font.size": 8}):
        figure = Figure(figsize=(11, 5), layout="constrained")
        for axes, name in zip(figure.subplots(2, -(-len(CURVES) // 2)).flat, CURVES, strict=False):
            axes.set(title=METRICS[name].label, xlabel="s", xlim=(0, last))
            for model, course in courses.items():
                some = [(row["seconds"], row["metrics"][name]) for row in course if row["seconds"] is not None]
                known = [(seconds, value) for seconds, value in some if value.get("clips")]
                axes.plot(*zip(*((x, v["mean"]) for x, v in known), strict=True), color=colors[model])
                between = [(x, v["low"], v["high"]) for x, v in known if v["low"] is not None]
                for x, low, high in between:
                    axes.plot([x, x], [low, high], color=colors[model], linewidth=0.8)
            for model, table in still.items():
                if table.get(name, {}).get("clips"):
                    axes.axhline(table[name]["mean"], color=colors[model], linestyle="--")
        lines = [Line2D([], [], color=c, linestyle="--" if m in still else "-") for m, c in colors.items()]
        figure.legend(lines, list(colors), loc="outside lower center", ncols=4)
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def curves_name(protocol: str) -> str:
    return f"learning-{protocol.replace(' = ', '').lower()}.svg"
