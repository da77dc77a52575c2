"""The tab Animate: person, driver, settings, and result."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mimik.app.web import controls, examples, markup
from mimik.app.web.jobs import (
    PAGE_FORMATS,
    AnimatedPhoto,
    BatchAnswer,
    Tell,
    animate,
    animate_photos,
    synthesize_speech,
)
from mimik.app.web.parts import PRIVATE, WORK, Shared, message_of, with_progress_bar
from mimik.app.web.sessions import Job
from mimik.config import AVATAR_SUFFIX, counted

WHO = ("Photo", "Video", "Learned person", "Several photos")
HOW = ("Motion", "Video", "Voice", "Text", "File")
FIRST_MOTION = "talk"
_IN_FRONT = ("strength", "background")  # visible; the other settings are collapsed
_PLAYED = (".mp4", ".webm")  # formats that every browser plays, with or without sound
_PICTURE_SUFFIXES = (".gif", ".webp", ".png", ".jpg")


@dataclass(frozen=True)
class Inputs:
    """Input components of the tab."""

    who: Any
    people: list[Any]  # in the order of WHO
    how: Any
    drivers: list[Any]  # in the order of HOW

    def all(self) -> list[Any]:
        return [self.who, *self.people, self.how, *self.drivers]


_NUM_INPUTS = 2 + len(WHO) + len(HOW)


@dataclass(frozen=True)
class Selection:
    """The selection of a visitor; other uploads are ignored."""

    photos: Sequence[str]
    is_batch: bool
    driver: str | None
    driver_name: str
    text: str | None = None  # to be spoken, instead of a driver

    @classmethod
    def of(cls, values: Sequence[Any]) -> Selection:
        """Args: values: of Inputs.all()."""
        (who, *people), (how, *drivers) = values[: 1 + len(WHO)], values[1 + len(WHO) :]
        source, driver = people[WHO.index(who)], drivers[HOW.index(how)]
        is_batch = who == WHO[3]
        chosen = list(source or []) if is_batch else [source] if source else []
        if how == "Text":
            words = " ".join((driver or "").split())
            return cls(chosen, is_batch, None, f"“{words[:40]}{'…' * (len(words) > 40)}”", driver or "")
        if not driver:
            return cls(chosen, is_batch, None, "")
        name = f"the motion “{driver}”" if how == "Motion" else Path(driver).name
        return cls(chosen, is_batch, driver, name)

    def sentence(self) -> str:
        """Summary of the selection."""
        if not self.photos:
            return "Choose a person to animate."
        who = f"{len(self.photos)} photos" if len(self.photos) > 1 else Path(self.photos[0]).name
        if self.text:
            return f"{who} will say {self.driver_name}"
        if self.driver is None:
            return f"{who}: choose a driver."
        return f"{who} will follow {self.driver_name}."


def build_tab(shared: Shared) -> None:
    """Build the tab."""
    gr = shared.gr
    with gr.Row():
        with gr.Column(min_width=260):
            who, people, portraits = _person_inputs(shared)
        with gr.Column(min_width=260):
            how, drivers, shown, voice = _driver_inputs(shared)
        with gr.Column(min_width=320, scale=2):
            said = gr.HTML(markup.note(Selection([], False, FIRST_MOTION, "").sentence(), "plain"), elem_id="summary")
            go, status, number = shared.buttons("Animate", "animate")
            result = _ResultArea(shared)
    inputs = Inputs(who, people, how, drivers)
    settings, background, format, beside = _settings(shared)
    _choices(shared, inputs, portraits, shown, said, status)
    handler = _handler(shared, [name for name, _ in settings], result)
    begun = go.click(shared.begin(), None, [number, status], queue=False, **PRIVATE)
    selection = [number, *inputs.all(), *background, format, beside, voice, *(one for _, one in settings)]
    begun.then(handler, selection, [status, *result.components], **WORK, **PRIVATE)


def _person_inputs(shared: Shared) -> tuple[Any, list[Any], Any]:
    """The choice of WHO, a component for each, and the bundled portraits."""
    gr = shared.gr
    who = gr.Radio(WHO, value=WHO[0], label="Person to animate", elem_id="who")
    photo = shared.picture("photo", 240)
    person_video = gr.Video(
        label="A video of the person", height=250, sources=["upload", "webcam"], elem_id="person", visible=False
    )
    avatar = gr.File(
        label="A learned person (.avatar)", file_types=[AVATAR_SUFFIX], elem_id="avatar", height=140, visible=False
    )
    photos = gr.File(
        label="Photos, each with the same driver",
        file_count="multiple",
        file_types=["image"],
        elem_id="batch",
        height=200,
        visible=False,
    )
    return who, [photo, person_video, avatar, photos], shared.portraits("examples", 4, 96, [photo])


def _driver_inputs(shared: Shared) -> tuple[Any, list[Any], list[Any], Any]:
    """The choice of HOW, a component for each with its value, one for each to show, and the voice of the text."""
    gr = shared.gr
    how = gr.Radio(HOW, value=HOW[0], label="Driver", elem_id="how")
    motion = gr.State(FIRST_MOTION)
    previews = examples.motion_previews()
    names = [name for _, name in previews]
    first = names.index(FIRST_MOTION) if FIRST_MOTION in names else None
    motions = shared.gallery(previews, "motions", 4, 340, "contain", selected_index=first)
    driver_video = gr.Video(
        label="Driving video", height=330, sources=["upload", "webcam"], elem_id="driver", visible=False
    )
    sound = gr.Audio(
        label="A recording of speech", type="filepath", sources=["upload", "microphone"], elem_id="sound", visible=False
    )
    with gr.Column(visible=False) as words:
        text = gr.Textbox(label="Text to speak", lines=4, max_lines=8, max_length=2000, elem_id="text")
        voice = gr.Textbox(
            label="Voice", info="espeak-ng, such as de or en-gb.", placeholder="en-us", max_lines=1, elem_id="voice"
        )
    types = ["image", ".motion", ".jsonl", ".csv"]
    driver_file = gr.File(
        label="A photo, .motion, .jsonl or .csv", file_types=types, elem_id="driver-file", height=160, visible=False
    )
    shown = [motions, driver_video, sound, words, driver_file]
    return how, [motion, driver_video, sound, text, driver_file], shown, voice


def _settings(shared: Shared) -> tuple[list[tuple[str, Any]], list[Any], Any, Any]:
    """Controls of all settings.

    Returns:
        Names and components of AnimateConfig's fields; three components of the background; format; side-by-side video.
    """
    gr = shared.gr
    found: dict[str, Any] = {}
    with gr.Row():
        found["strength"] = controls.control(gr, "strength")
        background = [controls.control(gr, "background")]
        background.append(gr.ColorPicker("#ffffff", label="Background color", visible=False, elem_id="set-color"))
        background.append(shared.picture("set-picture", 140, "Background picture", visible=False))
        format = gr.Dropdown(list(PAGE_FORMATS), value="mp4", label="Format", filterable=False, elem_id="format")
        beside = gr.Checkbox(False, label="Also produce a side-by-side video", elem_id="beside")
    with gr.Accordion("More settings", open=False, elem_id="more"):
        for names in controls.GROUPS.values():
            with gr.Row():
                for name in names:
                    if name not in _IN_FRONT:
                        found[name] = controls.control(gr, name)

    def shown(choice: str) -> tuple[Any, Any]:
        return gr.update(visible=choice == controls.COLOR), gr.update(visible=choice == controls.PICTURE)

    background[0].change(shown, background[0], background[1:], queue=False, **PRIVATE)
    return list(found.items()), background, format, beside


def _choices(shared: Shared, inputs: Inputs, portraits: Any, shown: list[Any], said: Any, status: Any) -> None:
    """Show the inputs of the selection; clear messages on an earlier selection."""
    gr = shared.gr
    motions, motion = shown[0], inputs.drivers[0]
    quick: dict[str, Any] = {"queue": False, **PRIVATE}

    def visible(names: Sequence[str], choice: str) -> list[Any]:
        return [gr.update(visible=name == choice) for name in names]

    def of_who(choice: str) -> list[Any]:
        return [*visible(WHO, choice), gr.update(visible=choice == WHO[0])]

    inputs.who.change(of_who, inputs.who, [*inputs.people, portraits], **quick)
    inputs.how.change(lambda choice: visible(HOW, choice), inputs.how, shown, **quick)

    def summary(*values: Any) -> tuple[str, str]:
        return markup.note(Selection.of(values).sentence(), "plain"), ""

    for one in inputs.all():
        if one is not motion:
            one.change(summary, inputs.all(), [said, status], trigger_mode="always_last", **quick)

    @shared.asks
    def chosen(event: Any, *values: Any) -> tuple[str, str, str]:
        name = examples.motion_previews()[event.index][1]
        selection = list(values)
        selection[inputs.all().index(motion)] = name
        return name, *summary(*selection)

    motions.select(chosen, inputs.all(), [motion, said, status], **quick)


class _ResultArea:
    """Shows the result: alone, beside the photo or driver, and over the photo with a slider."""

    def __init__(self, shared: Shared) -> None:
        gr = self._gr = shared.gr
        self._shared = shared
        with gr.Tabs():
            with gr.Tab("Result"):
                self._video = gr.Video(
                    label="Result", interactive=False, height=350, elem_id="result", autoplay=True, buttons=[]
                )
                self._picture = gr.Image(
                    label="Result", interactive=False, height=350, elem_id="result-picture", visible=False, buttons=[]
                )
                self._many = gr.Gallery(
                    label="Results", columns=3, height=350, elem_id="results", visible=False, interactive=False
                )
            with gr.Tab("Side by side"):
                self._both = gr.HTML(elem_id="both")
            with gr.Tab("Before and after"):
                self._slider = gr.HTML(elem_id="slider")
        with gr.Row():
            self._file = shared.download("Download", "result-file")
            self._beside = shared.download("Side by side", "beside-file")
        self.components = [
            *(self._video, self._picture, self._many, self._both, self._slider),
            *(self._file, self._beside),
        ]

    def show(
        self,
        *,
        video: Path | None = None,
        picture: Path | None = None,
        many: list[tuple[str, str]] | None = None,
        compared: tuple[str, str] = ("", ""),
        files: tuple[Path | None, Path | None] = (None, None),
    ) -> list[Any]:
        """Show a result: one of video, picture and many. Without arguments, clear the area."""
        gr, offered = self._gr, self._shared.offered
        return [
            gr.update(value=video and str(video), visible=not (picture or many)),
            gr.update(value=picture and str(picture), visible=picture is not None),
            gr.update(value=many, visible=bool(many)),
            *compared,
            *map(offered, files),
        ]

    def as_it_is(self) -> list[Any]:
        """Leave the area unchanged, for progress updates."""
        return [self._gr.skip() for _ in self.components]

    def of(self, made: AnimatedPhoto, selection: Selection) -> list[Any]:
        """Show one result."""
        suffix = made.out.suffix.lower()
        plays, is_picture = suffix in _PLAYED, suffix in _PICTURE_SUFFIXES
        both = slider = ""
        if plays or is_picture:
            photo, driver = selection.photos[0], str(selection.driver)
            left = _preview(photo) or _preview(driver)
            beside = _preview(driver) or left  # bundled motions have no preview: show the photo beside the result
            if beside:
                both = markup.side_by_side(*beside, made.out, plays)
            if left and _preview(photo):
                slider = markup.before_after(*left, made.out, plays)
        return self.show(
            video=made.out if plays else None,
            picture=made.out if is_picture else None,
            compared=(both or _NOTHING_BESIDE, slider or _NOTHING_BESIDE),
            files=(made.out, made.beside),
        )

    def of_batch(self, batch: BatchAnswer) -> list[Any]:
        """Show several results."""
        suffixes = (*_PLAYED, *_PICTURE_SUFFIXES)
        shown = [(str(one.out), one.out.stem) for one in batch.made if one.out.suffix.lower() in suffixes]
        return self.show(many=shown or None, compared=(_NOTHING_BESIDE, _NOTHING_BESIDE), files=(batch.archive, None))


_NOTHING_BESIDE = markup.note("There is nothing to compare for this kind of input or format.", "plain")


def _preview(path: str) -> tuple[str, bool] | None:
    """File that a browser can show for an input, and whether it is a video; None if there is none."""
    suffix = Path(path).suffix.lower()
    if suffix in (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif"):
        return path, False
    return (path, True) if suffix in (".mp4", ".webm", ".mov", ".m4v") else None


def _handler(shared: Shared, names: Sequence[str], result: _ResultArea) -> Callable[..., Any]:
    """Handler of the button."""

    @shared.asks
    def on_animate(request: Any, number: int, *values: Any) -> Generator[list[Any]]:
        job = Job(shared.session(request), number)
        selection = Selection.of(values[:_NUM_INPUTS])
        background, color, picture, format, beside, voice = values[_NUM_INPUTS : _NUM_INPUTS + 6]
        shown = dict(zip(names, values[_NUM_INPUTS + 6 :], strict=True))
        yield [markup.waiting("Starting"), *result.show()]
        try:
            behind = controls.background_of(controls.value_of("background", background), color, picture)
            photo = selection.photos[0] if selection.photos and not selection.is_batch else None
            settings = controls.values_of(shown) | {"background": behind}
            config = controls.config_of(settings, model=shared.model, photo=photo)
            if selection.text is not None:
                job.check()
                selection = replace(selection, driver=synthesize_speech(job, selection.text, voice))
            options: dict[str, Any] = {"limits": shared.limits, "format": format, "beside": beside}

            def work(tell: Tell) -> AnimatedPhoto | BatchAnswer:
                if selection.is_batch:
                    return animate_photos(job, selection.photos, selection.driver, config, tell=tell, **options)
                return animate(job, photo, selection.driver, config, tell=tell, **options)

            made = yield from with_progress_bar(job, work, lambda bar: [bar, *result.as_it_is()])
            if isinstance(made, AnimatedPhoto):
                answer = [markup.note(_result_summary(made)), *result.of(made, selection)]
            else:
                answer = [_batch_summary(made, len(selection.photos)), *result.of_batch(made)]
        except Exception as error:  # shown in the page
            answer = [message_of(error), *result.show()]
        yield answer

    return on_animate


def _batch_summary(batch: BatchAnswer, num_photos: int) -> str:
    lines = [f"{len(batch.made)} of {counted(num_photos, 'photo')} animated. Every file is signed and marked."]
    lines += [f"{name} was skipped: {controls.plain(reason)}" for name, reason in batch.left_out]
    return markup.note("\n".join(lines), "" if batch.made else "bad")


def _result_summary(made: AnimatedPhoto) -> str:
    report = made.report
    what = f"{report.width}x{report.height}"
    if report.num_frames > 1:
        sound = ", with sound" if report.has_audio else ""
        what = f"{counted(report.num_frames, 'frame')} of {what} at {report.fps:g} per second{sound}"
    lines = [f"{what}, made in {report.seconds:.0f} s. The file is signed and marked as synthetic."]
    return "\n".join([*lines, *(f"Note: {controls.plain(note)}." for note in report.notes)])
