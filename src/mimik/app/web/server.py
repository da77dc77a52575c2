"""Serves the app: who may use it, on which address, and what is removed at the end."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from typing import Any

from mimik.app.guard import CONTENT_POLICY, LOOPBACK, check_host, has_password, refused
from mimik.app.live.hosting import Calls
from mimik.app.web import examples
from mimik.app.web.page import build_page, looks
from mimik.app.web.parts import gradio_needed
from mimik.app.web.sessions import Limits, Sessions
from mimik.config import AnimateConfig, InputError

STUDIO_HOST, STUDIO_PORT = LOOPBACK, 8765
_STARTED_WITHIN_S = 120.0
_CLOSED_WITHIN_S = 2  # pages that are open hold connections
_HEADERS = (  # as `mimik live` sends them; gradio's page has scripts inside
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_UNFRAMED = (b"x-frame-options", b"DENY")
_CALL = "/call/"  # of calls, which the page shows in a frame
_CALL_HEADERS = (
    (b"content-security-policy", CONTENT_POLICY.replace("'none'", "'self'").encode()),
    (b"cache-control", b"no-store"),
)
_MAX_OFFER = 1 << 17  # bytes

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]


def guarded_app(app: App, *, host: str, password: str | None) -> App:
    """An ASGI app that answers only who may use it; others get one sentence.

    Args:
        app: what is served.
        host: the address that it is served on.
        password: of every request; None for none.
    """

    async def answer(scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        no = refused(host, headers.get("host", ""), headers.get("origin"))
        ask: list[tuple[bytes, bytes]] = []
        if no is None and password and not has_password(headers.get("authorization", ""), password):
            no = 401, "A password is needed.\n"
            ask = [(b"www-authenticate", b'Basic realm="mimik web", charset="UTF-8"')]
        if no is None:
            more = _CALL_HEADERS if scope.get("path", "").startswith(_CALL) else (_UNFRAMED,)
            await app(scope, receive, _with_headers(send, more))
        elif scope["type"] == "http":
            start = [(b"content-type", b"text/plain; charset=utf-8"), *ask, *_HEADERS, _UNFRAMED]
            await send({"type": "http.response.start", "status": no[0], "headers": start})
            await send({"type": "http.response.body", "body": no[1].encode()})
        else:
            await send({"type": "websocket.close", "code": 1008})

    return answer


def _with_headers(send: Send, more: Sequence[tuple[bytes, bytes]]) -> Send:
    async def sent(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = message | {"headers": [*message.get("headers", ()), *_HEADERS, *more]}
        await send(message)

    return sent


def _serve_calls(app: Any, calls: Calls) -> None:
    """Adds what the pages of calls ask for; a call's address is a secret of its visitor."""
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

    async def page(request: Request) -> Response:
        found = calls.file(request.path_params["key"], request.path_params["name"])
        if found is None:
            return PlainTextResponse("This call has ended; start it again.\n", status_code=404)
        return Response(found[0], media_type=found[1])

    async def recording(request: Request) -> Response:
        path = calls.recording(request.path_params["key"], request.path_params["name"])
        if path is None:
            return PlainTextResponse("There is no such recording of yours.\n", status_code=404)
        return FileResponse(path, filename=path.name)

    async def offer(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > _MAX_OFFER:
                return JSONResponse({"error": "This is no offer of a connection."}, status_code=413)
        try:
            asked = json.loads(body)
        except ValueError:
            asked = None
        remote = request.client.host if request.client else LOOPBACK
        status, answer = await calls.offer(request.path_params["key"], asked, remote)
        return JSONResponse(answer, status_code=status)

    app.add_route(_CALL + "{key}/recordings/{name}", recording, methods=["GET"])
    app.add_route(_CALL + "{key}/offer", offer, methods=["POST"])
    app.add_route(_CALL + "{key}/{name:path}", page, methods=["GET"])


def serve_studio(
    *,
    host: str = STUDIO_HOST,
    port: int = STUDIO_PORT,
    password: str | None = None,
    model: str | None = None,
    limits: Limits | None = None,
    ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serves the app until stop is set or the program is interrupted; then everything of its visitors is removed.

    Args:
        host, port: where; port 0 takes any that is free.
        password: of every request; needed where host is not loopback.
        model: as AnimateConfig has it.
        limits: what visitors may ask for.
        ready: called with the address when the app can be opened.
        stop: may be set by another thread.

    Raises:
        InputError: if the host is not possible without a password, the port is taken, or gradio is missing.
    """
    check_host(host, password)
    AnimateConfig(model=model)
    limits = limits or Limits()
    with (
        closing(_bound(host, port)) as listening,
        closing(Sessions()) as sessions,
        closing(Calls(host)) as calls,
    ):
        gr = gradio_needed()
        import fastapi
        import uvicorn

        os.environ["GRADIO_TEMP_DIR"] = str(sessions.cache)
        gr.set_static_paths(examples.folders())
        _without_addresses(gr)
        blocks = build_page(sessions, calls, limits=limits, model=model)
        # Else gradio does not check that a file which a visitor names was uploaded.
        blocks.has_launched = True
        # Not Blocks.launch: that asks its own address by HTTP, through whatever proxy the environment names.
        app = fastapi.FastAPI(openapi_url=None)
        _serve_calls(app, calls)
        app = gr.mount_gradio_app(
            app,
            blocks,
            path="/",
            server_name=host,
            server_port=listening.getsockname()[1],
            max_file_size=limits.upload_mb * 1024 * 1024,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            mcp_server=False,
            footer_links=[],
            allowed_paths=[],
            **looks(),
        )
        config = uvicorn.Config(
            guarded_app(app, host=host, password=password),
            log_level="error",
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=_CLOSED_WITHIN_S,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            _wait_for(server, thread)
            if ready is not None:
                ready(_page_address(host, listening.getsockname()[1]))
            (stop or threading.Event()).wait()
        finally:
            sessions.stop_all()
            calls.close()  # while the loop of its connections runs
            server.should_exit = True
            thread.join(_STARTED_WITHIN_S)
            blocks.close(verbose=False)


def _without_addresses(gr: Any) -> None:
    """gradio would fetch a file that a visitor names by its address on the web; this computer asks no other."""

    async def fetch(url: str, cache_dir: str) -> str:
        raise gr.Error("Addresses are not fetched: upload the file.", print_exception=False)

    gr.processing_utils.async_ssrf_protected_download = fetch


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises InputError if the port cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two programs share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"--port {port}: cannot be used on {host} ({why}); give another one, or 0 for any that is free."
        ) from None
    return listening


def _wait_for(server: Any, thread: threading.Thread) -> None:
    end = time.monotonic() + _STARTED_WITHIN_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > end:
            raise InputError("the app could not be started; start `mimik web` again, with another --port.")
        time.sleep(0.02)


def _page_address(host: str, port: int) -> str:
    """What to open; the address of a server on all interfaces is this computer's own."""
    name = {"0.0.0.0": LOOPBACK, "localhost": LOOPBACK, "::": "::1"}.get(host, host)
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"
