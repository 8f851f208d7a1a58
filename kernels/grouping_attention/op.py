"""The grouping-attention operator: `avgn::grouping_attention` with its gradients, for eager, compile and export.

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avgn.kernels.grouping_attention import fused
from avgn.kernels.grouping_attention.plan import Plan, plan_backward, plan_forward
from avgn.kernels.launch import ceil_div, precision, row_contiguous, shared_memory


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
    plan = plan_forward(cells, classes, width, query.dtype, shared_memory(query.device))
    strides = (*query.stride()[:2], *key.stride()[:2])
    sizes = (cells, classes, width)
    meta = _meta(plan, hard, query.dtype)
    if plan.whole:
        fused._forward_whole[(batch,)](
            query, key, value, out, lse, norm, winner, *strides, *value.stride()[:2], scale, eps, *sizes, **meta
        )
        return out, lse, norm, winner
    fused._forward_rows[(ceil_div(cells, plan.cells), batch)](
        query, key, lse, winner, *strides, scale, *sizes, **meta
    )
    fused._forward_columns[(ceil_div(classes, plan.classes), ceil_div(width, plan.out), batch)](
        query, key, value, out, lse, norm, winner, *strides, *value.stride()[:2], scale, eps, *sizes,
        BLOCK_O=plan.out, **meta,
    )  # fmt: skip
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
    plan = plan_backward(cells, classes, width, query.dtype, shared_memory(query.device))
    inputs = (query, key, value, grad)
    saved = (lse, norm, winner, delta)
    strides = (*query.stride()[:2], *key.stride()[:2], *value.stride()[:2])
    rest = (*strides, scale, cells, classes, width)
    meta = _meta(plan, hard, query.dtype)
    if plan.whole:
        fused._backward_whole[(batch,)](*inputs, grad_q, grad_k, grad_v, *saved, *rest, **meta)
        return grad_q, grad_k, grad_v
    row_sum = torch.empty_like(lse)
    columns = ceil_div(width, plan.out)
    high, wide = ceil_div(cells, plan.cells), ceil_div(classes, plan.classes)
    fused._backward_rows[(high, batch)](*inputs, row_sum, *saved, *rest, **meta)
    fused._backward_cells[(high, columns, batch)](
        *inputs, grad_q, grad_v, row_sum, *saved, *rest, BLOCK_O=plan.out, **meta
    )
    fused._backward_classes[(wide, columns, batch)](*inputs, grad_k, row_sum, *saved, *rest, BLOCK_O=plan.out, **meta)
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


def _meta(plan: Plan, hard: bool, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "HARD": hard,
        "BLOCK_P": plan.cells,
        "BLOCK_C": plan.classes,
        "BLOCK_D": plan.inner,
        "PRECISION": precision(dtype),
        "num_warps": plan.warps,
        "num_stages": plan.stages,
    }
