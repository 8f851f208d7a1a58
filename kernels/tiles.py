"""What Triton kernels share: loading, storing and multiplying tiles of matrices with dense rows."""

from __future__ import annotations

import triton
import triton.language as tl


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
