"""The head mesh: the canonical face extended over hair and neck, its normals, and a rasterizer with depth test.

It also holds index lists of face points that only rendering needs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Float, ramp, smoothstep, spline
from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Pose, canonical_mesh

# Control points of the flow: they determine pose and expression; the remaining points lie between them.
_FEATURE_POINTS = [*face.LIPS, *face.EYES, *face.BROWS, *face.NOSE, *face.OVAL]
# Not near the ears: between points there and the outline, a turn would stretch an error of depth to a wave.
CHEEKS = [50, 205, 187, 280, 425, 411, 36, 266, 203, 423, 216, 436, 212, 432, 135, 364, 169, 394]
FOREHEAD = [151, 9, 8, 69, 299, 104, 333, 108, 337, 71, 301]
_LIDS = [27, 28, 29, 30, 56, 190, 247, 257, 258, 259, 260, 286, 414, 467, 23, 24, 22, 110, 253, 254, 252, 339]
_UNDER_CHIN = [18, 200, 199, 175, 32, 262, 208, 428, 171, 396]
_SHELL = range(face.NUM_POINTS, face.NUM_POINTS + 2 * len(face.OVAL), 1)
CONTROL = np.array(sorted({*_FEATURE_POINTS, *CHEEKS, *FOREHEAD, *_LIDS, *_UNDER_CHIN, *_SHELL}))
# [2, 20] neighboring points of the lips' outer contour. The points of the contour between them are control points too;
# otherwise the contour of a lip that moves far would be wavy.
_OUTER_LIPS = np.array([face.LIPS_OUTER_UPPER, face.LIPS_OUTER_LOWER])
LIPS_RIM = np.array([pair for line in _OUTER_LIPS.tolist() for pair in pairwise(line)]).T
# Points of the jaw's edge. Points beside them, outward and down by these distances, move with the jaw. Without these, a
# neck, which turns less than the head, would pull skin of the jaw sideways.
JAW = np.array([132, 58, 172, 361, 288, 397])
_BESIDE_JAW_CM = 0.9, 0.3
MOUTH_CORNERS = [61, 291]
# Distance over which skin follows a corner sideways. 1.3 cm beside it, the landmark detector finds a fifth of the
# corner's motion; in videos it is two thirds (optical flow, 14 clips of the training set).
_FOLLOWS_CORNER_CM = 1.7
# Semi-axes (width, height, depth) of the two ellipsoids of hair, in centimeters of the canonical face frame; and the
# depth of their rings.
_HAIR_CM = (9.0, 11.0, 10.8), (12.0, 14.0, 14.4)
_RING_CM = 3.0
_SKULL_CM = 0.0, -3.0, 5.0  # center of the skull
_SCALP_DEG = (45.0, 65.0), (-50.0, 0.0, 50.0)  # heights and directions of points of the scalp
_EAR_CM = 4.5  # depth of the ears
_ABOVE_EARS_CM = -1.0, 9.0  # heights above the middle of the face over which a ring beside an ear becomes round
# Where hair beyond an ear would be, [P, 3] on the side of positive x.
_BEYOND_EAR_CM = np.array([(10.8, y, _RING_CM) for y in (-3.0, -1.0, 1.0, 3.0)])
# Distance from the midline from which points of the rings are side points: above the nose, below it.
_AT_SIDE_CM = 4.0, 2.0
_SLOPE = 2.0  # a candidate is outside a side point if it is at least this many times further out than above or below it


@dataclass(frozen=True)
class Head:
    """The canonical face extended by a shell of hair and neck, so that the whole head can turn.

    Attributes:
        shell: [S, 3] points of hair and neck in the canonical face frame, centimeters.
        follow: [S] share of the skull's motion, 0..1; less than 1 for the neck and for hair on the shoulders.
        hair: [S] 0..1, 1 for hair, 0 for the neck.
        triangles: [T, 3] indices into the 478 points followed by the shell; the openings of eyes and mouth have none.
        num_face: number of face triangles, which come first; the others are the shell's.
    """

    shell: NDArray[np.float64]
    follow: NDArray[np.float64]
    hair: NDArray[np.float64]
    triangles: NDArray[np.int32]
    num_face: int


@functools.cache
def head() -> Head:
    mesh = canonical_mesh()
    oval = mesh.vertices[face.OVAL]
    angle = _angles()
    below = ramp(oval[:, 1], 3.5, 8.5)  # 1 at the chin: there the shell is the neck
    rings, follows = [], []
    for (width, height, _), (neck_width, neck_y, neck_follow) in zip(
        _HAIR_CM, ((5.5, 11.5, 0.6), (8.0, 15.0, 0.1)), strict=True
    ):
        hair = np.stack([width * np.sin(angle), _SKULL_CM[1] - height * np.cos(angle), np.full(len(oval), _RING_CM)], 1)
        neck = np.stack([neck_width * np.sin(angle) * 1.6, np.full(len(oval), neck_y), np.full(len(oval), _RING_CM)], 1)
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
    parts = [t if np.median(across(vertices, t)[:, 2]) < 0 else t[:, ::-1] for t in parts]
    is_hair = np.tile(1 - below, len(rings))
    return Head(shell, np.concatenate(follows), is_hair, np.concatenate(parts).astype(np.int32), len(parts[0]))


def _angles() -> NDArray[np.float64]:
    """[n] direction of each point of the face's oval from the center of the head, radians; 0 is up."""
    oval = canonical_mesh().vertices[face.OVAL]
    return np.arctan2(oval[:, 0], _SKULL_CM[1] - oval[:, 1])


