"""tools/make_docs.py: the pages of the Python interface are made without a warning, and say what programs can do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mimik

pytest.importorskip("pdoc", reason="what writes the pages is not installed: pip install '.[docs]'")
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
    front = (tmp_path / "mimik.html").read_text()
    for name in mimik.__all__:
        assert f'id="{name}"' in front, name
    for shown in ("from_photos", "RenderOptions", "Pillow image"):
        assert shown in front, shown
    options = (tmp_path / "mimik" / "animation" / "options.html").read_text()
    assert 'id="RenderOptions.strength"' in options and "Multiplies the driver" in options
