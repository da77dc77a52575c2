"""The page of a call: access, served files, and a complete call in a headless Chromium."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import os
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import Browser, until
from mimik.animation.avatar import Avatar
from mimik.app.live.call import Call
from mimik.app.live.controls import Controls
from mimik.config import AnimateConfig, InputError
from mimik.face.landmarks import Landmarker
from mimik.files import asset
from mimik.media import video
from mimik.provenance.verifying import verify

pytest.importorskip("uvicorn", reason="the extra `live` is not installed")
pytest.importorskip("aiortc", reason="the extra `live` is not installed")

from mimik.app import page
from mimik.app.live import connections
from mimik.app.live.viewer import Viewer
from mimik.app.page import Page, served_page
from mimik.app.serving import Serving


@pytest.fixture
def call(avatar: Avatar) -> Call:
    """A new call for each test, because an ended call cannot restart."""
    controls = Controls(quality="full")  # a busy machine would send a smaller picture
    return Call(avatar, AnimateConfig(model="geometry", size=256, frame="crop"), controls)


def at(served: Page, path: str) -> str:
    """An address of the same server; KEY is replaced by the key of the call."""
    root, _, key = served.address.partition("?key=")
    return root.rstrip("/") + path.replace("KEY", key)


async def offered(address: str, offer: dict) -> tuple[int, dict]:
    """What the server answers to an offer; address: of the page that makes it, with its key."""
    root, _, key = address.partition("?")
    url = root.removesuffix("obs").rstrip("/") + f"/offer?{key}"
    status, text, _ = await asyncio.to_thread(Browser().ask, url, offer)
    return status, json.loads(text)


def asked(call: Call, *requests: tuple[str, dict], **options: Any) -> list[tuple[int, str, Any]]:
    """Responses to one browser; options: of Serving."""
    with served_page(call, Serving(port=0, **options)) as served:
        browser = Browser()
        return [browser.ask(at(served, path), **about) for path, about in requests]


def test_the_page_opens_with_its_key_and_then_without(call: Call):
    without, wrong, opened, again, script, obs, lines = asked(
        call,
        ("/", {}),
        ("/?key=guessed", {}),
        ("/?key=KEY", {}),
        ("/", {}),
        ("/live.js", {}),
        ("/obs", {}),
        ("/lines.json", {}),
    )
    assert without[0] == wrong[0] == 403 and "contains the key" in without[1]
    for answer in (opened, again, script, obs, lines):
        assert answer[0] == 200
        assert "frame-ancestors 'none'" in answer[2]["Content-Security-Policy"]
    assert "Look neutral" in again[1] and "<button" not in obs[1]
    assert "http://" not in script[1] and "https://" not in script[1].replace("https:// or", "")


@pytest.mark.parametrize(
    "path",
    ["/../pyproject.toml", "/recordings/..%2f..%2fetc%2fpasswd", "/recordings/other.mp4", "/etc/passwd", "/live"],
)
def test_no_other_file_is_served(call: Call, path: str):
    _, answer = asked(call, ("/?key=KEY", {}), (path, {}))
    assert answer[0] in (403, 404)


def test_a_recording_is_for_who_made_it(call: Call, tmp_path: Path):
    secret = tmp_path / "call.mp4"
    secret.write_bytes(b"a call")
    with served_page(call, Serving(port=0)) as served:
        browser = Browser()
        browser.ask(served.address)
        served.connections._recordings["call.mp4"] = "somebody else", secret
        assert browser.ask(at(served, "/recordings/call.mp4"))[:2] == (404, "You have no such recording.\n")


def test_a_strangers_page_and_a_false_name_are_refused(call: Call):
    opened, foreign, false_name = asked(
        call,
        ("/?key=KEY", {}),
        ("/offer", {"data": {}, "Origin": "http://evil.example"}),
        ("/?key=KEY", {"Host": "evil.example"}),
    )
    assert (opened[0], foreign[0], false_name[0]) == (200, 403, 421)


def test_a_password_is_asked_for(call: Call):
    right, wrong = ({"Authorization": "Basic " + base64.b64encode(f"me:{w}".encode()).decode()} for w in ("pw", "no"))
    answers = asked(
        call, ("/?key=KEY", {}), ("/", wrong), ("/", {"Authorization": "Basic ?"}), ("/", right), password="pw"
    )
    assert [status for status, _, _ in answers] == [401, 401, 401, 200]


def test_others_are_not_served_without_a_password():
    with pytest.raises(InputError, match=r"--host 0.0.0.0: others could view .* --password"):
        page.check_page(Serving(host="0.0.0.0"))
    with pytest.raises(InputError, match="--host here: use an address"):
        page.check_page(Serving(host="here", password="pw"))


def test_a_used_port_is_reported(call: Call):
    with served_page(call, Serving(port=0)) as one:
        port = int(at(one, "").rpartition(":")[2])
        with pytest.raises(InputError, match=f"--port {port}: cannot be used"):
            served_page(call, Serving(port=port)).__enter__()


@pytest.mark.parametrize(
    ("body", "status"), [({}, 400), ("no json", 400), ({"sdp": "v=0", "role": "camera"}, 400), ("x" * 200_000, 413)]
)
def test_what_is_no_offer_is_refused_and_the_camera_stays_free(call: Call, body: dict | str, status: int):
    with served_page(call, Serving(port=0)) as served:
        answer = Browser().ask(at(served, "/offer?key=KEY"), body)
        assert answer[0] == status and "offer" in answer[1]
        assert served.connections._camera is None and not served.connections._connections


# Connections.


def udp_addresses() -> set[str]:
    """Addresses of this process's UDP sockets."""
    own = {os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
    found = set()
    for table in ("udp", "udp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in own:
                raw = bytes.fromhex(fields[1].partition(":")[0])
                words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
                found.add(str(ipaddress.ip_address(b"".join(words))))
    return found


def connected(call: Call, *, beyond_loopback: bool) -> tuple[list[str], set[str]]:
    """The addresses in a page's answer, and those of this process, after a frame has arrived."""

    async def run(address: str) -> tuple[list[str], set[str]]:
        connections._BOUND_TO.set("127.0.0.1")  # the browser's part
        async with watching(address, beyond_loopback=beyond_loopback) as (answer, frame):
            assert (frame.width, frame.height) == call.size
            candidates = [line.split()[4] for line in answer["sdp"].splitlines() if line.startswith("a=candidate")]
            return candidates, udp_addresses()

    with served_page(call, Serving(port=0)) as served:
        return asyncio.run(run(served.address))


@asynccontextmanager
async def watching(address: str, *, beyond_loopback: bool) -> AsyncIterator[tuple[dict, Any]]:
    """A page that sees a call: what its offer was answered, and the first frame that came."""
    import aiortc

    peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    try:
        tracks: asyncio.Queue = asyncio.Queue()
        peer.on("track", tracks.put_nowait)
        peer.addTransceiver("video", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        offer = {"sdp": peer.localDescription.sdp, "role": "viewer", "beyond_loopback": beyond_loopback}
        _, answer = await offered(address, offer)
        await peer.setRemoteDescription(aiortc.RTCSessionDescription(**answer))
        yield answer, await asyncio.wait_for((await tracks.get()).recv(), 60)
    finally:
        await peer.close()


@pytest.mark.skipif(not Path("/proc/self/net/udp").exists(), reason="sockets are listed by Linux only")
def test_on_loopback_the_picture_is_sent_on_loopback(call: Call):
    candidates, sockets = connected(call, beyond_loopback=False)
    assert set(candidates) == {"127.0.0.1"} == sockets


@pytest.mark.skipif(not Path("/proc/self/net/udp").exists(), reason="sockets are listed by Linux only")
def test_a_browser_that_connects_to_no_loopback_address_can_ask_for_others(call: Call):
    from aioice import ice

    if not ice.get_host_addresses(True, False):
        pytest.skip("this computer has no address but loopback")
    candidates, sockets = connected(call, beyond_loopback=True)
    assert candidates and "127.0.0.1" not in candidates
    assert set(candidates) <= sockets


class UnreadChannel:
    """A data channel whose other end reads nothing, so that sent data remains in the buffer."""

    readyState = "open"  # noqa: N815

    def __init__(self) -> None:
        self.sent: list[str] = []

    @property
    def bufferedAmount(self) -> int:  # noqa: N802
        return sum(map(len, self.sent))

    def send(self, text: str) -> None:
        self.sent.append(text)


def test_a_page_that_reads_nothing_does_not_fill_the_memory(call: Call):
    held = connections.Connections(call, host="127.0.0.1", again="")
    controls = connections._ControlChannel(held, "", types.SimpleNamespace(sending_ms=0.0))
    controls._channel = channel = UnreadChannel()
    for number in range(5000):
        controls._send({"ms": number, "face": [500] * 100})
    assert 0 < channel.bufferedAmount <= connections._MAX_UNREAD + 1000
    channel.sent.clear()  # it reads again
    controls._send({"ms": 1})
    assert channel.sent


def test_more_pages_than_a_call_can_serve_are_refused(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "_MAX_PAGES", 1)
    with served_page(call, Serving(port=0)) as served:
        served.connections._connections = {object()}  # type: ignore[assignment]
        status, text, _ = Browser().ask(at(served, "/offer?key=KEY"), {"sdp": "v=0", "role": "viewer"})
        served.connections._connections = set()
    assert status == 503 and json.loads(text)["error"] == "1 pages already show this call; close one first."


def test_two_pages_of_a_browser_do_not_take_the_camera_from_each_other(call: Call):
    """The newer page has the camera. The older one retries, is told so, and gets it when the newer one closes."""
    import aiortc

    async def run() -> list[tuple[int, str]]:
        held = connections.Connections(call, host="127.0.0.1", again="")
        connections._BOUND_TO.set("127.0.0.1")
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        peer.addTransceiver("video", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        answers = []

        async def ask(load: str, visitor: str = "one") -> None:
            offer = {"sdp": peer.localDescription.sdp, "role": "camera", "page": load}
            status, answer = await held.offer(visitor, offer, "127.0.0.1")
            answers.append((status, answer.get("error", "")))

        for load in ("first", "second", "first"):
            await ask(load)
        await ask("stranger", visitor="two")
        assert held._camera_page == "second" and held.num_pages == 1
        await held._camera.close()
        await asyncio.sleep(0)
        held._camera = None
        await ask("first")
        for number in range(20):  # reloads: each is another page
            await ask(f"load {number}")
        assert held.num_pages == 1 and held._camera_page == "load 19"
        await held.aclose()
        await peer.close()
        return answers

    answers = asyncio.run(run())
    assert [status for status, _ in answers] == [200, 200, 409, 409] + [200] * 21
    assert answers[2][1] == "A newer page of this browser has this call; close that page, or reload this one."
    assert answers[3][1] == "Another page uses the camera of this call; close it first."


def test_a_viewer_that_is_cancelled_together_with_a_new_frame_ends(call: Call):
    """aiortc cancels recv once and then waits for its end: lost, it would wait forever."""
    import aiortc

    async def run() -> bool:
        viewer = Viewer(call, aiortc)
        receiving = asyncio.ensure_future(viewer.track.recv())
        await asyncio.sleep(0.01)  # it waits for a frame
        viewer.changed.set()
        receiving.cancel()
        await asyncio.wait({receiving}, timeout=5)
        viewer.close()
        return receiving.cancelled()

    assert asyncio.run(run())


class Stuck:
    """A connection that never closes."""

    async def close(self) -> None:
        await asyncio.Event().wait()


def test_a_connection_that_never_closes_delays_a_newer_page_by_little(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "_CLOSED_WITHIN_S", 0.05)

    async def run() -> tuple[str | None, int]:
        held = connections.Connections(call, host="127.0.0.1", again="")
        stuck = Stuck()
        held._camera, held._camera_visitor, held._camera_page = stuck, "one", "first"
        held._connections.add(stuck)
        refused = await asyncio.wait_for(held._camera_refusal("one", "second"), 5)
        num_pages = held.num_pages
        await asyncio.wait_for(held.aclose(), 5)
        return refused, num_pages

    assert asyncio.run(run()) == (None, 0)


@pytest.mark.slow
def test_the_end_by_a_signal_is_quiet_with_a_page_open(portrait_path: Path):
    """`kill` ends a call with an open page like Ctrl-C, without messages about destroyed tasks; exit code 143."""
    command = [sys.executable, "-m", "mimik", "live", str(portrait_path), "--no-open", "--port", "0"]
    program = subprocess.Popen(
        [*command, "--model", "geometry"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    address = next(line for line in program.stdout if "For OBS" in line).split()[-1]

    async def watch() -> None:
        async with watching(address, beyond_loopback=True):
            program.terminate()
            await asyncio.to_thread(program.wait, 30)

    try:
        asyncio.run(watch())
    finally:
        program.kill()
    assert program.returncode == 143
    assert "The call has ended.\n" in program.stdout.read()
    assert program.stderr is not None
    said = program.stderr.read()
    assert "destroyed" not in said and "Traceback" not in said and "never awaited" not in said, said


# In a real browser.


@pytest.fixture(scope="module")
def camera(driver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver as an uncompressed video that Chromium uses as camera, 320x240."""
    path = tmp_path_factory.mktemp("camera") / "camera.y4m"
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W320 H240 F25:1 Ip A1:1 C420jpeg\n")
        for frame in driver.frames:
            canvas = np.full((240, 320, 3), 90, np.uint8)
            canvas[:, 40:280] = cv2.resize(frame, (240, 240), interpolation=cv2.INTER_AREA)
            file.write(b"FRAME\n" + cv2.cvtColor(canvas, cv2.COLOR_RGB2YUV_I420).tobytes())
    return path


@pytest.fixture
def opened(call: Call, camera: Path, browser: Callable[..., Any]) -> Iterator[tuple]:
    """The page of a running call in a browser whose camera is the driver."""
    with call, served_page(call, Serving(port=0)) as served:
        context = browser(
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-video-capture={camera}",
            permissions=["camera", "microphone"],
            viewport={"width": 1100, "height": 900},
            bypass_csp=True,  # playwright's wait evaluates text, which the page forbids
        )
        tab = context.new_page()
        foreign: list[str] = []
        tab.on("request", lambda request: "127.0.0.1" in request.url or foreign.append(request.url))
        tab.goto(served.address)
        yield served, context, tab, foreign
        context.close()
    assert call.error is None


# As a browser does before the first click; playwright's own evaluation counts as one.
SILENT_UNTIL_CLICKED = """{
  const play = HTMLMediaElement.prototype.play;
  let isClicked = false;
  addEventListener("pointerdown", () => (isClicked = true), true);
  HTMLMediaElement.prototype.play = function () {
    if (this.muted || isClicked) return play.call(this);
    this.pause();
    return Promise.reject(new DOMException("no gesture", "NotAllowedError"));
  };
}"""
SHOWN = "document.getElementById('person').videoWidth === 256"
PIXELS = """async (id) => {
  const video = document.getElementById(id), canvas = document.createElement("canvas");
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}"""


def picture(tab, element: str = "person") -> np.ndarray:
    data = np.frombuffer(base64.b64decode(tab.evaluate(PIXELS, element)), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.browser
def test_all_controls_are_in_sight(browser: Callable[..., Any]):
    """Layout of the page, without a server: the lowest element ends above the window's lower edge."""
    tab = browser().new_page()
    for width, height in ((1366, 900), (1366, 768), (1280, 720)):
        tab.set_viewport_size({"width": width, "height": height})
        tab.goto(asset("live/live.html").as_uri())
        lowest = tab.evaluate(
            "Math.max(...[...document.querySelectorAll('#controls *')].map(e => e.getBoundingClientRect().bottom))"
        )
        wide = tab.evaluate("document.documentElement.scrollWidth")
        assert 300 < lowest <= height and wide <= width, (width, height)


@pytest.mark.browser
def test_a_camera_that_stops_is_reported(browser: Callable[..., Any]):
    """The page without a server; its camera ends like an unplugged one."""
    context = browser(
        "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", permissions=["camera", "microphone"]
    )
    tab = context.new_page()
    tab.goto(asset("live/live.html").as_uri())
    tab.wait_for_function("camera !== null && by('start').hidden")
    after = "() => [by('said').textContent, by('start').hidden]"
    event = "camera.getVideoTracks()[0].dispatchEvent(new Event('{}'))"
    tab.evaluate("say('')")
    muted = tab.evaluate(f"(() => {{ {event.format('mute')}; return ({after})(); }})()")
    ended = tab.evaluate(f"(() => {{ {event.format('ended')}; return ({after})(); }})()")
    context.close()
    assert muted == ["The camera sends no picture, so the portrait is paused.", True]
    assert ended[0].startswith("The camera has stopped, so the portrait is paused; press Start") and not ended[1]


@pytest.mark.slow
@pytest.mark.browser
def test_a_call_in_a_browser(call: Call, opened: tuple, tmp_path: Path, landmarker: Landmarker):
    served, context, tab, foreign = opened
    tab.wait_for_function(SHOWN)
    tab.wait_for_function("Number(document.getElementById('latency').textContent) > 0")
    tab.wait_for_selector("#lines[data-face=seen]")
    assert udp_addresses() == {"127.0.0.1"}

    # Frames arrive, show the person with the label, and move.
    count = "document.getElementById('person').getVideoPlaybackQuality().totalVideoFrames"
    before = tab.evaluate(count)
    shots = []
    for _ in range(6):
        tab.wait_for_timeout(400)
        shots.append(picture(tab))
    assert tab.evaluate(count) - before >= 5
    assert all(len(landmarker.detect(shot)) == 1 for shot in shots)
    assert max(np.abs(shot.astype(int) - shots[0]).mean() for shot in shots) > 1
    expected = call.waiting_image[-28:, -38:].astype(int)
    assert np.abs(shots[-1][-28:, -38:] - expected).mean() < 12  # the "AI" in its corner

    tab.screenshot(path=tmp_path / "live.png")  # to look at

    # Controls.
    tab.click("#freeze")
    tab.wait_for_selector("#freeze[aria-pressed=true]")
    assert call.controls.freeze
    tab.click("#freeze")
    tab.check("#mirror")
    tab.uncheck("[name=region][value=pose]")
    # A state that was sent before the program heard of a change does not take the change back.
    late = "box => { box.click(); hear({ state: { ...latest, regions: [...latest.regions, box.value] } }); }"
    tab.eval_on_selector("[name=region][value=gaze]", late)
    assert not tab.is_checked("[name=region][value=gaze]")
    tab.wait_for_function("document.querySelector('.own').classList.contains('mirror')")
    until(lambda: not {"pose", "gaze"} & set(call.controls.regions) and call.controls.mirror, 5)
    assert not {"pose", "gaze"} & set(call.controls.regions) and call.controls.mirror
    tab.click("#calibrate")
    tab.wait_for_function("document.getElementById('calibrate').textContent.startsWith('Look neutral')")

    # The microphone drives instead, and its sound is sent back.
    tab.select_option("#driver", "microphone")
    shown: list[Any] = []
    forget = call.on_shown(shown.append)
    for _ in range(200):
        if any(one.is_spoken for one in shown):
            break
        tab.wait_for_timeout(50)
    forget()
    assert any(one.is_spoken for one in shown)
    received = "(one) => one.type === 'inbound-rtp' && one.kind === 'audio' && one.packetsReceived > 0"
    tab.wait_for_function(f"async () => [...(await connection.getStats()).values()].some({received})")
    # This page would only mute it; the page for OBS plays it.
    assert tab.evaluate("document.getElementById('person').srcObject.getAudioTracks().length") == 0
    tab.select_option("#driver", "camera")
    tab.wait_for_selector("#lines[data-face=seen]")

    # Recording: saved by the browser, signed.
    tab.click("#record")
    tab.wait_for_selector("#record[aria-pressed=true]")
    tab.wait_for_timeout(1500)
    tab.click("#record")
    tab.wait_for_selector("#recorded:not([hidden])")
    with tab.expect_download() as download:
        tab.click("#recorded")
    download.value.save_as(tmp_path / "call.mp4")
    assert verify(tmp_path / "call.mp4").exit_code == 0
    assert video.probe(tmp_path / "call.mp4").width == 256

    # The page without controls shows the same person; a second camera has to wait.
    bare = context.new_page()
    bare.add_init_script(SILENT_UNTIL_CLICKED)
    bare.goto(served.obs_address)
    bare.wait_for_function(SHOWN)
    for _ in range(100):  # the size is known before the first frame is painted
        if landmarker.detect(picture(bare)):
            break
        bare.wait_for_timeout(100)
    assert len(landmarker.detect(picture(bare))) == 1
    # While the browser refuses to play sound, the picture plays without it.
    bare.wait_for_function("document.body.dataset.hint === 'Click for sound'")
    at = bare.evaluate("document.getElementById('person').currentTime")
    bare.wait_for_function(f"document.getElementById('person').currentTime > {at} + 0.5")
    assert bare.locator("#person").bounding_box() == {"x": 0, "y": 0, "width": 1100, "height": 900}  # the window
    bare.click("video")
    bare.wait_for_function("!document.getElementById('person').muted && !document.body.dataset.hint")
    assert not bare.evaluate("document.getElementById('person').paused")
    assert foreign == []
    folder = Path(served.connections._folder.name)
    assert folder.exists()
    bare.close()
    tab.goto("about:blank")
    until(lambda: served.connections._camera is None, 45)  # it is free again when the page is gone
    assert served.connections._camera is None


@pytest.mark.slow
@pytest.mark.browser
def test_twenty_reloads_and_a_second_tab(opened: tuple):
    served, context, tab, _ = opened
    tab.wait_for_function(SHOWN)
    for _ in range(20):
        tab.reload()
    tab.wait_for_function(SHOWN)
    tab.wait_for_selector("#lines[data-face=seen]")
    assert served.connections.num_pages <= 2  # the closing of the last one may not be detected yet
    second = context.new_page()
    second.goto(served.address)
    second.wait_for_function(SHOWN)
    tab.wait_for_function("document.getElementById('said').textContent.startsWith('A newer page of this browser')")
    second.wait_for_timeout(4000)  # the first one has retried
    assert second.evaluate("connection.connectionState") == "connected"
    second.close()
    tab.wait_for_function("document.getElementById('said').textContent === 'Connected.'", timeout=60_000)


@pytest.mark.slow
@pytest.mark.browser
def test_a_page_that_cannot_connect_on_loopback_asks_for_other_addresses(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    from aioice import ice

    if not ice.get_host_addresses(True, False):
        pytest.skip("this computer has no address but loopback")
    heard = ice.StunProtocol.datagram_received

    def deaf_on_loopback(self: Any, data: bytes, address: tuple) -> None:
        if self.transport.get_extra_info("sockname")[0] != "127.0.0.1":
            heard(self, data, address)

    monkeypatch.setattr(ice.StunProtocol, "datagram_received", deaf_on_loopback)
    _, _, tab, _ = request.getfixturevalue("opened")
    tab.wait_for_function(SHOWN)
    until(lambda: "127.0.0.1" not in udp_addresses(), 10)  # the sockets of the first attempt are closed
    assert "127.0.0.1" not in udp_addresses()


def test_a_camera_whose_frames_cannot_be_used_is_reported_on_the_page():
    class Track:
        async def recv(self) -> None:
            raise ValueError("no frame")

    call = types.SimpleNamespace(told=[])
    call.report_problem = call.told.append
    asyncio.run(connections._receive_camera(Track(), call))
    assert call.told == ["the camera's frames can no longer be used (no frame); reload the page."]
