"""The kinds of drivers, and how one is opened: the only place that lists them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mimik.motion.bundled import no_such_driver
from mimik.motion.drivers.driver import Driver
from mimik.motion.drivers.idle import Idle
from mimik.motion.drivers.motion_file import MotionFile
from mimik.motion.drivers.photo import Photo
from mimik.motion.drivers.stream_file import StreamFile
from mimik.motion.drivers.video import Video
from mimik.motion.drivers.voice import Voice

# The first that takes a source opens it: names and suffixes before those that look into the file.
KINDS: tuple[type[Driver], ...] = (MotionFile, StreamFile, Idle, Voice, Photo, Video)


def names() -> Mapping[str, Path | None]:
    """Words that are drivers without being files, and the file behind each, if any."""
    return {name: path for kind in KINDS for name, path in kind.names().items()}


def file_of(source: str) -> Path | None:
    """The file behind a source, which may not exist; None for a driver without one."""
    return names().get(source, Path(source))


def suffixes() -> tuple[str, ...]:
    """Of the files that a folder of drivers is searched for."""
    return tuple(suffix for kind in KINDS for suffix in kind.suffixes)


def open_driver(
    source: str | Path | Driver, fps: float | None = None, *, by: str = "picture", seconds: float | None = None
) -> Driver:
    """Opens a driver of any kind.

    Args:
        source: a file, or one of names(). A driver that is open already is given back, with its own rate.
        fps: motion frames a second; None is the driver's own rate.
        by: one of config.DRIVE_BY: what of a video drives, what it shows or what is heard.
        seconds: length of a driver that has no end of its own; None is its usual one.

    Raises:
        InputError: if it is none of these, or cannot be used.
    """
    if isinstance(source, Driver):
        return source
    if by == "sound":
        opened: Driver = Voice.open(str(source), fps)
    else:
        opened = _open(source, fps)
    return opened if seconds is None else opened.lasting(seconds)


def _open(source: str | Path, fps: float | None) -> Driver:
    for kind in KINDS:
        if kind.takes(str(source)):
            return kind.open(str(source), fps)
    raise no_such_driver(str(source))
