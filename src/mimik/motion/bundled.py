"""Drivers by their names alone: the motions that come with the program, and idle life."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mimik.config import InputError
from mimik.media.formats import SOUND_SUFFIXES

IDLE = "idle"


def bundled_motions() -> dict[str, Path]:
    """Names of the motions that come with the program, and their files."""
    folder = Path(str(resources.files("mimik").joinpath("assets/motions")))
    return {path.stem: path for path in sorted(folder.glob("*.motion"))}


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
    if not photo.exists() and str(photo) in (IDLE, *bundled_motions()):
        what = "is the name of a driver"
    elif suffix in (".motion", ".jsonl", ".csv"):
        what = "is a file of motion"
    elif suffix in SOUND_SUFFIXES:
        what = "is a recording of sound"
    elif photo.is_file() and suffix in _TEXTS and _is_text(photo):
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
    if advice is None and path.suffix.lower() in _TEXTS and _is_text(path):
        advice = f'is a text; to have it spoken give --say TEXT, such as --say "$(cat {path.name})"'
    if advice:
        raise InputError(f"driver {source}: {advice}.")


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            begin = file.read(1024)
    except OSError:
        return False
    try:
        text = begin.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(begin) - 4:  # else a letter is cut in two
            return False
        text = begin[: error.start].decode("utf-8")
    return bool(text.strip()) and all(letter.isprintable() or letter.isspace() for letter in text)
