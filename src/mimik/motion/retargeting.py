"""Retargeting: from a driver's motion frames to the points of one person; the paper's landmark adaptation.

The expression is scaled to the person's features and applied, with the pose, to the person's own shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mimik.arrays import smoothstep
from mimik.config import REGIONS
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face, Pose, canonical_mesh, head_pose, mirror_order
from mimik.motion.contact import (
    UPPER_LIP_SHARE,
    closed_mouth,
    driver_eyelid_fractions,
    eye_distance,
    eyelid_openings,
    lip_openings,
    soft_lip_openings,
    thicker_lips,
    with_chin_below_lip,
    with_eyelid_openings,
    with_lip_openings,
    with_upper_lip_below,
)
from mimik.motion.expression import Float, expression_basis
from mimik.motion.frames import MotionFrame, Reference, rotation_matrix, rotation_vector
from mimik.motion.regions import region_weights

_CORNERS = 61, 291


class Retarget:
    """Retargets a driver's motion frames to one person's face."""

    def __init__(
        self,
        person: Face,
        reference: Reference,
        *,
        mode: str = "relative",
        regions: Sequence[str] = REGIONS,
        strength: float = 1.0,
        exact: bool = False,
        limit: Callable[[Float], Float] | None = None,
    ) -> None:
        """Args:
        person: the face in the photo.
        reference: the driver's neutral reference.
        mode: "relative" adds the driver's difference from its neutral to the photo; "absolute" uses the driver's own
            pose and expression.
        regions: the regions that move.
        strength: multiplies expression and head motion.
        exact: driver and person are the same: no gains are applied, and the head may turn further.
        limit: shifts the points [478, 3] of a frame so that no cut edge of the photo becomes visible.
        """
        self._pose = head_pose(person.points)
        self._shape = self._pose.invert(person.points)
        self._regions = regions
        self._exact, self._limit = exact, limit
        self._strength = strength
        self._absolute = mode == "absolute"
        # Both with lips that touch: openings count from there.
        self._closed = closed_mouth(self._shape, person.blendshapes)
        other = closed_mouth(reference.shape, reference.blendshapes)
        self._gain, self._widening = np.ones((faces.NUM_POINTS, 3)), np.zeros(faces.NUM_POINTS)
        if not exact:
            self._gain, self._widening = _feature_gain(self._closed, other)
        self._opening_gain = 1.0 if exact else _opening_gain(self._closed, other)
        if self._absolute:
            self._opening_gain *= _ABSOLUTE_OPENING
        self._max_reveal = _MAX_REVEAL_EXACT if exact else _MAX_REVEAL
        self._reference_shape = reference.shape
        # What both do all the time is the person's own already.
        basis = expression_basis()
        common = np.clip(person.blendshapes - basis.neutral, 0, reference.lasting)
        weight = sum((region_weights()[name] for name in ("lips", "brows")), np.zeros(faces.NUM_POINTS))
        self._apart = reference.shape - other - basis.expression(common) * weight[:, None]
        self._lips_rest = lip_openings(other)
        self._lids_usual = eyelid_openings(reference.shape)
        self._lids_touch = np.array(reference.eyelids_touch)
        widens = np.array([name.startswith(_WIDENING) for name in BLENDSHAPES])
        smile = np.clip(person.blendshapes - basis.neutral, 0, None) * widens
        self._smile = basis.expression(smile) * region_weights()["lips"][:, None]
        corners = [BLENDSHAPES.index(f"mouthSmile{side}") for side in ("Left", "Right")]
        smiles = float(smoothstep(person.blendshapes[corners].mean(), *_SMILES))
        lifted = _LIFTED * smiles * float(lip_openings(self._shape).max())
        self._highest = max(_HIGHEST_LIP - lifted, _LEAST_RISE) * eye_distance(self._shape)
        self._widest = max(
            _WIDEST_MOUTH * eye_distance(self._shape),
            1.03 * float(np.linalg.norm(self._closed[61] - self._closed[291])),
        )
        self._added = np.zeros_like(self._shape)
        self._turn = np.zeros(3)
        if self._absolute:
            jaw = BLENDSHAPES.index("jawOpen")
            change = reference.blendshapes - person.blendshapes
            change[jaw] = 0  # lip openings are measured from contact in both
            self._added = basis.expression(change)
            self._turn = rotation_vector(reference.rotation @ self._pose.rotation.T)

    def __call__(self, motion_frame: MotionFrame, frame: Face | None = None) -> Float:
        """Retarget one motion frame.

        Args:
            motion frame: of the driver.
            frame: the person's face in a frame of the person's video, which is then warped instead of the photo: its
                position, its size and the regions that do not move are kept.

        Returns:
            [478, 3] points, in pixels of the photo or of the frame.
        """
        weights = region_weights()
        keep = sum((weights[name] for name in self._regions if name != "pose"), np.zeros(faces.NUM_POINTS))[:, None]
        pose, base = self._pose, self._shape
        if frame is not None:
            pose = head_pose(frame.points)
            own = pose.invert(frame.points)
            base = own + keep * (self._shape - own)
            if "pose" in self._regions:
                pose = replace(pose, rotation=self._pose.rotation)
        closing = (self._closed - self._shape) * min(self._strength, 1.0)
        offset = (self._amplified(motion_frame.offset + self._apart) + self._added) * self._strength
        if not self._exact:
            closing[:, 1] -= self._lifted(closing[:, 1], offset[:, 1], motion_frame)
        shape = self._with_contact(base + (closing + offset) * keep, motion_frame)
        if "pose" not in self._regions:
            return pose.apply(shape)
        turn = motion_frame.turn
        if self._absolute:
            turn = rotation_vector(rotation_matrix(turn) @ rotation_matrix(self._turn))
        turn = _reachable(turn * self._strength, self._pose, self._max_reveal)
        shift = _soft_limit(motion_frame.shift * self._strength, _MAX_SHIFT_CM)
        zoom = float(_soft_limit(np.array([motion_frame.zoom * self._strength]), _MAX_LOG_ZOOM)[0])
        points = Pose(
            rotation_matrix(turn) @ pose.rotation,
            pose.translation + shift * [1, 1, 0] * pose.scale,
            pose.scale * math.exp(zoom),
        ).apply(shape)
        return points if self._limit is None else self._limit(points)

    def _amplified(self, offset: Float) -> Float:
        """A driver's expression [478, 3] with the gains; a mouth that moves sideways is not one that widens."""
        sideways = (offset[:, 0] + offset[mirror_order()[0], 0]) / 2
        out = offset * self._gain
        out[:, 0] -= sideways * self._widening
        if not (self._exact or self._absolute):
            right, left = _CORNERS
            narrowing = float(out[right, 0] - out[left, 0]) / float(
                np.linalg.norm(self._closed[right] - self._closed[left])
            )
            share = smoothstep(narrowing, *_ROUNDED)
            # So does a smile to a wider smile.
            rest, width = (
                float(np.linalg.norm(shape[right] - shape[left])) for shape in (self._closed, self._closed + out)
            )
            knee = max(rest, _WIDENS_FREELY * self._widest)
            over = width - knee - float(_soft_limit(np.array([max(width - knee, 0.0)]), self._widest - knee, 0)[0])
            of_smile = float(self._smile[left, 0] - self._smile[right, 0])
            if over > 0 and of_smile > 0:
                share = min(over / of_smile, 1.0)
            out -= share * self._smile
            out[:, 1] += thicker_lips(self._closed, _THICKENS * max(narrowing, 0.0))
        return np.asarray(out)

    def _lifted(self, closing: Float, offset: Float, motion_frame: MotionFrame) -> Float:
        """[478] by how much a lip that a smile in the photo lifts rises again, as the driver's mouth opens.

        Args: closing, offset: [478] vertical motion that closes the photo's lips, and of the driver, centimeters.
        """
        opening = float((lip_openings(self._reference_shape + motion_frame.offset) - self._lips_rest).max())
        lowered = np.clip(closing, 0, None)
        room = lowered + self._highest - np.clip(-offset, 0, None)
        rise = np.minimum(lowered * smoothstep(opening, *_SMILE_LIFTS), room.clip(0))
        return np.asarray(rise / (1 - UPPER_LIP_SHARE))  # with_lip_openings takes that share back

    def _with_contact(self, shape: Float, motion_frame: MotionFrame) -> Float:
        """The shape [478, 3] with the driver's lip and lid openings, measured from contact."""
        driver = self._reference_shape + motion_frame.offset
        strength = self._strength
        if "lips" in self._regions:
            rest = lip_openings(self._shape) + min(strength, 1.0) * (
                lip_openings(self._closed) - lip_openings(self._shape)
            )
            opening = np.clip(lip_openings(driver) - self._lips_rest, 0, None)
            if not self._exact:
                opening = soft_lip_openings(opening)
            opening = opening * self._opening_gain * strength
            width = float(np.linalg.norm(shape[_CORNERS[0]] - shape[_CORNERS[1]])) / eye_distance(shape)
            widest = min(_MAX_OPENING * width, _WIDEST)
            largest = float(opening.max())
            shape = with_lip_openings(shape, rest + opening)
            if largest > 0:  # limit the jaw; the upper lip is not changed
                opening = opening * (float(_soft_limit(np.array([largest]), widest)[0]) / largest)
                shape = with_lip_openings(shape, rest + opening, upper_lip=0)
            if not self._exact:
                shape = with_upper_lip_below(shape, self._shape, self._highest)
                shape = with_chin_below_lip(shape, self._closed)
        if "eyes" in self._regions:
            fraction = driver_eyelid_fractions(eyelid_openings(driver), self._lids_usual, self._lids_touch)
            fraction = np.clip(1 + (fraction - 1) * strength, 0, _MAX_WIDE)
            shape = with_eyelid_openings(shape, eyelid_openings(self._shape) * fraction[:, None])
        return shape


