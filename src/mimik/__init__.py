"""mimik: one photo of a person in, a talking head out.

>>> import mimik
>>> mimik.Avatar.from_photos(["photo.jpg"]).render("talk", "out.mp4")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mimik.config import VERSION, InputError, MediaError, ModelError, NoFaceError

if TYPE_CHECKING:
    from mimik.animation.avatar import Avatar
    from mimik.animation.report import Report

__version__ = VERSION

__all__ = ["Avatar", "InputError", "MediaError", "ModelError", "NoFaceError", "Report", "__version__"]


def __getattr__(name: str) -> Any:
    """Avatar and Report, when they are asked for: training machines have nothing installed that opens media."""
    if name == "Avatar":
        from mimik.animation.avatar import Avatar

        return Avatar
    if name == "Report":
        from mimik.animation.report import Report

        return Report
    raise AttributeError(f"module 'mimik' has no attribute {name!r}")
