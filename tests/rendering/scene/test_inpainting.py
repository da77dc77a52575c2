"""inpainting.py: holes in known patterns."""

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mimik.rendering.scene import inpainting
from mimik.rendering.scene.inpainting import fill


def _hole(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (x - width / 2) ** 2 + (y - 0.62 * height) ** 2 < (0.22 * width) ** 2


def _bricks(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    row = y // 16
    mortar = (y % 16 < 3) | ((x + 14 * (row % 2)) % 28 < 3)
    return np.where(mortar[..., None], [215, 210, 200], [150, 70, 50]).astype(np.uint8)


def test_outside_of_the_hole_nothing_changes() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    hole = _hole(90, 120)
    filled = fill(picture, hole, 20)
    np.testing.assert_array_equal(filled[~hole], picture[~hole])
    np.testing.assert_array_equal(fill(picture, np.zeros_like(hole), 20), picture)


def test_a_plain_wall_stays_plain() -> None:
    picture = np.full((90, 120, 3), [120, 130, 90], np.uint8)
    hole = _hole(90, 120)
    picture[hole] = 0
    assert np.abs(fill(picture, hole, 20).astype(int) - [120, 130, 90]).max() <= 3


def test_courses_of_bricks_go_on() -> None:
    """Within the reach, most pixels equal the wall's; a smooth filling does not come close."""
    picture = _bricks(224, 224)
    hole = _hole(224, 224)
    damaged = picture.copy()
    damaged[hole] = 0
    filled = fill(damaged, hole, 24)
    y, x = np.mgrid[:224, :224]
    distance = 0.22 * 224 - np.hypot(x - 112, y - 0.62 * 224)
    near = hole & (distance < 16)
    off = np.abs(filled.astype(int) - picture).max(-1)[near]
    assert (off < 40).mean() > 0.8
    assert np.abs(picture[near].astype(int) - picture[near].mean(0)).max(-1).mean() > 40  # the error of a mean


@pytest.mark.parametrize("axis", [0, 1])
def test_copies_take_the_light_of_their_new_place(axis: int) -> None:
    """On an unevenly lit wall; copies of the bricks that fit best come from elsewhere."""
    light = np.expand_dims(np.linspace(1, 0.6, 224), (1 - axis, 2))
    picture = (_bricks(224, 224) * light).astype(np.uint8)
    hole = _hole(224, 224)
    damaged = picture.copy()
    damaged[hole] = 0
    y, x = np.mgrid[:224, :224]
    near = hole & (0.22 * 224 - np.hypot(x - 112, y - 0.62 * 224) < 6)
    assert np.abs(fill(damaged, hole, 24).astype(int) - picture)[near].mean() < 4


def test_detail_fades_out_where_the_reach_ends() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (448, 448, 3)).astype(np.uint8)
    hole = np.zeros((448, 448), bool)
    hole[100:340, 100:340] = True
    filled = fill(picture, hole, 48).astype(np.float32)
    detail = np.abs(filled - cv2.GaussianBlur(filled, (0, 0), 2)).mean(-1)[180:260, 100:220].mean(0)
    assert detail[8] > 10 and detail[60:].max() < 1
    assert (detail[:-2] - detail[2:]).max() < 0.5 * detail[8]  # without fading: 0.9


def test_a_window_frame_stays_straight() -> None:
    picture = np.full((160, 200, 3), [180, 200, 220], np.uint8)
    picture[:, 96:104] = [60, 50, 40]
    hole = _hole(160, 200)
    damaged = picture.copy()
    damaged[hole] = 255
    filled = fill(damaged, hole, 20)
    rows = np.flatnonzero(hole[:, 100])[:12]
    assert np.abs(filled[rows, 98:102].astype(int) - [60, 50, 40]).max() <= 34
    assert np.abs(filled[rows][:, [90, 110]].astype(int) - [180, 200, 220]).max() <= 24


def _slowly_grown(
    colors: NDArray[Any], hole: NDArray[Any], candidates: NDArray[Any], expected: NDArray[Any], reach: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Reference of _grown: each candidate over the whole picture, one after the other."""
    image, known = colors.copy(), (~hole).astype(np.float32)
    price = np.zeros(hole.shape, np.float32)
    labels, used = np.full(hole.shape, -1, np.int32), set[tuple[int, int]]()
    pure = cv2.erode(known, np.ones((5, 5)), borderType=cv2.BORDER_REPLICATE)
    chosen, done = np.zeros((*hole.shape, 2), np.float32), known.copy()
    sources = [
        (dx, dy, inpainting._shifted(colors, dx, dy), inpainting._shifted(pure, dx, dy))
        for dx, dy in candidates.tolist()
    ]
    for _ in range(int(np.ceil(reach / inpainting._RING))):
        ring = (cv2.dilate(done, np.ones((2 * inpainting._RING + 1,) * 2)) > 0) & (done == 0)
        if not ring.any():
            break
        x, y, width, height = cv2.boundingRect(ring.astype(np.uint8))
        low = max(x - inpainting._PATCH, 0), max(y - inpainting._PATCH, 0)
        part = np.s_[low[1] : y + height + inpainting._PATCH, low[0] : x + width + inpainting._PATCH]
        inside = ring[part]
        here, weight = image[part], done[part]
        total = cv2.blur(weight, (inpainting._PATCH, inpainting._PATCH)) + np.float32(1e-4)
        is_ring = inside.astype(np.float32)
        num_ring = cv2.blur(is_ring, (inpainting._JOINT, inpainting._JOINT)) + np.float32(1e-6)
        best = np.full(int(inside.sum()), np.inf, np.float32)
        raw, shift = np.zeros_like(best), np.zeros((len(best), 2), np.float32)
        mean = cv2.blur(here * weight[..., None], (inpainting._PATCH, inpainting._PATCH)) / total[..., None]
        square = (
            cv2.transform(
                cv2.blur(here * here * weight[..., None], (inpainting._PATCH, inpainting._PATCH)), inpainting._SUM
            )
            / total
        )
        allowed = (
            np.float32(inpainting._DEAR[0])
            + np.float32(inpainting._DEAR[1]) * (square - (mean * mean).sum(-1)).clip(0)[inside]
        )
        for dx, dy, source, is_pure in sources:
            valid_of = is_pure[part] > 0
            valid = valid_of[inside]
            if not valid.any():
                continue
            apart = cv2.subtract(here, source[part])
            squared = cv2.transform(cv2.multiply(apart, apart), inpainting._SUM)
            cost = cv2.min(
                cv2.blur(squared * weight, (inpainting._PATCH, inpainting._PATCH)) / total, inpainting._WORST
            )
            apart_by = cost[inside]
            off = cv2.subtract(expected[part], source[part])
            cost += np.float32(inpainting._PRIOR) * cv2.transform(cv2.multiply(off, off), inpainting._SUM)
            if (dx, dy) in used:
                goes_on = cv2.dilate(
                    (labels[part] == dx + 1000 * dy).astype(np.uint8), np.ones((2 * inpainting._RING + 1,) * 2)
                )
                cost[goes_on > 0] *= np.float32(inpainting._GOES_ON)
            cost[inside & ~valid_of] = inpainting._WORST
            cost = (cv2.blur(cost * is_ring, (inpainting._JOINT, inpainting._JOINT)) / num_ring)[inside]
            cost += np.float32(inpainting._FAR * (dx * dx + dy * dy) ** 0.5 / max(hole.shape))
            better = valid & (cost < best)
            best[better] = cost[better]
            raw[better] = apart_by[better]
            shift[better] = dx, dy
        found = np.isfinite(best)
        rows, columns = (index + start for index, start in zip(np.nonzero(inside), low[::-1], strict=True))
        rows, columns, shift = rows[found], columns[found], shift[found]
        if not len(rows):
            break
        chosen[rows, columns] = shift
        labels[rows, columns] = shift[:, 0] + 1000 * shift[:, 1]
        used |= set(map(tuple, np.unique(shift, axis=0).astype(int).tolist()))
        image[rows, columns] = colors[rows + shift[:, 1].astype(int), columns + shift[:, 0].astype(int)]
        done[rows, columns] = 1
        price[rows, columns] = (raw / allowed)[found]
    filled = (done > 0) & hole
    labels = np.where(filled, (chosen[..., None, :] == candidates).all(-1).argmax(-1), -1)
    agreed = candidates[inpainting._agreed(candidates, labels, pure)] * filled[..., None]
    return agreed.astype(np.float32), filled, (1.5 - price).clip(0, 1)


def test_filling_at_once_is_filling_candidate_by_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """With clear patterns and with noise, at the picture's edge and in its middle."""
    noise = np.random.default_rng(3).integers(0, 256, (60, 56, 3)).astype(np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), 1.5)
    pictures = [_bricks(60, 56), np.where(np.arange(56)[:, None] < 28, _bricks(60, 56), noise)]
    for picture in pictures:
        hole = _hole(*picture.shape[:2])
        hole[-12:, 20:30] = True
        at_once = fill(picture, hole, 8)
        with monkeypatch.context() as patched:
            patched.setattr(inpainting, "_grown", _slowly_grown)
            np.testing.assert_array_equal(at_once, fill(picture, hole, 8))


def test_shifts_are_moved_to_where_the_edge_fits() -> None:
    """A shift that is wrong by up to two pixels in a repeating pattern, and an optimal shift."""
    tile = np.random.default_rng(1).random((16, 16, 3)).astype(np.float32)
    colors = np.tile(tile, (5, 6, 1))
    hole = np.zeros(colors.shape[:2], bool)
    hole[30:50, 30:44] = True
    for move in ((2, -1), (-2, 2), (0, 0)):
        chosen = np.zeros((*hole.shape, 2), np.float32)
        chosen[hole] = np.add((32, 0), move)
        np.testing.assert_array_equal(inpainting._exact(colors, hole, chosen, hole)[hole], np.full((280, 2), (32, 0)))


def test_a_copy_from_beyond_the_picture_stays_where_it_is() -> None:
    """Pixels beside a piece may map outside the source picture, for each direction of the move."""
    colors = np.random.default_rng(0).random((48, 48, 3), dtype=np.float32)
    hole = np.zeros((48, 48), bool)
    hole[20:28, 2:10] = True
    chosen = np.zeros((48, 48, 2), np.float32)
    chosen[hole] = (-9, 0)
    np.testing.assert_array_equal(inpainting._exact(colors, hole, chosen, hole), chosen)


def test_a_grainy_wall_has_the_same_grain_in_the_hole() -> None:
    wall = np.random.default_rng(0).normal(150, 4, (180, 240, 1)).repeat(3, 2)
    hole = _hole(180, 240)
    picture = np.rint(wall).astype(np.uint8)
    picture[hole] = 0
    filled = fill(picture, hole, 40, np.ones(hole.shape, np.float32)).astype(float)
    edge = hole & (cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5) < 30)
    assert filled[edge].mean() == pytest.approx(150, abs=3)
    fine = filled[..., 0] - cv2.GaussianBlur(filled[..., 0], (0, 0), 2)
    assert fine[edge].std() == pytest.approx(fine[~hole].std(), rel=0.25)


