"""What an export is asked for, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mimik.config import PHOTO_FACE, SIZE, InputError, Option, check_options

EXPORT_FORMAT = "mimik export 2"
PRECISIONS = ("fp32", "fp16", "int8")
RECORD_NAME = "export.json"
OPSET = 17


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of one `mimik export` run; every message names the option that it is about."""

    format: Annotated[str, Option("onnx.", "NAME", choices=("onnx",))] = "onnx"
    precision: Annotated[
        str, Option("fp32; fp16, half as large; int8, a quarter, and coarser.", "NAME", choices=PRECISIONS)
    ] = "fp32"
    photo: Annotated[
        Path | None,
        Option("The person, for a model: built into the graph. Without one the embedder is exported too.", "PHOTO"),
    ] = None
    face: Annotated[int | None, PHOTO_FACE] = None
    motions: Annotated[
        tuple[str, ...],
        Option(
            "A bundled motion or a .motion file, put on the person, for examples/browser; may be given again.",
            "MOTION",
            "--motion",
        ),
    ] = ()
    size: Annotated[int | None, SIZE] = 512

    def __post_init__(self) -> None:
        check_options(self)
        if self.face is not None and self.photo is None:
            raise InputError(f"--face {self.face}: goes with --photo; leave it out, or give a photo.")


@dataclass(frozen=True)
class Difference:
    """How far one output of a graph is from torch's, over all frames that were compared."""

    largest: float  # of the absolute difference
    mean: float  # of the absolute difference
    span: float  # of torch's values: largest minus smallest
    apart: float  # how far torch's values of two frames are apart, at most; 0: the output does not depend on the input


@dataclass(frozen=True)
class Graph:
    """One exported network."""

    name: str  # "generator" or "embedder"
    data: bytes  # the ONNX file
    precision: str  # one of PRECISIONS
    multiply_adds: int  # of convolutions and matrix products, for one call
    parameters: int  # numbers that it holds
    parity: dict[str, Difference]  # by output

    @property
    def file(self) -> str:
        return f"{self.name}.onnx"


@dataclass(frozen=True)
class Exported:
    """What one run wrote."""

    folder: Path  # where
    graphs: tuple[Graph, ...]  # in it
    motions: tuple[tuple[str, int], ...]  # name and bytes of each motion
    notes: tuple[str, ...]  # what the user should know
