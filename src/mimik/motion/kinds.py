"""The kinds of drivers, and what is known of them by names alone; it loads nothing that computes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from mimik.config import InputError
from mimik.media.formats import SOUND_SUFFIXES, is_text
from mimik.motion.drivers.trackers.address import is_tracker, parse_tracker

IDLE = "idle"


def bundled_motions() -> dict[str, Path]:
    """Names of the motions that come with the program, and their files."""
    folder = Path(str(resources.files("mimik").joinpath("assets/motions")))
    return {path.stem: path for path in sorted(folder.glob("*.motion"))}


class DriverKind(NamedTuple):
    """A kind of driver, as it is known before its code is loaded."""

    place: str  # of its class, a driver.Driver
    accepted: str = ""  # what is given to open one, for the message that lists the kinds; "": names alone
    names: Callable[[], Iterable[str]] = tuple  # that are given in place of a file
    is_address: Callable[[str], bool] = lambda source: False  # whether it has no file; InputError if it is malformed


_DRIVERS = "mimik.motion.drivers"
# The first that takes a source opens it: names and suffixes before those that look into the file.
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
    """Words that are drivers without being files."""
    return [name for kind in KINDS for name in kind.names()]


def is_folder_of_drivers(source: str) -> bool:
    """Whether it is a folder, and no bundled motion of the same name."""
    return bool(source) and source not in driver_names() and Path(source).is_dir()


def has_no_file(source: str) -> bool:
    """Whether a driver is neither a file nor the name of one. Raises InputError for an address that is malformed."""
    return any(kind.is_address(source) for kind in KINDS)


def check_driver(source: str) -> None:
    """Refuses a driver that is neither a file or folder nor a name. Raises InputError, saying what can be given."""
    if not has_no_file(source) and source not in driver_names() and not (source and Path(source).exists()):
        raise no_such_driver(source)


def no_such_driver(source: str) -> InputError:
    """What to say of a driver that is neither a file nor a name."""
    if not source:
        return InputError("the driver's name is empty; give a file, or the name of a bundled motion.")
    if source.startswith(("http:/", "https:/")):
        return InputError(f"driver {source}: is an address on the web; download the file first, and give its path.")
    names = driver_names()
    close = difflib.get_close_matches(source, names, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    accepted = ", ".join(kind.accepted for kind in reversed(KINDS) if kind.accepted)
    return InputError(
        f"driver {source}: there is no such file{meant}; give {accepted} or one of the bundled motions: "
        f"{', '.join(names)}."
    )


_OTHER_FILES = {  # by their suffixes, what to do with files that look like drivers and are none
    ".avatar": "is a learned person; give it as PHOTO, before the driver",
    ".safetensors": "is a model; give it with --model",
    ".onnx": "is a network; a piper voice is given with --voice, beside --say TEXT",
    ".bvh": "is a skeleton's motion; record the face as .csv (Live Link Face) or .jsonl",
    ".fbx": "is a scene; record the face as .csv (Live Link Face) or .jsonl",
    ".json": "is no driver; numbers are given as lines of .jsonl, or as .csv of Live Link Face",
    ".pdf": "is a document; to have a text spoken give --say TEXT",
    ".docx": "is a document; to have a text spoken give --say TEXT",
    ".zip": "is an archive; unpack it, and give a file of it",
}
_TEXTS = ("", ".txt", ".text", ".md", ".rst", ".log", ".srt", ".vtt", ".html")  # if they hold one


def check_person(photo: Path) -> None:
    """Refuses a driver where a person is wanted: the two are easily given in the wrong order.

    Raises:
        InputError: saying which comes first.
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
            f"{photo}: {what}, and a person is wanted first; give a photo, a video of the person or an .avatar file."
        )


def check_readable(source: str) -> None:
    """Refuses a file that is no kind of driver, with what to do with it instead.

    Raises:
        InputError: if its suffix says so, or it is a text.
    """
    path = Path(source)
    advice = _OTHER_FILES.get(path.suffix.lower())
    if advice is None and path.suffix.lower() in _TEXTS and is_text(path):
        advice = f'is a text; to have it spoken give --say TEXT, such as --say "$(cat {path.name})"'
    if advice:
        raise InputError(f"driver {source}: {advice}.")