_MAX_TURN = math.radians(40)
_MAX_REVEAL = math.radians(
    30
)  # of a frontal photo; for a turned photo, its own rotation reduces it in the same direction
_TURNED_BACK = 0.5  # share of a turned photo's own rotation that is added to the limit in the opposite direction
_MAX_SHIFT_CM = 5.0  # limited because the shoulders follow only partly
_MAX_LOG_ZOOM = math.log(1.3)
_MAX_REVEAL_EXACT = math.radians(48)  # for `mimik edit`, whose result is inspected


def _soft_limit(vector: Float, limit: float, knee: float = 0.6) -> Float:
    """The vector with its length softly limited; lengths up to this share of the limit are unchanged."""
    length = float(np.linalg.norm(vector))
    knee = knee * limit
    if length <= knee:
        return vector
    return vector * ((knee + (limit - knee) * math.tanh((length - knee) / (limit - knee))) / length)


def _reachable(turn: Float, pose: Pose, max_reveal: float = _MAX_REVEAL) -> Float:
    """The head's rotation, limited to what the photo can show.

    A turned head can turn back past frontal, because the side that the photo hides is mirrored from the other one.
    """
    yaw = math.radians(pose.degrees[0])
    turn = _soft_limit(turn, _MAX_TURN + max_reveal - _MAX_REVEAL)
    # A positive rotation about y, which points down, turns the nose to the picture's left: yaw falls.
    toward = turn[1] * math.copysign(1, yaw)
    # Both limits are equal for a frontal photo, where the sign of the yaw is noise.
    limit = max_reveal + abs(yaw) * (_TURNED_BACK if toward > 0 else 1)
    if abs(toward) > 0.6 * limit:
        turn = turn.copy()
        turn[1] = float(_soft_limit(turn[1:2], limit)[0])
    return turn


