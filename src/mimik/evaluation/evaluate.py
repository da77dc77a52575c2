"""Evaluation on clips of unseen people: the paper's protocol, self-reenactment in order, cross-identity.

Each combination of clip, protocol and model has a small record in REPORT/clips. A run computes the missing records and
writes the report from all. So interrupted runs resume, and a run with an additional model measures only this model.
"""

from __future__ import annotations

import itertools
import json
import platform
import time
from functools import partial
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from mimik.config import AVATAR_SUFFIX, VERSION, InputError
from mimik.data import prepare
from mimik.data.index import INDEX_NAME, read_index
from mimik.evaluation import metrics
from mimik.evaluation.jobs import ProgressCount, run_tasks, speed
from mimik.evaluation.measuring import Evaluation
from mimik.evaluation.models import load_learning, load_model
from mimik.evaluation.protocols import Task, spaced, tasks
from mimik.evaluation.report.pages import write_report
from mimik.evaluation.report.summary import summary
from mimik.evaluation.settings import (
    REPORT_MARK,
    TRUTH,
    EvaluateConfig,
    animates,
    check_evaluation,
    is_learned,
    label_of,
    portraits_in,
)
from mimik.files import write_text
from mimik.inference.device import resolved_device
from mimik.pipeline import Progress, silent
from mimik.provenance.credentials import Credentials


def evaluate(
    data: str | Path,
    out: Path,
    config: EvaluateConfig,
    *,
    portraits: Path | None = None,
    lpips: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measures models and writes the report; rerun to resume.

    Args:
        data: shards of `mimik prepare` (folder, index or URL), or a folder of videos, which is prepared first.
        out: folder of the report; created if missing, resumed if it has a report.
        portraits: folder of pictures for cross-identity; None: no cross-identity.
        lpips: folder with metrics.LPIPS_FILES; None: no LPIPS.
        progress: called with the finished item, the number of records done and the total.

        Returns the content of results.json. Raises InputError, and writes nothing, if an input cannot be used.
    """
    check_evaluation(data, out, config, portraits=portraits)
    alone = {label_of(name): name for name in config.models if not is_learned(name)}
    models = {label: load_model(name) for label, name in alone.items()}
    lessons = {
        label_of(name): load_learning(name, device=resolved_device(config.device), seed=config.seed)
        for name in config.models
        if is_learned(name)
    }
    able = {label: name for label, name in alone.items() if animates(name)}
    photos = portraits_in(portraits) if portraits is not None else []
    start = time.perf_counter()
    Credentials.local()  # check before the work that pictures can be signed
    perceptual = metrics.LpipsAlex(lpips) if lpips is not None else None
    shards = _shards(data, out, config, progress)
    index = spaced(read_index(shards), config.limit)
    for clip in index:
        if clip.size < config.size:
            raise InputError(f"--size {config.size}: clip {clip.key} has {clip.size} px; use that or less.")
    todo = tasks(index, config)
    _mark(out)
    run = Evaluation(shards, config, out, models, lessons, perceptual, None if shards == data else Path(data))

    pairs = spaced(list(itertools.product(photos, index)), config.pairs)
    own = [name for name in alone if name not in (TRUTH, "copy")]
    to_learn = list(itertools.product([task for task in todo if not task.in_order], run.lessons))
    num_looks = len(to_learn) * (len(config.learn_seconds) + 1)
    count = ProgressCount(progress, len(todo) * len(alone) + len(pairs) * len(able) + num_looks + len(own))
    jobs = {
        key: partial(run.of_clip, list(group), count)
        for key, group in itertools.groupby(todo, lambda task: task.clip.key)
    }
    for path, group in itertools.groupby(pairs, lambda pair: pair[0]):
        jobs[path.name] = partial(run.of_portrait, path, [clip for _, clip in group], able, count)
    records, left_out = run_tasks(jobs, count)
    for task, model in to_learn:
        if task.clip.key not in left_out:
            try:
                records += _learned(run, task, model, count)
            except InputError as error:
                left_out[f"{task.clip.key}, {task.protocol}, {model}"] = str(error)
    speeds = {}
    for model in own:
        is_animated = model in able or model.lower().endswith(AVATAR_SUFFIX)
        speeds[model] = _speed(run, todo[0], model, alone[model] if is_animated else None)
        count(f"speed of {model}")
    if not records:
        raise InputError(f"{data}: nothing could be measured: {next(iter(left_out.values()), 'no clip is usable')}")

    results = summary(run, records, speeds, left_out)
    results["seconds"] = round(time.perf_counter() - start, 1)
    write_report(run, todo, records, results)
    return results


def _learned(run: Evaluation, task: Task, model: str, count: ProgressCount) -> list[dict[str, Any]]:
    """The records of fine-tuning on a clip, computed if missing. Raises as Evaluation.learning_of."""
    found = run.learning_records(task, model)
    if found is None:
        return run.learning_of(task, model, count)
    for _ in found:
        count(f"{task.clip.key}, {task.protocol}, {model}")
    return found


def _speed(run: Evaluation, task: Task, model: str, animated: str | None) -> dict[str, Any]:
    """Speed of a model; animated: its name for `mimik animate`, None if this does not accept the model."""
    name = run.name("speed", model, platform.node(), task.clip.key)
    record = run.records.get(name)
    if record is None:
        with threadpool_limits(limits=1, user_api="blas"):  # as in the measurement of pictures
            record = run.timed(task, model)
        if animated is not None:
            record["whole"] = speed(run.out, model, animated)
        run.records.put(name, record)
    return record


def _mark(out: Path) -> None:
    """Create the folder of a report, with a file that identifies it."""
    out.mkdir(exist_ok=True)
    write_text(out / REPORT_MARK, json.dumps({"format": "mimik evaluation", "version": VERSION}) + "\n")


def _shards(data: str | Path, out: Path, config: EvaluateConfig, progress: Progress) -> str | Path:
    """The shards of data; a folder of videos is prepared into the report's folder."""
    folder = Path(data)
    if not folder.is_dir() or (folder / INDEX_NAME).exists():
        return data
    shards = out / "shards"
    _mark(out)
    prepare.prepare(
        [folder],
        shards,
        prepare.PrepareConfig(size=config.size),
        people="clip",
        progress=lambda state: progress("preparing the videos", state.done, state.total),
    )
    return shards
