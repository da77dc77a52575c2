"""Streams of blendshapes and head pose, for driving a person from a game engine, a face tracker or a script.

Each line is a JSON object: a time stamp, blendshapes by ARKit or MediaPipe names, and the head pose; docs/stream.md
describes the format. The same lines are stored in `.jsonl` files and received over UDP on the loopback address.
"""

from __future__ import annotations

import functools
import json
import math
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mimik.arrays import smoothstep
from mimik.face.landmarks import (
    BLENDSHAPES,
    LEFT_EYE_LOWER,
    LEFT_EYE_UPPER,
    RIGHT_EYE_LOWER,
    RIGHT_EYE_UPPER,
    mirror_order,
)
from mimik.motion.contact import closed_mouth
from mimik.motion.expression import Float, expression_basis
from mimik.motion.frames import MotionFrame, Reference, rotation_matrix, rotation_vector, shift_of_turn, still

HOLD_S = 0.5  # after a longer pause the face counts as lost, and the person returns to neutral

_HEAD_LIMITS = {
    "yaw": 90.0,
    "pitch": 90.0,
    "roll": 180.0,
    "x": 100.0,
    "y": 100.0,
    "z": 50.0,
}  # largest allowed absolute values
_UNHEARD = ("_neutral", "tongueOut")  # of MediaPipe and of ARKit; not rendered
BLENDSHAPE_INDEX = {name.lower(): number for number, name in enumerate(BLENDSHAPES)}
_NAMES = {name.lower(): name for name in (*BLENDSHAPES, *_UNHEARD)}
_CAMERA_CM = 60.0  # assumed distance between head and camera, which determines the effect of z on the size
_LIDS_MEET = 0.4, 0.7  # blink values over which the lids are closed: detected blinks reach 0.6 to 0.8
UPPER_LID_SHARE = 0.85  # share of a closing eye's motion made by the upper lid
MAX_LINE_BYTES = 1 << 16  # of one line, and of a datagram
_DECIMALS = 4


@dataclass(frozen=True)
class Sample:
    """One line: a face at one instant.

    Attributes:
        time_s: on the sender's clock.
        blendshapes: [52] in the order of BLENDSHAPES, -1..1; 0 is neutral.
        head: [6] yaw (to the picture's right), pitch (down), roll (clockwise) in degrees; x (right), y (down), z (away)
            in centimeters.
        seen: False if the sender detects no face.
        is_rest: whether this is the neutral face and head pose for the following samples.
    """

    time_s: float
    blendshapes: Float
    head: Float
    seen: bool = True
    is_rest: bool = False


def parse(line: str | bytes) -> Sample:
    """One line of a stream.

    Raises:
        ValueError: with what is wrong with it, for a sentence that says where it stands.
    """
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"is longer than {MAX_LINE_BYTES} bytes")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(record, dict):
        raise ValueError('is not a JSON object such as {"time": 0.04, "blendshapes": {"jawOpen": 0.3}}')
    if unknown := record.keys() - {"time", "blendshapes", "head", "rest"}:
        raise ValueError(f"has {_shown(min(unknown))}; use time, blendshapes, head and rest")
    if "time" not in record:
        raise ValueError("has no time")
    time_s = _number("time", record["time"], math.inf)
    shapes, head = (_table(record, name) for name in ("blendshapes", "head"))
    values = np.zeros(len(BLENDSHAPES))
    for given, value in shapes.items():
        name = _NAMES.get(given.lower())
        if name is None:
            raise ValueError(f"has the blendshape {_shown(given)}, which neither ARKit nor MediaPipe has")
        number = _number(given, value, 1.0)
        if name not in _UNHEARD:
            values[BLENDSHAPES.index(name)] = number
    if unknown := head.keys() - _HEAD_LIMITS.keys():
        raise ValueError(f"has the head's {_shown(min(unknown))}; use {', '.join(_HEAD_LIMITS)}")
    place = np.array([_number(name, head.get(name, 0.0), limit) for name, limit in _HEAD_LIMITS.items()])
    rest = record.get("rest", False)
    if not isinstance(rest, bool):
        raise ValueError("has a rest that is neither true nor false")
    return Sample(time_s, values, place, "blendshapes" in record or "head" in record, rest)


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 30 else f"{name[:30]}..")


def _table(record: dict[str, Any], name: str) -> dict[str, Any]:
    table = record.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"has {name} that is not a JSON object")
    return table


