"""Checks that an ONNX file is a self-contained graph of standard operators, before any engine sees it.

Engines follow what a graph names: external data in other files, or, in some, at addresses of the process's memory;
libraries of custom operators; functions and loops of its own. What our exporter writes has none of that, so a graph
with any of it is refused. The file is read as protocol buffers without the onnx package, in time that grows with the
number of its fields and with nothing that they claim. Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from avgn.runtime.errors import InputError
from avgn.runtime.regular import open_regular

View = memoryview
Field = tuple[int, int, int | View]

# fields of one file; our largest graph has 40,000
MOST_FIELDS = 500_000
MOST_ELEMENTS = 1 << 31
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
DOMAINS = (b"", b"ai.onnx")

# the tensor arithmetic of ONNX: what exporters of networks write, without control flow, sequences, strings, chance and
# whatever gives shapes that depend on data
STANDARD = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift BitwiseAnd
BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvInteger
ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf
Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity
InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot
Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2
ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample
Where Xor
"""
OPERATORS = frozenset(STANDARD.split())
OPERATOR_NAMES = frozenset(name.encode() for name in OPERATORS)

# bytes of an element by TensorProto.DataType
SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
CONTINUED = bytes(range(128, 256))


class _Refused(Exception):
    """Why a graph is refused, as the second half of a sentence."""


