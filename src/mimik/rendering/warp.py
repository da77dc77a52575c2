"""Landmark flow: where each pixel of a frame comes from in the photo, and applying that at any resolution.

The flow is backward: at a place of the target frame it says how far away the pixel lies in the photo. It is solved on
a small grid over a square around the head, by linear radial-basis interpolation of the points' displacements; hair
moves with the skull, the square's border stands still. Where the head's own surface hides itself, the solve cannot
know it: the mesh, rasterised with a depth test, is right there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Image, Pose, canonical_mesh, head_pose, skull_motion

GRID = 128  # cells along a side of the crop; an eye of a head that fills half of it is 10 cells wide
_COARSE = 48  # cells of the grid on which the smooth field is computed where nothing changes quickly
FINE = 3  # as many cells a cell around eyes and mouth
CROP_SCALE = 2.5  # side of the crop in heights of the face, forehead to chin
WINDOW_SCALE = 1.7  # the same for what the texture generator sees: hair and collar, and a mouth of 20 px in 128
NUM_GEOMETRY = 4  # maps that tell it how the photo was warped
_RIM = 0.04  # of the crop's side: the flow is faded to exact zero within this distance of the border
_MESH_TRUST_LOW, _MESH_TRUST_HIGH = 0.008, 0.024  # of the crop's side: disagreement from which the mesh is believed
_DEPTH_GAP = 0.02  # of the crop's side, about 9 mm: a surface that much behind another is hidden
_TURNED = 4.0, 8.0  # degrees: from the first on a head's turn hides something, from the second fully
_FACING = 0.0, 0.16  # cosine: a surface of the target seen at the first is hidden, at the second seen
_HIDDEN_SLACK = 3e4  # times the ridge, of a point that is hidden
_FACING_PHOTO = 0.2  # the same in the photo: what is seen there very obliquely cannot be spread out
_MIN_AREA_RATIO = 0.02
_GREY = 6  # levels between a pixel's channels, at most, in a black and white photo
_LID_LIGHT = 0.85  # times the skin around the eye
_SKIN_REACH = 0.0027  # of the crop's side: of the pixels around a point that tell the skin's colour
_LASHES = 0.12  # of an eye's width: how high the lashes' dark line reaches over the edge of the lid
_SLIT = 0.04  # of an eye's width: what is left between shut lids, and covered by a line
_TEETH_HEIGHT = 0.15  # of the mouth's width: upper incisors of 8 mm under a mouth of 53 mm
# Chosen by the L1 inside the lips of 483 frames of 146 clips, each painted from a frame with closed lips: 38.1.
_INSIDE_LIGHT = 0.3, 0.15  # times the lips' tone: of the inside of a mouth, and what the light adds that falls in below
_TONGUE_SEEN = 0.12, 0.35  # height of the opening, of the mouth's width: the tongue shows from the first on
_TONGUE_LIGHT = np.array([0.88, 0.78, 0.78], np.float32)  # times the lips' tone
_TEETH_LIGHT = 0.85  # times the brightness of well lit skin
_TEETH_PALE = 0.2  # 0: as colourful as skin, 1: grey
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_RIDGE = 1e-4  # on the kernel's diagonal: points may be missed by a little, against jitter

# The points that carry pose and expression; the rest of the 478 lies between them and follows.
_FEATURES = [*face.LIPS, *face.EYES, *face.BROWS, *face.NOSE, *face.OVAL]
_CHEEKS = [50, 205, 187, 147, 123, 280, 425, 411, 376, 352, 36, 266, 203, 423, 216, 436, 212, 432, 135, 364, 169, 394]
_FOREHEAD = [151, 9, 8, 69, 299, 104, 333, 108, 337, 71, 301]
_LIDS = [27, 28, 29, 30, 56, 190, 247, 257, 258, 259, 260, 286, 414, 467, 23, 24, 22, 110, 253, 254, 252, 339]
_CHIN = [18, 200, 199, 175, 32, 262, 208, 428, 171, 396]
_LIDS_OF_EYES = (
    (face.RIGHT_EYE_UPPER, face.RIGHT_EYE_LOWER),
    (face.LEFT_EYE_UPPER, face.LEFT_EYE_LOWER),
)
_FOLDS = ([247, 30, 29, 27, 28, 56, 190], [467, 260, 259, 257, 258, 286, 414])  # over the upper lids
_UNDER_EYES = ([23, 24, 22, 110], [253, 254, 252, 339])
# Where the flow changes within a few cells.
_DETAILED = (face.LIPS, [*face.RIGHT_EYE_UPPER, *face.RIGHT_EYE_LOWER], [*face.LEFT_EYE_UPPER, *face.LEFT_EYE_LOWER])
_SHELL = range(face.NUM_POINTS, face.NUM_POINTS + 2 * len(face.OVAL), 1)
_CONTROL = np.array(sorted({*_FEATURES, *_CHEEKS, *_FOREHEAD, *_LIDS, *_CHIN, *face.IRISES, *_SHELL}))


@dataclass(frozen=True)
class Crop:
    """A square of the photo: left, top and side in pixels; it may reach beyond the photo."""

    left: float
    top: float
    side: float

    @classmethod
    def around(cls, points: NDArray[Any], scale: float = CROP_SCALE) -> Crop:
        """The square around a head, from its points [478, 3]; scale: its side in heights of the face."""
        oval = points[face.OVAL, :2]
        up = points[10, :2] - points[face.CHIN, :2]
        height = max(float(np.linalg.norm(up)), float(np.ptp(oval[:, 0])))
        side = scale * height
        x, y = (oval.min(0) + oval.max(0)) / 2
        return cls(float(x) - side / 2, float(y) - side / 2, float(side))

    def to_unit(self, points: NDArray[Any]) -> NDArray[Any]:
        """Photo pixels -> 0..1 across the crop; z, where there is one, on the same scale."""
        origin = np.array([self.left, self.top, 0.0])[: points.shape[-1]]
        return (points - origin) / self.side

    def scaled(self, scale: float) -> Crop:
        """The same square of a picture that is scale times as large."""
        return Crop(self.left * scale, self.top * scale, self.side * scale)

    def matrix(self, px: int) -> NDArray[np.float64]:
        """[2, 3] for cv2.warpAffine: the picture's pixels -> those of the square, drawn px wide."""
        k = px / self.side
        return np.array([[k, 0, (0.5 - self.left) * k - 0.5], [0, k, (0.5 - self.top) * k - 0.5]])

    def cut(self, picture: NDArray[Any], px: int) -> NDArray[Any]:
        """The square, px wide; beyond the picture its border is continued. Any type and number of channels."""
        return cv2.warpAffine(picture, self.matrix(px), (px, px), borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class Flow:
    """The landmark flow of one frame.

    Attributes:
        offset: [GRID, GRID, 2] float32; photo place minus target place, in units of the crop's side.
        unseen: [GRID, GRID] bool; target cells whose surface the photo does not show.
        stretch: [GRID, GRID] float32; area in the photo per area in the target: below 1 the photo is magnified.
        details: the same offsets, finer, around eyes and mouth: a shut eye is thinner than a cell.
        mouth: the opening that the lips leave; None while the photo can fill it.
        shut_eyes: the eyes that are shut, or nearly, and were open in the photo.
    """

    offset: Array
    unseen: NDArray[np.bool_]
    stretch: Array
    details: tuple[Detail, ...]
    mouth: Opening | None
    shut_eyes: tuple[ShutEye, ...]

    def maps(self, crop: Crop, window: Crop, cells: int) -> Array:
        """What the texture generator is told of the warp, over another square.

        Args:
            crop: the warper's, over which the flow lies.
            window: the square that the generator sees, in the same pixels.
            cells: along its side.

        Returns:
            [NUM_GEOMETRY, cells, cells] float32: offset in x and in y, 1 is a tenth of the window's side; 1 where the
            photo does not show the surface; logarithm of the stretch, base 4, in -1..1.
        """
        planes = np.empty((GRID, GRID, NUM_GEOMETRY), np.float32)
        planes[..., :2] = self.offset * np.float32(10 * crop.side / window.side)
        planes[..., 2] = self.unseen
        planes[..., 3] = (np.log(np.maximum(self.stretch, 1e-3)) / np.log(4)).clip(-1, 1)
        k = GRID / crop.side
        square = Crop((window.left - crop.left) * k, (window.top - crop.top) * k, window.side * k)
        return np.ascontiguousarray(square.cut(planes, cells).transpose(2, 0, 1))


@dataclass(frozen=True)
class ShutEye:
    """The line where two lids meet, and the upper lid. Units of the crop's side.

    Attributes:
        line: [9, 2] corner to corner.
        fold: [7, 2] the lid's upper end, from the same corner on.
        amount: 0..1; how far it is shut, for a soft beginning.
        number: 0 the person's right eye, 1 the left.
    """

    line: Array
    fold: Array
    amount: float
    number: int


@dataclass(frozen=True)
class Detail:
    """A part of the flow with FINE times as many cells.

    Attributes:
        rows, columns: of the flow's grid.
        offset: [rows * FINE, columns * FINE, 2] as in Flow.
    """

    rows: slice
    columns: slice
    offset: Array


@dataclass(frozen=True)
class Opening:
    """The part of an open mouth that the photo, with its lips closer together, does not show. Units of the crop's side.

    Attributes:
        upper: [11, 2] its upper edge, corner to corner: the upper lip, or the lower end of the photo's teeth.
        lower: [11, 2] the lower lip.
        depth: 0..1; how far it is open, for a soft beginning.
        teeth: 0..1; how much of the upper teeth would show: none in a rounded mouth, or where the photo has its own.
    """

    upper: Array
    lower: Array
    depth: float
    teeth: float


@functools.cache
def _grid(cells: int = GRID) -> Array:
    """[cells * cells, 2] centres of the cells, 0..1."""
    g = (np.arange(cells, dtype=np.float32) + 0.5) / cells
    return np.stack(np.meshgrid(g, g), -1).reshape(-1, 2).astype(np.float32)


@dataclass(frozen=True)
class _Head:
    """The canonical face continued over hair and neck, so that the whole head can turn.

    Attributes:
        shell: [S, 3] points of hair and neck in the canonical face's frame, centimetres.
        follow: [S] how much each moves with the skull; hair that lies on the shoulders and the neck move less.
        triangles: [T, 3] indices into the 478 points followed by the shell; without the eyes' and mouth's openings.
        num_face: how many of the triangles, the first ones, are the face's; the others are the shell's.
    """

    shell: NDArray[np.float64]
    follow: NDArray[np.float64]
    triangles: NDArray[np.int32]
    num_face: int


@functools.cache
def _head() -> _Head:
    mesh = canonical_mesh()
    oval = mesh.vertices[face.OVAL]
    centre = np.array([0.0, -3.0])
    angle = np.arctan2(oval[:, 0], -(oval[:, 1] - centre[1]))  # 0 is up
    below = np.clip((oval[:, 1] - 3.5) / 5.0, 0, 1)  # 1 at the chin: there the shell is the neck
    rings, follows = [], []
    for width, height, neck_width, neck_y, neck_follow in ((9.0, 11.0, 5.5, 11.5, 0.6), (12.0, 14.0, 8.0, 15.0, 0.1)):
        hair = np.stack([width * np.sin(angle), centre[1] - height * np.cos(angle), np.full(len(oval), 3.0)], 1)
        neck = np.stack([neck_width * np.sin(angle) * 1.6, np.full(len(oval), neck_y), np.full(len(oval), 3.0)], 1)
        ring = hair * (1 - below[:, None]) + neck * below[:, None]
        rings.append(ring)
        follows.append(np.where(below > 0, 1 - (1 - neck_follow) * below, 1.0))
    n, first = len(oval), face.NUM_POINTS
    strips = []
    inner = np.array(face.OVAL)
    for number in range(len(rings)):
        outer = first + number * n + np.arange(n)
        following = np.roll(inner, -1), np.roll(outer, -1)
        strips += [np.stack([inner, outer, following[0]], 1), np.stack([following[0], outer, following[1]], 1)]
        inner = outer
    openings = [
        {*face.LIPS_INNER_UPPER, *face.LIPS_INNER_LOWER},
        {*face.RIGHT_EYE_UPPER, *face.RIGHT_EYE_LOWER},
        {*face.LEFT_EYE_UPPER, *face.LEFT_EYE_LOWER},
    ]
    keep = [not any(set(t.tolist()) <= opening for opening in openings) for t in mesh.triangles]
    shell = np.concatenate(rings)
    vertices = np.concatenate([mesh.vertices, np.zeros((first - len(mesh.vertices), 3)), shell])
    parts = [mesh.triangles[keep], np.concatenate(strips)]
    # The same winding all over: outward normals point at the viewer, -z, for most triangles of a frontal head.
    parts = [t if np.median(_across(vertices, t)[:, 2]) < 0 else t[:, ::-1] for t in parts]
    return _Head(shell, np.concatenate(follows), np.concatenate(parts).astype(np.int32), len(parts[0]))


def _across(points: NDArray[Any], triangles: NDArray[np.int32]) -> NDArray[np.float64]:
    """[T, 3] normals of triangles, as long as twice their area."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def _normals(points: NDArray[Any]) -> NDArray[np.float64]:
    """[V, 3] outward unit normals of a head, averaged so widely that lips, lids and nostrils do not show."""
    triangles = _head().triangles
    across = _across(points, triangles)
    for _ in range(4):
        normal = np.zeros_like(points)
        for corner in range(3):
            np.add.at(normal, triangles[:, corner], across)
        across = normal[triangles].mean(1)
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)


def rasterise(
    points: NDArray[Any], attribute: NDArray[Any], triangles: NDArray[np.int32], grid: int
) -> tuple[Array, Array]:
    """Depth-tested raster of a triangle mesh.

    Args:
        points: [V, 3], x and y in cells, z smaller is nearer.
        attribute: [V, A], interpolated linearly over each triangle.
        triangles: [T, 3] indices.
        grid: cells along a side.

    Returns:
        Depth [grid, grid], infinite where nothing is; attribute [grid, grid, A], zero where nothing is.
    """
    p = points[triangles].astype(np.float32)  # [T, 3, 3]
    x0, y0, z0 = p[:, 0].T
    ux, uy, uz = (p[:, 1] - p[:, 0]).T
    vx, vy, vz = (p[:, 2] - p[:, 0]).T
    area = ux * vy - vx * uy
    low = np.floor(p[..., :2].min(1) - 0.5).astype(np.int32).clip(0, grid)
    high = np.floor(p[..., :2].max(1) + 0.5).astype(np.int32).clip(0, grid)
    extent = (high - low).max(1)
    valid = (np.abs(area) > 1e-9) & ((high - low).min(1) > 0)
    cells, depths, owners, firsts, seconds = [], [], [], [], []
    sizes = (2, 4, 8, 16, 32, grid)
    for smaller, size in zip((0, *sizes), sizes, strict=False):
        t = np.flatnonzero(valid & (extent > smaller) & (extent <= size))
        if not len(t):
            continue
        step = np.arange(size, dtype=np.int32)
        x, y = low[t, 0, None] + step, low[t, 1, None] + step  # [t, size]
        inverse = (1 / area[t])[:, None]
        dx = (x + np.float32(0.5) - x0[t, None]) * inverse
        dy = (y + np.float32(0.5) - y0[t, None]) * inverse
        dx[x >= grid] = dy[y >= grid] = np.nan  # beyond the grid: no comparison with it is true
        w1 = (dx * vy[t, None])[:, None, :] - (dy * vx[t, None])[:, :, None]
        w2 = (dy * ux[t, None])[:, :, None] - (dx * uy[t, None])[:, None, :]
        n, i, j = np.nonzero(np.minimum(np.minimum(w1, w2), 1 - w1 - w2) >= -1e-4)
        w1, w2, owner = w1[n, i, j], w2[n, i, j], t[n]
        cells.append(y[n, i] * grid + x[n, j])
        depths.append(z0[owner] + w1 * uz[owner] + w2 * vz[owner])
        owners.append(owner)
        firsts.append(w1)
        seconds.append(w2)
    depth = np.full(grid * grid, np.inf, np.float32)
    out = np.zeros((grid * grid, attribute.shape[1]), np.float32)
    if cells:
        cell, z = np.concatenate(cells), np.concatenate(depths)
        nearest = np.full(grid * grid, -1)
        order = np.argsort(-z)
        nearest[cell[order]] = order  # of several writes to one cell the last, nearest, stays
        filled = np.flatnonzero(nearest >= 0)
        hit = nearest[filled]
        depth[filled] = z[hit]
        corner = triangles[np.concatenate(owners)[hit]]
        w1, w2 = np.concatenate(firsts)[hit, None], np.concatenate(seconds)[hit, None]
        a, b, c = (attribute[corner[:, i]] for i in range(3))
        out[filled] = a + w1 * (b - a) + w2 * (c - a)
    return depth.reshape(grid, grid), out.reshape(grid, grid, -1)


def _solve(target: NDArray[np.float64], offset: NDArray[np.float64], slack: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients [N + 1, 2] of a linear radial-basis interpolant.

    Args:
        target: [N, 2] places.
        offset: [N, 2] the values there.
        slack: [N] > 0; how freely each value may be missed: a point with much of it does not count.
    """
    n = len(target)
    x, y = target[:, 0], target[:, 1]
    lhs = np.ones((n + 1, n + 1))
    lhs[:n, :n] = np.sqrt((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2)
    lhs[range(n), range(n)] -= slack
    lhs[n, n] = 0
    return np.linalg.solve(lhs, np.concatenate([offset, np.zeros((1, 2))]))


def _evaluate(at: Array, target: NDArray[np.float64], coefficients: NDArray[np.float64]) -> Array:
    """The interpolant at places [M, 2] -> [M, 2]."""
    centre, w = target.astype(np.float32), coefficients.astype(np.float32)
    left = np.column_stack([at, np.ones(len(at), np.float32), (at * at).sum(1)])
    right = np.stack([-2 * centre[:, 0], -2 * centre[:, 1], (centre * centre).sum(1), np.ones(len(centre), np.float32)])
    out = np.empty((len(at), 2), np.float32)
    rows = 512  # of distances at a time: they stay in the processor's cache
    for start in range(0, len(at), rows):
        distance = left[start : start + rows] @ right
        np.maximum(distance, 0, out=distance)
        np.sqrt(distance, out=distance)
        out[start : start + rows] = distance @ w[:-1] + w[-1]
    return out


def _smooth_field(
    to: NDArray[np.float64],
    offset: NDArray[np.float64],
    slack: NDArray[np.float64],
    parts: list[tuple[slice, slice]],
) -> tuple[Array, list[Array]]:
    """The interpolated offsets, everywhere and finely.

    Args:
        to, offset: [N, 2] places in the target and their offsets.
        slack: [N] see _solve.
        parts: rows and columns of the parts that are wanted finely.

    Returns:
        [GRID, GRID, 2], computed on a grid of _COARSE cells; and for each part [rows * FINE, columns * FINE, 2].
    """
    coefficients = _solve(to, offset, slack)
    coarse = _evaluate(_grid(_COARSE), to, coefficients).reshape(_COARSE, _COARSE, 2)
    field = cv2.resize(coarse, (GRID, GRID), interpolation=cv2.INTER_LINEAR)
    places = _grid(GRID * FINE).reshape(GRID * FINE, GRID * FINE, 2)
    cells = [places[_finely(part)] for part in parts]
    exact = _evaluate(np.concatenate([c.reshape(-1, 2) for c in cells]), to, coefficients)
    ends = np.cumsum([c.shape[0] * c.shape[1] for c in cells])[:-1]
    fine: list[Array] = [values.reshape(c.shape) for values, c in zip(np.split(exact, ends), cells, strict=True)]
    for part, values in zip(parts, fine, strict=True):
        rows, columns = values.shape[0] // FINE, values.shape[1] // FINE
        field[part] = values.reshape(rows, FINE, columns, FINE, 2).mean((1, 3))
    return field, fine


def _finely(part: tuple[slice, slice]) -> tuple[slice, slice]:
    rows, columns = part
    return slice(rows.start * FINE, rows.stop * FINE), slice(columns.start * FINE, columns.stop * FINE)


@dataclass(frozen=True)
class _Layer:
    """One surface of the target, rasterised, [GRID, GRID, ...]: depth, offset, cover, what is unseen."""

    depth: Array
    offset: Array
    covered: NDArray[np.bool_]
    unseen: NDArray[np.bool_]


@dataclass(frozen=True)
class Colours:
    """RGB, 0..255, [3] each: the lips' median colour, tongue, a pale tone for teeth, skin and lashes of each eye.

    Attributes:
        is_grey: whether the photo is black and white: nothing that is drawn into it may have a colour.
    """

    lips: Array
    tongue: Array
    teeth: Array
    lids: tuple[Array, Array]
    lashes: tuple[Array, Array]
    is_grey: bool


class Warper:
    """The landmark flow of one photo: prepared once, solved for every frame."""

    def __init__(self, points: Array, width: int, height: int) -> None:
        """Args: points: [478, 3] of the face in the photo; width, height: of the photo, in pixels."""
        self.crop = Crop.around(points)
        face_points = self.crop.to_unit(points.astype(np.float64))
        pose = head_pose(face_points)
        head = _head()
        self._source = np.concatenate([face_points, pose.apply(head.shell)])
        self._follow = np.concatenate([np.ones(len(face_points)), head.follow])[:, None]
        self._normals = _normals(self._source)
        self._in_photo = self._normals[:, 2] < -_FACING_PHOTO
        self._in_photo[face.IRISES] = True
        front = head.triangles[_across(self._source, head.triangles)[:, 2] < 0]
        self._photo_depth, _ = rasterise(self._source * GRID, np.zeros((len(self._source), 1)), front, GRID)
        low = np.clip(self.crop.to_unit(np.zeros(2)), 0, 1)
        high = np.clip(self.crop.to_unit(np.array([width, height], float)), 0, 1)
        self._border = _frame_of(low, high)
        self._fade = _fade(low, high)

    def colours(self, picture: Image, crop: Crop) -> Colours:
        """What the inside of the mouth and shut eyes are painted with, in the photo's tones; crop: in its pixels."""
        outer = [*face.LIPS_OUTER_UPPER, *face.LIPS_OUTER_LOWER[-2:0:-1]]
        inner = [*face.LIPS_INNER_UPPER, *face.LIPS_INNER_LOWER[-2:0:-1]]

        def pixels(places: NDArray[np.float64]) -> Array:
            at = (places * crop.side + [crop.left, crop.top]).astype(int)
            at = at.clip(0, np.array(picture.shape[1::-1]) - 1)
            return picture[at[:, 1], at[:, 0]].astype(np.float32)

        lips = np.median(pixels((self._source[outer, :2] + self._source[inner, :2]) / 2), axis=0)
        skin = np.percentile(pixels(self._source[[*_CHEEKS, *_FOREHEAD], :2]), 75, axis=0)
        pale = skin + _TEETH_PALE * (skin.mean() - skin)
        lashes = []
        for upper, lower in _LIDS_OF_EYES:
            edge = self._source[upper, :2] + np.array([[-0.05], [0.05], [0.15]])[..., None] * (
                self._source[lower, :2] - self._source[upper, :2]
            )
            seen = pixels(edge.reshape(-1, 2))
            lashes.append(seen[np.argsort(seen.sum(1))[: len(seen) // 3]].mean(0))
        is_grey = bool(np.percentile(np.ptp(pixels(self._source[: face.NUM_POINTS, :2]), axis=1), 95) <= _GREY)
        tongue = lips * (_TONGUE_LIGHT.mean() if is_grey else _TONGUE_LIGHT)
        teeth = (pale * _TEETH_LIGHT).clip(0, 240).astype(np.float32)
        around = [[*fold, *under] for fold, under in zip(_FOLDS, _UNDER_EYES, strict=True)]
        places = self._source * crop.side + [crop.left, crop.top, 0]
        lids = [_skin_at(picture, places[points, :2], _SKIN_REACH * crop.side) for points in around]
        return Colours(lips, tongue, teeth, (lids[0], lids[1]), (lashes[0], lashes[1]), is_grey)

    def flow(self, target: NDArray[Any]) -> Flow:
        """The flow to a frame in which the face's points are at target [478, 3], in photo pixels."""
        found = self.crop.to_unit(np.asarray(target, np.float64))
        goal_face = _parted(found)
        motion = skull_motion(self._source[: face.NUM_POINTS], goal_face)
        shell = self._source[face.NUM_POINTS :]
        shell = shell + (motion.apply(shell) - shell) * self._follow[face.NUM_POINTS :]
        goal = np.concatenate([goal_face, shell])

        # What the head hides of itself in the target: 0 seen .. 1 hidden. Small turns hide hardly anything, and what
        # begins begins softly: a point that is there in one frame and gone in the next would make the face jump.
        hidden = _ramp(self._normals @ motion.rotation[2], -_FACING[1], -_FACING[0])
        turned = float(_ramp(_angle(motion.rotation), *_TURNED))
        layers: list[_Layer] = []
        if turned > 0:
            front = self._front(motion)
            num_face = np.searchsorted(front, _head().num_face)
            layers = [self._layer(goal, _head().triangles[part]) for part in (front[:num_face], front[num_face:])]
            depth = np.minimum(layers[0].depth, layers[1].depth)
            cell = (goal[:, :2] * GRID).astype(int).clip(0, GRID - 1)
            behind = goal[:, 2] - depth[cell[:, 1], cell[:, 0]] / GRID
            hidden = np.maximum(hidden, turned * _ramp(behind, 0.5 * _DEPTH_GAP, 1.5 * _DEPTH_GAP))
        hidden[face.IRISES] = 0

        keep = _CONTROL[(self._in_photo & self._iris_is_open(goal))[_CONTROL]]
        mouth, hangs, hung = self._opening(goal, motion)
        to = np.concatenate([goal[keep, :2], hangs, self._border])
        come_from = np.concatenate([self._above_lashes(goal)[keep, :2], hung, self._border])
        parts = [part for part in (_part(goal[index]) for index in _DETAILED) if part is not None]
        slack = np.full(len(to), _RIDGE)
        slack[: len(keep)] *= _HIDDEN_SLACK ** hidden[keep]
        smooth, fine = _smooth_field(to, come_from - to, slack, parts)

        offset = smooth
        unseen = np.zeros((GRID, GRID), bool)
        if layers:
            near = _near_occlusion(depth, cell[self._in_photo], hidden[self._in_photo])
            if near.any():
                offset = _believe_mesh(smooth, *_joined(*layers), turned * near)
            unseen = np.where(layers[0].depth <= layers[1].depth, layers[0].unseen, layers[1].unseen)
        offset, stretch = _unfold(offset * self._fade[..., None])
        details = []
        for part, values in zip(parts, fine, strict=True):
            change = cv2.resize(
                (offset - smooth)[part], (values.shape[1], values.shape[0]), interpolation=cv2.INTER_LINEAR
            )
            details.append(Detail(part[0], part[1], values + change))
        return Flow(offset, unseen, stretch, tuple(details), mouth, self._shut_eyes(found))

    def _opening(self, goal: NDArray[np.float64], motion: Pose) -> tuple[Opening | None, Any, Any]:
        """The opening of the mouth, and points of what hangs from the upper lip in it: target and photo places, [N, 2].

        What the photo shows between its lips, teeth mostly, belongs to the skull: it is not stretched with the opening.
        """
        none = np.zeros((0, 2))
        upper, lower = goal[face.LIPS_INNER_UPPER], goal[face.LIPS_INNER_LOWER, :2]
        own_upper, own_lower = self._source[face.LIPS_INNER_UPPER], self._source[face.LIPS_INNER_LOWER]
        width = float(np.linalg.norm(upper[0, :2] - upper[-1, :2]))
        own_width = float(np.linalg.norm(own_upper[0, :2] - own_upper[-1, :2]))
        # Below a few hundredths of the mouth's width what is between the lips is their shadow, not teeth.
        shows = float(np.linalg.norm(own_lower[:, :2] - own_upper[:, :2], axis=1).max()) / max(own_width, 1e-6)
        has_teeth = float(np.clip((shows - 0.06) / 0.04, 0, 1))
        hang = upper + has_teeth * motion.scale * (own_lower - own_upper) @ motion.rotation.T
        upper, hang = upper[:, :2], hang[:, :2]
        gap, own_gap = (np.linalg.norm(x - upper, axis=1) for x in (lower, hang))
        more = gap - own_gap
        depth = (float(more.max()) / max(width, 1e-6) - 0.02) / 0.1
        if depth <= 0:
            return None, none, none
        edge = np.where((more > 0)[:, None], hang, lower)
        wide = (width / max(own_width, 1e-6) - 0.82) / 0.2
        teeth = np.clip(wide, 0, 1) * (1 - has_teeth)
        opening = Opening(edge.astype(np.float32), lower.astype(np.float32), min(depth, 1.0), float(teeth))
        pinned = (own_gap > 0.02 * width) & (more > 0.03 * width)
        pinned[[0, -1]] = False
        return opening, hang[pinned], own_lower[pinned, :2]

    def _shut_eyes(self, goal: NDArray[np.float64]) -> tuple[ShutEye, ...]:
        shut = []
        for number, (upper, lower) in enumerate(_LIDS_OF_EYES):
            gap, own = (_lid_gap(p, (upper, lower)) for p in (goal, self._source))
            width = float(np.linalg.norm(self._source[upper[0], :2] - self._source[upper[-1], :2]))
            amount = (0.35 - gap / max(own, 1e-9)) / 0.2
            if amount > 0 and own > 0.4 * width:  # a sum over nine pairs; an eye that is shut in the photo has its line
                line = (goal[upper, :2] + goal[lower, :2]) / 2
                fold = goal[_FOLDS[number], :2]
                shut.append(ShutEye(line.astype(np.float32), fold.astype(np.float32), min(amount, 1.0), number))
        return tuple(shut)

    def _above_lashes(self, goal: NDArray[np.float64]) -> NDArray[np.float64]:
        """The photo's points; an upper lid that comes down lies above its lashes: they are not to be stretched."""
        source = self._source.copy()
        for upper, lower in _LIDS_OF_EYES:
            gap, own = (_lid_gap(p, (upper, lower)) for p in (goal, source))
            closing = float(_ramp(1 - gap / max(own, 1e-9), 0.3, 0.8))
            source[upper[1:-1], :2] -= closing * _LASHES * _down_an_eye(source, upper)
        return source

    def _front(self, motion: Pose) -> NDArray[np.intp]:
        """Indices of the triangles that a rigid head, so moved, turns to the viewer."""
        triangles = _head().triangles
        a, b, c = (motion.apply(self._source)[triangles[:, i], :2].T for i in range(3))
        return np.flatnonzero((b[0] - a[0]) * (c[1] - a[1]) < (c[0] - a[0]) * (b[1] - a[1]))

    def _layer(self, goal: NDArray[np.float64], triangles: NDArray[np.int32]) -> _Layer:
        depth, place = rasterise(goal * GRID, self._source, triangles, GRID)
        covered = np.isfinite(depth)
        found = place[covered]
        at = (found[:, :2] * GRID).astype(np.int32).clip(0, GRID - 1)
        unseen = np.zeros((GRID, GRID), bool)
        unseen[covered] = found[:, 2] > self._photo_depth[at[:, 1], at[:, 0]] / GRID + _DEPTH_GAP
        return _Layer(depth, place[..., :2] - _grid().reshape(GRID, GRID, 2), covered, unseen)

    def _iris_is_open(self, goal: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[V] False for the iris of an eye that is closing: it would hold the lids apart."""
        keep = np.ones(len(goal), bool)
        for iris, lids in zip((face.RIGHT_IRIS, face.LEFT_IRIS), _LIDS_OF_EYES, strict=True):
            keep[iris] = _lid_gap(goal, lids) > 0.55 * _lid_gap(self._source, lids)
        return keep


def _lid_gap(points: NDArray[np.float64], lids: tuple[list[int], list[int]]) -> float:
    """How far an eye is open: the sum over the nine pairs of its lids' points."""
    upper, lower = lids
    return float(np.linalg.norm(points[upper, :2] - points[lower, :2], axis=1).sum())


def _down_an_eye(points: NDArray[np.float64], upper: list[int]) -> NDArray[np.float64]:
    """[2], as long as the eye is wide, across it, to the side on which the chin is; upper: its upper lid."""
    x, y = points[upper[-1], :2] - points[upper[0], :2]
    down = np.array([-y, x])
    return down * np.sign(down @ (points[face.CHIN, :2] - points[upper[0], :2]))


def _parted(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The face [478, 3] with a slit left between lids that touch or, as the landmarker has it at times, cross.

    The eyeball that the photo shows has to go somewhere: without the slit the flow would fold, and the eye stay open.
    """
    points = points.copy()
    for upper, lower in _LIDS_OF_EYES:
        down = _down_an_eye(points, upper)
        width = max(float(np.linalg.norm(down)), 1e-9)
        inner = slice(1, -1)
        gap = (points[lower[inner], :2] - points[upper[inner], :2]) @ down / width
        missing = (_SLIT - gap / width).clip(0)[:, None] / 2
        points[upper[inner], :2] -= missing * down
        points[lower[inner], :2] += missing * down
    return points


def _ramp(x: Any, low: float, high: float) -> Any:
    """0 up to low, 1 from high on, linear between."""
    return np.clip((x - low) / (high - low), 0, 1)


def _angle(rotation: NDArray[np.float64]) -> float:
    """Degrees of a rotation [3, 3]."""
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def _near_occlusion(depth: Array, cells: NDArray[np.int_], hidden: NDArray[np.float64]) -> Array:
    """[GRID, GRID] 1 close to edges where the head's surface hides itself and to points that it hides, 0 far away.

    Args:
        depth: [GRID, GRID] in cells, infinite where nothing is.
        cells: [N, 2] of points, and hidden: [N] 0..1, how much each is hidden.
    """
    far = np.where(np.isfinite(depth), depth, -np.inf).astype(np.float32)
    near = np.where(np.isfinite(depth), depth, np.inf).astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        step = np.nan_to_num(cv2.dilate(far, kernel) - cv2.erode(near, kernel), nan=0, posinf=0, neginf=0)
    edge = _ramp(step, 0.75 * _DEPTH_GAP * GRID, 1.5 * _DEPTH_GAP * GRID).astype(np.float32)
    np.maximum.at(edge, (cells[:, 1], cells[:, 0]), hidden.astype(np.float32))
    if not edge.any():
        return edge
    edge = cv2.dilate(edge, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    return cv2.GaussianBlur(edge, (0, 0), 2.0)


def _continued(layer: _Layer) -> tuple[Array, Array]:
    """A layer's offsets, and how well they are known, 0..1, a few cells beyond where the photo shows it."""
    known = (layer.covered & ~layer.unseen).astype(np.float32)
    weight = cv2.GaussianBlur(known, (0, 0), 2.5)
    around = cv2.GaussianBlur(layer.offset * known[..., None], (0, 0), 2.5) / np.maximum(weight, 1e-3)[..., None]
    return np.where(known[..., None] > 0, layer.offset, around), np.maximum(known, (weight * 4).clip(0, 1))


def _joined(front: _Layer, back: _Layer) -> tuple[Array, Array]:
    """The face before hair and neck: their offsets, and how well they are known.

    Both are continued under and beyond the face's outline, and a soft mask along it makes the transition: the outline
    of the raster itself is a staircase.
    """
    (face_offset, face_known), (shell_offset, shell_known) = _continued(front), _continued(back)
    outline = cv2.GaussianBlur(front.covered.astype(np.float32), (0, 0), 2.0)
    mask = ((outline - 0.25) / 0.5).clip(0, 1)
    mask = mask * mask * (3 - 2 * mask)
    face_weight = mask * face_known
    shell_weight = (1 - mask) * shell_known
    total = face_weight + shell_weight
    share = (face_weight / np.maximum(total, 1e-6))[..., None]
    return share * face_offset + (1 - share) * shell_offset, total


def _believe_mesh(smooth: Array, mesh: Array, known: Array, where: Array) -> Array:
    """The mesh's offsets where they contradict the smooth field, the smooth field's elsewhere.

    Args:
        smooth, mesh: [GRID, GRID, 2].
        known: [GRID, GRID] 0..1, how well the mesh knows.
        where: [GRID, GRID] 0..1, where it is asked.
    """
    apart = np.linalg.norm(mesh - smooth, axis=-1).astype(np.float32) * known
    apart = cv2.GaussianBlur(apart, (0, 0), 1.5)
    trust = ((apart - _MESH_TRUST_LOW) / (_MESH_TRUST_HIGH - _MESH_TRUST_LOW)).clip(0, 1) * where * known
    trust = cv2.GaussianBlur(trust, (0, 0), 1.5)[..., None]
    return trust * mesh + (1 - trust) * smooth


def _unfold(offset: Array) -> tuple[Array, Array]:
    """The flow, smoothed just where it folds, and its area ratio."""
    ratio = area_ratio(offset)
    for sigma in (1.0, 1.5, 2.0, 3.0, 4.0):
        folded = (ratio < _MIN_AREA_RATIO).astype(np.float32)
        if not folded.any():
            break
        where = cv2.GaussianBlur(cv2.dilate(folded, np.ones((5, 5), np.uint8)), (0, 0), 1.0)[..., None]
        where = np.minimum(where * 1.5, 1)
        offset = offset + where * (cv2.GaussianBlur(offset, (0, 0), sigma) - offset)
        ratio = area_ratio(offset)
    return offset, ratio


def _part(points: NDArray[np.float64]) -> tuple[slice, slice] | None:
    """Rows and columns of the cells around points [N, 2+], with a little margin; None outside the grid."""
    low = np.floor(points[:, :2].min(0) * GRID - 2).astype(int).clip(0, GRID)
    high = np.ceil(points[:, :2].max(0) * GRID + 2).astype(int).clip(0, GRID)
    if (high <= low).any():
        return None
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _frame_of(low: NDArray[Any], high: NDArray[Any], per_side: int = 10) -> NDArray[np.float64]:
    """[4 * per_side, 2] points along the border of a rectangle."""
    t = np.linspace(0, 1, per_side, endpoint=False)
    zero, one = np.zeros(per_side), np.ones(per_side)
    unit = np.concatenate([np.stack(s, 1) for s in ((t, zero), (one, t), (1 - t, one), (zero, 1 - t))])
    return low + unit * (high - low)


def _fade(low: NDArray[Any], high: NDArray[Any]) -> Array:
    """[GRID, GRID] one inside, smoothly to zero at the border of the rectangle."""
    at = _grid().reshape(GRID, GRID, 2)
    distance = np.minimum(at - low, high - at).min(-1) - 0.75 / GRID
    t = np.clip(distance / _RIM, 0, 1).astype(np.float32)
    return t * t * (3 - 2 * t)


def area_ratio(offset: Array) -> Array:
    """Determinant of the map target -> photo, [GRID, GRID]; not positive where the flow folds."""
    padded = cv2.copyMakeBorder(offset, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) * np.float32(GRID / 2)
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) * np.float32(GRID / 2)
    return (1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0]


class Painter:
    """Applies flows to one picture at its own resolution.

    Attributes:
        colours: what is drawn into the picture is drawn with.
    """

    def __init__(self, picture: Image, warper: Warper, scale: float = 1.0) -> None:
        """Args: picture: uint8 RGB [H, W, 3], the photo that the warper was made for, scale times as large."""
        self._picture = picture
        height, width = picture.shape[:2]
        self._crop = crop = warper.crop.scaled(scale)
        self._left, self._top = max(int(np.floor(crop.left)), 0), max(int(np.floor(crop.top)), 0)
        self._right = min(int(np.ceil(crop.left + crop.side)), width)
        self._bottom = min(int(np.ceil(crop.top + crop.side)), height)
        self._size = (self._right - self._left, self._bottom - self._top)
        self._cells_per_px = GRID / crop.side
        # Where the region's pixels are, in x and in y.
        self._base = (
            np.arange(self._left, self._right, dtype=np.float32)[None],
            np.arange(self._top, self._bottom, dtype=np.float32)[:, None],
        )
        self.colours = warper.colours(picture, crop)

    def paint(self, flow: Flow) -> Image:
        """The picture moved by the flow; outside the crop it is the picture itself."""
        out = self.carry(self._picture, flow)
        self.complete(out, flow)
        return out

    def carry(self, plane: NDArray[np.uint8], flow: Flow) -> NDArray[np.uint8]:
        """The picture, or another plane of it, [H, W], moved by the flow; nothing is drawn into it."""
        out = plane.copy()
        out[self._top : self._bottom, self._left : self._right] = self._moved(plane, flow)
        return out

    def _moved(self, picture: NDArray[np.uint8], flow: Flow) -> NDArray[np.uint8]:
        """The region of a picture, moved."""
        places = self._sample(flow.offset, (0, 0), 1, (0, 0), self._size)
        for detail in flow.details:
            # The pixels whose centres lie among the centres of the part's outer cells.
            start = np.array([detail.columns.start, detail.rows.start])
            stop = np.array([detail.columns.stop, detail.rows.stop])
            corner = np.array([self._left - self._crop.left, self._top - self._crop.top])
            low = np.ceil((start + 0.5) / self._cells_per_px - corner - 0.5).astype(int).clip(0, self._size)
            high = np.floor((stop - 0.5) / self._cells_per_px - corner + 0.5).astype(int).clip(0, self._size)
            if (high > low).all():
                parts = self._sample(detail.offset, start, FINE, low, high - low)
                for plane, part in zip(places, parts, strict=True):
                    plane[low[1] : high[1], low[0] : high[0]] = part
        for plane, base in zip(places, self._base, strict=True):
            plane *= np.float32(self._crop.side)
            plane += base
        x, y = places
        return np.asarray(cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))

    def complete(self, image: Image, flow: Flow) -> None:
        """Paints what the photo has no pixels of, the inside of a mouth and shut lids, over an image of its size."""
        region = image[self._top : self._bottom, self._left : self._right]
        if flow.mouth is not None:
            self._fill_mouth(region, flow.mouth)
        for eye in flow.shut_eyes:
            self._lighten_lid(region, eye)
            self._draw_lashes(region, eye)

    def _sample(self, offset: Array, start: Any, fine: int, low: Any, size: Any) -> list[Array]:
        """Offsets at the pixels of a rectangle of the region, interpolated linearly: those in x, those in y.

        Args:
            offset: cells, `fine` of them for one of the grid, from cell start (x, y) of the grid on.
            low, size: left and top, width and height of the rectangle, in pixels of the region.
        """
        k = self._cells_per_px * fine
        x, y = (
            (edge + first + 0.5 - begin) * k - at * fine - 0.5
            for edge, first, begin, at in zip(
                (self._left, self._top), low, (self._crop.left, self._crop.top), start, strict=True
            )
        )
        matrix = np.array([[k, 0, x], [0, k, y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        shape = int(size[0]), int(size[1])
        return [
            cv2.warpAffine(plane, matrix, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
            for plane in cv2.split(offset)  # of one plane OpenCV is faster, and exact: it does not round the places
        ]

    def _around(self, points: NDArray[Any], margin: float) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """Left and top, right and bottom of the region's pixels around points [N, 2]."""
        low = np.floor(points.min(0) - margin).astype(int).clip(0)
        return low, np.minimum(np.ceil(points.max(0) + margin).astype(int) + 1, self._size)

    def _fill_mouth(self, region: Image, mouth: Opening) -> None:
        """Darkens the opening between lips that are closer together in the photo: there are no pixels of it."""
        corner = np.array([self._crop.left - self._left, self._crop.top - self._top]) - 0.5
        upper, lower = (line * self._crop.side + corner for line in (mouth.upper, mouth.lower))
        outline = np.concatenate([upper, lower[-2:0:-1]])
        width = float(np.ptp(outline[:, 0]))
        soft = max(0.02 * width, 0.6)
        low, high = self._around(outline, 3 * soft)
        if (high - low).min() < 2:
            return
        shape = high[1] - low[1], high[0] - low[0]
        alpha = _soft_polygon(outline - low, shape, soft) * mouth.depth
        # Deepest under the upper lip; some light falls in below.
        depth = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None, None] ** 2
        colour = self.colours.lips * (_INSIDE_LIGHT[0] + _INSIDE_LIGHT[1] * depth)
        tall = float(np.linalg.norm(lower - upper, axis=1).max()) / width
        if (seen := min((tall - _TONGUE_SEEN[0]) / (_TONGUE_SEEN[1] - _TONGUE_SEEN[0]), 1.0)) > 0:
            tongue = _soft_polygon(_tongue_outline(upper, lower) - low, shape, 0.06 * width)
            colour = colour + seen * tongue * (self.colours.tongue - colour)
        if mouth.teeth > 0:
            shine = _soft_polygon(_teeth_outline(upper, width) - low, shape, 0.8 * soft) * mouth.teeth
            from_middle = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :, None]
            shaded = self.colours.teeth * (1 - 0.45 * from_middle**2) * (0.82 + 0.18 * np.sqrt(depth))
            colour = colour + shine * (shaded - colour)
        part = region[low[1] : high[1], low[0] : high[0]]
        part[...] = np.round(part + alpha * (colour - part)).clip(0, 255).astype(np.uint8)

    def _lighten_lid(self, region: Image, eye: ShutEye) -> None:
        """Paints skin where a lid that comes down is darker: shadow, make-up and lashes that were stretched with it."""
        corner = np.array([self._crop.left - self._left, self._crop.top - self._top]) - 0.5
        outline = np.concatenate([eye.line, eye.fold[::-1]]) * self._crop.side + corner
        soft = max(0.06 * float(np.linalg.norm(outline[0] - outline[8])), 0.6)
        low, high = self._around(outline, 3 * soft)
        if (high - low).min() < 2:
            return
        alpha = _soft_polygon(outline - low, (high[1] - low[1], high[0] - low[0]), soft) * eye.amount
        part = region[low[1] : high[1], low[0] : high[0]]
        lift = (_LID_LIGHT * self.colours.lids[eye.number] - part).clip(0)
        part[...] = np.round(part + alpha * lift).astype(np.uint8)

    def _draw_lashes(self, region: Image, eye: ShutEye) -> None:
        """Covers the slit that is left of an eye: squeezed eyeball, a pixel or two wide."""
        corner = np.array([self._crop.left - self._left, self._crop.top - self._top]) - 0.5
        line = eye.line * self._crop.side + corner
        width = float(np.linalg.norm(line[0] - line[-1]))
        soft = max(0.02 * width, 0.5)
        low, high = self._around(line, 4 * soft)
        if (high - low).min() < 2:
            return
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        fixed = np.round((line - low) * 16).astype(np.int32)
        cv2.polylines(mask, [fixed], False, 255, max(1, round(0.05 * width)), cv2.LINE_AA, shift=4)
        alpha = cv2.GaussianBlur(mask, (0, 0), soft).astype(np.float32)[..., None] * (0.9 * eye.amount / 255)
        part = region[low[1] : high[1], low[0] : high[0]]
        part[...] = np.round(part + alpha * (self.colours.lashes[eye.number] - part)).clip(0, 255).astype(np.uint8)


def _skin_at(picture: Image, places: NDArray[Any], reach: float) -> Array:
    """Colour [3] of skin: the mean of the lighter half, not lashes and folds, of the pixels around places [N, 2]."""
    k = max(round(reach), 1)
    at = places.astype(int)[:, None, None] + np.stack(np.meshgrid(*[np.arange(-k, k + 1)] * 2), -1)
    x, y = np.moveaxis(at.reshape(-1, 2).clip(0, np.array(picture.shape[1::-1]) - 1), 1, 0)
    pixels = picture[y, x].astype(np.float32)
    light = pixels @ LUMA
    return np.asarray(pixels[light >= np.median(light)].mean(0), np.float32)


def _soft_polygon(outline: NDArray[Any], shape: tuple[int, int], sigma: float) -> Array:
    """[H, W, 1] 1 inside the outline, 0 outside, blurred."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return (cv2.GaussianBlur(mask, (0, 0), sigma).astype(np.float32) / 255)[..., None]


def _tongue_outline(upper: NDArray[Any], lower: NDArray[Any]) -> NDArray[Any]:
    """Outline of the tongue: it lies behind the lower lip, a little narrower than the mouth."""
    u = np.linspace(-1, 1, len(lower))[:, None]
    height = 0.55 * np.sqrt((1 - (u / 0.8) ** 2).clip(0))
    return np.concatenate([lower, (lower + height * (upper - lower))[::-1]])


def _teeth_outline(upper: NDArray[Any], width: float) -> NDArray[Any]:
    """Outline of the upper teeth: they hang from the upper lip, longest in the middle."""
    across = upper[-1] - upper[0]
    down = np.array([-across[1], across[0]]) / max(float(np.linalg.norm(across)), 1e-6)
    u = np.linspace(-1, 1, len(upper))[:, None]
    edge = upper + down * (_TEETH_HEIGHT * width * np.sqrt(1 - 0.95 * u * u))
    return np.concatenate([upper, edge[::-1]])
