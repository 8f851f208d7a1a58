"""Maxima whose gradients stay finite under torch.compile."""

from __future__ import annotations

import torch
from torch import Tensor

from avgn.kernels.dispatch import is_exporting


def largest(x: Tensor, dim: int | tuple[int, int], *, keepdim: bool = False) -> Tensor:
    """Return `x.amax(dim, keepdim)`; two dimensions must be neighbours, the first named first.

    The gradient of amax divides by the count of elements that equal the maximum. A compiler for GPUs rounds to bfloat16
    the elements that it stores and not the maximum that it still holds, or computes the elements again: then none is
    equal, and the gradient is 0/0. So compiled training takes the place of the maximum; eager code shares among equals.
    """
    if not torch.compiler.is_compiling() or is_exporting() or not torch.is_grad_enabled():
        return x.amax(dim, keepdim)
    if isinstance(dim, int):
        return x.max(dim, keepdim).values
    found = x.flatten(*dim).max(dim[0], keepdim).values
    return found.unsqueeze(dim[1]) if keepdim else found
