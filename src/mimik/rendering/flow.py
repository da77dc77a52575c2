"""Landmark flow: for each position of a frame, the position in the photo to sample.

The flow is a backward map on a small grid over a square around the head. It interpolates the displacements of the
landmarks by radial basis functions with a linear kernel; hair moves with the skull, and the border of the square is
fixed. At self-occlusions the flow is discontinuous, which interpolation cannot represent; there the flow of the head
mesh, rasterized with a depth test, is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import ramp, smoothstep
from mimik.face import landmarks as face
from mimik.face.landmarks import Array, Image, Pose, skull_motion
from mimik.rendering.crop import Crop
from mimik.rendering.field import (
    GRID,
    RIDGE,
    centers_along,
    fade_of,
    frame_of,
    grid_centers,
    part_around,
    smooth_field,
    unfold,
)
from mimik.rendering.head_mesh import (
    CONTROL,
    JAW,
    LIPS_RIM,
    MOUTH_CORNERS,
    across,
    beside_jaw,
    follows_corners,
    head,
    lips_rim,
    long_hair,
    normals,
    on_outline,
    rasterize,
    scalp,
    shell_of,
    side_points,
)
from mimik.rendering.layers.eye_contours import FOLDS, LIDS_OF_EYES, EyeContours
from mimik.rendering.layers.opening import Jaws, Opening
from mimik.rendering.layers.teeth import TeethSet
from mimik.rendering.mirror import EYE_CORNERS, Mirror, MirrorFlow, hair_shown, mirror_flow
from mimik.rendering.occlusion import (
    DEPTH_GAP,
    HiddenEar,
    Surface,
    covered_by_jaw,
    ear_mask,
    hidden_ears,
    joined,
    near_occlusion,
    trust_mesh,
)

NUM_GEOMETRY = 4  # flow maps that are inputs of the network, see Flow.maps
_TURNED_DEG = 4.0, 8.0  # degrees of head rotation over which occlusion handling fades in
# Cosine between normal and view direction in the target: hidden up to the first value, visible from the second on.
_FACING = 0.0, 0.16
_PHOTO_TURNED = 8.0, 16.0  # degrees of yaw in the photo: frontal up to the first value, turned from the second on
_HIDDEN_SLACK = 3e4  # ridge of a fully hidden point, relative to RIDGE
_FACING_PHOTO = 0.2  # smallest cosine in the photo of a control point: more oblique skin cannot be stretched
_OUTLINE_SLACK = 60.0  # ridge of outline points, relative to RIDGE: the cheek of a smile may bulge beyond the outline
_OUTLINE_CM = 3.0  # depth of the head's outline behind the middle of the face
# Below the middle of the face: points beside the head follow it fully above the first value, not at all below the
# second.
_NECK_CM = 3.5, 8.5
# Shoulders do not turn with the head, but sway with it: they move by this share of the displacement of the neck's base
# (face frame), where their weight is not 0.
NECK_BASE_CM = np.array([[0.0, 10.0, 4.0]])
SWAY = 0.7
_OUTWARD_CM = 0.5  # displacement from which on shoulders that the picture's edge cuts fully move outward
_NEAR_BORDER = -0.02, 0.12  # crop sides from a fixed border, over which hair begins to move
_CUT = 0.1, 0.5  # matte value at the picture's edge, over which the edge counts as cutting the person
_CUT_CELLS = 1.5  # sigma over which it is smoothed from row to row
_EAR_MARGIN = 0.025  # crop sides around the far outline, in which a hidden ear is removed
_LIPS_SMOOTH = 1.0  # cells / FINE: the kernel's cusps at the points of a lip that moves far would make its edge wavy
_SLIT = 0.04  # eye widths: opening that the flow keeps between closed lids; the eyelids are drawn over it
_MOVED = 0.004, 0.03  # eye widths of lid or gaze motion, over which the eye layers fade in


@dataclass(frozen=True)
class Flow:
    """The landmark flow of one frame.

    Attributes:
        offset: [GRID, GRID, 2] float32; photo position minus target position, in units of the crop's side.
        unseen: [GRID, GRID] bool; disoccluded target cells, whose surface the photo does not show.
        stretch: [GRID, GRID] float32 area ratio, photo / target: below 1 the photo is magnified.
        details: refined offsets around eyes and mouth, where a closed eye is thinner than a cell.
        mouth: the opening between the lips; None if the photo already shows its interior.
        eyes: contours of the eyes that are drawn over the warped photo.
        mirror: the second source for uncovered skin; None if it is not needed.
        ears: that are hidden behind the far cheek.
        rotation: [3, 3] of the head, from photo to frame; None: none.
    """

    offset: Array
    unseen: NDArray[np.bool_]
    stretch: Array
    details: tuple[Detail, ...]
    mouth: Opening | None
    eyes: tuple[EyeContours, ...]
    mirror: MirrorFlow | None = None
    ears: tuple[HiddenEar, ...] = ()
    rotation: NDArray[np.float64] | None = None

    def maps(self, crop: Crop, window: Crop, cells: int) -> Array:
        """The flow maps that the texture generator takes, resampled to its window.

        Args:
            crop: the square of the warper, on which the flow is defined, in photo pixels.
            window: the square of the generator, in photo pixels.
            cells: along a side of the result.

        Returns:
            [NUM_GEOMETRY, cells, cells] float32: offset in x and in y, in tenths of the window's side; disocclusion,
            0..1; logarithm of the area ratio to base 4, in -1..1.
        """
        planes = self.planes()
        planes[..., :2] *= np.float32(crop.side / window.side)
        k = GRID / crop.side
        square = Crop((window.left - crop.left) * k, (window.top - crop.top) * k, window.side * k)
        return np.ascontiguousarray(square.cut(planes, cells).transpose(2, 0, 1))

    def planes(self) -> Array:
        """[GRID, GRID, NUM_GEOMETRY] the maps over the crop, with offsets in tenths of the crop's side."""
        planes = np.empty((GRID, GRID, NUM_GEOMETRY), np.float32)
        planes[..., :2] = self.offset * np.float32(10)
        planes[..., 2] = self.unseen
        if self.mirror is not None:  # not disoccluded for the network where the second source covers it
            planes[self.mirror.rows, self.mirror.columns, 2] *= 1 - self.mirror.weight
        planes[..., 3] = (np.log(np.maximum(self.stretch, 1e-3)) / np.log(4)).clip(-1, 1)
        return planes


