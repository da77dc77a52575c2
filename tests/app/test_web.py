"""The web app: what its tabs do, what they refuse, and every tab used in a headless Chromium."""

from __future__ import annotations

import tempfile
import threading
import time
import types
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Driver
from mimik.animation import avatar as avatar_module
from mimik.animation import render
from mimik.app import page as live_page
from mimik.app import web
from mimik.app.edit import SLIDERS
from mimik.app.web import Limits, jobs
from mimik.app.web.sessions import Desk, Desks
from mimik.config import AVATAR_SUFFIX, InputError
from mimik.face.landmarks import Landmarker
from mimik.media import video
from mimik.provenance.verifying import verify

ZERO = dict.fromkeys(SLIDERS, 0.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, landmarker: Landmarker) -> None:
    monkeypatch.setattr(avatar_module, "Landmarker", lambda **_: landmarker)
    monkeypatch.setattr(render, "Landmarker", lambda **_: landmarker)


@pytest.fixture
def desks() -> Iterator[Desks]:
    one = Desks()
    yield one
    one.close()


@pytest.fixture
def desk(desks: Desks) -> Desk:
    return desks.of("somebody")


def test_visitors_have_folders_of_their_own_which_go_with_them(desks: Desks):
    one, two = desks.of("one"), desks.of("two")
    assert one is desks.of("one") and one.folder != two.folder
    assert one.folder.stat().st_mode & 0o077 == 0
    file = one.new("mine.mp4")
    file.write_bytes(b"mine")
    assert two.new("mine.mp4") != file
    desks.leave("one")
    assert not file.exists() and one.stop.is_set() and two.folder.exists()
    desks.close()
    assert not two.folder.exists() and not desks.cache.exists()


@pytest.mark.slow
def test_animate_gives_sealed_videos(desk: Desk, small_path: Path, driver_with_sound: Path, driver: Driver):
    told: list[tuple[int, int | None]] = []
    out, second, report = jobs.animate(
        desk,
        str(small_path),
        None,
        str(driver_with_sound),
        "",
        limits=Limits(),
        beside=True,
        tell=lambda *step: told.append(step),
        model="geometry",
    )
    assert report.num_frames == len(driver.frames) and told[-1][0] == report.num_frames
    assert second is not None
    assert (video.probe(second).width, video.probe(second).height) == (512, 256)
    for path in (out, second):
        assert path.is_relative_to(desk.folder)
        assert verify(path).exit_code == 0
        assert video.probe(path).has_audio


def test_what_cannot_be_animated_is_told(desk: Desk, small_path: Path, driver: Driver):
    for photo, person, drive, motion, message in (
        (None, None, None, "talk", "no photo yet"),
        (str(small_path), "a.avatar", None, "talk", "both a photo and a learned person"),
        (str(small_path), None, None, "", "Nothing drives the photo yet"),
        (str(small_path), None, str(driver.path), "", r"is 1 s long; give one of at most 1 s"),
    ):
        with pytest.raises(InputError, match=message):
            jobs.animate(desk, photo, person, drive, motion, limits=Limits(seconds=1.0))


def test_a_stopped_animation_leaves_nothing(desk: Desk, small_path: Path):
    def stop(done: int, total: int | None) -> None:
        desk.stop.set()

    with pytest.raises(InputError, match="Stopped"):
        jobs.animate(desk, str(small_path), None, None, "smile", limits=Limits(), tell=stop, model="geometry")
    assert [path for path in desk.folder.rglob("*") if path.is_file()] == []


def test_a_stop_while_the_work_waits_is_not_undone(desk: Desk, small_path: Path):
    desk.ask()
    desk.stop.set()  # pressed before the queue came to this work
    with pytest.raises(InputError, match="Stopped"):
        jobs.animate(desk, str(small_path), None, None, "smile", limits=Limits(), model="geometry")
    assert not desk.stop.is_set()  # the next work begins


def test_new_work_does_not_revive_what_was_stopped(desk: Desk):
    before = desk.stop
    before.set()
    desk.ask()
    assert before.is_set() and not desk.stop.is_set()


