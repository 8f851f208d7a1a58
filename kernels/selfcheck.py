"""Whether a fused kernel is right on this device: decided by its numbers on first use, once a process.

Compilers of GPU code have been wrong before: ptxas before 13.3 lets a pipelined product read registers too early
(Triton's issue 9433). A kernel whose result is off by more than its dtype's rounding gives way to the reference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from avgn.kernels.records import forget, mark_checked

log = logging.getLogger("avgn.kernels")

# ||found - truth|| / ||truth||: rounding leaves a third of it or less
LIMITS = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 6e-3}

FLOOR = 1e-4
# narrower vectors have cosines that are nearly constant: their gradients are rounding alone
LEAST_WIDTH = 16

verdicts: dict[tuple[str, int | None, torch.dtype], bool] = {}


def trusted(name: str, like: Tensor, check: Callable[[], float]) -> bool:
    """Return whether kernel `name` may run on the device and in the dtype of a tensor.

    `check` gives the relative error of the kernel on numbers of its own; it is called once for a device and a dtype.
    While a CUDA graph is recorded nothing can be checked: then the kernel is taken at its word.
    """
    mark_checked()
    known = verdicts.get((name, like.device.index, like.dtype))
    if known is not None:
        return known
    if like.shape[-1] < LEAST_WIDTH or not _applies(like):
        return True
    return _decide(name, like, check)


def gave_way() -> list[str]:
    """Return what the reference runs in place of in this process: kernel, device and dtype of each."""
    return [" ".join(map(str, key)) for key, right in verdicts.items() if not right]


def error(found: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Return the largest relative error, by norms, of pairs of tensors; infinite where one isn't finite.

    What is zero by its nature (the gradient of a score where there is one class) is compared with FLOOR.
    """
    pairs = zip(found, truth, strict=True)
    errors = [
        (one.double() - other).norm() / other.norm().clamp_min(FLOOR * other.numel() ** 0.5) for one, other in pairs
    ]
    return float(torch.stack(errors).max().nan_to_num(float("inf")))


def random(like: Tensor, *shapes: Sequence[int]) -> list[Tensor]:
    """Normal numbers in the dtype of a tensor; the program's own random numbers stay as they are."""
    generator = torch.Generator(like.device).manual_seed(0)
    return [torch.randn(*shape, generator=generator, device=like.device).to(like.dtype) for shape in shapes]


def _applies(like: Tensor) -> bool:
    return like.is_cuda and not torch.cuda.is_current_stream_capturing()


def _decide(name: str, like: Tensor, check: Callable[[], float]) -> bool:
    key = (name, like.device.index, like.dtype)
    # other threads take the kernel at its word meanwhile
    verdicts[key] = True
    reason = ""
    finished = False
    try:
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(like.device.type, enabled=False):
            off = check()
        if not off <= LIMITS[like.dtype]:
            reason = f"its result is off by {off:.1e}, and {LIMITS[like.dtype]:.0e} is allowed"
        finished = True
    except torch.OutOfMemoryError:
        raise
    except Exception as failure:  # whatever a compiler or a driver has to say
        reason = f"it can't be run: {str(failure).strip().splitlines()[0] if str(failure).strip() else repr(failure)}"
        finished = True
    finally:
        if not finished:
            verdicts.pop(key, None)
            forget()
    if reason:
        verdicts[key] = False
        # its own call may have been recorded
        forget()
        log.warning("%s in %s on %s: the reference runs instead, because %s", name, like.dtype, like.device, reason)
    return not reason
