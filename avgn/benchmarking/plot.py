"""Draws a report: throughput over the batch size, and the latency of the smallest batch."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from avgn.figures.page import STYLE, check_output, import_matplotlib, new_page, save
from avgn.runtime.contract import HALVES

ROW_INCHES = 0.27
LEAST_INCHES = 2.6
# ten colours, then the same ones with another shape
MARKERS = "osD^"


def plot_report(report: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write throughput against batch and stacked bars of both halves, with the most threads, as PNG, PDF or SVG.

    Raises InputError for a path that can't be written, MissingExtraError without matplotlib.
    """
    target = check_output(path)
    matplotlib = import_matplotlib()
    rows = [row for row in report["rows"] if row["failure"] is None]
    most = max((row["threads"] or 0 for row in rows), default=0)
    shown = [row for row in rows if row["threads"] in (None, most)]
    bundles = short_names({row["bundle"] for row in rows})
    series: dict[str, list[Mapping[str, Any]]] = {}
    for row in shown:
        series.setdefault(_name(row, bundles), []).append(row)
    with matplotlib.rc_context(STYLE):
        colors = {name: f"C{at % 10}" for at, name in enumerate(series)}
        markers = {name: MARKERS[at // 10 % len(MARKERS)] for at, name in enumerate(series)}
        page = new_page(8.2, max(LEAST_INCHES, 1.1 + ROW_INCHES * len(series)))
        left, right = page.subplots(1, 2, width_ratios=(1, 1.15))
        for name, line in series.items():
            _draw_line(left, line, colors[name], markers[name])
        batches = sorted({row["batch"] for row in shown})
        left.set_xscale("log", base=2)
        left.set_xticks(batches, [str(batch) for batch in batches])
        left.minorticks_off()
        left.set_ylim(0, 1.08 * max((row["throughput"]["p80"] for row in shown), default=1.0))
        left.set_xlabel("batch")
        left.set_ylabel("items a second")
        if batches:
            _draw_bars(right, series, batches[0], colors)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        machine = report["machine"]
        threads = "" if not most else f", {most} thread{'' if most == 1 else 's'}"
        page.suptitle(f"{machine['processor']}, {machine['cores']} cores{threads}", fontsize=9)
        page.tight_layout()
        save(page, target)


def _draw_line(axes: Any, line: list[Mapping[str, Any]], color: str, marker: str) -> None:
    line = sorted(line, key=lambda row: row["batch"])
    middle = [row["throughput"]["p50"] for row in line]
    below = [row["throughput"]["p50"] - row["throughput"]["p20"] for row in line]
    above = [row["throughput"]["p80"] - row["throughput"]["p50"] for row in line]
    batches = [row["batch"] for row in line]
    axes.errorbar(batches, middle, (below, above), color=color, marker=marker, ms=3, lw=1.2, capsize=2)


def _draw_bars(axes: Any, series: Mapping[str, list[Mapping[str, Any]]], batch: int, colors: Mapping[str, str]) -> None:
    """Draw both halves end to end, with a tick at the pair's p95."""
    drawn = [(name, row) for name, line in series.items() for row in line if row["batch"] == batch]
    for at, (name, row) in enumerate(drawn):
        audio, image = (row["wall_ms"][half]["p50"] for half in HALVES)
        axes.barh(at, audio, color=colors[name], alpha=0.45, height=0.66)
        axes.barh(at, image, left=audio, color=colors[name], height=0.66)
        axes.plot(row["wall_ms"]["pair"]["p95"], at, marker="|", color="black", ms=8)
    axes.set_yticks(range(len(drawn)), [name for name, _ in drawn])
    axes.invert_yaxis()
    axes.set_xlabel(f"ms of a batch of {batch}: audio half (light), image half; | p95")


def short_names(bundles: Collection[str]) -> dict[str, str]:
    """Name bundles for a picture: not at all if there is one, by their folders' names if those differ, else by all of
    it."""
    if len(bundles) == 1:
        return dict.fromkeys(bundles, "")
    last = {Path(bundle).name for bundle in bundles}
    return {bundle: Path(bundle).name if len(last) == len(bundles) else bundle for bundle in bundles}


def _name(row: Mapping[str, Any], bundles: Mapping[str, str]) -> str:
    target = "" if row["target"] in (None, "any") else str(row["target"])
    return " ".join(filter(None, (bundles[row["bundle"]], row["backend"], row["precision"], target)))
