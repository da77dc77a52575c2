"""Motion fidelity: signals, contact, correlation and medians by hand; poses against known ones; the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mimik.config import InputError
from mimik.evaluation import motion_fidelity as fidelity
from mimik.evaluation.detectors import DetectedPoints
from mimik.evaluation.motion_fidelity import Contact
from mimik.face.landmarks import POINTS_68, Face, Image, Landmarker, canonical_mesh
from mimik.motion.frames import rotation_matrix

MODEL = canonical_mesh().vertices[POINTS_68]
SIZE = 400, 300


def seen(turn: list[float], face: Any = MODEL, scale: float = 9.0, place: tuple[float, float] = (210, 160)) -> Any:
    """[1, 68, 2] points of a distant face, rotated by rotation vector turn."""
    return (scale * face @ rotation_matrix(np.array(turn)).T)[None, :, :2] + place


@pytest.mark.parametrize(
    "turn", [[0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, -0.5, 0.0], [0.0, 0.0, 0.4], [0.2, 0.6, -0.3]]
)
def test_poses_of_known_faces_are_found(turn: list[float]) -> None:
    points = seen(turn)
    rotations, translations, scales = fidelity.poses(points, SIZE)
    np.testing.assert_allclose(rotations[0], rotation_matrix(np.array(turn)), atol=0.02)
    np.testing.assert_allclose(scales, 9, rtol=0.02)
    np.testing.assert_allclose(translations, [[210, 160]], atol=1)
    front = fidelity.frontal(points, rotations, translations, scales)
    np.testing.assert_allclose(front[0], MODEL[:, :2], atol=0.15)  # cm; due to weak perspective


def test_a_face_that_is_turned_away_is_not_read() -> None:
    points = seen([0.0, 1.4, 0.0])
    rotation = rotation_matrix(np.array([0.0, 1.4, 0.0]))[None]
    assert np.isnan(fidelity.frontal(points, rotation, np.array([[210.0, 160]]), np.array([9.0]))).all()


def test_turning_does_not_change_the_mouth() -> None:
    opened = MODEL.copy()
    opened[[67, 66, 65, 56, 57, 58, 8], 1] += 1.5
    points = np.concatenate([seen([0, yaw, 0.1], opened) for yaw in (-0.5, 0.0, 0.5)])
    front = fidelity.frontal(points, *fidelity.poses(points, SIZE))
    values = fidelity.shape_signals(front)
    for name in ("jaw", "lips_gap", "lip_width"):
        assert np.ptp(values[name]) < 0.01 * values[name].mean() + 0.004, name


def test_signals_of_shape_by_hand() -> None:
    face = np.zeros((2, 68, 2))
    face[:, [36, 39, 42, 45]] = [[-4, 0], [-2, 0], [2, 0], [4, 0]]  # eyes' centers 6 apart
    face[:, 17:27, 1] = -3
    face[1, 17:22, 1] = -3.6
    face[:, 48], face[:, 54] = [-3, 10], [3, 10]
    face[:, [50, 51, 52]], face[:, [61, 62, 63]] = [0, 9], [0, 9.6]
    face[:, [67, 66, 65]], face[:, [58, 57, 56]] = [0, 9.6], [0, 10.2]
    face[1, [67, 66, 65, 58, 57, 56], 1] += 1.2
    face[:, 33], face[:, 8] = [0, 6], [0, 15]
    face[:, [37, 38, 43, 44], 1], face[:, [41, 40, 47, 46], 1] = -0.3, 0.3
    face[1, [37, 38]] = face[1, [41, 40]]  # one eye shut
    found = fidelity.shape_signals(face)
    expected = {
        "jaw": [1.5, 1.5],
        "lips_gap": [0, 0.2],
        "lip_width": [1, 1],
        "lip_rounding": [0.2, 0.2],
        "brows": [0.5, 0.55],
        "lids_gap": [0.1, 0.05],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-9, err_msg=name)


def test_gaze_is_the_irises_place_and_unknown_in_shut_eyes(portrait_face: Face) -> None:
    mesh = np.repeat(portrait_face.points[None].astype(float), 3, 0)
    width = np.linalg.norm(mesh[0, [133, 263]] - mesh[0, [33, 362]], axis=-1)
    for corners, iris, one in (((33, 133), 468, width[0]), ((362, 263), 473, width[1])):
        along = mesh[0, corners[1], :2] - mesh[0, corners[0], :2]
        mesh[1, iris, :2] += 0.1 * one * along / np.linalg.norm(along)
    mesh[2, [159, 386]] = mesh[2, [145, 374]]
    found = fidelity._gaze(mesh)
    np.testing.assert_allclose(found[1] - found[0], [0.1, 0], atol=1e-6)
    assert np.isnan(found[2]).all()


def test_contact_by_hand() -> None:
    contact = Contact("lips_gap", 0.04, 0.08, False)
    driver = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.08, 0.2, 0.3, math.nan])
    result = np.array([0.01, 0.05, 0.07, 0.02, 0.30, 0.00, 0.05, 0.2, 0.3, 0.0])
    found = fidelity.agreement(driver, result, contact)  # 0.05 and 0.07 are neither; the limit is 0.06
    assert found == {
        "frames": 7,
        "agreement": pytest.approx(5 / 7),
        "precision": pytest.approx(3 / 4),
        "recall": pytest.approx(3 / 4),
        "open_recall": pytest.approx(2 / 3),
        "driver_open": pytest.approx(3 / 7),
        "result_open": pytest.approx(3 / 7),
    }


def test_lids_are_judged_by_their_own_usual_opening() -> None:
    contact = Contact("lids_gap", 0.45, 0.75, True)
    driver = np.array([1.0] * 18 + [0.1, 0.2])
    wide_and_shut = np.array([3.0] * 18 + [0.3, 2.7])
    found = fidelity.agreement(driver, wide_and_shut, contact)
    assert found["frames"] == 20
    assert found["recall"] == 0.5
    assert found["precision"] == 1
    nothing = fidelity.agreement(np.full(3, math.nan), np.ones(3), contact)
    assert nothing["frames"] == 0
    assert math.isnan(nothing["agreement"])


def test_following_by_hand() -> None:
    driver = np.array([0.0, 1, 0, -1, math.nan])
    found = fidelity.following(driver, 5 - 0.5 * driver, 0.5)
    assert found == {
        "correlation": pytest.approx(-1),
        "amplitude": pytest.approx(0.5),
        "driver_std": pytest.approx(math.sqrt(0.5)),
        "frames": 4,
    }
    half = fidelity.following(driver, np.array([1.0, 1, -1, -1, 0]), 0.5)
    assert half is not None
    assert half["correlation"] == pytest.approx(math.sqrt(0.5))
    assert half["amplitude"] == pytest.approx(math.sqrt(2))
    still = fidelity.following(driver, np.ones(5), 0.5)
    assert still is not None and (still["correlation"], still["amplitude"]) == (0, 0)
    assert fidelity.following(driver, driver, 0.8) is None  # moves less than that
    assert fidelity.following(driver[:2], driver[:2], 0.0) is None


def values_of(count: int, **signals: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=count) for name in fidelity.SIGNALS} | signals


def test_a_face_that_is_lost_and_an_odd_frame() -> None:
    driver = values_of(11)
    result = {name: values[:10].copy() for name, values in driver.items()}
    for values in result.values():
        values[:2] = math.nan
    found = fidelity.compare_signals(driver, result)
    assert found["frames"] == 10
    assert found["lost"] == pytest.approx(0.2)
    assert found["signals"]["jaw"]["correlation"] == pytest.approx(1)
    assert found["signals"]["jaw"]["frames"] == 8
    with pytest.raises(InputError, match="the driver has 11 frames and the result 5"):
        fidelity.compare_signals(driver, {name: values[:5] for name, values in driver.items()})


def pair(agreement: float, correlation: float, amplitude: float) -> dict[str, Any]:
    contact = dict.fromkeys(("precision", "recall", "open_recall", "driver_open", "result_open"), 0.5)
    moved = {"correlation": correlation, "amplitude": amplitude, "driver_std": 1.0, "frames": 9}
    return {
        "contacts": {name: {"agreement": agreement, "frames": 9, **contact} for name in fidelity.CONTACTS},
        "signals": {"jaw": moved, "brows": moved},
    }


def test_medians_and_what_is_missed() -> None:
    pairs = {"a": pair(1, 0.95, 0.9), "b": pair(0.9, 0.85, 0.5), "c": pair(0.96, 0.86, 1.2), "d": pair(math.nan, 1, 1)}
    pairs["d"]["signals"] = {}
    found = fidelity.fidelity_summary(pairs, num_worst=2)
    assert found["lips"]["agreement"] == 0.96
    assert found["lips"]["pairs"] == 3
    assert found["lips"]["worst"] == ["b", "c"]
    assert found["lips"]["missed"] == []
    assert found["jaw"]["correlation"] == 0.86
    assert found["jaw"]["amplitude"] == 0.9
    assert found["jaw"]["within_amplitude"] == pytest.approx(1 / 3)
    assert found["jaw"]["missed"] == ["correlation"]  # 0.9 for the jaw
    assert found["brows"]["missed"] == []  # 0.8 for brows
    assert "yaw" not in found
    lines = fidelity.table(found)
    assert "| lips | 96 % | 50 % | 50 % | 50 % | 50 % | 3 |  |" in lines
    assert "| jaw opening | 0.86 | 0.90 | 1.000 | 3 | correlation |" in lines


def test_numbers_for_json() -> None:
    assert fidelity.rounded({"a": [0.123456, math.nan], "b": (1, "x")}) == {"a": [0.1235, None], "b": [1, "x"]}


@pytest.mark.slow
def test_the_command_measures_a_driver_against_itself(
    driver: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    assert fidelity.main([str(driver.path), str(driver.path), "--fps", "5", "-o", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["lost"] == 0
    assert report["contacts"]["lips"]["agreement"] == 1
    assert all(row["amplitude"] == 1 for row in report["signals"].values())
    assert report["detector"] in capsys.readouterr().out
    assert fidelity.main([str(tmp_path / "none.mp4"), str(driver.path)]) == 2
    assert "none.mp4" in capsys.readouterr().err


def test_signals_of_found_faces(landmarker: Landmarker, portrait: Image, portrait_face: Face) -> None:
    nothing = np.full((1, 478, 3), np.nan, np.float32)
    mesh = np.concatenate([portrait_face.points[None], nothing])
    shapes = np.stack([portrait_face.blendshapes, np.full(52, np.nan, np.float32)])
    found = fidelity.signals(DetectedPoints(mesh[:, POINTS_68, :2], mesh, shapes, (512, 512)))
    assert found.keys() == fidelity.SIGNALS.keys()
    for values in found.values():
        assert np.isfinite(values[0]) and np.isnan(values[1])
    assert abs(found["yaw"][0]) < 15
