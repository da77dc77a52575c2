"""From a driver's motion to where the points of one person's photo go: the paper's landmark adaptation.

The expression is scaled to the person's features and put, with the pose, on the person's own shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mimik.config import REGIONS
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face, Pose, canonical_mesh, head_pose
from mimik.motion.contact import (
    closed_mouth,
    driver_eyelid_fractions,
    eye_distance,
    eyelid_openings,
    lip_openings,
    soft_lip_openings,
    with_chin_below_lip,
    with_eyelid_openings,
    with_lip_openings,
)
from mimik.motion.expression import Float, expression_basis
from mimik.motion.frames import MotionFrame, Reference, rotation_matrix, rotation_vector
from mimik.motion.regions import region_weights

_CORNERS = 61, 291


class Retarget:
    """Puts a driver's motion frames on one person's face."""

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
        reference: the driver's neutral face.
        mode: relative puts the driver's change against its neutral on the photo as it is; absolute gives the person the
            driver's own pose and expression.
        regions: what moves.
        strength: multiplies expression and head motion.
        exact: the driver is the person: every movement is taken as it is given, and the head turns further.
        limit: moves the points [478, 3] of a frame back to where the photo has all that they would show.
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
        self._gain = np.ones((faces.NUM_POINTS, 3)) if exact else _feature_gain(self._closed, other)
        self._opening_gain = 1.0 if exact else _opening_gain(self._closed, other)
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
        self._added = np.zeros_like(self._shape)
        self._turn = np.zeros(3)
        if self._absolute:
            jaw = BLENDSHAPES.index("jawOpen")
            change = reference.blendshapes - person.blendshapes
            change[jaw] = 0  # lips count from contact in both
            self._added = basis.expression(change)
            self._turn = rotation_vector(reference.rotation @ self._pose.rotation.T)

    def __call__(self, motion_frame: MotionFrame, frame: Face | None = None) -> Float:
        """Where the person's points go.

        Args:
            motion frame: of the driver.
            frame: the person's face in the picture that is moved, when that is not the photo but a frame of a video:
                its place, its size and what is not in the regions stay as they are there.

        Returns:
            [478, 3] pixels of the photo, or of the frame.
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
        offset = (motion_frame.offset + self._apart) * self._gain + self._added
        shape = self._with_contact(base + (closing + offset * self._strength) * keep, motion_frame)
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

    def _with_contact(self, shape: Float, motion_frame: MotionFrame) -> Float:
        """The shape [478, 3] with lips and lids as far apart as the driver's, counted from contact."""
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
            if largest > 0:  # a jaw that opens too far is held; the upper lip stays where it is
                opening = opening * (float(_soft_limit(np.array([largest]), widest)[0]) / largest)
                shape = with_lip_openings(shape, rest + opening, upper_lip=0)
            if not self._exact:
                shape = with_chin_below_lip(shape, self._closed)
        if "eyes" in self._regions:
            fraction = driver_eyelid_fractions(eyelid_openings(driver), self._lids_usual, self._lids_touch)
            fraction = np.clip(1 + (fraction - 1) * strength, 0, _MAX_WIDE)
            shape = with_eyelid_openings(shape, eyelid_openings(self._shape) * fraction[:, None])
        return shape


_MAX_TURN = math.radians(40)
_MAX_REVEAL = math.radians(30)  # how far a frontal head turns; further away from a turned one, by its own turn
_TURNED_BACK = 0.5  # of a turned photo's own turn is added to how far it is turned back, to its other side
_MAX_SHIFT_CM = 5.0  # the shoulders do not follow
_MAX_LOG_ZOOM = math.log(1.3)
_MAX_REVEAL_EXACT = math.radians(48)  # where one picture is made, and looked at


def _soft_limit(vector: Float, limit: float) -> Float:
    """The vector, unchanged while short, never longer than limit."""
    length = float(np.linalg.norm(vector))
    knee = 0.6 * limit
    if length <= knee:
        return vector
    return vector * ((knee + (limit - knee) * math.tanh((length - knee) / (limit - knee))) / length)


