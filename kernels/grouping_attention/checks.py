"""The reference in the place of the grouping-attention kernels, and how far the kernels are from it.

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avgn.kernels.grouping_attention import reference
from avgn.kernels.grouping_attention.launches import Three, Two, outputs_like, run_backward, run_forward
from avgn.kernels.selfcheck import error, random


def reference_forward(query: Tensor, key: Tensor, value: Tensor, scale: float, eps: float, hard: bool) -> Two:
    """Return what `run_forward` gives, from the reference; its backward needs no saved sums."""
    out = reference.grouping_attention(query, key, value, scale=scale, eps=eps, hard=hard)
    assert isinstance(out, Tensor)
    return out.contiguous(), outputs_like(query, key, hard)[1].zero_()


def reference_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float, eps: float, hard: bool
) -> Three:
    """Return what `run_backward` gives, from the reference."""
    # within an operator autograd is switched off, and `enable_grad` alone doesn't bring it back
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [one.detach().requires_grad_() for one in (query, key, value)]
        out = reference.grouping_attention(*inputs, scale=scale, eps=eps, hard=hard)
        assert isinstance(out, Tensor)
        grad_q, grad_k, grad_v = torch.autograd.grad(out, inputs, grad)
    # compiled programs were promised the kernels' layout
    return grad_q.contiguous(), grad_k.contiguous(), grad_v.contiguous()


def forward_error(query: Tensor, key: Tensor) -> float:
    """Return the error of the grouped values on numbers of its own."""
    (q, k, v), scale = _sample(query, key)
    found = run_forward(q, k, v, scale, 0.0, False)[0]
    return error([found], [reference_forward(q.double(), k.double(), v.double(), scale, 0.0, False)[0]])


def backward_error(query: Tensor, key: Tensor) -> float:
    """Return the error of the gradients on numbers of its own."""
    (q, k, v), scale = _sample(query, key)
    saved = run_forward(q, k, v, scale, 0.0, False)
    slope = random(query, saved[0].shape)[0]
    found = run_backward(slope, q, k, v, *saved, scale, False)
    truth = reference_backward(slope.double(), q.double(), k.double(), v.double(), scale, 0.0, False)
    return error(found, truth)


def _sample(query: Tensor, key: Tensor) -> tuple[list[Tensor], float]:
    """Query, key and value of two samples that compile to the kernels of a call, and a scale."""
    cells, classes = (2, *query.shape[1:]), (2, *key.shape[1:])
    return random(query, cells, classes, cells), query.shape[2] ** -0.5