def test_the_tone_of_a_copy_ends_with_the_copy() -> None:
    """Interpolated across the outline of a copy, its tone would draw a line there."""
    chosen = np.zeros((12, 15, 2), np.float32)
    chosen[:, 7:] = (3, 1)
    chosen[:6, :7] = (0, 5)
    tone = np.where((chosen == (3, 1)).all(-1, keepdims=True), 30, -20).astype(np.float32).repeat(3, 2)
    enlarged = inpainting._within_pieces(tone, chosen, (40, 33))
    shifts = cv2.resize(chosen, (40, 33), interpolation=cv2.INTER_NEAREST)
    expected = np.where((shifts == (3, 1)).all(-1, keepdims=True), 30, -20).repeat(3, 2)
    np.testing.assert_allclose(enlarged, expected, atol=1e-3)


def test_copies_are_blended_with_their_tones() -> None:
    """Dark and bright copies whose tones make them equal: no line remains where they meet."""
    picture = np.full((60, 90, 3), 60, np.uint8)
    picture[:, 45:] = 140
    shifts, tone = np.zeros((60, 90, 2), np.float32), np.zeros((60, 90, 3), np.float32)
    left, right = np.s_[20:40, 30:43], np.s_[20:40, 43:60]
    shifts[left], tone[left] = (-25, 0), 40
    shifts[right], tone[right] = (20, 0), -40
    out = inpainting._copied(picture, shifts, tone, picture.astype(np.float32))
    np.testing.assert_allclose(out[20:40, 30:60], 100, atol=0.01)
