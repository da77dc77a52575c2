"""Sound in: as samples for what listens to it, and as packets that go along with a video that is written."""

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
    "mp4": {"aac", "mp3", "opus"},  # AC-3 and ALAC fit in as well, but browsers cannot play them
    "mov": {"aac", "mp3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"},
    "matroska": set(),  # it has no edit lists that would hide what copied sound needs before its start
    "webm": set(),  # nor has this
}
_ENCODERS = {"webm": ("libopus", 48_000)}  # and its rate; for all others AAC at the nearest of _AAC_RATES
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_OPUS_PREROLL_S = 0.08  # RFC 7845, Sec. 4.6: what a decoder needs to converge
_UNKNOWN_PACKET_S = Fraction(1, 10)  # longer than the sound packets of any codec that is copied


_SOUNDS = "a WAV, MP3, M4A, FLAC or OGG file, or a video with sound"
_PROBE_RATE = 16_000


@dataclass(frozen=True)
class SoundInfo:
    """What a file's sound holds."""

    path: Path
    duration_s: float | None  # from time 0 to its end, or to that of the file; None: the file does not say
    sample_rate: int  # of the file
    num_channels: int


def probe_sound(path: StrPath) -> SoundInfo:
    """What a file's sound holds; decodes its beginning, so that a file without any is known before work starts.

    Raises MediaError if the file has no sound, or none that can be decoded.
    """
    path = Path(path)
    with closing(_samples_of(path, _PROBE_RATE)) as blocks:
        any(len(block) for block in blocks)  # as far as the first sample
    with closing(open_container(path)) as container:
        stream = audio_stream(container)
        assert stream is not None
        end_s = None
        if stream.duration and stream.time_base:
            end_s = (stream.start_time or 0) * stream.time_base + stream.duration * stream.time_base
        elif container.duration:
            begin = 0 if "matroska" in container.format.name else container.start_time or 0  # Matroska tells its end
            end_s = Fraction(begin + container.duration, av.time_base)
        context = stream.codec_context
        duration_s = None if end_s is None else max(0.0, float(end_s - _origin_s(path)))
        return SoundInfo(path, duration_s, context.sample_rate, context.layout.nb_channels)


