"""Landmark flow: where each pixel of a frame comes from in the photo, and applying that at any resolution.

The flow is backward: at a place of the target frame it says how far away the pixel lies in the photo. It is solved on
a small grid over a square around the head, by linear radial-basis interpolation of the points' displacements; hair
moves with the skull, the square's border stands still. Where the head's own surface hides itself, the solve cannot
know it: the mesh, rasterized with a depth test, is right there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import ramp, smoothstep
from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Pose, skull_motion
from mimik.rendering.crop import Crop
from mimik.rendering.field import GRID, RIDGE, fade_of, frame_of, grid_centers, part_around, smooth_field, unfold
from mimik.rendering.head_mesh import (
    CONTROL,
    LIPS_RIM,
    across,
    head,
    normals,
    on_outline,
    rasterize,
    side_points,
)
from mimik.rendering.layers.eye_contours import FOLDS, LIDS_OF_EYES, EyeContours
from mimik.rendering.layers.opening import Jaws, Opening
from mimik.rendering.layers.teeth import TeethSet
from mimik.rendering.mirror import Mirror, MirrorFlow, hair_shown, mirror_flow
from mimik.rendering.occlusion import DEPTH_GAP, Surface, believe_mesh, joined, near_occlusion

NUM_GEOMETRY = 4  # maps that tell it how the photo was warped
_TURNED_DEG = 4.0, 8.0  # degrees: from the first on a head's turn hides something, from the second fully
_FACING = 0.0, 0.16  # cosine: a surface of the target seen at the first is hidden, at the second seen
_PHOTO_TURNED = 8.0, 16.0  # degrees of yaw: a photo up to the first is frontal, from the second turned
_HIDDEN_SLACK = 3e4  # times the ridge, of a point that is hidden
_FACING_PHOTO = 0.2  # the same in the photo: what is seen there very obliquely cannot be spread out
_OUTLINE_SLACK = 60.0  # times the ridge: a smile's cheek may bulge over the outline, and does not fold against it
_OUTLINE_CM = 3.0  # behind the middle of the face: depth of the head's outline
_NECK_CM = (
    3.5,
    8.5,
)  # below the middle of the face: down to the first, what is beside the head follows it
_SLIT = 0.04  # of an eye's width: what the flow leaves between shut lids; the eyelids are drawn over it
_MOVED = (
    0.004,
    0.03,
)  # of an eye's width: an eye is drawn from the first on that lids or gaze move, fully from the second


@dataclass(frozen=True)
class Flow:
    """The landmark flow of one frame.

    Attributes:
        offset: [GRID, GRID, 2] float32; photo place minus target place, in units of the crop's side.
        unseen: [GRID, GRID] bool; target cells whose surface the photo does not show.
        stretch: [GRID, GRID] float32; area in the photo per area in the target: below 1 the photo is magnified.
        details: the same offsets, finer, around eyes and mouth: a shut eye is thinner than a cell.
        mouth: the opening that the lips leave; None while the photo shows what is in it.
        eyes: where the eyes that are drawn over the warped photo lie.
        mirror: what the other side of the face shows of skin that the turn uncovers; None: nothing.
    """

    offset: Array
    unseen: NDArray[np.bool_]
    stretch: Array
    details: tuple[Detail, ...]
    mouth: Opening | None
    eyes: tuple[EyeContours, ...]
    mirror: MirrorFlow | None = None

    def maps(self, crop: Crop, window: Crop, cells: int) -> Array:
        """What the texture generator is told of the warp, over another square.

        Args:
            crop: the warper's, over which the flow lies.
            window: the square that the generator sees, in the same pixels.
            cells: along its side.

        Returns:
            [NUM_GEOMETRY, cells, cells] float32: offset in x and in y, 1 is a tenth of the window's side; 1 where the
            photo does not show the surface; logarithm of the stretch, base 4, in -1..1.
        """
        planes = self.planes()
        planes[..., :2] *= np.float32(crop.side / window.side)
        k = GRID / crop.side
        square = Crop((window.left - crop.left) * k, (window.top - crop.top) * k, window.side * k)
        return np.ascontiguousarray(square.cut(planes, cells).transpose(2, 0, 1))

    def planes(self) -> Array:
        """[GRID, GRID, NUM_GEOMETRY] what maps cuts, over the crop: offsets as if the window were the crop."""
        planes = np.empty((GRID, GRID, NUM_GEOMETRY), np.float32)
        planes[..., :2] = self.offset * np.float32(10)
        planes[..., 2] = self.unseen
        if self.mirror is not None:  # what the other side shows is not left to the network
            planes[self.mirror.rows, self.mirror.columns, 2] *= 1 - self.mirror.weight
        planes[..., 3] = (np.log(np.maximum(self.stretch, 1e-3)) / np.log(4)).clip(-1, 1)
        return planes


@dataclass(frozen=True)
class Detail:
    """A part of the flow with FINE times as many cells.

    Attributes:
        rows, columns: of the flow's grid.
        offset: [rows * FINE, columns * FINE, 2] as in Flow.
    """

    rows: slice
    columns: slice
    offset: Array


class Warper:
    """The landmark flow of one photo: prepared once, solved for every frame.

    Attributes:
        crop: the square over which the flow lies, in pixels of the photo.
        jaws: of the person: where the teeth are.
        source: [V, 3] the face's 478 points in the photo and those of hair and neck, units of the crop's side.
        facing: [V] cosine of the angle at which the photo shows each.
    """

    def __init__(
        self,
        points: Array,
        width: int,
        height: int,
        teeth: TeethSet | None = None,
        *,
        matte: Array | None = None,
        free: tuple[bool, bool, bool] = (False, False, False),
    ) -> None:
        """For one photo.

        Args:
            points: [478, 3] of the face in the photo.
            width, height: of the photo, in pixels.
            teeth: of the person; None: chosen from the shipped sets.
            matte: [height, width] 0..1 of the person, of a layer without background: hair and ears that a turn
                uncovers, and that the photo does not show, are then mirrored as the face is.
            free: whether the head may move at the square's left, upper and right border, and leave the picture there:
                it is a layer of its own, and the border of the square does not show it. Else the border stands still.
        """
        self.crop = Crop.around(points)
        face_points = self.crop.to_unit(points.astype(np.float64))
        self.jaws = Jaws(face_points, teeth)
        mesh = head()
        self.source = np.concatenate([face_points, self.jaws.skull.apply(mesh.shell)])
        self._follow = np.concatenate([np.ones(len(face_points)), mesh.follow])[:, None]
        self._normals = normals(self.source)
        self._in_photo = self._normals[:, 2] < -_FACING_PHOTO
        front = mesh.triangles[across(self.source, mesh.triangles)[:, 2] < 0]
        self._photo_depth, _ = rasterize(self.source * GRID, np.zeros((len(self.source), 1)), front, GRID)
        self._picture = self.crop.to_unit(np.array([[0.0, 0.0], [width, height]]))
        low = np.clip(self.crop.to_unit(np.zeros(2)), 0, 1)
        high = np.clip(self.crop.to_unit(np.array([width, height], float)), 0, 1)
        self.facing = -self._normals[:, 2]
        shown = (
            None
            if matte is None
            else hair_shown(self.source, self.jaws.skull, self.crop.cut(matte, GRID), self._picture)
        )
        self._mirror = Mirror(self.source, self.facing, shown)
        self._control = np.setdiff1d(CONTROL[self._in_photo[CONTROL]], side_points())
        # In a photo that is turned itself nose and far cheek meet at the outline: turned further, it is not held.
        self._loose_sides = float(ramp(abs(self.jaws.skull.degrees[0]), *_PHOTO_TURNED))
        self._from_outline = on_outline(self.source, self.jaws.skull.rotation)
        # A free side is the square's, wherever the picture ends.
        low = np.where(free[:2], 0, low)
        high[0] = 1 if free[2] else high[0]
        self._border = self._at_depth(frame_of(low, high))
        self._border_follow = self._freedom(self._border, low, high, free)[:, None]
        cells = self._at_depth(grid_centers().astype(np.float64))
        freedom = self._freedom(cells, low, high, free).reshape(GRID, GRID).astype(np.float32)
        self._fade = 1 - (1 - fade_of(low, high)) * (1 - freedom)

    def _at_depth(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places [N, 2] of the square, [N, 3] where the outline of the head is."""
        z = self.jaws.skull.apply(np.array([[0.0, 0.0, _OUTLINE_CM]]))[0, 2]
        return np.column_stack([places, np.full(len(places), z)])

    def _freedom(
        self, places: NDArray[np.float64], low: NDArray[Any], high: NDArray[Any], free: tuple[bool, bool, bool]
    ) -> NDArray[np.float64]:
        """[N] 0..1: how much the nearest border at places [N, 3] moves with the skull."""
        x, y = places[:, 0], places[:, 1]
        gaps = np.stack([x - low[0], y - low[1], high[0] - x, high[1] - y], 1)
        is_free = np.array([*free, False])[gaps.argmin(1)]
        return is_free * follows(places, self.jaws.skull)

    def flow(self, target: NDArray[Any]) -> Flow:
        """The flow to a frame in which the face's points are at target [478, 3], in photo pixels."""
        found = self.crop.to_unit(np.asarray(target, np.float64))
        goal_face = _parted(found)
        motion = skull_motion(self.source[: face.NUM_POINTS], goal_face)
        shell = self.source[face.NUM_POINTS :]
        shell = shell + (motion.apply(shell) - shell) * self._follow[face.NUM_POINTS :]
        goal = np.concatenate([goal_face, shell])

        # What the head hides of itself in the target: 0 seen .. 1 hidden. Small turns hide hardly anything, and what
        # begins begins softly: a point that is there in one frame and gone in the next would make the face jump.
        hidden = ramp(self._normals @ motion.rotation[2], -_FACING[1], -_FACING[0])
        degrees = _degrees_of(motion.rotation)
        turned = float(ramp(degrees, *_TURNED_DEG))
        layers: list[Surface] = []
        if turned > 0:
            other_side = self._mirror.attributes(-self._normals @ motion.rotation[2], degrees)
            attributes = np.column_stack([self.source, other_side])
            front = self._front(motion)
            num_face = np.searchsorted(front, head().num_face)
            layers = [
                self._layer(goal, attributes, head().triangles[part]) for part in (front[:num_face], front[num_face:])
            ]
            depth = np.minimum(layers[0].depth, layers[1].depth)
            cell = (goal[:, :2] * GRID).astype(int).clip(0, GRID - 1)
            behind = goal[:, 2] - depth[cell[:, 1], cell[:, 0]] / GRID
            hidden = np.maximum(hidden, turned * ramp(behind, 0.5 * DEPTH_GAP, 1.5 * DEPTH_GAP))

        keep = self._control
        rim = LIPS_RIM[:, self._in_photo[LIPS_RIM].all(0)]
        to_outline = on_outline(goal, motion.rotation @ self.jaws.skull.rotation)
        border = self._border + (motion.apply(self._border) - self._border) * self._border_follow
        to = np.concatenate([goal[keep, :2], goal[rim, :2].mean(0), to_outline, border[:, :2]])
        come_from = np.concatenate(
            [self.source[keep, :2], self.source[rim, :2].mean(0), self._from_outline, self._border[:, :2]]
        )
        parts = [part for part in (part_around(goal[index]) for index in face.DETAILED) if part is not None]
        slack = np.full(len(to), RIDGE)
        sides = slice(len(keep) + rim.shape[1], len(to) - len(border))
        slack[sides] *= _OUTLINE_SLACK
        behind_head = np.concatenate([hidden[keep], hidden[rim].max(0), self._loose_sides * hidden[side_points()]])
        slack[: len(behind_head)] *= _HIDDEN_SLACK**behind_head
        smooth, fine = smooth_field(to, come_from - to, slack, parts)

        offset = smooth
        unseen = np.zeros((GRID, GRID), bool)
        mirror = None
        if layers:
            irises = goal[face.IRISES, :2], self._mirror.source[face.IRISES, :2]
            mirror = mirror_flow(*self._mirror.joined(*layers), self._fade, *irises, self._picture)
            near = near_occlusion(depth, cell[self._in_photo], hidden[self._in_photo])
            if near.any():
                offset = believe_mesh(smooth, *joined(*layers), turned * near)
            unseen = np.where(layers[0].depth <= layers[1].depth, layers[0].unseen, layers[1].unseen)
        offset, stretch = unfold(offset * self._fade[..., None])
        details = []
        for part, values in zip(parts, fine, strict=True):
            change = cv2.resize(
                (offset - smooth)[part], (values.shape[1], values.shape[0]), interpolation=cv2.INTER_LINEAR
            )
            details.append(Detail(part[0], part[1], values + change))
        return Flow(
            offset,
            unseen,
            stretch,
            tuple(details),
            self.jaws.opening(goal, motion),
            self._eyes(found, motion),
            mirror,
        )

    def contours(self, number: int) -> EyeContours:
        """An eye in the photo; number: 0 the right, 1 the left."""
        return _contours(self.source, number, _down_an_eye(self.source, LIDS_OF_EYES[number][0]), 0.0)

    def _eyes(self, goal: NDArray[np.float64], motion: Pose) -> tuple[EyeContours, ...]:
        """The eyes of a frame whose points are at goal [478, 3], and whose head has made this motion."""
        eyes = []
        for number, (upper, _) in enumerate(LIDS_OF_EYES):
            down = np.append(_down_an_eye(self.source, upper), 0.0)
            width = max(float(np.linalg.norm(down)), 1e-9)
            carried = motion.scale * (motion.rotation @ down)[:2]
            index = [*upper, *LIDS_OF_EYES[number][1], (face.RIGHT_IRIS, face.LEFT_IRIS)[number][0]]
            moved = np.linalg.norm(goal[index, :2] - motion.apply(self.source[index])[:, :2], axis=1)
            weight = float(smoothstep((moved - moved.min()).max() / width, *_MOVED))
            eyes.append(_contours(goal, number, carried, weight))
        return tuple(eyes)

    def _front(self, motion: Pose) -> NDArray[np.intp]:
        """Indices of the triangles that a rigid head, so moved, turns to the viewer."""
        triangles = head().triangles
        a, b, c = (motion.apply(self.source)[triangles[:, i], :2].T for i in range(3))
        return np.flatnonzero((b[0] - a[0]) * (c[1] - a[1]) < (c[0] - a[0]) * (b[1] - a[1]))

    def _layer(
        self, goal: NDArray[np.float64], attributes: NDArray[np.float64], triangles: NDArray[np.int32]
    ) -> Surface:
        depth, place = rasterize(goal * GRID, attributes, triangles, GRID)
        covered = np.isfinite(depth)
        found = place[covered]
        at = (found[:, :2] * GRID).astype(np.int32).clip(0, GRID - 1)
        unseen = np.zeros((GRID, GRID), bool)
        unseen[covered] = found[:, 2] > self._photo_depth[at[:, 1], at[:, 0]] / GRID + DEPTH_GAP
        return Surface(depth, place[..., :2] - grid_centers().reshape(GRID, GRID, 2), covered, unseen, place[..., 3:])


