"""Stores weights that float16 can hold in half the bytes: a Cast gives them back when the graph is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

# smaller tensors are not worth a node
LEAST = 1 << 10
# what a rounded weight may be off by, in parts of itself: a few of float32's own steps
NEAR = 1e-6
READERS = ("Conv", "MatMul", "Gemm")


def store_halves(source: Path, target: Path) -> Path:
    """Write a graph with those weights of its layers as float16 that lose nothing by it; returns `target`.

    A graph without any is copied as it is.
    """
    graph = onnx.load(source)
    read = {name for node in graph.graph.node if node.op_type in READERS for name in node.input[1:2]}
    casts = []
    for tensor in graph.graph.initializer:
        if tensor.name not in read or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        wide = onnx.numpy_helper.to_array(tensor)
        if wide.size < LEAST or np.abs(wide).max() > np.finfo(np.float16).max:
            continue
        half = wide.astype(np.float16)
        if not np.all(np.abs(half.astype(np.float32) - wide) <= NEAR * np.abs(wide)):
            continue
        name = tensor.name
        stored = f"{name}.half"
        casts.append(onnx.helper.make_node("Cast", [stored], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT))
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, stored))
    if not casts:
        target.write_bytes(source.read_bytes())
        return target
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, target)
    return target
