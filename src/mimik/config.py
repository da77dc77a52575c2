"""Errors a user can cause, and the validated settings of one run. Nothing here reads a file."""

from __future__ import annotations

import math
from dataclasses import dataclass

VERSION = "0.1.0"


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence for the user: what was given, what is accepted, what to do next. The command line
    prints it and exits with code 2.
    """


class MediaError(InputError):
    """A picture, a video or a sound track that cannot be read or written."""


class NoFaceError(InputError):
    """No usable face in a picture or in a whole video."""


class ModelError(InputError):
    """An unknown, unreadable or unsuitable model."""


REGIONS = ("pose", "lips", "eyes", "brows", "gaze")
MODELS = ("geometry",)
MOTION_MODES = ("relative", "absolute")
FRAMES = ("full", "crop")


def parse_regions(text: str) -> tuple[str, ...]:
    """`all`, or names of REGIONS with commas between them, in the order of REGIONS.

    Raises:
        InputError: on an unknown or empty list.
    """
    if text.strip() == "all":
        return REGIONS
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in REGIONS]
    if unknown or not names:
        given = f"{text!r} names {unknown[0]!r}" if unknown else f"{text!r} names nothing"
        raise InputError(f"--regions {given}; give 'all' or any of {', '.join(REGIONS)}, separated by commas.")
    return tuple(name for name in REGIONS if name in names)


def check_number(option: str, value: float, low: float, high: float, hint: str) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{option} {value}: give a number from {low:g} to {high:g} ({hint}).")


def _choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{option} {value}: give one of {', '.join(choices)}.")


@dataclass(frozen=True, kw_only=True)
class AnimateConfig:
    """Settings of one `mimik animate` run; every message names the option that it is about."""

    model: str = "geometry"  # one of MODELS
    motion: str = "relative"  # one of MOTION_MODES
    regions: tuple[str, ...] = REGIONS
    strength: float = 1.0  # multiplies the driver's expression and head motion
    smooth: float = 0.5  # 0: the landmarks as measured, 1: calm and a little late
    size: int | None = None  # pixels of the longer side; None: the photo's own
    frame: str = "full"  # one of FRAMES
    face: int | None = None  # 1 is the largest face of the photo; None: the largest
    driver_face: int | None = None  # the same in the driver
    fps: float | None = None  # None: the driver's own
    quality: int = 18  # x264 constant rate factor: 0 lossless .. 51 worst
    audio: bool = True

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ModelError(f"--model {self.model}: no such model; installed are {', '.join(MODELS)}.")
        _choice("--motion", self.motion, MOTION_MODES)
        _choice("--frame", self.frame, FRAMES)
        if not self.regions or any(name not in REGIONS for name in self.regions):
            raise InputError(f"--regions {self.regions}: give any of {', '.join(REGIONS)}.")
        check_number("--strength", self.strength, 0.0, 3.0, "1 is the driver's own strength")
        check_number("--smooth", self.smooth, 0.0, 1.0, "0 is off")
        check_number("--quality", self.quality, 0, 51, "smaller is better; 18 looks lossless")
        if self.size is not None:
            check_number("--size", self.size, 64, 4096, "pixels of the longer side, or 'native'")
        if self.fps is not None:
            check_number("--fps", self.fps, 1, 120, "frames a second; leave it out for the driver's own")
        for option, value in (("--face", self.face), ("--driver-face", self.driver_face)):
            if value is not None:
                check_number(option, value, 1, 99, "1 is the largest face; `mimik faces PHOTO` shows the numbers")
