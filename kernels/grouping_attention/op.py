"""The grouping-attention operator: `avgn::grouping_attention` with its gradients, for eager, compile and export.

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from avgn.kernels.dispatch import is_eager
from avgn.kernels.grouping_attention.calls import backward_name, call_name, inputs_of
from avgn.kernels.grouping_attention.checks import backward_error, forward_error, reference_backward, reference_forward
from avgn.kernels.grouping_attention.launches import (
    Three,
    Two,
    gradients_like,
    outputs_like,
    run_backward,
    run_forward,
)
from avgn.kernels.records import Record, records
from avgn.kernels.selfcheck import trusted

NAME = "grouping_attention"

# scale, eps, hard, and the record of a call with such inputs, where there is one
Options = tuple[float, float, bool, Record | None]


def forward(query: Tensor, key: Tensor, value: Tensor, scale: float, eps: float, hard: bool) -> Two:
    """Grouped values [B,C,D], and a room with what the backward needs."""
    run = run_forward if trusted(NAME, query, lambda: forward_error(query, key)) else reference_forward
    return run(query, key, value, scale, eps, hard)


def backward(
    grad: Tensor, inputs: tuple[Tensor, Tensor, Tensor], saved: Two, scale: float, eps: float, hard: bool
) -> Three:
    """Gradients of query, key and value."""
    query, key, _ = inputs
    right = trusted(NAME, query, lambda: forward_error(query, key))
    if right and trusted(f"{NAME} backward", query, lambda: backward_error(query, key)):
        return run_backward(grad, *inputs, *saved, scale, hard)
    return reference_backward(grad, *inputs, scale, eps, hard)


class GroupingAttention(torch.autograd.Function):
    """The operator in eager code: the same launches without the registration's cost.

    A call with inputs like those of one that was recorded is launched as that was, and not checked again.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        scale, eps, hard, record = options
        outputs = None if record is None else record.again(*inputs_of(query, key, value))
        if outputs is None:
            outputs = forward(query, key, value, scale, eps, hard)
        ctx.save_for_backward(query, key, value, *outputs)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return outputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        # what forbids a second derivative takes time, and without a graph there is none
        return _gradients_once(ctx, *grads) if torch.is_grad_enabled() else _gradients(ctx, *grads)


def _gradients(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    grad = grads[0]
    if grad is None:
        return None, None, None, None
    query, key, value, out, sums = ctx.saved_tensors
    scale, eps, hard, _ = ctx.options
    if not is_eager(grad, query, key, value, out, sums):
        # they may have no memory to launch with
        return *reference_backward(grad, query, key, value, scale, eps, hard), None
    # hooks may give back other tensors than were saved
    record = records.get(backward_name(call_name(query, key, value, scale, hard), grad, out, sums))
    found = None if record is None else record.again(grad, out, sums, *inputs_of(query, key, value))
    if found is None:
        found = backward(grad, (query, key, value), (out, sums), scale, eps, hard)
    return *found, None


_gradients_once = once_differentiable(_gradients)


@torch.library.custom_op("avgn::grouping_attention", mutates_args=())
def grouping_attention_op(
    query: Tensor, key: Tensor, value: Tensor, scale: float, eps: float, hard: bool
) -> tuple[Tensor, Tensor]:
    return forward(query, key, value, scale, eps, hard)


@grouping_attention_op.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, scale: float, eps: float, hard: bool) -> tuple[Tensor, Tensor]:
    return outputs_like(query, key, hard)


@torch.library.custom_op("avgn::grouping_attention_backward", mutates_args=())
def grouping_attention_backward_op(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    scale: float,
    eps: float,
    hard: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return backward(grad, (query, key, value), (out, sums), scale, eps, hard)


@grouping_attention_backward_op.register_fake
def _(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    scale: float,
    eps: float,
    hard: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return gradients_like(query, key, value)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, value, *ctx.options = inputs
    ctx.save_for_backward(query, key, value, *output)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _operator_backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 6
    return *grouping_attention_backward_op(grad, *ctx.saved_tensors, *ctx.options), None, None, None


grouping_attention_op.register_autograd(_operator_backward, setup_context=_save)
