"""Colors that the layers are painted with, taken from the photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Image
from mimik.rendering.crop import Crop
from mimik.rendering.head_mesh import CHEEKS, FOLDS, FOREHEAD, LIDS_OF_EYES, UNDER_EYES

_GREY = 6  # levels between a pixel's channels, at most, in a black and white photo
_SKIN_REACH = 0.0027  # of the crop's side: of the pixels around a point that tell the skin's colour
_TONGUE_LIGHT = np.array([0.88, 0.78, 0.78], np.float32)  # times the lips' tone
_TEETH_LIGHT = 0.85  # times the brightness of well lit skin
_TEETH_PALE = 0.2  # 0: as colourful as skin, 1: grey
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Colours:
    """RGB, 0..255, [3] each: the lips' median colour, tongue, a pale tone for teeth, skin and lashes of each eye.

    Attributes:
        is_grey: whether the photo is black and white: nothing that is drawn into it may have a colour.
    """

    lips: Array
    tongue: Array
    teeth: Array
    lids: tuple[Array, Array]
    lashes: tuple[Array, Array]
    is_grey: bool


def colours_of(picture: Image, crop: Crop, source: NDArray[np.float64]) -> Colours:
    """What the inside of the mouth and shut eyes are painted with, in the photo's tones.

    Args:
        picture: uint8 RGB [H, W, 3].
        crop: in its pixels.
        source: [478+, 3] the face's points in the crop, 0..1.
    """
    outer = [*face.LIPS_OUTER_UPPER, *face.LIPS_OUTER_LOWER[-2:0:-1]]
    inner = [*face.LIPS_INNER_UPPER, *face.LIPS_INNER_LOWER[-2:0:-1]]

    def pixels(places: NDArray[np.float64]) -> Array:
        at = (places * crop.side + [crop.left, crop.top]).astype(int)
        at = at.clip(0, np.array(picture.shape[1::-1]) - 1)
        return picture[at[:, 1], at[:, 0]].astype(np.float32)

    lips = np.median(pixels((source[outer, :2] + source[inner, :2]) / 2), axis=0)
    skin = np.percentile(pixels(source[[*CHEEKS, *FOREHEAD], :2]), 75, axis=0)
    pale = skin + _TEETH_PALE * (skin.mean() - skin)
    lashes = []
    for upper, lower in LIDS_OF_EYES:
        edge = source[upper, :2] + np.array([[-0.05], [0.05], [0.15]])[..., None] * (
            source[lower, :2] - source[upper, :2]
        )
        seen = pixels(edge.reshape(-1, 2))
        lashes.append(seen[np.argsort(seen.sum(1))[: len(seen) // 3]].mean(0))
    is_grey = bool(np.percentile(np.ptp(pixels(source[: face.NUM_POINTS, :2]), axis=1), 95) <= _GREY)
    tongue = lips * (_TONGUE_LIGHT.mean() if is_grey else _TONGUE_LIGHT)
    teeth = (pale * _TEETH_LIGHT).clip(0, 240).astype(np.float32)
    around = [[*fold, *under] for fold, under in zip(FOLDS, UNDER_EYES, strict=True)]
    places = source * crop.side + [crop.left, crop.top, 0]
    lids = [_skin_at(picture, places[points, :2], _SKIN_REACH * crop.side) for points in around]
    return Colours(lips, tongue, teeth, (lids[0], lids[1]), (lashes[0], lashes[1]), is_grey)


def _skin_at(picture: Image, places: NDArray[Any], reach: float) -> Array:
    """Colour [3] of skin: the mean of the lighter half, not lashes and folds, of the pixels around places [N, 2]."""
    k = max(round(reach), 1)
    at = places.astype(int)[:, None, None] + np.stack(np.meshgrid(*[np.arange(-k, k + 1)] * 2), -1)
    x, y = np.moveaxis(at.reshape(-1, 2).clip(0, np.array(picture.shape[1::-1]) - 1), 1, 0)
    pixels = picture[y, x].astype(np.float32)
    light = pixels @ LUMA
    return np.asarray(pixels[light >= np.median(light)].mean(0), np.float32)
