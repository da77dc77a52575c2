"""Atomic replacement of files and folders, file locks, and checks of output paths."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mimik.config import InputError

DRAFT_SUFFIX = ".part"  # suffix of incomplete files
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def asset(name: str) -> Path:
    """A file or folder in the assets of the package."""
    return Path(__file__).parent / "assets" / name


@contextmanager
def atomic_write(path: Path, *, suffix: str | None = None, durable: bool = False) -> Iterator[Path]:
    """A draft file that atomically replaces path when the block exits without an exception.

    Readers see either the old or the new file. The draft is a hidden file in the same folder, with the permissions of a
    new file. It is deleted if the block fails.

    Args:
        path: of the file.
        suffix: of the draft; None: that of path, for writers that choose a format by it.
        durable: sync to disk, so that the new file survives a power failure.
    """
    own = path.suffix if suffix is None else suffix
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}{own}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # the system applies the umask
    try:
        yield draft
        if durable:
            _sync(draft)
        os.replace(draft, path)
    except OSError as error:  # name path in the error instead of the draft, or of no file (disk full)
        if error.errno and error.filename in (None, str(draft)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        draft.unlink(missing_ok=True)
    if durable:
        with suppress(OSError):  # not every file system can make a folder durable
            _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically: readers see either the old or the new content, even after a crash.

    Raises InputError if the disk is full or the path is not writable; the old file is kept then.
    """
    try:
        with atomic_write(path, suffix=DRAFT_SUFFIX, durable=True) as draft, draft.open("wb") as file:
            file.write(data)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise InputError(
                f"{path}: no space left for its {len(data) / 1e6:.1f} MB; existing files are kept. Free some space and "
                "rerun the command."
            ) from error
        raise InputError(f"{path}: cannot be written ({error.strerror}); use another folder.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically."""
    with atomic_write(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which replaces path when the block exits without an exception.

    If the replacement fails, the old folder is restored.
    """
    work = Path(tempfile.mkdtemp(prefix=".mimik-", dir=path.absolute().parent))
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        yield new
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
    except OSError as error:  # name path in the error instead of the hidden folder, or of no file (disk full)
        if error.errno and str(error.filename or work).startswith(str(work)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def hold(path: Path, mode: str = "w") -> IO[Any] | None:
    """Open and lock a file until it is closed or the process ends; None if another process holds the lock.

    Raises OSError if it cannot be opened.
    """
    import fcntl

    file = path.open(mode, encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def memory_folder() -> Path:
    """An in-memory folder if the system has one, else the folder for temporary files."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def can_write_in(folder: Path) -> bool:
    """Whether a file can be created in a folder; tries it, since permissions mislead for root or in /proc."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def check_folder(option: str, folder: Path, *, mark: str | None = None, of: str = "") -> None:
    """Check, before any work, that a folder can be created and written to.

    Args:
        option: that names it, for the message.
        folder: need not exist, nor its parents.
        mark: name of a file in every folder of this kind; one without it that holds other files is rejected.
        of: this kind of folder, for the message.

    Raises:
        InputError: if it is not possible.
    """
    first_there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not first_there.is_dir():
        raise InputError(f"{option} {folder}: {first_there} is not a folder; use another name.")
    if not can_write_in(first_there):
        raise InputError(f"{option} {folder}: {first_there} is not writable; use another folder.")
    if mark is None or not folder.is_dir() or (folder / mark).exists():
        return
    if any(path.name[0] != "." for path in folder.iterdir()):
        raise InputError(f"{option} {folder}: contains other files; use a new folder, or that of {of}.")


def check_file(option: str, path: Path, *, force: bool, others: Sequence[Path] = ()) -> None:
    """Check, before any work, that an output file can be written.

    Args:
        option: that names the file, for the message.
        path: to be written.
        force: whether an existing file may be replaced.
        others: files of the same run, which it must not overwrite.

    Raises:
        InputError: if it is not possible.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(
            f"{option} {path}: the folder {path.parent} does not exist; create it first, or use another name."
        )
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; use the name of a file in it.")
    # Devices would be replaced, and /dev/stdout, a link that may lead to a file.
    if path.exists() and (not path.is_file() or folder == Path("/dev")):
        raise InputError(f"{option} {path}: is not a regular file; use another name.")
    if any(path.resolve() == other.resolve() for other in others):
        raise InputError(f"{option} {path}: is another file of this run; use a different name.")
    if os.path.lexists(path) and not force:
        raise InputError(f"{option} {path}: already exists; pass --force to replace it, or use another name.")
    if not can_write_in(folder):
        raise InputError(f"{option} {path}: the folder {path.parent} is not writable; use another one.")
