"""The app of `mimik web`: animate, learn a person, edit, verify, in a browser on this computer.

Everything is done by the same functions as on the command line. Each visitor has a folder of their own, which goes with
them; nothing else of this computer can be read or written. Gradio is imported when the app is made.
"""

from __future__ import annotations

import itertools
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mimik import video
from mimik.animate import Avatar, Report
from mimik.config import AVATAR_SUFFIX, REGIONS, AnimateConfig, InputError, check_number
from mimik.edit import SLIDERS, Edit, Editor
from mimik.face import Image
from mimik.motion import bundled_motions
from mimik.page import check_host
from mimik.provenance import Claim, Credentials, Ingredient, Marker, seal, verify

HOST, PORT = "127.0.0.1", 8765
_PREVIEW_PX = 512  # of the edited photo while a slider moves
_KEPT_S = 3600  # files of those who are gone without a word
_LOOK_EVERY_S = 300
_WAITING = 16  # in the queue; more are asked to come back
_NAMES = {
    "smile": "Smile",
    "mouth": "Open mouth",
    "blink": "Blink",
    "brows": "Brows",
    "gaze_x": "Gaze, left to right",
    "gaze_y": "Gaze, up to down",
    "yaw": "Turn",
    "pitch": "Nod",
    "roll": "Tilt",
}
_SIZES = {"as the photo": None, "512": 512, "768": 768, "1024": 1024, "256": 256}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a visitor may ask for."""

    upload_mb: int = 200
    seconds: float = 120.0  # of a driving video
    photos: int = 32  # of a person

    def __post_init__(self) -> None:
        check_number("--max-mb", self.upload_mb, 1, 4096, "megabytes of an upload")
        check_number("--max-seconds", self.seconds, 1, 3600, "of a driving video")


@dataclass
class Desk:
    """One visitor's place: a folder, and what is being worked on there."""

    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)
    editor: tuple[str, Editor, Marker] | None = None
    num_files: int = 0

    def new(self, name: str) -> Path:
        """A file of the visitor's that does not exist yet, in a folder of its own so that its name stays plain."""
        self.num_files += 1
        place = self.folder / str(self.num_files)
        place.mkdir()
        return place / name


class Desks:
    """All visitors' places, below one folder that goes with the app."""

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="mimik-web-")
        self.cache = Path(self._root.name, "cache")
        self.cache.mkdir()
        self._desks: dict[str, Desk] = {}
        self._lock = threading.Lock()

    def of(self, visitor: str | None) -> Desk:
        with self._lock:
            if visitor not in self._desks:
                folder = tempfile.mkdtemp(prefix="visitor-", dir=self._root.name)
                self._desks[str(visitor)] = Desk(Path(folder))
            return self._desks[str(visitor)]

    def leave(self, visitor: str | None) -> None:
        with self._lock:
            desk = self._desks.pop(str(visitor), None)
        if desk is not None:
            desk.stop.set()
            shutil.rmtree(desk.folder, ignore_errors=True)

    def close(self) -> None:
        for visitor in list(self._desks):
            self.leave(visitor)
        self._root.cleanup()


class _StoppedError(Exception):
    """The visitor pressed Stop."""


# What the tabs do, without a browser.


def animate(
    desk: Desk,
    photo: str | None,
    driver_video: str | None,
    driver_motion: str,
    *,
    limits: Limits,
    beside: bool = False,
    tell: Callable[[int, int | None], None] | None = None,
    credentials: Credentials | None = None,
    **options: Any,
) -> tuple[Path, Path | None, Report]:
    """A sealed video of the photo.

    Args:
        desk: the visitor's; `stop` there ends the work.
        photo: a picture or an .avatar file.
        driver_video: or None, then driver_motion is the name of a bundled motion.
        beside: make a second video, photo or driver at the left, result at the right.
        tell: called with the frames done and of all frames.
        options: fields of AnimateConfig.

    Raises:
        InputError: if anything given cannot be used, or the visitor stopped it.
    """
    if not photo:
        raise InputError("There is no photo yet: give one of the person.")
    if driver_video is None and driver_motion not in bundled_motions():
        raise InputError("Nothing drives the photo yet: give a video, or choose a motion.")
    if driver_video is not None:
        length = video.probe(driver_video).duration_s
        if length is not None and length > limits.seconds:
            raise InputError(f"The video is {length:.0f} s long; give one of at most {limits.seconds:.0f} s.")
    driver = driver_video or driver_motion
    desk.stop.clear()

    def step(stage: str, done: int, total: int | None) -> None:
        if desk.stop.is_set():
            raise _StoppedError
        if tell is not None and stage == "animate":
            tell(done, total)

    avatar = Avatar.from_photos([photo])
    out = desk.new(f"{Path(photo).stem}.mp4")
    try:
        report = avatar.render(driver, out, credentials=credentials, progress=step, **options)
        second = None
        if beside:
            left = driver_video or photo
            second = _side_by_side(avatar, left, out, report, desk, step, credentials)
    except _StoppedError:
        raise InputError("Stopped; nothing was kept.") from None
    return out, second, report


