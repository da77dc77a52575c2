"""The pictures of a person that an export holds, and what export.json says of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mimik.app.export.stage import Stage
from mimik.face.landmarks import Image
from mimik.inference.avatar_file import encoded_png
from mimik.rendering.layers.canvas import Canvas

_RIM_PX = 8  # of the photo around what moves: what is moved in from there


def person_record(stage: Stage) -> dict[str, Any]:
    """What export.json says of a person: names and places of the pictures, and where the network's window is."""
    about: dict[str, Any] = {
        "photo": "photo.png",
        "width": stage.picture.shape[1],
        "height": stage.picture.shape[0],
        "crop": dataclasses.asdict(stage.warper.crop),
        "window": dataclasses.asdict(stage.window_at(stage.face.points)),
        "scale": stage.scale,
        "grey": stage.is_gray,
    }
    if stage.config.form == "texture":
        about |= {"moving": "moving.png", "lit": "lit.png", "part": _place(_moving_part(stage.picture, stage, 1.0))}
        about["plate"] = None if stage.scene is None else "plate.png"
        about |= {"reduced": "reduced.png", "reduced_lit": "reduced_lit.png"}
        about["reduced_matte"] = None if stage.matte is None else "reduced_matte.png"
        about["reduced_part"] = _place(_moving_part(stage.reduced, stage, stage.scale))
    return about


def person_files(stage: Stage) -> dict[str, bytes]:
    """The pictures that person_record names, as PNG files."""
    files = {"photo.png": stage.picture}
    if stage.config.form == "texture":
        part = _moving_part(stage.picture, stage, 1.0)
        moving = part.part(stage.moving)
        matte = np.full(moving.shape[:2], 255, np.uint8) if stage.matte is None else part.part(stage.matte)
        files["moving.png"], files["lit.png"] = np.dstack([moving, matte]), part.part(stage.lit)
        if stage.scene is not None:
            files["plate.png"] = part.part(stage.scene.plate)
        smaller = _moving_part(stage.reduced, stage, stage.scale)
        files["reduced.png"], files["reduced_lit.png"] = smaller.part(stage.reduced), smaller.part(stage.reduced_lit)
        if stage.reduced_matte is not None:
            files["reduced_matte.png"] = np.repeat(smaller.part(stage.reduced_matte)[..., None], 3, -1)
    return {name: encoded_png(picture).tobytes() for name, picture in files.items()}


def _moving_part(picture: Image, stage: Stage, scale: float) -> Canvas:
    """The part of a picture, scale times as large as the photo, that moves, and a rim around it."""
    height, width = picture.shape[:2]
    canvas = Canvas.of(picture, stage.warper.crop.scaled(scale))
    left, top = max(canvas.left - _RIM_PX, 0), max(canvas.top - _RIM_PX, 0)
    right = min(canvas.left + canvas.size[0] + _RIM_PX, width)
    bottom = min(canvas.top + canvas.size[1] + _RIM_PX, height)
    return Canvas(canvas.crop, left, top, (right - left, bottom - top))


def _place(part: Canvas) -> dict[str, int]:
    return {"left": part.left, "top": part.top, "width": part.size[0], "height": part.size[1]}
