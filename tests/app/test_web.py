"""The web app: actions and errors of its tabs, access, the HTTP interface; its tabs in a headless Chromium."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from conftest import Browser, Driver, until
from mimik.animation.sliders import Edit
from mimik.app import guard, serving
from mimik.app.serving import Serving, bound
from mimik.app.web import controls, examples, jobs, learning, markup, parts, server
from mimik.app.web.animate_tab import HOW, WHO, Selection
from mimik.app.web.sessions import Job, Limits, Session, Sessions, StoppedError
from mimik.config import AVATAR_SUFFIX, AnimateConfig, InputError
from mimik.media import video
from mimik.motion.drivers import registry
from mimik.provenance.verifying import verify

pytestmark = pytest.mark.usefixtures("one_landmarker")

PLAIN = AnimateConfig(model="geometry")
DOCS = Path(__file__).parents[2] / "docs" / "web.md"


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    one = Sessions()
    yield one
    one.close()


@pytest.fixture
def session(sessions: Sessions) -> Session:
    return sessions.of("somebody")


@pytest.fixture
def job(session: Session) -> Job:
    return session.begin()


def left_behind(session: Session) -> list[Path]:
    return [path for path in session.folder.rglob("*") if path.is_file()]


# Visitors.


def test_visitors_have_folders_of_their_own_which_go_with_them(sessions: Sessions):
    one, two = sessions.of("one"), sessions.of("two")
    assert one is sessions.of("one") and one.folder != two.folder
    assert sessions.of(None) is not sessions.of(None)  # clients without a session
    assert one.folder.stat().st_mode & 0o077 == 0
    file, work = one.new("mine.mp4"), one.begin()
    file.write_bytes(b"mine")
    assert two.new("mine.mp4") != file
    sessions.leave("one")
    assert not file.exists() and work.is_stopped and two.folder.exists()
    with two.in_use():
        sessions.remove_idle(-1)
        assert two.folder.exists()
    sessions.remove_idle(-1)
    assert not two.folder.exists()
    sessions.close()
    assert not sessions.cache.exists()


def test_stop_ends_what_waits_and_what_runs_but_not_what_is_asked_for_later(session: Session):
    waits, runs = session.begin(), session.begin()
    session.stop()
    later = session.begin()
    for stopped in (waits, Job(session, runs.number)):
        with pytest.raises(StoppedError), stopped.running():
            raise AssertionError("it ran")
    with later.running():
        later.check()


def test_an_address_of_another_computer_is_no_fault_of_the_port():
    said, elsewhere = (
        r"--host 192\.0\.2\.1: is not an address of this computer",
        Serving(host="192.0.2.1", password="x"),
    )
    with pytest.raises(InputError, match=said), bound(elsewhere):
        raise AssertionError("it listens")


def test_a_call_of_a_program_that_waited_during_a_stop_is_stopped(session: Session):
    """Its job begins when the queue reaches it; what counts is when it was requested."""
    asked_s = time.monotonic()
    session.stop()
    assert session.begin(asked_s).is_stopped
    assert not session.begin(time.monotonic() + 1e-3).is_stopped and not session.begin().is_stopped


def test_a_stop_while_the_work_waits_in_the_queue_counts(session: Session, small_path: Path):
    job = session.begin()
    session.stop()
    with pytest.raises(StoppedError):
        jobs.animate(job, str(small_path), "smile", PLAIN, limits=Limits())
    assert left_behind(session) == []


# Animate.


def test_a_stopped_animation_leaves_nothing(job: Job, small_path: Path):
    def stop(share: float, doing: str) -> None:
        if "frame" in doing:
            job.session.stop()

    with pytest.raises(StoppedError):
        jobs.animate(job, str(small_path), "smile", PLAIN, limits=Limits(), tell=stop)
    assert left_behind(job.session) == []


@pytest.mark.slow
def test_animate_gives_sealed_videos(job: Job, small_path: Path, driver_with_sound: Path, driver: Driver):
    told: list[float] = []
    made = jobs.animate(
        job,
        str(small_path),
        str(driver_with_sound),
        PLAIN,
        limits=Limits(),
        beside=True,
        tell=lambda share, _: told.append(share),
    )
    assert made.report.num_frames == len(driver.frames)
    assert told == sorted(told) and told[0] == 0 and told[-1] == 1
    assert made.beside is not None
    assert (video.probe(made.beside).width, video.probe(made.beside).height) == (512, 256)
    for path in (made.out, made.beside):
        assert path.is_relative_to(job.session.folder)
        assert verify(path).exit_code == 0
        assert video.probe(path).has_audio


@pytest.mark.slow
def test_other_formats_and_several_photos(job: Job, small_path: Path, tmp_path: Path):
    """With a photo as driver, for speed; unusable photos only give a reason."""
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    config = replace(PLAIN, fps=5.0, background="none")
    batch = jobs.animate_photos(
        job, [str(small_path), str(bad), str(small_path)], str(small_path), config, limits=Limits(), format="png frames"
    )
    assert [name for name, _ in batch.left_out] == ["bad.jpg"] and "bad.jpg" in batch.left_out[0][1]
    assert batch.archive is not None
    with zipfile.ZipFile(batch.archive) as archive:
        assert archive.namelist() == ["person.zip", "person_2.zip"]
        with zipfile.ZipFile(io.BytesIO(archive.read("person.zip"))) as frames:
            assert len(frames.namelist()) == batch.made[0].report.num_frames == 15
            frames.extract("person/00007.png", tmp_path)
    frame = tmp_path / "person" / "00007.png"
    assert verify(frame).exit_code == 0
    still = jobs.animate(job, str(small_path), str(small_path), PLAIN, limits=Limits(), format="jpg")
    assert video.kind(still.out) == "image" and verify(still.out).exit_code == 0


def test_what_cannot_be_animated_is_reported(job: Job, small_path: Path, driver: Driver):
    photo, clip, see_through = str(small_path), str(driver.path), replace(PLAIN, background="none")
    for one, drive, config, format, message in (
        (None, "talk", PLAIN, "mp4", "No photo yet"),
        (photo, None, PLAIN, "mp4", "Nothing drives the photo yet"),
        (photo, "/etc/passwd-of-nobody", PLAIN, "mp4", "Nothing drives the photo yet"),
        (photo, clip, PLAIN, "mp4", r"The driver is 1 s long: use at most 1 s"),
        (clip, "talk", PLAIN, "mp4", r"of the person is 1 s long: use at most 1 s"),
        (photo, "idle", replace(PLAIN, seconds=99.0), "mp4", "The driver is 99 s long: use at most 1 s"),
        (photo, "talk", see_through, "mp4", "cannot be transparent: choose webm"),
        (photo, "talk", PLAIN, "png", "A png file contains one picture"),
        (photo, "talk", PLAIN, "exe", "Format exe: use one of mp4"),
    ):
        with pytest.raises(InputError, match=message):
            jobs.animate(job, one, drive, config, limits=Limits(seconds=1.0), format=format)
    for photos, message in (([], "No photos yet"), ([photo] * 3, "use at most 2")):
        with pytest.raises(InputError, match=message):
            jobs.animate_photos(job, photos, "talk", PLAIN, limits=Limits(photos=2))


def test_only_the_selected_input_counts():
    """A video uploaded before a motion was chosen does not drive, and vice versa."""
    given = ["me.jpg", "me.mp4", "me.avatar", ["a.jpg", "b.jpg"]]
    drivers = ["talk", "/x/clip.mp4", "/x/voice.wav", "Good  morning", None]
    for who, photos in zip(WHO, (["me.jpg"], ["me.mp4"], ["me.avatar"], ["a.jpg", "b.jpg"]), strict=True):
        assert Selection.of([who, *given, HOW[0], *drivers]).photos == photos
    assert Selection.of([WHO[0], *given, HOW[0], *drivers]).sentence() == "me.jpg will follow the motion “talk”."
    assert Selection.of([WHO[3], *given, HOW[1], *drivers]).sentence() == "2 photos will follow clip.mp4."
    assert Selection.of([WHO[0], *given, "Voice", *drivers]).sentence() == "me.jpg will follow voice.wav."
    assert Selection.of([WHO[0], *given, "Text", *drivers]).sentence() == "me.jpg will say “Good morning”"
    assert Selection.of([WHO[0], *given, "File", *drivers]).sentence() == "me.jpg: choose a driver."
    assert Selection.of([WHO[0], None, *given[1:], HOW[0], *drivers]).sentence() == "Choose a person to animate."


def test_a_text_becomes_a_voice_and_its_voice_is_no_file(job: Job, monkeypatch: pytest.MonkeyPatch):
    said: list[Any] = []
    monkeypatch.setattr(jobs, "speak", lambda text, out, *, voice: said.append((text, voice)) or out)
    assert Path(jobs.synthesize_speech(job, "Good morning", "de")).is_relative_to(job.session.folder)
    jobs.synthesize_speech(job, "Good morning", "")
    assert said == [("Good morning", "de"), ("Good morning", None)]
    for text, voice, message in (
        (" ", None, "No text yet"),
        ("a", "/x/piper.onnx", "voice of espeak-ng"),
        ("a", "-f/x", "voice"),
    ):
        with pytest.raises(InputError, match=message):
            jobs.synthesize_speech(job, text, voice)


def test_time_left_is_extrapolated_from_finished_work():
    now = [0.0]
    remaining = jobs.Remaining(lambda: now[0])
    assert remaining(0.5) == ""
    now[0] = 30.0
    assert remaining(0.5) == "about 30 s left" and remaining(0.1) == "about 4 min left" and remaining(0.0) == ""
    bar = markup.progress(0.5, "Animating <b>", "about 30 s left")
    assert "width:50%" in bar and "50 % · about 30 s left" in bar and "&lt;b&gt;" in bar


def test_what_ended_the_work_is_one_message(job: Job, caplog: pytest.LogCaptureFixture):
    def news(work: Callable[..., Any]) -> Any:
        steps = parts.with_progress_bar(job, work, str)
        try:
            while True:
                next(steps)
        except StopIteration as end:
            return end.value
        except Exception as error:
            return parts.message_of(error)

    def raises(error: Exception) -> Callable[..., Any]:
        def work(tell: Callable[..., Any]) -> None:
            raise error

        return work

    assert news(lambda tell: 7) == 7
    stopped, bad = news(raises(StoppedError())), news(raises(InputError("--size 9: use more.")))
    assert "Stopped. Nothing was kept." in stopped and "bad" not in stopped
    assert "“Size” 9: use more." in bad and "bad" in bad
    assert "error in the program" in news(raises(KeyError("x"))) and "KeyError" in caplog.text


# Controls.


def test_every_setting_has_a_control_with_the_default_of_the_command_line():
    made: dict[str, Any] = {}

    def component(kind: str) -> Callable[..., Any]:
        def make(*values: Any, value: Any = None, **about: Any) -> Any:
            return values[2] if kind == "Slider" else value if value is not None or len(values) != 1 else values[0]

        return make

    names = ("CheckboxGroup", "Dropdown", "Checkbox", "Slider", "Number", "Textbox")
    gr = types.SimpleNamespace(**{name: component(name) for name in names})
    for name in controls.FIELDS:
        shown = controls.control(gr, name)
        made[name] = controls.value_of(name, shown)
    assert controls.config_of(made, model=None) == AnimateConfig()
    assert controls.values_of({"size": " 512 ", "fps": "12.5", "neutral": "0"}) == {
        "size": 512,
        "fps": 12.5,
        "neutral": 0,
    }
    for name, shown in (("size", "512.5"), ("fps", "fast"), ("face", "inf"), ("strength", None)):
        with pytest.raises(InputError, match=r"use (a number|an integer)"):
            controls.value_of(name, shown)


def test_every_setting_has_its_place_on_the_page():
    assert sorted(name for group in controls.GROUPS.values() for name in group) == sorted(controls.FIELDS)


def test_a_background_is_never_a_file_of_this_computer(small_path: Path):
    assert controls.background_of(None, None, None) is None
    assert controls.background_of("blur", None, None) == "blur"
    assert controls.background_of("white", None, None) == "#ffffff"
    assert controls.background_of(controls.COLOR, "rgba(255.0, 127.6, 0, 1)", None) == "#ff8000"
    assert controls.background_of(controls.PICTURE, None, str(small_path)) == str(small_path)
    for given in (str(small_path), "/etc/passwd", "", controls.COLOR):
        with pytest.raises(InputError, match="use a color"):
            controls.background_of(given, None, None)
    with pytest.raises(InputError, match="No background picture"):
        controls.background_of(controls.PICTURE, None, None)


def test_sentences_name_controls_or_parameters_and_no_folders():
    said = "--driver-face 3: /tmp/mimik-web-x/cache/4c0/clip.mp4 shows one face; pass --driver-face 1."
    assert controls.plain(said) == "“Face of the driver” 3: clip.mp4 shows one face; pass “Face of the driver” 1."
    assert controls.plain(said, for_programs=True).startswith("driver_face 3: clip.mp4 shows")
    assert controls.plain("use http://127.0.0.1:1/a/b") == "Use http://127.0.0.1:1/a/b"


def test_every_motion_has_a_moving_picture_and_every_portrait_is_named():
    assert [name for _, name in examples.motion_previews()] == list(registry.names())
    for file, _ in examples.motion_previews():
        assert verify(Path(file)).exit_code == 0
    notice = (DOCS.parents[1] / "NOTICE").read_text(encoding="utf-8")
    files = [Path(path) for path, _ in examples.portraits()]
    assert len(files) == 4 and all(path.name in notice for path in files)


# Edit and verify.


@pytest.mark.slow
def test_the_photo_answers_to_the_sliders(session: Session, small_path: Path):
    before, plain = jobs.edited(session, str(small_path), Edit(), PLAIN)
    _, smiling = jobs.edited(session, str(small_path), Edit(smile=0.8), PLAIN)
    assert before.shape == plain.shape == smiling.shape == (512, 512, 3)
    assert np.abs(before.astype(int) - plain).mean() < 2 < 30 < np.abs(plain.astype(int) - smiling).max()
    out = jobs.save_edited(session, str(small_path), Edit(smile=0.8), PLAIN, format="webp")
    assert out.is_relative_to(session.folder) and out.suffix == ".webp"
    assert video.read_image(out).shape == (256, 256, 3)
    sentence, details = jobs.verified(str(out))
    assert "made by mimik" in sentence and details["exit_code"] == 0


@pytest.mark.slow  # test_runtime asks one graph from several threads, without a person
def test_two_sliders_at_once_give_two_right_pictures(session: Session, small_path: Path):
    """With the default network, whose buffers must not be overwritten by a second thread."""
    config, wanted = AnimateConfig(size=256), {}
    changes = [Edit(yaw=20.0), Edit(mouth=0.8)]
    for edit in changes:
        wanted[edit] = jobs.edited(session, str(small_path), edit, config)[1]
    wrong: list[Edit] = []

    def work(edit: Edit) -> None:
        for _ in range(4):
            if np.abs(jobs.edited(session, str(small_path), edit, config)[1].astype(int) - wanted[edit]).max() > 1:
                wrong.append(edit)

    threads = [threading.Thread(target=work, args=(edit,)) for edit in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_empty_tabs_say_what_is_missing(session: Session, job: Job):
    for call in (
        lambda: jobs.edited(session, None, Edit(), PLAIN),
        lambda: jobs.save_edited(session, None, Edit(), PLAIN),
        lambda: jobs.verified(None),
        lambda: jobs.faces(None),
        lambda: next(learning.learning(job, [], limits=Limits(), model=None, max_seconds=1)),
        lambda: next(learning.learning(job, ["a.jpg"] * 33, limits=Limits(), model=None, max_seconds=1)),
    ):
        with pytest.raises(InputError, match=r"yet: |at most 32"):
            call()


# Person.


def test_learning_reports_the_curve_and_stops_on_request(job: Job, small_path: Path, monkeypatch: pytest.MonkeyPatch):
    fine_tuning = pytest.importorskip("mimik.training.fine_tuning", reason="torch is not installed")
    point = fine_tuning.Point(0, 0.0, 0.5, 0.25, 0.5)

    def learn(read, out, arguments, *, progress, preparing, began_s):
        assert [source.name for source in read.sources] == [small_path.name]
        assert out.suffix == AVATAR_SUFFIX and arguments.max_seconds == 9
        preparing("reading the photos", 0, 1)
        for step in range(10_000):
            progress(point._replace(step=step // 2), step, 10_000)
        raise AssertionError("nobody stopped it")

    monkeypatch.setattr(fine_tuning, "learn", learn)
    said = []
    with (
        pytest.raises(StoppedError),
        closing(learning.learning(job, [str(small_path)], limits=Limits(), model=None, max_seconds=9)) as news,
    ):
        for one in news:
            said.append(one.doing)
            assert one.out is None and [p.step for p in one.curve] == sorted({p.step for p in one.curve})
            if one.curve:
                job.session.stop()
    assert said[0].startswith("Finding the face in the photo") and "likeness 0.50, motion fidelity 0.25" in said[-1]


def test_a_file_is_offered_only_after_improvement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fine_tuning = pytest.importorskip("mimik.training.fine_tuning", reason="torch is not installed")
    first, later = fine_tuning.Point(0, 0.0, 0.5, 0.25, 0.375), fine_tuning.Point(40, 9.0, 0.75, 0.25, 0.5)
    picture = np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr(learning, "pictures", lambda *_: (picture, picture))
    for best, others, message, is_offered in (
        (first, 0, "No improvement: after 40 steps", False),
        (first, 7, "8 photos share the face.", True),
        (later, 0, "Improved in 40 steps: likeness 0.50 → 0.75, motion fidelity 0.25 → 0.25", True),
    ):
        out = tmp_path / "person.avatar"
        out.write_bytes(b"learned")
        outcome = types.SimpleNamespace(curve=[first, later], best=best, ended="the time was over")
        outcome.person = types.SimpleNamespace(others=(None,) * others)
        last = learning._finished(outcome, ["a.jpg"], out, None)
        assert message in last.doing and "Training ended because the time was over." in last.doing
        assert (last.out is not None) == (last.before is not None) == out.exists() == is_offered


# Access.


def test_limits_and_hosts_are_checked():
    with pytest.raises(InputError, match="--max-mb 0"):
        Limits(upload_mb=0)
    with pytest.raises(InputError, match="--max-seconds 0"):
        Limits(seconds=0.0)
    with pytest.raises(InputError, match="--password"):
        server.served_studio(Serving(host="0.0.0.0")).__enter__()
    assert guard.is_loopback("::1") and not guard.is_loopback("0.0.0.0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match=r"--port \d+: cannot be used"):
            server.served_studio(Serving(port=taken.getsockname()[1])).__enter__()


@pytest.mark.parametrize(
    ("served", "host", "origin", "status"),
    [
        ("127.0.0.1", "127.0.0.1:1", None, None),
        ("127.0.0.1", "localhost:1", "http://localhost:1", None),
        ("::1", "[::1]:1", "http://[::1]:1", None),
        ("127.0.0.1", "evil.example:1", None, 421),
        ("127.0.0.1", "127.0.0.1.evil.example", None, 421),
        ("127.0.0.1", "", None, 421),
        ("127.0.0.1", "localhost:1", "http://localhost:2", 403),
        ("127.0.0.1", "127.0.0.1:1", "null", 403),
        ("0.0.0.0", "studio.example", "https://studio.example", None),
        ("0.0.0.0", "studio.example", "http://evil.example", 403),
    ],
)
def test_only_the_own_name_and_the_own_pages_are_answered(served: str, host: str, origin: str | None, status: int):
    no = guard.refused(served, host, origin)
    assert (no and no[0]) == status


def test_the_default_port_is_not_that_of_the_browser_example():
    example = (DOCS.parents[1] / "examples/browser/serve.js").read_text(encoding="utf-8")
    port = re.search(r"process\.argv\[2\] \?\? (\d+)", example)
    assert port and len({int(port[1]), serving.STUDIO_PORT, serving.CALL_PORT}) == 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "nothing drives the photo; pass one of driver (an uploaded file), say (a text) and driver_name."),
        ({"driver": "a.mp4", "say": "Hello."}, "driver and say are mutually exclusive"),
        ({"say": "Hello.", "driver_name": "talk"}, "say and driver_name are mutually exclusive"),
        ({"driver_name": "dance"}, "driver_name dance: use one of"),
        ({"driver_name": "smile"}, None),
        ({"driver": "a.mp4"}, None),
    ],
)
def test_a_program_names_one_driver(values: dict[str, str], said: str | None):
    """None does not select the first motion, which would silently return a talking person."""
    api = pytest.importorskip("mimik.app.web.api")
    every = dict.fromkeys(("driver", "say", "driver_name", "voice")) | values
    call = types.SimpleNamespace(values=every, file=every.get)
    if said is None:
        assert api._driver(call) == next(iter(values.values()))
    else:
        with pytest.raises(InputError, match=re.escape(said)):
            api._driver(call)


# The served app.


@contextmanager
def app_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch, password: str | None = None, limits: Limits | None = None
) -> Iterator[str]:
    """Serves the app; returns its address. Its files are below the folder."""
    pytest.importorskip("gradio", reason="the extra `web` is not installed")
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    where = Serving(port=0, password=password)
    with server.served_studio(where, model="geometry", limits=limits) as address:
        yield address
    assert list(folder.rglob("*.mp4")) == []


@pytest.mark.parametrize("num_inputs", [1, 2])
def test_a_chosen_portrait_replaces_the_inputs(num_inputs: int):
    gr = mock.MagicMock()
    parts.Shared(gr, *[None] * 4).portraits("examples", 4, 96, [object()] * num_inputs)  # type: ignore[arg-type]
    chosen = gr.Gallery.return_value.select.call_args.args[0]
    path = examples.portraits()[1][0]
    # gradio takes the value itself for one output, a list for several.
    assert chosen(types.SimpleNamespace(index=1)) == (path if num_inputs == 1 else [path, None])


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with app_at(tmp_path / "app", monkeypatch) as one:
        yield one


def ask(address: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """Status and text of a response; a body is sent by POST."""
    return Browser().ask(f"{address.rstrip('/')}{path}", body, **headers)[:2]


def called(address: str, name: str, **values: Any) -> str:
    """The response of an endpoint, as sent by gradio."""
    status, text = ask(address, f"/gradio_api/call/v2/{name}", values)
    assert status == 200, text
    return ask(address, f"/gradio_api/call/{name}/{json.loads(text)['event_id']}")[1]


@pytest.mark.slow
def test_what_is_served_is_guarded(tmp_path: Path, small_path: Path, monkeypatch: pytest.MonkeyPatch):
    with app_at(tmp_path / "app", monkeypatch) as address:
        assert ask(address, "/config")[0] == 200
        assert ask(address, "/config", Host="evil.example")[0] == 421
        assert ask(address, "/gradio_api/call/v2/motions", {}, Origin="http://evil.example")[0] == 403
        for path in ("/etc/passwd", __file__, str(small_path)):
            assert ask(address, f"/gradio_api/file={path}")[0] in (403, 404)
            for given in (path, FILE | {"path": path}):
                answer = called(address, "verify", file=given)
                assert "is not an uploaded file" in answer or "not uploaded by a user" in answer
        assert list((tmp_path / "app").rglob("passwd")) == []
        assert "are not downloaded" in called(address, "verify", file=FILE | {"path": "http://127.0.0.1:9/a.jpg"})
        assert "use a color" in called(
            address, "animate_all", photos=[], driver_name="talk", background=str(small_path)
        )
        model = {"driver_name": "talk", "model": "/x.safetensors"}
        assert "use one of texture, geometry" in called(address, "animate_all", photos=[], **model)
        assert "nothing drives the photo; pass one of driver" in called(address, "animate_all", photos=[])
        assert ask(address, "/gradio_api/run/animate", {"data": []})[0] == 404  # would bypass the queue
        names = json.loads(ask(address, "/gradio_api/info")[1])["named_endpoints"]
        assert set(names) == {f"/{one}" for one in ENDPOINTS}
        parameters = {one["parameter_name"] for one in names["/animate"]["parameters"]}
        assert parameters >= set(controls.FIELDS)
    with app_at(tmp_path / "app", monkeypatch, password="pw", limits=Limits(upload_mb=1)) as address:
        right, wrong = ("Basic bWltaWs6cHc=", "Basic bWltaWs6bm8=")
        for path in ("/", "/config", "/gradio_api/info", "/gradio_api/file=x", "/gradio_api/heartbeat/x"):
            assert ask(address, path)[0] == ask(address, path, Authorization=wrong)[0] == 401
        assert ask(address, "/config", Authorization=right)[0] == 200
        curl = ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", "-F", "files=@-;filename=a.jpg"]
        for credentials, size, code in ((["-u", "mimik:pw"], 2 << 20, b"413"), (["-u", "mimik:pw"], 9, b"200")):
            command = [*curl, *credentials, f"{address}gradio_api/upload"]
            assert subprocess.run(command, input=b"x" * size, capture_output=True, timeout=60).stdout == code


@pytest.mark.slow
@pytest.mark.browser
def test_a_call_in_a_tab(
    tmp_path: Path, small_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Callable[..., Any]
):
    """The page of `mimik live` in a frame: with the password, a separate key, and only inside this site."""
    pytest.importorskip("aiortc", reason="the extra `live` is not installed")
    right = "Basic bWltaWs6cHc="
    devices = "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"
    with app_at(tmp_path / "app", monkeypatch, password="pw") as address:
        assert ask(address, "/call/guessed/", Authorization=right)[0] == 404
        assert ask(address, "/call/guessed/offer", {"sdp": ""}, Authorization=right)[0] == 404
        assert ask(address, "/call/guessed/offer", "x" * 200_000, Authorization=right)[0] == 413
        tab = browser(
            *devices,
            viewport={"width": 1366, "height": 900},
            permissions=["camera", "microphone"],
            http_credentials={"username": "mimik", "password": "pw"},
        ).new_page()
        tab.goto(address)
        tab.get_by_role("tab", name="Call").click()
        tab.click("#call-start")
        wait_for(tab, "#call-said", "No photo yet")
        tab.set_input_files("#call-photo input[type=file]", str(small_path))
        tab.wait_for_selector("#call-photo img")
        tab.click("#call-start")
        key = tab.wait_for_selector(".m-call").get_attribute("src")
        call = tab.frame_locator(".m-call")
        person = call.locator("#person")
        for _ in range(240):
            if person.evaluate("video => video.videoWidth"):
                break
            tab.wait_for_timeout(250)
        assert person.evaluate("video => video.videoWidth") == 512
        lowest = "e => Math.max(...[...e.querySelectorAll('*')].map(one => one.getBoundingClientRect().bottom))"
        assert call.locator("#controls").evaluate(lowest) <= call.locator("body").evaluate("() => innerHeight")
        assert tab.locator(".m-call").bounding_box()["y"] + tab.locator(".m-call").bounding_box()["height"] <= 900
        assert ask(address, f"/{key}")[0] == 401
        assert ask(address, f"/{key}", Authorization=right)[0] == 200
        tab.screenshot(path=tmp_path / "call.png")  # to look at
        tab.click("#call-end")
        tab.wait_for_selector(".m-call", state="detached")
        assert ask(address, f"/{key}", Authorization=right)[0] == 404


FILE = {"meta": {"_type": "gradio.FileData"}}
ENDPOINTS = ("animate", "animate_all", "learn", "edit", "verify", "faces", "motions", "stop")


@pytest.mark.slow
def test_it_starts_behind_a_proxy():
    """Loopback bypasses the proxy: gradio used it for its own address, and failed at import with a SOCKS proxy."""
    pytest.importorskip("gradio", reason="the extra `web` is not installed")
    code = "from mimik.app.serving import Serving; from mimik.app.web import server\n"
    code += "with server.served_studio(Serving(port=0)) as address: print(address)"
    command = [sys.executable, "-c", code]
    for proxies in ({"http_proxy": "http://127.0.0.1:9"}, {"ALL_PROXY": "socks5://127.0.0.1:9"}):
        done = subprocess.run(command, env=os.environ | proxies, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0 and done.stdout.startswith("http://127.0.0.1:"), done.stderr


@pytest.mark.slow
def test_the_documented_programs_work(address: str, small_path: Path, tmp_path: Path):
    (tmp_path / "photo.jpg").write_bytes(small_path.read_bytes())
    text = DOCS.read_text(encoding="utf-8").replace("http://127.0.0.1:8765", address.rstrip("/"))
    blocks = dict(re.findall(r"```(python|sh)\n(.*?)```", text, re.DOTALL))  # the last of each
    assert "Client(" in blocks["python"] and "curl" in blocks["sh"]
    here: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 180}
    done = subprocess.run([sys.executable, "-c", blocks["python"]], **here)
    assert done.returncode == 0, done.stderr
    path, count = done.stdout.split()[-2:]
    assert verify(Path(path)).exit_code == 0 and video.probe(path).width == 256
    assert int(count) == video.probe(path).num_frames
    subprocess.run(["sh", "-e", "-c", blocks["sh"]], check=True, **here)
    assert verify(tmp_path / "out.mp4").exit_code == 0


# In a real browser.


def downloaded(tab: Any, link: str, out: Path) -> Path:
    with tab.expect_download() as download:
        tab.click(link)
    download.value.save_as(out)
    return out


def wait_for(tab: Any, place: str, text: str) -> None:
    tab.wait_for_function(f"document.querySelector('{place}')?.innerText.includes('{text}')")


@pytest.mark.slow
@pytest.mark.browser
def test_every_tab_in_a_browser(address: str, small_path: Path, tmp_path: Path, browser: Callable[..., Any]):
    tab = browser(viewport={"width": 1366, "height": 900}).new_page()
    foreign: list[str] = []
    known = "127.0.0.1", "data:", "blob:"
    tab.on("request", lambda one: any(part in one.url for part in known) or foreign.append(one.url))
    tab.goto(address)

    # Animate, first without a photo: the message disappears when there is one.
    tab.wait_for_selector("#animate")
    tab.click("#animate")
    wait_for(tab, "#animate-said", "No photo yet")
    tab.set_input_files("#photo input[type=file]", str(small_path))
    tab.wait_for_selector("#photo img")
    wait_for(tab, "#summary", f"{small_path.name} will follow the motion “talk”")
    assert "No photo yet" not in tab.inner_text("body")
    tab.locator("#motions button").nth(list(registry.names()).index("smile")).click()
    wait_for(tab, "#summary", "the motion “smile”")

    # Stop, then a complete run: one bar with percent.
    tab.click("#animate")
    wait_for(tab, "#animate-said", "%")
    assert tab.locator("[role=progressbar]:visible").count() == 1
    tab.click("#animate-stop")
    wait_for(tab, "#animate-said", "Stopped. Nothing was kept.")
    assert "Error" not in tab.inner_text("body")
    tab.click("#animate")
    wait_for(tab, "#animate-said", "frames of 256x256")
    assert tab.locator("#animate").bounding_box()["y"] < 900
    result = downloaded(tab, "#result-file", tmp_path / "result.mp4")
    assert verify(result).exit_code == 0
    tab.get_by_role("tab", name="Before and after").first.click()
    slider = tab.locator("#slider input[type=range]")
    slider.fill("20")
    slider.dispatch_event("input")
    assert tab.eval_on_selector("#slider .m-compare", "e => e.style.getPropertyValue('--at')") == "20%"
    tab.screenshot(path=tmp_path / "animate.png")  # to look at

    # Verify the output.
    tab.get_by_role("tab", name="Verify").click()
    tab.set_input_files("#asked input[type=file]", str(result))
    wait_for(tab, "#verdict", "made by mimik")

    # Edit: the photo changes while a slider moves.
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
    tab.wait_for_selector("#edited-file:visible")
    assert verify(downloaded(tab, "#edited-file", tmp_path / "edited.png")).exit_code == 0

    # Person: missing input is reported.
    tab.get_by_role("tab", name="Person").click()
    tab.click("#learn")
    wait_for(tab, "#learn-said", "No photos yet")

    # Files are deleted when the visitor leaves.
    assert foreign == []
    made = [
        path
        for name in (f"{small_path.stem}.mp4", f"{small_path.stem}_edited.png")
        for path in (tmp_path / "app").rglob(name)
    ]
    assert len(made) == 2
    tab.close()
    until(lambda: not any(path.exists() for path in made), 20)
    assert not any(path.exists() for path in made)


@pytest.mark.slow
@pytest.mark.browser
def test_a_person_is_learned_in_a_browser(address: str, small_path: Path, tmp_path: Path, browser: Callable[..., Any]):
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    tab = browser(viewport={"width": 1366, "height": 900}).new_page()
    tab.goto(address)
    tab.get_by_role("tab", name="Person").click()
    tab.set_input_files("#photos input[type=file]", [str(small_path)])
    wait_for(tab, "#photos", small_path.stem)
    seconds = tab.locator("#seconds input[type=range]")
    seconds.fill("10")
    seconds.dispatch_event("input")
    tab.click("#learn")
    tab.wait_for_selector("#curve canvas, #curve svg")
    tab.wait_for_function("/mprove/.test(document.querySelector('#learn-said')?.innerText)")
    tab.screenshot(path=tmp_path / "person.png")  # to look at
    if "No improvement" in tab.inner_text("#learn-said"):
        assert not tab.locator("#person-file").is_visible()
        return
    assert tab.locator("#gained img").count() >= 2
    person = downloaded(tab, "#person-file", tmp_path / "small.avatar")

    tab.get_by_role("tab", name="Animate").click()
    tab.get_by_label("Learned person").check()
    tab.set_input_files("#avatar input[type=file]", str(person))
    wait_for(tab, "#summary", "small.avatar will follow")
    tab.click("#animate")
    wait_for(tab, "#animate-said", "frames of 256x256")
    assert verify(downloaded(tab, "#result-file", tmp_path / "result.mp4")).exit_code == 0
