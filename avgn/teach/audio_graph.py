"""The class tokens of the audio half's graph: the largest of each class's rows, less where noise is ahead.

Legend: K classes, B batch, D width of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from avgn.teach.token_graph import Array, TokenGraph, joined, put, take_rows
from avgn.teach.tokens import Rows, Token

NOISES = ("audio_tokens.noises.weight", "audio_tokens.noises.inner.weight")


class AudioGraph(TokenGraph):
    """The audio half: features [B, D] -> the largest of each class's rows, less where noise is ahead."""

    half = "audio"
    weights = ("audio_tokens.rows.weight", "audio_tokens.rows.inner.weight")

    def read(self) -> list[Rows]:
        """The rows of each class."""
        rows = self.read_all_rows()
        table = self._table()
        return [take_rows(rows, list(dict.fromkeys(line.tolist()))) for line in table]

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
                self._swap(node, 1, len(before), put(-1, len(tokens)))
        self._swap(split, 1, len(before), lambda shape: np.array([*shape[:-2], len(tokens), widest]))
        gather.input[1] = self._constant("which", np.array(table, self._which().dtype).ravel())
        self._write_rows(joined([token.heard for token in tokens]))
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
