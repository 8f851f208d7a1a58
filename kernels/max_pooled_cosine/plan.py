"""Block sizes of the max-pooled-cosine kernels for a shape and a dtype.

Legend: R sources, M images, P cells, G gates of an image, D width.
"""

from __future__ import annotations

from typing import Any

import torch

from avgn.kernels.launch import block, is_plain, precision

# chips with more shared memory than this multiply with a warp group
WARP_GROUPS = 200 << 10


def plan_forward(rows: int, cells: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Blocks of a program that holds BLOCK_R sources against BLOCK_P cells."""
    plain = is_plain(dtype, shared)
    return {
        "BLOCK_R": block(rows, most=32 if plain else 64),
        "BLOCK_P": block(cells, most=64),
        "BLOCK_D": 32,
        "PRECISION": precision(dtype),
        "SQUARES": squares(dtype, shared),
        "num_warps": 8 if plain else 4,
        "num_stages": 2,
    }


def plan_backward_audio(images: int, width: int) -> dict[str, Any]:
    """Blocks of a program that sums over images for one source."""
    return {"BLOCK_M": block(images, least=1, most=16), "BLOCK_D": block(width, most=128), "num_warps": 4}


def plan_backward_visual(rows: int, cells: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Blocks of a program that sums over sources for BLOCK_P cells."""
    return {
        "BLOCK_R": block(rows, most=32),
        # warp-group instructions need 64 rows; elsewhere they would not fit the registers
        "BLOCK_P": block(cells, most=64 if shared > WARP_GROUPS else 32),
        "BLOCK_D": block(width, most=64),
        "SQUARES": squares(dtype, shared),
        "num_warps": 8,
        "num_stages": 2,
    }


def plan_backward_gate(rows: int, gates: int, width: int, dtype: torch.dtype, shared: int) -> dict[str, Any]:
    """Blocks of a program that sums over sources for BLOCK_G gates."""
    return {
        "BLOCK_R": block(rows, most=32),
        "BLOCK_G": block(gates, most=64),
        "BLOCK_D": block(width, most=64),
        "SQUARES": squares(dtype, shared),
        "num_warps": 8,
        "num_stages": 2,
    }


def squares(dtype: torch.dtype, shared: int) -> str:
    """Squares of half-precision inputs need float32's range but not its digits."""
    return "ieee" if is_plain(dtype, shared) else "tf32"
