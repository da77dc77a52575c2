"""Opening of drivers of any kind listed in kinds.KINDS."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from mimik.config import InputError, OptionError
from mimik.motion import kinds
from mimik.motion.drivers.driver import Driver
from mimik.motion.drivers.motion_file import MotionFile
from mimik.motion.files import Motion

# A file, a name, or what is in memory: a motion, a picture, or frames that come with a rate.
DriverLike = str | PathLike[str] | Driver | Motion | PIL.Image.Image | NDArray[Any] | Iterable[NDArray[Any]]


def _kinds() -> Iterator[type[Driver]]:
    """The classes of kinds.KINDS, in their order."""
    for kind in kinds.KINDS:
        module, _, name = kind.place.rpartition(".")
        yield getattr(importlib.import_module(module), name)


def names() -> Mapping[str, Path | None]:
    """Names of drivers that are not files; and the file of each, if any."""
    return {name: path for kind in _kinds() for name, path in kind.names().items()}


def file_of(source: str) -> Path | None:
    """The file of a source, which may not exist; None for a driver without a file."""
    return None if kinds.has_no_file(source) else names().get(source, Path(source))


def suffixes() -> tuple[str, ...]:
    """Suffixes by which a folder of drivers is searched."""
    return tuple(suffix for kind in _kinds() for suffix in kind.suffixes)


def open_driver(
    source: DriverLike, fps: float | None = None, *, by: str = "picture", seconds: float | None = None
) -> Driver:
    """Open a driver of any kind.

    Args:
        source: a file; one of names(); a Motion; a picture (Pillow, or uint8 RGB [H, W, 3]); or frames, an array
            [N, H, W, 3] or an iterable of pictures, which need fps. An open driver is returned, with its own rate.
        fps: motion frames per second; None: the driver's own rate.
        by: one of config.DRIVE_BY: whether the picture or the sound of a video drives.
        seconds: length of a driver without an end, or maximum length of others; None: all.

    Raises:
        InputError: if it is none of these, or cannot be used.
    """
    if isinstance(source, Driver):
        return source
    if not isinstance(source, str | PathLike):
        if by != "picture":
            raise OptionError(f"--drive-by {by}: a driver in memory has no sound; use a file, or omit --drive-by.")
        opened = _in_memory(source, fps)
    elif by == "sound":
        from mimik.motion.drivers.voice import Voice

        opened = Voice.open(str(source), fps)
    else:
        opened = _open(str(source), fps)
    return opened if seconds is None else opened.lasting(seconds)


def _in_memory(source: Motion | PIL.Image.Image | NDArray[Any] | Iterable[NDArray[Any]], fps: float | None) -> Driver:
    from mimik.motion.drivers.photo import PhotoDriver
    from mimik.motion.drivers.pictures import Frames

    if isinstance(source, Motion):
        return MotionFile.of(source, fps)
    if isinstance(source, PIL.Image.Image) or (isinstance(source, np.ndarray) and source.ndim < 4):
        return PhotoDriver.of(source, fps)
    if not isinstance(source, Iterable):
        raise InputError(
            f"{type(source).__name__} is not a driver; use a path, a bundled motion's name, a Motion, a picture, or "
            "frames."
        )
    return Frames.of(source, fps)


def _open(source: str, fps: float | None) -> Driver:
    if source not in kinds.driver_names():
        kinds.check_readable(source)
    for kind in _kinds():
        if kind.takes(source):
            return kind.open(source, fps)
    raise kinds.no_such_driver(source)
