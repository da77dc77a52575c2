"""One photo and one driver in, a finished video out: the streaming pipeline that command line, live and web share.

Decoding, tracking, synthesis and encoding run at the same time, each in a thread of its own, with short queues between
them: the numerical work is done outside the interpreter's lock, and memory does not grow with the length of the driver.
"""

from __future__ import annotations

import functools
import itertools
import json
import resource
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.config import AVATAR_SUFFIX, BLUR, TRANSPARENT, AnimateConfig, InputError, NoFaceError
from mimik.face.landmarks import Face, Image, Landmarker, Tracker, choose_face
from mimik.inference.person import Person, calmest, read_person
from mimik.inference.runtime import Network, read_release
from mimik.inference.synthesis import BUNDLED_MODEL, DEFAULT_MODEL, GeometryPainter, Likeness, PicturePainter
from mimik.media import video
from mimik.motion.drivers.driver import Driver, DriverSettings, DrivingMotion
from mimik.motion.drivers.registry import open_driver
from mimik.motion.gestures import Gesture, Reference, Retarget
from mimik.pipeline import QUEUE_FRAMES, Clock, Progress, pipeline_threads, prefetch, silent
from mimik.provenance.sealing import Claim, Credentials, Ingredient, MarkedWriter, Marker, check_output, seal
from mimik.rendering import matte
from mimik.rendering.crop import Crop
from mimik.rendering.flow import Flow, Warper

T = TypeVar("T")
_MAX_VIDEO_SIDE = 4096  # beyond it H.264 needs a level that few players have


@dataclass
class Report:
    """What one run did; `--json` writes it."""

    out: str
    photo: str
    driver: str
    model: str
    width: int = 0
    height: int = 0
    fps: float = 0.0
    num_frames: int = 0
    num_lost: int = 0  # frames of the driver without a face: the person eased to neutral there
    has_audio: bool = False
    seconds: float = 0.0
    ms_per_frame: dict[str, float] = field(default_factory=dict)  # busy time of each stage; they overlap
    peak_memory_mb: float = 0.0  # of the whole process so far
    notes: list[str] = field(default_factory=list)

    @property
    def frames_per_second(self) -> float:
        return self.num_frames / self.seconds if self.seconds else 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"frames_per_second": round(self.frames_per_second, 2)}, indent=2)


# The person.


@dataclass(frozen=True)
class _Shot:
    """A picture of the person: a photo, or a frame of a video."""

    path: Path
    picture: Image
    face: Face
    note: str | None = None
    is_video: bool = False


