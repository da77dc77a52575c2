"""Sound input: as samples, and as packets to be added to a written video."""

from __future__ import annotations

import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from mimik.config import MediaError
from mimik.media.containers import audio_stream, open_container, reason_of, video_stream
from mimik.media.formats import StrPath, check_input
from mimik.media.reading import MAX_GAP_S, first_frame

log = logging.getLogger(__name__)

Samples = NDArray[np.float32]

_COPIED_AUDIO = {
    "mp4": {"aac", "mp3", "opus"},  # AC-3 and ALAC are possible, too, but browsers cannot play them
    "mov": {"aac", "mp3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"},
    "matroska": set(),  # no edit lists, which would hide the preroll of copied sound
    "webm": set(),  # likewise
}
_ENCODERS = {"webm": ("libopus", 48_000)}  # encoder and its rate; other containers: AAC at the nearest of _AAC_RATES
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_OPUS_PREROLL_S = 0.08  # RFC 7845, Sec. 4.6: preroll for the decoder to converge
_UNKNOWN_PACKET_S = Fraction(1, 10)  # longer than the packets of any copied codec
_LARGEST = 16.0  # limit of the absolute value of a sample; full scale is 1


_SOUNDS = "a WAV, MP3, M4A, FLAC or OGG file, or a video with sound"
_PROBE_RATE = 16_000


@dataclass(frozen=True)
class SoundInfo:
    """Properties of a file's sound."""

    path: Path
    duration_s: float | None  # from time 0 to the end of the sound or of the file; None: not stated in the file
    sample_rate: int  # of the file
    num_channels: int


def probe_sound(path: StrPath) -> SoundInfo:
    """Properties of a file's sound; decodes its beginning, so that undecodable sound is detected early.

    Raises MediaError if the file has no sound, or no sound that can be decoded.
    """
    path = Path(path)
    with closing(_samples_of(path, _PROBE_RATE)) as blocks:
        any(len(block) for block in blocks)  # up to the first sample
    with closing(open_container(path)) as container:
        stream = audio_stream(container)
        assert stream is not None
        end_s = None
        if stream.duration and stream.time_base:
            end_s = (stream.start_time or 0) * stream.time_base + stream.duration * stream.time_base
        elif container.duration:
            begin = 0 if "matroska" in container.format.name else container.start_time or 0  # Matroska states the end
            end_s = Fraction(begin + container.duration, av.time_base)
        context = stream.codec_context
        duration_s = None if end_s is None else max(0.0, float(end_s - _origin_s(path)))
        return SoundInfo(path, duration_s, context.sample_rate, context.layout.nb_channels)


def read_sound(path: StrPath, *, rate: int = 16_000, block_s: float = 1.0) -> Generator[Samples]:
    """Read a file's sound as mono samples, block by block; memory use does not grow with the length.

    Sample n is at time n / rate. Time 0 is the first video frame, as in read_frames, or the start of a file without
    video. Gaps are filled with silence; gaps of more than a minute are closed. Damaged parts are skipped with a warning
    in the log.

    Args:
        path: a sound file, or a video with sound.
        rate: output samples per second.
        block_s: length of a block in seconds; the last block is shorter.

    Yields:
        float32 [num_samples], mostly within -1..1 (clipped sound may exceed it).

    Raises:
        MediaError: at the first block, if the file has no sound, or no sound that can be decoded.
    """
    size = round(rate * block_s)
    assert size > 0, f"block_s {block_s}"
    waiting = np.empty(0, np.float32)
    with closing(_samples_of(Path(path), rate)) as chunks:
        for chunk in chunks:
            waiting = np.concatenate([waiting, chunk])
            while len(waiting) >= size:
                yield waiting[:size].copy()
                waiting = waiting[size:]
    if len(waiting):
        yield waiting


