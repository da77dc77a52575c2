"""Stages that run at the same time: threads that make items ahead, and how long each stage is busy."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
Progress = Callable[[str, int, int | None], None]  # stage, done, total if known

QUEUE_FRAMES = 8  # that may wait between two stages
NUM_AT_ONCE = max(2, min(os.cpu_count() or 1, 4))  # frames that are made at the same time: beyond, Python is the limit
_NUM_STAGES = 5  # that take long: tracking, flow, layers and network, painting, encoding


def silent(stage: str, done: int, total: int | None) -> None:
    """Progress that nobody reads."""


# What one frame costs in each stage: at 512 px on two cores, elsewhere in about the same proportions.
STAGE_COSTS = {"track": 0.25, "animate": 1.0, "sign": 0.25}
STAGE_WORDS = {"track": "reading the driver", "animate": "animating", "sign": "signing"}  # for people


class RunProgress:
    """How much of a run is done, over all stages of its pipeline.

    A stage is part of the run from when it is told first: announce those that come later by 0 of their total.
    """

    def __init__(self) -> None:
        self._stages: dict[str, tuple[int, int | None]] = {}

    def __contains__(self, stage: str) -> bool:
        return stage in self._stages

    def __call__(self, stage: str, done: int, total: int | None) -> tuple[float, float | None] | None:
        """As pipelines tell it.

        Args: stage: one of STAGE_COSTS; done, total: of it; total is None where it is not known.

        Returns:
            Work done and of the whole run, None where that is not known. Instead None if there is nothing to tell: a
            stage is announced, or the driver is read ahead of the frames that are made.
        """
        done = max(done, self._stages.get(stage, (0, None))[0])  # several drivers are read at the same time
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
        """Of each stage, rounded."""
        return {stage: round(1000 * s / max(num_frames, 1), 2) for stage, s in self.seconds.items()}

    def each(self, stage: str, items: Generator[T]) -> Generator[T]:
        """The items; the time that making them takes is counted for the stage."""
        with closing(items):
            while True:
                with self(stage):
                    item = next(items, None)
                if item is None:
                    return
                yield item


def begun(make: Callable[[], T]) -> Future[T]:
    """What a function makes, in a thread of its own from now on; its error is raised to who asks for the result.

    The program does not end before it is made: a thread that is killed in the middle of C++ code aborts the process.
    """
    made: Future[T] = Future()

    def work() -> None:
        try:
            made.set_result(make())
        except BaseException as error:  # handed over, whatever it is
            made.set_exception(error)

    threading.Thread(target=work, daemon=False).start()
    return made


def prefetch(items: Generator[T], size: int = QUEUE_FRAMES) -> Generator[T]:
    """The same items, made ahead in a thread of their own.

    At most `size` of them wait or are being made: with 1 the next is begun when the one before is taken. An exception
    of the thread is raised here; closing this generator ends the thread.
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
        except BaseException as error:  # handed over to the reader, whatever it is
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
        if running.wait(1):  # Ctrl-C may have come while it was being started
            thread.join()


@contextmanager
def pipeline_threads() -> Iterator[None]:
    """While a pipeline runs: its own threads keep the cores busy, those of its libraries would wait.

    The limits belong to the process: the first of several pipelines at a time sets them, the last one lifts them.
    """
    _limits.enter()
    try:
        yield
    finally:
        _limits.leave()


class _LibraryLimits:
    """The threads of OpenCV and BLAS, limited while anybody asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_users = 0
        self._before = ExitStack()

    def enter(self) -> None:
        import cv2  # here, and not for those who only tell of progress
        from threadpoolctl import threadpool_limits

        with self._lock:
            self._num_users += 1
            if self._num_users == 1:
                self._before.callback(cv2.setNumThreads, cv2.getNumThreads())
                cv2.setNumThreads(max(1, (os.cpu_count() or 1) // _NUM_STAGES))
                self._before.enter_context(threadpool_limits(limits=1, user_api="blas"))

    def leave(self) -> None:
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0:
                self._before.close()


_limits = _LibraryLimits()
