"""The pipeline of a call: frames from the camera, calibration, newest frame only, recordings."""

from __future__ import annotations

import itertools
import math
import os
import queue
import sys
import threading
import time
import types
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import SIDE_PX, Driver, until, write_clip
from mimik.animation.avatar import Avatar
from mimik.animation.source_frame import SourceFrame
from mimik.app.cli import app
from mimik.app.live import call as call_module
from mimik.app.live.call import Call, Shown
from mimik.app.live.controls import Controls, Newest
from mimik.app.live.follower import Follower
from mimik.app.live.recording import Outlets, Recording, VirtualCamera
from mimik.config import AnimateConfig, InputError
from mimik.face.landmarks import Face, Landmarker, head_pose
from mimik.face.tracker import Tracker
from mimik.inference import synthesis
from mimik.media import video
from mimik.provenance.marking import burn_label
from mimik.provenance.verifying import verify
from mimik.provenance.watermark import WatermarkDetector

CONFIG = AnimateConfig(model="geometry", smooth=0.0)
FPS = 25.0


@pytest.fixture
def call(avatar: Avatar) -> Call:
    return Call(avatar, CONFIG)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, driver_faces: list[Face | None]) -> None:
    """Replaces tracking, which has separate tests: the first pixel of a "frame" is the index of its face."""

    def track(self: Tracker, image: np.ndarray, *, blendshapes: bool) -> Face | None:
        number = int(image[0, 0, 0])
        face = None if number == 255 else driver_faces[number]
        return face if face is None or blendshapes else replace(face, blendshapes=np.full(52, np.nan, np.float32))

    monkeypatch.setattr(Tracker, "track", track)
    monkeypatch.setattr(call_module, "IDLE_AFTER_S", math.inf)  # a driver may be slow; tested in test_live_sound


def frame(number: int | None) -> np.ndarray:
    return np.full((SIDE_PX, SIDE_PX, 3), 255 if number is None else number, np.uint8)


def follow(avatar: Avatar, numbers: list[int | None], controls: Controls | None = None) -> list[np.ndarray]:
    follower = Follower(avatar.source_frame(CONFIG), avatar.landmarker, smooth=0.0)
    return [follower(frame(n), i / FPS, controls or Controls())[0] for i, n in enumerate(numbers)]


def yaw(points: np.ndarray) -> float:
    return head_pose(points).degrees[0]


def every(call: Call, frames: Iterable[np.ndarray]) -> list[Shown]:
    """Results of frames; each frame of a generator is processed before the next one is generated."""
    return list(call.every((image, i / FPS) for i, image in enumerate(frames)))


def offered(call: Call, frames: Iterable[np.ndarray]) -> list[Shown]:
    """Frames shown by a running call for frames offered one after the other."""
    shown: queue.Queue[Shown] = queue.Queue()
    with call:
        call.on_shown(shown.put)
        made = []
        for i, image in enumerate(frames):
            call.offer(image, i / FPS)
            made.append(shown.get(timeout=120))
    assert call.error is None
    return made


REST = [0, 1, 2] * 15  # 1.8 s of the driver at rest: longer than it takes to find the neutral face


@pytest.mark.usefixtures("seen")
def test_the_person_does_what_the_driver_does(avatar: Avatar, driver: Driver):
    numbers = REST + list(range(len(driver.frames)))
    points = follow(avatar, numbers)[len(REST) :]
    turned = np.array([yaw(p) for p in points]) - yaw(avatar.face.points)
    assert np.abs(turned - driver.yaw).max() < 2.75  # the filter lags at the start of the turn
    gap = np.array([p[14, 1] - p[13, 1] for p in points])
    assert np.corrcoef(gap, driver.gap)[0, 1] > 0.95


@pytest.mark.usefixtures("seen")
def test_a_mirror_turns_the_other_way(avatar: Avatar, driver: Driver):
    most = int(driver.yaw.argmax())
    straight, turned = follow(avatar, [*REST, most])[-1], follow(avatar, [*REST, most], Controls(mirror=True))[-1]
    start = yaw(avatar.face.points)
    assert yaw(straight) - start > 9
    assert yaw(turned) - start < -9


