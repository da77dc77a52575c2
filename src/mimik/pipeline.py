"""Pipeline stages in threads: prefetching, progress, and busy time of each stage."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
Progress = Callable[[str, int, int | None], None]  # stage, done, total if known

QUEUE_FRAMES = 8  # capacity of the queue between two stages
# Frames processed concurrently; more are limited by the interpreter lock.
NUM_AT_ONCE = max(2, min(os.cpu_count() or 1, 4))
_NUM_STAGES = 5  # expensive stages: tracking, flow, layers and network, painting, encoding


def silent(stage: str, done: int, total: int | None) -> None:
    """A Progress that ignores all reports."""


# Relative cost of a frame in each stage, at 512 px on two cores; the ratios are similar elsewhere.
STAGE_COSTS = {"track": 0.25, "animate": 1.0, "sign": 0.25}
STAGE_WORDS = {"track": "reading the driver", "animate": "animating", "sign": "signing"}  # stages in user-facing words


class RunProgress:
    """Completed work of a run, over all stages of its pipeline.

    A stage counts from its first report on. Announce later stages in advance by reporting 0 of their total.
    """

    def __init__(self) -> None:
        self._stages: dict[str, tuple[int, int | None]] = {}

    def __contains__(self, stage: str) -> bool:
        return stage in self._stages

    def __call__(self, stage: str, done: int, total: int | None) -> tuple[float, float | None] | None:
        """Process one report of the pipeline; the signature is that of Progress.

        Args: stage: one of STAGE_COSTS; done, total: frames of it; total is None if unknown.

        Returns:
            Completed work, and total work or None if unknown. None instead if there is nothing to display: a stage was
            announced, or the driver is being read ahead of the rendered frames.
        """
        done = max(done, self._stages.get(stage, (0, None))[0])  # several drivers may be read concurrently
        self._stages[stage] = (min(done, total) if total else done), total
        if not done or (stage == "track" and self._stages.get("animate", (0, None))[0]):
            return None
        worked = sum(STAGE_COSTS[name] * done for name, (done, _) in self._stages.items())
        totals = [(STAGE_COSTS[name], total) for name, (_, total) in self._stages.items()]
        of_all = sum(cost * total for cost, total in totals if total)
        return worked, of_all if all(total for _, total in totals) else None


class Clock:
    """Busy seconds of each stage of the pipeline."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            busy = time.perf_counter() - start
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + busy

    def ms_per_frame(self, num_frames: int) -> dict[str, float]:
        """Milliseconds per frame of each stage, rounded."""
        return {stage: round(1000 * s / max(num_frames, 1), 2) for stage, s in self.seconds.items()}

    def each(self, stage: str, items: Generator[T]) -> Generator[T]:
        """The items; the time spent generating them is added to the stage."""
        with closing(items):
            while True:
                with self(stage):
                    item = next(items, None)
                if item is None:
                    return
                yield item


def run_in_thread(make: Callable[[], T]) -> Future[T]:
    """Run a function in a new thread; the Future has its result or its exception.

    The thread is not a daemon: killing a thread inside C++ code at interpreter exit would abort the process.
    """
    made: Future[T] = Future()

    def work() -> None:
        try:
            made.set_result(make())
        except BaseException as error:  # passed to the caller, whatever it is
            made.set_exception(error)

    threading.Thread(target=work, daemon=False).start()
    return made


def prefetch(items: Generator[T], size: int = QUEUE_FRAMES) -> Generator[T]:
    """The same items, generated ahead in a separate thread.

    At most `size` items are queued or being generated; with 1, the next item is started when the previous one is taken.
    An exception in the thread is raised here. Closing this generator ends the thread.
    """
    waiting: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    room = threading.Semaphore(size)
    running, stop = threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        try:
            with closing(items):
                while room.acquire() and not stop.is_set():
                    waiting.put(("item", next(items)))
        except StopIteration:
            waiting.put(("end", None))
        except BaseException as error:  # passed to the consumer, whatever it is
            waiting.put(("error", error))

    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()
        while True:
            kind, item = waiting.get()
            if kind == "error":
                raise item
            if kind == "end":
                return
            room.release()
            yield item
    finally:
        stop.set()
        room.release()
        if running.wait(1):  # Ctrl-C may have interrupted its start
            thread.join()


class _LibraryLimits:
    """Reference-counted limit of the threads of OpenCV and BLAS."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_users = 0
        self._before = ExitStack()

    def __enter__(self) -> None:
        import cv2  # imported here, because users of RunProgress do not need it
        from threadpoolctl import threadpool_limits

        with self._lock:
            self._num_users += 1
            if self._num_users == 1:
                self._before.callback(cv2.setNumThreads, cv2.getNumThreads())
                cv2.setNumThreads(max(1, (os.cpu_count() or 1) // _NUM_STAGES))
                self._before.enter_context(threadpool_limits(limits=1, user_api="blas"))

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0:
                self._before.close()


_limits = _LibraryLimits()


def pipeline_threads() -> AbstractContextManager[None]:
    """Limit the threads of OpenCV and BLAS while a pipeline runs, because its own threads already use all cores.

    The limits are process-wide: the first of several concurrent pipelines sets them, the last one restores them.
    """
    return _limits