def _samples_of(path: Path, rate: int) -> Generator[Samples]:
    """Yield mono samples [N] on the time axis of the video; at least one sample in all."""
    check_input(path, "sound or video file")
    num_faults = num_samples = 0
    with closing(open_container(path, _SOUNDS)) as container:
        stream = audio_stream(container)
        if stream is None:
            raise MediaError(f"{path} has no sound; use {_SOUNDS}.")
        try:
            source = _SoundSource(path, container, stream)
        except (FFmpegError, ValueError, OSError) as error:
            raise _no_samples(path, error) from error
        # Average two channels here, because the resampler would sum them.
        laid = _Timeline(rate, "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo")
        closed_s = Fraction(0)  # total length of gaps that are too long to be intended
        for start_s, packet in itertools.chain(source.packets(None), [(None, None)]):  # the last flushes the decoder
            try:
                frames = stream.codec_context.decode(packet)
            except EOFError:
                break
            except FFmpegError:
                num_faults += 1
                continue
            for frame in frames:
                if frame.pts is not None:
                    time_s = frame.pts * frame.time_base - source.origin_s
                elif start_s is not None:
                    time_s = start_s
                else:
                    continue
                gap_s = laid.gap_s(time_s - closed_s)
                if gap_s > MAX_GAP_S:
                    log.warning("%s: %.0f s of its sound are missing; the gap is closed", path, gap_s)
                    closed_s += Fraction(gap_s)
                laid.place(frame, time_s - closed_s)
            num_samples += len(laid)
            yield laid.take(len(laid)).mean(0)
        laid.flush()
        num_samples += len(laid)
        yield laid.take(len(laid)).mean(0)
    if num_faults:
        log.warning("%s: damaged parts of its sound are skipped (%d)", path, num_faults)
    if not num_samples:
        raise _no_samples(path, None)


def _no_samples(path: Path, error: BaseException | None) -> MediaError:
    why = f" ({reason_of(error)})" if error else ""
    return MediaError(f"{path} has a sound track that cannot be decoded{why}; use {_SOUNDS}.")


class _Timeline:
    """Decoded samples [C, N] on the output's time axis: gaps are filled with silence, overlaps are cut."""

    def __init__(self, rate: int, layout: str) -> None:
        """Args: rate: samples per second; layout: "mono" or "stereo"; input is converted to both."""
        self._rate = rate
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        self._waiting = np.empty((1 if layout == "mono" else 2, 0), np.float32)  # added, not taken yet
        self._start: int | None = None  # position of the resampler's next sample, in samples from time 0
        self.num_taken = 0

    def __len__(self) -> int:
        return self._waiting.shape[1]

    def gap_s(self, time_s: Fraction) -> float:
        """Seconds from the end of the samples so far to a time."""
        return float(time_s) - (self.num_taken + len(self)) / self._rate

    def place(self, frame: Any, time_s: Fraction) -> None:
        """Add a PyAV frame at a time. Raises ValueError if it starts more than MAX_GAP_S after the end."""
        start = round(time_s * self._rate)
        frame.pts = None
        chunk = self._resampled(frame)
        position = self.num_taken + len(self)
        if self._start is None or abs(start - self._start) > self._rate // 20:
            self._start = start
        gap = self._start - position
        self._start += chunk.shape[1]
        if gap < 0:
            chunk = chunk[:, -gap:]
        elif gap:
            if gap > MAX_GAP_S * self._rate:
                raise ValueError(f"{gap / self._rate:.0f} s are missing")
            chunk = np.pad(chunk, ((0, 0), (gap, 0)))
        self._waiting = np.concatenate([self._waiting, chunk.astype(np.float32)], axis=1)

    def flush(self) -> None:
        """Add the samples that the resampler still holds."""
        self._waiting = np.concatenate([self._waiting, self._resampled(None)], axis=1)

    def cut(self, end: int) -> None:
        """Drop samples after position end, in samples from time 0."""
        self._waiting = self._waiting[:, : max(0, end - self.num_taken)]

    def take(self, size: int) -> Samples:
        """Take the next samples [C, N], N at most size."""
        block, self._waiting = self._waiting[:, :size], self._waiting[:, size:]
        self.num_taken += block.shape[1]
        return block

    def _resampled(self, frame: Any) -> Samples:
        chunks = [part.to_ndarray() for part in self._resampler.resample(frame)]
        out = np.concatenate(chunks, axis=1) if chunks else self._waiting[:, :0]
        return np.nan_to_num(out, nan=0.0).clip(-_LARGEST, _LARGEST)  # files of floats may hold any value


class _SoundSource:
    """Packets of a file's sound, with times on the axis of its video."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        """Raises ValueError if there is no packet."""
        for other in container.streams:
            if other is not stream:
                other.discard = av.stream.Discard.all  # only sound is read from disk
        self.origin_s = _origin_s(path)
        self._demuxed = (packet for packet in container.demux(stream) if packet.pts is not None and packet.size)
        self._next = next(self._demuxed, None)
        if self._next is None:
            raise ValueError("no sound packet in it")

    def packets(self, until_s: Fraction | None) -> Iterator[tuple[Fraction, Any]]:
        """Yield (start, packet) of the remaining packets in order, up to a start time (None: all)."""
        while self._next is not None:
            start_s = self._next.pts * self._next.time_base - self.origin_s
            if until_s is not None and start_s >= until_s:
                return
            packet, self._next = self._next, None
            yield start_s, packet
            self._next = next(self._demuxed, None)


class AccompanyingSound(ABC):
    """The sound of a file on the time axis of the written video."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self.path, self._input, self._stream = path, container, stream
        self._source = _SoundSource(path, container, stream)

    @abstractmethod
    def add_to(self, output: Any) -> None:
        """Add the stream to the output container; may be called again for another container."""

    @abstractmethod
    def packets(self, until_s: Fraction, last: bool) -> Iterator[Any]:
        """Yield the remaining packets that start before a time; last: this is the final call."""

    def close(self) -> None:
        self._input.close()


