"""Packed landmarks, blendshapes and pose of one clip: the .npz of a shard."""

from __future__ import annotations

import functools
import io
import lzma
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array
from mimik.config import InputError
from mimik.face import landmarks as faces

_PACK_VERSION = 1
_STEPS_PER_PX = 16  # fixed point: an error of at most 1/32 px
_MAX_PX = 2047.0  # largest coordinate in 16 bits
_LZMA: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 0, "pb": 0}]
_MAX_PACKED_FRAMES = 1_000_000


@dataclass(frozen=True)
class Tracks:
    """Landmarks, blendshapes and pose of every frame of a clip."""

    # [T, 478, 3] float32; x and y in pixels of the crop, counted from the corner of the first pixel, z on the same
    # scale
    points: Array
    blendshapes: Array  # [T, 52] float32 in 0..1
    pose: Array  # [T, 3] float32 yaw, pitch, roll in degrees


@dataclass(frozen=True)
class _Wave:
    """A set of points, no two of them neighbors, that are encoded together; and their already encoded neighbors."""

    points: list[int]
    known: list[int]  # all neighbors of the first point, then of the second, ..
    starts: list[int]  # where each point's neighbors start
    counts: NDArray[np.int32]  # [P, 1] how many they are


@functools.cache
def _waves() -> list[_Wave]:
    """The encoding order of the 477 points other than the tip of the nose: breadth first over the mesh.

    Predicting a whole ring around the tip from the ring inside it costs 599 bytes per frame, and decoding point by
    point is slow. Each ring is therefore split into two or three waves of non-adjacent points. The irises are treated
    as neighbors of the upper lids.
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
    """Wrap modulo 2^16 into the range of int16."""
    return ((x + 32768) & 65535) - 32768


def _predicted(step: NDArray[np.int32], wave: _Wave) -> NDArray[np.int32]:
    """[P, ..] rounded mean step of each point's known neighbors; integer arithmetic, so that it is deterministic."""
    return (np.add.reduceat(step[wave.known], wave.starts) + wave.counts // 2) // wave.counts


def _encode_points(points: NDArray[Any]) -> bytes:
    """Encode points [T, 478, 3] px to bytes; lossless except for rounding to 1/16 px.

    A point's step from the previous frame is predicted as the mean step of its neighbors in the mesh. The residuals are
    zigzag encoded, stored as all low bytes, then all high bytes, and compressed. Real tracks at 256 px take 550 bytes
    per frame; without prediction 913, with prediction from one neighbor 627 (703 with zlib -9).
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
    step = left  # each wave replaces its residuals by steps, in place
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

    Raises InputError on other shapes, no frames, numbers that are not finite, or points beyond 2047 px.
    """
    num_frames = len(points)
    shapes = (points.shape, blendshapes.shape, pose.shape)
    wanted = ((num_frames, faces.NUM_POINTS, 3), (num_frames, len(faces.BLENDSHAPES)), (num_frames, 3))
    if shapes != wanted or not num_frames:
        raise InputError(f"tracks of shapes {shapes}: use points [T, 478, 3], blendshapes [T, 52] and pose [T, 3].")
    if not all(np.isfinite(array).all() for array in (points, blendshapes, pose)):
        raise InputError("tracks contain values that are not finite; omit the frames without a face.")
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
    """The inverse of pack_tracks. Raises InputError if the bytes are damaged or of another version of mimik."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            version, num_frames = arrays["header"].tolist()
            if version != _PACK_VERSION:
                raise InputError(
                    f"landmarks in format {version}, this version reads {_PACK_VERSION}; run `mimik prepare` again."
                )
            blendshapes, pose = arrays["blendshapes"].T, arrays["pose"]
            packed = arrays["points"]
        if not 0 < num_frames <= _MAX_PACKED_FRAMES or packed.dtype != np.uint8:
            raise ValueError("impossible numbers")
        if blendshapes.shape != (num_frames, len(faces.BLENDSHAPES)) or pose.shape != (num_frames, 3):
            raise ValueError("arrays of different lengths")
        points = _decode_points(packed.tobytes(), num_frames)
    except InputError:
        raise
    except Exception as error:  # of zipfile, zlib, lzma and numpy: damaged bytes raise nearly anything
        raise InputError(f"damaged landmarks ({error}): download or prepare the shard again.") from error
    return Tracks(points, blendshapes.astype(np.float32) / np.float32(255), pose.astype(np.float32))
