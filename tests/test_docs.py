"""Pages: links and anchors resolve, lines are short, and pages have a limited length."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES, MAX_COLUMNS = 250, 100
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*/README.md"),
    ]
)


def without_code(text: str) -> str:
    """The page without fenced code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as on GitHub: lower case, letters, digits, - and _; spaces become -."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    shown = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in shown}


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Run on phones, in pages: `mimik export`\n```sh\n# no heading\n```\n## [A](b.md) 12.5 e_hat\n")
    assert anchors(page) == {"run-on-phones-in-pages-mimik-export", "a-125-e_hat"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_short_and_wrapped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name != "CHANGELOG.md":  # grows with every release
        assert text.count("\n") <= MAX_LINES
    # Tables, pictures, indented code, and lines with a link or a command that cannot be broken may be longer.
    long = [line for line in without_code(text).splitlines() if len(line) > MAX_COLUMNS and line[:1] not in ("|", "!")]
    unbroken = re.compile(r"\]\(|`[^`]{60,}`|^    ")
    assert [line for line in long if not unbroken.search(line)] == []
