"""One portrait, its face, and videos of a talking driver made from it; nothing is downloaded or kept.

The driver is the bundled portrait, moved by known amounts with the program's warp. The target positions of its points
are known, so it is an oracle for tracking and retargeting, not for the warp.
"""

from __future__ import annotations

import os

# Tests run in several processes, so waiting threads of one must not block the others. Set before torch and numpy are
# imported, and inherited by child processes.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import functools
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import typer.testing
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

from mimik.animation import avatar as avatar_module
from mimik.animation import group, render, source_frame
from mimik.animation.avatar import Avatar
from mimik.data.index import ClipInfo, read_index
from mimik.face import landmarks as faces
from mimik.face.landmarks import NUM_POINTS, Face, Image, Landmarker, head_pose
from mimik.face.tracker import Tracker
from mimik.files import asset
from mimik.media import video
from mimik.motion import expression
from mimik.motion.drivers import video as video_driver
from mimik.motion.expression import expression_basis
from mimik.motion.extraction import stream_motion
from mimik.motion.frames import MotionFrame, Reference, rotation_matrix
from mimik.rendering.flow import Flow, Warper
from mimik.rendering.painter import Painter
from mimik.rendering.scene.background import Scene, decompose_photo
from synthetic_shards import write_shards

# No deadline, because machines may be busy.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

SIDE_PX = 256  # of the small portrait and of the driver's frames: the square around the head, unscaled
DRIVER_FPS = 25.0


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The program's keys are made in a temporary folder, so that no home folder is changed."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIMIK_DATA", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the pipeline: on shared cores the linear solver's threads mostly wait for each other."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(scope="session", autouse=True)
def command_line_built_once() -> Iterator[None]:
    """Caches the commands, which Typer's runner builds for each call: 30 ms of processor time, more than most calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def taken_apart_once() -> Iterator[None]:
    """Caches the layers of a photo between tests, because their computation takes longer than most tests."""
    known: dict[tuple[Any, ...], Scene | str] = {}

    def once(picture: Image, points: np.ndarray) -> Scene | str:
        key = picture.shape, picture.tobytes(), points.tobytes()
        if key not in known:
            scene = known[key] = decompose_photo(picture, points)
            for array in vars(scene).values() if isinstance(scene, Scene) else ():
                if isinstance(array, np.ndarray):
                    array.setflags(write=False)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_frame, "decompose_photo", once)
        yield


@pytest.fixture(scope="module")
def the_warp_alone() -> Iterator[None]:
    """For tests independent of the renderer: persons are warped without a network unless a model is named.

    Loading the network and rendering a frame with it take several times as long as the rest of such a test.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(avatar_module, "DEFAULT_MODEL", "geometry")
        yield


@pytest.fixture(scope="session")
def landmarker() -> Landmarker:
    return Landmarker()


@pytest.fixture(scope="module")
def one_landmarker(landmarker: Landmarker) -> Iterator[None]:
    """For tests that animate: loading the networks of the landmark detector takes longer than most of them."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (avatar_module, group, render, video_driver, faces):
            patch.setattr(module, "Landmarker", lambda **_: landmarker)
        yield


@pytest.fixture(scope="module")
def avatar(small_path: Path, landmarker: Landmarker) -> Avatar:
    """The person of the small portrait."""
    return Avatar.from_photos([small_path], landmarker=landmarker)


def until(is_so: Callable[[], object], timeout_s: float = 120.0) -> None:
    """Waits for a condition set by a thread, with a timeout for busy machines."""
    deadline = time.monotonic() + timeout_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.005)


class Browser:
    """Sends requests to a local server and keeps its cookie."""

    def __init__(self) -> None:
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

    def ask(self, url: str, data: Any = None, **headers: str) -> tuple[int, str, Any]:
        """Status, text and headers of the response; data: the POST body, as JSON unless it is a text."""
        body = None
        if data is not None:
            body = (data if isinstance(data, str) else json.dumps(data)).encode()
            headers["Content-Type"] = "application/json"
        try:
            with self._opener.open(urllib.request.Request(url, body, headers), timeout=60) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), error.headers


@pytest.fixture(scope="session")
def portrait_path() -> Path:
    return asset("portraits/eileen_collins.png")


@pytest.fixture(scope="session")
def portrait(portrait_path: Path) -> Image:
    """uint8 RGB [512, 512, 3], read-only."""
    picture = video.read_image(portrait_path)
    picture.setflags(write=False)
    return picture


@pytest.fixture(scope="session")
def portrait_face(landmarker: Landmarker, portrait: Image) -> Face:
    return landmarker.detect(portrait)[0]


@pytest.fixture(scope="session")
def warper(portrait_face: Face) -> Warper:
    return Warper(portrait_face.points, 512, 512)


@pytest.fixture(scope="session")
def painter(portrait: Image, warper: Warper) -> Painter:
    return Painter(portrait, warper)


@pytest.fixture(scope="session")
def small_portrait(portrait: Image, portrait_face: Face) -> Image:
    """The square around the portrait's head, [256, 256, 3]; the face is 92 px wide."""
    left, top, right, bottom = portrait_face.box
    x = int(np.clip((left + right - SIDE_PX) / 2, 0, portrait.shape[1] - SIDE_PX))
    y = int(np.clip((top + bottom - SIDE_PX) / 2, 0, portrait.shape[0] - SIDE_PX))
    picture = portrait[y : y + SIDE_PX, x : x + SIDE_PX].copy()
    picture.setflags(write=False)
    return picture


