"""Settings of a run as controls: one for each field of AnimateConfig, with the field's label, help and range."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ImageColor

from mimik.config import AVATAR_SUFFIX, BLUR, MODELS, REGIONS, TRANSPARENT, AnimateConfig, InputError, options_of

PHOTOS_OWN, COLOR, PICTURE = "as the photo", "a color", "a picture"  # choices of the background
_BACKGROUNDS = {PHOTOS_OWN: None, "blurred": BLUR, "transparent": TRANSPARENT, COLOR: COLOR, PICTURE: PICTURE}
_AUTOMATIC = "automatic"  # choice for None as the default
FIELDS: dict[str, Any] = typing.get_type_hints(AnimateConfig)
DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(AnimateConfig)}


OPTIONS = options_of(AnimateConfig)
GROUPS = {
    "Motion": ("strength", "smooth", "regions", "motion"),
    "Driver": ("neutral", "driver_face", "drive_by", "seconds", "seed"),
    "Picture": ("face", "background", "frame", "scene", "size", "teeth"),
    "File": ("fps", "quality", "audio", "model", "device"),
    "Provenance": ("label", "consent"),
}
# Fields whose choices differ from the command line: label, and value of the field.
_CHOICES: dict[str, Mapping[str, Any]] = {
    "background": _BACKGROUNDS,
    "regions": {name: name for name in REGIONS},
    "model": {name: name for name in MODELS},
}
_OBVIOUS = ("regions", "teeth", "background", "audio", "label")  # without help text
# Fields with fewer choices than on the command line.
_INFO = {
    "model": "texture uses the network; geometry only warps the photo, and is faster.",
    "face": "1 is the widest; the widest if omitted.",
    "driver_face": "1 is the widest; the widest if omitted.",
}


def choices_of(name: str) -> Mapping[str, Any] | None:
    """Labels and values of a field with choices; None if it has none."""
    return _CHOICES.get(name) or {one: one for one in OPTIONS[name].choices} or None


def is_optional(name: str) -> bool:
    """Whether the field may be None."""
    kind = FIELDS[name]
    return isinstance(kind, types.UnionType) and type(None) in typing.get_args(kind)


def plain_type(name: str) -> Any:
    """The field's type without None."""
    kind = FIELDS[name]
    return next(one for one in typing.get_args(kind) if one is not type(None)) if is_optional(name) else kind


def control(gr: Any, name: str, *, prefix: str = "set") -> Any:
    """The gradio component of a field, set to the field's default."""
    option, kind, default, choices = OPTIONS[name], plain_type(name), DEFAULTS[name], choices_of(name)
    info = None if name in _OBVIOUS else _INFO.get(name) or plain(option.help)
    about: dict[str, Any] = {"label": option.label, "info": info, "elem_id": f"{prefix}-{name}"}
    if choices is not None:
        labels = list(choices)
        if typing.get_origin(kind) is tuple:
            return gr.CheckboxGroup(labels, value=list(default), **about)
        if is_optional(name) and None not in choices.values():
            labels = [_AUTOMATIC, *labels]
        shown = next((label for label, value in choices.items() if value == default), _AUTOMATIC)
        return gr.Dropdown(labels, value=shown, filterable=False, **about)
    if kind is bool:
        return gr.Checkbox(default, **about)
    if kind in (int, float):
        if not is_optional(name) and option.range and option.range[1] <= 100:
            return gr.Slider(*option.range, default, step=1 if kind is int else 0.05, **about)
        if not is_optional(name):
            return gr.Number(default, precision=0 if kind is int else None, **about)
        # gradio's Number shows None as 0.
        return gr.Textbox("" if default is None else str(default), placeholder=option.empty, max_lines=1, **about)
    return gr.Textbox(default or "", max_lines=1, **about)


def value_of(name: str, shown: Any) -> Any:
    """Convert the value of a control to that of the field."""
    choices, kind = choices_of(name), plain_type(name)
    if typing.get_origin(kind) is tuple:
        chosen = tuple(shown or ())
        return tuple(one for one in choices if one in chosen) if choices else chosen
    if choices is not None:
        return None if shown == _AUTOMATIC else choices[shown]
    if kind is str:
        return shown.strip() or None if is_optional(name) and shown is not None else shown
    if kind is bool:
        return bool(shown)
    return _number_of_text(name, kind, str(shown).strip() if shown is not None else "")


def _number_of_text(name: str, kind: Any, text: str) -> Any:
    """Raises:
    InputError: if the text is not a number.
    """
    label, may_be_empty = OPTIONS[name].label, is_optional(name)
    if not text and may_be_empty:
        return None
    try:
        number = float(text)
        if kind is int and not number.is_integer():
            raise ValueError
        return kind(number)
    except (ValueError, OverflowError):
        what = "an integer" if kind is int else "a number"
        raise InputError(f"“{label}” {text}: use {what}{', or leave it empty' if may_be_empty else ''}.") from None


def background_of(background: str | None, color: str | None, picture: str | None) -> str | None:
    """The background from the three controls; a text never names a file.

    Raises InputError if a picture or a color is selected but missing.
    """
    if background == PICTURE:
        if not picture:
            raise InputError("No background picture: add one, or choose another background.")
        return picture
    if background == COLOR:
        return _hex_color(color)
    if background is None or background in (BLUR, TRANSPARENT):
        return background
    return _hex_color(background)


def _hex_color(color: str | None) -> str:
    """A color as #rrggbb. Raises InputError if it is not a color."""
    # gradio's color picker emits rgba(r, g, b, a) with fractions.
    if numbers := re.fullmatch(r"rgba?\(\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+).*\)", color or ""):
        return "#" + "".join(f"{min(255, round(float(one))):02x}" for one in numbers.groups())
    try:
        return "#" + "".join(f"{one:02x}" for one in ImageColor.getrgb(color or "")[:3])
    except ValueError:
        raise InputError(
            f"Background {color or 'without a color'}: use a color such as white or #00ff00, none, or blur."
        ) from None


def plain(sentence: str, *, for_programs: bool = False) -> str:
    """Adapt a message of the command line for the page: no options, and no folders of this computer.

    Args: for_programs: replace options by parameter names instead of labels of controls.
    """

    def label(match: re.Match[str]) -> str:
        name = match[1].replace("-", "_")
        if for_programs:
            return name
        return f"“{OPTIONS[name].label}”" if name in OPTIONS else match[0]

    sentence = re.sub(r"--([a-z][a-z-]+)", label, sentence)
    sentence = re.sub(r"(?<![\w./])/(?:[^\s/:,;]+/)+", "", sentence)
    sentence = sentence.removeprefix("-o ")
    return sentence if for_programs else sentence[:1].upper() + sentence[1:]


def values_of(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values of controls, by field name, to those of the fields."""
    return {name: value_of(name, value) for name, value in shown.items()}


def config_of(values: Mapping[str, Any], *, model: str | None, photo: str | None = None) -> AnimateConfig:
    """Settings of a run from values of fields. Raises InputError if one is invalid.

    Args: model: of the server; used if none is chosen, and the photo is not an .avatar file with its own model.
    """
    has_own = photo is not None and Path(photo).suffix.lower() == AVATAR_SUFFIX
    chosen = values.get("model") or (None if has_own else model)
    return AnimateConfig(**{**values, "model": chosen})