def follows(places: NDArray[np.float64], skull: Pose) -> NDArray[np.float64]:
    """[N] how much of the skull's motion places [N, 3] around a head make: 1 above the jaw, 0 below the chin.

    Args:
        skull: takes the canonical face to where the places are.
    """
    return 1 - ramp(skull.invert(places)[:, 1], *_NECK_CM)


def _contours(points: NDArray[np.float64], number: int, down: NDArray[np.float64], weight: float) -> EyeContours:
    """An eye of a face [478+, 3]; the other arguments as in EyeContours."""
    upper, lower = LIDS_OF_EYES[number]
    iris = points[(face.RIGHT_IRIS, face.LEFT_IRIS)[number], :2]
    radius = float(np.linalg.norm(iris[1:] - iris[0], axis=1).mean())
    lids, under, fold = (points[index, :2].astype(np.float32) for index in (upper, lower, FOLDS[number]))
    return EyeContours(lids, under, fold, iris[0].astype(np.float32), radius, down.astype(np.float32), weight, number)


def _down_an_eye(points: NDArray[np.float64], upper: list[int]) -> NDArray[np.float64]:
    """[2], as long as the eye is wide, across it, to the side on which the chin is; upper: its upper lid."""
    x, y = points[upper[-1], :2] - points[upper[0], :2]
    down = np.array([-y, x])
    return down * np.sign(down @ (points[face.CHIN, :2] - points[upper[0], :2]))


def _parted(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The face [478, 3] with a slit left between lids that touch or, as the landmarker has it at times, cross.

    The eyeball that the photo shows has to go somewhere: without the slit the flow would fold, and the eye stay open.
    """
    points = points.copy()
    for upper, lower in LIDS_OF_EYES:
        down = _down_an_eye(points, upper)
        width = max(float(np.linalg.norm(down)), 1e-9)
        inner = slice(1, -1)
        gap = (points[lower[inner], :2] - points[upper[inner], :2]) @ down / width
        missing = (_SLIT - gap / width).clip(0)[:, None] / 2
        points[upper[inner], :2] -= missing * down
        points[lower[inner], :2] += missing * down
    return points


def _degrees_of(rotation: NDArray[np.float64]) -> float:
    """Degrees of a rotation [3, 3]."""
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))
