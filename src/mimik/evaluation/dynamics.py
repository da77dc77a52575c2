"""Dynamics of a talking head: THEval's measures without networks, size pumping, expression and pose distances.

THEval (CVPR 2026 Findings, arXiv:2511.04520) scores each measure against the real clip, 1 - |result - real| / |real|,
and correlates with human judgments where FID and lip-sync networks do not. Its five measures of motion and sound are
implemented with these differences. Lengths are in 3D eye distances of the same frame, so that size and rotation of the
head have no effect. Head positions are in centimeters of the canonical face. Silence is sound below a tenth of the loud
level, instead of a network's decision. Do not compare the scores with published ones.

Points are [N, 478, 3] of consecutive frames, NaN without a face; such frames are omitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Float, runs
from mimik.config import InputError
from mimik.face import landmarks as faces
from mimik.face.landmarks import head_pose
from mimik.media.sound import probe_sound, read_sound

_LEFT_CENTER, _RIGHT_CENTER = (362, 263), (33, 133)  # corners of each eye
_INNER_UPPER_LIP, _INNER_LOWER_LIP = 13, 14  # the middle
_RIGHT_BROW, _LEFT_BROW = (70, 63, 105, 66, 107), (300, 293, 334, 296, 336)  # upper edges
_LOUD_PERCENTILE = 95
_SILENT = 0.1  # of the loud level: -20 dB
MIN_SILENCE_S = 0.3
_SOUND_RATE = 16_000
_WINDOW_S = 0.5  # length of the moving mean of the head's size
_STILL = 1e-6  # measures of the real clip below this are undefined


def pose_degrees(points: NDArray[Any]) -> Float:
    """[N, 3] yaw, pitch and roll of points [N, 478, 3]; NaN where no face was found."""
    nothing = (math.nan,) * 3
    return np.array([head_pose(p).degrees if np.isfinite(p).all() else nothing for p in points]).reshape(-1, 3)


def similarity(result: float, real: float) -> float:
    """1 - |result - real| / |real|, at most 1; NaN if the real clip has no value, or a value near 0."""
    if not (math.isfinite(result) and math.isfinite(real)) or abs(real) < _STILL:
        return math.nan
    return 1 - abs(result - real) / abs(real)


def _seen(points: NDArray[Any]) -> Float:
    return np.asarray(points, np.float64)[np.isfinite(points).all((1, 2))]


def _eyes(points: Float) -> tuple[Float, Float, Float]:
    """Centers of the right and the left eye, [N, 3], and their distance [N]."""
    right, left = (points[:, corners].mean(1) for corners in (_RIGHT_CENTER, _LEFT_CENTER))
    return right, left, np.linalg.norm(left - right, axis=-1)


def lip_dynamics(points: NDArray[Any]) -> float:
    """Standard deviation over time of the distance between two lip points, averaged over all pairs of the 40 points."""
    some = _seen(points)
    if len(some) < 2:
        return math.nan
    lips = some[:, faces.LIPS] / _eyes(some)[2][:, None, None]
    first, second = np.triu_indices(lips.shape[1], 1)
    return float(np.linalg.norm(lips[:, first] - lips[:, second], axis=-1).std(0).mean())


def head_motion(points: NDArray[Any]) -> float:
    """sqrt(mean standard deviation of angles x mean variance of their frame differences + mean variance of position).

    Angles are yaw, pitch and roll in degrees; position in the picture is in centimeters of the canonical face. Frames
    without a face are skipped.
    """
    some = _seen(points)
    if len(some) < 3:
        return math.nan
    poses = [head_pose(p) for p in some]
    angles = np.array([pose.degrees for pose in poses])
    scale = float(np.median([pose.scale for pose in poses]))
    places = np.array([pose.translation for pose in poses])[:, :2] / scale
    turning = angles.std(0).mean() * np.diff(angles, axis=0).var(0).mean()
    return float(math.sqrt(turning + places.var(0).mean()))


def brow_dynamics(points: NDArray[Any]) -> float:
    """Standard deviation over time of the mean distance of the brows from their eyes, in eye distances."""
    some = _seen(points)
    if len(some) < 2:
        return math.nan
    right, left, apart = _eyes(some)
    rise = [np.linalg.norm(some[:, b].mean(1) - e, axis=-1) for b, e in ((_RIGHT_BROW, right), (_LEFT_BROW, left))]
    return float((np.mean(rise, 0) / apart).std())


def mouth_opening(points: NDArray[Any]) -> Float:
    """[N] distance between the middles of the inner lips, in eye distances; NaN without a face."""
    points = np.asarray(points, np.float64)
    gap = np.linalg.norm(points[:, _INNER_UPPER_LIP] - points[:, _INNER_LOWER_LIP], axis=-1)
    return np.asarray(gap / _eyes(points)[2])


# Sound.


@dataclass(frozen=True)
class Volume:
    """Volume of a clip's sound."""

    rms: Float  # [N] root mean square during each frame
    silent: NDArray[np.bool_]  # [N] whether the frame is in a silence of MIN_SILENCE_S or more

    @classmethod
    def of_samples(cls, samples: Iterable[NDArray[np.float32]], rate: int, num_frames: int, fps: float) -> Volume:
        """Args: samples: blocks of one channel from the first frame's time on; a missing end counts as silence."""
        blocks = list(samples)
        sound = np.concatenate(blocks).astype(np.float64) if blocks else np.zeros(0)
        edges = np.round(np.arange(num_frames + 1) * rate / fps).astype(int)
        sound = np.pad(sound[: edges[-1]], (0, max(0, edges[-1] - len(sound))))
        rms = np.sqrt(np.add.reduceat(sound**2, edges[:-1]) / np.diff(edges))
        quiet = rms < _SILENT * np.percentile(rms, _LOUD_PERCENTILE)
        silent = np.zeros(num_frames, bool)
        for start, end in runs(quiet):
            silent[start:end] = end - start >= math.ceil(MIN_SILENCE_S * fps - 1e-9)
        return cls(rms, silent)

    @classmethod
    def of_file(cls, path: Path, num_frames: int, fps: float, start_s: float = 0.0) -> Volume | None:
        """Volume of a video from start_s on; None without sound."""
        try:
            probe_sound(path)
            blocks = list(read_sound(path, rate=_SOUND_RATE))
        except InputError:
            return None
        whole = np.concatenate(blocks)[round(start_s * _SOUND_RATE) :]
        return cls.of_samples([whole], _SOUND_RATE, num_frames, fps)


