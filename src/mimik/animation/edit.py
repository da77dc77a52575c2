"""Edit the expression, gaze and pose of a photo by numeric parameters instead of a driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from mimik.animation.sliders import Edit
from mimik.animation.source_frame import SourceFrame
from mimik.arrays import smoothstep
from mimik.config import AnimateConfig, InputError
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face, Image, Landmarker, canonical_mesh, mirror_order
from mimik.motion.contact import LIPS_TOUCH, lip_openings, with_chin_below_lip, with_lip_openings
from mimik.motion.drivers.stream import UPPER_LID_SHARE
from mimik.motion.expression import Float, expression_basis
from mimik.motion.frames import MotionFrame, Reference, rotation_matrix, rotation_vector, shift_of_turn, still
from mimik.motion.regions import region_weights
from mimik.provenance.outputs import check_output

EDIT_STEPS = 5  # steps of similar duration: reading, separating, trying, drawing, signing
PICTURES = (".png", ".jpg", ".jpeg", ".webp")

# Blendshapes at slider value 1, and the region they move; motion of other regions in the basis is noise.
_SHAPES: dict[str, tuple[dict[str, float], str]] = {
    "smile": ({"mouthSmile": 0.85, "mouthUpperUp": 0.15}, "lips"),
    "mouth": ({"jawOpen": 0.55, "mouthSmile": -0.4}, "lips"),  # an opening jaw pulls the corners inward
    "brows": ({"browInnerUp": 0.7, "browOuterUp": 0.9}, "brows"),
}
# The upper lip rises off the teeth as the mouth opens, and early: in 76 frames of the training set against closed lips
# of the same person, by 2.6 mm at a gap of 6 to 9 mm, by 3.9 mm at 16 to 24 mm.
_LIP_RISES, _LIP_RISES_BY = 0.8, 0.3  # mouthUpperUp at a very large opening; slider value of half of it
_LIPS_PARTED = 0.06, 0.14  # gap in the photo, in eye distances, over which its upper lip counts as risen already
_GAZE_CM = np.array([0.45, 0.3])  # largest shift of an iris in x and y; an eye is 3 cm wide
# Down and up: motion of the upper lid relative to the iris' vertical motion (training frames: 1.7 and 0.9 to 1.4);
# motion of the lower lid relative to the upper one; exponent of the lid's arch.
_LID_FOLLOWS, _LOWER_LID_FOLLOWS, _LID_ARCH = (1.7, 1.2), (0.45, 0.7), (1.0, 0.5)
# Largest share of the eye's opening by which it closes with a falling gaze, so that it stays open, and opens with a
# rising one, so that it does not stare; training frames that look up are 12 % wider open.
_LIDS_CLOSE, _LIDS_OPEN = 0.65, 0.22
_WIDE = 0.35  # increase of the eye's opening at --blink -1, relative


def edited_motion_frame(edit: Edit | Mapping[str, float], shape: Float) -> MotionFrame:
    """The motion frame of an edit, for a face of this shape.

    Args:
        edit: the changes; values of a mapping may exceed the range of the sliders.
        shape: [478, 3] the person's face in the face frame, centimeters.
    """
    amounts = asdict(edit) if isinstance(edit, Edit) else edit
    blink, gaze_x, gaze_y = amounts["blink"], amounts["gaze_x"], amounts["gaze_y"]
    offset = np.zeros_like(shape)
    mesh = canonical_mesh().vertices
    weights = region_weights()
    scale = float(np.linalg.norm(shape[61] - shape[291]) / np.linalg.norm(mesh[61] - mesh[291]))
    for name, (shapes, region) in _SHAPES.items():
        amount = amounts[name]
        movement = _symmetric(shapes)
        if amount < 0:
            # Drooping mouth corners do not move inward, and brows move less down than up.
            movement = movement * ([0.0, 0.6, 0.0] if name == "smile" else 0.6)
        if name == "mouth" and amount > 0:
            rises = _LIP_RISES / (amount + _LIP_RISES_BY) * (1 - smoothstep(lip_openings(shape).max(), *_LIPS_PARTED))
            movement = movement + rises * _symmetric({"mouthUpperUp": 1.0})
        change = amount * scale * movement * weights[region][:, None]
        if name == "smile" and lip_openings(shape).max() <= LIPS_TOUCH:
            # The basis was fitted to smiles that show teeth. Lips that touch stay closed; --mouth opens them.
            change = with_lip_openings(shape + change, lip_openings(shape)) - shape
        offset += change
    offset = with_chin_below_lip(shape + offset, shape) - shape

    # Gaze: irises, and lids with vertical gaze.
    eye_cm = np.mean([np.linalg.norm(shape[a] - shape[b]) for a, b in ((33, 133), (362, 263))])
    gaze = np.array([gaze_x, gaze_y]) * _GAZE_CM * (eye_cm / 3)
    offset[faces.IRISES, :2] += gaze
    for upper, lower in (
        (faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER),
        (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER),
    ):
        up = int(gaze[1] < 0)
        arch = np.sin(np.linspace(0, np.pi, len(upper)))[:, None].clip(0) ** _LID_ARCH[up]
        middle = len(upper) // 2
        room = max(float(shape[lower[middle], 1] - shape[upper[middle], 1]), 0.0) / (1 - _LOWER_LID_FOLLOWS[up])
        way = float(np.clip(_LID_FOLLOWS[up] * gaze[1], -_LIDS_OPEN * room, _LIDS_CLOSE * room))
        offset[upper, 1:2] += way * arch
        offset[lower, 1:2] += _LOWER_LID_FOLLOWS[up] * way * arch
        opening = (shape[lower] + offset[lower]) - (shape[upper] + offset[upper])
        closed = blink if blink > 0 else blink * _WIDE
        offset[upper] += UPPER_LID_SHARE * closed * opening
        offset[lower] -= (1 - UPPER_LID_SHARE) * closed * opening

    # x to the right, y down, z away: a positive turn about x lifts the chin, about y takes the nose to the left.
    turn = np.eye(3)
    for axis, degrees in ((0, amounts["pitch"]), (1, -amounts["yaw"]), (2, amounts["roll"])):
        turn = rotation_matrix(np.radians(degrees) * np.eye(3)[axis]) @ turn
    return replace(still(), turn=rotation_vector(turn), shift=shift_of_turn(turn), offset=offset)


def _symmetric(shapes: dict[str, float]) -> Float:
    """[478, 3] displacement of the expression basis for blendshapes of both sides, averaged with its mirror image."""
    values = np.zeros(len(BLENDSHAPES))
    for name, value in shapes.items():
        for side in ("", "Left", "Right"):
            if name + side in BLENDSHAPES:
                values[BLENDSHAPES.index(name + side)] = value
    movement = expression_basis().expression(values)
    return (movement + movement[mirror_order()[0]] * [-1, 1, 1]) / 2


# What is measured in an edited picture, and its tolerance.


def _mean_of(face: Face, *names: str) -> float:
    return float(np.mean([face.blendshapes[BLENDSHAPES.index(name)] for name in names]))


def _angle_of(number: int) -> Callable[[Face], float]:
    return lambda face: faces.head_pose(face.points).degrees[number]


@dataclass(frozen=True)
class _Measure:
    """The measurement of one slider's effect by the landmark detector."""

    read: Callable[[Face], float]  # of a face
    # measurement at slider value 1; None: the slider's value is added to the photo's measurement
    full: float | None
    tolerance: float  # of the measurement
    furthest: float  # largest multiple of the slider's value that is tried


