"""Where files may be written, known from their names before any work is done."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from mimik.config import InputError
from mimik.files import can_write_in
from mimik.provenance.formats import BESIDE, MEDIA_TYPES, SIDECAR_SUFFIX, STILLS

_PATTERN = re.compile(r"([^%]*)%(?:0\d+)?d([^%]*)")


def check_output(out: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuse an output that `seal` would refuse, before the work is done.

    Args:
        out: a file, a folder for frames, or a pattern for them such as frames/%05d.webp. Beside a file of BESIDE its
            manifest is written, too.
        force: whether what is there may be replaced.
        inputs: files that are read; never replaced, not even with force.

    Raises:
        InputError: if out is of an unknown format, stands already, is one of the inputs (also through links), is a
            folder with a file's name, or its folder is missing or cannot be written to.
    """
    pattern = frames_pattern(out)
    if pattern is None and out.suffix.lower() not in (*MEDIA_TYPES, *BESIDE):
        raise InputError(
            f"-o {out}: give a file ending in {', '.join((*MEDIA_TYPES, *BESIDE))}, a folder for PNG frames, or "
            "frames/%05d.webp."
        )
    if pattern is not None and not (_PATTERN.fullmatch(pattern.name) and pattern.suffix.lower() in STILLS):
        raise InputError(f"-o {out}: a pattern has one %05d and ends in {', '.join(STILLS)}, as in frames/%05d.webp.")

    for path in inputs:
        if pattern is None:
            is_input = out.exists() and path.exists() and os.path.samefile(out, path)
        else:
            real = path.resolve()
            is_input = real.parent == pattern.parent.resolve() and bool(frame_names(pattern).fullmatch(real.name))
        if is_input:
            raise InputError(f"-o {out}: the input {path} would be replaced; give another -o.")

    # The folder that the file, the frames, or the new folder of frames is made in.
    parent = out.parent if pattern is None else pattern.parent
    is_new = pattern is not None and not os.path.lexists(parent)
    folder = parent.parent if is_new else parent
    if not folder.is_dir():
        what = "is not a folder" if os.path.lexists(folder) else "does not exist"
        raise InputError(f"-o {out}: the folder {folder} {what}; make it first, or give another -o.")
    if not can_write_in(folder):
        raise InputError(f"-o {out}: the folder {folder} cannot be written to; give another -o.")

    if pattern is not None:
        if not is_new and not force and any(folder.iterdir()):
            raise InputError(f"-o {out}: {folder} is not empty; give --force to replace its frames, or another -o.")
    elif os.path.lexists(out):
        if out.is_dir():
            raise InputError(f"-o {out}: is a folder; give the name of a file in it.")
        if out.exists() and not out.is_file():
            raise InputError(f"-o {out}: is not an ordinary file; give another -o.")
        if not force:
            raise InputError(f"-o {out}: already exists; give --force to replace it, or another -o.")
    if (sidecar := sidecar_of(out)) is not None and os.path.lexists(sidecar):
        if not sidecar.is_file():
            raise InputError(f"-o {out}: its manifest goes into {sidecar}, which is no ordinary file; give another -o.")
        if not force:
            raise InputError(
                f"-o {out}: its manifest goes into {sidecar}, which exists; give --force to replace both, or another "
                "-o."
            )


def sidecar_of(out: Path) -> Path | None:
    """Where the manifest of a file goes that cannot hold it; None for all others."""
    return out.with_suffix(SIDECAR_SUFFIX) if out.suffix.lower() in BESIDE else None


def frames_pattern(out: Path) -> Path | None:
    """The pattern of the numbered stills that are meant by a folder or a pattern; None if a file is meant."""
    if "%" in out.name:
        return out
    if out.suffix.lower() not in (*MEDIA_TYPES, *BESIDE) and (out.is_dir() or not (out.suffix or os.path.lexists(out))):
        return out / "%05d.png"
    return None


def frame_names(pattern: Path) -> re.Pattern[str]:
    parts = _PATTERN.fullmatch(pattern.name)
    assert parts, "check_output lets no other pattern pass"
    return re.compile(re.escape(parts[1]) + r"\d+" + re.escape(parts[2]))
