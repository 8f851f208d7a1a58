"""Grouping attention as Triton kernels: forward.

The maths stands in this folder's README. Matrix units multiply tiles that come from shared memory; a product's left
operand is never computed in registers: weights that a program has just computed stand on the right.

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

import triton
import triton.language as tl

from avgn.kernels.tiles import NEVER, dot, products, put, tile, turned_product


@triton.jit
def _put_turned(out_ptr, value, classes, num_classes, at, width, BLOCK_D: tl.constexpr):
    """Store [BLOCK_D,classes] into dense rows of `width`, a row a class, from column `at`."""
    put(out_ptr, tl.trans(value), classes, num_classes, at, width, BLOCK_D)


@triton.jit
def forward_whole(
    query_ptr,
    key_ptr,
    value_ptr,
    out_ptr,
    row_lse_ptr,
    column_norm_ptr,
    row_winner_ptr,
    batch_q,
    stride_q,
    batch_k,
    stride_k,
    batch_v,
    stride_v,
    scale,
    eps,
    num_cells,
    num_classes,
    width,
    HARD: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a whole sample; reads every input once."""
    sample = tl.program_id(0).to(tl.int64)
    cells = tl.arange(0, BLOCK_P)
    classes = tl.arange(0, BLOCK_C)
    scores = scale * products(
        left_ptr=query_ptr + sample * batch_q,
        right_ptr=key_ptr + sample * batch_k,
        rows=cells,
        columns=classes,
        stride_left=stride_q,
        stride_right=stride_k,
        num_rows=num_cells,
        num_columns=num_classes,
        width=width,
        BLOCK_R=BLOCK_P,
        BLOCK_C=BLOCK_C,
        BLOCK_D=BLOCK_D,
        PRECISION=PRECISION,
    )
    scores = tl.where(classes[None, :] < num_classes, scores, NEVER)
    top = tl.max(scores, 1)
    lse = top + tl.log(tl.sum(tl.exp(scores - top[:, None]), 1))
    real_cell = cells < num_cells
    tl.store(row_lse_ptr + sample * num_cells + cells, lse, real_cell)
    if HARD:
        winner = tl.argmax(scores, 1)
        tl.store(row_winner_ptr + sample * num_cells + cells, winner.to(tl.int32), real_cell)
        weight = ((winner[:, None] == classes[None, :]) & real_cell[:, None]).to(tl.float32)
        norm = tl.log(tl.maximum(tl.sum(weight, 0), 1.0))
        # a winner is found among what is no number, too
        after = tl.exp(-norm) + tl.sum(tl.where(real_cell & (lse != lse), float("nan"), 0.0), 0)
    else:
        assigned = tl.where(real_cell[:, None], scores - lse[:, None], NEVER)
        high = tl.max(assigned, 0)
        weight = tl.exp(assigned - high[None, :])
        total = tl.sum(weight, 0)
        norm = high + tl.log(total + eps * tl.exp(-tl.maximum(high, -80.0)))
        after = tl.exp(high - norm)
    tl.store(column_norm_ptr + sample * num_classes + classes, norm, classes < num_classes)
    mixed = weight.to(value_ptr.dtype.element_ty)
    for at in range(0, width, BLOCK_D):
        v = tile(value_ptr + sample * batch_v, cells, stride_v, num_cells, at, width, BLOCK_D)
        grouped = dot(tl.trans(v), mixed, None, PRECISION) * after[None, :]
        _put_turned(out_ptr + sample * num_classes * width, grouped, classes, num_classes, at, width, BLOCK_D)


