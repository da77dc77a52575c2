"""The mirrored photo as a second source: skin that a head turn uncovers is sampled from the other side of the face.

The photo is not flipped. Each point of the head samples the photo at its mirror point: the mesh's mirror permutation
swaps the points, and interpolation between them flips the texture. The blend weight of each point depends on three
visibilities (cosines between surface normal and view direction): of the point in the photo, of its mirror point in the
photo, and of the point in the frame. It is a smooth function of the pose, so there are no jumps between frames.
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

# Pairs are the ends of a smoothstep from 0 to 1.
TURNED = 3.0, 9.0  # degrees of head rotation over which the second source fades in
# Ratio of visibility, frame / photo, over which a point's need of the second source rises from 0 to 1.
_STRETCH = 1.2, 1.6
_BETTER = 1.2, 1.7  # ratio of visibility in the photo, mirror point / point, over which the weight rises from 0 to 1
_OBLIQUE = 0.06  # added to all cosines, to bound their ratios at the outline
# Visibility in the photo: up to the first value a point is hidden and needs the second source, from the second on not.
_HIDDEN = -0.05, 0.12
_NOTHING = 0.004  # smallest weight for which the second source is computed
_CONTINUED = 2.0  # cells: sigma of the Gaussian that extrapolates offsets and weights beyond the mesh
_OUTLINE = 0.1, 0.45  # local coverage by the mesh, 0..1, over which the weight rises from 0 to 1
_SEAM = 0.05, 0.8  # range of weights that is mapped to 0..1: a narrow seam, because a wide blend shows features twice
# Distance of the sampling position from the picture's edge, crop sides, over which the weight rises to 1.
_INSIDE = 0.0, 0.02
_EARS_CM = -4.0, 8.0  # heights above the middle of the face between which hair beside the face is measured
_SHOWN = 0.45, 0.75  # visible hair beside the face, in usual widths of hair, over which the photo's own hair is used
_CUT = 0.1, 0.5  # share of a side's hair points outside the picture, over which its outline counts as unknown
_NECK = 0.5  # share of neck in a shell point, from which on it is not mirrored
# Slope with which the weight falls from jaw to neck: at 1 it ends midway, at larger values nearer to the jaw.
_COLLAR = 9.0
_BEHIND = -0.04, 0.01  # distance inside the face's outline, face widths, over which the photo's face hides the neck
_BESIDE = 3  # points of the ring beside a hidden one
_COVERED_CM = 3.0, 10.0  # heights between ear and shoulder at which hair or a veil behind the neck is looked for
_COVERED_CELLS = 2.0  # sigma over which the matte is averaged there: a single cell may lie on either side of an edge
_COVERED = 0.65, 0.9  # this average, over which hair counts as behind the neck
_TO_CHIN = 6  # points of the ring from the ear to the chin
_NECK_ENDS = 0.4  # opacity of a hidden neck falls by this share of the fall of its weight
_HEAD_Y = -3.0  # center of the head on the canonical face, cm
_FROM_CROWN = 3.0, 25.0  # degrees from the crown in frontal view, over which mirrored hair fades in
_UNCOVERED = 0.0, 0.2  # visibility of the cheek in the frame, over which the hair beside it is mirrored
_HAIR_STRETCH = 1.2, 2.6  # as _STRETCH, for the hair beside a cheek
# Position between the face (0) and the inner ring of hair (1), over which the photo's own outline takes over.
_OWN_BEGINS = 0.05, 0.4
# Position between the outer ring of hair (0) and the inner one (1), over which the opacity rises to 1.
_HAIR_ENDS = 0.6, 0.78
_SMOOTH_CELLS = 0.7  # cells: sigma with which offsets and weights are smoothed
_LOWEST = 0.0  # lower bound of MirrorFlow.height: steeper slopes would not interpolate well
_ROUNDED = 1.0  # cells: sigma with which the outline is smoothed
_IRIS = 1.3  # iris radii: sigma of the area that moves with an iris
# Distance by which mirroring misplaces an iris, iris radii, over which the photo's own eye is kept: if the eyes look
# aside, the mirrored eye would need white that it does not show.
_ASIDE = 0.8, 1.6
_EYE = 0.65, 1.6  # semi-axes of an eye's area: eye widths along it, iris radii across
_EYE_ENDS = 0.8, 1.3  # position in that area, 1 at its outline, over which the second source takes over
_EYE_SHOWN = 0.58, 0.66  # width of an eye in the photo relative to the other eye's, over which it may be kept
EYE_CORNERS = [33, 133, 362, 263]  # of the person's right eye and left eye
_LIGHT_BLUR = 1 / 16  # face widths: sigma of the local means that are compared
_SKIN_ENDS = 0.03  # face widths beyond the face's outline, over which the gain fades to 1: hair is not relit
_NECK_BELOW = 0.4  # face widths below the face, to which the neck is relit like it
_LIGHT_PX = 96  # width of the face in the reduced picture on which the lighting is compared
# Brightness relative to the face around it, over which brightening fades in: dark hair is not brightened.
_DARK = 0.2, 0.5
_LEAST_SHADE = 0.8  # lower bound of that brightness, relative to the median of the whole face
_SHADE_BLUR = 1 / 5  # face widths: sigma of that local brightness
_MAX_LOG_GAIN = np.log(6.0)  # natural logarithm of the largest gain
_MAX_CONTRAST = 1.6  # largest gain of detail: larger ones would amplify the noise of a shadow
_SEEN = 0.05, 0.4  # visibility in the photo, over which a point's measured brightness becomes reliable
_SPREAD_CM = 1.75  # sigma over which gains are spread on the canonical face (14 cm wide)


@dataclass(frozen=True)
class MirrorFlow:
    """The second source of one frame, on a part of the flow's grid.

    Attributes:
        rows, columns: the part of the grid.
        offset: [h, w, 2] float32, mirrored position in the photo minus target position, as Flow.offset.
        weight: [h, w] float32, 0..1, blend weight of the second source.
        height: [h, w] float32 level-set function of the second source's outline: 1 on face and hair, lower outside.
            opacity() thresholds it after interpolation, which gives a smooth outline; interpolated opacities would
            show the grid.
        own: [h, w] float32, 0..1: 1 where the outline of the photo's own hair is kept.
    """

    rows: slice
    columns: slice
    offset: Array
    weight: Array
    height: Array
    own: Array


@functools.cache
def mirror_points() -> NDArray[np.intp]:
    """[V] index of the mirror point of each head point (face and shell)."""
    shell = head().shell
    distance = np.linalg.norm(shell[:, None] - shell[None] * [-1.0, 1.0, 1.0], axis=-1)
    return np.concatenate([face.mirror_order()[0], face.NUM_POINTS + distance.argmin(1)])


class Mirror:
    """Sampling positions and blend weights of the second source for one photo.

    Attributes:
        source: [V, 3] position of each point's mirror point in the photo, units of the crop's side.
        own_eyes: [2] 0..1, whether the photo shows the person's right and left eye well enough to keep it.
    """

    def __init__(
        self,
        source: NDArray[np.float64],
        facing: NDArray[np.float64],
        shown: NDArray[np.float64] | None = None,
        matte: Array | None = None,
    ) -> None:
        """Prepare the second source of one photo.

        Args:
            source: [V, 3] head points in the photo, units of the crop's side.
            facing: [V] visibility of each in the photo: cosine between normal and view direction.
            shown: [S] 0..1, how much the photo shows of each shell point (hair, neck); the rest is mirrored. Requires
                a picture of the person without background. None: only the face is mirrored.
            matte: [GRID, GRID] 0..1, of this picture over the crop.
        """
        self._whole_head = shown is not None
        other = mirror_points()
        self.source = source[other]
        self._facing = facing
        widths = np.linalg.norm(np.diff(source[EYE_CORNERS, :2].reshape(2, 2, 2), axis=1)[:, 0], axis=1)
        self.own_eyes = smoothstep(widths / np.maximum(widths[::-1], 1e-9), *_EYE_SHOWN)
        self._better = smoothstep((facing[other].clip(0) + _OBLIQUE) / (facing.clip(0) + _OBLIQUE), *_BETTER)
        self._lost = 1 - smoothstep(facing, *_HIDDEN)
        follow = head().follow
        n = len(face.OVAL)
        neck = np.minimum((1 - follow) / max(float((1 - follow)[:n].max()), 1e-9), 1)
        # Collars and the crown are not mirrored. Outside the mirrored hair, the photo's own hair is kept where it is
        # visible; elsewhere the layer is transparent.
        self._x, y, _ = head().shell.T
        beside = smoothstep(np.degrees(np.abs(np.arctan2(self._x, _HEAD_Y - y))), *_FROM_CROWN)
        collar = _COLLAR * smoothstep(neck, 0, _NECK)
        self._shell = np.zeros(len(follow)) if shown is None else (1 - collar) * beside
        self._height, self._own = np.ones(len(source)), np.zeros(len(source))
        self._height[face.NUM_POINTS + n :] = 0
        if shown is not None and matte is not None:
            # Where the photo's face hides the neck, the layer is transparent; otherwise skin of the face's edge would
            # be stretched over the neck. If hair or a veil lies behind it, the neck is mirrored instead, as far as the
            # chin and within the photo's own outline.
            behind, covered = _behind_face(source, matte), _behind_neck(source, matte)
            self._height[face.NUM_POINTS : face.NUM_POINTS + n] -= _NECK_ENDS * (1 - covered) * collar[:n] * behind
            to_chin = covered * np.max([np.roll(behind, by) for by in range(-_TO_CHIN, _TO_CHIN + 1)], 0)
            self._shell += np.tile(np.maximum(behind, to_chin), 2) * (beside - self._shell)
            self._shell[n:] *= 1 - shown[n:]
            self._own[face.NUM_POINTS :] = np.maximum(shown, np.tile(to_chin, 2))

    def attributes(self, facing: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
        """[V, 5] vertex attributes: sampling position (x, y), blend weight, height and own, see MirrorFlow.

        Args:
            facing: [V] visibility of each point in the frame.
            degrees: rotation of the head relative to the photo.
        """
        stretch = (facing.clip(0) + _OBLIQUE) / (self._facing.clip(0) + _OBLIQUE)
        share = smoothstep(degrees, *TURNED) * self._better
        weights = share * np.maximum(smoothstep(stretch, *_STRETCH), self._lost)
        # All hair of a side uses the weight of its cheek, so that its outline has no gap. It fades in slightly later
        # than the cheek, so that the outline of the hair moves outward from that of the cheek.
        hair = share * np.maximum(smoothstep(stretch, *_HAIR_STRETCH), self._lost) * smoothstep(facing, *_UNCOVERED)
        hair = hair[face.OVAL]
        for side in (self._x < 0, self._x > 0):
            weights[face.NUM_POINTS :][side] = hair[side[: len(face.OVAL)]].max()
        weights[face.NUM_POINTS :] *= self._shell
        return np.column_stack([self.source[:, :2], weights, self._height, self._own])

    def joined(self, front: Surface, back: Surface) -> tuple[Array, NDArray[np.bool_]]:
        """Rasterized attributes of the visible surface (the face, or the whole head), and the cells it covers."""
        is_face = front.depth <= back.depth
        if not self._whole_head:
            return front.mirror, front.covered & is_face
        return np.where(is_face[..., None], front.mirror, back.mirror), front.covered | back.covered


def _behind_face(source: NDArray[np.float64], matte: Array) -> NDArray[np.float64]:
    """[n] 0..1, how far the photo's face hides each point of the shell's inner ring.

    Points beside those that lie on the background count as hidden, too: the photo's face ends in between.
    Arguments as in Mirror.
    """
    hull = cv2.convexHull(source[: face.NUM_POINTS, :2].astype(np.float32))
    ring = source[face.NUM_POINTS : face.NUM_POINTS + len(face.OVAL), :2]
    inside = [cv2.pointPolygonTest(hull, (float(x), float(y)), True) for x, y in ring]
    behind = smoothstep(np.array(inside) / np.ptp(hull[:, 0, 0]), *_BEHIND)
    x, y = (ring * GRID).astype(int).clip(0, GRID - 1).T
    near = np.max([np.roll(behind, step) for step in range(-_BESIDE, _BESIDE + 1)], 0)
    return np.asarray(np.maximum(behind, near * (1 - matte[y, x])))


def _behind_neck(source: NDArray[np.float64], matte: Array) -> NDArray[np.float64]:
    """[n] 0..1, whether hair or a veil lies behind the neck; the same value for all points of a side of the ring.

    It is the least matte around the outer ring between ear and shoulder. Arguments as in Mirror.
    """
    matte = smoothstep(cv2.GaussianBlur(matte, (0, 0), _COVERED_CELLS), *_COVERED)
    n = len(face.OVAL)
    sideways, height, _ = head().shell[n:].T
    x, y = (source[face.NUM_POINTS + n :, :2] * GRID).astype(int).clip(0, GRID - 1).T
    at_neck = (height > _COVERED_CM[0]) & (height < _COVERED_CM[1])
    out = np.zeros(n)
    for side in (sideways < 0, sideways > 0):
        out[side] = matte[y, x][side & at_neck].min()
    return out


def hair_shown(
    source: NDArray[np.float64], skull: face.Pose, matte: Array, picture: NDArray[Any]
) -> NDArray[np.float64]:
    """[S] 0..1, how much of its hair a photo shows; the same value for all shell points of a side.

    It is the mean of the matte beside the face's outline, over the usual width of hair.

    Args:
        source: [V, 3] head points in the photo, units of the crop's side.
        skull: pose that maps the canonical face to these units.
        matte: [GRID, GRID] 0..1, matte of the person over the crop.
        picture: [2, 2] (left, top) and (right, bottom) of the photo, units of the crop's side.
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
        # If the picture's edge cuts the hair of the other side, its outline cannot be mirrored.
        other = source[mirror_points()[face.NUM_POINTS :][:n][some], :2]
        cut = 1 - ((other > picture[0]) & (other < picture[1])).all(1).mean()
        out[side] = max(shown, smoothstep(cut, *_CUT))
    return np.asarray(smoothstep(out, *_SHOWN))


