"""Regions of the face: which points and which blendshapes belong to lips, eyes, brows and gaze."""

from __future__ import annotations

import functools

import numpy as np

from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, canonical_mesh
from mimik.motion.expression import Float

_PREFIXES = {"lips": ("jaw", "mouth"), "eyes": ("eyeBlink", "eyeSquint", "eyeWide"), "brows": ("brow",)}
_PREFIXES["gaze"] = ("eyeLook",)


def region_blendshapes(region: str) -> list[int]:
    """Indices of the blendshapes that belong to one of the regions but pose."""
    return [i for i, name in enumerate(BLENDSHAPES) if name.startswith(_PREFIXES[region])]


@functools.cache
def region_weights() -> dict[str, Float]:
    """[478] for each region but pose: share of a point's displacement that belongs to it; the remainder is not used."""
    mesh = canonical_mesh().vertices
    iris = [mesh[[a, b]].mean(0) for a, b in ((33, 133), (362, 263))]
    vertices = np.concatenate([mesh, np.repeat(iris, 5, axis=0)])
    jaw = [152, 148, 176, 149, 150, 377, 400, 378, 379, 18, 200, 199, 175]
    groups = {
        "lips": [*faces.LIPS, *jaw],
        "eyes": faces.EYES,
        "brows": faces.BROWS,
        "still": [10, 6, 197, 195, 127, 356, 54, 284, 67, 297, 1, 4, 5, 93, 323, 234, 454],
    }
    near = {}
    for name, index in groups.items():
        distance = np.linalg.norm(vertices[:, None] - vertices[index][None], axis=-1).min(1)
        near[name] = np.exp(-((distance / 1.6) ** 2)) + 1e-9
    total = sum(near.values())
    weights = {name: near[name] / total for name in ("lips", "eyes", "brows")}
    weights["gaze"] = np.zeros(faces.NUM_POINTS)
    weights["gaze"][faces.IRISES] = 1
    for name in ("lips", "eyes", "brows"):
        weights[name][faces.IRISES] = 0
    for name, index in (("lips", faces.LIPS), ("eyes", faces.EYES), ("brows", faces.BROWS)):
        for other in ("lips", "eyes", "brows"):
            weights[other][index] = float(other == name)
    return weights
