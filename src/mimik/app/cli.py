"""The command line: the only module that prints."""

from __future__ import annotations

import functools
import json
import logging
import os
import shlex
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from mimik import __version__
from mimik.animation.avatar import Avatar, opened_driver
from mimik.animation.report import Report
from mimik.app import edit
from mimik.config import AVATAR_SUFFIX, PRESETS, TRANSPARENT, AnimateConfig, InputError, MediaError, parse_regions
from mimik.face.landmarks import Landmarker, choose_face, head_pose
from mimik.files import check_file, replaced
from mimik.inference.synthesis import DEFAULT_MODEL
from mimik.media import video
from mimik.media.speaking import speak
from mimik.motion import draw
from mimik.motion.drivers.driver import Driver
from mimik.motion.drivers.registry import names as driver_names
from mimik.motion.drivers.registry import open_driver
from mimik.motion.drivers.stream_file import STREAM_SUFFIX, stream_lines
from mimik.motion.drivers.udp import Receiver, parse_address
from mimik.motion.drivers.video import extract_motion
from mimik.motion.gestures import Motion, bundled_motions
from mimik.provenance import verifying
from mimik.provenance.credentials import Credentials
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.sealing import check_output, seal
from mimik.provenance.verifying import media_files

console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)

_UsageError: type[Any] = typer.BadParameter.__mro__[1]  # click's, which Typer brings along under changing names
_EXAMPLES = {
    "mimik": "mimik animate photo.jpg driver.mp4 -o out.mp4",
    "mimik animate": "mimik animate photo.jpg driver.mp4 -o out.mp4",
    "mimik demo": "mimik demo -o demo.mp4",
    "mimik detect": "mimik detect video.mp4",
    "mimik edit": "mimik edit photo.jpg --smile 0.6 --yaw 12 -o smiling.png",
    "mimik evaluate": "mimik evaluate --data shards --models geometry,copy -o report",
    "mimik export": "mimik export person.avatar -o phone --motion talk",
    "mimik faces": "mimik faces photo.jpg",
    "mimik learn": "mimik learn photo.jpg -o person.avatar",
    "mimik live": "mimik live photo.jpg",
    "mimik motion": "mimik motion list",
    "mimik motion extract": "mimik motion extract driver.mp4 -o my.motion",
    "mimik motion show": "mimik motion show smile -o smile.png",
    "mimik prepare": "mimik prepare videos -o shards",
    "mimik train": "mimik train --preset texture --data shards --out run",
    "mimik web": "mimik web",
    "mimik verify": "mimik verify out.mp4",
}


def _example(command: str) -> str:
    return f"For example: {_EXAMPLES[command]}"


class _Commands(TyperGroup):
    """A wrong command line ends with one sentence and an example, as all bad input does."""

    def main(self, *args: Any, **options: Any) -> Any:
        if not options.pop("standalone_mode", True):
            return super().main(*args, **options | {"standalone_mode": False})
        try:
            code = super().main(*args, **options | {"standalone_mode": False})
        except _UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
                sys.exit(2)
            command = error.ctx.command_path if error.ctx else "mimik"
            what = error.format_message().rstrip(".").replace(". Did you mean ", ", did you mean ")
            hint = f"write for example: {_EXAMPLES[command]}" if command in _EXAMPLES else "look at its options"
            _complain(f"{what[:1].lower()}{what[1:]}; {hint} (all options: {command} --help).".replace("?;", "?"))
            sys.exit(2)
        except typer.Abort:
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)


_PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,
    "no_args_is_help": True,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}
if TYPE_CHECKING:
    from mimik.data import prepare

app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One photo of a person in, a talking head out. What leaves this program says that it is synthetic.",
    epilog=_example("mimik"),
    **_PLAIN,
)
motion_app = typer.Typer(help="Driving motions as small files of numbers.", **_PLAIN)
app.add_typer(motion_app, name="motion")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """What a user caused ends with one sentence and exit code 2, an interruption with 130; never with a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except InputError as error:
            _complain(str(error))
            raise typer.Exit(2) from None
        except BrokenPipeError:  # the reader of a pipe has seen enough
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _complain(f"{where}{error.strerror or error}; check the disk and the permissions, or give another place.")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _complain("stopped; what was not finished is not kept.")
            raise typer.Exit(130) from None

    return run


def _complain(sentence: str) -> None:
    errors.print(f"[bold red]mimik:[/] {escape(sentence)}", soft_wrap=True)


_STAGES = {"track": "reading the driver", "animate": "animating", "sign": "signing"}
_FIRST_LINE_S = 2.0  # nobody waits longer than this without a word
_LINE_EVERY_S = 5.0


class _Bars:
    """Progress bars of a run; on a pipe or in a log file, a line every few seconds instead."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:18}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._start: dict[str, float] = {}
        self._said = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        elapsed_s = time.monotonic() - self._start.setdefault(stage, time.monotonic())
        rate = f"{done / elapsed_s:.0f}/s" if elapsed_s > 0.5 else ""
        if errors.is_terminal:
            self._show(stage, done, total, f"{done}/{total or '?'} frames", rate)
            if stage == "animate" and done == total:
                self._show("signing", 0, None, "", "")
        elif time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            of = f" of {total}" if total else ""
            errors.print(f"{_STAGES.get(stage, stage)}: {done}{of} frames {rate}".rstrip(), soft_wrap=True)

    def _show(self, stage: str, done: int, total: int | None, count: str, rate: str) -> None:
        if stage not in self._tasks:
            if stage != "preparing" and "preparing" in self._tasks:
                self._bars.update(self._tasks["preparing"], visible=False)
            self._tasks[stage] = self._bars.add_task(_STAGES.get(stage, stage), total=total, count="", rate="")
        self._bars.update(self._tasks[stage], completed=done, total=total, count=count, rate=rate)

    @contextmanager
    def shown(self) -> Iterator[_Bars]:
        if not errors.is_terminal:
            yield self
            return
        with self._bars:
            self._show("preparing", 0, None, "", "")
            yield self


