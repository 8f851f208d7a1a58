"""8-bit graphs with QuantizeLinear/DequantizeLinear pairs, in two flavours, since engines want opposite things.

"int8-cpu" (ONNX Runtime, OpenVINO): uint8 activations with zero points, int32 biases; ReLUs go into the quantization
of convolutions, which have 8-bit outputs (ONNX Runtime needs them), matrix products have float ones. "int8-gpu"
(TensorRT): symmetric int8 activations on the inputs of layers alone, float biases, nothing on additions and pools.
Weights are int8 with a scale per output channel in both; for CPUs they take 7 of the 8 bits, since those without VNNI
add two products of a byte and a weight in 16 bits, where 2 * 255 * 127 doesn't fit. Products of two activations and the
front-end stay float.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from avgn.model import FRONT_END, IMAGENET_MEAN

Feed = Mapping[str, NDArray[Any]]

METHODS = ("percentile", "entropy")
PERCENTILE = 99.999
LAYERS = ("Conv", "MatMul", "Gemm")
# small layers of the world model whose results are log-odds, or exponentials of them: 8 bits don't hold their range
HEADS = ("audio_tokens.", "cell_tokens.", "blur.", "face.fine.", "face.coarse.")
# what 8 bits from zero up need no node for
RANGES = ("Relu", "Clip")
PRODUCTS = ("MatMul", "Gemm")
# the buffer of a model, and the weight of its graph
PIXEL_MEAN = "image_mean"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution or matrix product: its name (that of its weights), its node, and what may be done with it."""

    name: str
    node: str
    kind: str  # "layer", "front-end", "head", or "product" of two activations


def layers(graph: onnx.ModelProto) -> list[Layer]:
    """Return all convolutions and matrix products of a graph, in order."""
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    found = []
    for node in graph.graph.node:
        if node.op_type not in LAYERS:
            continue
        weight = weights.get(node.input[1])
        # the front-end's transform is the only convolution over one axis, or products that its tables begin
        over_time = node.op_type == "Conv" and (weight is None or len(weight.dims) == 3)
        if over_time or node.input[0].startswith(f"{FRONT_END}."):
            kind = "front-end"
        elif weight is not None and weight.name.startswith(HEADS):
            kind = "head"
        else:
            kind = "product" if weight is None else "layer"
        name = node.name if weight is None else weight.name.removesuffix(".weight")
        found.append(Layer(name=name, node=node.name, kind=kind))
    return found


def calibrate(file: Path, feeds: Sequence[Feed], method: str) -> Any:
    """Return the ranges of the activations around all layers over `feeds`, as ONNX Runtime's quantizer takes them."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    kind = CalibrationMethod.Percentile if method == "percentile" else CalibrationMethod.Entropy
    options = {"symmetric": False} | ({"percentile": PERCENTILE} if method == "percentile" else {})
    with tempfile.TemporaryDirectory() as folder, _quietly():
        calibrator = create_calibrator(
            file,
            [*LAYERS, *RANGES],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=kind,
            extra_options=options,
        )
        # one feed at a time: a collection holds every activation
        for feed in feeds:
            calibrator.collect_data(iter_reader([feed]))
        return calibrator.compute_data()


def quantize(file: Path, out: Path, flavour: str, ranges: Any, float_nodes: Collection[str] = ()) -> None:
    """Write the 8-bit form of a graph; nodes of `float_nodes`, the front-end, heads and products stay float."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    graph = onnx.load(file)
    kept = [layer.node for layer in layers(graph) if layer.kind != "layer"] + list(float_nodes)
    pixels = _pixels(graph)
    if pixels in ranges:
        # whatever the samples show, pixels are 0 to 255 less their mean
        mean = _pixel_mean(graph)
        low, high = np.array(-mean.max(), np.float32), np.array(255 - mean.min(), np.float32)
        ranges[pixels] = TensorData(lowest=low, highest=high)
    on_gpu = flavour == "int8-gpu"
    options: dict[str, Any] = {
        "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
        "OpTypesToExcludeOutputQuantization": list(LAYERS if on_gpu else PRODUCTS),
    }
    if on_gpu:
        options |= {"ActivationSymmetric": True, "QuantizeBias": False, "DedicatedQDQPair": True}
    with _quietly():
        quantizer = QDQQuantizer(
            graph,
            True,
            not on_gpu,
            QuantType.QInt8,
            QuantType.QInt8 if on_gpu else QuantType.QUInt8,
            ranges,
            [],
            kept,
            list(LAYERS) if on_gpu else [*LAYERS, *RANGES],
            options,
        )
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    made = quantizer.model.model
    if on_gpu:
        _spare_other_nodes(made)
    else:
        _take_pixels_as_they_are(made)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, out)


