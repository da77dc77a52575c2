"""Extract the bundled sets of teeth from portraits with visible teeth.

python tools/make_teeth.py ../shared/assets/donors --output src/mimik/assets/teeth.npz

In each portrait the upper arch is unrolled and its enamel segmented; boundaries between teeth are searched near
their anatomical positions; lighting is equalized; parts hidden by the lips are extrapolated. The portraits are CC0 (see
NOTICE).
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import cv2
import numpy as np

from mimik.config import TEETH
from mimik.face.landmarks import Landmarker
from mimik.media.video import read_image
from mimik.rendering.layers.own_teeth import teeth_of

# Frontal portraits with complete, evenly lit teeth.
DONORS = {
    "ada": "female_512_48", "bea": "female_512_32", "cleo": "female_512_22", "dora": "female_512_38",
    "ella": "female_512_40", "fay": "female_512_59", "gia": "female_512_71", "hana": "female_512_99",
    "ida": "female_512_27", "jon": "male_512_1", "karl": "male_512_26", "leo": "male_512_86", "max": "male_512_96",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("donors", type=Path)
    parser.add_argument("--output", type=Path, default=Path("src/mimik/assets/teeth.npz"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    landmarker = Landmarker()
    assert tuple(DONORS) == TEETH
    sets = []
    for name, file in DONORS.items():
        picture = read_image(args.donors / f"{file}.jpg")
        one = teeth_of(picture, landmarker.detect(picture, thorough=True)[0].points, name)
        assert one is not None, f"{file} does not show its teeth well"
        sets.append(one)
    strip = cv2.cvtColor(np.concatenate([s.tones for s in sets]), cv2.COLOR_RGB2BGR)
    ok, tones = cv2.imencode(".webp", strip, [cv2.IMWRITE_WEBP_QUALITY, 92])
    assert ok
    np.savez_compressed(
        args.output,
        names=np.array([s.name for s in sets]),
        tones=tones,
        bounds=np.stack([s.bounds for s in sets]),
        edges=np.stack([s.edges for s in sets]),
        skin=np.stack([s.skin for s in sets]),
    )
    logging.info("%d sets, %d bytes in %s", len(sets), args.output.stat().st_size, args.output)


if __name__ == "__main__":
    main()
