"""The neutral reference of a driver, relative to which its motion is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face, Pose, fit_similarity, head_pose
from mimik.motion.contact import LIPS_TOUCH, closed_mouth, eyelid_openings, lip_openings, with_eyelid_openings
from mimik.motion.expression import Float, expression_basis, pose_leak
from mimik.motion.frames import EYELIDS_TOUCH, MotionFrame, Reference, rotation_matrix, rotation_vector, still
from mimik.motion.regions import region_blendshapes, region_weights

_EXPRESSIVE = {
    "jawOpen": 2.0,
    "mouthSmileLeft": 1.0,
    "mouthSmileRight": 1.0,
    "mouthPucker": 0.7,
    "mouthFunnel": 1.5,
    "mouthUpperUpLeft": 1.0,
    "mouthUpperUpRight": 1.0,
    "mouthLowerDownLeft": 1.0,
    "mouthLowerDownRight": 1.0,
    "mouthPressLeft": 0.5,
    "mouthPressRight": 0.5,
    "mouthRollLower": 0.5,
    "mouthRollUpper": 0.5,
    "eyeBlinkLeft": 1.5,
    "eyeBlinkRight": 1.5,
    "eyeWideLeft": 1.0,
    "eyeWideRight": 1.0,
    "eyeLookOutLeft": 0.5,
    "eyeLookOutRight": 0.5,
    "eyeLookInLeft": 0.5,
    "eyeLookInRight": 0.5,
    "browInnerUp": 1.0,
    "browOuterUpLeft": 0.5,
    "browOuterUpRight": 0.5,
    "browDownLeft": 0.7,
    "browDownRight": 0.7,
}
_EXPRESSIVE_WEIGHTS = np.array([_EXPRESSIVE.get(name, 0.0) for name in BLENDSHAPES])
_LIP_OPENING_WEIGHT = 6.0  # weight of an opening of one eye distance, relative to a blendshape of 1
_NUM_AVERAGED = 8  # frames averaged for one region
_NEVER_CALM = 0.35  # blendshapes that always exceed the usual neutral value by more are a persistent expression
_LOWEST_LIDS = 0.25  # of the usual opening: if the minimum is larger, the lids were never closed


def find_neutral(driver: Sequence[Face], times_s: Sequence[float] | None = None) -> Reference:
    """The driver's neutral reference, composed region by region from the frames in which the region is neutral.

    In a video of speech, hardly any frame is neutral everywhere. The lips come from the frames in which they are
    closest to touching and least puckered or stretched; the brows from frames with the least brow motion; eyelids and
    gaze from their median opening and direction; the rest from the tenth of the frames with the least expression. The
    pose is the median of the half of the frames with the least expression: that of the calmest frame would depend on
    noise. Persistent expressions are subtracted with the expression basis.

    Args:
        driver: at least one face, in the order of the video.
        times_s: of the faces, for the note; None leaves the note without times.
    """
    shapes = np.array([f.blendshapes for f in driver], np.float64)
    poses = [head_pose(f.points) for f in driver]
    angles = np.array([p.degrees for p in poses])
    away = np.abs(angles - np.median(angles, 0)).sum(1) / 30 + np.abs(angles[:, :2]).sum(1) / 60
    calm = (shapes - np.percentile(shapes, 10, axis=0)).clip(0) * _EXPRESSIVE_WEIGHTS
    order = np.argsort(calm.sum(1) + away, kind="stable")
    best = order[: max(1, min(len(driver) // 10, 15))]
    first = poses[best[0]]
    rotation = _median_rotation([poses[i] for i in order[: (len(driver) + 1) // 2]])
    rest = np.mean([first.invert(_aligned_to(driver[i].points, driver[best[0]].points)) for i in best], axis=0)
    rest -= pose_leak(first.rotation) - pose_leak(rotation)
    own = _aligned(driver, poses, rest, rotation)

    # What is calm, region by region.
    num = int(np.clip(len(driver) // 25, 1, _NUM_AVERAGED))
    lips = np.array([lip_openings(shape).max() for shape in own])
    lids = np.array([eyelid_openings(shape).mean(1) for shape in own])
    usual_lids = np.median(lids[lids.mean(1) >= 0.5 * np.percentile(lids.mean(1), 90)], axis=0)
    unusual = np.abs(lids / np.maximum(usual_lids, 1e-6) - 1).sum(1)
    gaze = np.array([_gaze_of_shape(shape) for shape in own])
    scores = {
        "lips": calm[:, region_blendshapes("lips")].sum(1) + _LIP_OPENING_WEIGHT * lips,
        "eyes": unusual,
        "brows": calm[:, region_blendshapes("brows")].sum(1),
        "gaze": np.abs(gaze - np.median(gaze[unusual <= np.median(unusual)], axis=0)).sum(1) + 0.1 * unusual,
    }
    weights = region_weights()
    shape, values = rest.copy(), shapes[best].mean(0)
    taken = {}
    for region, score in scores.items():
        chosen = np.argsort(score + 0.1 * away, kind="stable")[:num]
        taken[region] = int(chosen[0])
        shape += weights[region][:, None] * (own[chosen].mean(0) - rest)
        index = region_blendshapes(region)
        values[index] = shapes[chosen][:, index].mean(0)
    shape, lasting, never = _without_persistent_expression(shape, values)
    return Reference(
        shape,
        rotation,
        values - lasting,
        lasting,
        _eyelids_touch(lids, eyelid_openings(shape).mean(1)),
        _note({name: None if times_s is None else times_s[i] for name, i in taken.items()}, never),
    )


def named_neutral(driver: Sequence[Face], time_s: float) -> Reference:
    """The neutral reference at a time given by the user: the mean of the faces around it.

    Args:
        driver: at least one face, from the same instant.
        time_s: of that instant, for the note.
    """
    pose = head_pose(driver[0].points)
    own = np.mean([pose.invert(_aligned_to(f.points, driver[0].points)) for f in driver], axis=0)
    values = np.asarray(np.mean([f.blendshapes for f in driver], axis=0), np.float64)
    return Reference(
        closed_mouth(own, values),
        pose.rotation,
        values,
        note=f"neutral face of the driver: at {time_s:g} s",
    )


def _aligned(driver: Sequence[Face], poses: Sequence[Pose], rest: Float, rotation: Float) -> Float:
    """[T, 478, 3] the faces in the face frame of rest, corrected for detection errors on turned heads."""
    aligned = []
    for face, pose in zip(driver, poses, strict=True):
        own = _aligned_to(pose.invert(face.points), rest)
        aligned.append(own - (pose_leak(pose.rotation) - pose_leak(rotation)))
    return np.array(aligned)


def _gaze_of_shape(shape: Float) -> Float:
    """[2] position of the irises between the eye corners, in eye widths."""
    both = []
    for iris, a, b in ((468, 33, 133), (473, 362, 263)):
        both.append((shape[iris] - shape[[a, b]].mean(0))[:2] / np.linalg.norm(shape[a] - shape[b]))
    return np.asarray(np.mean(both, axis=0))


def _without_persistent_expression(shape: Float, values: Float) -> tuple[Float, Float, list[str]]:
    """Subtract persistent expressions from the neutral shape.

    Args:
        shape: [478, 3] of the most neutral frames of each region.
        values: [52] blendshapes of those frames.

    Returns:
        The shape [478, 3]; the subtracted blendshapes [52]; the names of the affected regions.
    """
    basis, weights = expression_basis(), region_weights()
    never, lasting = [], np.zeros(len(BLENDSHAPES))
    if lip_openings(shape).max() > 1.5 * LIPS_TOUCH:
        never.append("lips")
    out = shape
    for region in ("lips", "brows"):
        index = [i for i in region_blendshapes(region) if BLENDSHAPES[i] != "jawOpen"]
        excess = np.zeros(len(BLENDSHAPES))
        excess[index] = (values[index] - basis.neutral[index] - _NEVER_CALM).clip(0)
        if excess.any():
            out = out - basis.expression(excess) * weights[region][:, None]
            lasting += excess
            never += [region] if region not in never else []
    usual = eyelid_openings(basis.shape)
    widths = np.array([np.linalg.norm(s[33] - s[133]) for s in (out, basis.shape)])
    if eyelid_openings(out).mean() < 0.35 * usual.mean() * widths[0] / widths[1]:
        never.append("eyes")
        out = with_eyelid_openings(out, usual * widths[0] / widths[1])
    return closed_mouth(out, values - lasting), lasting, never


def _eyelids_touch(lids: Float, usual: Float) -> tuple[float, float]:
    """Detected opening of closed eyelids relative to the usual one, right and left, from the driver's blinks.

    Args: lids: [T, 2] openings; usual: [2].
    """
    lowest = np.sort(lids / np.maximum(usual, 1e-6), axis=0)[:2].mean(0)
    right, left = (float(max(x, 0.0)) if x < _LOWEST_LIDS else EYELIDS_TOUCH for x in lowest)
    return right, left


_CALM_WORDS = {"lips": "calm lips that touch", "brows": "calm brows", "eyes": "open eyes"}


def _note(taken: dict[str, float | None], never: Sequence[str]) -> str:
    """Note for the user on the neutral reference: the frames used, and what was missing."""
    times = {name: time for name, time in taken.items() if time is not None and name not in never}
    said = []
    if never:
        what = " or ".join(_CALM_WORDS[name] for name in never)
        said.append(f"the driver's beginning never shows {what}, so those of an average face are used as neutral")
    if times:
        found = ", ".join(f"{name} at {time:.1f} s" for name, time in times.items())
        said.append(
            f"neutral face of the driver: {found}; if the result looks tense or "
            "open-mouthed, name a calmer moment with --neutral SECONDS"
        )
    return "; ".join(said)


def _median_rotation(poses: Sequence[Pose]) -> Float:
    """[3, 3] median of the poses' rotations. Unlike a single frame's, it hardly depends on noise."""
    return rotation_matrix(np.median([rotation_vector(pose.rotation) for pose in poses], axis=0))


def _aligned_to(points: NDArray[Any], other: NDArray[Any]) -> Float:
    """Points [478, 3], rigidly aligned to the skull of other."""
    return faces.skull_motion(points, other).apply(points)


def median_pose(seen: Sequence[Face], reference: Reference) -> Pose:
    """Median position and size of the driver's neutral head in the driver's picture."""
    poses = [fit_similarity(reference.shape[faces.SKULL], f.points[faces.SKULL]) for f in seen]
    translation = np.median([p.translation for p in poses], axis=0)
    return Pose(reference.rotation, translation, float(np.median([p.scale for p in poses])))


_OF_PHOTO = "one picture does not show the driver's face at rest; an average face is used as neutral"


def motion_of_photo(driver: Face) -> tuple[Reference, MotionFrame]:
    """The motion frame of a single picture, relative to the neutral face estimated from its blendshapes.

    Head rotation is measured from the usual pose of people who face a camera.
    """
    basis = expression_basis()
    pose = head_pose(driver.points)
    own = pose.invert(driver.points)
    neutral = closed_mouth(own - basis.expression(driver.blendshapes - basis.neutral), basis.neutral)
    offset = own - neutral
    usual = rotation_matrix(np.array([basis.neutral_pitch, 0, 0]))
    reference = Reference(neutral, usual, basis.neutral, note=_OF_PHOTO)
    turn = rotation_vector(pose.rotation @ usual.T)
    return reference, replace(still(), turn=turn, offset=offset, blendshapes=driver.blendshapes.astype(np.float64))
