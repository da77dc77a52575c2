"""Self-occlusion of turned heads: where it occurs, the flow of the rasterized mesh there, and the ear it hides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import ramp, smoothstep
from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Image, Pose, canonical_mesh
from mimik.rendering.field import GRID
from mimik.rendering.head_mesh import head

# Crop sides of disagreement over which the flow changes from smooth field to mesh.
_MESH_TRUST_LOW, _MESH_TRUST_HIGH = 0.008, 0.024
# Position of an ear's edge on the side of positive x, centimeters of the canonical face frame; and the centimeters by
# which it projects beyond the face's outline, over which it fades from hidden to visible.
_EAR_CM = np.array([8.6, -0.5, 4.5])
_EAR_SHOWS_CM = 0.0, 0.45
_LEVEL_CM = 2.5  # difference in height of the parts of the face's outline it is compared with
_EAR_ENDS_CM = (-6.0, -4.5), (3.2, 4.5)  # heights over which an ear begins and ends, y of the face frame
_HAIR_ENDS_CM = -4.5, -2.8  # heights over which dark pixels beside the face change from hair to a part of the ear
_HAIR = 0.35, 0.6  # brightness relative to the cheek, over which hair becomes skin
_CHEEK = 0.01, 0.05  # face widths inside the face's outline, where the brightness of the cheek is measured
_WIDEST_EAR_CM = 1.5  # mean width beyond the face's outline
_IS_EAR = 0.7  # smallest share of skin beside the face
_EAR_PX = 200  # width of the face in the reduced picture on which the mask is computed
_EAR_BEGINS = 0.008  # face widths beyond the face's outline over which the mask of an ear rises to 1
_UNDER_JAW = -0.01, 0.01  # crop sides inside the face's outline, over which a point of the neck is covered
DEPTH_GAP = 0.02  # crop sides, about 9 mm: a surface is hidden if it lies this far behind another


@dataclass(frozen=True)
class Surface:
    """A rasterized surface of the target; all [GRID, GRID, ...].

    Attributes:
        depth: in cells, infinite in empty cells.
        offset: as Flow.offset.
        covered: cells that are not empty.
        unseen: disoccluded cells.
        mirror: rasterized Mirror.attributes.
    """

    depth: Array
    offset: Array
    covered: NDArray[np.bool_]
    unseen: NDArray[np.bool_]
    mirror: Array


def covered_by_jaw(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] 0..1, whether points of the head mesh are points of the neck that an opened jaw covers.

    Args: points: [N, 3] of the mesh in a frame, in crop sides.
    """
    out = np.zeros(len(points))
    neck = np.flatnonzero(head().hair < 0.5) + face.NUM_POINTS
    outline = np.ascontiguousarray(points[face.OVAL, :2], np.float32)
    inside = [cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in points[neck, :2]]
    out[neck] = ramp(np.array(inside), *_UNDER_JAW)
    return out


