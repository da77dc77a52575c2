"""Measures models on clips of people they never saw: the paper's protocol, self-reenactment in order, cross-identity.

Every clip, protocol and model is one small record in REPORT/clips. A run makes the records that are missing and then
the report from all of them, so an interrupted run goes on, and a run with one more model measures that model only.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import html
import io
import itertools
import json
import logging
import math
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from mimik.animation.avatar import Avatar
from mimik.config import (
    AVATAR_SUFFIX,
    MODEL_SUFFIX,
    MODELS,
    PRESETS,
    VERSION,
    InputError,
    ModelError,
    Preset,
    preset_to_json,
)
from mimik.data import prepare
from mimik.data.dataset import (
    INDEX_NAME,
    ClipInfo,
    ClipStore,
    DamagedClipError,
    Tracks,
    evaluation_episodes,
    read_index,
    to_model_range,
)
from mimik.evaluation import metrics
from mimik.evaluation.metrics import METRICS
from mimik.face.landmarks import BLENDSHAPES, NUM_POINTS, Face, Image, Landmarker, Tracker, head_pose
from mimik.inference.avatar_file import read_avatar
from mimik.inference.runtime import Network, read_release
from mimik.inference.synthesis import BUNDLED_MODEL, GeometryPainter, PersonalizedGenerator, PicturePainter
from mimik.media import video
from mimik.motion.draw import landmark_image
from mimik.motion.drivers.motion_file import MotionFile
from mimik.motion.gestures import Motion, stream_gestures
from mimik.networks.features import FaceNet, content_network, face_chip
from mimik.networks.losses import content_loss
from mimik.provenance import sealing as provenance
from mimik.rendering.flow import Flow, Warper
from mimik.training import fine_tuning
from mimik.training.fine_tuning import LearnArguments, Photo, Stage

log = logging.getLogger(__name__)

Array = NDArray[np.float32]
Float = NDArray[np.float64]
Progress = Callable[[str, int, int], None]  # what, done, total

DEVICES = ("auto", "cpu", "cuda")
NUM_NETWORK_FRAMES = 16  # of a clip in order, evenly spaced: what CSIM and feature distances are measured on
_BATCH = 8
_RECIPE = 1  # of the protocols below; raised when they change, so that older records are not used
_MEASURED_BY = ("face", "motion", "rendering", "networks", "inference", "data", "animation", "evaluation")
_LEARNED_BY = ("training", "config.py")  # what an avatar that is learned for a clip depends on besides
_MARK = "evaluation.json"
_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")

# Zakharov et al. 2019, Table 1: FID, SSIM, CSIM, USER for T = 1, 8, 32.
PAPER_TABLE_1 = {
    "X2Face, VoxCeleb1": ("45.8 .68 .16 .82", "51.5 .73 .17 .83", "56.5 .75 .18 .85"),
    "Pix2pixHD, VoxCeleb1": ("42.7 .56 .09 .82", "35.1 .64 .12 .79", "24.0 .70 .16 .71"),
    "the paper, VoxCeleb1": ("43.0 .67 .15 .62", "38.0 .71 .17 .62", "29.5 .74 .19 .61"),
    "the paper FF, VoxCeleb2": ("46.1 .61 .42 .43", "42.2 .64 .47 .40", "40.4 .65 .48 .38"),
    "the paper FT, VoxCeleb2": ("48.5 .64 .35 .46", "42.2 .68 .42 .39", "30.6 .72 .45 .33"),
}


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of one `mimik evaluate` run; every message names the option that it is about."""

    models: tuple[str, ...] = ("geometry",)
    shots: tuple[int, ...] = (1, 8, 32)  # T; the paper's
    holdout: int = 32  # frames of a clip to make; the paper's
    size: int = 256  # px
    limit: int | None = None  # clips, evenly spaced in the index; None: all
    pairs: int | None = None  # of portrait and driver, evenly spaced; None: all
    seed: int = 0
    device: str = "auto"  # one of DEVICES: of the feature networks, and of what is learned for each clip
    learn_seconds: tuple[float, ...] = (0, 10, 30, 60)  # when that is measured; the last ends it

    def __post_init__(self) -> None:
        if not self.models or len(set(self.models)) != len(self.models):
            raise InputError(f"--models {','.join(self.models)}: give one name or more, each once.")
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) != len(self.shots):
            raise InputError(f"--shots {','.join(map(str, self.shots))}: give numbers of photos, 1 or more, each once.")
        if self.holdout < 3:
            raise InputError(f"--holdout {self.holdout}: give 3 frames or more; correlations need them.")
        if not 64 <= self.size <= 2048:
            raise InputError(f"--size {self.size}: give 64 to 2048 pixels, at most what the clips have.")
        for option, value in (("--limit", self.limit), ("--pairs", self.pairs)):
            if value is not None and value < 1:
                raise InputError(f"{option} {value}: give 1 or more, or leave it out for all.")
        times = self.learn_seconds
        if not times or list(times) != sorted(set(times)) or times[0] < 0 or not 1 <= times[-1] <= 1e5:
            given = ",".join(f"{t:g}" for t in times)
            raise InputError(f"--learn-seconds {given}: give rising seconds, 1 or more at the end, such as 0,10,30,60.")
        if self.device not in DEVICES:
            raise InputError(f"--device {self.device}: give one of {', '.join(DEVICES)}.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: torch finds no CUDA device here; give cpu, or leave it out.")


# ---------------------------------------------------------------------------------------------------------------------
# Models. A new kind is a class with `prepare`, and a line in MODELS_TO_MEASURE or load_model.


class Person(Protocol):
    """One person, made from photos."""

    def frame(self, points: Array) -> Image:
        """The person with the landmarks points [478, 3], uint8 RGB of the photos' size."""
        ...


class Model(Protocol):
    """What is measured.

    Attributes:
        identity: changes whenever the results may change, such as the SHA-256 of the weights.
        num_bytes: of its file.
        num_parameters: that make a frame or prepare a person.
    """

    identity: str
    num_bytes: int
    num_parameters: int

    def prepare(self, photos: Image, points: Array) -> Person:
        """Called from several threads. Args: photos: uint8 RGB [T, H, W, 3]; points: [T, 478, 3]."""
        ...


class Copy:
    """An oracle for the lower end: the photo, as it is."""

    identity, num_bytes, num_parameters = "copy", 0, 0

    def prepare(self, photos: Image, points: Array) -> Person:
        return _Copied(photos, points)


class Geometry:
    """The photo nearest in pose and expression, warped; no network."""

    identity, num_bytes, num_parameters = "geometry", 0, 0

    def prepare(self, photos: Image, points: Array) -> Person:
        return _Warped(photos, points)


class Trained:
    """A release, without fine-tuning: e_hat from all photos, and the nearest one is warped."""

    def __init__(self, path: Path) -> None:
        release = read_release(path)
        self.identity = hashlib.sha256(path.read_bytes()).hexdigest()
        self.num_bytes = path.stat().st_size
        self.num_parameters = release.num_parameters
        self._network = Network(release.preset.networks, release.tensors, num_threads=1)
        self._lock = threading.Lock()  # the embedder takes one call at a time

    def prepare(self, photos: Image, points: Array) -> Person:
        with self._lock:
            generator = PersonalizedGenerator.of_photos(self._network, list(photos), list(points))
        return _Warped(photos, points, generator)


class Known:
    """A person whom `mimik learn` learned, whoever the photos show: to be read on clips of that person only."""

    def __init__(self, path: Path) -> None:
        person = read_avatar(path)
        assert person.generator is not None  # its parts fit each other, or it is a ModelError
        self.identity = hashlib.sha256(path.read_bytes()).hexdigest()
        self.num_bytes = path.stat().st_size
        sizes = {name: value.size for name, value in person.tensors.items() if not name.endswith(("._u", "._v"))}
        self.num_parameters = sum(sizes.values()) + person.psi.size
        self.sources = {source.sha256 for source in person.sources}
        self._network = Network(person.preset.networks, person.tensors, num_threads=1)
        self._psi = person.psi

    def prepare(self, photos: Image, points: Array) -> Person:
        return _Warped(photos, points, PersonalizedGenerator(self._network, self._psi))


class _Copied:
    def __init__(self, photos: Image, points: Array) -> None:
        self.photos = photos
        self._turned = np.stack([_turned(p) for p in points])

    def nearest(self, points: Array) -> int:
        """Which photo is nearest in pose and expression: in centimetres, place and size of the head taken out."""
        apart = np.linalg.norm(self._turned - _turned(points), axis=-1).mean(1)
        return int(apart.argmin())

    def frame(self, points: Array) -> Image:
        return self.photos[self.nearest(points)].copy()


