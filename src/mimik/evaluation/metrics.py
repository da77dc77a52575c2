"""One definition of each published metric; METRICS describes how to read them.

Pictures are uint8 RGB [N, H, W, 3]; points are [N, 478, 3] in pixels, NaN where no face was found. Landmark metrics
compare landmarks detected in the result with landmarks detected in the same way in the real frame.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the usual name
from numpy.typing import NDArray
from torch import Tensor, nn

from mimik.arrays import Float
from mimik.config import ModelError
from mimik.evaluation.dynamics import pose_degrees
from mimik.evaluation.motion_fidelity import CONTACTS, OPEN_EYE, SIGNALS, gaze
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, DETAILED, OVAL, Image

_PEAK_DB = 100.0  # value of equal pictures; a difference of 1 in one pixel at 256 px gives 101 dB
_SSIM_RADIUS, _SSIM_SIGMA = 5, 1.5  # Wang et al. 2004
_OUTER_EYE_CORNERS = 33, 263
# smallest standard deviation of the driver for which a correlation is meaningful
_MIN_STD = {"blendshape": 0.02, "pose": 1.0}
_MOVING = np.arange(1, len(BLENDSHAPES))  # without _neutral


@dataclass(frozen=True)
class Metric:
    """Name, direction and definition of a metric."""

    name: str
    label: str
    better: str  # "lower", "higher", or "one": nearer to 1
    recipe: str
    digits: int = 2
    group: str = "picture"  # "motion": in a separate table

    def badness(self, value: float) -> float:
        """A number that is smaller for better values; infinite without a value."""
        if math.isnan(value):
            return math.inf
        if self.better == "one":
            return abs(math.log(max(value, 1e-9)))
        return value if self.better == "lower" else -value


_DETECTED_IN_BOTH = "landmarks detected in the result and in the real frame"
METRICS = {
    metric.name: metric
    for metric in (
        Metric("l1", "L1", "lower", "mean absolute difference of all pixels and channels, 0..255"),
        Metric("psnr_db", "PSNR, dB", "higher", "of the mean square of a frame, peak 255, at most 100; mean of frames"),
        Metric(
            "ssim_gauss11",
            "SSIM",
            "higher",
            "Wang et al. 2004: Gaussian window of 11 px, sigma 1.5, K 0.01 and 0.03, RGB channels averaged, without a "
            "border of 5 px; as scikit-image with gaussian_weights=True, use_sample_covariance=False, data_range=255",
            3,
        ),
        Metric(
            "lite0_distance",
            "feature distance (EfficientNet-Lite0)",
            "lower",
            "losses.content_loss on EfficientNet-Lite0 (ImageNet): this project's own, not LPIPS",
            3,
        ),
        Metric("lpips_alex_v01", "LPIPS (AlexNet, v0.1)", "lower", "Zhang et al. 2018, whole frame in -1..1", 3),
        Metric(
            "csim_dlib",
            "CSIM",
            "higher",
            "cosine of the embeddings of dlib's face ResNet, faces aligned by landmarks found in each picture",
            3,
        ),
        Metric(
            "akd68_percent",
            "AKD, % of the eyes' distance",
            "lower",
            f"mean distance of 68 points, {_DETECTED_IN_BOTH}; frames in which both have a face",
        ),
        Metric(
            "lost_percent", "faces lost, %", "lower", "frames without a face in the result where the real one has", 1
        ),
        Metric(
            "blendshape_correlation",
            "blendshape correlation",
            "higher",
            "Pearson's over the frames of a clip, mean of the blendshapes that move in the driver (standard deviation "
            "0.02 or more); 0 for one that does not move in the result",
            3,
        ),
        Metric(
            "pose_correlation",
            "pose correlation",
            "higher",
            "the same for yaw, pitch and roll, where the driver moves (1 degree or more)",
            3,
        ),
        Metric(
            "gaze_error_percent",
            "gaze error, % of an eye's width",
            "lower",
            f"distance of the iris's position between the corners of the eye, {_DETECTED_IN_BOTH}; open eyes only",
        ),
        Metric("eyes_l1", "L1 of the eyes", "lower", "L1 in the hull of the real frame's lids and a margin"),
        Metric("mouth_l1", "L1 of the mouth", "lower", "L1 in the hull of the real frame's lips and a margin"),
        Metric(
            "acceleration_error",
            "acceleration error",
            "lower",
            "mean |a' - a| over mean |a|: second differences over time of 68 points, in eyes' distances, of result and "
            "driver; 1 for a still picture",
        ),
        Metric(
            "jitter_ratio", "jitter, result over driver", "one", "mean |a'| over mean |a| of the same accelerations"
        ),
        Metric(
            "sharpness_ratio",
            "sharpness, result over real",
            "one",
            "variance of the Laplacian of gray inside the face, result over real frame; mean of frames",
        ),
    )
}


def _motion_metrics() -> Iterator[Metric]:
    """Metrics of motion fidelity and dynamics."""
    for name, contact in CONTACTS.items():
        unit = "of the face's usual opening" if contact.relative else "eye distances"
        how = (
            f"frames in which the driver's opening is at most {contact.shut} (shut) or at least {contact.open} {unit} "
            "(open), 68 points detected in the result"
        )
        yield Metric(f"{name}_agreement", f"{name} open or shut as the driver's", "higher", f"share of {how}", 3)
        yield Metric(f"{name}_recall", f"{name}: recall of shut frames", "higher", f"of the shut ones among {how}", 3)
    for name, signal in SIGNALS.items():
        how = f"motion_fidelity.signals, where the driver's standard deviation is {signal.min_std:g} or more"
        yield Metric(f"{name}_correlation", f"{signal.label}: correlation", "higher", f"Pearson's; {how}")
        yield Metric(f"{name}_amplitude", f"{signal.label}: amplitude", "one", f"ratio of standard deviations; {how}")
    for name, (label, recipe) in _SCORES.items():
        yield Metric(f"{name}_score", f"{label}, score", "higher", f"1 - |result - real| / real; THEval: {recipe}", 3)
    yield Metric("pumping_ratio", "size pumping, result over driver", "one", "dynamics.pumping of both")
    yield Metric("blendshape_aed", "blendshape AED", "lower", "mean absolute difference of 51 blendshapes, 0..1", 3)
    yield Metric("pose_apd", "APD, degrees", "lower", "mean absolute difference of yaw, pitch and roll")


_SCORES = {
    "lip_dynamics": ("lip dynamics", "standard deviation over time of the distances of 40 lip points"),
    "head_motion": ("head motion", "deviation and speed of the head's angles, variance of its position"),
    "brow_dynamics": ("brow dynamics", "standard deviation of the brows' distance from the eyes"),
    "silent_lips": ("lips in silence", "median absolute deviation of the mouth's opening in silences of 0.3 s or more"),
    "lip_volume": ("lips and volume", "mean absolute difference of the mouth's opening and the sound's volume"),
}
METRICS |= {metric.name: replace(metric, group="motion") for metric in _motion_metrics()}


# Pictures.


def l1(x: Image, x_hat: Image) -> Float:
    """[N] mean absolute difference of each frame, 0..255."""
    return np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in zip(x, x_hat, strict=True)])


def psnr_db(x: Image, x_hat: Image) -> Float:
    """[N] peak signal-to-noise ratio of each frame in dB, at most 100."""
    square = [np.square(a.astype(np.int32) - b).mean() for a, b in zip(x, x_hat, strict=True)]
    return 10 * np.log10(255**2 / np.maximum(square, 255**2 / 10 ** (_PEAK_DB / 10)))


def ssim_gauss11(x: Image, x_hat: Image) -> Float:
    """[N] structural similarity of each frame, -1..1; Wang et al. 2004, equal to scikit-image's (tested) and faster."""
    inside = slice(_SSIM_RADIUS, -_SSIM_RADIUS)
    return np.array([ssim_map(one, other)[inside, inside].mean() for one, other in zip(x, x_hat, strict=True)])


