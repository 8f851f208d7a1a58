"""Grouping attention as Triton kernels: forward and backward without S or A in device memory.

The maths stands in this folder's README. Pictures whose S fits one program take a single kernel each way; larger ones
take one over rows (cells) and one over columns (classes).

Legend: B batch, P cells, C classes, D width.
"""

# ruff: noqa: E501

from __future__ import annotations

import triton
import triton.language as tl

from avgn.kernels.tiles import dot, products, put, tile

NEVER = tl.constexpr(-3.0e38)


@triton.jit
def _forward_whole(query, key, value, out, row_lse, column_norm, row_winner,
                   batch_q, stride_q, batch_k, stride_k, batch_v, stride_v, scale, eps, num_cells, num_classes, width,
                   HARD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
                   PRECISION: tl.constexpr):  # fmt: skip
    """A whole sample: reads every input once."""
    sample = tl.program_id(0).to(tl.int64)
    cells = tl.arange(0, BLOCK_P)
    classes = tl.arange(0, BLOCK_C)
    scores = scale * products(query + sample * batch_q, key + sample * batch_k, cells, classes, stride_q, stride_k,
                               num_cells, num_classes, width, BLOCK_P, BLOCK_C, BLOCK_D, PRECISION)  # fmt: skip
    scores = tl.where(classes[None, :] < num_classes, scores, NEVER)
    top = tl.max(scores, 1)
    lse = top + tl.log(tl.sum(tl.exp(scores - top[:, None]), 1))
    real_cell = cells < num_cells
    tl.store(row_lse + sample * num_cells + cells, lse, real_cell)
    if HARD:
        winner = tl.argmax(scores, 1)
        tl.store(row_winner + sample * num_cells + cells, winner.to(tl.int32), real_cell)
        weight = ((winner[:, None] == classes[None, :]) & real_cell[:, None]).to(tl.float32)
        norm = tl.log(tl.maximum(tl.sum(weight, 0), 1.0))
        after = tl.exp(-norm)
    else:
        assigned = tl.where(real_cell[:, None], scores - lse[:, None], NEVER)
        high = tl.max(assigned, 0)
        weight = tl.exp(assigned - high[None, :])
        total = tl.sum(weight, 0)
        norm = high + tl.log(total + eps * tl.exp(-tl.maximum(high, -80.0)))
        after = tl.exp(high - norm)
    tl.store(column_norm + sample * num_classes + classes, norm, classes < num_classes)
    mixed = tl.trans(weight.to(value.dtype.element_ty))
    for at in range(0, width, BLOCK_D):
        v = tile(value + sample * batch_v, cells, stride_v, num_cells, at, width, BLOCK_D)
        grouped = dot(mixed, v, None, PRECISION) * after[:, None]
        put(out + sample * num_classes * width, grouped, classes, num_classes, at, width, BLOCK_D)


@triton.jit
def _forward_rows(query, key, row_lse, row_winner, batch_q, stride_q, batch_k, stride_k, scale,
                  num_cells, num_classes, width,
                  HARD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
                  PRECISION: tl.constexpr):  # fmt: skip
    """The log-sum-exp over the classes (and the winner) of a block of cells."""
    sample = tl.program_id(1).to(tl.int64)
    cells = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    top = tl.full((BLOCK_P,), NEVER, tl.float32)
    total = tl.zeros((BLOCK_P,), tl.float32)
    winner = tl.zeros((BLOCK_P,), tl.int32)
    for start in range(0, num_classes, BLOCK_C):
        classes = start + tl.arange(0, BLOCK_C)
        scores = scale * products(query + sample * batch_q, key + sample * batch_k, cells, classes, stride_q, stride_k,
                                   num_cells, num_classes, width, BLOCK_P, BLOCK_C, BLOCK_D, PRECISION)  # fmt: skip
        scores = tl.where(classes[None, :] < num_classes, scores, NEVER)
        best = tl.max(scores, 1)
        if HARD:
            winner = tl.where(best > top, start + tl.argmax(scores, 1).to(tl.int32), winner)
        higher = tl.maximum(top, best)
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(scores - higher[:, None]), 1)
        top = higher
    tl.store(row_lse + sample * num_cells + cells, top + tl.log(total), cells < num_cells)
    if HARD:
        tl.store(row_winner + sample * num_cells + cells, winner, cells < num_cells)


