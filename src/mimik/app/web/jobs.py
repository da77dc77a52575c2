"""Functions of the tabs and HTTP endpoints, without a browser: animate, many photos, edit, verify."""

from __future__ import annotations

import itertools
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mimik.animation.avatar import Avatar
from mimik.animation.edit import Editor, check_changes
from mimik.animation.report import Report
from mimik.animation.sliders import Edit
from mimik.app.web.sessions import Job, Limits, Session, StoppedError
from mimik.config import AVATAR_SUFFIX, TRANSPARENT, AnimateConfig, InputError
from mimik.face.landmarks import Image, Landmarker, choose_face, head_pose
from mimik.face.orientation import find_faces
from mimik.media import video
from mimik.media.formats import SOUND_SUFFIXES
from mimik.media.speaking import speak
from mimik.motion.drivers import registry
from mimik.motion.drivers.driver import Driver
from mimik.pipeline import STAGE_WORDS, RunProgress
from mimik.provenance.credentials import Credentials
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.marking import Marker
from mimik.provenance.sealing import seal
from mimik.provenance.verifying import verify

_PREVIEW_PX = 512  # longest side of the edited photo while a slider moves
_SHARE_BESIDE = 0.2  # share of the side-by-side video in the work, if one is made
PAGE_FORMATS = {  # name in the page: suffix, "" for a folder of frames
    "mp4": ".mp4",
    "mov": ".mov",
    "mkv": ".mkv",
    "webm": ".webm",
    "gif": ".gif",
    "webp": ".webp",
    "png frames": "",
    "png": ".png",
    "jpg": ".jpg",
}
_STILLS = ("png", "jpg")
EDIT_FORMATS = {"png": ".png", "jpg": ".jpg", "webp": ".webp"}
Tell = Callable[[float, str], None]  # share done, 0..1, and description of the current step


def ignore_progress(share: float, doing: str) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class AnimatedPhoto:
    """Result for one photo."""

    out: Path  # the sealed file; for frames, a .zip of sealed files
    beside: Path | None  # video with photo or driver and result side by side, if requested
    report: Report  # of the run


