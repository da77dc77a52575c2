"""The settings of a run as controls: one for each field of AnimateConfig, with its default from there.

A field without a row in the table gets a plain control by its type, so that no setting of the command line is missing.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ImageColor

from mimik.config import (
    AVATAR_SUFFIX,
    BLUR,
    DRIVE_BY,
    FRAMES,
    MODELS,
    MOTION_MODES,
    REGIONS,
    TEETH,
    TRANSPARENT,
    AnimateConfig,
    InputError,
)

PHOTOS_OWN, COLOR, PICTURE = "as the photo", "a color", "a picture"  # backgrounds on the page
_BACKGROUNDS = {PHOTOS_OWN: None, "blurred": BLUR, "transparent": TRANSPARENT, COLOR: COLOR, PICTURE: PICTURE}
_OWN = "automatic"  # of a choice whose default is None
FIELDS: dict[str, Any] = typing.get_type_hints(AnimateConfig)
DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(AnimateConfig)}
EDIT_FIELDS = ("model", "size", "frame", "face", "teeth", "label", "consent")  # that a picture without a driver has


@dataclass(frozen=True)
class Row:
    """How a field is shown.

    Attributes:
        label, hint: for people.
        group: heading under which it stands.
        low, high, step: of a slider.
        choices: what is shown, and the value of the field.
        empty: what an empty box means.
    """

    label: str
    hint: str = ""
    group: str = "More"
    low: float | None = None
    high: float = 1.0
    step: float = 0.05
    choices: Mapping[str, Any] | None = None
    empty: str = "automatic"


ROWS: dict[str, Row] = {
    "strength": Row("Strength", "How strongly the driver moves the person; 1 is the driver's own.", "Motion", 0, 3),
    "smooth": Row("Smoothing", "0 is off; 1 is smoothest and adds latency.", "Motion", 0, 1),
    "neutral": Row(
        "Neutral face of the driver",
        "Seconds into the driver at which its face is at rest.",
        "Driver",
        empty="found, region by region",
    ),
    "regions": Row("What moves", group="Motion", choices={name: name for name in REGIONS}),
    "motion": Row(
        "Head pose",
        "relative: the driver's change is put on the photo. absolute: the driver's own pose is taken.",
        "Motion",
        choices={name: name for name in MOTION_MODES},
    ),
    "face": Row("Face of the photo", "1 is the widest.", "Picture", empty="the widest"),
    "driver_face": Row("Face of the driver", "1 is the widest.", "Driver", empty="the widest"),
    "background": Row("Background", group="Picture", choices=_BACKGROUNDS),
    "frame": Row(
        "View",
        "full: the whole photo. crop: a square around the head.",
        "Picture",
        choices={name: name for name in FRAMES},
    ),
    "size": Row("Size", "Pixels of the longer side, 64 to 4096.", "Picture", empty="as the photo"),
    "drive_by": Row(
        "What of a video drives",
        "picture: what it shows. sound: what is heard.",
        "Driver",
        choices={name: name for name in DRIVE_BY},
    ),
    "seconds": Row("Length", "Seconds, of idle life; other drivers have their own.", "Driver", empty="10"),
    "seed": Row("Seed", "Another number makes other head motion and blinks of a voice.", "Driver"),
    "teeth": Row(
        "Teeth",
        "Where no photo shows the person's own: a set that comes along.",
        "Picture",
        choices={name: name for name in TEETH},
    ),
    "fps": Row("Frames a second", "1 to 120.", "File", empty="the driver's own"),
    "quality": Row(
        "Quality", "x264's constant rate factor: 0 is best, 18 looks lossless, 51 is worst.", "File", 0, 51, 1
    ),
    "audio": Row("Take the driver's sound along", group="File"),
    "label": Row('Burn a small visible "AI" into a corner', group="Provenance"),
    "consent": Row(
        "Consent of the person shown",
        "What you state about it, in the signed manifest for all to read. Example: She agreed in writing on 3 May.",
        "Provenance",
    ),
    "model": Row(
        "Generator", "geometry warps the photo without a network.", "File", choices={name: name for name in MODELS}
    ),
}
GROUPS = ("Motion", "Driver", "Picture", "File", "Provenance", "More")


def row_of(name: str) -> Row:
    """How a field is shown; a plain row where the table has none."""
    return ROWS.get(name) or Row(name.replace("_", " ").capitalize())


def is_optional(name: str) -> bool:
    """Whether None is a value of the field."""
    kind = FIELDS[name]
    return isinstance(kind, types.UnionType) and type(None) in typing.get_args(kind)


def plain_type(name: str) -> Any:
    """The field's type without None."""
    kind = FIELDS[name]
    return next(one for one in typing.get_args(kind) if one is not type(None)) if is_optional(name) else kind


