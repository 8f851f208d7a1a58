"""Counts the bytes that a kernel moves in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def count_bytes(monkeypatch: pytest.MonkeyPatch, call: Any) -> int:
    """Bytes that the interpreter's loads and stores move, without masked elements."""
    from triton.runtime.interpreter import interpreter_builder

    moved = [0]

    def count(pointer: Any, mask: Any) -> None:
        moved[0] += int(np.broadcast_to(mask.data, pointer.data.shape).sum()) * (
            pointer.get_element_ty().primitive_bitwidth // 8
        )

    load, store = interpreter_builder.create_masked_load, interpreter_builder.create_masked_store

    def counted_load(pointers: Any, mask: Any, *rest: Any) -> Any:
        count(pointers, mask)
        return load(pointers, mask, *rest)

    def counted_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        count(pointers, mask)
        return store(pointers, value, mask, *rest)

    monkeypatch.setattr(interpreter_builder, "create_masked_load", counted_load)
    monkeypatch.setattr(interpreter_builder, "create_masked_store", counted_store)
    call()
    return moved[0]
