"""The tables of docs/gpu.md, from benchmarks/results/gpu-budget.json and what an H200 measured beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avgn.runtime.contract import HALVES
from docs.tools.comparison import Row

Table = tuple[Row, list[Row]]
# the key of a stage in the record, and its heading
STAGES = {
    "copy_in": "copy in",
    "image_half": "image half",
    "copy_out": "copy out",
    "audio_half_share": "audio half, its share",
    "resize": "resize (CPU)",
    "decide": "decide (CPU)",
    "together": "together",
}
HALF = "{roofline:.0f} / {cuda_graph:.0f} / {one_by_one:.0f}"


def halves(record: Mapping[str, Any]) -> Table:
    """Tabulate every half in every precision, one sample: kernels, operations, bytes, microseconds on every chip."""
    chips = list(record["chips"])
    rows: list[Row] = []
    for model, found in record["models"].items():
        for precision, made in found["halves"].items():
            for half, batches in made.items():
                one = batches["1"]
                counts = (f"{one['kernels']}", f"{one['operations'] / 1e9:.2f}", f"{one['bytes'] / 1e6:.1f}")
                times = tuple(HALF.format_map(one["predicted_us"][chip]) for chip in chips)
                rows.append((f"{model} {half}, {precision}", *counts, *times))
    return ("half, **predicted** us", "kernels", "GFLOP", "MB", *chips), rows


def frame(record: Mapping[str, Any]) -> Table:
    """Tabulate the stages of a frame in fp16, milliseconds on every chip."""
    rows: list[Row] = [
        (f"{model}, {chip}", *(f"{times[stage]:.2f}" for stage in STAGES))
        for model, found in record["models"].items()
        for chip, times in found["frame_ms"]["fp16"].items()
    ]
    return ("fp16, **predicted** ms", *STAGES.values()), rows


def kernels(record: Mapping[str, Any]) -> Table:
    """Tabulate the Triton kernels of a training step, microseconds on every chip."""
    chips = list(record["chips"])
    rows: list[Row] = [
        (row["kernel"], f"{row['operations'] / 1e9:.2f}", f"{row['bytes'] / 1e6:.1f}")
        + tuple(f"{row['predicted_us'][chip]:.0f}" for chip in chips)
        for row in record["training_step_kernels"]
    ]
    return ("kernel, fp16, **predicted** us", "GFLOP", "MB", *chips), rows


def measured(budget: Mapping[str, Any], record: Mapping[str, Any]) -> Table:
    """Tabulate what was predicted for an H100 SXM beside what an H200 measured, in microseconds."""
    rows: list[Row] = []
    halves = {(row["model"], row["kind"], row["half"], row["batch"]): row for row in record["runs"]["halves"]}
    kinds = (("fp32", "fp32 optimized"), ("fp16", "fp16 mixed optimized"))
    for model, found in budget["models"].items():
        for precision, kind in kinds:
            for half in HALVES:
                expected = found["halves"][precision][half]["1"]["predicted_us"][MEASURED]["cuda_graph"]
                row = halves[model, kind, half, 1]
                compiled = halves.get((model, "fp16 mixed compiled", half, 1)) if precision == "fp16" else None
                best = compiled or row
                what = f"{model} {half}, {precision}, CUDA graph" + (", compiled" if compiled else "")
                rows.append(_against(what, expected, best["graph_us"]))
    return ("us", "**predicted**, H100 SXM", "measured, H200", "ratio"), rows + _others(budget, record)


def _others(budget: Mapping[str, Any], record: Mapping[str, Any]) -> list[Row]:
    """Tabulate ONNX Runtime, kernel by kernel and as a graph, and the Triton kernels, as last measured."""
    tiny = budget["models"]["avgn-tiny"]["halves"]["fp32"]
    speed = record["runs"]["onnxruntime-cuda"]["rows"][0]["wall_ms"]
    rows = [
        _against(
            f"avgn-tiny {half}, fp32, ONNX Runtime's CUDA provider, one by one",
            tiny[half]["1"]["predicted_us"][MEASURED]["one_by_one"],
            1e3 * speed[half]["p50"],
        )
        for half in HALVES
    ]
    replayed = {row["half"]: row for row in record["third_window"]["onnxruntime_cuda"]["calls"] if row["batch"] == 1}
    rows += [
        _against(
            f"avgn-tiny {half}, fp32, ONNX Runtime's CUDA provider, CUDA graph",
            tiny[half]["1"]["predicted_us"][MEASURED]["cuda_graph"],
            1e3 * replayed[half]["with_graph_ms"],
        )
        for half in HALVES
    ]
    late, early = record["second_window"]["kernel_times"], record["first_window_kernels"]["times"]
    grouping, plain = (row["fused"] for row in late)
    gated = early[f"time cos {GATED}"]["fused"]
    found = (
        ("grouping_attention", "", "training_step_kernels", grouping["forward_us"], grouping["both_us"]),
        (
            "max_pooled_cosine",
            ", no gates (256, 2, 196)",
            "kernels_without_gates",
            plain["forward_us"],
            plain["both_us"],
        ),
        ("max_pooled_cosine", ", class gates, a state before", "training_step_kernels", gated["f"], gated["fb"]),
    )
    for name, kind, launches, forward, both in found:
        own = {
            row["kernel"]: row["predicted_us"][MEASURED] for row in budget[launches] if row["kernel"].startswith(name)
        }
        first = sum(expected for kernel, expected in own.items() if " forward" in kernel)
        rows.append(_against(f"{name} forward, fp16{kind}", first, forward))
        rows.append(_against(f"{name} forward and backward, fp16{kind}", sum(own.values()), both))
    return rows


def _against(what: str, predicted: float, measured: float) -> Row:
    return (what, f"{predicted:.0f}", f"{measured:.0f}", f"{measured / predicted:.1f}")


MEASURED = "H100 SXM"
GATED = (128, 2, 49, 512, 37)
TABLES = {"gpu halves": halves, "gpu frame": frame, "gpu kernels": kernels}
