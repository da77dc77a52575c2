"""Settings of one evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from mimik.config import DEVICE, InputError, Option, check_options
from mimik.inference.device import resolved_device


def _listed(kind: Callable[[str], Any], wrong: str) -> Callable[[str], tuple[Any, ...]]:
    """A parser of comma-separated values. Args: wrong: the error message, with a placeholder for the text."""

    def read(text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part.strip()) for part in text.split(",") if part.strip())
        except ValueError:
            raise InputError(wrong.format(text)) from None

    return read


def _written(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of one `mimik evaluate` run; every error message names its option."""

    models: Annotated[
        tuple[str, ...],
        Option(
            "Models to evaluate: geometry, texture, files of `mimik train` and `mimik learn`; for comparison, copy "
            "(the photo) and truth (the real frames). learn:MODEL is fine-tuned to the photos of each clip; "
            "scratch:MODEL is trained on them from random weights.",
            "LIST",
            read=_listed(str, ""),
            written=",".join,
        ),
    ] = ("geometry", "copy", "truth")
    shots: Annotated[  # T
        tuple[int, ...],
        Option(
            "Numbers of photos per person.",
            "LIST",
            read=_listed(int, "--shots {}: use integers separated by commas, such as 1,8,32."),
            written=_written,
        ),
    ] = (1, 8, 32)  # paper
    holdout: Annotated[int, Option("Hold-out frames of a clip to reconstruct.", "N")] = 32  # paper
    size: Annotated[int, Option("Width and height of the frames.", "PX")] = 256
    limit: Annotated[int | None, Option("Clips, evenly spaced; all if omitted.", "N")] = None
    pairs: Annotated[int | None, Option("Pairs of portrait and driver, evenly spaced; all if omitted.", "N")] = None
    device: Annotated[str, DEVICE] = "auto"
    seed: Annotated[int, Option("Random seed of the choice of frames.", "N")] = 0
    learn_seconds: Annotated[
        tuple[float, ...],
        Option(
            "Times at which learn:MODEL and scratch:MODEL are measured; training ends at the last one.",
            "LIST",
            read=_listed(float, "--learn-seconds {}: use seconds separated by commas, such as 0,30."),
            written=_written,
        ),
    ] = (0, 10, 30, 60)

    def __post_init__(self) -> None:
        if not self.models or len(set(self.models)) != len(self.models):
            raise InputError(f"--models {','.join(self.models)}: list one or more names, each once.")
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) != len(self.shots):
            raise InputError(f"--shots {','.join(map(str, self.shots))}: list numbers of photos, 1 or more, each once.")
        if self.holdout < 3:
            raise InputError(f"--holdout {self.holdout}: use 3 or more frames; correlations need them.")
        if not 64 <= self.size <= 2048:
            raise InputError(f"--size {self.size}: use 64 to 2048 pixels, at most the size of the clips.")
        for option, value in (("--limit", self.limit), ("--pairs", self.pairs)):
            if value is not None and value < 1:
                raise InputError(f"{option} {value}: use 1 or more, or omit it for all.")
        times = self.learn_seconds
        if not times or list(times) != sorted(set(times)) or times[0] < 0 or not 1 <= times[-1] <= 1e5:
            given = ",".join(f"{t:g}" for t in times)
            raise InputError(
                f"--learn-seconds {given}: use increasing seconds, the last 1 or more, such as 0,10,30,60."
            )
        check_options(self)
        if self.device == "cuda":
            resolved_device(self.device)
