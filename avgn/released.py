"""The model of the published checkpoints, and the translation of their names (docs/method.md, section 7).

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from avgn.config import Config
from avgn.model import AVGN
from avgn.transformer import TokenTransformer
from avgn.types import AudioSources, ImageCells

# (their name, ours), applied in order
NAMES = (
    (r"^av_token$", "tokens"),
    (r"^imgnet\.", "visual_encoder.backbone."),
    (r"^img_proj\.", "visual_encoder.project."),
    (r"^audnet\.", "audio_encoder.backbone."),
    (r"^aud_proj\.", "audio_encoder.project."),
    (r"^(audio|visual)_encoder\.blocks\.", r"\1_transformer.blocks."),
    (r"^(audio|visual)_encoder\.grouping\.", r"\1_grouping."),
    (r"^fc_prob_a\.", "audio_presence."),
    (r"^fc_prob_v\.", "visual_presence."),
    (r"^fc_cls\.", "token_class."),
    (r"(transformer\.blocks\.\d+)\.attn\.proj\.", r"\1.attention.project."),
    (r"(transformer\.blocks\.\d+)\.attn\.", r"\1.attention."),
    (r"\.fc1\.", ".0."),
    (r"\.fc2\.", ".2."),
)
# classes that the published code never uses
DEAD = re.compile(r"^audio_encoder\.han_encoder\.")


def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a published state dict under this package's names; `module.` prefixes and unused weights are dropped."""
    translated = {}
    for name, value in state.items():
        name = name.removeprefix("module.")
        if DEAD.match(name):
            continue
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        translated[name] = value
    return translated


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Attention(nn.Module):
    """Attention of queries [B,C,D] over values [B,P,D] with biases; `over_queries` normalises over the queries."""

    def __init__(self, dim: int, heads: int, *, over_queries: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.over_queries = over_queries
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, values: Tensor) -> Tensor:
        """[B,C,D]."""
        query, key, value = (
            self._split(self.q_proj(queries)),
            self._split(self.k_proj(values)),
            self._split(self.v_proj(values)),
        )
        scores = torch.matmul(query, key.transpose(2, 3)) * query.shape[3] ** -0.5
        if self.over_queries:
            weights = torch.softmax(scores, dim=2)
            weights = weights / (weights.sum(dim=3, keepdim=True) + 1.0)
        else:
            weights = torch.softmax(scores, dim=3)
        mixed = torch.matmul(weights, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class CrossAttention(nn.Module):
    """Tokens look at features, then a residual MLP, then a norm: ([B,C,D], [B,P,D]) -> [B,C,D]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attn = Attention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim)
        self.mlp = _mlp(config.dim, config.mlp_ratio * config.dim)
        self.norm_post = nn.LayerNorm(config.dim)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        tokens = tokens + self.attn(tokens, features)
        tokens = tokens + self.mlp(self.norm2(tokens))
        return self.norm_post(tokens)


class ReleasedGrouping(nn.Module):
    """Features are assigned to mixed, attended tokens: ([B,P,D], [B,C,D]) -> [B,C,D]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.dim
        self.norm_tokens = nn.LayerNorm(dim)
        self.mlp_inter = _mlp(config.num_classes, dim // 2)
        self.norm_post_tokens = nn.LayerNorm(dim)
        self.norm_x = nn.LayerNorm(dim)
        self.pre_assign_attn = CrossAttention(config)
        self.assign = Attention(dim, 1, over_queries=True)
        self.norm_new_x = nn.LayerNorm(dim)
        self.mlp_channels = _mlp(dim, config.mlp_ratio * dim)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """features [B,P,D], tokens [B,C,D] -> [B,C,D]."""
        tokens = self.mlp_inter(self.norm_tokens(tokens).transpose(1, 2)).transpose(1, 2)
        tokens = self.norm_post_tokens(tokens)
        features = self.norm_x(features)
        tokens = self.pre_assign_attn(tokens, features)
        grouped = tokens + self.assign(tokens, features)
        return grouped + self.mlp_channels(self.norm_new_x(grouped))


class ReleasedAVGN(AVGN):
    """AVGN as its authors published it: other groupings, no norm after the transformers, and scores for cosines."""

    def build_transformers(self) -> tuple[nn.Module, nn.Module]:
        """Those that hand on what their blocks give."""
        return TokenTransformer(self.config, norm=False), TokenTransformer(self.config, norm=False)

    def build_groupings(self) -> tuple[nn.Module, nn.Module]:
        """Both in the published form."""
        return ReleasedGrouping(self.config), ReleasedGrouping(self.config)

    def hand_over(self, audio: AudioSources) -> Tensor:
        """Return the sources [B,K,D] as they are: their lengths count."""
        return audio.embedding

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,K,h,w]: <f, g> / temperature of every source and cell."""
        maps = torch.matmul(audio.embedding, image.cells.transpose(1, 2)) / self.config.temperature
        return maps.reshape(maps.shape[0], maps.shape[1], *image.grid)