class _VideoBar:
    """Progress of `mimik prepare`: videos done, what was kept, and how fast."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        )
        self._task = self._bar.add_task("opening", total=None, state="")
        self._said = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S

    def __call__(self, state: prepare.Progress) -> None:
        text = (
            f"{state.done}/{state.total} videos, {state.kept} clips kept, {state.rejected} tracks left out, "
            f"{state.rate:.1f} s of video a second"
        )
        if errors.is_terminal:
            self._bar.update(self._task, description="preparing", completed=state.done, total=state.total, state=text)
        elif time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            errors.print(text, soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[_VideoBar]:
        if errors.is_terminal:
            with self._bar:
                yield self
        else:
            yield self


class _Steps:
    """What `mimik export` is at; on a pipe or in a log file, a line every few seconds instead."""

    def __init__(self) -> None:
        self._status = errors.status("starting")
        self._said = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S

    def __call__(self, step: str, done: int, total: int | None) -> None:
        text = f"{step}: {done} of {total} frames" if total else step
        if errors.is_terminal:
            self._status.update(escape(text))
        elif not total or time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            errors.print(escape(text), soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[_Steps]:
        with self._status if errors.is_terminal else nullcontext():
            yield self


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number") from None
    if abs(number) > 10**9:
        raise typer.BadParameter(f"{text!r} is far too large")
    return number


def _decimal(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None


@contextmanager
def _extra(command: str, name: str) -> Iterator[None]:
    """What is imported in it comes with an extra of the package.

    Raises:
        InputError: if it is not installed; how to.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"{command} needs {error.name}, which is not installed: pip install 'mimik[{name}]'."
        ) from None


def _size(text: str) -> int | None:
    if text == "native":
        return None
    try:
        return _whole(text)
    except typer.BadParameter as error:
        raise InputError(f"--size: {error.message}; give 'native' or the pixels of the longer side.") from None


def _credentials(certificate: Path | None, key: Path | None) -> Credentials | None:
    if (certificate is None) != (key is None):
        raise InputError("--certificate and --key go together: give both, or neither for this computer's own.")
    return Credentials.from_files(certificate, key) if certificate and key else None


def _write_json(path: Path, text: str) -> None:
    with replaced(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def _check_picture_file(out: Path) -> None:
    if out.suffix.lower() not in video.IMAGE_SUFFIXES or "%" in out.name:
        raise InputError(f"-o {out}: give a file ending in {', '.join(video.IMAGE_SUFFIXES)}.")


Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which generator: texture; geometry, which warps the photo without a network; or a .safetensors file "
        "that `mimik train` wrote. An avatar brings its own.",
        show_default="the avatar's own, or " + DEFAULT_MODEL,
    ),
]
Motions = Annotated[
    str,
    typer.Option(
        metavar="MODE",
        help="relative: the driver's change is put on the photo. absolute: the driver's own pose is taken.",
    ),
]
Regions = Annotated[str, typer.Option(metavar="LIST", help="What moves: all, or some of pose,lips,eyes,brows,gaze.")]
Strength = Annotated[
    float, typer.Option(metavar="X", parser=_decimal, help="How strongly the driver moves the person, 0 to 3.")
]
Neutral = Annotated[
    float | None,
    typer.Option(
        metavar="TIME",
        parser=_decimal,
        help="Seconds into a driving video at which its face is neutral; found automatically if left out.",
        show_default=False,
    ),
]
Smooth = Annotated[
    float, typer.Option(metavar="X", parser=_decimal, help="Against wobble, 0 (off) to 1 (calm, a little late).")
]
Size = Annotated[
    str, typer.Option(metavar="PX", help="Pixels of the longer side, 64 to 4096; native: those of the photo.")
]
View = Annotated[str, typer.Option(metavar="VIEW", help="full: the whole photo. crop: a square around the head.")]
PhotoFace = Annotated[
    int | None,
    typer.Option(
        metavar="N", parser=_whole, help="Which face of PHOTO, as `mimik faces` numbers them; the widest if left out."
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT",
        help="What is seen behind the person: none (transparent: a .webm, .mov or .webp file, or PNG frames), blur, a "
        "colour such as white or #00ff00, or a picture.",
        show_default="the photo's own",
    ),
]
Label = Annotated[bool, typer.Option("--label", help='Burn a small visible "AI" into the lower right corner.')]
Consent = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What you state about the consent of the person shown, in the signed manifest for all to read.",
        show_default=False,
    ),
]
Certificate = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Sign with this PEM certificate chain, not this computer's own.")
]
Key = Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key, PEM.")]


@app.command("animate", epilog=_example("mimik animate"))
@guarded
def animate_command(
    photo: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTO", help="A photo of the person, a video of it, an .avatar file, or a folder of photos."
        ),
    ],
    driver: Annotated[
        str | None,
        typer.Argument(
            metavar="DRIVER",
            help="What the person shall do: a video, a recording of speech (.wav, .mp3, .m4a, .flac, .ogg), a photo, a "
            ".motion file, a .jsonl file of blendshapes and head poses, the name of a bundled motion, see `mimik "
            "motion list`, idle, or a folder of such files.",
            show_default=False,
        ),
    ] = None,
    *,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="OUT",
            help="What to write: a .mp4, .m4v, .mov, .mkv, .webm, .gif or .webp file; a folder for PNG frames, or "
            "frames/%05d.webp; a .png or .jpg file when DRIVER is a photo; a folder for videos when PHOTO or DRIVER is "
            "one.",
            show_default=False,
        ),
    ],
    say: Annotated[
        str | None,
        typer.Option(
            "--say",
            metavar="TEXT",
            help="In place of DRIVER: the person says this, by espeak-ng or piper, if installed.",
            show_default=False,
        ),
    ] = None,
    voice: Annotated[
        str | None,
        typer.Option(
            metavar="VOICE",
            help="For --say: a voice of espeak-ng such as en-us or de, or piper's .onnx file.",
            show_default="en-us",
        ),
    ] = None,
    drive_by: Annotated[
        str, typer.Option(metavar="WHAT", help="What of a video drives: picture or sound.")
    ] = "picture",
    seconds: Annotated[
        float | None,
        typer.Option(metavar="S", parser=_decimal, help="Length of an idle video.", show_default="10"),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(metavar="N", parser=_whole, help="Random seed of the motion that sound and idle generate."),
    ] = 0,
    model: Model = None,
    motion: Motions = "relative",
    regions: Regions = "all",
    strength: Strength = 1.0,
    smooth: Smooth = 0.5,
    size: Size = "native",
    frame: View = "full",
    face: PhotoFace = None,
    driver_face: Annotated[
        int | None, typer.Option(metavar="N", parser=_whole, help="Which face of DRIVER; the widest if left out.")
    ] = None,
    neutral: Neutral = None,
    fps: Annotated[
        float | None,
        typer.Option(metavar="X", parser=_decimal, help="Frames a second, 1 to 120; the driver's own if left out."),
    ] = None,
    quality: Annotated[
        int,
        typer.Option(
            metavar="N", parser=_whole, help="x264's constant rate factor, 0 (best) to 51; 18 looks lossless."
        ),
    ] = 18,
    audio: Annotated[bool, typer.Option("--audio/--no-audio", help="Take the driver's sound along.")] = True,
    background: Background = None,
    label: Label = False,
    consent: Consent = None,
    force: Force = False,
    json_report: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write a report of the run here.", show_default=False),
    ] = None,
    certificate: Certificate = None,
    key: Key = None,
    workers: Annotated[
        int | None,
        typer.Option(
            parser=_whole,
            metavar="N",
            help="Of a folder: processes; one for every two cores if left out.",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Of a folder: over a Ray cluster on this machine.")] = False,
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The same over that cluster.", show_default=False)
    ] = None,
) -> None:
    """Animate a photo with a driver: a finished, signed video. Of a folder all, each with each; goes on where it was
    stopped.
    """
    options: dict[str, Any] = {
        "model": model,
        "motion": motion,
        "regions": parse_regions(regions),
        "strength": strength,
        "smooth": smooth,
        "size": _size(size),
        "frame": frame,
        "driver_face": driver_face,
        "neutral": neutral,
        "fps": fps,
        "drive_by": drive_by,
        "seconds": seconds,
        "seed": seed,
        "quality": quality,
        "audio": audio,
        "background": background,
        "label": label,
        "consent": consent,
    }
    config = AnimateConfig(face=face, **options)
    with ExitStack() as stack:
        if say is not None or voice is not None or driver is None:
            driver = _spoken(driver, say, voice, stack)
        _animate(
            photo, driver, out, config, force, json_report, certificate, key, workers=workers, ray=ray_address or ray
        )


