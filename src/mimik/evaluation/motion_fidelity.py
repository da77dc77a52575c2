"""Motion fidelity: compares landmarks detected in driver and result, frame by frame.

Signals are measured on 68 landmarks in a frontal view: a scaled orthographic pose is fitted to points of the skull, and
each point is rotated to the front at the depth of the canonical face. So a turned head does not narrow the mouth, and
pose and expression are separated. Lengths are in distances between the eye centers, the median over the clip.

    python -m mimik.evaluation.motion_fidelity RESULT.mp4 DRIVER.mp4 [--fps 12.5] [-o FILE.json]
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Float
from mimik.config import InputError, counted
from mimik.evaluation.detectors import INSTALL_DLIB, DetectedPoints, Detector
from mimik.face.landmarks import POINTS_68, canonical_mesh
from mimik.media import video

# MediaPipe's points: eye corners, middle of the eyelids, iris.
EYE_PARTS = (((33, 133), 159, 145, 468), ((362, 263), 386, 374, 473))
OPEN_EYE = 0.12  # opening in eye widths; below it the iris is not visible
# Indices in the 68 points.
_EYE_CORNERS = [36, 39, 42, 45]
_RIGID = [*range(27, 36), *_EYE_CORNERS]  # nose and eye corners
_UPPER_LIP, _LOWER_LIP = [61, 62, 63], [67, 66, 65]  # inner edges, from the person's right
_UPPER_LID, _LOWER_LID = [37, 38, 43, 44], [41, 40, 47, 46]
_BROWS = slice(17, 27)
_MOUTH_CORNERS = 48, 54
_CHIN_TIP, _NOSE_BASE = 8, 33
_UPPER_EDGE, _LOWER_EDGE = [50, 51, 52], [58, 57, 56]  # outer edges of the lips
_MIN_FACING = 0.35  # smallest cosine of the rotation: beyond about 70 degrees half of the points are unreliable
_FOCAL = 20.0  # focal length in picture widths; nearly orthographic


@dataclass(frozen=True)
class Signal:
    """One motion signal that is measured on landmarks."""

    label: str  # for tables
    min_std: float  # smallest standard deviation of the driver over a clip, in eye distances or degrees
    min_correlation: float  # acceptance threshold


SIGNALS = {
    "jaw": Signal("jaw opening", 0.03, 0.9),
    "lips_gap": Signal("gap of the lips", 0.03, 0.8),
    "lip_width": Signal("lip width", 0.03, 0.8),
    "lip_rounding": Signal("lip rounding", 0.03, 0.8),
    "brows": Signal("brow height", 0.015, 0.8),
    "lids_gap": Signal("opening of the lids", 0.015, 0.8),
    "gaze_x": Signal("gaze, sideways (MediaPipe)", 0.02, 0.8),
    "gaze_y": Signal("gaze, up and down (MediaPipe)", 0.015, 0.8),
    "yaw": Signal("yaw", 2.0, 0.9),
    "pitch": Signal("pitch", 2.0, 0.9),
    "roll": Signal("roll", 1.0, 0.9),
}
AMPLITUDES = 0.85, 1.15  # acceptance range
MIN_AGREEMENT = 0.95  # acceptance threshold


@dataclass(frozen=True)
class Contact:
    """Two edges that touch or do not."""

    signal: str  # the opening
    # The driver is shut up to the first opening and open from the second; frames between are ignored. The result is
    # shut below the mean of both.
    shut: float
    open: float
    relative: bool  # whether openings are relative to the face's 90th percentile, instead of eye distances


CONTACTS = {"lips": Contact("lips_gap", 0.04, 0.08, False), "lids": Contact("lids_gap", 0.45, 0.75, True)}


# Signals.


@functools.cache
def _model() -> Float:
    """[68, 3] the 68 points of the canonical face, in centimeters."""
    return np.asarray(canonical_mesh().vertices[POINTS_68])


def poses(points: NDArray[Any], size: tuple[int, int]) -> tuple[Float, Float, Float]:
    """Scaled orthographic poses of a face, fitted to its nose and eye corners.

    Args:
        points: [N, 68, 2] pixels.
        size: width and height of the picture.

    Returns:
        rotations [N, 3, 3], translations [N, 2] and scales [N] with p = scale * (R x)[:2] + translation for x of the
        canonical face; NaN where points are.
    """
    rotations, translations = np.full((len(points), 3, 3), np.nan), np.full((len(points), 2), np.nan)
    scales = np.full(len(points), np.nan)
    focal = _FOCAL * max(size)
    camera = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    model = _model()[_RIGID]
    for number, shown in enumerate(np.asarray(points, np.float64)):
        if not np.isfinite(shown).all():
            continue
        span = float(np.linalg.norm(shown[45] - shown[36]) / np.linalg.norm(model[-1] - model[-4]))
        away = focal / max(span, 1e-6)
        place = (shown[_RIGID].mean(0) - camera[:2, 2]) * away / focal
        start = np.zeros((3, 1)), np.array([[place[0]], [place[1]], [away]])
        _, turn, shift = cv2.solvePnP(
            model, shown[_RIGID][:, None], camera, None, start[0], start[1], True, cv2.SOLVEPNP_ITERATIVE
        )
        rotations[number] = cv2.Rodrigues(turn)[0]
        scales[number] = focal / shift[2, 0]
        translations[number] = scales[number] * shift[:2, 0] + camera[:2, 2]
    return rotations, translations, scales


def frontal(points: NDArray[Any], rotations: Float, translations: Float, scales: Float) -> Float:
    """[N, 68, 2] points [N, 68, 2] in the frontal view, in centimeters of the canonical face.

    NaN where the face is turned too far. Args: see poses().
    """
    depth = _model()[:, 2]
    out = np.full(points.shape, np.nan)
    for number, (shown, rotation) in enumerate(zip(points, rotations, strict=True)):
        if not np.isfinite(rotation).all() or rotation[2, 2] < _MIN_FACING:
            continue
        flat = (shown - translations[number]) / scales[number] - depth[:, None] * rotation[:2, 2]
        out[number] = flat @ np.linalg.inv(rotation[:2, :2]).T
    return out


def _degrees(rotations: Float) -> Float:
    """[N, 3] yaw, pitch and roll, as in face.landmarks.Pose."""
    yaw = np.arctan2(-rotations[:, 0, 2], np.hypot(rotations[:, 1, 2], rotations[:, 2, 2]))
    pitch = np.arctan2(-rotations[:, 1, 2], rotations[:, 2, 2])
    roll = np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
    return np.degrees(np.stack([yaw, pitch, roll], 1))


def signals(found: DetectedPoints) -> dict[str, Float]:
    """[N] per signal of SIGNALS; NaN without a face, if it is turned too far, or, for gaze, with closed eyes."""
    rotations, translations, scales = poses(found.points, found.size)
    face = frontal(found.points, rotations, translations, scales)
    values = dict(zip(("yaw", "pitch", "roll"), _degrees(rotations).T, strict=True)) | shape_signals(face)
    values |= dict(zip(("gaze_x", "gaze_y"), _gaze(found.mesh).T, strict=True))
    return {name: values[name] for name in SIGNALS}


def shape_signals(face: NDArray[Any]) -> dict[str, Float]:
    """The signals of a face's shape, [N] each, of frontal points [N, 68, 2] in any unit.

    jaw: base of the nose to chin. lips_gap: between the inner lips, mean of three places. lip_width: between the
    corners. lip_rounding: thickness of both lips / their width. brows: mean height above the line of the eyes.
    lids_gap: mean of four places, both eyes.
    """
    right, left = face[:, [36, 39]].mean(1), face[:, [42, 45]].mean(1)
    apart = np.linalg.norm(left - right, axis=-1)
    unit = np.median(apart[np.isfinite(apart)]) if np.isfinite(apart).any() else math.nan

    def between(a: Any, b: Any) -> Float:
        return np.asarray(np.linalg.norm(face[:, a] - face[:, b], axis=-1) / unit)

    width = between(*_MOUTH_CORNERS)
    thickness = between(_UPPER_EDGE, _UPPER_LIP).mean(1) + between(_LOWER_EDGE, _LOWER_LIP).mean(1)
    return {
        "jaw": between(_CHIN_TIP, _NOSE_BASE),
        "lips_gap": between(_UPPER_LIP, _LOWER_LIP).mean(1),
        "lip_width": width,
        "lip_rounding": thickness / width,
        "brows": (face[:, _EYE_CORNERS, 1].mean(1) - face[:, _BROWS, 1].mean(1)) / unit,
        "lids_gap": between(_UPPER_LID, _LOWER_LID).mean(1),
    }


def gaze(points: NDArray[Any]) -> tuple[Float, Float]:
    """Iris positions and eye openings.

    Returns:
        [N, 2, 2] of the right and the left eye: iris center along and across the line between the corners, from its
        middle, in eye widths. [N, 2] distance of the eyelids, in eye widths.
    """
    places, openings = [], []
    for (start, end), upper, lower, iris in EYE_PARTS:
        axis = points[:, end] - points[:, start]
        width = np.linalg.norm(axis, axis=-1)[:, None]
        along = axis[:, :2] / np.linalg.norm(axis[:, :2], axis=-1)[:, None]
        across = np.stack([-along[:, 1], along[:, 0]], -1)
        from_middle = (points[:, iris] - (points[:, start] + points[:, end]) / 2)[:, :2]
        places.append(np.stack([(from_middle * along).sum(-1), (from_middle * across).sum(-1)], -1) / width)
        openings.append(np.linalg.norm((points[:, upper] - points[:, lower])[:, :2], axis=-1) / width[:, 0])
    return np.stack(places, 1), np.stack(openings, 1)


def _gaze(mesh: NDArray[Any]) -> Float:
    """[N, 2] mean gaze of both eyes, of MediaPipe's points [N, 478, 3], the only detector of irises here."""
    places, openings = gaze(mesh)
    return np.asarray(np.where(openings[..., None] >= OPEN_EYE, places, np.nan).mean(1))


