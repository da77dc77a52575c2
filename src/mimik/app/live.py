"""A camera drives a photo while it films: the pipeline of `mimik live`, without a page or a browser.

The newest frame only: what the camera films while all that can be worked on is worked on is forgotten, so that a slow
machine shows fewer frames, never later ones. Following the camera, flow, painting and marking run in a thread each, in
a pipeline as that of animation/render.py. What leaves carries the visible label and the watermark; recordings are
sealed as every file is.
"""

from __future__ import annotations

import functools
import math
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mimik.animation.avatar import Avatar
from mimik.animation.source_frame import SourceFrame
from mimik.config import REGIONS, AnimateConfig, InputError, NoFaceError, check_number
from mimik.face.landmarks import Face, Image, Landmarker, Pose, Tracker, mirrored
from mimik.media import video
from mimik.motion.gestures import Reference, Steady, find_neutral, gesture_of_photo, split, usual_place
from mimik.pipeline import QUEUE_FRAMES, Clock, pipeline_threads, prefetch
from mimik.provenance.credentials import Credentials
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.marking import Marker, burn_label
from mimik.provenance.sealing import check_output, seal

T = TypeVar("T")

LIVE_SIZE = 512  # pixels of the longer side
_AUTO_S = 1.5  # after this much of seeing a face its neutral is known well enough to replace the first guess
_PRESSED_S = 0.8  # "look neutral, press here": this much is looked at
_TURN_OVER_S = 0.4  # from one neutral face to the next, so that the person does not jump
_MAX_GAP_S = 0.25  # a camera that stalls longer is treated as if it had not
RECORDING_FPS = 25.0
_LABEL_SCALE = {"normal": 1.0, "small": 0.5}
LABELS = tuple(_LABEL_SCALE)


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What can be changed during a call; every message names the control that it is about."""

    mirror: bool = False  # the person moves as in a mirror
    regions: tuple[str, ...] = REGIONS
    strength: float = 1.0
    freeze: bool = False  # the person holds still; the stream goes on
    label: str = "normal"  # one of LABELS: how large the visible label is; it is always there

    def __post_init__(self) -> None:
        if any(name not in REGIONS for name in self.regions):
            raise InputError(f"regions {', '.join(map(str, self.regions))}: give any of {', '.join(REGIONS)}.")
        if isinstance(self.strength, bool) or not isinstance(self.strength, int | float):
            raise InputError(f"strength {self.strength!r}: give a number from 0 to 3.")
        check_number("strength", self.strength, 0.0, 3.0, "1 is your own strength")
        for name in ("mirror", "freeze"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} {getattr(self, name)!r}: give true or false.")
        if self.label not in LABELS:
            raise InputError(f"label {self.label!r}: give one of {', '.join(LABELS)}; a live call is always labelled.")


class Newest(Generic[T]):
    """A place for one thing: what is put there replaces what nobody has taken."""

    def __init__(self) -> None:
        self._item: T | None = None
        self._changed = threading.Condition()
        self._closed = False
        self.num_dropped = 0

    def put(self, item: T) -> None:
        with self._changed:
            self.num_dropped += self._item is not None
            self._item = item
            self._changed.notify_all()

    def take(self) -> T | None:
        """Waits for something; None when the place was closed."""
        with self._changed:
            while self._item is None and not self._closed:
                self._changed.wait()
            item, self._item = self._item, None
            return None if self._closed else item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


# From camera frames to the person's points.


@dataclass(frozen=True)
class _Neutral:
    """A face at rest: what gestures are counted from."""

    reference: Reference
    origin: Pose

    @classmethod
    def guessed(cls, face: Face) -> _Neutral:
        """From one frame, whatever the face does in it."""
        reference, _ = gesture_of_photo(face)
        return cls(reference, usual_place([face], reference))

    @classmethod
    def found(cls, seen: Sequence[Face]) -> _Neutral:
        """From the calmest of some frames."""
        reference = find_neutral(seen)
        return cls(reference, usual_place(seen, reference))


class _Aim:
    """Where one neutral face sends the person's points."""

    def __init__(self, neutral: _Neutral, portrait: SourceFrame, smooth: float, controls: Controls) -> None:
        self._neutral, self._portrait = neutral, portrait
        self._steady = Steady(smooth)
        self.set(controls)

    def set(self, controls: Controls) -> None:
        self._retarget = self._portrait.retarget(
            self._neutral.reference, regions=controls.regions, strength=controls.strength
        )

    def __call__(self, face: Face | None, dt: float) -> NDArray[np.float64]:
        gesture = None if face is None else split(face, self._neutral.reference, self._neutral.origin)
        return self._retarget(self._steady(gesture, dt))


