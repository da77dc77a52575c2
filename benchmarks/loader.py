"""Throughput of the data loader in episodes per second, time per stage, and the demand of an H200.

    python benchmarks/loader.py [--data SHARDS] [--workers 0 1 2] [--k 1 8] [--size 128 256] [--seconds 3]
        [--device cpu] [--episodes 48] [-o OUT.json]

Without --data it first writes shards: the bundled portrait with synthetic motion and noise, 200 frames per clip. Prints
tables; -o writes them as JSON. "cached": every clip is already decoded; "uncached": every episode decodes.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate

from mimik.data.augmentation import NUM_DRAWN, Augmentation
from mimik.data.episodes import Episodes
from mimik.data.index import ClipInfo, read_index
from mimik.data.loading import loader
from mimik.data.on_device import batches
from mimik.data.on_device.batches import REUSE, DeviceLoader
from mimik.data.preparation.settings import Clip
from mimik.data.preparation.shard_folder import ShardFolder
from mimik.data.store import ClipStore
from mimik.data.tracks import pack_tracks, unpack_tracks
from mimik.face import landmarks as faces
from mimik.face.landmark_images import landmark_image
from mimik.media import video
from reporting import PORTRAIT, machine, markdown, write_json

BATCH = 8

# Cost of a training step, estimated from the layers in docs/paper.md, section 3, at 256 px, in GMAC of a forward pass:
# E 15 per frame, G 35, D 15, VGG19 and VGGFace 45. Forward and backward cost three forward passes; D takes two pictures
# for its own loss and one for G's; the frozen networks take two pictures, one of them with a backward pass.
GMAC_PER_SOURCE = 3 * 15
GMAC_PER_TARGET = 3 * 35 + 3 * 3 * 15 + (2 * 45 + 45)
H200_TFLOPS = 300.0  # assumed: 30 % of the 990 dense bf16 TFLOPS of the data sheet


def write_shards(folder: Path, num_clips: int, num_frames: int, side: int = 256) -> None:
    """Write clips of the portrait with rotation, translation and scaling; four clips, repeated."""
    picture = cv2.resize(video.read_image(PORTRAIT), (side, side), interpolation=cv2.INTER_AREA)
    vertices = faces.canonical_mesh().vertices
    face = np.concatenate([vertices, vertices[[159] * 5 + [386] * 5]]) * (0.4 * side / 15) + [side / 2, side / 2, 0]
    made = []
    for seed in range(min(4, num_clips)):
        rng = np.random.default_rng(seed)
        noise = rng.integers(0, 6, (8, side, side, 3), np.uint8)
        frames, points = [], []
        for t in range(num_frames):
            swing = np.sin(t / 9 + seed)
            matrix = cv2.getRotationMatrix2D((side / 2, side / 2), 10 * swing, 1 + 0.1 * np.sin(t / 23))
            matrix[:, 2] += 8 * np.sin([t / 13, t / 17])
            frame = cv2.warpAffine(picture, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101)
            frames.append(cv2.add(frame, noise[t % len(noise)]))
            points.append(np.column_stack([face[:, :2] @ matrix[:, :2].T + matrix[:, 2], face[:, 2]]))
        jitter = rng.normal(0, 0.15, (num_frames, faces.NUM_POINTS, 3))
        pose = rng.normal(0, 10, (num_frames, 3))
        npz = pack_tracks(np.array(points) + jitter, rng.random((num_frames, 52)), pose)
        made.append(Clip({}, video.encode_clip(frames, 25, quality=20, gop=12), npz))
    common = {"num_frames": num_frames, "fps": 25.0, "size": side, "licence": "made here"}
    common |= {"start_s": 0.0, "end_s": num_frames / 25, "box": (0, 0, side), "face_px": 0.4 * side}
    common |= {"sharpness": 1.0, "yaw_range": (0, 0), "fingerprint": ""}
    with closing(ShardFolder(folder, {}, 1 << 40)) as shards:
        for number in range(num_clips):
            origin = {"source": f"{number}.mp4", "source_sha256": f"{number:064x}"}
            entry = {"key": f"{number:010x}_00", "person": str(number), **origin, **common}
            shards.add_clip(entry, made[number % len(made)])
            shards.finish_video(origin)
        shards.finish()


def rate(episodes: Episodes, num_workers: int, seconds: float, warm_up: int) -> float:
    """Episodes per second of the loader in steady state."""
    torch.set_num_threads(1)
    batches = iter(loader(episodes, batch_size=BATCH, num_workers=num_workers))
    for _ in range(warm_up):
        next(batches)
    if num_workers:  # discard what the workers prefetched during the warm-up
        for _ in range(4 * num_workers):
            next(batches)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(batches)
        done += BATCH
    return done / (time.perf_counter() - start)


def milliseconds(function: Callable[[], Any], repeats: int = 15) -> float:
    """Median time over repeats after one warm-up call."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])