def ssim_map(x: Image, x_hat: Image) -> Float:
    """[H, W, 3] ssim_gauss11 of one frame [H, W, 3] before averaging; the border is reflected."""
    kernel = cv2.getGaussianKernel(2 * _SSIM_RADIUS + 1, _SSIM_SIGMA, cv2.CV_64F)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def blurred(picture: NDArray[Any]) -> Float:
        return np.asarray(cv2.sepFilter2D(picture, cv2.CV_64F, kernel, kernel))

    a, b = x.astype(np.float64), x_hat.astype(np.float64)
    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return np.asarray(similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))


# Groups of points, and the margin around the hull of each, in distances between the eyes' outer corners.
MEASURED_REGIONS = {"mouth": (DETAILED[:1], 0.12), "eyes": (DETAILED[1:], 0.12), "face": ([OVAL], 0.0)}


def region_mask(points: NDArray[Any], groups: Sequence[Sequence[int]], margin: float, side: tuple[int, int]) -> Any:
    """Pixels inside the convex hulls of groups of points: bool [H, W].

    Args:
        points: [478, 2 or 3].
        groups: the points of each hull.
        margin: around each hull, in distances between the eyes' outer corners.
        side: height and width of the picture.
    """
    mask = np.zeros(side, np.uint8)
    angles = np.arange(16) * (math.pi / 8)
    circle = margin * outer_eye_distance(points) * np.stack([np.cos(angles), np.sin(angles)], 1)
    for group in groups:
        outline = (points[list(group), None, :2] + circle - 0.5).reshape(-1, 2)
        hull = cv2.convexHull(np.round(outline).astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 1)
    return mask.astype(bool)