class Remaining:
    """Estimates the remaining time from the elapsed time."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._start = now, now()

    def __call__(self, share: float) -> str:
        """Args: share: done so far, 0..1. Returns: "" if it is too early for an estimate."""
        elapsed = self._now() - self._start
        if share < 0.02 or elapsed < 1:
            return ""
        left = elapsed * (1 - share) / share
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {max(1, round(left))} s left"


def check_photo(photo: str | None) -> str:
    """Raises:
    InputError: if there is none.
    """
    if not photo:
        raise InputError("No photo yet: add one of the person.")
    return photo


def check_photos(photos: Sequence[str] | None, limits: Limits, whose: str = "") -> Sequence[str]:
    """Raises:
    InputError: if there are none, or too many.
    """
    if not photos:
        raise InputError(f"No photos yet: add one or more{whose}.")
    if len(photos) > limits.photos:
        raise InputError(f"You added {len(photos)} photos: use at most {limits.photos}.")
    return photos


def animate(
    job: Job,
    photo: str | None,
    driver: str | None,
    config: AnimateConfig,
    *,
    limits: Limits,
    format: str = "mp4",
    beside: bool = False,
    tell: Tell = ignore_progress,
    credentials: Credentials | None = None,
) -> AnimatedPhoto:
    """Animate a photo into a sealed video.

    Args:
        photo: a picture, a video of the person, or an .avatar file.
        driver: a file, or a name such as that of a bundled motion or idle.
        format: one of PAGE_FORMATS.
        beside: also make a video with photo or driver at the left, result at the right.

    Raises:
        InputError: if an argument is invalid.
        StoppedError: if the visitor stopped the job; nothing is kept then.
    """
    photo = check_photo(photo)
    _check_choice(format, PAGE_FORMATS)
    if not driver or (driver not in registry.names() and not Path(driver).is_file()):
        raise InputError("Nothing drives the photo yet: choose a motion, or add a video or a recording.")
    if config.background == TRANSPARENT and not video.keeps_alpha(f"a{PAGE_FORMATS[format]}"):
        raise InputError(
            f"A .{format} file cannot be transparent: choose webm, mov, webp or PNG frames, or another background."
        )
    opened = registry.open_driver(driver, config.fps, by=config.drive_by, seconds=config.seconds)
    if format in _STILLS and not opened.is_still:
        raise InputError(f"A {format} file contains one picture: choose a video format, or use a photo as the driver.")
    if _is_video(photo):
        _check_length("The video of the person", video.probe(photo).duration_s, limits)
    if not opened.is_still and opened.num_frames:
        _check_length("The driver", opened.num_frames / opened.fps, limits)
    share = 1 - _SHARE_BESIDE * beside

    run = RunProgress()

    def step(stage: str, done: int, total: int | None) -> None:
        job.check()
        work = run(stage, done, total)
        if work is not None and work[1]:
            tell(share * work[0] / work[1], f"{STAGE_WORDS[stage].capitalize()}, frame {done} of {total}")

    with job.running():
        out = job.session.new(f"{Path(photo).stem}{PAGE_FORMATS[format]}")
        try:
            tell(0.0, "Reading the photo and the driver")
            avatar = Avatar.from_photos([photo], face=config.face)
            fitting = _applicable(config, opened, format)
            report = avatar.render(opened, out, config=fitting, credentials=credentials, progress=step)
            second = None
            if beside and format not in _STILLS:
                second = _side_by_side(avatar, driver, out, report, job, tell, credentials)
            if not PAGE_FORMATS[format]:
                out = _zipped(out)
        except OSError:
            job.check()  # the visitor has left, and the folder was deleted
            raise
        except StoppedError:
            shutil.rmtree(out.parent, ignore_errors=True)
            raise
    return AnimatedPhoto(out, second, report)


def _check_choice(format: str, formats: Mapping[str, str]) -> None:
    if format not in formats:
        raise InputError(f"Format {format}: use one of {', '.join(formats)}.")


def _applicable(config: AnimateConfig, driver: Driver, format: str) -> AnimateConfig:
    """The settings, with defaults for those that do not apply to this driver or format."""
    plain: dict[str, Any] = {}
    if not driver.has_frames:
        plain["neutral"] = None
    if not driver.shows_faces:
        plain["driver_face"] = None
    if not driver.is_generated:
        plain["seed"] = 0
    if format in _STILLS:
        plain |= {"fps": None, "smooth": AnimateConfig.smooth}
    if format in _STILLS or format in ("gif", "png frames"):
        plain["quality"] = AnimateConfig.quality
    return replace(config, **plain)


def _is_video(path: str) -> bool:
    own = (AVATAR_SUFFIX, ".motion", ".jsonl", ".csv", *SOUND_SUFFIXES)
    return Path(path).is_file() and Path(path).suffix.lower() not in own and video.kind(path) == "video"


def _check_length(what: str, length_s: float | None, limits: Limits) -> None:
    if length_s is not None and length_s > limits.seconds:
        raise InputError(f"{what} is {length_s:.0f} s long: use at most {limits.seconds:.0f} s.")


def synthesize_speech(job: Job, text: str | None, voice: str | None = None) -> str:
    """Synthesize a text to a file. Raises InputError if there is no text, no such voice, or no speech program.

    Args: voice: of espeak-ng, such as de; None or "": its English voice. Voice files of this computer are rejected.
    """
    if not text or not text.strip():
        raise InputError("No text yet: enter what the person should say.")
    voice = (voice or "").strip() or None
    if voice is not None and not re.fullmatch(r"[A-Za-z][A-Za-z0-9+-]*", voice):
        raise InputError(f"Voice {voice}: use a voice of espeak-ng such as en-us or de.")
    return str(speak(text, job.session.new("speech.wav"), voice=voice))


def _zipped(folder: Path) -> Path:
    """Store the sealed frames of a folder in one .zip, without compression."""
    out = folder.with_suffix(".zip")
    with zipfile.ZipFile(out, "x", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{folder.name}/{path.name}")
    shutil.rmtree(folder)
    return out


def _side_by_side(
    avatar: Avatar, driver: str, result: Path, report: Report, job: Job, tell: Tell, credentials: Credentials | None
) -> Path:
    """Sealed .mp4 with driver or photo at the left, result at the right."""
    out = job.session.new(f"{result.stem}_side_by_side.mp4")
    height = report.height // 2 * 2
    if _is_video(driver):
        others: Iterator[Image] = video.read_frames(driver, fps=report.fps, max_side=height)
        shown = [Ingredient.from_file("driver", Path(driver))]
    else:
        others = itertools.repeat(avatar.picture, report.num_frames)
        shown = []
    claim = Claim(out.name, Path(report.model).name, (*avatar.ingredients(), *shown), {"view": "side by side"})
    frames: Iterator[Image]
    if result.is_dir():
        frames = (video.read_image(path) for path in sorted(result.iterdir()))
    else:
        frames = iter(video.read_frames(result))
    with seal(out, claim, credentials=credentials) as draft, ExitStack() as stack:
        writer: Any = None
        for done, (other, frame) in enumerate(zip(others, frames, strict=False), start=1):
            job.check()
            both = np.concatenate([_resized(other, height), _resized(frame, height)], axis=1)
            if writer is None:
                sound = result if report.has_audio else None
                writer = stack.enter_context(draft.open_writer(both.shape[1], height, report.fps, audio_from=sound))
            writer.write(both)
            share = 1 - _SHARE_BESIDE + _SHARE_BESIDE * done / max(report.num_frames, 1)
            tell(min(share, 1.0), "Making the side-by-side video")
    return out


def _resized(picture: Image, height: int) -> Image:
    """Resize a picture to this height and an even width."""
    width = max(2, round(picture.shape[1] * height / picture.shape[0]) // 2 * 2)
    if picture.shape[:2] == (height, width):
        return picture
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


# Many photos.


@dataclass(frozen=True)
class BatchAnswer:
    """Results for several photos."""

    made: list[AnimatedPhoto]  # successful photos, in order
    archive: Path | None  # all files in one .zip; None if there are none
    left_out: list[tuple[str, str]]  # name of a photo, and reason


def animate_photos(
    job: Job,
    photos: Sequence[str] | None,
    driver: str | None,
    config: AnimateConfig,
    *,
    limits: Limits,
    format: str = "mp4",
    beside: bool = False,
    tell: Tell = ignore_progress,
) -> BatchAnswer:
    """Animate several photos with the same driver; failures are recorded with their reason.

    Raises:
        InputError: if there are no photos, too many, or no driver.
        StoppedError: if the visitor stopped it; nothing is kept then.
    """
    photos = check_photos(photos, limits)
    made: list[AnimatedPhoto] = []
    left_out: list[tuple[str, str]] = []
    for number, photo in enumerate(photos):

        def of_all(share: float, doing: str, number: int = number) -> None:
            tell((number + share) / len(photos), f"Photo {number + 1} of {len(photos)}: {doing}")

        try:
            one = animate(job, photo, driver, config, limits=limits, format=format, beside=beside, tell=of_all)
            made.append(one)
        except InputError as error:
            left_out.append((Path(photo).name, str(error)))
    archive = None
    if made:
        archive = job.session.new("videos.zip")
        with zipfile.ZipFile(archive, "x", zipfile.ZIP_STORED) as file:
            for path in (path for one in made for path in (one.out, one.beside) if path is not None):
                file.write(path, _free_name(file, path))
    return BatchAnswer(made, archive, left_out)


def _free_name(archive: zipfile.ZipFile, path: Path) -> str:
    names = set(archive.namelist())
    numbered = (f"{path.stem}_{number}{path.suffix}" for number in itertools.count(2))
    return next(name for name in itertools.chain([path.name], numbered) if name not in names)


# Edit and verify.


def edited(session: Session, photo: str | None, changes: Edit, config: AnimateConfig) -> tuple[Image, Image]:
    """The photo before and after, reduced and watermarked. Raises InputError if there is no photo or no face in it."""
    photo = check_photo(photo)
    config = replace(config, size=min(config.size or _PREVIEW_PX, _PREVIEW_PX), label=False, consent=None)
    with session.in_use():
        with session.editing:
            if session.editor is None or session.editor[0] != (photo, config):
                avatar = Avatar.from_photos([photo], face=config.face)
                session.editor = (
                    (photo, config),
                    (Editor(avatar, config), Marker(Path(config.model or avatar.model).name, is_video=False)),
                )
            editor, marker = session.editor[1]
        return editor(Edit()), marker.mark(editor(changes))


def save_edited(
    session: Session, photo: str | None, changes: Edit, config: AnimateConfig, *, format: str = "png"
) -> Path:
    """Write the edited photo at the size of the settings to a sealed file.

    Raises InputError if there is no photo or no face in it.
    """
    photo = check_photo(photo)
    _check_choice(format, EDIT_FORMATS)
    check_changes(changes)
    with session.in_use():
        out = session.new(f"{Path(photo).stem}_edited{EDIT_FORMATS[format]}")
        Avatar.from_photos([photo], face=config.face).edit(out, changes, config=config)
    return out


def verified(file: str | None) -> tuple[str, dict[str, Any]]:
    """The verdict on a file as a sentence and as a dictionary. Raises InputError if it cannot be read."""
    if not file:
        raise InputError("No file yet: add a picture or a video.")
    verdict = verify(Path(file))
    return verdict.sentence, verdict.to_dict()


def faces(photo: str | None) -> list[dict[str, Any]]:
    """Faces of a photo with the numbers for `face`. Raises InputError if there is no photo, or no face in it."""
    photo = check_photo(photo)
    picture = video.read_image(photo)
    found = find_faces(Landmarker(), picture, thorough=True)
    if not found:
        choose_face(found, None, Path(photo).name, picture.shape[1::-1])  # raises the error
    out = []
    for number, face in enumerate(found, start=1):
        left, top, right, bottom = (round(float(side)) for side in face.box)
        yaw, pitch, roll = (round(float(angle), 1) for angle in head_pose(face.points).degrees)
        box = {"left": left, "top": top, "width": right - left, "height": bottom - top}
        out.append(
            {"face": number, **box, "yaw": yaw, "pitch": pitch, "roll": roll, "score": round(float(face.score), 3)}
        )
    return out


def report_of(made: AnimatedPhoto) -> dict[str, Any]:
    """A report without folders of this computer."""
    report = asdict(made.report)
    for name in ("out", "photo", "driver", "model"):
        report[name] = Path(report[name]).name
    return report
