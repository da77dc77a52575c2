"""The app of `mimik web`: animate, learn a person, edit, verify, in a browser on this computer.

Everything is done by the same functions as on the command line. Each visitor has a folder of their own, which goes with
them; nothing else of this computer can be read or written. Gradio is imported when the app is made.
"""

from __future__ import annotations

import itertools
import os
import queue
import secrets
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

from mimik.animation.animate import Avatar, Report
from mimik.app.edit import SLIDERS, Edit, Editor
from mimik.app.page import check_host
from mimik.config import AVATAR_SUFFIX, REGIONS, AnimateConfig, InputError, check_number
from mimik.face.landmarks import Image
from mimik.media import video
from mimik.motion.gestures import bundled_motions
from mimik.provenance.sealing import Claim, Credentials, Ingredient, Marker, seal, verify

HOST, PORT = "127.0.0.1", 8765
_PREVIEW_PX = 512  # of the edited photo while a slider moves
_KEPT_S = 3600  # of uploads: their files are gradio's, which cannot tell who has left
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
    """All visitors' places, below one folder that goes with the app.

    They lie in the folder from which gradio serves, so that it makes no copies of them, which would outlive the visit.
    It serves a file there to whoever names it: the names of the places cannot be guessed.
    """

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="mimik-web-")
        self.cache = Path(self._root.name, "cache")
        self.cache.mkdir()
        self._desks: dict[str, Desk] = {}
        self._lock = threading.Lock()

    def of(self, visitor: str | None) -> Desk:
        with self._lock:
            if visitor not in self._desks:
                folder = self.cache / secrets.token_urlsafe(24)
                folder.mkdir(mode=0o700)
                self._desks[str(visitor)] = Desk(folder)
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


def _given(photo: str | None) -> str:
    if not photo:
        raise InputError("There is no photo yet: give one of the person.")
    return photo