def mirror_flow(
    attribute: Array,
    covered: NDArray[np.bool_],
    fade: Array,
    irises: NDArray[Any],
    corners: NDArray[Any],
    come_from: NDArray[Any],
    own_eyes: NDArray[np.float64],
    picture: NDArray[Any],
) -> MirrorFlow | None:
    """The second source of a frame; None if it is not needed.

    Args:
        attribute: [GRID, GRID, 5] rasterized Mirror.attributes.
        covered: [GRID, GRID] where they are defined.
        fade: [GRID, GRID] 1 inside, 0 at the border of the picture.
        irises: [10, 2] iris points in the frame. The mesh has openings there, and each iris is moved as a whole,
            because mirroring would mirror the gaze.
        corners: [4, 2] corners of the eyes in the frame, EYE_CORNERS.
        come_from: [10, 2] mirror points of the irises in the photo.
        own_eyes: see Mirror.
        picture: [2, 2] (left, top) and (right, bottom) of the photo; the weight is 0 for positions outside.
    """
    known = covered.astype(np.float32)
    weight = attribute[..., 2]
    if not (weight > _NOTHING).any():
        return None
    ys, xs = np.nonzero(cv2.dilate((weight > _NOTHING).astype(np.uint8), np.ones((9, 9), np.uint8)))
    part = slice(int(ys.min()), int(ys.max()) + 1), slice(int(xs.min()), int(xs.max()) + 1)
    known, weight = known[part], weight[part]
    offset = attribute[..., :2][part] - grid_centers().reshape(GRID, GRID, 2)[part]
    # Extrapolate over openings of the mesh and slightly beyond its outline, which is jagged at the grid's resolution.
    near = cv2.GaussianBlur(known, (0, 0), _CONTINUED)
    values = np.dstack([offset, attribute[..., 2:][part]])
    around = cv2.GaussianBlur(values * known[..., None], (0, 0), _CONTINUED) / np.maximum(near, 1e-3)[..., None]
    values = cv2.GaussianBlur(np.where(known[..., None] > 0, values, around), (0, 0), _SMOOTH_CELLS)
    offset, (weight, height, own) = np.ascontiguousarray(values[..., :2]), cv2.split(values[..., 2:])
    keeps = np.ones(weight.shape, np.float32)
    for number, iris in enumerate((slice(0, 5), slice(5, 10))):
        aside = _place_iris(offset, part, irises[iris], come_from[iris])
        share = own_eyes[number] * float(smoothstep(aside, *_ASIDE))
        if share > 0:
            keeps *= 1 - share * _eye_area(weight.shape, part, irises[iris], corners[2 * number : 2 * number + 2])
    place = offset + grid_centers().reshape(GRID, GRID, 2)[part]
    inside = smoothstep(np.minimum(place - picture[0], picture[1] - place).min(-1), *_INSIDE)
    weight = smoothstep(weight * smoothstep(near, *_OUTLINE) * fade[part] * inside, *_SEAM) * keeps
    height = cv2.GaussianBlur(np.maximum(height, _LOWEST), (0, 0), _ROUNDED)
    own = smoothstep(own, *_OWN_BEGINS)
    return MirrorFlow(*part, offset, *(np.asarray(plane, np.float32) for plane in (weight, height, own)))


