"""The page of `mimik live`: the camera comes in and the person goes out by WebRTC, controls over a data channel.

Served on the loopback interface, to whoever has the key that is in the address that is opened; on other interfaces to
whoever has the password. aiohttp and aiortc are imported when a page is served: nothing else needs them.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mimik.app.guard import check_host, has_password, is_loopback, refused, same
from mimik.app.live.call import Call, Shown
from mimik.app.live.recording import Recording
from mimik.app.live.sound import samples_of, to_live
from mimik.app.live.viewer import Viewer, in_loop
from mimik.config import InputError, install_command
from mimik.face.landmark_images import LANDMARK_LINES
from mimik.media import video
from mimik.provenance.credentials import Credentials

log = logging.getLogger(__name__)

HOST, PORT = "127.0.0.1", 8764
_FILES = {
    "/": ("live.html", "text/html"),
    "/obs": ("obs.html", "text/html"),
    "/live.js": ("live.js", "text/javascript"),
    "/live.css": ("live.css", "text/css"),
}
_COOKIE = "mimik-live"
_BITRATE = 3_000_000  # bits a second to start with; a page on the same machine can have more than a video call
_MAX_BITRATE = 6_000_000
# Browsers hide their addresses behind names that only multicast DNS knows, which waits for seconds where there is none.
# Where the request came from is as good: the browser's own checks tell the rest.
_HIDDEN_ADDRESS = re.compile(r"(a=candidate:(?:\S+ ){4})\S+\.local")
# The address that a connection's sockets are bound to; None: all of this computer's but loopback.
_BOUND_TO: ContextVar[str | None] = ContextVar("_BOUND_TO", default=None)
_MAX_PAGES = 24  # that see one call at a time
_MAX_UNREAD = 1 << 16  # bytes that wait for a page which does not read; what comes then is left out
_CLOSING_S = 2.0  # for what connections do when they are closed
_MAX_MESSAGE = 4096  # bytes of a control's message
_MAX_RECORDING_S = 600.0
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def needed() -> tuple[Any, Any]:
    """aiohttp.web and aiortc. Raises InputError if they are not installed."""
    try:
        import aiortc
        import aiortc.codecs.h264
        import aiortc.codecs.vpx
        import aiortc.rtcrtpreceiver
        from aiohttp import web
        from aioice import ice
    except ModuleNotFoundError as error:
        raise InputError(f"live needs {error.name}, which is not installed: {install_command('live')}.") from None
    for codec in (aiortc.codecs.vpx, aiortc.codecs.h264):  # there is no other way to say it
        codec.DEFAULT_BITRATE, codec.MAX_BITRATE = _BITRATE, _MAX_BITRATE
    if aiortc.rtcrtpreceiver.JitterBuffer.__name__ != _AT_ONCE:  # nor this
        aiortc.rtcrtpreceiver.JitterBuffer = _without_waiting(aiortc.rtcrtpreceiver.JitterBuffer)
    if not isinstance(ice.get_host_addresses, partial):  # nor this
        ice.get_host_addresses = partial(_host_addresses, ice.get_host_addresses)
    return web, aiortc


_AT_ONCE = "AtOnce"


def _without_waiting(buffer: Any) -> Any:
    """aiortc's buffer of sound without its 80 ms: what is delayed by the network is silence, and nothing is late."""

    def start(self: Any, capacity: int, prefetch: int = 0, is_video: bool = False) -> None:
        buffer.__init__(self, capacity, 0, is_video)

    return type(_AT_ONCE, (buffer,), {"__init__": start})


def _host_addresses(found: Callable[[bool, bool], list[str]], use_ipv4: bool, use_ipv6: bool) -> list[str]:
    """What aioice binds sockets to; of itself, found, it leaves loopback out."""
    address = _BOUND_TO.get()
    return found(use_ipv4, use_ipv6) if address is None else [address]


