"""OpenSeeFace: binary packets of a webcam's tracker, and of VSeeFace, which sends the same.

Each face is 1785 bytes, little-endian: time (float64), face (int32), width and height of the camera's picture, how open
the right and the left eye are (float32 each), whether it was fitted (one byte), an error, a quaternion, three angles, a
translation, then 68 confidences, 68 points (x, y), 70 points in space, and 14 features (float32 each).

The head's pose is taken from the 68 points, whose axes are those of the picture, and not from its angles, whose zero
differs between versions.
"""

from __future__ import annotations

import struct

import numpy as np

from mimik.face.landmarks import BLENDSHAPES, POINTS_68, Pose, canonical_mesh
from mimik.motion.drivers.stream import Sample, head_angles

FACE_BYTES = 1785
_POINTS_AT, _FEATURES_AT = 345, 1729
_FEATURES = (
    *("eye_l", "eye_r", "steepness_l", "brow_l", "quirk_l", "steepness_r", "brow_r", "quirk_r"),
    *("corner_up_l", "corner_in_l", "corner_up_r", "corner_in_r", "open", "wide"),
)
# Points of the 68 that stay where they are on the skull: bridge of the nose, below it, corners of the eyes.
_RIGID_POINTS = [27, 28, 29, 30, 31, 33, 35, 36, 39, 42, 45]


class OpenSeeFace:
    """Reads packets of OpenSeeFace; the first face of each counts."""

    def __call__(self, packet: bytes, arrived_s: float) -> Sample:
        """A packet as a sample. Raises ValueError, saying what is wrong with it."""
        if not packet or len(packet) % FACE_BYTES:
            raise ValueError("is not a packet of OpenSeeFace")
        time_s, _, _, _, right_open, left_open, fitted = struct.unpack_from("<diffffB", packet, 0)
        points = np.frombuffer(packet, "<f4", 2 * 68, _POINTS_AT).reshape(68, 2).astype(np.float64)
        features = np.frombuffer(packet, "<f4", len(_FEATURES), _FEATURES_AT)
        everything = np.array([time_s, right_open, left_open, *points.ravel(), *features])
        if not np.isfinite(everything).all():
            raise ValueError("has a value that is not a number")
        if not fitted:
            return Sample(time_s, np.zeros(len(BLENDSHAPES)), np.zeros(6), seen=False)
        known = dict(zip(_FEATURES, features, strict=True))
        yaw, pitch, roll = head_angles(pose_of_68(points).rotation)
        head = np.array([np.clip(yaw, -90, 90), np.clip(pitch, -90, 90), roll, 0, 0, 0])
        return Sample(time_s, _blendshapes(known, right_open, left_open), head)


def pose_of_68(points: np.ndarray) -> Pose:
    """Pose of the canonical face that fits points [68, 2] of a picture best, seen from far away."""
    shape = canonical_mesh().vertices[[POINTS_68[i] for i in _RIGID_POINTS]]
    seen = points[_RIGID_POINTS]
    shape, seen = shape - shape.mean(0), seen - seen.mean(0)
    rows = np.linalg.lstsq(shape, seen, rcond=None)[0].T  # [2, 3], the first two rows of the rotation, scaled
    scale = float(np.linalg.norm(rows, axis=1).mean())
    u, _, vt = np.linalg.svd(rows, full_matrices=False)
    first, second = u @ vt
    return Pose(np.stack([first, second, np.cross(first, second)]), np.zeros(3), scale)


def _blendshapes(known: dict[str, float], right_open: float, left_open: float) -> np.ndarray:
    """[52] the blendshapes that say what the features say."""
    out = np.zeros(len(BLENDSHAPES))

    def put(name: str, value: float) -> None:
        out[BLENDSHAPES.index(name)] = np.clip(value, 0, 1)

    put("jawOpen", 0.6 * known["open"])
    put("mouthPucker", -known["wide"])
    for side, letter, eye in (("Left", "l", left_open), ("Right", "r", right_open)):
        put(f"eyeBlink{side}", 1 - eye)
        put(f"mouthStretch{side}", known["wide"])
        put(f"mouthSmile{side}", known[f"corner_up_{letter}"])
        put(f"mouthFrown{side}", -known[f"corner_up_{letter}"])
        put(f"browOuterUp{side}", known[f"brow_{letter}"])
        put(f"browDown{side}", -known[f"brow_{letter}"])
    put("browInnerUp", (known["brow_l"] + known["brow_r"]) / 2)
    return out
