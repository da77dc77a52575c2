"""Windows: the squares of a picture that the networks take, and conversion to their input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.config import NetworkConfig
from mimik.face.landmark_images import landmark_image
from mimik.face.landmarks import Array, Image
from mimik.rendering.crop import WINDOW_SCALE, Crop

_CLIP_SCALE = 1.8  # side of a prepared clip in face heights: the median of the clips made by `mimik prepare`


def to_planes(images: NDArray[np.uint8]) -> Array:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1], the networks' input."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(127.5) - 1


def clip_window(points: NDArray[Any]) -> Crop:
    """The square of prepared clips, which is the window of the paper's form."""
    return Crop.around(points, _CLIP_SCALE)


def window_around(points: NDArray[Any], side: float | None = None) -> Crop:
    """The window of the texture form in a frame.

    Args:
        points: [478, 3] face points of the frame.
        side: of the square; None: from the points.
    """
    window = Crop.around(points, WINDOW_SCALE)
    if side is None:
        return window
    return Crop(window.left + (window.side - side) / 2, window.top + (window.side - side) / 2, side)


def reduced(picture: Image, scale: float) -> Image:
    """A picture reduced by exactly scale (<= 1), with the top left corner fixed."""
    if scale >= 1:
        return picture
    height, width = (max(1, round(n * scale)) for n in picture.shape[:2])
    soft = cv2.GaussianBlur(picture, (0, 0), 0.4 / scale)
    shift = 0.5 * scale - 0.5  # pixel coordinates refer to centers
    matrix = np.array([[scale, 0, shift], [0, scale, shift]])
    return cv2.warpAffine(soft, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def to_network_size(frames: Image, config: NetworkConfig) -> Image:
    """uint8 [N, frame_px, frame_px, 3] -> [N, image_px, image_px, 3], the input of E and G."""
    if config.frame_px == config.image_px:
        return frames
    size = config.image_px, config.image_px
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def photo_windows(
    config: NetworkConfig, pictures: Sequence[Image], points: Sequence[Array]
) -> tuple[Image, Image, Array]:
    """Photos as input of a model.

    Args: as in embed_photos.

    Returns:
        Windows of the photos, uint8 RGB [T, frame_px, frame_px, 3]; their landmark images, image_px wide; points
        [T, 478, 3] in pixels of the landmark images.
    """
    px = config.image_px
    x, y, placed = [], [], []
    for picture, p in zip(pictures, points, strict=True):
        whole, scale = network_window(p, config)
        window = whole.scaled(scale)
        x.append(window.cut(reduced(picture, scale), config.frame_px))
        placed.append(window.to_unit(p * scale) * px)
        y.append(landmark_image(placed[-1], px, px, style=config.landmarks))
    return np.stack(x), np.stack(y), np.stack(placed).astype(np.float32)


def network_window(points: NDArray[Any], config: NetworkConfig) -> tuple[Crop, float]:
    """The window of a model in a photo, and the scale (<= 1) to which the photo is reduced before cropping."""
    window = clip_window(points) if config.form == "paper" else window_around(points)
    # Match the resolution of training frames, which are cropped from clips of 256 px.
    clip_px = config.frame_px * (1.0 if config.form == "paper" else WINDOW_SCALE / _CLIP_SCALE)
    return window, min(1.0, clip_px / window.side)
