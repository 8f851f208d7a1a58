"""What 8-bit graphs of both flavours hold, on a graph of a few nodes: what each engine wants, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from avgn.export import quantize


def network(folder: Path, mean: float) -> Path:
    """Bytes less their mean through a convolution, a ReLU and an addition beside a second convolution, to a product."""
    rng = np.random.default_rng(0)
    held = {
        quantize.PIXEL_MEAN: np.full((1, 3, 1, 1), mean, np.float32),
        "first.weight": rng.normal(0, 0.1, (4, 3, 3, 3)).astype(np.float32),
        "first.bias": rng.normal(0, 1, 4).astype(np.float32),
        "second.weight": rng.normal(0, 0.3, (4, 4, 1, 1)).astype(np.float32),
        "last.weight": rng.normal(0, 0.3, (8, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["turned", quantize.PIXEL_MEAN], ["pixels"]),
        helper.make_node("Conv", ["pixels", "first.weight", "first.bias"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second.weight"], ["c"], name="second"),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("MatMul", ["d", "last.weight"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ("b", 8, 8, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("b", 4, 8, 5))],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    path = folder / "float.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def quantized(folder: Path, flavour: str, mean: float = 128.0) -> onnx.ModelProto:
    """The 8-bit graph, which gives nearly what the float one gives."""
    file, out = network(folder, mean), folder / f"{flavour}.onnx"
    rng = np.random.default_rng(1)
    feeds = [{"image": rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)} for _ in range(4)]
    quantize.quantize(file, out, flavour, quantize.calibrate(file, feeds, "percentile"))
    sessions = [onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (file, out)]
    exact, found = (session.run(None, feeds[0])[0] for session in sessions)
    assert np.sqrt(np.mean((found - exact) ** 2)) <= 0.05 * np.sqrt(np.mean(exact**2))
    return onnx.load(out)


def parts(model: onnx.ModelProto) -> tuple[dict[str, np.ndarray], dict[str, str]]:  # type: ignore[type-arg]
    """Constants by name, and the kind of node that makes each value."""
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return held, {name: node.op_type for node in model.graph.node for name in node.output}


def test_for_a_gpu_activations_are_symmetric_and_the_rest_is_float(tmp_path: Path) -> None:
    model = quantized(tmp_path, "int8-gpu")
    held, makers = parts(model)
    zeros = [held[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros and all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert not any(value.dtype == np.int32 for value in held.values())
    assert held["first.bias"].dtype == np.float32
    (add,) = (node for node in model.graph.node if node.op_type == "Add")
    assert [makers[name] for name in add.input] == ["Relu", "Conv"]
    # outputs of layers are not brought to 8 bits of their own
    read = {name for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    assert not {makers.get(name) for name in read} & {"Conv", "MatMul"}


def test_for_a_cpu_activations_are_bytes_and_products_have_float_outputs(tmp_path: Path) -> None:
    model = quantized(tmp_path, "int8-cpu")
    held, makers = parts(model)
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers and all(held[node.input[2]].dtype == np.uint8 for node in quantizers)
    assert any(value.dtype == np.int32 and value.shape == (4,) for value in held.values())
    read = {makers.get(node.input[0]) for node in quantizers}
    assert "Conv" in read and "MatMul" not in read and makers["y"] == "MatMul"


@pytest.mark.parametrize(("mean", "kept"), [(128.0, False), (127.5, True)])
def test_bytes_stay_bytes_where_the_mean_is_whole(tmp_path: Path, mean: float, kept: bool) -> None:
    kinds = [node.op_type for node in quantized(tmp_path, "int8-cpu", mean).graph.node]
    assert ("Sub" in kinds) is ("Cast" in kinds) is kept
    # nothing that nobody reads is left
    model = onnx.load(tmp_path / "int8-cpu.onnx")
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    if not kept:
        assert quantize.PIXEL_MEAN not in {tensor.name for tensor in model.graph.initializer}
