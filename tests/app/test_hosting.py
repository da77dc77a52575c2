"""hosting.py: a call inside another server, its access, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from conftest import until
from mimik.animation.avatar import Avatar
from mimik.app.live import hosting
from mimik.app.live.hosting import Calls
from mimik.config import AnimateConfig, InputError

pytest.importorskip("aiortc", reason="the extra `live` is not installed")

CONFIG = AnimateConfig(model="geometry", size=64, frame="crop", scene="warp")


@pytest.fixture
def calls() -> Iterator[Calls]:
    one = Calls("127.0.0.1")
    yield one
    one.close()


def started(calls: Calls, visitor: str, avatar: Avatar, ended: list[str]) -> str:
    kept = ExitStack()
    kept.callback(ended.append, visitor)
    return calls.begin(visitor, avatar, CONFIG, kept)


def test_one_visitor_has_the_call_until_it_ends(calls: Calls, avatar: Avatar) -> None:
    ended: list[str] = []
    key = started(calls, "a", avatar, ended)
    page = calls.file(key, "")
    assert page is not None and "Look neutral" in page[0] and page[1] == "text/html"
    assert calls.file(key, "lines.json") is not None and calls.file(key, "../page.py") is None
    assert calls.file("guessed", "") is None and calls.recording("guessed", "a.mp4") is None
    with pytest.raises(InputError, match="another call is running on this computer"):
        started(calls, "b", avatar, ended)
    assert ended == ["b"] and key in calls._hosted
    calls.end("b")  # which has none
    again = started(calls, "a", avatar, ended)  # replaces the first one
    assert ended == ["b", "a"] and again != key and calls.file(key, "") is None
    calls.end("a")
    assert ended == ["b", "a", "a"] and again not in calls._hosted
    assert asyncio.run(calls.offer(again, {}, "127.0.0.1"))[0] == 404
    third = started(calls, "b", avatar, ended)
    assert asyncio.run(calls.offer(third, {"no": "offer"}, "127.0.0.1"))[0] == 400


def test_a_call_that_no_page_sees_ends(calls: Calls, avatar: Avatar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "UNSEEN_S", 0.0)
    ended: list[str] = []
    key = started(calls, "a", avatar, ended)
    until(lambda: ended, 30)
    assert ended == ["a"] and key not in calls._hosted
