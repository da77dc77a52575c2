"""The README is correct: its commands run, its links resolve, and docs/help equals the output of `--help`.

As a program (`make help-files`), this file writes docs/help.
"""

from __future__ import annotations

import re
import shlex
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from conftest import Driver, write_clip
from mimik.app.cli import app
from mimik.media import video
from mimik.media.sound import read_sound
from mimik.motion.drivers import motion_file
from mimik.motion.files import Motion
from mimik.motion.kinds import bundled_motions

pytestmark = pytest.mark.usefixtures("the_warp_alone")  # tests of animate and cli draw with the default model

ROOT = Path(__file__).resolve().parents[1]
HELP = ROOT / "docs/help"
WIDTH = 100  # columns

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shown_commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(("python3 -m venv ", "pip install "))]


def command_names() -> Iterator[tuple[str, ...]]:
    """() for the program, then each of its commands."""
    waiting = [((), get_command(app))]
    while waiting:
        name, command = waiting.pop(0)
        yield name
        waiting += [((*name, word), below) for word, below in getattr(command, "commands", {}).items()]


def help_file(name: tuple[str, ...]) -> Path:
    return HELP / f"{'_'.join(('mimik', *name))}.txt"


def help_text(name: tuple[str, ...]) -> str:
    result = CliRunner().invoke(
        app, [*name, "--help"], prog_name="mimik", env={"COLUMNS": str(WIDTH)}, terminal_width=WIDTH
    )
    assert result.exit_code == 0
    return "\n".join(line.rstrip() for line in result.stdout.splitlines()).strip() + "\n"


def words(text: str) -> list[str]:
    """The words of a help text, without types and brackets, which differ between versions of Typer."""
    return re.sub(r"<[\w\[\]]+>|[{}]", " ", text).split()


@pytest.mark.parametrize("name", command_names(), ids=lambda name: " ".join(("mimik", *name)))
def test_help_file_is_current(name: tuple[str, ...]):
    stored = help_file(name).read_text(encoding="utf-8")
    assert words(stored) == words(help_text(name)), "run `make help-files`"
    assert max(map(len, stored.splitlines())) <= WIDTH
    assert "\x1b" not in stored


def test_no_help_file_of_a_command_that_is_gone():
    assert set(HELP.iterdir()) == {help_file(name) for name in command_names()}


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    small_path: Path,
    driver: Driver,
    driver_with_sound: Path,
    one_landmarker: None,
) -> Iterator[Path]:
    """A folder with the files that the README speaks of; its commands run there one after the other."""
    folder = tmp_path_factory.mktemp("readme")
    video.write_image(folder / "photo.jpg", video.read_image(small_path))
    (folder / "photos").mkdir()
    shutil.copy(folder / "photo.jpg", folder / "photos/someone.jpg")
    write_clip(folder / "driver.mp4", driver.frames[::4], 6.25, quality=18, audio_from=driver_with_sound)
    speech = next(read_sound(ROOT / "tests/fixtures/espeak_speech.ogg", block_s=0.8))
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((speech * 32767).astype("<i2").tobytes())
    smile = tmp_path_factory.mktemp("motions") / "smile.motion"
    Motion.load(bundled_motions()["smile"]).at_rate(4).save(smile)  # 1/5 of its frames
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(motion_file, "bundled_motions", lambda: {"smile": smile})
        yield folder


def test_readme_shows_commands():
    assert len(shown_commands()) >= 3
    assert all(line.startswith("mimik ") for line in shown_commands())


@pytest.mark.parametrize("line", shown_commands())
@pytest.mark.slow
def test_shown_command_runs(place: Path, line: str):
    arguments = shlex.split(line, comments=True)[1:]
    result = CliRunner().invoke(app, arguments, prog_name="mimik")
    assert result.exit_code == 0, result.stderr
    if "-o" in arguments:
        out = place / arguments[arguments.index("-o") + 1]
        assert list(out.iterdir()) if out.is_dir() else out.stat().st_size


@pytest.mark.slow
def test_shown_python_runs(place: Path):
    for block in blocks("python"):
        exec(compile(block.replace("size=512", "size=128"), "README.md", "exec"), {})
    assert (place / "from_python.mp4").stat().st_size


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


if __name__ == "__main__":
    HELP.mkdir(parents=True, exist_ok=True)
    for old in HELP.iterdir():
        old.unlink()
    for command_name in command_names():
        help_file(command_name).write_text(help_text(command_name), encoding="utf-8")
        print(help_file(command_name).relative_to(ROOT))
