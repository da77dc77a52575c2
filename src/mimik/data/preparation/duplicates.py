"""Fingerprints of clips, and detection of duplicates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np

from mimik.arrays import Array
from mimik.face.landmarks import BLENDSHAPES, Image

_SIGNALS = [BLENDSHAPES.index(name) for name in ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft", "browInnerUp")]
_SIGNAL_TIMES = 16
# Of 128 bits; root mean square in steps of half a degree or a hundredth. A copy at crf 26 measured 6 and 1.0, the
# nearest two clips of one person in one place 10 and 8.9.
_MAX_BITS, _MAX_SIGNAL = 20, 3.0


def fingerprint(crops: Sequence[Image], blendshapes: Array, pose: Array) -> str:
    """Fingerprint of a clip as hexadecimal digits; only copies have similar ones.

    It holds 128 signs of horizontal differences of the mean picture, and head pose and four blendshapes at 16 relative
    times. The latter distinguish clips of the same person in the same place.

    Args:
        crops: [T] of uint8 RGB [H, W, 3].
        blendshapes: [T, 52].
        pose: [T, 3] yaw, pitch, roll in degrees.
    """
    at = np.linspace(0, len(crops) - 1, _SIGNAL_TIMES).round().astype(int)
    thumbs = [cv2.resize(crops[i], (17, 8), interpolation=cv2.INTER_AREA) for i in at[::2]]
    gray = np.mean(thumbs, axis=(0, 3))
    bits = np.packbits(gray[:, 1:] > gray[:, :-1])
    signals = np.concatenate([pose[at] * 2, blendshapes[at][:, _SIGNALS] * 100], axis=1)
    return bits.tobytes().hex() + np.clip(signals.round(), -127, 127).astype(np.int8).tobytes().hex()


class Fingerprints:
    """Finds copies among many clips: clips that share one of eight 16-bit bands are compared in full."""

    def __init__(self) -> None:
        self._bands: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(8)]
        self._keys: list[str] = []
        self._codes: list[bytes] = []

    def find(self, code: str) -> str | None:
        """Key of the first clip whose fingerprint is near this one."""
        data = bytes.fromhex(code)
        near = sorted({i for n, band in enumerate(self._bands) for i in band.get(data[2 * n : 2 * n + 2], ())})
        if not near:
            return None
        others = np.frombuffer(b"".join(self._codes[i] for i in near), np.uint8).reshape(len(near), -1)
        own = np.frombuffer(data, np.uint8)
        bits = np.unpackbits(others[:, :16] ^ own[:16], axis=1).sum(1)
        signals = others[:, 16:].view(np.int8).astype(np.float32) - own[16:].view(np.int8).astype(np.float32)
        distance = np.sqrt((signals**2).mean(1))
        hits = np.flatnonzero((bits <= _MAX_BITS) & (distance <= _MAX_SIGNAL))
        return self._keys[near[hits[0]]] if len(hits) else None

    def add(self, key: str, code: str) -> None:
        data = bytes.fromhex(code)
        for n, band in enumerate(self._bands):
            band[data[2 * n : 2 * n + 2]].append(len(self._keys))
        self._keys.append(key)
        self._codes.append(data)
