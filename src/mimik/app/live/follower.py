"""Maps camera frames to the person's points, and finds the neutral face."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.animation.source_frame import SourceFrame
from mimik.app.live.controls import MAX_STEP_S, Controls
from mimik.app.live.idling import Aim
from mimik.arrays import smoothstep
from mimik.face.landmarks import Face, Image, Landmarker, Pose, mirrored_face
from mimik.face.tracker import Tracker
from mimik.media.reading import VideoFrame
from mimik.motion.frames import Reference, split
from mimik.motion.neutral import find_neutral, median_pose, motion_of_photo
from mimik.motion.smoothing import Steady

_AUTO_S = 1.5  # face time after which the estimated neutral replaces the initial guess
_REQUESTED_S = 0.8  # duration of a calibration that the user starts
_BLEND_S = 0.4  # duration of the blend between neutral references, which avoids a jump


@dataclass(frozen=True)
class _Neutral:
    """A neutral face, which motion frames are relative to."""

    reference: Reference
    origin: Pose

    @classmethod
    def from_frame(cls, face: Face) -> _Neutral:
        """Estimate from one frame with any expression."""
        reference, _ = motion_of_photo(face)
        return cls(reference, median_pose([face], reference))

    @classmethod
    def from_frames(cls, faces: Sequence[Face]) -> _Neutral:
        """Estimate from several frames, by the most neutral ones."""
        reference = find_neutral(faces)
        return cls(reference, median_pose(faces, reference))


class _FaceRetarget:
    """Maps a face to the person's points, relative to one neutral face."""

    def __init__(self, neutral: _Neutral, portrait: SourceFrame, smooth: float) -> None:
        self._neutral, self._aim = neutral, Aim(portrait, neutral.reference)
        self._steady = Steady(smooth)

    def __call__(self, face: Face | None, dt: float, controls: Controls) -> NDArray[np.float64]:
        motion_frame = None if face is None else split(face, self._neutral.reference, self._neutral.origin)
        return self._aim(self._steady(motion_frame, dt), controls)


class Follower:
    """Maps camera frames to the person's points; finds the neutral face automatically, and again on request."""

    def __init__(
        self, portrait: SourceFrame, landmarker: Landmarker, *, smooth: float, face: int | None = None
    ) -> None:
        """Args: smooth: 0..1, see motion.Smoother; face: 1-based, in order of width; None: the widest."""
        self._portrait, self._smooth = portrait, smooth
        self._tracker = Tracker(landmarker, face)
        self._retarget: _FaceRetarget | None = None
        self._previous: _FaceRetarget | None = None  # fades out
        self._mix = 1.0  # blend weight of _retarget against _previous
        self._collected: list[Face] | None = []  # faces of the running calibration, not mirrored
        self._collected_s = 0.0
        self._duration_s = _AUTO_S
        self._rest: Sequence[Face] = ()  # faces of the last finished calibration
        self._controls = Controls()
        self._last_s: float | None = None
        self._is_requested = threading.Event()
        self._width = 0

    @property
    def is_calibrating(self) -> bool:
        return self._collected is not None or self._is_requested.is_set()

    def calibrate(self) -> None:
        """Start a calibration of the neutral face; thread-safe."""
        self._is_requested.set()

    def __call__(
        self, image: Image | VideoFrame, at_s: float, controls: Controls
    ) -> tuple[NDArray[Any] | None, Face | None]:
        """Process one camera frame.

        Args: image: as in Call.offer; at_s: capture time on any monotonic clock.

        Returns:
            Target points, [478, 3] in pixels of the portrait, None before the first face; and the camera face, not
                mirrored, None if not detected.
        """
        dt = 1 / 30 if self._last_s is None else float(np.clip(at_s - self._last_s, 1e-3, MAX_STEP_S))
        self._last_s = at_s
        self._width = image.shape[1]
        if self._is_requested.is_set():
            self._is_requested.clear()
            self._collected, self._collected_s, self._duration_s = [], 0.0, _REQUESTED_S
        # Only the neutral face is estimated from blendshapes.
        found = self._tracker.track(image, blendshapes=self._collected is not None)
        before, self._controls = self._controls, controls
        if self._retarget is not None and controls.mirror != before.mirror:
            self._blend_to(_Neutral.from_frames([self._mirrored(one) for one in self._rest]))
        if found is not None:
            self._collect(found, dt)
        if self._retarget is None:
            return None, found
        face = None if found is None else self._mirrored(found)
        points = self._retarget(face, dt, controls)
        if self._previous is not None:
            self._mix = min(1.0, self._mix + dt / _BLEND_S)
            eased = float(smoothstep(self._mix))
            points = eased * points + (1 - eased) * self._previous(face, dt, controls)
            if self._mix == 1:
                self._previous = None
        return points, found

    def _mirrored(self, face: Face) -> Face:
        return mirrored_face(face, self._width) if self._controls.mirror else face

    def _collect(self, face: Face, dt: float) -> None:
        if self._retarget is None:
            self._rest = [face]
            self._retarget = _FaceRetarget(_Neutral.from_frame(self._mirrored(face)), self._portrait, self._smooth)
        if self._collected is None:
            return
        self._collected.append(face)
        self._collected_s += dt
        if self._collected_s >= self._duration_s:
            self._rest, self._collected = self._collected, None
            self._blend_to(_Neutral.from_frames([self._mirrored(one) for one in self._rest]))

    def _blend_to(self, neutral: _Neutral) -> None:
        self._previous, self._mix = self._retarget, 0.0
        self._retarget = _FaceRetarget(neutral, self._portrait, self._smooth)
