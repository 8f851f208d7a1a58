"""Max-pooled cosine similarity a few images at a time: exact, with its own backward, for small machines.

Neither [M,N,P,D] nor [B,M,N,P] is ever stored; the backward reads the winning cells alone.

Legend: B sounds, N sources of a sample, R = B * N, M images, P cells, G gates of an image, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avgn.kernels.max_pooled_cosine.reference import EPS, apply_masks, check_shapes

CHUNK_ELEMENTS = 1 << 18


def max_pooled_cosine(
    audio: Tensor,
    visual: Tensor,
    gate: Tensor | None = None,
    *,
    gate_index: Tensor | None = None,
    audio_mask: Tensor | None = None,
    visual_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the same as the reference; its peak of memory is that of the inputs' gradients and a chunk."""
    check_shapes(audio, visual, gate, gate_index, audio_mask, visual_mask)
    with torch.autocast(audio.device.type, enabled=False):
        similarity, argmax = Chunked.apply(audio, visual, gate, gate_index)
    return apply_masks(similarity, argmax, audio_mask, visual_mask)


class Chunked(torch.autograd.Function):
    """(audio [B,N,D], visual [M,P,D], gate, gate_index) -> (similarity, argmax), both [B,M,N]."""

    @staticmethod
    def forward(
        ctx: Any, audio: Tensor, visual: Tensor, gate: Tensor | None, gate_index: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        kind = torch.promote_types(audio.dtype, torch.float32)
        batch, sources, width = audio.shape
        images, cells = visual.shape[:2]
        heard = _unit(audio.to(kind)).reshape(batch * sources, width)
        ids = _gate_ids(audio, gate, gate_index)
        similarity = heard.new_empty(images, batch * sources)
        argmax = torch.empty(images, batch * sources, dtype=torch.int64, device=audio.device)
        step = _chunk(batch * sources, max(cells, width))
        for at in range(0, images, step):
            seen = visual[at : at + step].to(kind)
            if gate is None:
                norm = seen.square().sum(2).clamp_min(EPS).sqrt()[:, None, :]
                cosine = torch.matmul(heard, seen.transpose(1, 2)).div_(norm)
            else:
                unit_gate = _unit(gate[at : at + step].to(kind))
                norm = torch.matmul(unit_gate.square(), seen.square().transpose(1, 2)).clamp_min_(EPS).sqrt_()
                cosine = torch.matmul(unit_gate[:, ids].mul_(heard), seen.transpose(1, 2)).div_(norm[:, ids])
            similarity[at : at + step], argmax[at : at + step] = cosine.max(dim=2)
        ctx.save_for_backward(audio, visual, gate, ids, similarity, argmax)
        argmax = argmax.view(images, batch, sources).transpose(0, 1)
        ctx.mark_non_differentiable(argmax)
        return similarity.view(images, batch, sources).transpose(0, 1), argmax

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        audio, visual, gate, ids, similarity, argmax = ctx.saved_tensors
        kind = similarity.dtype
        batch, sources, width = audio.shape
        images, cells = visual.shape[:2]
        change = grads[0].transpose(0, 1).reshape(images, batch * sources)
        length = audio.to(kind).square().sum(2, keepdim=True).clamp_min(EPS).sqrt().view(-1, 1)
        heard = audio.to(kind).reshape(-1, width) / length
        grad_audio = torch.zeros_like(heard)
        grad_visual = torch.zeros_like(visual, dtype=kind)
        grad_gate = None if gate is None else torch.zeros_like(gate, dtype=kind)
        step = _chunk(batch * sources, width)
        for at in range(0, images, step):
            count = min(step, images - at)
            first_cell = cells * torch.arange(count, device=audio.device)[:, None]
            winner = (argmax[at : at + step] + first_cell).view(-1)
            seen = visual[at : at + step].reshape(count * cells, width)[winner].to(kind).view(count, -1, width)
            if gate is not None:
                gate_length = gate[at : at + step].to(kind).square().sum(2, keepdim=True).clamp_min(EPS).sqrt()
                modulation = (gate[at : at + step].to(kind) / gate_length)[:, ids]
                vector = seen * modulation
            else:
                vector = seen
            power = vector.square().sum(2, keepdim=True)
            norm = power.clamp_min(EPS).sqrt()
            towards = change[at : at + step, :, None] / norm
            grad_audio += (vector * towards).sum(0)
            shrink = (towards * similarity[at : at + step, :, None] / norm).masked_fill_(power <= EPS, 0.0)
            slope = (heard * towards).addcmul_(vector, shrink, value=-1.0)
            del vector
            if gate is not None and grad_gate is not None:
                gate_rows = (ids + gate.shape[1] * torch.arange(count, device=audio.device)[:, None]).view(-1)
                of_gate = grad_gate[at : at + step].view(-1, width)
                of_gate.index_add_(0, gate_rows, (seen * slope).reshape(-1, width))
                grad_gate[at : at + step] /= gate_length
                slope *= modulation
            grad_visual[at : at + step].view(-1, width).index_add_(0, winner, slope.reshape(-1, width))
        along = (change * similarity).sum(0)[:, None]
        grad_audio = ((grad_audio - heard * along) / length).view(audio.shape)
        return (
            grad_audio.to(audio.dtype),
            grad_visual.to(visual.dtype),
            None if gate is None or grad_gate is None else grad_gate.to(gate.dtype),
            None,
        )


def _unit(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).clamp_min(EPS).sqrt()


def _gate_ids(audio: Tensor, gate: Tensor | None, gate_index: Tensor | None) -> Tensor | None:
    """Return the gate of each source, [R]."""
    if gate is None:
        return None
    if gate_index is not None:
        ids = gate_index.reshape(-1)
        # gradients are added at places that are counted from the start
        return torch.where(ids < 0, ids + gate.shape[1], ids)
    return torch.arange(audio.shape[1], device=audio.device).repeat(audio.shape[0])


def _chunk(rows: int, width: int) -> int:
    return max(1, CHUNK_ELEMENTS // max(1, rows * width))
