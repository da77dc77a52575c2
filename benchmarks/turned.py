"""Large rotations: frames with a head turn of more than 20 degrees relative to the photo, rendered from it.

    python benchmarks/turned.py [--models geometry,texture] [--data FOLDER] [--against COMMIT] [-o OUT.json]

The photo is the first frame of a clip with a face; up to three frames whose yaw differs from the photo's by more than
20 degrees are rendered from it along their own landmarks, at the clip's resolution, by the same SourceFrame as all
videos. Measured separately on the half of the face that the turn uncovers and on the half that it hides, divided by the
line forehead - nose - chin: L1 (0..255), feature distance (EfficientNet-lite0's activations of the face at 256 px, with
the rest taken from the real frame) and SSIM; means over the frames of a clip, then over clips. `copy` is the unchanged
photo. --against renders the same frames with another commit, checked out into a temporary folder, and adds ratios.
Frames and landmarks are cached in --cache. Prints a table and writes it as JSON.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.config import VERSION, InputError
from mimik.face import landmarks as faces
from mimik.face.landmarks import Image, head_pose
from mimik.face.tracker import Tracker
from mimik.media import video
from repainting import COPY, Arrays, clips_in, evenly, kept, landmarker, painted
from reporting import ROOT, SHARED, exit_code, markdown, write_json

FPS = 4.0
NUM_FRAMES = 3  # of a clip, evenly spaced among the suitable ones
MIN_TURN = 20.0  # degrees of yaw between photo and frame
HALVES = ("uncovered", "turned away")
MEASURES = ("l1", "features", "ssim")
_MIDLINE = [10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 0, 17, 200, 199, 175, 152]  # forehead to chin
_FACE_PX = 256


def choose(yaws: Sequence[float | None]) -> tuple[int, list[int]] | None:
    """Numbers of the photo and of the frames to render, from yaws (None: no face); None without large turns."""
    seen = [i for i, yaw in enumerate(yaws) if yaw is not None]
    if not seen:
        return None
    first = yaws[seen[0]]
    assert first is not None
    turned = [i for i in seen if abs((yaws[i] or 0.0) - first) > MIN_TURN]
    return (seen[0], evenly(turned, NUM_FRAMES)) if turned else None


def case(path: Path) -> Arrays:
    """Arrays of a clip: photo, frames, points, yaw; empty without large turns."""
    tracker, images = Tracker(landmarker()), list(video.read_frames(path, fps=FPS))
    found = [tracker.track(image) for image in images]
    yaws = [None if face is None else head_pose(face.points).degrees[0] for face in found]
    if (chosen := choose(yaws)) is None:
        return {}
    photo, some = chosen
    return {
        "photo": images[photo],
        "frames": np.stack([images[i] for i in some]),
        "points": np.stack([found[i].points for i in some]),  # type: ignore[union-attr]
        "yaw": np.array([yaws[i] for i in (photo, *some)], np.float64),
    }


def paint(tasks: Mapping[str, Arrays], models: Sequence[str], out: Path) -> None:
    """Render every clip with every model: uint8 RGB [N, H, W, 3] in out/CLIP-MODEL.npy."""
    for clip, arrays in tasks.items():
        photo = out / f"{clip}.png"
        video.write_image(photo, arrays["photo"])
        for model in models:
            np.save(out / f"{clip}-{model}.npy", np.stack(list(painted(photo, arrays["points"], model))))


def halves(points: NDArray[Any], turn: float, side: tuple[int, int]) -> list[NDArray[np.bool_]]:
    """[H, W] masks of the half of the face that a turn uncovers, and of the half that it hides.

    Args:
        points: [478, 3] of the frame.
        turn: yaw relative to the photo, degrees; positive to the picture's right, which uncovers the right half.
        side: height and width of the frame.
    """
    oval, middle = list(faces.OVAL), _MIDLINE
    top, chin = oval.index(middle[0]), oval.index(middle[-1])
    ring = [oval[(top + i) % len(oval)] for i in range(len(oval))]
    cut = (chin - top) % len(oval)
    sides = [ring[: cut + 1] + middle[-2:0:-1], ring[cut:] + middle[:-1]]
    masks = []
    for outline in sides:
        mask = np.zeros(side, np.uint8)
        cv2.fillPoly(mask, [np.round(points[outline, :2] - 0.5).astype(np.int32)], 1)
        masks.append(mask.astype(bool))
    is_right = [bool(np.isin(faces.RIGHT_EYE_UPPER[0], outline)) or 234 in outline for outline in sides]
    right, left = (masks[is_right.index(value)] for value in (True, False))
    return [right, left] if turn > 0 else [left, right]


class Meter:
    """Compares regions of a rendered frame with the real one."""

    def __init__(self) -> None:
        import torch

        from mimik.evaluation import metrics
        from mimik.networks.features import content_network
        from mimik.networks.losses import content_loss

        torch.set_num_threads(1)
        self._torch, self._metrics, self._loss = torch, metrics, content_loss
        self._network = content_network("efficientnet_lite0").eval()

    def __call__(self, real: Image, made: Image, mask: NDArray[np.bool_]) -> dict[str, float]:
        """l1, features and ssim inside a mask [H, W] of frames [H, W, 3]."""
        ys, xs = np.nonzero(mask)
        middle, reach = (int(xs.min() + xs.max()) // 2, int(ys.min() + ys.max()) // 2), int(np.ptp(ys)) * 5 // 8 + 1
        views = []
        for image in (real, np.where(mask[..., None], made, real)):
            wide = cv2.copyMakeBorder(image, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
            square = wide[middle[1] : middle[1] + 2 * reach, middle[0] : middle[0] + 2 * reach]
            views.append(cv2.resize(square, (_FACE_PX, _FACE_PX), interpolation=cv2.INTER_AREA))
        planes = self._torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with self._torch.inference_mode():
            layers = self._network(planes)
            distance = self._loss([x[:1] for x in layers], [x[1:] for x in layers], self._network.layer_weights)
        return {
            "l1": float(np.abs(real[mask].astype(int) - made[mask]).mean()),
            "features": float(distance),
            "ssim": float(self._metrics.ssim_map(real, made)[mask].mean()),
        }


def measure(meter: Meter, arrays: Arrays, images: Sequence[Image]) -> dict[str, dict[str, float]]:
    """Means over the frames of a clip, for each half."""
    rows: dict[str, list[dict[str, float]]] = {half: [] for half in HALVES}
    photo_yaw, *yaws = arrays["yaw"].tolist()
    for real, made, points, yaw in zip(arrays["frames"], images, arrays["points"], yaws, strict=True):
        for half, mask in zip(HALVES, halves(points, yaw - photo_yaw, real.shape[:2]), strict=True):
            if mask.any():
                rows[half].append(meter(real, made, mask))
    return {
        half: {name: float(np.mean([row[name] for row in found])) for name in MEASURES}
        for half, found in rows.items()
        if found
    }


def summary(clips: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means over clips: {model: {half: {measure: value}, "clips": n}}."""
    out: dict[str, Any] = {}
    for model in dict.fromkeys(model for clip in clips.values() for model in clip["models"]):
        found = [clip["models"][model] for clip in clips.values()]
        out[model] = {
            half: {name: float(np.mean([one[half][name] for one in found if half in one])) for name in MEASURES}
            for half in HALVES
        } | {"clips": len(found)}
    return out


