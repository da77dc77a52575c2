"""Pictures of the person that is animated: photos, or the calmest frame of a video."""

from __future__ import annotations

import itertools
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mimik.config import NoFaceError
from mimik.face.landmarks import Face, Image, Landmarker, Tracker, choose_face
from mimik.inference.avatar_file import calmest
from mimik.media import video
from mimik.rendering.layers.own_teeth import best_teeth
from mimik.rendering.layers.teeth import TeethSet


@dataclass(frozen=True)
class SourceImage:
    """A picture of the person: a photo, or a frame of a video.

    Attributes:
        teeth: those that other frames of the video show.
    """

    path: Path
    picture: Image
    face: Face
    note: str | None = None
    is_video: bool = False
    teeth: TeethSet | None = None


def source_of_photo(path: Path, landmarker: Landmarker, number: int | None) -> SourceImage:
    """A photo of the person, and the face in it.

    Args: path: the file; number: which face, 1 is the widest; None is the widest, with a note if there are others.

    Raises:
        InputError: if the file cannot be read or shows no such face.
    """
    picture = video.read_image(path)
    found = landmarker.detect(picture, thorough=(number or 1) > 1)
    chosen = choose_face(found, number, path.name, picture.shape[1::-1])
    note = None
    if len(found) > 1 and number is None:
        note = f"{path.name} shows {len(found)} faces; the widest is animated, --face N takes another"
    return SourceImage(path, picture, chosen, note)


def source_of_video(path: Path, landmarker: Landmarker, number: int | None) -> SourceImage:
    """The calmest frame of a person in the first seconds of a video."""
    tracker = Tracker(landmarker, number)
    info = video.probe(path)
    seen = []
    with closing(video.read_frames(path, fps=min(info.fps, 5.0))) as frames:
        for frame in itertools.islice(frames, 60):
            face = tracker.track(frame)
            if face is not None:
                seen.append((frame, face))
    if not seen:
        raise NoFaceError(
            f"no face found in the first seconds of {path.name}; use a video in which the face is seen from the start."
        )
    frame, face = seen[calmest([face for _, face in seen])]
    teeth = best_teeth([(picture, found.points) for picture, found in seen])
    return SourceImage(path, frame, face, is_video=True, teeth=teeth)
