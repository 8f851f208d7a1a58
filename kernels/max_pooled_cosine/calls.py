"""What calls of max-pooled cosine are named by, so that one like an earlier one is launched as that was."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from torch import Tensor

from avgn.kernels.records import name_of


def call_name(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> Hashable:
    """Return what the launches of calls with such inputs depend on; it names their forward."""
    return name_of("max-pooled cosine", audio, visual, gate, gate_id)


def inputs_of(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> tuple[Tensor, ...]:
    """Return the inputs that are there."""
    return (audio, visual) if gate is None or gate_id is None else (audio, visual, gate, gate_id)


def backward_name(call: Hashable, grad: Tensor, saved: Sequence[Tensor], needs: Sequence[bool]) -> Hashable:
    """Return the name of a call's backward for needed gradients: what was saved may come back otherwise."""
    return name_of(("backward", call, tuple(needs)), grad, *saved)
