"""The app's pages, a gradio.Blocks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mimik.app.edit import SLIDERS
from mimik.app.web.jobs import animate, edited, learning, save_edited, verified
from mimik.app.web.sessions import Desk, Desks, Limits
from mimik.config import AVATAR_SUFFIX, REGIONS, InputError
from mimik.motion.gestures import bundled_motions

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
    def ask(request: Any) -> None:
        desk_of(request).ask()

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
        start.click(ask, queue=False, api_visibility="private")  # before the work, which may have to wait
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