def _feature_gain(own: Float, other: Float) -> tuple[Float, Float]:
    """[478, 3] gain of the driver's motion for the person, in face frames; its part [478] for the mouth's width.

    It is the ratio of the person's feature sizes to the driver's, attenuated, because faces vary less than their
    measurements; times _ARRIVES, because a landmark detector measures less motion in a warped picture than its points
    have.
    """

    def ratio(measure: Any, exponent: float = 0.5) -> float:
        return float(np.clip(measure(own) / max(measure(other), 1e-6), 0.5, 2.0) ** exponent)

    weights = region_weights()
    mouth = ratio(lambda s: np.linalg.norm(s[_CORNERS[0]] - s[_CORNERS[1]]), _WIDTH_EXPONENT)
    gain = np.ones((faces.NUM_POINTS, 3)) + weights["lips"][:, None] * (mouth - 1)
    widening = weights["lips"] * mouth * (_ARRIVES["width"] - 1)
    gain[:, 0] += widening
    gain[:, 1] += _below_mouth(own) * mouth * (_ARRIVES["jaw"] - 1)
    sides = np.sign(canonical_mesh().vertices[:, 0])
    for upper, lower, iris, corners, brow, side in (
        (faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER, faces.RIGHT_IRIS, (33, 133), faces.RIGHT_BROW, -1),
        (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER, faces.LEFT_IRIS, (362, 263), faces.LEFT_BROW, 1),
    ):
        here = np.zeros(faces.NUM_POINTS)
        here[: faces.NUM_MESH_POINTS] = np.where(sides == 0, 0.5, sides == side)
        raised = ratio(lambda s, b=brow, e=upper: np.linalg.norm(s[b].mean(0) - s[e].mean(0))) * _ARRIVES["brows"]
        gain += (here * weights["brows"])[:, None] * (raised - 1)
        # Contact determines the lids' opening; this is their common motion with the gaze.
        gain[[*upper, *lower]] = ratio(lambda s, u=upper, v=lower: np.linalg.norm(s[u] - s[v], axis=1).sum())
        eye = ratio(lambda s, c=corners: np.linalg.norm(s[c[0]] - s[c[1]]), 1.0)
        gain[iris] = eye * np.array([_ARRIVES["gaze_x"], _ARRIVES["gaze_y"], 1.0])
    return gain, widening


