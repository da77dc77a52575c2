"""The kinds of drivers, and checks by name alone, without importing their code."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from mimik.config import InputError
from mimik.files import asset
from mimik.media.formats import SOUND_SUFFIXES, is_text
from mimik.motion.drivers.trackers.address import is_tracker, parse_tracker

IDLE = "idle"


def bundled_motions() -> dict[str, Path]:
    """Names and files of the bundled motions."""
    return {path.stem: path for path in sorted(asset("motions").glob("*.motion"))}


class DriverKind(NamedTuple):
    """Description of a kind of driver, available before its code is imported."""

    place: str  # import path of its class, a driver.Driver
    accepted: str = ""  # description of its sources, for the message that lists the kinds; "": only names
    names: Callable[[], Iterable[str]] = tuple  # accepted in place of a file
    is_address: Callable[[str], bool] = lambda source: False  # whether a source is an address; InputError if malformed


_DRIVERS = "mimik.motion.drivers"
# The first kind that takes a source opens it: kinds with names and suffixes come before those that inspect the file.
KINDS = (
    DriverKind(f"{_DRIVERS}.motion_file.MotionFile", "a .motion file", bundled_motions),
    DriverKind(f"{_DRIVERS}.stream_file.StreamFile", "a .jsonl or .csv file"),
    DriverKind(f"{_DRIVERS}.idle.Idle", names=lambda: (IDLE,), is_address=lambda source: source == IDLE),
    DriverKind(
        f"{_DRIVERS}.trackers.driver.TrackerDriver",
        "a tracker's address such as livelink://0.0.0.0",
        is_address=lambda source: is_tracker(source) and bool(parse_tracker(source)),
    ),
    DriverKind(f"{_DRIVERS}.voice.Voice", "a recording of speech"),
    DriverKind(f"{_DRIVERS}.photo.PhotoDriver", "a photo"),
    DriverKind(f"{_DRIVERS}.video.Video", "a video"),
)


def driver_names() -> list[str]:
    """Names of drivers that are not files."""
    return [name for kind in KINDS for name in kind.names()]


def is_folder_of_drivers(source: str) -> bool:
    """Whether it is a folder, and no bundled motion of the same name."""
    return bool(source) and source not in driver_names() and Path(source).is_dir()


def has_no_file(source: str) -> bool:
    """Whether a driver is neither a file nor the name of one. Raises InputError for a malformed address."""
    return any(kind.is_address(source) for kind in KINDS)


def check_driver(source: str) -> None:
    """Raises InputError, listing what is accepted, if a driver is neither a file or folder nor a name."""
    if not has_no_file(source) and source not in driver_names() and not (source and Path(source).exists()):
        raise no_such_driver(source)


def no_such_driver(source: str) -> InputError:
    """Error message for a driver that is neither a file nor a name."""
    if not source:
        return InputError("the driver's name is empty; use a file, or the name of a bundled motion.")
    if source.startswith(("http:/", "https:/")):
        return InputError(f"driver {source}: is a web address; download the file first, and use its path.")
    names = driver_names()
    close = difflib.get_close_matches(source, names, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    accepted = ", ".join(kind.accepted for kind in reversed(KINDS) if kind.accepted)
    return InputError(
        f"driver {source}: no such file{meant}; use {accepted} or one of the bundled motions: {', '.join(names)}."
    )


_OTHER_FILES = {  # by suffix: what to do with files that look like drivers but are not
    ".avatar": "is a learned person; pass it as PHOTO, before the driver",
    ".safetensors": "is a model; pass it with --model",
    ".onnx": "is a network; pass a piper voice with --voice, together with --say TEXT",
    ".bvh": "is a skeleton's motion; record the face as .csv (Live Link Face) or .jsonl",
    ".fbx": "is a scene; record the face as .csv (Live Link Face) or .jsonl",
    ".json": "is not a driver; pass numbers as .jsonl, or as .csv of Live Link Face",
    ".pdf": "is a document; to have a text spoken pass --say TEXT",
    ".docx": "is a document; to have a text spoken pass --say TEXT",
    ".zip": "is an archive; unpack it, and use a file in it",
}
_TEXTS = ("", ".txt", ".text", ".md", ".rst", ".log", ".srt", ".vtt", ".html")  # if they contain text


def check_person(photo: Path) -> None:
    """Check that a file given as the person is not a driver; the two are easily swapped.

    Raises:
        InputError: stating the correct order.
    """
    suffix, what = photo.suffix.lower(), ""
    if not photo.exists() and str(photo) in driver_names():
        what = "is the name of a driver"
    elif suffix in (".motion", ".jsonl", ".csv"):
        what = "is a file of motion"
    elif suffix in SOUND_SUFFIXES:
        what = "is a recording of sound"
    elif photo.is_file() and suffix in _TEXTS and is_text(photo):
        what = "is a text"
    if what:
        raise InputError(
            f"{photo}: {what}, and the first argument is the person; use a photo, a video of the person or an .avatar "
            "file."
        )


def check_readable(source: str) -> None:
    """Check that a file can be a driver.

    Raises:
        InputError: saying what to do with it instead, if its suffix is of another kind or it is a text.
    """
    path = Path(source)
    advice = _OTHER_FILES.get(path.suffix.lower())
    if advice is None and path.suffix.lower() in _TEXTS and is_text(path):
        advice = f'is a text; to have it spoken pass --say TEXT, such as --say "$(cat {path.name})"'
    if advice:
        raise InputError(f"driver {source}: {advice}.")
