"""Fine-tuning, stage 2 of the method: G and D learn one person from a few photos, and stop by themselves.

e_hat is the mean of the photos' embeddings; E is no longer needed. psi' = P e_hat becomes a parameter and is trained
with G's own weights, against D with w' = w0 + e_hat in place of W_i. docs/fine-tuning.md has the recipe's measurements.

Too few steps leave an identity gap, too many let expressions die. Every few steps the person makes the faces of some
bundled motions, and two things are measured on the results: is it the person of the photos, and does the face do what
it was told. The best state is kept.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from mimik.config import PRESETS, VERSION, InputError, ModelError, NetworkConfig, NoFaceError, Preset, check_number
from mimik.data.episodes import to_model_range, view_of
from mimik.face.interior import mouth_interior
from mimik.face.landmarks import (
    BROWS,
    EYES,
    IRISES,
    LIPS,
    OVAL,
    POINTS_68,
    Array,
    Face,
    Image,
    Landmarker,
    choose_face,
    head_pose,
)
from mimik.inference.person import Person, Source, calmest
from mimik.inference.synthesis import BUNDLED_MODEL, as_read, photo_windows, reduced, seen_window, window_around
from mimik.media import video
from mimik.motion.draw import feature_mask, landmark_image
from mimik.motion.gestures import Gesture, Motion, Reference, Retarget, bundled_motions
from mimik.networks import losses
from mimik.networks.checkpoint import load_release, write_whole
from mimik.networks.features import FaceNet, content_network
from mimik.networks.generators import Discriminator, Generator, Networks, Synthesis, build
from mimik.rendering.crop import Crop
from mimik.rendering.flow import Warper
from mimik.rendering.painter import Painter
from mimik.training.arguments import DEVICES
from mimik.training.step import Judge, Opinion, Seen, generator_terms

log = logging.getLogger(__name__)

Batch = dict[str, Tensor]
Progress = Callable[["Point | None", int, int], None]  # newest point of the curve, steps done, steps at most

_FRAMES_PX = 1280  # longer side at most of a video's frames
_FRAMES_PER_S = 5.0  # of a video whose length is not known
_MAX_FRAMES = 300

# The probes: the peak of what a bundled motion does, by expression or by the head's turn.
_PROBES = (
    ("laugh", "offset"),
    ("smile", "offset"),
    ("surprise", "offset"),
    ("talk", "offset"),
    ("look-around", "turn"),
    ("nod", "turn"),
)
_EXPRESSION = sorted({*LIPS, *EYES, *BROWS, *IRISES})
_ONE_PERSON = 0.6  # dlib: two pictures of one person are usually nearer


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one person is learned; docs/fine-tuning.md has the trials."""

    lr_generator: float  # of G and psi'
    lr_discriminator: float  # of D and w'
    batch_size: int = 8  # at most; authors' code
    ema: float = 0.972  # of G and psi'; authors' code
    num_steps: int = 400  # at most
    probe_every: int = 10  # steps from one probe to the next
    patience: int = 3  # probes without a better one, then it ends ..
    min_gain: float = 0.004  # in score: less than this is no better one
    min_steps: int = 60  # .. but not before: of the paper's form, identity falls at first (docs/fine-tuning.md)

    @classmethod
    def of(cls, preset: Preset, *, from_scratch: bool = False) -> Recipe:
        """For networks of a preset."""
        rates = preset.train.lr_generator, preset.train.lr_discriminator  # paper: the same as in training
        if from_scratch:
            return cls(lr_generator=rates[0], lr_discriminator=rates[1], num_steps=4000, probe_every=100)
        if preset.networks.form == "texture":
            low, high = (_TEXTURE_RATE * rate for rate in rates)
            return cls(lr_generator=low, lr_discriminator=high, batch_size=_TEXTURE_BATCH, min_steps=0)
        return cls(lr_generator=rates[0], lr_discriminator=rates[1])


_TEXTURE_RATE = 0.4  # of training's: with all of it the held-out loss rose sooner (trial)
_TEXTURE_BATCH = 4  # half a second a step on two cores


