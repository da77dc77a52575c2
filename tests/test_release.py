"""A release: sdist and wheel contain all required files, run outside of the checkout, and report their version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from pathlib import Path

import pytest

from mimik.config import PUBLISHED_AS, VERSION, install_command

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_changelog_has_this_version() -> None:
    titles = re.findall(r"^## \[(.+?)\](?: - (.*))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == ("Unreleased", "")
    assert titles[1][0] == VERSION and re.fullmatch(r"\d{4}-\d\d-\d\d", titles[1][1])


def test_messages_name_extras_that_exist_and_no_package_of_others() -> None:
    assert PUBLISHED_AS is None and install_command("train") == "pip install '.[train]' (in a checkout of mimik)"
    used = set()
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "pip install 'mimik" not in text, path
        used |= set(re.findall(r"install_command\(['\"](\w+)['\"]\)", text))
    assert len(used) > 5 and used <= set(PROJECT["optional-dependencies"])


def test_the_image_copies_what_the_package_is_built_from() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists() and f"!{name}" in ignored
    assert {"pyproject.toml", PROJECT["readme"], "src", *PROJECT["license-files"]} == set(copied)


def test_make_demo_uses_what_is_installed(tmp_path: Path) -> None:
    """A .venv with mimik is left unchanged; without mimik it is installed."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    tools, log = tmp_path / ".venv" / "bin", tmp_path / "log"
    tools.mkdir(parents=True)
    for name in ("pip", "python", "mimik"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{log}"\n')
        (tools / name).chmod(0o755)
    subprocess.run(["make", "demo"], cwd=tmp_path, check=True, capture_output=True)
    assert log.read_text().splitlines() == ["mimik demo -o demo.mp4 --force"]
    (tools / "mimik").unlink()
    done = subprocess.run(["make", "demo"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode != 0  # the pip of this test installs nothing
    assert "python -m pip --disable-pip-version-check install -e ." in log.read_text()


def copied(folder: Path) -> Path:
    """The files from which a release is built."""
    tree = folder / "tree"
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "MODEL_CARD.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tree / name)
    return tree


def built(what: str, tree: Path, folder: Path) -> Path:
    """The sdist or the wheel, built offline."""
    folder.mkdir(exist_ok=True)
    code = f"from setuptools.build_meta import build_{what} as build; print(build({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=True)
    return folder / done.stdout.split()[-1]


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_package_and_run(tmp_path: Path) -> None:
    wanted = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "mimik").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    tree = copied(tmp_path)
    with tarfile.open(built("sdist", tree, tmp_path)) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert {"CHANGELOG.md", "MODEL_CARD.md", "LICENSE"} <= {path.name for path in unpacked.iterdir()}
    wheels = [built("wheel", tree, tmp_path / "of tree"), built("wheel", unpacked, tmp_path / "of sdist")]
    for wheel in wheels:
        assert wheel.name == f"mimik-{VERSION}-py3-none-any.whl"
        with zipfile.ZipFile(wheel) as packed:
            assert wanted - set(packed.namelist()) == set()
    wheel = wheels[1]
    place = tmp_path / "place"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(place), str(wheel)], check=True)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place), "MIMIK_DATA": str(tmp_path / "data")}
    run = [sys.executable, "-m", "mimik"]
    said = subprocess.run([*run, "--version"], env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout == f"mimik {VERSION}\n"
    where = subprocess.run(
        [sys.executable, "-c", "import mimik; print(mimik.__file__)"],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(place))
    photo = place / "mimik/assets/portraits/eileen_collins.png"
    made = [*run, "edit", str(photo), "--smile", "0.5", "-o", "out.png", "--size", "128", "--model", "geometry"]
    subprocess.run(made, env=env, cwd=tmp_path, check=True, timeout=120)
    subprocess.run([*run, "verify", "out.png"], env=env, cwd=tmp_path, check=True, timeout=120)


@pytest.mark.slow
def test_the_web_app_starts_as_in_its_image(tmp_path: Path) -> None:
    """Without a display and with only the Dockerfile's environment; it writes only to its two folders."""
    pytest.importorskip("gradio")
    data, scratch, work = (tmp_path / name for name in ("data", "tmp", "work"))
    for folder in (data, scratch, work):
        folder.mkdir()
    work.chmod(0o555)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "MIMIK_DATA": str(data), "TMPDIR": str(scratch)}
    env |= {"HOME": str(scratch), "MIMIK_PASSWORD": "secret", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "mimik", "web", "--host", "0.0.0.0", "--port", "0", "--no-open"]
    program = subprocess.Popen(command, env=env, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert program.stdout is not None
        said = ""
        begun_s = time.monotonic()
        while "The app: http" not in said and time.monotonic() - begun_s < 120:
            line = program.stdout.readline()
            assert line, said
            said += line
        program.terminate()
        assert program.wait(30) in (0, 143)
    finally:
        program.kill()
    assert not list(work.iterdir())
