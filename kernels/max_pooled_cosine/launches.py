"""The launches of the max-pooled-cosine kernels.

Legend: B sounds, N sources of a sample, R = B * N, M images, P cells, G gates of an image, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avgn.kernels.dispatch import check_devices
from avgn.kernels.launch import ceil_div, launch, shared_memory
from avgn.kernels.max_pooled_cosine import fused_backward, fused_forward
from avgn.kernels.max_pooled_cosine.calls import backward_name, call_name, inputs_of
from avgn.kernels.max_pooled_cosine.plan import (
    plan_backward_audio,
    plan_forward,
    plan_lists,
    plan_order,
    plan_pool,
    plan_prepare,
)
from avgn.kernels.records import Pieces, parts, recorded, records, room_for, room_size

Three = tuple[Tensor, Tensor, Tensor]
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def run_forward(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> Three:
    """Similarity [B,M,N] float32, argmax [B,M,N] int64, and a room with what the backward needs (`lengths_of`).

    audio [B,N,D], visual [M,P,D], gate [M,G,D] with gate_id [B,N] int32 or int64 or neither; P of at least one.
    """
    audio, visual, gate, gate_id = _dense(audio, visual, gate, gate_id)
    call = call_name(audio, visual, gate, gate_id)
    inputs = inputs_of(audio, visual, gate, gate_id)
    record = records.get(call)
    if record is not None and (found := record.again(*inputs)):
        return found
    outputs = similarity, argmax, lengths = outputs_like(audio, visual, gate)
    if similarity.numel() == 0:
        return outputs
    pieces: list[tuple[Sequence[int], torch.dtype]] = [(audio.shape, audio.dtype)]
    if gate is None:
        slots = _slots(visual, similarity, plan_plain(audio, visual)["BLOCK_P"])
        pieces += [(slots, torch.float32), (slots, torch.int32)]
    else:
        pieces.append((gate.shape, gate.dtype))
    room = room_for(audio, pieces)
    with recorded(call, inputs, outputs, room):
        results = similarity, argmax, *lengths_of(lengths, audio, visual, gate)
        unit_audio, *others = parts(room, pieces)
        if gate is None or gate_id is None:
            best, where = others
            _prepare(audio, visual, None, results, unit_audio, audio)
            _forward_plain(unit_audio, visual, results, best, where)
        else:
            unit_gate = others[0]
            _prepare(audio, visual, gate, results, unit_audio, unit_gate)
            _forward_gated(unit_audio, visual, unit_gate, gate_id, results)
    return outputs


def _prepare(
    audio: Tensor, visual: Tensor, gate: Tensor | None, results: Five, unit_audio: Tensor, unit_gate: Tensor
) -> None:
    """Scale sources and gates to one length; fill the inverse lengths among the outputs."""
    _, _, audio_inverse, gate_inverse, norm_inverse = results
    rows, images, _, cells, gates, width = _sizes(audio, visual, gate)
    plan = plan_prepare(gate is not None, cells, width, audio.dtype, shared_memory(audio.device))
    high = plan["BLOCK_R"]
    others = ceil_div(images * cells, high) if gate is None else images * ceil_div(gates, high)
    launch(
        fused_forward.prepare,
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


def _forward_gated(unit_audio: Tensor, visual: Tensor, unit_gate: Tensor, gate_id: Tensor, results: Five) -> None:
    """A block of sources against all cells of an image a program."""
    similarity, argmax, audio_inverse, gate_inverse, norm_inverse = results
    rows, images, sources, cells, gates, width = _sizes(unit_audio, visual, unit_gate)
    plan = plan_forward(True, rows, cells, width, unit_audio.dtype, shared_memory(unit_audio.device))
    launch(
        fused_forward.forward_gated,
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


def _slots(visual: Tensor, similarity: Tensor, high: int) -> tuple[int, int, int]:
    """Return the shape of what is the best of each of an image's blocks of `high` cells."""
    images, cells = visual.shape[:2]
    slots = 1 if cells == 1 else (cells - 2) // high + 2
    return images, slots, similarity.shape[0] * similarity.shape[2]


def plan_plain(audio: Tensor, visual: Tensor) -> dict[str, Any]:
    """Return the plan of products without gates."""
    rows, cells, width = audio.shape[0] * audio.shape[1], visual.shape[1], audio.shape[2]
    return plan_forward(False, rows, cells, width, audio.dtype, shared_memory(audio.device))


