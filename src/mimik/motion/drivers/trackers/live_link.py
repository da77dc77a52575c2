"""Epic's Live Link Face: binary packets of an iPhone, and its CSV recordings, which Blender and Unreal import.

A packet is a version (one byte, 6), the device's and the subject's name (length as int32, UTF-8), a frame number
(int32), a fraction of a frame (float32), the frame rate as numerator and denominator (int32 each), a count (one byte),
and as many float32: 52 blendshapes and nine angles. All numbers are big-endian. Angles are radians by the axes of
ARKit: yaw to the picture's right, pitch down, roll counter-clockwise.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import numpy as np

from mimik.face.landmarks import BLENDSHAPES
from mimik.motion.drivers.stream import Sample, sample_of
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
_ANGLES = [
    "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch",
    "RightEyeRoll",
]
# fmt: on
_COUNT = len(NAMES) + len(_ANGLES)
_VERSION = 6
_MAX_NAME = 512  # bytes
CSV_SUFFIX = ".csv"
# The columns of the app's own recordings, which have the sides of jaw and mouth the other way round.
_TURNED = {"jawLeft": "jawRight", "jawRight": "jawLeft", "mouthLeft": "mouthRight", "mouthRight": "mouthLeft"}
_COLUMNS = [_TURNED.get(name, name) for name in NAMES]


class LiveLink:
    """Reads packets of Live Link Face."""

    def __call__(self, packet: bytes, arrived_s: float) -> Sample:
        """A packet as a sample; one without values says that no face is seen.

        Raises:
            ValueError: saying what is wrong with it.
        """
        if len(packet) < 9 or packet[0] != _VERSION:
            raise ValueError("is not a packet of Live Link Face")
        at = 1
        for _ in range(2):
            length = int(self._unpack("!i", packet, at)[0])
            if not 0 <= length <= _MAX_NAME:
                raise ValueError("has a name of an impossible length")
            at += 4 + length
        frame, fraction, rate, per, count = self._unpack("!ifiiB", packet, at)
        if rate <= 0 or per <= 0 or not math.isfinite(fraction):
            raise ValueError("has an impossible frame rate")
        time_s = (frame + fraction) * per / rate
        if count == 0:
            return Sample(time_s, np.zeros(len(BLENDSHAPES)), np.zeros(6), seen=False)
        if count != _COUNT:
            raise ValueError(f"has {count} values instead of {_COUNT}")
        return sample_from(time_s, np.array(self._unpack(f"!{_COUNT}f", packet, at + 17)))

    @staticmethod
    def _unpack(form: str, packet: bytes, at: int) -> tuple[float, ...]:
        try:
            return struct.unpack_from(form, packet, at)
        except struct.error:
            raise ValueError("is too short") from None


def sample_from(time_s: float, values: np.ndarray) -> Sample:
    """The sample of 61 values in the order of the packets.

    Raises:
        ValueError: if one is not a number.
    """
    if not np.isfinite(values).all():
        raise ValueError("has a value that is not a number")
    blendshapes = np.zeros(len(BLENDSHAPES))
    for name, value in zip(NAMES, values, strict=False):
        if name in BLENDSHAPES:
            blendshapes[BLENDSHAPES.index(name)] = np.clip(value, -1, 1)
    yaw, pitch, roll = np.degrees(values[len(NAMES) : len(NAMES) + 3])
    head = np.array([np.clip(yaw, -90, 90), np.clip(pitch, -90, 90), np.clip(-roll, -180, 180), 0, 0, 0])
    return Sample(time_s, blendshapes, head)


def csv_lines(motion: Motion) -> Iterator[str]:
    """A motion as a recording of Live Link Face, line by line, each with its end.

    Blendshapes are 0..1; angles of the eyes are left at 0, since the eyeLook blendshapes say where they look.
    """
    titles = [name[:1].upper() + name[1:] for name in _COLUMNS] + _ANGLES
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
