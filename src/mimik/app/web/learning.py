"""Learning of a person with progress for a page: current step, curve, and result in words and pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from mimik.animation.avatar import Avatar
from mimik.animation.edit import Editor
from mimik.animation.sliders import Edit
from mimik.app.learning import learn_files
from mimik.app.web.jobs import check_photos
from mimik.app.web.parts import news_of
from mimik.app.web.sessions import Job, Limits, StoppedError
from mimik.config import AVATAR_SUFFIX, AnimateConfig, counted
from mimik.face.landmarks import Image
from mimik.provenance.marking import Marker
from mimik.training.arguments import LearnArguments

_RESULT_PX = 512
_EDIT = Edit(smile=0.3, mouth=0.4, yaw=14.0)  # shows teeth and the side of the face, hidden in a neutral photo


@dataclass(frozen=True)
class Learned:
    """Progress of learning."""

    share: float  # share of the work, 0..1
    doing: str  # current step in words; at the end, the result
    curve: list[Any] = field(default_factory=list)  # points of fine_tuning so far
    out: Path | None = None  # the .avatar file, at the end, if the model improved
    before: Image | None = None  # the person, rendered by the initial model
    after: Image | None = None  # the same expression, rendered by the learned model
    is_over: bool = False  # whether this is the final item


def learning(
    job: Job, photos: Sequence[str] | None, *, limits: Limits, model: Path | None, max_seconds: float
) -> Generator[Learned]:
    """Learn a person in a thread; yields progress.

    Raises:
        InputError: if the photos cannot be used, or learning failed.
        StoppedError: if the visitor stopped it.
    """
    given = check_photos(photos, limits, " of the same person")
    arguments = LearnArguments(model=model, max_seconds=max_seconds)
    paths = [Path(one) for one in given]
    out = job.session.new(f"{paths[0].stem}{AVATAR_SUFFIX}")
    has_left = threading.Event()
    curve: list[Any] = []

    def check() -> None:
        job.check()
        if has_left.is_set():
            raise StoppedError

    def work(tell: Callable[[Learned], None]) -> Any:
        share = 0.0

        def preparing(what: str, done: int, total: int | None) -> None:
            check()
            how_far = f", {done} of {total}" if total else ""
            tell(Learned(0.0, f"{what[:1].upper()}{what[1:]}{how_far}"))

        def step(point: Any, done: int, ends: int) -> None:
            nonlocal share
            check()
            if not curve or point.step != curve[-1].step:
                curve.append(point)
            share = max(share, min(done / max(ends, 1), 0.99))  # learning is extended if it improves
            so_far = f"likeness {curve[-1].identity:.2f}, motion fidelity {curve[-1].motion_fidelity:.2f}"
            tell(Learned(share, f"Learning, step {done}: {so_far}", list(curve)))

        with job.running():
            return learn_files(paths, out, arguments, progress=step, preparing=preparing)

    what = "the photo" if len(paths) == 1 else f"the {len(paths)} photos"
    yield Learned(0.0, f"Finding the face in {what} and loading the networks")
    outcome = yield from news_of(work, has_left.set)
    job.check()
    yield Learned(0.99, "Rendering the comparison", outcome.curve)
    yield _finished(outcome, given, out, model)


def _finished(outcome: Any, photos: Sequence[str], out: Path, model: Path | None) -> Learned:
    """Args: outcome: a fine_tuning.LearnOutcome."""
    said, has_gained = improvement(outcome)
    if not has_gained:
        out.unlink(missing_ok=True)
        return Learned(1.0, said, outcome.curve, is_over=True)
    before, after = pictures(photos, out, model)
    return Learned(1.0, said, outcome.curve, out, before, after, is_over=True)


def improvement(outcome: Any) -> tuple[str, bool]:
    """Summary of the improvement, and whether there is one. Args: outcome: a fine_tuning.LearnOutcome."""
    first, best = outcome.curve[0], outcome.best
    ended = f"Training ended because {outcome.ended}."
    others = outcome.person.others
    if best.step == first.step and not others:
        return (
            f"No improvement: after {counted(outcome.curve[-1].step, 'step')} no state outperformed the unchanged "
            f"model. {ended} No file was written: animate the photo itself, or try other photos.",
            False,
        )
    changes = ", ".join(
        f"{name} {old:.2f} → {new:.2f}"
        for name, old, new in (
            ("likeness", first.identity, best.identity),
            ("motion fidelity", first.motion_fidelity, best.motion_fidelity),
        )
    )
    shared = f"{1 + len(others)} photos share the face. " if others else ""
    return (
        f"{shared}Improved in {counted(best.step, 'step')}: {changes} (1 is best). {ended} The Animate tab accepts the "
        "file as a learned person.",
        True,
    )


def pictures(photos: Sequence[str], avatar: Path, model: Path | None) -> tuple[Image, Image]:
    """The person with a slight smile and the head turned, rendered by the initial and by the learned model.

    Returns: Two watermarked pictures of the same size, uint8 RGB [H, W, 3].
    """
    config = AnimateConfig(size=_RESULT_PX, model=None if model is None else str(model))
    people = Avatar.from_photos(list(photos)), Avatar.load(avatar)
    before, after = (
        Marker(Path(person.model).name, is_video=False).mark(Editor(person, one)(_EDIT))
        for person, one in zip(people, (config, AnimateConfig(size=_RESULT_PX)), strict=True)
    )
    if after.shape != before.shape:
        after = cv2.resize(after, before.shape[1::-1], interpolation=cv2.INTER_AREA)
    return before, after
