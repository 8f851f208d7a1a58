"""The outcome of a recipe as text: our rows with floor and ceiling, and the published ones, marked as such."""

from __future__ import annotations

from typing import Any

from avgn.reproduce.published import SOURCE

PER_CLASS = "per class"


def format_outcome(outcome: dict[str, Any]) -> str:
    """Format one table a data set; each row says whose it is, under which protocol, and how classes were chosen."""
    parts = [outcome["title"]]
    if outcome["data"] != "real":
        parts.append(
            f"({outcome['data']}: "
            + (
                "two steps of training, the numbers mean nothing)"
                if outcome["data"] == "dry run"
                else "made-up scenes, not to be compared with published rows)"
            )
        )
    for found in outcome["sets"]:
        parts += ["", f"{found['name']}, {found['items']} test items"]
        parts += _align([["", "protocol, classes", *found["metrics"]], *_rows(found)])
    return "\n".join(parts)


def _rows(found: dict[str, Any]) -> list[list[str]]:
    rows: list[list[str]] = []
    limits: dict[str, dict[str, Any]] = {}
    for row in found["rows"]:
        how = f"{row['protocol']}, {row['classes']}" + (f", {row['maps']}" if row["maps"] != PER_CLASS else "")
        count = len(row.get("seeds", {}))
        name = f"ours: {row['row']}" + (f" ({count} seeds)" if count > 1 else "")
        rows.append([name, how, *_cells(row["values"], row["ci95"], row.get("std"))])
        limits.setdefault(row["protocol"], row)
    for protocol, row in limits.items():
        rows += [[bound, protocol, *_cells(row[bound])] for bound in ("floor", "ceiling")]
    for method, values in found["published"].items():
        rows.append([f"published: {method}", SOURCE, *(_cell(values.get(metric)) for metric in found["metrics"])])
    return rows


def _cells(
    values: dict[str, Any], intervals: dict[str, Any] | None = None, deviations: dict[str, Any] | None = None
) -> list[str]:
    """Format value, deviation between seeds and 95 % interval of each metric."""
    cells = []
    for metric, value in values.items():
        interval, deviation = (intervals or {}).get(metric), (deviations or {}).get(metric)
        text = _cell(value)
        if deviation is not None:
            text += f" +-{deviation:.1f}"
        if interval and value is not None:
            text += f" [{interval[0]:.1f} {interval[1]:.1f}]"
        cells.append(text)
    return cells


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _align(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