@functools.cache
def follows_corners() -> NDArray[np.float64]:
    """[478, 2] 0..1, by which the skin follows each corner of the mouth sideways; 0 at the lips."""
    mesh = canonical_mesh().vertices
    weights = np.zeros((face.NUM_POINTS, 2))
    apart = np.linalg.norm(mesh[:, None, :2] - mesh[None, MOUTH_CORNERS, :2], axis=-1)
    weights[: len(mesh)] = np.exp(-((apart / _FOLLOWS_CORNER_CM) ** 2))
    weights[face.LIPS] = 0
    return weights


def shell_of(pose: Pose, long_hair: tuple[float, float]) -> NDArray[np.float64]:
    """[S, 3] the shell of a head in a picture: the outline of an ellipsoid in this pose.

    A head stays as wide when it turns, but the points of a flat ring would approach each other. Only at the height of
    the ears the inner ring turns with the face, like an ear, and so does the outer ring if no hair covers it. z is that
    of a flat ring.

    Args:
        pose: of the head.
        long_hair: 0..1, whether hair reaches beyond the ear, at the picture's left and right of a frontal face.
    """
    unit, flat, at_ears = _rings()
    at_ears = at_ears.copy()
    at_ears[1] *= 1 - np.where(unit[:, 0] < 0, *long_hair)
    shell = pose.apply(head().shell)
    # Of the rings, in units of the face frame and relative to the center of the skull.
    outline = np.stack([unit @ _outline(pose.rotation[:2] * axes).T for axes in _HAIR_CM])
    projected = flat @ pose.rotation[:2, :2].T
    ears, rings = (projected + (z - _SKULL_CM[2]) * pose.rotation[:2, 2] for z in (_EAR_CM, _RING_CM))
    changes = outline + at_ears[..., None] * (ears - outline) - rings
    shell[:, :2] += pose.scale * head().hair[:, None] * changes.reshape(-1, 2)
    return shell


@functools.cache
def _rings() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """[n, 2] unit circle; [2, n, 2] rings of hair around the center of the skull; [2, n] 0..1, how near to the ears."""
    unit = np.stack([np.sin(_angles()), -np.cos(_angles())], 1)
    flat = np.stack([unit * axes[:2] for axes in _HAIR_CM])
    return unit, flat, 1 - smoothstep(-flat[..., 1] - _SKULL_CM[1], *_ABOVE_EARS_CM)


