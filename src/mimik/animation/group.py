"""Animate all faces of a photo: each has its driver; the frames are blended between the faces."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import tee

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.animation.render import Rendering
from mimik.animation.report import Report
from mimik.animation.source_frame import SourceFrame
from mimik.config import AnimateConfig
from mimik.face.landmarks import Face, Image, Landmarker
from mimik.motion.drivers.driver import Driver, DriverSettings, DrivingMotion
from mimik.motion.frames import MotionFrame
from mimik.pipeline import Progress

_STEEPNESS = 12.0  # of the seam between two faces: it is about a sixth of a face wide


class SharedDriver(Driver):
    """A driver shared by several faces and read once: each call of motion returns a copy from the first frame on."""

    def __init__(self, driver: Driver, num_faces: int) -> None:
        """Args: driver: opened; num_faces: number of calls of motion."""
        super().__init__(driver.name, driver.path, driver.fps, driver.num_frames, sound=driver.sound)
        self.kind, self.is_still = driver.kind, driver.is_still  # type: ignore[misc]  # those of what is shared
        self._driver, self._num_faces = driver, num_faces
        self._lock = threading.Lock()
        self._begun: DrivingMotion | None = None
        self._copies: list[Iterator[MotionFrame]] = []  # for further calls

    def motion(self, settings: DriverSettings) -> DrivingMotion:
        with self._lock:
            begun, notes = self._begun, None
            if begun is None:
                begun = self._begun = self._driver.motion(settings)
                notes = begun.notes
                self._copies += tee(begun.frames, self._num_faces)
            own = self._copies.pop()
        return DrivingMotion(begun.neutral, self._locked(own), begun.close, notes)

    def _locked(self, frames: Iterator[MotionFrame]) -> Iterator[MotionFrame]:
        """The frames; one copy at a time may advance."""
        while True:
            with self._lock:
                frame = next(frames, None)
            if frame is None:
                return
            yield frame


class Group(Rendering):
    """Renders several faces of one photo, each with a driver, into common frames."""

    def __init__(
        self,
        parts: Sequence[tuple[SourceFrame, Driver]],
        config: AnimateConfig,
        report: Report,
        landmarker: Landmarker,
        progress: Progress,
    ) -> None:
        """Args:
        parts: a source frame for each face, all of the same size, and its driver; several faces share a SharedDriver.
        config, report, landmarker, progress: as in Rendering.
        """
        longest = max((driver for _, driver in parts), key=lambda driver: driver.num_frames or 0)
        super().__init__(parts[0][0], longest, config, report, landmarker, progress)
        self._reports = [Report(report.out, report.photo, driver.name, report.model) for _, driver in parts]
        landmarkers: dict[int, Landmarker] = {}  # drivers are tracked concurrently
        for _, driver in parts:
            landmarkers.setdefault(id(driver), Landmarker() if landmarkers else landmarker)
        self._parts = [
            Rendering(source, driver, config, own, landmarkers[id(driver)], progress)
            for (source, driver), own in zip(parts, self._reports, strict=True)
        ]
        self._shares = face_shares([source.face for source, _ in parts], *self.size)

    def images(self) -> Generator[Image]:
        """The frames, uint8 RGB [H, W, 3]; a face whose driver has ended keeps its last expression."""
        last: list[Image | None] = [None] * len(self._parts)
        with ExitStack() as stack:
            streams = [stack.enter_context(closing(part.images())) for part in self._parts]
            while True:
                fresh = [next(stream, None) for stream in streams]
                if all(image is None for image in fresh):
                    break
                last = [old if new is None else new for new, old in zip(fresh, last, strict=True)]
                self._report.num_frames += 1
                yield blended([image for image in last if image is not None], self._shares)
        self._tell()

    def still(self) -> Image:
        image = blended([part.still() for part in self._parts], self._shares)
        self._report.num_frames = 1
        self._tell()
        return image

    def _tell(self) -> None:
        """Merge notes and counts of the parts into the report."""
        self._report.scene = self._reports[0].scene
        self._report.num_lost = max(report.num_lost for report in self._reports)
        for report in self._reports:
            self._report.notes += [note for note in report.notes if note not in self._report.notes]


def face_shares(faces: Sequence[Face], width: int, height: int) -> NDArray[np.float32]:
    """Weight of each face at each pixel: 1 for the nearest in face widths, with soft seams half-way.

    Args: faces: in pixels of the picture; width, height: of it.

    Returns:
        [N, H, W], 0..1; the sum over N is 1.
    """
    x, y = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32)[:, None] + 0.5
    away = np.empty((len(faces), height, width), np.float32)
    for number, face in enumerate(faces):
        left, top, right, bottom = face.box
        away[number] = np.hypot(x - (left + right) / 2, y - (top + bottom) / 2) / face.width_px
    weights = np.exp(-_STEEPNESS * (away - away.min(0)))
    return weights / weights.sum(0)


def blended(images: Sequence[Image], weights: NDArray[np.float32]) -> Image:
    """Weighted sum of images; weights: [N, H, W]."""
    out, sum_so_far = images[0], weights[0]
    for image, weight in zip(images[1:], weights[1:], strict=True):
        out = cv2.blendLinear(out, image, sum_so_far, weight)
        sum_so_far = sum_so_far + weight
    return out
