"""Video and sound of a call for one page: tracks for aiortc."""

from __future__ import annotations

import asyncio
import fractions
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVarTuple

import av
import numpy as np

from mimik.app.live.call import Call, Shown
from mimik.app.live.sound import CALL_RATE_HZ
from mimik.media import video
from mimik.media.sound import Samples

Arguments = TypeVarTuple("Arguments")
_CLOCK_HZ = 90_000  # of RTP video timestamps
_IDLE_S = 0.5  # repeat the last frame after this time without a new one, so that a new viewer gets one
_DELAY_S = 0.25  # initial delay of the sound
_SMOOTHING = 0.1  # smoothing factor of the delay estimate
_OUT_OF_SYNC_S = 0.06  # larger errors are corrected at once, by an audible gap or jump
_MOST_DELAY_S = 2.0
_PACKET = CALL_RATE_HZ // 50
_MIN_QUANTIZER = 8  # of VP8, 0..63: below it, a frame has up to twice the bytes without a visible difference


class DelayedSound:
    """The driving sound of a call, delayed to stay in sync with its video."""

    def __init__(self) -> None:
        self.delay_s = _DELAY_S
        self._waiting = np.zeros(0, np.float32)
        self._begin_s = 0.0  # capture time of the first waiting sample

    def put(self, samples: Samples, at_s: float) -> None:
        """Append [N] samples at CALL_RATE_HZ, captured from at_s on."""
        gap = round((at_s - self._begin_s) * CALL_RATE_HZ) - len(self._waiting)
        if not len(self._waiting) or abs(gap) > _MOST_DELAY_S * CALL_RATE_HZ:
            self._waiting, self._begin_s = samples[:0], at_s
        elif gap > _OUT_OF_SYNC_S * CALL_RATE_HZ:
            self._waiting = np.concatenate([self._waiting, np.zeros(gap, np.float32)])
        waiting = np.concatenate([self._waiting, samples])
        self._waiting = waiting[-round(_MOST_DELAY_S * CALL_RATE_HZ) :]
        self._begin_s += (len(waiting) - len(self._waiting)) / CALL_RATE_HZ

    def update_delay(self, delay_s: float) -> None:
        """Update the delay with that of a sent frame, relative to its sound."""
        self.delay_s += _SMOOTHING * (min(max(delay_s, 0.0), _MOST_DELAY_S) - self.delay_s)

    @property
    def has_packet(self) -> bool:
        """Whether sound waits."""
        return len(self._waiting) >= _PACKET

    def take(self, now_s: float) -> Samples:
        """Take [_PACKET] samples to be sent now."""
        early_s = self._begin_s + self.delay_s - now_s
        if len(self._waiting) and early_s < -_OUT_OF_SYNC_S:
            skipped = min(round(-early_s * CALL_RATE_HZ), len(self._waiting))
            self._waiting, self._begin_s = self._waiting[skipped:], self._begin_s + skipped / CALL_RATE_HZ
        if early_s > _OUT_OF_SYNC_S or not self.has_packet:
            return np.zeros(_PACKET, np.float32)
        out, self._waiting = self._waiting[:_PACKET], self._waiting[_PACKET:]
        self._begin_s += _PACKET / CALL_RATE_HZ
        return out


def portrait_encoder(vpx: Any) -> Any:
    """aiortc's VP8 encoder with other settings, which are constants there; vpx: aiortc.codecs.vpx.

    Rendered frames have no sensor noise; a denoiser would only blur them.
    """

    class PortraitEncoder(vpx.Vp8Encoder):
        codec: Any

        def encode(self, frame: Any, force_keyframe: bool = False) -> Any:
            codec, bit_rate = self.codec, self.target_bitrate
            size = frame.width, frame.height
            # The conditions under which aiortc makes a new codec.
            if codec is None or (codec.width, codec.height) != size or abs(bit_rate / codec.bit_rate - 1) > 0.1:
                self.codec = codec = av.CodecContext.create("libvpx", "w")
                codec.width, codec.height = size
                codec.pix_fmt, codec.bit_rate, codec.gop_size = "yuv420p", bit_rate, 3000
                codec.qmin, codec.qmax = _MIN_QUANTIZER, 56
                codec.options = {
                    "bufsize": str(bit_rate),
                    "cpu-used": "-6",
                    "deadline": "realtime",
                    "lag-in-frames": "0",
                    "minrate": str(bit_rate),
                    "maxrate": str(bit_rate),
                    "noise-sensitivity": "0",
                    "overshoot-pct": "15",
                    "static-thresh": "1",
                    "undershoot-pct": "100",
                }
                codec.thread_count = vpx.number_of_threads(frame.width * frame.height, os.cpu_count() or 1)
            return super().encode(frame, force_keyframe)

    return PortraitEncoder