@triton.jit
def forward_rows(
    query_ptr,
    key_ptr,
    scores_ptr,
    row_lse_ptr,
    row_winner_ptr,
    batch_q,
    stride_q,
    batch_k,
    stride_k,
    scale,
    num_cells,
    num_classes,
    stride_a,
    width,
    HARD: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a block of cells: scores [B,P,stride_a], their log-sum-exp over the classes, and (hard) the winner."""
    blocks = tl.cdiv(num_cells, BLOCK_P)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    cells = (tl.program_id(0) % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    top = tl.full((BLOCK_P,), NEVER, tl.float32)
    total = tl.zeros((BLOCK_P,), tl.float32)
    winner = tl.zeros((BLOCK_P,), tl.int32)
    for start in range(0, num_classes, BLOCK_C):
        classes = start + tl.arange(0, BLOCK_C)
        scores = scale * products(
            left_ptr=query_ptr + sample * batch_q,
            right_ptr=key_ptr + sample * batch_k,
            rows=cells,
            columns=classes,
            stride_left=stride_q,
            stride_right=stride_k,
            num_rows=num_cells,
            num_columns=num_classes,
            width=width,
            BLOCK_R=BLOCK_P,
            BLOCK_C=BLOCK_C,
            BLOCK_D=BLOCK_D,
            PRECISION=PRECISION,
        )
        scores = tl.where(classes[None, :] < num_classes, scores, NEVER)
        best = tl.max(scores, 1)
        if HARD:
            winner = tl.where(best > top, start + tl.argmax(scores, 1).to(tl.int32), winner)
        else:
            at = scores_ptr + (sample * num_cells + cells[:, None]) * stride_a + classes[None, :]
            tl.store(at, scores, (cells[:, None] < num_cells) & (classes[None, :] < num_classes))
        higher = tl.maximum(top, best)
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(scores - higher[:, None]), 1)
        top = higher
    tl.store(row_lse_ptr + sample * num_cells + cells, top + tl.log(total), cells < num_cells)
    if HARD:
        tl.store(row_winner_ptr + sample * num_cells + cells, winner, cells < num_cells)


@triton.jit
def forward_weights(
    scores_ptr,
    weights_ptr,
    row_lse_ptr,
    column_norm_ptr,
    row_winner_ptr,
    eps,
    num_cells,
    num_classes,
    stride_a,
    HARD: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """w [B,P,stride_a] and the log-normaliser of a block of classes, over all cells.

    Running maxima and sums are kept for each place of a tile, and reduced once.
    """
    blocks = tl.cdiv(num_classes, BLOCK_C)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    classes = (tl.program_id(0) % blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    scores_ptr += sample * num_cells * stride_a
    weights_ptr += sample * num_cells * stride_a
    row_lse_ptr += sample * num_cells
    row_winner_ptr += sample * num_cells
    high = tl.full((BLOCK_P, BLOCK_C), NEVER, tl.float32)
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for start in range(0, num_cells, BLOCK_P):
        cells = start + tl.arange(0, BLOCK_P)
        real_cell = cells < num_cells
        if HARD:
            winner = tl.load(row_winner_ptr + cells, real_cell, -1)
            total += (winner[:, None] == classes[None, :]).to(tl.float32)
            lse = tl.load(row_lse_ptr + cells, real_cell, 0.0)
            # a winner is found among what is no number, too
            total += tl.where(lse != lse, float("nan"), 0.0)[:, None]
        else:
            inside = real_cell[:, None] & (classes[None, :] < num_classes)
            found = tl.load(scores_ptr + cells[:, None].to(tl.int64) * stride_a + classes[None, :], inside, NEVER)
            found -= tl.load(row_lse_ptr + cells, real_cell, 0.0)[:, None]
            higher = tl.maximum(high, found)
            total = total * tl.exp(high - higher) + tl.exp(found - higher)
            high = higher
    if HARD:
        norm = tl.log(tl.maximum(tl.sum(total, 0), 1.0, propagate_nan=tl.PropagateNan.ALL))
    else:
        top = tl.max(high, 0)
        whole = tl.sum(total * tl.exp(high - top[None, :]), 0)
        norm = top + tl.log(whole + eps * tl.exp(-tl.maximum(top, -80.0)))
    tl.store(column_norm_ptr + sample * num_classes + classes, norm, classes < num_classes)
    for start in range(0, num_cells, BLOCK_P):
        cells = start + tl.arange(0, BLOCK_P)
        real_cell = cells < num_cells
        at = cells[:, None].to(tl.int64) * stride_a + classes[None, :]
        real = real_cell[:, None] & (classes[None, :] < num_classes)
        if HARD:
            winner = tl.load(row_winner_ptr + cells, real_cell, -1)
            weight = (winner[:, None] == classes[None, :]).to(tl.float32) * tl.exp(-norm)[None, :]
        else:
            found = tl.load(scores_ptr + at, real, NEVER) - tl.load(row_lse_ptr + cells, real_cell, 0.0)[:, None]
            weight = tl.where(real, tl.exp(found - norm[None, :]), 0.0)
        inside = real_cell[:, None] & (classes[None, :] < stride_a)
        tl.store(weights_ptr + at, weight.to(weights_ptr.dtype.element_ty), inside)


@triton.jit
def forward_products(
    weights_ptr,
    value_ptr,
    out_ptr,
    batch_v,
    stride_v,
    num_cells,
    num_classes,
    stride_a,
    width,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_O: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a block of classes and columns of w^T V."""
    columns = tl.cdiv(width, BLOCK_O)
    tiles = tl.cdiv(num_classes, BLOCK_C) * columns
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    mine = tl.program_id(0) % tiles
    turned_product(
        mixed_ptr=weights_ptr + sample * num_cells * stride_a,
        rows_of_ptr=value_ptr + sample * batch_v,
        out_ptr=out_ptr + sample * num_classes * width,
        first=mine // columns * BLOCK_C,
        at=(mine % columns) * BLOCK_O,
        stride_a=stride_a,
        stride_r=stride_v,
        num_cells=num_cells,
        num_classes=num_classes,
        width=width,
        BLOCK_C=BLOCK_C,
        BLOCK_K=BLOCK_K,
        BLOCK_O=BLOCK_O,
        PRECISION=PRECISION,
    )
