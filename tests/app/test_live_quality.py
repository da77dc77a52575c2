"""The quality of a call's frames: when it changes, what is computed for each, and what outputs of one size get."""

from __future__ import annotations

import logging
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import turned, until
from mimik.animation.avatar import Avatar
from mimik.animation.source_frame import SourceFrame
from mimik.app.cli import app
from mimik.app.live import controls as controls_module
from mimik.app.live.call import Call, Shown
from mimik.app.live.controls import Controls, Ladder, NetworkFade
from mimik.app.live.recording import Recording, VirtualCamera
from mimik.config import AnimateConfig, InputError, Quality
from mimik.face.landmarks import Face, Image
from mimik.face.tracker import Tracker
from mimik.inference.windows import window_around
from mimik.media import video
from mimik.pipeline import Clock
from mimik.provenance.verifying import verify
from mimik.provenance.watermark import WatermarkDetector
from mimik.rendering.flow import Flow
from mimik.rendering.painters import NO_NETWORK, PicturePainter, Prepared

FULL, HALF, WARP, SMALL = Quality
CONFIG = AnimateConfig(model="geometry")


def simulated(seconds: float, took_s: Callable[[float, Quality], float], fps: float = 30) -> list[tuple[float, str]]:
    """Times at which two frames at once, each of which takes took_s(time, quality), change the quality."""
    ladder, changes = Ladder(tuple(Quality), 2), []
    now_s, next_offer_s = 0.0, 0.0
    while now_s < seconds:
        quality, took = ladder.quality, took_s(now_s, ladder.quality)
        now_s += max(took / 2, 1 / fps)
        while next_offer_s <= now_s:
            ladder.offered(next_offer_s)
            next_offer_s += 1 / fps
        ladder.finished(quality, now_s, took)
        if ladder.quality is not quality:
            changes.append((now_s, ladder.quality.value))
    return changes


def steps(changes: list[tuple[float, str]]) -> list[str]:
    return [name for _, name in changes]


def test_quality_follows_the_time_that_frames_take():
    """By hand, with two frames at once and 1/30 s between frames: a load of 1 is 66.7 ms."""
    costs = {FULL: 1.0, HALF: 0.92, WARP: 0.69, SMALL: 0.64}

    def took_s(at_s: float, quality: Quality) -> float:
        # 100 ms are a load of 1.5: HALF would give 1.38 and WARP 1.035. 50 ms are 0.75: HALF gives 0.69.
        return (0.1 if at_s < 20 else 0.05) * costs[quality]

    changes = simulated(60, took_s)
    assert steps(changes) == ["warp", "half", "full"]
    lowered, first, second = (at for at, _ in changes)
    assert lowered == pytest.approx(2.05, abs=0.06)  # two seconds after the first frame
    # WARP's load falls from 1.035 toward 0.5175. HALF is expected at 0.95 when it is 0.95 * 0.69 / 0.92 = 0.7125:
    # exp(-t) = (0.7125 - 0.5175) / (1.035 - 0.5175) = 0.3768.
    assert first == pytest.approx(20 + 0.976, abs=0.1)
    assert second - first == pytest.approx(5, abs=0.06)


def test_a_computer_that_is_too_slow_for_all_gets_the_lowest():
    assert simulated(30, lambda *_: 0.3)[0][1] == "small" and len(simulated(30, lambda *_: 0.3)) == 1


def test_a_fast_computer_and_short_disturbances_change_nothing():
    assert simulated(60, lambda *_: 0.06) == []
    assert simulated(60, lambda at_s, _: 0.3 if at_s % 10 < 0.2 else 0.05) == []


def test_a_slow_camera_needs_less():
    """100 ms are a load of 0.75 at 15 frames/s; a slower camera is taken for one that a busy computer slows."""
    assert simulated(30, lambda *_: 0.1, fps=15) == []
    assert steps(simulated(30, lambda *_: 0.2, fps=6))[0] == "warp"


