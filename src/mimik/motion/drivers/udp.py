"""Lines of blendshapes and head pose that another program on this computer sends by UDP."""

from __future__ import annotations

import ipaddress
import logging
import select
import socket
from urllib.parse import urlsplit

from mimik.config import InputError
from mimik.motion.drivers.stream import MAX_LINE_BYTES, Rest, Sample, parse

_MAX_WAITING = 1000  # datagrams that are read at once: a sender without a pause must not keep the person from moving
_MAX_COMPLAINTS = 20  # about what is sent: nobody reads more

log = logging.getLogger(__name__)


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of udp://127.0.0.1:PORT.

    Raises:
        InputError: if it is something else, or no address of this computer's own loopback.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if not host or port is None or parts.scheme != "udp" or parts.path.strip("/") or parts.query or parts.username:
        raise InputError(f"--stream {text}: give udp://127.0.0.1:PORT, such as udp://127.0.0.1:11111.")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        is_own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = False
    if not is_own:
        raise InputError(
            f"--stream {text}: {host} is no address of this computer alone; give 127.0.0.1, localhost or [::1], and "
            "let a small program here hand on what comes from another device."
        )
    return host, port


class Mailbox:
    """Keeps the newest of the samples that come in; what comes late is left out.

    Attributes:
        num_late: lines that an earlier-come one with a later time made useless.
        num_wrong: lines that could not be read.
        complaint: what was wrong with the last of those.
    """

    RESTART_S = 2.0  # a time that lies further back is that of a sender that was started again

    def __init__(self) -> None:
        self._rest = Rest()
        self._newest: Sample | None = None
        self.num_late = self.num_wrong = 0
        self.complaint: str | None = None

    def put(self, packet: bytes) -> Sample | None:
        """Takes in a datagram of one or several lines.

        Returns:
            The newest sample, counted from rest; None if nothing in it is new.
        """
        fresh: Sample | None = None
        for line in packet.splitlines():
            if not line.strip():
                continue
            try:
                sample = parse(line)
            except ValueError as error:
                self.num_wrong += 1
                if str(error) != self.complaint and self.num_wrong <= _MAX_COMPLAINTS:
                    log.warning("a line that was sent %s; it is left out.", error)
                self.complaint = str(error)
                continue
            before = self._newest
            if before is not None and before.time_s - self.RESTART_S < sample.time_s <= before.time_s:
                self.num_late += 1
                continue
            self._newest = sample
            fresh = self._rest(sample)
        return fresh


class Receiver:
    """Samples that another program on this computer sends by UDP, the newest only."""

    def __init__(self, host: str, port: int) -> None:
        """Listens at once.

        Args: host, port: as parse_address gives them; port 0 takes any that is free.

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
            raise InputError(f"--stream: {host}, port {port} cannot be used ({why}); give another port.") from None
        self._socket.setblocking(False)
        self._mailbox = Mailbox()

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}"

    @property
    def mailbox(self) -> Mailbox:
        return self._mailbox

    def receive(self, timeout_s: float) -> Sample | None:
        """The newest sample that has come in since the last call; waits for one, and gives None when none came."""
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
            fresh = self._mailbox.put(packet) or fresh
        return fresh

    def close(self) -> None:
        self._socket.close()
