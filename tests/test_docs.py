"""The pages: links lead somewhere, named files exist, and sections that code refers to are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "kernels").rglob("README.md"),
        *ROOT.glob("benchmarks/*.md"),
    }
)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}, which isn't there"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}: no such heading"


def test_files_of_the_map_exist() -> None:
    text = (ROOT / "docs" / "README.md").read_text()
    missing = [name for name in re.findall(r"`([^`]+/[^`]*)`", text) if not (ROOT / name).exists()]
    assert not missing


def test_sections_that_code_refers_to_exist() -> None:
    sections = {
        name: set(re.findall(r"^## (\d+)\. ", (ROOT / "docs" / name).read_text(), flags=re.MULTILINE))
        for name in ("method.md", "design.md")
    }
    found = 0
    for name in TRACKED:
        if not name.endswith((".py", ".md", ".yaml")) or name == "tests/test_docs.py":
            continue
        text = (ROOT / name).read_text()
        assert not re.search(r"\b(METHOD|DESIGN|EVALUATION) (section|\")", text), name
        for page, numbers in re.findall(r"docs/(method\.md|design\.md), sections? ([\d, \-and]+)", text):
            found += 1
            assert set(re.findall(r"\d+", numbers)) <= sections[page], f"{name}: {page}, section {numbers}"
    assert found or not TRACKED
