"""A device whose kernels do nothing but note what they are launched with, and calls of both operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.kernels import grouping_attention, max_pooled_cosine
from benchmarks.kernels import host

Kept = tuple[list[Tensor], Tensor | None]
# programs and arguments of each launch
said: list[tuple[Any, ...]] = []


class Says(host.Nothing):
    """Notes what it is launched with."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., host.Nothing]:
        def call(**arguments: Any) -> host.Nothing:
            said.append((grid[0], *(arguments[name] for name in self.arg_names)))
            return self

        return call

    def run(self, programs: int, *given: Any) -> None:
        """Note it."""
        said.append((programs, *given[8:]))


def random(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def launches(call: Callable[[], Tensor], *inputs: Tensor) -> list[tuple[Any, ...]]:
    """What a call and its backward launch, with inputs by their places and other tensors by when they first appear."""
    said.clear()
    out = call()
    torch.autograd.grad(out, sorted({id(one): one for one in inputs}.values(), key=id), torch.ones_like(out))
    names = {one.data_ptr(): f"input {at}" for at, one in enumerate(inputs)}

    def name(value: Any) -> Any:
        address = value.data_ptr() if isinstance(value, Tensor) else value
        # no number among the arguments is as large as an address
        if isinstance(address, int) and address > 1 << 32:
            return names.setdefault(address, f"other {len(names)}")
        return address

    return [tuple(name(value) for value in one) for one in said]


def group(cells: int, same: bool, **options: Any) -> tuple[Callable[[], Tensor], list[Tensor]]:
    query, key = random(3, cells, 16), random(3, 5, 16)
    value = query if same else random(3, cells, 16)

    def call() -> Tensor:
        found = grouping_attention(query, key, value, **{"scale": 0.25, **options})
        assert isinstance(found, Tensor)
        return found

    return call, [query, key, value]


def pool(gated: bool, cells: int = 9, **masks: Tensor) -> tuple[Callable[[], Tensor], list[Tensor]]:
    inputs = [random(4, 2, 16), random(4, cells, 16), *([random(4, 5, 16)] if gated else [])]
    index = torch.randint(5, (4, 2)) if gated else None
    return lambda: max_pooled_cosine(*inputs, gate_index=index, **masks)[0], inputs


def both(inputs: list[Tensor], index: Tensor | None) -> tuple[Tensor, Tensor]:
    cells, classes, values = inputs
    grouped = grouping_attention(cells, classes, values, scale=0.25)
    assert isinstance(grouped, Tensor)
    return grouped, max_pooled_cosine(classes, cells, classes.clone(), gate_index=index)[0]


def truth(inputs: list[Tensor], index: Tensor | None) -> tuple[Tensor, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVGN_KERNELS", "reference")
        return both(inputs, index)
