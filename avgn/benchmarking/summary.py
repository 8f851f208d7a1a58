"""Summarizes rounds as the rows of a report: medians, spreads, ratios to the baseline and to the machine's peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from avgn.benchmarking.measurements import Measurements
from avgn.benchmarking.plan import BenchmarkOptions, Row
from avgn.runtime.contract import HALVES
from avgn.runtime.errors import InputError

MEASURED = (*HALVES, "pair")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return p20, p50 and p80 of one value a round."""
    return {f"p{at}": float(np.percentile(values, at)) for at in (20, 50, 80)}


def summarize_peaks(found: Mapping[int, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Choose the best of all rounds for every thread count and kind; "libraries" holds the best of each."""
    peaks = []
    for threads, products in found.items():
        for kind in dict.fromkeys(product["kind"] for product in products):
            ranked = sorted((p for p in products if p["kind"] == kind), key=lambda p: p["gops"])
            libraries = {product["by"]: product["gops"] for product in ranked}
            best = {name: ranked[-1][name] for name in ("gops", "by", "size")}
            peaks.append({"threads": threads, "kind": kind, **best, "libraries": libraries})
    return peaks


def summarize_rows(
    run: Measurements,
    sizes: Mapping[tuple[str, int], float],
    peaks: Sequence[dict[str, Any]],
    options: BenchmarkOptions,
) -> dict[str, Any]:
    """Summarize the rounds as {"baseline", "rows"} of a report."""
    worked = [row for row in run.rows if row not in run.failures]
    baseline = options.baseline or _usual_baseline(worked)
    rows = []
    for row in run.rows:
        facts: dict[str, Any] = {
            name: getattr(row, name) for name in ("bundle", "precision", "backend", "target", "batch", "threads")
        }
        facts["size_mb"] = None if row.variant is None else sizes[row.bundle, row.variant]
        facts["failure"] = run.failures.get(row)
        if row in worked:
            facts |= _measured(run, row, peaks)
            facts["speedup"] = _speedup(run, row, _baseline_of(worked, row, baseline))
        rows.append(facts)
    return {"baseline": baseline, "rows": rows}


def _measured(run: Measurements, row: Row, peaks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rounds = run.rounds[row]
    wall = {
        half: spread([one["wall_ms"][half]["p50"] for one in rounds])
        | {"p95": float(np.median([one["wall_ms"][half]["p95"] for one in rounds]))}
        for half in MEASURED
    }
    found = {
        "rounds": len(rounds),
        "repeats": sum(one["repeats"] for one in rounds),
        "load_ms": spread([one["load_ms"] for one in rounds]),
        "first_run_ms": spread([one["first_run_ms"] for one in rounds]),
        "wall_ms": wall,
        "cpu_ms": {half: spread([one["cpu_ms"][half] for one in rounds]) for half in MEASURED},
        "throughput": spread([one["throughput"] for one in rounds]),
        "memory_mb": {
            name: float(np.median([one["memory_mb"][name] for one in rounds])) for name in ("before", "peak")
        },
        "accuracy": run.accuracy.get(row.system),
        "gflops": None,
        "peak": None,
        "share_of_peak": None,
    }
    operations = run.operations[row.bundle]
    if "failure" not in operations:
        gigaflops = 2e-9 * sum(operations.values())
        found["gflops"] = spread([gigaflops * one["throughput"] for one in rounds])
        peak = _peak_of(row, peaks)
        if peak is not None:
            found["peak"] = peak["kind"]
            found["share_of_peak"] = found["gflops"]["p50"] / peak["gops"]
    return found


def _peak_of(row: Row, peaks: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the machine's peak at the precision that a row computes in."""
    kind = "fp32"
    if row.precision is not None and row.precision.startswith("int8"):
        kind = "int8"
    elif row.precision == "fp16" and row.backend == "openvino":
        # OpenVINO takes bf16 for it where the processor has it; ONNX Runtime computes in fp32
        kind = "bf16" if any(peak["kind"] == "bf16" for peak in peaks) else "fp32"
    return next((peak for peak in peaks if (peak["threads"], peak["kind"]) == (row.threads, kind)), None)


def _usual_baseline(worked: Sequence[Row]) -> str | None:
    if not worked:
        return None
    eager = next((row for row in worked if row.backend == "torch"), worked[0])
    return f"{eager.backend}/{eager.precision}"


def _baseline_of(worked: Sequence[Row], row: Row, baseline: str | None) -> Row | None:
    """Return the baseline's row of the same bundle and batch and as many threads (on a GPU: the most)."""
    backend, _, precision = (baseline or "").partition("/")
    fitting = [
        other
        for other in worked
        if other.backend == backend
        and precision in ("", other.precision)
        and (other.bundle, other.batch) == (row.bundle, row.batch)
        and (other.threads == row.threads or None in (other.threads, row.threads))
    ]
    return max(fitting, key=lambda other: other.threads or 0, default=None)


def _speedup(run: Measurements, row: Row, base: Row | None) -> dict[str, float] | None:
    """Return throughput as a multiple of the baseline's in the same round."""
    if base is None:
        return None
    pairs = zip(run.rounds[row], run.rounds[base], strict=True)
    return spread([one["throughput"] / other["throughput"] for one, other in pairs])


def check_baseline(rows: Sequence[Row], baseline: str | None) -> None:
    """Raise InputError unless the named baseline is among the rows that are to be measured."""
    if baseline is None:
        return
    backend, _, precision = baseline.partition("/")
    fitting = [row for row in rows if row.backend == backend and precision in ("", row.precision)]
    failures = [row.failure for row in fitting if row.failure is not None]
    if len(failures) == len(fitting):
        reason = failures[0] if failures else "no bundle holds such a variant"
        raise InputError(f"--baseline {baseline} can't be measured ({reason}): name another or leave it out")


def summarize_stages(run: Measurements) -> list[dict[str, Any]]:
    """Summarize the pipelines: medians over the rounds of every stage, its share of their sum, and the whole."""
    found = []
    for row in run.pipelines():
        facts: dict[str, Any] = {
            name: getattr(row, name) for name in ("bundle", "precision", "backend", "target", "threads")
        }
        facts["failure"] = run.stage_failures.get(row)
        rounds = run.stages.get(row, [])
        if facts["failure"] is None and rounds:
            facts["frames"] = rounds[0]["frames"]
            for clock in ("wall_ms", "cpu_ms"):
                facts[clock] = {
                    stage: float(np.median([one[clock][stage] for one in rounds])) for stage in rounds[0][clock]
                }
            total = sum(facts["wall_ms"].values())
            facts["share"] = {stage: value / total for stage, value in facts["wall_ms"].items()}
            facts["pipeline"] = {
                name: spread([one["pipeline"][name] for one in rounds]) for name in rounds[0]["pipeline"]
            }
        found.append(facts)
    return found
