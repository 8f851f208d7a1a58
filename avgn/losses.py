"""The losses: localization by contrast over the images, and grouping by class labels (paper eq. 9-11).

Legend: B samples of the global batch, N sources of a sample (padded), C classes, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from avgn.config import Config
from avgn.kernels import max_pooled_cosine
from avgn.types import AudioSources, ImageCells, Labels, Losses


def compute_losses(
    audio: AudioSources,
    image: ImageCells,
    labels: Labels,
    token_logits: Tensor | None,
    config: Config,
    *,
    gather: bool = True,
    localize: Callable[..., Tensor] | None = None,
) -> Losses:
    """L = L_loc + L_group (docs/method.md, section 5) of one global batch, or without `gather` of this process's own.

    `localize` takes the place of `localization_loss` where other quantities than cosines are contrasted.

    The localization loss is that of the global batch in every process, the presence losses are those of its own
    samples: their mean over the processes is that of the global batch.
    """
    localization = (localize or localization_loss)(audio, image, labels, config, gather=gather)
    zero = localization.new_zeros(())
    token = zero
    if token_logits is not None:
        target = torch.arange(token_logits.shape[0], device=token_logits.device)
        token = nn.functional.cross_entropy(token_logits, target, reduction=config.class_reduction)
    heard = zero if audio.logit is None else presence_loss(audio.logit, labels.sounding, config)
    seen = zero if image.logit is None else presence_loss(image.logit, labels.visible, config)
    return Losses(
        total=localization + token + heard + seen, localization=localization, token=token, audio=heard, visual=seen
    )


def localization_loss(
    audio: AudioSources, image: ImageCells, labels: Labels, config: Config, *, gather: bool = True
) -> Tensor:
    """Cross-entropy of every source over the images of the global batch (eq. 10), divided by the number of sources.

    Samples without a source that both sounds and is visible add nothing; with none at all the loss is a zero that
    keeps the graph.
    """
    if gather:
        audio, image, labels = gather_halves(audio, image, labels)
    if config.ablation == "neither":
        return _unlabelled_loss(audio, image, config)
    sources = _take(audio.embedding, labels.order)
    if config.negatives == "class" or image.gate is None:
        similarity, _ = max_pooled_cosine(
            sources,
            image.cells,
            image.gate,
            gate_index=None if image.gate is None else labels.order,
            audio_mask=labels.mask,
        )
        allowed = class_negatives(labels.visible, labels.order)
    else:
        similarity, _ = max_pooled_cosine(
            sources, image.cells, _take(image.gate, labels.order), audio_mask=labels.mask, visual_mask=labels.mask
        )
        same = labels.order[:, None, :] == labels.order[None, :, :]
        allowed = ~same | _own(labels.order)
    logits = similarity / config.temperature
    loss = contrast(logits, allowed, labels.mask)
    if config.symmetric and (config.negatives == "nth" or image.gate is None):
        loss = 0.5 * (loss + contrast(logits.transpose(0, 1), allowed.transpose(0, 1), labels.mask))
    return loss


def class_negatives(present: Tensor, order: Tensor) -> Tensor:
    """Say [B,M,N] bool whether sample m is sample b itself, or lacks the class order [B,N] of its n-th source.

    `present` [M,C] says which classes a sample has: one that has the class is no negative.
    """
    return ~present.bool()[:, order].transpose(0, 1) | _own(order)


def _own(order: Tensor) -> Tensor:
    return torch.eye(len(order), dtype=torch.bool, device=order.device)[:, :, None]


def contrast(logits: Tensor, allowed: Tensor, mask: Tensor) -> Tensor:
    """Mean over the sources (b, n) of -log softmax over m, at m = b, of logits [B,M,N] where allowed."""
    # -inf in a row without sources would give NaN gradients
    logits = torch.where(mask[:, None, :], logits.masked_fill(~allowed, float("-inf")), torch.zeros_like(logits))
    positive = logits.diagonal(dim1=0, dim2=1).transpose(0, 1)
    per_source = torch.logsumexp(logits, dim=1) - positive
    return (per_source * mask).sum() / mask.sum().clamp_min(1)


def _unlabelled_loss(audio: AudioSources, image: ImageCells, config: Config) -> Tensor:
    similarity, _ = max_pooled_cosine(audio.embedding, image.cells)
    logits = similarity[:, :, 0] / config.temperature
    target = torch.arange(logits.shape[0], device=logits.device)
    loss = nn.functional.cross_entropy(logits, target)
    if config.symmetric:
        loss = 0.5 * (loss + nn.functional.cross_entropy(logits.t(), target))
    return loss


def presence_loss(logit: Tensor, target: Tensor, config: Config) -> Tensor:
    """Binary cross-entropy of presence logits [B,C] against targets [B,C], reduced as the configuration says."""
    loss = nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    per_sample = loss.mean(dim=1) if config.class_reduction == "mean" else loss.sum(dim=1)
    return per_sample.mean()


def _take(per_class: Tensor, order: Tensor) -> Tensor:
    """[B,C,D] at [B,N] -> [B,N,D]."""
    return per_class.gather(1, order[:, :, None].expand(-1, -1, per_class.shape[2]))


def gather_halves(audio: AudioSources, image: ImageCells, labels: Labels) -> tuple[AudioSources, ImageCells, Labels]:
    """Return the global batch: every process's tensors with gradients, sources padded to the largest N."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return audio, image, labels
    most = torch.tensor(labels.order.shape[1], device=labels.order.device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    padding = (0, int(most) - labels.order.shape[1])
    return (
        AudioSources(embedding=_all(audio.embedding), logit=audio.logit),
        ImageCells(
            cells=_all(image.cells),
            gate=None if image.gate is None else _all(image.gate),
            logit=image.logit,
            grid=image.grid,
        ),
        Labels(
            sounding=_all(labels.sounding),
            visible=_all(labels.visible),
            order=_all(nn.functional.pad(labels.order, padding)),
            mask=_all(nn.functional.pad(labels.mask, padding)),
        ),
    )


def gather_rows(tensor: Tensor) -> Tensor:
    """Return the rows [b, ...] of all processes, with gradients; a single process's stay as they are."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return tensor
    return _all(tensor)


class _Gather(torch.autograd.Function):
    """The tensors [b, ...] of all processes as one [world * b, ...], in the order of their ranks.

    Each process computes the loss of the whole from it, so a tensor's gradient is the sum of what all processes say.
    PyTorch's own function reads gradients that are not contiguous wrongly with gloo.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        gathered = tensor.new_empty((dist.get_world_size(), *tensor.shape))
        dist.all_gather(list(gathered.unbind()), tensor.contiguous())
        return gathered.flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # the copy also keeps the sum out of a buffer that may be shared
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def _all(tensor: Tensor) -> Tensor:
    gathered = _Gather.apply(tensor)
    assert isinstance(gathered, Tensor)
    return gathered
