"""From a driver's motion to where the points of one person's photo go: the paper's landmark adaptation.

The expression is scaled to the person's features and put, with the pose, on the person's own shape.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mimik.config import REGIONS
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Pose, canonical_mesh, head_pose
from mimik.motion.expression import Float, expression_basis
from mimik.motion.frames import Gesture, Reference, rotation_matrix, rotation_vector

_CORNERS = 61, 291


@functools.cache
def region_weights() -> dict[str, Float]:
    """[478] for each region but pose: how much of a point's movement belongs to it; the rest, up to 1, stays still."""
    mesh = canonical_mesh().vertices
    iris = [mesh[[a, b]].mean(0) for a, b in ((33, 133), (362, 263))]
    vertices = np.concatenate([mesh, np.repeat(iris, 5, axis=0)])
    jaw = [152, 148, 176, 149, 150, 377, 400, 378, 379, 18, 200, 199, 175]
    groups = {
        "lips": [*faces.LIPS, *jaw],
        "eyes": faces.EYES,
        "brows": faces.BROWS,
        "still": [10, 6, 197, 195, 127, 356, 54, 284, 67, 297, 1, 4, 5, 93, 323, 234, 454],
    }
    near = {}
    for name, index in groups.items():
        distance = np.linalg.norm(vertices[:, None] - vertices[index][None], axis=-1).min(1)
        near[name] = np.exp(-((distance / 1.6) ** 2)) + 1e-9
    total = sum(near.values())
    weights = {name: near[name] / total for name in ("lips", "eyes", "brows")}
    weights["gaze"] = np.zeros(faces.NUM_POINTS)
    weights["gaze"][faces.IRISES] = 1
    for name in ("lips", "eyes", "brows"):
        weights[name][faces.IRISES] = 0
    for name, index in (("lips", faces.LIPS), ("eyes", faces.EYES), ("brows", faces.BROWS)):
        for other in ("lips", "eyes", "brows"):
            weights[other][index] = float(other == name)
    return weights


