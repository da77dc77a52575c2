"""Contact sheets: rows of pictures with captions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mimik.arrays import Array
from mimik.face.landmark_images import landmark_image
from mimik.face.landmarks import Image

CELL_PX, _LABEL_PX = 192, 22


def _cell(image: Image) -> Image:
    smaller = image.shape[0] > CELL_PX
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (CELL_PX, CELL_PX), interpolation=interpolation), np.uint8)


def comparison_sheet(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[Image]]]) -> Image:
    """Rows of pictures under column titles, each row with a caption."""
    width = len(titles) * CELL_PX
    parts = [_text_line(width, [(i * CELL_PX, title) for i, title in enumerate(titles)])]
    for name, cells in rows:
        parts += [np.concatenate([_cell(cell) for cell in cells], 1), _text_line(width, [(0, name)])]
    return np.concatenate(parts)


def _text_line(width: int, texts: Sequence[tuple[int, str]]) -> Image:
    line = np.full((_LABEL_PX, width, 3), 24, np.uint8)
    for x, text in texts:
        cv2.putText(line, text, (x + 4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
    return line


def film_strip(images: Image, points: Array, side: int) -> Image:
    """Six evenly spaced frames of an animation below the driver's landmarks, all resized to squares."""
    at = np.linspace(0, len(images) - 1, 6).round().astype(int)
    drawn = [_cell(landmark_image(points[i], side, side)) for i in at]
    return np.concatenate([np.concatenate(drawn, 1), np.concatenate([_cell(images[i]) for i in at], 1)])