# Comparison.


def agreement(driver: Float, result: Float, contact: Contact) -> dict[str, float]:
    """Agreement of contact in driver and result.

    Args:
        driver, result: [N] openings; frames with NaN in either are omitted.

    Returns:
        frames: number of frames in which the driver is clearly shut or open; the others are ignored. agreement: share
        in which the result equals the driver. precision: share of the result's shut frames that are shut in the driver.
        recall: share of the driver's shut frames that are shut in the result. driver_open, result_open: shares of open
        frames. NaN without frames.
    """
    known = np.isfinite(driver) & np.isfinite(result)
    a, b = driver[known], result[known]
    if contact.relative and len(a):
        a, b = a / np.percentile(a, 90), b / np.percentile(b, 90)
    counted = (a <= contact.shut) | (a >= contact.open)
    shut, made = a[counted] <= contact.shut, b[counted] < (contact.shut + contact.open) / 2

    def share(of: Any, among: Any) -> float:
        return float(of[among].mean()) if among.any() else math.nan

    every = np.ones(len(shut), bool)
    return {
        "frames": float(len(shut)),
        "agreement": share(shut == made, every),
        "precision": share(shut, made),
        "recall": share(made, shut),
        "open_recall": share(~made, ~shut),
        "driver_open": share(~shut, every),
        "result_open": share(~made, every),
    }


