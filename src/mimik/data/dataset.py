"""Episodes for meta-learning: K source frames and one target frame of one clip, with landmarks, from shards.

Shards are what `mimik prepare` writes: tar files of short H.264 clips and packed landmarks, and an index with the byte
range of everything, on disk or behind a URL. One clip is read without touching its neighbours.

Training machines may have nothing but torch, numpy and opencv: this module decodes with opencv's own FFmpeg, the one
named exception to "video.py opens media", and imports nothing that needs PyAV, OpenVINO or Pillow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import http.client
import io
import json
import logging
import lzma
import math
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mimik.config import InputError
from mimik.face import landmarks as faces
from mimik.face.interior import mouth_interior
from mimik.motion.draw import STYLES, feature_mask, landmark_image
from mimik.networks.features import chip_transform
from mimik.rendering.crop import WINDOW_SCALE, Crop
from mimik.rendering.flow import Warper
from mimik.rendering.painter import Painter

log = logging.getLogger(__name__)

Array = NDArray[np.float32]
Image = NDArray[np.uint8]

INDEX_NAME = "index.jsonl"
MEMBERS = ("mp4", "npz", "json")
TARGETS = ("uniform", "far")

# Packed landmarks.
_PACK_VERSION = 1
_STEPS_PER_PX = 16  # fixed point: an error of at most 1/32 px
_MAX_PX = 2047.0  # what 16 bits hold
_LZMA: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 0, "pb": 0}]
_MAX_PACKED_FRAMES = 1_000_000

_TAR_HEADER = 512  # bytes before a member's data
_SPOOL_MB = 8192  # of whole shards, kept when a server cannot send parts of them
_SEEK_FRAMES = 30  # opencv needs as long for a seek as for decoding about so many frames (256 px, measured)
_DAMAGED_IN_A_ROW = 16  # more than these at random in a corpus that is otherwise sound: there is something else wrong
_FAR_CANDIDATES = 4
_WINDOW_SCALE, _WINDOW_SHIFT = 0.1, 0.04  # how far training's windows are from where they would be, at most
_YAW_SCALE = 15.0  # degrees of head pose that count as much as a blendshape that goes from 0 to 1


class DamagedClipError(InputError):
    """One clip whose bytes cannot be used; the others can."""


@dataclass(frozen=True)
class Tracks:
    """What is known of the face in every frame of a clip.

    Attributes:
        points: [T, 478, 3] float32; x and y in pixels of the crop, counted from the corner of the first pixel, z on the
            same scale.
        blendshapes: [T, 52] float32 in 0..1.
        pose: [T, 3] float32 yaw, pitch, roll in degrees.
    """

    points: Array
    blendshapes: Array
    pose: Array


@dataclass(frozen=True)
class _Wave:
    """Points that are packed at once, none a neighbour of another, and their neighbours that were packed before."""

    points: list[int]
    known: list[int]  # all neighbours of the first point, then of the second, ..
    starts: list[int]  # where each point's neighbours start
    counts: NDArray[np.int32]  # [P, 1] how many they are


@functools.cache
def _waves() -> list[_Wave]:
    """The order in which the 477 points other than the tip of the nose are packed: breadth first over the mesh.

    A ring around the tip has too many points to be predicted from the ring inside it alone (599 bytes a frame), and one
    point after another is slow to unpack; so each ring is done in two or three waves of points that do not touch. The
    irises hang on the upper lids.
    """
    around: list[set[int]] = [set() for _ in range(faces.NUM_MESH_POINTS)]
    for triangle in faces.canonical_mesh().triangles.tolist():
        for point in triangle:
            around[point] |= set(triangle) - {point}
    groups: list[list[int]] = []
    ring, reached, done = {1}, {1}, {1}
    while ring := set().union(*(around[point] for point in ring)) - reached:
        reached |= ring
        left = sorted(ring)
        while left:
            apart: list[int] = []
            for point in left:
                if not around[point] & set(apart):
                    apart.append(point)
            groups.append(apart)
            left = [point for point in left if point not in apart]
    known: dict[int, list[int]] = {faces.RIGHT_IRIS[0]: [159], faces.LEFT_IRIS[0]: [386]}
    for iris in (faces.RIGHT_IRIS, faces.LEFT_IRIS):
        known |= {rim: [iris[0]] for rim in iris[1:]}
    for group in groups:
        known |= {point: sorted(around[point] & done) for point in group}
        done |= set(group)
    groups += [[faces.RIGHT_IRIS[0], faces.LEFT_IRIS[0]], [*faces.RIGHT_IRIS[1:], *faces.LEFT_IRIS[1:]]]
    assert len(known) == faces.NUM_POINTS - 1
    waves = []
    for group in groups:
        counts = np.array([len(known[point]) for point in group], np.int32)
        starts = (np.cumsum(counts) - counts).tolist()
        waves.append(_Wave(group, [n for point in group for n in known[point]], starts, counts[:, None]))
    return waves


def _wrap16(x: NDArray[np.int32]) -> NDArray[np.int32]:
    """The same modulo 2^16, in the range of int16."""
    return ((x + 32768) & 65535) - 32768


def _predicted(step: NDArray[np.int32], wave: _Wave) -> NDArray[np.int32]:
    """[P, ..] rounded mean step of each point's known neighbours; in integers: every machine gets the same."""
    return (np.add.reduceat(step[wave.known], wave.starts) + wave.counts // 2) // wave.counts


def _encode_points(points: NDArray[Any]) -> bytes:
    """points [T, 478, 3] px -> bytes; lossless but for the rounding to 1/16 px.

    A point's step from the frame before is predicted as the mean step of its neighbours in the mesh; what is left is
    written as zigzag numbers, all low bytes, then all high bytes, and compressed. Real tracks at 256 px: 550 bytes a
    frame; steps alone 913, steps less those of one neighbour 627 (with zlib -9 instead: 703).
    """
    level = np.round(points * _STEPS_PER_PX).astype(np.int32).transpose(1, 0, 2)  # [478, T, 3]
    step = level.copy()
    step[:, 1:] -= level[:, :-1]
    step = _wrap16(step.reshape(faces.NUM_POINTS, -1))
    left = step.copy()
    for wave in _waves():
        left[wave.points] -= _predicted(step, wave)
    left = _wrap16(left).reshape(level.shape)
    zigzag = ((left << 1) ^ (left >> 31)).astype(np.uint16).transpose(2, 1, 0)  # [3, T, 478]
    halves = (zigzag & 255).astype(np.uint8).tobytes() + (zigzag >> 8).astype(np.uint8).tobytes()
    return lzma.compress(halves, format=lzma.FORMAT_RAW, filters=_LZMA)


def _decode_points(data: bytes, num_frames: int) -> Array:
    """The inverse of _encode_points: [T, 478, 3] float32."""
    count = 3 * num_frames * faces.NUM_POINTS
    halves = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_LZMA).decompress(data, max_length=2 * count + 1)
    if len(halves) != 2 * count:
        raise ValueError(f"{len(halves)} bytes of points, {2 * count} expected")
    low, high = np.frombuffer(halves, np.uint8).reshape(2, 3, num_frames, faces.NUM_POINTS)
    zigzag = low.astype(np.int32) | high.astype(np.int32) << 8
    left = np.ascontiguousarray(((zigzag >> 1) ^ -(zigzag & 1)).transpose(2, 1, 0)).reshape(faces.NUM_POINTS, -1)
    step = left  # a wave's rows turn from what is left to steps when it is its turn
    for wave in _waves():
        step[wave.points] = _wrap16(left[wave.points] + _predicted(step, wave))
    level = _wrap16(np.cumsum(step.reshape(faces.NUM_POINTS, num_frames, 3), axis=1, dtype=np.int32))
    return np.ascontiguousarray(level.transpose(1, 0, 2), np.float32) / np.float32(_STEPS_PER_PX)


