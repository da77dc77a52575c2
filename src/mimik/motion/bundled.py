"""Drivers by their names alone: the motions that come with the program, and idle life."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from mimik.config import InputError
from mimik.motion.drivers.trackers.address import is_tracker, parse_tracker

IDLE = "idle"


def bundled_motions() -> dict[str, Path]:
    """Names of the motions that come with the program, and their files."""
    folder = Path(str(resources.files("mimik").joinpath("assets/motions")))
    return {path.stem: path for path in sorted(folder.glob("*.motion"))}


def no_such_driver(source: str) -> InputError:
    """What to say of a driver that is neither a file nor a name."""
    names = [*bundled_motions(), IDLE]
    close = difflib.get_close_matches(source, names, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return InputError(
        f"driver {source}: there is no such file{meant}; give a video, a photo, a recording of speech, a .jsonl file, "
        "a tracker's address such as livelink://0.0.0.0, a .motion file or one of the bundled motions: "
        f"{', '.join(names)}."
    )


def check_driver(source: str) -> None:
    """Refuses, before anything is loaded, a driver that is neither a file or folder nor a name.

    Raises:
        InputError: saying what can be given.
    """
    if is_tracker(source):
        parse_tracker(source)
    elif source not in (IDLE, *bundled_motions()) and not Path(source).exists():
        raise no_such_driver(source)
