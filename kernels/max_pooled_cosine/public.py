"""Max-pooled cosine similarity: the public function, which chooses an implementation."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from avgn.kernels.dispatch import (
    check_devices,
    check_fused,
    is_eager,
    needs_operator,
    prefers_reference,
    under_autocast,
    uses_triton,
)
from avgn.kernels.max_pooled_cosine import chunked, reference
from avgn.kernels.max_pooled_cosine.calls import call_name
from avgn.kernels.records import records

LARGE = 1 << 20


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
    where a source exists. Returns similarity [B,M,N] and argmax [B,M,N] (int64, no gradient). Masked pairs hold -inf
    and -1. Ties go to the lowest cell. Computed in float32 (float64 stays). Indices of gates may count from the end;
    one that is outside raises IndexError on the CPU and gives NaN in the fused kernels, which can't raise. Raises
    ValueError for shapes, dtypes or devices that don't fit.
    """
    given: tuple[Tensor, ...] = (audio, visual) if gate is None else (audio, visual, gate)
    if is_eager(*given) and (gate_index is None or type(gate_index) is Tensor):
        record = records.get(call_name(audio, visual, gate, gate_index))
        if record is not None:
            similarity, argmax = _eager()(audio, visual, gate, gate_index, record)
            if audio_mask is None and visual_mask is None:
                return similarity, argmax
            reference.check_shapes(audio, visual, gate, gate_index, audio_mask, visual_mask)
            return reference.apply_masks(similarity, argmax, audio_mask, visual_mask)
    if not uses_triton("max_pooled_cosine", *given):
        plain = chunked.max_pooled_cosine if _is_large(audio, visual) else reference.max_pooled_cosine
        return plain(audio, visual, gate, gate_index=gate_index, audio_mask=audio_mask, visual_mask=visual_mask)
    reference.check_shapes(audio, visual, gate, gate_index, audio_mask, visual_mask)
    given = under_autocast(*given)
    check_fused("max_pooled_cosine", *given)
    audio, visual = given[:2]
    if gate_index is not None:
        check_devices("max_pooled_cosine", audio, gate_index)
    gate = None if gate is None else given[2]
    if gate is not None and gate_index is None:
        gate_index = torch.arange(audio.shape[1], device=audio.device).expand(audio.shape[0], -1)
    if needs_operator(*given):
        similarity, argmax, _ = _registered()(audio, visual, gate, gate_index)
    else:
        similarity, argmax = _eager()(audio, visual, gate, gate_index, None)
    return reference.apply_masks(similarity, argmax, audio_mask, visual_mask)


def _registered() -> Callable[..., tuple[Tensor, ...]]:
    """Return the operator: its module needs Triton."""
    from avgn.kernels.max_pooled_cosine.op import max_pooled_cosine_op

    return max_pooled_cosine_op


@cache
def _eager() -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the autograd function, looked up once."""
    from avgn.kernels.max_pooled_cosine.op import MaxPooledCosine

    return MaxPooledCosine.apply


def _is_large(audio: Tensor, visual: Tensor) -> bool:
    """Return whether [B,M,N,P] or [B,M,N,D] would be worth avoiding (what is traced stays the reference)."""
    pairs = audio.shape[0] * audio.shape[1] * visual.shape[0]
    return pairs * max(visual.shape[1], visual.shape[2]) > LARGE and not prefers_reference()
