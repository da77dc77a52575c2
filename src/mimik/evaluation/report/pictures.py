"""The report's pictures: evenly spaced clips, and the best and worst clips of each model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mimik.evaluation.measuring import Evaluation
from mimik.evaluation.protocols import CROSS, FIRST, Task, middle_target, spaced
from mimik.evaluation.report.contact_sheets import CELL_PX, comparison_sheet
from mimik.face.landmarks import Image
from mimik.media import video

_NUM_CASES = 3


def draw_pictures(
    run: Evaluation, todo: Sequence[Task], records: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Draws the report's pictures; yields the file and caption of each."""
    titles = ["source", "target", "landmarks", *(name for name, model in run.models.items() if model is not None)]
    named = "+".join([*titles[3:], *run.lessons]) or "none"
    measured = {record["clip"] for record in records}
    shots = min(run.config.shots)
    first = {task.clip.key: task for task in todo if task.protocol == f"T = {shots}" and task.clip.key in measured}
    kept = {
        (record["clip"], record["model"]): record
        for record in records
        if record["model"] in run.lessons and "picture" in record
    }

    def learned(clip: str, model: str, number: int) -> Image:
        """A frame after fine-tuning on a clip: 0: the middle one, 1: the worst."""
        if (clip, model) not in kept:
            return np.full((CELL_PX, CELL_PX, 3), 24, np.uint8)
        both = video.read_image(run.out / kept[clip, model]["picture"])
        return np.asarray(np.split(both, 2, axis=1)[number], np.uint8)

    if first:
        rows = []
        for task in spaced(list(first.values()), 6):
            cells = run.row(task, middle_target(task)) + [learned(task.clip.key, model, 0) for model in run.lessons]
            rows.append((f"{task.clip.key}  {task.protocol}", cells))
        run.draw(run.out / "pictures/grid.png", comparison_sheet([*titles, *run.lessons], rows), named)
        yield "pictures/grid.png", f"Evenly spaced clips, T = {shots}, the middle one of the hold-out frames."
    in_order = {task.clip.key: task for task in todo if task.protocol == FIRST}
    for model in [*run.lessons, *(name for name in titles[3:] if name != "copy")]:
        is_learned = model in run.lessons
        mine = [r for r in records if r["protocol"] == FIRST and r["model"] == model]
        if is_learned:
            mine = [record for (_, name), record in kept.items() if name == model]
        for kind, name, cases in _cases(run, first if is_learned else in_order, mine, model):
            rows = [(title, [*cells, learned(clip, model, 1)] if is_learned else cells) for title, cells, clip in cases]
            run.draw(run.out / name, comparison_sheet([*titles, model] if is_learned else titles, rows), named)
            photos = f"T = {shots}" if is_learned else "first frame as photo"
            yield name, f"{model}: the {kind} clips by feature distance, {photos}; each clip's worst frame by L1."
    crossed = sorted(
        (r for r in records if r["protocol"] == CROSS and r["metrics"]["csim_dlib"] is not None),
        key=lambda record: record["metrics"]["csim_dlib"],
    )
    chosen = {r["picture"]: ("worst", r) for r in crossed[:_NUM_CASES]}
    chosen |= {r["picture"]: ("best", r) for r in crossed[::-1][:_NUM_CASES] if r["picture"] not in chosen}
    for picture, (kind, r) in chosen.items():
        what = f"{r['model']}, {r['person']} by {r['clip']}, CSIM {r['metrics']['csim_dlib']:.3f}"
        yield picture, f"One of the {kind} by CSIM: {what}."


def _cases(
    run: Evaluation, tasks: Mapping[str, Task], records: Sequence[Mapping[str, Any]], model: str
) -> Iterator[tuple[str, str, list[tuple[str, list[Image], str]]]]:
    """The best and worst clips: "best" or "worst", the file, and for each case a title, the worst frame and the clip.

    Args: tasks: by clip.
    """
    ranked = sorted(records, key=lambda record: record["metrics"]["lite0_distance"])
    for kind, some in (("best", ranked[:_NUM_CASES]), ("worst", ranked[::-1][:_NUM_CASES])):
        cases = []
        for record in some:
            number, clip = int(np.argmax(record["l1"])), record["clip"]
            title = f"{clip}  frame {number + 1}  feature distance {record['metrics']['lite0_distance']:.3f}"
            cases.append((title, run.row(tasks[clip], number), clip))
        if cases:
            yield kind, f"pictures/{kind}-{model.replace(':', '-')}.png", cases