def following(driver: Float, result: Float, min_std: float) -> dict[str, float] | None:
    """Correlation and amplitude of a signal of the result; None if the driver does not move it.

    Args:
        driver, result: [N]; frames with NaN in either are omitted.
        min_std: standard deviation from which the driver counts as moving.

    Returns:
        correlation: Pearson, 0 if the result is still. amplitude: standard deviation of the result / the driver's.
        driver_std: the latter. frames: their number.
    """
    known = np.isfinite(driver) & np.isfinite(result)
    a, b = driver[known], result[known]
    if len(a) < 3 or a.std() < min_std:
        return None
    product = float(((a - a.mean()) * (b - b.mean())).mean())
    size = float(a.std() * b.std())
    return {
        "correlation": product / size if size > 1e-12 else 0.0,
        "amplitude": float(b.std() / a.std()),
        "driver_std": float(a.std()),
        "frames": float(len(a)),
    }


def fidelity(driver: DetectedPoints, result: DetectedPoints) -> dict[str, Any]:
    """Motion fidelity of a result: `contacts`, `signals` that the driver moves, and `lost`, the share of frames in
    which the driver has a face and the result has none.

    Raises:
        InputError: if the numbers of frames differ by more than one.
    """
    return compare_signals(signals(driver), signals(result))


def compare_signals(driver: Mapping[str, Float], result: Mapping[str, Float]) -> dict[str, Any]:
    """fidelity() of known signals. A surplus last frame is ignored."""
    count = len(driver["yaw"]), len(result["yaw"])
    if abs(count[0] - count[1]) > 1:
        raise InputError(
            f"the driver has {counted(count[0], 'frame')} and the result {count[1]}; use a result of this driver, "
            "and the same --fps for both."
        )
    every = slice(min(count))
    a, b = ({name: values[every] for name, values in one.items()} for one in (driver, result))
    seen = np.isfinite(a["yaw"])
    moved = {name: following(a[name], b[name], signal.min_std) for name, signal in SIGNALS.items()}
    return {
        "frames": min(count),
        "lost": float((seen & ~np.isfinite(b["yaw"])).sum() / max(seen.sum(), 1)),
        "contacts": {name: agreement(a[one.signal], b[one.signal], one) for name, one in CONTACTS.items()},
        "signals": {name: found for name, found in moved.items() if found is not None},
    }