class Retarget:
    """Puts a driver's gestures on one person's face."""

    def __init__(
        self,
        person: Face,
        reference: Reference,
        *,
        mode: str = "relative",
        regions: Sequence[str] = REGIONS,
        strength: float = 1.0,
    ) -> None:
        """Args:
        person: the face in the photo.
        reference: the driver's neutral face.
        mode: relative puts the driver's change against its neutral on the photo as it is; absolute gives the person the
            driver's own pose and expression.
        regions: what moves.
        strength: multiplies expression and head motion.
        """
        self._pose = head_pose(person.points)
        self._shape = self._pose.invert(person.points)
        self._regions = regions
        self._strength = strength
        self._absolute = mode == "absolute"
        own, other = self._shape, reference.shape
        self._gain = _feature_gain(own, other)
        self._added = np.zeros_like(own)
        self._turn = np.zeros(3)
        if self._absolute:
            basis = expression_basis()
            self._added = basis.expression(reference.blendshapes) - basis.expression(person.blendshapes)
            self._turn = rotation_vector(reference.rotation @ self._pose.rotation.T)

    def __call__(self, gesture: Gesture, frame: Face | None = None) -> Float:
        """Where the person's points go.

        Args:
            gesture: of the driver.
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
        offset = (gesture.offset * self._gain[:, None] + self._added) * keep * self._strength
        offset *= 1 - (1 - _opening_limit(base + offset)) * weights["lips"][:, None]
        shape = _without_crossings(base + offset, base)
        if "pose" not in self._regions:
            return pose.apply(shape)
        turn = gesture.turn
        if self._absolute:
            turn = rotation_vector(rotation_matrix(turn) @ rotation_matrix(self._turn))
        turn = _reachable(turn * self._strength, self._pose)
        shift = _soft_limit(gesture.shift * self._strength, _MAX_SHIFT_CM)
        zoom = float(_soft_limit(np.array([gesture.zoom * self._strength]), _MAX_LOG_ZOOM)[0])
        return Pose(
            rotation_matrix(turn) @ pose.rotation,
            pose.translation + shift * [1, 1, 0] * pose.scale,
            pose.scale * math.exp(zoom),
        ).apply(shape)


_MAX_TURN = math.radians(40)
_MAX_REVEAL = math.radians(30)  # how far a head that is turned away in the photo may be turned back, less its turn
_MAX_SHIFT_CM = 5.0  # the shoulders do not follow
_MAX_LOG_ZOOM = math.log(1.3)


def _soft_limit(vector: Float, limit: float) -> Float:
    """The vector, unchanged while short, never longer than limit."""
    length = float(np.linalg.norm(vector))
    knee = 0.6 * limit
    if length <= knee:
        return vector
    return vector * ((knee + (limit - knee) * math.tanh((length - knee) / (limit - knee))) / length)


def _reachable(turn: Float, pose: Pose) -> Float:
    """The head's turn, limited to what the photo can show.

    A head that the photo shows from one side cannot be turned back to show the other: there are no pixels of it.
    """
    yaw = math.radians(pose.degrees[0])
    turn = _soft_limit(turn, _MAX_TURN)
    # A positive rotation about y, which points down, turns the nose to the picture's left: yaw falls.
    towards = turn[1] * math.copysign(1, yaw)
    # Both limits meet at a frontal photo, whose yaw has the sign of noise.
    limit = max(_MAX_REVEAL - abs(yaw), math.radians(6)) if towards > 0 else _MAX_REVEAL + abs(yaw)
    if abs(towards) > 0.6 * limit:
        turn = turn.copy()
        turn[1] = float(_soft_limit(turn[1:2], limit)[0])
    return turn


def _feature_gain(own: Float, other: Float) -> Float:
    """[478] how much larger the person's features are than the driver's, in own frames; limited: faces vary less."""

    def ratio(measure: Any, low: float, high: float) -> float:
        return float(np.clip(measure(own) / max(measure(other), 1e-6), low, high))

    gain = np.ones(faces.NUM_POINTS)
    mouth = ratio(lambda s: np.linalg.norm(s[_CORNERS[0]] - s[_CORNERS[1]]), 0.7, 1.4)
    gain[:] = mouth
    for upper, lower, iris, corners in (
        (faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER, faces.RIGHT_IRIS, (33, 133)),
        (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER, faces.LEFT_IRIS, (362, 263)),
    ):
        # A closed eye of the driver is a closed eye of the person, however wide either was.
        opening = ratio(lambda s, u=upper, v=lower: np.linalg.norm(s[u] - s[v], axis=1).sum(), 0.4, 2.5)
        gain[[*upper, *lower]] = opening * _BLINK_GAIN
        gain[iris] = ratio(lambda s, c=corners: np.linalg.norm(s[c[0]] - s[c[1]]), 0.7, 1.4)
    for brow, eye in ((faces.RIGHT_BROW, faces.RIGHT_EYE_UPPER), (faces.LEFT_BROW, faces.LEFT_EYE_UPPER)):
        gain[brow] = ratio(lambda s, b=brow, e=eye: np.linalg.norm(s[b].mean(0) - s[e].mean(0)), 0.7, 1.4)
    return gain


def _opening_limit(shape: Float) -> float:
    """What the mouth's movement has to be multiplied with, 0..1, so that it does not open wider than mouths do."""
    gap = float((shape[faces.LIPS_INNER_LOWER, 1] - shape[faces.LIPS_INNER_UPPER, 1]).max())
    width = float(np.linalg.norm(shape[_CORNERS[0]] - shape[_CORNERS[1]]))
    if gap <= 0:
        return 1.0
    return float(np.linalg.norm(_soft_limit(np.array([gap]), _MAX_OPENING * width))) / gap


_MAX_OPENING = 0.6  # of the mouth's width: a photo that smiles and a driver who laughs would add up to more
_BLINK_GAIN = (
    1.08  # the landmarker leaves an eighth of an open eye's height in a closed one (median of 164 clips: 0.085)
)


def _without_crossings(shape: Float, photo: Float) -> Float:
    """The shape with lips and lids that would pass through each other brought to touch.

    Args:
        shape: [478, 3] own frame.
        photo: [478, 3] the same face in the photo; a mouth or an eye that is shut there may stay as shut as it is.
    """
    out = shape.copy()
    for upper, lower in (
        (faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER),
        (faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER),
        (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER),
    ):
        u, v = upper[1:-1], lower[1:-1]
        width = float(np.linalg.norm(photo[upper[0]] - photo[upper[-1]]))
        least = np.minimum(photo[v, 1] - photo[u, 1], _TOUCHING * width)
        missing = np.clip(least - (out[v, 1] - out[u, 1]), 0, None)
        out[u, 1] -= missing / 2
        out[v, 1] += missing / 2
    return out


_TOUCHING = 0.025  # of a mouth's or an eye's width: the opening that counts as shut
