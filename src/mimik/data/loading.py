"""Batches of episodes, prefetched by worker processes."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from mimik.data.episodes import Batch, Episodes


def _start_worker(_: int) -> None:
    """Initialize a worker: single-threaded, because there are many, and stopped by its parent instead of SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def loader(
    episodes: Episodes,
    *,
    batch_size: int,
    num_workers: int,
    start_episode: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Endless batches of episodes start + rank, start + rank + world_size, .., prefetched by workers.

    One sequence covers all epochs, so that no rank waits at their ends and every clip is used equally often. The state
    is one number, the episodes that all ranks together have finished: start_episode + world_size * batch_size *
    (batches of each rank). Any number of ranks can resume from it.

    Args:
        episodes: what to load.
        batch_size: B of one rank.
        num_workers: loading processes; 0 loads in the caller.
        start_episode: number of episodes that all ranks together have finished.
        rank, world_size: of this process.
        pin_memory: whether batches are in page-locked memory, which a GPU reads directly.
    """
    numbers = range(start_episode + rank, sys.maxsize, world_size)
    return loader_of(episodes, numbers, batch_size=batch_size, num_workers=num_workers, pin_memory=pin_memory)


def loader_of(
    data: Dataset[Any],
    sampler: Iterable[int],
    *,
    batch_size: int,
    num_workers: int,
    pin_memory: bool = False,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """A DataLoader with single-threaded workers; arguments as for DataLoader and loader."""
    context: Any = None
    if num_workers:
        # Not fork: the caller has threads of torch, opencv and CUDA, whose locks would stay locked in a forked process.
        # A fork server has no such threads and, unlike spawn, imports torch once instead of in every worker.
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
        prefetch_factor=4 if num_workers else None,
        multiprocessing_context=context,
        collate_fn=collate_fn,
    )
