"""warps.py: sharing of warped frames, independent of the number of processes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from mimik.data.on_device.warps import Schedule


def test_without_reuse_every_episode_has_its_own() -> None:
    schedule = Schedule(seed=3, reuse=1, start=5, step=1, block=64)
    assert schedule.sources(np.arange(200)).tolist() == list(range(200))
    assert list(itertools.islice(schedule, 100)) == list(range(5, 105))


def test_a_block_takes_each_as_often_in_another_order() -> None:
    schedule = Schedule(seed=3, reuse=3, start=0, step=1, block=256)
    sources = schedule.sources(np.arange(3 * 256))
    assert (np.bincount(sources) == 3).all()
    assert sources[:256].tolist() == list(range(256))
    assert sources[256:512].tolist() != sources[512:].tolist()
    assert sorted(schedule.sources(3 * 256 + np.arange(768)).tolist()) == sorted([*range(256, 512)] * 3)
    assert schedule.progress(255) == 0 and schedule.progress(767) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_and_pauses_change_nothing(processes: int) -> None:
    whole = Schedule(seed=3, reuse=2, start=0, step=1, block=128).sources(np.arange(600))
    for rank in range(processes):
        own = np.arange(100 + rank, 600, processes)  # resumed after 100 episodes
        schedule = Schedule(seed=3, reuse=2, start=100 + rank, step=processes, block=128)
        assert (schedule.sources(own) == whole[own]).all()
        # A process makes exactly the frames it uses, each once per block, and before its first use.
        made: list[int] = []
        stream = iter(schedule)
        for source in schedule.sources(own).tolist():
            while source not in made:
                made.append(next(stream))
        assert len(made) == len(set(made))
        assert set(made) == set(schedule.sources(own).tolist())
        assert max(len(schedule.needed(block)) for block in range(3)) <= schedule.capacity
    # Two processes share the work without duplication.
    if processes == 2:
        needs = [set(Schedule(seed=3, reuse=2, start=r, step=2, block=128).needed(0).tolist()) for r in (0, 1)]
        assert not needs[0] & needs[1]