def test_a_quality_that_does_not_hold_is_tried_ever_more_rarely():
    """HALF takes twice what its cost relative to WARP lets expect: it is tried after 5, 10, 20, 40, 80 and 80 s."""
    changes = simulated(270, lambda _, quality: {FULL: 0.1, HALF: 0.1, WARP: 0.04, SMALL: 0.04}[quality])
    assert steps(changes) == ["warp", *["half", "warp"] * 6]
    at = np.array([at for at, _ in changes])
    np.testing.assert_allclose(np.diff(at)[::2], [5, 10, 20, 40, 80, 80], atol=0.1)
    np.testing.assert_allclose(np.diff(at)[1::2], 2, atol=0.1)


def test_frames_of_another_quality_do_not_count():
    ladder = Ladder(tuple(Quality), 2)
    for i in range(100):
        ladder.finished(WARP, i / 10, 1.0)
    assert ladder.quality is FULL and ladder.load == 0


def test_the_network_fades_where_the_quality_leaves_it_out():
    """By hand, 0.4 s at 10 frames/s: a quarter per frame; HALF while it fades out; a pause counts as 0.25 s."""
    fade = NetworkFade(tuple(Quality))
    faded = [fade(quality, at / 10) for at, quality in enumerate([FULL, WARP, SMALL, WARP, WARP, SMALL, FULL, HALF])]
    shares = 1, 0.75, 0.5, 0.25, 0, 0, 0.25, 0.5
    for (quality, share), expected, wanted in zip(
        faded, shares, [FULL, HALF, HALF, HALF, WARP, SMALL, FULL, HALF], strict=True
    ):
        assert quality is wanted and share == pytest.approx(expected, abs=1e-6)
    assert fade(WARP, 1000.0) == (WARP, 0)
    assert fade(FULL, 2000.0) == (FULL, 0.625)
    without = NetworkFade((FULL, SMALL))
    assert [without(quality, 0.0) for quality in (FULL, SMALL, FULL)] == [(FULL, 1), (SMALL, 0), (FULL, 1)]


class Recorded(PicturePainter):
    """A painter that draws nothing, and notes which outputs its frames got."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.given: dict[float, object] = {}
        self._fails_at = fails_at

    def prepare(self, flow: Flow, target: np.ndarray, outputs: object = None, share: float = 1.0) -> Prepared:
        number = float(target[0, 0])
        if number == self._fails_at:
            raise ZeroDivisionError("broken")
        if number % 2 == 0:
            time.sleep(0.02)  # its follower is rendered at the same time, and has to wait
        self.given[number] = outputs
        return Prepared(flow, target, outputs=("of", number) if outputs is None else outputs)

    def finish(self, prepared: Prepared) -> Image:
        return np.full((2, 2, 3), prepared.target[0, 0], np.uint8)

    @property
    def moved_matte(self) -> np.ndarray:
        raise NotImplementedError


def drawn(source: SourceFrame, qualities: list[Quality], points: list[np.ndarray] | None = None) -> list[Image]:
    points = points or [np.full((478, 3), i, np.float32) for i in range(len(qualities))]

    def moves() -> Iterator[tuple[Quality, np.ndarray]]:
        yield from zip(qualities, points, strict=True)

    with closing(source.images(moves(), Clock(), ahead=2, quality=lambda one: one)) as images:
        return [image for _, image in images]


def recording_source(avatar: Avatar, monkeypatch: pytest.MonkeyPatch, painter: PicturePainter) -> SourceFrame:
    source = avatar.source_frame(CONFIG)
    monkeypatch.setattr(SourceFrame, "flow", lambda self, points: None)
    source.__dict__["_painter"] = painter
    return source


def test_half_uses_each_output_of_the_network_twice(avatar: Avatar, monkeypatch: pytest.MonkeyPatch):
    painter = Recorded()
    images = drawn(recording_source(avatar, monkeypatch, painter), [FULL, HALF, HALF, HALF, HALF, WARP, HALF, FULL])
    held = {1: 0, 3: 2}  # 4 runs the network, 5 uses none, so 6 has to run it
    expected = [("of", float(held[i])) if i in held else NO_NETWORK if i == 5 else None for i in range(8)]
    assert [painter.given[i] for i in range(8)] == expected
    assert [int(image[0, 0, 0]) for image in images] == list(range(8))


def test_half_runs_the_network_again_where_lips_or_lids_moved(avatar: Avatar, monkeypatch: pytest.MonkeyPatch):
    """1 % of the network's window is too little, 2 % are too much; that it moves as a whole does not count."""
    side = window_around(avatar.source_frame(CONFIG).face.points).side
    held = []
    for point, share in ((14, 0.01), (14, 0.02), (145, 0.01), (145, -0.02), (374, 0.02)):
        points = [np.full((478, 3), i, np.float32) for i in range(2)]
        points[1][point, 1] += share * side
        painter = Recorded()
        drawn(recording_source(avatar, monkeypatch, painter), [HALF] * 2, points)
        held.append(painter.given[1] is not None)
    assert held == [True, False, True, False, False]


