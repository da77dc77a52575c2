"""Lids of an eye that shuts: skin where the stretched photo is dark, and a line where the lids meet."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mimik.face.landmarks import Array, Image
from mimik.rendering.layers.canvas import Canvas, soft_polygon
from mimik.rendering.layers.colours import Colours

_LID_LIGHT = 0.85  # times the skin around the eye


@dataclass(frozen=True)
class ShutEye:
    """The line where two lids meet, and the upper lid. Units of the crop's side.

    Attributes:
        line: [9, 2] corner to corner.
        fold: [7, 2] the lid's upper end, from the same corner on.
        amount: 0..1; how far it is shut, for a soft beginning.
        number: 0 the person's right eye, 1 the left.
    """

    line: Array
    fold: Array
    amount: float
    number: int


def lighten_lid(region: Image, canvas: Canvas, eye: ShutEye, colours: Colours) -> None:
    """Paints skin where a lid that comes down is darker: shadow, make-up and lashes that were stretched with it."""
    outline = canvas.place(np.concatenate([eye.line, eye.fold[::-1]]))
    soft = max(0.06 * float(np.linalg.norm(outline[0] - outline[8])), 0.6)
    low, high = canvas.around(outline, 3 * soft)
    if (high - low).min() < 2:
        return
    alpha = soft_polygon(outline - low, (high[1] - low[1], high[0] - low[0]), soft) * eye.amount
    part = region[low[1] : high[1], low[0] : high[0]]
    lift = (_LID_LIGHT * colours.lids[eye.number] - part).clip(0)
    part[...] = np.round(part + alpha * lift).astype(np.uint8)


def draw_lashes(region: Image, canvas: Canvas, eye: ShutEye, colours: Colours) -> None:
    """Covers the slit that is left of an eye: squeezed eyeball, a pixel or two wide."""
    line = canvas.place(eye.line)
    width = float(np.linalg.norm(line[0] - line[-1]))
    soft = max(0.02 * width, 0.5)
    low, high = canvas.around(line, 4 * soft)
    if (high - low).min() < 2:
        return
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    fixed = np.round((line - low) * 16).astype(np.int32)
    cv2.polylines(mask, [fixed], False, 255, max(1, round(0.05 * width)), cv2.LINE_AA, shift=4)
    alpha = cv2.GaussianBlur(mask, (0, 0), soft).astype(np.float32)[..., None] * (0.9 * eye.amount / 255)
    part = region[low[1] : high[1], low[0] : high[0]]
    part[...] = np.round(part + alpha * (colours.lashes[eye.number] - part)).clip(0, 255).astype(np.uint8)
