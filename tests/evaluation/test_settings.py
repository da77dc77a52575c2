"""Invalid settings."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")


from mimik.config import InputError
from mimik.evaluation.settings import EvaluateConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": ()}, "--models : give one name or more"),
        ({"models": ("copy", "copy")}, "each once"),
        ({"shots": (0,)}, "--shots 0: give numbers of photos"),
        ({"holdout": 2}, "--holdout 2: give 3 frames or more"),
        ({"size": 32}, "--size 32: give 64 to 2048"),
        ({"limit": 0}, "--limit 0: give 1 or more"),
        ({"pairs": 0}, "--pairs 0: give 1 or more"),
        ({"learn_seconds": (0, 0.5)}, "--learn-seconds 0,0.5: give rising seconds"),
        ({"learn_seconds": (30, 10)}, "--learn-seconds 30,10: give rising seconds"),
        ({"device": "tpu"}, "--device tpu: give one of auto, cpu, cuda"),
    ],
)
def test_impossible_settings(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EvaluateConfig(**fields)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(InputError, match="torch finds no GPU"):
        EvaluateConfig(device="cuda")
