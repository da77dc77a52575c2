"""matte.py: against a slow reference and synthetic mixtures, on the portrait, and from the option to the file."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from mimik.animation.avatar import Avatar
from mimik.config import AnimateConfig, InputError
from mimik.face.landmarks import OVAL, Face, Image, Landmarker
from mimik.inference.synthesis import GeometryPainter
from mimik.media import video
from mimik.provenance.verifying import Status, verify
from mimik.provenance.watermark import WatermarkDetector
from mimik.rendering.flow import Warper
from mimik.rendering.layers.canvas import Canvas
from mimik.rendering.scene import matte
from mimik.rendering.scene.background import LayeredPainter

pytestmark = pytest.mark.usefixtures("the_warp_alone")


@pytest.fixture(scope="module")
def alpha(small_portrait: Image, small_face: Face) -> np.ndarray:
    return matte.person_matte(small_portrait, small_face.points)


# On the photo.


def test_the_person_is_found(alpha: np.ndarray, small_face: Face) -> None:
    assert alpha.shape == (256, 256) and alpha.dtype == np.float32
    assert alpha.min() >= 0 and alpha.max() <= 1
    oval = small_face.points[OVAL, :2]
    inner = oval.mean(0) + 0.8 * (oval - oval.mean(0))
    inside = cv2.fillConvexPoly(np.zeros((256, 256)), np.round(inner).astype(np.int32), 1)
    assert alpha[inside > 0].min() > 0.98
    assert alpha[:60, :40].max() < 0.02 and alpha[:60, -40:].max() < 0.02  # the wall above her shoulders
    soft = ((alpha > 0.05) & (alpha < 0.95)).mean()
    assert 0.001 < soft < 0.15  # a narrow edge


def test_a_photo_argument_that_is_not_a_person_is_reported(small_face: Face) -> None:
    wall = np.full((256, 256, 3), 120, np.uint8)
    with pytest.raises(
        InputError, match="--background: the person in the photo cannot be separated from the background"
    ):
        matte.person_matte(wall, small_face.points)


def test_doubt_is_settled_by_the_edges_of_the_photo(small_face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide area at 0.9 is wall on the side without an edge to the wall, and person on the side without one to her."""
    x, y = small_face.points[OVAL, :2].mean(0)
    width = float(np.ptp(small_face.points[OVAL, 0]))
    across = np.arange(256) - x
    sure, wall = np.abs(across) < 0.55 * width, across < -1.05 * width
    probability = np.where(sure, 1.0, np.where(np.abs(across) < width, 0.89, 0.0))
    probability = np.tile(probability.astype(np.float32), (256, 1))
    picture = np.full((256, 256, 3), 30, np.uint8)
    is_person = (across > -0.55 * width) & (across < width)  # her coat, on the right only
    picture[:, is_person] = 180
    monkeypatch.setattr(matte, "_run_segmenter", lambda picture: probability)
    alpha = matte.person_matte(picture, small_face.points)[round(y)]
    assert alpha[wall].max() < 0.02
    beside = (across > -0.95 * width) & (across < -0.65 * width)
    assert alpha[beside].max() < 0.05
    assert alpha[(across > 0) & (across < 0.9 * width)].min() > 0.95
    # The network does not see small faces well enough for its doubt to count.
    small = small_face.points + (0.2 - 1) * (small_face.points - small_face.points.mean(0))
    views = [(probability, (0, 0, 256, 256))]
    assert matte._mistaken(picture, small_face.points, views) is not None
    assert matte._mistaken(picture, small, views) is None


def test_the_size_of_the_photo_changes_little(portrait: Image, portrait_face: Face) -> None:
    whole = matte.person_matte(portrait, portrait_face.points)
    half = matte.person_matte(cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA), portrait_face.points / 2)
    assert np.abs(cv2.resize(whole, (256, 256), interpolation=cv2.INTER_AREA) - half).mean() < 0.03


