"""The launches of the grouping-attention kernels.

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avgn.kernels.grouping_attention import fused
from avgn.kernels.grouping_attention.plan import (
    fits_whole,
    plan_along,
    plan_mix,
    plan_products,
    plan_rows,
    plan_scores,
    plan_weights,
    plan_whole,
)
from avgn.kernels.launch import again, ceil_div, launch, recorded, row_contiguous, shared_memory

Three = tuple[Tensor, Tensor, Tensor]
Four = tuple[Tensor, Tensor, Tensor, Tensor]


def run_forward(query: Tensor, key: Tensor, value: Tensor, scale: float, eps: float, hard: bool) -> Four:
    """Grouped values [B,C,D], log-sum-exp [B,P], log-normaliser [B,C] and (hard) winner [B,P] int32."""
    query, key, value = row_contiguous(query), row_contiguous(key), row_contiguous(value)
    batch, cells, width = query.shape
    classes = key.shape[1]
    outputs = out, lse, norm, winner = outputs_like(query, key, hard)
    if out.numel() == 0 or cells == 0:
        return out.zero_(), lse, norm, winner
    if fits_whole(cells, classes):
        held = (*_apart(query, key, value), *outputs)
        call = ("grouping forward", *_layout(query, key, value), scale, eps, hard)
        if not again(call, held):
            with recorded(call, held):
                _forward_whole(query, key, value, outputs, scale, eps, hard)
    else:
        _forward_in_steps(query, key, value, outputs, scale, eps, hard)
    return outputs


def _layout(query: Tensor, key: Tensor, value: Tensor) -> tuple[Any, ...]:
    """What of its inputs the launches of a call depend on."""
    strides = query.stride(), key.stride(), value.stride()
    return query is value, query.dtype, query.device.index, query.shape, key.shape, *strides


def _apart(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """Return the inputs, each of them once."""
    return (query, key) if query is value else (query, key, value)


def _forward_whole(
    query: Tensor, key: Tensor, value: Tensor, outputs: Four, scale: float, eps: float, hard: bool
) -> None:
    """One program a sample."""
    batch, cells, width = query.shape
    classes = key.shape[1]
    out, lse, norm, winner = outputs
    launch(
        fused.forward_whole,
        batch,
        plan_whole(hard, cells, classes, width, query.dtype, shared_memory(query.device)),
        query_ptr=query,
        key_ptr=key,
        value_ptr=value,
        out_ptr=out,
        row_lse_ptr=lse,
        column_norm_ptr=norm,
        row_winner_ptr=winner,
        batch_q=query.stride(0),
        stride_q=query.stride(1),
        batch_k=key.stride(0),
        stride_k=key.stride(1),
        batch_v=value.stride(0),
        stride_v=value.stride(1),
        scale=scale,
        eps=eps,
        num_cells=cells,
        num_classes=classes,
        width=width,
    )


def _forward_in_steps(
    query: Tensor, key: Tensor, value: Tensor, outputs: Four, scale: float, eps: float, hard: bool
) -> None:
    """Scores by blocks of cells, weights by blocks of classes, then the product with the values."""
    batch, cells, width = query.shape
    classes = key.shape[1]
    out, lse, norm, winner = outputs
    facts = (cells, classes, width, query.dtype, shared_memory(query.device))
    padded = _padded(classes)
    scores = lse if hard else query.new_empty(batch, cells, padded, dtype=torch.float32)
    plan = plan_rows(hard, *facts)
    launch(
        fused.forward_rows,
        batch * ceil_div(cells, plan["BLOCK_P"]),
        plan,
        query_ptr=query,
        key_ptr=key,
        scores_ptr=scores,
        row_lse_ptr=lse,
        row_winner_ptr=winner,
        batch_q=query.stride(0),
        stride_q=query.stride(1),
        batch_k=key.stride(0),
        stride_k=key.stride(1),
        scale=scale,
        num_cells=cells,
        num_classes=classes,
        stride_a=padded,
        width=width,
    )
    weights = query.new_empty(batch, cells, padded)
    plan = plan_weights(hard, cells, classes)
    launch(
        fused.forward_weights,
        batch * ceil_div(padded, plan["BLOCK_C"]),
        plan,
        scores_ptr=scores,
        weights_ptr=weights,
        row_lse_ptr=lse,
        column_norm_ptr=norm,
        row_winner_ptr=winner,
        eps=eps,
        num_cells=cells,
        num_classes=classes,
        stride_a=padded,
    )
    plan = plan_mix(*facts)
    launch(
        fused.forward_products,
        batch * ceil_div(classes, plan["BLOCK_C"]) * ceil_div(width, plan["BLOCK_O"]),
        plan,
        weights_ptr=weights,
        value_ptr=value,
        out_ptr=out,
        batch_v=value.stride(0),
        stride_v=value.stride(1),
        num_cells=cells,
        num_classes=classes,
        stride_a=padded,
        width=width,
    )


def run_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    norm: Tensor,
    winner: Tensor,
    scale: float,
    hard: bool,
) -> Three:
    """Gradients of query, key and value. w and the gradient of S [B,P,C] are stored in the inputs' dtype."""
    query, key, value = row_contiguous(query), row_contiguous(key), row_contiguous(value)
    grad = grad.contiguous()
    batch, cells, width = query.shape
    classes = key.shape[1]
    gradients = grad_q, grad_k, grad_v = gradients_like(query, key, value)
    if grad_q.numel() == 0 or grad_k.numel() == 0:
        return grad_q.zero_(), grad_k.zero_(), grad_v.zero_()
    shared = shared_memory(query.device)
    padded = _padded(classes)
    weights, slopes = query.new_empty(2, batch, cells, padded).unbind()
    plan = plan_scores(hard, cells, classes, width, query.dtype, shared)
    held = (*_apart(query, key, value), grad, out, lse, norm, winner, weights, slopes, *gradients)
    delta = norm
    if not (hard or plan["WHOLE"]):
        delta = norm.new_empty(batch, classes)
        held = (*held, delta)
    call = ("grouping backward", grad.dtype, *_layout(query, key, value), scale, hard)
    if not again(call, held):
        with recorded(call, held):
            if delta is not norm:
                _along(grad, out, delta)
            _backward_scores(plan, grad, query, key, value, (lse, norm, winner), (weights, slopes, delta), scale)
            _backward_products(grad, query, key, (weights, slopes), gradients)
    return gradients


