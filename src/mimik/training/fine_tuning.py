"""Fine-tuning, stage 2 of the method: trains G and D on a few photos of one person, with automatic stopping.

e_hat is the mean of the photos' embeddings; E is no longer needed. psi' = P e_hat becomes a parameter and is trained
with G's weights, against D with w' = w0 + e_hat instead of W_i. docs/fine-tuning.md has the measurements.

Too few steps leave an identity gap, too many suppress expressions. Every few steps some frames of the bundled motions
are synthesized and scored by identity and motion fidelity. The best state is kept.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mimik.config import PRESETS, VERSION, InputError, ModelError, Preset
from mimik.files import write_atomically
from mimik.inference.avatar_file import AvatarFile, SourceFile
from mimik.inference.device import resolved_device
from mimik.inference.synthesis import BUNDLED_MODEL
from mimik.inference.windows import window_around
from mimik.networks.checkpoint import load_release
from mimik.networks.generators import Networks, build_networks
from mimik.pipeline import Progress, silent
from mimik.rendering.layers.own_teeth import best_teeth
from mimik.rendering.several import distances, head_shape
from mimik.training.arguments import LearnArguments
from mimik.training.learner import Learner, Recipe
from mimik.training.pairs import MIN_SEVERAL
from mimik.training.photos import Deadline, Photo, PhotoSet
from mimik.training.probes import Point

_MAX_OTHERS = 7  # further photos in an avatar, cropped to the face

# Newest point of the curve, steps done, and the step at which training ends without further improvement.
CurveProgress = Callable[[Point, int, int], None]


@dataclass(frozen=True)
class LearnOutcome:
    """Result of a run."""

    person: AvatarFile  # the best state, which was written
    curve: list[Point]  # every probe; the first is of the initial model
    best: Point  # the point that was kept
    ended: str  # why training stopped
    notes: list[str]  # for the user


def learn(
    read: PhotoSet,
    out: Path,
    arguments: LearnArguments,
    *,
    recipe: Recipe | None = None,
    progress: CurveProgress | None = None,
    preparing: Progress = silent,
    began_s: float | None = None,
) -> LearnOutcome:
    """Fine-tunes to the person in some photos and writes the avatar.

    Args:
        read: the person's photos, from read_photos.
        out: the .avatar file; an older one is replaced.
        arguments: the settings.
        recipe: rates and limits; None: those of docs/fine-tuning.md.
        progress: called after every step; see CurveProgress.
        preparing: called during preparation with the stage, the amount done and the total.
        began_s: start of arguments.max_seconds, by time.monotonic; None: now.

        Raises InputError, and writes nothing, if an input cannot be used or the file cannot be written.
    """
    deadline = Deadline.after(arguments.max_seconds, time.monotonic() if began_s is None else began_s)
    preset, networks, origin = _start(arguments)
    recipe, device = _recipe_and_device(arguments, preset, recipe)
    photos, notes = read.photos, list(read.notes)
    learner = Learner(preset, networks, photos, recipe, device, arguments.seed, deadline, preparing)
    if len(photos) > 1:
        preparing("comparing photos", 0, None)
    others, gain = _sharing(learner, deadline)
    if deadline.ends_preparation:
        fewer = ", or use fewer photos" if len(photos) > 1 else ""
        notes.append(f"--max-seconds: the time ran out during preparation; allow more{fewer}")
    elif preset.networks.form == "texture" and len(photos) > 1:
        notes.append(_sharing_note(gain, len(others)))
    preparing("first score", 0, None)
    curve, best, ended = _run(learner, deadline, progress or (lambda point, step, num_steps: None))
    record = {
        "version": VERSION,
        "model": origin,
        "from_scratch": arguments.from_scratch,
        "photos": len(photos),
        "sharing_gain": None if gain is None else round(gain, 4),
        "seed": arguments.seed,
        "device": device,
        "torch": torch.__version__,
        "recipe": dataclasses.asdict(recipe),
        "steps": best.point.step,
        "seconds": curve[-1].seconds,
        "ended": ended,
        "curve": [point._asdict() for point in curve],
    }
    photo = photos[learner.chosen]
    kept = _stage(best.state, best.point.step, curve[-1].seconds)
    teeth = best_teeth([(one.picture, one.face.points) for one in photos])
    cut = [photos[number].part(window_around(photos[number].face.points)) for number in others]
    shared, sources = tuple((one.picture, one.face) for one in cut), tuple(read.sources)
    person = AvatarFile(preset, record, kept.tensors, kept.psi, photo.picture, photo.face, sources, teeth, shared)
    write_atomically(out, person.pack())
    return LearnOutcome(person, curve, best.point, ended, notes)


def _sharing(learner: Learner, deadline: Deadline = Deadline()) -> tuple[list[int], float | None]:  # noqa: B008  frozen
    """Indices of photos to blend with the chosen one, empty if blending does not help; and Pairs.sharing_gain.

    The gain is None for the paper's form, with too few photos in the same light, and without time to compare them.
    """
    if learner.preset.networks.form == "paper" or len(learner.photos) < MIN_SEVERAL:
        return [], None
    alike = learner.pairs.has_same_lighting(learner.chosen, deadline)
    if len(alike) + 1 < MIN_SEVERAL or deadline.ends_preparation:
        return [], None
    # Farthest-point selection of at most _MAX_OTHERS photos.
    shapes = np.stack([head_shape(learner.photos[number].face.points) for number in alike])
    apart = distances(shapes, learner.photos[learner.chosen].face.points)
    others: list[int] = []
    while len(others) < min(len(alike), _MAX_OTHERS):
        others.append(alike[int(apart.argmax())])
        apart = np.minimum(apart, distances(shapes, learner.photos[others[-1]].face.points))
    gain = learner.pairs.sharing_gain(learner.chosen, others)
    return (others if gain > 0 else []), gain


def _sharing_note(gain: float | None, count: int) -> str:
    if gain is None:
        return f"one photo is animated: pass {MIN_SEVERAL} or more in the same light to let several share the face"
    if not count:
        return "one photo is animated: sharing the face among several did not improve left-out photos"
    return f"{1 + count} photos share the face: on left-out photos, errors at eyes and mouth fall by {100 * gain:.0f} %"


def _recipe_and_device(arguments: LearnArguments, preset: Preset, recipe: Recipe | None) -> tuple[Recipe, str]:
    """The recipe with the overrides of the arguments, and the device, "cpu" or "cuda"."""
    recipe = recipe or Recipe.of(preset, from_scratch=arguments.from_scratch)
    if arguments.steps is not None:
        recipe = dataclasses.replace(recipe, num_steps=arguments.steps)
    return recipe, resolved_device(arguments.device)


def _start(arguments: LearnArguments) -> tuple[Preset, Networks, dict[str, str]]:
    """The initial preset and networks, and their entry in the record."""
    torch.manual_seed(arguments.seed)
    path = arguments.model or (BUNDLED_MODEL if BUNDLED_MODEL.exists() else None)
    if arguments.from_scratch and (arguments.preset is not None or path is None):
        name = arguments.preset or "texture"
        return PRESETS[name], build_networks(PRESETS[name].networks, 0), {"preset": name}
    if path is None:
        raise ModelError("this installation contains no model; pass --model FILE with one that `mimik train` wrote.")
    release = load_release(path)
    networks = build_networks(release.preset.networks, 0) if arguments.from_scratch else release.networks
    return release.preset, networks, dataclasses.asdict(SourceFile.of(path))


class _Best(NamedTuple):
    point: Point
    state: dict[str, NDArray[Any]]


def _run(learner: Learner, deadline: Deadline, progress: CurveProgress) -> tuple[list[Point], _Best, str]:
    """Trains until a stopping criterion holds."""
    recipe, began = learner.recipe, time.monotonic()

    def probed() -> Point:
        identity, motion_fidelity = learner.probe()
        left_out = learner.left_out()
        score = (identity + motion_fidelity) / 2 if left_out is None else 2 - left_out
        values = np.round((time.monotonic() - began, identity, motion_fidelity, score), 4).tolist()
        return Point(learner.step, values[0], values[1], values[2], values[3], left_out and round(left_out, 4))

    curve = [probed()]
    best = _Best(curve[0], learner.state())
    if deadline.is_over:
        return curve, best, "the time limit was reached"
    probe_s = curve[0].seconds  # duration of the latest probe; the first one also loads networks
    risen = curve[0]  # the last point that improved by min_gain
    while True:
        started_s = time.monotonic()
        terms = learner.train_step()
        step_s = time.monotonic() - started_s
        if not all(value.isfinite() for value in terms.values()):
            return curve, best, "a loss was not finite"
        late = deadline.left_s <= step_s + probe_s
        last = learner.step == recipe.num_steps
        if late or last or learner.step % recipe.probe_every == 0:
            started_s = time.monotonic()
            curve.append(probed())
            probe_s = time.monotonic() - started_s
            late |= deadline.left_s <= step_s + probe_s
            if curve[-1].score > best.point.score:
                best = _Best(curve[-1], learner.state())
            if curve[-1].score >= risen.score + recipe.min_gain:
                risen = curve[-1]
        # Do not stop while no probe shows a face.
        waits_until = max(risen.step + recipe.patience * recipe.probe_every, recipe.min_steps)
        ends = min(waits_until, recipe.num_steps) if best.point.score else recipe.num_steps
        left_s = 0.0 if late else deadline.left_s
        steps_left = left_s * learner.step / (time.monotonic() - began)
        progress(curve[-1], learner.step, max(learner.step, math.ceil(min(ends, learner.step + steps_left))))
        if late:
            return curve, best, "the time limit was reached"
        if last:
            return curve, best, "the number of steps was reached"
        if best.point.score and learner.step >= waits_until:
            return curve, best, "the score no longer improved"


# Snapshots during training, which `mimik evaluate` measures.


class Snapshot(NamedTuple):
    """A snapshot of the networks of one person."""

    steps: int  # updates of G so far
    seconds: float  # of training so far
    tensors: dict[str, NDArray[np.float16]]  # of the generator, float16, by names such as "G.down.0.conv1.bias"
    psi: NDArray[np.float32]  # [2 * features of all AdaIN layers] float32, psi'


class Course(NamedTuple):
    """Snapshots of one fine-tuning run."""

    preset: Preset  # of the networks
    stages: list[Snapshot]  # at each requested time; after the end, the state that was kept
    kept: Snapshot  # the state that `learn` would have written
    ended: str  # why training stopped
    gain: float | None  # Pairs.sharing_gain; None with too few photos


def learn_photos(
    photos: Sequence[Photo],
    arguments: LearnArguments,
    at_seconds: Sequence[float],
    *,
    recipe: Recipe | None = None,
    progress: CurveProgress | None = None,
) -> Course:
    """Fine-tunes as `learn` does, from photos in memory, and returns snapshots at some times; writes nothing.

    Args:
        photos: of the person.
        arguments, recipe, progress: as for learn; the last time replaces max_seconds.
        at_seconds: increasing training times in seconds, including probes; 0 is the initial model.

    Raises InputError if the model cannot be used, or its weights exceed float16.
    """
    preset, networks, _ = _start(arguments)
    recipe, device = _recipe_and_device(arguments, preset, recipe)
    learner = Learner(preset, networks, photos, recipe, device, arguments.seed)
    stages: list[Snapshot] = []
    began = time.monotonic()
    _, gain = _sharing(learner)

    def snapshot(point: Point, step: int, num_steps: int) -> None:
        seconds = time.monotonic() - began
        while len(stages) < len(at_seconds) and seconds >= at_seconds[len(stages)]:
            stages.append(_stage(learner.state(), step, seconds))
        if progress is not None:
            progress(point, step, num_steps)

    if at_seconds[0] == 0:
        stages.append(_stage(learner.state(), 0, 0.0))
    curve, best, ended = _run(learner, Deadline.after(at_seconds[-1], began), snapshot)
    kept = _stage(best.state, best.point.step, curve[-1].seconds)
    stages += [kept] * (len(at_seconds) - len(stages))
    return Course(preset, stages, kept, ended, gain)


def _stage(state: Mapping[str, NDArray[Any]], steps: int, seconds: float) -> Snapshot:
    tensors = {name: value.astype(np.float16) for name, value in state.items() if name != "psi"}
    if not all(np.isfinite(value).all() for value in tensors.values()):
        raise InputError("the weights exceed the range of float16; use other photos, or fewer steps or less time.")
    return Snapshot(steps, round(seconds, 3), tensors, np.asarray(state["psi"][0], np.float32))
