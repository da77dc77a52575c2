"""Packets of face trackers, built by hand from their published formats: parsed values, and refused packets."""

from __future__ import annotations

import csv
import math
import re
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mimik.config import InputError
from mimik.face.landmarks import BLENDSHAPES, POINTS_68, Landmarker, canonical_mesh
from mimik.motion.drivers.driver import DriverSettings
from mimik.motion.drivers.registry import file_of, open_driver
from mimik.motion.drivers.stream import _rotation
from mimik.motion.drivers.stream_file import Stream, stream_lines
from mimik.motion.drivers.trackers import driver as tracker_driver
from mimik.motion.drivers.trackers.address import Address, is_tracker, parse_tracker
from mimik.motion.drivers.trackers.ifacialmocap import START, IFacialMocap
from mimik.motion.drivers.trackers.live_link import NAMES, LiveLink, csv_lines, csv_samples
from mimik.motion.drivers.trackers.openseeface import FACE_BYTES, OpenSeeFace
from mimik.motion.drivers.trackers.vmc import Vmc, messages
from mimik.motion.drivers.udp import Mailbox, Receiver
from mimik.motion.files import Motion, bundled_motions
from mimik.motion.kinds import check_driver

# Example of https://www.ifacialmocap.com/for-developer/, shortened.
IFACIALMOCAP = (
    b"mouthSmile_R-0|mouthUpperUp_L-11|eyeBlink_R-7|eyeLookDown_L-17|tongueOut-0|browInnerUp-20|jawOpen-12|"
    b"=head#-21.488958,-6.038993,-6.6019735,-0.030653415,-0.10287084,-0.6584072|rightEye#6.0297494,2.4403017,0.25649446|"
    b"leftEye#6.034903,-1.6660284,-0.17520553|"
)


def value(sample, name: str) -> float:
    return float(sample.blendshapes[BLENDSHAPES.index(name)])


def live_link(values: dict[str, float] | None = None, head=(0.0, 0.0, 0.0), frame: int = 120) -> bytes:
    device, subject = b"0B7C2A9E-1111-2222-3333-444455556666", b"iPhone"
    out = bytes([6])
    for name in (device, subject):
        out += struct.pack("!i", len(name)) + name
    out += struct.pack("!ifii", frame, 0.5, 60, 1)
    if values is None:
        return out + b"\0"
    row = [values.get(name, 0.0) for name in NAMES] + [*head, *[0.0] * 6]
    return out + bytes([61]) + struct.pack("!61f", *row)


