"""Grouping attention: the public function, which chooses between the fused kernels and the reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal, overload

from torch import Tensor

from avgn.kernels.dispatch import check_fused, is_eager, needs_operator, under_autocast, uses_triton
from avgn.kernels.grouping_attention import reference
from avgn.kernels.grouping_attention.calls import call_name, forward_name
from avgn.kernels.records import records


@overload
def grouping_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    eps: float = ...,
    hard: bool = ...,
    return_assignment: Literal[False] = ...,
) -> Tensor: ...
@overload
def grouping_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    eps: float = ...,
    hard: bool = ...,
    return_assignment: Literal[True],
) -> tuple[Tensor, Tensor]: ...
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

    Shapes: query, value [B,P,D]; key [B,C,D]; returns [B,C,D], and the assignment A [B,P,C] if asked for (which only
    the reference stores). Softmaxes and sums are computed in float32 (float64 stays float64).
    Raises ValueError for shapes or dtypes that don't fit.
    """
    if not return_assignment and is_eager(query, key, value):
        record = records.get(forward_name(call_name(query, key, value, scale, hard), eps))
        if record is not None:
            return _eager()(query, key, value, (float(scale), float(eps), bool(hard), record))
    if return_assignment or not uses_triton("grouping_attention", query, key, value):
        return reference.grouping_attention(
            query, key, value, scale=scale, eps=eps, hard=hard, return_assignment=return_assignment
        )
    reference.check_shapes(query, key, value)
    query, key, value = under_autocast(query, key, value)
    check_fused("grouping_attention", query, key, value)
    options = (float(scale), float(eps), bool(hard))
    if needs_operator(query, key, value):
        from avgn.kernels.grouping_attention.op import grouping_attention_op

        return grouping_attention_op(query, key, value, *options)[0]
    return _eager()(query, key, value, (*options, None))


@cache
def _eager() -> Callable[..., Tensor]:
    """Return the autograd function, looked up once: its module needs Triton."""
    from avgn.kernels.grouping_attention.op import GroupingAttention

    return GroupingAttention.apply
