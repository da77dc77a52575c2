"""WebRTC connections of a call: receive the camera and the microphone of a page, send the person's video and sound.

The server of the page forwards the connection offers that the page posts. aiortc is imported when a page is served.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mimik.app.guard import LOOPBACK, is_loopback
from mimik.app.live.call import Call, Shown
from mimik.app.live.recording import Recording
from mimik.app.live.sound import samples_of, to_live
from mimik.app.live.viewer import Viewer, in_loop, portrait_encoder
from mimik.config import InputError, extra
from mimik.face.landmark_images import LANDMARK_LINES
from mimik.files import asset
from mimik.media import video
from mimik.provenance.credentials import Credentials

log = logging.getLogger(__name__)

_PAGE_FILES = {  # files of a call's pages: path, file in assets/live, and media type
    "": ("live.html", "text/html"),
    "obs": ("obs.html", "text/html"),
    "live.js": ("live.js", "text/javascript"),
    "live.css": ("live.css", "text/css"),
}
_BITRATE = 3_000_000  # initial bits per second; a page on the same computer can get more than a video call
_MAX_BITRATE = 6_000_000
# Browsers hide their addresses behind mDNS names, whose resolution takes seconds without mDNS. The address of the
# request is equivalent, because WebRTC's connectivity checks verify it.
_HIDDEN_ADDRESS = re.compile(r"(a=candidate:(?:\S+ ){4})\S+\.local")
# Address that a connection's sockets are bound to; None: all addresses of this computer but loopback.
_BOUND_TO: ContextVar[str | None] = ContextVar("_BOUND_TO", default=None)
_MAX_PAGES = 24  # largest number of concurrent pages of a call
_MAX_UNREAD = 1 << 16  # bytes buffered for a slow page; further messages are dropped
_MAX_PAGE_NAME = 40  # letters
_MAX_MESSAGE = 4096  # bytes of a control message
_MAX_RECORDING_S = 600.0
_ENDED_WITHIN_S = 10.0
_CLOSED_WITHIN_S = 5.0  # of one connection


def page_file(name: str) -> tuple[str, str] | None:
    """Text and media type of a file of a call's pages, by path relative to the call's URL; None if there is none."""
    if name == "lines.json":
        # Connected points and their colors; `points` is the order of points in messages.
        parts = [{"points": list(points), "color": list(color), "closed": closed} for points, color, closed in _LINES]
        return json.dumps({"points": _POINTS, "lines": parts}), "application/json"
    if name not in _PAGE_FILES:
        return None
    file, media_type = _PAGE_FILES[name]
    return asset(f"live/{file}").read_text(encoding="utf-8"), media_type


def aiortc_needed() -> Any:
    """Import and patch aiortc for calls. Raises InputError if it is not installed."""
    with extra("live", "live"):
        import aiortc
        import aiortc.codecs
        import aiortc.codecs.h264
        import aiortc.codecs.vpx
        import aiortc.rtcrtpreceiver
        from aioice import ice
    for codec in (aiortc.codecs.vpx, aiortc.codecs.h264):  # aiortc has no setting for it
        codec.DEFAULT_BITRATE, codec.MAX_BITRATE = _BITRATE, _MAX_BITRATE
    if aiortc.codecs.Vp8Encoder is aiortc.codecs.vpx.Vp8Encoder:  # likewise
        aiortc.codecs.Vp8Encoder = portrait_encoder(aiortc.codecs.vpx)
    if aiortc.rtcrtpreceiver.JitterBuffer.__name__ != _AT_ONCE:  # likewise
        aiortc.rtcrtpreceiver.JitterBuffer = _without_waiting(aiortc.rtcrtpreceiver.JitterBuffer)
    if not isinstance(ice.get_host_addresses, partial):  # likewise
        ice.get_host_addresses = partial(_host_addresses, ice.get_host_addresses)
    return aiortc


_AT_ONCE = "AtOnce"


def _without_waiting(buffer: Any) -> Any:
    """aiortc's jitter buffer for sound without its 80 ms prefetch: late packets become silence; minimal latency."""

    def start(self: Any, capacity: int, prefetch: int = 0, is_video: bool = False) -> None:
        buffer.__init__(self, capacity, 0, is_video)

    return type(_AT_ONCE, (buffer,), {"__init__": start})


def _host_addresses(found: Callable[[bool, bool], list[str]], use_ipv4: bool, use_ipv6: bool) -> list[str]:
    """Addresses that aioice binds sockets to; found: aioice's own function, which excludes loopback."""
    address = _BOUND_TO.get()
    return found(use_ipv4, use_ipv6) if address is None else [address]


