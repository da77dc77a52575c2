"""The report as Markdown and HTML, from one template, and as CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from mimik.config import counted
from mimik.evaluation import metrics
from mimik.evaluation.measuring import Evaluation
from mimik.evaluation.metrics import METRICS
from mimik.evaluation.protocols import CROSS, FIRST, Task
from mimik.evaluation.report.curves import curves, curves_name
from mimik.evaluation.report.pictures import draw_pictures
from mimik.evaluation.report.summary import CURVES, FRECHET
from mimik.evaluation.settings import TRUTH
from mimik.files import write_text

# Zakharov et al. 2019, Table 1: FID, SSIM, CSIM, USER for T = 1, 8, 32.
PAPER_TABLE_1 = {
    "X2Face, VoxCeleb1": ("45.8 .68 .16 .82", "51.5 .73 .17 .83", "56.5 .75 .18 .85"),
    "Pix2pixHD, VoxCeleb1": ("42.7 .56 .09 .82", "35.1 .64 .12 .79", "24.0 .70 .16 .71"),
    "the paper, VoxCeleb1": ("43.0 .67 .15 .62", "38.0 .71 .17 .62", "29.5 .74 .19 .61"),
    "the paper FF, VoxCeleb2": ("46.1 .61 .42 .43", "42.2 .64 .47 .40", "40.4 .65 .48 .38"),
    "the paper FT, VoxCeleb2": ("48.5 .64 .35 .46", "42.2 .68 .42 .39", "30.6 .72 .45 .33"),
}
_FRECHET_LABEL = "Frechet distance (EfficientNet-Lite0), all clips"


@dataclass(frozen=True)
class _Table:
    header: list[str]
    rows: list[list[str]]


def _cell_text(statistics: Mapping[str, Any], digits: int, clips: int) -> str:
    """Text of a table cell; it names the number of clips without a value."""
    if not statistics.get("clips"):
        return "-"
    text = f"{statistics['mean']:.{digits}f}"
    if statistics["low"] is not None:
        text += f" [{statistics['low']:.{digits}f}, {statistics['high']:.{digits}f}]"
    text += f"; {statistics['median']:.{digits}f}"
    return text if statistics["clips"] == clips else f"{text} ({statistics['clips']} of {counted(clips, 'clip')})"


def _metric_table(results: Mapping[str, Any], protocol: str, group: str) -> _Table | None:
    part = results["protocols"][protocol]
    models = list(part["models"])
    arrows = {"lower": "lower is better", "higher": "higher is better", "one": "1 is best"}
    rows = []
    for name in next(iter(part["models"].values())):
        metric = METRICS[name]
        if metric.group != group:
            continue
        cells = [_cell_text(part["models"][model].get(name, {}), metric.digits, part["clips"]) for model in models]
        rows.append([f"{metric.label} ({arrows[metric.better]})", *cells])
    if not rows:
        return None
    if FRECHET in part and group == "picture":
        rows.append([f"{_FRECHET_LABEL} (lower is better)", *(f"{part[FRECHET][model]:.3f}" for model in models)])
    return _Table(["mean [95 % interval]; median", *models], rows)


def _better_table(results: Mapping[str, Any], protocol: str) -> _Table | None:
    better = results["protocols"][protocol]["better"]
    against = {name: share for name, share in better.items() if name.endswith(" over geometry")}
    better = against or better
    if not better:
        return None
    names = [name for name in next(iter(better.values())) if METRICS[name].group == "picture"]
    rows = [
        [
            METRICS[name].label,
            *("-" if share[name] is None else f"{100 * share[name]:.0f} %" for share in better.values()),
        ]
        for name in names
    ]
    return _Table(["share of clips", *better], rows)


def _speed_table(results: Mapping[str, Any]) -> _Table:
    rows = []
    for name, own in results["models"].items():
        size = [f"{own['megabytes']:g}", f"{own['parameters'] / 1e6:.2f}"]
        row = [name, *size, f"{own['prepare']:.1f}", f"{own['frame']:.1f}"]
        whole = own.get("whole")
        if whole is None:
            rows.append([*row, "-", "-", "-"])
            continue
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in whole["ms_per_frame"].items())
        rows.append([*row, f"{whole['frames_per_second']:.0f}", stages, f"{whole['peak_memory_mb']:.0f}"])
    header = ["model", "file, MB", "parameters, M", "prepare, ms", "frame, ms", "end to end, frames/s"]
    return _Table([*header, "ms per frame of each stage", "peak memory, MB"], rows)


def _same_clips_table(results: Mapping[str, Any]) -> _Table:
    rows = [
        [model, protocol, *("-" if v is None else f"{v:.{METRICS[name].digits}f}" for name, v in means.items())]
        for model, of in results["same_clips"]["models"].items()
        for protocol, means in of.items()
    ]
    return _Table(["means", "photos", *(METRICS[name].label for name in CURVES)], rows)


def _learning_table(results: Mapping[str, Any], protocol: str) -> _Table:
    rows = []
    for model, course in results["learning"][protocol].items():
        for row in course:
            when = "kept" if row["seconds"] is None else f"{row['seconds']:g}"
            cells = [_cell_text(row["metrics"][name], METRICS[name].digits, row["clips"]) for name in CURVES]
            rows.append([model, when, f"{row['steps']:.0f}", f"{row['learned_s']:.0f}", *cells])
    header = ["mean [95 % interval]; median", "after, s", "steps", "training time, s"]
    return _Table([*header, *(METRICS[name].label for name in CURVES)], rows)


def context(
    results: Mapping[str, Any], pictures: Sequence[tuple[str, str]], *, has_lpips: bool = False
) -> dict[str, Any]:
    """Variables of the report's template. Args: results: of results.json; pictures: files and captions."""
    same = results["same_clips"]
    return {
        **{name: results[name] for name in ("version", "settings", "machine", "seconds", "notes")},
        "has_truth": TRUTH in results["settings"]["models"],
        "protocols": [_protocol(results, name) for name in results["protocols"]],
        "same": {"clips": same["clips"], "table": _same_clips_table(results)} if same else None,
        "learning": [
            {"protocol": name, "picture": curves_name(name), "table": _learning_table(results, name)}
            for name in results["learning"]
        ],
        "speed": _speed_table(results),
        "pictures": pictures,
        "paper": _Table(["", "T = 1", "T = 8", "T = 32"], [[name, *row] for name, row in PAPER_TABLE_1.items()]),
        "lpips_help": None if has_lpips else metrics.LPIPS_HELP,
        "recipes": _Table(["number", "recipe"], [[f"{m.label} (`{m.name}`)", m.recipe] for m in METRICS.values()]),
        "left_out": _Table(["what", "why"], [[name, why] for name, why in results["left_out"].items()]),
    }


