"""The graph of one half of a bundle of real things: its class tokens are read out of it, and others written into it.

A graph is changed where its tokens are and nowhere else: the rows, the tables that say which rows are whose, and the
number of classes in the shapes behind them. What it computes for a class that stays is what it computed before.

Legend: R rows of all classes, D width of features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.runtime.errors import FailureError, InputError, MissingExtraError
from avgn.teach.tokens import Rows

Array = NDArray[Any]


def import_onnx() -> Any:
    """onnx; raises MissingExtraError when it is not installed."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "teach") from None
    return onnx


class NoTokensError(InputError):
    """A graph whose classes are no rows of a classifier."""


class TokenGraph:
    """The graph of one half, read into memory. Raises NoTokensError where its classes are no rows."""

    half = ""
    # names that the exporter gives the rows' weights; in half precision they lie one module deeper
    weights: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.onnx = import_onnx()
        self.model = self.onnx.load(path)
        self.graph = self.model.graph
        # constants that were made since
        self._fresh: set[str] = set()
        self._index()
        found = [
            (node, weight)
            for node in self.graph.node
            if node.op_type in ("Gemm", "MatMul") and (weight := self._weight(node)) is not None
            if weight.name.removesuffix(".half") in self.weights
        ]
        if len(found) != 1:
            raise NoTokensError(f"the {self.half} graph {path.name} has no rows of a classifier as its classes")
        self._rows_node, self._rows_weight = found[0]
        self._behind = self._reached(self._rows_node.output[0])

    @property
    def features(self) -> str:
        """The tensor that the rows are applied to, in float32."""
        name: str = self._rows_node.input[0]
        before = self._makers.get(name)
        # half-precision rows read a cast of it
        return str(before.input[0]) if before is not None and before.op_type == "Cast" else name

    def with_features(self, name: str = "features") -> bytes:
        """The graph up to its features [.., D], which are its only output, called `name`."""
        cut = self.onnx.ModelProto()
        cut.CopyFrom(self.model)
        cut.graph.node.append(self.onnx.helper.make_node("Identity", [self.features], [name]))
        del cut.graph.output[:]
        cut.graph.output.append(self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, None))
        _prune(cut.graph)
        return bytes(cut.SerializeToString())

    def read_all_rows(self) -> Rows:
        """Rows [R, D] of all classes, one after the other."""
        weight = self._value(self._rows_weight).astype(np.float32)
        return Rows(weight=self._turned(weight), bias=self._value(self._bias()).astype(np.float32))

    def save(self, path: Path, facts: dict[str, str]) -> None:
        """Write the graph, whole and checked, with `facts` in its metadata in place of those of the same names."""
        del self.graph.value_info[:]
        _prune(self.graph)
        for entry in [each for each in self.model.metadata_props if each.key in facts]:
            self.model.metadata_props.remove(entry)
        for key, value in facts.items():
            self.model.metadata_props.add(key=key, value=value)
        try:
            self.onnx.checker.check_model(self.model, full_check=True)
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise FailureError(f"the taught {self.half} graph is not valid ({reason}): nothing was written") from None
        self.onnx.save(self.model, path)

    def _write_rows(self, rows: Rows) -> None:
        """Put other rows in place, in float16 where that holds them and the graph stores the others so."""
        weight = self._turned(rows.weight)
        stored = self._rows_weight
        kind: Any = self._value(stored).dtype
        cast = self._makers.get(self._rows_node.input[1])
        if kind == np.float16 and cast is not None and not _fits_half(weight):
            # a Cast gives float32 back: rows that float16 can't hold go behind it
            self._rows_node.input[1] = self._constant("rows.weight", weight.astype(np.float32))
        else:
            stored.CopyFrom(self.onnx.numpy_helper.from_array(np.ascontiguousarray(weight.astype(kind)), stored.name))
        bias = self._bias()
        kind = self._value(bias).dtype
        bias.CopyFrom(self.onnx.numpy_helper.from_array(rows.bias.astype(kind), bias.name))

    def _turned(self, weight: Array) -> Array:
        """[R, D] <-> as the graph stores it."""
        turned = any(each.name == "transB" and each.i for each in self._rows_node.attribute)
        return weight if turned else np.ascontiguousarray(weight.T)

    def _weight(self, node: Any) -> Any | None:
        """The initializer of a product's second factor, as it is stored."""
        name = node.input[1]
        maker = self._makers.get(name)
        if maker is not None and maker.op_type == "Cast":
            name = maker.input[0]
        return self._initializers.get(name)

    def _bias(self) -> Any:
        """The initializer of what is added to the rows' product."""
        if self._rows_node.op_type == "Gemm":
            return self._initializers[self._rows_node.input[2]]
        (adder,) = self._users(self._rows_node.output[0])
        return next(self._initializers[name] for name in adder.input if name in self._initializers)

    def _index(self) -> None:
        self._initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self._makers = {name: node for node in self.graph.node for name in node.output}

    def _users(self, name: str) -> list[Any]:
        return [node for node in self.graph.node if name in node.input]

    def _reached(self, name: str) -> list[Any]:
        """Return the nodes that a tensor has a part in, in order."""
        reached, names = [], {name}
        for node in self._ordered():
            if names.intersection(node.input):
                names.update(node.output)
                reached.append(node)
        return reached

    def _ordered(self) -> Iterator[Any]:
        # graphs are stored in topological order
        return iter(self.graph.node)

    def _value(self, tensor: Any) -> Array:
        return np.asarray(self.onnx.numpy_helper.to_array(tensor))

    def _constant(self, name: str, value: Array) -> str:
        """Add a constant and return its name; shared ones are never changed."""
        number = 1
        while f"taught.{name}.{number}" in self._initializers:
            number += 1
        name = f"taught.{name}.{number}"
        self._fresh.add(name)
        tensor = self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        self.graph.initializer.append(tensor)
        self._index()
        return name

    def _constant_of(self, name: str) -> Array | None:
        """The value of a constant, also of one that is stored in half the bytes and cast back."""
        maker = self._makers.get(name)
        is_cast = maker is not None and maker.op_type == "Cast"
        tensor = self._initializers.get(maker.input[0] if maker is not None and is_cast else name)
        if tensor is None:
            return None
        value = self._value(tensor)
        return value.astype(np.float32) if is_cast and value.dtype == np.float16 else value

    def _swap(self, node: Any, at: int, before: int, change: Callable[[Array], Array]) -> None:
        """Replace a constant input of a node by what `change` makes of it; `before` must be in it.

        Several shapes lead to the same node, which is changed once.
        """
        if node.input[at] in self._fresh:
            return
        value = self._constant_of(node.input[at])
        if value is None or before not in value:
            raise self._unknown(f"{node.op_type} {node.name}")
        node.input[at] = self._constant("shape", np.asarray(change(value.copy()), value.dtype))

    def _set_outer(self, count: int) -> None:
        """Declare the number of classes in inputs and outputs: always the second axis."""
        for value in (*self.graph.input, *self.graph.output):
            if value.name in ("sources", "audio_prob", "maps", "visual_prob"):
                value.type.tensor_type.shape.dim[1].dim_value = count

    def _unknown(self, what: str) -> FailureError:
        return FailureError(
            f"the {self.half} graph computes its classes in a way that is not known here ({what}): export the bundle "
            "again with this avgn"
        )


def put(at: int, value: int) -> Callable[[Array], Array]:
    """Return what writes a value at a place of a shape."""

    def change(shape: Array) -> Array:
        shape[at] = value
        return shape

    return change


def take_rows(rows: Rows, at: list[int]) -> Rows:
    """Return some of the rows."""
    return Rows(weight=rows.weight[at], bias=rows.bias[at])


def joined(rows: Sequence[Rows]) -> Rows:
    """Return rows of several classes, one class after the other."""
    return Rows(
        weight=np.concatenate([each.weight for each in rows]), bias=np.concatenate([each.bias for each in rows])
    )


def _fits_half(weight: Array) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(weight.astype(np.float16).astype(np.float32), weight.astype(np.float32)))


def _prune(graph: Any) -> None:
    """Drop what no output depends on."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for tensor in [each for each in graph.initializer if each.name not in needed]:
        graph.initializer.remove(tensor)
    # the halves' inputs stay as they are declared
    del graph.value_info[:]