def test_the_filter_is_the_guided_filter() -> None:
    """He et al. 2013, eq. 11 to 13 and 21, window by window."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (24, 30, 3), np.uint8)
    plane = rng.random((24, 30)).astype(np.float32)
    guide = picture.astype(np.float64) / 255
    radius = max(2, round(matte._GUIDE_RADIUS * 30))

    def windows(x: np.ndarray) -> np.ndarray:
        """Each pixel's window, reflected at the border as in OpenCV."""
        pad = ((radius, radius), (radius, radius)) + ((0, 0),) * (x.ndim - 2)
        side = 2 * radius + 1
        return np.lib.stride_tricks.sliding_window_view(np.pad(x, pad, mode="reflect"), (side, side), axis=(0, 1))

    a, b = np.empty((24, 30, 3)), np.empty((24, 30))
    guides, planes = windows(guide), windows(plane.astype(np.float64))
    for y in range(24):
        for x in range(30):
            i, p = guides[y, x].reshape(3, -1), planes[y, x].ravel()
            a[y, x] = np.linalg.solve(
                np.cov(i, bias=True) + matte._GUIDE_EPS * np.eye(3), i @ p / p.size - i.mean(1) * p.mean()
            )
            b[y, x] = p.mean() - a[y, x] @ i.mean(1)
    expected = (windows(a).mean((-2, -1)) * guide).sum(-1) + windows(b).mean((-2, -1))
    np.testing.assert_allclose(matte._guided(picture, plane), expected, atol=2e-4)


def test_a_half_covered_pixel_gets_its_own_color_back() -> None:
    red, blue = np.array([200.0, 40, 30]), np.array([20.0, 60, 220])
    alpha = np.tile(np.clip((np.arange(200) - 95) / 10, 0, 1).astype(np.float32), (60, 1))
    mixed = alpha[..., None] * red + (1 - alpha[..., None]) * blue
    front = matte.foreground(np.rint(mixed).astype(np.uint8), alpha)
    assert np.abs(front[:, 98:] - red).max() < 12  # from an opacity of 1/3 on
    assert np.abs(front[:, :90].astype(float) - red).mean() < np.abs(front[:, :90].astype(float) - blue).mean()
    behind = matte.blurred(np.rint(mixed).astype(np.uint8), alpha)
    assert np.abs(behind - blue).max() < 12  # nothing of the person shines through


def test_a_background_covers_the_frame() -> None:
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 100:200] = 255
    made = matte.covering(picture, 64, 64)
    assert made.shape == (64, 64, 3) and made.mean() > 250  # its center
    assert matte.covering(np.array([[[1, 2, 3]]], np.uint8), 40, 90).shape == (90, 40, 3)


def test_what_a_background_can_be(tmp_path: Path) -> None:
    assert matte.backdrop("none", video.read_image) == "none" and matte.backdrop("blur", video.read_image) == "blur"
    for text in ("#102030", "rgb(16, 32, 48)"):
        np.testing.assert_array_equal(matte.backdrop(text, video.read_image), [[[16, 32, 48]]])
    np.testing.assert_array_equal(matte.backdrop("white", video.read_image), [[[255, 255, 255]]])
    path = tmp_path / "beach.png"
    video.write_image(path, np.full((32, 48, 3), 7, np.uint8))
    assert np.shape(matte.backdrop(str(path), video.read_image)) == (32, 48, 3)
    with pytest.raises(InputError, match=r"--background beech.png: no such file; use the path of a picture, a color"):
        matte.backdrop("beech.png", video.read_image)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.png"):
        matte.backdrop(str(tmp_path / "text.png"), video.read_image)


def test_alpha_moves_with_the_photo(small_portrait: Image, small_face: Face, alpha: np.ndarray) -> None:
    warper = Warper(small_face.points, 256, 256)
    moved = small_face.points + np.array([6, 0, 0])

    mover = GeometryPainter(small_portrait, warper, matte=np.rint(alpha * 255).astype(np.uint8))
    cut = LayeredPainter(mover, alpha, Canvas.of(small_portrait, warper.crop), None)
    still, shifted = (cut.paint(warper.flow(points), points)[..., 3] for points in (small_face.points, moved))
    np.testing.assert_allclose(still, alpha * 255, atol=1)
    rows = np.s_[70:120]  # of the head
    left = [np.argmax(a[rows] > 127, axis=1).mean() for a in (still, shifted)]
    assert left[1] - left[0] == pytest.approx(6, abs=1.5)


# From the option to the file.


