"""Properties of a photo that the layers match: sharpness, grain, and the colors of the mouth's interior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import smoothstep
from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Image
from mimik.rendering.crop import Crop
from mimik.rendering.layers.canvas import LUMA
from mimik.rendering.layers.eye_contours import LIDS_OF_EYES

_BLUR_PX = 0.5, 5.0  # bounds of the estimated blur
# Standard deviation, 0..255: weaker grain is not visible, stronger texture is skin or brush strokes.
_GRAIN_LEVELS = 0.7, 6.0
# Contrast of skin at a hundredth of the distance between the eyes, percent of its brightness, over which `detail` rises
# from 0 to 1: drawings and retouched photos have 0.13 to 0.27, photos of the training set 0.3 to 1.1.
_DETAIL = 0.2, 0.5
_EYES_PX = 120.0  # distance of the outer eye corners at which the contrast is measured
_TILE = 256  # pixels: side of the repeating grain pattern
# Least squares over 490 stills that show teeth: luma of the front teeth, from the luma of the surrounding skin and of
# the sclera; and their chroma in red and blue, relative to the skin's.
_ENAMEL_OF_SKIN, _ENAMEL_OF_EYES = 0.72, 0.50
_ENAMEL_HUE = np.array([0.46, 0.0, 0.60], np.float32)
_HUE_OF_EYES = 0.9  # lower bound of the enamel's chroma, relative to that of the sclera
_MAX_ENAMEL = 245.0
_CAVITY = np.array([0.30, 0.17, 0.15], np.float32)  # color of the unshaded cavity, relative to the skin's brightness
_TONGUE_TONE = np.array([0.80, 0.48, 0.48], np.float32)
_GUM = np.array([0.88, 0.56, 0.55], np.float32)
_MAX_CHROMA = 6  # largest difference between a pixel's channels in a black-and-white photo, 0..255
_EVEN = [50, 280, 205, 425, 151, 9, 200]  # cheeks, forehead, chin
_SKIN = [50, 205, 187, 280, 425, 411, 36, 266, 200, 199, 164]  # cheeks, chin, under the nose


@dataclass(frozen=True)
class Palette:
    """Colors (RGB [3], 0..255), sharpness and grain of one photo.

    Attributes:
        enamel: front teeth in full light.
        cavity, tongue, gum: in full light.
        skin: the lighter part of the skin around the mouth.
        blur_px: standard deviation of the photo's blur.
        detail: 0..1, amount of skin detail finer than a tooth; 0 in a drawing.
        grain: [_TILE, _TILE, 1 or 3] additive noise pattern; None if the photo has no visible grain.
    """

    enamel: Array
    cavity: Array
    tongue: Array
    gum: Array
    skin: Array
    blur_px: float
    detail: float
    grain: Array | None

    @classmethod
    def of(cls, picture: Image, points: NDArray[Any], is_gray: bool) -> Palette:
        """Measure a picture, uint8 RGB [H, W, 3], with face points [478, 3] in its pixels."""
        at = points[_SKIN, :2].round().astype(int).clip(0, np.array(picture.shape[1::-1]) - 1)
        reach = max(round(0.02 * float(np.linalg.norm(points[33, :2] - points[263, :2]))), 1)
        skin = np.array(
            [picture[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1].mean((0, 1)) for x, y in at],
            np.float32,
        )
        skin = skin[np.argsort(skin @ LUMA)[len(skin) // 3 :]].mean(0)
        light = max(float(skin @ LUMA), 1.0)
        whites = _whites(picture, points, skin)
        whites_light = max(float(whites @ LUMA), 1.0)
        enamel_light = min(
            _ENAMEL_OF_SKIN * light + _ENAMEL_OF_EYES * np.clip(whites_light, 0.6 * light, 1.8 * light), _MAX_ENAMEL
        )
        of_skin = skin / light - 1
        hue, of_eyes = _ENAMEL_HUE * of_skin, _HUE_OF_EYES * (whites / whites_light - 1)
        of_eyes[0] = min(of_eyes[0], max(of_skin[0], 0.0))  # skin in the coarse pixels of an eye does not redden teeth
        hue = np.where(np.abs(of_eyes) > np.abs(hue), of_eyes, hue)  # varnish and colored light affect both
        hue[1] = -(hue[0] * LUMA[0] + hue[2] * LUMA[2]) / LUMA[1]  # no change in luma
        enamel = enamel_light * (1 + hue)
        cavity, tongue, gum = (light * tone * (0.5 + 0.5 * skin / light) for tone in (_CAVITY, _TONGUE_TONE, _GUM))
        colors = [np.asarray(c, np.float32) for c in (enamel, cavity, tongue, gum, skin)]
        if is_gray:
            colors = [np.full(3, c @ LUMA, np.float32) for c in colors]
        gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        enamel, cavity, tongue, gum, skin = colors
        return cls(
            enamel, cavity, tongue, gum, skin, _blur(gray, points), _detail(gray, points), _grain(gray, points, reach)
        )


def is_black_and_white(picture: Image, crop: Crop, source: NDArray[np.float64]) -> bool:
    """Whether a photo is black-and-white, so that layers must be drawn without color.

    Args:
        picture: uint8 RGB [H, W, 3].
        crop: in its pixels.
        source: [478+, 3] face points in the crop, 0..1.
    """
    at = crop.from_unit(source[: face.NUM_POINTS, :2]).astype(int)
    at = at.clip(0, np.array(picture.shape[1::-1]) - 1)
    return bool(np.percentile(np.ptp(picture[at[:, 1], at[:, 0]].astype(int), axis=1), 95) <= _MAX_CHROMA)


def _box_of_points(points: NDArray[Any], shape: tuple[int, ...]) -> tuple[slice, slice]:
    low = np.floor(points[:, :2].min(0)).astype(int).clip(0)
    high = np.ceil(points[:, :2].max(0)).astype(int) + 1
    return slice(low[1], min(high[1], shape[0])), slice(low[0], min(high[0], shape[1]))


def _whites(picture: Image, points: NDArray[Any], skin: Array) -> Array:
    """[3] color of the sclera of the lighter eye; the skin color if no sclera is visible."""
    found = []
    for upper, lower in LIDS_OF_EYES:
        outline = points[[*upper, *lower[-2:0:-1]], :2]
        rows, columns = _box_of_points(outline, picture.shape)
        part = picture[rows, columns]
        if not part.size:
            continue
        mask = np.zeros(part.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.round((outline - [columns.start, rows.start]) * 16).astype(np.int32)], 1, shift=4)
        eye = part[mask > 0].astype(np.float32)
        if len(eye):
            light = eye @ LUMA
            order = np.argsort(light)[round(0.7 * (len(eye) - 1)) : round(0.9 * (len(eye) - 1)) + 1]
            mean = eye[order].mean(0)
            # Scale to the luma statistic (80th percentile) that the regression was fitted with.
            found.append(mean * np.percentile(light, 80) / max(float(mean @ LUMA), 1.0))
    return np.asarray(max(found, key=lambda color: float(color @ LUMA)) if found else skin, np.float32)


def _blur(gray: NDArray[np.uint8], points: NDArray[Any]) -> float:
    """Standard deviation of the blur at the sharpest edges of eyes and mouth; Zhuo and Sim 2011."""
    part = gray[_box_of_points(points[[*face.EYES, *face.BROWS, *face.LIPS]], gray.shape)].astype(np.float32)
    if min(part.shape, default=0) < 8:
        return _BLUR_PX[0]
    slopes = []
    for image in (part, cv2.GaussianBlur(part, (0, 0), 1.0)):
        slopes.append(np.hypot(cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)))
    sharp = slopes[0] >= np.percentile(slopes[0], 98)
    ratio = float(np.median(slopes[0][sharp] / np.maximum(slopes[1][sharp], 1e-3)))
    return float(np.clip(1 / np.sqrt(max(ratio * ratio - 1, 1e-3)), *_BLUR_PX))


def _detail(gray: NDArray[np.uint8], points: NDArray[Any]) -> float:
    """0..1; see Palette. gray: uint8 [H, W]."""
    rows, columns = _box_of_points(points, gray.shape)
    face_part = gray[rows, columns]
    k = _EYES_PX / max(float(np.linalg.norm(points[33, :2] - points[263, :2])), 1.0)
    if min(face_part.shape, default=0) < 8:
        return 1.0
    sampling = cv2.INTER_AREA if k < 1 else cv2.INTER_LINEAR
    image = cv2.resize(face_part, None, fx=k, fy=k, interpolation=sampling).astype(np.float32)
    fine = np.abs(cv2.GaussianBlur(image, (0, 0), 1.0) - cv2.GaussianBlur(image, (0, 0), 2.0))
    found = []
    for x, y in ((points[_EVEN, :2] - [columns.start, rows.start]) * k).round().astype(int):
        at = slice(max(y - 10, 0), y + 11), slice(max(x - 10, 0), x + 11)
        if fine[at].size:
            found.append(100 * float(fine[at].mean()) / max(float(image[at].mean()), 1.0))
    return float(smoothstep(np.median(found), *_DETAIL)) if found else 1.0


def _grain(gray: NDArray[np.uint8], points: NDArray[Any], reach: int) -> Array | None:
    """A noise pattern with the strength of the finest texture of smooth skin; None if it is not visible."""
    found = []
    for x, y in points[[50, 280, 205, 425, 151], :2].round().astype(int):
        part = gray[max(y - 2 * reach, 0) : y + 2 * reach + 1, max(x - 2 * reach, 0) : x + 2 * reach + 1]
        if min(part.shape, default=0) >= 5:
            image = part.astype(np.float32)
            fine = image - cv2.GaussianBlur(image, (0, 0), 1.5)
            found.append(1.4826 * float(np.median(np.abs(fine - np.median(fine)))))
    strength = min(float(np.median(found)), _GRAIN_LEVELS[1]) if found else 0.0
    if strength < _GRAIN_LEVELS[0]:
        return None
    noise = np.random.default_rng(7).standard_normal((_TILE, _TILE)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.6)
    return np.asarray(noise * (strength / noise.std()))[..., None]
