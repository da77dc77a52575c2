"""Common parts of the page's tabs: sessions, jobs with progress, messages, downloads."""

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
BROKEN = "This failed because of an error in the program, not because of your input. See its log."
_NEWS_EVERY_S = 0.25
# Long jobs run one at a time; sliders have a separate queue.
WORK: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": 1}
QUICK: dict[str, Any] = {"concurrency_id": "quick", "concurrency_limit": 2}
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def gradio_needed() -> Any:
    """Import gradio with telemetry and downloads disabled. Raises InputError if it is not installed."""
    for name, value in (("GRADIO_ANALYTICS_ENABLED", "False"), ("HF_HUB_OFFLINE", "1"), ("DO_NOT_TRACK", "1")):
        os.environ.setdefault(name, value)
    with extra("web", "web"), _without_proxies():
        import gradio
    return gradio


@contextmanager
def _without_proxies() -> Iterator[None]:
    """Hide proxies while gradio is imported: it creates HTTP clients, which fail on unknown kinds of proxies.

    No proxy is needed, because the app sends no requests to other computers.
    """
    taken = {name: os.environ.pop(name) for name in _PROXIES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


@dataclass(frozen=True)
class Shared:
    """Shared state of all tabs."""

    gr: Any  # gradio
    sessions: Sessions  # of the visitors
    calls: Calls  # the live calls
    limits: Limits  # of the visitors
    model: str | None  # of the server, as in AnimateConfig

    def asks(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Replace annotations by gradio's types, known only here; gradio passes requests and events by annotation."""
        hints = function.__annotations__
        if "request" in hints:
            hints["request"] = self.gr.Request
        if "event" in hints:
            hints["event"] = self.gr.SelectData
        return function

    def session(self, request: Any) -> Session:
        """The session of a request."""
        return self.sessions.of(request.session_hash)

    def download(self, label: str, name: str) -> Any:
        """A download button, hidden until there is a file; see `offered`."""
        return self.gr.DownloadButton(label, elem_id=name, visible=False, size="md")

    def offered(self, path: Path | None) -> Any:
        """Update of a download button."""
        if path is None:
            return self.gr.update(value=None, visible=False)
        return self.gr.update(value=str(path), label=f"Download {path.name}", visible=True)

    def picture(self, name: str, height: int, label: str = "Photo", **more: Any) -> Any:
        """An image input that keeps the original file."""
        sources = ["upload", "webcam", "clipboard"]
        return self.gr.Image(
            label=label, type="filepath", image_mode=None, sources=sources, elem_id=name, height=height, **more
        )

    def portraits(self, name: str, columns: int, height: int, into: list[Any]) -> Any:
        """Gallery of the bundled portraits; the chosen one is set in the first of some inputs, the others cleared."""
        gallery = self.gallery(examples.portraits(), name, columns, height)

        @self.asks
        def chosen(event: Any) -> Any:
            path = examples.portraits()[event.index][0]
            return [path, *[None] * (len(into) - 1)] if len(into) > 1 else path  # gradio takes no list for one output

        gallery.select(chosen, None, into, queue=False, **PRIVATE)
        return gallery

    def gallery(self, pictures: Any, name: str, columns: int, height: int, fit: str = "cover", **more: Any) -> Any:
        """A gallery from which one picture can be chosen."""
        about = {"show_label": False, "allow_preview": False, "interactive": False, "buttons": []}
        return self.gr.Gallery(
            pictures, label=name, columns=columns, height=height, object_fit=fit, elem_id=name, **about, **more
        )

    def buttons(self, doing: str, name: str) -> tuple[Any, Any, Any]:
        """Controls of a long job: the start button, the status below it, and the state with the job's number."""
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
        """A handler that creates a job before it waits in the queue, so that Stop affects it at once."""

        @self.asks
        def on_begin(request: Any) -> tuple[int, str]:
            return self.session(request).begin().number, markup.waiting("Waiting for its turn")

        return on_begin


def news_of(
    work: Callable[[Callable[[News], None]], Answer], leave: Callable[[], None]
) -> Generator[News, None, Answer]:
    """Run work in a thread and yield its news; if the reader is slow, only the latest.

    Args:
        work: called with a function that takes its news. Its exception is raised here.
        leave: called to stop the work if the generator is closed.

    Returns:
        The result of the work.
    """
    news: queue.Queue[tuple[str, Any]] = queue.Queue()

    def run() -> None:
        try:
            news.put(("done", work(lambda one: news.put(("news", one)))))
        except BaseException as error:  # re-raised in the reader
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


def with_progress_bar(
    job: Job, work: Callable[[Tell], Answer], shown: Callable[[str], News]
) -> Generator[News, None, Answer]:
    """Run a job and yield its progress bar; the job is stopped if the generator is closed."""
    remaining = Remaining()
    last_s = 0.0

    def run(news: Callable[[News], None]) -> Answer:
        def tell(share: float, doing: str) -> None:
            nonlocal last_s
            now = time.monotonic()
            if now - last_s >= _NEWS_EVERY_S:
                last_s = now
                news(shown(markup.progress(share, doing, remaining(share))))

        return work(tell)

    return news_of(run, job.session.stop)


def message_of(error: BaseException) -> str:
    """Message of the page for a job that failed or was stopped."""
    if isinstance(error, StoppedError):
        return markup.note(STOPPED, "plain")
    if isinstance(error, InputError):
        return markup.note(plain(str(error)), "bad")
    log.error("a job failed", exc_info=error)
    return markup.note(BROKEN, "bad")
