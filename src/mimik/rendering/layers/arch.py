"""The dental arches in three dimensions: where they sit in a head, and where a pixel of a frame lies on them.

Both arches are walls: a curve seen from above, continued straight up and down. On a wall a place is (u, v): millimeters
along the curve from the midline, positive to the picture's right, and millimeters down from the incisal edge. Under a
weak perspective the verticals of a wall stay parallel in the picture, so a pixel's place is found with two tables
instead of a rasterizer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import ramp
from mimik.face.landmarks import Array, Pose, head_pose

IPD_MM = 62.0  # adults' mean distance between the pupils; all sizes here are relative to it (Dodgson 2004: 63)
UPPER_CURVE_MM = 34.0  # 2 p of the parabola: canines 17 mm from the midline lie 8.5 mm behind the incisors
LOWER_CURVE_MM = 32.0
HALF_WIDTH_MM = 31.0  # of the arch behind its second molars
OVERJET_MM = 2.5  # the lower incisors lie this far behind the upper ones
OVERBITE_MM = 2.0  # and reach this far above their edge when the jaw is shut
EDGE_BELOW_LIP_MM = 1.5  # the upper incisors' edge below the resting upper lip
BEHIND_LIPS_MM = 4.0  # the incisors' front behind the line where the lips meet
_OCCLUSAL = 0.16  # tangent: the plane in which the teeth meet falls to the front by some 9 degrees
_LIP_LENGTH_MM = 20.0  # from the nose's base to the resting upper lip
_LIFT = 0.5  # of what an upper lip in the photo is shorter than that: how much of it is a smile that lifts the lip
_CAMERA_MM = 700.0  # from the lens to the mouth
# cm in the canonical face: the line that the opening jaw turns about. The condyles slide forward as it opens, so that
# it lies below them, at the height of the jaw's angle (Grant 1973).
_HINGE = np.array([0.0, 3.5, 1.0])
_BITE = np.array([0, -OVERBITE_MM, OVERJET_MM])  # from the upper incisors' edge to the lower ones', mm
_NUM_COLUMNS = 121
_MIN_TURN = 0.12  # px along the picture a px along the wall: a wall seen more obliquely than this is left out


@dataclass(frozen=True)
class Anatomy:
    """Where the teeth sit in one person's head, in the frame of the canonical face (Pose's axes, centimeters).

    Attributes:
        edge: [3] the midpoint of the upper incisors' edge.
        mm: one millimeter of this person, in units of the frame.
        chin: [3] the chin's place in the photo.
        open_mm: how far the jaw is open in the photo.
    """

    edge: NDArray[np.float64]
    mm: float
    chin: NDArray[np.float64]
    open_mm: float

    @classmethod
    def of(cls, points: NDArray[Any]) -> Anatomy:
        """From the face's points [478, 3] in the photo, in any unit."""
        own = head_pose(points).invert(points)
        right, left = own[[33, 133]].mean(0), own[[362, 263]].mean(0)
        mm = float(np.linalg.norm(left - right)) / IPD_MM
        upper, lower, nose = own[13], own[14], own[2]
        gap = max(float(lower[1] - upper[1]) / mm, 0.0)
        length = float(upper[1] - nose[1]) / mm
        # The lip of a closed mouth rests; that of an open one may be lifted by a smile.
        parted = float(ramp(gap, 2, 6))
        lifted = parted * _LIFT * max(_LIP_LENGTH_MM - length, 0.0)
        meet = upper if parted > 0 else (upper + lower) / 2
        edge = np.array([(nose[0] + upper[0]) / 2, meet[1], (upper[2] + lower[2]) / 2])
        edge += np.array([0, lifted + EDGE_BELOW_LIP_MM, BEHIND_LIPS_MM]) * mm
        return cls(edge, mm, own[_CHIN].mean(0), parted * max(gap - 6, 0.0))

    def jaw_drop(self, points: NDArray[Any], pose: Pose) -> float:
        """How far the lower incisors are below where they bite, in millimeters.

        Args:
            points: [478, 3] of the face in a frame.
            pose: of the canonical face there.
        """
        own = pose.invert(points)
        drop = self.open_mm + float(own[_CHIN, 1].mean() - self.chin[1]) / self.mm
        # The lower lip is seen well, and hides most of the lower teeth.
        down = pose.scale * pose.rotation[:2, 1]
        bite = pose.apply(self.edge + self.mm * _BITE)[:2]
        lip = float((points[14, :2] - bite) @ down / max(float(down @ down), 1e-9)) / self.mm
        return max(float(np.clip(drop, lip - _LOWER_SEEN_MM[1], lip - _LOWER_SEEN_MM[0])), 0.0)


_CHIN = [152, 175, 199, 148, 377]
_LOWER_SEEN_MM = 0.5, 5.0  # how much of the lower incisors the lower lip leaves to be seen