def test_live_link_face() -> None:
    sample = LiveLink()(live_link({"jawOpen": 0.5, "eyeBlinkLeft": 1.0, "tongueOut": 0.9}, (0.1, -0.2, 0.3)), 0.0)
    assert sample.time_s == pytest.approx(120.5 / 60)
    assert (value(sample, "jawOpen"), value(sample, "eyeBlinkLeft"), value(sample, "eyeBlinkRight")) == (0.5, 1.0, 0.0)
    np.testing.assert_allclose(sample.head, [*np.degrees([0.1, -0.2, -0.3]), 0, 0, 0], atol=1e-4)
    assert sample.seen and not LiveLink()(live_link(None), 0.0).seen
    assert len(NAMES) == 52 and set(NAMES) - set(BLENDSHAPES) == {"tongueOut"}


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (b"", "not a packet of Live Link Face"),
        (b"\x05" + live_link({})[1:], "not a packet"),
        (live_link({})[:-1], "cut off"),
        (live_link({})[:20], "cut off"),
        (b"\x06\x7f\xff\xff\xff" + b"a" * 40, "impossible length"),
        (live_link({"jawOpen": math.nan}), "not a number"),
    ],
)
def test_what_is_no_packet_of_live_link(packet: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LiveLink()(packet, 0.0)


def test_ifacialmocap() -> None:
    for packet in (IFACIALMOCAP, IFACIALMOCAP.replace(b"Open-", b"Open&").replace(b"Blink_R-", b"Blink_R&")):
        sample = IFacialMocap()(packet, 7.0)
        assert sample.time_s == 7.0
        assert value(sample, "jawOpen") == pytest.approx(0.12) and value(sample, "eyeBlinkRight") == pytest.approx(0.07)
        assert value(sample, "browInnerUp") == pytest.approx(0.2) and value(sample, "mouthUpperUpLeft") == 0.11
        # The phone is below the face, so the face appears turned up, and 6.6 degrees clockwise.
        np.testing.assert_allclose(sample.head[:3], [-6.038993, -21.488958, 6.6019735])


@pytest.mark.parametrize("packet", [b"", b"\xff\xfe", b"hello", b"jawOpen-3|", b"jawOpen-x|=head#1,2,3|", b"=head#1|"])
def test_what_is_no_packet_of_ifacialmocap(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"iFacialMocap|number|angles"):
        IFacialMocap()(packet, 0.0)


def osc(address: str, *values: str | float | int) -> bytes:
    def padded(text: str) -> bytes:
        data = text.encode() + b"\0"
        return data + b"\0" * (-len(data) % 4)

    kinds = {str: "s", float: "f", int: "i"}
    out = padded(address) + padded("," + "".join(kinds[type(value)] for value in values))
    for one in values:
        out += padded(one) if isinstance(one, str) else struct.pack(">" + kinds[type(one)], one)
    return out


def bundle(*parts: bytes) -> bytes:
    return b"#bundle\0" + bytes(8) + b"".join(struct.pack(">i", len(part)) + part for part in parts)


def test_osc_messages() -> None:
    inner = bundle(osc("/b", 3))
    assert list(messages(bundle(osc("/a/b", "x", 0.5, 2), inner))) == [("/a/b", ["x", 0.5, 2]), ("/b", [3])]
    for packet in (
        b"",
        b"abc",
        b"no/slash\0\0\0\0,\0\0\0",
        bundle(osc("/a", 1))[:-3],
        osc("/a", 1.0)[:-2],
        b"/a\0\0,q\0\0",
    ):
        with pytest.raises(ValueError, match=r"cut off|OSC|type"):
            list(messages(packet))
    deep = osc("/a", 1)
    for _ in range(8):
        deep = bundle(deep)
    with pytest.raises(ValueError, match="too many bundles"):
        list(messages(deep))


def test_vmc_with_the_shapes_of_arkit_and_with_the_presets_of_an_avatar() -> None:
    vmc = Vmc()
    assert vmc(bundle(osc("/VMC/Ext/Blend/Val", "JawOpen", 0.4), osc("/VMC/Ext/Blend/Val", "Hat", 1.0)), 1.0) is None
    sample = vmc(osc("/VMC/Ext/Blend/Apply"), 2.0)
    assert sample is not None and sample.time_s == 2.0 and value(sample, "jawOpen") == pytest.approx(0.4)
    sample = Vmc()(bundle(osc("/VMC/Ext/Blend/Val", "A", 0.5), osc("/VMC/Ext/Blend/Val", "Blink_L", 1.0),
                          osc("/VMC/Ext/Blend/Apply")), 3.0)  # fmt: skip
    assert sample is not None and value(sample, "jawOpen") == pytest.approx(0.3)
    assert value(sample, "eyeBlinkLeft") == 1 and value(sample, "eyeBlinkRight") == 0


@pytest.mark.parametrize(("axis", "expected"), [(0, [0, 20, 0]), (1, [-20, 0, 0]), (2, [0, 0, 20])])
def test_the_head_of_vmc(axis: int, expected: list[float]) -> None:
    """Unity's axes, seen from the front: x nods down, y turns to the person's right, z tilts to the picture's right."""
    half = math.radians(20) / 2
    quaternion = [0.0, 0.0, 0.0, math.cos(half)]
    quaternion[axis] = math.sin(half)
    sample = Vmc()(osc("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0, *quaternion), 0.0)
    assert sample is not None
    np.testing.assert_allclose(sample.head[:3], expected, atol=1e-4)


def openseeface(points: np.ndarray, *, opened: float = 1.0, mouth: float = 0.0, fitted: int = 1) -> bytes:
    out = struct.pack("<diffffBf", 12.5, 0, 640.0, 480.0, opened, opened, fitted, 0.1)
    out += struct.pack("<10f", *[0.0] * 10)
    out += np.ones(68, "<f4").tobytes() + points.astype("<f4").tobytes() + np.zeros((70, 3), "<f4").tobytes()
    return out + np.array([*[0.0] * 12, mouth, 0.0], "<f4").tobytes()


@pytest.mark.parametrize("angles", [(0, 0, 0), (15, 0, 0), (0, -10, 0), (0, 0, 25), (-12, 8, 10)])
def test_the_head_of_openseeface(angles: tuple[float, float, float]) -> None:
    """Points of the canonical face, rotated by known angles, at a large distance."""
    turned = canonical_mesh().vertices[POINTS_68] @ _rotation(np.array([*angles, 0, 0, 0], float)).T
    packet = openseeface(turned[:, :2] * 20 + 300, opened=0.25, mouth=0.5)
    assert len(packet) == FACE_BYTES
    sample = OpenSeeFace()(packet + packet, 0.0)
    np.testing.assert_allclose(sample.head[:3], angles, atol=0.01)
    assert sample.time_s == 12.5
    assert value(sample, "eyeBlinkRight") == pytest.approx(0.75) and value(sample, "jawOpen") == pytest.approx(0.3)
    assert not OpenSeeFace()(openseeface(turned[:, :2], fitted=0), 0.0).seen
    with pytest.raises(ValueError, match="not a packet of OpenSeeFace"):
        OpenSeeFace()(packet[:-1], 0.0)


# Addresses.


def test_addresses() -> None:
    assert parse_tracker("livelink://0.0.0.0") == Address("livelink", "0.0.0.0", 11111)
    assert parse_tracker("vmc://127.0.0.1:5000") == Address("vmc", "127.0.0.1", 5000)
    assert parse_tracker("openseeface://") == Address("openseeface", "127.0.0.1", 11573)
    phone = parse_tracker("ifacialmocap://0.0.0.0?phone=192.168.1.7")
    assert phone == Address("ifacialmocap", "0.0.0.0", 49983, "192.168.1.7")
    assert is_tracker("vmc://x") and not is_tracker("udp://127.0.0.1:1") and not is_tracker("vmc")
    for text in ("vmc://example.org", "vmc://127.0.0.1:99999", "vmc://127.0.0.1/a", "livelink://0.0.0.0?x=1"):
        with pytest.raises(InputError, match=r"use one of livelink://0\.0\.0\.0:11111, ifacialmocap"):
            parse_tracker(text)
    with pytest.raises(InputError, match="phone= applies to iFacialMocap only"):
        parse_tracker("vmc://0.0.0.0?phone=192.168.1.7")
    check_driver("vmc://127.0.0.1")
    assert file_of("vmc://127.0.0.1") is None


def test_the_first_head_is_rest_and_calibration_makes_another() -> None:
    box = Mailbox(LiveLink())

    def head(yaw: float, frame: int) -> float:
        sample = box.put(live_link({"jawOpen": 0.2}, (math.radians(yaw), 0, 0), frame))
        assert sample is not None and (value(sample, "jawOpen") == pytest.approx(0.2) or frame > 3)
        return float(sample.head[0])

    assert head(20, 1) == pytest.approx(0, abs=1e-4) and head(25, 2) == pytest.approx(5, abs=1e-4)
    box.calibrate()
    assert head(30, 4) == pytest.approx(0, abs=1e-4) and head(25, 5) == pytest.approx(-5, abs=1e-4)
    assert box.put(b"rubbish") is None and (box.num_invalid, box.last_error) == (1, "is not a packet of Live Link Face")


def test_a_phone_is_asked_to_send() -> None:
    phone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    phone.bind(("127.0.0.1", 0))
    phone.settimeout(5)
    receiver = Receiver.of_tracker(Address("ifacialmocap", "127.0.0.1", 0))
    receiver._phone = phone.getsockname()
    try:
        receiver.receive(0.0)
        asked, sender = phone.recvfrom(200)
        assert asked == START
        phone.sendto(IFACIALMOCAP, sender)
        assert receiver.receive(5) is not None
    finally:
        receiver.close()
        phone.close()


@pytest.mark.slow
def test_a_tracker_is_recorded_as_a_driver(monkeypatch: pytest.MonkeyPatch, landmarker: Landmarker) -> None:
    made: list[Receiver] = []
    of_tracker = Receiver.of_tracker

    def remembered(address: Address) -> Receiver:
        made.append(of_tracker(address))
        return made[0]

    monkeypatch.setattr(tracker_driver.Receiver, "of_tracker", remembered)
    driver = open_driver("livelink://127.0.0.1:0", 20.0, seconds=0.6)
    assert (driver.kind, driver.path, driver.num_frames, driver.fps) == ("tracker", None, 12, 20.0)
    ended = threading.Event()

    def send() -> None:
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            frame = 0
            while not ended.wait(0.02):
                frame += 1
                if made:
                    port = int(made[0].address.rpartition(":")[2])
                    sender.sendto(live_link({"jawOpen": 0.8}, (frame / 500, 0, 0), frame), ("127.0.0.1", port))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with driver.motion(DriverSettings(landmarker=landmarker, smooth=0)) as motion:
            frames = list(motion.frames)
    finally:
        ended.set()
        thread.join()
    assert len(frames) == 12 and all(frame.seen for frame in frames[:8])
    turns = [float(np.linalg.norm(frame.turn)) for frame in frames]
    assert turns[8] > turns[1] >= 0


def test_a_silent_tracker_is_reported(monkeypatch: pytest.MonkeyPatch, landmarker: Landmarker) -> None:
    monkeypatch.setattr(tracker_driver, "_WAIT_S", 0.05)
    begun_s = time.monotonic()
    told: list[tuple[str, int, int | None]] = []
    with pytest.raises(InputError, match=r"udp://127\.0\.0\.1:\d+: no face arrived within 0 s; start the tracker"):
        open_driver("vmc://127.0.0.1:0").motion(
            DriverSettings(landmarker=landmarker, progress=lambda *how: told.append(how))
        )
    assert len(told) == 1 and re.fullmatch(r"waiting for a face at udp://127\.0\.0\.1:\d+", told[0][0])
    assert time.monotonic() - begun_s < 30  # the usual wait is 60 s


# Recordings for Blender and Unreal.


def recording(*rows: tuple[str, float | None]) -> list[str]:
    """Lines of a recording: timecode and JawOpen, None where the app lost the face."""
    lines = ["Timecode,BlendShapeCount,JawOpen,HeadYaw,HeadPitch,HeadRoll\n"]
    return lines + [f"{at},0,,,,\n" if jaw is None else f"{at},61,{jaw},0.1,-0.2,0.3\n" for at, jaw in rows]


def test_a_recording_of_live_link_face_drives(tmp_path: Path) -> None:
    motion = Motion.load(bundled_motions()["nod"])
    (tmp_path / "nod.csv").write_text("".join(csv_lines(motion)))
    (tmp_path / "nod.jsonl").write_text("".join(stream_lines(motion)))
    table, lines = (Stream.load(tmp_path / f"nod.{kind}") for kind in ("csv", "jsonl"))
    np.testing.assert_allclose(table.time_s, lines.time_s, atol=1e-3)
    np.testing.assert_allclose(table.blendshapes, lines.blendshapes.clip(0, 1), atol=1e-4)
    np.testing.assert_allclose(table.head[:, :3], lines.head[:, :3], atol=1e-3)
    opened = open_driver(tmp_path / "nod.csv")
    assert (opened.kind, opened.fps, opened.num_frames) == ("stream", pytest.approx(motion.fps), len(motion))


def test_timecodes_of_a_recording() -> None:
    """60 frames/s across midnight, with two lost frames near ends of seconds, and one line without a face."""
    rows = [(f"23:59:59:{i:02}.{i:03}", 0.5) for i in range(58)] + [("00:00:00:00.000", None), ("00:00:00:00.000", 1.0)]
    samples = list(csv_samples(recording(*rows)))
    assert len(samples) == 59 and samples[0][0] == 2  # a line with the time of the previous one is omitted
    times = np.array([sample.time_s for _, sample in samples])
    assert times[1] - times[0] == pytest.approx(1.001 / 60) and times[-1] - times[0] == pytest.approx(1.0)
    assert [sample.seen for _, sample in samples] == [True] * 58 + [False]
    first = samples[0][1]
    assert first.blendshapes[BLENDSHAPES.index("jawOpen")] == 0.5
    np.testing.assert_allclose(first.head[:3], np.degrees([0.1, -0.2, -0.3]))
    # Less than a second does not determine the rate; a complete second at 10 frames/s does.
    assert [s.time_s for _, s in csv_samples(recording(("01:00:00:03", 0), ("01:00:00:06", 0)))] == [3600.1, 3600.2]
    tens = [(f"00:00:{i // 10:02}:{i % 10:02}", 0.0) for i in range(25)]
    assert [s.time_s for _, s in csv_samples(recording(*tens))] == pytest.approx([i / 10 for i in range(25)])


def test_the_head_of_the_apps_recording_counts_from_its_first_pose() -> None:
    """The app writes eye angles, and head angles relative to the camera; `csv_lines` does neither."""
    titles = "Timecode,JawOpen,HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw\n"
    rows = ["00:00:00:00,0.4,0.0,0.3,0.0,{}\n", "00:00:00:01,0.4,0.0,0.5,0.0,{}\n"]
    app, own = ([s for _, s in csv_samples([titles, *(row.format(eye) for row in rows)])] for eye in (0.1, 0))
    assert [s.head[1] for s in app] == pytest.approx([0.0, math.degrees(0.2)], abs=1e-6)
    assert [s.head[1] for s in own] == pytest.approx([math.degrees(0.3), math.degrees(0.5)])
    assert app[0].blendshapes[BLENDSHAPES.index("jawOpen")] == 0.4  # the expression is not relative to the first frame


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (recording(("soon", 0.0)), "line 2 has no timecode such as 00:00:01:12.000"),
        ([*recording(), "00:00:00:01,61,wide,0,0,0\n"], "line 2 has a value that is not a number"),
        (recording(("00:00:02:00", 0.0), ("00:00:01:00", 0.0)), "line 3 has time 1, which is not after"),
        (recording(), "has no lines; use a file that `mimik motion extract VIDEO -o X.csv` wrote"),
        (["a" * 70_000], "line 1 is not a row of a table"),
    ],
)
def test_a_recording_that_cannot_be_used(tmp_path: Path, lines: list[str], said: str) -> None:
    (tmp_path / "a.csv").write_text("".join(lines))
    with pytest.raises(InputError, match=said):
        Stream.load(tmp_path / "a.csv")


def test_a_motion_as_a_recording_of_live_link_face(tmp_path: Path) -> None:
    motion = Motion.load(bundled_motions()["nod"])
    (tmp_path / "nod.csv").write_text("".join(csv_lines(motion)))
    with (tmp_path / "nod.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(motion)
    titles = list(rows[0])
    assert titles[:4] == ["Timecode", "BlendshapeCount", "EyeBlinkLeft", "EyeLookDownLeft"] and len(titles) == 63
    assert titles[16:20] == ["JawForward", "JawRight", "JawLeft", "JawOpen"] and titles[-9:-6] == [
        *("HeadYaw", "HeadPitch", "HeadRoll")
    ]
    rate = round(motion.fps)
    assert rows[rate + 1]["Timecode"] == "00:00:01:01.000" and {row["BlendshapeCount"] for row in rows} == {"61"}
    pitch = np.array([float(row["HeadPitch"]) for row in rows])
    assert np.ptp(pitch) == pytest.approx(np.ptp(motion.turn[:, 0]), rel=0.1)
    # The written values equal those of a packet.
    row = rows[len(rows) // 2]
    values = [float(row[name[:1].upper() + name[1:]]) for name in NAMES]
    packet = live_link(dict(zip(NAMES, values, strict=True)), [float(row[name]) for name in titles[-9:-6]])
    assert LiveLink()(packet, 0.0).head[1] == pytest.approx(math.degrees(float(row["HeadPitch"])), abs=1e-3)
