"""First reading of a video: face tracks, split into pieces that fit one crop, and the selection of pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array
from mimik.config import counted
from mimik.data.preparation.settings import PrepareConfig, Reason, Rejection
from mimik.face.landmarks import Face, Image, Landmarker, head_pose

_SEARCH_S = 0.4  # interval between searches for new faces
_SEARCH_FACE_PX = 40  # width of the smallest wanted face in the picture that is searched; Landmarker.detect finds it
_MAX_JUMP = 0.5  # face widths between two frames at 25 frames/s: a larger jump is another person
_MAX_GROWTH = 1.25  # largest growth of the crop's side due to the face's motion; beyond it the piece ends
CROP_MARGIN = 1.15  # of the crop around the moving face
MAX_SHRINK, MAX_SHIFT = 0.85, 0.12  # of the crop's side, to keep it inside the frame
_LOOK_S = 0.24  # between measurements of sharpness and stillness
_FACE_LOOK_PX = 128


class Piece:
    """A part of one face track, which becomes one clip."""

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
        """Whether the piece with this face still fits a crop that is not much larger than that of a static face."""
        left, top, right, bottom = face.box
        extent = np.maximum(self.high, [right, bottom]) - np.minimum(self.low, [left, top])
        height = float(np.median(self.heights)) if self.heights else bottom - top
        return float(extent.max()) * CROP_MARGIN <= _MAX_GROWTH * context * height

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
                look = _face_thumbnail(frame, face)
                self.looks.append(cv2.resize(look, (32, 32), interpolation=cv2.INTER_AREA))
                self.sharpness.append(_face_sharpness(look))
            self.samples.append(index)
            self.points.append(face.points)
            self.blendshapes.append(face.blendshapes)
            self.heights.append(bottom - top)

    def join(self, other: Piece) -> None:
        """Append the following piece."""
        for name in ("samples", "points", "blendshapes", "heights", "sharpness", "looks"):
            getattr(self, name).extend(getattr(other, name))
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.num_crowded += other.num_crowded
        self.num_outside += other.num_outside
        self.end = other.end


def _face_thumbnail(frame: Image, face: Face) -> Image:
    """The face's box, gray, [128, 128]."""
    left, top, right, bottom = (round(v) for v in face.box)
    part = frame[max(top, 0) : max(bottom, 1), max(left, 0) : max(right, 1)]
    if 0 in part.shape:
        return np.zeros((_FACE_LOOK_PX, _FACE_LOOK_PX), np.uint8)
    shrinks = part.shape[0] > _FACE_LOOK_PX
    gray = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
    return cv2.resize(
        gray, (_FACE_LOOK_PX, _FACE_LOOK_PX), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def _face_sharpness(look: Image) -> float:
    """Variance of the Laplacian of a face at 128 px over that of its gray values; independent of light and contrast."""
    laplacian = cv2.Laplacian(look, cv2.CV_32F)
    return float(laplacian.var() / (look.astype(np.float32).var() + 25))  # 5 gray values of noise are no contrast


class FaceTrack:
    """One face of one shot, split into pieces incrementally."""

    def __init__(self, face: Face, index: int, step: float) -> None:
        self.face = face
        self.piece = Piece(index, step)
        self.full: Piece | None = None  # of max_seconds; waits for a rest that is too short to stand alone

    @property
    def start(self) -> int:
        return self.full.start if self.full is not None else self.piece.start


class TrackingPass:
    """Tracks all faces of a video frame by frame, and returns completed pieces."""

    def __init__(self, config: PrepareConfig, landmarker: Landmarker, fps: float) -> None:
        self._config, self._landmarker = config, landmarker
        self._step = max(1.0, fps / config.fps)
        self._look_every = max(1, round(_LOOK_S * fps / self._step))
        self._search_every = max(1, round(_SEARCH_S * fps))
        self._min_frames = math.ceil(config.min_seconds * fps - 1e-6)
        self._max_frames = max(self._min_frames, round(config.max_seconds * fps))
        self._max_jump = _MAX_JUMP * max(1.0, 25 / fps)
        self._tracks: list[FaceTrack] = []
        self._index = 0
        self._searched = -self._search_every
        self.found_any = False

    @property
    def open_from(self) -> int:
        """Number of the first frame that a piece may still need that was not handed out."""
        return min((track.start for track in self._tracks), default=self._index)

    def add(self, frame: Image, is_cut: bool) -> list[Piece]:
        """Process the next frame; returns the pieces that ended before it."""
        ended: list[Piece] = []
        if is_cut:
            ended += self.close()
            self._searched = self._index - self._search_every

        # Known faces.
        followed: list[FaceTrack] = []
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
                    self._tracks.append(FaceTrack(face, self._index, self._step))
                    self.found_any = True

        for track in self._tracks:
            if len(track.piece) >= self._max_frames:
                ended += [track.full] if track.full is not None else []
                track.full, track.piece = track.piece, Piece(self._index, self._step)
            elif not track.piece.fits(track.face, self._config.context):
                track.piece.moved = True
                ended += self._finished(track)
                track.full, track.piece = None, Piece(self._index, self._step)
            crowded = any(
                self._is_clear(o) and _overlaps(o.face, track.face, self._config.context) for o in self._tracks
            )
            track.piece.add(self._index, frame, track.face, crowded, self._look_every)
        self._index += 1
        return ended

    def close(self) -> list[Piece]:
        """End all tracks, at the end of a shot or of the video."""
        ended = [piece for track in self._tracks for piece in self._finished(track)]
        self._tracks = []
        return ended

    def _finished(self, track: FaceTrack) -> list[Piece]:
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

    def _is_clear(self, track: FaceTrack) -> bool:
        """Whether a detection is sharp enough to be a face; false detections in blurred backgrounds are not."""
        values = track.piece.sharpness or (track.full.sharpness if track.full is not None else [0.0])
        return float(np.median(values)) >= self._config.min_sharpness

    def _is_taken(self, face: Face, tracks: Sequence[FaceTrack]) -> bool:
        middle = face.points[:, :2].mean(0)
        for track in tracks:
            distance = np.linalg.norm(track.face.points[:, :2].mean(0) - middle)
            if distance < 0.5 * max(track.face.width_px, face.width_px):
                return True
        return False


def _overlaps(other: Face, face: Face, context: float) -> bool:
    """Whether another face overlaps this one, or is large and completely inside its crop."""
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


_STILL_SHAPE, _STILL_PIXELS = 0.0025, 2.5  # a photo: points in face widths, gray values; both below
_MAX_YAW = 60.0  # degrees; beyond it, landmarks of the far half are unreliable
_MAX_CROWDED, _MAX_OUTSIDE = 0.1, 0.25  # of the frames


def reason_to_reject(piece: Piece, config: PrepareConfig, fps: float) -> Rejection | None:
    """The reason to reject a piece, or None; cheap and simple checks come first."""
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
        return reject(Reason.OUT_OF_FRAME, "the picture's border cuts the face")
    if piece.num_crowded > _MAX_CROWDED * len(piece):
        return reject(
            Reason.OVERLAPPING, f"another face overlaps in {piece.num_crowded} of {counted(len(piece), 'frame')}"
        )
    yaw = float(np.median([abs(head_pose(points).degrees[0]) for points in piece.points]))
    if yaw > _MAX_YAW:
        return reject(Reason.TURNED_AWAY, f"the head is turned by {yaw:.0f} degrees")
    sharpness = float(np.median(piece.sharpness))
    if sharpness < config.min_sharpness:
        return reject(Reason.BLURRED, f"sharpness {sharpness:.4f}")
    if len(piece.samples) == 1:  # a picture, which has no motion
        return None
    shape, pixels = _stillness(piece, width)
    if shape < _STILL_SHAPE and pixels < _STILL_PIXELS:
        return reject(Reason.STILL, f"points move by {100 * shape:.2f} % of the face, pixels by {pixels:.1f}")
    return None


def _stillness(piece: Piece, width: float) -> tuple[float, float]:
    """Non-rigid motion of a face: of its points, in face widths, and of its pixels, in gray levels.

    Shift, zoom and roll are removed, so that a photo in a panning shot counts as still.
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
