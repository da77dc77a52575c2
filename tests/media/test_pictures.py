"""pictures.py: detection of file formats, and reading and writing of pictures."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import BLUE, GREEN, RED, SKIN, click_track, corners, flat, make_video, refused
from PIL import Image, ImageCms

from mimik.config import MediaError
from mimik.media import pictures, video

STILLS = ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "a.gif", "a.ppm", "a.jp2", "a.avif", "a.heic"]


@pytest.mark.parametrize("name", STILLS)
def test_still_pictures_are_detected_by_content(tmp_path, name):
    Image.fromarray(corners()).save(tmp_path / name)
    wrongly_named = (tmp_path / name).rename(tmp_path / "a.mp4")
    assert video.kind(wrongly_named) == "image"
    assert video.read_image(wrongly_named).shape == (48, 64, 3)
    refused(lambda: video.probe(wrongly_named), "still picture", "use a video")
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
    refused(lambda: video.read_image(clip), "is a video", "use a picture")


def test_files_that_are_neither(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "notes.txt").write_text("hello\n" * 500)
    (tmp_path / "notes.mp4").write_text("hello\n" * 500)
    (tmp_path / "noise.jpg").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile '/etc/passwd'\n")
    (tmp_path / "photo.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(12) + b"mif1" + bytes(500))
    cases = {
        tmp_path: "is a folder; use",
        tmp_path / "no.mp4": "does not exist",
        tmp_path / "empty.mp4": "is empty (0 bytes)",
        tmp_path / "notes.txt": "in an unsupported format",
        tmp_path / "notes.mp4": "is a text file",
        tmp_path / "noise.jpg": "in an unsupported format",
        tmp_path / "list.m3u8": "in an unsupported format",
        tmp_path / "list.mp4": "is a text file",
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


def exif_by_hand(stored: np.ndarray, orientation: int) -> np.ndarray:
    """The positions of row 0 and column 0 by the EXIF standard."""
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
    gray = np.where(np.arange(64) < 32, 0, 255).astype(np.uint8)[None].repeat(48, 0)
    if mode == "LAB":
        lab = np.zeros((48, 64, 3), np.uint8)
        lab[..., 0] = gray
        image = Image.fromarray(lab, "LAB")
    elif mode == "PA":
        image = Image.fromarray(gray).convert("P").convert("PA")
    else:
        image = Image.fromarray(gray).convert("RGB").convert(mode)
    if mode in ("PA", "YCbCr"):  # no file keeps PA; Pillow 12.3 does not read the YCbCr that it writes
        rgb = pictures.to_rgb(image)
    else:
        path = tmp_path / ("a.tiff" if mode in ("CMYK", "LAB") else "a.png")
        image.save(path)
        rgb = video.read_image(path)
    assert rgb.shape == (48, 64, 3)
    assert np.abs(rgb.astype(int) - gray[..., None]).max() <= 2


def test_sixteen_bits_and_floats_are_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16)[None].repeat(48, 0)
    want = np.rint(ramp / 257)[..., None]
    Image.fromarray(ramp).save(tmp_path / "gray.png")
    Image.fromarray(ramp).save(tmp_path / "gray.tiff")
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


def test_cmyk_jpeg_and_color_profiles(tmp_path):
    Image.fromarray(flat((0, 160, 240))).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(video.read_image(tmp_path / "cmyk.jpg").astype(int) - (0, 160, 240)).max() <= 3

    # A profile with linear light: half the light is 128 in the file and 188 in sRGB.
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
    start = time.process_time()
    refused(lambda: video.read_image(tmp_path / "huge.png"), "150 megapixels (15000x10000)", "at most 100")
    refused(lambda: video.read_image(tmp_path / "bomb.png"), "more than 100 megapixels")
    refused(lambda: video.read_image(tmp_path / "one_bit.png"), "120 megapixels")
    assert time.process_time() - start < 0.5


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
