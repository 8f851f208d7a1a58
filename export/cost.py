"""Counts the multiply-adds of a graph's convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

LAYERS = ("Conv", "MatMul", "Gemm")


def multiply_adds(graph: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Multiply-adds of every convolution and matrix product for the inputs `feed`, by node name."""
    import onnxruntime

    nodes = [node for node in graph.graph.node if node.op_type in LAYERS]
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    wanted = {node.output[0] for node in nodes}
    wanted |= {node.input[0] for node in nodes if node.op_type != "Conv"}
    wanted -= {value.name for value in (*graph.graph.input, *graph.graph.output)} | set(weights)
    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    for name in sorted(wanted):
        watched.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    shapes = {name: value.shape for name, value in zip(names, session.run(names, dict(feed)), strict=True)}
    shapes |= weights | {name: value.shape for name, value in feed.items()}
    counts = {}
    for node in nodes:
        out = int(np.prod(shapes[node.output[0]]))
        if node.op_type == "Conv":
            counts[node.name] = out * int(np.prod(shapes[node.input[1]][1:]))
        else:
            counts[node.name] = out * shapes[node.input[0]][-1]
    return counts
