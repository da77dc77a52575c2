"""Pictures of a person in an export, and their record in export.json."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.app.export.stage import Stage
from mimik.face.landmarks import Image
from mimik.inference.avatar_file import encoded_png
from mimik.inference.windows import reduced
from mimik.rendering.layers.canvas import Canvas

_RIM_PX = 8  # margin around the moving part, from which pixels can be warped in


def person_files(stage: Stage) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Record of a person for export.json, with positions of the pictures and of the window; and PNG files."""
    about: dict[str, Any] = {
        "photo": "photo.png",
        "width": stage.picture.shape[1],
        "height": stage.picture.shape[0],
        "crop": dataclasses.asdict(stage.warper.crop),
        "window": dataclasses.asdict(stage.window_at(stage.face.points)),
        "scale": stage.scale,
        "grey": stage.is_gray,
    }
    pictures: dict[str, NDArray[np.uint8] | None] = {"photo": stage.picture}
    if stage.config.form == "texture":
        part, smaller = _moving_part(stage.picture, stage, 1.0), _moving_part(stage.reduced, stage, stage.scale)
        moving = part.part(stage.moving)
        matte = np.full(moving.shape[:2], 255, np.uint8) if stage.matte is None else part.part(stage.matte)
        pictures |= {"moving": np.dstack([moving, matte]), "lit": part.part(stage.lit)}
        about |= {"moving": "moving.png", "lit": "lit.png", "part": _place(part)}
        pictures |= {"plate": None if stage.scene is None else part.part(stage.scene.plate)}
        pictures |= {"reduced": smaller.part(stage.reduced)}
        pictures |= {"reduced_lit": smaller.part(reduced(stage.lit, stage.scale)), "reduced_matte": None}
        if stage.matte is not None:
            matte = smaller.part(reduced(stage.matte, stage.scale))
            pictures["reduced_matte"] = np.repeat(matte[..., None], 3, -1)
        for name in ("plate", "reduced", "reduced_lit", "reduced_matte"):
            about[name] = None if pictures[name] is None else f"{name}.png"
        about["reduced_part"] = _place(smaller)
    shown = {f"{name}.png": picture for name, picture in pictures.items() if picture is not None}
    return about, {name: encoded_png(picture).tobytes() for name, picture in shown.items()}


def _moving_part(picture: Image, stage: Stage, scale: float) -> Canvas:
    """The moving part of a picture and a margin around it; the picture is scaled by `scale` relative to the photo."""
    height, width = picture.shape[:2]
    canvas = Canvas.of(picture, stage.warper.crop.scaled(scale))
    left, top = max(canvas.left - _RIM_PX, 0), max(canvas.top - _RIM_PX, 0)
    right = min(canvas.left + canvas.size[0] + _RIM_PX, width)
    bottom = min(canvas.top + canvas.size[1] + _RIM_PX, height)
    return Canvas(canvas.crop, left, top, (right - left, bottom - top))


def _place(part: Canvas) -> dict[str, int]:
    return {"left": part.left, "top": part.top, "width": part.size[0], "height": part.size[1]}
