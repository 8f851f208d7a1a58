"""MkDocs hook of mkdocs.yml: gives the site the repository's own paths, so that links on pages hold in both.

GitHub's Markdown lets a list or a table follow a line of prose; Python-Markdown wants a blank line between.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("*.md", "docs/**/*.md", "kernels/**/README.md", "runtime/web/client/README.md")
LINKED = ("docs/*.png", "docs/*.jpg", "docs/site.css", "benchmarks/results/*.json")
# what may interrupt a paragraph: an item of a list, a numbered one only as the first
ITEM = re.compile(r"([-*]|1\.) ")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name headings' anchors as GitHub does."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the pages, and what they show or link to, in the place of the content of docs/."""
    theirs = [file for file in files if file.src_dir != config.docs_dir]
    ours = sorted({path.relative_to(ROOT).as_posix() for glob in (*PAGES, *LINKED) for path in ROOT.glob(glob)})
    return Files([*theirs, *(File.generated(config, name, abs_src_path=str(ROOT / name)) for name in ours)])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Set lists and tables apart from the prose before them, outside blocks of code."""
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else set_apart(part) for part in parts)


def set_apart(prose: str) -> str:
    """Add the blank line before each list and table that follows a line of something else."""
    lines: list[str] = []
    block = ""
    for line in prose.split("\n"):
        kind = "list" if ITEM.match(line) else "table" if line.startswith("|") else ""
        if kind and block and kind != block:
            lines.append("")
        block = "" if not line.strip() else kind or block or "prose"
        lines.append(line)
    return "\n".join(lines)