class Connections:
    """The connections of one call; they run in one asyncio loop."""

    def __init__(self, call: Call, *, host: str, again: str, credentials: Credentials | None = None) -> None:
        """Raises InputError if a package is missing.

        Args:
            host: the address that its page is served on.
            again: instruction for the user if the call has failed.
            credentials: for signing recordings; None: this computer's own.
        """
        self._aiortc = aiortc_needed()
        self._call, self._host, self._credentials, self._restart_hint = call, host, credentials, again
        self._camera: Any = None  # connection that sends the camera
        self._camera_visitor = ""  # visitor of that connection
        self._camera_page = ""  # page of that connection
        self._superseded_pages: deque[str] = deque(maxlen=4 * _MAX_PAGES)  # pages that lost the camera to a newer one
        self._connections: set[Any] = set()
        self._recordings: dict[str, tuple[str, Path]] = {}  # file name: visitor, path
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # loop in which offers arrive
        self._folder = tempfile.TemporaryDirectory(prefix="mimik-live-")

    @property
    def num_pages(self) -> int:
        """Number of connected pages."""
        return len(self._connections)

    async def aclose(self) -> None:
        """Close all connections and delete recordings for download."""
        await asyncio.gather(*map(self._end, list(self._connections)))
        for task in list(self._tasks):
            task.cancel()
        self._folder.cleanup()

    def close(self) -> None:
        """Thread-safe aclose, for use outside of the loop, which may have ended."""
        if self._loop is not None:
            closing = self.aclose()
            try:
                asyncio.run_coroutine_threadsafe(closing, self._loop).result(_ENDED_WITHIN_S)
            except TimeoutError:
                log.warning("the connections of a call did not close within %g s", _ENDED_WITHIN_S)
            except RuntimeError:  # an ended loop has no connections
                closing.close()
        self._folder.cleanup()

    def file(self, visitor: str, name: str) -> tuple[str, str] | None:
        """See page_file."""
        return page_file(name)

    def recording(self, visitor: str, name: str) -> Path | None:
        """Path of a recording for the visitor who made it; None for others."""
        who, path = self._recordings.get(name, ("", Path()))
        return path if who and who == visitor and path.is_file() else None

    async def offer(self, visitor: str, asked: Any, remote: str) -> tuple[int, dict[str, str]]:
        """Answer the connection offer of a page.

        Args:
            visitor: name of the browser; its page may take the camera again after a reload.
            asked: posted JSON: sdp, role (camera or viewer), beyond_loopback, page (an id that differs between loads).
            remote: client address.

        Returns:
            HTTP status, and the JSON response: a session description, or an error in one sentence.
        """
        aiortc, self._loop = self._aiortc, asyncio.get_running_loop()
        try:
            sdp = _HIDDEN_ADDRESS.sub(rf"\g<1>{remote}", str(asked["sdp"]))
            offer = aiortc.RTCSessionDescription(sdp=sdp, type="offer")
            brings_camera, page = asked["role"] == "camera", str(asked.get("page", ""))[:_MAX_PAGE_NAME]
            # Firefox does not connect to loopback addresses; the page requests others if it could not connect.
            stays = is_loopback(self._host) and not asked.get("beyond_loopback", False)
        except (ValueError, KeyError, TypeError):
            return 400, {"error": "This is not a connection offer."}
        if len(self._connections) >= _MAX_PAGES:
            return 503, {"error": f"{_MAX_PAGES} pages already show this call; close one first."}
        if brings_camera and (reason := await self._camera_refusal(visitor, page)):
            return 409, {"error": reason}
        _BOUND_TO.set(("::1" if ":" in self._host else LOOPBACK) if stays else None)  # only in this request's task
        # No external STUN or TURN servers are used.
        connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self._connections.add(connection)
        if brings_camera:
            self._camera, self._camera_visitor, self._camera_page = connection, visitor, page
            self._call.reset()
        viewer = Viewer(self._call, aiortc)
        controls = _ControlChannel(self, visitor, viewer)

        @connection.on("track")
        def on_track(track: Any) -> None:
            if brings_camera:
                receive = _receive_camera if track.kind == "video" else _receive_sound
                self._keep_task(asyncio.ensure_future(receive(track, self._call)))

        @connection.on("datachannel")
        def on_channel(channel: Any) -> None:
            if brings_camera:
                controls.attach(channel)

        @connection.on("connectionstatechange")
        async def on_state_change() -> None:
            if connection.connectionState in ("failed", "closed", "disconnected"):
                viewer.close()
                await controls.close()
                await self._drop(connection)

        try:
            await connection.setRemoteDescription(offer)
            connection.addTrack(viewer.track)
            if "\nm=audio" in sdp:
                connection.addTrack(viewer.sound)
            await connection.setLocalDescription(await connection.createAnswer())
        except Exception as error:  # any error of aiortc for an invalid description
            log.info("an offer was rejected: %s", error)
            viewer.close()
            await self._drop(connection)
            return 400, {"error": "The connection offer of this browser cannot be used."}
        answer = connection.localDescription
        return 200, {"sdp": answer.sdp, "type": answer.type}

    async def _camera_refusal(self, visitor: str, page: str) -> str | None:
        """Reason to refuse the camera of a page; None if accepted, after closing the camera of an older page."""
        if self._camera is None:
            return None
        if visitor != self._camera_visitor:
            return "Another page uses the camera of this call; close it first."
        # The page was reloaded, or is open in a second tab. The newer page gets the camera. The older one must not take
        # it back, or both would alternate forever.
        if page in self._superseded_pages:
            return "A newer page of this browser has this call; close that page, or reload this one."
        if self._camera_page and page != self._camera_page:
            self._superseded_pages.append(self._camera_page)
        await self._end(self._camera)
        self._camera = None
        return None

    async def _drop(self, connection: Any) -> None:
        if self._camera is connection:
            self._camera = None
        await self._end(connection)

    async def _end(self, connection: Any) -> None:
        """Close a connection; a newer page does not wait longer than _CLOSED_WITHIN_S for it."""
        self._connections.discard(connection)
        closing = asyncio.ensure_future(connection.close())
        self._keep_task(closing)
        done, _ = await asyncio.wait({closing}, timeout=_CLOSED_WITHIN_S)
        if not done:
            log.warning("a connection did not close within %g s", _CLOSED_WITHIN_S)
        for closed in done:
            closed.result()

    def _keep_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _receive_camera(track: Any, call: Call) -> None:
    """Pass camera frames to the call until the track ends."""
    from aiortc.mediastreams import MediaStreamError

    try:
        while True:
            frame = await track.recv()
            call.offer(video.video_frame(frame), time.perf_counter())
    except MediaStreamError:  # the track ended
        return
    except Exception as error:  # an error of a decoder or of the call, shown in the page
        call.report_problem(f"the camera's frames can no longer be used ({error}); reload the page.")


