"""Tracking one face through a video."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mimik.face.landmarks import Face, Image, Landmarker

if TYPE_CHECKING:
    from mimik.media.reading import VideoFrame

_REACH, _REACH_GROWS = 1.0, 0.1  # face widths that a lost face may have moved: at once, and more for each frame missed
_JUMP_AFTER = 12  # frames without the lost face, about half a second, before one far away is followed


class Tracker:
    """Tracks one face through a video.

    Attributes:
        num_jumps: number of times that, after a loss, a face far from the lost one was chosen, which may be another.
    """

    def __init__(self, landmarker: Landmarker, face: int | None = None) -> None:
        """Args: face: number of the face in the first frame with at least as many faces; 1 or None: the widest."""
        self._landmarker = landmarker
        self._number = face or 1
        self.num_jumps = 0
        self._last: Face | None = None
        self._misses = 0

    @property
    def landmarker(self) -> Landmarker:
        return self._landmarker

    def start(self, face: Face, *, is_there: bool = False) -> None:
        """Track this face, in pixels of the same video, instead of a numbered one.

        Args: is_there: whether it is at this place in the next frame, so that it need not be detected.
        """
        self._last, self._misses = face, 0 if is_there else 1

    def track(self, image: Image | VideoFrame, *, blendshapes: bool = True) -> Face | None:
        """The face in the next frame, None if it is not visible; arguments as in Landmarker.follow."""
        face = None
        if self._last is not None and self._misses == 0:
            face = self._landmarker.follow(image, self._last, blendshapes=blendshapes)
        if face is None and self._worth_searching():
            face = self._search(image)
        if face is None:
            self._misses += 1
            return None
        self._last, self._misses = face, 0
        return face

    def _worth_searching(self) -> bool:
        """Whether to search in this frame: after a while, a lost face is searched in every fifth only, to save time."""
        return self._misses < 25 or self._misses % 5 == 0

    def _search(self, image: Image | VideoFrame) -> Face | None:
        # After a loss, a face near the lost one is assumed to be the same person. One far away may be another person
        # and is used only if the face does not return. At the start, the number selects the face.
        faces = self._landmarker.detect(image, thorough=self._number > 1 and self._last is None)
        if self._last is None:
            return faces[self._number - 1] if len(faces) >= self._number else None
        if not faces:
            return None
        last = self._last

        def distance(face: Face) -> float:
            return float(np.linalg.norm(face.points[:, :2].mean(0) - last.points[:, :2].mean(0))) / last.width_px

        nearest = min(faces, key=distance)
        is_near = (
            distance(nearest) < _REACH + _REACH_GROWS * self._misses and 0.5 < nearest.width_px / last.width_px < 2
        )
        if not is_near:
            if self._misses < _JUMP_AFTER:
                return None
            self.num_jumps += 1
        return nearest
