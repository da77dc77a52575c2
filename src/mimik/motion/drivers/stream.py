"""A face as lines of numbers: how a game engine, a face tracker or a script drives a person without a video.

One JSON object a line: a time stamp, blendshapes by their ARKit or MediaPipe names, and the head's pose; docs/stream.md
has the format. The same lines make a file, `.jsonl`, and come in over UDP on this computer's loopback address.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import logging
import math
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mimik.config import InputError
from mimik.face.landmarks import (
    BLENDSHAPES,
    LEFT_EYE_LOWER,
    LEFT_EYE_UPPER,
    RIGHT_EYE_LOWER,
    RIGHT_EYE_UPPER,
    mirror_order,
)
from mimik.motion.gestures import (
    Float,
    Gesture,
    Motion,
    Reference,
    expression_basis,
    rotation_matrix,
    rotation_vector,
    still,
)

STREAM_SUFFIX = ".jsonl"
HOLD_S = 0.5  # a sender that says nothing for longer has lost the face: the person goes back to neutral

_HEAD = {"yaw": 90.0, "pitch": 90.0, "roll": 180.0, "x": 100.0, "y": 100.0, "z": 50.0}  # and the largest of each
_UNHEARD = ("_neutral", "tongueOut")  # of MediaPipe and of ARKit; nothing of them can be drawn
_NAMES = {name.lower(): name for name in (*BLENDSHAPES, *_UNHEARD)}
_CAMERA_CM = 60.0  # how far from the camera a head is taken to be: what z does to its size
_LIDS_MEET = 0.4, 0.7  # blinks at which they are helped to, and at which they do: the landmarker's reach 0.6 to 0.8
_UPPER_LID = 0.85  # of a closing eye's way is the upper lid's
_MAX_FPS = 120.0
_MAX_LINE_BYTES = 1 << 16  # of one line, and of a datagram
_MAX_LINES = 1_000_000  # nine hours at 30 a second: 0.5 GB
_MAX_S = 36_000
_MAX_APART_S = 2.0  # rather milliseconds, or frame numbers
_MAX_WAITING = 1000  # datagrams that are read at once: a sender without a pause must not keep the person from moving
_MAX_COMPLAINTS = 20  # about what is sent: nobody reads more
_DECIMALS = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One line: a face at one instant.

    Attributes:
        time_s: on the sender's clock.
        blendshapes: [52] in the order of BLENDSHAPES, 0 at rest, -1..1.
        head: [6] yaw (to the picture's right), pitch (down), roll (clockwise) in degrees; x (right), y (down), z (away)
            in centimetres.
        seen: False where the sender sees no face.
        is_rest: whether this is what the face and the head are like at rest, from here on.
    """

    time_s: float
    blendshapes: Float
    head: Float
    seen: bool = True
    is_rest: bool = False


def parse(line: str | bytes) -> Sample:
    """One line of a stream.

    Raises:
        ValueError: with what is wrong with it, for a sentence that says where it stands.
    """
    if len(line) > _MAX_LINE_BYTES:
        raise ValueError(f"is longer than {_MAX_LINE_BYTES} bytes")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    if not isinstance(record, dict):
        raise ValueError('is no JSON object such as {"time": 0.04, "blendshapes": {"jawOpen": 0.3}}')
    if unknown := record.keys() - {"time", "blendshapes", "head", "rest"}:
        raise ValueError(f"has {_shown(min(unknown))}; give time, blendshapes, head and rest")
    if "time" not in record:
        raise ValueError("has no time")
    time_s = _number("time", record["time"], math.inf)
    shapes, head = (_table(record, name) for name in ("blendshapes", "head"))
    values = np.zeros(len(BLENDSHAPES))
    for given, value in shapes.items():
        name = _NAMES.get(given.lower())
        if name is None:
            raise ValueError(f"has the blendshape {_shown(given)}, which neither ARKit nor MediaPipe has")
        number = _number(given, value, 1.0)
        if name not in _UNHEARD:
            values[BLENDSHAPES.index(name)] = number
    if unknown := head.keys() - _HEAD.keys():
        raise ValueError(f"has the head's {_shown(min(unknown))}; give {', '.join(_HEAD)}")
    place = np.array([_number(name, head.get(name, 0.0), limit) for name, limit in _HEAD.items()])
    rest = record.get("rest", False)
    if not isinstance(rest, bool):
        raise ValueError("has a rest that is neither true nor false")
    return Sample(time_s, values, place, "blendshapes" in record or "head" in record, rest)


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 30 else f"{name[:30]}..")


