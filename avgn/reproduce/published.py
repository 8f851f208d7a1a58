"""The figures that the paper prints, to stand beside ours: never ours."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = "Mo & Tian, CVPR 2023"


@cache
def _tables() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
    return found


def published_rows(table: str, column: str) -> dict[str, dict[str, float | None]]:
    """Look up {method: {metric: percent, None where the paper prints a dash}} of one data set; empty if it prints
    none."""
    rows = _tables().get(table, {})
    if isinstance(rows, list):
        named = {_ablation(row): row for row in rows}
        return {name: row[column] for name, row in named.items() if column in row}
    if column in rows and all(not isinstance(value, dict) for value in rows[column].values()):
        return {"AVGN": rows[column]}
    return {name: row[column] for name, row in rows.items() if column in row}


def _ablation(row: dict[str, Any]) -> str:
    parts = [name for key, name in (("class_tokens", "tokens"), ("grouping", "grouping")) if row[key]]
    return {0: "neither", 1: f"{parts[0] if parts else ''} only", 2: "both"}[len(parts)]
