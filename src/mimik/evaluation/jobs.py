"""Multithreaded jobs with progress, and the speed of the program in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from mimik.config import AVATAR_SUFFIX, InputError
from mimik.files import asset
from mimik.pipeline import Progress


def speed(out: Path, model: str, asked: str) -> dict[str, Any]:
    """Speed of `mimik animate` with the bundled portrait and a 512 px video, run in a separate process, from its
    report.

    An avatar uses its photo instead of the portrait.
    """
    portrait = str(asset("portraits/eileen_collins.png"))
    driver, result = out / "speed" / "driver.mp4", out / "speed" / f"{model}.mp4"
    driver.parent.mkdir(exist_ok=True)
    if not driver.exists():
        _run_animate(portrait, "talk", driver, ["--model", "geometry"], driver.with_suffix(".json"))
    report = result.with_suffix(".json")
    if asked.lower().endswith(AVATAR_SUFFIX):
        _run_animate(asked, str(driver), result, [], report)
    else:
        _run_animate(portrait, str(driver), result, ["--model", asked], report)
    return dict(json.loads(report.read_text(encoding="utf-8")))


def _run_animate(photo: str, driver: str, out: Path, options: Sequence[str], report: Path) -> None:
    command = [sys.executable, "-m", "mimik", "animate", photo, driver, "-o", str(out), *options]
    done = subprocess.run([*command, "--json", str(report), "--force"], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"the speed of {out.stem} could not be measured: {done.stderr.strip()[-300:]}")


class ProgressCount:
    """Thread-safe progress counter; raises in all threads when the run is stopped."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()
        self.stopped = False

    def tell(self, what: str) -> None:
        """Report the current activity without counting."""
        with self._lock:
            self._progress(what, self._done, self._total)

    def __call__(self, what: str) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        with self._lock:
            self._done += 1
            self._progress(what, self._done, self._total)


def run_tasks(
    jobs: Mapping[str, Callable[[], list[dict[str, Any]]]], count: ProgressCount
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The records of all jobs in order, and the reasons of jobs that failed because of the user's input.

    One thread per core, each with one thread of torch: the networks are small, and synchronizing threads at every layer
    costs several times the gain on shared cores.
    """
    records: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # On shared cores the threads of the linear solver also mostly wait for each other.
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
            waiting = {name: pool.submit(job) for name, job in jobs.items()}
            try:
                for name, future in waiting.items():
                    try:
                        records += future.result()
                    except InputError as error:
                        failed[name] = str(error)
            except BaseException:
                count.stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(num_threads)
    return records, failed
