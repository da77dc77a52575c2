"""Schedule of the warped frames that episodes need, and worker processes that prefetch them.

A warped frame depends only on clip, source and target. It is rendered by the code that animates, on the CPU, and is
used by several episodes with different augmentation, windows and views.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mimik.data.episodes import Episodes, random_stream, warped_to
from mimik.data.loading import loader_of

BLOCK = 512  # warped frames whose episodes are shuffled together
# consecutive frames that stay together, so that processes, if their number divides it, need disjoint shares
_GROUP = 64
_CHUNK = 4  # warped frames that a worker returns at once
_MIXING = 11  # purpose of random numbers; the others are in data.episodes


class Warp(NamedTuple):
    """A warped frame from a worker."""

    number: int  # its episode
    # uint8 [N * S * S, 3]: the warped frame; of scenes, then matte (thrice) and plate; of stills, then the source frame
    pixels: Tensor
    planes: Tensor  # float16 [GRID * GRID, NUM_GEOMETRY] of Flow.planes
    crop: Tensor  # float64 [3] left, top, side of the planes
    points: Tensor  # float32 [478, 3] of the source frame


class _Warps(Dataset[Warp]):
    """The warped frame of each episode, before augmentation."""

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes

    def __getitem__(self, number: int) -> Warp:
        chosen, images, points = self._episodes.read(number, 2)
        made = warped_to(images, points, self._episodes.scene)
        pixels = [made.image]
        if self._episodes.scene == "auto":
            pixels += [np.dstack([made.matte] * 3), made.plate]
        if self._episodes.is_still(self._episodes.index[int(chosen.clips[0])]):
            pixels.append(images[1])
        planes = made.flow.planes()
        planes = planes.reshape(-1, planes.shape[-1]).astype(np.float16)
        return Warp(
            number,
            torch.from_numpy(np.stack(pixels).reshape(-1, 3)),
            torch.from_numpy(planes),
            torch.tensor([made.crop.left, made.crop.top, made.crop.side], dtype=torch.float64),
            torch.from_numpy(points[1].copy()),
        )


class Schedule:
    """Assigns warped frames to episodes, and lists those that one process needs, in order.

    Episodes are shuffled in blocks: a block of BLOCK * reuse episodes uses each of BLOCK warped frames reuse times, in
    `reuse` rounds of different order. The schedule depends only on the episode's number and the seed.
    """

    def __init__(self, *, seed: int, reuse: int, start: int, step: int, block: int = BLOCK) -> None:
        """Args:
        seed: of the order.
        reuse: episodes per warped frame; 1: every episode has a separate one.
        start, step: the process has episodes start, start + step, ..
        block: warped frames per block, a multiple of 64.
        """
        assert block % _GROUP == 0
        self._seed, self._reuse, self._start, self._step, self.block = seed, reuse, start, step, block

    def sources(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """[N] numbers of the warped frames of episodes [N]."""
        rounds, place = np.divmod(numbers, self.block)
        group, rest = np.divmod(place, _GROUP)
        out = np.empty_like(numbers)
        for one in np.unique(rounds).tolist():
            block, turn = divmod(one, self._reuse)
            some = rounds == one
            mixed = group[some]
            if turn:
                mixed = random_stream(self._seed, _MIXING, block, turn).permutation(self.block // _GROUP)[mixed]
            out[some] = block * self.block + mixed * _GROUP + rest[some]
        return out

    def block_of(self, number: int) -> int:
        """The block of an episode."""
        return number // (self.block * self._reuse)

    def progress(self, number: int) -> float:
        """0..1 progress of a block after its first round, which is occupied with the block's own warped frames."""
        place = number % (self.block * self._reuse)
        return max(place - self.block, 0) / max(self.block * (self._reuse - 1), 1)

    def needed(self, block: int) -> NDArray[np.int64]:
        """The warped frames of a block that this process needs, in order of first use."""
        length = self.block * self._reuse
        first = self._start + max(-(-(block * length - self._start) // self._step), 0) * self._step
        sources = self.sources(np.arange(first, (block + 1) * length, self._step))
        return sources[np.sort(np.unique(sources, return_index=True)[1])]

    @property
    def capacity(self) -> int:
        """Maximum number of warped frames of a block that one process needs."""
        return self.block // self._step if _GROUP % self._step == 0 else self.block

    def __iter__(self) -> Iterator[int]:
        block = self.block_of(self._start)
        while True:
            yield from self.needed(block).tolist()
            block += 1


class WarpQueue:
    """Warped frames in the order of a schedule, prefetched by workers."""

    def __init__(self, episodes: Episodes, schedule: Schedule, num_workers: int) -> None:
        self._batches: Iterator[Any] = iter(
            loader_of(_Warps(episodes), schedule, batch_size=_CHUNK, num_workers=num_workers, collate_fn=list)
        )
        self._next: deque[Warp] = deque()

    def peek(self) -> Warp:
        """The next warped frame; waits for it."""
        if not self._next:
            self._next.extend(next(self._batches))
        return self._next[0]

    def take(self) -> Warp:
        """Remove and return the next warped frame."""
        self.peek()
        return self._next.popleft()
