"""Batches: a video for each pair of photo and driver, sequentially, in several processes, or on a Ray cluster.

If a pair fails, its reason is recorded and the others are rendered. animated.jsonl in the output folder records the
finished files and their inputs; rerun the command to resume.
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
from mimik.face.landmarks import process_landmarker
from mimik.files import check_folder, hold
from mimik.media.formats import PHOTO_SUFFIXES
from mimik.motion.drivers import registry
from mimik.motion.kinds import is_folder_of_drivers
from mimik.pipeline import Progress
from mimik.provenance.credentials import Credentials
from mimik.provenance.outputs import check_output
from mimik.rendering.scene.matte import check_backdrop

log = logging.getLogger(__name__)

ANIMATED_NAME = "animated.jsonl"
CORES_PER_VIDEO = 2  # used by the threads of one video
_STALL_S = 600.0  # timeout without a new frame: longer than compiling a model or signing a file takes
_VIDEO_TIMEOUT_S = 24 * 3600.0  # timeout of one video under Ray, which has no heartbeat per frame


class Pair(NamedTuple):
    """A video to render: photo, driver, and output file."""

    photo: Path
    driver: str
    out: Path


PairProgress = Callable[[Pair, int, int | None], None]  # frames done, and of all


@dataclass(frozen=True)
class Outcome:
    """Result of a pair: a report if rendered, a reason if failed, neither if an earlier run rendered it."""

    pair: Pair
    report: Report | None = None
    reason: str | None = None


class _Job(NamedTuple):
    """A task for a worker; signer: files of certificate and key, None: those of its computer."""

    pair: Pair
    config: AnimateConfig
    signer: tuple[Path, Path] | None
    force: bool


def pairs(photo: Path, driver: str, out: Path) -> list[Pair]:
    """Each photo with each driver, in the order of their names.

    Args:
        photo: a photo, or a folder of photos.
        driver: as in registry.open_driver, or a folder of files with one of registry.suffixes().
        out: folder of the videos, which are named PHOTO.mp4 (several photos), DRIVER.mp4 (several drivers) or
            PHOTO_DRIVER.mp4 (both).

    Raises:
        InputError: if a folder has no usable files, out is not a folder, or two videos would have the same name.
    """
    many_photos, many_drivers = photo.is_dir(), is_folder_of_drivers(driver)
    photos = _files(photo, PHOTO_SUFFIXES) if many_photos else [photo]
    drivers = [str(path) for path in _files(Path(driver), registry.suffixes())] if many_drivers else [driver]
    if not photos:
        raise InputError(f"{photo} contains no photos; use a folder with {', '.join(PHOTO_SUFFIXES)} files.")
    if not drivers:
        suffixes = ", ".join(registry.suffixes())
        raise InputError(f"driver {driver}: is a folder without drivers; use one with {suffixes} files, or a file.")
    for folder, what in [(photo, "photos")] * many_photos + [(Path(driver), "drivers")] * many_drivers:
        if out.suffix and not out.is_dir():
            raise InputError(f"-o {out}: {folder} is a folder of {what}; use a folder for the videos as well.")
        if out.exists() and not out.is_dir():
            raise InputError(f"-o {out}: is a file; use a folder for the videos.")
        check_folder("-o", out)
        if out.resolve() == folder.resolve():
            raise InputError(f"-o {out}: is the folder of the {what}; use another one for the videos.")
    of_photo = dict(zip(photos, _names(photos), strict=True))
    of_driver = dict(zip(drivers, _names([Path(path) for path in drivers]), strict=True))

    def file(photo: Path, driver: str) -> Path:
        parts = [of_photo[photo]] * many_photos + [of_driver[driver]] * many_drivers
        return out / f"{'_'.join(parts)}.mp4"

    every: dict[Path, Pair] = {}
    for pair in (Pair(one, other, file(one, other)) for one in photos for other in drivers):
        same = every.setdefault(pair.out, pair)
        if same is not pair:
            raise InputError(
                f"{same.photo} with {same.driver}, and {pair.photo} with {pair.driver}: both would be {pair.out}; "
                "rename a photo or a driver."
            )
    return list(every.values())


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Usable files of a folder, without hidden ones such as the ._a.jpg that macOS adds beside a.jpg."""
    every = (path for path in folder.iterdir() if path.name[0] != ".")
    return sorted(path for path in every if path.suffix.lower() in suffixes and path.is_file())


def _names(paths: Sequence[Path]) -> list[str]:
    """Names of the output files: without suffix, unless only the suffix distinguishes them."""
    counts = Counter(path.stem for path in paths)
    return [path.stem if counts[path.stem] == 1 else path.name for path in paths]


