"""mimik voice tracks and train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimik.app.cli.console import command, print_error, print_line, print_notes
from mimik.app.cli.options import output
from mimik.app.cli.progress import Display, log_shown, working
from mimik.config import counted, extra
from mimik.files import check_folder
from mimik.training.arguments import VoiceConfig


@command("voice tracks")
def voice_tracks(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEOS...", help="Videos of talking people, or folders.")],
    out: Annotated[Path, output("FOLDER", "Folder for the tracks.")],
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV with columns clip or path, and person; if omitted, each folder is a person.",
        ),
    ] = None,
) -> None:
    """Face tracks and sound of videos, one file each, for `mimik voice train`; rerun to resume."""
    check_folder("-o", out)
    from mimik.data.preparation.sources import choose_people, find_sources
    from mimik.data.speech import track_folder

    sources = find_sources(videos, skip=out)
    by_folder = manifest is None and all("/" in source.name for source in sources)
    sources, _, _ = choose_people(sources, "folder" if by_folder else "clip" if manifest is None else None, manifest)
    with Display("videos", "opening").shown() as bar:
        reasons = track_folder(sources, out, bar)
    print_notes(*(f"{name} was skipped: {why}" for name, why in reasons.items()))
    if len(reasons) == len(sources):
        print_error("no video has sound and a face, for the reasons above; use videos of people who talk.")
        raise typer.Exit(2)
    print_line(f"{out}: sound and a face in {len(sources) - len(reasons)} of {counted(len(sources), 'video')}.")


@command("voice train")
def voice_train(
    tracks: Annotated[Path, typer.Argument(metavar="TRACKS", help="The folder that `mimik voice tracks` wrote.")],
    *,
    out: Annotated[Path, output("RUN", "Folder of the run.")],
    one_speaker: Annotated[
        Path | None,
        typer.Option(metavar="TRACKS", help="A folder with many clips of one person, used for a fifth of the batches."),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A voice network to start from; it sets the sizes.")
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="A voice network whose predictions are a second target, or `bundled`; repeat it to use their mean.",
        ),
    ] = None,
    config: VoiceConfig,
) -> None:
    """Train the voice network; resumes if interrupted. Writes RUN/voice.safetensors."""
    check_folder("-o", out)
    from mimik.data.speech import clip_files
    from mimik.motion.generation.lips import VoiceModel

    # Before torch is loaded, which takes seconds.
    for folder in (tracks, one_speaker):
        if folder is not None:
            clip_files(folder)
    for file in (init, *(Path(name) for name in teacher or () if name != "bundled")):
        if file is not None:
            VoiceModel.load(file)
    with working("loading"), extra("mimik voice train", "train"):
        from mimik.training.voice.loop import train_voice

    with Display("steps", "training", lines=False).shown() as bar, log_shown():
        path = train_voice(
            tracks, out, config, one_speaker=one_speaker, init=init, teachers=teacher or (), progress=bar
        )
    print_line(f"{path}: the voice network after {counted(config.num_steps, 'step')}; measures: {out / 'stats.jsonl'}.")
