"""Presets as JSON, as stored in releases, avatars and training states."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any

from mimik.config import ModelError, Preset


def preset_to_json(preset: Preset) -> str:
    """One line of JSON; preset_from_json reads it."""
    return json.dumps(dataclasses.asdict(preset))


def preset_from_json(text: str) -> Preset:
    """Parse and validate a preset. Fields with a default may be missing, as in files of older versions.

    Raises ModelError on invalid JSON, an unknown or missing field, or a value of the wrong type.
    """
    try:
        return _from_plain(Preset, json.loads(text), "preset")
    except (ValueError, RecursionError) as error:
        raise ModelError(f"its settings are invalid ({error})") from None


def _from_plain(kind: Any, value: Any, name: str) -> Any:
    """Convert a value from json.loads to a dataclass or another type of the settings."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        fields = {field.name: field for field in dataclasses.fields(kind)}
        hints = typing.get_type_hints(kind)
        # Files of 0.1 and 0.2 spell it with an s.
        value = {"synthesized" if key == "synthesised" else key: item for key, item in value.items()}
        if unknown := sorted(value.keys() - fields.keys()):
            raise ValueError(f"{name} has an unknown field {unknown[0]!r}")
        known = {key: _from_plain(hints[key], item, f"{name}.{key}") for key, item in value.items()}
        missing = [key for key, field in fields.items() if key not in known and field.default is dataclasses.MISSING]
        if missing:
            raise ValueError(f"{name} has no field {missing[0]!r}")
        return kind(**known)  # type: ignore[operator]
    if origin is types.UnionType:  # .. | None
        return None if value is None else _from_plain(args[0], value, name)
    if origin is tuple and isinstance(value, list) and len(value) == len(args):
        return tuple(_from_plain(arg, item, name) for arg, item in zip(args, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {key: _from_plain(args[1], item, f"{name}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise ValueError(f"{name} is {str(value)[:40]!r}")