_MEASURES = {
    "smile": _Measure(lambda f: _mean_of(f, "mouthSmileLeft", "mouthSmileRight"), 0.8, 0.06, 1.6),
    "mouth": _Measure(lambda f: _mean_of(f, "jawOpen"), 0.72, 0.06, 1.6),
    "brows": _Measure(lambda f: _mean_of(f, "browInnerUp", "browOuterUpLeft", "browOuterUpRight"), 0.75, 0.06, 2.1),
    "gaze_x": _Measure(
        lambda f: _mean_of(f, "eyeLookOutLeft", "eyeLookInRight") - _mean_of(f, "eyeLookInLeft", "eyeLookOutRight"),
        0.75,
        0.08,
        2.0,
    ),
    "gaze_y": _Measure(
        lambda f: _mean_of(f, "eyeLookDownLeft", "eyeLookDownRight") - _mean_of(f, "eyeLookUpLeft", "eyeLookUpRight"),
        0.7,
        0.05,
        2.4,
    ),
    "yaw": _Measure(_angle_of(0), None, 1.5, 1.7),
    "pitch": _Measure(_angle_of(1), None, 1.5, 1.9),
    "roll": _Measure(_angle_of(2), None, 1.5, 1.3),
}
_OPEN_LOOP = ("smile", "brows")  # sliders that are not measured below 0, because no blendshape measures them
_LEAST_ROOM = 0.25  # smallest initial strength of a slider, if the photo shows the expression already
_MAX_TRIALS = 5
_TRIAL_PX = 320  # side of the head's square in a trial
_REPORTED_DEGREES = 3.0  # an angle that is missed by more is reported
_REPORTED_SHARE = 0.8  # an expression that reaches a smaller share is reported
_REPORTED_FROM = 0.75  # slider value from which that applies; small expressions are detected too weakly


