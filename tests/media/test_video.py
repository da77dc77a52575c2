"""video.py against pictures and clips that are drawn here, so that what must come out is known by hand."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import struct
import time
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from mimik.config import MediaError
from mimik.media import video

RED, GREEN, BLUE, SKIN = (220, 30, 40), (30, 200, 60), (40, 50, 210), (224, 172, 140)


def flat(color, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def corners(width: int = 64, height: int = 48) -> np.ndarray:
    """Four flat quarters: red and green on top, blue and skin below."""
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2], rgb[: height // 2, width // 2 :] = RED, GREEN
    rgb[height // 2 :, : width // 2], rgb[height // 2 :, width // 2 :] = BLUE, SKIN
    return rgb


def grey_of(index: int) -> int:
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
    """Frames at presentation times pts (units of time_base; None: a constant rate), tagged with a colour matrix."""
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
    """[1, N] int16: faint noise and one loud burst of 5 ms."""
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
    """A video with sound; click_s counts from the start of the sound."""
    rate = 48000
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "bf": "0"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        picture.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream(codec, rate=rate, layout="mono")
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(flat(grey_of(index % 15)), "rgb24")
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
    """When the burst is heard, by the timestamps of the file."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.abs(frame.to_ndarray().astype(np.float64)).reshape(-1)
            loud /= 32768 if frame.format.name.startswith("s16") else 1
            if (loud > 0.4).any():
                return float(frame.pts * frame.time_base) + int(np.argmax(loud > 0.4)) / frame.sample_rate
    raise AssertionError("no click")


def write_all(path: Path, frames, fps: float = 25, **options) -> Path:
    frames = list(frames)
    with video.open_writer(path, frames[0].shape[1], frames[0].shape[0], fps, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return path


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


# ---------------------------------------------------------------------------------------------------------------------
# What a file is.


STILLS = ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "a.gif", "a.ppm", "a.jp2", "a.avif", "a.heic"]


@pytest.mark.parametrize("name", STILLS)
def test_still_pictures_are_told_by_content(tmp_path, name):
    Image.fromarray(corners()).save(tmp_path / name)
    wrongly_named = (tmp_path / name).rename(tmp_path / "a.mp4")
    assert video.kind(wrongly_named) == "image"
    assert video.read_image(wrongly_named).shape == (48, 64, 3)
    refused(lambda: video.probe(wrongly_named), "still picture", "give a video")
    refused(lambda: next(video.read_frames(wrongly_named)), "still picture")


def test_moving_pictures_are_videos(tmp_path):
    frames = [Image.fromarray(flat(color)) for color in (RED, GREEN, BLUE)]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=40)
        assert video.kind(tmp_path / name) == "video"
    frames[0].save(tmp_path / "pages.tiff", save_all=True, append_images=frames[1:])
    assert video.kind(tmp_path / "pages.tiff") == "image"
    clip = make_video(tmp_path / "a.mp4", [flat(RED)] * 3).rename(tmp_path / "a.jpg")
    assert video.kind(clip) == "video"
    refused(lambda: video.read_image(clip), "is a video", "give a picture")


