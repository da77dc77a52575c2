"""What can be clicked on without bringing a file: CC0 portraits, and moving pictures of the bundled motions."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mimik.motion.drivers import registry

_PORTRAIT_NAMES = {  # of the files in assets/portraits
    "eileen_collins": "Eileen Collins, NASA",
    "generated_woman_1": "Nobody real",
    "generated_woman_2": "Nobody real",
    "generated_man_1": "Nobody real",
}


def folders() -> list[Path]:
    """Where the examples lie; nothing else does."""
    assets = Path(str(resources.files("mimik").joinpath("assets")))
    return [assets / "portraits", assets / "motions"]


def portraits() -> list[tuple[str, str]]:
    """Pictures that ship with the program, and what they are called."""
    found = {path.stem: path for path in folders()[0].iterdir() if path.suffix in (".png", ".jpg")}
    return [(str(found[stem]), name) for stem, name in _PORTRAIT_NAMES.items() if stem in found]


def motion_previews() -> list[tuple[str, str]]:
    """A moving picture of each driver without a file, and its name; tools/make_previews.py makes them."""
    files = ((folders()[1] / f"{name}.webp", name) for name in registry.names())
    return [(str(file), name) for file, name in files if file.is_file()]
