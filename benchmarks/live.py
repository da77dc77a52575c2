"""Frame rate and latency of a call: the pipeline of `mimik live` at the rate of a camera.

    python benchmarks/live.py [--camera VIDEO | --audio SPEECH] [--photo PHOTO] [--model NAME] [--size 512]
                              [--quality auto] [--seconds 20] [-o OUT.json]

The camera is simulated from memory at 640x480 and 30 frames per second; it shows the video, or the bundled portrait
animated by the bundled talk. Latency is the time from the arrival of a camera frame to the labeled and marked frame of
the person; camera and browser are not included. The first three seconds are excluded. With --audio, a sound file is
played in blocks of 20 ms as from a microphone; latency is then the time from a sound to the frame that shows it. Prints
a table; -o writes it as JSON.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mimik import Avatar
from mimik.app.live.call import Call, Shown
from mimik.app.live.controls import AUTO, QUALITIES, Controls
from mimik.app.live.sound import file_blocks
from mimik.app.live.talker import Talker
from mimik.config import AnimateConfig
from mimik.media import video
from reporting import PORTRAIT, machine, markdown, write_json

CAMERA_FPS = 30.0
WARM_UP_S = 3.0


def camera_frames(source: Path | None, count: int = 240) -> list[np.ndarray]:
    """Frames uint8 RGB [480, 640, 3] of a talking head."""
    if source is None:
        images = islice(Avatar.from_photos([PORTRAIT]).frames("talk", fps=CAMERA_FPS, model="geometry"), count)
    else:
        images = islice(video.read_frames(source, fps=CAMERA_FPS), count)
    frames = []
    for image in images:
        k = min(480 / image.shape[0], 640 / image.shape[1])
        small = cv2.resize(image, (round(image.shape[1] * k), round(image.shape[0] * k)))
        canvas = np.full((480, 640, 3), 96, np.uint8)
        top, left = (480 - small.shape[0]) // 2, (640 - small.shape[1]) // 2
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        frames.append(canvas)
    return frames


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, default=PORTRAIT)
    parser.add_argument("--camera", type=Path)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--quality", default=AUTO, choices=QUALITIES)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("-o", dest="out", type=Path)
    arguments = parser.parse_args()
    frames = [] if arguments.audio else camera_frames(arguments.camera)
    frames += frames[::-1]  # no jump when it repeats
    config = AnimateConfig(model=arguments.model, size=arguments.size, frame="crop")
    avatar = Avatar.from_photos([arguments.photo])
    controls = Controls(quality=arguments.quality)
    call = (
        Talker(avatar, file_blocks(arguments.audio), config, controls)
        if arguments.audio
        else Call(avatar, config, controls)
    )
    heard: list[tuple[float, float]] = []

    def hear(shown: Shown) -> None:
        now = time.perf_counter()
        if shown.is_spoken or not arguments.audio:
            heard.append((now, now - shown.at_s))

    with call:
        call.on_shown(hear)
        start = time.perf_counter()
        used_s = None
        for number in range(round((arguments.seconds + WARM_UP_S) * CAMERA_FPS)):
            due = start + number / CAMERA_FPS
            time.sleep(max(0.0, due - time.perf_counter()))
            if used_s is None and due - start >= WARM_UP_S:
                used_s = processor_s()
            if frames:
                call.offer(frames[number % len(frames)], time.perf_counter())
        used_s = processor_s() - (used_s or 0.0)
    if call.error:
        raise call.error
    counted = [one for one in heard if one[0] - start > WARM_UP_S]
    late_ms = 1000 * np.array([one[1] for one in counted])
    fps = (len(counted) - 1) / (counted[-1][0] - counted[0][0])
    stages = call.clock.ms_per_frame(len(heard))
    low, middle, high = np.percentile(late_ms, [25, 50, 75])
    result: dict[str, Any] = {
        "what": f"live, {call.size[0]}x{call.size[1]}, model {arguments.model or call.avatar.model}",
        "frames_per_second": round(fps, 2),
        "latency_ms": {"median": middle, "quartiles": [low, high], "p95": float(np.percentile(late_ms, 95))},
        "frames_by_quality": {one.value: num for one, num in call.num_frames.items()},
        "stage_ms_per_shown_frame": stages,
        "processor_ms_per_frame": round(1000 * used_s / len(counted), 2),
        "camera_frames_replaced": call.num_dropped,
        "machine": machine("numpy", "openvino"),
    }
    print(f"{result['what']}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    times = stages | {"processor time, all": result["processor_ms_per_frame"]}
    print(markdown(["stage", "ms per frame"], [[stage, f"{ms:.2f}"] for stage, ms in times.items()]))
    print(
        f"{fps:.1f} frames per second; {middle:.0f} ms late (quartiles {low:.0f} to "
        f"{high:.0f}, 95 % below {result['latency_ms']['p95']:.0f}); "
        f"frames by quality: {result['frames_by_quality']}"
    )
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
