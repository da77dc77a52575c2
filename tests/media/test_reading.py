"""containers.py and reading.py: content of a video, and its frames at a constant rate."""

from __future__ import annotations

import logging
import os
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import BLUE, RED, SKIN, corners, first, flat, gray_of, indices, make_clip, make_video, refused
from PIL import Image

from mimik.media import containers, reading, video


def shown_slowly(starts_ms: list[int], last_ms: int, fps: int) -> list[int]:
    """For each instant, search all frames for the newest one that has started (within the tolerance)."""
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
    # Float rounding decides ties between a timestamp and an instant; avoid them by an offset of a microsecond.
    got = list(reading._at_constant_rate([(s - 1e-6 * (s > 0), d, i) for s, d, i in timed], Fraction(fps)))
    want = shown_slowly(starts_ms, last_ms, fps)
    assert got[: len(want)] == want[: len(got)] and abs(len(got) - len(want)) <= 1


@given(st.sampled_from([23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120]), st.integers(1, 300), st.floats(0, 0.001))
def test_a_constant_rate_stays_as_it_is(fps, count, jitter_s):
    """Also if the container rounds timestamps to milliseconds, up or down."""
    rate = containers.exact_rate(fps)
    timed = [(max(0.0, float(i / rate) + (jitter_s if i % 2 else -jitter_s)), float(1 / rate), i) for i in range(count)]
    assert list(reading._at_constant_rate(timed, rate)) == list(range(count))


def test_variable_frame_rate(tmp_path):
    pts = [0, 40, 80, 280, 300, 320, 500, 540]  # ms
    clip = make_video(tmp_path / "a.mp4", [flat(gray_of(i)) for i in range(8)], pts=pts)
    got = indices(video.read_frames(clip, fps=25))
    assert got == [0, 1, 2, 2, 2, 2, 2, 3, 5, 5, 5, 5, 5, 6, 7]
    assert indices(video.read_frames(clip, fps=10))[:6] == [0, 2, 2, 4, 5, 6]


@pytest.mark.parametrize(
    ("name", "start_ms"), [("a.mp4", 0), ("a.mkv", 0), ("a.mkv", 1500), ("a.ts", 700), ("a.avi", 0)]
)
def test_frames_count_from_the_first(tmp_path, name, start_ms):
    pts = [start_ms + 40 * i for i in range(12)]
    rate = {"pts": pts} if name != "a.avi" else {}
    clip = make_video(tmp_path / name, [flat(gray_of(i)) for i in range(12)], **rate)
    info = video.probe(clip)
    assert (info.width, info.height, info.rotation, info.has_audio) == (64, 48, 0, False)
    assert info.fps == pytest.approx(25, abs=0.1)
    assert info.duration_s == pytest.approx(0.48, abs=0.05) and abs(info.num_frames - 12) <= 1
    assert indices(video.read_frames(clip, fps=25)) == list(range(12))
    assert indices(video.read_frames(clip, fps=12.5)) == list(range(0, 12, 2))
    assert indices(video.read_frames(clip, fps=50)) == sorted([*range(12), *range(12)])


@pytest.mark.parametrize("fps", [12.5, 25, 50])
def test_every_nth_frame(tmp_path, fps):
    clip = make_video(tmp_path / "a.mp4", [flat(gray_of(i)) for i in range(12)])
    every = indices(video.read_frames(clip, fps=fps))
    for n in (2, 3, 5):
        assert indices(map(np.asarray, video.decode_frames(clip, fps=fps, every=n))) == every[::n]


def test_skimming_shows_an_earlier_frame_where_one_is_skipped(tmp_path):
    options = {"bf": "2", "b_strategy": "0", "b-pyramid": "none", "sc_threshold": "0"}
    clip = make_video(tmp_path / "a.mp4", [flat(gray_of(i)) for i in range(13)], options=options)
    got = indices(map(np.asarray, video.decode_frames(clip, fps=25, skim=True)))
    decoded = sorted(set(got))
    assert decoded[0] == 0 and 5 <= len(decoded) <= 7
    assert got == [max(shown for shown in decoded if shown <= number) for number in range(len(got))]


