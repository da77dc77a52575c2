"""Where a tracker sends to: `livelink://0.0.0.0`, `vmc://127.0.0.1:39540`; known without loading anything."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from mimik.config import InputError

# Each protocol, and the port that its senders use if nobody says otherwise.
PORTS = {"livelink": 11111, "ifacialmocap": 49983, "vmc": 39539, "openseeface": 11573}


@dataclass(frozen=True)
class Address:
    """Where mimik listens for a tracker.

    Attributes:
        protocol: one of PORTS.
        host: an address of this computer; 0.0.0.0 is all of them.
        port: 0 takes any that is free.
        phone: for iFacialMocap, the phone to ask to send; None: wait for packets.
    """

    protocol: str
    host: str
    port: int
    phone: str | None = None


def is_tracker(source: str) -> bool:
    """Whether a driver is the address of a tracker, possibly malformed."""
    return source.partition("://")[0].lower() in PORTS and "://" in source


def parse_tracker(text: str) -> Address:
    """The address in `PROTOCOL://HOST:PORT`; without a port the protocol's own, without a host this computer alone.

    Raises InputError if it has another form.
    """
    wrong = InputError(
        f"{text}: use one of {', '.join(f'{name}://0.0.0.0:{port}' for name, port in PORTS.items())}; 127.0.0.1 in "
        "place of 0.0.0.0 listens to this computer alone."
    )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "127.0.0.1", parts.port
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
        host = "127.0.0.1" if host == "localhost" else host
        ipaddress.ip_address(host)
        phone = query.pop("phone", [None])[0]
        if phone is not None:
            ipaddress.ip_address(phone)
    except ValueError:
        raise wrong from None
    if parts.scheme not in PORTS or parts.path.strip("/") or parts.username or query:
        raise wrong
    if phone is not None and parts.scheme != "ifacialmocap":
        raise InputError(f"{text}: phone= applies to iFacialMocap only; omit it.")
    return Address(parts.scheme, host, PORTS[parts.scheme] if port is None else port, phone)