def _protocol(results: Mapping[str, Any], name: str) -> dict[str, Any]:
    part, holdout = results["protocols"][name], results["settings"]["holdout"]
    things, people = ("Pairs of portrait and driver", "portraits") if name == CROSS else ("Clips", "people")
    return {
        "title": _TITLES.get(name, f"{name}: photos of the same clip; {holdout} hold-out frames"),
        "count": f"{things}: {part['clips']}, of {part['people']} {people}.",
        "pictures": _metric_table(results, name, "picture"),
        "motion": _metric_table(results, name, "motion"),
        "better": _better_table(results, name),
    }


def page(what: Mapping[str, Any], form: str) -> str:
    """The report as "markdown" or "html". Args: what: context()."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mimik.evaluation.report"),
        autoescape=form == "html",
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["one_line"] = lambda text: type(text)(" ".join(text.split()))
    text = environment.get_template("report.j2").render({**what, "format": environment.get_template(f"{form}.j2")})
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


_TITLES = {
    FIRST: "Self-reenactment: the first frame as photo, all others in order",
    CROSS: "Cross-identity: portraits driven by the clips",
}


def overview(results: Mapping[str, Any]) -> str:
    """Summary for a terminal: the means of the most important metrics."""
    lines = []
    for protocol, part in results["protocols"].items():
        lines.append(f"{protocol} ({part['clips']} {'pairs' if protocol == CROSS else 'clips'})")
        for model, table in part["models"].items():
            shown = [
                f"{METRICS[name].label} {table[name]['mean']:.{METRICS[name].digits}f}"
                for name in _FIRST_READ
                if table.get(name, {}).get("clips")
            ]
            lines.append(f"  {model}: {', '.join(shown)}")
    return "\n".join(lines)


_FIRST_READ = ("l1", "ssim_gauss11", "lite0_distance", "csim_dlib", "akd68_percent", "pose_correlation", "jitter_ratio")


def _csv(records: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    names = [name for name in METRICS if any(name in record["metrics"] for record in records)]
    writer = csv.writer(text)
    keys = ["protocol", "clip", "person", "model"]
    if any("learned_s" in record for record in records):
        keys += ["seconds", "steps", "learned_s"]  # no seconds: the kept state
    writer.writerow([*keys, *names])
    for record in records:
        writer.writerow([record.get(key) for key in keys] + [record["metrics"].get(name) for name in names])
    return text.getvalue()


def write_report(
    run: Evaluation, todo: Sequence[Task], records: Sequence[Mapping[str, Any]], results: Mapping[str, Any]
) -> None:
    """Writes results.json, clips.csv, report.md, report.html and their pictures."""
    pictures = list(draw_pictures(run, todo, records))
    write_text(run.out / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(run.out / "clips.csv", _csv(records))
    for protocol in results["learning"]:
        write_text(run.out / curves_name(protocol), curves(results, protocol))
    what = context(results, pictures, has_lpips=run.instruments.lpips is not None)
    write_text(run.out / "report.md", page(what, "markdown"))
    write_text(run.out / "report.html", page(what, "html"))