def _spoken(driver: str | None, text: str | None, voice: str | None, stack: ExitStack) -> str:
    """The sound file of a text, which is there until the stack ends.

    Raises:
        InputError: if there is a driver besides, or no text.
    """
    if text is None:
        if driver is not None:
            raise InputError(f"--voice {voice}: is the voice of --say TEXT; leave it out where DRIVER is {driver}.")
        raise InputError("DRIVER is missing; give a video, a recording of speech or a bundled motion, or --say TEXT.")
    if driver is not None:
        raise InputError(f"--say: {driver} is the driver already; give one of them.")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mimik-")))
    with _status("speaking"):
        return str(speak(text, folder / "speech.wav", voice=voice))


def _animate(
    photo: Path,
    driver: str,
    out: Path,
    config: AnimateConfig,
    force: bool,
    json_report: Path | None,
    certificate: Path | None,
    key: Path | None,
    *,
    workers: int | None,
    ray: str | bool,
) -> None:
    """One video, or those of folders.

    Args: ray: as _animate_all takes it.
    """
    if json_report is not None:
        check_file("--json", json_report, force=force, others=[photo, Path(driver), out])
    credentials = _credentials(certificate, key)
    if photo.is_dir() or (driver not in driver_names() and Path(driver).is_dir()):
        if config.background == TRANSPARENT:
            raise InputError(
                "--background none: of folders .mp4 files are made, which cannot be transparent; give one photo and "
                "one driver."
            )
        signer = (certificate, key) if certificate and key else None
        _animate_all(photo, driver, out, config, signer, force, json_report, workers, ray)
        return
    for option, given in (
        ("--workers", workers is not None),
        ("--ray", ray is True),
        ("--ray-address", isinstance(ray, str)),
    ):
        if given:
            raise InputError(f"{option}: there is one video to make; give a folder of photos or of drivers.")
    video.output_kind(out)  # whatever can be refused without reading a file is refused first
    report = _animate_one(photo, _opened(driver, config), out, config, credentials, force)
    _tell(report)
    if json_report is not None:
        _write_json(json_report, report.to_json())


def _opened(driver: str, config: AnimateConfig) -> Driver:
    with _status(f"opening {driver}"):
        return opened_driver(driver, config)


def _animate_one(
    photo: Path,
    driver: Driver,
    out: Path,
    config: AnimateConfig,
    credentials: Credentials | None,
    force: bool,
) -> Report:
    check_output(out, force=force, inputs=[photo, *([driver.path] if driver.path else [])])
    with _status(f"reading {photo.name}"):
        avatar = Avatar.from_photos([photo], face=config.face)
    options = {name: getattr(config, name) for name in config.__dataclass_fields__}
    with _Bars().shown() as bars:
        return avatar.render(driver, out, force=force, credentials=credentials, progress=bars, **options)


@contextmanager
def _status(text: str) -> Iterator[None]:
    if errors.is_terminal:
        with errors.status(escape(text)):
            yield
        return
    late = threading.Timer(_FIRST_LINE_S, lambda: errors.print(escape(text), soft_wrap=True))
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _tell(report: Report) -> None:
    for note in report.notes:
        errors.print(f"note: {escape(note)}", soft_wrap=True)
    made = f"{report.width}x{report.height}"
    speed = ""
    if video.output_kind(report.out) != "image":
        sound = ", with sound" if report.has_audio else ""
        made = f"{report.num_frames} frames of {made} at {report.fps:g}/s{sound}"
        speed = f" ({report.frames_per_second:.0f} frames a second)"
    signed = report.out
    if video.output_kind(signed) == "frames":  # each frame is signed by itself; the first one is shown
        signed = signed % 0 if "%" in Path(signed).name else str(Path(signed, "00000.png"))
    console.print(
        f"{escape(report.out)}: {made}, in {report.seconds:.1f} s{speed}. Signed: mimik verify "
        f"{escape(shlex.quote(signed))}",
        soft_wrap=True,
    )


