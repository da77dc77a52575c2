"""Face detection and tracking: 478 points with irises, 52 blendshapes, head pose.

The networks are those of Google's MediaPipe Face Landmarker (BlazeFace short range, face mesh with irises,
blendshapes), run by OpenVINO. Unlike the mediapipe package, this needs no system graphics libraries, takes less time
per frame, and allows a custom search for small faces. tests/face/test_landmarks.py compares the points with those of
the mediapipe package.
"""

from __future__ import annotations

import functools
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array, Image, ramp
from mimik.config import NoFaceError, counted
from mimik.face.openvino_core import capabilities, compiled_once, inference_core
from mimik.files import asset
from mimik.pipeline import run_in_thread

if TYPE_CHECKING:  # training needs no PyAV
    from mimik.media.reading import VideoFrame

NUM_POINTS = 478
NUM_MESH_POINTS = 468  # without the two irises

# Indices of the 478 points. Left and right are the person's own; the person's right eye is at the left of the picture.
OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377]
OVAL += [152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
LIPS_OUTER_UPPER = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
LIPS_OUTER_LOWER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
LIPS_INNER_UPPER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
LIPS_INNER_LOWER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
RIGHT_EYE_UPPER = [33, 246, 161, 160, 159, 158, 157, 173, 133]
RIGHT_EYE_LOWER = [33, 7, 163, 144, 145, 153, 154, 155, 133]
LEFT_EYE_UPPER = [263, 466, 388, 387, 386, 385, 384, 398, 362]
LEFT_EYE_LOWER = [263, 249, 390, 373, 374, 380, 381, 382, 362]
RIGHT_BROW = [70, 63, 105, 66, 107, 55, 65, 52, 53, 46]
LEFT_BROW = [300, 293, 334, 296, 336, 285, 295, 282, 283, 276]
RIGHT_IRIS = [468, 469, 470, 471, 472]  # center, then the rim
LEFT_IRIS = [473, 474, 475, 476, 477]
NOSE = [168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327, 48, 278, 64, 294, 129, 358, 45, 275]
LIPS = sorted({*LIPS_OUTER_UPPER, *LIPS_OUTER_LOWER, *LIPS_INNER_UPPER, *LIPS_INNER_LOWER})
# Small areas with much motion: mouth and eyes.
DETAILED = (LIPS, [*RIGHT_EYE_UPPER, *RIGHT_EYE_LOWER], [*LEFT_EYE_UPPER, *LEFT_EYE_LOWER])
EYES = sorted({*RIGHT_EYE_UPPER, *RIGHT_EYE_LOWER, *LEFT_EYE_UPPER, *LEFT_EYE_LOWER})
BROWS = RIGHT_BROW + LEFT_BROW
IRISES = RIGHT_IRIS + LEFT_IRIS
CHIN = 152
# Points that are rigid on the skull: they determine the head pose independently of expression.
SKULL = [33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 10, 151, 9, 8, 127, 356, 234, 454, 67, 297, 54, 284]

# Bulat and Tzimiropoulos' 68 points, the paper's, as the nearest of the 478.
POINTS_68 = [127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356]
POINTS_68 += [70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 75, 97, 2, 326, 305]
POINTS_68 += [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]
POINTS_68 += [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87]
# Points that determine expression, gaze and the shape of the face.
EXPRESSIVE = sorted({*POINTS_68, *LIPS, *EYES, *BROWS, *IRISES})

# fmt: off
BLENDSHAPES = [
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
]
# fmt: on

# The 146 points that the blendshape network reads (MediaPipe, face_blendshapes_graph.cc).
_BLENDSHAPE_POINTS = [0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66]
_BLENDSHAPE_POINTS += [67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145]
_BLENDSHAPE_POINTS += [146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176]
_BLENDSHAPE_POINTS += [178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285]
_BLENDSHAPE_POINTS += [288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334]
_BLENDSHAPE_POINTS += [336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387]
_BLENDSHAPE_POINTS += [388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474]
_BLENDSHAPE_POINTS += [475, 476, 477]

_DETECTOR_PX = 128
IPD_MM = 62.0  # adults' mean interpupillary distance (Dodgson 2004: 63), the scale of sizes in millimeters
LANDMARKER_VIEW_PX = 256  # side of the mesh network's input
_MESH = "face_landmarks_detector"
_ROI_SCALE = 1.5  # side of the mesh network's view, relative to the face's box
_MIN_DETECTION = 0.5
_MIN_PRESENCE = 0.5
MIN_FACE_PX = 24  # smaller faces have fewer than two pixels across the opening of an eye
ADVISED_FACE_PX = 40  # faces of at least this width are found anywhere in a picture


@dataclass(frozen=True)
class Face:
    """One face in one picture."""

    points: Array  # [478, 3] float32; x and y in pixels of the picture, z on the same scale, smaller is nearer
    blendshapes: Array  # [52] float32 in 0..1, in the order of BLENDSHAPES; NaN if they were not requested
    # Confidence, 0..1: presence; for a result of detect, multiplied by the detector's score and by how well the points
    # fit a head.
    score: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the points, in pixels."""
        low, high = self.points[:, :2].min(0), self.points[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def width_px(self) -> float:
        left, _, right, _ = self.box
        return right - left


@dataclass(frozen=True)
class Pose:
    """Similarity transform from the face frame to the picture: p = scale * rotation @ x + translation.

    Axes: x to the picture's right, y down, z away from the viewer; a face that looks at the viewer has rotation
    identity.
    """

    rotation: NDArray[np.float64]  # [3, 3]
    translation: NDArray[np.float64]  # [3], pixels
    scale: float  # pixels per unit of the face frame

    def apply(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Face frame -> picture, [..., 3]."""
        return self.scale * x @ self.rotation.T + self.translation

    def invert(self, p: NDArray[Any]) -> NDArray[np.float64]:
        """Picture -> face frame, [..., 3]."""
        return (p - self.translation) @ self.rotation / self.scale

    def after(self, first: Pose) -> Pose:
        """The composition of both: first, then this one."""
        return Pose(self.rotation @ first.rotation, self.apply(first.translation), self.scale * first.scale)

    @property
    def degrees(self) -> tuple[float, float, float]:
        """Yaw (to the picture's right), pitch (down) and roll (clockwise in the picture), in degrees."""
        r = self.rotation
        yaw = np.degrees(np.arctan2(-r[0, 2], np.hypot(r[1, 2], r[2, 2])))
        pitch = np.degrees(np.arctan2(-r[1, 2], r[2, 2]))
        roll = np.degrees(np.arctan2(r[1, 0], r[0, 0]))
        return float(yaw), float(pitch), float(roll)


@functools.cache
def mirror_order() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """[478] and [52]: permutations of the points and blendshapes under left-right mirroring of a face."""
    vertices = canonical_mesh().vertices
    distance = np.linalg.norm(vertices[:, None] - vertices[None] * [-1.0, 1.0, 1.0], axis=-1)
    # Center, then the rim: one side, top, other side, bottom.
    right, left = np.array(RIGHT_IRIS), np.array(LEFT_IRIS)
    swapped = [0, 3, 2, 1, 4]
    points = np.concatenate([distance.argmin(1), left[swapped], right[swapped]])
    names = [name.replace("Left", "?").replace("Right", "Left").replace("?", "Right") for name in BLENDSHAPES]
    return points, np.array([BLENDSHAPES.index(name) for name in names])


def mirrored_face(face: Face, width: int) -> Face:
    """The same face in the picture flipped from left to right. Args: width: of the picture, in pixels."""
    points, shapes = mirror_order()
    turned = face.points[points] * np.array([-1, 1, 1], np.float32) + np.array([width, 0, 0], np.float32)
    return Face(turned, face.blendshapes[shapes], face.score)


def fit_similarity(source: NDArray[Any], target: NDArray[Any]) -> Pose:
    """Least-squares similarity transform from source to target, [N, 3] each; Umeyama 1991."""
    mean_s, mean_t = source.mean(0), target.mean(0)
    s, t = source - mean_s, target - mean_t
    u, d, vt = np.linalg.svd(t.T @ s)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((d * sign).sum() / (s * s).sum())
    return Pose(rotation, mean_t - scale * rotation @ mean_s, scale)


@dataclass(frozen=True)
class Mesh:
    """MediaPipe's canonical face."""

    vertices: NDArray[np.float64]  # [468, 3] centimeters, in the axes of Pose, origin between the ears
    triangles: NDArray[np.int32]  # [898, 3] indices; eyes and mouth are covered too


def landmarker_bundle() -> zipfile.ZipFile:
    """MediaPipe's Face Landmarker: networks as TensorFlow Lite files, and the canonical face."""
    return zipfile.ZipFile(asset("face_landmarker.task"))


@functools.cache
def canonical_mesh() -> Mesh:
    """The canonical face of the MediaPipe bundle, converted to NumPy by tools/make_assets.py."""
    with np.load(asset("canonical_face.npz")) as data:
        return Mesh(data["vertices"].astype(np.float64), data["triangles"])


def head_pose(points: NDArray[Any]) -> Pose:
    """Pose of the canonical face that best fits points [478, 3]; scale is pixels per centimeter of that face."""
    return fit_similarity(canonical_mesh().vertices[SKULL], points[SKULL])


def skull_motion(source: NDArray[Any], target: NDArray[Any]) -> Pose:
    """Similarity transform between the skulls of source [478, 3] and target [478, 3]."""
    return fit_similarity(source[SKULL], target[SKULL])


@dataclass(frozen=True)
class _Roi:
    """A rotated square in the picture: center, side in pixels, rotation in radians."""

    x: float
    y: float
    side: float
    angle: float

    @classmethod
    def around(cls, low: NDArray[Any], high: NDArray[Any], right_eye: NDArray[Any], left_eye: NDArray[Any]) -> _Roi:
        across = left_eye - right_eye
        side = _ROI_SCALE * float(max(high - low))
        x, y = (low + high) / 2
        return cls(float(x), float(y), side, float(np.arctan2(across[1], across[0])))

    @classmethod
    def of_points(cls, points: NDArray[Any]) -> _Roi:
        xy = points[:, :2]
        return cls.around(xy.min(0), xy.max(0), xy[33], xy[263])

    def matrix(self) -> NDArray[np.float64]:
        """[2, 3] matrix: pixel centers of the 256 px view -> pixel coordinates of the picture."""
        k = self.side / LANDMARKER_VIEW_PX
        c, s = k * np.cos(self.angle), k * np.sin(self.angle)
        half = LANDMARKER_VIEW_PX / 2
        return np.array([[c, -s, self.x - half * (c - s)], [s, c, self.y - half * (s + c)]])


def landmarker_view(points: NDArray[Any]) -> NDArray[np.float64]:
    """What the mesh network is shown of a face: [.., 2, 3], centers of the view's pixels -> places in the picture.

    Args: points: [.., 478, 2 or 3] of the face, in pixels.
    """
    xy = points[..., :2].astype(float)
    each = np.ascontiguousarray(xy.swapaxes(-1, -2))  # NumPy reduces contiguous axes ten times as fast
    low, high = each.min(-1), each.max(-1)
    across = xy[..., 263, :] - xy[..., 33, :]
    k = _ROI_SCALE * (high - low).max(-1) / LANDMARKER_VIEW_PX / np.hypot(across[..., 0], across[..., 1])
    c, s = k * across[..., 0], k * across[..., 1]
    linear = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    offset = (low + high) / 2 - linear @ np.full(2, LANDMARKER_VIEW_PX / 2 - 0.5)
    return np.concatenate([linear, offset[..., None]], -1)


def _anchors() -> Array:
    """[896, 2] centers of BlazeFace's short-range anchors, 0..1."""
    centers = []
    for cells, per_cell in ((16, 2), (8, 6)):
        grid = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(grid, grid, indexing="ij")
        centers.append(np.repeat(np.stack([x.ravel(), y.ravel()], 1), per_cell, axis=0))
    return np.concatenate(centers).astype(np.float32)


class Landmarker:
    """Detects faces in pictures, and tracks a face from the previous video frame."""

    def __init__(self, num_threads: int = 1) -> None:
        # In half precision where the processor has it, the mesh takes 2/3 of the time. On six clips of the training
        # set, points differ by 0.14 px (RMS) of a face 170 px wide, and their jitter is the same; bfloat16 raises that
        # of the lips by half.
        precision = {_MESH: "f16" if "FP16" in capabilities() else "f32"}

        def load(name: str, content: bytes) -> Any:
            options = {"INFERENCE_NUM_THREADS": num_threads, "PERFORMANCE_HINT": "LATENCY"}
            options["INFERENCE_PRECISION_HINT"] = precision.get(name, "f32")

            def read() -> Any:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder, f"{name}.tflite")  # OpenVINO reads tflite models from files only
                    path.write_bytes(content)
                    model = inference_core().read_model(path)
                if model.inputs[0].partial_shape.is_dynamic:
                    model.reshape([1, LANDMARKER_VIEW_PX, LANDMARKER_VIEW_PX, 3])
                return model

            return compiled_once(name, content, read, options).create_infer_request()

        inference_core()  # imported here: where threads import too, Ctrl-C can leave the lock of imports taken
        # Load the networks in parallel, while the photo is read.
        with landmarker_bundle() as bundle:
            self._mesh, self._detector, self._blendshapes = (
                run_in_thread(functools.partial(load, name, bundle.read(f"{name}.tflite")))
                for name in (_MESH, "face_detector", "face_blendshapes")
            )
        self._anchors = _anchors()

    def detect(self, image: Image | VideoFrame, *, thorough: bool = False) -> list[Face]:
        """All faces of a picture, the widest first.

        The detector sees 128 px, so it is shown the whole picture, then tiles of it that get smaller until there is a
        face, or, when thorough, down to the smallest.

        Args:
            image: uint8 RGB [H, W, 3], or a frame that is converted to it.
            thorough: search for small faces too when there are large ones.
        """
        found: list[Face] = []
        image = np.asarray(image)
        height, width = image.shape[:2]
        side = max(height, width)
        while True:
            for x, y in _tiles(width, height, side):
                tile = image[y : y + side, x : x + side]
                for roi, score in self._detect_tile(tile, side):
                    moved = _Roi(roi.x + x, roi.y + y, roi.side, roi.angle)
                    if not any(_contains(face, moved) for face in found):
                        face = self._settle(image, moved)
                        if face is not None and not any(_is_same_face(face, other) for other in found):
                            found.append(replace(face, score=face.score * score * _fit(face.points)))
            if side <= _MIN_TILE_PX or (found and not thorough):
                return sorted(found, key=lambda face: -face.width_px)
            side = max(side // 2, _MIN_TILE_PX)

    def follow(self, image: Image | VideoFrame, previous: Face, *, blendshapes: bool = True) -> Face | None:
        """Track the face to a video's next frame, at its previous position; None if it is not there.

        Args:
            image: uint8 RGB [H, W, 3], or a frame, of which only the face is converted to it.
            previous: the face in the frame before.
            blendshapes: whether they are wanted, too: a quarter of the time.
        """
        return self._landmarks(image, _Roi.of_points(previous.points), blendshapes=blendshapes)

    def _settle(self, image: Image, roi: _Roi) -> Face | None:
        """Landmarks of a detection, computed twice, because the detector's box is coarse."""
        face = self._landmarks(image, roi)
        if face is None:
            return None
        return self._landmarks(image, _Roi.of_points(face.points))

    def _landmarks(self, image: Image | VideoFrame, roi: _Roi, *, blendshapes: bool = True) -> Face | None:
        if roi.side < 4:
            return None
        matrix = roi.matrix()
        at_pixel_center = matrix.copy()  # cv2's origin is the center of the first pixel, that of the points its corner
        at_pixel_center[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
        view = _view(image, at_pixel_center)
        mesh = self._mesh.result()
        seen = mesh.get_input_tensor().data
        np.multiply(view, np.float32(1 / 255), out=seen[0], casting="unsafe")
        mesh.infer()
        score = float(_sigmoid(float(mesh.get_output_tensor(1).data.ravel()[0])))
        if score < _MIN_PRESENCE:
            return None
        raw = mesh.get_output_tensor(0).data.reshape(NUM_POINTS, 3)
        points = np.empty((NUM_POINTS, 3), np.float32)
        points[:, :2] = raw[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        points[:, 2] = raw[:, 2] * (roi.side / LANDMARKER_VIEW_PX)
        if not blendshapes:
            return Face(points, np.full(len(BLENDSHAPES), np.nan, np.float32), score)
        shapes = self._blendshapes.result()
        shapes.infer({0: points[None, _BLENDSHAPE_POINTS, :2]})
        return Face(points, shapes.get_output_tensor(0).data.copy(), score)

    def _detect_tile(self, tile: Image, side: int) -> list[tuple[_Roi, float]]:
        """Detected boxes in pixels of the tile, which is padded to a square of this side; and their scores."""
        height, width = tile.shape[:2]
        k = _DETECTOR_PX / side
        small = cv2.resize(tile, (max(round(width * k), 1), max(round(height * k), 1)), interpolation=cv2.INTER_AREA)
        left, top = (_DETECTOR_PX - small.shape[1]) // 2, (_DETECTOR_PX - small.shape[0]) // 2
        square = np.zeros((_DETECTOR_PX, _DETECTOR_PX, 3), np.float32)
        square[top : top + small.shape[0], left : left + small.shape[1]] = small / np.float32(127.5) - 1
        square[:top] = square[top + small.shape[0] :] = -1
        square[:, :left] = square[:, left + small.shape[1] :] = -1
        detector = self._detector.result()
        detector.infer({0: square[None]})
        scores = _sigmoid(detector.get_tensor("classificators").data.reshape(-1))
        keep = np.flatnonzero(scores >= _MIN_DETECTION)
        raw = detector.get_tensor("regressors").data.reshape(-1, 8, 2)[keep] / _DETECTOR_PX
        center = self._anchors[keep]
        corner = np.array([left, top]) / _DETECTOR_PX
        position = (raw[:, [0, 2, 3]] + center[:, None] - corner) * side  # box center, right eye, left eye
        size = raw[:, 1] * side
        rois = []
        for i in _suppress(position[:, 0], size, scores[keep]):
            low, high = position[i, 0] - size[i] / 2, position[i, 0] + size[i] / 2
            rois.append((_Roi.around(low, high, position[i, 1], position[i, 2]), float(scores[keep][i])))
        return rois


@functools.cache
def process_landmarker() -> Landmarker:
    """One per process, because compiling the networks takes half a second."""
    return Landmarker()


# Residual of the skull points, from full confidence (photos and paintings have 0.3 to 0.5) to none.
_FITS_CM, _MISFITS_CM = 0.6, 1.4


def _fit(points: NDArray[Any]) -> float:
    """Goodness of fit of points [478, 3] to the canonical head, 0..1."""
    residual = (head_pose(points).invert(points[SKULL]) - canonical_mesh().vertices[SKULL]) ** 2
    off_cm = float(np.sqrt(residual.sum(1).mean()))
    return float(ramp(off_cm, _MISFITS_CM, _FITS_CM))


_MIN_TILE_PX = 320  # side of the smallest tile: a 40 px face is 16 px wide in the detector's input


def _tiles(width: int, height: int, side: int) -> list[tuple[int, int]]:
    """Top left corners of half-overlapping squares that cover the picture."""

    def starts(length: int) -> list[int]:
        if length <= side:
            return [0]
        count = int(np.ceil((length - side) / (side / 2))) + 1
        return [round(i * (length - side) / (count - 1)) for i in range(count)]

    return [(x, y) for y in starts(height) for x in starts(width)]


def _view(image: Image | VideoFrame, matrix: NDArray[np.float64]) -> Image:
    """The 256 px view of the picture under matrix; of a video frame, only this part is converted to RGB."""
    if isinstance(image, np.ndarray):
        return _warp(image, matrix)
    found = image.planes()
    if found is None:
        return _warp(np.asarray(image), matrix)
    planes, to_rgb = found
    bottom = np.array([0.0, 0.0, 1.0])
    views = [_warp(plane.pixels, plane.place @ np.vstack([matrix, bottom]), plane.black) for plane in planes]
    return cv2.transform(cv2.merge(views), to_rgb)


def _warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], outside: int = 0) -> NDArray[np.uint8]:
    """A picture, or a plane, as the mesh network's view; a strongly reduced view is prefiltered against aliasing.

    Args:
        matrix: [2, 3] from pixels of the view to pixels of the picture.
        outside: value beyond the picture.
    """
    px = LANDMARKER_VIEW_PX
    if np.hypot(matrix[0, 0], matrix[1, 0]) > 2:
        factor = 0.5
        while np.hypot(matrix[0, 0], matrix[1, 0]) * factor > 2:
            factor /= 2
        corners = np.array([[0, 0, 1], [px, 0, 1], [0, px, 1], [px, px, 1]]) @ matrix.T
        low = np.clip(np.floor(corners.min(0)).astype(int) - 2, 0, None)
        high = np.clip(np.ceil(corners.max(0)).astype(int) + 2, 0, image.shape[1::-1])
        if (high - low).min() * factor < 1:
            return np.full((px, px, *image.shape[2:]), outside, np.uint8)
        part = image[low[1] : high[1], low[0] : high[0]]
        image = cv2.resize(part, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        scale = np.array(image.shape[1::-1]) / (high - low)
        matrix = matrix.copy()
        matrix[:, 2] = (matrix[:, 2] + 0.5 - low) * scale - 0.5
        matrix[:, :2] *= scale[:, None]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (px, px), flags=flags, borderValue=(outside,) * 3)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def _suppress(center: NDArray[Any], size: NDArray[Any], scores: NDArray[Any]) -> list[int]:
    """Non-maximum suppression at an IoU of 0.3: indices of the boxes that are kept, best first."""
    boxes = np.hstack([center - size / 2, size]).tolist()
    return list(map(int, cv2.dnn.NMSBoxes(boxes, scores.tolist(), 0.0, 0.3)))


def _contains(face: Face, roi: _Roi) -> bool:
    """Whether roi is a duplicate of this face: its center is inside, its size is similar."""
    left, top, right, bottom = face.box
    return left < roi.x < right and top < roi.y < bottom and roi.side < 4 * (right - left)


def _is_same_face(a: Face, b: Face) -> bool:
    distance = np.linalg.norm(a.points[:, :2].mean(0) - b.points[:, :2].mean(0))
    return bool(distance < 0.5 * max(a.width_px, b.width_px))


def choose_face(faces: Sequence[Face], number: int | None, name: str, size: tuple[int, int]) -> Face:
    """The face that the user selected.

    Args:
        faces: of one picture, the widest first.
        number: 1 is the widest; None is the widest.
        name: of the file, for the message.
        size: width, height of the picture, for the message.

    Raises:
        NoFaceError: if there is none, not that many, or it is narrower than MIN_FACE_PX.
    """
    width, height = size
    if not faces:
        raise NoFaceError(
            f"no face found in {name} ({width}x{height}); use a picture that shows one face from the front or "
            f"half side, at least {ADVISED_FACE_PX} px wide."
        )
    if (number or 1) > len(faces):
        there = f"{'is' if len(faces) == 1 else 'are'} {counted(len(faces), 'face')}"
        raise NoFaceError(f"face {number} of {name} was requested, but there {there}; `mimik faces {name}` shows them.")
    face = faces[(number or 1) - 1]
    if face.width_px < MIN_FACE_PX:
        raise NoFaceError(
            f"the face in {name} is {face.width_px:.0f} px wide; use a picture in which it is at least "
            f"{ADVISED_FACE_PX} px wide."
        )
    return face
