"""The command line: the only module that prints."""

from __future__ import annotations

import functools
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from mimik import __version__, animate, draw, provenance, video
from mimik.animate import Avatar, Report
from mimik.config import InputError, parse_regions
from mimik.face import Landmarker, head_pose
from mimik.motion import Motion, bundled_motions

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One photo of a person in, a talking head out. What leaves this program says that it is synthetic.",
)
motion_app = typer.Typer(no_args_is_help=True, help="Driving motions as small files of numbers.")
app.add_typer(motion_app, name="motion")

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """What a user caused ends with one sentence and exit code 2, an interruption with 130; never with a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except InputError as error:
            errors.print(f"[bold red]mimik:[/] {_escape(str(error))}", soft_wrap=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            errors.print("mimik: stopped; nothing was written.")
            raise typer.Exit(130) from None

    return run


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


_STAGES = {"track": "reading the driver", "animate": "animating"}
_LINE_EVERY_S = 5.0


class _Bars:
    """Progress bars of a run; on a pipe or in a log file, a line every few seconds instead."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:18}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} frames"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._start: dict[str, float] = {}
        self._said = time.monotonic()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        rate = done / max(time.monotonic() - self._start.setdefault(stage, time.monotonic()), 1e-3)
        if errors.is_terminal:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(_STAGES.get(stage, stage), total=total, rate="")
            self._bars.update(self._tasks[stage], completed=done, total=total, rate=f"{rate:.0f}/s")
        elif time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            of = f" of {total}" if total else ""
            errors.print(f"{_STAGES.get(stage, stage)}: {done}{of} frames, {rate:.0f}/s", soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[_Bars]:
        with self._bars:
            yield self


def _size(text: str) -> int | None:
    if text == "native":
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--size {text}: give 'native' or the pixels of the longer side, such as 512.") from None


def _credentials(certificate: Path | None, key: Path | None) -> provenance.Credentials | None:
    if (certificate is None) != (key is None):
        raise InputError("--certificate and --key go together: give both, or neither for this computer's own.")
    return provenance.Credentials.from_files(certificate, key) if certificate and key else None


def _write_json(path: Path, text: str, force: bool) -> None:
    """A report; replaces a file only with force."""
    if path.exists() and not force:
        raise InputError(f"--json {path}: already exists; give --force to replace it, or another name.")
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--json {path}: cannot be written ({error.strerror}); give another name.") from None


def _check_json(path: Path | None, force: bool) -> None:
    if path is None:
        return
    if path.exists() and (path.is_dir() or not force):
        raise InputError(f"--json {path}: already exists; give --force to replace it, or another name.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--json {path}: there is no folder {path.parent}; make it first, or give another name.")


Out = Annotated[Path, typer.Option("-o", "--out", help="What to write.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@app.command("animate")
@guarded
def animate_command(
    photo: Annotated[Path, typer.Argument(help="A photo of the person, a video of it, or a folder of photos.")],
    driver: Annotated[
        str,
        typer.Argument(help="A video, a photo, a .motion file, or the name of a bundled motion (mimik motion list)."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="OUT.mp4, .m4v, .mov, .gif, .webp; a folder for PNG frames, or frames/%05d.webp; .png or .jpg when "
            "DRIVER is a photo; a folder when PHOTO is one.",
            show_default=False,
        ),
    ],
    model: Annotated[str, typer.Option(help="Which generator: geometry.")] = "geometry",
    motion: Annotated[
        str, typer.Option(help="relative: the driver's change, put on the photo. absolute: the driver's own pose.")
    ] = "relative",
    regions: Annotated[str, typer.Option(help="What moves: all, or some of pose,lips,eyes,brows,gaze.")] = "all",
    strength: Annotated[float, typer.Option(help="How strongly, 0 to 3.")] = 1.0,
    smooth: Annotated[float, typer.Option(help="Against wobble, 0 to 1.")] = 0.5,
    size: Annotated[str, typer.Option(help="native, or the pixels of the longer side.")] = "native",
    frame: Annotated[str, typer.Option(help="full: the whole photo. crop: the head only.")] = "full",
    face: Annotated[int | None, typer.Option(help="Which face of PHOTO, as `mimik faces` numbers them.")] = None,
    driver_face: Annotated[int | None, typer.Option(help="Which face of DRIVER.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second; the driver's own if left out.")] = None,
    quality: Annotated[int, typer.Option(help="x264's constant rate factor: 0 best to 51.")] = 18,
    audio: Annotated[bool, typer.Option("--audio/--no-audio", help="Take the driver's sound along.")] = True,
    force: Force = False,
    json_report: Annotated[
        Path | None, typer.Option("--json", help="Write a report of the run here.", show_default=False)
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Sign with this PEM certificate chain instead of this computer's own.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
) -> None:
    """Animate a photo with a driver: a finished, signed video."""
    options: dict[str, Any] = {
        "model": model,
        "motion": motion,
        "regions": parse_regions(regions),
        "strength": strength,
        "smooth": smooth,
        "size": _size(size),
        "frame": frame,
        "driver_face": driver_face,
        "fps": fps,
        "quality": quality,
        "audio": audio,
    }
    config = animate.AnimateConfig(face=face, **options)
    _check_json(json_report, force)
    credentials = _credentials(certificate, key)
    if photo.is_dir():
        _animate_folder(photo, driver, out, config, credentials, force, json_report)
        return
    report = _animate_one(photo, driver, out, config, credentials, force)
    _tell(report)
    if json_report is not None:
        _write_json(json_report, report.to_json(), force)


def _animate_one(
    photo: Path,
    driver: str,
    out: Path,
    config: animate.AnimateConfig,
    credentials: provenance.Credentials | None,
    force: bool,
) -> Report:
    # Whatever can be refused without reading a picture is refused first.
    video.output_kind(out)
    opened = animate.Driver.open(driver, config.fps)
    provenance.check_output(out, force=force, inputs=[photo, opened.path])
    with _status(f"reading {photo.name}"):
        avatar = Avatar.from_photos([photo], face=config.face)
    options = {name: getattr(config, name) for name in config.__dataclass_fields__}
    with _Bars().shown() as bars:
        return avatar.render(driver, out, force=force, credentials=credentials, progress=bars, **options)


@contextmanager
def _status(text: str) -> Iterator[None]:
    if errors.is_terminal:
        with errors.status(text):
            yield
    else:
        yield


def _tell(report: Report) -> None:
    for note in report.notes:
        errors.print(f"note: {_escape(note)}", soft_wrap=True)
    size = f"{report.width}x{report.height}"
    sound = ", with sound" if report.has_audio else ""
    console.print(
        f"{_escape(report.out)}: {report.num_frames} frames of {size} at {report.fps:g}/s{sound}, in "
        f"{report.seconds:.1f} s ({report.frames_per_second:.0f} frames a second). Signed: mimik verify {report.out}",
        soft_wrap=True,
    )


def _animate_folder(
    folder: Path,
    driver: str,
    out: Path,
    config: animate.AnimateConfig,
    credentials: provenance.Credentials | None,
    force: bool,
    json_report: Path | None,
) -> None:
    """Every photo of a folder; a bad one is counted and told, and never stops the rest."""
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
    if not photos:
        raise InputError(f"{folder} has no photos in it; give a folder with {', '.join(PHOTO_SUFFIXES)} files.")
    if out.suffix and not out.is_dir():
        raise InputError(f"-o {out}: {folder} is a folder of photos; give a folder for the videos too.")
    if out.exists() and not out.is_dir():
        raise InputError(f"-o {out}: is a file; give a folder for the videos.")
    if out.resolve() == folder.resolve():
        raise InputError(f"-o {out}: is the folder of the photos; give another one for the videos.")
    animate.Driver.open(driver, config.fps)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"-o {out}: the folder cannot be made ({error.strerror}); give another one.") from None
    stems = [path.stem for path in photos]
    reports, failures = [], []
    for number, photo in enumerate(photos, start=1):
        name = photo.stem if stems.count(photo.stem) == 1 else photo.name
        errors.print(f"{number}/{len(photos)} {_escape(photo.name)}", soft_wrap=True)
        try:
            report = _animate_one(photo, driver, out / f"{name}.mp4", config, credentials, force)
        except InputError as error:
            failures.append((photo.name, str(error)))
            continue
        reports.append(report)
        _tell(report)
    if failures:
        table = Table("photo", "why not", title=f"{len(failures)} of {len(photos)} photos were left out")
        for name, reason in failures:
            table.add_row(_escape(name), _escape(reason))
        console.print(table)
    if json_report is not None:
        every = [json.loads(report.to_json()) for report in reports]
        left_out = [{"photo": name, "reason": reason} for name, reason in failures]
        _write_json(json_report, json.dumps({"reports": every, "left_out": left_out}, indent=2), force)
    if failures:
        raise typer.Exit(1 if reports else 2)


@app.command()
@guarded
def demo(
    out: Out = Path("demo.mp4"), driver: Annotated[str, typer.Option(help="Name of a bundled motion.")] = "talk"
) -> None:
    """Animate the bundled portrait with a bundled motion."""
    portrait = Path(str(resources.files("mimik").joinpath("assets/portraits/eileen_collins.png")))
    report = _animate_one(portrait, driver, out, animate.AnimateConfig(), None, force=True)
    _tell(report)
    console.print(f"Watch it: {_escape(str(out.resolve()))}", soft_wrap=True)


@app.command("faces")
@guarded
def faces_command(
    photo: Annotated[Path, typer.Argument(help="A picture.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the picture with the faces drawn in.", show_default=False)
    ] = None,
    force: Force = False,
) -> None:
    """Which faces a picture shows, numbered for --face."""
    if out is not None:
        if video.output_kind(out) == "frames" or out.suffix.lower() == ".gif":
            raise InputError(f"-o {out}: give a .png, .jpg or .webp file.")
        provenance.check_output(out, force=force, inputs=[photo])
    picture = video.read_image(photo)
    height, width = picture.shape[:2]
    with _status(f"looking for faces in {photo.name}"):
        found = Landmarker().detect(picture, thorough=True)
    if not found:
        animate.choose_face(found, None, photo.name, (width, height))
    table = Table("face", "left", "top", "width", "height", "turned to", "sure")
    for number, face in enumerate(found, start=1):
        left, top, right, bottom = face.box
        yaw, pitch, roll = head_pose(face.points).degrees
        turned = f"{abs(yaw):.0f}° {'right' if yaw > 0 else 'left'}, {abs(pitch):.0f}° {'down' if pitch > 0 else 'up'}"
        row = [str(number), *(f"{v:.0f}" for v in (left, top, right - left, bottom - top))]
        table.add_row(*row, f"{turned}, tilted {roll:.0f}°", f"{100 * face.score:.0f} %")
    console.print(table)
    if out is not None:
        claim = provenance.Claim(out.name, "none", (provenance.Ingredient.from_file("photo", photo),))
        with provenance.seal(out, claim, force=force) as draft:
            video.write_image(draft, draw.annotate(picture, found))
        console.print(f"{_escape(str(out))}: written.", soft_wrap=True)


@motion_app.command("extract")
@guarded
def motion_extract(
    driver: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video of a face.")],
    out: Out,
    face: Annotated[int | None, typer.Option(help="Which face, 1 is the widest.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second; the video's own if left out.")] = None,
    force: Force = False,
) -> None:
    """Write a video's motion as a .motion file: numbers only, a few kilobytes a second."""
    if out.suffix != ".motion":
        raise InputError(f"-o {out}: a motion is written to a file ending in .motion.")
    if not out.absolute().parent.is_dir():
        raise InputError(f"-o {out}: there is no folder {out.parent}; make it first, or give another name.")
    if out.exists() and (out.is_dir() or not force):
        raise InputError(f"-o {out}: already exists; give --force to replace it, or another name.")
    config = animate.AnimateConfig(driver_face=face, fps=fps)
    with _Bars().shown() as bars:
        motion = animate.extract_motion(driver, face=config.driver_face, fps=config.fps, progress=bars)
    motion.save(out)
    rate = out.stat().st_size / 1024 / max(motion.duration_s, 1e-6)
    console.print(
        f"{_escape(str(out))}: {len(motion)} frames, {motion.duration_s:.1f} s, {out.stat().st_size / 1024:.0f} kB "
        f"({rate:.1f} kB a second).",
        soft_wrap=True,
    )


@motion_app.command("list")
@guarded
def motion_list() -> None:
    """The motions that come with the program."""
    table = Table("name", "seconds", "frames a second")
    for name, path in bundled_motions().items():
        motion = Motion.load(path)
        table.add_row(name, f"{motion.duration_s:.1f}", f"{motion.fps:g}")
    console.print(table)


@motion_app.command("show")
@guarded
def motion_show(
    motion: Annotated[str, typer.Argument(help="A .motion file, or the name of a bundled motion.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The picture; NAME.png if left out.")] = None,
    force: Force = False,
) -> None:
    """A picture of a motion: the face drawn at even steps, over curves of what it does."""
    path = bundled_motions().get(motion, Path(motion))
    if not path.is_file():
        raise InputError(
            f"{motion}: there is no such motion; give a .motion file or one of {', '.join(bundled_motions())}."
        )
    loaded = Motion.load(path)
    picture = out or Path(f"{loaded.name}.png")
    if video.output_kind(picture) != "image":
        raise InputError(f"-o {picture}: give a .png or .jpg file.")
    provenance.check_output(picture, force=force)
    claim = provenance.Claim(picture.name, "none", (provenance.Ingredient.from_file("driver", path, name=loaded.name),))
    with provenance.seal(picture, claim, force=force) as draft:
        video.write_image(draft, draw.motion_sheet(loaded))
    console.print(f"{_escape(str(picture))}: written.", soft_wrap=True)


@app.command()
@guarded
def verify(
    file: Annotated[Path, typer.Argument(help="A picture or a video from anywhere.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
    anchor: Annotated[
        list[Path] | None, typer.Option(help="A PEM certificate to trust, e.g. another computer's.", show_default=False)
    ] = None,
) -> None:
    """Say in plain words where a file comes from.

    Exit code 0: made by mimik and unaltered. 1: altered since. 3: nothing found, which proves nothing. 4: signed by
    another program. 2: the file cannot be read.
    """
    verdict = provenance.verify(file, anchors=anchor or [])
    if as_json:
        typer.echo(verdict.to_json())
    else:
        console.print(f"{_escape(str(file))}: {_escape(verdict.sentence)}", soft_wrap=True)
    raise typer.Exit(verdict.exit_code)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"mimik {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    logging.basicConfig(level=logging.WARNING, format="mimik: %(message)s")


def main() -> None:
    """Entry point of the `mimik` command."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    app()
