"""The grouping-attention operator: `avgn::grouping_attention` with its gradients, for eager, compile and export.

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avgn.kernels.grouping_attention import fused
from avgn.kernels.grouping_attention.plan import fits_whole, plan_backward, plan_columns, plan_rows, plan_whole
from avgn.kernels.launch import block, ceil_div, launch, row_contiguous, shared_memory


@torch.library.custom_op("avgn::grouping_attention", mutates_args=())
def grouping_attention_op(
    query: Tensor, key: Tensor, value: Tensor, scale: float, eps: float, hard: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Grouped values [B,C,D], log-sum-exp [B,P], log-normaliser [B,C] and (hard) winner [B,P] int32."""
    query, key, value = row_contiguous(query), row_contiguous(key), row_contiguous(value)
    batch, cells, width = query.shape
    classes = key.shape[1]
    out, lse, norm, winner = _outputs(query, key, hard)
    if out.numel() == 0 or cells == 0:
        return out.zero_(), lse, norm, winner
    facts = (cells, classes, width, query.dtype, shared_memory(query.device))
    strides = (*query.stride()[:2], *key.stride()[:2])
    sizes = (cells, classes, width)
    saved = (lse, norm, winner)
    extra = {"HARD": hard}
    whole = (query, key, value, out, *saved, *strides, *value.stride()[:2], scale, eps, *sizes)
    if fits_whole(cells, classes):
        launch(fused._forward_whole, (batch,), whole, plan_whole(*facts) | extra)
        return out, lse, norm, winner
    plan = plan_rows(*facts) | extra
    rows = (query, key, lse, winner, *strides, scale, *sizes)
    launch(fused._forward_rows, (ceil_div(cells, plan["BLOCK_P"]), batch), rows, plan)
    plan = plan_columns(*facts) | extra
    grid = (ceil_div(classes, plan["BLOCK_C"]), ceil_div(width, plan["BLOCK_O"]), batch)
    launch(fused._forward_columns, grid, whole, plan)
    return out, lse, norm, winner


@grouping_attention_op.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, scale: float, eps: float, hard: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(query, key, hard)


@torch.library.custom_op("avgn::grouping_attention_backward", mutates_args=())
def grouping_attention_backward_op(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lse: Tensor,
    norm: Tensor,
    winner: Tensor,
    delta: Tensor,
    scale: float,
    hard: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value; `delta` [B,C] is sum_d grad * out (zero when hard)."""
    query, key, value = row_contiguous(query), row_contiguous(key), row_contiguous(value)
    grad = grad.contiguous()
    batch, cells, width = query.shape
    classes = key.shape[1]
    grad_q, grad_k, grad_v = _gradients(query, key, value)
    if grad_q.numel() == 0 or grad_k.numel() == 0:
        return grad_q.zero_(), grad_k.zero_(), grad_v.zero_()
    facts = (cells, classes, width, query.dtype, shared_memory(query.device))
    inputs = (query, key, value, grad)
    saved = (lse, norm, winner, delta)
    strides = (*query.stride()[:2], *key.stride()[:2], *value.stride()[:2])
    rest = (*strides, scale, cells, classes, width)
    extra = {"HARD": hard}
    if fits_whole(cells, classes):
        whole = (*inputs, grad_q, grad_k, grad_v, *saved, *rest)
        launch(fused._backward_whole, (batch,), whole, plan_whole(*facts) | extra)
        return grad_q, grad_k, grad_v
    plan = plan_backward(*facts) | extra
    row_sum = torch.empty_like(lse)
    out = block(width, most=64)
    high, wide, columns = (ceil_div(cells, plan["BLOCK_P"]), ceil_div(classes, plan["BLOCK_C"]), ceil_div(width, out))
    launch(fused._backward_rows, (high, batch), (*inputs, row_sum, *saved, *rest), plan)
    plan |= {"BLOCK_O": out}
    launch(fused._backward_cells, (high, columns, batch), (*inputs, grad_q, grad_v, row_sum, *saved, *rest), plan)
    launch(fused._backward_classes, (wide, columns, batch), (*inputs, grad_k, row_sum, *saved, *rest), plan)
    return grad_q, grad_k, grad_v


@grouping_attention_backward_op.register_fake
def _(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lse: Tensor,
    norm: Tensor,
    winner: Tensor,
    delta: Tensor,
    scale: float,
    hard: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(query, key, value)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, value, scale, _, hard = inputs
    ctx.save_for_backward(query, key, value, *output)
    ctx.scale, ctx.hard = scale, hard
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 6
    query, key, value, out, lse, norm, winner = ctx.saved_tensors
    delta = torch.zeros_like(norm) if ctx.hard else (grad.float() * out.float()).sum(2)
    found = grouping_attention_backward_op(grad, query, key, value, lse, norm, winner, delta, ctx.scale, ctx.hard)
    return (*found, None, None, None)


grouping_attention_op.register_autograd(_backward, setup_context=_save)


def _outputs(query: Tensor, key: Tensor, hard: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, cells, width = query.shape
    classes = key.shape[1]
    return (
        query.new_empty(batch, classes, width),
        query.new_empty(batch, cells, dtype=torch.float32),
        query.new_empty(batch, classes, dtype=torch.float32),
        query.new_empty(batch, cells if hard else 0, dtype=torch.int32),
    )


def _gradients(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)
