"""Motion of the background behind a moving head, and the cost of keeping it still.

    python benchmarks/background.py [--photos FILE ...] [--motions NAME,...] [-o OUT.json]

Six bundled motions drive eight photos at 512 px with the model `geometry`, once with `--scene warp` (the whole photo
deforms) and once with `--scene auto` (the head is a layer over a still plate if the matte is reliable). Corners inside
the flow's square and outside the dilated matte are tracked into every 25th frame by the Lucas-Kanade method, forwards
and backwards; corners that the head covers in a frame are excluded. Reported per photo, over all motions: mean and 95th
percentile of the displacement in pixels; processor time (all threads) of flow and painting per frame, and of preparing
the photo. Prints a table and writes it as JSON.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik import Avatar
from mimik.animation.source_frame import SourceFrame
from mimik.config import VERSION, AnimateConfig
from mimik.face.landmarks import Image, Landmarker
from mimik.motion.files import Motion, bundled_motions
from mimik.motion.smoothing import smoothed
from mimik.rendering.crop import Crop
from mimik.rendering.painter import Painter
from mimik.rendering.scene.background import Scene
from mimik.rendering.scene.matte import person_matte
from reporting import SHARED, commit, markdown, write_json

SIZE = 512
EVERY = 25  # frames
MOTIONS = ("talk", "nod", "laugh", "surprise", "look-around", "listen")
PHOTOS = (
    "portraits/drawing_girl.jpg",
    "portraits/painting_mona_lisa.jpg",
    "portraits/photo_black_and_white_2048.jpg",
    "assets/donors/female_512_22.jpg",
    "assets/donors/female_512_71.jpg",
    "assets/donors/female_512_95.jpg",
    "assets/donors/male_512_1.jpg",
    "assets/donors/male_512_24.jpg",
)
_MARGIN = 0.02  # of the square's side: smallest distance between matte and corners
_COVERED = 9  # pixels: half the side of the tracker's window
_RETURNS = 0.5  # pixels: largest forward-backward error of a corner
_LK: dict[str, Any] = {"winSize": (2 * _COVERED + 1,) * 2, "maxLevel": 3}


def corners(picture: Image, matte: NDArray[np.float32], crop: Crop) -> NDArray[np.float32]:
    """[N, 1, 2] corners of the background near the head."""
    margin = 2 * round(_MARGIN * crop.side) + 1 + 2 * _COVERED
    mask = np.zeros(matte.shape, np.uint8)
    low = np.maximum([crop.left, crop.top], 0).astype(int)
    high = np.maximum([crop.left + crop.side, crop.top + crop.side], 0).astype(int)
    mask[low[1] : high[1], low[0] : high[0]] = 255
    mask[cv2.dilate((matte > 0.02).astype(np.uint8), np.ones((margin, margin))) > 0] = 0
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    found = cv2.goodFeaturesToTrack(gray, 300, 0.02, 5, mask=mask)
    return np.zeros((0, 1, 2), np.float32) if found is None else found


def displacements(
    photo: Image, frame: Image, points: NDArray[np.float32], cover: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """[M] displacements of corners in pixels, without lost corners and those under the head (cover [H, W] > 0)."""
    before, after = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (photo, frame))
    there, ok, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None, **_LK)
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **_LK)
    wide = cv2.dilate(cover, np.ones((2 * _COVERED + 3,) * 2))
    x, y = points[:, 0].astype(int).T
    good = (ok[:, 0] > 0) & (ok_back[:, 0] > 0) & (wide[y, x] == 0)
    good &= np.linalg.norm(back - points, axis=2)[:, 0] < _RETURNS
    return np.asarray(np.linalg.norm(there - points, axis=2)[good, 0])


def measure(path: Path, motions: list[str], landmarker: Landmarker) -> dict[str, Any]:
    """Results of one photo with all motions and both scenes."""
    avatar = Avatar.from_photos([path], landmarker=landmarker)
    sources: dict[str, SourceFrame] = {}
    row: dict[str, Any] = {"photo": path.name}
    for scene in ("warp", "auto"):
        source = avatar.source_frame(AnimateConfig(model="geometry", size=SIZE, scene=scene))
        start = time.process_time()
        points = source.face.points.astype(np.float64)
        source.paint(source.flow(points), points)
        row[scene] = {"prepare_s": time.process_time() - start}
        sources[scene] = source
    scene_found = sources["auto"].scene
    row["uses"] = "plate" if isinstance(scene_found, Scene) else "warp"
    picture, points = sources["auto"].picture, sources["auto"].face.points
    crop = Crop.around(points)
    matte = scene_found.alpha if isinstance(scene_found, Scene) else person_matte(picture, points)
    start_points = corners(picture, matte, crop)
    mask = np.rint(matte * 255).astype(np.uint8)
    found: dict[str, list[NDArray[np.float32]]] = {"warp": [], "auto": []}
    spent = {"warp": 0.0, "auto": 0.0}
    count = 0
    for name in motions:
        motion = Motion.load(bundled_motions()[name])
        retargets = {scene: source.retarget(motion.reference) for scene, source in sources.items()}
        for number, motion_frame in enumerate(smoothed(motion.frames(), motion.fps, AnimateConfig().smooth)):
            if number % EVERY:
                continue
            count += 1
            frames, covers = {}, []
            for scene, source in sources.items():
                target = retargets[scene](motion_frame)
                start = time.process_time()
                flow = source.flow(target)
                frames[scene] = source.paint(flow, target)
                spent[scene] += time.process_time() - start
                mover = Painter(picture, source.photo_warper)
                covers.append(mover.carry(mask, flow))
            cover = np.maximum(*covers)
            for scene, frame in frames.items():
                found[scene].append(displacements(picture, frame, start_points, cover))
    for scene, parts in found.items():
        every = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        row[scene] |= {
            "mean_px": float(every.mean()) if len(every) else None,
            "p95_px": float(np.percentile(every, 95)) if len(every) else None,
            "ms_per_frame": 1000 * spent[scene] / max(count, 1),
        }
    return row | {"num_corners": len(start_points), "num_frames": count}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", nargs="+", type=Path, default=[SHARED / name for name in PHOTOS])
    parser.add_argument("--motions", default=",".join(MOTIONS))
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    landmarker = Landmarker()
    rows = []
    heads = "photo", "uses", "corners", "warp: mean, p95 px", "auto", "ms warp", "auto", "prepare s", "auto"
    print(markdown(heads, []))
    for path in options.photos:
        row = measure(path, options.motions.split(","), landmarker)
        rows.append(row)
        both = row["warp"], row["auto"]
        px = ["-" if of["mean_px"] is None else f"{of['mean_px']:.2f}, {of['p95_px']:.2f}" for of in both]
        times = [f"{of['ms_per_frame']:.1f}" for of in both] + [f"{of['prepare_s']:.2f}" for of in both]
        print("| " + " | ".join([row["photo"], row["uses"], str(row["num_corners"]), *px, *times]) + " |", flush=True)
    share = np.mean([row["uses"] == "plate" for row in rows])
    print(f"\n{share:.0%} of {len(rows)} photos use the plate")
    about = {"commit": commit(), "version": VERSION, "size": SIZE, "motions": options.motions}
    write_json(options.out, about | {"rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