@dataclass(frozen=True, kw_only=True)
class LearnArguments:
    """What one run is asked for."""

    model: Path | None = None  # a release; None: the bundled one
    from_scratch: bool = False
    preset: str | None = None  # of from_scratch; None: the model's
    steps: int | None = None  # at most
    max_seconds: float | None = None
    face: int | None = None  # 1 is the widest
    shots: int = 8  # frames that are taken of a video
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise InputError(f"--device {self.device}: give one of {', '.join(DEVICES)}.")
        if self.preset is not None and not self.from_scratch:
            raise InputError("--preset goes with --from-scratch; a model brings its own.")
        if self.preset is not None and self.preset not in PRESETS:
            raise InputError(f"--preset {self.preset}: give one of {', '.join(PRESETS)}.")
        if self.preset is not None and self.model is not None:
            raise InputError("--preset and --model exclude each other: a model brings its own preset.")
        check_number("--shots", self.shots, 1, _MAX_FRAMES, "frames of a video")
        check_number("--seed", self.seed, 0, 2**31, "a whole number")
        for option, value, high in (("--steps", self.steps, 1e6), ("--max-seconds", self.max_seconds, 1e6)):
            if value is not None:
                check_number(option, value, 1, high, "at most so many")
        if self.face is not None:
            check_number("--face", self.face, 1, 99, "1 is the largest face; `mimik faces PHOTO` shows the numbers")


# The photos.


@dataclass(frozen=True)
class Photo:
    """One picture of the person.

    Attributes:
        picture: uint8 RGB [H, W, 3].
        face: in it.
        source: number of the file that it comes from.
    """

    picture: Image
    face: Face
    source: int


def read_photos(
    paths: Sequence[Path], landmarker: Landmarker, *, face: int | None = None, shots: int = 8
) -> tuple[list[Photo], list[Source], list[str]]:
    """Photos of a person, with their faces.

    Args:
        paths: pictures, folders of pictures, and videos.
        landmarker: finds the faces.
        face: which face, 1 is the widest; None is the widest.
        shots: frames that are taken of each video, spread over it.

    Returns:
        The photos, the files, and notes for the user.

    Raises:
        InputError: if a file cannot be read, or shows no face; in a folder it is left out, with a note.
    """
    photos: list[Photo] = []
    sources: list[Source] = []
    notes: list[str] = []
    for path in paths:
        files = sorted(f for f in path.iterdir() if f.is_file() and f.name[0] != ".") if path.is_dir() else [path]
        for file in files:
            try:
                found = _faces_in(file, landmarker, face, shots, notes)
            except InputError as error:
                if not path.is_dir():
                    raise
                notes.append(f"left out: {error}")
                continue
            photos += [Photo(picture, one, len(sources)) for picture, one in found]
            sources.append(Source.of(file))
        if path.is_dir() and not photos:
            raise InputError(f"{path}: no picture in it shows a face; give photos of one person.")
    if not photos:
        raise InputError("no photo was given; give at least one picture of the person.")
    return photos, sources, notes


def _faces_in(
    path: Path, landmarker: Landmarker, number: int | None, shots: int, notes: list[str]
) -> list[tuple[Image, Face]]:
    if video.kind(path) == "video":
        return _shots_of_video(path, landmarker, number, shots)
    picture = video.read_image(path)
    found = landmarker.detect(picture, thorough=(number or 1) > 1)
    chosen = choose_face(found, number, path.name, picture.shape[1::-1])
    if len(found) > 1 and number is None:
        notes.append(f"{path.name} shows {len(found)} faces; the widest is learned, --face N takes another")
    return [(picture, chosen)]


def _shots_of_video(path: Path, landmarker: Landmarker, number: int | None, shots: int) -> list[tuple[Image, Face]]:
    """Frames of a video that show the face, evenly spaced."""
    info = video.probe(path)
    rate = 2 * shots / info.duration_s if info.duration_s else _FRAMES_PER_S
    found: list[tuple[Image, Face]] = []
    with closing(video.read_frames(path, fps=min(rate, info.fps), max_side=_FRAMES_PX)) as frames:
        for frame in itertools.islice(frames, _MAX_FRAMES):
            faces = landmarker.detect(frame, thorough=(number or 1) > 1)
            if len(faces) >= (number or 1):
                found.append((frame, faces[(number or 1) - 1]))
    if not found:
        raise NoFaceError(f"no face found in {path.name}; use a video in which one face is seen from the front.")
    return [found[i] for i in np.linspace(0, len(found) - 1, min(shots, len(found))).round().astype(int)]


# What a step sees.


@dataclass(frozen=True)
class _Shot:
    """A photo as the model sees it.

    Attributes:
        picture: reduced so that it has hardly more detail than the window.
        face: in it.
        window: what the model sees of it.
        source: number of the file that it comes from.
    """

    picture: Image
    face: Face
    window: Crop
    source: int

    @classmethod
    def of(cls, photo: Photo, preset: Preset) -> _Shot:
        points = photo.face.points
        whole, scale = seen_window(points, preset.networks)
        face = dataclasses.replace(photo.face, points=points * np.float32(scale))
        return cls(reduced(photo.picture, scale), face, whole.scaled(scale), photo.source)

    def warper(self) -> Warper:
        return Warper(self.face.points, self.picture.shape[1], self.picture.shape[0])