def pack_tracks(points: NDArray[Any], blendshapes: NDArray[Any], pose: NDArray[Any]) -> bytes:
    """The .npz of one clip: landmarks, blendshapes and pose of all its frames. The same input gives the same bytes.

    Args:
        points: [T, 478, 3] in pixels of the crop; kept to 1/32 px.
        blendshapes: [T, 52] in 0..1; kept to 1/510.
        pose: [T, 3] yaw, pitch, roll in degrees; kept as float16.

    Raises:
        InputError: on other shapes, no frames, numbers that are not finite, or points beyond 2047 px.
    """
    num_frames = len(points)
    shapes = (points.shape, blendshapes.shape, pose.shape)
    wanted = ((num_frames, faces.NUM_POINTS, 3), (num_frames, len(faces.BLENDSHAPES)), (num_frames, 3))
    if shapes != wanted or not num_frames:
        raise InputError(f"tracks of shapes {shapes}: give points [T, 478, 3], blendshapes [T, 52] and pose [T, 3].")
    if not all(np.isfinite(array).all() for array in (points, blendshapes, pose)):
        raise InputError("tracks hold numbers that are not finite: leave out the frames without a face.")
    if np.abs(points).max() > _MAX_PX:
        raise InputError(f"a point lies {np.abs(points).max():.0f} px from the crop's corner; {_MAX_PX:g} fit.")
    out = io.BytesIO()
    np.savez_compressed(
        out,
        header=np.array([_PACK_VERSION, num_frames], np.int32),
        points=np.frombuffer(_encode_points(points), np.uint8),
        blendshapes=np.round(blendshapes.clip(0, 1) * 255).astype(np.uint8).T,
        pose=pose.astype(np.float16),
    )
    return out.getvalue()


def unpack_tracks(data: bytes) -> Tracks:
    """What pack_tracks packed.

    Raises:
        InputError: if the bytes are damaged, or another version of mimik made them.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            version, num_frames = arrays["header"].tolist()
            if version != _PACK_VERSION:
                raise InputError(f"landmarks in format {version}, this mimik reads {_PACK_VERSION}: prepare again.")
            blendshapes, pose = arrays["blendshapes"].T, arrays["pose"]
            packed = arrays["points"]
        if not 0 < num_frames <= _MAX_PACKED_FRAMES or packed.dtype != np.uint8:
            raise ValueError("impossible numbers")
        if blendshapes.shape != (num_frames, len(faces.BLENDSHAPES)) or pose.shape != (num_frames, 3):
            raise ValueError("arrays of different lengths")
        points = _decode_points(packed.tobytes(), num_frames)
    except InputError:
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        OSError,
        EOFError,
        MemoryError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise InputError(f"damaged landmarks ({error}): fetch the shard again, or prepare it again.") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, SyntaxError) as error:
        raise InputError(f"damaged landmarks ({error}): fetch the shard again, or prepare it again.") from error
    return Tracks(points, blendshapes.astype(np.float32) / np.float32(255), pose.astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """One line of the index: a clip, where its bytes are and where it came from.

    Attributes:
        key: name of the clip, [a-z0-9_-]+, stable between runs.
        shard: name of its tar file, in the folder of the index.
        members: (offset, bytes) of the data inside the tar, for "mp4", "npz" and "json".
        num_frames, fps: of the clip.
        size: width and height of its frames in pixels.
        person: who is seen; clips of one person share the name.
        source: path of the video, relative to its input folder.
        source_sha256: of the video's bytes, hexadecimal.
        licence: of the video, or None.
        start_s, end_s: place in the video.
        box: left, top, side of the crop in pixels of the video.
        face_px: median width of the face in the crop.
        sharpness: as `mimik prepare` measures it.
        yaw_range: smallest and largest yaw of the head, in degrees.
        fingerprint: of what is seen, hexadecimal.
    """

    key: str
    shard: str
    members: Mapping[str, tuple[int, int]]
    num_frames: int
    fps: float
    size: int
    person: str
    source: str
    source_sha256: str
    licence: str | None
    start_s: float
    end_s: float
    box: tuple[float, float, float]
    face_px: float
    sharpness: float
    yaw_range: tuple[float, float]
    fingerprint: str

    def to_json(self) -> str:
        """The line of the index, without a line end."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> ClipInfo:
        """A line of the index, checked field by field.

        Raises:
            InputError: that names the field.
        """
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InputError(f"not JSON ({error})") from error
        if not isinstance(values, dict):
            raise InputError("not a JSON object")
        unknown, missing = sorted(values.keys() - _CHECKS.keys()), sorted(_CHECKS.keys() - values.keys())
        if unknown:
            raise InputError(f"unknown field {unknown[0]!r}")
        if missing:
            raise InputError(f"field {missing[0]!r} is missing")
        for name, (accepts, what) in _CHECKS.items():
            if not accepts(values[name]):
                raise InputError(f"field {name!r} is {str(values[name])[:60]!r}, not {what}")
        values["members"] = {name: (offset, size) for name, (offset, size) in values["members"].items()}
        values |= {"box": tuple(values["box"]), "yaw_range": tuple(values["yaw_range"])}
        return cls(**values)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(map(_is_number, value))


def _are_members(value: Any) -> bool:
    if not isinstance(value, dict) or sorted(value) != sorted(MEMBERS):
        return False
    return all(_are_numbers(at, 2) and all(map(_is_count, at)) for at in value.values())


def _matches(pattern: str) -> Any:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


