"""Multiply-adds of small graphs, counted by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from avgn.export.cost import multiply_adds

Shapes = Mapping[str, tuple[int, ...]]


def graph(nodes: list[onnx.NodeProto], inputs: Shapes, weights: Shapes) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    held = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()]
    made = [helper.make_empty_tensor_value_info(nodes[-1].output[0])]
    made[0].type.tensor_type.elem_type = TensorProto.FLOAT
    whole = helper.make_graph(nodes, "g", values, made, held)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def feed(inputs: Shapes) -> dict[str, Any]:
    return {name: np.ones(shape, np.float32) for name, shape in inputs.items()}


@pytest.mark.parametrize(
    ("options", "weight", "expected"),
    [
        # batch 2, 6 channels made, 5 x 4 places; 3 channels and 3 x 3 places read for each
        ({}, (6, 3, 3, 3), 2 * 6 * 5 * 4 * 3 * 3 * 3),
        ({"pads": [1, 1, 1, 1]}, (6, 3, 3, 3), 2 * 6 * 7 * 6 * 3 * 3 * 3),
        ({"strides": [2, 2]}, (6, 3, 3, 3), 2 * 6 * 3 * 2 * 3 * 3 * 3),
        # each of three groups reads one channel
        ({"group": 3}, (6, 1, 3, 2), 2 * 6 * 5 * 5 * 1 * 3 * 2),
    ],
    ids=["plain", "padded", "strided", "grouped"],
)
def test_a_convolution(options: dict[str, Any], weight: tuple[int, ...], expected: int) -> None:
    inputs = {"x": (2, 3, 7, 6)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **options)
    assert multiply_adds(graph([node], inputs, {"w": weight}), feed(inputs)) == {"conv": expected}


def test_products_of_weights_and_of_activations() -> None:
    inputs = {"x": (2, 5, 7), "z": (2, 11, 13)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["between"], name="weights"),
        helper.make_node("Relu", ["between"], ["kept"]),
        helper.make_node("MatMul", ["kept", "z"], ["both"], name="activations"),
        helper.make_node("MatMul", ["b", "both"], ["last"], name="weights-first"),
    ]
    found = multiply_adds(graph(nodes, inputs, {"a": (7, 11), "b": (3, 5)}), feed(inputs))
    assert found == {
        "weights": 2 * 5 * 11 * 7,
        "activations": 2 * 5 * 13 * 11,
        "weights-first": 2 * 3 * 13 * 5,
    }


def test_a_product_with_a_sum_behind_it_and_what_is_none() -> None:
    inputs = {"x": (4, 7)}
    nodes = [
        helper.make_node("Gemm", ["x", "a", "c"], ["y"], name="gemm", transB=1),
        helper.make_node("Mul", ["y", "y"], ["z"], name="mul"),
    ]
    found = multiply_adds(graph(nodes, inputs, {"a": (9, 7), "c": (9,)}), feed(inputs))
    assert found == {"gemm": 4 * 9 * 7}
