"""Max-pooled cosine similarity as Triton kernels: forward, and one backward for each input.

The maths stands in this folder's README. Inputs come with the inverse of their lengths, so that products stay within
half precision.

Legend: R = B * N sources, M images, P cells, G gates of an image, D width.
"""

# ruff: noqa: E501

from __future__ import annotations

import triton
import triton.language as tl

from avgn.kernels.tiles import dot, put, tile

EPS = tl.constexpr(1e-12)
NEVER = tl.constexpr(-3.0e38)


@triton.jit
def _unit_rows(pointer, inverse, rows, stride, num_rows, at, width, BLOCK_D: tl.constexpr):
    """Rows scaled to length one, float32 [rows,BLOCK_D]."""
    return tile(pointer, rows, stride, num_rows, at, width, BLOCK_D).to(tl.float32) * inverse[:, None]


@triton.jit
def _gate_rows(gate, gate_inverse, ids, real, at, width, BLOCK_D: tl.constexpr):
    """Gate rows `ids` of an image scaled to length one, float32 [ids,BLOCK_D]; zeros where not real."""
    columns = at + tl.arange(0, BLOCK_D)
    inside = real[:, None] & (columns[None, :] < width)
    rows = tl.load(gate + ids[:, None].to(tl.int64) * width + columns[None, :], inside, 0.0)
    return rows.to(tl.float32) * tl.load(gate_inverse + ids, real, 0.0)[:, None]


