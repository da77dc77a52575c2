"""stream.py: lines there and back, what each bad line is told, time in files, and what comes over a socket."""

from __future__ import annotations

import json
import math
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Driver
from mimik.animation import animate
from mimik.animation.animate import Avatar, extract_motion
from mimik.config import InputError
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, NUM_POINTS, Face, Landmarker, head_pose
from mimik.media import video
from mimik.motion.drivers import stream
from mimik.motion.drivers.stream import (
    HOLD_S,
    Mailbox,
    Receiver,
    Sample,
    Stream,
    gesture_of,
    line_of,
    mirrored,
    parse,
    parse_address,
    rest_reference,
    sample_of,
    stream_lines,
)
from mimik.motion.gestures import Gesture, Motion, Retarget, expression_basis, rotation_matrix, still


def shape(**values: float) -> np.ndarray:
    return np.array([values.get(name, 0.0) for name in BLENDSHAPES])


def line(time_s: float, yaw: float = 0.0, **more: Any) -> str:
    return json.dumps({"time": time_s, "head": {"yaw": yaw}, **more})


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# A line.


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
        ("hello", "is no JSON"),
        ("[" * 60_000, "is no JSON"),
        ("[1, 2]", "is no JSON object such as"),
        ("{}", "has no time"),
        ('{"time": "now"}', "has time 'now'; give a number"),
        ('{"time": true}', "has time 'True'; give a number"),
        ('{"time": NaN}', "has time 'nan'; give a number"),
        ('{"time": 1e999}', "has time 'inf'; give a number"),
        ('{"time": 1, "pose": {}}', "has 'pose'; give time, blendshapes, head and rest"),
        ('{"time": 1, "blendshapes": [0.1]}', "has blendshapes that are no JSON object"),
        ('{"time": 1, "blendshapes": {"grin": 1}}', "has the blendshape 'grin', which neither ARKit nor MediaPipe has"),
        ('{"time": 1, "blendshapes": {"jawOpen": 30}}', "has jawOpen '30'; give a number from -1 to 1"),
        ('{"time": 1, "blendshapes": {"jawOpen": null}}', "has jawOpen 'None'; give a number from -1 to 1"),
        ('{"time": 1, "head": {"tilt": 3}}', "has the head's 'tilt'; give yaw, pitch, roll, x, y, z"),
        ('{"time": 1, "head": {"yaw": -91}}', "has yaw '-91'; give a number from -90 to 90"),
        ('{"time": 1, "rest": 1}', "has a rest that is neither true nor false"),
        ('{"time": 1, "' + "x" * 70_000 + '": 1}', "is longer than 65536 bytes"),
    ],
    ids=range(17),
)
def test_what_is_wrong_with_a_line(text: str, words: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(text)
    assert words in str(error.value)


@given(st.binary(max_size=200) | st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_line_breaks_the_parser(text: str | bytes) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert str(error).startswith(("has ", "is "))


degrees = st.floats(-60, 60)


@given(st.tuples(degrees, degrees, degrees), st.floats(0, 1), st.floats(-10, 30))
@settings(max_examples=50, deadline=None)
def test_a_gesture_there_and_back(angles: tuple[float, float, float], amount: float, away: float) -> None:
    sample = Sample(0.5, shape(jawOpen=amount, eyeBlinkLeft=1 - amount), np.array([*angles, 1.0, -2.0, away]))
    again = parse(line_of(sample_of(gesture_of(sample), rest_reference(), 0.5)))
    np.testing.assert_allclose(again.head, sample.head, atol=2e-3)
    np.testing.assert_allclose(again.blendshapes, sample.blendshapes, atol=1e-4)


@pytest.mark.parametrize(("name", "column"), [("yaw", 0), ("pitch", 1), ("roll", 2)])
def test_angles_are_those_of_a_pose(name: str, column: int) -> None:
    """12 degrees turn a face that looks at the camera by 12 degrees, as Pose.degrees counts them."""
    turn = gesture_of(parse(f'{{"time": 0, "head": {{"{name}": 12}}}}')).turn
    points = faces.canonical_mesh().vertices @ rotation_matrix(turn).T
    assert faces.fit_similarity(faces.canonical_mesh().vertices, points).degrees[column] == pytest.approx(12)


def test_a_head_that_comes_nearer_is_larger() -> None:
    near, far = (gesture_of(parse(line(0) if z is None else f'{{"time": 0, "head": {{"z": {z}}}}}')) for z in (-20, 30))
    assert math.exp(near.zoom) == pytest.approx(60 / 40)
    assert math.exp(far.zoom) == pytest.approx(60 / 90)


def test_a_mirror_changes_sides() -> None:
    sample = parse('{"time": 0, "blendshapes": {"eyeBlinkLeft": 1}, "head": {"yaw": 5, "pitch": 6, "roll": 7, "x": 8}}')
    other = mirrored(sample)
    np.testing.assert_array_equal(other.blendshapes, shape(eyeBlinkRight=1))
    np.testing.assert_array_equal(other.head, [-5, 6, -7, -8, 0, 0])


def test_blendshapes_do_what_they_say(small_face: Face) -> None:
    """On a person: the jaw opens the mouth, a blink shuts its own eye and not the other."""
    retarget = Retarget(small_face, rest_reference())

    def openings(**values: float) -> tuple[float, float, float]:
        points = retarget(gesture_of(Sample(0, shape(**values), np.zeros(6))))
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


# Files.


def test_a_file_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", line(10.0, 0), "", line(10.1, 10), line(10.2, 20))
    loaded = Stream.load(path)
    assert (loaded.name, loaded.fps) == ("a.jsonl", pytest.approx(10))
    np.testing.assert_allclose(loaded.time_s, [0, 0.1, 0.2])
    np.testing.assert_array_equal(loaded.head[:, 0], [0, 10, 20])
    assert loaded.duration_s == pytest.approx(0.3) and loaded.num_frames(20) == 6


def yaws(gestures: Any) -> list[float | None]:
    return [None if g is None else round(math.degrees(-g.turn[1]), 3) for g in gestures]


def test_between_lines_it_is_interpolated(tmp_path: Path) -> None:
    loaded = Stream.load(written(tmp_path / "a.jsonl", line(0, 0), line(0.1, 10), line(0.3, 0)))
    assert yaws(loaded.gestures(20)) == [0, 5, 10, 7.5, 5, 2.5, 0, 0, 0]


def test_a_gap_holds_and_is_then_lost(tmp_path: Path) -> None:
    loaded = Stream.load(written(tmp_path / "a.jsonl", line(0, 8), line(0.1, 9), line(0.2, 10), line(1.2, 20)))
    found = yaws(loaded.gestures(10))
    assert HOLD_S == 0.5 and found == [8, 9, *[10] * 6, *[None] * 4, 20]


def test_a_line_without_a_face_is_lost(tmp_path: Path) -> None:
    loaded = Stream.load(written(tmp_path / "a.jsonl", line(0, 8), line(0.1, 9), '{"time": 0.2}', line(0.3, 4)))
    assert yaws(loaded.gestures(10)) == [8, 9, None, 4]


def test_rest_is_what_the_sender_says_it_is(tmp_path: Path) -> None:
    rest = line(0.1, 10, blendshapes={"jawOpen": 0.2, "mouthPucker": 0.1}, rest=True)
    after = line(0.2, 15, blendshapes={"jawOpen": 0.5})
    loaded = Stream.load(written(tmp_path / "a.jsonl", line(0, 10), rest, after))
    np.testing.assert_allclose(loaded.head[:, 0], [10, 0, 5], atol=1e-9)
    np.testing.assert_allclose(loaded.blendshapes[2], shape(jawOpen=0.3, mouthPucker=-0.1), atol=1e-9)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([line(0), "oops"], "line 2 is no JSON; a driver's lines look like {"),
        ([line(0), line(1), line(1)], "line 3 has time 1, which is not after that of the line before"),
        (['{"time": 0, "blendshapes": {"grin": 1}}'], "line 1 has the blendshape 'grin'"),
        ([""], "has no lines; give a file that `mimik motion extract VIDEO -o X.jsonl` wrote"),
        (['{"time": 0}', '{"time": 1}'], "none of its 2 lines has blendshapes or a head"),
        ([line(0), line(33), line(66)], "its lines are 33 s apart; time is counted in seconds"),
        ([line(0), line(0.1), line(0.2), line(1e6)], "lasts 1e+06 s; give one of 36000 s or less"),
    ],
    ids=range(7),
)
def test_a_file_that_cannot_be_used(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(InputError) as error:
        Stream.load(written(tmp_path / "a.jsonl", *lines))
    assert words in str(error.value) and str(tmp_path / "a.jsonl") in str(error.value)


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(np.random.default_rng(0).bytes(300_000))
    with pytest.raises(InputError, match=r"line 1 is"):
        Stream.load(path)
    path.write_bytes(b"7" * 1_000_000)
    with pytest.raises(InputError, match=r"line 1 is longer than 65536 bytes"):
        Stream.load(path)


def test_a_motion_there_and_back(tmp_path: Path) -> None:
    """What lines can say of a motion is said exactly; the rest is what is left of the points' movement."""
    basis = expression_basis()
    shapes = np.array([shape(jawOpen=a, mouthSmileLeft=b) for a, b in ((0, 0), (0.5, 0.1), (0.2, 0.9))])
    gestures = [
        Gesture(np.array([0.1 * i, 0.2, 0]), np.array([1.0, 0, 0]), 0.05 * i, basis.expression(s), basis.neutral + s)
        for i, s in enumerate(shapes)
    ]
    motion = Motion.of_gestures("a", 25.0, rest_reference(), gestures)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(stream_lines(motion)))
    loaded = list(Stream.load(path).gestures(25.0))
    for ours, theirs in zip(loaded, gestures, strict=True):
        assert ours is not None
        np.testing.assert_allclose(ours.turn, theirs.turn, atol=1e-4)
        np.testing.assert_allclose(ours.shift[:2], theirs.shift[:2], atol=1e-4)
        assert ours.zoom == pytest.approx(theirs.zoom, abs=1e-4)
        np.testing.assert_allclose(ours.offset, theirs.offset, atol=1e-3)


