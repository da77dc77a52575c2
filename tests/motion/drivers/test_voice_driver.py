"""Sound as a driver, from every kind of file with sound; and idle, the driver without a file."""

from __future__ import annotations

import io
import tracemalloc
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from mimik.config import AnimateConfig, InputError, MediaError
from mimik.face.landmarks import Landmarker
from mimik.media.video import VideoWriter
from mimik.motion.drivers.driver import DriverSettings
from mimik.motion.drivers.registry import names, open_driver, suffixes

SPEECH = Path(__file__).parents[2] / "fixtures" / "espeak_speech.ogg"


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    """Args: samples: [N] or [N, C], -1..1."""
    table = samples[:, None] if samples.ndim == 1 else samples
    with wave.open(str(path), "wb") as file:
        file.setnchannels(table.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((table.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return path


def speech() -> np.ndarray:
    with av.open(str(SPEECH)) as container:
        resampler = av.AudioResampler("flt", "mono", 16000)
        return np.concatenate([p.to_ndarray()[0] for f in container.decode(audio=0) for p in resampler.resample(f)])


def offsets(path: Path | str, landmarker: Landmarker, fps: float | None = None, **settings) -> np.ndarray:
    driver = open_driver(path, fps)
    with driver.motion(DriverSettings(landmarker=landmarker, **settings)) as motion:
        return np.array([frame.offset for frame in motion.frames])


@pytest.fixture(scope="module")
def lips_of_speech(landmarker: Landmarker) -> np.ndarray:
    return offsets(SPEECH, landmarker)


@pytest.fixture
def video_with_speech(tmp_path: Path) -> Path:
    path = tmp_path / "spoken.mp4"
    with VideoWriter(path, 64, 64, 25, audio_from=SPEECH) as writer:
        for _ in range(80):
            writer.write(np.full((64, 64, 3), 90, np.uint8))
    return path


def test_a_recording_is_known_by_its_suffix(tmp_path: Path) -> None:
    driver = open_driver(SPEECH)
    assert (driver.kind, driver.fps, driver.sound, driver.is_still) == ("recording", 25.0, SPEECH, False)
    seconds = len(speech()) / 16000
    assert driver.num_frames == pytest.approx(seconds * 25, abs=2)
    assert open_driver(SPEECH, 50.0).fps == 50
    assert {".wav", ".mp3", ".m4a", ".flac", ".ogg"} <= set(suffixes())


def test_the_frames_are_as_many_as_the_sound_is_long(lips_of_speech: np.ndarray) -> None:
    assert len(lips_of_speech) == pytest.approx(len(speech()) / 16000 * 25, abs=2)
    assert lips_of_speech[:, 14, 1].std() > 0.05  # cm: the lower lip moves


def test_the_sound_of_a_video_drives_when_asked_to(
    video_with_speech: Path, landmarker: Landmarker, lips_of_speech: np.ndarray
) -> None:
    assert open_driver(video_with_speech).kind == "video"
    driver = open_driver(video_with_speech, by="sound")
    assert (driver.kind, driver.sound) == ("recording", video_with_speech)
    with driver.motion(DriverSettings(landmarker=landmarker)) as motion:
        lips = np.array([frame.offset for frame in motion.frames])[:, 14, 1]
    num = min(len(lips), len(lips_of_speech))
    assert np.corrcoef(lips[:num], lips_of_speech[:num, 14, 1])[0, 1] > 0.9  # encoded twice


def test_a_video_file_with_sound_only_is_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "memo.mp4"
    with av.open(str(SPEECH)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("aac", rate=16000, layout="mono")
        for frame in source.decode(audio=0):
            frame.pts = None
            for part in av.AudioResampler("fltp", "mono", 16000).resample(frame):
                part.pts = None
                target.mux(stream.encode(part))
        target.mux(stream.encode(None))
    assert open_driver(path).kind == "recording"


@pytest.mark.parametrize(
    ("rate", "channels"), [(8000, 1), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((44100, 2), (48000, 6)))]
)
def test_any_rate_and_any_number_of_channels(
    rate: int, channels: int, tmp_path: Path, landmarker: Landmarker, lips_of_speech: np.ndarray
) -> None:
    samples = speech()
    place = np.arange(int(len(samples) * rate / 16000)) * 16000 / rate
    again = np.interp(place, np.arange(len(samples)), samples)
    table = np.zeros((len(again), channels))
    table[:, 2 if channels == 6 else slice(None)] = again[:, None] if channels < 6 else again  # 5.1: the center channel
    lips = offsets(write_wav(tmp_path / "x.wav", table, rate), landmarker)[:, 14, 1]
    num = min(len(lips), len(lips_of_speech))
    least = 0.6 if rate == 8000 else 0.9  # half of the bands are missing
    assert np.corrcoef(lips[:num], lips_of_speech[:num, 14, 1])[0, 1] > least


def test_clipped_and_noisy_speech_still_moves_the_lips(
    tmp_path: Path, landmarker: Landmarker, lips_of_speech: np.ndarray
) -> None:
    samples = speech()
    rng = np.random.default_rng(0)
    for name, changed in {
        "clipped": (samples * 20).clip(-1, 1),
        "noisy": samples + rng.normal(0, 0.1 * np.abs(samples).std(), len(samples)),
    }.items():
        lips = offsets(write_wav(tmp_path / f"{name}.wav", changed), landmarker)[:, 14, 1]
        num = min(len(lips), len(lips_of_speech))
        assert np.corrcoef(lips[:num], lips_of_speech[:num, 14, 1])[0, 1] > 0.5, name


def test_silence_is_reported_and_leaves_the_lips_at_rest(tmp_path: Path, landmarker: Landmarker) -> None:
    path = write_wav(tmp_path / "quiet.wav", np.zeros(20000))
    with open_driver(path).motion(DriverSettings(landmarker=landmarker)) as motion:
        frames = list(motion.frames)
    assert motion.notes == ["quiet.wav is silent"]
    assert np.abs([frame.offset[14, 1] - frame.offset[13, 1] for frame in frames]).max() < 0.05  # cm


def test_the_sound_of_something_else(tmp_path: Path, small_path: Path, driver) -> None:
    text = tmp_path / "words.wav"
    text.write_text("not a sound at all " * 100)
    nothing = tmp_path / "nothing.wav"
    nothing.write_bytes(b"")
    no_samples = write_wav(tmp_path / "header.wav", np.zeros(0))
    for path, said in (
        (text, r"words\.wav is a text file"),
        (nothing, "empty"),
        (no_samples, "that cannot be decoded"),
    ):
        with pytest.raises(MediaError, match=said):
            open_driver(path)
    for source, said in (
        (driver.path, "has no sound"),
        (small_path, "in an unsupported format; use a WAV"),
        (tmp_path / "x.wav", "not exist"),
    ):
        with pytest.raises(MediaError, match=said):
            open_driver(source, by="sound")


@pytest.mark.slow
def test_seeds_move_the_head_and_not_the_lips(landmarker: Landmarker) -> None:
    turns, lips = [], []
    for seed in (0, 0, 7):
        with open_driver(SPEECH).motion(DriverSettings(landmarker=landmarker, seed=seed)) as motion:
            frames = list(motion.frames)
        turns.append([frame.turn for frame in frames])
        lips.append([frame.offset[14, 1] - frame.offset[13, 1] for frame in frames])
    np.testing.assert_array_equal(turns[0], turns[1])
    assert np.abs(np.subtract(turns[0], turns[2])).max() > np.radians(1)
    assert np.corrcoef(lips[0], lips[2])[0, 1] > 0.99


@pytest.mark.slow
def test_only_unusual_smoothing_smooths(landmarker: Landmarker) -> None:
    raw, usual, calm = (offsets(SPEECH, landmarker, smooth=s)[:, 14, 1] for s in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(raw, usual)
    assert np.abs(np.diff(calm)).mean() < 0.85 * np.abs(np.diff(raw)).mean()


# Idle.


def test_idle_lasts_as_long_as_it_is_asked_to(landmarker: Landmarker) -> None:
    assert names()["idle"] is None
    driver = open_driver("idle")
    assert (driver.kind, driver.path, driver.sound, driver.fps, driver.num_frames) == ("idle", None, None, 25.0, 250)
    driver = open_driver("idle", 10.0, seconds=1.5)
    with driver.motion(DriverSettings(landmarker=landmarker, seed=3)) as motion:
        assert len(list(motion.frames)) == driver.num_frames == 15


@pytest.mark.parametrize("source", [SPEECH, "smile"])
def test_of_other_drivers_the_beginning_is_taken(source: str, landmarker: Landmarker) -> None:
    whole, begin = open_driver(source), open_driver(source, seconds=0.4)
    assert (begin.name, begin.path, begin.sound, begin.kind) == (whole.name, whole.path, whole.sound, whole.kind)
    assert begin.num_frames == 10 and begin.fps == whole.fps
    settings = DriverSettings(landmarker=landmarker)
    with whole.motion(settings) as all_of_it, begin.motion(settings) as motion:
        frames = list(motion.frames)
        for ours, theirs in zip(frames, all_of_it.frames, strict=False):
            np.testing.assert_array_equal(ours.offset, theirs.offset)
    assert len(frames) == 10
    assert open_driver(source, seconds=1000.0).num_frames == whole.num_frames
    with pytest.raises(InputError, match=r"--neutral 1: .* has no frames to choose from"):
        begin.check_options(neutral_s=1.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"drive_by": "smell"}, "--drive-by smell: use one of picture, sound"),
        ({"seconds": 0.0}, r"--seconds 0\.0: use a number from 0\.1 to 36000"),
        ({"seed": -1}, "--seed -1: use an integer from 0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        AnimateConfig(**settings)


@pytest.mark.slow
def test_memory_stays_flat_on_a_long_recording(tmp_path: Path, landmarker: Landmarker) -> None:
    """Memory of a driver after four minutes of sound equals that after less than one."""
    path = tmp_path / "long.wav"
    minute = np.tile(speech(), 20)[: 60 * 16000]
    data = io.BytesIO((minute * 32767).astype("<i2").tobytes())
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        for _ in range(4):
            file.writeframes(data.getvalue())
    with open_driver(path, 1.0).motion(DriverSettings(landmarker=landmarker)) as motion:
        tracemalloc.start()
        held = []
        for number, _ in enumerate(motion.frames):
            if number in (40, 230):
                held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert held[1] < held[0] + 300_000
