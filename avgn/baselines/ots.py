"""Arandjelovic & Zisserman 2018: the sound is compared with every cell, and the best cell says whether they match.

m_p = sigmoid(w <v_p, a> + b)      L = binary cross-entropy of max_p m_p on matched and mismatched pairs
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avgn.baselines.parts import SharedMap, all_pairs, check_positive, global_batch, make_losses, matching_loss
from avgn.config import Config
from avgn.types import AudioSources, ImageCells, Labels, Losses


@dataclass(frozen=True, kw_only=True)
class ObjectsThatSoundOptions:
    """`scale` and `bias` that w and b start from."""

    scale: float = 5.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "scale")


class ObjectsThatSound(SharedMap):
    """The map is the probability of every cell to match."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        options: ObjectsThatSoundOptions = config.system_options
        self.scale = nn.Parameter(torch.tensor([options.scale]))
        self.bias = nn.Parameter(torch.tensor([options.bias]))

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,1,h,w]."""
        return torch.sigmoid(self.scale * super().localize(audio, image) + self.bias)

    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """Return the loss over all pairs of the batch, which are matched or mismatched."""
        audio, image, _ = global_batch(audio, image, labels, gather)
        return make_losses(matching_loss((self.scale * all_pairs(audio, image) + self.bias).amax(dim=2)))