class Follower:
    """From camera frames to the person's points; finds the neutral face by itself, and again when it is asked to."""

    def __init__(
        self, portrait: SourceFrame, landmarker: Landmarker, *, smooth: float, face: int | None = None
    ) -> None:
        """Args:
        portrait: the person.
        landmarker: for this camera alone.
        smooth: 0..1, see motion.Smoother.
        face: which face in front of the camera, 1 is the widest; None is the widest.
        """
        self._portrait, self._smooth = portrait, smooth
        self._tracker = Tracker(landmarker, face)
        self._aim: _Aim | None = None
        self._before: _Aim | None = None  # fades out
        self._mix = 1.0  # of the aim against the one before
        self._collected: list[Face] | None = []  # faces of the calibration that goes on, as the camera shows them
        self._collected_s = 0.0
        self._wanted_s = _AUTO_S
        self._rest: Sequence[Face] = ()  # faces of the last one that ended
        self._controls = Controls()
        self._last_s: float | None = None
        self._pressed = threading.Event()
        self._width = 0

    @property
    def is_calibrating(self) -> bool:
        return self._collected is not None or self._pressed.is_set()

    def calibrate(self) -> None:
        """The face is neutral now; any thread may say so."""
        self._pressed.set()

    def __call__(self, image: Image, at_s: float, controls: Controls) -> tuple[NDArray[Any] | None, Face | None]:
        """One camera frame.

        Args:
            image: uint8 RGB [H, W, 3].
            at_s: when it was taken, on any clock that runs forward.
            controls: as they are now.

        Returns:
            Where the person's points go, [478, 3] pixels of the portrait, None before the first face was seen; and the
            camera's face, not mirrored, None where it cannot be seen.
        """
        dt = 1 / 30 if self._last_s is None else float(np.clip(at_s - self._last_s, 1e-3, _MAX_GAP_S))
        self._last_s = at_s
        self._width = image.shape[1]
        found = self._tracker.track(image)
        was, self._controls = self._controls, controls
        if self._aim is not None and controls != was:
            if controls.mirror != was.mirror:
                self._turn_to(_Neutral.found([self._shown(one) for one in self._rest]))
            self._aim.set(controls)
        if found is not None:
            self._collect(found, dt)
        if self._aim is None:
            return None, found
        face = None if found is None else self._shown(found)
        points = self._aim(face, dt)
        if self._before is not None:
            self._mix = min(1.0, self._mix + dt / _TURN_OVER_S)
            eased = self._mix * self._mix * (3 - 2 * self._mix)
            points = eased * points + (1 - eased) * self._before(face, dt)
            if self._mix == 1:
                self._before = None
        return points, found

    def _shown(self, face: Face) -> Face:
        return mirrored(face, self._width) if self._controls.mirror else face

    def _collect(self, face: Face, dt: float) -> None:
        if self._pressed.is_set():
            self._pressed.clear()
            self._collected, self._collected_s, self._wanted_s = [], 0.0, _PRESSED_S
        if self._aim is None:
            self._rest = [face]
            self._aim = _Aim(_Neutral.guessed(self._shown(face)), self._portrait, self._smooth, self._controls)
        if self._collected is None:
            return
        self._collected.append(face)
        self._collected_s += dt
        if self._collected_s >= self._wanted_s:
            self._rest, self._collected = self._collected, None
            self._turn_to(_Neutral.found([self._shown(one) for one in self._rest]))

    def _turn_to(self, neutral: _Neutral) -> None:
        self._before, self._mix = self._aim, 0.0
        self._aim = _Aim(neutral, self._portrait, self._smooth, self._controls)


