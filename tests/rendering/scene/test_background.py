"""background.py: a drawn person in front of stripes; compositing against a slow reference; edges of the picture."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from mimik.animation.source_frame import SourceFrame
from mimik.animation.source_image import SourceImage
from mimik.config import AnimateConfig
from mimik.face.landmarks import Face, Image
from mimik.inference.synthesis import GeometryPainter
from mimik.rendering.crop import Crop
from mimik.rendering.flow import Warper
from mimik.rendering.layers.canvas import Canvas
from mimik.rendering.scene.background import (
    _UNCOVERS,
    EdgeLimit,
    LayeredPainter,
    Scene,
    _free,
    _hole,
    _share_of_person,
    blend,
    decompose_photo,
)
from mimik.rendering.scene.matte import foreground, person_matte


@pytest.fixture(scope="module")
def striped(small_portrait: Image, small_face: Face) -> tuple[Image, np.ndarray]:
    """The portrait in front of stripes, and its matte."""
    alpha = person_matte(small_portrait, small_face.points)
    x = np.arange(small_portrait.shape[1])
    stripes = np.where((x // 8 % 2)[None, :, None], [200, 190, 170], [90, 110, 140])
    stripes = np.broadcast_to(stripes, small_portrait.shape)
    mixed = alpha[..., None] * foreground(small_portrait, alpha) + (1 - alpha[..., None]) * stripes
    return np.rint(mixed).astype(np.uint8), alpha


@pytest.fixture(scope="module")
def scene(striped: tuple[Image, np.ndarray], small_face: Face) -> Scene:
    found = decompose_photo(striped[0], small_face.points)
    assert isinstance(found, Scene)
    return found


def _painted(scene: Scene, face: Face, shift: tuple[float, float]) -> Image:
    height, width = scene.alpha.shape
    warper = Warper(face.points, width, height, free=scene.free)
    matte = np.rint(scene.alpha * 255).astype(np.uint8)
    painter = LayeredPainter(GeometryPainter(scene.front, warper, matte=matte), scene.alpha, scene.canvas, scene.plate)
    target = face.points + np.array([*shift, 0])
    return painter.paint(warper.flow(target), target)


def test_specks_of_the_matte_do_not_hold_the_head(small_face: Face) -> None:
    """Single noisy pixels at the square's border are not hair; a lock of hair is."""
    points, width = small_face.points + np.array([400, 400, 0]), 1200
    canvas = Canvas.of(np.zeros((width, width, 3), np.uint8), Crop.around(points))
    alpha = np.zeros(canvas.size[::-1], np.float32)
    alpha[:2, ::23] = alpha[::23, :2] = alpha[::23, -2:] = 0.5
    assert _free(alpha, canvas, points, width) == (True, True, True)
    lock = round(0.1 * canvas.crop.side)
    alpha[:2, 40 : 40 + lock] = 1
    assert _free(alpha, canvas, points, width) == (True, False, True)
    alpha[20 : 20 + lock, :2] = 1
    assert _free(alpha, canvas, points, width) == (False, False, True)


def test_blend_is_what_floats_give() -> None:
    random = np.random.default_rng(1)
    front, behind = (random.integers(0, 256, (40, 50, 3)).astype(np.uint8) for _ in range(2))
    alpha = random.choice([0, 255, *range(256)], (40, 50)).astype(np.uint8)
    a = alpha[..., None] / 255
    expected = a * front + (1 - a) * behind
    blend(front, behind, alpha)
    assert np.abs(front - expected).max() <= 0.51


def test_the_plate_has_no_strands_beside_the_hair() -> None:
    """Before foliage, where strands cannot be told from leaves, the area around the hair is replaced as well."""
    side, edge = 500, 250
    leaves = np.random.default_rng(0).integers(0, 256, (200, side, 3)).astype(np.uint8)
    matte = np.zeros((200, side), np.float32)
    matte[:, :edge] = 1
    row = _hole(leaves, matte, float(side))[0][100]
    assert row[: edge + int(0.012 * side)].all() and not row[edge + int(0.02 * side) :].any()


