"""The matte of the person, foreground colors, and replacement backgrounds.

The matte is computed once on the photo and warped with it, so it is cheap and does not flicker. MediaPipe's Selfie
Segmentation, run by OpenVINO, segments the photo at 256 px. A guided filter (He et al. 2013) refines the result to the
photo's edges. The foreground colors of partly covered pixels are estimated without the old background (Forte 2021,
"Approximate Fast Foreground Color Estimation").
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from mimik.arrays import ramp
from mimik.config import BLUR, TRANSPARENT, InputError
from mimik.face.landmarks import OVAL, Array, Image
from mimik.face.openvino_core import compiled_once, inference_core
from mimik.files import asset
from mimik.pipeline import run_in_thread
from mimik.rendering.crop import Crop

_NETWORK_PX = 256  # side of the network's input
_HEAD_SIDE = 2.6  # side of the square around the head that is segmented separately, as Crop.around's scale
_FADE = 0.12  # width of its border, in its sides, over which its result is blended into that of the whole photo
_SURE = 0.4, 0.85  # probabilities of the network that are mapped to 0 (background) and 1 (person)
# Probabilities up to which both segmentations agree on background, and from which on on the person.
_AGREED = 0.1, 0.9
_CLEAR_FACE_PX = 20  # width of the face in the network's input for the whole photo, from which on its doubt counts
_UNSURE_PX = 512  # longest side at which the areas in between are assigned
_UNSURE_BLUR = 1.5  # sigma at that size: noise is not an edge
_UNSURE_FACE = 0.15  # width of such an area, face widths; narrower ones are the soft edge of the person
_PIECE = 0.3  # matte value above which pixels form connected components
_GUIDE_PX = 1024  # longer side at which the filter's coefficients are computed; they are applied at full resolution
_GUIDE_RADIUS = 1 / 90  # radius of the guided filter, in longer sides
_GUIDE_EPS = 2e-4  # regularization of the guided filter: variance of colors (0..1), below which there is no edge
_COLOR_RADII = 1 / 14, 1 / 170  # radii of the coarse and the fine color estimate, in longer sides
_BLUR = 1 / 40  # radius of the blurred background, in longer sides


@functools.cache
def segmenter() -> Future[Any]:
    """The network, loaded in a thread: [1, 256, 256, 3] RGB in 0..1 -> [1, 1, 256, 256] probability of a person."""
    return run_in_thread(_load_segmenter)


def _load_segmenter() -> Any:
    with zipfile.ZipFile(asset("selfie_segmentation.zip")) as file:
        layers, weights = file.read("model.xml"), file.read("model.bin")
    config = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return compiled_once(
        "selfie_segmentation", layers + weights, lambda: inference_core().read_model(layers, weights), config
    )


def _run_segmenter(picture: Image) -> Array:
    """[256, 256] probability of a person, for uint8 RGB of any size."""
    view = cv2.resize(picture, (_NETWORK_PX, _NETWORK_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(segmenter().result()([view[None].astype(np.float32) / 255])[0][0, 0])


def person_matte(picture: Image, points: NDArray[Any]) -> Array:
    """The matte of the person with this face.

    Args:
        picture: uint8 RGB [H, W, 3].
        points: [478, 3] face points in it.

    Returns:
        [H, W] float32, 0..1.

    Raises:
        InputError: if the network does not segment the face as a person.
    """
    height, width = picture.shape[:2]
    whole = _run_segmenter(picture)
    views: list[tuple[Array, tuple[int, ...]]] = [(whole, (0, 0, width, height))]
    rough = cv2.resize(whole, (width, height), interpolation=cv2.INTER_LINEAR)
    square = Crop.around(points, _HEAD_SIDE)
    left, top = max(0, int(square.left)), max(0, int(square.top))
    right, bottom = min(width, int(square.left + square.side)), min(height, int(square.top + square.side))
    if min(right - left, bottom - top) >= 32 and (right - left) * (bottom - top) < 0.8 * height * width:
        size = right - left, bottom - top
        near = _run_segmenter(picture[top:bottom, left:right])
        views.append((near, (left, top, right, bottom)))
        near = cv2.resize(near, size, interpolation=cv2.INTER_LINEAR)
        # Blend at the square's borders, except where they are the picture's.
        ends = [(size[0], left == 0, right == width), (size[1], top == 0, bottom == height)]
        x, y = (_fade(n, _FADE * square.side, is_first, is_last) for n, is_first, is_last in ends)
        weight = y[:, None] * x[None, :]
        part = rough[top:bottom, left:right]
        part += weight * (near - part)
    if (mistaken := _mistaken(picture, points, views)) is not None:
        rough *= 1 - cv2.resize(mistaken, (width, height), interpolation=cv2.INTER_LINEAR)
    face = _face_alpha(points, height, width)
    if (rough * face).sum() < 0.5 * face.sum():
        raise InputError(
            "--background: the person in the photo cannot be separated from the background; use another photo, or "
            "omit --background."
        )
    low, high = _SURE
    guided = _guided(picture, ramp(rough, low, high).astype(np.float32))
    alpha = np.clip((guided - 0.06) / 0.88, 0, 1)  # remove faint residues of the filter on both sides
    return _matte_of_person(np.maximum(alpha, face).astype(np.float32), points)


def _mistaken(picture: Image, points: NDArray[Any], views: Sequence[tuple[Array, tuple[int, ...]]]) -> Array | None:
    """[h, w] 0..1 where the network took background for the person, at a reduced size; None: nowhere.

    In front of a dark wall, for example, it expects a shoulder that is not there. A wide area in which it is unsure, or
    its results disagree, belongs to whichever is not separated from it by an edge: the watershed of the picture (Meyer
    1991), seeded where they agree.

    Args:
        picture: uint8 RGB [H, W, 3].
        points: [478, 3] face points in it.
        views: probability of a person, and the part of the picture (left, top, right, bottom) that it covers.
    """
    height, width = picture.shape[:2]
    k = min(1.0, _UNSURE_PX / max(height, width))
    size = max(round(width * k), 1), max(round(height * k), 1)
    least, most = np.ones(size[::-1], np.float32), np.zeros(size[::-1], np.float32)
    for probability, box in views:
        left, top, right, bottom = (round(edge * k) for edge in box)
        part = slice(top, bottom), slice(left, right)
        given = cv2.resize(probability, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
        least[part], most[part] = np.minimum(least[part], given), np.maximum(most[part], given)
    # Other people, and what only one view shows, are not seeds.
    person = cv2.connectedComponents((least > _AGREED[1]).astype(np.uint8), connectivity=4)[1]
    x, y = (points[OVAL, :2].mean(0) * k).astype(int).clip(0, np.array(size) - 1)
    face_width = float(np.ptp(points[OVAL, 0]))
    if not person[y, x] or face_width * _NETWORK_PX < _CLEAR_FACE_PX * max(height, width):
        return None
    seeds = np.where(person == person[y, x], 2, np.where(most < _AGREED[0], 1, 0)).astype(np.int32)
    across = 2 * max(round(_UNSURE_FACE / 2 * face_width * k), 1) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (across, across))
    unsure = cv2.morphologyEx((seeds == 0).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    if not unsure.any():
        return None
    small = cv2.GaussianBlur(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), (0, 0), _UNSURE_BLUR)
    # OpenCV marks a picture's outermost pixels as edges.
    small, seeds = (cv2.copyMakeBorder(plane, 1, 1, 1, 1, cv2.BORDER_REPLICATE) for plane in (small, seeds))
    return ((cv2.watershed(small, seeds)[1:-1, 1:-1] == 1) & (unsure > 0)).astype(np.float32)


def _matte_of_person(alpha: Array, points: NDArray[Any]) -> Array:
    """The matte restricted to the connected component of this face: without other people and isolated fragments."""
    pieces = cv2.connectedComponents((alpha > _PIECE).astype(np.uint8), connectivity=4)[1]
    height, width = alpha.shape
    x, y = points[OVAL, :2].mean(0).astype(int).clip(0, [width - 1, height - 1])
    own = (pieces == pieces[y, x]).astype(np.uint8)
    near = cv2.dilate(own, np.ones((2 * max(2, round(_GUIDE_RADIUS * max(height, width))) + 1,) * 2, np.uint8))
    others = (pieces > 0) & (own == 0)
    return np.where(near & ~others, alpha, np.float32(0))


def _face_alpha(points: NDArray[Any], height: int, width: int) -> Array:
    """[H, W] soft mask of the face: 1 inside, 0 outside."""
    oval = points[OVAL, :2]
    inner = oval.mean(0) + 0.9 * (oval - oval.mean(0))
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(inner).astype(np.int32)], 255, cv2.LINE_AA)
    soft = max(0.02 * float(np.ptp(oval[:, 0])), 0.6)
    return cv2.GaussianBlur(mask, (0, 0), soft).astype(np.float32) / 255


def _fade(length: int, border: float, is_first: bool, is_last: bool) -> Array:
    """[length] 1 inside, falling to 0 over the border at both ends, except at an end of the picture."""
    at = np.arange(length, dtype=np.float32)
    low = 1.0 if is_first else (at + 1) / border
    high = 1.0 if is_last else (length - at) / border
    return np.minimum(np.minimum(low, high), np.ones_like(at))


def _guided(picture: Image, plane: Array) -> Array:
    """Guided filter: the plane [H, W], refined to the edges of the picture, with its colors as guide."""
    height, width = plane.shape
    k = min(1.0, _GUIDE_PX / max(height, width))
    size = max(round(width * k), 2), max(round(height * k), 2)
    guide = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    p = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    side = 2 * max(2, round(_GUIDE_RADIUS * max(size))) + 1

    def mean(x: Array) -> Array:
        return np.asarray(cv2.blur(x, (side, side)))

    mean_i, mean_p = mean(guide), mean(p)
    covariance = mean(guide * p[..., None]) - mean_i * mean_p[..., None]
    # Invert each pixel's symmetric 3 x 3 matrix by cofactors; np.linalg.solve takes four times as long.
    rr, rg, rb, gg, gb, bb = (
        mean(guide[..., i] * guide[..., j]) - mean_i[..., i] * mean_i[..., j] + (_GUIDE_EPS if i == j else 0)
        for i in range(3)
        for j in range(i, 3)
    )
    cofactors = [gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg]
    cofactors += [rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg]
    c_rr, c_rg, c_rb, c_gg, c_gb, c_bb = cofactors
    r, g, b = cv2.split(covariance / (rr * c_rr + rg * c_rg + rb * c_rb)[..., None])
    a = cv2.merge([c_rr * r + c_rg * g + c_rb * b, c_rg * r + c_gg * g + c_gb * b, c_rb * r + c_gb * g + c_bb * b])
    rest = mean_p - (a * mean_i).sum(-1)
    coefficients = mean(np.concatenate([a, rest[..., None]], -1).astype(np.float32))
    coefficients = cv2.resize(coefficients, (width, height), interpolation=cv2.INTER_LINEAR)
    out = coefficients[..., 3]
    for channel in range(3):
        out = out + coefficients[..., channel] * (picture[..., channel].astype(np.float32) / 255)
    return np.asarray(out)


def _mean_color(colors: Array, weight: Array, radius: float) -> Array:
    """[H, W, 3] weighted mean of the colors around each pixel; weight: [H, W]."""
    side = 2 * max(1, round(radius * max(weight.shape))) + 1
    total = cv2.blur(weight, (side, side))[..., None]
    return np.asarray(cv2.blur(colors * weight[..., None], (side, side)) / (total + 1e-5))


def in_bytes(alpha: Array) -> NDArray[np.uint8]:
    """A matte of 0..1 in 0..255."""
    return np.rint(alpha * 255).astype(np.uint8)


def foreground(picture: Image, alpha: Array) -> Image:
    """Foreground colors: of partly covered pixels, and extrapolated to uncovered ones.

    Args:
        picture: uint8 RGB [H, W, 3].
        alpha: [H, W] 0..1, matte.
    """
    image, a = picture.astype(np.float32), alpha[..., None]
    front = back = image
    for radius, power in zip(_COLOR_RADII, (4, 1), strict=True):  # first from nearly pure pixels only
        front, back = _mean_color(front, alpha**power, radius), _mean_color(back, (1 - alpha) ** power, radius)
        front = (front + a * (image - a * front - (1 - a) * back)).clip(0, 255)
    return np.rint(front).astype(np.uint8)


def check_backdrop(wanted: str | None) -> None:
    """Validate a background before any work, without reading files; None is the photo's own.

    Raises:
        InputError: if it is neither a file nor a color nor a keyword.
    """
    if wanted is None or wanted in (TRANSPARENT, BLUR) or Path(wanted).is_file():
        return
    try:
        ImageColor.getrgb(wanted)
    except ValueError:
        path = Path(wanted)
        why = "is a folder" if path.is_dir() else "no such file" if _is_path(path) else "is not a color"
        raise InputError(
            f"--background {wanted}: {why}; use the path of a picture, a color such as white or #00ff00, none, or blur."
        ) from None


def _is_path(given: Path) -> bool:
    return bool(given.suffix) or len(given.parts) > 1


def backdrop(wanted: str, read: Callable[[Path], Image]) -> Image | str:
    """Resolve the value of --background.

    Args:
        wanted: TRANSPARENT, BLUR, a CSS color, or the path of a picture.
        read: reads a picture.

    Returns:
        TRANSPARENT or BLUR unchanged; else a picture of any size (one pixel for a color).

    Raises:
        InputError: if it is none of these.
    """
    if wanted in (TRANSPARENT, BLUR):
        return wanted
    check_backdrop(wanted)
    try:
        color = ImageColor.getrgb(wanted)
    except ValueError:
        return read(Path(wanted))
    return np.array(color[:3], np.uint8)[None, None]


def blurred(picture: Image, alpha: Array) -> Image:
    """The picture's background out of focus; the person's colors are excluded from the blur."""
    behind = (1 - alpha) ** 8
    planes = np.dstack([picture * behind[..., None], behind]).astype(np.float32)
    out, missing = np.zeros(picture.shape, np.float32), np.ones((*alpha.shape, 1), np.float32)
    for radius in (_BLUR, 4 * _BLUR, 1.0):  # larger radii fill the inside of the person
        side = 2 * max(1, round(radius * max(alpha.shape))) + 1
        mean = cv2.blur(cv2.blur(planes, (side, side)), (side, side))  # twice: a soft disc, not a square
        color, known = mean[..., :3] / (mean[..., 3:] + 1e-6), mean[..., 3:]
        weight = missing * (np.clip((known - 0.02) * 4, 0, 1) if radius < 1 else 1)
        out += weight * color
        missing -= weight
    return np.rint(out.clip(0, 255)).astype(np.uint8)


def covering(picture: Image, width: int, height: int) -> Image:
    """The largest centered crop of a picture with this aspect ratio, resized to width and height."""
    k = max(width / picture.shape[1], height / picture.shape[0])
    size = max(width, round(picture.shape[1] * k)), max(height, round(picture.shape[0] * k))
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])