def masked_l1(x: Image, x_hat: Image, masks: Sequence[Any]) -> Float:
    """[N] mean absolute difference of each frame inside its mask, 0..255; NaN where the mask is empty."""
    pairs = zip(x, x_hat, masks, strict=True)
    return np.array([np.abs(a[m].astype(np.int16) - b[m]).mean() if m.any() else np.nan for a, b, m in pairs])


def sharpness(images: Image, masks: Sequence[Any]) -> Float:
    """[N] variance of the Laplacian of the grayscale image inside each mask."""
    values = []
    for image, mask in zip(images, masks, strict=True):
        edges = cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F)
        values.append(float(edges[mask].var()) if mask.any() else np.nan)
    return np.array(values)


# Landmarks.


def outer_eye_distance(points: NDArray[Any]) -> Any:
    """[...] 3D distance between the outer eye corners of points [..., 478, 3], in their unit."""
    return np.linalg.norm(points[..., _OUTER_EYE_CORNERS[0], :] - points[..., _OUTER_EYE_CORNERS[1], :], axis=-1)


def akd68_percent(points: NDArray[Any], found: NDArray[Any]) -> Float:
    """[N] mean 2D distance of 68 points, in percent of the real face's eye distance; NaN where a face is missing.

    Args: points, found: [N, 478, 3] found in the real frames, and in the result.
    """
    apart = np.linalg.norm((points - found)[:, faces.POINTS_68, :2], axis=-1).mean(-1)
    return 100 * apart / outer_eye_distance(points)


def gaze_error_percent(points: NDArray[Any], found: NDArray[Any]) -> Float:
    """[N] mean distance of the iris positions, in percent of an eye's width.

    Averaged over eyes that are open in the real frame; NaN where none is open, or a face is missing.
    """
    goal, opening = gaze(points)
    apart = np.linalg.norm(gaze(found)[0] - goal, axis=-1)  # [N, 2]
    return 100 * _nan_mean(np.where(opening >= OPEN_EYE, apart, np.nan), axis=1)


