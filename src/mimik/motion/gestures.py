"""From a driver's faces to where the photo's points go: the paper's landmark adaptation.

A driver's frame is split into head pose and expression, both relative to the driver's own neutral face; the expression
is scaled to the person's features and put, with the pose, on the person's own shape. Nothing of the driver's identity
is left.

Frames of reference. A face's own frame has the axes of face.Pose and centimetres of the canonical face, so that two
people can be compared; a Gesture is in own frames and knows no pixels.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.config import REGIONS, InputError, NoFaceError
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face, Pose, canonical_mesh, fit_similarity, head_pose

Float = NDArray[np.float64]

LOOKAHEAD_S = 8.0  # of a streamed driver: the neutral face is looked for in this much of its beginning
_LOSS_EASE_S = 0.5  # a lost face goes back to neutral, and a found one returns, in this time

# Cutoffs in Hz of a still face at smooth = 0.5, and how fast they rise with speed (per cm/s). The mouth must not lag.
_CUTOFF = {"pose": (1.2, 0.25), "expression": (3.0, 0.5)}


@dataclass(frozen=True)
class Reference:
    """A driver's neutral face.

    Attributes:
        shape: [478, 3] centimetres, own frame.
        rotation: [3, 3] of the head in the neutral frame.
        blendshapes: [52].
    """

    shape: Float
    rotation: Float
    blendshapes: Float


@dataclass(frozen=True)
class Gesture:
    """What a driver's face does at one instant, relative to its neutral.

    Attributes:
        turn: [3] rotation vector of the head, radians, axes of the picture.
        shift: [3] movement of the head, centimetres, axes of the picture.
        zoom: logarithm of the head's size over its neutral size.
        offset: [478, 3] movement of the points by expression and gaze, centimetres, own frame.
        blendshapes: [52].
        seen: False where the face was lost and the gesture is made up.
    """

    turn: Float
    shift: Float
    zoom: float
    offset: Float
    blendshapes: Float
    seen: bool = True

    def scaled(self, k: float) -> Gesture:
        """k times as strong; 0 is neutral."""
        return replace(self, turn=self.turn * k, shift=self.shift * k, zoom=self.zoom * k, offset=self.offset * k)


def rotation_matrix(vector: Float) -> Float:
    """[3] rotation vector in radians -> [3, 3]; Rodrigues."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-9:
        return np.eye(3)
    x, y, z = vector / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * k + (1 - math.cos(angle)) * k @ k


def rotation_vector(matrix: Float) -> Float:
    """[3, 3] rotation, less than half a turn -> [3] radians."""
    angle = math.acos(float(np.clip((np.trace(matrix) - 1) / 2, -1, 1)))
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    norm = float(np.linalg.norm(axis))
    return axis * (angle / norm) if norm > 1e-9 else np.zeros(3)


# The neutral face.

_EXPRESSIVE = {
    "jawOpen": 2.0,
    "mouthSmileLeft": 1.0,
    "mouthSmileRight": 1.0,
    "mouthPucker": 0.7,
    "mouthFunnel": 1.5,
    "mouthUpperUpLeft": 1.0,
    "mouthUpperUpRight": 1.0,
    "mouthLowerDownLeft": 1.0,
    "mouthLowerDownRight": 1.0,
    "eyeBlinkLeft": 1.5,
    "eyeBlinkRight": 1.5,
    "eyeWideLeft": 1.0,
    "eyeWideRight": 1.0,
    "eyeLookOutLeft": 0.5,
    "eyeLookOutRight": 0.5,
    "eyeLookInLeft": 0.5,
    "eyeLookInRight": 0.5,
    "browInnerUp": 0.7,
    "browDownLeft": 0.5,
    "browDownRight": 0.5,
}
_EXPRESSIVE_WEIGHTS = np.array([_EXPRESSIVE.get(name, 0.0) for name in BLENDSHAPES])


