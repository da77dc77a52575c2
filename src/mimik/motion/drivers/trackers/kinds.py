"""The protocols of trackers: the only place that lists their readers."""

from __future__ import annotations

from collections.abc import Callable

from mimik.motion.drivers.stream import Sample
from mimik.motion.drivers.trackers.ifacialmocap import IFacialMocap
from mimik.motion.drivers.trackers.live_link import LiveLink
from mimik.motion.drivers.trackers.openseeface import OpenSeeFace
from mimik.motion.drivers.trackers.vmc import Vmc

Reader = Callable[[bytes, float], Sample | None]  # a packet and when it came; ValueError if it cannot be used
READERS: dict[str, Callable[[], Reader]] = {
    "livelink": LiveLink,
    "ifacialmocap": IFacialMocap,
    "vmc": Vmc,
    "openseeface": OpenSeeFace,
}
