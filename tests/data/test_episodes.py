"""episodes.py: episodes of one clip, independent of workers and ranks."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from conftest import turned
from mimik.animation.source_frame import SourceFrame
from mimik.animation.source_image import SourceImage
from mimik.config import AnimateConfig, InputError
from mimik.data.augmentation import Augmentation
from mimik.data.episodes import Episodes, evaluation_episodes, to_model_range, views_of, warped_to
from mimik.data.index import ClipInfo
from mimik.data.loading import loader
from mimik.data.store import ClipFrames, ClipStore
from mimik.data.tracks import Tracks
from mimik.face import landmarks as faces
from mimik.face.landmark_images import feature_mask, landmark_image
from mimik.face.landmarks import Face, Image
from mimik.rendering.crop import WINDOW_SCALE, Crop
from mimik.rendering.flow import NUM_GEOMETRY, Warper
from mimik.rendering.painter import Painter
from synthetic_shards import LENGTHS, PEOPLE, SIDE, face_points, seen


@pytest.fixture(scope="module")
def episodes(shards: Path, index: list[ClipInfo]) -> Episodes:
    return Episodes(ClipStore(shards, cache_mb=50), index)


def test_an_episode_is_frames_of_one_clip_with_their_landmarks(episodes: Episodes, index: list[ClipInfo]) -> None:
    assert len(episodes) == 4  # one is too short
    item = episodes[2]
    assert item["x"].shape == item["y"].shape == (3, SIDE, SIDE)
    assert item["x_s"].shape == item["y_s"].shape == (8, 3, SIDE, SIDE)
    assert item["x"].dtype == item["y_s"].dtype == torch.uint8
    frames = [item["frame"], *item["frames_s"].tolist()]
    assert len(set(frames)) == 9
    assert seen(torch.cat([item["x"][None], item["x_s"]]).numpy()) == frames
    clip = item["clip"]
    assert item["key"] == index[clip].key
    assert item["person"] == sorted(set(PEOPLE)).index(PEOPLE[clip])
    truth = face_points(LENGTHS[clip], seed=clip)[frames]
    np.testing.assert_allclose(torch.cat([item["points"][None], item["points_s"]]), truth, atol=1 / 32)
    drawn = landmark_image(item["points"].numpy(), SIDE, SIDE)
    assert (item["y"].permute(1, 2, 0).numpy() == drawn).all()


def test_model_range() -> None:
    assert to_model_range(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_every_clip_once_an_epoch_in_another_order(episodes: Episodes) -> None:
    orders = [[episodes.choose(n)[0] for n in range(e * 4, e * 4 + 4)] for e in range(8)]
    assert all(sorted(order) == [0, 1, 3, 4] for order in orders)  # the third has too few frames
    assert len({tuple(order) for order in orders}) > 2


def test_target_and_sources_are_drawn_evenly(episodes: Episodes) -> None:
    numbers = [n for n in range(2000) if episodes.choose(n)[0] == 1]
    counts = np.bincount([episodes.choose(n)[1] for n in numbers], minlength=12)
    assert counts.min() > 0.5 * counts.mean()
    assert counts.max() < 1.6 * counts.mean()


def test_far_targets_differ_more_from_the_sources(shards: Path, index: list[ClipInfo]) -> None:
    def apart(target: str) -> float:
        data = Episodes(ClipStore(shards, cache_mb=50), index, num_sources=1, target=target)
        total = 0.0
        for n in range(60):
            clip, frame, sources = data.choose(n)
            assert frame not in sources
            tracks = data.store.tracks(index[clip])
            state = np.concatenate([tracks.blendshapes, tracks.pose / 15], 1)
            total += float(np.linalg.norm(state[frame] - state[sources[0]]))
        return total

    assert apart("far") > 1.1 * apart("uniform")


def test_augmented_episodes_are_the_same_each_time_and_one_change_for_all(shards: Path, index: list[ClipInfo]) -> None:
    plain = Episodes(ClipStore(shards), index, num_sources=2)
    changed = Episodes(ClipStore(shards), index, num_sources=2, augment=Augmentation())
    one, again = changed[5], changed[5]
    assert all(torch.equal(one[name], again[name]) for name in ("x", "y", "x_s", "y_s", "points", "points_s"))
    assert torch.equal(one["frames_s"], plain[5]["frames_s"])  # the frames do not depend on augmentation
    assert not torch.equal(one["points"], plain[5]["points"])
    assert (one["y"].permute(1, 2, 0).numpy() == landmark_image(one["points"].numpy(), SIDE, SIDE)).all()


def test_regions_are_the_targets_eyes_and_mouth(episodes: Episodes) -> None:
    item = episodes[2]
    assert item["regions"].shape == (1, SIDE, SIDE)
    assert (item["regions"][0].numpy() == feature_mask(item["points"].numpy(), SIDE, SIDE)).all()


class Portraits(ClipStore):
    """One clip: a slightly nodding portrait; its frames are rendered on demand."""

    def __init__(self, picture: np.ndarray, points: np.ndarray) -> None:
        self.size, self.root = None, "portraits"
        self._picture, self._points = picture, points

    def read(self, clip: ClipInfo, numbers: Any) -> ClipFrames:
        warper = Warper(self._points, *self._picture.shape[1::-1])
        painter = Painter(self._picture, warper)
        points = [turned(self._points, 0, 3.0 * n, 0) for n in numbers]
        return ClipFrames(np.stack([painter.paint(warper.flow(p)) for p in points]), np.stack(points))


def test_windows_hold_the_face_and_the_photo_warped_to_the_target(
    portrait: np.ndarray, portrait_face: Face, index: list[ClipInfo]
) -> None:
    picture = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA)
    store = Portraits(picture, portrait_face.points / 2)
    clip = dataclasses.replace(index[0], num_frames=3, size=256)
    for augment in (None, Augmentation()):
        data = Episodes(store, [clip], num_sources=2, window_px=64, augment=augment)
        item = data[0]
        assert item["x"].shape == item["warped"].shape == (3, 128, 128)
        assert item["y"].shape == (3, 64, 64) and item["regions"].shape == (1, 128, 128)
        assert item["x_s"].shape == (2, 3, 64, 64)
        assert item["geometry"].shape == (NUM_GEOMETRY, 32, 32)
        # The head fills the window and is centered.
        height = np.linalg.norm(item["points"][10, :2] - item["points"][faces.CHIN, :2])
        assert height == pytest.approx(64 / 1.7, rel=0.2 if augment else 0.03)
        assert (item["points"][:, :2].mean(0) - 32).abs().max() < 6
        # The warped photo is nearer to the target than the photo.
        x, warped, photo = (item[name].float() for name in ("x", "warped", "x_s"))
        small = x.unflatten(2, (64, 2)).unflatten(1, (64, 2)).mean((2, 4))
        assert (x - warped).abs().mean() < 0.5 * (small - photo[0]).abs().mean()
        assert (item["y"].permute(1, 2, 0).numpy() == landmark_image(item["points"].numpy(), 64, 64)).all()
    unit = item["points"].numpy() / 64
    views = views_of(np.stack([unit] * 200), 64, np.random.default_rng(0).random((200, 4)))
    whole = (views < 0).all(1)
    assert 80 < whole.sum() < 120 and views[~whole].min() >= 0 and views[~whole].max() <= 64


def test_warped_frames_over_their_plate_are_what_animation_shows(portrait: np.ndarray, portrait_face: Face) -> None:
    image = SourceImage(None, portrait, portrait_face)
    frame = SourceFrame(image, AnimateConfig(model="geometry"), None)
    goal = turned(portrait_face.points, 0, 5.0, 0).astype(np.float32)
    shown = frame.paint(frame.flow(goal), goal)
    pair = np.stack([portrait, portrait]), np.stack([goal, portrait_face.points])
    made = warped_to(*pair, "auto")
    share = made.matte[..., None] / 255
    assert made.matte.min() == 0 and 0.2 < share.mean() < 0.8
    over = made.image * share + made.plate * (1 - share)
    whole = warped_to(*pair)
    assert (whole.matte == 255).all() and (whole.plate == whole.image).all()
    error, error_of_whole = (np.abs(frame - shown.astype(float)).mean() for frame in (over, whole.image))
    print(error, error_of_whole)
    assert error < 0.5 * error_of_whole  # not 0: animation reads an enlarged copy of the photo


def test_an_epoch_has_every_clip_and_the_wanted_share_of_stills(index: list[ClipInfo]) -> None:
    clips = [dataclasses.replace(index[0], key=str(n), num_frames=1 + 8 * (n < 6)) for n in range(106)]
    store = ClipStore("unread")
    every = Episodes(store, clips, num_sources=2, window_px=64)
    some = Episodes(store, clips, num_sources=2, window_px=64, stills_share=0.25)
    assert len(every) == 106 and len(some) == 8  # 2 of 8 are stills
    epochs = [[some.choose(8 * epoch + n)[0] for n in range(8)] for epoch in range(20)]
    assert all(set(range(6)) <= set(epoch) and len(set(epoch)) == 8 for epoch in epochs)
    assert len({clip for epoch in epochs for clip in epoch}) > 30  # other stills in each


class Stills(ClipStore):
    """One picture under several names, with a different expression in each."""

    def __init__(self, picture: Image, driver_faces: list[Face]) -> None:
        self.size, self.picture, self.driver_faces = None, picture, driver_faces

    def read(self, clip: ClipInfo, numbers: Any) -> ClipFrames:
        shown = self.tracks(clip).points
        return ClipFrames(np.stack([self.picture] * len(numbers)), np.concatenate([shown] * len(numbers)))

    def tracks(self, clip: ClipInfo) -> Tracks:
        found = self.driver_faces[int(clip.key)]
        return Tracks(found.points[None], found.blendshapes[None], np.zeros((1, 3), np.float32))


def test_a_still_is_the_target_of_its_own_warp_and_back(
    small_portrait: Image, small_face: Face, driver_faces: list[Face], index: list[ClipInfo]
) -> None:
    opens = int(np.argmax([found.blendshapes[faces.BLENDSHAPES.index("jawOpen")] for found in driver_faces]))
    side = min(small_portrait.shape[:2])
    store = Stills(np.ascontiguousarray(small_portrait[:side, :side]), [small_face, driver_faces[opens]])
    still, other = (dataclasses.replace(index[0], key=key, num_frames=1, size=side) for key in "01")

    def damage(item: dict[str, Any]) -> float:
        return float((item["x"].float() - item["warped"].float()).abs()[:, item["regions"][0] > 0].mean())

    same = Episodes(store, [still], num_sources=2, window_px=64)
    assert len(same) == 1 and same.choose(5) == (0, 0, [0, 0])
    item = same[0]
    window = Crop.around(small_face.points, WINDOW_SCALE)
    assert (item["x"].permute(1, 2, 0).numpy() == window.cut(store.picture, 128)).all()  # the target is the still
    assert damage(item) < 5  # its own expression: errors of resampling and of absolute motion for this smile
    both = Episodes(store, [still, other], num_sources=2, window_px=64)
    items = [both[n] for n in range(12)]
    of_still = [one for one in items if one["key"] == "0"]
    assert max(map(damage, of_still)) > 2 * damage(item)  # the mouth was opened and closed
    moved = max(of_still, key=damage)
    assert (moved["points_s"][0] - moved["points"]).abs().max() > 1
    assert torch.equal(moved["x"], item["x"])
    assert torch.equal(both[moved["episode"]]["warped"], moved["warped"])
    with pytest.raises(InputError, match="longest of 1 has 1;"):  # the paper's form needs more than one frame
        Episodes(store, [still], num_sources=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sources": 0}, "--k 0"),
        (
            {"num_sources": 45},
            "--k 45 needs clips of 46 frames or more, but the longest of .* has 45; use a smaller --k",
        ),
        ({"style": "oil"}, "style 'oil'"),
        ({"target": "near"}, "target 'near'"),
    ],
)
def test_episodes_that_cannot_be(shards: Path, index: list[ClipInfo], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Episodes(ClipStore(shards), index, **options)


def drawn(batches: Any) -> list[tuple[str, int, tuple[int, ...]]]:
    """(key, target, sources) of all episodes of batches."""
    return [
        (key, int(frame), tuple(sources.tolist()))
        for batch in batches
        for key, frame, sources in zip(batch["key"], batch["frame"], batch["frames_s"], strict=True)
    ]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.slow
def test_workers_and_ranks_change_nothing(episodes: Episodes) -> None:
    def load(num_workers: int, count: int = 24, **options: Any) -> list[Any]:
        batches = loader(episodes, batch_size=2, num_workers=num_workers, **options)
        return drawn(itertools.islice(batches, count // 2))

    alone = load(0)
    assert len(alone) == 24
    assert load(1) == load(3) == alone
    ranks = [load(0, 12, rank=rank, world_size=2) for rank in range(2)]
    assert [item for pair in zip(*ranks, strict=True) for item in pair] == alone
    # Stopped after 10 episodes of two ranks, resumed with one.
    assert load(0, 14, start_episode=10) == alone[10:]


def test_the_papers_protocol(shards: Path, index: list[ClipInfo]) -> None:
    one, eight = evaluation_episodes(index, 1), evaluation_episodes(index, 8)
    assert [e.clip for e in one] == [0, 4]
    assert [e.clip for e in eight] == [0, 4]
    for few, many in zip(one, eight, strict=True):
        assert few.holdout == many.holdout
        assert set(few.sources) < set(many.sources)
        assert len(many.holdout) == 32
        assert set(many.holdout).isdisjoint(many.sources)
    assert [e.sources for e in evaluation_episodes(index[4:], 8)] == [eight[1].sources]
    with pytest.raises(InputError, match="64 frames, but the longest of 5 clips has 45"):
        evaluation_episodes(index, 32)
    with pytest.raises(InputError, match="1 or more"):
        evaluation_episodes(index, 0)


@pytest.mark.slow
def test_a_training_machine_needs_torch_numpy_and_opencv_only(shards: Path) -> None:
    code = """
import sys
for name in ("av", "openvino", "PIL", "pillow_heif", "c2pa", "typer", "rich", "scipy"):
    sys.modules[name] = None
from mimik.data.augmentation import Augmentation
from mimik.data.episodes import Episodes
from mimik.data.index import read_index
from mimik.data.store import ClipStore
item = Episodes(ClipStore(sys.argv[1]), read_index(sys.argv[1]), augment=Augmentation())[0]
print(tuple(item["x_s"].shape))
"""
    done = subprocess.run([sys.executable, "-c", code, str(shards)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"(8, 3, {SIDE}, {SIDE})", done.stderr
