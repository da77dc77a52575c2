"""Sessions of visitors: a folder, its jobs, and limits."""

from __future__ import annotations

import math
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

KEPT_S = 3600  # time after its last use until a session is removed
LOOK_EVERY_S = 300


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a visitor."""

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
    """The visitor pressed Stop; no results are kept."""


@dataclass(frozen=True)
class Job:
    """A waiting or running job of a visitor."""

    session: Session
    number: int

    @property
    def is_stopped(self) -> bool:
        return self.number <= self.session.num_stopped

    def check(self) -> None:
        """Raises:
        StoppedError: if the visitor pressed Stop after requesting this job, even while it waited.
        """
        if self.is_stopped:
            raise StoppedError

    @contextmanager
    def running(self) -> Iterator[None]:
        """Mark the session as in use during the block. Raises StoppedError if the job was stopped while it waited."""
        with self.session.in_use():
            self.check()
            yield


@dataclass
class Session:
    """One visitor's session."""

    folder: Path  # only for the visitor's files
    editing: threading.Lock = field(default_factory=threading.Lock)  # held while `editor` is looked up or created
    editor: tuple[Any, Any] | None = None  # the editor, after the arguments that it was created from
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _num_files: int = 0
    _num_jobs: int = 0
    num_stopped: int = 0  # jobs up to this number are stopped
    _num_running: int = 0
    _stopped_s: float = -math.inf  # time of the last stop
    _used_s: float = field(default_factory=time.monotonic)

    def new(self, name: str) -> Path:
        """Path of a new file of the visitor, in a separate folder so that its name needs no suffix."""
        with self._lock:
            self._num_files += 1
            place = self.folder / str(self._num_files)
        place.mkdir()
        return place / name

    def begin(self, asked_s: float | None = None) -> Job:
        """Create a job; it may wait before it runs.

        Args: asked_s: when it was requested, by time.monotonic, if it has waited already; None: now. A job that was
            requested before the last stop is stopped.
        """
        with self._lock:
            self._num_jobs += 1
            self._used_s = time.monotonic()
            return Job(self, 0 if asked_s is not None and asked_s <= self._stopped_s else self._num_jobs)

    def stop(self) -> None:
        """Stop all jobs requested so far, running or waiting."""
        with self._lock:
            self.num_stopped = self._num_jobs
            self._stopped_s = time.monotonic()

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
        """Whether the session was unused for this many seconds."""
        return not self._num_running and time.monotonic() - self._used_s > seconds


class Sessions:
    """Sessions of all visitors, in one folder that is removed with the app.

    They are in gradio's cache folder, so that gradio makes no copies, which would outlive the session. gradio serves
    these files to anybody who knows their path, so the folder names are unguessable.
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
        """The session of a visitor; a new one for a program that sends no name."""
        name = visitor or secrets.token_urlsafe(24)
        with self._lock:
            if name not in self._sessions:
                folder = self.cache / secrets.token_urlsafe(24)
                folder.mkdir(mode=0o700)
                self._sessions[name] = Session(folder)
            return self._sessions[name]

    def leave(self, visitor: str | None) -> None:
        """Stop a visitor's jobs and delete the session's files."""
        with self._lock:
            session = self._sessions.pop(str(visitor), None)
        if session is not None:
            session.stop()
            shutil.rmtree(session.folder, ignore_errors=True)

    def stop_all(self) -> None:
        """Stop all jobs."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.stop()

    def remove_idle(self, seconds: float) -> None:
        """Remove sessions that were unused for this many seconds."""
        with self._lock:
            idle = [visitor for visitor, session in self._sessions.items() if session.is_idle(seconds)]
        for visitor in idle:
            self.leave(visitor)

    def _look(self) -> None:
        while not self._closed.wait(LOOK_EVERY_S):
            self.remove_idle(KEPT_S)

    def close(self) -> None:
        """Remove everything."""
        self._closed.set()
        for visitor in list(self._sessions):
            self.leave(visitor)
        self._root.cleanup()
