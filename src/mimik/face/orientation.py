"""Faces at any angle: in photos that stand on their head or lie on a side, found there and turned upright."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from mimik.face.landmarks import Face, Image, Landmarker, head_pose

# Confidence below which a face may be none. Of 163 photos, paintings and statues of people 162 had 0.8 and more; of
# three drawn dogs none had (0.60 to 0.72).
DOUBTFUL = 0.78
_UPRIGHT = 0.85  # from here on a face is taken to be upright without another look
_SURER_BY = 0.05  # by which a face in the turned picture has to be surer
_SEARCH_PX = 1280  # longer side of the turned pictures that are tried
_TURNED_DEGREES = 60.0  # of roll, from which a picture is turned by a quarter: people lean their heads


def find_faces(landmarker: Landmarker, picture: Image, *, thorough: bool = False) -> list[Face]:
    """All faces of a picture, the widest first, whichever side of it is up.

    The detector knows faces that stand upright. Of one on its head the mesh network sees an upright one, with the mouth
    in the hair. Where the best face is not sure, the picture is tried in all four positions, and the surest one counts.

    Args:
        landmarker: finds them.
        picture: uint8 RGB [H, W, 3].
        thorough: as Landmarker.detect takes it.

    Returns:
        Faces in pixels of the picture as it was given.
    """
    found = landmarker.detect(picture, thorough=thorough)
    sure, best = _confidence(found), 0
    if sure >= _UPRIGHT:
        return found
    k = min(1.0, _SEARCH_PX / max(picture.shape[:2]))
    small = picture if k == 1 else cv2.resize(picture, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
    sure += _SURER_BY
    for turns in (2, 1, 3):
        tried = _confidence(landmarker.detect(np.ascontiguousarray(np.rot90(small, turns))))
        if tried > sure:
            sure, best = tried, turns
    if not best:
        return found
    height, width = picture.shape[:2]
    size = (width, height) if best == 2 else (height, width)
    turned = landmarker.detect(np.ascontiguousarray(np.rot90(picture, best)), thorough=thorough)
    return [turned_face(face, -best, *size) for face in turned]


def _confidence(faces: Sequence[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def turned_face(face: Face, turns: int, width: int, height: int) -> Face:
    """The face in the picture turned by quarters, counter-clockwise, as np.rot90 turns it.

    Args:
        face: in a picture of width and height, in pixels.
        turns: quarters.
        width, height: of the picture before it is turned.
    """
    points = face.points.copy()
    for _ in range(turns % 4):
        points[:, 0], points[:, 1] = points[:, 1].copy(), width - points[:, 0]
        width, height = height, width
    return replace(face, points=points)


def quarter_turns(face: Face) -> int:
    """By how many quarters, counter-clockwise, the picture has to be turned for this face to stand upright."""
    roll = head_pose(face.points).degrees[2]
    return 0 if abs(roll) < _TURNED_DEGREES else round(roll / 90) % 4


def upright(picture: Image, face: Face, name: str) -> tuple[Image, Face, str | None]:
    """A picture and its face, turned so that the face stands upright.

    Args: picture: uint8 RGB [H, W, 3]; face: in it; name: of the file, for the note.

    Returns:
        Both, and a note for the user if they were turned.
    """
    turns = quarter_turns(face)
    if not turns:
        return picture, face, None
    height, width = picture.shape[:2]
    how = "stands on its head" if turns == 2 else "lies on its side"
    note = f"the face in {name} {how}; the picture is turned upright"
    return np.ascontiguousarray(np.rot90(picture, turns)), turned_face(face, turns, width, height), note


def doubt(face: Face, name: str) -> str | None:
    """What the user should know of a face that may be none; None for one that is sure."""
    if face.score >= DOUBTFUL:
        return None
    return (
        f"the face in {name} is uncertain (confidence {100 * face.score:.0f} %): it may be an animal, an object or "
        "half hidden; look at the result, or use a picture that shows a face from the front"
    )
