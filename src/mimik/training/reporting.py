"""Reports of a training run: statistics, sample grids, progress lines; and stopping by signals."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from numpy.typing import NDArray

from mimik.data.episodes import Batch
from mimik.files import write_atomically
from mimik.networks.generators import Synthesis

STATS_NAME = "stats.jsonl"
_CELL_PX = 128  # minimum, so that the caption fits


def sample_grid(batch: Batch, out: Synthesis, caption: str) -> NDArray[np.uint8]:
    """Photo, landmarks, [warped photo,] result, [mask,] ground truth; a row per item: BGR [H, W, 3] with a caption."""
    columns = [batch["x_s"][:, 0], batch["y"], batch.get("warped"), out.image, out.mask, batch["x"]]
    if out.mask is not None:
        columns[4] = out.mask.expand(-1, 3, -1, -1) * 2 - 1
    size = out.image.shape[2:]
    fitted = [F.interpolate(c.float().clamp(-1, 1).cpu(), size) for c in columns if c is not None]
    shown = torch.stack(fitted, 1)  # [B, columns, 3, H, W]
    picture = shown.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)  # -> [B H, columns W, 3]
    bgr = ((picture + 1) * 127.5).round().to(torch.uint8).numpy()[..., ::-1]
    scale = max(1, -(-_CELL_PX // shown.shape[3]))
    bgr = cv2.resize(np.ascontiguousarray(bgr), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    strip = np.full((24, bgr.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, caption, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, bgr])


class RunLog:
    """Log files of a run, written by the first process: stats.jsonl, sample grids, TensorBoard events if installed."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._events: Any = None
        with suppress(ImportError):
            # Not EventFileWriter: its thread would print errors, such as of a full disk, instead of raising them.
            from tensorboard.summary.writer.record_writer import RecordWriter

            name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
            self._events = RecordWriter((run / name).open("wb"))
            self._event(file_version="brain.Event:2")

    def numbers(self, step: int, values: Mapping[str, float], prefix: str = "") -> None:
        """Appends a line to stats.jsonl, and a point to every TensorBoard curve."""
        values = {f"{prefix}{name}": value for name, value in values.items()}
        line = {"step": step, **{name: float(f"{value:.6g}") for name, value in values.items()}}
        with (self._run / STATS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self._point(step, tag=name, simple_value=value)
        if self._events is not None:
            self._events.flush()

    def grid(self, step: int, picture: NDArray[np.uint8]) -> None:
        """samples/000250.png, BGR."""
        path = self._run / "samples" / f"{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        encoded = cv2.imencode(".png", picture)[1].tobytes()
        write_atomically(path, encoded)
        if self._events is not None:
            from tensorboard.compat.proto.summary_pb2 import Summary

            height, width = picture.shape[:2]
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
            self._point(step, tag="samples", image=image)

    def _point(self, step: int, **value: Any) -> None:
        if self._events is not None:
            from tensorboard.compat.proto.summary_pb2 import Summary

            self._event(step=step, summary=Summary(value=[Summary.Value(**value)]))

    def _event(self, **what: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._events.write(Event(wall_time=time.time(), **what).SerializeToString())

    def close(self) -> None:
        if self._events is not None:
            with suppress(OSError):  # reported when it was flushed
                self._events.close()


class Meter:
    """Means since the previous log line."""

    def __init__(self) -> None:
        self.start, self.wait_s, self.images = time.monotonic(), 0.0, 0
        self._sums: dict[str, list[float]] = {}

    def add(self, stats: Mapping[str, float], images: int, wait_s: float) -> None:
        self.images += images
        self.wait_s += wait_s
        for name, value in stats.items():
            self._sums.setdefault(name, []).append(value)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.start

    def means(self) -> dict[str, float]:
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        return {**means, "images_per_s": self.images / self.elapsed_s, "wait": self.wait_s / self.elapsed_s}


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def progress_line(step: int, num_steps: int, means: Mapping[str, float], train: Any) -> str:
    """The log line of one interval."""
    rest = ("loss", "gradient", "images_per_s", "wait", "memory_gb")
    terms = " ".join(f"{n} {v:.3g}" for n, v in means.items() if n not in rest and not n.startswith("d_"))
    text = f"step {step}/{num_steps}  loss {means['loss']:.4g} = {terms}  gradient {means['gradient']:.2g}"
    if "d_loss" in means:
        text += f"  D {means['d_loss']:.3g} (real {means['d_real']:.2g}, fake {means['d_fake']:.2g})"
    speed = f"{means['images_per_s']:.1f} images/s, {100 * means['wait']:.0f} % waiting for data"
    return f"{text}  {speed}  {means['memory_gb']:.2f} GB  lr {train.lr_generator:g}, {train.lr_discriminator:g}"


class StopSignals:
    """SIGINT and SIGTERM end the run after the current step, a second signal immediately."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._before[number])