def near_occlusion(depth: Array, cells: NDArray[np.int_], hidden: NDArray[np.float64]) -> Array:
    """[GRID, GRID] 1 near occlusion boundaries and hidden points, 0 far away.

    Args:
        depth: [GRID, GRID] in cells, infinite in empty cells.
        cells: [N, 2] cells (x, y) of points.
        hidden: [N] 0..1, occlusion of each point.
    """
    far = np.where(np.isfinite(depth), depth, -np.inf).astype(np.float32)
    near = np.where(np.isfinite(depth), depth, np.inf).astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        step = np.nan_to_num(cv2.dilate(far, kernel) - cv2.erode(near, kernel), nan=0, posinf=0, neginf=0)
    edge = ramp(step, 0.75 * DEPTH_GAP * GRID, 1.5 * DEPTH_GAP * GRID).astype(np.float32)
    np.maximum.at(edge, (cells[:, 1], cells[:, 0]), hidden.astype(np.float32))
    if not edge.any():
        return edge
    edge = cv2.dilate(edge, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    return cv2.GaussianBlur(edge, (0, 0), 2.0)


def _continued(layer: Surface) -> tuple[Array, Array]:
    """A layer's offsets and their confidence, 0..1, extrapolated a few cells beyond what the photo shows."""
    known = (layer.covered & ~layer.unseen).astype(np.float32)
    weight = cv2.GaussianBlur(known, (0, 0), 2.5)
    around = cv2.GaussianBlur(layer.offset * known[..., None], (0, 0), 2.5) / np.maximum(weight, 1e-3)[..., None]
    return np.where(known[..., None] > 0, layer.offset, around), np.maximum(known, (weight * 4).clip(0, 1))


def joined(front: Surface, back: Surface) -> tuple[Array, Array]:
    """Composite the offsets of the face over those of hair and neck; also returns their confidence, 0..1.

    Both layers are extrapolated across the face's outline and blended by a soft mask, because the rasterized outline
    is jagged.
    """
    (face_offset, face_known), (shell_offset, shell_known) = _continued(front), _continued(back)
    outline = cv2.GaussianBlur(front.covered.astype(np.float32), (0, 0), 2.0)
    mask = smoothstep(outline, 0.25, 0.75)
    face_weight = mask * face_known
    shell_weight = (1 - mask) * shell_known
    total = face_weight + shell_weight
    share = (face_weight / np.maximum(total, 1e-6))[..., None]
    return share * face_offset + (1 - share) * shell_offset, total


def trust_mesh(smooth: Array, mesh: Array, known: Array, where: Array) -> Array:
    """The mesh's offsets where they disagree with the smooth field; the smooth field elsewhere.

    Args:
        smooth, mesh: [GRID, GRID, 2] offsets.
        known: [GRID, GRID] 0..1, confidence of the mesh.
        where: [GRID, GRID] 0..1, where the mesh may be used.
    """
    apart = np.linalg.norm(mesh - smooth, axis=-1).astype(np.float32) * known
    apart = cv2.GaussianBlur(apart, (0, 0), 1.5)
    trust = ramp(apart, _MESH_TRUST_LOW, _MESH_TRUST_HIGH) * where * known
    trust = cv2.GaussianBlur(trust, (0, 0), 1.5)[..., None]
    return trust * mesh + (1 - trust) * smooth


@dataclass(frozen=True)
class HiddenEar:
    """An ear behind the far cheek. The flow cannot remove it: it would remain as a line along the outline.

    Attributes:
        side: 0 at the picture's left of a frontal face, 1 at its right.
        share: 0..1, how far it is hidden.
        low, high: [2] corners of a rectangle around the far outline at its height, units of the crop's side.
    """

    side: int
    share: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def hidden_ears(pose: Pose, margin: float) -> tuple[HiddenEar, ...]:
    """The ears that a head in this pose, in units of the crop's side, hides; margin: of the rectangles."""
    oval = canonical_mesh().vertices[face.OVAL]
    beside = oval[(oval[:, 1] > _EAR_ENDS_CM[0][0]) & (oval[:, 1] < _EAR_ENDS_CM[1][1])]
    down = pose.rotation[:2, 1] / max(float(np.linalg.norm(pose.rotation[:2, 1])), 1e-9)
    across_head = np.array([down[1], -down[0]]) @ pose.rotation[:2]
    found = []
    for side, sign in enumerate((-1.0, 1.0)):
        edge = beside[beside[:, 0] * sign > 0]
        level = edge[np.abs(edge[:, 1] - _EAR_CM[1]) < _LEVEL_CM]
        projects = sign * across_head @ (_EAR_CM * [sign, 1, 1]) - (sign * level @ across_head).max()
        share = 1 - float(smoothstep(projects, *_EAR_SHOWS_CM))
        if share > 0:
            places = pose.apply(edge)[:, :2]
            found.append(HiddenEar(side, share, places.min(0) - margin, places.max(0) + margin))
    return tuple(found)


def ear_mask(
    picture: Image, matte: NDArray[np.uint8], points: NDArray[Any], pose: Pose, side: int
) -> NDArray[np.uint8] | None:
    """[H, W] 255 where the picture shows an ear beside the face; None if hair covers it or is beside it.

    Args:
        picture: uint8 RGB [H, W, 3], the person's colors.
        matte: [H, W] of the person.
        points: [478, 3] face points in the picture, pixels.
        pose: of the head, pixels.
        side: as in HiddenEar.
    """
    hull = cv2.convexHull(points[:, :2].astype(np.float32))
    face_width = float(np.ptp(hull[:, 0, 0]))
    if face_width > 1.2 * _EAR_PX:  # the mask is smooth
        k = _EAR_PX / face_width
        size = max(round(matte.shape[1] * k), 1), max(round(matte.shape[0] * k), 1)
        less = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        matte_less = cv2.resize(matte, size, interpolation=cv2.INTER_AREA)
        found = ear_mask(less, matte_less, points * k, Pose(pose.rotation, pose.translation * k, pose.scale * k), side)
        return None if found is None else cv2.resize(found, matte.shape[::-1], interpolation=cv2.INTER_LINEAR)
    inside = np.zeros(matte.shape, np.uint8)
    cv2.fillConvexPoly(inside, np.round(hull - 0.5).astype(np.int32), 1)
    outside, within = (cv2.distanceTransform(mask, cv2.DIST_L2, 5) / face_width for mask in (1 - inside, inside))
    # Position in the face frame, on the plane through its middle.
    x = np.arange(matte.shape[1])[None] - pose.translation[0]
    y = np.arange(matte.shape[0])[:, None] - pose.translation[1]
    across, below = (x * a + y * b for a, b in (pose.rotation[:2, axis] / pose.scale for axis in (0, 1)))
    (top, begins), (ends, bottom) = _EAR_ENDS_CM
    at_ear = (
        (across > 0 if side else across < 0) * smoothstep(below, top, begins) * (1 - smoothstep(below, ends, bottom))
    )
    gray = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), _EAR_BEGINS * face_width)
    cheek = at_ear * (within > _CHEEK[0]) * (within < _CHEEK[1])
    skin = smoothstep(gray / max(float((gray * cheek).sum() / max(cheek.sum(), 1e-6)), 1.0), *_HAIR)
    # What the matte shows beside the face below the temple: too wide for an ear, or partly hair?
    low = smoothstep(below, *_HAIR_ENDS_CM)
    shown = at_ear * low * (outside > 0) * (matte / 255)
    width_cm = shown.sum() / pose.scale**2 / (ends - _HAIR_ENDS_CM[1])
    if width_cm > _WIDEST_EAR_CM or (shown * skin).sum() < _IS_EAR * shown.sum():
        return None
    skin = np.maximum(skin, low)
    return np.rint(255 * at_ear * skin * smoothstep(outside, 0, _EAR_BEGINS)).astype(np.uint8)
