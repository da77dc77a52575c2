"""Robustness of the watermark: detection after each attack, cost, and false positives on unmarked video.

    python benchmarks/watermark.py [--portraits FOLDER] [--corpus FOLDER] [--limit N] [-o RESULT.json]

Every file is an animated portrait or a real video, marked with a random payload and encoded like all outputs (H.264,
crf 18); then it is attacked, re-encoded, and read. A file counts as read only if every bit of the payload is correct.
Prints a table and writes it as JSON.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import multiprocessing
import os
import secrets
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from mimik import Avatar
from mimik.config import AnimateConfig
from mimik.media import video
from mimik.provenance.watermark import Payload, WatermarkDetector, WatermarkEmbedder
from reporting import PORTRAIT, ROOT, SHARED, machine, markdown, write_json

ASSETS = PORTRAIT.parents[1]
FIRST_FRAME = 10
# Shorter side in pixels: number of motions per portrait, and of frames.
PLAN = {256: (3, 40), 384: (1, 12), 512: (2, 12), 720: (1, 8), 1080: (1, 6)}
CORPUS_FRAMES = 32
FILMED, NUM_FILMED = "as filmed", 40  # real videos, marked at 256 pixels; no constant was tuned on them

Frames = list[np.ndarray]


# Attacks.


def code(frames: Frames, codec: str = "libx264", suffix: str = "mp4", **options: str) -> Frames:
    """Frames [H, W, 3] with even sides after encoding and decoding."""
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    memory = io.BytesIO()
    with av.open(memory, "w", format=suffix) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = options
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    memory.seek(0)
    with av.open(memory) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def x264(frames: Frames, crf: int = 23) -> Frames:
    return code(frames, crf=str(crf))


def scaled(frames: Frames, factor: float) -> Frames:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return [cv2.resize(frame, None, fx=factor, fy=factor, interpolation=method) for frame in frames]


def cropped(frames: Frames, left: float, top: float) -> Frames:
    """Crop to 70 % of each side; left and top are the offset as share of the rest, rounded to odd pixels."""
    height, width = frames[0].shape[:2]
    y, x = (int(side * 0.3 * part) | 1 for side, part in ((height, top), (width, left)))
    return [frame[y : y + int(height * 0.7), x : x + int(width * 0.7)] for frame in frames]


def toned(frames: Frames, gain: float, offset: float) -> Frames:
    return [np.clip((frame - 128.0) * gain + 128 + offset, 0, 255).round().astype(np.uint8) for frame in frames]


def jpeg(frame: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def screenshot(frames: Frames) -> Frames:
    """Screen recording: neighboring frames blended, at 125 %."""
    middle = len(frames) // 2
    return [jpeg(frame, 90) for frame in scaled(frames[middle : middle + 2], 1.25)]


def page(frames: Frames) -> Frames:
    """The same at 100 %, with a web page around the player."""
    middle = len(frames) // 2
    height, width = frames[0].shape[:2]
    shots = []
    for frame in frames[middle : middle + 2]:
        screen = np.full((height * 13 // 10, width * 13 // 10, 3), 245, np.uint8)
        screen[height // 10 : height // 10 + height, width // 7 : width // 7 + width] = frame
        shots.append(jpeg(screen, 90))
    return shots


def gif(frames: Frames) -> Frames:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gif"
        height, width = frames[0].shape[:2]
        with video.open_writer(path, width, height, 12.5) as writer:
            for frame in frames[::2]:
                writer.write(frame)
        return list(video.read_frames(path))


ATTACKS: dict[str, Callable[[Frames], Frames]] = {
    "none (crf 18)": lambda frames: frames,
    "crf 23": lambda frames: x264(frames, 23),
    "crf 28": lambda frames: x264(frames, 28),
    "scaled to 3/4, crf 23": lambda frames: x264(scaled(frames, 0.75)),
    "scaled to 1/2, crf 23": lambda frames: x264(scaled(frames, 0.5)),
    "cropped to 70 %, crf 23": lambda frames: x264(cropped(frames, 0.37, 0.61)),
    "screenshot of 2 frames at 125 %": screenshot,
    "screenshot of 2 frames in a page": page,
    "brighter by 25, crf 23": lambda frames: x264(toned(frames, 1.0, 25)),
    "contrast 0.75, darker by 20, crf 23": lambda frames: x264(toned(frames, 0.75, -20)),
    "contrast 1.25, crf 23": lambda frames: x264(toned(frames, 1.25, 0)),
    "GIF at half the rate": gif,
    "VP9 crf 33": lambda frames: code(frames, "libvpx-vp9", "webm", **{"crf": "33", "b": "0", "cpu-used": "5"}),
    "H.265 crf 28": lambda frames: code(
        frames, "libx265", **{"crf": "28", "preset": "fast", "x265-params": "log-level=none:pools=1"}
    ),
    "mirrored, crf 23": lambda frames: x264([frame[:, ::-1] for frame in frames]),
}


# One file.


def make(portrait: Path, motion: str, side: int) -> Frames:
    """Frames of an animation or a video, with the given shorter side."""
    num_frames = PLAN[side][1]
    if motion == FILMED:
        images = video.read_frames(portrait, fps=25)
    else:
        height, width = video.read_image(portrait).shape[:2]
        size = round(side * max(height, width) / min(height, width))
        images = Avatar.from_photos([portrait])._unmarked(motion, AnimateConfig(size=size))  # frames() marks them
    with closing(images):
        frames = list(itertools.islice(images, FIRST_FRAME, FIRST_FRAME + num_frames))
    if motion == FILMED:
        factor = side / min(frames[0].shape[:2])
        frames = [cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) for frame in frames]
    return [np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]) for frame in frames]


def measure(job: tuple[Path, str, int]) -> dict[str, Any]:
    """Results of one file for all attacks."""
    cv2.setNumThreads(1)
    portrait, motion, side = job
    frames = make(portrait, motion, side)
    payload = Payload(secrets.randbelow(256), secrets.randbits(32))
    height, width = frames[0].shape[:2]
    embedder = WatermarkEmbedder(height, width, payload)
    marked = [embedder.embed(frame) for frame in frames]
    errors = [np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(frames, marked, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        with video.open_writer(path, width, height, 25) as writer:
            for frame in marked:
                writer.write(frame)
        written = list(video.read_frames(path))
    row: dict[str, Any] = {"portrait": portrait.stem, "motion": motion, "side": side, "size": [width, height]}
    row["psnr_db"] = round(10 * float(np.log10(255**2 / max(errors))), 2)
    row["attacks"] = {}
    for name, attack in ATTACKS.items():
        reading = WatermarkDetector().read(attack(written))
        wrong = reading.payload is not None and reading.payload != payload
        row["attacks"][name] = {
            "read": reading.payload == payload,
            "wrong": wrong,
            "score": round(reading.score, 2),
        }
    return row


def measure_unmarked(path: Path) -> dict[str, Any]:
    """Best score in a video without a mark."""
    cv2.setNumThreads(1)
    info = video.probe(path)
    fps = min(info.fps, CORPUS_FRAMES / max(info.duration_s or 10.0, 1.0))
    with closing(video.read_frames(path, fps=max(fps, 1.0))) as frames:
        reading = WatermarkDetector().read(itertools.islice(frames, CORPUS_FRAMES))
    return {"file": f"{path.parent.name}/{path.name}", "read": reading.payload is not None, "score": reading.score}


def embedding_ms(side: int = 512, repeats: int = 300) -> dict[str, float]:
    """Processor time per frame on one core, because other programs may be running."""
    cv2.setNumThreads(1)
    frame = cv2.resize(video.read_image(next((ASSETS / "portraits").glob("*.png"))), (side, side))
    start = time.thread_time()
    embedder = WatermarkEmbedder(side, side, Payload(0, 0))
    first = time.thread_time() - start
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        embedder.embed(frame)
        times.append(1000 * (time.thread_time() - start))
    return {"side": side, "prepare_ms": round(1000 * first, 1), "median_ms": round(statistics.median(times), 3)}


# All of them.


def jobs(portraits: list[Path]) -> list[tuple[Path, str, int]]:
    motions = sorted(path.stem for path in (ASSETS / "motions").glob("*.motion"))
    turn = itertools.cycle(motions)
    return [
        (portrait, next(turn), side) for side, (num, _) in PLAN.items() for _ in range(num) for portrait in portraits
    ]


def table(rows: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Number of files read and tried, by attack and size."""
    cells: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, one in row["attacks"].items():
            column = FILMED if row["motion"] == FILMED else str(row["side"])
            cells[name][column].append(one["read"])
            cells[name]["all"].append(one["read"])
    return {
        name: {side: f"{sum(found)}/{len(found)}" for side, found in columns.items()} for name, columns in cells.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, default=SHARED / "portraits", help="pictures to animate too")
    parser.add_argument("--corpus", type=Path, default=SHARED / "corpus", help="videos without a mark")
    parser.add_argument("--limit", type=int, help="largest number of files and of videos")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "benchmarks/results/watermark.json")
    args = parser.parse_args()
    portraits = [path for path in sorted(args.portraits.glob("*")) if path.suffix in (".jpg", ".png")]
    todo = jobs([*portraits, *sorted((ASSETS / "portraits").glob("*.png"))])
    videos = sorted(args.corpus.glob("*/*.mp4"))
    train = sorted((args.corpus / "train").glob("*.mp4"))
    todo += [(path, FILMED, 256) for path in train[:: max(1, len(train) // NUM_FILMED)][:NUM_FILMED]]
    if args.limit:
        todo, videos = todo[:: max(1, len(todo) // args.limit)], videos[: args.limit]

    speed = embedding_ms()
    rows, unmarked = [], []
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for row in pool.imap_unordered(measure, todo):
            rows.append(row)
            lost = [name for name, one in row["attacks"].items() if not one["read"]]
            print(f"{len(rows)}/{len(todo)} {row['side']} {row['portrait']} {row['motion']}: lost {lost}", flush=True)
        for one in pool.imap_unordered(measure_unmarked, videos, chunksize=4):
            unmarked.append(one)
            print(f"unmarked {len(unmarked)}/{len(videos)}: {one['score']:.2f}", end="\r", flush=True)

    summary = table(rows)
    results = [one for row in rows for one in row["attacks"].values()]
    report = {
        "machine": machine(),
        "embedding": speed,
        "num_files": len(rows),
        "num_attacked": len(results),
        "read": sum(one["read"] for one in results),
        "read_wrong": sum(one["wrong"] for one in results),
        "min_psnr_db": min(row["psnr_db"] for row in rows),
        "table": summary,
        "unmarked": {
            "num_videos": len(unmarked),
            "num_read": sum(one["read"] for one in unmarked),
            "scores": sorted(round(one["score"], 2) for one in unmarked),
        },
        "files": sorted(rows, key=lambda row: (row["side"], row["portrait"], row["motion"])),
    }
    write_json(args.out, report)

    sides = [*map(str, PLAN), FILMED, "all"]
    rows_of = [[name, *(columns.get(side, "-") for side in sides)] for name, columns in summary.items()]
    print("\n" + markdown(["attack", *sides], rows_of))
    print(json.dumps({key: value for key, value in report.items() if key not in ("files", "table", "unmarked")}))
    scores = report["unmarked"]["scores"]
    print(f"unmarked: {len(scores)} videos, {report['unmarked']['num_read']} read, best score {max(scores, default=0)}")


if __name__ == "__main__":
    main()
