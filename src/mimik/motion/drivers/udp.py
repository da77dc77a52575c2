"""UDP receiver for lines of blendshapes and head pose, and for the packets of face trackers."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import select
import socket
import time
from dataclasses import replace
from typing import Self
from urllib.parse import urlsplit

import numpy as np

from mimik.config import InputError
from mimik.motion.drivers.stream import MAX_LINE_BYTES, Rest, Sample, parse
from mimik.motion.drivers.trackers.address import Address
from mimik.motion.drivers.trackers.ifacialmocap import START
from mimik.motion.drivers.trackers.kinds import READERS, Reader

_MAX_WAITING = 1000  # datagrams read per call, so that a flood does not block the frame loop
_ASK_S = 3.0  # between two requests to a phone
_MAX_COMPLAINTS = 20  # largest number of logged errors

log = logging.getLogger(__name__)


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of udp://127.0.0.1:PORT.

    Raises InputError if it is something else, or no address of this computer's own loopback.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if not host or port is None or parts.scheme != "udp" or parts.path.strip("/") or parts.query or parts.username:
        raise InputError(f"--stream {text}: use udp://127.0.0.1:PORT, or a tracker such as livelink://0.0.0.0.")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        is_own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = False
    if not is_own:
        raise InputError(
            f"--stream {text}: {host} is not a loopback address; use 127.0.0.1, localhost or [::1], and "
            "forward packets of other devices with a program on this computer."
        )
    return host, port


class Mailbox:
    """Keeps the newest received sample; late samples are dropped.

    Attributes:
        num_late: lines with a time before that of the newest sample.
        num_invalid: invalid lines.
        complaint: error message of the last invalid line.
    """

    RESTART_S = 2.0  # a time stamp that is earlier by more means that the sender restarted

    def __init__(self, reader: Reader | None = None) -> None:
        """Args: reader: of a tracker's packets; None: they are lines, which say themselves what rest is.

        Trackers count a head's pose from their camera: that of the first sample is taken for rest.
        """
        self._reader = reader
        self._rest = Rest()
        self._is_rested = reader is None
        self._calibrates = False
        self._newest: Sample | None = None
        self.num_late = self.num_invalid = 0
        self.last_error: str | None = None

    def calibrate(self) -> None:
        """Use the next sample as neutral."""
        self._calibrates = True

    def put(self, packet: bytes) -> Sample | None:
        """Process a datagram of one or several lines.

        Returns: The newest sample, relative to neutral; None if the datagram has no newer one.
        """
        fresh: Sample | None = None
        for part in packet.splitlines() if self._reader is None else [packet]:
            if not part.strip():
                continue
            try:
                sample = parse(part) if self._reader is None else self._reader(part, time.monotonic())
            except ValueError as error:
                self.num_invalid += 1
                if str(error) != self.last_error and self.num_invalid <= _MAX_COMPLAINTS:
                    what = "a line" if self._reader is None else "a packet"
                    log.warning("%s that was sent %s; it is skipped.", what, error)
                self.last_error = str(error)
                continue
            if sample is None:
                continue
            before = self._newest
            if before is not None and before.time_s - self.RESTART_S < sample.time_s <= before.time_s:
                self.num_late += 1
                continue
            self._newest = sample
            fresh = self._from_rest(sample)
        return fresh

    def _from_rest(self, sample: Sample) -> Sample:
        if sample.seen and not self._is_rested:
            self._rest(replace(sample, blendshapes=np.zeros_like(sample.blendshapes), is_rest=True))
            self._is_rested = True
        if sample.seen and self._calibrates:
            sample = replace(sample, is_rest=True)
            self._calibrates = False
        return self._rest(sample)


class Receiver:
    """Receives samples over UDP; only the newest is kept."""

    def __init__(self, host: str, port: int, reader: Reader | None = None) -> None:
        """Open the socket and listen.

        Args:
            host, port: of this computer; port 0 takes any that is free.
            reader: of a tracker's packets; None: lines are sent.

        Raises:
            InputError: if somebody else listens there.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except (OSError, OverflowError) as error:
            self._socket.close()
            why = getattr(error, "strerror", None) or error
            raise InputError(f"--stream: {host}, port {port} cannot be used ({why}); use another port.") from None
        self._socket.setblocking(False)
        self.mailbox = Mailbox(reader)
        self._phone: tuple[str, int] | None = None
        self._asked_s = -_ASK_S

    @classmethod
    def of_tracker(cls, address: Address) -> Self:
        """A receiver for a tracker; if the address names a phone, it is asked to send.

        Raises InputError if somebody else listens there.
        """
        receiver = cls(address.host, address.port, READERS[address.protocol]())
        if address.phone is not None:
            receiver._phone = (address.phone, address.port)
        return receiver

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}"

    def receive(self, timeout_s: float) -> Sample | None:
        """The newest sample since the last call; waits for one, and returns None on timeout."""
        self._ask()
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return None
        fresh: Sample | None = None
        for _ in range(_MAX_WAITING):
            try:
                packet = self._socket.recv(MAX_LINE_BYTES)
            except BlockingIOError:
                break
            except ConnectionError:  # Windows tells of an answer that nobody took
                continue
            fresh = self.mailbox.put(packet) or fresh
        return fresh

    def _ask(self) -> None:
        """Ask the phone to send, every few seconds until it does."""
        if self._phone is not None and time.monotonic() - self._asked_s >= _ASK_S:
            self._asked_s = time.monotonic()
            with contextlib.suppress(OSError):  # it may not be in the network yet
                self._socket.sendto(START, self._phone)

    def close(self) -> None:
        self._socket.close()