def test_the_photo_answers_to_the_sliders(desk: Desk, small_path: Path):
    plain = jobs.edited(desk, str(small_path), ZERO, model="geometry")
    smiling = jobs.edited(desk, str(small_path), ZERO | {"smile": 0.8}, model="geometry")
    assert plain.shape == smiling.shape == (512, 512, 3)
    assert np.abs(plain.astype(int) - smiling).max() > 30
    out = jobs.save_edited(desk, str(small_path), ZERO | {"smile": 0.8}, model="geometry")
    assert out.is_relative_to(desk.folder)
    assert video.read_image(out).shape == (256, 256, 3)
    sentence, details = jobs.verified(str(out))
    assert "made by mimik" in sentence and details["exit_code"] == 0


def test_empty_tabs_say_what_is_missing(desk: Desk):
    for call in (
        lambda: jobs.edited(desk, None, ZERO),
        lambda: jobs.save_edited(desk, None, ZERO),
        lambda: jobs.verified(None),
        lambda: jobs.learning(desk, [], limits=Limits(), model=None, max_seconds=1).__enter__(),
        lambda: jobs.learning(desk, ["a.jpg"] * 33, limits=Limits(), model=None, max_seconds=1).__enter__(),
    ):
        with pytest.raises(InputError, match=r"yet: |at most 32"):
            call()


