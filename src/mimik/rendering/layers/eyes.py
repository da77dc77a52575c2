"""An eye as layers: an eyeball that turns with the gaze, under eyelids of the person's own skin.

Lash line and crease of the photo move without stretching. Between them, the skin that a closing lid unfolds is
synthesized from the lid's color and the grain of the skin nearby. Shadow and lashes over the eyeball are the ratio of
the photo to the completed eyeball; they move with the lid.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import smoothstep
from mimik.face.landmarks import Array, Image
from mimik.rendering.layers.canvas import LUMA, Canvas, Overlay
from mimik.rendering.layers.eye_contours import (
    EyeContours,
    EyeFrame,
    eye_frame,
    height_table,
    table_columns,
    table_places,
    table_rows,
    table_step,
)
from mimik.rendering.layers.eyeball import extract_eyeball

# Lengths are in eye widths.
_WINDOW_MARGIN = 0.55  # margin of the window prepared around an eye
_LASHES = 0.05  # smallest height of the strip above the lid margin that moves without stretching
_LASH_MIDDLE = 0.35, 0.6  # chart x of the middle part; further inward, lashes are not longer than in the middle part
_CREASE = 0.75  # height of the crease above the lid margin, relative to that of the fold points
_LID_SHADOW = 0.10  # depth of lashes and the upper lid's shadow over the eyeball
_LOWER_RIM = 0.05  # the same of the lower lid, including its wet margin
# Distances over which the layer fades out: above the crease, below the eye, beside the corners.
_ABOVE, _BELOW, _BESIDE = (0.02, 0.14), (0.1, 0.28), (0.02, 0.14)
_LINE, _LINE_DEPTH = 0.014, 0.12  # contact line of closed lids: half its width, and its darkness

# Height of the eye in the photo over which the layers fade in: below, too little of the eyeball is visible.
_LEAST_OPENING = 0.10, 0.16
# Lower bound of a hidden sclera's brightness, relative to the skin under the eye. Extrapolated scleras of 58 eyes in 29
# photos have a median of 0.96 and a first quartile of 0.73; the latter are mostly narrow eyes in the lids' shadow.
_SCLERA_LIGHT = 0.8
_SHADE = 6.0  # levels added to both terms of a shadow ratio, because the ratio of dark values is unreliable
_DARKEST, _LIGHTEST = 0.1, 1.1  # bounds of a shadow ratio
_SHADE_TINT = 0.7, 1.2  # bounds of a shadow ratio's channels relative to its brightness
_WIDE_SHADOW = np.float32(0.55), 0.08  # darkness and depth of the shadow under a raised lid
_FRINGE = np.float32(0.035)  # height above the lower lid's margin over which iris and sclera remain visible
_UPPER_WAY = np.float32(0.7)  # share of the remaining gap of a closed eye that the upper lid closes
_LASH_LENGTH = np.float32(0.5)  # length of a lash pointing up / the same lash pointing down
_DARKER = 0.4  # added to the strip's relative height in a closed eye, because the lid is darker there
_LASHES_DOWN = 0.75  # darkness of lashes pointing down, relative to lashes pointing up
_CLOSING = 0.25, 0.75  # closure, relative to the photo's opening, over which the lashes turn from up to down
_DEPTHS = 24  # rows of a shadow table
# Gap between the lids, relative to the photo's, over which the eye goes from closed to open: the landmarks of closed
# eyes still have a fifth of the gap. _CORNER is added to both gaps, to reduce the effect near the corners.
_MEETING, _CORNER = (0.2, 0.5), np.float32(0.03)
# Distance by which a lid has come down, over which its skin changes from stretched to synthesized.
_UNFOLDED = 0.0, 0.07
_SQUEEZED = 1.5, 3.0  # minification of the skin of a raised lid, over which it changes to a blurred photo's
_CREASE_FADE = np.float32(0.06)  # distance above the crease over which its line fades when the fold opens
_SKIN_FLOOR = 0.9  # smallest brightness of unfolded skin, relative to the surrounding skin
_GRAIN_AT = 0.3, 0.62  # chart y of the skin under the eye from which the grain is taken
# Motion of the catchlight relative to the iris: the cornea's center lies before the eyeball's.
_CATCHLIGHT_FOLLOWS = np.float32(0.55)
_SMALLEST = 6.0  # pixels: narrower eyes are not drawn


class EyeLayer:
    """One eye of a photo: prepared once, drawn in every frame."""

    def __init__(self, region: Image, canvas: Canvas, contours: EyeContours) -> None:
        """Args: region: the canvas of the photo, uint8 RGB; contours: of the eye in the photo."""
        self._contours = contours
        frame = eye_frame(contours, canvas.place)
        self._width = float(np.linalg.norm(frame.matrix[:, 0]))
        points = canvas.place(np.concatenate([contours.upper, contours.lower, contours.fold]).astype(np.float64))
        low, high = canvas.around(points, _WINDOW_MARGIN * self._width)
        opening = float(np.linalg.norm(contours.upper[3:6] - contours.lower[3:6], axis=1).mean()) / max(
            float(np.linalg.norm(contours.down)), 1e-9
        )
        self._known = float(smoothstep(np.array(opening), *_LEAST_OPENING))
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
            * smoothstep(over - self._shadow[rows], -soft, soft)
            * smoothstep(under - self._rim[rows], -soft, soft)
        ).astype(np.float32)
        iris = self._frame.to_chart(canvas.place(contours.iris[None].astype(np.float64)) - low)[0]
        radius = contours.iris_radius * canvas.crop.side
        center = self._frame.origin + self._frame.matrix @ iris
        self._ball = extract_eyeball(
            window, trusted, inside, self._skin_light(x), center, radius, _SCLERA_LIGHT * self._light_below()
        )
        self._iris_at = iris
        self._has_catchlight = bool(self._ball.catchlight.any())
        self._shades = tuple(
            self._shade_table(edge, sign * reach)
            for edge, sign, reach in ((self._upper, 1.0, self._shadow), (self._lower, -1.0, self._rim))
        )
        self._prepare_skin(window)

    def _skin_light(self, x: Array) -> Array:
        """[H, W] illumination along the eye with mean 1, from the skin above and below it; x: chart x of the pixels."""
        places = table_places().astype(np.float32)[None].clip(-0.1, 1.1)
        soft = cv2.GaussianBlur(self._photo @ LUMA, (0, 0), max(0.04 * self._width, 0.5))
        light = np.zeros_like(places)
        for y in (self._upper - self._fold_height, self._lower + 0.1):
            light += cv2.remap(
                soft, *self._frame.maps(places, y[None]), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        light = cv2.GaussianBlur(light, (0, 0), 0.1 / table_step(), borderType=cv2.BORDER_REPLICATE) + 1
        relative = (light / light[:, (places[0] > 0) & (places[0] < 1)].mean()).clip(0.4, 1.6)
        return np.asarray(relative[0][table_rows(x)], np.float32)

    def _light_below(self) -> float:
        """Mean brightness of the skin under the eye, 0..255."""
        x = np.linspace(0.2, 0.8, 7, dtype=np.float32)
        y = self._lower[table_rows(x)] + np.float32(_BELOW[1])
        soft = cv2.GaussianBlur(self._photo @ LUMA, (0, 0), max(0.02 * self._width, 0.4))
        row = cv2.remap(soft, *self._frame.maps(x[None], y[None]), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return float(row.mean())

    def _shade_table(self, edge: Array, reach: Array) -> Array:
        """[depths, table, 3] attenuation of the eyeball's light by lashes and shadow of a lid, down to 1.3 reach.

        Over the sclera, single lashes are resolved; over a dark iris, only their mean along the lid can be measured.
        """
        k = np.linspace(0, 1.3, _DEPTHS, dtype=np.float32)[:, None]
        y = edge + k * reach
        px, py = self._frame.maps(np.broadcast_to(table_places().astype(np.float32), y.shape).clip(0, 1), y)
        seen, whole = (
            cv2.remap(sheet, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) + _SHADE
            for sheet in (self._photo, self._ball.composed())
        )
        sigma = 0.05 / table_step()
        wide = [cv2.GaussianBlur(v, (0, 0), sigmaX=sigma, sigmaY=0.5) for v in (seen, whole)]
        single, usual = (seen @ LUMA) / (whole @ LUMA), (wide[0] @ LUMA) / (wide[1] @ LUMA)
        between = (table_places() > 0.1) & (table_places() < 0.9)
        color = seen[:, between].mean(1) / whole[:, between].mean(1)  # [depths, 3]
        tint = (color / (color @ LUMA)[:, None]).clip(*_SHADE_TINT)[:, None]
        light = whole @ LUMA
        sure = smoothstep(light / max(float(np.quantile(light, 0.9)), 1.0), 0.45, 0.8)
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
        high_px = float(np.median(self._crease - self._strip)) * self._width
        self._soft = cv2.GaussianBlur(self._photo, (0, 0), max(0.35 * high_px, 0.6))
        height = (self._lower - self._upper).clip(0)
        self._shadow = np.minimum(_LID_SHADOW, 0.32 * height).astype(np.float32)
        self._rim = np.minimum(_LOWER_RIM, 0.22 * height).astype(np.float32)

    def _lash_height(self) -> Array:
        """[table] height of lashes and eyeliner above the upper lid's margin in the photo."""
        k = np.linspace(0, 1, 12, dtype=np.float32)[:, None]
        x = table_places().astype(np.float32)[None].clip(0, 1)
        heights = k * self._fold_height
        px, py = self._frame.maps(np.broadcast_to(x, heights.shape), self._upper - heights)
        light = cv2.remap(self._photo @ LUMA, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        low, high = light[:5].min(0), light.max(0)
        dark = (light < low + 0.6 * (high - low)) & (high - low > 12)
        dark[0] = True
        run = np.cumprod(dark, 0).sum(0) / len(k) * self._fold_height
        # Toward the nose lashes are shorter; darker pixels there belong to the end of the crease.
        middle, inner = (x[0] > _LASH_MIDDLE[0]) & (x[0] < _LASH_MIDDLE[1]), x[0] >= _LASH_MIDDLE[1]
        run[inner] = np.minimum(run[inner], np.median(run[middle]))
        strip = cv2.GaussianBlur(run.astype(np.float32)[None], (0, 0), 0.06 / table_step())[0]
        return np.maximum(np.minimum(strip + 0.02, 0.7 * self._fold_height), np.minimum(_LASHES, 0.55 * self._crease))

    def _prepare_skin(self, window: Array) -> None:
        """Prepare the color of the upper lid along the eye, the skin grain, and the darkness of the lashes."""
        k = np.linspace(0, 1, 7, dtype=np.float32)[:, None]
        x = table_places().astype(np.float32)[None]
        heights = self._strip + k * (1.15 * self._fold_height - self._strip)
        px, py = self._frame.maps(np.broadcast_to(x.clip(0.04, 0.96), heights.shape), self._upper - heights)
        soft = cv2.GaussianBlur(window, (0, 0), max(0.02 * self._width, 0.4))
        seen = cv2.remap(soft, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # [7, table, 3]
        light = seen @ LUMA
        order = np.argsort(-light, axis=0)[:3]
        color = np.take_along_axis(seen, order[..., None], 0).mean(0)
        step = table_step()
        color = cv2.GaussianBlur(color[None], (0, 0), 0.1 / step, borderType=cv2.BORDER_REPLICATE)[0]
        # The lid of a deep-set eye leaves the shadow when it closes: it is not much darker than the surrounding skin.
        around = []
        for y in (self._upper - 1.1 * self._fold_height, self._lower + 0.22, self._lower + 0.35):
            row = cv2.remap(soft, *self._frame.maps(x.clip(0.04, 0.96), y[None].astype(np.float32)), cv2.INTER_LINEAR)
            around.append(cv2.GaussianBlur(row, (0, 0), 0.15 / step, borderType=cv2.BORDER_REPLICATE)[0])
        nearby = np.stack(around)
        brightest = np.argmax(nearby @ LUMA, 0)[None, :, None]
        skin = cv2.GaussianBlur(np.take_along_axis(nearby, brightest, 0), (0, 0), 0.15 / step)[0]
        floor = np.maximum(_SKIN_FLOOR * (skin @ LUMA), 1e-3)
        missing = (1 - (color @ LUMA) / floor).clip(0, 1)[:, None]
        self._lid_color = (color + missing * (_SKIN_FLOOR * skin - color)).astype(np.float32)
        fine = window - cv2.GaussianBlur(window, (0, 0), max(0.05 * self._width, 0.8))
        gx, gy = np.meshgrid(np.linspace(0.1, 0.9, 9), np.linspace(*_GRAIN_AT, 5))
        patch = cv2.remap(fine, *self._frame.maps(gx.astype(np.float32), gy.astype(np.float32)), cv2.INTER_NEAREST)
        most = 3 * float(np.median(np.abs(patch))) + 1
        self._grain = fine.clip(-most, most)
        # Darkness of the lashes relative to the lid, where they point up.
        x, _ = self._frame.grid(np.zeros(2, int), np.array(window.shape[1::-1]))
        lid = self._lid_color[table_rows(x)]
        self._lash = ((window + _SHADE) / (lid + _SHADE)).clip(_DARKEST, 1).astype(np.float32)
        self._grain_light = max(float((skin @ LUMA).mean()), 1.0)
        # Add grain to the extrapolated part of the sclera.
        ball = self._ball
        x, y = self._frame.grid(np.zeros(2, int), np.array(window.shape[1::-1]))
        grain = self._grain_at(x, y) * (ball.sclera @ LUMA / self._grain_light)[..., None]
        ball.sclera[...] = ball.sclera + ((1 - ball.sclera_known)[..., None] * grain).astype(np.float32)

    def overlay(self, canvas: Canvas, target: EyeContours) -> Overlay | None:
        """The eye in a frame; None if nothing is drawn.

        Args: canvas: of the picture; target: contours in the frame.
        """
        weight = target.weight * self._known if self.usable else 0.0
        if weight <= 0:
            return None
        place = canvas.place
        frame = eye_frame(target, place)
        if abs(np.linalg.det(frame.matrix)) < 0.15 * self._width**2:
            return None  # the head is turned so far that the eye is in profile
        outline = place(np.concatenate([target.upper, target.lower, target.fold]).astype(np.float64))
        low, high = canvas.around(outline, 0.2 * self._width)
        if ((high - low) < 2).any():
            return None
        x, y = frame.grid(low, high)
        image, cover = self._compose(frame, target, place, x, y)
        return Overlay.of(low, image, cover * np.float32(weight))

    def _compose(self, frame: EyeFrame, target: EyeContours, place: Any, x: Array, y: Array) -> tuple[Array, Array]:
        """Color [H, W, 3] and opacity [H, W] of the eye at coordinates x, y of the target's chart."""
        lines = [frame.to_chart(place(line.astype(np.float64))) for line in (target.upper, target.lower, target.fold)]
        upper, lower, fold = (height_table(line).astype(np.float32) for line in lines)
        closing = self._closing(upper, lower)
        middle = np.maximum.accumulate((lines[0][:, 0] + lines[1][:, 0]) / 2 + 1e-6 * np.arange(9))
        places = table_places()
        own_x = np.interp(places, middle, self._middle)
        own_x = np.where(places < 0, places, np.where(places > 1, places, own_x)).astype(np.float32)
        own = table_rows(own_x)
        upper, lower = (
            line[own] + _along_the_edge(moved - line[own])
            for line, moved in ((self._upper, upper), (self._lower, lower))
        )
        gap, own_gap = (lower - upper).clip(0), (self._lower - self._upper)[own]
        still_open = smoothstep((gap + _CORNER) / (own_gap + _CORNER), *_MEETING)
        # The lids meet close to the lower one.
        upper = upper + _UPPER_WAY * gap * (1 - still_open)
        meet = upper + gap * still_open
        # When the lids meet, the upper one covers the fringe of the eyeball along the lower one.
        own_lower = self._lower[own] + (1 - still_open) * _FRINGE
        strip, own_crease = self._strip[own], self._crease[own]
        # A rising lid margin slides under the crease, then pushes it up.
        least = np.minimum(strip + max(0.02, 1.5 / self._width), own_crease)
        crease = np.maximum(upper - fold - (self._fold_height[own] - own_crease), least).astype(np.float32)
        made = smoothstep(crease - own_crease, *_UNFOLDED)
        beside = smoothstep(places, -_BESIDE[1], -_BESIDE[0]) * (1 - smoothstep(places, 1 + _BESIDE[0], 1 + _BESIDE[1]))
        # Look up the table values at the pixels.
        table = [own_x, upper, meet, self._upper[own], own_lower, crease, own_crease, strip, made, beside]
        rows = table_rows(x)
        px, top, bottom, own_top, own_bottom, crease, own_crease, strip, made, beside = np.take(
            np.stack(table).astype(np.float32), rows, axis=1
        )
        over, under = top - y, y - bottom  # height above the upper margin, depth below the lower one

        # Skin: the lash strip and the skin above the crease move rigidly; the skin between them stretches.
        over_crease = over - crease
        # Interpolate, so that there is no edge at the end of the strip or where a lid starts to unfold.
        between = strip + (over - strip) * (own_crease - strip) / (crease - strip)
        between += made * (np.maximum(own_crease + over_crease * np.float32(0.5), strip) - between)
        height = np.where(over < strip, over, np.where(over_crease < 0, between, over_crease + own_crease))
        own_y = np.where(over > under, own_top - height.clip(0), own_bottom + under.clip(0))
        skin = self._sample(self._photo, px, own_y, cv2.INTER_CUBIC)
        # Skin that slides under its crease is minified: sample it from a blurred photo, or dark lashes alias to dots.
        px_high = np.float32(1 / self._width)
        squeezed = smoothstep((own_crease - strip) / (crease - strip), *_SQUEEZED)
        squeezed = squeezed * ((over > strip - px_high) & (over_crease < px_high))
        if squeezed.any():
            skin += squeezed[..., None] * (self._sample(self._soft, px, own_y) - skin)
        low, high = 0.6 + _DARKER * closing, 1.3 + _DARKER * closing
        alpha = made * smoothstep(over, low * strip, high * strip + np.float32(0.02))
        alpha *= 1 - smoothstep(over, strip + np.float32(0.6) * (crease - strip), crease + _CREASE_FADE)
        if alpha.any():
            lid = self._unfolded(self._lid_color[own][rows], px, over, crease)
            skin += alpha[..., None] * (lid - skin)

        # Eyeball: the sclera is fixed to the socket; the iris moves with the gaze.
        width = np.float32(self._width)
        opening = (np.minimum(-over, -under) * width + np.float32(0.5)).clip(0, 1) * ((bottom - top) * width).clip(0, 1)
        at = _box_of_mask(opening)
        if at is not None:
            iris = frame.to_chart(place(target.iris[None].astype(np.float64)))[0]
            ball = self._turned(px[at], y[at], iris - self._iris_at)
            ball *= self._shadows(px[at], -over[at], -under[at], self._shadow[own][rows[at]], self._rim[own][rows[at]])
            # In an eye that opens wider than in the photo, the lid shades the uncovered part.
            wider = smoothstep(own_top[at] - top[at], 0.0, 0.06)
            if wider.any():
                ball *= (1 - _WIDE_SHADOW[0] * wider * np.exp(over[at] / np.float32(_WIDE_SHADOW[1])))[..., None]
            skin[at] += opening[at][..., None] * (ball - skin[at])
        if closing > 0:
            # Lashes of a closing lid point down: the strip above its margin, mirrored.
            down = -over * _LASH_LENGTH
            dark = _LASHES_DOWN * closing * smoothstep(down, 1.5 * strip, 0.8 * strip) * (down >= 0)
            own_lash = self._sample(self._lash, px, own_top - down.clip(0))
            line = np.exp(-((over / np.float32(max(_LINE, 0.8 / self._width))) ** 2))
            line *= smoothstep(x, 0.0, 0.2) * (1 - smoothstep(x, 0.8, 1.0))
            skin *= 1 - dark[..., None] * (1 - own_lash)
            skin *= (1 - np.float32(_LINE_DEPTH * closing) * line)[..., None]
        cover = (1 - smoothstep(over_crease, *_ABOVE)) * (1 - smoothstep(under, *_BELOW)) * beside
        return skin, cover

    def _closing(self, upper: Array, lower: Array) -> float:
        """0..1: closure of the middle of the eye, mapped by _CLOSING: 1 if the lashes point down."""
        inner = (table_places() > 0.25) & (table_places() < 0.75)
        gap, own = ((b - a)[inner].mean() for a, b in ((upper, lower), (self._upper, self._lower)))
        return float(smoothstep(np.array(1 - gap / max(own, 1e-6)), *_CLOSING))

    def _sample(self, sheet: Array, x: Array, y: Array, flags: int = cv2.INTER_LINEAR) -> Array:
        return cv2.remap(sheet, *self._frame.maps(x, y), flags, borderMode=cv2.BORDER_REPLICATE)

    def _turned(self, x: Array, y: Array, gaze: NDArray[np.float64]) -> Array:
        """[H, W, 3] the eyeball with its iris moved by gaze (chart units)."""
        px, py = self._frame.maps(x, y)
        gx, gy = (self._frame.matrix @ gaze).astype(np.float32)

        def sample(sheet: Array, follows: Any, flags: int = cv2.INTER_LINEAR) -> Array:
            return cv2.remap(sheet, px - follows * gx, py - follows * gy, flags, borderMode=cv2.BORDER_REPLICATE)

        one = np.float32(1)
        out = cv2.remap(self._ball.sclera, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        share = sample(self._ball.iris_share, one)[..., None]
        iris = sample(self._ball.iris, one, cv2.INTER_CUBIC)
        if self._has_catchlight:
            iris += sample(self._ball.catchlight, _CATCHLIGHT_FOLLOWS)
        return out + share * (iris - out)

    def _shadows(self, x: Array, over: Array, under: Array, shadow: Array, rim: Array) -> Array:
        """[H, W, 3] attenuation of the eyeball's light by lashes and shadows of both lids.

        Args:
            x: x in the photo's chart.
            over, under: depth below the upper margin, height above the lower one.
            shadow, rim: depth of the shadows of the upper and the lower lid.
        """
        out = np.float32(1)
        column = table_columns(x)
        for depth, shade, reach in ((over, self._shades[0], shadow), (under, self._shades[1], rim)):
            relative = depth / np.maximum(reach, 1e-4)
            row = relative * np.float32((_DEPTHS - 1) / 1.3)
            ratio = cv2.remap(shade, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            out = out * (1 + (1 - smoothstep(relative, 0.7, 1.3))[..., None] * (ratio - 1))
        return np.asarray(out)

    def _grain_at(self, x: Array, y: Array) -> Array:
        """[H, W, 3] skin grain at any chart coordinates: a patch below the eye, repeated by reflection."""
        tall = _GRAIN_AT[1] - _GRAIN_AT[0]
        at = np.abs((y + tall) % (2 * tall) - tall) + _GRAIN_AT[0]
        return self._sample(self._grain, np.abs((x + 1) % 2 - 1).clip(0.1, 0.9), at.astype(np.float32))

    def _unfolded(self, lid: Array, x: Array, over: Array, crease: Array) -> Array:
        """[H, W, 3] synthesized skin between crease and lashes of a lowered lid."""
        along = (over / np.maximum(crease, 1e-3)).clip(0, 1)
        shade = np.float32(0.97) + np.float32(0.07) * np.sin(np.float32(np.pi) * along) * np.sin(
            np.float32(np.pi) * x.clip(0, 1)
        )
        grain = self._grain_at(x, over)
        light = (lid @ LUMA / np.float32(self._grain_light)).clip(0, 1.2)
        return lid * shade[..., None] + grain * light[..., None]


def _box_of_mask(mask: Array) -> tuple[slice, slice] | None:
    """Rows and columns of the bounding box of a mask [H, W]; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _along_the_edge(moved: Array) -> Array:
    """Displacement of a lid margin [table], smoothed beyond the corners, because the skin there moves along."""
    return cv2.GaussianBlur(moved[None], (0, 0), 0.04 / table_step(), borderType=cv2.BORDER_REPLICATE)[0]
