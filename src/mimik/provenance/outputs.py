"""Checks of output paths, by name, before any work is done."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from mimik.config import InputError
from mimik.files import can_write_in
from mimik.media.formats import FRAMES_PATTERN
from mimik.provenance.formats import BESIDE, MEDIA_TYPES, SIDECAR_SUFFIX, STILLS


def output_path(out: str | Path) -> Path:
    """The path of an output. Raises InputError if it is empty, which Path takes as the current folder."""
    if not str(out):
        raise InputError('out="": the name is empty; pass the path of a file or folder.')
    return Path(out)


def check_output(out: Path, *, force: bool, inputs: Sequence[Path] = (), option: str = "-o") -> None:
    """Raise the errors of `seal` for an output path before the work is done.

    Args:
        out: a file, a folder for frames, or a pattern for them such as frames/%05d.webp. The manifest of a format in
            BESIDE is a file beside it, which is checked, too.
        force: whether existing output may be replaced.
        inputs: files that are read; never replaced, even with force.
        option: that names the output, for messages.

    Raises:
        InputError: if out has an unknown format, exists without force, is one of the inputs (also through links), or is
            a folder where a file is required, or if its folder is missing or not writable.
    """
    named = f"{option} {out}"
    pattern = frames_pattern(out)
    if pattern is None and out.suffix.lower() not in (*MEDIA_TYPES, *BESIDE):
        raise InputError(
            f"{named}: use a file ending in {', '.join((*MEDIA_TYPES, *BESIDE))}, a folder for PNG frames, or "
            "frames/%05d.webp."
        )
    if pattern is not None and not (FRAMES_PATTERN.fullmatch(pattern.name) and pattern.suffix.lower() in STILLS):
        raise InputError(f"{named}: a pattern has one %05d and ends in {', '.join(STILLS)}, as in frames/%05d.webp.")

    for path in inputs:
        if pattern is None:
            is_input = out.exists() and path.exists() and os.path.samefile(out, path)
        else:
            real = path.resolve()
            is_input = real.parent == pattern.parent.resolve() and bool(frame_names(pattern).fullmatch(real.name))
        if is_input:
            raise InputError(f"{named}: the input {path} would be replaced; pass another {option}.")

    # The folder in which the file, the frames, or the new folder of frames is created.
    parent = out.parent if pattern is None else pattern.parent
    is_new = pattern is not None and not os.path.lexists(parent)
    folder = parent.parent if is_new else parent
    if not folder.is_dir():
        what = "is not a folder" if os.path.lexists(folder) else "does not exist"
        raise InputError(f"{named}: the folder {folder} {what}; create it first, or pass another {option}.")
    if not can_write_in(folder):
        raise InputError(f"{named}: the folder {folder} is not writable; pass another {option}.")

    if pattern is not None:
        if not is_new and not force and any(folder.iterdir()):
            raise InputError(
                f"{named}: {folder} is not empty; pass --force to replace its frames, or use another {option}."
            )
    elif os.path.lexists(out):
        if out.is_dir():
            raise InputError(f"{named}: is a folder; use the name of a file in it.")
        if out.exists() and not out.is_file():
            raise InputError(f"{named}: is not a regular file; pass another {option}.")
        if not force:
            raise InputError(f"{named}: already exists; pass --force to replace it, or use another {option}.")
    if (sidecar := sidecar_of(out)) is not None and os.path.lexists(sidecar):
        if not sidecar.is_file():
            raise InputError(
                f"{named}: its manifest goes into {sidecar}, which is not a regular file; pass another {option}."
            )
        if not force:
            raise InputError(
                f"{named}: its manifest goes into {sidecar}, which exists; pass --force to replace both, or use "
                f"another {option}."
            )


def sidecar_of(out: Path) -> Path | None:
    """Path of the manifest of a file whose format cannot embed it; None for all other formats."""
    return out.with_suffix(SIDECAR_SUFFIX) if out.suffix.lower() in BESIDE else None


def frames_pattern(out: Path) -> Path | None:
    """The pattern of numbered stills for a folder or a pattern; None for a file."""
    if "%" in out.name:
        return out
    if out.suffix.lower() not in (*MEDIA_TYPES, *BESIDE) and (out.is_dir() or not (out.suffix or os.path.lexists(out))):
        return out / "%05d.png"
    return None


def frame_names(pattern: Path) -> re.Pattern[str]:
    parts = FRAMES_PATTERN.fullmatch(pattern.name)
    assert parts, "check_output lets no other pattern pass"
    return re.compile(re.escape(parts[1]) + r"\d+" + re.escape(parts[2]))
