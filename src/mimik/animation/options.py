"""The keyword options of Avatar's methods: their types, how they become settings, and how mistakes in them are told."""

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
    """What draws the person, what of the photo is shown, and how large."""

    model: str | None
    """"texture", "geometry", or a .safetensors file; None: the person's own."""
    device: str
    """Where the networks run: "auto" (a GPU if torch finds one), "cpu" or "cuda"."""
    size: int | Literal["native"] | None
    """Pixels of the longer side; "native" or None: the photo's own."""
    frame: str
    """"full" or "crop", a square around the head."""
    scene: str
    """"auto": the background stands still where it can be told from the person; "warp": near the head it moves."""
    teeth: str | None
    """One of config.TEETH; None: the person's own, or chosen by the light."""
    label: bool
    """Burn a small visible "AI" into a corner."""


class FrameOptions(ViewOptions, total=False):
    """How a driver moves the person; the defaults are those of AnimateConfig."""

    motion: str
    """"relative" or "absolute"."""
    regions: tuple[str, ...]
    """What moves: any of pose, lips, eyes, brows, gaze."""
    strength: float
    """Multiplies the driver's motion, 0 to 3."""
    neutral: float | None
    """Seconds into the driver at which its face is neutral; None finds it."""
    smooth: float
    """0 (off) to 1 (smoothest)."""
    driver_face: int | None
    """Which face of the driver, 1 is the widest."""
    fps: float | None
    """Frames a second; None: the driver's own. Needed for frames in memory."""
    drive_by: str
    """"picture" or "sound" of a video."""
    seconds: float | None
    """Length: the first seconds of the driver; None: all of it, 10 of "idle"."""
    seed: int
    """Of motion that sound and "idle" generate."""
    background: str | None
    """None: the photo's own; "none" (transparent), "blur", a color, or a picture's file."""


class RenderOptions(FrameOptions, total=False):
    """What a file has besides frames."""

    quality: int
    """x264's constant rate factor, 0 (best) to 51."""
    audio: bool
    """Keep the driver's sound."""
    consent: str | None
    """What you state about the consent of the person shown; goes into the manifest."""


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
    """What is changed in a photo, and how the picture is made."""

    consent: str | None
    """As in RenderOptions."""


_ELSEWHERE = {
    "face": "the face is chosen by Avatar.from_photos(..., face=N)",
    "quality": "it is the quality of a video file",
    "audio": "frames have no sound",
    "consent": "frames carry no manifest",
}


def settings(function: str, accepted: type, options: Mapping[str, Any], config: AnimateConfig | None) -> AnimateConfig:
    """The settings that keyword options make, or those that were given instead.

    Args: function: whose options these are, for messages; accepted: the TypedDict of its options.

    Raises:
        TypeError: on an option that the function does not have, or options besides settings.
        InputError: on a value that is not possible.
    """
    check_names(function, accepted.__annotations__, options)
    if config is None:
        return AnimateConfig(**options)
    if options:
        raise TypeError(f"{function}() got config and {min(options)!r}; give one of them")
    return config


def check_names(function: str, accepted: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raises TypeError on an option that a function does not have."""
    for name in options:
        if name not in accepted:
            near = difflib.get_close_matches(name, accepted, 1)
            hint = _ELSEWHERE.get(name) or (f"did you mean {near[0]!r}?" if near else "")
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}" + (f"; {hint}" if hint else ""))


_OPTION_AND_VALUE = re.compile(r"^(?:--([a-z][a-z-]*)|-o) (.*?)(: |$)")
_OPTION = re.compile(r"--(no-)?([a-z][a-z-]*)|(?<![\w-])-o\b")
_FLAGS = ("force", "label")


@contextmanager
def python_words(config: AnimateConfig | None = None) -> Iterator[None]:
    """Errors inside name options as Python does, `size=20` instead of `--size 20`; with a config given, as they are."""
    try:
        yield
    except InputError as error:
        if config is not None:
            raise
        raise type(error)(in_python_words(str(error))) from error


def in_python_words(message: str) -> str:
    """A message of the command line with its options written as keyword arguments."""

    def first(found: re.Match[str]) -> str:
        return f"{(found[1] or 'out').replace('-', '_')}={found[2]}{found[3]}"

    def other(found: re.Match[str]) -> str:
        if found[0] == "-o":
            return "out"
        if found[1]:
            return f"{found[2].replace('-', '_')}=False"
        return f"{found[2].replace('-', '_')}={'True' if found[2] in _FLAGS else ''}"

    return _OPTION.sub(other, _OPTION_AND_VALUE.sub(first, message))


# Known without loading anything.


_TRANSPARENT_OUTPUTS = (
    "give a .webm or .mov file, a folder for PNG frames, a .webp file, or a .png file where the driver is a photo"
)


def check_model(model: str | None) -> None:
    """Raises ModelError if a model is a file that is not there, or that `mimik train` did not write."""
    if model is not None and model not in MODELS:
        from mimik.networks.release import check_release

        check_release(Path(model))


def check_file_options(out: Path, config: AnimateConfig) -> None:
    """Refuses what a file of this kind cannot have. Raises InputError, naming the option."""
    kind = formats.output_kind(out)
    if config.background == TRANSPARENT and not formats.keeps_alpha(out):
        raise InputError(f"-o {out}: cannot be transparent; {_TRANSPARENT_OUTPUTS}.")
    if kind == "image":
        for option, given in (("--fps", config.fps), ("--smooth", config.smooth != AnimateConfig.smooth)):
            if given:
                raise OptionError(f"{option}: {out.name} is one picture; leave {option} out, or give an .mp4.")
    if config.quality != AnimateConfig.quality and (kind != "video" or out.suffix.lower() == ".gif"):
        raise OptionError(
            f"--quality {config.quality}: is that of a video; {out.name} has none, so leave --quality out."
        )
