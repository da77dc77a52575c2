"""Distributed training: ranks, means over processes, and sharded tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from mimik.config import InputError
from mimik.inference.device import resolved_device


@dataclass(frozen=True)
class World:
    """The processes of a run, and the rank of this one."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def local_size(self) -> int:
        """Processes on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.size))

    def mean(self, values: Tensor) -> Tensor:
        """Mean over processes, in every process."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    @property
    def is_first_on_machine(self) -> bool:
        """Whether this is the first process on its machine."""
        return self.size == 1 or int(os.environ.get("LOCAL_RANK", self.rank)) == 0

    def shared(self, value: Any, source: int = 0) -> Any:
        """The value of the first process, or of source."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, source, device=self.device)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        boxes = [None] * self.size
        dist.all_gather_object(boxes, value)
        return boxes


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """Joins the processes that torchrun started; a single process without it."""
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    device = resolved_device(device)
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise InputError(f"process {local} of this machine has no GPU; start {torch.cuda.device_count()} or fewer.")
        torch.cuda.set_device(local)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TF32
    joins = size > 1 and not dist.is_initialized()
    if joins:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        rank = dist.get_rank() if size > 1 else 0
        yield World(rank, size, torch.device(device, local) if device == "cuda" else torch.device(device))
    finally:
        if joins:
            dist.destroy_process_group()


def whole_on_cpu(values: Any) -> Any:
    """A state_dict with unsharded tensors on the CPU; a collective call."""
    if isinstance(values, dict):
        return {key: whole_on_cpu(value) for key, value in values.items()}
    if isinstance(values, DTensor):
        values = values.full_tensor()
    return values.cpu() if isinstance(values, Tensor) else values


def sharded_like(value: Tensor, like: Tensor) -> Tensor:
    """An unsharded tensor, sharded like another one."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