def fidelity_summary(pairs: Mapping[str, Mapping[str, Any]], *, num_worst: int = 3) -> dict[str, Any]:
    """Medians over pairs of result and driver, compared with the acceptance thresholds.

    Args:
        pairs: results of fidelity() by name.
        num_worst: number of worst pairs to name.

    Returns:
        For each contact and signal: medians, number of pairs, worst pairs, and `missed`, the thresholds not reached.
    """
    out: dict[str, Any] = {}
    for name in CONTACTS:
        rows = {pair: found["contacts"][name] for pair, found in pairs.items()}
        keys: Iterable[str] = next(iter(rows.values()), {})
        line: dict[str, Any] = {key: _median(row[key] for row in rows.values()) for key in keys}
        known = {pair: row["agreement"] for pair, row in rows.items() if math.isfinite(row["agreement"])}
        line |= {"pairs": len(known), "worst": sorted(known, key=lambda pair: known[pair])[:num_worst]}
        line["missed"] = ["agreement"] if not line["agreement"] >= MIN_AGREEMENT else []
        out[name] = line
    for name, signal in SIGNALS.items():
        rows = {pair: found["signals"][name] for pair, found in pairs.items() if name in found["signals"]}
        if not rows:
            continue
        line = {key: _median(row[key] for row in rows.values()) for key in ("correlation", "amplitude", "driver_std")}
        line |= {"pairs": len(rows), "worst": sorted(rows, key=lambda pair: rows[pair]["correlation"])[:num_worst]}
        within = [AMPLITUDES[0] <= row["amplitude"] <= AMPLITUDES[1] for row in rows.values()]
        line["within_amplitude"] = float(np.mean(within))
        missed = [] if line["correlation"] >= signal.min_correlation else ["correlation"]
        missed += [] if AMPLITUDES[0] <= line["amplitude"] <= AMPLITUDES[1] else ["amplitude"]
        out[name] = line | {"missed": missed}
    return out


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.median(known)) if known else math.nan


def table(lines: Mapping[str, Any]) -> str:
    """Markdown table of a fidelity_summary()."""
    shares = {
        "agreement": "agreement",
        "precision": "precision of shut",
        "recall": "recall of shut",
        "driver_open": "open: driver",
        "result_open": "open: result",
    }
    out = [f"| open or shut | {' | '.join(shares.values())} | pairs | missed |", "| --- " * (len(shares) + 3) + "|"]
    for name in CONTACTS:
        row = lines[name]
        cells = " | ".join(f"{100 * row[key]:.0f} %" for key in shares)
        out.append(f"| {name} | {cells} | {row['pairs']} | {', '.join(row['missed'])} |")
    out += ["", "| signal | correlation | amplitude | driver's std | pairs that move it | missed |", "| --- " * 6 + "|"]
    for name in (name for name in SIGNALS if name in lines):
        row = lines[name]
        numbers = f"{row['correlation']:.2f} | {row['amplitude']:.2f} | {row['driver_std']:.3f} | {row['pairs']}"
        out.append(f"| {SIGNALS[name].label} | {numbers} | {', '.join(row['missed'])} |")
    return "\n".join(out)


def rounded(value: Any, digits: int = 4) -> Any:
    """A report for JSON: numbers rounded to this many decimals, NaN as None."""
    if isinstance(value, Mapping):
        return {key: rounded(one, digits) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one, digits) for one in value]
    if isinstance(value, float):
        return round(value, digits) if math.isfinite(value) else None
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="a video that was made, with sound or without")
    parser.add_argument("driver", type=Path, help="the video that drove it")
    parser.add_argument("--fps", type=float, default=12.5, help="frames per second to measure; default 12.5")
    parser.add_argument("-o", "--out", type=Path, help="where the numbers go as JSON")
    args = parser.parse_args(arguments)
    try:
        detector = Detector.best()
        driver, result = (detector.find(video.read_frames(p, fps=args.fps)) for p in (args.driver, args.result))
        found = fidelity(driver, result)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report = {"result": args.result.name, "driver": args.driver.name, "detector": detector.name, **found}
    if args.out:
        args.out.write_text(json.dumps(rounded(report), indent=1) + "\n", encoding="utf-8")
    print(f"{counted(found['frames'], 'frame')}, face lost in {100 * found['lost']:.0f} %")
    print(f"points by {detector.name}; gaze by MediaPipe's irises")
    if not detector.is_independent:
        print(f"For an independent detector: {INSTALL_DLIB}.")
    print(table(fidelity_summary({args.result.name: found})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
