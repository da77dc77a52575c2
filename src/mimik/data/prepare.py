"""Talking videos -> shards: what meta-learning reads.

    videos ──► shots ──► tracks of faces ──► pieces ──► judged ──► cropped, encoded ──► tar shards + index
               └──────── first reading ─────────────────────────┘ └ second reading ┘   └── one writer ──┘

A video is read twice at the same time: the first reader tracks faces and decides which pieces are kept and what box
each is cut from, the second follows it, some seconds behind, and cuts. So memory does not grow with the length.

Videos are spread over worker processes, or over a Ray cluster; results come back in the order of the inputs, and one
process writes. Everything that it has written up to some video is committed in one step, by replacing state.json: a run
that is killed continues behind its last commit and ends with the very bytes of a run that was not.
"""

from __future__ import annotations

import csv
import fcntl
import functools
import hashlib
import importlib.util
import json
import logging
import math
import os
import pickle
import shutil
import tarfile
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik import config as settings
from mimik import workers
from mimik.config import VERSION, InputError, MediaError
from mimik.face.landmarks import BLENDSHAPES, Face, Image, Landmarker, head_pose
from mimik.media import video
from mimik.motion import draw
from mimik.provenance import sealing as provenance

log = logging.getLogger(__name__)

Array = NDArray[np.float32]
PEOPLE = ("folder", "manifest", "cluster", "clip")
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".wmv", ".flv", ".3gp", ".ogv"),
)


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What decides the content of shards; every message names the option that it is about."""

    size: int = 256  # pixels, width and height of a clip
    fps: float = 12.5  # at most; a video that has fewer keeps its own. docs/scaling.md tells why not 25
    min_seconds: float = 1.0  # 12 frames: K = 8 and a target
    max_seconds: float = 10.0  # longer tracks are cut into pieces
    min_face_px: int = 48  # median width of the face in the source
    context: float = 2.0  # side of the crop in heights of the face, from the middle of the forehead to the chin
    min_sharpness: float = 0.006  # see _sharpness; a clip in bad light measured 0.007, a blurred one 0.003
    crf: int = 20  # x264's constant rate factor: 40 dB
    gop: int = 12  # every so many frames one that can be decoded alone
    shard_mb: int = 64

    def __post_init__(self) -> None:
        number = settings.check_number
        number("--size", self.size, 64, 512, "pixels")
        if self.size % 16:
            raise InputError(f"--size {self.size}: give a multiple of 16, such as 128, 256 or 512.")
        number("--fps", self.fps, 1, 60, "frames a second")
        number("--min-seconds", self.min_seconds, 0.2, 60, "shortest clip")
        number("--max-seconds", self.max_seconds, self.min_seconds, 60, "longest clip, not below --min-seconds")
        number("--min-face-px", self.min_face_px, 24, 2048, "width of the face in the source")
        number("--context", self.context, 1.4, 4, "side of the crop in heights of the face")
        number("--min-sharpness", self.min_sharpness, 0, 10, "0 keeps all")
        number("--crf", self.crf, 1, 40, "smaller is better and larger")
        number("--gop", self.gop, 1, 250, "frames")
        number("--shard-mb", self.shard_mb, 1, 4096, "megabytes")


class Reason(StrEnum):
    """Why a track or a whole video is not kept; the text goes to rejected.jsonl."""

    NO_FACE = "no-face"
    TOO_SMALL = "too-small"
    TOO_SHORT = "too-short"
    BLURRED = "blurred"
    OVERLAPPING = "overlapping-faces"
    STILL = "still-image"
    TURNED_AWAY = "face-turned-away"
    OUT_OF_FRAME = "out-of-frame"
    MOVES = "moves-too-much"
    DUPLICATE = "duplicate"
    UNREADABLE = "unreadable-video"
    WORKER_DIED = "worker-died"
    TIMED_OUT = "timed-out"
    ERROR = "unexpected-error"


@dataclass(frozen=True)
class Clip:
    """One kept piece of one track: the fields of its index line that the video alone decides, and its files."""

    info: dict[str, Any]
    mp4: bytes = field(repr=False)
    npz: bytes = field(repr=False)


@dataclass(frozen=True)
class Rejection:
    """One track, or with start_s None a whole video, that is not kept."""

    reason: Reason
    detail: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class VideoResult:
    """What became of one video; clips is empty where they were handed to on_clip."""

    clips: tuple[Clip, ...]
    rejections: tuple[Rejection, ...]
    sha256: str | None = None
    footage_s: float = 0.0
    seconds: float = 0.0  # of one core that it took


# ---------------------------------------------------------------------------------------------------------------------
# Shots.

_LOOKAHEAD = 3  # frames after a suspected cut that must not look like the one before it: a flash lasts no longer
_LOOKBACK = 8
_MIN_CUT, _CUT_RATIO = 0.22, 3.0  # of _difference; how far it stands out from its neighbours, which motion does not


class _Look(NamedTuple):
    """What a frame looks like from afar: [1024] luma of mean 0 and length 1 or, if flat, 0; [48] histogram of sum 1."""

    luma: Array
    colours: Array


def _look(frame: Image) -> _Look:
    step = max(1, min(frame.shape[:2]) // 96)
    small = cv2.resize(frame[::step, ::step], (32, 32), interpolation=cv2.INTER_AREA)
    luma = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (3, 3), 0).astype(np.float32).ravel()
    luma -= luma.mean()
    luma /= float(np.linalg.norm(luma)) + 64  # the noise of a black frame stays small
    bins = (small >> 4).reshape(-1, 3) + np.array([0, 16, 32])
    return _Look(luma, np.bincount(bins.ravel(), minlength=48).astype(np.float32) / bins.size)


def _difference(a: _Look, b: _Look) -> float:
    """0 equal .. about 1 nothing in common.

    Half from the arrangement of light, half from the colours, which count only as far as the arrangement has changed: a
    fade or a lamp changes colours alone.
    """
    arrangement = float(((a.luma - b.luma) ** 2).sum()) / 2
    colours = float(np.abs(a.colours - b.colours).sum()) / 2
    return (arrangement + min(arrangement, colours)) / 2


def split_shots(frames: Iterable[Image]) -> Iterator[tuple[Image, bool]]:
    """Each frame, with whether a new shot begins with it; some frames late.

    A cut stands out from the changes around it, and what follows is not what was before: fast motion fails the first
    test, a flash the second.
    """
    ahead: deque[tuple[Image, _Look, float]] = deque()  # frames not given yet, with their change from the one before
    changes: deque[float] = deque(maxlen=_LOOKBACK)  # of the frames given, the cuts left out
    before: deque[_Look] = deque(maxlen=_LOOKAHEAD + 1)  # of the frames given
    last: _Look | None = None  # of the newest frame

    def give() -> tuple[Image, bool]:
        frame, look, change = ahead.popleft()
        is_cut = not before
        if before and change >= _MIN_CUT:
            around = [*changes, *(other for _, _, other in ahead)]
            stands_out = change >= _CUT_RATIO * (float(np.median(around)) if around else 0.0)
            after = [look, *(later for _, later, _ in ahead)]
            is_cut = stands_out and all(_difference(x, y) >= change / 2 for x in after for y in before)
        changes.append(0.0 if is_cut else change)
        if is_cut:
            before.clear()
        before.append(look)
        return frame, is_cut

    for frame in frames:
        look = _look(frame)
        ahead.append((frame, look, 0.0 if last is None else _difference(look, last)))
        last = look
        if len(ahead) > _LOOKAHEAD:
            yield give()
    while ahead:
        yield give()


# ---------------------------------------------------------------------------------------------------------------------
# Tracks, in pieces.

_SEARCH_S = 0.4  # between looks for new faces
_SEARCH_FACE_PX = 40  # width of the smallest wanted face in the picture that is searched; Landmarker.detect finds it
_MAX_JUMP = 0.5  # in face widths from one frame to the next, at 25 frames a second: beyond it is somebody else
_MAX_GROWTH = 1.25  # of the crop's side by the face's wandering: beyond it the piece ends
_MARGIN = 1.15  # of the crop around the wandering face
_MAX_SHRINK, _MAX_SHIFT = 0.85, 0.12  # of the crop's side, to keep it inside the frame
_LOOK_S = 0.24  # between measurements of sharpness and stillness
_FACE_LOOK_PX = 128


class _Piece:
    """A part of one face's track: what will be one clip."""

    def __init__(self, start: int, step: float) -> None:
        """Args: start: number of its first frame in the video; step: frames of the video per frame of the clip."""
        self.start, self.end, self.step = start, start, step
        self.samples: list[int] = []  # numbers of the video's frames that the clip shows
        self.points: list[Array] = []
        self.blendshapes: list[Array] = []
        self.low, self.high = np.full(2, np.inf), np.full(2, -np.inf)  # of the face's box, over all frames
        self.heights: list[float] = []
        self.sharpness: list[float] = []
        self.looks: list[Image] = []
        self.num_crowded = self.num_outside = 0
        self.moved = False
        self.box: tuple[int, int, int] = (0, 0, 0)  # of the crop: left, top, side
        self.crops: list[Image] = []

    def __len__(self) -> int:
        return self.end - self.start

    def fits(self, face: Face, context: float) -> bool:
        """Whether the face is still inside a box that is not much larger than for a face that holds still."""
        left, top, right, bottom = face.box
        extent = np.maximum(self.high, [right, bottom]) - np.minimum(self.low, [left, top])
        height = float(np.median(self.heights)) if self.heights else bottom - top
        return float(extent.max()) * _MARGIN <= _MAX_GROWTH * context * height

    def add(self, index: int, frame: Image, face: Face, crowded: bool, look_every: int) -> None:
        left, top, right, bottom = face.box
        self.low, self.high = np.minimum(self.low, [left, top]), np.maximum(self.high, [right, bottom])
        self.end = index + 1
        self.num_crowded += crowded
        height, width = frame.shape[:2]
        outside = max(-left, -top, right - width, bottom - height)
        self.num_outside += outside > 0.1 * (bottom - top)
        if index - self.start == round(len(self.samples) * self.step):
            if len(self.samples) % look_every == 0:
                look = _face_look(frame, face)
                self.looks.append(cv2.resize(look, (32, 32), interpolation=cv2.INTER_AREA))
                self.sharpness.append(_sharpness(look))
            self.samples.append(index)
            self.points.append(face.points)
            self.blendshapes.append(face.blendshapes)
            self.heights.append(bottom - top)

    def join(self, other: _Piece) -> None:
        """Takes in the piece that follows."""
        for name in ("samples", "points", "blendshapes", "heights", "sharpness", "looks"):
            getattr(self, name).extend(getattr(other, name))
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.num_crowded += other.num_crowded
        self.num_outside += other.num_outside
        self.end = other.end