@pytest.mark.usefixtures("seen")
def test_switching_the_mirror_keeps_the_neutral_face(avatar: Avatar):
    follower = Follower(avatar.source_frame(CONFIG), avatar.landmarker, smooth=0.0)
    for i, n in enumerate(REST):
        follower(frame(n), i / FPS, Controls())
    for i, n in enumerate(REST, start=len(REST)):
        points, _ = follower(frame(n), i / FPS, Controls(mirror=True))
    assert np.abs(points[:, :2] - avatar.face.points[:, :2]).mean() < 0.015 * avatar.face.width_px


@pytest.mark.usefixtures("seen")
def test_the_first_frame_moves_the_person_already_and_no_later_one_jumps(avatar: Avatar):
    points = follow(avatar, REST)
    assert points[0] is not None
    steps = [np.abs(b - a).mean() for a, b in itertools.pairwise(points)]
    assert max(steps) < 0.01 * avatar.face.width_px
    # At rest the person is as in the photo once the neutral face is known.
    assert np.abs(points[-1][:, :2] - avatar.face.points[:, :2]).mean() < 0.01 * avatar.face.width_px


@pytest.mark.usefixtures("seen")
def test_blendshapes_are_computed_only_where_the_neutral_face_is_sought(avatar: Avatar):
    follower = Follower(avatar.source_frame(CONFIG), avatar.landmarker, smooth=0.0)
    at = iter(np.arange(1000) / FPS)

    def has_blendshapes() -> bool:
        points, face = follower(frame(REST[0]), next(at), Controls())
        assert np.isfinite(points).all()
        return bool(np.isfinite(face.blendshapes).all())

    assert has_blendshapes()
    assert not [has_blendshapes() for _ in range(60)][-1]
    follower.calibrate()
    assert has_blendshapes()
    assert not [has_blendshapes() for _ in range(60)][-1]


@pytest.mark.usefixtures("seen")
def test_what_is_pressed_as_neutral_is_neutral(avatar: Avatar, driver: Driver):
    most = int(driver.yaw.argmax())
    follower = Follower(avatar.source_frame(CONFIG), avatar.landmarker, smooth=0.0)
    at = iter(np.arange(1000) / FPS)
    for n in [*REST, most]:
        before, _ = follower(frame(n), next(at), Controls())
    assert not follower.is_calibrating
    follower.calibrate()
    assert follower.is_calibrating
    for n in [most] * 40:
        after, _ = follower(frame(n), next(at), Controls())
    assert not follower.is_calibrating
    start = yaw(avatar.face.points)
    assert yaw(before) - start > 9
    assert abs(yaw(after) - start) < 1


@pytest.mark.usefixtures("seen")
def test_a_lost_face_eases_to_neutral(avatar: Avatar, driver: Driver):
    most = int(driver.yaw.argmax())
    points = follow(avatar, [*REST, *[most] * 20, *[None] * 20])
    assert abs(yaw(points[-1]) - yaw(avatar.face.points)) < 1
    steps = np.abs(np.diff([yaw(p) for p in points[-20:]]))
    assert steps.max() < 3


@pytest.mark.usefixtures("seen")
def test_regions_and_strength_hold_from_the_next_frame_on(call: Call, driver: Driver):
    most = int(driver.yaw.argmax())
    for i, n in enumerate([*REST, most]):
        call._track(frame(n), i / FPS)
    start = yaw(call.portrait.face.points)
    full = yaw(call._track(frame(most), 2.0).points) - start
    call.set(strength=0.5)
    half = yaw(call._track(frame(most), 2.04).points) - start
    call.set(regions=("lips", "eyes"))
    still = yaw(call._track(frame(most), 2.08).points) - start
    assert half == pytest.approx(full / 2, rel=0.1)
    assert abs(still) < 0.5


