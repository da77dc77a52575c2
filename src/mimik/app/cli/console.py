"""The program: its commands, error handling of the command line, and output."""

from __future__ import annotations

import functools
import gc
import logging
import re
import shlex
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from mimik import __version__
from mimik.app.cli.options import expand_settings
from mimik.config import InputError, counted
from mimik.media import formats
from mimik.provenance.outputs import sidecar_of

if TYPE_CHECKING:
    from rich.table import Table

    from mimik.animation.report import Report

console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)
# Modules that register commands. A run imports that of its command; the list of commands or an unknown name, all.
_MODULES = {
    **dict.fromkeys(("animate", "demo"), "animating"),
    **dict.fromkeys(("edit", "faces", "export"), "photos"),
    **dict.fromkeys(("live", "web"), "serving"),
    **dict.fromkeys(("prepare", "train", "learn"), "training"),
    **dict.fromkeys(("verify", "detect", "evaluate"), "checking"),
    "voice": "voices",
    "motion": "motions",
}
_GC_THRESHOLD = 20_000  # imports leave no garbage, but collecting would take a tenth of their time
_SUMMARY_WIDTH = 84  # width of a command's line in the list of commands, which is 100 columns wide
_UsageError: type[Any] = typer.BadParameter.__mro__[1]  # click's class, which Typer bundles under changing names
# In the order of the help.
_EXAMPLES = {
    "mimik": "mimik animate photo.jpg driver.mp4 -o out.mp4",
    "mimik animate": "mimik animate photo.jpg driver.mp4 -o out.mp4",
    "mimik demo": "mimik demo -o demo.mp4",
    "mimik edit": "mimik edit photo.jpg --smile 0.6 --yaw 12 -o smiling.png",
    "mimik export": "mimik export person.avatar -o phone --motion talk",
    "mimik faces": "mimik faces photo.jpg",
    "mimik live": "mimik live photo.jpg",
    "mimik web": "mimik web",
    "mimik prepare": "mimik prepare videos -o shards",
    "mimik train": "mimik train --preset texture --data shards --out run",
    "mimik learn": "mimik learn photo.jpg -o person.avatar",
    "mimik verify": "mimik verify out.mp4",
    "mimik detect": "mimik detect video.mp4",
    "mimik evaluate": "mimik evaluate --data shards --models geometry,copy -o report",
    "mimik voice": "mimik voice train tracks -o run",
    "mimik voice tracks": "mimik voice tracks videos -o tracks",
    "mimik voice train": "mimik voice train tracks -o run",
    "mimik motion": "mimik motion list",
    "mimik motion extract": "mimik motion extract driver.mp4 -o my.motion",
    "mimik motion show": "mimik motion show smile -o smile.png",
}


class _Commands(TyperGroup):
    """Reports an invalid command line with one sentence and an example, like all invalid input."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands in the order of _EXAMPLES."""
        known = [name.removeprefix("mimik ") for name in _EXAMPLES]
        return sorted(super().list_commands(ctx), key=known.index)

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
            if (dashed := _file_with_dash(options.get("args") or (args and args[0]))) is not None:
                print_error(f"{dashed}: looks like an option; pass the file as ./{dashed}.")
                sys.exit(2)
            hint = f"write for example: {_EXAMPLES[command]}" if command in _EXAMPLES else "look at its options"
            print_error(f"{what[:1].lower()}{what[1:]}; {hint} (all options: {command} --help).".replace("?;", "?"))
            sys.exit(2)
        except typer.Abort:
            sys.exit(130)
        except BrokenPipeError:
            raise
        except OSError as error:  # of output before a command runs, such as the version
            _print_system_error(error)
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, ImportError) as error:
            # Extension modules that are interrupted while they are loaded raise ImportError from it.
            if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__cause__, KeyboardInterrupt):
                raise
            print_error("stopped; unfinished files are not kept.")
            raise typer.Exit(130) from None


def _file_with_dash(args: Any) -> str | None:
    """The first argument that starts like an option and is an existing file; None if there is none."""
    given = args or sys.argv[1:]
    return next((one for one in given if one[:1] == "-" and len(one) > 1 and Path(one).exists()), None)


_GROUP_OPTIONS: dict[str, Any] = {
    "rich_markup_mode": None,
    "no_args_is_help": True,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}
app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One photo of a person in, a talking head out. Every file it writes says that it is synthetic.",
    epilog=f"For example: {_EXAMPLES['mimik']}",
    **_GROUP_OPTIONS,
)
motion_app = typer.Typer(help="Driving motions as small files of numbers.", **_GROUP_OPTIONS)
app.add_typer(motion_app, name="motion")
voice_app = typer.Typer(help="Train the network that moves lips by sound.", **_GROUP_OPTIONS)
app.add_typer(voice_app, name="voice")