# A call.


@dataclass
class Shown:
    """A frame of the person, ready to leave.

    Attributes:
        labelled: uint8 RGB [H, W, 3] with the visible label; only for provenance.seal, which marks what it writes.
        marker: of the call.
        number: counts from 1.
        at_s: when its camera frame was taken, on the clock of who offered it.
        face: the camera's face in 0..1 of the camera's frame, [478, 2]; None where it cannot be seen.
    """

    labelled: Image
    marker: Marker
    number: int
    at_s: float
    face: NDArray[Any] | None

    @functools.cached_property
    def image(self) -> Image:
        """uint8 RGB [H, W, 3], labelled and marked: what may be shown."""
        return self.marker.mark(self.labelled)


@dataclass(frozen=True)
class _Followed:
    """A camera frame whose face was followed: Shown's fields, where the person's points go, and the controls then."""

    points: NDArray[Any] | None
    face: NDArray[Any] | None
    at_s: float
    controls: Controls


class Call:
    """One person, one camera: offer() camera frames, and on_shown hears of what came of them.

    >>> with Call(Avatar.from_photos(["photo.jpg"])) as call:
    ...     call.on_shown(send)
    ...     call.offer(frame, time.perf_counter())
    """

    def __init__(self, avatar: Avatar, config: AnimateConfig | None = None, controls: Controls | None = None) -> None:
        """Args:
        avatar: the person.
        config: model, view, size, smoothness, which face; LIVE_SIZE pixels of the head if None.
        controls: at the beginning; regions and strength of the config if None.
        """
        self.config = config or AnimateConfig(size=LIVE_SIZE, frame="crop")
        if self.config.neutral is not None:
            raise InputError(
                f"--neutral {self.config.neutral:g}: a live call finds the neutral face while it runs; leave --neutral "
                "out, and use the calibration of the page."
            )
        self.avatar = avatar
        self.portrait = avatar.source_frame(self.config, limit_side=True)
        self._controls = controls or Controls(regions=self.config.regions, strength=self.config.strength)
        self._inbox: Newest[tuple[Image | Callable[[], Image], float]] = Newest()
        # As many frames at a time as there are cores to work on them: more would only wait, and be later for it.
        self._room = threading.Semaphore(max(2, os.cpu_count() or 1))
        self._marker = Marker(self._model)
        self._heard: list[Callable[[Shown], None]] = []
        self._limits = ExitStack()
        self._held: NDArray[Any] | None = None  # where the person's points are while it holds still
        self._number = 0
        self._times: deque[float] = deque(maxlen=60)
        self.clock = Clock()
        self.error: BaseException | None = None
        self.reset()

    def reset(self) -> None:
        """Somebody else may be in front of the camera: the neutral face is looked for again."""
        self._follower = Follower(
            self.portrait, self.avatar.landmarker, smooth=self.config.smooth, face=self.config.driver_face
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames that are shown."""
        return self.portrait.size

    @property
    def controls(self) -> Controls:
        return self._controls

    def set(self, **changes: Any) -> None:
        """Changes controls, from the next frame on.

        Raises:
            InputError: if there is no such control, or it cannot have that value.
        """
        if unknown := changes.keys() - asdict(self._controls).keys():
            raise InputError(f"{sorted(unknown)[0]}: there is no such control.")
        self._controls = replace(self._controls, **changes)

    def calibrate(self) -> None:
        """The face in front of the camera is neutral now."""
        self._follower.calibrate()

    @property
    def is_calibrating(self) -> bool:
        return self._follower.is_calibrating

    @property
    def frames_per_second(self) -> float:
        """Of what was shown in the last two seconds or so."""
        times = list(self._times)
        if len(times) < 2 or time.perf_counter() - times[-1] > 2:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], 1e-6)

    @property
    def num_dropped(self) -> int:
        """Camera frames that a newer one replaced before they were looked at."""
        return self._inbox.num_dropped

    def on_shown(self, hear: Callable[[Shown], None]) -> Callable[[], None]:
        """hear(shown) is called from a thread of the call, and must not take long; call what comes back to end it."""
        self._heard.append(hear)
        return lambda: self._heard.remove(hear) if hear in self._heard else None

    def _follow(self, image: Image, at_s: float) -> _Followed:
        controls = self._controls
        with self.clock("follow"):
            points, face = self._follower(image, at_s, controls)
        if not controls.freeze or self._held is None:
            self._held = points
        place = None if face is None else face.points[:, :2] / np.array(image.shape[1::-1], np.float32)
        return _Followed(self._held, place, at_s, controls)

    def _shown(self, followed: Generator[_Followed], ahead: int) -> Generator[Shown]:
        """What comes of followed frames; at most `ahead` of them in each stage."""
        moves = ((one, one.points) for one in followed)
        with closing(prefetch(self.portrait.images(moves, self.clock, ahead=ahead), ahead)) as images:
            for one, image in images:
                with self.clock("label"):
                    labelled = self._labelled(image, one.controls)
                self._number += 1
                self._times.append(time.perf_counter())
                yield Shown(labelled, self._marker, self._number, one.at_s, one.face)

    def _labelled(self, image: Image, controls: Controls) -> Image:
        return burn_label(image, _LABEL_SCALE[controls.label])

    # Every frame, as a file is read.

    def every(self, frames: Generator[tuple[Image, float]]) -> Generator[Shown]:
        """What comes of frames and their times, as offer takes them, one by one. Not while the call's threads run."""
        followed = (self._follow(image, at_s) for image, at_s in frames)
        with (
            pipeline_threads(),
            closing(prefetch(followed)) as ready,
            closing(self._shown(ready, QUEUE_FRAMES)) as shown,
        ):
            yield from shown

    # Newest frame only, as a camera films.

    def __enter__(self) -> Call:
        self._limits.enter_context(pipeline_threads())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._thread.join()
        self._limits.close()

    def _close(self) -> None:
        """Nothing more is taken."""
        self._inbox.close()
        self._room.release()

    def offer(self, image: Image | Callable[[], Image], at_s: float) -> None:
        """A camera frame taken at at_s; returns at once.

        Args: image: uint8 RGB [H, W, 3], or what makes it, which is called only for frames that are looked at.
        """
        self._inbox.put((image, at_s))

    @functools.cached_property
    def waiting_image(self) -> Image:
        """What is shown while nobody is in front of the camera yet, labelled and marked as everything is."""
        return self._marker.mark(self._labelled(self.portrait.picture, self._controls))

    def _newest(self) -> Generator[_Followed]:
        while self._room.acquire() and (item := self._inbox.take()) is not None:
            image, at_s = item
            yield self._follow(image() if callable(image) else image, at_s)

    def _run(self) -> None:
        try:
            with (
                closing(prefetch(self._newest(), 1)) as followed,
                closing(self._shown(followed, 1)) as every,
                ExitStack() as closed_first,  # before those who take from it are waited for
            ):
                closed_first.callback(self._close)
                for shown in every:
                    with self.clock("mark"):
                        shown.image  # noqa: B018  marked here, once, and not in the threads of those who hear of it
                    for hear in list(self._heard):
                        hear(shown)
                    self._room.release()
        except BaseException as error:  # told to whoever looks at the call
            self.error = error

    def claim(self, title: str, *ingredients: Ingredient) -> Claim:
        """What a recording says of itself."""
        controls = self._controls
        settings: dict[str, Any] = {"motion": self.config.motion, "regions": list(controls.regions)}
        settings |= {"strength": controls.strength, "live": "camera", "label": controls.label}
        about = (*self.avatar.ingredients(), *ingredients)
        return Claim(title, self._model, about, settings, consent=self.config.consent)

    @property
    def _model(self) -> str:
        return Path(self.config.model or self.avatar.model).name


# Recording.


class Recording:
    """What a call shows, as a sealed file, at a constant rate whatever the call's is."""

    def __init__(
        self,
        call: Call,
        out: Path,
        *,
        force: bool = False,
        credentials: Credentials | None = None,
        max_s: float = math.inf,
    ) -> None:
        """Starts at once.

        Args:
            call: that runs.
            out: .mp4, .m4v or .mov.
            force: replace what is there.
            credentials: who signs; this computer's own when None.
        max_s: what comes later is not recorded.

        Raises:
            InputError: if out cannot be written.
        """
        check_recording(out, force=force, inputs=[call.avatar.photo])
        self.path = out
        self._call, self._force, self._credentials = call, force, credentials
        self._waiting: queue.Queue[tuple[Image, float] | None] = queue.Queue(int(RECORDING_FPS))
        self._error: BaseException | None = None
        self._keep = True
        self._max_s = max_s
        self.num_frames = 0
        self.num_heard = 0
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()
        self._forget = call.on_shown(self._hear)

    def _hear(self, shown: Shown) -> None:
        try:
            self._waiting.put_nowait((shown.labelled, time.perf_counter()))
            self.num_heard += 1
        except queue.Full:  # an encoder that cannot keep up must not delay the call; the frame before is shown longer
            return

    def stop(self, *, keep: bool = True) -> Path:
        """Ends the recording and signs it.

        Args: keep: False throws it away.

        Raises:
            InputError: if it could not be written; nothing is left then.
        """
        self._forget()
        self._keep = keep
        while self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=0.1)
                break
            except queue.Full:
                continue
        self._thread.join()
        if self._error is not None and keep:
            raise self._error
        return self.path

    def _write(self) -> None:
        try:
            claim = self._call.claim(self.path.name)
            with (
                seal(self.path, claim, credentials=self._credentials, force=self._force) as draft,
                draft.open_writer(*self._call.size, RECORDING_FPS) as writer,
            ):
                start: float | None = None
                held: Image | None = None
                while (item := self._waiting.get()) is not None:
                    image, at = item
                    start = at if start is None else start
                    if at - start > self._max_s:
                        continue
                    due = int((at - start) * RECORDING_FPS)
                    while held is not None and self.num_frames < due:
                        writer.write(held)
                        self.num_frames += 1
                    held = image
                if not self._keep:
                    raise _UnwantedError
                if held is not None:
                    writer.write(held)
                    self.num_frames += 1
        except BaseException as error:  # raised again by stop
            self._error = error