def _face_look(frame: Image, face: Face) -> Image:
    """The face's box, grey, [128, 128]."""
    left, top, right, bottom = (round(v) for v in face.box)
    part = frame[max(top, 0) : max(bottom, 1), max(left, 0) : max(right, 1)]
    if 0 in part.shape:
        return np.zeros((_FACE_LOOK_PX, _FACE_LOOK_PX), np.uint8)
    shrinks = part.shape[0] > _FACE_LOOK_PX
    grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
    return cv2.resize(
        grey, (_FACE_LOOK_PX, _FACE_LOOK_PX), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def _sharpness(look: Image) -> float:
    """Energy of the Laplacian of a face at 128 px over that of the grey values: independent of light and contrast."""
    laplacian = cv2.Laplacian(look, cv2.CV_32F)
    return float(laplacian.var() / (look.astype(np.float32).var() + 25))  # 5 grey values of noise are no contrast


class _Track:
    """One face of one shot, cut into pieces as it goes."""

    def __init__(self, face: Face, index: int, step: float) -> None:
        self.face = face
        self.piece = _Piece(index, step)
        self.full: _Piece | None = None  # of max_seconds; waits for a rest that is too short to stand alone

    @property
    def start(self) -> int:
        return self.full.start if self.full is not None else self.piece.start


class _FirstReading:
    """Tracks all faces of a video, frame by frame, and hands out finished pieces."""

    def __init__(self, config: PrepareConfig, landmarker: Landmarker, fps: float) -> None:
        self._config, self._landmarker = config, landmarker
        self._step = max(1.0, fps / config.fps)
        self._look_every = max(1, round(_LOOK_S * fps / self._step))
        self._search_every = max(1, round(_SEARCH_S * fps))
        self._min_frames = math.ceil(config.min_seconds * fps - 1e-6)
        self._max_frames = max(self._min_frames, round(config.max_seconds * fps))
        self._max_jump = _MAX_JUMP * max(1.0, 25 / fps)
        self._tracks: list[_Track] = []
        self._index = 0
        self._searched = -self._search_every
        self.found_any = False

    @property
    def open_from(self) -> int:
        """Number of the first frame that a piece may still need that was not handed out."""
        return min((track.start for track in self._tracks), default=self._index)

    def add(self, frame: Image, is_cut: bool) -> list[_Piece]:
        """Takes the next frame; gives the pieces that ended before it."""
        ended: list[_Piece] = []
        if is_cut:
            ended += self.close()
            self._searched = self._index - self._search_every

        # Known faces.
        followed: list[_Track] = []
        for track in self._tracks:
            face = self._landmarker.follow(frame, track.face)
            if face is None or not self._continues(track.face, face) or self._is_taken(face, followed):
                ended += self._finished(track)
                self._searched = self._index - self._search_every
                continue
            track.face = face
            followed.append(track)
        self._tracks = followed

        # New faces.
        if self._index - self._searched >= self._search_every:
            self._searched = self._index
            for face in self._search(frame):
                if not self._is_taken(face, self._tracks):
                    self._tracks.append(_Track(face, self._index, self._step))
                    self.found_any = True

        for track in self._tracks:
            if len(track.piece) >= self._max_frames:
                ended += [track.full] if track.full is not None else []
                track.full, track.piece = track.piece, _Piece(self._index, self._step)
            elif not track.piece.fits(track.face, self._config.context):
                track.piece.moved = True
                ended += self._finished(track)
                track.full, track.piece = None, _Piece(self._index, self._step)
            crowded = any(self._is_clear(o) and _crowds(o.face, track.face, self._config.context) for o in self._tracks)
            track.piece.add(self._index, frame, track.face, crowded, self._look_every)
        self._index += 1
        return ended

    def close(self) -> list[_Piece]:
        """Ends all tracks: the shot or the video is over."""
        ended = [piece for track in self._tracks for piece in self._finished(track)]
        self._tracks = []
        return ended

    def _finished(self, track: _Track) -> list[_Piece]:
        if track.full is not None and len(track.piece) < self._min_frames:
            track.full.join(track.piece)
            return [track.full]
        return [piece for piece in (track.full, track.piece) if piece is not None and len(piece)]

    def _search(self, frame: Image) -> Iterator[Face]:
        """Faces of the frame, searched in a picture where the smallest that is wanted is just found."""
        k = min(1.0, _SEARCH_FACE_PX / self._config.min_face_px)
        if max(frame.shape[:2]) * k < 320:
            k = min(1.0, 320 / max(frame.shape[:2]))
        small = frame if k == 1 else cv2.resize(frame, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
        for found in self._landmarker.detect(small):
            if k == 1:
                yield found
            else:
                near = Face(found.points / np.float32(k), found.blendshapes, found.score)
                face = self._landmarker.follow(frame, near)
                if face is not None:
                    yield face

    def _continues(self, old: Face, new: Face) -> bool:
        moved = np.linalg.norm(old.points[:, :2].mean(0) - new.points[:, :2].mean(0))
        ratio = new.width_px / max(old.width_px, 1e-3)
        return bool(moved < self._max_jump * old.width_px) and 0.6 < ratio < 1.7

    def _is_clear(self, track: _Track) -> bool:
        """Whether it is sharp enough to be somebody; what the landmarker sees in a blurred background never is."""
        values = track.piece.sharpness or (track.full.sharpness if track.full is not None else [0.0])
        return float(np.median(values)) >= self._config.min_sharpness

    def _is_taken(self, face: Face, tracks: Sequence[_Track]) -> bool:
        middle = face.points[:, :2].mean(0)
        for track in tracks:
            distance = np.linalg.norm(track.face.points[:, :2].mean(0) - middle)
            if distance < 0.5 * max(track.face.width_px, face.width_px):
                return True
        return False


def _crowds(other: Face, face: Face, context: float) -> bool:
    """Whether another face lies over this one, or stands large and whole in its crop."""
    if other is face:
        return False
    left, top, right, bottom = face.box
    width, height = right - left, bottom - top
    middle = np.array([left + right, top + bottom]) / 2

    def shared(half: NDArray[Any]) -> float:
        """Area of the other face's box inside a box around the middle, in square pixels."""
        low = np.maximum(middle - half, other.box[:2])
        high = np.minimum(middle + half, other.box[2:])
        return float(np.clip(high - low, 0, None).prod())

    other_area = other.width_px * (other.box[3] - other.box[1])
    lies_over = shared(np.array([width, height]) * 0.6) > 0.05 * width * height
    stands_in = other.width_px > 0.35 * width and shared(np.full(2, context * height / 2)) > 0.6 * other_area
    return lies_over or stands_in


# ---------------------------------------------------------------------------------------------------------------------
# Judging a piece.

_STILL_SHAPE, _STILL_PIXELS = 0.0025, 2.5  # a photo: points in face widths, grey values; both below
_MAX_YAW = 60.0  # degrees; beyond it the landmarker invents the far half
_MAX_CROWDED, _MAX_OUTSIDE = 0.1, 0.25  # of the frames


def _judge(piece: _Piece, config: PrepareConfig, fps: float) -> Rejection | None:
    """Why a piece is not kept, or None; the cheapest and plainest reasons first."""
    start_s, end_s = piece.start / fps, piece.end / fps

    def reject(reason: Reason, detail: str) -> Rejection:
        return Rejection(reason, detail, round(start_s, 3), round(end_s, 3))

    widths = [float(np.ptp(points[:, 0])) for points in piece.points]
    width = float(np.median(widths))
    if len(piece) < config.min_seconds * fps - 1e-6:
        if piece.moved:
            return reject(Reason.MOVES, f"the face leaves the crop after {end_s - start_s:.2f} s")
        return reject(Reason.TOO_SHORT, f"the face is seen for {end_s - start_s:.2f} s")
    if width < config.min_face_px:
        return reject(Reason.TOO_SMALL, f"the face is {width:.0f} px wide")
    if piece.num_outside > _MAX_OUTSIDE * len(piece):
        return reject(Reason.OUT_OF_FRAME, "the picture's border cuts through the face")
    if piece.num_crowded > _MAX_CROWDED * len(piece):
        return reject(Reason.OVERLAPPING, f"another face is in the way in {piece.num_crowded} of {len(piece)} frames")
    yaw = float(np.median([abs(head_pose(points).degrees[0]) for points in piece.points]))
    if yaw > _MAX_YAW:
        return reject(Reason.TURNED_AWAY, f"the head is turned by {yaw:.0f} degrees")
    sharpness = float(np.median(piece.sharpness))
    if sharpness < config.min_sharpness:
        return reject(Reason.BLURRED, f"sharpness {sharpness:.4f}")
    shape, pixels = _stillness(piece, width)
    if shape < _STILL_SHAPE and pixels < _STILL_PIXELS:
        return reject(Reason.STILL, f"points move by {100 * shape:.2f} % of the face, pixels by {pixels:.1f}")
    return None


def _stillness(piece: _Piece, width: float) -> tuple[float, float]:
    """How much a face moves in itself: its points, in face widths, and its pixels, in grey values.

    Shift, zoom and roll are taken out: a photo that the camera pans over is still.
    """
    points = np.array(piece.points)[:, :, :2].astype(np.float64)
    z = points[..., 0] + 1j * points[..., 1]  # a similarity in the plane is one complex factor
    z -= z.mean(1, keepdims=True)
    mean = z[0]
    for _ in range(2):
        factor = (z.conj() * mean).sum(1) / (np.abs(z) ** 2).sum(1)
        aligned = factor[:, None] * z
        mean = aligned.mean(0)
    shape = float(np.sqrt((np.abs(aligned - mean) ** 2).mean())) / width
    looks = np.array(piece.looks, np.float32)
    return shape, float(np.abs(looks - looks.mean(0)).mean())


# ---------------------------------------------------------------------------------------------------------------------
# Cutting and packing a piece.


def _place(piece: _Piece, config: PrepareConfig, width: int, height: int) -> None:
    """Fixes the box of a piece in frames of this size.

    It is `context` heights of the face wide, or as wide as the face's wandering takes, around the middle of that. Where
    it would reach beyond the frame it gives way a little, in size and place: a repeated border is no background.
    """
    extent = float((piece.high - piece.low).max()) * _MARGIN
    wanted = max(config.context * float(np.median(piece.heights)), extent)
    side = max(1, round(float(np.clip(min(width, height), max(_MAX_SHRINK * wanted, extent), wanted))))
    corner = (piece.low + piece.high) / 2 - side / 2
    inside = np.clip(corner, 0, np.maximum([width - side, height - side], 0))
    room = np.clip((side - _MARGIN * (piece.high - piece.low)) / 2, 0, _MAX_SHIFT * side)
    left, top = np.round(np.clip(inside, corner - room, corner + room)).astype(int)
    piece.box = int(left), int(top), side


def cut(frame: Image, box: tuple[int, int, int], size: int) -> Image:
    """The square left, top, side of a frame as [size, size, 3]; beyond the frame its border is repeated."""
    left, top, side = box
    height, width = frame.shape[:2]
    part = frame[max(top, 0) : max(top + side, 1), max(left, 0) : max(left + side, 1)]
    beyond = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    if any(beyond):
        part = cv2.copyMakeBorder(part, *beyond, cv2.BORDER_REPLICATE)
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(part, (size, size), interpolation=interpolation)


def _pack(piece: _Piece, config: PrepareConfig, fps: float) -> Clip:
    from mimik.data.tracks import pack_tracks

    left, top, side = piece.box
    k = np.float32(config.size / side)
    points = (np.array(piece.points, np.float32) - np.array([left, top, 0], np.float32)) * k
    blendshapes = np.array(piece.blendshapes, np.float32)
    pose = np.array([head_pose(frame).degrees for frame in points], np.float32)
    clip_fps = fps / piece.step
    info = {
        "num_frames": len(piece.samples),
        "fps": round(clip_fps, 4),
        "size": config.size,
        "start_s": round(piece.start / fps, 3),
        "end_s": round(piece.end / fps, 3),
        "box": [left, top, side],
        "face_px": round(float(np.median(np.ptp(points[:, :, 0], axis=1))), 1),
        "sharpness": round(float(np.median(piece.sharpness)), 4),
        "yaw_range": [round(float(pose[:, 0].min()), 1), round(float(pose[:, 0].max()), 1)],
        "fingerprint": fingerprint(piece.crops, blendshapes, pose),
    }
    mp4 = video.encode_clip(piece.crops, clip_fps, quality=config.crf, gop=config.gop)
    return Clip(info, mp4, pack_tracks(points, blendshapes, pose))


class _SecondReading:
    """Reads the same video again, behind the first reading, and cuts the accepted pieces."""

    def __init__(self, frames: Generator[Image], config: PrepareConfig, info: video.VideoInfo) -> None:
        self._frames, self._config, self._info = frames, config, info
        self._index = 0
        self._waiting: list[_Piece] = []

    def accept(self, piece: _Piece) -> None:
        _place(piece, self._config, self._info.width, self._info.height)
        self._waiting.append(piece)

    def advance(self, until: int) -> Iterator[Clip]:
        """Reads the frames before number `until`, if any piece waits for them; gives the clips that are complete."""
        while self._waiting and self._index < until:
            frame = next(self._frames, None)
            if frame is None:  # the file shrank while it was read
                self._waiting.clear()
                return
            for piece in list(self._waiting):
                if len(piece.crops) < len(piece.samples) and piece.samples[len(piece.crops)] == self._index:
                    piece.crops.append(cut(frame, piece.box, self._config.size))
                if len(piece.crops) == len(piece.samples):
                    self._waiting.remove(piece)
                    yield _pack(piece, self._config, self._info.fps)
            self._index += 1


# ---------------------------------------------------------------------------------------------------------------------
# Duplicates.

_SIGNALS = [BLENDSHAPES.index(name) for name in ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft", "browInnerUp")]
_SIGNAL_TIMES = 16
# Of 128 bits; root mean square in steps of half a degree or a hundredth. A copy at crf 26 measured 6 and 1.0, the
# nearest two clips of one person in one place 10 and 8.9.
_MAX_BITS, _MAX_SIGNAL = 20, 3.0


def fingerprint(crops: Sequence[Image], blendshapes: Array, pose: Array) -> str:
    """What tells a clip from all others but its copies, as hexadecimal digits.

    The mean picture as 128 signs of its horizontal differences, and head pose and four blendshapes at 16 relative
    times: the same person in the same place says something else, and turns the head at other times.

    Args:
        crops: [T] of uint8 RGB [H, W, 3].
        blendshapes: [T, 52].
        pose: [T, 3] yaw, pitch, roll in degrees.
    """
    at = np.linspace(0, len(crops) - 1, _SIGNAL_TIMES).round().astype(int)
    thumbs = [cv2.resize(crops[i], (17, 8), interpolation=cv2.INTER_AREA) for i in at[::2]]
    grey = np.mean(thumbs, axis=(0, 3))
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    signals = np.concatenate([pose[at] * 2, blendshapes[at][:, _SIGNALS] * 100], axis=1)
    return bits.tobytes().hex() + np.clip(signals.round(), -127, 127).astype(np.int8).tobytes().hex()


class Fingerprints:
    """Finds copies among many clips: those that share one of eight bands of 16 bits are compared in full."""

    def __init__(self) -> None:
        self._bands: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(8)]
        self._keys: list[str] = []
        self._codes: list[bytes] = []

    def find(self, code: str) -> str | None:
        """Key of the first clip whose fingerprint is near this one."""
        data = bytes.fromhex(code)
        near = sorted({i for n, band in enumerate(self._bands) for i in band.get(data[2 * n : 2 * n + 2], ())})
        if not near:
            return None
        others = np.frombuffer(b"".join(self._codes[i] for i in near), np.uint8).reshape(len(near), -1)
        own = np.frombuffer(data, np.uint8)
        bits = np.unpackbits(others[:, :16] ^ own[:16], axis=1).sum(1)
        signals = others[:, 16:].view(np.int8).astype(np.float32) - own[16:].view(np.int8).astype(np.float32)
        distance = np.sqrt((signals**2).mean(1))
        hits = np.flatnonzero((bits <= _MAX_BITS) & (distance <= _MAX_SIGNAL))
        return self._keys[near[hits[0]]] if len(hits) else None

    def add(self, key: str, code: str) -> None:
        data = bytes.fromhex(code)
        for n, band in enumerate(self._bands):
            band[data[2 * n : 2 * n + 2]].append(len(self._keys))
        self._keys.append(key)
        self._codes.append(data)


# ---------------------------------------------------------------------------------------------------------------------
# One video.


@functools.cache
def _landmarker() -> Landmarker:
    """One a process; compiling the networks takes half a second."""
    return Landmarker()


def prepare_video(
    path: Path,
    config: PrepareConfig,
    *,
    on_clip: Callable[[Clip], None] | None = None,
    beat: workers.Beat = workers.no_beat,
) -> VideoResult:
    """All that is to be kept of one video.

    Args:
        path: the video.
        config: settings; the same ones give the same bytes.
        on_clip: takes each clip as soon as it is made; without it the result holds them all in memory.
        beat: called for every frame, so that somebody can see that the work goes on.

    Returns:
        Never raises because of the video: what is wrong with it is among the rejections.
    """
    start = time.process_time()
    clips: list[Clip] = []
    rejections: list[Rejection] = []
    sha256 = None
    num_frames, fps = 0, 1.0
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        info = video.probe(path)
        fps = info.fps
        first = _FirstReading(config, _landmarker(), fps)
        with (
            closing(video.read_frames(path, num_threads=1)) as frames,
            closing(video.read_frames(path, num_threads=1)) as again,
        ):
            second = _SecondReading(again, config, info)

            def settle(pieces: Iterable[_Piece], until: int) -> None:
                for piece in pieces:
                    rejection = _judge(piece, config, fps)
                    if rejection is None:
                        second.accept(piece)
                    else:
                        rejections.append(rejection)
                for clip in second.advance(until):
                    beat()
                    (on_clip or clips.append)(clip)

            for frame, is_cut in split_shots(frames):
                pieces = first.add(frame, is_cut)
                num_frames += 1
                settle(pieces, first.open_from)
                beat()
            settle(first.close(), num_frames)
        if not first.found_any:
            rejections.append(Rejection(Reason.NO_FACE, f"no face in {num_frames} frames"))
    except MediaError as error:
        rejections.append(Rejection(Reason.UNREADABLE, str(error).replace(str(path), path.name)))
    except OSError as error:
        rejections.append(Rejection(Reason.UNREADABLE, f"{path.name} cannot be read ({error.strerror})"))
    except Exception as error:  # the boundary of one item: one bad video never ends a run
        log.warning("%s: %s", path, error, exc_info=True)
        rejections.append(Rejection(Reason.ERROR, f"{type(error).__name__}: {error}"))
    seconds = time.process_time() - start
    return VideoResult(tuple(clips), tuple(rejections), sha256, round(num_frames / fps, 3), round(seconds, 3))


# ---------------------------------------------------------------------------------------------------------------------
# Inputs and people.


@dataclass(frozen=True)
class Source:
    """One video of the inputs.

    Attributes:
        path: of the file.
        name: relative to its input folder, with slashes; stands in the index and decides the clips' keys.
        person: who is seen; None: each clip is a person of its own, or clustering will tell.
        licence: as the manifest states it.
    """

    path: Path
    name: str
    person: str | None = None
    licence: str | None = None

    @property
    def key(self) -> str:
        """The beginning of its clips' keys, [0-9a-f]{10}."""
        return hashlib.sha1(self.name.encode(), usedforsecurity=False).hexdigest()[:10]


def find_sources(inputs: Sequence[Path], *, skip: Path | None = None) -> list[Source]:
    """The videos among the inputs, in a stable order: folders recursively, by suffix; files whatever they are called.

    Args:
        inputs: files and folders.
        skip: a folder that is not searched, such as the output.

    Raises:
        InputError: if an input is missing, there is no video, or two would have the same name in the index.
    """
    if not inputs:
        raise InputError("no video was given; give video files or folders of them.")
    found: dict[str, Source] = {}
    for given in inputs:
        if not given.exists():
            raise InputError(f"{given} does not exist; give video files or folders of them.")
        if given.is_dir():
            paths = sorted(
                path
                for path in given.rglob("*")
                if path.suffix.lower() in VIDEO_SUFFIXES
                and not any(part.startswith(".") for part in path.relative_to(given).parts)
                and not (skip is not None and path.resolve().is_relative_to(skip.resolve()))
                and path.is_file()
            )
        else:
            paths = [given]
        for path in paths:
            name = path.relative_to(given).as_posix() if given.is_dir() else path.name
            other = found.get(name)
            if other is not None and not other.path.samefile(path):
                raise InputError(
                    f"{other.path} and {path} would both be {name!r} in the index; give the folder above both."
                )
            found.setdefault(name, Source(path, name))
    if not found:
        raise InputError(
            f"no video in {', '.join(map(str, inputs))}; give files ending in {', '.join(VIDEO_SUFFIXES)}."
        )
    return list(found.values())


def read_manifest(path: Path) -> dict[str, tuple[str | None, str | None]]:
    """(person, licence) by the clip's path, file name or stem.

    Args:
        path: CSV with a header; columns clip or path, and person, licence where known. Others are not read.

    Raises:
        InputError: if it cannot be read or has no column clip or path.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--manifest {path}: cannot be read ({error}); give a CSV file in UTF-8.") from error
    columns = set(rows[0]) if rows else set()
    name = next((column for column in ("path", "clip") if column in columns), None)
    if name is None:
        raise InputError(f"--manifest {path}: has no column 'clip' or 'path'; give those and person, licence.")
    return {row[name]: (row.get("person") or None, row.get("licence") or row.get("license") or None) for row in rows}


def choose_people(
    sources: Sequence[Source], people: str | None, manifest: Path | None
) -> tuple[list[Source], str, str]:
    """Sources with their people, how these are known (one of PEOPLE), and a sentence about it.

    Raises:
        InputError: if people is unknown or does not fit the inputs.
    """
    if people is not None:
        settings._choice("--people", people, PEOPLE)
    has_folders = all("/" in source.name for source in sources)
    if people == "manifest" and manifest is None:
        raise InputError("--people manifest: give the file too, --manifest CLIPS.csv.")
    if manifest is not None and people not in (None, "manifest"):
        raise InputError(f"--people {people}: does not go with --manifest; leave one of them out.")
    if manifest is not None:
        table = read_manifest(manifest)
        named, num_missing = [], 0
        for source in sources:
            names = (source.name, Path(source.name).name, Path(source.name).stem)
            row = next((table[name] for name in names if name in table), None)
            num_missing += row is None
            named.append(Source(source.path, source.name, *(row or (None, None))))
        said = f"people from {manifest.name}"
        if num_missing:
            said += f"; {num_missing} videos are not in it, each of their clips is a person of its own"
        return named, "manifest", said
    if people == "folder" or (people is None and has_folders and len({s.name.split("/")[0] for s in sources}) > 1):
        flat = next((source for source in sources if "/" not in source.name), None)
        if flat is not None:
            raise InputError(f"--people folder: {flat.path} is in no folder of a person; give the folder above these.")
        return (
            [Source(s.path, s.name, s.name.split("/")[0], s.licence) for s in sources],
            "folder",
            "people from the first folder of each path; --people tells otherwise",
        )
    if people is None:
        if importlib.util.find_spec("torch") is not None:
            return list(sources), "cluster", "people by clustering their faces; --people tells otherwise"
        return list(sources), "clip", "each clip a person of its own, as torch is not installed; see --people"
    said = "people by clustering their faces" if people == "cluster" else "each clip a person of its own"
    return list(sources), people, said


def cluster_people(embeddings: Array, threshold: float = 0.45) -> list[int]:
    """Who is the same person: Chinese whispers (Biemann 2006) on the graph of embeddings that are near each other.

    Distances are computed by blocks, only near pairs are kept. Deterministic: nodes take turns in their order, ties go
    to the smaller number.

    Args:
        embeddings: [N, D]; of dlib's 128 numbers the same person's differ by less than 0.6.
        threshold: Euclidean distance below which two are linked, the more strongly the nearer. On 213 clips of 119
            people, of the pairs put together 88 % were right at 0.45 and 57 % at 0.5.

    Returns:
        A number per embedding; people are numbered from 0 in the order of their first embedding.
    """
    num = len(embeddings)
    x = np.asarray(embeddings, np.float32)
    square = (x * x).sum(1)
    neighbours: list[NDArray[np.int64]] = []
    weights: list[Array] = []
    for begin in range(0, num, 1024):
        block = x[begin : begin + 1024]
        distance = np.sqrt(np.clip(square[begin : begin + 1024, None] + square - 2 * block @ x.T, 0, None))
        for i, row in enumerate(distance, start=begin):
            near = np.flatnonzero(row < threshold)
            near = near[near != i]
            neighbours.append(near)
            weights.append(1 - row[near] / threshold)
    labels = np.arange(num)
    for _ in range(50):
        changed = False
        for i in range(num):
            if not len(neighbours[i]):
                continue
            found, where = np.unique(labels[neighbours[i]], return_inverse=True)
            best = found[np.argmax(np.bincount(where, weights[i]))]
            changed = changed or best != labels[i]
            labels[i] = best
        if not changed:
            break
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(label), len(numbers)) for label in labels]


# ---------------------------------------------------------------------------------------------------------------------
# Many videos: worker processes, or a Ray cluster.


class Task(NamedTuple):
    """What a worker is asked for; spool is a file for the clips, so that they need not fit into memory."""

    path: Path
    config: PrepareConfig
    spool: Path | None


def _work(task: Task, beat: workers.Beat) -> VideoResult:
    if task.spool is None:
        return prepare_video(task.path, task.config, beat=beat)
    with task.spool.open("wb") as file:
        return prepare_video(task.path, task.config, on_clip=lambda clip: pickle.dump(clip, file), beat=beat)


def _clips(result: VideoResult, task: Task) -> Iterator[Clip]:
    """The clips of a finished task; the spool, which this program alone wrote, is gone afterwards."""
    yield from result.clips
    if task.spool is not None and task.spool.exists():
        with task.spool.open("rb") as file:
            while file.peek(1):
                yield pickle.load(file)
        task.spool.unlink()


def _results(
    tasks: Sequence[Task], cores: int, ray: str | bool, stall_s: float
) -> Generator[VideoResult | workers.Lost]:
    """The result of each task, in order."""
    if not ray:
        return workers.pool_results(_work, tasks, cores, stall_s=stall_s, warm_up=_landmarker)
    address = ray if isinstance(ray, str) else None
    return workers.ray_results(_work, tasks, address=address, num_workers=cores, timeout_s=48 * stall_s)


def _of_lost(lost: workers.Lost, task: Task) -> VideoResult:
    """What stands for a video whose worker was lost."""
    if task.spool is not None:
        task.spool.unlink(missing_ok=True)  # what it holds may be cut off
    reason = Reason.WORKER_DIED if lost.cause is workers.Cause.DIED else Reason.TIMED_OUT
    return VideoResult((), (Rejection(reason, lost.detail),))


# ---------------------------------------------------------------------------------------------------------------------
# The one writer.

_UNKNOWN = "unknown"  # the person until clustering; as long as the names that it gives, so lines keep their length
_COMMIT_S = 2.0


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(", ", ": ")).encode() + b"\n"


def _records(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        return [json.loads(line) for line in file]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_whole(path: Path, data: bytes) -> None:
    """Puts a file in place in one step."""
    draft = path.with_name(f".{path.name}.part")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    _sync_folder(path.parent)


def _open_at(path: Path, size: int) -> IO[bytes]:
    """A file to append to, cut off at the size that was committed."""
    if not path.exists():
        path.touch()
    there = path.stat().st_size
    if there < size:
        raise InputError(f"{path} is shorter than state.json says; the folder is damaged, give a new one.")
    file = path.open("r+b")
    if there > size:
        file.truncate(size)
    file.seek(size)
    return file


class _Output:
    """The folder of shards: appends clips, and commits.

    What state.json names is committed: the number of the open shard, and how many bytes of each file count. Opening the
    folder cuts off everything beyond. An open shard is clips-NNNNNN.tar.part with its index lines beside it; when it
    is full it gets its name, and its lines go to index.jsonl.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], shard_bytes: int) -> None:
        self.folder, self._shard_bytes = folder, shard_bytes
        self._lock = self._lock_folder()
        self._check_config(config)
        for path in folder.glob(".work-*"):
            shutil.rmtree(path, ignore_errors=True)
        self._committed_s, self._is_dirty = 0.0, False
        self._reopen()

    def _lock_folder(self) -> IO[str]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise InputError(
                f"-o {self.folder}: cannot be written to ({error.strerror}); give another folder."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"-o {self.folder}: another run is writing there; wait for it or give another folder."
            ) from error
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
        path = self.folder / "config.json"
        if not path.exists():
            if any(self.folder.glob("clips-*")) or (self.folder / "index.jsonl").exists():
                raise InputError(f"-o {self.folder}: holds shards without config.json; give an empty or new folder.")
            _write_whole(path, json.dumps(config, indent=2).encode() + b"\n")
            return
        try:
            old = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path} is damaged; give a new folder.") from error
        differ = sorted(name for name in {*old, *config} if old.get(name) != config.get(name))
        if differ:
            name = differ[0]
            raise InputError(
                f"-o {self.folder}: was made with {name} {old.get(name)}, not {config.get(name)}; give the same "
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
        return _records(self.folder / "index.jsonl") + _records(self._path("jsonl.part"))

    def done(self) -> dict[str, dict[str, Any]]:
        """Finished videos by the names of their sources."""
        self._flush()
        return {record["source"]: record for record in _records(self.folder / "done.jsonl")}

    def add_clip(self, entry: Mapping[str, Any], clip: Clip) -> None:
        """Appends a clip; entry is its index line without its place."""
        if self._tar.tell() >= 2 * self._shard_bytes:  # within one long video
            self._close_shard()
        members = {}
        for name, data in (("mp4", clip.mp4), ("npz", clip.npz), ("json", _line(entry))):
            info = tarfile.TarInfo(f"{entry['key']}.{name}")
            info.size, info.mode = len(data), 0o644
            self._tar.write(info.tobuf(tarfile.USTAR_FORMAT))
            members[name] = [self._tar.tell(), len(data)]
            self._tar.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        place = {"shard": self._path("tar").name, "members": members}
        self._lines.write(_line({"key": entry["key"], **place, **entry}))

    def add_rejection(self, record: Mapping[str, Any]) -> None:
        self._rejected.write(_line(record))

    def finish_video(self, record: Mapping[str, Any]) -> None:
        """All of a video was added; from here on it may be committed, and sometimes is."""
        self._done.write(_line(record))
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
        """Makes everything so far permanent, in one step."""
        self._flush()
        files = {"tar": self._tar, "lines": self._lines, "index": self._index}
        files |= {"rejected": self._rejected, "done": self._done}
        for file in files.values():
            os.fsync(file.fileno())
        state = {"shard": self._shard, **{name: file.tell() for name, file in files.items()}}
        _write_whole(self.folder / "state.json", json.dumps(state).encode() + b"\n")
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
        data = b"".join(map(_line, entries))
        assert len(data) == self._index.tell(), "the lines of the index changed their length"
        self._index.close()
        _write_whole(self.folder / "index.jsonl", data)
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


# ---------------------------------------------------------------------------------------------------------------------
# A run.


@dataclass(frozen=True)
class Progress:
    """Where a run stands; videos that an earlier run finished are in done, not in the rate."""

    done: int  # videos
    total: int
    kept: int  # clips
    rejected: int  # tracks and videos
    footage_s: float  # read by this run
    elapsed_s: float

    @property
    def rate(self) -> float:
        """Seconds of video a second."""
        return self.footage_s / self.elapsed_s if self.elapsed_s > 0 else 0.0


@dataclass
class PrepareReport:
    """What stands in the folder of shards, and what this run did for it."""

    out: str
    num_videos: int = 0  # in the folder, of this run and earlier ones
    num_new: int = 0  # by this run
    num_clips: int = 0
    num_frames: int = 0
    num_people: int = 0
    num_shards: int = 0
    num_bytes: int = 0  # of the shards
    footage_hours: float = 0.0
    kept_hours: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)  # rejections by Reason, the most frequent first
    people: str = ""  # one of PEOPLE
    seconds: float = 0.0  # of this run
    worker_seconds: float = 0.0  # of one core, spent on the videos by all runs
    num_workers: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def videos_per_core_hour(self) -> float:
        return 3600 * self.num_videos / self.worker_seconds if self.worker_seconds else 0.0

    @property
    def footage_per_core(self) -> float:
        """Hours of video in an hour of one core."""
        return 3600 * self.footage_hours / self.worker_seconds if self.worker_seconds else 0.0

    def to_json(self) -> str:
        """The report as JSON text."""
        rates = {
            "videos_per_core_hour": round(self.videos_per_core_hour, 1),
            "footage_per_core": round(self.footage_per_core, 3),
        }
        return json.dumps({**asdict(self), **rates}, indent=2)

    def table(self) -> str:
        """What was kept, and what was not for which reason, as lines of text."""
        rows: list[tuple[str, str]] = [
            ("videos", f"{self.num_videos} ({self.footage_hours:.2f} h)"),
            ("clips kept", f"{self.num_clips} ({self.kept_hours:.2f} h, {self.num_frames} frames)"),
            ("people", str(self.num_people)),
            ("shards", f"{self.num_shards} ({self.num_bytes / 1e6:.1f} MB)"),
            *((reason, str(count)) for reason, count in self.reasons.items()),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


Embed = Callable[[Sequence[Image], Sequence[Array]], Array]


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
    credentials: provenance.Credentials | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> PrepareReport:
    """Videos -> a folder of shards; continues what is there.

    Args:
        inputs: video files and folders of them.
        out: the folder; made if it does not exist.
        config: what decides the content; must be that of the shards that are there.
        people: one of PEOPLE; None chooses: manifest if there is one, folders, clustering where torch is installed.
        manifest: CSV with columns clip or path, person, licence.
        num_workers: processes; None: one a core; 0: works in this process, where a crash ends the run.
        ray: True maps over a Ray cluster on this machine, an address over that one.
        stall_s: a worker that makes no frame for so long is given up, with its video; under Ray one that needs 48 times
            as long in all.
        embed: faces to embeddings, for clustering; features.FaceNet().embed_faces when None.
        credentials: who signs the contact sheet.
        progress: called after every video.

    Raises:
        InputError: if something given cannot be used, the settings are not those of the shards that are there, or the
            disk is full; what was committed stays.
    """
    config = config or PrepareConfig()
    start = time.perf_counter()
    sources, people, said = choose_people(find_sources(inputs, skip=out), people, manifest)
    log.info("%s", said)
    if num_workers is not None and num_workers < 0:
        raise InputError(f"--workers {num_workers}: give a number of processes, or 0 for this one.")
    cores = num_workers if num_workers is not None else os.cpu_count() or 1
    output = _Output(out, {"version": VERSION, "people": people, **asdict(config)}, config.shard_mb * 1_000_000)
    try:
        with closing(_Run(output, config, people)) as run:
            num_new = run.videos(sources, cores, ray, stall_s, progress)
            if people == "cluster":
                run.name_people(embed)
            report = run.report(num_new)
            report.notes.insert(0, said)
            report.num_workers = cores
            report.seconds = round(time.perf_counter() - start, 2)
            run.tell(report, credentials)
            return report
    except OSError as error:
        raise InputError(
            f"-o {out}: cannot be written to ({error.strerror or error}); what was finished is intact. Free some space "
            "and run the same command again: it continues."
        ) from error


class _Run:
    """One call of prepare() on one folder."""

    def __init__(self, output: _Output, config: PrepareConfig, people: str) -> None:
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
        progress: Callable[[Progress], None] | None,
    ) -> int:
        """Works on the sources that are not done; their number."""
        start = time.perf_counter()
        done = self._output.done()
        todo = [source for source in sources if source.name not in done]
        self._note_changed(sources, done)
        if not todo:
            self._output.finish()  # a run that was killed just before this left the last shard open
            return 0
        num_before, footage_s = len(sources) - len(todo), 0.0
        with tempfile.TemporaryDirectory(prefix=".work-", dir=self._output.folder) as folder:
            spools = [None if ray or cores == 0 else Path(folder, f"{i}.clips") for i in range(len(todo))]
            tasks = [Task(s.path, self._config, spool) for s, spool in zip(todo, spools, strict=True)]
            with closing(_results(tasks, cores, ray, stall_s)) as results:
                for number, (source, task, result) in enumerate(zip(todo, tasks, results, strict=True), start=1):
                    if isinstance(result, workers.Lost):
                        result = _of_lost(result, task)
                    self._add(source, task, result)
                    footage_s += result.footage_s
                    if progress is not None:
                        elapsed_s = time.perf_counter() - start
                        kept, rejected = self._num_kept, self._num_rejected
                        progress(Progress(num_before + number, len(sources), kept, rejected, footage_s, elapsed_s))
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
                f"{len(changed)} videos, such as {changed[0]}, have changed since they were prepared; the clips of the "
                "old ones stay. Prepare them into a new folder to replace them."
            )

    def _add(self, source: Source, task: Task, result: VideoResult) -> None:
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
            person = source.person or (_UNKNOWN if self._people == "cluster" else key)
            self._output.add_clip(
                {"key": key, "person": person, **origin, "licence": source.licence, **clip.info}, clip
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
        if all(entry["person"] != _UNKNOWN for entry in entries):
            return
        if embed is None:
            try:
                from mimik.networks.features import FaceNet
            except ImportError as error:
                raise InputError(
                    "--people cluster needs torch; install it with: pip install 'mimik[train]', or give --people clip."
                ) from error
            embed = FaceNet().embed_faces
        means = [embed(*_frontal_frames(self._output.folder, entry)).mean(0) for entry in entries]
        numbers = cluster_people(np.array(means, np.float32))
        for entry, number in zip(entries, numbers, strict=True):
            entry["person"] = f"p{number:06d}"
        self._output.rewrite_index(entries)

    def report(self, num_new: int) -> PrepareReport:
        folder = self._output.folder
        entries, done = self._output.entries(), self._output.done().values()
        reasons = Counter(record["reason"] for record in _records(folder / "rejected.jsonl"))
        shards = sorted({entry["shard"] for entry in entries})
        return PrepareReport(
            out=str(folder),
            num_videos=len(done),
            num_new=num_new,
            num_clips=len(entries),
            num_frames=sum(entry["num_frames"] for entry in entries),
            num_people=len({entry["person"] for entry in entries}),
            num_shards=len(shards),
            num_bytes=sum((folder / shard).stat().st_size for shard in shards),
            footage_hours=round(sum(record["footage_s"] for record in done) / 3600, 4),
            kept_hours=round(sum(entry["num_frames"] / entry["fps"] for entry in entries) / 3600, 4),
            reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
            people=self._people,
            worker_seconds=round(sum(record["seconds"] for record in done), 2),
            notes=self._notes,
        )

    def tell(self, report: PrepareReport, credentials: provenance.Credentials | None) -> None:
        """Writes the card and the contact sheet, unless they stand and nothing is new."""
        folder = self._output.folder
        if report.num_new == 0 and (folder / "README.md").exists():
            report.notes.append("all videos were prepared before; nothing was done")
            return
        entries = self._output.entries()
        _write_whole(folder / "README.md", dataset_card(report, entries, self._config).encode())
        if entries:
            path = folder / "contact_sheet.jpg"
            claim = provenance.Claim(path.name, "none", ())
            with provenance.seal(path, claim, credentials=credentials, force=True) as draft:
                draft.write_image(contact_sheet(folder, entries))


# ---------------------------------------------------------------------------------------------------------------------
# What people look at.

_SHEET_CLIPS, _SHEET_COLUMNS, _SHEET_PX, _SHEET_TEXT_PX = 240, 15, 128, 30
_FRONTAL_FRAMES = 3


def _read_clip(folder: Path, entry: Mapping[str, Any], wanted: Callable[[Any], Sequence[int]]) -> tuple[Any, ...]:
    """Some frames of a clip and their points; wanted chooses their numbers, in order, from the clip's tracks."""
    from mimik.data.tracks import unpack_tracks

    with (folder / entry["shard"]).open("rb") as file:

        def member(name: str) -> bytes:
            offset, size = entry["members"][name]
            file.seek(offset)
            return file.read(size)

        tracks, mp4 = unpack_tracks(member("npz")), member("mp4")
    numbers = list(wanted(tracks))
    frames = video.read_clip(mp4, numbers)
    return frames, [tracks.points[i] for i in numbers]


def _frontal_frames(folder: Path, entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """The frames of a clip in which the face looks most at the camera, and their points."""

    def wanted(tracks: Any) -> list[int]:
        away = np.abs(tracks.pose[:, :2]).sum(1)
        return sorted(np.argsort(away, kind="stable")[:_FRONTAL_FRAMES].tolist())

    return _read_clip(folder, entry, wanted)


def contact_sheet(folder: Path, entries: Sequence[Mapping[str, Any]]) -> Image:
    """The middle frame of each clip, of at most 240 evenly chosen ones, with landmarks, key and person.

    Returns:
        uint8 RGB [H, W, 3].
    """
    at = np.linspace(0, len(entries) - 1, min(len(entries), _SHEET_CLIPS)).round().astype(int)
    chosen = [entries[i] for i in at]
    columns = min(_SHEET_COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    height = _SHEET_PX + _SHEET_TEXT_PX
    sheet = np.full((max(rows * height, 64), max(columns * _SHEET_PX, 64), 3), 24, np.uint8)
    for i, entry in enumerate(chosen):
        (frame,), (points,) = _read_clip(folder, entry, lambda tracks: [len(tracks.points) // 2])
        lines = draw.landmark_image(points, entry["size"], entry["size"])
        drawn = np.where(lines.any(2, keepdims=True), frame // 2 + lines // 2, frame)
        drawn = cv2.resize(drawn, (_SHEET_PX, _SHEET_PX), interpolation=cv2.INTER_AREA)
        y, x = i // columns * height, i % columns * _SHEET_PX
        sheet[y : y + _SHEET_PX, x : x + _SHEET_PX] = drawn
        for line, text in enumerate((entry["key"], str(entry["person"])[-18:])):
            place = x + 3, y + _SHEET_PX + 12 + 13 * line
            cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (220, 220, 220), 1, cv2.LINE_AA)
    return sheet


def dataset_card(report: PrepareReport, entries: Sequence[Mapping[str, Any]], config: PrepareConfig) -> str:
    """README.md of the folder: what is in it, where it is from, how it was made, what it is for."""
    licences = Counter(entry["licence"] or "not stated" for entry in entries)
    rejected = "\n".join(f"| {reason} | {count} |" for reason, count in report.reasons.items()) or "| none | 0 |"
    stated = "\n".join(f"| {name} | {count} |" for name, count in sorted(licences.items())) or "| none | 0 |"
    options = "\n".join(f"| {one.name} | {getattr(config, one.name)} |" for one in fields(config))
    known = {
        "folder": "the first folder of each path",
        "manifest": "a manifest",
        "cluster": "clustering of face embeddings, which errs, most with people who look alike; these were not kept",
        "clip": "nothing: each clip counts as a person of its own",
    }[report.people]
    return f"""# Talking faces, prepared by mimik {VERSION}

**These are faces of people, and so are the landmarks: biometric data.** Many laws ask for a reason or for consent to
keep them. Do not use them to recognise anybody; delete a clip when its person asks for it: `index.jsonl` tells the key
and the shard of each source.

| what | how much |
|---|---|
| videos read | {report.num_videos} ({report.footage_hours:.2f} h) |
| clips kept | {report.num_clips} ({report.kept_hours:.2f} h, {report.num_frames} frames) |
| people | {report.num_people}, told by {known} |
| shards | {report.num_shards} ({report.num_bytes / 1e6:.1f} MB) |

## Rights
As stated for the sources; mimik checked none of it. "Not stated" is no permission.

| licence | clips |
|---|---|
{stated}

## Not kept
Tracks and videos by reason; `rejected.jsonl` lists each.

| reason | how many |
|---|---|
{rejected}

## How it was made
Shots are split at cuts; every face is tracked in each; a track is cut into pieces, each cropped with one fixed box
around its whole motion, and resampled. Landmarks (478 points), 52 blendshapes and head pose were measured in the source
at its own resolution. The same videos, settings and versions give the same bytes.

| setting | value |
|---|---|
{options}

## What is where
- `clips-NNNNNN.tar`: WebDataset shards; per clip KEY.mp4 (H.264), KEY.npz (mimik.data.tracks.unpack_tracks), KEY.json
- `index.jsonl`: a line per clip, with the byte ranges of its members
- `rejected.jsonl`, `done.jsonl`, `config.json`, `state.json`: what was not kept, what was read, with which settings,
  and how far; `mimik prepare` continues from them
- `contact_sheet.jpg`: a frame of each clip

## What it is for
Training and measuring models that animate faces. Hold out people, not clips. Who is missing in the sources is missing
here: small, turned, covered and quickly moving faces are left out on purpose, which is not the same for all people.
"""
