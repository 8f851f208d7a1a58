"""The launches of the max-pooled-cosine kernels.

Legend: B sounds, N sources of a sample, R = B * N, M images, P cells, G gates of an image, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avgn.kernels.launch import ceil_div, launch, shared_memory
from avgn.kernels.max_pooled_cosine import fused
from avgn.kernels.max_pooled_cosine.plan import (
    plan_backward_audio,
    plan_forward,
    plan_lists,
    plan_order,
    plan_pool,
    plan_prepare,
)

Three = tuple[Tensor, Tensor, Tensor]
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def run_forward(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> Five:
    """Similarity [B,M,N] float32, argmax [B,M,N] int64, and for the backward the inverse lengths of the sources [R], of
    the gates [M,G] and of gated cells [M,max(G,1),P].

    audio [B,N,D], visual [M,P,D], gate [M,G,D] with gate_id [B,N] int32 or neither; P of at least one.
    """
    audio, visual, gate, gate_id = _dense(audio, visual, gate, gate_id)
    outputs = outputs_like(audio, visual, gate)
    similarity, argmax, audio_inverse, gate_inverse, norm_inverse = outputs
    if similarity.numel() == 0:
        return outputs
    rows, images, sources, cells, gates, width = sizes = _sizes(audio, visual, gate)
    unit_audio = torch.empty_like(audio)
    unit_gate = audio if gate is None else torch.empty_like(gate)
    filler = audio if gate is None else gate
    shared = shared_memory(audio.device)
    plan = plan_prepare(gate is not None, cells, width, audio.dtype, shared)
    others = images * (cells if gate is None else gates)
    blocks = ceil_div(rows, plan["BLOCK_R"])
    blocks += ceil_div(others, plan["BLOCK_R"]) if gate is None else images * ceil_div(gates, plan["BLOCK_R"])
    inputs = (audio, visual, filler, unit_audio, audio_inverse, unit_gate, gate_inverse, norm_inverse)
    launch(fused._prepare, blocks, (*inputs, rows, images, cells, gates, width), plan)
    plan = plan_forward(gate is not None, rows, cells, width, audio.dtype, shared)
    row_blocks = ceil_div(rows, plan["BLOCK_R"])
    if gate is not None:
        gated = (unit_audio, visual, unit_gate, gate_id, norm_inverse, similarity, argmax, *sizes)
        launch(fused._forward_gated, row_blocks * images, gated, plan)
        return outputs
    high = plan["BLOCK_P"]
    slots = 1 if cells == 1 else (cells - 2) // high + 2
    best = similarity.new_empty(images, slots, rows)
    where = similarity.new_empty(images, slots, rows, dtype=torch.int32)
    plain = (unit_audio, visual, norm_inverse, best, where, rows, images, cells, slots, width)
    launch(fused._forward_plain, row_blocks * ceil_div(others, high), plain, plan)
    plan = plan_pool(rows, high)
    pooled = (best, where, similarity, argmax, rows, images, sources, cells, slots)
    launch(fused._pool, images * ceil_div(rows, plan["BLOCK_R"]), pooled, plan)
    return outputs


def run_backward(
    grad: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    saved: Five,
    needs: list[bool],
) -> Three:
    """Gradients of audio, visual and gate; those that aren't needed come empty."""
    grad = grad.float().contiguous()
    audio, visual, gate, gate_id = _dense(*inputs)
    similarity, argmax, audio_inverse, gate_inverse, norm_inverse = saved
    grad_audio, grad_visual, grad_gate = gradients_like(audio, visual, gate, needs)
    if similarity.numel() == 0:
        return grad_audio.zero_(), grad_visual.zero_(), grad_gate.zero_()
    rows, images, sources, cells, gates, width = sizes = _sizes(audio, visual, gate)
    gated = gate is not None
    gate_of = (audio, audio_inverse, audio) if gate is None else (gate, gate_inverse, gate_id)
    facts = (audio, audio_inverse, visual, *gate_of, norm_inverse, similarity)
    if needs[0]:
        plan = plan_backward_audio(gated, images, width)
        programs = rows * ceil_div(width, plan["BLOCK_D"])
        launch(fused._backward_audio, programs, (*facts, argmax, grad, grad_audio, *sizes), plan)
    plan = plan_lists(gated, width)
    columns = ceil_div(width, plan["BLOCK_D"])
    if needs[1]:
        lists = _order(argmax, rows, images, sources, cells)
        launch(fused._backward_visual, images * cells * columns, (*facts, grad, *lists, grad_visual, *sizes), plan)
    if gate is not None and gate_id is not None and needs[2]:
        lists = _order(gate_id, rows, 1, sources, gates)
        arguments = (*facts, argmax, grad, *lists, grad_gate, *sizes)
        launch(fused._backward_gate, images * gates * columns, arguments, plan_lists(None, width))
    return grad_audio, grad_visual, grad_gate


def _order(keys: Tensor, rows: int, groups: int, sources: int, num_keys: int) -> tuple[Tensor, Tensor]:
    """The rows of each group sorted by key, and where each key starts, both int32."""
    order = keys.new_empty(groups, rows, dtype=torch.int32)
    starts = keys.new_empty(groups, num_keys + 1, dtype=torch.int32)
    plan = plan_order(rows, num_keys)
    programs = groups * (ceil_div(rows, plan["BLOCK_R"]) + ceil_div(num_keys + 1, plan["BLOCK_R"]))
    launch(fused._order, programs, (keys, order, starts, rows, groups, sources, num_keys), plan)
    return order, starts


def _dense(
    audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    return (
        audio.contiguous(),
        visual.contiguous(),
        None if gate is None else gate.contiguous(),
        None if gate_id is None else gate_id.contiguous(),
    )


def outputs_like(audio: Tensor, visual: Tensor, gate: Tensor | None) -> Five:
    """Empty outputs of `run_forward`."""
    batch, sources = audio.shape[:2]
    images, cells = visual.shape[:2]
    gates = 0 if gate is None else gate.shape[1]
    shape = (batch, images, sources)
    return (
        audio.new_empty(shape, dtype=torch.float32),
        audio.new_empty(shape, dtype=torch.int64),
        audio.new_empty(batch * sources, dtype=torch.float32),
        audio.new_empty((images, gates), dtype=torch.float32),
        audio.new_empty((images, max(gates, 1), cells), dtype=torch.float32),
    )


def gradients_like(audio: Tensor, visual: Tensor, gate: Tensor | None, needs: list[bool]) -> Three:
    """Empty gradients."""
    gate_shape = (0,) if gate is None or not needs[2] else gate.shape
    return (
        audio.new_empty(audio.shape if needs[0] else (0,)),
        visual.new_empty(visual.shape if needs[1] else (0,)),
        visual.new_empty(gate_shape),
    )


def _sizes(audio: Tensor, visual: Tensor, gate: Tensor | None) -> tuple[int, int, int, int, int, int]:
    """rows, images, sources, cells, gates of an image (one where there are none), width."""
    batch, sources, width = audio.shape
    return batch * sources, visual.shape[0], sources, visual.shape[1], 1 if gate is None else gate.shape[1], width
