"""sources.py: videos in a stable order, and the person in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from made_files import touch
from mimik.data.preparation import sources as sources_module
from mimik.data.preparation.sources import Source, choose_people, cluster_people, find_sources


def test_sources_come_in_a_stable_order_by_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "in/id2/v1/b.mp4", "in/id1/v9/a.MP4", "in/.hidden/c.mp4", "in/id1/x.txt", "in/out/d.mp4", "odd.bin")
    found = find_sources([tmp_path / "in", tmp_path / "odd.bin"], skip=tmp_path / "in" / "out")
    assert [s.name for s in found] == ["id1/v9/a.MP4", "id2/v1/b.mp4", "odd.bin"]
    assert len({s.key for s in found}) == 3 and all(len(s.key) == 10 for s in found)


def test_the_voxceleb_layout_names_people_by_folder(tmp_path: Path) -> None:
    touch(tmp_path, "id2/v1/b.mp4", "id1/v9/a.mp4", "id1/v3/c.mp4")
    named, how, said = choose_people(find_sources([tmp_path]), None, None)
    assert (how, [s.person for s in named]) == ("folder", ["id1", "id1", "id2"])
    assert "folder" in said


def test_a_manifest_names_people_and_licenses_by_path_name_or_stem(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4", "in/b.mp4", "in/c.mp4", "in/d/e.mp4")
    table = tmp_path / "clips.csv"
    table.write_text("split,clip,person,license\nx,a,p1,CC0-1.0\nx,b.mp4,p2,\nx,d/e.mp4,p1,\n")
    named, how, said = choose_people(find_sources([tmp_path / "in"]), None, table)
    assert how == "manifest" and "1 video not in it" in said
    assert [(s.name, s.person, s.license) for s in named] == [
        ("a.mp4", "p1", "CC0-1.0"),
        ("b.mp4", "p2", None),
        ("c.mp4", None, None),
        ("d/e.mp4", "p1", None),
    ]


def test_without_folders_people_are_clustered_where_torch_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources = [Source(tmp_path / "a.mp4", "a.mp4")]
    monkeypatch.setattr(sources_module.importlib.util, "find_spec", lambda _: object())
    assert choose_people(sources, None, None)[1] == "cluster"
    monkeypatch.setattr(sources_module.importlib.util, "find_spec", lambda _: None)
    assert choose_people(sources, None, None)[1] == "clip"


def test_people_are_clustered_by_nearness() -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 1, (30, 128))
    who = rng.integers(0, 30, 1500)  # more than one block
    points = (centers[who] + rng.normal(0, 0.02, (1500, 128))).astype(np.float32)
    labels = np.array(cluster_people(points))
    assert len(set(labels)) == 30 == len(set(zip(labels.tolist(), who.tolist(), strict=True)))
    assert labels[0] == 0 and [int(v) for v in dict.fromkeys(labels.tolist())] == list(range(30))
    assert cluster_people(np.zeros((0, 128), np.float32)) == []
    far = np.eye(3, 128, dtype=np.float32)
    assert cluster_people(far) == [0, 1, 2]
