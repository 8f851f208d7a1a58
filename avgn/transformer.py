"""The transformers over features and class tokens (paper eq. 2-5).

Legend: B batch, L tokens, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from avgn.config import Config

INIT_STD = 0.02


class SelfAttention(nn.Module):
    """Multi-head self-attention: [B,L,D] -> [B,L,D]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        query, key, value = self.qkv(x).view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.project(mixed.transpose(1, 2).reshape(batch, length, dim))


class Block(nn.Module):
    """Pre-norm transformer block with drop-path: [B,L,D] -> [B,L,D]."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class TokenTransformer(nn.Module):
    """`depth` blocks over the features followed by the class tokens, and a final norm unless `norm` is False."""

    def __init__(self, config: Config, *, norm: bool = True) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(Block(config.dim, config.heads, config.mlp_ratio, config.drop_path) for _ in range(config.depth))
        )
        self.norm = nn.LayerNorm(config.dim) if norm else nn.Identity()
        # branches louder than their input would drown which class a token is, and what a cell holds
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """features [B,P,D], tokens [C,D] -> features [B,P,D], tokens [B,C,D]."""
        x = _join(features, tokens)
        x = self.norm(self.blocks(x))
        return x[:, : features.shape[1]], x[:, features.shape[1] :]


class LiteralAttention(nn.Module):
    """Equations 4-5 as printed: `depth` times softmax(X X^T / sqrt(D)) X, with nothing learned."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.depth = config.depth

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """features [B,P,D], tokens [C,D] -> features [B,P,D], tokens [B,C,D]."""
        x = _join(features, tokens)
        for _ in range(self.depth):
            x = torch.softmax(x @ x.transpose(1, 2) / math.sqrt(x.shape[2]), dim=2) @ x
        return x[:, : features.shape[1]], x[:, features.shape[1] :]


class NoTransformer(nn.Module):
    """The ablation without transformers: both pass through."""

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """features [B,P,D], tokens [C,D] -> features [B,P,D], tokens [B,C,D]."""
        return features, tokens.expand(features.shape[0], -1, -1)


def build_transformer(config: Config) -> nn.Module:
    """Return the transformer that the configuration asks for."""
    if config.ablation == "grouping":
        return NoTransformer()
    return TokenTransformer(config) if config.attention == "transformer" else LiteralAttention(config)


def _join(features: Tensor, tokens: Tensor) -> Tensor:
    return torch.cat([features, tokens.expand(features.shape[0], -1, -1)], dim=1)
