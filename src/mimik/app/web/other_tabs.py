"""The tabs Call, Person, Edit and Verify."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mimik.animation.avatar import Avatar
from mimik.animation.sliders import SETTINGS as EDIT_SETTINGS
from mimik.animation.sliders import SLIDERS, Edit
from mimik.app.live.controls import LIVE_SIZE
from mimik.app.web import controls, markup
from mimik.app.web.jobs import EDIT_FORMATS, Remaining, check_photo, edited, save_edited, verified
from mimik.app.web.learning import Learned, learning
from mimik.app.web.parts import PRIVATE, QUICK, WORK, Shared, message_of
from mimik.app.web.sessions import Job
from mimik.config import AVATAR_SUFFIX, MODEL_SUFFIX, InputError, install_command

_SLIDER_NAMES = {
    "smile": "Smile",
    "mouth": "Open mouth",
    "blink": "Blink",
    "brows": "Brows",
    "gaze_x": "Gaze, left to right",
    "gaze_y": "Gaze, up to down",
    "yaw": "Turn, degrees",
    "pitch": "Nod, degrees",
    "roll": "Tilt, degrees",
}
LEARN_SECONDS = 60.0


# Call.

_CALLS = (
    "Your camera or voice drives the person on this page. A second address shows the picture alone, for OBS and any "
    "call program that takes its virtual camera. Only mimik receives camera and sound. Every frame carries "
    "a small AI label and the invisible watermark."
)


def build_call(shared: Shared) -> None:
    """A photo input, and the page of `mimik live` in a frame."""
    gr = shared.gr
    if find_spec("aiortc") is None:
        gr.HTML(markup.note(f"Calls need aiortc, which is not installed: {install_command('live')}.", "plain"))
        return
    with gr.Row():
        with gr.Column(min_width=230, scale=1):
            still = shared.picture("call-photo", 190)
            avatar = gr.File(
                label="Or a learned person (.avatar)", file_types=[AVATAR_SUFFIX], elem_id="call-avatar", height=170,
                render=False,
            )  # fmt: skip
            shared.portraits("call-examples", 4, 76, [still, avatar])
            avatar.render()
            with gr.Row():
                start = gr.Button("Call", variant="primary", elem_id="call-start", scale=2, min_width=100)
                end = gr.Button("End", elem_id="call-end", scale=1, min_width=60)
            status = gr.HTML(elem_id="call-said")
            model = controls.control(gr, "model", prefix="call-set")
        with gr.Column(min_width=600, scale=4):
            frame = gr.HTML(markup.note(_CALLS, "plain"), elem_id="call-frame")

    @shared.asks
    def on_start(request: Any, photo: str | None, person: str | None, chosen: str) -> tuple[str, str]:
        try:
            return "", markup.call(_begin(shared, request, photo, person, controls.value_of("model", chosen)))
        except Exception as error:  # shown in the page
            return message_of(error), markup.note(_CALLS, "plain")

    @shared.asks
    def on_end(request: Any) -> tuple[str, str]:
        shared.calls.end(str(request.session_hash))
        return "", markup.note(_CALLS, "plain")

    waiting = start.click(lambda: markup.waiting("Reading the photo"), None, status, queue=False, **PRIVATE)
    waiting.then(on_start, [still, avatar, model], [status, frame], **WORK, **PRIVATE)
    end.click(on_end, None, [status, frame], queue=False, **PRIVATE)
    for one in (still, avatar):
        one.change(lambda: "", None, status, queue=False, **PRIVATE)


def _begin(shared: Shared, request: Any, photo: str | None, person: str | None, model: str | None) -> str:
    """Start the call of a visitor; returns its key. Raises InputError if it cannot be started."""
    if photo and person:
        raise InputError("Both a photo and a learned person are set: remove one of them.")
    given = Path(check_photo(photo or person))
    session = shared.session(request)
    with ExitStack() as kept:
        kept.enter_context(session.in_use())
        own = session.new(given.name)  # kept until the call ends
        shutil.copyfile(given, own)
        values = {"model": model, "size": LIVE_SIZE, "frame": "crop"}
        config = controls.config_of(values, model=shared.model, photo=str(own))
        avatar = Avatar.from_photos([own])
        return shared.calls.begin(str(request.session_hash), avatar, config, kept.pop_all())


# Person.


def build_person(shared: Shared) -> None:
    """Input for photos of one person; the learning curve, the comparison, and the file."""
    gr = shared.gr
    with gr.Row():
        with gr.Column():
            photos = gr.File(
                label="Photos of one person", file_count="multiple", file_types=["image"], elem_id="photos", height=180
            )
            seconds = gr.Slider(10, 600, LEARN_SECONDS, step=10, label="Time limit, seconds", elem_id="seconds")
            learn, status, number = shared.buttons("Learn this person", "learn")
            keep = shared.download("Download", "person-file")
        with gr.Column():
            curve = gr.LinePlot(
                x="step",
                y="value",
                color="what",
                x_title="step",
                y_title="1 is best",
                color_title=" ",
                y_lim=[0, 1],
                label="Progress, measured on other expressions and poses",
                height=220,
                elem_id="curve",
            )
            compared = gr.ImageSlider(
                label="The same expression: before (left) and after learning (right)",
                interactive=False,
                height=380,
                elem_id="gained",
                visible=False,
                buttons=[],
                max_height=380,
            )
    outputs = [status, curve, compared, keep]
    begun = learn.click(shared.begin(), None, [number, status], queue=False, **PRIVATE)
    begun.then(_learn_handler(shared), [number, photos, seconds], outputs, **WORK, **PRIVATE)
    photos.change(lambda: "", None, status, queue=False, **PRIVATE)


def _learn_handler(shared: Shared) -> Any:
    gr = shared.gr

    @shared.asks
    def on_learn(request: Any, number: int, photos: list[str], seconds: float) -> Iterator[list[Any]]:
        job = Job(shared.session(request), number)
        nothing = [None, gr.update(value=None, visible=False), shared.offered(None)]
        yield [markup.waiting("Starting"), *nothing]
        remaining = Remaining()
        try:
            model = learner_model(shared)
            with closing(learning(job, photos, limits=shared.limits, model=model, max_seconds=seconds)) as news:
                for one in news:
                    yield _learning_outputs(shared, one, remaining)
        except Exception as error:  # shown in the page
            yield [message_of(error), *nothing]

    return on_learn


def learner_model(shared: Shared) -> Path | None:
    """Initial model of learning: the server's model if it is a file; None for the bundled one."""
    return Path(shared.model) if shared.model and shared.model.endswith(MODEL_SUFFIX) else None


