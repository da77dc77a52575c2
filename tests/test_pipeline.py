"""pipeline.py: items are prefetched by a thread, in order, and no thread remains."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Generator
from contextlib import closing

import cv2
import pytest
from threadpoolctl import threadpool_info

from mimik.config import InputError
from mimik.pipeline import pipeline_threads, prefetch, run_in_thread


def test_prefetch_keeps_the_order() -> None:
    assert list(prefetch((i for i in range(50)), size=3)) == list(range(50))
    assert list(prefetch((i for i in ()), size=3)) == []
    assert list(prefetch((x for x in (None, 0, None)), size=1)) == [None, 0, None]


def test_prefetch_hands_an_exception_over_after_the_items() -> None:
    def items() -> Generator[int]:
        yield 1
        yield 2
        raise InputError("the third")

    got = []
    with pytest.raises(InputError, match="the third"):
        for item in prefetch(items(), size=8):
            got.append(item)
    assert got == [1, 2]


def test_prefetch_runs_ahead_but_not_far() -> None:
    made: list[int] = []

    def items() -> Generator[int]:
        for i in range(100):
            made.append(i)
            yield i

    with closing(prefetch(items(), size=4)) as stream:
        assert next(stream) == 0
        deadline = time.monotonic() + 30
        while len(made) < 5 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        assert len(made) == 1 + 4  # taken, and waiting


def test_prefetch_ends_its_thread_when_closed() -> None:
    closed = []

    def items() -> Generator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    before = threading.active_count()
    for _ in range(20):
        with closing(prefetch(items(), size=2)) as stream:
            assert [next(stream), next(stream)] == [0, 1]
    assert threading.active_count() == before
    assert len(closed) == 20


def test_prefetch_that_is_never_read_starts_no_thread() -> None:
    before = threading.active_count()
    stream = prefetch((i for i in range(3)), size=2)
    stream.close()
    assert threading.active_count() == before


def test_overlapping_pipelines_leave_the_threads_as_they_were() -> None:
    """The pipeline that starts first ends first, so the second one found the first one's thread limit."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    try:
        first, second = pipeline_threads(), pipeline_threads()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        inside = cv2.getNumThreads()
        assert all(pool["num_threads"] == 1 for pool in threadpool_info() if pool["user_api"] == "blas")
        second.__exit__(None, None, None)
        assert cv2.getNumThreads() == 3 and inside <= 3
        assert [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"] == blas
    finally:
        cv2.setNumThreads(before)


def test_run_in_thread_starts_at_once_and_returns_errors() -> None:
    runs = threading.Event()

    def make() -> int:
        runs.set()
        return 7

    made = run_in_thread(make)
    assert runs.wait(5)
    assert made.result(5) == 7

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_in_thread(fail).result(5)


def test_prefetch_interrupted_while_its_thread_starts_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may arrive while waiting for the new thread; a remaining thread would be killed inside C++ code."""
    start, closed = threading.Thread.start, threading.Event()

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    def items() -> Generator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), closing(prefetch(items())) as numbers:
        next(numbers)
    assert closed.is_set() and threading.active_count() == before


def test_run_in_thread_is_not_killed_at_exit() -> None:
    """Not even if a thread that may be killed started it."""
    assert list(prefetch(run_in_thread(lambda: threading.current_thread().daemon).result() for _ in range(2))) == [
        False,
        False,
    ]
