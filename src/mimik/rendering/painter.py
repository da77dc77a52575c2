"""Warps a picture by a flow, and composites the layers for what the photo does not show."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face.landmarks import NUM_POINTS, Array, Image
from mimik.rendering.crop import Crop
from mimik.rendering.field import FINE, GRID, grid_centers
from mimik.rendering.flow import Flow, Warper
from mimik.rendering.layers.canvas import Box, Canvas, Overlay
from mimik.rendering.layers.eyes import EyeLayer
from mimik.rendering.layers.mouth import MouthLayer
from mimik.rendering.layers.opening import Opening
from mimik.rendering.layers.palette import is_black_and_white
from mimik.rendering.mirror import MirrorFlow, matched_light, opacity
from mimik.rendering.resampling import Texture, magnified, squeezed, squeezed_parts, supersampled
from mimik.rendering.shading import Shading

# Enlargement of the picture that frames are sampled from, and its largest size in bytes: the first that fits is used.
_SHEETS = ((3, 24 << 20), (2, 96 << 20))
_CUBIC = (-0.09375, 0.59375, 0.59375, -0.09375)  # weights of OpenCV's cubic interpolation halfway between pixels
_SHEET_MARGIN = 8  # photo pixels around the canvas that it includes
_BAND_PX = 1 << 18  # pixels processed at a time
_BAND_ROWS = 128  # largest height of a band, if only a part of each band is processed
_EAR_SAMPLES = 6  # samples per pixel, horizontally, of the mask of a hidden ear
_SHADED_ROWS = 64  # shaded at a time, so that they fit into the processor's cache
_UNSEEN = 1 / 255  # weight of supersampling below which it is skipped
_SMOOTH_SKIN = 6  # quarters of a gray level: amplitude of detail up to which it is not placed anew
_MATTE_CELLS = 2.5  # cells by which the matte is dilated before the test whether a cell shows it


@dataclass(frozen=True)
class _Sheet:
    """A part of the photo, enlarged; its pixels include the photo's.

    Attributes:
        pixels: uint8 RGBA.
        factor: by which it is enlarged.
        base: x [1, w] and y [h, 1] of the canvas pixels in this picture.
    """

    pixels: Image
    factor: int
    base: tuple[Array, Array]


@dataclass(frozen=True)
class _Maps:
    """A flow in pixels of the photo, or of a sheet.

    Attributes:
        base: x [1, w] and y [h, 1] of the canvas pixels.
        parts: the whole flow, then its details: planes of the offsets in x and y, pixels; first and last + 1 cell
            (x, y) of the flow's grid; refinement factor.
    """

    base: tuple[Array, Array]
    parts: list[tuple[Sequence[Array], tuple[int, int], tuple[int, int], int]]


class Painter:
    """Warps one picture by flows, at its own resolution.

    Attributes:
        canvas: the part that changes.
        shown: what frames show of the picture.
        is_gray: whether the picture is black-and-white.
    """

    def __init__(
        self,
        picture: Image,
        warper: Warper,
        scale: float = 1.0,
        *,
        is_reused: bool = False,
        matte: NDArray[np.uint8] | None = None,
        shown: Box | None = None,
    ) -> None:
        """Args:
        picture: uint8 RGB [H, W, 3], the photo of the warper, resized by scale.
        warper: of the photo.
        scale: size of the picture relative to the photo.
        is_reused: whether many frames are painted. The photo is then enlarged once and sampled bilinearly, in a third
            of the time of bicubic sampling; the results differ by half a gray level on average.
        matte: [H, W], warped with the picture. If is_reused, pixels where it is 0 need not be warped.
        shown: what frames show of the picture; the rest may move into it. None: all of it.
        """
        self._picture, self._warper, self._is_reused = picture, warper, is_reused
        crop = warper.crop.scaled(scale)
        self.canvas = Canvas.of(picture, crop)
        self.shown = shown or Box.of(picture)
        self._visible = self.canvas.within(self.shown)
        corner = np.array([self._visible.left - self.canvas.left, self._visible.top - self.canvas.top])
        self._first = corner + self.shown.corner[:2]  # of the visible canvas, in pixels of the canvas
        self._cells_per_px = GRID / crop.side
        self._corner = self.canvas.left - crop.left, self.canvas.top - crop.top  # of the canvas, in pixels of the crop
        # x and y of the canvas pixels in the picture.
        self._base = (
            self.canvas.left + np.arange(self.canvas.size[0], dtype=np.float32)[None],
            self.canvas.top + np.arange(self.canvas.size[1], dtype=np.float32)[:, None],
        )
        self._contours = (warper.contours(0), warper.contours(1))
        self._eyes: list[EyeLayer | None] = [None, None]
        self._textures: list[tuple[Texture, NDArray[np.uint8]] | None] = [None, None]
        self.is_gray = is_black_and_white(picture, crop, warper.source)
        self._mouth = MouthLayer(picture, self.canvas, warper.jaws, self.is_gray)
        self._matte = matte
        self._painted = threading.local()  # frames are painted in several threads

    @property
    def moved_matte(self) -> NDArray[np.uint8]:
        """The warped matte of the visible canvas, for the frame that this thread painted last."""
        return self._painted.matte

    def paint(self, flow: Flow, overlays: Sequence[Overlay] | None = None) -> Image:
        """What is shown of the picture, warped by the flow, with overlays; unchanged outside the crop.

        Args: overlays: to composite; None: those of the flow.
        """
        out = self.carry(self._picture, flow)
        self.complete(out, flow, overlays)
        self._shade(self._visible.part(out), flow, self._first)
        return out

    def window(self, flow: Flow, overlays: Sequence[Overlay], square: Crop, px: int) -> Image:
        """A square of the warped picture with overlays, resized to px; only this square is computed."""
        height, width = self._picture.shape[:2]
        low = (np.floor([square.left, square.top]).astype(int) - 1).clip(0, np.array([width, height]) - 1)
        high = (np.ceil([square.left + square.side, square.top + square.side]).astype(int) + 1).clip(1, [width, height])
        out = self._picture[low[1] : high[1], low[0] : high[0]].copy()
        corner = np.array([self.canvas.left, self.canvas.top])
        first, last = (low - corner).clip(0, self.canvas.size), (high - corner).clip(0, self.canvas.size)
        if (last > first).all():
            (left, top), (right, bottom) = first + corner - low, last + corner - low
            region = out[top:bottom, left:right]
            self._carry(region, self._picture, flow, first, covers=False)
            self._complete(region, flow, overlays, first)
            self._shade(region, flow, first)
        return Crop(square.left - low[0], square.top - low[1], square.side).cut(out, px)

    @cached_property
    def _sheet(self) -> _Sheet | None:
        """The enlarged canvas of the photo; None if the picture is not reused, or the sheet would be too large."""
        left, top = (max(edge - _SHEET_MARGIN, 0) for edge in (self.canvas.left, self.canvas.top))
        right, bottom = (edge + n + _SHEET_MARGIN for edge, n in zip((left, top), self.canvas.size, strict=True))
        part = self._picture[top:bottom, left:right]
        height, width = part.shape[:2]
        factor = next((by for by, most in _SHEETS if 4 * height * width * by**2 <= most), None)
        if not self._is_reused or factor is None:
            return None
        four = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)  # cv2.remap is fastest with four channels
        if self._matte is not None:
            four[..., 3] = self._matte[top:bottom, left:right]
        if factor == 2:
            pixels, middle = _doubled(four), 0
        else:
            pixels = cv2.resize(four, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
            middle = factor // 2  # center of the block that a pixel becomes
        x, y = (factor * (base - edge) + middle for base, edge in zip(self._base, (left, top), strict=True))
        return _Sheet(pixels, factor, (x, y))

    def carry(self, plane: NDArray[np.uint8], flow: Flow) -> NDArray[np.uint8]:
        """What is shown of the picture, or of a plane [H, W] of its size, warped by the flow, without overlays."""
        out = self.shown.part(plane).copy()
        self._carry(self._visible.part(out), plane, flow, self._first)
        return out

    def _carry(
        self,
        part: NDArray[np.uint8],
        plane: NDArray[np.uint8],
        flow: Flow,
        left_top: NDArray[np.int_],
        *,
        covers: bool = True,
    ) -> None:
        """Warp a plane of the picture into a part of the canvas that begins at left_top.

        Args: covers: pixels outside the warped matte are not shown and may be skipped.
        """
        sheet = self._sheet if plane is self._picture else None
        matte = self._matte if plane is self._picture else None
        height, width = part.shape[:2]
        if matte is not None:
            self._painted.matte = np.zeros((height, width), np.uint8)
        covered = self._covered(flow) if covers and matte is not None and self._is_reused else None
        maps = self._maps(flow, sheet)
        weight = squeezed(flow.offset) if covers else None
        larger = self._magnified(flow) if covers and plane is self._picture else []
        rows = max(_BAND_PX // max(width, 1), 16) if sheet is not None else max(height, 1)
        if covered is not None:
            rows = min(rows, _BAND_ROWS)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            left, right = self._columns(covered, left_top, width, top, bottom)
            if left >= right:
                continue
            band = slice(top, bottom), slice(left, right)
            x, y = self._places(maps, left_top + np.array([left, top]), left_top + np.array([right, bottom]))
            if sheet is None:
                part[band] = cv2.remap(plane, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
                self._average(part[band], plane, x, y, weight, left_top + np.array([left, top]))
                self._add_detail(part[band], x, y, larger, left_top + np.array([left, top]), None)
                if matte is not None:
                    found = cv2.remap(matte, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                    self._average(found, matte, x, y, weight, left_top + np.array([left, top]))
                    self.moved_matte[band] = found
                continue
            four = cv2.remap(sheet.pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            self._average(four, sheet.pixels, x, y, weight, left_top + np.array([left, top]))
            self._add_detail(four, x, y, larger, left_top + np.array([left, top]), sheet)
            part[band] = cv2.cvtColor(four, cv2.COLOR_RGBA2RGB)
            if matte is not None:
                self.moved_matte[band] = cv2.extractChannel(four, 3)
        if matte is not None and flow.ears:
            self.remove_ears(self.moved_matte, flow, left_top)
        if flow.mirror is not None:
            other = self._lit if plane is self._picture else plane
            self._add_other_side(part, left_top, other, flow.mirror, self.moved_matte if matte is not None else None)

    def _average(
        self,
        found: NDArray[np.uint8],
        source: NDArray[np.uint8],
        x: Array,
        y: Array,
        weight: Array | None,
        left_top: NDArray[np.int_],
    ) -> None:
        """Supersample, in place, pixels where the warp minifies the source; see resampling.

        Args:
            found: the warped pixels.
            source: the picture they were sampled from, at x and y.
            weight: [GRID, GRID] result of squeezed.
            left_top: of found, in canvas pixels.
        """
        if weight is None:
            return
        height, width = found.shape[:2]
        (share,) = self._sample([weight], (0, 0), 1, left_top, (width, height))
        for run in squeezed_parts(share > _UNSEEN):
            mean, kept = supersampled(source, x[run], y[run]), share[run]
            found[run] = cv2.blendLinear(mean, np.ascontiguousarray(found[run]), kept, 1 - kept)

    def _add_detail(
        self,
        found: Image,
        x: Array,
        y: Array,
        larger: Sequence[tuple[Texture, Array, Array]],
        left_top: NDArray[np.int_],
        sheet: _Sheet | None,
    ) -> None:
        """Place detail anew, in place, where the warp magnifies the picture; see resampling.

        Args:
            found: the warped pixels, uint8 [h, w, 3 or 4].
            x, y: their positions in the sheet, or in the picture.
            larger: result of _magnified.
            left_top: of found, in canvas pixels.
        """
        first, factor = (self._base, 1) if sheet is None else (sheet.base, sheet.factor)
        x0, y0, k = first[0][0, 0], first[1][0, 0], np.float32(1 / factor)
        height, width = found.shape[:2]
        for texture, *maps in larger:
            for top in range(0, height, _SHADED_ROWS):
                rows = slice(top, min(top + _SHADED_ROWS, height))
                left, right = self._columns(maps[1] > _UNSEEN, left_top, width, rows.start, rows.stop)
                if left >= right:
                    continue
                run = rows, slice(left, right)
                size = right - left, rows.stop - top
                by, share = self._sample(maps, (0, 0), 1, left_top + np.array([left, top]), size)
                change = texture.change((x[run] - x0) * k, (y[run] - y0) * k, by)
                change *= share
                planes = [change] * 3 + [np.zeros_like(change)] * (found.shape[2] - 3)
                found[run] = cv2.add(np.ascontiguousarray(found[run]), cv2.merge(planes), dtype=cv2.CV_8U)

    def _magnified(self, flow: Flow) -> list[tuple[Texture, Array, Array]]:
        """The textures of the axes along which a flow magnifies the picture, each with the result of magnified.

        The weight is 0 where the picture has no detail that may be placed anew. Where both axes are magnified, the
        horizontal one has priority.
        """
        out = []
        rest = np.ones((GRID, GRID), np.float32)
        for number, found in enumerate(magnified(flow.offset, self._axes)):
            if found is None:
                continue
            texture, cells = self._texture(number)
            share = found[1] * rest * (self._moved_cells(cells, flow) > 0)
            rest *= 1 - found[1]
            if share.any():
                out.append((texture, found[0], share))
        return out

    @cached_property
    def _axes(self) -> NDArray[np.float64]:
        """[2, 2] unit vectors in the picture: horizontal axis of the head, and the one perpendicular to it."""
        x, y = self._warper.jaws.skull.rotation[:2, 0]
        return np.array([(x, y), (-y, x)]) / max(math.hypot(x, y), 1e-9)

    def _texture(self, number: int) -> tuple[Texture, NDArray[np.uint8]]:
        """The canvas's texture along an axis; and [GRID, GRID] above 0 where it has detail, and beside it.

        Computed when a flow first magnifies the picture.
        """
        if self._textures[number] is None:
            matte = None if self._matte is None else self.canvas.part(self._matte)
            points = self.canvas.place(self._warper.source[:NUM_POINTS, :2])
            texture = Texture(self.canvas.part(self._picture), points, self._axes[number], matte)
            square = Crop(-self._corner[0], -self._corner[1], self.canvas.crop.side)
            cells = square.cut((texture.amplitude > _SMOOTH_SKIN).astype(np.uint8) * 255, GRID)
            self._textures[number] = texture, np.asarray(cv2.dilate(cells, np.ones((3, 3), np.uint8)))
        found = self._textures[number]
        assert found is not None
        return found

    def remove_ears(self, matte: NDArray[np.uint8], flow: Flow, left_top: NDArray[np.int_]) -> None:
        """Make hidden ears transparent in the warped matte of a part of the canvas that begins at left_top."""
        maps = self._maps(flow)
        for ear in flow.ears:
            mask = self._ear_masks[ear.side]
            if mask is None:
                continue
            shape = matte.shape
            first, last = (tuple((edge * GRID).astype(int).tolist()) for edge in (ear.low, ear.high))
            low, high = (np.array(edge).clip(left_top, left_top + shape[::-1]) for edge in self._pixels(first, last))
            if (high <= low).any():
                continue
            # The outline is compressed sideways: several samples per pixel.
            x, y = (
                cv2.resize(plane, (_EAR_SAMPLES * plane.shape[1], plane.shape[0]), interpolation=cv2.INTER_LINEAR)
                for plane in self._places(maps, low, high)
            )
            found = cv2.remap(mask, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            found = cv2.resize(found, tuple((high - low).tolist()), interpolation=cv2.INTER_AREA)
            (left, top), (right, bottom) = low - left_top, high - left_top
            part = matte[top:bottom, left:right]
            kept = cv2.convertScaleAbs(found, alpha=-ear.share, beta=255)
            cv2.multiply(part, kept, dst=part, scale=1 / 255)

    @cached_property
    def _ear_masks(self) -> list[NDArray[np.uint8] | None]:
        assert self._matte is not None
        return [self._warper.ear_mask(self._picture, self._matte, self.canvas.crop, side) for side in (0, 1)]

    @cached_property
    def _cover(self) -> NDArray[np.uint8]:
        """[GRID, GRID] dilated matte on the grid."""
        assert self._matte is not None
        side = 2 * int(np.ceil(_MATTE_CELLS / self._cells_per_px)) + 1
        return self.canvas.crop.cut(cv2.dilate(self._matte, np.ones((side, side), np.uint8)), GRID)

    def _covered(self, flow: Flow) -> NDArray[np.bool_]:
        """[GRID, GRID] cells in which a frame may show the matte; other cells need not be warped."""
        covered = cv2.dilate(self._moved_cells(self._cover, flow), np.ones((3, 3), np.uint8)) > 0
        if flow.mirror is not None:
            covered[flow.mirror.rows, flow.mirror.columns] = True
        return covered

    @staticmethod
    def _moved_cells(cells: NDArray[np.uint8], flow: Flow) -> NDArray[np.uint8]:
        """A plane [GRID, GRID] of the photo's cells, warped."""
        places = grid_centers().reshape(GRID, GRID, 2) * np.float32(GRID) - np.float32(0.5)
        places = places + flow.offset * np.float32(GRID)
        return np.asarray(cv2.remap(cells, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))

    def _columns(
        self, covered: NDArray[np.bool_] | None, left_top: NDArray[np.int_], width: int, top: int, bottom: int
    ) -> tuple[int, int]:
        """First and last + 1 covered column of the rows from top to bottom of a part, width pixels wide."""
        if covered is None:
            return 0, width
        k = self._cells_per_px
        x, y = (int(edge) + corner for edge, corner in zip(left_top, self._corner, strict=True))
        first, last = int((y + top) * k) - 1, int((y + bottom) * k) + 2
        columns = np.flatnonzero(covered[max(first, 0) : last].any(0))
        if not len(columns):
            return 0, 0
        left, right = (int(columns[0]) - 0.5) / k - x, (int(columns[-1]) + 1.5) / k - x
        if columns[0] == 0:
            left = 0
        if columns[-1] == GRID - 1:
            right = width
        return max(int(left), 0), min(math.ceil(right), width)

    def _maps(self, flow: Flow, sheet: _Sheet | None = None) -> _Maps:
        """The flow in pixels of the picture, or of the sheet if one is given."""
        base, enlarged = (self._base, 1) if sheet is None else (sheet.base, sheet.factor)
        k = np.float32(enlarged * self.canvas.crop.side)
        parts = [(flow.offset, (0, 0), (GRID, GRID), 1)]
        for detail in flow.details:
            first, last = (detail.columns.start, detail.rows.start), (detail.columns.stop, detail.rows.stop)
            parts.append((detail.offset, first, last, FINE))
        return _Maps(base, [(cv2.split(offset * k), first, last, fine) for offset, first, last, fine in parts])

    def _places(self, maps: _Maps, left_top: NDArray[np.int_], right_bottom: NDArray[np.int_]) -> list[Array]:
        """Sampling positions of a rectangle of the canvas: x and y, float32 [h, w] each."""
        left, top, right, bottom = (int(edge) for edge in (*left_top, *right_bottom))
        (planes, *_), *details = maps.parts
        places = self._sample(planes, (0, 0), 1, (left, top), (right - left, bottom - top))
        for planes, first, last, fine in details:
            (x0, y0), (x1, y1) = self._pixels(first, last)
            x0, y0, x1, y1 = max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)
            if x1 > x0 and y1 > y0:
                parts = self._sample(planes, first, fine, (x0, y0), (x1 - x0, y1 - y0))
                for plane, part in zip(places, parts, strict=True):
                    plane[y0 - top : y1 - top, x0 - left : x1 - left] = part
        places[0] += maps.base[0][:, left:right]
        places[1] += maps.base[1][top:bottom]
        return places

    def _pixels(self, first: tuple[int, int], last: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and last + 1 canvas pixel (x, y) whose centers lie between the centers of the cells first to last."""
        k, size = self._cells_per_px, self.canvas.size
        low = (math.ceil((cell + 0.5) / k - at - 0.5) for cell, at in zip(first, self._corner, strict=True))
        high = (math.floor((cell - 0.5) / k - at + 0.5) for cell, at in zip(last, self._corner, strict=True))
        (x0, y0), (x1, y1) = (
            tuple(min(max(edge, 0), most) for edge, most in zip(edges, size, strict=True)) for edges in (low, high)
        )
        return (x0, y0), (x1, y1)

    def _add_other_side(
        self,
        part: NDArray[np.uint8],
        left_top: NDArray[np.int_],
        other: NDArray[np.uint8],
        mirror: MirrorFlow,
        moved_matte: NDArray[np.uint8] | None,
    ) -> None:
        """Blend the second source into a warped part of the canvas that begins at left_top; in place.

        Args:
            other: the picture to sample: relit for the mirrored side.
            moved_matte: of the part; the matte of the second source is added to it, in place.
        """
        first, last = (mirror.columns.start, mirror.rows.start), (mirror.columns.stop, mirror.rows.stop)
        low, high = (np.array(edge).clip(left_top, left_top + part.shape[1::-1]) for edge in self._pixels(first, last))
        if (high <= low).any():
            return
        planes = [*cv2.split(mirror.offset), mirror.weight, mirror.height, mirror.own]
        x, y, weight, height, keeps = self._sample(planes, first, 1, low, high - low)
        x, y = (
            plane * np.float32(self.canvas.crop.side) + base
            for plane, base in ((x, self._base[0][:, low[0] : high[0]]), (y, self._base[1][low[1] : high[1]]))
        )
        found = cv2.remap(other, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        (left, top), (right, bottom) = low - left_top, high - left_top
        if self._matte is not None:
            share = cv2.remap(self._matte, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) * opacity(height)
            moved = np.full_like(share, 255) if moved_matte is None else moved_matte[top:bottom, left:right]
            added = weight * (share + keeps * (moved - share))
            total = moved * (1 - weight) + added
            moved[...] = np.rint(total)
            weight = added / np.maximum(total, 1e-3)
        under = np.ascontiguousarray(part[top:bottom, left:right])
        part[top:bottom, left:right] = cv2.blendLinear(found, under, weight, 1 - weight)

    @cached_property
    def _lit(self) -> Image:
        """The picture, relit for use as the second source; computed when a turn first needs it."""
        return self._for_other_side(self._picture)

    @cached_property
    def _lit_lips(self) -> Image:
        """The same of the picture with inpainted lips."""
        return self._for_other_side(self._mouth.rims.continued)

    def _for_other_side(self, picture: Image) -> Image:
        points = self.canvas.crop.from_unit(self._warper.source[:NUM_POINTS])
        return matched_light(picture, points, self._warper.facing[:NUM_POINTS])

    def overlays(self, flow: Flow) -> tuple[Overlay, ...]:
        """The layers for what the photo does not show: interior of the mouth and eyes, back to front."""
        drawn = [] if flow.mouth is None else [self._mouth.overlay(flow.mouth)]
        drawn += [self._eye(eye.number).overlay(self.canvas, eye) for eye in flow.eyes if eye.weight > 0]
        return tuple(overlay for overlay in drawn if overlay is not None)

    def complete(self, image: Image, flow: Flow, overlays: Sequence[Overlay] | None = None) -> None:
        """Close the lips and composite overlays over an image of what is shown, in place; None: the flow's."""
        overlays = self.overlays(flow) if overlays is None else overlays
        self._complete(self._visible.part(image), flow, overlays, self._first)

    def _complete(self, part: Image, flow: Flow, overlays: Sequence[Overlay], left_top: NDArray[np.int_]) -> None:
        """The same for a part of the canvas that begins at left_top."""
        if flow.mouth is not None:
            self._close_lips(part, flow, flow.mouth, left_top)
        for overlay in overlays:
            overlay.lay(part, left_top)

    def _close_lips(self, region: Image, flow: Flow, opening: Opening, left_top: NDArray[np.int_]) -> None:
        """Warp the mouth from the photo with inpainted lips, weighted by the change of its opening from the photo's.

        Lips that touch in the photo would carry the dark line between them along both of their rims as they part.
        """
        low, high = (edge.clip(left_top, left_top + region.shape[1::-1]) for edge in self._mouth.reach(opening))
        if (high <= low).any():
            return
        x, y = self._places(self._maps(flow), low, high)
        lips = cv2.remap(self._mouth.rims.continued, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        if flow.mirror is not None:
            self._add_other_side(lips, low, self._lit_lips, flow.mirror, None)
        (left, top), (right, bottom) = low - left_top, high - left_top
        part = region[top:bottom, left:right]
        share = opening.changed * opening.parted
        cv2.addWeighted(lips, share, part, 1 - share, 0, dst=part)

    @cached_property
    def _shading(self) -> Shading:
        source, normals = self._warper.source[:NUM_POINTS], self._warper.normals[:NUM_POINTS]
        return Shading(self._picture, self.canvas.crop, source, normals)

    def gain(self, flow: Flow) -> Array | None:
        """Shading.gain of a frame."""
        return None if flow.rotation is None else self._shading.gain(flow.offset, flow.rotation)

    def _shade(self, part: Image, flow: Flow, left_top: NDArray[np.int_]) -> None:
        """Shade the turned face, in place; part: of the canvas, beginning at left_top."""
        gain = self.gain(flow)
        if gain is None:
            return
        y, x = np.nonzero(gain != 1)
        low, high = self._pixels((int(x.min()) - 1, int(y.min()) - 1), (int(x.max()) + 2, int(y.max()) + 2))
        (left, first), (right, last) = ((np.array(edge) - left_top).clip(0, part.shape[1::-1]) for edge in (low, high))
        if left >= right:  # the face is outside this part
            return
        for top in range(int(first), int(last), _SHADED_ROWS):
            rows = slice(top, min(top + _SHADED_ROWS, int(last)))
            size = int(right - left), rows.stop - rows.start
            (share,) = self._sample([gain], (0, 0), 1, left_top + np.array([left, top]), size)
            band = np.ascontiguousarray(part[rows, left:right])
            part[rows, left:right] = cv2.multiply(band, cv2.merge([share] * 3), dtype=cv2.CV_8U)

    def _eye(self, number: int) -> EyeLayer:
        """The layer of an eye, prepared when the eye first moves."""
        if self._eyes[number] is None:
            self._eyes[number] = EyeLayer(self.canvas.part(self._picture), self.canvas, self._contours[number])
        layer = self._eyes[number]
        assert layer is not None
        return layer

    def _sample(self, planes: Sequence[Array], first: tuple[int, int], fine: int, low: Any, size: Any) -> list[Array]:
        """Interpolate planes over grid cells linearly at the pixels of a rectangle of the canvas.

        Args:
            planes: [h, w] each, refined by `fine`, from cell `first` (x, y) of the grid on.
            low, size: (left, top) and (width, height) of the rectangle, canvas pixels.
        """
        k = self._cells_per_px * fine
        (left, top), (x, y) = self._corner, (int(edge) for edge in low)
        matrix = np.array(
            [
                [k, 0, (left + x + 0.5) * k - first[0] * fine - 0.5],
                [0, k, (top + y + 0.5) * k - first[1] * fine - 0.5],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        shape = int(size[0]), int(size[1])
        # With single planes, OpenCV is faster, and exact: it does not round the positions.
        return [cv2.warpAffine(plane, matrix, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE) for plane in planes]


def _doubled(picture: Image) -> Image:
    """A picture [H, W, 4], and cubic interpolation between its pixels: [2 H, 2 W, 4]."""
    for axis in (1, 0):
        kernel = np.reshape(_CUBIC, (1, 4) if axis else (4, 1))
        between = cv2.filter2D(picture, -1, kernel, anchor=(1, 0) if axis else (0, 1), borderType=cv2.BORDER_REPLICATE)
        height, width = picture.shape[:2]
        every = np.stack([picture, between], axis + 1)
        picture = every.reshape(height * (2 - axis), width * (1 + axis), 4)
    return picture