def _planes(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] each -> [N, 3, H, W] in [-1, 1]."""
    return to_model_range(torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2).contiguous())


def _interior(unit: NDArray[Any], px: int) -> Tensor:
    """[1, px, px] 0..1, the inside of a mouth whose face has its points [478, 3] there, in sides of the frame."""
    return torch.from_numpy(mouth_interior(unit * px, px, px))[None].float() / 255


def _seen(shot: _Shot, goals: Sequence[NDArray[Any]], config: NetworkConfig) -> tuple[Batch, Array]:
    """What G is given when the person of a photo is animated.

    Args:
        shot: the photo.
        goals: [478, 3] where the face's points go, in pixels of the photo, each.
        config: of the model.

    Returns:
        y and, for the texture form, warped, geometry and interior; the goals in pixels of the frame, [N, 478, 3].
    """
    px = config.image_px
    warper = shot.warper()
    painter = Painter(shot.picture, warper)
    placed, y, warped, geometry, interior = [], [], [], [], []
    for goal in goals:
        window = shot.window
        if config.form == "texture":
            window = window_around(goal, shot.window.side)
            flow = warper.flow(goal)
            warped.append(window.cut(painter.paint(flow), config.frame_px))
            geometry.append(torch.from_numpy(flow.maps(warper.crop, window, px // 2)))
            interior.append(_interior(window.to_unit(goal), config.frame_px))
        placed.append((window.to_unit(goal) * px).astype(np.float32))
        y.append(landmark_image(placed[-1], px, px, style=config.landmarks))
    more = {}
    if warped:
        more = {"warped": _planes(warped), "geometry": torch.stack(geometry), "interior": torch.stack(interior)}
    return {"y": _planes(y), **more}, np.stack(placed) * np.float32(config.frame_px / px)


class Pairs:
    """What G is given, and what it is to make of it: batches without end.

    The paper's form has a pair for each photo: its landmark image, and itself. The texture form also sees a photo
    warped to the landmarks, which has to be another one than the target, or there would be nothing to learn. With one
    photo that other one is made: the photo is warped to a face of the bundled motions. Warped back, it lacks what the
    way there lost of eyes and mouth.

    Not all of a target can be known from what is given. A photo from another file has another background, so the face
    alone counts. Of a photo that went there and back only eyes and mouth count: the rest is in its place as it never is
    after a single warp, and G would learn to leave it as it is. On gestures without a photo G is held to what it drew
    before (docs/fine-tuning.md has the trials).
    """

    def __init__(self, shots: Sequence[_Shot], windows: tuple[Image, Image, Array], preset: Preset, seed: int) -> None:
        """Args: shots: T photos; windows: the same as synthesis.photo_windows gives them."""
        self._shots, self._config = shots, preset.networks
        self._rng = np.random.default_rng(seed)
        frame_px = self._config.frame_px
        x, y, points = windows
        self._x, self._y, self._unit = _planes(x), _planes(y), points / self._config.image_px
        placed = self._unit * np.float32(frame_px)
        regions = np.stack([feature_mask(p, frame_px, frame_px) for p in placed])
        self._regions = torch.from_numpy(regions)[:, None].float() / 255
        self._faces = torch.from_numpy(np.stack([_face_mask(p, frame_px) for p in placed]))[:, None]
        self._warped: list[_Warped] = []
        if self._config.form == "texture":
            with threadpool_limits(limits=1, user_api="blas"):  # threads of the small solver wait for each other
                self._warped = self._pool()

    def _pool(self) -> list[_Warped]:
        count, px = len(self._shots), self._config.image_px
        both = [(a, b) for a in range(count) for b in range(count) if a != b] or [(0, 0)] * _POOL
        pool = []
        for number in self._rng.permutation(len(both))[:_POOL]:
            given, target = both[number]
            shot = self._shots[given]
            picture, warper, window = shot.picture, shot.warper(), shot.window
            if given == target:
                picture, warper = self._there(shot)
                where = self._regions[target]
            elif shot.source == self._shots[target].source:
                where = torch.ones_like(self._regions[target])
            else:
                where = self._faces[target]
            goal = self._unit[target] * window.side + [window.left, window.top, 0]
            flow = warper.flow(goal)
            warped = window.cut(Painter(picture, warper).paint(flow), self._config.frame_px)
            geometry = flow.maps(warper.crop, window, px // 2)
            interior = _interior(self._unit[target], self._config.frame_px)
            pool.append(_Warped(target, _planes([warped])[0], torch.from_numpy(geometry), interior, where))
        return pool

    def _gone(self, shot: _Shot) -> NDArray[Any]:
        """Where a random gesture moves the face: of some gestures the most expressive one, or the most turned."""
        part = _PARTS[int(self._rng.integers(len(_PARTS)))]
        gestures = _every_gesture()
        some = [gestures[int(i)] for i in self._rng.integers(len(gestures), size=_GESTURES_TO_CHOOSE_FROM)]
        reference, gesture = max(some, key=lambda one: float(np.abs(getattr(one[1], part)).sum()))
        return Retarget(shot.face, reference)(gesture)

    def _there(self, shot: _Shot) -> tuple[Image, Warper]:
        """The photo, warped to a random gesture."""
        away = self._gone(shot)
        warper = shot.warper()
        picture = Painter(shot.picture, warper).paint(warper.flow(away))
        return picture, Warper(away.astype(np.float32), *picture.shape[1::-1])

    def elsewhere(self, count: int) -> Batch:
        """y, warped and geometry of random gestures, of which there is no photo."""
        shot = self._shots[0]
        with threadpool_limits(limits=1, user_api="blas"):
            return _seen(shot, [self._gone(shot) for _ in range(count)], self._config)[0]

    def faces(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """At most so many photos, their landmark images, and [T, 1, H, W] 1 in the face, softly 0 outside."""
        return self._x[:count], self._y[:count], self._faces[:count]

    def batches(self, size: int) -> Iterator[Batch]:
        """Every pair once in random order, and so on."""
        count = len(self._warped) or len(self._x)
        while True:
            order = self._rng.permutation(count)
            for part in np.array_split(order, -(-count // size)):
                yield self.batch(part)

    def batch(self, numbers: NDArray[Any]) -> Batch:
        """x, y, regions; of the texture form warped, geometry, interior, view, and where [B, 1, 2 H, 2 W] x counts."""
        some = [self._warped[i] for i in numbers] if self._warped else []
        at = torch.tensor([one.target for one in some]) if some else torch.from_numpy(numbers)
        batch = {"x": self._x[at], "y": self._y[at], "regions": self._regions[at], "clip": torch.zeros_like(at)}
        for name in ("warped", "geometry", "interior", "where") if some else ():
            batch[name] = torch.stack([getattr(one, name) for one in some])
        if some:
            views = [view_of(self._unit[one.target], self._config.image_px, self._rng) for one in some]
            batch["view"] = torch.from_numpy(np.stack(views))
        return batch


class _Warped(NamedTuple):
    """A photo, warped to another's landmarks; see Pairs.batch."""

    target: int
    warped: Tensor
    geometry: Tensor
    interior: Tensor
    where: Tensor


