"""index.py: every field is read back and checked; a split has each person in one part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mimik.config import InputError
from mimik.data.index import ClipInfo, read_index, split_people
from synthetic_shards import LENGTHS, write_index


def test_index_gives_every_field(shards: Path, index: list[ClipInfo]) -> None:
    assert [clip.num_frames for clip in index] == list(LENGTHS)
    assert index[0].box == (1, 2, 64.5)
    assert index[1].shard == "clips-000000.tar"
    assert index[3].shard == "clips-000001.tar"
    assert [ClipInfo.from_json(clip.to_json()) for clip in index] == index
    assert read_index(shards / "index.jsonl") == index
    assert read_index(str(shards) + "/") == index


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": "red"}, "line 2: unknown field 'color'"),
        ({"person": None}, "'person' is 'None', not a name"),
        ({"num_frames": 0}, "'num_frames' is '0'"),
        ({"num_frames": True}, "'num_frames' is 'True'"),
        ({"shard": "../../etc/x.tar"}, "'shard'"),
        ({"key": "A b"}, "'key'"),
        ({"members": {"mp4": [0, 1]}}, "'members'"),
        ({"members": {"mp4": [0, 1], "npz": [-1, 2], "json": [1, 1]}}, "'members'"),
        ({"fps": float("inf")}, "'fps'"),
        ({"key": "0000000000_00"}, "appears twice"),
    ],
)
def test_index_lines_that_are_not_understood(
    shards: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    lines = [json.loads(line) for line in (shards / "index.jsonl").read_text().splitlines()]
    write_index(tmp_path, [lines[0], {**lines[1], **change}])
    with pytest.raises(InputError, match=message):
        read_index(tmp_path)


def test_index_with_a_missing_field_or_broken_line(shards: Path, tmp_path: Path) -> None:
    line = json.loads((shards / "index.jsonl").read_text().splitlines()[0])
    del line["licence"]
    write_index(tmp_path, [line])
    with pytest.raises(InputError, match="'licence' is missing"):
        read_index(tmp_path)
    (tmp_path / "index.jsonl").write_text('{"key": ')
    with pytest.raises(InputError, match="line 1: not JSON"):
        read_index(tmp_path)
    (tmp_path / "index.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match="line 1: not JSON"):
        read_index(tmp_path)
    (tmp_path / "index.jsonl").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        read_index(tmp_path)


def test_no_index_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mimik prepare -o"):
        read_index(tmp_path)
    (tmp_path / "index.jsonl").touch()
    with pytest.raises(InputError, match="lists no clips"):
        read_index(tmp_path)


def test_people_are_on_one_side_only(index: list[ClipInfo]) -> None:
    train, held_out = split_people(index, 0.25, seed=3)
    assert {c.person for c in train}.isdisjoint({c.person for c in held_out})
    assert len({c.person for c in held_out}) == 1
    assert sorted([*train, *held_out], key=index.index) == index
    assert split_people(index[::-1], 0.25, seed=3)[1] == held_out[::-1]
    assert len({split_people(index, 0.25, seed=seed)[1][0].person for seed in range(20)}) > 1
    with pytest.raises(InputError, match="two or more"):
        split_people(index[:2], 0.5)
    with pytest.raises(InputError, match="between 0 and 1"):
        split_people(index, 1.0)
