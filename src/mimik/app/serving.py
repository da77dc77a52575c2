"""Serving of an ASGI app on an address of this computer, and routes for the pages of a call."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from mimik.app.guard import LOOPBACK, App
from mimik.config import InputError, Option, check_options

CALL_PORT, STUDIO_PORT = 8764, 8765
_STARTED_WITHIN_S = 120.0
_SERVER_CLOSED_WITHIN_S = 0.3  # open pages keep connections alive
_MAX_OFFER = 1 << 17  # bytes


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Address, port and password of a served page."""

    host: Annotated[str, Option("Address at which the page is served.", "ADDRESS")] = LOOPBACK
    port: Annotated[
        int, Option("Port of the page; 0: any free port.", "N", range=(0, 65535), hint="0: any free port")
    ] = CALL_PORT
    password: Annotated[
        str | None,
        Option("Password of the page; required unless served on localhost.", "WORD", env="MIMIK_PASSWORD"),
    ] = None
    open_page: Annotated[bool, Option("Open the page in the browser.", flag="--open")] = True

    def __post_init__(self) -> None:
        check_options(self)


@contextmanager
def bound(where: Serving) -> Iterator[socket.socket]:
    """A listening socket. Raises InputError if the port cannot be used."""
    host, port = where.host, where.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        try:
            if os.name == "posix":  # on other systems it would let two programs share a port
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(128)
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
                said = f"--host {host}: is not an address of this computer; use {LOOPBACK}, or 0.0.0.0 for all."
                raise InputError(said) from None
            why = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f"--port {port}: cannot be used on {host} ({why}); use another port, or 0 for any free port."
            ) from None
        yield listening


def page_address(where: Serving, listening: socket.socket) -> str:
    """URL to open; for a server on all interfaces, the loopback address."""
    name = {"0.0.0.0": LOOPBACK, "localhost": LOOPBACK, "::": "::1"}.get(where.host, where.host)
    port = listening.getsockname()[1]
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


@contextmanager
def served(app: App, listening: socket.socket, command: str) -> Iterator[None]:
    """Serve in a thread while the block runs. Args: command: named in the message if the server cannot start."""
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="error", access_log=False, lifespan="on", timeout_graceful_shutdown=_SERVER_CLOSED_WITHIN_S
        )
    )
    log = logging.getLogger("uvicorn.error")

    def still_serves(record: logging.LogRecord) -> bool:  # at the end, it logs a traceback for every page that is open
        return not server.should_exit

    log.addFilter(still_serves)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        end_s = time.monotonic() + _STARTED_WITHIN_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > end_s:
                raise InputError(f"the app could not be started; start `{command}` again, with another --port.")
            time.sleep(0.02)
        yield
    finally:
        server.should_exit = True
        thread.join(_STARTED_WITHIN_S)
        log.removeFilter(still_serves)


class CallHost(Protocol):
    """The calls behind some pages; `key` identifies a call, or the requesting browser."""

    def file(self, key: str, name: str) -> tuple[str, str] | None: ...

    def recording(self, key: str, name: str) -> Path | None: ...

    async def offer(self, key: str, asked: Any, remote: str) -> tuple[int, dict[str, str]]: ...


def add_call_routes(app: Any, calls: CallHost, below: str, key_of: Callable[[Any], str], lost: str) -> None:
    """Add the routes for the pages of calls to a Starlette app.

    Args:
        calls: handles the requests.
        below: common prefix of the paths.
        key_of: key of a request.
        lost: text for a page that does not exist.
    """
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

    async def page(request: Request) -> Response:
        found = calls.file(key_of(request), request.path_params["name"])
        return Response(found[0], media_type=found[1]) if found else PlainTextResponse(f"{lost}\n", status_code=404)

    async def recording(request: Request) -> Response:
        path = calls.recording(key_of(request), request.path_params["name"])
        if path is None:
            return PlainTextResponse("You have no such recording.\n", status_code=404)
        return FileResponse(path, filename=path.name)

    async def offer(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > _MAX_OFFER:
                return JSONResponse({"error": "This is not a connection offer."}, status_code=413)
        try:
            asked = json.loads(body)
        except ValueError:
            asked = None
        status, answer = await calls.offer(key_of(request), asked, request.client.host if request.client else LOOPBACK)
        return JSONResponse(answer, status_code=status)

    app.add_route(below + "recordings/{name}", recording, methods=["GET"])
    app.add_route(below + "offer", offer, methods=["POST"])
    app.add_route(below + "{name:path}", page, methods=["GET"])
