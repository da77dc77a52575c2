"""Release files without torch, and constants shared by the networks in torch and on OpenVINO.

A release is a safetensors file: E, P, G and D in float16, their preset, and a record of their training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mimik.config import ModelError, Preset
from mimik.networks.preset_json import preset_from_json

RELEASE_FORMAT = "mimik release 1"
EPS = 1e-4  # of spectral and instance norm; authors' code
MAX_CORRECTION = 0.1  # of the frame's side: largest flow correction of the texture form
ATTENTION_DOWN = 3  # self-attention follows this down block, 32 px of 256 ..
ATTENTION_UP = 2  # .. and this up block of G, 64 px of 256; paper, Sec. 4, and D1 for other sizes


@dataclass(frozen=True)
class Release:
    """A trained model as stored in its file."""

    preset: Preset  # networks, losses and training settings
    record: dict[str, Any]  # steps, data and curve of the training, as meta_learning writes them
    tensors: Mapping[str, NDArray[Any]]  # float16 by names such as "G.down.0.conv1.bias"

    @property
    def num_parameters(self) -> int:
        """Number of parameters of E, P and G, without the vectors of spectral norm."""
        return sum(v.size for k, v in self.tensors.items() if not k.startswith("D.") and not k.endswith(("._u", "._v")))


def check_release(path: Path) -> None:
    """Check by its header that `mimik train` wrote a file.

    Raises ModelError, as read_release does.
    """
    with reading(path), safe_open(path, "np") as file:
        _check_format(file.metadata() or {}, RELEASE_FORMAT)


def _check_format(about: Mapping[str, str], file_format: str) -> None:
    if about.get("format") != file_format:
        raise ModelError(f"its format is {about.get('format')!r}, not {file_format!r}")


def read_tensors(path: Path, file_format: str) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Header and tensors of a safetensors file. Raises ModelError if the header names another format."""
    with safe_open(path, "np") as file:
        about = file.metadata() or {}
        _check_format(about, file_format)
        return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert errors in the block to a ModelError about the release at path."""
    try:
        yield
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; use a model that `mimik train` wrote.") from None
    except (SafetensorError, OSError, ValueError) as error:
        why = str(error).rstrip(".")
        raise ModelError(f"{path}: is damaged or not a model of this program ({why}); download it again.") from None


def read_release(path: Path) -> Release:
    """Read a release. Raises ModelError if the file does not exist, is damaged, or is not a release."""
    with reading(path):
        about, tensors = read_tensors(path, RELEASE_FORMAT)
        if unknown := sorted(about.keys() ^ {"format", "preset", "record"}):
            raise ModelError(f"its header is invalid at {unknown[0]!r}")
        return Release(preset_from_json(about["preset"]), json.loads(about["record"]), tensors)
