"""Self-occlusion of turned heads: where it occurs, and the flow of the rasterized mesh there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import ramp, smoothstep
from mimik.face.landmarks import Array
from mimik.rendering.field import GRID

# Crop sides of disagreement over which the flow changes from smooth field to mesh.
_MESH_TRUST_LOW, _MESH_TRUST_HIGH = 0.008, 0.024
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
