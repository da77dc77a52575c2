"""The parameters of `mimik edit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from mimik.config import Option, check_options, options_of


def _slider(low: float, high: float, hint: str) -> Option:
    return Option(metavar="X", range=(low, high), hint=hint)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Changes to a photo; all zero: no change."""

    smile: Annotated[float, _slider(-1, 1, "-1 turns the corners of the mouth down, 1 is a broad smile")] = 0.0
    mouth: Annotated[float, _slider(0, 1, "1 is wide open")] = 0.0
    blink: Annotated[float, _slider(-1, 1, "1 shuts the eyes, -1 opens them wide")] = 0.0
    brows: Annotated[float, _slider(-1, 1, "1 raises the brows, -1 lowers them")] = 0.0
    gaze_x: Annotated[float, _slider(-1, 1, "1 looks to the picture's right, -1 to its left")] = 0.0
    gaze_y: Annotated[float, _slider(-1, 1, "1 looks down, -1 up")] = 0.0
    yaw: Annotated[float, _slider(-35, 35, "degrees; turns the head to the picture's right")] = 0.0
    pitch: Annotated[float, _slider(-20, 20, "degrees; nods down")] = 0.0
    roll: Annotated[float, _slider(-30, 30, "degrees; tilts the head clockwise")] = 0.0

    def __post_init__(self) -> None:
        check_options(self)


SETTINGS = ("model", "size", "frame", "scene", "face", "teeth", "label", "consent")  # without a driver
SLIDERS = {name: option.range for name, option in options_of(Edit).items() if option.range}