@triton.jit
def _forward_columns(query, key, value, out, row_lse, column_norm, row_winner,
                     batch_q, stride_q, batch_k, stride_k, batch_v, stride_v, scale, eps, num_cells, num_classes, width,
                     HARD: tl.constexpr, RESIDENT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
                     BLOCK_D: tl.constexpr, BLOCK_O: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """A block of classes and of output columns, over all cells. RESIDENT: BLOCK_D holds the width, keys stay on chip."""
    sample = tl.program_id(2).to(tl.int64)
    classes = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    at = tl.program_id(1) * BLOCK_O
    if RESIDENT:
        turned = tl.trans(tile(key + sample * batch_k, classes, stride_k, num_classes, 0, width, BLOCK_D))
    high = tl.full((BLOCK_C,), NEVER, tl.float32)
    total = tl.zeros((BLOCK_C,), tl.float32)
    acc = tl.zeros((BLOCK_C, BLOCK_O), tl.float32)
    for start in range(0, num_cells, BLOCK_P):
        cells = start + tl.arange(0, BLOCK_P)
        real_cell = cells < num_cells
        if HARD:
            winner = tl.load(row_winner + sample * num_cells + cells, real_cell, -1)
            weight = (winner[:, None] == classes[None, :]).to(tl.float32)
            total += tl.sum(weight, 0)
        else:
            if RESIDENT:
                q = tile(query + sample * batch_q, cells, stride_q, num_cells, 0, width, BLOCK_D)
                scores = scale * dot(q, turned, None, PRECISION)
            else:
                scores = scale * products(query + sample * batch_q, key + sample * batch_k, cells, classes, stride_q,
                                          stride_k, num_cells, num_classes, width, BLOCK_P, BLOCK_C, BLOCK_D, PRECISION)  # fmt: skip
            lse = tl.load(row_lse + sample * num_cells + cells, real_cell, 0.0)
            assigned = tl.where(real_cell[:, None], scores - lse[:, None], NEVER)
            higher = tl.maximum(high, tl.max(assigned, 0))
            rescale = tl.exp(high - higher)
            weight = tl.exp(assigned - higher[None, :])
            total = total * rescale + tl.sum(weight, 0)
            acc *= rescale[:, None]
            high = higher
        v = tile(value + sample * batch_v, cells, stride_v, num_cells, at, width, BLOCK_O)
        acc = dot(tl.trans(weight.to(value.dtype.element_ty)), v, acc, PRECISION)
    if HARD:
        norm = tl.log(tl.maximum(total, 1.0))
        after = tl.exp(-norm)
    else:
        norm = high + tl.log(total + eps * tl.exp(-tl.maximum(high, -80.0)))
        after = tl.exp(high - norm)
    if at == 0:
        tl.store(column_norm + sample * num_classes + classes, norm, classes < num_classes)
    put(out + sample * num_classes * width, acc * after[:, None], classes, num_classes, at, width, BLOCK_O)


@triton.jit
def _weights(query, key, value, grad, row_lse, column_norm, row_winner, delta, cells, classes,
             stride_q, stride_k, stride_v, scale, num_cells, num_classes, width,
             HARD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
             PRECISION: tl.constexpr):  # fmt: skip
    """Of one sample: w (what sums the values), A, and T = A d(A), each [BLOCK_P,BLOCK_C], zero outside."""
    real_cell = cells < num_cells
    real_class = classes < num_classes
    real = real_cell[:, None] & real_class[None, :]
    scores = scale * products(query, key, cells, classes, stride_q, stride_k, num_cells, num_classes, width,
                               BLOCK_P, BLOCK_C, BLOCK_D, PRECISION)  # fmt: skip
    reach = products(value, grad, cells, classes, stride_v, width, num_cells, num_classes, width,
                      BLOCK_P, BLOCK_C, BLOCK_D, PRECISION)  # fmt: skip
    lse = tl.load(row_lse + cells, real_cell, 0.0)
    norm = tl.load(column_norm + classes, real_class, 0.0)
    shift = tl.load(delta + classes, real_class, 0.0)
    assigned = tl.where(real, scores - lse[:, None], NEVER)
    soft = tl.exp(assigned - norm[None, :])
    change = soft * (reach - shift[None, :])
    if HARD:
        winner = tl.load(row_winner + cells, real_cell, -1)
        weight = tl.where(winner[:, None] == classes[None, :], tl.exp(-norm)[None, :], 0.0)
    else:
        weight = soft
    return weight, tl.exp(assigned), change


@triton.jit
def _backward_whole(query, key, value, grad, grad_q, grad_k, grad_v, row_lse, column_norm, row_winner, delta,
                    batch_q, stride_q, batch_k, stride_k, batch_v, stride_v, scale, num_cells, num_classes, width,
                    HARD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
                    PRECISION: tl.constexpr):  # fmt: skip
    """All gradients of a whole sample."""
    sample = tl.program_id(0).to(tl.int64)
    cells = tl.arange(0, BLOCK_P)
    classes = tl.arange(0, BLOCK_C)
    query += sample * batch_q
    key += sample * batch_k
    value += sample * batch_v
    grad += sample * num_classes * width
    weight, soft, change = _weights(
        query, key, value, grad, row_lse + sample * num_cells, column_norm + sample * num_classes,
        row_winner + sample * num_cells, delta + sample * num_classes, cells, classes, stride_q, stride_k, stride_v,
        scale, num_cells, num_classes, width, HARD, BLOCK_P, BLOCK_C, BLOCK_D, PRECISION)  # fmt: skip
    kind: tl.constexpr = query.dtype.element_ty
    scores_grad = ((change - soft * tl.sum(change, 1)[:, None]) * scale).to(kind)
    weight = weight.to(kind)
    for at in range(0, width, BLOCK_D):
        g = tile(grad, classes, width, num_classes, at, width, BLOCK_D)
        put(grad_v + sample * num_cells * width, dot(weight, g, None, PRECISION), cells, num_cells, at, width, BLOCK_D)
    for at in range(0, width, BLOCK_D):
        k = tile(key, classes, stride_k, num_classes, at, width, BLOCK_D)
        put(
            grad_q + sample * num_cells * width,
            dot(scores_grad, k, None, PRECISION),
            cells,
            num_cells,
            at,
            width,
            BLOCK_D,
        )
    turned = tl.trans(scores_grad)
    for at in range(0, width, BLOCK_D):
        q = tile(query, cells, stride_q, num_cells, at, width, BLOCK_D)
        put(
            grad_k + sample * num_classes * width,
            dot(turned, q, None, PRECISION),
            classes,
            num_classes,
            at,
            width,
            BLOCK_D,
        )


@triton.jit
def _backward_rows(query, key, value, grad, row_sum, row_lse, column_norm, row_winner, delta,
                   batch_q, stride_q, batch_k, stride_k, batch_v, stride_v, scale, num_cells, num_classes, width,
                   HARD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
                   PRECISION: tl.constexpr):  # fmt: skip
    """sum_c T of a block of cells."""
    sample = tl.program_id(1).to(tl.int64)
    cells = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    total = tl.zeros((BLOCK_P,), tl.float32)
    for start in range(0, num_classes, BLOCK_C):
        _, _, change = _weights(
            query + sample * batch_q, key + sample * batch_k, value + sample * batch_v, grad + sample * num_classes * width,
            row_lse + sample * num_cells, column_norm + sample * num_classes, row_winner + sample * num_cells,
            delta + sample * num_classes, cells, start + tl.arange(0, BLOCK_C), stride_q, stride_k, stride_v,
            scale, num_cells, num_classes, width, HARD, BLOCK_P, BLOCK_C, BLOCK_D, PRECISION)  # fmt: skip
        total += tl.sum(change, 1)
    tl.store(row_sum + sample * num_cells + cells, total, cells < num_cells)


@triton.jit
def _backward_cells(query, key, value, grad, grad_q, grad_v, row_sum, row_lse, column_norm, row_winner, delta,
                    batch_q, stride_q, batch_k, stride_k, batch_v, stride_v, scale, num_cells, num_classes, width,
                    HARD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
                    BLOCK_O: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The gradients of query and value: a block of cells and of columns, over all classes."""
    sample = tl.program_id(2).to(tl.int64)
    cells = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    at = tl.program_id(1) * BLOCK_O
    kind: tl.constexpr = query.dtype.element_ty
    row = tl.load(row_sum + sample * num_cells + cells, cells < num_cells, 0.0)
    acc_q = tl.zeros((BLOCK_P, BLOCK_O), tl.float32)
    acc_v = tl.zeros((BLOCK_P, BLOCK_O), tl.float32)
    for start in range(0, num_classes, BLOCK_C):
        classes = start + tl.arange(0, BLOCK_C)
        weight, soft, change = _weights(
            query + sample * batch_q, key + sample * batch_k, value + sample * batch_v, grad + sample * num_classes * width,
            row_lse + sample * num_cells, column_norm + sample * num_classes, row_winner + sample * num_cells,
            delta + sample * num_classes, cells, classes, stride_q, stride_k, stride_v,
            scale, num_cells, num_classes, width, HARD, BLOCK_P, BLOCK_C, BLOCK_D, PRECISION)  # fmt: skip
        scores_grad = (change - soft * row[:, None]) * scale
        k = tile(key + sample * batch_k, classes, stride_k, num_classes, at, width, BLOCK_O)
        acc_q = dot(scores_grad.to(kind), k, acc_q, PRECISION)
        g = tile(grad + sample * num_classes * width, classes, width, num_classes, at, width, BLOCK_O)
        acc_v = dot(weight.to(kind), g, acc_v, PRECISION)
    put(grad_q + sample * num_cells * width, acc_q, cells, num_cells, at, width, BLOCK_O)
    put(grad_v + sample * num_cells * width, acc_v, cells, num_cells, at, width, BLOCK_O)


@triton.jit
def _backward_classes(query, key, value, grad, grad_k, row_sum, row_lse, column_norm, row_winner, delta,
                      batch_q, stride_q, batch_k, stride_k, batch_v, stride_v, scale, num_cells, num_classes, width,
                      HARD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
                      BLOCK_O: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The gradient of key: a block of classes and of columns, over all cells."""
    sample = tl.program_id(2).to(tl.int64)
    classes = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    at = tl.program_id(1) * BLOCK_O
    acc = tl.zeros((BLOCK_C, BLOCK_O), tl.float32)
    for start in range(0, num_cells, BLOCK_P):
        cells = start + tl.arange(0, BLOCK_P)
        _, soft, change = _weights(
            query + sample * batch_q, key + sample * batch_k, value + sample * batch_v, grad + sample * num_classes * width,
            row_lse + sample * num_cells, column_norm + sample * num_classes, row_winner + sample * num_cells,
            delta + sample * num_classes, cells, classes, stride_q, stride_k, stride_v,
            scale, num_cells, num_classes, width, HARD, BLOCK_P, BLOCK_C, BLOCK_D, PRECISION)  # fmt: skip
        row = tl.load(row_sum + sample * num_cells + cells, cells < num_cells, 0.0)
        scores_grad = (change - soft * row[:, None]) * scale
        q = tile(query + sample * batch_q, cells, stride_q, num_cells, at, width, BLOCK_O)
        acc = dot(tl.trans(scores_grad.to(query.dtype.element_ty)), q, acc, PRECISION)
    put(grad_k + sample * num_classes * width, acc, classes, num_classes, at, width, BLOCK_O)