class Page:
    """The web server of one call."""

    def __init__(
        self,
        call: Call,
        *,
        host: str = HOST,
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
        self._web, self._aiortc = needed()
        self._call, self._host, self._password = call, host, password
        self._credentials = credentials
        self._key = secrets.token_urlsafe(24)
        self._camera: Any = None  # the connection that brings it
        self._filmed = ""  # whose it is
        self._connections: set[Any] = set()
        self._recordings: dict[str, tuple[str, Path]] = {}  # file name: who recorded it, where it is
        self._tasks: set[asyncio.Task[Any]] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="mimik-live-")
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

    async def start(self, port: int = PORT) -> None:
        """Serves; port 0 takes a free one. Raises InputError if the port is taken."""
        web = self._web

        @web.middleware
        async def guard(request: Any, handler: Callable[[Any], Any]) -> Any:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=1 << 17)
        for path in _FILES:
            app.router.add_get(path, self._file)
        app.router.add_get("/lines.json", self._lines)
        app.router.add_post("/offer", self._offer)
        app.router.add_get("/recordings/{name}", self._recording)
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
        for connection in list(self._connections):
            await connection.close()
        await self._runner.cleanup()
        for task in list(self._tasks):
            task.cancel()
        self._folder.cleanup()

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
        response.headers.update(_HEADERS)
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
        name, media_type = _FILES[request.path]
        text = resources.files("mimik").joinpath(f"assets/live/{name}").read_text(encoding="utf-8")
        return self._web.Response(text=text, content_type=media_type, charset="utf-8")

    async def _lines(self, request: Any) -> Any:
        """Which points are joined, and by which colour; `points` is the order in which a message has them."""
        parts = [
            {"points": list(points), "colour": list(colour), "closed": closed} for points, colour, closed in _LINES
        ]
        return self._web.json_response({"points": _POINTS, "lines": parts})

    async def _recording(self, request: Any) -> Any:
        who, path = self._recordings.get(request.match_info["name"], ("", Path()))
        if not who or who != self._visitor(request) or not path.is_file():
            return self._web.Response(status=404, text="There is no such recording of yours.\n")
        return self._web.FileResponse(path, headers={"Content-Disposition": f'attachment; filename="{path.name}"'})

    # The call.

    async def _offer(self, request: Any) -> Any:
        aiortc, web = self._aiortc, self._web
        try:
            asked = await request.json()
            sdp = _HIDDEN_ADDRESS.sub(rf"\g<1>{request.remote}", str(asked["sdp"]))
            offer = aiortc.RTCSessionDescription(sdp=sdp, type="offer")
            brings_camera = asked["role"] == "camera"
            # Firefox connects to no loopback address; the page asks for others when it could not connect.
            stays = is_loopback(self._host) and not asked.get("beyond_loopback", False)
        except (ValueError, KeyError, TypeError):
            return web.json_response({"error": "This is no offer of a connection."}, status=400)
        if len(self._connections) >= _MAX_PAGES:
            sentence = f"{_MAX_PAGES} pages see this call already; close one first."
            return web.json_response({"error": sentence}, status=503)
        visitor = self._visitor(request) or ""
        if brings_camera and self._camera is not None and visitor == self._filmed:
            await self._camera.close()  # the same browser again: its page was loaded anew
            self._camera = None
        if brings_camera and self._camera is not None:
            sentence = "Another page has the camera of this call; close it first."
            return web.json_response({"error": sentence}, status=409)
        _BOUND_TO.set(("::1" if ":" in self._host else HOST) if stays else None)  # of this request's task alone
        # No server outside is asked for addresses.
        connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self._connections.add(connection)
        if brings_camera:
            self._camera, self._filmed = connection, visitor
            self._call.reset()
        viewer = Viewer(self._call, aiortc)
        desk = _Desk(self, visitor, viewer)

        @connection.on("track")
        def film(track: Any) -> None:
            if brings_camera:
                take = _film if track.kind == "video" else _listen
                self._keep(asyncio.ensure_future(take(track, self._call)))

        @connection.on("datachannel")
        def listen(channel: Any) -> None:
            if brings_camera:
                desk.attend(channel)

        @connection.on("connectionstatechange")
        async def ended() -> None:
            if connection.connectionState in ("failed", "closed", "disconnected"):
                viewer.close()
                await desk.close()
                self._connections.discard(connection)
                if self._camera is connection:
                    self._camera = None
                await connection.close()

        try:
            await connection.setRemoteDescription(offer)
            connection.addTrack(viewer.track)
            if "\nm=audio" in sdp:
                connection.addTrack(viewer.sound)
            await connection.setLocalDescription(await connection.createAnswer())
        except Exception as error:  # whatever aiortc says of a description that it cannot use
            log.info("an offer was refused: %s", error)
            viewer.close()
            await connection.close()
            self._connections.discard(connection)
            if self._camera is connection:
                self._camera = None
            return web.json_response({"error": "This browser's offer of a connection cannot be used."}, status=400)
        answer = connection.localDescription
        return web.json_response({"sdp": answer.sdp, "type": answer.type})

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _film(track: Any, call: Call) -> None:
    """Camera frames into the call, until the track ends."""
    from aiortc.mediastreams import MediaStreamError

    try:
        while True:
            frame = await track.recv()
            call.offer(partial(video.rgb_of, frame), time.perf_counter())
    except MediaStreamError:  # the track ended
        return
    except Exception as error:  # of a decoder, or of the call: told on the page
        call.complain(f"the camera's frames cannot be used any more ({error}); reload the page.")


