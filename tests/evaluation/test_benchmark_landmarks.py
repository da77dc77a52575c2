"""benchmarks/landmarks.py: distances, regions and comparisons computed by hand; the message without dlib."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

import landmarks


def test_regions_are_the_68_points() -> None:
    assert [i for part in landmarks.REGIONS.values() for i in range(68)[part]] == list(range(68))


def test_distances_by_hand() -> None:
    real = np.zeros((3, 68, 2), np.float32)
    result = real.copy()
    result[0, 7] = 3, 4  # 5 px of 50: 10 %
    result[1, 7] = 6, 8  # 10 px of 100: 10 %
    result[1, 60] = 0, 1
    result[2] = math.nan  # missing: ignored
    found = landmarks.distances(real, result, np.array([50.0, 100.0, 1.0]))
    expected = np.zeros(68)
    expected[7], expected[60] = 10, 0.5
    np.testing.assert_allclose(found, expected)
    regions = landmarks.by_region(found)
    assert regions["all"] == pytest.approx(10.5 / 68)
    assert regions["jaw"] == pytest.approx(10 / 17)
    assert regions["mouth"] == pytest.approx(0.5 / 20)
    assert regions["brows"] == regions["nose"] == regions["eyes"] == 0
    assert np.isnan(landmarks.distances(real, np.full_like(result, math.nan), np.ones(3))).all()


def test_slope_is_the_part_of_the_motion_that_is_made() -> None:
    real = np.zeros((5, 68, 2), np.float32)
    upper, lower = landmarks.OPENINGS["lips"]
    opening = np.array([0, 2, 4, 9, 5], np.float32)
    real[:, lower, 1] = opening[:, None]
    result = 100 + 0.6 * real
    result[:, lower, 1] += 3  # a mouth that never closes still has the same motion
    real[3], result[4] = math.nan, math.nan
    found = landmarks.slopes(real, result, np.full(5, 100.0))
    assert found["lips"] == pytest.approx(0.6, rel=1e-4)
    assert math.isnan(found["lids"])
    assert math.isnan(landmarks.slopes(real, result, np.full(5, 1000.0))["lips"])  # changes by less than 1 %
    assert len(upper) == len(lower)


def test_models_are_compared_clip_by_clip() -> None:
    def even(value: float, lips: float = math.nan) -> dict[str, Any]:
        return {"apart": [value] * 68, "lips": lips, "lids": 0.25 * value}

    clips = {
        "a": {"geometry": even(2), "texture": even(1, 0.5), landmarks.FLOOR: even(0.5)},
        "b": {"geometry": even(4), "texture": even(3, 0.7), landmarks.FLOOR: even(0.5)},
        "c": {"geometry": even(1), "texture": even(3), landmarks.FLOOR: even(0.5)},
    }
    found = landmarks.compared(clips, "geometry")
    mouth = found["texture"]["mouth"]
    assert mouth["mean"] == pytest.approx(7 / 3)
    assert mouth["difference"] == pytest.approx(0)  # of -1, -1 and 2
    assert mouth["better"] == pytest.approx(2 / 3)
    assert found["geometry"]["all"]["difference_interval"] == (0, 0)
    assert found["texture"]["lips"] == {"clips": 2, "median": pytest.approx(0.6)}
    lines = landmarks.table(found, "geometry").splitlines()
    assert lines[3].startswith("| texture | 2.33 [")
    assert lines[3].endswith("| 2.33 | 2.33 | 2.33 | 2.33 | 2.33 | 0.60 | 0.75 |")
    assert "| texture better in | 67 % | 67 % | 67 % | 67 % | 67 % | 67 % |  |  |" in lines
    assert not any(line.startswith((f"| {landmarks.FLOOR} less", "| geometry less")) for line in lines)


def test_missing_dlib_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "dlib" else find(name, *a))
    monkeypatch.setattr(sys, "argv", ["landmarks.py", "--data", str(tmp_path), "-o", str(tmp_path / "a.json")])
    assert landmarks.main() == 2
    assert "pip install '.[landmarks68]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "said"), [(["--step", "0"], "--step 0"), (["-o", "no/a.json"], "does not exist")])
def test_impossible_options_are_one_sentence(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["landmarks.py", "--data", "nowhere", *options])
    assert landmarks.main() == 2
    assert said in capsys.readouterr().err
