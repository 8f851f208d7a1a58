"""The reference in the place of the max-pooled-cosine kernels, and how far the kernels are from it.

Legend: B sounds, N sources of a sample, M images, P cells, G gates of an image, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avgn.kernels.launch import ceil_div
from avgn.kernels.max_pooled_cosine import reference
from avgn.kernels.max_pooled_cosine.launches import Three, outputs_like, run_backward, run_forward
from avgn.kernels.selfcheck import error, random

Inputs = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def reference_forward(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> Three:
    """Return what `run_forward` gives, from the reference; its backward needs no lengths."""
    index = None if gate_id is None else gate_id.long()
    similarity, argmax = reference.max_pooled_cosine(audio, visual, gate, gate_index=index)
    return similarity.contiguous(), argmax.contiguous(), outputs_like(audio, visual, gate)[2].zero_()


def reference_backward(
    grad: Tensor,
    audio: Tensor,
    visual: Tensor,
    gate: Tensor | None,
    gate_id: Tensor | None,
    needs: list[bool],
) -> Three:
    """Return what `run_backward` gives, from the reference."""
    index = None if gate_id is None else gate_id.long()
    # within an operator autograd is switched off, and `enable_grad` alone doesn't bring it back
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [one.detach().requires_grad_() for one in (audio, visual, gate) if one is not None]
        similarity, _ = reference.max_pooled_cosine(*inputs, gate_index=index)
        found = torch.autograd.grad(similarity, inputs, grad.to(similarity.dtype))
    # compiled programs were promised the kernels' layout
    kept = [one.contiguous() if need else one.new_empty(0) for one, need in zip(found, needs, strict=False)]
    return kept[0], kept[1], visual.new_empty(0) if gate is None else kept[2]


def forward_error(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> float:
    """Return the error of the similarity on numbers of its own."""
    inputs = _sample(audio, visual, gate, gate_id)
    return error([run_forward(*inputs)[0]], [reference_forward(*_wide(inputs))[0]])


def backward_error(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> float:
    """Return the error of the gradients on numbers of its own, over pairs that have the true winner."""
    inputs = _sample(audio, visual, gate, gate_id)
    saved, truth = run_forward(*inputs), reference_forward(*_wide(inputs))
    slope = random(saved[0], saved[0].shape)[0].masked_fill_(truth[1] != saved[1], 0.0)
    needs = [True, True, gate is not None]
    count = 2 if gate is None else 3
    found = run_backward(slope, inputs, saved, needs)
    return error(found[:count], reference_backward(slope, *_wide(inputs), needs)[:count])


def _sample(audio: Tensor, visual: Tensor, gate: Tensor | None, gate_id: Tensor | None) -> Inputs:
    """Inputs of two images that compile to the kernels of a call."""
    sources = audio.shape[1]
    batch = min(audio.shape[0], ceil_div(128, sources))
    heard, seen = random(audio, (batch, *audio.shape[1:]), (2, *visual.shape[1:]))
    if gate is None or gate_id is None:
        return heard, seen, None, None
    ids = torch.arange(batch * sources, device=audio.device).remainder(gate.shape[1]).to(gate_id.dtype)
    return heard, seen, random(gate, (2, *gate.shape[1:]))[0], ids.view(batch, sources)


def _wide(inputs: Inputs) -> Inputs:
    audio, visual, gate, gate_id = inputs
    return audio.double(), visual.double(), None if gate is None else gate.double(), gate_id
