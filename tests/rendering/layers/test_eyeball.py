"""eyeball.py: a drawn eyeball is reconstructed behind eyelids that hide a part of it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mimik.rendering.layers.canvas import LUMA
from mimik.rendering.layers.eyeball import LIMBUS, extract_eyeball, filled

SCLERA, IRIS, PUPIL = (230.0, 226.0, 220.0), (60.0, 110.0, 160.0), (15.0, 12.0, 10.0)
CENTER, RADIUS = np.array([60.0, 40.0]), 18.0


def eyeball(catchlight: bool = False) -> np.ndarray:
    ball = np.full((80, 120, 3), SCLERA, np.float32)
    at = tuple(int(v) for v in CENTER)
    cv2.circle(ball, at, int(RADIUS), IRIS, -1, cv2.LINE_AA)
    cv2.circle(ball, at, int(0.4 * RADIUS), PUPIL, -1, cv2.LINE_AA)
    if catchlight:
        cv2.circle(ball, (at[0] + 9, at[1] - 3), 2, (255.0, 255.0, 255.0), -1)
    return ball


def between_lids() -> np.ndarray:
    """[80, 120] an almond that hides the upper third of the iris."""
    mask = np.zeros((80, 120), np.uint8)
    cv2.ellipse(mask, (60, 45), (48, 15), 0, 0, 360, 255, -1, cv2.LINE_AA)
    return mask.astype(np.float32) / 255


def test_what_the_lids_hid_is_found_again() -> None:
    truth, seen = eyeball(), between_lids()
    lids = np.array([200.0, 150.0, 120.0], np.float32)
    window = lids + seen[..., None] * (truth - lids)
    ball = extract_eyeball(window, seen, seen, np.ones_like(seen), CENTER, RADIUS)
    assert ball.radius == pytest.approx(RADIUS, rel=0.1)
    np.testing.assert_allclose(ball.center, CENTER, atol=0.15 * RADIUS)
    y, x = np.mgrid[:80, :120]
    near = np.hypot(x - 60, y - 40) < 1.4 * RADIUS
    off = np.abs(ball.composed() - truth).mean(-1)
    assert off[near & (seen > 0.99)].mean() < 1
    assert off[near & (seen < 0.01)].mean() < 14  # hidden: equal except at the rims
    np.testing.assert_allclose(ball.sclera[20, 60], SCLERA, atol=6)  # under the lid, over the iris


def test_a_sclera_that_is_seen_in_shadow_is_continued_in_light() -> None:
    """Dark red between the lids: the hidden sclera has the requested brightness and is less red."""
    seen = between_lids()
    window = np.where(np.isclose(eyeball(), SCLERA), np.float32([90, 40, 40]), eyeball()).astype(np.float32)
    ball, plain = (
        extract_eyeball(window, seen, seen, np.ones_like(seen), CENTER, RADIUS, least) for least in (150.0, 0.0)
    )
    hidden, before = ball.sclera[48, 60], plain.sclera[48, 60]  # under the iris
    assert hidden @ LUMA == pytest.approx(150, abs=10)
    assert before @ LUMA < 80
    assert np.ptp(hidden) < np.ptp(before)
    np.testing.assert_allclose(ball.sclera[46, 25], [90, 40, 40], atol=2)  # the visible part is unchanged


def test_a_circle_that_is_off_is_drawn_to_the_iris() -> None:
    seen = between_lids()
    ball = extract_eyeball(eyeball(), seen, seen, np.ones_like(seen), CENTER + np.array([4, 0]), 1.2 * RADIUS)
    assert abs(ball.center[0] - CENTER[0]) < 2.5
    assert ball.radius == pytest.approx(RADIUS, rel=0.1)


def test_a_reflection_is_apart_from_the_iris() -> None:
    seen = between_lids()
    ball = extract_eyeball(eyeball(catchlight=True), seen, seen, np.ones_like(seen), CENTER, RADIUS)
    np.testing.assert_allclose(ball.iris[37, 69], IRIS, atol=12)
    assert ball.catchlight[37, 69].min() > 60
    assert ball.catchlight[50, 55].max() < 5
    without = extract_eyeball(eyeball(), seen, seen, np.ones_like(seen), CENTER, RADIUS)
    assert without.catchlight.max() < 5  # a light iris around a pupil is not a reflection


def test_the_share_of_the_iris_ends_at_its_limbus() -> None:
    seen = np.ones((80, 120), np.float32)
    ball = extract_eyeball(eyeball(), seen, seen, seen, CENTER, RADIUS)
    y, x = np.mgrid[:80, :120]
    distance = np.hypot(x - ball.center[0], y - ball.center[1]) / ball.radius
    assert (ball.iris_share[distance <= LIMBUS[0] - 0.01] == 1).all()
    assert (ball.iris_share[distance >= LIMBUS[1] + 0.01] == 0).all()


def test_what_is_continued_agrees_with_what_is_known() -> None:
    ramp = np.broadcast_to(np.linspace(50, 200, 64, dtype=np.float32)[None, :, None], (32, 64, 3)).copy()
    known = np.zeros((32, 64), np.float32)
    known[10:22, 8:56] = 1
    out = filled(ramp, known, 8.0)
    np.testing.assert_allclose(out[known > 0], ramp[known > 0], atol=1e-3)
    assert np.abs(out - ramp)[4:10, 12:52].max() < 20
    np.testing.assert_allclose(filled(np.full_like(ramp, 7), known, 8.0), 7, atol=1e-3)
