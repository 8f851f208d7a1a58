"""The launches of the max-pooled-cosine kernels.

Legend: B sounds, N sources of a sample, R = B * N, M images, P cells, G gates of an image, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avgn.kernels.launch import again, ceil_div, launch, recorded, shared_memory
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
    unit_audio = torch.empty_like(audio)
    if gate is None or gate_id is None:
        best, where = _slots(visual, similarity, plan_plain(audio, visual)["BLOCK_P"])
        held: tuple[Tensor, ...] = (audio, visual, *outputs, unit_audio, best, where)
    else:
        unit_gate = torch.empty_like(gate)
        held = (audio, visual, gate, gate_id, *outputs, unit_audio, unit_gate)
    call = ("cosine forward", *_layout(audio, visual, gate, gate_id))
    if again(call, held):
        return outputs
    with recorded(call, held):
        if gate is None or gate_id is None:
            _prepare(audio, visual, None, outputs, unit_audio, audio)
            _forward_plain(unit_audio, visual, outputs, best, where)
        else:
            _prepare(audio, visual, gate, outputs, unit_audio, unit_gate)
            _forward_gated(unit_audio, visual, unit_gate, gate_id, outputs)
    return outputs


def _layout(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> tuple[Any, ...]:
    """What of its dense inputs the launches of a call depend on."""
    facts = audio.dtype, audio.device.index, audio.shape, visual.shape
    return facts if gate is None or gate_id is None else (*facts, gate.shape, gate_id.dtype)


def _prepare(
    audio: Tensor, visual: Tensor, gate: Tensor | None, outputs: Five, unit_audio: Tensor, unit_gate: Tensor
) -> None:
    """Scale sources and gates to one length; fill the inverse lengths among the outputs."""
    _, _, audio_inverse, gate_inverse, norm_inverse = outputs
    rows, images, _, cells, gates, width = _sizes(audio, visual, gate)
    plan = plan_prepare(gate is not None, cells, width, audio.dtype, shared_memory(audio.device))
    high = plan["BLOCK_R"]
    others = ceil_div(images * cells, high) if gate is None else images * ceil_div(gates, high)
    launch(
        fused.prepare,
        ceil_div(rows, high) + others,
        plan,
        audio_ptr=audio,
        visual_ptr=visual,
        gate_ptr=audio if gate is None else gate,
        unit_audio_ptr=unit_audio,
        audio_inverse_ptr=audio_inverse,
        unit_gate_ptr=unit_gate,
        gate_inverse_ptr=gate_inverse,
        norm_inverse_ptr=norm_inverse,
        num_rows=rows,
        num_images=images,
        num_cells=cells,
        gates=gates,
        width=width,
    )


def _forward_gated(unit_audio: Tensor, visual: Tensor, unit_gate: Tensor, gate_id: Tensor, outputs: Five) -> None:
    """A block of sources against all cells of an image a program."""
    similarity, argmax, audio_inverse, gate_inverse, norm_inverse = outputs
    rows, images, sources, cells, gates, width = _sizes(unit_audio, visual, unit_gate)
    plan = plan_forward(True, rows, cells, width, unit_audio.dtype, shared_memory(unit_audio.device))
    launch(
        fused.forward_gated,
        ceil_div(rows, plan["BLOCK_R"]) * images,
        plan,
        audio_ptr=unit_audio,
        visual_ptr=visual,
        gate_ptr=unit_gate,
        gate_id_ptr=gate_id,
        audio_inverse_ptr=audio_inverse,
        gate_inverse_ptr=gate_inverse,
        norm_inverse_ptr=norm_inverse,
        similarity_ptr=similarity,
        argmax_ptr=argmax,
        num_rows=rows,
        num_images=images,
        sources=sources,
        num_cells=cells,
        gates=gates,
        width=width,
    )


def _slots(visual: Tensor, similarity: Tensor, high: int) -> tuple[Tensor, Tensor]:
    """Return room for the best of each of an image's blocks of `high` cells, and where it is."""
    images, cells = visual.shape[:2]
    slots = 1 if cells == 1 else (cells - 2) // high + 2
    shape = (images, slots, similarity.shape[0] * similarity.shape[2])
    return similarity.new_empty(shape), similarity.new_empty(shape, dtype=torch.int32)


def plan_plain(audio: Tensor, visual: Tensor) -> dict[str, Any]:
    """Return the plan of products without gates."""
    rows, cells, width = audio.shape[0] * audio.shape[1], visual.shape[1], audio.shape[2]
    return plan_forward(False, rows, cells, width, audio.dtype, shared_memory(audio.device))


