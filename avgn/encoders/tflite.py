"""The numbers in a TensorFlow Lite file: a reader of the few tables that name tensors and hold their values.

The file is a FlatBuffer; see the schema of TensorFlow Lite for the order of the fields.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"TFL3"
KINDS: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
SUBGRAPHS, BUFFERS = 2, 4
TENSORS = 0
SHAPE, KIND, BUFFER, NAME = 0, 1, 2, 3
DATA = 0


class _Table:
    """Reads a table of a FlatBuffer at a position; fields that are left out are None."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self._fields = at - _integer("<i", data, at)

    def position(self, field: int) -> int | None:
        size = _integer("<H", self.data, self._fields)
        entry = 4 + 2 * field
        offset = _integer("<H", self.data, self._fields + entry) if entry < size else 0
        return self.at + offset if offset else None

    def number(self, field: int, kind: str) -> int:
        at = self.position(field)
        return 0 if at is None else _integer(kind, self.data, at)

    def vector(self, field: int) -> tuple[int, int]:
        """Return (where a vector begins, how many entries it has)."""
        at = self.position(field)
        if at is None:
            return 0, 0
        start = at + _integer("<I", self.data, at)
        return start + 4, _integer("<I", self.data, start)

    def tables(self, field: int) -> list[_Table]:
        start, count = self.vector(field)
        places = range(start, start + 4 * count, 4)
        return [_Table(self.data, at + _integer("<I", self.data, at)) for at in places]


def read_numbers(data: bytes) -> dict[str, NDArray[np.float32]]:
    """Read every tensor of floats that has values, by name, as float32. Raises ValueError for another kind of file."""
    if data[4:8] != MAGIC:
        raise ValueError("not a TensorFlow Lite file")
    model = _Table(data, _integer("<I", data, 0))
    buffers = model.tables(BUFFERS)
    found = {}
    for tensor in model.tables(SUBGRAPHS)[0].tables(TENSORS):
        kind = KINDS.get(tensor.number(KIND, "<b"))
        start, length = buffers[tensor.number(BUFFER, "<I")].vector(DATA)
        if kind is None or not length:
            continue
        at, rank = tensor.vector(SHAPE)
        shape = struct.unpack_from(f"<{rank}i", data, at)
        name_at, name_length = tensor.vector(NAME)
        values = np.frombuffer(data, kind, length // kind.itemsize, start)
        found[data[name_at : name_at + name_length].decode()] = values.reshape(shape).astype(np.float32)
    return found


def _integer(kind: str, data: bytes, at: int) -> int:
    value: int = struct.unpack_from(kind, data, at)[0]
    return value