# What every field of an index line has to be; nothing else may stand there.
_CHECKS: dict[str, tuple[Any, str]] = {
    "key": (_matches(r"[a-z0-9_-]{1,90}"), "1 to 90 of a-z, 0-9, _ and -"),
    "shard": (_matches(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.tar"), "the name of a .tar file in the same folder"),
    "members": (_are_members, "offset and bytes of mp4, npz and json"),
    "num_frames": (lambda value: _is_count(value) and value > 0, "a whole number above 0"),
    "fps": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "size": (lambda value: _is_count(value) and value > 0, "a whole number of pixels"),
    "person": (lambda value: isinstance(value, str) and value != "", "a name"),
    "source": (lambda value: isinstance(value, str), "a path"),
    "source_sha256": (_matches("[0-9a-f]{64}"), "64 hexadecimal digits"),
    "licence": (lambda value: value is None or isinstance(value, str), "text or null"),
    "start_s": (_is_number, "a number"),
    "end_s": (_is_number, "a number"),
    "box": (lambda value: _are_numbers(value, 3), "left, top and side"),
    "face_px": (_is_number, "a number"),
    "sharpness": (_is_number, "a number"),
    "yaw_range": (lambda value: _are_numbers(value, 2), "two numbers"),
    "fingerprint": (_matches("[0-9a-f]*"), "hexadecimal digits"),
}


def read_index(source: str | Path) -> list[ClipInfo]:
    """The clips of a folder of shards, in the order of its index.

    Args:
        source: the folder, its index.jsonl, or the http(s) or s3 URL of either.

    Raises:
        InputError: if there is no index, or a line of it is not understood; the message names the line.
    """
    folder, name = _folder_of(source)
    where = f"{folder}/{name}"
    if _is_url(folder):
        text = _server(where).get(where).decode()
    else:
        try:
            text = Path(folder, name).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise InputError(f"{source}: no {name} there; give the folder that `mimik prepare -o` wrote.") from error
    clips: dict[str, ClipInfo] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            clip = ClipInfo.from_json(line)
        except InputError as error:
            raise InputError(f"{where}, line {number}: {error}; run `mimik prepare` again to repair it.") from error
        if clip.key in clips:
            raise InputError(f"{where}, line {number}: key {clip.key!r} stands there twice.")
        clips[clip.key] = clip
    if not clips:
        raise InputError(f"{where} lists no clip; see rejected.jsonl beside it for the reasons.")
    return list(clips.values())


def split_people(index: Sequence[ClipInfo], fraction: float, seed: int = 0) -> tuple[list[ClipInfo], list[ClipInfo]]:
    """The clips to train on, and those of people who are held out: nobody is in both.

    Who is held out depends on the names and the seed alone, so that a corpus that grows moves few people.

    Args:
        index: all clips.
        fraction: of the people, to hold out; at least one person, and one stays.
        seed: chooses other people.

    Returns:
        Training clips and held-out clips, each in the order of the index.

    Raises:
        InputError: if fraction is not between 0 and 1, or there are fewer than two people.
    """
    if not 0 < fraction < 1:
        raise InputError(f"held-out fraction {fraction}: give a number between 0 and 1 (0.1 holds out a tenth).")
    people = {clip.person for clip in index}
    if len(people) < 2:
        raise InputError(f"{len(people)} person in {len(index)} clips: splitting by person needs two or more.")
    by_chance = sorted(people, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    out = set(by_chance[: min(max(round(fraction * len(people)), 1), len(people) - 1)])
    return [c for c in index if c.person not in out], [c for c in index if c.person in out]


# Where the bytes are.


def _is_url(path: str) -> bool:
    return path.startswith(("http://", "https://", "s3://"))


def _folder_of(source: str | Path) -> tuple[str, str]:
    """Folder or URL of the shards, and the name of the index in it."""
    text = str(source)
    if text.endswith(".jsonl"):
        head, _, name = text.replace(os.sep, "/").rpartition("/")
        return head or ".", name
    return text.rstrip("/") or "/", INDEX_NAME


class _PassingError(Exception):
    """A server's failure that may be over the next time."""


@dataclass(frozen=True)
class _Server:
    """Reads from a server, and tries again where that helps."""

    retries: int = 5
    backoff_s: float = 0.5  # doubled from try to try
    timeout_s: float = 30.0

    def get(self, url: str) -> bytes:
        """All of a file."""
        return self._fetch(url, 0, None, None) or b""

    def get_range(self, url: str, start: int, stop: int) -> bytes | None:
        """Bytes start..stop; None if the server can only send the whole file."""
        return self._fetch(url, start, stop, None)

    def download(self, url: str, file: Any) -> None:
        """The whole file."""
        self._fetch(url, 0, None, file)

    def _fetch(self, url: str, start: int, stop: int | None, file: Any) -> bytes | None:
        problem: Exception | None = None
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(self.backoff_s * 2 ** (attempt - 1), 60.0))
            try:
                return self._ask(url, start, stop, file)
            except _PassingError as error:
                problem = error
        raise _unreadable(url, problem)

    def _ask(self, url: str, start: int, stop: int | None, file: Any) -> bytes | None:
        """One try.

        Raises:
            _PassingError: if it may work the next time.
            InputError: if it will not.
        """
        raise NotImplementedError


def _unreadable(url: str, problem: Exception | None) -> InputError:
    return InputError(f"{url} cannot be read ({problem}): check the address and the server, then resume.")


def _past_the_end(url: str, stop: int | None) -> DamagedClipError:
    return DamagedClipError(f"{url} ends before byte {stop}: the index does not fit it.")


def _received(response: Any, length: int | None, file: Any) -> bytes:
    """What a response holds, which goes to the file if there is one.

    Raises:
        _PassingError: if it is not as long as it should be.
    """
    if file is None:
        data = response.read()
        got = len(data)
    else:
        file.seek(0)
        file.truncate()
        shutil.copyfileobj(response, file, 1 << 20)
        data, got = b"", file.tell()
    if length is not None and got != length:
        raise _PassingError(f"{got} of {length} bytes came")
    return data


class _Http(_Server):
    """A web server, or object storage that everybody may read."""

    def _ask(self, url: str, start: int, stop: int | None, file: Any) -> bytes | None:
        request = urllib.request.Request(url)
        if stop is not None:
            request.add_header("Range", f"bytes={start}-{stop - 1}")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                if stop is None:
                    length = response.headers.get("Content-Length")
                    return _received(response, None if length is None else int(length), file)
                if response.status != 206:
                    return None
                return _received(response, stop - start, file)
        except urllib.error.HTTPError as error:
            if error.code == 416:
                raise _past_the_end(url, stop) from error
            if error.code not in (408, 425, 429) and error.code < 500:
                raise _unreadable(url, error) from error
            raise _PassingError(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError(error) from error


@functools.cache
def _s3_client(timeout_s: float) -> Any:
    """boto3's, which finds keys, region and endpoint where the AWS tools do; one for all stores of a process."""
    try:
        import boto3
        import botocore.config
    except ImportError as error:
        raise InputError("an s3:// address needs boto3; install it with: pip install 'mimik[s3]'.") from error
    once = {"total_max_attempts": 1}  # _Server tries again, broken transfers included
    config = botocore.config.Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries=once)
    try:
        return boto3.Session().client("s3", config=config)
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise InputError(f"boto3 cannot be set up ({error}): check AWS_* and ~/.aws/config.") from error


class _S3(_Server):
    """An object store that speaks Amazon's S3."""

    def _ask(self, url: str, start: int, stop: int | None, file: Any) -> bytes | None:
        client = _s3_client(self.timeout_s)
        import urllib3.exceptions
        from botocore import exceptions

        bucket, _, key = url.removeprefix("s3://").partition("/")
        part = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
        try:
            response = client.get_object(Bucket=bucket, Key=key, **part)
            with contextlib.closing(response["Body"]) as body:
                return _received(body, response["ContentLength"] if stop is None else stop - start, file)
        except exceptions.ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            code = error.response["Error"]["Code"]
            if status == 416:
                raise _past_the_end(url, stop) from error
            if status >= 500 or status in (408, 429) or code in ("RequestTimeout", "SlowDown", "Throttling"):
                raise _PassingError(f"{status} {code}") from error
            if code == "NoSuchBucket":
                where = client.meta.endpoint_url
                raise InputError(
                    f"{url}: there is no bucket {bucket} at {where}; check its name, and AWS_ENDPOINT_URL."
                ) from error
            if status in (401, 403):
                raise InputError(
                    f"{url}: the store refuses these keys ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                    f"and that they may read {bucket}."
                ) from error
            raise _unreadable(url, error) from error
        except exceptions.NoCredentialsError as error:
            raise InputError(
                f"{url}: no keys for it were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the "
                "https:// address of a store that everybody may read."
            ) from error
        except (
            exceptions.ConnectionError,
            exceptions.HTTPClientError,
            exceptions.IncompleteReadError,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as error:
            raise _PassingError(error) from error
        except exceptions.BotoCoreError as error:
            raise _unreadable(url, error) from error


def _server(url: str, retries: int = 5, backoff_s: float = 0.5, timeout_s: float = 30.0) -> _Server:
    """What reads an address."""
    return (_S3 if url.startswith("s3://") else _Http)(retries, backoff_s, timeout_s)


class _Shelf:
    """A folder of files that many processes fill together, up to a number of bytes.

    It keeps what came first. Every clip is wanted once an epoch, in an order that changes: throwing out the least
    recently used would throw out what is as likely to be wanted next as what replaces it, at the price of writing it.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._full = False

    def find(self, name: str) -> Path | None:
        path = self._folder / name
        return path if path.exists() else None

    def has_room(self, size: int) -> bool:
        """Whether size bytes fit; once something did not, nothing is asked again."""
        if self._full or size > self._limit:
            return False
        used = 0
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    used += entry.stat().st_size
        self._full = used + size > self._limit
        return not self._full

    @contextlib.contextmanager
    def add(self, name: str) -> Iterator[Any]:
        """A file to write; it appears under its name when it is complete. A full disk is no error: nothing appears."""
        part = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                part = Path(file.name)
                yield file
            part.replace(self._folder / name)
        except OSError as error:
            self._full = True
            log.warning("%s takes nothing more (%s)", self._folder, error)
        finally:
            if part is not None:
                part.unlink(missing_ok=True)


def _memory_folder() -> Path:
    """A folder whose files live in memory, where the system has one; else the folder for temporary files."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def _hold(folder: Path) -> int | None:
    """Locks a folder for as long as this process lives; None where that is not possible or another process does."""
    try:
        import fcntl

        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove(folder: Path, lock: int | None, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _temporary_folder(parent: Path, owner: object) -> Path:
    """A folder that goes when owner or the process goes; folders of processes that were killed go first."""
    for left in parent.glob("mimik-shelf-*"):
        lock = _hold(left) if (left / "lock").exists() else None
        if lock is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
    folder = Path(tempfile.mkdtemp(prefix="mimik-shelf-", dir=parent))
    weakref.finalize(owner, _remove, folder, _hold(folder), os.getpid())
    return folder


@dataclass(frozen=True)
class ClipFrames:
    """Frames of one clip with what is known of the face in them.

    Attributes:
        images: uint8 RGB [N, H, W, 3].
        points: [N, 478, 3] float32 in pixels of these images.
    """

    images: Image
    points: Array


class ClipStore:
    """Reads clips of a folder or a URL of shards, each alone, by its range of bytes.

    With cache_mb, decoded clips are kept in memory for all workers together, until it is full: a corpus that fits is
    decoded once. Without, the wanted frames are decoded each time.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        size: int | None = None,
        cache_mb: float = 0,
        cache_dir: str | Path | None = None,
        retries: int = 5,
        backoff_s: float = 0.5,
        timeout_s: float = 30.0,
    ) -> None:
        """Opens nothing yet.

        Args:
            root: the folder, its index.jsonl, or the http(s) or s3 URL of either.
            size: width and height in pixels to reduce frames to; None: as they are stored.
            cache_mb: megabytes of decoded frames to keep; 0: none. A clip of 200 frames at 256 px takes 39.
            cache_dir: where to keep them, for several programs or runs together; None: in memory (/dev/shm), for this
                store and its copies in workers, until the process ends.
            retries, backoff_s: how often to ask a server again, and how long to wait before the first time.
            timeout_s: to wait for a server to answer.

        Raises:
            InputError: on impossible numbers.
        """
        if (size is not None and size < 1) or cache_mb < 0:
            raise InputError(f"size {size}, cache_mb {cache_mb}: give a size of 1 px or more and 0 or more megabytes.")
        self.root, _ = _folder_of(root)
        self.size = size
        self._server = _server(self.root, retries, backoff_s, timeout_s)
        self._newest: tuple[ClipInfo, bytes, Tracks] | None = None
        self._cache: _Shelf | None = None
        if cache_mb > 0:
            folder = Path(cache_dir) if cache_dir is not None else _temporary_folder(_memory_folder(), self)
            self._cache = _Shelf(folder, int(cache_mb * 1e6))
        self._spool: _Shelf | None = None
        if _is_url(self.root):
            folder = _temporary_folder(Path(tempfile.gettempdir()), self)
            self._spool = _Shelf(folder, _SPOOL_MB * 1_000_000)

    def read(self, clip: ClipInfo, numbers: Sequence[int] | NDArray[np.int64]) -> ClipFrames:
        """Some frames of a clip, in the order asked for.

        Args:
            clip: from read_index of the same root.
            numbers: [N] frame numbers, 0..num_frames - 1.

        Raises:
            DamagedClipError: if what stands in the shard is not this clip.
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

    def frames(self, clip: ClipInfo) -> Image:
        """All frames of a clip, uint8 RGB [T, H, W, 3]."""
        return self.read(clip, np.arange(clip.num_frames)).images

    def tracks(self, clip: ClipInfo) -> Tracks:
        """Landmarks, blendshapes and pose of all frames; points in pixels of the frames that read() gives."""
        if cached := self._cached(clip):
            with contextlib.suppress(FileNotFoundError), open(cached, "rb") as file:
                file.seek(clip.num_frames * self._frame_bytes(clip)[0])
                shapes = (faces.NUM_POINTS, 3), (len(faces.BLENDSHAPES),), (3,)
                return Tracks(*(_read_array(file, (clip.num_frames, *shape), np.float32) for shape in shapes))
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

    def _side(self, clip: ClipInfo) -> int:
        if self.size is None or self.size == clip.size:
            return clip.size
        if self.size > clip.size:
            raise InputError(f"size {self.size}, but clip {clip.key} has {clip.size} px: give {clip.size} or less.")
        return self.size

    def _frame_bytes(self, clip: ClipInfo) -> tuple[int, int]:
        """What a frame takes in the cache: its picture, and what is known of the face."""
        return 3 * self._side(clip) ** 2, 4 * (3 * faces.NUM_POINTS + len(faces.BLENDSHAPES) + 3)

    def _cache_name(self, clip: ClipInfo) -> str:
        what = f"{clip.to_json()} {self._side(clip)}"
        return hashlib.sha256(what.encode()).hexdigest()[:40]

    def _cached(self, clip: ClipInfo) -> Path | None:
        return self._cache.find(self._cache_name(clip)) if self._cache is not None else None

    def _from_cache(self, file: Any, clip: ClipInfo, wanted: NDArray[np.int64]) -> ClipFrames:
        side = self._side(clip)
        images = np.empty((len(wanted), side, side, 3), np.uint8)
        points = np.empty((len(wanted), faces.NUM_POINTS, 3), np.float32)
        known = clip.num_frames * self._frame_bytes(clip)[0]
        for row, number in enumerate(wanted.tolist()):
            for part, start in ((images[row], 0), (points[row], known)):
                file.seek(start + number * part.nbytes)
                file.readinto(part.data)
        return ClipFrames(images, points)

    def _fetched(self, clip: ClipInfo) -> tuple[bytes, Tracks]:
        """The .mp4 and the tracks; those of the newest clip are kept, because its frames are wanted next."""
        if self._newest is None or self._newest[0] != clip:
            mp4, npz = self.read_members(clip)
            self._newest = clip, mp4, self._tracks(clip, npz)
        return self._newest[1:]

    def _damaged(self, clip: ClipInfo, what: str) -> DamagedClipError:
        return DamagedClipError(
            f"clip {clip.key} in {self.root}/{clip.shard} is damaged: {what}. Fetch or prepare the shard again,"
            " or train with damaged clips left out (skip_damaged)."
        )

    def _tracks(self, clip: ClipInfo, npz: bytes) -> Tracks:
        try:
            tracks = unpack_tracks(npz)
        except InputError as error:
            raise self._damaged(clip, str(error).rstrip(".")) from error
        if len(tracks.points) != clip.num_frames:
            raise self._damaged(clip, f"landmarks of {len(tracks.points)} frames, {clip.num_frames} in the index")
        if self._side(clip) == clip.size:
            return tracks
        return dataclasses.replace(tracks, points=tracks.points * np.float32(self._side(clip) / clip.size))

    def _read_range(self, clip: ClipInfo, start: int, stop: int) -> bytes:
        where = f"{self.root}/{clip.shard}"
        if self._spool is not None:
            path = self._spool.find(clip.shard)
            if path is None:
                data = self._server.get_range(where, start, stop)
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
            raise InputError(
                f"{path} cannot be read ({error.strerror}): its shards belong beside the index."
            ) from error
        if len(data) != stop - start:
            raise self._damaged(clip, f"the shard ends at byte {start + len(data)}, before byte {stop}")
        return data

    def _whole_shard(self, name: str, url: str) -> Path:
        """A shard from a server that cannot send parts of it: downloaded once."""
        assert self._spool is not None
        log.warning("the server of %s cannot send parts of a file: downloading whole shards", url)
        with self._spool.add(name) as file:
            self._server.download(url, file)
        path = self._spool.find(name)
        if path is None:
            raise InputError(f"{url}: no room for whole shards in {tempfile.gettempdir()}; download them yourself.")
        return path

    def _decode(self, clip: ClipInfo, mp4: bytes, wanted: NDArray[np.int64] | None) -> Image:
        """Frames of an .mp4 in the order asked for, or all; reduced to the store's size."""
        side = self._side(clip)
        order = np.arange(clip.num_frames) if wanted is None else np.unique(wanted)
        out = np.empty((len(order), side, side, 3), np.uint8)
        with _in_memory(mp4) as path:
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


def _read_array(file: Any, shape: tuple[int, ...], kind: type) -> NDArray[Any]:
    out: NDArray[Any] = np.empty(shape, kind)
    file.readinto(out.data)
    return out


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path under which opencv can open data.

    On Linux a file without a name: it needs no room in /dev/shm, which is small in containers, and is never left over.
    """
    if sys.platform == "linux":
        number = os.memfd_create("mimik")
        try:
            os.write(number, data)
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)
        return
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
        path = Path(folder, "clip.mp4")
        path.write_bytes(data)
        yield str(path)


# Augmentation.


@functools.cache
def flip_permutation() -> NDArray[np.intp]:
    """[478] for every point of a mirrored face the point of the original that is there.

    The canonical mesh is symmetric to the last digit. The rims of the irises run right, up, left, down in the picture
    for both eyes, so that right and left change places in them.
    """
    vertices = faces.canonical_mesh().vertices
    apart = np.linalg.norm((vertices * [-1, 1, 1])[:, None] - vertices, axis=-1)
    permutation = np.concatenate([apart.argmin(1), faces.IRISES])
    for one, other in ((faces.RIGHT_IRIS, faces.LEFT_IRIS), (faces.LEFT_IRIS, faces.RIGHT_IRIS)):
        centre, right, up, left, down = other
        permutation[one] = centre, left, up, right, down
    return permutation


@dataclass(frozen=True)
class Change:
    """What augmentation does to all frames of one episode.

    Attributes:
        flip: whether left and right change places.
        affine: [2, 3] pixels -> pixels, both counted from the corner of the first one; the flip is not in it.
        colour: [3, 3] for RGB, grey stays grey.
        curve: uint8 [256] new value for each old one, after colour.
    """

    flip: bool
    affine: NDArray[np.float64]
    colour: NDArray[np.float32]
    curve: Image

    def points(self, points: Array, side: int) -> Array:
        """points [N, 478, 3] of frames side px wide -> where they are afterwards."""
        out = points.copy()
        if self.flip:
            out[..., 0] = side - out[..., 0]
            out = out[:, flip_permutation()]
        linear = self.affine[:, :2]
        out[..., :2] = out[..., :2] @ linear.T + self.affine[:, 2]
        out[..., 2] *= math.sqrt(abs(np.linalg.det(linear)))
        return np.ascontiguousarray(out, np.float32)

    def images(self, images: Image) -> Image:
        """images uint8 RGB [N, H, W, 3] -> the same, changed."""
        num_frames, height, width, _ = images.shape
        whole = self.affine.copy()
        if self.flip:
            whole = whole @ np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])
        out = images
        if np.array_equal(whole[:, :2], [[-1, 0], [0, 1]]) and np.array_equal(whole[:, 2], [width, 0]):
            out = np.ascontiguousarray(images[:, :, ::-1])
        elif not np.array_equal(whole, np.eye(2, 3)):
            whole[:, 2] += whole[:, :2] @ [0.5, 0.5] - 0.5  # cv2 counts from the centre of the first pixel
            out = np.empty_like(images)
            for image, into in zip(images, out, strict=True):
                # Mirrored at the border: black corners would be something that no real crop has.
                cv2.warpAffine(image, whole, (width, height), dst=into, borderMode=cv2.BORDER_REFLECT_101)
        rows = out.reshape(num_frames * height, width, 3)
        if not np.array_equal(self.colour, np.eye(3)):
            rows = cv2.transform(rows, self.colour)
        if not np.array_equal(self.curve, np.arange(256)):
            rows = cv2.LUT(rows, self.curve)
        return rows.reshape(num_frames, height, width, 3)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far frames may be changed; one draw for all frames of an episode.

    Identity has to be the same in sources and target, so colours and mirror image are. So is the affine: landmarks tell
    the networks how the face moved between two frames, and nothing tells them how the background would have.

    Attributes:
        strength: multiplies every range below; 0 changes nothing, not even left and right.
        flip: probability of the mirror image.
        rotation_deg: largest turn in the picture, either way.
        scale: largest change of size, as a share.
        shift: largest shift, as a share of the width, in x and in y.
        brightness: largest change, as a share of white.
        contrast, saturation: largest change, as a share.
        gamma: largest change of the logarithm of gamma.
        hue_deg: largest turn of the colours.
        grey: probability of no colours at all, as in old photographs and drawings.
    """

    strength: float = 1.0
    flip: float = 0.5
    rotation_deg: float = 8.0
    scale: float = 0.08
    shift: float = 0.04
    brightness: float = 0.08
    contrast: float = 0.15
    saturation: float = 0.2
    gamma: float = 0.15
    hue_deg: float = 6.0
    grey: float = 0.1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0:
                raise InputError(f"augmentation {field.name} {value}: give 0 or more.")
        for name in ("flip", "grey"):
            if getattr(self, name) > 1:
                raise InputError(f"augmentation {name} {getattr(self, name)}: give a probability from 0 to 1.")
        if self.strength * max(self.scale, self.contrast, self.saturation) >= 1:
            raise InputError(f"augmentation strength {self.strength}: too strong; frames would vanish.")

    def draw(self, rng: np.random.Generator, side: int) -> Change:
        """One change for frames side px wide and high."""
        flip = bool(rng.random() < self.flip) and self.strength > 0
        turn, size, right, down, light, contrast, colourful, gamma, hue = self.strength * rng.uniform(-1, 1, 9)

        # Turned and scaled about the middle, then shifted.
        angle, scale = math.radians(turn * self.rotation_deg), 1 + size * self.scale
        c, s = scale * math.cos(angle), scale * math.sin(angle)
        linear = np.array([[c, -s], [s, c]])
        middle = np.full(2, side / 2)
        offset = middle - linear @ middle + side * self.shift * np.array([right, down])

        # Saturation about grey, then a turn about the grey axis.
        grey = rng.random() < self.grey and self.strength > 0
        vivid = 0.0 if grey else 1 + colourful * self.saturation
        saturate = vivid * np.eye(3) + (1 - vivid) * np.array([0.299, 0.587, 0.114])
        angle = math.radians(hue * self.hue_deg)
        c, s = math.cos(angle), math.sin(angle) / math.sqrt(3)
        rotate = c * np.eye(3) + (1 - c) / 3 + s * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
        value = np.linspace(0, 1, 256)
        value = (0.5 + (value - 0.5) * (1 + contrast * self.contrast) + light * self.brightness).clip(0, 1)
        curve = np.round(255 * value ** math.exp(gamma * self.gamma)).astype(np.uint8)
        affine = np.column_stack([linear, offset])
        return Change(flip, affine, (rotate @ saturate).astype(np.float32), curve)


# Episodes.


def to_model_range(images: Tensor) -> Tensor:
    """uint8 0..255 of any shape -> float32 in [-1, 1], on the device where images are."""
    return images.float() / 127.5 - 1


def _planes(images: Image, as_uint8: bool) -> Tensor:
    """uint8 [N, H, W, 3] -> [N, 3, H, W] uint8, or float32 in [-1, 1]."""
    num_frames, height, width, _ = images.shape
    planes = np.empty((num_frames, 3, height, width), np.uint8)
    for image, into in zip(images, planes, strict=True):
        cv2.split(image, list(into))
    tensor = torch.from_numpy(planes)
    return tensor if as_uint8 else to_model_range(tensor)


def _with_landmarks(
    frames: ClipFrames, style: str, as_uint8: bool, change: Change | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """x [N, 3, H, W], y [N, 3, H, W] and points [N, 478, 3] of frames."""
    images, points = frames.images, frames.points
    if change is not None:
        side = images.shape[1]
        images, points = change.images(images), change.points(points, side)
    return _drawn(images, points, style, as_uint8)


def _drawn(images: Image, points: Array, style: str, as_uint8: bool) -> tuple[Tensor, Tensor, Tensor]:
    side = images.shape[1]
    drawn = np.stack([landmark_image(p, side, side, style=style) for p in points])
    return _planes(images, as_uint8), _planes(drawn, as_uint8), torch.from_numpy(points)


def _in_windows(images: Image, points: Array, windows: Sequence[Crop], px: int) -> tuple[Image, Array]:
    """Frames [N, S, S, 3] and points [N, 478, 3] -> the same in their windows, px wide."""
    cut = np.stack([window.cut(image, px) for image, window in zip(images, windows, strict=True)])
    placed = np.stack([window.to_unit(p) * px for p, window in zip(points, windows, strict=True)])
    return cut, placed.astype(np.float32)


@dataclass(frozen=True)
class EvaluationEpisode:
    """One clip of the paper's protocol: photos of a person, and frames to make again.

    Attributes:
        clip: position in the index.
        info: the clip.
        sources: numbers of the T frames that are given.
        holdout: numbers of the frames to make; none is among the sources.
    """

    clip: int
    info: ClipInfo
    sources: tuple[int, ...]
    holdout: tuple[int, ...]


def evaluation_episodes(
    index: Sequence[ClipInfo], shots: int, num_holdout: int = 32, *, seed: int = 0
) -> list[EvaluationEpisode]:
    """Sources and hold-out frames of every clip; docs/paper.md, section 7.

    They depend on the clip's key and the seed alone. The hold-out frames are the same for every number of shots, and
    the sources for fewer shots are among those for more: the columns T = 1, 8, 32 of a table differ in T only.

    Args:
        index: clips; those with fewer than shots + num_holdout frames are left out.
        shots: T, number of source frames.
        num_holdout: the paper's is 32.
        seed: chooses other frames.

    Raises:
        InputError: if no clip is long enough, or a number is not positive.
    """
    if shots < 1 or num_holdout < 1:
        raise InputError(f"{shots} shots and {num_holdout} hold-out frames: give 1 or more of both.")
    episodes = []
    for position, info in enumerate(index):
        if info.num_frames < shots + num_holdout:
            continue
        digest = hashlib.sha256(info.key.encode()).digest()
        order = _generator(seed, int.from_bytes(digest[:8], "big")).permutation(info.num_frames).tolist()
        holdout, sources = order[:num_holdout], order[num_holdout : num_holdout + shots]
        episodes.append(EvaluationEpisode(position, info, tuple(sources), tuple(sorted(holdout))))
    if not episodes:
        longest = max((info.num_frames for info in index), default=0)
        raise InputError(
            f"{shots} shots and {num_holdout} hold-out frames need {shots + num_holdout} frames, but the longest of"
            f" {len(index)} clips has {longest}. Use fewer shots, or prepare longer clips."
        )
    if len(episodes) < len(index):
        log.info("%d of %d clips are too short for %d shots", len(index) - len(episodes), len(index), shots)
    return episodes


def load_evaluation(
    store: ClipStore, episode: EvaluationEpisode, *, style: str = "full", as_uint8: bool = False
) -> dict[str, Tensor]:
    """The frames of an evaluation episode.

    Returns:
        x, y [N, 3, H, W] and points [N, 478, 3] of the hold-out frames; x_s, y_s [T, 3, H, W] and points_s [T, 478, 3]
        of the sources; ranges as Episodes gives them.
    """
    frames = store.read(episode.info, [*episode.holdout, *episode.sources])
    x, y, points = _with_landmarks(frames, style, as_uint8)
    n = len(episode.holdout)
    return {"x": x[:n], "y": y[:n], "points": points[:n], "x_s": x[n:], "y_s": y[n:], "points_s": points[n:]}


def _generator(*words: int) -> np.random.Generator:
    """Random numbers that depend on the words alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


# What a random number is for; every use has its own stream, so that one more use changes no other.
_ORDER, _FRAMES, _AUGMENT, _REPLACE, _WINDOW, _VIEW = range(6)


class Episodes(Dataset[dict[str, Any]]):
    """Episodes of meta-learning: K source frames and a target frame of one clip, all different; docs/paper.md, 1.

    Episode n is a function of n, the seed and the index: no worker, rank or earlier episode matters. Episodes
    0..len - 1 take every clip once, in random order, the next len every clip once again, and so on without end. It is a
    map and not a stream because then the DataLoader itself gives every number to one worker and keeps their order: the
    batches are the same for any number of workers, and resuming is starting at a number (EpisodeSampler).
    """

    def __init__(
        self,
        store: ClipStore,
        index: Sequence[ClipInfo],
        *,
        num_sources: int = 8,
        style: str = "full",
        target: str = "uniform",
        augment: Augmentation | None = None,
        seed: int = 0,
        as_uint8: bool = False,
        skip_damaged: bool = False,
        window_px: int | None = None,
    ) -> None:
        """Reads no clip yet.

        Args:
            store: where the clips are; its size is the size of the frames.
            index: the clips. A clip's position in it is its column of W, whether or not it is long enough to be used.
            num_sources: K; the paper's is 8.
            style: of the landmark images, "paper" or "full" (draw.landmark_image).
            target: "uniform" takes any other frame; "far" the one of four that differs most in head pose and expression
                from the source nearest to it, so that a generator that copies a source learns nothing.
            augment: changes frames; None for evaluation.
            seed: of everything random.
            as_uint8: images stay uint8 0..255, a quarter of the bytes; to_model_range() on the GPU does the rest.
            skip_damaged: take another clip instead of a damaged one, and count it in "skipped".
            window_px: what the texture form is trained on: frames are cut to a window around the face, and the first
                source frame is warped to the target. The networks look at windows this many pixels wide; the target and
                the warped frame are cut twice as large (D14).

        Raises:
            InputError: if no clip has num_sources + 1 frames, or an option is not understood.
        """
        if num_sources < 1:
            raise InputError(f"--k {num_sources}: give 1 source frame or more.")
        for option, value, choices in (("style", style, STYLES), ("target", target, TARGETS)):
            if value not in choices:
                raise InputError(f"{option} {value!r}: give one of {', '.join(choices)}.")
        self.store, self.index = store, list(index)
        self.num_sources, self.style, self.target, self.augment = num_sources, style, target, augment
        self.seed, self.as_uint8, self.skip_damaged = seed, as_uint8, skip_damaged
        self.window_px = window_px
        self._usable = np.flatnonzero([clip.num_frames > num_sources for clip in self.index])
        if not len(self._usable):
            longest = max(self.index, key=lambda clip: clip.num_frames, default=None)
            has = f"clip {longest.key}, the longest, has {longest.num_frames} frames" if longest else "there is no clip"
            frames = f"--k {num_sources} needs {num_sources + 1} frames of a clip"
            raise InputError(f"{frames}, but {has}. Use a smaller --k, or run prepare with a larger --min-frames.")
        for clip in self.index:
            if store.size is not None and store.size > clip.size:
                raise InputError(f"--size {store.size}, but clip {clip.key} has {clip.size} px: give that or less.")
        if self.num_left_out:
            log.info("%d of %d clips have fewer than %d frames", self.num_left_out, len(self.index), num_sources + 1)
        self._people = {name: i for i, name in enumerate(sorted({clip.person for clip in self.index}))}

    @property
    def num_left_out(self) -> int:
        """Clips that are too short."""
        return len(self.index) - len(self._usable)

    def __len__(self) -> int:
        """Episodes of an epoch: one of every clip that is long enough."""
        return len(self._usable)

    def position(self, number: int) -> tuple[int, int]:
        """Epoch and place in it of an episode."""
        return divmod(number, len(self))

    def choose(self, number: int, attempt: int = 0) -> tuple[int, int, list[int]]:
        """Position of the clip of an episode, its target frame, its source frames; attempt > 0 takes another clip."""
        epoch, place = self.position(number)
        if attempt:
            place = int(_generator(self.seed, _REPLACE, number, attempt).integers(len(self)))
        position = int(self._order(epoch)[place])
        clip = self.index[position]
        rng = _generator(self.seed, _FRAMES, number, attempt)
        if self.target == "uniform":
            target, *sources = rng.choice(clip.num_frames, self.num_sources + 1, replace=False).tolist()
            return position, target, sources
        count = min(self.num_sources + _FAR_CANDIDATES, clip.num_frames)
        chosen = rng.choice(clip.num_frames, count, replace=False)
        sources, candidates = chosen[: self.num_sources], chosen[self.num_sources :]
        tracks = self.store.tracks(clip)
        state = np.concatenate([tracks.blendshapes, tracks.pose / _YAW_SCALE], axis=1)
        apart = np.linalg.norm(state[candidates, None] - state[sources], axis=-1).min(1)
        return position, int(candidates[apart.argmax()]), sources.tolist()

    def _order(self, epoch: int) -> NDArray[np.intp]:
        """[len] positions of the clips in the order of an epoch."""
        known = self.__dict__.get("_known_order")
        if known is None or known[0] != epoch:
            known = epoch, _generator(self.seed, _ORDER, epoch).permutation(self._usable)
            self._known_order = known
        return known[1]

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Episode number, without end.

        Returns:
            x, y: [3, H, W] target frame and its landmark image; float32 in [-1, 1], or uint8.
            x_s, y_s: [K, 3, H, W] the source frames and theirs.
            points, points_s: [478, 3] and [K, 478, 3] float32 landmarks in pixels of y.
            regions: uint8 [1, H, W], 255 where the target's eyes and mouth are.
            chip: float32 [2, 3] where in x the identity network looks (features.chip_transform).
            face: float32 [2, 3] where in x the landmarker looks (face.landmarker_view).
            With window_px, x and regions are [.., 2 H, 2 W], and there are: warped, the first source frame warped to
            the target, as x; interior, uint8 [1, 2 H, 2 W], 255 inside the target's open mouth; geometry, float32
            [NUM_GEOMETRY, H / 2, W / 2], how it was warped (flow.Flow.maps); view, int64 [2], what D and the content
            networks see (networks.look): all, or as often a part, most often mouth or eyes.
            clip: position in the index, the column of W. person: number of the name among the sorted ones.
            key: of the clip. frame, frames_s: numbers of the target and the [K] source frames in it.
            episode: number. skipped: how many damaged clips were passed over for it.

        Raises:
            InputError: if the clip cannot be read.
        """
        for attempt in range(_DAMAGED_IN_A_ROW):
            try:
                position, target, sources = self.choose(number, attempt)
                clip = self.index[position]
                frames = self.store.read(clip, [target, *sources])
                break
            except DamagedClipError as error:
                if not self.skip_damaged:
                    raise
                log.warning("%s", error)
        else:
            raise InputError(f"{_DAMAGED_IN_A_ROW} damaged clips in a row in {self.store.root}: prepare it again.")
        images, points = frames.images, frames.points
        if self.augment is not None:
            side = images.shape[1]
            change = self.augment.draw(_generator(self.seed, _AUGMENT, number), side)
            images, points = change.images(images), change.points(points, side)
        more: dict[str, Tensor] = {}
        target_image, scale = images[:1], 1
        if self.window_px is not None:
            target_image, images, points, more = self._warped(images, points, number)
            scale = 2
        x, y, drawn = _drawn(images, points, self.style, self.as_uint8)
        placed = points[0] * np.float32(scale)
        regions = feature_mask(placed, target_image.shape[2], target_image.shape[1])
        return {
            "x": _planes(target_image, self.as_uint8)[0],
            "y": y[0],
            "x_s": x[1:],
            "y_s": y[1:],
            "points": drawn[0],
            "points_s": drawn[1:],
            "regions": torch.from_numpy(regions)[None],
            "chip": torch.from_numpy(chip_transform(placed).astype(np.float32)),
            "face": torch.from_numpy(faces.landmarker_view(placed).astype(np.float32)),
            **more,
            "clip": position,
            "person": self._people[clip.person],
            "key": clip.key,
            "frame": target,
            "frames_s": torch.tensor(sources),
            "episode": number,
            "skipped": attempt,
        }

    def _warped(self, images: Image, points: Array, number: int) -> tuple[Image, Image, Array, dict[str, Tensor]]:
        """The target at twice window_px; frames and points in windows, target first; what is given of the warp."""
        px = self.window_px
        assert px is not None
        warper = Warper(points[1], images.shape[2], images.shape[1])
        flow = warper.flow(points[0])
        painted = Painter(images[1], warper).paint(flow)
        windows = [Crop.around(p, WINDOW_SCALE) for p in points]
        if self.augment is not None:
            rng = _generator(self.seed, _WINDOW, number)
            windows = [_moved(window, *rng.uniform(-1, 1, 3)) for window in windows]
        geometry = flow.maps(warper.crop, windows[0], px // 2)
        warped = _planes(windows[0].cut(painted, 2 * px)[None], self.as_uint8)[0]
        large, placed = _in_windows(images, points, windows, 2 * px)
        small = np.stack([cv2.resize(frame, (px, px), interpolation=cv2.INTER_AREA) for frame in large])
        view = view_of(placed[0] / (2 * px), px, _generator(self.seed, _VIEW, number))
        interior = torch.from_numpy(mouth_interior(placed[0], 2 * px, 2 * px))[None]
        more = {
            "warped": warped,
            "interior": interior,
            "geometry": torch.from_numpy(geometry),
            "view": torch.from_numpy(view),
        }
        return large[:1], small, placed / np.float32(2), more


def view_of(points: Array, px: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """What D and the content networks see of a frame that is 2 px wide; see networks.look.

    Args:
        points: [478, 3] of the face in it, in sides of the frame.
        px: side of what they see.
        rng: chooses.

    Returns:
        int64 [2]: as often (-1, -1), all of it, as top and left of a part: around the mouth, the eyes, or the face.
    """
    if rng.random() < 0.5:
        return np.array([-1, -1])
    some = (faces.LIPS, faces.EYES, faces.OVAL)[rng.choice(3, p=(0.5, 0.25, 0.25))]
    x, y = points[some, :2].mean(0) * 2 * px + rng.uniform(-0.25, 0.25, 2) * px
    return np.array([int(np.clip(y - px / 2, 0, px)), int(np.clip(x - px / 2, 0, px))])


def _moved(window: Crop, size: float, right: float, down: float) -> Crop:
    """Another window, larger and shifted by shares of the most that is allowed."""
    side = window.side * (1 + size * _WINDOW_SCALE)
    left, top = (
        start + (window.side - side) / 2 + shift * _WINDOW_SHIFT * side
        for start, shift in ((window.left, right), (window.top, down))
    )
    return Crop(left, top, side)


class EpisodeSampler(Sampler[int]):
    """The numbers of one rank's episodes: start + rank, start + rank + world_size, ..

    One sequence runs through all epochs, so that no rank waits at their ends and every clip is taken equally often. The
    state of training is one number, the episodes that all ranks together have finished; any number of ranks can go on
    from there.
    """

    def __init__(
        self,
        *,
        start_episode: int = 0,
        num_episodes: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """Chooses the numbers.

        Args:
            start_episode: how many episodes all ranks together have finished.
            num_episodes: how many all ranks together are to do; what does not divide by world_size is left, so that
                all do equally many. None: without end.
            rank, world_size: None: those of torch.distributed or, before it starts, of torchrun's environment.

        Raises:
            InputError: on impossible numbers.
        """
        if rank is None or world_size is None:
            rank, world_size = _distributed()
        if not 0 <= rank < world_size or start_episode < 0 or (num_episodes is not None and num_episodes < 0):
            raise InputError(
                f"rank {rank} of {world_size}, start_episode {start_episode}, num_episodes {num_episodes}:"
                " ranks count from 0, and nothing is negative."
            )
        self._first, self._step = start_episode + rank, world_size
        self._count = None if num_episodes is None else num_episodes // world_size

    def __iter__(self) -> Iterator[int]:
        done = 0
        while self._count is None or done < self._count:
            yield self._first + done * self._step
            done += 1


def _distributed() -> tuple[int, int]:
    """Rank and number of ranks."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _start_worker(_: int) -> None:
    """In every worker: it is one of many, so it gets no threads of its own, and its parent says when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def loader(
    episodes: Episodes,
    *,
    batch_size: int,
    num_workers: int,
    start_episode: int = 0,
    num_episodes: int | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    prefetch: int = 4,
    pin_memory: bool | None = None,
) -> DataLoader[dict[str, Any]]:
    """Batches of episodes, made by workers ahead of time; without end unless num_episodes is given.

    After a batch, the state to resume from is start_episode + world_size * batch_size * (batches that each rank did).

    Args:
        episodes: what to load.
        batch_size: B of one rank; an incomplete batch at the end is left out.
        num_workers: processes that load; 0 loads in the caller.
        start_episode, num_episodes, rank, world_size: as EpisodeSampler takes them.
        prefetch: batches that a worker makes ahead.
        pin_memory: whether batches lie in memory that a GPU reads directly; None: if there is one.
    """
    context: Any = None
    if num_workers:
        # Not fork: the caller has threads of torch, opencv and CUDA, and what they held is locked for ever in a copy.
        # A fork server has none of them, and unlike spawn loads torch once and not in every worker.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__])
    sampler = EpisodeSampler(start_episode=start_episode, num_episodes=num_episodes, rank=rank, world_size=world_size)
    return DataLoader(
        episodes,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        drop_last=True,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        worker_init_fn=_start_worker if num_workers else None,
        persistent_workers=num_workers > 0,
        prefetch_factor=prefetch if num_workers else None,
        multiprocessing_context=context,
    )
