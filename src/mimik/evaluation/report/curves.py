"""Quality over seconds of learning, as SVG."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mimik.evaluation.metrics import METRICS
from mimik.evaluation.models import TRUTH
from mimik.evaluation.report.summary import CURVES

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's
_PANEL = 260, 190  # px, with room around the plot for its numbers


def curves(results: Mapping[str, Any], protocol: str) -> str:
    """Means with their intervals over seconds of learning, as SVG; dashed: models that learn nothing from a clip."""
    courses = results["learning"][protocol]
    tables = results["protocols"][protocol]["models"]
    still = {name: table for name, table in tables.items() if name not in (*courses, TRUTH)}
    last = max(row["seconds"] or 0 for course in courses.values() for row in course)
    colours = dict(zip([*courses, *still], itertools.cycle(_COLOURS), strict=False))
    width, height = _PANEL
    parts = []
    for number, name in enumerate(CURVES):
        lines = {
            model: [(row["seconds"], row["metrics"][name]) for row in course if row["seconds"] is not None]
            for model, course in courses.items()
        }
        lines |= {model: [(0, table[name]), (last, table[name])] for model, table in still.items() if name in table}
        lines = {model: [(x, v) for x, v in line if v.get("clips")] for model, line in lines.items()}
        corner = number % 4 * width + 48, number // 4 * height + 24
        parts += _panel(METRICS[name].label, lines, colours, set(still), corner, last)
    below = -(-len(CURVES) // 4) * height
    for number, (model, colour) in enumerate(colours.items()):
        y = below + 16 * number + 12
        parts.append(_polyline(f"20,{y - 4} 44,{y - 4}", colour, dashed=model in still))
        parts.append(f'<text x="50" y="{y}">{html.escape(model)}</text>')
    size = 4 * width, below + 16 * len(colours) + 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}"'
    return "\n".join([f'{head} font-family="sans-serif" font-size="11">', *parts, "</svg>\n"])


def _panel(
    label: str,
    lines: Mapping[str, Sequence[tuple[float, Mapping[str, Any]]]],
    colours: Mapping[str, str],
    dashed: set[str],
    corner: tuple[int, int],
    last: float,
) -> list[str]:
    """One number over 0..last seconds, in a box whose left top corner is given."""
    ends = [v[e] for line in lines.values() for _, v in line for e in ("mean", "low", "high") if v[e] is not None]
    if not ends:
        return []
    (left, top), wide, tall = corner, _PANEL[0] - 64, _PANEL[1] - 60
    low, span = min(ends), max(ends) - min(ends) or 1.0

    def at(seconds: float, value: float) -> str:
        inside = 0.06 + 0.88 * (value - low) / span
        return f"{left + wide * seconds / last:.1f},{top + tall * (1 - inside):.1f}"

    parts = [
        f'<rect x="{left}" y="{top}" width="{wide}" height="{tall}" fill="none" stroke="#bbb"/>',
        f'<text x="{left}" y="{top - 6}">{html.escape(label)}</text>',
    ]
    for value in (low, low + span):
        y = float(at(0, value).split(",")[1]) + 4
        parts.append(f'<text x="{left - 4}" y="{y:.1f}" text-anchor="end">{value:.3g}</text>')
    for seconds in (0, last):
        x = at(seconds, low).split(",")[0]
        parts.append(f'<text x="{x}" y="{top + tall + 13}" text-anchor="middle">{seconds:g} s</text>')
    for model, line in lines.items():
        where = " ".join(at(seconds, v["mean"]) for seconds, v in line)
        parts.append(_polyline(where, colours[model], dashed=model in dashed))
        for seconds, v in line if model not in dashed else ():
            if v["low"] is not None:
                parts.append(_polyline(f"{at(seconds, v['low'])} {at(seconds, v['high'])}", colours[model], width=0.8))
    return parts


def _polyline(points: str, colour: str, *, width: float = 1.6, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>'


def curves_name(protocol: str) -> str:
    return f"learning-{protocol.replace(' = ', '').lower()}.svg"
