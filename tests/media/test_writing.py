"""writing.py: each output format, read back, and errors."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from media_files import BLUE, GREEN, RED, SKIN, corners, first, flat, gray_of, index_of, indices, refused, write_all
from PIL import Image

from mimik.media import video


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


def test_webm_is_vp9_with_the_colors_that_were_given(tmp_path):
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
        np.testing.assert_array_equal(got, frame)  # including colors of transparent pixels


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
        refused(lambda name=name: video.open_writer(tmp_path / name, 64, 48, float("nan")), "nan frames per second")
    refused(lambda: video.open_writer(tmp_path / "a.mp4", 64, 48, 25, audio_from=tmp_path / "no.mp3"), "does not exist")


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.m4v", "a.gif", "a.webp", "frames", "f/%03d.webp"])
@pytest.mark.parametrize("fps", [25, 30000 / 1001])
def test_written_frames_come_back(tmp_path, name, fps):
    path = write_all(tmp_path / name, [flat(gray_of(i)) for i in range(15)], fps)
    if name in ("frames", "f/%03d.webp"):
        files = sorted((path if name == "frames" else path.parent).iterdir())
        assert files[0].name == ("00000.png" if name == "frames" else "000.webp")
        assert [index_of(video.read_image(file)) for file in files] == list(range(15))
        assert video.read_image(files[3])[0, 0].tolist() == [gray_of(3)] * 3
        return
    info = video.probe(path)
    assert info.fps == pytest.approx(fps, rel=0.01) and abs(info.duration_s - 15 / fps) < 0.011
    assert indices(video.read_frames(path, fps=fps)) == list(range(15))


@pytest.mark.parametrize("color", [RED, GREEN, BLUE, SKIN, (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)])
def test_colors_survive_h264(tmp_path, color):
    path = write_all(tmp_path / "a.mp4", [flat(color)] * 3, quality=10)
    assert np.abs(first(path).astype(int) - color).max() <= 3
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
        assert frame.format.name == "yuv420p"
        # By hand, ITU-R BT.709: Y = 16 + 219 (0.2126 R + 0.7152 G + 0.0722 B).
        luma = 16 + 219 * np.dot((0.2126, 0.7152, 0.0722), np.array(color) / 255)
        assert abs(frame.to_ndarray()[:48].mean() - luma) <= 1.5


def test_gif_colors_of_a_face(tmp_path):
    ramp = (np.linspace(0.4, 1.0, 64)[None, :, None] * SKIN).astype(np.uint8).repeat(48, 0)
    got = first(write_all(tmp_path / "a.gif", [ramp] * 3))
    assert (
        np.abs(got.astype(float).reshape(6, 8, 8, 8, 3).mean((1, 3)) - ramp.reshape(6, 8, 8, 8, 3).mean((1, 3))).max()
        < 6
    )


def test_gif_thins_out_what_it_cannot_time(tmp_path):
    path = write_all(tmp_path / "a.gif", [flat(gray_of(i % 15)) for i in range(30)], fps=100)
    info = video.probe(path)
    assert info.num_frames == 15 and info.duration_s == pytest.approx(0.3, abs=0.02)


def test_gif_longer_than_the_palette_sample(tmp_path):
    path = write_all(tmp_path / "a.gif", [flat(gray_of(i % 3)) for i in range(130)])
    assert indices(video.read_frames(path)) == [i % 3 for i in range(130)]


def test_h264_frames_are_not_cut_into_slices(tmp_path):
    with video.open_writer(tmp_path / "a.mp4", 256, 256, 25) as writer:
        writer.write(np.full((256, 256, 3), SKIN, np.uint8))
    assert b"sliced_threads=0" in (tmp_path / "a.mp4").read_bytes()  # x264 notes its settings in the file


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
    refused(writer.close, "received no frame")
    writer.close()


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "frames"])
def test_a_full_disk(tmp_path, name):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    count = 120 if name == "a.mp4" else 8  # x264 has a lookahead of some frames
    noise = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(count)]
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