def _backward_scores(
    plan: dict[str, Any],
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    saved: Three,
    found: Three,
    scale: float,
) -> None:
    """The weights, and the gradient of the scores."""
    lse, norm, winner = saved
    weights, slopes, delta = found
    batch, cells, width = query.shape
    launch(
        fused.backward_scores,
        batch * ceil_div(cells, plan["BLOCK_P"]),
        plan,
        query_ptr=query,
        key_ptr=key,
        value_ptr=value,
        grad_ptr=grad,
        weights_ptr=weights,
        slopes_ptr=slopes,
        row_lse_ptr=lse,
        column_norm_ptr=norm,
        row_winner_ptr=winner,
        delta_ptr=delta,
        batch_q=query.stride(0),
        stride_q=query.stride(1),
        batch_k=key.stride(0),
        stride_k=key.stride(1),
        batch_v=value.stride(0),
        stride_v=value.stride(1),
        scale=scale,
        num_cells=cells,
        num_classes=key.shape[1],
        stride_a=weights.shape[2],
        width=width,
    )


def _backward_products(
    grad: Tensor, query: Tensor, key: Tensor, found: tuple[Tensor, Tensor], gradients: Three
) -> None:
    """The gradients, from the weights and the gradient of the scores."""
    weights, slopes = found
    grad_q, grad_k, grad_v = gradients
    batch, cells, width = query.shape
    classes = key.shape[1]
    plan = plan_products(cells, classes, width, query.dtype, shared_memory(query.device))
    tiles = 2 * ceil_div(cells, plan["BLOCK_P"]) + ceil_div(classes, plan["BLOCK_C"])
    launch(
        fused.backward_products,
        batch * tiles * ceil_div(width, plan["BLOCK_O"]),
        plan,
        query_ptr=query,
        key_ptr=key,
        grad_ptr=grad,
        weights_ptr=weights,
        slopes_ptr=slopes,
        grad_q_ptr=grad_q,
        grad_k_ptr=grad_k,
        grad_v_ptr=grad_v,
        batch_q=query.stride(0),
        stride_q=query.stride(1),
        batch_k=key.stride(0),
        stride_k=key.stride(1),
        num_cells=cells,
        num_classes=classes,
        stride_a=weights.shape[2],
        width=width,
    )


def _along(grad: Tensor, out: Tensor, delta: Tensor) -> None:
    """Fill delta [B,C] float32 with the sums over D of grad * out."""
    batch, classes, width = out.shape
    plan = plan_along(width)
    launch(
        fused.along,
        ceil_div(batch * classes, plan["BLOCK_R"]),
        plan,
        grad_ptr=grad,
        out_ptr=out,
        delta_ptr=delta,
        num_rows=batch * classes,
        width=width,
    )


def outputs_like(query: Tensor, key: Tensor, hard: bool) -> Four:
    """Empty outputs of `run_forward`."""
    batch, cells, width = query.shape
    classes = key.shape[1]
    return (
        query.new_empty(batch, classes, width),
        query.new_empty(batch, cells, dtype=torch.float32),
        query.new_empty(batch, classes, dtype=torch.float32),
        query.new_empty(batch, cells if hard else 0, dtype=torch.int32),
    )


def gradients_like(query: Tensor, key: Tensor, value: Tensor) -> Three:
    """Empty gradients."""
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _padded(classes: int) -> int:
    """Return the classes in rows of which each starts at 32 bytes."""
    return ceil_div(classes, 16) * 16
