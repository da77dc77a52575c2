"""Motion frames: pose and expression of one time step, relative to the driver's neutral face.

Because both are relative to the driver's own neutral face, they do not contain the driver's identity.

Coordinates: the face frame has the axes of face.Pose and the unit of the canonical face (centimeters), so that people
can be compared. MotionFrames are in face frames and independent of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face, Pose, fit_similarity
from mimik.motion.expression import Float, pose_leak

# Point about which a head turns, in the picture's axes from the origin of its face frame: fitted to the positions of
# the head in 265 turned frames of 103 training clips (robust least squares; mean distance 1.5 cm without, 1.2 cm with).
NECK_CM = np.array([0.0, 6.1, 3.9])
EYELIDS_TOUCH = 0.085  # detected opening of closed eyelids, relative to the usual opening: median of 164 clips


@dataclass(frozen=True)
class Reference:
    """A driver's neutral reference."""

    shape: Float  # [478, 3] centimeters, own frame
    rotation: Float  # [3, 3] of the head in the neutral frame
    blendshapes: Float  # [52]
    # [52] persistent expression of the driver, as blendshapes; it is subtracted from shape and blendshapes
    lasting: Float = field(default_factory=lambda: np.zeros(len(BLENDSHAPES)))
    # detected opening of closed eyelids, right and left, relative to that of shape
    eyelids_touch: tuple[float, float] = (EYELIDS_TOUCH, EYELIDS_TOUCH)
    note: str = ""  # for the user: the frames used as neutral, and what was missing


@dataclass(frozen=True)
class MotionFrame:
    """Pose and expression of a driver at one time step, relative to its neutral reference."""

    turn: Float  # [3] rotation vector of the head, radians, axes of the picture
    shift: Float  # [3] movement of the head, centimeters, axes of the picture
    zoom: float  # logarithm of the head's size over its neutral size
    offset: Float  # [478, 3] movement of the points by expression and gaze, centimeters, own frame
    blendshapes: Float  # [52]
    seen: bool = True  # False if the face was lost and the motion frame is interpolated

    def scaled(self, k: float) -> MotionFrame:
        """k times as strong; 0 is neutral."""
        return replace(self, turn=self.turn * k, shift=self.shift * k, zoom=self.zoom * k, offset=self.offset * k)


def still() -> MotionFrame:
    """What a neutral face does."""
    return MotionFrame(np.zeros(3), np.zeros(3), 0.0, np.zeros((faces.NUM_POINTS, 3)), np.zeros(len(BLENDSHAPES)))


def shift_of_turn(turn: Float) -> Float:
    """[3] shift of the head, centimeters, if it turns about the neck; turn: [3, 3] rotation in the picture's axes."""
    return NECK_CM - turn @ NECK_CM


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


def split(frame: Face, reference: Reference, origin: Pose) -> MotionFrame:
    """Pose and expression of one frame, relative to the neutral reference.

    Args:
        frame: the driver's face.
        reference: the same driver's neutral reference.
        origin: pose of the driver's neutral face in the driver's picture; shift and zoom are relative to it.
    """
    pose = fit_similarity(reference.shape[faces.SKULL], frame.points[faces.SKULL])
    offset = pose.invert(frame.points) - reference.shape
    offset -= pose_leak(pose.rotation) - pose_leak(reference.rotation)
    return MotionFrame(
        turn=rotation_vector(pose.rotation @ reference.rotation.T),
        shift=(pose.translation - origin.translation) / origin.scale,
        zoom=math.log(pose.scale / origin.scale),
        offset=offset,
        blendshapes=frame.blendshapes.astype(np.float64),
    )
