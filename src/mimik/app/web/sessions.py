"""Each visitor's place on this computer: a folder, the work that was asked for there, and what may be asked for."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from mimik.config import Option, check_options

KEPT_S = 3600  # after its last use a place is removed
LOOK_EVERY_S = 300


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a visitor may ask for."""

    upload_mb: Annotated[
        int, Option("Largest upload, in megabytes.", "MB", "--max-mb", range=(1, 4096), hint="megabytes of an upload")
    ] = 200
    seconds: Annotated[
        float,
        Option("Longest driving video, in seconds.", "S", "--max-seconds", range=(1, 3600), hint="of a driving video"),
    ] = 120.0
    photos: int = 32  # of a person, or of a batch

    def __post_init__(self) -> None:
        check_options(self)


class StoppedError(Exception):
    """The visitor pressed Stop; nothing that was made is kept."""


@dataclass(frozen=True)
class Job:
    """Work that a visitor asked for, waiting or running."""

    session: Session
    number: int

    @property
    def is_stopped(self) -> bool:
        return self.number <= self.session.num_stopped

    def check(self) -> None:
        """Raises:
        StoppedError: if the visitor pressed Stop after asking for this, even while it waited.
        """
        if self.is_stopped:
            raise StoppedError

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the block runs, the session is in use. Raises StoppedError if it was stopped while it waited."""
        with self.session.in_use():
            self.check()
            yield


@dataclass
class Session:
    """One visitor's place."""

    folder: Path  # for the visitor's files alone
    editing: threading.Lock = field(default_factory=threading.Lock)  # held while `editor` is looked up or made
    editor: tuple[Any, Any] | None = None  # what answers to the sliders, and what it was made from
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _num_files: int = 0
    _num_jobs: int = 0
    num_stopped: int = 0  # jobs up to this number are to end
    _num_running: int = 0
    _used_s: float = field(default_factory=time.monotonic)

    def new(self, name: str) -> Path:
        """A file of the visitor's that does not exist yet, in a separate folder so that its name stays plain."""
        with self._lock:
            self._num_files += 1
            place = self.folder / str(self._num_files)
        place.mkdir()
        return place / name

    def begin(self) -> Job:
        """Work that is asked for; it may wait before it runs."""
        with self._lock:
            self._num_jobs += 1
            self._used_s = time.monotonic()
            return Job(self, self._num_jobs)

    def stop(self) -> None:
        """Ends all work that was asked for so far, whether it runs or waits."""
        with self._lock:
            self.num_stopped = self._num_jobs

    @contextmanager
    def in_use(self) -> Iterator[None]:
        with self._lock:
            self._num_running += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_running -= 1
                self._used_s = time.monotonic()

    def is_idle(self, seconds: float) -> bool:
        """Whether nothing was done here for so long."""
        return not self._num_running and time.monotonic() - self._used_s > seconds


class Sessions:
    """All visitors' places, below one folder that goes with the app.

    They lie in the folder from which gradio serves, so that it makes no copies of them, which would outlive the visit.
    It serves a file there to whoever names it: the names of the places cannot be guessed.
    """

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="mimik-web-")
        self.cache = Path(self._root.name, "cache")
        self.cache.mkdir()
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def of(self, visitor: str | None) -> Session:
        """The place of a visitor; a new one for a program that does not say who it is."""
        name = visitor or secrets.token_urlsafe(24)
        with self._lock:
            if name not in self._sessions:
                folder = self.cache / secrets.token_urlsafe(24)
                folder.mkdir(mode=0o700)
                self._sessions[name] = Session(folder)
            return self._sessions[name]

    def leave(self, visitor: str | None) -> None:
        """Ends a visitor's work and removes the files."""
        with self._lock:
            session = self._sessions.pop(str(visitor), None)
        if session is not None:
            session.stop()
            shutil.rmtree(session.folder, ignore_errors=True)

    def stop_all(self) -> None:
        """Ends all work."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.stop()

    def remove_idle(self, seconds: float) -> None:
        """Removes the places that were not used for so long."""
        with self._lock:
            idle = [visitor for visitor, session in self._sessions.items() if session.is_idle(seconds)]
        for visitor in idle:
            self.leave(visitor)

    def _look(self) -> None:
        while not self._closed.wait(LOOK_EVERY_S):
            self.remove_idle(KEPT_S)

    def close(self) -> None:
        """Removes everything."""
        self._closed.set()
        for visitor in list(self._sessions):
            self.leave(visitor)
        self._root.cleanup()
