"""Build the documentation site: the pages of docs/ and the Python interface. Warnings are errors."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pdoc

import mimik

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/**/*.md", "examples/*/README.md", "benchmarks/results/*.md")
MODULES = (
    *("mimik", "mimik.animation.options", "mimik.animation.edit", "mimik.motion.drivers.driver"),
    *("mimik.provenance.credentials", "mimik.provenance.verifying"),
)
SITE = """\
site_name: mimik
docs_dir: pages
theme: readthedocs
strict: true
validation: {links: {not_found: warn, anchors: warn}}
markdown_extensions:
  - tables
  - fenced_code
  - toc:
      slugify: !!python/name:mimik_slugs.slug
nav:
"""
# Anchors as GitHub makes them, and as the pages' links have them.
SLUGS = """\
import re


def slug(heading, separator):
    return re.sub(r"[^\\w\\- ]", "", heading.strip().lower()).replace(" ", "-")
"""


def write_interface(out: Path) -> None:
    """Write HTML pages of MODULES.

    Args: out: the folder to write to.

    Raises Warning if a docstring or a name cannot be resolved.
    """
    for name in mimik.__all__:  # imported on demand, which pdoc does not do
        setattr(mimik, name, getattr(mimik, name))
    pdoc.render.configure(docformat="google", show_source=False, footer_text=f"mimik {mimik.__version__}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A TypedDict does not know at run time which of its fields it inherits.
        warnings.filterwarnings("ignore", message="Cannot determine where mimik.animation.options")
        pdoc.pdoc(*MODULES, output_directory=out)


def stage_pages(stage: Path) -> list[Path]:
    """Copy all pages and the files that they link to into a folder; returns the pages, relative to the root."""
    found = sorted({path.relative_to(ROOT) for pattern in PAGES for path in ROOT.glob(pattern)})
    linked = set(found)
    for page in found:
        for link in re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8")):
            target = (ROOT / page.parent / link).resolve()
            if target.is_file() and target.is_relative_to(ROOT):
                linked.add(target.relative_to(ROOT))
    for path in linked:
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, stage / path)
    return found


def write_site(out: Path) -> None:
    """Build the whole site.

    Args: out: the folder to write to; its content is replaced.

    Raises:
        SystemExit: if MkDocs warns, with its message.
        Warning: as write_interface does.
    """
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        pages = stage_pages(stage / "pages")
        write_interface(stage / "pages" / "python")
        commands = sorted((ROOT / "docs" / "help").glob("*.txt"))
        (stage / "pages" / "docs" / "help").mkdir(exist_ok=True)
        for path in commands:
            shutil.copy(path, stage / "pages" / "docs" / "help")
        links = "".join(f"- [{path.stem.replace('_', ' ')}]({path.name})\n" for path in commands)
        (stage / "pages" / "docs" / "help" / "README.md").write_text(f"# Commands\n\n{links}", encoding="utf-8")
        (stage / "pages" / "interface.md").write_text(
            "# Python interface\n\n[Classes and options](python/mimik.html), from the docstrings.\n", encoding="utf-8"
        )
        guides = [page for page in pages if page.parts[0] == "docs"]
        nav = ["README.md", "interface.md", "docs/help/README.md", *map(str, guides)]
        nav += [str(page) for page in pages if page not in guides and str(page) != "README.md"]
        (stage / "mkdocs.yml").write_text(SITE + "".join(f"  - {page}\n" for page in nav), encoding="utf-8")
        (stage / "mimik_slugs.py").write_text(SLUGS, encoding="utf-8")
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--clean", "-d", str(out.resolve())]
        done = subprocess.run(command, cwd=stage, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "site")
    write_site(target)
    print(f"{target / 'index.html'}: the pages, and the Python interface.")
