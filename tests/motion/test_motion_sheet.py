"""landmark_images.py and motion_sheet.py: the paper's colors and parts, and overview pictures."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from mimik.face import landmarks as faces
from mimik.face.landmark_images import LANDMARK_LINES, annotate, feature_mask, landmark_image
from mimik.face.landmarks import Face, Image
from mimik.motion.files import Motion
from mimik.motion.kinds import bundled_motions
from mimik.motion.motion_sheet import motion_sheet

# docs/paper.md, section 2: points of the 68, color, closed.
PAPER = [
    (range(17), (255, 255, 255), False),
    (range(17, 22), (255, 0, 0), False),
    (range(22, 27), (0, 255, 0), False),
    (range(27, 31), (0, 0, 255), False),
    (range(31, 36), (0, 0, 255), False),
    (range(36, 42), (255, 0, 255), True),
    (range(42, 48), (0, 255, 255), True),
    (range(48, 60), (255, 255, 0), True),
]


@pytest.fixture(scope="module")
def points(portrait_face: Face) -> np.ndarray:
    """The portrait's points on a canvas of 480 x 640, 320 px wide, so that lines do not overlap."""
    low = portrait_face.points[:, :2].min(0)
    return (portrait_face.points[:, :2] - low) * (320 / portrait_face.width_px) + [80, 60]


def colors(image: Image) -> set[tuple[int, ...]]:
    return {tuple(c) for c in image[image.any(-1)].tolist()} | {(0, 0, 0)}


def test_paper_style_draws_each_part_in_its_color(points: np.ndarray) -> None:
    image = landmark_image(points, 480, 640, style="paper")
    assert image.shape == (640, 480, 3)
    assert image.dtype == np.uint8
    at68 = points[faces.POINTS_68]
    for index, color, closed in PAPER:
        line = [*index, index[0]] if closed else list(index)
        for a, b in itertools.pairwise(line):
            x, y = np.round((np.round(at68[a]) + np.round(at68[b])) / 2).astype(int)
            near = image[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).tolist()
            assert list(color) in near, (a, b)


def test_only_the_palette_appears(points: np.ndarray) -> None:
    # Without antialiasing there are no intermediate colors.
    assert colors(landmark_image(points, 480, 640, style="paper")) == {(0, 0, 0), *(c for _, c, _ in PAPER)}
    assert colors(landmark_image(points, 480, 640)) == {(0, 0, 0), *(c for _, c, _ in LANDMARK_LINES)}


def test_paper_style_leaves_inner_lips_and_irises_out(points: np.ndarray) -> None:
    before = landmark_image(points, 480, 640, style="paper")
    moved = points.copy()
    inner = {78, 82, 13, 312, 308, 317, 14, 87, *faces.LIPS_INNER_UPPER, *faces.LIPS_INNER_LOWER}
    moved[[*inner, *faces.IRISES]] += 15
    np.testing.assert_array_equal(before, landmark_image(moved, 480, 640, style="paper"))


def test_open_parts_are_not_closed(points: np.ndarray) -> None:
    image = landmark_image(points, 480, 640, style="paper")
    jaw = points[faces.POINTS_68[:17]]
    x, y = np.round((jaw[0] + jaw[-1]) / 2).astype(int)
    assert [255, 255, 255] not in image[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).tolist()


def test_lines_are_two_pixels_thick() -> None:
    # OpenCV's thickness 2 covers three pixels; thickness 1 would cover one, 4 five.
    points = np.zeros((478, 2))
    points[faces.POINTS_68[:17]] = np.stack([np.linspace(20, 80, 17), np.full(17, 50)], 1)
    image = landmark_image(points, 100, 100, style="paper")
    assert (image[:, 50] == 255).all(-1).sum() in (2, 3)


def test_full_style_draws_the_gaze(points: np.ndarray) -> None:
    right, left = (255, 128, 255), (128, 255, 255)

    def middle(image: Image, color: tuple[int, ...]) -> np.ndarray:
        y, x = np.nonzero((image == color).all(-1))
        return np.array([x.mean(), y.mean()])

    before = landmark_image(points, 480, 640)
    moved = points.copy()
    moved[faces.RIGHT_IRIS] += [9, 0]
    after = landmark_image(moved, 480, 640)
    assert middle(before, right) == pytest.approx(points[faces.RIGHT_IRIS[1:]].mean(0), abs=2)
    assert middle(after, right) - middle(before, right) == pytest.approx([9, 0], abs=1.5)
    np.testing.assert_array_equal(middle(after, left), middle(before, left))


