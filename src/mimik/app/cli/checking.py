"""mimik verify, detect and evaluate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mimik.app.cli.console import command, print_line, print_notes
from mimik.app.cli.options import output
from mimik.app.cli.progress import Display, working
from mimik.config import InputError, MediaError, counted, extra
from mimik.evaluation.settings import EvaluateConfig, check_evaluation
from mimik.media import formats


@command("verify")
def verify_command(
    file: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="A picture, a video, or a folder of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
    anchor: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A PEM certificate to trust, such as another computer's; may be repeated."),
    ] = None,
) -> None:
    """Say in plain words where a file comes from, by its manifest and by the invisible watermark in its frames.

    Exit code 0: made by mimik and unaltered. 1: altered since. 3: nothing found, which proves nothing. 4: signed by
    another program. 5: made by mimik, but stripped of its manifest. 2: the file cannot be read. Of a folder: the first
    of 2, 1, 5, 4, 3 that any of its files has, else 0.
    """
    if file.is_dir():
        _verify_folder(file, as_json, anchor or [])
        return
    formats.check_input(file)
    from mimik.provenance import verifying

    with working(f"reading {file.name}"):
        verdict = verifying.verify(file, anchors=anchor or [])
    if as_json:
        typer.echo(verdict.to_json())
    else:
        print_line(f"{file}: {verdict.sentence}")
    raise typer.Exit(verdict.exit_code)


_WORST_FIRST = (2, 1, 5, 4, 3)


def _verify_folder(folder: Path, as_json: bool, anchors: Sequence[Path]) -> None:
    """Verify every picture and video in a folder and its subfolders; unreadable files are reported and skipped."""
    from mimik.provenance import verifying

    paths = verifying.media_files(folder)
    if not paths:
        raise InputError(f"{folder}: contains no pictures or videos; use a folder that does, or a file.")
    records: list[dict[str, Any]] = []
    found: dict[str, list[tuple[Path, str]]] = {}  # by status: files, and the sentence for each
    with Display("files", bar="files").shown() as bar:
        for done, path in enumerate(paths):
            bar.show(path.name, done, len(paths))
            try:
                verdict = verifying.verify(path, anchors=anchors)
            except MediaError as error:
                status, sentence = "cannot be read", str(error)
                records.append({"file": str(path), "status": status, "exit_code": 2, "sentence": sentence})
            else:
                status, sentence = str(verdict.status), verdict.sentence
                records.append({"file": str(path), **verdict.to_dict()})
            found.setdefault(status, []).append((path.relative_to(folder), sentence))
    counts = {status: len(files) for status, files in found.items()}
    codes = {record["exit_code"] for record in records}
    code = next((one for one in _WORST_FIRST if one in codes), 0)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "exit_code": code, "counts": counts, "files": records}, indent=2))
    else:
        for status, files in sorted(found.items(), key=lambda item: len(item[1])):
            _print_group(status, files)
        said = "; ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        print_line(f"{counted(len(records), 'file')}: {said}.")
    raise typer.Exit(code)


_NAMED = 8  # number of file names printed per status; --json has all


def _print_group(status: str, files: Sequence[tuple[Path, str]]) -> None:
    """Print files of the same status together: their names, and the sentence for the first."""
    names = [str(path) for path, _ in files]
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 2], f".. and {len(names) - _NAMED + 2} more"]
    what = f"{counted(len(files), 'file')}: {status}"
    print_line(f"{what} ({', '.join(names)})\n  {'' if len(files) == 1 else f'{files[0][0]}: '}{files[0][1]}")


@command("detect")
def detect_command(
    file: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video of a face.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
) -> None:
    """Guess whether a face was animated; it misses most of what mimik makes. Use it where `mimik verify` finds nothing.

    Exit code 0 whatever the guess, 2 where the video cannot be read or shows no face.
    """
    formats.check_input(file)
    from mimik.face.landmarks import Landmarker
    from mimik.provenance import detect

    with working(f"looking at {file.name}"):
        result = detect.detect(file, landmarker=Landmarker())
    if as_json:
        typer.echo(result.to_json())
    else:
        print_line(f"{file}: {result.sentence}")


@command("evaluate")
def evaluate_command(
    *,
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="Clips of people that no model was trained on: the output of `mimik prepare`, or a folder of videos.",
        ),
    ],
    out: Annotated[Path, output("REPORT", "The folder of the report.")],
    config: EvaluateConfig,
    portraits: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Pictures of faces, each driven by each clip: cross-identity.")
    ] = None,
    lpips: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With alexnet-owt-7be5be79.pth of PyTorch and alex.pth of the package lpips: for LPIPS.",
        ),
    ] = None,
) -> None:
    """Measure models on clips of unseen people; rerun to resume."""
    check_evaluation(data, out, config, portraits=portraits)
    with working("loading"), extra("evaluate", "evaluation"):
        from mimik.evaluation.evaluate import evaluate
        from mimik.evaluation.report.pages import overview

    with Display("results", "opening", bar="results").shown() as bar:
        results = evaluate(data, out, config, portraits=portraits, lpips=lpips, progress=bar)
    print_line(overview(results))
    print_notes(*(f"{name} was skipped: {why}" for name, why in results["left_out"].items()))
    print_line(f"Report: {out / 'report.html'}")
