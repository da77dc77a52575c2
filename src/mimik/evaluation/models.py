"""Models of the evaluation: the warp, releases, avatars, fine-tuning per clip, and oracles at both ends.

To add a kind, write a class with `prepare`, and name it in _WITHOUT_NETWORK and settings.WITHOUT_NETWORK, or in
load_model and settings.check_model_name.
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
from mimik.evaluation.settings import TRUTH, check_model_name
from mimik.face.landmarks import Image
from mimik.inference.avatar_file import read_avatar
from mimik.inference.runtime import Network
from mimik.inference.synthesis import BUNDLED_MODEL, PersonalizedGenerator, PicturePainter, painter_of
from mimik.networks.preset_json import preset_to_json
from mimik.networks.release import read_release
from mimik.rendering.flow import Warper
from mimik.rendering.scene.background import Scene, decompose_photo
from mimik.rendering.several import distances, head_shape, photo_shares, share_face
from mimik.training.fine_tuning import LearnArguments


class Person(Protocol):
    """One person, prepared from photos."""

    def frame(self, points: Array) -> Image:
        """The person with the landmarks points [478, 3], uint8 RGB of the photos' size."""
        ...


class Model(Protocol):
    """A model of the evaluation."""

    identity: str  # changes whenever the results may change, such as the SHA-256 of the weights
    num_bytes: int  # of its file
    num_parameters: int  # used for rendering frames and preparing a person

    def prepare(self, photos: Image, points: Array) -> Person:
        """Called from several threads. Args: photos: uint8 RGB [T, H, W, 3]; points: [T, 478, 3]."""
        ...


class Copy:
    """Lower baseline: the unchanged photo."""

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
        self._lock = threading.Lock()  # the embedder is not thread-safe

    def prepare(self, photos: Image, points: Array) -> Person:
        with self._lock:
            generator = PersonalizedGenerator.of_photos(self._network, list(photos), list(points))
        return WarpedPerson(photos, points, generator)


class Known:
    """An avatar of `mimik learn`, independent of the photos: meaningful only on clips of its person."""

    def __init__(self, path: Path) -> None:
        person = read_avatar(path)
        assert person.generator is not None  # guaranteed, or loading raises ModelError
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
        """Index of the photo nearest in pose and expression."""
        return int(distances(self._shapes, points).argmin())

    def frame(self, points: Array) -> Image:
        return self.photos[self.nearest(points)].copy()


class _Flows(threading.local):
    """Cache of warpers and flows of the newest photos, shared by models measured on the same photos."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._photos: Any = None
        self._known: dict[Any, Any] = {}

    def once(self, photos: Any, key: Any, make: Callable[[], Any]) -> Any:
        """Result of make, cached by key while the photos are the same."""
        if photos != self._photos:
            self._photos, self._known = photos, {}
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


FLOWS = _Flows()


class WarpedPerson(_Copied):
    """The photo nearest to a frame, warped in front of its still background, as `mimik animate` shows it.

    Args:
        photos, points: as for Model.prepare.
        generator: corrects the warp.
        is_shared: whether further photos are blended, as in an avatar with several faces.
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
            scene = FLOWS.once(self._key, ("scene", number), lambda: self._scene(number))
            warper = FLOWS.once(self._key, number, lambda: self._warper(number, scene))
            self._painters[number] = warper, self._painter_of(number, scene, warper)
        return self._painters[number]

    def _scene(self, number: int) -> Scene | str:
        return decompose_photo(self.photos[number], self._points[number])

    def _warper(self, number: int, scene: Scene | str) -> Warper:
        points = self._points[number]
        return Warper(points, *self._size) if isinstance(scene, str) else scene.warper(points)

    def _painter_of(self, number: int, scene: Scene | str, warper: Warper) -> PicturePainter:
        photo, points, generator = self.photos[number], self._points[number], self._generator
        if isinstance(scene, str) or (generator is not None and generator.config.form == "paper"):
            return painter_of(generator, photo, points, warper)
        return scene.over_plate(painter_of(generator, scene.front, points, warper, matte=scene.matte), photo, points)

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


_WITHOUT_NETWORK: dict[str, Callable[[], Model]] = {"copy": Copy, "geometry": Geometry}  # settings.WITHOUT_NETWORK


def load_model(name: str) -> Model | None:
    """The model of a name of --models, except lessons; None for the truth. Raises ModelError if it does not exist."""
    check_model_name(name)
    if name == TRUTH:
        return None
    if name.lower().endswith(AVATAR_SUFFIX):
        return Known(Path(name))
    if name == "texture" or name.lower().endswith(MODEL_SUFFIX):
        return Trained(_release(name, name))
    return _WITHOUT_NETWORK[name]()


def _release(model: str, name: str) -> Path:
    """The file of a release, or the bundled one for "texture"; name: as given in --models."""
    if model != "texture":
        return Path(model)
    if not BUNDLED_MODEL.exists():
        raise ModelError(
            f"--models {name}: this installation contains no model; use a {MODEL_SUFFIX} file that `mimik train` wrote."
        )
    return BUNDLED_MODEL


@dataclass(frozen=True)
class Learning:
    """Fine-tuning on the photos of each clip."""

    arguments: LearnArguments  # as for `mimik learn`
    identity: str  # changes with the initial weights or networks


def load_learning(name: str, *, device: str, seed: int) -> Learning:
    """The lesson of a name learn:MODEL or scratch:MODEL. Raises ModelError if the model does not exist."""
    check_model_name(name)
    kind, _, model = name.partition(":")
    scratch = kind == "scratch"
    if model.lower().endswith(MODEL_SUFFIX) or (model == "texture" and not scratch):
        path = _release(model, name)
        read_release(path)
        arguments = LearnArguments(model=path, from_scratch=scratch, device=device, seed=seed)
        return Learning(arguments, f"{kind} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    arguments = LearnArguments(preset=model, from_scratch=True, device=device, seed=seed)
    return Learning(arguments, f"{kind} {preset_to_json(PRESETS[model])}")