def test_full_style_draws_the_inner_lips(points: np.ndarray) -> None:
    image = landmark_image(points, 480, 640)
    x, y = np.round(points[13]).astype(int)
    assert [255, 128, 0] in image[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).tolist()


def test_points_outside_of_the_image_are_cut(points: np.ndarray) -> None:
    image = landmark_image(points - [200, 0], 100, 640)
    assert image.shape == (640, 100, 3)
    assert image.any()
    assert not landmark_image(points + 5000, 100, 100).any()


def test_an_unknown_style() -> None:
    with pytest.raises(ValueError, match="style 'thin': use one of paper, full, smooth"):
        landmark_image(np.zeros((478, 3)), 8, 8, style="thin")


def test_annotate_draws_on_the_faces_only(portrait: Image, portrait_face: Face) -> None:
    before = portrait.copy()
    out = annotate(portrait, [portrait_face])
    np.testing.assert_array_equal(portrait, before)
    changed = (out != portrait).any(-1)
    left, top, right, bottom = (int(v) for v in portrait_face.box)
    assert changed[top:bottom, left:right].mean() > 0.05
    changed[max(top - 30, 0) : bottom + 5, left - 5 : right + 5] = False
    assert not changed.any()
    np.testing.assert_array_equal(annotate(portrait, []), portrait)


def test_annotate_numbers_the_faces(portrait: Image, portrait_face: Face) -> None:
    # The same face as number 1 and as number 2 differs only in the label.
    nothing = Face(portrait_face.points + 5000, portrait_face.blendshapes, 1.0)
    one, two = annotate(portrait, [portrait_face]), annotate(portrait, [nothing, portrait_face])
    y, _ = np.nonzero((one != two).any(-1))
    assert len(y) > 10
    assert y.max() < portrait_face.box[1] + 25


def test_a_motion_sheet_shows_faces_over_curves() -> None:
    motion = Motion.load(bundled_motions()["nod"])
    sheet = motion_sheet(motion, columns=5, cell_px=120)
    assert sheet.shape[1] == 5 * 120
    assert sheet.shape[0] > 120 + 100
    assert sheet.dtype == np.uint8
    face_row = sheet[34 : 34 + 120]
    for column in range(5):
        drawn = (face_row[:, column * 120 : (column + 1) * 120] == 255).any(-1)
        y, x = np.nonzero(drawn)
        assert 40 < np.ptp(x) < 119
        assert 40 < np.ptp(y) < 119
    assert (sheet[154:] > 100).any(-1).mean() > 0.02


def test_a_motion_sheet_of_fewer_frames_than_columns() -> None:
    motion = Motion.load(bundled_motions()["nod"])
    short = Motion.of_frames("two", 25.0, motion.reference, list(motion.frames())[:2])
    assert motion_sheet(short, columns=4, cell_px=64).shape[1] == 256


def test_smooth_style_moves_by_fractions_of_a_pixel(points: np.ndarray) -> None:
    """The centroid of gray levels follows the points; without antialiasing it moves in jumps."""
    still = landmark_image(points, 480, 640, style="smooth").astype(float)
    moved = landmark_image(points + np.array([0.25, 0]), 480, 640, style="smooth").astype(float)
    x = np.arange(480)
    shift = (moved.sum((0, 2)) @ x) / moved.sum() - (still.sum((0, 2)) @ x) / still.sum()
    assert shift == pytest.approx(0.25, abs=0.06)
    assert len(np.unique(still)) > 10


def test_the_feature_mask_holds_eyes_and_mouth_and_little_else(points: np.ndarray) -> None:
    mask = feature_mask(points, 480, 640)
    assert mask.shape == (640, 480) and set(np.unique(mask)) == {0, 255}
    inside = [*faces.LIPS, *faces.RIGHT_EYE_UPPER, *faces.RIGHT_EYE_LOWER, *faces.LEFT_EYE_UPPER, *faces.IRISES]
    at = points[inside, :2].astype(int)
    assert (mask[at[:, 1], at[:, 0]] == 255).all()
    for outside in (4, 10, faces.CHIN, 50, 280):  # tip of the nose, forehead, chin, cheeks
        x, y = points[outside, :2].astype(int)
        assert mask[y, x] == 0
    face_area = cv2.contourArea(points[faces.OVAL, :2].astype(np.float32))
    assert (mask > 0).sum() < 0.3 * face_area
