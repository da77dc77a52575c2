"""batches.py: batches from device memory against those of the frame-by-frame loader."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from torch.utils.data import default_collate

from conftest import turned
from mimik.arrays import Array
from mimik.data.augmentation import Augmentation
from mimik.data.episodes import Batch, Episodes, Warped
from mimik.data.index import ClipInfo, read_index
from mimik.data.on_device import warps
from mimik.data.on_device.batches import DeviceCorpus, DeviceLoader
from mimik.data.store import ClipFrames, ClipStore
from mimik.data.tracks import Tracks
from mimik.face.landmarks import Face, Image
from mimik.rendering.crop import Crop
from mimik.rendering.field import GRID
from mimik.rendering.flow import NUM_GEOMETRY, Warper
from mimik.rendering.painter import Painter
from synthetic_shards import write_shards

CPU = torch.device("cpu")
GEOMETRY_OFF = {"rotation_deg": 0.0, "scale": 0.0, "shift": 0.0}
# Mean absolute difference in gray levels; OpenCV resamples an augmented frame twice, the device once. `warped` is
# painted before augmentation instead of after it, with another grid of the flow.
LEVELS = {"x": 1.5, "x_s": 1.2, "y": 0.4, "y_s": 0.4, "regions": 1.0, "interior": 0.3, "warped": 2.0}
LEVELS |= {"plate": 2.5, "matte": 2.5}
EXACT = ("clip", "person", "frame", "frames_s", "episode", "skipped", "view")


class PortraitClips(ClipStore):
    """Clips of a portrait that nods and speaks, and a still of it with another face."""

    def __init__(self, picture: Image, found: Face, open_mouth: Face) -> None:
        self.size, self.root = None, "portraits"
        warper = Warper(found.points, *picture.shape[1::-1])
        painter = Painter(picture, warper)
        mouth = open_mouth.points - open_mouth.points.mean(0)
        mouth = mouth * (np.ptp(found.points[:, 0]) / np.ptp(mouth[:, 0])) + found.points.mean(0)
        goals = [turned(found.points, 0, 4.0 * n, 0) for n in range(2)] + [mouth]
        self._frames = np.stack([painter.paint(warper.flow(goal)) for goal in goals])
        self._goals = np.stack(goals).astype(np.float32)
        self._shapes = np.stack([found.blendshapes] * 2 + [open_mouth.blendshapes])

    def read(self, clip: ClipInfo, numbers: Any) -> ClipFrames:
        return ClipFrames(self._frames[numbers].copy(), self._goals[numbers].copy())

    def tracks(self, clip: ClipInfo) -> Tracks:
        n = clip.num_frames
        return Tracks(self._goals[:n], self._shapes[:n], np.zeros((n, 3), np.float32))


@pytest.fixture(scope="module")
def store(small_portrait: Image, small_face: Face, driver_faces: list[Face]) -> PortraitClips:
    return PortraitClips(small_portrait, small_face, driver_faces[len(driver_faces) // 2])


def clips_of(index: list[ClipInfo]) -> list[ClipInfo]:
    """A clip of three frames, and a still."""
    return [dataclasses.replace(index[0], num_frames=n, size=256, key=str(n), person=str(n)) for n in (3, 1)]


def compare(made: Batch, expected: dict[str, torch.Tensor]) -> None:
    for name, value in made.items():
        other = expected[name]
        assert value.shape == other.shape and value.dtype == other.dtype, name
        difference = (value.double() - other.double()).abs()
        if name in LEVELS:
            assert difference.mean() < LEVELS[name], (name, difference.mean())
        elif name in EXACT:
            assert torch.equal(value, other), name
        elif name == "geometry":
            assert difference.mean() < 0.03
        else:  # pixels: points, and crops at points
            assert difference.max() < 1e-2, name


@pytest.mark.parametrize("augment", [None, Augmentation(flip=1, **GEOMETRY_OFF), Augmentation()])
@pytest.mark.parametrize(("target", "scene"), [("uniform", "warp"), ("uniform", "auto"), ("far", "warp")])
def test_batches_of_the_texture_form(
    store: PortraitClips, index: list[ClipInfo], augment: Augmentation | None, target: str, scene: str
) -> None:
    if target == "far" and augment is None:
        pytest.skip("choosing frames does not depend on augmentation")
    episodes = Episodes(
        store,
        clips_of(index),
        num_sources=2,
        style="smooth",
        target=target,
        augment=augment,
        window_px=64,
        seed=4,
        scene=scene,
    )
    (made,) = itertools.islice(DeviceLoader(episodes, CPU, batch_size=2, num_workers=0, reuse=1), 1)
    expected = default_collate([episodes[n] for n in range(2)])
    assert made.keys() == expected.keys() - {"key"}
    if scene == "auto":  # colors where the matte is 0 are not seen and depend on the frame's border
        for batch in (made, expected):
            share = batch["matte"] / 255
            batch["warped"] = (batch["warped"] * share + batch["plate"] * (1 - share)).round().byte()
    compare(made, expected)
    if augment is None:  # pixel for pixel
        assert (made["x"].int() - expected["x"].int()).abs().max() <= 1
        assert (made["warped"].int() - expected["warped"].int()).abs().max() <= 1
        if scene == "auto":
            assert (made["matte"].int() - expected["matte"].int()).abs().max() <= 1
            assert (made["plate"].int() - expected["plate"].int()).abs().max() <= 1
            assert made["matte"].min() == 0 and made["matte"].max() == 255


def test_batches_of_the_papers_form(shards: Path, index: list[ClipInfo]) -> None:
    for size in (None, 24):
        episodes = Episodes(ClipStore(shards, size=size, cache_mb=5), index, num_sources=3, augment=Augmentation())
        loader = DeviceLoader(episodes, CPU, batch_size=4, num_workers=0, start_episode=6)
        first, second = itertools.islice(loader, 2)
        for made, begin in ((first, 6), (second, 10)):
            expected = default_collate([episodes[n] for n in range(begin, begin + 4)])
            del expected["key"]
            assert made.keys() == expected.keys()
            for name in ("x", "x_s"):
                assert (made[name].double() - expected[name].double()).abs().mean() < 1
            for name in (*EXACT[:-1], "points"):
                torch.testing.assert_close(made[name], expected[name], atol=1e-3, rtol=0)
        num_pixels = (40 + 12 + 30 + 45) * (size or 32) ** 2
        assert DeviceCorpus.num_bytes(episodes) == loader.corpus.room * 3 == 3 * num_pixels


class NoFlow:
    """Replaces a Flow whose content is not used."""

    def planes(self) -> np.ndarray:
        return np.zeros((GRID, GRID, NUM_GEOMETRY), np.float32)


def test_reused_frames_differ_in_augmentation_and_are_the_same_for_any_number_of_processes(
    store: PortraitClips, index: list[ClipInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.full((256, 256), 255, np.uint8)

    def unwarped(images: Image, points: Array, scene: str) -> Any:
        return Warped(images[1], whole, images[1], NoFlow(), Crop(0, 0, 256))  # type: ignore[arg-type]

    monkeypatch.setattr(warps, "warped_to", unwarped)
    episodes = Episodes(store, clips_of(index)[:1], num_sources=1, augment=Augmentation(), window_px=32, style="smooth")
    made: list[int] = []
    read = episodes.read

    def counted(number: int, num_frames: int | None = None) -> Any:
        made.append(number)
        return read(number, num_frames)

    episodes.read = counted  # type: ignore[method-assign]

    def load(count: int, **options: Any) -> list[Batch]:
        loader = DeviceLoader(episodes, CPU, batch_size=2, num_workers=0, reuse=2, block=64, **options)
        return list(itertools.islice(loader, count))

    # The second round of a block of 64; only frames used by these episodes are made.
    alone = load(2, start_episode=68)
    assert len(made) <= 8 and len(set(made)) == len(made)
    ranks = [load(1, start_episode=68, rank=rank, world_size=2) for rank in range(2)]
    resumed = load(1, start_episode=70)[0]
    for name in alone[0]:
        both = torch.cat([batch[name] for batch in alone])
        assert torch.equal(torch.cat([ranks[0][0][name], ranks[1][0][name]]), both[[0, 2, 1, 3]]), name
        assert torch.equal(resumed[name], both[2:]), name
    # The episode of the first round with the same warped frame as the first of these.
    first = load(1, start_episode=made[0])[0]
    assert torch.equal(first["frame"][0], alone[0]["frame"][0])
    assert not torch.equal(first["x"][0], alone[0]["x"][0])


def test_damaged_clips_are_skipped_identically(tmp_path: Path) -> None:
    (line, _) = write_shards(tmp_path, (12, 12))
    start, length = line["members"]["npz"]
    data = bytearray((tmp_path / line["shard"]).read_bytes())
    data[start : start + length] = bytes(length)
    (tmp_path / line["shard"]).write_bytes(data)
    clips = read_index(tmp_path)
    episodes, other = (Episodes(ClipStore(tmp_path), clips, num_sources=2, skip_damaged=True) for _ in range(2))
    (made,) = itertools.islice(DeviceLoader(episodes, CPU, batch_size=4, num_workers=0), 1)
    expected = default_collate([other[n] for n in range(4)])
    assert made["skipped"].tolist() == expected["skipped"].tolist() and made["skipped"].max() > 0
    assert made["clip"].tolist() == expected["clip"].tolist() == [1] * 4
    assert torch.equal(made["frames_s"], expected["frames_s"])
