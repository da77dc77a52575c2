"""Render the pictures of README and gallery: portraits in rows; driver frames, drawn as landmarks, in columns.

python tools/make_pictures.py docs/pictures/readme.jpg PHOTO... --motions talk laugh look-around --columns 7
python tools/make_pictures.py docs/gallery/mona_lisa.jpg PHOTO --models geometry texture

A motion is the name of a bundled one, or a .motion file. With several models, every photo has a row per model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from mimik import Avatar
from mimik.config import AnimateConfig
from mimik.face.landmark_images import landmark_image
from mimik.face.landmarks import Landmarker
from mimik.inference.synthesis import DEFAULT_MODEL
from mimik.motion.files import Motion
from mimik.motion.frames import MotionFrame, Reference, rotation_matrix
from mimik.motion.kinds import bundled_motions
from mimik.motion.smoothing import smoothed
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.sealing import seal
from mimik.rendering.crop import Crop

CELL_PX = 224
SHOWN = 0.7  # share of the crop's side


def telling_frames(motion: Motion, count: int) -> list[MotionFrame]:
    """The frames of a motion that differ most from neutral and from each other, in temporal order."""
    motion_frames = list(smoothed(motion.frames(), motion.fps, 0.5))
    told = np.array([[*(g.turn * 10), *g.offset[[14, 61, 159, 386]].ravel()] for g in motion_frames])
    chosen = [int(np.linalg.norm(told, axis=1).argmax())]
    while len(chosen) < count:
        distance = np.min([np.linalg.norm(told - told[i], axis=1) for i in chosen], axis=0)
        chosen.append(int((distance * (np.linalg.norm(told, axis=1) > 0.5)).argmax()))
    return [motion_frames[i] for i in sorted(chosen)]


def drawn(reference: Reference, motion_frame: MotionFrame) -> np.ndarray:
    """The driver as landmarks."""
    turned = (reference.shape + motion_frame.offset) @ (rotation_matrix(motion_frame.turn) @ reference.rotation).T
    moved = turned + motion_frame.shift * [1, 1, 0]
    return landmark_image(moved[:, :2] * (CELL_PX / 27) + CELL_PX / 2, CELL_PX, CELL_PX)


def row(path: Path, model: str, landmarker: Landmarker, drivers: list[tuple[Reference, MotionFrame]]) -> np.ndarray:
    frame = Avatar.from_photos([path], landmarker=landmarker).source_frame(AnimateConfig(model=model))
    picture, crop = frame.picture, Crop.around(frame.face.points)
    side = min(round(crop.side * SHOWN), *picture.shape[:2])
    left, top = (
        int(np.clip(start + crop.side / 2 - side / 2, 0, length - side))
        for start, length in ((crop.left, picture.shape[1]), (crop.top, picture.shape[0]))
    )

    def cell(image: np.ndarray) -> np.ndarray:
        part = image[top : top + side, left : left + side]
        how = cv2.INTER_AREA if side > CELL_PX else cv2.INTER_CUBIC
        return cv2.resize(part, (CELL_PX, CELL_PX), interpolation=how)

    goals = [frame.retarget(reference)(motion_frame) for reference, motion_frame in drivers]
    painted = [frame.paint(frame.flow(goal), goal) for goal in goals]
    return np.concatenate([cell(image) for image in (picture, *painted)], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--motions", nargs="+", default=["talk", "laugh", "look-around"])
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--models", nargs="+", default=[DEFAULT_MODEL])
    arguments = parser.parse_args()
    landmarker = Landmarker()
    drivers = []
    for i, name in enumerate(arguments.motions):
        motion = Motion.load(bundled_motions().get(name) or Path(name))
        count = arguments.columns // len(arguments.motions) + (i < arguments.columns % len(arguments.motions))
        drivers += [(motion.reference, motion_frame) for motion_frame in telling_frames(motion, count)]
    rows = [np.concatenate([np.zeros((CELL_PX, CELL_PX, 3), np.uint8), *(drawn(*d) for d in drivers)], axis=1)]
    for path in arguments.photos:
        rows += [row(path, model, landmarker, drivers) for model in arguments.models]
    photos = tuple(Ingredient.from_file("photo", path) for path in arguments.photos)
    claim = Claim(arguments.out.name, " and ".join(Path(model).name for model in arguments.models), photos)
    with seal(arguments.out, claim, force=True) as draft:
        draft.write_image(np.concatenate(rows))


if __name__ == "__main__":
    main()