class Editable(Protocol):
    """The part of Avatar that Editor uses."""

    @property
    def landmarker(self) -> Landmarker: ...

    def source_frame(self, config: AnimateConfig, *, limit_side: bool = False) -> SourceFrame: ...


class Editor:
    """Edits the photo of one person by sliders.

    An edit is rendered on a small picture of the head, and its strength is adjusted until the landmark detector
    measures the requested values, or the photo allows no more.
    """

    def __init__(self, avatar: Editable, config: AnimateConfig | None = None) -> None:
        """Args: avatar: the person; config: model, view and size; its driver options are not used."""
        self._avatar, self._config = avatar, config or AnimateConfig()
        self._portrait = avatar.source_frame(self._config)
        pose = faces.head_pose(self._portrait.face.points)
        self._shape = pose.invert(self._portrait.face.points)
        self._retarget = self._portrait.retarget(self._own(self._portrait.face), exact=True)
        self._found: dict[Edit, tuple[dict[str, float], tuple[str, ...]]] = {}

    @staticmethod
    def _own(face: Face) -> Reference:
        """Retargeting from the person to itself."""
        pose = faces.head_pose(face.points)
        values = face.blendshapes.astype(np.float64)
        return Reference(pose.invert(face.points), pose.rotation, values, eyelids_touch=(0.0, 0.0))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        return self._portrait.size

    @cached_property
    def _trial(self) -> Callable[[Mapping[str, float]], Face | None]:
        """Render slider amounts at a small size and detect the face there; None if none is found."""
        config = replace(self._config, model="geometry", size=_TRIAL_PX, frame="crop", background=None)
        small = self._avatar.source_frame(config)
        retarget = small.retarget(self._own(small.face), exact=True)
        shape = faces.head_pose(small.face.points).invert(small.face.points)

        def find(amounts: Mapping[str, float]) -> Face | None:
            points = retarget(edited_motion_frame(amounts, shape))
            expected = replace(small.face, points=points.astype(np.float32))
            return self._avatar.landmarker.follow(small.paint(small.flow(points), points), expected)

        return find

    def _amounts(self, edit: Edit) -> tuple[dict[str, float], tuple[str, ...]]:
        """The amount of each slider for which the measurement matches the edit, and notes on values out of reach."""
        if edit not in self._found:
            if len(self._found) > 64:
                self._found.clear()
            self._found[edit] = self._corrected(edit)
        return self._found[edit]

    def _corrected(self, edit: Edit) -> tuple[dict[str, float], tuple[str, ...]]:
        amounts: dict[str, float] = asdict(edit)
        requested = {
            name: value
            for name, value in asdict(edit).items()
            if value and name in _MEASURES and not (name in _OPEN_LOOP and value < 0)
        }
        rest = self._trial(dict.fromkeys(amounts, 0.0)) if requested else None
        if rest is None:
            return amounts, ()
        before = {name: _MEASURES[name].read(rest) for name in requested}
        wanted = {name: _target_measure(name, value, before[name]) for name, value in requested.items()}
        best, best_error, reached = dict(amounts), np.inf, before
        last: dict[str, tuple[float, float]] = {}  # amounts and measurements of the previous step
        held: set[str] = set()
        stalled: set[str] = set()
        for name, value in requested.items():
            amounts[name] = value * min(_slider_room(name, value, before[name]), _MEASURES[name].furthest)
            if abs(wanted[name] - before[name]) < _MEASURES[name].tolerance:
                held.add(name)  # the photo shows it already
        for _ in range(_MAX_TRIALS):
            face = self._trial(amounts)
            if face is None:
                break
            now = {name: _MEASURES[name].read(face) for name in requested}
            worst = max(abs(wanted[name] - now[name]) / _MEASURES[name].tolerance for name in requested)
            if worst < best_error:
                best, best_error, reached = dict(amounts), worst, now
            if worst <= 1:
                break
            for name, value in requested.items():
                if name in held:
                    continue
                way, done = wanted[name] - before[name], now[name] - before[name]
                amount, earlier = last.get(name, (0.0, before[name]))
                stalls = abs(now[name] - earlier) < _MEASURES[name].tolerance / 2 and name in last
                if stalls and name in stalled:
                    # Twice a larger amount changed the picture but not the measurement.
                    amounts[name] = amount
                    held.add(name)
                    continue
                (stalled.add if stalls else stalled.discard)(name)
                last[name] = amounts[name], now[name]
                # Increase the amount if it had little effect, up to the slider's limit.
                factor = float(np.clip(way / done, 0.6, 1.4)) if done * way > 0 else 1.4
                furthest = abs(value) * _MEASURES[name].furthest
                amounts[name] = float(np.clip(amounts[name] * factor, -furthest, furthest))
        return best, tuple(
            _shortfall_note(name, requested[name], before[name], wanted[name], reached[name]) for name in requested
        )

    def notes(self, edit: Edit) -> list[str]:
        """Notes for the user on changes that this photo does not allow."""
        return [note for note in self._amounts(edit)[1] if note]

    def points(self, edit: Edit) -> Float:
        """[478, 3] face points of the edited picture, pixels."""
        return self._retarget(edited_motion_frame(self._amounts(edit)[0], self._shape))

    def __call__(self, edit: Edit) -> Image:
        """The edited photo, uint8 RGB [H, W, 3]; neither signed nor marked: see Avatar.edit and provenance.Marker."""
        if edit == Edit():
            return self._portrait.picture.copy()
        points = self.points(edit)
        return self._portrait.paint(self._portrait.flow(points), points)