class _UnwantedError(Exception):
    """The recording is thrown away."""


def check_recording(out: Path, *, force: bool, inputs: Sequence[Path]) -> None:
    """Refuses, before the call, what cannot be recorded to.

    Raises:
        InputError: if out is no video's name, or as provenance.check_output does.
    """
    if out.suffix.lower() not in video.CONTAINERS or "%" in out.name:
        raise InputError(f"--record {out}: give a file ending in {', '.join(video.CONTAINERS)}.")
    check_output(out, force=force, inputs=inputs)


# Other programs.


class VirtualCamera:
    """What a call shows, as a camera of this computer that other programs can choose."""

    def __init__(self, call: Call, fps: float = 30.0) -> None:
        """Starts at once.

        Raises:
            InputError: if the package is missing, or this computer has no such device.
        """
        try:
            import pyvirtualcam
        except ModuleNotFoundError:
            raise InputError("--virtual-camera needs pyvirtualcam: pip install 'mimik[camera]'.") from None
        width, height = call.size
        try:
            self._camera = pyvirtualcam.Camera(width=width, height=height, fps=fps)
        except RuntimeError as error:
            why = str(error).strip().split("\n")[0].rstrip(".")
            raise InputError(
                f"--virtual-camera: this computer has no device for it ({why}); install OBS (Windows, macOS) or the "
                "kernel module v4l2loopback (Linux), or let OBS capture the page that is printed."
            ) from None
        self.device: str = self._camera.device
        self._newest: Newest[Image] = Newest()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        self._forget = call.on_shown(lambda shown: self._newest.put(shown.image))

    def _send(self) -> None:
        while (image := self._newest.take()) is not None:
            self._camera.send(image)

    def close(self) -> None:
        self._forget()
        self._newest.close()
        self._thread.join()
        self._camera.close()


