"""Counts the kernels that an engine makes of an ONNX graph, with their operations and bytes, from the graph alone.

A convolution, matrix product, pool, norm, softmax or reduction starts a kernel; everything that works element by
element joins the kernel that made its latest input, as engines fuse them. What stays inside a kernel moves no bytes;
what is handed on is written once and read once by each that takes it. No cache between kernels is counted on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from avgn.export.graph_safety import fix_sizes, known_shapes
from benchmarks.chips import Chip

LAYERS = ("Conv", "MatMul", "Gemm")
STARTS = (*LAYERS, "MaxPool", "LayerNormalization", "Softmax", "LogSoftmax", "ArgMax")
# other names of the same memory; what dequantizes is read by the layer behind it
VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "DequantizeLinear")
PRECISIONS = {onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "int8"}
# rows and columns of the smallest block of results that engines give a multiprocessor
TILE_SIDE = 32
# shares of the peaks that good kernels reach
COMPUTE_SHARE, MEMORY_SHARE = 0.5, 0.7


@dataclass(kw_only=True)
class Kernel:
    """Describes one launch: operations (two a multiply-add), bytes moved, the precision it multiplies in, its blocks of
    threads (0 where none are counted)."""

    name: str
    kind: str
    operations: int
    precision: str
    tiles: int
    bytes: int = 0
    reads: set[str] = field(default_factory=set)
    makes: set[str] = field(default_factory=set)

    def least(self, chip: Chip) -> float:
        """Return the seconds that no kernel can beat."""
        return max(self.operations / chip.rate(self.precision), self.bytes / chip.memory_bytes_per_second)

    def expected(self, chip: Chip) -> float:
        """Predict the seconds at the shares of the peaks that good kernels reach, on as many multiprocessors as it has
        blocks."""
        busy = min(1.0, self.tiles / chip.num_multiprocessors) if self.tiles else 1.0
        return max(
            self.operations / (chip.rate(self.precision) * COMPUTE_SHARE * busy),
            self.bytes / (chip.memory_bytes_per_second * MEMORY_SHARE),
        )


def count(graph: Any, sizes: Mapping[str, Sequence[int]]) -> list[Kernel]:
    """Return the kernels of an ONNX graph for inputs of these sizes, in order."""
    fixed = fix_sizes(graph, sizes)
    shapes, kinds = known_shapes(fixed), _kinds(fixed)
    constants = {node.output[0] for node in fixed.graph.node if node.op_type == "Constant"}
    memory: dict[str, str] = {}
    maker: dict[str, int] = {}
    kernels: list[Kernel] = []
    for node in fixed.graph.node:
        if node.op_type == "Constant":
            continue
        given = [memory.get(name, name) for name in node.input if name]
        if node.op_type in VIEWS:
            memory[node.output[0]] = given[0]
            continue
        made = [maker[name] for name in given if name in maker]
        if node.op_type in STARTS or node.op_type.startswith("Reduce") or not made:
            kernels.append(_start(node, given, shapes, kinds))
            at = len(kernels) - 1
        else:
            at = max(made)
        kernels[at].reads |= {name for name in given if maker.get(name) != at and name not in constants}
        kernels[at].makes |= set(node.output)
        maker |= dict.fromkeys(node.output, at)
    results = {memory.get(value.name, value.name) for value in fixed.graph.output}
    for kernel in kernels:
        others = set().union(*(other.reads for other in kernels if other is not kernel))
        moved = kernel.reads | (kernel.makes & (others | results))
        kernel.bytes = sum(math.prod(shapes[name]) * _width(kinds[name]) for name in moved)
    return kernels


def _start(node: Any, given: list[str], shapes: Mapping[str, tuple[int, ...]], kinds: Mapping[str, int]) -> Kernel:
    out = shapes[node.output[0]]
    operations = tiles = 0
    if node.op_type in LAYERS:
        first, second = shapes[node.input[0]], shapes[node.input[1]]
        turned = any(entry.name == "transA" and entry.i for entry in node.attribute)
        depth = math.prod(second[1:]) if node.op_type == "Conv" else first[0] if turned else first[-1]
        operations = 2 * math.prod(out) * depth
        if node.op_type == "Conv":
            rows, columns, batch = out[0] * math.prod(out[2:]), out[1], 1
        else:
            rows, columns, batch = out[-2], out[-1], math.prod(out[:-2])
            if len(second) == 2:
                # the same weights for all: one long product
                rows, batch = rows * batch, 1
        tiles = batch * math.ceil(rows / TILE_SIDE) * math.ceil(columns / TILE_SIDE)
    precision = PRECISIONS.get(kinds[given[0]], "fp32") if node.op_type in LAYERS else "fp32"
    return Kernel(name=node.name, kind=node.op_type, operations=operations, precision=precision, tiles=tiles)


def _kinds(graph: Any) -> dict[str, int]:
    kinds = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        kinds[value.name] = value.type.tensor_type.elem_type
    return kinds


def _width(kind: int) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