def check_onnx(path: Path, name: str) -> None:
    """Raise InputError, one sentence about the graph `name`, unless the file is a graph that engines may load."""
    if path.suffix != ".onnx":
        raise InputError(f"{name} is called {path.name!r}, not *.onnx: engines read other formats by their names")
    try:
        with open_regular(path) as file:
            if not os.fstat(file.fileno()).st_size:
                raise _Refused("is empty")
            # closed when the last view of it is gone
            _Walker().model(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except _Refused as refusal:
        raise InputError(
            f"{name} {refusal}: a bundle holds self-contained graphs of standard operators, so export it again"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name} can't be read ({error}): copy the bundle again") from None


def check_onnx_bytes(data: bytes, name: str = "the graph") -> None:
    """Do the same for a graph in memory."""
    try:
        _Walker().model(memoryview(data))
    except _Refused as refusal:
        raise InputError(f"{name} {refusal}: export it again") from None


class _Walker:
    """Goes through the messages of one file; every field is counted."""

    def __init__(self) -> None:
        self._left = MOST_FIELDS

    def model(self, data: View) -> None:
        found = False
        # ir_version to doc_string, graph, opset_import, metadata_props
        for number, kind, value in self._fields(data, "ModelProto"):
            if number == 7:
                if found:
                    raise _Refused("holds two graphs")
                found = True
                self._graph(_message(kind, value))
            elif number == 8:
                self._opset(_message(kind, value))
            elif number == 20:
                raise _Refused("holds training steps")
            elif number == 25:
                raise _Refused("holds functions of its own")
            elif number not in (1, 2, 3, 4, 5, 6, 14):
                raise _Refused(f"holds an unknown field ({number}) of a model")
        if not found:
            raise _Refused("holds no graph")

    def _opset(self, data: View) -> None:
        for number, kind, value in self._fields(data, "OperatorSetIdProto"):
            if number == 1 and (domain := bytes(_message(kind, value))) not in DOMAINS:
                raise _Refused(f"asks for the operators of {_shown(domain)}")

    def _graph(self, data: View) -> None:
        # node, name, initializer, doc_string, input, output, value_info, metadata_props
        for number, kind, value in self._fields(data, "GraphProto"):
            if number == 1:
                self._node(_message(kind, value))
            elif number == 5:
                self._tensor(_message(kind, value))
            elif number == 15:
                raise _Refused("holds sparse tensors")
            elif number not in (2, 10, 11, 12, 13, 16):
                raise _Refused(f"holds an unknown field ({number}) of a graph")

    def _node(self, data: View) -> None:
        operator = b""
        # input, output, name, op_type, attribute, doc_string, domain, overload, metadata_props
        for number, kind, value in self._fields(data, "NodeProto"):
            if number == 4:
                operator = bytes(_message(kind, value))
                if operator not in OPERATOR_NAMES:
                    raise _Refused(f"uses the operator {_shown(operator)}")
            elif number == 5:
                self._attribute(_message(kind, value))
            elif number == 7 and (domain := bytes(_message(kind, value))) not in DOMAINS:
                raise _Refused(f"uses an operator of {_shown(domain)}")
            elif number == 8 and _message(kind, value).nbytes:
                raise _Refused("uses an overloaded function")
            elif number not in (1, 2, 3, 6, 7, 8, 9):
                raise _Refused(f"holds an unknown field ({number}) of a node")
        if not operator:
            raise _Refused("holds a node without an operator")

    def _attribute(self, data: View) -> None:
        has_tensor = False
        # name, f, i, s, floats, ints, strings, doc_string, type
        for number, kind, value in self._fields(data, "AttributeProto"):
            if number in (5, 10):
                if number == 5 and has_tensor:
                    # parsers merge them into one, of another shape
                    raise _Refused("holds an attribute with two tensors")
                has_tensor = has_tensor or number == 5
                self._tensor(_message(kind, value))
            elif number in (6, 11):
                raise _Refused("holds graphs inside its graph (loops or branches)")
            elif number in (22, 23):
                raise _Refused("holds sparse tensors")
            elif number not in (1, 2, 3, 4, 7, 8, 9, 13, 20):
                raise _Refused(f"holds an unknown field ({number}) of an attribute")

    def _tensor(self, data: View) -> None:
        dtype, elements, held = 0, 1, 0
        raw: int | None = None
        # dims, data_type, data by type, name, raw_data, doc_string, metadata_props
        for number, kind, value in self._fields(data, "TensorProto"):
            if number in (13, 14):
                # data_location 0 is inside, as is none
                if number == 14 and kind == VARINT and value == 0:
                    continue
                raise _Refused("keeps data outside of its file")
            if number == 1:
                for extent in _varints(kind, value):
                    elements *= extent
                    if elements > MOST_ELEMENTS:
                        raise _Refused("holds a tensor of a size that can't be")
            elif number == 2 and kind == VARINT and isinstance(value, int):
                dtype = value
            elif number == 9:
                raw = _message(kind, value).nbytes
            elif number in (4, 10):
                width = 4 if number == 4 else 8
                held += 1 if kind in (FIXED32, FIXED64) else _message(kind, value).nbytes // width
            elif number in (5, 7, 11):
                held += 1 if kind == VARINT else len(bytes(_message(kind, value)).translate(None, CONTINUED))
            elif number not in (8, 12, 16):
                raise _Refused(f"holds an unknown field ({number}) of a tensor")
        size = SIZES.get(dtype)
        if size is None:
            raise _Refused(f"holds a tensor of the unknown type {dtype}")
        # an engine may read as far as the shape says
        if (raw is not None and raw != elements * size) or (raw is None and held != elements) or (raw and held):
            raise _Refused("holds a tensor whose data are not as many as its shape says")

    def _fields(self, data: View, what: str) -> Iterator[Field]:
        """(number, wire type, value) of each field of a message."""
        at, end = 0, data.nbytes
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise _Refused(f"holds more than {MOST_FIELDS} fields")
            key, at = _varint(data, at)
            number, kind = key >> 3, key & 7
            if kind == VARINT:
                value, at = _varint(data, at)
                yield number, kind, value
                continue
            if kind == BYTES:
                length, at = _varint(data, at)
            elif kind in (FIXED32, FIXED64):
                length = 4 if kind == FIXED32 else 8
            else:
                raise _Refused(f"is no ONNX graph ({what} can't be parsed)")
            if not number or length > end - at:
                raise _Refused(f"is no ONNX graph, or is cut off ({what} can't be parsed)")
            yield number, kind, data[at : at + length]
            at += length


def _varint(data: View, at: int) -> tuple[int, int]:
    """Return a variable-length integer and the place after it."""
    end = data.nbytes
    if at < end and (value := data[at]) < 128:
        return value, at + 1
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise _Refused("is no ONNX graph, or is cut off (a number can't be parsed)")


def _varints(kind: int, value: int | View) -> list[int]:
    """Return a repeated integer's values, packed or one."""
    if isinstance(value, int):
        return [value]
    if kind != BYTES or value.nbytes > 1000:
        raise _Refused("holds a tensor of a shape that can't be")
    found, at = [], 0
    while at < value.nbytes:
        each, at = _varint(value, at)
        found.append(each)
    return found


def _message(kind: int, value: int | View) -> View:
    if kind != BYTES or isinstance(value, int):
        raise _Refused("is no ONNX graph (a field is of another kind)")
    return value


def _shown(name: bytes) -> str:
    return repr(name[:40].decode("ascii", "replace"))
