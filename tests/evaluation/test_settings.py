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
        ({"models": ()}, "--models : list one or more names"),
        ({"models": ("copy", "copy")}, "each once"),
        ({"shots": (0,)}, "--shots 0: list numbers of photos"),
        ({"holdout": 2}, "--holdout 2: use 3 or more frames"),
        ({"size": 32}, "--size 32: use 64 to 2048"),
        ({"limit": 0}, "--limit 0: use 1 or more"),
        ({"pairs": 0}, "--pairs 0: use 1 or more"),
        ({"learn_seconds": (0, 0.5)}, "--learn-seconds 0,0.5: use increasing seconds"),
        ({"learn_seconds": (30, 10)}, "--learn-seconds 30,10: use increasing seconds"),
        ({"device": "tpu"}, "--device tpu: use one of auto, cpu, cuda"),
    ],
)
def test_impossible_settings(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EvaluateConfig(**fields)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(InputError, match="torch finds no GPU"):
        EvaluateConfig(device="cuda")
