"""What Triton kernels share: loading, storing and multiplying tiles of matrices with dense rows."""

from __future__ import annotations

import triton
import triton.language as tl

# less than any score or cosine
NEVER = tl.constexpr(-3.0e38)


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b in float32. Triton's interpreter multiplies the bits of bfloat16: "widen" makes it multiply values."""
    if PRECISION == "widen":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def products(
    left_ptr,
    right_ptr,
    rows,
    columns,
    stride_left,
    stride_right,
    num_rows,
    num_columns,
    width,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """left right^T [BLOCK_R,BLOCK_C] in float32 of one sample."""
    acc = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for at in range(0, width, BLOCK_D):
        a = tile(left_ptr, rows, stride_left, num_rows, at, width, BLOCK_D)
        b = tile(right_ptr, columns, stride_right, num_columns, at, width, BLOCK_D)
        acc = dot(a, tl.trans(b), acc, PRECISION)
    return acc


@triton.jit
def tile(matrix_ptr, rows, stride, num_rows, at, width, BLOCK_D: tl.constexpr):
    """[rows,BLOCK_D] from column `at`, zeros outside."""
    columns = at + tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < num_rows) & (columns[None, :] < width)
    return tl.load(matrix_ptr + rows[:, None].to(tl.int64) * stride + columns[None, :], inside, 0.0)


@triton.jit
def near_tile(matrix_ptr, rows, num_rows, at, width, BLOCK_D: tl.constexpr):
    """[rows,BLOCK_D] of dense rows from column `at`, zeros outside; rows lie within 2^31 elements of the pointer."""
    columns = at + tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < num_rows) & (columns[None, :] < width)
    return tl.load(matrix_ptr + (rows[:, None] * width + columns[None, :]), inside, 0.0)


@triton.jit
def put(matrix_ptr, value, rows, num_rows, at, width, BLOCK_D: tl.constexpr):
    """Store [rows,BLOCK_D] into dense rows of `width` from column `at`."""
    columns = at + tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < num_rows) & (columns[None, :] < width)
    tl.store(
        matrix_ptr + rows[:, None].to(tl.int64) * width + columns[None, :],
        value.to(matrix_ptr.dtype.element_ty),
        inside,
    )


@triton.jit
def turned_product(
    mixed_ptr,
    rows_of_ptr,
    out_ptr,
    first,
    at,
    stride_a,
    stride_r,
    num_cells,
    num_classes,
    width,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_O: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Store a block of classes and columns of mixed^T [C,P] times rows_of [P,D]."""
    acc = tl.zeros((BLOCK_C, BLOCK_O), tl.float32)
    for start in range(0, num_cells, BLOCK_K):
        cells = start + tl.arange(0, BLOCK_K)
        left = tile(mixed_ptr, cells, stride_a, num_cells, first, stride_a, BLOCK_C)
        right = tile(rows_of_ptr, cells, stride_r, num_cells, at, width, BLOCK_O)
        acc = dot(tl.trans(left), right, acc, PRECISION)
    put(out_ptr, acc, first + tl.arange(0, BLOCK_C), num_classes, at, width, BLOCK_O)


@triton.jit
def places(keys, num_keys):
    """Keys (int32 or int64) from the start: what counts from the end is turned, and what is outside becomes
    `num_keys`; int32."""
    turned = tl.where(keys < 0, keys + num_keys, keys)
    return tl.where((turned >= 0) & (turned < num_keys), turned, num_keys).to(tl.int32)
