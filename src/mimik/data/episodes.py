"""Episodes for meta-learning and evaluation: source frames and target frames of one clip, with landmarks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypedDict, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mimik.arrays import Array, Image
from mimik.config import InputError
from mimik.data.augmentation import NUM_DRAWN, Augmentation
from mimik.data.index import ClipInfo
from mimik.data.remote import DamagedClipError
from mimik.data.store import ClipStore
from mimik.data.tracks import Tracks
from mimik.face import landmarks as faces
from mimik.face.landmark_images import STYLES, feature_mask, landmark_image, mouth_interior
from mimik.motion.neutral import motion_of_photo
from mimik.motion.retargeting import Retarget
from mimik.networks.features import chip_transform
from mimik.rendering.crop import WINDOW_SCALE, Crop, squares_around
from mimik.rendering.flow import Flow, Warper
from mimik.rendering.painter import Painter

if TYPE_CHECKING:
    from mimik.rendering.scene.background import Scene

log = logging.getLogger(__name__)


TARGETS = ("uniform", "far")
_DAMAGED_IN_A_ROW = 16  # more consecutive damaged clips than this are not random damage: raise an error
_FAR_CANDIDATES = 4
_ORDERS_KEPT = 64  # of epochs
_WINDOW_SCALE, _WINDOW_SHIFT = 0.1, 0.04  # largest augmentation of windows
_YAW_SCALE = 15.0  # degrees of head pose that weigh as much as a change of a blendshape from 0 to 1


def to_model_range(images: Tensor) -> Tensor:
    """uint8 0..255 of any shape -> float32 in [-1, 1], on the device where images are."""
    return images.float() / 127.5 - 1


def _planes(images: Image) -> Tensor:
    """uint8 [N, H, W, 3] -> [N, 3, H, W]."""
    num_frames, height, width, _ = images.shape
    planes = np.empty((num_frames, 3, height, width), np.uint8)
    for image, into in zip(images, planes, strict=True):
        cv2.split(image, list(into))
    return torch.from_numpy(planes)


class Batch(TypedDict, total=False):
    """A batch of episodes. Images and masks are uint8 0..255 from loaders, float32 in [-1, 1] and 0..1 for networks.

    Frames of the texture form, x, regions, warped, interior, matte, plate and where, are [.., 2 H, 2 W] for y of
    [.., H, W].
    Fine-tuning has no sources and no numbers.
    """

    x: Tensor  # [B, 3, H, W] target frame
    y: Tensor  # [B, 3, H, W] its landmark image
    x_s: Tensor  # [B, K, 3, H, W] source frames
    y_s: Tensor  # [B, K, 3, H, W] their landmark images
    points: Tensor  # [B, 478, 3] float32 landmarks in pixels of y
    points_s: Tensor  # [B, K, 478, 3] the same of the sources
    regions: Tensor  # [B, 1, H, W] mask of the target's eyes and mouth
    chip: Tensor  # [B, 2, 3] float32 view of the identity network in x (features.chip_transform)
    face: Tensor  # [B, 2, 3] float32 view of the landmark detector in x (face.landmarker_view)
    clip: Tensor  # [B] position in the index, the column of W
    person: Tensor  # [B] number of the name among the sorted ones
    key: list[str]  # of the clips
    frame: Tensor  # [B] number of the target in its clip
    frames_s: Tensor  # [B, K] numbers of the sources
    episode: Tensor  # [B] number
    skipped: Tensor  # [B] damaged clips that were replaced
    # Of the texture form.
    warped: Tensor  # [B, 3, 2 H, 2 W] the first source frame, warped to the target
    interior: Tensor  # [B, 1, 2 H, 2 W] mask of the target's open mouth
    matte: Tensor  # [B, 1, 2 H, 2 W] of the person in warped; without it and plate, warped includes the background
    plate: Tensor  # [B, 3, 2 H, 2 W] the still background of the target
    geometry: Tensor  # [B, NUM_GEOMETRY, H / 2, W / 2] float32 flow maps (flow.Flow.maps)
    view: Tensor  # [B, 2] int64 view of D and the content networks: the whole frame or a crop (generators.view_frames)
    where: Tensor  # [B, 1, 2 H, 2 W] of fine-tuning: mask of the loss


def each_tensor(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with a function applied to each tensor."""
    return cast(Batch, {name: change(cast(Tensor, value)) for name, value in batch.items()})


