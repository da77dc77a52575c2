"""What `mimik edit` changes in a photo, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mimik.config import check_number

# Lowest, highest, and what they mean.
SLIDERS: dict[str, tuple[float, float, str]] = {
    "smile": (-1, 1, "-1 lets the corners of the mouth hang, 1 is a broad smile"),
    "mouth": (0, 1, "1 is wide open"),
    "blink": (-1, 1, "1 shuts the eyes, -1 opens them wide"),
    "brows": (-1, 1, "1 raises the brows, -1 lowers them"),
    "gaze_x": (-1, 1, "1 looks to the picture's right, -1 to its left"),
    "gaze_y": (-1, 1, "1 looks down, -1 up"),
    "yaw": (-30, 30, "degrees; turns the head to the picture's right"),
    "pitch": (-20, 20, "degrees; nods down"),
    "roll": (-30, 30, "degrees; tilts the head clockwise"),
}


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is changed in a photo; zero everywhere leaves it as it is. Every message names the option it is about."""

    smile: float = 0.0  # -1 (corners down) .. 1
    mouth: float = 0.0  # 0 .. 1 open
    blink: float = 0.0  # -1 (wide) .. 1 shut
    brows: float = 0.0  # -1 (down) .. 1 raised
    gaze_x: float = 0.0  # -1 .. 1, to the picture's right
    gaze_y: float = 0.0  # -1 .. 1, down
    yaw: float = 0.0  # degrees, to the picture's right
    pitch: float = 0.0  # degrees, down
    roll: float = 0.0  # degrees, clockwise

    def __post_init__(self) -> None:
        for one in fields(self):
            low, high, hint = SLIDERS[one.name]
            check_number(f"--{one.name.replace('_', '-')}", getattr(self, one.name), low, high, hint)
