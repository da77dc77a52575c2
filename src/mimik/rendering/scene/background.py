"""A still background plate with the head as a separate layer over it.

The photo is decomposed once: the matte is the person's coverage of each pixel, the plate is the photo with the person
inpainted, and the front is the person's colors, so that compositing front over plate gives the photo. Only front and
matte are warped. If the matte is unreliable, the photo is not decomposed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import ramp
from mimik.config import InputError
from mimik.face.landmarks import NUM_POINTS, OVAL, Array, Image, head_pose, skull_motion
from mimik.rendering.crop import Crop
from mimik.rendering.flow import Flow, Warper, follows
from mimik.rendering.layers.canvas import Box, Canvas, grown
from mimik.rendering.layers.teeth import TeethSet
from mimik.rendering.painters import PicturePainter, Prepared
from mimik.rendering.scene.inpainting import fill
from mimik.rendering.scene.matte import foreground, in_bytes, person_matte
from mimik.rendering.scene.neck import Neck

_UNCOVERS = 0.16  # crop sides: distance from the person's edge within which the plate needs detail
_HOLE = 0.03  # matte value from which on a pixel is not used as background
_MISSED_HAIR = 0.016  # crop sides: margin around the matte for hair that it missed; strands would stay on the wall
# Crop sides: largest displacement of a face point over which the result fades from photo to scene.
_FACE_MOVES = 0.0005, 0.004
_STRANDS = 0.045  # crop sides: margin around the matte in which strands of hair are searched
_LOOKED_AT = 0.075  # crop sides: sigma of the weights with which the detail of the background is measured
_COARSE_PX = 112  # longer side at which it is measured
# Detail of the background, 0..255: strands are separated fully up to the first value, not at all from the second on.
_PLAIN_DETAIL = 3.0, 6.0
_CONTRAST = 40.0  # smallest color distance between hair and background, 0..255, at which strands are separated
# Distance of a color from the line between those of hair and background, in units of the distance between these: a
# mixture of both up to the first value, something else from the second on.
_THIRD_COLOR = 0.25, 0.5
_PERSON = 0.8, 0.97  # matte values between which its word counts more and more against that of the colors
_SAME = 6.0, 14.0  # distance of photo and plate, 0..255, from which on the plate is used alone
_SMOOTHED_PX = 2.0
_NOISE = 0.08  # share of hair up to which a pixel is treated as noise
# Matte values over which the front changes from a local estimate to the solution of the matting equation.
_SOLVED = 0.15, 0.4
_MIN_BACKGROUND = 0.03  # smallest share of background in the crop for which a plate is made
_MAX_UNSURE = 0.30  # largest share of partly covered pixels in the head's area
_FACE_INSIDE = 0.97  # smallest share of the face's outline inside the picture
_CUT_BY_EDGE = 0.5  # matte value at the picture's edge from which on the edge cuts the person
_REACHED = 0.25  # matte value at the square's border from which on the person reaches it
_SPECK = 0.03  # crop sides along the border over which it is averaged
_TOLERANCE = 0.006  # crop sides: how far a cut edge may move into the picture
_BAND = 64  # rows blended at a time, so that they fit into the processor's cache
_SAMPLES = 9  # points checked along a cut edge


@dataclass(frozen=True)
class Scene:
    """A photo decomposed into layers.

    Attributes:
        alpha: [H, W] 0..1, matte of the person.
        front: uint8 RGB [H, W, 3], the person's colors, extrapolated beyond the person's edge.
        plate: uint8 RGB [H, W, 3], the photo with the person inpainted near the person's edge.
        free: whether the head may leave the flow's square at the left, the top and the right.
        canvas: the part of the photo that moves.
    """

    alpha: Array
    front: Image
    plate: Image
    free: tuple[bool, bool, bool]
    canvas: Canvas

    @property
    def matte(self) -> NDArray[np.uint8]:
        """[H, W] alpha in 0..255."""
        return in_bytes(self.alpha)

    def warper(self, points: NDArray[Any], teeth: TeethSet | None = None) -> Warper:
        """The warper of front, for the photo's face points [478, 3]; teeth: as in Warper."""
        height, width = self.alpha.shape
        return Warper(points, width, height, teeth=teeth, matte=self.alpha, free=self.free)

    def over_plate(
        self, painter: PicturePainter, photo: Image, points: NDArray[Any], shown: Box | None = None
    ) -> LayeredPainter:
        """A painter over the plate.

        Args:
            painter: of front with matte.
            photo, points: what frames show of the photo while the face does not move, and its face points.
            shown: what the painter shows of front; None: all of it.
        """
        box = shown or Box.of(self.alpha)
        canvas, behind = self.canvas.within(box), box.part(self.plate)
        neck = Neck(self.front, self.alpha, points), box
        return LayeredPainter(painter, box.part(self.alpha), canvas, behind, (photo, points), neck)


