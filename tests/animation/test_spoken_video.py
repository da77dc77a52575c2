"""A rendered video driven by sound: it contains the recording, in sync, and its lips open with the sound."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from mimik.animation.avatar import Avatar
from mimik.face.landmarks import Landmarker
from mimik.media.reading import read_frames
from mimik.media.sound import read_sound

pytestmark = pytest.mark.usefixtures("the_warp_alone", "one_landmarker")
RATE = 16_000
SPEECH = Path(__file__).parents[1] / "fixtures" / "espeak_speech.ogg"
BEGIN_S = (0.5, 1.5)


def two_vowels() -> np.ndarray:
    """2.4 s of sound with a vowel of 0.4 s at each of BEGIN_S."""
    speech = np.concatenate(list(read_sound(SPEECH, rate=RATE)))
    size = round(0.4 * RATE)
    at = int(np.argmax(np.convolve(speech**2, np.ones(size), "valid")))
    out = np.random.default_rng(0).normal(0, 1e-4, round(2.4 * RATE)).astype(np.float32)
    for begin in BEGIN_S:
        out[round(begin * RATE) :][:size] += speech[at : at + size]
    return out


def write(path: Path, samples: np.ndarray) -> Path:
    if path.suffix == ".wav":
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        return path
    codec, rate = {".m4a": ("aac", RATE), ".ogg": ("libopus", 48_000), ".mp3": ("libmp3lame", RATE)}[path.suffix]
    with av.open(str(path), "w", format={".m4a": "mp4"}.get(path.suffix)) as target:
        stream = target.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.codec_context.frame_size or None)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            target.mux(stream.encode(part))
        target.mux(stream.encode(None))
    return path


def envelope(path: Path) -> np.ndarray:
    """Mean square at 1000 Hz, smoothed over 20 ms."""
    samples = np.concatenate(list(read_sound(path, rate=RATE)))
    power = (samples[: len(samples) // 16 * 16].reshape(-1, 16) ** 2).mean(1)
    return np.convolve(power, np.ones(20) / 20, "same")


def lag_ms(a: np.ndarray, b: np.ndarray) -> int:
    """Delay of b relative to a in milliseconds."""
    size = max(len(a), len(b))
    a, b = (np.pad(x, (0, size - len(x))) - x.mean() for x in (a, b))
    return int(np.argmax(np.correlate(b, a, "full"))) - (size - 1)


def test_the_lag_of_a_sound_that_is_moved(tmp_path: Path) -> None:
    samples = two_vowels()
    late = np.concatenate([np.zeros(round(0.07 * RATE), np.float32), samples])
    assert lag_ms(*(envelope(write(tmp_path / f"{i}.wav", x)) for i, x in enumerate((samples, late)))) == 70


@pytest.mark.parametrize("suffix", [pytest.param(".wav", marks=pytest.mark.slow), ".mp3", ".m4a", ".ogg"])
def test_sound_and_lips_are_in_time(suffix: str, avatar: Avatar, landmarker: Landmarker, tmp_path: Path) -> None:
    path = write(tmp_path / f"speech{suffix}", two_vowels())
    out = tmp_path / "out.mp4"
    size, fps = (192, 25) if suffix == ".wav" else (64, 1)
    report = avatar.render(str(path), str(out), size=size, model="geometry", frame="crop", fps=fps)
    assert report.has_audio and abs(lag_ms(envelope(path), envelope(out))) <= 40
    if suffix != ".wav":  # the lips do not depend on the file format
        return
    frames = list(read_frames(out))
    assert len(frames) == 60
    gap = np.array([landmarker.detect(frame)[0].points for frame in frames])
    gap = np.linalg.norm(gap[:, 13, :2] - gap[:, 14, :2], axis=1) / np.linalg.norm(
        gap[:, 33, :2] - gap[:, 263, :2], axis=1
    )
    at_s = np.arange(60) / 25
    shut = np.median(gap[at_s < BEGIN_S[0] - 0.1])
    for begin in BEGIN_S:
        opened = at_s[(gap > shut + 0.04) & (at_s > begin - 0.2)][0] - begin
        assert -0.08 <= opened <= 0.08
    for a, b in ((0.0, BEGIN_S[0] - 0.12), (BEGIN_S[0] + 0.7, BEGIN_S[1] - 0.12)):
        assert np.median(gap[(at_s >= a) & (at_s < b)]) < shut + 0.01
