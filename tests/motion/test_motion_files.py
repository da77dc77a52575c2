"""Motion files: written and read back, damaged; other rates; the bundled motions."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mimik.config import InputError
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face
from mimik.motion.contact import (
    eyelid_openings,
    lip_openings,
)
from mimik.motion.files import Motion
from mimik.motion.kinds import bundled_motions
from mimik.motion.retargeting import Retarget
from shapes import FPS

# Files.


@pytest.fixture(scope="module")
def spoken(motion_frames) -> Motion:
    reference, stream = motion_frames
    return Motion.of_frames("spoken", FPS, reference, stream)


@pytest.fixture(scope="module")
def saved(spoken: Motion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid file; tests must not change it."""
    path = tmp_path_factory.mktemp("motions") / "spoken.motion"
    spoken.save(path)
    return path


def test_a_motion_holds_its_frames(spoken: Motion, motion_frames) -> None:
    assert len(spoken) == 28
    assert spoken.duration_s == pytest.approx(28 / 25)
    for a, b in zip(spoken.frames(), motion_frames[1], strict=True):
        assert (a.turn == b.turn).all()
        assert (a.offset == b.offset).all()
        assert (a.zoom, a.seen) == (b.zoom, b.seen)


def test_a_motion_comes_back_from_its_file(spoken: Motion, saved: Path) -> None:
    again = Motion.load(saved)
    assert (again.name, again.fps, len(again)) == ("spoken", 25.0, 28)
    error = np.abs(again.offset - spoken.offset)
    assert np.percentile(error, 99.9) < 0.065  # cm
    assert error.max() < 0.2
    for name in ("turn", "shift", "zoom"):
        np.testing.assert_allclose(getattr(again, name), getattr(spoken, name), atol=1e-5)
    np.testing.assert_allclose(again.blendshapes, spoken.blendshapes, atol=0.003)
    np.testing.assert_allclose(again.reference.shape, spoken.reference.shape, atol=1e-5)
    np.testing.assert_allclose(again.reference.rotation, spoken.reference.rotation, atol=1e-6)
    np.testing.assert_array_equal(again.seen, spoken.seen)


def test_what_was_lost_stays_lost_in_the_file(spoken: Motion, tmp_path: Path) -> None:
    seen = spoken.seen.copy()
    seen[3:7] = False
    replace(spoken, seen=seen).save(tmp_path / "x.motion")
    assert [g.seen for g in Motion.load(tmp_path / "x.motion").frames()] == seen.tolist()


def test_a_motion_of_one_frame_can_be_saved(spoken: Motion, motion_frames, tmp_path: Path) -> None:
    one = Motion.of_frames("one", 25.0, motion_frames[0], motion_frames[1][:1])
    one.save(tmp_path / "one.motion")
    again = Motion.load(tmp_path / "one.motion")
    assert len(again) == 1
    np.testing.assert_allclose(again.offset, one.offset, atol=0.1)


def rewritten(source: Path, target: Path, **changed: bytes | None) -> Path:
    """A copy of the file with some members replaced, or omitted for None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            key = name.split(".")[0]
            data = changed.get(key, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def array_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def lying_array() -> bytes:
    """A header that declares 8 TB, without data."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "changed",
    [
        {"header": None},
        {"header": b"not json"},
        {"header": b"[1, 2]"},
        {"header": b"\xff\xfe\x00"},
        {"pose": None},
        {"pose": array_bytes(np.zeros((7, 0), np.float32))},
        {"pose": array_bytes(np.zeros(9, np.float32))},
        {"pose": array_bytes(np.full((7, 28), np.nan, np.float32))},
        {"pose": b"garbage"},
        {"shape": array_bytes(np.zeros((3, 5), np.float32))},
        {"shape": array_bytes(np.full((3, 478), np.inf, np.float32))},
        {"neutral": array_bytes(np.zeros(3, np.float16))},
        {"rotation": array_bytes(np.zeros((3, 3), np.float32))},
        {"directions": array_bytes(np.zeros((7, 7), np.float16))},
        {"amounts": array_bytes(np.array([{"a": 1}], object))},
        {"blendshapes": array_bytes(np.zeros((52, 27), np.uint8))},
        {"seen": lying_array()},
    ],
    ids=lambda changed: "-".join(f"{k}:{str(v)[:12]}" for k, v in changed.items()),
)
def test_a_damaged_motion_is_refused(saved: Path, tmp_path: Path, changed: dict) -> None:
    with pytest.raises(InputError, match=r"bad\.motion is not a readable motion file; use one that"):
        Motion.load(rewritten(saved, tmp_path / "bad.motion", **changed))


