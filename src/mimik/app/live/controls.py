"""Controls of a call, a slot for the newest frame, and listeners."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from mimik.config import REGIONS, InputError, Option, check_number

Value = TypeVar("Value")
LABEL_SCALE = {"normal": 1.0, "small": 0.5}
LABELS = tuple(LABEL_SCALE)
MAX_STEP_S = 0.25  # upper limit of the time between two frames or samples
DRIVERS = "camera", "microphone"
LIVE_SIZE = 512  # pixels of the longer side


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Settings that can be changed during a call; error messages name the control."""

    mirror: Annotated[bool, Option("Mirror the motion.", flag="--mirror/--no-mirror")] = False
    regions: tuple[str, ...] = REGIONS
    strength: float = 1.0
    freeze: bool = False  # the person's pose is held; frames continue to be sent
    driver: str = "camera"  # one of DRIVERS
    label: Annotated[str, Option("Size of the mandatory AI label: normal or small.", "SIZE")] = "normal"

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
