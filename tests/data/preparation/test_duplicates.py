"""duplicates.py: a copy is detected, another clip of the same setting is not."""

from __future__ import annotations

import numpy as np

from made_files import texture
from mimik.data.preparation.duplicates import Fingerprints, fingerprint
from mimik.face.landmarks import Image


def made_up(seed: int) -> tuple[list[Image], np.ndarray, np.ndarray]:
    """A clip of the same room with different motion."""
    rng = np.random.default_rng(seed)
    curves = np.cumsum(rng.normal(0, 1, (40, 55)), 0).astype(np.float32)
    return [texture(3)] * 40, np.clip(curves[:, :52] / 20 + 0.4, 0, 1), curves[:, 52:] * 2


def test_a_noisy_copy_is_found_and_another_clip_of_the_same_setting_is_not() -> None:
    known = Fingerprints()
    for seed in range(20):
        code = fingerprint(*made_up(seed))
        assert known.find(code) is None
        known.add(f"clip{seed}", code)
    frames, shapes, pose = made_up(7)
    rng = np.random.default_rng(0)
    noisy = [np.clip(f + rng.normal(0, 4, f.shape), 0, 255).astype(np.uint8) for f in frames]
    copy = fingerprint(noisy, shapes + rng.normal(0, 0.01, shapes.shape), pose + rng.normal(0, 0.5, pose.shape))
    assert known.find(copy) == "clip7"
    assert known.find(fingerprint([f[:, ::-1] for f in frames], shapes, pose)) is None