async def _receive_sound(track: Any, call: Call) -> None:
    """Pass the microphone's sound to the call until the track ends."""
    resampler = None
    while True:
        try:
            frame = await track.recv()
        except Exception:  # aiortc's MediaStreamError: the track ended
            return
        if call.controls.driver != "microphone":  # the page sends silence then
            resampler = None
            continue
        resampler = resampler or to_live()
        call.add_sound(samples_of(resampler, frame))


class _ControlChannel:
    """Handles the controls of the page with the camera, over its data channel."""

    def __init__(self, page: Connections, visitor: str, viewer: Viewer) -> None:
        self._page, self._visitor, self._viewer = page, visitor, viewer
        self._call = page._call
        self._channel: Any = None
        self._recording: Recording | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._state_sent_s = 0.0

    def attach(self, channel: Any) -> None:
        self._channel = channel
        self._unsubscribe = self._call.on_shown(in_loop(asyncio.get_running_loop(), self._send_face))

        @channel.on("message")
        def on_message(message: Any) -> None:
            try:
                self._handle(message)
            except InputError as error:
                self._send({"error": str(error)})

        self._send_state()

    def _handle(self, message: Any) -> None:
        try:
            if len(message) > _MAX_MESSAGE:
                raise ValueError
            asked = json.loads(message)
            what, value = next(iter(asked.items()))
        except (ValueError, AttributeError, StopIteration):
            raise InputError("this message from the page is invalid.") from None
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
            self._page._keep_task(asyncio.ensure_future(self._stop_recording(keep=True)))
        else:
            raise InputError("this message from the page is invalid.")
        self._send_state()

    async def _stop_recording(self, *, keep: bool) -> None:
        recording, self._recording = self._recording, None
        if recording is None:
            return
        try:
            path = await asyncio.to_thread(recording.stop, keep=keep)
        except InputError as error:
            self._send({"error": str(error)})
            return
        if keep:
            self._page._recordings[path.name] = self._visitor, path
            self._send({"recorded": f"recordings/{path.name}", "frames": recording.num_frames})
        self._send_state()

    async def close(self) -> None:
        self._unsubscribe()
        self._channel = None
        await self._stop_recording(keep=False)

    def _send(self, message: dict[str, Any]) -> None:
        channel = self._channel
        if channel is not None and channel.readyState == "open" and channel.bufferedAmount < _MAX_UNREAD:
            channel.send(json.dumps(message, separators=(",", ":")))

    def _send_face(self, shown: Shown) -> None:
        now = time.perf_counter()
        if shown.number % 2 == 0:  # every second frame suffices for the landmark overlay
            server_ms = 1000 * (now - shown.at_s) + self._viewer.sending_ms
            points = None if shown.face is None else np.round(shown.face[_POINTS] * 1000).astype(int).ravel().tolist()
            self._send({"ms": round(server_ms, 1), "face": points})
        if now - self._state_sent_s > 0.5:
            self._state_sent_s = now
            self._send_state()

    def _send_state(self) -> None:
        call = self._call
        while call.problems:
            self._send({"error": call.problems.popleft()})
        if self._recording is not None and self._recording.error is not None:
            self._recording = None
        state = asdict(call.controls) | {
            "calibrating": call.is_calibrating,
            "recording": self._recording is not None,
            "fps": round(call.frames_per_second, 1),
            "made": call.quality.value,
            "broken": None if call.error is None else f"the call has ended unexpectedly; {self._page._restart_hint}",
        }
        self._send({"state": state})


# Unique points of the landmark lines; and the lines as indices into them.
_POINTS = sorted({int(i) for index, _, _ in LANDMARK_LINES for i in index})
_LINES = [([_POINTS.index(int(i)) for i in index], color, closed) for index, color, closed in LANDMARK_LINES]
