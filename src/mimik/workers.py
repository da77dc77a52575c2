"""Map a function over many tasks: in local processes or on a Ray cluster.

Results are returned in the order of the tasks. If a worker dies or hangs, only its current task is lost. If a machine
of the cluster dies, its tasks are repeated on another one.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import cv2

from mimik.config import InputError, install_command

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
Beat = Callable[[], None]  # heartbeat, called by a task while it makes progress

_CHECK_S = 0.5  # interval at which workers are checked
_END_S = 5.0  # time for a worker to clean up
_RETRIES = 2  # of a task whose machine or worker is lost, under Ray


class Cause(StrEnum):
    """Why a task has no result."""

    DIED = "died"
    STALLED = "stalled"


@dataclass(frozen=True)
class Lost:
    """Returned in place of a result; detail is for messages."""

    cause: Cause
    detail: str


def ignore_heartbeat() -> None:
    """A Beat that does nothing."""


def _serve(connection: Connection, work: Callable[[Any, Beat], Any], warm_up: Callable[[], object] | None) -> None:
    """Main function of a worker process: processes tasks until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(
        signal.SIGTERM, lambda number, _: sys.exit(128 + number)
    )  # unwinds the stack, so that incomplete work is cleaned up
    cv2.setNumThreads(1)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    last = -math.inf
    sending = threading.Lock()  # a task's threads may send heartbeats too

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > 1:
            last = time.monotonic()
            with sending:
                connection.send(None)

    with suppress(EOFError, BrokenPipeError):
        if warm_up is not None:
            warm_up()
        beat()
        while True:
            result = work(connection.recv(), beat)
            with sending:
                connection.send((result,))


class _Worker:
    """A worker process, its current task number, and the time of its last heartbeat."""

    def __init__(self, work: Callable[[Any, Beat], Any], warm_up: Callable[[], object] | None) -> None:
        context = multiprocessing.get_context("spawn")  # the networks' threads do not survive a fork
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, work, warm_up), daemon=True)
        self.process.start()
        other.close()
        self.number: int | None = None
        self.heard_s = math.inf  # no timeout while it starts

    def give(self, number: int, task: Any) -> None:
        self.number, self.heard_s = number, max(self.heard_s, time.monotonic())
        self.connection.send(task)

    def stop(self) -> None:
        if self.number is not None:
            self.process.terminate()
            self.process.join(_END_S)
        self.process.kill()
        self.process.join()
        self.connection.close()


def pool_results(
    work: Callable[[_Task, Beat], _Result],
    tasks: Sequence[_Task],
    num_workers: int,
    *,
    stall_s: float,
    warm_up: Callable[[], object] | None = None,
) -> Generator[_Result | Lost]:
    """The result of each task, in order, from local processes.

    Args:
        work: processes one task, with a heartbeat at least every stall_s; a module-level function.
        tasks: picklable.
        num_workers: processes; 0: run in this process.
        stall_s: seconds without a heartbeat after which a worker is killed and its task is lost.
        warm_up: called by each worker before its first task.

    Raises:
        InputError: if a worker cannot start.
    """
    if num_workers == 0:
        for task in tasks:
            yield work(task, ignore_heartbeat)
        return
    window = 4 * num_workers + 8  # results that may wait for an earlier one
    finished: dict[int, _Result | Lost] = {}
    num_started = 0
    workers = [_Worker(work, warm_up) for _ in range(min(num_workers, len(tasks)))]
    try:
        for number in range(len(tasks)):
            while number not in finished:
                for i, worker in enumerate(workers):
                    if worker.number is None and num_started < min(len(tasks), number + window):
                        try:
                            worker.give(num_started, tasks[num_started])
                        except OSError:  # it died idle
                            worker.stop()
                            workers[i] = worker = _Worker(work, warm_up)
                            worker.give(num_started, tasks[num_started])
                        num_started += 1
                busy = [worker for worker in workers if worker.number is not None]
                ready = set(wait([worker.connection for worker in busy], timeout=_CHECK_S))
                for i, worker in enumerate(workers):
                    if worker.number is None:
                        continue
                    lost: Lost | None = None
                    if worker.connection in ready:
                        try:
                            message = worker.connection.recv()
                            worker.heard_s = time.monotonic()
                        except (EOFError, OSError):
                            worker.process.join(_END_S)
                            code = worker.process.exitcode
                            if worker.heard_s == math.inf:
                                raise InputError(
                                    f"a worker ended with code {code} before it could start; try fewer workers, or run "
                                    "it again with --workers 0 to see why."
                                ) from None
                            lost = Lost(Cause.DIED, f"its process ended with code {code}")
                        else:
                            if message is not None:
                                (finished[worker.number],) = message
                                worker.number = None
                    elif time.monotonic() - worker.heard_s > stall_s:
                        lost = Lost(Cause.STALLED, f"no response for {stall_s:g} s")
                    if lost is not None and worker.number is not None:
                        finished[worker.number] = lost
                        worker.stop()
                        workers[i] = _Worker(work, warm_up)
            yield finished.pop(number)
    finally:
        for worker in workers:  # terminate all first: each may take a moment to clean up
            worker.process.terminate()
        for worker in workers:
            worker.stop()


def ray_results(
    work: Callable[[_Task, Beat], _Result],
    tasks: Sequence[_Task],
    *,
    address: str | None,
    num_workers: int | None,
    timeout_s: float,
    cores: int = 1,
) -> Generator[_Result | Lost]:
    """The same on a Ray cluster, whose machines must see the files of a task under the same paths.

    Args:
        work, tasks: as in pool_results.
        address: of the cluster; None: start a local one with num_workers cores for this call.
        num_workers: see address; None: all cores.
        timeout_s: total time after which a task is cancelled.
        cores: used by a task.

    Raises:
        InputError: if Ray is not installed or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(f"--ray needs Ray; install it with: {install_command('cluster')}.") from error
    own = not ray.is_initialized()
    try:
        if own and address is not None:
            ray.init(address=address, log_to_driver=False)
        elif own:
            ray.init(num_cpus=num_workers, include_dashboard=False, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"--ray {address}: the cluster cannot be reached ({error}); see `ray status`.") from error

    def remote_work(task: _Task) -> _Result:
        cv2.setNumThreads(1)
        return work(task, ignore_heartbeat)

    try:
        available = max(1, int(ray.cluster_resources().get("CPU", 1)))
        # If its machine or worker is lost, a task is repeated. It is idempotent: files already written are replaced.
        remote = ray.remote(max_retries=_RETRIES, num_cpus=min(cores, available))(remote_work)
        window = 4 * available + 8
        running: deque[Any] = deque()
        for number, _ in enumerate(tasks):
            while len(running) < window and number + len(running) < len(tasks):
                running.append(remote.remote(tasks[number + len(running)]))
            reference = running.popleft()
            try:
                yield ray.get(reference, timeout=timeout_s)
            except ray.exceptions.GetTimeoutError:
                ray.cancel(reference, force=True)
                yield Lost(Cause.STALLED, f"not finished after {timeout_s:g} s")
            except ray.exceptions.RayError as error:
                yield Lost(Cause.DIED, f"Ray: {type(error).__name__}")
    finally:
        if own:
            ray.shutdown()
