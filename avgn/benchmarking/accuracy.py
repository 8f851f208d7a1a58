"""Measures how far an engine's answers are from the core model's, and its scores on annotated items."""

from __future__ import annotations

from typing import Any

from avgn.benchmarking.loading import load
from avgn.runtime.bundle import Bundle
from avgn.runtime.engines.base import Engine

# of rendered scenes; one batch size and picture size each, so that compiled models are compiled twice at most
BATCH_SIZES = (4, 4)


def measure_accuracy(job: dict[str, Any]) -> dict[str, Any]:
    """Measure the largest difference and the cosines of maps on rendered scenes; CIoU@0.3 and CAP on "manifest" (or
    None).

    The reference is the core model of "checkpoint", or (None) the bundle's fp32 graphs in ONNX Runtime.
    """
    # uses the code that verifies exports
    from avgn.export.recheck import reference_engine
    from avgn.export.verify import accuracy, compare, render_batch

    engine: Engine = load(job)
    core = reference_engine(Bundle.load(job["bundle"]), job["checkpoint"])
    batches = [render_batch(core.info, count, start=BATCH_SIZES[0] * at) for at, count in enumerate(BATCH_SIZES)]
    measured = compare(core, engine, batches)
    found: dict[str, Any] = {
        "reference": "fp32 graphs in ONNX Runtime" if job["checkpoint"] is None else "the checkpoint in PyTorch",
        **{name: measured[name] for name in ("max_abs_maps", "cosine_maps", "cosine_maps_mean", "scenes")},
    }
    if job["manifest"] is not None:
        from avgn.runtime.manifest import read_manifest

        found |= accuracy(engine, read_manifest(job["manifest"]))
    return found