def test_before_a_face_is_seen_the_photo_is_shown(call: Call):
    (shown,) = every(call, [np.full((120, 160, 3), 90, np.uint8)])
    assert shown.face is None and shown.number == 1
    assert (shown.labeled[: SIDE_PX // 2] == call.portrait.picture[: SIDE_PX // 2]).all()


def test_what_is_shown_is_labeled_and_marked(avatar: Avatar, portrait_path: Path, landmarker: Landmarker):
    """A small label is smaller; it cannot be switched off."""
    call = Call(Avatar.from_photos([portrait_path], landmarker=landmarker), CONFIG)

    def filmed() -> Iterator[np.ndarray]:
        for label in ("normal", "small"):
            call.set(label=label)
            yield np.full((48, 64, 3), 90, np.uint8)

    shown = every(call, filmed())
    changed = [int((one.labeled != call.portrait.picture).any(-1).sum()) for one in shown]
    assert 200 < changed[1] < 0.5 * changed[0]
    reading = WatermarkDetector().read([one.image for one in shown])
    assert reading.payload == call._marker.payload
    with pytest.raises(InputError, match="a live call is always labeled"):
        call.set(label="none")


@pytest.mark.usefixtures("seen")
def test_frozen_the_person_holds_still(call: Call, driver: Driver):
    most = int(driver.yaw.argmax())

    def filmed() -> Iterator[np.ndarray]:
        yield from map(frame, REST[:10])
        call.set(freeze=True)
        yield from map(frame, [most, most])
        call.set(freeze=False)
        yield frame(most)

    *_, before, frozen, still, after = (one.labeled for one in every(call, filmed()))
    assert (frozen == before).all() and (still == before).all()
    assert (after != before).any()


def test_a_recording_that_fails_is_reported_on_the_page(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError("no space left on the disk")

    monkeypatch.setattr(call, "claim", full)
    recording = Recording(call, tmp_path / "call.mp4")
    recording._thread.join()
    assert list(call.problems) == ["the recording failed and is lost: no space left on the disk"]
    with pytest.raises(OSError, match="no space"):
        recording.stop()


def test_a_virtual_camera_that_fails_is_reported_on_the_page(call: Call, monkeypatch: pytest.MonkeyPatch):
    class Gone(_Device):
        def send(self, image: np.ndarray) -> None:
            raise RuntimeError("no such device")

    monkeypatch.setitem(sys.modules, "pyvirtualcam", types.SimpleNamespace(Camera=Gone))
    camera = VirtualCamera(call)
    camera._newest.put(frame(0))
    camera._thread.join()
    assert list(call.problems) == ["the virtual camera has ended (no such device); the call continues."]
    camera.close()


@pytest.mark.slow
@pytest.mark.usefixtures("seen")
@pytest.mark.skipif(synthesis.DEFAULT_MODEL != "texture", reason="the network's weights are not in this checkout")
def test_stages_in_threads_draw_what_one_after_the_other_draws(avatar: Avatar, driver: Driver):
    """The default model in a call's threads and for a file: bitwise equal."""
    config = AnimateConfig(size=256, frame="crop")
    numbers = [0, 1, *range(0, len(driver.frames), 12)]
    call = Call(avatar, config)
    follower = Follower(call.portrait, avatar.landmarker, smooth=config.smooth)
    expected = []
    for i, n in enumerate(numbers):
        points, _ = follower(frame(n), i / FPS, call.controls)
        image = call.portrait.paint(call.portrait.flow(points), points)
        expected.append(burn_label(image))
    assert (expected[-1] != expected[0]).any()
    for way in (every, offered):
        made = way(Call(avatar, config, Controls(quality="full")), [frame(n) for n in numbers])
        assert [one.number for one in made] == list(range(1, len(numbers) + 1))
        for one, image in zip(made, expected, strict=True):
            np.testing.assert_array_equal(one.labeled, image)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"strength": 4}, "strength 4: use a number from 0 to 3"),
        ({"strength": "much"}, "strength 'much': use a number"),
        ({"strength": float("nan")}, "strength nan: use a number"),
        ({"regions": ("ears",)}, "regions ears: use any of pose"),
        ({"mirror": 1}, "mirror 1: use true or false"),
        ({"speed": 2}, "speed: no such control"),
    ],
)
def test_impossible_controls_are_refused(call: Call, changes: dict, message: str):
    before = call.controls
    with pytest.raises(InputError, match=message):
        call.set(**changes)
    assert call.controls == before


# Newest frame only.


def test_newest_keeps_one_and_counts_the_rest():
    place: Newest[int] = Newest()
    for number in range(5):
        place.put(number)
    assert (place.take(), place.num_dropped) == (4, 4)
    threading.Timer(0.05, place.put, [7]).start()
    assert place.take() == 7
    place.close()
    assert place.take() is None


