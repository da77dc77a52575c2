"""Second reading of a video: pieces are cropped, encoded, and packed with their landmarks."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

from mimik import workers
from mimik.config import MediaError, counted
from mimik.data.preparation.duplicates import fingerprint
from mimik.data.preparation.face_tracks import CROP_MARGIN, MAX_SHIFT, MAX_SHRINK, Piece, TrackingPass, reason_to_reject
from mimik.data.preparation.settings import Clip, PrepareConfig, Reason, Rejection, VideoResult
from mimik.data.preparation.shots import split_shots
from mimik.data.tracks import pack_tracks
from mimik.face.landmarks import Image, head_pose, process_landmarker
from mimik.media import video

log = logging.getLogger(__name__)


def _fix_box(piece: Piece, config: PrepareConfig, width: int, height: int) -> None:
    """Fixes the box of a piece in frames of this size.

    It is `context` face heights wide, or wide enough for the motion of the face, and centered on that motion. If it
    extends beyond the frame, it is shrunk and shifted slightly, because a replicated border is not real background.
    """
    extent = float((piece.high - piece.low).max()) * CROP_MARGIN
    wanted = max(config.context * float(np.median(piece.heights)), extent)
    side = max(1, round(float(np.clip(min(width, height), max(MAX_SHRINK * wanted, extent), wanted))))
    corner = (piece.low + piece.high) / 2 - side / 2
    inside = np.clip(corner, 0, np.maximum([width - side, height - side], 0))
    room = np.clip((side - CROP_MARGIN * (piece.high - piece.low)) / 2, 0, MAX_SHIFT * side)
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


def pack_clip(piece: Piece, config: PrepareConfig, fps: float) -> Clip:
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


class CroppingPass:
    """Reads the same video again, behind the first reading, and crops the accepted pieces."""

    def __init__(self, frames: Generator[Image], config: PrepareConfig, size: tuple[int, int], fps: float) -> None:
        """Args: size: width and height of the frames; fps: of the video."""
        self._frames, self._config, self._size, self._fps = frames, config, size, fps
        self._index = 0
        self._waiting: list[Piece] = []

    def accept(self, piece: Piece) -> None:
        _fix_box(piece, self._config, *self._size)
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
                    yield pack_clip(piece, self._config, self._fps)
            self._index += 1


class UnwritableError(Exception):
    """A clip cannot be stored, such as on a full disk; says nothing about its video."""


def prepare_video(
    path: Path,
    config: PrepareConfig,
    *,
    on_clip: Callable[[Clip], None] | None = None,
    beat: workers.Beat = workers.ignore_heartbeat,
) -> VideoResult:
    """Prepare one video or picture; a picture is a clip of one frame.

    Args:
        path: the video or picture.
        config: settings; the same ones give the same bytes.
        on_clip: receives each clip as soon as it is complete; without it, the result holds all clips in memory.
        beat: heartbeat, called for every frame.

    Returns:
        The clips and rejections. Errors of the video are reported as rejections, not raised.

    Raises UnwritableError if on_clip does.
    """
    start = time.process_time()
    clips: list[Clip] = []
    rejections: list[Rejection] = []
    sha256 = None
    num_frames, fps, is_picture = 0, 1.0, False
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        is_picture = video.kind(path) == "image"
        if is_picture:
            picture = video.read_image(path)
            height, width = picture.shape[:2]
            fps = 1 / config.min_seconds  # as if it was shown for that long
            readings = [(frame for frame in (picture,)) for _ in range(2)]
        else:
            info = video.probe(path)
            width, height, fps = info.width, info.height, info.fps
            readings = [video.read_frames(path, num_threads=1) for _ in range(2)]
        first = TrackingPass(config, process_landmarker(), fps)
        with closing(readings[0]) as frames, closing(readings[1]) as again:
            second = CroppingPass(again, config, (width, height), fps)

            def settle(pieces: Iterable[Piece], until: int) -> None:
                for piece in pieces:
                    rejection = reason_to_reject(piece, config, fps)
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
            where = "the picture" if is_picture else counted(num_frames, "frame")
            rejections.append(Rejection(Reason.NO_FACE, f"no face in {where}"))
    except UnwritableError:
        raise
    except MediaError as error:
        rejections.append(Rejection(Reason.UNREADABLE, str(error).replace(str(path), path.name)))
    except OSError as error:
        rejections.append(Rejection(Reason.UNREADABLE, f"{path.name} cannot be read ({error.strerror})"))
    except Exception as error:  # the boundary of one item: one bad video never ends a run
        log.warning("%s: %s", path, error, exc_info=True)
        rejections.append(Rejection(Reason.ERROR, f"{type(error).__name__}: {error}"))
    seconds = time.process_time() - start
    footage_s = 0.0 if is_picture else round(num_frames / fps, 3)
    return VideoResult(tuple(clips), tuple(rejections), sha256, footage_s, round(seconds, 3))
