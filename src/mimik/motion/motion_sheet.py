"""A picture of a whole motion: faces at even steps over curves."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.config import counted
from mimik.face import landmarks as faces
from mimik.face.landmark_images import Color, landmark_image, write_label
from mimik.face.landmarks import Image
from mimik.motion.files import Motion
from mimik.motion.frames import rotation_matrix


def motion_sheet(motion: Motion, *, columns: int = 8, cell_px: int = 180) -> Image:
    """A picture of a motion: drawings of the driver's face at even steps, above curves of pose and openings.

    Args:
        motion: at least one frame.
        columns: faces in the row.
        cell_px: width and height of a face.

    Returns:
        uint8 RGB [H, W, 3].
    """
    at = np.linspace(0, len(motion) - 1, min(columns, len(motion))).round().astype(int)
    width = columns * cell_px
    row = np.zeros((cell_px, width, 3), np.uint8)
    for column, i in enumerate(at):
        shape = motion.reference.shape + motion.offset[i]
        turned = shape @ (rotation_matrix(motion.turn[i]) @ motion.reference.rotation).T
        moved = (turned + motion.shift[i] * [1, 1, 0]) * np.exp(motion.zoom[i])
        points = moved[:, :2] * (cell_px / 26) + cell_px / 2  # 26 cm across
        row[:, column * cell_px : (column + 1) * cell_px] = landmark_image(points, cell_px, cell_px)
    head = np.zeros((34, width, 3), np.uint8)
    lost = int((~motion.seen).sum())
    frames = f"{counted(len(motion), 'frame')} at {motion.fps:g}/s"
    text = f"{motion.name}   {motion.duration_s:.1f} s   {frames}   {lost} without a face"
    write_label(head, text, (10, 24), 0.6)
    return np.concatenate([head, row, _curves(motion, width)])


def _curves(motion: Motion, width: int, height: int = 150) -> Image:
    """Turn of the head in degrees, opening of mouth and eyes, over time."""
    out = np.full((height, width, 3), 16, np.uint8)
    names = faces.BLENDSHAPES
    smile = motion.blendshapes[:, [names.index("mouthSmileLeft"), names.index("mouthSmileRight")]].mean(1)
    blink = motion.blendshapes[:, [names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]].mean(1)
    curves: tuple[tuple[str, NDArray[Any], Color], ...] = (
        ("jaw open", motion.blendshapes[:, names.index("jawOpen")], (255, 220, 0)),
        ("smile", smile, (0, 220, 120)),
        ("blink", blink, (255, 0, 255)),
        ("yaw, 1 is 40 degrees", -np.degrees(motion.turn[:, 1]) / 40, (120, 160, 255)),
        ("pitch", np.degrees(motion.turn[:, 0]) / 40, (255, 120, 90)),
    )
    x = np.linspace(8, width - 8, len(motion))
    middle = height * 0.62
    cv2.line(out, (8, round(middle)), (width - 8, round(middle)), (70, 70, 70), 1)
    for number, (name, values, color) in enumerate(curves):
        y = middle - values.clip(-1, 1) * height * 0.36
        line = np.round(np.stack([x, y], 1) * 16).astype(np.int32)
        cv2.polylines(out, [line], False, color, 2, cv2.LINE_AA, shift=4)
        write_label(out, name, (12 + number * min(250, width // 5), 20), 0.5, color)
    return out
