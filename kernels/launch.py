"""What the fused kernels share: blocks, strides, the sizes that fit a chip, and the launch itself."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from avgn.kernels.dispatch import interprets
from avgn.kernels.records import KEPT, note, stream_of

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
    """Return the power of two from `least` that holds `count`, at most `most`."""
    size = least
    while size < count and (most is None or size < most):
        size *= 2
    return size


def ceil_div(count: int, size: int) -> int:
    """Return the blocks of `size` that hold `count`."""
    return -(-count // size)


def row_contiguous(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy whose last dimension is dense."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def precision(dtype: torch.dtype) -> str:
    """Return how tiles are multiplied: IEEE float32, never TF32."""
    return "widen" if dtype == torch.bfloat16 and interprets() else "ieee"


def is_plain(dtype: torch.dtype, shared: int) -> bool:
    """Return whether tiles are multiplied without matrix units: IEEE float32, and everything on 7.5, where Triton
    has none."""
    return dtype == torch.float32 or shared <= SHARED_MEMORY[(7, 5)]


@cache
def shared_memory(device: torch.device) -> int:
    """Return the bytes of shared memory that a program may use on a device."""
    if device.type != "cuda":
        return SHARED_MEMORY[(9, 0)]
    capability = torch.cuda.get_device_capability(device)
    known = [size for chip, size in SHARED_MEMORY.items() if chip <= capability and chip[0] == capability[0]]
    return known[-1] if known else 48 << 10


# what a launch compiled to, by kernel, plan, device and facts of the arguments
built_kernels: dict[tuple[Any, ...], Any] = {}


def launch(kernel: Any, programs: int, plan: dict[str, Any], **arguments: Any) -> None:
    """Run `programs` programs of a kernel on the device of its first argument, with the constants of its plan.

    `arguments` are the kernel's parameters in its own order, pointers first. A plan is a dictionary that is made once
    and kept: Triton's own search for the compiled kernel, which takes longer than a small kernel runs, is done once for
    a plan, the sizes, and the alignment of the tensors.
    """
    device = next(iter(arguments.values())).device
    if device.type != "cuda":
        kernel[(programs,)](**arguments, **plan)
    elif device.index == torch.cuda.current_device():
        launch_built(kernel, programs, plan, arguments, device.index)
    else:
        # Triton launches on the current device
        with torch.cuda.device(device):
            launch_built(kernel, programs, plan, arguments, device.index)


def launch_built(kernel: Any, programs: int, plan: dict[str, Any], arguments: dict[str, Any], device: int) -> None:
    """Run a kernel on a CUDA device as compiled for such arguments before, or let Triton compile it the first time.

    Raises AssertionError for arguments out of the kernel's order: a compiled kernel takes them by place.
    """
    values = tuple(arguments.values())
    # kernels live as long as their modules; hashing one would hash its source
    key = (id(kernel), id(plan), device, *_facts(values))
    known = built_kernels.get(key)
    if known is None:
        names = list(kernel.arg_names)
        assert names[: len(values)] == list(arguments), f"the kernel takes {names}, not {list(arguments)}"
        if len(built_kernels) >= KEPT:
            built_kernels.clear()
        built = kernel[(programs,)](**arguments, **plan)
        constants = tuple(plan[name] for name in names[len(values) :])
        # the plan is kept with the kernel, so that no other one can take its id
        known = built_kernels[key] = (built, constants, plan)
    else:
        built, constants, _ = known
        stream = stream_of(device)
        built.run(programs, 1, 1, stream, built.function, built.packed_metadata, None, None, None, *values, *constants)
    note(known[0], programs, device, values, known[1])


def _facts(values: tuple[Any, ...]) -> list[Any]:
    """What Triton compiles for besides constants: numbers, dtypes, and which tensors begin at multiples of 16 bytes."""
    facts: list[Any] = []
    addresses = 0
    for value in values:
        if type(value) is int or type(value) is float:
            facts.append(value)
        else:
            facts.append(value.dtype)
            addresses |= value.data_ptr()
    if addresses % 16:
        facts += [value.data_ptr() % 16 == 0 for value in values if isinstance(value, Tensor)]
    return facts
