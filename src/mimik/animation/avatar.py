"""Avatar, the public class: photos or a learned avatar in, a sealed file out."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, fields
from functools import cached_property, partial
from numbers import Integral
from pathlib import Path
from typing import NoReturn, Unpack

from mimik.animation import gpu
from mimik.animation.edit import EDIT_STEPS, Edit, Edited, Editor, check_changes, check_edit
from mimik.animation.group import Group, SharedDriver
from mimik.animation.options import (
    EditOptions,
    FrameOptions,
    RenderOptions,
    check_file_options,
    check_names,
    python_words,
    settings,
)
from mimik.animation.render import Rendering
from mimik.animation.report import Report, peak_memory_mb
from mimik.animation.source_frame import SourceFrame, read_backdrop
from mimik.animation.source_image import PhotoLike, SourceImage, as_list, source_of_photo, source_of_video
from mimik.config import AVATAR_SUFFIX, TRANSPARENT, AnimateConfig, InputError, OptionError, check_number, counted
from mimik.face.landmarks import MIN_FACE_PX, Face, Image, Landmarker, choose_face
from mimik.face.orientation import DOUBTFUL, find_faces, num_quarter_turns
from mimik.inference.avatar_file import AvatarFile, most_neutral_face, read_avatar
from mimik.inference.device import resolved_device
from mimik.inference.runtime import Network
from mimik.inference.synthesis import BUNDLED_MODEL, DEFAULT_MODEL, PersonalizedGenerator
from mimik.media import video
from mimik.motion.drivers.driver import Driver
from mimik.motion.drivers.registry import DriverLike, open_driver
from mimik.networks.release import read_release
from mimik.pipeline import Progress, run_in_thread, silent
from mimik.provenance.credentials import Credentials
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.marking import Marker
from mimik.provenance.outputs import check_output, output_path
from mimik.provenance.sealing import seal
from mimik.rendering.layers.own_teeth import best_teeth
from mimik.rendering.layers.teeth import TeethSet
from mimik.rendering.layers.teeth import named as named_teeth


class Avatar:
    """One person, ready to be animated.

    >>> Avatar.from_photos("photo.jpg").render("talk", "out.mp4")
    """

    def __init__(
        self,
        landmarker: Landmarker,
        images: Sequence[SourceImage],
        *,
        chosen: int = 0,
        person: AvatarFile | None = None,
    ) -> None:
        """Use from_photos or load instead. Renders one driver at a time.

        Args:
            landmarker: for drivers.
            images: of the person; all are embedded.
            chosen: index of the image to animate.
            person: content of an .avatar file.
        """
        self._landmarker = landmarker
        self._every = list(images)
        self._image = images[chosen]
        self._person = person
        self._generators: dict[tuple[str, str], PersonalizedGenerator] = {}

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an Avatar holds compiled networks and cannot be copied or pickled; pass the photo or the .avatar file, "
            "and make an Avatar from it there."
        )

    @classmethod
    def from_photos(
        cls,
        photos: PhotoLike | Sequence[PhotoLike],
        *,
        face: int | None = None,
        landmarker: Landmarker | None = None,
    ) -> Avatar:
        """The person in one or several photos.

        Args:
            photos: a path, a Pillow image, an array uint8 RGB [H, W, 3], or a list of these. A single path may also be
                a video, whose motion is replaced by the driver's, or an .avatar file. Of several photos, the one with
                the most neutral, most frontal face is animated; the embedding is computed from all of them.
            face: number of the face; 1 or None: the widest.
            landmarker: to share one between avatars.

        Raises:
            InputError: if a file cannot be read or shows no face.
        """
        every = as_list(photos)
        if face is not None:
            check_number("face", face, 1, 99, "1 is the widest", Integral)
        if not every:
            raise InputError("no photo was given; pass at least one picture of the person.")
        paths = [one for one in every if isinstance(one, Path)]
        if avatars := [path for path in paths if path.suffix.lower() == AVATAR_SUFFIX]:
            if len(every) > 1:
                raise InputError(f"{avatars[0]}: is a learned person; pass it alone, or pass photos.")
            if face is not None:
                raise OptionError(f"--face {face}: {avatars[0].name} has one face; omit --face.")
            return cls.load(avatars[0], landmarker=landmarker)
        landmarker = landmarker or Landmarker()
        if len(every) == 1 and paths and video.kind(paths[0]) == "video":
            return cls(landmarker, [source_of_video(paths[0], landmarker, face)])
        images = [source_of_photo(photo, landmarker, face) for photo in every]
        return cls(landmarker, images, chosen=most_neutral_face([image.face for image in images]))

    @classmethod
    def load(cls, path: str | Path, *, landmarker: Landmarker | None = None) -> Avatar:
        """Load an .avatar file, the result of `mimik learn`.

        Args:
            path: the .avatar file.
            landmarker: to share one between avatars.

        Raises:
            ModelError: if it does not exist, is damaged, or is another kind of file.
        """
        person = read_avatar(Path(path))
        photo = SourceImage(Path(path), person.picture, person.face, teeth=person.teeth)
        others = [SourceImage(Path(path), picture, face) for picture, face in person.others]
        return cls(landmarker or Landmarker(), [photo, *others], person=person)

    @property
    def landmarker(self) -> Landmarker:
        """The landmark detector for drivers; not thread-safe."""
        return self._landmarker

    @property
    def photo(self) -> Path | None:
        """The file to animate; None for a picture in memory."""
        return self._image.path

    @property
    def name(self) -> str:
        """Name of the photo, for messages."""
        return self._image.name

    @property
    def picture(self) -> Image:
        """The photo, uint8 RGB [H, W, 3]; of a video, the most neutral frame."""
        return self._image.picture

    @property
    def is_video(self) -> bool:
        """Whether the photo is a video, whose motion is replaced by the driver's."""
        return self._image.is_video

    @property
    def model(self) -> str:
        """The default model of this person."""
        return self._person.model if self._person else DEFAULT_MODEL

    @property
    def face(self) -> Face:
        """The face in the photo; of a video, in the most neutral frame of the first seconds."""
        return self._image.face

    def generator(self, model: str, device: str = "cpu") -> PersonalizedGenerator | None:
        """The generator for this person; None for "geometry", which has no network.

        Args:
            model: as in AnimateConfig, or the person's own.
            device: one of config.DEVICES.

        Raises:
            ModelError: if there is no such model.
            InputError: if there is no such device.
        """
        if model == "geometry":
            return None
        device = resolved_device(device)
        person = self._person if self._person and model == self._person.model else None
        if person and device == "cpu":
            return person.generator
        if (model, device) not in self._generators:
            release = person or read_release(BUNDLED_MODEL if model == "texture" else Path(model))
            if device == "cpu":
                # One thread: the pipeline's stages keep the cores busy.
                network = Network(release.preset.networks, release.tensors, num_threads=1)
            else:
                network = gpu.TorchNetwork(release.preset.networks, release.tensors, device)
            if person:
                made = PersonalizedGenerator(network, person.psi)
            else:
                pictures = [image.picture for image in self._every]
                points = [image.face.points for image in self._every]
                made = PersonalizedGenerator.of_photos(network, pictures, points)
            self._generators[model, device] = made
        return self._generators[model, device]

    @cached_property
    def teeth(self) -> TeethSet | None:
        """The person's teeth, from the photo that shows most of them; None if no photo shows them clearly."""
        return self._image.teeth or best_teeth([(image.picture, image.face.points) for image in self._every])

    def source_frame(self, config: AnimateConfig, *, limit_side: bool = False) -> SourceFrame:
        """The chosen image of the person, prepared for animation.

        Args:
            config: model, view, size, and options of retargeting.
            limit_side: for a video: even sides, and no more pixels than common players support.

        Raises:
            ModelError: if there is no such model.
            InputError: if the background cannot be used.
        """
        backdrop = read_backdrop(self._image, config.background)
        generator = self.generator(config.model or self.model, config.device)
        teeth = partial(named_teeth, config.teeth) if config.teeth else run_in_thread(lambda: self.teeth).result
        others = self._every[1:] if self._person else ()  # `mimik learn` keeps them only if they help
        return SourceFrame(self._image, config, generator, backdrop, limit_side=limit_side, teeth=teeth, others=others)

    def ingredients(self) -> tuple[Ingredient, ...]:
        """The source files for the manifest: the photo, or the avatar and its training files."""
        learned = self._person.sources if self._person else ()
        once = {source.sha256: Ingredient("photo", source.name, source.sha256, source.format) for source in learned}
        return self._image.ingredient(), *once.values()

    def frames(
        self, driver: DriverLike, *, config: AnimateConfig | None = None, **options: Unpack[FrameOptions]
    ) -> Iterator[Image]:
        """Iterate over the animated, watermarked frames: uint8 RGB [H, W, 3], or RGBA [H, W, 4] with background="none".

        Frames in memory carry no manifest: if you store or send them, you have to label them as synthetic.

        Args:
            driver: as in render.
            config: settings, in place of options.
            options: of the motion transfer.

        Raises:
            TypeError: on an unknown option, or one that has no effect on this driver.
            InputError: if anything given cannot be used.
        """
        with python_words(config):
            chosen = settings("frames", FrameOptions, options, config)
            opened = opened_driver(driver, chosen)
        return self._marked(opened, chosen)

    def _marked(self, driver: Driver, config: AnimateConfig) -> Generator[Image]:
        marker = Marker(config.model or self.model, label=config.label)
        with closing(self._unmarked(driver, config)) as images:
            for image in images:
                yield marker.mark(image)

    def _unmarked(self, driver: DriverLike, config: AnimateConfig) -> Generator[Image]:
        """The frames without a watermark, for internal use only."""
        opened = opened_driver(driver, config)
        report = Report("", self._named_photo, opened.name, config.model or self.model)
        rendering = Rendering(self.source_frame(config), opened, config, report, self._landmarker)
        with closing(rendering.images()) as images:
            yield from images

    @property
    def _named_photo(self) -> str:
        """Path of the photo, or its name if it is in memory."""
        return str(self.photo or self.name)

    def edit(
        self,
        out: str | Path,
        edit: Edit | None = None,
        *,
        config: AnimateConfig | None = None,
        force: bool = False,
        credentials: Credentials | None = None,
        progress: Progress = silent,
        **options: Unpack[EditOptions],
    ) -> Edited:
        """Edit the photo's expression, gaze and pose by numeric parameters, and write a sealed picture.

        >>> Avatar.from_photos("photo.jpg").edit("smiling.png", smile=0.6, yaw=12)

        Args:
            out: .png, .jpg, .jpeg or .webp.
            edit: the changes, in place of the sliders among the options.
            config: model, view and size, in place of the other options.
            force: replace an existing file.
            credentials: signing key and certificate; None: this computer's own.
            progress: called before each step with its name, its index and the number of steps.
            options: the sliders of Edit; model, view and size.

        Returns:
            The size of the picture, and notes on changes that this photo does not allow.

        Raises:
            TypeError: on an unknown option.
            InputError: if anything given cannot be used; nothing is written then.
        """
        with python_words(config):
            check_names("edit", EditOptions.__annotations__, options)
            sliders = {field.name for field in fields(Edit)}
            changes = {name: value for name, value in options.items() if name in sliders}
            others = {name: value for name, value in options.items() if name not in sliders}
            if edit is not None and changes:
                raise TypeError(f"edit() got an Edit and {min(changes)!r}; pass only one")
            chosen = settings("edit", EditOptions, others, config)
            made = edit or Edit(**changes)  # type: ignore[arg-type]  # the check above knows the names
            check_edit(Path(out), force=force, inputs=[self.photo] if self.photo else [])
            check_changes(made)
            credentials = credentials or Credentials.local()
            progress("preparing layers", 1, EDIT_STEPS)
            editor = Editor(self, chosen)
            progress("fitting the changes", 2, EDIT_STEPS)
            notes = editor.notes(made)
            progress("drawing", 3, EDIT_STEPS)
            model = Path(chosen.model or self.model).name
            changed = {name: value for name, value in asdict(made).items() if value}
            claim = Claim(
                Path(out).name, model, self.ingredients(), changed, label=chosen.label, consent=chosen.consent
            )
            with seal(Path(out), claim, credentials=credentials, force=force) as draft:
                image = editor(made)
                progress("marking and signing", 4, EDIT_STEPS)
                draft.write_image(image)
            return Edited(*editor.size, notes)

    def render(
        self,
        driver: DriverLike,
        out: str | Path,
        *,
        config: AnimateConfig | None = None,
        force: bool = False,
        credentials: Credentials | None = None,
        progress: Progress | None = None,
        **options: Unpack[RenderOptions],
    ) -> Report:
        """Animate the person and write a sealed file.

        Args:
            driver: a path (video, photo, recording of speech, .motion or .jsonl file), the name of a bundled motion,
                "idle", a Motion, a picture (Pillow, or uint8 RGB [H, W, 3]), frames (an array uint8 RGB [N, H, W, 3],
                or an iterable of pictures, with fps), or an opened Driver.
            out: .mp4, .m4v, .mov, .mkv, .webm, .gif, .webp, a folder for PNG frames or a pattern such as
                frames/%05d.webp; .png and .jpg when the driver is a photo.
            config: settings, in place of options.
            force: replace an existing file.
            credentials: signing key and certificate; None: this computer's own.
            progress: called with a stage, the number of completed frames, and the total or None if unknown; later
                stages may be announced with 0 frames.
            options: of the motion transfer and of the file.

        Raises:
            TypeError: on an unknown option, or one that has no effect on this driver or file.
            InputError: if anything given cannot be used; nothing is written then.
        """
        with python_words(config):
            chosen = settings("render", RenderOptions, options, config)
            return self._render(driver, output_path(out), chosen, force, credentials, progress)

    def _render(
        self,
        driver: DriverLike,
        out: Path,
        config: AnimateConfig,
        force: bool,
        credentials: Credentials | None,
        progress: Progress | None,
        others: Sequence[tuple[Avatar, Driver]] = (),
    ) -> Report:
        """Args: others: further faces of the same photo with their drivers; the rest as in render."""
        kind = video.output_kind(out)
        opened = opened_driver(driver, config)
        behind = Path(config.background) if config.background and Path(config.background).is_file() else None
        inputs = [file for file in (self.photo, opened.path, behind, *(one.path for _, one in others)) if file]
        check_output(out, force=force, inputs=inputs)
        check_file_options(out, config)
        if kind == "image" and not opened.is_still:
            raise InputError(
                f"-o {out}: a {opened.kind} as driver produces a video; use an .mp4 file, or a photo as driver."
            )
        credentials = credentials or Credentials.local()  # fails before the work if signing is impossible
        report = Report(str(out), self._named_photo, opened.name, config.model or self.model, fps=opened.fps)
        if self._image.note:
            report.notes.append(self._image.note)
        start = time.perf_counter()
        source = self.source_frame(config, limit_side=kind == "video")
        if others:
            parts = [(source, opened)]
            parts += [(one.source_frame(config, limit_side=kind == "video"), driven_by) for one, driven_by in others]
            rendering: Rendering = Group(parts, config, report, self._landmarker, progress or silent)
        else:
            rendering = Rendering(source, opened, config, report, self._landmarker, progress or silent)
        claim = self._claim(out.name, [opened, *(one for _, one in others)], behind, source, config)
        signing = partial(progress, "sign") if progress and kind == "frames" else None
        if signing:
            signing(0, opened.num_frames)
        sound = opened.sound if config.audio else None
        with seal(out, claim, credentials=credentials, force=force, progress=signing) as draft:
            if kind == "image":
                draft.write_image(rendering.still())
            else:
                alpha = config.background == TRANSPARENT
                with draft.open_writer(
                    *rendering.size, opened.fps, quality=config.quality, audio_from=sound, alpha=alpha
                ) as writer:
                    rendering.write(writer)
                report.has_audio = sound is not None and video.holds_sound(out)
                if sound is not None and not report.has_audio:
                    what = "a folder of pictures" if kind == "frames" else f"a {out.suffix} file"
                    report.notes.append(f"{what} has no sound; use an .mp4 or .webm to keep that of {opened.name}")
        report.seconds = round(time.perf_counter() - start, 3)
        report.ms_per_frame = rendering.clock.ms_per_frame(report.num_frames)
        report.peak_memory_mb = round(peak_memory_mb(), 1)
        if report.num_lost:
            report.notes.append(
                f"the driver's face was not visible in {report.num_lost} of {counted(report.num_frames, 'frame')}; the "
                "person eases to neutral there"
            )
        return report

    def _claim(
        self, title: str, drivers: Sequence[Driver], behind: Path | None, source: SourceFrame, config: AnimateConfig
    ) -> Claim:
        """The manifest's claim: source files and settings; behind: the background's file."""
        about = [*self.ingredients()]
        how: dict[str, str | float | list[str]] = {
            "motion": config.motion,
            "regions": list(config.regions),
            "strength": config.strength,
        }
        for driver in {driver.name: driver for driver in drivers}.values():
            if driver.path is None:
                how["driver"] = driver.name
            else:
                about.append(Ingredient.from_file("driver", driver.path, name=driver.name))
        if config.background is not None and source.background is not None:
            how["background"] = source.background
            if source.background == "picture" and behind:
                about.append(Ingredient.from_file("background", behind))
        model = Path(config.model or self.model).name
        return Claim(title, model, tuple(about), how, consent=config.consent, label=config.label)


