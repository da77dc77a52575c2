"""Files and folders put in place in one step, files held by one run, and whether something may be written there."""

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

DRAFT_SUFFIX = ".part"  # of files that are not complete
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replaced(path: Path, *, suffix: str | None = None, durable: bool = False) -> Iterator[Path]:
    """A draft to write to, which takes the place of a file in one step when the block has ended well.

    Readers see the old or the new file. The draft is hidden, lies beside the file and has the access rights of a new
    file; it is gone at the end, however the block ends.

    Args:
        path: of the file.
        suffix: of the draft; None is the file's own, for writers that choose a format by it.
        durable: whether the new file is there after a power failure, too.
    """
    own = path.suffix if suffix is None else suffix
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}{own}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # the system applies the umask
    try:
        yield draft
        if durable:
            _sync(draft)
        os.replace(draft, path)
    except OSError as error:  # of a full disk no file is named, or the draft, which nobody knows
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


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Puts a file in place in one step: readers see the old or the new one, also after a crash.

    Raises InputError if there is no space left, or nothing can be written there; the old file is still there then.
    """
    try:
        with replaced(path, suffix=DRAFT_SUFFIX, durable=True) as draft, draft.open("wb") as file:
            file.write(data)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise InputError(
                f"{path}: no space left for its {len(data) / 1e6:.1f} MB; what was there is kept. Make room and give "
                "the same command again."
            ) from error
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another folder.") from error


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of another when the block has ended well.

    If it cannot, the older folder is put back.
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
    finally:
        shutil.rmtree(work, ignore_errors=True)


def hold(path: Path, mode: str = "w") -> IO[Any] | None:
    """A file, opened and locked until it is closed or the process ends; None while another process holds it.

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
    """A folder whose files live in memory, where the system has one; else the folder for temporary files."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def can_write_in(folder: Path) -> bool:
    """Whether a file can be made in a folder, by making one: access rights say nothing of /proc, or of root."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def check_folder(option: str, folder: Path) -> None:
    """Refuses, before the work, a folder that cannot be made, or in which no file can be made.

    Args: option: that names it, for the sentence; folder: with all that is missing above it.

    Raises:
        InputError: saying where.
    """
    first_there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    if not can_write_in(first_there):
        raise InputError(f"{option} {folder}: {first_there} cannot be written to; give another folder.")


def check_file(option: str, path: Path, *, force: bool, others: Sequence[Path] = ()) -> None:
    """Refuses, before the work, what could not be written after it: a report, numbers, text.

    Args:
        option: that names the file, for the sentence.
        path: to be written.
        force: whether a file that is there may be replaced.
        others: files of the same run.

    Raises:
        InputError: saying why.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}; make it first, or give another name.")
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; give the name of a file in it.")
    if any(path.resolve() == other.resolve() for other in others):
        raise InputError(f"{option} {path}: is another file of this run; give a name of its own.")
    if os.path.lexists(path) and not force:
        raise InputError(f"{option} {path}: already exists; give --force to replace it, or another name.")
    if not can_write_in(folder):
        raise InputError(f"{option} {path}: the folder {path.parent} cannot be written to; give another one.")
