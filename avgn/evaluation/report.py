"""Results as tables for the terminal: every score with its interval, floor, chance and ceiling beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]

COLUMNS = ("score", "95 % interval", "floor", "chance", "ceiling")
SIZE_METRICS = ("CAP", "CIoU@0.3", "AUC")


def format_table(results: Sequence[Result]) -> str:
    """Format the results of `evaluate`: one table per protocol and way to choose the classes."""
    return "\n\n".join(_one(result) for result in results)


def _one(result: Result) -> str:
    if not result["metrics"] and not result["floor"]:
        return f"protocol {result['protocol']} is left out: {', '.join(result['skipped'])}"
    lines = [_title(result)]
    rows = [["", *COLUMNS]]
    for name in result["metrics"] or result["floor"]:
        value = result["metrics"].get(name)
        interval = result.get("ci95", {}).get(name)
        bounds = [_number(result.get(column, {}).get(name)) for column in ("floor", "chance", "ceiling")]
        rows.append([name, _number(value), _interval(interval), *bounds])
    lines += _align(rows)
    lines += _groups(result)
    lines += _sizes(result)
    per_video = result.get("per_video")
    if per_video and per_video["videos"] < result["images"]:
        scores = ", ".join(f"{name} {_number(value)}" for name, value in per_video["metrics"].items())
        lines.append(f"mean over {per_video['videos']} videos: {scores}")
    if "same_class" in result:
        scores = ", ".join(f"{name} {_number(result['same_class']['metrics'][name])}" for name in SIZE_METRICS)
        lines.append(f"of these, {result['same_class']['items']} items that show one class twice: {scores}")
    if "negatives" in result:
        lines.append(f"negatives among the ranked: {result['negatives']}")
    for key in ("counts", "skipped"):
        if result.get(key):
            lines.append(f"{key}: " + ", ".join(f"{name} {count}" for name, count in result[key].items()))
    lines += [f"note: {note}" for note in result.get("notes", ())]
    return "\n".join(lines)


def _title(result: Result) -> str:
    title = f"protocol {result['protocol']}, classes {result['classes']}: {result['items']} items"
    if "images" in result:
        title += f" of {result['images']} images"
    if result.get("maps") in ("shared-map", "matched"):
        title += f", {result['maps']}"
    return title


def _groups(result: Result) -> list[str]:
    """Format video scores by distance to a change of the truth."""
    groups = [name for name in ("near_change", "steady") if name in result]
    if not groups:
        return []
    rows = [["", *(name.replace("_", " ") for name in groups)]]
    rows += [[name, *(_number(result[group][name]) for group in groups)] for name in result[groups[0]]]
    return ["", *_align(rows)]


def _sizes(result: Result) -> list[str]:
    """Format scores by terciles of mask area, each as score (floor / ceiling)."""
    groups = result.get("by_size", {})
    rows = [["by mask area", "sources", "area %", *(f"{name} (floor/ceiling)" for name in SIZE_METRICS)]]
    for size, group in groups.items():
        if group["area"] is None:
            continue
        cells = [
            f"{_number(group['metrics'].get(name))} ({_number(group['floor'][name])}/{_number(group['ceiling'][name])})"
            for name in SIZE_METRICS
        ]
        low, high = (100 * value for value in group["area"])
        rows.append([size, str(group["sources"]), f"{low:.1f}-{high:.1f}", *cells])
    return ["", *_align(rows)] if len(rows) > 1 else []


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{_number(interval[0])} .. {_number(interval[1])}"


def _align(rows: list[list[str]]) -> list[str]:
    """Align the first column to the left and the others to the right; drop columns that hold only a heading."""
    used = [c for c in range(len(rows[0])) if c == 0 or any(row[c] not in ("", "-") for row in rows[1:])]
    widths = [max(len(row[c]) for row in rows) for c in used]
    return [
        "  ".join(row[c].ljust(w) if c == 0 else row[c].rjust(w) for c, w in zip(used, widths, strict=True)).rstrip()
        for row in rows
    ]