def _animate_all(
    photo: Path,
    driver: str,
    out: Path,
    config: AnimateConfig,
    signer: tuple[Path, Path] | None,
    force: bool,
    json_report: Path | None,
    workers: int | None,
    ray: str | bool,
) -> None:
    """Every photo of a folder, every driver of one; a bad one is counted and told, and never stops the rest."""
    from mimik.animation import batch

    every = batch.pairs(photo, driver, out)
    by_pair = photo.is_dir() and batch.is_folder_of_drivers(driver)

    def name(pair: batch.Pair) -> str:
        names = [pair.photo.name, Path(pair.driver).name]
        return " ".join(names) if by_pair else names[0 if photo.is_dir() else 1]

    outcomes: list[batch.Outcome] = []
    with ExitStack() as stack:
        bar = stack.enter_context(_item_bar())

        def frames(pair: batch.Pair, done: int, total: int | None) -> None:
            bar(f"{name(pair)}, {done} of {total or '?'} frames", len(outcomes), len(every))

        results = batch.animate_all(
            every, config, num_workers=workers, ray=ray, signer=signer, force=force, progress=frames
        )
        stack.enter_context(closing(results))
        for outcome in results:
            outcomes.append(outcome)
            report, said = outcome.report, "made by an earlier run"
            if report is not None:
                notes = "".join(f"; {note}" for note in report.notes)
                said = f"{report.num_frames} frames of {report.width}x{report.height}, in {report.seconds:.1f} s{notes}"
            if outcome.reason is not None:
                said = "left out"
            errors.print(escape(f"{len(outcomes)}/{len(every)} {name(outcome.pair)}: {said}"), soft_wrap=True)
            bar(name(outcome.pair), len(outcomes), len(every))
    made = [outcome.report for outcome in outcomes if outcome.report is not None]
    failures = [outcome for outcome in outcomes if outcome.reason is not None]
    num_there = len(outcomes) - len(made) - len(failures)
    what = "videos" if by_pair else "photos" if photo.is_dir() else "drivers"
    if failures:
        table = Table(what[:-1], "why not", title=f"{len(failures)} of {len(every)} {what} were left out")
        for outcome in failures:
            table.add_row(escape(name(outcome.pair)), escape(outcome.reason or ""))
        errors.print(table)
    if made or num_there:
        before = f", {num_there} by an earlier run" if num_there else ""
        console.print(
            f"{escape(str(out))}: {len(made)} of {len(every)} videos made{before}. Signed: mimik verify "
            f"{escape(shlex.quote(str(out)))}",
            soft_wrap=True,
        )
    if json_report is not None:
        left_out = [{"photo": o.pair.photo.name, "driver": o.pair.driver, "reason": o.reason} for o in failures]
        there = [str(o.pair.out) for o in outcomes if o.report is None and o.reason is None]
        reports = [json.loads(report.to_json()) for report in made]
        _write_json(json_report, json.dumps({"reports": reports, "there": there, "left_out": left_out}, indent=2))
    if failures:
        raise typer.Exit(1 if made or num_there else 2)


@app.command(epilog=_example("mimik demo"))
@guarded
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="The video to write.")] = Path("demo.mp4"),
    driver: Annotated[str, typer.Option(metavar="DRIVER", help="What she shall do: as for `mimik animate`.")] = "talk",
    force: Force = False,
) -> None:
    """Animate the bundled portrait with a bundled motion."""
    portrait = Path(str(resources.files("mimik").joinpath("assets/portraits/eileen_collins.png")))
    config = AnimateConfig()
    video.output_kind(out)
    report = _animate_one(portrait, _opened(driver, config), out, config, None, force)
    _tell(report)
    console.print(f"Watch it: {escape(str(out.resolve()))}", soft_wrap=True)


def _slider(name: str) -> Any:
    low, high, hint = edit.SLIDERS[name]
    return typer.Option(parser=_decimal, metavar="X", help=f"From {low:g} to {high:g}; {hint}.")


@app.command("edit", epilog=_example("mimik edit"))
@guarded
def edit_command(
    photo: Annotated[
        Path, typer.Argument(metavar="PHOTO", help="A photo of the person, a video of it, or an .avatar file.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="OUT", help="The picture to write: .png, .jpg or .webp.", show_default=False
        ),
    ],
    smile: Annotated[float, _slider("smile")] = 0.0,
    mouth: Annotated[float, _slider("mouth")] = 0.0,
    blink: Annotated[float, _slider("blink")] = 0.0,
    brows: Annotated[float, _slider("brows")] = 0.0,
    gaze_x: Annotated[float, _slider("gaze_x")] = 0.0,
    gaze_y: Annotated[float, _slider("gaze_y")] = 0.0,
    yaw: Annotated[float, _slider("yaw")] = 0.0,
    pitch: Annotated[float, _slider("pitch")] = 0.0,
    roll: Annotated[float, _slider("roll")] = 0.0,
    model: Model = None,
    size: Size = "native",
    frame: View = "full",
    face: PhotoFace = None,
    label: Label = False,
    consent: Consent = None,
    force: Force = False,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Change a photo's expression, gaze and pose by numbers: a signed picture."""
    changes = edit.Edit(
        smile=smile,
        mouth=mouth,
        blink=blink,
        brows=brows,
        gaze_x=gaze_x,
        gaze_y=gaze_y,
        yaw=yaw,
        pitch=pitch,
        roll=roll,
    )
    config = AnimateConfig(model=model, size=_size(size), frame=frame, face=face, label=label, consent=consent)
    credentials = _credentials(certificate, key)
    with _status(f"editing {photo.name}"):
        width, height = edit.edit_photo(photo, out, changes, config=config, force=force, credentials=credentials)
    console.print(
        f"{escape(str(out))}: {width}x{height}. Signed: mimik verify {escape(shlex.quote(str(out)))}", soft_wrap=True
    )


@app.command("export", epilog=_example("mimik export"))
@guarded
def export_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|AVATAR",
            help="texture, a .safetensors file of `mimik train`, or an .avatar file of `mimik learn`.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="A new folder for the files.", show_default=False)
    ],
    file_format: Annotated[str, typer.Option("--format", metavar="NAME", help="onnx.")] = "onnx",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="fp32; fp16, half as large; int8, a quarter, and coarser.")
    ] = "fp32",
    photo: Annotated[
        Path | None,
        typer.Option(
            metavar="PHOTO",
            help="The person, for a model: built into the graph. Without one the embedder is exported too.",
            show_default=False,
        ),
    ] = None,
    face: PhotoFace = None,
    motions: Annotated[
        list[str] | None,
        typer.Option(
            "--motion",
            metavar="MOTION",
            help="A bundled motion or a .motion file, put on the person, for examples/browser; may be given again.",
            show_default=False,
        ),
    ] = None,
    size: Size = "512",
    force: Force = False,
) -> None:
    """Write a model or a person as a static ONNX graph for phones, games and browsers, with what its host has to do."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as for train
    with _extra("export", "export"):
        from mimik.app import export

    config = export.ExportConfig(
        format=file_format,
        precision=precision,
        photo=photo,
        face=face,
        motions=tuple(motions or ()),
        size=_size(size),
    )
    with _Steps().shown() as steps:
        made = export.export(what, out, config, force=force, progress=steps)
    for note in made.notes:
        errors.print(f"note: {escape(note)}", soft_wrap=True)
    for graph in made.graphs:
        size = f"{len(graph.data) / 1e6:.1f} MB, {graph.multiply_adds / 1e9:.3g} G multiply-adds, {graph.precision}"
        table = Table("output", "off by at most", "in the mean", "of a span of", title=f"{graph.file}: {size}")
        for name, found in graph.parity.items():
            table.add_row(name, *(f"{value:.2g}" for value in (found.largest, found.mean, found.span)))
        console.print(table)
    moved = "".join(f", {escape(name)} ({count / 1e6:.1f} MB)" for name, count in made.motions)
    console.print(
        f"{escape(str(out))}: {', '.join(graph.file for graph in made.graphs)}{moved}. What it draws is synthetic; "
        f"whoever shows it has to mark it. How, and what else a host does: {escape(str(out / export.RECORD_NAME))}",
        soft_wrap=True,
    )


@app.command("faces", epilog=_example("mimik faces"))
@guarded
def faces_command(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A picture.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="OUT",
            help="Write the picture with the faces drawn in: .png, .jpg or .webp.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Which faces a picture shows, numbered for --face."""
    if out is not None:
        _check_picture_file(out)
        check_output(out, force=force, inputs=[photo])
    picture = video.read_image(photo)
    height, width = picture.shape[:2]
    with _status(f"looking for faces in {photo.name}"):
        found = Landmarker().detect(picture, thorough=True)
    if not found:
        choose_face(found, None, photo.name, (width, height))
    table = Table("face", "left", "top", "width", "height", "turned to", "sure")
    for number, face in enumerate(found, start=1):
        left, top, right, bottom = face.box
        yaw, pitch, roll = head_pose(face.points).degrees
        turned = f"{abs(yaw):.0f}° {'right' if yaw > 0 else 'left'}, {abs(pitch):.0f}° {'down' if pitch > 0 else 'up'}"
        row = [str(number), *(f"{v:.0f}" for v in (left, top, right - left, bottom - top))]
        table.add_row(*row, f"{turned}, tilted {roll:.0f}°", f"{100 * face.score:.0f} %")
    console.print(table)
    if out is not None:
        claim = Claim(out.name, "none", (Ingredient.from_file("photo", photo),))
        with seal(out, claim, force=force) as draft:
            draft.write_image(draw.annotate(picture, found))
        console.print(f"{escape(str(out))}: written.", soft_wrap=True)


