"""puppet.py: effects of samples on a person, a sender that stops, and a complete call over a socket."""

from __future__ import annotations

import json
import runpy
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mimik.animation.avatar import Avatar
from mimik.app.cli import app
from mimik.app.live.controls import Controls
from mimik.app.live.recording import Recording
from mimik.app.puppet import Puppet, _ReceivedSample, _SampleRetarget
from mimik.config import AnimateConfig
from mimik.face.landmarks import head_pose
from mimik.motion.drivers.stream import HOLD_S, Sample
from mimik.motion.drivers.udp import Receiver, parse_address
from mimik.provenance.verifying import Status, verify

CONFIG = AnimateConfig(model="geometry", smooth=0.0)
ROOT = Path(__file__).resolve().parents[2]


def turned(yaw: float, time_s: float = 0.0, *, seen: bool = True) -> Sample:
    return Sample(time_s, np.zeros(52), np.array([yaw, 0.0, 0, 0, 0, 0]), seen)


def yaw_of(avatar: Avatar, points: np.ndarray) -> float:
    return head_pose(points).degrees[0] - head_pose(avatar.face.points).degrees[0]


def test_a_silent_sender_holds_then_rests(avatar: Avatar) -> None:
    retarget, controls = _SampleRetarget(avatar.source_frame(CONFIG), 0.0), Controls()
    for i in range(20):
        points, face = retarget(_ReceivedSample(turned(10, i / 25), i / 25), i / 25, controls)
    assert yaw_of(avatar, points) == pytest.approx(10, abs=0.5) and face is None
    heard = _ReceivedSample(turned(10, 0.76), 0.76)
    held = [retarget(heard, 0.76 + i / 25, controls)[0] for i in range(1, 30)]
    angles = np.array([yaw_of(avatar, p) for p in held])
    at_s = np.arange(1, 30) / 25
    assert np.abs(angles[at_s < HOLD_S] - 10).max() < 0.5
    assert np.abs(angles[at_s > HOLD_S + 0.55]).max() < 0.1
    assert (np.diff(angles[at_s > HOLD_S]) <= 1e-6).all()


def test_a_face_that_the_sender_does_not_see_goes_to_rest(avatar: Avatar) -> None:
    retarget, controls = _SampleRetarget(avatar.source_frame(CONFIG), 0.0), Controls()
    for i in range(60):
        sample = turned(10 if i < 30 else 0, i / 25, seen=i < 30)
        points, _ = retarget(_ReceivedSample(sample, i / 25), i / 25, controls)
    assert yaw_of(avatar, points) == pytest.approx(0, abs=0.1)


def test_controls_change_what_is_shown(avatar: Avatar) -> None:
    retarget = _SampleRetarget(avatar.source_frame(CONFIG), 0.0)

    def shown(controls: Controls) -> float:
        return yaw_of(avatar, retarget(_ReceivedSample(turned(10), 1.0), 1.0, controls)[0])

    assert shown(Controls()) == pytest.approx(10, abs=0.5)
    assert shown(Controls(mirror=True)) == pytest.approx(-10, abs=0.5)
    assert shown(Controls(strength=0.5)) == pytest.approx(5, abs=0.5)
    assert shown(Controls(regions=("lips",))) == pytest.approx(0, abs=0.1)


def test_a_program_drives_a_call_that_is_recorded(avatar: Avatar, tmp_path: Path) -> None:
    receiver = Receiver("127.0.0.1", 0)
    place = parse_address(receiver.address)
    out = tmp_path / "call.mp4"
    seen: list[np.ndarray] = []
    moved = threading.Event()
    with Puppet(avatar, receiver, CONFIG) as call, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        recording = Recording(call, out)

        def hear(shown: object) -> None:
            seen.append(shown.labeled)  # type: ignore[attr-defined]
            if len(seen) == 4:
                moved.set()

        call.on_shown(hear)
        call.offer(np.zeros((8, 8, 3), np.uint8), 0.0)  # a page's camera is ignored
        deadline = time.monotonic() + 60
        number = 0
        while not moved.is_set() and time.monotonic() < deadline:
            sender.sendto(json.dumps({"time": number / 30, "head": {"yaw": 12}}).encode(), place)
            number += 1
            time.sleep(0.02)
        recording.stop()
    assert moved.is_set() and call.error is None
    assert np.abs(seen[-1].astype(int) - call.portrait.picture).mean() > 3  # the head has turned
    assert call.claim("a.mp4").settings["live"] == "stream"
    assert verify(out).status is Status.MIMIK
    assert receiver.mailbox.num_invalid == 0


@pytest.mark.slow
def test_the_command_line_serves_the_picture(
    small_path: Path, one_landmarker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything except the page, which has separate tests."""
    served: list[Puppet] = []

    @contextmanager
    def served_page(call: Puppet, *_: object, **options: object) -> Iterator[object]:
        served.append(call)
        yield types.SimpleNamespace(address="page", obs_address="picture")

    def interrupted(call: Puppet) -> None:
        raise KeyboardInterrupt

    page = types.SimpleNamespace(check_page=lambda *_: None, served_page=served_page, wait=interrupted)
    monkeypatch.setitem(sys.modules, "mimik.app.page", page)
    monkeypatch.setattr(sys.modules["mimik.app"], "page", page, raising=False)
    command = ["live", str(small_path), "--stream", "udp://localhost:0", "--no-open", "--model", "geometry"]
    result = CliRunner().invoke(app, command, prog_name="mimik")
    assert result.exit_code == 0, result.stderr
    assert "Send to:  udp://127.0.0.1:" in result.stdout and "See it:   picture" in result.stdout
    assert isinstance(served[0], Puppet)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stream", "udp://0.0.0.0:1"], "0.0.0.0 is not a loopback address"),
        (["--stream", "osc"], "--stream osc: use udp://127.0.0.1:PORT"),
        (["--stream", "udp://127.0.0.1:1", "--camera", "a.mp4", "--record", "b.mp4"], "are mutually exclusive"),
    ],
)
def test_what_cannot_be_listened_to(small_path: Path, tmp_path: Path, options: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["live", str(small_path), *options], prog_name="mimik")
    assert result.exit_code == 2 and words in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_example_sends_what_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """examples/send_face.py with simulated time."""
    now = [0.0]
    fake = types.ModuleType("time")
    fake.monotonic = lambda: now[0]  # type: ignore[attr-defined]
    fake.sleep = lambda s: now.__setitem__(0, now[0] + s)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "time", fake)
    sent: list[bytes] = []

    class Socket:
        def __init__(self, *_: object) -> None:
            pass

        def sendto(self, data: bytes, place: tuple[str, int]) -> None:
            assert place == ("127.0.0.1", 11111)
            sent.append(data)

    fake_socket = types.ModuleType("socket")
    fake_socket.socket, fake_socket.AF_INET, fake_socket.SOCK_DGRAM = Socket, 2, 2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "socket", fake_socket)
    runpy.run_path(str(ROOT / "examples/send_face.py"))
    from mimik.motion.drivers.udp import Mailbox

    box = Mailbox()
    assert all(box.put(data) is not None for data in sent) and len(sent) == pytest.approx(600, abs=2)
    shown = (ROOT / "docs/stream.md").read_text(encoding="utf-8")
    body = (ROOT / "examples/send_face.py").read_text(encoding="utf-8").split("import time\n\n")[1]
    assert body in shown