@dataclass(frozen=True)
class EvaluationEpisode:
    """One clip of the paper's protocol: source frames, and hold-out frames to synthesize."""

    clip: int  # position in the index
    info: ClipInfo  # the clip
    sources: tuple[int, ...]  # numbers of the T frames that are given
    holdout: tuple[int, ...]  # numbers of the frames to make; none is among the sources


def evaluation_episodes(
    index: Sequence[ClipInfo], shots: int, num_holdout: int = 32, *, seed: int = 0
) -> list[EvaluationEpisode]:
    """Sources and hold-out frames of every clip; docs/paper.md, section 7.

    They depend only on the clip's key and the seed. The hold-out frames are the same for every number of shots, and the
    sources for fewer shots are a subset of those for more, so the columns T = 1, 8, 32 of a table differ only in T.

    Args:
        index: clips; those with fewer than shots + num_holdout frames are omitted.
        shots: T, number of source frames.
        num_holdout: the paper's is 32.
        seed: chooses other frames.

    Raises InputError if no clip is long enough, or a number is not positive.
    """
    if shots < 1 or num_holdout < 1:
        raise InputError(f"{shots} shots and {num_holdout} hold-out frames: use 1 or more of both.")
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
    """A random generator seeded by words."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def drawn_numbers(seed: int, use: int, numbers: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """[N, count] random numbers in 0..1 for episodes [N]; each row depends only on the words and its episode number.

    They are parts of one sequence, of which the range from the smallest to the largest episode number is generated.
    """
    first, last = int(numbers.min()), int(numbers.max())
    width = -(-count // 4)  # Philox generates four numbers per counter
    stream = np.random.Generator(np.random.Philox(key=[seed, use]).advance(first * width))
    return stream.random((last - first + 1, 4 * width))[numbers - first, :count]


def _different(drawn: NDArray[np.float64], limits: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N, M] distinct random numbers below limits [N], in random order; columns beyond a row's limit are undefined."""
    out = np.zeros(drawn.shape, np.int64)
    for column in range(drawn.shape[1]):
        found = (drawn[:, column] * np.maximum(limits - column, 1)).astype(np.int64)
        for taken in np.sort(out[:, :column], axis=1).T:  # index among the remaining ones
            found += found >= taken
        out[:, column] = np.minimum(found, np.maximum(limits - 1, 0))
    return out


# Purposes of random numbers; each has a separate sequence, so that adding one does not change the others.
_ORDER, _FRAMES, _AUGMENT, _REPLACE, _WINDOW, _VIEW, _MOTION = range(7)
_ATTEMPT = 256  # added to the purpose for each replacement clip


class Chosen(NamedTuple):
    """Clips and frames of episodes."""

    clips: NDArray[np.int64]  # [N] positions in the index
    frames: NDArray[np.int64]  # [N, 1 + K] target and sources
    skipped: NDArray[np.int64]  # [N] damaged clips that were replaced


class Draws(NamedTuple):
    """Random numbers for augmentation, windows and views of episodes."""

    change: NDArray[np.float64]  # [N, NUM_DRAWN] see Augmentation.draw
    window: NDArray[np.float64]  # [N, 3] see moved_windows
    view: NDArray[np.float64]  # [N, 4] see views_of