@app.command("live", epilog=_example("mimik live"))
@guarded
def live_command(
    photo: Annotated[
        Path, typer.Argument(metavar="PHOTO", help="A photo of the person, or an .avatar file of `mimik learn`.")
    ],
    camera: Annotated[
        Path | None,
        typer.Option(
            metavar="VIDEO",
            help="Take this video for the camera and write --record, without a page.",
            show_default=False,
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Record what is shown: a .mp4, .m4v or .mov file.", show_default=False),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Take no camera but lines of blendshapes and head poses, which another program of this computer sends "
            "to udp://127.0.0.1:PORT.",
            show_default=False,
        ),
    ] = None,
    mirror: Annotated[bool, typer.Option("--mirror/--no-mirror", help="Move as in a mirror.")] = False,
    label: Annotated[
        str, typer.Option(metavar="SIZE", help="Of the visible AI label: normal or small. It is always there.")
    ] = "normal",
    model: Model = None,
    motion: Motions = "relative",
    regions: Regions = "all",
    strength: Strength = 1.0,
    smooth: Smooth = 0.5,
    size: Size = "512",
    frame: View = "crop",
    face: PhotoFace = None,
    consent: Consent = None,
    virtual_camera: Annotated[
        bool, typer.Option("--virtual-camera", help="Be a camera of this computer too, for other programs.")
    ] = False,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where the page is served.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(parser=_whole, metavar="N", help="0 takes any that is free.")] = 8764,
    password: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", envvar="MIMIK_PASSWORD", help="Needed to open the page; a must beyond this computer."
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    force: Force = False,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Be somebody else in a video call: your camera drives a photo, in a page of your own browser.

    Another page, without controls, is for OBS. Every frame carries a visible label and an invisible mark.
    """
    from mimik.app import live

    config = AnimateConfig(
        model=model,
        motion=motion,
        regions=parse_regions(regions),
        strength=strength,
        smooth=smooth,
        size=_size(size),
        frame=frame,
        face=face,
        consent=consent,
    )
    if stream is not None and camera is not None:
        raise InputError("--stream and --camera exclude each other: give the one that shall drive the person.")
    source = None if stream is None else parse_address(stream)
    controls = live.Controls(mirror=mirror, regions=config.regions, strength=strength, label=label)
    credentials = _credentials(certificate, key)
    if record is not None:
        live.check_recording(record, force=force, inputs=[photo, *([camera] if camera else [])])
    if camera is not None:
        if record is None:
            raise InputError(f"--camera {camera}: give --record OUT.mp4 too, or leave it out to use your own camera.")
        if virtual_camera:
            raise InputError("--virtual-camera goes with your own camera; leave --camera out.")
        if video.kind(camera) != "video":
            raise InputError(f"--camera {camera}: is a picture; give a video.")
        with _status(f"reading {photo.name}"):
            avatar = Avatar.from_photos([photo], face=config.face)
        with _Bars().shown() as bars:
            made = live.film(
                avatar,
                camera,
                record,
                config=config,
                controls=controls,
                force=force,
                credentials=credentials,
                progress=bars,
            )
        sound = ", with sound" if made.has_audio else ""
        console.print(
            f"{escape(made.out)}: {made.num_frames} frames of {made.width}x{made.height} at {made.fps:g}/s{sound}, in "
            f"{made.seconds:.1f} s ({made.num_frames / made.seconds:.0f} frames a second). Signed: mimik verify "
            f"{escape(shlex.quote(made.out))}",
            soft_wrap=True,
        )
        return
    from mimik.app import page, puppet

    page.check_host(host, password)
    page.needed()
    receiver = Receiver(*source) if source else None
    with _status(f"reading {photo.name}"):
        avatar = Avatar.from_photos([photo], face=config.face)
        call = puppet.Puppet(avatar, receiver, config, controls) if receiver else live.Call(avatar, config, controls)

    def ready(served: page.Page) -> None:
        if receiver:
            console.print(f"Send to:  {escape(receiver.address)}", soft_wrap=True)
            console.print(f"See it:   {escape(served.obs_address)}", soft_wrap=True)
        else:
            console.print(f"The call: {escape(served.address)}", soft_wrap=True)
            console.print(f"For OBS:  {escape(served.obs_address)}", soft_wrap=True)
        console.print("Ctrl-C ends it.", soft_wrap=True)
        if open_page:
            webbrowser.open_new_tab(served.obs_address if receiver else served.address)

    outlets = live.Outlets(call, record, force=force, credentials=credentials, virtual_camera=virtual_camera)
    try:
        with call, outlets:
            page.serve(call, host=host, port=port, password=password, credentials=credentials, ready=ready)
    except KeyboardInterrupt:
        console.print("The call has ended.")
    if receiver and (receiver.mailbox.num_wrong or receiver.mailbox.num_late):
        box = receiver.mailbox
        errors.print(f"note: {box.num_wrong} lines could not be used, {box.num_late} came too late", soft_wrap=True)
    if record is not None and outlets.num_recorded:
        console.print(f"{escape(str(record))}: recorded. Signed: mimik verify {escape(shlex.quote(str(record)))}")


@app.command("web", epilog=_example("mimik web"))
@guarded
def web_command(
    model: Model = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where the app is served.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(parser=_whole, metavar="N", help="0 takes any that is free.")] = 8765,
    password: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            envvar="MIMIK_PASSWORD",
            help="Needed to open the app, with the name mimik; a must beyond this computer.",
        ),
    ] = None,
    max_mb: Annotated[int, typer.Option(parser=_whole, metavar="MB", help="Of an upload, at most.")] = 200,
    max_seconds: Annotated[
        float, typer.Option(parser=_decimal, metavar="S", help="Of a driving video, at most.")
    ] = 120.0,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the app in the browser.")] = True,
) -> None:
    """Animate, learn, edit and verify in the browser, on this computer."""
    from mimik.app import web

    limits = web.Limits(upload_mb=max_mb, seconds=max_seconds)

    def ready(address: str) -> None:
        console.print(f"The app: {escape(address)}", soft_wrap=True)
        console.print("Ctrl-C ends it.", soft_wrap=True)
        if open_page:
            webbrowser.open_new_tab(address)

    with _status("starting the app"):
        web.needed()
    try:
        web.serve(host=host, port=port, password=password, model=model, limits=limits, ready=ready)
    except KeyboardInterrupt:
        console.print("The app has ended; what its visitors left is removed.")


@motion_app.command("extract", epilog=_example("mimik motion extract"))
@guarded
def motion_extract(
    driver: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video of a face.")],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="OUT",
            help="The .motion file to write, or a .jsonl file: lines of blendshapes and head pose for other programs.",
            show_default=False,
        ),
    ],
    face: Annotated[
        int | None, typer.Option(metavar="N", parser=_whole, help="Which face; the widest if left out.")
    ] = None,
    neutral: Neutral = None,
    fps: Annotated[
        float | None,
        typer.Option(metavar="X", parser=_decimal, help="Frames a second, 1 to 120; the video's own if left out."),
    ] = None,
    force: Force = False,
) -> None:
    """Write a video's motion as a .motion file: numbers only, a few kilobytes a second.

    A .jsonl file holds less of it, but any program can read and write it.
    """
    if out.suffix.lower() not in (".motion", STREAM_SUFFIX):
        raise InputError(f"-o {out}: a motion is written to a file ending in .motion or {STREAM_SUFFIX}.")
    check_file("-o", out, force=force, others=[driver])
    config = AnimateConfig(face=face, neutral=neutral, fps=fps)
    with _Bars().shown() as bars:
        opened = open_driver(driver, config.fps)
        motion = extract_motion(opened, face=config.face, neutral_s=config.neutral, progress=bars)
    with replaced(out) as draft:
        if out.suffix.lower() == STREAM_SUFFIX:
            with draft.open("w", encoding="utf-8") as file:
                file.writelines(stream_lines(motion))
        else:
            motion.save(draft)
    rate = out.stat().st_size / 1024 / max(motion.duration_s, 1e-6)
    console.print(
        f"{escape(str(out))}: {len(motion)} frames, {motion.duration_s:.1f} s, {out.stat().st_size / 1024:.0f} kB "
        f"({rate:.1f} kB a second).",
        soft_wrap=True,
    )
    if motion.reference.note:
        errors.print(f"note: {escape(motion.reference.note)}", soft_wrap=True)


@motion_app.command("list")
@guarded
def motion_list() -> None:
    """The motions that come with the program."""
    table = Table("name", "seconds", "frames a second")
    for name, path in bundled_motions().items():
        motion = Motion.load(path)
        table.add_row(name, f"{motion.duration_s:.1f}", f"{motion.fps:g}")
    console.print(table)


@motion_app.command("show", epilog=_example("mimik motion show"))
@guarded
def motion_show(
    motion: Annotated[str, typer.Argument(metavar="MOTION", help="A .motion file, or the name of a bundled motion.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="OUT", help="The picture: .png, .jpg or .webp; MOTION.png if left out."),
    ] = None,
    force: Force = False,
) -> None:
    """A picture of a motion: the face drawn at even steps, over curves of what it does."""
    path = bundled_motions().get(motion, Path(motion))
    if not path.is_file():
        raise InputError(
            f"{motion}: there is no such motion; give a .motion file or one of {', '.join(bundled_motions())}."
        )
    loaded = Motion.load(path)
    picture = out or Path(f"{path.stem}.png")  # the name inside a stranger's file is no place to write to
    _check_picture_file(picture)
    check_output(picture, force=force, inputs=[path])
    name = f"bundled {motion}" if motion in bundled_motions() else path.name
    claim = Claim(picture.name, "none", (Ingredient.from_file("driver", path, name=name),))
    with seal(picture, claim, force=force) as draft:
        draft.write_image(draw.motion_sheet(loaded))
    console.print(f"{escape(str(picture))}: written.", soft_wrap=True)


@app.command("prepare", epilog=_example("mimik prepare"))
@guarded
def prepare_command(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEOS...", help="Videos of talking people, or folders.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="SHARDS", help="The folder.", show_default=False)],
    size: Annotated[int, typer.Option(parser=_whole, metavar="PX", help="Width and height of a clip.")] = 256,
    fps: Annotated[float, typer.Option(parser=_decimal, help="Frames a second, at most.")] = 12.5,
    min_seconds: Annotated[float, typer.Option(parser=_decimal, metavar="S", help="Shortest clip.")] = 1.0,
    max_seconds: Annotated[float, typer.Option(parser=_decimal, metavar="S", help="Longest clip.")] = 10.0,
    min_face_px: Annotated[
        int, typer.Option(parser=_whole, metavar="PX", help="Narrower faces are left out, in pixels of the video.")
    ] = 48,
    context: Annotated[
        float, typer.Option(parser=_decimal, help="Side of the crop in heights of the face, forehead to chin.")
    ] = 2.0,
    min_sharpness: Annotated[
        float, typer.Option(parser=_decimal, help="Blurred faces below this are left out; 0 keeps all.")
    ] = 0.006,
    crf: Annotated[int, typer.Option(parser=_whole, help="x264's constant rate factor of the clips.")] = 20,
    gop: Annotated[int, typer.Option(parser=_whole, metavar="FRAMES", help="From key frame to key frame.")] = 12,
    shard_mb: Annotated[int, typer.Option(parser=_whole, metavar="MB", help="Size of a shard.")] = 64,
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
        int | None, typer.Option(parser=_whole, help="Processes; one a core if left out.", show_default=False)
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
    """Turn talking videos into the shards that training reads; goes on where it was stopped."""
    with _extra("prepare", "train"):
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
    with _VideoBar().shown() as bar:
        report = prepare.prepare(
            videos,
            out,
            config,
            people=people,
            manifest=manifest,
            num_workers=workers,
            ray=ray_address or ray,
            progress=bar,
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
        _write_json(json_report, report.to_json())


class _StepBar:
    """Progress of `mimik train`: steps, and the lines of its log above the bar."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        )
        self._task = self._bar.add_task("training", total=None)

    def __call__(self, step: int, num_steps: int) -> None:
        self._bar.update(self._task, completed=step, total=num_steps)

    @contextmanager
    def shown(self) -> Iterator[_StepBar]:
        lines = logging.Handler()
        lines.emit = lambda record: errors.print(escape(record.getMessage()), soft_wrap=True)  # type: ignore[method-assign]
        logger = logging.getLogger("mimik")
        logger.addHandler(lines)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            with self._bar if errors.is_terminal else nullcontext():
                yield self
        finally:
            logger.removeHandler(lines)
            logger.setLevel(logging.NOTSET)
            logger.propagate = True


