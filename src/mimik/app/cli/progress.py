"""How far a run is: bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from mimik.app.cli.console import errors

if TYPE_CHECKING:
    from mimik.data import prepare

_STAGES = {"track": "reading the driver", "animate": "animating", "sign": "signing"}
_FIRST_LINE_S = 2.0  # nobody waits longer than this without a word
_LINE_EVERY_S = 5.0


class Bars:
    """Progress bars of a run; on a pipe or in a log file, a line every few seconds instead."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:18}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._start: dict[str, float] = {}
        self._said = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        elapsed_s = time.monotonic() - self._start.setdefault(stage, time.monotonic())
        rate = f"{done / elapsed_s:.0f}/s" if elapsed_s > 0.5 else ""
        if errors.is_terminal:
            self._show(stage, done, total, f"{done}/{total or '?'} frames", rate)
            if stage == "animate" and done == total:
                self._show("signing", 0, None, "", "")
        elif time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            of = f" of {total}" if total else ""
            errors.print(f"{_STAGES.get(stage, stage)}: {done}{of} frames {rate}".rstrip(), soft_wrap=True)

    def _show(self, stage: str, done: int, total: int | None, count: str, rate: str) -> None:
        if stage not in self._tasks:
            if stage != "preparing" and "preparing" in self._tasks:
                self._bars.update(self._tasks["preparing"], visible=False)
            self._tasks[stage] = self._bars.add_task(_STAGES.get(stage, stage), total=total, count="", rate="")
        self._bars.update(self._tasks[stage], completed=done, total=total, count=count, rate=rate)

    @contextmanager
    def shown(self) -> Iterator[Bars]:
        if not errors.is_terminal:
            yield self
            return
        with self._bars:
            self._show("preparing", 0, None, "", "")
            yield self


class VideoBar:
    """Progress of `mimik prepare`: videos done, what was kept, and how fast."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        )
        self._task = self._bar.add_task("opening", total=None, state="")
        self._said = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S

    def __call__(self, state: prepare.Progress) -> None:
        text = (
            f"{state.done}/{state.total} videos, {state.kept} clips kept, {state.rejected} tracks left out, "
            f"{state.rate:.1f} s of video a second"
        )
        if errors.is_terminal:
            self._bar.update(self._task, description="preparing", completed=state.done, total=state.total, state=text)
        elif time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            errors.print(text, soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[VideoBar]:
        if errors.is_terminal:
            with self._bar:
                yield self
        else:
            yield self


class Steps:
    """What `mimik export` is at; on a pipe or in a log file, a line every few seconds instead."""

    def __init__(self) -> None:
        self._status = errors.status("starting")
        self._said = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S

    def __call__(self, step: str, done: int, total: int | None) -> None:
        text = f"{step}: {done} of {total} frames" if total else step
        if errors.is_terminal:
            self._status.update(escape(text))
        elif not total or time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            errors.print(escape(text), soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[Steps]:
        with self._status if errors.is_terminal else nullcontext():
            yield self


@contextmanager
def working(text: str) -> Iterator[None]:
    if errors.is_terminal:
        with errors.status(escape(text)):
            yield
        return
    late = threading.Timer(_FIRST_LINE_S, lambda: errors.print(escape(text), soft_wrap=True))
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


class StepBar:
    """Progress of `mimik train`: steps, and the lines of its log above the bar."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        )
        self._task = self._bar.add_task("training", total=None)

    def __call__(self, step: int, num_steps: int) -> None:
        self._bar.update(self._task, completed=step, total=num_steps)

    @contextmanager
    def shown(self) -> Iterator[StepBar]:
        lines = logging.Handler()
        lines.emit = lambda record: errors.print(escape(record.getMessage()), soft_wrap=True)  # type: ignore[method-assign]
        logger = logging.getLogger("mimik")
        logger.addHandler(lines)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            with self._bar if errors.is_terminal else nullcontext():
                yield self
        finally:
            logger.removeHandler(lines)
            logger.setLevel(logging.NOTSET)
            logger.propagate = True


class LearnBar:
    """Progress of `mimik learn`: steps, and what the last probe found."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("learning"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        )
        self._task = self._bar.add_task("learning", total=None, state="looking at the photos")
        self._said = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S

    def __call__(self, point: Any, step: int, num_steps: int) -> None:
        scores = f"identity {point.identity:.3f}, motion fidelity {point.motion_fidelity:.3f}"
        text = f"step {step} of {num_steps} at most; {scores}"
        if errors.is_terminal:
            self._bar.update(self._task, completed=step, total=num_steps, state=text)
        elif time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            errors.print(text, soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[LearnBar]:
        with self._bar if errors.is_terminal else working("looking at the photos"):
            yield self


@contextmanager
def item_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Progress of `mimik evaluate` and of many videos: what was done last, of how much."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )
    task = bar.add_task("opening", total=None)
    said = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S

    def show(what: str, done: int, total: int) -> None:
        nonlocal said
        if errors.is_terminal:
            bar.update(task, description=escape(what), completed=done, total=total)
        elif time.monotonic() - said > _LINE_EVERY_S:
            said = time.monotonic()
            errors.print(f"{done} of {total}: {escape(what)}", soft_wrap=True)

    if errors.is_terminal:
        with bar:
            yield show
    else:
        yield show