def _spare_other_nodes(graph: onnx.ModelProto) -> None:
    """Let additions and pools read the float tensor where a layer beside them reads its quantised form."""
    producers = {node.output[0]: node for node in graph.graph.node}
    for node in graph.graph.node:
        if node.op_type in (*LAYERS, "QuantizeLinear", "DequantizeLinear"):
            continue
        for at, name in enumerate(node.input):
            back = producers.get(name)
            if back is not None and back.op_type == "DequantizeLinear":
                quantized = producers.get(back.input[0])
                if quantized is not None and quantized.op_type == "QuantizeLinear":
                    node.input[at] = quantized.input[0]


def _take_pixels_as_they_are(graph: onnx.ModelProto) -> None:
    """Leave out what makes bytes of bytes: pixels less a whole number, in steps of one, are the pixels themselves.

    In place of image -> Cast -> Transpose -> Sub -> QuantizeLinear stands image -> Transpose.
    """
    makers = {name: node for node in graph.graph.node for name in node.output}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        chain = _chain(node, makers) if node.op_type == "QuantizeLinear" else None
        if chain is None:
            continue
        cast, turn, less = chain
        step, zero = (constants.get(name) for name in node.input[1:3])
        mean = constants.get(less.input[1])
        if step is None or zero is None or mean is None or step != 1 or zero.dtype != np.uint8 or (mean != zero).any():
            continue
        bytes_turned = onnx.helper.make_node(
            "Transpose", [cast.input[0]], [f"{node.output[0]} bytes"], perm=_order(turn)
        )
        for user in graph.graph.node:
            for at, name in enumerate(user.input):
                if name == node.output[0]:
                    user.input[at] = bytes_turned.output[0]
        graph.graph.node.insert(0, bytes_turned)
        _drop_unused(graph)
        return


def _chain(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> tuple[onnx.NodeProto, ...] | None:
    """Find the Cast, Transpose and Sub that lie before a node, if they do."""
    found = []
    for kind in ("Sub", "Transpose", "Cast"):
        before = makers.get(node.input[0])
        if before is None or before.op_type != kind:
            return None
        found.append(before)
        node = before
    return tuple(found[::-1])


def _order(turn: onnx.NodeProto) -> list[int]:
    return list(next(each.ints for each in turn.attribute if each.name == "perm"))


def _drop_unused(graph: onnx.ModelProto) -> None:
    """Drop nodes whose outputs nobody reads, until there are none, and their weights."""
    kept = {value.name for value in graph.graph.output}
    while True:
        used = kept | {name for node in graph.graph.node for name in node.input}
        idle = [node for node in graph.graph.node if not used.intersection(node.output)]
        for node in idle:
            graph.graph.node.remove(node)
        if not idle:
            break
    for tensor in [each for each in graph.graph.initializer if each.name not in used]:
        graph.graph.initializer.remove(tensor)


class _Reader:
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def iter_reader(feeds: Sequence[Feed]) -> Any:
    """Feeds in the form that a calibrator reads."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(_Reader, CalibrationDataReader):  # type: ignore[misc]
        pass

    return Reader(feeds)


def _pixels(graph: onnx.ModelProto) -> str:
    """Return the input of the first convolution over two axes, where the graph has pixels; otherwise an empty name."""
    if not any(value.name == "image" for value in graph.graph.input):
        return ""
    return next((node.input[0] for node in graph.graph.node if node.op_type == "Conv"), "")


def _pixel_mean(graph: onnx.ModelProto) -> NDArray[np.float32]:
    """Return what a graph takes from pixels 0 to 255: of each channel, as its weights call it."""
    for tensor in graph.graph.initializer:
        if tensor.name == PIXEL_MEAN:
            return np.asarray(onnx.numpy_helper.to_array(tensor), np.float32)
    return 255 * np.array(IMAGENET_MEAN, np.float32)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Calibration prints and warns about every tensor."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
