"""Settings of one evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mimik.config import DEVICES, InputError


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of one `mimik evaluate` run; every message names the option that it is about."""

    models: tuple[str, ...] = ("geometry",)
    shots: tuple[int, ...] = (1, 8, 32)  # T; the paper's
    holdout: int = 32  # frames of a clip to make; the paper's
    size: int = 256  # px
    limit: int | None = None  # clips, evenly spaced in the index; None: all
    pairs: int | None = None  # of portrait and driver, evenly spaced; None: all
    seed: int = 0
    device: str = "auto"  # one of DEVICES: of the feature networks, and of what is learned for each clip
    learn_seconds: tuple[float, ...] = (0, 10, 30, 60)  # when that is measured; the last ends it

    def __post_init__(self) -> None:
        if not self.models or len(set(self.models)) != len(self.models):
            raise InputError(f"--models {','.join(self.models)}: give one name or more, each once.")
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) != len(self.shots):
            raise InputError(f"--shots {','.join(map(str, self.shots))}: give numbers of photos, 1 or more, each once.")
        if self.holdout < 3:
            raise InputError(f"--holdout {self.holdout}: give 3 frames or more; correlations need them.")
        if not 64 <= self.size <= 2048:
            raise InputError(f"--size {self.size}: give 64 to 2048 pixels, at most what the clips have.")
        for option, value in (("--limit", self.limit), ("--pairs", self.pairs)):
            if value is not None and value < 1:
                raise InputError(f"{option} {value}: give 1 or more, or leave it out for all.")
        times = self.learn_seconds
        if not times or list(times) != sorted(set(times)) or times[0] < 0 or not 1 <= times[-1] <= 1e5:
            given = ",".join(f"{t:g}" for t in times)
            raise InputError(f"--learn-seconds {given}: give rising seconds, 1 or more at the end, such as 0,10,30,60.")
        if self.device not in DEVICES:
            raise InputError(f"--device {self.device}: give one of {', '.join(DEVICES)}.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: torch finds no CUDA device here; give cpu, or leave it out.")