def _avatar(photo: Path, face: int | None) -> Avatar:
    """The person; cached for consecutive drivers."""
    stat = photo.stat() if photo.exists() else None
    return _read_avatar(photo, face, (stat.st_size, stat.st_mtime_ns) if stat else None)


@functools.lru_cache(maxsize=1)
def _read_avatar(photo: Path, face: int | None, version: tuple[int, int] | None) -> Avatar:
    return Avatar.from_photos([photo], face=face, landmarker=process_landmarker())


def _render(job: _Job, progress: Progress) -> Report:
    """Render one video. Raises InputError if that is impossible."""
    pair, config = job.pair, job.config
    driver = opened_driver(pair.driver, config)
    check_output(pair.out, force=job.force, inputs=[pair.photo, *([driver.path] if driver.path else [])])
    credentials = Credentials.from_files(*job.signer) if job.signer else None
    avatar = _avatar(pair.photo, config.face)
    return avatar.render(driver, pair.out, config=config, force=job.force, credentials=credentials, progress=progress)


def _run_job(job: _Job, beat: workers.Beat) -> Report | str:
    """Render one video; returns its report, or the reason of a failure."""
    return _try_job(job, lambda stage, done, total: beat())


def _try_job(job: _Job, progress: Progress) -> Report | str:
    try:
        return _render(job, progress)
    except InputError as error:
        return str(error)
    except Exception as error:  # one bad pair must not end the others
        log.debug("%s", job.pair, exc_info=True)
        return f"unexpected {type(error).__name__}: {error}"


@contextmanager
def _record(folder: Path) -> Iterator[tuple[IO[str], dict[str, Any]]]:
    """Open and lock a folder's record for appending; also returns its content: the inputs of each file."""
    path = folder / ANIMATED_NAME
    held = hold(path, "a+")
    if held is None:
        raise InputError(f"-o {folder}: another run is writing there; wait for it, or use another folder.")
    with held as file:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]  # the last line is incomplete if a run was killed
        os.truncate(path, len(whole))
        known = {}
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                known[entry["out"]] = entry["made_from"]
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{path} is damaged; remove it, and pass --force or use another folder.") from None
        yield file, known


def _inputs_of(pair: Pair, config: AnimateConfig) -> dict[str, Any]:
    """Everything that determines a video's content."""
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
    """Render all pairs; yields the outcome of each, in order.

    Args:
        every: result of pairs.
        config: the same for all.
        num_workers: processes; 0: sequentially in this process. None: one per two cores.
        ray: use Ray: True: on this machine; an address: on that cluster, whose machines must see all files under the
            same paths.
        signer: files of certificate and key; None: each computer signs with its own.
        force: replace existing files.
        progress: of videos rendered in this process: the pair, completed frames, and the total or None if unknown.

    Raises:
        InputError: if no video can be rendered at all.
    """
    if num_workers is not None and num_workers < 0:
        raise InputError(f"--workers {num_workers}: use a number of processes, or 0 to work in this process.")
    if num_workers is None and not ray:
        num_workers = max(1, (os.cpu_count() or 1) // CORES_PER_VIDEO)
        num_workers = 0 if num_workers == 1 else num_workers
    out = every[0].out.parent
    # Check what all pairs have in common before creating a folder.
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
        raise InputError(f"-o {out}: the folder cannot be created ({error.strerror}); use another one.") from None
    num_good = 0
    try:
        with _record(out) as (file, known):
            inputs = {pair: _inputs_of(pair, config) for pair in every}
            existing = {
                pair for pair in every if not force and pair.out.exists() and known.get(pair.out.name) == inputs[pair]
            }
            # A task that Ray repeats after losing a machine may find its own output file.
            free = {pair for pair in every if not pair.out.exists()} if ray else set()
            jobs = [_Job(pair, config, signer, force or pair in free) for pair in every if pair not in existing]
            with closing(_job_results(jobs, num_workers, ray, progress)) as results:
                for pair in every:
                    if pair in existing:
                        outcome = Outcome(pair)
                    else:
                        outcome = _outcome(pair, next(results))
                    if outcome.report is not None:
                        file.write(json.dumps({"out": pair.out.name, "made_from": inputs[pair]}) + "\n")
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
            _run_job, jobs, address=address, num_workers=num_workers, timeout_s=_VIDEO_TIMEOUT_S, cores=CORES_PER_VIDEO
        )
    elif num_workers:
        yield from workers.pool_results(_run_job, jobs, num_workers, stall_s=_STALL_S)
    else:
        for job in jobs:
            yield _try_job(job, functools.partial(_report_pair, progress, job.pair))


def _report_pair(progress: PairProgress | None, pair: Pair, stage: str, done: int, total: int | None) -> None:
    if progress is not None and stage == "animate":
        progress(pair, done, total)
