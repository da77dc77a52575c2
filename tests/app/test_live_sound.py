"""Sound that drives a call: synchronized with the clock, delayed like its picture; idle motion without sound."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import queue
import time
import urllib.request
import wave
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from mimik.animation.avatar import Avatar
from mimik.app.cli import app
from mimik.app.live.call import Call, Shown
from mimik.app.live.controls import Controls, Listeners
from mimik.app.live.idling import Transitions
from mimik.app.live.sound import CALL_RATE_HZ, Feeder, LiveSpeech, file_blocks, pipe_blocks
from mimik.app.live.talker import Talker
from mimik.app.serving import Serving
from mimik.config import AnimateConfig, InputError
from mimik.face.tracker import Tracker
from mimik.media.sound import read_sound
from mimik.motion.contact import lip_openings
from mimik.motion.frames import MotionFrame
from mimik.motion.generation.speech import closed_reference

CONFIG = AnimateConfig(model="geometry", smooth=0.0, size=128)
SPEECH = Path(__file__).parents[1] / "fixtures" / "espeak_speech.ogg"
BLOCK = CALL_RATE_HZ // 50


def opening(frame: MotionFrame) -> float:
    """Opening at the middle of the lips, in eye distances."""
    neutral = closed_reference().shape
    return float((lip_openings(neutral + frame.offset) - lip_openings(neutral))[4])


def heard_by(speech: LiveSpeech, samples: np.ndarray) -> list[tuple[float, float, MotionFrame]]:
    """(seconds of sound, time of the frame, frame) for sound in blocks, without a thread."""
    out: list[tuple[float, float, MotionFrame]] = []
    speech._start_s = 0.0
    now = 0.0
    speech._offer = lambda frame, at_s: out.append((now, at_s, frame))
    for start in range(0, len(samples), BLOCK):
        now = (start + BLOCK) / CALL_RATE_HZ
        speech._process(samples[start : start + BLOCK])
    return out


# From sound to motion.


def test_a_frame_is_there_less_than_a_fifth_of_a_second_after_its_sound() -> None:
    samples = np.concatenate(list(read_sound(SPEECH, rate=CALL_RATE_HZ)))
    made = heard_by(LiveSpeech(lambda *_: None), samples)
    late = np.array([now - at_s for now, at_s, _ in made])
    np.testing.assert_allclose([at_s for _, at_s, _ in made], np.arange(len(made)) / 25)
    assert late.max() <= 0.185
    assert len(made) / 25 > len(samples) / CALL_RATE_HZ - 0.25


@pytest.mark.slow
def test_lips_are_shut_in_silence_and_open_with_the_sound() -> None:
    speech = np.concatenate(list(read_sound(SPEECH, rate=CALL_RATE_HZ)))
    begin = int(np.flatnonzero(np.abs(speech) > 0.02)[0])
    quiet = np.zeros(CALL_RATE_HZ, np.float32)
    made = heard_by(LiveSpeech(lambda *_: None), np.concatenate([quiet, speech[begin:], quiet]))
    at_s, gap = np.array([a for _, a, _ in made]), np.array([opening(f) for _, _, f in made])
    assert gap[at_s < 0.85].max() < 0.01
    assert gap[(at_s > 1) & (at_s < 1.8)].max() > 0.05


def test_the_stream_keeps_to_the_clock() -> None:
    speech = LiveSpeech(lambda *_: None)
    speech._start_s, speech._num_samples = 100.0, CALL_RATE_HZ  # after one second of sound
    block = np.ones(BLOCK, np.float32)

    in_time = speech._in_time(block, 101.03)
    assert in_time is block
    nothing = speech._in_time(block[:0], 101.05)
    assert len(nothing) == 0
    after_a_gap = speech._in_time(block, 101.32)
    assert (
        len(after_a_gap) == round(0.32 * CALL_RATE_HZ) and not after_a_gap[:-BLOCK].any() and after_a_gap[-BLOCK:].all()
    )
    in_silence = speech._in_time(block[:0], 101.2)
    assert len(in_silence) == round(0.2 * CALL_RATE_HZ) and not in_silence.any()
    too_fast = speech._in_time(np.ones(CALL_RATE_HZ // 2, np.float32), 101.0)
    assert len(too_fast) == 0
    speech._in_time(block, 105.0)  # the computer was suspended
    assert speech._start_s == pytest.approx(105.0 - 1 - BLOCK / CALL_RATE_HZ)


def test_what_breaks_is_reported_to_the_call(avatar: Avatar) -> None:
    call = Call(avatar, CONFIG, Controls(driver="microphone"))
    with call:
        call.add_sound(np.zeros((2, 2), np.float32))
        for _ in range(1500):
            if call.error is not None:
                break
            time.sleep(0.02)
    assert isinstance(call.error, ValueError)


# Pipes and files.


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_pipe_is_read_whatever_its_pieces(size: int) -> None:
    values = np.random.default_rng(0).integers(-32768, 32767, 2000).astype("<i2")

    class Pipe(io.BytesIO):
        def read1(self, most: int | None = -1) -> bytes:
            return self.read(min(size, most or size))

    got = np.concatenate(list(pipe_blocks(Pipe(values.tobytes()), CALL_RATE_HZ)))
    np.testing.assert_allclose(got, values / 32768, atol=1e-6)


def test_a_pipe_of_another_rate_lasts_as_long() -> None:
    got = np.concatenate(list(pipe_blocks(io.BytesIO(np.zeros(16_000, "<i2").tobytes()), 16_000)))
    assert len(got) == pytest.approx(CALL_RATE_HZ, abs=CALL_RATE_HZ * 0.005)


def test_blocks_are_given_at_the_speed_of_hearing() -> None:
    heard: list[float] = []
    feeder = Feeder(lambda block: heard.append(time.perf_counter()), iter([np.zeros(BLOCK * 5, np.float32)] * 4))
    start = time.perf_counter()
    feeder.start()
    while not feeder.has_ended and time.perf_counter() - start < 60:
        time.sleep(0.005)
    assert len(heard) == 4 and heard[-1] - heard[0] >= 0.24  # three blocks of 100 ms, the first of them at once
    feeder.close()


# Selection of the driver.


def test_points_go_from_one_driver_to_the_next_without_a_jump() -> None:
    start, up = np.zeros((478, 3)), np.ones((478, 3))
    transitions = Transitions(start)
    assert transitions("camera", None, 0.0) is None  # the photo
    assert transitions("camera", up, 0.04) is up  # the camera's first frame immediately
    way = [transitions("idle", start, 0.04 + 0.04 * k) for k in range(1, 20)]
    values = np.array([w[0, 0] for w in way])
    t = (np.arange(1, 20) * 0.04 / 0.6).clip(0, 1)
    np.testing.assert_allclose(values, 1 - t * t * (3 - 2 * t), atol=1e-9)
    assert way[-1] is start


def frames_of(call: Call, faces: list[int | None]) -> list[np.ndarray]:
    images = [np.full((64, 64, 3), 255 if n is None else n, np.uint8) for n in faces]
    return [call._track(image, i / 25).points for i, image in enumerate(images)]


def test_without_a_face_the_person_waits_and_comes_back(
    avatar: Avatar, monkeypatch: pytest.MonkeyPatch, driver_faces: list
) -> None:
    monkeypatch.setattr(Tracker, "track", lambda self, image, **_: None if image[0, 0, 0] == 255 else driver_faces[0])
    call = Call(avatar, CONFIG)
    points = frames_of(call, [0] * 50 + [None] * 150 + [0] * 30)
    steps = np.array([np.abs(b - a).max() for a, b in itertools.pairwise(points[2:])])
    eyes = np.linalg.norm(call.portrait.face.points[33] - call.portrait.face.points[263])
    assert steps.max() < 0.1 * eyes  # a blink is the fastest
    waiting = np.array(points[110:200])
    assert np.ptp(waiting, axis=0).max() > 0.02 * eyes  # it moves
    np.testing.assert_allclose(points[-1], points[45], atol=0.02 * eyes)


def test_nothing_is_drawn_for_nobody_and_a_viewer_sees_life(avatar: Avatar) -> None:
    shown: queue.Queue[Shown] = queue.Queue()
    with Call(avatar, CONFIG) as call:
        time.sleep(0.1)
        assert call._number == 0
        call.on_shown(shown.put)
        frames = [shown.get(timeout=120) for _ in range(5)]
    assert call.error is None and not any(frame.is_spoken for frame in frames)


def test_a_camera_does_not_disturb_a_voice(avatar: Avatar) -> None:
    call = Call(avatar, CONFIG, Controls(driver="microphone"))
    call.offer(np.zeros((64, 64, 3), np.uint8), 0.0)
    assert call._inbox._item is None
    call.set(driver="camera")
    call.offer(np.zeros((64, 64, 3), np.uint8), 0.0)
    assert call._inbox._item is not None
    call.add_sound(np.zeros(BLOCK, np.float32))
    assert call._speech is None
    with pytest.raises(InputError, match="driver 'harp': use one of camera, microphone"):
        call.set(driver="harp")


@pytest.mark.slow
def test_a_file_drives_the_lips_and_is_played(avatar: Avatar, tmp_path: Path) -> None:
    whole = np.concatenate(list(read_sound(SPEECH, rate=CALL_RATE_HZ)))
    begin = int(np.flatnonzero(np.abs(whole) > 0.02)[0])
    path, whole = tmp_path / "speech.wav", whole[begin : begin + CALL_RATE_HZ]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, CALL_RATE_HZ, 0, "NONE", ""))
        file.writeframes((whole * 32767).astype("<i2").tobytes())
    shown: list[Shown] = []
    heard: list[np.ndarray] = []
    call = Talker(avatar, file_blocks(path), CONFIG)
    call.on_sound(lambda samples, at_s: heard.append(samples))
    call.on_shown(shown.append)
    with call:
        deadline = time.perf_counter() + 120
        while not (call.has_ended and len(shown) > 3) and time.perf_counter() < deadline:
            time.sleep(0.02)
    assert call.error is None and any(one.is_spoken for one in shown)
    got = np.concatenate(heard)
    assert np.abs(got).max() == pytest.approx(np.abs(whole).max(), rel=1e-3)
    assert call.claim("call.mp4").settings["live"] == "sound"
    with pytest.raises(InputError, match="this call speaks what --audio supplies"):
        call.set(driver="camera")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--audio", "none.wav"], "none.wav"),
        (["--audio", "-", "--audio-rate", "100"], "--audio-rate 100"),
        (["--audio", str(SPEECH), "--audio-rate", "8000"], "a file states its own rate"),
        (["--audio-rate", "8000"], "also pass --audio -"),
        (["--audio", "-", "--stream", "udp://127.0.0.1:0"], "--stream and --audio are mutually exclusive"),
        (["--audio", "-", "--record", "out.mp4"], "calls are recorded without sound"),
    ],
)
def test_what_cannot_be_spoken_is_reported(small_path: Path, options: list[str], message: str) -> None:
    pytest.importorskip("aiortc", reason="the extra `live` is not installed")
    result = CliRunner().invoke(app, ["live", str(small_path), "--no-open", "--port", "0", *options])
    assert result.exit_code == 2 and message in " ".join(result.output.split())


def test_continuing_sound_does_not_delay_the_end() -> None:
    feeder = Feeder(lambda block: None, iter([np.zeros(CALL_RATE_HZ * 60, np.float32)]))
    feeder.start()
    feeder.close()
    feeder._thread.join(30)
    assert not feeder._thread.is_alive()


# Sent sound.


def test_sound_is_sent_as_late_as_the_picture() -> None:
    from mimik.app.live.viewer import DelayedSound

    delayed = DelayedSound()
    delayed.delay_s = 0.3
    ramp = np.arange(2 * CALL_RATE_HZ, dtype=np.float32)
    out = []
    for k in range(100):
        now = 10 + (k + 1) * 0.02
        delayed.put(ramp[k * BLOCK : (k + 1) * BLOCK], 10 + k * 0.02)
        out.append(delayed.take(now))
    sent = np.concatenate(out)  # sample n is sent at 10.02 + n / CALL_RATE_HZ
    began = int(np.flatnonzero(sent)[0]) - 1
    assert began / CALL_RATE_HZ + 0.02 == pytest.approx(0.3, abs=0.06)
    np.testing.assert_array_equal(sent[began:], ramp[: len(sent) - began])
    for _ in range(100):
        delayed.update_delay(0.5)
    assert delayed.delay_s == pytest.approx(0.5, abs=0.01)
    silent = [delayed.take(12.02 + 0.02 * k) for k in range(5)]
    assert not silent[0].any()  # delayed like the picture


def test_silence_is_not_sent_while_no_sound_drives() -> None:
    aiortc = pytest.importorskip("aiortc", reason="the extra `live` is not installed")
    from mimik.app.live.viewer import Viewer

    callbacks = Listeners()
    call: Any = SimpleNamespace(on_shown=Listeners().add, on_sound=callbacks.add)

    async def run() -> tuple[bool, np.ndarray, bool]:
        viewer = Viewer(call, aiortc)
        first = asyncio.ensure_future(viewer.sound.recv())
        waits = not (await asyncio.wait({first}, timeout=0.1))[0]
        viewer.delayed.delay_s = 0.0
        callbacks(np.full(BLOCK, 0.5, np.float32), time.perf_counter())
        heard = (await asyncio.wait_for(first, 10)).to_ndarray().ravel()
        second = asyncio.ensure_future(viewer.sound.recv())
        waits_again = not (await asyncio.wait({second}, timeout=0.1))[0]
        second.cancel()
        viewer.close()
        return waits, heard, waits_again

    waits, heard, waits_again = asyncio.run(run())
    assert waits and waits_again
    assert heard.tolist() == [int(0.5 * 32767)] * BLOCK


@pytest.mark.slow
def test_a_microphone_over_webrtc(avatar: Avatar) -> None:
    """Sound from a page drives the person, and is sent back."""
    aiortc = pytest.importorskip("aiortc", reason="the extra `live` is not installed")
    pytest.importorskip("uvicorn", reason="the extra `live` is not installed")
    from mimik.app import page
    from mimik.app.live import connections

    said = np.concatenate(list(read_sound(SPEECH, rate=CALL_RATE_HZ)))
    call = Call(avatar, CONFIG)
    sent_at: list[float] = []

    class Microphone(aiortc.MediaStreamTrack):
        kind = "audio"

        async def recv(self):
            if not sent_at:
                sent_at.append(time.perf_counter())
            k = getattr(self, "_k", 0)
            self._k = k + 1
            await asyncio.sleep(max(0.0, sent_at[0] + k * 0.02 - time.perf_counter()))
            values = (said.take(range(k * BLOCK, (k + 1) * BLOCK), mode="wrap") * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(values[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = CALL_RATE_HZ, k * BLOCK, Fraction(1, CALL_RATE_HZ)
            return frame

    async def run(address: str) -> np.ndarray:
        connections._BOUND_TO.set("127.0.0.1")
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        tracks: dict = {}
        peer.on("track", lambda track: tracks.__setitem__(track.kind, track))
        peer.addTransceiver("video", direction="recvonly")
        peer.addTrack(Microphone())
        channel = peer.createDataChannel("controls")
        channel.on("open", lambda: channel.send(json.dumps({"set": {"driver": "microphone"}})))
        await peer.setLocalDescription(await peer.createOffer())
        asked = {"sdp": peer.localDescription.sdp, "role": "camera"}
        post = urllib.request.Request(address.replace("/?", "/offer?"), json.dumps(asked).encode())
        answer = await asyncio.to_thread(lambda: json.load(urllib.request.urlopen(post, timeout=60)))
        await peer.setRemoteDescription(aiortc.RTCSessionDescription(**answer))
        back = [np.zeros(1)]
        begin = time.perf_counter()
        while not (any(spoken) and np.abs(back[-1]).max() > 0.1) and time.perf_counter() - begin < 60:
            frame = await asyncio.wait_for(tracks["audio"].recv(), 20)
            back.append(frame.to_ndarray().ravel() / 32768)
        await peer.close()
        return np.concatenate(back)

    spoken: list[bool] = []
    call.on_shown(lambda shown: spoken.append(shown.is_spoken))
    with call:
        begin = time.perf_counter()
        while not spoken and time.perf_counter() - begin < 20:  # idle motion before speech
            time.sleep(0.05)
        with page.served_page(call, Serving(port=0)) as served:
            back = asyncio.run(run(served.address))
    assert call.error is None and call.controls.driver == "microphone"
    assert any(spoken) and not spoken[0]
    assert np.abs(back).max() > 0.1
