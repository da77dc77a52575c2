"""Source images of the person: photos, or the most neutral frame of a video."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import PIL.Image
from numpy.typing import NDArray

from mimik.config import NoFaceError
from mimik.face.landmarks import Face, Image, Landmarker, choose_face
from mimik.face.orientation import confidence_note, find_faces, num_quarter_turns, upright
from mimik.face.parted_lips import with_detected_gap
from mimik.face.tracker import Tracker
from mimik.inference.avatar_file import most_neutral_face
from mimik.media import video
from mimik.media.pictures import in_memory
from mimik.motion.kinds import check_person
from mimik.provenance.manifests import Ingredient
from mimik.rendering.layers.own_teeth import best_teeth
from mimik.rendering.layers.teeth import TeethSet

PhotoLike = str | PathLike[str] | PIL.Image.Image | NDArray[Any]  # a file, or a picture in memory
IN_MEMORY = "picture in memory"


@dataclass(frozen=True)
class SourceImage:
    """A picture of the person: a photo, or a frame of a video."""

    path: Path | None  # the file; None for a picture in memory
    picture: Image
    face: Face  # in the picture
    note: str | None = None  # for the user
    is_video: bool = False  # whether the file is a video, and the picture one of its frames
    teeth: TeethSet | None = None  # from other frames of the video

    @property
    def name(self) -> str:
        """For messages and the manifest."""
        return IN_MEMORY if self.path is None else self.path.name

    def ingredient(self) -> Ingredient:
        """The manifest's entry for the file, or for the pixels of a picture in memory."""
        if self.path is None:
            return Ingredient.from_pixels("photo", self.name, self.picture)
        return Ingredient.from_file("photo", self.path)


def as_list(photos: PhotoLike | Sequence[PhotoLike]) -> list[Path | Image]:
    """One or several photos as a list of paths and pictures uint8 RGB [H, W, 3].

    Raises InputError if an item is neither a path nor a picture, or cannot show a person.
    """
    several = photos if isinstance(photos, list | tuple) else [photos]
    every = [Path(one) if isinstance(one, str | PathLike) else in_memory(one) for one in several]
    for one in every:
        if isinstance(one, Path):
            check_person(one)
    return every


def source_of_photo(photo: Path | Image, landmarker: Landmarker, number: int | None) -> SourceImage:
    """A photo of the person and the selected face. Raises InputError if it cannot be read or has no such face.

    Args: number: of the face, 1 is the widest; None: the widest, with a note if there are others.
    """
    path = photo if isinstance(photo, Path) else None
    name = path.name if path else IN_MEMORY
    picture = video.read_image(photo) if isinstance(photo, Path) else photo
    found = find_faces(landmarker, picture, thorough=(number or 1) > 1)
    chosen = choose_face(found, number, name, picture.shape[1::-1])
    picture, chosen, turned = upright(picture, chosen, name)
    several = None
    if len(found) > 1 and number is None:
        several = f"{name} shows {len(found)} faces; the widest is animated; select another with --face N"
    notes = [note for note in (several, turned, confidence_note(chosen, name)) if note]
    return SourceImage(path, picture, with_detected_gap(picture, chosen), "; ".join(notes) or None)


def source_of_video(path: Path, landmarker: Landmarker, number: int | None) -> SourceImage:
    """The most neutral frame in the first seconds of a video."""
    tracker = Tracker(landmarker, number)
    info = video.probe(path)
    seen: list[tuple[Image, Face]] = []
    with closing(video.read_frames(path, fps=min(info.fps, 5.0))) as frames:
        for frame in itertools.islice(frames, 60):
            if not seen:
                _check_upright(frame, landmarker, path.name)
            face = tracker.track(frame)
            if face is not None:
                seen.append((frame, face))
    if not seen:
        raise NoFaceError(
            f"no face found in the first seconds of {path.name}; use a video that shows the face from the start."
        )
    frame, face = seen[most_neutral_face([face for _, face in seen])]
    teeth = best_teeth([(picture, found.points) for picture, found in seen])
    return SourceImage(path, frame, face, is_video=True, teeth=teeth)


def _check_upright(frame: Image, landmarker: Landmarker, name: str) -> None:
    """Raises NoFaceError for a video whose face is upside down or sideways."""
    found = find_faces(landmarker, frame)
    if found and num_quarter_turns(found[0]):
        how = "on its head" if num_quarter_turns(found[0]) == 2 else "on its side"
        raise NoFaceError(f"the face in {name} is {how}; rotate the video upright first, or use a photo of the person.")
