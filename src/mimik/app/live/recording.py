"""Outputs of a call besides the page: a sealed file, a virtual camera."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from mimik.app.live.call import Call, Shown
from mimik.app.live.controls import Newest
from mimik.config import InputError, install_command
from mimik.face.landmarks import Image
from mimik.media import video
from mimik.provenance.credentials import Credentials
from mimik.provenance.marking import Marker
from mimik.provenance.outputs import check_output
from mimik.provenance.sealing import seal

RECORDING_FPS = 25.0


class Recording:
    """Records the output of a call to a sealed file, at a constant frame rate independent of that of the call."""

    def __init__(
        self,
        call: Call,
        out: Path,
        *,
        force: bool = False,
        credentials: Credentials | None = None,
        max_s: float = math.inf,
    ) -> None:
        """Start recording. Raises InputError if out cannot be written.

        Args:
            call: the running call.
            out: .mp4, .m4v, .mov or .mkv.
            force: replace an existing file.
            credentials: signing key and certificate; None: this computer's own.
            max_s: largest duration; later frames are not recorded.
        """
        check_recording(out, force=force, inputs=[call.avatar.photo] if call.avatar.photo else [])
        self.path = out
        self._call, self._force, self._credentials = call, force, credentials
        self._waiting: queue.Queue[tuple[Image, float] | None] = queue.Queue(int(RECORDING_FPS))
        self.error: BaseException | None = None
        self._keep = True
        self._max_s = max_s
        self.num_frames = 0
        self.num_added = 0
        self._unsubscribe = call.on_shown(self._add)
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _add(self, shown: Shown) -> None:
        try:
            self._waiting.put_nowait((shown.labeled_in(self._call.size), time.perf_counter()))
            self.num_added += 1
        except queue.Full:  # a slow encoder must not delay the call; the previous frame is repeated
            return

    def stop(self, *, keep: bool = True) -> Path:
        """Stop and sign the recording, or discard it. Raises InputError if it could not be written."""
        self._unsubscribe()
        self._keep = keep
        while self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=0.1)
                break
            except queue.Full:
                continue
        self._thread.join()
        if self.error is not None and keep:
            raise self.error
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
                if held is None:
                    raise InputError("no new frame was shown during the recording; record for longer.")
                writer.write(held)
                self.num_frames += 1
        except BaseException as error:  # re-raised by stop
            self.error = error
            if self._keep:
                self._unsubscribe()
                self._call.report_problem(f"the recording failed and is lost: {error}")


class _UnwantedError(Exception):
    """The recording is discarded."""


def check_recording(out: Path, *, force: bool, inputs: Sequence[Path]) -> None:
    """Check the path of a recording before the call.

    Raises InputError if out has no video format, or as provenance.check_output does.
    """
    fast = [suffix for suffix in video.CONTAINERS if suffix != ".webm"]  # VP9 is too slow for a call
    if out.suffix.lower() not in fast or "%" in out.name:
        raise InputError(f"--record {out}: use a file ending in {', '.join(fast)}.")
    check_output(out, force=force, inputs=inputs, option="--record")


class VirtualCamera:
    """Output of a call as a camera of this computer for other programs."""

    def __init__(self, call: Call, fps: float = 30.0) -> None:
        """Start the camera. Raises InputError if the package is missing, or this computer has no such device."""
        try:
            import pyvirtualcam
        except ModuleNotFoundError:
            raise InputError(f"--virtual-camera needs pyvirtualcam: {install_command('camera')}.") from None
        width, height = call.size
        try:
            self._camera = pyvirtualcam.Camera(width=width, height=height, fps=fps)
        except RuntimeError as error:
            why = str(error).strip().split("\n")[0].rstrip(".")
            raise InputError(
                f"--virtual-camera: this computer has no virtual camera device ({why}); install OBS (Windows, macOS) "
                "or the kernel module v4l2loopback (Linux), or let OBS capture the page that is printed."
            ) from None
        self.device: str = self._camera.device
        self._call, self._size = call, (width, height)
        self._marker: Marker | None = None  # for frames that are enlarged
        self._newest: Newest[Image] = Newest()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        self._unsubscribe = call.on_shown(self._put)

    def _put(self, shown: Shown) -> None:
        labeled = shown.labeled_in(self._size)
        if labeled is shown.labeled:
            self._newest.put(shown.image)
            return
        self._marker = self._marker or copy(shown.marker)
        self._newest.put(self._marker.mark(labeled))

    def _send(self) -> None:
        try:
            while (image := self._newest.take()) is not None:
                self._camera.send(image)
        except Exception as error:  # any error of the device's driver
            self._call.report_problem(f"the virtual camera has ended ({error}); the call continues.")

    def close(self) -> None:
        self._unsubscribe()
        self._newest.close()
        self._thread.join()
        self._camera.close()


@dataclass(frozen=True)
class Outlets:
    """Outputs of a call besides its page, during the whole call."""

    record: Path | None = None  # see Recording's out
    virtual_camera: bool = False
    force: bool = False  # see Recording
    credentials: Credentials | None = None  # see Recording

    @contextmanager
    def of(self, call: Call) -> Iterator[Recording | None]:
        """Run the outputs while the block runs; yields the recording, if any."""
        with ExitStack() as stack:
            recording = None
            if self.virtual_camera:
                stack.callback(VirtualCamera(call).close)
            if self.record is not None:
                recording = Recording(call, self.record, force=self.force, credentials=self.credentials)
                stack.callback(lambda: recording.stop(keep=recording.num_added > 0))
            yield recording
