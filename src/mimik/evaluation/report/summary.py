"""Means, medians, intervals and comparisons over records, for results.json."""

from __future__ import annotations

import itertools
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from mimik.arrays import Float
from mimik.config import VERSION
from mimik.evaluation import metrics
from mimik.evaluation.detectors import detector_name
from mimik.evaluation.instruments import mean_known
from mimik.evaluation.measuring import Evaluation
from mimik.evaluation.metrics import METRICS
from mimik.evaluation.models import Known
from mimik.evaluation.protocols import CROSS, FIRST
from mimik.evaluation.records import number_or_none, processor, unpacked_embeddings
from mimik.evaluation.settings import TRUTH

FRECHET = "frechet_lite0"


def _protocols(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Protocols in the order of the report: by number of photos, then FIRST, then cross-identity."""
    names = {record["protocol"] for record in records}
    shots = sorted(names - {FIRST, CROSS}, key=lambda name: int(name.removeprefix("T = ")))
    return [*shots, *(name for name in (FIRST, CROSS) if name in names)]


def metric_values(records: Sequence[Mapping[str, Any]], metric: str) -> Float:
    """[N] values of the records; NaN without a value."""
    found = [record["metrics"].get(metric) for record in records]
    return np.array([math.nan if value is None else value for value in found], np.float64)


def summary(
    run: Evaluation, records: Sequence[Mapping[str, Any]], speeds: Mapping[str, Any], left_out: Mapping[str, str]
) -> dict[str, Any]:
    """The content of results.json."""
    protocols: dict[str, Any] = {}
    final = [record for record in records if record.get("seconds") is None]
    for protocol in _protocols(final):
        of = {model: [r for r in final if r["protocol"] == protocol and r["model"] == model] for model in run.labels}
        of = {model: some for model, some in of.items() if some}
        names = [name for name in METRICS if any(name in r["metrics"] for some in of.values() for r in some)]
        table = {model: {name: _statistics(metric_values(some, name)) for name in names} for model, some in of.items()}
        ranked = [model for model in of if model != TRUTH]
        better = {
            f"{a} over {b}": {name: number_or_none(_share(METRICS[name], of[a], of[b])) for name in names}
            for a, b in itertools.permutations(ranked, 2)
        }
        every = {(r["clip"], r["person"]) for some in of.values() for r in some}
        people = len({person for _, person in every})
        protocols[protocol] = {"clips": len(every), "people": people, "models": table, "better": better}
        if protocol not in (FIRST, CROSS):
            protocols[protocol][FRECHET] = {
                model: number_or_none(
                    metrics.frechet_distance(
                        *(np.concatenate([unpacked_embeddings(r[k]) for r in some]) for k in ("real", "embeddings"))
                    )
                )
                for model, some in of.items()
            }
    models = {name: model for name, model in run.models.items() if model is not None}
    own = {
        name: {"megabytes": round(models[name].num_bytes / 1e6, 2), "parameters": models[name].num_parameters, **one}
        for name, one in speeds.items()
    }
    return {
        "version": VERSION,
        "settings": asdict(run.config),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "device": str(run.device),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "landmarks": detector_name(),
        },
        "protocols": protocols,
        "same_clips": _same_clips(run.labels, final),
        "learning": _learning(run, records),
        "notes": _notes(run, records),
        "models": own,
        "left_out": dict(left_out),
    }


def _share(metric: metrics.Metric, a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> float:
    """share_better over the clips that both have."""
    theirs = {(r["clip"], r["person"]): r for r in b}
    both = [(r, theirs[r["clip"], r["person"]]) for r in a if (r["clip"], r["person"]) in theirs]
    ours, others = ([pair[i] for pair in both] for i in (0, 1))
    return metrics.share_better(metric, metric_values(ours, metric.name), metric_values(others, metric.name))


def _same_clips(labels: Sequence[str], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the clips that are long enough for every number of photos, so that columns differ only in T."""
    by: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        if record["protocol"] not in (FIRST, CROSS):
            by.setdefault((record["model"], record["protocol"]), {})[record["clip"]] = record
    if len({protocol for _, protocol in by}) < 2:
        return {}
    clips = sorted(set.intersection(*(set(some) for some in by.values())))
    if not clips:
        return {}
    means: dict[str, Any] = {}
    for model, protocol in sorted(by, key=lambda key: (labels.index(key[0]), int(key[1].removeprefix("T = ")))):
        some = [by[model, protocol][clip] for clip in clips]
        own = {name: number_or_none(mean_known(metric_values(some, name))) for name in CURVES}
        means.setdefault(model, {})[protocol] = own
    return {"clips": len(clips), "models": means}


def _learning(run: Evaluation, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metrics of each fine-tuned model over seconds of fine-tuning; None: the kept state."""
    found: dict[str, Any] = {}
    for protocol, model in itertools.product(_protocols(records), run.lessons):
        mine = [r for r in records if r["protocol"] == protocol and r["model"] == model]
        if not mine:
            continue
        rows = []
        for seconds in (*run.config.learn_seconds, None):
            some = [r for r in mine if r["seconds"] == seconds]
            rows.append(
                {
                    "seconds": seconds,
                    "clips": len(some),
                    "steps": number_or_none(float(np.mean([r["steps"] for r in some]))),
                    "learned_s": number_or_none(float(np.mean([r["learned_s"] for r in some]))),
                    "metrics": {name: _statistics(metric_values(some, name)) for name in CURVES},
                }
            )
        found.setdefault(protocol, {})[model] = rows
    return found


def _notes(run: Evaluation, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes about the models, for readers."""
    notes = []
    sources = {record["clip"]: record.get("source_sha256") for record in records}
    for label, model in run.models.items():
        if isinstance(model, Known):
            notes.append(f"{label} is an avatar of one person: its numbers apply to clips of that person only.")
            seen = sorted(clip for clip, source in sources.items() if source in model.sources)
            if seen:
                notes.append(f"{label} was trained on the source video of these clips: {', '.join(seen)}.")
    return notes


def _statistics(values: Float) -> dict[str, float | int | None]:
    known = values[np.isfinite(values)]
    if not len(known):
        return {"clips": 0}
    low, high = metrics.bootstrap_interval(known)
    numbers = {"mean": known.mean(), "median": np.median(known), "low": low, "high": high}
    return {"clips": len(known)} | {name: number_or_none(value) for name, value in numbers.items()}


# The most important metrics, which are also plotted over seconds of fine-tuning.
CURVES = (
    "l1",
    "lite0_distance",
    "csim_dlib",
    "akd68_percent",
    "blendshape_correlation",
    "pose_correlation",
    "mouth_l1",
    "sharpness_ratio",
)
