"""Settings of preparation, kept clips, and reasons for rejections."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from mimik.config import InputError, Option, check_number, check_options
from mimik.media.formats import PHOTO_SUFFIXES

PEOPLE = ("folder", "manifest", "cluster", "clip")
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".wmv", ".flv", ".3gp", ".ogv"),
)
SOURCE_SUFFIXES = (*VIDEO_SUFFIXES, *PHOTO_SUFFIXES)


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Settings that determine the content of shards; every error message names its option."""

    size: Annotated[int, Option("Width and height of a clip.", "PX", range=(64, 512), hint="pixels")] = 256
    # Videos with a lower rate keep it. docs/scaling.md explains why not 25.
    fps: Annotated[float, Option("Frames per second, at most.", "X", range=(1, 60), hint="frames per second")] = 12.5
    min_seconds: Annotated[float, Option("Minimum length.", "S", range=(0.2, 60), hint="shortest clip")] = 1.0  # K = 8
    max_seconds: Annotated[float, Option("Maximum length; longer tracks are split.", "S")] = 10.0
    min_face_px: Annotated[
        int,
        Option(
            "Minimum face width, in pixels of the video.",
            "PX",
            range=(24, 2048),
            hint="width of the face in the source",
        ),
    ] = 48
    context: Annotated[
        float,
        Option(
            "Side of the crop in heights of the face, forehead to chin.",
            "X",
            range=(1.4, 4),
            hint="side of the crop in heights of the face",
        ),
    ] = 2.0
    min_sharpness: Annotated[  # 0.007 was measured for a clip in bad light, 0.003 for a blurred one
        float, Option("Minimum sharpness of a face; 0 keeps all.", "X", range=(0, 10), hint="0 keeps all")
    ] = 0.006
    crf: Annotated[
        int,
        Option("x264's constant rate factor of the clips.", "N", range=(1, 40), hint="smaller is better and larger"),
    ] = 20  # 40 dB
    gop: Annotated[int, Option("Interval of key frames.", "FRAMES", range=(1, 250), hint="frames")] = 12
    shard_mb: Annotated[int, Option("Size of a shard.", "MB", range=(1, 4096), hint="megabytes")] = 64

    def __post_init__(self) -> None:
        check_options(self)
        if self.size % 16:
            raise InputError(f"--size {self.size}: use a multiple of 16, such as 128, 256 or 512.")
        check_number("--max-seconds", self.max_seconds, self.min_seconds, 60, "longest clip, not below --min-seconds")


class Reason(StrEnum):
    """Reason for rejecting a track or a whole video; the text is written to rejected.jsonl."""

    NO_FACE = "no-face"
    TOO_SMALL = "too-small"
    TOO_SHORT = "too-short"
    BLURRED = "blurred"
    OVERLAPPING = "overlapping-faces"
    STILL = "still-image"  # of a video
    TURNED_AWAY = "face-turned-away"
    OUT_OF_FRAME = "out-of-frame"
    MOVES = "moves-too-much"
    DUPLICATE = "duplicate"
    UNREADABLE = "unreadable-video"  # or picture
    WORKER_DIED = "worker-died"
    TIMED_OUT = "timed-out"
    ERROR = "unexpected-error"


@dataclass(frozen=True)
class Clip:
    """One kept piece of one track: the fields of its index line that depend only on the video, and its files."""

    info: dict[str, Any]
    mp4: bytes = field(repr=False)
    npz: bytes = field(repr=False)


@dataclass(frozen=True)
class Rejection:
    """One rejected track or, with start_s None, a whole rejected video."""

    reason: Reason
    detail: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class VideoResult:
    """Result of one video or picture; clips is empty if they were passed to on_clip."""

    clips: tuple[Clip, ...]
    rejections: tuple[Rejection, ...]
    sha256: str | None = None
    footage_s: float = 0.0
    seconds: float = 0.0  # processor time
    unwritable: str | None = None  # why its clips cannot be stored; the video is not finished then
