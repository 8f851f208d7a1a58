"""Max-pooled cosine similarity in plain torch: the truth that fused kernels are compared with.

Legend: B sounds, M images, N sources of a sample, P cells, C classes, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-12


def max_pooled_cosine(
    audio: Tensor,
    visual: Tensor,
    gate: Tensor | None = None,
    *,
    gate_index: Tensor | None = None,
    audio_mask: Tensor | None = None,
    visual_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compare every sound's sources with every image at the image's best cell.

    similarity[b,m,n] = max_p cos(audio[b,n], visual[m,p] * gate[m,n]) (paper eq. 9-11; without a gate, the
    EZ-VSL similarity of eq. 1). With `gate_index` [B,N], the gate of source (b, n) on image m is
    gate[m, gate_index[b,n]] of gate [M,C,D] (docs/method.md, section 5).

    Shapes: audio [B,N,D]; visual [M,P,D]; gate [M,N,D] or [M,C,D]; audio_mask [B,N] and visual_mask [M,N] are True
    where a source exists. Returns similarity [B,M,N] and argmax [B,M,N] (int64). Masked pairs hold -inf and -1.
    Ties go to the lowest cell. Computed in float32 (float64 stays). Raises ValueError for shapes that don't fit.
    """
    check_shapes(audio, visual, gate, gate_index, audio_mask, visual_mask)
    kind = torch.promote_types(audio.dtype, torch.float32)
    with torch.autocast(audio.device.type, enabled=False):
        heard = _unit(audio.to(kind))
        cells = visual.to(kind)
        if gate is None:
            norm = cells.square().sum(2).clamp_min(EPS).sqrt()
            cosine = torch.einsum("bnd,mpd->bmnp", heard, cells) / norm[None, :, None, :]
        else:
            unit_gate = _unit(gate.to(kind))
            norm = torch.matmul(cells.square(), unit_gate.square().transpose(1, 2)).clamp_min(EPS).sqrt()
            if gate_index is None:
                modulated = heard[:, None] * unit_gate[None]
                norm_of_pair = norm.transpose(1, 2)[None]
            else:
                modulated = heard[:, None] * unit_gate.transpose(0, 1)[gate_index].transpose(1, 2)
                norm_of_pair = norm.permute(2, 0, 1)[gate_index].transpose(1, 2)
            cosine = torch.einsum("bmnd,mpd->bmnp", modulated, cells) / norm_of_pair
        similarity, argmax = cosine.max(dim=3)
    return apply_masks(similarity, argmax, audio_mask, visual_mask)


def apply_masks(
    similarity: Tensor, argmax: Tensor, audio_mask: Tensor | None, visual_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """-inf and -1 where a source of a pair doesn't exist: similarity and argmax [B,M,N]."""
    keep = _pair_mask(similarity, audio_mask, visual_mask)
    if keep is None:
        return similarity, argmax
    return similarity.masked_fill(~keep, float("-inf")), argmax.masked_fill(~keep, -1)


def _unit(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).clamp_min(EPS).sqrt()


def _pair_mask(similarity: Tensor, audio_mask: Tensor | None, visual_mask: Tensor | None) -> Tensor | None:
    if audio_mask is None and visual_mask is None:
        return None
    keep = torch.ones_like(similarity, dtype=torch.bool)
    if audio_mask is not None:
        keep = keep & audio_mask.bool()[:, None, :]
    if visual_mask is not None:
        keep = keep & visual_mask.bool()[None, :, :]
    return keep


def check_shapes(
    audio: Tensor,
    visual: Tensor,
    gate: Tensor | None,
    gate_index: Tensor | None,
    audio_mask: Tensor | None,
    visual_mask: Tensor | None,
) -> None:
    # each look at a tensor's shape makes a new one
    heard, seen = audio.shape, visual.shape
    if len(heard) != 3 or len(seen) != 3 or heard[2] != seen[2]:
        raise ValueError(
            f"audio must be [B,N,D] and visual [M,P,D] of one width, got {tuple(heard)} and {tuple(seen)}: reshape them"
        )
    if seen[1] == 0:
        raise ValueError(f"visual {tuple(seen)} must hold at least one cell: give pictures a larger grid")
    if gate is not None:
        gates = gate.shape
        if len(gates) != 3 or gates[0] != seen[0] or gates[2] != heard[2]:
            raise ValueError(f"gate must be [M,*,D] with visual's M and D, got {tuple(gates)}: reshape it")
        if gate_index is None and gates[1] != heard[1]:
            raise ValueError(f"gate {tuple(gates)} must hold audio's N = {heard[1]}: pass gate_index for classes")
    if gate_index is not None and (gate is None or gate_index.shape != heard[:2]):
        raise ValueError(f"gate_index must be [B,N] beside a gate, got {tuple(gate_index.shape)}: reshape it")
    if gate_index is not None and gate_index.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"gate_index must be int64 or int32, got {gate_index.dtype}: cast it")
    if audio_mask is not None and audio_mask.shape != heard[:2]:
        raise ValueError(f"audio_mask must be [B,N], got {tuple(audio_mask.shape)}: reshape it")
    if visual_mask is not None and visual_mask.shape != (seen[0], heard[1]):
        raise ValueError(f"visual_mask must be [M,N], got {tuple(visual_mask.shape)}: reshape it")
