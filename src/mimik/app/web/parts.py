"""What the tabs of the page have in common: visitors, work that reports how far it is, messages, downloads."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mimik.app.live.hosting import Calls
from mimik.app.web import examples, markup
from mimik.app.web.controls import plain
from mimik.app.web.jobs import Remaining, Tell
from mimik.app.web.sessions import Job, Limits, Session, Sessions, StoppedError
from mimik.config import InputError, extra

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
News = TypeVar("News")

STOPPED = "Stopped. Nothing was kept."
BROKEN = "This did not work, because of a fault of the program and not of what you gave. Its log says more."
_NEWS_EVERY_S = 0.25
# Long work is done one after the other; sliders have a queue of their own.
WORK: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": 1}
QUICK: dict[str, Any] = {"concurrency_id": "quick", "concurrency_limit": 2}
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def gradio_needed() -> Any:
    """gradio, told to ask nobody outside this computer for anything. Raises InputError if it is not installed."""
    for name, value in (("GRADIO_ANALYTICS_ENABLED", "False"), ("HF_HUB_OFFLINE", "1"), ("DO_NOT_TRACK", "1")):
        os.environ.setdefault(name, value)
    with extra("web", "web"), _without_proxies():
        import gradio
    return gradio


@contextmanager
def _without_proxies() -> Iterator[None]:
    """gradio makes HTTP clients when it is imported, which fail on proxies of a kind that they do not know.

    Nothing here asks another computer, so that no proxy is needed.
    """
    taken = {name: os.environ.pop(name) for name in _PROXIES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


@dataclass(frozen=True)
class Shared:
    """What every tab is given."""

    gr: Any  # gradio
    sessions: Sessions  # the visitors' places
    calls: Calls  # the live calls
    limits: Limits  # what they may ask for
    model: str | None  # of the server, as AnimateConfig has it

    def asks(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """gradio hands its request and its events to whoever names their types, which are known in here only."""
        hints = function.__annotations__
        if "request" in hints:
            hints["request"] = self.gr.Request
        if "event" in hints:
            hints["event"] = self.gr.SelectData
        return function

    def session(self, request: Any) -> Session:
        """The place of whoever asks."""
        return self.sessions.of(request.session_hash)

    def download(self, label: str, name: str) -> Any:
        """A button that is there when there is something to download; see `offered`."""
        return self.gr.DownloadButton(label, elem_id=name, visible=False, size="md")

    def offered(self, path: Path | None) -> Any:
        """What a download button becomes."""
        if path is None:
            return self.gr.update(value=None, visible=False)
        return self.gr.update(value=str(path), label=f"Download {path.name}", visible=True)

    def picture(self, name: str, height: int, label: str = "Photo", **more: Any) -> Any:
        """A box for a photo, which stays the file that it is."""
        sources = ["upload", "webcam", "clipboard"]
        return self.gr.Image(
            label=label, type="filepath", image_mode=None, sources=sources, elem_id=name, height=height, **more
        )

    def portraits(self, name: str, columns: int, height: int, into: list[Any]) -> Any:
        """The shipped portraits; one that is chosen goes into the first of some boxes, and the others are emptied."""
        gallery = self.gallery(examples.portraits(), name, columns, height)

        @self.asks
        def chosen(event: Any) -> list[str | None]:
            return [examples.portraits()[event.index][0], *[None] * (len(into) - 1)]

        gallery.select(chosen, None, into, queue=False, **PRIVATE)
        return gallery

    def gallery(self, pictures: Any, name: str, columns: int, height: int, fit: str = "cover", **more: Any) -> Any:
        """Pictures of which one can be chosen."""
        about = {"show_label": False, "allow_preview": False, "interactive": False, "buttons": []}
        return self.gr.Gallery(
            pictures, label=name, columns=columns, height=height, object_fit=fit, elem_id=name, **about, **more
        )

    def buttons(self, doing: str, name: str) -> tuple[Any, Any, Any]:
        """What starts long work: a button, the status under it, and where the number of the job is kept."""
        with self.gr.Row():
            start = self.gr.Button(doing, variant="primary", elem_id=name, scale=3)
            end = self.gr.Button("Stop", elem_id=f"{name}-stop", scale=1, min_width=80)
        status = self.gr.HTML(elem_id=f"{name}-said")
        number = self.gr.State(0)

        @self.asks
        def stop(request: Any) -> None:
            self.session(request).stop()

        end.click(stop, queue=False, **PRIVATE)
        return start, status, number

    def begin(self) -> Callable[..., Any]:
        """A handler that asks for work, before it waits in the queue: Stop ends it from then on."""

        @self.asks
        def begun(request: Any) -> tuple[int, str]:
            return self.session(request).begin().number, markup.waiting("Waiting for its turn")

        return begun


def news_of(
    work: Callable[[Callable[[News], None]], Answer], leave: Callable[[], None]
) -> Generator[News, None, Answer]:
    """Runs work in a thread and gives what it tells; of what was told while the reader was busy, the last.

    Args:
        work: called with what takes its news. Its error is raised here.
        leave: called when nobody reads on, to end it.

    Returns:
        What the work returns.
    """
    news: queue.Queue[tuple[str, Any]] = queue.Queue()

    def run() -> None:
        try:
            news.put(("done", work(lambda one: news.put(("news", one)))))
        except BaseException as error:  # handed over to the reader
            news.put(("error", error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            what, value = news.get()
            while what == "news" and not news.empty():
                what, value = news.get()
            if what == "done":
                return value
            if what == "error":
                raise value
            yield value
    except GeneratorExit:
        leave()
        raise
    finally:
        thread.join()


def watched(job: Job, work: Callable[[Tell], Answer], shown: Callable[[str], News]) -> Generator[News, None, Answer]:
    """Runs work and gives what is shown of a progress bar; the job is stopped when nobody reads on."""
    remaining = Remaining()
    last_s = 0.0

    def told(news: Callable[[News], None]) -> Answer:
        def tell(share: float, doing: str) -> None:
            nonlocal last_s
            now = time.monotonic()
            if now - last_s >= _NEWS_EVERY_S:
                last_s = now
                news(shown(markup.progress(share, doing, remaining(share))))

        return work(tell)

    return news_of(told, job.session.stop)


def message_of(error: BaseException) -> str:
    """What the page says where work ended without a result."""
    if isinstance(error, StoppedError):
        return markup.note(STOPPED, "plain")
    if isinstance(error, InputError):
        return markup.note(plain(str(error)), "bad")
    log.error("a visitor's work failed", exc_info=error)
    return markup.note(BROKEN, "bad")
