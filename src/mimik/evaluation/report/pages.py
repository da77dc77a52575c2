"""The report as Markdown, HTML and CSV."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mimik.config import VERSION
from mimik.evaluation import metrics
from mimik.evaluation.measuring import Evaluation
from mimik.evaluation.metrics import METRICS
from mimik.evaluation.models import TRUTH
from mimik.evaluation.protocols import CROSS, FIRST, Task
from mimik.evaluation.records import write_text
from mimik.evaluation.report.curves import curves, curves_name
from mimik.evaluation.report.pictures import draw_pictures
from mimik.evaluation.report.summary import CURVES, FRECHET

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


_Block = tuple[str, Any]  # ("h1" | "h2" | "p", text), ("table", _Table), ("picture", (file, text))


def _cell_text(statistics: Mapping[str, Any], digits: int, clips: int) -> str:
    """Of so many clips; those that have no value are told."""
    if not statistics.get("clips"):
        return "-"
    text = f"{statistics['mean']:.{digits}f}"
    if statistics["low"] is not None:
        text += f" [{statistics['low']:.{digits}f}, {statistics['high']:.{digits}f}]"
    text += f"; {statistics['median']:.{digits}f}"
    return text if statistics["clips"] == clips else f"{text} ({statistics['clips']} of {clips} clips)"


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
    return _Table([*header, "ms a frame of each stage", "peak memory, MB"], rows)


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
    header = ["mean [95 % interval]; median", "after, s", "steps", "learned for, s"]
    return _Table([*header, *(METRICS[name].label for name in CURVES)], rows)


def _blocks(run: Evaluation, results: Mapping[str, Any], pictures: Sequence[tuple[str, str]]) -> Iterator[_Block]:
    config, machine = run.config, results["machine"]
    yield "h1", "Evaluation"
    yield (
        "p",
        f"mimik {VERSION}. {config.size} px, seed {config.seed}, {config.holdout} hold-out frames. Measured on "
        f"{machine['cores']} cores ({machine['processor']}), networks on {machine['device']}; the last run took "
        f"{results['seconds']:.0f} s, without what had been measured before. Intervals: percentile "
        "bootstrap of the mean over clips.",
    )
    yield (
        "p",
        "The pictures show the people of the data, and what was made of them: this folder is for whoever measured. "
        "Publish the numbers.",
    )
    if TRUTH in config.models:
        yield "p", "truth are the real frames themselves, measured like a model: they have to be perfect."
    for protocol, part in results["protocols"].items():
        yield "h2", _TITLES.get(protocol, f"{protocol}: photos of the same clip; {config.holdout} others are made")
        yield (
            "p",
            f"{'Pairs of portrait and driver' if protocol == CROSS else 'Clips'}: {part['clips']}, of "
            f"{part['people']} {'portraits' if protocol == CROSS else 'people'}.",
        )
        yield "table", _metric_table(results, protocol, "picture")
        motion = _metric_table(results, protocol, "motion")
        if motion is not None:
            yield (
                "p",
                "How much of the driver's motion arrives, on landmarks found again in the result and in the driver. "
                f"The 68 points are found by {machine['landmarks']}; gaze, blendshapes and AED by MediaPipe.",
            )
            yield "table", motion
        better = _better_table(results, protocol)
        if better is not None:
            yield "p", "In which share of the clips one model is better than another (ties count half):"
            yield "table", better
    same = results["same_clips"]
    if same:
        yield "h2", "The same clips under every number of photos"
        yield (
            "p",
            f"A clip needs {config.holdout} frames and its photos, so the tables above are of different clips. These "
            f"are the means over the {same['clips']} that are long enough for all.",
        )
        yield "table", _same_clips_table(results)
    for protocol in results["learning"]:
        yield "h2", f"Quality against seconds of learning, {protocol}"
        yield (
            "p",
            "learn: fine-tunes a model on the photos of each clip, scratch: trains the same networks on them from "
            f"random weights; one clip at a time, on {machine['cores']} cores and {machine['device']}, with nothing "
            "else of this run beside it. After so many seconds the moving average of the weights is measured; they "
            "count the program's own probes, not what it takes to load a model and to warp the photos. kept is what "
            "`mimik learn` would have written, and what stands in the tables above. Learning that ended by itself "
            "counts with what was kept from then on. Dashed: models as they are.",
        )
        yield "picture", (curves_name(protocol), f"Means and their intervals over seconds of learning, {protocol}.")
        yield "table", _learning_table(results, protocol)
    if results["notes"]:
        yield "p", " ".join(results["notes"])
    yield "h2", "Speed and size"
    yield (
        "p",
        "prepare and frame: of one clip, frames of its size. End to end: `mimik animate` of a 512 px portrait "
        "by a 512 px video in a process of its own, decoding, tracking and encoding included; the stages overlap. "
        "A person who is learned for a clip is drawn as fast as with the model that was learned from.",
    )
    yield "table", _speed_table(results)
    for name, text in pictures:
        yield "picture", (name, text)
    yield "h2", "The paper's Table 1, for reading"
    yield (
        "p",
        "FID, SSIM, CSIM and USER of Zakharov et al. 2019 for T = 1, 8, 32. NOT comparable with the tables above: "
        "other people, other crops, other networks behind FID and CSIM. FID needs Inception's weights, which are not "
        "here: the Frechet distance above is on EfficientNet-Lite0 and its size means nothing beside an FID.",
    )
    yield "table", _Table(["", "T = 1", "T = 8", "T = 32"], [[name, *row] for name, row in PAPER_TABLE_1.items()])
    yield "h2", "What the numbers are"
    if run.instruments.lpips is None:
        yield "p", f"LPIPS: not available. To have it, {metrics.LPIPS_HELP}."
    yield "table", _Table(["number", "recipe"], [[f"{m.label} (`{m.name}`)", m.recipe] for m in METRICS.values()])
    if results["left_out"]:
        yield "h2", "Left out"
        yield "table", _Table(["what", "why"], [[name, why] for name, why in results["left_out"].items()])


_TITLES = {
    FIRST: "Self-reenactment: the first frame as photo, all others in order",
    CROSS: "Cross-identity: portraits driven by the clips",
}


def overview(results: Mapping[str, Any]) -> str:
    """A few lines for a terminal: the means of the numbers that are read first."""
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


def _markdown(blocks: Sequence[_Block]) -> str:
    out = []
    for kind, what in blocks:
        if kind == "table":
            lines = [what.header, ["---"] * len(what.header), *what.rows]
            out.append("\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines))
        elif kind == "picture":
            out.append(f"![{what[1]}]({what[0]})\n\n{what[1]}")
        else:
            out.append({"h1": "# ", "h2": "## ", "p": ""}[kind] + what)
    return "\n\n".join(out) + "\n"


_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #bbb;padding:.25em .6em;text-align:left}
th{background:#eee}img{max-width:100%}"""