def _below_mouth(shape: Float) -> Float:
    """[478] weight from 0 at the lips to 1 at the chin, by the lips' region."""
    lip, chin = shape[faces.LIPS_OUTER_LOWER[5], 1], shape[faces.CHIN, 1]
    weight = region_weights()["lips"] * np.clip((shape[:, 1] - lip) / max(chin - lip, 1e-6), 0, 1)
    weight[faces.LIPS] = 0
    return np.asarray(weight)


# A landmarker finds less movement in the moved picture than its points have. Chosen on the training set (four photos by
# six drivers, dlib's points, MediaPipe's irises; the opening by MediaPipe, four photos by four drivers).
_ARRIVES = {"brows": 1.5, "jaw": 1.5, "width": 1.25, "opening": 1.06, "gaze_x": 1.5, "gaze_y": 1.8}


# With --motion absolute, relative to the gain of the opening: a smile that drives its own photo does not open further
# than it is, and keeps its own teeth.
_ABSOLUTE_OPENING = 0.9


def _opening_gain(own: Float, other: Float) -> float:
    """Ratio of the person's lip opening to the driver's, both in eye distances."""
    widths = [float(np.linalg.norm(s[_CORNERS[0]] - s[_CORNERS[1]])) / eye_distance(s) for s in (own, other)]
    ratio = np.clip(widths[0] / max(widths[1], 1e-6), 0.5, 2.0) ** _WIDTH_EXPONENT
    return float(np.clip(ratio, 0.85, 1.15)) * _ARRIVES["opening"]


# Openings over which an upper lip returns to where the photo's smile holds it, in eye distances.
_SMILE_LIFTS = 0.05, 0.15
# How far above the photo's an upper lip may rise, in eye distances; less by this share of the opening of a photo that
# smiles with teeth (mouthSmile), so that no gums show; at least.
_HIGHEST_LIP, _LIFTED, _SMILES, _LEAST_RISE = 0.11, 0.5, (0.2, 0.8), 0.01
# Blendshapes of a smile, and the narrowing of the mouth, relative to its width, over which a photo's smile gives way to
# rounded lips; and by how much lips thicken in addition, relative to that narrowing.
_WIDENING, _ROUNDED, _THICKENS = ("mouthSmile", "mouthDimple", "mouthStretch"), (0.03, 0.2), 0.35
_WIDEST_MOUTH = 1.16  # width in eye distances; 1.09 in 99 % of 680 frames of the training set, at most 1.16
_WIDENS_FREELY = 0.93  # share of that width up to which a photo's smile does not give way
_MAX_OPENING = 0.85  # of the mouth's width
_WIDEST = 0.66  # of the distance of the eyes; at most 0.52 in 99.9 % of the frames of 40 training clips
_MAX_WIDE = 1.6  # of an eye's usual opening
_WIDTH_EXPONENT = 0.5