def test_foliage_is_not_plain_where_the_person_hides_it() -> None:
    """As far as the filling has detail."""
    side = 500
    leaves = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    matte = np.zeros((side, side), np.float32)
    matte[100:, 60:440] = 1
    plain = _hole(leaves, matte, float(side))[1][400]
    assert plain[: 60 + int(1.25 * _UNCOVERS * side)].max() == 0


def test_strands_are_mixtures_of_hair_and_background() -> None:
    """By hand: 8 % noise is not hair; a mixture of one half gives (0.5 - 0.08) / 0.92; a third color is neither."""
    hair, wall, box = [20, 20, 20], [220, 220, 220], [160, 120, 60]
    white, gray = [230, 230, 230], [215, 215, 215]
    cases = [  # front, plate, photo, share
        (hair, wall, hair, 1.0),
        (hair, wall, wall, 0.0),
        (hair, wall, [120, 120, 120], 0.42 / 0.92),
        (white, gray, box, 0.0),  # a box behind a white shoulder, where the wall was continued
    ]
    front, plate, photo = (np.array([[case[n] for case in cases]], np.uint8) for n in range(3))
    share, is_mixture, apart = _share_of_person(photo, front, plate)
    np.testing.assert_allclose((share * is_mixture)[0], [case[3] for case in cases], atol=0.01)
    np.testing.assert_allclose(apart[0], [1, 1, 1, (15 * 3**0.5 - 20) / 20], atol=0.01)


def test_a_matte_that_is_too_wide_leaves_no_rim(small_portrait: Image, small_face: Face) -> None:
    """Before a plain dark wall, the colors say that a halo of the matte is wall."""
    alpha = person_matte(small_portrait, small_face.points)
    wall = np.random.default_rng(0).normal([20, 18, 30], 1.5, small_portrait.shape)
    a = alpha[..., None]
    photo = np.rint((a * foreground(small_portrait, alpha) + (1 - a) * wall).clip(0, 255)).astype(np.uint8)
    side = Crop.around(small_face.points).side
    halo = cv2.dilate(alpha, np.ones((2 * [2 * round(0.012 * side) + 1]), np.uint8)) * 0.5
    chin = round(small_face.points[:, 1].max())
    wide = np.maximum(alpha, halo)
    found = decompose_photo(photo, small_face.points, wide.astype(np.float32))
    assert isinstance(found, Scene)
    beside = (alpha < 0.01) & (wide > 0.3)
    beside[chin:] = False  # shoulders may be as dark as the wall
    assert beside.sum() > 50
    assert wide[beside].mean() > 0.3 and found.alpha[beside].mean() < 0.1


def test_front_over_plate_is_the_photo(scene: Scene, striped: tuple[Image, np.ndarray]) -> None:
    out = scene.front.copy()
    blend(out, scene.plate, np.rint(scene.alpha * 255).astype(np.uint8))
    seen = scene.alpha > 0.4
    off = np.abs(out.astype(int) - striped[0])[seen]
    assert np.percentile(off, 99) <= 2 and off.mean() < 0.2  # colors outside of 0..255 deviate slightly


def test_the_background_stands_still_bit_for_bit(
    scene: Scene, striped: tuple[Image, np.ndarray], small_face: Face
) -> None:
    side = Crop.around(small_face.points).side
    frame = _painted(scene, small_face, (0.05 * side, 0.02 * side))
    reach = round(0.1 * side)
    near = np.zeros(scene.alpha.shape, bool)
    for dy in range(-reach, reach + 1, 4):
        for dx in range(-reach, reach + 1, 4):
            near |= np.roll(scene.alpha > 0.004, (dy, dx), (0, 1))
    assert (~near).mean() > 0.05
    np.testing.assert_array_equal(frame[~near], striped[0][~near])
    # The photo without layers moves there.
    height, width = scene.alpha.shape
    warper = Warper(small_face.points, width, height)
    target = small_face.points + np.array([0.05 * side, 0.02 * side, 0])
    assert (GeometryPainter(striped[0], warper).paint(warper.flow(target), target)[~near] != striped[0][~near]).any()