def _learning_outputs(shared: Shared, one: Learned, remaining: Remaining) -> list[Any]:
    gr = shared.gr
    if one.is_over:
        status = markup.note(one.doing, "" if one.out else "plain")
    elif one.curve:
        status = markup.progress(one.share, one.doing, remaining(one.share))
    else:
        status = markup.waiting(one.doing)
    pictures = None if one.before is None or one.after is None else (one.before, one.after)
    shown = gr.update(value=pictures, visible=pictures is not None)
    return [status, _plotted_curve(one.curve), shown, shared.offered(one.out)]


def _plotted_curve(curve: Sequence[Any]) -> Any:
    """The curve as a data frame for gradio."""
    if not curve:
        return None
    import pandas

    rows = [
        {"step": point.step, "value": value, "what": name}
        for point in curve
        for name, value in (("likeness", point.identity), ("motion fidelity", point.motion_fidelity))
    ]
    return pandas.DataFrame(rows, columns=["step", "value", "what"])


# Edit.


def build_edit(shared: Shared) -> None:
    """Sliders beside the edited photo."""
    gr = shared.gr
    with gr.Row():
        with gr.Column():
            with gr.Row():
                still = shared.picture("edit-photo", 220)
                shared.portraits("edit-examples", 2, 220, [still])
            sliders = _sliders(gr)
        with gr.Column():
            with gr.Tabs():
                with gr.Tab("Edited"):
                    shown = gr.Image(
                        label="Edited", interactive=False, height=460, format="png", elem_id="edited", buttons=[]
                    )
                with gr.Tab("Before and after") as comparing:
                    both = gr.ImageSlider(
                        label="Before (left), after (right)", interactive=False, height=460, elem_id="edit-both",
                        max_height=460, buttons=[],
                    )  # fmt: skip
            message = gr.HTML(elem_id="edit-said")
            with gr.Row():
                save = gr.Button("Create the file", variant="primary", elem_id="save")
                zero = gr.Button("Reset", elem_id="zero")
                format = gr.Dropdown(list(EDIT_FORMATS), value="png", label="Format", filterable=False)
            saved = shared.download("Download", "edited-file")
            with gr.Accordion("More settings", open=False):
                settings = [controls.control(gr, name, prefix="edit-set") for name in EDIT_SETTINGS]
    inputs = [still, *settings, *sliders]
    look = _edit_handler(shared, compare=False)
    quick: dict[str, Any] = {"trigger_mode": "always_last", **QUICK, **PRIVATE}
    for changed in (still.change, *(one.input for one in (*sliders, *settings))):
        changed(look, inputs, [shown, message, saved], **quick)
    comparing.select(_edit_handler(shared, compare=True), inputs, [both, message, saved], **quick)
    save.click(_save_handler(shared), [format, *inputs], [saved, message], **WORK, **PRIVATE)
    zero.click(lambda: [0] * len(sliders), None, sliders, queue=False, **PRIVATE).then(
        look, inputs, [shown, message, saved], **quick
    )


