"""What the fused kernels share: blocks, strides, the sizes that fit a chip, and the choice among a few launches."""

from __future__ import annotations

import os
from typing import Any

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


_chosen: dict[tuple[Any, ...], dict[str, Any]] = {}


def launch(kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], plan: dict[str, Any]) -> None:
    """Run a kernel by its plan; with AVGN_TUNE=1 on a CUDA device by the fastest of the plan's few variants.

    A choice is made on the first call with given sizes and kept for the process. Variants differ in warps and stages
    alone: the sums of a result are the same in each.
    """
    device = arguments[0].device
    if device.type == "cuda" and os.environ.get("AVGN_TUNE") == "1":
        sizes = tuple(argument for argument in arguments if isinstance(argument, int))
        key = (kernel.fn.__name__, str(device), str(arguments[0].dtype), sizes, tuple(sorted(plan.items())))
        if key not in _chosen:
            _chosen[key] = _fastest(kernel, grid, arguments, plan)
        plan = _chosen[key]
    kernel[grid](*arguments, **plan)


def variants(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The plan, and itself with other warps or one stage less: none needs more shared memory than the plan."""
    warps, stages = plan["num_warps"], plan.get("num_stages", 1)
    found = [plan, plan | {"num_warps": 8 if warps == 4 else 4}]
    if stages > 1:
        found.append(plan | {"num_stages": stages - 1})
    return found


def _fastest(kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], plan: dict[str, Any]) -> dict[str, Any]:
    from triton.testing import do_bench

    def time_of(options: dict[str, Any]) -> float:
        return float(do_bench(lambda: kernel[grid](*arguments, **options), warmup=5, rep=20))

    return min(variants(plan), key=time_of)
