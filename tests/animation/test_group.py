"""All faces of a photo: each moves as if alone, the seam is between them, a shared driver is read once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mimik.animation.avatar import Avatar, render_all_faces
from mimik.animation.group import SharedDriver, blended, face_shares
from mimik.app.cli import app
from mimik.config import AnimateConfig, InputError
from mimik.face.landmarks import Face, Image, Landmarker
from mimik.face.orientation import rotated_face
from mimik.media import video
from mimik.motion.drivers.driver import DriverSettings
from mimik.motion.drivers.registry import open_driver
from mimik.provenance.verifying import verify

pytestmark = pytest.mark.usefixtures("the_warp_alone", "one_landmarker")


@pytest.fixture(scope="module")
def pair(small_portrait: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twins side by side, [256, 512, 3]."""
    path = tmp_path_factory.mktemp("pair") / "pair.png"
    video.write_image(path, np.concatenate([small_portrait, small_portrait[:, ::-1]], axis=1))
    return path


def test_shares_are_those_of_the_nearest_face(small_face: Face) -> None:
    other = rotated_face(small_face, 2, 512, 256)
    weights = face_shares([small_face, other], 512, 256)
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-5)
    for number, face in enumerate((small_face, other)):
        left, top, right, bottom = face.box
        assert weights[number, int((top + bottom) / 2), int((left + right) / 2)] > 0.99
    np.testing.assert_allclose(weights[0], weights[1][::-1, ::-1], atol=1e-4)


def test_pictures_are_joined_by_their_shares() -> None:
    weights = np.array([[[1, 0.25, 0]], [[0, 0.5, 0]], [[0, 0.25, 1]]], np.float32)
    images = [np.full((1, 3, 3), value, np.uint8) for value in (0, 100, 200)]
    assert blended(images, weights)[0, :, 0].tolist() == [0, 100, 200]


def test_a_shared_driver_is_read_once(landmarker: Landmarker) -> None:
    shared, settings = SharedDriver(open_driver("smile", 5.0), 2), DriverSettings(landmarker=landmarker)
    alone = [frame.offset for frame in open_driver("smile", 5.0).motion(settings).frames]
    one = shared.motion(settings).frames
    first = [next(one).offset for _ in range(3)]
    other = shared.motion(settings).frames
    second = [frame.offset for frame in other]
    first += [frame.offset for frame in one]
    assert len(first) == len(second) == len(alone)
    for a, b, c in zip(first, second, alone, strict=True):
        assert a is b
        np.testing.assert_array_equal(a, c)


@pytest.mark.slow
def test_each_face_moves_as_it_does_alone(pair: Path, tmp_path: Path, landmarker: Landmarker) -> None:
    report = render_all_faces(pair, "smile", tmp_path / "both", fps=1)
    frames = [video.read_image(path) for path in sorted((tmp_path / "both").iterdir())]
    assert report.num_frames == len(frames) == 4
    assert verify(tmp_path / "both" / "00000.png").sources
    for number in (1, 2):
        avatar = Avatar.from_photos(pair, face=number)
        left, top, right, bottom = (round(side) for side in avatar.face.box)
        for frame, alone in zip(frames, avatar._unmarked("smile", AnimateConfig(fps=1)), strict=True):
            part = np.s_[top:bottom, left:right]
            assert np.abs(frame[part].astype(int) - alone[part]).mean() < 3  # only the watermark


@pytest.mark.slow
def test_faces_may_have_drivers_of_their_own(pair: Path, small_path: Path, tmp_path: Path) -> None:
    before = video.read_image(pair).astype(int)
    done = CliRunner().invoke(
        app,
        [*("animate", str(pair), "smile", "--all-faces", "--face-driver", "2=nod", "--fps", "2", "--strength", "1"),
         *("-o", str(tmp_path / "a.mp4"), "--model", "geometry")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    frames = np.stack(list(video.read_frames(tmp_path / "a.mp4"))).astype(int)
    moved = np.abs(frames - before).max(0).mean(-1)
    assert moved[:, :256].mean() > 1 and moved[:, 256:].mean() > 1
    assert {source.name for source in verify(tmp_path / "a.mp4").sources} == {
        "pair.png",
        "bundled smile",
        "bundled nod",
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--face-driver", "2=nod"], "--face-driver requires --all-faces"),
        (["--all-faces", "--face-driver", "two"], "--face-driver two: use the face's number and a driver"),
        (["--all-faces", "--face-driver", "7=nod"], "--face-driver 7=...: no such face; use one of 1, 2"),
        (["--all-faces", "--frame", "crop"], "--frame crop applies to one face"),
        (["--all-faces", "--background", "blur"], "--background blur applies to one face"),
        (["--all-faces", "--face", "2"], "--face 2 applies to one face"),
    ],
)
def test_what_does_not_go_together(pair: Path, tmp_path: Path, options: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["animate", str(pair), "smile", "-o", str(tmp_path / "a.mp4"), *options])
    assert done.exit_code == 2 and words in " ".join(done.output.split()), done.output
    assert not list(tmp_path.iterdir())


def test_a_photo_without_faces(tmp_path: Path) -> None:
    video.write_image(tmp_path / "blank.png", np.full((64, 64, 3), 90, np.uint8))
    with pytest.raises(InputError, match=r"no face found in blank\.png"):
        render_all_faces(tmp_path / "blank.png", "smile", tmp_path / "a.mp4")
