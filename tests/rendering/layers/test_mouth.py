"""mouth.py: teeth, tongue and cavity between the lips; dark at small openings; the photo's teeth are kept."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from conftest import mouth_opened
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image
from mimik.rendering.flow import Warper
from mimik.rendering.layers import mouth, teeth
from mimik.rendering.layers.canvas import LUMA
from mimik.rendering.painter import Painter

OUTLINE = [*faces.LIPS_INNER_UPPER, *faces.LIPS_INNER_LOWER[-2:0:-1]]


@pytest.fixture(scope="module")
def shut(portrait_face: Face) -> np.ndarray:
    """The portrait's points with closed lips."""
    points = portrait_face.points.astype(np.float64)
    middle = (points[faces.LIPS_INNER_UPPER] + points[faces.LIPS_INNER_LOWER]) / 2
    points[faces.LIPS_INNER_UPPER] = points[faces.LIPS_INNER_LOWER] = middle
    return points


def inside(points: np.ndarray, size: int = 512) -> np.ndarray:
    """[size, size] mask of the open mouth."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(points[OUTLINE, :2]).astype(np.int32)], 1)
    return mask > 0


def test_nothing_is_drawn_between_closed_lips(portrait: Image, shut: np.ndarray) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    assert warper.flow(shut).mouth is None
    np.testing.assert_array_equal(Painter(portrait, warper).paint(warper.flow(shut)), portrait)


def test_an_open_mouth_shows_teeth_and_dark(portrait: Image, shut: np.ndarray) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    target = mouth_opened(shut, 0.14)
    image = np.full_like(portrait, 150)
    Painter(portrait, warper).complete(image, warper.flow(target))
    light = image[inside(target)].astype(np.float32) @ LUMA
    assert (light < 0.4 * skin_light(portrait, shut)).mean() > 0.15
    assert (light > 0.55 * skin_light(portrait, shut)).mean() > 0.05


def test_lips_that_part_a_little_show_a_dark_line(portrait: Image, shut: np.ndarray) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    painter = Painter(portrait, warper)
    slit, wide = mouth_opened(shut, 0.006), mouth_opened(shut, 0.14)
    lightest = []
    for target in (slit, wide):
        white, black = np.full_like(portrait, 250), np.zeros_like(portrait)
        for image in (white, black):
            painter.complete(image, warper.flow(target))
        assert white[(white != 250).any(-1)].mean() < 220
        lightest.append(float(np.percentile(black[inside(target)].astype(np.float32) @ LUMA, 95)))
    assert lightest[0] < 0.65 * lightest[1]


def opened_by(points: np.ndarray, gap_mm: float) -> np.ndarray:
    """[478, 3] the face with its lips this far apart."""
    eyes = points[[33, 133]].mean(0) - points[[362, 263]].mean(0)
    height = np.linalg.norm(points[10] - points[faces.CHIN])
    return mouth_opened(points, float(gap_mm / faces.IPD_MM * np.linalg.norm(eyes) / height))


def skin_light(picture: Image, points: np.ndarray) -> float:
    """Brightness of the cheeks, 0..255."""
    x, y = points[[50, 280], :2].astype(int).T
    return float((picture[y, x] @ LUMA).mean())


def test_a_small_opening_is_a_soft_shadow(portrait: Image, shut: np.ndarray) -> None:
    """At gaps of 4 to 6 mm, the brightness across the opening is that of the middle 60 % of 94 real frames."""
    warper = Warper(shut.astype(np.float32), 512, 512)
    target = opened_by(shut, 5)
    image = Painter(portrait, warper).paint(warper.flow(target))
    upper, lower = target[[82, 13, 312], :2], target[[87, 14, 317], :2]
    share = np.linspace(0.1, 0.9, 9)[:, None, None]
    x, y = np.moveaxis(upper + share * (lower - upper), -1, 0).round().astype(int)
    light = (image[y, x].astype(np.float32) @ LUMA).mean(1) / skin_light(portrait, shut)
    assert 0.21 < light.min() < 0.55 and 0.49 < light.max() < 0.89


def test_teeth_are_visible_in_a_medium_opening(portrait: Image, shut: np.ndarray) -> None:
    """At gaps of 6 to 9 mm, brightness varies by 0.20 of the skin's (standard deviation in real frames)."""
    warper = Warper(shut.astype(np.float32), 512, 512)
    target = opened_by(shut, 7)
    image = Painter(portrait, warper).paint(warper.flow(target))
    light = image[inside(target)].astype(np.float32) @ LUMA
    assert 0.19 < light.std() / skin_light(portrait, shut) < 0.25


