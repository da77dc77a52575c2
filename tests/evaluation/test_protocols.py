"""protocols.py: photos and targets never overlap, short clips are omitted."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from evaluation_clips import clip_info

from mimik.config import InputError
from mimik.evaluation import protocols
from mimik.evaluation.protocols import FIRST
from mimik.evaluation.settings import EvaluateConfig


def test_photos_and_targets_never_overlap() -> None:
    index = [clip_info(f"clip{number}", num_frames) for number, num_frames in enumerate((3, 20, 47, 200))]
    found = protocols.tasks(index, EvaluateConfig(shots=(1, 8), holdout=12))
    assert [(task.clip.key, task.protocol) for task in found] == [
        ("clip1", FIRST),
        ("clip1", "T = 1"),
        ("clip1", "T = 8"),
        *[(f"clip{n}", protocol) for n in (2, 3) for protocol in (FIRST, "T = 1", "T = 8")],
    ]
    for task in found:
        assert not set(task.sources) & set(task.targets)
        assert max(*task.sources, *task.targets) < task.clip.num_frames
    one, eight = found[1], found[2]
    assert one.targets == eight.targets
    assert eight.sources[:1] == one.sources
    assert (found[0].sources, found[0].targets) == ((0,), tuple(range(1, 20)))
    with pytest.raises(InputError, match="the longest of 4 clips has 200"):
        protocols.tasks(index, EvaluateConfig(shots=(190,), holdout=12))


def test_the_papers_numbers_of_photos_leave_short_clips_out() -> None:
    index = [clip_info(f"clip{number}", num_frames) for number, num_frames in enumerate((40, 63, 64))]
    found = protocols.tasks(index, EvaluateConfig(shots=(8, 32), holdout=32))
    assert [task.clip.key for task in found if task.protocol == "T = 8"] == ["clip0", "clip1", "clip2"]
    (task,) = [task for task in found if task.protocol == "T = 32"]
    assert task.clip.key == "clip2"
    assert sorted([*task.sources, *task.targets]) == list(range(64))
