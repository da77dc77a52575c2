"""Synthetic pictures and clips with known content."""

from __future__ import annotations

import functools
import hashlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from conftest import write_clip
from mimik.config import MediaError
from mimik.media import video

RED, GREEN, BLUE, SKIN = (220, 30, 40), (30, 200, 60), (40, 50, 210), (224, 172, 140)


def flat(color, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def corners(width: int = 64, height: int = 48) -> np.ndarray:
    """Four uniform quarters: red and green on top, blue and skin below."""
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2], rgb[: height // 2, width // 2 :] = RED, GREEN
    rgb[height // 2 :, : width // 2], rgb[height // 2 :, width // 2 :] = BLUE, SKIN
    return rgb


def gray_of(index: int) -> int:
    return 20 + 12 * index


def index_of(rgb: np.ndarray) -> int:
    return round((float(rgb.mean()) - 20) / 12)


def indices(frames) -> list[int]:
    return [index_of(frame) for frame in frames]


def make_video(
    path: Path,
    frames,
    *,
    pts=None,
    time_base=Fraction(1, 1000),
    rate=25,
    codec="libx264",
    pix_fmt="yuv420p",
    options=None,
    rotation=None,
    mirror=False,
    matrix=1,
    full_range=False,
    aspect=None,
    format=None,
) -> Path:
    """Frames at presentation times pts (units of time_base; None: a constant rate), tagged with a color matrix."""
    frames = list(frames)
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {"crf": "4", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = time_base if pts is not None else Fraction(1, rate)
        stream.colorspace, stream.color_range = matrix, 2 if full_range else 1
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=mirror)
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(
                format=pix_fmt, dst_colorspace=5 if matrix == 2 else matrix, dst_color_range=2 if full_range else 1
            )
            frame.pts = index if pts is None else pts[index]
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def click_track(seconds: float, click_s: float, rate: int = 48000) -> np.ndarray:
    """[1, N] int16: faint noise with one loud burst of 5 ms."""
    samples = np.random.default_rng(0).integers(-300, 300, (1, round(seconds * rate)), dtype=np.int16)
    samples[:, round(click_s * rate) : round((click_s + 0.005) * rate)] = 30000
    return samples


def make_clip(
    path: Path,
    *,
    num_frames: int = 50,
    fps: int = 25,
    codec: str | None = "aac",
    video_start_s: float = 0.0,
    audio_start_s: float = 0.0,
    click_s: float = 1.0,
) -> Path:
    """A video with sound; click_s is relative to the start of the sound."""
    rate = 48000
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "bf": "0"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        picture.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream(codec, rate=rate, layout="mono")
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(flat(gray_of(index % 15)), "rgb24")
            frame.pts, frame.time_base = round((video_start_s + index / fps) * 1000), Fraction(1, 1000)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        resampler = av.AudioResampler(format=sound.format, layout="mono", rate=rate, frame_size=sound.frame_size or 960)
        frame = av.AudioFrame.from_ndarray(click_track(num_frames / fps, click_s), format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(audio_start_s * rate)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    return path


def sound_packets(path: Path) -> list[tuple[float, str]]:
    """(time, hash) of each sound packet."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [(float(packet.pts * packet.time_base), hashlib.sha256(bytes(packet)).hexdigest()) for packet in packets]


def click_time(path: Path) -> float:
    """Time of the burst, by the timestamps of the file."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.abs(frame.to_ndarray().astype(np.float64)).reshape(-1)
            loud /= 32768 if frame.format.name.startswith("s16") else 1
            if (loud > 0.4).any():
                return float(frame.pts * frame.time_base) + int(np.argmax(loud > 0.4)) / frame.sample_rate
    raise AssertionError("no click")


write_all = functools.partial(write_clip, quality=18)


def refused(call, *words: str) -> str:
    with pytest.raises(MediaError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message and message.endswith(".") and ";" in message
    for word in words:
        assert word in message, message
    return message


def first(path: Path, **options) -> np.ndarray:
    frames = video.read_frames(path, **options)
    frame = next(frames)
    frames.close()
    return frame
