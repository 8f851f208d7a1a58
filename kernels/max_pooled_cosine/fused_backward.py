"""Max-pooled cosine similarity as Triton kernels: one backward for each input.

They read the winning cells alone: their sums run over lists of pairs, so that no sum depends on the order in which
programs finish.

Legend: R = B * N sources, M images, P cells, G gates of an image (one where there are none), D width.
"""

from __future__ import annotations

import triton
import triton.language as tl

from avgn.kernels.tiles import places

# 1 / sqrt(EPS) of the forward, less what rounding may take: where a norm's inverse exceeds it, the norm was clamped
CLAMPED = tl.constexpr(0.9999e6)


@triton.jit
def order(
    keys_ptr,
    order_ptr,
    starts_ptr,
    num_rows,
    num_groups,
    sources,
    num_keys,
    WIDE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Sort the rows of a group by their keys, ties by row: order [groups,R], and where each key starts [groups,keys+1].

    A row's place is the number of rows before it; those whose key is outside come last. `keys` is laid out
    [R/sources,groups,sources]. WIDE: a key times the rows takes 64 bits.
    """
    row_blocks = tl.cdiv(num_rows, BLOCK_R)
    blocks = row_blocks + tl.cdiv(num_keys + 1, BLOCK_R)
    group = (tl.program_id(0) // blocks).to(tl.int64)
    block = tl.program_id(0) % blocks
    counting = block >= row_blocks
    mine = tl.where(counting, block - row_blocks, block) * BLOCK_R + tl.arange(0, BLOCK_R)
    at = ((mine // sources).to(tl.int64) * num_groups + group) * sources + mine % sources
    kind: tl.constexpr = tl.int64 if WIDE else tl.int32
    key = places(tl.load(keys_ptr + at, (mine < num_rows) & (counting == 0), 0), num_keys).to(kind)
    # rows in one number with their keys; a key's start counts the rows of smaller keys
    rank = tl.where(counting, mine.to(kind) * num_rows, key * num_rows + mine)
    before = tl.zeros((BLOCK_R,), tl.int32)
    for start in range(0, num_rows, BLOCK_S):
        others = start + tl.arange(0, BLOCK_S)
        at_other = ((others // sources).to(tl.int64) * num_groups + group) * sources + others % sources
        known = places(tl.load(keys_ptr + at_other, others < num_rows, num_keys), num_keys)
        other = known.to(kind) * num_rows + others
        before += tl.sum((other[None, :] < rank[:, None]).to(tl.int32), 1)
    if counting:
        tl.store(starts_ptr + group * (num_keys + 1) + mine, before, mine <= num_keys)
    else:
        tl.store(order_ptr + group * num_rows + before, mine, mine < num_rows)


@triton.jit
def backward_audio(
    audio_ptr,
    audio_inverse_ptr,
    visual_ptr,
    gate_ptr,
    gate_inverse_ptr,
    gate_id_ptr,
    norm_inverse_ptr,
    similarity_ptr,
    argmax_ptr,
    grad_ptr,
    grad_audio_ptr,
    num_rows,
    num_images,
    sources,
    num_cells,
    gates,
    width,
    GATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One source and a block of columns, over all images: reads the winning cells alone."""
    column_blocks = tl.cdiv(width, BLOCK_D)
    row = (tl.program_id(0) // column_blocks).to(tl.int64)
    columns = (tl.program_id(0) % column_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = columns < width
    inverse = tl.load(audio_inverse_ptr + row)
    heard = tl.load(audio_ptr + row * width + columns, inside, 0.0).to(tl.float32) * inverse
    acc = tl.zeros((BLOCK_D,), tl.float32)
    along = tl.zeros((BLOCK_M,), tl.float32)
    mine = row * 0
    if GATED:
        mine = places(tl.load(gate_id_ptr + row), gates).to(tl.int64)
    for start in range(0, num_images, BLOCK_M):
        images = start + tl.arange(0, BLOCK_M).to(tl.int64)
        real = (images < num_images) & (mine < gates)
        out = ((row // sources) * num_images + images) * sources + row % sources
        cell = tl.load(argmax_ptr + out, real, 0)
        change = tl.load(grad_ptr + out, real, 0.0)
        along += change * tl.load(similarity_ptr + out, real, 0.0)
        at = images * gates + mine
        first = change * tl.load(norm_inverse_ptr + at * num_cells + cell, real, 0.0)
        both = real[:, None] & inside[None, :]
        seen = tl.load(visual_ptr + (images[:, None] * num_cells + cell[:, None]) * width + columns[None, :], both, 0.0)
        seen = seen.to(tl.float32)
        if GATED:
            first *= tl.load(gate_inverse_ptr + at, real, 0.0)
            seen *= tl.load(gate_ptr + at[:, None] * width + columns[None, :], both, 0.0).to(tl.float32)
        acc += tl.sum(seen * first[:, None], 0)
    acc = (acc - heard * tl.sum(along, 0)) * inverse
    tl.store(grad_audio_ptr + row * width + columns, acc.to(grad_audio_ptr.dtype.element_ty), inside)


@triton.jit
def backward_visual(
    audio_ptr,
    audio_inverse_ptr,
    visual_ptr,
    gate_ptr,
    gate_inverse_ptr,
    gate_id_ptr,
    norm_inverse_ptr,
    similarity_ptr,
    grad_ptr,
    order_ptr,
    starts_ptr,
    grad_visual_ptr,
    num_rows,
    num_images,
    sources,
    num_cells,
    gates,
    width,
    GATED: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One cell and a block of columns, over the sources that it won; cells that never win get zero."""
    column_blocks = tl.cdiv(width, BLOCK_D)
    place = (tl.program_id(0) // column_blocks).to(tl.int64)
    columns = (tl.program_id(0) % column_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = columns < width
    image = place // num_cells
    cell = place % num_cells
    begin = tl.load(starts_ptr + image * (num_cells + 1) + cell)
    end = tl.load(starts_ptr + image * (num_cells + 1) + cell + 1)
    towards = tl.zeros((BLOCK_D,), tl.float32)
    shrink = tl.zeros((BLOCK_D,), tl.float32)
    for start in range(begin, end, BLOCK_J):
        list_at = start + tl.arange(0, BLOCK_J)
        real = list_at < end
        row = tl.load(order_ptr + image * num_rows + list_at, real, 0).to(tl.int64)
        out = ((row // sources) * num_images + image) * sources + row % sources
        at = image * gates + row * 0
        if GATED:
            mine = places(tl.load(gate_id_ptr + row, real, 0), gates)
            at += mine
            real = real & (mine < gates)
        inverse = tl.load(norm_inverse_ptr + at * num_cells + cell, real, 0.0)
        first = tl.load(grad_ptr + out, real, 0.0) * inverse
        second = tl.where(inverse < CLAMPED, first * tl.load(similarity_ptr + out, real, 0.0) * inverse, 0.0)
        first *= tl.load(audio_inverse_ptr + row, real, 0.0)
        both = real[:, None] & inside[None, :]
        heard = tl.load(audio_ptr + row[:, None] * width + columns[None, :], both, 0.0).to(tl.float32)
        if GATED:
            modulation = tl.load(gate_ptr + at[:, None] * width + columns[None, :], both, 0.0).to(tl.float32)
            modulation *= tl.load(gate_inverse_ptr + at, real, 0.0)[:, None]
            towards += tl.sum(heard * modulation * first[:, None], 0)
            shrink += tl.sum(modulation * modulation * second[:, None], 0)
        else:
            towards += tl.sum(heard * first[:, None], 0)
            shrink += tl.sum(second, 0)
    seen = tl.load(visual_ptr + place * width + columns, inside, 0.0).to(tl.float32)
    found = towards - seen * shrink
    tl.store(grad_visual_ptr + place * width + columns, found.to(grad_visual_ptr.dtype.element_ty), inside)


@triton.jit
def backward_gate(
    audio_ptr,
    audio_inverse_ptr,
    visual_ptr,
    gate_ptr,
    gate_inverse_ptr,
    gate_id_ptr,
    norm_inverse_ptr,
    similarity_ptr,
    argmax_ptr,
    grad_ptr,
    order_ptr,
    starts_ptr,
    grad_gate_ptr,
    num_rows,
    num_images,
    sources,
    num_cells,
    gates,
    width,
    BLOCK_J: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One gate of one image and a block of columns, over the sources that it modulates: reads winning cells alone."""
    column_blocks = tl.cdiv(width, BLOCK_D)
    place = (tl.program_id(0) // column_blocks).to(tl.int64)
    columns = (tl.program_id(0) % column_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = columns < width
    image = place // gates
    mine = place % gates
    begin = tl.load(starts_ptr + mine)
    end = tl.load(starts_ptr + mine + 1)
    towards = tl.zeros((BLOCK_D,), tl.float32)
    shrink = tl.zeros((BLOCK_D,), tl.float32)
    for start in range(begin, end, BLOCK_J):
        list_at = start + tl.arange(0, BLOCK_J)
        real = list_at < end
        row = tl.load(order_ptr + list_at, real, 0).to(tl.int64)
        out = ((row // sources) * num_images + image) * sources + row % sources
        cell = tl.load(argmax_ptr + out, real, 0)
        inverse = tl.load(norm_inverse_ptr + place * num_cells + cell, real, 0.0)
        first = tl.load(grad_ptr + out, real, 0.0) * inverse
        second = tl.where(inverse < CLAMPED, first * tl.load(similarity_ptr + out, real, 0.0) * inverse, 0.0)
        first *= tl.load(audio_inverse_ptr + row, real, 0.0)
        both = real[:, None] & inside[None, :]
        heard = tl.load(audio_ptr + row[:, None] * width + columns[None, :], both, 0.0).to(tl.float32)
        seen = tl.load(visual_ptr + (image * num_cells + cell)[:, None] * width + columns[None, :], both, 0.0).to(
            tl.float32
        )
        towards += tl.sum(heard * seen * first[:, None], 0)
        shrink += tl.sum(seen * seen * second[:, None], 0)
    inverse_gate = tl.load(gate_inverse_ptr + place)
    modulation = tl.load(gate_ptr + place * width + columns, inside, 0.0).to(tl.float32) * inverse_gate
    found = (towards - modulation * shrink) * inverse_gate
    tl.store(grad_gate_ptr + place * width + columns, found.to(grad_gate_ptr.dtype.element_ty), inside)
