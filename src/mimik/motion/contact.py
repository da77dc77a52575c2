"""Contact of lips and eyelids, and their openings.

All shapes are [478, 3], centimeters, in the face frame (face.Pose): x to the picture's right, y down. Openings are
measured from contact, so that they are comparable between faces: 0 is contact.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import smoothstep
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, canonical_mesh
from mimik.motion.expression import Float, expression_basis
from mimik.motion.regions import region_weights

EYELIDS = (  # right and left eye: upper lid, lower lid, corner to corner
    (faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER),
    (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER),
)
_INNER_UPPER, _INNER_LOWER = (np.array(line[1:-1]) for line in (faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER))
_OUTER_UPPER, _OUTER_LOWER = (np.array(line[1:-1]) for line in (faces.LIPS_OUTER_UPPER, faces.LIPS_OUTER_LOWER))

# Lip openings are in eye distances, eyelid openings relative to the usual opening.
LIPS_TOUCH = 0.02  # detected gap of touching lips: 0.002 to 0.014 (22 clips of the development set)
_LIPS_SHUT = 0.0  # target opening of lips that are parted in the photo
_LIPS_SOFT = 0.04  # openings below are mapped toward 0, see soft_contact
_EYELIDS_SOFT = 0.15
UPPER_LIP_SHARE = 0.4  # of the closing motion
UPPER_LID = 0.85
_BESIDE_CM = 1.3  # distance within which skin follows the lips
_LIP_TO_CHIN = (
    0.68  # smallest distance, relative to closed lips: 0.70 where gaps exceed 0.35 (72 frames, 40 training clips)
)
_CHIN_GIVES = 0.35  # share of the correction made by the chin; the lip makes the rest
_CHIN_FOLLOWS = 0.5  # share of the lower lip's motion, if no jaw motion is known


def eye_distance(shape: NDArray[Any]) -> float:
    """Distance between the centers of the eyes, in the shape's units."""
    apart = (shape[33] + shape[133]) / 2 - (shape[362] + shape[263]) / 2
    return math.sqrt(apart @ apart)


def lip_openings(shape: NDArray[Any]) -> Float:
    """[9] gap between each pair of inner lip points, in eye distances; negative if the lips cross."""
    return (shape[_INNER_LOWER, 1] - shape[_INNER_UPPER, 1]) / eye_distance(shape)


def eyelid_openings(shape: NDArray[Any]) -> Float:
    """[2, 7] gap between each pair of lid points, right and left eye, in the shape's units."""
    return np.array([(shape[lower[1:-1]] - shape[upper[1:-1]])[:, 1] for upper, lower in EYELIDS])


def soft_contact(opening: Float, soft: float) -> Float:
    """The opening with a soft threshold: small openings of touching lips or lids are noise and are mapped toward 0.

    Monotone, with continuous slope; 0 for negative values, the identity from `soft` on.
    """
    return np.asarray(np.clip(opening, 0, None) * smoothstep(opening, 0, soft))


@functools.cache
def _lip_fields() -> tuple[Float, Float]:
    """[478, 9] each: weights with which points follow the upper and the lower inner lip points vertically."""
    mesh = canonical_mesh().vertices
    x_inner = mesh[_INNER_UPPER, 0]
    ends = mesh[[61, 291], 0]
    knots = np.concatenate([ends[:1], x_inner, ends[1:]])
    fields = []
    weight = region_weights()["lips"]
    for inner, outer, side in ((_INNER_UPPER, _OUTER_UPPER, -1), (_INNER_LOWER, _OUTER_LOWER, 1)):
        field = np.zeros((faces.NUM_POINTS, len(inner)))
        own = {*inner.tolist(), *outer.tolist()}
        lips = mesh[[*inner, *outer]]
        each = np.eye(len(knots))[1:-1]
        hats = np.stack([np.interp(mesh[:, 0], knots, hat) for hat in each], 1)  # [468, 9]
        for point in range(faces.NUM_MESH_POINTS):
            if weight[point] < 1e-3 or (point in faces.LIPS and point not in own):
                continue
            if point in own:
                field[point] = hats[point]
                continue
            # Skin follows the lip of its side of the mouth, with a weight that falls with the distance.
            corner = np.interp(mesh[point, 0], mesh[[61, *_OUTER_UPPER, 291], 0], mesh[[61, *_OUTER_UPPER, 291], 1])
            if side * (mesh[point, 1] - corner) < 0:
                continue
            near = np.exp(-((np.linalg.norm(lips - mesh[point], axis=1).min() / _BESIDE_CM) ** 2))
            field[point] = hats[point] * near * weight[point]
        for k, point in enumerate(inner):
            field[point] = np.eye(len(inner))[k]
        fields.append(field)
    upper, lower = fields
    return upper, lower


def with_lip_openings(shape: Float, openings: Float, *, upper_lip: float = UPPER_LIP_SHARE) -> Float:
    """The shape with these lip openings; outer lips and adjacent skin follow.

    Args:
        shape: [478, 3].
        openings: [9] as in lip_openings.
        upper_lip: 0..1, share of the motion made by the upper lip.
    """
    missing = (openings - lip_openings(shape)) * eye_distance(shape)
    upper, lower = _lip_fields()
    out = shape.copy()
    out[:, 1] += lower @ ((1 - upper_lip) * missing) - upper @ (upper_lip * missing)
    return out