def _turned(points: Array) -> Float:
    """[478, 3] centimetres: a face with its pose and expression, without its place and size."""
    pose = head_pose(points)
    return (points - pose.translation) / pose.scale


class _Flows(threading.local):
    """Warpers and flows of the photos that were animated last; models that are measured on the same ones share them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._key: tuple[bytes, int, int] | None = None
        self._warpers: dict[int, Warper] = {}
        self._flows: dict[tuple[int, bytes], Flow] = {}

    def of(self, points: Array, width: int, height: int) -> _Flows:
        """For photos with these landmarks, [T, 478, 3]."""
        key = points.tobytes(), width, height
        if key != self._key:
            self.forget()
            self._key = key
        return self

    def warper(self, number: int, points: Array, width: int, height: int) -> Warper:
        if number not in self._warpers:
            self._warpers[number] = Warper(points, width, height)
        return self._warpers[number]

    def flow(self, number: int, warper: Warper, points: Array) -> Flow:
        key = number, points.tobytes()
        if key not in self._flows:
            self._flows[key] = warper.flow(points)
        return self._flows[key]


_FLOWS = _Flows()


class _Warped(_Copied):
    def __init__(self, photos: Image, points: Array, generator: PersonalizedGenerator | None = None) -> None:
        super().__init__(photos, points)
        self._points, self._generator = points, generator
        self._painters: dict[int, tuple[Warper, PicturePainter]] = {}
        self._painter(0)

    def _shared(self) -> _Flows:
        height, width = self.photos.shape[1:3]
        return _FLOWS.of(self._points, width, height)

    def _painter(self, number: int) -> tuple[Warper, PicturePainter]:
        if number not in self._painters:
            height, width = self.photos.shape[1:3]
            photo, points = self.photos[number], self._points[number]
            warper = self._shared().warper(number, points, width, height)
            generator = self._generator
            painter = GeometryPainter(photo, warper) if generator is None else generator.painter(photo, points, warper)
            self._painters[number] = warper, painter
        return self._painters[number]

    def frame(self, points: Array) -> Image:
        number = self.nearest(points)
        warper, painter = self._painter(number)
        return painter.paint(self._shared().flow(number, warper, points), points)


TRUTH = "truth"  # the real frames themselves, through the same measuring: has to be perfect
MODELS_TO_MEASURE: dict[str, Callable[[torch.device], Model]] = {
    "copy": lambda device: Copy(),
    "geometry": lambda device: Geometry(),
}


LESSONS = ("learn", "scratch")  # before a colon and a model: fine-tuned for each clip; its networks from random weights


def is_lesson(name: str) -> bool:
    """Whether --models names something that is learned anew for each clip."""
    return name.partition(":")[0] in LESSONS and ":" in name


def label_of(model: str) -> str:
    """How tables and files name what --models names: a file without its folders."""
    if is_lesson(model):
        kind, _, rest = model.partition(":")
        return f"{kind}:{label_of(rest)}"
    return Path(model).name if model.endswith((MODEL_SUFFIX, AVATAR_SUFFIX)) else model


def load_model(name: str, device: torch.device) -> Model | None:
    """What --models names, but for lessons; None for the truth.

    Raises:
        ModelError: if there is no such model.
    """
    if name == TRUTH:
        return None
    if name.endswith(AVATAR_SUFFIX):
        return Known(Path(name))
    if name.endswith(MODEL_SUFFIX):
        return Trained(Path(name))
    if name == "texture":
        return Trained(_bundled(name))
    if name not in MODELS_TO_MEASURE:
        there = ", ".join([*MODELS_TO_MEASURE, "texture", TRUTH])
        raise ModelError(
            f"--models {name}: no such model; there are {there}, {MODEL_SUFFIX} and {AVATAR_SUFFIX} files, and learn: "
            f"or scratch: before texture or a {MODEL_SUFFIX} file."
        )
    return MODELS_TO_MEASURE[name](device)


def _bundled(name: str) -> Path:
    if not BUNDLED_MODEL.exists():
        raise ModelError(
            f"--models {name}: no model comes with this installation; give a {MODEL_SUFFIX} file that `mimik train` "
            "wrote."
        )
    return BUNDLED_MODEL


@dataclass(frozen=True)
class Lesson:
    """What is learned anew for each clip, from its photos.

    Attributes:
        arguments: as `mimik learn` would have them.
        identity: changes with the weights or networks that it starts from.
    """

    arguments: LearnArguments
    identity: str


def load_lesson(name: str, *, device: str, seed: int) -> Lesson:
    """What --models names with learn: or scratch:.

    Raises:
        ModelError: if there is no such model.
    """
    kind, _, model = name.partition(":")
    scratch = kind == "scratch"
    if model.endswith(MODEL_SUFFIX) or (model == "texture" and not scratch):
        path = Path(model) if model.endswith(MODEL_SUFFIX) else _bundled(name)
        read_release(path)
        arguments = LearnArguments(model=path, from_scratch=scratch, device=device, seed=seed)
        return Lesson(arguments, f"{kind} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    if scratch and model in PRESETS:
        arguments = LearnArguments(preset=model, from_scratch=True, device=device, seed=seed)
        return Lesson(arguments, f"{kind} {preset_to_json(PRESETS[model])}")
    there = f"a {MODEL_SUFFIX} file that `mimik train` wrote"
    there += f", or a preset: {', '.join(PRESETS)}" if scratch else ", or texture"
    raise ModelError(f"--models {name}: no such model; after {kind}: give {there}.")


# ---------------------------------------------------------------------------------------------------------------------
# Looking at frames.


@dataclass
class Look:
    """What is found in some frames of one person.

    Attributes:
        images: uint8 RGB [N, H, W, 3].
        points: [N, 478, 3], blendshapes: [N, 52]; NaN where no face was found.
        at: numbers of the frames that networks looked at.
        identity: [len(at), 128] of FaceNet; NaN where no face was found.
        features: activations of the content network, for each batch of `at`.
        embeddings: [len(at), C] means of the last of them.
    """

    images: Image
    points: Array
    blendshapes: Array
    at: list[int]
    identity: Array
    features: list[list[Tensor]] = field(default_factory=list)
    embeddings: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))


class Instruments(threading.local):
    """Landmarker and networks of one thread, loaded when they are needed first."""

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

    def planes(self, images: Image) -> Tensor:
        """uint8 [B, H, W, 3] -> [B, 3, H, W] in [-1, 1] on the device."""
        return to_model_range(torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2))

    def find(self, images: Image, *, in_order: bool) -> tuple[Array, Array]:
        """Landmarks [N, 478, 3] and blendshapes [N, 52] of frames, by their pixels alone; NaN where no face is.

        Args:
            images: uint8 RGB [N, H, W, 3].
            in_order: whether a face may be followed from one frame to the next; else it is searched in each.
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
        """[N, 128] of FaceNet; NaN where points are."""
        out = np.full((len(images), 128), np.nan, np.float32)
        seen = np.flatnonzero(np.isfinite(points).all((1, 2)))
        for some in np.array_split(seen, math.ceil(len(seen) / _BATCH) or 1):
            if len(some):
                chips = np.stack([face_chip(images[i], points[i]) for i in some])
                planes = torch.from_numpy(chips).to(self.device).permute(0, 3, 1, 2).float()
                out[some] = self._face_net(planes).cpu().numpy()
        return out

    @torch.inference_mode()
    def look(self, images: Image, at: list[int], *, in_order: bool) -> Look:
        """Everything that is measured of frames alone; see find."""
        points, blendshapes = self.find(images, in_order=in_order)
        shown, places = images[at], points[at]
        first, which = _distinct(shown)
        if in_order:  # equal pictures may have other landmarks
            identity = self.identity(shown, places)
        else:
            identity = self.identity(shown[first], places[first])[which]
        look = Look(images, points, blendshapes, at, identity)
        for batch in torch.from_numpy(shown[first]).split(_BATCH):
            look.features.append(self.content(self.planes(batch.numpy())))
        if len(first) < len(shown):
            layers = [torch.cat(parts) for parts in zip(*look.features, strict=True)]
            look.features = [[layer[some] for layer in layers] for some in torch.tensor(which).split(_BATCH)]
        # The same as content.embed(), without running the network again.
        look.embeddings = torch.cat([layers[-1].mean((2, 3)) for layers in look.features]).cpu().numpy()
        return look