@functools.cache
def _curve(two_p: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """x, z and arc length u in millimeters, [_NUM_COLUMNS] each, of the parabola z = x^2 / two_p."""
    x = np.linspace(-HALF_WIDTH_MM, HALF_WIDTH_MM, _NUM_COLUMNS)
    z = x * x / two_p
    step = np.hypot(np.diff(x), np.diff(z))
    u = np.concatenate([[0.0], np.cumsum(step)])
    return x, z, u - u[_NUM_COLUMNS // 2]


@dataclass(frozen=True)
class Wall:
    """One arch as a frame shows it.

    Attributes:
        across: [2] unit vector in the picture, across the wall's verticals.
        along: [2] unit vector down the verticals.
        at: [K] where its columns lie along `across`, increasing, in pixels.
        u: [K] the columns' arc lengths, mm.
        top: [K] where v is 0, along `along`, in pixels.
        px_per_mm: [K] of v.
        facing: [K] 0..1, how much the wall is turned to the viewer there.
    """

    across: NDArray[np.float64]
    along: NDArray[np.float64]
    at: NDArray[np.float64]
    u: NDArray[np.float64]
    top: NDArray[np.float64]
    px_per_mm: NDArray[np.float64]
    facing: NDArray[np.float64]

    def find(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[Array, Array, Array]:
        """u, v and facing at pixels x [W], y [H], float32 [H, W] each; facing is 0 beside the wall."""
        q = (self.across[0] * x[None] + self.across[1] * y[:, None]).astype(np.float32)
        down = (self.along[0] * x[None] + self.along[1] * y[:, None]).astype(np.float32)
        # One uniform table, read linearly: the columns are not evenly spaced in the picture.
        count = 4 * len(self.at)
        step = (self.at[-1] - self.at[0]) / (count - 1)
        even = self.at[0] + step * np.arange(count)
        table = np.stack(
            [np.interp(even, self.at, row) for row in (self.u, self.top, 1 / self.px_per_mm, self.facing)], -1
        ).astype(np.float32)
        where = (q - np.float32(self.at[0])) / np.float32(step)
        found = cv2.remap(table[None], where, np.zeros_like(where), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        facing = found[..., 3] * ((where >= 0) & (where <= count - 1))
        return found[..., 0], (down - found[..., 1]) * found[..., 2], facing

    def place(self, u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.float64]:
        """Pixels [..., 2] of places on the wall; beyond its visible columns the nearest one's."""
        q, top, k = (np.interp(u, self.u, row) for row in (self.at, self.top, self.px_per_mm))
        return q[..., None] * self.across + (top + k * v)[..., None] * self.along


def upper_wall(anatomy: Anatomy, pose: Pose) -> Wall:
    """The upper arch, rigid with the skull; pose: of the canonical face in the frame."""
    return _wall(anatomy, pose, np.eye(3), anatomy.edge, UPPER_CURVE_MM)


def lower_wall(anatomy: Anatomy, pose: Pose, drop_mm: float) -> Wall:
    """The lower arch, which turns with the jaw about the hinge; drop_mm: of its incisors, below where they bite."""
    bite = anatomy.edge + anatomy.mm * _BITE
    arm = bite - _HINGE
    length = float(np.hypot(arm[1], arm[2]))
    angle = np.arcsin(min((arm[1] + drop_mm * anatomy.mm) / length, 0.99)) - np.arcsin(arm[1] / length)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])  # from -z, the front, toward y, down
    return _wall(anatomy, pose, turn, _HINGE + turn @ arm, LOWER_CURVE_MM)


def _wall(anatomy: Anatomy, pose: Pose, turn: NDArray[np.float64], edge: NDArray[np.float64], two_p: float) -> Wall:
    x, z, u = _curve(two_p)
    mm = anatomy.mm
    points = edge + mm * np.stack([x, -_OCCLUSAL * z, z], 1) @ turn.T
    placed = pose.apply(points)
    middle = placed[_NUM_COLUMNS // 2]
    # Weak perspective: what lies farther back is smaller, by its distance from the incisors.
    nearer = 1 / (1 + (placed[:, 2] - middle[2]) / (_CAMERA_MM * mm * pose.scale))
    flat = middle[:2] + (placed[:, :2] - middle[:2]) * nearer[:, None]
    axis = pose.scale * mm * (pose.rotation @ turn[:, 1])[:2]
    length = float(np.linalg.norm(axis))
    along = axis / max(length, 1e-9)
    across = np.array([along[1], -along[0]])
    if across[0] < 0:
        across = -across
    q = flat @ across
    # The part that is turned to the viewer, from the midline outwards; beyond it the arch hides itself.
    turned = np.gradient(q, u) / max(pose.scale * mm, 1e-9)
    ahead = turned > _MIN_TURN
    peak = int(turned.argmax())
    low, high = peak, peak
    while low > 0 and ahead[low - 1]:
        low -= 1
    while high < _NUM_COLUMNS - 1 and ahead[high + 1]:
        high += 1
    some = slice(low, max(high, low + 1) + 1)
    facing = ramp(turned, _MIN_TURN, 1)
    return Wall(across, along, q[some], u[some], (flat @ along)[some], (length * nearer)[some], facing[some])
