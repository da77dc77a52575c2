"""A camera or a microphone drives a photo: the pipeline of `mimik live`, without a page or a browser.

Only the newest camera frame is processed: frames that arrive while the pipeline is full are dropped, so that a slow
computer reduces the frame rate instead of adding latency. If it stays too slow, less is computed for each frame.
Tracking, flow, painting and marking run in one thread each, in a pipeline like that of animation/render.py. Output
frames carry the visible label and the watermark; recordings are sealed like all files.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.animation.avatar import Avatar
from mimik.app.live.controls import AUTO, LABEL_SCALE, LIVE_SIZE, Controls, Ladder, Listeners, NetworkFade, Newest
from mimik.app.live.follower import Follower
from mimik.app.live.idling import IDLE_AFTER_S, Aim, Transitions
from mimik.app.live.sound import LiveSpeech
from mimik.config import AnimateConfig, InputError, Quality
from mimik.face.landmarks import Face, Image
from mimik.media.reading import VideoFrame
from mimik.media.sound import Samples
from mimik.motion.frames import MotionFrame
from mimik.motion.generation.idle import IdleMotion
from mimik.motion.generation.speech import closed_reference
from mimik.pipeline import QUEUE_FRAMES, Clock, pipeline_threads, prefetch
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.marking import Marker, burn_label

_WAITING_S = 1 / 25  # frame interval while nothing drives
log = logging.getLogger(__name__)


@dataclass
class Shown:
    """An output frame of the person."""

    labeled: Image  # uint8 RGB [H, W, 3] with the visible label; only for provenance.seal, which adds the watermark
    marker: Marker  # of the call
    number: int  # counts from 1
    at_s: float  # capture time of its camera frame or sound, on the clock of offer()'s caller
    face: NDArray[Any] | None  # camera face in 0..1 of the camera frame, [478, 2]; None if not detected
    is_spoken: bool = False  # whether sound drives it
    quality: Quality = Quality.FULL
    started_s: float | None = None  # time.perf_counter() at which its processing began; None if nothing drives

    @functools.cached_property
    def image(self) -> Image:
        """uint8 RGB [H, W, 3], labeled and watermarked: may be shown."""
        return self.marker.mark(self.labeled)

    def labeled_in(self, size: tuple[int, int]) -> Image:
        """labeled, resized to this width and height if it is smaller, as at Quality.SMALL."""
        same = self.labeled.shape[1::-1] == size
        return self.labeled if same else cv2.resize(self.labeled, size, interpolation=cv2.INTER_CUBIC)


@dataclass(frozen=True)
class _TrackedFrame:
    """A tracked camera frame: fields of Shown, the target points, and the controls at that time."""

    points: NDArray[Any] | None
    face: NDArray[Any] | None
    at_s: float
    controls: Controls
    is_spoken: bool
    quality: Quality = Quality.FULL
    network_share: float = 1.0  # weight of the network's prediction
    started_s: float | None = None


class Call:
    """One person and one driver: offer() takes frames, add_sound() takes sound, on_shown() adds output callbacks.

    While nothing drives, the person idles: it breathes, blinks and looks around.

    >>> with Call(Avatar.from_photos(["photo.jpg"])) as call:
    ...     call.on_shown(send)
    ...     call.offer(frame, time.perf_counter())
    """

    _drives: str | None = None  # driver name in the claim of a recording; None: the control `driver`

    def __init__(self, avatar: Avatar, config: AnimateConfig | None = None, controls: Controls | None = None) -> None:
        """Args:
        avatar: the person.
        config: model, view, size, smoothness, face number; None: a crop of the head at LIVE_SIZE pixels.
        controls: initial controls; None: regions and strength of the config.
        """
        self.config = config or AnimateConfig(size=LIVE_SIZE, frame="crop")
        if self.config.neutral is not None:
            raise InputError(
                f"--neutral {self.config.neutral:g}: a live call finds the neutral face while it runs; omit --neutral "
                "and calibrate on the page."
            )
        self.avatar = avatar
        self.portrait = avatar.source_frame(self.config, limit_side=True)
        self._controls = controls or Controls(regions=self.config.regions, strength=self.config.strength)
        self._inbox: Newest[tuple[Image | VideoFrame | MotionFrame | None, float]] = Newest()
        # Limit frames in flight to the number of cores: more would only wait and add latency.
        num_at_once = max(2, os.cpu_count() or 1)
        self._free_slots = threading.Semaphore(num_at_once)
        self._ladder = Ladder(self.portrait.qualities, num_at_once)
        self._fade = NetworkFade(self.portrait.qualities)
        self.num_frames: Counter[Quality] = Counter()  # output frames of each quality
        self._marker = Marker(self._model)
        self._frame_callbacks, self._sound_callbacks = Listeners(), Listeners()
        self._limits = ExitStack()
        self._idle, self._generated = IdleMotion(), Aim(self.portrait, closed_reference())
        self._transitions = Transitions(self.portrait.face.points)
        self._no_face_s = 0.0  # time without a face in the camera
        self._offered_s = -math.inf
        self._is_idle = False  # whether nothing has driven for a while
        self._ended = threading.Event()
        self._speech: LiveSpeech | None = None
        self._speech_lock = threading.Lock()
        self._frozen_points: NDArray[Any] | None = None  # target points while the pose is frozen
        self._number = 0
        self._times: deque[float] = deque(maxlen=60)
        self.clock = Clock()
        self.error: BaseException | None = None
        self.problems: deque[str] = deque(maxlen=8)  # not yet shown by the page
        self.reset()

    def reset(self) -> None:
        """Restart the search for the neutral face, because another person may be in front of the camera."""
        self._follower = Follower(
            self.portrait, self.avatar.landmarker, smooth=self.config.smooth, face=self.config.driver_face
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of output frames."""
        return self.portrait.size

    @property
    def controls(self) -> Controls:
        return self._controls

    def set(self, **changes: Any) -> None:
        """Change controls, starting with the next frame.

        Raises InputError if a control does not exist, or its value is invalid.
        """
        if unknown := changes.keys() - asdict(self._controls).keys():
            raise InputError(f"{sorted(unknown)[0]}: no such control.")
        self._controls = replace(self._controls, **changes)
        if self._controls.driver != "microphone":
            self._stop_speech()

    def report_problem(self, sentence: str) -> None:
        """Report a failure outside the call, in the page and in the log."""
        log.warning("%s", sentence)
        self.problems.append(sentence)

    def calibrate(self) -> None:
        """Take the current camera face as neutral."""
        self._follower.calibrate()

    @property
    def is_calibrating(self) -> bool:
        return self._follower.is_calibrating

    @property
    def frames_per_second(self) -> float:
        """Output frame rate over about the last two seconds."""
        times = list(self._times)
        if len(times) < 2 or time.perf_counter() - times[-1] > 2:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], 1e-6)

    @property
    def quality(self) -> Quality:
        """Quality of the next frame."""
        chosen = self._controls.quality
        if chosen == AUTO:
            return self._ladder.quality
        no_higher = list(Quality)[: list(Quality).index(Quality(chosen)) + 1]
        return next(one for one in reversed(no_higher) if one in self.portrait.qualities)

    @property
    def num_dropped(self) -> int:
        """Number of camera frames that were replaced by a newer one before processing."""
        return self._inbox.num_dropped

    def on_shown(self, callback: Callable[[Shown], None]) -> Callable[[], None]:
        """Add a callback for output frames, called in a thread of the call; must return quickly. Returns a remover."""
        return self._frame_callbacks.add(callback)

    def on_sound(self, callback: Callable[[Samples, float], None]) -> Callable[[], None]:
        """Add a callback for the driving sound with its start time, in order, silence included; see on_shown."""
        return self._sound_callbacks.add(callback)

    def add_sound(self, samples: Samples) -> None:
        """Append [N] float32 sound samples, mono at sound.CALL_RATE_HZ; no effect unless the microphone drives."""
        if self._controls.driver != "microphone" or self._ended.is_set():
            return
        with self._speech_lock:
            if self._speech is None:
                self._speech = LiveSpeech(self._put_spoken, self._sound_callbacks)
                self._speech.start()
            speech = self._speech
        speech.put(samples)

    def _stop_speech(self) -> None:
        """Stop processing of the microphone's sound."""
        with self._speech_lock:
            speech, self._speech = self._speech, None
        if speech is not None:
            speech.close()

    def _put_spoken(self, motion_frame: MotionFrame, at_s: float) -> None:
        if self._controls.driver == "microphone":
            self._put(motion_frame, at_s)

    def _is_lost(self, face: Face | None) -> bool:
        return face is None

    def _track(self, driving: Image | VideoFrame | MotionFrame | None, at_s: float) -> _TrackedFrame:
        """Track one driving item; None: no driver."""
        controls = self._controls
        dt = self._transitions.dt(at_s)
        face_in_frame = None
        points: NDArray[Any] | None
        with self.clock("follow"):
            by = "voice" if isinstance(driving, MotionFrame) else "idle" if driving is None else "camera"
            if isinstance(driving, MotionFrame):
                points = self._generated(driving, controls)
            elif driving is not None:
                points, face = self._follower(driving, at_s, controls)
                if face is not None:
                    face_in_frame = face.points[:, :2] / np.array(driving.shape[1::-1], np.float32)
                self._no_face_s = self._no_face_s + dt if self._is_lost(face) else 0.0
                if self._no_face_s > IDLE_AFTER_S:
                    by = "idle"
            if by == "idle":
                points = self._generated(self._idle.step(dt), controls)
            points = self._transitions(by, points, at_s)
        if not controls.freeze or self._frozen_points is None:
            self._frozen_points = points
        return _TrackedFrame(self._frozen_points, face_in_frame, at_s, controls, by == "voice")

    def _rendered(self, tracked: Generator[_TrackedFrame], ahead: int) -> Generator[Shown]:
        """Yield output frames for tracked frames; at most `ahead` of them per stage."""
        moves = ((one, one.points) for one in tracked)
        drawn = self.portrait.images(
            moves, self.clock, ahead=ahead, quality=lambda one: one.quality, share=lambda one: one.network_share
        )
        with closing(prefetch(drawn, ahead)) as images:
            for one, image in images:
                with self.clock("label"):
                    labeled = burn_label(image, LABEL_SCALE[one.controls.label])
                self._number += 1
                self._times.append(time.perf_counter())
                self.num_frames[one.quality] += 1
                yield Shown(
                    labeled, self._marker, self._number, one.at_s, one.face, one.is_spoken, one.quality, one.started_s
                )

    # Every frame, for files.

    def every(self, frames: Generator[tuple[Image, float]]) -> Generator[Shown]:
        """Yield an output frame for every (frame, time), in order. Must not be called while the call's threads run."""
        tracked = (self._track(image, at_s) for image, at_s in frames)
        with (
            pipeline_threads(),
            closing(prefetch(tracked)) as ready,
            closing(self._rendered(ready, QUEUE_FRAMES)) as shown,
        ):
            yield from shown

    # Newest frame only, for cameras.

    def __enter__(self) -> Call:
        self._limits.enter_context(pipeline_threads())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._waiting = threading.Thread(target=self._offer_idle_frames, daemon=True)
        self._waiting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._stop_speech()
        self._waiting.join()
        self._close()
        self._thread.join()
        self._limits.close()

    def _close(self) -> None:
        self._inbox.close()
        self._free_slots.release()

    def offer(self, image: Image | VideoFrame, at_s: float) -> None:
        """Offer a camera frame captured at at_s; returns immediately.

        Args: image: uint8 RGB [H, W, 3], or a decoded frame, of which only the face is converted to it.
        """
        if self._controls.driver == "camera":
            self._put(image, at_s)

    def _put(self, driving: Image | VideoFrame | MotionFrame | None, at_s: float) -> None:
        self._offered_s, self._is_idle = time.perf_counter(), False
        self._ladder.offered(self._offered_s)
        self._inbox.put((driving, at_s))

    def _offer_idle_frames(self) -> None:
        """Offer idle frames while no driver does and there is a callback for output frames."""
        while not self._ended.wait(_WAITING_S):
            if self._speech is not None and self._speech.error is not None:
                self.error = self._speech.error
                return
            now = time.perf_counter()
            last = max(self._offered_s, self._times[-1] if self._times else -math.inf)
            if self._frame_callbacks and (self._is_idle or now - last > IDLE_AFTER_S):
                self._is_idle = True
                self._inbox.put((None, now))

    @functools.cached_property
    def waiting_image(self) -> Image:
        """Labeled and watermarked image that is shown before the first output frame."""
        return self._marker.mark(burn_label(self.portrait.picture, LABEL_SCALE[self._controls.label]))

    def _tracked_frames(self) -> Generator[_TrackedFrame]:
        while self._free_slots.acquire() and (item := self._inbox.take()) is not None:
            driving, at_s = item
            started_s = None if driving is None else time.perf_counter()
            tracked = self._track(driving, at_s)
            quality, share = self._fade(self.quality, time.perf_counter())
            yield replace(tracked, quality=quality, network_share=share, started_s=started_s)

    def _run(self) -> None:
        try:
            self.portrait.prepare()
            with (
                closing(prefetch(self._tracked_frames(), 1)) as tracked,
                closing(self._rendered(tracked, 1)) as every,
                ExitStack() as closed_first,  # runs before joining the threads of the pipeline
            ):
                closed_first.callback(self._close)
                for shown in every:
                    with self.clock("mark"):
                        shown.image  # noqa: B018  watermark here, once, not in the callbacks' threads
                    self._frame_callbacks(shown)
                    self._free_slots.release()
                    if shown.started_s is not None:
                        now_s = time.perf_counter()
                        self._ladder.finished(shown.quality, now_s, now_s - shown.started_s)
        except BaseException as error:  # reported by the users of the call
            self.error = error

    def claim(self, title: str, *ingredients: Ingredient) -> Claim:
        """The claim of a recording."""
        controls = self._controls
        settings: dict[str, Any] = {"motion": self.config.motion, "regions": list(controls.regions)}
        settings |= {"strength": controls.strength, "live": self._drives or controls.driver, "label": controls.label}
        about = (*self.avatar.ingredients(), *ingredients)
        return Claim(title, self._model, about, settings, consent=self.config.consent)

    @property
    def _model(self) -> str:
        return Path(self.config.model or self.avatar.model).name
