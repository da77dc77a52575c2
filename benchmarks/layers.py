"""Mouth and eye layers: open mouths rendered from closed ones, and closed eyes from open ones, of the same clip.

    python benchmarks/layers.py [--models geometry,texture] [--only mouth,eyes] [--against BEFORE.json] [-o OUT.json]

In clips of the development set, (a) frames with an open mouth (gap of the inner lips more than 0.12 of the distance
between the eyes' centers) are rendered from a frame of the same clip with closed lips, and (b) frames with closed eyes
from one with open eyes. Rendering follows the real frame's landmarks at the clip's resolution, by the same SourceFrame
as all videos. Measured inside the real frame's inner lips: L1 (0..255) and edge energy (mean squared gradient of gray),
result over real; at the eyes: L1 in the hulls of the eyelids and a margin. Means over the frames of a clip, then over
clips. `copy` is the unchanged photo. The chosen frames and their landmarks are cached in --cache. Prints tables and
writes them as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.config import VERSION, InputError
from mimik.evaluation import metrics
from mimik.evaluation.motion_fidelity import rounded
from mimik.face import landmarks as faces
from mimik.face.landmarks import Image, head_pose
from mimik.face.tracker import Tracker
from mimik.media import video
from repainting import COPY, Arrays, clips_in, evenly, kept, landmarker, painted
from reporting import SHARED, commit, exit_code, markdown, write_json

FPS = 12.5
NUM_FRAMES = 4  # of a clip, evenly spaced among those that qualify
OPEN_LIPS, CLOSED_LIPS = 0.12, 0.035  # gap of the inner lips, in distances between the eyes' centers
SHUT_EYES, OPEN_EYES = 0.35, 0.8  # opening of the eyelids, relative to the clip's 90th percentile
PARTS = ("mouth", "eyes")
LIPS_INSIDE = faces.LIPS_INNER_UPPER + faces.LIPS_INNER_LOWER[-2:0:-1]
_MIN_PX = 16  # a smaller region is not measured

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A photo and the frames to render from it, uint8 RGB, with the frames' points [N, 478, 3]."""

    photo: Image
    frames: Image
    points: Array


def lips_gap(points: NDArray[Any]) -> NDArray[Any]:
    """[N] gap of the inner lips over the distance between the eyes' centers, of points [N, 478, 3]."""
    centers = [points[:, [a, b]].mean(1) for a, b in ((33, 133), (362, 263))]
    gap = np.linalg.norm((points[:, 13] - points[:, 14])[:, :2], axis=-1)
    return np.asarray(gap / np.linalg.norm(centers[1] - centers[0], axis=-1))


def lids_gap(points: NDArray[Any]) -> NDArray[Any]:
    """[N] opening of the eyelids of the wider open eye, relative to its usual opening."""
    gaps = metrics.gaze(points)[1]
    return np.asarray((gaps / np.percentile(gaps, 90, axis=0)).max(1))


def choose(points: NDArray[Any], part: str) -> tuple[int, list[int]] | None:
    """Numbers of the photo and of the frames to render; None if a clip has no suitable frames.

    The photo is the suitable frame whose pose is nearest to the median pose of the rendered frames.

    Args: points: [N, 478, 3] of consecutive frames; NaN without a face.
    """
    seen = np.flatnonzero(np.isfinite(points).all((1, 2)))
    if len(seen) < 3:
        return None
    opening = (lips_gap if part == "mouth" else lids_gap)(points[seen])
    if part == "mouth":
        sources, targets = seen[opening < CLOSED_LIPS], seen[opening > OPEN_LIPS]
    else:
        sources, targets = seen[opening > OPEN_EYES], seen[opening < SHUT_EYES]
    if not len(sources) or not len(targets):
        return None
    some = evenly(targets, NUM_FRAMES)
    pose = {i: np.array(head_pose(points[i]).degrees) for i in {*sources.tolist(), *some}}
    middle = np.median([pose[i] for i in some], axis=0)
    photo = min(sources.tolist(), key=lambda i: float(np.linalg.norm(pose[i] - middle)))
    return photo, some


def arrays_of(path: Path) -> Arrays:
    """The fields of a clip's Cases, by part."""
    tracker, images = Tracker(landmarker()), list(video.read_frames(path, fps=FPS))
    nothing = np.full((faces.NUM_POINTS, 3), np.nan, np.float32)
    points = np.stack([nothing if (face := tracker.track(image)) is None else face.points for image in images])
    arrays: dict[str, Any] = {}
    for part in PARTS:
        if (chosen := choose(points, part)) is not None:
            photo, some = chosen
            arrays[f"{part}.photo"] = images[photo]
            arrays[f"{part}.frames"], arrays[f"{part}.points"] = np.stack([images[i] for i in some]), points[some]
    return arrays


def cases(path: Path, cache: Path) -> dict[str, Case]:
    """The Cases of a clip, by part."""
    found = kept(path, cache, [FPS, NUM_FRAMES, OPEN_LIPS, CLOSED_LIPS, SHUT_EYES, OPEN_EYES], arrays_of)
    shown = [part for part in PARTS if f"{part}.photo" in found]
    return {part: Case(*(found[f"{part}.{name}"] for name in ("photo", "frames", "points"))) for part in shown}


def by_model(case: Case, model: str, folder: Path) -> list[Image]:
    """The frames of a case, rendered by a model."""
    if model == COPY:
        return [case.photo] * len(case.frames)
    path = folder / "photo.png"
    video.write_image(path, case.photo)
    return list(painted(path, case.points, model))


