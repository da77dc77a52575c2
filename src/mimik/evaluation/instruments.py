"""Measures frames: landmarks, identity and features of generated and real frames, and all metrics."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimik.arrays import Array, Float
from mimik.data.episodes import to_model_range
from mimik.evaluation import dynamics, metrics, motion_fidelity
from mimik.evaluation.detectors import Detector
from mimik.face.landmarks import BLENDSHAPES, NUM_POINTS, Image, Landmarker
from mimik.face.tracker import Tracker
from mimik.networks.features import FaceNet, content_network, face_chip
from mimik.networks.losses import content_loss

NUM_NETWORK_FRAMES = 16  # evenly spaced frames of a clip for CSIM and feature distances
_BATCH = 8


@dataclass
class Observation:
    """Measurements of some frames of one person."""

    images: Image  # uint8 RGB [N, H, W, 3]
    points: Array  # [N, 478, 3], blendshapes: [N, 52]; NaN where no face was found
    blendshapes: Array
    at: list[int]  # indices of the frames for the networks
    identity: Array  # [len(at), 128] FaceNet embeddings; NaN where no face was found
    # activations of the content network, per batch of `at`
    features: list[list[Tensor]] = field(default_factory=list)
    # [len(at), C] spatial means of the last activations
    embeddings: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))


class Instruments(threading.local):
    """Landmark detector and networks of one thread, loaded on first use."""

    def __init__(self, device: torch.device, lpips: metrics.LpipsAlex | None) -> None:
        self.device = device
        self.lpips = None if lpips is None else lpips.to(device).eval()

    @cached_property
    def landmarker(self) -> Landmarker:
        return Landmarker()

    @cached_property
    def _face_net(self) -> FaceNet:
        return FaceNet().to(self.device).eval()

    @cached_property
    def content(self) -> Any:
        return content_network("efficientnet_lite0").to(self.device).eval()

    @cached_property
    def _detector(self) -> Detector:
        return Detector.best(self.landmarker)

    def signals(self, images: Image, points: Array, blendshapes: Array) -> dict[str, Float]:
        """motion_fidelity.signals of consecutive frames, with the detector of detectors.detector_name().

        Args: images: [N, H, W, 3], points: [N, 478, 3], blendshapes: [N, 52] found in them.
        """
        return motion_fidelity.signals(self._detector.complete(list(images), points, blendshapes))

    def planes(self, images: Image) -> Tensor:
        """uint8 [B, H, W, 3] -> [B, 3, H, W] in [-1, 1] on the device."""
        return to_model_range(torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2))

    def find(self, images: Image, *, in_order: bool) -> tuple[Array, Array]:
        """Landmarks [N, 478, 3] and blendshapes [N, 52] of frames [N, H, W, 3], from pixels only; NaN: no face.

        Args: in_order: track the face between frames; else it is detected in each frame.
        """
        points = np.full((len(images), NUM_POINTS, 3), np.nan, np.float32)
        blendshapes = np.full((len(images), len(BLENDSHAPES)), np.nan, np.float32)
        if in_order:
            tracker = Tracker(self.landmarker)
            found = [tracker.track(image) for image in images]
        else:
            first, which = _distinct(images)
            seen = [next(iter(self.landmarker.detect(images[i])), None) for i in first]
            found = [seen[i] for i in which]
        for i, face in enumerate(found):
            if face is not None:
                points[i], blendshapes[i] = face.points, face.blendshapes
        return points, blendshapes

    @torch.inference_mode()
    def identity(self, images: Image, points: Array) -> Array:
        """[N, 128] FaceNet embeddings; NaN where points are."""
        out = np.full((len(images), 128), np.nan, np.float32)
        seen = np.flatnonzero(np.isfinite(points).all((1, 2)))
        for some in np.array_split(seen, math.ceil(len(seen) / _BATCH) or 1):
            if len(some):
                chips = np.stack([face_chip(images[i], points[i]) for i in some])
                planes = torch.from_numpy(chips).to(self.device).permute(0, 3, 1, 2).float()
                out[some] = self._face_net(planes).cpu().numpy()
        return out

    @torch.inference_mode()
    def look(self, images: Image, at: list[int], *, in_order: bool) -> Observation:
        """All measurements of frames that need no reference; see find."""
        points, blendshapes = self.find(images, in_order=in_order)
        shown, places = images[at], points[at]
        first, which = _distinct(shown)
        if in_order:  # with tracking, equal pictures may have different landmarks
            identity = self.identity(shown, places)
        else:
            identity = self.identity(shown[first], places[first])[which]
        look = Observation(images, points, blendshapes, at, identity)
        for batch in torch.from_numpy(shown[first]).split(_BATCH):
            look.features.append(self.content(self.planes(batch.numpy())))
        if len(first) < len(shown):
            layers = [torch.cat(parts) for parts in zip(*look.features, strict=True)]
            look.features = [[layer[some] for layer in layers] for some in torch.tensor(which).split(_BATCH)]
        # The same as content.embed(), without running the network again.
        look.embeddings = torch.cat([layers[-1].mean((2, 3)) for layers in look.features]).cpu().numpy()
        return look


def _distinct(images: Image) -> tuple[list[int], list[int]]:
    """Indices of the distinct pictures, and for each picture the index of its equal among them."""
    places: dict[bytes, int] = {}
    first: list[int] = []
    which: list[int] = []
    for number, image in enumerate(images):
        place = places.setdefault(hashlib.sha256(image.tobytes()).digest(), len(first))
        if place == len(first):
            first.append(number)
        which.append(place)
    return first, which


@dataclass(frozen=True)
class DriverMotion:
    """Motion of a driver, measured in its frames."""

    points: Array  # [N, 478, 3], blendshapes: [N, 52]; NaN where no face was found
    blendshapes: Array
    signals: Mapping[str, Float]  # motion_fidelity.signals of the frames
    fps: float  # frames per second
    volume: dynamics.Volume | None  # of its sound; None without sound

    def compared(self, points: Array, blendshapes: Array, signals: Mapping[str, Float]) -> dict[str, float]:
        """Metrics of the group "motion"; points, blendshapes and signals are of a result's consecutive frames."""
        found = motion_fidelity.compare_signals(self.signals, signals)
        values = {
            f"{name}_{what}": row[what] for name, row in found["contacts"].items() for what in ("agreement", "recall")
        }
        for name, row in found["signals"].items():
            values |= {f"{name}_correlation": row["correlation"], f"{name}_amplitude": row["amplitude"]}
        some = slice(found["frames"])
        values |= dynamics.scores(self.points[some], points[some], self.volume)
        values["pumping_ratio"] = dynamics.pumping_ratio(self.points[some], points[some], self.fps)
        values["blendshape_aed"] = dynamics.blendshape_aed(self.blendshapes[some], blendshapes[some])
        values["pose_apd"] = dynamics.pose_apd(self.points[some], points[some])
        return values