class Outlets:
    """Where a call goes besides its page, from its beginning to its end: a file, a camera of this computer."""

    def __init__(
        self,
        call: Call,
        record: Path | None = None,
        *,
        force: bool = False,
        credentials: Credentials | None = None,
        virtual_camera: bool = False,
    ) -> None:
        """Args: record: as Recording's out; force, credentials: as Recording takes them."""
        self._call, self._record, self._force, self._credentials = call, record, force, credentials
        self._wants_camera = virtual_camera
        self._recording: Recording | None = None
        self._camera: VirtualCamera | None = None
        self.num_recorded = 0

    def __enter__(self) -> Outlets:
        if self._wants_camera:
            self._camera = VirtualCamera(self._call)
        if self._record is not None:
            self._recording = Recording(self._call, self._record, force=self._force, credentials=self._credentials)
        return self

    def __exit__(self, *_: object) -> None:
        if self._camera is not None:
            self._camera.close()
        if self._recording is not None:
            self._recording.stop(keep=self._recording.num_heard > 0)
            self.num_recorded = self._recording.num_frames


@dataclass
class LiveReport:
    """What one run over a file did."""

    out: str
    model: str
    width: int
    height: int
    fps: float
    num_frames: int = 0
    num_lost: int = 0
    has_audio: bool = False
    seconds: float = 0.0
    ms_per_frame: dict[str, float] = field(default_factory=dict)


