"""tracks.py: packed landmarks are exact, small and deterministic."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mimik.config import InputError
from mimik.data.tracks import pack_tracks, unpack_tracks
from synthetic_shards import face_points


@given(
    points=hnp.arrays(np.float32, (3, 478, 3), elements=st.floats(-2047, 2047, width=32), fill=st.floats(-50, 300)),
    blend=hnp.arrays(np.float32, (3, 52), elements=st.floats(0, 1, width=32)),
)
@settings(max_examples=15, deadline=None)
def test_packed_landmarks_are_exact_to_a_32nd_of_a_pixel(points: np.ndarray, blend: np.ndarray) -> None:
    pose = np.array([[10.5, -3.25, 0], [90, 1, 2], [-80, 0, 0]], np.float32)
    tracks = unpack_tracks(pack_tracks(points, blend, pose))
    assert tracks.points.dtype == tracks.blendshapes.dtype == tracks.pose.dtype == np.float32
    assert np.abs(tracks.points - points).max() <= 1 / 32 + 1e-3 * (np.abs(points).max() > 1000)
    assert np.abs(tracks.blendshapes - blend).max() <= 1 / 510 + 1e-6
    np.testing.assert_allclose(tracks.pose, pose, atol=0.05)


def test_extreme_steps_survive() -> None:
    points = np.full((3, 478, 3), 2047, np.float32)
    points[1] *= -1
    points[:, ::2] *= -1
    assert (unpack_tracks(pack_tracks(points, np.zeros((3, 52)), np.zeros((3, 3)))).points == points).all()


def test_packing_is_small_and_always_the_same() -> None:
    motion = np.cumsum(np.random.default_rng(0).normal(0, 0.5, (200, 1, 3)), 0)
    points = face_points(1, 256) + motion + np.random.default_rng(1).normal(0, 0.05, (200, 478, 3))
    packed = pack_tracks(points, np.zeros((200, 52)), np.zeros((200, 3)))
    assert packed == pack_tracks(points, np.zeros((200, 52)), np.zeros((200, 3)))
    assert len(packed) / 200 < 700


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((2, 468, 3)), "shapes"),
        (np.zeros((0, 478, 3)), "shapes"),
        (np.full((2, 478, 3), np.nan), "not finite"),
        (np.full((2, 478, 3), 3000.0), "3000 px"),
    ],
)
def test_tracks_that_cannot_be_packed(points: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pack_tracks(points, np.zeros((len(points), 52)), np.zeros((len(points), 3)))


@functools.cache
def small_pack() -> bytes:
    return pack_tracks(face_points(3), np.zeros((3, 52)), np.zeros((3, 3)))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_landmarks_are_an_input_error(data: st.DataObject) -> None:
    packed = bytearray(small_pack())
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(packed), len(packed) // 2, 0]))
    try:
        tracks = unpack_tracks(bytes(packed[:cut]))
    except InputError:
        return
    # Some bytes of a zip file have no meaning.
    assert (tracks.points == unpack_tracks(small_pack()).points).all()


def test_landmarks_of_another_version() -> None:
    with np.load(io.BytesIO(small_pack())) as arrays:
        other = {**arrays, "header": np.array([9, 3], np.int32)}
    out = io.BytesIO()
    np.savez(out, **other)
    with pytest.raises(InputError, match="format 9"):
        unpack_tracks(out.getvalue())