@pytest.mark.slow
@pytest.mark.usefixtures("seen")
def test_a_slow_machine_shows_fewer_frames_and_no_later_ones(call: Call, monkeypatch: pytest.MonkeyPatch):
    """While one frame is rendered, at least five are captured: the delay must not grow."""
    number, is_filming = 0, False

    def finish(self: SourceFrame, *_: object) -> np.ndarray:
        began = number
        until(lambda: not is_filming or number >= began + 5)
        return self.picture

    monkeypatch.setattr(SourceFrame, "finish", finish)
    shown: list[tuple[float, int]] = []
    with call:
        first_frame(call)
        start, is_filming = time.perf_counter(), True
        call.on_shown(lambda one: shown.append((one.at_s, number)))
        for number in range(1, 101):
            call.offer(frame(number % 3), start + number / 100)
            time.sleep(0.01)
        is_filming = False
        until(lambda: shown and shown[-1][0] == start + 1)
    assert call.error is None
    numbers = [round(100 * (at_s - start)) for at_s, _ in shown]
    assert 2 <= len(numbers) <= 40 and numbers == sorted(numbers)
    assert call.num_dropped >= 60
    assert numbers[-1] == 100  # the last camera frame was shown
    assert max(filmed - n for n, (_, filmed) in zip(numbers, shown, strict=True)) < 50  # in a queue, 80 would wait


@pytest.mark.usefixtures("seen")
def test_no_more_frames_are_worked_on_than_there_are_cores(call: Call, monkeypatch: pytest.MonkeyPatch):
    """While one is painted, another is prepared, and newer frames replace the waiting one."""
    painting, paint = threading.Event(), threading.Event()
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    call = Call(call.avatar, CONFIG)
    monkeypatch.setattr(SourceFrame, "finish", lambda self, *_: (painting.set(), paint.wait(), self.picture)[2])
    with call:
        shown: list[float] = []
        call.on_shown(lambda one: shown.append(one.at_s))
        call.offer(frame(0), 0.0)
        assert painting.wait(120)
        call.offer(frame(0), 1.0)
        until(lambda: call._inbox._item is None)  # it is being prepared
        for number in range(2, 6):
            call.offer(frame(0), float(number))
        paint.set()
        until(lambda: len(shown) == 3)
    assert shown == [0.0, 1.0, 5.0]
    assert call.num_dropped == 3


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize(
    "where, what", [(Tracker, "track"), (SourceFrame, "flow"), (SourceFrame, "prepared"), (SourceFrame, "finish")]
)
def test_what_breaks_in_a_thread_is_reported(call: Call, monkeypatch: pytest.MonkeyPatch, where: type, what: str):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(where, what, fail)
    num_threads = threading.active_count()
    with call:
        call.offer(frame(0), 0.0)
        for number in range(1, 6000):
            if call.error:
                break
            call.offer(frame(0), number / FPS)  # does not block
            time.sleep(0.02)
    assert isinstance(call.error, ZeroDivisionError)
    assert threading.active_count() == num_threads


# Recordings.


def first_frame(call: Call) -> None:
    """Waits for the first frame of a call, which takes longer than the later ones."""
    shown = threading.Event()
    call.on_shown(lambda _: shown.set())
    call.offer(frame(0), time.perf_counter())
    assert shown.wait(120)


@pytest.mark.slow
@pytest.mark.usefixtures("seen")
def test_a_recording_is_sealed_and_as_long_as_it_took(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SourceFrame, "finish", lambda self, *_: self.picture)
    times, add = list[float](), Recording._add
    monkeypatch.setattr(Recording, "_add", lambda self, shown: (times.append(time.perf_counter()), add(self, shown))[1])
    out = tmp_path / "call.mp4"
    with call:
        first_frame(call)
        recording = Recording(call, out)
        while not times or times[-1] - times[0] < 0.5:
            call.offer(frame(0), time.perf_counter())
            time.sleep(0.1)
        assert recording.stop() == out
    # 25 frames/s, although the call showed at most 10.
    assert recording.num_frames == pytest.approx(25 * (times[-1] - times[0]) + 1, abs=3) and len(times) < 9
    assert verify(out).exit_code == 0
    assert video.probe(out).fps == pytest.approx(25)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.usefixtures("seen")
