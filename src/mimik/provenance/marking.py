"""Marks of synthetic frames: the watermark, and the optional visible label."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.config import MODEL_SUFFIX
from mimik.media import video
from mimik.media.video import Rgb
from mimik.provenance.watermark import Payload, WatermarkEmbedder

# Model names by their number in the watermark; published files contain the numbers, so they must not change.
MODEL_NUMBERS = {
    0: "an unnamed model",
    1: "geometry",
    2: "texture",
    3: "a model fine-tuned to one person",
    4: "a model of the maker's own",
}


def model_number(model: str) -> int:
    """The watermark's number for a model name of a Claim."""
    for number, name in MODEL_NUMBERS.items():
        if model == name:
            return number
    if re.search(", (fine-tuned|from scratch)$", model):
        return 3
    return 4 if model.endswith(MODEL_SUFFIX) else 0


class Marker:
    """Marks the frames of one output: a file, a folder of frames or a live stream.

    Its only state is the frame size, which may change between frames.

    >>> marker = Marker("geometry", label=True)
    >>> marked = marker.mark(frame)
    """

    def __init__(self, model: str, *, label: bool = False, is_video: bool = True) -> None:
        """Args:
        model: as in Claim.
        label: whether to burn in the visible label.
        is_video: whether a video codec follows; pictures need a weaker watermark.
        """
        self.payload = Payload(model_number(model), secrets.randbits(32))
        self.has_label = label
        self._is_video = is_video
        self._embedder: WatermarkEmbedder | None = None

    def mark(self, frame: Rgb) -> Rgb:
        """A marked copy of uint8 RGB [H, W, 3]; takes about 2 ms at 512 x 512.

        For RGBA [H, W, 4], the colors are marked. Alpha is unchanged except under the label, which is always visible.
        """
        if frame.shape[2] == 4:
            alpha = frame[..., 3]
            if self.has_label:
                alpha = np.maximum(alpha, _label_cover(*alpha.shape))
            return np.dstack([self.mark(np.ascontiguousarray(frame[..., :3])), alpha])
        return self._embedder_of(frame).embed(self.labeled(frame))

    def labeled(self, frame: Rgb) -> Rgb:
        """The frame, with the visible label if enabled."""
        return burn_label(frame) if self.has_label else frame

    def luma_marker(self, frame: Rgb) -> Callable[[NDArray[np.uint8]], None]:
        """A function that marks the luma plane of this frame after conversion; see video.Writer.write."""
        return self._embedder_of(frame).embed_luma

    def _embedder_of(self, frame: Rgb) -> WatermarkEmbedder:
        height, width = frame.shape[:2]
        embedder = self._embedder
        if embedder is None or (embedder.height, embedder.width) != (height, width):
            self._embedder = embedder = WatermarkEmbedder(height, width, self.payload, is_video=self._is_video)
        return embedder


def burn_label(frame: Rgb, scale: float = 1.0) -> Rgb:
    """A copy of uint8 RGB [H, W, 3] with a small "AI" at the lower right; scale 1 is 8 % of the shorter side."""
    labeled = frame.copy()
    side = min(frame.shape[:2])
    color, alpha = _label(max(16, round(side * 0.08 * scale)))
    height, width = alpha.shape[:2]
    margin = round(side * 0.03)
    if height + margin > frame.shape[0] or width + margin > frame.shape[1]:
        margin = 0
    bottom, right = frame.shape[0] - margin, frame.shape[1] - margin
    corner = labeled[max(0, bottom - height) : bottom, max(0, right - width) : right]
    color, alpha = color[: corner.shape[0], : corner.shape[1]], alpha[: corner.shape[0], : corner.shape[1]]
    corner[:] = np.rint(corner + (color - corner) * alpha)
    return labeled


@lru_cache(maxsize=8)
def _label_cover(height: int, width: int) -> Any:
    """[H, W] uint8 opacity of burn_label; 0 outside its corner."""
    white = np.full((height, width, 3), 255, np.uint8)
    return (255 - (burn_label(white) - burn_label(np.zeros_like(white)))).max(-1)


@lru_cache(maxsize=8)
def _label(height: int) -> tuple[Any, Any]:
    """White letters on a dark plate with round corners: color [h, w, 3] in 0..255 and opacity [h, w, 1] in 0..1."""
    fine = 8  # supersampling factor
    h, w = 100 * fine, 150 * fine
    plate, letters = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)
    radius = h // 4
    cv2.rectangle(plate, (radius, 0), (w - radius, h), 255, -1)
    cv2.rectangle(plate, (0, radius), (w, h - radius), 255, -1)
    for x in (radius, w - radius):
        for y in (radius, h - radius):
            cv2.circle(plate, (x, y), radius, 255, -1)
    # Draw lines instead of a font, because OpenCV's fonts and their rendering change between versions.
    left, top, bottom, stroke = 28 * fine, 22 * fine, 78 * fine, 11 * fine
    middle, right, i = 54 * fine, 80 * fine, 112 * fine
    bar = top + (bottom - top) * 2 // 3
    ends = [(left, bottom, middle, top), (middle, top, right, bottom), (i, top, i, bottom)]
    part = (bar - top) / (bottom - top)
    ends.append((round(middle - (middle - left) * part), bar, round(middle + (right - middle) * part), bar))
    for x0, y0, x1, y1 in ends:
        cv2.line(letters, (x0, y0), (x1, y1), 255, stroke)
    size = round(height * w / h), height
    plate, letters = (cv2.resize(one, size, interpolation=cv2.INTER_AREA)[..., None] / 255 for one in (plate, letters))
    return 255 * letters, np.maximum(letters, 0.62 * plate)


class MarkedWriter:
    """Marks the frames of one video and writes them to the file; a context manager."""

    def __init__(self, writer: video.Writer, marker: Marker | None) -> None:
        self._writer, self._marker = writer, marker

    def write(self, frame: Rgb) -> None:
        """Append one frame, uint8 RGB [height, width, 3], or RGBA if the writer was opened with alpha.

        Raises MediaError if it cannot be written (disk full, no permission).
        """
        if self._marker is None:
            self._writer.write(frame)
        elif self._writer.has_luma:
            self._writer.write(self._marker.labeled(frame), self._marker.luma_marker(frame))
        else:
            self._writer.write(self._marker.mark(frame))

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)


class Draft:
    """An unfinished output, yielded by `seal`. Frames are written only by write_image and open_writer.

    Attributes:
        path: draft file with the name and the format of the output, in a hidden folder.
        marker: None if the output is not synthetic.
    """

    def __init__(self, path: Path, marker: Marker | None) -> None:
        self.path, self.marker = path, marker
        self.is_used = False

    def write_image(self, picture: Rgb) -> None:
        """Write uint8 RGB [H, W, 3] or RGBA [H, W, 4]; see video.write_image."""
        self.is_used = True
        video.write_image(self.path, self.marker.mark(picture) if self.marker else picture)

    def open_writer(
        self,
        width: int,
        height: int,
        fps: float,
        *,
        quality: int = 18,
        audio_from: Path | None = None,
        alpha: bool = False,
    ) -> MarkedWriter:
        """Open a writer of a video, or of a folder of frames; see video.open_writer."""
        self.is_used = True
        writer = video.open_writer(self.path, width, height, fps, quality=quality, audio_from=audio_from, alpha=alpha)
        return MarkedWriter(writer, self.marker)
