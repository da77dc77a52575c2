"""Several photos of one person: those nearest to a frame in pose and expression share its face.

Every photo is warped to the frame; inside the face the results are averaged. What a warp gets wrong differs from photo
to photo, so the average has smaller errors than the nearest photo alone (docs/fine-tuning.md). Shares are a continuous
function of the landmarks, so that nothing pops; a frame whose landmarks are a photo's is that photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face.landmarks import OVAL, Image, head_pose
from mimik.rendering.flow import Flow, Warper
from mimik.rendering.painters import PicturePainter, Prepared

_NUM = 3  # photos that share a frame, at most
_RIM = 0.08  # of the face's height: as far inside its outline the averaged face ends, fading
_NEAREST_CM = 1e-3
_KEPT_DETAIL = 0.5  # of the first image's detail that stays: the mean alone is softer than a photo
_FINE = 0.01  # of the face's height: finer than this is detail


def head_shape(points: NDArray[Any]) -> NDArray[np.float64]:
    """[478, 3] centimeters: a face with its pose and expression, without its place and size."""
    pose = head_pose(points)
    return np.asarray((points - pose.translation) / pose.scale, np.float64)


def distances(shapes: NDArray[np.float64], points: NDArray[Any]) -> NDArray[np.float64]:
    """[T] centimeters: how far photos are from a frame in pose and expression.

    Args:
        shapes: [T, 478, 3] head_shape of the photos.
        points: [478, 3] of the face in the frame.
    """
    return np.asarray(np.linalg.norm(shapes - head_shape(points), axis=-1).mean(1))


def photo_shares(apart: NDArray[np.float64]) -> NDArray[np.float64]:
    """[T] share of each photo in a frame, sum 1: inverse to its distance, and 0 from the fourth nearest photo on.

    Args:
        apart: [T] as distances gives them.
    """
    near = 1 / np.maximum(apart, _NEAREST_CM)
    if len(near) > _NUM:
        near = (near - np.sort(near)[-_NUM - 1]).clip(0, None)
    return np.asarray(near / near.sum())


def share_face(images: Sequence[Image], weights: Sequence[float] | NDArray[np.float64], points: NDArray[Any]) -> Image:
    """The first image, whose face is the weighted mean of all of them, with half of the first's fine detail.

    Args:
        images: uint8 RGB [H, W, 3] each, a frame made from each of some photos.
        weights: of them; they sum to 1.
        points: [478, 3] of the face in the frame.

    Returns:
        The first image, changed in place.
    """
    first, oval = images[0], points[OVAL, :2]
    height = max(float(np.ptp(oval[:, 1])), 1.0)
    low = np.floor(oval.min(0)).astype(int).clip(0, None)
    high = np.ceil(oval.max(0)).astype(int).clip(None, first.shape[1::-1])
    if (high - low < 2).any():
        return first
    part = (slice(low[1], high[1]), slice(low[0], high[0]))
    mask = np.zeros((high - low)[::-1], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(oval - low - 0.5).astype(np.int32)), 1)
    depth = cv2.distanceTransform(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 3)
    mask = np.minimum(depth[1:-1, 1:-1] / np.float32(max(_RIM * height, 1)), 1)
    mean = sum(np.float32(weight) * image[part] for weight, image in zip(weights, images, strict=True))
    change = np.asarray(mean - first[part], np.float32)
    change -= np.float32(_KEPT_DETAIL) * (change - cv2.GaussianBlur(change, (0, 0), max(_FINE * height, 0.5)))
    first[part] = np.rint(first[part] + mask[..., None] * change).clip(0, 255)
    return first


class SharedPainter(PicturePainter):
    """Makes frames of one picture, whose face others share."""

    def __init__(
        self,
        painter: PicturePainter,
        others: Sequence[tuple[Warper, PicturePainter]],
        points: Sequence[NDArray[Any]],
    ) -> None:
        """For one person.

        Args:
            painter: of the picture.
            others: of further pictures of the same size, in which the face has about the same size and place.
            points: [478, 3] each, the faces in the photos from which all of them come, the first one first.
        """
        self._painter, self._others = painter, others
        self._shapes = np.stack([head_shape(p) for p in points])

    def prepare(self, flow: Flow, target: NDArray[Any]) -> Prepared:
        weights = photo_shares(distances(self._shapes, target))
        steps = [(weights[0], self._painter, self._painter.prepare(flow, target))]
        for number in np.flatnonzero(weights[1:]).tolist():
            warper, painter = self._others[number]
            steps.append((weights[1 + number], painter, painter.prepare(warper.flow(target), target)))
        return Prepared(flow, target, prediction=steps)

    def finish(self, prepared: Prepared) -> Image:
        weights, painters, steps = zip(*prepared.prediction, strict=True)
        images = [painter.finish(step) for painter, step in zip(painters, steps, strict=True)]
        return share_face(images, weights, prepared.target)

    @property
    def moved_matte(self) -> NDArray[np.uint8]:
        return self._painter.moved_matte
