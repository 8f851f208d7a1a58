"""Measures this machine's peak: the best of several libraries and sizes at square matrix products.

Kinds: "fp32", "int8" (8-bit factors, 32-bit sums), "bf16" where the processor has it. n is the side of a matrix.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from avgn.runtime.engines.openvino_engine import openvino_core

SIDES = (512, 1024, 2048)
MEASURED_SECONDS = 0.15
LEAST_RUNS = 3

Call = Callable[[], object]


def measure_peaks(library: str, threads: int, *, sizes: tuple[int, ...] = SIDES) -> list[dict[str, Any]]:
    """Measure a library's best product of every kind that it offers: {"kind", "by", "size", "gops"}, 1e9 operations a
    second.

    A multiplication and an addition are two operations.
    """
    best: dict[str, dict[str, Any]] = {}
    for size in sizes:
        for kind, call in LIBRARIES[library](size, threads):
            gops = 2 * size**3 / _fastest(call) / 1e9
            if gops > best.get(kind, {"gops": 0.0})["gops"]:
                best[kind] = {"kind": kind, "by": library, "size": size, "gops": gops}
    return list(best.values())


def installed_libraries() -> list[str]:
    """Return those of LIBRARIES that are installed; two of them need onnx as well, which writes their graphs."""
    needed = {"onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino", "onnx")}
    return [name for name in LIBRARIES if all(find_spec(module) for module in needed.get(name, (name,)))]


def _fastest(call: Call) -> float:
    call()
    times: list[float] = []
    while len(times) < LEAST_RUNS or sum(times) < MEASURED_SECONDS:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def _numpy(size: int, threads: int) -> Iterator[tuple[str, Call]]:
    # the number of its threads comes from the environment
    a, b = _matrices(size)
    out = np.empty_like(a)
    yield "fp32", lambda: np.matmul(a, b, out=out)


def _torch(size: int, threads: int) -> Iterator[tuple[str, Call]]:
    import torch

    torch.set_num_threads(threads)
    a, b = (torch.from_numpy(x) for x in _matrices(size))
    yield "fp32", lambda: torch.mm(a, b)
    c, d = ((100 * x).to(torch.int8) for x in (a, b))
    if hasattr(torch, "_int_mm"):
        yield "int8", lambda: torch._int_mm(c, d)


def _onnxruntime(size: int, threads: int) -> Iterator[tuple[str, Call]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    for kind, model, feed in (("fp32", _float_graph(size), _floats(size)), ("int8", _byte_graph(size), _bytes(size))):
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        yield kind, lambda session=session, feed=feed: session.run(None, {"a": feed})  # type: ignore[misc]


def _openvino(size: int, threads: int) -> Iterator[tuple[str, Call]]:
    core = openvino_core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    graphs = [("fp32", _float_graph(size), "f32"), ("int8", _quantized_graph(size), "f32")]
    graphs += [("bf16", _float_graph(size), "bf16")] if "BF16" in able else []
    for kind, model, precision in graphs:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
        }
        request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
        feed = {"a": _floats(size)}
        yield (
            kind,
            lambda request=request, feed=feed: request.infer(feed, share_inputs=True, share_outputs=True),  # type: ignore[misc]
        )


LIBRARIES: dict[str, Callable[[int, int], Iterator[tuple[str, Call]]]] = {
    "numpy": _numpy,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}


def _matrices(size: int) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    return random.random((size, size), np.float32), random.random((size, size), np.float32)


def _floats(size: int) -> Any:
    return _matrices(size)[0]


def _bytes(size: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (size, size), np.uint8)


def _weights(size: int) -> Any:
    return np.random.default_rng(1).integers(-127, 128, (size, size), np.int8)


def _float_graph(size: int) -> bytes:
    """Build a graph of a [n,n] x constant."""
    return _graph(size, "FLOAT", "FLOAT", [("MatMul", ("a", "b"), "c")], {"b": _matrices(size)[1]})


def _byte_graph(size: int) -> bytes:
    """Build a graph of a [n,n] uint8 x constant int8 -> int32."""
    nodes = [("MatMulInteger", ("a", "b", "zero"), "c")]
    return _graph(size, "UINT8", "INT32", nodes, {"b": _weights(size), "zero": np.uint8(128)})


def _quantized_graph(size: int) -> bytes:
    """Build a graph of a [n,n], quantized to 8 bits, x constant int8, as quantized models hold it."""
    constants = {"b": _weights(size), "scale": np.float32(1 / 255), "low": np.uint8(0), "step": np.float32(0.01)}
    nodes = [
        ("QuantizeLinear", ("a", "scale", "low"), "q"),
        ("DequantizeLinear", ("q", "scale", "low"), "x"),
        ("DequantizeLinear", ("b", "step"), "y"),
        ("MatMul", ("x", "y"), "c"),
    ]
    return _graph(size, "FLOAT", "FLOAT", nodes, constants)


def _graph(
    size: int, given: str, made: str, nodes: Sequence[tuple[str, tuple[str, ...], str]], constants: dict[str, Any]
) -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

    sides = [
        helper.make_tensor_value_info(name, getattr(TensorProto, kind), (size, size))
        for name, kind in (("a", given), ("c", made))
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes],
        "product",
        sides[:1],
        sides[1:],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
