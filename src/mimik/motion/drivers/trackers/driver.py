"""A face tracker as a driver: its packets are recorded for the requested time."""

from __future__ import annotations

import itertools
import time
from typing import Self

import numpy as np

from mimik.config import InputError, check_number
from mimik.motion.drivers.driver import USUAL_S, Driver, DriverSettings, DrivingMotion
from mimik.motion.drivers.stream import rest_reference
from mimik.motion.drivers.stream_file import Stream
from mimik.motion.drivers.trackers.address import Address, is_tracker, parse_tracker
from mimik.motion.drivers.udp import Receiver
from mimik.motion.smoothing import smoothed
from mimik.pipeline import Progress

_USUAL_FPS = 30.0  # where no other rate is asked for
_WAIT_S = 60.0  # for the first packet
_TICK_S = 0.1  # between two looks at the clock


class TrackerDriver(Driver):
    """A face tracker of the network; it has no end but the one that is asked for, and begins with its first packet."""

    kind = "tracker"

    def __init__(self, address: Address, fps: float, seconds: float) -> None:
        """Args: address: where it sends to; fps, seconds: of the recording."""
        super().__init__(f"{address.protocol} tracker", None, fps, max(1, round(seconds * fps)))
        self._address, self._seconds = address, seconds

    @classmethod
    def takes(cls, source: str) -> bool:
        return is_tracker(source)

    @classmethod
    def open(cls, source: str, fps: float | None = None) -> Self:
        if fps is not None:
            check_number("--fps", fps, 1, 120, "frames per second")
        return cls(parse_tracker(source), fps or _USUAL_FPS, USUAL_S)

    def lasting(self, seconds: float) -> Self:
        return type(self)(self._address, self.fps, seconds)

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        """Record everything first, since rendering may be too slow to keep up. Raises InputError if nothing is sent."""
        receiver = Receiver.of_tracker(self._address)
        try:
            stream = self._recorded(receiver, settings.progress)
        finally:
            receiver.close()
        wrong = receiver.mailbox.num_invalid
        notes = [f"{wrong} packets of the tracker could not be read"] if wrong else []
        # The last sample is held until the end that was asked for.
        frames = itertools.islice(itertools.chain(stream.frames(self.fps), itertools.repeat(None)), self.num_frames)
        return DrivingMotion(rest_reference(), smoothed(frames, self.fps, settings.smooth), notes=notes)

    def _recorded(self, receiver: Receiver, progress: Progress) -> Stream:
        progress(f"waiting for a face at {receiver.address}", 0, None)
        sample = receiver.receive(_WAIT_S)
        if sample is None:
            wrong = receiver.mailbox.num_invalid
            why = f", and {wrong} packets that could not be read" if wrong else ""
            raise InputError(
                f"{receiver.address}: no face arrived within {_WAIT_S:.0f} s{why}; start the tracker, and make it "
                "send to this computer and port."
            )
        begun_s = now_s = time.monotonic()
        times, samples = [0.0], [sample]
        while (now_s := time.monotonic()) < begun_s + self._seconds:
            sample = receiver.receive(min(_TICK_S, begun_s + self._seconds - now_s))
            at_s = time.monotonic() - begun_s
            progress("track", min(round(at_s * self.fps), self.num_frames or 0), self.num_frames)
            if sample is not None and at_s > times[-1]:
                times.append(at_s)
                samples.append(sample)
        return Stream(
            self.name,
            np.array(times),
            np.array([one.blendshapes for one in samples]),
            np.array([one.head for one in samples]),
            np.array([one.seen for one in samples]),
        )