def opened_driver(driver: DriverLike, config: AnimateConfig) -> Driver:
    """Open a driver and check the settings that concern it.

    Raises InputError if it cannot be used.
    """
    opened = open_driver(driver, config.fps, by=config.drive_by, seconds=config.seconds)
    opened.check_options(neutral_s=config.neutral, face=config.driver_face, seed=config.seed)
    return opened


def edit_photo(
    photo: PhotoLike,
    out: str | Path,
    edit: Edit | None = None,
    *,
    face: int | None = None,
    config: AnimateConfig | None = None,
    force: bool = False,
    credentials: Credentials | None = None,
    progress: Progress = silent,
    **options: Unpack[EditOptions],
) -> Edited:
    """Edit a photo and write a sealed picture: Avatar.from_photos and Avatar.edit in one step.

    Args:
        photo: a picture, a video of the person, or an .avatar file.
        face: number of the face, 1 is the widest; None: that of config.
        out, edit, config, force, credentials, progress, options: as in Avatar.edit.

    Raises:
        TypeError: on an unknown option.
        InputError: if anything given cannot be used; nothing is written then.
    """
    with python_words(config):
        check_names("edit", EditOptions.__annotations__, options)
        check_edit(Path(out), force=force, inputs=[one for one in as_list(photo) if isinstance(one, Path)])
        progress("reading the photo", 0, EDIT_STEPS)
        chosen = config.face if config and face is None else face
        avatar = Avatar.from_photos(photo, face=chosen)
    return avatar.edit(out, edit, config=config, force=force, credentials=credentials, progress=progress, **options)