def _number(name: str, value: Any, limit: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    number = float(value) if is_number and abs(value) < 1e300 else math.nan
    if not abs(number) <= limit:  # nan, too
        accepted = "a number" if limit == math.inf else f"a number from {-limit:g} to {limit:g}"
        raise ValueError(f"has {name} {_shown(str(value))}; use {accepted}")
    return number


def unpack(form: str, packet: bytes, at: int) -> tuple[Any, ...]:
    """Numbers of a tracker's packet, as struct names them. Raises ValueError if it ends before."""
    try:
        return struct.unpack_from(form, packet, at)
    except struct.error:
        raise ValueError("is cut off") from None


def line_of(sample: Sample) -> str:
    """The inverse of parse: a line without line end; zero values are omitted."""
    record: dict[str, Any] = {"time": round(sample.time_s, _DECIMALS)}
    if sample.seen:
        shapes = zip(BLENDSHAPES, sample.blendshapes.clip(-1, 1).round(_DECIMALS).tolist(), strict=True)
        record["blendshapes"] = {name: value for name, value in shapes if value and name not in _UNHEARD}
        largest = np.array(list(_HEAD_LIMITS.values()))
        head = zip(_HEAD_LIMITS, sample.head.clip(-largest, largest).round(_DECIMALS).tolist(), strict=True)
        record["head"] = {name: value for name, value in head if value}
    if sample.is_rest:
        record["rest"] = True
    return json.dumps(record)


# Between lines and motion frames.


def _rotation(head: Float) -> Float:
    """[3, 3] of yaw, pitch and roll in degrees: pitch first, then yaw, then roll, about the picture's axes."""
    yaw, pitch, roll = np.radians(head[:3])
    x, y, z = np.eye(3)
    return rotation_matrix(roll * z) @ rotation_matrix(-yaw * y) @ rotation_matrix(pitch * x)


def head_angles(rotation: Float) -> Float:
    """[3] yaw, pitch, roll in degrees of a rotation [3, 3] in the picture's axes, while |yaw| is below 90."""
    r = rotation
    return np.degrees([math.asin(np.clip(r[2, 0], -1, 1)), math.atan2(r[2, 1], r[2, 2]), math.atan2(r[1, 0], r[0, 0])])


def mirrored_sample(sample: Sample) -> Sample:
    """The mirrored face."""
    shapes = sample.blendshapes[mirror_order()[1]]
    return replace(sample, blendshapes=shapes, head=sample.head * [-1, 1, -1, -1, 1, 1])


def motion_frame_of(sample: Sample) -> MotionFrame:
    """The motion frame of a sample, relative to its neutral. Without a position, the head turns about the neck."""
    turn, shift = _rotation(sample.head), sample.head[3:].copy()
    return replace(
        still(),
        turn=rotation_vector(turn),
        shift=shift if shift.any() else shift_of_turn(turn),
        zoom=-math.log1p(sample.head[5] / _CAMERA_CM),
        offset=_with_shut_eyes(expression_basis().expression(sample.blendshapes), sample.blendshapes),
        blendshapes=expression_basis().neutral + sample.blendshapes,
        seen=sample.seen,
    )


def _with_shut_eyes(offset: Float, blendshapes: Float) -> Float:
    """The offset [478, 3] with closed lids for a blink.

    In real faces, other blendshapes accompany a blink, and the basis was fitted to all of them. A synthetic stream
    sends the blink alone, which in the basis leaves a quarter of the eye open.
    """
    out = offset.copy()
    shape = expression_basis().shape + offset
    for name, upper, lower in (
        ("eyeBlinkRight", RIGHT_EYE_UPPER, RIGHT_EYE_LOWER),
        ("eyeBlinkLeft", LEFT_EYE_UPPER, LEFT_EYE_LOWER),
    ):
        way = smoothstep(blendshapes[BLENDSHAPES.index(name)], *_LIDS_MEET) * (shape[lower] - shape[upper])
        out[upper] += UPPER_LID_SHARE * way
        out[lower] -= (1 - UPPER_LID_SHARE) * way
    return out


def sample_of(motion_frame: MotionFrame, reference: Reference, time_s: float) -> Sample:
    """The sample of a driver's motion frame, as far as blendshapes can express it.

    Args:
        motion frame: relative to the driver's neutral face.
        reference: that face.
        time_s: of the motion frame.
    """
    away = _CAMERA_CM * math.expm1(-motion_frame.zoom)
    head = np.concatenate([head_angles(rotation_matrix(motion_frame.turn)), motion_frame.shift[:2], [away]])
    return Sample(time_s, motion_frame.blendshapes - reference.blendshapes - reference.lasting, head, motion_frame.seen)


@functools.cache
def rest_reference() -> Reference:
    """The neutral reference of blendshapes: the mean of many people, lips closed, looking at the camera."""
    basis = expression_basis()
    shape = closed_mouth(basis.shape, basis.neutral)
    return Reference(shape, rotation_matrix(np.array([basis.neutral_pitch, 0, 0])), basis.neutral)


class Rest:
    """Converts samples to differences from the last one that was marked as neutral."""

    def __init__(self) -> None:
        self._rest: Sample | None = None

    def __call__(self, sample: Sample) -> Sample:
        if sample.is_rest:
            self._rest = sample
        if self._rest is None or not sample.seen:
            return sample
        turn = _rotation(sample.head) @ _rotation(self._rest.head).T
        head = np.concatenate([head_angles(turn), sample.head[3:] - self._rest.head[3:]])
        return replace(sample, blendshapes=sample.blendshapes - self._rest.blendshapes, head=head)