_POOL = 32  # warped photos that are made at most
_GESTURES_TO_CHOOSE_FROM = 4  # most moments of a motion hardly move the face
_PARTS = ("offset", "turn")  # of a gesture


def _face_mask(points: Array, px: int) -> Array:
    """[px, px] 1 in the face of points [478, 3], softly 0 outside."""
    mask = np.zeros((px, px), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(points[OVAL, :2] - 0.5).astype(np.int32)), 1.0)
    return cv2.GaussianBlur(mask, (0, 0), px / 40)


@functools.cache
def _every_gesture() -> list[tuple[Reference, Gesture]]:
    """Of all bundled motions."""
    return [
        (motion.reference, gesture)
        for motion in map(Motion.load, bundled_motions().values())
        for gesture in motion.gestures()
    ]


# What stops it.


class Point(NamedTuple):
    """A point of the curve.

    Attributes:
        step: updates of G.
        seconds: since the first.
        identity: 1 - d / 1.2, 0 at least; d: mean distance of dlib's embeddings of the probes from the nearest photo's.
            Of the paper's form, the mean of this and of the looks (Learner.looks).
        following: share of the intended movement that the landmarks show; mean over probes, 0 at least.
        score: mean of the two.
    """

    step: int
    seconds: float
    identity: float
    following: float
    score: float


