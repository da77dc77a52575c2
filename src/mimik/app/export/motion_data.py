"""Precomputed motion data, which a page plays without computing a flow."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.app.export.stage import Stage
from mimik.face.landmark_images import landmark_lines, mouth_interior
from mimik.face.landmarks import DETAILED
from mimik.motion.files import Motion
from mimik.rendering.flow import Flow
from mimik.rendering.mirror import opacity

_FLOW_UNITS = 8192  # flow units per side of the crop: 0.03 px of 256
_GEOMETRY_UNITS = 64
_POINT_UNITS = 16  # units per pixel of a landmark image
_SHADING_UNITS = 320  # of a logarithm: steps of 0.3 %
_APART_PX = 8  # smallest number of empty rows that separates two layers
_NUM_LAYERS = 2  # largest number of layer rectangles per frame: eyes and mouth
_NUM_NECKS = 2  # the same of the neck: both sides

Box = tuple[int, int, int, int]  # left, top, width, height
_EMPTY: Box = (0, 0, 0, 0)


def packed(parts: Sequence[NDArray[Any]]) -> bytes:
    """Encode integers as bytes that compress well with gzip: 2D differences, zigzag-coded.

    Args:
        parts: int8, uint8 or int16, all of the same type, [.., H, W] each.

    Returns:
        Zigzag-coded differences to the left and upper neighbors, modulo the type's range; for int16 all low bytes, then
            all high bytes.
    """
    kind = parts[0].dtype
    bits, modulus = 8 * kind.itemsize, 1 << 8 * kind.itemsize
    coded = []
    for part in parts:
        steps = part.astype(np.int64)
        for axis in (-1, -2):
            steps = np.diff(steps, axis=axis, prepend=0)
        steps = (steps + modulus // 2) % modulus - modulus // 2
        coded.append(((steps << 1 ^ steps >> (bits - 1)) % modulus).astype(np.uint16).ravel())
    zigzag = np.concatenate(coded)
    low = (zigzag & 255).astype(np.uint8).tobytes()
    return low + (zigzag >> 8).astype(np.uint8).tobytes() if kind.itemsize == 2 else low


@dataclass(frozen=True)
class _Cut:
    """Non-empty parts of frames, cropped to boxes."""

    name: str  # of the array
    unit: float  # scale of its values
    per_frame: int  # parts per frame
    fine: int  # values per box unit along each side
    boxes: list[Box]  # of all parts, frame by frame
    parts: list[NDArray[Any]]  # [planes, fine * height, fine * width] each

    def add(self, found: Sequence[tuple[Box, NDArray[Any]]]) -> None:
        """Append the parts of one frame, at most per_frame."""
        planes = self.parts[0].shape[0] if self.parts else found[0][1].shape[0]
        kind = self.parts[0].dtype if self.parts else found[0][1].dtype
        empty = (_EMPTY, np.zeros((planes, 0, 0), kind))
        for box, part in (*found, *[empty] * (self.per_frame - len(found))):
            self.boxes.append(box)
            self.parts.append(part)


class _Body:
    """The bytes of a motion file, and their record in export.json."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.arrays: list[dict[str, Any]] = []

    def add(self, name: str, values: NDArray[Any], unit: float, *, differences: bool = False) -> None:
        coding = "differences" if differences else "plain"
        about = {"name": name, "type": values.dtype.name, "shape": list(values.shape), "coding": coding, "unit": unit}
        self._append(about, packed([values]) if differences else values.tobytes())

    def add_cut(self, cut: _Cut) -> None:
        """Append the boxes as a separate array, then the concatenated parts."""
        self.add(f"{cut.name}_boxes", np.array(cut.boxes, "<i2"), 1.0)
        first = cut.parts[0]
        about = {"name": cut.name, "type": first.dtype.name, "planes": first.shape[0], "coding": "parts"}
        about |= {"unit": cut.unit, "per_frame": cut.per_frame, "fine": cut.fine, "boxes": f"{cut.name}_boxes"}
        self._append(about, packed(cut.parts))

    def _append(self, about: dict[str, Any], data: bytes) -> None:
        self.arrays.append(about | {"offset": len(self.data)})
        self.data += data + bytes(-len(data) % 4)  # align to 4 bytes


