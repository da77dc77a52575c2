"""Several photos of one person: a frame's face is a weighted mean of those nearest to it in pose and expression.

Each of these photos is warped to the frame, and the results are averaged inside the face. Warping errors differ between
photos, so the mean has smaller errors than the nearest photo alone (docs/fine-tuning.md). The weights are a continuous
function of the landmarks, so there are no jumps between frames. If the frame's landmarks equal a photo's, the face is
that photo's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face.landmarks import OVAL, Image, head_pose
from mimik.rendering.flow import Flow, Warper
from mimik.rendering.painters import NO_NETWORK, PicturePainter, Prepared

_NUM = 3  # largest number of photos per frame
_RIM = 0.08  # face heights: width of the band inside the face's outline in which the averaged face fades out
_NEAREST_CM = 1e-3  # lower bound of a distance, which bounds its inverse
_KEPT_DETAIL = 0.5  # share of the first image's fine detail that is kept, because a mean is softer than a photo
_FINE = 0.01  # face heights: sigma that separates fine detail


def head_shape(points: NDArray[Any]) -> NDArray[np.float64]:
    """[478, 3] a face in centimeters, normalized for position and size; pose and expression remain."""
    pose = head_pose(points)
    return np.asarray((points - pose.translation) / pose.scale, np.float64)


def distances(shapes: NDArray[np.float64], points: NDArray[Any]) -> NDArray[np.float64]:
    """[T] mean point distance between each photo and a frame in pose and expression, centimeters.

    Args:
        shapes: [T, 478, 3] head_shape of the photos.
        points: [478, 3] face points of the frame.
    """
    return np.asarray(np.linalg.norm(shapes - head_shape(points), axis=-1).mean(1))


def photo_shares(apart: NDArray[np.float64]) -> NDArray[np.float64]:
    """[T] weight of each photo in a frame; they sum to 1. It falls with the inverse distance and is 0 from the fourth
    nearest photo on.

    Args:
        apart: [T] distances.
    """
    near = 1 / np.maximum(apart, _NEAREST_CM)
    if len(near) > _NUM:
        near = (near - np.sort(near)[-_NUM - 1]).clip(0, None)
    return np.asarray(near / near.sum())


def share_face(images: Sequence[Image], weights: Sequence[float] | NDArray[np.float64], points: NDArray[Any]) -> Image:
    """The first image with its face replaced by the weighted mean of all images, plus half of its own fine detail.

    Args:
        images: uint8 RGB [H, W, 3] each: the same frame, rendered from different photos.
        weights: of the images; they sum to 1.
        points: [478, 3] face points of the frame.

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
    """Renders frames of one picture whose face is averaged with that of other pictures."""

    def __init__(
        self,
        painter: PicturePainter,
        others: Sequence[tuple[Warper, PicturePainter]],
        points: Sequence[NDArray[Any]],
        corner: NDArray[np.int_] | float = 0.0,
    ) -> None:
        """Prepare for one person.

        Args:
            painter: of the main picture.
            others: warpers and painters of further pictures of the same size, with the face at about the same place.
            points: [478, 3] face points of each photo, the main one first.
            corner: Box.corner of what frames show of the pictures.
        """
        self._painter, self._others, self._corner = painter, others, corner
        self._shapes = np.stack([head_shape(p) for p in points])

    def prepare(self, flow: Flow, target: NDArray[Any], outputs: Any = None, share: float = 1.0) -> Prepared:
        """See PicturePainter; outputs: by the number of the photo, those that the other frame used."""
        weights = photo_shares(distances(self._shapes, target))
        given: dict[int, Any] = dict.fromkeys(range(len(weights)), outputs) if outputs == NO_NETWORK else outputs or {}
        steps = [(weights[0], self._painter, self._painter.prepare(flow, target, given.get(0), share))]
        used = {0: steps[0][2].outputs}
        for number in np.flatnonzero(weights[1:]).tolist():
            warper, painter = self._others[number]
            step = painter.prepare(warper.flow(target), target, given.get(1 + number), share)
            used[1 + number] = step.outputs
            steps.append((weights[1 + number], painter, step))
        return Prepared(flow, target, prediction=steps, outputs=used)

    def finish(self, prepared: Prepared) -> Image:
        weights, painters, steps = zip(*prepared.prediction, strict=True)
        images = [painter.finish(step) for painter, step in zip(painters, steps, strict=True)]
        return share_face(images, weights, prepared.target - self._corner)

    @property
    def moved_matte(self) -> NDArray[np.uint8]:
        return self._painter.moved_matte
