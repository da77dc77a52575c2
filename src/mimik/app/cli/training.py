"""mimik prepare, train and learn."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from mimik.animation.options import check_model
from mimik.app.cli.console import command, print_error, print_line, print_notes, print_table, shell_word
from mimik.app.cli.options import Cluster, Force, JsonReport, output, write_json
from mimik.app.cli.progress import ONE_BAR, Display, log_shown
from mimik.config import AVATAR_SUFFIX, InputError, counted, extra
from mimik.data.preparation.settings import PrepareConfig
from mimik.files import check_file
from mimik.inference.device import resolved_device
from mimik.training.arguments import LearnArguments, TrainArguments, files_in


@command("prepare")
def prepare_command(
    videos: Annotated[
        list[Path], typer.Argument(metavar="VIDEOS...", help="Videos of talking people, photos of faces, or folders.")
    ],
    *,
    out: Annotated[Path, output("SHARDS", "Folder for the shards.")],
    config: PrepareConfig,
    people: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="How to distinguish people: folder (the first folder is the person), manifest, cluster (by face) or "
            "clip (each its own); chosen by the input if omitted.",
        ),
    ] = None,
    manifest: Annotated[Path | None, typer.Option(metavar="CSV", help="Columns clip or path, person, license.")] = None,
    cluster: Cluster,
    json_report: JsonReport = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the report.")] = False,
) -> None:
    """Turn talking videos and photos into the shards that training reads; rerun to resume."""
    with extra("prepare", "train"):
        from mimik.data import prepare

    if json_report is not None:
        check_file("--json", json_report, force=force, others=[])
    with Display("videos").shown() as bar:

        def show(state: prepare.PrepareProgress) -> None:
            found = f"{counted(state.kept, 'clip')} kept, {counted(state.rejected, 'track')} rejected"
            found += f", {state.rate:.1f} s of video per second"
            bar.show("preparing", state.done, state.total, found)

        report = prepare.prepare(
            videos,
            out,
            config,
            people=people,
            manifest=manifest,
            num_workers=cluster.workers,
            ray=cluster.address,
            progress=show,
        )
    print_notes(*report.notes)
    print_line(report.table())
    if json_report is not None:
        write_json(json_report, report.to_json())
    if not report.num_clips:
        print_error("nothing was kept, for the reasons above; use other videos or wider limits: mimik prepare --help")
        raise typer.Exit(2)
    print_line(
        f"{counted(round(report.videos_per_core_hour), 'video')} per core hour." if report.num_new else "Nothing new."
    )
    print_line(f"Contact sheet: {out / 'contact_sheet.jpg'}")


@command("train")
def train_command(*, arguments: TrainArguments) -> None:
    """Meta-learning: train a model from shards of many people; under torchrun on many GPUs."""
    # Idle threads must not occupy cores of the loading processes: on two busy cores, a step of `debug` took 0.8 s with
    # this setting and 5 s without. OpenMP reads it when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments.check_files()
    with extra("train", "train"):
        from mimik.training import meta_learning

    with Display("steps", "training", lines=False).shown() as bar, log_shown():
        outcome = meta_learning.train(arguments, progress=lambda step, num: bar("training", step, num))
    if int(os.environ.get("RANK", "0")):
        return
    done = f"{outcome.step} of {counted(outcome.num_steps, 'step')}; the model is {outcome.release}."
    if outcome.signal:
        print_error(f"stopped after {done} Rerun the same command to resume.")
        raise typer.Exit(128 + outcome.signal)
    print_line(done)
    if outcome.step < outcome.num_steps:
        print_line("Rerun the same command to resume.")


@command("learn")
def learn_command(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTOS...", help="Photos of one person, folders of them, or videos.")
    ],
    *,
    out: Annotated[Path, output("PERSON.avatar", "The file to write.")],
    arguments: LearnArguments,
    curve: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the curve as JSON.")] = None,
    force: Force = False,
) -> None:
    """Learn one person from a few photos, in about a minute; `mimik animate` takes the file as PHOTO."""
    began_s = time.monotonic()
    if out.suffix.lower() != AVATAR_SUFFIX:
        raise InputError(f"-o {out}: an avatar file ends in {AVATAR_SUFFIX}.")
    check_file("-o", out, force=force, others=photos)
    if curve is not None:
        check_file("--curve", curve, force=force, others=[*photos, out])
    check_model(str(arguments.model) if arguments.model else None)
    for photo in photos:
        files_in(photo)
    if arguments.device == "cuda":
        resolved_device(arguments.device)
    from mimik.app.learning import learn_files

    with Display("steps", "loading", bar=ONE_BAR).shown() as bar:

        def preparing(what: str, done: int, total: int | None) -> None:
            bar.show(what, done, total, unit="warps" if what.startswith("warping") else "photos")

        def show(point: Any, step: int, ends: int) -> None:
            bar.show("learning", step, ends, f"score {point.score:.3f}")

        outcome = learn_files(photos, out, arguments, progress=show, preparing=preparing, began_s=began_s)
    print_notes(*outcome.notes)
    print_table(_curve_table(outcome))
    print_line(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {_what_was_learned(outcome)}.")
    print_line(f"Training ended because {outcome.ended}. The file holds the person's photo.")
    print_line(f"Use it: mimik animate {shell_word(out)} talk -o out.mp4")
    if curve is not None:
        write_json(curve, json.dumps(outcome.person.record, indent=2))


def _what_was_learned(outcome: Any) -> str:
    """Summary of the training. Args: outcome: a fine_tuning.LearnOutcome."""
    num_photos, num_shared = outcome.person.record["photos"], 1 + len(outcome.person.others)
    photos = counted(num_photos, "photo")
    if outcome.best.step:
        return f"learned from {photos} in {counted(outcome.best.step, 'step')}"
    if num_shared > 1:
        return f"in which {num_shared} photos share the face; training added nothing to it"
    return f"in which nothing was learned from {photos}: it moves as `mimik animate` of the photo alone does"


def _curve_table(outcome: Any) -> Table:
    """Table of a person's training curve, with bars from the lowest score to the highest; the kept point is marked."""
    table = Table("step", "seconds", "identity", "motion fidelity", "score", "")
    scores = [point.score for point in outcome.curve]
    low, span = min(scores), max(max(scores) - min(scores), 1e-6)
    for point in outcome.curve:
        bar = "█" * round(12 * (point.score - low) / span) + (" kept" if point == outcome.best else "")
        numbers = (f"{value:.3f}" for value in (point.identity, point.motion_fidelity, point.score))
        table.add_row(str(point.step), f"{point.seconds:.0f}", *numbers, bar.strip())
    return table
