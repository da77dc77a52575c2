"""stream.py: lines written and read back, and the error for each invalid line."""

from __future__ import annotations

import json
import math
import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, NUM_POINTS, Face
from mimik.motion.drivers import stream
from mimik.motion.drivers.stream import (
    Sample,
    line_of,
    mirrored_sample,
    motion_frame_of,
    parse,
    rest_reference,
    sample_of,
)
from mimik.motion.frames import rotation_matrix
from mimik.motion.retargeting import Retarget


def shape(**values: float) -> np.ndarray:
    return np.array([values.get(name, 0.0) for name in BLENDSHAPES])


def line(time_s: float, yaw: float = 0.0, **more: Any) -> str:
    return json.dumps({"time": time_s, "head": {"yaw": yaw}, **more})


def test_what_is_left_out_is_at_rest() -> None:
    sample = parse('{"time": 1.5, "blendshapes": {"jawOpen": 0.25}, "head": {"yaw": -8, "z": 4.5}}')
    assert (sample.time_s, sample.seen, sample.is_rest) == (1.5, True, False)
    np.testing.assert_array_equal(sample.blendshapes, shape(jawOpen=0.25))
    np.testing.assert_array_equal(sample.head, [-8, 0, 0, 0, 0, 4.5])
    assert not parse('{"time": 2}').seen
    assert parse('{"time": 2, "head": {}}').seen


def test_names_of_other_trackers_are_understood() -> None:
    sample = parse('{"time": 0, "blendshapes": {"JawOpen": 0.5, "tongueOut": 1, "_neutral": 1, "eyeblinkleft": 1}}')
    np.testing.assert_array_equal(sample.blendshapes, shape(jawOpen=0.5, eyeBlinkLeft=1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "is not JSON"),
        ("[" * 60_000, "is not JSON"),
        ("[1, 2]", "is not a JSON object such as"),
        ("{}", "has no time"),
        ('{"time": "now"}', "has time 'now'; use a number"),
        ('{"time": true}', "has time 'True'; use a number"),
        ('{"time": NaN}', "has time 'nan'; use a number"),
        ('{"time": 1e999}', "has time 'inf'; use a number"),
        ('{"time": 1, "pose": {}}', "has 'pose'; use time, blendshapes, head and rest"),
        ('{"time": 1, "blendshapes": [0.1]}', "has blendshapes that is not a JSON object"),
        ('{"time": 1, "blendshapes": {"grin": 1}}', "has the blendshape 'grin', which neither ARKit nor MediaPipe has"),
        ('{"time": 1, "blendshapes": {"jawOpen": 30}}', "has jawOpen '30'; use a number from -1 to 1"),
        ('{"time": 1, "blendshapes": {"jawOpen": null}}', "has jawOpen 'None'; use a number from -1 to 1"),
        ('{"time": 1, "head": {"tilt": 3}}', "has the head's 'tilt'; use yaw, pitch, roll, x, y, z"),
        ('{"time": 1, "head": {"yaw": -91}}', "has yaw '-91'; use a number from -90 to 90"),
        ('{"time": 1, "rest": 1}', "has a rest that is neither true nor false"),
        ('{"time": 1, "' + "x" * 70_000 + '": 1}', "is longer than 65536 bytes"),
    ],
    ids=range(17),
)
def test_what_is_wrong_with_a_line(text: str, words: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(text)
    assert words in str(error.value)


@given(st.binary(max_size=200) | st.text(st.sampled_from(string.printable + "\0\x85\u2028é😀\ufeff"), max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_line_breaks_the_parser(text: str | bytes) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert str(error).startswith(("has ", "is "))


degrees = st.floats(-60, 60)


@given(st.tuples(degrees, degrees, degrees), st.floats(0, 1), st.floats(-10, 30))
@settings(max_examples=50, deadline=None)
def test_a_motion_frame_there_and_back(angles: tuple[float, float, float], amount: float, away: float) -> None:
    sample = Sample(0.5, shape(jawOpen=amount, eyeBlinkLeft=1 - amount), np.array([*angles, 1.0, -2.0, away]))
    again = parse(line_of(sample_of(motion_frame_of(sample), rest_reference(), 0.5)))
    np.testing.assert_allclose(again.head, sample.head, atol=2e-3)
    np.testing.assert_allclose(again.blendshapes, sample.blendshapes, atol=1e-4)


@pytest.mark.parametrize(("name", "column"), [("yaw", 0), ("pitch", 1), ("roll", 2)])
def test_angles_are_those_of_a_pose(name: str, column: int) -> None:
    """12 degrees turn a frontal face by 12 degrees, as defined by Pose.degrees."""
    turn = motion_frame_of(parse(f'{{"time": 0, "head": {{"{name}": 12}}}}')).turn
    points = faces.canonical_mesh().vertices @ rotation_matrix(turn).T
    assert faces.fit_similarity(faces.canonical_mesh().vertices, points).degrees[column] == pytest.approx(12)


def test_a_head_without_a_position_turns_about_the_neck() -> None:
    """By hand: the middle of the face is 3.9 cm before the pivot, so it moves to the right, like the nose."""
    turned, placed = (parse(f'{{"time": 0, "head": {{"yaw": 30{more}}}}}') for more in ("", ', "x": 0.5'))
    np.testing.assert_allclose(motion_frame_of(turned).shift[:2], [3.9 * 0.5, 0], atol=1e-9)
    np.testing.assert_allclose(motion_frame_of(placed).shift, [0.5, 0, 0])


def test_a_head_that_comes_nearer_is_larger() -> None:
    near, far = (
        motion_frame_of(parse(line(0) if z is None else f'{{"time": 0, "head": {{"z": {z}}}}}')) for z in (-20, 30)
    )
    assert math.exp(near.zoom) == pytest.approx(60 / 40)
    assert math.exp(far.zoom) == pytest.approx(60 / 90)


def test_a_mirror_changes_sides() -> None:
    sample = parse('{"time": 0, "blendshapes": {"eyeBlinkLeft": 1}, "head": {"yaw": 5, "pitch": 6, "roll": 7, "x": 8}}')
    other = mirrored_sample(sample)
    np.testing.assert_array_equal(other.blendshapes, shape(eyeBlinkRight=1))
    np.testing.assert_array_equal(other.head, [-5, 6, -7, -8, 0, 0])


def test_blendshapes_do_what_they_say(small_face: Face) -> None:
    """On a person: the jaw opens the mouth, a blink closes only its eye."""
    retarget = Retarget(small_face, rest_reference())

    def openings(**values: float) -> tuple[float, float, float]:
        points = retarget(motion_frame_of(Sample(0, shape(**values), np.zeros(6))))
        pairs = (
            (faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER),
            (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER),
            (faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER),
        )
        return tuple(float(np.linalg.norm((points[a] - points[b])[:, :2], axis=1).sum()) for a, b in pairs)

    mouth, left, right = openings()
    assert openings(jawOpen=0.6)[0] > mouth + 40
    shut = openings(eyeBlinkLeft=1)
    assert shut[1] < 0.25 * left and shut[2] > 0.7 * right
    assert openings(eyeWideLeft=0.8, eyeWideRight=0.8)[1] > left


def test_the_mean_face_is_a_face() -> None:
    mean = rest_reference().shape
    assert mean.shape == (NUM_POINTS, 3)
    assert np.abs(mean[: faces.NUM_MESH_POINTS] - faces.canonical_mesh().vertices).max() < 2.5  # centimeters
    assert stream.rest_reference() is rest_reference()
