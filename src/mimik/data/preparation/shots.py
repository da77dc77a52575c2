"""Shot boundary detection."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from mimik.arrays import Array
from mimik.face.landmarks import Image

_LOOKAHEAD = 3  # frames after a suspected cut that must differ from the frame before it; a flash is shorter
_LOOKBACK = 8
_MIN_CUT, _CUT_RATIO = 0.22, 3.0  # smallest difference, and smallest ratio to neighboring differences, at a cut


class FrameSignature(NamedTuple):
    """Coarse features of a frame: [1024] luma of mean 0 and norm 1 (0 if flat); [48] color histogram of sum 1."""

    luma: Array
    colors: Array


def frame_signature(frame: Image) -> FrameSignature:
    step = max(1, min(frame.shape[:2]) // 96)
    small = cv2.resize(frame[::step, ::step], (32, 32), interpolation=cv2.INTER_AREA)
    luma = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (3, 3), 0).astype(np.float32).ravel()
    luma -= luma.mean()
    luma /= float(np.linalg.norm(luma)) + 64  # keeps the noise of black frames small
    bins = (small >> 4).reshape(-1, 3) + np.array([0, 16, 32])
    return FrameSignature(luma, np.bincount(bins.ravel(), minlength=48).astype(np.float32) / bins.size)


def difference(a: FrameSignature, b: FrameSignature) -> float:
    """Difference of two frames, from 0 (equal) to about 1 (unrelated).

    Half of it is the change of luma, half the change of colors. The latter is weighted by the change of luma, because a
    fade or a lamp changes only colors.
    """
    arrangement = float(((a.luma - b.luma) ** 2).sum()) / 2
    colors = float(np.abs(a.colors - b.colors).sum()) / 2
    return (arrangement + min(arrangement, colors)) / 2


def split_shots(frames: Iterable[Image]) -> Iterator[tuple[Image, bool]]:
    """Each frame, with whether a new shot begins with it; delayed by some frames.

    At a cut, the difference is larger than those around it, and the frames after it differ from those before it. The
    first test excludes fast motion, the second flashes.
    """
    ahead: deque[tuple[Image, FrameSignature, float]] = (
        deque()
    )  # waiting frames, with their difference from the previous one
    changes: deque[float] = deque(maxlen=_LOOKBACK)  # of the returned frames, without cuts
    before: deque[FrameSignature] = deque(maxlen=_LOOKAHEAD + 1)  # of the returned frames
    last: FrameSignature | None = None  # of the newest frame

    def finish_shot() -> tuple[Image, bool]:
        frame, look, change = ahead.popleft()
        is_cut = not before
        if before and change >= _MIN_CUT:
            around = [*changes, *(other for _, _, other in ahead)]
            stands_out = change >= _CUT_RATIO * (float(np.median(around)) if around else 0.0)
            after = [look, *(later for _, later, _ in ahead)]
            is_cut = stands_out and all(difference(x, y) >= change / 2 for x in after for y in before)
        changes.append(0.0 if is_cut else change)
        if is_cut:
            before.clear()
        before.append(look)
        return frame, is_cut

    for frame in frames:
        look = frame_signature(frame)
        ahead.append((frame, look, 0.0 if last is None else difference(look, last)))
        last = look
        if len(ahead) > _LOOKAHEAD:
            yield finish_shot()
    while ahead:
        yield finish_shot()
