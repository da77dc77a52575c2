"""Source and target frames of a clip under each protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimik.data.episodes import evaluation_episodes
from mimik.data.index import ClipInfo
from mimik.data.tracks import Tracks
from mimik.evaluation.settings import EvaluateConfig
from mimik.face.landmarks import Face
from mimik.motion.drivers.motion_file import MotionFile
from mimik.motion.extraction import stream_motion
from mimik.motion.files import Motion


@dataclass(frozen=True)
class Task:
    """One clip under one protocol."""

    protocol: str  # "T = 8" or FIRST
    clip: ClipInfo  # the clip to measure
    sources: tuple[int, ...]  # frame numbers; none is in both
    targets: tuple[int, ...]  # frame numbers; none is in both

    @property
    def in_order(self) -> bool:
        return self.protocol == FIRST


FIRST = "first frame"


def tasks(index: Sequence[ClipInfo], config: EvaluateConfig) -> list[Task]:
    """The tasks of all clips, clip by clip, so that hold-out frames are measured once for all numbers of photos.

    - "T = n": the paper's protocol: n photos, and disjoint hold-out frames; episodes.evaluation_episodes.
    - FIRST: the first frame is the photo; all others are synthesized, in order.

    Raises InputError if no clip is long enough for one of the numbers of shots.
    """
    found = [Task(FIRST, clip, (0,), tuple(range(1, clip.num_frames))) for clip in index if clip.num_frames > 3]
    for shots in config.shots:
        for episode in evaluation_episodes(index, shots, config.holdout, seed=config.seed):
            found.append(Task(f"T = {shots}", episode.info, episode.sources, episode.holdout))
    place = {clip.key: number for number, clip in enumerate(index)}
    return sorted(found, key=lambda task: place[task.clip.key])


CROSS = "cross-identity"


def middle_target(task: Task) -> int:
    """Index of the target that the report's grid shows."""
    return len(task.targets) // 2


def driver_of(clip: ClipInfo, tracks: Tracks) -> MotionFile:
    """A clip as the driver of an animation, from its stored landmarks."""
    found = [Face(p, b, 1.0) for p, b in zip(tracks.points, tracks.blendshapes, strict=True)]
    reference, motion_frames = stream_motion(found, clip.fps, smooth=0, lookahead_s=math.inf)
    motion = Motion.of_frames(clip.key, clip.fps, reference, motion_frames)
    return MotionFile(clip.key, Path(clip.source), motion)


def spaced(items: list[Any], limit: int | None) -> list[Any]:
    """At most `limit` items, evenly spaced."""
    if limit is None or limit >= len(items):
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]
