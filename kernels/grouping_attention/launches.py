"""The launches of the grouping-attention kernels.

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

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
from avgn.kernels.launch import ceil_div, launch, row_contiguous, shared_memory

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
    facts = (hard, cells, classes, width, query.dtype, shared_memory(query.device))
    strides = (*query.stride()[:2], *key.stride()[:2])
    if fits_whole(cells, classes):
        whole = (query, key, value, *outputs, *strides, *value.stride()[:2], scale, eps, cells, classes, width)
        launch(fused._forward_whole, batch, whole, plan_whole(*facts))
        return outputs
    padded = _padded(classes)
    scores = lse if hard else query.new_empty(batch, cells, padded, dtype=torch.float32)
    plan = plan_rows(*facts)
    rows = (query, key, scores, lse, winner, *strides, scale, cells, classes, padded, width)
    launch(fused._forward_rows, batch * ceil_div(cells, plan["BLOCK_P"]), rows, plan)
    weights = query.new_empty(batch, cells, padded)
    plan = plan_weights(hard, cells, classes)
    columns = (scores, weights, lse, norm, winner, eps, cells, classes, padded)
    launch(fused._forward_weights, batch * ceil_div(padded, plan["BLOCK_C"]), columns, plan)
    plan = plan_mix(*facts[1:])
    programs = batch * ceil_div(classes, plan["BLOCK_C"]) * ceil_div(width, plan["BLOCK_O"])
    products = (weights, value, out, *value.stride()[:2], cells, classes, padded, width)
    launch(fused._forward_products, programs, products, plan)
    return outputs


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
    delta = norm
    if not hard and not plan["WHOLE"]:
        delta = torch.empty_like(norm)
        along = plan_along(width)
        programs = ceil_div(batch * classes, along["BLOCK_R"])
        launch(fused._along, programs, (grad, out, delta, batch * classes, width), along)
    strides = (*query.stride()[:2], *key.stride()[:2])
    sizes = (cells, classes, padded, width)
    saved = (weights, slopes, lse, norm, winner, delta)
    arguments = (query, key, value, grad, *saved, *strides, *value.stride()[:2], scale, *sizes)
    launch(fused._backward_scores, batch * ceil_div(cells, plan["BLOCK_P"]), arguments, plan)
    plan = plan_products(cells, classes, width, query.dtype, shared)
    tiles = 2 * ceil_div(cells, plan["BLOCK_P"]) + ceil_div(classes, plan["BLOCK_C"])
    programs = batch * tiles * ceil_div(width, plan["BLOCK_O"])
    products = (query, key, grad, weights, slopes, *gradients, *strides, *sizes)
    launch(fused._backward_products, programs, products, plan)
    return gradients


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
    """The classes in rows of which each starts at 32 bytes."""
    return ceil_div(classes, 16) * 16
