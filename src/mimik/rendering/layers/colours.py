"""Colors that the layers are painted with, taken from the photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Image
from mimik.rendering.crop import Crop
from mimik.rendering.head_mesh import CHEEKS, FOREHEAD

_GREY = 6  # levels between a pixel's channels, at most, in a black and white photo
_TONGUE_LIGHT = np.array([0.88, 0.78, 0.78], np.float32)  # times the lips' tone
_TEETH_LIGHT = 0.85  # times the brightness of well lit skin
_TEETH_PALE = 0.2  # 0: as colourful as skin, 1: grey
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Colours:
    """RGB, 0..255, [3] each: the lips' median colour, tongue, a pale tone for teeth.

    Attributes:
        is_grey: whether the photo is black and white: nothing that is drawn into it may have a colour.
    """

    lips: Array
    tongue: Array
    teeth: Array
    is_grey: bool


def colours_of(picture: Image, crop: Crop, source: NDArray[np.float64]) -> Colours:
    """What the inside of the mouth is painted with, in the photo's tones.

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
    is_grey = bool(np.percentile(np.ptp(pixels(source[: face.NUM_POINTS, :2]), axis=1), 95) <= _GREY)
    tongue = lips * (_TONGUE_LIGHT.mean() if is_grey else _TONGUE_LIGHT)
    teeth = (pale * _TEETH_LIGHT).clip(0, 240).astype(np.float32)
    return Colours(lips, tongue, teeth, is_grey)