class Probes:
    """Faces of the bundled motions, made by one person and looked at."""

    def __init__(self, shot: _Shot, photos: Image, points: Array, preset: Preset) -> None:
        """Args: shot: what is animated; photos, points: [T, ..] as synthesis.photo_windows gives them."""
        self._landmarker = Landmarker()
        self._face_net = FaceNet().eval()
        config = preset.networks
        scale = np.float32(config.frame_px / config.image_px)
        self._known = self._face_net.embed_faces(list(photos), list(points * scale))
        self._rest = (shot.window.to_unit(shot.face.points) * config.frame_px).astype(np.float32)
        goals = []
        for name, part in _PROBES:
            motion = Motion.load(bundled_motions()[name])
            size = np.abs(getattr(motion, part)).reshape(len(motion), -1).sum(1)
            gesture = next(itertools.islice(motion.gestures(), int(size.argmax()), None))
            goals.append(Retarget(shot.face, motion.reference)(gesture))
        self.batch, self._goals = _seen(shot, goals, preset.networks)

    def look(self, x_hat: Tensor) -> tuple[float, float]:
        """Identity and following of what G made of the batch, [N, 3, H, W]; see Point."""
        images = ((x_hat.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        following, seen = [], []
        for image, goal, (_, part) in zip(images, self._goals, _PROBES, strict=True):
            face = self._landmarker.follow(image, Face(goal, np.zeros(0, np.float32), 1.0))
            following.append(0.0 if face is None else max(0.0, _following(part, goal, self._rest, face.points)))
            if face is not None:
                seen.append((image, face.points))
        found = self._face_net.embed_faces([image for image, _ in seen], [points for _, points in seen])
        near = np.linalg.norm(found[:, None] - self._known, axis=-1).min(1)
        identity = (1 - near / (2 * _ONE_PERSON)).clip(0, 1).sum() / len(images)
        return float(identity), float(np.mean(following))


def _following(part: str, goal: Array, rest: Array, found: Array) -> float:
    """1: the landmarks are where they should be; 0: as far from there as those of a face that did not move.

    The turn is looked at in the picture; expression without the head's pose, or a smile would count less than a nod.
    """
    if part == "turn":
        places = [p[POINTS_68, :2] - p[POINTS_68, :2].mean(0) for p in (goal, rest, found)]
    else:
        places = [head_pose(p).invert(p)[_EXPRESSION, :2] for p in (goal, rest, found)]
    goal, rest, found = places
    return float(1 - np.linalg.norm(found - goal) / np.linalg.norm(rest - goal))


# Networks of one person.

_KEPT = 16  # gestures on which G stays as it was, where there is one photo to learn from


class Sitter(nn.Module):
    """G and psi': all that draws the person."""

    def __init__(self, generator: Generator, psi: Tensor) -> None:
        """Args: psi: [1, 2 * features of all AdaIN layers], where psi' starts."""
        super().__init__()
        self.G, self.psi = generator, nn.Parameter(psi.detach().clone())

    def forward(self, batch: Mapping[str, Tensor]) -> Synthesis:
        return self.G(batch["y"], self.psi, batch.get("warped"), batch.get("geometry"), batch.get("interior"))


class PersonalJudge(Judge):
    """D', which knows one person: w' in place of w0 + W_i."""

    def __init__(self, discriminator: Discriminator, w: Tensor) -> None:
        """Args: w: [N], where w' starts."""
        super().__init__(discriminator)
        self.w = nn.Parameter(w.detach().clone())

    def forward(self, x: Tensor, x_hat: Tensor, y: Tensor, video: Tensor) -> Tensor:
        score, _ = self.D(torch.cat([x, x_hat]), torch.cat([y, y]), w=self.w)
        return score.float()

    def opinion(self, x: Tensor, x_hat: Tensor, y: Tensor, video: Tensor) -> Opinion:
        score, fake_acts = self.D(x_hat, y, w=self.w)
        with torch.no_grad():
            _, real_acts = self.D(x, y, w=self.w)
        return Opinion(score.float(), fake_acts, real_acts, self.w.detach()[None])


class Learner:
    """One person's networks, their optimisers, and the step that moves them."""

    def __init__(
        self, preset: Preset, networks: Networks, photos: Sequence[Photo], recipe: Recipe, device: str, seed: int
    ) -> None:
        """Takes the networks over.

        Args:
            preset: of the networks.
            networks: of a release, or fresh ones.
            photos: of the person; the calmest is animated.
            recipe: how.
            device: "cpu" or "cuda".
            seed: of what is warped.

        Raises:
            InputError: if the weights of a content network are missing.
        """
        # E is gone, so there is no L_MCH. Pairs are nearer to their targets than in training: the terms that draw the
        # texture form towards the warped photo as it is would make it forget what it corrects.
        weights = dataclasses.replace(preset.losses, drawn=0.0, correction=0.0)
        train = dataclasses.replace(preset.train, variant="ff")
        self.preset = dataclasses.replace(preset, losses=weights, train=train)
        self.recipe, self.photos, self.device = recipe, photos, torch.device(device)
        self.chosen = calmest([photo.face for photo in photos])
        self._shots = [_Shot.of(photo, preset) for photo in photos]
        self._windows = x, y, _ = photo_windows(
            preset.networks, [photo.picture for photo in photos], [photo.face.points for photo in photos]
        )
        self.pairs = Pairs(self._shots, self._windows, preset, seed)
        for _, net in networks:
            net.to(self.device)
        with torch.no_grad():
            networks.E.eval(), networks.P.eval()
            read = _planes(as_read(x, preset.networks))
            e_hat = networks.E(read[None].to(self.device), _planes(y)[None].to(self.device)).mean(1)  # [1, N]
            psi, w = networks.P(e_hat), networks.D.personal_weight(e_hat[0])
        self.sitter = Sitter(networks.G, psi).train()
        self.judge = PersonalJudge(networks.D, w).train()
        self.average = copy.deepcopy(self.sitter).eval().requires_grad_(False)
        self.content = {
            name: content_network(name).to(self.device) for name, weight in preset.losses.content.items() if weight
        }
        # Not RAdam, as in the authors' code: its warm-up lasts as long as the whole run, see docs/fine-tuning.md.
        adam: dict[str, Any] = {"betas": preset.train.betas, "eps": preset.train.eps}
        self._generator_adam = torch.optim.Adam(self.sitter.parameters(), recipe.lr_generator, **adam)
        self._discriminator_adam = torch.optim.Adam(self.judge.parameters(), recipe.lr_discriminator, **adam)
        self._batches = self.pairs.batches(recipe.batch_size)
        self._kept: tuple[Batch, Synthesis] | None = None
        if preset.networks.form == "texture" and len(photos) == 1:
            with torch.no_grad():
                batch = self._moved(self.pairs.elsewhere(_KEPT))
                self._kept = batch, self.average(batch)
        self._rng = np.random.default_rng(seed)
        self.step = 0

    def _moved(self, batch: Batch) -> Batch:
        return {name: value.to(self.device) for name, value in batch.items()}

    @functools.cached_property
    def probes(self) -> Probes:
        x, _, points = self._windows
        return Probes(self._shots[self.chosen], x, points, self.preset)

    def train_step(self) -> dict[str, Tensor]:
        """One update of G and psi', and one of D and w'; the terms that were minimised."""
        batch = self._moved(next(self._batches))
        self.judge.requires_grad_(False)
        out = self.sitter(batch)
        if "where" in batch:
            batch["x"] = batch["where"] * batch["x"] + (1 - batch["where"]) * out.image.detach()
        terms = generator_terms(
            self.judge, self.content, self.preset, batch, out.image.new_zeros(0), out, adversarial=True
        )
        if self._kept is not None:
            terms["kept"] = self._forgotten(*self._kept)
        self._update(torch.stack(list(terms.values())).sum(), self._generator_adam, self.sitter)
        self.judge.requires_grad_(True)
        real, fake = self.judge(*Seen.of(batch, out.image.detach()), batch["clip"]).chunk(2)
        d_loss = losses.discriminator_loss(real, fake)
        self._update(d_loss, self._discriminator_adam, self.judge)
        self.step += 1
        self._follow()
        return {name: value.detach() for name, value in {**terms, "d_loss": d_loss}.items()}

    def _forgotten(self, batch: Batch, before: Synthesis) -> Tensor:
        """How far G is from what it was, on some gestures of which there is no photo: L1, weighted as to a photo."""
        at = torch.from_numpy(self._rng.choice(_KEPT, min(self.recipe.batch_size, _KEPT), replace=False))
        now, weights = self.sitter({name: value[at] for name, value in batch.items()}), self.preset.losses
        drawn = weights.synthesised * (now.synthesised - before.synthesised[at]).abs().mean()  # type: ignore[index]
        return weights.pixel * (now.image - before.image[at]).abs().mean() + drawn

    def _update(self, loss: Tensor, optimiser: torch.optim.Optimizer, module: nn.Module) -> None:
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), self.preset.train.clip_norm)
        optimiser.step()

    @torch.no_grad()
    def _follow(self) -> None:
        """The moving average; see meta_learning.Ema."""
        decay = min(self.recipe.ema, self.step / (9 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.sitter.parameters()), 1 - decay)
        for kept, fresh in zip(self.average.buffers(), self.sitter.buffers(), strict=True):
            kept.copy_(fresh)

    @torch.no_grad()
    def probe(self) -> tuple[float, float]:
        """Identity and following of the average; see Point."""
        identity, following = self.probes.look(self.average(self._moved(self.probes.batch)).image)
        if self.preset.networks.form == "paper":
            identity = (identity + self.looks()) / 2
        return identity, following

    @torch.no_grad()
    def looks(self) -> float:
        """How much of the photos' faces the average draws from their landmarks, of the paper's form.

        1 - |x_hat - x| / |x - mean colour| over the faces of at most 8 photos; 0 at least. dlib says nothing
        of hair, skin and light, and of a face that is still blurred it says no more than that it is one.
        """
        x, y, where = (value.to(self.device) for value in self.pairs.faces(8))
        x_hat = self.average({"y": y}).image
        mean = (x * where).sum((2, 3), keepdim=True) / where.sum((2, 3), keepdim=True)
        missed, there = (((x - other).abs() * where).sum() for other in (x_hat, mean))
        return float((1 - missed / there).clamp(min=0))

    def state(self) -> dict[str, NDArray[Any]]:
        """The average by names as a person's file has them."""
        return {name: value.cpu().numpy().copy() for name, value in self.average.state_dict().items()}