def _forward_plain(unit_audio: Tensor, visual: Tensor, results: Five, best: Tensor, where: Tensor) -> None:
    """A block of sources against a block of the cells of all images a program, then the best of an image's blocks."""
    similarity, argmax, audio_inverse, _, norm_inverse = results
    rows, images, sources, cells, _, width = _sizes(unit_audio, visual, None)
    plan = plan_plain(unit_audio, visual)
    high, slots = plan["BLOCK_P"], best.shape[1]
    launch(
        fused_forward.forward_plain,
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
        fused_forward.pool,
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
    saved: Three,
    needs: list[bool],
) -> Three:
    """Gradients of audio, visual and gate; those that aren't needed come empty."""
    dense = audio, visual, gate, gate_id = _dense(*inputs)
    # hooks may give back other tensors than were saved
    grad, similarity, lengths = (one.contiguous() for one in (grad.float(), saved[0].float(), saved[2]))
    argmax = saved[1].long().contiguous()
    kept = similarity, argmax, lengths
    call = backward_name(call_name(*dense), grad, kept, needs)
    given = (grad, *kept, *inputs_of(*dense))
    check_devices("max_pooled_cosine", *given)
    record = records.get(call)
    if record is not None and (found := record.again(*given)):
        return found
    gradients = gradients_like(audio, visual, gate, needs)
    if similarity.numel() == 0:
        first, second, third = gradients
        return first.zero_(), second.zero_(), third.zero_()
    rows, images, _, cells, gates, _ = _sizes(audio, visual, gate)
    pieces = _room(images, rows, cells) if needs[1] else []
    if gate_id is not None and needs[2]:
        pieces = [*pieces, *_room(1, rows, gates)]
    room = room_for(grad, pieces)
    with recorded(call, given, gradients, room):
        results = similarity, argmax, *lengths_of(lengths, audio, visual, gate)
        _backward(grad, dense, results, gradients, needs, parts(room, pieces))
    return gradients


def _backward(
    grad: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    saved: Five,
    gradients: Three,
    needs: list[bool],
    room: list[Tensor],
) -> None:
    """Fill the gradients that are needed; `room` is for the orders of rows, by cell and by gate, that they need."""
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
            fused_backward.backward_audio,
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
        order, starts = room[:2]
        _order(argmax, order, starts, sources)
        launch(
            fused_backward.backward_visual,
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
        order, starts = room[-2:]
        _order(gate_id, order, starts, sources)
        launch(
            fused_backward.backward_gate,
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


def _room(groups: int, rows: int, num_keys: int) -> Pieces:
    """Return what holds the rows of each group sorted by key, and where each key starts."""
    return [((groups, rows), torch.int32), ((groups, num_keys + 1), torch.int32)]


def _order(keys: Tensor, order: Tensor, starts: Tensor, sources: int) -> None:
    """Sort the rows of each group by their keys."""
    groups, rows = order.shape
    num_keys = starts.shape[1] - 1
    plan = plan_order(rows, num_keys)
    launch(
        fused_backward.order,
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


def outputs_like(audio: Tensor, visual: Tensor, gate: Tensor | None) -> Three:
    """Empty outputs of `run_forward`."""
    shape = (audio.shape[0], visual.shape[0], audio.shape[1])
    numbers = room_size(_lengths(audio, visual, gate))
    # naming a dtype costs the host as much as the allocation
    argmax = audio.new_empty(shape, dtype=torch.int64)
    return audio.new_empty(shape, dtype=torch.float32), argmax, audio.new_empty(numbers, dtype=torch.int32)


def lengths_of(lengths: Tensor, audio: Tensor, visual: Tensor, gate: Tensor | None) -> Three:
    """Return the inverse lengths of the sources [R], of the gates [M,G] and of gated cells [M,max(G,1),P]."""
    sources, cells, *gates = parts(lengths, _lengths(audio, visual, gate))
    # anything stands in the place of what isn't read
    return sources, gates[0] if gates else sources, cells


def _lengths(audio: Tensor, visual: Tensor, gate: Tensor | None) -> Pieces:
    rows, images, _, cells, gates, _ = _sizes(audio, visual, gate)
    pieces = [((rows,), torch.float32), ((images, gates, cells), torch.float32)]
    return pieces if gate is None else [*pieces, ((images, gates), torch.float32)]


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
