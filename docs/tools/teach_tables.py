"""Makes the table of docs/teach.md from what python -m benchmarks.teach measured."""

from __future__ import annotations

from typing import Any

from docs.tools.comparison import Row

UNMEASURED: tuple[Row, list[Row]] = (("", ""), [("not measured yet: `python -m benchmarks.teach`", "")])
GROUPS = ("again", "new", "rest")


def curve(record: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Tabulate accuracy over the number of examples: taught back, new, and all others; the built-in classes first."""
    head: Row = (
        "examples of each class",
        "taught back: CIoU@0.3",
        "class F1",
        "new: CIoU@0.3",
        "class F1",
        "others: CIoU@0.3",
        "class F1",
        "false sources per image",
    )
    rows = [_row("built in", record["built_in"])]
    rows += [_row(f"{each['examples']}", each) for each in record["counts"]]
    return head, rows


def _row(name: str, found: dict[str, Any]) -> Row:
    values = [
        f"{found[group][score]:.1f}" if group in found else "" for group in GROUPS for score in ("ciou", "class_f1")
    ]
    return (name, *values, f"{found['false_sources_per_image']:.2f}")