def stages(root: Path, index: list[ClipInfo], num_sources: int, size: int) -> dict[str, float]:
    """Milliseconds per episode of each stage, on one thread; an episode is num_sources + 1 frames."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    plain = ClipStore(root, size=size)
    cached = ClipStore(root, size=size, cache_mb=1000)
    clip = max(index, key=lambda clip: clip.num_frames)
    rng = np.random.default_rng(0)
    numbers = rng.choice(clip.num_frames, num_sources + 1, replace=False)
    mp4, npz = plain.read_members(clip)
    frames = cached.read(clip, numbers)
    change = Augmentation(flip=1).draw(rng.random(NUM_DRAWN), size)
    drawn = [landmark_image(points, size, size) for points in frames.points]
    whole = Episodes(cached, [clip], num_sources=num_sources, augment=Augmentation())
    item = whole[0]
    choices = itertools.count()
    return {
        "read from disk (uncached)": milliseconds(lambda: plain.read_members(clip)),
        "unpack landmarks (uncached)": milliseconds(lambda: unpack_tracks(npz)),
        "decode the frames (uncached)": milliseconds(lambda: plain._decode(clip, mp4, numbers)),
        "decode the whole clip (once, cached)": milliseconds(lambda: plain._decode(clip, mp4, None), 5),
        "read frames (cached)": milliseconds(lambda: cached.read(clip, numbers)),
        "choose frames": milliseconds(lambda: whole.choose(next(choices))),
        "augment pictures": milliseconds(lambda: change.images(frames.images)),
        "augment points": milliseconds(lambda: change.points(frames.points, size)),
        "draw landmarks": milliseconds(lambda: [landmark_image(p, size, size) for p in frames.points]),
        "to planes": milliseconds(lambda: [[cv2.split(i) for i in part] for part in (frames.images, drawn)]),
        "collate": milliseconds(lambda: default_collate([item] * BATCH)) / BATCH,
        "whole episode (cached)": milliseconds(lambda: whole[0]),
    }


def both_loaders(root: str | Path, index: list[ClipInfo], device: torch.device, count: int) -> dict[str, float]:
    """Processor time of both loaders in one process, ms per episode of the texture form, over `count` episodes.

    On a GPU, the time of the pixels is wall time of GPU and processor.
    """
    store = ClipStore(root, cache_mb=2000)
    episodes = Episodes(
        store,
        index,
        num_sources=2,
        style="smooth",
        target="far",
        augment=Augmentation(),
        window_px=128,
        scene="auto",
    )
    now = time.perf_counter if device.type == "cuda" else time.process_time
    spent: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            start = now()
            made = function(*given, **named)
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent[name] = spent.get(name, 0.0) + 1000 * (now() - start)
            return made

        return run

    for clip in index:
        store.read(clip, [0])
    timed("workers: whole episode", lambda: [episodes[number] for number in range(count)])()
    loader = DeviceLoader(episodes, device, batch_size=BATCH, num_workers=0, reuse=1)
    loader._slots_of = timed("device: warped frame, once for --reuse episodes", loader._slots_of)  # type: ignore[method-assign]
    loader._pictures = timed("device: all pixels", loader._pictures)  # type: ignore[method-assign]
    draw = timed("device: of which landmark images", batches.pixels.landmark_images)
    saved, batches.pixels.landmark_images = batches.pixels.landmark_images, draw
    steps = count // BATCH
    timed("device: all", lambda: [made for _, made in zip(range(steps), loader, strict=False)])()
    batches.pixels.landmark_images = saved
    out = {name: value / (count if name.startswith("workers") else steps * BATCH) for name, value in spent.items()}
    warped = out["device: warped frame, once for --reuse episodes"]
    out["device: choices and points"] = out.pop("device: all") - warped - out["device: all pixels"]
    out[f"device: the processor, --reuse {REUSE}"] = out["device: choices and points"] + warped / REUSE
    return out


def demand(num_sources: int, size: int) -> float:
    """Episodes per second that one H200 could train on, by the estimate above."""
    gmac = (GMAC_PER_SOURCE * num_sources + GMAC_PER_TARGET) * (size / 256) ** 2
    return H200_TFLOPS * 1000 / (2 * gmac)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder or URL of shards")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--k", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--size", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--clips", type=int, default=16, help="number of clips to write, or to use of --data")
    parser.add_argument("--frames", type=int, default=200, help="length of a written clip")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of each measurement")
    parser.add_argument("--cache-mb", type=float, default=4000)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of the device loader")
    parser.add_argument("--episodes", type=int, default=48, help="number of episodes for both loaders")
    parser.add_argument("-o", dest="out", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    costs: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data is None:
            write_shards(Path(folder), arguments.clips, arguments.frames)
        root = arguments.data or folder
        index = read_index(root)[: arguments.clips]
        print(markdown(["px", "K", "workers", "cache", "episodes/s", "frames/s"], []))
        for size, k, cache in itertools.product(arguments.size, arguments.k, (False, True)):
            store = ClipStore(root, size=size, cache_mb=arguments.cache_mb if cache else 0)
            if cache:
                for clip in index:
                    store.read(clip, [0])
            episodes = Episodes(store, index, num_sources=k, augment=Augmentation())
            for num_workers in arguments.workers:
                speed = rate(episodes, num_workers, arguments.seconds, warm_up=2)
                row = {"size": size, "k": k, "workers": num_workers, "cached": cache, "episodes_per_second": speed}
                rows.append(row)
                name = "cached" if cache else "uncached"
                print(f"| {size} | {k} | {num_workers} | {name} | {speed:.1f} | {speed * (k + 1):.1f} |", flush=True)
        loaders = both_loaders(root, index, torch.device(arguments.device), arguments.episodes)
        heads = ["texture, K = 2, 256 px, one thread", "ms per episode"]
        print("\n" + markdown(heads, [[name, f"{value:.1f}"] for name, value in loaders.items()]))
        for size, k in itertools.product(arguments.size, arguments.k):
            costs[f"{size} px, K = {k}"] = stages(root, index, k, size)
    rows_of = {stage: [f"{of[stage]:.2f}" for of in costs.values()] for stage in next(iter(costs.values()))}
    heads = ["ms per episode, one thread", *costs]
    print("\n" + markdown(heads, [[stage, *cells] for stage, cells in rows_of.items()]))
    needs = []
    print(f"\nAn H200, assumed to reach {H200_TFLOPS:g} TFLOPS, and an episode of 2 x ({GMAC_PER_SOURCE} K + ", end="")
    print(f"{GMAC_PER_TARGET}) GFLOP at 256 px (constants of this file), could train on, and needs:")
    for size, k in itertools.product(arguments.size, arguments.k):
        for cache in (False, True):
            alike = [row for row in rows if (row["size"], row["k"], row["cached"]) == (size, k, cache)]
            alone = max(row["episodes_per_second"] / max(row["workers"], 1) for row in alike)
            need = demand(k, size)
            needs.append({"size": size, "k": k, "cached": cache, "demand": need, "cores": need / alone})
            name = "cached" if cache else "uncached"
            print(f"  {size} px, K = {k}: {need:6.0f} episodes/s = {need / alone:6.1f} cores {name}")
    result = {
        "rows": rows,
        "stage_ms": costs,
        "loaders_ms": loaders,
        "device": arguments.device,
        "h200": needs,
        "h200_tflops_assumed": H200_TFLOPS,
        "machine": machine("numpy", "torch"),
        "opencv": cv2.__version__,
    }
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