def _table(record: dict[str, Any], name: str) -> dict[str, Any]:
    table = record.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"has {name} that are no JSON object")
    return table


def _number(name: str, value: Any, limit: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    number = float(value) if is_number and abs(value) < 1e300 else math.nan
    if not abs(number) <= limit:  # nan, too
        accepted = "a number" if limit == math.inf else f"a number from {-limit:g} to {limit:g}"
        raise ValueError(f"has {name} {_shown(str(value))}; give {accepted}")
    return number


def line_of(sample: Sample) -> str:
    """The line, without its end, that parse reads back; what is zero is left out."""
    record: dict[str, Any] = {"time": round(sample.time_s, _DECIMALS)}
    if sample.seen:
        shapes = zip(BLENDSHAPES, sample.blendshapes.clip(-1, 1).round(_DECIMALS).tolist(), strict=True)
        record["blendshapes"] = {name: value for name, value in shapes if value and name not in _UNHEARD}
        largest = np.array(list(_HEAD.values()))
        head = zip(_HEAD, sample.head.clip(-largest, largest).round(_DECIMALS).tolist(), strict=True)
        record["head"] = {name: value for name, value in head if value}
    if sample.is_rest:
        record["rest"] = True
    return json.dumps(record)


# Between lines and gestures.


def _rotation(head: Float) -> Float:
    """[3, 3] of yaw, pitch and roll in degrees: pitch first, then yaw, then roll, about the picture's axes."""
    yaw, pitch, roll = np.radians(head[:3])
    x, y, z = np.eye(3)
    return rotation_matrix(roll * z) @ rotation_matrix(-yaw * y) @ rotation_matrix(pitch * x)


def _angles(rotation: Float) -> Float:
    """[3] yaw, pitch, roll in degrees; _rotation's inverse while |yaw| is below 90."""
    r = rotation
    return np.degrees([math.asin(np.clip(r[2, 0], -1, 1)), math.atan2(r[2, 1], r[2, 2]), math.atan2(r[1, 0], r[0, 0])])


def mirrored(sample: Sample) -> Sample:
    """The face as a mirror shows it."""
    shapes = sample.blendshapes[mirror_order()[1]]
    return replace(sample, blendshapes=shapes, head=sample.head * [-1, 1, -1, -1, 1, 1])


def gesture_of(sample: Sample) -> Gesture:
    """What the face does, relative to its rest."""
    return replace(
        still(),
        turn=rotation_vector(_rotation(sample.head)),
        shift=sample.head[3:].copy(),
        zoom=-math.log1p(sample.head[5] / _CAMERA_CM),
        offset=_with_shut_eyes(expression_basis().expression(sample.blendshapes), sample.blendshapes),
        blendshapes=expression_basis().neutral + sample.blendshapes,
        seen=sample.seen,
    )


def _with_shut_eyes(offset: Float, blendshapes: Float) -> Float:
    """The offset [478, 3] with the lids of a blink brought together.

    In people, lids that shut go with other blendshapes, and the basis has learned from them all. Who moves a face by
    hand gives the blink alone, which by the basis leaves a quarter of the eye open.
    """
    out = offset.copy()
    shape = expression_basis().shape + offset
    for name, upper, lower in (
        ("eyeBlinkRight", RIGHT_EYE_UPPER, RIGHT_EYE_LOWER),
        ("eyeBlinkLeft", LEFT_EYE_UPPER, LEFT_EYE_LOWER),
    ):
        t = float(np.clip((blendshapes[BLENDSHAPES.index(name)] - _LIDS_MEET[0]) / np.diff(_LIDS_MEET)[0], 0, 1))
        way = t * t * (3 - 2 * t) * (shape[lower] - shape[upper])
        out[upper] += _UPPER_LID * way
        out[lower] -= (1 - _UPPER_LID) * way
    return out


def sample_of(gesture: Gesture, reference: Reference, time_s: float) -> Sample:
    """The line that says what a driver's gesture says, as far as blendshapes can.

    Args:
        gesture: relative to the driver's neutral face.
        reference: that face.
        time_s: of the gesture.
    """
    away = _CAMERA_CM * math.expm1(-gesture.zoom)
    head = np.concatenate([_angles(rotation_matrix(gesture.turn)), gesture.shift[:2], [away]])
    return Sample(time_s, gesture.blendshapes - reference.blendshapes, head, gesture.seen)


@functools.cache
def rest_reference() -> Reference:
    """The neutral face that blendshapes are counted from: a mean of many people, who look at the camera."""
    basis = expression_basis()
    return Reference(basis.shape, rotation_matrix(np.array([basis.neutral_pitch, 0, 0])), basis.neutral)


class _Rest:
    """Counts samples from the last one that was said to be at rest."""

    def __init__(self) -> None:
        self._rest: Sample | None = None

    def __call__(self, sample: Sample) -> Sample:
        if sample.is_rest:
            self._rest = sample
        if self._rest is None or not sample.seen:
            return sample
        turn = _rotation(sample.head) @ _rotation(self._rest.head).T
        head = np.concatenate([_angles(turn), sample.head[3:] - self._rest.head[3:]])
        return replace(sample, blendshapes=sample.blendshapes - self._rest.blendshapes, head=head)


# Files.


@dataclass(frozen=True)
class Stream:
    """A whole stream from a file.

    Attributes:
        name: for people.
        time_s: [T] rising, the first is 0.
        blendshapes: [T, 52], head: [T, 6], seen: [T] as in Sample, counted from rest.
    """

    name: str
    time_s: Float
    blendshapes: Float
    head: Float
    seen: np.ndarray[Any, np.dtype[np.bool_]]

    @property
    def fps(self) -> float:
        """Lines a second where they come regularly."""
        if len(self.time_s) < 2:
            return 25.0
        return float(np.clip(1 / np.median(np.diff(self.time_s)), 1.0, _MAX_FPS))

    @property
    def duration_s(self) -> float:
        """Until the last line has been shown as long as the others."""
        return float(self.time_s[-1]) + 1 / self.fps

    def num_frames(self, fps: float) -> int:
        return max(1, round(self.duration_s * fps))

    def gestures(self, fps: float) -> Iterator[Gesture | None]:
        """One a frame, between the lines interpolated linearly; None where no face is seen.

        Where no line comes for longer than HOLD_S, the last one holds that long, and then the face counts as lost.
        """
        last = len(self.time_s) - 1
        for number in range(self.num_frames(fps)):
            at = number / fps
            i = int(np.searchsorted(self.time_s, at + 1e-9, "right")) - 1
            j = min(i + 1, last)
            gap = self.time_s[j] - self.time_s[i]
            if not self.seen[i] or (gap > HOLD_S and at - self.time_s[i] > HOLD_S):
                yield None
                continue
            t = (at - self.time_s[i]) / gap if self.seen[j] and 0 < gap <= HOLD_S else 0.0
            shapes, head = (x[i] * (1 - t) + x[j] * t for x in (self.blendshapes, self.head))
            yield gesture_of(Sample(at, shapes, head))

    @classmethod
    def load(cls, path: Path) -> Stream:
        """Reads a .jsonl file.

        Raises:
            InputError: if a line of it cannot be used; the sentence names the line.
        """
        rest = _Rest()
        times: list[float] = []
        rows: list[Float] = []
        seen: list[bool] = []

        def wrong(number: int, why: object) -> InputError:
            return InputError(
                f"{path}, line {number} {why}; a driver's lines look like "
                '{"time": 0.04, "blendshapes": {"jawOpen": 0.3}, "head": {"yaw": 5}}.'
            )

        try:
            with path.open("rb") as file:
                for number, line in enumerate(_lines(file), start=1):
                    if not line.strip():
                        continue
                    if len(times) == _MAX_LINES:
                        raise InputError(f"{path} has more than {_MAX_LINES} lines; cut it into several files.")
                    try:
                        sample = rest(parse(line))
                    except ValueError as error:
                        raise wrong(number, error) from None
                    if times and sample.time_s <= times[-1]:
                        raise wrong(number, f"has time {sample.time_s:g}, which is not after that of the line before")
                    times.append(sample.time_s)
                    rows.append(np.concatenate([sample.blendshapes, sample.head]))
                    seen.append(sample.seen)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error}); give another file.") from None
        if not times:
            raise InputError(f"{path} has no lines; give a file that `mimik motion extract VIDEO -o X.jsonl` wrote.")
        if not any(seen):
            raise InputError(f"{path}: none of its {len(seen)} lines has blendshapes or a head; give one that has.")
        if len(times) > 1 and (apart_s := float(np.median(np.diff(times)))) > _MAX_APART_S:
            raise InputError(
                f"{path}: its lines are {apart_s:g} s apart; time is counted in seconds, and a driver needs several "
                "lines in each."
            )
        if times[-1] - times[0] > _MAX_S:
            raise InputError(f"{path} lasts {times[-1] - times[0]:g} s; give one of {_MAX_S} s or less.")
        table = np.array(rows)
        split = len(BLENDSHAPES)
        return cls(path.name, np.array(times) - times[0], table[:, :split], table[:, split:], np.array(seen))


