"""Settings and result of an export."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mimik.config import AVATAR_SUFFIX, MODEL_SUFFIX, PHOTO_FACE, SIZE, InputError, ModelError, Option, check_options
from mimik.files import can_write_in
from mimik.media import formats
from mimik.motion.kinds import check_driver

EXPORT_FORMAT = "mimik export 4"
PRECISIONS = ("fp32", "fp16", "int8")
RECORD_NAME = "export.json"
OPSET = 17
_EXPORT_SUFFIXES = (".onnx", ".png", ".gz", ".json")  # suffixes of the files in an export's folder


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of one `mimik export` run; error messages name the option."""

    format: Annotated[str, Option("onnx.", "NAME", choices=("onnx",))] = "onnx"
    precision: Annotated[
        str,
        Option("fp32; fp16, half as large; int8, a quarter of the size and less accurate.", "NAME", choices=PRECISIONS),
    ] = "fp32"
    photo: Annotated[
        Path | None,
        Option("The person, for a model: built into the graph. Without one the embedder is exported too.", "PHOTO"),
    ] = None
    face: Annotated[int | None, PHOTO_FACE] = None
    motions: Annotated[
        tuple[str, ...],
        Option(
            "A bundled motion or a .motion file, retargeted to the person for examples/browser; may be repeated.",
            "MOTION",
            "--motion",
        ),
    ] = ()
    size: Annotated[int | None, SIZE] = 512

    def __post_init__(self) -> None:
        check_options(self)
        if self.face is not None and self.photo is None:
            raise InputError(f"--face {self.face}: requires --photo; omit it, or pass a photo.")


def check_export(what: str, out: Path, config: ExportConfig, *, force: bool) -> None:
    """Reject invalid arguments of exporting.export before anything is loaded.

    Raises InputError with the reason.
    """
    path = Path(what)
    is_avatar = path.suffix.lower() == AVATAR_SUFFIX
    if not is_avatar and what != "texture" and path.suffix.lower() != MODEL_SUFFIX:
        raise InputError(
            f"{what}: is not a model; use texture, a {MODEL_SUFFIX} file of `mimik train` or an {AVATAR_SUFFIX} file "
            "of `mimik learn`; pass a photo with --photo."
        )
    if is_avatar and config.photo is not None:
        raise InputError(f"--photo {config.photo}: {path.name} already contains a person; omit --photo.")
    if is_avatar and not path.is_file():
        raise ModelError(f"{path}: no such file; use an avatar that `mimik learn` wrote.")
    if not is_avatar and what != "texture":
        from mimik.networks.release import check_release

        check_release(path)
    if config.photo is not None:
        formats.check_input(config.photo)
    for motion in config.motions:
        check_driver(motion)
    if config.motions and not is_avatar and config.photo is None:
        raise InputError(f"--motion {config.motions[0]}: needs a person; pass --photo, or use an {AVATAR_SUFFIX} file.")
    check_export_folder(out, force=force, inputs=[path, *([config.photo] if config.photo else [])])


def check_export_folder(out: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Reject, before the work, an output folder that is not writable, or that contains files that are not of an export.

    Raises InputError with the reason.
    """
    parent = out.absolute().parent
    if not parent.is_dir():
        raise InputError(f"-o {out}: the folder {out.parent} does not exist; create it first, or use another name.")
    if not can_write_in(parent):
        raise InputError(f"-o {out}: the folder {out.parent} is not writable; use another one.")
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise InputError(f"-o {out}: is a file; use the name of a folder.")
    names = sorted(path.name for path in out.iterdir())
    if not names:
        return
    if RECORD_NAME not in names or not all(name.endswith(_EXPORT_SUFFIXES) for name in names):
        raise InputError(f"-o {out}: contains other files; use a new or empty folder.")
    if not force:
        raise InputError(f"-o {out}: contains an export; pass --force to replace it, or use another name.")
    if any(path.resolve().parent == out.resolve() for path in inputs):
        raise InputError(f"-o {out}: contains a file of this run; use another folder.")


@dataclass(frozen=True)
class Difference:
    """Difference between an output of a graph and that of torch, over all compared frames."""

    largest: float  # absolute difference
    mean: float  # absolute difference
    span: float  # range of torch's values: largest minus smallest
    apart: float  # largest change of torch's values between frames; 0: the output does not depend on the input


@dataclass(frozen=True)
class Graph:
    """One exported network."""

    name: str  # "generator" or "embedder"
    data: bytes  # the ONNX file
    precision: str  # one of PRECISIONS
    multiply_adds: int  # multiply-adds of convolutions and matrix products per call
    parameters: int  # number of parameters
    parity: dict[str, Difference]  # by output name

    @property
    def file(self) -> str:
        return f"{self.name}.onnx"


@dataclass(frozen=True)
class Exported:
    """Result of one run."""

    folder: Path  # the output folder
    graphs: tuple[Graph, ...]  # in the folder
    motions: tuple[tuple[str, int], ...]  # name and size in bytes of each motion
    notes: tuple[str, ...]  # messages for the user
