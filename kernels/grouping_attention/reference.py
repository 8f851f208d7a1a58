"""Grouping attention in plain torch: the truth that fused kernels are compared with.

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def grouping_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    eps: float = 0.0,
    hard: bool = False,
    return_assignment: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Sum the values of the cells into the classes that they are assigned to.

    With S = scale * query key^T and A = softmax of S over the classes, class i receives
    sum_p A_pi value_p / (sum_p A_pi + eps) (paper eq. 6-8, between the projections). With `hard`, A is the
    one-hot argmax with straight-through gradients, divided by max(count, 1): a class that wins no cell gets zero.

    Shapes: query, value [B,P,D]; key [B,C,D]; returns [B,C,D], and the assignment A [B,P,C] if asked for.
    Everything between input and output is computed in float32 (float64 stays float64).
    Raises ValueError for shapes that don't fit.
    """
    check_shapes(query, key, value)
    kind = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        scores = torch.matmul(query.to(kind), key.to(kind).transpose(1, 2)) * scale
        log_assignment = torch.log_softmax(scores, dim=2)
        if hard:
            soft = log_assignment.exp()
            winner = torch.nn.functional.one_hot(scores.argmax(dim=2), scores.shape[2]).to(kind)
            assignment = winner + (soft - soft.detach())
            weights = assignment / winner.sum(dim=1, keepdim=True).clamp_min(1.0)
        elif eps > 0.0:
            assignment = log_assignment.exp()
            weights = assignment / (assignment.sum(dim=1, keepdim=True) + eps)
        else:
            # softmax over the cells of the log-assignment equals A / sum_p A, and is never 0/0
            assignment = log_assignment.exp() if return_assignment else log_assignment
            weights = torch.softmax(log_assignment, dim=1)
        grouped = torch.matmul(weights.transpose(1, 2), value.to(kind)).to(value.dtype)
    return (grouped, assignment) if return_assignment else grouped


def check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    # each look at a tensor's shape makes a new one
    cells, classes = query.shape, key.shape
    if len(cells) != 3 or len(classes) != 3 or value.shape != cells:
        raise ValueError(
            f"query and value must be [B,P,D] and key [B,C,D], got {tuple(cells)}, {tuple(value.shape)} and "
            f"{tuple(classes)}: reshape them"
        )
    if classes[0] != cells[0] or classes[2] != cells[2]:
        raise ValueError(f"query {tuple(cells)} and key {tuple(classes)} must agree in batch and width: reshape them")
