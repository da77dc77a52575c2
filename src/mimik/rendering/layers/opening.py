"""How far a frame's lips are open, and where skull and jaw are behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import smoothstep
from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Pose, head_pose
from mimik.rendering.layers.arch import Anatomy
from mimik.rendering.layers.teeth import TeethSet

_SHOWN_GAP = 0.06, 0.10  # the lips' gap over the mouth's width: from the second on the photo shows what is inside
_PARTED_MM = 0.2, 1.5  # lips that are this much farther apart than the closed ones of the photo: nothing, all
_CHANGED_MM = 0.5, 3.0  # of a mouth that is open in the photo: as open as there, differently


@dataclass(frozen=True)
class Opening:
    """The opening that a frame's lips leave. Places are in units of the crop's side.

    Attributes:
        upper: [11, 2] the upper lip's inner edge, corner to corner.
        lower: [11, 2] the lower lip's.
        skull: takes the canonical face to the frame.
        drop_mm: how far the lower incisors are below where they bite.
        parted: 0..1; how much of what is inside is drawn, for a soft beginning.
        changed: 0..1; how differently from the photo the mouth is open: 0 keeps what the photo shows inside.
    """

    upper: Array
    lower: Array
    skull: Pose
    drop_mm: float
    parted: float
    changed: float


class Jaws:
    """Finds openings of one person: prepared once for a photo.

    Attributes:
        anatomy: where the teeth are.
        skull: takes the canonical face to the photo, units of the crop's side.
        shows: 0..1; how much of the inside the photo shows.
        points: [478, 3] the face in the photo.
        teeth: where the photo shows none; None: the shipped set whose picture was lit most like the photo.
    """

    def __init__(self, points: NDArray[np.float64], teeth: TeethSet | None = None) -> None:
        """Args: points: [478, 3] of the face in the photo, units of the crop's side; teeth: see the attribute."""
        self.points, self.teeth = points, teeth
        self.anatomy = Anatomy.of(points)
        self.skull = head_pose(points)
        self._own_gap = _gaps(points)
        width = float(np.linalg.norm(points[face.LIPS_INNER_UPPER[0], :2] - points[face.LIPS_INNER_UPPER[-1], :2]))
        self.shows = float(smoothstep(self._own_gap.max() / max(width, 1e-9), *_SHOWN_GAP))

    def opening(self, goal: NDArray[np.float64], motion: Pose) -> Opening | None:
        """The opening of a frame, None if nothing of the inside has to be drawn.

        Args:
            goal: [478+, 3] the face in the frame.
            motion: takes the skull of the photo to that of the frame.
        """
        pose = Pose(
            motion.rotation @ self.skull.rotation,
            motion.apply(self.skull.translation),
            motion.scale * self.skull.scale,
        )
        mm = pose.scale * self.anatomy.mm
        gap, own = _gaps(goal), self._own_gap * motion.scale
        # What a photo with an open mouth shows inside would be squeezed between closed lips: it is always covered.
        parted = max(self.shows, float(smoothstep((gap - own).max() / mm, *_PARTED_MM)))
        changed = float(smoothstep(np.abs(gap - own).max() / mm, *_CHANGED_MM))
        changed = 1 - self.shows * (1 - changed)
        if parted <= 0 or changed <= 0:
            return None
        upper, lower = (goal[line, :2].astype(np.float32) for line in (face.LIPS_INNER_UPPER, face.LIPS_INNER_LOWER))
        return Opening(upper, lower, pose, self.anatomy.jaw_drop(goal, pose), parted, changed)

    def px_per_mm(self, opening: Opening, side: float) -> float:
        """Pixels that a millimeter of the incisors has; side: of the crop, in pixels."""
        return opening.skull.scale * side * self.anatomy.mm

    def in_photo(self) -> Opening:
        """The opening of the photo itself."""
        upper, lower = (
            self.points[line, :2].astype(np.float32) for line in (face.LIPS_INNER_UPPER, face.LIPS_INNER_LOWER)
        )
        return Opening(upper, lower, self.skull, self.anatomy.open_mm, 1.0, 0.0)


def _gaps(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """[11] distances of the lips' inner edges."""
    return np.linalg.norm(points[face.LIPS_INNER_LOWER, :2] - points[face.LIPS_INNER_UPPER, :2], axis=1)