def table(found: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """A Markdown table of each model; with an earlier commit, also its figures and the change in percent."""
    rows = []
    for half in HALVES:
        for model, row in found.items():
            cells = []
            for name in MEASURES:
                value = row[half][name]
                old = before[model][half][name] if model in before else None
                cells.append(
                    f"{value:.3f}" if old is None else f"{old:.3f} -> {value:.3f} ({100 * (value / old - 1):+.1f} %)"
                )
            rows.append([half, model, *cells, str(row["clips"])])
    return markdown(["half", "model", "L1", "feature distance", "SSIM", "clips"], rows)


def painted_by(commit: str, models: Sequence[str], args: argparse.Namespace, folder: Path) -> None:
    """Render the frames into a folder with the program of a commit.

    Raises InputError if there is no such commit, or its program fails.
    """
    checkout = folder / "checkout"
    made = subprocess.run(
        ["git", "-C", ROOT, "worktree", "add", "--detach", checkout, commit], capture_output=True, text=True
    )
    if made.returncode:
        raise InputError(
            f"--against {commit}: {made.stderr.strip().splitlines()[-1]}; use a commit of this repository."
        )
    try:
        given = ["--models", ",".join(models), "--data", args.data, "--cache", args.cache, "--paint", folder]
        run = subprocess.run(
            [sys.executable, __file__, *map(str, given)], env={**os.environ, "PYTHONPATH": str(checkout / "src")}
        )
        if run.returncode:
            raise InputError(f"--against {commit}: its program could not paint the frames; use a later commit.")
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", checkout], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "corpus/dev", help="a folder of clips")
    parser.add_argument("--models", default="geometry,texture", help="as in mimik animate")
    parser.add_argument("--against", metavar="COMMIT", help="commit to compare with")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "mimik-turned")
    parser.add_argument("--paint", type=Path, help="only render, into this folder; used by --against")
    parser.add_argument("-o", "--out", type=Path, default=Path("turned.json"))
    args = parser.parse_args()
    return exit_code(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    start, models = time.process_time(), args.models.split(",")
    how = [FPS, NUM_FRAMES, MIN_TURN]
    tasks = {path.stem: arrays for path in clips_in(args.data) if (arrays := kept(path, args.cache, how, case))}
    if args.paint:
        paint(tasks, models, args.paint)
        return
    with tempfile.TemporaryDirectory() as name:
        folders = {"now": Path(name) / "now", "before": Path(name) / "before"}
        for folder in folders.values():
            folder.mkdir()
        paint(tasks, models, folders["now"])
        if args.against:
            painted_by(args.against, models, args, folders["before"])
        meter, clips = Meter(), {"now": {}, "before": {}}  # type: Meter, dict[str, dict[str, Any]]
        for clip, arrays in tasks.items():
            for when, folder in folders.items():
                made = {model: folder / f"{clip}-{model}.npy" for model in models}
                found = {model: measure(meter, arrays, np.load(f)) for model, f in made.items() if f.exists()}
                if when == "now":
                    found[COPY] = measure(meter, arrays, [arrays["photo"]] * len(arrays["frames"]))
                clips[when][clip] = {"yaw": arrays["yaw"].round(1).tolist(), "models": found}
    report: dict[str, Any] = {
        "mimik": VERSION,
        "processor_seconds": time.process_time() - start,
        "summary": summary(clips["now"]),
    }
    if args.against:
        report |= {"against": args.against, "summary_before": summary(clips["before"]), "clips_before": clips["before"]}
    write_json(args.out, report | {"clips": clips["now"]})
    print(table(report["summary"], report.get("summary_before", {})))


if __name__ == "__main__":
    sys.exit(main())