class Episodes(Dataset[Batch]):
    """Episodes of meta-learning: K source frames and a target frame of one clip, all different; docs/paper.md, 1.

    Episode n is a function of n, the seed and the index only, independent of workers, ranks and earlier episodes.
    Episodes 0..len - 1 use every clip once, in random order; so do the next len, and so on without end. It is a
    map-style dataset, so that the DataLoader distributes the numbers and keeps their order: batches do not depend on
    the number of workers, and a run resumes at an episode number.
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
        skip_damaged: bool = False,
        window_px: int | None = None,
        scene: str = "warp",
        stills_share: float | None = None,
    ) -> None:
        """Reads no clip yet.

        Args:
            store: of the clips; its size is the size of the frames.
            index: the clips. A clip's position in it is its column of W, whether or not it is long enough to be used.
            num_sources: K; the paper's is 8.
            style: of the landmark images, "paper" or "full" (landmark_images.landmark_image).
            target: "uniform": any other frame; "far": of four candidates, the one that differs most in head pose and
                expression from its nearest source, so that copying a source does not suffice.
            augment: augmentation; None for evaluation.
            seed: random seed.
            skip_damaged: replace a damaged clip by another one, and count it in "skipped".
            window_px: side of the texture form's windows: frames are cropped to a window around the face, and the first
                source frame is warped to the target. The networks' inputs have this size; target and warped frame have
                twice the resolution (D14). A still is warped to another pose and expression and back, and is the target
                itself.
            scene: "auto": the person is warped in front of a still background, as in animation, which needs the
                matting network and thus OpenVINO; "warp": the whole source frame is warped.
            stills_share: share of stills in an epoch that has all other clips; None: all stills.

        Raises InputError if no clip has num_sources + 1 frames, or an option is not understood.
        """
        if scene == "auto":
            _decomposition()
        if num_sources < 1:
            raise InputError(f"--k {num_sources}: use 1 or more source frames.")
        for option, value, choices in (("style", style, STYLES), ("target", target, TARGETS)):
            if value not in choices:
                raise InputError(f"{option} {value!r}: use one of {', '.join(choices)}.")
        self.store, self.index = store, list(index)
        self.num_sources, self.style, self.target, self.augment = num_sources, style, target, augment
        self.seed, self.skip_damaged, self.window_px, self.scene = seed, skip_damaged, window_px, scene
        self.usable = np.flatnonzero([clip.num_frames > num_sources or self.is_still(clip) for clip in self.index])
        if not len(self.usable):
            longest = max((clip.num_frames for clip in self.index), default=0)
            has = f"the longest of {len(self.index)} has {longest}" if self.index else "there is no clip"
            raise InputError(
                f"--k {num_sources} needs clips of {num_sources + 1} frames or more, but {has}; use a smaller --k, or "
                "prepare longer videos of more people."
            )
        for clip in self.index:
            if store.size is not None and store.size > clip.size:
                raise InputError(f"--size {store.size}, but clip {clip.key} has {clip.size} px; use that or less.")
        if num_short := len(self.index) - len(self.usable):
            log.info("%d of %d clips have fewer than %d frames", num_short, len(self.index), num_sources + 1)
        self.damaged: set[int] = set()  # positions of clips that could not be read
        is_still = np.array([self.is_still(self.index[position]) for position in self.usable])
        self._stills, self._clips = self.usable[is_still], self.usable[~is_still]
        self._num_stills = len(self._stills)
        if stills_share is not None and len(self._clips):
            self._num_stills = min(round(len(self._clips) * stills_share / (1 - stills_share)), len(self._stills))
        self._num_frames = np.array([clip.num_frames for clip in self.index])
        self._states: dict[int, Array] = {}
        self._orders: dict[int, NDArray[np.intp]] = {}
        people = {name: i for i, name in enumerate(sorted({clip.person for clip in self.index}))}
        self.people = np.array([people[clip.person] for clip in self.index])  # of each clip

    def is_still(self, clip: ClipInfo) -> bool:
        """Whether a clip is a still, whose source is made by warping its only frame; the frame itself is the target."""
        return self.window_px is not None and clip.num_frames == 1

    def __len__(self) -> int:
        """Episodes of an epoch: one of every clip that is long enough, and of as many stills as wanted."""
        return len(self._clips) + self._num_stills

    def choose(self, number: int) -> tuple[int, int, list[int]]:
        """Clip position, target frame and source frames of an episode."""
        chosen = self.choose_all(np.array([number]))
        target, *sources = chosen.frames[0].tolist()
        return int(chosen.clips[0]), target, sources

    def choose_all(self, numbers: NDArray[np.int64]) -> Chosen:
        """Clips and frames of episodes [N]; damaged clips are replaced.

        Raises InputError if too many consecutive clips are damaged.
        """
        epochs, places = np.divmod(numbers, len(self))
        clips = np.array([self._order(int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)])
        skipped = np.zeros_like(clips)
        while (bad := np.flatnonzero(np.isin(clips, list(self.damaged)))).size:
            skipped[bad] += 1
            for row in bad.tolist():
                attempt, number = int(skipped[row]), numbers[row : row + 1]
                if attempt >= _DAMAGED_IN_A_ROW:
                    raise InputError(
                        f"{_DAMAGED_IN_A_ROW} damaged clips in a row in {self.store.root}; run `mimik prepare` again."
                    )
                place = drawn_numbers(self.seed, _REPLACE + _ATTEMPT * attempt, number, 1).item() * len(self)
                clips[row] = self._order(int(epochs[row]))[int(place)]
        spare = _FAR_CANDIDATES - 1 if self.target == "far" else 0
        count = 1 + self.num_sources + spare
        drawn = drawn_numbers(self.seed, _FRAMES, numbers, count)
        for row in np.flatnonzero(skipped).tolist():
            drawn[row] = drawn_numbers(self.seed, _FRAMES + _ATTEMPT * int(skipped[row]), numbers[row : row + 1], count)
        limits = self._num_frames[clips]
        frames = _different(drawn, limits)
        if spare:
            known = len(self.damaged)
            frames = self._with_far_targets(clips, frames, limits)
            if len(self.damaged) > known:
                return self.choose_all(numbers)
        return Chosen(clips, frames, skipped)

    def _with_far_targets(
        self, clips: NDArray[np.int64], frames: NDArray[np.int64], limits: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """[N, 1 + K] of frames [N, K + candidates]: the first K are sources."""
        state = np.stack([self._state_of(clip)[row] for clip, row in zip(clips.tolist(), frames, strict=True)])
        sources, candidates = state[:, None, : self.num_sources], state[:, self.num_sources :, None]
        apart = np.linalg.norm(candidates - sources, axis=-1).min(-1)
        apart[np.arange(self.num_sources, frames.shape[1]) >= limits[:, None]] = -1
        best = np.take_along_axis(frames, self.num_sources + apart.argmax(1)[:, None], 1)
        return np.concatenate([best, frames[:, : self.num_sources]], 1)

    def _state_of(self, position: int) -> Array:
        """[T, 55] blendshapes and scaled head pose of the frames of a clip."""
        if position not in self._states:
            try:
                self.remember(position, self.store.tracks(self.index[position]))
            except DamagedClipError as error:
                self.skip_clip(position, error)
                return np.zeros((self.index[position].num_frames, len(faces.BLENDSHAPES) + 3), np.float32)
        return self._states[position]

    def skip_clip(self, position: int, error: DamagedClipError) -> None:
        """Replace a damaged clip from now on; raises its error if skip_damaged is off."""
        if not self.skip_damaged:
            raise error
        log.warning("%s", error)
        self.damaged.add(position)

    def remember(self, position: int, tracks: Tracks) -> None:
        """Cache the tracks of a clip that was read, so that the choice of far targets does not read them again."""
        self._states[position] = np.concatenate([tracks.blendshapes, tracks.pose / np.float32(_YAW_SCALE)], axis=1)

    def draw_all(self, numbers: NDArray[np.int64]) -> Draws:
        """Random numbers for the pictures of episodes [N]."""
        uses = (_AUGMENT, NUM_DRAWN), (_WINDOW, 3), (_VIEW, 4)
        return Draws(*(drawn_numbers(self.seed, use, numbers, count) for use, count in uses))

    def _order(self, epoch: int) -> NDArray[np.intp]:
        """[len] positions of the clips in the order of an epoch."""
        if epoch not in self._orders:
            if len(self._orders) >= _ORDERS_KEPT:
                self._orders.clear()
            stream, some = random_stream(self.seed, _ORDER, epoch), self.usable
            if self._num_stills < len(self._stills):
                some = np.concatenate([self._clips, stream.permutation(self._stills)[: self._num_stills]])
            self._orders[epoch] = stream.permutation(some)
        return self._orders[epoch]

    def __getitem__(self, number: int) -> Batch:
        """Episode number, without end: a Batch of one, without its first axis.

        Raises InputError if the clip cannot be read.
        """
        chosen, images, points = self.read(number)
        position, (target, *sources) = int(chosen.clips[0]), chosen.frames[0].tolist()
        clip = self.index[position]
        draws = Draws(*(rows[0] for rows in self.draw_all(np.array([number]))))
        if self.augment is not None:
            side = images.shape[1]
            change = self.augment.draw(draws.change, side)
            images, points = change.images(images), change.points(points, side)
        more: dict[str, Tensor] = {}
        target_image, scale = images[:1], 1
        if self.window_px is not None:
            target_image, images, points, more = self._warped(images, points, draws)
            scale = 2
        side = images.shape[1]
        y = _planes(np.stack([landmark_image(p, side, side, style=self.style) for p in points]))
        placed = points[0] * np.float32(scale)
        item = {
            "x": _planes(target_image)[0],
            "y": y[0],
            "x_s": _planes(images[1:]),
            "y_s": y[1:],
            "points": torch.from_numpy(points[0]),
            "points_s": torch.from_numpy(points[1:]),
            "regions": torch.from_numpy(feature_mask(placed, scale * side, scale * side))[None],
            "chip": torch.from_numpy(chip_transform(placed).astype(np.float32)),
            "face": torch.from_numpy(faces.landmarker_view(placed).astype(np.float32)),
            **more,
            "clip": position,
            "person": int(self.people[position]),
            "key": clip.key,
            "frame": target,
            "frames_s": torch.tensor(sources),
            "episode": number,
            "skipped": int(chosen.skipped[0]),
        }
        return cast(Batch, item)

    def read(self, number: int, num_frames: int | None = None) -> tuple[Chosen, Image, Array]:
        """Clip, and all or the first num_frames frames of an episode with their points; sources of stills are rendered.

        Raises InputError if the clip cannot be read.
        """
        while True:
            chosen = self.choose_all(np.array([number]))
            position = int(chosen.clips[0])
            clip = self.index[position]
            try:
                frames = self.store.read(clip, chosen.frames[0, :num_frames])
                break
            except DamagedClipError as error:
                self.skip_clip(position, error)
        images, points = frames.images, frames.points
        if self.is_still(clip):
            images[1:], points[1:] = self._shift_still(clip, images[0], points[0], number)
        return chosen, images, points

    def _shift_still(self, clip: ClipInfo, image: Image, points: Array, number: int) -> tuple[Image, Array]:
        """A still warped, with layers, to the pose and expression of a frame of the corpus; and its points.

        The networks learn to correct the errors of this warp and of the warp back, mainly at mouth and eyes.
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

    def _warped(self, images: Image, points: Array, draws: Draws) -> tuple[Image, Image, Array, dict[str, Tensor]]:
        """The target at twice window_px; frames and points in windows, target first; the warp's batch entries."""
        px = self.window_px
        assert px is not None
        made = warped_to(images, points, self.scene)
        squares = squares_around(points, WINDOW_SCALE)
        if self.augment is not None:
            squares = shifted_squares(squares, draws.window)
        windows = [Crop(*square) for square in squares.tolist()]
        large = np.stack([window.cut(image, 2 * px) for image, window in zip(images, windows, strict=True)])
        units = np.stack([window.to_unit(p) for p, window in zip(points, windows, strict=True)])
        placed = np.asarray(units * (2 * px), np.float32)
        small = np.stack([cv2.resize(frame, (px, px), interpolation=cv2.INTER_AREA) for frame in large])
        more = {
            "warped": _planes(windows[0].cut(made.image, 2 * px)[None])[0],
            "interior": torch.from_numpy(mouth_interior(placed[0], 2 * px, 2 * px))[None],
            "geometry": torch.from_numpy(made.flow.maps(made.crop, windows[0], px // 2)),
            "view": torch.from_numpy(views_of(placed[0] / (2 * px), px, draws.view)),
        }
        if self.scene == "auto":
            more["matte"] = torch.from_numpy(windows[0].cut(made.matte, 2 * px))[None]
            more["plate"] = _planes(windows[0].cut(made.plate, 2 * px)[None])[0]
        return large[:1], small, placed / np.float32(2), more


class Warped(NamedTuple):
    """A source frame rendered with other points, by the code that animates.

    Attributes:
        image: uint8 RGB [S, S, 3], the person's colors, or the whole frame; with layers.
        matte: uint8 [S, S] of the person in it; 255 everywhere for a whole frame.
        plate: uint8 RGB [S, S, 3], the still background; the image itself for a whole frame.
        flow, crop: by which it was warped, and the square that the flow covers.
    """

    image: Image
    matte: NDArray[np.uint8]
    plate: Image
    flow: Flow
    crop: Crop


def _decomposition() -> Callable[[Image, Array], Scene | str]:
    """decompose_photo, imported late: a training machine may lack what it needs; InputError then."""
    try:
        from mimik.rendering.scene.background import decompose_photo
    except ModuleNotFoundError as error:
        raise InputError(
            f"--scene auto: needs {error.name}; install mimik's dependencies, or pass --scene warp."
        ) from None
    return decompose_photo


def warped_to(images: Image, points: Array, scene: str = "warp") -> Warped:
    """The second of the frames [N, S, S, 3] rendered with the points of the first; scene: see Episodes."""
    picture, source = images[1], points[1]
    layers = _decomposition()(picture, source) if scene == "auto" else "not wanted"
    if isinstance(layers, str):
        warper = Warper(source, *picture.shape[1::-1])
        flow = warper.flow(points[0])
        image = Painter(picture, warper).paint(flow)
        return Warped(image, np.full(image.shape[:2], 255, np.uint8), image, flow, warper.crop)
    warper, matte = layers.warper(source), layers.matte
    flow = warper.flow(points[0])
    painter = Painter(layers.front, warper, matte=matte)
    image, moved = painter.paint(flow), matte.copy()
    layers.canvas.part(moved)[...] = painter.moved_matte
    return Warped(image, moved, layers.plate, flow, warper.crop)


def views_of(points: Array, px: int, drawn: NDArray[np.float64]) -> NDArray[np.int64]:
    """Random views for D and the content networks of frames that are 2 * px wide; see generators.view_frames.

    Args:
        points: [.., 478, 2+] face points, in sides of the frame.
        px: side of a view.
        drawn: [.., 4] random numbers in 0..1.

    Returns:
        int64 [.., 2]: (-1, -1), the whole frame, with probability 1/2; else top and left of a crop around the mouth,
        the eyes, or the face.
    """
    parts = np.stack([points[..., part, :2].mean(-2) for part in (faces.LIPS, faces.EYES, faces.OVAL)], -2)
    part = np.searchsorted([0.5, 0.75], drawn[..., 1], side="right")[..., None, None]
    middle = np.take_along_axis(parts, part, -2)[..., 0, :] * 2 * px + (drawn[..., 2:] - 0.5) * px / 2
    view = (middle[..., ::-1] - px / 2).clip(0, px).astype(np.int64)
    return np.where(drawn[..., :1] < 0.5, -1, view)


def shifted_squares(squares: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Augment windows [.., N, 3] (left, top, side) by a scale and a shift, which are shared within an episode.

    Args: drawn: [.., 3] random numbers in 0..1: scale, shift to the right, shift down.
    """
    size, shift = (2 * drawn[..., None, :1] - 1) * _WINDOW_SCALE, (2 * drawn[..., None, 1:] - 1) * _WINDOW_SHIFT
    side = squares[..., 2:] * (1 + size)
    return np.concatenate([squares[..., :2] + (squares[..., 2:] - side) / 2 + shift * side, side], -1)
