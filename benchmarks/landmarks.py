"""AKD by an independent landmark detector: dlib's 68 points on the output of models, compared with MediaPipe's.

    python benchmarks/landmarks.py --data SHARDS [--models geometry,texture,FILE.safetensors] [--step 2] [-o OUT.json]

`mimik evaluate` measures AKD with the landmarker that also produces the models' inputs, at run time and in training.
dlib's predictor (a cascade of regression trees) is independent of both. Frames are rendered as by `mimik evaluate`: the
first frame of a clip is the photo, and every --step-th other frame is synthesized. dlib's own face detector is not
used: the box comes from the real frame's landmarks, for the real frame and the results alike. It is therefore well
initialized, and its distances are smaller than in a video without a real frame. Distances are in percent of the
distance between the outer corners of the real face's eyes. The first model is the baseline. Fidelity of lips and
eyelids is the slope of the result's opening over the real one's in a clip, median over the clips in which it moves: 1
is complete; jitter of the real points lowers it.

"real, box moved" is dlib on the real frames with the box moved by as much as dlib's own detector moves it: the part of
the distances that is dlib's own jitter. Prints tables and writes them as JSON, with every clip; results of a clip and
model are cached beside it, in OUT.clips.

dlib and its predictor are not part of the program: the predictor was trained on iBUG 300-W, for research only.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mimik.config import VERSION, InputError
from mimik.data.index import ClipInfo, read_index
from mimik.data.store import ClipStore
from mimik.evaluation import metrics
from mimik.evaluation.detectors import BOX_MOVED, Finder, dlib_finder, face_boxes, predictor_file
from mimik.evaluation.instruments import Instruments
from mimik.evaluation.models import Model, load_model
from mimik.evaluation.records import MEASURED_BY, Records, code_digest, digest_of
from mimik.evaluation.settings import label_of
from mimik.face.landmarks import POINTS_68, Array, Image
from reporting import exit_code, machine, markdown, write_json

REGIONS = {
    "jaw": slice(0, 17),
    "brows": slice(17, 27),
    "nose": slice(27, 36),
    "eyes": slice(36, 48),
    "mouth": slice(48, 68),
}
OPENINGS = {"lips": ([61, 62, 63], [67, 66, 65]), "lids": ([37, 38, 43, 44], [41, 40, 47, 46])}  # upper, lower
MIN_STD = 0.01  # of the eyes' distance: an opening that moves less says nothing about following it
FLOOR = "real, box moved"


def distances(real: Array, result: Array, eyes: NDArray[Any]) -> NDArray[np.float64]:
    """[68] distance of each point in percent, mean over frames; NaN if no frame has both.

    Args:
        real, result: [N, 68, 2]; NaN where no face was found.
        eyes: [N] distance of the eyes in the same unit.
    """
    apart = 100 * np.linalg.norm(real.astype(np.float64) - result, axis=-1) / eyes[:, None]
    known = apart[np.isfinite(apart).all(1)]
    return known.mean(0) if len(known) else np.full(apart.shape[1], np.nan)


def slopes(real: Array, result: Array, eyes: NDArray[Any]) -> dict[str, float]:
    """Slope of the result's openings over the real ones; NaN if the real one does not move. Args: see distances()."""
    found = {}
    for name, (upper, lower) in OPENINGS.items():
        openings = [np.linalg.norm(p[:, upper] - p[:, lower], axis=-1).mean(1) / eyes for p in (real, result)]
        x, y = np.stack(openings)[:, np.isfinite(openings).all(0)]
        moves = len(x) > 2 and x.std() >= MIN_STD
        found[name] = float(np.cov(x, y, ddof=0)[0, 1] / x.var()) if moves else math.nan
    return found


def by_region(apart: Sequence[float]) -> dict[str, float]:
    """Means of [68] values over all points and over each part of the face."""
    return {"all": float(np.mean(apart))} | {name: float(np.mean(apart[part])) for name, part in REGIONS.items()}


