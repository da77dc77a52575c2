"""Glass-to-glass latency of a call in a real browser: numbered camera frames are read back from the portrait.

    python benchmarks/latency.py [--model NAME] [--size 512] [--quality auto] [--seconds 20]
                                 [--browser CHROMIUM] [-o OUT.json]

Chromium's camera is a video of 640x480 at 30 frames per second: a talking head with a number in its corner, coded as
black and white squares. The program reads the number from the received frame and draws it into the corresponding frame
of the portrait. The page reads the number from each camera frame on arrival, and, about ten times per second, from a
frame of the portrait when it is shown; the difference is the latency. The frame rate is that of the frames that
Chromium shows. Exposure of the camera and refresh of the screen are not included. Needs the extras live and browser,
and a Chromium. Browser and program share the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import sync_playwright

from live import CAMERA_FPS, camera_frames
from mimik import Avatar
from mimik.app import page
from mimik.app.live.call import Call, Shown, _TrackedFrame
from mimik.app.live.controls import AUTO, QUALITIES, Controls
from mimik.app.serving import Serving
from mimik.config import AnimateConfig
from mimik.face.landmarks import Image
from mimik.media.reading import VideoFrame
from mimik.motion.frames import MotionFrame
from reporting import PORTRAIT, machine, write_json

NUM_BITS = 7
NUM_FRAMES = 1 << NUM_BITS  # four seconds: longer than any answer takes
SQUARE_PX = 24
WARM_UP_MS = 4000
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]

# Numbers of the camera's frames as the page gets them, and of some of the portrait's as they are shown, with the count
# of frames shown. A callback for every frame would let the page lay out and paint as often.
READ = """
window.numbers = { camera: [], portrait: [] };
const SQUARE = 24, BITS = 7, PAUSE_MS = 80;
const decode = (light) => light.reduce((number, level, bit) => number | (level > 128 ? 1 << bit : 0), 0);
async function fromCamera(track) {
  const reader = new MediaStreamTrackProcessor({ track: track.clone() }).readable.getReader();
  const bytes = new Uint8Array(4 * SQUARE * BITS * SQUARE);
  for (;;) {
    const { value: frame, done } = await reader.read();
    if (done) return;
    const now = performance.now();
    const rect = { x: 0, y: 0, width: SQUARE * BITS, height: SQUARE };
    const [{ offset, stride }] = await frame.copyTo(bytes, { rect });
    frame.close();
    const middle = offset + (stride + 1) * (SQUARE >> 1);
    const light = [...Array(BITS).keys()].map((bit) => bytes[middle + SQUARE * bit]);
    window.numbers.camera.push([now, decode(light)]);
  }
}
function fromPortrait(video) {
  const canvas = document.createElement("canvas");
  canvas.width = BITS;
  canvas.height = 1;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const seen = (now, about) => {
    pen.drawImage(video, 0, SQUARE >> 2, SQUARE * BITS, SQUARE >> 1, 0, 0, BITS, 1);
    const data = pen.getImageData(0, 0, BITS, 1).data;
    const light = [...Array(BITS).keys()].map((bit) => data[4 * bit]);
    window.numbers.portrait.push([about.expectedDisplayTime, decode(light), about.presentedFrames]);
    setTimeout(() => video.requestVideoFrameCallback(seen), PAUSE_MS);
  };
  video.requestVideoFrameCallback(seen);
}
() => {
  fromCamera(document.getElementById("own").srcObject.getVideoTracks()[0]);
  fromPortrait(document.getElementById("person"));
}
"""


def stamped(image: Image, number: int) -> Image:
    """A copy of the frame with the number in its upper left corner."""
    out = image.copy()
    for bit in range(NUM_BITS):
        out[:SQUARE_PX, SQUARE_PX * bit : SQUARE_PX * (bit + 1)] = 255 * (number >> bit & 1)
    return out


def number_of(frame: VideoFrame) -> int:
    planes = frame.planes()
    assert planes is not None, "4:2:0"
    middles = SQUARE_PX // 2 + SQUARE_PX * np.arange(NUM_BITS)
    return int(((planes[0][0].pixels[SQUARE_PX // 2, middles] > 128) << np.arange(NUM_BITS)).sum())


class NumberedCall(Call):
    """Draws the number of each camera frame into the resulting frame; idle frames have none."""

    numbers: dict[float, int] = {}  # noqa: RUF012  one call is made

    def _track(self, what: Image | VideoFrame | MotionFrame | None, at_s: float) -> _TrackedFrame:
        if isinstance(what, VideoFrame):
            self.numbers[at_s] = number_of(what)
        return super()._track(what, at_s)

    def _rendered(self, tracked: Generator[_TrackedFrame], ahead: int) -> Generator[Shown]:
        for shown in super()._rendered(tracked, ahead):
            number = self.numbers.pop(shown.at_s, None)
            shown.labeled = shown.labeled if number is None else stamped(shown.labeled, number)
            yield shown


def latencies_ms(numbers: dict[str, list[list[float]]]) -> np.ndarray:
    """[N] latency at the display of each number that was read."""
    late: list[float] = []
    before = None
    for at, number, _ in numbers["portrait"]:
        filmed = [then for then, code in numbers["camera"] if code == number and at - 3000 < then <= at]
        if filmed and number != before:
            late.append(at - filmed[-1])
        before = number
    return np.array(late)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, default=PORTRAIT)
    parser.add_argument("--model")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--quality", default=AUTO, choices=QUALITIES)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--browser", default=shutil.which("chromium"))
    parser.add_argument("-o", dest="out", type=Path)
    arguments = parser.parse_args()
    half = camera_frames(None, NUM_FRAMES // 2)
    call = NumberedCall(
        Avatar.from_photos([arguments.photo]),
        AnimateConfig(model=arguments.model, size=arguments.size, frame="crop"),
        Controls(quality=arguments.quality),
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        call,
        page.served_page(call, Serving(port=0)) as served,
        sync_playwright() as browsers,
    ):
        film = Path(folder, "camera.y4m")
        with film.open("wb") as file:
            file.write(b"YUV4MPEG2 W640 H480 F30:1 Ip A1:1 C420jpeg\n")
            for number, frame in enumerate([*half, *half[::-1]]):
                file.write(b"FRAME\n" + cv2.cvtColor(stamped(frame, number), cv2.COLOR_RGB2YUV_I420).tobytes())
        browser = browsers.chromium.launch(
            executable_path=arguments.browser,
            args=[
                *QUIET,
                "--use-fake-ui-for-media-stream",
                f"--use-fake-device-for-media-stream=fps={CAMERA_FPS:.0f}",
                f"--use-file-for-fake-video-capture={film}",
            ],
        )
        tab = browser.new_context(permissions=["camera"], bypass_csp=True).new_page()
        tab.set_default_timeout(90_000)
        tab.goto(served.address)
        tab.wait_for_function("Number(document.getElementById('latency').textContent) > 0")
        tab.wait_for_timeout(WARM_UP_MS)
        script, _, begin = READ.rpartition("() =>")
        tab.add_script_tag(content=script)
        tab.evaluate("() =>" + begin)
        said = []
        for _ in range(round(arguments.seconds)):
            tab.wait_for_timeout(1000)
            said.append(tab.evaluate("window.mimikLatency"))
        numbers: dict[str, Any] = tab.evaluate("window.numbers")
        browser.close()
    late = latencies_ms(numbers)
    first, last = numbers["portrait"][0], numbers["portrait"][-1]
    fps = 1000 * (last[2] - first[2]) / (last[0] - first[0])
    camera_fps = 1000 * (len(numbers["camera"]) - 1) / (numbers["camera"][-1][0] - numbers["camera"][0][0])
    low, middle, high, p95 = np.percentile(late, [25, 50, 75, 95])
    parts = {name: round(float(np.median([one[name] for one in said if one])), 1) for name in ("up", "server", "down")}
    result = {
        "what": f"live in Chromium, {call.size[0]}x{call.size[1]}, model {arguments.model or call.avatar.model}",
        "frames_per_second": round(fps, 2),
        "camera_frames_per_second": round(camera_fps, 2),
        "latency_ms": {"median": middle, "quartiles": [low, high], "p95": p95},
        "said_by_the_page_ms": parts,
        "frames_by_quality": {one.value: num for one, num in call.num_frames.items()},
        "stage_ms_per_shown_frame": call.clock.ms_per_frame(call._number),
        "machine": machine("aiortc", "openvino"),
    }
    print(f"{result['what']}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    print(f"stages, ms a shown frame: {result['stage_ms_per_shown_frame']}")
    print(f"frames by quality: {result['frames_by_quality']}")
    print(
        f"{fps:.1f} frames per second of a camera's {camera_fps:.1f}; {middle:.0f} ms late (quartiles {low:.0f} to "
        f"{high:.0f}, 95 % below {p95:.0f}); the page says {sum(parts.values()):.0f}: {parts}"
    )
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
