"""What the tabs do, without a browser."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mimik.animation.avatar import Avatar
from mimik.animation.report import Report
from mimik.app.edit import Edit, Editor
from mimik.app.web.sessions import Desk, Limits
from mimik.config import AVATAR_SUFFIX, AnimateConfig, InputError
from mimik.face.landmarks import Image
from mimik.media import video
from mimik.motion.gestures import bundled_motions
from mimik.provenance.credentials import Credentials
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.marking import Marker
from mimik.provenance.sealing import seal
from mimik.provenance.verifying import verify

_PREVIEW_PX = 512  # of the edited photo while a slider moves


class _StoppedError(Exception):
    """The visitor pressed Stop."""


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
    stop = desk.stop

    def step(stage: str, done: int, total: int | None) -> None:
        if stop.is_set():
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
        _ended(desk, stop)
        raise InputError("Stopped; nothing was kept.") from None
    return out, second, report


def _ended(desk: Desk, stop: threading.Event) -> None:
    """What was stopped has ended: work that is asked for without a page is not stopped as well."""
    if desk.stop is stop:
        desk.ask()


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
    stop = desk.stop

    def step(point: Any, done: int, num_steps: int) -> None:
        if stop.is_set():
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
        stop.set()
        thread.join()
        _ended(desk, stop)


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
