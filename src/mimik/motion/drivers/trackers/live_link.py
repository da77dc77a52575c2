"""Epic's Live Link Face: binary packets of an iPhone, and its CSV recordings, which Blender and Unreal import.

A packet is a version (one byte, 6), the device's and the subject's name (length as int32, UTF-8), a frame number
(int32), a fraction of a frame (float32), the frame rate as numerator and denominator (int32 each), a count (one byte),
and as many float32: 52 blendshapes and nine angles. All numbers are big-endian. Angles are radians by the axes of
ARKit: yaw to the picture's right, pitch down, roll counter-clockwise.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from mimik.face.landmarks import BLENDSHAPES
from mimik.motion.drivers.stream import Rest, Sample, sample_of, unpack
from mimik.motion.files import Motion

# fmt: off
# In the order of the packets.
NAMES = [
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight", "jawForward", "jawLeft", "jawRight", "jawOpen", "mouthClose", "mouthFunnel",
    "mouthPucker", "mouthLeft", "mouthRight", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp",
    "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft",
    "noseSneerRight", "tongueOut",
]
_HEAD_ANGLES = [
    "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch",
    "RightEyeRoll",
]
# fmt: on
_COUNT = len(NAMES) + len(_HEAD_ANGLES)
_VERSION = 6
_MAX_NAME = 512  # bytes
# The columns of the app's own recordings, which have the sides of jaw and mouth the other way round.
CSV_SUFFIX = ".csv"
_SWAPPED = {"jawLeft": "jawRight", "jawRight": "jawLeft", "mouthLeft": "mouthRight", "mouthRight": "mouthLeft"}
_COLUMNS = [_SWAPPED.get(name, name) for name in NAMES]


class LiveLink:
    """Reads packets of Live Link Face."""

    def __call__(self, packet: bytes, arrived_s: float) -> Sample:
        """A packet as a sample; one without values says that no face is seen.

        Raises ValueError, saying what is wrong with it.
        """
        if len(packet) < 9 or packet[0] != _VERSION:
            raise ValueError("is not a packet of Live Link Face")
        at = 1
        for _ in range(2):
            length = int(unpack("!i", packet, at)[0])
            if not 0 <= length <= _MAX_NAME:
                raise ValueError("has a name of an impossible length")
            at += 4 + length
        frame, fraction, rate, per, count = unpack("!ifiiB", packet, at)
        if rate <= 0 or per <= 0 or not math.isfinite(fraction):
            raise ValueError("has an impossible frame rate")
        time_s = (frame + fraction) * per / rate
        if count == 0:
            return Sample(time_s, np.zeros(len(BLENDSHAPES)), np.zeros(6), seen=False)
        if count != _COUNT:
            raise ValueError(f"has {count} values instead of {_COUNT}")
        return sample_from(time_s, np.array(unpack(f"!{_COUNT}f", packet, at + 17)))


def sample_from(time_s: float, values: np.ndarray) -> Sample:
    """The sample of 61 values in the order of the packets. Raises ValueError if one is not a number."""
    if not np.isfinite(values).all():
        raise ValueError("has a value that is not a number")
    blendshapes = np.zeros(len(BLENDSHAPES))
    for name, value in zip(NAMES, values, strict=False):
        if name in BLENDSHAPES:
            blendshapes[BLENDSHAPES.index(name)] = np.clip(value, -1, 1)
    yaw, pitch, roll = np.degrees(values[len(NAMES) : len(NAMES) + 3])
    head = np.array([np.clip(yaw, -90, 90), np.clip(pitch, -90, 90), np.clip(-roll, -180, 180), 0, 0, 0])
    return Sample(time_s, blendshapes, head)


_TIMECODE = re.compile(r"\s*(\d{1,2})[:;.](\d\d)[:;.](\d\d)[:;.](\d{1,3}(?:\.\d+)?)\s*")
_RATES = (24, 25, 30, 48, 50, 60, 90, 100, 120)  # frame rates of timecodes
_UNKNOWN_RATE = 30  # of a recording of less than a second
_DAY_S = 86_400.0


def csv_samples(lines: Iterable[str]) -> Iterator[tuple[int, Sample]]:
    """The samples of a recording of Live Link Face, with the numbers of their lines.

    A timecode counts frames within a second, and does not say how many a second has: the largest of them does. What
    has the time of the line before is left out. The app counts the head's pose from its camera: that of the first face
    is taken for rest, as in a live call. `csv_lines` counts it from rest, and leaves the eyes' angles at 0.

    Args:
        lines: of the file, the first with the columns' names.

    Raises:
        ValueError: with the number of a line, and what is wrong with it.
    """
    rows = (line.rstrip("\r\n").split(",") for line in lines)
    titles = [title.strip().lower() for title in next(rows, [])]
    wanted = [name.lower() for name in (*NAMES, *_HEAD_ANGLES)]
    places = [titles.index(name) if name in titles else -1 for name in wanted]
    if "timecode" not in titles or wanted[NAMES.index("jawOpen")] not in titles:
        raise ValueError(1, "has no columns Timecode and JawOpen")
    read: list[tuple[int, float, float, list[str]]] = []  # line, whole seconds, frames after them, values
    for number, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        time = _TIMECODE.fullmatch(row[titles.index("timecode")]) if len(row) > titles.index("timecode") else None
        if time is None:
            raise ValueError(number, "has no timecode such as 00:00:01:12.000")
        hours, minutes, seconds = (int(time[i]) for i in (1, 2, 3))
        read.append((number, 3600.0 * hours + 60 * minutes + seconds, float(time[4]), row))
    eyes = slice(len(NAMES) + 3, None)
    counts_from_camera = any(_is_nonzero(_cells_at(row, places)[eyes]) for *_, row in read)
    rest = Rest()
    rate = _rate([(seconds, frames) for _, seconds, frames, _ in read])
    last_s, days = -math.inf, 0
    for number, whole_s, frames, row in read:
        time_s = whole_s + frames / rate + days * _DAY_S
        if time_s < last_s - _DAY_S / 2:  # past midnight
            days += 1
            time_s += _DAY_S
        if time_s == last_s:
            continue
        last_s = time_s
        cells = _cells_at(row, places)
        if not any(cells):  # the app has lost the face
            yield number, Sample(time_s, np.zeros(len(BLENDSHAPES)), np.zeros(6), seen=False)
            continue
        try:
            sample = sample_from(time_s, np.array([float(cell or 0) for cell in cells]))
        except ValueError:
            raise ValueError(number, "has a value that is not a number") from None
        if counts_from_camera:
            rest(replace(sample, blendshapes=np.zeros_like(sample.blendshapes), is_rest=True))
            counts_from_camera = False
        yield number, rest(sample)


def _cells_at(row: list[str], places: list[int]) -> list[str]:
    return [row[place].strip() if 0 <= place < len(row) else "" for place in places]


def _is_nonzero(cells: list[str]) -> bool:
    try:
        return any(float(cell or 0) for cell in cells)
    except ValueError:
        return False  # told where the line is read


def _rate(times: list[tuple[float, float]]) -> int:
    """Frames a second of timecodes.

    Args: times: whole seconds, and frames after them.
    """
    most = math.floor(max((frames for _, frames in times), default=0.0)) + 1
    if len({seconds for seconds, _ in times}) < 2:
        return next((rate for rate in _RATES if rate >= max(most, _UNKNOWN_RATE)), most)
    ends = [int(a[1]) for a, b in itertools.pairwise(times) if b[0] > a[0]]
    if ends.count(most - 1) > len(ends) / 2:  # most seconds are whole
        return most
    return next((rate for rate in _RATES if rate >= most), most)


def csv_lines(motion: Motion) -> Iterator[str]:
    """A motion as a recording of Live Link Face, line by line, each with its end.

    Blendshapes are 0..1; angles of the eyes are left at 0, since the eyeLook blendshapes say where they look.
    """
    titles = [name[:1].upper() + name[1:] for name in _COLUMNS] + _HEAD_ANGLES
    yield ",".join(["Timecode", "BlendshapeCount", *titles]) + "\n"
    for number, motion_frame in enumerate(motion.frames()):
        sample = sample_of(motion_frame, motion.reference, number / motion.fps)
        known = dict(zip(BLENDSHAPES, sample.blendshapes.clip(0, 1), strict=True))
        yaw, pitch, roll = np.radians(sample.head[:3])
        values = [*(known.get(name, 0.0) for name in _COLUMNS), yaw, pitch, -roll, *[0.0] * 6]
        yield ",".join([_timecode(number, motion.fps), str(_COUNT), *(f"{value:.6f}" for value in values)]) + "\n"


def _timecode(number: int, fps: float) -> str:
    """Hours, minutes, seconds, frames and thousandths of a frame."""
    rate = max(1, round(fps))
    seconds, frames = divmod(number, rate)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{frames:02}.000"
