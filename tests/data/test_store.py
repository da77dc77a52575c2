"""store.py and cache.py: the requested frames for any state of the cache; errors name damaged clips."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from mimik.config import InputError
from mimik.data.episodes import (
    Episodes,
)
from mimik.data.index import ClipInfo, read_index
from mimik.data.remote import DamagedClipError
from mimik.data.store import ClipStore
from synthetic_shards import SIDE, face_points, seen, write_index, write_shards


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_a_clip_gives_the_frames_asked_for(shards: Path, index: list[ClipInfo], cache_mb: float) -> None:
    store = ClipStore(shards, cache_mb=cache_mb)
    for numbers in ([39, 0, 5], [2], [38, 39], [31, 30, 31], [0, 35], list(range(40))):
        frames = store.read(index[0], numbers)
        assert frames.images.shape == (len(numbers), SIDE, SIDE, 3)
        assert seen(frames.images) == numbers
        assert np.abs(frames.points - face_points(40)[numbers]).max() <= 1 / 32
    tracks = store.tracks(index[0])
    assert np.abs(tracks.points - face_points(40)).max() <= 1 / 32
    assert tracks.blendshapes.shape == (40, 52)
    assert tracks.pose.shape == (40, 3)


def test_every_frame_alone_is_the_right_one(shards: Path, index: list[ClipInfo]) -> None:
    # Far frames are reached by seeking, near ones by decoding: both must be exact.
    store = ClipStore(shards)
    assert [seen(store.read(index[4], [n]).images)[0] for n in range(45)] == list(range(45))


def test_colors_are_not_swapped_and_not_shifted(tmp_path: Path) -> None:
    color = (200, 60, 30)
    path = tmp_path / "red.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width = stream.height = SIDE
        picture = np.full((SIDE, SIDE, 3), color, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    (line,) = write_shards(tmp_path, (1,))
    clip = ClipInfo.from_json(json.dumps(line))
    image = ClipStore(tmp_path)._decode(clip, path.read_bytes(), None)[0]
    assert np.abs(image.mean((0, 1)) - color).max() < 4


def test_cached_clips_are_read_once_by_all_and_never_beyond_the_bound(shards: Path, index: list[ClipInfo]) -> None:
    store = ClipStore(shards, cache_mb=0.4)  # one clip of 40 frames takes 0.37
    first = store.read(index[0], [3, 1])
    assert store.read(index[3], [2]).images.shape == (1, SIDE, SIDE, 3)
    assert store._cache is not None and {p.name for p in store._cache._folder.iterdir()} == {
        "lock",
        store._cache_name(index[0]),
    }
    copy = pickle.loads(pickle.dumps(store))
    copy.root = "/nowhere"
    assert (copy.read(index[0], [3, 1]).images == first.images).all()
    with pytest.raises(InputError, match="/nowhere"):
        copy.read(index[1], [0])


def test_the_cache_goes_with_the_store_and_survives_its_loss(shards: Path, index: list[ClipInfo]) -> None:
    store = ClipStore(shards, cache_mb=10)
    store.read(index[0], [0])
    assert store._cache is not None
    folder = store._cache._folder
    for path in folder.iterdir():
        path.unlink()
    assert seen(store.read(index[0], [7]).images) == [7]
    del store
    assert not folder.exists()


def test_smaller_frames(shards: Path, index: list[ClipInfo]) -> None:
    for cache_mb in (0, 10):
        store = ClipStore(shards, size=16, cache_mb=cache_mb)
        for _ in range(2):
            frames = store.read(index[0], [4, 9])
            assert frames.images.shape == (2, 16, 16, 3)
            assert np.abs(frames.points - face_points(40)[[4, 9]] / 2).max() <= 1 / 64
    with pytest.raises(InputError, match="size 64, but clip"):
        ClipStore(shards, size=64).read(index[0], [0])
    with pytest.raises(InputError, match="--size 64, but clip"):
        Episodes(ClipStore(shards, size=64), index)
    with pytest.raises(InputError, match="size of 1 px"):
        ClipStore(shards, size=0)


def damage(folder: Path, how: str) -> ClipInfo:
    """Shards of two clips, the first of them damaged."""
    lines = write_shards(folder, (12, 12))
    clip = ClipInfo.from_json(json.dumps(lines[0]))
    data = bytearray((folder / clip.shard).read_bytes())
    (mp4, mp4_size), (npz, npz_size) = clip.members["mp4"], clip.members["npz"]
    if how == "mp4":
        data[mp4 : mp4 + mp4_size] = bytes(mp4_size)
    elif how == "npz":
        data[npz + npz_size // 2] ^= 255
    elif how == "cut":
        del data[npz + 10 :]
    elif how == "moved":
        lines[0]["members"]["mp4"][0] += 512
    elif how == "frames":
        lines[0]["num_frames"] = 11
    write_index(folder, lines)
    (folder / clip.shard).write_bytes(data)
    return read_index(folder)[0]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("mp4", "video of 0 frames, 12 in the index"),
        ("npz", "damaged landmarks"),
        ("cut", "the shard ends at byte"),
        ("moved", "its mp4 is not at byte"),
        ("frames", "landmarks of 12 frames, 11 in the index"),
    ],
)
def test_a_damaged_clip_is_named_and_can_be_skipped(tmp_path: Path, how: str, message: str) -> None:
    clip = damage(tmp_path, how)
    with pytest.raises(DamagedClipError, match=message) as caught:
        ClipStore(tmp_path).read(clip, [0])
    assert clip.key in str(caught.value)
    assert clip.shard in str(caught.value)
    index = read_index(tmp_path)
    strict = Episodes(ClipStore(tmp_path), index, num_sources=2)
    bad = next(n for n in range(2) if strict.choose(n)[0] == 0)
    with pytest.raises(DamagedClipError):
        strict[bad]
    if how != "cut":  # this also removes the other clip
        item = Episodes(ClipStore(tmp_path), index, num_sources=2, skip_damaged=True)[bad]
        assert item["skipped"] > 0
        assert item["clip"] == 1
    else:
        with pytest.raises(InputError, match="damaged clips in a row"):
            Episodes(ClipStore(tmp_path), index, num_sources=2, skip_damaged=True)[bad]


def test_a_missing_shard_is_not_a_damaged_clip(tmp_path: Path) -> None:
    write_shards(tmp_path, (12,))
    clip = read_index(tmp_path)[0]
    (tmp_path / clip.shard).unlink()
    with pytest.raises(InputError, match="beside the index") as caught:
        ClipStore(tmp_path).read(clip, [0])
    assert not isinstance(caught.value, DamagedClipError)
