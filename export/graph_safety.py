"""Whether a half can be recorded as a CUDA graph: no waiting for the host, no shape that depends on data.

Both checks run without a GPU: a module is traced with fake CUDA tensors, an ONNX graph is folded for fixed sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from avgn.runtime.errors import InputError

# PyTorch's own marks of operators whose result the host must read, and of those whose result has as many rows as the
# data wants
WAITS = {
    torch.Tag.data_dependent_output: "the host reads its value",
    torch.Tag.dynamic_output_shape: "its shape depends on data",
}
# operators of ONNX whose outputs have as many rows as the data wants, or that run graphs by a value
DYNAMIC = ("NonZero", "Compress", "Unique", "NonMaxSuppression", "Loop", "If", "Scan", "StringSplit", "SequenceMap")
# what is left of arithmetic on shapes
SHAPES = ("Shape", "Size")
# inputs that decide the shape of an output, by operator
SIZES = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "ConstantOfShape": (0,), "Slice": (1, 2, 3, 4), "Pad": (1, 3),
    "Resize": (2, 3), "Split": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "TopK": (1,), "OneHot": (1,),
    "Range": (0, 1, 2), "ReduceSum": (1,), "ReduceMax": (1,), "ReduceMean": (1,), "ReduceL2": (1,),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What a module does on a GPU: operators that compute (views left out), counted, and what forbids a graph."""

    operators: dict[str, int]
    hazards: tuple[str, ...]


class _Recorder(TorchDispatchMode):
    """Notes every operator, and those that leave the device or wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.hazards: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.hazards += [f"{func}: {why}" for tag, why in WAITS.items() if tag in func.tags]
        found = func(*args, **kwargs)
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        made = [value for value in tree_leaves(found) if isinstance(value, Tensor)]
        if made and not func.is_view:
            self.operators[str(func)] += 1
        # numbers as tensors of no dimension travel with the launch
        places = {value.device.type for value in (*given, *made) if value.dim() or value.device.type != "cpu"}
        if len(places) > 1:
            self.hazards.append(f"{func}: copies between {' and '.join(sorted(places))}")
        elif places == {"cpu"}:
            self.hazards.append(f"{func}: computes on the CPU")
        return found


def trace(module: nn.Module, arguments: Sequence[Tensor]) -> Trace:
    """Run a module on fake CUDA tensors of its arguments' shapes; nothing is computed and no GPU is needed.

    Parameters and buffers count as being on the device. The trace ends at the first operator that can't go on.
    """
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    recorder = _Recorder()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=False):
        fake = {name: torch.empty(value.shape, dtype=value.dtype, device="cuda") for name, value in state.items()}
        given = tuple(torch.empty(value.shape, dtype=value.dtype, device="cuda") for value in arguments)
        with recorder:
            try:
                torch.func.functional_call(module, fake, given)
            except (DataDependentOutputException, DynamicOutputShapeException):
                # noted when it was called
                pass
            except AssertionError as error:
                if "convert all Tensors to FakeTensors" not in str(error):
                    raise
                recorder.hazards.append(
                    "a tensor that is neither an argument nor a buffer would be copied to the device"
                )
    return Trace(operators=dict(recorder.operators), hazards=tuple(dict.fromkeys(recorder.hazards)))


def fix_sizes(graph: Any, sizes: Mapping[str, Sequence[int]]) -> Any:
    """Return an ONNX graph for inputs of these sizes alone: what follows from sizes is computed, every shape is written
    down.

    Raises InputError for sizes that leave an input out.
    """
    import onnx
    import onnxscript.optimizer

    fixed = onnx.ModelProto()
    fixed.CopyFrom(graph)
    for value in fixed.graph.input:
        if value.name not in sizes:
            raise InputError(f"the graph's input {value.name!r} has no size: give one of each of its inputs")
        _write_shape(value, sizes[value.name])
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    # not by ONNX Runtime, which brings float16 to float32 where the CPU has no kernel for it
    folded = onnxscript.optimizer.optimize(fixed, onnx_shape_inference=True)
    del folded.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(folded, strict_mode=True, data_prop=True)


def graph_hazards(graph: Any, sizes: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """Return what keeps an ONNX graph for inputs of these sizes from being recorded; empty when nothing does."""
    nodes = [node for node in graph.graph.node if node.op_type in DYNAMIC]
    if nodes:
        return tuple(f"{node.op_type} {node.name}: its shape or its work depends on data" for node in nodes)
    fixed = fix_sizes(graph, sizes)
    constants = {tensor.name for tensor in fixed.graph.initializer}
    constants |= {node.output[0] for node in fixed.graph.node if node.op_type == "Constant"}
    found = []
    for node in fixed.graph.node:
        if node.op_type in SHAPES:
            found.append(f"{node.op_type} {node.name}: shapes are computed while it runs")
        wanted = [node.input[at] for at in SIZES.get(node.op_type, ()) if at < len(node.input)]
        if open_inputs := [name for name in wanted if name and name not in constants]:
            found.append(f"{node.op_type} {node.name}: its shape comes from {open_inputs[0]}, which is computed")
    shapes = known_shapes(fixed)
    made = [name for node in fixed.graph.node for name in node.output if name]
    found += [f"{name}: its shape is not known before it runs" for name in made if name not in shapes]
    return tuple(found)


def known_shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a graph whose every axis is a number."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        kind = value.type.tensor_type
        axes = kind.shape.dim
        if kind.HasField("shape") and all(axis.HasField("dim_value") for axis in axes):
            shapes[value.name] = tuple(axis.dim_value for axis in axes)
    return shapes


def _write_shape(value: Any, shape: Sequence[int]) -> None:
    axes = value.type.tensor_type.shape.dim
    if len(axes) != len(shape):
        raise InputError(f"input {value.name!r} has {len(axes)} axes, its size {list(shape)} has {len(shape)}")
    for axis, size in zip(axes, shape, strict=True):
        axis.dim_value = size