def _slider_room(name: str, value: float, before: float) -> float:
    """0..1 initial strength of a slider, reduced if the photo already shows the expression, to avoid grimaces."""
    full = _MEASURES[name].full
    if full is None:
        return 1.0
    return float(np.clip(1 - before * np.sign(value) / full, _LEAST_ROOM, 1))


def _target_measure(name: str, value: float, before: float) -> float:
    """The values that the landmark detector should measure in the result."""
    full = _MEASURES[name].full
    if full is None:
        return before + value
    full = float(np.copysign(max(full, before * np.sign(value)), value))
    return before + abs(value) * (full - before)


def _shortfall_note(name: str, value: float, before: float, wanted: float, reached: float) -> str:
    """A note if the photo does not allow the requested value; "" if it does."""
    option = f"--{name.replace('_', '-')}"
    if _MEASURES[name].full is None:
        if abs(reached - wanted) <= _REPORTED_DEGREES:
            return ""
        return f"{option} {value:g}: this photo allows only {reached - before:.0f} degrees"
    if (
        abs(value) < _REPORTED_FROM
        or abs(wanted - before) < 0.1
        or (reached - before) / (wanted - before) >= _REPORTED_SHARE
    ):
        return ""
    part = max(0.0, (reached - before) / (wanted - before))
    return f"{option} {value:g}: this photo allows only {100 * part:.0f} % of it"


@dataclass(frozen=True)
class Edited:
    """A picture that was written."""

    width: int  # pixels
    height: int  # pixels
    notes: list[str]  # on changes that the photo does not allow


def check_changes(edit: Edit) -> None:
    """Raises:
    InputError: if the edit changes nothing: the file would be a copy.
    """
    if edit == Edit():
        names = [f"--{name.replace('_', '-')}" for name in asdict(edit)]
        raise InputError(
            f"no change was requested; pass at least one of {', '.join(names)}, such as --smile 0.6 for half a smile."
        )


def check_edit(out: Path, *, force: bool, inputs: Sequence[Path]) -> None:
    """Check, before any work, that the output file can be written. Raises InputError if not."""
    if out.suffix.lower() not in PICTURES or "%" in out.name:
        raise InputError(f"-o {out}: an edit produces one picture; use a file ending in {', '.join(PICTURES)}.")
    check_output(out, force=force, inputs=inputs)
