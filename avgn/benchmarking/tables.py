"""Formats a report for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from avgn.runtime.contract import HALVES

# a larger share of waiting is not the engine's own
BUSY_SHARE = 0.15

Report = Mapping[str, Any]
Cells = Sequence[str]

HEAD = ("precision", "backend", "batch", "threads")
EXACT = ("MB", "cosine", "max abs")
SCORES = ("CIoU", "CAP")
TIMES = ("load s", "first s", "p50 ms", "p95 ms", "audio", "image", "CPU ms", "items/s", "+-%")
MACHINE = ("peak MB", "of it before", "GFLOP/s", "% peak", "speed")


def format_report(report: Report) -> list[str]:
    """Format the tables of a report, with what their ratios are relative to."""
    lines = [*_machine_lines(report)]
    scored = any("CAP" in (row.get("accuracy") or {}) for row in report["rows"])
    for bundle in report["bundles"]:
        lines += ["", _bundle_line(bundle)]
        rows = [row for row in report["rows"] if row["bundle"] == bundle["name"]]
        names = (*HEAD, *EXACT, *(SCORES if scored else ()), *TIMES, *MACHINE)
        lines += _table(names, [_row(row, scored) for row in rows], left=2)
    if report["stages"]:
        lines += ["", *_stage_lines(report["stages"])]
    return [*lines, "", *_notes(report)]


def _machine_lines(report: Report) -> list[str]:
    machine, versions = report["machine"], report["versions"]
    memory = "" if machine["memory_gb"] is None else f", {machine['memory_gb']:.0f} GB"
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    lines = [
        f"{machine['processor']}, {machine['usable_cores']} of {machine['cores']} cores{memory}{gpu}, "
        f"{machine['system']}",
        ", ".join(f"{name} {value}" for name, value in versions.items()),
    ]
    for peak in report["peaks"]:
        others = ", ".join(f"{name} {value:.0f}" for name, value in peak["libraries"].items() if name != peak["by"])
        unit = "GFLOP/s" if peak["kind"] != "int8" else "GOP/s"
        lines.append(
            f"largest {peak['kind']} matrix product, {_count(peak['threads'], 'thread')}: {peak['gops']:.0f} {unit} by "
            f"{peak['by']} at {peak['size']}x{peak['size']}" + (f" ({others})" if others else "")
        )
    return lines


def _bundle_line(bundle: Mapping[str, Any]) -> str:
    height, width = bundle["image_size"]
    line = f"{bundle['name']}: {bundle['model']}, {bundle['classes']} classes, {height}x{width} pixels"
    if bundle["multiply_adds"] is None:
        return f"{line}; operations not counted: {bundle['failure']}"
    parts = ", ".join(f"{half} {count / 1e6:.1f}" for half, count in bundle["multiply_adds"].items())
    return f"{line}; million multiply-adds of a sample: {parts}"


def _row(row: Mapping[str, Any], scored: bool) -> list[str]:
    head = [row["precision"] or "-", row["backend"], _text(row["batch"], "d"), _text(row["threads"], "d")]
    if row["failure"] is not None:
        return [*head, f"failed: {row['failure']}"]
    accuracy = row["accuracy"] or {}
    exact = [_text(accuracy.get("cosine_maps_mean"), ".5f"), _text(accuracy.get("max_abs_maps"), ".1e")]
    scores = [_text(accuracy.get("CIoU@0.3"), ".1f"), _text(accuracy.get("CAP"), ".1f")] if scored else []
    wall, rate = row["wall_ms"], row["throughput"]
    times = [
        f"{row['load_ms']['p50'] / 1e3:.2f}",
        f"{row['first_run_ms']['p50'] / 1e3:.2f}",
        *(f"{value:.2f}" for value in (wall["pair"]["p50"], wall["pair"]["p95"])),
        *(f"{wall[half]['p50']:.2f}" for half in HALVES),
        f"{row['cpu_ms']['pair']['p50']:.2f}",
        f"{rate['p50']:.0f}",
        f"{50 * (rate['p80'] - rate['p20']) / rate['p50']:.0f}" if row["rounds"] > 1 else "-",
    ]
    share = row["share_of_peak"]
    machine = [
        f"{row['memory_mb']['peak']:.0f}",
        f"{row['memory_mb']['before']:.0f}",
        "-" if row["gflops"] is None else f"{row['gflops']['p50']:.1f}",
        "-" if share is None else f"{100 * share:.0f}" + (f" {row['peak']}" if row["peak"] != "fp32" else ""),
        "-" if row["speedup"] is None else f"{row['speedup']['p50']:.2f}x",
    ]
    return [*head, _text(row["size_mb"], ".1f"), *exact, *scores, *times, *machine]


def _stage_lines(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    names = next((tuple(one["wall_ms"]) for one in stages if one["failure"] is None), ())
    rows: list[list[str]] = []
    for one in stages:
        head = [one["bundle"], one["precision"], one["backend"], _text(one["threads"], "d")]
        if one["failure"] is not None:
            rows.append([*head, f"failed: {one['failure']}"])
            continue
        pipeline = one["pipeline"]
        ends = [
            f"{pipeline['frames_per_second']['p50']:.0f}",
            f"{pipeline['real_time_factor']['p50']:.3f}",
            f"{pipeline['cpu_ms']['p50']:.2f}",
        ]
        rows.append([*head, "wall ms", *_stage_cells(one["wall_ms"], ".2f"), *ends])
        rows.append([*head, "CPU ms", *_stage_cells(one["cpu_ms"], ".2f")])
        rows.append([*head, "share %", *_stage_cells({k: 100 * v for k, v in one["share"].items()}, ".0f", False)])
    title = "a 640x360 video to overlay and JSON lines; stages of a frame each alone, then the pipeline as it runs"
    columns = ("bundle", "precision", "backend", "threads", "", *names, "sum", "frames/s", "real time", "CPU ms")
    return [title, *_table(columns, rows, left=3)]


def _stage_cells(values: Mapping[str, float], form: str, summed: bool = True) -> list[str]:
    return [*(format(value, form) for value in values.values()), format(sum(values.values()), form) if summed else ""]


def _notes(report: Report) -> list[str]:
    settings = report["settings"]
    measured = f"{settings['repeats']} runs" if settings["repeats"] else f"{settings['seconds']:g} s"
    notes = [
        f"every row: median of {_count(settings['rounds'], 'process')} that took turns, {measured} in each; a run is "
        "the audio and the image half of a batch; +-%: between processes, half of p20 to p80"
    ]
    if report["baseline"] is not None:
        notes.append(f"speed: items/s beside {report['baseline']}, same batch and threads, same round")
    notes += [f"matrix product by {name} not measured: {why}" for name, why in report["peak_failures"].items()]
    found = [row["accuracy"] for row in report["rows"] if row.get("accuracy")]
    for reference in dict.fromkeys(one["reference"] for one in found if "reference" in one):
        notes.append(f"cosine (mean) and largest difference of maps on rendered scenes: beside {reference}")
    for failure in dict.fromkeys(one["failure"] for one in found if "failure" in one):
        notes.append(f"accuracy not measured: {failure}")
    if (idle := _idle_share(report["rows"])) > BUSY_SHARE:
        notes.append(
            f"the machine was busy: rows of one thread waited {100 * idle:.0f} % of their time for a core, so trust "
            "CPU ms, not the ratios, and measure again when it is quiet"
        )
    if any(row.get("gflops") for row in report["rows"]):
        notes.append(
            "GFLOP/s: twice the multiply-adds of the fp32 graphs, whatever a row really computes; % peak: of the "
            "matrix product above in the row's precision"
        )
    return notes


def _idle_share(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the median share of the time in which rows of one thread did not compute."""
    shares = [
        1 - row["cpu_ms"]["pair"]["p50"] / row["wall_ms"]["pair"]["p50"]
        for row in rows
        if row["failure"] is None and row["threads"] == 1
    ]
    return median(shares) if shares else 0.0


def _table(names: Cells, rows: Sequence[Cells], *, left: int) -> list[str]:
    """Format columns as wide as they need to be; a row with fewer cells ends with a sentence of any length."""
    whole = [row for row in rows if not _is_sentence(row)]
    widths = [
        max(len(name), *(len(row[at]) for row in (whole if at >= len(HEAD) else rows) if at < len(row)), 0)
        for at, name in enumerate(names)
    ]

    def line(cells: Cells) -> str:
        shown = [
            cell if _is_sentence([cell]) else cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths))  # noqa: B905 - short rows
        ]
        return "  ".join(shown).rstrip()

    return [line(names), *(line(row) for row in rows)]


def _is_sentence(row: Cells) -> bool:
    return row[-1].startswith("failed: ")


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _count(number: int, noun: str) -> str:
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{plural}"
