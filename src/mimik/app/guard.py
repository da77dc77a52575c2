"""Who may use a page that this computer serves: addresses, passwords, Host and Origin headers.

A page of another site that is open in the same browser could reach a server on loopback: by a name that a name server
makes lead there (DNS rebinding), or by a plain request. The headers that its browser sends give it away.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import re
from contextlib import suppress
from urllib.parse import urlsplit

from mimik.config import InputError

LOOPBACK = "127.0.0.1"
CONTENT_POLICY = (  # of a call's pages
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; frame-ancestors 'none'"
)
UNKNOWN_HOST = 421, "This address is not served here.\n"  # status and text
FOREIGN_ORIGIN = 403, "Pages of other servers may not use this one.\n"


def check_host(host: str, password: str | None) -> None:
    """Refuses to serve others than this computer's user without a password.

    Raises InputError if host is no address, or is not loopback and there is no password.
    """
    if not is_loopback(host) and not password:
        raise InputError(
            f"--host {host}: others could see and steer what is served; give --password too, or leave --host out to "
            "stay on this computer."
        )


def is_loopback(host: str) -> bool:
    """Args: host: an address, or localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise InputError(f"--host {host}: give an address such as {LOOPBACK} or 0.0.0.0.") from None


def refused(served: str, host: str, origin: str | None) -> tuple[int, str] | None:
    """Why a request is not answered: a status and one sentence; None if it may go on.

    Args:
        served: the address that the server listens on.
        host: the request's Host header.
        origin: its Origin header, None if it has none, as programs other than browsers.
    """
    if is_loopback(served):
        # Other names lead here only by a trick of a name server.
        name = re.sub(r":\d+$", "", host)
        if name not in (LOOPBACK, "localhost", "[::1]", served):
            return UNKNOWN_HOST
    if origin is not None and urlsplit(origin).netloc != host:
        return FOREIGN_ORIGIN
    return None


def has_password(header: str, password: str) -> bool:
    """Whether an Authorization header brings this password, under whatever name."""
    with suppress(ValueError):
        kind, _, given = header.partition(" ")
        _, _, word = base64.b64decode(given, validate=True).decode().partition(":")
        return kind.lower() == "basic" and same(word, password)
    return False


def same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())