def test_files_that_are_neither(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "notes.txt").write_text("hello\n" * 500)
    (tmp_path / "notes.mp4").write_text("hello\n" * 500)
    (tmp_path / "noise.jpg").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile '/etc/passwd'\n")
    (tmp_path / "photo.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(12) + b"mif1" + bytes(500))
    cases = {
        tmp_path: "is a folder; give",
        tmp_path / "no.mp4": "does not exist",
        tmp_path / "empty.mp4": "is empty (0 bytes)",
        tmp_path / "notes.txt": "no format that can be read",
        tmp_path / "notes.mp4": "no format that can be read",
        tmp_path / "noise.jpg": "no format that can be read",
        tmp_path / "list.m3u8": "no format that can be read",
        tmp_path / "list.mp4": "no format that can be read",
        tmp_path / "photo.heic": "convert it to JPEG or PNG",
    }
    for path, words in cases.items():
        for call in (video.kind, video.probe, video.read_image, lambda path: next(video.read_frames(path))):
            refused(lambda call=call, path=path: call(path), str(path), words)


@pytest.mark.parametrize(("name", "codec"), [("a.wav", "pcm_s16le"), ("a.mp3", "libmp3lame"), ("a.m4a", "aac")])
def test_sound_only_is_no_video(tmp_path, name, codec):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(click_track(0.2, 0.1), format="s16", layout="mono")
        frame.sample_rate = 48000
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48000, frame_size=stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    for call in (video.kind, video.probe, video.read_image):
        refused(lambda call=call: call(tmp_path / name), "sound but no picture")


# ---------------------------------------------------------------------------------------------------------------------
# Pictures.


def exif_by_hand(stored: np.ndarray, orientation: int) -> np.ndarray:
    """What the EXIF standard says about where row 0 and column 0 are shown."""
    return {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation](stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.jpg"])
def test_exif_orientation(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = corners()
    options = {"quality": 95, "subsampling": 0} if name == "a.jpg" else {}
    Image.fromarray(stored).save(tmp_path / name, exif=exif, **options)
    got = video.read_image(tmp_path / name)
    want = exif_by_hand(stored, orientation)
    assert got.shape == want.shape and got.dtype == np.uint8
    assert np.abs(got.astype(int) - want).max() <= (3 if name == "a.jpg" else 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_pillow_modes(tmp_path, mode):
    grey = np.where(np.arange(64) < 32, 0, 255).astype(np.uint8)[None].repeat(48, 0)
    if mode == "LAB":
        lab = np.zeros((48, 64, 3), np.uint8)
        lab[..., 0] = grey
        image = Image.fromarray(lab, "LAB")
    elif mode == "PA":
        image = Image.fromarray(grey).convert("P").convert("PA")
    else:
        image = Image.fromarray(grey).convert("RGB").convert(mode)
    if mode in ("PA", "YCbCr"):  # no file keeps PA; Pillow 12.3 does not read the YCbCr that it writes
        rgb = video._to_rgb(image)
    else:
        path = tmp_path / ("a.tiff" if mode in ("CMYK", "LAB") else "a.png")
        image.save(path)
        rgb = video.read_image(path)
    assert rgb.shape == (48, 64, 3)
    assert np.abs(rgb.astype(int) - grey[..., None]).max() <= 2


def test_sixteen_bits_and_floats_are_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16)[None].repeat(48, 0)
    want = np.rint(ramp / 257)[..., None]
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    Image.fromarray(ramp).save(tmp_path / "grey.tiff")
    Image.fromarray(ramp.astype(">u2")).save(tmp_path / "big_endian.tiff")
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "int32.tiff")
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray((ramp / 257).astype(np.float32)).save(tmp_path / "float255.tiff")
    for path in tmp_path.iterdir():
        assert np.abs(video.read_image(path) - want).max() <= 1, path.name

    # 16-bit RGB, written by hand because Pillow cannot.
    rows = b"".join(b"\0" + ramp[:1].astype(">u2").T.repeat(3, 1).tobytes() for _ in range(48))
    (tmp_path / "rgb.png").write_bytes(png_file(64, 48, 16, 2, rows))
    assert np.abs(video.read_image(tmp_path / "rgb.png") - want).max() <= 1


def png_file(width: int, height: int, bits: int, color: int, rows: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.dstack([flat(RED), np.full((48, 64), 255, np.uint8)])
    rgba[:, :20, 3], rgba[:, 20:40, 3] = 0, 51  # 0 %, 20 %
    Image.fromarray(rgba).save(tmp_path / "a.png")
    rgb = video.read_image(tmp_path / "a.png")
    assert rgb[0, 0].tolist() == [255, 255, 255] and rgb[0, 50].tolist() == list(RED)
    assert np.abs(rgb[0, 30] - (0.2 * np.array(RED) + 0.8 * 255)).max() <= 1

    Image.fromarray(flat(RED)).quantize(4).save(tmp_path / "p.png", transparency=0)
    assert video.read_image(tmp_path / "p.png")[0, 0].tolist() == [255, 255, 255]


def test_cmyk_jpeg_and_colour_profiles(tmp_path):
    Image.fromarray(flat((0, 160, 240))).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(video.read_image(tmp_path / "cmyk.jpg").astype(int) - (0, 160, 240)).max() <= 3

    # A profile in which the stored numbers mean other colours: linear light. 188 in sRGB is half the light, 128 stored.
    linear = linear_srgb_profile()
    Image.fromarray(flat((128, 128, 128))).save(tmp_path / "linear.png", icc_profile=linear)
    assert np.abs(video.read_image(tmp_path / "linear.png").astype(int) - 188).max() <= 2

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(flat(SKIN)).save(tmp_path / "srgb.png", icc_profile=srgb)
    assert np.abs(video.read_image(tmp_path / "srgb.png").astype(int) - SKIN).max() <= 1
    Image.fromarray(flat(SKIN)).save(tmp_path / "bad.png", icc_profile=b"no profile at all")
    assert video.read_image(tmp_path / "bad.png")[0, 0].tolist() == list(SKIN)
    Image.fromarray(flat(SKIN)).convert("L").save(tmp_path / "mixed.png", icc_profile=srgb)
    assert np.ptp(video.read_image(tmp_path / "mixed.png")) == 0


def linear_srgb_profile() -> bytes:
    """The sRGB profile with its tone curves replaced by gamma 1 (an empty curve is the identity: ICC.1, 10.6)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(struct.unpack(">I", data[128:132])[0]):
        name, offset, size = struct.unpack(">4sII", data[132 + 12 * index : 144 + 12 * index])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            data[offset : offset + size] = b"curv" + bytes(size - 4)
    return bytes(data)


@pytest.mark.filterwarnings("error")
def test_pixel_bombs_are_refused_from_the_header(tmp_path):
    (tmp_path / "huge.png").write_bytes(png_file(15000, 10000, 8, 2, b""))
    (tmp_path / "bomb.png").write_bytes(png_file(60000, 60000, 8, 2, b""))
    Image.new("1", (12000, 10000)).save(tmp_path / "one_bit.png")
    start = time.perf_counter()
    refused(lambda: video.read_image(tmp_path / "huge.png"), "150 megapixels (15000x10000)", "at most 100")
    refused(lambda: video.read_image(tmp_path / "bomb.png"), "more than 100 megapixels")
    refused(lambda: video.read_image(tmp_path / "one_bit.png"), "120 megapixels")
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff", "a.gif", "a.bmp"])
def test_damaged_pictures(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for length in (len(data) // 2, len(data) * 4 // 5, 40, 12, 4):
        (tmp_path / name).write_bytes(data[:length])
        refused(lambda: video.read_image(tmp_path / name), str(tmp_path / name))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_no_damage_escapes_as_another_error(data):
    name = data.draw(st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP", "GIF"]))
    stored = io.BytesIO()
    Image.fromarray(corners(16, 12)).save(stored, name)
    broken = bytearray(stored.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"mimik_fuzz_{os.getpid()}"
    try:
        path.write_bytes(broken)
        rgb = video.read_image(path)
        assert rgb.dtype == np.uint8 and rgb.ndim == 3
    except MediaError:
        pass
    finally:
        path.unlink()


def test_write_image(tmp_path):
    rgb = corners()
    for name, tolerance in (("a.png", 0), ("a.jpg", 6), ("a.JPEG", 6), ("a.webp", 12)):
        video.write_image(tmp_path / name, rgb)
        assert np.abs(video.read_image(tmp_path / name)[10, 10].astype(int) - rgb[10, 10]).max() <= tolerance
    refused(lambda: video.write_image(tmp_path / "a.bmp", rgb), ".png, .jpg")
    refused(lambda: video.write_image(tmp_path / "no" / "a.png", rgb), "its folder does not exist")
    refused(lambda: video.write_image(tmp_path / "a.png", rgb[:4]), "64x4")
    with pytest.raises(AssertionError):
        video.write_image(tmp_path / "a.png", rgb.astype(np.float32))


# ---------------------------------------------------------------------------------------------------------------------
# Reading videos.


def shown_slowly(starts_ms: list[int], last_ms: int, fps: int) -> list[int]:
    """For each instant, look through all frames for the newest that has come (up to the tolerance)."""
    tolerance = min(Fraction(1, 4 * fps), Fraction(5, 1000))
    shown, k = [], 0
    while k == 0 or Fraction(k, fps) + tolerance < Fraction(starts_ms[-1] + last_ms, 1000):
        instant = Fraction(k, fps) + tolerance
        shown.append(max(i for i, start in enumerate(starts_ms) if Fraction(start, 1000) <= instant))
        k += 1
    return shown


@given(st.lists(st.integers(1, 400), max_size=30), st.integers(1, 400), st.sampled_from([1, 7, 24, 25, 30, 60, 240]))
def test_resampling_equals_a_slow_reference(gaps_ms, last_ms, fps):
    starts_ms = [sum(gaps_ms[:i]) for i in range(len(gaps_ms) + 1)]
    ends_ms = [*starts_ms[1:], starts_ms[-1] + last_ms]
    timed = [(s / 1000, (e - s) / 1000, i) for i, (s, e) in enumerate(zip(starts_ms, ends_ms, strict=True))]
    # Ties between a timestamp and an instant are decided by rounding in floats; step aside by a microsecond.
    got = list(video._at_constant_rate([(s - 1e-6 * (s > 0), d, i) for s, d, i in timed], Fraction(fps)))
    want = shown_slowly(starts_ms, last_ms, fps)
    assert got[: len(want)] == want[: len(got)] and abs(len(got) - len(want)) <= 1


@given(st.sampled_from([23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120]), st.integers(1, 300), st.floats(0, 0.001))
def test_a_constant_rate_stays_as_it_is(fps, count, jitter_s):
    """Also when the container rounds the timestamps to milliseconds, up or down."""
    rate = video._exact_rate(fps)
    timed = [(max(0.0, float(i / rate) + (jitter_s if i % 2 else -jitter_s)), float(1 / rate), i) for i in range(count)]
    assert list(video._at_constant_rate(timed, rate)) == list(range(count))


def test_variable_frame_rate(tmp_path):
    pts = [0, 40, 80, 280, 300, 320, 500, 540]  # ms
    clip = make_video(tmp_path / "a.mp4", [flat(grey_of(i)) for i in range(8)], pts=pts)
    got = indices(video.read_frames(clip, fps=25))
    assert got == [0, 1, 2, 2, 2, 2, 2, 3, 5, 5, 5, 5, 5, 6, 7]
    assert indices(video.read_frames(clip, fps=10))[:6] == [0, 2, 2, 4, 5, 6]


@pytest.mark.parametrize(
    ("name", "start_ms"), [("a.mp4", 0), ("a.mkv", 0), ("a.mkv", 1500), ("a.ts", 700), ("a.avi", 0)]
)
def test_frames_count_from_the_first(tmp_path, name, start_ms):
    pts = [start_ms + 40 * i for i in range(12)]
    rate = {"pts": pts} if name != "a.avi" else {}
    clip = make_video(tmp_path / name, [flat(grey_of(i)) for i in range(12)], **rate)
    info = video.probe(clip)
    assert (info.width, info.height, info.rotation, info.has_audio) == (64, 48, 0, False)
    assert info.fps == pytest.approx(25, abs=0.1)
    assert info.duration_s == pytest.approx(0.48, abs=0.05) and abs(info.num_frames - 12) <= 1
    assert indices(video.read_frames(clip, fps=25)) == list(range(12))
    assert indices(video.read_frames(clip, fps=12.5)) == list(range(0, 12, 2))
    assert indices(video.read_frames(clip, fps=50)) == sorted([*range(12), *range(12)])


def test_repeated_frames_are_arrays_of_their_own(tmp_path):
    clip = make_video(tmp_path / "a.mp4", [flat(RED)] * 2)
    frames = list(video.read_frames(clip, fps=100))
    assert len({frame.ctypes.data for frame in frames}) == len(frames) == 8
    assert all(frame.flags.c_contiguous and frame.flags.writeable for frame in frames)


def test_timestamps_that_jump(tmp_path, caplog):
    class Frame:
        time_base, duration = Fraction(1, 100), 4

        def __init__(self, pts):
            self.pts = pts

    def starts(pts):
        return [round(s, 3) for s, _, _ in video._timed_frames([Frame(p) for p in pts], 0.04, Path("a"))]

    assert starts([50, 54, 58]) == [0, 0.04, 0.08]
    assert starts([None, None, None]) == [0, 0.04, 0.08]
    assert starts([0, 4, 3, 8]) == [0, 0.04, 0.08]  # a step back is left out
    assert not caplog.records
    assert starts([0, 4, 10_000_000, 10_000_004]) == [0, 0.04, 0.08, 0.12]
    assert starts([1000, 1004, 0, 4]) == [0, 0.04, 0.08, 0.12]
    assert len(caplog.records) == 2


def test_a_rate_that_the_container_does_not_know(tmp_path):
    """Browsers record WebM with 1000 frames a second in the header."""
    clip = make_video(
        tmp_path / "a.mkv", [flat(grey_of(i)) for i in range(12)], pts=[33 * i for i in range(12)], rate=1000
    )
    assert video.probe(clip).fps == pytest.approx(1000 / 33, rel=0.01)
    assert indices(video.read_frames(clip)) == list(range(12))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [False, True])
def test_display_matrix(tmp_path, degrees, mirror):
    stored = corners()
    clip = make_video(tmp_path / "a.mp4", [stored] * 2, rotation=degrees, mirror=mirror, matrix=1)
    want = np.rot90(stored, degrees // 90)  # counter-clockwise
    want = want[:, ::-1] if mirror else want
    got = first(clip)
    assert got.shape == want.shape
    assert np.abs(got.astype(int) - want)[4:12, 4:12].max() <= 4
    assert np.abs(got.astype(int) - want)[-12:-4, 4:12].max() <= 4
    info = video.probe(clip)
    assert (info.height, info.width) == want.shape[:2]
    if not mirror:
        assert info.rotation == -degrees % 360


def test_square_pixels_and_max_side(tmp_path):
    clip = make_video(tmp_path / "a.mp4", [corners(96, 72)] * 2, aspect=Fraction(4, 3), rotation=90)
    info = video.probe(clip)
    assert (info.width, info.height) == (72, 128)
    assert first(clip).shape == (128, 72, 3)
    assert first(clip, max_side=64).shape == (64, 36, 3)
    assert first(clip, max_side=500).shape == (128, 72, 3)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 9])
def test_colour_matrices_and_ranges(tmp_path, pix_fmt, full_range, matrix):
    for name, color in {"red": RED, "skin": SKIN}.items():
        pix = "yuvj" + pix_fmt[3:] if full_range else pix_fmt
        clip = make_video(tmp_path / f"{name}.mp4", [flat(color)], matrix=matrix, full_range=full_range, pix_fmt=pix)
        assert np.abs(first(clip).astype(int) - color).max() <= 3


def test_untagged_colours(tmp_path):
    """As players do: BT.601 for small pictures."""
    clip = make_video(tmp_path / "a.mp4", [flat(RED)], matrix=2)
    assert np.abs(first(clip).astype(int) - RED).max() <= 3


def test_ten_bits_and_alpha(tmp_path):
    lossless = {"level": "3"}
    clip = make_video(tmp_path / "a.mkv", [flat(SKIN)], codec="ffv1", pix_fmt="yuv420p10le", options=lossless)
    assert np.abs(first(clip).astype(int) - SKIN).max() <= 2
    with av.open(str(tmp_path / "b.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
        rgba = np.dstack([flat(RED), np.zeros((48, 64), np.uint8)])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, "rgba")))
        container.mux(stream.encode(None))
    assert first(tmp_path / "b.mov").min() == 255


@pytest.mark.slow
def test_hdr_becomes_sdr(tmp_path):
    """PQ code 0.5 is 92 nits (SMPTE ST 2084); on a screen whose white is 203 nits that is brighter than middle grey."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"level": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        stream.colorspace, stream.color_primaries, stream.color_trc, stream.color_range = 9, 9, 16, 1
        grey = av.VideoFrame.from_ndarray(flat((128,) * 3), "rgb24")
        frame = grey.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1)
        frame.color_primaries, frame.color_trc = 9, 16
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    got = first(path)
    assert np.ptp(got) <= 2 and 150 < got.mean() < 220


def test_resolution_that_changes(tmp_path):
    one = make_video(tmp_path / "1.ts", [flat(RED, 64, 48)] * 3, pts=[0, 40, 80])
    two = make_video(tmp_path / "2.ts", [flat(BLUE, 32, 24)] * 3, pts=[120, 160, 200])
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    frames = list(video.read_frames(both, fps=25))
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    assert frames[0][0, 0, 0] > 200 and frames[-1][0, 0, 2] > 190


def test_damage_in_the_middle_is_skipped(tmp_path, caplog):
    rng = np.random.default_rng(0)
    noisy = [np.clip(flat(grey_of(i)) + rng.integers(-6, 7, (48, 64, 3)), 0, 255).astype(np.uint8) for i in range(12)]
    options = {"crf": "10", "g": "1", "preset": "ultrafast"}
    clip = make_video(tmp_path / "a.mkv", noisy, pts=[40 * i for i in range(12)], codec="libx264", options=options)
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for pos, size in packets[5:7]:
        data[pos + 12 : pos + size] = bytes(size - 12)
    clip.write_bytes(data)
    caplog.set_level(logging.WARNING, "mimik.media.video")
    got = indices(video.read_frames(clip, fps=25))
    assert len(got) == 12 and got[:5] == [0, 1, 2, 3, 4] and got[8:] == [8, 9, 10, 11]


def test_a_file_that_was_cut_off_gives_what_it_has(tmp_path):
    frames = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(20)]
    clip = make_video(tmp_path / "a.mp4", frames, options={"crf": "20", "g": "1", "movflags": "+faststart"})
    with (
        av.open(str(clip), "r") as source,
        av.open(str(tmp_path / "b.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(data[: len(data) * 6 // 10])
    assert 5 <= len(list(video.read_frames(tmp_path / "b.mp4"))) <= 15
    clip.write_bytes(clip.read_bytes()[:-300])  # without its index, which stands at the end, nothing is left
    refused(lambda: next(video.read_frames(clip)), str(clip), "damaged")


def test_a_video_without_frames(tmp_path):
    clip = make_video(tmp_path / "a.mkv", [corners()] * 2, options={"crf": "4", "preset": "ultrafast", "g": "1"})
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                data[packet.pos + 4 : packet.pos + packet.size] = b"\xff" * (packet.size - 4)
    clip.write_bytes(data)
    refused(lambda: video.probe(clip), "no frame that can be decoded")
    refused(lambda: list(video.read_frames(clip)), "no frame that can be decoded")


def test_a_closed_generator_closes_the_file(tmp_path):
    clip = make_video(tmp_path / "a.mp4", [flat(RED)] * 30)

    def is_open() -> bool:
        folder = Path("/proc/self/fd")
        return any(os.path.realpath(entry) == str(clip) for entry in folder.iterdir())

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    frames = video.read_frames(clip)
    next(frames)
    assert is_open()
    frames.close()
    assert not is_open()
    video.probe(clip)
    assert not is_open()


def test_animations_keep_their_timing(tmp_path):
    pictures = [Image.fromarray(flat(grey_of(i))) for i in range(4)]
    for name in ("a.gif", "a.webp", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        pictures[0].save(
            tmp_path / name, save_all=True, append_images=pictures[1:], duration=[40, 120, 40, 80], **options
        )
        info = video.probe(tmp_path / name)
        assert (info.width, info.height, info.num_frames) == (64, 48, 4)
        assert info.duration_s == pytest.approx(0.28) and info.fps == pytest.approx(4 / 0.28)
        assert indices(video.read_frames(tmp_path / name, fps=25)) == [0, 1, 1, 1, 2, 3, 3]
        assert first(tmp_path / name, max_side=32).shape == (24, 32, 3)


# ---------------------------------------------------------------------------------------------------------------------
# Writing videos.


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *((name, "video") for name in ("a.mp4", "a.MOV", "a.m4v", "a.webm", "a.gif", "a.webp")),
        *((name, "image") for name in ("a.png", "a.jpg", "a.JPEG")),
        *((name, "frames") for name in ("frames", "x/%05d.webp", "%d.png")),
    ],
)
def test_output_kind(path, kind):
    assert video.output_kind(path) == kind


@pytest.mark.parametrize(
    ("path", "keeps"),
    [
        *((name, True) for name in ("a.webm", "a.mov", "a.webp", "a.png", "frames", "f/%d.png", "%05d.webp")),
        *((name, False) for name in ("a.mp4", "a.m4v", "a.mkv", "a.gif", "a.jpg", "%05d.jpg")),
    ],
)
def test_what_can_be_transparent(path, keeps):
    assert video.keeps_alpha(path) == keeps


def test_webm_is_vp9_with_the_colours_that_were_given(tmp_path):
    with video.open_writer(tmp_path / "a.webm", 65, 48, 12.5) as writer:
        for _ in range(5):
            writer.write(np.full((48, 65, 3), SKIN, np.uint8))
    with av.open(str(tmp_path / "a.webm")) as container:
        assert container.streams.video[0].codec_context.name == "vp9" and not container.streams.audio
    frames = list(video.read_frames(tmp_path / "a.webm"))
    assert len(frames) == 5 and frames[0].shape == (48, 64, 3)
    assert video.probe(tmp_path / "a.webm").fps == pytest.approx(12.5)
    assert np.abs(frames[2].astype(int) - SKIN).max() <= 6


@pytest.mark.parametrize("name", ["a.mov", "%d.png", "%d.webp"])
def test_alpha_is_kept(tmp_path, name):
    frame = np.full((48, 64, 4), (*SKIN, 255), np.uint8)
    frame[:, :32, 3] = 0
    frame[:, 40:, 3] = 128
    with video.open_writer(tmp_path / name, 64, 48, 25, alpha=True) as writer:
        writer.write(frame)
    if name == "a.mov":
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video[0].codec_context.codec_tag == "ap4h"
            got = next(container.decode(video=0)).to_ndarray(format="rgba")
        assert (
            np.abs(got[..., 3].astype(int) - frame[..., 3])[:, [*range(30), *range(34, 38), *range(44, 64)]].max() <= 3
        )
        assert np.abs(got[..., :3].astype(int) - SKIN).max() <= 4
    else:
        got = np.array(Image.open(tmp_path / (name % 0)).convert("RGBA"))
        np.testing.assert_array_equal(got, frame)  # the colours of what is transparent, too


def test_outputs_that_are_refused(tmp_path):
    for name in ("a.avi", "a.mp3", "%05d.bmp", "%d-%d.png", "%s.png"):
        refused(lambda name=name: video.output_kind(tmp_path / name), ".png")
        refused(lambda name=name: video.open_writer(tmp_path / name, 64, 48, 25), ".png")
    refused(lambda: video.output_kind("a.avi"), ".mp4, .m4v, .mov, .mkv, .webm, .gif or .webp", "frames/%05d.webp")
    refused(lambda: video.open_writer(tmp_path / "a.png", 64, 48, 25), "one picture")
    for name in ("a.mp4", "a.gif", "a.webp"):
        refused(lambda name=name: video.open_writer(tmp_path / "no" / name, 64, 48, 25), "its folder does not exist")
        refused(lambda name=name: video.open_writer(tmp_path / name, 8, 48, 25), "8x48", "16 to")
        refused(lambda name=name: video.open_writer(tmp_path / name, 64, 20000, 25), "64x20000")
        refused(lambda name=name: video.open_writer(tmp_path / name, 64, 48, float("nan")), "nan frames a second")
    refused(lambda: video.open_writer(tmp_path / "a.mp4", 64, 48, 25, audio_from=tmp_path / "no.mp3"), "does not exist")


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.m4v", "a.gif", "a.webp", "frames", "f/%03d.webp"])
@pytest.mark.parametrize("fps", [25, 30000 / 1001])
def test_written_frames_come_back(tmp_path, name, fps):
    path = write_all(tmp_path / name, [flat(grey_of(i)) for i in range(15)], fps)
    if name in ("frames", "f/%03d.webp"):
        files = sorted((path if name == "frames" else path.parent).iterdir())
        assert files[0].name == ("00000.png" if name == "frames" else "000.webp")
        assert [index_of(video.read_image(file)) for file in files] == list(range(15))
        assert video.read_image(files[3])[0, 0].tolist() == [grey_of(3)] * 3
        return
    info = video.probe(path)
    assert info.fps == pytest.approx(fps, rel=0.01) and abs(info.duration_s - 15 / fps) < 0.011
    assert indices(video.read_frames(path, fps=fps)) == list(range(15))


@pytest.mark.parametrize("color", [RED, GREEN, BLUE, SKIN, (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)])
def test_colours_survive_h264(tmp_path, color):
    path = write_all(tmp_path / "a.mp4", [flat(color)] * 3, quality=10)
    assert np.abs(first(path).astype(int) - color).max() <= 3
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
        assert frame.format.name == "yuv420p"
        # By hand, ITU-R BT.709: Y = 16 + 219 (0.2126 R + 0.7152 G + 0.0722 B).
        luma = 16 + 219 * np.dot((0.2126, 0.7152, 0.0722), np.array(color) / 255)
        assert abs(frame.to_ndarray()[:48].mean() - luma) <= 1.5


def test_gif_colours_of_a_face(tmp_path):
    ramp = (np.linspace(0.4, 1.0, 64)[None, :, None] * SKIN).astype(np.uint8).repeat(48, 0)
    got = first(write_all(tmp_path / "a.gif", [ramp] * 3))
    assert (
        np.abs(got.astype(float).reshape(6, 8, 8, 8, 3).mean((1, 3)) - ramp.reshape(6, 8, 8, 8, 3).mean((1, 3))).max()
        < 6
    )


def test_gif_thins_out_what_it_cannot_time(tmp_path):
    path = write_all(tmp_path / "a.gif", [flat(grey_of(i % 15)) for i in range(30)], fps=100)
    info = video.probe(path)
    assert info.num_frames == 15 and info.duration_s == pytest.approx(0.3, abs=0.02)


def test_gif_longer_than_the_palette_sample(tmp_path):
    path = write_all(tmp_path / "a.gif", [flat(grey_of(i % 3)) for i in range(60)])
    assert indices(video.read_frames(path)) == [i % 3 for i in range(60)]


@pytest.mark.parametrize(("width", "height"), [(65, 49), (64, 49), (65, 48), (17, 17)])
def test_odd_sizes_lose_one_row_or_column(tmp_path, width, height):
    path = write_all(
        tmp_path / "a.mp4", [corners(64, 48)[:height, :width] if width < 64 else flat(RED, width, height)] * 2
    )
    info = video.probe(path)
    assert (info.width, info.height) == (width // 2 * 2, height // 2 * 2)
    assert write_all(tmp_path / "a.gif", [flat(RED, width, height)] * 2) and first(tmp_path / "a.gif").shape[1] == width


def test_index_stands_at_the_front(tmp_path):
    data = write_all(tmp_path / "a.mp4", [corners()] * 5).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_write_checks_its_frames(tmp_path):
    for wrong in (flat(RED, 32, 48), flat(RED).astype(np.float32), flat(RED)[..., 0]):
        with pytest.raises(AssertionError), video.open_writer(tmp_path / "a.mp4", 64, 48, 25) as writer:
            writer.write(wrong)


def test_views_of_other_arrays_can_be_written(tmp_path):
    path = write_all(tmp_path / "a.mp4", [corners()[:, ::-1]] * 3)
    assert np.abs(first(path)[4:12, 4:12].astype(int) - GREEN).max() <= 4


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp"])
def test_nothing_written(tmp_path, name):
    writer = video.open_writer(tmp_path / name, 64, 48, 25)
    refused(writer.close, "got no frame")
    writer.close()


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "frames"])
def test_a_full_disk(tmp_path, name):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    noise = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(120)]
    target = tmp_path / name
    if name == "frames":
        target.mkdir()
        target = target / "00000.png"
    target.symlink_to("/dev/full")
    path = tmp_path / name
    message = refused(lambda: write_all(path, noise), "cannot be written", "space")
    assert "No space left" in message


def test_close_after_an_error_is_quiet(tmp_path):
    writer = video.open_writer(tmp_path / "frames", 64, 48, 25)
    writer.write(flat(RED))
    (tmp_path / "frames" / "00001.png").mkdir()
    refused(lambda: writer.write(flat(RED)), "cannot be written")
    writer.close()
    writer.close()


def test_an_error_of_the_caller_passes_through(tmp_path):
    for name in ("a.mp4", "a.gif", "a.webp", "frames"):
        with pytest.raises(KeyError), video.open_writer(tmp_path / name, 64, 48, 25) as writer:
            writer.write(flat(RED))
            raise KeyError("caller")
        writer.close()


# ---------------------------------------------------------------------------------------------------------------------
# Sound.


@pytest.mark.parametrize(
    ("source", "codec", "target"),
    [
        ("a.mp4", "aac", "o.mp4"),
        ("a.mkv", "aac", "o.mov"),
        ("a.mkv", "libopus", "o.mp4"),
        ("a.mkv", "libmp3lame", "o.mp4"),
        ("a.mkv", "ac3", "o.m4v"),
        ("a.mkv", "alac", "o.mp4"),
        ("a.mov", "pcm_s16le", "o.mov"),
    ],
)
def test_sound_is_copied_bit_by_bit(tmp_path, source, codec, target):
    clip = make_clip(tmp_path / source, codec=codec)
    out = write_all(tmp_path / target, video.read_frames(clip), audio_from=clip)
    before, after = sound_packets(clip), sound_packets(out)
    # A few packets may begin after the last frame; all others are there, in order, at their time. Raw samples are
    # cut into other packets by other muxers.
    if codec != "pcm_s16le":
        assert len(before) - 4 <= len(after) <= len(before)
        assert [sha for _, sha in after] == [sha for _, sha in before[: len(after)]]
        assert max(abs(a[0] - b[0]) for a, b in zip(after, before, strict=False)) < 0.002
    assert abs(click_time(out) - click_time(clip)) < 0.002
    info = video.probe(out)
    assert info.has_audio and info.duration_s == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("codec", ["aac", "libopus", "flac", "pcm_s16le"])
@pytest.mark.parametrize(("video_start_s", "audio_start_s"), [(0.5, 0.0), (0.0, 0.4), (1.0, 0.3)])
def test_lips_and_sound_stay_together(tmp_path, codec, video_start_s, audio_start_s):
    """The click is heard as long after the first frame as in the source, copied or transcoded."""
    clip = make_clip(tmp_path / "a.mkv", codec=codec, video_start_s=video_start_s, audio_start_s=audio_start_s)
    source_click_s = click_time(clip)
    out = write_all(tmp_path / "o.mp4", video.read_frames(clip), audio_from=clip)
    assert click_time(out) == pytest.approx(source_click_s - video_start_s, abs=0.004)
    assert source_click_s == pytest.approx(audio_start_s + 1.0, abs=0.01)
    with av.open(str(out)) as container:
        assert container.streams.video[0].start_time == 0
        end_s = max(time_s for time_s, _ in sound_packets(out))
        assert end_s < 2.0


@pytest.mark.parametrize("codec", ["aac", "libopus"])
def test_lips_and_sound_stay_together_in_matroska(tmp_path, codec):
    """It has no edit lists: what counts is the time from the first frame that is shown."""
    clip = make_clip(tmp_path / "a.mkv", codec=codec, video_start_s=0.5)
    out = write_all(tmp_path / "o.mkv", video.read_frames(clip), audio_from=clip)
    with av.open(str(out)) as container:
        start_s = float(next(container.decode(video=0)).time)
        assert container.streams.audio[0].codec_context.name == "aac"
    assert start_s < 0.03  # the encoder's run-in comes before the first frame
    assert click_time(out) - start_s == pytest.approx(click_time(clip) - 0.5, abs=0.004)


def test_sound_ends_with_the_video(tmp_path):
    clip = make_clip(tmp_path / "a.mp4")
    for codec in ("aac", "flac"):
        clip = make_clip(tmp_path / "a.mkv", codec=codec)
        out = write_all(tmp_path / "o.mp4", [flat(RED)] * 20, audio_from=clip)
        with av.open(str(out)) as container:
            stream = container.streams.audio[0]
            assert abs(float(stream.duration * stream.time_base) - 0.8) < 0.03
            assert abs(container.duration / av.time_base - 0.8) < 0.03


def test_sound_of_a_sound_file(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(click_track(2, 0.7), format="s16", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    out = write_all(tmp_path / "o.mp4", [flat(RED)] * 50, audio_from=tmp_path / "a.wav")
    assert click_time(out) == pytest.approx(0.7, abs=0.004)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"


def test_broken_sound_does_not_break_the_video(tmp_path, caplog):
    clip = make_clip(tmp_path / "a.mkv", codec="flac")
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    for pos, size in packets[3:-1]:
        data[pos + 10 : pos + size] = b"\x55" * (size - 10)
    clip.write_bytes(data)
    assert len(list(video.read_frames(write_all(tmp_path / "o.mp4", [flat(RED)] * 50, audio_from=clip)))) == 50
    clip.write_bytes(data[: len(data) // 3])
    assert len(list(video.read_frames(write_all(tmp_path / "o.mp4", [flat(RED)] * 50, audio_from=clip)))) == 50


def test_sound_that_fails_midway_is_dropped_with_a_warning(tmp_path, caplog):
    clip = make_clip(tmp_path / "a.mp4")
    with video.VideoWriter(tmp_path / "o.mp4", 64, 48, 25, audio_from=clip) as writer:
        for index in range(30):
            if index == 10:

                def fail(*_):
                    raise av.error.InvalidDataError(1094995529, "made up")
                    yield

                writer._sound.packets = fail
            writer.write(flat(RED))
    assert "made up" in caplog.text and len(list(video.read_frames(tmp_path / "o.mp4"))) == 30


def test_sound_that_the_container_refuses_is_dropped_with_a_warning(tmp_path, caplog, monkeypatch):
    def refuse(*_):
        raise ValueError("made up")

    clip = make_clip(tmp_path / "a.mp4", num_frames=30)
    monkeypatch.setattr(video._CopiedSound, "add_to", refuse)
    info = video.probe(write_all(tmp_path / "o.mp4", [flat(RED)] * 3, audio_from=clip))
    assert (info.num_frames, info.has_audio) == (3, False) and "made up" in caplog.text


def test_a_silent_source_and_a_gif_with_sound(tmp_path, caplog):
    silent = make_video(tmp_path / "a.mp4", [flat(RED)] * 3)
    assert not video.probe(write_all(tmp_path / "o.mp4", [flat(RED)] * 3, audio_from=silent)).has_audio
    caplog.set_level(logging.INFO, "mimik.media.video")
    write_all(tmp_path / "o.gif", [flat(RED)] * 3, audio_from=silent)
    assert "cannot hold sound" in caplog.text