def with_eyelid_openings(shape: Float, openings: Float) -> Float:
    """The shape with these eyelid openings; the upper lid moves most.

    Args:
        shape: [478, 3].
        openings: [2, 7] as in eyelid_openings.
    """
    out = shape.copy()
    missing = openings - eyelid_openings(shape)
    for (upper, lower), change in zip(EYELIDS, missing, strict=True):
        out[upper[1:-1], 1] -= UPPER_LID * change
        out[lower[1:-1], 1] += (1 - UPPER_LID) * change
    return out


def closed_mouth(shape: Float, blendshapes: NDArray[Any]) -> Float:
    """The face with its mouth closed.

    The jaw rises by the face's jawOpen value, using the expression basis. Both lips close the remaining gap, such as
    that of a smile. Lips that touch already are not changed.

    Args:
        shape: [478, 3].
        blendshapes: [52] of the face.
    """
    openings = lip_openings(shape)
    if openings.max() <= LIPS_TOUCH and openings.min() >= -LIPS_TOUCH:
        return shape
    basis, jaw = expression_basis(), BLENDSHAPES.index("jawOpen")
    movement = basis.by_blendshape[jaw] * region_weights()["lips"][:, None]
    gap_cm = float((movement[14] - movement[13])[1])
    widest = max(float(openings.max()), 0.0) * eye_distance(shape)
    amount = min(max(float(blendshapes[jaw] - basis.neutral[jaw]), 0.0), widest / gap_cm)
    out = shape - amount * movement
    before = out
    out = with_lip_openings(out, np.full(len(_INNER_UPPER), _LIPS_SHUT))
    chin = float((out - before)[14, 1])  # upwards, if the mouth was open
    out[:, 1] += _CHIN_FOLLOWS * chin * _chin_field()
    # Lips that touch lie at the same depth.
    depth = out[_INNER_UPPER, 2] - out[_INNER_LOWER, 2]
    out[_INNER_UPPER, 2] -= depth / 2
    out[_INNER_LOWER, 2] += depth / 2
    return out


@functools.cache
def _chin_field() -> Float:
    """[478] weights with which points other than the lips follow the chin vertically."""
    mesh = canonical_mesh().vertices
    field = np.zeros(faces.NUM_POINTS)
    field[: faces.NUM_MESH_POINTS] = np.exp(-(((mesh[:, 1] - mesh[faces.CHIN, 1]) / 2.5) ** 2))
    field *= region_weights()["lips"]
    field[faces.LIPS] = 0
    return field


def with_chin_below_lip(shape: Float, rest: Float) -> Float:
    """The shape with a minimum distance between lower lip and chin; both are moved.

    Otherwise, a wide opening would draw the lip over the chin.

    Args:
        shape: [478, 3].
        rest: [478, 3] the same face with a mouth that is not wide open.
    """
    lip = faces.LIPS_OUTER_LOWER[5]
    least = _LIP_TO_CHIN * float(rest[faces.CHIN, 1] - rest[lip, 1])
    missing = least - float(shape[faces.CHIN, 1] - shape[lip, 1])
    if missing <= 0:
        return shape
    # Touching lips do not cross, and the chin moves no more than they do.
    rise = np.minimum((1 - _CHIN_GIVES) * missing, (lip_openings(shape) * eye_distance(shape)).clip(0))
    out = shape.copy()
    out[:, 1] += rise.max() * _CHIN_GIVES / (1 - _CHIN_GIVES) * _chin_field() - _lip_fields()[1] @ rise
    return out


def with_upper_lip_below(shape: Float, photo: Float, highest: float) -> Float:
    """The shape with an upper lip that rises at most this far above its height in the photo; openings are kept.

    Args:
        shape, photo: [478, 3].
        highest: in the shape's units; the limit is soft from half of it on.
    """
    rise = photo[_INNER_UPPER, 1] - shape[_INNER_UPPER, 1]
    over = np.clip(rise - highest / 2, 0, None)
    excess = over - highest / 2 * np.tanh(over / (highest / 2))
    if excess.max() <= 0:
        return shape
    upper, lower = _lip_fields()
    out = shape.copy()
    out[:, 1] += upper @ excess + lower @ excess
    return out


def thicker_lips(shape: Float, share: float) -> Float:
    """[478] vertical motion of the outer lips that thickens both lips of the shape [478, 3] by this share."""
    out = np.zeros(faces.NUM_POINTS)
    for outer, inner in ((_OUTER_UPPER, _INNER_UPPER), (_OUTER_LOWER, _INNER_LOWER)):
        out[outer] = share * (shape[outer, 1] - shape[inner, 1])
    return out


def soft_lip_openings(openings: Float) -> Float:
    """[9] the driver's lip openings from contact, in eye distances, with noise near contact removed."""
    return soft_contact(openings, _LIPS_SOFT)


def driver_eyelid_fractions(openings: Float, usual: Float, touching: Float) -> Float:
    """[2] opening of each eye: 0 is closed, 1 the usual opening.

    Args:
        openings: [2, 7] in this frame.
        usual: [2, 7] in the driver's neutral face.
        touching: [2] detected opening of closed eyelids, relative to the usual one.
    """
    fraction = openings.mean(1) / np.maximum(usual.mean(1), 1e-6)
    return soft_contact((fraction - touching) / (1 - touching), _EYELIDS_SOFT)
