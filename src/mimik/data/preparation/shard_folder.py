"""The folder of shards: clips are appended and committed, so that an interrupted run loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mimik.config import InputError
from mimik.data.preparation.settings import Clip
from mimik.files import DRAFT_SUFFIX, atomic_write, hold

UNKNOWN_PERSON = (
    "unknown"  # the person until clustering; as long as the names that it gives, so lines keep their length
)
CONFIG_NAME = "config.json"  # in every folder of shards
_COMMIT_S = 2.0


def to_line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(", ", ": ")).encode() + b"\n"


def read_records(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        return [json.loads(line) for line in file]


def write_synced(path: Path, data: bytes) -> None:
    """Write a file atomically and durably."""
    with atomic_write(path, suffix=DRAFT_SUFFIX, durable=True) as draft:
        draft.write_bytes(data)


def _open_at(path: Path, size: int) -> IO[bytes]:
    """Open a file for appending, truncated to its committed size."""
    if not path.exists():
        path.touch()
    there = path.stat().st_size
    if there < size:
        raise InputError(f"{path} is shorter than state.json says, so the folder is damaged; use a new folder.")
    file = path.open("r+b")
    if there > size:
        file.truncate(size)
    file.seek(size)
    return file


class ShardFolder:
    """The folder of shards: appends clips, and commits.

    state.json records what is committed: the number of the open shard, and the committed size of each file. Opening the
    folder truncates everything beyond. An open shard is clips-NNNNNN.tar.part with its index lines beside it; when it
    is full, it is renamed, and its lines are appended to index.jsonl.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], shard_bytes: int) -> None:
        self.folder, self._shard_bytes = folder, shard_bytes
        self._lock = self._lock_folder()
        self._check_config(config)
        for path in folder.glob(".work-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in folder.glob(f".*-*{DRAFT_SUFFIX}"):  # of a run that was killed while it wrote one
            path.unlink(missing_ok=True)
        self._committed_s, self._is_dirty = 0.0, False
        self._reopen()

    def _lock_folder(self) -> IO[str]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = hold(self.folder / ".lock")
        except OSError as error:
            raise InputError(f"-o {self.folder}: is not writable ({error.strerror}); use another folder.") from error
        if lock is None:
            raise InputError(f"-o {self.folder}: another run is writing there; wait for it, or use another folder.")
        return lock

    def _reopen(self) -> None:
        """Opens all files at their committed ends."""
        state = {"shard": 0, "tar": 0, "lines": 0, "index": 0, "rejected": 0, "done": 0}
        if (self.folder / "state.json").exists():
            state = json.loads((self.folder / "state.json").read_text())
        self._shard = int(state["shard"])
        self._drop_uncommitted()
        if self._path("tar").exists():  # it was closed after the last commit
            os.replace(self._path("tar"), self._path("tar.part"))
        self._tar = _open_at(self._path("tar.part"), state["tar"])
        self._lines = _open_at(self._path("jsonl.part"), state["lines"])
        self._index = _open_at(self.folder / "index.jsonl", state["index"])
        self._rejected = _open_at(self.folder / "rejected.jsonl", state["rejected"])
        self._done = _open_at(self.folder / "done.jsonl", state["done"])

    def _path(self, suffix: str) -> Path:
        return self.folder / f"clips-{self._shard:06d}.{suffix}"

    def _check_config(self, config: Mapping[str, Any]) -> None:
        path = self.folder / CONFIG_NAME
        if not path.exists():
            write_synced(path, json.dumps(config, indent=2).encode() + b"\n")
            return
        try:
            old = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path} is damaged; use a new folder.") from error
        differ = sorted(name for name in {*old, *config} if old.get(name) != config.get(name))
        if differ:
            name = differ[0]
            raise InputError(
                f"-o {self.folder}: was made with {name} {old.get(name)}, not {config.get(name)}; use the same "
                "settings or a new folder."
            )

    def _drop_uncommitted(self) -> None:
        for path in self.folder.glob("clips-*"):
            number = path.name.removeprefix("clips-")[:6]
            if not number.isdigit():
                continue
            if int(number) > self._shard or (int(number) < self._shard and path.suffix == ".part"):
                path.unlink()

    def entries(self) -> list[dict[str, Any]]:
        """Index lines of all clips, in order; those of the open shard too."""
        self._flush()
        return read_records(self.folder / "index.jsonl") + read_records(self._path("jsonl.part"))

    def done(self) -> dict[str, dict[str, Any]]:
        """Finished videos by the names of their sources."""
        self._flush()
        return {record["source"]: record for record in read_records(self.folder / "done.jsonl")}

    def add_clip(self, entry: Mapping[str, Any], clip: Clip) -> None:
        """Appends a clip; entry is its index line without its place."""
        if self._tar.tell() >= 2 * self._shard_bytes:  # within one long video
            self._close_shard()
        members = {}
        for name, data in (("mp4", clip.mp4), ("npz", clip.npz), ("json", to_line(entry))):
            info = tarfile.TarInfo(f"{entry['key']}.{name}")
            info.size, info.mode = len(data), 0o644
            self._tar.write(info.tobuf(tarfile.USTAR_FORMAT))
            members[name] = [self._tar.tell(), len(data)]
            self._tar.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        place = {"shard": self._path("tar").name, "members": members}
        self._lines.write(to_line({"key": entry["key"], **place, **entry}))

    def add_rejection(self, record: Mapping[str, Any]) -> None:
        self._rejected.write(to_line(record))

    def finish_video(self, record: Mapping[str, Any]) -> None:
        """All of a video was added; from here on it may be committed, and sometimes is."""
        self._done.write(to_line(record))
        self._is_dirty = True
        if self._tar.tell() >= self._shard_bytes:
            self._close_shard()
            self.commit()
        elif time.monotonic() - self._committed_s >= _COMMIT_S:
            self.commit()

    def _flush(self) -> None:
        for file in (self._tar, self._lines, self._index, self._rejected, self._done):
            file.flush()

    def commit(self) -> None:
        """Commit everything so far atomically."""
        self._flush()
        files = {"tar": self._tar, "lines": self._lines, "index": self._index}
        files |= {"rejected": self._rejected, "done": self._done}
        for file in files.values():
            os.fsync(file.fileno())
        state = {"shard": self._shard, **{name: file.tell() for name, file in files.items()}}
        write_synced(self.folder / "state.json", json.dumps(state).encode() + b"\n")
        self._drop_uncommitted()
        self._committed_s, self._is_dirty = time.monotonic(), False

    def _close_shard(self) -> None:
        """Gives the open shard its name and its lines to the index; counts with the next commit."""
        self._tar.write(bytes(2 * tarfile.BLOCKSIZE))
        self._tar.flush()
        os.fsync(self._tar.fileno())
        self._tar.close()
        os.replace(self._path("tar.part"), self._path("tar"))
        self._lines.close()
        self._index.write(self._path("jsonl.part").read_bytes())
        self._shard += 1
        self._tar, self._lines = _open_at(self._path("tar.part"), 0), _open_at(self._path("jsonl.part"), 0)

    def finish(self) -> None:
        """Commits, and closes the last shard."""
        if self._is_dirty:
            self.commit()
        if self._tar.tell():
            self._close_shard()
            self.commit()

    def rewrite_index(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Replaces the index, whose lines keep their lengths, in one step."""
        self._index.flush()
        data = b"".join(map(to_line, entries))
        assert len(data) == self._index.tell(), "the lines of the index changed length"
        self._index.close()
        write_synced(self.folder / "index.jsonl", data)
        self._index = _open_at(self.folder / "index.jsonl", len(data))

    def close(self) -> None:
        """Lets go of the files; what was not committed is dropped when the folder is opened again."""
        for file in (self._tar, self._lines, self._index, self._rejected, self._done):
            with suppress(OSError):
                file.close()
        for suffix in ("tar.part", "jsonl.part"):  # nothing in them: no reader need wonder about them
            path = self._path(suffix)
            with suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()
        self._lock.close()
