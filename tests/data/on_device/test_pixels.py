"""pixels.py: each batched operation against OpenCV, frame by frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from mimik.data.augmentation import NUM_DRAWN, Augmentation
from mimik.data.on_device import pixels
from mimik.face.landmark_images import feature_mask, landmark_image, mouth_interior
from mimik.face.landmarks import LIPS_INNER_LOWER, LIPS_INNER_UPPER, Face, Image
from mimik.rendering.crop import WINDOW_SCALE, squares_around

CPU = torch.device("cpu")
PX = 128


@pytest.fixture(scope="module")
def points(driver_faces: list[Face], portrait_face: Face) -> np.ndarray:
    """[N, 478, 3] faces in windows PX wide: a talking driver, rotated in the picture, and a portrait."""
    found = []
    for number, one in enumerate([portrait_face, *driver_faces[::4]]):
        turn = 0.15 * number
        flat = one.points[:, :2] @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        left, top, side = squares_around(flat, WINDOW_SCALE)
        found.append(np.column_stack([(flat - [left, top]) / side * PX, one.points[:, 2]]))
    return np.array(found, np.float32)


def apart(made: torch.Tensor, images: list[Image]) -> np.ndarray:
    """Absolute difference [N, H, W] or [N, H, W, 3] of uint8 [N, C, H, W] and pictures."""
    expected = np.stack(images).astype(int)
    found = made.numpy().astype(int)
    return np.abs((found[:, 0] if expected.ndim == 3 else found.transpose(0, 2, 3, 1)) - expected)


def test_smooth_lines_are_opencvs_within_two_levels(points: np.ndarray) -> None:
    expected = [landmark_image(one, PX, PX, style="smooth") for one in points]
    difference = apart(pixels.landmark_images(points, PX, "smooth", CPU), expected)
    lines = np.stack(expected).max(-1) > 0
    assert difference[lines].mean() < 2.5 and difference.mean() < 0.3
    assert difference.max() < 40  # where lines meet


@pytest.mark.parametrize("style", ["paper", "full"])
def test_hard_lines_have_opencvs_width(points: np.ndarray, style: str) -> None:
    expected = [landmark_image(one, PX, PX, style=style) for one in points]
    made = pixels.landmark_images(points, PX, style, CPU)
    difference = apart(made, expected)
    lines = np.stack(expected).max(-1) > 0
    assert (difference[lines].max(-1) > 64).mean() < 0.15  # pixels at their edges
    lit = (made.numpy().max(1) > 0).sum() / lines.sum()
    assert 0.95 < lit < 1.05
    # No pixel beyond the neighbors of a line.
    near = [cv2.dilate(one.astype(np.uint8), np.ones((3, 3))) for one in lines]
    assert not (made.numpy().max(1) > 0)[np.stack(near) == 0].any()


def test_masks_are_opencvs(points: np.ndarray) -> None:
    expected = [feature_mask(one, PX, PX) for one in points]
    made = pixels.feature_masks(points, PX, CPU)
    assert set(np.unique(made)) == {0, 255}
    assert apart(made, expected).mean() < 0.6
    both = np.minimum(made[:, 0].numpy(), expected).sum() / np.maximum(made[:, 0].numpy(), expected).sum()
    assert both > 0.95
    points = points.copy()
    points[0, LIPS_INNER_LOWER] = points[0, LIPS_INNER_UPPER]  # shut
    interiors = [mouth_interior(one, PX, PX) for one in points]
    assert any(one.any() for one in interiors) and not all(one.any() for one in interiors)
    soft = pixels.mouth_interiors(points, PX, CPU)
    assert [bool(one.any()) for one in soft] == [bool(one.any()) for one in interiors]
    assert apart(soft, interiors).mean() < 0.15
    assert apart(soft, interiors).max() < 64


def test_parts_that_leave_the_picture(points: np.ndarray) -> None:
    moved = points[:2] - np.array([PX / 2, 0, 0], np.float32)
    expected = [landmark_image(one, PX, PX, style="smooth") for one in moved]
    assert apart(pixels.landmark_images(moved, PX, "smooth", CPU), expected).mean() < 0.3
    assert apart(pixels.feature_masks(moved, PX, CPU), [feature_mask(one, PX, PX) for one in moved]).mean() < 0.6


@pytest.mark.parametrize("seed", range(3))
def test_augmented_windows_are_those_of_opencv(portrait: Image, seed: int) -> None:
    """Pictures of two sizes in one memory."""
    pictures = [cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA) for side in (192, 128)]
    sides = np.array([192, 128])
    memory = torch.from_numpy(np.concatenate([picture.reshape(-1, 3) for picture in pictures]))
    change = Augmentation(flip=0.5).draw(np.random.default_rng(seed).random((2, NUM_DRAWN)), sides)
    windows = np.array([[20.0, -8.0, 120.5], [0.0, 0.0, 128.0]])
    given = [pixels.to_device(a, CPU) for a in (windows, change.to_frames(sides), sides.astype(np.float32))]
    places = pixels.window_places(given[0], given[1], PX, given[2])
    read = pixels.read_linearly(memory, torch.tensor([0, 192 * 192]), given[2], places, mirrored=True)
    made = pixels.recolored(read, torch.from_numpy(change.color), torch.from_numpy(change.curve))
    for number, (picture, (left, top, side)) in enumerate(zip(pictures, windows, strict=True)):
        one = type(change)(*(getattr(change, name)[number] for name in ("flip", "affine", "color", "curve")))
        (augmented,) = one.images(picture[None])
        k = PX / side
        matrix = np.array([[k, 0, (0.5 - left) * k - 0.5], [0, k, (0.5 - top) * k - 0.5]])
        expected = cv2.warpAffine(augmented, matrix, (PX, PX), borderMode=cv2.BORDER_REPLICATE)
        # OpenCV resamples a crop twice, the device once and so more sharply.
        assert apart(made[number : number + 1], [expected]).mean() < (2.5, 0.8)[number]


def test_exact_places_are_exact_pixels() -> None:
    memory = torch.arange(2 * 25 * 3).view(-1, 3).to(torch.uint8)
    places = torch.tensor([[[[2.5, 3.5], [4.5, 4.5]]]]).repeat(2, 1, 1, 1)
    sides = torch.full((2,), 5.0)
    found = pixels.read_linearly(memory, torch.tensor([0, 25]), sides, places)
    assert found[:, 0, :, 0].tolist() == [[51, 72], [126, 147]]
    beyond = torch.tensor([[[[-0.5, 0.5], [6.5, 2.5]]]])
    assert pixels.read_linearly(memory, torch.tensor([0]), sides[:1], beyond)[0, 0, :, 0].tolist() == [0, 42]
    mirrored = pixels.read_linearly(memory, torch.tensor([0]), sides[:1], beyond, mirrored=True)
    assert mirrored[0, 0, :, 0].tolist() == [3, 36]
