"""The tables of docs/gpu.md, from benchmarks/results/gpu-budget.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.comparison import Row

Table = tuple[Row, list[Row]]
HALF = "{roofline:.0f} / {expected, CUDA graph:.0f} / {expected, launched one by one:.0f}"


def halves(record: Mapping[str, Any]) -> Table:
    """Every half in every precision, one sample: kernels, operations, bytes, microseconds on every chip."""
    chips = list(record["chips"])
    rows: list[Row] = []
    for model, found in record["models"].items():
        for precision, made in found["halves"].items():
            for half, batches in made.items():
                one = batches["1"]
                counts = (f"{one['kernels']}", f"{one['operations'] / 1e9:.2f}", f"{one['bytes'] / 1e6:.1f}")
                times = tuple(HALF.format_map(one["predicted us"][chip]) for chip in chips)
                rows.append((f"{model} {half}, {precision}", *counts, *times))
    return ("half, **predicted** us", "kernels", "GFLOP", "MB", *chips), rows


def frame(record: Mapping[str, Any]) -> Table:
    """The stages of a frame in fp16, milliseconds on every chip."""
    rows: list[Row] = []
    stages: list[str] = []
    for model, found in record["models"].items():
        for chip, times in found["frame"]["fp16"].items():
            stages = list(times)
            rows.append((f"{model}, {chip}", *(f"{times[stage]:.2f}" for stage in stages)))
    return ("fp16, **predicted** ms", *stages), rows


def kernels(record: Mapping[str, Any]) -> Table:
    """The Triton kernels of a training step, microseconds on every chip."""
    chips = list(record["chips"])
    rows: list[Row] = [
        (row["kernel"], f"{row['operations'] / 1e9:.2f}", f"{row['bytes'] / 1e6:.1f}")
        + tuple(f"{row['predicted us'][chip]:.0f}" for chip in chips)
        for row in record["kernels of a training step"]
    ]
    return ("kernel, fp16, **predicted** us", "GFLOP", "MB", *chips), rows


TABLES = {"gpu halves": halves, "gpu frame": frame, "gpu kernels": kernels}
