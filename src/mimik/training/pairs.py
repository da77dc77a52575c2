"""Training pairs of fine-tuning: inputs of G and the photo to synthesize from them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from mimik.config import NetworkConfig, Preset
from mimik.data.episodes import Batch, to_model_range, views_of
from mimik.face.landmark_images import feature_mask, landmark_image, mouth_interior
from mimik.face.landmarks import OVAL, Array, Face, Image
from mimik.inference.windows import network_window, reduced, window_around
from mimik.motion.files import Motion
from mimik.motion.frames import MotionFrame, Reference
from mimik.motion.kinds import bundled_motions
from mimik.motion.retargeting import Retarget
from mimik.pipeline import Progress, silent
from mimik.rendering.crop import Crop
from mimik.rendering.flow import Flow, Warper
from mimik.rendering.painter import Painter
from mimik.rendering.several import distances, head_shape, photo_shares, share_face
from mimik.training.photos import Deadline, Photo


@dataclass(frozen=True)
class PreparedPhoto:
    """A photo prepared as input of the model."""

    picture: Image  # downsampled to about the detail of the window
    face: Face  # in the picture
    window: Crop  # of the picture, the model's input
    source: int  # index of its file

    @classmethod
    def of(cls, photo: Photo, preset: Preset) -> PreparedPhoto:
        points = photo.face.points
        whole, scale = network_window(points, preset.networks)
        face = dataclasses.replace(photo.face, points=points * np.float32(scale))
        return cls(reduced(photo.picture, scale), face, whole.scaled(scale), photo.source)

    def warper(self) -> Warper:
        return Warper(self.face.points, self.picture.shape[1], self.picture.shape[0])


def image_planes(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] each -> [N, 3, H, W] in [-1, 1]."""
    return to_model_range(torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2).contiguous())


def to_frames(planes: Tensor) -> Image:
    """[N, 3, H, W] in [-1, 1] -> uint8 RGB [N, H, W, 3]."""
    levels = ((planes.clamp(-1, 1) + 1) * 127.5).round().byte()
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())


def _interior(unit: NDArray[Any], px: int) -> Tensor:
    """[1, px, px] 0..1, mask of the inner mouth; points [478, 3] in sides of the frame."""
    return torch.from_numpy(mouth_interior(unit * px, px, px))[None].float() / 255


def _painted(painter: Painter, flow: Flow, window: Crop, px: int) -> Image:
    """A window of the warped photo, resized to px."""
    return painter.window(flow, painter.overlays(flow), window, px)