@pytest.mark.parametrize("fps", [0, -25, 1e9, float("nan"), "fast", None])
def test_a_motion_of_an_impossible_rate_is_refused(saved: Path, tmp_path: Path, fps: object) -> None:
    header = {"format": "mimik motion", "version": 1, "name": "x", "fps": fps}
    with pytest.raises(InputError, match="not a readable motion file"):
        Motion.load(rewritten(saved, tmp_path / "bad.motion", header=json.dumps(header).encode()))


@pytest.mark.parametrize("header", [{"format": "mimik motion", "version": 2}, {"format": "other"}, {}])
def test_a_motion_of_another_version_is_refused(saved: Path, tmp_path: Path, header: dict) -> None:
    with pytest.raises(InputError, match="another version") as error:
        Motion.load(rewritten(saved, tmp_path / "new.motion", header=json.dumps(header).encode()))
    assert "mimik motion extract" in str(error.value)


@pytest.mark.parametrize("keep", [0, 10, 300, 0.5, 0.9, 0.999])
def test_a_motion_that_was_cut_off_is_refused(saved: Path, tmp_path: Path, keep: float) -> None:
    data = saved.read_bytes()
    cut = tmp_path / "cut.motion"
    cut.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(InputError, match="not a readable motion file"):
        Motion.load(cut)


def test_flipped_bytes_are_noticed_or_harmless(saved: Path, tmp_path: Path) -> None:
    data, rng, bad = saved.read_bytes(), np.random.default_rng(5), tmp_path / "bad.motion"
    num_refused = 0
    for _ in range(40):
        changed = bytearray(data)
        changed[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        bad.write_bytes(changed)
        try:
            assert np.isfinite(Motion.load(bad).offset).all()
        except InputError:
            num_refused += 1
    assert num_refused > 30


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.motion"
    path.write_bytes(content)
    with pytest.raises(InputError, match="talk"):  # the message names the bundled ones
        Motion.load(path)


def test_a_foreign_zip_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.motion", "w") as file:
        file.writestr("readme.txt", "hello")
    for path in (tmp_path / "x.motion", tmp_path / "missing.motion", tmp_path):
        with pytest.raises(InputError):
            Motion.load(path)


@pytest.mark.parametrize("name", ["amounts", "header"])
def test_a_motion_that_unpacks_to_too_much_is_refused_unread(saved: Path, tmp_path: Path, name: str) -> None:
    # An untrusted file must not fill the memory: here 70 kB expand to 70 MB.
    bomb = rewritten(saved, tmp_path / "bomb.motion", **{name: bytes(70 << 20)})
    assert bomb.stat().st_size < 150_000
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="not a readable motion file"):
            Motion.load(bomb)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_motion_of_too_many_frames_is_refused_before_it_is_unfolded(saved: Path, tmp_path: Path) -> None:
    # One direction and 300,000 frames would be 3 GB of offsets.
    num = 300_000
    changed = {
        "directions": np.zeros((1434, 1), np.float16),
        "amounts": np.zeros((1, num), np.float16),
        "pose": np.zeros((7, num), np.int8),
        "blendshapes": np.zeros((52, num), np.uint8),
        "seen": np.zeros(num, bool),
    }
    bomb = rewritten(saved, tmp_path / "bomb.motion", **{name: array_bytes(a) for name, a in changed.items()})
    with pytest.raises(InputError, match="not a readable motion file"):
        Motion.load(bomb)


# Other rates.


@pytest.mark.parametrize("fps", [10.0, 24.0, 25.0, 29.97, 60.0])
def test_another_rate_keeps_duration_and_ends(spoken: Motion, fps: float) -> None:
    other = spoken.at_rate(fps)
    assert other.fps == fps
    assert len(other) == round(spoken.duration_s * fps)
    assert other.duration_s == pytest.approx(spoken.duration_s, abs=0.6 / fps)
    np.testing.assert_array_equal(other.turn[0], spoken.turn[0])
    np.testing.assert_allclose(other.turn[-1], spoken.turn[-1], atol=0.01)
    # Linear interpolation: frame k is the motion at k / fps.
    time = np.arange(len(spoken)) / 25
    at = np.minimum(np.arange(len(other)) / fps, time[-1])
    np.testing.assert_allclose(other.zoom, np.interp(at, time, spoken.zoom), atol=1e-9)
    np.testing.assert_allclose(other.offset[:, 14, 1], np.interp(at, time, spoken.offset[:, 14, 1]), atol=1e-9)


def test_one_frame_at_another_rate(motion_frames) -> None:
    one = Motion.of_frames("one", 25.0, motion_frames[0], motion_frames[1][:1])
    assert len(one.at_rate(50.0)) == 1
    assert one.at_rate(50.0).fps == 50.0