def decompose_photo(picture: Image, points: NDArray[Any], alpha: Array | None = None) -> Scene | str:
    """Decompose a photo; if that is impossible, return the reason, which completes a sentence about "the background".

    Args:
        picture: uint8 RGB [H, W, 3].
        points: [478, 3] face points in it.
        alpha: result of person_matte for both; None: computed here.
    """
    height, width = picture.shape[:2]
    if alpha is None:
        try:
            alpha = person_matte(picture, points)
        except InputError:
            return "cannot be separated from the person"
    canvas = Canvas.of(picture, Crop.around(points))
    if reason := _doubt(canvas.part(alpha), canvas, points, width, height):
        return reason
    part, a = canvas.part(picture), canvas.part(alpha)
    side = canvas.crop.side
    part = np.ascontiguousarray(part)
    hole, plain, strands = _hole(part, a, side)
    behind = fill(part, hole, _UNCOVERS * side, plain)
    around = foreground(part, a)
    share, is_mixture, apart = _share_of_person(part, around, behind)
    less = is_mixture * apart * plain * ramp(a, *_PERSON[::-1]) * np.maximum(a - share, 0)
    a = np.maximum(a - less, strands * share * is_mixture)
    behind = _with_photo(behind, part, (1 - apart) * ramp(a, *_PERSON[::-1]))
    alpha = alpha.copy()
    canvas.part(alpha)[...] = a
    front, plate = picture.copy(), picture.copy()
    canvas.part(plate)[...] = behind
    canvas.part(front)[...] = _front(part, a, behind, around)
    return Scene(alpha, front, plate, _free(a, canvas, points, width), canvas)


def _doubt(alpha: Array, canvas: Canvas, points: NDArray[Any], width: int, height: int) -> str | None:
    """The reason why a matte [h, w] over the canvas is unreliable, or None."""
    oval = points[OVAL, :2]
    inside = ((oval >= 0) & (oval < [width, height])).all(1).mean()
    if inside < _FACE_INSIDE:
        return "cannot be separated from a face at the edge of the picture"
    if (alpha < 0.05).mean() < _MIN_BACKGROUND:
        return "is hardly visible around the head"
    # The head: the face's outline, enlarged.
    head = np.zeros(alpha.shape, np.uint8)
    center = oval.mean(0)
    outline = canvas.place(canvas.crop.to_unit(center + (oval - center) * [1.7, 1.6] - [0, 0.1 * np.ptp(oval[:, 1])]))
    cv2.fillPoly(head, [np.round(outline).astype(np.int32)], 1)
    unsure = ((alpha > 0.1) & (alpha < 0.9))[head > 0].mean()
    if unsure > _MAX_UNSURE:
        return "has no clear boundary with the person"
    return None


def _hole(part: Image, alpha: Array, side: float) -> tuple[NDArray[np.bool_], Array, Array]:
    """The area to inpaint: the person and, before a plain background, strands of hair that the matte missed.

    Args: part: uint8 RGB [h, w, 3]; alpha: [h, w] matte; side: of the crop, pixels.

    Returns:
        [h, w] the hole; [h, w] 0..1 plainness of the background nearby; [h, w] 0..1 where strands are searched.
    """
    person = (alpha > _HOLE).astype(np.uint8)
    narrow, wide = (grown(person, by * side) > 0 for by in (_MISSED_HAIR, _STRANDS))
    # Detail of the background outside the searched margin.
    known = (~wide).astype(np.float32)
    gray = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = gray - cv2.GaussianBlur(gray, (0, 0), max(_STRANDS * side / 4, 1.0))
    # Gaussian weights at a small size: they have no edge, which the filling would show.
    k = min(1.0, _COARSE_PX / max(alpha.shape))
    total, energy = (
        cv2.GaussianBlur(cv2.resize(x, None, fx=k, fy=k, interpolation=cv2.INTER_AREA), (0, 0), _LOOKED_AT * side * k)
        for x in (known, detail * detail * known)
    )
    spread = cv2.resize(np.sqrt(energy / np.maximum(total, 1e-9)), alpha.shape[::-1], interpolation=cv2.INTER_LINEAR)
    plain = ramp(spread, _PLAIN_DETAIL[1], _PLAIN_DETAIL[0])
    strands = (wide & (plain > 0.5)).astype(np.float32)
    return narrow | (strands > 0), plain, cv2.GaussianBlur(strands, (0, 0), max(side / 200, 0.7))


