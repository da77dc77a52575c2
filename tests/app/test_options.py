"""Options of commands from the fields of settings dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from mimik.app.cli.options import OnlyFields, expand_settings, output
from mimik.config import InputError, Option, check_options, options_of, read_size


@dataclass(frozen=True, kw_only=True)
class Settings:
    count: Annotated[int, Option("How many.", "N", range=(1, 9), hint="things")] = 3
    size: Annotated[int | None, Option("How large.", read=read_size, written=str)] = 64
    is_loud: Annotated[bool, Option("Loud.", flag="--loud")] = False
    has_end: Annotated[bool, Option("Ends.")] = True
    kind: Annotated[str | None, Option("Which.", choices=("a", "b"))] = None
    names: Annotated[tuple[str, ...], Option("Who.", flag="--name")] = ()
    hidden: int = 0

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Told:
    photo: Path
    out: Path
    settings: Settings


def run(line: str) -> Told:
    told: list[Told] = []
    app = typer.Typer()

    def command(
        photo: Annotated[Path, typer.Argument()],
        *,
        out: Annotated[Path, output("OUT", "File.")],
        settings: Annotated[Settings, OnlyFields("count size is_loud has_end kind names", count=5)],
    ) -> None:
        told.append(Told(photo, out, settings))

    command.__annotations__ |= {
        "photo": Annotated[Path, typer.Argument()],
        "out": Annotated[Path, output("OUT", "File.")],
        "settings": Annotated[Settings, OnlyFields("count size is_loud has_end kind names", count=5)],
    }
    app.command()(expand_settings(command))
    done = CliRunner().invoke(app, line.split())
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert told, done.output
    return told[0]


def test_a_command_gets_its_settings_from_its_options():
    assert run("p.jpg -o x.mp4") == Told(Path("p.jpg"), Path("x.mp4"), Settings(count=5))
    told = run("p.jpg -o x.mp4 --count 2 --size native --loud --no-has-end --kind b --name ada --name bea")
    expected = Settings(count=2, size=None, is_loud=True, has_end=False, kind="b", names=("ada", "bea"))
    assert told.settings == expected


def test_a_setting_is_checked_by_its_option():
    with pytest.raises(InputError, match=r"--count 10: use an integer from 1 to 9 \(things\)"):
        run("p.jpg -o x.mp4 --count 10")
    with pytest.raises(InputError, match="--kind c: use one of a, b"):
        Settings(kind="c")
    assert options_of(Settings)["has_end"].flag == "--has-end" and "hidden" not in options_of(Settings)
