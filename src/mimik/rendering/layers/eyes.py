"""An eye as layers: the eyeball, which gaze turns, under eyelids of this person's skin.

Whatever part of the lids the photo shows, the lash line and the crease, is carried along as it is, without stretching;
the skin that a closing lid unfolds between them is made of the lid's own color and of the grain of the skin nearby.
Shadow and lashes over the eyeball are what the photo has less than the completed eyeball, and move with the lid.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from mimik.face.landmarks import Array, Image
from mimik.rendering.layers.canvas import Canvas
from mimik.rendering.layers.colours import LUMA
from mimik.rendering.layers.eye_contours import (
    EyeContours,
    EyeFrame,
    eye_frame,
    height_table,
    table_columns,
    table_places,
    table_rows,
)
from mimik.rendering.layers.eyeball import extract_eyeball, smooth_step

# In widths of the eye.
_MARGIN = 0.9  # of the window that is prepared around an eye
_LASHES = 0.05  # least height of the strip over the lid's edge that is carried as it is
_CREASE = 0.75  # of the height of the fold's points over the edge
_LID_SHADOW = 0.10  # how deep lashes and the upper lid's shadow reach over the eyeball
_LOWER_RIM = 0.05  # the same of the lower lid, with its wet edge
_ABOVE, _BELOW, _BESIDE = (
    (0.02, 0.14),
    (0.1, 0.28),
    (0.02, 0.14),
)  # where the layer ends: over the crease, under the eye
_LINE = 0.014  # half the width of the line between lids that meet

_LEAST_OPENING = 0.10, 0.16  # height of an eye in the photo from which its eyeball is known in part, and fully
_SHADE = 6.0  # levels that are added before a shadow is taken as a ratio: of black nothing can be told
_DARKEST, _LIGHTEST = 0.1, 1.1  # a shadow's ratio
_SHADE_TINT = 0.7, 1.2  # of its channels over its brightness
_WIDE_SHADOW = np.float32(0.4), 0.06  # how dark the shadow under a raised lid is, and its depth
_FRINGE = np.float32(0.035)  # how far iris and sclera are seen over the lower lid's edge
_DEPTHS = 24  # rows of a table of shadows
_MEETING = 0.02, 0.06  # a gap between lids up to the first is none, from the second on it is all there
_UNFOLDED = (
    0.02,
    0.1,
)  # how far a lid has come down: from the second on its skin is made, not stretched
_SKIN_FLOOR = 0.7  # times the brightness of the skin around: no lid that unfolds is darker
_GRAIN_AT = 0.42, 0.92  # y of the skin under the eye whose grain is taken
_CATCHLIGHT_FOLLOWS = 0.55  # of the iris' way: the cornea's center lies about half way from the eyeball's to the iris
_SMALLEST = 6.0  # pixels, an eye's width, below which nothing is drawn


class EyeLayer:
    """One eye of a photo, prepared once, drawn in every frame."""

    def __init__(self, region: Image, canvas: Canvas, contours: EyeContours) -> None:
        """Args: region: the canvas' part of the photo; contours: of the eye in the photo."""
        self._contours = contours
        frame = eye_frame(contours, canvas.place)
        self._width = float(np.linalg.norm(frame.matrix[:, 0]))
        points = canvas.place(np.concatenate([contours.upper, contours.lower, contours.fold]).astype(np.float64))
        low, high = canvas.around(points, _MARGIN * self._width)
        opening = float(np.linalg.norm(contours.upper[3:6] - contours.lower[3:6], axis=1).mean()) / max(
            float(np.linalg.norm(contours.down)), 1e-9
        )
        self._known = float(smooth_step(np.array(opening), *_LEAST_OPENING))
        self.usable = self._width >= _SMALLEST and self._known > 0 and bool(((high - low) > 4).all())
        if not self.usable:
            return
        self._frame = EyeFrame(frame.origin - low, frame.matrix)
        window = region[low[1] : high[1], low[0] : high[0]].astype(np.float32)
        self._photo = window
        self._prepare_curves(canvas, frame)
        x, y = self._frame.grid(np.zeros(2, int), np.array(window.shape[1::-1]))
        rows = table_rows(x)
        upper, lower = self._upper[rows], self._lower[rows]
        over, under = y - upper, lower - y
        px = np.float32(self._width)
        inside = ((np.minimum(over, under) * px + 0.5).clip(0, 1) * ((x > 0) & (x < 1))).astype(np.float32)
        soft = 1.5 / self._width
        trusted = (
            inside
            * smooth_step(over - self._shadow[rows], -soft, soft)
            * smooth_step(under - self._rim[rows], -soft, soft)
        ).astype(np.float32)
        iris = self._frame.to_chart(canvas.place(contours.iris[None].astype(np.float64)) - low)[0]
        radius = contours.iris_radius * canvas.crop.side
        center = self._frame.origin + self._frame.matrix @ iris
        self._ball = extract_eyeball(window, trusted, inside, self._skin_light(x), center, radius)
        self._iris_at = iris
        self._shades = tuple(
            self._shade_table(edge, sign * reach)
            for edge, sign, reach in ((self._upper, 1.0, self._shadow), (self._lower, -1.0, self._rim))
        )
        self._prepare_skin(window)

    def _skin_light(self, x: Array) -> Array:
        """How light falls along the eye, [H, W], mean 1, by the skin above it and below; x: of the window's pixels."""
        places = table_places().astype(np.float32)[None].clip(-0.1, 1.1)
        soft = cv2.GaussianBlur(self._photo @ LUMA, (0, 0), max(0.04 * self._width, 0.5))
        light = np.zeros_like(places)
        for y in (self._upper - self._fold_height, self._lower + 0.1):
            light += cv2.remap(
                soft, *self._frame.maps(places, y[None]), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        light = cv2.GaussianBlur(light, (0, 0), 0.1 * places.shape[1] / 2, borderType=cv2.BORDER_REPLICATE) + 1
        relative = (light / light[:, (places[0] > 0) & (places[0] < 1)].mean()).clip(0.4, 1.6)
        return np.asarray(relative[0][table_rows(x)], np.float32)

    def _shade_table(self, edge: Array, reach: Array) -> Array:
        """[depths, table, 3] what lashes and shadow of a lid leave of the eyeball's light, down to 1.3 reach.

        Over the sclera they are seen one by one; over a dark iris just their mean along the lid is.
        """
        k = np.linspace(0, 1.3, _DEPTHS, dtype=np.float32)[:, None]
        y = edge + k * reach
        px, py = self._frame.maps(np.broadcast_to(table_places().astype(np.float32), y.shape).clip(0, 1), y)
        seen, whole = (
            cv2.remap(sheet, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) + _SHADE
            for sheet in (self._photo, self._ball.composed())
        )
        sigma = 0.05 * y.shape[1] / 2
        wide = [cv2.GaussianBlur(v, (0, 0), sigmaX=sigma, sigmaY=0.5) for v in (seen, whole)]
        single, usual = (seen @ LUMA) / (whole @ LUMA), (wide[0] @ LUMA) / (wide[1] @ LUMA)
        between = (table_places() > 0.1) & (table_places() < 0.9)
        color = seen[:, between].mean(1) / whole[:, between].mean(1)  # [depths, 3]
        tint = (color / (color @ LUMA)[:, None]).clip(*_SHADE_TINT)[:, None]
        light = whole @ LUMA
        sure = smooth_step(light / max(float(np.quantile(light, 0.9)), 1.0), 0.45, 0.8)
        ratio = (usual + sure * (single - usual)).clip(_DARKEST, _LIGHTEST)
        return np.asarray(tint * ratio[..., None], np.float32)

    def _prepare_curves(self, canvas: Canvas, frame: EyeFrame) -> None:
        c = self._contours
        charted = [frame.to_chart(canvas.place(line.astype(np.float64))) for line in (c.upper, c.lower, c.fold)]
        self._upper, self._lower, fold = (height_table(line).astype(np.float32) for line in charted)
        self._middle = (charted[0][:, 0] + charted[1][:, 0]) / 2
        self._fold_height = np.maximum(self._upper - fold, 0.03).astype(np.float32)
        self._crease = _CREASE * self._fold_height
        self._strip = self._lash_height()
        self._crease = np.maximum(self._crease, self._strip + 0.03)
        height = (self._lower - self._upper).clip(0)
        self._shadow = np.minimum(_LID_SHADOW, 0.32 * height).astype(np.float32)
        self._rim = np.minimum(_LOWER_RIM, 0.22 * height).astype(np.float32)

    def _lash_height(self) -> Array:
        """[table] how high lashes and what is painted along them reach over the upper lid's edge, in the photo."""
        k = np.linspace(0, 1, 12, dtype=np.float32)[:, None]
        x = table_places().astype(np.float32)[None].clip(0, 1)
        heights = k * self._fold_height
        px, py = self._frame.maps(np.broadcast_to(x, heights.shape), self._upper - heights)
        light = cv2.remap(self._photo @ LUMA, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        low, high = light[:5].min(0), light.max(0)
        dark = (light < low + 0.6 * (high - low)) & (high - low > 12)
        dark[0] = True
        run = np.cumprod(dark, 0).sum(0) / len(k) * self._fold_height
        strip = cv2.GaussianBlur(run.astype(np.float32)[None], (0, 0), 0.06 * len(x[0]) / 2)[0]
        return np.maximum(np.minimum(strip + 0.02, 0.7 * self._fold_height), np.minimum(_LASHES, 0.55 * self._crease))

    def _prepare_skin(self, window: Array) -> None:
        """Color of the upper lid along the eye, [table, 3], and the grain of skin."""
        k = np.linspace(0, 1, 7, dtype=np.float32)[:, None]
        x = table_places().astype(np.float32)[None]
        heights = self._strip + k * (1.15 * self._fold_height - self._strip)
        px, py = self._frame.maps(np.broadcast_to(x.clip(0.04, 0.96), heights.shape), self._upper - heights)
        soft = cv2.GaussianBlur(window, (0, 0), max(0.02 * self._width, 0.4))
        seen = cv2.remap(soft, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # [7, table, 3]
        light = seen @ LUMA
        order = np.argsort(-light, axis=0)[:3]
        color = np.take_along_axis(seen, order[..., None], 0).mean(0)
        step = 2.0 / (len(x[0]) - 1)
        color = cv2.GaussianBlur(color[None], (0, 0), 0.1 / step, borderType=cv2.BORDER_REPLICATE)[0]
        # Deep-set eyes lie in a shadow that a closing lid comes out of: it is not much darker than the skin around.
        around = []
        for y in (self._upper - 1.6 * self._fold_height, self._lower + 0.25):
            row = cv2.remap(soft, *self._frame.maps(x.clip(0.04, 0.96), y[None].astype(np.float32)), cv2.INTER_LINEAR)
            around.append(cv2.GaussianBlur(row, (0, 0), 0.15 / step, borderType=cv2.BORDER_REPLICATE)[0])
        skin = (around[0] + around[1]) / 2
        floor = np.maximum(_SKIN_FLOOR * (skin @ LUMA), 1e-3)
        missing = (1 - (color @ LUMA) / floor).clip(0, 1)[:, None]
        self._lid_color = (color + missing * (_SKIN_FLOOR * skin - color)).astype(np.float32)
        fine = window - cv2.GaussianBlur(window, (0, 0), max(0.05 * self._width, 0.8))
        gx, gy = np.meshgrid(np.linspace(0.1, 0.9, 9), np.linspace(*_GRAIN_AT, 5))
        patch = cv2.remap(fine, *self._frame.maps(gx.astype(np.float32), gy.astype(np.float32)), cv2.INTER_NEAREST)
        most = 3 * float(np.median(np.abs(patch))) + 1
        self._grain = fine.clip(-most, most)
        self._grain_light = max(float((skin @ LUMA).mean()), 1.0)
        # What was made of the sclera gets its grain, too.
        ball = self._ball
        grain = np.roll(self._grain, -round(0.6 * self._width), 0) * (ball.sclera @ LUMA / self._grain_light)[..., None]
        ball.sclera[...] = ball.sclera + ((1 - ball.sclera_known)[..., None] * grain).astype(np.float32)

    def draw(self, region: Image, canvas: Canvas, target: EyeContours) -> None:
        """Draws the eye over a frame.

        Args:
            region: the canvas' part of the frame; written to.
            canvas: of the picture.
            target: contours in the frame.
        """
        weight = target.weight * self._known if self.usable else 0.0
        if weight <= 0:
            return
        place = canvas.place
        frame = eye_frame(target, place)
        if abs(np.linalg.det(frame.matrix)) < 0.15 * self._width**2:
            return  # the head is turned so far that the eye is seen from the side
        outline = place(np.concatenate([target.upper, target.lower, target.fold]).astype(np.float64))
        low, high = canvas.around(outline, 0.2 * self._width)
        if ((high - low) < 2).any():
            return
        x, y = frame.grid(low, high)
        image = self._compose(frame, target, place, x, y)
        part = region[low[1] : high[1], low[0] : high[0]]
        alpha = image[..., 3:] * np.float32(weight)
        part[...] = np.round(part + alpha * (image[..., :3] - part)).clip(0, 255).astype(np.uint8)

    def _compose(self, frame: EyeFrame, target: EyeContours, place: Any, x: Array, y: Array) -> Array:
        """[H, W, 4]: the eye at places x, y of the target's chart, and how far it covers the picture."""
        lines = [frame.to_chart(place(line.astype(np.float64))) for line in (target.upper, target.lower, target.fold)]
        upper, lower, fold = (height_table(line).astype(np.float32) for line in lines)
        closing = self._closing(upper, lower)
        middle = np.maximum.accumulate((lines[0][:, 0] + lines[1][:, 0]) / 2 + 1e-6 * np.arange(9))
        places = table_places()
        own_x = np.interp(places, middle, self._middle)
        own_x = np.where(places < 0, places, np.where(places > 1, places, own_x)).astype(np.float32)
        own = table_rows(own_x)
        gap, own_gap = (lower - upper).clip(0), (self._lower - self._upper)[own]
        still_open = smooth_step(gap / np.maximum(own_gap, 1e-3), 0.25, 0.6)
        still_open = np.maximum(smooth_step(gap, *_MEETING), still_open)
        meet = upper + gap * still_open
        # Of lids that meet, the fringe of the eyeball along the lower one is under the upper one.
        own_lower = self._lower[own] + (1 - still_open) * _FRINGE
        strip, own_crease = self._strip[own], self._crease[own]
        # An edge that rises slides under the crease, and then pushes it up.
        crease = np.maximum(upper - fold - (self._fold_height[own] - own_crease), strip + 0.02).astype(np.float32)
        made = smooth_step(crease - own_crease, *_UNFOLDED)
        # Rows of the photo's tables for the target's columns.
        table = np.stack(
            [own_x, upper, meet, self._upper[own], own_lower, crease, own_crease, strip, made,
             self._shadow[own], self._rim[own], *self._lid_color[own].T], 1,
        ).astype(np.float32)  # fmt: skip
        columns = np.moveaxis(table[table_rows(x)], -1, 0)
        px, top, bottom, own_top, own_bottom, crease, own_crease, strip, made, shadow, rim = columns[:11]
        lid = np.moveaxis(columns[11:], 0, -1)
        width = np.float32(self._width)
        over, under = top - y, y - bottom  # heights over the upper edge, depths under the lower one

        # Skin: the strip of lashes and what lies over the crease as they are, between them stretched.
        between = np.maximum(own_crease - (crease - over) * np.float32(0.5), strip)
        between = np.where(crease > own_crease, between, over - crease + own_crease)
        height = np.where(over < strip, over, np.where(over < crease, between, over - crease + own_crease))
        is_upper = over > under
        own_y = np.where(is_upper, own_top - np.maximum(height, 0), own_bottom + np.maximum(under, 0))
        skin = self._sample(self._photo, px, own_y, cv2.INTER_CUBIC)
        middle_of = strip + np.float32(0.55) * (crease - strip)
        alpha = (
            made
            * smooth_step(over, 0.6 * strip, 1.3 * strip + np.float32(0.02))
            * (1 - smooth_step(over, middle_of, crease))
        )
        if alpha.any():
            skin += alpha[..., None] * (self._unfolded(lid, px, over, crease) - skin)

        # The eyeball: the socket stands still, the iris goes with the gaze.
        opening = (np.minimum(-over, -under) * width + np.float32(0.5)).clip(0, 1) * ((bottom - top) * width).clip(0, 1)
        if opening.any():
            iris = frame.to_chart(place(target.iris[None].astype(np.float64)))[0]
            ball = self._turned(px, y, (iris - self._iris_at).astype(np.float32))
            for depth, shade, reach in ((-over, self._shades[0], shadow), (-under, self._shades[1], rim)):
                relative = depth / np.maximum(reach, 1e-4)
                row = relative * np.float32((_DEPTHS - 1) / 1.3)
                ratio = cv2.remap(shade, table_columns(px), row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                ball *= 1 + (1 - smooth_step(relative, 0.7, 1.3))[..., None] * (ratio - 1)
            # An eye that opens wider than in the photo has the lid's shadow over what was hidden.
            wider = smooth_step(own_top - top, 0.0, 0.06)
            ball *= (1 - _WIDE_SHADOW[0] * wider * np.exp(over / np.float32(_WIDE_SHADOW[1])))[..., None]
            skin += opening[..., None] * (ball - skin)
        if closing > 0:
            line = np.exp(-((over / np.float32(max(_LINE, 0.8 / self._width))) ** 2))
            line *= smooth_step(x, 0.0, 0.2) * (1 - smooth_step(x, 0.8, 1.0))
            skin *= (1 - np.float32(0.35 * closing) * line)[..., None]
        cover = (
            (1 - smooth_step(over - crease, *_ABOVE))
            * (1 - smooth_step(under, *_BELOW))
            * smooth_step(x, -_BESIDE[1], -_BESIDE[0])
            * (1 - smooth_step(x, 1 + _BESIDE[0], 1 + _BESIDE[1]))
        )
        return np.concatenate([skin, cover[..., None]], -1)

    def _closing(self, upper: Array, lower: Array) -> float:
        """0..1: how near the lids are to touching, over the middle of the eye."""
        inner = (table_places() > 0.25) & (table_places() < 0.75)
        gap, own = ((b - a)[inner].mean() for a, b in ((upper, lower), (self._upper, self._lower)))
        return float(smooth_step(np.array(1 - gap / max(own, 1e-6)), 0.6, 1.0))

    def _sample(self, sheet: Array, x: Array, y: Array, flags: int = cv2.INTER_LINEAR) -> Array:
        return cv2.remap(sheet, *self._frame.maps(x, y), flags, borderMode=cv2.BORDER_REPLICATE)

    def _turned(self, x: Array, y: Array, gaze: Array) -> Array:
        """[H, W, 3] the eyeball when the iris has moved by gaze, in the chart."""
        ball = self._ball
        out = self._sample(ball.sclera, x, y)
        ix, iy = x - gaze[0], y - gaze[1]
        share = self._sample(ball.iris_share, ix, iy)[..., None]
        out += share * (self._sample(ball.iris, ix, iy, cv2.INTER_CUBIC) - out)
        follows = np.float32(_CATCHLIGHT_FOLLOWS)
        out += share * self._sample(ball.catchlight, x - follows * gaze[0], y - follows * gaze[1])
        return out

    def _unfolded(self, lid: Array, x: Array, over: Array, crease: Array) -> Array:
        """[H, W, 3] skin between crease and lashes of a lid that has come down."""
        along = (over / np.maximum(crease, 1e-3)).clip(0, 1)
        shade = np.float32(0.97) + np.float32(0.07) * np.sin(np.float32(np.pi) * along) * np.sin(
            np.float32(np.pi) * x.clip(0, 1)
        )
        tall = _GRAIN_AT[1] - _GRAIN_AT[0]
        at = np.abs((over + tall) % (2 * tall) - tall) + _GRAIN_AT[0]
        grain = self._sample(self._grain, x.clip(0.1, 0.9), at.astype(np.float32))
        light = (lid @ LUMA / np.float32(self._grain_light)).clip(0, 1.2)
        return lid * shade[..., None] + grain * light[..., None]