def _share_of_person(part: Image, front: Image, plate: Image) -> tuple[Array, Array, Array]:
    """Coverage by the person, from the position of a pixel's color between those of plate and front.

    Returns:
        [h, w] 0..1 each: the coverage; whether the color is a mixture of both; whether both differ enough.
    """
    toward = front.astype(np.float32) - plate
    off = part.astype(np.float32) - plate
    length = np.sqrt((toward * toward).sum(-1))
    along = (off * toward).sum(-1) / np.maximum(length, 1)
    beside = np.sqrt(((off * off).sum(-1) - along * along).clip(0))
    reference = np.maximum(length, _CONTRAST)
    is_mixture = ramp(beside / reference, _THIRD_COLOR[1], _THIRD_COLOR[0])
    return ramp(along * length / reference**2, _NOISE, 1), is_mixture, ramp(length, _CONTRAST / 2, _CONTRAST)


def _with_photo(plate: Image, part: Image, share: Array) -> Image:
    """The plate, with the photo itself where both are similar: as sharp as the photo, and without an edge.

    Args: share: [h, w] 0..1, where the photo may be shown.
    """
    apart = np.abs(part.astype(np.float32) - plate).max(-1)
    share = share * ramp(cv2.GaussianBlur(apart, (0, 0), _SMOOTHED_PX), *_SAME[::-1])
    return cv2.convertScaleAbs(plate + share[..., None] * (part.astype(np.float32) - plate))


def _front(part: Image, alpha: Array, plate: Image, around: Image) -> Image:
    """Foreground colors that reproduce the photo when composited over the plate; `around` where the matte is low."""
    a = alpha[..., None]
    solved = (part - (1 - a) * plate) / np.maximum(a, _SOLVED[0])
    share = ramp(a, *_SOLVED)
    return np.asarray(np.rint((around + share * (solved - around)).clip(0, 255)).astype(np.uint8))


def _free(alpha: Array, canvas: Canvas, points: NDArray[Any], width: int) -> tuple[bool, bool, bool]:
    """At which borders (left, top, right) the person does not reach the square's border, so that it can move freely."""
    crop, top = canvas.crop, canvas.top
    chin = round(float(points[OVAL, 1].max()) - top)
    upper = alpha[: max(chin, 1)]

    def reached(border: Array) -> bool:
        """Whether a border [n, 2] shows the person; single pixels of a noisy background do not count."""
        size = max(round(_SPECK * crop.side), 1)
        return bool(cv2.blur(border.mean(1, keepdims=True), (1, size)).max() > _REACHED)

    left = crop.left < 0 or not reached(upper[:, :2])
    right = crop.left + crop.side > width or not reached(upper[:, -2:])
    return left, crop.top < 0 or not reached(alpha[:2].T), right


def before(picture: Image, alpha: Array, canvas: Canvas, behind: Image | None, shown: Box) -> Image:
    """The picture that a LayeredPainter warps in front of another background.

    Args:
        picture: uint8 RGB [H, W, 3].
        alpha: [H, W] 0..1, matte of the person in it.
        canvas: the part that moves.
        behind: the background of what is shown; None: transparent.
        shown: what frames show of the picture.
    """
    front = foreground(picture, alpha)
    if behind is None:
        return front
    out = front.copy()
    blend(shown.part(out), behind, in_bytes(shown.part(alpha)))
    canvas.part(out)[...] = canvas.part(front)
    return out


