"""mimik: one photo of a person in, a talking head out.

>>> import mimik
>>> mimik.Avatar.from_photos("photo.jpg").render("talk", "out.mp4")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mimik.config import VERSION, AnimateConfig, InputError, MediaError, ModelError, NoFaceError, OptionError

if TYPE_CHECKING:
    from mimik.animation.avatar import Avatar, render_all_faces
    from mimik.animation.avatar import edit_photo as edit
    from mimik.animation.edit import Edit
    from mimik.animation.report import Report
    from mimik.motion.files import Motion

__version__ = VERSION

__all__ = [
    "AnimateConfig",
    "Avatar",
    "Edit",
    "InputError",
    "MediaError",
    "ModelError",
    "Motion",
    "NoFaceError",
    "OptionError",
    "Report",
    "__version__",
    "edit",
    "render_all_faces",
]

# Imported lazily, because training machines may lack the packages that open media.
_LATER = {
    "Avatar": ("mimik.animation.avatar", "Avatar"),
    "Edit": ("mimik.animation.edit", "Edit"),
    "Motion": ("mimik.motion.files", "Motion"),
    "Report": ("mimik.animation.report", "Report"),
    "render_all_faces": ("mimik.animation.avatar", "render_all_faces"),
    "edit": ("mimik.animation.avatar", "edit_photo"),
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        module, attribute = _LATER[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'mimik' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