def test_learning_tells_the_curve_and_ends_when_it_is_stopped(
    desk: Desk, small_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fine_tuning = pytest.importorskip("mimik.training.fine_tuning", reason="torch is not installed")
    point = fine_tuning.Point(0, 0.0, 0.5, 0.5, 0.5)

    def learn(paths, out, arguments, *, progress):
        assert out.suffix == AVATAR_SUFFIX and arguments.max_seconds == 9
        for step in range(10_000):
            progress(point._replace(step=step // 2), step, 10_000)
        raise AssertionError("nobody stopped it")

    monkeypatch.setattr(fine_tuning, "learn", learn)
    with (
        pytest.raises(InputError, match="Stopped"),
        jobs.learning(desk, [str(small_path)], limits=Limits(), model=None, max_seconds=9) as points,
    ):
        for curve, out, _ in points:
            assert out is None and [one.step for one in curve] == sorted({one.step for one in curve})
            desk.stop.set()


def test_what_was_learned_is_said():
    fine_tuning = pytest.importorskip("mimik.training.fine_tuning", reason="torch is not installed")
    first, later = fine_tuning.Point(0, 0.0, 0.5, 0.25, 0.375), fine_tuning.Point(40, 9.0, 0.75, 0.25, 0.5)
    for best, message in (
        (first, "Nothing that was learned made it better"),
        (later, "Kept is step 40: likeness 0.50 → 0.75, following 0.25 → 0.25."),
    ):
        outcome = types.SimpleNamespace(curve=[first, later], best=best, ended="the time was over")
        said = jobs._what_was_learned(outcome)
        assert message in said and "It ended because the time was over." in said


def test_limits_and_hosts_are_checked():
    with pytest.raises(InputError, match="--max-mb 0"):
        Limits(upload_mb=0)
    with pytest.raises(InputError, match="--max-seconds 0"):
        Limits(seconds=0.0)
    with pytest.raises(InputError, match="--password"):
        web.serve(host="0.0.0.0")
    assert live_page.is_loopback("::1") and not live_page.is_loopback("0.0.0.0")


# In a real browser.


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of the app, whose files lie below tmp_path / "app"."""
    pytest.importorskip("gradio", reason="the extra `web` is not installed")
    (tmp_path / "app").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "app"))
    stop, there, found = threading.Event(), threading.Event(), []

    def ready(one: str) -> None:
        found.append(one)
        there.set()

    thread = threading.Thread(target=lambda: web.serve(port=0, model="geometry", ready=ready, stop=stop))
    thread.start()
    assert there.wait(120)
    yield found[0]
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def downloaded(tab: Any, link: str, out: Path) -> Path:
    with tab.expect_download() as download:
        tab.click(link)
    download.value.save_as(out)
    return out


@pytest.mark.slow
@pytest.mark.browser
def test_every_tab_in_a_browser(address: str, small_path: Path, tmp_path: Path, browser: Callable[..., Any]):
    for path in ("/etc/passwd", Path(web.__file__), small_path):
        assert status(f"{address}gradio_api/file={path}") in (403, 404)
    tab = browser().new_page()
    foreign: list[str] = []
    known = "127.0.0.1", "data:", "blob:"
    tab.on("request", lambda one: any(part in one.url for part in known) or foreign.append(one.url))
    tab.goto(address)

    # Animate, without a photo first.
    tab.wait_for_selector("#animate")
    tab.click("#animate")
    tab.get_by_text("There is no photo yet").wait_for()
    tab.set_input_files("#photo input[type=file]", str(small_path))
    tab.wait_for_selector("#photo img")
    tab.click("#animate")
    tab.wait_for_function("document.querySelector('#animate-said')?.innerText.includes('frames of 256x256')")
    result = downloaded(tab, "#result-file a", tmp_path / "result.mp4")
    assert verify(result).exit_code == 0

    # Verify what came out.
    tab.get_by_role("tab", name="Verify").click()
    tab.set_input_files("#asked input[type=file]", str(result))
    tab.wait_for_selector("#verdict h3")
    assert "made by mimik" in tab.inner_text("#verdict")

    # Edit: the photo answers while a slider moves.
    tab.get_by_role("tab", name="Edit").click()
    tab.set_input_files("#edit-photo input[type=file]", str(small_path))
    tab.wait_for_selector("#edited img")
    before = tab.get_attribute("#edited img", "src")
    slider = tab.locator("#edit-smile input[type=range]")
    slider.fill("0.9")
    slider.dispatch_event("input")
    tab.wait_for_function("src => document.querySelector('#edited img').getAttribute('src') !== src", arg=before)
    tab.screenshot(path=tmp_path / "edit.png")  # to look at
    tab.click("#save")
    assert verify(downloaded(tab, "#edited-file a", tmp_path / "edited.png")).exit_code == 0

    # Person: what is missing is said.
    tab.get_by_role("tab", name="Person").click()
    tab.click("#learn")
    tab.get_by_text("There are no photos yet").wait_for()

    # What was made goes with the visitor.
    assert foreign == []
    made = [
        path
        for name in (f"{small_path.stem}.mp4", f"{small_path.stem}_edited.png")
        for path in (tmp_path / "app").rglob(name)
    ]
    assert len(made) == 2
    tab.close()
    for _ in range(100):
        if not any(path.exists() for path in made):
            break
        time.sleep(0.2)
    assert not any(path.exists() for path in made)


@pytest.mark.slow
@pytest.mark.browser
def test_a_person_is_learned_in_a_browser(address: str, small_path: Path, tmp_path: Path, browser: Callable[..., Any]):
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    tab = browser().new_page()
    tab.goto(address)
    tab.get_by_role("tab", name="Person").click()
    tab.set_input_files("#photos input[type=file]", [str(small_path)])
    tab.wait_for_selector("#photos a")
    seconds = tab.locator("input[type=range]:visible")
    seconds.fill("10")
    seconds.dispatch_event("input")
    tab.click("#learn")
    tab.wait_for_selector("#curve canvas, #curve svg")
    tab.wait_for_selector("#person-file a")
    assert "Keep the file" in tab.inner_text("#learn-said")
    tab.screenshot(path=tmp_path / "person.png")  # to look at
    person = downloaded(tab, "#person-file a", tmp_path / "small.avatar")

    tab.get_by_role("tab", name="Animate").click()
    tab.set_input_files("#avatar input[type=file]", str(person))
    tab.wait_for_selector("#avatar a")
    tab.click("#animate")
    tab.wait_for_function("document.querySelector('#animate-said')?.innerText.includes('frames of 256x256')")
    assert verify(downloaded(tab, "#result-file a", tmp_path / "result.mp4")).exit_code == 0