def correlation(driver: NDArray[Any], result: NDArray[Any], min_std: float) -> float:
    """Pearson correlation over frames, averaged over the columns that move in the driver.

    Args:
        driver: [N, C].
        result: [N, C]; a constant column counts as 0. Rows with NaN in either are omitted.
        min_std: standard deviation from which a column of the driver counts as moving.

    Returns:
        -1..1; NaN where nothing moves, or fewer than 3 rows are left.
    """
    rows = np.isfinite(driver).all(1) & np.isfinite(result).all(1)
    a, b = np.asarray(driver, np.float64)[rows], np.asarray(result, np.float64)[rows]
    if len(a) < 3:
        return math.nan
    moving = a.std(0) >= min_std
    if not moving.any():
        return math.nan
    a, b = a[:, moving] - a[:, moving].mean(0), b[:, moving] - b[:, moving].mean(0)
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return float(np.where(size > 1e-9, (a * b).sum(0) / np.maximum(size, 1e-9), 0).mean())


def blendshape_correlation(driver: NDArray[Any], result: NDArray[Any]) -> float:
    """correlation() of blendshapes [N, 52] whose standard deviation in the driver is at least 0.02."""
    return correlation(driver[:, _MOVING], result[:, _MOVING], _MIN_STD["blendshape"])


def pose_correlation(driver: NDArray[Any], result: NDArray[Any]) -> float:
    """correlation() of yaw, pitch and roll of points [N, 478, 3], if the driver's standard deviation is 1 degree."""
    return correlation(pose_degrees(driver), pose_degrees(result), _MIN_STD["pose"])


def accelerations(points: NDArray[Any]) -> Float:
    """Second differences over time of 68 2D points, in median eye distances per frame squared.

    Args: points: [N, 478, 3] of consecutive frames.

    Returns: [N - 2, 68, 2]; NaN where one of three frames has no face.
    """
    seen = np.isfinite(points).all((1, 2))
    scale = np.median(outer_eye_distance(points[seen])) if seen.any() else math.nan
    return np.diff(points[:, faces.POINTS_68, :2].astype(np.float64), n=2, axis=0) / scale


def jitter(driver: NDArray[Any], result: NDArray[Any]) -> tuple[float, float]:
    """Error and size of the result's accelerations, relative to the driver's; points [N, 478, 3] each.

    Returns:
        acceleration_error: mean |a' - a| / mean |a|; 0 is perfect, 1 is the value of a still picture.
        jitter_ratio: mean |a'| / mean |a|; below 1 is smoother than the driver. Both are NaN if no three consecutive
        frames have faces in both, or the driver is still.
    """
    a, b = accelerations(driver), accelerations(result)
    both = np.isfinite(a).all((1, 2)) & np.isfinite(b).all((1, 2))
    size = np.linalg.norm(a[both], axis=-1).mean() if both.any() else 0.0
    if size == 0:
        return math.nan, math.nan
    apart = np.linalg.norm(b[both] - a[both], axis=-1).mean()
    return float(apart / size), float(np.linalg.norm(b[both], axis=-1).mean() / size)


