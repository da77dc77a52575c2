"""One evaluation run over clips, protocols and models; computes the missing records."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mimik.animation.avatar import Avatar
from mimik.arrays import Array
from mimik.config import InputError
from mimik.data.index import ClipInfo
from mimik.data.remote import DamagedClipError
from mimik.data.store import ClipStore
from mimik.data.tracks import Tracks
from mimik.evaluation import dynamics, metrics
from mimik.evaluation.detectors import detector_name
from mimik.evaluation.instruments import (
    NUM_NETWORK_FRAMES,
    DriverMotion,
    GroundTruth,
    Instruments,
    against_ground_truth,
    mean_known,
)
from mimik.evaluation.jobs import ProgressCount, run_tasks
from mimik.evaluation.models import FLOWS, Learning, Model, WarpedPerson
from mimik.evaluation.protocols import CROSS, Task, driver_of, middle_target
from mimik.evaluation.records import (
    LEARNED_BY,
    MEASURED_BY,
    Records,
    code_digest,
    digest_of,
    number_or_none,
    packed_embeddings,
    processor,
)
from mimik.evaluation.report.contact_sheets import film_strip
from mimik.evaluation.settings import TRUTH, EvaluateConfig, label_of
from mimik.face.landmark_images import landmark_image
from mimik.face.landmarks import Face, Image
from mimik.inference.device import resolved_device
from mimik.inference.runtime import Network
from mimik.inference.synthesis import PersonalizedGenerator
from mimik.media import video
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.sealing import seal
from mimik.training import fine_tuning
from mimik.training.fine_tuning import Course, Photo, Snapshot


class Evaluation:
    """One evaluation run; computes the missing records."""

    def __init__(
        self,
        shards: str | Path,
        config: EvaluateConfig,
        out: Path,
        models: Mapping[str, Model | None],
        lessons: Mapping[str, Learning],
        lpips: metrics.LpipsAlex | None,
        videos: Path | None = None,
    ) -> None:
        """Args: videos: the source folder of the shards, for the clips' sound, which shards do not contain."""
        self.shards, self.config, self.out, self._videos = shards, config, out, videos
        self._motions: dict[str, DriverMotion] = {}
        self.device = torch.device(resolved_device(config.device))
        self.instruments = Instruments(self.device, lpips)
        self.labels = [label_of(name) for name in config.models]
        self.models, self.lessons = models, lessons
        self.records = Records(out / "clips")
        self._code, self._learning_code = code_digest(MEASURED_BY), code_digest(LEARNED_BY)

    def name(self, kind: str, model: str, *what: Any) -> str:
        """Name of a record."""
        one = self.models[model]
        identity = one.identity if one is not None else TRUTH
        how = self.config.size, detector_name(), self._videos is not None
        return f"{kind}-{model}-{digest_of(self._code, identity, how, *what)}"

    def _what(self, task: Task) -> tuple[str, list[Any]]:
        """Prefix of a task's records, and their dependencies other than the model."""
        where = task.protocol.replace(" = ", "").replace(" ", "-").lower()
        has_lpips = self.instruments.lpips is not None
        return f"{task.clip.key}-{where}", [task.clip.to_json(), task.sources, task.targets, has_lpips]

    def learning_name(self, task: Task, model: str, seconds: float | None) -> str:
        """Name of a record; seconds of fine-tuning on this machine, None: the kept state."""
        kind, what = self._what(task)
        machine = platform.node(), processor(), os.cpu_count(), torch.get_num_threads(), str(self.device)
        how = self._learning_code, self.lessons[model].identity, self.config.seed, self.config.learn_seconds
        when = "kept" if seconds is None else f"{seconds:g}s"
        digest = digest_of(self._code, self.config.size, what, machine, how)
        return f"{kind}-{model.replace(':', '-')}-{when}-{digest}"

    def store(self) -> ClipStore:
        """A store per thread, because a store caches its newest clip."""
        return ClipStore(self.shards, size=self.config.size)

    def of_clip(self, group: Sequence[Task], tell: Callable[[str], None]) -> list[dict[str, Any]]:
        """The records of one clip under all protocols; shared target frames are measured once."""
        store = self.store()
        goals: dict[tuple[int, ...], GroundTruth] = {}
        found = []
        for task, model in itertools.product(group, self.models):
            kind, what = self._what(task)
            name = self.name(kind, model, *what)
            record = self.records.get(name)
            if record is None:
                if task.targets not in goals:
                    goals[task.targets] = self._goal(store, task)
                goal = goals[task.targets]
                record = self._record(task, model, goal, self._made(store, task, model, goal))
                self.records.put(name, record)
            found.append(record)
            tell(f"{task.clip.key}, {task.protocol}, {model}")
        return found

    def _goal(self, store: ClipStore, task: Task) -> GroundTruth:
        """The real frames of a task."""
        frames = store.read(task.clip, task.targets)
        at = list(range(len(task.targets)))
        if task.in_order:
            at = np.unique(np.linspace(0, len(at) - 1, NUM_NETWORK_FRAMES).round().astype(int)).tolist()
        look = self.instruments.look(frames.images, at, in_order=task.in_order)
        motion = None
        if task.in_order:
            motion = self._motion(task.clip, look.images, look.points, look.blendshapes, task.targets[0])
        return GroundTruth(look, frames.points, motion)

    def _motion(self, clip: ClipInfo, images: Image, points: Array, blendshapes: Array, first: int) -> DriverMotion:
        """Motion of a clip from frame `first` on."""
        volume = None
        if self._videos is not None:
            start_s = clip.start_s + first / clip.fps
            volume = dynamics.Volume.of_file(self._videos / clip.source, len(images), clip.fps, start_s)
        signals = self.instruments.signals(images, points, blendshapes)
        return DriverMotion(points, blendshapes, signals, clip.fps, volume)

    def _driver(self, clip: ClipInfo, tracks: Tracks) -> DriverMotion:
        """Motion of a whole clip; the frames are measured once for all portraits."""
        if clip.key not in self._motions:
            frames = self.store().read(clip, range(clip.num_frames))
            self._motions[clip.key] = self._motion(clip, frames.images, frames.points, tracks.blendshapes, 0)
        return self._motions[clip.key]

    def _record(self, task: Task, model: str, goal: GroundTruth, images: Image) -> dict[str, Any]:
        """Measurements of a model's frames."""
        look = self.instruments.look(images, goal.look.at, in_order=task.in_order)
        values, l1 = against_ground_truth(self.instruments, goal, look)
        record = {
            "protocol": task.protocol,
            "clip": task.clip.key,
            "person": task.clip.person,
            "source_sha256": task.clip.source_sha256,
            "model": model,
            "metrics": {name: number_or_none(value) for name, value in values.items()},
            "l1": l1,
        }
        if not task.in_order:
            record |= {
                "embeddings": packed_embeddings(look.embeddings),
                "real": packed_embeddings(goal.look.embeddings),
            }
        return record

    def _made(self, store: ClipStore, task: Task, name: str, goal: GroundTruth) -> Image:
        """The model's frames."""
        model = self.models[name]
        if model is None:
            return goal.look.images.copy()
        photos = store.read(task.clip, task.sources)
        person = model.prepare(photos.images, photos.points)
        return np.stack([person.frame(points) for points in goal.known])

    # Fine-tuning per clip.

    def learning_records(self, task: Task, model: str) -> list[dict[str, Any]] | None:
        """Records of fine-tuning on a task's photos, at each time and for the kept state; None if one is missing."""
        found = []
        for seconds in (*self.config.learn_seconds, None):
            record = self.records.get(self.learning_name(task, model, seconds))
            if record is None or ("picture" in record and not (self.out / record["picture"]).exists()):
                return None
            found.append(record)
        return found

    def learning_of(self, task: Task, model: str, count: ProgressCount) -> list[dict[str, Any]]:
        """Fine-tunes on a task's photos with no other job running, and measures the snapshots.

        Raises InputError if the clip is damaged, or fine-tuning is impossible.
        """
        store = self.store()
        photos, blendshapes = store.read(task.clip, task.sources), store.tracks(task.clip).blendshapes
        shots = [
            Photo(image, Face(points, blendshapes[number], 1.0), 0)
            for image, points, number in zip(photos.images, photos.points, task.sources, strict=True)
        ]
        what = f"{task.clip.key}, {task.protocol}, {model}"
        times = self.config.learn_seconds
        course = fine_tuning.learn_photos(
            shots,
            self.lessons[model].arguments,
            times,
            progress=lambda point, step, num_steps: count.tell(f"{what}: step {step} of learning"),
        )
        goal = self._goal(store, task)
        names = [self.learning_name(task, model, seconds) for seconds in (*times, None)]
        stages = [*course.stages, course.kept]
        alike: dict[int, list[int]] = {}  # times with the same snapshot, after an early end
        for number, stage in enumerate(stages):
            alike.setdefault(id(stage), []).append(number)

        def measured(numbers: list[int]) -> list[dict[str, Any]]:
            stage = stages[numbers[0]]
            images = self._made_by(course, stage, photos.images, photos.points, goal)
            record = self._record(task, model, goal, images)
            record |= {"steps": stage.steps, "learned_s": stage.seconds}
            found = []
            for number in numbers:
                seconds, name = (*times, None)[number], names[number]
                own = {**record, "seconds": seconds, "ended": course.ended}
                if seconds is None and task.protocol == f"T = {min(self.config.shots)}":
                    own["picture"] = f"pictures/{name}.png"
                    shown = images[[middle_target(task), int(np.argmax(record["l1"]))]]
                    self.draw(self.out / own["picture"], np.concatenate(list(shown), 1), model)
                self.records.put(name, own)
                found.append(own)
                count(f"{what}, {'the kept state' if seconds is None else f'{seconds:g} s'}")
            return found

        jobs = {str(numbers): partial(measured, numbers) for numbers in alike.values()}
        records, failed = run_tasks(jobs, count)
        if failed:
            raise InputError(next(iter(failed.values())))
        return sorted(records, key=lambda record: math.inf if record["seconds"] is None else record["seconds"])

    def _made_by(self, course: Course, stage: Snapshot, photos: Image, points: Array, goal: GroundTruth) -> Image:
        """The frames of a snapshot."""
        generator = PersonalizedGenerator(Network(course.preset.networks, stage.tensors, num_threads=1), stage.psi)
        person = WarpedPerson(photos, points, generator, is_shared=course.gain is not None and course.gain > 0)
        return np.stack([person.frame(p) for p in goal.known])

    def timed(self, task: Task, name: str) -> dict[str, Any]:
        """Milliseconds with no other job running: to prepare the person, and the median per frame."""
        model = self.models[name]
        assert model is not None
        frames = self.store().read(task.clip, [*task.sources, *task.targets])
        num = len(task.sources)
        FLOWS.forget()  # else another model's flows would be used
        start = time.perf_counter()
        person = model.prepare(frames.images[:num], frames.points[:num])
        prepared = time.perf_counter() - start
        seconds = []
        for points in frames.points[num:]:
            start = time.perf_counter()
            person.frame(points)
            seconds.append(time.perf_counter() - start)
        return {"prepare": round(1000 * prepared, 2), "frame": round(1000 * float(np.median(seconds)), 2)}

    # Cross-identity.

    def portrait(self, path: Path) -> tuple[Avatar, Array]:
        """The avatar of a portrait, and its embedding [128]. Raises InputError if no face is found."""
        avatar = Avatar.from_photos([path], landmarker=self.instruments.landmarker)
        picture = video.read_image(path)
        return avatar, self.instruments.identity(picture[None], avatar.face.points[None])[0]

    def of_portrait(
        self, path: Path, clips: Sequence[ClipInfo], models: Mapping[str, str], tell: Callable[[str], None]
    ) -> list[dict[str, Any]]:
        """The records of one portrait, driven by clips as in `mimik animate`."""
        person = cache(partial(self.portrait, path))
        found = []
        for clip, model in itertools.product(clips, models):
            with contextlib.suppress(DamagedClipError):  # reported by the clip's own job
                found.append(self._crossed(path, person, clip, model, models[model]))
            tell(f"{path.stem} by {clip.key}, {model}")
        return found

    def _crossed(self, path: Path, person: Callable[[], Any], clip: ClipInfo, model: str, asked: str) -> dict[str, Any]:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        name = self.name(f"{path.stem}-by-{clip.key}", model, clip.to_json(), digest)
        picture = self.out / "pictures" / f"{name}.png"
        record = self.records.get(name)
        if record is not None and picture.exists():
            return record
        avatar, identity = person()
        tracks = self.store().tracks(clip)
        driver = driver_of(clip, tracks)
        made = avatar.frames(driver, model=asked, frame="crop", size=self.config.size)
        images = np.stack(list(made))
        points, blendshapes = self.instruments.find(images, in_order=True)
        at = np.unique(np.linspace(0, len(images) - 1, NUM_NETWORK_FRAMES).round().astype(int))
        found = self.instruments.identity(images[at], points[at])
        values = {
            "csim_dlib": mean_known(metrics.cosine(np.broadcast_to(identity, found.shape), found)),
            "blendshape_correlation": metrics.blendshape_correlation(tracks.blendshapes, blendshapes),
            "pose_correlation": metrics.pose_correlation(tracks.points, points),
            "jitter_ratio": metrics.jitter(tracks.points, points)[1],
            "lost_percent": 100 * float(1 - np.isfinite(points).all((1, 2)).mean()),
        }
        signals = self.instruments.signals(images, points, blendshapes)
        values |= self._driver(clip, tracks).compared(points, blendshapes, signals)
        record = {
            "protocol": CROSS,
            "clip": clip.key,
            "person": path.stem,
            "model": model,
            "metrics": {name: number_or_none(value) for name, value in values.items()},
            "picture": f"pictures/{picture.name}",
        }
        sources = (Ingredient.from_file("photo", path),)
        self.draw(picture, film_strip(images, tracks.points, clip.size), model, sources)
        self.records.put(name, record)
        return record

    def draw(self, path: Path, picture: Image, model: str, sources: tuple[Ingredient, ...] = ()) -> None:
        """Write a signed picture of the report."""
        path.parent.mkdir(exist_ok=True)
        claim = Claim(path.name, model, sources)
        with seal(path, claim, force=True) as draft:
            draft.write_image(picture)

    def row(self, task: Task, number: int) -> list[Image]:
        """Source, target, landmarks and each model's frame; number: index among the task's targets."""
        frames = self.store().read(task.clip, [*task.sources, task.targets[number]])
        photos, target, points = frames.images[:-1], frames.images[-1], frames.points[-1]
        side = len(target)
        cells = [photos[0], target, landmark_image(points, side, side)]
        for model in self.models.values():
            if model is not None:
                cells.append(model.prepare(photos, frames.points[:-1]).frame(points))
        return cells
