"""Many photos, many drivers: a video for each pair, one after another, in several processes, or over a Ray cluster.

A pair that cannot be made costs a reason and nothing else. What a run has made stands in animated.jsonl in its folder,
with what it was made from: the same command goes on where it was stopped.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from mimik import workers
from mimik.animation.avatar import Avatar, opened_driver
from mimik.animation.report import Report
from mimik.config import VERSION, AnimateConfig, InputError
from mimik.face.landmarks import Landmarker
from mimik.files import check_folder, hold
from mimik.motion.drivers import registry
from mimik.motion.kinds import is_folder_of_drivers
from mimik.pipeline import Progress
from mimik.provenance.credentials import Credentials
from mimik.provenance.outputs import check_output
from mimik.rendering.matte import check_backdrop

log = logging.getLogger(__name__)

ANIMATED_NAME = "animated.jsonl"
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
CORES_PER_VIDEO = 2  # that the threads of one video keep busy
_STALL_S = 600.0  # without a frame: longer than any model needs to be compiled, or any file to be signed
_VIDEO_TIMEOUT_S = 24 * 3600.0  # of one video, under Ray, where nobody hears of single frames


class Pair(NamedTuple):
    """A video to make: photo, driver, and the file."""

    photo: Path
    driver: str
    out: Path


PairProgress = Callable[[Pair, int, int | None], None]  # frames done, and of all


@dataclass(frozen=True)
class Outcome:
    """What became of a pair: made, with a report; not made, with a reason; or with neither, made by an earlier run."""

    pair: Pair
    report: Report | None = None
    reason: str | None = None


class _Job(NamedTuple):
    """What a worker is asked for; signer are the files of certificate and key, None for its computer's own."""

    pair: Pair
    config: AnimateConfig
    signer: tuple[Path, Path] | None
    force: bool


