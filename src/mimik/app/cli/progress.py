"""How far a run is: bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from mimik.app.cli.console import errors

_STAGES = {"track": "reading the driver", "animate": "animating", "sign": "signing"}
_FIRST_LINE_S = 2.0  # nobody waits longer than this without a word
_LINE_EVERY_S = 5.0
_RUN = "run"  # the one bar of a pipeline, whose stages overlap
_RATE_AFTER_S = 0.5  # of a stage: before, its rate is chance


class Display:
    """The progress of a run: what is being done, how much of it, in percent, how fast, and how long it will take.

    Several things that are done at the same time have a bar each. A pipe or a log file gets lines instead, the first
    after _FIRST_LINE_S.
    """

    def __init__(self, unit: str, opening: str | None = None, *, lines: bool = True) -> None:
        """Args:
        unit: what is counted, such as "frames".
        opening: what is done before anything is counted; a pipe is told of it only where it is given.
        lines: whether there are lines where there is no terminal; a run with a log of its own needs none.
        """
        self._unit, self._lines, self._first = unit, lines, opening
        self._opening = opening or "preparing"
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:18}"),
            BarColumn(),
            TextColumn("{task.fields[percent]}"),
            TextColumn("{task.fields[state]}"),
            console=errors,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[float, int]] = {}  # when, and at how much: a run may go on where it was stopped
        self._said_s = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """As pipelines call it. Args: stage: what is being done; done, total: of it; total is None where unknown.

        Reading the driver goes on while frames are made: from the first frame on only those are counted.
        """
        if stage == "track" and "animate" in self._begun:
            return
        self.show(stage, done, total, name=_RUN if stage in _STAGES else None)
        if stage == "animate" and done == total and errors.is_terminal:
            self.show("signing", 0, None, name=_RUN)

    def show(
        self,
        what: str,
        done: int,
        total: int | None,
        state: str = "",
        *,
        name: str | None = None,
        part: float = 0.0,
        free: int = 0,
    ) -> None:
        """Args:
        what: is being done, for people or a stage of a pipeline.
        done, total: of it; total is None where it is not known.
        state: more to say, such as what was found so far.
        name: of the bar, where `what` changes from call to call.
        part: of the one that is being done, 0..1.
        free: how many of those that are done took no time: an earlier run had made them.
        """
        counted = what if name in (None, _RUN) else name or ""  # each stage has a rate of its own
        name, what = name or what, _STAGES.get(what, what)
        begun_s, before = self._begun.setdefault(counted, (time.monotonic(), done - free))
        elapsed_s = time.monotonic() - begun_s
        rate = (done + part - free - before) / elapsed_s if elapsed_s > _RATE_AFTER_S else 0.0
        percent = f"{100 * (done + part) / total:.0f} %" if total else ""
        said = [f"{done} of {total} {self._unit}" if total else f"{done} {self._unit}" if done else "", state]
        said.append(_speed(rate))
        if total and rate > 0:
            minutes, seconds = divmod(round((total - done - part) / rate), 60)
            said.append(f"{minutes}:{seconds:02} left")
        if errors.is_terminal:
            self._draw(name, what, done + part, total, percent, ", ".join(part for part in said if part))
        elif self._lines and (time.monotonic() - self._said_s > _LINE_EVERY_S or not (done or total)):
            self._said_s = time.monotonic()
            said[1:1] = [percent]
            text = ", ".join(part for part in said if part)
            errors.print(escape(f"{what}: {text}" if text else what), soft_wrap=True)

    def _draw(self, name: str, what: str, done: float, total: int | None, percent: str, state: str) -> None:
        if name not in self._tasks:
            if name != self._opening and self._opening in self._tasks:
                self._bars.update(self._tasks[self._opening], visible=False)
            self._tasks[name] = self._bars.add_task(what, total=total, percent="", state="")
        self._bars.update(
            self._tasks[name], description=escape(what), completed=done, total=total, percent=percent, state=state
        )

    @contextmanager
    def shown(self) -> Iterator[Display]:
        """The display, while the block runs."""
        with ExitStack() as stack:
            if errors.is_terminal:
                stack.enter_context(self._bars)
                self._draw(self._opening, self._opening, 0, None, "", "")
            elif self._first:
                stack.enter_context(working(self._first))
            yield self


def _speed(rate: float) -> str:
    """Args: rate: a second."""
    if rate <= 0:
        return ""
    if rate < 0.5:
        return f"{1 / rate:.0f} s each"
    return f"{rate:.2g} a second" if rate < 10 else f"{rate:.0f} a second"


@contextmanager
def working(text: str) -> Iterator[None]:
    """Says what is being done while it cannot be counted, once it takes long."""
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


@contextmanager
def log_shown() -> Iterator[None]:
    """The lines of the package's log, above the bars."""
    lines = logging.Handler()
    lines.emit = lambda record: errors.print(escape(record.getMessage()), soft_wrap=True)  # type: ignore[method-assign]
    logger = logging.getLogger("mimik")
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
