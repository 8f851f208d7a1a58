"""Reads the class tokens out of the two graphs of a bundle of real things, and writes others into them.

A graph is changed where its tokens are and nowhere else: the rows, the tables that say which rows are whose, and the
number of classes in the shapes behind them. What it computes for a class that stays is what it computed before.

Legend: K classes, R rows of all classes, D width of features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.runtime.errors import FailureError, InputError, MissingExtraError
from avgn.teach.tokens import Rows, Token

Array = NDArray[Any]

# names that the exporter gives the rows' weights, by half; in half precision they lie one module deeper
WEIGHTS = {
    "audio": ("audio_tokens.rows.weight", "audio_tokens.rows.inner.weight"),
    "image": ("cell_tokens.rows.weight", "cell_tokens.rows.inner.weight"),
}
# of sums of exponentials: the log-sum-exp of a class is at most 85 behind that of a cell's best one
LEAST = 1e-37
NOISES = ("audio_tokens.noises.weight", "audio_tokens.noises.inner.weight")


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

    def __init__(self, path: Path) -> None:
        self.onnx = import_onnx()
        self.model = self.onnx.load(path)
        self.graph = self.model.graph
        # constants that were made since
        self._fresh: set[str] = set()
        self._index()
        names = WEIGHTS[self.half]
        found = [
            (node, weight)
            for node in self.graph.node
            if node.op_type in ("Gemm", "MatMul") and (weight := self._weight(node)) is not None
            if weight.name.removesuffix(".half") in names
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
        tensor = self._initializers.get(name)
        return None if tensor is None else self._value(tensor)

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


class AudioGraph(TokenGraph):
    """The audio half: features [B, D] -> the largest of each class's rows, less where noise is ahead."""

    half = "audio"

    def read(self) -> list[Rows]:
        """The rows of each class."""
        rows = self.read_all_rows()
        table = self._table()
        return [_take(rows, list(dict.fromkeys(line.tolist()))) for line in table]

    def read_noises(self) -> Rows:
        """The rows of what counts as noise."""
        for node in self.graph.node:
            weight = self._weight(node) if node.op_type == "Gemm" else None
            if weight is not None and weight.name.removesuffix(".half") in NOISES:
                bias = self._value(self._initializers[node.input[2]]).astype(np.float32)
                return Rows(weight=self._value(weight).astype(np.float32), bias=bias)
        raise self._unknown("no rows of noise")

    def write(self, tokens: Sequence[Token]) -> None:
        counts = [len(token.heard) for token in tokens]
        widest, before = max(counts), self._table()
        starts = np.cumsum([0, *counts[:-1]])
        # classes of fewer rows repeat their last one
        table = [
            [start + min(n, count - 1) for n in range(widest)] for start, count in zip(starts, counts, strict=True)
        ]
        gather, split = self._gather(), self._split()
        for node in self._behind:
            if node.op_type == "Reshape" and node is not split:
                self._swap(node, 1, len(before), _put(-1, len(tokens)))
        self._swap(split, 1, len(before), lambda shape: np.array([*shape[:-2], len(tokens), widest]))
        gather.input[1] = self._constant("which", np.array(table, self._which().dtype).ravel())
        self._write_rows(_joined([token.heard for token in tokens]))
        self._set_outer(len(tokens))

    def _gather(self) -> Any:
        found = [node for node in self._behind if node.op_type == "Gather"]
        if not found or self._constant_of(found[0].input[1]) is None:
            raise self._unknown("no table of rows")
        return found[0]

    def _which(self) -> Array:
        value = self._constant_of(self._gather().input[1])
        assert value is not None
        return value

    def _split(self) -> Any:
        """The Reshape that gives each class a line of its rows."""
        users = self._users(self._gather().output[0])
        if len(users) != 1 or users[0].op_type != "Reshape" or self._constant_of(users[0].input[1]) is None:
            raise self._unknown("no lines of rows")
        return users[0]

    def _table(self) -> Array:
        """[K, widest]: the rows of each class."""
        shape = self._constant_of(self._split().input[1])
        assert shape is not None
        return self._which().reshape(int(shape[-2]), int(shape[-1]))


