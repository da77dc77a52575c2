"""Progress of a run: bars on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from mimik.app.cli.console import errors
from mimik.pipeline import STAGE_WORDS, RunProgress

_FIRST_LINE_S = 2.0  # largest delay of the first line
_LINE_EVERY_S = 5.0
ONE_BAR = "run"  # name of the bar of a run whose stages are sequential or overlap
_RATE_AFTER_S = 0.5  # of a stage; an earlier estimate of its rate is unreliable


class Display:
    """Displays the progress of a run: stage, count, percent, rate and time left.

    Concurrent stages have one bar each. A pipe or a log file gets lines instead, the first after _FIRST_LINE_S.
    """

    def __init__(self, unit: str, opening: str = "preparing", *, bar: str | None = None, lines: bool = True) -> None:
        """Args:
        unit: unit of the counts, such as "frames".
        opening: description of the work before counting starts; without a terminal it is printed if it takes long.
        bar: name of the one bar of a run whose description changes between calls; None: a bar for each description.
        lines: whether to print lines if there is no terminal; False for a run with its own log.
        """
        self._unit, self._bar, self._lines, self._opening = unit, bar, lines, opening
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
        self._started: dict[str, tuple[float, float]] = {}  # start time and initial count (above 0 if a run resumes)
        self._run = RunProgress()
        self._said_s = time.monotonic() - _LINE_EVERY_S + _FIRST_LINE_S
        self._latest = self._opening  # latest progress line
        self._late: threading.Timer | None = None  # prints the latest line if no other line was printed

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Progress callback of pipelines: one bar for all stages, weighted by cost, 0 to 100 %; see RunProgress."""
        if stage not in STAGE_WORDS and total is None:  # a wait, whose bar gives way to that of the run
            rate = self._rate(stage, done)
            self._tell(ONE_BAR, stage, (done, total), (done, total), (rate, rate))
            return
        if stage not in STAGE_WORDS:
            self.show(stage, done, total)
            return
        work = self._run(stage, done, total)
        if work is None:
            return
        rates = self._rate(stage, done), self._rate(ONE_BAR, work[0])
        self._tell(ONE_BAR, STAGE_WORDS[stage], (done, total), work, rates)
        if stage == "animate" and done == total and errors.is_terminal and "sign" not in self._run:
            self._tell(ONE_BAR, "signing", (0, None), (0, None), (0.0, 0.0))

    def show(
        self,
        what: str,
        done: int,
        total: int | None,
        state: str = "",
        *,
        part: float = 0.0,
        free: int = 0,
        unit: str | None = None,
    ) -> None:
        """Args:
        what: description of the current work.
        done, total: counts; total is None if unknown.
        state: further text, such as intermediate results.
        part: finished fraction of the current item, 0..1.
        free: number of done items that an earlier run made and that took no time.
        unit: unit of the counts, if not that of the display.
        """
        counted = what if self._bar in (None, ONE_BAR) else self._bar or ""  # each stage has its own rate
        work, rate = (done + part, total), self._rate(counted, done + part - free)
        self._tell(self._bar or what, what, work, work, (rate, rate), state, unit)

    def _tell(
        self,
        name: str,
        what: str,
        counts: tuple[float, int | None],
        work: tuple[float, float | None],
        rates: tuple[float, float],
        state: str = "",
        unit: str | None = None,
    ) -> None:
        """Args:
        name: of the bar.
        what: description of the current work.
        counts: done and total, in units.
        work: done and total, for percent and time left.
        rates: of counts and of work, per second.
        """
        (done, total), (worked, of_all), (rate, pace), unit = counts, work, rates, unit or self._unit
        percent = f"{min(100 if worked >= of_all else 99, round(100 * worked / of_all))} %" if of_all else ""
        said = [
            f"{int(done)} of {total} {unit}" if total else f"{int(done)} {unit}" if done else "",
            state,
            _rate_text(rate),
        ]
        if of_all and pace > 0:
            minutes, seconds = divmod(round(max(0.0, of_all - worked) / pace), 60)
            said.append(f"{minutes}:{seconds:02} left")
        if errors.is_terminal:
            self._draw(name, what, worked, of_all, percent, ", ".join(part for part in said if part))
        elif self._lines:
            said[1:1] = [percent]
            text = ", ".join(part for part in said if part)
            self._latest = f"{what}: {text}" if text else what
            if time.monotonic() - self._said_s > _LINE_EVERY_S or not (done or total):
                self._print_latest()

    def _print_latest(self) -> None:
        self._said_s = time.monotonic()
        if self._late is not None:
            self._late.cancel()
        errors.print(escape(self._latest), soft_wrap=True)

    def _rate(self, counted: str, done: float) -> float:
        """Items per second; 0 until known."""
        started_s, before = self._started.setdefault(counted, (time.monotonic(), done))
        elapsed_s = time.monotonic() - started_s
        return (done - before) / elapsed_s if elapsed_s > _RATE_AFTER_S else 0.0

    def _draw(self, name: str, what: str, done: float, total: float | None, percent: str, state: str) -> None:
        if name not in self._tasks:
            if name != self._opening and self._opening in self._tasks:
                self._bars.update(self._tasks[self._opening], visible=False)
            self._tasks[name] = self._bars.add_task(what, total=total, percent="", state="")
        self._bars.update(
            self._tasks[name], description=escape(what), completed=done, total=total, percent=percent, state=state
        )

    @contextmanager
    def shown(self) -> Iterator[Display]:
        """Show the display while the block runs."""
        with ExitStack() as stack:
            if errors.is_terminal:
                stack.enter_context(self._bars)
                self._draw(self._opening, self._opening, 0, None, "", "")
            elif self._lines:
                self._late = stack.enter_context(_delayed(self._print_latest))
            yield self


def _rate_text(rate: float) -> str:
    """Text of a rate. Args: rate: items per second."""
    if rate <= 0:
        return ""
    if rate < 0.5:
        return f"{1 / rate:.0f} s each"
    return f"{rate:.2g} per second" if rate < 10 else f"{rate:.0f} per second"


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show a text during work that cannot be counted; without a terminal, print it if the work takes long."""
    if errors.is_terminal:
        with errors.status(escape(text)):
            yield
        return
    with _delayed(lambda: errors.print(escape(text), soft_wrap=True)):
        yield


@contextmanager
def _delayed(call: Callable[[], None]) -> Iterator[threading.Timer]:
    """Call a function after _FIRST_LINE_S, unless the block has ended or the timer was cancelled."""
    late = threading.Timer(_FIRST_LINE_S, call)
    late.daemon = True
    late.start()
    try:
        yield late
    finally:
        late.cancel()


@contextmanager
def log_shown() -> Iterator[None]:
    """Print the log of the package above the bars."""
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
