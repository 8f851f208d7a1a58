"""Runs a benchmark, from its request to its report."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from typing import Any

from avgn.benchmarking.measurements import Measurements, Progress
from avgn.benchmarking.plan import BenchmarkOptions, plan_rows
from avgn.benchmarking.summary import check_baseline, summarize_peaks, summarize_rows, summarize_stages
from avgn.machine import machine, versions
from avgn.runtime.bundle import Bundle
from avgn.runtime.contract import HALVES
from avgn.runtime.engines import check_installation
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import read_manifest

FORMAT = "avgn-benchmark"
FORMAT_VERSION = 1


def run_benchmark(
    bundles: Sequence[str],
    options: BenchmarkOptions | None = None,
    *,
    checkpoints: Sequence[str] = (),
    manifest: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure bundles (folders or "tiny") on this machine; the report as docs/benchmark.md describes it.

    `checkpoints`: none, one for all bundles or one for each, in their order. What fails is a row with its reason.
    Raises InputError, before anything is measured, for bundles, checkpoints or a manifest that can't be used or don't
    belong together.
    """
    options = options or BenchmarkOptions()
    check_installation()
    if not bundles:
        raise InputError("no bundle was named: give a folder made by avgn export, or the name world")
    loaded = [(name, Bundle.load(name)) for name in dict.fromkeys(bundles)]
    paired = _pair(loaded, checkpoints)
    if manifest is not None:
        _check_manifest(loaded, manifest)
    rows = plan_rows(loaded, paired, options)
    check_baseline(rows, options.baseline)
    run = Measurements(options, rows, progress)
    run.measure_rounds()
    run.measure_once(dict(zip((name for name, _ in loaded), paired, strict=True)), manifest)
    peaks = summarize_peaks(run.peaks)
    sizes = {
        (name, at): sum(bundle.graph(variant, half).stat().st_size for half in HALVES) / 1e6
        for name, bundle in loaded
        for at, variant in enumerate(bundle.variants)
    }
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "settings": {
            "batches": list(options.batches),
            "threads": None if options.threads is None else list(options.threads),
            "backends": list(options.backends),
            "rounds": options.rounds,
            "seconds": options.seconds,
            "repeats": options.repeats,
            "video_seconds": options.video_seconds,
        },
        "peaks": peaks,
        "peak_failures": run.peak_failures,
        "bundles": [_describe(name, bundle, run.operations[name]) for name, bundle in loaded],
        **summarize_rows(run, sizes, peaks, options),
        "stages": summarize_stages(run),
    }


def _pair(bundles: Sequence[tuple[str, Bundle]], checkpoints: Sequence[str]) -> list[str | None]:
    """Pair every bundle with its checkpoint. Raises InputError for a checkpoint of another model."""
    if not checkpoints:
        return [None] * len(bundles)
    if len(checkpoints) not in (1, len(bundles)):
        raise InputError(
            f"{len(checkpoints)} checkpoints for {len(bundles)} bundles: give one for all, or one for each in order"
        )
    from avgn.export.recheck import reference_engine

    paired = list(checkpoints) * (len(bundles) if len(checkpoints) == 1 else 1)
    for (_, bundle), checkpoint in zip(bundles, paired, strict=True):
        reference_engine(bundle, checkpoint)
    return [*paired]


def _check_manifest(bundles: Sequence[tuple[str, Bundle]], manifest: str | os.PathLike[str]) -> None:
    from avgn.evaluation.inference import check_classes
    from avgn.export.verify import check_scorable

    read = read_manifest(manifest)
    check_scorable(read)
    for _, bundle in bundles:
        check_classes(bundle.info, read)


def _describe(name: str, bundle: Bundle, operations: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "model": bundle.info.model["name"],
        "classes": len(bundle.classes),
        "image_size": list(bundle.image_size),
        "window_seconds": bundle.window_seconds,
        "multiply_adds": None if "failure" in operations else operations,
        "failure": operations.get("failure"),
    }