def _outline(seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """[2, 2] that maps the unit circle to the outline of an ellipsoid with projected axes seen [2, 3].

    This holds for each root with root @ root.T = seen @ seen.T. The result is the one nearest to seen[:, :2], which is
    the outline without a turn.
    """
    square = seen @ seen.T
    spread = np.sqrt(max(square[0, 0] * square[1, 1] - square[0, 1] ** 2, 0.0))
    root = (square + spread * np.eye(2)) / np.sqrt(max(square[0, 0] + square[1, 1] + 2 * spread, 1e-12))
    (a, b), (c, d) = root @ seen[:, :2]
    x, y = a + d, c - b
    length = max(float(np.hypot(x, y)), 1e-12)
    return np.asarray(root @ np.array([[x, -y], [y, x]]) / length)


def long_hair(skull: Pose, matte: Array) -> tuple[float, float]:
    """Whether hair (or a veil) reaches beyond each ear, see shell_of.

    Args:
        skull: pose of the head, in units of the matte's side.
        matte: [N, N] 0..1, of the person.
    """
    found = []
    for side in (-1.0, 1.0):
        x, y = (skull.apply(_BEYOND_EAR_CM * [side, 1, 1])[:, :2] * len(matte)).astype(int).clip(0, len(matte) - 1).T
        found.append(float(matte[y, x].mean()))
    return found[0], found[1]


@functools.cache
def scalp() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[6, 3] places between forehead and crown, on the inner ellipsoid of hair, in the face frame; their normals.

    They turn with the skull: hair in front of the crown moves like the forehead, not like the outline of the head.
    """
    up, aside = np.radians(np.stack(np.meshgrid(*_SCALP_DEG), -1).reshape(-1, 2)).T
    normal = np.stack([np.cos(up) * np.sin(aside), -np.sin(up), -np.cos(up) * np.cos(aside)], 1)
    return _SKULL_CM + normal * _HAIR_CM[0], normal


def beside_jaw(points: NDArray[np.float64], pose: Pose) -> NDArray[np.float64]:
    """[6, 2] points beside JAW, outside of the face; points: [V, 3] of a head in a picture; pose: of this head."""
    out, down = _BESIDE_JAW_CM
    away = np.column_stack([out * np.sign(canonical_mesh().vertices[JAW, 0]), np.full(len(JAW), down)])
    return np.asarray(points[JAW, :2] + pose.scale * away @ pose.rotation[:2, :2].T)


@functools.cache
def _sides() -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp], NDArray[np.bool_]]:
    """Side points [N] of the face and of the shell's rings; the side of each, -1 or 1; candidate outline points [M];
    and a mask [N, M] of the candidates inside the ring of each side point."""
    x, y, _ = np.concatenate([canonical_mesh().vertices, np.zeros((len(face.IRISES), 3)), head().shell]).T
    n, first = len(face.OVAL), face.NUM_POINTS
    rings = [np.array(face.OVAL), *np.arange(first, len(x)).reshape(-1, n)]
    candidates = CONTROL[~np.isin(CONTROL, face.IRISES)]
    index, inside = [], []
    for number, ring in enumerate(rings):
        at_side = ring[np.abs(x[ring]) > np.where(y[ring] < 0, *_AT_SIDE_CM)]
        index.append(at_side)
        inside.append(np.repeat((candidates < first + number * n)[None], len(at_side), 0))
    points = np.concatenate(index)
    return points, np.sign(x[points]), candidates, np.concatenate(inside)


def side_points() -> NDArray[np.intp]:
    """Indices of the points that on_outline returns."""
    return _sides()[0]


def on_outline(points: NDArray[np.float64], rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N, 2] the side points of the face and of the shell's rings, projected sideways to the outline of their ring.

    A side point that the head hides is moved to the visible outline; one that is already on the outline stays. The
    result is therefore continuous in the pose.

    Args:
        points: [V, 3] head points in a picture.
        rotation: [3, 3] of the head.
    """
    index, side, candidates, inside = _sides()
    down = rotation[:2, 1] / max(float(np.linalg.norm(rotation[:2, 1])), 1e-9)
    across_head = np.array([down[1], -down[0]])
    x, y = points[:, :2] @ across_head, points[:, :2] @ down
    out = side[:, None] * x[candidates] - _SLOPE * np.abs(y[candidates] - y[index][:, None])
    further = np.where(inside, out, -np.inf).max(1) - side * x[index]
    return np.asarray(points[index, :2] + (side * further.clip(0))[:, None] * across_head)


def across(points: NDArray[Any], triangles: NDArray[np.int32]) -> NDArray[np.float64]:
    """[T, 3] normals of triangles; their length is twice the area."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def normals(points: NDArray[Any]) -> NDArray[np.float64]:
    """[V, 3] outward unit normals of a head, smoothed over neighboring triangles to ignore lips, lids and nostrils."""
    triangles = head().triangles
    normal_of = across(points, triangles)
    for _ in range(4):
        normal = np.zeros_like(points)
        for corner in range(3):
            np.add.at(normal, triangles[:, corner], normal_of)
        normal_of = normal[triangles].mean(1)
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)


def rasterize(
    points: NDArray[Any], attribute: NDArray[Any], triangles: NDArray[np.int32], grid: int
) -> tuple[Array, Array]:
    """Rasterize a triangle mesh with a depth test.

    Args:
        points: [V, 3], x and y in cells; smaller z is nearer.
        attribute: [V, A] vertex attributes, interpolated linearly over each triangle.
        triangles: [T, 3] indices.
        grid: cells along a side.

    Returns:
        Depth [grid, grid], infinite in empty cells; attributes [grid, grid, A], zero in empty cells.
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
        dx[x >= grid] = dy[y >= grid] = np.nan  # beyond the grid: comparisons with NaN are false
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
        nearest[cell[order]] = order  # of several writes to a cell, the last one (the nearest) remains
        filled = np.flatnonzero(nearest >= 0)
        hit = nearest[filled]
        depth[filled] = z[hit]
        corner = triangles[np.concatenate(owners)[hit]]
        w1, w2 = np.concatenate(firsts)[hit, None], np.concatenate(seconds)[hit, None]
        a, b, c = (attribute[corner[:, i]] for i in range(3))
        out[filled] = a + w1 * (b - a) + w2 * (c - a)
    return depth.reshape(grid, grid), out.reshape(grid, grid, -1)


def lips_rim(points: NDArray[Any]) -> Float:
    """[20, 2] points of the lips' outer contour between the neighboring ones of LIPS_RIM, on smooth curves.

    Args: points: [478+, 2 or 3].
    """
    return np.asarray((spline(_OUTER_LIPS.shape[1], 2)[1::2] @ points[_OUTER_LIPS, :2]).reshape(-1, 2))
