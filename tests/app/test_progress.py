"""progress.py: content and rate of lines in a pipe; display in a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mimik.app.cli import progress
from mimik.app.cli.progress import Display, working
from mimik.pipeline import RunProgress


class Clock:
    """A manual clock."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


def console(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> io.StringIO:
    out = io.StringIO()
    one = Console(file=out, force_terminal=terminal, width=120, highlight=False, emoji=False)
    monkeypatch.setattr(progress, "errors", one)
    return out


def test_a_pipe_gets_a_line_every_few_seconds(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    out = console(monkeypatch, False)
    with Display("frames").shown() as display:
        for number in range(1, 131):  # 10 per second
            clock.now += 0.1
            display("animate", number, 240)
    lines = out.getvalue().splitlines()
    assert len(lines) == 3  # after 2.1, 7.2 and 12.3 s
    # 20 frames in 1.9 s after the first: 10 per second, and 219 remain.
    assert lines[0] == "animating: 21 of 240 frames, 9 %, 10 per second, 0:22 left"
    assert [line.split(",")[1].strip() for line in lines] == ["9 %", "30 %", "51 %"]


def test_what_is_resumed_has_its_own_rate(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    out = console(monkeypatch, False)
    display = Display("steps")
    display("learning", 1000, 1100)
    clock.now += 10
    display("learning", 1020, 1100)
    assert out.getvalue() == "learning: 1020 of 1100 steps, 93 %, 2 per second, 0:40 left\n"


def test_steps_without_a_number_are_reported_at_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    out = console(monkeypatch, False)
    display = Display("frames")
    display("optimizing", 0, None)
    display("checking", 0, None)
    assert out.getvalue() == "optimizing\nchecking\n"


def test_with_its_own_log_a_run_prints_nothing_else(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    out = console(monkeypatch, False)
    with Display("steps", lines=False).shown() as display:
        clock.now += 100
        display("training", 10, 20)
    assert out.getvalue() == ""


def test_a_terminal_shows_percent_rate_and_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    out = console(monkeypatch, True)
    with Display("videos", bar="videos").shown() as display:
        display.show("a.mp4", 0, 8)
        clock.now += 4
        display.show("b.mp4", 2, 8, "1 clip kept")
        display._bars.refresh()
        assert len(display._tasks) == 2 and "opening" not in display._tasks
    assert "b.mp4" in out.getvalue() and "25 %" in out.getvalue()
    assert "2 of 8 videos, 1 clip kept, 0.5 per second" in out.getvalue()


def test_the_time_left_counts_the_video_that_is_being_made(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 5 videos an earlier run made 2; the third takes 20 s and is half done after 10 s."""
    out = console(monkeypatch, False)
    display = Display("videos", bar="videos")
    display.show("c.mp4", 2, 5, "frame 0 of 100", free=2)
    clock.now += 10
    display.show("c.mp4", 2, 5, "frame 50 of 100", part=0.5, free=2)
    assert out.getvalue() == "c.mp4: 2 of 5 videos, 50 %, frame 50 of 100, 20 s each, 0:50 left\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_pipeline_has_one_counter_and_not_two_in_turns(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    out = console(monkeypatch, terminal)
    with Display("frames").shown() as display:
        for number in range(1, 101):  # reading is 20 frames ahead of animating
            clock.now += 1
            display("track", number, 100)
            if number > 20:
                display("animate", number - 20, 100)
        if terminal:
            display._bars.refresh()
            assert len(display._tasks) == 2  # the stage before counting, and the run
        assert "80 of 100 frames" in out.getvalue() or not terminal
    if not terminal:
        stages = [line.split(":")[0] for line in out.getvalue().splitlines()]
        assert stages == sorted(stages, reverse=True) and set(stages) == {"reading the driver", "animating"}
        assert out.getvalue().splitlines()[-1].endswith(" left")


def test_a_long_wait_without_a_number_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    out = console(monkeypatch, False)
    monkeypatch.setattr(progress, "_FIRST_LINE_S", 0.01)
    with working("reading a.jpg"):
        progress.threading.Event().wait(0.3)
    with working("reading b.jpg"):
        pass
    assert out.getvalue() == "reading a.jpg\n"


@pytest.mark.parametrize("told", [True, False])
def test_stages_are_reported_once_in_order(monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    """A stage reported immediately suppresses the delayed opening; without one, the latest state is reported then."""
    out = console(monkeypatch, False)
    monkeypatch.setattr(progress, "_FIRST_LINE_S", 0.05)
    with Display("steps", "loading").shown() as display:
        if told:
            display("loading networks", 0, None)
        else:
            display._said_s = progress.time.monotonic()
            display("warping", 1, 3)
        progress.threading.Event().wait(0.3)
    assert out.getvalue() == ("loading networks\n" if told else "warping: 1 of 3 steps, 33 %\n")


def test_percent_and_time_left_are_those_of_the_whole_run(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 frames are read at 20 frames/s, then animated at 5 frames/s and signed at 20 frames/s.

    Reading or signing a frame takes a quarter of the time of animating one, so the run has 20 + 80 + 20 units: 24 s at
    5 units/s.
    """
    out = console(monkeypatch, False)
    display = Display("frames")
    display("sign", 0, 80)
    display("animate", 0, 80)
    for number in range(1, 81):
        clock.now += 0.05
        display("track", number, 80)
    for number in range(1, 81):
        clock.now += 0.2
        display("track", 80, 80)  # prefetching is not reported
        display("animate", number, 80)
    for number in range(1, 81):
        clock.now += 0.05
        display("sign", number, 80)
    lines = out.getvalue().splitlines()
    assert lines[0] == "reading the driver: 41 of 80 frames, 9 %, 20 per second, 0:22 left"
    assert lines[1] == "animating: 16 of 80 frames, 30 %, 5 per second, 0:17 left"
    shares = [int(line.split(", ")[1].removesuffix(" %")) for line in lines]
    assert shares == sorted(shares) and len(shares) == len(set(shares)) == 5
    assert [line.split(":")[0] for line in lines][-1] == "signing"


def test_several_drivers_read_at_once_do_not_count_back(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunProgress()
    told = [run("track", done, 10) for done in (1, 5, 3, 6)]
    assert told == [(0.25, 2.5), (1.25, 2.5), (1.25, 2.5), (1.5, 2.5)]
    assert run("animate", 0, 20) is None and run("animate", 4, 20) == (5.5, 22.5)
    assert run("track", 7, 10) is None, "frames are made: reading ahead of them is not told"
