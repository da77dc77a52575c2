"""Colors that the layers are painted with, taken from the photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Image
from mimik.rendering.crop import Crop

_GREY = 6  # levels between a pixel's channels, at most, in a black and white photo
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Colours:
    """RGB, 0..255, [3] each: the lips' median colour.

    Attributes:
        is_grey: whether the photo is black and white: nothing that is drawn into it may have a colour.
    """

    lips: Array
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
    is_grey = bool(np.percentile(np.ptp(pixels(source[: face.NUM_POINTS, :2]), axis=1), 95) <= _GREY)
    return Colours(lips, is_grey)
