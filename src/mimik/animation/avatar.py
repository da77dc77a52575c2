"""One person, ready to be animated: photos or a learned avatar in, a sealed file out."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mimik.animation.render import Rendering
from mimik.animation.report import Report, peak_memory_mb
from mimik.animation.source_frame import SourceFrame, read_backdrop
from mimik.animation.source_image import SourceImage, source_of_photo, source_of_video
from mimik.config import AVATAR_SUFFIX, TRANSPARENT, AnimateConfig, InputError
from mimik.face.landmarks import Face, Image, Landmarker
from mimik.inference.avatar_file import AvatarFile, calmest, read_avatar
from mimik.inference.runtime import Network, read_release
from mimik.inference.synthesis import BUNDLED_MODEL, DEFAULT_MODEL, PersonalizedGenerator
from mimik.media import video
from mimik.motion.drivers.driver import Driver
from mimik.motion.drivers.registry import open_driver
from mimik.pipeline import Progress, silent
from mimik.provenance.credentials import Credentials
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.marking import Marker
from mimik.provenance.outputs import check_output
from mimik.provenance.sealing import seal
from mimik.rendering.layers.own_teeth import best_teeth
from mimik.rendering.layers.teeth import TeethSet
from mimik.rendering.layers.teeth import named as named_teeth

_TRANSPARENT_OUTPUTS = (
    "give a .webm or .mov file, a folder for PNG frames, a .webp file, or a .png file where the driver is a photo"
)


class Avatar:
    """One person, ready to be animated.

    >>> Avatar.from_photos(["photo.jpg"]).render("talk", "out.mp4")
    """

    def __init__(
        self,
        landmarker: Landmarker,
        images: Sequence[SourceImage],
        *,
        chosen: int = 0,
        person: AvatarFile | None = None,
    ) -> None:
        """See from_photos and load. Renders one driver at a time.

        Args:
            landmarker: for drivers.
            images: of the person; all of them say who it is.
            chosen: which of them is animated.
            person: as `mimik learn` learned it.
        """
        self._landmarker = landmarker
        self._every = list(images)
        self._image = images[chosen]
        self._person = person
        self._generators: dict[str, PersonalizedGenerator] = {}

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
            return cls(landmarker, [source_of_video(paths[0], landmarker, face)])
        images = [source_of_photo(path, landmarker, face) for path in paths]
        return cls(landmarker, images, chosen=calmest([image.face for image in images]))

    @classmethod
    def load(cls, path: str | Path, *, landmarker: Landmarker | None = None) -> Avatar:
        """A person that `mimik learn` learned.

        Args:
            path: the .avatar file.
            landmarker: to share one between avatars.

        Raises:
            ModelError: if there is none, it is damaged, or it is something else.
        """
        person = read_avatar(Path(path))
        return cls(
            landmarker or Landmarker(),
            [SourceImage(Path(path), person.picture, person.face, teeth=person.teeth)],
            person=person,
        )

    @property
    def landmarker(self) -> Landmarker:
        """For whoever drives the person; used by one thread at a time."""
        return self._landmarker

    @property
    def photo(self) -> Path:
        """The file that is animated."""
        return self._image.path

    @property
    def picture(self) -> Image:
        """The photo, uint8 RGB [H, W, 3]; a video's calmest frame."""
        return self._image.picture

    @property
    def is_video(self) -> bool:
        """Whether the photo is a video, whose own motion the driver's replaces."""
        return self._image.is_video

    @property
    def model(self) -> str:
        """What draws the person when no other model is asked for."""
        return self._person.model if self._person else DEFAULT_MODEL

    @property
    def face(self) -> Face:
        """The face in the photo; in the first seconds' calmest frame when the photo is a video."""
        return self._image.face

    def generator(self, model: str) -> PersonalizedGenerator | None:
        """What a model knows of the person; None for "geometry", which knows nothing.

        Args:
            model: as AnimateConfig has it, or the person's own.

        Raises:
            ModelError: if there is no such model.
        """
        if model == "geometry":
            return None
        if self._person and model == self._person.model:
            return self._person.generator
        if model not in self._generators:
            release = read_release(BUNDLED_MODEL if model == "texture" else Path(model))
            # One thread: the pipeline's stages keep the cores busy.
            network = Network(release.preset.networks, release.tensors, num_threads=1)
            pictures = [image.picture for image in self._every]
            points = [image.face.points for image in self._every]
            self._generators[model] = PersonalizedGenerator.of_photos(network, pictures, points)
        return self._generators[model]

    @cached_property
    def teeth(self) -> TeethSet | None:
        """The person's teeth, from the photo that shows most of them; None if none shows them well."""
        return self._image.teeth or best_teeth([(image.picture, image.face.points) for image in self._every])

    def source_frame(self, config: AnimateConfig, *, limit_side: bool = False) -> SourceFrame:
        """The chosen image of the person, prepared for animation.

        Args:
            config: model, view and size, and how a driver's motion is put on the person.
            limit_side: for a video: even sides, no more pixels than players can show.

        Raises:
            ModelError: if there is no such model.
            InputError: if the background cannot be used.
        """
        backdrop = read_backdrop(self._image, config.background)
        generator = self.generator(config.model or self.model)
        teeth = named_teeth(config.teeth) if config.teeth else self.teeth
        return SourceFrame(self._image, config, generator, backdrop, limit_side=limit_side, teeth=teeth)

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
        with closing(self._unmarked(driver, config)) as images:
            for image in images:
                yield marker.mark(image)

    def _unmarked(self, driver: str | Path, config: AnimateConfig) -> Generator[Image]:
        """The frames without a mark, which never leave."""
        report = Report("", str(self.photo), str(driver), config.model or self.model)
        rendering = Rendering(
            self.source_frame(config), opened_driver(driver, config), config, report, self._landmarker
        )
        with closing(rendering.images()) as images:
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
        opened = opened_driver(driver, config)
        behind = Path(config.background) if config.background and Path(config.background).is_file() else None
        inputs = [self.photo, *(file for file in (opened.path, behind) if file)]
        check_output(path, force=force, inputs=inputs)
        if config.background == TRANSPARENT and not video.keeps_alpha(path):
            raise InputError(f"-o {out}: cannot be transparent; {_TRANSPARENT_OUTPUTS}.")
        if kind == "image" and not opened.is_still:
            raise InputError(f"-o {out}: a {opened.kind} as driver makes a video; give an .mp4, or a photo as driver.")
        report = Report(str(path), str(self.photo), opened.name, config.model or self.model, fps=opened.fps)
        if self._image.note:
            report.notes.append(self._image.note)
        start = time.perf_counter()
        source = self.source_frame(config, limit_side=kind == "video")
        rendering = Rendering(source, opened, config, report, self._landmarker, progress or silent)
        settings = {"motion": config.motion, "regions": list(config.regions), "strength": config.strength}
        about = [*self.ingredients()]
        if opened.path is None:
            settings["driver"] = opened.name
        else:
            about.append(Ingredient.from_file("driver", opened.path, name=opened.name))
        if config.background is not None:
            settings["background"] = source.background
            if source.background == "picture" and behind:
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
                draft.write_image(rendering.still())
            else:
                alpha = config.background == TRANSPARENT
                with draft.open_writer(
                    *rendering.size, opened.fps, quality=config.quality, audio_from=sound, alpha=alpha
                ) as writer:
                    rendering.write(writer)
                report.has_audio = sound is not None and path.suffix.lower() in video.CONTAINERS
        report.seconds = round(time.perf_counter() - start, 3)
        report.ms_per_frame = rendering.clock.ms_per_frame(report.num_frames)
        report.peak_memory_mb = round(peak_memory_mb(), 1)
        if report.num_lost:
            report.notes.append(
                f"the driver's face was not visible in {report.num_lost} of {report.num_frames} frames; the person "
                "eases to neutral there"
            )
        return report


def opened_driver(driver: str | Path | Driver, config: AnimateConfig) -> Driver:
    """The driver as the settings want it: what of it drives, how long, from which neutral.

    Raises:
        InputError: if it cannot be used.
    """
    opened = open_driver(driver, config.fps, by=config.drive_by, seconds=config.seconds)
    opened.check_neutral(config.neutral)
    return opened