# A run.


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes:
        person: the best state, which was written.
        curve: every probe; the first is of the model as it was.
        best: the point that was kept.
        ended: why it ended.
        notes: for the user.
    """

    person: Person
    curve: list[Point]
    best: Point
    ended: str
    notes: list[str]


def learn(
    paths: Sequence[Path],
    out: Path,
    arguments: LearnArguments,
    *,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Learns the person in some photos and writes the avatar.

    Args:
        paths: photos, folders of them, and videos.
        out: the .avatar file; an older one is replaced.
        arguments: what is asked for.
        recipe: rates and limits; None: those of docs/fine-tuning.md.
        progress: is called after every step with the newest point, the steps done and the steps at most.

    Raises:
        InputError: if something given cannot be used, or the file cannot be written; nothing is written then.
    """
    preset, networks, origin = _start(arguments)
    recipe, device = _how(arguments, preset, recipe)
    photos, sources, notes = read_photos(paths, Landmarker(), face=arguments.face, shots=arguments.shots)
    learner = Learner(preset, networks, photos, recipe, device, arguments.seed)
    curve, best, ended = _run(learner, arguments.max_seconds, progress or _silent)
    record = {
        "version": VERSION,
        "model": origin,
        "from_scratch": arguments.from_scratch,
        "photos": len(photos),
        "seed": arguments.seed,
        "device": device,
        "torch": torch.__version__,
        "recipe": dataclasses.asdict(recipe),
        "steps": best.point.step,
        "seconds": curve[-1].seconds,
        "ended": ended,
        "curve": [point._asdict() for point in curve],
    }
    photo = photos[learner.chosen]
    psi = best.state.pop("psi")[0]
    tensors = {name: value.astype(np.float16) for name, value in best.state.items()}
    if not all(np.isfinite(value).all() for value in tensors.values()):
        raise InputError("the weights grew beyond float16, so nothing is written; give other photos, or fewer --steps.")
    person = Person(preset, record, tensors, psi, photo.picture, photo.face, tuple(sources))
    write_whole(out, person.pack())
    return Outcome(person, curve, best.point, ended, notes)