def test_lost_frames_of_a_motion_stay_lost() -> None:
    seen = still()
    motion = Motion.of_gestures("a", 25.0, rest_reference(), [seen, Gesture(**{**vars(seen), "seen": False}), seen])
    assert [parse(text).seen for text in stream_lines(motion)] == [True, False, True]


def test_a_video_its_stream_and_the_person(
    driver: Driver, landmarker: Landmarker, small_face: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """video -> stream -> person resembles video -> person: 52 numbers keep most of what 478 points say."""
    monkeypatch.setattr(animate, "Landmarker", lambda num_threads=1: landmarker)
    motion = extract_motion(driver.path)
    path = tmp_path / "driver.jsonl"
    path.write_text("".join(stream_lines(motion)))
    loaded = Stream.load(path)
    assert (loaded.fps, len(loaded.time_s)) == (pytest.approx(25), 28)
    whole = Retarget(small_face, motion.reference)
    ours = Retarget(small_face, rest_reference())
    given = [g for g in loaded.gestures(25.0) if g is not None]
    rest = small_face.points
    a, b = (np.array([r(g) for g in gs])[..., :2] for r, gs in ((whole, motion.gestures()), (ours, given)))
    apart = np.linalg.norm(a - b, axis=-1).mean()
    moved = np.linalg.norm(a - rest[:, :2], axis=-1).mean()
    assert apart < 0.35 * moved and apart < 0.02 * small_face.width_px
    gaps = [p[:, 14, 1] - p[:, 13, 1] for p in (a, b)]
    assert np.corrcoef(*gaps)[0, 1] > 0.95
    for turned in zip(motion.gestures(), given, strict=True):
        np.testing.assert_allclose(turned[0].turn, turned[1].turn, atol=1e-3)


def test_a_stream_drives_a_photo(small_path: Path, landmarker: Landmarker, tmp_path: Path) -> None:
    lines = [line(i / 10, 3 * i, blendshapes={"jawOpen": 0.1 * i}) for i in range(5)]
    out = tmp_path / "out.mp4"
    avatar = Avatar.from_photos([small_path], landmarker=landmarker)
    report = avatar.render(written(tmp_path / "a.jsonl", *lines), out, model="geometry", smooth=0)
    assert (report.num_frames, report.fps, report.driver) == (5, pytest.approx(10), "a.jsonl")
    last = landmarker.detect(list(video.read_frames(out))[-1])[0]
    turned = head_pose(last.points).degrees[0] - head_pose(avatar.face.points).degrees[0]
    assert turned == pytest.approx(12, abs=4)  # what the landmarker sees of a warped picture
    with pytest.raises(InputError, match="a stream as driver makes a video"):
        avatar.render(tmp_path / "a.jsonl", tmp_path / "out.png")


# Over a socket.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("udp://127.0.0.1:11111", ("127.0.0.1", 11111)),
        ("udp://localhost:0", ("127.0.0.1", 0)),
        ("udp://[::1]:9/", ("::1", 9)),
    ],
)
def test_addresses_of_this_computer(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("udp://0.0.0.0:11111", "0.0.0.0 is no address of this computer alone"),
        ("udp://192.168.0.4:11111", "192.168.0.4 is no address of this computer alone"),
        ("udp://example.org:11111", "example.org is no address of this computer alone"),
        ("tcp://127.0.0.1:11111", "give udp://127.0.0.1:PORT"),
        ("udp://127.0.0.1", "give udp://127.0.0.1:PORT"),
        ("udp://127.0.0.1:99999", "give udp://127.0.0.1:PORT"),
        ("udp://[::1", "give udp://127.0.0.1:PORT"),
        ("11111", "give udp://127.0.0.1:PORT"),
        ("", "give udp://127.0.0.1:PORT"),
    ],
)
def test_other_addresses_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        parse_address(text)
    assert words in str(error.value) and f"--stream {text}" in str(error.value)