def silent_lip_motion(opening: Float, volume: Volume) -> float:
    """Median absolute deviation of the mouth opening in silences. NaN with fewer than three such frames."""
    some = opening[: len(volume.silent)][volume.silent[: len(opening)]]
    some = some[np.isfinite(some)]
    return float(np.median(np.abs(some - np.median(some)))) if len(some) >= 3 else math.nan


def lip_volume_distance(opening: Float, volume: Volume) -> float:
    """Mean absolute difference of mouth opening and volume during speech, 0..1.

    Both are normalized to 0..1 over these frames. NaN with fewer than three frames, or if one of both is constant.
    """
    count = min(len(opening), len(volume.rms))
    known = ~volume.silent[:count] & np.isfinite(opening[:count])
    pair = opening[:count][known], volume.rms[:count][known]
    if known.sum() < 3 or min(np.ptp(one) for one in pair) < _STILL:
        return math.nan
    a, b = ((one - one.min()) / np.ptp(one) for one in pair)
    return float(np.abs(a - b).mean())


# Comparison of result and driver.


def pumping(points: NDArray[Any], fps: float) -> float:
    """Standard deviation of the head's size relative to its moving mean over half a second, in percent.

    Real motion to and from the camera is slower, so this measures artificial changes of size.
    """
    seen = np.isfinite(points).all((1, 2))
    size = np.array([math.log(head_pose(p).scale) for p in points[seen]])
    width = max(3, round(_WINDOW_S * fps) | 1)
    if len(size) < width:
        return math.nan
    around = np.convolve(size, np.ones(width) / width, "valid")
    return float(100 * (size[width // 2 : width // 2 + len(around)] - around).std())


def pumping_ratio(driver: NDArray[Any], result: NDArray[Any], fps: float) -> float:
    """Ratio of pumping() of the result and the driver; 1 is ideal."""
    own = pumping(driver, fps)
    return pumping(result, fps) / own if own > _STILL else math.nan


def blendshape_aed(driver: NDArray[Any], result: NDArray[Any]) -> float:
    """Average expression distance: mean absolute difference of 51 blendshapes [N, 52], 0..1, without _neutral."""
    apart = np.abs(np.asarray(driver, np.float64) - result)[:, 1:]
    known = np.isfinite(apart).all(1)
    return float(apart[known].mean()) if known.any() else math.nan


def pose_apd(driver: NDArray[Any], result: NDArray[Any]) -> float:
    """Average pose distance: mean absolute difference of yaw, pitch and roll in degrees, of points [N, 478, 3]."""
    apart = pose_degrees(result) - pose_degrees(driver)
    apart = apart[np.isfinite(apart).all(1)]
    return float(np.abs((apart + 180) % 360 - 180).mean()) if len(apart) else math.nan


def measures(points: NDArray[Any], volume: Volume | None) -> dict[str, float]:
    """THEval's five measures of one clip; those of sound are NaN without sound."""
    opening = mouth_opening(points)
    return {
        "lip_dynamics": lip_dynamics(points),
        "head_motion": head_motion(points),
        "brow_dynamics": brow_dynamics(points),
        "silent_lips": silent_lip_motion(opening, volume) if volume else math.nan,
        "lip_volume": lip_volume_distance(opening, volume) if volume else math.nan,
    }


def scores(real: NDArray[Any], result: NDArray[Any], volume: Volume | None) -> dict[str, float]:
    """similarity() of each of measures(), by the measure's name + `_score`."""
    of_real, of_result = measures(real, volume), measures(result, volume)
    return {f"{name}_score": similarity(of_result[name], of_real[name]) for name in of_real}
