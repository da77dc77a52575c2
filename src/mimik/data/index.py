"""The index of a folder of shards: one line per clip, with its byte ranges and origin."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimik.config import InputError
from mimik.data.remote import fetch_first, is_url

INDEX_NAME = "index.jsonl"
MEMBERS = ("mp4", "npz", "json")


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """One line of the index: a clip, the place of its bytes, and its origin."""

    key: str  # name of the clip, [a-z0-9_-]+, stable between runs
    shard: str  # name of its tar file, in the folder of the index
    members: Mapping[str, tuple[int, int]]  # (offset, bytes) of the data inside the tar, for "mp4", "npz" and "json"
    num_frames: int  # of the clip
    fps: float  # of the clip
    size: int  # width and height of its frames in pixels
    person: str  # name of the person, shared by all clips of this person
    source: str  # path of the video, relative to its input folder
    source_sha256: str  # of the video's bytes, hexadecimal
    licence: str | None  # of the video, or None
    start_s: float  # place in the video
    end_s: float  # place in the video
    box: tuple[float, float, float]  # left, top, side of the crop, in pixels of the video
    face_px: float  # median width of the face in the crop
    sharpness: float  # as `mimik prepare` measures it
    yaw_range: tuple[float, float]  # smallest and largest yaw of the head, in degrees
    fingerprint: str  # for duplicate detection, hexadecimal

    def to_json(self) -> str:
        """The line of the index, without a line end."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> ClipInfo:
        """Parses a line of the index and checks each field. Raises InputError, which names the field."""
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InputError(f"not JSON ({error})") from error
        if not isinstance(values, dict):
            raise InputError("not a JSON object")
        unknown, missing = sorted(values.keys() - _CHECKS.keys()), sorted(_CHECKS.keys() - values.keys())
        if unknown:
            raise InputError(f"unknown field {unknown[0]!r}")
        if missing:
            raise InputError(f"field {missing[0]!r} is missing")
        for name, (accepts, what) in _CHECKS.items():
            if not accepts(values[name]):
                raise InputError(f"field {name!r} is {str(values[name])[:60]!r}, not {what}")
        values["members"] = {name: (offset, size) for name, (offset, size) in values["members"].items()}
        values |= {"box": tuple(values["box"]), "yaw_range": tuple(values["yaw_range"])}
        return cls(**values)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(map(_is_number, value))


def _are_members(value: Any) -> bool:
    if not isinstance(value, dict) or sorted(value) != sorted(MEMBERS):
        return False
    return all(_are_numbers(at, 2) and all(map(_is_count, at)) for at in value.values())


def _matches(pattern: str) -> Any:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


# Check and description of each field of an index line; other fields are errors.
_CHECKS: dict[str, tuple[Any, str]] = {
    "key": (_matches(r"[a-z0-9_-]{1,90}"), "1 to 90 of a-z, 0-9, _ and -"),
    "shard": (_matches(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.tar"), "the name of a .tar file in the same folder"),
    "members": (_are_members, "offset and bytes of mp4, npz and json"),
    "num_frames": (lambda value: _is_count(value) and value > 0, "an integer above 0"),
    "fps": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "size": (lambda value: _is_count(value) and value > 0, "an integer, in pixels"),
    "person": (lambda value: isinstance(value, str) and value != "", "a name"),
    "source": (lambda value: isinstance(value, str), "a path"),
    "source_sha256": (_matches("[0-9a-f]{64}"), "64 hexadecimal digits"),
    "licence": (lambda value: value is None or isinstance(value, str), "text or null"),
    "start_s": (_is_number, "a number"),
    "end_s": (_is_number, "a number"),
    "box": (lambda value: _are_numbers(value, 3), "left, top and side"),
    "face_px": (_is_number, "a number"),
    "sharpness": (_is_number, "a number"),
    "yaw_range": (lambda value: _are_numbers(value, 2), "two numbers"),
    "fingerprint": (_matches("[0-9a-f]*"), "hexadecimal digits"),
}


def read_index(source: str | Path) -> list[ClipInfo]:
    """The clips of a folder of shards, in the order of its index.

    Args: source: the folder, its index.jsonl, or the http(s) or s3 URL of either.

    Raises InputError if there is no index, or a line is invalid; the message names the line.
    """
    folder, name = folder_of(source)
    where = f"{folder}/{name}"
    if is_url(folder):
        text = fetch_first(where).decode(errors="replace")
    else:
        check_index(source)
        text = Path(folder, name).read_text(encoding="utf-8", errors="replace")
    clips: dict[str, ClipInfo] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            clip = ClipInfo.from_json(line)
        except InputError as error:
            raise InputError(f"{where}, line {number}: {error}; run `mimik prepare` again to repair it.") from error
        if clip.key in clips:
            raise InputError(f"{where}, line {number}: key {clip.key!r} appears twice.")
        clips[clip.key] = clip
    if not clips:
        raise InputError(f"{where} lists no clips; see rejected.jsonl beside it for the reasons.")
    return list(clips.values())


def check_index(source: str | Path) -> None:
    """Raises InputError if a folder of shards on this machine has no index; a URL is not asked."""
    folder, name = folder_of(source)
    if not is_url(folder) and not Path(folder, name).is_file():
        raise InputError(f"{source}: contains no {name}; use the folder that `mimik prepare -o` wrote.")


def split_people(index: Sequence[ClipInfo], fraction: float, seed: int = 0) -> tuple[list[ClipInfo], list[ClipInfo]]:
    """Split clips by person into training and held-out clips; no person is in both.

    The split depends only on the names and the seed, so that few people change sides when the corpus grows.

    Args:
        index: all clips.
        fraction: of the people to hold out; at least one person is in each part.
        seed: selects other people.

    Returns training clips and held-out clips, each in the order of the index.

    Raises InputError if fraction is not between 0 and 1, or there are fewer than two people.
    """
    if not 0 < fraction < 1:
        raise InputError(f"held-out fraction {fraction}: use a number between 0 and 1 (0.1 holds out a tenth).")
    people = {clip.person for clip in index}
    if len(people) < 2:
        raise InputError(f"{len(people)} person in {len(index)} clips; splitting by person needs two or more.")
    by_chance = sorted(people, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    out = set(by_chance[: min(max(round(fraction * len(people)), 1), len(people) - 1)])
    return [c for c in index if c.person not in out], [c for c in index if c.person in out]


def folder_of(source: str | Path) -> tuple[str, str]:
    """Folder or URL of the shards, and the name of the index in it."""
    text = str(source)
    if text.endswith(".jsonl"):
        head, _, name = text.replace(os.sep, "/").rpartition("/")
        return head or ".", name
    return text.rstrip("/") or "/", INDEX_NAME