def catching_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Report errors of a command in one sentence, without traceback; exit code 2."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except InputError as error:
            print_error(str(error))
            raise typer.Exit(2) from None
        except BrokenPipeError:  # the reader has closed the pipe
            raise
        except OSError as error:
            _print_system_error(error)
            raise typer.Exit(2) from None

    return run


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as the command `mimik NAME`; its settings dataclasses are expanded into options."""
    group, _, own = name.rpartition(" ")
    example = _EXAMPLES.get(f"mimik {name}")

    def add(function: Callable[..., None]) -> Callable[..., None]:
        made = catching_errors(expand_settings(function))
        epilog = example and f"For example: {example}"
        short = _first_sentence(function.__doc__ or "")
        return {"": app, "motion": motion_app, "voice": voice_app}[group].command(own, epilog=epilog, short_help=short)(
            made
        )

    return add


def _first_sentence(text: str) -> str:
    """The first sentence of a docstring for the list of commands; if too long, cut at the last comma that fits."""
    sentence = re.split(r"\.\s", f"{text.strip()} ", maxsplit=1)[0]
    if len(sentence) > _SUMMARY_WIDTH:
        ends = [found.start() for found in re.finditer(r"[;:,] | \(", sentence[:_SUMMARY_WIDTH])]
        sentence = sentence[: ends[-1]] if ends else sentence
    return f"{sentence}."


def print_line(sentence: str) -> None:
    """Print a sentence literally, for example with a file name that contains markup."""
    console.print(escape(sentence), soft_wrap=True)


def print_table(table: Table, on: Console = console) -> None:
    """Print a table; on a terminal that is narrower than its longest words, each row as one line."""
    from rich.measure import Measurement

    options = on.options.update(max_width=1000)
    if Measurement.get(on, options, table).minimum <= on.width:
        on.print(table)
        return
    if table.title is not None:
        on.print(table.title, soft_wrap=True)
    for row in zip(*(column.cells for column in table.columns), strict=True):
        named = (f"{column.header} {cell}".strip() for column, cell in zip(table.columns, row, strict=True))
        on.print(", ".join(one for one in named if one), soft_wrap=True)


def print_notes(*sentences: str) -> None:
    for sentence in sentences:
        errors.print(f"note: {escape(sentence)}", soft_wrap=True)


def shell_word(path: str | Path) -> str:
    """A path as one word of a command line, which no program takes for an option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def verify_hint(path: str | Path) -> str:
    return f"Signed: mimik verify {shell_word(path)}"


def print_report(report: Report) -> None:
    """Print the result of a run."""
    print_notes(*report.notes)
    made = f"{report.width}x{report.height}"
    kind = formats.output_kind(report.out)
    if kind != "image":
        sound = ", with sound" if report.has_audio else ""
        made = f"{counted(report.num_frames, 'frame')} of {made} at {report.fps:g}/s{sound}"
    first = report.out
    if kind == "frames":  # each frame is signed separately; the first one is shown
        first = first % 0 if "%" in Path(first).name else str(Path(first, "00000.png"))
    sidecar = sidecar_of(Path(report.out))
    beside = f" Its signature is beside it, in {sidecar.name}: keep both together." if sidecar is not None else ""
    print_line(f"{report.out}: {made}, in {report.seconds:.1f} s.{beside} {verify_hint(first)}")


def print_error(sentence: str) -> None:
    errors.print(f"[bold red]mimik:[/] {escape(sentence)}", soft_wrap=True)


def _print_system_error(error: OSError) -> None:
    where = f"{error.filename}: " if error.filename else ""
    print_error(f"{where}{error.strerror or error}; check the disk and the permissions, or use another folder.")


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


class _Terminated(KeyboardInterrupt):
    """Not KeyboardInterrupt itself: if that passes through `exec`, Python ends itself by SIGINT, whatever the code."""


def load_commands(name: str | None = None) -> None:
    """Register the command with this name; if there is none, all commands."""
    wanted = {_MODULES[name]} if name in _MODULES else dict.fromkeys(_MODULES.values())
    for module in wanted:
        import_module(f"mimik.app.cli.{module}")


def main() -> None:
    """Entry point of the `mimik` command."""
    gc.set_threshold(_GC_THRESHOLD)
    load_commands(sys.argv[1] if len(sys.argv) > 1 else None)
    ended: list[int] = []  # exit codes of signals

    def end(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the cleanup
        ended.append(128 + number)
        raise _Terminated

    # Like Ctrl-C, but not if a parent, such as nohup, ignores them.
    for number in (getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name may contain characters that the terminal cannot encode
            stream.reconfigure(errors="backslashreplace")
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        for given in sys.argv[1:]:
            if not given.isascii():
                print_error(
                    f"{given!a} has characters that this terminal's encoding, {encoding}, cannot represent; set "
                    "PYTHONUTF8=1 or LC_ALL=C.UTF-8, or use an ASCII name."
                )
                sys.exit(2)
    try:
        app(prog_name="mimik")
    except (SystemExit, KeyboardInterrupt):
        if ended:
            sys.exit(ended[0])
        raise
