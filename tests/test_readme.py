"""README.md stays short and true: its table is the demo's, and every results page is in the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), ROOT / "results" / "README.md"]


def rows(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """The first table that starts with attack and method: cells by row and column."""
    lines = text[text.index("| attack | method |") :].split("\n\n")[0].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(row[0], row[1]): dict(zip(table[0], row, strict=True)) for row in table[2:]}


def test_readme_is_short() -> None:
    assert len(README.split()) <= 1200


def test_its_table_is_the_demos() -> None:
    shown, measured = rows(README), rows((ROOT / "results" / "demo.md").read_text())
    assert shown.keys() == measured.keys()
    for key, row in shown.items():
        assert row == {name: measured[key][name] for name in row}


def test_every_results_page_is_in_the_index() -> None:
    index = (ROOT / "results" / "README.md").read_text()
    pages = [p.relative_to(ROOT / "results") for p in (ROOT / "results").rglob("*.md")]
    assert not [p for p in pages if p != Path("README.md") and f"({p.as_posix()})" not in index]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]
