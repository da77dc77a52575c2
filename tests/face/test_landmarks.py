"""landmarks.py against the points of Google's mediapipe package, and against synthetic pictures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import write_clip
from mimik.config import NoFaceError
from mimik.face import landmarks as faces
from mimik.face.landmarks import (
    _BLENDSHAPE_POINTS,
    ADVISED_FACE_PX,
    BLENDSHAPES,
    MIN_FACE_PX,
    NUM_POINTS,
    Face,
    Image,
    Landmarker,
    Pose,
    canonical_mesh,
    choose_face,
    fit_similarity,
    head_pose,
    skull_motion,
)
from mimik.face.tracker import Tracker
from mimik.media import video
from mimik.media.reading import VideoFrame

MEDIAPIPE = Path(__file__).parents[1] / "fixtures" / "mediapipe_eileen_collins.npz"


def about(axis: str, degrees: float) -> np.ndarray:
    """[3, 3] right-handed rotation about an axis of Pose: x right, y down, z away."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def distance_px(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a[:, :2] - b[:, :2], axis=1).mean())


def placed(picture: Image, factor: float, canvas: Image, x: int, y: int) -> Image:
    """canvas with the scaled picture, whose corner is at x, y."""
    small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    out = canvas.copy()
    out[y : y + small.shape[0], x : x + small.shape[1]] = small
    return out


def gradient(width: int, height: int) -> Image:
    across = np.linspace(40, 200, width, dtype=np.float32)[None, :]
    down = np.linspace(0, 50, height, dtype=np.float32)[:, None]
    return np.repeat((across + down).astype(np.uint8)[..., None], 3, axis=2)


# The tables, the mesh.


def test_tables_have_the_sizes_of_the_networks() -> None:
    assert len(BLENDSHAPES) == len(set(BLENDSHAPES)) == 52
    assert len(_BLENDSHAPE_POINTS) == len(set(_BLENDSHAPE_POINTS)) == 146
    assert len(faces.POINTS_68) == len(set(faces.POINTS_68)) == 68
    assert len(set(faces.OVAL)) == 36
    assert max(max(_BLENDSHAPE_POINTS), max(faces.IRISES)) == NUM_POINTS - 1


def test_canonical_mesh_is_complete_and_symmetric() -> None:
    mesh = canonical_mesh()
    assert mesh.vertices.shape == (468, 3)
    assert mesh.triangles.shape == (898, 3)
    assert set(mesh.triangles.ravel().tolist()) == set(range(468))
    mirrored = mesh.vertices * [-1, 1, 1]
    distance = np.linalg.norm(mirrored[:, None] - mesh.vertices[None], axis=-1)
    assert distance.min(1).max() < 0.01  # cm


def test_canonical_mesh_has_the_axes_of_pose() -> None:
    vertices = canonical_mesh().vertices
    assert vertices[faces.CHIN, 1] > vertices[10, 1]  # the chin is below the forehead: y points down
    assert vertices[4, 2] == vertices[:, 2].min()  # the tip of the nose is nearest: z points away
    assert vertices[33, 0] < 0 < vertices[263, 0]  # the person's right eye is at the picture's left


def test_lines_run_from_the_same_corner_to_the_same_corner() -> None:
    vertices = canonical_mesh().vertices
    for upper, lower in (
        (faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER),
        (faces.LIPS_OUTER_UPPER, faces.LIPS_OUTER_LOWER),
        (faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER),
        (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER),
    ):
        assert (upper[0], upper[-1]) == (lower[0], lower[-1])
        assert (vertices[upper[1:-1], 1] <= vertices[lower[1:-1], 1] + 1e-6).all()  # upper is above lower
        assert np.abs(vertices[upper, 0] - vertices[lower, 0]).max() < 0.4  # and the points are opposite


# Similarities.


def test_fit_similarity_finds_one_made_by_hand() -> None:
    # Rotation by 90 degrees in the picture, scale 2, translation (10, 20, 30).
    source = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 3]], float)
    target = np.array([[10, 20, 30], [10, 22, 30], [8, 20, 30], [10, 20, 32], [6, 22, 36]], float)
    pose = fit_similarity(source, target)
    assert pose.scale == pytest.approx(2)
    np.testing.assert_allclose(pose.translation, [10, 20, 30], atol=1e-9)
    np.testing.assert_allclose(pose.rotation, about("z", 90), atol=1e-9)


