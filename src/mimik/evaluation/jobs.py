"""Jobs over threads with a count of what is done, and the speed of the program in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from mimik.config import AVATAR_SUFFIX, InputError
from mimik.pipeline import Progress


def speed(out: Path, model: str, asked: str) -> dict[str, Any]:
    """`mimik animate` of the bundled portrait by a video of 512 px, in a process of its own, as its report tells it.

    An avatar brings its own photo.
    """
    portrait = str(resources.files("mimik").joinpath("assets/portraits/eileen_collins.png"))
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


class Count:
    """Counts what is done, from several threads; ends them when the run is stopped."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()
        self.stopped = False

    def tell(self, what: str) -> None:
        """What is going on, without anything being done."""
        with self._lock:
            self._progress(what, self._done, self._total)

    def __call__(self, what: str) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        with self._lock:
            self._done += 1
            self._progress(what, self._done, self._total)


def all_done(
    jobs: Mapping[str, Callable[[], list[dict[str, Any]]]], count: Count
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The records of all jobs in their order, and the reasons of those that failed by what the user gave.

    A thread for each core, with one thread of torch each: the networks are small, and threads that wait for each other
    at every layer cost several times what they bring on cores that are shared.
    """
    records: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # On shared cores the linear solver's threads mostly wait for each other, too.
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
