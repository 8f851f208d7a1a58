"""Grouping: features are assigned to class tokens and summed into class-aware embeddings (paper eq. 6-8).

Legend: B batch, P cells, C classes, D width.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from avgn.config import Config
from avgn.kernels import grouping_attention

AUDIO_EPS = 1.0


class Grouping(nn.Module):
    """g_i = c_i + W_o (sum_p A_pi W_v f_p / (sum_p A_pi + eps)).

    `eps` = 1 is the released weighting of the single audio feature, which does not cancel as it does with 0.
    """

    def __init__(self, config: Config, *, eps: float = 0.0, hard: bool = False) -> None:
        super().__init__()
        self.query = nn.Linear(config.dim, config.dim, bias=False)
        self.key = nn.Linear(config.dim, config.dim, bias=False)
        self.value = nn.Linear(config.dim, config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        self.scale = 1.0 / math.sqrt(config.dim)
        self.eps = eps
        self.hard = hard

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """features [B,P,D], tokens [B,C,D] -> [B,C,D]."""
        grouped = grouping_attention(
            self.query(features),
            self.key(tokens),
            self.value(features),
            scale=self.scale,
            eps=self.eps,
            hard=self.hard,
        )
        return tokens + self.out(grouped)


class AudioGrouping(nn.Module):
    """With one feature the soft assignment cancels: g_i = c_i + W_o W_v f.

    A hard assignment would give a mixture to a single class, so it is made among the cells of a picture alone.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.value = nn.Linear(config.dim, config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """features [B,1,D], tokens [B,C,D] -> [B,C,D]."""
        return tokens + self.out(self.value(features))


class NoGrouping(nn.Module):
    """The ablation without grouping: g_i = c_i."""

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """features [B,P,D], tokens [B,C,D] -> [B,C,D]."""
        return tokens


def build_audio_grouping(config: Config) -> nn.Module:
    """Return the audio grouping that the configuration asks for."""
    if config.ablation == "tokens":
        return NoGrouping()
    return AudioGrouping(config) if config.audio_gate == "exact" else Grouping(config, eps=AUDIO_EPS)


def build_visual_grouping(config: Config) -> nn.Module:
    """Return the visual grouping that the configuration asks for."""
    return NoGrouping() if config.ablation == "tokens" else Grouping(config, hard=config.assignment == "hard")
