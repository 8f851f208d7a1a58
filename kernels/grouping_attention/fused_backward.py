"""Grouping attention as Triton kernels: backward.

As in the forward, no product's left operand is computed in registers.

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

import triton
import triton.language as tl

from avgn.kernels.tiles import NEVER, dot, put, tile, turned_product


@triton.jit
def along(grad_ptr, out_ptr, delta_ptr, num_rows, width, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """delta = sum_d grad * out of a block of rows."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    total = tl.zeros((BLOCK_R,), tl.float32)
    for at in range(0, width, BLOCK_D):
        slope = tile(grad_ptr, rows, width, num_rows, at, width, BLOCK_D).to(tl.float32)
        total += tl.sum(slope * tile(out_ptr, rows, width, num_rows, at, width, BLOCK_D).to(tl.float32), 1)
    tl.store(delta_ptr + rows, total, rows < num_rows)


@triton.jit
def _weights(
    query_ptr,
    key_ptr,
    value_ptr,
    grad_ptr,
    row_lse_ptr,
    column_norm_ptr,
    row_winner_ptr,
    delta_ptr,
    cells,
    classes,
    stride_q,
    stride_k,
    stride_v,
    scale,
    num_cells,
    num_classes,
    width,
    HARD: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of one sample: w (what sums the values), A, and T = A d(A), each [BLOCK_P,BLOCK_C], zero outside."""
    real_cell = cells < num_cells
    real_class = classes < num_classes
    real = real_cell[:, None] & real_class[None, :]
    scores = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    reach = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for at in range(0, width, BLOCK_D):
        q = tile(query_ptr, cells, stride_q, num_cells, at, width, BLOCK_D)
        k = tile(key_ptr, classes, stride_k, num_classes, at, width, BLOCK_D)
        scores = dot(q, tl.trans(k), scores, PRECISION)
        v = tile(value_ptr, cells, stride_v, num_cells, at, width, BLOCK_D)
        g = tile(grad_ptr, classes, width, num_classes, at, width, BLOCK_D)
        reach = dot(v, tl.trans(g), reach, PRECISION)
    lse = tl.load(row_lse_ptr + cells, real_cell, 0.0)
    norm = tl.load(column_norm_ptr + classes, real_class, 0.0)
    assigned = tl.where(real, scores * scale - lse[:, None], NEVER)
    soft = tl.exp(assigned - norm[None, :])
    if HARD:
        winner = tl.load(row_winner_ptr + cells, real_cell, -1)
        weight = tl.where(winner[:, None] == classes[None, :], tl.exp(-norm)[None, :], 0.0)
        change = soft * reach
    else:
        weight = soft
        if WHOLE:
            # sum_d grad * out, when all cells are here
            shift = tl.sum(soft * reach, 0)
        else:
            shift = tl.load(delta_ptr + classes, real_class, 0.0)
        change = soft * (reach - shift[None, :])
    return weight, tl.exp(assigned), change


@triton.jit
def backward_scores(
    query_ptr,
    key_ptr,
    value_ptr,
    grad_ptr,
    weights_ptr,
    slopes_ptr,
    row_lse_ptr,
    column_norm_ptr,
    row_winner_ptr,
    delta_ptr,
    batch_q,
    stride_q,
    batch_k,
    stride_k,
    batch_v,
    stride_v,
    scale,
    num_cells,
    num_classes,
    stride_a,
    width,
    HARD: tl.constexpr,
    WHOLE: tl.constexpr,
    SINGLE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """w and the gradient of S [B,P,stride_a] of a block of cells. SINGLE: BLOCK_C holds all classes."""
    blocks = tl.cdiv(num_cells, BLOCK_P)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    cells = (tl.program_id(0) % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    query_ptr += sample * batch_q
    key_ptr += sample * batch_k
    value_ptr += sample * batch_v
    grad_ptr += sample * num_classes * width
    row_lse_ptr += sample * num_cells
    column_norm_ptr += sample * num_classes
    row_winner_ptr += sample * num_cells
    delta_ptr += sample * num_classes
    total = tl.zeros((BLOCK_P,), tl.float32)
    if not SINGLE:
        for start in range(0, num_classes, BLOCK_C):
            _, _, change = _weights(
                query_ptr=query_ptr,
                key_ptr=key_ptr,
                value_ptr=value_ptr,
                grad_ptr=grad_ptr,
                row_lse_ptr=row_lse_ptr,
                column_norm_ptr=column_norm_ptr,
                row_winner_ptr=row_winner_ptr,
                delta_ptr=delta_ptr,
                cells=cells,
                classes=start + tl.arange(0, BLOCK_C),
                stride_q=stride_q,
                stride_k=stride_k,
                stride_v=stride_v,
                scale=scale,
                num_cells=num_cells,
                num_classes=num_classes,
                width=width,
                HARD=HARD,
                WHOLE=WHOLE,
                BLOCK_P=BLOCK_P,
                BLOCK_C=BLOCK_C,
                BLOCK_D=BLOCK_D,
                PRECISION=PRECISION,
            )
            total += tl.sum(change, 1)
    for start in range(0, 1 if SINGLE else num_classes, BLOCK_C):
        classes = start + tl.arange(0, BLOCK_C)
        weight, soft, change = _weights(
            query_ptr=query_ptr,
            key_ptr=key_ptr,
            value_ptr=value_ptr,
            grad_ptr=grad_ptr,
            row_lse_ptr=row_lse_ptr,
            column_norm_ptr=column_norm_ptr,
            row_winner_ptr=row_winner_ptr,
            delta_ptr=delta_ptr,
            cells=cells,
            classes=classes,
            stride_q=stride_q,
            stride_k=stride_k,
            stride_v=stride_v,
            scale=scale,
            num_cells=num_cells,
            num_classes=num_classes,
            width=width,
            HARD=HARD,
            WHOLE=WHOLE,
            BLOCK_P=BLOCK_P,
            BLOCK_C=BLOCK_C,
            BLOCK_D=BLOCK_D,
            PRECISION=PRECISION,
        )
        if SINGLE:
            total = tl.sum(change, 1)
        slope = (change - soft * total[:, None]) * scale
        at = (sample * num_cells + cells[:, None]) * stride_a + classes[None, :]
        inside = (cells[:, None] < num_cells) & (classes[None, :] < stride_a)
        tl.store(weights_ptr + at, weight.to(weights_ptr.dtype.element_ty), inside)
        tl.store(slopes_ptr + at, slope.to(slopes_ptr.dtype.element_ty), inside)


@triton.jit
def _of_cells(
    mixed_ptr,
    rows_of_ptr,
    grad_of_ptr,
    first,
    at,
    stride_a,
    stride_r,
    num_cells,
    num_classes,
    width,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_O: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a block of cells and columns of mixed [P,C] times rows_of [C,D]."""
    cells = first + tl.arange(0, BLOCK_P)
    acc = tl.zeros((BLOCK_P, BLOCK_O), tl.float32)
    for start in range(0, num_classes, BLOCK_K):
        left = tile(mixed_ptr, cells, stride_a, num_cells, start, stride_a, BLOCK_K)
        right = tile(rows_of_ptr, start + tl.arange(0, BLOCK_K), stride_r, num_classes, at, width, BLOCK_O)
        acc = dot(left, right, acc, PRECISION)
    put(grad_of_ptr, acc, cells, num_cells, at, width, BLOCK_O)


@triton.jit
def backward_products(
    query_ptr,
    key_ptr,
    grad_ptr,
    weights_ptr,
    slopes_ptr,
    grad_q_ptr,
    grad_k_ptr,
    grad_v_ptr,
    batch_q,
    stride_q,
    batch_k,
    stride_k,
    num_cells,
    num_classes,
    stride_a,
    width,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_O: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a tile of one gradient of a sample: dQ = dS K, dV = w G, or dK = dS^T Q."""
    columns = tl.cdiv(width, BLOCK_O)
    of_cells = tl.cdiv(num_cells, BLOCK_P) * columns
    tiles = 2 * of_cells + tl.cdiv(num_classes, BLOCK_C) * columns
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    mine = tl.program_id(0) % tiles
    at = (mine % columns) * BLOCK_O
    slopes_ptr += sample * num_cells * stride_a
    if mine < of_cells:
        first = mine // columns * BLOCK_P
        _of_cells(
            mixed_ptr=slopes_ptr,
            rows_of_ptr=key_ptr + sample * batch_k,
            grad_of_ptr=grad_q_ptr + sample * num_cells * width,
            first=first,
            at=at,
            stride_a=stride_a,
            stride_r=stride_k,
            num_cells=num_cells,
            num_classes=num_classes,
            width=width,
            BLOCK_P=BLOCK_P,
            BLOCK_K=BLOCK_K,
            BLOCK_O=BLOCK_O,
            PRECISION=PRECISION,
        )
    elif mine < 2 * of_cells:
        first = (mine - of_cells) // columns * BLOCK_P
        _of_cells(
            mixed_ptr=weights_ptr + sample * num_cells * stride_a,
            rows_of_ptr=grad_ptr + sample * num_classes * width,
            grad_of_ptr=grad_v_ptr + sample * num_cells * width,
            first=first,
            at=at,
            stride_a=stride_a,
            stride_r=width,
            num_cells=num_cells,
            num_classes=num_classes,
            width=width,
            BLOCK_P=BLOCK_P,
            BLOCK_K=BLOCK_K,
            BLOCK_O=BLOCK_O,
            PRECISION=PRECISION,
        )
    else:
        first = (mine - 2 * of_cells) // columns * BLOCK_C
        turned_product(
            mixed_ptr=slopes_ptr,
            rows_of_ptr=query_ptr + sample * batch_q,
            out_ptr=grad_k_ptr + sample * num_classes * width,
            first=first,
            at=at,
            stride_a=stride_a,
            stride_r=stride_q,
            num_cells=num_cells,
            num_classes=num_classes,
            width=width,
            BLOCK_C=BLOCK_C,
            BLOCK_K=BLOCK_K,
            BLOCK_O=BLOCK_O,
            PRECISION=PRECISION,
        )
