"""mimik animate and mimik demo."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from mimik.animation.options import check_file_options, check_model
from mimik.app.cli.console import command, errors, print_line, print_report, print_table, verify_hint
from mimik.app.cli.options import Cluster, Force, JsonReport, Signing, output, write_json
from mimik.app.cli.progress import Display, working
from mimik.config import TRANSPARENT, AnimateConfig, InputError, counted, options_of
from mimik.files import asset, check_file
from mimik.inference.device import resolved_device
from mimik.media import formats
from mimik.motion.kinds import check_driver, check_person, is_folder_of_drivers
from mimik.provenance.outputs import check_output

if TYPE_CHECKING:
    from mimik.animation.report import Report
    from mimik.face.landmarks import Landmarker


@command("animate")
def animate_command(
    photo: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTO",
            help="A photo of the person, a video of the person, an .avatar file, or a folder of photos.",
        ),
    ],
    driver: Annotated[
        str | None,
        typer.Argument(
            metavar="DRIVER",
            help="What drives the person: a video, a recording of speech (.wav, .mp3, .m4a, .flac, .ogg), a photo, a "
            ".motion file, a .jsonl file of blendshapes and head poses, a .csv file of Live Link Face, the name of a "
            "bundled motion, see `mimik motion list`, idle, a folder of such files, or a face tracker: "
            "livelink://HOST, ifacialmocap://HOST, vmc://HOST or openseeface://HOST.",
            show_default=False,
        ),
    ] = None,
    *,
    out: Annotated[
        Path,
        output(
            "OUT",
            "Output: a .mp4, .m4v, .mov, .mkv, .webm, .gif or .webp file; a folder for PNG frames, or "
            "frames/%05d.webp; a .png or .jpg file when DRIVER is a photo; a folder for videos when PHOTO or DRIVER is "
            "one.",
        ),
    ],
    say: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Instead of DRIVER: text for the person to say; needs espeak-ng or piper."),
    ] = None,
    voice: Annotated[
        str | None,
        typer.Option(
            metavar="VOICE",
            help="Voice of --say: espeak-ng's en-us (if omitted), de or another, or piper's .onnx file.",
        ),
    ] = None,
    config: AnimateConfig,
    all_faces: Annotated[
        bool, typer.Option("--all-faces", help="Animate every face of PHOTO; --face-driver gives one its own driver.")
    ] = False,
    face_drivers: Annotated[
        list[str] | None,
        typer.Option(
            "--face-driver",
            metavar="N=DRIVER",
            help="With --all-faces: driver of face N instead of DRIVER; may be repeated.",
        ),
    ] = None,
    force: Force = False,
    json_report: JsonReport = None,
    signing: Signing,
    cluster: Cluster,
) -> None:
    """Animate a photo with a driver and write a signed video; every photo and driver of folders. Rerun to resume."""
    with ExitStack() as stack:
        if say is not None or voice is not None or driver is None:
            driver = _spoken(driver, say, voice, stack)
        if face_drivers and not all_faces:
            raise InputError("--face-driver requires --all-faces; to select one face pass --face N.")
        if json_report is not None:
            check_file("--json", json_report, force=force, others=[photo, Path(driver), out])
        if all_faces:
            report = _animate_faces(photo, driver, _face_drivers(face_drivers or []), out, config, force, signing)
        elif photo.is_dir() or is_folder_of_drivers(driver):
            _animate_folder(photo, driver, out, config, signing.files, force, json_report, cluster)
            return
        else:
            for option, given in options_of(Cluster).items():
                if getattr(cluster, option):
                    said = "only one video is requested; use a folder of photos or of drivers."
                    raise InputError(f"{given.flag}: {said}")
            report = _animate_one(photo, driver, out, config, force, signing)
        print_report(report)
        if json_report is not None:
            write_json(json_report, report.to_json())


def _check(photo: Path, drivers: Sequence[str], out: Path, config: AnimateConfig, force: bool) -> None:
    """Raise InputError for arguments that are invalid without loading anything."""
    formats.output_kind(out)
    check_person(photo)
    formats.check_input(photo)
    for driver in drivers:
        check_driver(driver)
    if config.device == "cuda":
        resolved_device(config.device)
    check_output(out, force=force, inputs=[photo, *(path for path in map(Path, drivers) if path.is_file())])
    check_file_options(out, config)
    check_model(config.model)


def _face_drivers(given: list[str]) -> dict[int, str]:
    """Parse N=DRIVER by face. Raises InputError if one has another form, or a face is named twice."""
    drivers: dict[int, str] = {}
    for one in given:
        number, equals, driver = one.partition("=")
        if not (number.isdecimal() and equals and driver):
            raise InputError(f"--face-driver {one}: use the face's number and a driver, such as 2=smile.")
        if int(number) in drivers:
            raise InputError(f"--face-driver {one}: face {number} already has a driver; pass one for each face.")
        drivers[int(number)] = driver
    return drivers


def _animate_faces(
    photo: Path, driver: str, drivers: dict[int, str], out: Path, config: AnimateConfig, force: bool, signing: Signing
) -> Report:
    """Animate every face of one photo; drivers: by face number, instead of driver."""
    if photo.is_dir() or is_folder_of_drivers(driver):
        raise InputError("--all-faces works with one photo and one driver, not with folders.")
    _check(photo, [driver, *drivers.values()], out, config, force)
    from mimik.animation.avatar import render_all_faces

    credentials = signing.credentials

    with Display("frames").shown() as bars:
        return render_all_faces(
            photo, driver, out, drivers=drivers, config=config, force=force, credentials=credentials, progress=bars
        )


def _spoken(driver: str | None, text: str | None, voice: str | None, stack: ExitStack) -> str:
    """Sound file of a text, deleted with the stack. Raises InputError if there is also a driver, or no text."""
    if text is None:
        if driver is not None:
            raise InputError(f"--voice {voice}: applies to --say TEXT only; omit it when DRIVER is {driver}.")
        raise InputError("DRIVER is missing; pass a video, a recording of speech, a bundled motion, or --say TEXT.")
    if driver is not None:
        raise InputError(f"--say: {driver} is already the driver; pass only one of the two.")
    from mimik.media.speaking import speak

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mimik-")))
    with working("speaking"):
        return str(speak(text, folder / "speech.wav", voice=voice))


def _load_in_background(config: AnimateConfig) -> Landmarker:
    """Start loading the landmarker and the matte network in background threads; returns the landmarker.

    Meanwhile, the rest of the program is imported and the photo is read.
    """
    from mimik.face.landmarks import Landmarker
    from mimik.rendering.scene.matte import segmenter

    landmarker = Landmarker()
    if config.scene != "warp":
        segmenter()
    return landmarker


def _animate_one(photo: Path, driver: str, out: Path, config: AnimateConfig, force: bool, signing: Signing) -> Report:
    """Animate one photo or video of a person."""
    _check(photo, [driver], out, config, force)
    from mimik.rendering.scene.matte import check_backdrop

    check_backdrop(config.background)
    landmarker, credentials = _load_in_background(config), signing.credentials
    from mimik.animation.avatar import Avatar, opened_driver

    with working(f"opening {driver}"):
        opened = opened_driver(driver, config)
    with working(f"reading {photo.name}"):
        avatar = Avatar.from_photos([photo], face=config.face, landmarker=landmarker)
    with Display("frames").shown() as bars:
        return avatar.render(opened, out, config=config, force=force, credentials=credentials, progress=bars)


def _animate_folder(
    photo: Path,
    driver: str,
    out: Path,
    config: AnimateConfig,
    signer: tuple[Path, Path] | None,
    force: bool,
    json_report: Path | None,
    cluster: Cluster,
) -> None:
    """Animate every photo and driver of folders; failures are counted and reported, and the others continue."""
    from mimik.animation import batch

    if config.background == TRANSPARENT:
        raise InputError(
            "--background none: folders produce .mp4 files, which cannot be transparent; use one photo and one driver."
        )
    check_model(config.model)
    every = batch.pairs(photo, driver, out)
    by_pair = photo.is_dir() and is_folder_of_drivers(driver)

    def name(pair: batch.Pair) -> str:
        names = [pair.photo.name, Path(pair.driver).name]
        return " ".join(names) if by_pair else names[0 if photo.is_dir() else 1]

    what = "videos" if by_pair else "photos" if photo.is_dir() else "drivers"
    outcomes: list[batch.Outcome] = []
    with ExitStack() as stack:
        bar = stack.enter_context(Display(what, "opening", bar=what).shown())

        def print_report(pair: batch.Pair, state: str = "", part: float = 0.0) -> None:
            there = sum(one.report is None and one.reason is None for one in outcomes)
            bar.show(name(pair), len(outcomes), len(every), state, part=min(part, 1.0), free=there)

        def frames(pair: batch.Pair, done: int, total: int | None) -> None:
            print_report(pair, f"frame {done} of {total or '?'}", done / total if total else 0.0)

        results = batch.animate_all(
            every, config, num_workers=cluster.workers, ray=cluster.address, signer=signer, force=force, progress=frames
        )
        stack.enter_context(closing(results))
        for outcome in results:
            outcomes.append(outcome)
            report, said = outcome.report, "already made"
            if report is not None:
                notes = "".join(f"; {note}" for note in report.notes)
                said = f"{counted(report.num_frames, 'frame')} of {report.width}x{report.height}"
                said += f", in {report.seconds:.1f} s{notes}"
            if outcome.reason is not None:
                said = "left out"
            errors.print(escape(f"{len(outcomes)}/{len(every)} {name(outcome.pair)}: {said}"), soft_wrap=True)
            print_report(outcome.pair)
    made = [outcome.report for outcome in outcomes if outcome.report is not None]
    failures = [outcome for outcome in outcomes if outcome.reason is not None]
    num_there = len(outcomes) - len(made) - len(failures)
    if failures:
        table = Table(what[:-1], "why not", title=f"{len(failures)} of {len(every)} {what} were skipped")
        for outcome in failures:
            table.add_row(escape(name(outcome.pair)), escape(outcome.reason or ""))
        print_table(table, errors)
    if made or num_there:
        before = f", {num_there} by an earlier run" if num_there else ""
        print_line(f"{out}: {len(made)} of {counted(len(every), 'video')} made{before}. {verify_hint(out)}")
    if json_report is not None:
        left_out = [{"photo": o.pair.photo.name, "driver": o.pair.driver, "reason": o.reason} for o in failures]
        there = [str(o.pair.out) for o in outcomes if o.report is None and o.reason is None]
        reports = [json.loads(report.to_json()) for report in made]
        write_json(json_report, json.dumps({"reports": reports, "there": there, "left_out": left_out}, indent=2))
    if failures:
        raise typer.Exit(1 if made or num_there else 2)


@command("demo")
def demo(
    out: Annotated[Path, output("OUT", "The video to write.")] = Path("demo.mp4"),
    driver: Annotated[
        str, typer.Option(metavar="DRIVER", help="What drives the person, as in `mimik animate`.")
    ] = "talk",
    force: Force = False,
) -> None:
    """Animate the bundled portrait with a bundled motion."""
    portrait = asset("portraits/eileen_collins.png")
    print_report(_animate_one(portrait, driver, out, AnimateConfig(), force, Signing()))
    print_line(f"Result: {out.resolve()}")
