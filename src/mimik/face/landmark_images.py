"""Pictures of landmarks: the landmark image y, masks of eyes and mouth, and annotated pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image

Color = tuple[int, int, int]

# The paper's style: the authors' rasterizer draws these parts of the 68 points in these colors (docs/paper.md, 2).
_PAPER: tuple[tuple[Sequence[int], Color, bool], ...] = (
    (range(17), (255, 255, 255), False),  # jaw
    (range(17, 22), (255, 0, 0), False),  # the person's right brow
    (range(22, 27), (0, 255, 0), False),
    (range(27, 31), (0, 0, 255), False),  # bridge of the nose
    (range(31, 36), (0, 0, 255), False),  # nostrils
    (range(36, 42), (255, 0, 255), True),  # the person's right eye
    (range(42, 48), (0, 255, 255), True),
    (range(48, 60), (255, 255, 0), True),  # outer lips
)

# All detected contours: unlike the paper's style, also inner lips and irises, for speech and gaze.
LANDMARK_LINES: tuple[tuple[Sequence[int], Color, bool], ...] = (
    (faces.OVAL, (255, 255, 255), True),
    (faces.RIGHT_BROW[:5], (255, 0, 0), False),
    (faces.LEFT_BROW[:5], (0, 255, 0), False),
    ([168, 6, 197, 195, 5, 4, 1], (0, 0, 255), False),
    ([98, 97, 2, 326, 327], (0, 0, 255), False),
    ([*faces.RIGHT_EYE_UPPER, *faces.RIGHT_EYE_LOWER[-2:0:-1]], (255, 0, 255), True),
    ([*faces.LEFT_EYE_UPPER, *faces.LEFT_EYE_LOWER[-2:0:-1]], (0, 255, 255), True),
    ([*faces.LIPS_OUTER_UPPER, *faces.LIPS_OUTER_LOWER[-2:0:-1]], (255, 255, 0), True),
    ([*faces.LIPS_INNER_UPPER, *faces.LIPS_INNER_LOWER[-2:0:-1]], (255, 128, 0), True),
    (faces.RIGHT_IRIS[1:], (255, 128, 255), True),
    (faces.LEFT_IRIS[1:], (128, 255, 255), True),
)
STYLES = ("paper", "full", "smooth")


def landmark_lines(style: str) -> list[tuple[list[int], Color, bool]]:
    """The lines of a landmark image of this style: indices of the 478 points, color, whether the line is closed.

    Raises ValueError if there is no such style.
    """
    if style not in STYLES:
        raise ValueError(f"style {style!r}: use one of {', '.join(STYLES)}")
    if style == "paper":
        return [([faces.POINTS_68[i] for i in index], color, closed) for index, color, closed in _PAPER]
    return [(list(index), color, closed) for index, color, closed in LANDMARK_LINES]


_SHIFT = 4  # fractional bits of a coordinate
SOFT_EDGE = 0.03  # sigma of mouth_interior's edge, in units of the distance between the outer eye corners


def landmark_image(points: NDArray[Any], width: int, height: int, *, style: str = "full") -> Image:
    """The landmark image y: lines on black.

    Styles "paper" and "full" draw lines 2 px thick without anti-aliasing, as the paper's authors do. "smooth" draws
    anti-aliased lines, because lines that jump from pixel to pixel cause jitter in the output.

    Args:
        points: [478, 2 or 3] in pixels of the image.
        width, height: of the image, in pixels.
        style: "paper" draws the 68 points, without inner lips and irises; "full" also draws these; "smooth" draws the
            same as "full" with subpixel accuracy.

    Returns:
        uint8 RGB [height, width, 3].
    """
    image = np.zeros((height, width, 3), np.uint8)
    for index, color, closed in landmark_lines(style):
        if style == "smooth":
            line = np.round((points[index, :2] - 0.5) * 2**_SHIFT).astype(np.int32)
            cv2.polylines(image, [line], closed, color, thickness=1, lineType=cv2.LINE_AA, shift=_SHIFT)
            continue
        line = np.floor(points[index, :2]).astype(np.int32)  # the pixel that contains the point
        cv2.polylines(image, [line], closed, color, thickness=2, lineType=cv2.LINE_8)
    return image


def feature_mask(points: NDArray[Any], width: int, height: int) -> Image:
    """Mask of eyes and mouth with a margin.

    Args:
        points: [478, 2 or 3] in pixels of the image.
        width, height: of the image, in pixels.

    Returns:
        uint8 [height, width], 255 inside.
    """
    mask = np.zeros((height, width), np.uint8)
    margin = int(feature_margins(points))
    for part in faces.DETAILED:
        hull = cv2.convexHull(np.round(points[part, :2] - 0.5).astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 255)
        cv2.polylines(mask, [hull], True, 255, thickness=margin)
    return mask


def _across_eyes(points: NDArray[Any]) -> NDArray[np.float64]:
    """[..] distance between the outer eye corners of points [.., 478, 2+]."""
    return np.linalg.norm(points[..., faces.RIGHT_EYE_UPPER[0], :2] - points[..., faces.LEFT_EYE_UPPER[0], :2], axis=-1)


def feature_margins(points: NDArray[Any]) -> NDArray[np.float64]:
    """[..] thickness of the line around each part of a feature mask, pixels; points: [.., 478, 2+]."""
    return np.maximum(1, np.round(0.12 * _across_eyes(points).astype(float)))


def mouth_openings(points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Inner lip contours [.., 20, 2], lip opening [..] and eye distance [..] of points [.., 478, 2+]."""
    upper, lower = points[..., faces.LIPS_INNER_UPPER, :2], points[..., faces.LIPS_INNER_LOWER, :2]
    down = points[..., faces.CHIN, :2] - points[..., 10, :2]
    down = down / np.maximum(np.linalg.norm(down, axis=-1, keepdims=True), 1e-6)
    opening = ((lower - upper) @ down[..., None])[..., 0].max(-1).clip(0)
    return np.concatenate([upper, lower[..., -2:0:-1, :]], -2), opening, _across_eyes(points)


