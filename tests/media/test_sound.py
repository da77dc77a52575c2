"""sound.py: reading samples, and sound copied into a video."""

from __future__ import annotations

import logging
import struct
import tracemalloc
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import RED, click_time, click_track, flat, make_clip, make_video, refused, sound_packets, write_all
from PIL import Image

from made_files import write_sound
from mimik.media import sound, video


@pytest.mark.parametrize(
    ("source", "codec", "target"),
    [
        ("a.mp4", "aac", "o.mp4"),
        ("a.mkv", "aac", "o.mov"),
        ("a.mkv", "libopus", "o.mp4"),
        ("a.mkv", "libmp3lame", "o.mp4"),
        ("a.mkv", "alac", "o.mov"),
        ("a.mov", "pcm_s16le", "o.mov"),
    ],
)
def test_sound_is_copied_bit_by_bit(tmp_path, source, codec, target):
    clip = make_clip(tmp_path / source, codec=codec)
    out = write_all(tmp_path / target, video.read_frames(clip), audio_from=clip)
    before, after = sound_packets(clip), sound_packets(out)
    # A few packets may start after the last frame; all others are present, in order, at their time. Muxers divide raw
    # samples into different packets.
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
    """The click is at the same time after the first frame as in the source, copied or transcoded."""
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
    """Matroska has no edit lists: the time is relative to the first displayed frame."""
    clip = make_clip(tmp_path / "a.mkv", codec=codec, video_start_s=0.5)
    out = write_all(tmp_path / "o.mkv", video.read_frames(clip), audio_from=clip)
    with av.open(str(out)) as container:
        start_s = float(next(container.decode(video=0)).time)
        assert container.streams.audio[0].codec_context.name == "aac"
    assert start_s < 0.03  # the encoder's priming is before the first frame
    assert click_time(out) - start_s == pytest.approx(click_time(clip) - 0.5, abs=0.004)


@pytest.mark.parametrize(
    ("codec", "target", "expected"),
    [("ac3", "o.mp4", "aac"), ("eac3", "o.m4v", "aac"), ("ac3", "o.mov", "aac"), ("alac", "o.mp4", "aac")]
    + [(codec, "o.webm", "opus") for codec in ("aac", "libopus")],
)
def test_sound_becomes_what_browsers_play(tmp_path, codec, target, expected):
    clip = make_clip(tmp_path / "a.mkv", codec=codec)
    out = write_all(tmp_path / target, video.read_frames(clip), audio_from=clip)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == expected
        start_s = float(next(container.decode(video=0)).time)
    assert click_time(out) - start_s == pytest.approx(1.0, abs=0.02)
    assert video.probe(out).duration_s == pytest.approx(2.0, abs=0.06)
    assert video.holds_sound(out)


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
    monkeypatch.setattr(sound.CopiedSound, "add_to", refuse)
    info = video.probe(write_all(tmp_path / "o.mp4", [flat(RED)] * 3, audio_from=clip))
    assert (info.num_frames, info.has_audio) == (3, False) and "made up" in caplog.text


def test_a_silent_source_and_a_gif_with_sound(tmp_path, caplog):
    silent = make_video(tmp_path / "a.mp4", [flat(RED)] * 3)
    assert not video.probe(write_all(tmp_path / "o.mp4", [flat(RED)] * 3, audio_from=silent)).has_audio
    caplog.set_level(logging.INFO, "mimik.media.writing")
    write_all(tmp_path / "o.gif", [flat(RED)] * 3, audio_from=silent)
    assert "cannot contain sound" in caplog.text


# Samples.


def tone(seconds: float, rate: int, hertz: float = 440.0, amplitude: float = 0.5) -> np.ndarray:
    """[1, N]."""
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)[None]


def heard(path: Path, **options) -> np.ndarray:
    return np.concatenate(list(sound.read_sound(path, **options)))


@pytest.mark.parametrize(("rate", "layout"), [(8000, "mono"), (16000, "mono"), (44100, "stereo"), (48000, "5.1")])
def test_a_tone_is_read_as_the_tone_at_another_rate(tmp_path, rate, layout):
    num_channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    path = write_sound(tmp_path / "a.wav", np.repeat(tone(1.3, rate), num_channels, 0), rate, layout=layout)
    read = heard(path)
    assert read.dtype == np.float32 and len(read) == pytest.approx(1.3 * 16000, abs=16)
    expected = tone(1.3, 16000)[0][: len(read)]
    middle = slice(400, -400)
    gain = float(read[middle] @ expected[: len(read)][middle]) / float(expected[middle] @ expected[middle])
    assert np.abs(read[: len(expected)] / gain - expected)[middle].max() < 0.01
    if layout != "5.1":  # the mixer determines the level of a downmix of six channels
        assert gain == pytest.approx(1.0, abs=0.01)
    info = sound.probe_sound(path)
    assert (info.sample_rate, info.num_channels) == (rate, num_channels)
    assert info.duration_s == pytest.approx(1.3, abs=0.001)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.m4a", "aac"), ("a.mp3", "libmp3lame"), ("a.ogg", "libopus"), ("a.flac", "flac")]
)
def test_each_format_is_read_in_time(tmp_path, name, codec):
    path = write_sound(tmp_path / name, click_track(1.5, 0.9) / 32768, 48000, codec=codec)
    read = heard(path)
    assert int(np.argmax(np.abs(read) > 0.4)) / 16000 == pytest.approx(0.9, abs=0.004)
    assert len(read) / 16000 == pytest.approx(1.5, abs=0.06)  # encoded sound ends with a complete packet
    assert sound.probe_sound(path).duration_s == pytest.approx(len(read) / 16000, abs=0.06)


