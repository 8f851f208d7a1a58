"""Activation checkpointing: stages of encoders and blocks of transformers are computed again in the backward pass."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from avgn.encoders import ResNet18
from avgn.model import LocalizerModel
from avgn.transformer import Block


def checkpoint_activations(model: LocalizerModel) -> None:
    """Make the costly parts of a model keep their inputs alone; outputs, gradients and statistics stay equal."""
    parts: list[nn.Module] = [
        stage for encoder in (model.audio_encoder, model.visual_encoder) for stage in _stages(encoder.backbone)
    ]
    parts += [module for module in model.modules() if isinstance(module, Block)]
    for part in parts:
        part.forward = functools.partial(  # type: ignore[method-assign]
            checkpoint, part.forward, use_reentrant=False, context_fn=functools.partial(_contexts, part)
        )


def _stages(backbone: nn.Module) -> list[nn.Module]:
    """Return what a backbone is a chain of, but for its ends."""
    if isinstance(backbone, ResNet18):
        return [backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4]
    return [part for child in backbone.children() if isinstance(child, nn.Sequential) for part in child]


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _still_statistics(part)


@contextmanager
def _still_statistics(part: nn.Module) -> Iterator[None]:
    """Yield the second computation must not move the running statistics of batch norms again."""
    norms = [module for module in part.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
