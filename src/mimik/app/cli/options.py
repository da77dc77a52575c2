"""Options shared by several commands, and parsing of option values."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimik.config import InputError, Option, check_options, options_of
from mimik.files import write_text
from mimik.media.formats import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from mimik.provenance.credentials import Credentials


def parse_integer(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an integer") from None
    if abs(number) > 10**9:
        raise typer.BadParameter(f"{text!r} is too large")
    return number


def parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


def write_json(path: Path, text: str) -> None:
    write_text(path, f"{text}\n")


def check_picture_file(out: Path) -> None:
    if out.suffix.lower() not in IMAGE_SUFFIXES or "%" in out.name:
        raise InputError(f"-o {out}: use a file ending in {', '.join(IMAGE_SUFFIXES)}.")


# Options of commands from fields of settings dataclasses.


class OnlyFields:
    """Annotation of a settings dataclass: only these fields become options of the command."""

    def __init__(self, names: str = "", **defaults: Any) -> None:
        """Args: names: separated by spaces, empty for all; defaults: that differ for the command."""
        self.names, self.defaults = names.split(), defaults


def expand_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each parameter of a settings dataclass replaced by options for its fields."""
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[Any, dict[str, Option]]] = {}
    for parameter in signature.parameters.values():
        about: Any
        kind: Any
        kind, *about = typing.get_args(parameter.annotation) or [parameter.annotation]
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        some = next((one for one in about if isinstance(one, OnlyFields)), OnlyFields())
        known: Any = options_of(kind)
        options = {name: known[name] for name in some.names or known}
        parameters += _parameters(kind, options, some.defaults)
        groups[parameter.name] = kind, options

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for parameter, (kind, options) in groups.items():
            values = {name: given.pop(name) for name in options}
            read = {name: _read(options[name], value) for name, value in values.items() if value is not None}
            given[parameter] = kind(**read)
        command(**given)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return run


def _read(option: Option, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return option.read(value) if option.read else value


def _parameters(kind: Any, options: Mapping[str, Option], defaults: Mapping[str, Any]) -> Iterator[inspect.Parameter]:
    """Yield a parameter for Typer for each field."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name, option in options.items():
        default = defaults.get(name, fields[name].default)
        plain = next((one for one in typing.get_args(hints[name]) if one is not type(None)), hints[name])
        flag = f"{option.flag}/--no-{option.flag[2:]}" if plain is bool and default is True else option.flag
        about: dict[str, Any] = {"help": option.help, "metavar": option.metavar, "envvar": option.env}
        if option.read:
            hint: Any = str
            default = option.written(default)
        elif typing.get_origin(hints[name]) is tuple:
            hint, default = types.GenericAlias(list, plain) | None, None
        else:
            hint = hints[name]
            about["parser"] = {int: parse_integer, float: parse_number}.get(plain)
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is dataclasses.MISSING else default,
            annotation=Annotated[hint, typer.Option(*flag.split(), **about)],
        )


def named_file(text: str) -> Path:
    """Parse a path; pipes and empty names are rejected."""
    if text in ("", "-"):
        what = "is empty" if not text else "- stands for a pipe"
        raise typer.BadParameter(f"the name {what}; use the name of a file or folder")
    return Path(text)


def output(metavar: str, text: str) -> Any:
    """The option -o."""
    return typer.Option("-o", "--out", parser=named_file, metavar=metavar, help=text)


@dataclass(frozen=True, kw_only=True)
class Signing:
    """Signing credentials."""

    certificate: Annotated[
        Path | None, Option("Sign with this PEM certificate chain, not this computer's own.", "FILE")
    ] = None
    key: Annotated[Path | None, Option("The certificate's private key, PEM.", "FILE")] = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InputError("--certificate and --key go together; pass both, or neither to use this computer's own.")

    @property
    def files(self) -> tuple[Path, Path] | None:
        return (self.certificate, self.key) if self.certificate and self.key else None

    @property
    def credentials(self) -> Credentials:
        """Load the credentials, or generate this computer's; called before the work, so that errors occur early."""
        if self.files is None:
            return local_credentials()
        from mimik.provenance.credentials import Credentials

        return Credentials.from_files(*self.files)


def local_credentials() -> Credentials:
    """Credentials of this computer. Raises InputError if they cannot be stored."""
    from mimik.provenance.credentials import Credentials

    return Credentials.local()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Processes that many files are distributed over."""

    workers: Annotated[
        int | None,
        Option(
            "Processes for folders; by the number of cores if omitted.",
            "N",
            range=(0, 1e4),
            hint="processes; 0 works in this process",
        ),
    ] = None
    ray: Annotated[bool, Option("Process folders on a Ray cluster on this machine.")] = False
    ray_address: Annotated[str | None, Option("Process folders on the Ray cluster at this address.", "ADDRESS")] = None

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def address(self) -> str | bool:
        """Argument of workers.mapped."""
        return self.ray_address or self.ray


Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
JsonReport = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write a JSON report of the run.")]
