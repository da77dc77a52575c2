"""tools/make_docs.py: the site is built without warnings, its links work, and it describes the API."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import mimik

for package in ("mkdocs", "pdoc"):
    pytest.importorskip(package, reason="what writes the pages is not installed: pip install '.[docs]'")
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_pages_are_made_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "make_docs.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    front = (tmp_path / "python" / "mimik.html").read_text()
    for name in mimik.__all__:
        assert f'id="{name}"' in front, name
    for shown in ("from_photos", "RenderOptions", "Pillow image"):
        assert shown in front, shown
    options = (tmp_path / "python" / "mimik" / "animation" / "options.html").read_text()
    assert 'id="RenderOptions.strength"' in options and "Multiplies the driver" in options
    broken = set()
    for page in (path for path in tmp_path.rglob("index.html") if "python" not in path.parts):
        for link in re.findall(r'(?:href|src)="(?!https?:|mailto:|data:|#)([^"#?]+)', page.read_text()):
            target = page.parent / unquote(link)
            if not (target / "index.html" if target.is_dir() else target).exists():
                broken.add((str(page.relative_to(tmp_path)), link))
    assert broken == set()
    assert "paper_small" in (tmp_path / "docs" / "paper" / "index.html").read_text()