class LayeredPainter(PicturePainter):
    """A painter whose frames show the person alone, or over a still background."""

    def __init__(
        self,
        painter: PicturePainter,
        alpha: Array,
        canvas: Canvas,
        behind: Image | None,
        still: tuple[Image, NDArray[Any]] | None = None,
        neck: tuple[Neck, Box] | None = None,
    ) -> None:
        """Args:
        painter: draws the person's colors with alpha as matte, and the final frame outside the canvas. The other
            arrays and the canvas are those of the part of its picture that it shows.
        alpha: [H, W] 0..1, matte of that picture.
        canvas: the part of the picture that moves.
        behind: uint8 RGB [H, W, 3]; None: frames have four channels with straight alpha.
        still: the photo and its face points [478, 3]; shown instead of the scene while the face does not move.
        neck: behind the head, and what the painter shows of the photo.
        """
        self._painter, self._canvas, self._behind, self._still = painter, canvas, behind, still
        self._alpha, self._neck = in_bytes(alpha), neck

    def prepare(self, flow: Flow, target: NDArray[Any], outputs: Any = None, share: float = 1.0) -> Prepared:
        return self._painter.prepare(flow, target, outputs, share)

    def finish(self, prepared: Prepared) -> Image:
        """uint8 RGB [H, W, 3], or RGBA [H, W, 4]."""
        image = self._painter.finish(prepared)
        alpha = self._painter.moved_matte
        part, behind = self._canvas.part(image), None
        if self._behind is not None:
            behind = self._canvas.part(self._behind)
            blend(part, behind, alpha)
        if self._neck is not None:
            neck, shown_part = self._neck
            left_top = shown_part.corner[:2] + np.array([self._canvas.left, self._canvas.top])
            neck.lay(part, behind, alpha, prepared.target, left_top)
        if behind is None:
            moved = self._alpha.copy()
            self._canvas.part(moved)[...] = alpha
            return np.dstack([image, moved])
        if self._still is not None:
            photo, points = self._still
            share = shown(prepared.target, points, self._canvas.crop)
            if share < 1:
                part[...] = cv2.addWeighted(part, share, self._canvas.part(photo), 1 - share, 0)
        return image

    @property
    def moved_matte(self) -> NDArray[np.uint8]:
        """See PicturePainter."""
        return self._painter.moved_matte


def shown(target: NDArray[Any], points: NDArray[Any], crop: Crop) -> float:
    """0..1 weight of the scene against the unchanged photo; target, points: [478, 3] of frame and photo."""
    return float(ramp(float(np.abs(target[:, :2] - points[:, :2]).max()) / crop.side, *_FACE_MOVES))


def blend(front: Image, behind: Image, alpha: NDArray[np.uint8]) -> None:
    """Composite front, uint8 RGB [h, w, 3], over behind; in place in front; alpha: [h, w], 255 is opaque."""
    for top in range(0, len(front), _BAND):
        rows = slice(top, top + _BAND)
        columns = np.flatnonzero(alpha[rows].any(0))
        left, right = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
        front[rows, :left], front[rows, right:] = behind[rows, :left], behind[rows, right:]
        if left == right:
            continue
        part = rows, slice(left, right)
        share = np.multiply(alpha[part], np.float32(1 / 255), dtype=np.float32)
        over, under = np.ascontiguousarray(front[part]), np.ascontiguousarray(behind[part])
        front[part] = cv2.blendLinear(over, under, share, 1 - share)


class EdgeLimit:
    """Limits the shift of a head so that parts which the picture's edge cuts do not move into the picture.

    Hair that the upper edge cuts does not move down, and hair that a side cuts does not move inward; the opposite
    directions are free. The whole head is shifted back by the excess.
    """

    def __init__(self, points: NDArray[Any], alpha: Array) -> None:
        """Args: points: [478, 3] face points of the photo; alpha: [H, W] its matte."""
        width = alpha.shape[1]
        self._points = np.asarray(points, np.float64)
        self._tolerance = _TOLERANCE * Crop.around(points).side
        skull = head_pose(points)
        self._edges: list[tuple[int, int, NDArray[np.float64], NDArray[np.float64]]] = []
        lines = ((1, 1, alpha[0], 0), (0, 1, alpha[:, 0], 0), (0, -1, alpha[:, -1], width - 1))
        for axis, sign, line, at in lines:
            cut = np.flatnonzero(line > _CUT_BY_EDGE)
            if not len(cut):
                continue
            chosen = cut[np.linspace(0, len(cut) - 1, _SAMPLES).round().astype(int)].astype(np.float64)
            places = np.empty((_SAMPLES, 3))
            places[:, axis], places[:, 1 - axis] = at, chosen
            places[:, 2] = skull.apply(np.array([[0.0, 0.0, 3.0]]))[0, 2]
            follow = follows(places, skull)
            if (follow > 0.05).any():
                self._edges.append((axis, sign, places, follow))

    def __call__(self, target: NDArray[Any]) -> NDArray[Any]:
        """The face points [478, 3] of a frame, shifted back if necessary."""
        if not self._edges:
            return target
        motion = skull_motion(self._points, target[:NUM_POINTS])
        back = np.zeros(3)
        for axis, sign, places, follow in self._edges:
            moved = sign * (motion.apply(places) - places)[:, axis] * follow
            back[axis] -= sign * max(float(moved.max()) - self._tolerance, 0.0)
        return target + back
