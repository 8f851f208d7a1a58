"""Cosine maps of all classes at once: the inference form, two matrix products.

Legend: B batch, K maps, P cells, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-12


def cosine_maps(audio: Tensor, visual: Tensor, gate: Tensor | None = None) -> Tensor:
    """Cosine between every source embedding and every gated cell of the same sample (docs/method.md, section 6).

    map = F (a * v)^T / sqrt(max(F^2 (v^2)^T, eps)) with a and v scaled to length one.

    Shapes: audio [B,K,D]; visual [B,P,D]; gate [B,K,D] or None; returns [B,K,P].
    """
    kind = torch.promote_types(audio.dtype, torch.float32)
    with torch.autocast(audio.device.type, enabled=False):
        heard = _unit(audio.to(kind))
        cells = visual.to(kind)
        if gate is None:
            norm = cells.square().sum(2).clamp_min(EPS).sqrt()[:, None, :]
            return torch.matmul(heard, cells.transpose(1, 2)) / norm
        unit_gate = _unit(gate.to(kind))
        product = torch.matmul(heard * unit_gate, cells.transpose(1, 2))
        power = torch.matmul(unit_gate.square(), cells.square().transpose(1, 2))
        return product / power.clamp_min(EPS).sqrt()


def _unit(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).clamp_min(EPS).sqrt()
