"""Episodes for meta-learning and evaluation: source frames and target frames of one clip, with landmarks."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mimik.arrays import Array, Image
from mimik.config import InputError
from mimik.data.augmentation import Augmentation
from mimik.data.index import ClipInfo
from mimik.data.remote import DamagedClipError
from mimik.data.store import ClipStore
from mimik.face import landmarks as faces
from mimik.face.landmark_images import STYLES, feature_mask, landmark_image, mouth_interior
from mimik.motion.neutral import motion_of_photo
from mimik.motion.retargeting import Retarget
from mimik.networks.features import chip_transform
from mimik.rendering.crop import WINDOW_SCALE, Crop
from mimik.rendering.flow import Warper
from mimik.rendering.painter import Painter

log = logging.getLogger(__name__)


TARGETS = ("uniform", "far")
_DAMAGED_IN_A_ROW = 16  # more than these at random in a corpus that is otherwise sound: there is something else wrong
_FAR_CANDIDATES = 4
_WINDOW_SCALE, _WINDOW_SHIFT = 0.1, 0.04  # how far training's windows are from where they would be, at most
_YAW_SCALE = 15.0  # degrees of head pose that count as much as a blendshape that goes from 0 to 1


def to_model_range(images: Tensor) -> Tensor:
    """uint8 0..255 of any shape -> float32 in [-1, 1], on the device where images are."""
    return images.float() / 127.5 - 1


def _planes(images: Image, as_uint8: bool) -> Tensor:
    """uint8 [N, H, W, 3] -> [N, 3, H, W] uint8, or float32 in [-1, 1]."""
    num_frames, height, width, _ = images.shape
    planes = np.empty((num_frames, 3, height, width), np.uint8)
    for image, into in zip(images, planes, strict=True):
        cv2.split(image, list(into))
    tensor = torch.from_numpy(planes)
    return tensor if as_uint8 else to_model_range(tensor)


def _drawn(images: Image, points: Array, style: str, as_uint8: bool) -> tuple[Tensor, Tensor, Tensor]:
    side = images.shape[1]
    drawn = np.stack([landmark_image(p, side, side, style=style) for p in points])
    return _planes(images, as_uint8), _planes(drawn, as_uint8), torch.from_numpy(points)


def _in_windows(images: Image, points: Array, windows: Sequence[Crop], px: int) -> tuple[Image, Array]:
    """Frames [N, S, S, 3] and points [N, 478, 3] -> the same in their windows, px wide."""
    cut = np.stack([window.cut(image, px) for image, window in zip(images, windows, strict=True)])
    placed = np.stack([window.to_unit(p) * px for p, window in zip(points, windows, strict=True)])
    return cut, placed.astype(np.float32)


class Batch(TypedDict, total=False):
    """Episodes as the loader gives them and as training takes them.

    Images are float32 in [-1, 1], or uint8; masks float32 in 0..1, or uint8. Frames of the texture form, x, regions,
    warped, interior and where, are [.., 2 H, 2 W] for y of [.., H, W]. Fine-tuning has no sources and no numbers.
    """

    x: Tensor  # [B, 3, H, W] target frame
    y: Tensor  # [B, 3, H, W] its landmark image
    x_s: Tensor  # [B, K, 3, H, W] source frames
    y_s: Tensor  # [B, K, 3, H, W] their landmark images
    points: Tensor  # [B, 478, 3] float32 landmarks in pixels of y
    points_s: Tensor  # [B, K, 478, 3] the same of the sources
    regions: Tensor  # [B, 1, H, W] mask of the target's eyes and mouth
    chip: Tensor  # [B, 2, 3] float32 where in x the identity network looks (features.chip_transform)
    face: Tensor  # [B, 2, 3] float32 where in x the landmarker looks (face.landmarker_view)
    clip: Tensor  # [B] position in the index, the column of W
    person: Tensor  # [B] number of the name among the sorted ones
    key: list[str]  # of the clips
    frame: Tensor  # [B] number of the target in its clip
    frames_s: Tensor  # [B, K] numbers of the sources
    episode: Tensor  # [B] number
    skipped: Tensor  # [B] damaged clips that were passed over for it
    # Of the texture form.
    warped: Tensor  # [B, 3, 2 H, 2 W] the first source frame, warped to the target
    interior: Tensor  # [B, 1, 2 H, 2 W] mask of the target's open mouth
    geometry: Tensor  # [B, NUM_GEOMETRY, H / 2, W / 2] float32, how it was warped (flow.Flow.maps)
    view: Tensor  # [B, 2] int64, what D and the content networks see (generators.view_frames): all, or a part
    where: Tensor  # [B, 1, 2 H, 2 W] of fine-tuning: mask of what the loss counts


def each_tensor(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """A batch of tensors, each changed."""
    return cast(Batch, {name: change(cast(Tensor, value)) for name, value in batch.items()})


@dataclass(frozen=True)
class EvaluationEpisode:
    """One clip of the paper's protocol: photos of a person, and frames to make again."""

    clip: int  # position in the index
    info: ClipInfo  # the clip
    sources: tuple[int, ...]  # numbers of the T frames that are given
    holdout: tuple[int, ...]  # numbers of the frames to make; none is among the sources