class Avatar:
    """One person, ready to be animated.

    >>> Avatar.from_photos(["photo.jpg"]).render("talk", "out.mp4")
    """

    def __init__(
        self, landmarker: Landmarker, shots: Sequence[_Shot], *, chosen: int = 0, person: Person | None = None
    ) -> None:
        """See from_photos and load. Renders one driver at a time.

        Args:
            landmarker: for drivers.
            shots: of the person; all of them say who it is.
            chosen: which of them is animated.
            person: as `mimik learn` learned it.
        """
        self._landmarker = landmarker
        self._shots = list(shots)
        self._shot = shots[chosen]
        self._person = person
        self._likenesses: dict[str, Likeness] = {}

    @classmethod
    def from_photos(
        cls, photos: Sequence[str | Path], *, face: int | None = None, landmarker: Landmarker | None = None
    ) -> Avatar:
        """The person in some photos.

        Args:
            photos: files; a single one may be a video, whose own motion the driver's replaces. Of several the one with
                the calmest, most frontal face is animated; a model learns from all of them who it is.
            face: which face, 1 is the widest; None is the widest.
            landmarker: to share one between avatars.

        Raises:
            InputError: if a file cannot be read or shows no face.
        """
        if not photos:
            raise InputError("no photo was given; give at least one picture of the person.")
        paths = [Path(photo) for photo in photos]
        if avatars := [path for path in paths if path.suffix.lower() == AVATAR_SUFFIX]:
            if len(paths) > 1:
                raise InputError(f"{avatars[0]}: is a learned person already; give it alone, or photos.")
            if face is not None:
                raise InputError(f"--face {face}: {avatars[0].name} has one face; leave --face out.")
            return cls.load(avatars[0], landmarker=landmarker)
        landmarker = landmarker or Landmarker()
        if len(paths) == 1 and video.kind(paths[0]) == "video":
            return cls(landmarker, [_shot_of_video(paths[0], landmarker, face)])
        shots = []
        for path in paths:
            picture = video.read_image(path)
            found = landmarker.detect(picture, thorough=(face or 1) > 1)
            chosen = choose_face(found, face, path.name, picture.shape[1::-1])
            note = None
            if len(found) > 1 and face is None:
                note = f"{path.name} shows {len(found)} faces; the widest is animated, --face N takes another"
            shots.append(_Shot(path, picture, chosen, note))
        return cls(landmarker, shots, chosen=calmest([shot.face for shot in shots]))

    @classmethod
    def load(cls, path: str | Path, *, landmarker: Landmarker | None = None) -> Avatar:
        """A person that `mimik learn` learned.

        Args:
            path: the .avatar file.
            landmarker: to share one between avatars.

        Raises:
            ModelError: if there is none, it is damaged, or it is something else.
        """
        person = read_person(Path(path))
        return cls(landmarker or Landmarker(), [_Shot(Path(path), person.picture, person.face)], person=person)

    @property
    def landmarker(self) -> Landmarker:
        """For whoever drives the person; used by one thread at a time."""
        return self._landmarker

    @property
    def photo(self) -> Path:
        """The file that is animated."""
        return self._shot.path

    @property
    def picture(self) -> Image:
        """The photo, uint8 RGB [H, W, 3]; a video's calmest frame."""
        return self._shot.picture

    @property
    def is_video(self) -> bool:
        """Whether the photo is a video, whose own motion the driver's replaces."""
        return self._shot.is_video

    @property
    def model(self) -> str:
        """What draws the person when no other model is asked for."""
        return self._person.model if self._person else DEFAULT_MODEL

    @property
    def face(self) -> Face:
        """The face in the photo; in the first seconds' calmest frame when the photo is a video."""
        return self._shot.face

    def likeness(self, model: str) -> Likeness | None:
        """What a model knows of the person; None for "geometry", which knows nothing.

        Args:
            model: as AnimateConfig has it, or the person's own.

        Raises:
            ModelError: if there is no such model.
        """
        if model == "geometry":
            return None
        if self._person and model == self._person.model:
            return self._person.likeness
        if model not in self._likenesses:
            release = read_release(BUNDLED_MODEL if model == "texture" else Path(model))
            # One thread: the pipeline's stages keep the cores busy.
            network = Network(release.preset.networks, release.tensors, num_threads=1)
            pictures, points = [shot.picture for shot in self._shots], [shot.face.points for shot in self._shots]
            self._likenesses[model] = Likeness.of_photos(network, pictures, points)
        return self._likenesses[model]

    def ingredients(self) -> tuple[Ingredient, ...]:
        """What shows the person: the photo; or the avatar, and the files from which it was learned."""
        learned = self._person.sources if self._person else ()
        once = {source.sha256: Ingredient("photo", source.name, source.sha256, source.format) for source in learned}
        return Ingredient.from_file("photo", self.photo), *once.values()

    def frames(self, driver: str | Path, **options: Any) -> Iterator[Image]:
        """The animated frames, uint8 RGB [H, W, 3], one by one, with the watermark in them; RGBA [H, W, 4] where there
        is no background.

        Frames in memory carry no manifest: whoever stores or sends them has to say that they are synthetic.

        Args:
            driver: a video, a photo, a .motion or .jsonl file, or the name of a bundled motion.
            options: fields of AnimateConfig.
        """
        config = AnimateConfig(**options)
        marker = Marker(config.model or self.model, label=config.label)
        with closing(self._images(driver, config)) as images:
            for image in images:
                yield marker.mark(image)

    def _images(self, driver: str | Path, config: AnimateConfig) -> Generator[Image]:
        """The frames without a mark, which never leave."""
        report = Report("", str(self.photo), str(driver), config.model or self.model)
        run = _Run(self, open_driver(driver, config.fps), config, report, silent)
        with closing(run.images()) as images:
            yield from images

    def render(
        self,
        driver: str | Path | Driver,
        out: str | Path,
        *,
        force: bool = False,
        credentials: Credentials | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Report:
        """Animates the person and writes a sealed file.

        Args:
            driver: a video, a photo, a .motion or .jsonl file, the name of a bundled motion, or one of them opened.
            out: .mp4, .m4v, .mov, .mkv, .webm, .gif, .webp, a folder for PNG frames or a pattern such as
                frames/%05d.webp; .png and .jpg when the driver is a photo.
            force: replace what is there.
            credentials: who signs; this computer's own when None.
            progress: called with a stage, the number of frames done and of all frames, if that is known.
            options: fields of AnimateConfig.

        Raises:
            InputError: if anything given cannot be used; nothing is written then.
        """
        config = AnimateConfig(**options)
        path = Path(out)
        kind = video.output_kind(path)
        opened = open_driver(driver, config.fps)
        behind = Path(config.background) if config.background and Path(config.background).is_file() else None
        inputs = [self.photo, *(file for file in (opened.path, behind) if file)]
        check_output(path, force=force, inputs=inputs)
        if config.background == TRANSPARENT and not video.keeps_alpha(path):
            raise InputError(f"-o {out}: cannot be transparent; {_TRANSPARENT_OUTPUTS}.")
        if kind == "image" and not opened.is_still:
            raise InputError(f"-o {out}: a {opened.kind} as driver makes a video; give an .mp4, or a photo as driver.")
        report = Report(str(path), str(self.photo), opened.name, config.model or self.model, fps=opened.fps)
        if self._shot.note:
            report.notes.append(self._shot.note)
        start = time.perf_counter()
        run = _Run(self, opened, config, report, progress or silent, limit_side=kind == "video")
        settings = {"motion": config.motion, "regions": list(config.regions), "strength": config.strength}
        about = [*self.ingredients()]
        if opened.path is None:
            settings["driver"] = opened.name
        else:
            about.append(Ingredient.from_file("driver", opened.path, name=opened.name))
        if config.background is not None:
            settings["background"] = run.background
            if run.background == "picture" and behind:
                about.append(Ingredient.from_file("background", behind))
        claim = Claim(
            path.name,
            Path(report.model).name,
            tuple(about),
            settings,
            consent=config.consent,
            label=config.label,
        )
        signing = partial(progress, "sign") if progress and kind == "frames" else None
        sound = opened.sound if config.audio else None
        with seal(path, claim, credentials=credentials, force=force, progress=signing) as draft:
            if kind == "image":
                draft.write_image(run.still())
            else:
                alpha = config.background == TRANSPARENT
                with draft.open_writer(
                    *run.size, opened.fps, quality=config.quality, audio_from=sound, alpha=alpha
                ) as writer:
                    run.write(writer)
                report.has_audio = sound is not None and path.suffix.lower() in video.CONTAINERS
        report.seconds = round(time.perf_counter() - start, 3)
        report.ms_per_frame = run.clock.ms_per_frame(report.num_frames)
        report.peak_memory_mb = round(_peak_memory_mb(), 1)
        if report.num_lost:
            report.notes.append(
                f"the driver's face was not visible in {report.num_lost} of {report.num_frames} frames; the person "
                "eases to neutral there"
            )
        return report


_TRANSPARENT_OUTPUTS = (
    "give a .webm or .mov file, a folder for PNG frames, a .webp file, or a .png file where the driver is a photo"
)


def _shot_of_video(path: Path, landmarker: Landmarker, number: int | None) -> _Shot:
    """The calmest frame of a person in the first seconds of a video."""
    tracker = Tracker(landmarker, number)
    info = video.probe(path)
    seen = []
    with closing(video.read_frames(path, fps=min(info.fps, 5.0))) as frames:
        for frame in itertools.islice(frames, 60):
            face = tracker.track(frame)
            if face is not None:
                seen.append((frame, face))
    if not seen:
        raise NoFaceError(
            f"no face found in the first seconds of {path.name}; use a video in which the face is seen from the start."
        )
    frame, face = seen[calmest([face for _, face in seen])]
    return _Shot(path, frame, face, is_video=True)


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


class Portrait:
    """A person's photo as it is shown, ready to take on gestures: what videos, live calls and edits have in common."""

    def __init__(self, avatar: Avatar, config: AnimateConfig, *, limit_side: bool = False) -> None:
        """Args:
        avatar: the person.
        config: model, view and size, and how a driver's motion is put on the person.
        limit_side: for a video: even sides, no more pixels than players can show.

        Raises:
            ModelError: if there is no such model.
            InputError: if the background cannot be used.
        """
        self._config = config
        self._backdrop = None
        if config.background is not None:
            if avatar.is_video:
                raise InputError(
                    f"--background {config.background}: {avatar.photo.name} is a video, and the person is cut out of "
                    "photos only; give a photo, or leave --background out."
                )
            self._backdrop = matte.backdrop(config.background, video.read_image)
        self._likeness = avatar.likeness(config.model or avatar.model)
        height, width = avatar.picture.shape[:2]
        self.view = _View.of(width, height, avatar.face, config, _MAX_VIDEO_SIDE if limit_side else None)
        self.face = self.view.move(avatar.face)
        self._picture = avatar.picture

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        return self.view.width, self.view.height

    @property
    def note(self) -> str | None:
        """What the user should know of the size."""
        return self.view.note

    @functools.cached_property
    def picture(self) -> Image:
        """The photo as it is shown, uint8 RGB [H, W, 3]."""
        return self.view.apply(self._picture)

    @functools.cached_property
    def _warper(self) -> Warper:
        return Warper(self.face.points, *self.size)

    @functools.cached_property
    def _painter(self) -> PicturePainter:
        return self.painter(self.picture, self.face, self._warper)

    @property
    def background(self) -> str | None:
        """What kind of background the person is laid over, in a word; None for the photo's own."""
        if self._backdrop is None or isinstance(self._backdrop, str):
            return self._backdrop
        return "colour" if self._backdrop.shape[:2] == (1, 1) else "picture"

    def painter(self, picture: Image, face: Face, warper: Warper) -> PicturePainter:
        """What draws the person in another picture of the same size, such as a frame of the person's video."""
        if self._backdrop is None:
            return self._plain_painter(picture, face, warper)
        alpha = matte.person_matte(picture, face.points)
        behind: Image | None = None
        if not isinstance(self._backdrop, str):
            behind = matte.covering(self._backdrop, *self.size)
        elif self._backdrop == BLUR:
            behind = matte.blurred(picture, alpha)
        return matte.CutOut(self._plain_painter(matte.foreground(picture, alpha), face, warper), alpha, warper, behind)

    def _plain_painter(self, picture: Image, face: Face, warper: Warper) -> PicturePainter:
        if self._likeness is None:
            return GeometryPainter(picture, warper)
        return self._likeness.painter(picture, face.points, warper)

    def retarget(
        self, reference: Reference, *, regions: Sequence[str] | None = None, strength: float | None = None
    ) -> Retarget:
        """What puts the gestures of a driver with this neutral face on the person.

        Args: regions, strength: the config's own if None.
        """
        config = self._config
        return Retarget(
            self.face,
            reference,
            mode=config.motion,
            regions=config.regions if regions is None else regions,
            strength=config.strength if strength is None else strength,
        )

    def flow(self, points: NDArray[Any]) -> Flow:
        """The flow to points [478, 3] of the shown picture."""
        return self._warper.flow(points)

    def paint(self, flow: Flow, points: NDArray[Any]) -> Image:
        """The frame with the face at points, uint8 RGB [H, W, 3]."""
        return self._painter.paint(flow, points)

    def images(
        self, moves: Generator[tuple[T, NDArray[Any] | None]], clock: Clock, *, ahead: int = QUEUE_FRAMES
    ) -> Generator[tuple[T, Image]]:
        """The frames of a stream: the flows are made in a thread of their own, and painted where they are asked for.

        Args:
            moves: anything, which comes back with its frame, and the face's points [478, 3] there; None is the photo.
                The very same array twice is drawn once.
            clock: for the stages "flow" and "paint".
            ahead: at most this many flows wait or are being made.
        """
        image, painted = self.picture, None
        with closing(prefetch(self._flows(moves, clock), ahead)) as flows:
            for what, flow, points in flows:
                if flow is None or points is None:
                    image = self.picture
                elif flow is not painted:
                    with clock("paint"):
                        image = self.paint(flow, points)
                painted = flow
                yield what, image

    def _flows(
        self, moves: Generator[tuple[T, NDArray[Any] | None]], clock: Clock
    ) -> Generator[tuple[T, Flow | None, NDArray[Any] | None]]:
        flow = held = None
        with closing(moves):
            for what, points in moves:
                if points is None:
                    flow = None
                elif points is not held:
                    with clock("flow"):
                        flow = self.flow(points)
                held = points
                yield what, flow, points


# One run.


class _Run:
    """One avatar, one driver, one set of options: makes the frames."""

    def __init__(
        self,
        avatar: Avatar,
        driver: Driver,
        config: AnimateConfig,
        report: Report,
        progress: Progress,
        *,
        limit_side: bool = False,
    ) -> None:
        self._avatar, self._driver, self._config, self._report = avatar, driver, config, report
        self.progress = progress
        self.clock = Clock()
        self._landmarker = avatar.landmarker
        driver.check_neutral(config.neutral)
        self._portrait = Portrait(avatar, config, limit_side=limit_side)
        if self._portrait.note:
            report.notes.append(self._portrait.note)
        self.size = report.width, report.height = self._portrait.size
        self.background = self._portrait.background

    def images(self) -> Generator[Image]:
        """The animated frames, uint8 RGB [H, W, 3]."""
        with self._motion(self._config.smooth) as motion, pipeline_threads():
            yield from self._of_photo(motion.neutral, motion.frames)
            self._report.notes += motion.notes

    def write(self, writer: MarkedWriter) -> None:
        """All frames, encoded while the next ones are made."""
        with closing(prefetch(self.images())) as images:
            for done, image in enumerate(images, start=1):
                with self.clock("encode"):
                    writer.write(image)
                self.progress("animate", done, self._driver.num_frames)

    def still(self) -> Image:
        """The one picture that a photo as driver makes."""
        with self._motion(smooth=0) as motion:
            every = list(motion.frames)
            self._report.notes += motion.notes
            return next(self._of_photo(motion.neutral, iter([every[len(every) // 2]])))

    def _motion(self, smooth: float) -> DrivingMotion:
        return self._driver.motion(
            DriverSettings(
                landmarker=self._landmarker,
                face=self._config.driver_face,
                neutral_s=self._config.neutral,
                smooth=smooth,
                clock=self.clock,
                progress=self.progress,
            )
        )

    def _of_photo(self, reference: Reference, gestures: Iterator[Gesture]) -> Generator[Image]:
        if self._avatar.is_video:
            yield from self._of_video(reference, gestures)
            return
        moves = self._moves(gestures, self._portrait.retarget(reference))
        with closing(self._portrait.images(moves, self.clock)) as images:
            for gesture, image in images:
                self._count(gesture)
                yield image

    def _moves(self, gestures: Iterator[Gesture], retarget: Retarget) -> Generator[tuple[Gesture, NDArray[Any]]]:
        for gesture in gestures:
            with self.clock("flow"):
                points = retarget(gesture)
            yield gesture, points

    def _of_video(self, reference: Reference, gestures: Iterator[Gesture]) -> Generator[Image]:
        """Every frame of the person's own video, its own motion replaced by the driver's."""
        portrait = self._portrait
        retarget = portrait.retarget(reference)
        tracker = Tracker(Landmarker())  # the driver is tracked in another thread at the same time
        tracker.start(self._avatar.face)
        num_without = 0
        frames = prefetch(self.clock.each("decode", video.read_frames(self._avatar.photo, fps=self._driver.fps)))
        with closing(frames):
            for gesture, frame in zip(gestures, frames, strict=False):
                image = portrait.view.apply(frame)
                with self.clock("track"):
                    found = tracker.track(frame)
                if found is None:
                    num_without += 1
                else:
                    with self.clock("flow"):
                        face = portrait.view.move(found)
                        warper = Warper(face.points, *self.size)
                        points = retarget(gesture, face)
                        flow = warper.flow(points)
                    with self.clock("paint"):
                        image = portrait.painter(image, face, warper).paint(flow, points)
                self._count(gesture)
                yield image
        if num_without:
            self._report.notes.append(
                f"{self._avatar.photo.name} shows no face in {num_without} frames; they are left as they are"
            )
        if self._driver.num_frames and self._report.num_frames < self._driver.num_frames - 1:
            self._report.notes.append(f"{self._avatar.photo.name} is shorter than the driver; the result ends with it")

    def _count(self, gesture: Gesture) -> None:
        self._report.num_frames += 1
        self._report.num_lost += not gesture.seen


@dataclass(frozen=True)
class _View:
    """What of the photo is shown, and how large: a rectangle of it and the size that this becomes."""

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int
    note: str | None = None

    @classmethod
    def of(cls, width: int, height: int, face: Face, config: AnimateConfig, max_side: int | None) -> _View:
        left, top, right, bottom = 0, 0, width, height
        if config.frame == "crop":
            crop = Crop.around(face.points)
            side = min(round(crop.side * _CROP_SHOWN), width, height)
            middle = np.array([crop.left, crop.top]) + crop.side / 2
            left, top = (int(np.clip(m - side / 2, 0, n - side)) for m, n in zip(middle, (width, height), strict=True))
            right, bottom = left + side, top + side
        shown = right - left, bottom - top
        longer = config.size or max(shown)
        note = None
        if max_side is not None and longer > max_side:
            note = f"the video's longer side is {max_side} px instead of {longer}: more can not be played everywhere"
            longer = max_side
        k = longer / max(shown)
        # Video codecs that halve the colour's resolution need even sizes.
        step = 1 if max_side is None else 2
        new_width, new_height = (max(step, round(n * k) // step * step) for n in shown)
        return cls(left, top, right, bottom, new_width, new_height, note)

    def apply(self, picture: Image) -> Image:
        part = picture[self.top : self.bottom, self.left : self.right]
        if part.shape[:2] == (self.height, self.width):
            return np.ascontiguousarray(part)
        if 0 <= part.shape[0] - self.height <= 1 and 0 <= part.shape[1] - self.width <= 1:
            return np.ascontiguousarray(part[: self.height, : self.width])
        smaller = self.width < part.shape[1]
        return cv2.resize(part, (self.width, self.height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)

    def move(self, face: Face) -> Face:
        """The face in the shown picture's pixels."""
        k = self.width / (self.right - self.left)
        if abs(k - 1) < 2 / self.width:  # cut to even, not scaled
            k = 1.0
        points = (face.points - np.array([self.left, self.top, 0], np.float32)) * np.float32(k)
        return replace(face, points=points)


_CROP_SHOWN = 0.8  # of the flow's square is shown by --frame crop: the still rim outside it is dull