@pytest.fixture
def found(alpha: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces matting by a given matte."""
    monkeypatch.setattr(matte, "person_matte", lambda *_: alpha)


def flat(frames: np.ndarray, color: float) -> np.ndarray:
    """RGBA composited over gray."""
    a = frames[..., 3:] / 255
    return np.rint(frames[..., :3] * a + color * (1 - a)).astype(np.uint8)


def test_frames_without_a_background(avatar: Avatar, alpha: np.ndarray) -> None:
    frames = np.array(list(avatar.frames("smile", fps=2, background="none")))
    assert frames.shape[1:] == (256, 256, 4)
    assert np.abs(frames[0][..., 3] / 255 - alpha).mean() < 0.02  # the smile begins at rest
    corner = frames[:, :40, :40, 3]
    assert corner.max() == 0
    # The remaining watermark is readable wherever the person is pasted.
    for color in (255, 0):
        assert WatermarkDetector().read(list(flat(frames, color))).payload is not None


@pytest.mark.usefixtures("found")
def test_the_label_is_seen_where_nothing_else_is(avatar: Avatar) -> None:
    frame = next(avatar.frames("smile", fps=1, background="none", label=True))
    plain = next(avatar.frames("smile", fps=1, background="none"))
    covered = frame[..., 3].astype(int) - plain[..., 3]
    assert covered.min() >= 0
    ys, xs = np.nonzero(covered)
    if len(ys):  # the person partly covers the corner of this photo
        assert ys.min() > 200 and xs.min() > 200
    assert frame[-16:-10, -24:-10, 3].min() > 100


@pytest.mark.usefixtures("found")
def test_another_background(avatar: Avatar, alpha: np.ndarray, tmp_path: Path) -> None:
    beach = tmp_path / "beach.png"
    video.write_image(beach, np.full((50, 90, 3), (240, 200, 90), np.uint8))
    for background, color in (("#00ff00", (0, 255, 0)), (str(beach), (240, 200, 90))):
        frame = next(avatar.frames("smile", fps=1, background=background)).astype(int)
        assert np.abs(frame[alpha < 0.01] - color).mean() < 6  # the mark
    blurred = next(avatar.frames("smile", fps=1, background="blur")).astype(int)
    assert np.abs(blurred - avatar.picture)[alpha > 0.99].mean() < 6


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(
    "name", ["a.webm", "frames", *(pytest.param(n, marks=pytest.mark.slow) for n in ("a.mov", "a.webp"))]
)
def test_what_is_transparent_leaves_signed(avatar: Avatar, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    report = avatar.render("smile", out, fps=1, background="none")
    first = out / "00000.png" if name == "frames" else out
    verdict = verify(first)
    assert verdict.status is Status.MIMIK and verdict.mark is not None
    assert verdict.mark.value == verdict.binding
    assert report.num_frames == 4  # of 3.9 s
    if name in ("frames", "a.webp"):
        seen = np.array(Pillow.open(first).convert("RGBA"))[..., 3]
    else:
        with av.open(str(out)) as container:
            stream = container.streams.video[0]
            # ffmpeg's own VP9 decoder leaves the alpha out.
            decoder = av.CodecContext.create("libvpx-vp9", "r") if name == "a.webm" else stream.codec_context
            packet = next(container.demux(stream))
            frame = next(iter([*decoder.decode(packet), *decoder.decode(None)]))
            seen = frame.to_ndarray(format="rgba")[..., 3]
    expected = next(avatar._unmarked("smile", AnimateConfig(fps=1, background="none")))[..., 3]
    assert np.abs(seen.astype(int) - expected).mean() < 1
    assert (tmp_path / "a.c2pa").exists() == (name == "a.webm")


@pytest.mark.usefixtures("found")
def test_a_still_without_a_background(avatar: Avatar, portrait_path: Path, tmp_path: Path) -> None:
    avatar.render(portrait_path, tmp_path / "a.png", background="none")
    assert Pillow.open(tmp_path / "a.png").mode == "RGBA"
    assert verify(tmp_path / "a.png").status is Status.MIMIK


@pytest.mark.usefixtures("found")
def test_the_manifest_names_the_background(avatar: Avatar, tmp_path: Path) -> None:
    beach = tmp_path / "beach.png"
    video.write_image(beach, np.full((50, 90, 3), 200, np.uint8))
    avatar.render("smile", tmp_path / "a.mp4", fps=1, background=str(beach))
    sources = verify(tmp_path / "a.mp4").sources
    assert [(one.role, one.name) for one in sources] == [
        ("photo", "person.png"),
        ("driver", "bundled smile"),
        ("background", "beach.png"),
    ]
    with pytest.raises(InputError, match="would be replaced"):
        avatar.render(avatar.photo, beach, background=str(beach), force=True)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.mkv", "f%d.jpg", "a.jpg"])
def test_what_cannot_be_transparent(avatar: Avatar, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be transparent; use a \.webm or \.mov file, a folder"):
        avatar.render("smile", tmp_path / name, background="none")
    assert not list(tmp_path.iterdir())


def test_a_video_is_not_cut_out(driver, landmarker: Landmarker, tmp_path: Path) -> None:
    moving = Avatar.from_photos([driver.path], landmarker=landmarker)
    with pytest.raises(InputError, match=r"background=blur: driver\.mp4 is a video"):
        moving.render("smile", tmp_path / "a.mp4", background="blur")
    assert not list(tmp_path.iterdir())
