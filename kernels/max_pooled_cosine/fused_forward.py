"""Max-pooled cosine similarity as Triton kernels: forward.

The maths stands in this folder's README. Matrix units multiply half-precision tiles that come from shared memory; a
product's left operand is never computed in registers.

Legend: R = B * N sources, M images, P cells, G gates of an image (one where there are none), D width.
"""

from __future__ import annotations

import triton
import triton.language as tl

from avgn.kernels.tiles import NEVER, dot, near_tile, places, put, tile

EPS = tl.constexpr(1e-12)
# unit vectors are multiplied by it, so that their elements and products of two stay normal numbers of float16
UNIT = tl.constexpr(16.0)


@triton.jit
def _inverse_roots(power):
    """1 / sqrt(power), clamped; NaN stays NaN."""
    return 1.0 / tl.sqrt(tl.maximum(power, EPS, propagate_nan=tl.PropagateNan.ALL))


@triton.jit
def _inverse_lengths(matrix_ptr, rows, num_rows, width, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """1 / length [BLOCK_R] of rows."""
    power = tl.zeros((BLOCK_R,), tl.float32)
    for at in range(0, width, BLOCK_D):
        x = tile(matrix_ptr, rows, width, num_rows, at, width, BLOCK_D).to(tl.float32)
        power += tl.sum(x * x, 1)
    return _inverse_roots(power)


@triton.jit
def _scaled(x, inverses):
    """Rows of length UNIT; zero where a row isn't finite, whose similarities are NaN whatever it is multiplied with."""
    return tl.where((inverses > 0.0)[:, None], x * (inverses * UNIT)[:, None], 0.0)


@triton.jit
def _unit_rows(
    matrix_ptr,
    unit_ptr,
    rows,
    num_rows,
    width,
    ONCE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Store rows scaled to length UNIT; their inverse lengths [BLOCK_R]. ONCE: BLOCK_D holds the width."""
    if ONCE:
        x = tile(matrix_ptr, rows, width, num_rows, 0, width, BLOCK_D).to(tl.float32)
        inverses = _inverse_roots(tl.sum(x * x, 1))
        put(unit_ptr, _scaled(x, inverses), rows, num_rows, 0, width, BLOCK_D)
    else:
        inverses = _inverse_lengths(matrix_ptr, rows, num_rows, width, BLOCK_R, BLOCK_D)
        for at in range(0, width, BLOCK_D):
            x = tile(matrix_ptr, rows, width, num_rows, at, width, BLOCK_D).to(tl.float32)
            put(unit_ptr, _scaled(x, inverses), rows, num_rows, at, width, BLOCK_D)
    return inverses


@triton.jit
def _halves(x):
    """Float32 as the sum of two bfloat16: its range, and 16 of its digits."""
    high = x.to(tl.bfloat16)
    return high, (x - high.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def _square_products(left, right, acc, SQUARES: tl.constexpr):
    """acc + left right^T of non-negative float32 tiles: in IEEE float32, or as products of their halves."""
    if SQUARES == "ieee":
        return tl.dot(left, tl.trans(right), acc, input_precision="ieee")
    PRECISION: tl.constexpr = "widen" if SQUARES == "widen" else "ieee"
    left_high, left_low = _halves(left)
    right_high, right_low = _halves(tl.trans(right))
    acc = dot(left_low, right_low, acc, PRECISION)
    acc = dot(left_low, right_high, acc, PRECISION)
    acc = dot(left_high, right_low, acc, PRECISION)
    return dot(left_high, right_high, acc, PRECISION)


@triton.jit
def prepare(
    audio_ptr,
    visual_ptr,
    gate_ptr,
    unit_audio_ptr,
    audio_inverse_ptr,
    unit_gate_ptr,
    gate_inverse_ptr,
    norm_inverse_ptr,
    num_rows,
    num_images,
    num_cells,
    gates,
    width,
    GATED: tl.constexpr,
    ONCE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_W: tl.constexpr,
    SQUARES: tl.constexpr,
):
    """Unit sources and gates, and 1 / |g v| [M,G,P] of every gate and cell; BLOCK_W columns are scaled at a time.

    A gate has NaN for its inverse length where one of its cells has no length: no maximum over them is to hide it.
    """
    program = tl.program_id(0)
    row_blocks = tl.cdiv(num_rows, BLOCK_R)
    if program < row_blocks:
        rows = program * BLOCK_R + tl.arange(0, BLOCK_R)
        found = _unit_rows(audio_ptr, unit_audio_ptr, rows, num_rows, width, ONCE, BLOCK_R, BLOCK_W)
        tl.store(audio_inverse_ptr + rows, found, rows < num_rows)
    elif GATED:
        gate_blocks = tl.cdiv(gates, BLOCK_R)
        image = ((program - row_blocks) // gate_blocks).to(tl.int64)
        mine = ((program - row_blocks) % gate_blocks) * BLOCK_R + tl.arange(0, BLOCK_R)
        gate_ptr += image * gates * width
        visual_ptr += image * num_cells * width
        inverses = _unit_rows(
            matrix_ptr=gate_ptr,
            unit_ptr=unit_gate_ptr + image * gates * width,
            rows=mine,
            num_rows=gates,
            width=width,
            ONCE=ONCE,
            BLOCK_R=BLOCK_R,
            BLOCK_D=BLOCK_W,
        )
        spoiled = tl.zeros((BLOCK_R,), tl.int32)
        for start in range(0, num_cells, BLOCK_P):
            cells = start + tl.arange(0, BLOCK_P)
            power = tl.zeros((BLOCK_R, BLOCK_P), tl.float32)
            for at in range(0, width, BLOCK_D):
                g = near_tile(gate_ptr, mine, gates, at, width, BLOCK_D).to(tl.float32)
                v = near_tile(visual_ptr, cells, num_cells, at, width, BLOCK_D).to(tl.float32)
                power = _square_products(g * g, v * v, power, SQUARES)
            found = _inverse_roots(power * (inverses * inverses)[:, None])
            spoiled += tl.sum(1 - (found > 0.0).to(tl.int32), 1)
            at_norm = norm_inverse_ptr + (image * gates + mine[:, None]) * num_cells + cells[None, :]
            tl.store(at_norm, found, (mine[:, None] < gates) & (cells[None, :] < num_cells))
        tl.store(gate_inverse_ptr + image * gates + mine, tl.where(spoiled > 0, float("nan"), inverses), mine < gates)
    else:
        all_cells = (program - row_blocks).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
        total = (program * 0 + num_images).to(tl.int64) * num_cells
        found = _inverse_lengths(visual_ptr, all_cells, total, width, BLOCK_R, BLOCK_W)
        tl.store(norm_inverse_ptr + all_cells, found, all_cells < total)


@triton.jit
def forward_gated(
    audio_ptr,
    visual_ptr,
    gate_ptr,
    gate_id_ptr,
    audio_inverse_ptr,
    gate_inverse_ptr,
    norm_inverse_ptr,
    similarity_ptr,
    argmax_ptr,
    num_rows,
    num_images,
    sources,
    num_cells,
    gates,
    width,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A block of unit sources against all cells of one image: cells are the left operand, which is loaded.

    The similarity is NaN where the source, its gate or a cell is not finite, and where there is no such gate.
    """
    row_blocks = tl.cdiv(num_rows, BLOCK_R)
    image = (tl.program_id(0) // row_blocks).to(tl.int64)
    first = (tl.program_id(0) % row_blocks) * BLOCK_R
    local = tl.arange(0, BLOCK_R)
    rows = first + local
    real = rows < num_rows
    ids = places(tl.load(gate_id_ptr + rows, real, 0), gates)
    known = real & (ids < gates)
    # what is not finite leaves every maximum
    whole = tl.load(gate_inverse_ptr + image * gates + ids, known, 0.0) > 0.0
    whole = whole & (tl.load(audio_inverse_ptr + rows, real, 0.0) > 0.0)
    # offsets within an image take 32 bits
    audio_ptr += first.to(tl.int64) * width
    norm_inverse_ptr += image * gates * num_cells
    gate_ptr += image * gates * width
    visual_ptr += image * num_cells * width
    kind: tl.constexpr = visual_ptr.dtype.element_ty
    best = tl.full((BLOCK_R,), NEVER, tl.float32)
    where = tl.zeros((BLOCK_R,), tl.int32)
    for start in range(0, num_cells, BLOCK_P):
        cells = start + tl.arange(0, BLOCK_P)
        product = tl.zeros((BLOCK_P, BLOCK_R), tl.float32)
        for at in range(0, width, BLOCK_D):
            columns = at + tl.arange(0, BLOCK_D)
            cell = near_tile(visual_ptr, cells, num_cells, at, width, BLOCK_D)
            heard = near_tile(audio_ptr, local, num_rows - first, at, width, BLOCK_D)
            inside = known[:, None] & (columns[None, :] < width)
            modulation = tl.load(gate_ptr + (ids[:, None] * width + columns[None, :]), inside, 0.0)
            if PRECISION == "widen":
                modulated = (heard.to(tl.float32) * modulation.to(tl.float32)).to(kind)
            else:
                modulated = heard * modulation
            product = dot(cell, tl.trans(modulated), product, PRECISION)
        both = known[:, None] & (cells[None, :] < num_cells)
        inverse = tl.load(norm_inverse_ptr + (ids[:, None] * num_cells + cells[None, :]), both, 1.0)
        cosine = tl.where(whole[:, None] & (cells[None, :] < num_cells), tl.trans(product) * inverse, NEVER)
        here, index = tl.max(cosine, 1, return_indices=True)
        better = here > best
        best = tl.where(better, here, best)
        where = tl.where(better, start + index.to(tl.int32), where)
    out = ((rows // sources).to(tl.int64) * num_images + image) * sources + rows % sources
    tl.store(similarity_ptr + out, tl.where(whole, best * (1.0 / (UNIT * UNIT)), float("nan")), real)
    tl.store(argmax_ptr + out, where.to(tl.int64), real)


@triton.jit
def forward_plain(
    audio_ptr,
    visual_ptr,
    norm_inverse_ptr,
    best_ptr,
    where_ptr,
    num_rows,
    num_images,
    num_cells,
    slots,
    width,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A block of unit sources against a block of the cells of all images: the best of each image's cells in the block.

    Blocks needn't start with an image, so that none is padded: an image's cells lie in up to `slots` blocks.
    """
    row_blocks = tl.cdiv(num_rows, BLOCK_R)
    block = (tl.program_id(0) // row_blocks).to(tl.int64)
    first = (tl.program_id(0) % row_blocks) * BLOCK_R
    local = tl.arange(0, BLOCK_R)
    rows = first + local
    audio_ptr += first.to(tl.int64) * width
    begin = block * BLOCK_P
    end = tl.minimum(begin + BLOCK_P, (block * 0 + num_images) * num_cells)
    count = (end - begin).to(tl.int32)
    cells = tl.arange(0, BLOCK_P)
    visual_ptr += begin * width
    product = tl.zeros((BLOCK_R, BLOCK_P), tl.float32)
    for at in range(0, width, BLOCK_D):
        heard = near_tile(audio_ptr, local, num_rows - first, at, width, BLOCK_D)
        cell = near_tile(visual_ptr, cells, count, at, width, BLOCK_D)
        product = dot(heard, tl.trans(cell), product, PRECISION)
    inverse = tl.load(norm_inverse_ptr + begin + cells, cells < count, 1.0)
    cosine = product * inverse[None, :]
    earliest = begin // num_cells
    for later in range(0, ((end - 1) // num_cells - earliest + 1).to(tl.int32)):
        image = earliest + later
        start = image * num_cells
        low = (start - begin).to(tl.int32)
        inside = (cells >= low) & (cells < tl.minimum(low + num_cells, count))
        here, index = tl.max(tl.where(inside[None, :], cosine, NEVER), 1, return_indices=True)
        at_slot = (image * slots + (block - start // BLOCK_P)) * num_rows + rows
        tl.store(best_ptr + at_slot, here, rows < num_rows)
        tl.store(where_ptr + at_slot, index.to(tl.int32) - low, rows < num_rows)


@triton.jit
def pool(
    audio_inverse_ptr,
    norm_inverse_ptr,
    best_ptr,
    where_ptr,
    similarity_ptr,
    argmax_ptr,
    num_rows,
    num_images,
    sources,
    num_cells,
    slots,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Find the best of an image's blocks of BLOCK_P cells, ties to the lowest.

    The similarity is NaN where the source or a cell of the image is not finite.
    """
    row_blocks = tl.cdiv(num_rows, BLOCK_R)
    image = (tl.program_id(0) // row_blocks).to(tl.int64)
    rows = (tl.program_id(0) % row_blocks) * BLOCK_R + tl.arange(0, BLOCK_R)
    real = rows < num_rows
    used = ((image * num_cells + num_cells - 1) // BLOCK_P - image * num_cells // BLOCK_P + 1).to(tl.int32)
    high = tl.full((BLOCK_R,), NEVER, tl.float32)
    cell = tl.zeros((BLOCK_R,), tl.int32)
    for slot in range(0, used):
        at = (image * slots + slot) * num_rows + rows
        here = tl.load(best_ptr + at, real, 0.0)
        better = here > high
        high = tl.where(better, here, high)
        cell = tl.where(better, tl.load(where_ptr + at, real, 0), cell)
    spoiled = (tl.load(audio_inverse_ptr + rows, real, 1.0) > 0.0).to(tl.int32) == 0
    for start in range(0, num_cells, BLOCK_P):
        cells = start + tl.arange(0, BLOCK_P)
        inverse = tl.load(norm_inverse_ptr + image * num_cells + cells, cells < num_cells, 1.0)
        spoiled = spoiled | (tl.min((inverse > 0.0).to(tl.int32), 0) == 0)
    out = ((rows // sources).to(tl.int64) * num_images + image) * sources + rows % sources
    tl.store(similarity_ptr + out, tl.where(spoiled, float("nan"), high * (1.0 / UNIT)), real)
    tl.store(argmax_ptr + out, cell.to(tl.int64), real)