def animate(
    desk: Desk,
    photo: str | None,
    person: str | None,
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
        photo: a picture; or None, and
        person: an .avatar file.
        driver_video: or None, then driver_motion is the name of a bundled motion.
        beside: make a second video, photo or driver at the left, result at the right.
        tell: called with the frames done and of all frames.
        options: fields of AnimateConfig.

    Raises:
        InputError: if anything given cannot be used, or the visitor stopped it.
    """
    if photo and person:
        raise InputError("There are both a photo and a learned person: take one of them away.")
    photo = _given(person or photo)
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
        from mimik.training import fine_tuning
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
                yield value.curve, out, _what_was_learned(value)
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


def _what_was_learned(outcome: Any) -> str:
    """Args: outcome: a fine_tuning.Outcome."""
    first, best = outcome.curve[0], outcome.best
    if best.step == first.step:
        came = "Nothing that was learned made it better, so the model stays as it was, with all photos taken together."
    else:
        came = (
            f"Kept is step {best.step}: likeness {first.identity:.2f} → {best.identity:.2f}, following "
            f"{first.following:.2f} → {best.following:.2f}."
        )
    return f"{came} It ended because {outcome.ended}. Keep the file: Animate takes it."


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
    photo = _given(photo)
    out = desk.new(f"{Path(photo).stem}_edited.png")
    Editor(Avatar.from_photos([photo]), AnimateConfig(model=model, label=label)).write_sealed(out, Edit(**values))
    return out


def _editor(desk: Desk, photo: str | None, model: str | None) -> tuple[Editor, Marker]:
    photo = _given(photo)
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
    ) -> tuple[str, Any, Any, str]:
        with told():
            progress(0, desc="Reading photo and driver")
            out, second, report = animate(
                desk_of(request),
                photo,
                avatar,
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
        return str(out), offered(out), offered(second), said

    @asks
    def on_learn(photos: list[str], seconds: float, request: Any) -> Iterator[tuple[Any, Any, str]]:
        import pandas

        def table(curve: list[Any]) -> Any:
            if not curve:
                return None
            rows = [
                {"step": point.step, "value": value, "what": name}
                for point in curve
                for name, value in (("likeness", point.identity), ("following", point.following))
            ]
            return pandas.DataFrame(rows, columns=["step", "value", "what"])

        with told():
            yield None, offered(None), "Looking at the photos; this takes some seconds."
            path = Path(model) if model and model.endswith(".safetensors") else None
            with learning(desk_of(request), photos, limits=limits, model=path, max_seconds=seconds) as points:
                for curve, out, said in points:
                    yield table(curve), offered(out), said

    @asks
    def on_edit(photo: str, request: Any, *values: float) -> Any:
        if not photo:
            return None
        with told():
            return edited(desk_of(request), photo, dict(zip(SLIDERS, values, strict=True)), model=model)

    @asks
    def on_save(photo: str, label: bool, request: Any, *values: float) -> Any:
        with told():
            settings = dict(zip(SLIDERS, values, strict=True))
            return offered(save_edited(desk_of(request), photo, settings, model=model, label=label))

    def on_verify(file: str) -> tuple[str, Any]:
        with told():
            sentence, details = verified(file)
            return f"### {sentence}", details

    def offered(path: Path | None) -> Any:
        """What a download box becomes: it is there when there is something to download."""
        return gr.File(value=None if path is None else str(path), visible=path is not None)

    def download(label: str, name: str) -> Any:
        return gr.File(label=label, interactive=False, elem_id=name, height=90, visible=False)

    def picture(name: str, height: int) -> Any:
        sources = ["upload", "webcam", "clipboard"]
        return gr.Image(label="Photo", type="filepath", image_mode=None, sources=sources, elem_id=name, height=height)

    def stamp() -> Any:
        return gr.Checkbox(False, label='A visible "AI" in the corner')

    def work(doing: str, name: str) -> Any:
        """A button that starts long work, beside one that stops it."""
        with gr.Row():
            start = gr.Button(doing, variant="primary", elem_id=name)
            end = gr.Button("Stop", elem_id=f"{name}-stop")
        end.click(stop, queue=False, api_visibility="private")
        return start

    with gr.Blocks(title="mimik", analytics_enabled=False, delete_cache=(_LOOK_EVERY_S, _KEPT_S)) as app:
        gr.Markdown(
            "# mimik\nOne photo of a person in, a talking head out. Animate yourself, people who agreed to it, and the "
            "long dead with respect. Every file says that it is synthetic."
        )
        with gr.Tab("Animate"):
            with gr.Row():
                with gr.Column(min_width=240):
                    photo = picture("photo", 320)
                    avatar = gr.File(
                        label="or a learned person (.avatar)", file_types=[AVATAR_SUFFIX], elem_id="avatar", height=140
                    )
                with gr.Column(min_width=240):
                    driver = gr.Video(
                        label="Video that drives it", height=300, sources=["upload", "webcam"], elem_id="driver"
                    )
                    motion = gr.Dropdown(
                        list(bundled_motions()), value="talk", label="or, without a video, a motion", elem_id="motion"
                    )
                    go = work("Animate", "animate")
                with gr.Column(min_width=240):
                    result = gr.Video(label="Result", interactive=False, height=420, elem_id="result", autoplay=True)
                    said = gr.Markdown(elem_id="animate-said")
                    file = download("Download", "result-file")
                    second = download("Side by side", "beside-file")
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
                    label = stamp()
            inputs = [photo, avatar, driver, motion, strength, smooth, regions, size, frame, mode, beside, label]
            go.click(on_animate, inputs, [result, file, second, said], **once)
        with gr.Tab("Person"):
            with gr.Row():
                with gr.Column():
                    photos = gr.File(
                        label="Photos of one person", file_count="multiple", file_types=["image"], elem_id="photos"
                    )
                    seconds = gr.Slider(10, 600, 60, step=10, label="Seconds of learning at most")
                    learn = work("Learn this person", "learn")
                with gr.Column():
                    curve = gr.LinePlot(
                        x="step",
                        y="value",
                        color="what",
                        x_title="steps of learning",
                        y_title="1 is best",
                        color_title=" ",
                        y_lim=[0, 1],
                        label="While it learns",
                        elem_id="curve",
                    )
                    learned = gr.Markdown(elem_id="learn-said")
                    keep = download("The person, to keep", "person-file")
            learn.click(on_learn, [photos, seconds], [curve, keep, learned], **once)
        with gr.Tab("Edit"):
            with gr.Row():
                with gr.Column():
                    still = picture("edit-photo", 220)
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
                    stamped = stamp()
                    with gr.Row():
                        save = gr.Button("Make the file", variant="primary", elem_id="save")
                        zero = gr.Button("Back to zero", elem_id="zero")
                    saved = download("Download", "edited-file")
            look: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden", **quick}
            still.change(on_edit, [still, *sliders], shown, **look)
            for slider in sliders:
                slider.input(on_edit, [still, *sliders], shown, **look)
            save.click(on_save, [still, stamped, *sliders], saved, **once)
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
