"""The mixed-precision form of an optimized localizer: layers in half precision, everything delicate in float32.

Convolutions, projections and the products of attention run in float16. The front-end, norms, softmaxes, the residual
stream, grouping weights, squared gates, heads and every reduction stay in float32, and so do the graphs' inputs and
outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from avgn.export.optimize import FrozenAttention, FrozenBlock, OptimizedModel, check_optimized

# a quarter of what float16 holds, and then some, for scenes louder and brighter than those that were looked at
MAX_ACTIVATION = 6e3


class Half(nn.Module):
    """Runs a module in float16: [..] float32 -> [..] float32."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.half()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.half()).float()


class HalfAttention(nn.Module):
    """FrozenAttention in float16 but for its softmax; `qkv` hands float16 on."""

    def __init__(self, attention: FrozenAttention) -> None:
        super().__init__()
        self.attention = attention.half()

    def qkv(self, x: Tensor) -> Tensor:
        return self.attention.qkv(x.half())

    def forward(self, qkv: Tensor) -> Tensor:
        return self.attention(qkv).float()


def to_mixed(optimized: OptimizedModel) -> OptimizedModel:
    """Copy an optimized model in mixed precision."""
    check_optimized(optimized)
    model = copy.deepcopy(optimized.model)
    for encoder in (model.audio_encoder, model.visual_encoder):
        setattr(encoder, "backbone", Half(encoder.backbone))  # noqa: B010 - another type in its place
    _wrap(model, model.presence_heads())
    return OptimizedModel(model)


def _wrap(module: nn.Module, kept: Sequence[nn.Module]) -> None:
    for name, child in module.named_children():
        if isinstance(child, Half) or any(child is one for one in kept):
            continue
        if isinstance(child, FrozenAttention):
            setattr(module, name, HalfAttention(child))
        elif isinstance(child, nn.Linear | nn.Conv2d) or (isinstance(module, FrozenBlock) and name == "mlp"):
            setattr(module, name, Half(child))
        else:
            _wrap(child, kept)


@torch.no_grad()
def largest_activations(optimized: OptimizedModel, run: Callable[[], object]) -> dict[str, float]:
    """Return the largest absolute value that each module computing in float16 gives or takes while `run` runs the
    model."""
    largest: dict[str, float] = {}

    def watch(name: str) -> Callable[[nn.Module, Sequence[Tensor], Tensor], None]:
        def hook(_: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> None:
            seen = [t for t in (*inputs, output) if isinstance(t, Tensor) and t.dtype == torch.float16]
            if seen:
                value = max(float(t.detach().float().abs().max()) for t in seen)
                # a NaN must not vanish in a maximum
                largest[name] = value if value != value else max(largest.get(name, 0.0), value)

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in optimized.model.named_modules() if name]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return largest
