"""Block sizes of the grouping-attention kernels for a shape, a dtype and a chip.

Legend: P cells, C classes, D width.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from avgn.kernels.launch import SHARED_MEMORY, block, is_plain, precision

# the largest S that one program holds in the forward
WHOLE_ELEMENTS = 16_384


def fits_whole(cells: int, classes: int) -> bool:
    """Return whether one program takes the forward of a whole sample."""
    return block(cells) * block(classes) <= WHOLE_ELEMENTS


@cache
def plan_whole(hard: bool, cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Return the forward of a whole sample in one program."""
    # half of the multiprocessors' warps wait for memory: eight a program were faster than four at every size
    return {"HARD": hard, **_plan(block(cells), block(classes), width, dtype, shared), "num_warps": 8}


@cache
def plan_rows(hard: bool, cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Return the scores of a block of cells: all classes a program where they fit, so that queries are read once."""
    most = (64, 64) if is_plain(dtype, shared) else (64, 256) if shared >= SHARED_MEMORY[(9, 0)] else (64, 128)
    return {"HARD": hard, **_plan(block(cells, most=most[0]), block(classes, most=most[1]), width, dtype, shared)}


@cache
def plan_weights(hard: bool, cells: int, classes: int) -> dict[str, Any]:
    """Return the weights of a block of classes over all cells."""
    return {"HARD": hard, "BLOCK_P": block(cells, most=64), "BLOCK_C": block(classes, most=64), "num_warps": 8}


@cache
def plan_mix(cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Return a block of classes and columns of the grouped values."""
    plain = is_plain(dtype, shared)
    return {
        "BLOCK_C": block(classes, most=64 if plain else 256 if shared >= SHARED_MEMORY[(9, 0)] else 128),
        "BLOCK_K": block(cells, most=16 if plain else 64),
        "BLOCK_O": block(width, most=64 if plain else 128),
        "PRECISION": precision(dtype),
        "num_warps": 8,
        "num_stages": 2 if plain or shared < SHARED_MEMORY[(8, 0)] else 3,
    }


@cache
def plan_along(width: int) -> dict[str, Any]:
    """Sums of products of rows."""
    return {"BLOCK_R": 8, "BLOCK_D": block(width, most=512), "num_warps": 4}


@cache
def plan_scores(hard: bool, cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Return the weights and the gradient of the scores of a block of cells."""
    plain = is_plain(dtype, shared)
    high, wide = block(cells, most=32 if plain else 64), block(classes, most=64 if plain else 256)
    if wide < classes:
        # what is computed twice is held twice: 256 classes would not fit the registers
        wide = min(wide, 128)
    if not plain and shared < SHARED_MEMORY[(9, 0)]:
        high, wide = block(cells, most=32 if wide > 64 else 64), min(wide, 128)
    return {
        "HARD": hard,
        "WHOLE": high >= cells,
        "SINGLE": wide >= classes,
        **_plan(high, wide, width, dtype, shared // 2),
    }


@cache
def plan_products(cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Return a tile of one gradient."""
    plain = is_plain(dtype, shared)
    return {
        "BLOCK_P": block(cells, most=32 if plain else 64),
        "BLOCK_C": block(classes, most=32 if plain else 64),
        "BLOCK_K": block(max(cells, classes), most=16 if plain else 32),
        "BLOCK_O": block(width, most=64 if plain else 128),
        "PRECISION": precision(dtype),
        "num_warps": 8 if plain else 4,
        "num_stages": 2 if plain or shared < SHARED_MEMORY[(8, 0)] else 3,
    }


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
