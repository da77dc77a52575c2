"""cache.py: a folder of decoded clips shared by processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mimik.data.cache import FileCache


@pytest.mark.slow
def test_a_cache_is_filled_to_its_limit_and_looked_through_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    looks = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: looks.append(folder) or scandir(folder))
    cache = FileCache(tmp_path, 1000 * 100)
    added = 0
    while cache.has_room(100) and added < 2000:
        with cache.add(f"clip{added}") as file:
            file.write(bytes(100))
        added += 1
    assert 990 <= added <= 1000
    assert len(looks) < 200  # of a thousand clips


def test_what_others_put_there_counts(tmp_path: Path):
    (tmp_path / "theirs").write_bytes(bytes(60))
    cache = FileCache(tmp_path, 100)
    assert cache.has_room(40) and not FileCache(tmp_path, 100).has_room(41)
    assert not FileCache(tmp_path, 100).has_room(101)