class CopiedSound(AccompanyingSound):
    """Copies packets unchanged except for their timestamps."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        super().__init__(path, container, stream)
        self._preroll_s = _OPUS_PREROLL_S if stream.codec_context.name in ("opus", "libopus") else 0.0
        self._last_dts: int | None = None

    def add_to(self, output: Any) -> None:
        self._target = output.add_stream_from_template(self._stream)

    def packets(self, until_s: Fraction, last: bool) -> Iterator[Any]:
        for start_s, packet in self._source.packets(until_s):
            # Decoders need the packets just before: one, more for Opus. Players skip them (edit list).
            duration_s = packet.duration * packet.time_base if packet.duration else _UNKNOWN_PACKET_S
            if start_s + duration_s + max(duration_s, self._preroll_s) <= 0:
                continue
            if packet.dts is None or (self._last_dts is not None and packet.dts <= self._last_dts):
                continue
            self._last_dts = packet.dts
            shift = round(self._source.origin_s / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = self._target
            yield packet


class TranscodedSound(AccompanyingSound):
    """Decodes sound, aligns it to the video's time axis (gaps are silence), and encodes it as AAC or Opus."""

    def __init__(self, path: Path, container: Any, stream: Any, container_name: str) -> None:
        super().__init__(path, container, stream)
        rate = stream.codec_context.sample_rate
        nearest = min(_AAC_RATES, key=lambda known: abs(known - rate))
        self._codec, self._rate = _ENCODERS.get(container_name, ("aac", nearest))
        self._layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
        self._axis = _Timeline(self._rate, self._layout)

    def add_to(self, output: Any) -> None:
        self._target = output.add_stream(self._codec, rate=self._rate, layout=self._layout, bit_rate=128_000)

    def packets(self, until_s: Fraction, last: bool) -> Iterator[Any]:
        for start_s, packet in self._source.packets(until_s):
            try:
                frames = self._stream.codec_context.decode(packet)
            except FFmpegError:
                continue  # the gap is filled with silence
            for frame in frames:
                time_s = start_s if frame.pts is None else frame.pts * frame.time_base - self._source.origin_s
                self._axis.place(frame, time_s)
            yield from self._encode()
        if last:
            # Cut at the end of the video.
            end = round(until_s * self._rate)
            self._axis.cut(end)
            yield from (
                packet for packet in self._encode(rest=True) if packet.pts * packet.time_base * self._rate < end
            )

    def _encode(self, rest: bool = False) -> Iterator[Any]:
        size = 1024  # samples of an AAC frame
        while len(self._axis) >= size or (rest and len(self._axis)):
            pts, block = self._axis.num_taken, self._axis.take(size)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=self._layout)
            frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), pts
            yield from self._target.encode(frame)
        if rest:
            yield from self._target.encode(None)


def open_sound(path: Path, container_name: str) -> AccompanyingSound | None:
    """Open the sound of a file; None if there is none, or none that can be read (logged)."""
    container = open_container(path)
    try:
        stream = audio_stream(container)
        if stream is not None:
            if stream.codec_context.codec.canonical_name in _COPIED_AUDIO[container_name]:
                return CopiedSound(path, container, stream)
            return TranscodedSound(path, container, stream, container_name)
    except (FFmpegError, ValueError, OSError) as error:
        log.warning("%s: the sound cannot be read and is dropped (%s)", path, reason_of(error))
    container.close()
    return None


def _origin_s(path: Path) -> Fraction:
    """The timestamp in the file that is time 0 of read_frames."""
    with closing(open_container(path)) as container:
        try:
            stream = video_stream(container, path)
            stream.codec_context.thread_count = 1
            first = first_frame(container, stream, path)
            if first.pts is not None:
                return first.pts * first.time_base
        except MediaError:
            pass  # sound only
        return Fraction(container.start_time or 0, av.time_base)
