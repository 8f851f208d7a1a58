"""Rewrites a trained localizer into one that computes the same with fewer operations (the source of every graph).

What depends on the class tokens alone is computed once; batch norms go into convolutions, the scale of pixels into
the first of them, and pairs of projections into one matrix; the front-end's transform is folded, or made one product
(`spectrum.py`).

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from avgn.encoders import ResNet18
from avgn.encoders.efficientnet_lite import ConvNorm
from avgn.export.spectrum import FoldedSpectrogram, FramedSpectrogram
from avgn.grouping import AudioGrouping, Grouping
from avgn.kernels import grouping_attention
from avgn.model import AVGN, LocalizerModel
from avgn.transformer import Block, SelfAttention, TokenTransformer

# the front-end whose transform has other forms
FOLDED = "paper"
# forms of the front-end's transform: fewest multiply-adds (a CPU), fewest kernels (a GPU), as the model computes it
FrontEnd = Literal["folded", "framed", "whole"]


@dataclass(frozen=True, eq=False)
class OptimizedModel:
    """What `optimize` made of a localizer: the halves that are exported take nothing else.

    In `model` the first convolution divides by the pixels' deviation, and its `image_std` is 1.
    """

    model: LocalizerModel


def optimize(model: LocalizerModel, *, front_end: FrontEnd = "folded") -> OptimizedModel:
    """Copy a model in evaluation mode so that it gives the same maps and probabilities (to rounding), for inference."""
    optimized = copy.deepcopy(model).eval().requires_grad_(False)
    _rewrite(optimized, front_end)
    return OptimizedModel(optimized)


def check_optimized(optimized: object) -> None:
    """Raise TypeError for what `optimize` did not make: its graphs would not scale the pixels."""
    if not isinstance(optimized, OptimizedModel):
        raise TypeError(f"only an optimized model is exported, got {type(optimized).__name__}: give optimize(model)")


def _rewrite(model: LocalizerModel, front_end: FrontEnd) -> None:
    """Rewrite a model in place."""
    fold_batch_norms(model.audio_encoder.backbone)
    for backbone in model.image_backbones():
        fold_batch_norms(backbone)
    _fold_pixel_scale(model)
    if front_end != "whole" and model.frontend.kind == FOLDED:
        form = FoldedSpectrogram if front_end == "folded" else FramedSpectrogram
        setattr(model, "frontend", form(model.frontend))  # noqa: B010 - another type in its place
    if not isinstance(model, AVGN) or not model.has_presence:
        return
    for name in ("audio", "visual"):
        transformer = getattr(model, f"{name}_transformer")
        if isinstance(transformer, TokenTransformer):
            setattr(model, f"{name}_transformer", FrozenTransformer(transformer, model.tokens))
    if isinstance(model.audio_grouping, AudioGrouping):
        model.audio_grouping = FrozenAudioGrouping(model.audio_grouping)
    if isinstance(model.visual_grouping, Grouping):
        model.visual_grouping = FrozenGrouping(model.visual_grouping, _cells(model), model.config.num_classes)
    if model.config.visual_gate == "token":
        setattr(model, "token_gate", Constant(model.token_gate(model.tokens)))  # noqa: B010 - another type in its place


def fold_batch_norms(backbone: nn.Module) -> None:
    """Put every batch norm (in evaluation mode) into the convolution before it."""
    for module in backbone.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv, module.norm = fuse_conv_bn_eval(module.conv, module.norm), nn.Identity()
    if not isinstance(backbone, ResNet18):
        return
    folded: Any = backbone
    folded.conv1, folded.bn1 = fuse_conv_bn_eval(folded.conv1, folded.bn1), nn.Identity()
    for stage in (folded.layer1, folded.layer2, folded.layer3, folded.layer4):
        for block in stage:
            block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), nn.Identity()
            block.conv2, block.bn2 = fuse_conv_bn_eval(block.conv2, block.bn2), nn.Identity()
            if block.downsample is not None:
                block.downsample = fuse_conv_bn_eval(block.downsample[0], block.downsample[1])


def _fold_pixel_scale(model: LocalizerModel) -> None:
    """Divide the first convolution's weights, not the pixels, by the pixels' deviation.

    Their mean stays a subtraction: the zeros around the picture mean the mean, so it is no bias, and a constant fourth
    channel, which is exact, doubled the time of this convolution on a CPU.
    """
    for backbone in model.image_backbones():
        first = first_convolution(backbone)
        scaled = first.weight.double() / model.image_std.double()
        first.weight = nn.Parameter(scaled.to(first.weight.dtype), requires_grad=False)
    model.image_std.fill_(1.0)


def first_convolution(backbone: nn.Module) -> nn.Conv2d:
    """Return the one that sees the pixels."""
    return next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))


class Constant(nn.Module):
    """What a layer would give for the class tokens."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.detach().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        return self.value