def outline_of(width: float, gap: np.ndarray) -> np.ndarray:
    """[20, 2] outline of an opening with these 11 gaps from corner to corner."""
    x = np.linspace(0, width, 11)
    return np.concatenate([np.stack([x, 50 - gap / 2], 1), np.stack([x, 50 + gap / 2], 1)[-2:0:-1]])


def test_lips_meet_gradually_toward_the_corners() -> None:
    outline = outline_of(100, np.array([0, 1, 2, 6, 9, 10, 9, 6, 2, 1, 0.0]))
    tapered = mouth._tapered(outline, px_per_mm=1)
    left = tapered[19:10:-1, 1] - tapered[1:10, 1]
    # A gap of 2 is half of the 4 mm from which on an opening is as wide as its landmarks.
    np.testing.assert_allclose(left[[1, 2, 4, 6, 7]], [1, 6, 10, 6, 1], atol=1e-6)
    assert left[0] == pytest.approx(1 * (3 / 16 - 2 / 64))
    np.testing.assert_allclose(tapered[:, 0], outline[:, 0])
    np.testing.assert_allclose(mouth._tapered(0.1 * outline, px_per_mm=1)[5], 0.1 * outline[5])  # also if it is small


def test_pursed_lips_part_only_in_the_middle() -> None:
    """A mouth of 30 mm: gaps are multiplied by the smoothstep of their share of the largest one, by hand."""
    gap = np.array([0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0.0])
    tapered = mouth._tapered(outline_of(30, gap), px_per_mm=1)
    left = tapered[19:10:-1, 1] - tapered[1:10, 1]
    share = gap[1:10] / 5
    np.testing.assert_allclose(left, gap[1:10] * (3 * share**2 - 2 * share**3))
    along = mouth._gap_along(tapered, np.array([-5, 13.5, 15, 40], np.float32), np.array([0, 80], np.float32))
    np.testing.assert_allclose(along, [[0, (left[3] + left[4]) / 2, 5, 0]] * 2)


def test_an_opening_is_not_black_toward_its_corners(portrait: Image, shut: np.ndarray) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    target = mouth_opened(shut, 0.04)
    image = np.full_like(portrait, 150)
    Painter(portrait, warper).complete(image, warper.flow(target))
    light = image.astype(np.float32) @ LUMA / skin_light(portrait, shut)
    x, y = (target[faces.LIPS_INNER_UPPER, :2] + target[faces.LIPS_INNER_LOWER, :2]).T / 2
    for at in (round(x[0]) + 2, round(x[-1]) - 2):
        row = round(np.interp(at, x, y))
        assert light[row - 2 : row + 3, at].min() > 0.4
    row = round(y[5])
    assert light[row - 2 : row + 3, round(x[5])].min() < 0.3