def test_rough_frames_differ_little(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.normal(waves(128, 96 + 2 * i)[2 * i :], 12).clip(0, 255).astype(np.uint8) for i in range(9)]
    options = {"crf": "36", "bf": "2", "b_strategy": "0", "b-pyramid": "none", "sc_threshold": "0"}
    clip = make_video(tmp_path / "a.mp4", frames, options=options)
    exact, rough = (list(map(np.asarray, video.decode_frames(clip, rough=rough))) for rough in (False, True))
    off = np.array([np.abs(a.astype(int) - b).mean() for a, b in zip(exact, rough, strict=True)])
    assert 0 < off.max() < 3 and (off == 0).sum() >= 3


def resampled(frame: reading.VideoFrame, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The frame under matrix [3, 3], from pixels of the result to pixels of the frame."""
    planes, to_rgb = frame.planes()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    edge = {"flags": flags, "borderMode": cv2.BORDER_REPLICATE}
    return cv2.transform(
        cv2.merge([cv2.warpAffine(plane.pixels, plane.place @ matrix, size, **edge) for plane in planes]), to_rgb
    )


def waves(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    shades = [127 + 90 * np.sin(x / 17 + y / 23 + phase) for phase in (0.0, 1.0, 2.5)]
    return np.dstack(shades).astype(np.uint8)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 2, 5])
def test_planes_are_the_frame_that_is_converted(tmp_path, matrix, full_range):
    pix = "yuvj420p" if full_range else "yuv420p"
    clip = make_video(tmp_path / "a.mp4", [waves(128, 96)], matrix=matrix, full_range=full_range, pix_fmt=pix)
    (frame,) = video.decode_frames(clip)
    got, usual = (resampled(frame, np.eye(3), (128, 96)), np.asarray(frame))
    off, usually_off = (np.abs(one.astype(int) - waves(128, 96)).mean() for one in (got, usual))
    assert frame.shape == (96, 128, 3) and off < usually_off + 0.2 and off < 3


def test_planes_have_the_places_of_the_displayed_frame(tmp_path):
    """A video of oblong pixels, reduced: places are those of the frame that read_frames yields."""
    clip = make_video(tmp_path / "a.mp4", [waves(192, 144)], aspect=Fraction(4, 3), options={"crf": "4"})
    (frame,) = video.decode_frames(clip, max_side=128)
    got, usual = (
        cv2.cvtColor(one, cv2.COLOR_RGB2GRAY).astype(int)
        for one in (resampled(frame, np.eye(3), frame.shape[1::-1]), np.asarray(frame))
    )
    assert frame.shape == (72, 128, 3) and np.std(got - usual) < 1  # the mean differs: swscale truncates


@pytest.mark.parametrize(("key", "value"), [("pix_fmt", "yuv444p"), ("rotation", 90), ("matrix", 9)])
def test_unusual_frames_have_no_planes(tmp_path, key, value):
    (frame,) = video.decode_frames(make_video(tmp_path / "a.mp4", [corners()], **{key: value}))
    assert frame.planes() is None and frame.shape == np.asarray(frame).shape


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
        return [round(s, 3) for s, _, _ in reading._timed_frames([Frame(p) for p in pts], 0.04, Path("a"), None)]

    assert starts([50, 54, 58]) == [0, 0.04, 0.08]
    assert starts([None, None, None]) == [0, 0.04, 0.08]
    assert starts([0, 4, 3, 8]) == [0, 0.04, 0.08]  # a decreasing timestamp is omitted
    assert not caplog.records
    assert starts([0, 4, 10_000_000, 10_000_004]) == [0, 0.04, 0.08, 0.12]
    assert starts([1000, 1004, 0, 4]) == [0, 0.04, 0.08, 0.12]
    assert len(caplog.records) == 2


def test_a_slow_video_and_a_gap_are_not_reported_as_cut_off(caplog):
    class Frame:
        time_base = Fraction(1)

        def __init__(self, pts, duration):
            self.pts, self.duration = pts, duration

    def read(frames, told_s):
        caplog.clear()
        assert len(list(reading._timed_frames(frames, 1.0, Path("a"), told_s))) == len(frames)
        return [record.getMessage() for record in caplog.records if "cut off" in record.getMessage()]

    slides = [Frame(10 * i, 10) for i in range(3)]
    assert read(slides, 30.0) == []
    assert len(read(slides[:2], 30.0)) == 1
    assert read([Frame(0, 1), Frame(1, 1), Frame(1_000_000, 1)], 1_000_001.0) == []


def test_a_rate_that_the_container_does_not_know(tmp_path):
    """Browsers record WebM with 1000 frames/s in the header."""
    clip = make_video(
        tmp_path / "a.mkv", [flat(gray_of(i)) for i in range(12)], pts=[33 * i for i in range(12)], rate=1000
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
def test_color_matrices_and_ranges(tmp_path, pix_fmt, full_range, matrix):
    for name, color in {"red": RED, "skin": SKIN}.items():
        pix = "yuvj" + pix_fmt[3:] if full_range else pix_fmt
        clip = make_video(tmp_path / f"{name}.mp4", [flat(color)], matrix=matrix, full_range=full_range, pix_fmt=pix)
        assert np.abs(first(clip).astype(int) - color).max() <= 3


def test_untagged_colors(tmp_path):
    """As in players: BT.601 for small pictures."""
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
    """PQ code 0.5 is 92 nits (SMPTE ST 2084), which is brighter than middle gray on a screen with 203 nits white."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"level": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        stream.colorspace, stream.color_primaries, stream.color_trc, stream.color_range = 9, 9, 16, 1
        gray = av.VideoFrame.from_ndarray(flat((128,) * 3), "rgb24")
        frame = gray.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1)
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
    noisy = [np.clip(flat(gray_of(i)) + rng.integers(-6, 7, (48, 64, 3)), 0, 255).astype(np.uint8) for i in range(12)]
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
    clip.write_bytes(clip.read_bytes()[:-300])  # without the index at its end, the file is unreadable
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
    pictures = [Image.fromarray(flat(gray_of(i))) for i in range(4)]
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


