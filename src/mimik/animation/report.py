"""The report of one run."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, dataclass, field


@dataclass
class Report:
    """Result of one run, as written by `--json`."""

    out: str
    photo: str
    driver: str
    model: str
    width: int = 0
    height: int = 0
    fps: float = 0.0
    scene: str = ""  # plate: still background behind the head; warp: the background near the head moves with it
    num_frames: int = 0
    num_lost: int = 0  # frames of the driver without a face: the person eased to neutral there
    has_audio: bool = False
    seconds: float = 0.0
    ms_per_frame: dict[str, float] = field(default_factory=dict)  # busy time of each stage; they overlap
    peak_memory_mb: float = 0.0  # of the whole process so far
    notes: list[str] = field(default_factory=list)

    @property
    def frames_per_second(self) -> float:
        """Frames per second of the whole run; 0 before it has ended."""
        return self.num_frames / self.seconds if self.seconds else 0.0

    def to_json(self) -> str:
        """All fields and frames_per_second, as --json writes them."""
        return json.dumps(asdict(self) | {"frames_per_second": round(self.frames_per_second, 2)}, indent=2)


def peak_memory_mb() -> float:
    """Peak memory of the process, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024
