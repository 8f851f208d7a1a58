"""The max-pooled-cosine operator: `avgn::max_pooled_cosine` with its gradients, for eager, compile and export.

Legend: B sounds, N sources of a sample, M images, P cells, G gates of an image, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from avgn.kernels.dispatch import is_eager
from avgn.kernels.max_pooled_cosine.calls import backward_name, call_name, inputs_of
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
from avgn.kernels.records import Record, records
from avgn.kernels.selfcheck import trusted


def forward(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> Three:
    """Similarity [B,M,N] float32, argmax [B,M,N] int64, and what the backward needs.

    audio [B,N,D], visual [M,P,D], gate [M,G,D] with gate_id [B,N] int32 or int64 or neither; P of at least one.
    """
    right = _is_empty(audio, visual, gate) or trusted(
        _name(gate_id), audio, lambda: forward_error(audio, visual, gate, gate_id)
    )
    return (run_forward if right else reference_forward)(audio, visual, gate, gate_id)


def backward(grad: Tensor, inputs: Inputs, saved: Three, needs: list[bool]) -> Three:
    """Gradients of audio, visual and gate; those that aren't needed come empty."""
    audio, visual, gate, gate_id = inputs
    name = _name(gate_id)
    if _is_empty(audio, visual, gate) or (
        trusted(name, audio, lambda: forward_error(*inputs))
        and trusted(f"{name} backward", audio, lambda: backward_error(*inputs))
    ):
        return run_backward(grad, inputs, saved, needs)
    return reference_backward(grad, *inputs, needs)


class MaxPooledCosine(torch.autograd.Function):
    """The operator in eager code: the same launches without the registration's cost.

    A call with inputs like those of one that was recorded (`record`) is launched as that was, and not checked again.
    """

    @staticmethod
    def forward(
        ctx: Any, audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None, record: Record | None
    ) -> tuple[Tensor, Tensor]:
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
    grad = grads[0]
    if grad is None:
        return (None,) * 5
    needs = list(ctx.needs_input_grad[:3])
    # every look at them unpacks them all
    saved = ctx.saved_tensors
    inputs, results = saved[:4], saved[4:]
    given = inputs_of(*inputs)
    if not is_eager(grad, *results, *given):
        # they may have no memory to launch with
        audio, visual, gate, gate_id = inputs
        return *_given(reference_backward(grad, audio, visual, gate, gate_id, needs), needs), None
    # hooks may give back other tensors than were saved
    record = records.get(backward_name(call_name(*inputs), grad, results, needs))
    found = None if record is None else record.again(grad, *results, *given)
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


def _name(gate_id: Tensor | None) -> str:
    if gate_id is None:
        return "max_pooled_cosine"
    # indices of another dtype are read by another kernel
    return f"gated max_pooled_cosine{'' if gate_id.dtype == torch.int64 else ' (int32 indices)'}"


def _is_empty(audio: Tensor, visual: Tensor, gate: Tensor | None) -> bool:
    return audio.numel() == 0 or visual.numel() == 0 or (gate is not None and gate.numel() == 0)