def test_of_a_truncated_file_the_readable_share_is_reported(tmp_path, caplog):
    options = {"crf": "4", "preset": "ultrafast", "g": "1"}
    frames = [flat((gray_of(i % 18),) * 3) for i in range(100)]
    whole = make_video(tmp_path / "a.mkv", frames, options=options)
    assert len(list(video.read_frames(whole))) == 100 and not caplog.records
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 5])
    read = len(list(video.read_frames(cut)))
    assert 20 < read < 60
    said = [record.getMessage() for record in caplog.records if "could be read" in record.getMessage()]
    assert said == [f"cut.mkv is cut off or damaged: only {read} % of it could be read, {read / 25:.1f} of 4.0 seconds"]


def test_a_truncated_matroska_file_with_sound_is_reported(tmp_path, caplog):
    whole = make_clip(tmp_path / "a.mkv", num_frames=100, audio_start_s=3.0)  # the sound ends 3 s after the picture
    assert video.probe(whole).num_frames == 100  # 175 by the duration of the file
    assert len(list(video.read_frames(whole))) == 100 and not caplog.records
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 6])
    read = len(list(video.read_frames(cut)))
    assert 10 < read < 90
    said = [record.getMessage() for record in caplog.records if "could be read" in record.getMessage()]
    assert said == [f"cut.mkv is cut off or damaged: only {read} % of it could be read, {read / 25:.1f} of 4.0 seconds"]
