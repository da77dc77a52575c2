"""What preparation takes and gives: settings, kept clips, and reasons for what is left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mimik import config as settings
from mimik.config import InputError

PEOPLE = ("folder", "manifest", "cluster", "clip")
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".wmv", ".flv", ".3gp", ".ogv"),
)


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What decides the content of shards; every message names the option that it is about."""

    size: int = 256  # pixels, width and height of a clip
    fps: float = 12.5  # at most; a video that has fewer keeps its own. docs/scaling.md tells why not 25
    min_seconds: float = 1.0  # 12 frames: K = 8 and a target
    max_seconds: float = 10.0  # longer tracks are cut into pieces
    min_face_px: int = 48  # median width of the face in the source
    context: float = 2.0  # side of the crop in heights of the face, from the middle of the forehead to the chin
    min_sharpness: float = 0.006  # see _sharpness; a clip in bad light measured 0.007, a blurred one 0.003
    crf: int = 20  # x264's constant rate factor: 40 dB
    gop: int = 12  # every so many frames one that can be decoded alone
    shard_mb: int = 64

    def __post_init__(self) -> None:
        number = settings.check_number
        number("--size", self.size, 64, 512, "pixels")
        if self.size % 16:
            raise InputError(f"--size {self.size}: give a multiple of 16, such as 128, 256 or 512.")
        number("--fps", self.fps, 1, 60, "frames a second")
        number("--min-seconds", self.min_seconds, 0.2, 60, "shortest clip")
        number("--max-seconds", self.max_seconds, self.min_seconds, 60, "longest clip, not below --min-seconds")
        number("--min-face-px", self.min_face_px, 24, 2048, "width of the face in the source")
        number("--context", self.context, 1.4, 4, "side of the crop in heights of the face")
        number("--min-sharpness", self.min_sharpness, 0, 10, "0 keeps all")
        number("--crf", self.crf, 1, 40, "smaller is better and larger")
        number("--gop", self.gop, 1, 250, "frames")
        number("--shard-mb", self.shard_mb, 1, 4096, "megabytes")


class Reason(StrEnum):
    """Why a track or a whole video is not kept; the text goes to rejected.jsonl."""

    NO_FACE = "no-face"
    TOO_SMALL = "too-small"
    TOO_SHORT = "too-short"
    BLURRED = "blurred"
    OVERLAPPING = "overlapping-faces"
    STILL = "still-image"
    TURNED_AWAY = "face-turned-away"
    OUT_OF_FRAME = "out-of-frame"
    MOVES = "moves-too-much"
    DUPLICATE = "duplicate"
    UNREADABLE = "unreadable-video"
    WORKER_DIED = "worker-died"
    TIMED_OUT = "timed-out"
    ERROR = "unexpected-error"


@dataclass(frozen=True)
class Clip:
    """One kept piece of one track: the fields of its index line that the video alone decides, and its files."""

    info: dict[str, Any]
    mp4: bytes = field(repr=False)
    npz: bytes = field(repr=False)


@dataclass(frozen=True)
class Rejection:
    """One track, or with start_s None a whole video, that is not kept."""

    reason: Reason
    detail: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class VideoResult:
    """What became of one video; clips is empty where they were handed to on_clip."""

    clips: tuple[Clip, ...]
    rejections: tuple[Rejection, ...]
    sha256: str | None = None
    footage_s: float = 0.0
    seconds: float = 0.0  # of one core that it took