def read_sound(path: StrPath, *, rate: int = 16_000, block_s: float = 1.0) -> Generator[Samples]:
    """A file's sound, all channels mixed into one, block by block; the memory used does not grow with the length.

    Time 0 is the first frame of the video in the file, as of read_frames, or the beginning of a file without pictures:
    sample n belongs to time n / rate. Gaps are silence; gaps of more than a minute are closed. What is damaged is
    skipped with a warning in the log.

    Args:
        path: a sound file, or a video with sound.
        rate: samples a second to give.
        block_s: length of a block in seconds; the last one is shorter.

    Yields:
        float32 [num_samples], mostly within -1..1 (what clips in the file may exceed it).

    Raises:
        MediaError: at the first block, if the file has no sound, or none that can be decoded.
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
    """The sound of a file in one channel on the axis of its pictures, [N] at a time; at least one sample."""
    check_input(path, "sound or video file")
    num_faults = num_samples = 0
    with closing(open_container(path, _SOUNDS)) as container:
        stream = audio_stream(container)
        if stream is None:
            raise MediaError(f"{path} has no sound; give {_SOUNDS}.")
        try:
            source = _SoundSource(path, container, stream)
        except (FFmpegError, ValueError, OSError) as error:
            raise _no_samples(path, error) from error
        # The mixer adds two channels up instead of taking their mean.
        laid = _Axis(rate, "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo")
        closed_s = Fraction(0)  # of gaps that are too long to be meant
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
                laid.lay(frame, time_s - closed_s)
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
    return MediaError(f"{path} has a sound track without a sample that can be decoded{why}; give {_SOUNDS}.")


class _Axis:
    """Decoded samples [C, N] where they belong in time: gaps are silence, overlaps are cut."""

    def __init__(self, rate: int, layout: str) -> None:
        """Args: rate: samples a second; layout: "mono" or "stereo"; whatever is laid is converted to them."""
        self._rate = rate
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        self._waiting = np.empty((1 if layout == "mono" else 2, 0), np.float32)  # laid, not taken yet
        self._start: int | None = None  # samples from time 0 to the next sample of the resampler
        self.num_taken = 0

    def __len__(self) -> int:
        return self._waiting.shape[1]

    def gap_s(self, time_s: Fraction) -> float:
        """From the end of what is laid to a time."""
        return float(time_s) - (self.num_taken + len(self)) / self._rate

    def lay(self, frame: Any, time_s: Fraction) -> None:
        """Lays a frame of PyAV at a time. Raises ValueError if it comes more than MAX_GAP_S after the end."""
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
        """Lays what the resampler holds back."""
        self._waiting = np.concatenate([self._waiting, self._resampled(None)], axis=1)

    def cut(self, end: int) -> None:
        """Drops what lies after so many samples from time 0."""
        self._waiting = self._waiting[:, : max(0, end - self.num_taken)]

    def take(self, size: int) -> Samples:
        """The next samples [C, N], N at most size."""
        block, self._waiting = self._waiting[:, :size], self._waiting[:, size:]
        self.num_taken += block.shape[1]
        return block

    def _resampled(self, frame: Any) -> Samples:
        chunks = [part.to_ndarray() for part in self._resampler.resample(frame)]
        return np.concatenate(chunks, axis=1) if chunks else self._waiting[:, :0]


class _SoundSource:
    """The packets of a file's sound, each with its time on the axis of the pictures."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        """Raises ValueError if there is no packet."""
        for other in container.streams:
            if other is not stream:
                other.discard = av.stream.Discard.all  # nothing but sound is read from disk
        self.origin_s = _origin_s(path)
        self._demuxed = (packet for packet in container.demux(stream) if packet.pts is not None and packet.size)
        self._next = next(self._demuxed, None)
        if self._next is None:
            raise ValueError("no sound packet in it")

    def packets(self, until_s: Fraction | None) -> Iterator[tuple[Fraction, Any]]:
        """(start, packet), in order, of what starts before a time (None: to the end) and was not given before."""
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
        """Adds the stream to the container that is written; may be called again for another container."""

    @abstractmethod
    def packets(self, until_s: Fraction, last: bool) -> Iterator[Any]:
        """What starts before a time and was not given before; `last` says that no more will be asked for."""

    def close(self) -> None:
        self._input.close()


class CopiedSound(AccompanyingSound):
    """Packets as they are, only their timestamps are moved."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        super().__init__(path, container, stream)
        self._preroll_s = _OPUS_PREROLL_S if stream.codec_context.name in ("opus", "libopus") else 0.0
        self._last_dts: int | None = None

    def add_to(self, output: Any) -> None:
        self._target = output.add_stream_from_template(self._stream)

    def packets(self, until_s: Fraction, last: bool) -> Iterator[Any]:
        for start_s, packet in self._source.packets(until_s):
            # Decoders need what comes just before: one packet, more for Opus. Players skip it (edit list).
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
    """Decoded, laid on the video's axis sample by sample (gaps are silence), and encoded as AAC or Opus."""

    def __init__(self, path: Path, container: Any, stream: Any, container_name: str) -> None:
        super().__init__(path, container, stream)
        rate = stream.codec_context.sample_rate
        nearest = min(_AAC_RATES, key=lambda known: abs(known - rate))
        self._codec, self._rate = _ENCODERS.get(container_name, ("aac", nearest))
        self._layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
        self._axis = _Axis(self._rate, self._layout)

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
                self._axis.lay(frame, time_s)
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
    """The sound of a file; None if it has none, or none that can be read, which is said in the log."""
    container = open_container(path)
    try:
        stream = audio_stream(container)
        if stream is not None:
            if stream.codec_context.codec.canonical_name in _COPIED_AUDIO[container_name]:
                return CopiedSound(path, container, stream)
            return TranscodedSound(path, container, stream, container_name)
    except (FFmpegError, ValueError, OSError) as error:
        log.warning("%s: the sound cannot be read and is left out (%s)", path, reason_of(error))
    container.close()
    return None


def _origin_s(path: Path) -> Fraction:
    """The time, in the file's own clock, that is time 0 of what read_frames gives."""
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
