"""Which implementation of an operation runs, and what all of them check.

AVGN_KERNELS=reference | triton decides; without it CUDA tensors (and everything in Triton's interpreter) take the
fused kernels, the rest the references in plain torch.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger("avgn.kernels")

CHOICES = ("reference", "triton")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_WIDTH = 1024
HAS_TRITON = importlib.util.find_spec("triton") is not None


def uses_triton(name: str, *tensors: Tensor) -> bool:
    """Return whether operation `name` runs as a Triton kernel on these tensors.

    Raises ValueError for an AVGN_KERNELS that isn't known and RuntimeError where triton is asked for and can't run.
    """
    wanted = os.environ.get("AVGN_KERNELS", "")
    if wanted and wanted not in CHOICES:
        raise ValueError(f"AVGN_KERNELS={wanted!r} is not known: use {' or '.join(CHOICES)}, or leave it unset")
    device = tensors[0].device.type
    if wanted == "reference":
        return _say(name, "reference", "AVGN_KERNELS asks for it")
    if wanted == "triton":
        if not HAS_TRITON:
            raise RuntimeError(
                "AVGN_KERNELS=triton needs the package triton: pip install triton, or unset AVGN_KERNELS"
            )
        if device != "cuda" and not interprets():
            raise RuntimeError(
                f"AVGN_KERNELS=triton can't run on a tensor on {device!r}: move it to a CUDA device, "
                "set TRITON_INTERPRET=1, or unset AVGN_KERNELS"
            )
        return _say(name, "triton", "AVGN_KERNELS asks for it")
    if is_exporting():
        return _say(name, "reference", "graphs hold standard operators")
    compiling = torch.compiler.is_compiling()
    if not compiling and torch._C._are_functorch_transforms_active():
        # they differentiate no operator of ours, and its tangents would be zero
        return _say(name, "reference", "a transform of torch.func is at work")
    usable = HAS_TRITON and (device == "cuda" or interprets())
    for tensor in tensors:
        usable = usable and tensor.dtype in DTYPES and tensor.size(-1) <= MAX_WIDTH
    if usable:
        if not compiling:
            log_once(
                name, "triton", "the tensors are on a CUDA device" if device == "cuda" else "TRITON_INTERPRET is set"
            )
        return True
    return _say(name, "reference", f"the tensors are {tensors[0].dtype} on {device!r}")


def is_exporting() -> bool:
    """Return whether a graph is being exported, not compiled for training.

    In PyTorch 2.11 (no longer in 2.14) `torch.compiler.is_exporting()` is true in all that torch.compile traces; the
    flag behind it is not.
    """
    flag = getattr(torch.compiler, "_is_exporting_flag", None)
    return torch.compiler.is_exporting() if flag is None else bool(flag)


def prefers_reference() -> bool:
    """Return whether nothing but the traceable reference will do: it is asked for, or a graph is being traced."""
    return os.environ.get("AVGN_KERNELS", "") == "reference" or torch.compiler.is_compiling()


def needs_operator(*tensors: Tensor) -> bool:
    """Return whether the registered operator must be called: something traces, or sees tensors that hold no values.

    In plain eager code the same launches run under an autograd function, at a tenth of the operator's cost.
    """
    for tensor in tensors:
        kind = type(tensor)
        if kind is not Tensor and kind is not torch.nn.Parameter:
            return True
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
    )


def is_eager(*tensors: Tensor) -> bool:
    """Return whether nothing but eager code sees a call, so that one like an earlier one runs as that did.

    Calls are looked up by what they depend on (`kernels.records.name_of`); what this asks for is the rest of it.
    """
    if torch.compiler.is_compiling():
        return False
    for tensor in tensors:
        kind = type(tensor)
        if kind is not Tensor and kind is not torch.nn.Parameter:
            return False
    return not (
        torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or os.environ.get("AVGN_KERNELS", "") not in ("", "triton")
    )


def interprets() -> bool:
    """Return whether Triton kernels run in its interpreter (TRITON_INTERPRET=1, set before the first use)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on")


def under_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, where layers mix dtypes, the tensors in the widest of theirs; otherwise as they are."""
    if not torch.compiler.is_compiling() and not torch._C._is_any_autocast_enabled():
        # asking for any device is quicker than for one by its name
        return tensors
    if not torch.is_autocast_enabled(tensors[0].device.type):
        return tensors
    kind = tensors[0].dtype
    for tensor in tensors[1:]:
        kind = torch.promote_types(kind, tensor.dtype)
    return tuple(tensor.to(kind) for tensor in tensors)


def check_fused(name: str, *tensors: Tensor) -> None:
    """Check what every fused kernel asks of its inputs. Raises ValueError."""
    kind = tensors[0].dtype
    for tensor in tensors:
        if tensor.dtype != kind:
            found = ", ".join(sorted({str(one.dtype) for one in tensors}))
            raise ValueError(f"{name} takes inputs of one dtype, got {found}: cast them")
    check_devices(name, *tensors)
    if kind not in DTYPES:
        raise ValueError(f"{name} runs in float32, float16 or bfloat16, got {kind}: use AVGN_KERNELS=reference")
    width = tensors[0].size(-1)
    if width > MAX_WIDTH:
        raise ValueError(f"{name} takes widths up to {MAX_WIDTH}, got {width}: use AVGN_KERNELS=reference")


def check_devices(name: str, *tensors: Tensor) -> None:
    """Check that all inputs are on one device. Raises ValueError.

    Kernels are given addresses: one of another device would be read where nothing, or something else, lies.
    """
    device = tensors[0].device
    for tensor in tensors:
        if tensor.device != device:
            found = ", ".join(sorted({str(one.device) for one in tensors}))
            raise ValueError(f"{name} takes inputs on one device, got {found}: move them")


@cache
def log_once(name: str, choice: str, reason: str) -> None:
    log.info("%s: %s (%s)", name, choice, reason)


def _say(name: str, choice: str, reason: str) -> bool:
    if not torch.compiler.is_compiling():
        log_once(name, choice, reason)
    return choice == "triton"