def _distinct(images: Image) -> tuple[list[int], list[int]]:
    """Which pictures show something that none before them shows, and for each picture which of those it equals."""
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
class Goal:
    """Real frames, looked at once for all models.

    Attributes:
        look: at the frames.
        known: [N, 478, 3] landmarks of the clip, which models are given; the masks are made of them.
        in_order: whether the frames are consecutive.
    """

    look: Look
    known: Array
    in_order: bool

    @cached_property
    def masks(self) -> dict[str, list[Any]]:
        side = self.look.images.shape[1:3]
        makers = {"eyes": metrics.eyes_mask, "mouth": metrics.mouth_mask, "face": metrics.face_mask}
        return {name: [make(p, side) for p in self.known] for name, make in makers.items()}

    @cached_property
    def sharpness(self) -> Float:
        return metrics.sharpness(self.look.images, self.masks["face"])


@torch.inference_mode()
def compare(instruments: Instruments, goal: Goal, result: Look) -> tuple[dict[str, float], list[float]]:
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
        "csim_dlib": _mean(metrics.cosine(real.identity, result.identity)),
        "akd68_percent": _mean(metrics.akd68_percent(real.points, result.points)),
        "lost_percent": 100 * lost.sum() / seen.sum() if seen.any() else math.nan,
        "blendshape_correlation": metrics.blendshape_correlation(real.blendshapes, result.blendshapes),
        "pose_correlation": metrics.pose_correlation(real.points, result.points),
        "gaze_error_percent": _mean(metrics.gaze_error_percent(real.points, result.points)),
        "eyes_l1": _mean(metrics.masked_l1(real.images, result.images, goal.masks["eyes"])),
        "mouth_l1": _mean(metrics.masked_l1(real.images, result.images, goal.masks["mouth"])),
        "sharpness_ratio": _mean(metrics.sharpness(result.images, goal.masks["face"]) / goal.sharpness),
    }
    if goal.in_order:
        values["acceleration_error"], values["jitter_ratio"] = metrics.jitter(real.points, result.points)
    if instruments.lpips is not None:
        batches = [real.at[i : i + _BATCH] for i in range(0, len(real.at), _BATCH)]
        pairs = [(instruments.planes(real.images[i]), instruments.planes(result.images[i])) for i in batches]
        values["lpips_alex_v01"] = torch.cat([instruments.lpips(a, b) for a, b in pairs]).mean().item()
    return {name: float(value) for name, value in values.items()}, l1.round(4).tolist()


def _mean(values: Any) -> float:
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


# ---------------------------------------------------------------------------------------------------------------------
# Records.


def _write(path: Path, text: str) -> None:
    """Puts a text in place in one step."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _digest(*what: Any) -> str:
    return hashlib.sha256(json.dumps(what, default=str).encode()).hexdigest()[:16]


def _code(places: Sequence[str]) -> str:
    """Digest of the code that results depend on.

    Args: places: folders and files of the package; what lies elsewhere may change without measuring again.
    """
    root = Path(__file__).parents[1]
    files = [file for place in places for file in sorted((root / place).rglob("*.py"), key=str)]
    files += [root / place for place in places if place.endswith(".py")]
    return _digest(_RECIPE, *(file.read_text(encoding="utf-8") for file in files))


class Records:
    """The results that are there, in files of JSON."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def get(self, name: str) -> dict[str, Any] | None:
        """The record, None if it is not there or damaged."""
        try:
            record = json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def put(self, name: str, record: Mapping[str, Any]) -> None:
        _write(self._folder / f"{name}.json", json.dumps(record))


def _pack(embeddings: Array) -> dict[str, Any]:
    return {"rows": len(embeddings), "float16": base64.b64encode(embeddings.astype(np.float16).tobytes()).decode()}


def _unpack(packed: Mapping[str, Any]) -> Array:
    data = np.frombuffer(base64.b64decode(packed["float16"]), np.float16)
    return data.astype(np.float32).reshape(packed["rows"], -1)


# ---------------------------------------------------------------------------------------------------------------------
# The protocols.


@dataclass(frozen=True)
class Task:
    """One clip under one protocol.

    Attributes:
        protocol: "T = 8" or FIRST.
        clip: what is measured on.
        sources, targets: frame numbers; none is in both.
    """

    protocol: str
    clip: ClipInfo
    sources: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def in_order(self) -> bool:
        return self.protocol == FIRST


FIRST = "first frame"


def tasks(index: Sequence[ClipInfo], config: EvaluateConfig) -> list[Task]:
    """What is measured of clips, clip by clip: the hold-out frames are looked at once for all numbers of photos.

    - "T = n": the paper's. n photos, and hold-out frames that are none of them; dataset.evaluation_episodes.
    - FIRST: the first frame is the photo, all others are made, in order.

    Raises:
        InputError: if no clip is long enough for one of the numbers of shots.
    """
    found = [Task(FIRST, clip, (0,), tuple(range(1, clip.num_frames))) for clip in index if clip.num_frames > 3]
    for shots in config.shots:
        for episode in evaluation_episodes(index, shots, config.holdout, seed=config.seed):
            found.append(Task(f"T = {shots}", episode.info, episode.sources, episode.holdout))
    place = {clip.key: number for number, clip in enumerate(index)}
    return sorted(found, key=lambda task: place[task.clip.key])


