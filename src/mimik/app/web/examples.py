"""Examples in the page: CC0 portraits, and previews of the bundled motions."""

from __future__ import annotations

from pathlib import Path

from mimik.files import asset
from mimik.motion.drivers import registry

_PORTRAIT_NAMES = {  # by the stem of the file in assets/portraits
    "eileen_collins": "Eileen Collins, NASA",
    "generated_woman_1": "Synthetic face",
    "generated_woman_2": "Synthetic face",
    "generated_man_1": "Synthetic face",
}


def folders() -> list[Path]:
    """Folders that contain only the examples."""
    return [asset("portraits"), asset("motions")]


def portraits() -> list[tuple[str, str]]:
    """Paths and titles of the bundled portraits."""
    found = {path.stem: path for path in folders()[0].iterdir() if path.suffix in (".png", ".jpg")}
    return [(str(found[stem]), name) for stem, name in _PORTRAIT_NAMES.items() if stem in found]


def motion_previews() -> list[tuple[str, str]]:
    """Preview and name of each bundled driver; the previews are made by tools/make_previews.py."""
    files = ((folders()[1] / f"{name}.webp", name) for name in registry.names())
    return [(str(file), name) for file, name in files if file.is_file()]