class Detectors:
    """Both landmark detectors, for the frames of a clip."""

    def __init__(self, data: Path, size: int, step: int, find: Finder) -> None:
        self.step = step
        self._store = ClipStore(data, size=size)
        self._find = find
        self._own = Instruments(torch.device("cpu"), None)

    def open(self, clip: ClipInfo) -> None:
        """Detect the points of a clip's real frames."""
        numbers = np.arange(1, clip.num_frames, self.step)
        self.photo, frames = self._store.read(clip, [0]), self._store.read(clip, numbers)
        self.images, self.points = frames.images, frames.points
        self.boxes = face_boxes(frames.points)
        self._real = self._found(frames.images)
        self._eyes = metrics.outer_eye_distance(frames.points)

    def _found(self, images: Image) -> dict[str, Array]:
        own, _ = self._own.find(images, in_order=True)
        return {"dlib": self._find(images, self.boxes), "mediapipe": own[:, POINTS_68, :2]}

    def made(self, model: Model | None) -> Image:
        """Frames of a model; the real ones for None."""
        if model is None:
            return self.images
        person = model.prepare(self.photo.images, self.photo.points)
        return np.stack([person.frame(points) for points in self.points])

    def measure(self, model: Model | None) -> dict[str, Any]:
        """[68] distances and the slopes, by detector."""
        found = self._found(self.made(model))
        return {name: self._told(name, found[name]) for name in found}

    def floor(self) -> dict[str, Any]:
        """The same for dlib on the real frames with moved boxes, mean of four boxes."""
        side = (self.boxes[:, 2] - self.boxes[:, 0])[:, None]
        moves = BOX_MOVED * side * np.array([[1, 0, 1, 0], [0, 1, 0, 1]])[:, None]
        found = [self._find(self.images, self.boxes + sign * move) for move in moves for sign in (-1, 1)]
        told = [self._told("dlib", one) for one in found]
        apart = np.mean([one["apart"] for one in told], 0).tolist()
        return {"dlib": {"apart": apart} | {name: float(np.mean([one[name] for one in told])) for name in OPENINGS}}

    def _told(self, detector: str, found: Array) -> dict[str, Any]:
        pair = self._real[detector], found
        return {"apart": distances(*pair, self._eyes).tolist(), **slopes(*pair, self._eyes)}


def compared(values: Mapping[str, Mapping[str, Mapping[str, Any]]], first: str) -> dict[str, Any]:
    """Table content for one detector.

    Args:
        values: [68] distances and the slopes, by clip and model.
        first: the baseline.

    Returns:
        By model and region: mean and interval over clips; mean and interval of the difference from the baseline on the
        same clips, and the share of clips in which it is better. By opening: the median slope.
    """
    lower = metrics.METRICS["akd68_percent"]
    summary: dict[str, Any] = {}
    for model in dict.fromkeys(model for models in values.values() for model in models):
        rows = [{name: by_region(models[name]["apart"]) for name in (model, first)} for models in values.values()]
        summary[model] = {}
        for region in ("all", *REGIONS):
            mine, theirs = (np.array([row[name][region] for row in rows]) for name in (model, first))
            summary[model][region] = {
                "mean": float(np.nanmean(mine)),
                "interval": metrics.bootstrap_interval(mine),
                "difference": float(np.nanmean(mine - theirs)),
                "difference_interval": metrics.bootstrap_interval(mine - theirs),
                "better": metrics.share_better(lower, mine, theirs),
            }
        for name in OPENINGS:
            known = [found for models in values.values() if math.isfinite(found := models[model][name])]
            summary[model][name] = {"clips": len(known), "median": float(np.median(known)) if known else math.nan}
    return summary


