"""Block sizes of the max-pooled-cosine kernels for a shape and a dtype.

Legend: R sources, M images, P cells, G gates of an image, D width.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from avgn.kernels.launch import SHARED_MEMORY, block, is_plain, precision


@cache
def plan_prepare(gated: bool, cells: int, width: int) -> dict[str, Any]:
    """Blocks of the program that scales rows and multiplies squares."""
    return {
        "GATED": gated,
        "BLOCK_R": 16,
        "BLOCK_G": 16,
        "BLOCK_P": block(cells, most=64),
        "BLOCK_D": block(width, most=32 if gated else 128),
        "num_warps": 4,
        "num_stages": 2,
    }


@cache
def plan_forward(gated: bool, rows: int, cells: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Blocks of a program that holds BLOCK_R sources against BLOCK_P cells."""
    if is_plain(dtype, shared):
        sizes = {"BLOCK_R": block(rows, most=32), "BLOCK_P": block(cells, most=64), "BLOCK_D": block(width, most=32)}
        return sizes | {"PRECISION": precision(dtype), "num_warps": 8, "num_stages": 2}
    roomy = shared >= SHARED_MEMORY[(8, 0)]
    sizes = {
        "BLOCK_R": block(rows, most=128 if roomy else 64),
        "BLOCK_P": block(cells, least=64, most=128 if roomy else 64),
    }
    if gated:
        sizes["BLOCK_P"] = min(64, sizes["BLOCK_P"])
    return {
        **sizes,
        "BLOCK_D": block(width, most=64 if roomy else 32),
        "PRECISION": precision(dtype),
        "num_warps": 8 if sizes["BLOCK_R"] * sizes["BLOCK_P"] >= 8192 else 4,
        "num_stages": 3 if roomy else 2,
    }


@cache
def plan_order(rows: int) -> dict[str, Any]:
    """Blocks of the program that sorts sources by their winning cell, or by their gate."""
    return {"BLOCK_R": block(rows, most=64), "BLOCK_S": block(rows, most=64), "num_warps": 4}


@cache
def plan_backward_audio(gated: bool, images: int, width: int) -> dict[str, Any]:
    """Blocks of a program that sums over images for one source."""
    return {
        "GATED": gated,
        "BLOCK_M": block(images, least=1, most=16),
        "BLOCK_D": block(width, most=128),
        "num_warps": 4,
    }


@cache
def plan_lists(gated: bool | None, width: int) -> dict[str, Any]:
    """Blocks of a program that sums over a list of sources, for one cell (gated or not) or one gate (None)."""
    wide = block(width)
    constants = {} if gated is None else {"GATED": gated}
    return {**constants, "BLOCK_J": 4, "BLOCK_D": wide, "num_warps": 1 if wide <= 256 else 2}
