"""The class tokens of the image half's graph: the log-sum-exp of each class's rows, or the face detector's score.

Legend: K classes, R rows of all classes, B batch, P cells, D width of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.teach.token_graph import TokenGraph, joined, put, take_rows
from avgn.teach.tokens import Rows, Token

# of sums of exponentials: the log-sum-exp of a class is at most 85 behind that of a cell's best one
LEAST = 1e-37


class ImageGraph(TokenGraph):
    """The image half: cells [B, P, D] -> the log-sum-exp of each class's rows, or the face detector's score."""

    half = "image"
    weights = ("cell_tokens.rows.weight", "cell_tokens.rows.inner.weight")

    def read(self) -> list[Rows]:
        """The rows of each class; none for those that faces show."""
        rows = self.read_all_rows()
        member = self._constant_of(self._member().input[1])
        assert member is not None
        faces = self._faces(member.shape[1])
        return [take_rows(rows, [] if face else np.flatnonzero(member[:, k]).tolist()) for k, face in enumerate(faces)]

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
        self._write_rows(joined(rows))
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
                self._swap(maker, 1, before, put(0, count))
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
