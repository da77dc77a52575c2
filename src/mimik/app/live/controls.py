"""Controls of a call, the quality of its frames, a slot for the newest frame, and listeners."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from mimik.config import REGIONS, InputError, Option, Quality, check_number

Value = TypeVar("Value")
LABEL_SCALE = {"normal": 1.0, "small": 0.5}
LABELS = tuple(LABEL_SCALE)
MAX_STEP_S = 0.25  # upper limit of the time between two frames or samples
DRIVERS = "camera", "microphone"
LIVE_SIZE = 512  # pixels of the longer side
AUTO = "auto"
QUALITIES = AUTO, *(one.value for one in Quality)
# Processor time of a frame with its encoding, relative to FULL (docs/live.md).
COSTS = {Quality.FULL: 1.0, Quality.HALF: 0.92, Quality.WARP: 0.69, Quality.SMALL: 0.64}
TOO_SLOW = 1.25  # load at which the quality is lowered: a camera of 30 frames/s gives less than 24
ROOM = 0.95  # load that the next higher quality must not exceed
SETTLE_S = 2.0  # time of a quality before its load is judged
PATIENCE_S = 5.0, 80.0  # time of a quality before a higher one is tried; doubled each time that one was too slow
_RELAPSE_S = 10.0  # a quality that lasts for less time was too slow
_SMOOTH_S = 1.0  # time constant of load and interval
_MOST = 2.0  # load of a single frame, so that one slow frame has little effect
_INTERVAL_S = 1 / 30, 1 / 15  # range of the interval of a driver's frames; a busy computer also receives fewer
_PAUSE_S = 0.5  # a longer gap is a pause of the driver
_FADE_S = 0.4  # time over which the network's prediction fades in or out
_WITH_NETWORK = Quality.FULL, Quality.HALF
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Settings that can be changed during a call; error messages name the control."""

    mirror: Annotated[bool, Option("Mirror the motion.", flag="--mirror/--no-mirror")] = False
    regions: tuple[str, ...] = REGIONS
    strength: float = 1.0
    freeze: bool = False  # the person's pose is held; frames continue to be sent
    driver: str = "camera"  # one of DRIVERS
    label: Annotated[str, Option("Size of the mandatory AI label: normal or small.", "SIZE")] = "normal"
    quality: Annotated[
        str,
        Option(
            "What is computed for a frame: full; half (the network for every second frame); warp (no network); small "
            "(no network, 3/4 of the size); auto (the highest of these that keeps up with the driver).",
            "QUALITY",
        ),
    ] = AUTO

    def __post_init__(self) -> None:
        if any(name not in REGIONS for name in self.regions):
            raise InputError(f"regions {', '.join(map(str, self.regions))}: use any of {', '.join(REGIONS)}.")
        if isinstance(self.strength, bool) or not isinstance(self.strength, int | float):
            raise InputError(f"strength {self.strength!r}: use a number from 0 to 3.")
        check_number("strength", self.strength, 0.0, 3.0, "1 is your own strength")
        for name in ("mirror", "freeze"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} {getattr(self, name)!r}: use true or false.")
        if self.driver not in DRIVERS:
            raise InputError(f"driver {self.driver!r}: use one of {', '.join(DRIVERS)}.")
        if self.label not in LABELS:
            raise InputError(f"label {self.label!r}: use one of {', '.join(LABELS)}; a live call is always labeled.")
        if self.quality not in QUALITIES:
            raise InputError(f"quality {self.quality!r}: use one of {', '.join(QUALITIES)}.")