def render_all_faces(
    photo: PhotoLike,
    driver: DriverLike,
    out: str | Path,
    *,
    drivers: Mapping[int, DriverLike] | None = None,
    config: AnimateConfig | None = None,
    force: bool = False,
    credentials: Credentials | None = None,
    progress: Progress | None = None,
    landmarker: Landmarker | None = None,
    **options: Unpack[RenderOptions],
) -> Report:
    """Animate every face of a photo, and write a sealed file.

    Args:
        photo: a picture.
        driver: of all faces without a separate one; its sound is used.
        out: as in Avatar.render.
        drivers: of single faces, by face number; 1 is the widest.
        config, force, credentials, progress, options: as in Avatar.render.
        landmarker: to share one.

    Raises:
        TypeError: on an unknown option.
        InputError: if anything given cannot be used; nothing is written then.
    """
    with python_words(config):
        chosen = settings("render_all_faces", RenderOptions, options, config)
        for option, given in (
            ("--frame crop", chosen.frame == "crop"),
            (f"--background {chosen.background}", chosen.background is not None),
            (f"--face {chosen.face}", chosen.face is not None),
        ):
            if given:
                raise OptionError(f"{option} applies to one face; omit it, or omit --all-faces.")
        landmarker = landmarker or Landmarker()
        people, notes = _animatable_people(photo, landmarker)
        opened = {number: opened_driver(one, chosen) for number, one in (drivers or {}).items()}
        if unknown := sorted(opened.keys() - people.keys()):
            there = ", ".join(map(str, people))
            raise InputError(f"--face-driver {unknown[0]}=...: no such face; use one of {there}.")
        shared = SharedDriver(opened_driver(driver, chosen), len(people.keys() - opened.keys()))
        for number, one in opened.items():
            if one.fps != shared.fps:
                raise InputError(
                    f"face {number}: {one.name} has {one.fps:g} frames/s and {shared.name} {shared.fps:g}; pass "
                    "--fps to set one rate for all."
                )
        (first, avatar), *others = people.items()
        report = avatar._render(
            opened.get(first, shared),
            output_path(out),
            chosen,
            force,
            credentials,
            progress,
            [(one, opened.get(number, shared)) for number, one in others],
        )
        report.notes += notes
        return report


