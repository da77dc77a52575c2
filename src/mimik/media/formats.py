"""File formats by name: whether a file can be opened, and what a path would contain. This module opens no media."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from mimik.config import MediaError

StrPath = str | os.PathLike[str]
OutputKind = Literal["image", "video", "frames"]
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}  # with sound
OUTPUT_FORMATS = (
    ".mp4, .m4v, .mov, .mkv, .webm, .gif or .webp for a video, .png or .jpg for a picture, "
    "a folder for PNG frames or a pattern such as frames/%05d.webp"
)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# Pictures that can be read.
PHOTO_SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif")
SOUND_SUFFIXES = (".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".aac")
_NOT_TEXTS = (*PHOTO_SUFFIXES, *CONTAINERS, *SOUND_SUFFIXES, ".avi")
FRAMES_PATTERN = re.compile(r"([^%]*)%(?:0\d+)?d([^%]*)")  # what is before and after the number
_PICTURE_OR_VIDEO = "picture or video file"


def check_input(path: Path, what: str = _PICTURE_OR_VIDEO) -> None:
    """Raise MediaError if a path cannot be opened. Args: what: the expected file, for the message."""
    if str(path).startswith(("http:/", "https:/")):
        raise MediaError(f"{path.name} is a web address; download the {what} first, and use its path.")
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a folder; use a {what}.")
        if not path.exists():
            raise MediaError(f"{path} does not exist; check the path.")
        if not path.is_file():
            raise MediaError(f"{path} is not a regular file; use a {what} on disk.")
        if path.stat().st_size == 0:
            raise MediaError(f"{path} is empty (0 bytes); copy or download it again.")
        if is_text(path, strict=True) and path.suffix.lower() in _NOT_TEXTS:
            raise MediaError(f"{path} is a text file; use a {what}.")
    except (OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{path} cannot be opened ({reason}); check its path and permissions.") from error


def is_text(path: Path, *, strict: bool = False) -> bool:
    """Whether a file starts with printable text; strict: raise OSError if it cannot be opened."""
    try:
        with path.open("rb") as file:
            begin = file.read(1024)
    except OSError:
        if strict:
            raise
        return False
    try:
        text = begin.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(begin) - 4:  # else the buffer ends within a character
            return False
        text = begin[: error.start].decode("utf-8")
    return bool(text.strip()) and all(letter.isprintable() or letter.isspace() for letter in text)


def output_kind(path: StrPath) -> OutputKind:
    """Kind of output at a path, determined by its name only; call it before any work is done.

    "video" for .mp4, .m4v, .mov, .mkv, .webm, .gif and .webp; "image" for .png, .jpg and .jpeg; "frames" for a folder
    (an existing one, or a name without a suffix) and for a pattern such as frames/%05d.webp.

    Raises:
        MediaError: for any other path.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if "%" in path.name:
        if FRAMES_PATTERN.fullmatch(path.name) and suffix in IMAGE_SUFFIXES:
            return "frames"
        raise MediaError(
            f"{path}: a pattern has one %05d and ends in .png, .jpg or .webp; use one such as frames/%05d.webp."
        )
    if path.is_dir() or (not suffix and not path.exists()):
        return "frames"
    if suffix in (*CONTAINERS, ".gif", ".webp"):
        return "video"
    if suffix in IMAGE_SUFFIXES:
        return "image"
    raise MediaError(f"{path} cannot be written as {suffix or 'a file without a suffix'}; use {OUTPUT_FORMATS}.")


def keeps_alpha(path: StrPath) -> bool:
    """Whether the format of a path supports transparency: .png, .webp, .webm, .mov, and folders of frames."""
    path = Path(path)
    suffix = path.suffix.lower()
    return suffix in (".png", ".webp", ".webm", ".mov") or ("%" not in path.name and output_kind(path) == "frames")


def holds_sound(path: StrPath) -> bool:
    """Whether the format of a path supports sound: .mp4, .m4v, .mov, .mkv and .webm."""
    return Path(path).suffix.lower() in CONTAINERS
