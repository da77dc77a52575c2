"""Selection of the input videos, and the person in each."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimik import config as settings
from mimik.arrays import Array
from mimik.config import InputError, counted
from mimik.data.preparation.settings import PEOPLE, VIDEO_SUFFIXES
from mimik.face.landmarks import Image


@dataclass(frozen=True)
class Source:
    """One video or picture of the inputs."""

    path: Path  # of the file
    name: str  # relative to its input folder, with slashes; it is in the index and determines the clips' keys
    person: str | None = None  # None: each clip is a separate person, or clustering assigns people later
    license: str | None = None  # as stated in the manifest

    @property
    def key(self) -> str:
        """The prefix of its clips' keys, [0-9a-f]{10}."""
        return hashlib.sha1(self.name.encode(), usedforsecurity=False).hexdigest()[:10]


def find_sources(
    inputs: Sequence[Path], *, skip: Path | None = None, suffixes: Sequence[str] = VIDEO_SUFFIXES
) -> list[Source]:
    """The videos among the inputs, in a stable order.

    Folders are searched recursively by suffix; files are accepted with any suffix.

    Args:
        inputs: files and folders.
        skip: a folder that is not searched, such as the output.
        suffixes: of the files in folders.

        Raises InputError if an input is missing, there is no video, or two have the same name in the index.
    """
    if not inputs:
        raise InputError("no video was given; use video files or folders of them.")
    found: dict[str, Source] = {}
    for given in inputs:
        if not given.exists():
            raise InputError(f"{given} does not exist; use video files or folders of them.")
        if given.is_dir():
            paths = sorted(
                path
                for path in given.rglob("*")
                if path.suffix.lower() in suffixes
                and not any(part.startswith(".") for part in path.relative_to(given).parts)
                and not (skip is not None and path.resolve().is_relative_to(skip.resolve()))
                and path.is_file()
            )
        else:
            paths = [given]
        for path in paths:
            name = path.relative_to(given).as_posix() if given.is_dir() else path.name
            other = found.get(name)
            if other is not None and not other.path.samefile(path):
                raise InputError(
                    f"{other.path} and {path} would both be {name!r} in the index; use the folder above both."
                )
            found.setdefault(name, Source(path, name))
    if not found:
        raise InputError(f"no video in {', '.join(map(str, inputs))}; use files ending in {', '.join(suffixes)}.")
    return list(found.values())


def read_manifest(path: Path) -> dict[str, tuple[str | None, str | None]]:
    """(person, license) by the clip's path, file name or stem.

    Args: path: CSV with a header; columns clip or path, and optionally person, license. Others are ignored.

    Raises InputError if it cannot be read or has no column clip or path.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"--manifest {path}: cannot be read ({why}); use a CSV file in UTF-8.") from error
    columns = set(rows[0]) if rows else set()
    name = next((column for column in ("path", "clip") if column in columns), None)
    if name is None:
        raise InputError(f"--manifest {path}: has no column 'clip' or 'path'; use these and person, license.")
    return {row[name]: (row.get("person") or None, row.get("licence") or row.get("license") or None) for row in rows}


def choose_people(
    sources: Sequence[Source], people: str | None, manifest: Path | None
) -> tuple[list[Source], str, str]:
    """Sources with their people, the method that assigned these (one of PEOPLE), and a sentence about it.

    Raises InputError if people is unknown or does not fit the inputs.
    """
    if people is not None:
        settings._choice("--people", people, PEOPLE)
    has_folders = all("/" in source.name for source in sources)
    if people == "manifest" and manifest is None:
        raise InputError("--people manifest: also pass --manifest CLIPS.csv.")
    if manifest is not None and people not in (None, "manifest"):
        raise InputError(f"--people {people}: cannot be combined with --manifest; omit one of them.")
    if manifest is not None:
        table = read_manifest(manifest)
        named, num_missing = [], 0
        for source in sources:
            names = (source.name, Path(source.name).name, Path(source.name).stem)
            row = next((table[name] for name in names if name in table), None)
            num_missing += row is None
            named.append(Source(source.path, source.name, *(row or (None, None))))
        said = f"people from {manifest.name}"
        if num_missing:
            said += f"; {counted(num_missing, 'video')} not in it: each of their clips counts as a separate person"
        return named, "manifest", said
    if people == "folder" or (people is None and has_folders and len({s.name.split("/")[0] for s in sources}) > 1):
        flat = next((source for source in sources if "/" not in source.name), None)
        if flat is not None:
            raise InputError(f"--people folder: {flat.path} is not in a folder of one person; use the folder above.")
        return (
            [Source(s.path, s.name, s.name.split("/")[0], s.license) for s in sources],
            "folder",
            "people from the first folder of each path; set --people to change this",
        )
    if people is None:
        if importlib.util.find_spec("torch") is not None:
            return list(sources), "cluster", "people by clustering of faces; set --people to change this"
        return list(sources), "clip", "each clip counts as a separate person, as torch is not installed; see --people"
    said = "people by clustering of faces" if people == "cluster" else "each clip counts as a separate person"
    return list(sources), people, said


def cluster_people(embeddings: Array, threshold: float = 0.45) -> list[int]:
    """Cluster embeddings by person: Chinese whispers (Biemann 2006) on the graph of nearby embeddings.

    Distances are computed in blocks; only near pairs are kept. The result is deterministic: nodes are visited in order,
    ties go to the smaller number.

    Args:
        embeddings: [N, D]; dlib's [128] embeddings of one person differ by less than 0.6.
        threshold: Euclidean distance below which two are linked; nearer ones more strongly. On 213 clips of 119 people,
            88 % of the joined pairs were correct at 0.45 and 57 % at 0.5.

    Returns:
        A number per embedding; people are numbered from 0 in the order of their first embedding.
    """
    num = len(embeddings)
    x = np.asarray(embeddings, np.float32)
    square = (x * x).sum(1)
    neighbors: list[NDArray[np.int64]] = []
    weights: list[Array] = []
    for begin in range(0, num, 1024):
        block = x[begin : begin + 1024]
        distance = np.sqrt(np.clip(square[begin : begin + 1024, None] + square - 2 * block @ x.T, 0, None))
        for i, row in enumerate(distance, start=begin):
            near = np.flatnonzero(row < threshold)
            near = near[near != i]
            neighbors.append(near)
            weights.append(1 - row[near] / threshold)
    labels = np.arange(num)
    for _ in range(50):
        changed = False
        for i in range(num):
            if not len(neighbors[i]):
                continue
            found, where = np.unique(labels[neighbors[i]], return_inverse=True)
            best = found[np.argmax(np.bincount(where, weights[i]))]
            changed = changed or best != labels[i]
            labels[i] = best
        if not changed:
            break
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(label), len(numbers)) for label in labels]


Embed = Callable[[Sequence[Image], Sequence[Array]], Array]