def _reachable(turn: Float, pose: Pose, max_reveal: float = _MAX_REVEAL) -> Float:
    """The head's turn, limited to what the photo can show.

    What the photo hides of a head that is turned is taken from the other side when it is turned back.
    """
    yaw = math.radians(pose.degrees[0])
    turn = _soft_limit(turn, _MAX_TURN + max_reveal - _MAX_REVEAL)
    # A positive rotation about y, which points down, turns the nose to the picture's left: yaw falls.
    toward = turn[1] * math.copysign(1, yaw)
    # Both limits meet at a frontal photo, whose yaw has the sign of noise.
    limit = max_reveal + abs(yaw) * (_TURNED_BACK if toward > 0 else 1)
    if abs(toward) > 0.6 * limit:
        turn = turn.copy()
        turn[1] = float(_soft_limit(turn[1:2], limit)[0])
    return turn


def _feature_gain(own: Float, other: Float) -> Float:
    """[478, 3] what the driver's movement is multiplied with for the person, in own frames.

    How much larger the person's features are than the driver's, limited, because faces vary less than their measures;
    and _ARRIVES, where the picture of a moved face shows less than its points do.
    """

    def ratio(measure: Any, exponent: float = 0.5) -> float:
        return float(np.clip(measure(own) / max(measure(other), 1e-6), 0.5, 2.0) ** exponent)

    weights = region_weights()
    mouth = ratio(lambda s: np.linalg.norm(s[_CORNERS[0]] - s[_CORNERS[1]]), _WIDTH_EXPONENT)
    gain = np.ones((faces.NUM_POINTS, 3)) + weights["lips"][:, None] * (mouth - 1)
    gain[:, 0] += weights["lips"] * mouth * (_ARRIVES["width"] - 1)
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
        # The lids' opening is set by contact; this is how far both follow the gaze.
        gain[[*upper, *lower]] = ratio(lambda s, u=upper, v=lower: np.linalg.norm(s[u] - s[v], axis=1).sum())
        eye = ratio(lambda s, c=corners: np.linalg.norm(s[c[0]] - s[c[1]]), 1.0)
        gain[iris] = eye * np.array([_ARRIVES["gaze_x"], _ARRIVES["gaze_y"], 1.0])
    return gain


def _below_mouth(shape: Float) -> Float:
    """[478] 0 at the lips, 1 at the chin, by the lips' region."""
    lip, chin = shape[faces.LIPS_OUTER_LOWER[5], 1], shape[faces.CHIN, 1]
    weight = region_weights()["lips"] * np.clip((shape[:, 1] - lip) / max(chin - lip, 1e-6), 0, 1)
    weight[faces.LIPS] = 0
    return np.asarray(weight)


# A landmarker finds less movement in the moved picture than its points have, and opens the lips wider. Chosen on the
# training set (four photos by six drivers, dlib's points, MediaPipe's irises).
_ARRIVES = {"brows": 1.5, "jaw": 1.5, "width": 1.35, "opening": 0.96, "gaze_x": 1.5, "gaze_y": 1.8}


def _opening_gain(own: Float, other: Float) -> float:
    """How much wider than the driver's the person's mouth opens, in distances of the eyes."""
    widths = [float(np.linalg.norm(s[_CORNERS[0]] - s[_CORNERS[1]])) / eye_distance(s) for s in (own, other)]
    ratio = np.clip(widths[0] / max(widths[1], 1e-6), 0.5, 2.0) ** _WIDTH_EXPONENT
    return float(np.clip(ratio, 0.85, 1.15)) * _ARRIVES["opening"]


_MAX_OPENING = 0.85  # of the mouth's width
_WIDEST = 0.66  # of the distance of the eyes; at most 0.52 in 99.9 % of the frames of 40 training clips
_MAX_WIDE = 1.6  # of an eye's usual opening
_WIDTH_EXPONENT = 0.5
