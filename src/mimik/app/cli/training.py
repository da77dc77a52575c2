"""mimik prepare, train and learn."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mimik.app.cli.console import app, complain, console, errors, example, guarded
from mimik.app.cli.options import Force, decimal_number, extra, whole_number, write_json
from mimik.app.cli.progress import Display, log_shown
from mimik.config import AVATAR_SUFFIX, PRESETS, InputError
from mimik.files import check_file

if TYPE_CHECKING:
    pass


@app.command("prepare", epilog=example("mimik prepare"))
@guarded
def prepare_command(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEOS...", help="Videos of talking people, or folders.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="SHARDS", help="The folder.", show_default=False)],
    size: Annotated[int, typer.Option(parser=whole_number, metavar="PX", help="Width and height of a clip.")] = 256,
    fps: Annotated[float, typer.Option(parser=decimal_number, help="Frames a second, at most.")] = 12.5,
    min_seconds: Annotated[float, typer.Option(parser=decimal_number, metavar="S", help="Shortest clip.")] = 1.0,
    max_seconds: Annotated[float, typer.Option(parser=decimal_number, metavar="S", help="Longest clip.")] = 10.0,
    min_face_px: Annotated[
        int,
        typer.Option(parser=whole_number, metavar="PX", help="Narrower faces are left out, in pixels of the video."),
    ] = 48,
    context: Annotated[
        float, typer.Option(parser=decimal_number, help="Side of the crop in heights of the face, forehead to chin.")
    ] = 2.0,
    min_sharpness: Annotated[
        float, typer.Option(parser=decimal_number, help="Blurred faces below this are left out; 0 keeps all.")
    ] = 0.006,
    crf: Annotated[int, typer.Option(parser=whole_number, help="x264's constant rate factor of the clips.")] = 20,
    gop: Annotated[int, typer.Option(parser=whole_number, metavar="FRAMES", help="From key frame to key frame.")] = 12,
    shard_mb: Annotated[int, typer.Option(parser=whole_number, metavar="MB", help="Size of a shard.")] = 64,
    people: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="Who is who: folder (the first folder is the person), manifest, cluster (by face) or clip (each its "
            "own); chosen by what there is if left out.",
            show_default=False,
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Columns clip or path, person, licence.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(parser=whole_number, help="Processes; one a core if left out.", show_default=False)
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Map the work over a Ray cluster on this machine.")] = False,
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The same over that cluster.", show_default=False)
    ] = None,
    json_report: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write a report here.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the report.")] = False,
) -> None:
    """Turn talking videos into the shards that training reads; rerun to resume."""
    with extra("prepare", "train"):
        from mimik.data import prepare

    if json_report is not None:
        check_file("--json", json_report, force=force, others=[])
    config = prepare.PrepareConfig(
        size=size,
        fps=fps,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        min_face_px=min_face_px,
        context=context,
        min_sharpness=min_sharpness,
        crf=crf,
        gop=gop,
        shard_mb=shard_mb,
    )
    with Display("videos").shown() as bar:

        def told(state: prepare.Progress) -> None:
            found = f"{state.kept} clips kept, {state.rejected} tracks left out, {state.rate:.1f} s of video a second"
            bar.show("preparing", state.done, state.total, found)

        report = prepare.prepare(
            videos,
            out,
            config,
            people=people,
            manifest=manifest,
            num_workers=workers,
            ray=ray_address or ray,
            progress=told,
        )
    for note in report.notes:
        errors.print(f"note: {escape(note)}", soft_wrap=True)
    console.print(escape(report.table()), soft_wrap=True)
    if report.num_new == 0:
        console.print("Nothing was new.")
    else:
        console.print(f"{report.videos_per_core_hour:.0f} videos an hour and core.")
    console.print(f"Look at them: {escape(str(out / 'contact_sheet.jpg'))}", soft_wrap=True)
    if json_report is not None:
        write_json(json_report, report.to_json())


@app.command("train", epilog=example("mimik train"))
@guarded
def train_command(
    data: Annotated[
        str,
        typer.Option(
            metavar="SHARDS",
            help="Shards to train on: the folder that `mimik prepare` wrote, or its URL.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="RUN",
            help="Folder of the run; rerun the same command to resume.",
            show_default=False,
        ),
    ],
    preset: Annotated[
        str, typer.Option(metavar="NAME", help=f"Networks, losses and rates: {', '.join(PRESETS)}.")
    ] = "texture",
    val: Annotated[
        str | None,
        typer.Option(metavar="SHARDS", help="Shards of other people; a twentieth of the people in --data if left out."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(parser=whole_number, metavar="N", help="Updates of E, P and G in all.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(parser=whole_number, metavar="N", help="Episodes a step, of all processes together.")
    ] = None,
    k: Annotated[
        int | None, typer.Option(parser=whole_number, metavar="N", help="Source frames of an episode.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="ft has the match loss, to be fine-tuned; ff has not.")
    ] = None,
    content: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Networks of the content loss: NAME or NAME=WEIGHT, separated by commas."),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where to train: auto (a GPU if there is one), cpu or cuda.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="Of activations: auto (bf16 on a GPU that has it), fp32 or bf16.")
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(parser=whole_number, metavar="N", help="Loading processes for each training process.")
    ] = None,
    cache_mb: Annotated[
        int | None,
        typer.Option(
            parser=whole_number, metavar="MB", help="Memory for decoded clips; a quarter of the machine's if left out."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Random seed.")] = 0,
    save_minutes: Annotated[
        float, typer.Option(parser=decimal_number, metavar="M", help="From one saved state to the next.")
    ] = 5.0,
    max_minutes: Annotated[
        float | None, typer.Option(parser=decimal_number, metavar="M", help="Stop after this long, with a saved state.")
    ] = None,
    val_every: Annotated[
        int,
        typer.Option(parser=whole_number, metavar="N", help="Steps from one validation and sample grid to the next."),
    ] = 250,
    init: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="A release of the same networks to start from.")
    ] = None,
    fresh: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Networks to reinitialize instead of taking from --init: of E, P, G, D, by commas."
        ),
    ] = None,
    fsdp: Annotated[
        bool, typer.Option("--fsdp", help="Divide the networks among the processes of torchrun (FSDP2).")
    ] = False,
) -> None:
    """Meta-learning: train a model from shards of many people; under torchrun on many GPUs."""
    # A thread that waits for another is not to keep the core from the processes that load: on two busy cores a step of
    # `debug` took 0.8 s with this and 5 s without. OpenMP reads it when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with extra("train", "train"):
        from mimik.training import meta_learning

    arguments = meta_learning.TrainArguments(
        data=data,
        out=out,
        preset=preset,
        val=val,
        steps=steps,
        batch=batch,
        k=k,
        variant=variant,
        content=content,
        device=device,
        precision=precision,
        workers=workers,
        cache_mb=cache_mb,
        seed=seed,
        save_minutes=save_minutes,
        max_minutes=max_minutes,
        val_every=val_every,
        init=init,
        fresh=fresh,
        fsdp=fsdp,
    )
    with Display("steps", "training", lines=False).shown() as bar, log_shown():
        outcome = meta_learning.train(arguments, progress=lambda step, num: bar("training", step, num))
    if int(os.environ.get("RANK", "0")):
        return
    done = f"{outcome.step} of {outcome.num_steps} steps; the model is {outcome.release}."
    if outcome.signal:
        complain(f"stopped after {done} The same command goes on from there.")
        raise typer.Exit(128 + outcome.signal)
    console.print(escape(done), soft_wrap=True)
    if outcome.step < outcome.num_steps:
        console.print("The same command goes on from there.")


@app.command("learn", epilog=example("mimik learn"))
@guarded
def learn_command(
    photos: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTOS...", help="Photos of one person, folders of them, or videos."),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="PERSON.avatar", help="The file to write.", show_default=False),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="What is fine-tuned: a file that `mimik train` wrote.",
            show_default="the one that came along",
        ),
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="Start from random networks, to see what the model's knowledge is worth."),
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Networks of --from-scratch: {', '.join(PRESETS)}.",
            show_default="those of the model",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            parser=whole_number, metavar="N", help="Steps at most; training stops automatically.", show_default=False
        ),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(parser=decimal_number, metavar="S", help="Seconds of training at most.", show_default=False),
    ] = None,
    face: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole_number,
            help="Which face, as `mimik faces` numbers them; the widest if left out.",
            show_default=False,
        ),
    ] = None,
    shots: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Frames that are taken of a video.")] = 8,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where to train: auto (a GPU if there is one), cpu or cuda.")
    ] = "auto",
    seed: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Random seed.")] = 0,
    curve: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the curve as JSON here.", show_default=False)
    ] = None,
    force: Force = False,
) -> None:
    """Learn one person from a few photos, in about a minute; `mimik animate` takes the file as PHOTO."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as for train
    with extra("learn", "train"):
        from mimik.training import fine_tuning

    if out.suffix.lower() != AVATAR_SUFFIX:
        raise InputError(f"-o {out}: a person is written to a file ending in {AVATAR_SUFFIX}.")
    check_file("-o", out, force=force, others=photos)
    if curve is not None:
        check_file("--curve", curve, force=force, others=[*photos, out])
    arguments = fine_tuning.LearnArguments(
        model=model,
        from_scratch=from_scratch,
        preset=preset,
        steps=steps,
        max_seconds=max_seconds,
        face=face,
        shots=shots,
        device=device,
        seed=seed,
    )
    with Display("steps", "looking at the photos").shown() as bar:

        def told(point: Any, step: int, num_steps: int) -> None:
            found = f"at most; identity {point.identity:.3f}, motion fidelity {point.motion_fidelity:.3f}"
            bar.show("learning", step, num_steps, found)

        outcome = fine_tuning.learn(photos, out, arguments, progress=told)
    for note in outcome.notes:
        errors.print(f"note: {escape(note)}", soft_wrap=True)
    console.print(_curve_table(outcome))
    record = outcome.person.record
    count = f"{record['photos']} photo{'s' * (record['photos'] > 1)}"
    console.print(
        f"{escape(str(out))}: {out.stat().st_size / 1e6:.1f} MB, learned from {count}; it ended because "
        f"{outcome.ended}. It holds the person's photo. Use it: mimik animate {escape(shlex.quote(str(out)))} talk -o "
        "out.mp4",
        soft_wrap=True,
    )
    if curve is not None:
        write_json(curve, json.dumps(record, indent=2))


def _curve_table(outcome: Any) -> Table:
    """The points of a person's curve, with bars from the lowest score to the highest; what was kept is marked."""
    table = Table("step", "seconds", "identity", "motion fidelity", "score", "")
    scores = [point.score for point in outcome.curve]
    low, span = min(scores), max(max(scores) - min(scores), 1e-6)
    for point in outcome.curve:
        bar = "█" * round(20 * (point.score - low) / span) + (" kept" if point == outcome.best else "")
        numbers = (f"{value:.3f}" for value in (point.identity, point.motion_fidelity, point.score))
        table.add_row(str(point.step), f"{point.seconds:.0f}", *numbers, bar.strip())
    return table
