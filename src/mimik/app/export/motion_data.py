"""Motions as numbers that a page plays without computing a flow."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.app.export.stage import Stage
from mimik.face.landmark_images import landmark_lines
from mimik.motion.files import Motion

_FLOW_UNITS = 8192  # a motion file's flow counts in this part of the crop's side: 0.03 px of 256
_GEOMETRY_UNITS = 64
_POINT_UNITS = 16  # of a landmark image's pixel


def packed(values: NDArray[Any]) -> bytes:
    """Integers as bytes that gzip makes small: differences to what is left and above, small ones first.

    Args:
        values: int8 or int16 [.., H, W].

    Returns:
        Zigzag-coded differences, modulo the type's range; of int16 all low bytes, then all high ones.
    """
    wide = values.dtype.itemsize == 2
    bits, modulus = (16, 1 << 16) if wide else (8, 1 << 8)
    steps = values.astype(np.int64)
    for axis in (-1, -2):
        steps = np.diff(steps, axis=axis, prepend=0)
    steps = (steps + modulus // 2) % modulus - modulus // 2
    zigzag = (steps << 1 ^ steps >> (bits - 1)) % modulus
    low = (zigzag & 255).astype(np.uint8).tobytes()
    return low + (zigzag >> 8).astype(np.uint8).tobytes() if wide else low


def unpacked(data: bytes, shape: tuple[int, ...], wide: bool) -> NDArray[Any]:
    """What packed packed; the page's player.js does the same."""
    count = int(np.prod(shape))
    planes = np.frombuffer(data, np.uint8).astype(np.int64)
    zigzag = planes[:count] + (planes[count:] << 8 if wide else 0)
    steps = (zigzag >> 1 ^ -(zigzag & 1)).reshape(shape)
    return steps.cumsum(-2).cumsum(-1).astype(np.int16 if wide else np.int8)


def motion_file(stage: Stage, motion: Motion, progress: Callable[[int, int], None]) -> tuple[bytes, dict[str, Any]]:
    """A motion put on one person, frame by frame, as numbers.

    Args:
        stage: the person.
        motion: what moves them.
        progress: is called with frames done and all frames.

    Returns:
        The file, gzip; and what export.json says of it.
    """
    texture = stage.config.form == "texture"
    px, crop = stage.config.image_px, stage.warper.crop
    drawn = sorted({point for index, _, _ in landmark_lines(stage.config.landmarks) for point in index})
    windows, points, flows, geometries, boxes, patches = [], [], [], [], [], []
    for done, target in enumerate(stage.targets(motion), start=1):
        window = stage.window_at(target)
        windows.append((window.left, window.top, stage.gate(target)))
        at = window.to_unit(target)[drawn, :2] * px * _POINT_UNITS
        points.append(at.round().clip(-(2**15), 2**15 - 1).astype(np.int16))
        if texture:
            flow = stage.flow(target)
            flows.append((flow.offset * _FLOW_UNITS).round().astype(np.int16).transpose(2, 0, 1))
            maps = flow.maps(crop, window, px // 2) * _GEOMETRY_UNITS
            geometries.append(maps.round().clip(-128, 127).astype(np.int8))
            box, patch = _trimmed(stage.painted(flow, window))
            boxes.append(box)
            patches.append(patch.tobytes())
        progress(done, len(motion))
    parts = [
        ("windows", np.array(windows, "<f4"), "plain", 1.0),
        ("points", np.array(points, "<i2"), "plain", 1 / _POINT_UNITS),
    ]
    if texture:
        parts += [
            ("flow", np.stack(flows), "differences", 1 / _FLOW_UNITS),
            ("geometry", np.stack(geometries), "differences", 1 / _GEOMETRY_UNITS),
            ("boxes", np.array(boxes, "<i2"), "plain", 1.0),
            ("patches", np.frombuffer(b"".join(patches), np.uint8), "plain", 1.0),
        ]
    body = b""
    arrays = []
    for name, array, coding, unit in parts:
        about = {"name": name, "type": array.dtype.name, "shape": list(array.shape), "coding": coding, "unit": unit}
        arrays.append(about | {"offset": len(body)})
        data = array.tobytes() if coding == "plain" else packed(array)
        body += data + bytes(-len(data) % 4)  # numbers of four bytes begin at a multiple of four
    record = {"fps": motion.fps, "num_frames": len(motion), "arrays": arrays}
    return gzip.compress(body, 6, mtime=0), record


def _trimmed(patch: NDArray[np.uint8]) -> tuple[tuple[int, int, int, int], NDArray[np.uint8]]:
    """Left, top, width, height of what is not empty, and that."""
    rows, columns = (np.flatnonzero(patch.any((axis, 2))) for axis in (1, 0))
    if not len(rows):
        return (0, 0, 0, 0), patch[:0, :0]
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return (left, top, right - left, bottom - top), np.ascontiguousarray(patch[top:bottom, left:right])
