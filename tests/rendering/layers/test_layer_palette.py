"""layer_palette.py: colors, sharpness and detail of a photo's mouth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mimik.face.landmarks import Face, Image
from mimik.rendering.layers.canvas import LUMA
from mimik.rendering.layers.eye_contours import LIDS_OF_EYES
from mimik.rendering.layers.palette import Palette


def _photo(face: Face, skin: tuple[int, int, int], whites: tuple[int, int, int]) -> Image:
    """Uniform skin with eyes of one color."""
    right, bottom = face.points[:, :2].max(0).astype(int) + 40
    image = np.full((bottom, right, 3), skin, np.uint8)
    for upper, lower in LIDS_OF_EYES:
        cv2.fillPoly(image, [face.points[[*upper, *lower[-2:0:-1]], :2].astype(np.int32)], whites)
    return image


def test_varnish_colors_the_enamel_as_it_does_the_whites_of_the_eyes(small_face: Face) -> None:
    hues = []
    for whites in ((200, 200, 200), (200, 170, 90)):
        enamel = Palette.of(_photo(small_face, (190, 170, 140), whites), small_face.points, False).enamel
        hues.append(enamel / float(enamel @ LUMA) - 1)
    skin = np.array([190, 170, 140]) / (np.array([190, 170, 140]) @ LUMA) - 1
    assert hues[0][2] == pytest.approx(0.60 * skin[2], abs=0.02)  # white eyes: the regression's
    color = np.array([200, 170, 90]) / (np.array([200, 170, 90]) @ LUMA) - 1
    assert hues[1][2] == pytest.approx(0.9 * color[2], abs=0.04)


def test_red_eyes_do_not_make_teeth_redder_than_the_skin(small_face: Face) -> None:
    skin = np.array([190, 170, 140])
    palette = Palette.of(_photo(small_face, (190, 170, 140), (200, 140, 120)), small_face.points, False)
    red = palette.enamel[0] / float(palette.enamel @ LUMA)
    assert red <= skin[0] / (skin @ LUMA) + 0.01


def test_a_drawing_has_no_fine_detail_and_a_photo_of_skin_has(small_face: Face) -> None:
    flat = _photo(small_face, (210, 170, 150), (220, 220, 220))
    assert Palette.of(flat, small_face.points, False).detail == 0
    noise = np.random.default_rng(1).normal(0, 9, flat.shape[:2])[..., None]
    pores = (flat + cv2.GaussianBlur(noise, (0, 0), 0.8)[..., None]).clip(0, 255).astype(np.uint8)
    assert Palette.of(pores, small_face.points, False).detail > 0.5