def test_a_recording_that_is_thrown_away_leaves_nothing(call: Call, tmp_path: Path):
    with call:
        recording = Recording(call, tmp_path / "call.mp4")
        call.offer(frame(0), time.perf_counter())
        time.sleep(0.2)
        recording.stop(keep=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("seen")
def test_a_recording_ends_at_its_limit(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SourceFrame, "finish", lambda self, *_: self.picture)
    with call:
        first_frame(call)
        recording = Recording(call, tmp_path / "call.mp4", max_s=0.3)
        for _ in range(10):
            call.offer(frame(0), time.perf_counter())
            time.sleep(0.1)
        recording.stop()
    assert 1 <= recording.num_frames <= 9


@pytest.mark.parametrize(
    "name, message",
    [
        ("call.gif", "--record .*use a file ending in"),
        ("there.mp4", "--record .*already exists; pass --force to replace it, or use another --record"),
    ],
)
def test_a_recording_that_cannot_be_is_refused_at_once(call: Call, tmp_path: Path, name: str, message: str):
    (tmp_path / "there.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match=message):
        Recording(call, tmp_path / name)


# A file for the camera.


@pytest.mark.slow
@pytest.mark.usefixtures("one_landmarker")
def test_a_video_can_be_the_camera(small_path: Path, driver_with_sound: Path, driver: Driver, tmp_path: Path):
    out = tmp_path / "out.mp4"
    arguments = ["live", small_path, "--camera", driver_with_sound, "--record", out, "--model", "geometry"]
    arguments += ["--size", 256]
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.stderr
    assert f"{len(driver.frames)} frames of" in result.stdout and "with sound" in result.stdout
    verdict = verify(out)
    assert verdict.exit_code == 0
    assert '"live": "camera"' in verdict.to_json()
    frames = list(video.read_frames(out))
    assert len(frames) == len(driver.frames)
    assert video.probe(out).has_audio
    change = np.abs(frames[int(driver.yaw.argmax())].astype(int) - frames[0]).mean()
    assert change > 3  # it turned its head
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.usefixtures("one_landmarker")
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--camera", "{driver}"], "also pass --record OUT.mp4"),
        (["--camera", "{photo}", "--record", "out.mp4"], "is a picture; use a video"),
        (["--camera", "{wall}", "--record", "out.mp4"], "no face was found in it (4 frames)"),
        (["--camera", "{driver}", "--record", "out.gif"], "use a file ending in .mp4"),
        (["--camera", "{driver}", "--record", "out.mp4", "--label", "none"], "a live call is always labeled"),
        (["--camera", "{driver}", "--record", "out.mp4", "--virtual-camera"], "--virtual-camera works with your own"),
        (["--camera", "{driver}", "--record", "out.mp4", "--strength", "9"], "--strength 9.0"),
    ],
)
def test_bad_input_is_reported_and_writes_nothing(
    small_path: Path,
    driver: Driver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
):
    wall = write_clip(tmp_path / "wall.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 4)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    given = [one.format(driver=driver.path, photo=small_path, wall=wall) for one in arguments]
    result = CliRunner().invoke(app, ["live", str(small_path), *given])
    assert result.exit_code == 2
    assert message in result.stderr
    assert list((tmp_path / "here").iterdir()) == []


# A virtual camera.


class _Device:
    """Replaces pyvirtualcam's camera."""

    device = "/dev/video9"
    opened: list[_Device] = []  # noqa: RUF012

    def __init__(self, width: int, height: int, fps: float) -> None:
        self.size, self.sent, self.closed = (width, height), [], False
        _Device.opened.append(self)

    def send(self, image: np.ndarray) -> None:
        self.sent.append(image)

    def close(self) -> None:
        self.closed = True


@pytest.mark.usefixtures("seen")
def test_a_virtual_camera_gets_marked_frames(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", types.SimpleNamespace(Camera=_Device))
    with call, Outlets(virtual_camera=True).of(call):
        shown: list[Shown] = []
        call.on_shown(shown.append)
        call.offer(frame(0), 0.0)
        until(lambda: _Device.opened[-1].sent)
    device = _Device.opened[-1]
    assert device.closed and device.size == call.size
    assert (device.sent[0] == shown[0].image).all()


def test_a_computer_without_such_a_device_is_reported(call: Call, monkeypatch: pytest.MonkeyPatch):
    def none(**_: object) -> None:
        raise RuntimeError("v4l2loopback backend: no device found\ndetails")

    monkeypatch.setitem(sys.modules, "pyvirtualcam", types.SimpleNamespace(Camera=none))
    with pytest.raises(
        InputError, match=r"no virtual camera device \(v4l2loopback backend: no device found\); install OBS"
    ):
        VirtualCamera(call)
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(InputError, match=r"pip install '.\[camera\]'"):
        VirtualCamera(call)
