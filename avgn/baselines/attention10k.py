"""Senocak et al. 2018: attention of the sound over the locations, and a ratio loss of the attended vector.

    h = W2 relu(W1 f_s)      alpha_p = softmax_p <v_p, h>      z = sum_p alpha_p v_p      f_v = V2 relu(V1 z)
    d+- = |f_v - f_s+-|      [D+, D-] = softmax(d+, d-)        L = |[D+, D-] - [0, 1]|^2

Legend: B batch, P cells, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avgn.baselines.parts import SharedMap, as_maps, check_positive, global_batch, make_losses, mean_where
from avgn.config import Config
from avgn.types import AudioSources, ImageCells, Labels, Losses

# the square root of a distance of 0 has no gradient
NEAREST = 1e-8


@dataclass(frozen=True, kw_only=True)
class Attention10kOptions:
    """`scale` of the scalar products of unit vectors before their softmax."""

    scale: float = 10.0

    def __post_init__(self) -> None:
        check_positive(self, "scale")


class Attention10k(SharedMap):
    """The map is the attention: it sums to 1."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        options: Attention10kOptions = config.system_options
        self.scale = options.scale
        self.attend = nn.Sequential(nn.Linear(config.dim, config.dim), nn.ReLU(), nn.Linear(config.dim, config.dim))
        self.embed = nn.Sequential(nn.Linear(config.dim, config.dim), nn.ReLU(), nn.Linear(config.dim, config.dim))
        # twice what a flat map holds
        self.map_threshold = min(0.9, 2.0 / (config.grid[0] * config.grid[1]))

    def attention(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """alpha [B,1,P]."""
        query = nn.functional.normalize(self.attend(audio.embedding), dim=2)
        return torch.softmax(self.scale * torch.matmul(query, image.cells.transpose(1, 2)), dim=2)

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,1,h,w]."""
        return as_maps(self.attention(audio, image), image.grid)

    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """Return the ratio loss; every other sound of the batch is a negative."""
        audio, image, _ = global_batch(audio, image, labels, gather)
        attended = torch.matmul(self.attention(audio, image), image.cells)[:, 0]
        return make_losses(ratio_loss(nn.functional.normalize(self.embed(attended), dim=1), audio.embedding[:, 0]))


def ratio_loss(seen: Tensor, heard: Tensor) -> Tensor:
    """Mean of (D+)^2 + (1 - D-)^2 over images [B,D] with each of the other sounds [B,D] (all of length one)."""
    distance = (2 - 2 * seen @ heard.T).clamp_min(NEAREST).sqrt()
    positive = torch.sigmoid(distance.diagonal()[:, None] - distance)
    others = ~torch.eye(len(seen), dtype=torch.bool, device=seen.device)
    return mean_where(positive.square() + positive.square(), others)