def _side_by_side(
    avatar: Avatar,
    left: str,
    result: Path,
    report: Report,
    desk: Desk,
    step: Callable[[str, int, int | None], None],
    credentials: Credentials | None,
) -> Path:
    """Driver or photo at the left, result at the right, sealed as the result is."""
    out = desk.new(f"{result.stem}_side_by_side.mp4")
    height = report.height
    if Path(left).suffix.lower() != AVATAR_SUFFIX and video.kind(left) == "video":
        others: Iterator[Image] = video.read_frames(left, fps=report.fps, max_side=height)
        driver = [Ingredient.from_file("driver", Path(left))]
    else:
        others = itertools.repeat(avatar.picture, report.num_frames)
        driver = []
    claim = Claim(out.name, Path(report.model).name, (*avatar.ingredients(), *driver), {"view": "side by side"})
    with (
        seal(out, claim, credentials=credentials) as draft,
        ExitStack() as stack,
        closing(video.read_frames(result)) as frames,
    ):
        writer: Any = None
        for done, (other, frame) in enumerate(zip(others, frames, strict=False), start=1):
            width = max(2, round(other.shape[1] * height / other.shape[0]) // 2 * 2)
            small = cv2.resize(other, (width, height), interpolation=cv2.INTER_AREA)
            both = np.concatenate([small, frame], axis=1)
            if writer is None:
                writer = stack.enter_context(
                    draft.open_writer(
                        both.shape[1], height, report.fps, audio_from=result if report.has_audio else None
                    )
                )
            writer.write(both)
            step("beside", done, report.num_frames)
    return out


@contextmanager
def learning(
    desk: Desk, photos: list[str] | None, *, limits: Limits, model: Path | None, max_seconds: float
) -> Iterator[Iterator[tuple[list[Any], Path | None, str]]]:
    """Learns a person in a thread; gives the curve so far, the file when it is there, and a sentence.

    Raises:
        InputError: if the photos cannot be used; or while it is read, if the learning failed or was stopped.
    """
    if not photos:
        raise InputError("There are no photos yet: give one or more of the same person.")
    if len(photos) > limits.photos:
        raise InputError(f"These are {len(photos)} photos; give at most {limits.photos}.")
    try:
        from mimik import fine_tuning
    except ModuleNotFoundError as error:
        raise InputError(f"Learning needs {error.name}, which is not installed: pip install 'mimik[train]'.") from None
    arguments = fine_tuning.LearnArguments(model=model, max_seconds=max_seconds)
    out = desk.new(f"{Path(photos[0]).stem}{AVATAR_SUFFIX}")
    told: queue.Queue[tuple[str, Any]] = queue.Queue()
    desk.stop.clear()

    def step(point: Any, done: int, num_steps: int) -> None:
        if desk.stop.is_set():
            raise _StoppedError
        told.put(("point", (point, done, num_steps)))

    def work() -> None:
        try:
            told.put(("done", fine_tuning.learn([Path(one) for one in photos], out, arguments, progress=step)))
        except BaseException as error:  # raised again for the visitor
            told.put(("error", error))

    def read() -> Iterator[tuple[list[Any], Path | None, str]]:
        curve: list[Any] = []
        while True:
            what, value = told.get()
            if what == "point":
                point, done, num_steps = value
                if not curve or point.step != curve[-1].step:
                    curve.append(point)
                if told.empty():
                    yield curve, None, f"Step {done} of {num_steps} at most."
            elif what == "done":
                yield value.curve, out, f"Learned; it ended because {value.ended}. Keep the file: Animate takes it."
                return
            elif isinstance(value, _StoppedError):
                raise InputError("Stopped; nothing was kept.")
            else:
                raise value

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield read()
    finally:
        desk.stop.set()
        thread.join()


def edited(desk: Desk, photo: str | None, values: dict[str, float], *, model: str | None = None) -> Image:
    """The photo as the sliders say, small and marked, for the eye.

    Raises:
        InputError: if there is no photo or no face in it.
    """
    editor, marker = _editor(desk, photo, model)
    return marker.mark(editor(Edit(**values)))


def save_edited(
    desk: Desk, photo: str | None, values: dict[str, float], *, model: str | None = None, label: bool = False
) -> Path:
    """The same at the photo's own size, in a sealed file."""
    if not photo:
        raise InputError("There is no photo yet: give one of the person.")
    out = desk.new(f"{Path(photo).stem}_edited.png")
    Editor(Avatar.from_photos([photo]), AnimateConfig(model=model, label=label)).write_sealed(out, Edit(**values))
    return out


def _editor(desk: Desk, photo: str | None, model: str | None) -> tuple[Editor, Marker]:
    if not photo:
        raise InputError("There is no photo yet: give one of the person.")
    if desk.editor is None or desk.editor[0] != photo:
        avatar = Avatar.from_photos([photo])
        editor = Editor(avatar, AnimateConfig(model=model, size=_PREVIEW_PX))
        desk.editor = photo, editor, Marker(Path(model or avatar.model).name)
    return desk.editor[1:]


def verified(file: str | None) -> tuple[str, dict[str, Any]]:
    """What a file says of itself, in plain words, and everything that was found.

    Raises:
        InputError: if there is no file, or it cannot be read.
    """
    if not file:
        raise InputError("There is no file yet: drop a picture or a video.")
    verdict = verify(Path(file))
    return verdict.sentence, verdict.to_dict()


# The app.


def needed() -> Any:
    """gradio, told to ask nobody outside this computer for anything.

    Raises:
        InputError: if it is not installed.
    """
    for name, value in (("GRADIO_ANALYTICS_ENABLED", "False"), ("HF_HUB_OFFLINE", "1"), ("DO_NOT_TRACK", "1")):
        os.environ.setdefault(name, value)
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise InputError(f"web needs {error.name}, which is not installed: pip install 'mimik[web]'.") from None
    return gradio


def build(desks: Desks, *, limits: Limits, model: str | None = None) -> Any:
    """The app's pages, a gradio.Blocks.

    Args:
        desks: the visitors' places.
        limits: what they may ask for.
        model: as AnimateConfig has it.
    """
    gr = needed()
    once: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": 1, "api_visibility": "private"}
    quick: dict[str, Any] = {"concurrency_id": "quick", "concurrency_limit": 2, "api_visibility": "private"}

    @contextmanager
    def told() -> Iterator[None]:
        """What a visitor caused is one sentence on the page."""
        try:
            yield
        except InputError as error:
            sentence = str(error)
            raise gr.Error(sentence[:1].upper() + sentence[1:], duration=None, print_exception=False) from None

    def asks(function: Callable[..., Any]) -> Callable[..., Any]:
        """gradio hands its request to whoever names its type, which is known in here only."""
        function.__annotations__["request"] = gr.Request
        return function

    def desk_of(request: Any) -> Desk:
        return desks.of(request.session_hash)

    @asks
    def stop(request: Any) -> None:
        desk_of(request).stop.set()

    @asks
    def leave(request: Any) -> None:
        desks.leave(request.session_hash)

    @asks
    def on_animate(
        photo: str,
        avatar: str,
        driver: str,
        motion: str,
        strength: float,
        smooth: float,
        regions: list[str],
        size: str,
        frame: str,
        mode: str,
        beside: bool,
        label: bool,
        request: Any,
        progress: Any = gr.Progress(),  # noqa: B008  how gradio asks for it
    ) -> tuple[str, str, str | None, str]:
        with told():
            progress(0, desc="Reading photo and driver")
            out, second, report = animate(
                desk_of(request),
                avatar or photo,
                driver,
                motion,
                limits=limits,
                beside=beside,
                tell=lambda done, total: progress((done, total), desc="Animating", unit="frames"),
                model=None if avatar else model,
                strength=strength,
                smooth=smooth,
                regions=tuple(name for name in REGIONS if name in regions),
                size=_SIZES[size],
                frame=frame,
                motion=mode,
                label=label,
            )
        notes = "".join(f"\n\nNote: {note}." for note in report.notes)
        said = (
            f"{report.num_frames} frames of {report.width}x{report.height}, {report.frames_per_second:.0f} a second. "
            f"The file is signed and marked as synthetic.{notes}"
        )
        return str(out), str(out), str(second) if second else None, said

    @asks
    def on_learn(photos: list[str], seconds: float, request: Any) -> Iterator[tuple[Any, str | None, str]]:
        import pandas

        def table(curve: list[Any]) -> Any:
            rows = [
                {"step": point.step, "value": value, "what": name}
                for point in curve
                for name, value in (("likeness", point.identity), ("following", point.following))
            ]
            return pandas.DataFrame(rows, columns=["step", "value", "what"])

        with told():
            yield table([]), None, "Looking at the photos."
            path = Path(model) if model and model.endswith(".safetensors") else None
            with learning(desk_of(request), photos, limits=limits, model=path, max_seconds=seconds) as points:
                for curve, out, said in points:
                    yield table(curve), str(out) if out else None, said

    @asks
    def on_edit(photo: str, request: Any, *values: float) -> Any:
        if not photo:
            return None
        with told():
            return edited(desk_of(request), photo, dict(zip(SLIDERS, values, strict=True)), model=model)

    @asks
    def on_save(photo: str, label: bool, request: Any, *values: float) -> str:
        with told():
            settings = dict(zip(SLIDERS, values, strict=True))
            return str(save_edited(desk_of(request), photo, settings, model=model, label=label))

    def on_verify(file: str) -> tuple[str, Any]:
        with told():
            sentence, details = verified(file)
            return f"### {sentence}", details

    with gr.Blocks(title="mimik", analytics_enabled=False, delete_cache=(_LOOK_EVERY_S, _KEPT_S)) as app:
        gr.Markdown(
            "# mimik\nOne photo of a person in, a talking head out. Animate yourself, people who agreed to it, and the "
            "long dead with respect. Every file says that it is synthetic."
        )
        with gr.Tab("Animate"):
            with gr.Row():
                with gr.Column():
                    photo = gr.Image(
                        label="Photo",
                        type="filepath",
                        image_mode=None,
                        sources=["upload", "webcam", "clipboard"],
                        elem_id="photo",
                        height=420,
                    )
                    avatar = gr.File(
                        label="or a learned person (.avatar)", file_types=[AVATAR_SUFFIX], elem_id="avatar", height=90
                    )
                with gr.Column():
                    driver = gr.Video(
                        label="Video that drives it", height=300, sources=["upload", "webcam"], elem_id="driver"
                    )
                    motion = gr.Dropdown(
                        list(bundled_motions()), value="talk", label="or, without a video, a motion", elem_id="motion"
                    )
                with gr.Column():
                    result = gr.Video(label="Result", interactive=False, height=420, elem_id="result", autoplay=True)
                    said = gr.Markdown(elem_id="animate-said")
                    file = gr.File(label="Download", interactive=False, elem_id="result-file", height=90)
                    second = gr.File(label="Side by side", interactive=False, elem_id="beside-file", height=90)
            with gr.Accordion("Options", open=False):
                with gr.Row():
                    strength = gr.Slider(0, 3, 1, step=0.05, label="Strength")
                    smooth = gr.Slider(0, 1, 0.5, step=0.05, label="Smoothness")
                    size = gr.Dropdown(list(_SIZES), value="as the photo", label="Pixels of the longer side")
                with gr.Row():
                    regions = gr.CheckboxGroup(list(REGIONS), value=list(REGIONS), label="What moves")
                    frame = gr.Radio(["full", "crop"], value="full", label="Whole photo, or the head")
                    mode = gr.Radio(["relative", "absolute"], value="relative", label="Motion")
                with gr.Row():
                    beside = gr.Checkbox(False, label="Also make a side-by-side video", elem_id="beside")
                    label = gr.Checkbox(False, label='A visible "AI" in the corner')
            with gr.Row():
                go = gr.Button("Animate", variant="primary", elem_id="animate")
                end = gr.Button("Stop", elem_id="animate-stop")
            inputs = [photo, avatar, driver, motion, strength, smooth, regions, size, frame, mode, beside, label]
            go.click(on_animate, inputs, [result, file, second, said], **once)
            end.click(stop, queue=False, api_visibility="private")
        with gr.Tab("Person"):
            with gr.Row():
                with gr.Column():
                    photos = gr.File(
                        label="Photos of one person", file_count="multiple", file_types=["image"], elem_id="photos"
                    )
                    seconds = gr.Slider(10, 600, 60, step=10, label="Seconds of learning at most")
                    with gr.Row():
                        learn = gr.Button("Learn this person", variant="primary", elem_id="learn")
                        end = gr.Button("Stop", elem_id="learn-stop")
                with gr.Column():
                    curve = gr.LinePlot(
                        x="step", y="value", color="what", y_lim=[0, 1], label="While it learns", elem_id="curve"
                    )
                    learned = gr.Markdown(elem_id="learn-said")
                    keep = gr.File(label="The person, to keep", interactive=False, elem_id="person-file", height=90)
            learn.click(on_learn, [photos, seconds], [curve, keep, learned], **once)
            end.click(stop, queue=False, api_visibility="private")
        with gr.Tab("Edit"):
            with gr.Row():
                with gr.Column():
                    still = gr.Image(
                        label="Photo",
                        type="filepath",
                        image_mode=None,
                        sources=["upload", "webcam", "clipboard"],
                        elem_id="edit-photo",
                        height=220,
                    )
                    sliders = [
                        gr.Slider(
                            low, high, 0, step=0.05 if high <= 1 else 1, label=_NAMES[name], elem_id=f"edit-{name}"
                        )
                        for name, (low, high, _) in SLIDERS.items()
                    ]
                with gr.Column():
                    shown = gr.Image(
                        label="Edited", interactive=False, height=560, format="png", elem_id="edited", buttons=[]
                    )
                    stamp = gr.Checkbox(False, label='A visible "AI" in the corner')
                    with gr.Row():
                        save = gr.Button("Make the file", variant="primary", elem_id="save")
                        zero = gr.Button("Back to zero", elem_id="zero")
                    saved = gr.File(label="Download", interactive=False, elem_id="edited-file", height=90)
            look: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden", **quick}
            still.change(on_edit, [still, *sliders], shown, **look)
            for slider in sliders:
                slider.input(on_edit, [still, *sliders], shown, **look)
            save.click(on_save, [still, stamp, *sliders], saved, **once)
            zero.click(lambda: [0] * len(sliders), None, sliders, queue=False, api_visibility="private").then(
                on_edit, [still, *sliders], shown, **look
            )
        with gr.Tab("Verify"):
            asked = gr.File(label="A picture or a video from anywhere", elem_id="asked")
            sentence = gr.Markdown(elem_id="verdict")
            with gr.Accordion("Everything that was found", open=False):
                details = gr.JSON()
            asked.upload(on_verify, asked, [sentence, details], **quick)
        app.unload(leave)
    return app.queue(max_size=_WAITING, default_concurrency_limit=1)


def serve(
    *,
    host: str = HOST,
    port: int = PORT,
    password: str | None = None,
    model: str | None = None,
    limits: Limits | None = None,
    ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serves the app until stop is set or the program is interrupted; then everything of its visitors is removed.

    Args:
        host, port: where; port 0 takes any that is free.
        password: of everybody, whose name is mimik; needed where host is not loopback.
        model: as AnimateConfig has it.
        limits: what visitors may ask for.
        ready: called with the address when the app can be opened.
        stop: may be set by another thread.

    Raises:
        InputError: if the host is not possible without a password, the port is taken, or gradio is missing.
    """
    check_host(host, password)
    AnimateConfig(model=model)
    limits = limits or Limits()
    gr = needed()
    desks = Desks()
    os.environ["GRADIO_TEMP_DIR"] = str(desks.cache)
    try:
        app = build(desks, limits=limits, model=model)
        try:
            _, address, _ = app.launch(
                server_name=host,
                server_port=port or None,
                auth=("mimik", password) if password else None,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=limits.upload_mb * 1024 * 1024,
                ssr_mode=False,
                enable_monitoring=False,
                footer_links=[],
                # The system's own letters: none are fetched from elsewhere.
                theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            )
        except OSError as error:
            raise InputError(
                f"--port {port}: cannot be used on {host} ({str(error).splitlines()[0].rstrip('.')}); give another "
                "one, or 0 for any that is free."
            ) from None
        if ready is not None:
            ready(address)
        (stop or threading.Event()).wait()
    finally:
        with closing(desks):
            if "app" in locals():
                app.close(verbose=False)