def find_neutral(driver: Sequence[Face]) -> Reference:
    """The driver's neutral face: the mean of the calmest tenth of the frames.

    Calm is little expression by the blendshapes, compared with what this face always shows, and a head near its usual
    pose.

    Args:
        driver: at least one face, in the order of the video.
    """
    shapes = np.array([f.blendshapes for f in driver], np.float64)
    poses = [head_pose(f.points) for f in driver]
    angles = np.array([p.degrees for p in poses])
    away = np.abs(angles - np.median(angles, 0)).sum(1) / 30 + np.abs(angles[:, :2]).sum(1) / 60
    usual = np.percentile(shapes, 10, axis=0)
    score = (shapes - usual).clip(0) @ _EXPRESSIVE_WEIGHTS + away
    best = np.argsort(score, kind="stable")[: max(1, min(len(driver) // 10, 15))]
    middle = poses[best[0]]
    shape = np.mean([middle.invert(_onto(driver[i].points, driver[best[0]].points)) for i in best], axis=0)
    return Reference(shape, middle.rotation, shapes[best].mean(0))


def _onto(points: NDArray[Any], other: NDArray[Any]) -> Float:
    """points [478, 3] moved rigidly so that their skull lies on that of other."""
    return faces.skull_motion(points, other).apply(points)


# Splitting a frame.


def split(frame: Face, reference: Reference, origin: Pose) -> Gesture:
    """Pose and expression of one frame, relative to the neutral face.

    Args:
        frame: the driver's face.
        reference: the same driver's neutral.
        origin: pose of the driver's neutral face in the driver's picture; shift and zoom are counted from there.
    """
    pose = fit_similarity(reference.shape[faces.SKULL], frame.points[faces.SKULL])
    offset = pose.invert(frame.points) - reference.shape
    offset -= _pose_leak(pose.rotation) - _pose_leak(reference.rotation)
    return Gesture(
        turn=rotation_vector(pose.rotation @ reference.rotation.T),
        shift=(pose.translation - origin.translation) / origin.scale,
        zoom=math.log(pose.scale / origin.scale),
        offset=offset,
        blendshapes=frame.blendshapes.astype(np.float64),
    )


@dataclass(frozen=True)
class ExpressionBasis:
    """Linear models of the points' movement, fitted to the tracks of the training corpus (tools/make_assets.py).

    Attributes:
        by_blendshape: [52, 478, 3] centimetres for a blendshape of 1: an expression without anybody's identity.
        by_pose: [5, 478, 3] what the landmarker gets wrong when the head turns, per term of pose_terms().
        neutral: [52] mean blendshapes of the clips' neutral faces.
        shape: [478, 3] mean of those faces, centimetres, own frame.
        neutral_pitch: radians, rotation about x of the mean neutral head: a camera rarely stands at eye level.
    """

    by_blendshape: Float
    by_pose: Float
    neutral: Float
    shape: Float
    neutral_pitch: float

    def expression(self, blendshapes: NDArray[Any]) -> Float:
        """[478, 3] centimetres for blendshapes [52]."""
        return np.tensordot(blendshapes, self.by_blendshape, 1)


@functools.cache
def expression_basis() -> ExpressionBasis:
    with resources.files("mimik").joinpath("assets/expression_basis.npz").open("rb") as stream:
        arrays = np.load(stream, allow_pickle=False)
        a = {name: arrays[name].astype(np.float64) for name in arrays.files}
    return ExpressionBasis(a["by_blendshape"], a["by_pose"], a["neutral"], a["shape"], float(a["neutral_pitch"]))


def pose_terms(rotation: Float) -> Float:
    """[5] yaw, pitch and their squares and product, in radians, of a head's rotation."""
    yaw, pitch, _ = np.radians(Pose(rotation, np.zeros(3), 1.0).degrees)
    return np.array([yaw, pitch, yaw * yaw, pitch * pitch, yaw * pitch])


def _pose_leak(rotation: Float) -> Float:
    return np.tensordot(pose_terms(rotation), expression_basis().by_pose, 1)


# From a stream of faces to gestures.


class OneEuro:
    """The One-Euro filter (Casiez et al. 2012) for a vector whose coordinates move together.

    The cutoff rises with the speed of the whole vector, root mean square, so that noise of single coordinates averages
    out and a shape is delayed as one.
    """

    def __init__(self, min_cutoff_hz: float, beta: float, derivative_cutoff_hz: float = 2.0) -> None:
        self._min_cutoff, self._beta, self._derivative_cutoff = min_cutoff_hz, beta, derivative_cutoff_hz
        self._value: Float | None = None
        self._speed: Float | None = None

    def __call__(self, x: Float, dt: float) -> Float:
        """The filtered value of x, measured dt seconds after the previous one."""
        if self._value is None or self._speed is None:
            self._value, self._speed = x.copy(), np.zeros_like(x)
            return self._value
        speed = (x - self._value) / dt
        self._speed = self._speed + _gain(self._derivative_cutoff, dt) * (speed - self._speed)
        cutoff = self._min_cutoff + self._beta * math.sqrt(float((self._speed**2).mean()))
        self._value = self._value + _gain(cutoff, dt) * (x - self._value)
        return self._value


def _gain(cutoff_hz: float, dt: float) -> float:
    r = 2 * math.pi * cutoff_hz * dt
    return r / (r + 1)


class Smoother:
    """One-Euro filters over gestures: pose as one vector, each feature of the face as one."""

    def __init__(self, amount: float) -> None:
        """Args: amount: 0 leaves everything as it is, 1 is calmest."""
        self._amount = amount
        self._filters: dict[str, OneEuro] = {}
        self._features = {
            "lips": np.array(sorted({*faces.LIPS, faces.CHIN})),
            "eyes": np.array([*faces.EYES, *faces.IRISES]),
        }
        rest = np.ones(faces.NUM_POINTS, bool)
        for index in self._features.values():
            rest[index] = False
        self._features["rest"] = np.flatnonzero(rest)

    def _filter(self, name: str, kind: str) -> OneEuro:
        if name not in self._filters:
            cutoff, beta = _CUTOFF[kind]
            # 0.5 is the table; towards 0 the cutoff goes to infinity, towards 1 to a fifth.
            k = (1 - self._amount) / self._amount if self._amount <= 0.5 else 1 - 1.6 * (self._amount - 0.5)
            self._filters[name] = OneEuro(cutoff * k, beta * k)
        return self._filters[name]

    def __call__(self, gesture: Gesture, dt: float) -> Gesture:
        if self._amount == 0:
            return gesture
        # One scale for the pose: 1 rad moves a point of the face by about 8 cm, 1 of log-zoom likewise.
        pose = np.concatenate([gesture.turn * 8, gesture.shift, [gesture.zoom * 8]])
        pose = self._filter("pose", "pose")(pose, dt)
        offset = np.empty_like(gesture.offset)
        for name, index in self._features.items():
            part = gesture.offset[index]
            offset[index] = self._filter(name, "expression")(part, dt)
        return replace(gesture, turn=pose[:3] / 8, shift=pose[3:6], zoom=float(pose[6]) / 8, offset=offset)


def stream_gestures(
    driver: Iterable[Face | None], fps: float, *, smooth: float = 0.5, lookahead_s: float = LOOKAHEAD_S
) -> tuple[Reference, Iterator[Gesture]]:
    """The neutral face of a driver and its gestures, one a frame, relative to it.

    The beginning of the stream is held back, as faces only, until the neutral face has been found in it. Where the face
    is lost the gesture eases to neutral and back.

    Args:
        driver: faces frame by frame, None where there is none.
        fps: of the driver.
        smooth: 0..1, see Smoother.
        lookahead_s: how much is held back; more only while there is no face at all.

    Raises:
        NoFaceError: if there is no face in the whole stream.
    """
    source = iter(driver)
    held: list[Face | None] = []
    seen: list[Face] = []
    for frame in source:
        held.append(frame)
        if frame is not None:
            seen.append(frame)
        if seen and len(held) >= lookahead_s * fps:
            break
    if not seen:
        raise NoFaceError(f"no face in any of the driver's {len(held)} frames.")
    reference = find_neutral(seen)
    origin = usual_place(seen, reference)
    raw = (None if f is None else split(f, reference, origin) for f in itertools.chain(held, source))
    return reference, smoothed(raw, fps, smooth)


def usual_place(seen: Sequence[Face], reference: Reference) -> Pose:
    """Where the driver's neutral head usually is in the driver's picture: the median place and size."""
    poses = [fit_similarity(reference.shape[faces.SKULL], f.points[faces.SKULL]) for f in seen]
    translation = np.median([p.translation for p in poses], axis=0)
    return Pose(reference.rotation, translation, float(np.median([p.scale for p in poses])))


def smoothed(gestures: Iterable[Gesture | None], fps: float, amount: float) -> Iterator[Gesture]:
    """Gestures without wobble and without gaps.

    Args:
        gestures: one a frame, None where the face was lost.
        fps: of the gestures.
        amount: 0..1, see Smoother.
    """
    steady = Steady(amount)
    for gesture in gestures:
        yield steady(gesture, 1 / fps)


class Steady:
    """Gestures without wobble and without gaps, one by one; the time between them may vary."""

    def __init__(self, amount: float) -> None:
        """Args: amount: 0..1, see Smoother."""
        self._amount = amount
        self._smoother = Smoother(amount)
        self._last: Gesture | None = None
        self._weight = 1.0  # 0: neutral, 1: the driver

    def __call__(self, gesture: Gesture | None, dt: float) -> Gesture:
        """Args: gesture: None where the face was lost; dt: seconds since the previous one."""
        step = min(dt / _LOSS_EASE_S, 1.0)
        if gesture is None:
            self._weight = max(0.0, self._weight - step)
            if self._last is None:
                self._weight = 0.0
                self._last = still()
            current = replace(self._last, seen=False)
        else:
            if self._weight == 0:
                self._smoother = Smoother(self._amount)  # what was before the gap says nothing about now
            self._weight = min(1.0, self._weight + step)
            current = self._last = self._smoother(gesture, dt)
        eased = self._weight * self._weight * (3 - 2 * self._weight)
        return current if eased == 1 else current.scaled(eased)


def still() -> Gesture:
    """What a neutral face does."""
    return Gesture(np.zeros(3), np.zeros(3), 0.0, np.zeros((faces.NUM_POINTS, 3)), np.zeros(len(BLENDSHAPES)))


def gesture_of_photo(driver: Face) -> tuple[Reference, Gesture]:
    """The gesture of a driver of whom there is one picture: against the neutral face that its blendshapes tell of.

    The head's turn is counted from the usual pose of people who face a camera.
    """
    basis = expression_basis()
    pose = head_pose(driver.points)
    offset = basis.expression(driver.blendshapes - basis.neutral)
    usual = rotation_matrix(np.array([basis.neutral_pitch, 0, 0]))
    reference = Reference(pose.invert(driver.points) - offset, usual, basis.neutral)
    turn = rotation_vector(pose.rotation @ usual.T)
    return reference, replace(still(), turn=turn, offset=offset, blendshapes=driver.blendshapes.astype(np.float64))


# From gestures to the person's points.

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


# Whole motions, and their files.


@dataclass(frozen=True)
class Motion:
    """A driver as numbers: what `mimik motion extract` writes.

    Attributes:
        name: for people.
        fps: frames a second.
        reference: the driver's neutral face.
        turn: [T, 3], shift: [T, 3], zoom: [T], offset: [T, 478, 3], blendshapes: [T, 52], seen: [T] as in Gesture.
    """

    name: str
    fps: float
    reference: Reference
    turn: Float
    shift: Float
    zoom: Float
    offset: Float
    blendshapes: Float
    seen: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.zoom)

    @property
    def duration_s(self) -> float:
        return len(self) / self.fps

    @classmethod
    def of_gestures(cls, name: str, fps: float, reference: Reference, gestures: Iterable[Gesture]) -> Motion:
        every = list(gestures)
        return cls(
            name,
            fps,
            reference,
            turn=np.array([g.turn for g in every]),
            shift=np.array([g.shift for g in every]),
            zoom=np.array([g.zoom for g in every]),
            offset=np.array([g.offset for g in every]),
            blendshapes=np.array([g.blendshapes for g in every]),
            seen=np.array([g.seen for g in every]),
        )

    def gestures(self) -> Iterator[Gesture]:
        for i in range(len(self)):
            yield Gesture(
                self.turn[i],
                self.shift[i],
                float(self.zoom[i]),
                self.offset[i],
                self.blendshapes[i],
                bool(self.seen[i]),
            )

    def at_rate(self, fps: float) -> Motion:
        """The same motion with other frames a second, interpolated linearly."""
        if abs(fps - self.fps) < 1e-6 or len(self) < 2:
            return replace(self, fps=fps) if len(self) < 2 else self
        at = np.arange(round(self.duration_s * fps)) * (self.fps / fps)
        i = np.minimum(at.astype(int), len(self) - 2)
        t = np.clip(at - i, 0, 1)

        def mix(x: Float) -> Float:
            w = t.reshape(-1, *[1] * (x.ndim - 1))
            return x[i] * (1 - w) + x[i + 1] * w

        return Motion(
            self.name,
            fps,
            self.reference,
            turn=mix(self.turn),
            shift=mix(self.shift),
            zoom=mix(self.zoom),
            offset=mix(self.offset),
            blendshapes=mix(self.blendshapes),
            seen=self.seen[i],
        )

    def save(self, path: Path) -> None:
        """Writes a .motion file: a zip of numpy arrays, a few kilobytes a second.

        The offsets are stored in the clip's own principal directions, as many as keep 99.9 % of all coordinates within
        _FILE_TOLERANCE_CM.
        """
        flat = self.offset.reshape(len(self), -1)
        _, size, directions = np.linalg.svd(flat, full_matrices=False)
        rank = 1
        while (
            rank < len(size)
            and np.percentile(np.abs(flat - (flat @ directions[:rank].T) @ directions[:rank]), 99.9)
            > _FILE_TOLERANCE_CM
        ):
            rank += max(1, rank // 8)
        directions = directions[:rank]
        pose = np.concatenate([self.turn, self.shift, self.zoom[:, None]], 1)
        header = {"format": _FILE_FORMAT, "version": 1, "name": self.name, "fps": self.fps}
        arrays = {
            "shape": self.reference.shape.astype(np.float32),
            "rotation": self.reference.rotation.astype(np.float32),
            "neutral": self.reference.blendshapes.astype(np.float16),
            "pose": pose.astype(np.float32),
            "directions": directions.astype(np.float16),
            "amounts": (flat @ directions.T).astype(np.float16),
            "blendshapes": np.round(self.blendshapes * 255).clip(0, 255).astype(np.uint8),
            "seen": self.seen,
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
            file.writestr("header.json", json.dumps(header))
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.save(buffer, np.ascontiguousarray(array.T))
                file.writestr(f"{name}.npy", buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Motion:
        """Reads a .motion file.

        Raises:
            InputError: if it is not one, is damaged, or comes from a newer version.
        """
        try:
            with zipfile.ZipFile(path) as file:
                header = json.loads(_read_member(file, "header.json"))
                if header.get("format") != _FILE_FORMAT or header.get("version") != 1:
                    raise InputError(
                        f"{path} is a motion file of another version ({header.get('version')}); extract it again with "
                        "this version: mimik motion extract VIDEO -o X.motion."
                    )
                a = {
                    name: np.load(io.BytesIO(_read_member(file, f"{name}.npy")), allow_pickle=False).T
                    for name in ("shape", "rotation", "neutral", "pose", "directions", "amounts", "blendshapes", "seen")
                }
            num_frames, rank = len(a["pose"]), len(a["directions"])
            shapes = {
                "shape": (faces.NUM_POINTS, 3),
                "rotation": (3, 3),
                "neutral": (len(BLENDSHAPES),),
                "pose": (num_frames, 7),
                "directions": (rank, faces.NUM_POINTS * 3),
                "amounts": (num_frames, rank),
                "blendshapes": (num_frames, len(BLENDSHAPES)),
                "seen": (num_frames,),
            }
            if not 0 < num_frames <= _MAX_FILE_FRAMES or any(a[name].shape != shape for name, shape in shapes.items()):
                raise ValueError("wrong shape")
            a = {name: array.astype(np.float64) for name, array in a.items()}
            motion = cls(
                str(header["name"]),
                float(header["fps"]),
                Reference(a["shape"], a["rotation"], a["neutral"]),
                turn=a["pose"][:, :3],
                shift=a["pose"][:, 3:6],
                zoom=a["pose"][:, 6],
                offset=(a["amounts"] @ a["directions"]).reshape(num_frames, faces.NUM_POINTS, 3),
                blendshapes=a["blendshapes"] / 255,
                seen=a["seen"].astype(bool),
            )
            finite = all(np.isfinite(array).all() for array in a.values()) and np.isfinite(motion.offset).all()
            upright = np.allclose(a["rotation"] @ a["rotation"].T, np.eye(3), atol=1e-3)
            if not (finite and upright and 0 < motion.fps <= 1000):
                raise ValueError("out of range")
        except InputError:
            raise
        except (
            *(zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError),
            *(LookupError, TypeError, AttributeError, ValueError, NotImplementedError, RuntimeError),
            *(ArithmeticError, MemoryError),
        ) as error:
            raise _not_a_motion(path) from error
        return motion


def _read_member(file: zipfile.ZipFile, name: str) -> bytes:
    """One file of the zip; a small zip can unpack to more than fits into memory."""
    if file.getinfo(name).file_size > _MAX_MEMBER_BYTES:
        raise ValueError(f"{name} is too large")
    return file.read(name)


def _not_a_motion(path: Path) -> InputError:
    return InputError(
        f"{path} is not a readable motion file; give one that `mimik motion extract VIDEO -o X.motion` wrote, or the "
        f"name of a bundled one: {', '.join(bundled_motions())}."
    )


_FILE_FORMAT = "mimik motion"
_FILE_TOLERANCE_CM = 0.06
_MAX_FILE_FRAMES = 200_000  # two hours: 2 GB once unpacked
_MAX_MEMBER_BYTES = 64 << 20


def bundled_motions() -> dict[str, Path]:
    """Names of the motions that come with the program, and their files."""
    folder = Path(str(resources.files("mimik").joinpath("assets/motions")))
    return {path.stem: path for path in sorted(folder.glob("*.motion"))}
