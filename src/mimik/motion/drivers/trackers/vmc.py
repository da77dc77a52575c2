"""The VMC protocol of VSeeFace, VMagicMirror, Warudo and others: OSC messages, https://protocol.vmc.info.

/VMC/Ext/Blend/Val has a name and a value, /VMC/Ext/Blend/Apply ends a frame, /VMC/Ext/Bone/Pos has a bone's position
and quaternion in Unity's axes. Blendshapes are those of ARKit ("perfect sync"), or the presets of a VRM avatar, from
which the mouth and eyes are made.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mimik.face.landmarks import BLENDSHAPES
from mimik.motion.drivers.stream import BLENDSHAPE_INDEX, Sample, head_angles, unpack

_BOTH = ("Left", "Right")


def _both_sides(name: str, amount: float) -> dict[str, float]:
    return {name + side: amount for side in _BOTH}


# Presets of VRM 0 and VRM 1 as blendshapes.
_VRM_PRESETS: dict[str, dict[str, float]] = {
    **{name: {"jawOpen": 0.6} for name in ("a", "aa")},
    **{name: {"jawOpen": 0.15, **_both_sides("mouthStretch", 0.5)} for name in ("i", "ih")},
    **{name: {"jawOpen": 0.15, "mouthPucker": 0.8} for name in ("u", "ou")},
    **{name: {"jawOpen": 0.3, **_both_sides("mouthStretch", 0.3)} for name in ("e", "ee")},
    **{name: {"jawOpen": 0.4, "mouthFunnel": 0.6} for name in ("o", "oh")},
    "blink": _both_sides("eyeBlink", 1.0),
    **{name: {"eyeBlinkLeft": 1.0} for name in ("blink_l", "blinkleft")},
    **{name: {"eyeBlinkRight": 1.0} for name in ("blink_r", "blinkright")},
    **{name: _both_sides("mouthSmile", 0.8) for name in ("joy", "happy", "fun", "relaxed")},
    **{name: {"browInnerUp": 0.7, **_both_sides("mouthFrown", 0.6)} for name in ("sorrow", "sad")},
    "angry": _both_sides("browDown", 0.8),
    "surprised": {"browInnerUp": 0.8, **_both_sides("browOuterUp", 0.8), **_both_sides("eyeWide", 0.6)},
    "lookup": _both_sides("eyeLookUp", 1.0),
    "lookdown": _both_sides("eyeLookDown", 1.0),
    "lookleft": {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0},
    "lookright": {"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0},
}


class Vmc:
    """Reads packets of the VMC protocol; what a frame does not repeat keeps its value."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}
        self._bones = {"neck": np.eye(3), "head": np.eye(3)}

    def __call__(self, packet: bytes, arrived_s: float) -> Sample | None:
        """A packet as a sample; None if it ends no frame. Raises ValueError, saying what is wrong with it."""
        ends = False
        for address, values in messages(packet):
            if address == "/VMC/Ext/Blend/Val" and len(values) >= 2:
                self._values[str(values[0]).lower()] = _finite(values[1])
            elif address == "/VMC/Ext/Bone/Pos" and len(values) >= 8:
                if str(values[0]).lower() in self._bones:
                    self._bones[str(values[0]).lower()] = _matrix([_finite(value) for value in values[4:8]])
                    ends = True
            elif address == "/VMC/Ext/Blend/Apply":
                ends = True
        return self._sample(arrived_s) if ends else None

    def _sample(self, arrived_s: float) -> Sample:
        blendshapes = np.zeros(len(BLENDSHAPES))
        for name, value in self._values.items():
            own = BLENDSHAPE_INDEX.get(name)
            if own is not None:
                blendshapes[own] += value
            for other, amount in _VRM_PRESETS.get(name, {}).items() if own is None else ():
                blendshapes[BLENDSHAPES.index(other)] += amount * value
        # Unity's x, y and z point the other way than the picture's right, down and away: the matrix stays the same.
        head = np.append(head_angles(self._bones["neck"] @ self._bones["head"]), [0.0, 0.0, 0.0])
        return Sample(arrived_s, blendshapes.clip(-1, 1), head)


def _finite(value: object) -> float:
    number = float(value) if isinstance(value, int | float) else np.nan
    if not np.isfinite(number):
        raise ValueError("has a value that is not a number")
    return number


def _matrix(quaternion: list[float]) -> np.ndarray:
    """[3, 3] of (x, y, z, w)."""
    q = np.array(quaternion)
    norm = float(np.linalg.norm(q))
    if norm < 1e-6:
        raise ValueError("has a quaternion of length 0")
    x, y, z, w = q / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


# Open Sound Control 1.0, as much of it as VMC uses.

_BUNDLE = b"#bundle\0"
_MAX_DEPTH = 4


def messages(packet: bytes, depth: int = 0) -> Iterator[tuple[str, list[str | int | float]]]:
    """(address, values) of every OSC message in a packet, those of bundles too. Raises ValueError if it is not OSC."""
    if packet.startswith(_BUNDLE):
        if depth == _MAX_DEPTH:
            raise ValueError("has too many bundles in one another")
        at = 16  # after the time tag
        while at < len(packet):
            size = int(unpack(">i", packet, at)[0])
            if size < 0 or at + 4 + size > len(packet):
                raise ValueError("is cut off")
            yield from messages(packet[at + 4 : at + 4 + size], depth + 1)
            at += 4 + size
        return
    address, at = _string(packet, 0)
    if not address.startswith("/"):
        raise ValueError("is not OSC")
    types, at = _string(packet, at)
    values: list[str | int | float] = []
    for kind in types[1:]:
        if kind == "s":
            text, at = _string(packet, at)
            values.append(text)
        elif kind in "if":
            values.append(unpack(">" + kind, packet, at)[0])
            at += 4
        elif kind in "TF":
            values.append(int(kind == "T"))
        else:
            raise ValueError(f"has a value of the type {kind!r}")
    yield address, values


def _string(packet: bytes, at: int) -> tuple[str, int]:
    """A string, and where the next value begins."""
    end = packet.find(b"\0", at)
    if end < 0:
        raise ValueError("is cut off")
    try:
        return packet[at:end].decode("utf-8"), (end // 4 + 1) * 4
    except UnicodeDecodeError:
        raise ValueError("is not OSC") from None