def _html(blocks: Sequence[_Block]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    out = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Evaluation</title><style>{_STYLE}</style>"]
    for kind, what in blocks:
        if kind == "table":
            body = "".join(row(cells, "td") for cells in what.rows)
            out.append(f"<table>{row(what.header, 'th')}{body}</table>")
        elif kind == "picture":
            name, text = (html.escape(one) for one in what)
            out.append(f'<figure><img src="{name}" alt="{text}"><figcaption>{text}</figcaption></figure>')
        else:
            out.append(f"<{kind}>{html.escape(what)}</{kind}>")
    return "\n".join(out) + "\n"


def _csv(records: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    names = [name for name in METRICS if any(name in record["metrics"] for record in records)]
    writer = csv.writer(text)
    keys = ["protocol", "clip", "person", "model"]
    if any("learned_s" in record for record in records):
        keys += ["seconds", "steps", "learned_s"]  # no seconds: what was kept
    writer.writerow([*keys, *names])
    for record in records:
        writer.writerow([record.get(key) for key in keys] + [record["metrics"].get(name) for name in names])
    return text.getvalue()


def write_report(
    run: Evaluation, todo: Sequence[Task], records: Sequence[Mapping[str, Any]], results: Mapping[str, Any]
) -> None:
    pictures = list(draw_pictures(run, todo, records))
    blocks = list(_blocks(run, results, pictures))
    write_text(run.out / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(run.out / "clips.csv", _csv(records))
    for protocol in results["learning"]:
        write_text(run.out / curves_name(protocol), curves(results, protocol))
    write_text(run.out / "report.md", _markdown(blocks))
    write_text(run.out / "report.html", _html(blocks))
