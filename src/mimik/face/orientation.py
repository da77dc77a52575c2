"""Faces at any angle: detection in rotated photos, and rotation to upright."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from mimik.face.landmarks import Face, Image, Landmarker, head_pose

# Confidence below which a detection may not be a face. 162 of 163 photos, paintings and statues of people had 0.8 or
# more; three drawn dogs had 0.60 to 0.72.
DOUBTFUL = 0.78
_UPRIGHT = 0.85  # confidence from which on no other orientation is tried
_SURER_BY = 0.05  # smallest increase in confidence for which another orientation is chosen
_SEARCH_PX = 1280  # longer side of the rotated pictures that are tried
# Degrees of roll from which on a picture is rotated by a quarter turn; smaller angles are a tilted head.
_TURNED_DEGREES = 60.0


def find_faces(landmarker: Landmarker, picture: Image, *, thorough: bool = False) -> list[Face]:
    """All faces of a picture in any orientation, the widest first.

    The detector was trained on upright faces; in an upside-down face the mesh network finds an upright one, with the
    mouth in the hair. If the confidence of the best face is low, all four orientations are tried and the one with the
    highest confidence is used.

    Args:
        landmarker: the face detector.
        picture: uint8 RGB [H, W, 3].
        thorough: as in Landmarker.detect.

    Returns:
        Faces in pixels of the picture as given.
    """
    found = landmarker.detect(picture, thorough=thorough)
    sure, best = _confidence(found), 0
    if sure >= _UPRIGHT:
        return found
    k = min(1.0, _SEARCH_PX / max(picture.shape[:2]))
    size = max(1, round(k * picture.shape[1])), max(1, round(k * picture.shape[0]))  # a picture may be a line
    small = picture if k == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    sure += _SURER_BY
    for turns in (2, 1, 3):
        tried = _confidence(landmarker.detect(np.ascontiguousarray(np.rot90(small, turns))))
        if tried > sure:
            sure, best = tried, turns
    if not best:
        return found
    height, width = picture.shape[:2]
    shape = (width, height) if best == 2 else (height, width)
    turned = landmarker.detect(np.ascontiguousarray(np.rot90(picture, best)), thorough=thorough)
    return [rotated_face(face, -best, *shape) for face in turned]


def _confidence(faces: Sequence[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def rotated_face(face: Face, turns: int, width: int, height: int) -> Face:
    """The face after the picture is rotated counter-clockwise by quarter turns, as by np.rot90.

    Args:
        face: in the picture before rotation.
        turns: number of quarter turns.
        width, height: of the picture before rotation, pixels.
    """
    points = face.points.copy()
    for _ in range(turns % 4):
        points[:, 0], points[:, 1] = points[:, 1].copy(), width - points[:, 0]
        width, height = height, width
    return replace(face, points=points)


def num_quarter_turns(face: Face) -> int:
    """Number of counter-clockwise quarter turns after which this face is upright."""
    roll = head_pose(face.points).degrees[2]
    return 0 if abs(roll) < _TURNED_DEGREES else round(roll / 90) % 4


def upright(picture: Image, face: Face, name: str) -> tuple[Image, Face, str | None]:
    """A picture and its face, rotated by quarter turns so that the face is upright.

    Args: picture: uint8 RGB [H, W, 3]; face: in it; name: of the file, for the note.

    Returns:
        Both, and a note for the user if they were rotated.
    """
    turns = num_quarter_turns(face)
    if not turns:
        return picture, face, None
    height, width = picture.shape[:2]
    how = "is upside down" if turns == 2 else "lies on its side"
    note = f"the face in {name} {how}; the picture is rotated upright"
    return np.ascontiguousarray(np.rot90(picture, turns)), rotated_face(face, turns, width, height), note


def confidence_note(face: Face, name: str) -> str | None:
    """A warning if the detection may not be a face; None if the confidence is high."""
    if face.score >= DOUBTFUL:
        return None
    return (
        f"the face in {name} is uncertain (confidence {100 * face.score:.0f} %): it may be an animal, an object or "
        "half hidden; look at the result, or use a picture that shows a face from the front"
    )
