"""Shortcuts for tests that fine-tune."""

from __future__ import annotations

import pytest

from mimik.face.landmarks import Landmarker
from mimik.networks.features import FaceNet
from mimik.training import learner, pairs, probes


def shorten(patch: pytest.MonkeyPatch, landmarker: Landmarker, face_net: FaceNet) -> None:
    """Few pairs and probes, and networks that are loaded once."""
    patch.setattr(probes, "Landmarker", lambda: landmarker)
    patch.setattr(probes, "FaceNet", lambda: face_net)
    patch.setattr(pairs, "_POOL", 3)
    patch.setattr(learner, "_KEPT", 2)
    patch.setattr(probes, "_PROBES", (("laugh", "offset"), ("look-around", "turn")))