def _how(arguments: LearnArguments, preset: Preset, recipe: Recipe | None) -> tuple[Recipe, str]:
    """The recipe with what was asked for instead, and the device, "cpu" or "cuda"."""
    recipe = recipe or Recipe.of(preset, from_scratch=arguments.from_scratch)
    if arguments.steps is not None:
        recipe = dataclasses.replace(recipe, num_steps=arguments.steps)
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here; give cpu, or install a torch with CUDA.")
    return recipe, device


def _start(arguments: LearnArguments) -> tuple[Preset, Networks, dict[str, str]]:
    """What is learned from: preset, networks, and what the record says of them."""
    torch.manual_seed(arguments.seed)
    path = arguments.model or (BUNDLED_MODEL if BUNDLED_MODEL.exists() else None)
    if arguments.from_scratch and (arguments.preset is not None or path is None):
        name = arguments.preset or "texture"
        return PRESETS[name], build(PRESETS[name].networks, 0), {"preset": name}
    if path is None:
        raise ModelError("no model comes with this installation; give --model FILE of one that `mimik train` wrote.")
    release = load_release(path)
    networks = build(release.preset.networks, 0) if arguments.from_scratch else release.networks
    return release.preset, networks, dataclasses.asdict(Source.of(path))


class _Best(NamedTuple):
    point: Point
    state: dict[str, NDArray[Any]]


