"""The opening between a frame's lips, and the positions of skull and jaw behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import smoothstep
from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Pose, head_pose
from mimik.rendering.layers.arch import Anatomy
from mimik.rendering.layers.teeth import TeethSet

_SHOWN_GAP = 0.06, 0.10  # gap of the lips / width of the mouth in the photo, over which its interior counts as visible
_PARTED_MM = 0.2, 1.5  # increase of the gap over the photo's, over which the opacity of the interior rises from 0 to 1
# Difference of the gap from an open-mouth photo's, over which the drawn interior replaces the photo's.
_CHANGED_MM = 0.5, 3.0


@dataclass(frozen=True)
class Opening:
    """The opening between a frame's lips. Positions are in units of the crop's side.

    Attributes:
        upper: [11, 2] inner contour of the upper lip, corner to corner.
        lower: [11, 2] inner contour of the lower lip.
        skull: maps the canonical face to the frame.
        drop_mm: distance of the lower incisors below their bite position.
        parted: 0..1; opacity of the interior, which fades in as the lips part.
        changed: 0..1; weight of the drawn interior: 0 keeps the photo's.
    """

    upper: Array
    lower: Array
    skull: Pose
    drop_mm: float
    parted: float
    changed: float


class Jaws:
    """Computes the openings of one person's mouth; prepared once per photo.

    Attributes:
        anatomy: position of the teeth.
        skull: maps the canonical face to the photo, units of the crop's side.
        shows: 0..1; how far the photo shows the interior of the mouth.
        gap_mm: largest distance between the lips in the photo.
        points: [478, 3] face points of the photo.
        teeth: used if the photo does not show any; None: the shipped set with the most similar lighting.
    """

    def __init__(self, points: NDArray[np.float64], teeth: TeethSet | None = None) -> None:
        """Args: points: [478, 3] face points of the photo, units of the crop's side; teeth: see the attribute."""
        self.points, self.teeth = points, teeth
        self.anatomy = Anatomy.of(points)
        self.skull = head_pose(points)
        self._own_gap = _gaps(points)
        self.gap_mm = float(self._own_gap.max()) / (self.skull.scale * self.anatomy.mm)
        width = float(np.linalg.norm(points[face.LIPS_INNER_UPPER[0], :2] - points[face.LIPS_INNER_UPPER[-1], :2]))
        self.shows = float(smoothstep(self._own_gap.max() / max(width, 1e-9), *_SHOWN_GAP))

    def opening(self, goal: NDArray[np.float64], motion: Pose) -> Opening | None:
        """The opening of a frame; None if the interior need not be drawn.

        Args:
            goal: [478+, 3] face points of the frame.
            motion: of the skull, from the photo to the frame.
        """
        pose = motion.after(self.skull)
        mm = pose.scale * self.anatomy.mm
        gap, own = _gaps(goal), self._own_gap * motion.scale
        # The warp would squeeze the interior of an open-mouth photo between closing lips, so it is always covered.
        parted = max(self.shows, float(smoothstep((gap - own).max() / mm, *_PARTED_MM)))
        changed = float(smoothstep(np.abs(gap - own).max() / mm, *_CHANGED_MM))
        changed = 1 - self.shows * (1 - changed)
        if parted <= 0 or changed <= 0:
            return None
        upper, lower = (goal[line, :2].astype(np.float32) for line in (face.LIPS_INNER_UPPER, face.LIPS_INNER_LOWER))
        return Opening(upper, lower, pose, self.anatomy.jaw_drop(goal, pose), parted, changed)

    def px_per_mm(self, opening: Opening, side: float) -> float:
        """Resolution at the incisors; side: of the crop, in pixels."""
        return opening.skull.scale * side * self.anatomy.mm

    def in_photo(self) -> Opening:
        """The opening of the photo itself."""
        upper, lower = (
            self.points[line, :2].astype(np.float32) for line in (face.LIPS_INNER_UPPER, face.LIPS_INNER_LOWER)
        )
        return Opening(upper, lower, self.skull, self.anatomy.open_mm, 1.0, 0.0)


def _gaps(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """[11] distances between the inner contours of the lips."""
    return np.linalg.norm(points[face.LIPS_INNER_LOWER, :2] - points[face.LIPS_INNER_UPPER, :2], axis=1)