@app.command("train", epilog=_example("mimik train"))
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
            help="Folder of the run; the same command goes on where it was stopped.",
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
    steps: Annotated[int | None, typer.Option(parser=_whole, metavar="N", help="Updates of E, P and G in all.")] = None,
    batch: Annotated[
        int | None, typer.Option(parser=_whole, metavar="N", help="Episodes a step, of all processes together.")
    ] = None,
    k: Annotated[int | None, typer.Option(parser=_whole, metavar="N", help="Source frames of an episode.")] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="ft has the match loss, to be fine-tuned; ff has not.")
    ] = None,
    content: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Networks of the content loss: NAME or NAME=WEIGHT, with commas between."),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where to train: auto (a GPU if there is one), cpu or cuda.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="Of activations: auto (bf16 on a GPU that has it), fp32 or bf16.")
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(parser=_whole, metavar="N", help="Loading processes for each training process.")
    ] = None,
    cache_mb: Annotated[
        int | None,
        typer.Option(
            parser=_whole, metavar="MB", help="Memory for decoded clips; a quarter of the machine's if left out."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Of everything random.")] = 0,
    save_minutes: Annotated[
        float, typer.Option(parser=_decimal, metavar="M", help="From one saved state to the next.")
    ] = 5.0,
    max_minutes: Annotated[
        float | None, typer.Option(parser=_decimal, metavar="M", help="Stop after this long, with a saved state.")
    ] = None,
    val_every: Annotated[
        int, typer.Option(parser=_whole, metavar="N", help="Steps from one validation and sample grid to the next.")
    ] = 250,
    init: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="A release of the same networks to start from.")
    ] = None,
    fresh: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Networks that do not start from --init but anew: of E, P, G, D, with commas between."
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
    with _extra("train", "train"):
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
    with _StepBar().shown() as bar:
        outcome = meta_learning.train(arguments, progress=bar)
    if int(os.environ.get("RANK", "0")):
        return
    done = f"{outcome.step} of {outcome.num_steps} steps; the model is {outcome.release}."
    if outcome.signal:
        _complain(f"stopped after {done} The same command goes on from there.")
        raise typer.Exit(128 + outcome.signal)
    console.print(escape(done), soft_wrap=True)
    if outcome.step < outcome.num_steps:
        console.print("The same command goes on from there.")


