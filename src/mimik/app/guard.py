"""Access control for pages served by this computer: addresses, passwords, keys, Host and Origin headers.

A page of another site in the same browser could reach a server on loopback, by DNS rebinding (a name that resolves to
loopback) or by a plain request. The headers that the browser sends reveal this.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from mimik.config import InputError

LOOPBACK = "127.0.0.1"
ASKED_S = "asked_s"  # in the scope of a request: when it arrived, by time.monotonic
UNKNOWN_HOST = 421, "This server does not serve this address.\n"  # status and text
FOREIGN_ORIGIN = 403, "Pages of other servers may not use this server.\n"
NO_PASSWORD = 401, "A password is needed.\n"
NO_KEY = 403, "Open the address that `mimik live` printed: it contains the key of this call.\n"
_COOKIE = "mimik-live"
_EVERY_ANSWER = (b"referrer-policy", b"no-referrer"), (b"x-content-type-options", b"nosniff")

Headers = Sequence[tuple[bytes, bytes]]
Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]


def check_host(host: str, password: str | None) -> None:
    """Require a password for serving beyond localhost.

    Raises InputError if host is not an address, or is not loopback and there is no password.
    """
    if not is_loopback(host) and not password:
        raise InputError(
            f"--host {host}: others could view and control the page; also pass --password, or omit --host to "
            "serve this computer only."
        )


def is_loopback(host: str) -> bool:
    """Whether an address is loopback. Args: host: an address, or localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise InputError(f"--host {host}: use an address such as {LOOPBACK} or 0.0.0.0.") from None


def refused(served: str, host: str, origin: str | None) -> tuple[int, str] | None:
    """Reason to refuse a request: a status and one sentence; None if it is allowed.

    Args:
        served: the address that the server listens on.
        host: the request's Host header.
        origin: its Origin header; None if it has none, as from programs other than browsers.
    """
    if is_loopback(served):
        # Other names reach loopback only by DNS rebinding.
        name = re.sub(r":\d+$", "", host)
        if name not in (LOOPBACK, "localhost", "[::1]", served):
            return UNKNOWN_HOST
    if origin is not None and urlsplit(origin).netloc != host:
        return FOREIGN_ORIGIN
    return None


def has_password(header: str, password: str) -> bool:
    """Whether an Authorization header contains this password, with any user name."""
    with suppress(ValueError):
        kind, _, given = header.partition(" ")
        _, _, word = base64.b64decode(given, validate=True).decode().partition(":")
        return kind.lower() == "basic" and _same(word, password)
    return False


def _same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal; constant time, independent of where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())


def call_headers(framed_by: str) -> Headers:
    """Headers for pages of a call. Args: framed_by: 'none', or 'self' if a page of this server embeds it in a frame."""
    policy = (
        f"default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; frame-ancestors '{framed_by}'"
    ).encode()
    return (b"content-security-policy", policy), (b"cache-control", b"no-store")


class Visitors:
    """Browsers that opened a call by its key, identified by a cookie."""

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(24)

    def has_key(self, asked: Any) -> bool:
        return _same(asked.query_params.get("key", ""), self.key)

    def name_of(self, asked: Any) -> str:
        """Name of the requesting browser; "" if it has no cookie of this call."""
        name, _, stamp = asked.cookies.get(_COOKIE, "").partition(".")
        return name if name and _same(stamp, self._stamp(name)) else ""

    def new_cookie(self) -> Headers:
        name = secrets.token_urlsafe(24)
        value = f"{_COOKIE}={name}.{self._stamp(name)}; HttpOnly; Path=/; SameSite=Strict"
        return ((b"set-cookie", value.encode()),)

    def _stamp(self, name: str) -> str:
        return hmac.new(self.key.encode(), name.encode(), "sha256").hexdigest()


class Guard:
    """ASGI middleware that answers only authorized requests; others get one sentence."""

    def __init__(
        self,
        app: App,
        *,
        host: str,
        password: str | None,
        realm: str,
        headers: Callable[[str], Headers],
        visitors: Visitors | None = None,
    ) -> None:
        """Args:
        app: the served app.
        host: the address that it is served on.
        password: required for every request; None: no password.
        realm: shown by the browser when it asks for the password.
        headers: response headers for a path.
        visitors: without a password, only they are answered; the app gets their name as `visitor` in its scope.
        """
        self._app, self._host, self._password, self._realm = app, host, password, realm
        self._headers, self._visitors = headers, visitors

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        from starlette.requests import HTTPConnection
        from starlette.responses import PlainTextResponse

        asked = HTTPConnection(scope)
        scope[ASKED_S] = time.monotonic()
        more = [*_EVERY_ANSWER, *self._headers(scope.get("path", ""))]
        if no := self._refusal(asked):
            status, sentence = no
            if scope["type"] != "http":
                await send({"type": "websocket.close", "code": 1008})
                return
            if no is NO_PASSWORD:
                more.append((b"www-authenticate", f'Basic realm="{self._realm}", charset="UTF-8"'.encode()))
            await PlainTextResponse(sentence, status)(scope, receive, _with_headers(send, more))
            return
        if self._visitors is not None:
            scope["visitor"] = self._visitors.name_of(asked)
            if not scope["visitor"]:
                more += self._visitors.new_cookie()
        await self._app(scope, receive, _with_headers(send, more))

    def _refusal(self, asked: Any) -> tuple[int, str] | None:
        if no := refused(self._host, asked.headers.get("host", ""), asked.headers.get("origin")):
            return no
        if self._password:
            return None if has_password(asked.headers.get("authorization", ""), self._password) else NO_PASSWORD
        if self._visitors is None or self._visitors.has_key(asked) or self._visitors.name_of(asked):
            return None
        return NO_KEY


def _with_headers(send: Send, more: Headers) -> Send:
    async def sent(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = message | {"headers": [*message.get("headers", ()), *more]}
        await send(message)

    return sent