def opacity(height: Array) -> Array:
    """Opacity of the second source, 0..1, from interpolated MirrorFlow.height."""
    return np.asarray(smoothstep(height, *_HAIR_ENDS))


def _place_iris(offset: Array, part: tuple[slice, slice], iris: NDArray[Any], come_from: NDArray[Any]) -> float:
    """Change offsets [h, w, 2] in place, so that an iris [5, 2] samples its mirror iris as a whole.

    Returns:
        The distance by which the offsets misplaced it, in iris radii.
    """
    rows, columns = part
    middle = iris[0] * GRID - 0.5 - [columns.start, rows.start]
    at = middle.round().astype(int)
    if (at < 0).any() or (at >= offset.shape[1::-1]).any():
        return 0.0
    radius = max(float(np.linalg.norm(iris[1:] - iris[0], axis=1).mean()), 1e-6)
    sigma = _IRIS * radius * GRID
    missing = (come_from[0] - iris[0] - offset[at[1], at[0]]).astype(np.float32)
    y, x = (np.arange(n, dtype=np.float32) for n in offset.shape[:2])
    near = np.exp(-((x - middle[0]) ** 2) / (2 * sigma**2)) * np.exp(-((y[:, None] - middle[1]) ** 2) / (2 * sigma**2))
    offset += near[..., None] * missing
    return float(np.linalg.norm(missing)) / radius