def test_fit_similarity_does_not_mirror() -> None:
    source = canonical_mesh().vertices
    pose = fit_similarity(source, source * [-1, 1, 1])
    assert np.linalg.det(pose.rotation) == pytest.approx(1)


angles = st.floats(-60, 60)


@settings(max_examples=30, deadline=None)
@given(yaw=angles, pitch=angles, roll=angles, scale=st.floats(0.1, 50), shift=st.tuples(*[st.floats(-900, 900)] * 3))
def test_pose_there_and_back(yaw: float, pitch: float, roll: float, scale: float, shift: tuple) -> None:
    rotation = about("z", roll) @ about("x", pitch) @ about("y", -yaw)
    pose = Pose(rotation, np.array(shift), scale)
    shape = canonical_mesh().vertices
    points = pose.apply(shape)
    np.testing.assert_allclose(pose.invert(points), shape, atol=1e-6)
    found = fit_similarity(shape, points)
    np.testing.assert_allclose(found.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(found.translation, shift, atol=1e-6)
    assert found.scale == pytest.approx(scale)


def test_degrees_of_rotations_made_by_hand() -> None:
    nose = np.array([0.0, 0.0, -1.0])  # a face that looks at the viewer
    right, down, clockwise = about("y", -20), about("x", 20), about("z", 20)
    assert (right @ nose)[0] > 0  # the nose goes to the picture's right
    assert (down @ nose)[1] > 0
    assert (clockwise @ [0.0, -1.0, 0.0])[0] > 0  # the top of the head tilts to the picture's right

    def degrees(rotation: np.ndarray) -> tuple[float, float, float]:
        return Pose(rotation, np.zeros(3), 1.0).degrees

    assert degrees(np.eye(3)) == pytest.approx((0, 0, 0))
    assert degrees(right) == pytest.approx((20, 0, 0))
    assert degrees(down) == pytest.approx((0, 20, 0))
    assert degrees(clockwise) == pytest.approx((0, 0, 20))


def test_head_pose_and_skull_motion_of_the_canonical_face() -> None:
    mesh = canonical_mesh().vertices
    shape = np.concatenate([mesh, np.zeros((10, 3))])
    first = Pose(about("y", -10), np.array([100.0, 80.0, 0.0]), 6.0)
    second = Pose(about("x", 15), np.array([140.0, 90.0, 5.0]), 9.0)
    assert head_pose(first.apply(shape)).degrees == pytest.approx((10, 0, 0), abs=1e-9)
    motion = skull_motion(first.apply(shape), second.apply(shape))
    assert motion.scale == pytest.approx(1.5)
    np.testing.assert_allclose(motion.apply(first.apply(shape)), second.apply(shape), atol=1e-9)


def test_what_expression_moves_is_not_skull() -> None:
    jaw = [*faces.LIPS, faces.CHIN, 148, 377, 18, 200]
    assert not {*jaw, *faces.BROWS, *faces.IRISES} & set(faces.SKULL)


# Comparison with Google's package.


def test_points_are_those_of_mediapipe(portrait_face: Face) -> None:
    points = np.load(MEDIAPIPE)["points"]
    width = np.ptp(points[:, 0])
    assert distance_px(portrait_face.points, points) < 0.01 * width
    assert np.abs(portrait_face.points - points).max() < 0.05 * width
    assert portrait_face.width_px == pytest.approx(width, rel=0.03)


def test_blendshapes_are_those_of_mediapipe(portrait_face: Face) -> None:
    theirs = np.load(MEDIAPIPE)["blendshapes"]
    assert np.abs(portrait_face.blendshapes - theirs).max() < 0.2
    assert np.corrcoef(portrait_face.blendshapes, theirs)[0, 1] > 0.97
    assert portrait_face.blendshapes[BLENDSHAPES.index("mouthSmileLeft")] > 0.7  # she smiles
    assert portrait_face.blendshapes[BLENDSHAPES.index("jawOpen")] < 0.1


def test_pose_is_near_that_of_mediapipe(portrait_face: Face) -> None:
    # Theirs has y up and z toward the viewer.
    flip = np.diag([1.0, -1.0, -1.0])
    theirs = Pose(flip @ np.load(MEDIAPIPE)["matrix"][:3, :3] @ flip, np.zeros(3), 1.0).degrees
    yaw, pitch, roll = np.subtract(head_pose(portrait_face.points).degrees, theirs)
    assert abs(yaw) < 2
    assert abs(roll) < 2
    # Theirs assumes a camera of 63 degrees, 18 degrees below this face; ours is on the optical axis.
    assert abs(pitch) < 10


def test_a_face_knows_its_box(portrait_face: Face) -> None:
    left, top, right, bottom = portrait_face.box
    assert portrait_face.points.shape == (NUM_POINTS, 3)
    assert portrait_face.points.dtype == np.float32
    assert left == portrait_face.points[:, 0].min()
    assert bottom == portrait_face.points[:, 1].max()
    assert top < portrait_face.points[4, 1] < bottom
    assert portrait_face.width_px == right - left
    assert portrait_face.score > 0.9


# Detection.


@pytest.mark.slow
def test_a_small_face_in_a_large_picture(landmarker: Landmarker, portrait: Image, portrait_face: Face) -> None:
    factor = 40 / portrait_face.width_px
    picture = placed(portrait, factor, gradient(4000, 3000), 1910, 430)
    found = landmarker.detect(picture)
    assert len(found) == 1
    expected = portrait_face.points[:, :2] * factor + [1910, 430]
    assert np.linalg.norm(found[0].points[:, :2] - expected, axis=1).max() < 5
    assert found[0].width_px == pytest.approx(40, abs=3)


def test_a_small_face_in_a_small_picture(landmarker: Landmarker, portrait: Image, portrait_face: Face) -> None:
    factor = 38 / portrait_face.width_px
    found = landmarker.detect(placed(portrait, factor, gradient(400, 300), 150, 80))
    assert len(found) == 1
    expected = portrait_face.points[:, :2] * factor + [150, 80]
    assert distance_px(found[0].points, expected) < 2


@pytest.mark.parametrize("factor", [0.5, 2.5, 5.0])
def test_points_do_not_depend_on_the_size(
    landmarker: Landmarker, portrait: Image, portrait_face: Face, factor: float
) -> None:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    found = landmarker.detect(cv2.resize(portrait, None, fx=factor, fy=factor, interpolation=method))
    assert len(found) == 1
    assert distance_px(found[0].points / factor, portrait_face.points) < 0.015 * portrait_face.width_px


WITHOUT_HALF_PRECISION = """
import sys
import numpy as np
from mimik.face.landmarks import Landmarker
from mimik.media import video

np.save(sys.argv[2], Landmarker().detect(video.read_image(sys.argv[1]))[0].points)
"""


def test_half_precision_moves_points_by_a_fraction_of_a_pixel(
    portrait_path: Path, portrait_face: Face, tmp_path: Path
) -> None:
    env = {**os.environ, "MIMIK_DATA": str(tmp_path), "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}  # without AVX512-FP16
    command = [sys.executable, "-c", WITHOUT_HALF_PRECISION, str(portrait_path), str(tmp_path / "out.npy")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stderr
    assert distance_px(np.load(tmp_path / "out.npy"), portrait_face.points) < 0.003 * portrait_face.width_px


def test_points_move_with_the_picture(landmarker: Landmarker, portrait: Image, portrait_face: Face) -> None:
    found = landmarker.detect(portrait[20:, 60:])[0]
    shifted = portrait_face.points[:, :2] - [60, 20]
    assert np.abs((found.points[:, :2] - shifted).mean(0)).max() < 0.3


def test_two_faces_are_numbered_by_width(landmarker: Landmarker, small_portrait: Image) -> None:
    picture = placed(small_portrait, 0.9, gradient(600, 340), 20, 60)
    picture = placed(small_portrait, 1.2, picture, 280, 20)
    found = landmarker.detect(picture)
    assert len(found) == 2
    assert found[0].width_px > found[1].width_px
    assert found[0].box[0] > 280 > found[1].box[2]


def test_thorough_finds_a_small_face_beside_a_large_one(
    landmarker: Landmarker, portrait: Image, portrait_face: Face
) -> None:
    picture = placed(portrait, 40 / portrait_face.width_px, gradient(1600, 1000), 1300, 700)
    picture = placed(cv2.resize(portrait, None, fx=1.9, fy=1.9), 1.0, picture, 0, 0)
    found = landmarker.detect(picture, thorough=True)
    assert [round(face.width_px / portrait_face.width_px, 1) for face in found] == [1.9, 0.4]


def test_a_tilted_head(landmarker: Landmarker, portrait: Image, portrait_face: Face) -> None:
    middle = tuple(float(v) for v in portrait_face.points[:, :2].mean(0))
    matrix = cv2.getRotationMatrix2D(middle, -20, 1.0)  # clockwise
    found = landmarker.detect(cv2.warpAffine(portrait, matrix, (512, 512)))
    assert len(found) == 1
    expected = portrait_face.points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    assert distance_px(found[0].points, expected) < 0.03 * portrait_face.width_px
    tilt = head_pose(found[0].points).degrees[2] - head_pose(portrait_face.points).degrees[2]
    assert tilt == pytest.approx(20, abs=2)


def test_a_gray_picture(landmarker: Landmarker, portrait: Image, portrait_face: Face) -> None:
    gray = np.repeat(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    found = landmarker.detect(gray)
    assert len(found) == 1
    assert distance_px(found[0].points, portrait_face.points) < 0.02 * portrait_face.width_px


@pytest.mark.parametrize("name", ["noise", "gray", "black", "tiny", "narrow", "gradient"])
def test_no_face_where_there_is_none(landmarker: Landmarker, name: str) -> None:
    picture = {
        "noise": np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8),
        "gray": np.full((480, 640, 3), 128, np.uint8),
        "black": np.zeros((480, 640, 3), np.uint8),
        "tiny": np.full((1, 1, 3), 90, np.uint8),
        "narrow": np.full((3, 700, 3), 90, np.uint8),
        "gradient": gradient(900, 700),
    }[name]
    assert landmarker.detect(picture, thorough=True) == []


def test_a_face_at_the_edge_of_the_picture(landmarker: Landmarker, portrait: Image, portrait_face: Face) -> None:
    left, top, right, _ = (int(v) for v in portrait_face.box)
    cut = portrait[top + 10 :, left + 25 : right + 40]  # a quarter of the face is missing
    found = landmarker.detect(cut)
    assert len(found) == 1
    shifted = portrait_face.points[:, :2] - [left + 25, top + 10]
    assert distance_px(found[0].points, shifted) < 0.08 * portrait_face.width_px


# Tracking.


def test_follow_finds_the_face_nearby_only(landmarker: Landmarker, portrait: Image, portrait_face: Face) -> None:
    moved = np.roll(portrait, (4, 6), (0, 1))
    found = landmarker.follow(moved, portrait_face)
    assert found is not None
    assert distance_px(found.points - [6, 4, 0], portrait_face.points) < 0.01 * portrait_face.width_px
    points_alone = landmarker.follow(moved, portrait_face, blendshapes=False)
    assert points_alone is not None and np.isnan(points_alone.blendshapes).all()
    np.testing.assert_array_equal(points_alone.points, found.points)
    assert landmarker.follow(np.full_like(portrait, 128), portrait_face) is None


@pytest.mark.parametrize("width", [360, 1440])
def test_follow_in_a_frame_that_is_not_converted(
    landmarker: Landmarker, portrait: Image, portrait_face: Face, tmp_path: Path, width: int
) -> None:
    """A small face, and one that is reduced for the network."""
    k = width / portrait.shape[1]
    picture = cv2.resize(portrait, (width, round(portrait.shape[0] * k) // 2 * 2))
    (frame,) = video.decode_frames(write_clip(tmp_path / "a.mp4", [picture], quality=8))
    assert isinstance(frame, VideoFrame) and frame.planes() is not None
    near = replace(portrait_face, points=portrait_face.points * np.float32(k))
    found, expected = (landmarker.follow(image, near) for image in (frame, np.asarray(frame)))
    assert found is not None and expected is not None
    assert distance_px(found.points, expected.points) < 0.004 * expected.width_px
    (detected,) = landmarker.detect(frame)
    np.testing.assert_array_equal(detected.points, landmarker.detect(np.asarray(frame))[0].points)


def test_a_tracker_that_knows_where_the_face_is_detects_nothing(
    landmarker: Landmarker, portrait: Image, portrait_face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landmarker, "detect", lambda *_, **__: pytest.fail("detected"))
    tracker = Tracker(landmarker)
    tracker.start(portrait_face, is_there=True)
    found = tracker.track(portrait)
    assert found is not None and distance_px(found.points, portrait_face.points) < 0.01 * portrait_face.width_px


def test_follow_of_a_face_that_has_shrunk_to_nothing(landmarker: Landmarker, portrait: Image) -> None:
    assert landmarker.follow(portrait, Face(np.full((478, 3), 50, np.float32), np.zeros(52, np.float32), 1.0)) is None


def test_the_tracker_follows_the_driver(driver, driver_faces) -> None:
    assert all(face is not None for face in driver_faces)
    width = driver_faces[0].width_px
    apart = [distance_px(face.points, points) for face, points in zip(driver_faces, driver.points, strict=True)]
    assert np.median(apart) < 0.01 * width
    assert max(apart) < 0.03 * width
    yaw = np.array([head_pose(face.points).degrees[0] for face in driver_faces])
    assert np.corrcoef(yaw, driver.yaw)[0, 1] > 0.98


def test_the_tracker_survives_a_gap(landmarker: Landmarker, small_portrait: Image) -> None:
    tracker, blank = Tracker(landmarker), np.full((256, 256, 3), 60, np.uint8)
    frames = [small_portrait, blank, blank, np.roll(small_portrait, 30, 1), small_portrait]
    found = [tracker.track(frame) for frame in frames]
    assert [face is not None for face in found] == [True, False, False, True, True]
    assert found[3].box[0] == pytest.approx(found[0].box[0] + 30, abs=2)


def test_a_long_lost_face_is_found_again_within_five_frames(landmarker: Landmarker, small_portrait: Image) -> None:
    tracker, blank = Tracker(landmarker), np.full((32, 32, 3), 60, np.uint8)
    tracker.track(small_portrait)
    assert [tracker.track(blank) for _ in range(33)] == [None] * 33
    assert any(tracker.track(small_portrait) is not None for _ in range(5))


def test_a_lost_face_is_not_searched_for_in_every_frame(landmarker: Landmarker, monkeypatch) -> None:
    searched = []
    monkeypatch.setattr(Landmarker, "detect", lambda self, image, thorough=False: searched.append(1) or [])
    tracker = Tracker(landmarker)
    for _ in range(125):
        assert tracker.track(np.zeros((8, 8, 3), np.uint8)) is None
    assert len(searched) == 25 + 20


@pytest.fixture(scope="module")
def couple(landmarker: Landmarker, small_portrait: Image) -> tuple[Image, list[Face]]:
    """A large face at the left, a small one at the right."""
    picture = placed(small_portrait, 1.0, gradient(450, 256), 0, 0)
    picture = placed(small_portrait, 0.7, picture, 265, 40)
    return picture, landmarker.detect(picture)


def test_the_tracker_takes_the_face_asked_for(landmarker: Landmarker, couple) -> None:
    picture, (large, small) = couple
    for number, expected in ((None, large), (1, large), (2, small)):
        tracker = Tracker(landmarker, number)
        for _ in range(2):
            assert tracker.track(picture).box == pytest.approx(expected.box, abs=2)
    assert Tracker(landmarker, 3).track(picture) is None


def test_the_tracker_waits_until_the_second_face_is_there(landmarker: Landmarker, couple) -> None:
    picture, (_, small) = couple
    alone = picture.copy()
    alone[:, 260:] = 128
    tracker = Tracker(landmarker, 2)
    assert tracker.track(alone) is None
    assert tracker.track(picture).box == pytest.approx(small.box, abs=2)


def test_the_tracker_finds_the_same_person_after_a_loss(landmarker: Landmarker, couple) -> None:
    picture, (_, small) = couple
    tracker = Tracker(landmarker, 2)
    assert tracker.track(picture) is not None
    assert tracker.track(np.zeros_like(picture)) is None
    assert tracker.track(picture).box == pytest.approx(small.box, abs=2)


def test_after_a_loss_a_face_far_away_is_somebody_else_at_first(landmarker: Landmarker, couple) -> None:
    picture, (large, _) = couple
    alone = picture.copy()
    alone[:, 260:] = 128  # the small face disappears
    tracker = Tracker(landmarker, 2)
    assert tracker.track(picture) is not None
    found = [tracker.track(alone) for _ in range(20)]
    assert found[:12] == [None] * 12 and tracker.num_jumps == 1
    assert found[-1] is not None and found[-1].box == pytest.approx(large.box, abs=2)


def test_the_tracker_starts_at_a_face_given(landmarker: Landmarker, couple) -> None:
    picture, (_, small) = couple
    tracker = Tracker(landmarker)
    tracker.start(small)
    assert tracker.track(picture).box == pytest.approx(small.box, abs=2)


# Selection.


def wide(width: float) -> Face:
    points = np.zeros((NUM_POINTS, 3), np.float32)
    points[0, 0] = width
    return Face(points, np.zeros(52, np.float32), 1.0)


def test_choose_face() -> None:
    found = [wide(200), wide(100)]
    assert choose_face(found, None, "a.jpg", (640, 480)) is found[0]
    assert choose_face(found, 1, "a.jpg", (640, 480)) is found[0]
    assert choose_face(found, 2, "a.jpg", (640, 480)) is found[1]


@pytest.mark.parametrize(
    ("found", "number", "words"),
    [
        ([], None, ["no face found in a.jpg (640x480)", f"at least {ADVISED_FACE_PX} px"]),
        ([wide(200)], 2, ["face 2 of a.jpg", "there is 1 face", "mimik faces a.jpg"]),
        ([wide(200), wide(100)], 3, ["face 3 of a.jpg", "there are 2 faces"]),
        ([wide(17)], None, ["the face in a.jpg is 17 px wide", f"at least {ADVISED_FACE_PX} px wide"]),
    ],
)
def test_errors_of_choose_face_name_the_next_step(found: list[Face], number: int | None, words: list[str]) -> None:
    with pytest.raises(NoFaceError) as error:
        choose_face(found, number, "a.jpg", (640, 480))
    for word in words:
        assert word in str(error.value)


def test_the_smallest_face_allowed() -> None:
    assert choose_face([wide(MIN_FACE_PX)], None, "a.jpg", (64, 64)).width_px == MIN_FACE_PX
    with pytest.raises(NoFaceError):
        choose_face([wide(MIN_FACE_PX - 0.5)], None, "a.jpg", (64, 64))


INTERRUPTED = """
import os, signal
from mimik.face.landmarks import Landmarker
first, second = Landmarker(), Landmarker()
del first
del second
signal.signal(signal.SIGINT, lambda number, frame: os._exit(number))
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.slow
def test_a_signal_after_landmarkers_have_gone_is_no_crash() -> None:
    # The signal stacks of OpenVINO's plugins exist only on processors with AMX; elsewhere this cannot fail.
    assert subprocess.run([sys.executable, "-c", INTERRUPTED]).returncode == signal.SIGINT


def test_a_mirrored_face_is_the_face_of_the_mirrored_picture(landmarker: Landmarker, portrait: np.ndarray):
    face = landmarker.detect(portrait)[0]
    seen = landmarker.detect(np.ascontiguousarray(portrait[:, ::-1]))[0]
    turned = faces.mirrored_face(face, portrait.shape[1])
    error = np.linalg.norm(turned.points[:, :2] - seen.points[:, :2], axis=1) / face.width_px
    assert error.mean() < 0.01 and error.max() < 0.03
    again = faces.mirrored_face(turned, portrait.shape[1])
    np.testing.assert_allclose(again.points, face.points, atol=1e-3)
    assert (again.blendshapes == face.blendshapes).all()


def test_the_threads_that_load_networks_import_nothing() -> None:
    """Ctrl-C while two threads import can leave the import lock acquired, so that the program never ends."""
    code = (
        "import sys, mimik.face.landmarks as landmarks\n"
        "landmarks.run_in_thread = lambda load: print('openvino' in sys.modules)\n"
        "landmarks.Landmarker()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["True"] * 3


@pytest.mark.parametrize("px_per_px", [5.0, 9.0, 17.0])
def test_a_large_face_that_has_left_the_picture_leaves_a_sliver(px_per_px: float) -> None:
    """Of its reduced view, less than a pixel is left; the neighbor with a pixel shows it."""
    picture = np.full((2000, 2000, 3), 200, np.uint8)
    for width in range(1, 2 * round(px_per_px)):
        beyond = np.array([[px_per_px, 0, width - 256 * px_per_px], [0, px_per_px, 0]])
        view = faces._view(picture, beyond)
        assert view.shape == (256, 256, 3)
        assert (view[:, :-4] == 0).all()
    assert view[:200, -1].max() > 0
