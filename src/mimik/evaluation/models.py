"""What is measured: the warp, releases, avatars, what is learned for each clip, and the oracles at both ends.

A new kind is a class with `prepare`, and a line in MODELS_TO_MEASURE or load_model.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mimik.arrays import Array
from mimik.config import AVATAR_SUFFIX, MODEL_SUFFIX, PRESETS, ModelError
from mimik.face.landmarks import Image
from mimik.inference.avatar_file import read_avatar
from mimik.inference.runtime import Network
from mimik.inference.synthesis import BUNDLED_MODEL, GeometryPainter, PersonalizedGenerator, PicturePainter
from mimik.networks.preset_json import preset_to_json
from mimik.networks.release import read_release
from mimik.rendering.flow import Warper
from mimik.rendering.several import distances, head_shape, photo_shares, share_face
from mimik.training.fine_tuning import LearnArguments


class Person(Protocol):
    """One person, made from photos."""

    def frame(self, points: Array) -> Image:
        """The person with the landmarks points [478, 3], uint8 RGB of the photos' size."""
        ...


class Model(Protocol):
    """What is measured."""

    identity: str  # changes whenever the results may change, such as the SHA-256 of the weights
    num_bytes: int  # of its file
    num_parameters: int  # that make a frame or prepare a person

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
        return WarpedPerson(photos, points)


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
        return WarpedPerson(photos, points, generator)


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
        return WarpedPerson(photos, points, PersonalizedGenerator(self._network, self._psi))


class _Copied:
    def __init__(self, photos: Image, points: Array) -> None:
        self.photos = photos
        self._shapes = np.stack([head_shape(p) for p in points])

    def nearest(self, points: Array) -> int:
        """Which photo is nearest in pose and expression."""
        return int(distances(self._shapes, points).argmin())

    def frame(self, points: Array) -> Image:
        return self.photos[self.nearest(points)].copy()


class _Flows(threading.local):
    """Warpers and flows of the photos that were animated last; models that are measured on the same ones share them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._photos: Any = None
        self._known: dict[Any, Any] = {}

    def once(self, photos: Any, key: Any, make: Callable[[], Any]) -> Any:
        """What make gives, made once for a key while the photos stay the same."""
        if photos != self._photos:
            self._photos, self._known = photos, {}
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


FLOWS = _Flows()


class WarpedPerson(_Copied):
    """The photo nearest to a frame, warped.

    Args:
        photos, points: as Model.prepare takes them.
        generator: corrects the warp.
        is_shared: whether further photos share the face, as in an avatar that keeps them.
    """

    def __init__(
        self, photos: Image, points: Array, generator: PersonalizedGenerator | None = None, *, is_shared: bool = False
    ) -> None:
        super().__init__(photos, points)
        self._points, self._generator, self._is_shared = points, generator, is_shared
        self._size = photos.shape[2], photos.shape[1]
        self._key = points.tobytes(), self._size
        self._painters: dict[int, tuple[Warper, PicturePainter]] = {}
        self._painter(0)

    def _painter(self, number: int) -> tuple[Warper, PicturePainter]:
        if number not in self._painters:
            photo, points, generator = self.photos[number], self._points[number], self._generator
            warper = FLOWS.once(self._key, number, lambda: Warper(points, *self._size))
            painter = GeometryPainter(photo, warper) if generator is None else generator.painter(photo, points, warper)
            self._painters[number] = warper, painter
        return self._painters[number]

    def frame(self, points: Array) -> Image:
        apart = distances(self._shapes, points)
        if not self._is_shared:
            return self._warped(int(apart.argmin()), points)
        weights = photo_shares(apart)
        some = np.argsort(-weights)[: np.count_nonzero(weights)]
        return share_face([self._warped(number, points) for number in some], weights[some], points)

    def _warped(self, number: int, points: Array) -> Image:
        warper, painter = self._painter(number)
        flow = FLOWS.once(self._key, (number, points.tobytes()), lambda: warper.flow(points))
        return painter.paint(flow, points)


TRUTH = "truth"  # the real frames themselves, through the same measuring: has to be perfect
MODELS_TO_MEASURE: dict[str, Callable[[], Model]] = {"copy": Copy, "geometry": Geometry}
LESSONS = ("learn", "scratch")  # before a colon and a model: fine-tuned for each clip; its networks from random weights


def is_lesson(name: str) -> bool:
    """Whether --models names something that is learned anew for each clip."""
    return name.partition(":")[0] in LESSONS and ":" in name


def label_of(model: str) -> str:
    """How tables and files name what --models names: a file without its folders."""
    if is_lesson(model):
        kind, _, rest = model.partition(":")
        return f"{kind}:{label_of(rest)}"
    return Path(model).name if model.lower().endswith((MODEL_SUFFIX, AVATAR_SUFFIX)) else model


def load_model(name: str) -> Model | None:
    """What --models names, but for lessons; None for the truth. Raises ModelError if there is no such model."""
    if name == TRUTH:
        return None
    if name.lower().endswith(AVATAR_SUFFIX):
        return Known(Path(name))
    if name == "texture" or name.lower().endswith(MODEL_SUFFIX):
        return Trained(_release(name, name))
    if name not in MODELS_TO_MEASURE:
        there = ", ".join([*MODELS_TO_MEASURE, "texture", TRUTH])
        raise ModelError(
            f"--models {name}: no such model; there are {there}, {MODEL_SUFFIX} and {AVATAR_SUFFIX} files, and learn: "
            f"or scratch: before texture or a {MODEL_SUFFIX} file."
        )
    return MODELS_TO_MEASURE[name]()


def _release(model: str, name: str) -> Path:
    """The file of a release, or the bundled one for "texture"; name: what --models has."""
    if model != "texture":
        return Path(model)
    if not BUNDLED_MODEL.exists():
        raise ModelError(
            f"--models {name}: no model comes with this installation; give a {MODEL_SUFFIX} file that `mimik train` "
            "wrote."
        )
    return BUNDLED_MODEL


@dataclass(frozen=True)
class Lesson:
    """What is learned anew for each clip, from its photos."""

    arguments: LearnArguments  # as `mimik learn` would have them
    identity: str  # changes with the weights or networks that it starts from


def load_lesson(name: str, *, device: str, seed: int) -> Lesson:
    """What --models names with learn: or scratch:. Raises ModelError if there is no such model."""
    kind, _, model = name.partition(":")
    scratch = kind == "scratch"
    if model.lower().endswith(MODEL_SUFFIX) or (model == "texture" and not scratch):
        path = _release(model, name)
        read_release(path)
        arguments = LearnArguments(model=path, from_scratch=scratch, device=device, seed=seed)
        return Lesson(arguments, f"{kind} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    if scratch and model in PRESETS:
        arguments = LearnArguments(preset=model, from_scratch=True, device=device, seed=seed)
        return Lesson(arguments, f"{kind} {preset_to_json(PRESETS[model])}")
    there = f"a {MODEL_SUFFIX} file that `mimik train` wrote"
    there += f", or a preset: {', '.join(PRESETS)}" if scratch else ", or texture"
    raise ModelError(f"--models {name}: no such model; after {kind}: give {there}.")
