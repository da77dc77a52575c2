"""Keyword options of Avatar's methods: their types, conversion to settings, and error messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict

from mimik.config import MODELS, TRANSPARENT, AnimateConfig, InputError, OptionError
from mimik.media import formats


class ViewOptions(TypedDict, total=False):
    """Generator, view and size."""

    model: str | None
    """"texture", "geometry", or a .safetensors file; None: the person's own."""
    device: str
    """Where the networks run: "auto" (a GPU if torch finds one), "cpu" or "cuda"."""
    size: int | Literal["native"] | None
    """Pixels of the longer side; "native" or None: the photo's own."""
    frame: str
    """"full" or "crop", a square around the head."""
    scene: str
    """"auto": still background, if it can be separated from the person; "warp": it moves near the head."""
    teeth: str | None
    """One of config.TEETH; None: the person's own, or chosen by the lighting."""
    label: bool
    """Burn a small visible "AI" into a corner."""


class FrameOptions(ViewOptions, total=False):
    """Options of the motion transfer; the defaults are those of AnimateConfig."""

    motion: str
    """"relative" or "absolute"."""
    regions: tuple[str, ...]
    """What moves: any of pose, lips, eyes, brows, gaze."""
    strength: float
    """Multiplies the driver's motion, 0 to 3."""
    neutral: float | None
    """Time in seconds at which the driver's face is neutral; None: found automatically."""
    smooth: float
    """0 (off) to 1 (smoothest)."""
    driver_face: int | None
    """Which face of the driver, 1 is the widest."""
    fps: float | None
    """Frames per second; None: the driver's. Required for frames in memory."""
    drive_by: str
    """Which part of a video drives: "picture" or "sound"."""
    seconds: float | None
    """Seconds of the driver to use, from its start; None: all of it, or 10 s of "idle"."""
    seed: int
    """Random seed of the motion generated from sound and by "idle"."""
    background: str | None
    """None: the photo's own; "none" (transparent), "blur", a color, or the path of a picture."""


class RenderOptions(FrameOptions, total=False):
    """Options of an output file."""

    quality: int
    """x264's constant rate factor, 0 (best) to 51."""
    audio: bool
    """Keep the driver's sound."""
    consent: str | None
    """Your statement about the consent of the person shown; stored in the manifest."""


class Sliders(TypedDict, total=False):
    """The fields of Edit, with their ranges."""

    smile: float
    """-1 (corners down) to 1."""
    mouth: float
    """0 to 1, open."""
    blink: float
    """-1 (wide) to 1, shut."""
    brows: float
    """-1 (down) to 1, raised."""
    gaze_x: float
    """-1 to 1, to the picture's right."""
    gaze_y: float
    """-1 to 1, down."""
    yaw: float
    """-35 to 35 degrees, to the picture's right."""
    pitch: float
    """-20 to 20 degrees, down."""
    roll: float
    """-30 to 30 degrees, clockwise."""


class EditOptions(ViewOptions, Sliders, total=False):
    """Changes to a photo, and options of the output picture."""

    consent: str | None
    """As in RenderOptions."""


_ELSEWHERE = {
    "face": "the face is chosen by Avatar.from_photos(..., face=N)",
    "quality": "it is the quality of a video file",
    "audio": "frames have no sound",
    "consent": "frames carry no manifest",
}


def settings(function: str, accepted: type, options: Mapping[str, Any], config: AnimateConfig | None) -> AnimateConfig:
    """Settings from keyword options, or from config, but not both.

    Args: function: name for messages; accepted: the TypedDict of its options.

    Raises:
        TypeError: on an unknown option, or if both options and config are given.
        InputError: on an invalid value.
    """
    check_names(function, accepted.__annotations__, options)
    if config is None:
        return AnimateConfig(**options)
    if options:
        raise TypeError(f"{function}() got config and {min(options)!r}; pass only one")
    return config


def check_names(function: str, accepted: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raises TypeError on an option that a function does not have."""
    for name in options:
        if name not in accepted:
            near = difflib.get_close_matches(name, accepted, 1)
            hint = _ELSEWHERE.get(name) or (f"did you mean {near[0]!r}?" if near else "")
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}" + (f"; {hint}" if hint else ""))


_OPTION_AND_VALUE = re.compile(r"^(?:--([a-z][a-z-]*)|-o) (.*?)(: |$)")
_OPTION = re.compile(r"--(no-)?([a-z][a-z-]*)(?: (?=\d))?|(?<![\w-])-o\b")
_FLAGS = ("force", "label")


@contextmanager
def python_words(config: AnimateConfig | None = None) -> Iterator[None]:
    """Rewrite InputErrors with Python's option syntax, `size=20` for `--size 20`; unchanged if config is given."""
    try:
        yield
    except InputError as error:
        if config is not None:
            raise
        raise type(error)(in_python_words(str(error))) from error


def in_python_words(message: str) -> str:
    """A command-line message with its options rewritten as keyword arguments."""

    def first(found: re.Match[str]) -> str:
        return f"{(found[1] or 'out').replace('-', '_')}={found[2]}{found[3]}"

    def other(found: re.Match[str]) -> str:
        if found[0] == "-o":
            return "out"
        if found[1]:
            return f"{found[2].replace('-', '_')}=False"
        return f"{found[2].replace('-', '_')}={'True' if found[2] in _FLAGS else ''}"

    return _OPTION.sub(other, _OPTION_AND_VALUE.sub(first, message))


# Checks that load nothing.


_TRANSPARENT_OUTPUTS = (
    "use a .webm or .mov file, a folder for PNG frames, a .webp file, or a .png file where the driver is a photo"
)


def check_model(model: str | None) -> None:
    """Raises ModelError if a model is a missing file, or one that `mimik train` did not write."""
    if model is not None and model not in MODELS:
        from mimik.networks.release import check_release

        check_release(Path(model))


def check_file_options(out: Path, config: AnimateConfig) -> None:
    """Raises InputError if an option does not apply to this kind of output file."""
    kind = formats.output_kind(out)
    if config.background == TRANSPARENT and not formats.keeps_alpha(out):
        raise InputError(f"-o {out}: cannot be transparent; {_TRANSPARENT_OUTPUTS}.")
    if kind == "image":
        for option, given in (("--fps", config.fps), ("--smooth", config.smooth != AnimateConfig.smooth)):
            if given:
                raise OptionError(f"{option}: {out.name} is one picture; omit {option}, or use an .mp4 file.")
    if config.quality != AnimateConfig.quality and (kind != "video" or out.suffix.lower() == ".gif"):
        raise OptionError(f"--quality {config.quality}: applies to videos only; omit it for {out.name}.")
