"""A person with several photos, which are blended in each frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from mimik.animation.source_frame import SourceFrame
from mimik.animation.source_image import SourceImage
from mimik.config import AnimateConfig
from mimik.face.landmarks import Face, Image


def test_a_further_photo_lies_over_the_first_and_shares_its_face(small_portrait: Image, small_face: Face) -> None:
    k, right, down, lighter = 1.5, 21, 8, 30
    matrix = np.array([[k, 0, right + 0.5 * k - 0.5], [0, k, down + 0.5 * k - 0.5]])
    size = tuple(round(k * n) + 30 for n in small_portrait.shape[1::-1])
    dim = small_portrait // 2
    larger = cv2.warpAffine(dim + np.uint8(lighter), matrix, size, flags=cv2.INTER_CUBIC)
    points = small_face.points * np.float32(k) + np.array([right, down, 0], np.float32)
    photo = SourceImage(Path("a.png"), dim, small_face)
    other = SourceImage(Path("b.png"), larger, replace(small_face, points=points))
    config = AnimateConfig(scene="warp")
    alone, shared = SourceFrame(photo, config, None), SourceFrame(photo, config, None, others=[other])
    goal = small_face.points + np.array([1.5, 1, 0], np.float32)
    a, b = (source.paint(source.flow(goal), goal).astype(int) for source in (alone, shared))
    x, y = goal[1, :2].round().astype(int)  # the nose; equal poses have equal weights
    near = (slice(y - 6, y + 7), slice(x - 6, x + 7))
    assert abs((b - a)[near].mean() - lighter / 2) < 1
    assert np.abs((b - a)[near] - lighter / 2).max() < 8  # the same pixels, upsampled and downsampled
    assert (a[:4] == b[:4]).all()
