"""Each visitor's place on this computer: a folder, and what is being worked on there."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from mimik.app.edit import Editor
from mimik.config import check_number
from mimik.provenance.marking import Marker


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a visitor may ask for."""

    upload_mb: int = 200
    seconds: float = 120.0  # of a driving video
    photos: int = 32  # of a person

    def __post_init__(self) -> None:
        check_number("--max-mb", self.upload_mb, 1, 4096, "megabytes of an upload")
        check_number("--max-seconds", self.seconds, 1, 3600, "of a driving video")


@dataclass
class Desk:
    """One visitor's place: a folder, and what is being worked on there.

    Attributes:
        stop: set when the work that was asked for last shall end, whether it has begun or still waits.
    """

    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)
    editor: tuple[str, Editor, Marker] | None = None
    num_files: int = 0

    def ask(self) -> None:
        """Work is asked for: what was stopped before stays stopped, the new work is not."""
        self.stop = threading.Event()

    def new(self, name: str) -> Path:
        """A file of the visitor's that does not exist yet, in a folder of its own so that its name stays plain."""
        self.num_files += 1
        place = self.folder / str(self.num_files)
        place.mkdir()
        return place / name


class Desks:
    """All visitors' places, below one folder that goes with the app.

    They lie in the folder from which gradio serves, so that it makes no copies of them, which would outlive the visit.
    It serves a file there to whoever names it: the names of the places cannot be guessed.
    """

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="mimik-web-")
        self.cache = Path(self._root.name, "cache")
        self.cache.mkdir()
        self._desks: dict[str, Desk] = {}
        self._lock = threading.Lock()

    def of(self, visitor: str | None) -> Desk:
        with self._lock:
            if visitor not in self._desks:
                folder = self.cache / secrets.token_urlsafe(24)
                folder.mkdir(mode=0o700)
                self._desks[str(visitor)] = Desk(folder)
            return self._desks[str(visitor)]

    def leave(self, visitor: str | None) -> None:
        with self._lock:
            desk = self._desks.pop(str(visitor), None)
        if desk is not None:
            desk.stop.set()
            shutil.rmtree(desk.folder, ignore_errors=True)

    def close(self) -> None:
        for visitor in list(self._desks):
            self.leave(visitor)
        self._root.cleanup()
