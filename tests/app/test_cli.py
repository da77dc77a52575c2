"""The command line: working commands, and the message for every kind of invalid input."""

from __future__ import annotations

import functools
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from conftest import write_clip
from made_files import write_sound
from mimik import __version__
from mimik.animation import avatar as avatar_module
from mimik.app.cli import app, console, progress
from mimik.config import InputError
from mimik.face import landmarks
from mimik.files import asset
from mimik.inference.synthesis import DEFAULT_MODEL
from mimik.media import video
from mimik.motion import motion_sheet
from mimik.motion.files import Motion
from mimik.motion.kinds import bundled_motions
from mimik.provenance.verifying import verify
from mimik.rendering.scene import matte

pytestmark = pytest.mark.usefixtures("the_warp_alone")

PORTRAIT = asset("portraits/eileen_collins.png")
SIDE_PX = 256
NUM_FRAMES = 8
PROGRAM = [sys.executable, "-c", "from mimik.app.cli import main; main()"]


def mimik(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="mimik")


def png(width: int, height: int, bits: int) -> bytes:
    """A black PNG, made without holding its pixels in memory."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width * bits + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def write_no_frames(path: Path) -> None:
    """A video track without packets; one sound packet makes the file complete."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        container.start_encoding()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all valid and invalid inputs of these tests."""
    folder = tmp_path_factory.mktemp("shelf")
    person = cv2.resize(video.read_image(PORTRAIT), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    video.write_image(folder / "person.png", person)
    write_clip(folder / "driver.mp4", [np.roll(person, (i, i // 2), (0, 1)) for i in range(NUM_FRAMES)])
    gray = np.full((SIDE_PX, SIDE_PX, 3), 128, np.uint8)
    video.write_image(folder / "wall.png", gray)
    write_clip(folder / "wall.mp4", [gray] * NUM_FRAMES)
    far = np.full((480, 640, 3), 128, np.uint8)
    far[200:290, 250:340] = cv2.resize(person, (90, 90), interpolation=cv2.INTER_AREA)
    video.write_image(folder / "far.png", far)
    video.write_image(folder / "person.jpg", person)
    intact = (folder / "person.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(intact[: len(intact) // 2])
    (folder / "noise.jpg").write_bytes(intact[:20] + bytes(range(256)) * 8)
    (folder / "text.jpg").write_text("Dear reader, this is no picture.\n" * 20)
    (folder / "empty.png").touch()
    (folder / "huge.png").write_bytes(png(20_000, 10_000, 1))
    film = (folder / "driver.mp4").read_bytes()
    (folder / "noise.mp4").write_bytes(film[:40] + np.random.default_rng(0).bytes(4000))
    (folder / "cut.mp4").write_bytes(film[: len(film) // 3])
    write_sound(folder / "sound.m4a", np.zeros((1, 16000)), 16000, codec="aac")
    write_no_frames(folder / "no_frames.mkv")
    motion = bundled_motions()["smile"].read_bytes()
    (folder / "cut.motion").write_bytes(motion[: len(motion) // 2])
    (folder / "text.motion").write_text("smile")
    (folder / "junk.pem").write_text("-----BEGIN NOTHING-----")
    (folder / "no_photos").mkdir()
    return folder


@pytest.fixture(scope="module", autouse=True)
def hurried(one_landmarker: None) -> Iterator[None]:
    """Suppresses early progress lines among the messages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "_FIRST_LINE_S", 3600.0)
        patch.setattr(progress, "_LINE_EVERY_S", 3600.0)
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def contents(*folders: Path) -> dict[Path, bytes | None]:
    """Every file and folder, including hidden ones, with its content."""
    found = (path for folder in folders for path in folder.rglob("*"))
    return {path: path.read_bytes() if path.is_file() else None for path in found}


@pytest.fixture
def refuse(shelf: Path, here: Path) -> Callable[..., str]:
    """Runs the program, expects a refusal that leaves every file unchanged, and returns the message."""

    def run(*arguments: object) -> str:
        before = contents(shelf, here)
        result = mimik(*arguments)
        assert result.exit_code == 2, (result.stdout, result.stderr, result.exception)
        assert not result.stdout
        assert result.stderr.startswith("mimik: ") and result.stderr.endswith((".\n", ").\n"))
        assert result.stderr.count("\n") == 1, result.stderr
        assert "Traceback" not in result.stderr
        after = contents(shelf, here)
        assert after.keys() == before.keys()
        assert after == before
        return result.stderr

    return run


# Invalid input.


@pytest.mark.parametrize(
    ("photo", "words"),
    [
        ("wall.png", ["no face found in wall.png (256x256)", "40 px wide"]),
        ("far.png", ["far.png", "40 px wide"]),
        ("cut.jpg", ["cut.jpg", "damaged or incomplete", "use an intact"]),
        ("noise.jpg", ["noise.jpg", "use"]),
        ("text.jpg", ["text.jpg is a text file; use a picture"]),
        ("empty.png", ["empty.png is empty (0 bytes)"]),
        ("huge.png", ["huge.png has more than 100 megapixels", "use a smaller picture"]),
        ("sound.m4a", ["sound.m4a: is a recording of sound, and the first argument is the person"]),
        ("wall.mp4", ["no face found in the first seconds of wall.mp4"]),
        ("nobody.png", ["nobody.png does not exist"]),
        ("no_photos", ["no_photos contains no photos", ".jpg"]),
    ],
)
def test_photo_refused(refuse, shelf: Path, photo: str, words: list[str]):
    message = refuse("animate", shelf / photo, "smile", "-o", "out" if photo == "no_photos" else "out.mp4")
    assert all(word in message for word in words), message


def test_huge_photo_is_refused_at_once(refuse, shelf: Path):
    start = time.process_time()
    refuse("faces", shelf / "huge.png")
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        ("wall.mp4", ["driver wall.mp4: no face was found in any of its frames", "use a video"]),
        ("wall.png", ["no face found in wall.png"]),
        ("noise.mp4", ["noise.mp4", "use"]),
        ("no_frames.mkv", ["no_frames.mkv", "use"]),
        ("text.jpg", ["text.jpg", "use"]),
        ("no_photos", ["no_photos: is a folder without drivers"]),
        ("cut.motion", ["cut.motion is not a readable motion file", "smile"]),
        ("text.motion", ["text.motion is not a readable motion file"]),
        ("nobody.mp4", ["nobody.mp4: no such file", "smile"]),
    ],
)
def test_driver_refused(refuse, shelf: Path, driver: str, words: list[str]):
    message = refuse("animate", shelf / "person.png", shelf / driver, "-o", "out.mp4")
    assert all(word in message for word in words), message


def test_unknown_bundled_motion_names_those_that_exist(refuse, shelf: Path):
    message = refuse("animate", shelf / "person.png", "dance", "-o", "out.mp4")
    assert "driver dance" in message and ", ".join(bundled_motions()) in message


def test_a_video_that_was_cut_off_works_or_is_refused(shelf: Path, here: Path):
    result = mimik("animate", shelf / "person.png", shelf / "cut.mp4", "-o", "out.mp4", "--size", 64)
    if result.exit_code == 0:
        assert verify(Path("out.mp4")).exit_code == 0
        assert video.probe("out.mp4").num_frames
    else:
        assert result.exit_code == 2 and "cut.mp4" in result.stderr
        assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "magic"], ["--model magic", "geometry"]),
        (["--motion", "sideways"], ["--motion sideways", "relative, absolute"]),
        (["--regions", "lips,nose"], ["--regions lips,nose: no such region: 'nose'", "pose, lips"]),
        (["--regions", ""], ["--regions '': no region given"]),
        (["--frame", "round"], ["--frame round", "full, crop"]),
        (["--strength", "-1"], ["--strength -1", "from 0 to 3"]),
        (["--strength", "nan"], ["--strength nan", "from 0 to 3"]),
        (["--strength", "1e9"], ["--strength", "from 0 to 3"]),
        (["--strength", "strong"], ["'--strength': 'strong' is not a number"]),
        (["--smooth", "-0.1"], ["--smooth -0.1", "from 0 to 1"]),
        (["--smooth", "inf"], ["--smooth inf", "from 0 to 1"]),
        (["--size", "63"], ["--size 63", "from 64 to 4096"]),
        (["--size", "-512"], ["--size -512", "from 64 to 4096"]),
        (["--size", "99999"], ["--size 99999", "from 64 to 4096"]),
        (["--size", "nan"], ["--size", "'nan'", "native"]),
        (["--size", "512x512"], ["--size", "'512x512'", "native"]),
        (["--face", "0"], ["--face 0", "mimik faces"]),
        (["--face", "5"], ["face 5 of person.png", "there is 1 face"]),
        (["--face", "9" * 400], ["--face", "too large"]),
        (["--driver-face", "-1"], ["--driver-face -1", "from 1 to 99"]),
        (["--fps", "0"], ["--fps 0", "from 1 to 120"]),
        (["--fps", "nan"], ["--fps nan", "from 1 to 120"]),
        (["--fps", "100000"], ["--fps 100000", "from 1 to 120"]),
        (["--quality", "-1"], ["--quality -1", "from 0 to 51"]),
        (["--quality", "52"], ["--quality 52", "from 0 to 51"]),
        (["--quality", "18.5"], ["'--quality': '18.5' is not an integer"]),
        (
            ["--background", "beech.png"],
            ["--background beech.png: no such file", "the path of a picture, a color such as white"],
        ),
        (["--background", "blau"], ["--background blau: is not a color"]),
        (["--background", "."], ["--background .: is a folder"]),
        (["--background", "none"], ["-o out.mp4: cannot be transparent", "use a .webm or .mov"]),
        (["--consent", " "], ["--consent of 1 character;", "one line of 1 to 500"]),
        (["--consent", "two\nlines"], ["--consent of 9 characters;", "one line"]),
        (["--certificate", "some.pem"], ["--certificate and --key go together"]),
        (["--key", "some.pem"], ["--certificate and --key go together"]),
        (["--certificate", "gone.pem", "--key", "gone.pem"], ["gone.pem", "No such file"]),
        (["--json", "nowhere/report.json"], ["--json nowhere/report.json", "does not exist; create it first"]),
        (["--json", "out.mp4"], ["--json out.mp4: is another file of this run"]),
        (["--json", "."], ["--json .: is a folder"]),
        (["--json", "there.json"], ["--json there.json: already exists", "--force"]),
        (["--color"], ["no such option: --color", "mimik animate --help"]),
    ],
    ids=lambda value: "=".join(value)[:30] if value and value[0].startswith("--") else "",
)
def test_option_refused(refuse, shelf: Path, here: Path, options: list[str], words: list[str]):
    (here / "there.json").write_text("{}")
    message = refuse("animate", shelf / "person.png", "smile", "-o", "out.mp4", *options)
    assert all(word in message for word in words), message


def test_unreadable_certificate_is_refused(refuse, shelf: Path):
    pem = shelf / "junk.pem"
    message = refuse("animate", shelf / "person.png", "smile", "-o", "out.mp4", "--certificate", pem, "--key", pem)
    assert f"--certificate {pem}" in message and "PEM" in message


@pytest.mark.parametrize(
    "command",
    [
        ["animate", "{shelf}/person.png", "smile", "-o", "out.mp4"],
        ["animate", "{shelf}/person.png", "{shelf}/driver.mp4", "-o", "out.mp4", "--all-faces"],
        ["animate", "{shelf}/photos", "smile", "-o", "out"],
        ["edit", "{shelf}/person.png", "--smile", "0.5", "-o", "out.png"],
        ["faces", "{shelf}/person.png", "-o", "out.png"],
        ["motion", "show", "smile", "-o", "out.png"],
        ["demo", "-o", "out.mp4"],
        ["web", "--no-open"],
    ],
    ids=lambda command: " ".join(command[:2])[:14],
)
def test_a_data_folder_that_cannot_be_written_is_reported_before_the_work(
    refuse, shelf: Path, here: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
):
    (shelf / "photos").mkdir(exist_ok=True)
    (shelf / "photos/person.png").write_bytes((shelf / "person.png").read_bytes())
    monkeypatch.setenv("MIMIK_DATA", str(shelf / "person.png" / "data"))

    def worked(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    for where, name in (
        (avatar_module.Avatar, "from_photos"),
        (landmarks, "Landmarker"),
        (motion_sheet, "motion_sheet"),
    ):
        monkeypatch.setattr(where, name, worked)
    if command[0] in ("animate", "demo"):  # networks load in separate threads while the key is searched
        monkeypatch.setattr(landmarks, "Landmarker", lambda: None)
        monkeypatch.setattr(matte, "segmenter", lambda: None)
    monkeypatch.setattr(avatar_module, "_animatable_people", worked)
    message = refuse(*(one.format(shelf=shelf) for one in command))
    assert "the signing key cannot be written there (Not a directory); set MIMIK_DATA to a folder" in message


@pytest.mark.parametrize(
    ("photo", "said"),
    [
        ("smile", "smile: is the name of a driver, and the first argument is the person; use a photo"),
        ("{shelf}/moves.motion", "is a file of motion, and the first argument"),
        ("{shelf}/sound.m4a", "is a recording of sound, and the first argument"),
        ("{shelf}/notes.txt", "is a text, and the first argument"),
    ],
)
@pytest.mark.parametrize("command", [["animate", None, "smile", "-o", "out.mp4"], ["faces", None], ["live", None]])
def test_a_driver_in_place_of_the_person(refuse, shelf: Path, command: list[str | None], photo: str, said: str):
    (shelf / "notes.txt").write_text("Say this.")
    (shelf / "moves.motion").write_bytes(bundled_motions()["smile"].read_bytes())
    given = photo.format(shelf=shelf)
    assert said in refuse(*(one or given for one in command))
    with pytest.raises(InputError, match="the first argument is the person"):
        avatar_module.Avatar.from_photos(given)


def test_an_edit_without_a_change_is_refused(refuse, shelf: Path):
    message = refuse("edit", shelf / "person.png", "-o", "out.png", "--size", 64)
    assert "no change was requested; pass at least one of --smile, --mouth" in message


def test_the_second_face_of_a_driver_that_has_one(refuse, shelf: Path):
    message = refuse("animate", shelf / "person.png", shelf / "driver.mp4", "-o", "out.mp4", "--driver-face", 2)
    assert "--driver-face 2: driver driver.mp4 shows fewer faces" in message


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("out.avi", [".avi", "use .mp4"]),
        ("out.txt", [".txt", "use .mp4"]),
        ("out.png", ["-o out.png", "use an .mp4"]),
        ("nowhere/out.mp4", ["-o nowhere/out.mp4", "nowhere does not exist", "create it first"]),
        ("nowhere/frames/%05d.png", ["does not exist"]),
        ("frames_%s.png", ["frames/%05d.webp"]),
        ("there.mp4", ["-o there.mp4: already exists", "--force"]),
        ("folder.mp4", ["-o folder.mp4: is a folder"]),
        ("full", ["full is not empty", "--force"]),
    ],
)
def test_output_refused(refuse, shelf: Path, here: Path, out: str, words: list[str]):
    (here / "there.mp4").write_text("precious")
    (here / "folder.mp4").mkdir()
    (here / "full").mkdir()
    (here / "full/letter.txt").write_text("precious")
    message = refuse("animate", shelf / "person.png", shelf / "driver.mp4", "-o", out)
    assert all(word in message for word in words), message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_output_in_a_folder_that_cannot_be_written_to(refuse, shelf: Path, here: Path):
    (here / "locked").mkdir(mode=0o500)
    message = refuse("animate", shelf / "person.png", "smile", "-o", "locked/out.mp4")
    assert "locked is not writable" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["animate", "{person}", "smile", "-o", "/proc/x.mp4"], "-o /proc/x.mp4: the folder /proc is not writable"),
        (["animate", "{person}", "smile", "-o", "/proc/frames"], "-o /proc/frames: the folder /proc is not writable"),
        (["animate", "{shelf}", "smile", "-o", "/proc/all/these"], "-o /proc/all/these: /proc is not writable"),
        (["edit", "{person}", "--smile", "1", "-o", "/proc/x.png"], "-o /proc/x.png: the folder /proc is not writable"),
        (["faces", "{person}", "-o", "/proc/x.png"], "-o /proc/x.png: the folder /proc is not writable"),
        (["motion", "extract", "{shelf}/driver.mp4", "-o", "/proc/x.motion"], "-o /proc/x.motion: the folder /proc"),
        (
            ["evaluate", "--data", "{shelf}", "--models", "geometry", "-o", "/proc/r"],
            "-o /proc/r: /proc is not writable",
        ),
        (["train", "--data", "{shelf}", "--out", "/proc/a/run"], "--out /proc/a/run: /proc is not writable"),
        (["prepare", "{shelf}", "-o", "/proc/shards"], "-o /proc/shards: /proc is not writable"),
        (["export", "texture", "-o", "/proc/phone"], "-o /proc/phone: the folder /proc is not writable"),
        (["export", "none.avatar", "-o", "phone"], "none.avatar: no such file"),
        (["live", "{person}", "--model", "none.safetensors"], "none.safetensors: no such file"),
        (["web", "--model", "none.safetensors"], "none.safetensors: no such file"),
        (["edit", "{person}", "--smile", "1", "-o", "x.png", "--model", "{junk}"], "damaged or not a model"),
        (["animate", "{person}", "smile", "-o", "x.mp4", "--model", "{junk}"], "damaged or not a model"),
        (["animate", "{person}", "smile", "-o", "x.mp4", "--background", "none"], "x.mp4: cannot be transparent"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_errors_precede_loading_networks(
    refuse, shelf: Path, here: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
):
    """Also failures that access rights do not show: root may write to /proc, but cannot."""
    monkeypatch.setattr("openvino.Core.compile_model", None)
    (here / "junk.safetensors").write_bytes(b"no model")
    places = {"shelf": shelf, "person": shelf / "person.png", "junk": here / "junk.safetensors"}
    assert words in refuse(*(argument.format(**places) for argument in arguments))


@pytest.mark.parametrize("option", [[], ["--force"]])
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("which", ["photo", "driver"])
def test_an_input_is_never_replaced(refuse, shelf: Path, here: Path, which: str, linked: bool, option: list[str]):
    (here / "face.mp4").write_bytes((shelf / "driver.mp4").read_bytes())
    out = here / "face.mp4"
    if linked:
        out = here / "link.mp4"
        out.symlink_to("face.mp4")
    photo, driver = (shelf / "person.png", here / "face.mp4") if which == "driver" else (here / "face.mp4", "smile")
    assert "would be replaced" in refuse("animate", photo, driver, "-o", out, *option)


@pytest.mark.parametrize("name", ["driver.mp4", "person.png"])
def test_a_report_never_replaces_an_input(refuse, shelf: Path, name: str):
    message = refuse(
        "animate", shelf / "person.png", shelf / "driver.mp4", "-o", "out.mp4", "--json", shelf / name, "--force"
    )
    assert "is another file of this run" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["animate"], ["missing argument 'PHOTO'", "mimik animate photo.jpg driver.mp4 -o out.mp4"]),
        (["animate", "a.png"], ["missing option '-o'"]),
        (["animate", "a.png", "-o", "b.mp4"], ["DRIVER is missing; pass"]),
        (["animate", "a.png", "b.mp4"], ["missing option '-o'", "mimik animate photo.jpg driver.mp4 -o out.mp4"]),
        (["anmate"], ["no such command 'anmate'", "did you mean 'animate'?"]),
        (["motion", "dance"], ["no such command 'dance'", "mimik motion list"]),
        (["faces", "nobody.png"], ["nobody.png does not exist"]),
        (["faces", "{shelf}/driver.mp4"], ["driver.mp4 is a video; use a picture"]),
        (["faces", "{shelf}/wall.png"], ["no face found"]),
        (["faces", "{shelf}/person.png", "-o", "out.mp4"], ["-o out.mp4", ".png"]),
        (["motion", "extract", "{shelf}/driver.mp4", "-o", "out.txt"], ["-o out.txt", ".motion"]),
        (["motion", "extract", "{shelf}/driver.mp4", "-o", "nowhere/a.motion"], ["the folder nowhere does not exist"]),
        (["motion", "extract", "{shelf}/person.png", "-o", "a.motion"], ["is a photo", "from a video"]),
        (["motion", "extract", "{shelf}/wall.mp4", "-o", "a.motion"], ["no face was found (8 frames)"]),
        (["animate", "{shelf}", "talk", "-o", "out", "--workers", "-1"], ["--workers -1: use an integer from 0"]),
        (["motion", "extract", "{shelf}/driver.mp4", "-o", "a.motion", "--face", "0"], ["--face 0"]),
        (["motion", "extract", "{shelf}/driver.mp4", "-o", "a.motion", "--fps", "-5"], ["--fps -5"]),
        (["motion", "show", "dance"], ["dance: no such motion", "smile"]),
        (["motion", "show", "{shelf}/cut.motion"], ["not a readable motion file"]),
        (["motion", "show", "smile", "-o", "smile.mp4"], ["-o smile.mp4", ".png"]),
        (["verify", "nobody.mp4"], ["nobody.mp4", "does not exist"]),
        (["verify", "{shelf}/text.jpg"], ["text.jpg", "use"]),
        (["verify", "{shelf}/person.png", "--anchor", "{shelf}/junk.pem"], ["--anchor", "PEM"]),
        (["web", "--port", "99999"], ["--port 99999: use an integer from 0 to 65535 (0: any free port)"]),
        (["live", "{shelf}/person.png", "--port", "-1"], ["--port -1: use an integer from 0 to 65535"]),
        (["animate", "{shelf}/text.jpg", "smile", "-o", "a.mp4"], ["text.jpg is a text file"]),
        (["animate", "{shelf}/person.png", "{shelf}/text.jpg", "-o", "a.mp4"], ["text.jpg is a text file"]),
        (["animate", "{shelf}/person.png", "smile", "-o", "-"], ["'-o' / '--out': the name - stands for a pipe"]),
        (["animate", "{shelf}/person.png", "", "-o", "a.mp4"], ["the driver's name is empty"]),
        (["animate", "{shelf}/person.png", "smile", "-o", ""], ["'-o' / '--out': the name is empty"]),
        (["animate", "https://example.org/a.jpg", "smile", "-o", "a.mp4"], ["a.jpg is a web address"]),
        (["animate", "{shelf}/person.png", "http://x.org/a.mp4", "-o", "a.mp4"], ["is a web address"]),
        (["demo", "--driver", "dance"], ["driver dance", "smile"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_command_line_refused(refuse, shelf: Path, arguments: list[str], words: list[str]):
    message = refuse(*(argument.format(shelf=shelf) for argument in arguments))
    assert all(word in message for word in words), message


def test_a_file_whose_name_looks_like_an_option(refuse, here: Path):
    (here / "-a.png").write_bytes(b"x")
    assert "-a.png: looks like an option; pass the file as ./-a.png" in refuse("faces", "-a.png")


def test_the_demo_does_not_replace_a_file_unasked(refuse, here: Path):
    (here / "demo.mp4").write_text("precious")
    assert "already exists; pass --force" in refuse("demo")


def test_a_motion_file_does_not_choose_where_its_picture_goes(shelf: Path, here: Path):
    loaded = Motion.load(bundled_motions()["nod"])
    bad = Motion(**{**vars(loaded), "name": "../elsewhere"})
    bad.save(here / "bad.motion")
    result = mimik("motion", "show", "bad.motion")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in here.iterdir()) == ["bad.motion", "bad.png"]
    assert not (here.parent / "elsewhere.png").exists()


# Valid commands.


@pytest.fixture(scope="module")
def made(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video from a photo and a driving video with the default model, with its report."""
    out = tmp_path_factory.mktemp("made") / "out.mp4"
    options = ["-o", out, "--json", out.with_suffix(".json")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(avatar_module, "DEFAULT_MODEL", DEFAULT_MODEL)
        result = mimik("animate", shelf / "person.png", shelf / "driver.mp4", *options)
    assert result.exit_code == 0, result.stderr
    assert f"{out}: {NUM_FRAMES} frames of 256x256 at 25/s" in result.stdout
    assert f"mimik verify {out}" in result.stdout
    # The driver is too short to contain still, touching lips.
    assert [line for line in result.stderr.splitlines() if not line.startswith("note: the driver's ")] == []
    return out


def test_the_report_describes_the_file(made: Path):
    report = json.loads(made.with_suffix(".json").read_text())
    info = video.probe(made)
    assert (report["width"], report["height"], report["fps"]) == (info.width, info.height, info.fps)
    assert report["num_frames"] == len(list(video.read_frames(made))) == NUM_FRAMES
    assert report["has_audio"] is info.has_audio is False
    assert report["out"] == str(made) and report["driver"] == "driver.mp4" and report["model"] == DEFAULT_MODEL
    assert report["seconds"] > 0 and report["peak_memory_mb"] > 0 and report["num_lost"] == 0
    assert all(note.startswith("the driver's ") for note in report["notes"])


def test_nothing_else_is_left_behind(made: Path):
    assert sorted(path.name for path in made.parent.iterdir()) == ["out.json", "out.mp4"]


def test_verify_knows_its_own(made: Path):
    result = mimik("verify", made)
    assert result.exit_code == 0
    assert "made by mimik" in result.stdout and "synthetic" in result.stdout


def test_verify_as_json(made: Path):
    result = mimik("verify", made, "--json")
    verdict = json.loads(result.stdout)
    assert verdict["generator"] == "mimik" and verdict["exit_code"] == result.exit_code == 0
    assert [source["name"] for source in verdict["sources"]] == ["person.png", "driver.mp4"]


def test_verify_notices_one_changed_byte(made: Path, here: Path):
    content = bytearray(made.read_bytes())
    middle = content.index(b"mdat") + 400
    content[middle] ^= 1
    (here / "changed.mp4").write_bytes(content)
    result = mimik("verify", "changed.mp4")
    assert result.exit_code == 1
    assert "changed" in result.stdout


def test_verify_knows_a_converted_file_by_its_mark(made: Path, here: Path):
    write_clip(here / "converted.mp4", video.read_frames(made))
    result = mimik("verify", "converted.mp4")
    assert result.exit_code == 5
    assert "made by mimik" in result.stdout and "Content Credentials were removed" in result.stdout


def test_verify_finds_nothing_in_a_strangers_file(here: Path):
    video.write_image(here / "wall.png", np.full((64, 64, 3), 90, np.uint8))
    result = mimik("verify", "wall.png")
    assert result.exit_code == 3
    assert "proves nothing" in result.stdout


@pytest.mark.slow
def test_verify_of_a_folder(made: Path, here: Path):
    (here / "inbox/older").mkdir(parents=True)
    (here / "inbox/out.mp4").write_bytes(made.read_bytes())
    assert mimik("verify", "inbox").exit_code == 0
    write_clip(here / "inbox/older/converted.mp4", video.read_frames(made))
    video.write_image(here / "inbox/wall.png", np.full((64, 64, 3), 90, np.uint8))
    (here / "inbox/notes.txt").write_text("not looked at")
    (here / "inbox/.hidden.png").write_text("neither")
    result = mimik("verify", "inbox")
    assert result.exit_code == 5  # counts more than 3
    assert result.stdout.count("proves nothing") == 1 and "1 file: nothing found (wall.png)" in result.stdout
    assert result.stdout.splitlines()[-1] == (
        "3 files: 1 made by mimik; 1 made by mimik, stripped of its manifest; 1 nothing found."
    )
    for number in range(12):
        video.write_image(here / f"inbox/wall{number:02}.png", np.full((16, 16, 3), 90, np.uint8))
    text = mimik("verify", "inbox").stdout
    assert (
        "13 files: nothing found (wall.png, wall00.png, wall01.png, wall02.png, wall03.png, wall04.png, .. and 7 "
        in text
    )
    assert text.count("proves nothing") == 1 and len(text.splitlines()) == 7
    for number in range(12):
        (here / f"inbox/wall{number:02}.png").unlink()
    (here / "inbox/text.jpg").write_text("no picture")
    result = mimik("verify", "inbox", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == report["exit_code"] == 2
    codes = {Path(record["file"]).name: record["exit_code"] for record in report["files"]}
    assert codes == {"converted.mp4": 5, "out.mp4": 0, "text.jpg": 2, "wall.png": 3}
    assert report["counts"]["nothing found"] == 1


def test_verify_of_a_folder_without_pictures(refuse, shelf: Path):
    assert "contains no pictures or videos" in refuse("verify", shelf / "no_photos")


@pytest.mark.slow
def test_label_and_consent(shelf: Path, here: Path):
    options = ["--label", "--consent", "It is me.", "--fps", 2]
    result = mimik("animate", shelf / "person.png", "nod", "-o", "out.mp4", *options)
    assert result.exit_code == 0, result.stderr
    assert 'Unverified statement of its maker: "It is me."' in mimik("verify", "out.mp4").stdout
    verdict = json.loads(mimik("verify", "out.mp4", "--json").stdout)
    assert (verdict["label"], verdict["consent"], verdict["mark"]["model"]) == (True, "It is me.", "geometry")
    corner = next(video.read_frames(here / "out.mp4"))[-24:, -32:].astype(int)
    assert corner.max() > 220 and corner.min() < 90


@pytest.mark.parametrize(
    "name",
    [
        "out.mp4",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("frames", "out.gif", "out.webp", "frames/%03d.jpg")),
    ],
)
def test_bundled_motion_to(shelf: Path, here: Path, name: str):
    if "/" in name:
        (here / name).parent.mkdir()
    result = mimik("animate", shelf / "person.png", "nod", "-o", name, "--fps", 3, "--size", 96)
    assert result.exit_code == 0, result.stderr
    if name.startswith("frames"):
        pictures = sorted((here / "frames").iterdir())
        assert len(pictures) > 4
        assert video.read_image(pictures[-1]).shape == (96, 96, 3)
        checked = pictures[-1]
    else:
        frames = list(video.read_frames(name))
        assert len(frames) > 4 and frames[0].shape == (96, 96, 3)
        checked = Path(name)
    assert not [path for path in here.iterdir() if path.name.startswith(".")]
    assert mimik("verify", checked).exit_code == 0
    shown = result.stdout.split("Signed: mimik ")[1].split()
    assert mimik(*shown).exit_code == 0


def test_photo_as_driver_makes_a_picture(shelf: Path, here: Path):
    result = mimik("animate", shelf / "person.png", shelf / "person.jpg", "-o", "out.png")
    assert result.exit_code == 0, result.stderr
    assert video.read_image("out.png").shape == (SIDE_PX, SIDE_PX, 3)
    assert "out.png: 256x256, in " in result.stdout


def test_force_replaces_the_output(shelf: Path, here: Path):
    (here / "out.png").write_text("old")
    (here / "out.json").write_text("old")
    arguments = ["animate", shelf / "person.png", shelf / "person.jpg", "-o", "out.png", "--json", "out.json"]
    result = mimik(*arguments, "--force")
    assert result.exit_code == 0, result.stderr
    assert video.kind("out.png") == "image" and json.loads((here / "out.json").read_text())["num_frames"] == 1


def test_names_with_spaces_and_marks(shelf: Path, here: Path):
    """Brackets are Rich's markup and colons its emoji; spaces must be quoted in displayed commands."""
    photo = here / "[bold]me :smile: 1.png"
    photo.write_bytes((shelf / "person.png").read_bytes())
    out = "a [red]b :cat:.png"
    result = mimik("animate", photo, shelf / "person.jpg", "-o", out)
    assert result.exit_code == 0, result.stderr
    assert f"{out}: 256x256" in result.stdout and f"mimik verify '{out}'" in result.stdout


def test_motion_of_a_video_drives_a_photo(shelf: Path, here: Path):
    result = mimik("motion", "extract", shelf / "driver.mp4", "-o", "my.motion")
    assert result.exit_code == 0, result.stderr
    assert f"my.motion: {NUM_FRAMES} frames, 0.3 s" in result.stdout
    assert len(Motion.load(here / "my.motion")) == NUM_FRAMES
    assert [path.name for path in here.iterdir()] == ["my.motion"]
    again = mimik("motion", "extract", shelf / "driver.mp4", "-o", "my.motion")
    assert again.exit_code == 2 and "--force" in again.stderr
    result = mimik("animate", shelf / "person.png", "my.motion", "-o", "out.mp4")
    assert result.exit_code == 0, result.stderr
    assert len(list(video.read_frames("out.mp4"))) == NUM_FRAMES


def test_motion_list(here: Path):
    result = mimik("motion", "list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in bundled_motions())


def test_tables_are_readable_on_a_narrow_terminal(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console.console, "_width", 12)
    lines = mimik("motion", "list").stdout.splitlines()
    assert "name look-around, seconds 3.9, frames per second 25" in lines and len(lines) == len(bundled_motions())


def test_motion_show(here: Path):
    result = mimik("motion", "show", "smile")
    assert result.exit_code == 0, result.stderr
    assert video.read_image("smile.png").std() > 5
    assert mimik("verify", "smile.png").exit_code == 0


def test_faces(shelf: Path, here: Path):
    result = mimik("faces", shelf / "person.png", "-o", "faces.png")
    assert result.exit_code == 0, result.stderr
    row = next(line for line in result.stdout.splitlines() if "%" in line)
    assert "1" in row and "tilted" in row
    drawn, plain = video.read_image("faces.png"), video.read_image(shelf / "person.png")
    assert drawn.shape == plain.shape and (drawn != plain).any()


def test_version():
    result = mimik("--version")
    assert result.exit_code == 0 and result.stdout == f"mimik {__version__}\n"


# A folder of photos.


@pytest.mark.slow
def test_folder_with_good_and_bad_photos(shelf: Path, here: Path):
    photos = here / "photos"
    photos.mkdir()
    for name in ("person.png", "person.jpg", "wall.png", "cut.jpg"):
        (photos / name).write_bytes((shelf / name).read_bytes())
    (photos / "other.png").write_bytes((shelf / "person.png").read_bytes())
    (photos / "notes.txt").write_text("not a photo, and not counted")
    (here / "out").mkdir()
    (here / "out/other.mp4").write_text("precious")
    result = mimik("animate", photos, shelf / "driver.mp4", "-o", "out", "--json", "report.json", "--size", 64)
    assert result.exit_code == 1
    assert sorted(path.name for path in (here / "out").iterdir()) == [
        *("animated.jsonl", "other.mp4", "person.jpg.mp4", "person.png.mp4")
    ]
    assert (here / "out/other.mp4").read_text() == "precious"
    assert mimik("verify", "out/person.jpg.mp4").exit_code == 0
    assert "3 of 5 photos were skipped" in result.stderr
    assert all(word in result.stderr for word in ("wall.png", "no face", "cut.jpg", "damaged", "exists"))
    report = json.loads((here / "report.json").read_text())
    assert len(report["reports"]) == 2
    assert [one["photo"] for one in report["left_out"]] == ["cut.jpg", "other.png", "wall.png"]


def test_folder_with_bad_photos_only(shelf: Path, here: Path):
    photos = here / "photos"
    photos.mkdir()
    for name in ("wall.png", "cut.jpg"):
        (photos / name).write_bytes((shelf / name).read_bytes())
    result = mimik("animate", photos, "smile", "-o", "out")
    assert result.exit_code == 2
    assert "2 of 2 photos were skipped" in result.stderr
    assert [path.name for path in here.iterdir()] == ["photos"]


@pytest.mark.parametrize(("out", "words"), [("out.mp4", "use a folder"), ("photos", "is the folder of the photos")])
def test_output_of_a_folder_must_be_another_folder(refuse, shelf: Path, here: Path, out: str, words: str):
    (here / "photos").mkdir()
    (here / "photos/person.png").write_bytes((shelf / "person.png").read_bytes())
    assert words in refuse("animate", here / "photos", "smile", "-o", out)


@pytest.fixture
def drivers(shelf: Path, here: Path) -> Path:
    """A folder of three drivers, one of them bad."""
    folder = here / "drivers"
    folder.mkdir()
    for name in ("driver.mp4", "wall.mp4"):
        (folder / name).write_bytes((shelf / name).read_bytes())
    (folder / "smile.motion").write_bytes(bundled_motions()["smile"].read_bytes())
    return folder


SMALL = ["-o", "out", "--size", 64, "--fps", 4, "--model", "geometry"]


@pytest.mark.slow
def test_a_folder_of_drivers_resumes(shelf: Path, here: Path, drivers: Path):
    command = ["animate", shelf / "person.png", drivers, *SMALL, "--json", "report.json", "--force"]
    first = mimik(*command, "--workers", 2)
    assert first.exit_code == 1, first.stderr
    assert "1 of 3 drivers were skipped" in first.stderr and "no face was found in any" in first.stderr
    assert "out: 2 of 3 videos made. Signed: mimik verify out" in first.stdout
    assert sorted(path.name for path in (here / "out").iterdir()) == ["animated.jsonl", "driver.mp4", "smile.mp4"]
    assert mimik("verify", "out").exit_code == 0
    (here / "out/smile.mp4").unlink()
    kept = (here / "out/driver.mp4").read_bytes()
    command.remove("--force")
    (here / "report.json").unlink()
    again = mimik(*command)
    assert "out: 1 of 3 videos made, 1 by an earlier run." in again.stdout, again.stderr
    assert "1/3 driver.mp4: already made" in again.stderr
    assert (here / "out/driver.mp4").read_bytes() == kept and (here / "out/smile.mp4").exists()
    report = json.loads((here / "report.json").read_text())
    assert report["there"] == ["out/driver.mp4"] and len(report["reports"]) == len(report["left_out"]) == 1
    # With other settings, existing files prevent the run.
    other = mimik("animate", shelf / "person.png", drivers, *SMALL, "--strength", 2)
    assert other.exit_code == 2 and other.stderr.count("already exists") == 2
    assert (here / "out/driver.mp4").read_bytes() == kept


@pytest.mark.parametrize("option", [["--workers", 2], ["--ray"], ["--ray-address", "auto"]])
def test_one_video_is_not_spread(refuse, shelf: Path, option: list[object]):
    message = refuse("animate", shelf / "person.png", "smile", "-o", "out.mp4", *option)
    assert f"{option[0]}: only one video is requested; use a folder" in message


# The program as a process.


def started(arguments: Sequence[object], **options: object) -> subprocess.Popen[str]:
    command = PROGRAM + [str(argument) for argument in arguments]
    # A shell that runs the tests in the background ignores interrupts, and child processes would inherit this.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed, **options
    )


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_a_run_that_is_stopped_leaves_nothing(here: Path, number: int, code: int):
    process = started(["animate", PORTRAIT, "talk", "-o", "out.mp4", "--fps", 120, "--size", 1024], cwd=here)
    while process.poll() is None and not any(path.stat().st_size for path in here.glob(".mimik-*/draft/*")):
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    told = [line for line in stderr.splitlines() if line.startswith("mimik:")]
    assert told == ["mimik: stopped; unfinished files are not kept."]
    assert not list(here.iterdir())


LOADED = """try:
        {}
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error"""  # as an extension module does


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("where", ["{}", "exec({!r})", LOADED])
def test_a_termination_outside_of_a_command(where: str):
    """Python ends itself by SIGINT after a KeyboardInterrupt in `exec`, but not after a subclass of it."""
    kill = where.format("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    code = f"from mimik.app.cli import console\n@console.app.callback()\ndef root():\n    {kill}\nconsole.main()"
    done = subprocess.run([sys.executable, "-c", code, "motion", "list"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "mimik: stopped; unfinished files are not kept.\n")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.slow
def test_nohup_is_respected(here: Path):
    ignored = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    command = [*PROGRAM, "animate", PORTRAIT, "blink", "-o", "out.mp4", "--size", 64, "--model", "geometry"]
    process = subprocess.Popen([str(part) for part in command], preexec_fn=ignored, cwd=here)
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
    assert process.returncode == 0 and [path.name for path in here.iterdir()] == ["out.mp4"]


@pytest.mark.slow
def test_nothing_is_written_to_the_users_home(shelf: Path, here: Path):
    """Nor is anything sent: OpenVINO's telemetry would write a client ID there before sending."""
    process = started(["faces", shelf / "person.png"], env={**os.environ, "HOME": str(here), "CI": ""})
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert not list(here.iterdir())


def test_installed_program(shelf: Path, here: Path):
    script = Path(sys.executable).with_name("mimik")
    if not script.exists():
        pytest.skip("the tests run from a source tree that is not installed")
    done = subprocess.run([script, "faces", "nobody.png"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "mimik: nobody.png does not exist; check the path.\n" and not done.stdout


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(here: Path):
    process = started(["motion", "list"])
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=20) in (0, 1)
    assert process.stderr is not None and "Traceback" not in process.stderr.read()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="file names of POSIX")
def test_a_name_that_is_no_unicode(shelf: Path, here: Path):
    name = os.fsdecode(b"m\xff.png")
    try:
        (here / name).write_bytes((shelf / "person.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    process = started(["faces", name])
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0 and "tilted" in stdout, stderr


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    pty = pytest.importorskip("pty")
    try:
        reader, writer = pty.openpty()
    except OSError as error:
        pytest.skip(f"this machine lends no terminal: {error}")
    yield reader, writer
    os.close(reader)


def shown(reader: int) -> str:
    """The complete terminal output of a process."""
    text = b""
    while True:
        try:
            piece = os.read(reader, 4096)
        except OSError:  # on Linux, the other side is closed
            piece = b""
        if not piece:
            return text.decode(errors="replace")
        text += piece


@pytest.mark.slow
def test_a_terminal_shows_what_is_going_on(shelf: Path, here: Path, terminal: tuple[int, int]):
    reader, writer = terminal
    command = [*PROGRAM, "animate", str(PORTRAIT), "nod", "-o", "out.mp4"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writer, env=environment)
    os.close(writer)
    text = shown(reader)
    assert process.wait(timeout=60) == 0
    assert text.index("reading eileen_collins.png") < text.index("preparing") < text.index("animating")
    assert "frames" in text and "None" not in text


def test_a_name_that_the_terminal_cannot_say(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mimik", "faces", "ü.jpg"],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "has characters that this terminal's encoding" in done.stderr and "PYTHONUTF8=1" in done.stderr
    assert "disk" not in done.stderr


def test_a_signature_beside_its_file_is_named(tmp_path: Path) -> None:
    out = tmp_path / "a.webm"
    done = mimik("animate", PORTRAIT, "smile", "-o", out, "--fps", "1", "--size", "64", "--model", "geometry")
    assert done.exit_code == 0 and (tmp_path / "a.c2pa").exists()
    assert "Its signature is beside it, in a.c2pa: keep both together." in " ".join(done.output.split())


@pytest.mark.parametrize("group", [[], ["motion"], ["voice"]])
def test_the_list_of_commands_has_whole_sentences(group: list[str]) -> None:
    listed = CliRunner().invoke(app, [*group, "--help"], terminal_width=100).stdout.partition("Commands:")[2]
    lines = [line for line in listed.splitlines() if line.startswith("  ") and "For example" not in line]
    assert len(lines) >= 2 and all(line.endswith(".") and not line.endswith("..") for line in lines), lines


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("checking", ("evaluate", "--data", "shards", "-o", "report")),
        ("photos", ("export", "texture", "-o", "exported")),
        ("voices", ("voice", "train", "tracks", "-o", "run")),
    ],
)
def test_loading_torch_is_no_silent_wait(
    module: str, arguments: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def slow(what: str, name: str) -> Iterator[None]:
        time.sleep(0.5)
        raise InputError(f"{what} needs torch.")
        yield

    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()  # of videos; a folder without any is named before torch is loaded
    write_clip(tmp_path / "shards/a.mp4", [np.zeros((64, 64, 3), np.uint8)] * 3)
    (tmp_path / "tracks").mkdir()
    (tmp_path / "tracks/a.npz").touch()
    monkeypatch.setattr(progress, "_FIRST_LINE_S", 0.05)
    monkeypatch.setattr(import_module(f"mimik.app.cli.{module}"), "extra", slow)
    result = mimik(*arguments)
    assert result.exit_code == 2 and result.stderr.splitlines()[0] == "loading", result.stderr


def test_tracks_of_no_video_are_an_error(here: Path) -> None:
    write_clip(here / "mute.mp4", [np.zeros((64, 64, 3), np.uint8)] * 3)
    result = mimik("voice", "tracks", "mute.mp4", "-o", "tracks")
    assert result.exit_code == 2 and "mute.mp4 was skipped: mute.mp4 has no sound" in result.stderr
    assert "no video has sound and a face" in result.stderr and not result.stdout


def test_paths_in_hints_are_words_of_a_command_line() -> None:
    assert console.verify_hint("a b.mp4") == "Signed: mimik verify 'a b.mp4'"
    assert console.verify_hint(Path("-o.mp4")) == "Signed: mimik verify ./-o.mp4"
