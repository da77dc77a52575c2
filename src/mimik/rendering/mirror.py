"""The mirrored photo as a second source: skin that a turn uncovers is taken from the other side of the face.

The photo is not flipped. A point of the head takes the pixels of its mirror point in the same photo: the points are
swapped by the mesh's mirror permutation, and interpolation between them flips the texture. Where it is used is decided
point by point from how squarely the photo shows the point, how squarely its mirror point, and how squarely the frame
shows it: a smooth function of the pose, so that nothing pops.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import smoothstep
from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Image
from mimik.rendering.field import GRID, grid_centers
from mimik.rendering.head_mesh import head
from mimik.rendering.occlusion import Surface

TURNED = 3.0, 9.0  # degrees: from the first on the second source is used, from the second fully
_STRETCH = 1.2, 1.6  # how much longer than in the photo a piece of skin becomes: none, all of it from the other side
_BETTER = 1.2, 1.7  # how much longer the other side's is in the photo: none, all
_OBLIQUE = 0.06  # cosine added to all of them: skin at the outline is not compared by nothing
_HIDDEN = -0.05, 0.12  # cosine: what the photo shows less squarely than the second, hidden from the first on, is needed
_NOTHING = 0.004  # share below which a point is not drawn
_CONTINUED = 2.0  # cells: as far places and shares are continued beyond the mesh, and
_OUTLINE = 0.1, 0.45  # share of the mesh around a cell: outside the first there is no second source
_SEAM = 0.05, 0.8  # shares that are blended: where two pictures of one thing do not meet, a wide blend shows it twice
_INSIDE = 0.0, 0.02  # of the square's side, from the picture's edge: how surely a place is in the picture
_EARS_CM = -4.0, 8.0  # above the middle of the face: where hair is beside it
_SHOWN = 0.45, 0.75  # of the usual width of hair beside the face: a strip narrower than the first is not stretched
_CUT = 0.1, 0.5  # of the points of a side's hair: if so many lie beyond the picture, its outline is unknown
_NECK = 0.5  # share of the neck in what a point follows, from which on it is not mirrored
_COLLAR = 9.0  # how far below the jaw the second source ends: midway to the neck at 1, nearer to the jaw above
_BEHIND = -0.04, 0.01  # of the face's width, from its outline inwards: where the photo's face hides the neck
_NECK_ENDS = 0.4  # of what _COLLAR does to the share, to the opacity of a hidden neck
_HEAD_Y = -3.0  # of the head's middle on the canonical face, cm
_FROM_CROWN = 3.0, 25.0  # degrees from the crown, seen from the front: hair above the first is not mirrored
_UNCOVERED = 0.0, 0.2  # cosine: a cheek that the frame shows less squarely has not been turned to the viewer
_HAIR_STRETCH = 1.2, 2.6  # the same for the hair beside it
_OWN_BEGINS = 0.05, 0.4  # of the way from the face to the hair's inner ring
_HAIR_ENDS = 0.6, 0.78  # of the way from the hair's outer ring back to its inner one
_SMOOTH_CELLS = 0.7  # cells: what the places are smoothed with
_LOWEST = 0.0  # height: lower ones would be too steep to be interpolated
_ROUNDED = 1.0  # cells: as finely the outline is followed
_IRIS = 1.3  # of its radius: as far an iris is moved as a whole
_LIGHT_BLUR = 1 / 16  # of the face's width
_SKIN_ENDS = 0.03  # of the face's width, beyond its outline: hair keeps its own light
_LIGHT_PX = 96  # width of the face in the picture in which light is compared
_DARK = 0.2, 0.5  # of the brightness of the face around it: what is darker than the first is not brightened
_LEAST_SHADE = 0.8  # of the whole face's: that brightness at least
_SHADE_BLUR = 1 / 5  # of the face's width: how far around
_MAX_LOG_GAIN = np.log(6.0)
_MAX_CONTRAST = 1.6  # largest gain of detail: the noise of a shadow would show in full light
_SEEN = 0.05, 0.4  # cosine: of skin seen less squarely than the first the light is not known
_SPREAD_CM = 1.75  # on the canonical face, 14 cm wide


@dataclass(frozen=True)
class MirrorFlow:
    """The second source of one frame, over a part of the flow's grid.

    Attributes:
        rows, columns: of the grid.
        offset: [h, w, 2] float32, place in the photo on the other side of the face minus target place, as Flow.offset.
        weight: [h, w] float32, 0..1, share of the second source.
        height: [h, w] float32, 1 where the second source is opaque if the photo is, and lower beyond face and hair: its
            outline is a level of the interpolated heights, see opacity. Opacities themselves would be a staircase.
        own: [h, w] float32, 0..1: where it is 1 the outline stays that of the photo's own hair.
    """

    rows: slice
    columns: slice
    offset: Array
    weight: Array
    height: Array
    own: Array


@functools.cache
def mirror_points() -> NDArray[np.intp]:
    """[V] for each of the head's points, face and shell, its mirror point."""
    shell = head().shell
    distance = np.linalg.norm(shell[:, None] - shell[None] * [-1.0, 1.0, 1.0], axis=-1)
    return np.concatenate([face.mirror_order()[0], face.NUM_POINTS + distance.argmin(1)])


