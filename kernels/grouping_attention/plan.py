"""Block sizes of the grouping-attention kernels for a shape, a dtype and a chip.

Legend: P cells, C classes, D width.
"""

from __future__ import annotations

from typing import Any

import torch

from avgn.kernels.launch import block, is_plain, precision

# the largest S that one program holds
WHOLE_ELEMENTS = 16_384
# what a program keeps for itself beside the tiles that the compiler plans for
SPARE = 8 << 10


def fits_whole(cells: int, classes: int) -> bool:
    """Whether one program takes a whole sample."""
    return block(cells) * block(classes) <= WHOLE_ELEMENTS


def plan_whole(cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Forward or backward of a whole sample in one program."""
    return _plan(block(cells), block(classes), width, dtype, shared)


def plan_rows(cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """The log-sum-exp of a block of cells: many cells a program, so that keys are read seldom."""
    most = (64, 64) if is_plain(dtype, shared) else (128, 256)
    return _plan(block(cells, most=most[0]), block(classes, most=most[1]), width, dtype, shared)


def plan_columns(cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """A block of classes over all cells; keys stay on chip where it has the room."""
    if is_plain(dtype, shared):
        plan = _plan(block(cells, most=32), block(classes, most=64), width, dtype, shared)
        return plan | {"RESIDENT": False, "BLOCK_O": block(width, most=64)}
    size = dtype.itemsize
    high, wide, whole, out = 16, block(classes, most=128), block(width), block(width, most=256)
    resident = (wide + high) * whole * size + (out + wide) * high * size + SPARE <= shared
    plan = _plan(high if resident else block(cells, most=64), wide, width, dtype, shared)
    if resident:
        plan |= {"BLOCK_D": whole, "num_stages": 1, "num_warps": 8}
    return plan | {"RESIDENT": resident, "BLOCK_O": out}


def plan_backward(cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """The backward in tiles."""
    most = 32 if is_plain(dtype, shared) else 64
    return _plan(block(cells, most=most), block(classes, most=most), width, dtype, shared)


def _plan(cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    size = dtype.itemsize
    plain = is_plain(dtype, shared)
    inner = min(block(width), 16 if plain else 64)
    stages = 3
    while stages * (cells + classes) * inner * size > shared * 3 // 4 and (stages > 1 or inner > 16):
        stages, inner = (stages - 1, inner) if stages > 1 else (stages, inner // 2)
    return {
        "BLOCK_P": cells,
        "BLOCK_C": classes,
        "BLOCK_D": inner,
        "PRECISION": precision(dtype),
        "num_warps": 4 if cells * classes <= 4096 and not plain else 8,
        "num_stages": stages,
    }
