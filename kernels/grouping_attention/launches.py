"""The launches of the grouping-attention kernels.

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avgn.kernels.dispatch import check_devices
from avgn.kernels.grouping_attention import fused_backward, fused_forward
from avgn.kernels.grouping_attention.calls import backward_name, call_name, forward_name, inputs_of
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
from avgn.kernels.records import Pieces, parts, recorded, records, room_for, room_size

Two = tuple[Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]


def run_forward(query: Tensor, key: Tensor, value: Tensor, scale: float, eps: float, hard: bool) -> Two:
    """Grouped values [B,C,D], and a room with what the backward needs (`sums_of`)."""
    query, key, value = row_contiguous(query), row_contiguous(key), row_contiguous(value)
    call = forward_name(call_name(query, key, value, scale, hard), eps)
    inputs = inputs_of(query, key, value)
    record = records.get(call)
    if record is not None and (found := record.again(*inputs)):
        return found
    outputs = out, sums = outputs_like(query, key, hard)
    batch, cells, width = query.shape
    classes = key.shape[1]
    if out.numel() == 0 or cells == 0:
        return out.zero_(), sums
    whole = fits_whole(cells, classes)
    padded = _padded(classes)
    # the scores of `hard` aren't kept
    scores = (batch, cells, 0 if hard else padded), torch.float32
    pieces = [] if whole else [((batch, cells, padded), query.dtype), scores]
    room = room_for(query, pieces)
    with recorded(call, inputs, outputs, room):
        kept = sums_of(sums, query, key, hard)
        if whole:
            _forward_whole(query, key, value, out, kept, scale, eps, hard)
        else:
            _forward_in_steps(query, key, value, out, kept, parts(room, pieces), scale, eps, hard)
    return outputs


def _forward_whole(
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, sums: Three, scale: float, eps: float, hard: bool
) -> None:
    """One program a sample."""
    batch, cells, width = query.shape
    classes = key.shape[1]
    lse, norm, winner = sums
    launch(
        fused_forward.forward_whole,
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
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Three,
    room: Sequence[Tensor],
    scale: float,
    eps: float,
    hard: bool,
) -> None:
    """Scores by blocks of cells, weights by blocks of classes, then the product with the values."""
    batch, cells, width = query.shape
    classes = key.shape[1]
    lse, norm, winner = sums
    facts = (cells, classes, width, query.dtype, shared_memory(query.device))
    weights, scores = room
    padded = weights.shape[2]
    if hard:
        scores = lse
    plan = plan_rows(hard, *facts)
    launch(
        fused_forward.forward_rows,
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
    plan = plan_weights(hard, cells, classes)
    launch(
        fused_forward.forward_weights,
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
        fused_forward.forward_products,
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
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, sums: Tensor, scale: float, hard: bool
) -> Three:
    """Gradients of query, key and value. w and the gradient of S [B,P,C] are stored in the inputs' dtype."""
    query, key, value = row_contiguous(query), row_contiguous(key), row_contiguous(value)
    # hooks may give back other tensors than were saved
    grad, out, sums = (one.contiguous() for one in (grad, out.to(query.dtype), sums))
    call = backward_name(call_name(query, key, value, scale, hard), grad, out, sums)
    inputs = (grad, out, sums, *inputs_of(query, key, value))
    check_devices("grouping_attention", *inputs)
    record = records.get(call)
    if record is not None and (found := record.again(*inputs)):
        return found
    gradients = grad_q, grad_k, grad_v = gradients_like(query, key, value)
    if grad_q.numel() == 0 or grad_k.numel() == 0:
        return grad_q.zero_(), grad_k.zero_(), grad_v.zero_()
    batch, cells, width = query.shape
    classes = key.shape[1]
    padded = _padded(classes)
    plan = plan_scores(hard, cells, classes, width, query.dtype, shared_memory(query.device))
    along = not (hard or plan["WHOLE"])
    pieces = [((batch, cells, padded), query.dtype)] * 2 + [((batch, classes if along else 0), torch.float32)]
    room = room_for(query, pieces)
    with recorded(call, inputs, gradients, room):
        kept = sums_of(sums, query, key, hard)
        weights, slopes, delta = parts(room, pieces)
        if along:
            _along(grad, out, delta)
        else:
            delta = kept[1]
        _backward_scores(plan, grad, query, key, value, kept, (weights, slopes, delta), scale)
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
        fused_backward.backward_scores,
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
        fused_backward.backward_products,
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
        fused_backward.along,
        ceil_div(batch * classes, plan["BLOCK_R"]),
        plan,
        grad_ptr=grad,
        out_ptr=out,
        delta_ptr=delta,
        num_rows=batch * classes,
        width=width,
    )


def outputs_like(query: Tensor, key: Tensor, hard: bool) -> Two:
    """Empty outputs of `run_forward`."""
    batch, cells, width = query.shape
    classes = key.shape[1]
    numbers = room_size(_sums(batch, cells, classes, hard))
    return query.new_empty(batch, classes, width), query.new_empty(numbers, dtype=torch.int32)


def sums_of(sums: Tensor, query: Tensor, key: Tensor, hard: bool) -> Three:
    """Return log-sum-exp [B,P], log-normaliser [B,C] and (hard) winner [B,P] int32 of a forward."""
    batch, cells, _ = query.shape
    lse, norm, *winner = parts(sums, _sums(batch, cells, key.shape[1], hard))
    # anything stands in the place of what isn't read
    return lse, norm, winner[0] if hard else lse


def _sums(batch: int, cells: int, classes: int, hard: bool) -> Pieces:
    pieces = [((batch, cells), torch.float32), ((batch, classes), torch.float32)]
    return [*pieces, ((batch, cells), torch.int32)] if hard else pieces


def gradients_like(query: Tensor, key: Tensor, value: Tensor) -> Three:
    """Empty gradients."""
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _padded(classes: int) -> int:
    """Return the classes in rows of which each starts at 32 bytes."""
    return ceil_div(classes, 16) * 16