class _LearnBar:
    """Progress of `mimik learn`: steps, and what the last probe found."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("learning"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        )
        self._task = self._bar.add_task("learning", total=None, state="looking at the photos")
        self._said = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S

    def __call__(self, point: Any, step: int, num_steps: int) -> None:
        text = f"step {step} of {num_steps} at most; identity {point.identity:.3f}, following {point.following:.3f}"
        if errors.is_terminal:
            self._bar.update(self._task, completed=step, total=num_steps, state=text)
        elif time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            errors.print(text, soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[_LearnBar]:
        with self._bar if errors.is_terminal else _status("looking at the photos"):
            yield self


@app.command("learn", epilog=_example("mimik learn"))
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
        typer.Option(parser=_whole, metavar="N", help="Steps at most; it ends by itself.", show_default=False),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(parser=_decimal, metavar="S", help="Seconds of training at most.", show_default=False),
    ] = None,
    face: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=_whole,
            help="Which face, as `mimik faces` numbers them; the widest if left out.",
            show_default=False,
        ),
    ] = None,
    shots: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Frames that are taken of a video.")] = 8,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where to train: auto (a GPU if there is one), cpu or cuda.")
    ] = "auto",
    seed: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Of everything random.")] = 0,
    curve: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the curve as JSON here.", show_default=False)
    ] = None,
    force: Force = False,
) -> None:
    """Learn one person from a few photos, in about a minute; `mimik animate` takes the file as PHOTO."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as for train
    with _extra("learn", "train"):
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
    with _LearnBar().shown() as bar:
        outcome = fine_tuning.learn(photos, out, arguments, progress=bar)
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
        _write_json(curve, json.dumps(record, indent=2))


def _curve_table(outcome: Any) -> Table:
    """The points of a person's curve, with bars from the lowest score to the highest; what was kept is marked."""
    table = Table("step", "seconds", "identity", "following", "score", "")
    scores = [point.score for point in outcome.curve]
    low, span = min(scores), max(np.ptp(scores), 1e-6)
    for point in outcome.curve:
        bar = "█" * round(20 * (point.score - low) / span) + (" kept" if point == outcome.best else "")
        numbers = (f"{value:.3f}" for value in (point.identity, point.following, point.score))
        table.add_row(str(point.step), f"{point.seconds:.0f}", *numbers, bar.strip())
    return table


