"""Talking videos and pictures of faces -> shards: what meta-learning reads.

    videos ──► shots ──► tracks of faces ──► pieces ──► judged ──► cropped, encoded ──► tar shards + index
               └──────── first reading ─────────────────────────┘ └ second reading ┘   └── one writer ──┘

A video is read by two concurrent readers. The first tracks faces and decides which pieces are kept and how they are
cropped. The second follows some seconds behind and crops them. Memory therefore does not grow with the length.

Videos are distributed over worker processes or a Ray cluster. Results are returned in the order of the inputs, and one
process writes them. Completed videos are committed atomically by replacing state.json: a killed run resumes from its
last commit, and its result is byte-identical to that of an uninterrupted run.

A picture is a video of one frame.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mimik import workers
from mimik.config import VERSION, InputError, counted, install_command
from mimik.data.preparation.clips import UnwritableError, prepare_video
from mimik.data.preparation.duplicates import Fingerprints
from mimik.data.preparation.overview import PrepareReport, contact_sheet, dataset_card, frontal_frames
from mimik.data.preparation.settings import SOURCE_SUFFIXES, Clip, PrepareConfig, Reason, Rejection, VideoResult
from mimik.data.preparation.shard_folder import CONFIG_NAME, UNKNOWN_PERSON, ShardFolder, read_records, write_synced
from mimik.data.preparation.sources import Embed, Source, choose_people, cluster_people, find_sources
from mimik.face.landmarks import process_landmarker
from mimik.files import check_folder
from mimik.provenance.credentials import Credentials
from mimik.provenance.manifests import Claim
from mimik.provenance.sealing import seal

log = logging.getLogger(__name__)


class VideoTask(NamedTuple):
    """A task for a worker; spool: file for the clips, which need not fit into memory."""

    path: Path
    config: PrepareConfig
    spool: Path | None


def _do_task(task: VideoTask, beat: workers.Beat) -> VideoResult:
    if task.spool is None:
        return prepare_video(task.path, task.config, beat=beat)
    try:
        with task.spool.open("wb") as file:

            def store(clip: Clip) -> None:
                try:
                    pickle.dump(clip, file)
                    file.flush()
                except OSError as error:
                    raise UnwritableError(error.strerror) from error

            return prepare_video(task.path, task.config, on_clip=store, beat=beat)
    except (OSError, UnwritableError) as error:
        return VideoResult((), (), unwritable=getattr(error, "strerror", None) or str(error))


def _clips(result: VideoResult, task: VideoTask) -> Iterator[Clip]:
    """The clips of a finished task; the spool, which only this program wrote, is deleted afterwards."""
    yield from result.clips
    if task.spool is not None and task.spool.exists():
        with task.spool.open("rb") as file:
            while file.peek(1):
                yield pickle.load(file)
        task.spool.unlink()


def _results(
    tasks: Sequence[VideoTask], cores: int, ray: str | bool, stall_s: float
) -> Generator[VideoResult | workers.Lost]:
    """The result of each task, in order."""
    if not ray:
        return workers.pool_results(_do_task, tasks, cores, stall_s=stall_s, warm_up=process_landmarker)
    address = ray if isinstance(ray, str) else None
    return workers.ray_results(_do_task, tasks, address=address, num_workers=cores, timeout_s=48 * stall_s)


def _result_of_lost(lost: workers.Lost, task: VideoTask) -> VideoResult:
    """The result of a video whose worker was lost."""
    if task.spool is not None:
        task.spool.unlink(missing_ok=True)  # its content may be truncated
    reason = Reason.WORKER_DIED if lost.cause is workers.Cause.DIED else Reason.TIMED_OUT
    return VideoResult((), (Rejection(reason, lost.detail),))


@dataclass(frozen=True)
class PrepareProgress:
    """Progress of a run; done includes videos of earlier runs, the rate does not."""

    done: int  # videos
    total: int
    kept: int  # clips
    rejected: int  # tracks and videos
    footage_s: float  # read by this run
    elapsed_s: float

    @property
    def rate(self) -> float:
        """Seconds of video per second."""
        return self.footage_s / self.elapsed_s if self.elapsed_s > 0 else 0.0


def prepare(
    inputs: Sequence[Path],
    out: Path,
    config: PrepareConfig | None = None,
    *,
    people: str | None = None,
    manifest: Path | None = None,
    num_workers: int | None = None,
    ray: str | bool = False,
    stall_s: float = 300.0,
    embed: Embed | None = None,
    credentials: Credentials | None = None,
    progress: Callable[[PrepareProgress], None] | None = None,
) -> PrepareReport:
    """Prepare videos and pictures into a folder of shards; resumes an interrupted run.

    Args:
        inputs: videos, pictures, and folders of them.
        out: the folder; made if it does not exist.
        config: settings of the content; must equal those of existing shards.
        people: one of PEOPLE; None chooses: manifest if there is one, folders, clustering where torch is installed.
        manifest: CSV with columns clip or path, person, license.
        num_workers: processes; None: one per core; 0: this process, where a crash ends the run.
        ray: True: a Ray cluster on this machine; an address: that cluster.
        stall_s: seconds without a frame after which a worker is killed and its video rejected; under Ray, the limit is
            48 times as long for a whole video.
        embed: maps faces to embeddings for clustering; None: features.FaceNet().embed_faces.
        credentials: signing key and certificate for the contact sheet.
        progress: called after every video.

    Raises:
        InputError: if an input cannot be used, the settings differ from those of existing shards, or the disk is full;
            committed content is kept.
    """
    config = config or PrepareConfig()
    start = time.perf_counter()
    check_folder("-o", out, mark=CONFIG_NAME, of="shards to continue")
    sources, people, said = choose_people(find_sources(inputs, skip=out, suffixes=SOURCE_SUFFIXES), people, manifest)
    log.info("%s", said)
    if people == "cluster" and embed is None:
        _face_net()  # before the videos are read
    if num_workers is not None and num_workers < 0:
        raise InputError(f"--workers {num_workers}: use a number of processes, or 0 to work in this process.")
    cores = num_workers if num_workers is not None else os.cpu_count() or 1
    credentials = credentials or Credentials.local()  # check signing before the videos are read
    output = ShardFolder(out, {"version": VERSION, "people": people, **asdict(config)}, config.shard_mb * 1_000_000)
    try:
        with closing(_Preparation(output, config, people)) as run:
            num_new = run.videos(sources, cores, ray, stall_s, progress)
            if people == "cluster":
                run.name_people(embed)
            report = run.report(num_new)
            report.notes.insert(0, said)
            report.num_workers = cores
            report.seconds = round(time.perf_counter() - start, 2)
            run.report_progress(report, credentials)
            return report
    except OSError as error:
        raise InputError(
            f"-o {out}: is not writable ({error.strerror or error}); finished work is kept. Free some space "
            "and rerun the same command to resume."
        ) from error


def _face_net() -> type[Any]:
    """FaceNet, which needs torch. Raises InputError if torch is not installed."""
    try:
        from mimik.networks.features import FaceNet
    except ImportError as error:
        raise InputError(
            f"--people cluster needs torch; install it with: {install_command('train')}, or pass --people clip."
        ) from error
    return FaceNet


class _Preparation:
    """One call of prepare() on one folder."""

    def __init__(self, output: ShardFolder, config: PrepareConfig, people: str) -> None:
        self._output, self._config, self._people = output, config, people
        self._known = Fingerprints()
        self._num_kept = self._num_rejected = 0
        for entry in output.entries():
            self._known.add(entry["key"], entry["fingerprint"])
        self._notes: list[str] = []

    def close(self) -> None:
        self._output.close()

    def videos(
        self,
        sources: Sequence[Source],
        cores: int,
        ray: str | bool,
        stall_s: float,
        progress: Callable[[PrepareProgress], None] | None,
    ) -> int:
        """Process the remaining sources; returns their number."""
        start = time.perf_counter()
        done = self._output.done()
        todo = [source for source in sources if source.name not in done]
        self._note_changed(sources, done)
        if not todo:
            self._output.finish()  # the last shard is open after a kill just before this
            return 0
        num_before, footage_s = len(sources) - len(todo), 0.0
        with tempfile.TemporaryDirectory(prefix=".work-", dir=self._output.folder) as folder:
            spools = [None if ray or cores == 0 else Path(folder, f"{i}.clips") for i in range(len(todo))]
            tasks = [VideoTask(s.path, self._config, spool) for s, spool in zip(todo, spools, strict=True)]
            with closing(_results(tasks, cores, ray, stall_s)) as results:
                for number, (source, task, result) in enumerate(zip(todo, tasks, results, strict=True), start=1):
                    if isinstance(result, workers.Lost):
                        result = _result_of_lost(result, task)
                    if result.unwritable is not None:
                        raise OSError(errno.ENOSPC, result.unwritable)
                    self._add(source, task, result)
                    footage_s += result.footage_s
                    if progress is not None:
                        elapsed_s = time.perf_counter() - start
                        kept, rejected = self._num_kept, self._num_rejected
                        progress(
                            PrepareProgress(num_before + number, len(sources), kept, rejected, footage_s, elapsed_s)
                        )
        self._output.finish()
        return len(todo)

    def _note_changed(self, sources: Sequence[Source], done: Mapping[str, Mapping[str, Any]]) -> None:
        changed = []
        for source in sources:
            if source.name in done:
                with suppress(OSError):
                    if source.path.stat().st_size != done[source.name]["size_bytes"]:
                        changed.append(source.name)
        if changed:
            self._notes.append(
                f"changed since they were prepared: {counted(len(changed), 'video')}, such as {changed[0]}; the clips "
                "of the old ones stay. Prepare them into a new folder to replace them."
            )

    def _add(self, source: Source, task: VideoTask, result: VideoResult) -> None:
        origin = {"source": source.name, "source_sha256": result.sha256}
        num_kept = 0
        rejections = list(result.rejections)
        for number, clip in enumerate(_clips(result, task)):
            key = f"{source.key}_{number:02d}"
            twin = self._known.find(clip.info["fingerprint"])
            if twin is not None:
                start_s, end_s = clip.info["start_s"], clip.info["end_s"]
                rejections.append(Rejection(Reason.DUPLICATE, f"shows the same as {twin}", start_s, end_s))
                continue
            self._known.add(key, clip.info["fingerprint"])
            person = source.person or (UNKNOWN_PERSON if self._people == "cluster" else key)
            self._output.add_clip(
                {"key": key, "person": person, **origin, "licence": source.license, **clip.info}, clip
            )
            num_kept += 1
        for rejection in rejections:
            self._output.add_rejection({**origin, **asdict(rejection)})
        self._num_kept += num_kept
        self._num_rejected += len(rejections)
        try:
            stat: os.stat_result | None = source.path.stat()
        except OSError:
            stat = None
        self._output.finish_video(
            {
                "source": source.name,
                "size_bytes": stat.st_size if stat else None,
                "mtime_ns": stat.st_mtime_ns if stat else None,
                "num_kept": num_kept,
                "num_rejected": len(rejections),
                "footage_s": result.footage_s,
                "seconds": result.seconds,
            }
        )

    def name_people(self, embed: Embed | None) -> None:
        """Clusters the clips' faces, unless all have been; embeddings are biometric data and are not kept."""
        entries = self._output.entries()
        if all(entry["person"] != UNKNOWN_PERSON for entry in entries):
            return
        embed = embed or _face_net()().embed_faces
        means = [embed(*frontal_frames(self._output.folder, entry)).mean(0) for entry in entries]
        numbers = cluster_people(np.array(means, np.float32))
        for entry, number in zip(entries, numbers, strict=True):
            entry["person"] = f"p{number:06d}"
        self._output.rewrite_index(entries)

    def report(self, num_new: int) -> PrepareReport:
        folder = self._output.folder
        entries, done = self._output.entries(), self._output.done().values()
        reasons = Counter(record["reason"] for record in read_records(folder / "rejected.jsonl"))
        shards = sorted({entry["shard"] for entry in entries})
        return PrepareReport(
            out=str(folder),
            num_videos=len(done),
            num_new=num_new,
            num_clips=len(entries),
            num_stills=sum(entry["num_frames"] == 1 for entry in entries),
            num_frames=sum(entry["num_frames"] for entry in entries),
            num_people=len({entry["person"] for entry in entries}),
            num_shards=len(shards),
            num_bytes=sum((folder / shard).stat().st_size for shard in shards),
            footage_hours=round(sum(record["footage_s"] for record in done) / 3600, 4),
            kept_hours=round(sum(n / entry["fps"] for entry in entries if (n := entry["num_frames"]) > 1) / 3600, 4),
            reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
            people=self._people,
            worker_seconds=round(sum(record["seconds"] for record in done), 2),
            notes=self._notes,
        )

    def report_progress(self, report: PrepareReport, credentials: Credentials | None) -> None:
        """Writes the card and the contact sheet, unless they exist and nothing is new."""
        folder = self._output.folder
        if report.num_new == 0 and (folder / "README.md").exists():
            report.notes.append("all videos were already prepared; nothing was done")
            return
        entries = self._output.entries()
        write_synced(folder / "README.md", dataset_card(report, entries, self._config).encode())
        if entries:
            path = folder / "contact_sheet.jpg"
            claim = Claim(path.name, "none", ())
            with seal(path, claim, credentials=credentials, force=True) as draft:
                draft.write_image(contact_sheet(folder, entries))
