"""Episodes in batches, made ahead of time by worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mimik.config import InputError
from mimik.data.episodes import Batch, Episodes


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
    sampler = EpisodeSampler(start_episode=start_episode, num_episodes=num_episodes, rank=rank, world_size=world_size)
    return loader_of(
        episodes,
        sampler,
        batch_size=batch_size,
        num_workers=num_workers,
        prefetch=prefetch,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
    )


def loader_of(
    data: Dataset[Any],
    sampler: Sampler[int],
    *,
    batch_size: int,
    num_workers: int,
    prefetch: int,
    pin_memory: bool = False,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """A DataLoader whose workers know that each is one of many; arguments as its own, and as of loader."""
    context: Any = None
    if num_workers:
        # Not fork: the caller has threads of torch, opencv and CUDA, and what they held is locked for ever in a copy.
        # A fork server has none of them, and unlike spawn loads torch once and not in every worker.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__])
    return DataLoader(
        data,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        drop_last=True,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker if num_workers else None,
        persistent_workers=num_workers > 0,
        prefetch_factor=prefetch if num_workers else None,
        multiprocessing_context=context,
        collate_fn=collate_fn,
    )
