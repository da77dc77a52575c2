"""The view of a source image and what is around it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import turned
from mimik.animation.source_frame import SourceFrame, View
from mimik.animation.source_image import SourceImage
from mimik.config import AnimateConfig
from mimik.face.landmarks import Face, Image

WHITE = np.full((1, 1, 3), 255, np.uint8)


@pytest.mark.parametrize("scene", ["auto", "warp"])
@pytest.mark.parametrize("backdrop", [None, WHITE])
def test_a_crop_shows_the_same_as_the_whole_photo(
    small_portrait: Image, small_face: Face, scene: str, backdrop: Image | None
) -> None:
    photo = SourceImage(Path("a.png"), small_portrait, small_face)
    whole, crop = (
        SourceFrame(photo, AnimateConfig(scene=scene, frame=frame), None, backdrop) for frame in ("full", "crop")
    )
    view = crop.view
    part = slice(view.top, view.bottom), slice(view.left, view.right)
    assert crop.size < whole.size
    assert crop.size == crop.picture.shape[1::-1]
    shift = np.array([9.0, 4.0, 0.0])  # content from outside the view moves into it
    goal = turned(small_face.points, 20) + shift
    in_crop = goal - [view.left, view.top, 0]
    expected = whole.paint(whole.flow(goal), goal)[part]
    found = crop.paint(crop.flow(in_crop), in_crop)
    assert np.abs(expected.astype(int) - small_portrait[part]).mean() > 2
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() < 16  # the rounding of sampling positions depends on their place in an array
    assert apart.mean() < 0.01


def test_the_surroundings_have_the_scale_of_the_view(small_face: Face) -> None:
    points = small_face.points * np.float32(1.7) + np.array([400, 310, 0], np.float32)
    face = replace(small_face, points=points)
    view = View.of(1400, 1200, face, AnimateConfig(frame="crop", size=333), None)
    around, box = view.around(1400, 1200, face)
    assert box is not None
    assert (box.width, box.height) == (view.width, view.height)
    assert min(box.left, box.top, around.width - box.left - box.width, around.height - box.top - box.height) > 40
    # A face point is at the same place of the view, up to the rounding to whole pixels.
    apart = around.move(face).points - box.corner - view.move(face).points
    assert np.abs(apart).max() < 0.7
    assert np.ptp(apart[:, 0]) < 0.2


def test_a_view_of_the_whole_photo_has_no_surroundings(small_portrait: Image, small_face: Face) -> None:
    height, width = small_portrait.shape[:2]
    view = View.of(width, height, small_face, AnimateConfig(size=100), None)
    assert view.around(width, height, small_face) == (view, None)