def motion_file(stage: Stage, motion: Motion, progress: Callable[[int, int], None]) -> tuple[bytes, dict[str, Any]]:
    """A motion retargeted to one person, as gzip-compressed data per frame; and its record for export.json."""
    texture = stage.config.form == "texture"
    px = stage.config.image_px
    drawn = sorted({point for index, _, _ in landmark_lines(stage.config.landmarks) for point in index})
    windows, points, flows, geometries, shadings = [], [], [], [], []
    cuts = [
        _Cut("details", 1 / _FLOW_UNITS, len(DETAILED), 3, [], []),
        _Cut("mirror", 1 / _FLOW_UNITS, 1, 1, [], []),
        _Cut("interior", 1.0, 1, 1, [], []),
        _Cut("layers", 1.0, _NUM_LAYERS, 1, [], []),
        _Cut("seen_layers", 1.0, _NUM_LAYERS, 1, [], []),
        _Cut("neck", 1.0, _NUM_NECKS, 1, [], []),
        _Cut("ears", 1 / 255, 1, 1, [], []),
    ]
    for done, target in enumerate(stage.targets(motion), start=1):
        window = stage.window_at(target)
        windows.append((window.left, window.top, stage.gate(target), stage.shown(target)))
        at = window.to_unit(target)[drawn, :2] * px * _POINT_UNITS
        points.append(at.round().clip(-(2**15), 2**15 - 1).astype(np.int16))
        if texture:
            flow = stage.warper.flow(target)
            flows.append(_in_units(flow.offset))
            maps = flow.maps(stage.warper.crop, window, px // 2) * _GEOMETRY_UNITS
            geometries.append(maps.round().clip(-128, 127).astype(np.int8))
            shading = stage.shading(flow)[None] * _SHADING_UNITS
            shadings.append(shading.round().clip(-128, 127).astype(np.int8))
            frame_px = stage.config.frame_px
            interior = mouth_interior(window.to_unit(target) * frame_px, frame_px, frame_px)
            found: tuple[list[tuple[Box, NDArray[Any]]], ...] = (
                _details(flow),
                [_mirror(flow, has_matte=stage.matte is not None)],
                [_trimmed(interior[None])],
                _rows(stage.layers(flow)),
                _rows(stage.layers_in(window, flow)),
                stage.necks(target) or [(_EMPTY, np.zeros((4, 0, 0), np.uint8))],
                [_trimmed(stage.ears(flow)[None])],
            )
            for cut, parts in zip(cuts, found, strict=True):
                cut.add(parts)
        progress(done, len(motion))
    body = _Body()
    body.add("windows", np.array(windows, "<f4"), 1.0)
    body.add("points", np.array(points, "<i2"), 1 / _POINT_UNITS)
    if texture:
        body.add("flow", np.stack(flows), 1 / _FLOW_UNITS, differences=True)
        body.add("geometry", np.stack(geometries), 1 / _GEOMETRY_UNITS, differences=True)
        body.add("shading", np.stack(shadings), 1 / _SHADING_UNITS, differences=True)
        for cut in cuts:
            body.add_cut(cut)
    record = {"fps": motion.fps, "num_frames": len(motion), "arrays": body.arrays}
    return gzip.compress(bytes(body.data), 6, mtime=0), record


def _in_units(field: NDArray[Any]) -> NDArray[np.int16]:
    """[h, w, planes] -> [planes, h, w] in flow units of the file."""
    return (field * _FLOW_UNITS).round().clip(-(2**15), 2**15 - 1).astype(np.int16).transpose(2, 0, 1)


def _details(flow: Flow) -> list[tuple[Box, NDArray[Any]]]:
    """The detail grids of a flow, with boxes in cells of its grid."""
    found = []
    for part in flow.details:
        (top, bottom), (left, right) = ((edge.start, edge.stop) for edge in (part.rows, part.columns))
        found.append(((left, top, right - left, bottom - top), _in_units(part.offset)))
    return found


def _mirror(flow: Flow, *, has_matte: bool) -> tuple[Box, NDArray[np.int16]]:
    """The mirrored source of a flow: x, y, weight, opacity and own over a box in cells of its grid.

    Without a matte, opacity is 1.
    """
    mirror = flow.mirror
    if mirror is None:
        return _EMPTY, np.zeros((5, 0, 0), np.int16)
    rows, columns = mirror.rows, mirror.columns
    box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    ends = opacity(mirror.height) if has_matte else np.ones_like(mirror.weight)
    return box, _in_units(np.dstack([mirror.offset, mirror.weight, ends, mirror.own]))


def _rows(layers: NDArray[np.uint8]) -> list[tuple[Box, NDArray[Any]]]:
    """Split layers, RGBA [H, W, 4], into at most two boxes, one above the other, at the largest gap of empty rows."""
    planes = layers.transpose(2, 0, 1)
    rows = np.flatnonzero(layers.any((1, 2)))
    if not len(rows):
        return [_trimmed(planes)]
    gaps = np.diff(rows)
    widest = int(gaps.argmax()) if len(gaps) else 0
    if not len(gaps) or gaps[widest] < _APART_PX:
        return [_trimmed(planes)]
    middle = int(rows[widest]) + 1
    (left, top, width, height), lower = _trimmed(planes[:, middle:])
    return [_trimmed(planes[:, :middle]), ((left, top + middle, width, height), lower)]


def _trimmed(planes: NDArray[np.uint8]) -> tuple[Box, NDArray[np.uint8]]:
    """The bounding box of nonzero values in planes [N, H, W], and its content."""
    rows, columns = (np.flatnonzero(planes.any((0, axis))) for axis in (2, 1))
    if not len(rows):
        return _EMPTY, planes[:, :0, :0]
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return (left, top, right - left, bottom - top), np.ascontiguousarray(planes[:, top:bottom, left:right])