@dataclass(frozen=True)
class GroundTruth:
    """Real frames, measured once for all models."""

    look: Observation  # of the frames
    known: Array  # [N, 478, 3] landmarks of the clip, given to models and used for the masks
    motion: DriverMotion | None  # motion, if the frames are consecutive; else None

    @cached_property
    def masks(self) -> dict[str, list[Any]]:
        side = self.look.images.shape[1:3]
        return {
            name: [metrics.region_mask(points, *region, side) for points in self.known]
            for name, region in metrics.MEASURED_REGIONS.items()
        }

    @cached_property
    def sharpness(self) -> Float:
        return metrics.sharpness(self.look.images, self.masks["face"])


@torch.inference_mode()
def against_ground_truth(
    instruments: Instruments, goal: GroundTruth, result: Observation
) -> tuple[dict[str, float], list[float]]:
    """All metrics of a result, and the L1 of each of its frames."""
    real = goal.look
    l1 = metrics.l1(real.images, result.images)
    seen = np.isfinite(real.points).all((1, 2))
    lost = seen & ~np.isfinite(result.points).all((1, 2))
    sizes = [len(layers[0]) for layers in real.features]
    weights = instruments.content.layer_weights
    distances = [float(content_loss(a, b, weights)) for a, b in zip(real.features, result.features, strict=True)]
    values = {
        "l1": l1.mean(),
        "psnr_db": metrics.psnr_db(real.images, result.images).mean(),
        "ssim_gauss11": metrics.ssim_gauss11(real.images, result.images).mean(),
        "lite0_distance": np.average(distances, weights=sizes),
        "csim_dlib": mean_known(metrics.cosine(real.identity, result.identity)),
        "akd68_percent": mean_known(metrics.akd68_percent(real.points, result.points)),
        "lost_percent": 100 * lost.sum() / seen.sum() if seen.any() else math.nan,
        "blendshape_correlation": metrics.blendshape_correlation(real.blendshapes, result.blendshapes),
        "pose_correlation": metrics.pose_correlation(real.points, result.points),
        "gaze_error_percent": mean_known(metrics.gaze_error_percent(real.points, result.points)),
        "eyes_l1": mean_known(metrics.masked_l1(real.images, result.images, goal.masks["eyes"])),
        "mouth_l1": mean_known(metrics.masked_l1(real.images, result.images, goal.masks["mouth"])),
        "sharpness_ratio": mean_known(metrics.sharpness(result.images, goal.masks["face"]) / goal.sharpness),
    }
    if goal.motion is not None:
        values["acceleration_error"], values["jitter_ratio"] = metrics.jitter(real.points, result.points)
        signals = instruments.signals(result.images, result.points, result.blendshapes)
        values |= goal.motion.compared(result.points, result.blendshapes, signals)
    if instruments.lpips is not None:
        batches = [real.at[i : i + _BATCH] for i in range(0, len(real.at), _BATCH)]
        pairs = [(instruments.planes(real.images[i]), instruments.planes(result.images[i])) for i in batches]
        values["lpips_alex_v01"] = torch.cat([instruments.lpips(a, b) for a, b in pairs]).mean().item()
    return {name: float(value) for name, value in values.items()}, l1.round(4).tolist()


def mean_known(values: Any) -> float:
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