class Mirror:
    """The other side of one photo's head.

    Attributes:
        source: [V, 3] where the mirror points lie in the photo, units of the crop's side.
    """

    def __init__(
        self, source: NDArray[np.float64], facing: NDArray[np.float64], shown: NDArray[np.float64] | None = None
    ) -> None:
        """For one photo.

        Args:
            source: [V, 3] the head's points in the photo, units of the crop's side.
            facing: [V] cosine of the angle at which the photo shows each.
            shown: [S] of hair and neck, 0..1: how much the photo shows of each; the rest is mirrored. The picture has
                then to be a person without background. None: the face alone is mirrored.
        """
        self._whole_head = shown is not None
        other = mirror_points()
        self.source = source[other]
        self._facing = facing
        self._better = smoothstep((facing[other].clip(0) + _OBLIQUE) / (facing.clip(0) + _OBLIQUE), *_BETTER)
        self._lost = 1 - smoothstep(facing, *_HIDDEN)
        follow = head().follow
        n = len(face.OVAL)
        neck = np.minimum((1 - follow) / max(float((1 - follow)[:n].max()), 1e-9), 1)
        # Neither collars nor the crown are mirrored. Outside the mirrored hair the photo's own hair goes on where the
        # photo shows it; elsewhere there is nothing.
        self._x, y, _ = head().shell.T
        beside = smoothstep(np.degrees(np.abs(np.arctan2(self._x, _HEAD_Y - y))), *_FROM_CROWN)
        collar = _COLLAR * smoothstep(neck, 0, _NECK)
        self._shell = np.zeros(len(follow)) if shown is None else (1 - collar) * beside
        self._opacity, self._own = np.ones(len(source)), np.zeros(len(source))
        self._opacity[face.NUM_POINTS + n :] = 0
        if shown is not None:
            # Where the photo's face hides the neck, the skin of its edge is not drawn out to be one: nothing is shown.
            behind = np.tile(_behind_face(source), 2)
            self._opacity[face.NUM_POINTS : face.NUM_POINTS + n] -= _NECK_ENDS * (collar * behind)[:n]
            self._shell += behind * (beside - self._shell)
            self._shell[n:] *= 1 - shown[n:]
            self._own[face.NUM_POINTS :] = shown

    def attributes(self, facing: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
        """[V, 5] of each point: where it comes from; share of the second source, its opacity, share of the own outline.

        Args:
            facing: [V] cosine of the angle at which the frame shows each.
            degrees: by how much the head has turned.
        """
        stretch = (facing.clip(0) + _OBLIQUE) / (self._facing.clip(0) + _OBLIQUE)
        share = smoothstep(degrees, *TURNED) * self._better
        weights = share * np.maximum(smoothstep(stretch, *_STRETCH), self._lost)
        # The hair of a side comes from where its cheek comes from, all around, so that its outline is of one piece; a
        # little later, so that its outline moves outwards from the cheek's.
        hair = share * np.maximum(smoothstep(stretch, *_HAIR_STRETCH), self._lost) * smoothstep(facing, *_UNCOVERED)
        hair = hair[face.OVAL]
        for side in (self._x < 0, self._x > 0):
            weights[face.NUM_POINTS :][side] = hair[side[: len(face.OVAL)]].max()
        weights[face.NUM_POINTS :] *= self._shell
        return np.column_stack([self.source[:, :2], weights, self._opacity, self._own])

    def joined(self, front: Surface, back: Surface) -> tuple[Array, NDArray[np.bool_]]:
        """What is rasterized of the face, and with the whole head of hair and neck behind it; and where it is."""
        is_face = front.depth <= back.depth
        if not self._whole_head:
            return front.mirror, front.covered & is_face
        return np.where(is_face[..., None], front.mirror, back.mirror), front.covered | back.covered


def _behind_face(source: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] 0..1 of the shell's inner ring: how surely the photo's face hides it. Arguments as Mirror takes them."""
    hull = cv2.convexHull(source[: face.NUM_POINTS, :2].astype(np.float32))
    ring = source[face.NUM_POINTS : face.NUM_POINTS + len(face.OVAL), :2]
    inside = [cv2.pointPolygonTest(hull, (float(x), float(y)), True) for x, y in ring]
    return np.asarray(smoothstep(np.array(inside) / np.ptp(hull[:, 0, 0]), *_BEHIND))


def hair_shown(
    source: NDArray[np.float64], skull: face.Pose, matte: Array, picture: NDArray[Any]
) -> NDArray[np.float64]:
    """How much a photo shows of the hair of either side, [S] of the shell's points 0..1; the same for all of a side.

    Counted is the person beside the face's outline, as far out as hair is wide there.

    Args:
        source: [V, 3] the head's points in the photo, units of the crop's side.
        skull: takes the canonical face there.
        matte: [GRID, GRID] 0..1 of the person, over the crop.
        picture: [2, 2] left and top, right and bottom of the photo.
    """
    face_points = source[: face.NUM_POINTS, :2]
    mask = np.zeros((GRID, GRID), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull((face_points * GRID).astype(np.int32)), 1)
    n = len(face.OVAL)
    ring, middle = source[face.NUM_POINTS : face.NUM_POINTS + n, :2], face_points.mean(0)
    away = ring - middle
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    steps = np.arange(0.0, 1.0, 0.5 / GRID)
    x, y = ((middle + away[:, None] * steps[:, None]) * GRID).astype(int).clip(0, GRID - 1).transpose(2, 0, 1)
    shell = head().shell
    usual = np.linalg.norm(shell[:n, :2] - face.canonical_mesh().vertices[face.OVAL, :2], axis=1)
    outline = mask[y, x].sum(1) * steps[1]
    beside = (steps >= outline[:, None]) & (steps < (outline + usual * skull.scale)[:, None])
    at_ears = (-shell[:n, 1] > _EARS_CM[0]) & (-shell[:n, 1] < _EARS_CM[1])
    out = np.zeros(len(shell))
    for side in (shell[:, 0] < 0, shell[:, 0] > 0):
        some = side[:n] & at_ears
        shown = (matte[y, x] * beside)[some].sum() / max(int(beside[some].sum()), 1)
        # Hair of the other side that the picture's edge cuts has no outline to lend.
        other = source[mirror_points()[face.NUM_POINTS :][:n][some], :2]
        cut = 1 - ((other > picture[0]) & (other < picture[1])).all(1).mean()
        out[side] = max(shown, smoothstep(cut, *_CUT))
    return np.asarray(smoothstep(out, *_SHOWN))


def mirror_flow(
    attribute: Array,
    covered: NDArray[np.bool_],
    fade: Array,
    irises: NDArray[Any],
    come_from: NDArray[Any],
    picture: NDArray[Any],
) -> MirrorFlow | None:
    """The second source of a frame; None where it is not needed.

    Args:
        attribute: [GRID, GRID, 5] rasterized Mirror.attributes.
        covered: [GRID, GRID] where there are any.
        fade: [GRID, GRID] 1 inside, 0 at the border of the picture.
        irises: [10, 2] points of the irises in the frame: the mesh has openings there, and the gaze of the other side
            would be mirrored.
        come_from: [10, 2] their mirror points in the photo.
        picture: [2, 2] left and top, right and bottom of the photo: beyond it there is no other side.
    """
    known = covered.astype(np.float32)
    weight = attribute[..., 2]
    if not (weight > _NOTHING).any():
        return None
    ys, xs = np.nonzero(cv2.dilate((weight > _NOTHING).astype(np.uint8), np.ones((9, 9), np.uint8)))
    part = slice(int(ys.min()), int(ys.max()) + 1), slice(int(xs.min()), int(xs.max()) + 1)
    known, weight = known[part], weight[part]
    offset = attribute[..., :2][part] - grid_centers().reshape(GRID, GRID, 2)[part]
    # All are continued over openings of the mesh and a little beyond its outline, which is a staircase.
    near = cv2.GaussianBlur(known, (0, 0), _CONTINUED)
    values = np.dstack([offset, attribute[..., 2:][part]])
    around = cv2.GaussianBlur(values * known[..., None], (0, 0), _CONTINUED) / np.maximum(near, 1e-3)[..., None]
    values = cv2.GaussianBlur(np.where(known[..., None] > 0, values, around), (0, 0), _SMOOTH_CELLS)
    offset, (weight, opacity, own) = np.ascontiguousarray(values[..., :2]), cv2.split(values[..., 2:])
    for iris in (slice(0, 5), slice(5, 10)):
        _place_iris(offset, part, irises[iris], come_from[iris])
    place = offset + grid_centers().reshape(GRID, GRID, 2)[part]
    inside = smoothstep(np.minimum(place - picture[0], picture[1] - place).min(-1), *_INSIDE)
    weight = smoothstep(weight * smoothstep(near, *_OUTLINE) * fade[part] * inside, *_SEAM)
    height = cv2.GaussianBlur(np.maximum(opacity, _LOWEST), (0, 0), _ROUNDED)
    own = smoothstep(own, *_OWN_BEGINS)
    return MirrorFlow(*part, offset, *(np.asarray(plane, np.float32) for plane in (weight, height, own)))


def opacity(height: Array) -> Array:
    """0..1, where the second source ends; height: MirrorFlow's, interpolated to where it is asked."""
    return np.asarray(smoothstep(height, *_HAIR_ENDS))


def _place_iris(offset: Array, part: tuple[slice, slice], iris: NDArray[Any], come_from: NDArray[Any]) -> None:
    """Changes offsets [h, w, 2] of a part of the grid so that an iris [5, 2] comes from where its mirror iris is."""
    rows, columns = part
    middle = iris[0] * GRID - 0.5 - [columns.start, rows.start]
    at = middle.round().astype(int)
    if (at < 0).any() or (at >= offset.shape[1::-1]).any():
        return
    sigma = _IRIS * float(np.linalg.norm(iris[1:] - iris[0], axis=1).mean()) * GRID
    missing = (come_from[0] - iris[0] - offset[at[1], at[0]]).astype(np.float32)
    y, x = (np.arange(n, dtype=np.float32) for n in offset.shape[:2])
    near = np.exp(-((x - middle[0]) ** 2) / (2 * sigma**2)) * np.exp(-((y[:, None] - middle[1]) ** 2) / (2 * sigma**2))
    offset += near[..., None] * missing


def matched_light(picture: Image, points: NDArray[Any], facing: NDArray[np.float64]) -> Image:
    """The picture lit so that each place of the face can stand for its mirror place.

    The gain is the ratio of the local mean colors of both sides, blurred at a sixteenth of the face's width; where the
    photo does not show the mirror place, that of the nearest place that it shows. Gains above _MAX_CONTRAST raise the
    local mean but not its detail. Hair and other dark parts are not brightened.

    Args:
        picture: uint8 RGB [H, W, 3].
        points: [478, 3] of the face in it, pixels.
        facing: [478] cosine of the angle at which each is seen.
    """
    other = face.mirror_order()[0]
    oval = points[face.OVAL, :2]
    width = max(float(np.ptp(oval[:, 0])), 8.0)
    low = np.floor(oval.min(0) - 0.5 * width).astype(int).clip(0, None)
    high = np.minimum(np.ceil(oval.max(0) + 0.5 * width).astype(int) + 1, picture.shape[1::-1])
    if (high - low < 2).any():
        return picture
    part = (slice(low[1], high[1]), slice(low[0], high[0]))
    # In a small picture of the face: the gain is smooth.
    k = min(1.0, _LIGHT_PX / width)
    size = max(round((high[0] - low[0]) * k), 2), max(round((high[1] - low[1]) * k), 2)
    small = cv2.resize(picture[part], size, interpolation=cv2.INTER_AREA).astype(np.float32)
    places = ((points[:, :2] - low) * (np.array(size) / (high - low))).astype(np.float32)
    inside = np.zeros(size[::-1], np.uint8)
    cv2.fillConvexPoly(inside, cv2.convexHull(np.round(places[face.OVAL] - 0.5).astype(np.int32)), 1)
    dark = _darkness(small.mean(-1), inside, _SHADE_BLUR * width * k)
    sigma = _LIGHT_BLUR * width * k
    weighted = _blurred_sum(small + 1, inside * (1 - dark) + 1e-3 * inside, sigma)
    at = cv2.remap(weighted, places[:, 0] - 0.5, places[:, 1] - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    light = np.log(at.reshape(-1, 4)[:, :3] / np.maximum(at.reshape(-1, 4)[:, 3:], 1e-6))
    seen = smoothstep(facing, *_SEEN)
    both = seen * seen[other]
    gain = (light[other] - light).clip(-_MAX_LOG_GAIN, _MAX_LOG_GAIN)
    edge = _SKIN_ENDS * width * k
    skin = cv2.GaussianBlur(
        cv2.dilate(inside, np.ones(2 * [2 * round(edge) + 1], np.uint8)).astype(np.float32), (0, 0), max(edge, 0.5)
    )
    # Spread over the face, from the points that the photo shows on both sides to the others.
    shape = face.canonical_mesh().vertices[:, None] - face.canonical_mesh().vertices[None]
    far = (shape**2).sum(-1) / (2 * _SPREAD_CM**2)
    kernel = (np.exp(-far) + 1e-3 * np.exp(-far / 16)) * both[: len(shape)]
    spread = kernel @ gain[: len(shape)] / np.maximum(kernel.sum(1, keepdims=True), 1e-9)
    gain = spread + both[: len(shape), None] * (gain[: len(shape)] - spread)
    field = _scattered(places[: len(shape)], gain, seen[: len(shape)], size, sigma / 2)
    # Hair over the face has another gain than skin, and little to brighten but its noise.
    field *= skin[..., None]
    field -= dark[..., None] * field.clip(0)
    mean = weighted[..., :3] / np.maximum(weighted[..., 3:], 1e-6) - 1
    lit, mean = (
        cv2.resize(np.asarray(values, np.float32), tuple(high - low), interpolation=cv2.INTER_LINEAR)
        for values in (np.exp(field), mean)
    )
    out = picture.copy()
    found = picture[part] * np.minimum(lit, _MAX_CONTRAST) + mean * (lit - _MAX_CONTRAST).clip(0)
    out[part] = np.rint(found.clip(0, 255))
    return out


def _darkness(brightness: Array, inside: NDArray[np.uint8], sigma: float) -> Array:
    """[h, w] 0..1: how surely a pixel is hair and not skin, by the brightness of the face around it.

    Args: brightness: [h, w]; inside: [h, w] 1 in the face; sigma: how far around, pixels.
    """
    if not inside.any():
        return np.zeros_like(brightness)
    total = _blurred_sum(brightness[..., None], inside, sigma)
    around = np.maximum(
        total[..., 0] / np.maximum(total[..., 1], 1e-3), _LEAST_SHADE * np.median(brightness[inside > 0])
    )
    smooth = cv2.GaussianBlur(brightness, (0, 0), 1.0)
    return np.asarray(1 - smoothstep(smooth / np.maximum(around, 1), *_DARK), np.float32)


def _blurred_sum(values: Array, weights: NDArray[Any], sigma: float) -> Array:
    """[h, w, C + 1] the weighted sum of values [h, w, C] around each pixel, and that of the weights [h, w]."""
    total = np.dstack([values * weights[..., None], weights]).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(total, (0, 0), sigma), np.float32)


def _scattered(
    places: Array, values: NDArray[np.float64], weights: NDArray[np.float64], size: tuple[int, int], sigma: float
) -> Array:
    """Values [N, 3] at places [N, 2], spread to a picture [height, width, 3] of this width and height."""
    total = np.zeros((size[1], size[0], 4), np.float32)
    x, y = (places[:, i].astype(int).clip(0, size[i] - 1) for i in (0, 1))
    np.add.at(total, (y, x), np.column_stack([values, np.ones(len(values))]) * weights[:, None])
    near, wide = (cv2.GaussianBlur(total, (0, 0), s) for s in (sigma, 4 * sigma))
    total = near + 1e-3 * wide
    return np.asarray(total[..., :3] / np.maximum(total[..., 3:], 1e-9), np.float32) * np.float32(1)
