"""A call driven by motion data of another program instead of a camera: `mimik live PHOTO --stream`."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.animation.avatar import Avatar
from mimik.animation.source_frame import SourceFrame
from mimik.app.live.call import Call
from mimik.app.live.controls import MAX_STEP_S, Controls
from mimik.app.live.idling import Aim
from mimik.config import AnimateConfig
from mimik.face.landmarks import Face, Image
from mimik.media.reading import VideoFrame
from mimik.motion.drivers.stream import HOLD_S, Sample, mirrored_sample, motion_frame_of, rest_reference
from mimik.motion.drivers.udp import Receiver
from mimik.motion.smoothing import Steady

_SILENT_TICK_S = 1 / 25  # frame interval while a sender is silent
_NEUTRAL_AFTER_S = HOLD_S + 0.6  # after this silence the neutral pose is reached, and no frames are made


@dataclass(frozen=True)
class _ReceivedSample:
    """A sample relative to neutral, and its arrival time."""

    sample: Sample
    at_s: float


class _SampleRetarget:
    """Maps samples to the person's points, as Follower does for camera frames."""

    is_calibrating = False

    def __init__(self, portrait: SourceFrame, smooth: float) -> None:
        """Args: portrait: the source frame; smooth: 0..1, see motion.Smoother."""
        self._steady, self._aim = Steady(smooth), Aim(portrait, rest_reference())
        self._sample: Sample | None = None
        self._at_s = 0.0

    def calibrate(self) -> None:
        """No-op: the sender defines neutral."""

    def __call__(self, received: _ReceivedSample, at_s: float, controls: Controls) -> tuple[NDArray[Any], Face | None]:
        """Target points, [478, 3] in pixels of the portrait; and None in place of a camera face.

        Args: heard: the newest sample, possibly repeated; at_s: the current time on its clock.
        """
        sample, before = received.sample, self._sample
        dt = float(np.clip(at_s - self._at_s, 1e-3, MAX_STEP_S)) if self._at_s else _SILENT_TICK_S
        if before is not None and 0 < sample.time_s - before.time_s < MAX_STEP_S:
            dt = sample.time_s - before.time_s  # timestamps of senders are more regular than arrival times
        self._sample, self._at_s = sample, at_s
        is_lost = not sample.seen or at_s - received.at_s > HOLD_S
        motion_frame = None if is_lost else motion_frame_of(mirrored_sample(sample) if controls.mirror else sample)
        return self._aim(self._steady(motion_frame, dt), controls), None


class Puppet(Call):
    """A call driven by another program: it offers samples where a camera would offer frames."""

    _drives = "stream"

    def __init__(
        self, avatar: Avatar, receiver: Receiver, config: AnimateConfig | None = None, controls: Controls | None = None
    ) -> None:
        """Args: avatar, config, controls: as in Call; receiver: source of the samples, closed at the end."""
        super().__init__(avatar, config, controls)
        self._receiver = receiver
        self._ended = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def calibrate(self) -> None:
        """Take the next sample as the neutral face and head pose."""
        self._receiver.mailbox.calibrate()

    def reset(self) -> None:
        self._follower: Any = _SampleRetarget(self.portrait, self.config.smooth)

    def _is_lost(self, face: Face | None) -> bool:
        return False  # silence of the sender is handled in _listen

    def offer(self, image: Image | VideoFrame, at_s: float) -> None:
        """Ignore frames of a camera."""

    def __enter__(self) -> Call:
        super().__enter__()
        self._listener.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._listener.join()
        self._receiver.close()
        super().__exit__(*error)

    def _listen(self) -> None:
        received: _ReceivedSample | None = None
        while not self._ended.is_set():
            sample = self._receiver.receive(_SILENT_TICK_S)
            at_s = time.perf_counter()
            if sample is not None:
                received = _ReceivedSample(sample, at_s)
            if received is not None and at_s - received.at_s < _NEUTRAL_AFTER_S:
                super().offer(received, at_s)  # type: ignore[arg-type]  # _SampleRetarget accepts this type
