"""Photos of one person: read from pictures, folders and videos, with the face in each."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mimik.config import InputError, NoFaceError, counted
from mimik.face.landmarks import Face, Image, Landmarker, choose_face
from mimik.face.orientation import confidence_note, find_faces, upright
from mimik.inference.avatar_file import SourceFile
from mimik.media import video
from mimik.pipeline import Progress, silent
from mimik.rendering.crop import Crop
from mimik.rendering.layers.canvas import Canvas
from mimik.training.arguments import MAX_SHOTS, files_in

_FRAMES_PX = 1280  # longest side of a video's frames
_FINISH_S = 6.0  # 5 s of processor time with a photo of 24 megapixels
_FRAMES_PER_S = 5.0  # assumed frame rate of a video of unknown length


@dataclass(frozen=True)
class Deadline:
    """Time limit of a run."""

    at_s: float = math.inf  # by time.monotonic

    @classmethod
    def after(cls, seconds: float | None, began_s: float) -> Deadline:
        """Args: seconds: time limit, None without limit; began_s: start by time.monotonic."""
        return cls() if seconds is None else cls(began_s + seconds)

    @property
    def left_s(self) -> float:
        return self.at_s - time.monotonic()

    @property
    def is_over(self) -> bool:
        return self.left_s <= 0

    @property
    def ends_preparation(self) -> bool:
        """Whether the rest is needed to load the networks, for two scores and a step, and to write the file."""
        return self.left_s <= _FINISH_S


@dataclass(frozen=True)
class Photo:
    """One photo of the person."""

    picture: Image  # uint8 RGB [H, W, 3]
    face: Face  # in the picture
    source: int  # index of its file

    def part(self, square: Crop) -> Photo:
        """What a square shows of the photo."""
        canvas = Canvas.of(self.picture, square)
        points = self.face.points - np.array([canvas.left, canvas.top, 0], np.float32)
        picture = np.ascontiguousarray(canvas.part(self.picture))
        return Photo(picture, replace(self.face, points=points), self.source)


class PhotoSet(NamedTuple):
    """Photos of a person, their files, and notes for the user."""

    photos: list[Photo]
    sources: list[SourceFile]
    notes: list[str]


def read_photos(
    paths: Sequence[Path],
    landmarker: Landmarker,
    *,
    face: int | None = None,
    shots: int = 8,
    deadline: Deadline = Deadline(),
    progress: Progress = silent,
) -> PhotoSet:
    """Photos of a person, with their faces.

    Args:
        paths: pictures, folders of pictures, and videos.
        landmarker: finds the faces.
        face: which face, 1 is the widest; None is the widest.
        shots: frames of each video, evenly spaced.
        deadline: near it, no further file is read, with a note.
        progress: called with the stage, the files read and the total.

    Raises InputError if a file cannot be read or shows no face; in a folder it is skipped, with a note.
    """
    if not paths:
        raise InputError("no photo was given; pass at least one photo of the person.")
    photos: list[Photo] = []
    sources: list[SourceFile] = []
    notes: list[str] = []
    every = [(path, file) for path in paths for file in files_in(path)]
    for number, (path, file) in enumerate(every):
        progress("reading the photos", number, len(every))
        if photos and deadline.ends_preparation:
            notes.append(
                f"--max-seconds: the time ran out after {number} of {counted(len(every), 'file')}; no more were read"
            )
            break
        try:
            found = _faces_in(file, landmarker, face, shots, notes)
        except InputError as error:
            if not path.is_dir():
                raise
            notes.append(f"skipped: {error}")
            continue
        photos += [Photo(picture, one, len(sources)) for picture, one in found]
        sources.append(SourceFile.of(file))
    if not photos:
        raise InputError(f"{paths[0]}: none of its files shows a face; use photos of one person.")
    return PhotoSet(photos, sources, notes)


def _faces_in(
    path: Path, landmarker: Landmarker, number: int | None, shots: int, notes: list[str]
) -> list[tuple[Image, Face]]:
    if video.kind(path) == "video":
        return _shots_of_video(path, landmarker, number, shots)
    picture = video.read_image(path)
    found = find_faces(landmarker, picture, thorough=(number or 1) > 1)
    chosen = choose_face(found, number, path.name, picture.shape[1::-1])
    picture, chosen, turned = upright(picture, chosen, path.name)
    notes += [note for note in (turned, confidence_note(chosen, path.name)) if note]
    if len(found) > 1 and number is None:
        notes.append(f"{path.name} shows {len(found)} faces; the widest is used; select another with --face N")
    return [(picture, chosen)]


def _shots_of_video(path: Path, landmarker: Landmarker, number: int | None, shots: int) -> list[tuple[Image, Face]]:
    """Frames of a video that show the face, evenly spaced."""
    info = video.probe(path)
    rate = 2 * shots / info.duration_s if info.duration_s else _FRAMES_PER_S
    found: list[tuple[Image, Face]] = []
    with closing(video.read_frames(path, fps=min(rate, info.fps), max_side=_FRAMES_PX)) as frames:
        for frame in itertools.islice(frames, MAX_SHOTS):
            faces = landmarker.detect(frame, thorough=(number or 1) > 1)
            if len(faces) >= (number or 1):
                found.append((frame, faces[(number or 1) - 1]))
    if not found:
        raise NoFaceError(f"no face found in {path.name}; use a video that shows one face from the front.")
    return [found[i] for i in np.linspace(0, len(found) - 1, min(shots, len(found))).round().astype(int)]