def _run(learner: Learner, max_seconds: float | None, progress: Progress) -> tuple[list[Point], _Best, str]:
    """Step after step, until there is a reason to end."""
    recipe, began = learner.recipe, time.monotonic()

    def probed() -> Point:
        identity, following = learner.probe()
        values = (time.monotonic() - began, identity, following, (identity + following) / 2)
        return Point(learner.step, *(round(value, 4) for value in values))

    curve = [probed()]
    best = _Best(curve[0], learner.state())
    risen = curve[0]  # the last point that was clearly better than what had been clearly better before
    while True:
        terms = learner.train_step()
        if not all(value.isfinite() for value in terms.values()):
            return curve, best, "a loss was not finite"
        late = max_seconds is not None and time.monotonic() - began > max_seconds
        last = learner.step == recipe.num_steps
        if late or last or learner.step % recipe.probe_every == 0:
            curve.append(probed())
            if curve[-1].score > best.point.score:
                best = _Best(curve[-1], learner.state())
            if curve[-1].score >= risen.score + recipe.min_gain:
                risen = curve[-1]
        progress(curve[-1], learner.step, recipe.num_steps)
        if late:
            return curve, best, "the time was over"
        if last:
            return curve, best, "the steps were done"
        # As long as no face is seen at all, there is nothing to lose.
        waited = learner.step - risen.step >= recipe.patience * recipe.probe_every
        if best.point.score and waited and learner.step >= recipe.min_steps:
            return curve, best, "it did not become better any more"


def _silent(point: Point | None, step: int, num_steps: int) -> None:
    pass


# Photos in memory, learned for a while: what `mimik evaluate` measures.


class Stage(NamedTuple):
    """A person as far as it is learned.

    Attributes:
        steps: updates of G so far.
        seconds: of learning so far.
        tensors: of the generator, float16, by names such as "G.down.0.conv1.bias".
        psi: [2 * features of all AdaIN layers] float32, psi'.
    """

    steps: int
    seconds: float
    tensors: dict[str, NDArray[np.float16]]
    psi: NDArray[np.float32]


class Course(NamedTuple):
    """How the learning of one person went.

    Attributes:
        preset: of the networks.
        stages: at each of the times asked for; after the end, what was kept.
        kept: what `learn` would have written.
        ended: why it ended.
    """

    preset: Preset
    stages: list[Stage]
    kept: Stage
    ended: str


def learn_photos(
    photos: Sequence[Photo],
    arguments: LearnArguments,
    at_seconds: Sequence[float],
    *,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> Course:
    """Learns a person as `learn` does, from photos in memory, and says what there was at some times; writes nothing.

    Args:
        photos: of the person.
        arguments: what is asked for; the last of the times takes the place of max_seconds.
        at_seconds: times in rising order, seconds of learning, probes included; 0 is the model as it was.
        recipe, progress: as learn has them.

    Raises:
        InputError: if the model cannot be used, or its weights grew beyond float16.
    """
    preset, networks, _ = _start(arguments)
    recipe, device = _how(arguments, preset, recipe)
    learner = Learner(preset, networks, photos, recipe, device, arguments.seed)
    stages: list[Stage] = []
    began = time.monotonic()

    def look(point: Point | None, step: int, num_steps: int) -> None:
        seconds = time.monotonic() - began
        while len(stages) < len(at_seconds) and seconds >= at_seconds[len(stages)]:
            stages.append(_stage(learner.state(), step, seconds))
        if progress is not None:
            progress(point, step, num_steps)

    if at_seconds[0] == 0:
        stages.append(_stage(learner.state(), 0, 0.0))
    curve, best, ended = _run(learner, at_seconds[-1], look)
    kept = _stage(best.state, best.point.step, curve[-1].seconds)
    stages += [kept] * (len(at_seconds) - len(stages))
    return Course(preset, stages, kept, ended)


def _stage(state: Mapping[str, NDArray[Any]], steps: int, seconds: float) -> Stage:
    tensors = {name: value.astype(np.float16) for name, value in state.items() if name != "psi"}
    if not all(np.isfinite(value).all() for value in tensors.values()):
        raise InputError("the weights grew beyond float16; give other photos, or less time.")
    return Stage(steps, round(seconds, 3), tensors, np.asarray(state["psi"][0], np.float32))