def generator_inputs(shot: PreparedPhoto, goals: Sequence[NDArray[Any]], config: NetworkConfig) -> tuple[Batch, Array]:
    """G's inputs for animating the person of a photo.

    Args:
        shot: the photo.
        goals: [478, 3] each, target points of the face in pixels of the photo.
        config: of the model.

    Returns:
        y and, for the texture form, warped, geometry and interior; and the goals in pixels of the frame, [N, 478, 3].
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
            warped.append(_painted(painter, flow, window, config.frame_px))
            geometry.append(torch.from_numpy(flow.maps(warper.crop, window, px // 2)))
            interior.append(_interior(window.to_unit(goal), config.frame_px))
        placed.append((window.to_unit(goal) * px).astype(np.float32))
        y.append(landmark_image(placed[-1], px, px, style=config.landmarks))
    batch: Batch = {"y": image_planes(y)}
    if warped:
        batch |= {"warped": image_planes(warped), "geometry": torch.stack(geometry), "interior": torch.stack(interior)}
    return batch, np.stack(placed) * np.float32(config.frame_px / px)


class Pairs:
    """Pairs of inputs and targets of G: an endless sequence of batches.

    The paper's form has one pair per photo: its landmark image and the photo. The texture form also takes a photo
    warped to the landmarks, which must differ from the target. A single photo is warped to a frame of the bundled
    motions and back; the round trip loses detail of eyes and mouth.

    The loss covers only what the inputs determine. A photo from another file has another background, so its loss covers
    only the face. After a round trip the loss covers only eyes and mouth: the rest is more accurate than after a single
    warp, and G would unlearn its corrections. On motion frames without a photo, G is kept near its initial output
    (docs/fine-tuning.md has the trials).

    With MIN_SEVERAL photos or more, the texture form leaves every fourth out of training.
    """

    def __init__(
        self,
        shots: Sequence[PreparedPhoto],
        windows: tuple[Image, Image, Array],
        preset: Preset,
        seed: int,
        deadline: Deadline = Deadline(),  # noqa: B008  frozen
        progress: Progress = silent,
    ) -> None:
        """Args:
        shots: T photos.
        windows: of these photos, from windows.photo_windows.
        preset: of the networks.
        seed: of pairs and random motion frames.
        deadline: near it, no further pair is made.
        progress: called with the stage, the pairs made and the total.
        """
        # The texture form never trains on every fourth photo, which measures generalization.
        may_leave_out = preset.networks.form == "texture" and len(shots) >= MIN_SEVERAL
        self._left_out = set(range(1, len(shots), 4)) if may_leave_out else set()
        self._shots, self._config = shots, preset.networks
        self._rng = np.random.default_rng(seed)
        frame_px = self._config.frame_px
        x, y, points = windows
        self._x, self._y, self._unit = image_planes(x), image_planes(y), points / self._config.image_px
        placed = self._unit * np.float32(frame_px)
        regions = np.stack([feature_mask(p, frame_px, frame_px) for p in placed])
        self._regions = torch.from_numpy(regions)[:, None].float() / 255
        self._faces = torch.from_numpy(np.stack([_face_mask(p, frame_px) for p in placed]))[:, None]
        self._warped: list[_Warped] = []
        if self._config.form == "texture":
            with threadpool_limits(limits=1, user_api="blas"):  # the small solver is slower with threads
                self._warped = self._pool(deadline, progress)

    def _pool(self, deadline: Deadline, progress: Progress) -> list[_Warped]:
        count = len(self._shots)
        some = [number for number in range(count) if number not in self._left_out]
        both = [(a, b) for a in some for b in some if a != b] or [(0, 0)] * _POOL
        order = self._rng.permutation(len(both))[:_POOL]
        warped: list[_Warped] = []
        for number in order:
            progress("warping the photos", len(warped), len(order))
            if len(warped) >= _SMALLEST_POOL and deadline.ends_preparation:
                break
            warped.append(self._pair(*both[number]))
        return warped

    def _pair(self, given: int, target: int) -> _Warped:
        """A photo warped to the landmarks of another, or, with a single photo, to a motion frame and back."""
        shot = self._shots[given]
        picture, warper, window = shot.picture, shot.warper(), shot.window
        if given == target:
            picture, warper = self._warped_sources(shot)
            where = self._regions[target]
        elif shot.source == self._shots[target].source:
            where = torch.ones_like(self._regions[target])
        else:
            where = self._faces[target]
        flow = warper.flow(self._unit[target] * window.side + [window.left, window.top, 0])
        warped = _painted(Painter(picture, warper), flow, window, self._config.frame_px)
        geometry = torch.from_numpy(flow.maps(warper.crop, window, self._config.image_px // 2))
        interior = _interior(self._unit[target], self._config.frame_px)
        return _Warped(target, image_planes([warped])[0], geometry, interior, where)

    def left_out(self) -> Batch | None:
        """The left-out photos, each synthesized from the nearest training photo; as batch, without a view.

        None with fewer than MIN_SEVERAL photos, and for the paper's form.
        """
        if not self._left_out:
            return None
        pairs = []
        for target in sorted(self._left_out):
            apart = distances(self._shapes, self._shots[target].face.points)
            apart[list(self._left_out)] = np.inf
            pairs.append(self._pair(int(apart.argmin()), target))
        return self._of(pairs)

    @functools.cached_property
    def _shapes(self) -> NDArray[np.float64]:
        return np.stack([head_shape(shot.face.points) for shot in self._shots])

    def _random_target(self, shot: PreparedPhoto) -> NDArray[Any]:
        """Points of the face at a motion frame, the most expressive or most turned of some random candidates."""
        part = _PARTS[int(self._rng.integers(len(_PARTS)))]
        frames = _all_motion_frames()
        some = [frames[int(i)] for i in self._rng.integers(len(frames), size=_NUM_CANDIDATES)]
        reference, motion_frame = max(some, key=lambda one: float(np.abs(getattr(one[1], part)).sum()))
        return Retarget(shot.face, reference)(motion_frame)

    def _warped_sources(self, shot: PreparedPhoto) -> tuple[Image, Warper]:
        """The photo warped to a random motion frame, and the warper of the result."""
        away = self._random_target(shot)
        warper = shot.warper()
        picture = Painter(shot.picture, warper).paint(warper.flow(away))
        return picture, Warper(away.astype(np.float32), *picture.shape[1::-1])

    def elsewhere(self, count: int) -> Batch:
        """y, warped and geometry of random motion frames, without ground truth."""
        shot = self._shots[0]
        with threadpool_limits(limits=1, user_api="blas"):
            return generator_inputs(shot, [self._random_target(shot) for _ in range(count)], self._config)[0]

    def has_same_lighting(self, chosen: int, deadline: Deadline = Deadline()) -> list[int]:  # noqa: B008  frozen
        """Indices of the other photos whose light on the face matches the chosen photo's.

        Each is warped to the chosen one. Colors are compared after blurring, so that expressions have little effect.
        """
        px, mask = self._config.frame_px, self._faces[chosen, 0].numpy()[..., None]
        found = []
        for number in range(len(self._shots)):
            if number != chosen and not deadline.ends_preparation:
                planes = torch.stack([self._pair(number, chosen).warped, self._x[chosen]])
                pair = [cv2.GaussianBlur(one * mask, (0, 0), _LIGHTING_BLUR * px) for one in to_frames(planes)]
                if np.abs(pair[0].astype(np.float32) - pair[1]).sum() < _SAME_LIGHT * 3 * mask.sum():
                    found.append(number)
        return found

    def sharing_gain(self, chosen: int, others: Sequence[int]) -> float:
        """Relative decrease of the error at eyes and mouth if the nearest photos are blended; see rendering.several.

        Some of the other photos are synthesized without themselves as source: from the chosen photo only, and blended.
        """
        px, errors = self._config.frame_px, np.zeros(2)
        for at in np.linspace(0, len(others) - 1, min(len(others), _NUM_LEFT_OUT)).round().astype(int):
            left_out = others[at]
            given = [chosen, *(number for number in others if number != left_out)]
            weights = photo_shares(distances(self._shapes[given], self._shots[left_out].face.points))
            some = [0, *(1 + np.flatnonzero(weights[1:])).tolist()]
            warped = [to_frames(self._pair(given[n], left_out).warped[None])[0] for n in some]
            shared = share_face([warped[0].copy(), *warped[1:]], weights[some], self._unit[left_out] * px)
            wrong = (image_planes([warped[0], shared]) - self._x[left_out]).abs() * self._regions[left_out]
            errors += wrong.mean((1, 2, 3)).numpy()
        return float(1 - errors[1] / max(errors[0], 1e-9))

    def faces(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Up to count photos, their landmark images, and soft masks [T, 1, H, W] of the faces."""
        return self._x[:count], self._y[:count], self._faces[:count]

    def batches(self, size: int) -> Iterator[Batch]:
        """Endless batches; each epoch uses every pair once, in random order."""
        count = len(self._warped) or len(self._x)
        while True:
            order = self._rng.permutation(count)
            for part in np.array_split(order, -(-count // size)):
                yield self.batch(part)

    def batch(self, numbers: NDArray[Any]) -> Batch:
        """x, y, regions; texture form: warped, geometry, interior, view, and the loss mask where [B, 1, 2 H, 2 W]."""
        if not self._warped:
            return self._targets(torch.from_numpy(numbers))
        some = [self._warped[i] for i in numbers]
        unit = np.stack([self._unit[one.target] for one in some])
        batch = self._of(some)
        batch["view"] = torch.from_numpy(views_of(unit, self._config.image_px, self._rng.random((len(some), 4))))
        return batch

    def _targets(self, at: Tensor) -> Batch:
        return {"x": self._x[at], "y": self._y[at], "regions": self._regions[at], "clip": torch.zeros_like(at)}

    def _of(self, some: Sequence[_Warped]) -> Batch:
        batch = self._targets(torch.tensor([one.target for one in some]))
        batch |= {
            "warped": torch.stack([one.warped for one in some]),
            "geometry": torch.stack([one.geometry for one in some]),
            "interior": torch.stack([one.interior for one in some]),
            "where": torch.stack([one.where for one in some]),
        }
        return batch


class _Warped(NamedTuple):
    """A photo warped to another's landmarks; see Pairs.batch."""

    target: int
    warped: Tensor
    geometry: Tensor
    interior: Tensor
    where: Tensor


_POOL = 32  # maximum number of warped photos
_SMALLEST_POOL = 4  # number of warped photos near the deadline: one batch
MIN_SEVERAL = 3  # photos from which on some are left out
_SAME_LIGHT = 8.0  # mean difference of two blurred faces, in gray levels
_LIGHTING_BLUR = 0.06  # frame widths, a tenth of a face
_NUM_LEFT_OUT = 4  # maximum number of photos that are synthesized from the others
_NUM_CANDIDATES = 4  # random motion frames per target; most frames hardly move the face
_PARTS = ("offset", "turn")  # parts of a motion frame


def _face_mask(points: Array, px: int) -> Array:
    """[px, px] soft mask of the face with points [478, 3]."""
    mask = np.zeros((px, px), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(points[OVAL, :2] - 0.5).astype(np.int32)), 1.0)
    return cv2.GaussianBlur(mask, (0, 0), px / 40)


@functools.cache
def _all_motion_frames() -> list[tuple[Reference, MotionFrame]]:
    """The neutral reference and motion frame of every frame of the bundled motions."""
    return [
        (motion.reference, motion_frame)
        for motion in map(Motion.load, bundled_motions().values())
        for motion_frame in motion.frames()
    ]
