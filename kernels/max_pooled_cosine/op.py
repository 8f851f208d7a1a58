"""The max-pooled-cosine operator: `avgn::max_pooled_cosine` with its gradients, for eager, compile and export.

Legend: B sounds, N sources of a sample, M images, P cells, G gates of an image, D width.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from avgn.kernels.launch import Record, records
from avgn.kernels.max_pooled_cosine.calls import backward_of, inputs_of
from avgn.kernels.max_pooled_cosine.checks import (
    Inputs,
    backward_error,
    forward_error,
    reference_backward,
    reference_forward,
)
from avgn.kernels.max_pooled_cosine.launches import (
    Three,
    gradients_like,
    outputs_like,
    run_backward,
    run_forward,
)
from avgn.kernels.selfcheck import trusted

# what calls with such inputs are named by, and the record of one, where there is one
Options = tuple[Hashable, Record | None]


def forward(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> Three:
    """Similarity [B,M,N] float32, argmax [B,M,N] int64, and what the backward needs.

    audio [B,N,D], visual [M,P,D], gate [M,G,D] with gate_id [B,N] int32 or int64 or neither; P of at least one.
    """
    right = _is_empty(audio, visual, gate) or trusted(_name(gate), audio, lambda: forward_error(audio, visual, gate))
    return (run_forward if right else reference_forward)(audio, visual, gate, gate_id)


def backward(grad: Tensor, inputs: Inputs, saved: Three, needs: list[bool]) -> Three:
    """Gradients of audio, visual and gate; those that aren't needed come empty."""
    audio, visual, gate, _ = inputs
    if _is_empty(audio, visual, gate) or (
        trusted(_name(gate), audio, lambda: forward_error(audio, visual, gate))
        and trusted(f"{_name(gate)} backward", audio, lambda: backward_error(audio, visual, gate))
    ):
        return run_backward(grad, inputs, saved, needs)
    return reference_backward(grad, *inputs, needs)


class MaxPooledCosine(torch.autograd.Function):
    """The operator in eager code: the same launches without the registration's cost.

    A call with inputs like those of one that was recorded is launched as that was, and not checked again.
    """

    @staticmethod
    def forward(
        ctx: Any, audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None, options: Options
    ) -> tuple[Tensor, Tensor]:
        ctx.call, record = options
        outputs = None if record is None else record.again(*inputs_of(audio, visual, gate, gate_id))
        if outputs is None:
            outputs = forward(audio, visual, gate, gate_id)
        ctx.save_for_backward(audio, visual, gate, gate_id, *outputs)
        ctx.mark_non_differentiable(outputs[1])
        ctx.set_materialize_grads(False)
        return outputs[0], outputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        # what forbids a second derivative takes time, and without a graph there is none
        return _gradients_once(ctx, *grads) if torch.is_grad_enabled() else _gradients(ctx, *grads)


def _gradients(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    grad, call = grads[0], ctx.call
    if grad is None:
        return (None,) * 5
    needs = list(ctx.needs_input_grad[:3])
    # every look at them unpacks them all
    saved = ctx.saved_tensors
    inputs, results = saved[:4], saved[4:]
    found = None
    if call is not None and type(grad) is Tensor and grad.dtype == torch.float32 and grad.is_contiguous():
        record = records.get(backward_of(call, needs))
        found = None if record is None else record.again(grad, *results, *inputs_of(*inputs))
    if found is None:
        found = backward(grad, inputs, results, needs)
    return *_given(found, needs), None


_gradients_once = once_differentiable(_gradients)


@torch.library.custom_op("avgn::max_pooled_cosine", mutates_args=())
def max_pooled_cosine_op(
    audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return forward(audio, visual, gate, gate_id)


@max_pooled_cosine_op.register_fake
def _(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return outputs_like(audio, visual, gate)


@torch.library.custom_op("avgn::max_pooled_cosine_backward", mutates_args=())
def max_pooled_cosine_backward_op(
    grad: Tensor,
    audio: Tensor,
    visual: Tensor,
    gate: Tensor | None,
    gate_id: Tensor | None,
    similarity: Tensor,
    argmax: Tensor,
    lengths: Tensor,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    return backward(grad, (audio, visual, gate, gate_id), (similarity, argmax, lengths), needs)


@max_pooled_cosine_backward_op.register_fake
def _(
    grad: Tensor,
    audio: Tensor,
    visual: Tensor,
    gate: Tensor | None,
    gate_id: Tensor | None,
    similarity: Tensor,
    argmax: Tensor,
    lengths: Tensor,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    return gradients_like(audio, visual, gate, needs)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _operator_backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 4
    needs = list(ctx.needs_input_grad[:3])
    return _given(max_pooled_cosine_backward_op(grad, *ctx.saved_tensors, needs), needs)


max_pooled_cosine_op.register_autograd(_operator_backward, setup_context=_save)


def _given(found: Three, needs: list[bool]) -> tuple[Tensor | None, ...]:
    """Return the gradients that are needed, in the places of the operator's inputs."""
    return (*(one if need else None for one, need in zip(found, needs, strict=True)), None)


def _name(gate: Tensor | None) -> str:
    return "max_pooled_cosine" if gate is None else "gated max_pooled_cosine"


def _is_empty(audio: Tensor, visual: Tensor, gate: Tensor | None) -> bool:
    return audio.numel() == 0 or visual.numel() == 0 or (gate is not None and gate.numel() == 0)