@app.command(epilog=_example("mimik verify"))
@guarded
def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE|FOLDER", help="A picture or a video from anywhere, or a folder of them.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
    anchor: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A PEM certificate to trust, such as another computer's; may be given again.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say in plain words where a file comes from, by its manifest and by the invisible mark in its frames.

    Exit code 0: made by mimik and unaltered. 1: altered since. 3: nothing found, which proves nothing. 4: signed by
    another program. 5: made by mimik, but stripped of its manifest. 2: the file cannot be read. Of a folder: the first
    of 2, 1, 5, 4, 3 that any of its files has, else 0.
    """
    if file.is_dir():
        _verify_folder(file, as_json, anchor or [])
        return
    with _status(f"reading {file.name}"):
        verdict = verifying.verify(file, anchors=anchor or [])
    if as_json:
        typer.echo(verdict.to_json())
    else:
        console.print(f"{escape(str(file))}: {escape(verdict.sentence)}", soft_wrap=True)
    raise typer.Exit(verdict.exit_code)


_WORST_FIRST = (2, 1, 5, 4, 3)


def _verify_folder(folder: Path, as_json: bool, anchors: Sequence[Path]) -> None:
    """Every picture and video in a folder and below; what cannot be read is told, and never stops the rest."""
    paths = media_files(folder)
    if not paths:
        raise InputError(f"{folder}: holds no pictures and no videos; give a folder that does, or a file.")
    records: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    for path in paths:
        try:
            with _status(f"reading {path.name}"):
                verdict = verifying.verify(path, anchors=anchors)
        except MediaError as error:
            status, sentence, code = "cannot be read", str(error), 2
            records.append({"file": str(path), "status": status, "exit_code": code, "sentence": sentence})
        else:
            status, sentence, code = str(verdict.status), f"{path}: {verdict.sentence}", verdict.exit_code
            records.append({"file": str(path), **verdict.to_dict()})
        counts[status] = counts.get(status, 0) + 1
        if not as_json:
            console.print(escape(sentence), soft_wrap=True)
    codes = {record["exit_code"] for record in records}
    code = next((one for one in _WORST_FIRST if one in codes), 0)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "exit_code": code, "counts": counts, "files": records}, indent=2))
    else:
        found = "; ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        console.print(f"{len(records)} files: {escape(found)}.", soft_wrap=True)
    raise typer.Exit(code)


@app.command("detect", epilog=_example("mimik detect"))
@guarded
def detect_command(
    file: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video of a face, from anywhere.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
) -> None:
    """Guess whether a face was animated, where `mimik verify` finds nothing; with how far to trust the guess.

    Exit code 0 whatever the guess, 2 where the video cannot be read or shows no face.
    """
    from mimik.provenance import detect

    with _status(f"looking at {file.name}"):
        result = detect.detect(file, landmarker=Landmarker())
    if as_json:
        typer.echo(result.to_json())
    else:
        console.print(f"{escape(str(file))}: {escape(result.sentence)}", soft_wrap=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@contextmanager
def _item_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Progress of `mimik evaluate` and of many videos: what was done last, of how much."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )
    task = bar.add_task("opening", total=None)
    said = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S

    def show(what: str, done: int, total: int) -> None:
        nonlocal said
        if errors.is_terminal:
            bar.update(task, description=escape(what), completed=done, total=total)
        elif time.monotonic() - said > _LINE_EVERY_S:
            said = time.monotonic()
            errors.print(f"{done} of {total}: {escape(what)}", soft_wrap=True)

    if errors.is_terminal:
        with bar:
            yield show
    else:
        yield show


@app.command("evaluate", epilog=_example("mimik evaluate"))
@guarded
def evaluate_command(
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="Clips of people that no model has seen: what `mimik prepare` wrote, or a folder of videos.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="REPORT", help="The folder of the report.", show_default=False),
    ],
    models: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="What is measured: geometry, texture, files of `mimik train` and `mimik learn`; for scale copy (the "
            "photo) and truth (the real frames). learn:MODEL is fine-tuned to the photos of each clip, scratch:MODEL "
            "learns them from random weights.",
        ),
    ] = "geometry,copy,truth",
    shots: Annotated[str, typer.Option(metavar="LIST", help="How many photos of a person are given.")] = "1,8,32",
    holdout: Annotated[int, typer.Option(parser=_whole, metavar="N", help="Frames of a clip to make from them.")] = 32,
    size: Annotated[int, typer.Option(parser=_whole, metavar="PX", help="Width and height of the frames.")] = 256,
    limit: Annotated[
        int | None,
        typer.Option(parser=_whole, metavar="N", help="Clips, evenly spaced; all if left out.", show_default=False),
    ] = None,
    portraits: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Pictures of faces, each driven by each clip: cross-identity.", show_default=False
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            parser=_whole, metavar="N", help="Pairs of those, evenly spaced; all if left out.", show_default=False
        ),
    ] = None,
    lpips: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With alexnet-owt-7be5be79.pth of PyTorch and alex.pth of the package lpips: for LPIPS.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Of networks: auto, cpu or cuda; auto is cuda if there is one.")
    ] = "auto",
    seed: Annotated[int, typer.Option(parser=_whole, help="Chooses other frames.")] = 0,
    learn_seconds: Annotated[
        str, typer.Option(metavar="LIST", help="When learn:MODEL and scratch:MODEL are measured; the last ends them.")
    ] = "0,10,30,60",
) -> None:
    """Measure models on clips of people they never saw; goes on where it was stopped."""
    with _extra("evaluate", "train"):
        from mimik.evaluation.evaluate import EvaluateConfig, evaluate
        from mimik.evaluation.report.pages import overview

    try:
        numbers = tuple(int(name) for name in _names(shots))
    except ValueError:
        raise InputError(f"--shots {shots}: give whole numbers with commas between them, such as 1,8,32.") from None
    try:
        times = tuple(float(name) for name in _names(learn_seconds))
    except ValueError:
        raise InputError(f"--learn-seconds {learn_seconds}: give seconds with commas between, such as 0,30.") from None
    config = EvaluateConfig(
        models=_names(models),
        shots=numbers,
        holdout=holdout,
        size=size,
        limit=limit,
        pairs=pairs,
        seed=seed,
        device=device,
        learn_seconds=times,
    )
    with _item_bar() as bar:
        results = evaluate(data, out, config, portraits=portraits, lpips=lpips, progress=bar)
    console.print(escape(overview(results)), soft_wrap=True)
    for name, why in results["left_out"].items():
        errors.print(f"note: {escape(name)} was left out: {escape(why)}", soft_wrap=True)
    console.print(f"Read it: {escape(str(out / 'report.html'))}", soft_wrap=True)


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
    # What is half written goes also when the program is told to end or its terminal is closed.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            number = getattr(signal, name)
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file's name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="mimik")
