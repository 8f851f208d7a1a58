"""What calls of grouping attention are named by, so that one like an earlier one is launched as that was."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor

from avgn.kernels.records import name_of


def call_name(query: Tensor, key: Tensor, value: Tensor, scale: float, hard: bool) -> Hashable:
    """Return what the launches of calls with such inputs depend on."""
    return name_of(("grouping attention", query is value, scale, hard), query, key, value)


def inputs_of(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """Return the inputs, each of them once."""
    return (query, key) if query is value else (query, key, value)


def forward_name(call: Hashable, eps: float) -> Hashable:
    """Return the name of a call's forward."""
    return "forward", eps, call


def backward_name(call: Hashable, grad: Tensor, out: Tensor, sums: Tensor) -> Hashable:
    """Return the name of a call's backward: what was saved may come back otherwise."""
    return name_of(("backward", call), grad, out, sums)
