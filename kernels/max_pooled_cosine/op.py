"""The max-pooled-cosine operator: `avgn::max_pooled_cosine` with its gradients, for eager, compile and export.

Legend: B sounds, N sources of a sample, R = B * N, M images, P cells, G gates of an image, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avgn.kernels.launch import ceil_div, launch, shared_memory
from avgn.kernels.max_pooled_cosine import fused
from avgn.kernels.max_pooled_cosine.plan import (
    plan_backward_audio,
    plan_backward_gate,
    plan_backward_visual,
    plan_forward,
)
from avgn.kernels.max_pooled_cosine.reference import EPS


@torch.library.custom_op("avgn::max_pooled_cosine", mutates_args=())
def max_pooled_cosine_op(
    audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Similarity [B,M,N] float32, argmax [B,M,N] int64 and the length of the winning cell after the gate [B,M,N].

    audio [B,N,D], visual [M,P,D], gate [M,G,D] with gate_id [B,N] int32 or neither; P of at least one.
    """
    audio, visual = audio.contiguous(), visual.contiguous()
    gate = None if gate is None else gate.contiguous()
    gate_id = None if gate_id is None else gate_id.contiguous()
    outputs = _outputs(audio, visual)
    if outputs[0].numel():
        rows = audio.shape[0] * audio.shape[1]
        plan = plan_forward(rows, visual.shape[1], visual.shape[2], audio.dtype, shared_memory(audio.device))
        inputs = (audio, _inverse(audio), visual, *_gates(gate, gate_id, audio))
        grid = (ceil_div(rows, plan["BLOCK_R"]), visual.shape[0])
        extra = {"GATED": gate is not None}
        launch(fused._forward, grid, (*inputs, *outputs, *_sizes(audio, visual, gate)), plan | extra)
    return outputs


@max_pooled_cosine_op.register_fake
def _(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(audio, visual)


@torch.library.custom_op("avgn::max_pooled_cosine_backward", mutates_args=())
def max_pooled_cosine_backward_op(
    grad: Tensor,
    audio: Tensor,
    visual: Tensor,
    gate: Tensor | None,
    gate_id: Tensor | None,
    similarity: Tensor,
    argmax: Tensor,
    length: Tensor,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of audio, visual and gate; those that aren't needed come empty."""
    audio, visual, grad = audio.contiguous(), visual.contiguous(), grad.contiguous()
    gate = None if gate is None else gate.contiguous()
    gate_id = None if gate_id is None else gate_id.contiguous()
    grad_audio, grad_visual, grad_gate = _gradients(audio, visual, gate, needs)
    if similarity.numel() == 0:
        return grad_audio.zero_(), grad_visual.zero_(), grad_gate.zero_()
    images, cells, width = visual.shape
    rows = audio.shape[0] * audio.shape[1]
    inputs = (audio, _inverse(audio), visual, *_gates(gate, gate_id, audio), similarity, argmax, length, grad.float())
    sizes = _sizes(audio, visual, gate)
    extra, shared = {"GATED": gate is not None}, shared_memory(audio.device)
    if needs[0]:
        plan = plan_backward_audio(images, width) | extra
        launch(fused._backward_audio, (rows, ceil_div(width, plan["BLOCK_D"])), (*inputs, grad_audio, *sizes), plan)
    if needs[1]:
        plan = plan_backward_visual(rows, cells, width, audio.dtype, shared) | extra
        grid = (ceil_div(cells, plan["BLOCK_P"]), ceil_div(width, plan["BLOCK_D"]), images)
        launch(fused._backward_visual, grid, (*inputs, grad_visual, *sizes), plan)
    if gate is not None and needs[2]:
        plan = plan_backward_gate(rows, gate.shape[1], width, audio.dtype, shared)
        grid = (ceil_div(gate.shape[1], plan["BLOCK_G"]), ceil_div(width, plan["BLOCK_D"]), images)
        launch(fused._backward_gate, grid, (*inputs, grad_gate, *sizes), plan)
    return grad_audio, grad_visual, grad_gate


@max_pooled_cosine_backward_op.register_fake
def _(
    grad: Tensor,
    audio: Tensor,
    visual: Tensor,
    gate: Tensor | None,
    gate_id: Tensor | None,
    similarity: Tensor,
    argmax: Tensor,
    length: Tensor,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(audio, visual, gate, needs)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 4
    needs = list(ctx.needs_input_grad[:3])
    found = max_pooled_cosine_backward_op(grad, *ctx.saved_tensors, needs)
    return (*(one if need else None for one, need in zip(found, needs, strict=True)), None)


max_pooled_cosine_op.register_autograd(_backward, setup_context=_save)


def _outputs(audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    shape = (audio.shape[0], visual.shape[0], audio.shape[1])
    return (
        audio.new_empty(shape, dtype=torch.float32),
        audio.new_empty(shape, dtype=torch.int64),
        audio.new_empty(shape, dtype=torch.float32),
    )


def _gradients(audio: Tensor, visual: Tensor, gate: Tensor | None, needs: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    gate_shape = (0,) if gate is None or not needs[2] else gate.shape
    return (
        audio.new_empty(audio.shape if needs[0] else (0,)),
        visual.new_empty(visual.shape if needs[1] else (0,)),
        visual.new_empty(gate_shape),
    )


def _inverse(tensor: Tensor) -> Tensor:
    return tensor.float().square().sum(-1).clamp_min(EPS).rsqrt()


def _gates(gate: Tensor | None, gate_id: Tensor | None, filler: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if gate is None or gate_id is None:
        return filler, filler, filler
    return gate, _inverse(gate), gate_id


def _sizes(audio: Tensor, visual: Tensor, gate: Tensor | None) -> tuple[int, int, int, int, int, int]:
    """rows, images, sources, cells, gates, width."""
    batch, sources, width = audio.shape
    return batch * sources, visual.shape[0], sources, visual.shape[1], 0 if gate is None else gate.shape[1], width
