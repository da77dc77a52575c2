"""augmentation.py: points move with their pixels; identity is preserved."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mimik.config import InputError
from mimik.data.augmentation import NUM_DRAWN, Augmentation
from mimik.face import landmarks as faces
from mimik.face.landmark_images import landmark_image
from mimik.face.landmarks import mirror_order
from synthetic_shards import face_points


def test_flipping_exchanges_the_sides_of_the_face() -> None:
    flip = mirror_order()[0]
    assert sorted(flip.tolist()) == list(range(478))
    assert (flip[flip] == np.arange(478)).all()
    assert flip[faces.RIGHT_EYE_UPPER].tolist() == faces.LEFT_EYE_UPPER
    assert flip[faces.RIGHT_EYE_LOWER].tolist() == faces.LEFT_EYE_LOWER
    assert flip[faces.RIGHT_BROW].tolist() == faces.LEFT_BROW
    assert flip[faces.RIGHT_IRIS[0]] == faces.LEFT_IRIS[0]
    for line in (faces.LIPS_OUTER_UPPER, faces.LIPS_OUTER_LOWER, faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER):
        assert flip[line].tolist() == line[::-1]
    assert set(flip[faces.OVAL]) == set(faces.OVAL)
    assert {1, 4, 10, faces.CHIN, 168} <= set(np.flatnonzero(flip == np.arange(478)))


def test_a_flipped_portrait_has_the_flipped_points(
    landmarker: faces.Landmarker, small_portrait: np.ndarray, small_face: faces.Face
) -> None:
    change = Augmentation(flip=1, **OFF).draw(drawn(0), 256)
    (image,) = change.images(small_portrait[None])
    assert (image == small_portrait[:, ::-1]).all()
    (points,) = change.points(small_face.points[None], 256)
    found = landmarker.detect(image)[0].points
    apart = np.linalg.norm((found - points)[:, :2], axis=1)
    assert np.median(apart) < 1.5
    assert apart[faces.IRISES].max() < 2.5  # a wrong order of the rims is 4 px and more


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(NUM_DRAWN)


OFF: dict[str, float] = dict.fromkeys(
    ("rotation_deg", "scale", "shift", "brightness", "contrast", "saturation", "gamma", "hue_deg"), 0.0
)


@pytest.mark.parametrize("style", ["paper", "full"])
def test_colors_stay_at_the_persons_own_sides(style: str) -> None:
    points = face_points(1, 128)
    change = Augmentation(flip=1, **OFF).draw(drawn(0), 128)
    flipped = landmark_image(change.points(points, 128)[0], 128, 128, style=style)
    for color, left_of_picture in (((255, 0, 0), True), ((0, 255, 0), False)):
        x = np.flatnonzero((flipped == color).all(-1).any(0))
        assert len(x)
        assert (x.mean() < 64) == left_of_picture
    # The mirror image with exchanged colors of the sides, except for a pixel of rounding.
    mirrored = landmark_image(points[0], 128, 128, style=style)[:, ::-1]
    for before, after in (((255, 0, 0), (0, 255, 0)), ((255, 0, 255), (0, 255, 255)), ((255, 255, 0),) * 2):
        for one, other, image in ((before, after, flipped), (after, before, flipped)):
            there = cv2.dilate((mirrored == one).all(-1).astype(np.uint8), np.ones((3, 3), np.uint8))
            assert there[(image == other).all(-1)].mean() > 0.97


@pytest.mark.parametrize("seed", range(6))
def test_points_go_where_their_pixels_go(seed: int) -> None:
    side, at = 96, np.array([[30.5, 40.5], [60.5, 31.5], [48.5, 70.5]])
    images = np.zeros((3, side, side, 3), np.uint8)
    for image, (x, y) in zip(images, at, strict=True):
        image[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = 255
    points = np.repeat(np.append(at, np.ones((3, 1)), 1)[:, None], 478, 1).astype(np.float32)
    colors = dict.fromkeys(("brightness", "contrast", "saturation", "gamma", "hue_deg"), 0.0)
    change = Augmentation(strength=1.5, **colors).draw(drawn(seed), side)
    moved, images = change.points(points, side), change.images(images)
    for image, (x, y) in zip(images, moved[:, 0, :2], strict=True):
        weight = image[..., 0].astype(float)
        rows, columns = np.indices(weight.shape) + 0.5  # points count from the corner of the first pixel
        center = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        np.testing.assert_allclose((x, y), center, atol=0.1)
    across = np.linalg.norm(moved[0, 0, :2] - moved[1, 0, :2]) / np.linalg.norm(at[0] - at[1])
    np.testing.assert_allclose(moved[..., 2], across, rtol=1e-4)


def test_color_leaves_gray_gray_and_is_one_for_all_frames() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    images[:, :8] = images[:, :8, :, :1]
    color = Augmentation(flip=0, rotation_deg=0, scale=0, shift=0)
    change = color.draw(drawn(1), 16)
    out = change.images(images)
    assert np.ptp(out[:, :8].astype(int), axis=-1).max() <= 2
    assert np.abs(out.astype(int) - images).mean() > 2
    assert (change.images(images[1:])[0] == out[1]).all()


def test_strength_zero_changes_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    for seed in range(4):
        change = Augmentation(strength=0).draw(drawn(seed), 16)
        assert (change.images(images) == images).all()
        np.testing.assert_array_equal(change.points(face_points(2), 16), face_points(2))


def test_some_episodes_have_no_colors() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    changes = [Augmentation(hue_deg=0).draw(drawn(seed), 8) for seed in range(300)]
    gray = [change for change in changes if np.ptp(change.images(picture), axis=-1).max() <= 1]
    assert 15 <= len(gray) <= 50  # 10 %


@pytest.mark.parametrize(("values", "message"), [({"flip": 2}, "flip 2"), ({"hue_deg": -1}, "hue_deg -1")])
def test_impossible_augmentation(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Augmentation(**values)
    with pytest.raises(InputError, match="too strong"):
        Augmentation(strength=6)
