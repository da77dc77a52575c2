"""iFacialMocap (and Facemotion3D): text over UDP, as https://www.ifacialmocap.com/for-developer/ describes it.

`mouthSmile_L-35|jawOpen-12|..|=head#-21.4,-6.0,-6.6,0.03,-0.10,-0.65|rightEye#..|leftEye#..|`: blendshapes are 0 to
100, after - or &; the head has Euler angles in degrees and a position in meters, by the axes of ARKit: pitch down, yaw
to the picture's right, roll counter-clockwise.
"""

from __future__ import annotations

import math

import numpy as np

from mimik.face.landmarks import BLENDSHAPES
from mimik.motion.drivers.stream import BLENDSHAPE_INDEX, Sample

START = b"iFacialMocap_sahuasouryya9218sauhuiayeta91555dy3719"  # sent to the phone, it begins to send


class IFacialMocap:
    """Reads packets of iFacialMocap."""

    def __call__(self, packet: bytes, arrived_s: float) -> Sample:
        """A packet as a sample; it has no time of its own, so that of its arrival is taken.

        Raises ValueError, saying what is wrong with it.
        """
        try:
            fields = packet.decode("utf-8").strip().split("|")
        except UnicodeDecodeError:
            raise ValueError("is not text of iFacialMocap") from None
        blendshapes, head, num_known = np.zeros(len(BLENDSHAPES)), None, 0
        for field in fields:
            if field.startswith(("=head#", "head#")):
                head = self._head(field.partition("#")[2])
                continue
            name, _, value = field.replace("&", "-", 1).partition("-")
            index = BLENDSHAPE_INDEX.get(name.replace("_L", "Left").replace("_R", "Right").lower())
            if index is not None:
                blendshapes[index] = np.clip(self._number(value) / 100, -1, 1)
                num_known += 1
        if head is None or not num_known:
            raise ValueError("is not a packet of iFacialMocap")
        return Sample(arrived_s, blendshapes, head)

    def _head(self, text: str) -> np.ndarray:
        numbers = [self._number(part) for part in text.split(",")]
        if len(numbers) < 3:
            raise ValueError("has a head of fewer than three angles")
        pitch, yaw, roll = numbers[:3]
        return np.array([np.clip(yaw, -90, 90), np.clip(pitch, -90, 90), np.clip(-roll, -180, 180), 0, 0, 0])

    @staticmethod
    def _number(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError("has a value that is not a number")
        return number