def test_the_lips_edge_is_curved_through_its_points() -> None:
    """Points of an ellipse: the edge stays close to the ellipse, and a polygon does not."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    outline = np.stack([-50 * np.cos(angles), -20 * np.sin(angles)], 1)
    edge = mouth._curved(outline)
    np.testing.assert_allclose(edge[:: mouth._PER_SEGMENT], outline, atol=1e-9)
    away = np.abs(np.hypot(edge[:, 0] / 50, edge[:, 1] / 20) - 1)
    inner = np.abs(edge[:, 0]) < 45  # at the corners of the mouth, the curve ends
    chords = np.hypot(*((outline + np.roll(outline, 1, 0)) / 2 / [50, 20]).T)
    assert away[inner].max() < 0.15 * (1 - chords).max()


def test_the_line_between_closed_lips_stays_out_of_the_rims_of_open_ones(portrait: Image, shut: np.ndarray) -> None:
    lips = np.full_like(portrait, (190, 120, 120))
    line = np.round(shut[faces.LIPS_INNER_UPPER, :2]).astype(np.int32)
    cv2.polylines(lips, [line], False, (60, 20, 20), 2)
    warper = Warper(shut.astype(np.float32), 512, 512)
    target = mouth_opened(shut, 0.1)
    image = Painter(lips, warper).paint(warper.flow(target)).astype(np.float32) @ LUMA
    x, y = target[14, :2].round().astype(int)
    # Below the soft edge of the interior, the lower lip has the color of the lips.
    rim = image[y + 3 : y + 8, x - 10 : x + 11]
    np.testing.assert_allclose(rim, np.array((190, 120, 120)) @ LUMA, atol=6)


def test_a_little_more_open_is_a_little_different(portrait: Image, shut: np.ndarray) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    painter = Painter(portrait, warper)
    gaps = np.linspace(0, 0.06, 25)
    frames = [painter.paint(warper.flow(mouth_opened(shut, gap))).astype(float) for gap in gaps]
    box = cv2.boundingRect(np.round(mouth_opened(shut, 0.06)[OUTLINE, :2]).astype(np.int32))
    part = slice(box[1], box[1] + box[3]), slice(box[0], box[0] + box[2])
    steps = [np.abs(b[part] - a[part]).mean() for a, b in pairwise(frames)]
    assert max(steps) < 4 * np.mean(steps)


def test_teeth_are_gray_in_a_black_and_white_photo(portrait: Image, shut: np.ndarray) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    gray = np.repeat(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    image = Painter(gray, warper).paint(warper.flow(mouth_opened(shut, 0.16)))
    assert np.ptp(image.astype(int), axis=2).max() <= 1


def test_the_photos_own_teeth_stay_while_the_jaw_drops(portrait: Image, portrait_face: Face) -> None:
    """The portrait smiles: its teeth must not move, stretch or be replaced."""
    points = portrait_face.points.astype(np.float64)
    warper = Warper(portrait_face.points, 512, 512)
    assert warper.jaws.shows > 0.5
    opened = points.copy()
    opened[[*faces.LIPS_INNER_LOWER[1:-1], *faces.LIPS_OUTER_LOWER[1:-1]], 1] += 14
    image = Painter(portrait, warper).paint(warper.flow(opened))
    upper = points[faces.LIPS_INNER_UPPER[3:8], :2]
    lower = points[faces.LIPS_INNER_LOWER[3:8], :2]
    x, y = (0.5 * upper + 0.5 * lower).round().astype(int).T
    before, after = (picture[y, x].astype(np.float32) @ LUMA for picture in (portrait, image))
    assert np.abs(after - before).mean() < 0.1 * before.mean()


def test_the_photos_own_teeth_keep_their_light(portrait: Image, portrait_face: Face) -> None:
    """The portrait smiles. Behind lips that close halfway, its front teeth are neither darker nor brighter."""
    points = portrait_face.points.astype(np.float64)
    warper = Warper(portrait_face.points, 512, 512)
    half = points.copy()
    rise = 0.4 * (points[faces.LIPS_INNER_LOWER] - points[faces.LIPS_INNER_UPPER])[:, 1]
    half[faces.LIPS_INNER_LOWER, 1] -= rise
    half[faces.LIPS_OUTER_LOWER, 1] -= rise
    image = Painter(portrait, warper).paint(warper.flow(half))
    x, y = (
        (0.5 * half[faces.LIPS_INNER_UPPER[4:7], :2] + 0.5 * half[faces.LIPS_INNER_LOWER[4:7], :2])
        .round()
        .astype(int)
        .T
    )
    before, after = (
        cv2.GaussianBlur(picture, (0, 0), 1.0)[y, x].astype(np.float32) @ LUMA for picture in (portrait, image)
    )
    np.testing.assert_allclose(after, before, rtol=0.12)


def test_the_teeth_above_the_photos_own_do_not_take_their_spots() -> None:
    """A strip of own teeth of 180 +- 30 below a set of 200: the set becomes 180, the same everywhere."""
    u, v = teeth.wall_grid(3)
    seen = np.broadcast_to((np.abs(u) < 18) & (v[:, None] > -3) & (v[:, None] < 0), (len(v), len(u)))
    spots = np.broadcast_to((180 + 30 * np.sign(np.sin(u / 2)))[None, :, None], (*seen.shape, 3))
    weight = seen[..., None].astype(np.float32)
    lit = teeth.Texture(np.ones((*seen.shape, 1), np.float32), seen, 3, -teeth.HALF_MM, -teeth.TOP_MM)
    own = teeth.Texture(np.concatenate([spots, weight], -1).astype(np.float32), seen, 3, lit.left, lit.top)
    chosen = np.full((*seen.shape, 4), 200, np.float32)
    chosen[..., 3] = 1
    found = mouth._OwnTeeth(own, lit, 0.5, np.full(3, 180), 0.0, 8.0).under(chosen, 3)[..., :3]
    np.testing.assert_allclose(found[:, np.abs(u) < 12], 180, atol=4)


def test_pursed_lips_shade_the_teeth(portrait: Image, shut: np.ndarray) -> None:
    warper = Warper(shut.astype(np.float32), 512, 512)
    painter = Painter(portrait, warper)
    wide = mouth_opened(shut, 0.07)
    pursed, center = wide.copy(), wide[13, 0]
    pursed[faces.LIPS, 0] = center + 0.65 * (wide[faces.LIPS, 0] - center)
    x, y = np.round(0.5 * wide[13, :2] + 0.5 * wide[14, :2]).astype(int)
    light = [
        painter.paint(warper.flow(points))[y - 1 : y + 2, x - 2 : x + 3].astype(np.float32).mean((0, 1)) @ LUMA
        for points in (wide, pursed)
    ]
    assert light[1] < 0.85 * light[0]


def test_the_dark_between_parted_lips_is_not_taken_for_teeth(portrait: Image, portrait_face: Face) -> None:
    picture = portrait.copy()
    picture[cv2.dilate(inside(portrait_face.points).astype(np.uint8), np.ones((7, 7))) > 0] = 12
    target = mouth_opened(portrait_face.points, 0.1)
    warper = Warper(portrait_face.points, 512, 512)
    image = Painter(picture, warper).paint(warper.flow(target))
    skin = skin_light(portrait, portrait_face.points)
    light = image[inside(target)].astype(np.float32) @ LUMA
    assert np.percentile(light, 75) > 0.45 * skin  # 0.26 for teeth as dark as the gap


def test_the_mouth_does_not_depend_on_the_frame_below(portrait: Image, shut: np.ndarray) -> None:
    """The layer does not depend on the frame below it, because exported pages use it as a patch."""
    warper = Warper(shut.astype(np.float32), 512, 512)
    painter = Painter(portrait, warper)
    flow = replace(warper.flow(mouth_opened(shut, 0.1)), eyes=())
    low, middle, high = (np.full_like(portrait, shade) for shade in (0, 100, 200))
    for image in (low, middle, high):
        painter.complete(image, flow)
    assert np.abs(middle.astype(int) - (low.astype(int) + high.astype(int)) / 2).max() <= 1.5


def test_there_are_ten_sets_and_the_light_chooses() -> None:
    sets = teeth.shipped()
    assert len(sets) >= 10 and len({s.name for s in sets}) == len(sets)
    for one in sets:
        assert teeth.choose(one.skin, sets) is one
        assert (np.diff(one.bounds) > 4).all()
        middle = len(one.edges) // 2
        assert one.edges[middle - 1 : middle + 1].max() == pytest.approx(0, abs=0.01)


def test_a_texture_has_teeth_at_the_positions_of_its_set() -> None:
    one = teeth.shipped()[0]
    texture = teeth.upper_texture(one, 4)
    middles = (one.bounds[:-1] + one.bounds[1:]) / 2
    some = slice(3, -3)
    u = middles[some][None].astype(np.float32)
    edges = one.edges[some][None]
    assert (texture.at(u, edges - 1.5)[..., 3] > 0.9).all()
    assert (texture.at(u, edges + 0.8)[..., 3] < 0.1).all()
    # Darker between two teeth than in their middle.
    between = texture.at(one.bounds[some][None].astype(np.float32), np.full((1, one.bounds[some].size), -3.0))
    within = texture.at(u, np.full_like(u, -3.0))
    assert between[..., :3].mean() < 0.85 * within[..., :3].mean()


def test_teeth_stand_out_from_the_cavity_by_contrast_of_the_same_mean(
    portrait: Image, shut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = mouth_opened(shut, 0.35)

    def light_inside() -> np.ndarray:
        warper = Warper(shut, portrait.shape[1], portrait.shape[0])
        frame = Painter(portrait, warper).paint(warper.flow(target)).astype(float) @ LUMA
        mask = cv2.erode(inside(target, 512).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert mask.sum() > 100
        steps = np.hypot(*np.gradient(frame))
        return np.array([frame[mask].mean(), (steps[mask] ** 2).mean()])

    crisp = light_inside()
    monkeypatch.setattr(mouth, "_CRISP", 0.0)
    flat = light_inside()
    assert crisp[1] > 1.2 * flat[1]  # edge energy
    assert crisp[0] == pytest.approx(flat[0], rel=0.03)