def _forward_plain(unit_audio: Tensor, visual: Tensor, outputs: Five, best: Tensor, where: Tensor) -> None:
    """A block of sources against a block of the cells of all images a program, then the best of an image's blocks."""
    similarity, argmax, audio_inverse, _, norm_inverse = outputs
    rows, images, sources, cells, _, width = _sizes(unit_audio, visual, None)
    plan = plan_plain(unit_audio, visual)
    high, slots = plan["BLOCK_P"], best.shape[1]
    launch(
        fused.forward_plain,
        ceil_div(rows, plan["BLOCK_R"]) * ceil_div(images * cells, high),
        plan,
        audio_ptr=unit_audio,
        visual_ptr=visual,
        norm_inverse_ptr=norm_inverse,
        best_ptr=best,
        where_ptr=where,
        num_rows=rows,
        num_images=images,
        num_cells=cells,
        slots=slots,
        width=width,
    )
    plan = plan_pool(rows, high)
    launch(
        fused.pool,
        images * ceil_div(rows, plan["BLOCK_R"]),
        plan,
        audio_inverse_ptr=audio_inverse,
        norm_inverse_ptr=norm_inverse,
        best_ptr=best,
        where_ptr=where,
        similarity_ptr=similarity,
        argmax_ptr=argmax,
        num_rows=rows,
        num_images=images,
        sources=sources,
        num_cells=cells,
        slots=slots,
    )


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
    dense = audio, visual, gate, gate_id
    gradients = grad_audio, grad_visual, grad_gate
    rows, images, _, cells, gates, _ = _sizes(audio, visual, gate)
    by_cell = _room(grad, images, rows, cells) if needs[1] else ()
    by_gate = _room(grad, 1, rows, gates) if gate_id is not None and needs[2] else ()
    found = [one for one, need in zip(gradients, needs, strict=True) if need]
    held: tuple[Tensor, ...] = (grad, audio, visual, similarity, argmax, audio_inverse, norm_inverse)
    held = (*held, *found, *by_cell, *by_gate)
    if gate is not None and gate_id is not None:
        held = (*held, gate, gate_id, gate_inverse)
    call = ("cosine backward", *needs, *_layout(*dense))
    if not again(call, held):
        with recorded(call, held):
            _backward(grad, dense, saved, gradients, needs, by_cell, by_gate)
    return gradients


def _backward(
    grad: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    saved: Five,
    gradients: Three,
    needs: list[bool],
    by_cell: tuple[Tensor, ...],
    by_gate: tuple[Tensor, ...],
) -> None:
    """Fill the gradients that are needed; `by_cell` and `by_gate` are room for the orders that they need."""
    audio, visual, gate, gate_id = inputs
    similarity, argmax, audio_inverse, gate_inverse, norm_inverse = saved
    grad_audio, grad_visual, grad_gate = gradients
    rows, images, sources, cells, gates, width = _sizes(audio, visual, gate)
    gated = gate is not None
    sizes = {
        "num_rows": rows,
        "num_images": images,
        "sources": sources,
        "num_cells": cells,
        "gates": gates,
        "width": width,
    }
    facts = {
        "audio_ptr": audio,
        "audio_inverse_ptr": audio_inverse,
        "visual_ptr": visual,
        # where there is no gate, anything stands in its place: the kernels don't read it
        "gate_ptr": audio if gate is None else gate,
        "gate_inverse_ptr": audio_inverse if gate is None else gate_inverse,
        "gate_id_ptr": audio if gate_id is None else gate_id,
        "norm_inverse_ptr": norm_inverse,
        "similarity_ptr": similarity,
    }
    if needs[0]:
        plan = plan_backward_audio(gated, images, width)
        launch(
            fused.backward_audio,
            rows * ceil_div(width, plan["BLOCK_D"]),
            plan,
            **facts,
            argmax_ptr=argmax,
            grad_ptr=grad,
            grad_audio_ptr=grad_audio,
            **sizes,
        )
    plan = plan_lists(gated, width)
    columns = ceil_div(width, plan["BLOCK_D"])
    if needs[1]:
        order, starts = by_cell
        _order(argmax, order, starts, sources)
        launch(
            fused.backward_visual,
            images * cells * columns,
            plan,
            **facts,
            grad_ptr=grad,
            order_ptr=order,
            starts_ptr=starts,
            grad_visual_ptr=grad_visual,
            **sizes,
        )
    if gate_id is not None and needs[2]:
        order, starts = by_gate
        _order(gate_id, order, starts, sources)
        launch(
            fused.backward_gate,
            images * gates * columns,
            plan_lists(None, width),
            **facts,
            argmax_ptr=argmax,
            grad_ptr=grad,
            order_ptr=order,
            starts_ptr=starts,
            grad_gate_ptr=grad_gate,
            **sizes,
        )


def _room(grad: Tensor, groups: int, rows: int, num_keys: int) -> tuple[Tensor, Tensor]:
    """Return room for the rows of each group sorted by key, and for where each key starts, both int32."""
    order = grad.new_empty((groups, rows), dtype=torch.int32)
    return order, order.new_empty((groups, num_keys + 1))


def _order(keys: Tensor, order: Tensor, starts: Tensor, sources: int) -> None:
    """Sort the rows of each group by their keys."""
    groups, rows = order.shape
    num_keys = starts.shape[1] - 1
    plan = plan_order(rows, num_keys)
    launch(
        fused.order,
        groups * (ceil_div(rows, plan["BLOCK_R"]) + ceil_div(num_keys + 1, plan["BLOCK_R"])),
        plan,
        keys_ptr=keys,
        order_ptr=order,
        starts_ptr=starts,
        num_rows=rows,
        num_groups=groups,
        sources=sources,
        num_keys=num_keys,
    )


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
    # naming a dtype costs the host as much as the allocation
    similarity = audio.new_empty(shape, dtype=torch.float32)
    return (
        similarity,
        audio.new_empty(shape, dtype=torch.int64),
        similarity.new_empty(batch * sources),
        similarity.new_empty((images, gates)),
        similarity.new_empty((images, max(gates, 1), cells)),
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
