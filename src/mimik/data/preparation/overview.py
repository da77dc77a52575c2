"""Overview of a folder of shards: a contact sheet and a dataset card."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mimik.config import VERSION, counted
from mimik.data.preparation.settings import PrepareConfig
from mimik.data.tracks import unpack_tracks
from mimik.face.landmark_images import landmark_image
from mimik.face.landmarks import Image
from mimik.files import asset
from mimik.media import video


@dataclass
class PrepareReport:
    """Content of the folder of shards, and statistics of this run."""

    out: str
    num_videos: int = 0  # in the folder, of this run and earlier ones
    num_new: int = 0  # by this run
    num_clips: int = 0
    num_stills: int = 0  # clips of one frame
    num_frames: int = 0
    num_people: int = 0
    num_shards: int = 0
    num_bytes: int = 0  # of the shards
    footage_hours: float = 0.0
    kept_hours: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)  # rejections by Reason, the most frequent first
    people: str = ""  # one of PEOPLE
    seconds: float = 0.0  # of this run
    worker_seconds: float = 0.0  # processor time for the videos, of all runs
    num_workers: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def videos_per_core_hour(self) -> float:
        return 3600 * self.num_videos / self.worker_seconds if self.worker_seconds else 0.0

    @property
    def footage_per_core(self) -> float:
        """Hours of video per hour of one core."""
        return 3600 * self.footage_hours / self.worker_seconds if self.worker_seconds else 0.0

    def to_json(self) -> str:
        """The report as JSON text."""
        rates = {
            "videos_per_core_hour": round(self.videos_per_core_hour, 1),
            "footage_per_core": round(self.footage_per_core, 3),
        }
        return json.dumps({**asdict(self), **rates}, indent=2)

    def kept(self) -> str:
        """Summary of the kept clips, in words."""
        stills = f"; {self.num_stills} are stills" if self.num_stills else ""
        return f"{self.num_clips} ({self.kept_hours:.2f} h, {counted(self.num_frames, 'frame')}{stills})"

    def table(self) -> str:
        """Counts of kept clips and of rejections by reason, as lines of text."""
        rows: list[tuple[str, str]] = [
            ("videos, pictures", f"{self.num_videos} ({self.footage_hours:.2f} h)"),
            ("clips kept", self.kept()),
            ("people", str(self.num_people)),
            ("shards", f"{self.num_shards} ({self.num_bytes / 1e6:.1f} MB)"),
            *((reason, str(count)) for reason, count in self.reasons.items()),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


_SHEET_CLIPS, _SHEET_COLUMNS, _SHEET_PX, _SHEET_TEXT_PX = 240, 15, 128, 30
_FRONTAL_FRAMES = 3


def _frames_of(folder: Path, entry: Mapping[str, Any], wanted: Callable[[Any], Sequence[int]]) -> tuple[Any, ...]:
    """Some frames of a clip and their points; wanted selects the frame numbers, in order, from the clip's tracks."""
    with (folder / entry["shard"]).open("rb") as file:

        def member(name: str) -> bytes:
            offset, size = entry["members"][name]
            file.seek(offset)
            return file.read(size)

        tracks, mp4 = unpack_tracks(member("npz")), member("mp4")
    numbers = list(wanted(tracks))
    frames = video.read_clip(mp4, numbers)
    return frames, [tracks.points[i] for i in numbers]


def frontal_frames(folder: Path, entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """The most frontal frames of a clip, and their points."""

    def wanted(tracks: Any) -> list[int]:
        away = np.abs(tracks.pose[:, :2]).sum(1)
        return sorted(np.argsort(away, kind="stable")[:_FRONTAL_FRAMES].tolist())

    return _frames_of(folder, entry, wanted)


def contact_sheet(folder: Path, entries: Sequence[Mapping[str, Any]]) -> Image:
    """The middle frames of at most 240 evenly spaced clips, with landmarks, key and person.

    Returns: uint8 RGB [H, W, 3].
    """
    at = np.linspace(0, len(entries) - 1, min(len(entries), _SHEET_CLIPS)).round().astype(int)
    chosen = [entries[i] for i in at]
    columns = min(_SHEET_COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    height = _SHEET_PX + _SHEET_TEXT_PX
    sheet = np.full((max(rows * height, 64), max(columns * _SHEET_PX, 64), 3), 24, np.uint8)
    for i, entry in enumerate(chosen):
        (frame,), (points,) = _frames_of(folder, entry, lambda tracks: [len(tracks.points) // 2])
        lines = landmark_image(points, entry["size"], entry["size"])
        drawn = np.where(lines.any(2, keepdims=True), frame // 2 + lines // 2, frame)
        drawn = cv2.resize(drawn, (_SHEET_PX, _SHEET_PX), interpolation=cv2.INTER_AREA)
        y, x = i // columns * height, i % columns * _SHEET_PX
        sheet[y : y + _SHEET_PX, x : x + _SHEET_PX] = drawn
        for line, text in enumerate((entry["key"], str(entry["person"])[-18:])):
            place = x + 3, y + _SHEET_PX + 12 + 13 * line
            cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (220, 220, 220), 1, cv2.LINE_AA)
    return sheet


def dataset_card(report: PrepareReport, entries: Sequence[Mapping[str, Any]], config: PrepareConfig) -> str:
    """README.md of the folder: content, origin, method and intended use."""
    licenses = Counter(entry["licence"] or "not stated" for entry in entries)
    rejected = "\n".join(f"| {reason} | {count} |" for reason, count in report.reasons.items()) or "| none | 0 |"
    stated = "\n".join(f"| {name} | {count} |" for name, count in sorted(licenses.items())) or "| none | 0 |"
    options = "\n".join(f"| {one.name} | {getattr(config, one.name)} |" for one in fields(config))
    known = {
        "folder": "the first folder of each path",
        "manifest": "a manifest",
        "cluster": "clustering of face embeddings, which can confuse similar people; embeddings are not stored",
        "clip": "nothing: each clip counts as a separate person",
    }[report.people]
    values = {"version": VERSION, "report": report, "kept": report.kept(), "megabytes": report.num_bytes / 1e6}
    values |= {"people": known, "licenses": stated, "rejected": rejected, "settings": options}
    return asset("dataset_card.md").read_text(encoding="utf-8").format_map(values)