@pytest.fixture(scope="session")
def small_face(landmarker: Landmarker, small_portrait: Image) -> Face:
    return landmarker.detect(small_portrait)[0]


@pytest.fixture(scope="session")
def small_path(small_portrait: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "person.png"
    video.write_image(path, small_portrait)
    return path


def turned(points: np.ndarray, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """points [478, 3] rotated about the center of the head; degrees, signs as in Pose.degrees."""
    # x to the right, y down, z away: a positive rotation about x moves the chin back, so the nose moves down.
    vector = np.radians([pitch, -yaw, roll])
    turn = rotation_matrix(vector[0] * np.eye(3)[0]) @ rotation_matrix(vector[1] * np.eye(3)[1])
    turn = rotation_matrix(vector[2] * np.eye(3)[2]) @ turn
    middle = head_pose(points).translation
    return (points - middle) @ turn.T + middle


def mouth_opened(points: np.ndarray, gap: float) -> np.ndarray:
    """Lower lip and chin lowered by gap face heights; more in the middle than at the corners."""
    out = np.array(points, np.float64)
    height = np.linalg.norm(out[10] - out[faces.CHIN])
    for line in (faces.LIPS_INNER_LOWER, faces.LIPS_OUTER_LOWER):
        out[line, 1] += gap * height * np.sin(np.linspace(0, np.pi, 11))
    chin = [18, 200, 199, 175, 152, 148, 377, 176, 400, 32, 262, 208, 428, 171, 396]
    out[chin, 1] += gap * height * 0.8
    return out


def eyes_closed(points: np.ndarray, amount: float = 1.0) -> np.ndarray:
    """The upper lids lowered to the lower ones."""
    out = np.array(points, np.float64)
    for upper, lower in (
        (faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER),
        (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER),
    ):
        out[upper] += amount * (out[lower] - out[upper])
    return out


@dataclass(frozen=True)
class Driver:
    """A synthetic talking video.

    Attributes:
        path: 256 px, 25 frames/s, no sound.
        frames: the frames before encoding, [T] of [256, 256, 3].
        points: target points of each frame, [T] of [478, 3].
        yaw: [T] head rotation relative to the portrait, degrees to the picture's right.
        gap: [T] added mouth opening, in face heights.
        blink: [T] 0 open .. 1 closed.
    """

    path: Path
    frames: list[Image]
    points: list[np.ndarray]
    yaw: np.ndarray
    gap: np.ndarray
    blink: np.ndarray


def _bump(first: int, last: int, length: int = 28) -> np.ndarray:
    """[length] zero outside first..last, inside a smooth bump of height one."""
    t = np.clip((np.arange(length) - first) / (last - first), 0, 1)
    return np.sin(np.pi * t) ** 2


@pytest.fixture(scope="session")
def driver(small_portrait: Image, small_face: Face, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """28 frames: still, a turn to the right, an open mouth, a blink, still."""
    yaw, gap, blink = 14 * _bump(3, 11), 0.11 * _bump(10, 18), 0.9 * _bump(18, 24)
    warper = Warper(small_face.points, SIDE_PX, SIDE_PX)
    painter = Painter(small_portrait, warper)
    points = [
        turned(eyes_closed(mouth_opened(small_face.points, g), b), y) for y, g, b in zip(yaw, gap, blink, strict=True)
    ]
    frames = [painter.paint(warper.flow(p)) for p in points]
    path = tmp_path_factory.mktemp("driver") / "driver.mp4"
    write_clip(path, frames)
    return Driver(path, frames, points, yaw, gap, blink)


@pytest.fixture(scope="session")
def driver_with_sound(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same driver with a tone as AAC sound."""
    folder = tmp_path_factory.mktemp("sound")
    tone = folder / "tone.mp4"
    with av.open(str(tone), "w") as container:
        picture = container.add_stream("libx264", rate=25)
        picture.width = picture.height = 32
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for _ in driver.frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(picture.encode())
        samples = np.sin(2 * np.pi * 440 * np.arange(round(len(driver.frames) / 25 * 16000)) / 16000)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(
                samples[None, start : start + 1024].astype(np.float32) * 0.3, format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 16000, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    path = folder / "driver_with_sound.mp4"
    write_clip(path, driver.frames, audio_from=tone)
    return path


def write_clip(
    path: Path, frames: Iterable[Image], fps: float = DRIVER_FPS, *, quality: int = 12, **options: Any
) -> Path:
    """Writes frames with the program's writer; options: of video.open_writer."""
    every = list(frames)
    height, width = every[0].shape[:2]
    with video.open_writer(path, width, height, fps, quality=quality, **options) as writer:
        for frame in every:
            writer.write(frame)
    return path


@pytest.fixture(scope="session")
def driver_faces(landmarker: Landmarker, driver: Driver) -> list[Face | None]:
    """The faces tracked in the driver's video."""
    tracker = Tracker(landmarker)
    return [tracker.track(frame) for frame in video.read_frames(driver.path)]


# A browser.


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """browser(*arguments, **options) opens the system's headless Chromium as a Playwright context."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no Chromium; apt install chromium")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync"]
    with ExitStack() as stack:
        browsers = stack.enter_context(playwright.sync_playwright())

        def opened(*arguments: str, **options: Any) -> Any:
            context = browsers.chromium.launch_persistent_context(
                str(tmp_path / "profile"),
                executable_path=program,
                headless=True,
                args=[*quiet, *arguments],
                accept_downloads=True,
                **options,
            )
            context.set_default_timeout(120_000)
            stack.callback(context.close)
            return context

        yield opened


def lively(nets: Any) -> Any:
    """The networks of networks.build in evaluation mode, with weights for which every part has an effect."""
    import torch

    from mimik.networks.blocks import SelfAttention

    for _, net in nets:
        for module in net.modules():
            if isinstance(module, SelfAttention):
                module.gamma.data.fill_(0.7)
            if isinstance(module, torch.nn.InstanceNorm2d):
                torch.nn.init.normal_(module.weight, 1, 0.3)
                torch.nn.init.normal_(module.bias, 0, 0.3)
        net.eval()
    if nets.config.form == "texture":
        for layer in (nets.G.to_flow, nets.G.to_picture):
            torch.nn.init.normal_(layer.weight, std=0.3)
    return nets


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder)
    return folder


@pytest.fixture(scope="module")
def index(shards: Path) -> list[ClipInfo]:
    return read_index(shards)


@pytest.fixture
def no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables the correction of the landmark detector's bias for turned heads."""
    exact = replace(expression_basis(), by_pose=np.zeros((5, NUM_POINTS, 3)))
    monkeypatch.setattr(expression, "expression_basis", lambda: exact)


@pytest.fixture(scope="module")
def motion_frames(driver_faces: list[Face]) -> tuple[Reference, list[MotionFrame]]:
    reference, stream = stream_motion(driver_faces, DRIVER_FPS, smooth=0)
    return reference, list(stream)


@pytest.fixture(scope="module")
def flow_of(warper: Warper, portrait_face: Face) -> Callable[..., Flow]:
    known: dict[tuple, Flow] = {}

    def flow(yaw: float = 0, pitch: float = 0, roll: float = 0) -> Flow:
        key = yaw, pitch, roll
        if key not in known:
            known[key] = warper.flow(turned(portrait_face.points, yaw, pitch, roll))
        return known[key]

    return flow
