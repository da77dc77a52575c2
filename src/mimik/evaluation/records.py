"""Measurements as small JSON files, which are reused while code, clip and model are the same."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mimik.arrays import Array
from mimik.files import write_text

_RECIPE = 1  # version of the protocols; raised when they change, so that older records are not used
MEASURED_BY = ("face", "motion", "rendering", "networks", "inference", "data", "animation", "evaluation")
LEARNED_BY = ("training", "config.py")  # further dependencies of records with fine-tuning


def digest_of(*what: Any) -> str:
    return hashlib.sha256(json.dumps(what, default=str).encode()).hexdigest()[:16]


def code_digest(places: Sequence[str]) -> str:
    """Digest of the code that results depend on.

    Args: places: folders and files of the package; changes elsewhere do not invalidate records.
    """
    root = Path(__file__).parents[1]
    files = [file for place in places for file in sorted((root / place).rglob("*.py"), key=str)]
    files += [root / place for place in places if place.endswith(".py")]
    return digest_of(_RECIPE, *(file.read_text(encoding="utf-8") for file in files))


class Records:
    """The existing records, in JSON files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def get(self, name: str) -> dict[str, Any] | None:
        """The record; None if it is missing or damaged."""
        try:
            record = json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def put(self, name: str, record: Mapping[str, Any]) -> None:
        write_text(self._folder / f"{name}.json", json.dumps(record))


def packed_embeddings(embeddings: Array) -> dict[str, Any]:
    return {"rows": len(embeddings), "float16": base64.b64encode(embeddings.astype(np.float16).tobytes()).decode()}


def unpacked_embeddings(packed: Mapping[str, Any]) -> Array:
    data = np.frombuffer(base64.b64decode(packed["float16"]), np.float16)
    return data.astype(np.float32).reshape(packed["rows"], -1)


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def number_or_none(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
