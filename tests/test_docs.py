"""The pages: links lead somewhere, named files exist, and sections that code refers to are there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import avgn.evaluation
import avgn.kernels
import avgn.runtime

ROOT = Path(__file__).resolve().parents[1]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "kernels").rglob("README.md"),
        *ROOT.glob("benchmarks/*.md"),
        ROOT / "runtime" / "web" / "client" / "README.md",
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
        assert target.suffix != ".md" or target in PAGES, f"{page.name} links to {link}, which the site leaves out"


def test_files_of_the_map_exist() -> None:
    text = (ROOT / "docs" / "README.md").read_text()
    missing = [name for name in re.findall(r"`([^`]+)`", text) if "/" in name and not (ROOT / name).exists()]
    assert not missing


def test_pages_and_results_that_anything_names_exist() -> None:
    made = {"benchmarks/results/NAME.json", "benchmarks/results/gpu.json"}  # by whoever measures
    missing = {
        (name, named)
        for name in TRACKED
        if name.endswith((".py", ".md", ".yaml", ".toml", ".ts", ".js", "Makefile"))
        for named in re.findall(r"\b(?:docs|benchmarks/results)/[\w./-]+\.(?:md|json)\b", (ROOT / name).read_text())
        if named not in made and not (ROOT / named).exists()
    }
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


def named(nav: Any) -> list[str]:
    """The pages that a navigation of MkDocs names, in its order."""
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in named(entry)]


def documented(room: str) -> set[str]:
    return set(re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api" / f"{room}.md").read_text(), flags=re.MULTILINE))


def test_the_site_names_every_page_once_and_nothing_else() -> None:
    nav = named(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert not pages - set(nav), "add these to nav in mkdocs.yml"
    assert not set(nav) - pages, "nav in mkdocs.yml names pages that are not there"
    assert len(nav) == len(set(nav)), "nav in mkdocs.yml names a page twice"


def test_the_api_pages_hold_every_public_name() -> None:
    def lacking(room: str, names: set[str]) -> set[str]:
        return names - documented(room)

    assert not lacking("runtime", {f"avgn.runtime.{name}" for name in avgn.runtime.__all__}), "docs/api/runtime.md"
    kernels = {f"avgn.kernels.{name}.{name}" for name in avgn.kernels.__all__}
    assert not lacking("kernels", kernels), "add these to docs/api/kernels.md, with options as the others"
    assert not documented("kernels") - kernels, "docs/api/kernels.md names what is no kernel"
    evaluation = {name.rpartition(".")[2] for name in documented("core") if name.startswith("avgn.evaluation.")}
    assert {name for name in avgn.evaluation.__all__ if not name.isupper()} <= evaluation


def shown_code() -> Iterator[str]:
    """The examples, and the Python of README and of the pages."""
    yield from (path.read_text() for path in sorted((ROOT / "examples").glob("*.py")))
    for page in PAGES:
        yield from re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


def test_the_api_pages_hold_what_examples_and_pages_import() -> None:
    held = {name.rpartition(".")[2] for room in ("runtime", "core", "export", "kernels") for name in documented(room)}
    imported = {
        each.name
        for code in shown_code()
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("avgn")
        for each in node.names
    }
    assert len(imported) > 15
    assert not {name for name in imported if not name.isupper()} - held, "add these to docs/api"


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    # the environment of `make docs`, or one that holds the extra `docs`
    for python in (str(ROOT / ".venv-docs" / "bin" / "python"), sys.executable):
        asked = [python, "-c", "import material, mkdocs, mkdocstrings_handlers.python"]
        if Path(python).exists() and subprocess.run(asked, capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("MkDocs isn't here: `make docs` once makes its environment")
    command = [python, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stderr
    for room in ("runtime", "core", "export", "kernels"):
        page = (tmp_path / "docs" / "api" / f"{room}.html").read_text()
        assert [name for name in documented(room) if f'id="{name}"' not in page] == []
        assert not re.findall(r'<h\d id="([^"]+--[^"]+)"', page), (
            "a line of a docstring begins with # and became a heading"
        )
    method = (tmp_path / "docs" / "method.html").read_text()
    assert "<li>" in method and "<table>" in method
    assert 'src="docs/demo.jpg"' in (tmp_path / "index.html").read_text() and (tmp_path / "docs" / "demo.jpg").exists()