def _nan_mean(values: Float, axis: int | None = None) -> Any:
    """np.nanmean, without a warning if all values are NaN."""
    known = np.isfinite(values)
    count = known.sum(axis)
    return np.where(count > 0, np.where(known, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


# Networks.


def cosine(a: NDArray[Any], b: NDArray[Any]) -> Float:
    """[N] cosine similarity of rows of [N, C] each; csim_dlib for embeddings of features.FaceNet.

    dlib compares embeddings by Euclidean distance d, with a threshold of 0.6 for one person. They have about equal
    norms r, so cosine = 1 - d^2 / (2 r^2); docs/evaluation.md has the measured r.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def frechet_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features; Heusel et al. 2017, covariances over N - 1.

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2). The trace of the root is the sum of the singular values of A B^T,
    where S_a = A^T A. This is exact also with fewer rows than features, where a matrix root of S_a S_b is unstable. The
    value decreases with the number of rows: compare only values of equal numbers.

    Args: a, b: [N, C] and [M, C], two rows or more.

    Returns:
        >= 0; 0 when equal.

    Raises ValueError on other shapes.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features {list(a.shape)} and {list(b.shape)}: use [N, C] and [M, C] of two rows or more.")

    def root(x: NDArray[Any]) -> Float:
        centered = (x - x.mean(0)) / math.sqrt(len(x) - 1)
        return np.asarray(np.linalg.qr(centered, "r") if len(x) > x.shape[1] else centered)  # [C or N, C]

    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    root_a, root_b = root(a), root(b)
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * shared
    return max(float(apart), 0.0)


LPIPS_FILES = {"alexnet-owt-7be5be79.pth": "7be5be79", "alex.pth": "df73285e"}  # file name: prefix of its SHA-256
LPIPS_HELP = (
    "put alexnet-owt-7be5be79.pth (https://download.pytorch.org/models/alexnet-owt-7be5be79.pth) and alex.pth "
    "(lpips/weights/v0.1/alex.pth of the package lpips 0.1.4) into one folder and pass that as --lpips"
)


class LpipsAlex(nn.Module):
    """LPIPS with AlexNet, version 0.1; Zhang et al. 2018, arXiv:1801.03924. The weights are the user's files."""

    _LAYERS = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))  # index in torchvision's list, stride, padding

    def __init__(self, folder: Path) -> None:
        """Args: folder: with LPIPS_FILES. Raises ModelError if a file is missing or differs."""
        super().__init__()
        weights: dict[str, Tensor] = {}
        for name, digest in LPIPS_FILES.items():
            path = folder / name
            if not path.is_file():
                raise ModelError(f"--lpips {folder}: contains no {name}; {LPIPS_HELP}.")
            if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest):
                raise ModelError(f"--lpips {folder}: {name} is damaged or a different file; {LPIPS_HELP}.")
            weights |= torch.load(path, map_location="cpu", weights_only=True)
        self.load(weights)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Loads the tensors of both files, by their names in the files."""
        for layer, (number, _, _) in enumerate(self._LAYERS):
            self.register_buffer(f"weight{layer}", weights[f"features.{number}.weight"])
            self.register_buffer(f"bias{layer}", weights[f"features.{number}.bias"])
            self.register_buffer(f"linear{layer}", weights[f"lin{layer}.model.1.weight"])
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    def _features(self, x: Tensor) -> list[Tensor]:
        """Activations after each of five convolutions, normalized over channels."""
        x = (x - self.get_buffer("shift")) / self.get_buffer("scale")
        out = []
        for layer, (_, stride, padding) in enumerate(self._LAYERS):
            if layer in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = F.conv2d(x, self.get_buffer(f"weight{layer}"), self.get_buffer(f"bias{layer}"), stride, padding).relu()
            out.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return out

    @torch.inference_mode()
    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] each -> [B] distances, >= 0."""
        pairs = zip(self._features(x), self._features(x_hat), strict=True)
        layers = [
            F.conv2d((a - b).square(), self.get_buffer(f"linear{i}")).mean((1, 2, 3)) for i, (a, b) in enumerate(pairs)
        ]
        return torch.stack(layers).sum(0)


# Statistics over clips.


def bootstrap_interval(
    values: NDArray[Any], *, seed: int = 0, num_samples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap of the mean of values [N], without NaN: low and high end; NaN with fewer than two values."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if len(known) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = known[rng.integers(len(known), size=(num_samples, len(known)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_better(metric: Metric, a: Sequence[float] | Float, b: Sequence[float] | Float) -> float:
    """0..1, share of clips in which a is better than b; ties count half, a missing value is worse than any.

    Args: a, b: [N] of the same clips; clips without both values are omitted. NaN if no clip is left.
    """
    points = []
    for one, other in zip(a, b, strict=True):
        bad = metric.badness(one), metric.badness(other)
        if bad != (math.inf, math.inf):
            points.append(0.5 if bad[0] == bad[1] else float(bad[0] < bad[1]))
    return float(np.mean(points)) if points else math.nan
