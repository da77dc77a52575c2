"""The interior of the mouth as layers: cavity, tongue, lower teeth (rigid with the jaw), upper teeth (with the skull).

Teeth are textures on the dental arches (arch.py), clipped by the frame's inner lips. Light enters through the opening:
the brightness of each point depends on how much of the opening it sees, so slightly parted lips show a dark line and
the corners stay dark. Teeth that the photo shows are kept, as a texture on the same arches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import line_fit, smoothstep, spline
from mimik.face.landmarks import Array, Image, Pose
from mimik.rendering.layers import teeth
from mimik.rendering.layers.arch import Wall, lower_wall, upper_wall
from mimik.rendering.layers.canvas import LUMA, Canvas, Overlay, soft_polygon
from mimik.rendering.layers.lip_rims import LipRims
from mimik.rendering.layers.opening import Jaws, Opening
from mimik.rendering.layers.palette import Palette
from mimik.rendering.layers.teeth import Texture

# Constants of light and tongue were tuned on frames with an open mouth, each rendered from a frame with closed lips, of
# 38 clips of the training set. Criteria: brightness and hue along the line from the upper to the lower lip (mean
# difference from the real frames at gaps of 9 to 12 mm: 0.04 of the skin's brightness; before: 0.09), L1 inside the
# lips (36.9) and edge energy (0.8 of the real frames').
_SOFT_MM = 0.35  # blur of the lips' edge over the interior
_PER_SEGMENT = 6  # points of the lips' edge per landmark
# Toward its corners an opening closes faster than its landmarks: from this gap on, or this share of the largest one.
_CORNER_MM, _CORNER = 4.0, 0.6
_LIGHT_MM = 1.6, 3.5  # sigma of the Gaussian aperture through which light reaches the front teeth, and the back
# Downward shift of the light, the shadow of the upper lip, in a narrow and a wide opening; gaps over which it changes.
_SHADOW_MM, _SHADOW_FADES_MM = (1.6, 1.2), (7.0, 11.0)
_LIGHT = 1.05  # brightness in the middle of a wide opening, before clipping to 1
_AMBIENT, _AMBIENT_MM = 0.3, (3.0, 10.0)  # least light at the upper teeth, and the gap over which it rises to that
_DEEP = 0.3  # brightness of the depth of the cavity
_TURNED_LIGHT = 0.35  # share of light where an arch turns away from the viewer
_BACK_LIGHT = 0.4  # light at the ends of an arch, relative to its front
_REDDENS = np.array([1.0, 1.3, 1.3], np.float32)  # exponents of the shade in red, green, blue: shaded enamel is redder
_LOWER_LIGHT = 0.95  # brightness of the lower teeth, relative to the upper ones
# Half the tongue's width; height of its back above the lower teeth with the jaw closed, and wide open.
_TONGUE_MM = 24.0, 3.0, 14.0
_TONGUE_RISES = 1.6  # upper bound of the jaw opening for the tongue's height, in units of 20 mm
_FURROW = 0.12  # darkness of the furrow along the middle of the tongue
# Light of the cavity far back; additional light at the palate; distance over which the latter falls off, mm.
_THROAT, _PALATE, _PALATE_MM = 0.42, 0.9, 9.0
_SMOOTH_MM, _SMOOTH = 1.6, 0.45  # sigma, and amount, of the smoothing of teeth in a picture without fine detail
# The interior of a small opening is partly a soft, reddish shadow: its color relative to the skin, its share without
# and with teeth in the photo, and the gaps over which it fades; gap over which teeth become visible in it at all.
_DIM, _DIM_SHARE = np.array([0.57, 0.36, 0.40], np.float32), (0.3, 0.5)
_DIM_FADES_MM = (4.0, 10.0), (4.0, 12.0)
_FLAT_MM = 0.8, 2.5
_THIN_MM = 0.6, 1.8  # local gap over which that shadow gives way: toward its corners, an opening is not black
# Widths of the mouth over which pursed lips part only in the middle and shade the teeth, and by how much. L1 in frames
# of 45 training clips with mouths narrower than 0.88 of the closed ones falls from 34.2 to 28.1 at gaps of 6 to 9 mm.
_PURSED_MM, _PURSED_DARK = (36.0, 45.0), 0.4
# Local contrast of drawn teeth and cavity: share that is added, and sigma of the surroundings. On 26 clips of the
# training set, edge energy rises from 0.68 to 0.87 of the real frames', and L1 from 39.2 to 39.7.
_CRISP, _CRISP_MM = 0.4, 1.1
_MIN_OWN_SHADE = 0.15  # lower bound of the light at the photo's own teeth, in the photo
# The photo's own teeth behind lips that a smile draws back: bounds of the share of light that reaches them even under
# the lip, gap over which it rises, and width of a mouth over which it smiles (in the training set: 54 mm or more).
_BARED, _BARED_MM, _BARED_WIDTH_MM = (0.2, 0.8), (1.5, 5.0), (50.0, 60.0)
# Bounds, and sigma, of the light by which a set is matched to the own teeth; finer, it would draw their spots larger.
_LIKE_OWN, _LIKE_OWN_MM = (0.7, 1.4), 6.0
_SHADED_MM = 1.5  # height of enamel below the upper lip that is too dark to be detected
_MIN_OWN_LIGHT = 0.4  # of the skin's brightness, that enamel has at least
_MIN_OWN_MM2 = 25.0  # smallest visible area of enamel for which the photo's own teeth are used


@dataclass(frozen=True)
class _Patch:
    """The part of a canvas around an opening.

    Attributes:
        low, high: (left, top) and (right, bottom), canvas pixels.
        outline: [20, 2] of the opening, pixels of the patch.
        pose: maps the canonical face to pixels of the patch.
        px_per_mm: resolution at the incisors.
    """

    low: NDArray[np.int_]
    high: NDArray[np.int_]
    outline: NDArray[np.float64]
    pose: Pose
    px_per_mm: float

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.high[1] - self.low[1]), int(self.high[0] - self.low[0])


class MouthLayer:
    """Draws the interior of one person's mouth into frames of one picture.

    Attributes:
        rims: the lips without interior and without the line between them.
    """

    def __init__(self, picture: Image, canvas: Canvas, jaws: Jaws, is_gray: bool) -> None:
        """Initialize; the expensive preparation is done at the first open mouth.

        Args:
            picture: uint8 RGB [H, W, 3], the photo.
            canvas: the part of it that changes.
            jaws: of the person in it, with the teeth to use if the photo does not show any.
            is_gray: whether the photo is black-and-white.
        """
        self._picture, self._canvas, self._jaws, self._is_gray = picture, canvas, jaws, is_gray
        self.rims = LipRims(picture, canvas, jaws)

    def reach(self, opening: Opening) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """(left, top) and (right, bottom) of the area that an opening changes, canvas pixels."""
        outline = self._canvas.place(np.concatenate([opening.upper, opening.lower]))
        px_per_mm = self._jaws.px_per_mm(opening, self._canvas.crop.side)
        return self._canvas.around(outline, self.rims.margin_mm * px_per_mm + 2)

    @cached_property
    def palette(self) -> Palette:
        """Colors, sharpness and grain of the photo."""
        return Palette.of(self._picture, self._canvas.crop.from_unit(self._jaws.points), self._is_gray)

    @cached_property
    def _own(self) -> _OwnTeeth | None:
        """The photo's own upper teeth; None if it does not show them."""
        if self._jaws.shows <= 0:
            return None
        photo = self._patch(self._jaws.in_photo())
        return self._own_teeth(photo, _texture_px_per_mm(photo))

    @cached_property
    def _textures(self) -> tuple[Texture, Texture]:
        """Textures of the upper and lower teeth, in the photo's colors and resolution."""
        palette = self.palette
        chosen = self._jaws.teeth or teeth.choose(palette.skin, teeth.shipped())
        photo = self._patch(self._jaws.in_photo())
        px_per_mm = _texture_px_per_mm(photo)
        blur = np.sqrt(max(palette.blur_px**2 - 0.25, 0)) * px_per_mm / photo.px_per_mm
        own = self._own
        upper = teeth.upper_texture(chosen, px_per_mm)
        lower = teeth.lower_texture(chosen, px_per_mm)
        enamel = palette.enamel if own is None else own.tone
        pictures = []
        for texture in (upper, lower):
            picture = texture.picture.copy()
            color = picture[..., :3] * enamel
            color += texture.gum[..., None] * (palette.gum * picture[..., :1] / teeth.GUM_LEVEL - color)
            if self._is_gray:
                color = np.repeat((color @ LUMA)[..., None], 3, -1)
            if palette.detail < 1:  # gaps between teeth would stand out against smooth skin
                smooth = cv2.GaussianBlur(color, (0, 0), _SMOOTH_MM * px_per_mm)
                color += _SMOOTH * (1 - palette.detail) * (smooth - color)
            picture[..., :3] = color
            if blur > 0.2:
                picture[..., :3] *= picture[..., 3:]
                picture = cv2.GaussianBlur(picture, (0, 0), blur)
                picture[..., :3] /= np.maximum(picture[..., 3:], 1e-3)
            pictures.append(picture)
        if own is not None:
            pictures[0] = own.under(pictures[0], px_per_mm)
        return (
            Texture(pictures[0], upper.gum, px_per_mm, upper.left, upper.top),
            Texture(pictures[1], lower.gum, px_per_mm, lower.left, lower.top),
        )

    def _own_teeth(self, photo: _Patch, px_per_mm: float) -> _OwnTeeth | None:
        """The photo's own upper teeth, with the shading by the lips removed."""
        wall = upper_wall(self._jaws.anatomy, photo.pose)
        unrolled, inside = self._unrolled(photo, wall, px_per_mm)
        found = teeth.enamel(unrolled.clip(0, 255).astype(np.uint8), inside > 0.5, px_per_mm)
        if found.sum() / px_per_mm**2 < _MIN_OWN_MM2:
            return None
        weight = cv2.GaussianBlur(
            cv2.erode(found.astype(np.float32), np.ones((3, 3))), (0, 0), max(0.3 * px_per_mm, 0.5)
        )
        light = self._light_of(photo, _LIGHT_MM[0])
        u, v = teeth.wall_grid(px_per_mm)
        at = wall.place(*np.meshgrid(u, v)).astype(np.float32)
        light = cv2.remap(light, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        along = _shade(u, np.interp(u, wall.u, wall.facing))[None]
        front = found & (np.abs(u) < 12)[None]
        front = front if front.any() else found
        # The light under the lip, from how the teeth darken toward it.
        slope, least = line_fit(light[front], (unrolled @ LUMA / along)[front])
        ambient = float(np.clip(least / max(least + slope, 1e-6), *_BARED))
        shade = np.maximum((ambient + (1 - ambient) * light) * along, _MIN_OWN_SHADE)
        lit = _tinted(shade[front])
        tone = (unrolled[front] * lit).sum(0) / (lit * lit).sum(0)
        if tone @ LUMA < _MIN_OWN_LIGHT * (self.palette.skin @ LUMA):
            return None  # the dark between lips that are parted by a little
        # The incisal edge: the lower end of the front teeth's enamel.
        columns = np.flatnonzero((np.abs(u) < 8) & (found.sum(0) > px_per_mm))
        rows = [np.flatnonzero(found[:, c])[-1] for c in columns]
        edge = float(np.median(v[rows])) if len(rows) else 0.0
        # Lower bound of their length: enamel in the shadow of the upper lip is not detected.
        tops = [v[np.flatnonzero(found[:, c])[0]] for c in columns]
        length = edge - float(np.percentile(tops, 25)) + _SHADED_MM if len(rows) else 0.0
        picture = np.dstack([unrolled, weight]).astype(np.float32)
        return _OwnTeeth(
            Texture(picture, weight, px_per_mm, -teeth.HALF_MM, -teeth.TOP_MM),
            Texture(shade[..., None].astype(np.float32), weight, px_per_mm, -teeth.HALF_MM, -teeth.TOP_MM),
            ambient,
            tone.astype(np.float32),
            edge,
            length,
        )

    def _unrolled(self, photo: _Patch, wall: Wall, px_per_mm: float) -> tuple[Array, Array]:
        """The photo unrolled onto a wall, float32 [h, w, 3], and a mask [h, w] of the area between the lips."""
        u, v = teeth.wall_grid(px_per_mm)
        at = wall.place(*np.meshgrid(u, v)).astype(np.float32)
        part = self._canvas.part(self._picture)[photo.low[1] : photo.high[1], photo.low[0] : photo.high[0]]
        image = cv2.remap(part, at[..., 0], at[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        mask = soft_polygon(photo.outline, photo.shape, 0.5)[..., 0]
        inside = cv2.remap(mask, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        inside = inside * ((u >= wall.u[0]) & (u <= wall.u[-1]))[None]
        return image.astype(np.float32), inside

    def _patch(self, opening: Opening) -> _Patch:
        canvas = self._canvas
        upper, lower = (canvas.place(line) for line in (opening.upper, opening.lower))
        outline = np.concatenate([upper, lower[-2:0:-1]]).astype(np.float64)
        skull, side = opening.skull, canvas.crop.side
        px_per_mm = self._jaws.px_per_mm(opening, side)
        low, high = canvas.around(outline, 3 * max(_SOFT_MM * px_per_mm, 0.6))
        shift = np.array([canvas.crop.left - canvas.left, canvas.crop.top - canvas.top]) - 0.5 - low
        pose = Pose(skull.rotation, skull.translation * side + np.array([*shift, 0.0]), skull.scale * side)
        return _Patch(low, high, outline - low, pose, px_per_mm)

    def _light_of(self, patch: _Patch, sigma_mm: float) -> Array:
        """[H, W] 0..1: light that reaches each pixel through the opening (its mask, blurred)."""
        height, width = patch.shape
        k = (
            2.5 / patch.px_per_mm
        )  # of a large opening drawn small, it is smooth; a narrow one has to be thinner than a pixel
        size = max(int(np.ceil(width * k)), 2), max(int(np.ceil(height * k)), 2)
        scale = np.array([size[0] / width, size[1] / height])
        outline = (patch.outline + 0.5) * scale - 0.5
        step = patch.px_per_mm * scale[1]
        pad = int(np.ceil(2 * sigma_mm * step))
        narrow, wide = _SHADOW_MM
        shadow = narrow + (wide - narrow) * float(smoothstep(_gap(patch.outline) / patch.px_per_mm, *_SHADOW_FADES_MM))
        shifted = outline + np.array([pad, pad + shadow * step])
        mask = np.zeros((size[1] + 2 * pad, size[0] + 2 * pad), np.uint8)
        cv2.fillPoly(mask, [np.round(shifted * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        mask = _box_blurred(mask, sigma_mm * step, cv2.BORDER_CONSTANT)
        small = mask[pad : pad + size[1], pad : pad + size[0]].astype(np.float32) * np.float32(_LIGHT / 255)
        return np.asarray(cv2.resize(small.clip(0, 1), (width, height), interpolation=cv2.INTER_LINEAR))

    def overlay(self, opening: Opening) -> Overlay | None:
        """The interior of the mouth and the line between touching lips; None if nothing is drawn."""
        patch = self._patch(opening)
        if min(patch.shape) < 2:
            return None
        tapered = _tapered(patch.outline, patch.px_per_mm)
        alpha = soft_polygon(_curved(tapered), patch.shape, max(_SOFT_MM * patch.px_per_mm, 0.6))
        color = self._inside(patch, tapered, opening.drop_mm)
        if opening.changed < 1:
            own = self._rigid(patch)
            color = own + opening.changed * (color - own)
        gap_mm = _gap(patch.outline) / patch.px_per_mm
        share = alpha[..., 0] * np.float32(opening.parted * self.rims.parted(gap_mm, patch.px_per_mm))
        seam = self.rims.seam(patch.shape, patch.outline, patch.px_per_mm, gap_mm)
        if seam is None:
            return Overlay.of(patch.low, color, share)
        both = share + (1 - share) * seam  # the seam is black and lies below the interior
        return Overlay.of(patch.low, color * (share / np.maximum(both, 1e-6))[..., None], both)

    def _inside(self, patch: _Patch, tapered: NDArray[Any], drop_mm: float) -> Array:
        """The layers, composited back to front: float32 [H, W, 3]; tapered: result of _tapered."""
        palette = self.palette
        upper, lower = self._textures
        height, width = patch.shape
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
        near, light = (self._light_of(patch, sigma)[..., None] for sigma in _LIGHT_MM)
        anatomy = self._jaws.anatomy
        low_u, low_v, low_facing = lower_wall(anatomy, patch.pose, drop_mm).find(x, y)
        above = upper_wall(anatomy, patch.pose).find(x, y)
        # The palate behind the upper teeth is visible and darkens toward the throat.
        depth = _THROAT + _PALATE * np.exp(-above[1].clip(0) / _PALATE_MM)
        color = palette.cavity * (_DEEP + (1 - _DEEP) * light) * _tinted(depth)
        half, shut, wide = _TONGUE_MM
        back = (1 - (low_u / half) ** 2).clip(0) ** 0.75
        highest = shut + (wide - shut) * min(drop_mm / 20, _TONGUE_RISES)
        rise = highest * back
        tongue = smoothstep((low_v + rise) / 3.0 + 0.5) * smoothstep(back / 0.4)
        tongue = tongue[..., None]
        # The tongue darkens toward its back, and at its sides where the arch turns away.
        lit = 0.35 + 0.65 * smoothstep((low_v + rise) / max(9.0, 0.8 * highest))
        lit *= 0.35 + 0.65 * smoothstep(low_facing * 2)
        lit *= 1 - _FURROW * np.exp(-((low_u / 2.6) ** 2)) * smoothstep(-low_v, 2, 10)
        color += tongue * (palette.tongue * light * lit[..., None] - color)
        own, gap_mm = self._own, _gap(patch.outline) / patch.px_per_mm
        bared = 0.0 if own is None else float(smoothstep(_width(patch), *_BARED_WIDTH_MM))
        over = _with_ambient(near[..., 0], _AMBIENT * float(smoothstep(gap_mm, *_AMBIENT_MM)))
        pursed = 1 - float(smoothstep(_width(patch), *_PURSED_MM))
        near, over = (light * np.float32(1 - _PURSED_DARK * pursed) for light in (near, over))
        if own is not None:
            over += bared * (_with_ambient(near[..., 0], own.ambient * float(smoothstep(gap_mm, *_BARED_MM))) - over)
        for texture, (u, v, facing), lit in (
            (lower, (low_u, low_v, low_facing), _LOWER_LIGHT * near[..., 0]),
            (upper, above, over),
        ):
            found = texture.at(u, v)
            shade = lit * _shade(u, facing)
            opacity = found[..., 3:] * smoothstep(facing * 12)[..., None]
            color += opacity * (found[..., :3] * _tinted(shade) - color)
        color += _CRISP * (color - _box_blurred(color, _CRISP_MM * patch.px_per_mm))
        if own is not None:
            u, v, facing = above
            found, then = own.texture.at(u, v), own.shade.at(u, v)
            opacity = found[..., 3:] * smoothstep(facing * 12)[..., None]
            ratio = over * _shade(u, facing) / np.maximum(then, _MIN_OWN_SHADE)
            color += opacity * (found[..., :3] * _tinted(ratio.clip(0, 1)) - color)
        shows = int(own is not None)
        dim = _DIM_SHARE[shows] * (1 - float(smoothstep(gap_mm, *_DIM_FADES_MM[shows])))
        dim *= 1 - bared * float(smoothstep(gap_mm, *_BARED_MM))
        dim += (1 - dim) * (1 - float(smoothstep(gap_mm, *_FLAT_MM)))
        thin = 1 - smoothstep(_gap_along(tapered, x, y) / patch.px_per_mm, *_THIN_MM)
        share = np.asarray(dim + (1 - dim) * thin, np.float32)
        color += share[..., None] * (palette.skin * _DIM - color)
        if self._is_gray:
            color = np.repeat((color @ LUMA)[..., None], 3, -1)
        if palette.grain is not None:
            rows = (patch.low[1] + np.arange(height)) % palette.grain.shape[0]
            columns = (patch.low[0] + np.arange(width)) % palette.grain.shape[1]
            color *= 1 + palette.grain[rows[:, None], columns] / max(float(palette.skin @ LUMA), 1.0)
        return color

    def _rigid(self, patch: _Patch) -> Array:
        """The photo's own mouth interior, moved rigidly with the skull: float32 [H, W, 3]."""
        photo = self._patch(self._jaws.in_photo())
        edge, mm = self._jaws.anatomy.edge, self._jaws.anatomy.mm
        corners = edge + 20 * mm * np.array([[-1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        here, there = (p.pose.apply(corners)[:, :2].astype(np.float32) for p in (patch, photo))
        there = there + photo.low.astype(np.float32)
        matrix = cv2.getAffineTransform(here, there)
        height, width = patch.shape
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        moved = cv2.warpAffine(
            self._canvas.part(self._picture), matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(moved, np.float32)


@dataclass(frozen=True)
class _OwnTeeth:
    """Teeth that the photo shows.

    Attributes:
        texture: their color in the photo's light, and weight.
        shade: 0..1; that light.
        ambient: 0..1; the part of it that reaches them even under the lip.
        tone: [3] mean color of the front teeth, in full light.
        edge: v of their edge, mm.
        length: lower bound of the front teeth's length, mm.
    """

    texture: Texture
    shade: Texture
    ambient: float
    tone: Array
    edge: float
    length: float

    def under(self, picture: Array, px_per_mm: float) -> Array:
        """The texture of a set [h, w, 4], adapted to their edge, length and light, to lie under them."""
        own = self.texture.picture
        height = own.shape[0]
        down = round(self.edge * px_per_mm)
        k = max(self.length / teeth.INCISOR_MM, 1.0)
        row = teeth.TOP_MM * px_per_mm  # of the set's edge
        matrix = np.array([[1.0, 0, 0], [0, k, row * (1 - k) + down]])
        below = cv2.copyMakeBorder(picture, 0, max(height - picture.shape[0], 0), 0, 0, cv2.BORDER_CONSTANT)
        moved = cv2.warpAffine(below, matrix, below.shape[1::-1], borderMode=cv2.BORDER_CONSTANT)
        if down > 0:
            moved[:down] = below[:1]
        moved = moved[:height]
        lit = moved[..., :3] * _tinted(self.shade.picture[..., 0])
        like = np.clip(own[..., :3] / np.maximum(lit, 1.0), *_LIKE_OWN)
        weight = own[..., 3:] * moved[..., 3:]
        both = np.concatenate([like * weight, weight], -1).astype(np.float32)
        far = both.sum((0, 1)) * np.float32(1e-4 / max(float(weight.sum()), 1e-6))
        near = teeth.widely_blurred(both, _LIKE_OWN_MM * px_per_mm) + far
        moved[..., :3] *= near[..., :3] / np.maximum(near[..., 3:], 1e-9)
        return moved


def _box_blurred(picture: Any, sigma: float, border: int = cv2.BORDER_REPLICATE) -> Any:
    """Two box filters, which approximate the Gaussian at a fraction of the cost."""
    box = 2 * round((np.sqrt(6 * sigma**2 + 1) - 1) / 2) + 1
    for _ in range(2):
        picture = cv2.blur(picture, (box, box), borderType=border)
    return picture


def _texture_px_per_mm(photo: _Patch) -> float:
    """Resolution of the textures."""
    return float(np.clip(photo.px_per_mm, 0.8, 12))


def _width(patch: _Patch) -> float:
    """Width of an opening, mm."""
    return float(np.linalg.norm(patch.outline[10] - patch.outline[0])) / patch.px_per_mm


def _gap(outline: NDArray[Any]) -> float:
    """Largest gap of an opening; outline [20, 2]: the upper lip's contour, then the lower lip's, reversed."""
    return float(np.linalg.norm(outline[:10:-1] - outline[1:10], axis=1).max())


def _curved(outline: NDArray[Any]) -> NDArray[np.float64]:
    """An outline [20, 2] with a smooth curve through its points, for each lip from corner to corner."""
    between = spline(11, _PER_SEGMENT)
    return np.concatenate([between @ outline[:11], (between @ _lower_lip(outline))[-2:0:-1]])


def _tapered(outline: NDArray[Any], px_per_mm: float) -> NDArray[np.float64]:
    """An outline [20, 2] whose lips meet gradually toward the corners of the mouth; pursed lips part in the middle."""
    upper, lower = outline[:11], _lower_lip(outline)
    gap = np.linalg.norm(lower - upper, axis=1)
    full = min(_CORNER_MM * px_per_mm, _CORNER * float(gap.max()))
    pursed = 1 - float(smoothstep(np.linalg.norm(upper[10] - upper[0]) / px_per_mm, *_PURSED_MM))
    full += pursed * (float(gap.max()) - full)
    lost = ((lower - upper) * (1 - smoothstep(gap / max(full, 1e-6)))[:, None]) / 2
    return np.concatenate([upper + lost, (lower - lost)[-2:0:-1]])


def _gap_along(outline: NDArray[Any], x: Array, y: Array) -> NDArray[np.float64]:
    """[H, W] gap of an outline [20, 2] at the pixels of columns x [W] and rows y [H], interpolated along the mouth."""
    upper, lower = outline[:11], _lower_lip(outline)
    across = upper[10] - upper[0]
    places = np.maximum.accumulate((upper + lower) @ across / 2)
    at = x[None] * across[0] + y[:, None] * across[1]
    return np.interp(at, places, np.linalg.norm(lower - upper, axis=1))


def _lower_lip(outline: NDArray[Any]) -> NDArray[Any]:
    """[11, 2] the lower lip's contour of an outline [20, 2], from corner to corner like the upper one's."""
    return np.concatenate([outline[:1], outline[:9:-1]])


def _with_ambient(light: Array, least: float) -> Array:
    """Light at the upper teeth: under the lip, they are lit by the lower lip and the face's surroundings."""
    return np.asarray(least + (1 - least) * light, np.float32)


def _shade(u: NDArray[Any], facing: NDArray[Any]) -> Array:
    """Light along an arch: it decreases toward the ends and where the arch turns away."""
    return np.asarray(
        (1 - (1 - _BACK_LIGHT) * smoothstep(np.abs(u) / 38)) * (_TURNED_LIGHT + (1 - _TURNED_LIGHT) * np.sqrt(facing)),
        np.float32,
    )


def _tinted(shade: NDArray[Any]) -> NDArray[Any]:
    """[..., 3] shade per channel: shaded enamel is lit by lips and gums, and is therefore redder."""
    return shade[..., None] ** _REDDENS