async def _listen(track: Any, call: Call) -> None:
    """The microphone's sound into the call, until the track ends."""
    resampler = to_live()
    while True:
        try:
            frame = await track.recv()
        except Exception:  # aiortc's MediaStreamError: the track ended
            return
        call.hear(samples_of(resampler, frame))


class _Desk:
    """The controls of the page that has the camera, over its data channel."""

    def __init__(self, page: Page, visitor: str, viewer: Viewer) -> None:
        self._page, self._visitor, self._viewer = page, visitor, viewer
        self._call = page._call
        self._channel: Any = None
        self._recording: Recording | None = None
        self._forget: Callable[[], None] = lambda: None
        self._told_s = 0.0

    def attend(self, channel: Any) -> None:
        self._channel = channel
        self._forget = self._call.on_shown(in_loop(asyncio.get_running_loop(), self._tell_face))

        @channel.on("message")
        def hear(message: Any) -> None:
            try:
                self._hear(message)
            except InputError as error:
                self._tell({"error": str(error)})

        self._tell_state()

    def _hear(self, message: Any) -> None:
        try:
            if len(message) > _MAX_MESSAGE:
                raise ValueError
            asked = json.loads(message)
            what, value = next(iter(asked.items()))
        except (ValueError, AttributeError, StopIteration):
            raise InputError("this message of the page is not understood.") from None
        if what == "set" and isinstance(value, dict):
            if isinstance(value.get("regions"), list):
                value["regions"] = tuple(map(str, value["regions"]))
            self._call.set(**{str(name): one for name, one in value.items()})
        elif what == "calibrate":
            self._call.calibrate()
        elif what == "record" and value is True and self._recording is None:
            name = f"mimik-{secrets.token_hex(4)}.mp4"
            out = Path(self._page._folder.name, name)
            self._recording = Recording(self._call, out, credentials=self._page._credentials, max_s=_MAX_RECORDING_S)
        elif what == "record" and value is False:
            self._page._keep(asyncio.ensure_future(self._stop_recording(keep=True)))
        else:
            raise InputError("this message of the page is not understood.")
        self._tell_state()

    async def _stop_recording(self, *, keep: bool) -> None:
        recording, self._recording = self._recording, None
        if recording is None:
            return
        try:
            path = await asyncio.to_thread(recording.stop, keep=keep)
        except InputError as error:
            self._tell({"error": str(error)})
            return
        if keep:
            self._page._recordings[path.name] = self._visitor, path
            self._tell({"recorded": f"recordings/{path.name}", "frames": recording.num_frames})
        self._tell_state()

    async def close(self) -> None:
        self._forget()
        self._channel = None
        await self._stop_recording(keep=False)

    def _tell(self, message: dict[str, Any]) -> None:
        channel = self._channel
        if channel is not None and channel.readyState == "open" and channel.bufferedAmount < _MAX_UNREAD:
            channel.send(json.dumps(message, separators=(",", ":")))

    def _tell_face(self, shown: Shown) -> None:
        now = time.perf_counter()
        server_ms = 1000 * (now - shown.at_s) + self._viewer.sending_ms
        message: dict[str, Any] = {"shown": shown.number, "ms": round(server_ms, 1)}
        if shown.number % 2 == 0:  # fifteen times a second are enough for the lines over one's own picture
            points = None if shown.face is None else np.round(shown.face[_POINTS] * 1000).astype(int).ravel().tolist()
            message["face"] = points
        self._tell(message)
        if now - self._told_s > 0.5:
            self._told_s = now
            self._tell_state()

    def _tell_state(self) -> None:
        call = self._call
        controls = call.controls
        while call.complaints:
            self._tell({"error": call.complaints.popleft()})
        if self._recording is not None and self._recording.error is not None:
            self._recording = None
        self._tell(
            {
                "state": {
                    "mirror": controls.mirror,
                    "regions": list(controls.regions),
                    "strength": controls.strength,
                    "freeze": controls.freeze,
                    "driver": controls.driver,
                    "label": controls.label,
                    "calibrating": call.is_calibrating,
                    "recording": self._recording is not None,
                    "fps": round(call.frames_per_second, 1),
                    "broken": None if call.error is None else "the call has broken off; start `mimik live` again.",
                }
            }
        )


# Points of the landmark lines, once each, and the lines as places among them.
_POINTS = sorted({int(i) for index, _, _ in LANDMARK_LINES for i in index})
_LINES = [([_POINTS.index(int(i)) for i in index], colour, closed) for index, colour, closed in LANDMARK_LINES]


def serve(
    call: Call,
    *,
    host: str = HOST,
    port: int = PORT,
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
