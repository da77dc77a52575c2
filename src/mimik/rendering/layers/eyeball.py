"""The eyeball of a photo, completed where eyelids and lashes hide it: sclera, iris, and catchlight on the cornea."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import smoothstep
from mimik.face.landmarks import Array
from mimik.rendering.layers.canvas import LUMA

LIMBUS = 1.06, 1.2  # iris radii over which the opacity of the iris falls from 1 to 0
# Iris radii over which pixels become usable as sclera: the blurred dark rim of the iris reaches this far.
_SCLERA_FROM = 1.14, 1.26
_FILL_REACH = 4.0  # iris radius, in pixels, of the reduced picture on which the sclera is extrapolated
_SCLERA_COLOR = 0.8  # share of its color saturation that a brightened sclera keeps, divided by the gain
_NUM_ANGLES = 64  # columns of the polar picture of the iris
# Brightness above the iris' median at that radius, 0..255, over which a pixel counts as reflection.
_CATCHLIGHT = 24.0, 48.0
_RADII = np.linspace(0.75, 1.5, 16)  # candidate radii, relative to the landmarks' radius
_SHIFTS = np.linspace(-0.3, 0.3, 7)  # candidate shifts of the center in x and y, in landmark radii


@dataclass(frozen=True)
class Eyeball:
    """Layers of one eyeball, [H, W, 3] float32 0..255, over the same window of the photo.

    Attributes:
        sclera: without iris, extrapolated under the lids.
        sclera_known: [H, W] 0..1, 1 where it is the photo's.
        iris: valid within LIMBUS[1] radii of its center.
        iris_share: [H, W] opacity of the iris, 0 beyond its limbus.
        catchlight: additive reflection.
        center: [2] of the iris, pixels of the window.
        radius: of the iris, pixels.
    """

    sclera: Array
    sclera_known: Array
    iris: Array
    iris_share: Array
    catchlight: Array
    center: NDArray[np.float64]
    radius: float

    def composed(self) -> Array:
        """The eyeball composited with the photo's gaze, without lids."""
        share = self.iris_share[..., None]
        return self.sclera + share * (self.iris - self.sclera) + self.catchlight


def extract_eyeball(
    window: Array,
    trusted: Array,
    inside: Array,
    lit: Array,
    center: NDArray[np.float64],
    radius: float,
    least: float = 0.0,
) -> Eyeball:
    """Extract the eyeball from a window of the photo.

    Args:
        window: [H, W, 3] float32 0..255.
        trusted: [H, W] 0..1, 1 where the eyeball is visible, free of lids, lashes and their shadows.
        inside: [H, W] 0..1, 1 between the lids.
        lit: [H, W] illumination, on any scale.
        center, radius: of the iris, from the landmarks, pixels of the window.
        least: lower bound of the sclera's brightness, 0..255; in narrow eyes, the visible part is in shadow.
    """
    center, radius = _fitted_iris(window, inside, center, radius)
    y, x = np.mgrid[: window.shape[0], : window.shape[1]].astype(np.float32)
    distance = np.hypot(x - np.float32(center[0]), y - np.float32(center[1])) / np.float32(radius)
    beyond = smoothstep(distance, *_SCLERA_FROM)
    known = trusted * beyond
    light = window @ LUMA
    if known.sum() < 0.02 * inside.sum() + 4:
        # The iris fills the visible part: its lightest pixels stand in for the sclera.
        seen = inside > 0.5
        known = (inside * (light >= np.quantile(light[seen], 0.8))).astype(np.float32) if seen.any() else inside
    # Lashes in the corners and veins are kept in place but not extrapolated.
    pale = known
    if (known > 0.5).sum() > 8:
        low, high = np.quantile(light[known > 0.5], [0.25, 0.6])
        pale = known * smoothstep(light, float(low) - 4, float(high))
    shade = lit[..., None]
    sclera = filled(window / shade, pale, radius) * shade
    behind = distance < 1
    if behind.any() and (raised := least / max(float((sclera[behind] @ LUMA).mean()), 1.0)) > 1:
        # Reduce the saturation: part of the color is light reflected by the lids.
        gray = (sclera @ LUMA)[..., None]
        sclera = np.float32(raised) * (gray + np.float32(_SCLERA_COLOR / raised) * (sclera - gray))
    sclera += known[..., None] * (window - sclera)
    iris, catchlight = _completed_iris(window, trusted, distance, center, radius)
    share = 1 - smoothstep(distance, *LIMBUS)
    return Eyeball(sclera, known, iris, share, catchlight, center, radius)