def control(gr: Any, name: str, *, prefix: str = "set") -> Any:
    """The gradio component of a field; its value is the field's default."""
    row, kind, default = row_of(name), plain_type(name), DEFAULTS[name]
    about: dict[str, Any] = {"label": row.label, "info": row.hint or None, "elem_id": f"{prefix}-{name}"}
    if row.choices is not None:
        labels = list(row.choices)
        if typing.get_origin(kind) is tuple:
            return gr.CheckboxGroup(labels, value=list(default), **about)
        if is_optional(name) and None not in row.choices.values():
            labels = [_OWN, *labels]
        shown = next((label for label, value in row.choices.items() if value == default), _OWN)
        return gr.Dropdown(labels, value=shown, filterable=False, **about)
    if kind is bool:
        return gr.Checkbox(default, **about)
    if kind in (int, float):
        if row.low is not None:
            return gr.Slider(row.low, row.high, default, step=row.step, **about)
        if not is_optional(name):
            return gr.Number(default, precision=0 if kind is int else None, **about)
        # gradio's box for numbers shows none as 0.
        return gr.Textbox("" if default is None else str(default), placeholder=row.empty, max_lines=1, **about)
    return gr.Textbox(default or "", max_lines=1, **about)


def value_of(name: str, shown: Any) -> Any:
    """What a control shows, as the field's value."""
    row, kind = row_of(name), plain_type(name)
    if typing.get_origin(kind) is tuple:
        chosen = tuple(shown or ())
        return tuple(one for one in row.choices if one in chosen) if row.choices else chosen
    if row.choices is not None:
        return None if shown == _OWN else row.choices[shown]
    if kind is str:
        return shown.strip() or None if is_optional(name) and shown is not None else shown
    if kind is bool:
        return bool(shown)
    return _number(row.label, kind, str(shown).strip() if shown is not None else "", is_optional(name))


def _number(label: str, kind: Any, text: str, may_be_empty: bool) -> Any:
    """Raises:
    InputError: if the text is not a number.
    """
    if not text and may_be_empty:
        return None
    try:
        number = float(text)
        if kind is int and not number.is_integer():
            raise ValueError
        return kind(number)
    except (ValueError, OverflowError):
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"“{label}” {text}: give {what}{', or leave it empty' if may_be_empty else ''}.") from None


def background_of(background: str | None, color: str | None, picture: str | None) -> str | None:
    """What stands behind the person, of the three controls that say so.

    A text never names a file: only what a visitor uploaded can be read.

    Raises:
        InputError: if a picture or a color is asked for and there is none.
    """
    if background == PICTURE:
        if not picture:
            raise InputError("There is no background picture yet: give one, or choose another background.")
        return picture
    if background == COLOR:
        return _hex_color(color)
    if background is None or background in (BLUR, TRANSPARENT):
        return background
    return _hex_color(background)


def _hex_color(color: str | None) -> str:
    """A color as #rrggbb.

    Raises:
        InputError: if it is none.
    """
    # gradio's color picker writes rgba(r, g, b, a) with fractions.
    if numbers := re.fullmatch(r"rgba?\(\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+).*\)", color or ""):
        return "#" + "".join(f"{min(255, round(float(one))):02x}" for one in numbers.groups())
    try:
        return "#" + "".join(f"{one:02x}" for one in ImageColor.getrgb(color or "")[:3])
    except ValueError:
        raise InputError(
            f"Background {color or 'without a color'}: give a color such as white or #00ff00, none, or blur."
        ) from None


def plain(sentence: str, *, for_programs: bool = False) -> str:
    """A sentence of the command line for somebody who has none: no options, and no folders of this computer.

    Args:
        sentence: as the command line prints it.
        for_programs: options become the names of parameters, not the labels of controls.
    """

    def label(match: re.Match[str]) -> str:
        name = match[1].replace("-", "_")
        if for_programs:
            return name
        return f"“{row_of(name).label}”" if name in FIELDS else match[0]

    sentence = re.sub(r"--([a-z][a-z-]+)", label, sentence)
    sentence = re.sub(r"(?<![\w./])/(?:[^\s/:,;]+/)+", "", sentence)
    sentence = sentence.removeprefix("-o ")
    return sentence if for_programs else sentence[:1].upper() + sentence[1:]


def values_of(shown: Mapping[str, Any]) -> dict[str, Any]:
    """What controls show, by the field's name, as the fields' values."""
    return {name: value_of(name, value) for name, value in shown.items()}


def config_of(values: Mapping[str, Any], *, model: str | None, photo: str | None = None) -> AnimateConfig:
    """The settings of a run.

    Args:
        values: of fields; what is missing has its default.
        model: of the server; taken where none is chosen, and the photo is no learned person with its own.
        photo: the file that is animated.

    Raises:
        InputError: if a value cannot be used.
    """
    has_own = photo is not None and Path(photo).suffix.lower() == AVATAR_SUFFIX
    chosen = values.get("model") or (None if has_own else model)
    return AnimateConfig(**{**values, "model": chosen})