def _sliders(gr: Any) -> list[Any]:
    """Sliders, two per row, so that all are visible."""
    made = []
    items = list(SLIDERS.items())
    for pair in (items[i : i + 2] for i in range(0, len(items), 2)):
        with gr.Row():
            for name, (low, high) in pair:
                step = 0.05 if high <= 1 else 1
                made.append(gr.Slider(low, high, 0, step=step, label=_SLIDER_NAMES[name], elem_id=f"edit-{name}"))
    return made


def _values(shared: Shared, values: Sequence[Any], photo: str | None) -> tuple[Edit, Any]:
    num_settings = len(EDIT_SETTINGS)
    shown = dict(zip(EDIT_SETTINGS, values[:num_settings], strict=True))
    changes = Edit(**dict(zip(SLIDERS, values[num_settings:], strict=True)))
    return changes, controls.config_of(controls.values_of(shown), model=shared.model, photo=photo)


def _edit_handler(shared: Shared, *, compare: bool) -> Any:
    @shared.asks
    def on_edit(request: Any, photo: str, *values: Any) -> tuple[Any, str, Any]:
        if not photo:
            return None, "", shared.offered(None)
        try:
            before, after = edited(shared.session(request), photo, *_values(shared, values, photo))
        except Exception as error:  # shown in the page
            return None, message_of(error), shared.offered(None)
        return (before, after) if compare else after, "", shared.offered(None)

    return on_edit


def _save_handler(shared: Shared) -> Any:
    @shared.asks
    def on_save(request: Any, format: str, photo: str, *values: Any) -> tuple[Any, str]:
        if not any(values[len(EDIT_SETTINGS) :]) and photo:
            return shared.offered(None), markup.note("No changes yet: move a slider first.", "bad")
        try:
            out = save_edited(shared.session(request), photo, *_values(shared, values, photo), format=format)
        except Exception as error:  # shown in the page
            return shared.offered(None), message_of(error)
        return shared.offered(out), markup.note("The file is signed and marked as synthetic.")

    return on_save


# Verify.


def build_verify(shared: Shared) -> None:
    """Input for a file, and its verdict."""
    gr = shared.gr
    asked = gr.File(label="A picture or a video", elem_id="asked", height=160)
    sentence = gr.HTML(elem_id="verdict")
    with gr.Accordion("Details", open=False):
        details = gr.JSON()

    def on_verify(file: str) -> tuple[str, Any]:
        if not file:
            return "", None
        try:
            said, found = verified(file)
        except Exception as error:  # shown in the page
            return message_of(error), None
        return markup.note(said), found

    asked.change(on_verify, asked, [sentence, details], **QUICK, **PRIVATE)