class _Evaluation:
    """One run: measures what is missing."""

    def __init__(self, shards: str | Path, config: EvaluateConfig, out: Path, lpips: metrics.LpipsAlex | None) -> None:
        self.shards, self.config, self.out = shards, config, out
        chosen = config.device
        if chosen == "auto":
            chosen = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(chosen)
        self.instruments = Instruments(self.device, lpips)
        self.labels = [label_of(name) for name in config.models]
        self.models = {label_of(name): load_model(name, self.device) for name in config.models if not is_lesson(name)}
        self.lessons = {
            label_of(name): load_lesson(name, device=chosen, seed=config.seed)
            for name in config.models
            if is_lesson(name)
        }
        self.records = Records(out / "clips")
        self._code, self._learning_code = _code(_MEASURED_BY), _code(_LEARNED_BY)

    def name(self, kind: str, model: str, *what: Any) -> str:
        """Of a record."""
        one = self.models[model]
        identity = one.identity if one is not None else TRUTH
        return f"{kind}-{model}-{_digest(self._code, identity, self.config.size, *what)}"

    def _what(self, task: Task) -> tuple[str, list[Any]]:
        """How records of a task begin, and what they depend on besides the model."""
        where = task.protocol.replace(" = ", "").replace(" ", "-").lower()
        has_lpips = self.instruments.lpips is not None
        return f"{task.clip.key}-{where}", [task.clip.to_json(), task.sources, task.targets, has_lpips]

    def self_name(self, task: Task, model: str) -> str:
        kind, what = self._what(task)
        return self.name(kind, model, *what)

    def lesson_name(self, task: Task, model: str, seconds: float | None) -> str:
        """Of a record; seconds of learning, None: what was kept. Seconds are those of this machine."""
        kind, what = self._what(task)
        machine = platform.node(), _processor(), os.cpu_count(), torch.get_num_threads(), str(self.device)
        how = self._learning_code, self.lessons[model].identity, self.config.seed, self.config.learn_seconds
        when = "kept" if seconds is None else f"{seconds:g}s"
        digest = _digest(self._code, self.config.size, what, machine, how)
        return f"{kind}-{model.replace(':', '-')}-{when}-{digest}"

    def store(self) -> ClipStore:
        """Not shared between threads: it keeps the clip that it read last."""
        return ClipStore(self.shards, size=self.config.size)

    def of_clip(self, group: Sequence[Task], tell: Callable[[str], None]) -> list[dict[str, Any]]:
        """The records of one clip under all protocols; frames that several have as targets are looked at once."""
        store = self.store()
        goals: dict[tuple[int, ...], Goal] = {}
        found = []
        for task, model in itertools.product(group, self.models):
            name = self.self_name(task, model)
            record = self.records.get(name)
            if record is None:
                if task.targets not in goals:
                    goals[task.targets] = self._goal(store, task)
                record = self._measured(store, task, model, goals[task.targets])
                self.records.put(name, record)
            found.append(record)
            tell(f"{task.clip.key}, {task.protocol}, {model}")
        return found

    def _goal(self, store: ClipStore, task: Task) -> Goal:
        """The real frames of a task."""
        frames = store.read(task.clip, task.targets)
        at = list(range(len(task.targets)))
        if task.in_order:
            at = np.unique(np.linspace(0, len(at) - 1, NUM_NETWORK_FRAMES).round().astype(int)).tolist()
        look = self.instruments.look(frames.images, at, in_order=task.in_order)
        return Goal(look, frames.points, task.in_order)

    def _measured(self, store: ClipStore, task: Task, model: str, goal: Goal) -> dict[str, Any]:
        return self._record(task, model, goal, self._made(store, task, model, goal))

    def _record(self, task: Task, model: str, goal: Goal, images: Image) -> dict[str, Any]:
        """What is measured of a model's frames."""
        look = self.instruments.look(images, goal.look.at, in_order=task.in_order)
        values, l1 = compare(self.instruments, goal, look)
        record = {
            "protocol": task.protocol,
            "clip": task.clip.key,
            "person": task.clip.person,
            "source_sha256": task.clip.source_sha256,
            "model": model,
            "metrics": {name: _number(value) for name, value in values.items()},
            "l1": l1,
        }
        if not task.in_order:
            record |= {"embeddings": _pack(look.embeddings), "real": _pack(goal.look.embeddings)}
        return record

    def _made(self, store: ClipStore, task: Task, name: str, goal: Goal) -> Image:
        """The model's frames."""
        model = self.models[name]
        if model is None:
            return goal.look.images.copy()
        photos = store.read(task.clip, task.sources)
        person = model.prepare(photos.images, photos.points)
        return np.stack([person.frame(points) for points in goal.known])

    # What is learned for each clip.

    def lesson_records(self, task: Task, model: str) -> list[dict[str, Any]] | None:
        """Those of a person who is learned from a task's photos, at each of the times and what is kept, if all are."""
        found = []
        for seconds in (*self.config.learn_seconds, None):
            record = self.records.get(self.lesson_name(task, model, seconds))
            if record is None or ("picture" in record and not (self.out / record["picture"]).exists()):
                return None
            found.append(record)
        return found

    def of_lesson(self, task: Task, model: str, count: _Count) -> list[dict[str, Any]]:
        """Learns the person in a task's photos with nothing else running here, and measures what there was when.

        Raises:
            InputError: if the clip is damaged, or the person cannot be learned.
        """
        store = self.store()
        photos, blendshapes = store.read(task.clip, task.sources), store.tracks(task.clip).blendshapes
        shots = [
            Photo(image, Face(points, blendshapes[number], 1.0), 0)
            for image, points, number in zip(photos.images, photos.points, task.sources, strict=True)
        ]
        what = f"{task.clip.key}, {task.protocol}, {model}"
        times = self.config.learn_seconds
        course = fine_tuning.learn_photos(
            shots,
            self.lessons[model].arguments,
            times,
            progress=lambda point, step, num_steps: count.tell(f"{what}: step {step} of learning"),
        )
        goal = self._goal(store, task)
        names = [self.lesson_name(task, model, seconds) for seconds in (*times, None)]
        alike: dict[int, list[int]] = {}  # a person whose learning ended early is the same at several times
        for number, stage in enumerate([*course.stages, course.kept]):
            alike.setdefault(id(stage), []).append(number)
        stages = [*course.stages, course.kept]
        ended = course.ended

        def measured(numbers: list[int]) -> list[dict[str, Any]]:
            stage = stages[numbers[0]]
            images = self._made_by(course.preset, stage, photos.images, photos.points, goal)
            record = self._record(task, model, goal, images)
            record |= {"steps": stage.steps, "learned_s": stage.seconds}
            found = []
            for number in numbers:
                seconds, name = (*times, None)[number], names[number]
                own = {**record, "seconds": seconds, "ended": ended}
                if seconds is None and task.protocol == f"T = {min(self.config.shots)}":
                    own["picture"] = f"pictures/{name}.png"
                    shown = images[[_middle(task), int(np.argmax(record["l1"]))]]
                    self.draw(self.out / own["picture"], np.concatenate(list(shown), 1), model)
                self.records.put(name, own)
                found.append(own)
                count(f"{what}, {'what was kept' if seconds is None else f'{seconds:g} s'}")
            return found

        jobs = {str(numbers): partial(measured, numbers) for numbers in alike.values()}
        records, failed = _all_done(jobs, count)
        if failed:
            raise InputError(next(iter(failed.values())))
        return sorted(records, key=lambda record: math.inf if record["seconds"] is None else record["seconds"])

    def _made_by(self, preset: Preset, stage: Stage, photos: Image, points: Array, goal: Goal) -> Image:
        """The frames of a person as far as it was learned."""
        generator = PersonalizedGenerator(Network(preset.networks, stage.tensors, num_threads=1), stage.psi)
        person = _Warped(photos, points, generator)
        return np.stack([person.frame(p) for p in goal.known])

    def timed(self, task: Task, name: str) -> dict[str, Any]:
        """Milliseconds, with nothing else running here: to prepare the person, and the median of a frame."""
        model = self.models[name]
        assert model is not None
        frames = self.store().read(task.clip, [*task.sources, *task.targets])
        num = len(task.sources)
        _FLOWS.forget()  # or another model's would be taken
        start = time.perf_counter()
        person = model.prepare(frames.images[:num], frames.points[:num])
        prepared = time.perf_counter() - start
        seconds = []
        for points in frames.points[num:]:
            start = time.perf_counter()
            person.frame(points)
            seconds.append(time.perf_counter() - start)
        return {"prepare": round(1000 * prepared, 2), "frame": round(1000 * float(np.median(seconds)), 2)}

    # Cross-identity.

    def portrait(self, path: Path) -> tuple[Avatar, Array]:
        """The person of a portrait, and its embedding [128].

        Raises:
            InputError: if there is no face in it.
        """
        avatar = Avatar.from_photos([path], landmarker=self.instruments.landmarker)
        picture = video.read_image(path)
        return avatar, self.instruments.identity(picture[None], avatar.face.points[None])[0]

    def of_portrait(
        self, path: Path, clips: Sequence[ClipInfo], models: Mapping[str, str], tell: Callable[[str], None]
    ) -> list[dict[str, Any]]:
        """The records of one portrait, driven by clips as `mimik animate` does it."""
        person = _once(partial(self.portrait, path))
        found = []
        for clip, model in itertools.product(clips, models):
            with contextlib.suppress(DamagedClipError):  # the clip's own job tells of it
                found.append(self._crossed(path, person, clip, model, models[model]))
            tell(f"{path.stem} by {clip.key}, {model}")
        return found

    def _crossed(self, path: Path, person: Callable[[], Any], clip: ClipInfo, model: str, asked: str) -> dict[str, Any]:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        name = self.name(f"{path.stem}-by-{clip.key}", model, clip.to_json(), digest)
        picture = self.out / "pictures" / f"{name}.png"
        record = self.records.get(name)
        if record is not None and picture.exists():
            return record
        avatar, identity = person()
        tracks = self.store().tracks(clip)
        driver = driver_of(clip, tracks)
        made = avatar.frames(driver, model=asked, frame="crop", size=self.config.size)
        images = np.stack(list(made))
        points, blendshapes = self.instruments.find(images, in_order=True)
        at = np.unique(np.linspace(0, len(images) - 1, NUM_NETWORK_FRAMES).round().astype(int))
        found = self.instruments.identity(images[at], points[at])
        values = {
            "csim_dlib": _mean(metrics.cosine(np.broadcast_to(identity, found.shape), found)),
            "blendshape_correlation": metrics.blendshape_correlation(tracks.blendshapes, blendshapes),
            "pose_correlation": metrics.pose_correlation(tracks.points, points),
            "jitter_ratio": metrics.jitter(tracks.points, points)[1],
            "lost_percent": 100 * float(1 - np.isfinite(points).all((1, 2)).mean()),
        }
        record = {
            "protocol": CROSS,
            "clip": clip.key,
            "person": path.stem,
            "model": model,
            "metrics": {name: _number(value) for name, value in values.items()},
            "picture": f"pictures/{picture.name}",
        }
        sources = (provenance.Ingredient.from_file("photo", path),)
        self.draw(picture, _strip(images, tracks.points, clip.size), model, sources)
        self.records.put(name, record)
        return record

    def draw(self, path: Path, picture: Image, model: str, sources: tuple[provenance.Ingredient, ...] = ()) -> None:
        """Writes a picture of the report, sealed."""
        path.parent.mkdir(exist_ok=True)
        claim = provenance.Claim(path.name, model, sources)
        with provenance.seal(path, claim, force=True) as draft:
            draft.write_image(picture)

    def row(self, task: Task, number: int) -> list[Image]:
        """Source, target, landmarks and each model's frame; number: of the target among the task's."""
        frames = self.store().read(task.clip, [*task.sources, task.targets[number]])
        photos, target, points = frames.images[:-1], frames.images[-1], frames.points[-1]
        side = len(target)
        cells = [photos[0], target, landmark_image(points, side, side)]
        for model in self.models.values():
            if model is not None:
                cells.append(model.prepare(photos, frames.points[:-1]).frame(points))
        return cells


CROSS = "cross-identity"


def _middle(task: Task) -> int:
    """Which of a task's targets the grid of the report shows."""
    return len(task.targets) // 2


