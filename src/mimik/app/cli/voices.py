"""mimik voice tracks and train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from mimik.app.cli.console import console, errors, example, guarded, voice_app
from mimik.app.cli.options import extra, whole_number
from mimik.app.cli.progress import Display, log_shown
from mimik.config import check_number


@voice_app.command("tracks", epilog=example("mimik voice tracks"))
@guarded
def voice_tracks(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEOS...", help="Videos of talking people, or folders.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where the clips' files go.", show_default=False)
    ],
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV with columns clip or path, and person; without it people are told apart by folders.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Face tracks and sound of videos, one file each, for `mimik voice train`; rerun to resume."""
    from mimik.data.preparation.sources import choose_people, find_sources
    from mimik.data.speech import track_folder

    sources = find_sources(videos, skip=out)
    by_folder = manifest is None and all("/" in source.name for source in sources)
    sources, _, _ = choose_people(sources, "folder" if by_folder else "clip" if manifest is None else None, manifest)
    people = {source.path.stem: source.person for source in sources if source.person}
    with Display("videos", "opening").shown() as bar:
        reasons = track_folder([source.path for source in sources], out, people, bar)
    for name, why in reasons.items():
        errors.print(f"note: {escape(name)} was left out: {escape(why)}", soft_wrap=True)
    console.print(
        f"{escape(str(out))}: {len(sources) - len(reasons)} of {len(sources)} videos have sound and a face.",
        soft_wrap=True,
    )


@voice_app.command("train", epilog=example("mimik voice train"))
@guarded
def voice_train(
    tracks: Annotated[Path, typer.Argument(metavar="TRACKS", help="The folder that `mimik voice tracks` wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="RUN", help="The run's folder.", show_default=False)],
    one_speaker: Annotated[
        Path | None,
        typer.Option(
            metavar="TRACKS",
            help="A folder with many clips of one person: a fifth of what is shown.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(metavar="N", parser=whole_number, help="Training steps; more than there are continue a run.")
    ] = 1300,
    batch_size: Annotated[int, typer.Option(metavar="N", parser=whole_number, help="Pieces of 3 s in a step.")] = 24,
    seed: Annotated[int, typer.Option(metavar="N", parser=whole_number, help="Random seed.")] = 0,
) -> None:
    """Train the voice network; resumes if interrupted. Writes RUN/voice.safetensors."""
    check_number("--steps", steps, 1, 1_000_000, "1300 take about half an hour on one core")
    check_number("--batch-size", batch_size, 1, 1024, "24 is usual")
    check_number("--seed", seed, 0, 2**32 - 1, "equal seeds give equal runs")
    with extra("mimik voice train", "train"):
        import torch

        from mimik.training.voice import VoiceConfig, train_voice

    torch.set_num_threads(max(1, os.cpu_count() or 1))
    config = VoiceConfig(num_steps=steps, batch_size=batch_size, seed=seed)
    with Display("steps", "training", lines=False).shown() as bar, log_shown():
        path = train_voice(tracks, out, config, one_speaker=one_speaker, progress=bar)
    console.print(
        f"{escape(str(path))}: the voice network after {steps} steps; measures: {escape(str(out / 'stats.jsonl'))}.",
        soft_wrap=True,
    )