def evaluation_episodes(
    index: Sequence[ClipInfo], shots: int, num_holdout: int = 32, *, seed: int = 0
) -> list[EvaluationEpisode]:
    """Sources and hold-out frames of every clip; docs/paper.md, section 7.

    They depend on the clip's key and the seed alone. The hold-out frames are the same for every number of shots, and
    the sources for fewer shots are among those for more: the columns T = 1, 8, 32 of a table differ in T only.

    Args:
        index: clips; those with fewer than shots + num_holdout frames are left out.
        shots: T, number of source frames.
        num_holdout: the paper's is 32.
        seed: chooses other frames.

    Raises:
        InputError: if no clip is long enough, or a number is not positive.
    """
    if shots < 1 or num_holdout < 1:
        raise InputError(f"{shots} shots and {num_holdout} hold-out frames: give 1 or more of both.")
    episodes = []
    for position, info in enumerate(index):
        if info.num_frames < shots + num_holdout:
            continue
        digest = hashlib.sha256(info.key.encode()).digest()
        order = random_stream(seed, int.from_bytes(digest[:8], "big")).permutation(info.num_frames).tolist()
        holdout, sources = order[:num_holdout], order[num_holdout : num_holdout + shots]
        episodes.append(EvaluationEpisode(position, info, tuple(sources), tuple(sorted(holdout))))
    if not episodes:
        longest = max((info.num_frames for info in index), default=0)
        raise InputError(
            f"{shots} shots and {num_holdout} hold-out frames need {shots + num_holdout} frames, but the longest of"
            f" {len(index)} clips has {longest}. Use fewer shots, or prepare longer clips."
        )
    if len(episodes) < len(index):
        log.info("%d of %d clips are too short for %d shots", len(index) - len(episodes), len(index), shots)
    return episodes


