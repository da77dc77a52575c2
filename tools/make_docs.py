"""Writes the pages of the Python interface from its docstrings: `make docs`. A warning is an error."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pdoc

import mimik

MODULES = (
    *("mimik", "mimik.animation.options", "mimik.animation.edit", "mimik.motion.drivers.driver"),
    *("mimik.provenance.credentials", "mimik.provenance.verifying"),
)


def write_pages(out: Path) -> None:
    """HTML pages of MODULES.

    Args: out: the folder to write to.

    Raises:
        Warning: if a docstring or a name cannot be resolved.
    """
    for name in mimik.__all__:  # imported on demand, which pdoc does not do
        setattr(mimik, name, getattr(mimik, name))
    pdoc.render.configure(docformat="google", show_source=False, footer_text=f"mimik {mimik.__version__}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A TypedDict does not know at run time which of its fields it inherits.
        warnings.filterwarnings("ignore", message="Cannot determine where mimik.animation.options")
        pdoc.pdoc(*MODULES, output_directory=out)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "site")
    write_pages(target)
    print(f"{target / 'index.html'}: the Python interface.")
