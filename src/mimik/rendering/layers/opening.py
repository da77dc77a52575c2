"""The inside of a mouth that is closed, or less open, in the photo: dark, with a tongue and a pale row of teeth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.face.landmarks import Array, Image
from mimik.rendering.layers.canvas import Canvas, soft_polygon
from mimik.rendering.layers.colours import Colours

_TEETH_HEIGHT = 0.15  # of the mouth's width: upper incisors of 8 mm under a mouth of 53 mm
# Chosen by the L1 inside the lips of 483 frames of 146 clips, each painted from a frame with closed lips: 38.1.
_INSIDE_LIGHT = 0.3, 0.15  # times the lips' tone: of the inside of a mouth, and what the light adds that falls in below
_TONGUE_SEEN = 0.12, 0.35  # height of the opening, of the mouth's width: the tongue shows from the first on


@dataclass(frozen=True)
class Opening:
    """The part of an open mouth that the photo, with its lips closer together, does not show. Units of the crop's side.

    Attributes:
        upper: [11, 2] its upper edge, corner to corner: the upper lip, or the lower end of the photo's teeth.
        lower: [11, 2] the lower lip.
        depth: 0..1; how far it is open, for a soft beginning.
        teeth: 0..1; how much of the upper teeth would show: none in a rounded mouth, or where the photo has its own.
    """

    upper: Array
    lower: Array
    depth: float
    teeth: float


def fill_mouth(region: Image, canvas: Canvas, mouth: Opening, colours: Colours) -> None:
    """Darkens the opening between lips that are closer together in the photo: there are no pixels of it."""
    upper, lower = (canvas.place(line) for line in (mouth.upper, mouth.lower))
    outline = np.concatenate([upper, lower[-2:0:-1]])
    width = float(np.ptp(outline[:, 0]))
    soft = max(0.02 * width, 0.6)
    low, high = canvas.around(outline, 3 * soft)
    if (high - low).min() < 2:
        return
    shape = high[1] - low[1], high[0] - low[0]
    alpha = soft_polygon(outline - low, shape, soft) * mouth.depth
    # Deepest under the upper lip; some light falls in below.
    depth = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None, None] ** 2
    colour = colours.lips * (_INSIDE_LIGHT[0] + _INSIDE_LIGHT[1] * depth)
    tall = float(np.linalg.norm(lower - upper, axis=1).max()) / width
    if (seen := min((tall - _TONGUE_SEEN[0]) / (_TONGUE_SEEN[1] - _TONGUE_SEEN[0]), 1.0)) > 0:
        tongue = soft_polygon(_tongue_outline(upper, lower) - low, shape, 0.06 * width)
        colour = colour + seen * tongue * (colours.tongue - colour)
    if mouth.teeth > 0:
        shine = soft_polygon(_teeth_outline(upper, width) - low, shape, 0.8 * soft) * mouth.teeth
        from_middle = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :, None]
        shaded = colours.teeth * (1 - 0.45 * from_middle**2) * (0.82 + 0.18 * np.sqrt(depth))
        colour = colour + shine * (shaded - colour)
    part = region[low[1] : high[1], low[0] : high[0]]
    part[...] = np.round(part + alpha * (colour - part)).clip(0, 255).astype(np.uint8)


def _tongue_outline(upper: NDArray[Any], lower: NDArray[Any]) -> NDArray[Any]:
    """Outline of the tongue: it lies behind the lower lip, a little narrower than the mouth."""
    u = np.linspace(-1, 1, len(lower))[:, None]
    height = 0.55 * np.sqrt((1 - (u / 0.8) ** 2).clip(0))
    return np.concatenate([lower, (lower + height * (upper - lower))[::-1]])


def _teeth_outline(upper: NDArray[Any], width: float) -> NDArray[Any]:
    """Outline of the upper teeth: they hang from the upper lip, longest in the middle."""
    across = upper[-1] - upper[0]
    down = np.array([-across[1], across[0]]) / max(float(np.linalg.norm(across)), 1e-6)
    u = np.linspace(-1, 1, len(upper))[:, None]
    edge = upper + down * (_TEETH_HEIGHT * width * np.sqrt(1 - 0.95 * u * u))
    return np.concatenate([upper, edge[::-1]])