class ImageGraph(TokenGraph):
    """The image half: cells [B, P, D] -> the log-sum-exp of each class's rows, or the face detector's score."""

    half = "image"

    def read(self) -> list[Rows]:
        """The rows of each class; none for those that faces show."""
        rows = self.read_all_rows()
        member = self._constant_of(self._member().input[1])
        assert member is not None
        faces = self._faces(member.shape[1])
        return [_take(rows, [] if face else np.flatnonzero(member[:, k]).tolist()) for k, face in enumerate(faces)]

    def write(self, tokens: Sequence[Token]) -> None:
        matmul = self._member()
        member = self._constant_of(matmul.input[1])
        assert member is not None
        before, count = member.shape[1], len(tokens)
        faces = np.array([token.by_face for token in tokens])
        self._write_masks(before, faces)
        self._behind = self._reached(self._rows_node.output[0])
        for node in self._behind:
            if node.op_type == "Reshape":
                self._write_shape(node.input[1], before, count)
        rows = [token.seen for token in tokens]
        table = np.zeros((max(1, sum(map(len, rows))), count), member.dtype)
        at = 0
        for k, each in enumerate(rows):
            table[at : at + len(each), k] = 1
            at += len(each)
        matmul.input[1] = self._constant("member", table)
        width = self.read_all_rows().weight.shape[1]
        if not at:
            rows = [Rows(weight=np.zeros((1, width), np.float32), bias=np.zeros(1, np.float32))]
        self._write_rows(_joined(rows))
        self._guard(matmul)
        self._set_outer(count)

    def _guard(self, summed: Any) -> None:
        """Let no class be so far behind a cell's best one that the logarithm of its sum is infinite."""
        for log in self._users(summed.output[0]):
            if log.op_type != "Log":
                continue
            least = self._constant("least", np.array(LEAST, np.float32))
            guarded = f"{least}.guarded"
            node = self.onnx.helper.make_node("Max", [summed.output[0], least], [guarded], guarded)
            log.input[0] = guarded
            # before its reader: nodes stand in the order in which they run
            self.graph.node.insert(list(self.graph.node).index(log), node)
        self._index()

    def _member(self) -> Any:
        """The product that adds up each class's rows."""
        found = [
            node for node in self._behind if node.op_type == "MatMul" and self._makers[node.input[0]].op_type == "Exp"
        ]
        if len(found) != 1 or self._constant_of(found[0].input[1]) is None:
            raise self._unknown("no table of rows")
        return found[0]

    def _masks(self) -> list[Any]:
        """The choices between a face's score and the rows' logits."""
        masks = [node for node in self._behind if node.op_type == "Where"]
        for node in masks:
            value = self._constant_of(node.input[0])
            if value is None or value.dtype != np.bool_:
                raise self._unknown(f"Where {node.name}")
        return masks

    def _faces(self, count: int) -> NDArray[np.bool_]:
        masks = [self._constant_of(node.input[0]) for node in self._masks()]
        return np.zeros(count, bool) if not masks or masks[0] is None else np.ravel(masks[0])

    def _write_masks(self, before: int, faces: NDArray[np.bool_]) -> None:
        """Say which classes are seen by faces; without any the face detector goes."""
        for node in self._masks():
            mask = self._constant_of(node.input[0])
            assert mask is not None
            if mask.size != before or len(mask) != before:
                raise self._unknown(f"Where {node.name}")
            if faces.any():
                node.input[0] = self._constant("faces", faces.reshape(-1, *mask.shape[1:]))
                continue
            for user in self.graph.node:
                for at, name in enumerate(user.input):
                    if name == node.output[0]:
                        user.input[at] = node.input[2]
            self.graph.node.remove(node)
        self._index()

    def _write_shape(self, name: str, before: int, count: int) -> None:
        """Follow a computed shape back to where the number of classes enters it."""
        maker = self._makers.get(name)
        if maker is None:
            raise self._unknown(f"the fixed shape {name}")
        changed = self._in_shape(maker, before, count)
        if not changed:
            raise self._unknown(f"the shape {name}")

    def _in_shape(self, maker: Any, before: int, count: int) -> bool:
        if maker.op_type == "Concat":
            if maker.input[1] in self._initializers:
                self._swap(maker, 1, before, _put(0, count))
                return True
            # batch and classes as one axis
            first = self._makers.get(maker.input[0])
            return first is not None and self._in_shape(first, before, count)
        if maker.op_type == "Mul":
            for at, each in enumerate(maker.input):
                if each in self._initializers:
                    self._swap(maker, at, before, lambda value: np.full_like(value, count))
                    return True
            return False
        if maker.op_type in ("Reshape", "Unsqueeze", "Cast"):
            first = self._makers.get(maker.input[0])
            return first is not None and self._in_shape(first, before, count)
        return False


def _put(at: int, value: int) -> Callable[[Array], Array]:
    def change(shape: Array) -> Array:
        shape[at] = value
        return shape

    return change


def _take(rows: Rows, at: list[int]) -> Rows:
    return Rows(weight=rows.weight[at], bias=rows.bias[at])


def _joined(rows: Sequence[Rows]) -> Rows:
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
