"""Block sizes of the max-pooled-cosine kernels for a shape and a dtype, chosen among those measured on an H200.

Legend: R sources, M images, P cells, G gates of an image, D width.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from avgn.kernels.dispatch import interprets
from avgn.kernels.launch import SHARED_MEMORY, block, is_plain, precision


@cache
def plan_prepare(gated: bool, cells: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Blocks of the program that scales rows and multiplies squares."""
    return {
        "GATED": gated,
        "ONCE": width <= 512,
        "BLOCK_R": 16,
        "BLOCK_P": block(cells, most=64),
        "BLOCK_D": block(width, most=64),
        "BLOCK_W": block(width, most=512),
        "SQUARES": "ieee" if is_plain(dtype, shared) else "widen" if interprets() else "halves",
        "num_warps": 4 if shared >= SHARED_MEMORY[(9, 0)] else 8,
        "num_stages": 2,
    }


@cache
def plan_forward(gated: bool, rows: int, cells: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Blocks of a program that holds BLOCK_R sources against BLOCK_P cells."""
    if is_plain(dtype, shared):
        sizes = {"BLOCK_R": block(rows, most=32), "BLOCK_P": block(cells, most=64), "BLOCK_D": block(width, most=32)}
        return sizes | {"PRECISION": precision(dtype), "num_warps": 8, "num_stages": 2}
    roomy = shared >= SHARED_MEMORY[(8, 0)]
    most = 64 if gated or not roomy else 128
    return {
        "BLOCK_R": block(rows, most=most),
        # a warp group multiplies 64 rows: where cells are the left operand there are no fewer
        "BLOCK_P": 64 if gated else most,
        "BLOCK_D": block(width, most=64 if roomy else 32),
        "PRECISION": precision(dtype),
        # without warp groups, 128 x 128 results don't fit the registers of four warps
        "num_warps": 8 if most == 128 and shared < SHARED_MEMORY[(9, 0)] else 4,
        "num_stages": 3 if roomy else 2,
    }


@cache
def plan_pool(rows: int, block_p: int) -> dict[str, Any]:
    """Blocks of the program that takes the best of an image's blocks."""
    return {"BLOCK_R": block(rows, most=128), "BLOCK_P": block_p, "num_warps": 4}


@cache
def plan_order(rows: int, keys: int) -> dict[str, Any]:
    """Blocks of the program that sorts sources by their winning cell, or by their gate."""
    # what lies past the last row counts on from it, a block at most
    wide = (keys + 2) * rows + 64 >= 1 << 31
    return {"WIDE": wide, "BLOCK_R": block(rows, most=64), "BLOCK_S": block(rows, most=32), "num_warps": 4}


@cache
def plan_backward_audio(gated: bool, images: int, width: int) -> dict[str, Any]:
    """Blocks of a program that sums over images for one source."""
    sizes = {"BLOCK_M": block(images, least=1, most=16), "BLOCK_D": block(width, most=64)}
    return {"GATED": gated, **sizes, "num_warps": 2}


@cache
def plan_lists(gated: bool | None, width: int) -> dict[str, Any]:
    """Blocks of a program that sums over a list of sources, for one cell (gated or not) or one gate (None)."""
    constants = {} if gated is None else {"GATED": gated}
    return {**constants, "BLOCK_J": 2, "BLOCK_D": block(width, most=512), "num_warps": 1}
