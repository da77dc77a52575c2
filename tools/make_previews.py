"""Render the motion previews of `mimik web`: the driver's face, drawn as landmarks.

python tools/make_previews.py -o src/mimik/assets/motions
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from mimik.face.landmark_images import landmark_image
from mimik.face.landmarks import Landmarker
from mimik.motion.drivers import registry
from mimik.motion.drivers.driver import DriverSettings
from mimik.motion.frames import MotionFrame, Reference, rotation_matrix
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.sealing import seal

SIDE_PX = 112
FPS = 8.0
IDLE_S = 5.0
FACE_CM = 22.0  # width of the picture


def drawn(reference: Reference, motion_frame: MotionFrame) -> np.ndarray:
    """The driver's face as landmarks, drawn at twice the size for smooth lines."""
    turned = (reference.shape + motion_frame.offset) @ (rotation_matrix(motion_frame.turn) @ reference.rotation).T
    moved = (turned + motion_frame.shift * [1, 1, 0]) * np.exp(motion_frame.zoom)
    px = 2 * SIDE_PX
    image = landmark_image(moved[:, :2] * (px / FACE_CM) + px / 2, px, px)
    return cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="output folder")
    folder = parser.parse_args().out
    settings = DriverSettings(landmarker=Landmarker())
    for name, path in registry.names().items():
        driver = registry.open_driver(name, FPS, seconds=None if path else IDLE_S)
        out = folder / f"{name}.webp"
        sources = (Ingredient.from_file("driver", path, name=f"bundled {name}"),) if path else ()
        with (
            driver.motion(settings) as motion,
            seal(out, Claim(out.name, "none", sources), force=True) as draft,
            draft.open_writer(SIDE_PX, SIDE_PX, FPS, quality=45) as writer,
        ):
            for motion_frame in motion.frames:
                writer.write(drawn(motion.neutral, motion_frame))
        print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