class Ladder:
    """The quality of a call's frames: lowered while the computer is too slow for the driver, raised when there is room.

    Load is the time that a frame takes, relative to the interval of the driver's frames times the number of frames that
    are processed at once. Above 1, frames of the driver are dropped.
    """

    def __init__(self, qualities: Sequence[Quality], num_at_once: int) -> None:
        """Args: qualities: from highest to lowest; num_at_once: frames that are processed at once."""
        self._qualities, self._num_at_once = qualities, num_at_once
        self.quality = qualities[0]
        self.load = 0.0
        self._interval_s, self._offered_s = _INTERVAL_S[0], -math.inf
        self._finished_s: float | None = None  # time of the last judged frame
        self._changed_s: float | None = None
        self._raised_s = -math.inf
        self._patience_s = PATIENCE_S[0]

    def offered(self, now_s: float) -> None:
        """The driver has offered a frame."""
        gap_s, self._offered_s = now_s - self._offered_s, now_s
        if gap_s < _PAUSE_S:
            self._interval_s += _share(gap_s) * (gap_s - self._interval_s)

    def finished(self, quality: Quality, now_s: float, took_s: float) -> None:
        """A frame of the driver was finished; this may change the quality.

        Args: quality: of the frame; now_s: on the clock of offered; took_s: from the beginning of its processing.
        """
        if self._changed_s is None:
            self._changed_s = now_s
        if quality is not self.quality:
            return
        interval_s = min(max(self._interval_s, _INTERVAL_S[0]), _INTERVAL_S[1])
        load = min(took_s / (self._num_at_once * interval_s), _MOST)
        since_s = None if self._finished_s is None else now_s - self._finished_s
        self.load = load if since_s is None else self.load + _share(since_s) * (load - self.load)
        self._finished_s = now_s
        lasted_s = now_s - self._changed_s
        at = self._qualities.index(quality)
        if lasted_s >= SETTLE_S and self.load > TOO_SLOW and (lower := self._qualities[at + 1 :]):
            fast = (one for one in lower if self._load_of(one) <= TOO_SLOW)
            was_raised = now_s - self._raised_s < _RELAPSE_S
            self._patience_s = min(2 * self._patience_s, PATIENCE_S[1]) if was_raised else PATIENCE_S[0]
            self._change(next(fast, lower[-1]), now_s)
        elif lasted_s >= self._patience_s and at and self._load_of(self._qualities[at - 1]) <= ROOM:
            self._raised_s = now_s
            self._change(self._qualities[at - 1], now_s)

    def _load_of(self, quality: Quality) -> float:
        return self.load * COSTS[quality] / COSTS[self.quality]

    def _change(self, quality: Quality, now_s: float) -> None:
        log.info("quality %s instead of %s at a load of %.2f", quality.value, self.quality.value, self.load)
        self.quality, self._changed_s, self._finished_s = quality, now_s, None


class NetworkFade:
    """Fades the network's prediction in and out where the quality changes, because the picture without it differs."""

    def __init__(self, qualities: Sequence[Quality]) -> None:
        """Args: qualities: of the model."""
        self._has_network = Quality.WARP in qualities
        self._share: float | None = None  # weight of the prediction in the last frame
        self._at_s = 0.0

    def __call__(self, quality: Quality, now_s: float) -> tuple[Quality, float]:
        """What is computed for the next frame, and the weight of the network's prediction in it, 0..1.

        Args: quality: of the next frame; while the prediction fades out, HALF replaces a quality without the network.
        """
        goal = float(quality in _WITH_NETWORK)
        if self._share is None or not self._has_network:
            self._share = goal
        most = min(now_s - self._at_s, MAX_STEP_S) / _FADE_S
        self._share += min(max(goal - self._share, -most), most)
        self._at_s = now_s
        return Quality.HALF if self._share > goal else quality, self._share


def _share(seconds: float) -> float:
    """Weight of a value that was measured this long after the one before."""
    return 1 - math.exp(-seconds / _SMOOTH_S)


class Newest(Generic[Value]):
    """A slot for one item; a new item replaces an item that was not taken."""

    def __init__(self) -> None:
        self._item: Value | None = None
        self._changed = threading.Condition()
        self._closed = False
        self.num_dropped = 0

    def put(self, item: Value) -> None:
        with self._changed:
            self.num_dropped += self._item is not None
            self._item = item
            self._changed.notify_all()

    def take(self) -> Value | None:
        """Wait for an item and take it; None if the slot was closed."""
        with self._changed:
            while self._item is None and not self._closed:
                self._changed.wait()
            item, self._item = self._item, None
            return None if self._closed else item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Listeners:
    """Callbacks, called in the thread of the event; they must return quickly."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[..., None]] = []

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def __call__(self, *arguments: Any) -> None:
        for callback in list(self._callbacks):
            callback(*arguments)

    def add(self, callback: Callable[..., None]) -> Callable[[], None]:
        """Add a callback; returns a function that removes it."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback) if callback in self._callbacks else None