def table(summary: Mapping[str, Any], first: str) -> str:
    """Markdown."""
    rows = []
    for model, regions in summary.items():
        cells = [f"{regions[name]['mean']:.2f}" for name in ("all", *REGIONS)]
        cells[0] += " [{:.2f}, {:.2f}]".format(*regions["all"]["interval"])
        rows.append([model, *cells, *(f"{regions[name]['median']:.2f}" for name in OPENINGS)])
    for model, regions in summary.items():
        if model not in (first, FLOOR):
            parts = [regions[name] for name in ("all", *REGIONS)]
            empty = [""] * len(OPENINGS)
            apart = ["{:+.2f} [{:+.2f}, {:+.2f}]".format(p["difference"], *p["difference_interval"]) for p in parts]
            rows.append([f"{model} less {first}", *apart, *empty])
            rows.append([f"{model} better in", *(f"{100 * one['better']:.0f} %" for one in parts), *empty])
    return markdown(["% of the eyes' distance", "all 68", *REGIONS, *(f"{name} follow" for name in OPENINGS)], rows)


def measured(data: Path, names: Sequence[str], step: int, size: int, folder: Path) -> dict[str, Any]:
    """[68] distances and the slopes, by detector, clip and model.

    Args: folder: of the cache.
    """
    file = predictor_file()
    models = {label_of(name): load_model(name) for name in names}
    if len(models) < len(names):
        raise InputError(f"--models {','.join(names)}: two of one name; rename a file.")
    clips = [clip for clip in read_index(data) if clip.num_frames > 3]
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    kept = Records(folder)
    witnesses = Detectors(data, size, step, dlib_finder(file, average=False))
    values: dict[str, Any] = {"dlib": {}, "mediapipe": {}}
    start, total = time.perf_counter(), len(clips) * (len(models) + 1)
    for number, clip in enumerate(clips):
        opened = False
        for place, label in enumerate([*models, FLOOR]):
            model = models.get(label)
            identity = getattr(model, "identity", label)
            what = digest_of(code, code_digest(MEASURED_BY), clip.to_json(), identity, step, size)
            name = f"{clip.key}-{label.replace(', ', '-').replace(' ', '-')}-{what}"
            record = kept.get(name)
            if record is None:
                if not opened:
                    witnesses.open(clip)
                    opened = True
                record = witnesses.floor() if label == FLOOR else witnesses.measure(model)
                kept.put(name, record)
            for witness, told in record.items():
                values[witness].setdefault(clip.key, {})[label] = told
            done = number * (len(models) + 1) + place + 1
            print(
                f"{done}/{total} {clip.key} {label}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True
            )
    return values


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="shards of people whom the models have never seen")
    parser.add_argument("--models", default="geometry,texture", help="as in mimik evaluate; the first is compared with")
    parser.add_argument("--step", type=int, default=2, help="every such frame of a clip")
    parser.add_argument("--size", type=int, default=256, help="width and height of the frames in pixels")
    parser.add_argument("-o", "--out", type=Path, default=Path("landmarks.json"))
    args = parser.parse_args()
    return exit_code(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    names = args.models.split(",")
    if args.step < 1:
        raise InputError(f"--step {args.step}: use 1 for every frame, or more.")
    if not args.out.parent.is_dir():
        raise InputError(f"-o {args.out}: the folder {args.out.parent} does not exist; make it first.")
    with threadpool_limits(limits=1, user_api="blas"):
        values = measured(args.data, names, args.step, args.size, args.out.with_suffix(".clips"))
    first = label_of(names[0])
    summary = {witness: compared(clips, first) for witness, clips in values.items()}
    report = {
        "mimik": VERSION,
        "machine": machine("torch"),
        "data": {"clips": len(values["dlib"]), "step": args.step, "size": args.size},
        "summary": summary,
        "clips": {
            witness: {
                clip: {model: by_region(told["apart"]) for model, told in models.items()}
                for clip, models in clips.items()
            }
            for witness, clips in values.items()
        },
    }
    write_json(args.out, report)
    for witness, one in summary.items():
        print(f"\n{witness}, {len(values[witness])} clips:\n\n{table(one, first)}")


if __name__ == "__main__":
    sys.exit(main())
