"""Calls inside another server; the pages of each have an unguessable URL."""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimik.animation.avatar import Avatar
from mimik.app.live.call import Call
from mimik.app.live.connections import Connections, page_file
from mimik.config import AnimateConfig, InputError

UNSEEN_S = 120.0  # a call without a page ends after this time, which includes the time to allow the camera
_LOOK_EVERY_S = 2.0
_ENDED = {"error": "This call has ended; start it again."}


@dataclass
class _Hosted:
    """A running call."""

    visitor: str
    call: Call
    connections: Connections
    kept: ExitStack  # closed when the call ends
    seen_s: float = field(default_factory=time.monotonic)


class Calls:
    """The calls of one server, at most one at a time, because a call needs all cores. Thread-safe."""

    def __init__(self, host: str) -> None:
        """Args: host: the address that is served."""
        self._host = host
        self._hosted: dict[str, _Hosted] = {}  # by key
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def begin(self, visitor: str, avatar: Avatar, config: AnimateConfig, kept: ExitStack) -> str:
        """Start a call; an earlier call of the same visitor ends.

        Args: kept: closed when the call has ended or failed to start.

        Returns:
            The key, which grants viewing and control of the call.

        Raises:
            InputError: if a call of another visitor is running, or the settings are not valid for a call.
        """
        with kept:
            self.end(visitor)
            with self._lock:
                if self._hosted:
                    raise InputError("another call is running on this computer; it must end before yours can start.")
                call = Call(avatar, config)
                connections = Connections(call, host=self._host, again="start it again.")
                key = secrets.token_urlsafe(24)
                call.__enter__()
                self._hosted[key] = _Hosted(visitor, call, connections, kept.pop_all())
            return key

    def end(self, visitor: str) -> None:
        """End a visitor's call, if any."""
        for key, hosted in list(self._hosted.items()):
            if hosted.visitor == visitor:
                self._end(key)

    def close(self) -> None:
        """End all calls."""
        self._closed.set()
        for key in list(self._hosted):
            self._end(key)

    def file(self, key: str, name: str) -> tuple[str, str] | None:
        """Text and media type of a file of a call's pages; None if the call or the file does not exist."""
        hosted = self._hosted.get(key)
        if hosted is None:
            return None
        hosted.seen_s = time.monotonic()
        return page_file(name)

    def recording(self, key: str, name: str) -> Path | None:
        """Path of a recording; None if there is none."""
        hosted = self._hosted.get(key)
        return hosted.connections.recording(key, name) if hosted else None

    async def offer(self, key: str, asked: Any, remote: str) -> tuple[int, dict[str, str]]:
        """See Connections.offer."""
        hosted = self._hosted.get(key)
        if hosted is None:
            return 404, _ENDED
        hosted.seen_s = time.monotonic()
        return await hosted.connections.offer(key, asked, remote)

    def _end(self, key: str) -> None:
        with self._lock:
            hosted = self._hosted.pop(key, None)
        if hosted is None:
            return
        with hosted.kept:
            hosted.connections.close()
        hosted.call.__exit__(None, None, None)

    def _look(self) -> None:
        """End calls without pages, because a closed page sends no message."""
        while not self._closed.wait(_LOOK_EVERY_S):
            for key, hosted in list(self._hosted.items()):
                if hosted.connections.num_pages:
                    hosted.seen_s = time.monotonic()
                elif time.monotonic() - hosted.seen_s > UNSEEN_S or hosted.call.error is not None:
                    self._end(key)
