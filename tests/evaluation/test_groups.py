"""benchmarks/groups.py: every number against a calculation by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

import groups
from mimik.config import InputError
from mimik.evaluation.metrics import METRICS
from mimik.face.landmarks import Face


@pytest.mark.parametrize(
    ("lab", "angle"),
    [
        ((70, 10, 20), 45),  # atan(20 / 20)
        ((50, 10, 20), 0),
        ((30, 10, 20), -45),
        ((60, 0, 10 * math.sqrt(3)), 30),
        ((70, 0, 0), 90),  # where division by b* fails
        ((70, 0, -20), 135),  # bluer than gray: lighter still, not -45
    ],
)
def test_ita_by_hand(lab: tuple[float, float, float], angle: float) -> None:
    assert groups.ita(np.array(lab, float)) == pytest.approx(angle)


def test_classes_begin_above_their_limits() -> None:
    named = {56: "very light", 55: "light", 41: "intermediate", 28: "tan", 10: "brown", -30: "dark", -45: "dark"}
    assert {angle: groups.class_of(angle) for angle in named} == named


def test_skin_of_a_known_color(portrait_face: Face) -> None:
    # sRGB 200, 150, 120 under D65 has Y = 0.3545 and Z / Zn = 0.2076, so L* = 116 Y^(1/3) - 16 = 66.10 and
    # b* = 200 (Y^(1/3) - (Z / Zn)^(1/3)) = 23.13.
    points = portrait_face.points
    image = np.empty((*np.ceil(points[:, 1::-1].max(0)).astype(int) + 9, 3), np.uint8)
    image[:] = 200, 150, 120
    found = groups.skin_ita(image, points)
    assert set(found) == {*groups.SKIN, "all"}
    # OpenCV uses a lookup table with 33 steps per side.
    assert list(found.values()) == pytest.approx([math.degrees(math.atan(16.10 / 23.13))] * 4, abs=0.5)


def test_skin_outside_the_picture_is_nothing(portrait_face: Face) -> None:
    found = groups.skin_ita(np.zeros((8, 8, 3), np.uint8), portrait_face.points + np.array([1e4, 0, 0]))
    assert all(math.isnan(value) for value in found.values())


def test_spearman_of_known_rankings() -> None:
    values = [1.0, 2.0, 30.0, 4.5, 5.0]
    assert groups.spearman(values, np.exp(values)) == pytest.approx(1)
    assert groups.spearman(values, [-v for v in values]) == pytest.approx(-1)
    # Ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24).
    assert groups.spearman([1, 2, 3, 4, 5], [20, 10, 40, 30, 50]) == pytest.approx(0.8)
    # Ranks 1 2 3 4 and 1 2.5 2.5 4: covariance 4.5, variances 5 and 4.5.
    assert groups.spearman([1, 2, 3, 4], [1, 7, 7, 9]) == pytest.approx(4.5 / math.sqrt(5 * 4.5))
    assert groups.spearman([1, 2, 3, 4, math.nan], [1, 2, 3, 4, 0]) == pytest.approx(1)
    assert math.isnan(groups.spearman([1, 2, 3], [5, 5, 5]))


def test_chance_is_the_table_s() -> None:
    # Critical value of Spearman's for 20 pairs, two-sided, 5 %: 0.447.
    assert groups.chance_spearman(20, num_samples=4000) == pytest.approx(0.447, abs=0.02)


def test_difference_of_constants_has_no_width() -> None:
    assert groups.difference_interval(np.full(5, 3.0), np.full(7, 1.0)) == (2, 2)
    assert all(math.isnan(end) for end in groups.difference_interval(np.array([3.0]), np.full(7, 1.0)))


def test_difference_interval_has_the_width_of_the_normal_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 400), rng.normal(0, 1, 100)
    low, high = groups.difference_interval(a, b)
    half = 1.96 * math.sqrt(a.var() / 400 + b.var() / 100)
    assert (low, high) == pytest.approx((a.mean() - b.mean() - half, a.mean() - b.mean() + half), abs=0.05)


def test_gain_is_positive_where_the_second_is_better() -> None:
    before, after = np.array([2.0, math.nan]), np.array([1.5, 1.0])
    for name, expected in (("l1", 0.5), ("csim_dlib", -0.5), ("sharpness_ratio", math.log(2) - math.log(1.5))):
        found = groups.gains(METRICS[name], before, after)
        assert found[0] == pytest.approx(expected)
        assert math.isnan(found[1])


def rows_of(angles: list[float]) -> dict[str, dict[str, float]]:
    return {
        f"c{i}": {"ita": angle, "ita_frames": 2.0, "ita_cheeks": 1.0, "yaw": i, "face_px": 100.0, "sharpness": 0.1}
        for i, angle in enumerate(angles)
    }


def test_report_of_six_clips_by_hand() -> None:
    rows = rows_of([60, 50, 40, 20, 10, 0])
    people = dict.fromkeys(rows, "a") | {"c5": "b"}
    seen = {"c0": dict.fromkeys(groups.SEEN, "yes"), "c1": dict.fromkeys(groups.SEEN, "no")}
    first = dict.fromkeys(rows, 10.0)
    second = {clip: 4.0 + i for i, clip in enumerate(rows)}
    values = {"l1": {"geometry": first, "texture": second}}
    found = groups.report(rows, people, seen, values, ("geometry", "texture"))

    assert (found["clips"], found["people"]) == (6, 2)
    assert found["ita"]["classes"] == {"very light": 1, "light": 1, "intermediate": 1, "tan": 1, "brown": 2, "dark": 0}
    below, above = (found["groups"]["ITA, 28 degrees"]["groups"][name] for name in ("below", "above"))
    assert (below["clips"], below["people"], above["people"]) == (3, 2, 1)
    assert below["metrics"]["l1"]["texture"]["mean"] == 8  # of 7, 8, 9
    assert above["metrics"]["l1"]["gain"]["mean"] == 5  # of 6, 5, 4
    difference = found["groups"]["ITA, 28 degrees"]["differences"]["l1"]
    assert (difference["texture"]["mean"], difference["gain"]["mean"]) == (3, -3)
    assert found["groups"]["ITA, thirds"]["differences"]["l1"]["texture"]["mean"] == 4  # 8.5 - 4.5
    assert found["groups"]["glasses"]["groups"]["yes"]["clips"] == 1
    assert found["correlations"]["l1"]["ita"] == pytest.approx({"texture": -1, "gain": 1})
    assert found["covariates"]["ITA and turn"] == pytest.approx(-1)

    lines = groups.tables(found)
    assert any(line.startswith("| ITA, 28 degrees: below | 3 (2) | 10 | 4 | 8.00 [") for line in lines)
    assert any(line.startswith("| ITA, 28 degrees: below less above | +3.00 [") for line in lines)
    assert not any(line.startswith("| glasses: yes less no") for line in lines)  # one clip has no spread


def test_values_are_read_and_missing_ones_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no clips\.csv"):
        groups.read_values(tmp_path, "first frame", ["geometry", "texture"])
    (tmp_path / "clips.csv").write_text(
        "protocol,clip,person,model,l1,csim_dlib\n"
        "first frame,a,p,geometry,3,\nfirst frame,a,p,texture,2,0.5\nT = 1,a,p,texture,9,0.9\n"
    )
    values, people = groups.read_values(tmp_path, "first frame", ["geometry", "texture"])
    assert values["l1"] == {"geometry": {"a": 3}, "texture": {"a": 2}}
    assert math.isnan(values["csim_dlib"]["geometry"]["a"])
    assert people == {"a": "p"}
    with pytest.raises(InputError, match=r"no geometry and texture under T = 1; it has geometry \(first frame\)"):
        groups.read_values(tmp_path, "T = 1", ["geometry", "texture"])


def test_labels_are_yes_or_no(tmp_path: Path) -> None:
    assert groups.read_labels(groups.LABELS)
    path = tmp_path / "labels.csv"
    path.write_text("clip,glasses,beard,teeth\na,yes,no,no\nb,yes,perhaps,no\n")
    with pytest.raises(InputError, match="line 3 is not a clip and yes or no"):
        groups.read_labels(path)


def test_what_cannot_be_used_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["groups.py", str(tmp_path), "--data", str(tmp_path)])
    assert groups.main() == 2
    assert capsys.readouterr().err.startswith("error: ")