def filled(window: Array, known: Array, reach: float) -> Array:
    """The window [H, W, 3], extrapolated from where known [H, W] is 1 to where it is 0.

    Args: reach: pixels, scale of the Gaussians, up to a sigma of 2.5 reach.
    """
    height, width = known.shape
    k = min(_FILL_REACH / reach, 1.0)  # the result is smooth, so it is computed on a reduced picture
    size = max(round(width * k), 2), max(round(height * k), 2)
    both = np.dstack([window * known[..., None], known])
    both = cv2.resize(both, size, interpolation=cv2.INTER_AREA) if k < 1 else both
    out = np.broadcast_to(both[..., :3].sum((0, 1)) / max(float(both[..., 3].sum()), 1e-6), (*both.shape[:2], 3))
    out = out.astype(np.float32)
    for sigma in (2.5 * reach * k, 1.2 * reach * k, 0.6 * reach * k, 0.3 * reach * k):
        near = cv2.GaussianBlur(both, (0, 0), max(sigma, 0.5))
        weight = near[..., 3:]
        out += (weight * 3).clip(0, 1) * (near[..., :3] / np.maximum(weight, 1e-4) - out)
    out = cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR) if k < 1 else out
    return out + known[..., None] * (window - out)


def _fitted_iris(
    window: Array, inside: Array, center: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.float64], float]:
    """Center and radius of the circle near the landmarks' with the strongest outward brightness step at its sides."""
    light = cv2.GaussianBlur(window @ LUMA, (0, 0), max(0.08 * radius, 0.5))
    side = np.radians([-40, -20, 0, 20, 40])
    angles = np.concatenate([side, side + np.pi])
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)  # [10, 2]
    sx, sy = (s.ravel() for s in np.meshgrid(_SHIFTS, _SHIFTS))
    centers = center + radius * np.stack([sx, sy], 1)  # [49, 2]
    k = np.array([0.93, 1.07])  # just inside and just outside the circle
    at = centers[:, None, None, None] + (radius * _RADII)[:, None, None, None] * k[:, None, None] * ring
    at = at.astype(np.float32)  # [centers, radii, (inside, outside), angles, 2]
    flat = at.reshape(-1, at.shape[-2], 2)
    values = cv2.remap(light, flat, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(at.shape[:-1])
    seen = cv2.remap(inside, flat, None, cv2.INTER_LINEAR).reshape(at.shape[:-1]).min(2)
    within = light[inside > 0.5]
    usual = float(np.quantile(within, 0.65)) if within.size else 0.0
    step = (values[:, :, 1] - values[:, :, 0]).clip(-60, 60)
    total = seen.sum(-1)
    score = (step * seen).sum(-1) / np.maximum(total, 1e-3) * (total > 3)
    # Outside the limbus the picture is as light as the sclera, which distinguishes it from the rim of the pupil.
    for part in (slice(0, 5), slice(5, 10)):
        pale = values[:, :, 1, part] - usual
        weight = seen[..., part]
        score += 0.5 * ((pale * weight).sum(-1) / np.maximum(weight.sum(-1), 1e-3)).clip(-40, 0)
    # Penalize the distance from the landmarks' circle, so that another circle has to be clearly better.
    confidence_note = 6.0 * ((sx / 0.3) ** 2 + (sy / 0.2) ** 2)[:, None] + 2.0 * ((_RADII - 1) / 0.25)[None] ** 2
    best = np.unravel_index(np.argmax(score - confidence_note), score.shape)
    return centers[best[0]], float(radius * _RADII[best[1]])


def _completed_iris(
    window: Array, trusted: Array, distance: Array, center: NDArray[np.float64], radius: float
) -> tuple[Array, Array]:
    """The iris [H, W, 3] without catchlight, its hidden part completed by symmetry; and the catchlight [H, W, 3]."""
    rings = max(round(LIMBUS[1] * radius) + 2, 4)
    theta = (np.arange(_NUM_ANGLES) * (2 * np.pi / _NUM_ANGLES))[:, None]
    rho = np.linspace(0, LIMBUS[1] * radius, rings)
    px = (center[0] + rho * np.cos(theta)).astype(np.float32)
    py = (center[1] + rho * np.sin(theta)).astype(np.float32)
    polar = cv2.remap(window, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.remap(trusted, px, py, cv2.INTER_LINEAR)

    # A reflection is lighter than the rest of its ring and than most of the iris.
    light = polar @ LUMA
    usual = np.array(
        [np.median(column[w > 0.7]) if (w > 0.7).any() else 255.0 for column, w in zip(light.T, seen.T, strict=True)]
    )
    within = np.linspace(0, LIMBUS[1], rings) < 0.92
    sure = (seen > 0.7) & within
    if sure.any():  # a light iris beside an off-center pupil is not a reflection
        usual = np.maximum(usual, np.quantile(light[sure], 0.75))
    shine = smoothstep((light - usual).astype(np.float32), *_CATCHLIGHT) * within
    clean = seen * (1 - cv2.dilate(shine, np.ones((5, 3), np.uint8)))

    half, at = _NUM_ANGLES // 2, np.arange(_NUM_ANGLES)
    total, mean = 50 * clean[..., None], 50 * clean[..., None] * polar
    for mirrored in (-at % _NUM_ANGLES, (half - at) % _NUM_ANGLES, (half + at) % _NUM_ANGLES):
        total = total + clean[mirrored][..., None]
        mean = mean + clean[mirrored][..., None] * polar[mirrored]
    # Where no mirror image is visible, use the mean of the ring, or of the rings nearby.
    weight, sums = clean.sum(0), (polar * clean[..., None]).sum(0)
    both = np.concatenate([sums, weight[:, None]], 1)[None]
    both = cv2.GaussianBlur(both, (0, 0), 0.7) + 1e-3 * cv2.GaussianBlur(both, (0, 0), 0.2 * rings + 1)
    ring_mean = both[0, :, :3] / np.maximum(both[0, :, 3:], 1e-6)
    found = np.minimum(total, 1)
    mean = ring_mean + found * (mean / np.maximum(total, 1e-6) - ring_mean)

    # Back to the window; visible parts of the iris are the photo's.
    turned = np.concatenate([mean, mean[:1]]).astype(np.float32)
    y, x = np.mgrid[: window.shape[0], : window.shape[1]].astype(np.float32)
    angle = np.arctan2(y - np.float32(center[1]), x - np.float32(center[0])) % np.float32(2 * np.pi)
    row = angle * np.float32(_NUM_ANGLES / (2 * np.pi))
    column = distance * np.float32((rings - 1) / LIMBUS[1])
    symmetric = cv2.remap(turned, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    around = np.concatenate([shine, shine[:1]]).astype(np.float32)
    shining = cv2.remap(around, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    shining = (cv2.dilate(shining, np.ones((3, 3), np.uint8)) * trusted * (distance < 0.97)).astype(np.float32)
    own = (trusted * (1 - shining))[..., None]
    iris = symmetric + own * (window - symmetric)
    catchlight = (shining[..., None] * (window - iris)).clip(0)
    return iris, catchlight