def _lines(file: Any) -> Iterator[bytes]:
    """Lines of a binary file; of one that is too long, only as much as shows that it is."""
    while line := file.readline(_MAX_LINE_BYTES + 2):
        yield line


def stream_lines(motion: Motion) -> Iterator[str]:
    """The lines of a motion, each with its end."""
    for number, gesture in enumerate(motion.gestures()):
        yield f"{line_of(sample_of(gesture, motion.reference, number / motion.fps))}\n"


# From another program.


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of udp://127.0.0.1:PORT.

    Raises:
        InputError: if it is something else, or no address of this computer's own loopback.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if not host or port is None or parts.scheme != "udp" or parts.path.strip("/") or parts.query or parts.username:
        raise InputError(f"--stream {text}: give udp://127.0.0.1:PORT, such as udp://127.0.0.1:11111.")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        is_own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = False
    if not is_own:
        raise InputError(
            f"--stream {text}: {host} is no address of this computer alone; give 127.0.0.1, localhost or [::1], and "
            "let a small program here hand on what comes from another device."
        )
    return host, port


class Mailbox:
    """Keeps the newest of the samples that come in; what comes late is left out.

    Attributes:
        num_late: lines that an earlier-come one with a later time made useless.
        num_wrong: lines that could not be read.
        complaint: what was wrong with the last of those.
    """

    RESTART_S = 2.0  # a time that lies further back is that of a sender that was started again

    def __init__(self) -> None:
        self._rest = _Rest()
        self._newest: Sample | None = None
        self.num_late = self.num_wrong = 0
        self.complaint: str | None = None

    def put(self, packet: bytes) -> Sample | None:
        """Takes in a datagram of one or several lines.

        Returns:
            The newest sample, counted from rest; None if nothing in it is new.
        """
        fresh: Sample | None = None
        for line in packet.splitlines():
            if not line.strip():
                continue
            try:
                sample = parse(line)
            except ValueError as error:
                self.num_wrong += 1
                if str(error) != self.complaint and self.num_wrong <= _MAX_COMPLAINTS:
                    log.warning("a line that was sent %s; it is left out.", error)
                self.complaint = str(error)
                continue
            before = self._newest
            if before is not None and before.time_s - self.RESTART_S < sample.time_s <= before.time_s:
                self.num_late += 1
                continue
            self._newest = sample
            fresh = self._rest(sample)
        return fresh


class Receiver:
    """Samples that another program on this computer sends by UDP, the newest only."""

    def __init__(self, host: str, port: int) -> None:
        """Listens at once.

        Args: host, port: as parse_address gives them; port 0 takes any that is free.

        Raises:
            InputError: if somebody else listens there.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except (OSError, OverflowError) as error:
            self._socket.close()
            why = getattr(error, "strerror", None) or error
            raise InputError(f"--stream: {host}, port {port} cannot be used ({why}); give another port.") from None
        self._socket.setblocking(False)
        self._mailbox = Mailbox()

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}"

    @property
    def mailbox(self) -> Mailbox:
        return self._mailbox

    def receive(self, timeout_s: float) -> Sample | None:
        """The newest sample that has come in since the last call; waits for one, and gives None when none came."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return None
        fresh: Sample | None = None
        for _ in range(_MAX_WAITING):
            try:
                packet = self._socket.recv(_MAX_LINE_BYTES)
            except BlockingIOError:
                break
            except ConnectionError:  # Windows tells of an answer that nobody took
                continue
            fresh = self._mailbox.put(packet) or fresh
        return fresh

    def close(self) -> None:
        self._socket.close()