@dataclass(frozen=True)
class Detail:
    """A part of the flow at FINE times the resolution of the grid.

    Attributes:
        rows, columns: the part, in cells of the flow's grid.
        offset: [rows * FINE, columns * FINE, 2] as in Flow.
    """

    rows: slice
    columns: slice
    offset: Array


class Warper:
    """The landmark flow of one photo: prepared once, solved for every frame.

    Attributes:
        crop: the square on which the flow is defined, in photo pixels.
        jaws: position of the person's teeth.
        source: [V, 3] the 478 face points in the photo and those of the shell (hair and neck), units of the crop's
            side.
        normals: [V, 3] outward unit normals there; z is negative toward the viewer.
        facing: [V] visibility of each in the photo: cosine between normal and view direction.
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
        """Prepare the flow of one photo.

        Args:
            points: [478, 3] face points in the photo, pixels.
            width, height: of the photo, in pixels.
            teeth: the person's teeth; None: chosen from the shipped sets.
            matte: [height, width] 0..1, matte of the person, if the head is a separate layer without background. Hair
                and ears that a turn uncovers are then mirrored like the face. None: only the face is mirrored.
            free: whether the left, upper and right borders of the square move with the head, so that it can leave the
                picture there. Requires a separate head layer. Otherwise the border is fixed.
        """
        self.crop = Crop.around(points)
        face_points = self.crop.to_unit(points.astype(np.float64))
        self.jaws = Jaws(face_points, teeth)
        mesh = head()
        outline = None if matte is None else self.crop.cut(matte, GRID)
        self._long_hair = (1.0, 1.0) if outline is None else long_hair(self.jaws.skull, outline)
        self.source = np.concatenate([face_points, shell_of(self.jaws.skull, self._long_hair)])
        self.normals = normals(self.source)
        self._in_photo = self.normals[:, 2] < -_FACING_PHOTO
        front = mesh.triangles[across(self.source, mesh.triangles)[:, 2] < 0]
        self._photo_depth, _ = rasterize(self.source * GRID, np.zeros((len(self.source), 1)), front, GRID)
        self._picture = self.crop.to_unit(np.array([[0.0, 0.0], [width, height]]))
        low = np.clip(self.crop.to_unit(np.zeros(2)), 0, 1)
        high = np.clip(self.crop.to_unit(np.array([width, height], float)), 0, 1)
        edges = low[0], high[0]
        self.facing = -self.normals[:, 2]
        shown = None if outline is None else hair_shown(self.source, self.jaws.skull, outline, self._picture)
        self._mirror = Mirror(self.source, self.facing, shown, outline)
        self._control = np.setdiff1d(CONTROL[self._in_photo[CONTROL]], side_points())
        # In a turned photo, nose and far cheek meet at the outline: for further turns, the outline is not constrained.
        self._loose_sides = float(ramp(abs(self.jaws.skull.degrees[0]), *_PHOTO_TURNED))
        self._from_outline = on_outline(self.source, self.jaws.skull.rotation)
        self._from_jaw = beside_jaw(self.source, self.jaws.skull)
        self._from_scalp = self.jaws.skull.apply(scalp()[0])
        # A free border is that of the square, even if the picture ends before it. Where the picture's edge cuts the
        # person, it is not free: a shoulder that left the edge would continue as streaks.
        low = np.where(free[:2], 0, low)
        high[0] = 1 if free[2] else high[0]
        cut = np.zeros((GRID, 2)) if outline is None else _cut_by_edge(outline) * [free[0], free[2]]
        self._sides = low[0] + cut[:, 0] * (edges[0] - low[0]), high[0] - cut[:, 1] * (high[0] - edges[1])
        self._cut = cut
        # A fixed border next to hair that moves would fold the flow.
        shell = self.source[face.NUM_POINTS :]
        self._follow = mesh.follow[:, None] * _off_borders(shell, low, high, (*free, False))
        self._scalp_follows = _off_borders(self._from_scalp, low, high, (*free, False))
        # Edges of the picture within the square: what they cut may move along them, and outward.
        self._is_edge = np.concatenate([self._picture[0] >= 0, self._picture[1] <= 1]) * float(outline is not None)
        off = _off_borders(shell, low, high, (*free, bool(self._is_edge[3])))
        self._shell_sways = (1 - self._follow) * off * float(outline is not None)
        self._border = self._at_depth(frame_of(low, high))
        self._border[:, 0] = self._border[:, 0].clip(*self._at_rows(self._sides[0], self._sides[1], self._border))
        self._neck_base = self.jaws.skull.apply(NECK_BASE_CM)
        self._border_moves = self._freedom(self._border, low, high, free)
        cells = self._at_depth(grid_centers().astype(np.float64))
        turns, sways, one_way = self._freedom(cells, low, high, free)
        held = 1 - fade_of(low, high, *self._sides)
        # [2, GRID, GRID] fade of the offset in x and in y toward the border, and what is added to it by an outward
        # motion of the shoulders to the left or up, and to the right or down.
        self._fade, moves = (
            np.float32(plus) + sign * held * share.T.reshape(2, GRID, GRID).astype(np.float32)
            for plus, sign, share in ((1, np.float32(-1), 1 - turns - sways), (0, np.float32(1), one_way))
        )
        self._fade_outward = (-moves).clip(0), moves.clip(0)

    def _scalp_hidden(self, moved: Pose) -> NDArray[np.float64]:
        """[6] 0 .. 1, whether points of the scalp face away from the viewer in the photo or in a pose."""
        away = np.maximum(*(scalp()[1] @ pose.rotation[2] for pose in (self.jaws.skull, moved)))
        return np.asarray(ramp(away, -_FACING[1], -_FACING[0]))

    def _at_depth(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions [N, 2] in the square, as [N, 3] at the depth of the head's outline."""
        z = self.jaws.skull.apply(np.array([[0.0, 0.0, _OUTLINE_CM]]))[0, 2]
        return np.column_stack([places, np.full(len(places), z)])

    def _freedom(
        self, places: NDArray[np.float64], low: NDArray[Any], high: NDArray[Any], free: tuple[bool, bool, bool]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """How the border nearest to each of the places [N, 3] moves.

        Returns:
            [N, 1] share of the skull's motion; [N, 2] share of the shoulders' motion in x and y, in both directions;
            [N, 2] the same in one direction only, negative if it is left or up.
        """
        gaps = _from_borders(places, low, high)
        left, right = self._at_rows(self._sides[0], self._sides[1], places)
        gaps[:, 0], gaps[:, 2] = places[:, 0] - left, right - places[:, 0]
        is_free = np.tile(np.array([*free, False], float), (len(places), 1))
        for side, cut in zip((0, 2), self._at_rows(self._cut[:, 0], self._cut[:, 1], places), strict=True):
            is_free[:, side] *= 1 - cut
        nearest = gaps.argmin(1)
        unbound = is_free[np.arange(len(places)), nearest][:, None]
        bound = (1 - unbound) * self._is_edge[nearest][:, None]
        outward = np.array([(-1.0, 0.0), (0.0, -1.0), (1.0, 0.0), (0.0, 1.0)])[nearest]
        skull = follows(places, self.jaws.skull)[:, None]
        return unbound * skull, (1 - skull) * (unbound + bound * (outward == 0)), (1 - skull) * bound * outward

    @staticmethod
    def _at_rows(
        left: NDArray[Any], right: NDArray[Any], places: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values [GRID] per row of cells, interpolated at the height of places [N, 3]."""
        rows = centers_along(GRID)
        return np.interp(places[:, 1], rows, left), np.interp(places[:, 1], rows, right)

    def flow(self, target: NDArray[Any]) -> Flow:
        """The flow to a frame with face points target [478, 3], in photo pixels."""
        found = self.crop.to_unit(np.asarray(target, np.float64))
        goal_face = _parted(found)
        motion = skull_motion(self.source[: face.NUM_POINTS], goal_face)
        goal_face = self._beside_mouth(goal_face, motion)
        shell = self.source[face.NUM_POINTS :]
        moved = motion.after(self.jaws.skull)
        sway = SWAY * (motion.apply(self._neck_base) - self._neck_base) * [1, 1, 0]
        outward = (sway[0, :2] / (_OUTWARD_CM * self.jaws.skull.scale)).clip(-1, 1)
        shell = shell + (shell_of(moved, self._long_hair) - shell) * self._follow + sway * self._shell_sways
        goal = np.concatenate([goal_face, shell])

        # Self-occlusion in the target: 0 visible .. 1 hidden. It changes gradually with the pose: removing a point
        # from one frame to the next would make the face jump.
        hidden = ramp(self.normals @ motion.rotation[2], -_FACING[1], -_FACING[0])
        degrees = degrees_of(motion.rotation)
        turned = float(ramp(degrees, *_TURNED_DEG))
        layers: list[Surface] = []
        if turned > 0:
            other_side = self._mirror.attributes(-self.normals @ motion.rotation[2], degrees)
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
        is_rim = self._in_photo[LIPS_RIM].all(0)
        rim = LIPS_RIM[:, is_rim]
        to_outline = on_outline(goal, moved.rotation)
        turns, sways, one_way = self._border_moves
        border = self._border[:, :2] + (motion.apply(self._border) - self._border)[:, :2] * turns
        border += sway[:, :2] * (sways + (one_way * outward).clip(0))
        to_jaw = beside_jaw(goal, moved)
        to_scalp = self._from_scalp + (moved.apply(scalp()[0]) - self._from_scalp) * self._scalp_follows
        to = np.concatenate([goal[keep, :2], lips_rim(goal)[is_rim], to_outline, to_jaw, to_scalp[:, :2], border])
        come_from = np.concatenate(
            [
                self.source[keep, :2],
                lips_rim(self.source)[is_rim],
                self._from_outline,
                self._from_jaw,
                self._from_scalp[:, :2],
                self._border[:, :2],
            ]
        )
        lips, *lids = (part_around(goal[index]) for index in face.DETAILED)
        parts = [part for part in (lips, *lids) if part is not None]
        slack = np.full(len(to), RIDGE)
        sides = slice(len(keep) + rim.shape[1], len(to) - len(to_jaw) - len(to_scalp) - len(border))
        slack[sides] *= _OUTLINE_SLACK
        side = self._loose_sides * hidden[side_points()]
        gone = np.maximum(hidden, covered_by_jaw(goal))[keep]
        behind_head = np.concatenate([gone, hidden[rim].max(0), side, hidden[JAW], self._scalp_hidden(moved)])
        slack[: len(behind_head)] *= _HIDDEN_SLACK**behind_head
        smooth, fine = smooth_field(to, come_from - to, slack, parts)
        if lips is not None:
            fine[0] = cv2.GaussianBlur(fine[0], (0, 0), _LIPS_SMOOTH)

        offset = smooth
        unseen = np.zeros((GRID, GRID), bool)
        mirror = None
        fade_x, fade_y = (
            self._fade[axis] + np.float32(abs(by)) * self._fade_outward[int(by > 0)][axis]
            for axis, by in enumerate(outward)
        )
        if layers:
            irises = goal[face.IRISES, :2], goal[EYE_CORNERS, :2], self._mirror.source[face.IRISES, :2]
            fade = np.minimum(fade_x, fade_y)
            mirror = mirror_flow(*self._mirror.joined(*layers), fade, *irises, self._mirror.own_eyes, self._picture)
            near = near_occlusion(depth, cell[self._in_photo], hidden[self._in_photo])
            if near.any():
                offset = trust_mesh(smooth, *joined(*layers), turned * near)
            unseen = np.where(layers[0].depth <= layers[1].depth, layers[0].unseen, layers[1].unseen)
        opening = self.jaws.opening(goal, motion)
        offset, stretch = unfold(offset * cv2.merge([fade_x, fade_y]), _covered(opening))
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
            opening,
            self._eyes(found, motion),
            mirror,
            hidden_ears(moved, _EAR_MARGIN),
            motion.rotation,
        )

    def _beside_mouth(self, goal: NDArray[np.float64], motion: Pose) -> NDArray[np.float64]:
        """The face [478, 3] of a frame with skin beside the mouth that follows its corners sideways.

        Args: motion: of the skull, from the photo to the frame.
        """
        sideways = motion.rotation @ self.jaws.skull.rotation[:, 0]
        moved = (goal - motion.apply(self.source[: face.NUM_POINTS])) @ sideways
        weight = follows_corners()
        return goal + (weight @ moved[MOUTH_CORNERS] - weight.sum(1) * moved)[:, None] * sideways

    def ear_mask(self, picture: Image, matte: NDArray[np.uint8], crop: Crop, side: int) -> NDArray[np.uint8] | None:
        """occlusion.ear_mask of the photo, at any size; crop: of the warper at this size."""
        skull = self.jaws.skull
        pose = Pose(skull.rotation, crop.from_unit(skull.translation[None])[0], crop.side * skull.scale)
        return ear_mask(picture, matte, crop.from_unit(self.source[: face.NUM_POINTS]), pose, side)

    def contours(self, number: int) -> EyeContours:
        """Contours of an eye in the photo; number: 0 the person's right, 1 the left."""
        return _contours(self.source, number, _down_an_eye(self.source, LIDS_OF_EYES[number][0]), 0.0)

    def _eyes(self, goal: NDArray[np.float64], motion: Pose) -> tuple[EyeContours, ...]:
        """Contours of both eyes in a frame; goal: [478, 3] its points; motion: of the head relative to the photo."""
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
        """Indices of the triangles of the rigidly moved head that face the viewer."""
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
    """[N] share of the skull's motion at places [N, 3] around a head: 1 above the jaw, 0 below the chin.

    Args:
        skull: pose that maps the canonical face to the coordinates of places.
    """
    return 1 - ramp(skull.invert(places)[:, 1], *_NECK_CM)


def _from_borders(places: NDArray[np.float64], low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.float64]:
    """[N, 4] distances of places [N, 3] from the left, upper, right and lower border; negative outside."""
    x, y = places[:, 0], places[:, 1]
    return np.stack([x - low[0], y - low[1], high[0] - x, high[1] - y], 1)


def _off_borders(
    places: NDArray[np.float64], low: NDArray[Any], high: NDArray[Any], free: Sequence[bool]
) -> NDArray[np.float64]:
    """[N, 1] 0..1, how far places [N, 3] may move: 0 at a border that is not free (left, top, right, bottom)."""
    gap = np.where(free, np.inf, _from_borders(places, low, high)).min(1)
    return np.asarray(ramp(gap, *_NEAR_BORDER)[:, None])


def _cut_by_edge(outline: Array) -> NDArray[np.float64]:
    """[GRID, 2] 0..1, whether the picture's left and right edge cut the person at each row of a matte [GRID, GRID]."""
    left, right = (
        cv2.GaussianBlur(np.ascontiguousarray(outline[:, edge]), (0, 0), _CUT_CELLS).reshape(GRID)
        for edge in (slice(0, 1), slice(GRID - 1, GRID))
    )
    return np.asarray(smoothstep(np.stack([left, right], 1), *_CUT))


def _contours(points: NDArray[np.float64], number: int, down: NDArray[np.float64], weight: float) -> EyeContours:
    """Contours of an eye of a face [478+, 3]; the other arguments are those of EyeContours."""
    upper, lower = LIDS_OF_EYES[number]
    iris = points[(face.RIGHT_IRIS, face.LEFT_IRIS)[number], :2]
    radius = float(np.linalg.norm(iris[1:] - iris[0], axis=1).mean())
    lids, under, fold = (points[index, :2].astype(np.float32) for index in (upper, lower, FOLDS[number]))
    return EyeContours(lids, under, fold, iris[0].astype(np.float32), radius, down.astype(np.float32), weight, number)


def _down_an_eye(points: NDArray[np.float64], upper: list[int]) -> NDArray[np.float64]:
    """[2] vector of an eye's width in length, perpendicular to the line of its corners, toward the chin.

    Args: upper: indices of the upper lid, from corner to corner.
    """
    x, y = points[upper[-1], :2] - points[upper[0], :2]
    down = np.array([-y, x])
    return down * np.sign(down @ (points[face.CHIN, :2] - points[upper[0], :2]))


def _parted(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The face [478, 3] with a slit between lids that touch, or cross, as the landmark detector sometimes reports.

    Without the slit, the eyeball of the photo would have no target area: the flow would fold, and unfolding it would
    leave the eye open.
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


def _covered(opening: Opening | None) -> Array:
    """[GRID, GRID] 1 inside an opening whose drawn interior hides the photo; else 0."""
    mask = np.zeros((GRID, GRID), np.float32)
    if opening is not None and opening.parted == 1 and opening.changed == 1:
        outline = np.concatenate([opening.upper, opening.lower[-2:0:-1]]) * GRID - 0.5
        cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 1, shift=4)
    return mask


def degrees_of(rotation: NDArray[np.float64]) -> float:
    """Angle of a rotation matrix [3, 3] in degrees."""
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))