def lips_mask(points: NDArray[Any], side: tuple[int, int]) -> Any:
    """bool [H, W]: inside of the inner lips, eroded by one pixel."""
    mask = np.zeros(side, np.uint8)
    cv2.fillPoly(mask, [np.round(points[LIPS_INSIDE, :2] - 0.5).astype(np.int32)], 1)
    return cv2.erode(mask, np.ones((3, 3), np.uint8)).astype(bool)


def edge_energy(image: Image, mask: Any) -> float:
    """Mean squared gradient of gray inside a mask (Sobel over 8, gray levels per pixel)."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    across, down = (cv2.Sobel(gray, cv2.CV_64F, x, 1 - x) / 8 for x in (1, 0))
    return float((across**2 + down**2)[mask].mean())


def measured(case: Case, images: Sequence[Image], part: str) -> dict[str, float]:
    """Means over the frames of a case: l1, edges (ratio of sums, result over real), and the number of frames."""
    side = case.frames.shape[1:3]
    rows = []
    for real, image, points in zip(case.frames, images, case.points, strict=True):
        mask = (
            lips_mask(points, side)
            if part == "mouth"
            else metrics.region_mask(points, *metrics.MEASURED_REGIONS["eyes"], side)
        )
        if mask.sum() >= _MIN_PX:
            l1 = float(np.abs(real[mask].astype(int) - image[mask]).mean())
            rows.append((l1, edge_energy(image, mask), edge_energy(real, mask)))
    if not rows:
        return {"frames": 0, "l1": math.nan, "edges": math.nan}
    l1, made, real_edges = np.mean(rows, 0).tolist()
    return {"frames": len(rows), "l1": l1, "edges": made / max(real_edges, 1e-9)}


def summary(clips: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """{part: {model: ..}}: mean L1 over clips, median ratio of edge energy, number of clips."""
    out: dict[str, Any] = {}
    for part in PARTS:
        of_part = [clip[part] for clip in clips.values() if part in clip]
        for model in dict.fromkeys(model for clip in of_part for model in clip):
            rows = [clip[model] for clip in of_part if model in clip and clip[model]["frames"]]
            out.setdefault(part, {})[model] = {
                "clips": len(rows),
                "frames": sum(row["frames"] for row in rows),
                "l1": float(np.mean([row["l1"] for row in rows])),
                "edges": float(np.median([row["edges"] for row in rows])),
            }
    return out


def table(found: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """A Markdown table; with earlier results, also the ratio of L1."""
    rows = []
    for part, models in found.items():
        for model, row in models.items():
            old = (before or {}).get(part, {}).get(model)
            then = [f"{row['l1'] / old['l1']:.3f}", f"{old['edges']:.2f}"] if old else ["", ""]
            rows.append([part, model, f"{row['l1']:.2f}", f"{row['edges']:.2f}", str(row["clips"]), *then])
    heads = ["part", "model", "L1", "edges, result over real", "clips", "L1 over before", "edges before"]
    return markdown(heads, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "corpus/dev", help="a folder of clips, one face each")
    parser.add_argument("--models", default="geometry,texture", help="as in mimik animate, and copy")
    parser.add_argument("--only", default=",".join(PARTS), help="mouth, eyes or both")
    parser.add_argument("--against", type=Path, help="a JSON of this benchmark to compare with")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "mimik-layers")
    parser.add_argument("--pictures", type=Path, help="a folder for contact sheets: photo, real frame, each model")
    parser.add_argument("-o", "--out", type=Path, default=Path("layers.json"))
    args = parser.parse_args()
    return exit_code(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    start, version = time.process_time(), commit()
    parts = args.only.split(",")
    if not set(parts) <= set(PARTS):
        raise InputError(f"--only {args.only}: use {' or '.join(PARTS)}, or both with a comma between.")
    before = json.loads(args.against.read_text(encoding="utf-8")) if args.against else None
    clips: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in clips_in(args.data):
            clips[path.stem] = {}
            for part, case in cases(path, args.cache).items():
                if part in parts:
                    made = {model: by_model(case, model, Path(folder)) for model in args.models.split(",")}
                    clips[path.stem][part] = {name: measured(case, ims, part) for name, ims in made.items()}
                    if args.pictures:
                        _draw(args.pictures, f"{path.stem}-{part}", case, made)
            print(f"{path.stem}: {', '.join(clips[path.stem]) or 'no such frames'}", file=sys.stderr, flush=True)
    found = summary(clips)
    report = {
        "mimik": VERSION,
        "commit": version,
        "processor_seconds": round(time.process_time() - start, 1),
        "summary": found,
        "clips": clips,
    }
    write_json(args.out, rounded(report))
    print(f"commit {report['commit']}, {report['processor_seconds']} s of processor time")
    print(table(found, before and before["summary"]))


def _draw(folder: Path, name: str, case: Case, made: Mapping[str, Sequence[Image]]) -> None:
    """Contact sheet of the face at 256 px, one row per frame: photo, real frame, each model."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, real in enumerate(case.frames):
        low, high = case.points[number, :, :2].min(0), case.points[number, :, :2].max(0)
        left, top = np.maximum(low, 0).astype(int)
        right, bottom = high.astype(int)
        cells = [case.photo, real, *(images[number] for images in made.values())]
        rows.append(np.hstack([cv2.resize(one[top:bottom, left:right], (256, 320)) for one in cells]))
    cv2.imwrite(str(folder / f"{name}.png"), np.vstack(rows)[..., ::-1])


if __name__ == "__main__":
    sys.exit(main())