def test_stripes_that_a_head_uncovers_are_stripes(scene: Scene, small_face: Face) -> None:
    """Columns of the plate stay columns, pale and dark, as beside the head."""
    part = scene.canvas.part(scene.plate).astype(float)
    top = int(small_face.points[:, 1].min()) - scene.canvas.top
    assert part[: max(top, 8)].std(1).mean() > 30


def test_a_head_that_leaves_the_picture_is_not_squeezed(scene: Scene, small_face: Face) -> None:
    """Hair moved up by a fifth of the face is the translated hair of the photo, up to the picture's edge."""
    y = int(small_face.points[10, 1])  # the highest point of the face
    shift = -(y - 4)
    frame = _painted(scene, small_face, (0, shift))
    x = int(small_face.points[10, 0])
    moved = scene.front[-shift + 2 : y + 6, x - 6 : x + 7].astype(float)
    found = frame[2 : y + 6 + shift, x - 6 : x + 7].astype(float)
    assert np.abs(moved - found).mean() < 6
    assert found.var(0).mean() > 0.5 * moved.var(0).mean()  # a smear has no variance along its columns


def test_edges_limit_what_they_cut(small_face: Face) -> None:
    side = Crop.around(small_face.points).side
    height = width = round(float(small_face.points[:, :2].max()) + 0.4 * side)
    alpha = np.zeros((height, width), np.float32)
    x = int(small_face.points[:, 0].mean())
    alpha[:, x - 20 : x + 20] = 1  # cut above and below, not at the sides
    limit = EdgeLimit(small_face.points, alpha)
    points = small_face.points.astype(np.float64)
    for shift, expected in (((0, 30), (0, 0.006 * side)), ((0, -30), (0, -30)), ((25, 0), (25, 0))):
        moved = limit(points + np.array([*shift, 0]))
        np.testing.assert_allclose((moved - points).mean(0)[:2], expected, atol=0.01)
    free = EdgeLimit(small_face.points, np.zeros_like(alpha))
    lower = points + np.array([0, 30, 0])
    np.testing.assert_array_equal(free(lower), lower)


def test_no_plate_where_the_matte_is_not_to_be_trusted(small_portrait: Image, small_face: Face) -> None:
    shape = small_portrait.shape[:2]
    every = decompose_photo(small_portrait, small_face.points, np.ones(shape, np.float32))
    assert every == "is hardly visible around the head"
    unsure = np.full(shape, 0.5, np.float32)
    unsure[:, :3] = 0
    assert decompose_photo(small_portrait, small_face.points, np.where(np.arange(shape[1]) < 20, 0, unsure)) == (
        "has no clear boundary with the person"
    )
    cut = small_face.points - [np.median(small_face.points[:, 0]), 0, 0]
    assert "at the edge" in str(decompose_photo(small_portrait, cut, unsure))
    noise = np.random.default_rng(0).integers(0, 256, small_portrait.shape).astype(np.uint8)
    assert decompose_photo(noise, small_face.points) == "cannot be separated from the person"


def test_the_option_chooses(small_portrait: Image, small_face: Face, small_path: object) -> None:
    image = SourceImage(small_path, small_portrait, small_face)  # type: ignore[arg-type]
    auto = SourceFrame(image, AnimateConfig(), None)
    assert isinstance(auto.scene, Scene)
    assert SourceFrame(image, AnimateConfig(scene="warp"), None).scene == "was requested by --scene warp"
    assert SourceFrame(replace(image, is_video=True), AnimateConfig(), None).scene == "belongs to a video"