def _animatable_people(photo: PhotoLike, landmarker: Landmarker) -> tuple[dict[int, Avatar], list[str]]:
    """The people in a picture by face number, and notes on faces that are not animated."""
    (given,) = as_list(photo)
    if isinstance(given, Path) and (given.suffix.lower() == AVATAR_SUFFIX or video.kind(given) == "video"):
        raise InputError(f"{given}: has one face; use a photo, or omit --all-faces.")
    path = given if isinstance(given, Path) else None
    picture = video.read_image(given) if isinstance(given, Path) else given
    found = find_faces(landmarker, picture, thorough=True)
    name = path.name if path else "the picture"
    choose_face(found, None, name, picture.shape[1::-1])
    people: dict[int, Avatar] = {}
    notes = []
    for number, face in enumerate(found, start=1):
        why = None
        if face.width_px < MIN_FACE_PX:
            why = f"is {face.width_px:.0f} px wide"
        elif face.score < DOUBTFUL and number > 1:
            why = f"is uncertain ({100 * face.score:.0f} %)"
        elif num_quarter_turns(face):
            why = "is not upright; rotate the picture, or animate it alone with --face"
        if why:
            notes.append(f"face {number} of {name} {why}; it is not animated")
        else:
            people[number] = Avatar(landmarker, [SourceImage(path, picture, face)])
    if not people:
        raise InputError(f"{name} shows no face that can be animated: {'; '.join(notes)}.")
    return people, notes
