"""serving.py: the server ends quietly while pages are open."""

from __future__ import annotations

import http.client
import time
from typing import Any

import pytest

from mimik.app.serving import Serving, bound, served

pytest.importorskip("uvicorn", reason="neither the extra `web` nor `live` is installed")


async def endless(scope: Any, receive: Any, send: Any) -> None:
    """An app whose answer never ends, like the events of a page."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


def test_an_open_page_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    with bound(Serving(port=0)) as listening:
        page = http.client.HTTPConnection("127.0.0.1", listening.getsockname()[1], timeout=20)
        with served(endless, listening, "mimik web"):
            page.request("GET", "/")
            assert page.getresponse().readline() == b"first\n"
            begin_s = time.monotonic()
        took_s = time.monotonic() - begin_s
        page.close()
    assert took_s < 1.8, "a user who presses Ctrl-C waits for it"
    assert capfd.readouterr().err == ""
