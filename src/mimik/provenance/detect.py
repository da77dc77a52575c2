"""A small detector of animated faces for arbitrary videos; its result is a guess, given with its accuracy.

About 90 features are measured on the face of a video and around it, and logistic regression maps them to a probability.
The features exploit that a warped photo has no independent grain in each frame, that its texture moves with the face,
that its background is static, and that synthesized parts are smoother than filmed ones. Compression hides much of this,
so the weights were fitted on clips coded at several qualities (tools/train_detector.py).

The detector was trained on this project's outputs before eyes and mouth became layers. Its accuracy on other people and
on other generators was measured and is part of every result: Result.known and Result.foreign.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array
from mimik.config import InputError, NoFaceError
from mimik.face.landmarks import Image, Landmarker
from mimik.face.tracker import Tracker
from mimik.files import asset
from mimik.media import video

FPS = 12.5  # frame rate of the analysis
NUM_FRAMES = 40  # largest number of analyzed frames
MIN_FRAMES = 12  # smallest number of frames with a face
_SIDE = 160  # side of the crops in pixels
# Landmarks of the alignment and their places in the crop: outer corners of the eyes, corners of the mouth.
_ANCHORS = (33, 263, 61, 291)
_PLACES = np.array([[52, 66], [108, 66], [62, 112], [98, 112]], np.float64)
# Regions of the aligned crop: top, bottom, left, right.
_FACE_PARTS = {
    "forehead": (32, 52, 56, 104),
    "cheeks": (86, 106, 34, 54),
    "mouth": (98, 128, 56, 104),
    "eyes": (54, 76, 40, 120),
}
# Regions of the static crop.
_OUTSIDE = {"left": (0, 60, 0, 22), "right": (0, 60, 138, 160), "top": (0, 14, 0, 160), "body": (144, 160, 20, 140)}
_NUM_BANDS = 10


@dataclass(frozen=True)
class DetectorTest:
    """Accuracy of the detector on held-out clips."""

    auc: float  # probability that a fake scores higher than a real clip; 0.5 is chance, 1 perfect
    low: float  # 95 % confidence interval over people; of foreign clips, over generators
    high: float
    num_real: int  # files; each coded version of a clip counts
    num_made: int

    @property
    def words(self) -> str:
        return (
            f"AUC {self.auc:.2f} ({self.low:.2f} to {self.high:.2f}; {self.num_made} made, {self.num_real} real files)"
        )


@dataclass(frozen=True)
class Result:
    """Result of the detector for one video."""

    probability: float  # 0..1 that the face was animated; prior: half of all videos, by this project's models
    # Whether it is far enough above one half, and the video is similar to the training data. A low probability is not
    # evidence: most outputs of mimik with layers of eyes and mouth get one, too.
    is_sure: bool
    unusual: float  # distance of the video from the training data; above 1 is far
    num_frames: int  # number of analyzed frames
    known: DetectorTest  # on this project's outputs of held-out people
    foreign: DetectorTest  # on outputs of other generators

    @property
    def sentence(self) -> str:
        """The result in a few sentences for the user."""
        percent = round(100 * self.probability)
        if self.unusual > 1:
            answer = f"Undecided: this video is unlike those that the detector was trained on ({percent} %)"
        elif self.is_sure:
            answer = f"The face looks animated ({percent} %)"
        else:
            answer = f"Undecided: {percent} % for an animated face; it may be filmed, or animated by any program"
        if self.foreign.low < 0.6:
            general = "It does not generalize: on videos of other programs it may do no better than chance"
        elif self.foreign.auc < self.known.auc - 0.1:
            general = "On videos of other programs it is much weaker"
        else:
            general = "On videos of other programs"
        return (
            f"{answer}. This is an estimate, not proof. On mimik's own outputs of people it never saw: "
            f"{self.known.words}. {general}: {self.foreign.words}. `mimik verify` looks for proof."
        )

    def to_json(self) -> str:
        """The complete result as JSON text, with the sentence."""
        rounded = {"probability": round(self.probability, 4), "unusual": round(self.unusual, 3)}
        return json.dumps(asdict(self) | rounded | {"sentence": self.sentence}, indent=2)


def detect(path: Path, *, landmarker: Landmarker | None = None) -> Result:
    """Estimate whether the face in a video was animated, from the first 3 seconds with a face.

    Raises:
        InputError: if it is not a video. NoFaceError: if a face is found for less than about a second.
    """
    if video.kind(path) != "video":
        raise InputError(f"{path}: is a still picture; use a video, because the detector measures motion.")
    with closing(video.read_frames(path, fps=FPS)) as read:
        frames, points = track(read, landmarker or Landmarker())
    if len(frames) < MIN_FRAMES:
        raise NoFaceError(
            f"{path}: a face is visible in {len(frames)} of the frames; use a video in which one is visible for "
            f"{MIN_FRAMES / FPS:.1f} s or longer."
        )
    return _classifier().judge(measure(frames, points), len(frames))


def track(frames: Iterable[Image], landmarker: Landmarker) -> tuple[list[Image], list[NDArray[Any]]]:
    """The first NUM_FRAMES frames with a face, and its points [478, 2] in each; reads at most four times as many."""
    tracker = Tracker(landmarker)
    kept: list[Image] = []
    points: list[NDArray[Any]] = []
    for number, frame in enumerate(frames):
        if number == 4 * NUM_FRAMES or len(kept) == NUM_FRAMES:
            break
        face = tracker.track(frame)
        if face is not None:
            kept.append(frame)
            points.append(face.points[:, :2].astype(np.float64))
    return kept, points


# Features.


def measure(frames: Sequence[Image], points: Sequence[NDArray[Any]]) -> dict[str, float]:
    """Features of a video by name; all finite.

    Args:
        frames: uint8 RGB [H, W, 3] each, FPS per second, all of the same size.
        points: [478, 2] of the face in each frame.
    """
    places = [_similarity(one[list(_ANCHORS)], _PLACES) for one in points]
    still = np.median(places, axis=0)  # the static crop is at the median position of the face
    lumas = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    aligned = np.stack([_crop(luma, place) for luma, place in zip(lumas, places, strict=True)])
    steady = np.stack([_crop(luma, still) for luma in lumas])
    numbers: dict[str, float] = {}
    numbers |= _spectrum(aligned)
    numbers |= _sharpness_of_parts(aligned, steady)
    numbers |= _grain_change(aligned, steady)
    numbers |= _texture_kept(aligned)
    numbers |= _movement(np.stack(points), np.array(places))
    return {name: float(np.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0)) for name, value in numbers.items()}


def _similarity(source: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """[2, 3] least-squares similarity from source to target points."""
    a, b = source - source.mean(0), target - target.mean(0)
    scale = max(float((a * a).sum()), 1e-9)
    cosine = float((a * b).sum()) / scale
    sine = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / scale
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.concatenate([turn, (target.mean(0) - turn @ source.mean(0))[:, None]], axis=1)


def _crop(luma: NDArray[np.uint8], place: NDArray[np.float64]) -> Array:
    method = cv2.INTER_AREA if math.hypot(place[0, 0], place[1, 0]) < 0.7 else cv2.INTER_LINEAR
    crop = cv2.warpAffine(luma, place, (_SIDE, _SIDE), flags=method, borderMode=cv2.BORDER_REFLECT_101)
    return crop.astype(np.float32)


def _cropped(crops: Array, box: tuple[int, int, int, int]) -> Array:
    top, bottom, left, right = box
    return crops[..., top:bottom, left:right]


def _log(value: Any) -> float:
    return math.log(float(value) + 1e-3)


def _fine_detail(crops: Array) -> Array:
    """High-pass filtered crops: each crop minus its Gaussian blur."""
    return np.stack([crop - cv2.GaussianBlur(crop, (0, 0), 1.2) for crop in crops])


def _spectrum(aligned: Array) -> dict[str, float]:
    """Power spectrum of the face, and its change between frames."""
    face = aligned[:, 32:128, 32:128]
    window = np.hanning(96)[:, None] * np.hanning(96)[None]
    power = np.abs(np.fft.rfft2((face - face.mean((1, 2), keepdims=True)) * window)) ** 2
    down, right = np.fft.fftfreq(96)[:, None], np.fft.rfftfreq(96)[None]
    band = np.minimum((np.hypot(down, right) * 2 * _NUM_BANDS).astype(int), _NUM_BANDS - 1)
    bands = np.stack([np.log(power[:, band == i].mean(1) + 1e-3) for i in range(_NUM_BANDS)], axis=1)
    bands -= bands[:, :1]
    found = {f"spectrum {i}": bands[:, i].mean() for i in range(1, _NUM_BANDS)}
    found |= {f"spectrum change {i}": _log(np.abs(np.diff(bands[:, i])).mean()) for i in range(1, _NUM_BANDS, 2)}
    # Upsampling leaves more power along the axes than between them.
    axes = (np.abs(down) < 0.02) | (right < 0.02)
    high = np.hypot(down, right) > 0.3
    found["axes"] = _log(power[:, axes & high].mean()) - _log(power[:, ~axes & high].mean())
    return found


def _sharpness_of_parts(aligned: Array, steady: Array) -> dict[str, float]:
    """Sharpness of regions relative to the cheeks, and its change over time."""
    fine, around = _fine_detail(aligned), _fine_detail(steady)
    levels = {name: np.log((_cropped(fine, box) ** 2).mean((1, 2)) + 0.05) for name, box in _FACE_PARTS.items()}
    levels |= {name: np.log((_cropped(around, box) ** 2).mean((1, 2)) + 0.05) for name, box in _OUTSIDE.items()}
    found = {"sharpness cheeks": levels["cheeks"].mean()}
    found |= {f"sharpness {name}": (one - levels["cheeks"]).mean() for name, one in levels.items() if name != "cheeks"}
    found |= {f"sharpness change {name}": _log(one.std()) for name, one in levels.items()}
    for name in ("cheeks", "mouth"):
        values = _cropped(fine, _FACE_PARTS[name])
        spread = float(values.std()) + 1e-3
        found[f"peaks {name}"] = math.log(float(((values / spread) ** 4).mean()) + 1)
    return found


def _grain_change(aligned: Array, steady: Array) -> dict[str, float]:
    """Change between frames: around the face in the static crop, in the face in the aligned crop."""
    found = {}
    for kind, crops, parts in (("still", steady, _OUTSIDE), ("moved", aligned, _FACE_PARTS)):
        change = np.diff(crops, axis=0)
        fine = np.diff(_fine_detail(crops), axis=0)
        for name, box in parts.items():
            here = np.abs(_cropped(change, box))
            found[f"{kind} change {name}"] = _log(here.mean())
            found[f"{kind} same {name}"] = float((here < 1).mean())
            found[f"{kind} fine {name}"] = _log(np.abs(_cropped(fine, box)).mean())
    # Whether there is less grain around the face than in it.
    found["grain ratio"] = found["still fine left"] + found["still fine right"] - 2 * found["moved fine cheeks"]
    found["body ratio"] = found["still change body"] - found["moved change cheeks"]
    return found


def _texture_kept(aligned: Array) -> dict[str, float]:
    """Persistence of fine texture: correlation of regions between frames 1, 4 and 12 apart."""
    fine = _fine_detail(aligned)
    found = {}
    for name, box in _FACE_PARTS.items():
        part = _cropped(fine, box).reshape(len(fine), -1)
        part = part - part.mean(1, keepdims=True)
        part /= np.linalg.norm(part, axis=1, keepdims=True) + 1e-6
        for lag in (1, 4, 12):
            apart = min(lag, len(part) - 1)
            found[f"texture {name} {lag}"] = (part[apart:] * part[:-apart]).sum(1).mean()
    return found


def _movement(points: NDArray[np.float64], places: NDArray[np.float64]) -> dict[str, float]:
    """Motion of head and lips, in hundredths of the crop's side."""
    at = np.einsum("tij,tnj->tni", places[:, :, :2], points) + places[:, None, :, 2]
    at *= 100 / _SIDE
    size = np.median(np.hypot(places[:, 0, 0], places[:, 1, 0]))
    head = points[:, list(_ANCHORS)].mean(1) * size * 100 / _SIDE
    gap = at[:, 14, 1] - at[:, 13, 1]
    rigid = at[:, [168, 6, 197, 10, 234, 454]]
    found = {}
    for name, track_ in (("head", head), ("gap", gap[:, None]), ("rigid", rigid.reshape(len(at), -1))):
        first, second = np.diff(track_, axis=0), np.diff(track_, 2, axis=0)
        found[f"move {name}"] = _log(np.abs(first).mean())
        found[f"jerk {name}"] = _log(np.abs(second).mean()) - _log(np.abs(first).mean())
    return found