def pairs(photo: Path, driver: str, out: Path) -> list[Pair]:
    """Each photo with each driver, in the order of their names.

    Args:
        photo: a photo, or a folder of photos.
        driver: as registry.open_driver takes it, or a folder of files with one of registry.suffixes().
        out: the folder of the videos, named after what there are several of: PHOTO.mp4, DRIVER.mp4, PHOTO_DRIVER.mp4.

    Raises:
        InputError: if a folder holds nothing that can be used, or out is no folder for the videos.
    """
    many_photos, many_drivers = photo.is_dir(), is_folder_of_drivers(driver)
    photos = _files(photo, PHOTO_SUFFIXES) if many_photos else [photo]
    drivers = [str(path) for path in _files(Path(driver), registry.suffixes())] if many_drivers else [driver]
    if not photos:
        raise InputError(f"{photo} has no photos in it; give a folder with {', '.join(PHOTO_SUFFIXES)} files.")
    if not drivers:
        suffixes = ", ".join(registry.suffixes())
        raise InputError(f"driver {driver}: is a folder without drivers; give one with {suffixes} files, or a file.")
    for folder, what in [(photo, "photos")] * many_photos + [(Path(driver), "drivers")] * many_drivers:
        if out.suffix and not out.is_dir():
            raise InputError(f"-o {out}: {folder} is a folder of {what}; give a folder for the videos too.")
        if out.exists() and not out.is_dir():
            raise InputError(f"-o {out}: is a file; give a folder for the videos.")
        check_folder("-o", out)
        if out.resolve() == folder.resolve():
            raise InputError(f"-o {out}: is the folder of the {what}; give another one for the videos.")
    of_photo = dict(zip(photos, _names(photos), strict=True))
    of_driver = dict(zip(drivers, _names([Path(path) for path in drivers]), strict=True))

    def file(photo: Path, driver: str) -> Path:
        parts = [of_photo[photo]] * many_photos + [of_driver[driver]] * many_drivers
        return out / f"{'_'.join(parts)}.mp4"

    return [Pair(one, other, file(one, other)) for one in photos for other in drivers]


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Hidden files are left out, such as the ._a.jpg beside a.jpg in what a Mac has copied."""
    every = (path for path in folder.iterdir() if path.name[0] != ".")
    return sorted(path for path in every if path.suffix.lower() in suffixes and path.is_file())


def _names(paths: Sequence[Path]) -> list[str]:
    """Of the files that are made from these: without suffixes, where those do not tell them apart."""
    counts = Counter(path.stem for path in paths)
    return [path.stem if counts[path.stem] == 1 else path.name for path in paths]


@functools.lru_cache(maxsize=1)
def _landmarker() -> Any:
    """One a process; compiling its networks takes half a second."""
    return Landmarker()


def _avatar(photo: Path, face: int | None) -> Avatar:
    """The person, read once for all drivers that come one after another."""
    stat = photo.stat() if photo.exists() else None
    return _read_avatar(photo, face, (stat.st_size, stat.st_mtime_ns) if stat else None)


@functools.lru_cache(maxsize=1)
def _read_avatar(photo: Path, face: int | None, version: tuple[int, int] | None) -> Avatar:
    return Avatar.from_photos([photo], face=face, landmarker=_landmarker())


def _make(job: _Job, progress: Progress) -> Report:
    """Makes one video. Raises InputError if it cannot be made."""
    pair, config = job.pair, job.config
    driver = opened_driver(pair.driver, config)
    check_output(pair.out, force=job.force, inputs=[pair.photo, *([driver.path] if driver.path else [])])
    credentials = Credentials.from_files(*job.signer) if job.signer else None
    avatar = _avatar(pair.photo, config.face)
    return avatar.render(driver, pair.out, config=config, force=job.force, credentials=credentials, progress=progress)


def _work(job: _Job, beat: workers.Beat) -> Report | str:
    """A report, or the reason why there is none."""
    return _attempt(job, lambda stage, done, total: beat())


def _attempt(job: _Job, progress: Progress) -> Report | str:
    try:
        return _make(job, progress)
    except InputError as error:
        return str(error)
    except Exception as error:  # one bad pair must not end the others
        log.debug("%s", job.pair, exc_info=True)
        return f"unexpected {type(error).__name__}: {error}"


@contextmanager
def _record(folder: Path) -> Iterator[tuple[IO[str], dict[str, Any]]]:
    """The record of a folder, to append to, and what stands in it: what each file was made from. One run at a time."""
    path = folder / ANIMATED_NAME
    held = hold(path, "a+")
    if held is None:
        raise InputError(f"-o {folder}: another run is writing there; wait for it, or give another one.")
    with held as file:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a line is cut off where a run was killed
        os.truncate(path, len(whole.encode()))
        known = {}
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                known[entry["out"]] = entry["made_from"]
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{path} is damaged; remove it, and give --force or another folder.") from None
        yield file, known


def _made_from(pair: Pair, config: AnimateConfig) -> dict[str, Any]:
    """All that decides what a video shows."""
    paths = {"photo": pair.photo}
    if driver := registry.file_of(pair.driver):
        paths["driver"] = driver
    if config.model and Path(config.model).is_file():
        paths["model"] = Path(config.model)
    files = {what: [path.name, path.stat().st_size, path.stat().st_mtime_ns] for what, path in paths.items()}
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    made_from = {"version": VERSION, "files": files, "settings": settings}
    return made_from if driver else made_from | {"driver": pair.driver}


def animate_all(
    every: Sequence[Pair],
    config: AnimateConfig,
    *,
    num_workers: int | None = None,
    ray: str | bool = False,
    signer: tuple[Path, Path] | None = None,
    force: bool = False,
    progress: PairProgress | None = None,
) -> Generator[Outcome]:
    """What became of each pair, in order.

    Args:
        every: from pairs.
        config: the same for all.
        num_workers: processes; 0 makes one video after another in this one. None: one for every two cores.
        ray: spread the work over Ray: True for one of this machine, an address for that cluster, whose machines see all
            files under the same paths.
        signer: files of certificate and key; each computer signs with its own if None.
        force: replace what is there.
        progress: of a video that is made in this process: the pair, frames done, and of all, if that is known.

    Raises:
        InputError: if nothing can be made at all.
    """
    if num_workers is not None and num_workers < 0:
        raise InputError(f"--workers {num_workers}: give a number of processes, or 0 for this one.")
    if num_workers is None and not ray:
        num_workers = max(1, (os.cpu_count() or 1) // CORES_PER_VIDEO)
        num_workers = 0 if num_workers == 1 else num_workers
    out = every[0].out.parent
    # What all have in common is checked before a folder is made.
    check_backdrop(config.background)
    if signer is None and not ray:
        Credentials.local()
    if len({pair.driver for pair in every}) == 1:
        opened_driver(every[0].driver, config)
    if len({pair.photo for pair in every}) == 1:
        _avatar(every[0].photo, config.face)
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"-o {out}: the folder cannot be made ({error.strerror}); give another one.") from None
    num_good = 0
    try:
        with _record(out) as (file, known):
            asked = {pair: _made_from(pair, config) for pair in every}
            there = {
                pair for pair in every if not force and pair.out.exists() and known.get(pair.out.name) == asked[pair]
            }
            # A task that Ray does again, because its machine was lost, may find the file that it has made itself.
            free = {pair for pair in every if not pair.out.exists()} if ray else set()
            jobs = [_Job(pair, config, signer, force or pair in free) for pair in every if pair not in there]
            with closing(_job_results(jobs, num_workers, ray, progress)) as results:
                for pair in every:
                    if pair in there:
                        outcome = Outcome(pair)
                    else:
                        outcome = _outcome(pair, next(results))
                    if outcome.report is not None:
                        file.write(json.dumps({"out": pair.out.name, "made_from": asked[pair]}) + "\n")
                        file.flush()
                    num_good += outcome.reason is None
                    yield outcome
    finally:
        if is_new and not num_good:
            (out / ANIMATED_NAME).unlink(missing_ok=True)
            if not any(out.iterdir()):  # else somebody else has put a file there
                out.rmdir()


def _outcome(pair: Pair, result: Report | str | workers.Lost) -> Outcome:
    if isinstance(result, Report):
        return Outcome(pair, report=result)
    if isinstance(result, workers.Lost):
        return Outcome(pair, reason=f"its worker was lost: {result.detail}.")
    return Outcome(pair, reason=result)


def _job_results(
    jobs: Sequence[_Job],
    num_workers: int | None,
    ray: str | bool,
    progress: PairProgress | None,
) -> Generator[Report | str | workers.Lost]:
    if ray:
        address = ray if isinstance(ray, str) else None
        yield from workers.ray_results(
            _work, jobs, address=address, num_workers=num_workers, timeout_s=_VIDEO_TIMEOUT_S, cores=CORES_PER_VIDEO
        )
    elif num_workers:
        yield from workers.pool_results(_work, jobs, num_workers, stall_s=_STALL_S)
    else:
        for job in jobs:
            yield _attempt(job, functools.partial(_tell_pair, progress, job.pair))


def _tell_pair(progress: PairProgress | None, pair: Pair, stage: str, done: int, total: int | None) -> None:
    if progress is not None and stage == "animate":
        progress(pair, done, total)
