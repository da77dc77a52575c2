"""The dental arches in 3D: their position in a head, and the texture coordinates of each pixel of a frame.

Each arch is modeled as a wall: a parabola in the horizontal plane, extruded vertically. Texture coordinates on a wall
are (u, v): millimeters along the curve from the midline, positive to the right of the picture, and millimeters down
from the incisal edge. Under weak perspective, the verticals of a wall stay parallel in the picture, so lookup tables
replace a rasterizer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import ramp
from mimik.face.landmarks import IPD_MM, Array, Pose, head_pose

# Two_p of the parabola z = x^2 / two_p: canines 17 mm from the midline lie 8.5 mm behind the incisors.
UPPER_CURVE_MM = 34.0
LOWER_CURVE_MM = 32.0  # the same of the lower arch
HALF_WIDTH_MM = 31.0  # half the width of the arch, behind the second molars
OVERJET_MM = 2.5  # horizontal distance of the lower incisors behind the upper ones
OVERBITE_MM = 2.0  # vertical overlap of the incisors when the jaw is closed
EDGE_BELOW_LIP_MM = 2.0  # distance of the upper incisors' edge below the resting upper lip
BEHIND_LIPS_MM = 4.0  # distance of the incisors' front behind the lip contact line
_OCCLUSAL = 0.16  # tangent of the occlusal plane's slope: it descends about 9 degrees to the front
_LIP_LENGTH_MM = 20.0  # usual distance from the base of the nose to the resting upper lip
_LIFT = 0.5  # share of a shorter upper lip that is attributed to a smile (lifted lip) and not to anatomy
_CAMERA_MM = 700.0  # distance from the lens to the mouth
# Axis of jaw rotation, cm in the canonical face. The condyles slide forward when the jaw opens, so the axis lies below
# them, at the height of the angle of the jaw (Grant 1973).
_HINGE = np.array([0.0, 3.5, 1.0])
_BITE = np.array([0, -OVERBITE_MM, OVERJET_MM])  # mm from the upper incisors' edge to the lower ones', jaw closed
_NUM_COLUMNS = 121  # samples of the parabola
_MIN_TURN = 0.12  # picture px along the curve per px of arc length: more oblique parts of the wall are not drawn


@dataclass(frozen=True)
class Anatomy:
    """Position of the teeth in one person's head, in the canonical face frame (axes of Pose, centimeters).

    Attributes:
        edge: [3] midpoint of the upper incisors' edge.
        mm: one millimeter of this person, in units of the frame.
        chin: [3] position of the chin in the photo.
        open_mm: jaw opening in the photo.
    """

    edge: NDArray[np.float64]
    mm: float
    chin: NDArray[np.float64]
    open_mm: float

    @classmethod
    def of(cls, points: NDArray[Any]) -> Anatomy:
        """Estimate from the face points [478, 3] of the photo, in any unit."""
        own = head_pose(points).invert(points)
        right, left = own[[33, 133]].mean(0), own[[362, 263]].mean(0)
        mm = float(np.linalg.norm(left - right)) / IPD_MM
        upper, lower, nose = own[13], own[14], own[2]
        gap = max(float(lower[1] - upper[1]) / mm, 0.0)
        length = float(upper[1] - nose[1]) / mm
        # The upper lip is at rest if the mouth is closed; if it is open, a smile may lift the lip.
        parted = float(ramp(gap, 2, 6))
        lifted = parted * _LIFT * max(_LIP_LENGTH_MM - length, 0.0)
        meet = upper if parted > 0 else (upper + lower) / 2
        edge = np.array([(nose[0] + upper[0]) / 2, meet[1], (upper[2] + lower[2]) / 2])
        edge += np.array([0, lifted + EDGE_BELOW_LIP_MM, BEHIND_LIPS_MM]) * mm
        return cls(edge, mm, own[_CHIN].mean(0), parted * max(gap - 6, 0.0))

    def jaw_drop(self, points: NDArray[Any], pose: Pose) -> float:
        """Distance of the lower incisors below their bite position, in millimeters.

        Args:
            points: [478, 3] face points of a frame.
            pose: maps the canonical face to the frame.
        """
        own = pose.invert(points)
        drop = self.open_mm + float(own[_CHIN, 1].mean() - self.chin[1]) / self.mm
        # The lower lip is detected reliably and hides most of the lower teeth, so it bounds the estimate.
        down = pose.scale * pose.rotation[:2, 1]
        bite = pose.apply(self.edge + self.mm * _BITE)[:2]
        lip = float((points[14, :2] - bite) @ down / max(float(down @ down), 1e-9)) / self.mm
        return max(float(np.clip(drop, lip - _LOWER_SEEN_MM[1], lip - _LOWER_SEEN_MM[0])), 0.0)


_CHIN = [152, 175, 199, 148, 377]
_LOWER_SEEN_MM = 0.5, 5.0  # smallest and largest visible height of the lower incisors above the lower lip


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
    """The visible part of one arch, projected into a frame.

    Attributes:
        across: [2] unit vector in the picture, perpendicular to the wall's verticals.
        along: [2] unit vector along the verticals, downward.
        at: [K] positions of the columns along `across`, increasing, pixels.
        u: [K] arc length of the columns, mm.
        top: [K] position of v = 0 along `along`, pixels.
        px_per_mm: [K] resolution in v.
        facing: [K] 0..1, foreshortening: 1 if the wall faces the viewer.
    """

    across: NDArray[np.float64]
    along: NDArray[np.float64]
    at: NDArray[np.float64]
    u: NDArray[np.float64]
    top: NDArray[np.float64]
    px_per_mm: NDArray[np.float64]
    facing: NDArray[np.float64]

    def find(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[Array, Array, Array]:
        """u, v and facing of the pixels at x [W], y [H], float32 [H, W] each; facing is 0 beside the wall."""
        q = (self.across[0] * x[None] + self.across[1] * y[:, None]).astype(np.float32)
        down = (self.along[0] * x[None] + self.along[1] * y[:, None]).astype(np.float32)
        # Resample the unevenly spaced columns into one uniform table, which cv2.remap interpolates.
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
        """Pixels [..., 2] of texture coordinates; outside the visible columns, those of the nearest one."""
        q, top, k = (np.interp(u, self.u, row) for row in (self.at, self.top, self.px_per_mm))
        return q[..., None] * self.across + (top + k * v)[..., None] * self.along


def upper_wall(anatomy: Anatomy, pose: Pose) -> Wall:
    """The upper arch, rigid with the skull; pose: maps the canonical face to the frame."""
    return _wall(anatomy, pose, np.eye(3), anatomy.edge, UPPER_CURVE_MM)


def lower_wall(anatomy: Anatomy, pose: Pose, drop_mm: float) -> Wall:
    """The lower arch, which rotates about the jaw's hinge; drop_mm: Anatomy.jaw_drop."""
    bite = anatomy.edge + anatomy.mm * _BITE
    arm = bite - _HINGE
    length = float(np.hypot(arm[1], arm[2]))
    angle = np.arcsin(min((arm[1] + drop_mm * anatomy.mm) / length, 0.99)) - np.arcsin(arm[1] / length)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])  # rotates -z (front) toward y (down)
    return _wall(anatomy, pose, turn, _HINGE + turn @ arm, LOWER_CURVE_MM)


def _wall(anatomy: Anatomy, pose: Pose, turn: NDArray[np.float64], edge: NDArray[np.float64], two_p: float) -> Wall:
    x, z, u = _curve(two_p)
    mm = anatomy.mm
    points = edge + mm * np.stack([x, -_OCCLUSAL * z, z], 1) @ turn.T
    placed = pose.apply(points)
    middle = placed[_NUM_COLUMNS // 2]
    # Weak perspective: scale by the depth behind the incisors.
    nearer = 1 / (1 + (placed[:, 2] - middle[2]) / (_CAMERA_MM * mm * pose.scale))
    flat = middle[:2] + (placed[:, :2] - middle[:2]) * nearer[:, None]
    axis = pose.scale * mm * (pose.rotation @ turn[:, 1])[:2]
    length = float(np.linalg.norm(axis))
    along = axis / max(length, 1e-9)
    across = np.array([along[1], -along[0]])
    if across[0] < 0:
        across = -across
    q = flat @ across
    # The contiguous part that faces the viewer, from the midline outward; beyond it the arch occludes itself.
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