# Classifier.


@dataclass(frozen=True)
class Classifier:
    """Logistic regression on standardized features."""

    names: tuple[str, ...]  # [N] of the features
    mean: NDArray[np.float64]  # [N] over the training clips
    deviation: NDArray[np.float64]  # [N] likewise
    weights: NDArray[np.float64]  # [N]
    bias: float
    limit: float  # mean square of standardized, clipped features that few training clips exceed
    margin: float  # required distance above one half; within it, more than one result in ten was wrong
    known: DetectorTest
    foreign: DetectorTest

    def standardized(self, numbers: dict[str, float]) -> NDArray[np.float64]:
        values = np.array([numbers[name] for name in self.names])
        return np.clip((values - self.mean) / self.deviation, -4, 4)

    def judge(self, numbers: dict[str, float], num_frames: int) -> Result:
        """The result for features of `measure`."""
        values = self.standardized(numbers)
        probability = 1 / (1 + math.exp(-float(values @ self.weights + self.bias)))
        unusual = float((values**2).mean()) / self.limit
        is_sure = probability - 0.5 >= self.margin and unusual <= 1
        return Result(probability, is_sure, unusual, num_frames, self.known, self.foreign)

    def save(self, path: Path) -> None:
        """Write the classifier file of the package."""
        arrays = {name: getattr(self, name) for name in ("mean", "deviation", "weights")}
        about = {name: getattr(self, name) for name in ("names", "bias", "limit", "margin")}
        about |= {"known": vars(self.known), "foreign": vars(self.foreign)}
        np.savez_compressed(path, **arrays, about=np.array(json.dumps(about)))

    @classmethod
    def load(cls, path: Path) -> Classifier:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            about |= {"known": DetectorTest(**about["known"]), "foreign": DetectorTest(**about["foreign"])}
            about["names"] = tuple(about["names"])
            return cls(mean=file["mean"], deviation=file["deviation"], weights=file["weights"], **about)


@lru_cache(maxsize=1)
def _classifier() -> Classifier:
    return Classifier.load(asset("detector.npz"))
