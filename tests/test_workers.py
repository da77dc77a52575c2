"""workers.py: results in order from any worker; dead, stuck or interrupted workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from mimik.config import InputError
from mimik.workers import Cause, Lost, pool_results, ray_results


class Job(NamedTuple):
    """The action of a worker: wait and return its number, or fail in some way."""

    number: int
    seconds: float = 0.0
    kind: str = "good"
    path: Path | None = None


def work(job: Job, beat: Callable[[], None]) -> int:
    if job.kind == "dies":
        os._exit(7)
    if job.path is not None:
        job.path.touch()
    try:
        until = time.monotonic() + job.seconds
        while time.monotonic() < until:
            time.sleep(0.05)
            if job.kind != "hangs":
                beat()
    finally:
        if job.path is not None:
            job.path.unlink()
    return job.number


def test_no_workers_work_here() -> None:
    assert list(pool_results(work, [Job(1), Job(2)], 0, stall_s=1)) == [1, 2]
    assert list(pool_results(work, [], 3, stall_s=1)) == []


@pytest.mark.slow
def test_results_come_in_order_and_a_lost_worker_costs_its_task_only() -> None:
    jobs = [Job(0, 1.5), Job(1), Job(2, kind="dies"), Job(3, 60, "hangs"), Job(4, 3.0), Job(5)]
    results = list(pool_results(work, jobs, 2, stall_s=2))
    assert [result for result in results if not isinstance(result, Lost)] == [0, 1, 4, 5]
    assert results[2] == Lost(Cause.DIED, "its process ended with code 7")
    assert results[3] == Lost(Cause.STALLED, "no response for 2 s")


@pytest.mark.slow
def test_an_interrupted_worker_tidies_up(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    draft = tmp_path / "draft"
    with closing(pool_results(work, [Job(0, 60, path=draft), Job(1, 0.5)], 2, stall_s=60)) as results:

        def interrupt() -> None:
            while not draft.exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            next(results)
    assert not draft.exists()


def warm_up_that_fails() -> None:
    os._exit(3)


@pytest.mark.slow
def test_workers_that_cannot_start_are_reported() -> None:
    with pytest.raises(InputError, match="a worker ended with code 3 before it could start"):
        list(pool_results(work, [Job(0)], 1, stall_s=60, warm_up=warm_up_that_fails))


def test_ray_that_is_missing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"--ray needs Ray; install it with: pip install '.\[cluster\]'"):
        list(ray_results(work, [Job(0)], address=None, num_workers=1, timeout_s=1))