@pytest.mark.parametrize(("video_start_s", "audio_start_s"), [(0.5, 0.0), (0.0, 0.4), (1.0, 0.3)])
def test_time_counts_from_the_first_frame_of_a_video(tmp_path, video_start_s, audio_start_s):
    clip = make_clip(tmp_path / "a.mkv", video_start_s=video_start_s, audio_start_s=audio_start_s)
    read = heard(clip)
    click_s = audio_start_s + 1.0 - video_start_s
    assert int(np.argmax(np.abs(read) > 0.4)) / 16000 == pytest.approx(click_s, abs=0.004)
    if audio_start_s > video_start_s:
        assert np.abs(read[: round(0.9 * 16000 * (audio_start_s - video_start_s))]).max() == 0  # silence before it
    assert sound.probe_sound(clip).duration_s > len(read) / 16000 - 0.06  # Matroska has the end of the longest stream


def test_blocks_are_even_and_hold_no_more_than_was_asked_for(tmp_path):
    path = write_sound(tmp_path / "a.wav", tone(2.05, 16000), 16000)
    blocks = list(sound.read_sound(path, block_s=0.1))
    assert [len(block) for block in blocks] == [1600] * 20 + [800]
    np.testing.assert_array_equal(np.concatenate(blocks), heard(path, block_s=7.0))


def test_memory_does_not_grow_with_the_length(tmp_path):
    path = write_sound(tmp_path / "a.wav", tone(40, 16000), 16000)  # 2.6 MB of float32
    tracemalloc.start()
    try:
        num_samples = sum(len(block) for block in sound.read_sound(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num_samples == 40 * 16000 and peak < 1 << 20


@pytest.mark.parametrize(("gap_s", "length_s"), [(2.0, 4.0), (100.0, 2.1)])
def test_gaps_are_silence_and_long_ones_are_closed(tmp_path, caplog, gap_s, length_s):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for start_s in (0.0, 1.0 + gap_s):
            frame = av.AudioFrame.from_ndarray(tone(1.0, 16000).astype(np.float32), format="flt", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), round(start_s * 16000)
            for part in av.AudioResampler(format="s16", layout="mono", rate=16000).resample(frame):
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    read = heard(path)
    assert len(read) / 16000 == pytest.approx(length_s, abs=0.11)
    assert ("the gap is closed" in caplog.text) == (gap_s > 60)
    if gap_s < 60:
        assert np.abs(read[17000:47000]).max() == 0 and np.abs(read[49000:]).max() > 0.4


def test_damage_becomes_silence(tmp_path, caplog):
    clip = make_clip(tmp_path / "a.mkv", codec="flac")
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    for pos, size in packets[3:8]:
        data[pos + 10 : pos + size] = b"\x55" * (size - 10)
    clip.write_bytes(data)
    read = heard(clip)
    assert len(read) / 16000 == pytest.approx(2.0, abs=0.15)
    assert int(np.argmax(np.abs(read) > 0.4)) / 16000 == pytest.approx(1.0, abs=0.004)


def test_samples_that_are_not_numbers_are_silence(tmp_path):
    """Files of floats hold any value: what is not a number is 0, and the rest is at most 16 times full scale."""
    samples = np.full(1600, 0.25, np.float32)
    samples[[100, 200, 300, 400]] = np.nan, np.inf, -np.inf, 1e30
    path = tmp_path / "floats.wav"
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 16000, 64000, 4, 32)  # format 3: IEEE floats
    data = struct.pack("<4sI", b"data", samples.nbytes) + samples.tobytes()
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(layout) + len(data), b"WAVE") + layout + data)
    read = np.concatenate(list(sound.read_sound(path, rate=16000)))
    expected = np.full(1600, 0.25, np.float32)
    expected[[100, 200, 300, 400]] = 0, 16, -16, 16
    np.testing.assert_array_equal(read, expected)


def test_what_has_no_sound(tmp_path):
    silent = make_video(tmp_path / "silent.mp4", [flat(RED)] * 3)
    (tmp_path / "text.wav").write_text("Dear listener, this is not a sound.\n" * 20)
    (tmp_path / "empty.mp3").touch()
    Image.fromarray(flat(RED)).save(tmp_path / "a.png")
    none = tmp_path / "none.wav"
    with wave.open(str(none), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    for call in (sound.probe_sound, heard):
        refused(lambda call=call: call(silent), "silent.mp4 has no sound", "use a WAV, MP3")
        refused(lambda call=call: call(tmp_path / "text.wav"), "text.wav is a text file", "use a sound")
        refused(lambda call=call: call(tmp_path / "empty.mp3"), "empty.mp3 is empty (0 bytes)")
        refused(lambda call=call: call(tmp_path / "a.png"), "a.png", "use a WAV, MP3")
        refused(lambda call=call: call(tmp_path), "is a folder; use a sound or video file")
        refused(lambda call=call: call(none), "none.wav has a sound track that cannot be decoded")
