"""Predictions: kernels are counted right, and are called what they are (tables against JSON: test_tables.py)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from avgn.export.cost import multiply_adds
from avgn.runtime import Bundle
from benchmarks import layers
from benchmarks.budget import half_record
from benchmarks.chips import CHIPS, Chip
from benchmarks.gpu_steps import ROOT
from docs.tools import gpu_tables

RESULTS = ROOT / "benchmarks" / "results" / "gpu-budget.json"
PAGE = ROOT / "docs" / "gpu.md"
# 100 operations and 10 bytes a second on 4 multiprocessors
TOY = Chip(
    sheet="",
    fp32_ops_per_second=100,
    tf32_ops_per_second=100,
    fp16_ops_per_second=200,
    int8_ops_per_second=400,
    memory_bytes_per_second=10,
    bus_bytes_per_second=1,
    num_multiprocessors=4,
    launch_seconds=3,
    gap_seconds=1,
    reply_seconds=0,
)


def test_predictions_are_called_predictions() -> None:
    record = json.loads(RESULTS.read_text())
    assert "predicted" in record["label"]
    # the data sheets of the record are those of the source
    assert record["chips"] == {name: chip.record() for name, chip in CHIPS.items()}
    page = PAGE.read_text()
    for name, make in gpu_tables.TABLES.items():
        assert f"<!-- table: {name} -->" in page
        head, rows = make(record)
        assert "**predicted**" in head[0] and len(rows) >= 6


def test_both_presets_are_free_of_hazards_in_the_record() -> None:
    for found in json.loads(RESULTS.read_text())["models"].values():
        assert len(found["graph_hazards"]) == 8 and not any(found["graph_hazards"].values())


@pytest.mark.parametrize("half", ["audio", "image"])
def test_operations_are_those_of_the_running_graph(half: str) -> None:
    bundle = Bundle.load("tiny")
    graph = onnx.load(bundle.graph(bundle.variants[0], half))
    feeds: dict[str, dict[str, Any]] = {
        "audio": {"waveform": np.zeros((2, bundle.info.window_samples), np.float32)},
        "image": {
            "image": np.zeros((2, *bundle.image_size, 3), np.uint8),
            "sources": np.zeros((2, len(bundle.classes), 128), np.float32),
        },
    }
    kernels = layers.count(graph, {name: value.shape for name, value in feeds[half].items()})
    assert sum(kernel.operations for kernel in kernels) == 2 * sum(multiply_adds(graph, feeds[half]).values())
    # nothing moves less than inputs, outputs and weights once
    least = sum(value.nbytes for value in feeds[half].values())
    least += sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in graph.graph.initializer if tensor.dims)
    assert least < sum(kernel.bytes for kernel in kernels) < 40 * least


def graph_of(kind: int) -> Any:
    """relu(x w + b), its softmax added to it: two kernels."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="product"),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["hidden"]),
        helper.make_node("Softmax", ["hidden"], ["weights"], name="softmax"),
        helper.make_node("Mul", ["weights", "hidden"], ["y"]),
    ]
    given = helper.make_tensor_value_info("x", kind, ["rows", 8])
    made = helper.make_tensor_value_info("y", kind, ["rows", 4])
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = [
        onnx.numpy_helper.from_array(np.ones(shape, dtype), name) for name, shape in (("w", (8, 4)), ("b", (4,)))
    ]
    graph = helper.make_graph(nodes, "g", [given], [made], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(("kind", "size"), [(TensorProto.FLOAT, 4), (TensorProto.FLOAT16, 2)], ids=["fp32", "fp16"])
def test_kernels_of_a_graph_counted_by_hand(kind: int, size: int) -> None:
    product, softmax = layers.count(graph_of(kind), {"x": (64, 8)})
    assert (product.kind, softmax.kind) == ("Gemm", "Softmax") or product.kind == "MatMul"
    assert product.operations == 2 * 64 * 8 * 4 and softmax.operations == 0
    # x, w, b and what the softmax's kernel reads; that reads it once and writes y
    assert product.bytes == size * (64 * 8 + 8 * 4 + 4 + 64 * 4)
    assert softmax.bytes == size * 2 * 64 * 4
    assert product.tiles == 2
    assert product.precision == ("fp32" if size == 4 else "fp16")


def test_times_follow_from_the_data_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = layers.Kernel(name="a", kind="Conv", operations=1000, precision="fp16", tiles=2, bytes=20)
    light = layers.Kernel(name="b", kind="Softmax", operations=0, precision="fp32", tiles=0, bytes=7)
    assert heavy.least(TOY) == 5.0 and light.least(TOY) == 0.7
    # half of the peak on half of the multiprocessors; 70 % of the bandwidth
    assert heavy.expected(TOY) == 20.0 and light.expected(TOY) == pytest.approx(1.0)
    monkeypatch.setattr("benchmarks.budget.CHIPS", {"toy": TOY})
    found = half_record([heavy, light])
    assert found["kernels"] == 2 and found["bytes"] == 27
    assert found["predicted_us"]["toy"] == {
        "roofline": 5.7e6,
        "cuda_graph": (3 + 20 + 1 + 1 + 1) * 1e6,
        "one_by_one": (21 + 3) * 1e6,
    }
