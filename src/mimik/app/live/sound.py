"""Sound as a live driver: motion frames with low latency, and the sound synchronized with them.

The stream is kept in sync with the clock: missing sound is replaced by silence, in which the person idles.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from mimik.config import InputError
from mimik.media import mel
from mimik.media.sound import Samples, probe_sound, read_sound
from mimik.motion.frames import MotionFrame
from mimik.motion.generation.speech import SpeechMotion

CALL_RATE_HZ = 48_000  # of incoming and outgoing sound, mono
_MOTION_FPS = 25.0
_BLOCK_S = 0.02  # block length for files and pipes
_STARVED_S = 0.1  # after this time without sound, silence is inserted
_AHEAD_S = 0.1  # sound that is further ahead is dropped, because the sender's clock is faster
_AT_ONCE_S = 0.5  # larger gaps, as of a suspended program, are not filled


class LiveSpeech:
    """Converts sound to motion frames, and passes the sound on, in a thread."""

    def __init__(
        self, offer: Callable[[MotionFrame, float], None], passed_on: Callable[[Samples, float], None] | None = None
    ) -> None:
        """Callbacks get times of time.perf_counter, and must return quickly.

        Args:
            offer: gets each motion frame, relative to speech.closed_reference, and the time of its sound.
            passed_on: gets all sound in order, silence included, and its start time.
        """
        self._offer, self._passed_on = offer, passed_on
        self._speech = SpeechMotion(_MOTION_FPS, seed=0, is_live=True)
        self._down = av.AudioResampler(format="flt", layout="mono", rate=mel.RATE_HZ)
        self._waiting: deque[Samples] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._num_samples = self._num_frames = 0
        self.error: BaseException | None = None

    def put(self, samples: Samples) -> None:
        """Append [N] float32 samples, mono at CALL_RATE_HZ, just captured; returns immediately."""
        with self._changed:
            self._waiting.append(samples)
            self._changed.notify()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._start_s = time.perf_counter()
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._waiting, timeout=1 / _MOTION_FPS)
                    if self._closed:
                        return
                    block = np.concatenate([np.zeros(0, np.float32), *self._waiting])
                    self._waiting.clear()
                self._process(self._in_time(block, time.perf_counter()))
        except BaseException as error:  # reported by the users of the call
            self.error = error

    def _in_time(self, block: Samples, now_s: float) -> Samples:
        """The block, padded with silence or trimmed at its start, so that it ends about now."""
        late = round((now_s - self._start_s) * CALL_RATE_HZ) - self._num_samples - len(block)
        if late > _AT_ONCE_S * CALL_RATE_HZ:
            self._start_s += late / CALL_RATE_HZ
            return block
        if late > _STARVED_S * CALL_RATE_HZ:
            return np.concatenate([np.zeros(late, np.float32), block])
        if late < -_AHEAD_S * CALL_RATE_HZ:
            return block[min(len(block), -late) :]
        return block

    def _process(self, block: Samples) -> None:
        if not len(block):
            return
        at_s = self._start_s + self._num_samples / CALL_RATE_HZ
        self._num_samples += len(block)
        if self._passed_on is not None:
            self._passed_on(block, at_s)
        for part in self._down.resample(audio_frame(block, CALL_RATE_HZ)):
            for motion_frame in self._speech.push(part.to_ndarray()[0]):
                self._offer(motion_frame, self._start_s + self._num_frames / _MOTION_FPS)
                self._num_frames += 1


def audio_frame(samples: Samples, rate: int) -> Any:
    """Convert [N] float32 mono samples to a PyAV frame."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None], np.float32), format="flt", layout="mono")
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    return frame


def samples_of(resampler: Any, frame: Any) -> Samples:
    """Convert a PyAV frame to [N] float32, with a resampler to mono "flt" at CALL_RATE_HZ."""
    frame.pts = None
    parts = [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def to_live() -> Any:
    """A PyAV resampler from the format of its first frame to that of LiveSpeech."""
    return av.AudioResampler(format="flt", layout="mono", rate=CALL_RATE_HZ)


# Sources of sound besides a page.


def file_blocks(path: Path) -> Generator[Samples]:
    """Sound of a file in blocks of _BLOCK_S. Raises MediaError immediately if it has none."""
    probe_sound(path)
    return read_sound(path, rate=CALL_RATE_HZ, block_s=_BLOCK_S)


def pipe_blocks(stream: BinaryIO, rate: int) -> Iterator[Samples]:
    """Sound piped in by another program: 16-bit little-endian PCM, mono; blocks are as long as the available data.

    Args:
        stream: read1 returns the available bytes, and b"" at the end.
        rate: samples per second.
    """
    up, rest = to_live(), b""
    read = getattr(stream, "read1", stream.read)
    while data := read(2 * round(_BLOCK_S * rate)):
        data = rest + data
        whole = len(data) // 2 * 2
        rest = data[whole:]
        values: NDArray[np.int16] = np.frombuffer(data[:whole], "<i2")
        if len(values):
            yield samples_of(up, audio_frame(values.astype(np.float32) / np.float32(32768), rate))


class Feeder:
    """Plays blocks of sound in real time."""

    def __init__(self, callback: Callable[[Samples], None], blocks: Iterator[Samples]) -> None:
        self._callback, self._blocks = callback, blocks
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error: BaseException | None = None
        self.has_ended = False

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop; does not wait for a silent pipe."""
        self._ended.set()

    def _run(self) -> None:
        try:
            due_s = time.perf_counter()
            for block in self._blocks:
                due_s = max(due_s, time.perf_counter() - _STARVED_S / 2)
                self._callback(block)
                due_s += len(block) / CALL_RATE_HZ
                if self._ended.wait(max(0.0, due_s - time.perf_counter())):
                    return
        except InputError as error:
            self.error = error
        finally:
            self.has_ended = True
