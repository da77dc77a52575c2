"""Makes the sets of teeth that come with the package from portraits with visible teeth.

python tools/make_teeth.py ../shared/assets/donors --output src/mimik/assets/teeth.npz

Of each portrait the upper arch is unrolled, its enamel found, the boundaries between teeth are searched near where
anatomy expects them, light is equalized, and what lips hide is continued. The portraits are CC0 (see NOTICE).
"""

from __future__ import annotations

import argparse
import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face.landmarks import Array, Landmarker
from mimik.media.video import read_image
from mimik.rendering.layers import teeth as layers
from mimik.rendering.layers.teeth import ENAMEL, HALF_MM, LUMA, MAP_PX_PER_MM, TOP_MM, TeethSet

# Portraits whose teeth are whole, evenly lit and seen from in front; the others show dark gaps or too little.
DONORS = {
    "ada": "female_512_48", "bea": "female_512_32", "cleo": "female_512_22", "dora": "female_512_38",
    "ella": "female_512_40", "fay": "female_512_59", "gia": "female_512_71", "hana": "female_512_99",
    "ida": "female_512_27", "jon": "male_512_1", "karl": "male_512_26", "leo": "male_512_86", "max": "male_512_96",
}  # fmt: skip
_CHEEKS = [50, 205, 280, 425, 187, 411]
_FINE = 10  # px a mm while searching
_MAX_HUE, _MAX_DARK, _MAX_BRIGHT = 0.05, 0.07, 0.12  # what enamel varies by within one mouth
_SEEN_SIDE_MM = 19  # beyond this the boundaries are anatomy's


def make(name: str, path: Path, landmarker: Landmarker) -> TeethSet:
    """The set of one portrait."""
    picture = read_image(path)
    points = landmarker.detect(picture, thorough=True)[0].points
    unrolled, found, _ = layers.rectify(picture, points, _FINE)
    bounds, edges = _teeth(unrolled, found)
    # The set's own v begins at the central incisors' edge.
    middle = len(edges) // 2
    low = float(edges[middle - 1 : middle + 1].max())
    shown = unrolled.astype(np.float32)
    core = cv2.erode(found.astype(np.float32), np.ones((7, 7)))
    rows = (np.arange(unrolled.shape[0])[:, None] + 0.5) / _FINE - TOP_MM
    number = (np.searchsorted(bounds, _columns(unrolled)) - 1).clip(0, len(edges) - 1)
    core *= (rows < edges[number][None] - 0.35) & (rows > low - 9)
    # Light: what changes slowly along the arch is the portrait's, not the teeth's.
    wide = layers.spread(shown, core)
    slow = cv2.GaussianBlur(wide, (0, 0), 5 * _FINE, sigmaY=0.1 + 8 * _FINE)
    mean = (shown * core[..., None]).sum((0, 1)) / core.sum()
    light = (slow @ LUMA) / max(float(mean @ LUMA), 1.0)
    tones = _cleaned(wide / light[..., None] / mean) * ENAMEL
    px = MAP_PX_PER_MM
    size = round(2 * HALF_MM * px), round((layers.ABOVE_MM + layers.BELOW_MM) * px)
    top = round((low - layers.ABOVE_MM + TOP_MM) * _FINE)
    part = tones[max(top, 0) : top + round((layers.ABOVE_MM + layers.BELOW_MM) * _FINE)]
    part = cv2.copyMakeBorder(part, max(-top, 0), 0, 0, 0, cv2.BORDER_REPLICATE)
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    skin = np.median([picture[int(y), int(x)] for x, y in points[_CHEEKS, :2]], axis=0)
    return TeethSet(
        name,
        small.round().clip(0, 255).astype(np.uint8),
        bounds.astype(np.float32),
        (edges - low).astype(np.float32),
        skin.astype(np.float32),
    )


def _cleaned(tones: Array) -> Array:
    """Enamel without what is none: shadows between teeth, and the hue of the lips on them."""
    light = (tones @ LUMA).astype(np.float32)
    hue = cv2.GaussianBlur(tones / light[..., None], (0, 0), 2.0 * _FINE)
    hue = 1 + (hue - 1).clip(-_MAX_HUE, _MAX_HUE)
    local = cv2.GaussianBlur(light, (0, 0), 2.5 * _FINE)
    detail = (light / local).clip(1 - _MAX_DARK, 1 + _MAX_BRIGHT)
    return np.asarray(hue * (detail * local.clip(0.85, 1.1))[..., None], np.float32)


def _columns(unrolled: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray((np.arange(unrolled.shape[1]) + 0.5) / _FINE - HALF_MM)


def _teeth(unrolled: NDArray[np.uint8], found: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Boundaries [2 n + 1] and edges [2 n] of the teeth, mm on the wall."""
    light = unrolled.astype(np.float32) @ LUMA
    u = _columns(unrolled)
    seen = found.sum(0)
    rows = cv2.dilate(found.astype(np.uint8), np.ones((5, 15))) > 0
    column = np.where(rows.any(0), (light * rows).sum(0) / np.maximum(rows.sum(0), 1), 0).astype(np.float32)[None]
    column = cv2.GaussianBlur(column, (0, 0), 0.25 * _FINE)
    valley = (cv2.GaussianBlur(column, (0, 0), 2.0 * _FINE) - column)[0]  # high where dark between light

    def darkest(low: float, high: float, expected: float) -> float:
        near = np.flatnonzero((u >= low) & (u <= high))
        if not len(near) or abs(expected) > _SEEN_SIDE_MM or not seen[near].any():
            return expected
        score = valley[near] - 0.6 * np.abs(u[near] - expected)
        return float(u[near[score.argmax()]])

    middle = darkest(-2.5, 2.5, 0)
    widths = np.diff(layers.default_bounds())[layers.default_bounds().size // 2 :]
    sides = []
    for sign in (-1, 1):
        at, side = middle, []
        for width in widths:
            guess = at + sign * width
            at = darkest(*sorted((at + sign * 0.88 * width, at + sign * 1.12 * width)), guess)
            side.append(at)
        sides.append(side)
    bounds = np.array([*sides[0][::-1], middle, *sides[1]])
    v = (np.arange(unrolled.shape[0]) + 0.5) / _FINE - TOP_MM
    usual = np.array([*layers._UPPER_EDGES[::-1], *layers._UPPER_EDGES])
    edges = np.full(len(usual), np.nan)
    for number, (left, right) in enumerate(pairwise(bounds)):
        core = np.flatnonzero((u > left + 0.3 * (right - left)) & (u < right - 0.3 * (right - left)) & (seen > _FINE))
        if len(core) and abs(left + right) / 2 < _SEEN_SIDE_MM:
            edges[number] = np.median([v[np.flatnonzero(found[:, c])[-1]] for c in core]) + 0.15
    offset = float(np.nanmedian(edges - usual))
    wanted = usual + offset
    # What is measured counts within a millimetre of anatomy.
    return bounds, np.where(np.isnan(edges), wanted, wanted + (edges - wanted).clip(-0.8, 0.8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("donors", type=Path)
    parser.add_argument("--output", type=Path, default=Path("src/mimik/assets/teeth.npz"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    landmarker = Landmarker()
    sets = [make(name, args.donors / f"{file}.jpg", landmarker) for name, file in DONORS.items()]
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