def film(
    avatar: Avatar,
    camera: Path,
    out: Path,
    *,
    config: AnimateConfig | None = None,
    controls: Controls | None = None,
    force: bool = False,
    credentials: Credentials | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> LiveReport:
    """A call whose camera is a video file, frame by frame, recorded: the live pipeline without camera and browser.

    Args:
        avatar: the person.
        camera: a video.
        out: .mp4, .m4v or .mov; the video's sound goes along.
        config, controls: as Call takes them.
        force: replace what is there.
        credentials: who signs; this computer's own when None.
        progress: called with a stage, frames done and of all frames, if that is known.

    Raises:
        InputError: if anything given cannot be used, or the video shows no face; nothing is written then.
    """
    check_recording(out, force=force, inputs=[avatar.photo, camera])
    if video.kind(camera) != "video":
        raise InputError(f"--camera {camera}: is a picture; give a video.")
    info = video.probe(camera)
    call = Call(avatar, config, controls)
    report = LiveReport(str(out), call.config.model or avatar.model, *call.size, info.fps)
    total = None if info.duration_s is None else round(info.duration_s * info.fps)
    start = time.perf_counter()
    claim = call.claim(out.name, Ingredient.from_file("driver", camera))

    def shown() -> Generator[Image]:
        read = ((frame, number / info.fps) for number, frame in enumerate(video.read_frames(camera, fps=info.fps)))
        with closing(prefetch(read)) as frames, closing(call.every(frames)) as every:
            for one in every:
                report.num_frames += 1
                report.num_lost += one.face is None
                if progress:
                    progress("animate", report.num_frames, total)
                yield one.labelled
        if report.num_lost == report.num_frames:
            raise NoFaceError(
                f"--camera {camera.name}: no face was found in any of its {report.num_frames} frames; give a video in "
                "which one face is seen from the front or half side most of the time."
            )

    sound = camera if info.has_audio else None
    with (
        seal(out, claim, credentials=credentials, force=force) as draft,
        draft.open_writer(*call.size, info.fps, audio_from=sound) as writer,
        closing(shown()) as images,
    ):
        for image in images:
            writer.write(image)
    report.has_audio = sound is not None
    report.seconds = round(time.perf_counter() - start, 3)
    report.ms_per_frame = call.clock.ms_per_frame(report.num_frames)
    return report
