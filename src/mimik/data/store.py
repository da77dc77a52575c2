"""Clips of a folder or a URL of shards: each is read alone, by its byte range.

Training machines may have nothing but torch, numpy and opencv: this module decodes with opencv's own FFmpeg, the one
named exception to "media/ opens media", and imports nothing that needs PyAV, OpenVINO or Pillow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array, Image
from mimik.config import InputError
from mimik.data.cache import FileCache, temporary_folder
from mimik.data.index import ClipInfo, folder_of
from mimik.data.remote import DamagedClipError, fetch, is_url
from mimik.data.tracks import Tracks, unpack_tracks
from mimik.face import landmarks as faces
from mimik.files import memory_folder

log = logging.getLogger(__name__)


_TAR_HEADER = 512  # bytes before a member's data
_SPOOL_MB = 8192  # of whole shards, cached if a server does not support range requests
_SEEK_FRAMES = 30  # a seek in OpenCV takes as long as decoding about this many frames (256 px, measured)


@dataclass(frozen=True)
class ClipFrames:
    """Frames of one clip with their face points."""

    images: Image  # uint8 RGB [N, H, W, 3]
    points: Array  # [N, 478, 3] float32 in pixels of these images


class ClipStore:
    """Reads clips of a folder or a URL of shards, each by its byte range.

    With cache_mb, decoded clips are cached in memory shared by all workers until it is full; a corpus that fits is
    decoded once. Without it, the requested frames are decoded each time.
    """

    def __init__(self, root: str | Path, *, size: int | None = None, cache_mb: float = 0) -> None:
        """Opens nothing yet.

        Args:
            root: the folder, its index.jsonl, or the http(s) or s3 URL of either.
            size: width and height in pixels to which frames are downsampled; None: as stored.
            cache_mb: megabytes of decoded frames to keep in memory (/dev/shm), for this store and its copies in
                workers, until the process ends; 0: none. A clip of 200 frames at 256 px takes 39.

        Raises InputError on impossible numbers.
        """
        if (size is not None and size < 1) or cache_mb < 0:
            raise InputError(f"size {size}, cache_mb {cache_mb}: use a size of 1 px or more and 0 or more megabytes.")
        self.root, _ = folder_of(root)
        self.size = size
        self._newest: tuple[ClipInfo, bytes, Tracks] | None = None
        self._cache = self._spool = None
        if cache_mb > 0:
            self._cache = FileCache(temporary_folder(memory_folder(), self), int(cache_mb * 1e6))
        if is_url(self.root):
            folder = temporary_folder(Path(tempfile.gettempdir()), self)
            self._spool = FileCache(folder, _SPOOL_MB * 1_000_000)

    def read(self, clip: ClipInfo, numbers: Sequence[int] | NDArray[np.int64]) -> ClipFrames:
        """Some frames [N] of a clip of the same root's index, in the requested order.

        Raises:
            DamagedClipError: if the shard's content is not this clip.
            InputError: if the shard cannot be read at all.
        """
        wanted = np.asarray(numbers, np.int64)
        if cached := self._cached(clip):
            with contextlib.suppress(FileNotFoundError), open(cached, "rb", buffering=0) as file:
                return self._from_cache(file, clip, wanted)
        mp4, tracks = self._fetched(clip)
        size = clip.num_frames * sum(self._frame_bytes(clip))
        if self._cache is None or not self._cache.has_room(size):
            return ClipFrames(self._decode(clip, mp4, wanted), tracks.points[wanted])
        images = self._decode(clip, mp4, None)
        with self._cache.add(self._cache_name(clip)) as file:
            for part in (images, tracks.points, tracks.blendshapes, tracks.pose):
                file.write(part.data)
        return ClipFrames(images[wanted], tracks.points[wanted])

    def tracks(self, clip: ClipInfo) -> Tracks:
        """Landmarks, blendshapes and pose of all frames; points in pixels of the frames of read()."""
        if cached := self._cached(clip):
            with contextlib.suppress(FileNotFoundError), open(cached, "rb") as file:
                file.seek(clip.num_frames * self._frame_bytes(clip)[0])
                shapes = (faces.NUM_POINTS, 3), (len(faces.BLENDSHAPES),), (3,)
                lengths = [clip.num_frames * math.prod(shape) for shape in shapes]
                read = (np.fromfile(file, np.float32, length) for length in lengths)
                return Tracks(*(part.reshape(-1, *shape) for part, shape in zip(read, shapes, strict=True)))
        return self._fetched(clip)[1]

    def read_members(self, clip: ClipInfo) -> tuple[bytes, bytes]:
        """The bytes of a clip's .mp4 and .npz, fetched in one piece."""
        spans = {name: (clip.members[name][0], sum(clip.members[name])) for name in ("mp4", "npz")}
        start = min(first for first, _ in spans.values()) - _TAR_HEADER
        stop = max(last for _, last in spans.values())
        data = self._read_range(clip, max(start, 0), stop)
        for name, (first, _) in spans.items():
            header = data[max(first - start - _TAR_HEADER, 0) : first - start]
            if start < 0 or header[:100].rstrip(b"\0") != f"{clip.key}.{name}".encode():
                raise self._damaged(clip, f"its {name} is not at byte {first}: the index is not that of this shard")
        mp4, npz = (data[first - start : last - start] for first, last in spans.values())
        return mp4, npz

    def side_of(self, clip: ClipInfo) -> int:
        if self.size is None or self.size == clip.size:
            return clip.size
        if self.size > clip.size:
            raise InputError(f"size {self.size}, but clip {clip.key} has {clip.size} px; use {clip.size} or less.")
        return self.size

    def _frame_bytes(self, clip: ClipInfo) -> tuple[int, int]:
        """Cache size of a frame: its picture and its tracks."""
        return 3 * self.side_of(clip) ** 2, 4 * (3 * faces.NUM_POINTS + len(faces.BLENDSHAPES) + 3)

    def _cache_name(self, clip: ClipInfo) -> str:
        what = f"{clip.to_json()} {self.side_of(clip)}"
        return hashlib.sha256(what.encode()).hexdigest()[:40]

    def _cached(self, clip: ClipInfo) -> Path | None:
        return self._cache.find(self._cache_name(clip)) if self._cache is not None else None

    def _from_cache(self, file: Any, clip: ClipInfo, wanted: NDArray[np.int64]) -> ClipFrames:
        side = self.side_of(clip)
        images = np.empty((len(wanted), side, side, 3), np.uint8)
        points = np.empty((len(wanted), faces.NUM_POINTS, 3), np.float32)
        known = clip.num_frames * self._frame_bytes(clip)[0]
        for row, number in enumerate(wanted.tolist()):
            for part, start in ((images[row], 0), (points[row], known)):
                file.seek(start + number * part.nbytes)
                file.readinto(part.data)
        return ClipFrames(images, points)

    def _fetched(self, clip: ClipInfo) -> tuple[bytes, Tracks]:
        """The .mp4 and the tracks; the newest clip is cached, because its frames are usually requested next."""
        if self._newest is None or self._newest[0] != clip:
            mp4, npz = self.read_members(clip)
            self._newest = clip, mp4, self._tracks(clip, npz)
        return self._newest[1:]

    def _damaged(self, clip: ClipInfo, what: str) -> DamagedClipError:
        return DamagedClipError(
            f"clip {clip.key} in {self.root}/{clip.shard} is damaged: {what}. Download or prepare the shard again,"
            " or train with damaged clips left out (skip_damaged)."
        )

    def _tracks(self, clip: ClipInfo, npz: bytes) -> Tracks:
        try:
            tracks = unpack_tracks(npz)
        except InputError as error:
            raise self._damaged(clip, str(error).rstrip(".")) from error
        if len(tracks.points) != clip.num_frames:
            raise self._damaged(clip, f"landmarks of {len(tracks.points)} frames, {clip.num_frames} in the index")
        if self.side_of(clip) == clip.size:
            return tracks
        return dataclasses.replace(tracks, points=tracks.points * np.float32(self.side_of(clip) / clip.size))

    def _read_range(self, clip: ClipInfo, start: int, stop: int) -> bytes:
        where = f"{self.root}/{clip.shard}"
        if self._spool is not None:
            path = self._spool.find(clip.shard)
            if path is None:
                data = fetch(where, start, stop)
                if data is not None:
                    return data
                path = self._whole_shard(clip.shard, where)
        else:
            path = Path(where)
        try:
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read(stop - start)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): put its shards beside the index.") from error
        if len(data) != stop - start:
            raise self._damaged(clip, f"the shard ends at byte {start + len(data)}, before byte {stop}")
        return data

    def _whole_shard(self, name: str, url: str) -> Path:
        """A whole shard, downloaded once, from a server without range requests."""
        assert self._spool is not None
        log.warning("the server of %s cannot send parts of a file: downloading whole shards", url)
        with self._spool.add(name) as file:
            fetch(url, file=file)
        path = self._spool.find(name)
        if path is None:
            raise InputError(
                f"{url}: not enough space for whole shards in {tempfile.gettempdir()}; download them yourself."
            )
        return path

    def _decode(self, clip: ClipInfo, mp4: bytes, wanted: NDArray[np.int64] | None) -> Image:
        """Frames of an .mp4 in the order asked for, or all; reduced to the store's size."""
        side = self.side_of(clip)
        order = np.arange(clip.num_frames) if wanted is None else np.unique(wanted)
        out = np.empty((len(order), side, side, 3), np.uint8)
        with _file_in_memory(mp4) as path:
            # One thread: the workers are the parallelism, and more would make the first frame wait.
            video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
            try:
                count = round(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
                if count != clip.num_frames:
                    raise self._damaged(clip, f"video of {count} frames, {clip.num_frames} in the index")
                at = 0  # the frame that the decoder gives next
                for i, number in enumerate(order.tolist()):
                    if number - at > _SEEK_FRAMES:
                        video.set(cv2.CAP_PROP_POS_FRAMES, number)
                        at = number
                    while at < number and video.grab():
                        at += 1
                    good, frame = video.read()
                    if not good or frame.shape != (clip.size, clip.size, 3):
                        got = "no picture" if not good else f"a picture of {frame.shape[1]}x{frame.shape[0]}"
                        raise self._damaged(clip, f"{got} at frame {number}")
                    at += 1
                    if side != clip.size:
                        frame = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
                    cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=out[i])
            finally:
                video.release()
        return out if wanted is None else out[np.searchsorted(order, wanted)]


@contextlib.contextmanager
def _file_in_memory(data: bytes) -> Iterator[str]:
    """A path under which opencv can open data.

    On Linux a file without a name: it needs no room in /dev/shm, which is small in containers, and is never left over.
    """
    if sys.platform == "linux":
        number = os.memfd_create("mimik")
        with os.fdopen(number, "wb") as file:  # a single os.write may stop before the end
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{number}"
        return
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        path = Path(folder, "clip.mp4")
        path.write_bytes(data)
        yield str(path)
