"""udp.py: valid addresses, late packets, and packets over a socket."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from mimik.config import InputError
from mimik.motion.drivers.udp import Mailbox, Receiver, parse_address


def line(time_s: float, yaw: float = 0.0, **more: Any) -> str:
    return json.dumps({"time": time_s, "head": {"yaw": yaw}, **more})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("udp://127.0.0.1:11111", ("127.0.0.1", 11111)),
        ("udp://localhost:0", ("127.0.0.1", 0)),
        ("udp://[::1]:9/", ("::1", 9)),
    ],
)
def test_addresses_of_this_computer(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("udp://0.0.0.0:11111", "0.0.0.0 is not a loopback address"),
        ("udp://192.168.0.4:11111", "192.168.0.4 is not a loopback address"),
        ("udp://example.org:11111", "example.org is not a loopback address"),
        ("tcp://127.0.0.1:11111", "use udp://127.0.0.1:PORT"),
        ("udp://127.0.0.1", "use udp://127.0.0.1:PORT"),
        ("udp://127.0.0.1:99999", "use udp://127.0.0.1:PORT"),
        ("udp://[::1", "use udp://127.0.0.1:PORT"),
        ("11111", "use udp://127.0.0.1:PORT"),
        ("", "use udp://127.0.0.1:PORT"),
    ],
)
def test_other_addresses_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        parse_address(text)
    assert words in str(error.value) and f"--stream {text}" in str(error.value)


def test_late_lines_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    box = Mailbox()
    assert box.put(line(5.0, 1).encode()).head[0] == 1
    assert box.put(line(4.9, 2).encode()) is None and box.put(line(5.0, 2).encode()) is None
    assert box.num_late == 2
    assert box.put(f"{line(5.1, 3)}\n\n{line(5.2, 4)}\n{line(5.15, 9)}".encode()).head[0] == 4
    assert (box.num_late, box.num_invalid) == (3, 0)
    for _ in range(3):
        assert box.put(b"{") is None
    assert box.num_invalid == 3 and box.last_error == "is not JSON" and len(caplog.records) == 1
    assert box.put(line(0.0, 5).encode()).head[0] == 5  # a restarted sender
    assert box.put(line(0.1, 6).encode()).head[0] == 6


def test_rest_is_counted_from_a_line_that_came_with_others() -> None:
    box = Mailbox()
    sample = box.put(f"{line(1, 10, rest=True)}\n{line(2, 14)}".encode())
    assert sample.head[0] == pytest.approx(4)


def test_the_newest_of_what_was_sent_is_received() -> None:
    receiver = Receiver("127.0.0.1", 0)
    try:
        host, port = parse_address(receiver.address)
        assert receiver.receive(0) is None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(5):
                sender.sendto(line(number / 30, number).encode(), (host, port))
            sender.sendto(b"\xff\xfe", (host, port))
        deadline = time.monotonic() + 30
        sample = None
        while time.monotonic() < deadline and (sample is None or sample.head[0] != 4):
            sample = receiver.receive(0.1) or sample
        assert sample is not None and sample.head[0] == 4
        with pytest.raises(InputError, match=f"--stream: 127.0.0.1, port {port} cannot be used"):
            Receiver(host, port)
    finally:
        receiver.close()