@triton.jit
def _forward(audio, audio_inverse, visual, gate, gate_inverse, gate_id, similarity, argmax, length,
             num_rows, num_images, sources, num_cells, gates, width,
             GATED: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
             PRECISION: tl.constexpr, SQUARES: tl.constexpr):  # fmt: skip
    """A block of sources against all cells of one image."""
    image = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    real = rows < num_rows
    inverse = tl.load(audio_inverse + rows, real, 0.0)
    kind: tl.constexpr = audio.dtype.element_ty
    visual += image * num_cells * width
    if GATED:
        ids = tl.load(gate_id + rows, real, 0)
        gate += image * gates * width
        gate_inverse += image * gates
    best = tl.full((BLOCK_R,), NEVER, tl.float32)
    where = tl.zeros((BLOCK_R,), tl.int32)
    best_length = tl.full((BLOCK_R,), 1.0, tl.float32)
    for start in range(0, num_cells, BLOCK_P):
        cells = start + tl.arange(0, BLOCK_P)
        product = tl.zeros((BLOCK_R, BLOCK_P), tl.float32)
        if GATED:
            power = tl.zeros((BLOCK_R, BLOCK_P), tl.float32)
        else:
            cell_power = tl.zeros((BLOCK_P,), tl.float32)
        for at in range(0, width, BLOCK_D):
            sound = _unit_rows(audio, inverse, rows, width, num_rows, at, width, BLOCK_D)
            cell = tile(visual, cells, width, num_cells, at, width, BLOCK_D)
            square = cell.to(tl.float32) * cell.to(tl.float32)
            if GATED:
                modulation = _gate_rows(gate, gate_inverse, ids, real, at, width, BLOCK_D)
                sound *= modulation
                power = tl.dot(modulation * modulation, tl.trans(square), power, input_precision=SQUARES)
            else:
                cell_power += tl.sum(square, 1)
            product = dot(sound.to(kind), tl.trans(cell), product, PRECISION)
        if not GATED:
            power = tl.broadcast_to(cell_power[None, :], (BLOCK_R, BLOCK_P))
        norm = tl.sqrt(tl.maximum(power, EPS))
        cosine = tl.where(cells[None, :] < num_cells, product / norm, NEVER)
        here = tl.max(cosine, 1)
        index = tl.argmax(cosine, 1)
        chosen = tl.sum(tl.where(tl.arange(0, BLOCK_P)[None, :] == index[:, None], norm, 0.0), 1)
        better = here > best
        best = tl.where(better, here, best)
        where = tl.where(better, start + index.to(tl.int32), where)
        best_length = tl.where(better, chosen, best_length)
    out = ((rows // sources).to(tl.int64) * num_images + image) * sources + rows % sources
    tl.store(similarity + out, best, real)
    tl.store(argmax + out, where.to(tl.int64), real)
    tl.store(length + out, best_length, real)


@triton.jit
def _pairs(grad, similarity, argmax, length, out, real):
    """Of pairs (source, image): the winning cell, grad / length, and grad * cosine / length^2 (0 where clamped)."""
    change = tl.load(grad + out, real, 0.0)
    cosine = tl.load(similarity + out, real, 0.0)
    cell = tl.load(argmax + out, real, 0)
    norm = tl.load(length + out, real, 1.0)
    first = change / norm
    second = tl.where(norm * norm > EPS, first * cosine / norm, 0.0)
    return cell, first, second, change * cosine


@triton.jit
def _backward_audio(audio, audio_inverse, visual, gate, gate_inverse, gate_id, similarity, argmax, length, grad, grad_audio,
                    num_rows, num_images, sources, num_cells, gates, width,
                    GATED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """One source and a block of columns, over all images: reads the winning cells alone."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = columns < width
    inverse = tl.load(audio_inverse + row)
    sound = tl.load(audio + row * width + columns, inside, 0.0).to(tl.float32) * inverse
    acc = tl.zeros((BLOCK_D,), tl.float32)
    along = tl.zeros((BLOCK_M,), tl.float32)
    if GATED:
        mine = tl.load(gate_id + row).to(tl.int64)
    for start in range(0, num_images, BLOCK_M):
        images = start + tl.arange(0, BLOCK_M).to(tl.int64)
        real = images < num_images
        out = ((row // sources) * num_images + images) * sources + row % sources
        cell, first, _, turned = _pairs(grad, similarity, argmax, length, out, real)
        both = real[:, None] & inside[None, :]
        seen = tl.load(visual + (images[:, None] * num_cells + cell[:, None]) * width + columns[None, :], both, 0.0).to(
            tl.float32
        )
        if GATED:
            at = images * gates + mine
            modulation = tl.load(gate + at[:, None] * width + columns[None, :], both, 0.0).to(tl.float32)
            seen *= modulation * tl.load(gate_inverse + at, real, 0.0)[:, None]
        acc += tl.sum(seen * first[:, None], 0)
        along += turned
    acc = (acc - sound * tl.sum(along, 0)) * inverse
    tl.store(grad_audio + row * width + columns, acc.to(grad_audio.dtype.element_ty), inside)


@triton.jit
def _backward_visual(audio, audio_inverse, visual, gate, gate_inverse, gate_id, similarity, argmax, length, grad, grad_visual,
                     num_rows, num_images, sources, num_cells, gates, width,
                     GATED: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
                     SQUARES: tl.constexpr):  # fmt: skip
    """A block of cells of one image and of columns, over all sources; cells that never win get zero."""
    image = tl.program_id(2).to(tl.int64)
    cells = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    at = tl.program_id(1) * BLOCK_D
    if GATED:
        gate += image * gates * width
        gate_inverse += image * gates
    towards = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    shrink = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    for start in range(0, num_rows, BLOCK_R):
        rows = start + tl.arange(0, BLOCK_R)
        real = rows < num_rows
        out = ((rows // sources).to(tl.int64) * num_images + image) * sources + rows % sources
        cell, first, second, _ = _pairs(grad, similarity, argmax, length, out, real)
        won = (cells[:, None] == cell[None, :]) & real[None, :]
        sound = _unit_rows(audio, tl.load(audio_inverse + rows, real, 0.0), rows, width, num_rows, at, width, BLOCK_D)
        if GATED:
            ids = tl.load(gate_id + rows, real, 0)
            modulation = _gate_rows(gate, gate_inverse, ids, real, at, width, BLOCK_D)
            sound *= modulation
            shrink = tl.dot(
                tl.where(won, second[None, :], 0.0), modulation * modulation, shrink, input_precision=SQUARES
            )
        else:
            shrink += tl.sum(tl.where(won, second[None, :], 0.0), 1)[:, None]
        towards = tl.dot(tl.where(won, first[None, :], 0.0), sound, towards, input_precision=SQUARES)
    seen = tile(visual + image * num_cells * width, cells, width, num_cells, at, width, BLOCK_D).to(tl.float32)
    put(grad_visual + image * num_cells * width, towards - seen * shrink, cells, num_cells, at, width, BLOCK_D)


@triton.jit
def _backward_gate(audio, audio_inverse, visual, gate, gate_inverse, gate_id, similarity, argmax, length, grad, grad_gate,
                   num_rows, num_images, sources, num_cells, gates, width,
                   BLOCK_R: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_D: tl.constexpr, SQUARES: tl.constexpr):  # fmt: skip
    """A block of gates of one image and of columns, over all sources: reads the winning cells alone."""
    image = tl.program_id(2).to(tl.int64)
    mine = tl.program_id(0) * BLOCK_G + tl.arange(0, BLOCK_G)
    at = tl.program_id(1) * BLOCK_D
    columns = at + tl.arange(0, BLOCK_D)
    visual += image * num_cells * width
    towards = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    shrink = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    for start in range(0, num_rows, BLOCK_R):
        rows = start + tl.arange(0, BLOCK_R)
        real = rows < num_rows
        out = ((rows // sources).to(tl.int64) * num_images + image) * sources + rows % sources
        cell, first, second, _ = _pairs(grad, similarity, argmax, length, out, real)
        used = (mine[:, None] == tl.load(gate_id + rows, real, -1)[None, :]) & real[None, :]
        both = real[:, None] & (columns[None, :] < width)
        seen = tl.load(visual + cell[:, None] * width + columns[None, :], both, 0.0).to(tl.float32)
        sound = _unit_rows(audio, tl.load(audio_inverse + rows, real, 0.0), rows, width, num_rows, at, width, BLOCK_D)
        towards = tl.dot(tl.where(used, first[None, :], 0.0), sound * seen, towards, input_precision=SQUARES)
        shrink = tl.dot(tl.where(used, second[None, :], 0.0), seen * seen, shrink, input_precision=SQUARES)
    own = mine < gates
    inverse = tl.load(gate_inverse + image * gates + mine, own, 0.0)
    modulation = (
        tile(gate + image * gates * width, mine, width, gates, at, width, BLOCK_D).to(tl.float32) * inverse[:, None]
    )
    put(
        grad_gate + image * gates * width,
        (towards - modulation * shrink) * inverse[:, None],
        mine,
        gates,
        at,
        width,
        BLOCK_D,
    )