def random_stream(*words: int) -> np.random.Generator:
    """Random numbers that depend on the words alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


# What a random number is for; every use has its own stream, so that one more use changes no other.
_ORDER, _FRAMES, _AUGMENT, _REPLACE, _WINDOW, _VIEW, _MOTION = range(7)


class Episodes(Dataset[Batch]):
    """Episodes of meta-learning: K source frames and a target frame of one clip, all different; docs/paper.md, 1.

    Episode n is a function of n, the seed and the index: no worker, rank or earlier episode matters. Episodes
    0..len - 1 take every clip once, in random order, the next len every clip once again, and so on without end. It is a
    map and not a stream because then the DataLoader itself gives every number to one worker and keeps their order: the
    batches are the same for any number of workers, and resuming is starting at a number (EpisodeSampler).
    """

    def __init__(
        self,
        store: ClipStore,
        index: Sequence[ClipInfo],
        *,
        num_sources: int = 8,
        style: str = "full",
        target: str = "uniform",
        augment: Augmentation | None = None,
        seed: int = 0,
        as_uint8: bool = False,
        skip_damaged: bool = False,
        window_px: int | None = None,
    ) -> None:
        """Reads no clip yet.

        Args:
            store: where the clips are; its size is the size of the frames.
            index: the clips. A clip's position in it is its column of W, whether or not it is long enough to be used.
            num_sources: K; the paper's is 8.
            style: of the landmark images, "paper" or "full" (draw.landmark_image).
            target: "uniform" takes any other frame; "far" the one of four that differs most in head pose and expression
                from the source nearest to it, so that a generator that copies a source learns nothing.
            augment: changes frames; None for evaluation.
            seed: of everything random.
            as_uint8: images stay uint8 0..255, a quarter of the bytes; to_model_range() on the GPU does the rest.
            skip_damaged: take another clip instead of a damaged one, and count it in "skipped".
            window_px: what the texture form is trained on: frames are cut to a window around the face, and the first
                source frame is warped to the target. The networks look at windows this many pixels wide; the target and
                the warped frame are cut twice as large (D14). A still is the target of its own warp to another pose and
                expression and back.

        Raises:
            InputError: if no clip has num_sources + 1 frames, or an option is not understood.
        """
        if num_sources < 1:
            raise InputError(f"--k {num_sources}: give 1 source frame or more.")
        for option, value, choices in (("style", style, STYLES), ("target", target, TARGETS)):
            if value not in choices:
                raise InputError(f"{option} {value!r}: give one of {', '.join(choices)}.")
        self.store, self.index = store, list(index)
        self.num_sources, self.style, self.target, self.augment = num_sources, style, target, augment
        self.seed, self.as_uint8, self.skip_damaged = seed, as_uint8, skip_damaged
        self.window_px = window_px
        self._usable = np.flatnonzero([clip.num_frames > num_sources or self._is_still(clip) for clip in self.index])
        if not len(self._usable):
            longest = max(self.index, key=lambda clip: clip.num_frames, default=None)
            has = f"clip {longest.key}, the longest, has {longest.num_frames} frames" if longest else "there is no clip"
            frames = f"--k {num_sources} needs {num_sources + 1} frames of a clip"
            raise InputError(f"{frames}, but {has}. Use a smaller --k, or run prepare with a larger --min-frames.")
        for clip in self.index:
            if store.size is not None and store.size > clip.size:
                raise InputError(f"--size {store.size}, but clip {clip.key} has {clip.size} px: give that or less.")
        if self.num_left_out:
            log.info("%d of %d clips have fewer than %d frames", self.num_left_out, len(self.index), num_sources + 1)
        self._people = {name: i for i, name in enumerate(sorted({clip.person for clip in self.index}))}

    def _is_still(self, clip: ClipInfo) -> bool:
        """Whether source frames are made of a clip's only frame: a picture is its own target, after a warp and back."""
        return self.window_px is not None and clip.num_frames == 1

    @property
    def num_left_out(self) -> int:
        """Clips that are too short."""
        return len(self.index) - len(self._usable)

    def __len__(self) -> int:
        """Episodes of an epoch: one of every clip that is long enough."""
        return len(self._usable)

    def position(self, number: int) -> tuple[int, int]:
        """Epoch and place in it of an episode."""
        return divmod(number, len(self))

    def choose(self, number: int, attempt: int = 0) -> tuple[int, int, list[int]]:
        """Position of the clip of an episode, its target frame, its source frames; attempt > 0 takes another clip."""
        epoch, place = self.position(number)
        if attempt:
            place = int(random_stream(self.seed, _REPLACE, number, attempt).integers(len(self)))
        position = int(self._order(epoch)[place])
        clip = self.index[position]
        if self._is_still(clip):
            return position, 0, [0] * self.num_sources
        rng = random_stream(self.seed, _FRAMES, number, attempt)
        if self.target == "uniform":
            target, *sources = rng.choice(clip.num_frames, self.num_sources + 1, replace=False).tolist()
            return position, target, sources
        count = min(self.num_sources + _FAR_CANDIDATES, clip.num_frames)
        chosen = rng.choice(clip.num_frames, count, replace=False)
        sources, candidates = chosen[: self.num_sources], chosen[self.num_sources :]
        tracks = self.store.tracks(clip)
        state = np.concatenate([tracks.blendshapes, tracks.pose / _YAW_SCALE], axis=1)
        apart = np.linalg.norm(state[candidates, None] - state[sources], axis=-1).min(1)
        return position, int(candidates[apart.argmax()]), sources.tolist()

    def _order(self, epoch: int) -> NDArray[np.intp]:
        """[len] positions of the clips in the order of an epoch."""
        known = self.__dict__.get("_known_order")
        if known is None or known[0] != epoch:
            known = epoch, random_stream(self.seed, _ORDER, epoch).permutation(self._usable)
            self._known_order = known
        return known[1]

    def __getitem__(self, number: int) -> Batch:
        """Episode number, without end: a Batch of one, without its first axis.

        Raises InputError if the clip cannot be read.
        """
        for attempt in range(_DAMAGED_IN_A_ROW):
            try:
                position, target, sources = self.choose(number, attempt)
                clip = self.index[position]
                frames = self.store.read(clip, [target, *sources])
                break
            except DamagedClipError as error:
                if not self.skip_damaged:
                    raise
                log.warning("%s", error)
        else:
            raise InputError(f"{_DAMAGED_IN_A_ROW} damaged clips in a row in {self.store.root}: prepare it again.")
        images, points = frames.images, frames.points
        if self._is_still(clip):
            images[1:], points[1:] = self._moved_still(clip, images[0], points[0], number)
        if self.augment is not None:
            side = images.shape[1]
            change = self.augment.draw(random_stream(self.seed, _AUGMENT, number), side)
            images, points = change.images(images), change.points(points, side)
        more: dict[str, Tensor] = {}
        target_image, scale = images[:1], 1
        if self.window_px is not None:
            target_image, images, points, more = self._warped(images, points, number)
            scale = 2
        x, y, drawn = _drawn(images, points, self.style, self.as_uint8)
        placed = points[0] * np.float32(scale)
        regions = feature_mask(placed, target_image.shape[2], target_image.shape[1])
        item = {
            "x": _planes(target_image, self.as_uint8)[0],
            "y": y[0],
            "x_s": x[1:],
            "y_s": y[1:],
            "points": drawn[0],
            "points_s": drawn[1:],
            "regions": torch.from_numpy(regions)[None],
            "chip": torch.from_numpy(chip_transform(placed).astype(np.float32)),
            "face": torch.from_numpy(faces.landmarker_view(placed).astype(np.float32)),
            **more,
            "clip": position,
            "person": self._people[clip.person],
            "key": clip.key,
            "frame": target,
            "frames_s": torch.tensor(sources),
            "episode": number,
            "skipped": attempt,
        }
        return cast(Batch, item)

    def _moved_still(self, clip: ClipInfo, image: Image, points: Array, number: int) -> tuple[Image, Array]:
        """A still with pose and expression of a frame of the corpus, made by a warp with layers, and its points.

        What the warp loses there and back, mouth and eyes above all, is what the networks learn to put right.
        """
        rng = random_stream(self.seed, _MOTION, number)
        other = self.index[int(rng.integers(len(self.index)))]
        tracks, frame = self.store.tracks(other), int(rng.integers(other.num_frames))
        driver = faces.Face(tracks.points[frame], tracks.blendshapes[frame], 1.0)
        reference, motion_frame = motion_of_photo(driver)
        person = faces.Face(points, self.store.tracks(clip).blendshapes[0], 1.0)
        goal = Retarget(person, reference, mode="absolute")(motion_frame).astype(np.float32)
        warper = Warper(points, image.shape[1], image.shape[0])
        return Painter(image, warper).paint(warper.flow(goal)), goal

    def _warped(self, images: Image, points: Array, number: int) -> tuple[Image, Image, Array, dict[str, Tensor]]:
        """The target at twice window_px; frames and points in windows, target first; what is given of the warp."""
        px = self.window_px
        assert px is not None
        warper = Warper(points[1], images.shape[2], images.shape[1])
        flow = warper.flow(points[0])
        painted = Painter(images[1], warper).paint(flow)
        windows = [Crop.around(p, WINDOW_SCALE) for p in points]
        if self.augment is not None:
            rng = random_stream(self.seed, _WINDOW, number)
            windows = [_moved(window, *rng.uniform(-1, 1, 3)) for window in windows]
        geometry = flow.maps(warper.crop, windows[0], px // 2)
        warped = _planes(windows[0].cut(painted, 2 * px)[None], self.as_uint8)[0]
        large, placed = _in_windows(images, points, windows, 2 * px)
        small = np.stack([cv2.resize(frame, (px, px), interpolation=cv2.INTER_AREA) for frame in large])
        view = view_of(placed[0] / (2 * px), px, random_stream(self.seed, _VIEW, number))
        interior = torch.from_numpy(mouth_interior(placed[0], 2 * px, 2 * px))[None]
        more = {
            "warped": warped,
            "interior": interior,
            "geometry": torch.from_numpy(geometry),
            "view": torch.from_numpy(view),
        }
        return large[:1], small, placed / np.float32(2), more


def view_of(points: Array, px: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """What D and the content networks see of a frame that is 2 px wide; see generators.view_frames.

    Args:
        points: [478, 3] of the face in it, in sides of the frame.
        px: side of what they see.
        rng: chooses.

    Returns:
        int64 [2]: as often (-1, -1), all of it, as top and left of a part: around the mouth, the eyes, or the face.
    """
    if rng.random() < 0.5:
        return np.array([-1, -1])
    some = (faces.LIPS, faces.EYES, faces.OVAL)[rng.choice(3, p=(0.5, 0.25, 0.25))]
    x, y = points[some, :2].mean(0) * 2 * px + rng.uniform(-0.25, 0.25, 2) * px
    return np.array([int(np.clip(y - px / 2, 0, px)), int(np.clip(x - px / 2, 0, px))])


def _moved(window: Crop, size: float, right: float, down: float) -> Crop:
    """Another window, larger and shifted by shares of the most that is allowed."""
    side = window.side * (1 + size * _WINDOW_SCALE)
    left, top = (
        start + (window.side - side) / 2 + shift * _WINDOW_SHIFT * side
        for start, shift in ((window.left, right), (window.top, down))
    )
    return Crop(left, top, side)


class EpisodeSampler(Sampler[int]):
    """The numbers of one rank's episodes: start + rank, start + rank + world_size, ..

    One sequence runs through all epochs, so that no rank waits at their ends and every clip is taken equally often. The
    state of training is one number, the episodes that all ranks together have finished; any number of ranks can go on
    from there.
    """

    def __init__(
        self,
        *,
        start_episode: int = 0,
        num_episodes: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """Chooses the numbers.

        Args:
            start_episode: how many episodes all ranks together have finished.
            num_episodes: how many all ranks together are to do; what does not divide by world_size is left, so that
                all do equally many. None: without end.
            rank, world_size: None: those of torch.distributed or, before it starts, of torchrun's environment.

        Raises:
            InputError: on impossible numbers.
        """
        if rank is None or world_size is None:
            rank, world_size = _distributed()
        if not 0 <= rank < world_size or start_episode < 0 or (num_episodes is not None and num_episodes < 0):
            raise InputError(
                f"rank {rank} of {world_size}, start_episode {start_episode}, num_episodes {num_episodes}:"
                " ranks count from 0, and nothing is negative."
            )
        self._first, self._step = start_episode + rank, world_size
        self._count = None if num_episodes is None else num_episodes // world_size

    def __iter__(self) -> Iterator[int]:
        done = 0
        while self._count is None or done < self._count:
            yield self._first + done * self._step
            done += 1


def _distributed() -> tuple[int, int]:
    """Rank and number of ranks."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _start_worker(_: int) -> None:
    """In every worker: it is one of many, so it gets no threads of its own, and its parent says when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def loader(
    episodes: Episodes,
    *,
    batch_size: int,
    num_workers: int,
    start_episode: int = 0,
    num_episodes: int | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    prefetch: int = 4,
    pin_memory: bool | None = None,
) -> DataLoader[Batch]:
    """Batches of episodes, made by workers ahead of time; without end unless num_episodes is given.

    After a batch, the state to resume from is start_episode + world_size * batch_size * (batches that each rank did).

    Args:
        episodes: what to load.
        batch_size: B of one rank; an incomplete batch at the end is left out.
        num_workers: processes that load; 0 loads in the caller.
        start_episode, num_episodes, rank, world_size: as EpisodeSampler takes them.
        prefetch: batches that a worker makes ahead.
        pin_memory: whether batches lie in memory that a GPU reads directly; None: if there is one.
    """
    context: Any = None
    if num_workers:
        # Not fork: the caller has threads of torch, opencv and CUDA, and what they held is locked for ever in a copy.
        # A fork server has none of them, and unlike spawn loads torch once and not in every worker.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__])
    sampler = EpisodeSampler(start_episode=start_episode, num_episodes=num_episodes, rank=rank, world_size=world_size)
    return DataLoader(
        episodes,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        drop_last=True,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        worker_init_fn=_start_worker if num_workers else None,
        persistent_workers=num_workers > 0,
        prefetch_factor=prefetch if num_workers else None,
        multiprocessing_context=context,
    )