def mouth_interior(points: NDArray[Any], width: int, height: int) -> Image:
    """A soft mask of the area between the inner lips.

    Args:
        points: [478, 2 or 3] in pixels of the image.
        width, height: of the image, in pixels.

    Returns:
        uint8 [height, width]; 255 inside, 0 outside and where the lips touch or cross.
    """
    mask = np.zeros((height, width), np.uint8)
    outline, opening, eyes = mouth_openings(points)
    if opening < 1:
        return mask
    cv2.fillPoly(mask, [np.round((outline - 0.5) * 2**_SHIFT).astype(np.int32)], 255, cv2.LINE_AA, shift=_SHIFT)
    sigma = max(SOFT_EDGE * float(eyes), 0.5)
    x, y, w, h = cv2.boundingRect(mask)
    margin = math.ceil(4 * sigma) + 1  # extent of the blur
    part = slice(max(y - margin, 0), y + h + margin), slice(max(x - margin, 0), x + w + margin)
    mask[part] = cv2.GaussianBlur(mask[part], (0, 0), sigma)
    return mask


def annotate(picture: Image, found: Sequence[Face]) -> Image:
    """The picture with the contours and the number of each face, as used by `--face N`."""
    out = picture.copy()
    for number, face in enumerate(found, start=1):
        thickness = max(1, round(face.width_px / 120))
        for index, color, closed in LANDMARK_LINES:
            line = np.round(face.points[list(index), :2] * 16).astype(np.int32)
            cv2.polylines(out, [line], closed, color, thickness, cv2.LINE_AA, shift=4)
        left, top, _, _ = face.box
        size = max(0.5, face.width_px / 130)
        write_label(out, str(number), (left, max(top - 6, 22 * size)), size)
    return out


def write_label(image: Image, text: str, at: tuple[float, float], size: float, color: Color = (255, 255, 255)) -> None:
    """Draw text with a dark outline into the image; at: lower left corner; size: 1 is about 22 px high."""
    place = round(at[0]), round(at[1])
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(image, text, place, font, size, (0, 0, 0), max(3, round(size * 5)), cv2.LINE_AA)
    cv2.putText(image, text, place, font, size, color, max(1, round(size * 1.6)), cv2.LINE_AA)