def test_an_error_ends_the_frames_that_wait_for_it(avatar: Avatar, monkeypatch: pytest.MonkeyPatch):
    source = recording_source(avatar, monkeypatch, Recorded(fails_at=2))
    with pytest.raises(ZeroDivisionError):
        drawn(source, [HALF] * 8)


def test_each_quality_draws_what_it_says(avatar: Avatar):
    """WARP is the full frame of the model without a network; SMALL has 3/4 of its sides, once it is prepared."""
    source = avatar.source_frame(CONFIG)
    points = [turned(source.face.points, yaw) for yaw in (4.0, 8.0)]
    expected = [source.paint(source.flow(p), p) for p in points]
    for how in (FULL, HALF, WARP):
        np.testing.assert_array_equal(drawn(source, [how] * 2, points), expected)
    first, _ = drawn(source, [SMALL, FULL], points)
    assert first.shape == expected[0].shape
    smaller = source._smaller.result()
    assert smaller.size == tuple(round(0.375 * side) * 2 for side in source.size)
    image, last = drawn(source, [SMALL, FULL], points)
    assert image.shape[1::-1] == smaller.size
    np.testing.assert_array_equal(last, expected[1])
    enlarged = video_sized(image, source.size)
    assert np.abs(enlarged.astype(int) - expected[0]).mean() < 0.6 * np.abs(enlarged.astype(int) - expected[1]).mean()


def video_sized(image: Image, size: tuple[int, int]) -> Image:
    return Shown(image, None, 1, 0.0, None).labeled_in(size)  # type: ignore[arg-type]


def test_a_chosen_quality_is_used_and_one_that_a_model_lacks_is_the_next_higher(avatar: Avatar):
    call = Call(avatar, CONFIG)
    assert call.portrait.qualities == (FULL, SMALL)
    for name, used in (("auto", FULL), ("full", FULL), ("half", FULL), ("warp", FULL), ("small", SMALL)):
        call.set(quality=name)
        assert call.quality is used
    with pytest.raises(InputError, match="quality 'best': use one of auto, full, half, warp, small"):
        call.set(quality="best")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls_module, "SETTLE_S", 0.2)


@pytest.fixture
def slow_call(avatar: Avatar, driver_faces: list[Face], monkeypatch: pytest.MonkeyPatch, impatient: None) -> Call:
    """A call whose frames take 0.2 s, whoever drives."""
    call = Call(avatar, CONFIG)
    monkeypatch.setattr(SourceFrame, "finish", lambda self, *_: (time.sleep(0.2), self.picture)[1])
    monkeypatch.setattr(Tracker, "track", lambda self, image, **_: driver_faces[0])
    return call