def test_late_lines_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    box = Mailbox()
    assert box.put(line(5.0, 1).encode()).head[0] == 1
    assert box.put(line(4.9, 2).encode()) is None and box.put(line(5.0, 2).encode()) is None
    assert box.num_late == 2
    assert box.put(f"{line(5.1, 3)}\n\n{line(5.2, 4)}\n{line(5.15, 9)}".encode()).head[0] == 4
    assert (box.num_late, box.num_wrong) == (3, 0)
    for _ in range(3):
        assert box.put(b"{") is None
    assert box.num_wrong == 3 and box.complaint == "is no JSON" and len(caplog.records) == 1
    assert box.put(line(0.0, 5).encode()).head[0] == 5  # a sender that was started again
    assert box.put(line(0.1, 6).encode()).head[0] == 6


def test_rest_is_counted_from_a_line_that_came_with_others() -> None:
    box = Mailbox()
    sample = box.put(f"{line(1, 10, rest=True)}\n{line(2, 14)}".encode())
    assert sample.head[0] == pytest.approx(4)


def test_the_newest_of_what_was_sent_is_received() -> None:
    receiver = Receiver("127.0.0.1", 0)
    try:
        host, port = parse_address(receiver.address)
        assert receiver.receive(0) is None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(5):
                sender.sendto(line(number / 30, number).encode(), (host, port))
            sender.sendto(b"\xff\xfe", (host, port))
        deadline = time.monotonic() + 2
        sample = None
        while time.monotonic() < deadline and (sample is None or sample.head[0] != 4):
            sample = receiver.receive(0.1) or sample
        assert sample is not None and sample.head[0] == 4
        with pytest.raises(InputError, match=f"--stream: 127.0.0.1, port {port} cannot be used"):
            Receiver(host, port)
    finally:
        receiver.close()


def test_the_mean_face_is_a_face() -> None:
    mean = rest_reference().shape
    assert mean.shape == (NUM_POINTS, 3)
    assert np.abs(mean[: faces.NUM_MESH_POINTS] - faces.canonical_mesh().vertices).max() < 2.5  # centimetres
    assert stream.rest_reference() is rest_reference()
