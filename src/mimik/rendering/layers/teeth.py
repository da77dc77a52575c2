"""Sets of teeth: textures for the walls of the dental arches.

A set holds the boundaries of one person's upper teeth and the color of their enamel relative to its mean, taken from a
picture in which the lips hide the upper part. Crowns, gaps and gums are completed from anatomy, at any resolution.
tools/make_teeth.py made the shipped sets.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import smoothstep
from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Image, head_pose
from mimik.files import asset
from mimik.rendering.layers.arch import Anatomy, upper_wall
from mimik.rendering.layers.canvas import LUMA, grown

MAP_PX_PER_MM = 5  # resolution of a set's maps
HALF_MM = 42  # extent of the maps along the wall, on either side of the midline
ABOVE_MM, BELOW_MM = 12, 2  # extent of the maps above and below the incisors' edge
TOP_MM, BOTTOM_MM = 16, 3  # extent of the textures above and below the incisors' edge
ENAMEL = 200.0  # gray level of the mean enamel in a map

# Widths and heights of crowns from the midline outwards, mm; Wheeler's Dental Anatomy, rounded.
_UPPER_WIDTHS = (8.5, 6.6, 7.6, 7.1, 6.6, 10.0, 9.5)
_UPPER_HEIGHTS = (10.5, 9.2, 10.3, 8.5, 7.5, 7.2, 7.0)
INCISOR_MM = _UPPER_HEIGHTS[0]
_LOWER_WIDTHS = (5.3, 5.8, 6.9, 7.0, 7.1, 11.0, 10.5)
_LOWER_HEIGHTS = (9.0, 9.3, 10.5, 8.5, 8.0, 7.5, 7.0)
UPPER_EDGES = (0.0, -0.7, -0.1, -0.6, -0.9, -1.2, -1.4)  # v of each tooth's edge, from the midline outward, mm
_LOWER_EDGES = (0.0, 0.1, -0.2, 0.3, 0.6, 0.9, 1.1)
_GAP_MM = 0.3  # half the width of the dark line between two teeth
_GAP_DARK = 0.33  # darkness of that line
_ROUND_MM = 0.9  # rounding of the corners of an edge
_CANINE_MM = 1.3  # height of a canine's tip below its corners
GUM_LEVEL = 0.85  # brightness of gums in a texture, relative to the mean enamel

_ENAMEL_LIGHT = 0.5  # lower bound of enamel's luma, relative to the brightest in the mouth
_ENAMEL_RED = 0.28, 0.40  # upper bound of enamel's (R - G) / luma; the same in warm light, which reddens lips, too
_ENAMEL_OF_LIPS = 0.6  # that bound relative to the (R - G) / luma of the lips


@dataclass(frozen=True)
class TeethSet:
    """One person's upper teeth.

    Attributes:
        name: of the set.
        tones: uint8 [H, W, 3]; enamel color at MAP_PX_PER_MM, relative to the person's mean, which is ENAMEL.
        bounds: [2 n + 1] boundaries between the teeth, mm along the wall; the midline is in the middle.
        edges: [2 n] v of each tooth's edge, mm.
        skin: [3] color of the person's skin in the picture.
    """

    name: str
    tones: Image
    bounds: Array
    edges: Array
    skin: Array


@dataclass(frozen=True)
class Texture:
    """The texture of a wall.

    Attributes:
        picture: float32 [H, W, 4]; color and opacity. upper_texture and lower_texture give colors relative to the
            mean enamel.
        gum: [H, W] 0..1, mask of the gums.
        px_per_mm: resolution.
        left, top: u and v of the outer corner of the first pixel, mm.
    """

    picture: Array
    gum: Array
    px_per_mm: float
    left: float
    top: float

    def at(self, u: NDArray[Any], v: NDArray[Any]) -> Array:
        """Color and opacity, float32 [H, W, 4], at texture coordinates u, v [H, W]."""
        k = np.float32(self.px_per_mm)
        x = ((u - np.float32(self.left)) * k - np.float32(0.5)).astype(np.float32)
        y = (
            ((v - np.float32(self.top)) * k - np.float32(0.5)).clip(0).astype(np.float32)
        )  # its first row is replicated above
        return np.asarray(cv2.remap(self.picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))


@functools.cache
def shipped() -> tuple[TeethSet, ...]:
    """The sets in the package."""
    with np.load(asset("teeth.npz")) as data:
        strip = cv2.cvtColor(cv2.imdecode(data["tones"], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        maps = np.split(strip, len(data["names"]))
        return tuple(
            TeethSet(str(name), np.asarray(tones, np.uint8), bounds, edges, skin)
            for name, tones, bounds, edges, skin in zip(
                data["names"], maps, data["bounds"], data["edges"], data["skin"], strict=True
            )
        )


def named(name: str) -> TeethSet:
    """The shipped set of this name; one of config.TEETH."""
    return next(one for one in shipped() if one.name == name)


def choose(skin: Array, sets: Sequence[TeethSet]) -> TeethSet:
    """The set whose picture has the most similar lighting, by skin color; skin: [3] of the photo, 0..255."""

    def distance(one: TeethSet) -> float:
        light, other = (float(c @ LUMA) for c in (skin, one.skin))
        hue = skin / max(light, 1.0) - one.skin / max(other, 1.0)
        return float(abs(light - other) / 255 + np.abs(hue).sum())

    return min(sets, key=distance)


def default_bounds(widths: Sequence[float] = _UPPER_WIDTHS) -> NDArray[np.float64]:
    """[2 n + 1] boundaries between teeth of these widths."""
    side = np.cumsum(widths)
    return np.concatenate([-side[::-1], [0.0], side])


def wall_grid(px_per_mm: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """u and v of the pixel centers of an unrolled wall, mm; it extends 6 mm further down, for edges that lie lower."""
    width, height = round(2 * HALF_MM * px_per_mm), round((TOP_MM + BOTTOM_MM + 6) * px_per_mm)
    return (np.arange(width) + 0.5) / px_per_mm - HALF_MM, (np.arange(height) + 0.5) / px_per_mm - TOP_MM


def rectify(picture: Image, points: Array, px_per_mm: float) -> tuple[Image, NDArray[np.bool_], float]:
    """Unroll the upper wall of a picture.

    Args:
        picture: uint8 RGB [H, W, 3].
        points: [478, 3] face points in it.
        px_per_mm: resolution of the result.

    Returns:
        uint8 [h, w, 3] on wall_grid; mask of visible enamel; resolution of the picture in px per mm.
    """
    anatomy, pose = Anatomy.of(points), head_pose(points)
    wall = upper_wall(anatomy, pose)
    u, v = wall_grid(px_per_mm)
    at = wall.place(*np.meshgrid(u, v)).astype(np.float32)
    x, y = at[..., 0], at[..., 1]
    unrolled = np.asarray(cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8)
    outline = points[[*face.LIPS_INNER_UPPER, *face.LIPS_INNER_LOWER[-2:0:-1]], :2]
    inside = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    within = cv2.remap(inside, x, y, cv2.INTER_LINEAR) > 127
    within &= ((u >= wall.u[0]) & (u <= wall.u[-1]))[None]
    return unrolled, enamel(unrolled, within, px_per_mm), pose.scale * anatomy.mm


def enamel(picture: Image, within: NDArray[np.bool_], px_per_mm: float) -> NDArray[np.bool_]:
    """[H, W] mask of the upper teeth in an unrolled mouth; within: mask of the area between the lips."""
    if not within.any():
        return within
    colors = picture.astype(np.float32)
    light = colors @ LUMA
    red = (colors[..., 0] - colors[..., 1]) / np.maximum(light, 1)
    bright = np.percentile(light[within], 85)
    k = max(int(0.6 * px_per_mm), 1)
    beside = grown(within.astype(np.uint8), 2 * px_per_mm) > within
    reddest = np.clip(_ENAMEL_OF_LIPS * np.median(red[beside]), *_ENAMEL_RED) if beside.any() else _ENAMEL_RED[0]
    found = (light > _ENAMEL_LIGHT * bright) & (red < reddest) & within
    opened = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_OPEN, np.ones((k, k), np.uint8))
    return np.asarray(opened > 0)


def spread(values: Array, weight: Array) -> Array:
    """Values [H, W, C], extrapolated from where weight [H, W] is 1 to where it is 0, by increasingly wide averages."""
    total, known = values * weight[..., None], weight.copy()
    out = total.copy()
    have = weight.copy()
    sigma = 1.5
    while (have < 0.99).any() and sigma < 2 * max(values.shape):
        wide = widely_blurred(known, sigma)
        near = widely_blurred(total, sigma) / np.maximum(wide, 1e-6)[..., None]
        share = (1 - have) * (wide * 8).clip(0, 1)
        out += share[..., None] * near
        have += share
        sigma *= 2
    return np.asarray(out / np.maximum(have, 1e-6)[..., None], np.float32)


def widely_blurred(plane: Array, sigma: float, sigma_y: float | None = None) -> Array:
    """A plane [H, W] or [H, W, C] with a wide Gaussian blur, computed at a smaller size for speed.

    Args:
        plane: float32.
        sigma, sigma_y: horizontal and vertical standard deviation, pixels; None: equal.
    """
    sigma_y = sigma if sigma_y is None else sigma_y
    height, width = plane.shape[:2]
    # Cells of a quarter of sigma; the variance of averaging within a cell is subtracted.
    cells = [max(1, min(int(s / 4), n // 8)) for s, n in ((sigma, width), (sigma_y, height))]
    size = [-(-n // k) for n, k in zip((width, height), cells, strict=True)]
    padding = 0, size[1] * cells[1] - height, 0, size[0] * cells[0] - width
    whole = cv2.copyMakeBorder(plane, *padding, cv2.BORDER_REFLECT_101)
    small = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
    across, down = (np.sqrt(s * s - (k * k - 1) / 4) / k for s, k in zip((sigma, sigma_y), cells, strict=True))
    small = cv2.GaussianBlur(small, (0, 0), across, sigmaY=down)
    return np.asarray(cv2.resize(small, whole.shape[1::-1], interpolation=cv2.INTER_LINEAR)[:height, :width])


def upper_texture(teeth: TeethSet, px_per_mm: float) -> Texture:
    """The upper teeth and gums of a set."""
    return _texture(teeth.tones, teeth.bounds, teeth.edges, _UPPER_HEIGHTS, px_per_mm)


def lower_texture(teeth: TeethSet, px_per_mm: float) -> Texture:
    """Lower teeth with the enamel of a set, since pictures hardly show the lower teeth."""
    edges = np.array([*_LOWER_EDGES[::-1], *_LOWER_EDGES], np.float32)
    # Blur the map: the detail of the upper teeth does not match the positions of the lower teeth.
    tones = cv2.GaussianBlur(teeth.tones, (0, 0), 3.0 * MAP_PX_PER_MM)
    upper = _texture(tones, default_bounds(_LOWER_WIDTHS), -edges, _LOWER_HEIGHTS, px_per_mm)
    # Made like upper teeth, then flipped: v points down from the edge.
    picture, gum = (np.ascontiguousarray(part[::-1]) for part in (upper.picture, upper.gum))
    return Texture(picture, gum, px_per_mm, upper.left, -BOTTOM_MM)


def _texture(
    tones: NDArray[np.uint8], bounds: NDArray[Any], edges: NDArray[Any], heights: Sequence[float], px_per_mm: float
) -> Texture:
    fine = 2 if px_per_mm < 8 else 1  # supersampling factor
    r = px_per_mm * fine
    width, height = round(2 * HALF_MM * px_per_mm) * fine, round((TOP_MM + BOTTOM_MM) * px_per_mm) * fine
    u = (np.arange(width, dtype=np.float32) + 0.5) * (2 * HALF_MM / width) - HALF_MM
    v = ((np.arange(height, dtype=np.float32) + 0.5) * ((TOP_MM + BOTTOM_MM) / height) - TOP_MM)[:, None]
    count = len(edges)
    number = (np.searchsorted(bounds, u) - 1).clip(0, count - 1)
    left, right = np.asarray(bounds)[number], np.asarray(bounds)[number + 1]
    across = (2 * (u - left) / (right - left) - 1).clip(-1.2, 1.2).astype(np.float32)  # -1..1 over a tooth
    from_gap = np.minimum(u - left, right - u).clip(0).astype(np.float32)
    rank = np.where(number < count // 2, count // 2 - 1 - number, number - count // 2)
    outward = np.where(number < count // 2, -across, across)
    # Edges: corners rounded, more so away from the midline; canines come to a point.
    away = np.abs(across)
    drop = _ROUND_MM * (1 + 0.45 * outward) * away**5
    drop = np.where(rank == 2, 0.4 * drop + _CANINE_MM * away**1.5, drop)
    edge = (edges[number] - drop).astype(np.float32)[None]
    crown = np.asarray(heights, np.float32)[rank]
    gum = (edges[number] - crown + 2.2 * away**2.6).astype(np.float32)[None]
    one = 1 / r
    opacity = ((edge - v) / one + 0.5).clip(0, 1)
    is_gum = smoothstep((gum - v) / np.float32(0.5) + np.float32(0.5))
    # Enamel: the map, darker toward the gaps and at the translucent edge.
    at_x = np.repeat((u[None] + HALF_MM) * MAP_PX_PER_MM - 0.5, height, 0).astype(np.float32)
    at_y = np.repeat((v.clip(-ABOVE_MM, BELOW_MM) + ABOVE_MM) * MAP_PX_PER_MM - 0.5, width, 1).astype(np.float32)
    tone = cv2.remap(tones, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    tone /= np.float32(ENAMEL)
    line = np.exp(-((from_gap / _GAP_MM) ** 2))[None] * smoothstep((v - gum) / 2)
    shade = (1 - _GAP_DARK * line) * (1 - 0.10 * away[None] ** 4)
    shade = shade * (1 - 0.10 * np.exp(-(((edge - v) / 0.7) ** 2))) * (1 - 0.08 * np.exp(-((v - gum) / 1.2).clip(0)))
    tone *= shade[..., None]
    gums = (GUM_LEVEL * (1 - 0.12 * np.exp(-((gum - v).clip(0) / 0.6))))[..., None]
    color = tone + is_gum[..., None] * (gums - tone)
    picture = np.concatenate([color, opacity[..., None]], -1).astype(np.float32)
    if fine > 1:
        size = width // fine, height // fine
        picture, is_gum = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (picture, is_gum))
    return Texture(picture, is_gum, px_per_mm, -HALF_MM, -TOP_MM)
