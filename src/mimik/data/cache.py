"""File caches shared by several processes, with a size limit."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mimik.files import hold

log = logging.getLogger(__name__)


class FileCache:
    """A file cache shared by several processes, with a size limit and without eviction.

    Every clip is needed once per epoch in random order, so an evicted clip is as likely to be needed next as its
    replacement; eviction would only cost writes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._full = False
        self._used, self._new = 0, limit  # bytes at the last scan, and bytes added since

    def find(self, name: str) -> Path | None:
        path = self._folder / name
        return path if path.exists() else None

    def has_room(self, size: int) -> bool:
        """Whether size bytes fit; after the first failure always False.

        The folder is scanned only after 1/32 of the free space has been used, because scanning it for every clip takes
        quadratic time. Other processes may exceed the limit by as much in between.
        """
        if self._full or size > self._limit:
            return False
        self._new += size
        if self._new > (self._limit - self._used) / 32:
            self._used, self._new = 0, size
            with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        self._used += entry.stat().st_size
        self._full = self._used + self._new > self._limit
        return not self._full

    @contextlib.contextmanager
    def add(self, name: str) -> Iterator[Any]:
        """A file to write; it appears under its name when complete. If the disk is full, no file appears; no error."""
        part = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                part = Path(file.name)
                yield file
            part.replace(self._folder / name)
        except OSError as error:
            self._full = True
            log.warning("%s cannot store more (%s)", self._folder, error)
        finally:
            if part is not None:
                part.unlink(missing_ok=True)


def _hold(folder: Path) -> IO[str] | None:
    """Lock a folder until the process ends; None if that is impossible or another process holds the lock."""
    try:
        return hold(folder / "lock", "a")
    except (ImportError, OSError):
        return None


def _remove(folder: Path, lock: IO[str] | None, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            lock.close()


def temporary_folder(parent: Path, owner: object) -> Path:
    """A folder that is deleted with owner or the process; also deletes folders of killed processes."""
    for left in parent.glob("mimik-shelf-*"):
        lock = _hold(left) if (left / "lock").exists() else None
        if lock is not None:
            shutil.rmtree(left, ignore_errors=True)
            lock.close()
    folder = Path(tempfile.mkdtemp(prefix="mimik-shelf-", dir=parent))
    weakref.finalize(owner, _remove, folder, _hold(folder), os.getpid())
    return folder
