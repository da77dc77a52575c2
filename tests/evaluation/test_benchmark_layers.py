"""benchmarks/layers.py: selected frames, masks, edges and means computed by hand."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

import layers
from mimik.face.landmarks import Face


def faces_with(face: Face, gaps: list[float], lids: list[float]) -> Any:
    """[N, 478, 3] of a face with these lip gaps in eye distances, and eyelid openings relative to the usual one."""
    points = np.repeat(face.points[None].astype(np.float64), len(gaps), 0)
    eyes = np.linalg.norm(points[0, [33, 133]].mean(0) - points[0, [362, 263]].mean(0))
    for number, (gap, opening) in enumerate(zip(gaps, lids, strict=True)):
        points[number, 14, :2] = points[number, 13, :2] + [0, gap * eyes]
        for upper, lower in ((159, 145), (386, 374)):
            points[number, upper, :2] += (1 - opening) * (points[number, lower, :2] - points[number, upper, :2])
    return points


def test_frames_are_chosen_by_lips_and_lids(portrait_face: Face) -> None:
    gaps = [0.05, 0.01, 0.2, 0.3, 0.0, 0.13, 0.14, 0.15]
    lids = [1.0, 1.0, 1.0, 0.2, 0.9, 1.0, 1.0, 0.1]
    points = faces_with(portrait_face, gaps, lids)
    np.testing.assert_allclose(layers.lips_gap(points), gaps, atol=1e-6)
    np.testing.assert_allclose(layers.lids_gap(points), lids, atol=0.01)
    photo, some = layers.choose(points, "mouth") or (None, None)
    assert photo in (1, 4)
    assert some == [2, 3, 6, 7]  # of 2, 3, 5, 6, 7, evenly spaced
    photo, some = layers.choose(points, "eyes") or (None, None)
    assert photo in (0, 1, 2, 4, 5, 6)
    assert some == [3, 7]
    points[[1, 4]] = math.nan  # lips are never closed
    assert layers.choose(points, "mouth") is None
    assert layers.choose(points[:3] * math.nan, "eyes") is None


def test_edges_by_hand() -> None:
    ramp = np.repeat(np.arange(0, 60, 3, dtype=np.uint8)[None, :, None], 20, 0).repeat(3, 2)
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    assert layers.edge_energy(ramp, mask) == pytest.approx(9)  # 3 gray levels per pixel
    assert layers.edge_energy(np.full_like(ramp, 7), mask) == 0


def test_lips_mask_has_no_rim(portrait_face: Face) -> None:
    points = faces_with(portrait_face, [0.0], [1.0])[0]
    angles = np.linspace(math.pi, 3 * math.pi, len(layers.LIPS_INSIDE), endpoint=False)
    points[layers.LIPS_INSIDE, :2] = np.stack([50.5 + 20 * np.cos(angles), 40.5 + 10 * np.sin(angles)], 1)
    mask = layers.lips_mask(points, (80, 100))
    assert mask[40, 50] and not mask[40, 70] and not mask[30, 50]
    assert mask.sum() == pytest.approx(math.pi * 19 * 9, rel=0.06)


def test_means_and_comparison() -> None:
    def row(l1: float, edges: float) -> dict[str, Any]:
        return {"frames": 2, "l1": l1, "edges": edges}

    nothing = {"frames": 0, "l1": math.nan, "edges": math.nan}
    clips = {
        "a": {"mouth": {"geometry": row(10, 0.1), "copy": row(20, 1)}},
        "b": {"mouth": {"geometry": row(14, 0.3), "copy": nothing}, "eyes": {"geometry": row(6, 1)}},
        "c": {"mouth": {"geometry": row(15, 0.2), "copy": row(22, 3)}},
        "d": {},
    }
    found = layers.summary(clips)
    assert found["mouth"]["geometry"] == {"clips": 3, "frames": 6, "l1": 13, "edges": 0.2}
    assert found["mouth"]["copy"] == {"clips": 2, "frames": 4, "l1": 21, "edges": 2}
    before = {"mouth": {"geometry": {"l1": 26.0, "edges": 0.05}}}
    lines = layers.table(found, before)
    assert "| mouth | geometry | 13.00 | 0.20 | 3 | 0.500 | 0.05 |" in lines
    assert "| eyes | geometry | 6.00 | 1.00 | 1 |  |  |" in lines


@pytest.mark.parametrize(
    ("options", "said"), [(["--only", "nose"], "--only nose"), (["--data", "nowhere"], "--data nowhere")]
)
def test_impossible_options_are_one_sentence(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["layers.py", *options])
    assert layers.main() == 2
    assert said in capsys.readouterr().err