class FrozenAttention(nn.Module):
    """Self-attention with its scale in the query's weights; `forward` takes what `qkv` gives, [B,L,3D] -> [B,L,D]."""

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.qkv = copy.deepcopy(attention.qkv)
        self.project = attention.project
        dim = attention.project.in_features
        scale = (dim // self.heads) ** -0.5
        self.qkv.weight[:dim] *= scale
        self.qkv.bias[:dim] *= scale

    def forward(self, qkv: Tensor) -> Tensor:
        query, key, value = (self._split(part) for part in qkv.chunk(3, dim=2))
        scores = torch.matmul(query, key.transpose(2, 3))
        # cast by hand: the exporter puts the cast of softmax(dtype=...) behind it
        weights = torch.softmax(scores.to(torch.promote_types(scores.dtype, torch.float32)), dim=3)
        mixed = torch.matmul(weights.to(value.dtype), value)
        return self.project(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class FrozenBlock(nn.Module):
    """A pre-norm block; `qkv_of_tokens` [1,C,3D] stands for the tokens in the first one."""

    qkv_of_tokens: Tensor | None

    def __init__(self, block: Block, tokens: Tensor | None) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.attention = FrozenAttention(block.attention)
        self.norm2 = block.norm2
        self.mlp = block.mlp
        known = None if tokens is None else self.attention.qkv(self.norm1(tokens))[None]
        self.register_buffer("qkv_of_tokens", known)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """x [B,L,D]; features [B,P,D], its first rows."""
        if self.qkv_of_tokens is None:
            qkv = self.attention.qkv(self.norm1(x))
        else:
            qkv = self.attention.qkv(self.norm1(features))
            qkv = torch.cat([qkv, self.qkv_of_tokens.to(qkv.dtype).expand(qkv.shape[0], -1, -1)], dim=1)
        x = x + self.attention(qkv)
        return x + self.mlp(self.norm2(x))


class FrozenTransformer(nn.Module):
    """A token transformer whose first block knows the tokens: features [B,P,D] -> [B,P,D], [B,C,D]."""

    def __init__(self, transformer: TokenTransformer, tokens: Tensor) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            FrozenBlock(block, tokens if index == 0 else None)
            for index, block in enumerate(transformer.blocks)
            if isinstance(block, Block)
        )
        self.norm = transformer.norm

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([features, tokens.expand(features.shape[0], -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x, features)
        x = self.norm(x)
        return x[:, : features.shape[1]], x[:, features.shape[1] :]


class FrozenAudioGrouping(nn.Module):
    """g_i = c_i + (W_o W_v) f."""

    def __init__(self, grouping: AudioGrouping) -> None:
        super().__init__()
        self.value_out = _linear(grouping.out.weight.double() @ grouping.value.weight.double(), grouping.out)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        return tokens + self.value_out(features)


class FrozenGrouping(nn.Module):
    """Grouping with W_q^T W_k as one matrix on the tokens or the cells, and W_o W_v as one on the sums or the cells.

    Both go to the shorter side.
    """

    def __init__(self, grouping: Grouping, cells: int, classes: int) -> None:
        super().__init__()
        query, key = grouping.query.weight.double(), grouping.key.weight.double()
        self.few_classes = classes <= cells
        # <W_q f, W_k c> = <f, W_q^T W_k c> = <W_k^T W_q f, c>
        self.query_key = _linear(query.T @ key if self.few_classes else key.T @ query, grouping.key)
        self.value_out = _linear(grouping.out.weight.double() @ grouping.value.weight.double(), grouping.out)
        self.scale, self.eps, self.hard = grouping.scale, grouping.eps, grouping.hard

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """features [B,P,D], tokens [B,C,D] -> [B,C,D]."""
        if self.few_classes:
            query, key, value = features, self.query_key(tokens), features
        else:
            query, key, value = self.query_key(features), tokens, self.value_out(features)
        grouped = grouping_attention(query, key, value, scale=self.scale, eps=self.eps, hard=self.hard)
        return tokens + (self.value_out(grouped) if self.few_classes else grouped)


def _linear(weight: Tensor, like: nn.Linear) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    made.weight = nn.Parameter(weight.to(like.weight.dtype), requires_grad=False)
    return made


def _cells(model: AVGN) -> int:
    height, width = model.config.grid
    return height * width