def _eye_area(
    shape: tuple[int, ...], part: tuple[slice, slice], iris: NDArray[Any], corners: NDArray[Any]
) -> NDArray[np.float64]:
    """[h, w] 1 in an eye with this iris [5, 2] and corners [2, 2], fading to 0 around it."""
    rows, columns = part
    middle = corners.mean(0) * GRID - 0.5 - [columns.start, rows.start]
    across = (corners[1] - corners[0]) * GRID
    width = max(float(np.linalg.norm(across)), 1e-6)
    radius = max(float(np.linalg.norm(iris[1:] - iris[0], axis=1).mean()) * GRID, 1e-6)
    x, y = np.arange(shape[1]) - middle[0], np.arange(shape[0])[:, None] - middle[1]
    along, above = (x * across[0] + y * across[1]) / width, (y * across[0] - x * across[1]) / width
    away = np.hypot(along / (_EYE[0] * width), above / (_EYE[1] * radius))
    return 1 - smoothstep(away, *_EYE_ENDS)


def matched_light(picture: Image, points: NDArray[Any], facing: NDArray[np.float64]) -> Image:
    """The picture, relit so that each part of the face matches the lighting at its mirror position.

    The gain is the ratio of the local mean colors at both positions (Gaussian, sigma 1/16 of the face width). Where the
    photo does not show the mirror position, gains of nearby points are used. Gains above _MAX_CONTRAST raise the local
    mean but not its detail. Hair and other dark parts are not brightened.

    Args:
        picture: uint8 RGB [H, W, 3].
        points: [478, 3] face points in it, pixels.
        facing: [478] visibility of each: cosine between normal and view direction.
    """
    other = face.mirror_order()[0]
    oval = points[face.OVAL, :2]
    width = max(float(np.ptp(oval[:, 0])), 8.0)
    low = np.floor(oval.min(0) - 0.5 * width).astype(int).clip(0, None)
    high = np.minimum(np.ceil(oval.max(0) + 0.5 * width).astype(int) + 1, picture.shape[1::-1])
    if (high - low < 2).any():
        return picture
    part = (slice(low[1], high[1]), slice(low[0], high[0]))
    # The gain is smooth, so it is computed on a reduced picture.
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
    below = round(_NECK_BELOW * width * k)
    neck = cv2.dilate(inside, np.ones((below + 1, 1), np.uint8), anchor=(0, below))  # extended down
    skin = cv2.GaussianBlur(
        cv2.dilate(neck, np.ones(2 * [2 * round(edge) + 1], np.uint8)).astype(np.float32), (0, 0), max(edge, 0.5)
    )
    # Spread the gains from points that are visible on both sides to the others.
    shape = face.canonical_mesh().vertices[:, None] - face.canonical_mesh().vertices[None]
    far = (shape**2).sum(-1) / (2 * _SPREAD_CM**2)
    kernel = (np.exp(-far) + 1e-3 * np.exp(-far / 16)) * both[: len(shape)]
    spread = kernel @ gain[: len(shape)] / np.maximum(kernel.sum(1, keepdims=True), 1e-9)
    gain = spread + both[: len(shape), None] * (gain[: len(shape)] - spread)
    field = _scattered(places[: len(shape)], gain, seen[: len(shape)], size, sigma / 2)
    # Hair over the face needs another gain than skin, and brightening it would mostly amplify noise.
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
    """[h, w] 0..1 probability that a pixel is hair, from its brightness relative to the face around it.

    Args: brightness: [h, w]; inside: [h, w] 1 in the face; sigma: of the surroundings, pixels.
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
    """[h, w, C + 1] Gaussian sums around each pixel: of values [h, w, C] times weights [h, w], and of weights."""
    total = np.dstack([values * weights[..., None], weights]).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(total, (0, 0), sigma), np.float32)


def _scattered(
    places: Array, values: NDArray[np.float64], weights: NDArray[np.float64], size: tuple[int, int], sigma: float
) -> Array:
    """[height, width, 3] weighted Gaussian interpolation of values [N, 3] at places [N, 2]; size: (width, height)."""
    total = np.zeros((size[1], size[0], 4), np.float32)
    x, y = (places[:, i].astype(int).clip(0, size[i] - 1) for i in (0, 1))
    np.add.at(total, (y, x), np.column_stack([values, np.ones(len(values))]) * weights[:, None])
    near, wide = (cv2.GaussianBlur(total, (0, 0), s) for s in (sigma, 4 * sigma))
    total = near + 1e-3 * wide
    return np.asarray(total[..., :3] / np.maximum(total[..., 3:], 1e-9), np.float32) * np.float32(1)
