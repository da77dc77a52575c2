"""The page of `mimik live`, served: live/connections.py brings the camera in and the person out.

Served on the loopback interface, to whoever has the key that is in the address that is opened; on other interfaces to
whoever has the password. aiohttp and aiortc are imported when a page is served: nothing else needs them.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mimik.app.guard import CONTENT_POLICY, check_host, has_password, refused, same
from mimik.app.live.call import Call
from mimik.app.live.connections import Connections, aiortc_needed, page_file
from mimik.config import InputError, install_command
from mimik.provenance.credentials import Credentials

CALL_HOST, CALL_PORT = "127.0.0.1", 8764
_COOKIE = "mimik-live"
_CLOSING_S = 2.0  # for what connections do when they are closed
_CALL_PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def aiohttp_needed() -> Any:
    """aiohttp.web. Raises InputError if it or aiortc is not installed."""
    aiortc_needed()
    try:
        from aiohttp import web
    except ModuleNotFoundError as error:
        raise InputError(f"live needs {error.name}, which is not installed: {install_command('live')}.") from None
    return web


class Page:
    """The web server of one call."""

    def __init__(
        self,
        call: Call,
        *,
        host: str = CALL_HOST,
        password: str | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """Args:
        call: that runs.
        host: the address to serve on.
        password: for every request; needed where host is not loopback.
        credentials: who signs recordings; this computer's own when None.

        Raises:
            InputError: if the host is not possible without a password, or a package is missing.
        """
        check_host(host, password)
        self._web = aiohttp_needed()
        self._host, self._password = host, password
        self._key = secrets.token_urlsafe(24)
        self.connections = Connections(call, host=host, again="start `mimik live` again.", credentials=credentials)
        self.port = 0

    @property
    def address(self) -> str:
        """Of the page, with the key."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "localhost") else self._host
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}/" + ("" if self._password else f"?key={self._key}")

    @property
    def obs_address(self) -> str:
        """Of the page without controls."""
        return self.address.replace(f":{self.port}/", f":{self.port}/obs")

    async def start(self, port: int = CALL_PORT) -> None:
        """Serves; port 0 takes a free one. Raises InputError if the port is taken."""
        web = self._web

        @web.middleware
        async def guard(request: Any, handler: Callable[[Any], Any]) -> Any:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=1 << 17)
        app.router.add_get("/recordings/{name}", self._recording)
        app.router.add_post("/offer", self._offer)
        app.router.add_get("/{name:[^/]*}", self._file)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise InputError(
                f"--port {port}: cannot be used on {self._host} ({error.strerror}); give another one, or 0 for any "
                "that is free."
            ) from None
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Ends all connections and removes what was recorded for download."""
        await self.connections.close()
        await self._runner.cleanup()

    # Who may.

    async def _guard(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """A stranger's page that is open in the same browser, and another user's program, get one sentence."""
        web = self._web
        if no := refused(self._host, request.headers.get("Host", ""), request.headers.get("Origin")):
            return web.Response(status=no[0], text=no[1])
        if self._password:
            if not has_password(request.headers.get("Authorization", ""), self._password):
                ask = {"WWW-Authenticate": 'Basic realm="mimik live", charset="UTF-8"'}
                return web.Response(status=401, text="A password is needed.\n", headers=ask)
        elif not same(request.query.get("key", ""), self._key) and not self._visitor(request):
            return web.Response(
                status=403, text="Open the address that `mimik live` printed: it has the key of this call.\n"
            )
        response = await handler(request)
        response.headers.update(_CALL_PAGE_HEADERS)
        if not self._visitor(request):
            value = secrets.token_urlsafe(24)
            value += "." + self._stamp(value)
            response.set_cookie(_COOKIE, value, httponly=True, samesite="Strict", path="/")
        return response

    def _visitor(self, request: Any) -> str | None:
        """Which browser this is, by the cookie that it was given."""
        name, _, stamp = request.cookies.get(_COOKIE, "").partition(".")
        return name if name and same(stamp, self._stamp(name)) else None

    def _stamp(self, name: str) -> str:
        return hmac.new(self._key.encode(), name.encode(), "sha256").hexdigest()

    # What is served.

    async def _file(self, request: Any) -> Any:
        found = page_file(request.path[1:])
        if found is None:
            raise self._web.HTTPNotFound
        return self._web.Response(text=found[0], content_type=found[1], charset="utf-8")

    async def _recording(self, request: Any) -> Any:
        path = self.connections.recording(request.match_info["name"], self._visitor(request))
        if path is None:
            return self._web.Response(status=404, text="There is no such recording of yours.\n")
        return self._web.FileResponse(path, headers={"Content-Disposition": f'attachment; filename="{path.name}"'})

    # The call.

    async def _offer(self, request: Any) -> Any:
        try:
            asked = await request.json()
        except ValueError:
            asked = None
        status, answer = await self.connections.offer(
            asked, remote=request.remote, visitor=self._visitor(request) or ""
        )
        return self._web.json_response(answer, status=status)


def serve_call(
    call: Call,
    *,
    host: str = CALL_HOST,
    port: int = CALL_PORT,
    password: str | None = None,
    credentials: Credentials | None = None,
    ready: Callable[[Page], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serves the page of a running call until stop is set, the call breaks, or the program is interrupted.

    Args:
        call, host, port, password, credentials: as Page and Page.start take them.
        ready: called when the page can be opened.
        stop: may be set by another thread.
    """
    page = Page(call, host=host, password=password, credentials=credentials)
    ended_by: list[int] = []

    async def run() -> None:
        await page.start(port)
        with _signals_heard(ended_by):
            try:
                if ready is not None:
                    ready(page)
                while not (ended_by or (stop is not None and stop.is_set())) and call.error is None:
                    await asyncio.sleep(0.1)
            finally:
                await page.close()
                await _others_ended()

    asyncio.run(run())
    if ended_by:
        sys.exit(128 + ended_by[0])
    if call.error is not None:
        raise call.error


async def _others_ended() -> None:
    """Waits for what connections do when they are closed, which tasks of their own do; ends what takes long."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, late = await asyncio.wait(others, timeout=_CLOSING_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


@contextmanager
def _signals_heard(into: list[int]) -> Iterator[None]:
    """SIGTERM and SIGHUP end a call as Ctrl-C does, with its connections closed; what came is appended."""
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]:
            handler = signal.getsignal(number)
            with suppress(NotImplementedError):  # Windows has no signals in a loop
                loop.add_signal_handler(number, into.append, number)
                before[number] = handler
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