def driver_of(clip: ClipInfo, tracks: Tracks) -> MotionFile:
    """A clip as the driver of an animation, by the landmarks that are kept with it."""
    found = [Face(p, b, 1.0) for p, b in zip(tracks.points, tracks.blendshapes, strict=True)]
    reference, gestures = stream_gestures(found, clip.fps, smooth=0, lookahead_s=math.inf)
    motion = Motion.of_gestures(clip.key, clip.fps, reference, gestures)
    return MotionFile(clip.key, Path(clip.source), motion)


_CELL_PX, _LABEL_PX = 192, 22


def _cell(image: Image) -> Image:
    smaller = image.shape[0] > _CELL_PX
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (_CELL_PX, _CELL_PX), interpolation=interpolation), np.uint8)


def _sheet(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[Image]]]) -> Image:
    """Rows of pictures under titles, each row with a line about it."""
    width = len(titles) * _CELL_PX
    parts = [_text_line(width, [(i * _CELL_PX, title) for i, title in enumerate(titles)])]
    for name, cells in rows:
        parts += [np.concatenate([_cell(cell) for cell in cells], 1), _text_line(width, [(0, name)])]
    return np.concatenate(parts)


def _text_line(width: int, texts: Sequence[tuple[int, str]]) -> Image:
    line = np.full((_LABEL_PX, width, 3), 24, np.uint8)
    for x, text in texts:
        cv2.putText(line, text, (x + 4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
    return line


def _strip(images: Image, points: Array, side: int) -> Image:
    """Six even steps of an animation under the driver's landmarks, all made square."""
    at = np.linspace(0, len(images) - 1, 6).round().astype(int)
    drawn = [_cell(landmark_image(points[i], side, side)) for i in at]
    return np.concatenate([np.concatenate(drawn, 1), np.concatenate([_cell(images[i]) for i in at], 1)])


# ---------------------------------------------------------------------------------------------------------------------
# Speed.


def speed(out: Path, model: str, asked: str) -> dict[str, Any]:
    """`mimik animate` of the bundled portrait by a video of 512 px, in a process of its own, as its report tells it.

    An avatar brings its own photo.
    """
    portrait = str(resources.files("mimik").joinpath("assets/portraits/eileen_collins.png"))
    driver, result = out / "speed" / "driver.mp4", out / "speed" / f"{model}.mp4"
    driver.parent.mkdir(exist_ok=True)
    if not driver.exists():
        _animate(portrait, "talk", driver, ["--model", "geometry"], driver.with_suffix(".json"))
    report = result.with_suffix(".json")
    if asked.endswith(AVATAR_SUFFIX):
        _animate(asked, str(driver), result, [], report)
    else:
        _animate(portrait, str(driver), result, ["--model", asked], report)
    return dict(json.loads(report.read_text(encoding="utf-8")))


def _animate(photo: str, driver: str, out: Path, options: Sequence[str], report: Path) -> None:
    command = [sys.executable, "-m", "mimik", "animate", photo, driver, "-o", str(out), *options]
    done = subprocess.run([*command, "--json", str(report), "--force"], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"the speed of {out.stem} could not be measured: {done.stderr.strip()[-300:]}")


# ---------------------------------------------------------------------------------------------------------------------
# A run.


def evaluate(
    data: str | Path,
    out: Path,
    config: EvaluateConfig,
    *,
    portraits: Path | None = None,
    lpips: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measures models and writes the report; goes on where the same command was stopped.

    Args:
        data: shards of `mimik prepare` (folder, index or URL), or a folder of videos, which is prepared first.
        out: folder of the report; made if it is missing, continued if a report is in it.
        config: what is measured.
        portraits: folder of pictures for cross-identity; None: it is left out.
        lpips: folder with metrics.LPIPS_FILES; None: LPIPS is left out.
        progress: called with what was done, and the number of records done and of all.

    Returns:
        What results.json holds.

    Raises:
        InputError: if anything given cannot be used; nothing is written then.
    """
    labels = [label_of(name) for name in config.models]
    if len(set(labels)) != len(labels):
        raise InputError(f"--models {','.join(config.models)}: two files of one name; rename one.")
    for name in config.models:
        if is_lesson(name):
            load_lesson(name, device=config.device, seed=config.seed)
        else:
            load_model(name, torch.device("cpu"))
    alone = {label_of(name): name for name in config.models if not is_lesson(name)}
    able = {label: name for label, name in alone.items() if name in MODELS or name.endswith(MODEL_SUFFIX)}
    if portraits is None and config.pairs is not None:
        raise InputError(f"--pairs {config.pairs}: goes with --portraits FOLDER; give both or neither.")
    if portraits is not None and not able:
        raise InputError(
            f"--portraits {portraits}: is for models that animate, and --models names none: {', '.join(MODELS)}."
        )
    photos = _photos(portraits) if portraits is not None else []
    start = time.perf_counter()
    _check_report_folder(out)
    perceptual = metrics.LpipsAlex(lpips) if lpips is not None else None
    shards = _shards(data, out, config, progress)
    index = _spaced(read_index(shards), config.limit)
    for clip in index:
        if clip.size < config.size:
            raise InputError(f"--size {config.size}: clip {clip.key} has {clip.size} px; give that or less.")
    todo = tasks(index, config)
    _mark(out)
    run = _Evaluation(shards, config, out, perceptual)

    pairs = _spaced(list(itertools.product(photos, index)), config.pairs)
    own = [name for name in alone if name not in (TRUTH, "copy")]
    lessons = list(itertools.product([task for task in todo if not task.in_order], run.lessons))
    num_looks = len(lessons) * (len(config.learn_seconds) + 1)
    count = _Count(progress, len(todo) * len(alone) + len(pairs) * len(able) + num_looks + len(own))
    jobs = {
        key: partial(run.of_clip, list(group), count)
        for key, group in itertools.groupby(todo, lambda task: task.clip.key)
    }
    for path, group in itertools.groupby(pairs, lambda pair: pair[0]):
        jobs[path.name] = partial(run.of_portrait, path, [clip for _, clip in group], able, count)
    records, left_out = _all_done(jobs, count)
    for task, model in lessons:
        if task.clip.key in left_out:
            continue
        found = run.lesson_records(task, model)
        try:
            records += run.of_lesson(task, model, count) if found is None else found
        except InputError as error:
            left_out[f"{task.clip.key}, {task.protocol}, {model}"] = str(error)
        else:
            for _ in found or ():
                count(f"{task.clip.key}, {task.protocol}, {model}")
    speeds = {}
    for model in own:
        name = run.name("speed", model, platform.node(), todo[0].clip.key)
        record = run.records.get(name)
        if record is None:
            with threadpool_limits(limits=1, user_api="blas"):  # as in the measuring above
                record = run.timed(todo[0], model)
            if model in able or model.endswith(AVATAR_SUFFIX):
                record["whole"] = speed(out, model, alone[model])
            run.records.put(name, record)
        speeds[model] = record
        count(f"speed of {model}")
    if not records:
        raise InputError(f"{data}: nothing could be measured; {next(iter(left_out.values()), 'no clip is usable')}")

    results = _summary(run, records, speeds, left_out)
    results["seconds"] = round(time.perf_counter() - start, 1)
    _report(run, todo, records, results)
    return results


class _Count:
    """Counts what is done, from several threads; ends them when the run is stopped."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()
        self.stopped = False

    def tell(self, what: str) -> None:
        """What is going on, without anything being done."""
        with self._lock:
            self._progress(what, self._done, self._total)

    def __call__(self, what: str) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        with self._lock:
            self._done += 1
            self._progress(what, self._done, self._total)


def _all_done(
    jobs: Mapping[str, Callable[[], list[dict[str, Any]]]], count: _Count
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The records of all jobs in their order, and the reasons of those that failed by what the user gave.

    A thread for each core, with one thread of torch each: the networks are small, and threads that wait for each other
    at every layer cost several times what they bring on cores that are shared.
    """
    records: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # On shared cores the linear solver's threads mostly wait for each other, too.
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
            waiting = {name: pool.submit(job) for name, job in jobs.items()}
            try:
                for name, future in waiting.items():
                    try:
                        records += future.result()
                    except InputError as error:
                        failed[name] = str(error)
            except BaseException:
                count.stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(num_threads)
    return records, failed


def _mark(out: Path) -> None:
    """Makes the folder of a report, and says what it is."""
    out.mkdir(exist_ok=True)
    _write(out / _MARK, json.dumps({"format": "mimik evaluation", "version": VERSION}) + "\n")


def _check_report_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"-o {out}: is a file; give a folder for the report.")
    if out.is_dir() and not (out / _MARK).exists() and any(out.iterdir()):
        raise InputError(f"-o {out}: is a folder with other things in it; give a new one, or that of a report.")
    if not out.parent.is_dir():
        raise InputError(f"-o {out}: the folder {out.parent} does not exist; make it first.")


def _shards(data: str | Path, out: Path, config: EvaluateConfig, progress: Progress) -> str | Path:
    """The shards of data; a folder of videos is prepared, inside the report's."""
    folder = Path(data)
    if not folder.is_dir() or (folder / INDEX_NAME).exists():
        return data
    shards = out / "shards"
    _mark(out)
    prepare.prepare(
        [folder],
        shards,
        prepare.PrepareConfig(size=config.size),
        people="clip",
        progress=lambda state: progress("preparing the videos", state.done, state.total),
    )
    return shards


def _photos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"--portraits {folder}: is no folder; give one with pictures of faces.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PHOTO_SUFFIXES)
    if not found:
        raise InputError(f"--portraits {folder}: has no pictures in it; give one with {', '.join(_PHOTO_SUFFIXES)}.")
    return found


def _spaced(items: list[Any], limit: int | None) -> list[Any]:
    """At most so many of them, evenly spaced."""
    if limit is None or limit >= len(items):
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    """A function that makes its value at its first call."""
    made: list[Any] = []

    def get() -> Any:
        if not made:
            made.append(make())
        return made[0]

    return get


# ---------------------------------------------------------------------------------------------------------------------
# The report.

FRECHET = "frechet_lite0"
_FRECHET_LABEL = "Frechet distance (EfficientNet-Lite0), all clips"
_NUM_CASES = 3


def _protocols(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """In the order of the report: by number of photos, then in order, then cross-identity."""
    names = {record["protocol"] for record in records}
    shots = sorted(names - {FIRST, CROSS}, key=lambda name: int(name.removeprefix("T = ")))
    return [*shots, *(name for name in (FIRST, CROSS) if name in names)]


def _values(records: Sequence[Mapping[str, Any]], metric: str) -> Float:
    """[N] of the records; NaN where there is no value."""
    found = [record["metrics"].get(metric) for record in records]
    return np.array([math.nan if value is None else value for value in found], np.float64)


def _summary(
    run: _Evaluation,
    records: Sequence[Mapping[str, Any]],
    speeds: Mapping[str, Any],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """What results.json holds."""
    protocols: dict[str, Any] = {}
    final = [record for record in records if record.get("seconds") is None]
    for protocol in _protocols(final):
        of = {model: [r for r in final if r["protocol"] == protocol and r["model"] == model] for model in run.labels}
        of = {model: some for model, some in of.items() if some}
        names = [name for name in METRICS if any(name in r["metrics"] for some in of.values() for r in some)]
        table = {model: {name: _statistics(_values(some, name)) for name in names} for model, some in of.items()}
        ranked = [model for model in of if model != TRUTH]
        better = {
            f"{a} over {b}": {name: _number(_share(METRICS[name], of[a], of[b])) for name in names}
            for a, b in itertools.permutations(ranked, 2)
        }
        every = {(r["clip"], r["person"]) for some in of.values() for r in some}
        people = len({person for _, person in every})
        protocols[protocol] = {"clips": len(every), "people": people, "models": table, "better": better}
        if protocol not in (FIRST, CROSS):
            protocols[protocol][FRECHET] = {
                model: _number(
                    metrics.frechet_distance(
                        *(np.concatenate([_unpack(r[k]) for r in some]) for k in ("real", "embeddings"))
                    )
                )
                for model, some in of.items()
            }
    models = {name: model for name, model in run.models.items() if model is not None}
    own = {
        name: {
            "megabytes": round(models[name].num_bytes / 1e6, 2),
            "parameters": models[name].num_parameters,
            **one,
        }
        for name, one in speeds.items()
    }
    return {
        "version": VERSION,
        "settings": asdict(run.config),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "device": str(run.device),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "protocols": protocols,
        "same_clips": _same_clips(run.labels, final),
        "learning": _learning(run, records),
        "notes": _notes(run, records),
        "models": own,
        "left_out": dict(left_out),
    }


def _share(metric: metrics.Metric, a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> float:
    """share_better of the clips that both have."""
    theirs = {(r["clip"], r["person"]): r for r in b}
    both = [(r, theirs[r["clip"], r["person"]]) for r in a if (r["clip"], r["person"]) in theirs]
    ours, others = ([pair[i] for pair in both] for i in (0, 1))
    return metrics.share_better(metric, _values(ours, metric.name), _values(others, metric.name))


def _same_clips(labels: Sequence[str], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the clips that are long enough for every number of photos; without them T and the clips differ."""
    by: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        if record["protocol"] not in (FIRST, CROSS):
            by.setdefault((record["model"], record["protocol"]), {})[record["clip"]] = record
    if len({protocol for _, protocol in by}) < 2:
        return {}
    clips = sorted(set.intersection(*(set(some) for some in by.values())))
    if not clips:
        return {}
    means: dict[str, Any] = {}
    for model, protocol in sorted(by, key=lambda key: (labels.index(key[0]), int(key[1].removeprefix("T = ")))):
        some = [by[model, protocol][clip] for clip in clips]
        means.setdefault(model, {})[protocol] = {name: _number(_mean(_values(some, name))) for name in _CURVES}
    return {"clips": len(clips), "models": means}


def _learning(run: _Evaluation, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each model that is learned for each clip, what it is like after some seconds; None: what was kept."""
    found: dict[str, Any] = {}
    for protocol, model in itertools.product(_protocols(records), run.lessons):
        mine = [r for r in records if r["protocol"] == protocol and r["model"] == model]
        if not mine:
            continue
        rows = []
        for seconds in (*run.config.learn_seconds, None):
            some = [r for r in mine if r["seconds"] == seconds]
            rows.append(
                {
                    "seconds": seconds,
                    "clips": len(some),
                    "steps": _number(float(np.mean([r["steps"] for r in some]))),
                    "learned_s": _number(float(np.mean([r["learned_s"] for r in some]))),
                    "metrics": {name: _statistics(_values(some, name)) for name in _CURVES},
                }
            )
        found.setdefault(protocol, {})[model] = rows
    return found


def _notes(run: _Evaluation, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader has to know of the models."""
    notes = []
    sources = {record["clip"]: record.get("source_sha256") for record in records}
    for label, model in run.models.items():
        if isinstance(model, Known):
            notes.append(f"{label} knows one person: its numbers mean something on clips of that person only.")
            seen = sorted(clip for clip, source in sources.items() if source in model.sources)
            if seen:
                notes.append(f"{label} was learned from the very video of these clips: {', '.join(seen)}.")
    return notes


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _number(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _statistics(values: Float) -> dict[str, float | int | None]:
    known = values[np.isfinite(values)]
    if not len(known):
        return {"clips": 0}
    low, high = metrics.bootstrap_interval(known)
    numbers = {"mean": known.mean(), "median": np.median(known), "low": low, "high": high}
    return {"clips": len(known)} | {name: _number(value) for name, value in numbers.items()}


@dataclass(frozen=True)
class _Table:
    header: list[str]
    rows: list[list[str]]


_Block = tuple[str, Any]  # ("h1" | "h2" | "p", text), ("table", _Table), ("picture", (file, text))


def _cell_text(statistics: Mapping[str, Any], digits: int, clips: int) -> str:
    """Of so many clips; those that have no value are told."""
    if not statistics.get("clips"):
        return "-"
    text = f"{statistics['mean']:.{digits}f}"
    if statistics["low"] is not None:
        text += f" [{statistics['low']:.{digits}f}, {statistics['high']:.{digits}f}]"
    text += f"; {statistics['median']:.{digits}f}"
    return text if statistics["clips"] == clips else f"{text} ({statistics['clips']} of {clips} clips)"


def _metric_table(results: Mapping[str, Any], protocol: str) -> _Table:
    part = results["protocols"][protocol]
    models = list(part["models"])
    arrows = {"lower": "lower is better", "higher": "higher is better", "one": "1 is best"}
    rows = []
    for name in next(iter(part["models"].values())):
        metric = METRICS[name]
        cells = [_cell_text(part["models"][model].get(name, {}), metric.digits, part["clips"]) for model in models]
        rows.append([f"{metric.label} ({arrows[metric.better]})", *cells])
    if FRECHET in part:
        rows.append([f"{_FRECHET_LABEL} (lower is better)", *(f"{part[FRECHET][model]:.3f}" for model in models)])
    return _Table(["mean [95 % interval]; median", *models], rows)


def _better_table(results: Mapping[str, Any], protocol: str) -> _Table | None:
    better = results["protocols"][protocol]["better"]
    against = {name: share for name, share in better.items() if name.endswith(" over geometry")}
    better = against or better
    if not better:
        return None
    names = next(iter(better.values()))
    rows = [
        [
            METRICS[name].label,
            *("-" if share[name] is None else f"{100 * share[name]:.0f} %" for share in better.values()),
        ]
        for name in names
    ]
    return _Table(["share of clips", *better], rows)


def _speed_table(results: Mapping[str, Any]) -> _Table:
    rows = []
    for name, own in results["models"].items():
        size = [f"{own['megabytes']:g}", f"{own['parameters'] / 1e6:.2f}"]
        row = [name, *size, f"{own['prepare']:.1f}", f"{own['frame']:.1f}"]
        whole = own.get("whole")
        if whole is None:
            rows.append([*row, "-", "-", "-"])
            continue
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in whole["ms_per_frame"].items())
        rows.append([*row, f"{whole['frames_per_second']:.0f}", stages, f"{whole['peak_memory_mb']:.0f}"])
    header = ["model", "file, MB", "parameters, M", "prepare, ms", "frame, ms", "end to end, frames/s"]
    return _Table([*header, "ms a frame of each stage", "peak memory, MB"], rows)


# Read first, and drawn over seconds of learning.
_CURVES = (
    "l1",
    "lite0_distance",
    "csim_dlib",
    "akd68_percent",
    "blendshape_correlation",
    "pose_correlation",
    "mouth_l1",
    "sharpness_ratio",
)


def _same_clips_table(results: Mapping[str, Any]) -> _Table:
    rows = [
        [model, protocol, *("-" if v is None else f"{v:.{METRICS[name].digits}f}" for name, v in means.items())]
        for model, of in results["same_clips"]["models"].items()
        for protocol, means in of.items()
    ]
    return _Table(["means", "photos", *(METRICS[name].label for name in _CURVES)], rows)


def _learning_table(results: Mapping[str, Any], protocol: str) -> _Table:
    rows = []
    for model, course in results["learning"][protocol].items():
        for row in course:
            when = "kept" if row["seconds"] is None else f"{row['seconds']:g}"
            cells = [_cell_text(row["metrics"][name], METRICS[name].digits, row["clips"]) for name in _CURVES]
            rows.append([model, when, f"{row['steps']:.0f}", f"{row['learned_s']:.0f}", *cells])
    header = ["mean [95 % interval]; median", "after, s", "steps", "learned for, s"]
    return _Table([*header, *(METRICS[name].label for name in _CURVES)], rows)


_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's
_PANEL = 260, 190  # px, with room around the plot for its numbers


def _curves(results: Mapping[str, Any], protocol: str) -> str:
    """Means with their intervals over seconds of learning, as SVG; dashed: models that learn nothing from a clip."""
    courses = results["learning"][protocol]
    tables = results["protocols"][protocol]["models"]
    still = {name: table for name, table in tables.items() if name not in (*courses, TRUTH)}
    last = max(row["seconds"] or 0 for course in courses.values() for row in course)
    colours = dict(zip([*courses, *still], itertools.cycle(_COLOURS), strict=False))
    width, height = _PANEL
    parts = []
    for number, name in enumerate(_CURVES):
        lines = {
            model: [(row["seconds"], row["metrics"][name]) for row in course if row["seconds"] is not None]
            for model, course in courses.items()
        }
        lines |= {model: [(0, table[name]), (last, table[name])] for model, table in still.items() if name in table}
        lines = {model: [(x, v) for x, v in line if v.get("clips")] for model, line in lines.items()}
        corner = number % 4 * width + 48, number // 4 * height + 24
        parts += _panel(METRICS[name].label, lines, colours, set(still), corner, last)
    below = -(-len(_CURVES) // 4) * height
    for number, (model, colour) in enumerate(colours.items()):
        y = below + 16 * number + 12
        parts.append(_polyline(f"20,{y - 4} 44,{y - 4}", colour, dashed=model in still))
        parts.append(f'<text x="50" y="{y}">{html.escape(model)}</text>')
    size = 4 * width, below + 16 * len(colours) + 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}"'
    return "\n".join([f'{head} font-family="sans-serif" font-size="11">', *parts, "</svg>\n"])


def _panel(
    label: str,
    lines: Mapping[str, Sequence[tuple[float, Mapping[str, Any]]]],
    colours: Mapping[str, str],
    dashed: set[str],
    corner: tuple[int, int],
    last: float,
) -> list[str]:
    """One number over 0..last seconds, in a box whose left top corner is given."""
    ends = [v[e] for line in lines.values() for _, v in line for e in ("mean", "low", "high") if v[e] is not None]
    if not ends:
        return []
    (left, top), wide, tall = corner, _PANEL[0] - 64, _PANEL[1] - 60
    low, span = min(ends), max(ends) - min(ends) or 1.0

    def at(seconds: float, value: float) -> str:
        inside = 0.06 + 0.88 * (value - low) / span
        return f"{left + wide * seconds / last:.1f},{top + tall * (1 - inside):.1f}"

    parts = [
        f'<rect x="{left}" y="{top}" width="{wide}" height="{tall}" fill="none" stroke="#bbb"/>',
        f'<text x="{left}" y="{top - 6}">{html.escape(label)}</text>',
    ]
    for value in (low, low + span):
        y = float(at(0, value).split(",")[1]) + 4
        parts.append(f'<text x="{left - 4}" y="{y:.1f}" text-anchor="end">{value:.3g}</text>')
    for seconds in (0, last):
        x = at(seconds, low).split(",")[0]
        parts.append(f'<text x="{x}" y="{top + tall + 13}" text-anchor="middle">{seconds:g} s</text>')
    for model, line in lines.items():
        where = " ".join(at(seconds, v["mean"]) for seconds, v in line)
        parts.append(_polyline(where, colours[model], dashed=model in dashed))
        for seconds, v in line if model not in dashed else ():
            if v["low"] is not None:
                parts.append(_polyline(f"{at(seconds, v['low'])} {at(seconds, v['high'])}", colours[model], width=0.8))
    return parts


def _polyline(points: str, colour: str, *, width: float = 1.6, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>'


def _blocks(run: _Evaluation, results: Mapping[str, Any], pictures: Sequence[tuple[str, str]]) -> Iterator[_Block]:
    config, machine = run.config, results["machine"]
    yield "h1", "Evaluation"
    yield (
        "p",
        f"mimik {VERSION}. {config.size} px, seed {config.seed}, {config.holdout} hold-out frames. Measured on "
        f"{machine['cores']} cores ({machine['processor']}), networks on {machine['device']}; the last run took "
        f"{results['seconds']:.0f} s, without what had been measured before. Intervals: percentile "
        "bootstrap of the mean over clips.",
    )
    yield (
        "p",
        "The pictures show the people of the data, and what was made of them: this folder is for whoever measured. "
        "Publish the numbers.",
    )
    if TRUTH in config.models:
        yield "p", "truth are the real frames themselves, measured like a model: they have to be perfect."
    for protocol, part in results["protocols"].items():
        yield "h2", _TITLES.get(protocol, f"{protocol}: photos of the same clip; {config.holdout} others are made")
        yield (
            "p",
            f"{'Pairs of portrait and driver' if protocol == CROSS else 'Clips'}: {part['clips']}, of "
            f"{part['people']} {'portraits' if protocol == CROSS else 'people'}.",
        )
        yield "table", _metric_table(results, protocol)
        better = _better_table(results, protocol)
        if better is not None:
            yield "p", "In which share of the clips one model is better than another (ties count half):"
            yield "table", better
    same = results["same_clips"]
    if same:
        yield "h2", "The same clips under every number of photos"
        yield (
            "p",
            f"A clip needs {config.holdout} frames and its photos, so the tables above are of different clips. These "
            f"are the means over the {same['clips']} that are long enough for all.",
        )
        yield "table", _same_clips_table(results)
    for protocol in results["learning"]:
        yield "h2", f"Quality against seconds of learning, {protocol}"
        yield (
            "p",
            "learn: fine-tunes a model on the photos of each clip, scratch: trains the same networks on them from "
            f"random weights; one clip at a time, on {machine['cores']} cores and {machine['device']}, with nothing "
            "else of this run beside it. After so many seconds the moving average of the weights is measured; they "
            "count the program's own probes, not what it takes to load a model and to warp the photos. kept is what "
            "`mimik learn` would have written, and what stands in the tables above. Learning that ended by itself "
            "counts with what was kept from then on. Dashed: models as they are.",
        )
        yield "picture", (_curves_name(protocol), f"Means and their intervals over seconds of learning, {protocol}.")
        yield "table", _learning_table(results, protocol)
    if results["notes"]:
        yield "p", " ".join(results["notes"])
    yield "h2", "Speed and size"
    yield (
        "p",
        "prepare and frame: of one clip, frames of its size. End to end: `mimik animate` of a 512 px portrait "
        "by a 512 px video in a process of its own, decoding, tracking and encoding included; the stages overlap. "
        "A person who is learned for a clip is drawn as fast as with the model that was learned from.",
    )
    yield "table", _speed_table(results)
    for name, text in pictures:
        yield "picture", (name, text)
    yield "h2", "The paper's Table 1, for reading"
    yield (
        "p",
        "FID, SSIM, CSIM and USER of Zakharov et al. 2019 for T = 1, 8, 32. NOT comparable with the tables above: "
        "other people, other crops, other networks behind FID and CSIM. FID needs Inception's weights, which are not "
        "here: the Frechet distance above is on EfficientNet-Lite0 and its size means nothing beside an FID.",
    )
    yield "table", _Table(["", "T = 1", "T = 8", "T = 32"], [[name, *row] for name, row in PAPER_TABLE_1.items()])
    yield "h2", "What the numbers are"
    if run.instruments.lpips is None:
        yield "p", f"LPIPS: not available. To have it, {metrics.LPIPS_HELP}."
    yield "table", _Table(["number", "recipe"], [[f"{m.label} (`{m.name}`)", m.recipe] for m in METRICS.values()])
    if results["left_out"]:
        yield "h2", "Left out"
        yield "table", _Table(["what", "why"], [[name, why] for name, why in results["left_out"].items()])


def _curves_name(protocol: str) -> str:
    return f"learning-{protocol.replace(' = ', '').lower()}.svg"


_TITLES = {
    FIRST: "Self-reenactment: the first frame as photo, all others in order",
    CROSS: "Cross-identity: portraits driven by the clips",
}


def overview(results: Mapping[str, Any]) -> str:
    """A few lines for a terminal: the means of the numbers that are read first."""
    lines = []
    for protocol, part in results["protocols"].items():
        lines.append(f"{protocol} ({part['clips']} {'pairs' if protocol == CROSS else 'clips'})")
        for model, table in part["models"].items():
            shown = [
                f"{METRICS[name].label} {table[name]['mean']:.{METRICS[name].digits}f}"
                for name in _FIRST_READ
                if table.get(name, {}).get("clips")
            ]
            lines.append(f"  {model}: {', '.join(shown)}")
    return "\n".join(lines)


_FIRST_READ = ("l1", "ssim_gauss11", "lite0_distance", "csim_dlib", "akd68_percent", "pose_correlation", "jitter_ratio")


def _markdown(blocks: Sequence[_Block]) -> str:
    out = []
    for kind, what in blocks:
        if kind == "table":
            lines = [what.header, ["---"] * len(what.header), *what.rows]
            out.append("\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines))
        elif kind == "picture":
            out.append(f"![{what[1]}]({what[0]})\n\n{what[1]}")
        else:
            out.append({"h1": "# ", "h2": "## ", "p": ""}[kind] + what)
    return "\n\n".join(out) + "\n"


_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #bbb;padding:.25em .6em;text-align:left}
th{background:#eee}img{max-width:100%}"""


def _html(blocks: Sequence[_Block]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    out = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Evaluation</title><style>{_STYLE}</style>"]
    for kind, what in blocks:
        if kind == "table":
            body = "".join(row(cells, "td") for cells in what.rows)
            out.append(f"<table>{row(what.header, 'th')}{body}</table>")
        elif kind == "picture":
            name, text = (html.escape(one) for one in what)
            out.append(f'<figure><img src="{name}" alt="{text}"><figcaption>{text}</figcaption></figure>')
        else:
            out.append(f"<{kind}>{html.escape(what)}</{kind}>")
    return "\n".join(out) + "\n"


def _csv(records: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    names = [name for name in METRICS if any(name in record["metrics"] for record in records)]
    writer = csv.writer(text)
    keys = ["protocol", "clip", "person", "model"]
    if any("learned_s" in record for record in records):
        keys += ["seconds", "steps", "learned_s"]  # no seconds: what was kept
    writer.writerow([*keys, *names])
    for record in records:
        writer.writerow([record.get(key) for key in keys] + [record["metrics"].get(name) for name in names])
    return text.getvalue()


def _pictures(
    run: _Evaluation, todo: Sequence[Task], records: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Draws the report's pictures; gives each one's file and what it shows."""
    titles = ["source", "target", "landmarks", *(name for name, model in run.models.items() if model is not None)]
    named = "+".join([*titles[3:], *run.lessons]) or "none"
    measured = {record["clip"] for record in records}
    shots = min(run.config.shots)
    first = {task.clip.key: task for task in todo if task.protocol == f"T = {shots}" and task.clip.key in measured}
    kept = {
        (record["clip"], record["model"]): record
        for record in records
        if record["model"] in run.lessons and "picture" in record
    }

    def learned(clip: str, model: str, number: int) -> Image:
        """A frame of a person who was learned for a clip: 0: the middle one, 1: the worst."""
        if (clip, model) not in kept:
            return np.full((_CELL_PX, _CELL_PX, 3), 24, np.uint8)
        both = video.read_image(run.out / kept[clip, model]["picture"])
        return np.asarray(np.split(both, 2, axis=1)[number], np.uint8)

    if first:
        rows = []
        for task in _spaced(list(first.values()), 6):
            cells = run.row(task, _middle(task)) + [learned(task.clip.key, model, 0) for model in run.lessons]
            rows.append((f"{task.clip.key}  {task.protocol}", cells))
        run.draw(run.out / "pictures/grid.png", _sheet([*titles, *run.lessons], rows), named)
        yield "pictures/grid.png", f"Clips evenly chosen, T = {shots}, the middle one of the hold-out frames."
    for model in run.lessons:
        mine = sorted((r for (_, m), r in kept.items() if m == model), key=lambda r: r["metrics"]["lite0_distance"])
        for kind, some in (("best", mine[:_NUM_CASES]), ("worst", mine[::-1][:_NUM_CASES])):
            rows = []
            for record in some:
                cells = run.row(first[record["clip"]], int(np.argmax(record["l1"])))
                rows.append((_case(record), [*cells, learned(record["clip"], model, 1)]))
            name = f"pictures/{kind}-{model.replace(':', '-')}.png"
            if rows:
                run.draw(run.out / name, _sheet([*titles, model], rows), named)
                yield (
                    name,
                    f"{model}: the {kind} clips by feature distance, T = {shots}; each clip's worst frame by L1.",
                )
    in_order = {task.clip.key: task for task in todo if task.protocol == FIRST}
    for model in titles[3:]:
        if model == "copy":
            continue
        mine = [r for r in records if r["protocol"] == FIRST and r["model"] == model]
        mine.sort(key=lambda record: record["metrics"]["lite0_distance"])
        for kind, some in (("best", mine[:_NUM_CASES]), ("worst", mine[::-1][:_NUM_CASES])):
            rows = []
            for record in some:
                rows.append((_case(record), run.row(in_order[record["clip"]], int(np.argmax(record["l1"])))))
            name = f"pictures/{kind}-{model}.png"
            run.draw(run.out / name, _sheet(titles, rows), named)
            yield (
                name,
                f"{model}: the {kind} clips by feature distance, first frame as photo; each clip's worst frame by L1.",
            )
    crossed = sorted(
        (r for r in records if r["protocol"] == CROSS and r["metrics"]["csim_dlib"] is not None),
        key=lambda record: record["metrics"]["csim_dlib"],
    )
    chosen = {r["picture"]: ("worst", r) for r in crossed[:_NUM_CASES]}
    chosen |= {r["picture"]: ("best", r) for r in crossed[::-1][:_NUM_CASES] if r["picture"] not in chosen}
    for picture, (kind, r) in chosen.items():
        what = f"{r['model']}, {r['person']} by {r['clip']}, CSIM {r['metrics']['csim_dlib']:.3f}"
        yield picture, f"One of the {kind} by CSIM: {what}."


def _case(record: Mapping[str, Any]) -> str:
    number = int(np.argmax(record["l1"])) + 1
    return f"{record['clip']}  frame {number}  feature distance {record['metrics']['lite0_distance']:.3f}"


def _report(
    run: _Evaluation, todo: Sequence[Task], records: Sequence[Mapping[str, Any]], results: Mapping[str, Any]
) -> None:
    pictures = list(_pictures(run, todo, records))
    blocks = list(_blocks(run, results, pictures))
    _write(run.out / "results.json", json.dumps(results, indent=2) + "\n")
    _write(run.out / "clips.csv", _csv(records))
    for protocol in results["learning"]:
        _write(run.out / _curves_name(protocol), _curves(results, protocol))
    _write(run.out / "report.md", _markdown(blocks))
    _write(run.out / "report.html", _html(blocks))