class Viewer:
    """Output for one page: the newest frame, and the driving sound, as tracks for aiortc."""

    def __init__(self, call: Call, aiortc: Any) -> None:
        loop = asyncio.get_running_loop()
        self.newest: Shown | None = None
        self.changed = asyncio.Event()
        self.sending_ms = 0.0  # encoding and sending time of the last frame
        self.delayed = DelayedSound()
        self.heard = asyncio.Event()  # set with each block of the driving sound
        self._number = 0
        viewer = self

        class Track(aiortc.MediaStreamTrack):
            kind = "video"

            def __init__(self) -> None:
                super().__init__()
                self._start = time.perf_counter()
                self._returned_s: float | None = None
                self._last_pts = -1

            async def recv(self) -> Any:
                now = time.perf_counter()
                if self._returned_s is not None:
                    viewer.sending_ms = 1000 * (now - self._returned_s)
                frame = video.picture_frame(await viewer.next_image())
                # Use sending times: with capture times, the browser would wait for dropped frames.
                pts = max(int((time.perf_counter() - self._start) * _CLOCK_HZ), self._last_pts + 1)
                self._last_pts = pts
                frame.pts, frame.time_base = pts, fractions.Fraction(1, _CLOCK_HZ)
                self._returned_s = time.perf_counter()
                return frame

        class Sound(aiortc.MediaStreamTrack):
            kind = "audio"

            def __init__(self) -> None:
                super().__init__()
                self._start: float | None = None
                self._sent = 0

            async def recv(self) -> Any:
                # Without a driving sound, nothing is sent: silence costs encoding, decoding and 50 packets/s.
                while not viewer.delayed.has_packet:
                    viewer.heard.clear()
                    await viewer.heard.wait()
                now = time.perf_counter()
                if self._start is None:
                    self._start = now
                late_s = now - self._start - self._sent / CALL_RATE_HZ
                if late_s > _OUT_OF_SYNC_S:  # skip what a busy computer could not send in time
                    self._sent += round(late_s * CALL_RATE_HZ)
                due_s = self._start + self._sent / CALL_RATE_HZ
                await asyncio.sleep(max(0.0, due_s - now))
                values = (viewer.delayed.take(due_s).clip(-1, 1) * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(values[None], format="s16", layout="mono")
                frame.sample_rate, frame.time_base = CALL_RATE_HZ, fractions.Fraction(1, CALL_RATE_HZ)
                frame.pts = self._sent
                self._sent += _PACKET
                return frame

        self._call = call
        self.track, self.sound = Track(), Sound()
        self._unsubscribe = call.on_shown(in_loop(loop, self._put))
        self._unsubscribe_sound = call.on_sound(in_loop(loop, self._put_sound))

    def _put(self, shown: Shown) -> None:
        self.newest = shown
        self.changed.set()

    def _put_sound(self, samples: Samples, at_s: float) -> None:
        self.delayed.put(samples, at_s)
        self.heard.set()

    async def next_image(self) -> Any:
        # Not asyncio.wait_for: until Python 3.12, it lost a cancellation that came together with a frame, and aiortc
        # waited forever for the end of the sender.
        with suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                await self.changed.wait()
        self.changed.clear()
        if self.newest is None:
            return self._call.waiting_image
        if self.newest.is_spoken and self.newest.number != self._number:
            self._number = self.newest.number
            self.delayed.update_delay(time.perf_counter() - self.newest.at_s + self.sending_ms / 1000)
        return self.newest.image

    def close(self) -> None:
        self._unsubscribe()
        self._unsubscribe_sound()
        self.track.stop()
        self.sound.stop()


def in_loop(loop: asyncio.AbstractEventLoop, hear: Callable[[*Arguments], None]) -> Callable[[*Arguments], None]:
    """Wrap a callback so that it runs in the thread of the loop."""

    def tell(*heard: *Arguments) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(hear, *heard)

    return tell
