"""What the fused kernels share: blocks, strides, and the sizes that fit a chip."""

from __future__ import annotations

import torch
from torch import Tensor

from avgn.kernels.dispatch import interprets

# bytes of shared memory that one program may use, by compute capability
SHARED_MEMORY = {
    (7, 5): 64 << 10,
    (8, 0): 163 << 10,
    (8, 6): 99 << 10,
    (8, 9): 99 << 10,
    (9, 0): 227 << 10,
    (10, 0): 227 << 10,
    (12, 0): 99 << 10,
}


def block(count: int, *, least: int = 16, most: int | None = None) -> int:
    """The power of two from `least` that holds `count`, at most `most`."""
    size = least
    while size < count and (most is None or size < most):
        size *= 2
    return size


def ceil_div(count: int, size: int) -> int:
    """The blocks of `size` that hold `count`."""
    return -(-count // size)


def row_contiguous(tensor: Tensor) -> Tensor:
    """The tensor, or a copy whose last dimension is dense."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def precision(dtype: torch.dtype) -> str:
    """How tiles are multiplied: IEEE float32, never TF32."""
    return "widen" if dtype == torch.bfloat16 and interprets() else "ieee"


def is_plain(dtype: torch.dtype, shared: int) -> bool:
    """Whether tiles are multiplied without matrix units: IEEE float32, and everything on 7.5, where Triton has none."""
    return dtype == torch.float32 or shared <= SHARED_MEMORY[(7, 5)]


def shared_memory(device: torch.device) -> int:
    """The bytes of shared memory that a program may use on a device."""
    if device.type != "cuda":
        return SHARED_MEMORY[(9, 0)]
    capability = torch.cuda.get_device_capability(device)
    known = [size for chip, size in SHARED_MEMORY.items() if chip <= capability and chip[0] == capability[0]]
    return known[-1] if known else 48 << 10