# The bundled motions.


def bundled(name: str) -> Motion:
    return Motion.load(bundled_motions()[name])


FORMER = {"talk", "smile", "surprise", "nod", "look-around", "laugh"}
BUNDLED = sorted({*FORMER, "talk-fast", "listen", "blink", "glance"})
OF_THE_HEAD = {"nod", "look-around"}


def test_the_bundled_motions_are_there() -> None:
    assert set(bundled_motions()) == set(BUNDLED)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_motion_is_sound(name: str) -> None:
    motion = bundled(name)
    assert 2 <= motion.duration_s <= 10
    assert bundled_motions()[name].stat().st_size / motion.duration_s < 18_000
    assert motion.seen.all()
    for array in (motion.turn, motion.shift, motion.zoom, motion.offset, motion.blendshapes, motion.reference.shape):
        assert np.isfinite(array).all()
    # It starts and ends at neutral, so that it can be looped and joined.
    for end in (0, -1):
        assert np.degrees(np.linalg.norm(motion.turn[end])) < 0.5
        assert np.linalg.norm(motion.offset[end], axis=1).mean() < 0.02
    # No jumps.
    step = np.linalg.norm(np.diff(motion.offset, axis=0), axis=-1).mean(1)
    assert step.max() < 0.3
    assert np.degrees(np.linalg.norm(np.diff(motion.turn, axis=0), axis=1)).max() < 6


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_motion_keeps_the_head_near_and_the_eyes_open(name: str) -> None:
    motion = bundled(name)
    if name not in OF_THE_HEAD:
        assert np.linalg.norm(motion.shift[:, :2], axis=1).max() < 3  # cm
        assert np.degrees(np.linalg.norm(motion.turn, axis=1)).max() < 12
    shape = motion.reference.shape
    openings = np.array([eyelid_openings(shape + offset).mean() for offset in motion.offset])
    assert (openings < 0.35 * eyelid_openings(shape).mean()).mean() < 0.12
    assert lip_openings(shape).max() < 0.02  # relative to touching lips


def track(name: str, *blendshapes: str) -> np.ndarray:
    motion = bundled(name)
    return motion.blendshapes[:, [BLENDSHAPES.index(b) for b in blendshapes]].mean(1)


def test_the_bundled_motions_do_what_they_are_called() -> None:
    pitch = np.degrees(bundled("nod").turn[:, 0])
    yaw = -np.degrees(bundled("look-around").turn[:, 1])
    assert np.ptp(pitch) > 8
    assert np.ptp(pitch) > np.ptp(np.degrees(bundled("nod").turn[:, 1]))
    assert np.ptp(yaw) > 15
    smile = track("smile", "mouthSmileLeft", "mouthSmileRight")
    assert smile.max() > smile[0] + 0.3
    assert track("laugh", "mouthSmileLeft", "mouthSmileRight").max() > 0.4
    assert track("laugh", "jawOpen").max() > 0.15
    assert track("surprise", "jawOpen").max() > 0.15
    assert track("surprise", "browInnerUp").max() > 0.5
    for name, least in (("talk", 6), ("talk-fast", 10)):
        jaw = track(name, "jawOpen")
        assert np.ptp(jaw) > 0.08
        assert (np.diff(np.sign(jaw - jaw.mean())) != 0).sum() >= least  # it opens and closes repeatedly
        shape, offsets = bundled(name).reference.shape, bundled(name).offset
        gaps = np.array([lip_openings(shape + offset).max() for offset in offsets])
        assert 0.3 < (gaps > 0.06).mean() < 0.9  # and the lips meet in between
    assert track("listen", "jawOpen").max() < 0.05
    shape, offsets = bundled("blink").reference.shape, bundled("blink").offset
    lids = np.array([eyelid_openings(shape + offset).mean() for offset in offsets]) / eyelid_openings(shape).mean()
    assert (np.diff((lids < 0.4).astype(int)) == 1).sum() >= 2
    gaze = track("glance", "eyeLookOutLeft", "eyeLookInRight") - track("glance", "eyeLookInLeft", "eyeLookOutRight")
    assert np.ptp(gaze) > 0.8


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_motion_leaves_the_person_a_face(small_face: Face, name: str) -> None:
    motion = bundled(name)
    retarget = Retarget(small_face, motion.reference)
    for motion_frame in list(motion.frames())[::10]:
        points = retarget(motion_frame)
        pose = faces.skull_motion(small_face.points, points)
        assert 0.75 < pose.scale < 1.35
        apart = np.linalg.norm(pose.invert(points) - small_face.points, axis=1) / small_face.width_px
        assert apart.max() < 0.35
        assert np.median(apart) < 0.06