def test_a_slow_call_lowers_its_quality_and_says_so(slow_call: Call, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    with slow_call:
        slow_call.on_shown(lambda _: None)

        def is_small() -> bool:
            slow_call.offer(np.full((48, 64, 3), 90, np.uint8), time.perf_counter())
            time.sleep(0.02)
            return slow_call.num_frames[SMALL] > 0

        until(is_small)
    assert slow_call.error is None and slow_call.quality is SMALL
    assert "quality small instead of full at a load of" in caplog.text


def test_a_call_steps_gradually_to_a_picture_without_the_network(
    avatar: Avatar, driver_faces: list[Face], monkeypatch: pytest.MonkeyPatch
):
    call, shares = Call(avatar, CONFIG), []
    call._fade = NetworkFade(tuple(Quality))  # as a model with a network has
    monkeypatch.setattr(SourceFrame, "qualities", tuple(Quality))
    monkeypatch.setattr(Tracker, "track", lambda self, image, **_: driver_faces[len(shares) % len(driver_faces)])
    original = SourceFrame.prepared
    monkeypatch.setattr(SourceFrame, "prepared", lambda self, *args: (shares.append(args[3]), original(self, *args))[1])
    with call:
        call.on_shown(lambda _: None)
        for quality in ("full", "warp"):
            call.set(quality=quality)
            num = len(shares)

            def is_done(num: int = num) -> bool:
                call.offer(np.full((48, 64, 3), 90, np.uint8), time.perf_counter())
                time.sleep(0.02)
                return len(shares) > num + 3 and shares[-1] == float(call.quality is FULL)

            until(is_done)
    assert call.error is None
    assert max(-np.diff(shares)) <= controls_module.MAX_STEP_S / controls_module._FADE_S + 1e-6
    assert any(0 < share < 1 for share in shares)


def test_an_idle_portrait_keeps_its_quality(slow_call: Call):
    with slow_call:
        slow_call.on_shown(lambda _: None)
        until(lambda: slow_call.num_frames.total() > 8)
    assert set(slow_call.num_frames) == {FULL} and slow_call.quality is FULL


def small_frames(call: Call, number: int) -> list[Shown]:
    """Labeled frames with 3/4 of the call's sides, as of Quality.SMALL."""
    ramp = np.linspace(40, 200, 3 * call.size[0] // 4)[None, :, None]
    image = np.broadcast_to(ramp, (3 * call.size[1] // 4, ramp.shape[1], 3)).astype(np.uint8)
    return [Shown(image, call._marker, i, i / 25, None, quality=SMALL) for i in range(number)]


def test_a_recording_keeps_its_size(avatar: Avatar, tmp_path: Path):
    call = Call(avatar, AnimateConfig(model="geometry", size=256))
    recording = Recording(call, tmp_path / "call.mp4")
    for shown in small_frames(call, 3):
        recording._add(shown)
    out = recording.stop()
    assert {frame.shape[1::-1] for frame in video.read_frames(out)} == {call.size}
    assert verify(out).exit_code == 0


def test_a_virtual_camera_keeps_its_size(avatar: Avatar, monkeypatch: pytest.MonkeyPatch):
    sent: list[Image] = []
    device = types.SimpleNamespace(device="/dev/video9", send=sent.append, close=lambda: None)
    monkeypatch.setitem(sys.modules, "pyvirtualcam", types.SimpleNamespace(Camera=lambda **_: device))
    call = Call(avatar, AnimateConfig(model="geometry", size=256))
    camera = VirtualCamera(call)
    for shown in small_frames(call, 3):
        num = len(sent)
        call._frame_callbacks(shown)
        until(lambda num=num: len(sent) > num)
    camera.close()
    assert {frame.shape[1::-1] for frame in sent} == {call.size}
    assert WatermarkDetector().read(sent).payload == call._marker.payload


def test_a_file_as_camera_has_full_quality(small_path: Path, tmp_path: Path):
    arguments = ["live", str(small_path), "--camera", "clip.mp4", "--record", str(tmp_path / "out.mp4")]
    result = CliRunner().invoke(app, [*arguments, "--quality", "warp"])
    assert result.exit_code == 2 and "--quality warp: with --camera, all frames have full quality" in result.stderr


def test_the_option_chooses_the_quality() -> None:
    assert Controls().quality == "auto"
    result = CliRunner().invoke(app, ["live", "photo.jpg", "--quality", "best"])
    assert result.exit_code == 2 and "quality 'best': use one of auto, full, half, warp, small" in result.stderr
