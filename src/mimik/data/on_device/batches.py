"""Training batches from a corpus of decoded frames in device memory.

The CPU selects frames and augmentation of all episodes with array operations (data.episodes); the device reads, warps
and draws all pixels. The batches equal those of loading.loader, within the tolerances of tests/data/on_device.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the usual name
from numpy.typing import NDArray
from torch import Tensor

from mimik.arrays import Array
from mimik.data.augmentation import Augmentation, Change
from mimik.data.episodes import Batch, Draws, Episodes, shifted_squares, views_of
from mimik.data.on_device import pixels
from mimik.data.on_device.pixels import to_device
from mimik.data.on_device.warps import BLOCK, Schedule, Warp, WarpQueue
from mimik.data.remote import DamagedClipError
from mimik.data.store import ClipFrames
from mimik.data.tracks import Tracks
from mimik.face import landmarks as faces
from mimik.networks.features import chip_transform
from mimik.rendering.crop import WINDOW_SCALE, squares_around
from mimik.rendering.field import GRID
from mimik.rendering.flow import NUM_GEOMETRY

log = logging.getLogger(__name__)

REUSE = 8  # default number of episodes per warped frame


class DeviceCorpus:
    """All frames of the episodes' clips, decoded, in device memory.

    Attributes:
        memory: uint8 [P, 3] pixels on the device: all frames, clip by clip, and room for warped frames.
        starts, sides: [C] first pixel of each clip of the index, and its width.
        first, points: [C] first frame of each clip, and [F, 478, 3] landmarks, on the CPU.
        room: first pixel of the room.
    """

    def __init__(self, episodes: Episodes, device: torch.device, room: int = 0) -> None:
        """Decode every clip that is long enough, on all cores; damaged clips are skipped.

        Args: room: number of additional pixels.
        """
        index, usable = episodes.index, episodes.usable.tolist()
        self.sides = np.array([episodes.store.side_of(clip) for clip in index])
        lengths = np.zeros(len(index), np.int64)
        lengths[usable] = [index[position].num_frames for position in usable]
        ends = np.cumsum(lengths * self.sides**2)
        self.starts, self.first, self.room = ends - lengths * self.sides**2, np.cumsum(lengths) - lengths, int(ends[-1])
        self.memory = torch.empty(self.room + room, 3, dtype=torch.uint8, device=device)
        self.points = np.zeros((int(lengths.sum()), faces.NUM_POINTS, 3), np.float32)

        def read(position: int) -> tuple[ClipFrames, Tracks] | DamagedClipError:
            store, clip = copy.copy(episodes.store), index[position]  # because a store caches its newest clip
            try:
                return store.read(clip, np.arange(clip.num_frames)), store.tracks(clip)
            except DamagedClipError as error:
                return error

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            step = 4 * (os.cpu_count() or 1)  # clips that are decoded before they are copied
            for begin in range(0, len(usable), step):
                part = usable[begin : begin + step]
                for position, found in zip(part, pool.map(read, part), strict=True):
                    if isinstance(found, DamagedClipError):
                        episodes.skip_clip(position, found)
                        continue
                    frames, tracks = found
                    start, first = int(self.starts[position]), int(self.first[position])
                    planes = torch.from_numpy(frames.images.reshape(-1, 3))
                    self.memory[start : start + len(planes)] = planes.to(device)
                    self.points[first : first + len(tracks.points)] = tracks.points
                    episodes.remember(position, tracks)

    @staticmethod
    def num_bytes(episodes: Episodes) -> int:
        """Size of the decoded frames."""
        clips = [episodes.index[position] for position in episodes.usable.tolist()]
        return sum(3 * clip.num_frames * episodes.store.side_of(clip) ** 2 for clip in clips)


class DeviceLoader:
    """Endless batches of episodes, made on a device; the episode numbers are those of loading.loader."""

    def __init__(
        self,
        episodes: Episodes,
        device: torch.device,
        *,
        batch_size: int,
        num_workers: int,
        start_episode: int = 0,
        rank: int = 0,
        world_size: int = 1,
        reuse: int = REUSE,
        block: int | None = None,
    ) -> None:
        """Decode the corpus, and start the workers that warp, if the episodes have warped frames.

        Args:
            episodes: what to load.
            device: of the batches.
            batch_size: B of one rank.
            num_workers: processes that make warped frames; 0 makes them in the caller.
            start_episode, rank, world_size: as for loading.loader.
            reuse: episodes per warped frame; the paper's form has no warped frames.
            block: see Schedule.
        """
        self._episodes, self._device, self._batch_size = episodes, device, batch_size
        self._next, self._step = start_episode + rank, world_size
        self._queue: WarpQueue | None = None
        cell = int(max(episodes.store.side_of(clip) for clip in episodes.index)) ** 2
        has_stills = any(episodes.is_still(clip) for clip in episodes.index)
        self._has_scene = episodes.scene == "auto"
        self._cell = cell * (1 + 2 * self._has_scene + has_stills)  # pixels of a warped frame; see Warp
        if episodes.window_px is None:
            reuse = 1
        if block is None:  # no mixing of frames that are used once
            block = BLOCK if reuse > 1 else -(-2 * batch_size * world_size // 64) * 64
        self._schedule = Schedule(seed=episodes.seed, reuse=reuse, start=self._next, step=world_size, block=block)
        num_slots = 2 * self._schedule.capacity if episodes.window_px is not None else 0
        self.corpus = DeviceCorpus(episodes, device, num_slots * self._cell)
        self._planes = torch.empty(num_slots * GRID * GRID, NUM_GEOMETRY, dtype=torch.float16, device=device)
        self._crops = np.zeros((num_slots, 3))
        self._points = np.zeros((num_slots, faces.NUM_POINTS, 3), np.float32)
        self._slots: dict[int, int] = {}  # slots of the available warped frames, by number
        self._newest = -1, 0  # block of the newest frame, and number of available frames of this block
        if num_slots:
            self._queue = WarpQueue(episodes, self._schedule, num_workers)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            numbers = self._next + self._step * np.arange(self._batch_size)
            yield self._batch(numbers)
            self._next += self._step * self._batch_size

    # Warped frames.

    def _take(self, warp: Warp) -> None:
        """Store a warped frame in a slot of the block before the previous one."""
        block, count = warp.number // self._schedule.block, 0
        if block == self._newest[0]:
            count = self._newest[1]
        else:
            self._slots = {n: slot for n, slot in self._slots.items() if n // self._schedule.block == block - 1}
        slot = block % 2 * self._schedule.capacity + count
        self._newest = block, count + 1
        start = self.corpus.room + slot * self._cell
        self.corpus.memory[start : start + len(warp.pixels)] = to_device(warp.pixels.numpy(), self._device)
        cells = len(warp.planes)
        self._planes[slot * cells : (slot + 1) * cells] = to_device(warp.planes.numpy(), self._device)
        self._crops[slot], self._points[slot] = warp.crop.numpy(), warp.points.numpy()
        self._slots[warp.number] = slot

    def _slots_of(self, numbers: NDArray[np.int64], sources: NDArray[np.int64]) -> NDArray[np.int64]:
        """[N] slots of the warped frames of episodes; waits for missing ones and prefetches some of the next block."""
        assert self._queue is not None
        while not self._slots.keys() >= set(sources.tolist()):
            self._take(self._queue.take())
        # The frames of the next block are fetched at an even rate during the later rounds of this block.
        following = self._schedule.block_of(int(numbers[0])) + 1
        if self._schedule.block_of(int(numbers[-1])) < following:
            wanted = self._schedule.progress(int(numbers[-1])) * self._schedule.capacity
            while True:
                there = self._newest[1] if self._newest[0] == following else 0
                if there >= wanted or self._queue.peek().number // self._schedule.block != following:
                    break
                self._take(self._queue.take())
        return np.array([self._slots[number] for number in sources.tolist()])

    # Batches.

    def _batch(self, numbers: NDArray[np.int64]) -> Batch:
        episodes, corpus = self._episodes, self.corpus
        sources = self._schedule.sources(numbers)
        slots = self._slots_of(numbers, sources) if self._queue is not None else None
        chosen, draws = episodes.choose_all(sources), episodes.draw_all(numbers)
        sides = corpus.sides[chosen.clips]
        starts = corpus.starts[chosen.clips, None] + chosen.frames * sides[:, None] ** 2
        points = corpus.points[corpus.first[chosen.clips, None] + chosen.frames]  # [B, 1 + K, 478, 3]
        if slots is not None:
            made = np.array([episodes.is_still(episodes.index[clip]) for clip in chosen.clips])
            before = (1 + 2 * self._has_scene) * sides**2
            starts[made, 1:] = (corpus.room + slots * self._cell + before)[made, None]
            points[made, 1:] = self._points[slots[made], None]
        change = (episodes.augment or Augmentation(strength=0)).draw(draws.change, sides)
        pictures = _Pictures(corpus.memory, change, starts, sides, self._device)
        batch = self._pictures(pictures, change.points(points, sides), draws, slots)
        columns = {
            "clip": chosen.clips,
            "person": episodes.people[chosen.clips],
            "frame": chosen.frames[:, 0],
            "frames_s": chosen.frames[:, 1:],
            "episode": numbers,
            "skipped": chosen.skipped,
        }
        return cast(Batch, {**batch, **{name: to_device(column, self._device) for name, column in columns.items()}})

    def _pictures(self, pictures: _Pictures, points: Array, draws: Draws, slots: NDArray[np.int64] | None) -> Batch:
        """The images, masks and points of a batch; points: [B, 1 + K, 478, 3] in the augmented frames."""
        episodes, device, px = self._episodes, self._device, self._episodes.window_px
        count, num_frames = points.shape[:2]
        windows = np.concatenate([np.zeros((count, num_frames, 2)), pictures.sides[..., None]], -1)
        if px is not None:
            windows = squares_around(points, WINDOW_SCALE)
            if episodes.augment is not None:
                windows = shifted_squares(windows, draws.window)
        wide = 2 * px if px is not None else int(pictures.sides[0, 0])
        side = wide // 2 if px is not None else wide
        flat = points.reshape(count, num_frames, -1)
        placed = np.asarray(flat / windows[..., 2:], np.float32).reshape(points.shape)
        for axis in (0, 1):  # in units of the window, 0..1
            placed[..., axis] -= (windows[..., axis] / windows[..., 2]).astype(np.float32)[..., None]
        target = np.ascontiguousarray(placed[:, 0] * np.float32(wide))
        frames = pictures.read(windows, wide)  # [B, 1 + K, 3, P, P]
        flat = np.asarray(placed * np.float32(side)).reshape(-1, faces.NUM_POINTS, 3)
        drawn = pixels.landmark_images(flat, side, episodes.style, device).view(count, num_frames, 3, side, side)
        x_s = frames[:, 1:]
        if px is not None:
            small = F.avg_pool2d(x_s.flatten(0, 1).float(), 2).round().byte()
            x_s = small.view(count, num_frames - 1, 3, px, px)
        batch: Batch = {
            "x": frames[:, 0],
            "y": drawn[:, 0],
            "x_s": x_s,
            "y_s": drawn[:, 1:],
            "points": to_device(placed[:, 0] * np.float32(side), device),
            "points_s": to_device(placed[:, 1:] * np.float32(side), device),
            "regions": pixels.feature_masks(target, wide, device),
            "chip": to_device(chip_transform(target), device),
            "face": to_device(faces.landmarker_view(target), device),
        }
        if slots is not None and px is not None:
            start, pixels_each = self.corpus.room + slots * self._cell, pictures.sides[:, 0] ** 2
            batch["warped"] = pictures.read(windows[:, :1], wide, start)[:, 0]
            if self._has_scene:
                matte = pictures.read(windows[:, :1], wide, start + pixels_each, recolors=False)
                batch["matte"] = matte[:, 0, :1]
                batch["plate"] = pictures.read(windows[:, :1], wide, start + 2 * pixels_each)[:, 0]
            batch["interior"] = pixels.mouth_interiors(target, wide, device)
            batch["geometry"] = pictures.geometry(self._planes, slots, self._crops[slots], windows[:, 0], px // 2)
            batch["view"] = to_device(views_of(placed[:, 0], px, draws.view), device)
        return batch


class _Pictures:
    """Reads the windows of a batch's frames, with augmentation."""

    def __init__(
        self, memory: Tensor, change: Change, starts: NDArray[np.int64], sides: NDArray[np.int64], device: torch.device
    ) -> None:
        self._memory, self._change, self._starts, self._device = memory, change, starts, device
        self.sides = np.repeat(sides[:, None], starts.shape[1], 1)  # [B, 1 + K] sides of the frames in pixels
        self._to_frames = change.to_frames(sides)  # [B, 2, 3]

    def read(
        self,
        windows: NDArray[np.float64],
        px: int,
        starts: NDArray[np.int64] | None = None,
        *,
        recolors: bool = True,
    ) -> Tensor:
        """uint8 [B, N, 3, px, px] pixels of windows [B, N, 3]; starts: [B] of other pictures than the batch's."""
        count, num_frames = windows.shape[:2]
        begin = self._starts if starts is None else starts[:, None]
        sides = to_device(self.sides[:, :num_frames].reshape(-1).astype(np.float32), self._device)
        to_frames = to_device(np.repeat(self._to_frames, num_frames, 0), self._device)
        places = pixels.window_places(to_device(windows.reshape(-1, 3), self._device), to_frames, px, sides)
        seen = pixels.read_linearly(
            self._memory, to_device(begin.reshape(-1), self._device), sides, places, mirrored=True
        )
        if not recolors:
            return seen.round().byte().permute(0, 3, 1, 2).reshape(count, num_frames, 3, px, px)
        change = self._change
        color, curve = (to_device(np.repeat(a, num_frames, 0), self._device) for a in (change.color, change.curve))
        return pixels.recolored(seen, color, curve).view(count, num_frames, 3, px, px)

    def geometry(
        self,
        planes: Tensor,
        slots: NDArray[np.int64],
        crops: NDArray[np.float64],
        windows: NDArray[np.float64],
        cells: int,
    ) -> Tensor:
        """float32 [B, NUM_GEOMETRY, cells, cells] flow maps from Flow.planes, equal to Flow.maps of augmented frames.

        Args:
            planes: [slots * GRID * GRID, NUM_GEOMETRY]; slots: [B] of the episodes.
            crops, windows: [B, 3] squares of the planes, and of the result.
            cells: per side of the result.
        """
        to_cells = self._to_frames.copy()  # augmented frame -> cells of the crop
        to_cells[..., 2] -= crops[:, :2]
        to_cells *= GRID / crops[:, 2, None, None]
        places = pixels.window_places(to_device(windows, self._device), to_device(to_cells, self._device), cells)
        sides = torch.full((len(slots),), float(GRID), device=self._device)
        values = pixels.read_linearly(planes, to_device(slots * GRID * GRID, self._device), sides, places)
        turn = np.linalg.inv(self._to_frames[..., :2]) * (crops[:, 2] / windows[:, 2])[:, None, None]
        offset = torch.einsum("nhwc,ndc->ndhw", values[..., :2], to_device(turn, self._device))
        return torch.cat([offset, values[..., 2:].permute(0, 3, 1, 2)], 1)
